//! The numbers, for the terminal and for the page.

use std::f64::consts::PI;

use margin_softmax::{
    MarginSoftmax, Others, Result,
    objective::Fallback,
    theory::{self, Criterion, OptimalMargin},
};

use crate::setting::{CERTAIN, FAMILIES, PULL, Setting};

/// One table with what the page says about it.
pub struct Table {
    pub title: String,
    pub text: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// All of them.
pub fn all(setting: &Setting) -> Result<Vec<Table>> {
    Ok(vec![
        angles(setting)?,
        sums(setting)?,
        terminations(setting)?,
        optimal(setting)?,
        collapse(setting)?,
        scales(setting)?,
    ])
}

/// 85742 as 85,742.
pub fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let comma = |i: usize| if i > 0 && (digits.len() - i).is_multiple_of(3) { "," } else { "" };
    digits.chars().enumerate().map(|(i, digit)| format!("{}{digit}", comma(i))).collect()
}

/// With this one among them, in order.
fn with<T: PartialOrd + Copy>(values: &[T], one: T) -> Vec<T> {
    let smaller = values.iter().copied().filter(|v| *v < one);
    smaller.chain([one]).chain(values.iter().copied().filter(|v| *v > one)).collect()
}

fn titles(all: &[&str]) -> Vec<String> {
    all.iter().map(|title| title.to_string()).collect()
}

fn or_dash(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or("–".into(), show)
}

/// Five digits, small and large values as a power of ten.
fn digits(value: f64) -> String {
    if value == 0.0 || (1e-3..1e5).contains(&value) { format!("{value:.4}") } else { format!("{value:.3e}") }
}

fn angles(setting: &Setting) -> Result<Table> {
    let dims = with(&[16, 64, 128, 256, 512, 2048], setting.dim);
    let row = |classes: usize| -> Result<Vec<String>> {
        let angle = |&dim: &usize| Ok(format!("{:.2}", theory::nearest_prototype_angle(classes, dim)?.to_degrees()));
        std::iter::once(Ok(grouped(classes))).chain(dims.iter().map(angle)).collect()
    };
    let classes = with(&[10, 100, 1211, 5994, 85_742, 1_000_000, 1_000_000_000], setting.classes);
    let pair = theory::closest_pair_asymptote(setting.classes, setting.dim)?.to_degrees();
    Ok(Table {
        title: "Angle to the nearest of the other prototypes, °".into(),
        text: format!(
            "The mean for prototypes spread at random over the unit sphere. Half of it is as far as an embedding can go \
             from its own prototype and still be nearer to it than to the nearest other one. The closest of all pairs \
             is nearer, for {} classes in {} dimensions about {pair:.2}°, an asymptote for many classes.",
            grouped(setting.classes),
            setting.dim,
        ),
        header: std::iter::once("classes".into()).chain(dims.iter().map(|dim| format!("{dim} dim"))).collect(),
        rows: classes.into_iter().map(row).collect::<Result<_>>()?,
    })
}

fn sums(setting: &Setting) -> Result<Table> {
    let mut rows = Vec::new();
    for dim in with(&[64, 128, 512], setting.dim) {
        for scale in with(&[10.0, 30.0, 64.0], setting.scale) {
            let exact = theory::ln_wrong_class_sum(setting.classes, dim, scale)?;
            let published = theory::ln_wrong_class_sum_published(setting.classes, dim, scale)?;
            // below that is rounding
            let excess = digits(100.0 * Some((published - exact).exp_m1()).filter(|&e| e > 1e-13).unwrap_or(0.0));
            rows.push(vec![
                dim.to_string(),
                scale.to_string(),
                format!("{exact:.6}"),
                format!("{published:.6}"),
                excess,
            ]);
        }
    }
    Ok(Table {
        title: format!("ln B, the logarithm of the wrong classes' sum, for {} classes", grouped(setting.classes)),
        text: "B is the mean of Σ exp(s · cosine) over the wrong classes. The published (C − 1) exp(s²/2d) takes the \
               cosines as normally distributed; the exact value is a Bessel function. The last column is by how much \
               the published B itself is too large."
            .into(),
        header: titles(&["dim", "scale", "exact", "published", "published B too large by, %"]),
        rows,
    })
}

fn terminations(setting: &Setting) -> Result<Table> {
    let row = |name: &str, loss: &MarginSoftmax| -> Result<Vec<String>> {
        let mut row = vec![name.to_string()];
        for criterion in [Criterion::Gradient(PULL), Criterion::Probability(CERTAIN)] {
            for ln_b in [setting.ln_b_published, setting.ln_b] {
                let angle = theory::termination_angle(loss, ln_b, criterion)?;
                row.push(or_dash(angle, |a| format!("{:.4}", a.to_degrees())));
            }
        }
        Ok(row)
    };
    let families = FAMILIES.iter().map(|f| row(f.name, &setting.loss(f.margins, Fallback::Continuous)));
    let cheby = MarginSoftmax::cheby_aam().with_scale(setting.scale);
    Ok(Table {
        title: format!(
            "Termination angles, ° (half way to the nearest prototype: {:.4}°)",
            setting.half().to_degrees()
        ),
        text: "Below this angle training stops: the gradient dL/dθ is below 1 per radian, or P(y) above 0.95. With a \
               margin that suits, it is half way to the nearest other prototype. 0 means that training never stops, a \
               dash that it never acts."
            .into(),
        header: titles(&[
            "loss",
            "gradient 1, published B",
            "gradient 1, exact B",
            "P = 0.95, published B",
            "P = 0.95, exact B",
        ]),
        rows: families.chain([row("ChebyAAM m2 = 0.2", &cheby)]).collect::<Result<_>>()?,
    })
}

fn optimal(setting: &Setting) -> Result<Table> {
    let row = |name: String, half: f64, ln_b, criterion| -> Result<Vec<String>> {
        let OptimalMargin { m0, m1, m2, m3 } = theory::optimal_margin(half, ln_b, setting.scale, criterion)?;
        let margins = [m0, m1, m2, m3].map(|m| or_dash(m, |m| format!("{m:.6}")));
        Ok([name, format!("{:.4}", half.to_degrees()), format!("{ln_b:.6}")].into_iter().chain(margins).collect())
    };
    let (p, e) = (Criterion::Probability(CERTAIN), Criterion::Gradient(PULL));
    let mut rows = Vec::new();
    if setting.is_the_papers() {
        let cells = ["the paper's, in steps of 0.05", "39.32", "15.359086", "0.35", "1.85", "0.60", "0.50"];
        rows.push(titles(&cells));
        let published = "P = 0.95, published angle and B".to_string();
        rows.push(row(published, 39.32_f64.to_radians(), setting.ln_b_published, p)?);
    }
    rows.push(row("P = 0.95, exact".into(), setting.half(), setting.ln_b, p)?);
    rows.push(row("P = 0.99, exact".into(), setting.half(), setting.ln_b, Criterion::Probability(0.99))?);
    rows.push(row("gradient 1, exact".into(), setting.half(), setting.ln_b, e)?);
    rows.push(row("gradient 0.01, exact".into(), setting.half(), setting.ln_b, Criterion::Gradient(0.01))?);
    Ok(Table {
        title: "Optimal margins, each alone: training terminates half way to the nearest prototype".into(),
        text: "AmpFace's m0, SphereFace's m1, ArcFace's m2 (radians) and CosFace's m3. A dash where no margin of the \
               family does it."
            .into(),
        header: titles(&["criterion", "half angle, °", "ln B", "m0", "m1", "m2, rad", "m3"]),
        rows,
    })
}

fn collapse(setting: &Setting) -> Result<Table> {
    let more = [("AmpFace m0 = 0.65", [0.65, 1.0, 0.0, 0.0])];
    let all = FAMILIES.iter().map(|f| (f.name, f.margins)).chain(more);
    let row = |(name, margins): (&str, [f64; 4])| -> Result<Vec<String>> {
        let mut row = vec![name.to_string()];
        for fallback in [Fallback::None, Fallback::Continuous, Fallback::Mirror] {
            row.push(digits(theory::collapse_loss(&setting.loss(margins, fallback), setting.classes)?));
        }
        let rectified = setting.loss(margins, Fallback::Continuous).with_others(Others::Rectified);
        row.push(digits(theory::collapse_loss(&rectified, setting.classes)?));
        Ok(row)
    };
    Ok(Table {
        title: format!("Loss of the collapsed state, {} classes, scale {}", grouped(setting.classes), setting.scale),
        text: "All prototypes in one point, every embedding opposite to it. A loss near 0 there is a minimum that \
               teaches nothing. The fallback, what the curve does where the angle passes 180°, decides for the \
               angular margins; WC-ReLU, which lets wrong classes behind the equator exert no force, for AmpFace."
            .into(),
        header: titles(&["loss", "none", "continuous", "mirror", "continuous, WC-ReLU"]),
        rows: all.map(row).collect::<Result<_>>()?,
    })
}

fn scales(setting: &Setting) -> Result<Table> {
    let row = |classes: usize| -> Result<Vec<String>> {
        let product = theory::arcgrad_scale(classes, 1.0)?;
        let half = theory::nearest_prototype_angle(classes, setting.dim)? / 2.0;
        Ok(vec![
            grouped(classes),
            format!("{product:.6}"),
            format!("{:.4}", theory::arcgrad_scale(classes, half)?),
            or_dash(Some(product / setting.scale).filter(|&m| m <= PI), |m| format!("{:.3}", m.to_degrees())),
            or_dash(theory::adacos_scale(classes).ok(), |s| format!("{s:.6}")),
        ])
    };
    let classes = with(&[2, 3, 6, 10, 100, 1211, 5994, 10_572, 85_742, 1_000_000], setting.classes);
    Ok(Table {
        title: "Scales: ArcGrad's has the steepest pull at a given angle m, AdaCos' is fixed by the classes".into(),
        text: "ArcGrad: s·m = 1 + W₀((C − 1)/e), with m in radians. AdaCos: √2 ln(C − 1), which is 0 for two classes \
               and refused."
            .into(),
        header: vec![
            "classes".into(),
            "ArcGrad s·m".into(),
            format!("ArcGrad s, m half way to the nearest, {} dim", setting.dim),
            format!("ArcGrad m at s = {}, °", setting.scale),
            "AdaCos s".into(),
        ],
        rows: classes.into_iter().map(row).collect::<Result<_>>()?,
    })
}

//! One HTML page that needs nothing else.

use std::{error::Error, fmt::Write};

use margin_softmax::{
    MarginSoftmax,
    objective::Fallback,
    theory::{self, Criterion},
};
use plotters::style::RGBColor;

use crate::{
    charts::{self, Axis, COLOURS, Curve, plain},
    families,
    setting::{CERTAIN, FAMILIES, PULL, Setting},
    tables::{Table, grouped},
};

pub type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// A function of loss, ln B and angle, as the theory has them.
pub type Of<'a> = &'a dyn Fn(&MarginSoftmax, f64, f64) -> margin_softmax::Result<f64>;

pub const GREY: RGBColor = RGBColor(128, 128, 128);
pub const SIZE: (u32, u32) = (470, 330);
const ANGLE: &str = "angle θ to the own prototype, °";
/// No loss below this is drawn.
const MIN: f64 = -8.0;

/// A line with its name.
pub struct Line {
    pub name: String,
    pub loss: MarginSoftmax,
    pub colour: RGBColor,
    pub dashed: bool,
    /// Where it begins, degrees.
    pub from: f64,
}

/// The page.
pub fn html(setting: &Setting, tables: &[Table]) -> Result<String> {
    let mut page = String::from(HEAD);
    write!(
        page,
        "<h1>Margins in theory</h1>
<p>{} classes, {} dimensions, scale {}. One embedding at the angle θ to its own prototype, the other prototypes spread at
random: on average the nearest lies at {:.2}°, half way is {:.2}° (the grey line), and the wrong classes sum to
B = exp({:.4}). Nothing here is trained.</p>\n",
        grouped(setting.classes),
        setting.dim,
        setting.scale,
        setting.nearest.to_degrees(),
        setting.half().to_degrees(),
        setting.ln_b,
    )?;
    over_the_angle(&mut page, setting)?;
    at_the_half_angle(&mut page, setting)?;
    over_the_classes(&mut page, setting)?;
    families::sections(&mut page, setting)?;
    for table in tables {
        write!(page, "<h2>{}</h2>\n<p>{}</p>\n<div class=\"scroll\"><table><thead><tr>", table.title, table.text)?;
        table.header.iter().try_for_each(|cell| write!(page, "<th>{}</th>", cell.replace(", ", ",&nbsp;")))?;
        page.push_str("</tr></thead><tbody>\n");
        for row in &table.rows {
            page.push_str("<tr>");
            row.iter().try_for_each(|cell| write!(page, "<td>{cell}</td>"))?;
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody></table></div>\n");
    }
    page.push_str(FOOT);
    Ok(page)
}

/// Loss, gradient and probability of the published margins.
fn over_the_angle(page: &mut String, setting: &Setting) -> Result<()> {
    let mut lines: Vec<Line> = FAMILIES
        .iter()
        .zip(COLOURS)
        .map(|(family, colour)| Line {
            name: family.name.into(),
            loss: setting.loss(family.margins, Fallback::Continuous),
            colour,
            dashed: false,
            from: 0.0,
        })
        .collect();
    let unmended = FAMILIES.iter().zip(COLOURS).filter(|(family, _)| family.margins[2] > 0.0);
    lines.extend(unmended.map(|(family, colour)| Line {
        name: format!("{}, fallback none", family.name),
        loss: setting.loss(family.margins, Fallback::None),
        colour,
        dashed: true,
        from: 180.0 - family.margins[2].to_degrees(), // up to there the fallback makes no difference
    }));
    let losses = curves(setting, &lines, &theory::row_loss)?;
    let log = |c: &Curve| {
        let points = c.points.iter().map(|&(x, y)| (x, y.log10())).collect();
        Curve { colour: c.colour, dashed: c.dashed, points }
    };
    let logs: Vec<Curve> = losses.iter().map(log).collect();
    let (_, most) = ends(&logs);
    let log = Axis::steps("loss", MIN, 2.0, ((most - MIN) / 2.0).ceil().max(1.0) as usize, power);
    write!(
        page,
        "<h2>Loss over the angle</h2>
<p>Where the loss has vanished, nothing draws an embedding on: a margin moves the curve to smaller angles, best to half
the way to the nearest prototype. Left as it is, right on a logarithmic axis. Where m1·θ + m2 reaches 180° a curve goes on with
slope 1 over cos θ, the fallback <code>continuous</code>; without it the loss falls again (dashed).</p>\n<figure>{}
<div class=\"two\">{}{}</div></figure>\n",
        legend(setting, &lines),
        chart(setting, "Loss", &whole(), &covering("loss", &losses), losses)?,
        chart(setting, "Loss, logarithmic", &whole(), &log, logs)?,
    )?;
    let gradients = curves(setting, &lines, &theory::gradient)?;
    let probabilities = curves(setting, &lines, &theory::probability)?;
    write!(
        page,
        "<h2>Gradient and probability over the angle</h2>
<p>The gradient is what pulls the embedding to its prototype: once P(y) nears 1 it ends, and that angle is what a margin
chooses. It jumps where the fallback begins. Below 0 it pushes the embedding away: what ArcFace without a fallback does to
the worst samples (dashed). Where P(y) is near 0, NormFace and CosFace
pull alike.</p>
<figure>{}<div class=\"two\">{}{}</div></figure>\n",
        legend(setting, &lines),
        chart(setting, "Gradient", &whole(), &covering("gradient dL/dθ, per radian", &gradients), gradients)?,
        chart(setting, "Probability", &whole(), &share(), probabilities)?,
    )?;
    Ok(())
}

/// The optimal margins by both criteria.
fn at_the_half_angle(page: &mut String, setting: &Setting) -> Result<()> {
    write!(
        page,
        "<h2>Optimal margins at the half angle</h2>
<p>Each family with the one margin that ends training half way to the nearest prototype, where P(y) = {CERTAIN} (upper
row) or dL/dθ = {PULL} per radian (lower row). All curves of a criterion meet at the grey line; how steeply they leave it
differs, and so does the pull at about 90°, where embeddings begin. The probability is drawn near the half angle only.</p>\n",
    )?;
    let first = ((setting.half().to_degrees() / 5.0).round() * 5.0 - 10.0).max(0.0);
    let near = Axis::steps(ANGLE, first, 5.0, 6, plain);
    for (name, criterion) in [
        (format!("P(y) = {CERTAIN} at the half angle"), Criterion::Probability(CERTAIN)),
        (format!("dL/dθ = {PULL} per radian at the half angle"), Criterion::Gradient(PULL)),
    ] {
        let best = theory::optimal_margin(setting.half(), setting.ln_b, setting.scale, criterion)?;
        let values = [best.m0, best.m1, best.m2, best.m3];
        let line = |(i, value): (usize, Option<f64>)| {
            let family = &FAMILIES[i + 1];
            let mut margins = [1.0, 1.0, 0.0, 0.0];
            margins[i] = value?;
            let word = family.name.split(' ').next().unwrap_or_default();
            Some(Line {
                name: format!("{word} m{i} = {:.4}", margins[i]),
                loss: setting.loss(margins, Fallback::Continuous),
                colour: COLOURS[i + 1],
                dashed: false,
                from: 0.0,
            })
        };
        let lines: Vec<Line> = values.into_iter().enumerate().filter_map(line).collect();
        if lines.is_empty() {
            writeln!(page, "<h3>{name}</h3><p>No margin does it in this setting.</p>")?;
            continue;
        }
        let gradients = curves(setting, &lines, &theory::gradient)?;
        writeln!(
            page,
            "<h3>{name}</h3><figure>{}<div class=\"two\">{}{}</div></figure>",
            legend(setting, &lines),
            chart(
                setting,
                "Probability with optimal margins",
                &near,
                &share(),
                curves(setting, &lines, &theory::probability)?
            )?,
            chart(
                setting,
                "Gradient with optimal margins",
                &whole(),
                &covering("gradient dL/dθ, per radian", &gradients),
                gradients
            )?,
        )?;
    }
    Ok(())
}

/// How the optimal margins move with the number of classes.
fn over_the_classes(page: &mut String, setting: &Setting) -> Result<()> {
    let mut lines = [const { Vec::new() }; 4];
    for tenth in 3..=90 {
        let classes = 10_f64.powf(f64::from(tenth) / 10.0).round() as usize;
        let log = (classes as f64).log10();
        let half = theory::nearest_prototype_angle(classes, setting.dim)? / 2.0;
        let ln_b = theory::ln_wrong_class_sum(classes, setting.dim, setting.scale)?;
        let best = theory::optimal_margin(half, ln_b, setting.scale, Criterion::Probability(CERTAIN))?;
        for (line, margin) in lines.iter_mut().zip([best.m0, best.m1, best.m2, best.m3]) {
            line.push((log, margin.unwrap_or(f64::NAN))); // a line breaks where there is none
        }
    }
    let curves: Vec<Curve> =
        lines.into_iter().zip(&COLOURS[1..]).map(|(points, &colour)| Curve { colour, dashed: false, points }).collect();
    let key = ["m0 (AmpFace)", "m1 (SphereFace)", "m2, radians (ArcFace)", "m3 (CosFace)"];
    let key: String = key.iter().zip(&COLOURS[1..]).map(|(name, &colour)| swatch(name, colour, false)).collect();
    let x = Axis::steps("classes", 0.0, 1.0, 9, power);
    write!(
        page,
        "<h2>Optimal margins over the number of classes</h2>
<p>{} dimensions, scale {}, P(y) = {CERTAIN} half way. More classes leave less room and a larger sum of wrong classes:
m2 and m3 have to be smaller, m0 larger. A line is missing where no margin of its family does it.</p>\n<figure><p class=\"key\">{key}</p>{}</figure>\n",
        setting.dim,
        setting.scale,
        charts::lines(
            "Optimal margins over the number of classes",
            (960, 320),
            &x,
            &covering("margin", &curves),
            &curves
        )?,
    )?;
    Ok(())
}

/// From 0° to 180°, exact B.
pub fn curves(setting: &Setting, lines: &[Line], of: Of<'_>) -> Result<Vec<Curve>> {
    let curve = |line: &Line| {
        // not the ends themselves: the slopes are bounded there, so every gradient would jump to 0
        let degrees = (1..1800).map(|i| f64::from(i) / 10.0).filter(|&d| d >= line.from);
        let points = degrees.map(|d| Ok((d, of(&line.loss, setting.ln_b, d.to_radians())?)));
        Ok(Curve { colour: line.colour, dashed: line.dashed, points: points.collect::<Result<_>>()? })
    };
    lines.iter().map(curve).collect()
}

/// Curves over the angle, and the half angle behind them.
pub fn chart(setting: &Setting, label: &str, x: &Axis, y: &Axis, curves: Vec<Curve>) -> Result<String> {
    let label = format!("{label} over the angle, one line per loss");
    let mark = upright(setting.half().to_degrees(), y, GREY, false);
    charts::lines(&label, SIZE, x, y, &std::iter::once(mark).chain(curves).collect::<Vec<_>>())
}

/// A line from the foot to the top of a picture.
pub fn upright(x: f64, y: &Axis, colour: RGBColor, dashed: bool) -> Curve {
    let ends = [y.ticks[0], y.ticks[y.ticks.len() - 1]];
    Curve { colour, dashed, points: ends.map(|end| (x, end)).to_vec() }
}

/// The least and the greatest value of the curves.
fn ends(curves: &[Curve]) -> (f64, f64) {
    let values = curves.iter().flat_map(|c| &c.points).map(|point| point.1).filter(|y| y.is_finite());
    values.fold((0.0, 0.0), |(low, high), y| (y.min(low), y.max(high)))
}

/// From 0, or below, to above the highest value, in about six whole steps of 1, 2 or 5 times a power of ten.
pub fn covering(title: &'static str, curves: &[Curve]) -> Axis {
    let (low, high) = ends(curves);
    let span = (high - low).max(1e-9);
    let power = 10_f64.powf((span / 6.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| s * 6.0 >= span).unwrap_or(span);
    let (first, last) = ((low / step).floor(), (high / step).ceil().max(1.0));
    Axis::steps(title, first * step, step, (last - first) as usize, short)
}

/// A tick that leaves room for the axis' title.
fn short(value: f64) -> String {
    let size = value.abs();
    if size < 1e-9 || (0.01..1e4).contains(&size) {
        plain(value)
    } else {
        format!("{value:.1e}").replace(".0e", "e").replace('-', "−")
    }
}

/// Every angle.
pub fn whole() -> Axis {
    Axis::steps(ANGLE, 0.0, 30.0, 6, plain)
}

fn share() -> Axis {
    Axis::steps("probability P(y)", 0.0, 0.2, 5, plain)
}

/// 10 to a whole power.
fn power(exponent: f64) -> String {
    if (0.0..=2.0).contains(&exponent) {
        return plain(10_f64.powf(exponent));
    }
    let raised = |digit: char| match digit {
        '-' => '⁻',
        digit => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit.to_digit(10).unwrap_or(0) as usize],
    };
    format!("10{}", exponent.to_string().chars().map(raised).collect::<String>())
}

/// Which line is which loss.
pub fn legend(setting: &Setting, lines: &[Line]) -> String {
    let half = format!("half way to the nearest prototype, {:.2}°", setting.half().to_degrees());
    let keys = lines.iter().map(|line| swatch(&line.name, line.colour, line.dashed));
    format!("<p class=\"key\">{}</p>", keys.chain([swatch(&half, GREY, false)]).collect::<String>())
}

pub fn swatch(name: &str, RGBColor(r, g, b): RGBColor, dashed: bool) -> String {
    let class = if dashed { "line dashed" } else { "line" };
    format!("<span><i class=\"{class}\" style=\"color:rgb({r},{g},{b})\"></i>{name}</span>")
}

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Margins in theory</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1f24; --soft: #5a6270; --rule: #d9dde3; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181d; --ink: #e4e7ec; --soft: #a2abb8; --rule: #353b45; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 1020px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.8rem; margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem; border-top: 1px solid var(--rule); padding-top: 1.2rem; }
h3 { font-size: 1rem; margin: 1rem 0 0; }
p { margin: .4rem 0; }
.key, footer { color: var(--soft); font-size: .9rem; }
.key span { display: inline-block; margin-right: 1.2rem; }
i.line { display: inline-block; width: 1.8em; border-top: 3px solid; margin-right: .4em; vertical-align: .25em; }
i.dashed { border-top-style: dashed; }
figure { margin: .8rem 0 0; }
svg { display: block; width: 100%; height: auto; font-family: system-ui, sans-serif; }
.two { display: grid; gap: 1rem 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.three { display: grid; gap: .5rem 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: .8rem; }
</style>
</head>
<body>
"#;

const FOOT: &str = r#"<footer>After "Unifying Margin-Based Softmax Losses in Face Recognition" (WACV 2023), "ArcGrad: Angular
Gradient Margin Loss for Classification" and AdaCos; computed by margin_softmax::theory.</footer>
</body>
</html>
"#;

//! The table: families x fallbacks x reductions x elements, every other option and shape in turn.

use half::{bf16, f16};
use libtest_mimic::Failed;
use margin_softmax::{plan::Element, *};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One row of the table.
#[derive(Clone)]
pub struct Case {
    pub family: &'static str,
    pub loss: MarginSoftmax,
    pub shape: (usize, usize, usize),
    /// Target cosine of trained-like data; random data without.
    pub trained: Option<f64>,
    pub elements: [Element; 2],
    pub weights: bool,
    pub upstream: bool,
    /// Rows per ignored row; 0: none.
    pub ignored: usize,
    /// Classes per chunk, forced by the budget; `None` keeps all.
    pub chunked: bool,
    pub shards: usize,
    pub seed: u64,
}

impl Case {
    /// Random f32 data, every option off.
    pub fn random(shape: Shape, seed: u64) -> Self {
        Self {
            family: "random",
            loss: MarginSoftmax::default(),
            shape: (shape.rows(), shape.classes(), shape.dim()),
            trained: None,
            elements: [Element::F32; 2],
            weights: false,
            upstream: false,
            ignored: 0,
            chunked: false,
            shards: 1,
            seed,
        }
    }

    pub fn fallback(&self) -> &'static str {
        let Target::Unified(margin) = &self.loss.target else { return "-" };
        margin.fallback.name()
    }

    pub fn element(&self) -> String {
        format!("{}/{}", self.elements[0].name(), self.elements[1].name())
    }

    pub fn describe(&self) -> String {
        let (n, c, d) = self.shape;
        format!(
            "{} {} {} {n}x{c}x{d} s={} eps={} others={} trained={:?} {} weights={} upstream={} ignored={} chunked={} \
             shards={} seed={}",
            self.family,
            self.fallback(),
            self.loss.reduction.name(),
            self.loss.scale,
            self.loss.label_smoothing,
            self.loss.others.name(),
            self.trained,
            self.element(),
            self.weights,
            self.upstream,
            self.ignored,
            self.chunked,
            self.shards,
            self.seed,
        )
    }
}

pub fn families() -> Vec<(&'static str, MarginSoftmax)> {
    let series = |degree, damping, coefficients| Curve::Series(Series { degree, damping, coefficients });
    vec![
        ("normface", MarginSoftmax::normface()),
        ("cosface", MarginSoftmax::cosface()),
        ("arcface", MarginSoftmax::arcface()),
        ("arcface_detached", MarginSoftmax::arcface().with_margin(|m| m.slope = Slope::Detached)),
        ("sphereface", MarginSoftmax::sphereface()),
        ("ampface", MarginSoftmax::ampface()),
        ("unified", MarginSoftmax::unified(0.7, 1.35, 0.3, 0.1)),
        ("unified_flat", MarginSoftmax::unified(1.2, 0.6, 0.4, -0.2)),
        ("chebyaam", MarginSoftmax::cheby_aam()),
        ("chebyaam_fit", MarginSoftmax::named("chebyaam_fit").unwrap()),
        (
            "series_jackson",
            MarginSoftmax::unified(0.9, 1.35, 0.3, 0.05)
                .with_margin(|m| m.curve = series(24, Damping::Jackson, Coefficients::Closed)),
        ),
        (
            "series_lanczos",
            MarginSoftmax::arcface().with_margin(|m| m.curve = series(15, Damping::Lanczos, Coefficients::Closed)),
        ),
    ]
}

pub const FALLBACKS: [Fallback; 6] =
    [Fallback::Continuous, Fallback::Sine, Fallback::Mirror, Fallback::None, Fallback::Clip(1e-3), Fallback::Easy];
pub const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];
const ELEMENTS: [[Element; 2]; 4] = [
    [Element::F32, Element::F32],
    [Element::F16, Element::F16],
    [Element::Bf16, Element::Bf16],
    [Element::F16, Element::F32],
];

/// The whole table; every case runs on both tiles of every adapter.
pub fn table() -> Vec<Case> {
    // 1x1, no multiple of a tile, several tiles, D that is no multiple of 4
    let shapes = [
        (3, 5, 3),
        (17, 1000, 16),
        (1, 1, 4),
        (33, 130, 64),
        (70, 65, 63),
        (5, 300, 65),
        (2, 64, 2),
        (40, 40, 8),
        (9, 513, 32),
        (66, 70, 1),
    ];
    let trained = [None, Some(0.7), None, Some(0.9), Some(0.99), None, Some(0.3), Some(-0.4)];
    let scales = [64.0, 30.0, 16.0, 64.0];
    let mut cases: Vec<Case> = vec![];
    for (family, loss) in families() {
        for fallback in FALLBACKS {
            for reduction in REDUCTIONS {
                for elements in ELEMENTS {
                    let i = cases.len();
                    let loss = loss
                        .clone()
                        .with_margin(|m| m.fallback = fallback)
                        .with_reduction(reduction)
                        .with_scale(scales[i % 4])
                        .with_label_smoothing([0.0, 0.0, 0.1, 0.0, 0.3][i % 5])
                        .with_others([Others::Identity, Others::Rectified][usize::from(i % 7 == 3)].clone());
                    if loss.validate().is_err() {
                        continue; // sine with m1 != 1, easy with a threshold above 0
                    }
                    let ignored = [0, 0, 3, 0, 0, 2][i % 6];
                    let loss = if ignored > 0 { loss.with_ignore_index([-100, 0][i % 2]) } else { loss };
                    let shape = shapes[(i * 7 + i / 12) % shapes.len()];
                    let narrow = shape.2 < 8;
                    cases.push(Case {
                        family,
                        loss,
                        shape,
                        trained: if narrow { None } else { trained[(i + i / 8) % trained.len()] },
                        elements,
                        weights: i % 4 == 1,
                        upstream: i % 3 == 1,
                        ignored,
                        chunked: !i.is_multiple_of(3),
                        shards: 1 + usize::from(i % 5 == 4 && shape.1 >= 64) * 2,
                        seed: i as u64,
                    });
                }
            }
        }
    }
    // a fold of the grid, a long row, and the chunks of a real size
    for (shape, loss) in [
        ((70_001, 3, 4), MarginSoftmax::arcface().with_scale(16.0)),
        ((4, 100_003, 16), MarginSoftmax::cheby_aam()),
        ((2, 70_001, 3), MarginSoftmax::cosface()),
    ] {
        for chunked in [false, true] {
            let (n, c, d) = shape;
            let shape = Shape::new(n, c, d).unwrap();
            cases.push(Case { family: "large", loss: loss.clone(), chunked, ..Case::random(shape, 1) });
        }
    }
    cases
}

/// Every pair of family, fallback, reduction and element occurs, as far as the loss allows it; tiles all.
pub fn covers_every_pair() -> Result<(), Failed> {
    let table = table();
    type Axis = fn(&Case) -> String;
    let axes: [(&str, Axis); 4] = [
        ("family", |c| c.family.into()),
        ("fallback", |c| c.fallback().into()),
        ("reduction", |c| c.loss.reduction.name().into()),
        ("element", Case::element),
    ];
    let values = |axis: Axis| {
        let mut all: Vec<String> = table.iter().filter(|c| c.family != "large").map(axis).collect();
        all.sort();
        all.dedup();
        all
    };
    for (i, (one, a)) in axes.iter().enumerate() {
        for (two, b) in &axes[i + 1..] {
            for x in values(*a) {
                for y in values(*b) {
                    // sine needs m1 = 1, easy a threshold at or below 0
                    let general = ["sphereface", "unified", "unified_flat", "series_jackson"].contains(&x.as_str());
                    let possible = !(general && y == "sine" || x == "sphereface" && y == "easy");
                    let found = table.iter().any(|c| a(c) == x && b(c) == y);
                    if possible && !found {
                        return Err(format!("{one} {x} never meets {two} {y}").into());
                    }
                }
            }
        }
    }
    Ok(())
}

/// The data of a case: the values as the device sees them, already rounded to their element type.
pub struct Data {
    pub embeddings: Vec<f32>,
    pub prototypes: Vec<f32>,
    pub labels: Vec<i32>,
    pub weights: Option<Vec<f32>>,
    pub upstream: Option<Vec<f32>>,
}

/// A standard normal number.
pub fn normal(rng: &mut impl Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random_range(1e-12..1.0), rng.random());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

pub fn random(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| normal(rng) as f32).collect()
}

fn rounded(values: Vec<f32>, element: Element) -> Vec<f32> {
    match element {
        Element::F16 => values.into_iter().map(|v| f16::from_f32(v).to_f32()).collect(),
        Element::Bf16 => values.into_iter().map(|v| bf16::from_f32(v).to_f32()).collect(),
        _ => values,
    }
}

impl Data {
    /// Random f32 data of a shape.
    pub fn random(shape: Shape, seed: u64) -> Self {
        Self::new(&Case::random(shape, seed))
    }

    pub fn new(case: &Case) -> Self {
        let (n, c, d) = case.shape;
        let rng = &mut ChaCha8Rng::seed_from_u64(case.seed);
        let prototypes = rounded(random(rng, c * d), case.elements[1]);
        let mut labels: Vec<i32> = (0..n).map(|_| rng.random_range(0..c) as i32).collect();
        let mut embeddings = random(rng, n * d);
        if let Some(cosine) = case.trained {
            for (x, &y) in embeddings.chunks_exact_mut(d).zip(&labels) {
                towards(x, &prototypes[y as usize * d..][..d], cosine);
            }
        }
        let embeddings = rounded(embeddings, case.elements[0]);
        if let (Some(index), true) = (case.loss.ignore_index, case.ignored > 0) {
            labels.iter_mut().step_by(case.ignored).for_each(|y| *y = index as i32);
        }
        let upstream = if case.loss.reduction == Reduction::None { n } else { 1 };
        Self {
            embeddings,
            prototypes,
            labels,
            weights: case.weights.then(|| (0..c).map(|_| rng.random_range(0.2..2.0)).collect()),
            upstream: case.upstream.then(|| (0..upstream).map(|_| rng.random_range(-1.5..1.5)).collect()),
        }
    }

    pub fn batch(&self) -> Batch<'_, i32> {
        Batch {
            embeddings: &self.embeddings,
            prototypes: &self.prototypes,
            labels: &self.labels,
            class_weights: self.weights.as_deref(),
            upstream: self.upstream.as_deref(),
            ..Default::default()
        }
    }

    /// The oracle's answer.
    pub fn reference(&self, loss: &MarginSoftmax, shape: Shape) -> Output<f64> {
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (embeddings, prototypes) = (wide(&self.embeddings), wide(&self.prototypes));
        let (weights, upstream) = (self.weights.as_deref().map(wide), self.upstream.as_deref().map(wide));
        let batch = Batch {
            embeddings: &embeddings,
            prototypes: &prototypes,
            labels: &self.labels,
            class_weights: weights.as_deref(),
            upstream: upstream.as_deref(),
            ..Default::default()
        };
        reference::evaluate(loss, shape, Want::ALL, &batch).unwrap()
    }
}

/// Turns x to a given cosine with w, keeping its length.
fn towards(x: &mut [f32], w: &[f32], cosine: f64) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let own: Vec<f64> = x.iter().map(|&v| v.into()).collect();
    let axis: Vec<f64> = w.iter().map(|&v| v.into()).collect();
    let (length, axis_length) = (dot(&own, &own).sqrt(), dot(&axis, &axis).sqrt());
    let along = dot(&own, &axis) / (axis_length * axis_length);
    let across: Vec<f64> = own.iter().zip(&axis).map(|(x, a)| x - along * a).collect();
    let across_length = dot(&across, &across).sqrt();
    let sine = (1.0 - cosine * cosine).sqrt();
    for (i, x) in x.iter_mut().enumerate() {
        *x = (length * (cosine * axis[i] / axis_length + sine * across[i] / across_length)) as f32;
    }
}

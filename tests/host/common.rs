//! What several files share: comparisons, random batches, and the list of curves.

use std::{f64::consts::PI, fmt::Display};

use margin_softmax::{
    Batch, Label, MarginSoftmax, Output, Reduction, Result, Shape, Target, Want,
    objective::{Coefficients, Curve, Damping, Fallback, Series, Unified},
    reference,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Within `tolerance`; NaN is close to nothing.
#[track_caller]
pub fn close(what: impl Display, found: f64, expected: f64, tolerance: f64) {
    let off = (found - expected).abs();
    assert!(off <= tolerance, "{what}: found {found:e}, expected {expected:e}, off by {off:e} > {tolerance:e}");
}

/// The same for each value of two slices.
#[track_caller]
pub fn all_close(what: impl Display, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        close(format_args!("{what}[{i}]"), found, expected, tolerance);
    }
}

/// Agrees with a golden number as it is printed: half a unit of its last digit, since it was rounded once; a number
/// without a point is exact. 1e-12 on top for our own rounding (values up to 1e4, so a few ulp).
#[track_caller]
pub fn printed(what: impl Display, found: f64, digits: &str) {
    let expected: f64 = digits.parse().expect("a number");
    let decimals = digits.split_once('.').map(|(_, after)| after.len() as i32);
    close(what, found, expected, decimals.map_or(0.0, |n| 0.5 * 10_f64.powi(-n)) + 1e-12);
}

/// The same for numbers separated by spaces.
#[track_caller]
pub fn all_printed(what: impl Display, found: &[f64], digits: &str) {
    assert_eq!(found.len(), digits.split(' ').count(), "{what}: lengths");
    for (i, (&found, digits)) in found.iter().zip(digits.split(' ')).enumerate() {
        printed(format_args!("{what}[{i}]"), found, digits);
    }
}

/// f'(x) from five points: error h⁴·f⁽⁵⁾/30 and, from rounding, about f·1e-16/h.
pub fn central_difference(f: impl Fn(f64) -> f64, x: f64, h: f64) -> f64 {
    (8.0 * (f(x + h) - f(x - h)) - (f(x + 2.0 * h) - f(x - 2.0 * h))) / (12.0 * h)
}

/// A repeatable random stream.
pub fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// One of these.
pub fn pick<T: Clone>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())].clone()
}

/// `count` values in −1..1.
pub fn uniform(rng: &mut ChaCha8Rng, count: usize) -> Vec<f64> {
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// A random unit vector: Box and Muller's normal numbers, so that no direction is preferred.
pub fn direction(rng: &mut ChaCha8Rng, dim: usize) -> Vec<f64> {
    let mut normal = || (-2.0 * rng.random_range(1e-300..1.0_f64).ln()).sqrt() * (2.0 * PI * rng.random::<f64>()).cos();
    let v: Vec<f64> = (0..dim).map(|_| normal()).collect();
    let length = length(&v);
    v.iter().map(|x| x / length).collect()
}

/// The mean of samples and its standard error.
pub fn mean_and_error(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

/// A loss with a batch of its own.
#[derive(Clone, Debug)]
pub struct Case<L = i64> {
    pub loss: MarginSoftmax,
    pub classes: usize,
    pub dim: usize,
    pub embeddings: Vec<f64>,
    pub prototypes: Vec<f64>,
    pub labels: Vec<L>,
    pub weights: Option<Vec<f64>>,
    pub upstream: Option<Vec<f64>>,
}

impl Case {
    /// Random vectors, each longer than 0.4, and random labels.
    pub fn random(rng: &mut ChaCha8Rng, loss: MarginSoftmax, (rows, classes, dim): (usize, usize, usize)) -> Self {
        let mut vectors = |count: usize| {
            let mut all = Vec::new();
            while all.len() < count * dim {
                let v = uniform(rng, dim);
                all.extend(if length(&v) > 0.4 { v } else { vec![] });
            }
            all
        };
        let (embeddings, prototypes) = (vectors(rows), vectors(classes));
        let labels = (0..rows).map(|_| rng.random_range(0..classes as i64)).collect();
        Self::new(loss, dim, embeddings, prototypes, labels)
    }
}

impl<L: Label> Case<L> {
    /// No weights, no upstream gradient; the number of classes follows from the prototypes.
    pub fn new(loss: MarginSoftmax, dim: usize, embeddings: Vec<f64>, prototypes: Vec<f64>, labels: Vec<L>) -> Self {
        let classes = prototypes.len() / dim;
        Self { loss, classes, dim, embeddings, prototypes, labels, weights: None, upstream: None }
    }

    pub fn with_weights(mut self, weights: &[f64]) -> Self {
        self.weights = Some(weights.to_vec());
        self
    }

    pub fn with_upstream(mut self, upstream: &[f64]) -> Self {
        self.upstream = Some(upstream.to_vec());
        self
    }

    pub fn try_run(&self) -> Result<Output<f64>> {
        let batch = Batch {
            embeddings: &self.embeddings,
            prototypes: &self.prototypes,
            labels: &self.labels,
            class_weights: self.weights.as_deref(),
            upstream: self.upstream.as_deref(),
            ..Default::default()
        };
        let shape = Shape::new(self.labels.len(), self.classes, self.dim)?;
        reference::evaluate(&self.loss, shape, Want::ALL, &batch)
    }

    #[track_caller]
    pub fn run(&self) -> Output<f64> {
        self.try_run().expect("a valid case")
    }

    /// The scalar whose gradient dX and dW are: Σ upstream · loss.
    pub fn objective(&self) -> f64 {
        let out = self.run();
        match (&self.upstream, self.loss.reduction) {
            (None, _) => out.loss,
            (Some(up), Reduction::None) => dot(up, &out.row_losses),
            (Some(up), _) => up[0] * out.loss,
        }
    }

    /// Embedding i.
    pub fn embedding(&self, i: usize) -> &[f64] {
        &self.embeddings[i * self.dim..(i + 1) * self.dim]
    }

    /// Prototype j.
    pub fn prototype(&self, j: usize) -> &[f64] {
        &self.prototypes[j * self.dim..(j + 1) * self.dim]
    }

    /// The cosine of embedding i and prototype j, by the school formula.
    pub fn cosine(&self, i: usize, j: usize) -> f64 {
        let (x, w) = (self.embedding(i), self.prototype(j));
        dot(x, w) / (length(x) * length(w))
    }
}

/// Every number of an output is finite.
#[track_caller]
pub fn finite(what: impl Display, out: &Output<f64>) {
    let parts = [&out.row_losses, &out.target_cosines, &out.other_cosines, &out.grad_embeddings, &out.grad_prototypes];
    assert!(out.loss.is_finite() && parts.iter().all(|p| p.iter().all(|v| v.is_finite())), "{what}: {out:?}");
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub fn length(v: &[f64]) -> f64 {
    dot(v, v).sqrt()
}

/// The margins alone; the rest as by default.
pub fn unified(m0: f64, m1: f64, m2: f64, m3: f64) -> Unified {
    Unified { m0, m1, m2, m3, ..Default::default() }
}

/// A loss of these margins.
pub fn loss_of(margin: Unified) -> MarginSoftmax {
    MarginSoftmax { target: Target::Unified(margin), ..Default::default() }
}

/// The series of this degree, closed form.
pub fn series(degree: usize, damping: Damping) -> Series {
    Series { degree, damping, ..Default::default() }
}

/// Every kind of fallback.
pub const FALLBACKS: [Fallback; 7] = [
    Fallback::Continuous,
    Fallback::Sine,
    Fallback::Mirror,
    Fallback::None,
    Fallback::Clip(1e-3),
    Fallback::Clip(0.3),
    Fallback::Easy,
];

/// Every kind of curve. (The fit of another curve is just other coefficients; it is slow to evaluate one by one.)
pub fn curves() -> Vec<Curve> {
    let given = Coefficients::Given(vec![-0.1, 0.9, 0.1, 0.05]);
    let given = Series { degree: 3, coefficients: given, damping: Damping::None };
    let closed = [(30, Damping::None), (30, Damping::Jackson), (9, Damping::Lanczos), (64, Damping::None)];
    let series = closed.map(|(degree, damping)| series(degree, damping));
    let series = series.into_iter().chain([given]).map(Curve::Series);
    std::iter::once(Curve::Exact).chain(series).collect()
}

/// Every curve x fallback x combination of margins that is not refused, analytic slope: with and without a threshold,
/// integer and fractional m1, several branches of the mirror, straight lines.
pub fn every_margin() -> Vec<Unified> {
    let margins = [
        unified(1.0, 1.0, 0.2, 0.0),
        unified(1.0, 1.0, 0.5, 0.0),
        unified(1.0, 1.0, 1.5, 0.0),
        unified(1.0, 1.35, 0.0, 0.0),
        unified(0.7, 1.35, 0.3, 0.1),
        unified(1.0, 0.8, 0.3, 0.0),
        unified(1.0, 2.0, 0.0, 0.0),
        unified(1.2, 6.0, 0.1, -0.2),
        unified(0.35, 1.0, 0.0, 0.0),
        unified(1.0, 1.0, 0.0, 0.35),
    ];
    let mut all = Vec::new();
    for margin in &margins {
        for curve in curves() {
            all.extend(FALLBACKS.map(|fallback| Unified { curve: curve.clone(), fallback, ..margin.clone() }));
        }
    }
    all.retain(|margin| loss_of(margin.clone()).validate().is_ok());
    all
}

/// The cosines where a curve changes its formula, from the definitions and not from the code.
pub fn kinks(margin: &Unified) -> Vec<f64> {
    let Unified { m1, m2, .. } = *margin;
    if m1 == 1.0 && m2 == 0.0 {
        return vec![];
    }
    let reaches = |u: f64| Some((u - m2) / m1).filter(|&angle| angle > 0.0 && angle < PI).map(f64::cos);
    match margin.fallback {
        Fallback::Continuous | Fallback::Sine => reaches(PI).into_iter().collect(),
        Fallback::Mirror => (1..=16).filter_map(|k| reaches(f64::from(k) * PI)).collect(),
        Fallback::None => vec![],
        Fallback::Clip(e) => [e, PI - e].into_iter().filter_map(reaches).collect(),
        Fallback::Easy => vec![0.0],
    }
}

//! Batches that own their data, and what agreement means.

use margin_softmax::{
    Backend, Batch, Budget, Error, MarginSoftmax, Margins, Options, Others, Output, Shape, Similarity, SliceHead,
    State, Want,
    objective::{Angle, Curve, Damping, InterclassFilter, Series, SimilarityAdjustment, Slope, TopK},
    reference,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A batch that owns its data.
#[derive(Clone, Default)]
pub struct Data {
    pub shape: [usize; 3],
    /// Prototypes of a class; 0 stands for 1.
    pub centers: usize,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub labels: Vec<i64>,
    pub weights: Option<Vec<f32>>,
    pub upstream: Option<Vec<f32>>,
    pub bias: Option<Vec<f32>>,
    pub class_margins: [Option<Vec<f32>>; 4],
    pub row_margins: [Option<Vec<f32>>; 4],
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}

impl Data {
    /// Independent normal values, lengths between 0.1 and 10.
    pub fn random(rows: usize, classes: usize, dim: usize, seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let mut vectors = |count: usize| -> Vec<f32> {
            let mut v: Vec<f32> = (0..count * dim).map(|_| normal(rng)).collect();
            v.chunks_mut(dim).enumerate().for_each(|(i, v)| v.iter_mut().for_each(|x| *x *= [0.1, 1.0, 7.0][i % 3]));
            v
        };
        let (x, w) = (vectors(rows), vectors(classes));
        let labels = (0..rows).map(|_| rng.random_range(0..classes as i64)).collect();
        Self { shape: [rows, classes, dim], x, w, labels, ..Self::default() }
    }

    /// The same with every embedding at this cosine to its prototype: a model that has learnt.
    pub fn trained(rows: usize, classes: usize, dim: usize, cosine: f64, seed: u64) -> Self {
        let mut data = Self::random(rows, classes, dim, seed);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (x, &label) in data.x.chunks_mut(dim).zip(&data.labels) {
            let w: Vec<f64> = data.w[label as usize * dim..][..dim].iter().map(|&w| w.into()).collect();
            let own: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            let along = dot(&own, &w) / dot(&w, &w);
            let across: Vec<f64> = own.iter().zip(&w).map(|(x, w)| x - along * w).collect();
            let (a, b) = (cosine / dot(&w, &w).sqrt(), (1.0 - cosine * cosine).sqrt() / dot(&across, &across).sqrt());
            x.iter_mut().zip(w.iter().zip(&across)).for_each(|(x, (w, c))| *x = (a * w + b * c) as f32);
        }
        data
    }

    /// Class weights, some of them 0.
    pub fn weighted(mut self) -> Self {
        self.weights = Some((0..self.shape[1]).map(|j| [1.0, 0.3, 2.5, 0.0][j % 4]).collect());
        self
    }

    /// With K prototypes per class, all of them random.
    pub fn with_centers(mut self, centers: usize, seed: u64) -> Self {
        let [rows, classes, dim] = self.shape;
        (self.centers, self.w) = (centers, Self::random(rows, classes * centers, dim, seed).w);
        self
    }

    /// What a linear head takes: vectors so short that the products are a few units.
    pub fn linear(mut self) -> Self {
        self.x.iter_mut().chain(&mut self.w).for_each(|x| *x *= 0.15);
        self.bias = Some((0..self.shape[1]).map(|j| (j % 7) as f32 * 0.2 - 0.5).collect());
        self
    }

    /// As the loss needs it.
    pub fn fit(&self, loss: &MarginSoftmax) -> Self {
        if loss.similarity == Similarity::Dot { self.clone().linear() } else { self.clone() }
    }

    pub fn batch(&self) -> Batch<'_> {
        Batch {
            embeddings: &self.x,
            prototypes: &self.w,
            labels: &self.labels,
            class_weights: self.weights.as_deref(),
            upstream: self.upstream.as_deref(),
            bias: self.bias.as_deref(),
            class_margins: Margins::of(&self.class_margins),
            row_margins: Margins::of(&self.row_margins),
            ..Batch::default()
        }
    }

    pub fn shape(&self) -> Shape {
        let shape = Shape::new(self.shape[0], self.shape[1], self.shape[2]).unwrap();
        shape.with_sub_centers(self.centers.max(1)).unwrap()
    }

    pub fn reference(&self, loss: &MarginSoftmax, want: Want) -> Output<f64> {
        self.reference_at(loss, want, &mut State::new(loss, self.shape()).unwrap(), false)
    }

    pub fn reference_at(&self, loss: &MarginSoftmax, want: Want, state: &mut State, train: bool) -> Output<f64> {
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (x, w, weights) = (wide(&self.x), wide(&self.w), self.weights.as_deref().map(wide));
        let (upstream, bias) = (self.upstream.as_deref().map(wide), self.bias.as_deref().map(wide));
        let (of_class, of_row) = (
            self.class_margins.each_ref().map(|m| m.as_deref().map(wide)),
            self.row_margins.each_ref().map(|m| m.as_deref().map(wide)),
        );
        let batch = Batch {
            embeddings: &x,
            prototypes: &w,
            labels: &self.labels,
            class_weights: weights.as_deref(),
            upstream: upstream.as_deref(),
            bias: bias.as_deref(),
            class_margins: Margins::of(&of_class),
            row_margins: Margins::of(&of_row),
            ..Batch::default()
        };
        if train {
            return reference::train(loss, self.shape(), want, &batch, state).unwrap();
        }
        reference::evaluate_with(loss, self.shape(), want, &batch, state).unwrap()
    }

    pub fn cpu(&self, loss: &MarginSoftmax, options: &Options) -> Output {
        Backend::cpu().head_with(loss, self.shape(), options).unwrap().evaluate(&self.batch()).unwrap()
    }

    pub fn head(&self, loss: &MarginSoftmax, options: &Options, state: &State) -> SliceHead {
        let mut head = Backend::cpu().head_with(loss, self.shape(), options).unwrap();
        head.set_state(state).unwrap();
        head
    }

    /// The smallest budget that a head of this shape accepts: *recompute*, one range.
    pub fn least(&self, loss: &MarginSoftmax, want: Want) -> Options {
        let options = Options { budget: Budget::bytes(0), want, ..Options::default() };
        match Backend::cpu().head_with(loss, self.shape(), &options).err() {
            Some(Error::Budget { needed, allowed: 0 }) => Options { budget: Budget::bytes(needed), ..options },
            other => panic!("a budget of 0 bytes gave {other:?}"),
        }
    }
}

/// *keep*, and *recompute* with several ranges and with the smallest workspace.
pub fn schedules(data: &Data, want: Want) -> Vec<(&'static str, Options)> {
    schedules_of(&MarginSoftmax::normface(), data, want)
}

/// The same for a loss that may need more workspace than others.
pub fn schedules_of(loss: &MarginSoftmax, data: &Data, want: Want) -> Vec<(&'static str, Options)> {
    let least = data.least(loss, want);
    let roomy = Options { want, ..Options::default() };
    let [rows, classes, _] = data.shape;
    // below N·C·4 bytes nothing can be kept
    let half = Budget::bytes((rows * classes * data.centers.max(1) * 4) as u64 - 1).max(least.budget);
    vec![("keep", roomy), ("recompute", Options { budget: half, ..least }), ("least", least)]
}

/// How far a vector is off: Frobenius, and per element relative to the largest. Nothing agrees with a vector that is
/// all zero or not finite.
pub fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|x| x.is_finite()), "a value is not finite");
    let largest = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    assert!(largest > 0.0 && largest.is_finite(), "an expected vector of zeros proves nothing");
    let errors = || found.iter().zip(expected).map(|(&f, e)| f64::from(f) - e);
    let frobenius = errors().map(|e| e * e).sum::<f64>().sqrt() / expected.iter().map(|e| e * e).sum::<f64>().sqrt();
    frobenius.max(errors().fold(0.0, |m, e| e.abs().max(m)) / largest)
}

/// The first five positions that differ by more than `gate`, relative to `scale(expected)`.
pub fn differing(what: &str, found: &[f32], expected: &[f64], gate: f64, scale: impl Fn(f64) -> f64) -> Vec<String> {
    assert_eq!(found.len(), expected.len(), "{what}");
    let bad = |(i, (&f, &e)): (usize, (&f32, &f64))| {
        let close = (f64::from(f) - e).abs() <= gate * scale(e);
        (!close).then(|| format!("{what}[{i}] = {f:e}, expected {e:e}"))
    };
    found.iter().zip(expected).enumerate().filter_map(bad).take(5).collect()
}

/// A cosine error of 3e-7 is multiplied by the scale and the steepest slope of the batch; 1e-5 for all other rounding.
pub fn gate(loss: &MarginSoftmax, expected: &Output<f64>) -> f64 {
    if loss.similarity == Similarity::Dot {
        // the cosine's place is taken by products, whose error grows with their size
        let sizes = expected.target_cosines.iter().chain(&expected.other_cosines);
        return 1e-5 + 3e-7 * loss.scale * sizes.fold(1.0, |most, c| c.abs().max(most));
    }
    let slopes = expected.target_cosines.iter().map(|&c| loss.target_value_slope(c).1.abs());
    // a row that is left out has -1
    let others = expected.other_cosines.iter().filter(|&&c| c > -1.0).map(|&c| loss.others.value_slope(c).1.abs());
    1e-5 + 3e-7 * loss.scale * slopes.chain(others).fold(1.0, f64::max)
}

/// Everything that an output holds against the reference. `gradients`: whether they are far enough from 0 to be compared
/// relative to their own size.
pub fn assert_agrees(name: &str, loss: &MarginSoftmax, found: &Output, expected: &Output<f64>, gradients: bool) {
    let gate = gate(loss, expected);
    assert!(gate <= 1e-3, "{name}: a gate of {gate:e} proves nothing; check value and slope directly");
    assert_eq!(found.counts, expected.counts, "{name}");
    let relative = |e: f64| e.abs().max(1e-30);
    let mut bad = differing("row_losses", &found.row_losses, &expected.row_losses, gate, relative);
    let sizes = expected.target_cosines.iter().chain(&expected.other_cosines);
    let size = sizes.fold(1.0_f64, |most, c| c.abs().max(most));
    bad.extend(differing("target_cosines", &found.target_cosines, &expected.target_cosines, 5e-7, |_| size));
    bad.extend(differing("other_cosines", &found.other_cosines, &expected.other_cosines, 2e-6, |_| size));
    // the mean of the others' logits less that of the target: where they are close, their own size counts
    bad.extend(differing("dL/ds", &[found.grad_scale], &[expected.grad_scale], gate, |e| e.abs().max(0.1 * size)));
    bad.extend(differing("loss", &[found.loss], &[expected.loss], gate, relative));
    assert!(bad.is_empty(), "{name}: gate {gate:e}\n{}", bad.join("\n"));
    let pairs = [
        ("dX", &found.grad_embeddings, &expected.grad_embeddings),
        ("dW", &found.grad_prototypes, &expected.grad_prototypes),
        ("db", &found.grad_bias, &expected.grad_bias),
    ];
    for (what, found, expected) in pairs {
        assert_eq!(found.len(), expected.len(), "{name}: {what}");
        if gradients && !expected.is_empty() {
            let off = distance(found, expected);
            assert!(off <= gate, "{name}: {what} is off by {off:e}, gate {gate:e}");
        }
    }
}

/// Everything that can be wanted.
pub const WANT: Want = Want::ALL.with_scale().with_bias();

pub fn length(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// Every transform of the others, with the numbers of its family and with further ones.
pub fn transforms() -> Vec<Others> {
    let series = |degree, damping| Curve::Series(Series { degree, damping, ..Series::default() });
    let angle = |curve, slope| Others::Angle(Angle { factor: 0.6, offset: 0.3, margin: 0.1, curve, slope });
    let power = |exponent, angular, slope| {
        Others::SimilarityAdjustment(SimilarityAdjustment { exponent, margin: 0.15, angular, slope })
    };
    let mut all = Others::all();
    all.extend([
        angle(Curve::Exact, Slope::Analytic),
        angle(Curve::Exact, Slope::Detached),
        angle(series(31, Damping::None), Slope::Analytic),
        angle(series(12, Damping::Jackson), Slope::Analytic),
        Others::TopK(TopK { count: 1, margin: 0.3 }),
        Others::TopK(TopK { count: 64, margin: 0.06 }),
        Others::InterclassFilter(InterclassFilter { threshold: 0.1 }),
        power(1, false, Slope::Analytic),
        power(4, true, Slope::Analytic),
        power(3, true, Slope::Detached),
    ]);
    all
}

/// A batch for any family: rows with embeddings of many lengths around MagFace's, one of them ignored.
pub fn family_data(loss: &MarginSoftmax, centers: usize, seed: u64) -> Data {
    let mut data = Data::random(24, 260, 20, seed);
    if loss.similarity == Similarity::Dot {
        return data.linear();
    }
    data.x.chunks_mut(20).enumerate().for_each(|(i, x)| x.iter_mut().for_each(|v| *v *= [1.0, 3.0, 12.0][i % 3]));
    if centers > 1 { data.with_centers(centers, seed + 1) } else { data }
}

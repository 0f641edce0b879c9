//! The CPU path against the f64 reference: values, policies, and the same bits on any number of threads.
#![cfg(feature = "cpu")]

use margin_softmax::{
    Adaptive, Angle, Backend, Batch, Binary, Budget, Coefficients, Counts, Curve, Damping, Elastic, Error, Fallback,
    Filter, Link, MarginSoftmax, Margins, Options, Others, Output, Power, Product, Reduction, Series, Shape, SliceHead,
    Slope, State, TopK, Want,
    objective::{PRESETS, Unified},
    reference,
    shard::{Statistics, Targets},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A batch that owns its data.
#[derive(Clone, Default)]
struct Data {
    shape: [usize; 3],
    /// Prototypes of a class; 0 stands for 1.
    centers: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    labels: Vec<i64>,
    weights: Option<Vec<f32>>,
    upstream: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    class_margins: [Option<Vec<f32>>; 4],
    row_margins: [Option<Vec<f32>>; 4],
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    ((-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}

impl Data {
    /// Independent normal values, lengths between 0.1 and 10.
    fn random(rows: usize, classes: usize, dim: usize, seed: u64) -> Self {
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
    fn trained(rows: usize, classes: usize, dim: usize, cosine: f64, seed: u64) -> Self {
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
    fn weighted(mut self) -> Self {
        self.weights = Some((0..self.shape[1]).map(|j| [1.0, 0.3, 2.5, 0.0][j % 4]).collect());
        self
    }

    /// With K prototypes per class, all of them random.
    fn with_centers(mut self, centers: usize, seed: u64) -> Self {
        let [rows, classes, dim] = self.shape;
        (self.centers, self.w) = (centers, Self::random(rows, classes * centers, dim, seed).w);
        self
    }

    /// What a linear head takes: vectors so short that the products are a few units.
    fn linear(mut self) -> Self {
        self.x.iter_mut().chain(&mut self.w).for_each(|x| *x *= 0.15);
        self.bias = Some((0..self.shape[1]).map(|j| (j % 7) as f32 * 0.2 - 0.5).collect());
        self
    }

    /// As the loss needs it.
    fn fit(&self, loss: &MarginSoftmax) -> Self {
        if loss.product == Product::Linear { self.clone().linear() } else { self.clone() }
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            embeddings: &self.x,
            prototypes: &self.w,
            labels: &self.labels,
            class_weights: self.weights.as_deref(),
            upstream: self.upstream.as_deref(),
            bias: self.bias.as_deref(),
            class_margins: Margins::of(&self.class_margins),
            row_margins: Margins::of(&self.row_margins),
        }
    }

    fn shape(&self) -> Shape {
        let shape = Shape::new(self.shape[0], self.shape[1], self.shape[2]).unwrap();
        shape.with_sub_centers(self.centers.max(1)).unwrap()
    }

    fn reference(&self, loss: &MarginSoftmax, want: Want) -> Output<f64> {
        self.reference_at(loss, want, &mut State::new(loss, self.shape()).unwrap(), false)
    }

    fn reference_at(&self, loss: &MarginSoftmax, want: Want, state: &mut State, train: bool) -> Output<f64> {
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
        };
        if train {
            return reference::train(loss, self.shape(), want, &batch, state).unwrap();
        }
        reference::evaluate_with(loss, self.shape(), want, &batch, state).unwrap()
    }

    fn cpu(&self, loss: &MarginSoftmax, options: &Options) -> Output {
        Backend::cpu().head_with(loss, self.shape(), options).unwrap().evaluate(&self.batch()).unwrap()
    }

    fn head(&self, loss: &MarginSoftmax, options: &Options, state: &State) -> SliceHead {
        let mut head = Backend::cpu().head_with(loss, self.shape(), options).unwrap();
        head.set_state(state).unwrap();
        head
    }

    /// The smallest budget that a head of this shape accepts: *recompute*, one range.
    fn least(&self, loss: &MarginSoftmax, want: Want) -> Options {
        let options = Options { budget: Budget::bytes(0), want, ..Options::default() };
        match Backend::cpu().head_with(loss, self.shape(), &options).err() {
            Some(Error::Budget { needed, allowed: 0 }) => Options { budget: Budget::bytes(needed), ..options },
            other => panic!("a budget of 0 bytes gave {other:?}"),
        }
    }
}

/// *keep*, and *recompute* with several ranges and with the smallest workspace.
fn schedules(data: &Data, want: Want) -> Vec<(&'static str, Options)> {
    schedules_of(&MarginSoftmax::normface(), data, want)
}

/// The same for a loss that may need more workspace than others.
fn schedules_of(loss: &MarginSoftmax, data: &Data, want: Want) -> Vec<(&'static str, Options)> {
    let least = data.least(loss, want);
    let roomy = Options { want, ..Options::default() };
    let [rows, classes, _] = data.shape;
    // below N·C·4 bytes nothing can be kept
    let half = Budget::bytes((rows * classes * data.centers.max(1) * 4) as u64 - 1).max(least.budget);
    vec![("keep", roomy), ("recompute", Options { budget: half, ..least }), ("least", least)]
}

/// How far a vector is off: Frobenius, and per element relative to the largest. Nothing agrees with a vector that is
/// all zero or not finite.
fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|x| x.is_finite()), "a value is not finite");
    let largest = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    assert!(largest > 0.0 && largest.is_finite(), "an expected vector of zeros proves nothing");
    let errors = || found.iter().zip(expected).map(|(&f, e)| f64::from(f) - e);
    let frobenius = errors().map(|e| e * e).sum::<f64>().sqrt() / expected.iter().map(|e| e * e).sum::<f64>().sqrt();
    frobenius.max(errors().fold(0.0, |m, e| e.abs().max(m)) / largest)
}

/// The first five positions that differ by more than `gate`, relative to `scale(expected)`.
fn differing(what: &str, found: &[f32], expected: &[f64], gate: f64, scale: impl Fn(f64) -> f64) -> Vec<String> {
    assert_eq!(found.len(), expected.len(), "{what}");
    let bad = |(i, (&f, &e)): (usize, (&f32, &f64))| {
        let close = (f64::from(f) - e).abs() <= gate * scale(e);
        (!close).then(|| format!("{what}[{i}] = {f:e}, expected {e:e}"))
    };
    found.iter().zip(expected).enumerate().filter_map(bad).take(5).collect()
}

/// A cosine error of 3e-7 is multiplied by the scale and the steepest slope of the batch; 1e-5 for all other rounding.
fn gate(loss: &MarginSoftmax, expected: &Output<f64>) -> f64 {
    if loss.product == Product::Linear {
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
fn assert_agrees(name: &str, loss: &MarginSoftmax, found: &Output, expected: &Output<f64>, gradients: bool) {
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
const WANT: Want = Want::ALL.with_scale().with_bias();

/// Every preset × its own and the plain transforms of the others × both schedules, on data without and with a learnt structure.
#[test]
fn every_loss_agrees_with_the_reference() {
    let batches = [("random", Data::random(33, 300, 24, 1)), ("trained .7", Data::trained(33, 300, 64, 0.7, 2))];
    for preset in PRESETS {
        for others in &[preset.loss().others, Others::Identity, Others::Rectified] {
            let loss = preset.loss().with_others(others.clone());
            if loss.validate().is_err() {
                continue; // a linear head takes no transform
            }
            for (kind, data) in &batches {
                let data = &data.fit(&loss);
                let expected = data.reference(&loss, WANT);
                for (schedule, options) in schedules_of(&loss, data, WANT) {
                    let name = format!("{} {} {kind} {schedule}", preset.name, others.name());
                    assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
                }
            }
        }
    }
}

/// Fallbacks, curves and slopes that no preset uses, on data that reaches beyond every threshold.
#[test]
fn every_branch_of_the_target_agrees_with_the_reference() {
    let margin = |change: fn(&mut Unified)| MarginSoftmax::arcface().with_margin(change);
    let losses = [
        ("sine", margin(|m| m.fallback = Fallback::Sine)),
        ("mirror", margin(|m| m.fallback = Fallback::Mirror)),
        ("none", margin(|m| m.fallback = Fallback::None)),
        ("clip", margin(|m| m.fallback = Fallback::Clip(1e-3))),
        ("easy", margin(|m| m.fallback = Fallback::Easy)),
        ("detached", margin(|m| m.slope = Slope::Detached)),
        ("combined", MarginSoftmax::unified(0.9, 1.2, 0.2, 0.1)),
        (
            "given",
            margin(|m| {
                let coefficients = Coefficients::Given(vec![-0.1, 0.9, 0.1, 0.02]);
                m.curve = Curve::Series(Series { degree: 3, coefficients, ..Series::default() });
            }),
        ),
        ("scale 5", MarginSoftmax::arcface().with_scale(5.3)),
    ];
    // three dimensions spread the target cosines over all of [-1, 1]
    let mut data = Data::random(70, 40, 3, 3);
    for (name, loss) in losses {
        // an exact slope next to ±1 makes the gate useless; those cosines are tested in `the_ends_are_exact`
        let cosines = data.reference(&loss, Want::LOSS).target_cosines;
        for (i, c) in cosines.iter().enumerate() {
            if c.abs() > 0.99 {
                data.x[i * 3..i * 3 + 3].copy_from_slice(&[1.0, 0.5, -0.2]);
                data.labels[i] = 0;
            }
        }
        let expected = data.reference(&loss, Want::ALL);
        for (schedule, options) in schedules(&data, Want::ALL) {
            assert_agrees(&format!("{name} {schedule}"), &loss, &data.cpu(&loss, &options), &expected, true);
        }
    }
}

/// Reduction × smoothing × class weights × ignore index × upstream × others × schedule.
#[test]
fn every_combination_of_options_agrees_with_the_reference() {
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        for epsilon in [0.0, 0.1] {
            for weighted in [false, true] {
                for ignore in [None, Some(-1), Some(3)] {
                    for upstream in [false, true] {
                        for others in &[Others::Identity, Others::Rectified] {
                            let mut loss =
                                MarginSoftmax::arcface().with_others(others.clone()).with_label_smoothing(epsilon);
                            (loss.reduction, loss.ignore_index) = (reduction, ignore);
                            let mut data = Data::random(9, 200, 16, 4);
                            data.labels[3] = 3;
                            if ignore == Some(-1) {
                                (data.labels[0], data.labels[8]) = (-1, -1);
                            }
                            if weighted {
                                data = data.weighted();
                            }
                            if upstream {
                                let count = if reduction == Reduction::None { 9 } else { 1 };
                                data.upstream = Some((0..count).map(|i| 0.7 - 0.3 * i as f32).collect());
                            }
                            let expected = data.reference(&loss, Want::ALL);
                            for (schedule, options) in schedules(&data, Want::ALL) {
                                let name = format!(
                                    "{} eps {epsilon} weights {weighted} ignore {ignore:?} upstream {upstream} {} {schedule}",
                                    reduction.name(),
                                    others.name()
                                );
                                assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Sizes around every boundary: one of everything, no multiple of a tile, a long row, more rows than a block, short
/// vectors.
#[test]
fn every_shape_agrees_with_the_reference() {
    let shapes = [
        (1, 1, 1),
        (1, 1, 5),
        (3, 5, 1),
        (3, 5, 3),
        (17, 1000, 8),
        (4, 100_003, 16),
        (1030, 70, 5),
        (5, 129, 600),
        (2, 2, 2),
        (40, 33, 2),
        (64, 257, 63),
        (65, 512, 65),
        (31, 130, 64),
    ];
    for (rows, classes, dim) in shapes {
        for others in &[Others::Identity, Others::Rectified] {
            let mut data = Data::random(rows, classes, dim, 5);
            // CosFace: its slope is 1 everywhere, so that short vectors, whose cosines lie near ±1, keep a useful gate
            let loss = MarginSoftmax::cosface().with_others(others.clone()).with_scale(20.0);
            // with one dimension or one class the true gradient is 0: see the tests below
            let gradients = dim > 1 && classes > 1;
            if dim > 1 && rows > 2 {
                data = data.weighted();
            }
            let expected = data.reference(&loss, Want::ALL);
            for (schedule, options) in schedules(&data, Want::ALL) {
                let name = format!("{rows}x{classes}x{dim} {} {schedule}", others.name());
                assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, gradients);
            }
        }
    }
}

/// With one dimension every vector is its own radial direction: the gradient is rounding, nothing else.
#[test]
fn one_dimension_has_no_gradient() {
    for others in &[Others::Identity, Others::Rectified] {
        let data = Data::random(3, 5, 1, 6);
        let loss = MarginSoftmax::normface().with_others(others.clone());
        for (_, options) in schedules(&data, Want::ALL) {
            let out = data.cpu(&loss, &options);
            let limit = |v: &[f32]| 1e-6 * 64.0 / v.iter().fold(f32::MAX, |m, x| m.min(x.abs()));
            assert!(out.grad_embeddings.iter().all(|g| g.abs() <= limit(&data.x)), "{:?}", out.grad_embeddings);
            assert!(out.grad_prototypes.iter().all(|g| g.abs() <= limit(&data.w)), "{:?}", out.grad_prototypes);
        }
    }
}

/// One class: nothing to choose from, so loss 0 and gradient 0, exactly.
#[test]
fn one_class_costs_nothing() {
    for epsilon in [0.0, 0.2] {
        let data = Data::random(3, 1, 8, 7);
        let loss = MarginSoftmax::arcface().with_label_smoothing(epsilon);
        for (_, options) in schedules(&data, Want::ALL) {
            let out = data.cpu(&loss, &options);
            assert_eq!((out.loss, out.row_losses), (0.0, vec![0.0; 3]));
            assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
            assert_eq!(out.other_cosines, [-1.0; 3]);
            assert_eq!(out.target_cosines.len(), 3);
        }
    }
}

/// Confident rows: losses down to 1e-18 keep their digits.
#[test]
fn tiny_losses_keep_their_digits() {
    for cosine in [0.7, 0.9, 0.99] {
        for preset in ["normface", "arcface", "cosface", "chebyaam"] {
            for others in &[Others::Identity, Others::Rectified] {
                let loss = MarginSoftmax::named(preset).unwrap().with_others(others.clone()).with_scale(64.0);
                let data = Data::trained(64, 1500, 256, cosine, 8);
                let expected = data.reference(&loss, Want::ALL);
                let smallest = expected.row_losses.iter().fold(1.0_f64, |m, &l| m.min(l));
                assert!(cosine < 0.99 || smallest < 1e-8, "{smallest:e} is not tiny");
                for (schedule, options) in schedules(&data, Want::ALL) {
                    let name = format!("{preset} at {cosine}, {} {schedule}", others.name());
                    assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
                }
            }
        }
    }
}

/// On random data the mean loss agrees to 1e-5, whatever the slopes.
#[test]
fn the_mean_loss_is_accurate() {
    for preset in PRESETS {
        let data = Data::random(64, 2000, 96, 9).fit(&preset.loss());
        let (loss, expected) = (preset.loss(), data.reference(&preset.loss(), Want::LOSS).loss);
        for (schedule, options) in schedules_of(&loss, &data, Want::ALL) {
            let found = f64::from(data.cpu(&loss, &options).loss);
            assert!((found / expected - 1.0).abs() < 1e-5, "{} {schedule}: {found}, not {expected}", preset.name);
        }
    }
}

/// Where the embedding lies on its prototype or opposite to it the gate proves nothing (the slope is up to 4795): the
/// value is checked directly, and the gradient relative to scale · slope / length.
#[test]
fn the_ends_are_exact() {
    for preset in PRESETS {
        for sign in [1.0_f32, -1.0] {
            let mut data = Data::random(2, 50, 12, 10);
            for i in 0..2 {
                let w: Vec<f32> = data.w[data.labels[i] as usize * 12..][..12].iter().map(|w| sign * w * 0.5).collect();
                data.x[i * 12..(i + 1) * 12].copy_from_slice(&w);
            }
            let loss = preset.loss();
            if matches!(loss.adaptive, Adaptive::Elastic(Elastic { sorted: true, .. })) {
                continue; // which of two cosines of 1 is larger, and so gets the smaller margin, is rounding
            }
            let expected = data.reference(&loss, Want::ALL);
            let (value, slope) = loss.target_value_slope(f64::from(sign));
            assert!(value.is_finite() && slope.is_finite());
            for (schedule, options) in schedules_of(&loss, &data, Want::ALL) {
                let (out, name) = (data.cpu(&loss, &options), format!("{} at {sign} {schedule}", preset.name));
                let bad = differing("row_losses", &out.row_losses, &expected.row_losses, 1e-4, |e| e.abs().max(1e-30));
                assert!(bad.is_empty(), "{name} (slope {slope:e}): {bad:?}");
                let shortest = data.x.chunks(12).chain(data.w.chunks(12)).map(length).fold(f64::MAX, f64::min);
                let size = loss.scale * slope.abs().max(1.0) / shortest;
                for (what, found, expected) in [
                    ("dX", &out.grad_embeddings, &expected.grad_embeddings),
                    ("dW", &out.grad_prototypes, &expected.grad_prototypes),
                ] {
                    let bad = differing(what, found, expected, 1e-6, |_| size);
                    assert!(bad.is_empty(), "{name}: {bad:?}");
                }
            }
        }
    }
}

fn length(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// Only what was asked for, with the same bits as everything.
#[test]
fn wishes_change_nothing_else() {
    for others in &[Others::Identity, Others::Rectified] {
        let loss = MarginSoftmax::arcface().with_others(others.clone()).with_label_smoothing(0.05);
        let data = Data::random(20, 700, 24, 11);
        let most = data.cpu(&loss, &Options::default());
        for want in [Want::LOSS, Want::EMBEDDINGS, Want::PROTOTYPES] {
            let out = data.cpu(&loss, &Options { want, ..Options::default() });
            assert_agrees(&format!("{want:?}"), &loss, &out, &data.reference(&loss, want), true);
            assert_eq!((out.loss, &out.row_losses), (most.loss, &most.row_losses));
            for (wanted, found, all) in [
                (want.grad_embeddings, &out.grad_embeddings, &most.grad_embeddings),
                (want.grad_prototypes, &out.grad_prototypes, &most.grad_prototypes),
            ] {
                assert_eq!(&found[..], if wanted { &all[..] } else { &[] });
            }
        }
    }
}

/// The same bits on 1, 2, 3 and 5 threads, and call after call.
#[test]
fn threads_change_no_bit() {
    let bits = |out: &Output| -> Vec<u32> {
        let values =
            [&out.row_losses, &out.target_cosines, &out.other_cosines, &out.grad_embeddings, &out.grad_prototypes];
        std::iter::once(out.loss).chain(values.into_iter().flatten().copied()).map(f32::to_bits).collect()
    };
    for others in &[Others::Identity, Others::Rectified] {
        let loss = MarginSoftmax::arcface().with_others(others.clone()).with_label_smoothing(0.1);
        let data = Data::random(70, 4000, 48, 12).weighted();
        for (schedule, options) in schedules(&data, Want::ALL) {
            let mut first = None;
            for threads in [1, 2, 3, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (once, again) = pool.install(|| {
                    let mut head = Backend::cpu().head_with(&loss, data.shape(), &options).unwrap();
                    (head.evaluate(&data.batch()).unwrap(), head.evaluate(&data.batch()).unwrap())
                });
                let expected = first.get_or_insert_with(|| bits(&once));
                assert!(bits(&once) == *expected, "{schedule}: other bits on {threads} threads");
                assert!(bits(&again) == *expected, "{schedule}: other bits at the second call");
            }
        }
    }
}

/// A batch smaller than the head was made for, after a larger one, and another loss: nothing of before shines through.
#[test]
fn a_head_is_used_again() {
    let large = Data::random(600, 300, 20, 13);
    let mut small = Data::random(5, 300, 20, 14).weighted();
    small.labels[1] = -7;
    let second = MarginSoftmax::cheby_aam().with_others(Others::Rectified).with_ignore_index(-7);
    for (schedule, options) in schedules(&large, Want::ALL) {
        let first = MarginSoftmax::arcface();
        let mut head = Backend::cpu().head_with(&first, large.shape(), &options).unwrap();
        let mut out = Output { loss: f32::NAN, grad_prototypes: vec![f32::NAN; 10_000], ..Output::default() };
        head.evaluate_into(&large.batch(), &mut out).unwrap();
        assert_agrees(schedule, &first, &out, &large.reference(&first, Want::ALL), true);
        out.grad_prototypes.fill(f32::INFINITY);
        let held = out.grad_prototypes.as_ptr();
        head.update(&second).unwrap();
        head.evaluate_into(&small.batch(), &mut out).unwrap();
        assert_agrees(schedule, &second, &out, &small.reference(&second, Want::ALL), true);
        assert_eq!(held, out.grad_prototypes.as_ptr(), "the output's memory is used again");
    }
}

/// A row with a NaN or an infinite value: its loss and the reduced loss are NaN, its dX is 0, everything else is that of
/// the batch without it.
#[test]
fn a_non_finite_row_is_left_out_loudly() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for others in &[Others::Identity, Others::Rectified] {
            let loss = MarginSoftmax::arcface().with_others(others.clone());
            let data = Data::random(6, 400, 16, 15);
            let mut broken = data.clone();
            broken.x[2 * 16 + 5] = bad;
            let mut without = data.clone();
            without.labels[2] = -1;
            let without_loss = loss.clone().with_ignore_index(-1);
            for (_, options) in schedules(&data, Want::ALL) {
                let out = broken.cpu(&loss, &options);
                let clean = without.cpu(&without_loss, &options);
                assert!(out.loss.is_nan());
                let nan: Vec<bool> = out.row_losses.iter().map(|l| l.is_nan()).collect();
                assert_eq!(nan, [false, false, true, false, false, false]);
                assert!(out.grad_embeddings[32..48].iter().all(|&g| g == 0.0));
                assert_eq!(out.grad_embeddings, clean.grad_embeddings);
                assert_eq!(out.grad_prototypes, clean.grad_prototypes);
                assert_eq!((out.counts.rows, out.counts.non_finite_rows, out.counts.ignored), (5, 1, 0));
                assert_eq!((out.target_cosines[2], out.other_cosines[2]), (0.0, -1.0));
            }
            // an ignored row may hold anything
            broken.labels[2] = -1;
            let out = broken.cpu(&without_loss, &Options::default());
            assert!(out.loss.is_finite() && out.counts.ignored == 1 && out.counts.non_finite_rows == 0);
        }
    }
}

/// A prototype with a NaN or an infinite value: every loss NaN, every gradient 0, counted.
#[test]
fn a_non_finite_prototype_stops_everything() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut data = Data::random(6, 400, 16, 16);
        data.w[399 * 16] = bad;
        data.w[7 * 16 + 15] = bad;
        data.labels[1] = 7;
        data.labels[5] = -1;
        for reduction in [Reduction::Mean, Reduction::Sum] {
            let loss = MarginSoftmax::arcface().with_ignore_index(-1).with_reduction(reduction);
            for (_, options) in schedules(&data, Want::ALL) {
                let mut out = Output { grad_embeddings: vec![1.0; 96], ..Output::default() };
                let mut head = Backend::cpu().head_with(&loss, data.shape(), &options).unwrap();
                head.evaluate_into(&data.batch(), &mut out).unwrap();
                assert!(out.loss.is_nan() && out.row_losses[..5].iter().all(|l| l.is_nan()));
                assert_eq!(out.row_losses[5], 0.0, "an ignored row");
                assert_eq!((out.grad_embeddings.len(), out.grad_prototypes.len()), (96, 6400));
                assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
                assert_eq!(out.counts, data.reference(&loss, Want::LOSS).counts);
                assert_eq!(out.counts.non_finite_prototypes, 2);
            }
        }
    }
}

/// Rows that do not count: loss 0 and gradients 0, never 0/0.
#[test]
fn nothing_to_learn_costs_nothing() {
    let nobody = Data::random(0, 300, 16, 17);
    let mut ignored = Data::random(4, 300, 16, 18);
    ignored.labels.fill(5);
    let mut weightless = ignored.clone();
    weightless.weights = Some(vec![1.0; 300]);
    weightless.weights.as_mut().unwrap()[5] = 0.0;
    let none = MarginSoftmax::arcface();
    let five = MarginSoftmax::arcface().with_ignore_index(5);
    for (data, loss) in [(&nobody, &none), (&ignored, &five), (&weightless, &none)] {
        let mut options = vec![Options::default()];
        if data.shape[0] > 0 {
            options.extend(schedules(data, Want::ALL).into_iter().map(|(_, o)| o));
        }
        for options in options {
            let mut out = Output { grad_prototypes: vec![f32::NAN; 4800], ..Output::default() };
            let mut head = Backend::cpu().head_with(loss, data.shape(), &options).unwrap();
            head.evaluate_into(&data.batch(), &mut out).unwrap();
            assert_eq!(out.loss, 0.0);
            assert!(out.row_losses.iter().all(|&l| l == 0.0));
            assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
            assert_eq!((out.grad_embeddings.len(), out.grad_prototypes.len()), (data.x.len(), 4800));
            assert_eq!(out.counts, data.reference(loss, Want::LOSS).counts);
        }
    }
    // the smoothed loss of a weightless class is not 0, but its mean has no divisor
    let smoothed = weightless.cpu(&none.clone().with_label_smoothing(0.1), &Options::default());
    assert!(smoothed.loss == 0.0 && smoothed.row_losses.iter().all(|&l| l > 0.0));
}

/// Vectors shorter than 1e-12: cosine 0 at 0, gradient exactly 0, counted, and no harm to anybody else.
#[test]
fn zero_vectors_get_no_gradient() {
    for others in &[Others::Identity, Others::Rectified] {
        let loss = MarginSoftmax::arcface().with_others(others.clone());
        let mut data = Data::random(6, 200, 16, 19);
        data.x[16..32].fill(0.0);
        data.x[32..48].fill(1e-14);
        data.w[..16].fill(0.0);
        data.w[160..176].fill(-2e-20);
        data.labels[4] = 0;
        for (schedule, options) in schedules(&data, Want::ALL) {
            let out = data.cpu(&loss, &options);
            assert_agrees(schedule, &loss, &out, &data.reference(&loss, Want::ALL), true);
            assert_eq!((out.counts.zero_embeddings, out.counts.zero_prototypes), (2, 2));
            assert_eq!((out.target_cosines[1], out.target_cosines[4]), (0.0, 0.0));
            assert!(out.grad_embeddings[16..48].iter().all(|&g| g == 0.0));
            assert!(out.grad_prototypes[..16].iter().chain(&out.grad_prototypes[160..176]).all(|&g| g == 0.0));
        }
    }
}

/// Lengths from 1e-11 to 1e28 change no cosine: the loss stays, and the gradient is divided by the length.
#[test]
fn the_length_of_a_vector_does_not_matter() {
    let data = Data::random(8, 150, 16, 20);
    // at scale 10 no probability is so small that its gradient, divided by 1e28, leaves the range of f32
    let loss = MarginSoftmax::arcface().with_scale(10.0);
    let scaled = |factor: [f32; 4]| {
        let mut data = data.clone();
        data.x.chunks_mut(16).enumerate().for_each(|(i, x)| x.iter_mut().for_each(|x| *x *= factor[i % 4]));
        data.w.chunks_mut(16).enumerate().for_each(|(i, w)| w.iter_mut().for_each(|w| *w *= factor[(i + 1) % 4]));
        data
    };
    for (_, options) in schedules(&data, Want::ALL) {
        let plain = data.cpu(&loss, &options);
        let factor = [1e-11, 1e18, 1e28, 1e-6];
        let out = scaled(factor).cpu(&loss, &options);
        assert!((out.loss / plain.loss - 1.0).abs() < 1e-6, "{} and {}", out.loss, plain.loss);
        for (out, plain, shift) in
            [(&out.grad_embeddings, &plain.grad_embeddings, 0), (&out.grad_prototypes, &plain.grad_prototypes, 1)]
        {
            for (i, (out, plain)) in out.chunks(16).zip(plain.chunks(16)).enumerate() {
                let factor = factor[(i + shift) % 4];
                let back: Vec<f32> = out.iter().map(|g| g * factor).collect();
                let off = distance(&back, &plain.iter().map(|&g| f64::from(g)).collect::<Vec<_>>());
                assert!(off < 1e-5, "vector {i} times {factor:e}: off by {off:e}");
            }
        }
        // elements up to 1e38: lengths beyond the range of f32, gradients below it
        let out = scaled([1e37, 5e36, 1e37, 2e36]).cpu(&loss, &options);
        assert!((out.loss / plain.loss - 1.0).abs() < 1e-6, "{} and {}", out.loss, plain.loss);
        assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|g| g.abs() < 1e-30));
    }
}

/// Each gradient row is orthogonal to its own vector, and permuting the classes permutes dW.
#[test]
fn gradients_have_their_symmetries() {
    let data = Data::random(12, 500, 32, 21);
    let loss = MarginSoftmax::arcface();
    let out = data.cpu(&loss, &Options::default());
    for (vectors, grads) in [(&data.x, &out.grad_embeddings), (&data.w, &out.grad_prototypes)] {
        for (v, g) in vectors.chunks(32).zip(grads.chunks(32)) {
            let dot: f64 = v.iter().zip(g).map(|(v, g)| f64::from(*v) * f64::from(*g)).sum();
            assert!(dot.abs() <= 1e-6 * length(v) * length(g) + 1e-12, "{dot:e}");
        }
    }
    let mut turned = data.clone();
    turned.w.rotate_left(123 * 32);
    turned.labels.iter_mut().for_each(|l| *l = (*l + 500 - 123) % 500);
    let mut other = turned.cpu(&loss, &Options::default()).grad_prototypes;
    other.rotate_right(123 * 32);
    assert!(distance(&other, &out.grad_prototypes.iter().map(|&g| g.into()).collect::<Vec<_>>()) < 1e-5);
}

/// Every kind of bad input names itself and leaves the output as it was.
#[test]
fn bad_input_leaves_the_output_untouched() {
    let data = Data::random(4, 30, 8, 22);
    let before = Output { loss: 7.0, row_losses: vec![1.0, 2.0], grad_prototypes: vec![3.0; 5], ..Output::default() };
    let mut head = Backend::cpu().head(&MarginSoftmax::arcface(), data.shape()).unwrap();
    let ones = vec![1.0_f32; 30];
    let mut negative = ones.clone();
    negative[3] = -1.0;
    let mut refuse = |batch: Batch<'_>| {
        let mut out = before.clone();
        let error = head.evaluate_into(&batch, &mut out).unwrap_err();
        assert_eq!(out, before, "{error}");
        error
    };
    let good = data.batch();
    let five = [0; 5];
    assert_eq!(refuse(Batch { labels: &five, ..good }), Error::Rows { found: 5, allowed: 4 });
    let length = |what, found, expected| Error::Length { what, found, expected };
    assert_eq!(refuse(Batch { embeddings: &data.x[1..], ..good }), length("embeddings", 31, 32));
    assert_eq!(refuse(Batch { prototypes: &data.w[1..], ..good }), length("prototypes", 239, 240));
    assert_eq!(refuse(Batch { class_weights: Some(&ones[1..]), ..good }), length("class_weights", 29, 30));
    assert_eq!(refuse(Batch { upstream: Some(&ones[..2]), ..good }), length("upstream", 2, 1));
    let allowed = "0, or 1e-30 <= w <= 1e24";
    let parameter = Error::Parameter { what: "class_weights", found: -1.0, allowed };
    assert_eq!(refuse(Batch { class_weights: Some(&negative), ..good }), parameter);
    let error = refuse(Batch { upstream: Some(&[f32::NAN]), ..good });
    assert!(matches!(error, Error::Parameter { what: "upstream", .. }), "{error}");
    let error = refuse(Batch { labels: &[0, 1, 30, 2], ..good });
    assert_eq!(error, Error::Label { row: 2, label: 30, classes: 30 });
    assert!(head.update(&MarginSoftmax::arcface().with_scale(-1.0)).is_err());
    assert_eq!(head.loss().scale, 64.0, "a refused loss changes nothing");
    assert!(head.evaluate(&data.batch()).unwrap().loss.is_finite(), "the head still works");
}

/// A budget that nothing fits is refused with both numbers; the number it names is enough.
#[test]
fn a_budget_that_is_too_small_is_refused() {
    for (rows, classes, dim) in [(1, 1, 1), (256, 5994, 192), (4, 100_003, 16)] {
        let shape = Shape::new(rows, classes, dim).unwrap();
        let head = |bytes| {
            let options = Options { budget: Budget::bytes(bytes), ..Options::default() };
            Backend::cpu().head_with(&MarginSoftmax::arcface(), shape, &options).map(|_| ())
        };
        let Err(Error::Budget { needed, allowed: 10 }) = head(10) else { panic!("10 bytes were enough") };
        assert!(matches!(head(needed - 1), Err(Error::Budget { needed: n, .. }) if n == needed));
        assert_eq!(head(needed), Ok(()));
    }
}

/// Every transform of the others, with the numbers of its family and with further ones.
fn transforms() -> Vec<Others> {
    let series = |degree, damping| Curve::Series(Series { degree, damping, ..Series::default() });
    let angle = |curve, slope| Others::Angle(Angle { factor: 0.6, offset: 0.3, margin: 0.1, curve, slope });
    let power = |exponent, angular, slope| Others::Power(Power { exponent, margin: 0.15, angular, slope });
    let mut all = Others::all();
    all.extend([
        angle(Curve::Exact, Slope::Analytic),
        angle(Curve::Exact, Slope::Detached),
        angle(series(31, Damping::None), Slope::Analytic),
        angle(series(12, Damping::Jackson), Slope::Analytic),
        Others::TopK(TopK { count: 1, margin: 0.3 }),
        Others::TopK(TopK { count: 64, margin: 0.06 }),
        Others::Filter(Filter { threshold: 0.1 }),
        power(1, false, Slope::Analytic),
        power(4, true, Slope::Analytic),
        power(3, true, Slope::Detached),
    ]);
    all
}

/// Every transform × 1, 2, 3 prototypes per class × softmax and binary link × plain, smoothed and weighted × schedule, with
/// every gradient there is.
#[test]
fn every_transform_link_and_sub_centre_agrees_with_the_reference() {
    let links = [Link::Softmax, Link::Binary(Binary { weight: 0.6, factor: 0.3, bias: -1.5 })];
    for others in transforms() {
        for centers in [1, 2, 3] {
            for (link, smoothed) in [(links[0], false), (links[0], true), (links[1], false)] {
                let epsilon = if smoothed { 0.1 } else { 0.0 };
                let loss = MarginSoftmax { link, ..MarginSoftmax::arcface() };
                let loss = loss.with_others(others.clone()).with_label_smoothing(epsilon).with_scale(20.0);
                let mut data = Data::random(33, 300, 24, 31).with_centers(centers, 32);
                if smoothed || link != Link::Softmax {
                    data = data.weighted();
                    data.upstream = Some(vec![-1.7]);
                }
                let mut state = State::new(&loss, data.shape()).unwrap();
                state.hardness = 0.3;
                let expected = data.reference_at(&loss, WANT, &mut state, false);
                for (schedule, options) in schedules_of(&loss, &data, WANT) {
                    let name = format!("{others:?} K {centers} {} eps {epsilon} {schedule}", link.name());
                    let out = data.head(&loss, &options, &state).evaluate(&data.batch()).unwrap();
                    assert_agrees(&name, &loss, &out, &expected, true);
                }
            }
        }
    }
}

/// Losses of every kind that is not a plain softmax over cosines, each with a number of prototypes per class.
fn families() -> Vec<(MarginSoftmax, usize)> {
    let named = |name: &str, centers| (MarginSoftmax::named(name).unwrap(), centers);
    let mut all = vec![
        named("softmax", 1),
        named("m_softmax", 1),
        named("arcgrad", 2),
        named("arcgrad_series", 1),
        named("li_arcface", 1),
        named("curricularface", 1),
        named("adaface", 2),
        named("magface", 1),
        named("elasticface_arc", 1),
        named("elasticface_arc_plus", 3),
        named("elasticface_cos_plus", 1),
        named("sphereface2", 1),
        named("sphereface2_angular", 2),
        named("sphereface2_opensphere", 1),
        named("adacos", 1),
        named("adacos", 3),
        named("arcface_topk", 1),
        named("arcface_topk", 2),
        named("arcface_filter", 3),
        named("ampface_rectified", 1),
        named("cosface", 1),
        named("chebyaam", 2),
    ];
    let both = MarginSoftmax::adacos().with_others(Others::TopK(TopK { count: 3, margin: 0.1 }));
    all.push((both.with_label_smoothing(0.1), 2));
    let both = MarginSoftmax::adaface().with_others(Others::Curricular).with_label_smoothing(0.05);
    all.push((both, 1));
    all
}

/// A batch for one of the [`families`]: rows with embeddings of many lengths around MagFace's, one of them ignored.
fn family_data(loss: &MarginSoftmax, centers: usize, seed: u64) -> Data {
    let mut data = Data::random(24, 260, 20, seed);
    if loss.product == Product::Linear {
        return data.linear();
    }
    data.x.chunks_mut(20).enumerate().for_each(|(i, x)| x.iter_mut().for_each(|v| *v *= [1.0, 3.0, 12.0][i % 3]));
    if centers > 1 { data.with_centers(centers, seed + 1) } else { data }
}

/// Reduction × ignore index × weights × upstream for every family.
#[test]
fn every_family_takes_every_option() {
    for (loss, centers) in families() {
        for (k, reduction) in [Reduction::Mean, Reduction::Sum, Reduction::None].into_iter().enumerate() {
            let mut loss = loss.clone();
            loss.reduction = reduction;
            let mut data = family_data(&loss, centers, 40);
            data.labels[3] = 3;
            loss.ignore_index = [None, Some(-1), Some(3)][k];
            if k == 1 {
                (data.labels[0], data.labels[8]) = (-1, -1);
            }
            if k != 1 {
                data = data.weighted();
            }
            if k > 0 {
                let count = if reduction == Reduction::None { 24 } else { 1 };
                data.upstream = Some((0..count).map(|i| 0.7 - 0.1 * i as f32).collect());
            }
            let expected = data.reference(&loss, WANT);
            for (schedule, options) in schedules_of(&loss, &data, WANT) {
                let name = format!("{loss:?} K {centers} {} {schedule}", reduction.name());
                assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
            }
        }
    }
}

/// Several training steps from a state that is not the first one: state and outputs follow the reference; an evaluation in
/// between moves nothing.
#[test]
fn training_follows_the_batch() {
    for (loss, centers) in families() {
        let first = family_data(&loss, centers, 50);
        let mut state = State::new(&loss, first.shape()).unwrap().with_seed(77);
        (state.step, state.hardness, state.norm_mean, state.norm_deviation) = (41, 0.2, 9.0, 4.0);
        state.scale *= 1.3;
        for (schedule, options) in schedules_of(&loss, &first, WANT) {
            let mut head = first.head(&loss, &options, &state);
            let mut expected_state = state;
            for step in 0..3 {
                let mut data = family_data(&loss, centers, 50 + step);
                data.labels[2] = -1;
                let loss = loss.clone().with_ignore_index(-1);
                head.update(&loss).unwrap();
                let expected = data.reference_at(&loss, WANT, &mut expected_state, true);
                let out = head.train(&data.batch()).unwrap();
                let name = format!("{loss:?} K {centers} step {step} {schedule}");
                assert_agrees(&name, &loss, &out, &expected, true);
                let (found, expected) = (*head.state(), expected_state);
                assert_eq!((found.step, found.seed), (42 + step, 77));
                for (found, expected) in [
                    (found.hardness, expected.hardness),
                    (found.norm_mean, expected.norm_mean),
                    (found.norm_deviation, expected.norm_deviation),
                    (found.scale, expected.scale),
                ] {
                    assert!((found - expected).abs() <= 3e-6 * expected.abs(), "{name}: {found}, not {expected}");
                }
                head.evaluate(&data.batch()).unwrap();
                assert_eq!(found, *head.state(), "{name}: an evaluation moved the state");
            }
        }
    }
}

/// A prototype that is not finite, or a refused batch, leaves what follows the batch where it was.
#[test]
fn a_broken_batch_moves_no_state() {
    for (loss, centers) in families() {
        let mut data = family_data(&loss, centers, 60);
        let last = data.w.len() - 1;
        let before = State::new(&loss, data.shape()).unwrap();
        for (_, options) in schedules_of(&loss, &data, WANT) {
            let mut head = data.head(&loss, &options, &before);
            assert!(head.train(&Batch { labels: &[0], ..data.batch() }).is_err());
            assert_eq!(*head.state(), before);
            let good = data.w[last];
            data.w[last] = f32::NAN;
            let out = head.train(&data.batch()).unwrap();
            assert_eq!(*head.state(), State { step: 1, ..before });
            assert!(out.loss.is_nan() && out.row_losses.iter().all(|l| l.is_nan()));
            assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).chain(&out.grad_bias).all(|&g| g == 0.0));
            assert_eq!((out.grad_scale, out.counts.non_finite_prototypes), (0.0, 1));
            data.w[last] = good;
        }
    }
}

/// Rows that are not finite, ignored, short or weightless in every family, against the reference.
#[test]
fn every_family_leaves_out_what_it_must() {
    for (loss, centers) in families() {
        let loss = loss.with_ignore_index(-1);
        let mut data = family_data(&loss, centers, 70);
        data.labels[5] = -1;
        data.x[20 * 2..20 * 3].fill(0.0);
        data.w[20 * 7..20 * 8].fill(0.0);
        for (schedule, options) in schedules_of(&loss, &data, WANT) {
            let out = data.cpu(&loss, &options);
            assert_agrees(&format!("{loss:?} {schedule}"), &loss, &out, &data.reference(&loss, WANT), true);
        }
        let mut broken = data.clone();
        broken.x[20 * 4 + 3] = f32::INFINITY;
        let mut without = data.clone();
        without.labels[4] = -1;
        // a row more or less is another draw of the sorted margins
        let same = !matches!(loss.adaptive, Adaptive::Elastic(Elastic { sorted: true, .. }));
        for (_, options) in schedules_of(&loss, &data, WANT) {
            let (out, clean) = (broken.cpu(&loss, &options), without.cpu(&loss, &options));
            assert!(out.loss.is_nan() && out.row_losses[4].is_nan() && out.counts.non_finite_rows == 1);
            assert!(out.grad_embeddings[80..100].iter().all(|&g| g == 0.0));
            if same {
                assert_eq!(out.grad_embeddings, clean.grad_embeddings);
                assert_eq!(out.grad_prototypes, clean.grad_prototypes);
                assert_eq!((out.grad_scale, &out.grad_bias), (clean.grad_scale, &clean.grad_bias));
            }
        }
        let mut weightless = data.clone();
        weightless.weights = Some(vec![0.0; 260]);
        let mut nobody = data.clone();
        nobody.labels.fill(-1);
        for data in [weightless, nobody] {
            let expected = data.reference(&loss, WANT);
            let out = data.cpu(&loss, &Options { want: WANT, ..Options::default() });
            assert!((f64::from(out.loss) - expected.loss).abs() <= 1e-6 * expected.loss);
            assert_eq!(out.counts, expected.counts);
            assert!(out.grad_prototypes.iter().chain(&out.grad_bias).all(|&g| g == 0.0) && out.grad_scale == 0.0);
            // MagFace's second term knows no weights
            for (g, e) in out.grad_embeddings.iter().zip(&expected.grad_embeddings) {
                assert!((f64::from(*g) - e).abs() <= 1e-6 * e.abs(), "{g} is not {e}");
            }
        }
    }
}

/// Margins of classes and of rows, any of m0..m3, with every curve and fallback that can follow them.
#[test]
fn margins_of_classes_and_rows_agree_with_the_reference() {
    let margin = |change: fn(&mut Unified)| MarginSoftmax::arcface().with_margin(change).with_scale(20.0);
    let series = |m: &mut Unified| m.curve = Curve::Series(Series::default());
    let losses = [
        margin(|_| {}),
        margin(|m| m.fallback = Fallback::Mirror),
        margin(|m| m.fallback = Fallback::None),
        margin(|m| m.slope = Slope::Detached),
        margin(series),
        margin(series).with_others(Others::Curricular),
        MarginSoftmax::magface(),
        MarginSoftmax::elasticface_arc(),
    ];
    let values = |count: usize, least: f32, step: f32| (0..count).map(|i| least + step * (i % 5) as f32).collect();
    for loss in &losses {
        for which in 0..4 {
            let mut data = Data::random(33, 120, 24, 80);
            let [by_class, by_row] = [&mut data.class_margins, &mut data.row_margins];
            match which {
                0 => by_class[2] = Some(values(120, 0.1, 0.1)),
                1 => by_row[2] = Some(values(33, -0.3, 0.2)),
                2 => {
                    *by_class = [0.8, 0.9, 0.05, -0.1].map(|least| Some(values(120, least, 0.1)));
                    by_row[3] = Some(values(33, 0.0, 0.07));
                }
                _ => *by_row = [0.8, 1.0, 0.05, -0.1].map(|least| Some(values(33, least, 0.05))),
            }
            let expected = data.reference(loss, WANT);
            for (schedule, options) in schedules_of(loss, &data, WANT) {
                let name = format!("{loss:?} margins {which} {schedule}");
                assert_agrees(&name, loss, &data.cpu(loss, &options), &expected, true);
            }
        }
    }
    let mut linear = Data::random(33, 120, 24, 81).linear();
    linear.class_margins[3] = Some(values(120, 0.0, 0.3));
    linear.row_margins[0] = Some(values(33, 0.5, 0.2));
    let loss = MarginSoftmax::m_softmax().with_label_smoothing(0.1);
    for (schedule, options) in schedules_of(&loss, &linear, WANT) {
        let name = format!("linear margins {schedule}");
        assert_agrees(&name, &loss, &linear.cpu(&loss, &options), &linear.reference(&loss, WANT), true);
    }
}

/// Sizes around every boundary for the sweeps that go through a table.
#[test]
fn every_shape_of_a_table_agrees_with_the_reference() {
    let shapes = [
        (3, 2, 5, 1),
        (3, 5, 3, 4),
        (17, 1000, 8, 2),
        (4, 20_003, 16, 1),
        (1030, 70, 5, 3),
        (5, 3, 6, 200),
        (2, 2, 7, 700),
    ];
    for (rows, classes, dim, centers) in shapes {
        for name in ["sphereface2", "normface", "arcface_topk"] {
            let loss = MarginSoftmax::named(name).unwrap().with_scale(16.0);
            let loss = match loss.others {
                Others::TopK(_) => loss.with_others(Others::TopK(TopK { count: 1, margin: 0.06 })),
                _ => loss,
            };
            let mut data = Data::random(rows, classes, dim, 90).with_centers(centers, 91);
            // not next to ±1, where an exact slope makes the gate useless
            let target = |data: &Data| data.reference(&MarginSoftmax::normface(), Want::LOSS).target_cosines;
            for (i, c) in target(&data).into_iter().enumerate() {
                if c.abs() > 0.98 {
                    data.labels[i] = (data.labels[i] + 1) % classes as i64;
                }
            }
            if target(&data).iter().any(|c| c.abs() > 0.99) && name == "arcface_topk" {
                continue;
            }
            let expected = data.reference(&loss, WANT);
            if expected.other_cosines.iter().any(|c| *c > 0.999) && name == "arcface_topk" {
                continue;
            }
            for (schedule, options) in schedules_of(&loss, &data, WANT) {
                let name = format!("{name} {rows}x{classes}x{dim} K {centers} {schedule}");
                assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
            }
        }
    }
}

/// One class leaves a softmax nothing to choose from, and a binary link its own problem.
#[test]
fn one_class_of_a_family() {
    for (name, centers) in [("normface", 2), ("arcgrad", 1), ("softmax", 1), ("sphereface2", 1), ("sphereface2", 3)] {
        let loss = MarginSoftmax::named(name).unwrap();
        let data = Data::random(3, 1, 8, 93).fit(&loss);
        let data = if centers > 1 { data.with_centers(centers, 94) } else { data };
        let expected = data.reference(&loss, WANT);
        for (schedule, options) in schedules_of(&loss, &data, WANT) {
            let out = data.cpu(&loss, &options);
            assert_agrees(&format!("{name} {schedule}"), &loss, &out, &expected, name == "sphereface2");
            assert_eq!(out.other_cosines, [-1.0; 3]);
            if name != "sphereface2" {
                assert_eq!((out.loss, out.grad_scale), (0.0, 0.0));
                assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
                assert!(out.grad_bias.iter().all(|&g| g == 0.0));
            }
        }
    }
}

/// Of equal sub-centres the first gets the gradient; of equal classes the first are the nearest.
#[test]
fn ties_go_to_the_first() {
    let mut data = Data::random(6, 40, 8, 95).with_centers(2, 96);
    for pair in data.w.chunks_mut(16) {
        let (first, second) = pair.split_at_mut(8);
        second.copy_from_slice(first);
    }
    let loss = MarginSoftmax::sphereface2();
    for (schedule, options) in schedules_of(&loss, &data, WANT) {
        let out = data.cpu(&loss, &options);
        assert!(out.grad_prototypes.chunks(16).all(|g| g[..8].iter().any(|&g| g != 0.0) && g[8..] == [0.0; 8]));
        assert_agrees(schedule, &loss, &out, &data.reference(&loss, WANT), true);
    }
    let mut data = Data::random(6, 400, 8, 97);
    // one axis for all, so that no product rounds
    data.w = [0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0].repeat(400);
    data.labels = vec![0, 1, 2, 3, 4, 399];
    let loss = MarginSoftmax::named("arcface_topk").unwrap();
    for (schedule, options) in schedules_of(&loss, &data, WANT) {
        let out = data.cpu(&loss, &options);
        let expected = data.reference(&loss, WANT);
        let bad = differing("row_losses", &out.row_losses, &expected.row_losses, 1e-4, |e| e.abs());
        assert!(bad.is_empty(), "{schedule}: {bad:?}");
        assert!(distance(&out.grad_prototypes, &expected.grad_prototypes) < 1e-4, "{schedule}");
    }
}

/// The same bits on any number of threads and call after call, for every family while it trains.
#[test]
fn threads_change_no_bit_of_a_family() {
    let bits = |out: &Output| -> Vec<u32> {
        let values = [
            &out.row_losses,
            &out.target_cosines,
            &out.other_cosines,
            &out.grad_embeddings,
            &out.grad_prototypes,
            &out.grad_bias,
        ];
        [out.loss, out.grad_scale].into_iter().chain(values.into_iter().flatten().copied()).map(f32::to_bits).collect()
    };
    for (loss, centers) in families() {
        let mut data = Data::random(70, 1500, 32, 98).fit(&loss);
        if centers > 1 {
            data = data.with_centers(centers, 99);
        }
        let state = State::new(&loss, data.shape()).unwrap();
        for (schedule, options) in schedules_of(&loss, &data, WANT) {
            let mut first = None;
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (once, again, after) = pool.install(|| {
                    let mut head = data.head(&loss, &options, &state);
                    let once = head.train(&data.batch()).unwrap();
                    let after = *head.state();
                    head.set_state(&state).unwrap();
                    (once, head.train(&data.batch()).unwrap(), after)
                });
                let expected = first.get_or_insert_with(|| (bits(&once), after));
                assert!(bits(&once) == expected.0, "{loss:?} {schedule}: other bits on {threads} threads");
                assert!(bits(&again) == expected.0, "{loss:?} {schedule}: other bits at the second call");
                assert_eq!(after, expected.1);
            }
        }
    }
}

/// A new loss may be of any family: the same head goes on, and an output that held another family's gradients.
#[test]
fn a_head_changes_its_family() {
    let data = family_data(&MarginSoftmax::normface(), 1, 100);
    let loss = MarginSoftmax::normface();
    for options in [Options { want: WANT, ..Options::default() }, data.least(&families().remove(17).0, WANT)] {
        let mut head = data.head(&loss, &options, &State::new(&loss, data.shape()).unwrap());
        let mut out = Output::default();
        for (loss, _) in families() {
            let data = data.fit(&loss);
            head.update(&loss).unwrap();
            head.set_state(&State::new(&loss, data.shape()).unwrap()).unwrap();
            head.evaluate_into(&data.batch(), &mut out).unwrap();
            assert_agrees(&format!("{loss:?}"), &loss, &out, &data.reference(&loss, WANT), true);
        }
        let more = MarginSoftmax::arcface().with_others(Others::TopK(TopK { count: 64, margin: 0.1 }));
        match head.update(&more) {
            Ok(()) => assert_eq!(*head.loss(), more),
            Err(error) => {
                assert!(matches!(error, Error::Budget { .. }), "{error}");
                assert_ne!(*head.loss(), more);
            }
        }
        assert!(head.evaluate(&data.batch()).unwrap().loss.is_finite());
    }
}

/// What the new inputs refuse, by name, and without touching output or state.
#[test]
fn bad_input_of_the_families_is_refused() {
    let data = Data::random(4, 30, 8, 101);
    let refuse = |loss: &MarginSoftmax, batch: Batch<'_>| {
        let mut head = data.head(loss, &Options::default(), &State::new(loss, data.shape()).unwrap());
        let (before, state) = (Output { loss: 7.0, grad_bias: vec![1.0], ..Output::default() }, *head.state());
        let mut out = before.clone();
        let error = head.train_into(&batch, &mut out).unwrap_err();
        assert_eq!((&out, head.state()), (&before, &state), "{error}");
        error
    };
    let (arcface, linear) = (MarginSoftmax::arcface(), MarginSoftmax::softmax());
    let (ones, good) = ([1.0_f32; 30], data.batch());
    let bias = |bias| Batch { bias: Some(bias), ..good };
    assert!(matches!(refuse(&arcface, bias(&ones)), Error::Combination { what: "bias", .. }));
    assert_eq!(refuse(&linear, bias(&ones[1..])), Error::Length { what: "bias", found: 29, expected: 30 });
    let mut infinite = ones;
    infinite[7] = f32::INFINITY;
    assert!(matches!(refuse(&linear, bias(&infinite)), Error::Parameter { what: "bias", .. }));
    let class = |m2| Batch { class_margins: Margins { m2: Some(m2), ..Margins::NONE }, ..good };
    let row = |m2| Batch { row_margins: Margins { m2: Some(m2), ..Margins::NONE }, ..good };
    assert_eq!(refuse(&arcface, class(&ones[1..])), Error::Length { what: "class_margins", found: 29, expected: 30 });
    assert_eq!(refuse(&arcface, row(&ones)), Error::Length { what: "row_margins", found: 30, expected: 4 });
    assert!(matches!(refuse(&arcface, row(&[4.0; 4])), Error::Parameter { what: "m2", .. }));
    assert!(matches!(refuse(&linear, row(&[0.1; 4])), Error::Combination { .. }));
    assert!(matches!(refuse(&MarginSoftmax::sphereface2(), row(&[0.1; 4])), Error::Combination { .. }));

    let head = |loss: &MarginSoftmax, shape| Backend::cpu().head(loss, shape).map(|_| ()).unwrap_err();
    let top = MarginSoftmax::arcface().with_others(Others::TopK(TopK { count: 30, margin: 0.1 }));
    assert!(matches!(head(&top, data.shape()), Error::Parameter { what: "top_k.count", .. }));
    let two = data.shape().with_sub_centers(2).unwrap();
    assert!(matches!(head(&linear, two), Error::Combination { what: "product.linear", .. }));
    assert!(matches!(head(&MarginSoftmax::adacos(), Shape::new(4, 2, 8).unwrap()), Error::Combination { .. }));
    let state = State::new(&arcface, Shape::new(4, 31, 8).unwrap()).unwrap();
    let mut right = Backend::cpu().head(&arcface, data.shape()).unwrap();
    assert!(matches!(right.set_state(&state), Err(Error::Shape { what: "state", .. })));
    let short = Batch { prototypes: &data.w, ..good };
    let mut wide = Backend::cpu().head(&arcface, two).unwrap();
    let expected = Error::Length { what: "prototypes", found: 240, expected: 480 };
    assert_eq!(wide.evaluate(&short).unwrap_err(), expected);
}

/// One head as several shards: everything added up again.
fn sharded(
    data: &Data,
    loss: &MarginSoftmax,
    state: &mut State,
    train: bool,
    cuts: &[usize],
    options: &Options,
) -> Output {
    let [rows, classes, dim] = data.shape;
    let wide = dim * data.centers.max(1);
    let ends: Vec<usize> = [0].iter().chain(cuts).chain(&[classes]).copied().collect();
    let mut heads: Vec<(SliceHead, Batch<'_>)> = ends
        .windows(2)
        .map(|w| {
            let mut head = Backend::cpu().shard(loss, data.shape(), w[0]..w[1], options).unwrap();
            head.set_state(state).unwrap();
            let batch = Batch {
                prototypes: &data.w[w[0] * wide..w[1] * wide],
                bias: data.bias.as_deref().map(|b| &b[w[0]..w[1]]),
                ..data.batch()
            };
            (head, batch)
        })
        .collect();
    let parts: Vec<Targets> = heads.iter_mut().map(|(head, batch)| head.targets(batch).unwrap()).collect();
    let targets = Targets::merged(&parts, classes).unwrap();
    if train {
        heads.iter_mut().for_each(|(head, batch)| head.follow(batch, &targets).unwrap());
    }
    // the last first: the order of the parts does not matter
    let parts = heads.iter_mut().rev().map(|(head, batch)| head.statistics(batch, &targets).unwrap());
    let statistics = Statistics::merged(&parts.collect::<Vec<_>>(), classes).unwrap();
    let outs: Vec<Output> =
        heads.iter_mut().map(|(head, batch)| head.gradients(batch, &targets, &statistics).unwrap()).collect();
    *state = *heads[0].0.state();
    let mut all = outs[0].clone();
    for (out, (head, _)) in outs.iter().zip(&heads).skip(1) {
        assert_eq!((out.loss.to_bits(), &out.row_losses), (all.loss.to_bits(), &all.row_losses));
        assert_eq!((&out.counts, head.state()), (&all.counts, &*state));
        assert_eq!(out.grad_embeddings.len(), rows * dim);
        all.grad_embeddings.iter_mut().zip(&out.grad_embeddings).for_each(|(a, b)| *a += b);
        all.grad_prototypes.extend(&out.grad_prototypes);
        all.grad_scale += out.grad_scale;
        match loss.product {
            Product::Linear => all.grad_bias.extend(&out.grad_bias),
            Product::Cosine => all.grad_bias.iter_mut().zip(&out.grad_bias).for_each(|(a, b)| *a += b),
        }
    }
    all
}

/// Any split of the classes gives what the whole gives: uneven, without a positive, one class each; while training too.
#[test]
fn shards_agree_with_the_whole() {
    for (loss, centers) in families() {
        let loss = loss.with_ignore_index(-1);
        let mut data = family_data(&loss, centers, 110).weighted();
        data.labels[6] = -1;
        // 40 classes in the middle without a positive
        data.labels.iter_mut().filter(|l| (100..140).contains(*l)).for_each(|l| *l -= 100);
        let mut first = State::new(&loss, data.shape()).unwrap().with_seed(5);
        (first.hardness, first.norm_mean, first.norm_deviation) = (0.1, 9.0, 4.0);
        for train in [false, true] {
            let mut expected_state = first;
            let expected = data.reference_at(&loss, WANT, &mut expected_state, train);
            for cuts in [&[][..], &[1], &[100, 140], &[7, 8, 200, 259]] {
                for (schedule, options) in schedules_of(&loss, &data, WANT) {
                    let mut state = first;
                    let out = sharded(&data, &loss, &mut state, train, cuts, &options);
                    let name = format!("{loss:?} K {centers} {cuts:?} train {train} {schedule}");
                    assert_agrees(&name, &loss, &out, &expected, true);
                    assert!((state.scale - expected_state.scale).abs() <= 3e-6 * expected_state.scale, "{name}");
                    assert!((state.hardness - expected_state.hardness).abs() <= 1e-9, "{name}");
                    assert_eq!(state.step, expected_state.step);
                }
            }
        }
    }
    // every class a shard of its own
    for (loss, centers) in families() {
        let top = match loss.others {
            Others::TopK(top) => loss.clone().with_others(Others::TopK(TopK { count: 2, ..top })),
            _ => loss.clone(),
        };
        let mut data = Data::random(5, 7, 20, 120).fit(&loss);
        if centers > 1 {
            data = data.with_centers(centers, 121);
        }
        let (mut state, mut expected_state) =
            (State::new(&top, data.shape()).unwrap(), State::new(&top, data.shape()).unwrap());
        let expected = data.reference_at(&top, WANT, &mut expected_state, true);
        let options = Options { want: WANT, ..Options::default() };
        let out = sharded(&data, &top, &mut state, true, &[1, 2, 3, 4, 5, 6], &options);
        assert_agrees(&format!("{top:?} one class each"), &top, &out, &expected, true);
    }
}

/// What a shard exchanges is what the reference exchanges; and pieces that do not fit are refused.
#[test]
fn a_shard_exchanges_what_the_reference_exchanges() {
    for (loss, centers) in families() {
        let data = family_data(&loss, centers, 130);
        let (range, wide) = (50..130, 20 * centers);
        let batch = Batch {
            prototypes: &data.w[range.start * wide..range.end * wide],
            bias: data.bias.as_deref().map(|b| &b[range.clone()]),
            ..data.batch()
        };
        let options = Options { want: WANT, ..Options::default() };
        let shard = |backend: Backend| backend.shard(&loss, data.shape(), range.clone(), &options).unwrap();
        let (mut ours, mut theirs) = (shard(Backend::cpu()), shard(Backend::reference()));
        let close = |a: f64, b: f64, size: f64| (a - b).abs() <= 1e-4 * size.max(b.abs()) || a == b;
        let (found, expected) = (ours.targets(&batch).unwrap(), theirs.targets(&batch).unwrap());
        assert_eq!((&found.range, found.zero_prototypes), (&expected.range, expected.zero_prototypes));
        for (a, b) in found.cosines.iter().zip(&expected.cosines) {
            assert!(a.is_some() == b.is_some() && close(a.unwrap_or(0.0), b.unwrap_or(0.0), 1e-8), "{a:?} {b:?}");
        }
        assert_eq!(found.cosines.len(), expected.cosines.len());
        assert_eq!((found.top.len(), found.sums.len()), (expected.top.len(), expected.sums.len()));
        for (a, b) in found.top.iter().flatten().zip(expected.top.iter().flatten()) {
            assert!(a.1 == b.1 && close(a.0, b.0, 1e-2), "{a:?} {b:?}");
        }
        for (a, b) in found.sums.iter().zip(&expected.sums) {
            assert!(close(a[0] + a[1].ln(), b[0] + b[1].ln(), 1.0), "{a:?} {b:?}");
        }
        if matches!(loss.others, Others::TopK(_)) {
            continue; // a bound in f64 chooses others than one in f32
        }
        // given the whole of the targets, the sums
        let mut whole = Backend::reference().head(&loss, data.shape()).unwrap();
        let targets = whole.targets(&data.batch()).unwrap();
        let found = ours.statistics(&batch, &targets).unwrap();
        let expected = theirs.statistics(&batch, &targets).unwrap();
        assert_eq!(found.range, expected.range);
        for (a, b) in found.rows.iter().zip(&expected.rows) {
            assert!(close(a.most, b.most, 1.0) && close(a.nearest, b.nearest, 1.0), "{a:?} {b:?}");
            let factor = (a.most - b.most).exp();
            assert!(close(a.sum * factor, b.sum, 0.0) && close(a.tilt * factor, b.tilt, b.sum), "{loss:?} {a:?} {b:?}");
            assert!(close(a.weighted, b.weighted, 1.0), "{loss:?} {a:?} {b:?}");
        }

        assert!(matches!(ours.evaluate(&batch), Err(Error::Combination { what: "shard", .. })));
        let error = ours.statistics(&batch, &Targets { range: range.clone(), ..targets.clone() }).unwrap_err();
        assert!(matches!(error, Error::Shards { .. }), "{error}");
        let error = ours.gradients(&batch, &targets, &found).unwrap_err();
        assert!(matches!(error, Error::Shards { .. }), "{error}");
        let mut fewer = targets.clone();
        fewer.cosines.pop();
        let error = ours.statistics(&batch, &fewer).unwrap_err();
        assert!(matches!(error, Error::Length { what: "targets.cosines", .. }), "{error}");
        let error = ours.targets(&data.batch()).unwrap_err();
        assert!(matches!(error, Error::Length { what: "prototypes", .. }), "{error}");
    }
}

/// A linear head at logits that f32 can hold but not tell apart keeps finite gradients.
#[test]
fn a_linear_head_survives_large_logits() {
    let mut data = Data::random(6, 50, 8, 140);
    data.x.iter_mut().for_each(|x| *x *= 1e6);
    for scale in [1.0, 37.7] {
        let loss = MarginSoftmax::softmax().with_scale(scale);
        for (_, options) in schedules_of(&loss, &data, WANT) {
            let out = data.cpu(&loss, &options);
            assert!(out.loss.is_finite() && out.grad_scale.is_finite());
            assert!(
                out.grad_embeddings.iter().chain(&out.grad_prototypes).chain(&out.grad_bias).all(|g| g.is_finite())
            );
            assert_eq!(out.counts, Counts { rows: 6, ..Counts::default() });
        }
    }
}

/// f16 and bf16 are their values: the bits of the same values in f32, on every path over slices.
#[test]
fn half_types_are_their_values() {
    use half::{bf16, f16};

    let data = Data::random(6, 20, 12, 130);
    let (x, w): (Vec<f16>, Vec<bf16>) =
        (data.x.iter().map(|&v| f16::from_f32(v)).collect(), data.w.iter().map(|&v| bf16::from_f32(v)).collect());
    let (wide_x, wide_w): (Vec<f32>, Vec<f32>) =
        (x.iter().map(|v| v.to_f32()).collect(), w.iter().map(|v| v.to_f32()).collect());
    assert!(wide_x != data.x && wide_w != data.w);
    let loss = MarginSoftmax::curricularface().with_scale(16.0);
    for backend in [Backend::cpu(), Backend::reference()] {
        let mut head = backend.head(&loss, data.shape()).unwrap();
        let batch = Batch { embeddings: &wide_x, prototypes: &wide_w, ..data.batch() };
        let rest = Batch { embeddings: &[], prototypes: &[], ..data.batch() };
        assert_eq!(head.evaluate_stored(&x, &w, &rest).unwrap(), head.evaluate(&batch).unwrap());
        assert_eq!(head.evaluate_stored(&x, &wide_w, &rest).unwrap(), head.evaluate(&batch).unwrap());
        let mut other = backend.head(&loss, data.shape()).unwrap();
        assert_eq!(head.train_stored(&x, &w, &rest).unwrap(), other.train(&batch).unwrap());
        assert_eq!(head.state(), other.state());
        let error = head.evaluate_stored(&x[1..], &w, &rest).unwrap_err();
        assert!(matches!(error, Error::Length { what: "embeddings", .. }), "{error}");
    }
}

/// Products of finite vectors beyond f32: the row is not finite, and the rest as if it were not there.
#[test]
fn a_linear_row_beyond_f32_is_left_out() {
    let loss = MarginSoftmax::softmax();
    let shape = Shape::new(3, 3, 2).unwrap();
    let w = [1.0, 0.5, -0.5, 0.2, 0.3, -1e20];
    let (x, y) = ([0.5, 0.1, 1e20, -1e20, -0.3, 0.2], [0, 1, 2]);
    let mut head = Backend::cpu().head(&loss, shape).unwrap();
    let out = head.evaluate(&Batch { embeddings: &x, prototypes: &w, labels: &y, ..Default::default() }).unwrap();
    let (few, labels) = ([0.5, 0.1, -0.3, 0.2], [0, 2]);
    let rest =
        head.evaluate(&Batch { embeddings: &few, prototypes: &w, labels: &labels, ..Default::default() }).unwrap();
    assert!(out.loss.is_nan() && out.row_losses[1].is_nan() && rest.loss.is_finite());
    assert_eq!((out.counts.rows, out.counts.non_finite_rows), (2, 1));
    // one more term, 0, may change the order of a sum
    assert!(out.grad_prototypes.iter().zip(&rest.grad_prototypes).all(|(a, b)| (a - b).abs() < 1e-6));
    assert_eq!((&out.grad_embeddings[..2], &out.grad_embeddings[4..]), rest.grad_embeddings.split_at(2));
    assert_eq!(out.grad_embeddings[2..4], [0.0, 0.0]);
}

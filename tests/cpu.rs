//! The CPU path against the f64 reference: values, policies, and the same bits on any number of threads.
#![cfg(feature = "cpu")]

use margin_softmax::{
    Backend, Batch, Budget, Coefficients, Curve, Error, Fallback, MarginSoftmax, Options, Others, Output, Reduction,
    Series, Shape, Slope, Want,
    objective::{PRESETS, Unified},
    reference,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A batch that owns its data.
#[derive(Clone, Default)]
struct Data {
    shape: [usize; 3],
    x: Vec<f32>,
    w: Vec<f32>,
    labels: Vec<i64>,
    weights: Option<Vec<f32>>,
    upstream: Option<Vec<f32>>,
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

    fn batch(&self) -> Batch<'_> {
        Batch {
            embeddings: &self.x,
            prototypes: &self.w,
            labels: &self.labels,
            class_weights: self.weights.as_deref(),
            upstream: self.upstream.as_deref(),
            ..Default::default()
        }
    }

    fn shape(&self) -> Shape {
        Shape::new(self.shape[0], self.shape[1], self.shape[2]).unwrap()
    }

    fn reference(&self, loss: &MarginSoftmax, want: Want) -> Output<f64> {
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (x, w, weights) = (wide(&self.x), wide(&self.w), self.weights.as_deref().map(wide));
        let upstream = self.upstream.as_deref().map(wide);
        let batch = Batch {
            embeddings: &x,
            prototypes: &w,
            labels: &self.labels,
            class_weights: weights.as_deref(),
            upstream: upstream.as_deref(),
            ..Default::default()
        };
        reference::evaluate(loss, self.shape(), want, &batch).unwrap()
    }

    fn cpu(&self, loss: &MarginSoftmax, options: &Options) -> Output {
        Backend::cpu().head_with(loss, self.shape(), options).unwrap().evaluate(&self.batch()).unwrap()
    }

    /// The smallest budget that a head of this shape accepts: *recompute*, one range.
    fn least(&self, want: Want) -> Options {
        let options = Options { budget: Budget::bytes(0), want, ..Options::default() };
        match Backend::cpu().head_with(&MarginSoftmax::normface(), self.shape(), &options).err() {
            Some(Error::Budget { needed, allowed: 0 }) => Options { budget: Budget::bytes(needed), ..options },
            other => panic!("a budget of 0 bytes gave {other:?}"),
        }
    }
}

/// *keep*, and *recompute* with several ranges and with the smallest workspace.
fn schedules(data: &Data, want: Want) -> Vec<(&'static str, Options)> {
    let least = data.least(want);
    let roomy = Options { want, ..Options::default() };
    let [rows, classes, _] = data.shape;
    // below N·C·4 bytes nothing can be kept
    let half = Budget::bytes((rows * classes * 4) as u64 - 1).max(least.budget);
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
    let slopes = expected.target_cosines.iter().map(|&c| loss.target_value_slope(c).1.abs());
    1e-5 + 3e-7 * loss.scale * slopes.fold(1.0, f64::max)
}

/// Everything that an output holds against the reference. `gradients`: whether they are far enough from 0 to be compared
/// relative to their own size.
fn assert_agrees(name: &str, loss: &MarginSoftmax, found: &Output, expected: &Output<f64>, gradients: bool) {
    let gate = gate(loss, expected);
    assert!(gate <= 1e-3, "{name}: a gate of {gate:e} proves nothing; check value and slope directly");
    assert_eq!(found.counts, expected.counts, "{name}");
    let relative = |e: f64| e.abs().max(1e-30);
    let mut bad = differing("row_losses", &found.row_losses, &expected.row_losses, gate, relative);
    bad.extend(differing("target_cosines", &found.target_cosines, &expected.target_cosines, 5e-7, |_| 1.0));
    bad.extend(differing("other_cosines", &found.other_cosines, &expected.other_cosines, 2e-6, |_| 1.0));
    bad.extend(differing("loss", &[found.loss], &[expected.loss], gate, relative));
    assert!(bad.is_empty(), "{name}: gate {gate:e}\n{}", bad.join("\n"));
    let pairs = [
        ("dX", &found.grad_embeddings, &expected.grad_embeddings),
        ("dW", &found.grad_prototypes, &expected.grad_prototypes),
    ];
    for (what, found, expected) in pairs {
        assert_eq!(found.len(), expected.len(), "{name}: {what}");
        if gradients && !expected.is_empty() {
            let off = distance(found, expected);
            assert!(off <= gate, "{name}: {what} is off by {off:e}, gate {gate:e}");
        }
    }
}

/// Every preset × every transform of the others × both schedules, on data without and with a learnt structure.
#[test]
fn every_loss_agrees_with_the_reference() {
    let batches = [("random", Data::random(33, 300, 24, 1)), ("trained .7", Data::trained(33, 300, 64, 0.7, 2))];
    for preset in PRESETS {
        for others in &[Others::Identity, Others::Rectified] {
            let loss = preset.loss().with_others(others.clone());
            for (kind, data) in &batches {
                let expected = data.reference(&loss, Want::ALL);
                for (schedule, options) in schedules(data, Want::ALL) {
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
        let data = Data::random(64, 2000, 96, 9);
        let (loss, expected) = (preset.loss(), data.reference(&preset.loss(), Want::LOSS).loss);
        for (schedule, options) in schedules(&data, Want::ALL) {
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
            let expected = data.reference(&loss, Want::ALL);
            let (value, slope) = loss.target_value_slope(f64::from(sign));
            assert!(value.is_finite() && slope.is_finite());
            for (schedule, options) in schedules(&data, Want::ALL) {
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
    let allowed = "finite numbers >= 0";
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

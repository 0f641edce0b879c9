//! Inputs at the edge: what must stay finite, what must be NaN, and what must not spoil its neighbours.

use libtest_mimic::Failed;
use margin_softmax::{gpu::Context, objective::*, *};

use crate::{
    Check,
    cases::{Data, FALLBACKS},
    families::{self, Family, Suite},
    rig::{Rig, same_bits},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("finite_inputs_give_finite_gradients", finite_inputs_give_finite_gradients),
    ("bad_rows_are_nan_and_do_not_spoil_others", bad_rows_are_nan_and_do_not_spoil_others),
    ("endless_vectors_do_not_spoil_others", endless_vectors_do_not_spoil_others),
    ("logits_beyond_f32_are_no_numbers", logits_beyond_f32_are_no_numbers),
    ("far_targets_keep_the_gradients_of_the_others", far_targets_keep_the_gradients_of_the_others),
    ("a_bad_prototype_makes_every_loss_nan_and_every_gradient_zero", a_bad_prototype),
    ("a_label_that_names_no_class_is_like_a_bad_row", a_label_that_names_no_class),
    ("zero_vectors_are_counted_and_get_no_gradient", zero_vectors),
    ("nothing_to_average_is_zero", nothing_to_average_is_zero),
    ("one_class_has_loss_and_gradient_zero", one_class),
    ("tiny_losses_keep_their_digits", tiny_losses_keep_their_digits),
    ("thresholds_at_exact_multiples_are_exact", |c| exact_thresholds(&Backend::Gpu(c.clone()))),
];

const N: usize = 6;
const C: usize = 9;
const D: usize = 4;

fn shape() -> Shape {
    Shape::new(N, C, D).unwrap()
}

fn evaluate(context: &Context, loss: &MarginSoftmax, data: &Data) -> Result<Output> {
    Backend::Gpu(context.clone()).head(loss, shape())?.evaluate(&data.batch())
}

fn finite(values: &[f32]) -> bool {
    values.iter().all(|v| v.is_finite())
}

/// The embedding on its prototype, opposite to it, on another one; zero and nearly zero vectors; large and small ones.
fn finite_inputs_give_finite_gradients(context: &Context) -> Result<(), Failed> {
    let mut data = Data::random(shape(), 1);
    data.labels = vec![0, 1, 2, 3, 4, 5];
    for k in 0..D {
        let w = data.prototypes.clone();
        data.embeddings[k] = w[k];
        data.embeddings[D + k] = -w[D + k];
        data.embeddings[2 * D + k] = 3.0 * w[5 * D + k];
        data.embeddings[3 * D + k] = 0.0;
        data.embeddings[4 * D + k] *= 1e-20;
        data.embeddings[5 * D + k] *= 2e37;
        data.prototypes[7 * D + k] = 0.0;
        data.prototypes[8 * D + k] *= 1e-15;
        data.prototypes[6 * D + k] *= 1e20;
    }
    for Family { name, loss, .. } in families::on(Suite::Grid) {
        for fallback in FALLBACKS {
            let loss = loss.clone().with_scale(64.0).with_margin(|m| m.fallback = fallback);
            if loss.validate().is_err() {
                continue;
            }
            let out = evaluate(context, &loss, &data)?;
            let at = format!("{name} {}", fallback.name());
            assert!(out.loss.is_finite() && finite(&out.row_losses), "{at}: {out:?}");
            assert!(finite(&out.grad_embeddings) && finite(&out.grad_prototypes), "{at}: {out:?}");
            let expected = data.reference(&loss, shape());
            assert_eq!(out.counts, expected.counts, "{at}");
            for i in 0..N {
                let (found, expected) = (f64::from(out.row_losses[i]), expected.row_losses[i]);
                // at cos = +-1 a rounding of the cosine is a larger one of the angle: sqrt(2 * 1e-7), times the scale
                let tolerance = 1e-5 * expected.abs() + if i < 3 { 64.0 * 5e-4 } else { 1e-4 };
                assert!((found - expected).abs() <= tolerance, "{at} row {i}: {found} is not {expected}");
            }
            // the worst sample is pulled: it lies opposite to its prototype, and its neighbours turn it
            let pull = out.grad_embeddings[D..2 * D].iter().map(|g| g.abs()).fold(0.0, f32::max);
            assert!(pull > 0.0, "{at}: the row opposite to its prototype gets no pull");
        }
    }
    Ok(())
}

fn bad_rows_are_nan_and_do_not_spoil_others(context: &Context) -> Result<(), Failed> {
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let loss = MarginSoftmax::arcface().with_reduction(reduction).with_label_smoothing(0.1);
            let clean = Data::random(shape(), 2);
            let mut data = Data::random(shape(), 2);
            data.embeddings[2 * D + 1] = bad;
            let out = evaluate(context, &loss, &data)?;
            assert!(out.loss.is_nan() && out.row_losses[2].is_nan());
            assert_eq!((out.counts.rows, out.counts.non_finite_rows), (N - 1, 1));
            assert!(out.grad_embeddings[2 * D..3 * D].iter().all(|g| *g == 0.0));
            // the rest is the batch without that row
            let without = Data {
                embeddings: [&clean.embeddings[..2 * D], &clean.embeddings[3 * D..]].concat(),
                labels: [&clean.labels[..2], &clean.labels[3..]].concat(),
                ..clean
            };
            let rest = evaluate(context, &loss, &without)?;
            assert!(rest.loss.is_finite());
            let others: Vec<f32> = [&out.row_losses[..2], &out.row_losses[3..]].concat();
            same_bits("row_losses", &others, &rest.row_losses)?;
            let others = [&out.grad_embeddings[..2 * D], &out.grad_embeddings[3 * D..]].concat();
            same_bits("grad_embeddings", &others, &rest.grad_embeddings)?;
            let most = rest.grad_prototypes.iter().fold(0.0, |m: f32, g| m.max(g.abs()));
            for (a, b) in out.grad_prototypes.iter().zip(&rest.grad_prototypes) {
                assert!((a - b).abs() <= 1e-6 * most, "{a} and {b}");
            }
            // an ignored row may hold anything
            let ignoring = loss.clone().with_ignore_index(-7);
            data.labels[2] = -7;
            let out = evaluate(context, &ignoring, &data)?;
            assert!(out.loss.is_finite() && out.row_losses[2] == 0.0);
            assert_eq!((out.counts.ignored, out.counts.non_finite_rows), (1, 0));
        }
    }
    Ok(())
}

/// Beyond 8.5e37 an f32 has no normal inverse: such a row counts as one that is not finite, or counts; nothing is spoilt.
fn endless_vectors_do_not_spoil_others(context: &Context) -> Result<(), Failed> {
    for length in [5e37_f32, 1e38, 3e38] {
        let mut data = Data::random(shape(), 12);
        data.embeddings[..D].copy_from_slice(&[length, -length, length / 2.0, length]);
        let out = evaluate(context, &MarginSoftmax::arcface(), &data)?;
        assert_eq!(out.counts.rows + out.counts.non_finite_rows, N, "{length}");
        assert_eq!(out.loss.is_nan(), out.counts.non_finite_rows == 1, "{length}: {out:?}");
        assert!(finite(&out.grad_embeddings) && finite(&out.grad_prototypes), "{length}: {out:?}");
        assert!(finite(&out.row_losses[1..]), "{length}");
    }
    Ok(())
}

/// A linear head of finite vectors whose products f32 cannot hold: no loss of 0, and no gradient.
fn logits_beyond_f32_are_no_numbers(context: &Context) -> Result<(), Failed> {
    for loss in [MarginSoftmax::softmax(), MarginSoftmax::softmax().with_label_smoothing(0.1)] {
        // the product with its own class overflows, or that with another one, to either side
        for (class, sign) in [(0, 1.0), (0, -1.0), (8, 1.0), (8, -1.0)] {
            let mut data = Data::random(shape(), 12);
            data.labels = vec![0, 1, 2, 3, 4, 5];
            data.embeddings[..D].fill(1e20);
            data.prototypes[class * D..(class + 1) * D].fill(sign * 1e20);
            // the other rows' products stay small
            data.embeddings[D..].iter_mut().for_each(|x| *x *= 1e-20);
            let out = evaluate(context, &loss, &data)?;
            let at = format!("{} {class} {sign}: {out:?}", loss.label_smoothing);
            assert!(out.loss.is_nan() && out.row_losses[0].is_nan(), "{at}");
            assert_eq!((out.counts.rows, out.counts.non_finite_rows), (N - 1, 1), "{at}");
            assert!(finite(&out.row_losses[1..]) && out.grad_embeddings[..D].iter().all(|g| *g == 0.0), "{at}");
            assert!(finite(&out.grad_embeddings) && finite(&out.grad_prototypes), "{at}");
        }
    }
    Ok(())
}

fn a_bad_prototype(context: &Context) -> Result<(), Failed> {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut data = Data::random(shape(), 3);
        data.prototypes[8 * D] = bad;
        let out = evaluate(context, &MarginSoftmax::arcface(), &data)?;
        assert!(out.loss.is_nan() && out.row_losses.iter().all(|l| l.is_nan()));
        assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|g| *g == 0.0), "{out:?}");
        assert_eq!((out.counts.non_finite_prototypes, out.counts.rows), (1, N));
    }
    Ok(())
}

fn a_label_that_names_no_class(context: &Context) -> Result<(), Failed> {
    for label in [-1, C as i32, i32::MAX, i32::MIN] {
        // only a tensor can bring such a label to the device
        let mut data = Data::random(shape(), 4);
        data.labels[1] = label;
        let rig = Rig::plain(context, &MarginSoftmax::cosface(), shape(), &data)?;
        let out = rig.run(context)?;
        assert!(out.loss.is_nan() && out.row_losses[1].is_nan());
        assert!(out.row_losses.iter().enumerate().all(|(i, l)| i == 1 || l.is_finite()));
        assert!(out.grad_embeddings[D..2 * D].iter().all(|g| *g == 0.0));
        assert!(finite(&out.grad_embeddings) && finite(&out.grad_prototypes));
        // on the host it is an error, before any work
        let mut front = Backend::Gpu(context.clone()).head(&MarginSoftmax::cosface(), shape())?;
        let error = front.evaluate(&data.batch()).unwrap_err();
        assert_eq!(error, Error::Label { row: 1, label: label.into(), classes: C });
    }
    Ok(())
}

fn zero_vectors(context: &Context) -> Result<(), Failed> {
    let mut data = Data::random(shape(), 5);
    data.embeddings[..D].fill(0.0);
    data.prototypes[D..2 * D].fill(0.0);
    data.labels[2] = 1;
    let loss = MarginSoftmax::arcface();
    let out = evaluate(context, &loss, &data)?;
    let expected = data.reference(&loss, shape());
    assert_eq!(out.counts, expected.counts);
    assert_eq!((out.counts.zero_embeddings, out.counts.zero_prototypes), (1, 1));
    assert!(out.grad_embeddings[..D].iter().chain(&out.grad_prototypes[D..2 * D]).all(|g| *g == 0.0));
    for (f, e) in out.row_losses.iter().zip(&expected.row_losses) {
        assert!((f64::from(*f) - e).abs() <= 1e-4 * e.abs(), "{f} and {e}");
    }
    Ok(())
}

fn nothing_to_average_is_zero(context: &Context) -> Result<(), Failed> {
    let loss = MarginSoftmax::arcface().with_ignore_index(3);
    let mut data = Data::random(shape(), 6);
    data.labels.fill(3);
    let out = evaluate(context, &loss, &data)?;
    assert_eq!((out.loss, out.counts.ignored, out.counts.rows), (0.0, N, 0));
    assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|g| *g == 0.0));
    // all class weights 0
    let mut data = Data::random(shape(), 6);
    data.weights = Some(vec![0.0; C]);
    let out = evaluate(context, &MarginSoftmax::arcface(), &data)?;
    assert_eq!(out.loss, 0.0);
    assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|g| *g == 0.0));
    Ok(())
}

fn one_class(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(N, 1, D)?;
    let data = Data::random(shape, 8);
    for epsilon in [0.0, 0.1] {
        let loss = MarginSoftmax::arcface().with_label_smoothing(epsilon);
        let out = Backend::Gpu(context.clone()).head(&loss, shape)?.evaluate(&data.batch())?;
        assert_eq!(out.loss, 0.0);
        assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|g| *g == 0.0), "{out:?}");
        assert!(out.other_cosines.iter().all(|c| *c == -1.0));
    }
    Ok(())
}

/// A target logit far below the others must not cancel what it is added to.
fn far_targets_keep_the_gradients_of_the_others(context: &Context) -> Result<(), Failed> {
    let data = Data::random(shape(), 14);
    for m3 in [1.0, 10.0, 1e3, 1e6, -1e3] {
        let loss = MarginSoftmax::cosface().with_margin(|m| m.m3 = m3);
        let out = evaluate(context, &loss, &data)?;
        let expected = data.reference(&loss, shape());
        for (what, found, expected) in [
            ("dX", &out.grad_embeddings, &expected.grad_embeddings),
            ("dW", &out.grad_prototypes, &expected.grad_prototypes),
        ] {
            let most = expected.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
            for (f, e) in found.iter().zip(expected) {
                // the gate at scale 64; gradients below 1e-30 are those of a batch that is learnt
                assert!((f64::from(*f) - e).abs() <= 3e-5 * most.max(1e-30), "{what}, m3 = {m3}: {f} is not {e}");
            }
        }
    }
    Ok(())
}

/// An f32 log-softmax returns 0 below 6e-8.
fn tiny_losses_keep_their_digits(context: &Context) -> Result<(), Failed> {
    let mut data = Data::random(shape(), 9);
    data.labels = (0..N as i32).collect();
    // orthogonal axes: the target cosine is nearly 1, the others nearly 0
    for i in 0..C {
        for k in 0..D {
            data.prototypes[i * D + k] = if k == i % D { 1.0 } else { 0.1 * (i as f32 - 4.0) / 9.0 };
        }
    }
    data.prototypes.truncate(4 * D);
    data.embeddings = (0..N).flat_map(|i| data.prototypes[i % 4 * D..][..D].to_vec()).collect();
    data.labels = (0..N as i32).map(|i| i % 4).collect();
    let shape = Shape::new(N, 4, D)?;
    let loss = MarginSoftmax::normface().with_scale(40.0);
    let out = Backend::Gpu(context.clone()).head(&loss, shape)?.evaluate(&data.batch())?;
    let expected = data.reference(&loss, shape);
    for (f, e) in out.row_losses.iter().zip(&expected.row_losses) {
        assert!(*e < 1e-9, "{e} is not tiny");
        assert!((f64::from(*f) - e).abs() <= 3e-5 * e, "{f:e} and {e:e}");
    }
    Ok(())
}

/// Cosines of 0, ±1/2 and ±1, and around them, where thresholds of exactly that lie: each fallback begins where it does in
/// the formulas, for margins of the loss and for margins of rows, whose π/2 is an f32.
pub fn exact_thresholds(backend: &Backend) -> Result<(), Failed> {
    let h = std::f64::consts::FRAC_PI_2;
    let exact = [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (4.0, 0.0), (1.0, h), (2.0, h), (3.0, h), (4.0, h)];
    // at a cosine of 0 to a second class, which has no direction
    let vectors: [[f32; D]; 9] = [
        [0.0, 2.0, 0.0, 0.0],
        [-0.0, 0.0, -2.0, 0.0],
        [2e-6, 2.0, 0.0, 0.0],
        [-2e-6, 2.0, 0.0, 0.0],
        [1.0, 1.0, 1.0, -1.0],
        [-1.0, 1.0, 1.0, -1.0],
        [1.000_01, 1.0, 1.0, -1.0],
        [2.0, 0.0, 0.0, 0.0],
        [-2.0, 0.0, 0.0, 0.0],
    ];
    let n = vectors.len();
    let (prototypes, labels) = ([[1.0, 0.0, 0.0, 0.0_f32], [0.0; D]].concat(), vec![0_i32; n]);
    let plain = MarginSoftmax::unified(1.0, 1.0, 0.2, 0.0).with_scale(4.0).with_reduction(Reduction::Sum);
    let mut head = backend.head(&plain, Shape::new(n, 2, D)?)?;
    let mut checked = 0;
    for (m1, m2) in exact {
        for fallback in FALLBACKS {
            let with = |m1, m2| plain.clone().with_margin(|m| (m.m1, m.m2, m.fallback) = (m1, m2, fallback));
            let own = with(m1, m2);
            let (m1s, m2s) = (vec![m1 as f32; n], vec![m2 as f32; n]);
            // of the loss, of the rows, and half of each
            for (loss, given) in
                [(&own, [false, false]), (&with(1.0, 0.2), [true, true]), (&with(1.0, m2), [true, false])]
            {
                let at = format!("{m1} {m2} {} {given:?}", fallback.name());
                let batch = Batch {
                    embeddings: vectors.as_flattened(),
                    prototypes: &prototypes,
                    labels: &labels,
                    row_margins: Margins {
                        m1: given[0].then_some(&m1s[..]),
                        m2: given[1].then_some(&m2s[..]),
                        ..Margins::NONE
                    },
                    ..Default::default()
                };
                if loss.validate().is_err() {
                    continue;
                }
                head.update(loss)?;
                let found = head.evaluate(&batch);
                assert_eq!(found.is_ok(), own.validate().is_ok(), "{at}: {found:?}");
                let Ok(out) = found else { continue };
                assert_eq!(out.target_cosines[..2], [0.0, 0.0], "{at}");
                for (i, &cosine) in out.target_cosines.iter().enumerate() {
                    let (value, slope) = own.target_value_slope(cosine.into());
                    let d = -4.0 * value;
                    let expected = d.max(0.0) + (-d.abs()).exp().ln_1p();
                    let off = (f64::from(out.row_losses[i]) - expected).abs();
                    assert!(off <= 1e-5 * expected.max(0.1), "{at} at {cosine}: {}, not {expected}", out.row_losses[i]);
                    // along the prototype: G (1 - c²)/|x|, G = -4 sigmoid(d) slope
                    let across = (1.0 - f64::from(cosine).powi(2)) / 2.0;
                    let expected = -4.0 / (1.0 + (-d).exp()) * slope * across;
                    let found = f64::from(out.grad_embeddings[i * D]);
                    assert!(
                        (found - expected).abs() <= 1e-4 * expected.abs().max(1.0),
                        "{at} at {cosine}: {found}, not {expected}"
                    );
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 999);
    // a margin that grows with the length reaches its largest value, and never more by rounding
    let easy = plain.with_margin(|m| (m.m2, m.fallback) = (0.0, Fallback::Easy));
    for lower_margin in [0.0, 0.1, 0.2, 0.3, 0.45, 0.7] {
        let lengths = MagFace { lower_length: 0.3, upper_length: 1.7, lower_margin, upper_margin: h, weight: 0.0 };
        head.update(&easy.clone().with_adaptive(Adaptive::MagFace(lengths)))?;
        let batch = Batch {
            embeddings: vectors.as_flattened(),
            prototypes: &prototypes,
            labels: &labels,
            ..Default::default()
        };
        let out = head.evaluate(&batch)?;
        assert!(out.row_losses.iter().all(|loss| loss.is_finite()), "{lower_margin}: {:?}", out.row_losses);
    }
    Ok(())
}

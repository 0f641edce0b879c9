//! Where naive code gives NaN, infinity or a lost gradient: the reference must stay finite and meaningful.

use half::f16;
use margin_softmax::{
    Adaptive, Error, Link, MarginSoftmax, Others, Reduction, Similarity, Target, data::Counts, objective::PRESETS,
};

use crate::common::*;

const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

/// Softmax over cosines with margins of the loss alone; the other families have edges of their own.
fn is_plain(loss: &MarginSoftmax) -> bool {
    matches!((&loss.target, &loss.others), (Target::Unified(_), Others::Identity | Others::Rectified))
        && (loss.similarity, loss.link, loss.adaptive) == (Similarity::Cosine, Link::Softmax, Adaptive::None)
}

/// Every plain preset and every margin of the list, at scale 64.
fn losses() -> Vec<MarginSoftmax> {
    let presets = PRESETS.iter().map(|preset| preset.loss()).filter(is_plain);
    presets.chain(every_margin().into_iter().map(loss_of)).map(|loss| loss.with_scale(64.0)).collect()
}

/// Three prototypes at right angles, and one embedding of class 0.
fn facing(loss: MarginSoftmax, embedding: [f64; 3]) -> Case {
    let prototypes = vec![0.6, 0.8, 0.0, -1.6, 1.2, 0.0, 0.0, 0.0, 3.0];
    Case::new(loss, 3, embedding.to_vec(), prototypes, vec![0])
}

/// x_i = ±w_y, lengths apart: the slope is finite and the tangent part 0, so only rounding is left of its pull.
#[test]
fn an_embedding_on_or_opposite_its_prototype_has_a_finite_gradient() {
    for loss in losses() {
        for (length, sign) in [(1.0, 1.0), (1.0, -1.0), (7.3, 1.0), (1e-5, -1.0)] {
            let case = facing(loss.clone(), [sign * 0.6 * length, sign * 0.8 * length, 0.0]);
            let out = case.run();
            finite(format_args!("{case:?}"), &out);
            // the other two at right angles pull with at most s each; the target's slope of up to 6e4 · 64 times 1e-16
            let most = 2.0 * 64.0 / length + 1e-8 / length;
            assert!(out.grad_embeddings.iter().all(|g| g.abs() <= most), "{case:?} {out:?}");
        }
    }
}

/// A sample almost opposite its prototype is pulled towards it wherever the curve falls with the angle. The hardest
/// sample must not be the one without a gradient (SpeechBrain) or with NaN (wespeaker).
#[test]
fn the_worst_sample_is_pulled_to_its_prototype() {
    for preset in PRESETS.iter().filter(|p| is_plain(&p.loss()) && p.name != "sphereface_raw") {
        for tilt in [1e-3, 1e-6] {
            let (cos, sin) = (f64::cos(tilt), f64::sin(tilt));
            // from −w_0 towards the z axis, where no prototype is; w_1 is at right angles and adds nothing along w_0
            let mut case = facing(preset.loss(), [-0.6 * cos, -0.8 * cos, sin]);
            (case.prototypes, case.classes) = (case.prototypes[..6].to_vec(), 2);
            let out = case.run();
            let pull = -dot(&out.grad_embeddings, &[0.6, 0.8, 0.0]);
            // (w_0 − cos·x)·w_0 = sin²; 1 − P is 1 within e^−22; an ulp of the cosine is 2e-4 of 1 + cos at 1e-6
            let expected = case.loss.scale * case.loss.target_value_slope(-cos).1 * sin * sin;
            assert!(expected > 0.0);
            close(preset.name, pull / expected, 1.0, 1e-2);
        }
    }
}

/// A non-target at cosine 1, and one prototype twice: finite, and the loss is that of the formula.
#[test]
fn a_wrong_class_at_cosine_one_is_finite() {
    for loss in losses() {
        for others in &[Others::Identity, Others::Rectified] {
            let case = facing(loss.clone().with_others(others.clone()), [-4.0, 3.0, 0.0]); // on w_1, at right angles to w_0
            let out = case.run();
            finite(format_args!("{case:?}"), &out);
            close("largest other cosine", out.other_cosines[0], 1.0, 1e-15);
            let value = case.loss.target_value_slope(out.target_cosines[0]).0;
            close("loss", out.loss, 64.0 * (1.0 - value), 64.0 * 1e-14 + 2.0 * (-64.0 * (1.0 - value)).exp() + 1e-20);
        }
    }
}

/// A zero embedding: cosine 0 with everything, gradient exactly 0, counted; its loss counts as usual.
#[test]
fn a_zero_embedding_has_a_loss_and_no_gradient() {
    for loss in losses() {
        for tiny in [[0.0; 3], [-0.0, 0.0, -0.0], [1e-30, 0.0, 0.0], [0.0, 9e-13, 0.0], [5e-324, 0.0, 0.0]] {
            let case = facing(loss.clone(), tiny);
            let out = case.run();
            finite(format_args!("{case:?}"), &out);
            assert_eq!(out.grad_embeddings, [0.0; 3]);
            assert_eq!(out.counts, Counts { rows: 1, zero_embeddings: 1, ..Default::default() });
            close("cosine of x/1e-12", out.target_cosines[0], dot(&tiny, &[0.6, 0.8, 0.0]) / 1e-12, 1e-15);
        }
    }
    let out = facing(MarginSoftmax::normface(), [0.0; 3]).run();
    close("all cosines are 0", out.loss, f64::ln(3.0), 1e-15);
    let smallest = facing(MarginSoftmax::normface(), [1.1e-12, 0.0, 0.0]).run();
    assert!(smallest.counts.zero_embeddings == 0 && smallest.grad_embeddings[1] != 0.0);
}

/// A zero prototype: the same, and the other vectors' gradients stay finite.
#[test]
fn a_zero_prototype_has_no_gradient() {
    for loss in losses() {
        for zero in 0..3 {
            let mut case = facing(loss.clone(), [0.3, -0.4, 1.0]);
            case.prototypes[3 * zero..3 * zero + 3].fill(0.0);
            let out = case.run();
            finite(format_args!("{case:?}"), &out);
            assert_eq!(out.grad_prototypes[3 * zero..3 * zero + 3], [0.0; 3]);
            assert_eq!(out.counts, Counts { rows: 1, zero_prototypes: 1, ..Default::default() });
        }
    }
}

/// One class leaves nothing to confuse: loss 0, gradient 0, also with smoothing and weights.
#[test]
fn a_single_class_has_no_loss() {
    for loss in losses() {
        for (epsilon, reduction) in [0.0, 0.3].into_iter().flat_map(|e| REDUCTIONS.map(|r| (e, r))) {
            let loss = loss.clone().with_label_smoothing(epsilon).with_reduction(reduction);
            let embeddings = vec![0.5, -1.0, -0.7, 2.0, 0.0, 0.0];
            let out = Case::new(loss, 2, embeddings, vec![0.3, 0.4], vec![0; 3]).with_weights(&[2.0]).run();
            assert_eq!((out.loss, &out.row_losses[..], &out.other_cosines[..]), (0.0, &[0.0; 3][..], &[-1.0; 3][..]));
            assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0), "{out:?}");
        }
    }
}

/// Z = 0 in all its forms: loss 0, gradient 0, counted, for every reduction.
#[test]
fn a_batch_in_which_nothing_counts_has_loss_zero() {
    for reduction in REDUCTIONS {
        let loss = MarginSoftmax::arcface().with_reduction(reduction).with_ignore_index(-1);
        let prototypes = || vec![1.0, 1.0, 0.0, 2.0, -3.0, 1.0];
        let empty = Case::new(loss.clone(), 2, vec![], prototypes(), Vec::<i64>::new());
        let ignored = Case::new(loss.clone(), 2, vec![1.0, 2.0, f64::NAN, 0.0], prototypes(), vec![-1, -1]);
        let weightless = Case::new(loss, 2, vec![1.0, 2.0], prototypes(), vec![1]).with_weights(&[1.0, 0.0, 1.0]);
        let counts =
            [Counts::default(), Counts { ignored: 2, ..Default::default() }, Counts { rows: 1, ..Default::default() }];
        for (case, counts) in [empty, ignored, weightless].into_iter().zip(counts) {
            let out = case.run();
            assert_eq!(out.loss, 0.0, "{case:?}");
            assert!(out.row_losses.iter().chain(&out.grad_embeddings).chain(&out.grad_prototypes).all(|&v| v == 0.0));
            assert_eq!((out.row_losses.len(), out.grad_prototypes.len()), (case.labels.len(), 6));
            assert_eq!(out.counts, counts, "{case:?}");
        }
    }
}

/// The sum over no rows prints as 0 and has the bits of 0, as from every other backend.
#[test]
fn an_empty_sum_is_not_minus_zero() {
    for reduction in REDUCTIONS {
        let loss = MarginSoftmax::arcface().with_reduction(reduction);
        let out = Case::new(loss, 2, vec![], vec![1.0; 4], Vec::<i64>::new()).run();
        assert_eq!(format!("{}", out.loss), "0", "{reduction:?}");
    }
}

/// Inputs as f16 stores them, at scale 64: rows close to and far from their class.
#[test]
fn inputs_rounded_to_f16_are_finite() {
    let mut rng = random(8);
    for loss in losses() {
        let mut case = Case::random(&mut rng, loss, (5, 7, 16));
        case.embeddings[..16].copy_from_slice(&case.prototypes[case.labels[0] as usize * 16..][..16]);
        let opposite: Vec<f64> =
            case.prototypes[case.labels[1] as usize * 16..][..16].iter().map(|w| -3.0 * w).collect();
        case.embeddings[16..32].copy_from_slice(&opposite);
        for values in [&mut case.embeddings, &mut case.prototypes] {
            values.iter_mut().for_each(|v| *v = f16::from_f64(*v).to_f64());
        }
        finite(format_args!("{case:?}"), &case.run());
    }
}

/// Lengths from the smallest that counts to the largest f64 whose square overflows: same directions, same loss.
#[test]
fn extreme_lengths_do_not_overflow() {
    for loss in losses() {
        let at = |length: f64| facing(loss.clone(), [0.3 * length, -0.4 * length, length]).run();
        let expected = at(1.0);
        for length in [1e-11, 1e-6, 1e30, 1e200, 1e307] {
            let out = at(length);
            finite(format_args!("{loss:?} at {length}"), &out);
            close(format_args!("{loss:?} at {length}"), out.loss, expected.loss, 1e-11);
            let back: Vec<f64> = out.grad_embeddings.iter().map(|g| g * length).collect();
            all_close("dX", &back, &expected.grad_embeddings, 1e-9 * expected.loss.max(1.0));
        }
    }
}

/// Two classes at a right angle in the plane, by trigonometry: lengths at both ends of f32, alone and together.
#[test]
fn lengths_at_the_ends_of_f32_leave_the_formula() {
    let (s, t) = (8.0, 0.3_f64);
    let (sin, cos) = t.sin_cos();
    for x in [1e-30, 1e-13, 2e-12, 1e-6, 1.0, 1e19, 1e30, f64::from(f32::MAX)] {
        for w in [2e-12, 1.0, 1e30, f64::from(f32::MAX)] {
            let loss = MarginSoftmax::normface().with_scale(s);
            let case = Case::new(loss, 2, vec![x * cos, x * sin], vec![w, 0.0, 0.0, 1.0], vec![0]);
            let out = case.run();
            // the direction of a vector that counts as zero is x/1e-12
            let shrunk = (x / 1e-12_f64).min(1.0);
            let d = s * shrunk * (sin - cos);
            let pull = s / (1.0 + (-d).exp());
            let dx = if shrunk < 1.0 { [0.0; 2] } else { [-sin, cos].map(|u| pull * (sin + cos) * u / x) };
            let dw = [0.0, -pull * shrunk * sin / w];
            close(format_args!("loss at {x:e}, {w:e}"), out.loss, d.exp().ln_1p(), 1e-14);
            all_close(format_args!("dX at {x:e}, {w:e}"), &out.grad_embeddings, &dx, 1e-13 * pull / x);
            all_close(format_args!("dW at {x:e}, {w:e}"), &out.grad_prototypes[..2], &dw, 1e-13 * pull / w);
        }
    }
}

/// A loss of 1e-14 is a value, not 0: relative error s·|Δc| of the exponent.
#[test]
fn a_tiny_loss_keeps_its_digits() {
    for (scale, tilt) in [(8.0, 0.3), (64.0, 0.9), (64.0, 0.1), (300.0, 0.5)] {
        let case = facing(MarginSoftmax::normface().with_scale(scale), [0.6, 0.8, tilt]);
        let out = case.run();
        let (target, z) = (case.cosine(0, 0), case.cosine(0, 2));
        let odds = (scale * (z - target)).exp() + (-scale * target).exp();
        let expected = odds - odds * odds / 2.0 + odds.powi(3) / 3.0; // log(1 + odds)
        assert!(odds < 1e-2, "{odds}");
        close(format_args!("{scale} {tilt}"), out.loss, expected, expected * (odds.powi(3) + scale * 1e-14));
        assert!(out.loss > 0.0 && out.grad_embeddings.iter().any(|&g| g != 0.0));
    }
}

/// The largest scale, margins and weights that the checks let through: a finite gradient, or a refusal.
#[test]
fn what_is_accepted_has_a_finite_gradient() {
    let mut rng = random(9);
    let big = 1e300;
    let losses = [
        MarginSoftmax::arcface().with_scale(1e6),
        MarginSoftmax::arcface().with_scale(5e-324),
        loss_of(unified(big, 1.0, 0.5, 0.0)),
        loss_of(unified(f64::MAX, 1.0, 0.0, 0.0)),
        loss_of(unified(5e-324, 1.0, 0.5, 0.0)),
        loss_of(unified(1.0, 16.0, 3.1, 0.0)),
        loss_of(unified(1.0, 5e-324, 3.1, 0.0)),
        loss_of(unified(1.0, 1.0, 0.5, f64::MAX)),
        loss_of(unified(1.0, 1.0, 0.0, -f64::MAX)),
    ];
    let mut fails = |loss: &MarginSoftmax| {
        let out = Case::random(&mut rng, loss.clone(), (3, 5, 3)).run();
        !out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|g| g.is_finite())
    };
    let failing: Vec<_> = losses.iter().filter(|loss| loss.validate().is_ok() && fails(loss)).collect();
    assert!(failing.is_empty(), "{failing:#?}");
}

/// The smallest weights, and the largest: Z is tiny, or huge, and so is every term over it. Beyond them is an error.
#[test]
fn tiny_weights_have_a_finite_gradient() {
    let case = Case::random(&mut random(10), MarginSoftmax::arcface(), (3, 5, 3));
    let expected = case.run();
    for weight in [1e-30, 1e24] {
        let out = case.clone().with_weights(&[weight; 5]).run();
        finite(format_args!("{weight:e}"), &out);
        all_close(format_args!("{weight:e}"), &out.grad_embeddings, &expected.grad_embeddings, 1e-9);
    }
    for weight in [5e-324, 9e-31, 1.1e24, f64::INFINITY, f64::NAN, -1.0] {
        let refused = case.clone().with_weights(&[1.0, weight, 0.0, 1.0, 1.0]).try_run();
        assert!(matches!(refused, Err(Error::Parameter { what: "class_weights", .. })), "{weight:e}: {refused:?}");
    }
}

/// Five rows of two classes, one of them ignored; without row 2 as well, to compare with.
fn five(reduction: Reduction) -> (Case, Case) {
    let loss = MarginSoftmax::arcface().with_scale(8.0).with_reduction(reduction).with_ignore_index(9);
    let mut case = Case::random(&mut random(11), loss, (5, 4, 3)).with_weights(&[0.5, 1.0, 2.0, 1.5]);
    case.labels[4] = 9;
    let mut without = case.clone();
    without.embeddings.drain(6..9);
    without.labels.remove(2);
    (case, without)
}

/// A row with a NaN or an infinity: its loss and the reduced loss are NaN, loudly; every gradient is that of the batch
/// without it, and it is counted.
#[test]
fn a_non_finite_row_is_loud_and_harmless() {
    for (reduction, bad) in
        REDUCTIONS.into_iter().flat_map(|r| [f64::NAN, f64::INFINITY, -f64::INFINITY].map(|b| (r, b)))
    {
        let (mut case, without) = five(reduction);
        case.embeddings[7] = bad;
        let (out, expected) = (case.run(), without.run());
        assert!(out.loss.is_nan() && out.row_losses[2].is_nan());
        assert_eq!(
            [out.row_losses[0], out.row_losses[1], out.row_losses[3], out.row_losses[4]],
            expected.row_losses[..]
        );
        let (mut left, right) = (out.grad_embeddings.clone(), &expected.grad_embeddings);
        assert_eq!(left.drain(6..9).collect::<Vec<_>>(), [0.0; 3]);
        assert_eq!((&left, &out.grad_prototypes), (right, &expected.grad_prototypes));
        assert_eq!((out.target_cosines[2], out.other_cosines[2]), (0.0, -1.0));
        assert_eq!(out.counts, Counts { rows: 3, ignored: 1, non_finite_rows: 1, ..Default::default() });
    }
}

/// All rows non-finite: NaN, not the 0 of an empty batch.
#[test]
fn a_batch_of_non_finite_rows_has_a_nan_loss() {
    for reduction in REDUCTIONS {
        let loss = MarginSoftmax::cosface().with_reduction(reduction);
        let out = Case::new(loss, 2, vec![f64::NAN; 4], vec![1.0, 0.0, 0.0, 1.0], vec![0, 1]).run();
        assert!(out.loss.is_nan() && out.row_losses.iter().all(|l| l.is_nan()));
        assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
        assert_eq!(out.counts, Counts { non_finite_rows: 2, ..Default::default() });
    }
}

/// An ignored row may hold anything: no NaN, not even in the loss.
#[test]
fn an_ignored_row_may_be_non_finite() {
    for reduction in REDUCTIONS {
        let (mut case, _) = five(reduction);
        let expected = case.run();
        case.embeddings[12..].copy_from_slice(&[f64::NAN, f64::INFINITY, 0.0]);
        assert_eq!(case.run(), expected);
        assert_eq!(expected.counts, Counts { rows: 4, ignored: 1, ..Default::default() });
        assert_eq!((expected.row_losses[4], &expected.grad_embeddings[12..]), (0.0, &[0.0; 3][..]));
        assert_eq!((expected.target_cosines[4], expected.other_cosines[4]), (0.0, -1.0));
    }
}

/// A prototype with a NaN or an infinity: every loss that counts is NaN, every gradient 0, and it is counted.
#[test]
fn a_non_finite_prototype_makes_every_loss_nan() {
    for (reduction, bad) in REDUCTIONS.into_iter().flat_map(|r| [f64::NAN, f64::INFINITY].map(|b| (r, b))) {
        let (mut case, _) = five(reduction);
        case.prototypes[1] = bad;
        let out = case.run();
        assert!(out.loss.is_nan() && out.row_losses[..4].iter().all(|l| l.is_nan()) && out.row_losses[4] == 0.0);
        assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
        assert_eq!(out.counts.non_finite_prototypes, 1);
    }
}

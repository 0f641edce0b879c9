//! Gradients of the reference against finite differences of its own loss, and what any such loss must satisfy.

use margin_softmax::{
    MarginSoftmax, Others, Reduction,
    objective::{Curve, Damping, Slope, Unified},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::common::*;

const SHAPES: [(usize, usize, usize); 9] =
    [(1, 1, 2), (1, 2, 3), (2, 2, 2), (3, 5, 2), (3, 5, 3), (3, 5, 5), (7, 4, 2), (7, 4, 3), (7, 4, 5)];
/// Transforms that need no batch statistics.
const PLAIN: [Others; 2] = [Others::Identity, Others::Rectified];
const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

/// Far enough from every kink (in the cosine) and from target angles 0 and π for differences of 2e-4/|v| < 5e-4.
fn is_smooth(case: &Case, margin: &Unified) -> bool {
    let kinks = kinks(margin);
    (0..case.labels.len()).filter(|&i| Some(case.labels[i]) != case.loss.ignore_index).all(|i| {
        let x = case.cosine(i, case.labels[i] as usize);
        let others = (0..case.classes).map(|j| case.cosine(i, j));
        let rectified = case.loss.others == Others::Rectified;
        x.abs() < 0.99
            && kinks.iter().all(|kink| (kink - x).abs() > 2e-3)
            && others.into_iter().all(|c| !rectified || c.abs() > 2e-3)
    })
}

/// A random choice of everything but the margin.
fn options(rng: &mut ChaCha8Rng, margin: &Unified) -> Case {
    let shape @ (rows, classes, _) = pick(rng, &SHAPES);
    let loss = loss_of(margin.clone())
        .with_scale(pick(rng, &[0.5, 8.0, 16.0, 30.0, 64.0]))
        .with_others(pick(rng, &PLAIN))
        .with_label_smoothing(pick(rng, &[0.0, 0.0, 0.1, 0.7]))
        .with_reduction(pick(rng, &REDUCTIONS));
    let mut case = Case::random(rng, loss, shape);
    if rng.random_bool(0.5) {
        let weights: Vec<f64> = (0..classes).map(|j| if j == 1 { 0.0 } else { rng.random_range(0.1..3.0) }).collect();
        case = case.with_weights(&weights);
    }
    match rng.random_range(0..4) {
        0 => case.loss.ignore_index = Some(0), // a class like the others
        1 => (case.loss.ignore_index, case.labels[0]) = (Some(-100), -100),
        _ => {}
    }
    if rng.random_bool(0.5) {
        let count = if case.loss.reduction == Reduction::None { rows } else { 1 };
        case = case.with_upstream(&uniform(rng, count));
    }
    case
}

/// Every margin, curve and fallback with analytic slopes, each under random other options.
fn cases() -> Vec<Case> {
    let mut rng = random(3);
    let smooth = |margin: &Unified| {
        let drawn = (0..10_000).map(|_| options(&mut rng, margin)).find(|case| is_smooth(case, margin));
        drawn.expect("a batch away from the kinks")
    };
    every_margin().iter().map(smooth).collect()
}

/// dX and dW of a case by differences of its objective.
fn differences(case: &Case) -> (Vec<f64>, Vec<f64>) {
    let along = |part: fn(&mut Case) -> &mut Vec<f64>, at: usize| {
        let value = part(&mut case.clone())[at];
        let objective = |x: f64| {
            let mut moved = case.clone();
            part(&mut moved)[at] = x;
            moved.objective()
        };
        central_difference(objective, value, 1e-4)
    };
    (
        (0..case.embeddings.len()).map(|at| along(|case| &mut case.embeddings, at)).collect(),
        (0..case.prototypes.len()).map(|at| along(|case| &mut case.prototypes, at)).collect(),
    )
}

/// More than a hundred combinations, all options among them, dozens of rows beyond the threshold.
#[test]
fn gradients_are_the_derivatives_of_the_loss() {
    let cases = cases();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let mut beyond = 0;
    for case in &cases {
        let out = case.run();
        let margin = case.loss.clone().unified_mut().unwrap().clone();
        let counted = (0..case.labels.len()).filter(|&i| Some(case.labels[i]) != case.loss.ignore_index);
        beyond += counted.filter(|&i| margin.threshold().is_some_and(|t| out.target_cosines[i] < t)).count();
        let (embeddings, prototypes) = differences(case);
        // a logit's angle moves by h/|v| ≤ 2.5e-4: h⁴ f⁽⁵⁾/30 with (64/0.4)⁵ for the worst f⁽⁵⁾ would be 4e-7, but the
        // fifth power is met only where P(1 − P) is large: measured 5e-11 of s/|v|; rounding: a loss of 1e3 · 2e-16
        // over h is 2e-9
        let tolerance = 1e-8 * (case.loss.scale / 0.4).max(1.0);
        all_close(format_args!("dX of {case:?}"), &out.grad_embeddings, &embeddings, tolerance);
        all_close(format_args!("dW of {case:?}"), &out.grad_prototypes, &prototypes, tolerance);
    }
    assert!(beyond >= 50, "{beyond} rows beyond the threshold");
    let some = |has: fn(&Case) -> bool| cases.iter().filter(|case| has(case)).count() >= 20;
    assert!(some(|c| c.weights.is_some()) && some(|c| c.upstream.is_some()) && some(|c| c.loss.label_smoothing > 0.0));
    assert!(some(|c| c.loss.ignore_index == Some(0)) && some(|c| c.loss.ignore_index == Some(-100)));
    assert!(some(|c| c.loss.others == Others::Rectified) && some(|c| c.loss.reduction == Reduction::None));
}

/// Detached: the gradient is that of a straight line of slope 1 through the forward value.
#[test]
fn a_detached_gradient_is_that_of_a_line_through_the_value() {
    let mut rng = random(4);
    for margin in every_margin() {
        let margin = Unified { slope: Slope::Detached, ..margin };
        let case = Case::random(&mut rng, loss_of(margin.clone()).with_scale(16.0), (1, 4, 3));
        let x = case.run().target_cosines[0];
        let line = unified(1.0, 1.0, 0.0, x - margin.value_slope(x).0);
        let straight = Case { loss: loss_of(line).with_scale(16.0), ..case.clone() };
        let (out, expected) = (case.run(), straight.run());
        close("loss", out.loss, expected.loss, 1e-12); // x − (x − φ) has the rounding of x, times 16
        all_close("dX", &out.grad_embeddings, &expected.grad_embeddings, 1e-11);
        all_close("dW", &out.grad_prototypes, &expected.grad_prototypes, 1e-11);
    }
}

/// On a line every cosine is ±1: the direction cannot change, so the gradient is 0, without rounding.
#[test]
fn one_dimension_has_no_gradient() {
    let mut rng = random(5);
    for margin in every_margin() {
        let out = Case::random(&mut rng, loss_of(margin), (3, 5, 1)).run();
        finite("D = 1", &out);
        assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0), "{out:?}");
    }
}

/// Losses that cover every stage: exact, series, fallback, smoothing, transforms.
fn losses() -> Vec<MarginSoftmax> {
    let jackson = |m: &mut Unified| m.curve = Curve::Series(series(30, Damping::Jackson));
    let combined = loss_of(unified(0.7, 1.35, 0.3, 0.1)).with_others(Others::Rectified);
    let all = [
        MarginSoftmax::normface(),
        MarginSoftmax::cosface().with_label_smoothing(0.2),
        MarginSoftmax::arcface(),
        MarginSoftmax::sphereface(),
        MarginSoftmax::ampface().with_others(Others::Rectified),
        MarginSoftmax::cheby_aam().with_margin(jackson),
        combined.with_label_smoothing(0.1),
    ];
    all.into_iter().flat_map(|loss| REDUCTIONS.map(|r| loss.clone().with_reduction(r))).collect()
}

/// 7×4 in three dimensions with weights, once per loss.
fn batches() -> Vec<Case> {
    let mut rng = random(6);
    let weights = [0.5, 2.0, 1.0, 1.5];
    losses().into_iter().map(|loss| Case::random(&mut rng, loss, (7, 4, 3)).with_weights(&weights)).collect()
}

/// Rounding of gradients of size s/|v| ≤ 160, a few dozen operations deep, slopes up to 1e2: 160 · 1e2 · 50 · 1e-16.
const ROUNDING: f64 = 1e-10;

/// Only directions matter: a longer embedding has the same loss and the smaller gradient; so has a longer prototype.
#[test]
fn scaling_a_vector_leaves_the_loss_and_divides_its_gradient() {
    for case in batches() {
        let (mut scaled, before) = (case.clone(), case.run());
        scaled.embeddings[3..6].iter_mut().for_each(|x| *x *= 3.7);
        scaled.prototypes[6..9].iter_mut().for_each(|w| *w *= 0.2);
        let mut after = scaled.run();
        after.grad_embeddings[3..6].iter_mut().for_each(|g| *g *= 3.7);
        after.grad_prototypes[6..9].iter_mut().for_each(|g| *g *= 0.2);
        all_close("losses", &after.row_losses, &before.row_losses, ROUNDING);
        all_close("dX", &after.grad_embeddings, &before.grad_embeddings, ROUNDING);
        all_close("dW", &after.grad_prototypes, &before.grad_prototypes, ROUNDING);
    }
}

/// A gradient along its own vector would change only the length, which the loss does not see.
#[test]
fn gradients_are_orthogonal_to_their_own_vector() {
    for case in batches() {
        let out = case.run();
        let pairs = out.grad_embeddings.chunks(3).zip(case.embeddings.chunks(3));
        for (g, v) in pairs.chain(out.grad_prototypes.chunks(3).zip(case.prototypes.chunks(3))) {
            close("radial part", dot(g, v), 0.0, ROUNDING);
        }
    }
}

/// The order of the classes has no meaning, nor has the order of the rows.
#[test]
fn permuting_classes_and_rows_permutes_the_gradients() {
    let order = |from: &[f64], places: &[usize]| -> Vec<f64> {
        places.iter().flat_map(|&p| from[3 * p..3 * p + 3].to_vec()).collect()
    };
    let (classes, rows) = ([2, 0, 3, 1], [6, 2, 4, 0, 1, 5, 3]); // new place -> old place
    for case in batches() {
        let mut moved = case.clone();
        moved.prototypes = order(&case.prototypes, &classes);
        moved.weights = case.weights.as_ref().map(|w| classes.map(|old| w[old]).to_vec());
        moved.embeddings = order(&case.embeddings, &rows);
        let label = |old: usize| classes.iter().position(|&c| c as i64 == case.labels[old]).unwrap() as i64;
        moved.labels = rows.map(label).to_vec();
        let (before, after) = (case.run(), moved.run());
        all_close("losses", &after.row_losses, &rows.map(|old| before.row_losses[old]), ROUNDING);
        all_close("dX", &after.grad_embeddings, &order(&before.grad_embeddings, &rows), ROUNDING);
        all_close("dW", &after.grad_prototypes, &order(&before.grad_prototypes, &classes), ROUNDING);
        close("loss", after.loss, before.loss, ROUNDING);
    }
}

/// Summed losses add over batches, and so does dW; the mean is the sum over Z = Σ w_y.
#[test]
fn the_sum_of_two_batches_is_the_batch_of_both() {
    for case in batches().into_iter().filter(|case| case.loss.reduction == Reduction::Sum) {
        let part = |rows: std::ops::Range<usize>| Case {
            embeddings: case.embeddings[3 * rows.start..3 * rows.end].to_vec(),
            labels: case.labels[rows].to_vec(),
            ..case.clone()
        };
        let (whole, first, second) = (case.run(), part(0..3).run(), part(3..7).run());
        close("loss", first.loss + second.loss, whole.loss, ROUNDING);
        all_close("dX", &[first.grad_embeddings, second.grad_embeddings].concat(), &whole.grad_embeddings, 0.0);
        let sum: Vec<f64> = first.grad_prototypes.iter().zip(&second.grad_prototypes).map(|(a, b)| a + b).collect();
        all_close("dW", &sum, &whole.grad_prototypes, ROUNDING);

        let z: f64 = case.labels.iter().map(|&y| case.weights.as_ref().unwrap()[y as usize]).sum();
        let mean = Case { loss: case.loss.clone().with_reduction(Reduction::Mean), ..case.clone() }.run();
        let divided: Vec<f64> = whole.grad_prototypes.iter().map(|g| g / z).collect();
        close("mean", mean.loss, whole.loss / z, ROUNDING);
        all_close("dW of the mean", &mean.grad_prototypes, &divided, ROUNDING);
    }
}

/// torch.nn.functional.cross_entropy of plain logits, row by row, from its documentation:
/// (1−ε)·(−w_y log p_y) + (ε/C)·Σ_j (−w_j log p_j).
fn torch(case: &Case, target: impl Fn(f64) -> f64) -> Vec<f64> {
    let epsilon = case.loss.label_smoothing;
    let weight = |j: usize| case.weights.as_ref().map_or(1.0, |w| w[j]);
    let row = |(i, &label): (usize, &i64)| {
        let logit = |j: usize| {
            let c = case.cosine(i, j);
            case.loss.scale * if j as i64 == label { target(c) } else { c }
        };
        let all: f64 = (0..case.classes).map(|j| logit(j).exp()).sum();
        let surprise = |j: usize| -weight(j) * (logit(j).exp() / all).ln();
        let smooth: f64 = (0..case.classes).map(surprise).sum();
        (1.0 - epsilon) * surprise(label as usize) + epsilon / case.classes as f64 * smooth
    };
    case.labels.iter().enumerate().map(row).collect()
}

/// φ written out.
type Formula = fn(f64) -> f64;

/// Smoothing, weights and every reduction are torch's; no margin is plain scaled softmax, whatever curve and fallback
/// say.
#[test]
fn cross_entropy_is_that_of_torch() {
    let mut rng = random(7);
    let margins: [(Unified, Formula); 4] = [
        (unified(1.0, 1.0, 0.0, 0.0), |x| x),
        (Unified { curve: curves()[1].clone(), fallback: FALLBACKS[2], ..unified(1.0, 1.0, 0.0, 0.0) }, |x| x),
        (unified(1.0, 1.0, 0.0, 0.35), |x| x - 0.35),
        (Unified { fallback: FALLBACKS[3], ..unified(0.7, 1.35, 0.3, 0.1) }, |x| {
            0.7 * (1.35 * x.acos() + 0.3).cos() - 0.1
        }),
    ];
    for (margin, target) in margins {
        for (epsilon, reduction) in [0.0, 0.1, 0.9].into_iter().flat_map(|e| REDUCTIONS.map(|r| (e, r))) {
            for weights in [None, Some(vec![0.2, 1.0, 0.0, 3.0, 1.5])] {
                // scale 5: exp of plain logits keeps its precision
                let loss =
                    loss_of(margin.clone()).with_scale(5.0).with_label_smoothing(epsilon).with_reduction(reduction);
                let case = Case { weights: weights.clone(), ..Case::random(&mut rng, loss, (6, 5, 3)) };
                let (out, rows) = (case.run(), torch(&case, target));
                all_close(format_args!("rows of {case:?}"), &out.row_losses, &rows, 1e-12); // 1e-16 · 5 · few dozen
                let sum: f64 = rows.iter().sum();
                let z: f64 = case.labels.iter().map(|&y| weights.as_ref().map_or(1.0, |w| w[y as usize])).sum();
                let expected = if reduction == Reduction::Mean { sum / z } else { sum };
                close(format_args!("{case:?}"), out.loss, expected, 1e-11);
            }
        }
    }
}

/// An upstream gradient scales the gradients and leaves the loss alone; with `none` there is one per row.
#[test]
fn upstream_scales_the_gradients_only() {
    for case in batches() {
        let plain = case.run();
        let per_row = case.loss.reduction == Reduction::None;
        let upstream = if per_row { vec![2.0, -1.0, 0.0, 0.5, 1.0, 4.0, -0.25] } else { vec![-0.5] };
        let out = case.clone().with_upstream(&upstream).run();
        assert_eq!((out.loss, &out.row_losses), (plain.loss, &plain.row_losses));
        let factor = |at: usize| if per_row { upstream[at / 3] } else { -0.5 };
        let scaled: Vec<f64> = plain.grad_embeddings.iter().enumerate().map(|(at, g)| factor(at) * g).collect();
        all_close("dX", &out.grad_embeddings, &scaled, ROUNDING);
        if !per_row {
            let scaled: Vec<f64> = plain.grad_prototypes.iter().map(|g| -0.5 * g).collect();
            all_close("dW", &out.grad_prototypes, &scaled, ROUNDING);
        }
    }
}

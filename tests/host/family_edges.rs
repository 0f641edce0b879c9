//! The edges of every family: |c| = 1, zero vectors, one and two classes, nothing that counts, NaN, the ends of all ranges.

use std::f64::consts::{FRAC_PI_2, PI};

use margin_softmax::{data::*, objective::*, *};

use crate::{
    common::*,
    families::{least_classes, moves_state},
    problems::*,
};

const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

/// Eight prototypes of three values, none parallel to another.
fn prototypes() -> Vec<f64> {
    let mut rng = random(60);
    uniform(&mut rng, 24).into_iter().map(|v| v + 0.1_f64.copysign(v)).collect()
}

/// The rows given, against the first `classes` of the prototypes; label −100 is ignored.
fn problem(loss: &MarginSoftmax, classes: usize, rows: &[([f64; 3], i64)]) -> Option<Problem> {
    let loss = loss.clone().with_ignore_index(-100);
    let shape = Shape::new(rows.len(), classes, 3).unwrap();
    // dynamic AdaCos and inter-topk need more classes
    State::new(&loss, shape).ok()?;
    if classes < least_classes(&loss) {
        return None;
    }
    let x = rows.iter().flat_map(|(x, _)| *x).collect();
    let mut problem =
        Problem::new(loss, shape, x, prototypes()[..3 * classes].to_vec(), rows.iter().map(|(_, y)| *y).collect());
    (problem.state.hardness, problem.state.norm_mean, problem.state.norm_deviation) = (0.3, 1.0, 0.5);
    Some(problem)
}

fn prototype(j: usize) -> [f64; 3] {
    prototypes()[3 * j..3 * j + 3].try_into().unwrap()
}

fn all_finite(what: &str, problem: &Problem, out: &Output<f64>) {
    finite(format_args!("{what}: {problem:?}"), out);
    assert!(out.grad_scale.is_finite() && out.grad_bias.iter().all(|g| g.is_finite()), "{what}: {out:?} {problem:?}");
}

fn all_zero(values: &[f64]) -> bool {
    values.iter().all(|&v| v == 0.0)
}

/// Rows on, opposite and a hair off their own and another prototype, short and long.
fn aligned() -> Vec<([f64; 3], i64)> {
    let along = |j: usize, factor: f64, tilt: f64| {
        let [a, b, c] = prototype(j).map(|v| v * factor);
        [a, b + tilt * factor.abs(), c]
    };
    let factors = [1.0, -1.0, 1e-5, -7.3, 1e4, -1e4];
    factors
        .into_iter()
        .flat_map(|f| [0.0, 1e-9, 1e-5].map(|t| (along(0, f, t), 0)))
        .chain(factors.into_iter().flat_map(|f| [0.0, 1e-7].map(|t| (along(1, f, t), 0))))
        .collect()
}

#[test]
fn cosines_of_one_have_finite_gradients() {
    for (name, loss) in families() {
        for classes in [2, 3, 8] {
            for reduction in REDUCTIONS {
                let Some(problem) = problem(&loss.clone().with_reduction(reduction), classes, &aligned()) else {
                    continue;
                };
                let out = problem.run();
                all_finite(&name, &problem, &out);
                assert!(out.grad_embeddings.iter().any(|&g| g != 0.0), "{name}");
            }
        }
    }
}

/// All prototypes one: finite, and softmax losses are those of C equal logits.
#[test]
fn identical_prototypes_are_finite() {
    for (name, loss) in families() {
        let Some(mut problem) = problem(&loss, 8, &[([0.3, -0.4, 1.0], 3), (prototype(0), 0)]) else { continue };
        problem.prototypes = prototype(0).repeat(8);
        let out = problem.run();
        all_finite(&name, &problem, &out);
        if loss == MarginSoftmax::normface() {
            close("log C", out.row_losses[0], 8.0_f64.ln(), 1e-12);
        }
    }
}

/// Equal sub-centers: the gradient goes to the first.
#[test]
fn of_equal_sub_centres_the_first_gets_the_gradient() {
    for (name, loss) in families().into_iter().filter(|(_, loss)| loss.similarity == Similarity::Cosine) {
        let Some(problem) = problem(&loss, 8, &[([0.3, -0.4, 1.0], 3), ([-0.5, 0.4, 0.1], 0)]) else { continue };
        let single = problem.run();
        let mut double = problem.clone();
        double.shape = problem.shape.with_sub_centers(2).unwrap();
        double.prototypes = (0..8).flat_map(|j| prototype(j).repeat(2)).collect();
        let out = double.run();
        assert_eq!((&out.row_losses, &out.grad_embeddings), (&single.row_losses, &single.grad_embeddings), "{name}");
        for (pair, own) in out.grad_prototypes.chunks(6).zip(single.grad_prototypes.chunks(3)) {
            assert_eq!(pair[..3], *own, "{name}");
            assert!(all_zero(&pair[3..]), "{name}");
        }
    }
}

/// A vector shorter than 1e-12: a loss, a gradient of exactly 0, counted. A linear head has no such vectors.
#[test]
fn zero_vectors_have_a_loss_and_no_gradient() {
    for (name, loss) in families() {
        for tiny in [[0.0; 3], [-0.0, 9e-13, 0.0], [5e-324, 0.0, 0.0]] {
            let Some(mut problem) = problem(&loss, 8, &[(tiny, 1), ([0.3, -0.4, 1.0], 2)]) else { continue };
            let cosine = loss.similarity == Similarity::Cosine;
            let out = problem.run();
            all_finite(&name, &problem, &out);
            assert_eq!(out.counts, Counts { rows: 2, zero_embeddings: cosine.into(), ..Default::default() }, "{name}");
            assert_eq!(all_zero(&out.grad_embeddings[..3]), cosine, "{name}");
            for j in [2, 5] {
                problem.prototypes[3 * j..3 * j + 3].copy_from_slice(&tiny);
            }
            let out = problem.run();
            all_finite(&name, &problem, &out);
            assert_eq!(out.counts.zero_prototypes, if cosine { 2 } else { 0 }, "{name}");
            let gradients = [&out.grad_prototypes[6..9], &out.grad_prototypes[15..18]].concat();
            assert!(!cosine || all_zero(&gradients), "{name}");
            problem.train();
            problem.state.validate(problem.shape).unwrap();
        }
    }
}

/// One class: a softmax loses nothing; SphereFace2 has its positive part, MagFace the term of its length.
#[test]
fn one_class_has_a_loss_of_zero_or_its_own_part() {
    let mut met = 0;
    for (name, loss) in families() {
        let Some(mut problem) = problem(&loss, 1, &[([0.3, -0.4, 1.0], 0), (prototype(0), 0)]) else { continue };
        met += 1;
        let out = problem.run();
        all_finite(&name, &problem, &out);
        assert_eq!(out.other_cosines, [-1.0; 2], "{name}");
        let margins = problem.margins();
        let rows = problem.defined(|i, j, c| problem.value(i, j, c, &margins[i]));
        all_close(&name, &out.row_losses, &rows, 1e-6); // at cos = 1 the school formula loses half the digits of θ
        close(&name, out.loss, problem.reduced(&rows), 1e-6);
        if loss.link == Link::Softmax {
            let terms = [0, 1].map(|i| problem.length_term(i));
            assert!(out.row_losses == terms && all_zero(&out.grad_prototypes), "{name}: {out:?}");
            assert_eq!(out.grad_scale, 0.0, "{name}");
            let magface = matches!(loss.adaptive, Adaptive::MagFace(_));
            assert!(magface || all_zero(&out.grad_embeddings), "{name}: {out:?}");
        }
        problem.train();
        problem.state.validate(problem.shape).unwrap();
    }
    assert!(met > 200, "{met}");
}

/// N = 0 and all ignored: loss 0, every gradient 0, and a training step moves nothing but the step.
#[test]
fn where_nothing_counts_nothing_moves() {
    let nan = [f64::NAN, f64::INFINITY, 0.0];
    let batches: [&[([f64; 3], i64)]; 3] = [&[], &[([0.1, 0.2, 0.3], -100)], &[(nan, -100), ([0.0; 3], -100)]];
    for ((name, loss), rows) in families().into_iter().flat_map(|f| batches.map(|b| (f.clone(), b))) {
        for reduction in REDUCTIONS {
            let Some(mut problem) = problem(&loss.clone().with_reduction(reduction), 8, rows) else { continue };
            let before = problem.state;
            let out = problem.train();
            assert_eq!(out, problem.run(), "{name}");
            assert_eq!((out.loss, out.grad_scale), (0.0, 0.0), "{name}");
            assert!(
                [&out.row_losses, &out.grad_embeddings, &out.grad_prototypes, &out.grad_bias]
                    .iter()
                    .all(|v| all_zero(v))
            );
            assert_eq!(out.counts, Counts { ignored: rows.len(), ..Default::default() }, "{name}");
            assert_eq!(problem.state, State { step: before.step + 1, ..before }, "{name}");
        }
    }
}

/// A row that is not finite is loud: NaN in its loss and in the reduced one. Everything else, the state included, is that
/// of the same batch with the row ignored; and an ignored row adds nothing to what the state follows.
#[test]
fn a_non_finite_row_counts_for_nothing() {
    let rows = [([0.3, -0.4, 1.0], 3), ([-0.5, 0.4, 0.1], 0), ([1.5, 0.2, -0.6], 1)];
    for (name, loss) in families() {
        for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY] {
            let with = |row: [f64; 3], label: i64| problem(&loss, 8, &[rows[0], rows[1], (row, label), rows[2]]);
            let (Some(mut loud), Some(mut ignored)) = (with([0.1, bad, 0.2], 2), with([0.3, 0.5, 0.2], -100)) else {
                continue;
            };
            let (out, expected) = (loud.train(), ignored.train());
            assert!(out.loss.is_nan() && out.row_losses[2].is_nan(), "{name}");
            for i in [0, 1, 3] {
                assert_eq!(out.row_losses[i], expected.row_losses[i], "{name}");
            }
            assert_eq!(out.grad_embeddings, expected.grad_embeddings, "{name}");
            assert_eq!(out.grad_prototypes, expected.grad_prototypes, "{name}");
            assert_eq!((out.grad_scale, &out.grad_bias), (expected.grad_scale, &expected.grad_bias), "{name}");
            assert_eq!(out.counts, Counts { rows: 3, non_finite_rows: 1, ..Default::default() }, "{name}");
            assert_eq!(loud.state, ignored.state, "{name}");
            let mut without = problem(&loss, 8, &rows).unwrap();
            without.train();
            assert_eq!(without.state, ignored.state, "{name}");
            let start = problem(&loss, 8, &rows).unwrap().state;
            assert_eq!(State { step: 0, ..loud.state } != start, moves_state(&loss), "{name}");
        }
    }
}

/// A prototype that is not finite: every loss NaN, every gradient 0, and the state does not follow such a batch.
#[test]
fn a_non_finite_prototype_stops_everything() {
    for (name, loss) in families() {
        for bad in [f64::NAN, -f64::INFINITY] {
            let Some(mut problem) = problem(&loss, 8, &[([0.3, -0.4, 1.0], 3), ([-0.5, 0.4, 0.1], -100)]) else {
                continue;
            };
            problem.prototypes[22] = bad;
            let before = problem.state;
            let out = problem.train();
            assert!(out.loss.is_nan() && out.row_losses[0].is_nan() && out.row_losses[1] == 0.0, "{name}");
            assert!([&out.grad_embeddings, &out.grad_prototypes, &out.grad_bias].iter().all(|v| all_zero(v)), "{name}");
            assert_eq!((out.grad_scale, out.counts.non_finite_prototypes), (0.0, 1), "{name}");
            assert_eq!(problem.state, State { step: 1, ..before }, "{name}");
        }
    }
}

/// Scales and parameters at the ends of their ranges, rows on and opposite their prototypes among them.
#[test]
fn the_ends_of_every_range_are_finite() {
    let below = |x: f64| x.next_down();
    let mut all: Vec<MarginSoftmax> = families()
        .into_iter()
        .filter(|(_, loss)| loss.adaptive != Adaptive::AdaCos)
        .flat_map(|(_, loss)| [1e6, 1e-30, 5e-324].map(|scale| loss.clone().with_scale(scale)))
        .collect();
    let power = |margin, angular, exponent| {
        let p = SimilarityAdjustment { margin, angular, exponent, slope: Slope::Analytic };
        MarginSoftmax {
            target: Target::SimilarityAdjustment(p),
            others: Others::SimilarityAdjustment(p),
            ..MarginSoftmax::sphereface2()
        }
    };
    let angle = |factor, margin, offset| {
        let a = Angle { factor, margin, offset, ..Default::default() };
        MarginSoftmax { target: Target::Angle(a.clone()), ..MarginSoftmax::arcgrad() }.with_others(Others::Angle(a))
    };
    for scale in [1e6, 64.0, 1e-30] {
        let mut add = |loss: MarginSoftmax| all.push(loss.with_scale(scale));
        for (m, angular) in [(1e6, false), (-1e6, false), (0.0, true), (below(PI), true)] {
            [1, 2, 16].into_iter().for_each(|t| add(power(m, angular, t)));
        }
        for factor in [5e-324, 1e6] {
            for margin in [below(PI), -below(PI)] {
                [1e6, -1e6].into_iter().for_each(|offset| add(angle(factor, margin, offset)));
            }
        }
        for others in [
            Others::InterclassFilter(InterclassFilter { threshold: 5e-324 }),
            Others::InterclassFilter(InterclassFilter { threshold: 1.0 }),
            Others::TopK(TopK { count: 7, margin: below(FRAC_PI_2) }),
            Others::TopK(TopK { count: 1, margin: 0.0 }),
        ] {
            add(MarginSoftmax::arcface().with_others(others));
        }
        for (weight, factor, bias) in [(0.0, 1e6, 1e6), (1.0, 1e6, -1e6), (0.5, 5e-324, 1e6), (1.0, 1e6, 1e6)] {
            let link = Link::Binary(Binary { weight, factor, bias });
            add(MarginSoftmax { link, ..MarginSoftmax::sphereface2() });
            add(MarginSoftmax { link, ..MarginSoftmax::arcface() });
        }
        for fallback in FALLBACKS {
            let base = MarginSoftmax::normface().with_margin(|m| m.fallback = fallback);
            let mut adaptive = |adaptive| {
                let loss = base.clone().with_adaptive(adaptive);
                // easy takes no margin beyond π/2
                if loss.validate().is_ok() {
                    add(loss);
                }
            };
            for (margin, concentration, rate) in [(0.0, 5e-324, 1.0), (below(FRAC_PI_2), 100.0, 5e-324)] {
                adaptive(Adaptive::AdaFace(AdaFace { margin, concentration, rate }));
            }
            for (lower_length, upper_length, upper_margin) in
                [(1e-6, 1e6, below(PI)), (1e-6, 1e-6_f64.next_up(), 0.0), (1.0, 1.0_f64.next_up(), FRAC_PI_2)]
            {
                let (lower_margin, weight) = (0.0, 1e6);
                adaptive(Adaptive::MagFace(MagFace { lower_length, upper_length, lower_margin, upper_margin, weight }));
            }
            for (cosine, deviation) in [(false, 10.0), (true, 10.0), (false, 0.0)] {
                adaptive(Adaptive::Elastic(Elastic { cosine, deviation, sorted: true }));
            }
        }
        add(MarginSoftmax { similarity: Similarity::Dot, ..MarginSoftmax::unified(1e6, 1.0, 0.0, -1e6) });
        for m1 in [5e-324, 16.0] {
            add(MarginSoftmax::unified(1e6, m1, below(PI), 1e6).with_others(Others::Curricular));
        }
    }
    assert!(all.len() > 1500, "{}", all.len());
    for loss in all {
        assert_eq!(loss.validate(), Ok(()), "{loss:?}");
        let Some(mut problem) = problem(&loss, 8, &aligned()) else { continue };
        for hardness in [0.3, 1.0, -1.0] {
            problem.state.hardness = hardness;
            all_finite("ends", &problem, &problem.run());
        }
        problem.train();
        assert_eq!(problem.state.validate(problem.shape), Ok(()), "{problem:?}");
    }
}

/// The states at the ends of their ranges.
#[test]
fn any_state_that_is_accepted_is_finite() {
    for (name, loss) in families() {
        for (norm, deviation, scale) in [(0.0, 0.0, 5e-324), (1e30, 0.0, 1e6), (0.0, 1e30, 1e-2), (1e30, 1e30, 64.0)] {
            let Some(mut problem) = problem(&loss, 8, &aligned()) else { continue };
            (problem.state.norm_mean, problem.state.norm_deviation, problem.state.scale) = (norm, deviation, scale);
            all_finite(&name, &problem, &problem.run());
            for _ in 0..3 {
                problem.train();
                assert_eq!(problem.state.validate(problem.shape), Ok(()), "{name}");
            }
        }
    }
}

/// A batch on its prototypes leaves CurricularFace's t at 1, however the cosines round.
#[test]
fn the_hardness_stays_within_its_range() {
    for (factor, end) in [(0.7, 1.0), (-0.7, -1.0)] {
        let mut rng = random(61);
        for _ in 0..50 {
            let w = uniform(&mut rng, 24);
            let x = w.iter().map(|v| factor * v).collect();
            let shape = Shape::new(8, 8, 3).unwrap();
            let mut problem = Problem::new(MarginSoftmax::curricularface(), shape, x, w, (0..8).collect());
            problem.state.hardness = end;
            for _ in 0..3 {
                problem.train();
                assert_eq!(problem.state.validate(shape), Ok(()));
                close("t", problem.state.hardness, end, 1e-15);
            }
        }
    }
}

/// An evaluation leaves the state alone, and so does a training step that fails; the output too.
#[test]
fn only_a_training_step_that_succeeds_moves_the_state() {
    for (name, loss) in families() {
        let Some(problem) = problem(&loss, 8, &[([0.3, -0.4, 1.0], 3), ([-0.5, 0.4, 0.1], 0)]) else { continue };
        let thin = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let (x, w) = (thin(&problem.embeddings), thin(&problem.prototypes));
        let batch = |labels: &'static [i64]| Batch { embeddings: &x, prototypes: &w, labels, ..Default::default() };
        let mut head = Backend::reference().head(&problem.loss, problem.shape).unwrap();
        head.set_state(&problem.state).unwrap();
        let mut out = head.evaluate(&batch(&[3, 0])).unwrap();
        assert_eq!(head.state(), &problem.state, "{name}");
        let before = out.clone();
        assert!(head.train_into(&batch(&[3, 8]), &mut out).is_err());
        assert!(head.train_into(&Batch { embeddings: &x[1..], ..batch(&[3, 0]) }, &mut out).is_err());
        assert_eq!((head.state(), &out), (&problem.state, &before), "{name}");
        head.train_into(&batch(&[3, 0]), &mut out).unwrap();
        assert_eq!(head.state().step, 1, "{name}");

        let mut state = problem.state;
        let bad = Batch { labels: &[3, 8], ..problem.batch() };
        assert!(reference::train(&problem.loss, problem.shape, EVERYTHING, &bad, &mut state).is_err());
        assert_eq!(state, problem.state, "{name}");
    }
}

//! Values of the single curves, draws and running statistics against formulas of their own.

use std::f64::consts::{FRAC_2_PI, PI};

use margin_softmax::{objective::chebyshev, objective::*, *};
use rand::RngExt;

use crate::{common::*, problems::*};

fn angle(factor: f64, margin: f64, offset: f64, curve: Curve) -> Target {
    Target::Angle(Angle { factor, margin, offset, curve, slope: Slope::Analytic })
}

/// −θ with slope 1/sin θ, and (π − 2(θ + m))/π with slope 2/(π sin θ); at the ends the sine is 1e-4.
#[test]
fn curves_that_are_linear_in_the_angle() {
    let (arcgrad, li) = (MarginSoftmax::arcgrad(), MarginSoftmax::li_arcface());
    for x in [-0.999_f64, -0.5, 0.0, 0.3, 0.99] {
        let (theta, sine) = (x.acos(), (1.0 - x * x).sqrt());
        for (found, value, slope) in [
            (arcgrad.target_value_slope(x), -theta, 1.0 / sine),
            (arcgrad.others.value_slope(x), -theta, 1.0 / sine),
            (li.target_value_slope(x), (PI - 2.0 * (theta + 0.4)) / PI, FRAC_2_PI / sine),
            (li.others.value_slope(x), (PI - 2.0 * theta) / PI, FRAC_2_PI / sine),
        ] {
            close(x, found.0, value, 1e-14);
            close(x, found.1, slope, 1e-12 * slope);
        }
    }
    for (end, theta) in [(1.0, 0.0), (1.0 + 1e-7, 0.0), (-1.0, PI), (-1.0 - 1e-7, PI)] {
        let (value, slope) = arcgrad.target_value_slope(end);
        close(end, value, -theta, 1e-15);
        close(end, slope, 1e4, 1e-8);
        close(end, li.target_value_slope(end).1, FRAC_2_PI * 1e4, 1e-8);
    }
}

/// arccos truncated at n: slope −(4/π)⌈n/2⌉ at both ends, largest error there.
#[test]
fn the_series_of_arccos_is_as_printed() {
    for (n, worst) in [(3, ".156086"), (5, ".105156"), (7, ".079172"), (9, ".063453"), (15, ".039737"), (31, ".019888")]
    {
        let c = chebyshev::arccos(n);
        let error = |j: i32| {
            let theta = PI * f64::from(j) / 4000.0;
            (chebyshev::value_slope(&c, theta.cos()).0 - theta).abs()
        };
        let most = (0..=4000).map(error).fold(0.0, f64::max);
        printed(n, most, worst);
        close(n, most, error(0), 1e-15);
        let target = angle(1.0, 0.0, 0.0, Curve::Series(series(n, Damping::None)));
        for end in [1.0, -1.0] {
            let steepest = 4.0 / PI * (n as f64 / 2.0).ceil();
            close(n, chebyshev::value_slope(&c, end).1, -steepest, 1e-12);
            close(n, target.value_slope(end).1, steepest, 1e-12);
        }
    }
    for n in [1, 2, 4, 8, 30, 64] {
        close(n, chebyshev::value_slope(&chebyshev::arccos(n), 1.0).1, -4.0 / PI * (n as f64 / 2.0).ceil(), 1e-11);
    }
    for (damping, slope) in [(Damping::None, "-20.37"), (Damping::Jackson, "-8.50"), (Damping::Lanczos, "-12.01")] {
        let c = series(31, damping).arccos();
        printed(format_args!("{damping:?}"), chebyshev::value_slope(&c, 1.0).1, slope);
        for j in 0..=2000 {
            let slope = chebyshev::value_slope(&c, (PI * f64::from(j) / 2000.0).cos()).1;
            assert!(slope < 0.0, "{damping:?} is not monotone at {j}: {slope}");
        }
    }
}

/// 2((c+1)/2)^t ∓ 1, on the cosine and on the angle; below −1 the power keeps its sign.
#[test]
fn the_curve_of_sphereface2() {
    let at = |exponent, margin, angular| SimilarityAdjustment { exponent, margin, angular, slope: Slope::Analytic };
    for t in 1..=16_i32 {
        for x in [-1.0_f64, -0.7, 0.0, 0.4, 1.0] {
            let (p, base) = (at(t as u32, 0.2, false), (x + 1.0) / 2.0);
            let (g, slope) = (2.0 * base.powi(t) - 1.0, f64::from(t) * base.powi(t - 1));
            let (target, other) =
                (Target::SimilarityAdjustment(p).value_slope(x), Others::SimilarityAdjustment(p).value_slope(x));
            close(t, target.0, g - 0.2, 1e-14);
            close(t, other.0, g + 0.2, 1e-14);
            close(t, target.1, slope, 1e-13);
            close(t, other.1, slope, 1e-13);
        }
        for x in [-0.9_f64, -0.3, 0.2, 0.8] {
            let p = at(t as u32, 0.15, true);
            let stretch = |c: f64| {
                let base = (c + 1.0) / 2.0;
                2.0 * base.signum() * base.abs().powi(t) - 1.0
            };
            close(t, Target::SimilarityAdjustment(p).value_slope(x).0, stretch((x.acos() + 0.15).cos()), 1e-14);
            close(t, Others::SimilarityAdjustment(p).value_slope(x).0, stretch((x.acos() - 0.15).cos()), 1e-14);
            for value_slope in [&|x| Target::SimilarityAdjustment(p).value_slope(x), &|x| {
                Others::SimilarityAdjustment(p).value_slope(x)
            }] as [&dyn Fn(f64) -> (f64, f64); 2]
            {
                let measured = central_difference(|x| value_slope(x).0, x, 1e-4);
                close(t, value_slope(x).1, measured, 1e-9);
            }
        }
        // opposite the prototype: x − (1 − cos m) = −2 + cos m, a base below 0
        let p = at(t as u32, 0.5, true);
        let base = (0.5_f64.cos() - 1.0) / 2.0;
        let (value, slope) = Target::SimilarityAdjustment(p).value_slope(-1.0);
        close(t, value, -2.0 * (-base).powi(t) - 1.0, 1e-14);
        close(t, slope, f64::from(t) * (-base).powi(t - 1), 1e-14);
        // at θ = 0 the others may not come closer: cos(0 − m)
        close(
            t,
            Others::SimilarityAdjustment(p).value_slope(1.0).0,
            2.0 * ((0.5_f64.cos() + 1.0) / 2.0).powi(t) - 1.0,
            1e-14,
        );
    }
    let detached = MarginSoftmax::named("sphereface2_opensphere").unwrap();
    assert_eq!((detached.target_value_slope(0.3).1, detached.others.value_slope(0.3).1), (1.0, 1.0));
}

/// ln 2ζ − a_n − ln(1 − ζ + √((1−ζ)² + 4ζ e^{a_p − a_n})) at s = 40, m = 0.4, t = 3, λ = 0.7, and that it is the best.
#[test]
fn opensphere_starts_at_its_bias() {
    let (s, m, t) = (40.0, 0.4, 3);
    let (positive, negative) = (s * (2.0 * 0.5_f64.powi(t) - 1.0 - m), s * (2.0 * 0.5_f64.powi(t) - 1.0 + m));
    printed("C = 10572", Binary::opensphere_bias(0.7, 10_572, positive, negative), "5.58164893");
    let p = SimilarityAdjustment { margin: m, ..Default::default() };
    close("positive", s * Target::SimilarityAdjustment(p).value_slope(0.0).0, positive, 1e-12);
    close("negative", s * Others::SimilarityAdjustment(p).value_slope(0.0).0, negative, 1e-12);
    for classes in [2, 3, 4, 10, 10_572] {
        let best = Binary::opensphere_bias(0.7, classes, positive, negative);
        let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
        let loss = |b: f64| 0.7 * softplus(-positive - b) + 0.3 * (classes as f64 - 1.0) * softplus(negative + b);
        assert!(loss(best) < loss(best + 1e-3) && loss(best) < loss(best - 1e-3), "{classes}: {best}");
    }
}

/// The value of class j for a row that has these cosines, seen through the loss: log(e^{z_j} + e^{z_y}) − z_y.
fn others_value(loss: &MarginSoftmax, cosines: &[f64], state: impl Fn(&mut State)) -> Vec<f64> {
    // one axis per class, the label's at right angles to all: cosines as wanted, one class kept at a time by its weight
    let classes = cosines.len() + 1;
    let rest = (1.0 - dot(cosines, cosines)).sqrt();
    let x: Vec<f64> = [0.0].into_iter().chain(cosines.iter().copied()).chain([rest]).collect();
    let dim = classes + 1;
    let w: Vec<f64> = (0..classes * dim).map(|at| if at % dim == at / dim { 1.0 } else { 0.0 }).collect();
    let link = Link::Binary(Binary { weight: 0.0, factor: 1.0, bias: 0.0 });
    let loss = MarginSoftmax { link, scale: 1.0, ..loss.clone() };
    let mut problem = Problem::new(loss, Shape::new(1, classes, dim).unwrap(), x, w, vec![0]);
    state(&mut problem.state);
    // dL/dw_j = σ(z)·slope·(x − c·w_j): take the slope apart at the coordinate of the rest
    let out = problem.run();
    (1..classes).map(|j| out.grad_prototypes[j * dim + dim - 1] / rest).collect()
}

/// Inter-topk: cos(θ − m) with slope cos m − sin m·c/S for the k nearest, of equal ones the lower class; closer than m
/// the value stays 1 and the slope 0.
#[test]
fn inter_topk_moves_the_nearest_and_stops_at_zero() {
    let top = |count, margin| MarginSoftmax::arcface().with_others(Others::TopK(TopK { count, margin }));
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let moved = |c: f64, m: f64| {
        let (theta, sine) = (c.acos(), (1.0 - c * c).sqrt());
        sigmoid((theta - m).cos()) * (m.cos() - m.sin() * c / sine)
    };
    let cosines = [0.2, 0.5, -0.1, 0.5, 0.4];
    for (count, chosen) in [(1, &[1][..]), (2, &[1, 3]), (3, &[1, 3, 4]), (5, &[0, 1, 2, 3, 4])] {
        let found = others_value(&top(count, 0.06), &cosines, |_| {});
        let expected: Vec<f64> =
            (0..5).map(|j| if chosen.contains(&j) { moved(cosines[j], 0.06) } else { sigmoid(cosines[j]) }).collect();
        all_close(count, &found, &expected, 1e-12);
    }
    // closer than the margin
    let clamped = others_value(&top(1, 0.7), &[0.9, 0.1], |_| {});
    all_close("clamped", &clamped, &[0.0, sigmoid(0.1)], 1e-12);
    let plain = MarginSoftmax::arcface();
    let loss = |loss: &MarginSoftmax| {
        let w = vec![0.0, 1.0, 0.0, 1.0, 0.0, 0.0];
        let (x, shape) = (vec![0.95, 0.1, 0.3], Shape::new(1, 2, 3).unwrap());
        Problem::new(loss.clone().with_scale(1.0), shape, x, w, vec![0]).run().loss
    };
    let target = {
        let x = 0.1 / length(&[0.95, 0.1, 0.3]);
        plain.target_value_slope(x).0
    };
    close("value 1", loss(&top(1, 0.7)), (1.0 + (1.0 - target).exp()).ln(), 1e-14);
}

/// c·(t + c) with slope t + 2c above cos(θ_y + m), the cosine below; above the threshold the filter's value and slope
/// are 0.
#[test]
fn hard_classes_of_curricularface_and_of_the_filter() {
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    // θ_y = π/2, so the bound is cos(π/2 + 0.5) = −sin 0.5 = −0.479
    let cosines = [0.5, 0.1, -0.2, -0.47, -0.49];
    for t in [0.0, 0.3, -0.2, 0.9] {
        let loss = MarginSoftmax::curricularface();
        let found = others_value(&loss, &cosines, |state| state.hardness = t);
        let expected = |c: f64| if c > -(0.5_f64.sin()) { sigmoid(c * (t + c)) * (t + 2.0 * c) } else { sigmoid(c) };
        all_close(t, &found, &cosines.map(expected), 1e-12);
    }
    let loss = MarginSoftmax::arcface().with_others(Others::InterclassFilter(InterclassFilter { threshold: 0.3 }));
    let found = others_value(&loss, &[0.5, 0.31, 0.29, -0.4], |_| {});
    all_close("filter", &found, &[0.0, 0.0, sigmoid(0.29), sigmoid(-0.4)], 1e-12);
    assert_eq!(Others::InterclassFilter(InterclassFilter { threshold: 0.3 }).value_slope(0.4), (0.0, 0.0));
    assert_eq!(Others::InterclassFilter(InterclassFilter { threshold: 0.5 }).value_slope(0.5), (0.5, 1.0)); // the threshold itself stays
}

/// Normal(0, d²): mean and variance over 1e5 draws, no correlation between rows, steps and seeds; the same each time.
#[test]
fn draws_are_normal_and_repeatable() {
    let shape = Shape::new(1, 3, 1).unwrap();
    let start = State::new(&MarginSoftmax::elasticface_arc(), shape).unwrap();
    let elastic = Elastic { deviation: 0.05, ..Default::default() };
    let n = 100_000;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let root = 1.0 / f64::from(n).sqrt();
    let by_rows = elastic.draws(&start, n as usize);
    let by_steps: Vec<f64> = (0..n as u64).map(|step| elastic.draws(&State { step, ..start }, 1)[0]).collect();
    let by_seeds: Vec<f64> = (0..n as u64).map(|seed| elastic.draws(&start.with_seed(seed), 1)[0]).collect();
    for (what, draws) in [("rows", &by_rows), ("steps", &by_steps), ("seeds", &by_seeds)] {
        let unit: Vec<f64> = draws.iter().map(|d| d / 0.05).collect();
        let moment = |k: i32| mean(&unit.iter().map(|d| d.powi(k)).collect::<Vec<_>>());
        // four standard errors: of the mean 1, of the square √2, of the cube √15, of the fourth power √96
        close(format_args!("{what}: mean"), moment(1), 0.0, 4.0 * root);
        close(format_args!("{what}: variance"), moment(2), 1.0, 4.0 * 2.0_f64.sqrt() * root);
        close(format_args!("{what}: skew"), moment(3), 0.0, 4.0 * 15.0_f64.sqrt() * root);
        close(format_args!("{what}: kurtosis"), moment(4), 3.0, 4.0 * 96.0_f64.sqrt() * root);
        for lag in [1, 2, 64] {
            let products: Vec<f64> = unit.iter().zip(&unit[lag..]).map(|(a, b)| a * b).collect();
            close(format_args!("{what}: lag {lag}"), mean(&products), 0.0, 4.5 * root);
        }
    }
    let products: Vec<f64> = by_rows.iter().zip(&by_steps).skip(1).map(|(a, b)| a * b / 0.0025).collect();
    close("rows against steps", mean(&products), 0.0, 4.0 * root);

    assert_eq!(elastic.draws(&start, 7), by_rows[..7]);
    assert_ne!(elastic.draws(&State { step: 1, ..start }, 7), by_rows[..7]);
    assert_ne!(elastic.draws(&start.with_seed(1), 7), by_rows[..7]);
    let mut sorted = by_rows[..7].to_vec();
    sorted.sort_by(f64::total_cmp);
    assert_eq!(Elastic { sorted: true, ..elastic }.draws(&start, 7), sorted);
    assert_eq!(Elastic { deviation: 0.0, ..elastic }.draws(&start, 3), [0.0; 3]);
}

/// Sorted draws: the row with the smallest cosine has the largest margin, whatever its place; seen through the loss of
/// a cosine margin, z_y = s·(x − m3).
#[test]
fn the_hardest_row_gets_the_largest_draw() {
    let loss = MarginSoftmax::named("elasticface_cos_plus").unwrap().with_scale(4.0).with_ignore_index(-1);
    let mut rng = random(70);
    for _ in 0..20 {
        let shape = Shape::new(6, 5, 4).unwrap();
        let labels = vec![0, 3, -1, 2, 2, 4];
        let (x, w) = (uniform(&mut rng, 24), uniform(&mut rng, 20));
        let mut problem = Problem::new(loss.clone(), shape, x, w, labels);
        problem.state = problem.state.with_seed(rng.random());
        let out = problem.run();
        let mut plain = problem.clone();
        plain.loss.adaptive = Adaptive::None;
        let mut drawn = vec![];
        for i in problem.counted() {
            // invert loss = log(1 + e^{L − z_y})
            let d = |p: &Output<f64>| p.row_losses[i].exp_m1().ln();
            drawn.push((out.target_cosines[i], (d(&out) - d(&plain.run())) / 4.0));
        }
        drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut expected =
            Elastic { cosine: true, deviation: 0.02, sorted: true }.draws(&problem.state, problem.rows());
        expected.reverse();
        // the one row that is left out has the smallest
        let found: Vec<f64> = drawn.iter().map(|(_, m)| *m).collect();
        all_close("margins by hardness", &found, &expected[..5], 1e-12);
    }
}

/// s ← log B / cos(min(π/4, median θ)), B the mean over rows of Σ_{j≠y} exp(s·c_ij), at the scale before the step.
#[test]
fn adacos_follows_every_step() {
    let mut rng = random(71);
    for (rows, classes) in [(5, 7), (4, 7), (1, 3), (6, 40)] {
        let loss = MarginSoftmax::adacos().with_ignore_index(-1);
        let shape = Shape::new(rows, classes, 6).unwrap();
        let w = uniform(&mut rng, classes * 6);
        let mut scale = 2.0_f64.sqrt() * (classes as f64 - 1.0).ln();
        let mut state = State::new(&loss, shape).unwrap();
        close("s0", state.scale, scale, 1e-14);
        for step in 0..6 {
            let labels: Vec<i64> = (0..rows)
                .map(|i| if i == 0 && step == 3 && rows > 1 { -1 } else { rng.random_range(0..classes as i64) })
                .collect();
            let x: Vec<f64> = (0..rows)
                .flat_map(|i| {
                    // closer to its class step by step
                    let own = labels[i].max(0) as usize;
                    let noise = uniform(&mut rng, 6);
                    (0..6).map(|d| f64::from(step) * w[6 * own + d] + 2.0 * noise[d]).collect::<Vec<_>>()
                })
                .collect();
            let mut problem = Problem::new(loss.clone(), shape, x, w.clone(), labels);
            problem.state = state;
            let out = problem.train();
            let counted: Vec<usize> = problem.counted().collect();
            let mut angles: Vec<f64> = counted.iter().map(|&i| problem.cosine(i, problem.label(i)).acos()).collect();
            angles.sort_by(f64::total_cmp);
            let median = angles[(angles.len() - 1) / 2];
            let row = |&i: &usize| problem.others(i).iter().map(|c| (scale * c).exp()).sum::<f64>();
            let sum: f64 = counted.iter().map(row).sum();
            scale = (sum / counted.len() as f64).ln() / median.min(PI / 4.0).cos();
            close(format_args!("step {step}"), problem.state.scale, scale.max(0.01), 1e-11 * scale.abs().max(1.0));
            // used in the same step
            let rows = problem.defined(|_, _, c| c);
            all_close("losses", &out.row_losses, &rows, 1e-11);
            (state, scale) = (problem.state, problem.state.scale);
            assert_eq!(state.step, step as u64 + 1);
        }
    }
}

/// t ← 0.01·mean of the raw target cosines + 0.99·t, from 0, before it is used.
#[test]
fn curricularface_follows_every_step() {
    let mut rng = random(72);
    let loss = MarginSoftmax::curricularface().with_scale(8.0);
    let mut problem = random_problem(&mut rng, &loss);
    problem.state = State::new(&problem.loss, problem.shape).unwrap();
    let mut t = 0.0;
    for step in 0..50 {
        for v in &mut problem.embeddings {
            *v += rng.random_range(-0.2..0.2);
        }
        let counted: Vec<usize> = problem.counted().collect();
        let mean = counted.iter().map(|&i| problem.cosine(i, problem.label(i))).sum::<f64>() / counted.len() as f64;
        t = 0.01 * mean + 0.99 * t;
        let out = problem.train();
        close(format_args!("t after {step}"), problem.state.hardness, t, 1e-14);
        let margins = problem.margins();
        let rows = problem.defined(|i, j, c| problem.value(i, j, c, &margins[i]));
        all_close("losses", &out.row_losses, &rows, 1e-10);
    }
    assert!(t != 0.0);
}

/// μ ← α·mean + (1−α)·μ and the deviation with N − 1, of lengths within 1e-3 and 100; one row leaves the deviation.
#[test]
fn adaface_follows_every_step() {
    let mut rng = random(73);
    for rate in [0.01, 0.3, 1.0] {
        let loss = MarginSoftmax::adaface()
            .with_adaptive(Adaptive::AdaFace(AdaFace { rate, ..Default::default() }))
            .with_ignore_index(-1);
        let (mut mean, mut deviation) = (20.0, 100.0);
        let mut state = State::new(&loss, Shape::new(5, 4, 3).unwrap()).unwrap();
        assert_eq!((state.norm_mean, state.norm_deviation), (mean, deviation));
        for step in 0..20 {
            let labels = if step % 5 == 4 { vec![-1, 2, -1, -1, -1] } else { vec![0, 1, -1, 3, 2] };
            let factor = [1e-4, 1.0, 30.0, 300.0][step % 4];
            let x = uniform(&mut rng, 15).into_iter().map(|v| v * factor).collect();
            let mut problem =
                Problem::new(loss.clone(), Shape::new(5, 4, 3).unwrap(), x, uniform(&mut rng, 12), labels);
            problem.state = state;
            let lengths: Vec<f64> =
                problem.counted().map(|i| length(problem.embedding(i)).clamp(1e-3, 100.0)).collect();
            let n = lengths.len() as f64;
            let own = lengths.iter().sum::<f64>() / n;
            mean = rate * own + (1.0 - rate) * mean;
            if n > 1.0 {
                let square: f64 = lengths.iter().map(|l| (l - own).powi(2)).sum();
                deviation = rate * (square / (n - 1.0)).sqrt() + (1.0 - rate) * deviation;
            }
            let out = problem.train();
            close("mean", problem.state.norm_mean, mean, 1e-12 * mean);
            close("deviation", problem.state.norm_deviation, deviation, 1e-12 * deviation.max(1.0));
            // used in the same step: z_y = cos(θ − m·ẑ) − m(1 + ẑ)
            let margins = problem.margins();
            let rows = problem.defined(|i, j, c| problem.value(i, j, c, &margins[i]));
            all_close("losses", &out.row_losses, &rows, 1e-10);
            state = problem.state;
        }
    }
}

/// m(a) = l_m + (u_m − l_m)(a − l_a)/(u_a − l_a), a within the two lengths, and λ(a/u_a² + 1/a).
#[test]
fn magface_margin_and_term_of_the_length() {
    let w = vec![1.0, 0.0, 0.0, 1.0];
    let of = |long: f64, weight: f64| {
        let loss = MarginSoftmax::magface()
            .with_adaptive(Adaptive::MagFace(MagFace { weight, ..Default::default() }))
            .with_margin(|m| m.fallback = Fallback::None)
            .with_scale(2.0);
        let x = vec![0.8 * long, 0.6 * long];
        Problem::new(loss, Shape::new(1, 2, 2).unwrap(), x, w.clone(), vec![0]).run()
    };
    for (long, margin, term) in [
        (1.0, 0.45, 10.0 / 12100.0 + 0.1),
        (10.0, 0.45, 10.0 / 12100.0 + 0.1),
        (35.0, 0.5375, 35.0 / 12100.0 + 1.0 / 35.0),
        (60.0, 0.625, 60.0 / 12100.0 + 1.0 / 60.0),
        (110.0, 0.8, 2.0 / 110.0),
        (500.0, 0.8, 2.0 / 110.0),
    ] {
        let (plain, full) = (of(long, 0.0), of(long, 35.0));
        let value = (0.8_f64.acos() + margin).cos();
        close(long, plain.loss, (1.0 + (2.0 * (0.6 - value)).exp()).ln(), 1e-13);
        close(long, full.row_losses[0] - plain.row_losses[0], 35.0 * term, 1e-12);
        // along x: −dL/dφ·m'·sin(θ + m)·s plus λ(1/u² − 1/a²), between the two lengths
        let radial = dot(&full.grad_embeddings, &[0.8, 0.6]);
        let inside = (10.0..=110.0).contains(&long);
        let pull = 1.0 / (1.0 + (2.0 * (value - 0.6)).exp());
        let rise = 0.35 / 100.0 * (0.8_f64.acos() + margin).sin() * 2.0 * pull;
        let expected = if inside { rise + 35.0 * (1.0 / 12100.0 - 1.0 / (long * long)) } else { 0.0 };
        close(format_args!("radial at {long}"), radial, expected, 1e-12);
    }
}

/// The numbers of every preset with parts that m0..m3 do not tell.
#[test]
fn further_presets_have_the_published_numbers() {
    let named = |name: &str| MarginSoftmax::named(name).unwrap();
    assert_eq!(named("m_softmax").unified_mut().unwrap().m3, 0.5);
    assert_eq!((named("softmax").scale, named("softmax").similarity), (1.0, Similarity::Dot));
    assert_eq!(named("curricularface").unified_mut().unwrap().fallback, Fallback::Sine);
    assert_eq!(named("adaface").adaptive, Adaptive::AdaFace(AdaFace { margin: 0.4, concentration: 0.333, rate: 0.01 }));
    let magface =
        MagFace { lower_length: 10.0, upper_length: 110.0, lower_margin: 0.45, upper_margin: 0.8, weight: 35.0 };
    assert_eq!(named("magface").adaptive, Adaptive::MagFace(magface));
    for (name, cosine, deviation, sorted) in [
        ("elasticface_arc", false, 0.05, false),
        ("elasticface_arc_plus", false, 0.0175, true),
        ("elasticface_cos", true, 0.05, false),
        ("elasticface_cos_plus", true, 0.02, true),
    ] {
        assert_eq!(named(name).adaptive, Adaptive::Elastic(Elastic { cosine, deviation, sorted }));
        let margin = named(name).unified_mut().unwrap().margins();
        assert_eq!(margin, if cosine { [1.0, 1.0, 0.0, 0.35] } else { [1.0, 1.0, 0.5, 0.0] });
    }
    for (name, scale, factor, margin) in [
        ("sphereface2", 32.0, 1.0, 0.2),
        ("sphereface2_angular", 32.0, 1.0, 0.15),
        ("sphereface2_opensphere", 40.0, 1.25, 0.4),
    ] {
        let loss = named(name);
        assert_eq!((loss.scale, loss.link), (scale, Link::Binary(Binary { weight: 0.7, factor, bias: 0.0 })));
        let (Target::SimilarityAdjustment(target), Others::SimilarityAdjustment(others)) = (&loss.target, &loss.others)
        else {
            panic!("{name}")
        };
        assert_eq!((target, target.margin, target.exponent), (others, margin, 3));
    }
    assert_eq!(named("arcface_topk").others, Others::TopK(TopK { count: 5, margin: 0.06 }));
    assert_eq!(named("arcface_filter").others, Others::InterclassFilter(InterclassFilter { threshold: 0.4 }));
}

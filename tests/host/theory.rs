//! The theory: golden numbers, closed forms, other ways to the same number, and bad input.
//!
//! "mpmath" values were computed in 22 to 40 digits.

use std::f64::consts::{FRAC_PI_2, PI};

use margin_softmax::{
    Error, MarginSoftmax, Others,
    objective::{Fallback, Slope},
    theory::{Criterion::*, *},
};
use rand::RngExt;

use crate::common::*;

/// The setting of the unified paper, with the B that it prints.
const CLASSES: usize = 85_742;
const DIM: usize = 512;

fn published() -> f64 {
    ln_wrong_class_sum_published(CLASSES, DIM, 64.0).unwrap()
}

/// Margins without a fallback, scale 64, as the unified paper has them.
fn plain(m0: f64, m1: f64, m2: f64, m3: f64) -> MarginSoftmax {
    MarginSoftmax::unified(m0, m1, m2, m3).with_margin(|m| m.fallback = Fallback::None)
}

/// Within this share of the expected value.
#[track_caller]
fn relative(what: impl std::fmt::Display, found: f64, expected: f64, share: f64) {
    close(what, found, expected, share * expected.abs());
}

/// Degrees; more of them from mpmath.
#[test]
fn nearest_prototype_angles_are_as_printed() {
    for (classes, dim, degrees) in [
        (CLASSES, DIM, "79.0020"),
        (5994, 192, "74.6376"),
        (4000, 64, "64.2343"),
        (4000, 16, "39.6839"),
        (1211, 512, "81.6577"),
        (1_000_000, 512, "77.7163"),
    ] {
        let found = nearest_prototype_angle(classes, dim).unwrap().to_degrees();
        printed(format_args!("{classes} x {dim}"), found, degrees);
        assert!(classes != CLASSES || (found - 78.64).abs() < 0.4, "the paper prints 78.64");
    }
    printed("pairs", closest_pair_asymptote(CLASSES, DIM).unwrap().to_degrees(), "55.25");
    for (classes, dim, degrees) in [
        (CLASSES, DIM, 79.001969676587),
        (4000, 16, 39.683918505966),
        (1_000_000, 512, 77.716337168108),
        (1_000_000_000, 2048, 82.301412641501),
        (1_000_000_000, 16, 16.376270317462),
        (1_000_000_000, 64, 48.039406445694),
    ] {
        let found = nearest_prototype_angle(classes, dim).unwrap().to_degrees();
        relative(format_args!("{classes} x {dim}"), found, degrees, 2e-12); // 14 digits
    }
}

/// On a circle the mean is π/C and the closest pair 2π/C², on a sphere π Π (2k−1)/(2k), and with one other class always
/// a right angle.
#[test]
fn nearest_prototype_angles_have_their_closed_forms() {
    for classes in [2, 3, 4, 10, 1000, 85_742, 1_000_000_000, (1 << 31) - 1] {
        relative(classes, nearest_prototype_angle(classes, 2).unwrap(), PI / classes as f64, 1e-12);
        let pair = 2.0 * PI / (classes as f64).powi(2);
        relative(classes, closest_pair_asymptote(classes, 2).unwrap(), pair, 1e-12);
    }
    for classes in [2, 3, 4, 10, 1000, 85_742] {
        let product: f64 = (1..classes).map(|k| (2 * k - 1) as f64 / (2 * k) as f64).product();
        relative(classes, nearest_prototype_angle(classes, 3).unwrap(), PI * product, 1e-11); // 85,742 roundings
    }
    for dim in [2, 3, 4, 7, 64, 512, 65_536, (1 << 31) - 1] {
        relative(dim, nearest_prototype_angle(2, dim).unwrap(), FRAC_PI_2, 1e-12);
    }
}

/// More classes are nearer, more dimensions farther, up to the right angle.
#[test]
fn nearest_prototype_angles_are_monotone() {
    let (all_classes, dims) = ([2, 3, 10, 1000, 1_000_000, 1_000_000_000], [2, 3, 16, 512, 4096, 65_536]);
    let angle = |classes, dim| nearest_prototype_angle(classes, dim).unwrap();
    for dim in dims {
        assert!(all_classes.windows(2).all(|c| angle(c[1], dim) < angle(c[0], dim)), "{dim}");
    }
    for classes in all_classes {
        let rises = |d: &[usize]| angle(classes, d[1]) > angle(classes, d[0]) - 1e-12;
        assert!(dims.windows(2).all(rises) && angle(classes, 65_536) <= FRAC_PI_2 + 1e-12, "{classes}");
    }
    // the extreme of n Gaussians of variance 1/d lies √(2 ln n / d) off the right angle, for n and d large
    let off = FRAC_PI_2 - angle(1_000_000_000, 65_536);
    relative("tail", off, (2.0 * 1e9_f64.ln() / 65_536.0).sqrt(), 0.07);
}

/// The mean of the density (C−1) f (1−F)^(C−2), with F summed up from f by Simpson's rule.
#[test]
fn the_integral_of_the_density_gives_the_same_angle() {
    for (classes, dim) in [(3, 4), (10, 5), (100, 8), (4000, 16), (4000, 64)] {
        const CELLS: usize = 40_000;
        let h = PI / CELLS as f64;
        let f = |t: f64| t.sin().powi(dim as i32 - 2);
        let mut below = vec![0.0];
        for i in 0..CELLS {
            let t = i as f64 * h;
            below.push(below[i] + h / 6.0 * (f(t) + 4.0 * f(t + h / 2.0) + f(t + h)));
        }
        let whole = below[CELLS];
        let n = (classes - 1) as f64;
        let density = |i: usize| n * f(i as f64 * h) / whole * ((n - 1.0) * (-below[i] / whole).ln_1p()).exp();
        let mean: f64 = (0..CELLS).map(|i| i as f64 * h * density(i)).sum::<f64>() * h;
        relative(format_args!("{classes} x {dim}"), nearest_prototype_angle(classes, dim).unwrap(), mean, 1e-7);
    }
}

/// Random prototypes, counted out.
#[test]
fn random_prototypes_lie_as_far_apart_as_predicted() {
    let mut rng = random(7);
    for (classes, dim, trials) in [(5, 3, 40_000), (30, 8, 20_000), (200, 24, 1500)] {
        let mut nearest = |_| {
            let own = direction(&mut rng, dim);
            (1..classes).map(|_| dot(&own, &direction(&mut rng, dim))).fold(-1.0, f64::max).acos()
        };
        let angles: Vec<f64> = (0..trials).map(&mut nearest).collect();
        let (mean, error) = mean_and_error(&angles);
        close(format_args!("{classes} x {dim}"), mean, nearest_prototype_angle(classes, dim).unwrap(), 4.0 * error);
    }
}

/// Golden numbers; more of them from mpmath.
#[test]
fn wrong_class_sums_are_as_printed() {
    let ln = |classes, dim, scale| ln_wrong_class_sum(classes, dim, scale).unwrap();
    printed("exact", ln(2, DIM, 64.0).exp(), "52.957889");
    printed("published", ln_wrong_class_sum_published(2, DIM, 64.0).unwrap().exp(), "54.598150");
    printed("ln, exact", ln(CLASSES, DIM, 64.0), "15.328583");
    printed("ln, published", published(), "15.359086");
    for (classes, dim, scale, expected) in [
        (2, 2, 1.0, 0.23591435850717865),
        (2, 2, 64.0, 61.003588563514214),
        (10, 3, 30.0, 28.102880015114117),
        (1000, 16, 20.0, 15.6600769782603),
        (1_000_000_000, 512, 64.0, 24.69276288453408),
        (CLASSES, 4096, 64.0, 11.859025417713278),
        (100, 65_536, 1000.0, 12.22362650565046),
        (100, 2, 20_000.0, 19998.72444379082),
    ] {
        relative(format_args!("{classes} {dim} {scale}"), ln(classes, dim, scale), expected, 1e-14);
    }
}

/// sinh(s)/s on a sphere, 3 (s cosh s − sinh s)/s³ in five dimensions, and the mean of exp(s cos θ) by the trapezoid rule
/// in any.
#[test]
fn wrong_class_sums_are_the_mean_over_the_sphere() {
    let ln = |dim, scale| ln_wrong_class_sum(2, dim, scale).unwrap();
    for s in [0.01_f64, 1.0, 8.0, 64.0, 300.0] {
        relative(s, ln(3, s), (s.sinh() / s).ln(), 1e-11); // at s = .01 the logarithm is 2e-5
        let five = 3.0 * (s * s.cosh() - s.sinh()) / s.powi(3);
        close(s, ln(5, s), five.ln(), 1e-10 * s); // cancels at small s
        for dim in [2, 4, 6, 32, 512] {
            let weight = |t: f64| t.sin().powi(dim as i32 - 2);
            let angles = || (0..=20_000).map(|i| PI * f64::from(i) / 20_000.0);
            let ends = if dim == 2 { 0.5 } else { 0.0 };
            let factor = |t: f64| if t == 0.0 || t == PI { ends } else { weight(t) };
            let above: f64 = angles().map(|t| factor(t) * (s * (t.cos() - 1.0)).exp()).sum();
            let below: f64 = angles().map(factor).sum();
            close(format_args!("{dim} {s}"), ln(dim, s), s + (above / below).ln(), 1e-12 * s.max(1.0));
        }
    }
}

/// The published B is an upper bound, and good where s is small beside d.
#[test]
fn the_published_sum_is_an_upper_bound() {
    for scale in [1e-3, 0.5, 10.0, 64.0, 1000.0, 1e6] {
        for dim in [2, 3, 64, 512, 65_536] {
            let exact = ln_wrong_class_sum(1000, dim, scale).unwrap();
            let published = ln_wrong_class_sum_published(1000, dim, scale).unwrap();
            let excess = published - exact;
            assert!(excess > -1e-12 * published && exact >= 999_f64.ln() - 1e-12, "{scale} {dim}");
            // the series of ln ₀F₁: s²/2d − s⁴/(4d²(d+2)) + …
            let next = scale.powi(4) / (4.0 * (dim * dim * (dim + 2)) as f64);
            assert!(excess <= next * (1.0 + 1e-6) + 1e-12 * published, "{scale} {dim}: {excess} {next}");
        }
    }
}

/// The gradient is the derivative of the loss, and the loss is −ln P.
#[test]
fn the_gradient_is_the_derivative_of_the_loss() {
    for margin in every_margin() {
        let loss = loss_of(margin.clone()).with_scale(8.0);
        let kinks: Vec<f64> = kinks(&margin).into_iter().map(f64::acos).collect();
        for angle in [0.02, 0.3, 0.9, FRAC_PI_2 + 0.01, 2.2, 3.1] {
            if kinks.iter().any(|kink| (kink - angle).abs() < 0.01) {
                continue;
            }
            for ln_b in [-3.0, 2.0, 9.0] {
                let what = format!("{margin:?} at {angle}, ln B {ln_b}");
                let value = row_loss(&loss, ln_b, angle).unwrap();
                let found = gradient(&loss, ln_b, angle).unwrap();
                let measured = central_difference(|t| row_loss(&loss, ln_b, t).unwrap(), angle, 1e-4);
                // h⁴ f⁽⁵⁾ / 30 with f⁽⁵⁾ up to 8 · 64⁵ for the steepest series, and the rounding of the loss over h
                let rounding = 1e-11 * (1.0 + value);
                close(&what, found, measured, 1e-7 * found.abs().max(1e-2) + rounding + series_error(&margin));
                relative(&what, probability(&loss, ln_b, angle).unwrap(), (-value).exp(), 1e-14);
            }
        }
    }
}

/// What five points leave of the derivative of a series of degree 64.
fn series_error(margin: &margin_softmax::objective::Unified) -> f64 {
    if matches!(margin.curve, margin_softmax::objective::Curve::Series(_)) { 1e-5 } else { 0.0 }
}

/// The formula, at angles where P is neither 0 nor 1; a detached slope takes the margin out of it.
#[test]
fn the_gradient_has_its_closed_form() {
    let (m0, m1, m2, m3, s, ln_b) = (0.8_f64, 1.2_f64, 0.3_f64, 0.1, 20.0, 5.0);
    let loss = plain(m0, m1, m2, m3).with_scale(s);
    for angle in [0.5_f64, 0.9, 1.3, 2.0] {
        let odds = (s * (m0 * (m1 * angle + m2).cos() - m3) - ln_b).exp();
        let other = 1.0 / (1.0 + odds);
        relative(angle, probability(&loss, ln_b, angle).unwrap(), odds / (1.0 + odds), 1e-13);
        let expected = other * s * m0 * m1 * (m1 * angle + m2).sin();
        relative(angle, gradient(&loss, ln_b, angle).unwrap(), expected, 1e-13);
        let detached = loss.clone().with_margin(|m| m.slope = Slope::Detached);
        relative(angle, gradient(&detached, ln_b, angle).unwrap(), other * s * angle.sin(), 1e-13);
    }
    // beyond the threshold `none` pushes away, `continuous` pulls
    assert!(gradient(&plain(1.0, 1.0, 0.5, 0.0), ln_b, 3.0).unwrap() < 0.0);
    assert!(gradient(&MarginSoftmax::arcface(), ln_b, 3.0).unwrap() > 0.0);
}

/// A tiny loss keeps its precision, a certain one is not above 1.
#[test]
fn nothing_is_lost_at_the_ends() {
    let loss = MarginSoftmax::normface();
    relative("loss", row_loss(&loss, 0.0, 0.0).unwrap(), (-64_f64).exp(), 1e-14);
    relative("gradient", gradient(&loss, 0.0, 1e-3).unwrap(), 64e-3 * (-64_f64).exp(), 1e-4);
    assert_eq!(probability(&loss, 0.0, 0.0).unwrap(), 1.0);
    relative("probability", probability(&loss, 0.0, PI).unwrap(), (-64_f64).exp(), 1e-14);
    relative("loss", row_loss(&loss, 0.0, FRAC_PI_2).unwrap(), 2_f64.ln(), 1e-14);
}

/// The same loss as the reference, whose B is that of the batch.
#[test]
fn the_loss_is_that_of_the_reference() {
    let mut rng = random(3);
    for loss in [MarginSoftmax::arcface(), MarginSoftmax::sphereface(), MarginSoftmax::cheby_aam()] {
        let case = Case::random(&mut rng, loss.with_scale(12.0), (4, 6, 5));
        let out = case.run();
        for (i, &label) in case.labels.iter().enumerate() {
            let others = (0..6).filter(|&j| j != label as usize).map(|j| (12.0 * case.cosine(i, j)).exp());
            let (ln_b, angle) = (others.sum::<f64>().ln(), case.cosine(i, label as usize).acos());
            relative(i, row_loss(&case.loss, ln_b, angle).unwrap(), out.row_losses[i], 1e-12);
        }
    }
}

/// Degrees: the published B, ε = 1 and p = .95.
#[test]
fn termination_angles_are_as_printed() {
    for (name, loss, gradient, probability) in [
        ("plain", plain(1.0, 1.0, 0.0, 0.0), "72.3048", "73.3818"),
        ("m2", plain(1.0, 1.0, 0.5, 0.0), "43.6570", "44.7339"),
        ("m0", plain(0.35, 1.0, 0.0, 0.0), "37.0237", "35.2023"),
        ("m1", plain(1.0, 1.35, 0.0, 0.0), "53.3482", "54.3569"),
        ("m3", plain(1.0, 1.0, 0.0, 0.35), "49.4322", "50.5064"),
    ] {
        let degrees = |criterion| termination_angle(&loss, published(), criterion).unwrap().unwrap().to_degrees();
        printed(name, degrees(Gradient(1.0)), gradient);
        printed(name, degrees(Probability(0.95)), probability);
        // no fallback is reached, so none matters
        let continued = loss.clone().with_margin(|m| m.fallback = Fallback::Continuous);
        let with = termination_angle(&continued, published(), Gradient(1.0)).unwrap().unwrap();
        close(name, with.to_degrees(), degrees(Gradient(1.0)), 1e-9);
    }
}

/// Below the angle nothing reaches the criterion, at it something does; `None` means nowhere. For every curve.
#[test]
fn the_termination_angle_is_the_smallest() {
    let mut rng = random(11);
    let mut found = [0, 0, 0]; // none, at 0, between
    for margin in every_margin() {
        let scale = pick(&mut rng, &[1.0, 8.0, 30.0, 64.0]);
        let ln_b = pick(&mut rng, &[-2.0, 1.0, 6.0, 15.0]);
        let all = [Gradient(1e-6), Gradient(0.1), Gradient(1.0), Gradient(20.0), Probability(0.1), Probability(0.95)];
        let criterion = pick(&mut rng, &all);
        let loss = loss_of(margin).with_scale(scale);
        let what = format!("{:?}, s {scale}, ln B {ln_b}, {criterion:?}", loss.target);
        // > 0 where the criterion is exceeded, relative to it
        let excess = |angle: f64| match criterion {
            Gradient(e) => gradient(&loss, ln_b, angle).unwrap() / e - 1.0,
            Probability(p) => 1.0 - probability(&loss, ln_b, angle).unwrap() / p,
        };
        let angle = termination_angle(&loss, ln_b, criterion).unwrap();
        let before = angle.unwrap_or(PI);
        for i in 0..if before > 0.0 { 400 } else { 0 } {
            let t = before * (f64::from(i) / 400.0);
            assert!(excess(t) < 1e-9, "{what}: {angle:?}, but {:e} at {t}", excess(t));
        }
        match angle {
            None => found[0] += 1,
            Some(0.0) => found[1] += 1,
            Some(t) => {
                found[2] += 1;
                assert!(excess(t) >= -1e-9 || excess(t.next_up().next_up()) >= -1e-9, "{what}: {:e} at {t}", excess(t));
            }
        }
    }
    assert!(found.iter().all(|&count| count > 10), "{found:?}");
}

/// Where m1 > 2 the largest gradient does not lie before π/2, and with `none` the pull comes back.
#[test]
fn a_steep_factor_terminates_early() {
    let loss = plain(1.0, 4.0, 0.0, 0.0);
    let angle = termination_angle(&loss, published(), Gradient(1.0)).unwrap().unwrap();
    let plain = termination_angle(&MarginSoftmax::normface(), published(), Probability(0.95)).unwrap().unwrap();
    let factor = termination_angle(&loss, published(), Probability(0.95)).unwrap().unwrap();
    relative("cos 4θ", 4.0 * factor, plain, 1e-12);
    assert!(angle < factor && gradient(&loss, published(), PI / 3.0).unwrap() < 0.0);
}

/// With published angle and B, with the exact ones, and what the paper's grid gives.
#[test]
fn optimal_margins_are_as_printed() {
    let exact = nearest_prototype_angle(CLASSES, DIM).unwrap() / 2.0;
    printed("t", exact.to_degrees(), "39.50098");
    let ln_b = ln_wrong_class_sum(CLASSES, DIM, 64.0).unwrap();
    for (t, ln_b, expected) in [
        (39.32_f64.to_radians(), published(), ".369681 1.866272 .594491 .487626"),
        (exact, ln_b, ".370025 1.858442 .591829 .486098"),
    ] {
        let OptimalMargin { m0, m1, m2, m3 } = optimal_margin(t, ln_b, 64.0, Probability(0.95)).unwrap();
        all_printed(t, &[m0, m1, m2, m3].map(Option::unwrap), expected);
    }
    let t = 39.32_f64.to_radians();
    for (loss, p, pull) in [
        (plain(0.35, 1.0, 0.0, 0.0), ".878", "1.74"),
        (plain(1.0, 1.85, 0.0, 0.0), ".974", "2.93"),
        (plain(1.0, 1.0, 0.6, 0.0), ".931", "4.22"),
        (plain(1.0, 1.0, 0.0, 0.5), ".896", "4.22"),
    ] {
        printed(p, probability(&loss, published(), t).unwrap(), p);
        printed(pull, gradient(&loss, published(), t).unwrap(), pull);
    }
}

/// With an optimal margin training terminates exactly there, by either criterion, in any setting.
#[test]
fn an_optimal_margin_moves_the_termination_angle_there() {
    let mut rng = random(5);
    let mut found = [0; 4];
    for _ in 0..2000 {
        let t = rng.random_range(0.05..1.5);
        let scale = 10_f64.powf(rng.random_range(0.5..2.5));
        let ln_b = rng.random_range(0.0..0.9) * scale;
        let criterion = if rng.random() {
            Probability(rng.random_range(0.05..0.999))
        } else {
            Gradient(scale * 10_f64.powf(rng.random_range(-8.0..0.8))) // beyond s for steep m1 only
        };
        let optimal = optimal_margin(t, ln_b, scale, criterion).unwrap();
        let losses = [
            optimal.m0.map(|m| plain(m, 1.0, 0.0, 0.0)),
            optimal.m1.map(|m| plain(1.0, m, 0.0, 0.0)),
            optimal.m2.map(|m| plain(1.0, 1.0, m, 0.0)),
            optimal.m3.map(|m| plain(1.0, 1.0, 0.0, m)),
        ];
        for (i, loss) in losses.into_iter().enumerate() {
            let Some(loss) = loss.map(|loss| loss.with_scale(scale)) else { continue };
            found[i] += 1;
            let what = format!("{:?}, s {scale}, ln B {ln_b}, {criterion:?}", loss.target);
            let angle = termination_angle(&loss, ln_b, criterion).unwrap().expect(&what);
            relative(what, angle, t, 1e-9);
        }
    }
    assert!(found.iter().all(|&count| count > 100), "{found:?}");
}

/// No margin of the family may do: plain softmax stops too soon already, or no angle has the probability.
#[test]
fn a_margin_that_does_not_exist_is_none() {
    let none = |half_angle: f64, ln_b, scale, criterion| {
        let OptimalMargin { m0, m1, m2, m3 } = optimal_margin(half_angle, ln_b, scale, criterion).unwrap();
        [m0, m1, m2, m3].map(|m| m.is_none())
    };
    // f > 1: only a larger amplitude or a negative m3
    assert_eq!(none(0.5, 8.0, 4.0, Probability(0.9)), [false, true, true, false]);
    // f < cos t would need m2 < 0
    assert_eq!(none(1.4, 40.0, 64.0, Probability(0.9)), [false, false, true, false]);
    // f < 0: no amplitude
    assert_eq!(none(0.5, -8.0, 64.0, Probability(0.9)), [true, false, false, false]);
    // a gradient beyond s sin t
    assert!(none(0.5, 2.0, 4.0, Gradient(4.0))[3]);
    assert_eq!(none(0.5, 2.0, 4.0, Gradient(1e9)), [true; 4]);
}

/// `none`, then the families' own fallback.
#[test]
fn collapse_losses_are_as_printed() {
    let found = |loss: &MarginSoftmax| collapse_loss(loss, CLASSES).unwrap();
    printed("plain", found(&plain(1.0, 1.0, 0.0, 0.0)), "11.3591");
    printed("m2", found(&plain(1.0, 1.0, 0.5, 0.0)), "3.55341");
    printed("m0 = .65", found(&plain(0.65, 1.0, 0.0, 0.0)) * 1e5, "1.6032");
    printed("m0 = .35", found(&plain(0.35, 1.0, 0.0, 0.0)) * 1e14, "7.354");
    printed("m1", found(&plain(1.0, 1.35, 0.0, 0.0)) * 1e11, "5.714");
    printed("m3", found(&plain(1.0, 1.0, 0.0, 0.5)), "43.3591");
    printed("m2, continuous", found(&MarginSoftmax::unified(1.0, 1.0, 0.5, 0.0)), "19.1938");
    printed("m1, continuous", found(&MarginSoftmax::unified(1.0, 1.35, 0.0, 0.0)), "31.4396");
    assert_eq!(collapse_loss(&MarginSoftmax::arcface(), 1).unwrap(), 0.0);
}

/// A batch in that state has that loss, whatever the curve and the others' transform.
#[test]
fn a_collapsed_batch_has_the_collapse_loss() {
    for margin in every_margin() {
        for others in &[Others::Identity, Others::Rectified] {
            let loss = loss_of(margin.clone()).with_others(others.clone()).with_scale(3.0);
            let prototypes = [0.0, 2.0].repeat(7);
            let case = Case::new(loss.clone(), 2, vec![0.0, -1.0, 0.0, -3.0], prototypes, vec![0, 5]);
            let expected = case.run().loss;
            relative(format_args!("{margin:?}"), collapse_loss(&loss, 7).unwrap(), expected, 1e-12);
        }
    }
}

/// W e^W = x, and mpmath's values.
#[test]
fn lambert_inverts_w_exp_w() {
    for (x, w) in [
        (-0.3678794, -0.9995269666077006),
        (-0.36, -0.8060843159708176),
        (-0.2, -0.25917110181907377),
        (-1e-10, -1.0000000001e-10),
        (0.0, 0.0),
        (1e-300, 1e-300),
        (0.5, 0.35173371124919584),
        (1.0, 0.5671432904097838),
        (2.0, 0.8526055020137255),
        (std::f64::consts::E, 1.0),
        (10.0, 1.7455280027406994),
        (1e5, 9.284571428622109),
        (1e100, 224.8431064451185),
        (1e308, 702.6413620341068),
        (-1.0 / std::f64::consts::E, -1.0),
    ] {
        relative(x, lambert_w0(x).unwrap(), w, 1e-15);
    }
    for i in -3000..3000 {
        let x = 10_f64.powf(f64::from(i) / 10.0);
        let w = lambert_w0(x).unwrap();
        close(x, w + w.ln(), x.ln(), 1e-15 * (2.0 + x.ln().abs())); // in logarithms: nothing overflows
    }
    // from the branch point up: w itself, from w
    for i in 1..2000 {
        let w = f64::from(i) / 1000.0 - 1.0;
        // x loses 1e-16, which is 1e-16/(1+w) in w
        close(w, lambert_w0(w * w.exp()).unwrap(), w, 4e-16 / (1.0 + w) + 1e-15 * w.abs());
    }
    assert!(lambert_w0(f64::MAX).unwrap().is_finite());
}

/// Section 5, and that it is where the pull is the steepest.
#[test]
fn arcgrad_scales_are_as_printed() {
    for (classes, product) in
        [(2, "1.278465"), (3, "1.463056"), (6, "1.814553"), (10, "2.101003"), (100, "3.628650"), (CLASSES, "9.248995")]
    {
        for margin in [0.1, 1.0, PI] {
            let s = arcgrad_scale(classes, margin).unwrap();
            printed(classes, s * margin, product);
            let pull = |s: f64| {
                let others = (classes - 1) as f64 * (-s * margin).exp();
                s * others / (1.0 + others)
            };
            assert!(pull(s) > pull(s * 1.001) && pull(s) > pull(s * 0.999), "{classes} {margin}");
            let next = (s * margin - 1.0) * (s * margin - 1.0).exp();
            relative(classes, next, (classes - 1) as f64 / std::f64::consts::E, 1e-13);
        }
    }
    // Iris: the angle at a given scale is the product over the scale
    let product = arcgrad_scale(3, 1.0).unwrap();
    printed("s = 1", product.to_degrees(), "83.83");
    printed("s = 40", (product / 40.0).to_degrees(), "2.096");
}

/// Section 5: s0.
#[test]
fn adacos_scales_are_as_printed() {
    for (classes, scale) in [
        (3, ".980258"),
        (10, "3.107345"),
        (100, "6.498481"),
        (1211, "10.038619"),
        (5994, "12.301321"),
        (10_572, "13.103919"),
        (CLASSES, "16.064174"),
    ] {
        printed(classes, adacos_scale(classes).unwrap(), scale);
    }
}

/// Refused as a parameter out of its range, in words.
#[track_caller]
fn refuses<T: std::fmt::Debug>(result: margin_softmax::Result<T>, name: &str, value: f64, range: &str) {
    let error = result.expect_err(name);
    let Error::Parameter { what, found, allowed } = error else { panic!("{error:?}") };
    assert!(what == name && allowed == range && (found == value || found.is_nan() && value.is_nan()), "{error:?}");
    assert_eq!(error.to_string(), format!("`{name}` is {value}, allowed is {range}"));
}

#[test]
fn counts_outside_their_ranges_are_refused() {
    let loss = MarginSoftmax::arcface();
    for classes in [0, 1, 2, 1 << 31, usize::MAX] {
        let value = classes as f64;
        refuses(adacos_scale(classes), "classes", value, "3 <= classes < 2^31");
        if classes != 2 {
            let range = "2 <= classes < 2^31";
            refuses(nearest_prototype_angle(classes, 8), "classes", value, range);
            refuses(closest_pair_asymptote(classes, 8), "classes", value, range);
            refuses(ln_wrong_class_sum(classes, 8, 1.0), "classes", value, range);
            refuses(ln_wrong_class_sum_published(classes, 8, 1.0), "classes", value, range);
            refuses(arcgrad_scale(classes, 1.0), "classes", value, range);
        }
        if !(1..=2).contains(&classes) {
            refuses(collapse_loss(&loss, classes), "classes", value, "1 <= classes < 2^31");
        }
    }
    for dim in [0, 1, 1 << 31, usize::MAX] {
        let (value, range) = (dim as f64, "2 <= dim < 2^31");
        refuses(nearest_prototype_angle(8, dim), "dim", value, range);
        refuses(closest_pair_asymptote(8, dim), "dim", value, range);
        refuses(ln_wrong_class_sum(8, dim, 1.0), "dim", value, range);
        refuses(ln_wrong_class_sum_published(8, dim, 1.0), "dim", value, range);
    }
}

#[test]
fn numbers_outside_their_ranges_are_refused() {
    let loss = MarginSoftmax::arcface();
    let endless = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    for value in endless {
        let range = "any finite number";
        refuses(row_loss(&loss, value, 1.0), "ln_b", value, range);
        refuses(probability(&loss, value, 1.0), "ln_b", value, range);
        refuses(gradient(&loss, value, 1.0), "ln_b", value, range);
        refuses(termination_angle(&loss, value, Gradient(1.0)), "ln_b", value, range);
        refuses(optimal_margin(1.0, value, 1.0, Gradient(1.0)), "ln_b", value, range);
    }
    for value in endless.into_iter().chain([-1e-300, PI.next_up(), 180.0]) {
        let range = "0 <= angle <= pi (radians)";
        refuses(row_loss(&loss, 1.0, value), "angle", value, range);
        refuses(probability(&loss, 1.0, value), "angle", value, range);
        refuses(gradient(&loss, 1.0, value), "angle", value, range);
    }
    for value in endless.into_iter().chain([0.0, -1.0, 1e6_f64.next_up()]) {
        let range = "0 < scale <= 1e6";
        refuses(ln_wrong_class_sum(8, 8, value), "scale", value, range);
        refuses(ln_wrong_class_sum_published(8, 8, value), "scale", value, range);
        refuses(optimal_margin(1.0, 1.0, value, Gradient(1.0)), "scale", value, range);
        refuses(row_loss(&loss.clone().with_scale(value), 1.0, 1.0), "scale", value, range);
    }
    for value in endless.into_iter().chain([0.0, -1.0, FRAC_PI_2, 39.5]) {
        let range = "0 < half_angle < pi/2 (radians)";
        refuses(optimal_margin(value, 1.0, 64.0, Probability(0.5)), "half_angle", value, range);
    }
    for value in endless.into_iter().chain([0.0, 9e-10, -1.0, 3.2, 84.0]) {
        refuses(arcgrad_scale(8, value), "margin", value, "1e-9 <= margin <= pi (radians)");
    }
    for value in endless.into_iter().chain([-0.4, -1.0, -0.367879441171443]) {
        refuses(lambert_w0(value), "x", value, "x >= -1/e");
    }
    for value in endless.into_iter().chain([0.0, -1.0]) {
        let (name, range) = ("criterion.gradient", "gradient > 0");
        refuses(termination_angle(&loss, 1.0, Gradient(value)), name, value, range);
        refuses(optimal_margin(1.0, 1.0, 64.0, Gradient(value)), name, value, range);
    }
    for value in endless.into_iter().chain([0.0, 1.0, -1.0, 95.0]) {
        let (name, range) = ("criterion.probability", "0 < probability < 1");
        refuses(termination_angle(&loss, 1.0, Probability(value)), name, value, range);
        refuses(optimal_margin(1.0, 1.0, 64.0, Probability(value)), name, value, range);
    }
}

#[test]
fn a_loss_outside_the_theory_is_refused() {
    let smooth = MarginSoftmax::arcface().with_label_smoothing(0.1);
    let broken = MarginSoftmax::unified(1.0, f64::NAN, 0.0, 0.0);
    let error = |loss: &MarginSoftmax| {
        let all = [
            row_loss(loss, 1.0, 1.0).unwrap_err(),
            probability(loss, 1.0, 1.0).unwrap_err(),
            gradient(loss, 1.0, 1.0).unwrap_err(),
            termination_angle(loss, 1.0, Gradient(1.0)).unwrap_err(),
            collapse_loss(loss, 8).unwrap_err(),
        ];
        assert!(all.windows(2).all(|e| e[0].to_string() == e[1].to_string()), "{all:?}");
        all[0].to_string()
    };
    assert_eq!(error(&smooth), "label_smoothing: the theory is that of one-hot targets, label_smoothing 0");
    assert_eq!(error(&broken), broken.validate().unwrap_err().to_string());
}

/// The ends of every range: a finite answer, no panic, no endless loop.
#[test]
fn extreme_arguments_have_finite_answers() {
    let counts = [2, 3, 65_536, 1_000_000_000, (1 << 31) - 1];
    let scales = [5e-324, 1e-9, 1.0, 64.0, 1e6];
    for classes in counts {
        for dim in counts {
            let angle = nearest_prototype_angle(classes, dim).unwrap();
            assert!(angle > 0.0 && angle <= FRAC_PI_2 + 1e-12, "{classes} {dim}: {angle}");
            assert!(closest_pair_asymptote(classes, dim).unwrap() > 0.0);
        }
        assert!(scales.iter().all(|&s| ln_wrong_class_sum_published(classes, 2, s).unwrap().is_finite()));
        assert!(arcgrad_scale(classes, 1e-9).unwrap().is_finite());
    }
    let margins = [unified(1e6, 16.0, 3.1, 1e6), unified(5e-324, 5e-324, 0.0, -1e6), unified(1.0, 1.0, 0.5, 0.0)];
    for scale in scales {
        assert!([2, (1 << 31) - 1].iter().all(|&dim| ln_wrong_class_sum(2, dim, scale).unwrap() >= 0.0));
        for ln_b in [-f64::MAX, -1e9, 0.0, 1e9, f64::MAX] {
            let criteria =
                [5e-324, 1.0, f64::MAX].map(Gradient).into_iter().chain([5e-324, 1.0_f64.next_down()].map(Probability));
            for criterion in criteria {
                for half_angle in [5e-324, 0.7, FRAC_PI_2.next_down()] {
                    let OptimalMargin { m0, m1, m2, m3 } = optimal_margin(half_angle, ln_b, scale, criterion).unwrap();
                    assert!([m0, m1, m2, m3].iter().flatten().all(|m| m.is_finite()));
                }
                for margin in &margins {
                    for fallback in [Fallback::Continuous, Fallback::Mirror, Fallback::None] {
                        let loss = loss_of(margin.clone()).with_scale(scale).with_margin(|m| m.fallback = fallback);
                        let angle = termination_angle(&loss, ln_b, criterion).unwrap();
                        assert!(angle.is_none_or(|t| (0.0..=PI).contains(&t)), "{loss:?} {ln_b}: {angle:?}");
                        for t in [0.0, 5e-324, 1.0, PI] {
                            assert!(
                                row_loss(&loss, ln_b, t).unwrap() >= 0.0
                                    && gradient(&loss, ln_b, t).unwrap().is_finite()
                            );
                            assert!((0.0..=1.0).contains(&probability(&loss, ln_b, t).unwrap()));
                        }
                    }
                }
            }
        }
    }
}

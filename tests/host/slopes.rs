//! Value and slope of every curve x fallback x combination of margins: derivative, jumps, ends.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2, PI};

use margin_softmax::objective::{Coefficients, Curve, Damping, Fallback, Series, Slope, Unified};

use crate::common::*;

/// cos(m1·θ + m2) or its series at x, by plain formulas.
fn plain(margin: &Unified, x: f64) -> f64 {
    match &margin.curve {
        Curve::Exact => (margin.m1 * x.acos() + margin.m2).cos(),
        Curve::Series(series) => {
            let c = series.coefficients(margin.m1, margin.m2);
            c.iter().enumerate().map(|(k, c)| c * (k as f64 * x.acos()).cos()).sum()
        }
    }
}

/// The list reaches every kind of curve and fallback.
#[test]
fn the_list_of_curves_is_long_enough() {
    let all = every_margin();
    assert!(all.len() >= 300, "{}", all.len());
    let beyond = all.iter().filter(|m| !kinks(m).is_empty()).count();
    assert!(beyond >= 150, "{beyond} with a kink");
    assert!(all.iter().any(|m| kinks(m).len() >= 6), "a mirror with many branches");
}

/// Away from the kinks, on both sides of every one of them.
#[test]
fn every_slope_is_the_derivative() {
    for margin in every_margin() {
        let kinks = kinks(&margin);
        for j in 1..120 {
            let x = (PI * f64::from(j) / 120.0).cos();
            // the derivatives grow like powers of 1/S², so the step shrinks with it
            let h = 1e-4 * (1.0 - x * x);
            if kinks.iter().any(|kink| (kink - x).abs() <= 2.0 * h) {
                continue;
            }
            let claimed = margin.value_slope(x).1;
            let measured = central_difference(|x| margin.value_slope(x).0, x, h);
            // rounding: values near 2·m1 with a few ulp over h, 1e-15/1e-8 at the outermost x; h⁴ times a fifth
            // derivative of at most 64⁵ · slope is below that
            close(format_args!("{margin:?} at {x}"), claimed, measured, 1e-6 * claimed.abs().max(1.0));
        }
    }
}

/// At each kink the slope agrees with one-sided differences of its own side.
#[test]
fn every_slope_is_the_one_sided_derivative_at_the_kinks() {
    for margin in every_margin() {
        for kink in kinks(&margin) {
            for side in [-1.0, 1.0] {
                // clip's kink near θ = 0 lies 5e-7 from the end, so the step shrinks with S² and with the period
                let waves = if margin.curve == Curve::Exact { margin.m1.max(1.0) } else { 64.0 };
                let h = side * 1e-3 * (1.0 - kink * kink) / waves;
                let x = kink + 1e-3 * h;
                let f = |steps: f64| margin.value_slope(x + steps * h).0;
                let measured =
                    (-25.0 * f(0.0) + 48.0 * f(1.0) - 36.0 * f(2.0) + 16.0 * f(3.0) - 3.0 * f(4.0)) / (12.0 * h);
                let claimed = margin.value_slope(x).1;
                // truncation h⁴ f⁽⁵⁾/5, f⁽⁵⁾ at most about 100·waves·(waves/S²)⁴/S: 2e-11·waves/S; rounding: ten
                // ulps of a value of up to 1 + 2·m1 branches, over h
                let tolerance = 2e-11 * waves / (1.0 - kink * kink).sqrt() + 5e-15 * (1.0 + 2.0 * margin.m1) / h.abs();
                close(format_args!("{margin:?} at {kink}, side {side}"), claimed, measured, tolerance);
            }
        }
    }
}

/// Value just above minus value just below: 0 for continuous, mirror, clip and none; the known steps for sine and easy.
/// A series keeps the fallback anchored at the exact curve, so its own error there joins the step.
#[test]
fn values_jump_only_where_they_are_said_to() {
    for margin in every_margin() {
        let Unified { m0, m1, m2, fallback, .. } = margin;
        for kink in kinks(&margin) {
            let near = 1e-9 * (1.0 - kink * kink);
            let jump = margin.value_slope(kink + near).0 - margin.value_slope(kink - near).0;
            let error = plain(&margin, kink) - (m1 * kink.acos() + m2).cos();
            let expected = match fallback {
                Fallback::Sine => -1.0 + m2.cos() + m2 * m2.sin() + error,
                Fallback::Easy => (m1 * PI / 2.0 + m2).cos() + error,
                Fallback::Continuous => error,
                // the branch changes sign: (−1)^(k−1)·p against (−1)^k·p − 2, k = u/π
                Fallback::Mirror => {
                    let k = ((m1 * kink.acos() + m2) / PI).round();
                    if k % 2.0 == 0.0 { -2.0 * error } else { 2.0 * error }
                }
                // above the kink of angle e lies the clipped part, above that of π − e the curve
                Fallback::Clip(_) if m1 * kink.acos() + m2 < PI / 2.0 => -error,
                Fallback::Clip(_) => error,
                _ => 0.0,
            };
            // twice 1e-9·S² times a slope of at most 1e4·m0·m1 near the ends, 100 elsewhere
            close(format_args!("{margin:?} at {kink}"), jump, m0 * expected, 2e-7);
        }
    }
}

/// x* itself belongs to the fallback on the exact curve (strictly above, as wespeaker), to the series in series mode;
/// the 0 of `easy` to the straight part.
#[test]
fn the_threshold_belongs_to_one_side() {
    for (m1, m2) in [(1.0, 0.2), (1.0, 0.5), (1.35, 0.3), (2.0, 0.0)] {
        let exact = unified(1.0, m1, m2, 0.0);
        let threshold = exact.threshold().unwrap();
        assert_eq!(exact.value_slope(threshold), (-1.0, 1.0));
        let above = exact.value_slope(threshold.next_up()).1;
        assert!(above < 0.9, "{above}"); // ψ'(x*) is 0 from above
        let curve = Curve::Series(series(30, Damping::Jackson));
        let series = Unified { curve, ..exact.clone() };
        close(m2, series.value_slope(threshold).0, plain(&series, threshold), 1e-13);
        assert_eq!(series.value_slope(threshold.next_down()), exact.value_slope(threshold.next_down()));
        let easy = Unified { fallback: Fallback::Easy, ..unified(1.0, 1.0, m2, 0.0) };
        assert_eq!(easy.value_slope(0.0), (0.0, 1.0));
    }
}

/// cos(m1·θ + m2) and its slope at x, for whole m1 and m2 of 0 or π/2: T_m(x) or −sin θ·U_{m−1}(x).
fn polynomial(m1: f64, m2: f64, x: f64) -> (f64, f64) {
    let (x2, s) = (x * x, ((1.0 - x) * (1.0 + x)).sqrt());
    let (t, t_slope, u, u_slope) = match m1 {
        1.0 => (x, 1.0, 1.0, 0.0),
        2.0 => (2.0 * x2 - 1.0, 4.0 * x, 2.0 * x, 2.0),
        3.0 => ((4.0 * x2 - 3.0) * x, 12.0 * x2 - 3.0, 4.0 * x2 - 1.0, 8.0 * x),
        4.0 => (8.0 * x2 * (x2 - 1.0) + 1.0, (32.0 * x2 - 16.0) * x, (8.0 * x2 - 4.0) * x, 24.0 * x2 - 4.0),
        _ => unreachable!(),
    };
    if m2 == 0.0 { (t, t_slope) } else { (-s * u, u * x / s.max(1e-4) - s * u_slope) }
}

/// Margins, and every cosine where the angle reaches another multiple of π.
fn exact_multiples() -> Vec<(f64, f64, Vec<f64>)> {
    let [a, b, c] = [0.75_f64.sqrt(), (PI / 8.0).cos(), (PI / 8.0).sin()];
    let h = FRAC_1_SQRT_2;
    vec![
        (1.0, 0.0, vec![]),
        (2.0, 0.0, vec![0.0]),
        (3.0, 0.0, vec![0.5, -0.5]),
        (4.0, 0.0, vec![h, 0.0, -h]),
        (1.0, FRAC_PI_2, vec![0.0]),
        (2.0, FRAC_PI_2, vec![h, -h]),
        (3.0, FRAC_PI_2, vec![a, 0.0, -a]),
        (4.0, FRAC_PI_2, vec![b, c, -c, -b]),
    ]
}

/// Where the threshold is a simple number it is that number, and every fallback begins exactly there: with the value and
/// the slope of its formula at it, and on both sides of it.
#[test]
fn thresholds_at_exact_multiples_are_exact() {
    for (m1, m2, crossings) in exact_multiples() {
        let exact = unified(1.0, m1, m2, 0.0);
        assert_eq!(exact.threshold(), crossings.first().copied(), "{m1} {m2}");
        for fallback in FALLBACKS {
            let margin = Unified { fallback, ..exact.clone() };
            let refused = match fallback {
                Fallback::Sine => m1 != 1.0,
                Fallback::Easy => crossings.first().is_some_and(|&t| t > 0.0),
                _ => false,
            };
            assert_eq!(loss_of(margin.clone()).validate().is_err(), refused, "{margin:?}");
            let simple = crossings.iter().filter(|t| [0.0, 0.5, -0.5].contains(*t));
            let near = simple.flat_map(|t| [*t, t.next_up(), t.next_down()]);
            let sides = crossings.iter().flat_map(|t| [t + 1e-9, t - 1e-9]);
            let ends = [0.0, -0.0, 0.5, -0.5, 0.3, -0.3, 1.0, -1.0];
            for x in near.chain(sides).chain(ends).chain(exact.threshold()) {
                if refused {
                    continue;
                }
                let (value, slope) = polynomial(m1, m2, x);
                let passed = crossings.iter().filter(|&&t| x <= t).count();
                let linear = m1 == 1.0 && m2 == 0.0;
                let (value, slope) = match fallback {
                    Fallback::Continuous if passed > 0 => (x - crossings[0] - 1.0, 1.0),
                    Fallback::Sine if passed > 0 => (x - FRAC_PI_2, 1.0),
                    Fallback::Easy if x <= 0.0 => (x, 1.0),
                    Fallback::Mirror if passed % 2 == 1 => (-value - 2.0 * passed as f64, -slope),
                    Fallback::Mirror => (value - 2.0 * passed as f64, slope),
                    Fallback::Clip(e) if passed > 0 || !linear && value < -e.cos() => (-e.cos(), 0.0),
                    Fallback::Clip(e) if !linear && value > e.cos() => (e.cos(), 0.0),
                    _ => (value, slope),
                };
                let (v, s) = margin.value_slope(x);
                close(format_args!("{margin:?} at {x}"), v, value, 1e-14);
                // at the ends the rounding of m1·π + m2, up to 2e-15, is divided by 1e-4
                let tolerance = if x.abs() < 1.0 { 1e-13 * slope.abs().max(10.0) } else { 1e-10 + 1e-13 * slope.abs() };
                close(format_args!("{margin:?}: slope at {x}"), s, slope, tolerance);
            }
        }
    }
    // no threshold where the angle ends at π exactly
    assert_eq!(unified(1.0, 0.5, FRAC_PI_2, 0.0).threshold(), None);
    assert_eq!(unified(1.0, 1.5, 0.0, 0.0).threshold(), Some(-0.5));
    // and a side for every margin next to such a multiple
    for (m1, m2) in [(2.0, 0.0), (1.0, FRAC_PI_2), (1.5, FRAC_PI_2 / 2.0)] {
        let easy = |m1: f64, m2: f64| {
            loss_of(Unified { fallback: Fallback::Easy, ..unified(1.0, m1, m2, 0.0) }).validate().is_ok()
        };
        let more = m2.next_up().max(f64::MIN_POSITIVE);
        assert!(easy(m1, m2) && !easy(m1, more) && !easy(m1.next_up(), m2), "{m1} {m2}");
        assert!(easy(m1.next_down(), m2) && (m2 == 0.0 || easy(m1, m2.next_down())), "{m1} {m2}");
    }
}

/// The branch of the mirror is counted by cosines: with a constant in the place of the curve every step shows. A series
/// holds at the crossing itself.
#[test]
fn branches_begin_exactly_at_multiples_of_pi() {
    let given = Coefficients::Given(vec![0.25, 0.0]);
    let curve = Curve::Series(Series { degree: 1, coefficients: given, damping: Damping::None });
    for (m1, m2, crossings) in exact_multiples().into_iter().skip(1) {
        let margin = Unified { curve: curve.clone(), fallback: Fallback::Mirror, ..unified(1.0, m1, m2, 0.0) };
        let simple = crossings.iter().filter(|t| [0.0, 0.5, -0.5].contains(*t));
        let near = simple.flat_map(|t| [*t, t.next_up(), t.next_down()]);
        let sides = crossings.iter().flat_map(|t| [t + 1e-9, t - 1e-9]);
        for x in near.chain(sides).chain([-0.0, 1.0, -1.0, -1.0 - 1e-7]) {
            let passed = crossings.iter().filter(|&&t| x < t).count();
            let expected = if passed % 2 == 0 { 0.25 } else { -0.25 } - 2.0 * passed as f64;
            assert_eq!(margin.value_slope(x), (expected, 0.0), "{margin:?} at {x}");
        }
    }
}

/// The mirror continues slope as well as value: both sides of x* have slope 0.
#[test]
fn the_mirror_has_no_kink() {
    for margin in every_margin().iter().filter(|m| m.fallback == Fallback::Mirror && m.curve == Curve::Exact) {
        for kink in kinks(margin) {
            for x in [kink.next_down(), kink, kink.next_up()] {
                // an ulp of x moves the angle by m1 · 1e-16/S, and the slope is m0·m1·sin u/S
                let tolerance = 2e-15 * margin.m0 * margin.m1.powi(2) / (1.0 - x * x);
                close(format_args!("{margin:?} at {x}"), margin.value_slope(x).1, 0.0, tolerance);
            }
        }
    }
}

/// ψ of SphereFace falls with the angle all the way, so no target is ever pushed away.
#[test]
fn mirror_and_continuous_are_monotone() {
    for margin in every_margin() {
        let straight = kinks(&margin).is_empty() && margin.m2 == 0.0 && margin.m1 == 1.0;
        let monotone =
            matches!(margin.fallback, Fallback::Mirror | Fallback::Continuous) && margin.curve == Curve::Exact;
        if straight || monotone {
            for j in 0..=2000 {
                let slope = margin.value_slope((PI * f64::from(j) / 2000.0).cos()).1;
                assert!(slope >= -1e-12 * margin.m0 * margin.m1.powi(2), "{margin:?} at {j}: {slope}");
            }
        }
    }
}

/// Detached: the forward value is that of the family, the slope is 1 whatever the family, its fallback and its curve.
#[test]
fn a_detached_slope_is_one() {
    for margin in every_margin() {
        let detached = Unified { slope: Slope::Detached, ..margin.clone() };
        for j in 0..=50 {
            let x = (PI * f64::from(j) / 50.0).cos();
            assert_eq!(detached.value_slope(x), (margin.value_slope(x).0, 1.0), "{detached:?} at {x}");
        }
        assert!([1.0 + 1e-7, -1.0 - 1e-7].iter().all(|&x| detached.value_slope(x).1 == 1.0));
    }
}

/// At ±1 and where a cosine rounds past them: finite, bounded by the smallest sine, and the same as at the end itself.
#[test]
fn values_and_slopes_are_finite_at_and_past_the_ends() {
    for margin in every_margin() {
        let Unified { m0, m1, .. } = margin;
        for end in [1.0, -1.0] {
            let (value, slope) = margin.value_slope(end);
            let most = match margin.curve {
                Curve::Exact => m0 * m1 * (1e4 + m1), // sin κ/S_c and cos κ·m1
                Curve::Series(_) => m0 * 64.0 * 64.0, // Markov's inequality for |p| ≤ 1
            };
            assert!(value.is_finite() && slope.abs() <= most, "{margin:?} at {end}: {value} {slope}");
            for past in [end * (1.0 + 1e-7), end * (1.0 + 1e-16), end * (1.0 - 1e-16)] {
                let (value_past, slope_past) = margin.value_slope(past);
                // a straight part moves by 1e-7 · slope; the series by that and its second derivative (n⁴/3 at n = 64)
                let tolerance = 1e-7 * (slope.abs().min(64.0 * 64.0) + 1.0) + 1e-7;
                close(format_args!("{margin:?} at {past}"), value_past, value, tolerance);
                let bend = if margin.curve == Curve::Exact { 1e-3 * slope.abs() + 1e-3 } else { 1e-7 * 6e6 };
                close(format_args!("{margin:?}: slope at {past}"), slope_past, slope, bend);
            }
        }
    }
}

/// Capping sin θ in the slope leaves no step where the cap begins (S = 1e-4), and never touches the value.
#[test]
fn the_cap_of_the_slope_is_continuous() {
    for margin in every_margin().iter().filter(|m| m.curve == Curve::Exact && matches!(m.fallback, Fallback::None)) {
        for end in [1.0, -1.0] {
            let at = |sine: f64| margin.value_slope(end * (1.0 - sine * sine / 2.0));
            let (outside, inside) = (at(1.0001e-4), at(0.9999e-4));
            close(format_args!("{margin:?}"), inside.1, outside.1, 2e-4 * outside.1.abs() + 1e-6);
            // d value/dθ is at most m0·m1, θ moves by 2e-8
            close(format_args!("{margin:?}"), inside.0, outside.0, 3e-8 * margin.m0 * margin.m1);
        }
    }
}

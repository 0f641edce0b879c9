//! The Chebyshev series: coefficients against integrals and least squares, evaluation against plain sums.

use std::f64::consts::PI;

use margin_softmax::{
    MarginSoftmax,
    objective::chebyshev::{MAX_DEGREE, closed, fit, value_slope},
    objective::{Coefficients, Damping, Fallback, Series},
};

use crate::common::*;

const DAMPINGS: [Damping; 3] = [Damping::None, Damping::Jackson, Damping::Lanczos];

/// Integers, neighbours of integers on both sides, halves, and the ones in use.
const FACTORS: [f64; 12] = [0.0, 1e-9, 0.5, 1.0, 1.0 + 1e-7, 1.35, 1.7, 2.0 - 1e-5, 2.0, 2.0 + 1e-9, 6.0, 16.0];

/// ∫ f by Simpson's rule, halving wherever two halves disagree with the whole.
fn integral(f: &dyn Fn(f64) -> f64, a: f64, b: f64, tolerance: f64) -> f64 {
    let (middle, simpson) = (0.5 * (a + b), |a: f64, b: f64| (b - a) / 6.0 * (f(a) + 4.0 * f(0.5 * (a + b)) + f(b)));
    let (whole, halves) = (simpson(a, b), simpson(a, middle) + simpson(middle, b));
    if (halves - whole).abs() < 15.0 * tolerance {
        return halves + (halves - whole) / 15.0;
    }
    integral(f, a, middle, tolerance / 2.0) + integral(f, middle, b, tolerance / 2.0)
}

/// c_k = (2/π) ∫ cos(aθ + b) cos kθ dθ, half of it for k = 0.
#[test]
fn the_closed_form_is_the_projection() {
    for a in FACTORS {
        for b in [0.0, 0.2, 0.5, 1.5, 3.0] {
            let c = closed(a, b, 12);
            for (k, &c) in c.iter().enumerate() {
                let k = k as f64;
                let curve = |angle: f64| (a * angle + b).cos() * (k * angle).cos();
                // 40 pieces first, so that no period is overlooked
                let edge = |piece: f64| PI * piece / 40.0;
                let area: f64 = (0..40).map(f64::from).map(|p| integral(&curve, edge(p), edge(p + 1.0), 1e-15)).sum();
                let expected = area / if k == 0.0 { PI } else { PI / 2.0 };
                // the integrals' 40 · 1e-15, and rounding of as many sums of size 1
                close(format_args!("a = {a}, b = {b}, c{k}"), c, expected, 1e-13);
            }
        }
    }
}

/// Nothing happens to the coefficients when a crosses an integer: they move by about |Δa|.
#[test]
fn the_closed_form_is_smooth_across_integers() {
    for a in [1.0, 2.0, 6.0] {
        for step in [1e-3, 1e-6, 1e-9, 1e-12, 1e-15] {
            let (at, near) = (closed(a, 0.3, 30), closed(a + step, 0.3, 30));
            all_close(format_args!("{a} + {step}"), &near, &at, 2.0 * step + 1e-14); // |∂c/∂a| ≤ (2/π)∫θ dθ/2 < 2
        }
    }
}

/// Every coefficient is linear in (cos b, sin b), damped or not: a new margin needs no new fit.
#[test]
fn coefficients_are_linear_in_the_margin() {
    for (coefficients, damping) in
        [Coefficients::Closed, Coefficients::Fit].iter().flat_map(|c| DAMPINGS.map(|d| (c, d)))
    {
        let series = Series { coefficients: coefficients.clone(), ..series(30, damping) };
        let (even, odd) = (series.coefficients(1.35, 0.0), series.coefficients(1.35, PI / 2.0));
        for b in [0.2_f64, 0.5, 1.5] {
            let mixed: Vec<f64> = even.iter().zip(&odd).map(|(e, o)| b.cos() * e + b.sin() * o).collect();
            all_close(b, &series.coefficients(1.35, b), &mixed, 1e-14); // the fit's sums of 1,000 terms
        }
    }
}

/// Least squares by Gram-Schmidt, twice for orthogonality to the last digit, then back substitution.
fn least_squares(mut columns: Vec<Vec<f64>>, mut rest: Vec<f64>) -> Vec<f64> {
    let n = columns.len();
    let mut r = vec![vec![0.0; n + 1]; n];
    let project = |q: &[f64], v: &mut [f64]| {
        let share = dot(q, v);
        v.iter_mut().zip(q).for_each(|(v, q)| *v -= share * q);
        share
    };
    for k in 0..n {
        let mut v = std::mem::take(&mut columns[k]);
        for _ in 0..2 {
            (0..k).for_each(|j| r[j][k] += project(&columns[j], &mut v));
        }
        r[k][k] = length(&v);
        v.iter_mut().for_each(|x| *x /= r[k][k]);
        r[k][n] = project(&v, &mut rest);
        columns[k] = v;
    }
    let mut solution = vec![0.0; n];
    for k in (0..n).rev() {
        solution[k] = (r[k][n] - dot(&r[k][k + 1..n], &solution[k + 1..])) / r[k][k];
    }
    solution
}

/// The 1,000 extrema, equal weights, no structure used. Tolerance: 1,000-term dots of a problem with condition number
/// 2.
#[test]
fn the_fit_is_the_least_squares_solution() {
    let node = |j: usize| PI * j as f64 / 999.0;
    for degree in [1, 2, 9, 30, 64] {
        for (a, b) in [(1.0, 0.2), (1.0, 0.5), (1.35, 0.3), (2.0, 0.0), (6.0, 1.5)] {
            let column = |k: usize| (0..1000).map(|j| (k as f64 * node(j)).cos()).collect();
            let values = (0..1000).map(|j| (a * node(j) + b).cos()).collect();
            let expected = least_squares((0..=degree).map(column).collect(), values);
            let found = fit(|x| (a * x.acos() + b).cos(), degree);
            all_close(format_args!("a = {a}, b = {b}, n = {degree}"), &found, &expected, 1e-12);
        }
    }
}

/// Σ c_k T_k = Σ c_k cos kθ, and its derivative Σ k c_k U_{k−1} = Σ k c_k sin kθ / sin θ.
#[test]
fn clenshaw_is_the_plain_sum() {
    let mut rng = random(1);
    for degree in (0..=16).chain([29, 30, 31, 63, 64]) {
        let c = uniform(&mut rng, degree + 1);
        let sum = |term: &dyn Fn(f64) -> f64| -> f64 { c.iter().enumerate().map(|(k, c)| c * term(k as f64)).sum() };
        // a unit in the last place of x moves T_k by k², its derivative by about k³/S (k⁴ at the ends)
        let (n, ulp) = (degree as f64 + 1.0, 4.0 * f64::EPSILON);
        for j in 1..400 {
            let angle = PI * f64::from(j) / 400.0;
            let (value, slope) = value_slope(&c, angle.cos());
            close(format_args!("n = {degree}, {angle}"), value, sum(&|k| (k * angle).cos()), ulp * n.powi(2));
            let expected = sum(&|k| k * (k * angle).sin() / angle.sin());
            close(format_args!("n = {degree}, slope, {angle}"), slope, expected, ulp * n.powi(3) / angle.sin());
        }
        for end in [1.0_f64, -1.0] {
            let (value, slope) = value_slope(&c, end);
            close(degree, value, sum(&|k| end.powi(k as i32)), ulp * n.powi(2));
            close(degree, slope, sum(&|k| k * k * end.powi(k as i32 + 1)), ulp * n.powi(3));
            // a cosine that rounded past the end: the polynomial goes on, here its first two terms
            let (past, bend) = (value_slope(&c, end * (1.0 + 1e-7)).0, n.powi(5) * 1e-14);
            close(format_args!("n = {degree} past {end}"), past, value + slope * end * 1e-7, bend + ulp * n.powi(2));
        }
    }
}

/// An empty series is zero: a public function has no panic.
#[test]
fn an_empty_series_is_zero() {
    assert_eq!(value_slope(&[], 0.5), (0.0, 0.0));
}

/// Jackson's factors are the autocorrelation of a sine arch (the largest g_1 of all positive kernels); Lanczos' are
/// sinc.
#[test]
fn damping_factors_are_their_kernels() {
    for degree in [1, 2, 9, 30, MAX_DEGREE] {
        let factors = |damping| {
            let coefficients = Coefficients::Given(vec![1.0; degree + 1]);
            Series { degree, coefficients, damping }.coefficients(1.0, 0.0)
        };
        let n = degree + 1;
        let arch: Vec<f64> = (1..=n).map(|v| (PI * v as f64 / (n as f64 + 1.0)).sin()).collect();
        let overlap = |k: usize| dot(&arch[..n - k], &arch[k..]);
        let jackson: Vec<f64> = (0..n).map(|k| overlap(k) / overlap(0)).collect();
        all_close("jackson", &factors(Damping::Jackson), &jackson, 1e-13); // sums of up to 65 terms, times cot(π/66)
        let t = |k: usize| PI * k as f64 / n as f64;
        let lanczos: Vec<f64> = (0..n).map(|k| if k == 0 { 1.0 } else { t(k).sin() / t(k) }).collect();
        all_close("lanczos", &factors(Damping::Lanczos), &lanczos, 1e-15);
        assert_eq!(factors(Damping::None), vec![1.0; n]);
    }
}

/// Damping acts on the coefficients wherever they come from, and on nothing else.
#[test]
fn damping_multiplies_every_kind_of_coefficients() {
    let given = Coefficients::Given(uniform(&mut random(2), 31));
    for coefficients in [Coefficients::Closed, Coefficients::Fit, given] {
        let of = |damping| Series { coefficients: coefficients.clone(), ..series(30, damping) }.coefficients(1.35, 0.2);
        for damping in DAMPINGS {
            let ones = Series { coefficients: Coefficients::Given(vec![1.0; 31]), ..series(30, damping) };
            let product: Vec<f64> =
                of(Damping::None).iter().zip(ones.coefficients(1.0, 0.0)).map(|(c, g)| c * g).collect();
            all_close(format_args!("{damping:?}"), &of(damping), &product, 1e-15);
        }
    }
}

/// The least slope of the series of cos(m1·θ + m2) above the threshold, both ends included.
fn least_slope(degree: usize, damping: Damping, m1: f64, m2: f64) -> f64 {
    let (c, last) = (series(degree, damping).coefficients(m1, m2), ((PI - m2) / m1).min(PI));
    (0..=1000).map(|j| value_slope(&c, (last * f64::from(j) / 1000.0).cos()).1).fold(f64::INFINITY, f64::min)
}

/// Jackson at n = 30 never pulls the wrong way.
#[test]
fn jackson_is_monotone_above_the_threshold() {
    for step in 1..=30 {
        let m = 0.05 * f64::from(step);
        let least = least_slope(30, Damping::Jackson, 1.0, m);
        assert!(least > 0.0, "m = {m}: {least}");
    }
}

/// Over all degrees: Jackson's worst slope is −1.2e-4, the other two fail for about half of all (n, m), down
/// to −.18 and −.026. Printed with two digits; the grid is ours, so a tenth of slack.
#[test]
fn only_jackson_is_nearly_monotone_at_every_degree() {
    let grid = || (8..=64).flat_map(|n| (1..=15).map(move |step| (n, 0.1 * f64::from(step))));
    for (damping, worst, share) in [
        (Damping::None, -0.18, 0.35..0.65),
        (Damping::Lanczos, -0.026, 0.35..0.65),
        (Damping::Jackson, -1.2e-4, 0.0..1.0),
    ] {
        let slopes: Vec<f64> = grid().map(|(n, m)| least_slope(n, damping, 1.0, m)).collect();
        let least = slopes.iter().fold(0.0, |a: f64, &b| a.min(b));
        let failing = slopes.iter().filter(|&&s| s < 0.0).count() as f64 / slopes.len() as f64;
        close(format_args!("{damping:?}: least slope"), least, worst, 0.1 * worst.abs());
        assert!(share.contains(&failing), "{damping:?}: {failing}");
    }
    let curves = || [1.0, 1.35, 1.7, 2.0, 2.5, 3.0].into_iter().flat_map(|m1| [0.0, 0.2, 0.5].map(|m2| (m1, m2)));
    let least = |n: usize| curves().map(|(m1, m2)| least_slope(n, Damping::Jackson, m1, m2)).fold(0.0, f64::min);
    assert!(least(30) > -2.5e-4, "n = 30: {}", least(30));
    assert!((8..=64).all(|n| least(n) > -6.5e-3), "m1 <= 3");
}

/// The straight lines are exact polynomials already: series and damping leave them as they are.
#[test]
fn a_series_leaves_straight_lines_alone() {
    for curve in curves() {
        for loss in [MarginSoftmax::normface(), MarginSoftmax::cosface(), MarginSoftmax::ampface()] {
            for fallback in
                [Fallback::Continuous, Fallback::Easy, Fallback::Clip(0.3), Fallback::Mirror, Fallback::Sine]
            {
                let other = loss.clone().with_margin(|m| (m.curve, m.fallback) = (curve.clone(), fallback));
                for x in [-1.0 - 1e-7, -1.0, -0.5, 0.0, 0.3, 1.0, 1.0 + 1e-7] {
                    assert_eq!(other.target_value_slope(x), loss.target_value_slope(x), "{other:?} at {x}");
                }
            }
        }
    }
}

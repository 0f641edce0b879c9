//! The special functions that the theory needs, each with its error in f64.

use std::f64::consts::{E, FRAC_PI_2, PI};

use super::range;
use crate::Result;

/// −1/e, rounded down: 1.2e-17 below the branch point, whose value W₀ = −1 it gets.
const BRANCH: f64 = -0.367_879_441_171_442_33;
/// The difference between e and `E`.
const E_REST: f64 = 1.445_646_891_729_250_1e-16;

/// Lambert's W₀(x), the w ≥ −1 with w·eʷ = x, for x ≥ −1/e.
///
/// Relative error a few times 1e-16, at the branch point −1/e too; Halley's iteration, at most six steps.
pub fn lambert_w0(x: f64) -> Result<f64> {
    range("x", x, x >= BRANCH, "x >= -1/e")?;
    // 1 + e·x without cancellation: the distance to the branch point, and W's expansion parameter there
    let p = (2.0 * (x.mul_add(E, 1.0) + x * E_REST)).max(0.0).sqrt();
    const BRANCH_SERIES: [f64; 7] =
        [-1.0, 1.0, -1.0 / 3.0, 11.0 / 72.0, -43.0 / 540.0, 769.0 / 17_280.0, -221.0 / 8_505.0];
    let near_branch = BRANCH_SERIES.iter().rev().fold(0.0, |sum, c| sum * p + c);
    if p < 0.01 {
        return Ok(near_branch); // the next term is below p⁷/60
    }
    let mut w = match x {
        x if x < -0.2 => near_branch,
        x if x < E => x.ln_1p() * 0.8, // 0 stays 0, and the error is below 0.3
        x => x.ln() - x.ln().ln(),
    };
    for _ in 0..8 {
        // Halley's step for f = w − x·e⁻ʷ, which overflows nowhere
        let rest = x * (-w).exp();
        let (f, slope) = (w - rest, 1.0 + rest);
        let step = f / (slope + f * rest / (2.0 * slope));
        w -= step;
        if step.abs() <= 1e-16 * w.abs() {
            break;
        }
    }
    Ok(w)
}

/// ln Γ(x) for x > 0, to 1e-15 of max(1, |ln Γ|): Stirling's series from 12 on.
pub(super) fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 1.0);
    while x < 12.0 {
        below *= x;
        x += 1.0;
    }
    const SERIES: [f64; 6] = [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0];
    let tail = SERIES.iter().rev().fold(0.0, |sum, c| sum / (x * x) + c) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + tail - below.ln()
}

/// ln Γ(a + ½) − ln Γ(a) for a > 0, to 1e-15: the difference of two `ln_gamma` would lose the precision of a large a.
pub(super) fn ln_gamma_half_step(a: f64) -> f64 {
    let (mut a, mut below) = (a, 1.0);
    while a < 16.0 {
        below *= a / (a + 0.5);
        a += 1.0;
    }
    const SERIES: [f64; 5] = [-1.0 / 8.0, 1.0 / 192.0, -1.0 / 640.0, 17.0 / 14_336.0, -31.0 / 18_432.0];
    let tail = SERIES.iter().rev().fold(0.0, |sum, c| sum / (a * a) + c) / a;
    0.5 * a.ln() + tail + below.ln()
}

/// The continued fraction of the incomplete beta function: I_x(a, b) = x^a (1−x)^b / (a B(a, b)) · fraction, for
/// x ≤ (a+1)/(a+b+2). Lentz's method; about √max(a, b) steps at the worst.
pub(super) fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let away = |v: f64| if v.abs() < 1e-300 { 1e-300 } else { v };
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let (mut c, mut fraction) = (1.0, d);
    for k in 1..1_000_000 {
        let k = f64::from(k);
        let even = k * (b - k) * x / ((a + 2.0 * k - 1.0) * (a + 2.0 * k));
        let odd = -(a + k) * (a + b + k) * x / ((a + 2.0 * k) * (a + 2.0 * k + 1.0));
        let mut factor = 1.0;
        for term in [even, odd] {
            d = 1.0 / away(1.0 + term * d);
            c = away(1.0 + term / c);
            factor = d * c;
            fraction *= factor;
        }
        if (factor - 1.0).abs() < 2e-16 {
            break;
        }
    }
    fraction
}

/// ln Σ zᵏ / ((b)ₖ (c)ₖ) for b, c > 0 and z ≥ 0: all terms are positive, so it loses nothing. About √z terms. With c = 1 it
/// is ln ₀F₁(; b; z).
pub(super) fn ln_positive_series(b: f64, c: f64, z: f64) -> f64 {
    // without the first term, which is 1: a small z keeps its precision
    let (mut term, mut rest, mut first, mut ln_unit, mut k) = (1.0, 0.0, 1.0, 0.0, 0.0);
    loop {
        term *= z / ((b + k) * (c + k));
        rest += term;
        k += 1.0;
        if term <= 1e-17 * (first + rest) {
            return ln_unit + if first == 1.0 { rest.ln_1p() } else { rest.ln() };
        }
        if rest > 1e200 {
            ln_unit += rest.ln();
            term /= rest;
            (rest, first) = (1.0, 0.0); // 1e-200 of it no longer counts
        }
    }
}

/// ∫ f from `from` to `to` by the tanh-sinh rule; the nodes double until two results agree to 1e-14.
pub(super) fn integrate(f: impl Fn(f64) -> f64, from: f64, to: f64) -> f64 {
    let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
    let node = |u: f64| {
        let s = FRAC_PI_2 * u.sinh();
        FRAC_PI_2 * u.cosh() / s.cosh().powi(2) * f(middle + half * s.tanh())
    };
    const END: f64 = 3.5; // the weights beyond sum to 1e-20
    let mut step = END / 8.0;
    let mut sum: f64 = (-8..=8).map(|k| node(f64::from(k) * step)).sum();
    let mut result = sum * step;
    for level in 0..8 {
        let between = 8 << level;
        step /= 2.0;
        sum += (-between..between).map(|k| node(f64::from(2 * k + 1) * step)).sum::<f64>();
        let last = std::mem::replace(&mut result, sum * step);
        if (result - last).abs() <= 1e-14 * result.abs() {
            break;
        }
    }
    half * result
}

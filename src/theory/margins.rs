//! The margin that stops training half way to the nearest other prototype.

use std::f64::consts::{FRAC_PI_2, PI};

use super::{
    Criterion, any_finite,
    pull::{ln_gradient, logit},
    range, scale_in_range,
    search::first_reached,
};
use crate::{Result, objective::softplus};

/// Four margins, each of which alone puts the termination angle where it should be; `None` where no value in the
/// family's range does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimalMargin {
    /// Amplitude (AmpFace), 0 < m0 ≤ 1e6.
    pub m0: Option<f64>,
    /// Angle factor (SphereFace), 0 < m1 ≤ 16.
    pub m1: Option<f64>,
    /// Angle margin in radians (ArcFace), 0 ≤ m2 < π.
    pub m2: Option<f64>,
    /// Cosine margin (CosFace), −1e6 ≤ m3 ≤ 1e6; negative where plain softmax already stops too soon.
    pub m3: Option<f64>,
}

/// The margins whose [`termination_angle`](super::termination_angle) is `half_angle`.
///
/// Meant for half of [`nearest_prototype_angle`](super::nearest_prototype_angle): an embedding nearer than that to its
/// prototype is nearer to it than to any other. With the probability p in closed form, φ = f = (ln B + ln(p/(1−p)))/s
/// at the angle t: m0 = f/cos t, m1 = arccos f / t, m2 = arccos f − t, m3 = cos t − f. With the gradient by search; of
/// two values with the same gradient the one with the higher probability.
///
/// 0 < `half_angle` < π/2 in radians, `ln_b` any finite number, 0 < `scale` ≤ 1e6.
pub fn optimal_margin(half_angle: f64, ln_b: f64, scale: f64, criterion: Criterion) -> Result<OptimalMargin> {
    let inside = half_angle > 0.0 && half_angle < FRAC_PI_2;
    let t = range("half_angle", half_angle, inside, "0 < half_angle < pi/2 (radians)")?;
    let (ln_b, scale) = (any_finite("ln_b", ln_b)?, scale_in_range(scale)?);
    criterion.validate()?;
    let found = match criterion {
        Criterion::Probability(p) => {
            let f = (ln_b + logit(p)) / scale;
            let angle = f.acos(); // NaN where |f| > 1: no angle has this probability
            [f / t.cos(), angle / t, angle - t, t.cos() - f].map(Some)
        }
        Criterion::Gradient(e) => {
            // towards the harder margin, until the pull reaches e
            let search = |from: f64, to: f64, value_fall: &dyn Fn(f64) -> (f64, f64)| {
                let points: Vec<f64> = (0..=2048).map(|i| from + (to - from) * (f64::from(i) / 2048.0)).collect();
                let excess = |at: f64| {
                    let (value, fall) = value_fall(at);
                    ln_gradient(ln_b, scale, value, fall) - e.ln()
                };
                first_reached(&points, excess).filter(|&at| at > from)
            };
            // m0 falls, on a logarithmic scale
            let m0 = search(-1e6_f64.ln(), 40.0, &|l| ((-l).exp() * t.cos(), (-l).exp() * t.sin())).map(|l| (-l).exp());
            let m1 = search(0.0, (PI / t).min(16.0), &|m1| ((m1 * t).cos(), m1 * (m1 * t).sin()));
            // where the gradient already falls with the angle, e was reached before t: dg/dθ = g · m1 · (P s sin u + cot u)
            let rises = |m1: f64| {
                let (sine, cosine) = (m1 * t).sin_cos();
                (-softplus(ln_b - scale * cosine)).exp() * scale * sine * sine + cosine >= 0.0
            };
            let m1 = m1.filter(|&m1| rises(m1));
            let m2 = search(0.0, PI, &|angle| (angle.cos(), angle.sin())).map(|angle| angle - t);
            // the slope is that of plain softmax, so 1 − P(y) is known; NaN where it would pass 1
            let m3 = Some(t.cos() - (ln_b - logit(e / (scale * t.sin()))) / scale);
            [m0, m1, m2, m3]
        }
    };
    let [m0, m1, m2, m3] = found;
    Ok(OptimalMargin {
        m0: m0.filter(|&m| m > 0.0 && m <= 1e6),
        m1: m1.filter(|&m| m > 0.0 && m <= 16.0),
        m2: m2.filter(|m| (0.0..PI).contains(m)),
        m3: m3.filter(|m| m.abs() <= 1e6),
    })
}

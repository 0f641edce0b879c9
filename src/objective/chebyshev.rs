//! Chebyshev series of `cos(aθ + b)` in `x = cos θ`: coefficients in closed form or by the authors' fit,
//! damping, and value and slope by one joint Clenshaw recurrence.
//!
//! Every coefficient is linear in `(cos b, sin b)`, so a new margin needs no new fit.

use std::f64::consts::PI;

use crate::{Error, Result, shape::check_length};

/// The highest degree that the shaders' settings have room for.
pub const MAX_DEGREE: usize = 64;

/// A Chebyshev series in place of the exact curve: bounded slope everywhere, no square root.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Series {
    /// The highest power, 1 ..= [`MAX_DEGREE`]; default 30, as in ChebyAAM.
    pub degree: usize,
    /// Where the coefficients come from; default closed form.
    pub coefficients: Coefficients,
    /// Factors on the coefficients that suppress ringing; default none, as in ChebyAAM.
    pub damping: Damping,
}

impl Default for Series {
    fn default() -> Self {
        Self { degree: 30, coefficients: Coefficients::Closed, damping: Damping::None }
    }
}

/// Where the coefficients of a [`Series`] come from.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Coefficients {
    /// The exact expansion, truncated.
    #[default]
    Closed,
    /// Least squares on 1,000 Chebyshev extrema: what the authors of ChebyAAM fit, to 1e-15.
    Fit,
    /// `degree + 1` values given by the caller, each within ±1e6: `ψ = Σ c_k T_k`, with `c_0` not halved.
    Given(Vec<f64>),
}

/// Factors `g_k` on the coefficients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Damping {
    /// All 1.
    #[default]
    None,
    /// Jackson's kernel: the only one whose slope keeps its sign above the threshold (degree 30, m ≤ 1.5).
    Jackson,
    /// Lanczos' σ factors.
    Lanczos,
}

impl Series {
    pub(crate) fn validate(&self) -> Result<()> {
        if !(1..=MAX_DEGREE).contains(&self.degree) {
            return Err(Error::Parameter { what: "series.degree", found: self.degree as f64, allowed: "1 ..= 64" });
        }
        if let Coefficients::Given(values) = &self.coefficients {
            check_length("series.coefficients.given", values.len(), self.degree + 1)?;
            if let Some(&found) = values.iter().find(|v| !(-1e6..=1e6).contains(*v)) {
                let allowed = "-1e6 <= c <= 1e6";
                return Err(Error::Parameter { what: "series.coefficients.given", found, allowed });
            }
        }
        Ok(())
    }

    /// The damped coefficients of `cos(aθ + b)`, `degree + 1` of them; `p = Σ c_k T_k` with `c_0` not halved.
    pub fn coefficients(&self, a: f64, b: f64) -> Vec<f64> {
        let mut c = match &self.coefficients {
            Coefficients::Closed => closed(a, b, self.degree),
            Coefficients::Fit => fit(|x| (a * x.acos() + b).cos(), self.degree),
            Coefficients::Given(values) => values.clone(),
        };
        self.damping.apply(&mut c);
        c
    }

    /// The derivatives by a of the damped coefficients of `cos(aθ + b)`; none where these do not follow a.
    pub(crate) fn slopes_by_factor(&self, a: f64, b: f64) -> Option<Vec<f64>> {
        (self.coefficients == Coefficients::Closed).then(|| {
            let mut c = closed_by_factor(a, b, self.degree);
            self.damping.apply(&mut c);
            c
        })
    }

    /// The damped coefficients of arccos x.
    pub fn arccos(&self) -> Vec<f64> {
        let mut c = match &self.coefficients {
            Coefficients::Closed => arccos(self.degree),
            Coefficients::Fit => fit(f64::acos, self.degree),
            Coefficients::Given(values) => values.clone(),
        };
        self.damping.apply(&mut c);
        c
    }

    /// The damped coefficients of `cos aθ` and of `sin aθ`: those of `cos(aθ + b)` are `cos b` times the first minus
    /// `sin b` times the second, whatever b is. Given coefficients stand in the first, for b = 0.
    pub(crate) fn basis(&self, a: f64) -> [Vec<f64>; 2] {
        let turned = match &self.coefficients {
            Coefficients::Given(values) => vec![0.0; values.len()],
            _ => self.coefficients(a, -PI / 2.0),
        };
        [self.coefficients(a, 0.0), turned]
    }
}

impl Damping {
    /// g_0 .. g_degree.
    pub(crate) fn factors(self, degree: usize) -> Vec<f64> {
        let n = (degree + 1) as f64;
        let factor = |k: usize| {
            let k = k as f64;
            match self {
                Damping::None => 1.0,
                Damping::Jackson => {
                    let step = PI / (n + 1.0);
                    ((n - k + 1.0) * (step * k).cos() + (step * k).sin() / step.tan()) / (n + 1.0)
                }
                Damping::Lanczos => sinc(k / n),
            }
        };
        (0..=degree).map(factor).collect()
    }

    fn apply(self, c: &mut [f64]) {
        let factors = self.factors(c.len().saturating_sub(1));
        c.iter_mut().zip(factors).for_each(|(c, g)| *c *= g);
    }
}

/// `sin(πt)/(πt)`.
fn sinc(t: f64) -> f64 {
    if t == 0.0 { 1.0 } else { (PI * t).sin() / (PI * t) }
}

/// The Chebyshev coefficients of `cos(aθ + b)` for any real a ≥ 0.
///
/// Written with `sinc` because the textbook quotient is 0/0 at integers and cancels near them.
pub fn closed(a: f64, b: f64, degree: usize) -> Vec<f64> {
    let coefficient = |k: usize| {
        let k = k as f64;
        let (delta, ratio) = (a - k, if a + k == 0.0 { 1.0 } else { a / (a + k) });
        let half = sinc(delta / 2.0);
        let c = 2.0 * ratio * (b.cos() * sinc(delta) - b.sin() * (PI * delta / 2.0) * half * half);
        if k == 0.0 { c / 2.0 } else { c }
    };
    (0..=degree).map(coefficient).collect()
}

/// The derivatives of [`closed`] by a.
fn closed_by_factor(a: f64, b: f64, degree: usize) -> Vec<f64> {
    let (sin, cos) = b.sin_cos();
    let coefficient = |k: usize| {
        let k = k as f64;
        let (delta, ratio) = (a - k, if a + k == 0.0 { 1.0 } else { a / (a + k) });
        let half = sinc(delta / 2.0);
        let [across, along] = [sinc(delta), (PI * delta / 2.0) * half * half];
        let [across_slope, along_slope] = sinc_slopes(delta);
        // a/(a + k) is 1 for k = 0 whatever a is
        let ratio_slope = if k == 0.0 { 0.0 } else { k / ((a + k) * (a + k)) };
        let c = 2.0 * (ratio_slope * (cos * across - sin * along) + ratio * (cos * across_slope - sin * along_slope));
        if k == 0.0 { c / 2.0 } else { c }
    };
    (0..=degree).map(coefficient).collect()
}

/// The derivatives of `sin(πt)/(πt)` and of `(1 − cos(πt))/(πt)`.
fn sinc_slopes(t: f64) -> [f64; 2] {
    let u = PI * t;
    if t.abs() < 0.02 {
        // the quotients below cancel here
        let z = u * u;
        let sine = u * (-1.0 / 3.0 + z * (1.0 / 30.0 + z * (-1.0 / 840.0 + z / 45360.0)));
        let cosine = 0.5 + z * (-1.0 / 8.0 + z * (1.0 / 144.0 + z * (-1.0 / 5760.0 + z / 403_200.0)));
        return [PI * sine, PI * cosine];
    }
    let (sin, cos) = u.sin_cos();
    [(cos - sin / u) / t, (sin - (1.0 - cos) / u) / t]
}

/// The Chebyshev coefficients of arccos x: π/2 and, for odd k, −(4/π)/k².
pub fn arccos(degree: usize) -> Vec<f64> {
    let coefficient = |k: usize| match k {
        0 => PI / 2.0,
        k if k % 2 == 1 => -4.0 / (PI * (k * k) as f64),
        _ => 0.0,
    };
    (0..=degree).map(coefficient).collect()
}

/// Unweighted least squares on the 1,000 Chebyshev extrema, solved in closed form.
///
/// The extrema make the normal equations diagonal but for one rank-one term per parity.
pub fn fit(f: impl Fn(f64) -> f64, degree: usize) -> Vec<f64> {
    const M: usize = 999;
    let weight = |k: usize| if k == 0 { M as f64 } else { M as f64 / 2.0 };
    let node = |j: usize| PI * j as f64 / M as f64;
    let values: Vec<f64> = (0..=M).map(|j| f(node(j).cos())).collect();
    let raw = |k: usize| {
        // the angle is reduced in integers: k·j·π/M loses precision for large k·j
        let sum: f64 = values.iter().enumerate().map(|(j, v)| v * node(k * j % (2 * M)).cos()).sum();
        sum / weight(k)
    };
    let mut c: Vec<f64> = (0..=degree).map(raw).collect();
    for parity in 0..2 {
        let same = || (parity..=degree).step_by(2);
        let sum: f64 = same().map(|k| c[k]).sum();
        let inverse: f64 = same().map(|k| 1.0 / weight(k)).sum();
        for k in same() {
            c[k] -= sum / (1.0 + inverse) / weight(k);
        }
    }
    c
}

/// `Σ c_k T_k(x)` and its derivative by one joint recurrence.
///
/// The even and the odd half each run in `y = T_2(x)`: half the steps, and half the rounding error near ±1.
pub fn value_slope(c: &[f64], x: f64) -> (f64, f64) {
    let y = 1.0 - 2.0 * (1.0 - x) * (1.0 + x);
    let (mut b1, mut b2, mut d1, mut d2) = (0.0, 0.0, 0.0, 0.0);
    for k in (1..c.len().div_ceil(2)).rev() {
        (b1, b2, d1, d2) = (c[2 * k] + 2.0 * y * b1 - b2, b1, 2.0 * b1 + 2.0 * y * d1 - d2, d1);
    }
    let even = (c.first().copied().unwrap_or(0.0) + y * b1 - b2, b1 + y * d1 - d2);
    (b1, b2, d1, d2) = (0.0, 0.0, 0.0, 0.0);
    for k in (0..c.len() / 2).rev() {
        (b1, b2, d1, d2) = (c[2 * k + 1] + 2.0 * y * b1 - b2, b1, 2.0 * b1 + 2.0 * y * d1 - d2, d1);
    }
    let odd = (b1 - b2, d1 - d2);
    (even.0 + x * odd.0, 4.0 * x * even.1 + odd.0 + 4.0 * x * x * odd.1)
}

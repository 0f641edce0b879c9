//! Scales that follow from the number of classes.

use std::f64::consts::{E, PI, SQRT_2};

use super::{lambert_w0, other_classes, range};
use crate::Result;

/// ArcGrad's scale: the one with the steepest pull at the angle `margin`, s · margin = 1 + W₀((classes − 1)/e).
///
/// It maximises s (C−1) e^(−s·margin) / (1 + (C−1) e^(−s·margin)) over s. (Equations 16 and 17 of the ArcGrad paper have
/// a wrong sign and miss a factor s; its equation 19 is this one.)
///
/// `margin` in radians, 1e-9 ≤ margin ≤ π; 2 ≤ `classes` < 2³¹.
pub fn arcgrad_scale(classes: usize, margin: f64) -> Result<f64> {
    let others = other_classes(classes)?;
    let margin = range("margin", margin, (1e-9..=PI).contains(&margin), "1e-9 <= margin <= pi (radians)")?;
    Ok((1.0 + lambert_w0(others / E)?) / margin)
}

/// AdaCos' fixed scale, √2 ln(classes − 1).
///
/// 3 ≤ `classes` < 2³¹: two classes would give 0, and a loss that cannot learn.
pub fn adacos_scale(classes: usize) -> Result<f64> {
    let inside = (3..1 << 31).contains(&classes);
    Ok(SQRT_2 * (range("classes", classes as f64, inside, "3 <= classes < 2^31")? - 1.0).ln())
}

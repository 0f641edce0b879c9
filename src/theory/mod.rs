//! The demands of a loss before anything is trained: how far prototypes lie apart, where training stops, which margin
//! suits, what a collapse costs. Scalars in f64; no device, no threads.
//!
//! The model is one embedding at the angle θ to its own prototype, among `classes` prototypes spread at random over the
//! unit sphere in `dim` dimensions. With B the sum of exp(s · cosine) over the wrong classes,
//!
//! ```text
//! P(y) = σ(s φ(cos θ) − ln B)        loss = −ln P(y)        dL/dθ = (1 − P(y)) · s · |dφ/dθ|
//! ```
//!
//! | question | function |
//! |---|---|
//! | How far is the nearest other prototype? | [`nearest_prototype_angle`], [`closest_pair_asymptote`] |
//! | How far are the nearest ones of a trained head? | [`Backend::nearest_prototype_angles`](crate::Backend::nearest_prototype_angles) |
//! | How large is B? | [`ln_wrong_class_sum`], [`ln_wrong_class_sum_published`], [`ln_wrong_class_sum_rectified`] |
//! | Does one B stand for all embeddings? | [`ln_wrong_class_sum_variance`], [`ln_wrong_class_sum_variance_published`] |
//! | What happens at an angle? | [`row_loss`], [`probability`], [`gradient`] |
//! | Below which angle does training stop? | [`termination_angle`] |
//! | How far from its prototype does an embedding then lie on average? | [`mean_angle_within`] |
//! | Which margin stops it half way to the next prototype? | [`optimal_margin`] |
//! | What does it cost to put all prototypes in one point? | [`collapse_loss`], [`equal_angle_loss`] |
//! | Which scale? | [`arcgrad_scale`], [`adacos_scale`], [`lambert_w0`] |
//!
//! ```
//! use margin_softmax::{MarginSoftmax, theory::{self, Criterion}};
//!
//! let (classes, dim) = (85_742, 512);
//! let nearest = theory::nearest_prototype_angle(classes, dim)?; // 79.0°
//! let ln_b = theory::ln_wrong_class_sum(classes, dim, 64.0)?;
//! let best = theory::optimal_margin(nearest / 2.0, ln_b, 64.0, Criterion::Probability(0.95))?;
//! assert!((best.m2.unwrap() - 0.591829).abs() < 1e-6); // ArcFace's 0.5 is near
//! let stops = theory::termination_angle(&MarginSoftmax::arcface(), ln_b, Criterion::Gradient(1.0))?;
//! assert!((stops.unwrap().to_degrees() - 43.6855).abs() < 1e-4);
//! # Ok::<(), margin_softmax::Error>(())
//! ```
//!
//! Every angle is in radians. A number outside its range, NaN and infinity included, is an [`Error`] that
//! names it. A loss must pass [`validate`](crate::MarginSoftmax::validate) and have no label smoothing, which is not part
//! of the model.

mod margins;
mod pull;
mod scales;
mod search;
mod special;
mod sphere;
mod wrong_classes;

pub use margins::{OptimalMargin, optimal_margin};
pub use pull::{Criterion, collapse_loss, equal_angle_loss, gradient, probability, row_loss, termination_angle};
pub use scales::{adacos_scale, arcgrad_scale};
pub use special::lambert_w0;
pub use sphere::{closest_pair_asymptote, mean_angle_within, nearest_prototype_angle};
pub use wrong_classes::{
    ln_wrong_class_sum, ln_wrong_class_sum_published, ln_wrong_class_sum_rectified, ln_wrong_class_sum_variance,
    ln_wrong_class_sum_variance_published,
};

use crate::{Error, Result};

/// A number that must be finite and inside its range.
fn range(what: &'static str, found: f64, inside: bool, allowed: &'static str) -> Result<f64> {
    if found.is_finite() && inside { Ok(found) } else { Err(Error::Parameter { what, found, allowed }) }
}

/// The number of other classes, at least one.
fn other_classes(classes: usize) -> Result<f64> {
    let inside = (2..1 << 31).contains(&classes);
    Ok(range("classes", classes as f64, inside, "2 <= classes < 2^31")? - 1.0)
}

fn dimensions(dim: usize) -> Result<f64> {
    range("dim", dim as f64, (2..1 << 31).contains(&dim), "2 <= dim < 2^31")
}

fn scale_in_range(scale: f64) -> Result<f64> {
    range("scale", scale, scale > 0.0 && scale <= 1e6, "0 < scale <= 1e6")
}

fn any_finite(what: &'static str, found: f64) -> Result<f64> {
    range(what, found, true, "any finite number")
}

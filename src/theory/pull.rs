//! One embedding at an angle to its prototype: its loss, its probability, its pull, and where the pull ends.

use std::f64::consts::{FRAC_PI_2, PI};

use super::{any_finite, range, search::first_reached};
use crate::{
    Adaptive, Error, MarginSoftmax, Result, Target,
    objective::{Fallback, RowTarget, Unified, softplus},
};

/// When training counts as finished for an embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Criterion {
    /// dL/dθ is below this, > 0 (loss per radian).
    Gradient(f64),
    /// P(y) is above this, 0 < p < 1.
    Probability(f64),
}

impl Criterion {
    pub(super) fn validate(self) -> Result<()> {
        match self {
            Criterion::Gradient(e) => range("criterion.gradient", e, e > 0.0, "gradient > 0")?,
            Criterion::Probability(p) => range("criterion.probability", p, p > 0.0 && p < 1.0, "0 < probability < 1")?,
        };
        Ok(())
    }
}

/// ln(p/(1−p)), which is s φ − ln B where the label has the probability p.
pub(super) fn logit(p: f64) -> f64 {
    p.ln() - (-p).ln_1p()
}

/// ln of dL/dθ from φ and −dφ/dθ; −∞ where there is no pull.
pub(super) fn ln_gradient(ln_b: f64, scale: f64, value: f64, fall: f64) -> f64 {
    scale.ln() + fall.max(0.0).ln() - softplus(scale * value - ln_b)
}

/// φ and −dφ/dθ over the angle, as the forward and the backward pass use them.
fn curve(loss: &MarginSoftmax) -> Result<impl Fn(f64) -> (f64, f64) + '_> {
    loss.validate()?;
    if loss.label_smoothing != 0.0 {
        let why = "the theory is that of one-hot targets, label_smoothing 0";
        return Err(Error::Combination { what: "label_smoothing", why });
    }
    let plain = !loss.is_linear() && loss.binary().is_none() && loss.adaptive == Adaptive::None;
    if !plain {
        let why = "the theory is that of a softmax over cosines with fixed margins";
        return Err(Error::Combination { what: "product, link, adaptive", why });
    }
    let target = loss.target.prepare();
    Ok(move |angle: f64| {
        let [value, slope, _] = target.at(angle.cos(), loss.margins());
        (value, slope * angle.sin())
    })
}

/// ln B − s φ and −dφ/dθ at one angle.
fn at(loss: &MarginSoftmax, ln_b: f64, angle: f64) -> Result<(f64, f64)> {
    let (curve, ln_b) = (curve(loss)?, any_finite("ln_b", ln_b)?);
    let angle = range("angle", angle, (0.0..=PI).contains(&angle), "0 <= angle <= pi (radians)")?;
    let (value, fall) = curve(angle);
    Ok((ln_b - loss.scale * value, fall))
}

/// The loss of one embedding: softplus(ln B − s φ), its tiny values with all their digits.
///
/// `angle` in radians, 0 ≤ θ ≤ π; `ln_b` any finite number, from [`ln_wrong_class_sum`](super::ln_wrong_class_sum) or
/// measured.
pub fn row_loss(loss: &MarginSoftmax, ln_b: f64, angle: f64) -> Result<f64> {
    Ok(softplus(at(loss, ln_b, angle)?.0))
}

/// P(y), the probability of the label: σ(s φ − ln B). Arguments as in [`row_loss`].
pub fn probability(loss: &MarginSoftmax, ln_b: f64, angle: f64) -> Result<f64> {
    Ok((-softplus(at(loss, ln_b, angle)?.0)).exp())
}

/// dL/dθ = (1 − P(y)) · s · (−dφ/dθ), per radian: positive where the embedding is pulled to its prototype, negative
/// where it is pushed away, as beyond the threshold with [`Fallback::None`].
///
/// dφ/dθ is that of the backward pass: `Slope::Detached` and series included. The exact curve's slope is bounded
/// where sin θ < 1e-4, so the pull falls to 0 at θ = 0 and π whatever the margin. Arguments as in [`row_loss`].
pub fn gradient(loss: &MarginSoftmax, ln_b: f64, angle: f64) -> Result<f64> {
    let (d, fall) = at(loss, ln_b, angle)?;
    Ok((-softplus(-d)).exp() * loss.scale * fall)
}

/// The smallest angle, in radians, at which training still acts: where [`gradient`] reaches ε, or [`probability`] is
/// down to p.
///
/// `Some(0.0)` if P(y) is at most p even at angle 0; `None` if training acts nowhere. For a series, a peak of the gradient narrower than
/// π/2048 may be missed.
pub fn termination_angle(loss: &MarginSoftmax, ln_b: f64, criterion: Criterion) -> Result<Option<f64>> {
    let (curve, ln_b) = (curve(loss)?, any_finite("ln_b", ln_b)?);
    criterion.validate()?;
    let points = grid(&match &loss.target {
        Target::Unified(margin) => margin.clone(),
        // smooth in between
        _ => Unified::default(),
    });
    Ok(match criterion {
        Criterion::Gradient(e) => first_reached(&points, |angle| {
            let (value, fall) = curve(angle);
            ln_gradient(ln_b, loss.scale, value, fall) - e.ln()
        }),
        Criterion::Probability(p) => {
            let value = (ln_b + logit(p)) / loss.scale;
            first_reached(&points, |angle| value - curve(angle).0)
        }
    })
}

/// Angles from 0 to π, both sides of every kink among them. Between two kinks of an exact curve the gradient has one
/// peak: it rises up to u = m1·θ + m2 = π/2 (mod π) and is log-concave from there.
fn grid(margin: &Unified) -> Vec<f64> {
    const CELLS: i32 = 2048;
    const BESIDE: f64 = 1e-9; // moves the cosine by more than its rounding, even at small angles
    let Unified { m1, m2, fallback, .. } = *margin;
    let branches = (1..=17).map(|k| f64::from(k) * PI); // m1 ≤ 16 and m2 < π
    let clip = match fallback {
        Fallback::Clip(e) => [e, PI - e],
        _ => [PI; 2],
    };
    let kinks = branches.chain(clip).map(|u| (u - m2) / m1).chain([FRAC_PI_2]); // the last for `Easy`
    let mut all: Vec<f64> = kinks.flat_map(|kink| [kink - BESIDE, kink, kink + BESIDE]).collect();
    all.retain(|angle| (0.0..=PI).contains(angle));
    all.extend((0..=CELLS).map(|i| PI * (f64::from(i) / f64::from(CELLS))));
    all.sort_by(f64::total_cmp);
    all
}

/// The loss of an embedding that has the same angle to all prototypes, its own among them: softplus(ln(classes − 1) +
/// s (other(cos θ) − φ(cos θ))), so log(1 + (C−1) e^(−s(φ(cos θ) − cos θ))) without a transform of the others.
///
/// Training starts near θ = π/2, where embedding and prototypes know nothing of each other, and a collapse is the way to
/// θ = π. Where this falls from π/2 to π, all prototypes in one point is a minimum that repels the embeddings: with a small
/// m0, and with m1 > 1 or m2 > 0 under [`Fallback::None`]. At π it is [`collapse_loss`].
///
/// 1 ≤ `classes` < 2³¹, 0 ≤ `angle` ≤ π in radians; 0 for a single class.
pub fn equal_angle_loss(loss: &MarginSoftmax, classes: usize, angle: f64) -> Result<f64> {
    let curve = curve(loss)?;
    let inside = (1..1 << 31).contains(&classes);
    let others = range("classes", classes as f64, inside, "1 <= classes < 2^31")? - 1.0;
    let angle = range("angle", angle, (0.0..=PI).contains(&angle), "0 <= angle <= pi (radians)")?;
    let (value, cosine) = (curve(angle).0, angle.cos());
    let (other, _) = loss.others.value_slope_at(cosine, RowTarget { cosine, value });
    Ok(softplus(others.ln() + loss.scale * (other - value)))
}

/// The loss of the collapsed state: all `classes` prototypes in one point and every embedding opposite to it, which is
/// [`equal_angle_loss`] at π, with the loss's own fallback in φ(−1).
///
/// Near 0 the loss invites a collapse: a small m0 does, and so does any angular margin with [`Fallback::None`]; WC-ReLU
/// makes it expensive.
///
/// 1 ≤ `classes` < 2³¹; 0 for a single class.
pub fn collapse_loss(loss: &MarginSoftmax, classes: usize) -> Result<f64> {
    equal_angle_loss(loss, classes, PI)
}

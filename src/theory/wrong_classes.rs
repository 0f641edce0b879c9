//! B, the sum of exp(s · cosine) over the wrong classes of random prototypes: its mean and how much it varies.

use std::f64::consts::{LN_2, PI};

use super::{
    dimensions, other_classes, scale_in_range,
    special::{ln_gamma_half_step, ln_positive_series},
};
use crate::Result;

/// ln of the mean of exp(scale · c), c the cosine of two random directions: ln ₀F₁(; dim/2; scale²/4).
fn ln_mean_exp(dim: f64, scale: f64) -> f64 {
    ln_positive_series(dim / 2.0, 1.0, scale * scale / 4.0)
}

/// ln B: the logarithm of the mean, over random prototypes, of the sum of exp(s · cosine) over the wrong classes.
///
/// Exact: B = (classes − 1) · ₀F₁(; dim/2; scale²/4), which is (classes − 1) Γ(dim/2) (2/s)^(dim/2−1) I_{dim/2−1}(s).
/// For the cosine itself as the logit of the other classes ([`Others::Identity`](crate::Others)); with WC-ReLU it is
/// [`ln_wrong_class_sum_rectified`].
///
/// 2 ≤ `classes` < 2³¹, 2 ≤ `dim` < 2³¹, 0 < `scale` ≤ 1e6. The time grows like `scale`: a microsecond
/// at 64, two milliseconds at 1e6.
pub fn ln_wrong_class_sum(classes: usize, dim: usize, scale: f64) -> Result<f64> {
    let (others, dim, scale) = (other_classes(classes)?, dimensions(dim)?, scale_in_range(scale)?);
    Ok(others.ln() + ln_mean_exp(dim, scale))
}

/// ln B as the unified paper has it: B = (classes − 1) · exp(scale² / (2 dim)), the cosines taken as Normal(0, 1/dim).
///
/// Never below the exact [`ln_wrong_class_sum`]; the two meet where scale ≪ dim. The same ranges.
pub fn ln_wrong_class_sum_published(classes: usize, dim: usize, scale: f64) -> Result<f64> {
    let (others, dim, scale) = (other_classes(classes)?, dimensions(dim)?, scale_in_range(scale)?);
    Ok(others.ln() + scale * scale / (2.0 * dim))
}

/// ln B with WC-ReLU ([`Others::Rectified`](crate::Others)): of the mean of Σ exp(s · max(cosine, 0)) over the wrong classes.
///
/// Exact: B = (classes − 1) (1 + F + S)/2, F the ₀F₁ of [`ln_wrong_class_sum`] and S = Γ(dim/2) (2/s)^(dim/2−1)
/// L_{dim/2−1}(s) with the modified Struve function L, which is the odd part of the same mean. A class behind the equator
/// counts as one that lies on it: per class 53.330 in place of 52.958 at s = 64 in 512 dimensions.
///
/// Ranges and time as in [`ln_wrong_class_sum`].
pub fn ln_wrong_class_sum_rectified(classes: usize, dim: usize, scale: f64) -> Result<f64> {
    let (others, dim, scale) = (other_classes(classes)?, dimensions(dim)?, scale_in_range(scale)?);
    let even = ln_mean_exp(dim, scale);
    // the mean of sinh(s |c|): s times that of |c|, times a series
    let ln_first = scale.ln() - 0.5 * PI.ln() - ln_gamma_half_step(dim / 2.0);
    let odd = ln_first + ln_positive_series((dim + 1.0) / 2.0, 1.5, scale * scale / 4.0);
    let most = even.max(odd);
    Ok(others.ln() + most + ((-most).exp() + (even - most).exp() + (odd - most).exp()).ln() - LN_2)
}

/// ln of the relative variance of the wrong-class sum: Var B / (mean B)², over random prototypes. Far below 0 the sum is
/// nearly the same for every embedding, so that one B stands for all: the condition of proposition 3 of "Unifying
/// Margin-Based Softmax Losses in Face Recognition".
///
/// Exact: (₀F₁(; dim/2; s²) / ₀F₁(; dim/2; s²/4)² − 1) / (classes − 1). −3.76 at 85,742 classes, 512 dimensions and s = 64:
/// B deviates by 15 %. The ranges of [`ln_wrong_class_sum`].
pub fn ln_wrong_class_sum_variance(classes: usize, dim: usize, scale: f64) -> Result<f64> {
    let (others, dim, scale) = (other_classes(classes)?, dimensions(dim)?, scale_in_range(scale)?);
    let excess = ln_mean_exp(dim, 2.0 * scale) - 2.0 * ln_mean_exp(dim, scale);
    // ln(exp(excess) − 1)
    let ln_one = if excess > 1.0 { excess + (-(-excess).exp()).ln_1p() } else { excess.exp_m1().ln() };
    Ok(ln_one - others.ln())
}

/// The same condition as published: ln of exp(scale² / dim) / classes, the cosines taken as Normal(0, 1/dim).
///
/// −3.36 at 85,742 classes, 512 dimensions and s = 64. The same ranges.
pub fn ln_wrong_class_sum_variance_published(classes: usize, dim: usize, scale: f64) -> Result<f64> {
    let (others, dim, scale) = (other_classes(classes)?, dimensions(dim)?, scale_in_range(scale)?);
    Ok(scale * scale / dim - (others + 1.0).ln())
}

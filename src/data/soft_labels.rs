//! Several targets for each row, each with a weight.

use super::{Finite, Label};
use crate::{Error, Result, shape::check_length};

/// Several targets for each row beside, or in the place of, its label: mixup and cutmix, teachers, label noise; with a binary
/// link the positives of a multi-label problem.
///
/// **Softmax link.** Row i has the loss Σ_t λ_it · loss(x_i, y_it), each term with the margin and the denominator of its own
/// target: the mix of separate calls, in the time of one. For target t the other targets are other classes, without margin.
///
/// **Binary link.** Each class is one problem, so the negatives appear once, not once for each target:
/// `factor · [ weight · Σ_t λ_t · w_t · softplus(−z_t) + (1 − weight) · w_y · Σ_{j no target} softplus(z_j) ]`, w_y the weight of
/// the label's class. With weight ½, factor 2 and all λ = 1 this is sigmoid cross entropy with several positives.
///
/// The label, `Batch::labels`, stays the row's main one: target and other cosines, monitors, the state of adaptive losses, log-sum-exps
/// and sorted draws of ElasticFace follow it. It is a target only as far as it is among the classes here: λ = 0 if it is not. A row with the
/// ignore index is ignored whatever its targets are.
///
/// Z, by which the mean divides, is Σ_i v_i·Σ_t λ_it·w_{y_it} over the weights v of rows and w of classes: the number of rows
/// where each row's λ add up to 1. With a binary link a row counts v_i·w_{y_i} as ever. A gradient filter's threshold has v_i·Σ_t λ_it in the
/// place of v_i.
///
/// Refused where the other classes depend on the target (CurricularFace, inter-topk, MV-Softmax, ArcNegFace, custom ones), with a
/// scale that follows the length of the embedding, for shards, sampled classes and with predictions.
#[derive(Debug, Clone, Copy)]
pub struct SoftLabels<'a, T = f32> {
    /// T, the targets of a row, 1 ≤ T ≤ 16, at most [`Options::soft_labels`](crate::Options::soft_labels).
    pub count: usize,
    /// y, \[N, T\]: 0 ≤ y < C; a negative number is a target that is not there. Equal ones are one target with the sum of their λ.
    pub classes: &'a [i32],
    /// λ, \[N, T\]: 0, which is a target that is not there, or within \[1e-30, 1e24\]; so must the product with the weights of row and class be.
    pub weights: &'a [T],
}

impl<T> SoftLabels<'_, T> {
    /// The most targets of a row.
    pub const MAX: usize = 16;
}

/// Two targets for each row, as mixup and cutmix have them: λ of the first and 1 − λ of the second.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MixedLabels<T = f32> {
    classes: Vec<i32>,
    weights: Vec<T>,
}

impl<T: Finite> MixedLabels<T> {
    /// `first` and `second` are \[N\] classes below 2³¹, `lambda` is \[N\] in 0..=1. A negative class, such as an ignore index,
    /// is a target that is not there.
    ///
    /// [`Error::Length`](crate::Error::Length) where they differ in length, [`Error::Label`](crate::Error::Label) for a class that is no i32,
    /// [`Error::Parameter`](crate::Error::Parameter) for a λ that is no number in 0..=1.
    pub fn new<L: Label>(first: &[L], second: &[L], lambda: &[T]) -> Result<Self>
    where
        T: std::ops::Sub<Output = T> + From<f32>,
    {
        check_length("second", second.len(), first.len())?;
        check_length("lambda", lambda.len(), first.len())?;
        if let Some(found) = lambda.iter().map(|l| l.wide()).find(|l| !(0.0..=1.0).contains(l)) {
            return Err(Error::Parameter { what: "lambda", found, allowed: "0 <= lambda <= 1" });
        }
        let mut new = Self { classes: vec![], weights: vec![] };
        for (row, (classes, &lambda)) in first.iter().zip(second).zip(lambda).enumerate() {
            for label in [classes.0, classes.1] {
                let label = label.number();
                let classes = i32::MAX as usize;
                let class = i32::try_from(label).map_err(|_| Error::Label { row, label, classes })?;
                new.classes.push(class);
            }
            new.weights.extend([lambda, T::from(1.0) - lambda]);
        }
        Ok(new)
    }

    /// As a batch takes them.
    pub fn soft(&self) -> SoftLabels<'_, T> {
        SoftLabels { count: 2, classes: &self.classes, weights: &self.weights }
    }
}

//! Soft labels, checked: the targets of a row beside its label, each class once.

use super::{MarginSoftmax, Others};
use crate::{Error, Result, data::SoftLabels};

/// The targets of all rows, as a batch's soft labels give them.
#[derive(Debug, Clone)]
pub(crate) struct SoftTargets {
    /// T, targets of a row beside its label.
    pub count: usize,
    /// λ of the rows' labels, \[N\].
    pub labels: Vec<f64>,
    /// \[N, T\]: the other classes of a row in ascending order, each once, with its λ; then none.
    pub others: Vec<Option<(usize, f64)>>,
    /// m0..m3 of each of these, where the batch brings any.
    pub margins: Option<Vec<[f64; 4]>>,
}

impl SoftTargets {
    /// The targets of a row beside its label, and the sum of the λ of all.
    pub fn of(&self, row: usize) -> (&[Option<(usize, f64)>], f64) {
        let own = &self.others[row * self.count..][..self.count];
        (own, own.iter().flatten().fold(self.labels[row], |sum, (_, weight)| sum + weight))
    }
}

impl MarginSoftmax {
    /// Refuses soft labels where one sum over the other classes does not serve all targets.
    pub(crate) fn check_soft_labels(&self) -> Result<()> {
        let refuse = |why| Err(Error::Combination { what: "soft_labels", why });
        if self.scales_by_length() {
            return refuse("a scale that follows the length of the embedding takes one target");
        }
        match self.others {
            Others::Curricular => refuse("the other classes of CurricularFace depend on the target"),
            Others::TopK(_) => refuse("the other classes of inter-topk depend on the target"),
            Others::MvSoftmax(_) => refuse("the other classes of MV-Softmax depend on the target"),
            Others::ArcNeg(_) => refuse("the other classes of ArcNegFace depend on the target"),
            Others::Custom(_) => refuse("other classes of one's own may depend on the target"),
            Others::Identity
            | Others::Rectified
            | Others::Angle(_)
            | Others::InterclassFilter(_)
            | Others::SimilarityAdjustment(_) => Ok(()),
        }
    }
}

impl SoftLabels<'_> {
    /// Refuses a number of targets that no row has.
    pub(crate) fn check_count(count: usize) -> Result<()> {
        if (1..=Self::MAX).contains(&count) {
            return Ok(());
        }
        Err(Error::Parameter { what: "soft_labels", found: count as f64, allowed: "1 to 16 targets of a row" })
    }
}

//! Soft labels, checked: the targets of a row beside its label, each class once.

use super::{
    MarginSoftmax, Others,
    checked::{RowMargins, check_weights},
};
use crate::{Batch, Error, Label, Result, Shape, SoftLabels, data::Finite, shape::check_length};

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
    pub margins: Option<RowMargins>,
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
        match self.others {
            Others::Curricular => refuse("the other classes of CurricularFace depend on the target"),
            Others::TopK(_) => refuse("the other classes of inter-topk depend on the target"),
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

impl<L: Label, T: Finite> Batch<'_, L, T> {
    /// The targets of the rows with these labels, if the batch has soft labels.
    pub(super) fn soft_targets(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        labels: &[i64],
    ) -> Result<Option<SoftTargets>> {
        let Some(SoftLabels { count, classes, weights }) = self.soft_labels else { return Ok(None) };
        loss.check_soft_labels()?;
        SoftLabels::check_count(count)?;
        check_length("soft_labels.classes", classes.len(), labels.len() * count)?;
        check_length("soft_labels.weights", weights.len(), labels.len() * count)?;
        check_weights("soft_labels.weights", weights.iter().map(|w| w.wide()))?;
        let mut soft = SoftTargets { count, labels: vec![], others: vec![], margins: None };
        for (row, (&label, own)) in labels.iter().zip(classes.chunks_exact(count)).enumerate() {
            let mut all: Vec<(usize, f64)> = vec![];
            let counted = Some(label) != loss.ignore_index;
            for (&class, weight) in own.iter().zip(&weights[row * count..]).filter(|_| counted) {
                let Ok(class) = usize::try_from(class) else { continue };
                if class >= shape.classes() {
                    return Err(Error::Label { row, label: class as i128, classes: shape.classes() });
                }
                self.check_target_weight(row, class, weight.wide())?;
                match all.iter_mut().find(|(known, _)| *known == class) {
                    Some((_, sum)) => *sum += weight.wide(),
                    None => all.push((class, weight.wide())),
                }
            }
            all.retain(|(_, weight)| *weight > 0.0);
            all.sort_by_key(|(class, _)| *class);
            let of_label = |&(class, weight): &(usize, f64)| (class as i64 == label).then_some(weight);
            soft.labels.push(all.iter().find_map(of_label).unwrap_or(0.0));
            let others = all.into_iter().filter(|&(class, _)| class as i64 != label).map(Some);
            soft.others.extend(others.chain(std::iter::repeat(None)).take(count));
        }
        let slots = soft.others.iter().enumerate();
        soft.margins =
            self.margins(loss, slots.map(|(slot, target)| (slot / count, target.map(|(class, _)| class))))?;
        Ok(Some(soft))
    }

    /// The product of a target's weight with those of its row and class.
    fn check_target_weight(&self, row: usize, class: usize, weight: f64) -> Result<()> {
        let of = |weights: Option<&[T]>, i: usize| weights.map_or(1.0, |w| w[i].wide());
        let product = weight * of(self.row_weights, row) * of(self.class_weights, class);
        check_weights("soft_labels.weights · row_weights · class_weights", [product].into_iter())
    }
}

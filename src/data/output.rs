//! Everything that comes out of a head over slices, of a regulariser and of the center loss.

use super::Predictions;

/// In the place of the largest other cosine where a row has none.
pub(crate) const NO_COSINE: f64 = -1.0;

/// The result of one batch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output<T = f32> {
    /// The reduced loss; with `Reduction::None` the sum of `row_losses`.
    pub loss: T,
    /// \[N\]: weights of classes and rows included, 0 for an ignored row, not divided by Z.
    pub row_losses: Vec<T>,
    /// \[N\]: log Σ_j exp z_ij over all classes, of the loss' own logits, margin and scale included; 0 for a row that is left out.
    /// Empty with a binary link, which has no such sum.
    pub log_sum_exps: Vec<T>,
    /// Z, the sum over the rows that count of the weight of the row times that of its class, whatever the reduction is and
    /// whatever the mean was divided by.
    pub normalizer: T,
    /// \[N\]: the raw cosine of the labelled class, without margin or scale (for a linear head the product with its bias);
    /// 0 for a row that is left out.
    pub target_cosines: Vec<T>,
    /// \[N\]: the largest raw cosine among the other classes; −1 where there is none.
    pub other_cosines: Vec<T>,
    /// \[N, D\], empty if not wanted.
    pub grad_embeddings: Vec<T>,
    /// \[C, D\] (\[C, K, D\]), empty if not wanted.
    pub grad_prototypes: Vec<T>,
    /// dL/ds, 0 if not wanted.
    pub grad_scale: T,
    /// dL/db, empty if not wanted: \[C\] for a linear head, \[1\] for a binary link, empty for any other loss.
    pub grad_bias: Vec<T>,
    /// dL/dm0..m3, empty if not wanted: \[4\], \[C, 4\] or \[N, 4\] as [`MarginGradients`](crate::data::MarginGradients) says.
    pub grad_margins: Vec<T>,
    /// Rows and prototypes that were left out, and why.
    pub counts: Counts,
    /// The entries that a [`GradientFilter`](crate::data::GradientFilter) dropped; none without one.
    pub filtered: Option<Filtered<T>>,
    /// The nearest classes of each row, if [`Options::predictions`](crate::Options::predictions) asks for them.
    pub predictions: Option<Predictions<T>>,
}

impl Output {
    /// Empty, with the room of its vectors.
    pub(crate) fn clear(&mut self) {
        fn emptied(values: &mut Vec<f32>) -> Vec<f32> {
            values.clear();
            std::mem::take(values)
        }
        *self = Self {
            row_losses: emptied(&mut self.row_losses),
            log_sum_exps: emptied(&mut self.log_sum_exps),
            target_cosines: emptied(&mut self.target_cosines),
            other_cosines: emptied(&mut self.other_cosines),
            grad_embeddings: emptied(&mut self.grad_embeddings),
            grad_prototypes: emptied(&mut self.grad_prototypes),
            grad_bias: emptied(&mut self.grad_bias),
            grad_margins: emptied(&mut self.grad_margins),
            ..Self::default()
        };
    }
}

/// Rows and prototypes that a batch left out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows that count: neither ignored nor non-finite nor with an invalid label.
    pub rows: usize,
    /// Rows with the ignore index.
    pub ignored: usize,
    /// Rows with a NaN or infinite value that are not ignored, and rows of a linear head whose logits leave f32: their loss
    /// and the reduced loss are NaN, their gradient 0.
    pub non_finite_rows: usize,
    /// Rows whose label names no class, or with a class weight, margins or a state that no loss may have; seen on a device
    /// only, and treated like a non-finite row.
    pub invalid_labels: usize,
    /// Rows that count although their embedding is shorter than 1e-12; its gradient is 0.
    pub zero_embeddings: usize,
    /// Prototypes shorter than 1e-12; their gradient is 0.
    pub zero_prototypes: usize,
    /// Prototypes with a NaN or infinite value: every loss is NaN and every gradient 0.
    pub non_finite_prototypes: usize,
}

/// The entries that a [`GradientFilter`](crate::data::GradientFilter) dropped from G = dL/d(cosine) in one batch; those of
/// shards add up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Filtered<T = f32> {
    /// Σ |G| over the entries that were dropped.
    pub dropped: T,
    /// Σ |G| over all entries.
    pub total: T,
    /// How many entries were kept.
    pub kept: u64,
    /// How many there are: rows that count times classes.
    pub entries: u64,
}

impl<T: Copy + Into<f64>> Filtered<T> {
    /// The dropped mass as a share of all, 0 to 1.
    pub fn share(&self) -> f64 {
        let (dropped, total) = (self.dropped.into(), self.total.into());
        if total > 0.0 { dropped / total } else { 0.0 }
    }
}

/// A regulariser's value and gradient, the weight included.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Penalty<T = f32> {
    /// The value to be added to the loss; NaN if a prototype has a NaN or infinite value.
    pub value: T,
    /// \[C, D\], to be added to the gradient of the prototypes.
    pub gradient: Vec<T>,
}

/// The center loss and its gradient, the weight included.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CenterOutput<T = f32> {
    /// λ/(2N) · Σ |t_i − c_{y_i}|²; NaN if a row that counts has a NaN or infinite value.
    pub loss: T,
    /// \[N, D\]
    pub grad_embeddings: Vec<T>,
}

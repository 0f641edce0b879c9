//! The work of a head, as far as its memory and its steps follow from it.

use super::{driver_limits::ROWS_PER_PASS, snippets::Stages};
use crate::{MarginSoftmax, Options, Others, Want, data::MarginGradients};

/// The work of a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// A backward pass.
    pub any: bool,
    pub embeddings: bool,
    pub prototypes: bool,
    pub scale: bool,
    pub bias: Option<Bias>,
    pub margins: Option<MarginGradients>,
    /// Classes of all shards.
    pub all_classes: usize,
    /// Dot products with a bias, instead of cosines.
    pub linear: bool,
    /// Small entries of the gradient are left out.
    pub filter: bool,
    pub stages: Stages,
    /// Targets of a row beside its label.
    pub soft_labels: usize,
    /// Nearest classes of each row that come out.
    pub predictions: usize,
    /// They come out in tensors of the caller's.
    pub gives_predictions: bool,
    /// Their log-probabilities need sums that the loss does not.
    pub sums_apart: bool,
    /// Rows have labels, and a loss.
    pub labelled: bool,
    /// Loop iterations of the transform of the other classes.
    pub transform_iterations: usize,
}

/// Whose bias gets a gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bias {
    /// One per class.
    Classes,
    /// The one of a binary link.
    Link,
}

impl Work {
    pub fn new(loss: &MarginSoftmax, options: &Options, stages: Stages, all_classes: usize) -> Self {
        let (linear, want) = (loss.is_linear(), options.want);
        let bias = match (linear, loss.binary()) {
            _ if !want.grad_bias => None,
            (true, _) => Some(Bias::Classes),
            (false, Some(_)) => Some(Bias::Link),
            _ => None,
        };
        Self {
            any: want.grad_embeddings
                || want.grad_prototypes
                || want.grad_scale
                || bias.is_some()
                || want.grad_margins.is_some(),
            embeddings: want.grad_embeddings,
            prototypes: want.grad_prototypes,
            scale: want.grad_scale,
            bias,
            margins: want.grad_margins,
            all_classes,
            linear,
            filter: options.filter.is_some(),
            stages,
            soft_labels: options.soft_labels.unwrap_or(0),
            predictions: options.predictions.unwrap_or(0),
            gives_predictions: false,
            sums_apart: options.predictions.is_some() && loss.binary().is_none() && loss.others != Others::Identity,
            labelled: true,
            transform_iterations: loss.others.loop_iterations(),
        }
    }

    /// That of predictions without labels.
    pub fn unlabelled(loss: &MarginSoftmax, count: usize) -> Self {
        let options = Options { want: Want::LOSS, predictions: Some(count), ..Options::default() };
        Self { labelled: false, sums_apart: false, ..Self::new(loss, &options, Stages::default(), 0) }
    }

    /// Whether classes are selected, a span of a chunk at a time.
    pub fn selects(self) -> bool {
        self.stages.top_k > 0 || self.predictions > 0
    }

    /// Whether the backward pass goes through the cosines.
    pub fn sweeps(self) -> bool {
        self.embeddings || self.prototypes || self.bias == Some(Bias::Classes)
    }

    /// Whether the forward pass reads the cosines before the statistics do.
    pub fn reads_twice(self) -> bool {
        self.stages.top_k > 0 || self.stages.scale
    }

    /// Whether it is worth the memory to keep all cosines.
    pub fn keeps(self) -> bool {
        self.sweeps() || self.reads_twice()
    }

    /// Whether one workgroup goes through all rows of the batch.
    pub fn counts_rows(self) -> bool {
        self.stages.update_state || self.stages.margin_noise || self.linear || self.margins.is_some()
    }

    /// Passes of grad_prototypes over the rows.
    pub fn passes(self, rows: u64) -> u64 {
        if self.prototypes { rows.div_ceil(ROWS_PER_PASS.into()) } else { 1 }
    }
}

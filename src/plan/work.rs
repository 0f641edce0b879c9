//! The work of a head, as far as its memory and its steps follow from it.

use super::{driver_limits::ROWS_PER_PASS, kernels::Stages};
use crate::{MarginSoftmax, Want};

/// The work of a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// A backward pass.
    pub any: bool,
    pub embeddings: bool,
    pub prototypes: bool,
    pub scale: bool,
    pub bias: Option<Bias>,
    /// Dot products with a bias, instead of cosines.
    pub linear: bool,
    /// Small entries of the gradient are left out.
    pub filter: bool,
    pub stages: Stages,
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
    pub fn new(loss: &MarginSoftmax, want: Want, stages: Stages, filter: bool) -> Self {
        let linear = loss.is_linear();
        let bias = match (linear, loss.binary()) {
            _ if !want.grad_bias => None,
            (true, _) => Some(Bias::Classes),
            (false, Some(_)) => Some(Bias::Link),
            _ => None,
        };
        Self {
            any: want.grad_embeddings || want.grad_prototypes || want.grad_scale || bias.is_some(),
            embeddings: want.grad_embeddings,
            prototypes: want.grad_prototypes,
            scale: want.grad_scale,
            bias,
            linear,
            filter,
            stages,
            transform_iterations: loss.others.loop_iterations(),
        }
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
        self.stages.update_state || self.stages.margin_noise || self.linear
    }

    /// Passes of grad_prototypes over the rows.
    pub fn passes(self, rows: u64) -> u64 {
        if self.prototypes { rows.div_ceil(ROWS_PER_PASS.into()) } else { 1 }
    }
}

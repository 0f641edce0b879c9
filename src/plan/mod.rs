//! HOW a GPU computes it, as plain data: buffers, kernels, steps. No device, no wgpu.
//!
//! A plan is what an executor needs: the buffers with their sizes, the WGSL text of every kernel, and two lists of steps.
//! [`gpu::Head`](crate::gpu::Head) runs it through wgpu; any other WebGPU runtime can.

mod auxiliary;
mod backward;
mod budget;
mod buffers;
mod builder;
#[cfg(feature = "catalogue")]
pub mod catalogue;
pub(crate) mod constants;
mod cost;
mod driver_limits;
mod element;
mod forward;
mod gather;
pub(crate) mod geometry;
mod grid;
mod head;
pub(crate) mod kernel;
pub(crate) mod kernels;
mod limits;
mod operations;
mod parts;
mod report;
mod schedule;
mod settings;
mod snippets;
mod tile;
mod tuning;
mod work;

use std::ops::Range;

pub use buffers::Layout;
pub use element::Element;
pub use geometry::Strip;
pub use grid::Grid;
pub use kernel::{Binding, Kernel, Loader};
#[cfg(feature = "gpu")]
pub(crate) use limits::need;
pub use limits::{Limits, MatrixUnits, Vendor};
pub use operations::{Batched, CrossEntropy};
pub use report::{BATCH_WORDS, ROW_STATES, ROW_WORDS};
pub use schedule::{Chunk, ChunkCost, PassSchedule};
pub use settings::{Accumulate, Call};
pub use tile::TileGeometry;

use crate::uniforms::constants::{UNLABELLED, WEIGHS};
pub use crate::uniforms::{Settings, StepConstants};
use crate::{
    Batch, Error, Label, MarginSoftmax, Result, Shape, Want,
    data::{Finite, MarginGradients},
    objective::Prepared,
};

/// A tensor that the caller gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named like the fields of `gpu::Io`
pub enum TensorRole {
    Embeddings,
    Prototypes(usize),
    Labels,
    ClassWeights,
    RowWeights,
    SoftClasses,
    SoftWeights,
    Upstream,
    Loss,
    RowLosses,
    LogSumExps,
    PredictedClasses,
    PredictedCosines,
    LogProbabilities,
    PredictedSubCenters,
    GradEmbeddings,
    GradPrototypes(usize),
    Cosines,
    GradCosines,
    Logits,
    GradLogits,
    ClassMargins,
    RowMargins,
    Bias,
    State,
    GradScale,
    GradBias,
    GradMargins,
}

impl TensorRole {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            TensorRole::Embeddings => "embeddings",
            TensorRole::Prototypes(_) => "prototypes",
            TensorRole::Labels => "labels",
            TensorRole::ClassWeights => "class_weights",
            TensorRole::RowWeights => "row_weights",
            TensorRole::SoftClasses => "soft_classes",
            TensorRole::SoftWeights => "soft_weights",
            TensorRole::Upstream => "upstream",
            TensorRole::Loss => "loss",
            TensorRole::RowLosses => "row_losses",
            TensorRole::LogSumExps => "log_sum_exps",
            TensorRole::PredictedClasses => "predicted_classes",
            TensorRole::PredictedCosines => "predicted_cosines",
            TensorRole::LogProbabilities => "log_probabilities",
            TensorRole::PredictedSubCenters => "predicted_sub_centers",
            TensorRole::GradEmbeddings => "grad_embeddings",
            TensorRole::GradPrototypes(_) => "grad_prototypes",
            TensorRole::Cosines => "cosines",
            TensorRole::GradCosines => "grad_cosines",
            TensorRole::Logits => "logits",
            TensorRole::GradLogits => "grad_logits",
            TensorRole::ClassMargins => "class_margins",
            TensorRole::RowMargins => "row_margins",
            TensorRole::Bias => "bias",
            TensorRole::State => "state",
            TensorRole::GradScale => "grad_scale",
            TensorRole::GradBias => "grad_bias",
            TensorRole::GradMargins => "grad_margins",
        }
    }
}

/// Who owns a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Made by the executor, with at least these bytes.
    Workspace,
    /// Given by the caller.
    Given(TensorRole),
    /// Given by the caller or, if not, made by the executor with the buffer's bytes.
    Optional(TensorRole),
}

/// A buffer of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// The name in messages and labels.
    pub name: &'static str,
    /// Bytes that are bound.
    pub bytes: u64,
    /// Who owns it.
    pub role: Role,
}

/// One dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Index into [`Plan::kernels`].
    pub kernel: usize,
    /// Index into [`Plan::constants`]: the uniform at binding 1.
    pub constants: usize,
    /// Indices into [`Plan::buffers`], for bindings 2, 3, …
    pub buffers: Vec<usize>,
    /// How many workgroups.
    pub grid: Grid,
    /// It runs only where an upstream gradient is bound.
    pub upstream: bool,
}

impl Step {
    /// Its dispatch in this call; `None` where there is nothing to do. `most`: workgroups along one axis.
    pub fn dispatch(&self, call: &Call, most: u32) -> Result<Option<[u32; 3]>> {
        let needed = call.upstream || !self.upstream;
        Ok(self.grid.dispatch(call.rows as u32, most)?.filter(|_| needed))
    }

    /// The same, only where an upstream gradient is bound.
    fn with_upstream(self) -> Self {
        Self { upstream: true, ..self }
    }
}

/// A computation as plain data. Two uniform buffers go with it: the settings, and the steps' constants, 256 bytes each.
#[derive(Debug, Clone)]
pub struct Plan {
    shape: Shape,
    range: Range<usize>,
    entries: usize,
    /// Of the embeddings and the prototypes.
    elements: [Element; 2],
    snippets: snippets::Snippets,
    schedule: PassSchedule,
    buffers: Vec<Buffer>,
    kernels: Vec<Kernel>,
    constants: Vec<StepConstants>,
    forward: Vec<Step>,
    /// Where follow, statistics and losses begin.
    cuts: [usize; 3],
    backward: Vec<Step>,
    /// The most work of a submit.
    work_per_submit: Option<u64>,
    /// Rows have labels.
    labelled: bool,
    /// Nearest classes of each row that come out in tensors of the caller's.
    predictions: usize,
    /// Gradients of margins.
    margins: Option<MarginGradients>,
}

/// A part of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Norms, target cosines with their margins where nothing moves these, and for inter-topk the hardest classes.
    Targets,
    /// The steps that move the state; run in training steps only. Empty for most losses.
    UpdateState,
    /// The margins of the rows that the targets are without, and the rows' sums over the other classes.
    Statistics,
    /// The rows' losses and the reduced one.
    Losses,
}

/// Bytes from the constants of one step to those of the next in their uniform buffer: the largest offset alignment that a device may ask for.
pub const CONSTANTS_STRIDE: u64 = 256;

/// Bytes that an executor allocates for these buffers, for so many constants of steps and for the settings.
fn workspace_bytes(buffers: &[Buffer], constants: u64) -> u64 {
    let own = buffers.iter().filter(|buffer| !matches!(buffer.role, Role::Given(_)));
    own.map(|buffer| buffer.bytes).sum::<u64>() + constants * CONSTANTS_STRIDE + Kernel::UNIFORMS[0]
}

impl Plan {
    /// Rows (of one batch entry), classes, dim.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Batch entries; 1 for a head.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The buffers, in the order of the steps' indices.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// The kernels, in the order of the steps' indices.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The constants, in the order of the steps' indices.
    pub fn constants(&self) -> &[StepConstants] {
        &self.constants
    }

    /// Statistics and loss: all stages, one after the other. An evaluation leaves [`Stage::UpdateState`] out.
    pub fn forward(&self) -> &[Step] {
        &self.forward
    }

    /// All steps, forward and then backward.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.forward.iter().chain(&self.backward)
    }

    /// The steps of one stage among those of the forward pass.
    pub fn stage(&self, stage: Stage) -> Range<usize> {
        let [follow, statistics, losses] = self.cuts;
        match stage {
            Stage::Targets => 0..follow,
            Stage::UpdateState => follow..statistics,
            Stage::Statistics => statistics..losses,
            Stage::Losses => losses..self.forward.len(),
        }
    }

    /// The most targets of a row that soft labels may bring; 0 for a plan without them.
    pub fn soft_labels(&self) -> usize {
        self.snippets.targets
    }

    /// The classes of this plan among those of its shape: all of them for a whole head.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Gradients; empty where none is wanted.
    pub fn backward(&self) -> &[Step] {
        &self.backward
    }

    /// Chunks of classes, keep or recompute, tile.
    pub fn schedule(&self) -> &PassSchedule {
        &self.schedule
    }

    /// Bytes that an executor allocates beside the caller's tensors, uniforms included.
    pub fn workspace_bytes(&self) -> u64 {
        workspace_bytes(&self.buffers, self.constants.len() as u64)
    }

    /// The settings of a loss and a call: what to write into the uniform at binding 0.
    ///
    /// [`Error::Recompile`] where the loss needs other kernels than the plan has.
    pub fn settings(&self, loss: &MarginSoftmax, call: &Call) -> Result<Settings> {
        let loss = Prepared::new(loss, self.shape)?;
        self.accepts(&loss)?;
        self.settings_of(&loss, call)
    }

    /// Whether the plan's kernels compute this loss.
    pub(crate) fn accepts(&self, loss: &MarginSoftmax) -> Result<()> {
        let needed = snippets::Snippets::of(loss, self.shape).with_targets(self.soft_labels());
        if self.soft_labels() > 0 {
            loss.check_soft_labels()?;
        }
        if needed != self.snippets {
            return Err(Error::Recompile { needed: needed.name(), compiled: self.snippets.name() });
        }
        let want = Want { grad_margins: self.margins, ..Want::LOSS };
        loss.check_margin_gradients(want, self.soft_labels() > 0)
    }

    /// [`settings`](Self::settings) of a loss that the plan accepts.
    pub(crate) fn settings_of(&self, loss: &Prepared, call: &Call) -> Result<Settings> {
        if call.rows > self.shape.rows() {
            return Err(Error::Rows { found: call.rows, allowed: self.shape.rows() });
        }
        if let Some(divisor) = call.divisor {
            loss.check_divisor(divisor.into())?;
        }
        let mut settings = Settings::new(loss, self.shape, &self.range, self.entries, call);
        if self.margins.is_some() && loss.is_series() {
            // the series of the derivatives need the basis, not the coefficients of one margin
            loss.target_curve().fill(&mut settings, true);
        }
        if !self.labelled {
            settings.flag(UNLABELLED, true);
            settings.flag(WEIGHS, false);
        }
        Ok(settings)
    }

    /// Refuses what a head over slices refuses, for executors that get their input on the host: a loss that this plan cannot
    /// compute, too many rows, labels that name no class, and weights, bias, margins and upstream gradients of a wrong
    /// length or outside their range. Does not look at `embeddings` and `prototypes`.
    pub fn check<L: Label, T: Finite>(&self, loss: &MarginSoftmax, batch: &Batch<'_, L, T>) -> Result<()> {
        loss.validate_for(self.shape)?;
        self.accepts(loss)?;
        batch.check_rest(loss, self.shape, &self.range).map(drop)
    }

    /// Classes of each prototype shard.
    pub fn shard_sizes(&self) -> Vec<usize> {
        let mut sizes = vec![];
        for chunk in &self.schedule.chunks {
            sizes.resize(chunk.shard + 1, 0);
            sizes[chunk.shard] = chunk.local + chunk.count;
        }
        sizes
    }

    /// Nearest classes of each row that come out in tensors of the caller's; 0 without predictions.
    pub fn predictions(&self) -> usize {
        self.predictions
    }

    /// The gradients of margins that the plan computes.
    pub fn margins(&self) -> Option<MarginGradients> {
        self.margins
    }

    /// Whether a tensor of this element can be given in this role.
    pub fn check_element(&self, role: TensorRole, found: Element) -> Result<()> {
        let expected = match role {
            TensorRole::Embeddings => self.elements[0],
            TensorRole::Prototypes(_) => self.elements[1],
            TensorRole::Labels
            | TensorRole::SoftClasses
            | TensorRole::PredictedClasses
            | TensorRole::PredictedSubCenters => Element::I32,
            _ => Element::F32,
        };
        if found == expected {
            return Ok(());
        }
        Err(Error::Element { what: role.name(), found: found.name(), expected: expected.name() })
    }

    /// The buffer of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.buffers.iter().position(|b| b.name == name)
    }
}

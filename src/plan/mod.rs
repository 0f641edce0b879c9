//! HOW a GPU computes it, as plain data: buffers, kernels, steps. No device, no wgpu.
//!
//! A plan is what an executor needs: the buffers with their sizes, the WGSL text of every kernel, and two lists of steps.
//! [`gpu::Head`](crate::gpu::Head) runs it through wgpu; any other WebGPU runtime can.

mod backward;
mod budget;
mod buffers;
mod builder;
#[cfg(feature = "catalogue")]
pub mod catalogue;
pub(crate) mod constants;
mod driver_limits;
mod element;
mod forward;
mod gather;
mod grid;
mod head;
pub(crate) mod kernel;
pub(crate) mod kernels;
mod limits;
pub(crate) mod monitor;
mod ops;
mod presets;
mod regularizer;
mod schedule;
mod settings;
mod tile;
mod work;

use std::ops::Range;

pub use buffers::Layout;
pub use element::Element;
pub use grid::Grid;
pub use kernel::{Binding, Kernel, Loader};
pub use limits::Limits;
pub use monitor::Strip;
pub use ops::{Batched, CrossEntropy};
pub use schedule::{Chunk, Schedule};
pub use settings::Call;
pub use tile::TileGeometry;

pub use crate::uniforms::{Part, Settings};
use crate::{Batch, Error, Label, MarginSoftmax, Result, Shape, data::Finite, objective::Prepared};

/// A tensor that the caller gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named like the fields of `gpu::Io`
pub enum Slot {
    Embeddings,
    Prototypes(usize),
    Labels,
    ClassWeights,
    Upstream,
    Loss,
    RowLosses,
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
}

impl Slot {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Embeddings => "embeddings",
            Slot::Prototypes(_) => "prototypes",
            Slot::Labels => "labels",
            Slot::ClassWeights => "class_weights",
            Slot::Upstream => "upstream",
            Slot::Loss => "loss",
            Slot::RowLosses => "row_losses",
            Slot::GradEmbeddings => "grad_embeddings",
            Slot::GradPrototypes(_) => "grad_prototypes",
            Slot::Cosines => "cosines",
            Slot::GradCosines => "grad_cosines",
            Slot::Logits => "logits",
            Slot::GradLogits => "grad_logits",
            Slot::ClassMargins => "class_margins",
            Slot::RowMargins => "row_margins",
            Slot::Bias => "bias",
            Slot::State => "state",
            Slot::GradScale => "grad_scale",
            Slot::GradBias => "grad_bias",
        }
    }
}

/// Who owns a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Made by the executor, with at least these bytes.
    Workspace,
    /// Given by the caller.
    Given(Slot),
    /// Given by the caller or, if not, made by the executor with the buffer's bytes.
    Optional(Slot),
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
    /// Index into [`Plan::parts`]: the uniform at binding 1.
    pub part: usize,
    /// Indices into [`Plan::buffers`], for bindings 2, 3, …
    pub buffers: Vec<usize>,
    /// How many workgroups.
    pub grid: Grid,
}

/// A computation as plain data. Two uniform buffers go with it: the settings, and one entry of 256 bytes per part.
#[derive(Debug, Clone)]
pub struct Plan {
    shape: Shape,
    range: Range<usize>,
    entries: usize,
    /// Of the embeddings and the prototypes.
    elements: [Element; 2],
    snippets: kernels::Snippets,
    schedule: Schedule,
    buffers: Vec<Buffer>,
    kernels: Vec<Kernel>,
    parts: Vec<Part>,
    forward: Vec<Step>,
    /// Where follow, statistics and losses begin.
    cuts: [usize; 3],
    backward: Vec<Step>,
}

/// A part of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Norms, target cosines, and for inter-topk the hardest classes: what is known before margins apply.
    Targets,
    /// The steps that move the state; run in training steps only. Empty for most losses.
    UpdateState,
    /// The margins of the rows, and the rows' sums over the other classes.
    Statistics,
    /// The rows' losses and the reduced one.
    Losses,
}

/// Bytes from one part to the next in its uniform buffer: the largest offset alignment that a device may ask for.
pub const PART_STRIDE: u64 = 256;

/// Bytes that an executor allocates for these buffers, for so many parts and for the settings.
fn workspace_bytes(buffers: &[Buffer], parts: u64) -> u64 {
    let own = buffers.iter().filter(|buffer| !matches!(buffer.role, Role::Given(_)));
    own.map(|buffer| buffer.bytes).sum::<u64>() + parts * PART_STRIDE + Kernel::UNIFORMS[0]
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

    /// The parts, in the order of the steps' indices.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Statistics and loss: all stages, one after the other. An evaluation leaves [`Stage::UpdateState`] out.
    pub fn forward(&self) -> &[Step] {
        &self.forward
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

    /// The classes of this plan among those of its shape: all of them for a whole head.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Gradients; empty where none is wanted.
    pub fn backward(&self) -> &[Step] {
        &self.backward
    }

    /// Chunks of classes, keep or recompute, tile.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Bytes that an executor allocates beside the caller's tensors, uniforms included.
    pub fn workspace_bytes(&self) -> u64 {
        workspace_bytes(&self.buffers, self.parts.len() as u64)
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
        let needed = kernels::Snippets::of(loss, self.shape);
        if needed != self.snippets {
            return Err(Error::Recompile { needed: needed.name(), compiled: self.snippets.name() });
        }
        Ok(())
    }

    /// [`settings`](Self::settings) of a loss that the plan accepts.
    pub(crate) fn settings_of(&self, loss: &Prepared, call: &Call) -> Result<Settings> {
        if call.rows > self.shape.rows() {
            return Err(Error::Rows { found: call.rows, allowed: self.shape.rows() });
        }
        Ok(Settings::new(loss, self.shape, &self.range, self.entries, call))
    }

    /// Refuses what a head over slices refuses, for executors that get their input on the host: a loss that this plan cannot
    /// compute, too many rows, labels that name no class, and class weights, bias, margins and upstream gradients of a wrong
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

    /// Whether a tensor of this element can be given for the slot.
    pub fn check_element(&self, slot: Slot, found: Element) -> Result<()> {
        let expected = match slot {
            Slot::Embeddings => self.elements[0],
            Slot::Prototypes(_) => self.elements[1],
            Slot::Labels => Element::I32,
            _ => Element::F32,
        };
        if found == expected {
            return Ok(());
        }
        Err(Error::Element { what: slot.name(), found: found.name(), expected: expected.name() })
    }

    /// The buffer of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.buffers.iter().position(|b| b.name == name)
    }
}

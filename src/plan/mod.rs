//! HOW a GPU computes it, as plain data: buffers, kernels, steps. No device, no wgpu.
//!
//! A plan is what an executor needs: the buffers with their sizes, the WGSL text of every kernel, and two lists of steps.
//! [`gpu::Head`](crate::gpu::Head) runs it through wgpu; any other WebGPU runtime can.

mod builder;
#[cfg(feature = "catalogue")]
pub mod catalogue;
pub(crate) mod constants;
mod gather;
mod grid;
mod head;
pub(crate) mod kernel;
pub(crate) mod kernels;
pub(crate) mod monitor;
mod ops;
mod presets;
mod regularizer;
mod schedule;
pub(crate) mod settings;
mod tile;

use std::ops::Range;

use builder::Builder;
pub use grid::Grid;
pub use head::Layout;
pub use kernel::{Binding, Kernel, Loader};
pub use monitor::Strip;
pub use ops::{Batched, CrossEntropy};
pub use schedule::{Chunk, Schedule};
#[doc(hidden)]
pub use settings::twins;
pub use settings::{Call, Part, Settings};

use crate::{Batch, Error, Label, MarginSoftmax, Result, Shape, data::Finite};

/// The type of one value of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Element {
    /// 32-bit float.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Labels.
    I32,
    /// Raw words.
    U32,
}

impl Element {
    /// Bytes of one value.
    pub fn bytes(self) -> u64 {
        match self {
            Element::F16 | Element::Bf16 => 2,
            _ => 4,
        }
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::Bf16 => "bf16",
            Element::I32 => "i32",
            Element::U32 => "u32",
        }
    }

    /// How vectors of this element and width are read.
    pub(crate) fn loader(self, what: &'static str, width: usize, limits: &Limits) -> Result<Loader> {
        let quads = width.is_multiple_of(4);
        Ok(match (self, quads) {
            (Element::F32, _) => Loader::plain(width),
            (Element::F16, true) if limits.f16 => Loader::Halfx4,
            (Element::F16, false) if limits.f16 => Loader::Half,
            (Element::F16, true) => Loader::F16x4,
            (Element::F16, false) => Loader::F16,
            (Element::Bf16, true) => Loader::Bf16x4,
            (Element::Bf16, false) => Loader::Bf16,
            _ => return Err(Error::Element { what, found: self.name(), expected: "f32, f16 or bf16" }),
        })
    }
}

/// The limits of a device that matter for a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Limits {
    /// Bytes of one buffer.
    pub max_buffer: u64,
    /// Bytes of one storage binding.
    pub max_binding: u64,
    /// Workgroups along one axis.
    pub max_groups: u32,
    /// Storage buffers of one kernel; 8 are needed.
    pub storage_buffers: u32,
    /// Invocations of a workgroup; 256 are needed.
    pub invocations: u32,
    /// Invocations along the first axis of a workgroup; 256 are needed.
    #[cfg_attr(feature = "serde", serde(default = "size_x"))]
    pub size_x: u32,
    /// Bytes of workgroup memory; 8 KiB are needed, and more by most tiles.
    pub workgroup_bytes: u32,
    /// The alignment of a storage binding: its offset must be a multiple of this.
    pub alignment: u32,
    /// Whether shaders know the type f16; tensors of that element do without it too.
    #[cfg_attr(feature = "serde", serde(default))]
    pub f16: bool,
    /// Whether the device computes in software: what [`DevicePreset::Auto`](crate::DevicePreset) goes by.
    #[cfg_attr(feature = "serde", serde(default))]
    pub software: bool,
}

#[cfg(feature = "serde")]
fn size_x() -> u32 {
    Limits::WEBGPU.size_x
}

impl Limits {
    /// The limits that every WebGPU device has.
    pub const WEBGPU: Self = Self {
        max_buffer: 256 << 20,
        max_binding: 128 << 20,
        max_groups: 65_535,
        storage_buffers: 8,
        invocations: 256,
        size_x: 256,
        workgroup_bytes: 16 << 10,
        alignment: 256,
        f16: false,
        software: false,
    };

    /// The least that every head needs, apart from sizes and alignment, which decide what fits.
    pub(crate) const LEAST: Self = Self { max_groups: 1, alignment: 1, workgroup_bytes: 8 << 10, ..Self::WEBGPU };

    /// The most bytes of a buffer that is bound whole, and the limit that says so.
    pub(crate) fn tightest(&self) -> (&'static str, u64) {
        if self.max_buffer < self.max_binding {
            ("max_buffer_size", self.max_buffer)
        } else {
            ("max_storage_buffer_binding_size", self.max_binding)
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let least = Self::LEAST;
        let need = |what, limit, needed: u32, allowed: u32| {
            let (needed, allowed) = (u64::from(needed), u64::from(allowed));
            if allowed >= needed { Ok(()) } else { Err(Error::Limit { what, limit, needed, allowed }) }
        };
        need("a kernel", "max_storage_buffers_per_shader_stage", least.storage_buffers, self.storage_buffers)?;
        need("a workgroup", "max_compute_invocations_per_workgroup", least.invocations, self.invocations)?;
        need("a workgroup", "max_compute_workgroup_size_x", least.size_x, self.size_x)?;
        need("a workgroup", "max_compute_workgroup_storage_size", least.workgroup_bytes, self.workgroup_bytes)?;
        need("a dispatch", "max_compute_workgroups_per_dimension", least.max_groups, self.max_groups)?;
        need("a binding", "min_storage_buffer_offset_alignment", least.alignment, self.alignment)
    }
}

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
    Follow,
    /// The margins of the rows, and the rows' sums over the other classes.
    Statistics,
    /// The rows' losses and the reduced one.
    Losses,
}

/// Bytes from one part to the next in its uniform buffer: the largest offset alignment that a device may ask for.
pub const PART_STRIDE: u64 = 256;

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

    /// Statistics and loss: all stages, one after the other. An evaluation leaves [`Stage::Follow`] out.
    pub fn forward(&self) -> &[Step] {
        &self.forward
    }

    /// The steps of one stage among those of the forward pass.
    pub fn stage(&self, stage: Stage) -> Range<usize> {
        let [follow, statistics, losses] = self.cuts;
        match stage {
            Stage::Targets => 0..follow,
            Stage::Follow => follow..statistics,
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
        let own = |b: &&Buffer| !matches!(b.role, Role::Given(_));
        let buffers: u64 = self.buffers.iter().filter(own).map(|b| b.bytes).sum();
        buffers + self.parts.len() as u64 * PART_STRIDE + Kernel::UNIFORMS[0]
    }

    /// The settings of a loss and a call: what to write into the uniform at binding 0.
    ///
    /// [`Error::Recompile`] where the loss needs other kernels than the plan has.
    pub fn settings(&self, loss: &MarginSoftmax, call: &Call) -> Result<Settings> {
        loss.validate_for(self.shape)?;
        let needed = kernels::Snippets::of(loss, self.shape);
        if needed != self.snippets {
            return Err(Error::Recompile { needed: needed.name(), compiled: self.snippets.name() });
        }
        if call.rows > self.shape.rows() {
            return Err(Error::Rows { found: call.rows, allowed: self.shape.rows() });
        }
        Ok(Settings::new(loss, self.shape, &self.range, self.entries, call))
    }

    /// Refuses what a head over slices refuses, for executors that get their input on the host: a loss that this plan cannot
    /// compute, too many rows, labels that name no class, and class weights, bias, margins and upstream gradients of a wrong
    /// length or outside their range. Does not look at `embeddings` and `prototypes`.
    pub fn check<L: Label, T: Finite>(&self, loss: &MarginSoftmax, batch: &Batch<'_, L, T>) -> Result<()> {
        self.settings(loss, &Call::default())?;
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

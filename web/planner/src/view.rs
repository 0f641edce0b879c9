//! A plan as JavaScript reads it.

use margin_softmax::{
    MarginSoftmax,
    plan::{
        BATCH_WORDS, Binding, Buffer, CONSTANTS_STRIDE, Kernel, Plan, ROW_STATES, ROW_WORDS, Role, Stage, Step,
        TensorRole,
    },
};
use serde::{Serialize, Serializer};

/// A named loss.
#[derive(Serialize)]
pub struct Named {
    pub name: &'static str,
    pub source: &'static str,
    pub loss: MarginSoftmax,
}

#[derive(Serialize)]
pub struct View<'a> {
    /// Sizes of the two uniform bindings.
    uniforms: [u64; 2],
    /// Bytes from part to part.
    part_stride: u64,
    workspace_bytes: u64,
    /// First class and the one after the last.
    range: [usize; 2],
    /// Classes of each prototype buffer.
    shards: Vec<usize>,
    /// Nearest classes of each row that come out.
    predictions: usize,
    /// The most targets of a row; 0 without soft labels.
    soft_labels: usize,
    report: Report,
    schedule: Schedule,
    buffers: Vec<OneBuffer>,
    kernels: Vec<OneKernel<'a>>,
    forward: Vec<OneStep<'a>>,
    backward: Vec<OneStep<'a>>,
    /// Begin and end of each stage among the forward steps.
    stages: Stages,
}

/// Where rows and batch lie in the workspace, in words of 32 bits.
#[derive(Serialize)]
struct Report {
    #[serde(serialize_with = "words")]
    row: &'static [(&'static str, usize)],
    /// Counts, counts with a short embedding, is not finite.
    states: [u32; 3],
    #[serde(serialize_with = "words")]
    batch: &'static [(&'static str, usize)],
}

fn words<S: Serializer>(words: &&[(&str, usize)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(words.iter().copied())
}

#[derive(Serialize)]
struct Schedule {
    tile: &'static str,
    keep: bool,
    /// Classes of each round.
    chunks: Vec<usize>,
    slots: usize,
    splits: usize,
}

#[derive(Serialize)]
struct OneBuffer {
    name: &'static str,
    bytes: u64,
    /// `workspace`, `given` or `optional`.
    role: &'static str,
    /// Which of several prototypes or their gradients.
    shard: usize,
}

#[derive(Serialize)]
struct OneKernel<'a> {
    /// The entry point.
    name: &'static str,
    source: &'a str,
    /// From binding 2 on: whether it is written.
    written: Vec<bool>,
}

#[derive(Serialize)]
struct OneStep<'a> {
    kernel: usize,
    part: usize,
    buffers: &'a [usize],
}

#[derive(Serialize)]
struct Stages {
    targets: [usize; 2],
    follow: [usize; 2],
    statistics: [usize; 2],
    losses: [usize; 2],
}

impl<'a> View<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        let schedule = plan.schedule();
        let stage = |stage| {
            let steps = plan.stage(stage);
            [steps.start, steps.end]
        };
        Self {
            uniforms: Kernel::UNIFORMS,
            part_stride: CONSTANTS_STRIDE,
            workspace_bytes: plan.workspace_bytes(),
            range: [plan.range().start, plan.range().end],
            shards: plan.shard_sizes(),
            predictions: plan.predictions(),
            soft_labels: plan.soft_labels(),
            report: Report { row: ROW_WORDS, states: ROW_STATES, batch: BATCH_WORDS },
            schedule: Schedule {
                tile: schedule.tile.name(),
                keep: schedule.keep,
                chunks: schedule.chunks.iter().map(|chunk| chunk.count).collect(),
                slots: schedule.slots,
                splits: schedule.splits,
            },
            buffers: plan.buffers().iter().map(buffer).collect(),
            kernels: plan.kernels().iter().map(kernel).collect(),
            forward: plan.forward().iter().map(step).collect(),
            backward: plan.backward().iter().map(step).collect(),
            stages: Stages {
                targets: stage(Stage::Targets),
                follow: stage(Stage::UpdateState),
                statistics: stage(Stage::Statistics),
                losses: stage(Stage::Losses),
            },
        }
    }
}

fn buffer(buffer: &Buffer) -> OneBuffer {
    let (role, slot) = match buffer.role {
        Role::Workspace => ("workspace", None),
        Role::Given(slot) => ("given", Some(slot)),
        Role::Optional(slot) => ("optional", Some(slot)),
    };
    let shard = match slot {
        Some(TensorRole::Prototypes(shard) | TensorRole::GradPrototypes(shard)) => shard,
        _ => 0,
    };
    OneBuffer { name: buffer.name, bytes: buffer.bytes, role, shard }
}

fn kernel(kernel: &Kernel) -> OneKernel<'_> {
    let written = kernel.bindings.iter().map(|binding| *binding == Binding::Write).collect();
    OneKernel { name: kernel.name, source: &kernel.source, written }
}

fn step(step: &Step) -> OneStep<'_> {
    OneStep { kernel: step.kernel, part: step.constants, buffers: &step.buffers }
}

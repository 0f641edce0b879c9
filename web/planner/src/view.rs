//! A plan as JavaScript reads it.

use margin_softmax::plan::{Binding, Buffer, CONSTANTS_STRIDE, Kernel, Plan, Role, Stage, Step, TensorRole};
use serde::Serialize;

#[derive(Serialize)]
pub struct View<'a> {
    /// Sizes of the two uniform bindings.
    uniforms: [u64; 2],
    /// Bytes from part to part.
    part_stride: u64,
    workspace_bytes: u64,
    /// Classes of each prototype buffer.
    shards: Vec<usize>,
    schedule: Schedule,
    buffers: Vec<OneBuffer>,
    kernels: Vec<OneKernel<'a>>,
    forward: Vec<OneStep<'a>>,
    backward: Vec<OneStep<'a>>,
    /// Begin and end of each stage among the forward steps.
    stages: Stages,
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
            shards: plan.shard_sizes(),
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

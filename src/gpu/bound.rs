//! A plan with its buffers: ready to be recorded any number of times.

use std::sync::Arc;

use super::{
    Context, Tensor,
    pipeline::Pipeline,
    range::{Range, ranges},
    readback::Download,
    tensor::write,
};
use crate::{
    Error, MarginSoftmax, Result,
    data::Watch,
    objective::Prepared,
    plan::{CONSTANTS_STRIDE, Call, Kernel, Plan, Settings, Stage, Step, TensorRole},
};

/// The buffers of one use of a plan, bound to its kernels.
///
/// Its workspace is its own: two bound sets can be recorded into one submit, in any order.
pub struct Bound {
    context: Context,
    plan: Arc<Plan>,
    buffers: Vec<Range>,
    /// Which of them are the caller's.
    given: Vec<bool>,
    uniform: wgpu::Buffer,
    constants: wgpu::Buffer,
    groups: Vec<wgpu::BindGroup>,
    /// Forward, then backward.
    steps: Vec<BoundStep>,
}

/// The submits of a call that is watched, where its caller gives no bound for one.
const PARTS: u64 = 16;

/// Pipeline, bind group 0, its dynamic offset, workgroups.
#[cfg(feature = "catalogue")]
pub type Dispatch = (wgpu::ComputePipeline, wgpu::BindGroup, u32, [u32; 3]);

/// One recorded step; `size` is `None` where there is nothing to do in the current call.
struct BoundStep {
    pipeline: Arc<Pipeline>,
    group: usize,
    /// Of its constants.
    offset: u32,
    size: Option<[u32; 3]>,
}

impl Bound {
    /// `keep` or `recompute`.
    pub(super) fn schedule(&self) -> &'static str {
        if self.plan.schedule().keep { "keep" } else { "recompute" }
    }

    /// Compiles what is not compiled yet, allocates the workspace, binds everything.
    pub fn new(
        context: &Context,
        plan: &Arc<Plan>,
        given: &[(TensorRole, &Tensor)],
        loss: &MarginSoftmax,
        call: &Call,
    ) -> Result<Self> {
        Self::of(context, plan, given, &Prepared::new(loss, plan.shape())?, call)
    }

    /// The same with a loss that was checked.
    pub(super) fn of(
        context: &Context,
        plan: &Arc<Plan>,
        given: &[(TensorRole, &Tensor)],
        loss: &Prepared,
        call: &Call,
    ) -> Result<Self> {
        plan.accepts(loss)?;
        let settings = plan.settings_of(loss, call)?;
        super::custom::check(context, loss, plan)?;
        // everything that can be refused is refused before anything is made
        let ranges = ranges(context, plan, given)?;
        let present = ranges.iter().map(Option::is_some).collect();

        let pipelines = plan.kernels().iter().map(|k| context.pipeline(k)).collect::<Result<Vec<_>>>()?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let mut buffers = vec![];
        for (buffer, range) in plan.buffers().iter().zip(ranges) {
            buffers.push(match range {
                Some(range) => range,
                None => {
                    Range { bytes: buffer.bytes, ..Range::whole(&context.buffer(buffer.name, buffer.bytes, usage)?) }
                }
            });
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniform = context.buffer("settings", Kernel::UNIFORMS[0], usage)?;
        let constants = context.buffer("constants", plan.constants().len() as u64 * CONSTANTS_STRIDE, usage)?;
        let mut table = vec![0; plan.constants().len() * CONSTANTS_STRIDE as usize];
        for (entry, constants) in table.chunks_exact_mut(CONSTANTS_STRIDE as usize).zip(plan.constants()) {
            entry[..size_of_val(constants)].copy_from_slice(constants.bytes());
        }
        write(context, &constants, 0, &table)?;

        let mut made: Vec<(usize, Vec<usize>)> = vec![];
        let mut groups = vec![];
        let mut dispatch = |step: &Step| -> Result<BoundStep> {
            let key = (step.kernel, step.buffers.clone());
            let group = match made.iter().position(|k| *k == key) {
                Some(group) => group,
                None => {
                    let layout = &pipelines[step.kernel].layout;
                    let chosen: Vec<&Range> = step.buffers.iter().map(|&b| &buffers[b]).collect();
                    groups.push(group(context, layout, [&uniform, &constants], &chosen, given)?);
                    made.push(key);
                    groups.len() - 1
                }
            };
            let offset = (step.constants as u64 * CONSTANTS_STRIDE) as u32;
            Ok(BoundStep { pipeline: pipelines[step.kernel].clone(), group, offset, size: None })
        };
        let steps = plan.steps().map(&mut dispatch).collect::<Result<Vec<_>>>()?;
        let (context, plan) = (context.clone(), plan.clone());
        let mut bound = Self { context, plan, buffers, given: present, uniform, constants, groups, steps };
        bound.apply(&settings, call)?;
        Ok(bound)
    }

    /// The same for one use with all rows of the plan, whose tensors are of the elements that were planned.
    pub(super) fn once(
        context: &Context,
        plan: Plan,
        given: &[(TensorRole, &Tensor)],
        loss: &MarginSoftmax,
        call: Call,
    ) -> Result<Self> {
        for (role, tensor) in given {
            plan.check_element(*role, tensor.element())?;
        }
        let call = Call { rows: plan.shape().rows(), ..call };
        Self::new(context, &Arc::new(plan), given, loss, &call)
    }

    /// [`once`](Self::once), recorded; the encoder keeps the bindings and the workspace alive.
    pub(super) fn record_once(
        context: &Context,
        encoder: &mut wgpu::CommandEncoder,
        plan: Plan,
        given: &[(TensorRole, &Tensor)],
        loss: &MarginSoftmax,
        call: Call,
    ) -> Result<()> {
        Self::once(context, plan, given, loss, call)?.record_forward(false, encoder);
        Ok(())
    }

    /// Other tensors in the same roles: new bind groups where a buffer changed. The workspace stays, with what it holds.
    pub(super) fn rebind(&mut self, given: &[(TensorRole, &Tensor)]) -> Result<()> {
        let ranges = ranges(&self.context, &self.plan, given)?;
        let mut buffers = self.buffers.clone();
        let mut changed = vec![false; buffers.len()];
        for (i, range) in ranges.into_iter().enumerate() {
            if range.is_some() != self.given[i] {
                let why = "other tensors are given than when the head was bound; bind again";
                return Err(Error::Combination { what: self.plan.buffers()[i].name, why });
            }
            if let Some(range) = range {
                changed[i] = range != buffers[i];
                buffers[i] = range;
            }
        }
        let mut groups = self.groups.clone();
        let mut made = vec![false; groups.len()];
        for (step, dispatch) in self.plan.steps().zip(&self.steps) {
            let index = dispatch.group;
            if made[index] || !step.buffers.iter().any(|&b| changed[b]) {
                continue;
            }
            let chosen: Vec<&Range> = step.buffers.iter().map(|&b| &buffers[b]).collect();
            let layout = &dispatch.pipeline.layout;
            groups[index] = group(&self.context, layout, [&self.uniform, &self.constants], &chosen, given)?;
            made[index] = true;
        }
        (self.buffers, self.groups) = (buffers, groups);
        Ok(())
    }

    /// A new loss that the plan accepts, or a new call: one queue write. Holds for every later submit.
    pub(super) fn update(&mut self, loss: &Prepared, call: &Call) -> Result<()> {
        let settings = self.plan.settings_of(loss, call)?;
        self.apply(&settings, call)
    }

    fn apply(&mut self, settings: &Settings, call: &Call) -> Result<()> {
        let most = self.context.limits().max_groups;
        for (bound, step) in self.steps.iter_mut().zip(self.plan.steps()) {
            bound.size = step.dispatch(call, most)?;
        }
        write(&self.context, &self.uniform, 0, settings.bytes())
    }

    /// The settings of the current loss and rows, for kernels that run beside the plan.
    pub(super) fn settings(&self) -> &wgpu::Buffer {
        &self.uniform
    }

    /// The bytes of the buffer of this name.
    fn range(&self, name: &'static str) -> Result<&Range> {
        let found = self.plan.find(name).map(|i| &self.buffers[i]);
        found.ok_or(Error::Missing { what: name, why: "the plan has it" })
    }

    /// A workspace buffer.
    pub(super) fn workspace(&self, name: &'static str) -> Result<&wgpu::Buffer> {
        Ok(&self.range(name)?.buffer)
    }

    /// Every buffer with its offset and the bytes that are bound, in the plan's order: for tests of what a run leaves.
    #[cfg(feature = "catalogue")]
    pub fn buffers(&self) -> impl Iterator<Item = (&crate::plan::Buffer, &wgpu::Buffer, std::ops::Range<u64>)> {
        let bound = self.plan.buffers().iter().zip(&self.buffers);
        bound.map(|(planned, r)| (planned, &r.buffer, r.offset..r.offset + r.bytes))
    }

    /// Overwrites the first bytes of a buffer of the plan; takes effect before any later submit.
    pub(super) fn write(&self, name: &'static str, bytes: &[u8]) -> Result<()> {
        let range = self.range(name)?;
        if !range.buffer.usage().contains(wgpu::BufferUsages::COPY_DST) {
            return Err(Error::Usage { what: name, usage: "COPY_DST" });
        }
        write(&self.context, &range.buffer, range.offset, bytes)
    }

    /// The first values of a buffer of the plan, as the work submitted so far leaves them.
    pub(super) async fn read<T: bytemuck::Pod>(&self, name: &'static str, count: usize) -> Result<Vec<T>> {
        self.download::<T>(name, count)?.values(count).await
    }

    /// [`read`](Self::read), begun.
    pub(super) fn download<T>(&self, name: &'static str, count: usize) -> Result<Download> {
        let staging = Download::staging(&self.context, (count * size_of::<T>()) as u64)?;
        self.download_in::<T>(name, count, staging)
    }

    /// The same through a buffer of at least so many values.
    pub(super) fn download_in<T>(&self, name: &'static str, count: usize, staging: wgpu::Buffer) -> Result<Download> {
        self.download_after::<T>(name, count, staging, |_| {})
    }

    /// The same as this work leaves them, in one submit with it.
    fn download_after<T>(
        &self,
        name: &'static str,
        count: usize,
        staging: wgpu::Buffer,
        work: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<Download> {
        let range = self.range(name)?;
        if !range.buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::Usage { what: name, usage: "COPY_SRC" });
        }
        let bytes = (count * size_of::<T>()) as u64;
        let copy = |encoder: &mut wgpu::CommandEncoder, staging: &wgpu::Buffer| {
            work(encoder);
            encoder.copy_buffer_to_buffer(&range.buffer, range.offset, staging, 0, bytes);
        };
        Download::start_in(&self.context, staging, bytes, copy)
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// All stages; `follow` in a training step.
    pub fn record_forward(&self, follow: bool, encoder: &mut wgpu::CommandEncoder) {
        self.record("forward", self.forward_steps(follow).into_iter().flatten(), encoder);
    }

    pub(super) fn record_backward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.record("backward", self.backward_steps(), encoder);
    }

    /// Submits steps, in as many parts as the plan says, and what else is to be recorded with the last of them.
    pub(super) fn submit(
        &self,
        steps: impl IntoIterator<Item = usize>,
        last: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex> {
        let mut parts = self.plan.parts(steps);
        let end = parts.pop().unwrap_or_default();
        for part in parts {
            self.context.submit(|encoder| self.record("part", part, encoder))?;
        }
        self.submit_part(end, last)
    }

    /// [`submit`](Self::submit), with a report after each part but the last. Two are under way at a time, so that the device need
    /// not wait. Where the plan has no bound for a submit, a sixteenth of the work is one.
    pub(super) async fn submit_watched(
        &self,
        steps: impl IntoIterator<Item = usize>,
        last: impl FnOnce(&mut wgpu::CommandEncoder),
        watch: &mut Watch,
    ) -> Result<wgpu::SubmissionIndex> {
        if !watch.is_on() {
            return self.submit(steps, last);
        }
        let work = |steps: &[usize]| steps.iter().map(|&step| self.plan.work(step)).sum::<u64>();
        let steps: Vec<usize> = steps.into_iter().collect();
        let total = work(&steps);
        watch.begin(total);
        let mut parts = self.plan.parts_within(steps, self.plan.work_per_submit().unwrap_or(total / PARTS));
        let end = parts.pop().unwrap_or_default();
        let mut ahead: Option<(Download, u64)> = None;
        for part in parts {
            let work = work(&part);
            // one value comes back: it says that the part is done
            let staging = Download::staging(&self.context, size_of::<u32>() as u64)?;
            let next = self.download_after::<u32>("batch", 1, staging, |encoder| self.record("part", part, encoder))?;
            if let Some((before, work)) = ahead.replace((next, work)) {
                before.values::<u32>(1).await?;
                watch.add(work)?;
            }
        }
        let submission = self.submit_part(end, last)?;
        if let Some((before, work)) = ahead {
            before.values::<u32>(1).await?;
            watch.add(work)?;
        }
        Ok(submission)
    }

    fn submit_part(
        &self,
        part: Vec<usize>,
        last: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex> {
        self.context.submit(|encoder| {
            self.record("part", part, encoder);
            last(encoder);
        })
    }

    /// The steps of a forward pass, in order, as ranges of [`steps`](Self::steps); `follow` in a training step.
    pub(super) fn forward_steps(&self, follow: bool) -> [std::ops::Range<usize>; 2] {
        let last = self.plan.stage(Stage::Losses).end;
        let cut = self.plan.stage(if follow { Stage::UpdateState } else { Stage::Statistics }).start;
        [self.plan.stage(Stage::Targets), cut..last]
    }

    pub(super) fn backward_steps(&self) -> std::ops::Range<usize> {
        self.plan.forward().len()..self.steps.len()
    }

    pub(super) fn record(
        &self,
        label: &'static str,
        steps: impl IntoIterator<Item = usize>,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes: None };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        steps.into_iter().for_each(|step| self.dispatch(step, &mut pass));
    }

    /// The kernel of a step; `None` where the current call leaves it nothing to do.
    pub(super) fn kernel(&self, step: usize) -> Option<&'static str> {
        let planned = self.plan.steps().nth(step)?;
        self.steps.get(step)?.size.and(Some(self.plan.kernels()[planned.kernel].name))
    }

    /// The wgpu objects of some steps.
    #[cfg(feature = "catalogue")]
    pub(super) fn dispatches(&self, steps: impl Iterator<Item = usize>) -> Vec<Dispatch> {
        let one = |step: &BoundStep| {
            let group = self.groups[step.group].clone();
            Some((step.pipeline.pipeline.clone(), group, step.offset, step.size?))
        };
        steps.filter_map(|i| one(&self.steps[i])).collect()
    }

    pub(super) fn dispatch(&self, step: usize, pass: &mut wgpu::ComputePass<'_>) {
        let step = &self.steps[step];
        if let Some([x, y, z]) = step.size {
            pass.set_pipeline(&step.pipeline.pipeline);
            pass.set_bind_group(0, &self.groups[step.group], &[step.offset]);
            pass.dispatch_workgroups(x, y, z);
        }
    }
}

/// A bind group; where a buffer is not of this device, the error names the caller's tensor.
fn group(
    context: &Context,
    layout: &wgpu::BindGroupLayout,
    uniforms: [&wgpu::Buffer; 2],
    storage: &[&Range],
    given: &[(TensorRole, &Tensor)],
) -> Result<wgpu::BindGroup> {
    let made = context.created(|| bind_group(context, layout, uniforms, storage));
    let foreign = || given.iter().find_map(|(role, tensor)| tensor.foreign(context, role.name()));
    made.map_err(|error| foreign().unwrap_or(error))
}

pub(super) fn bind_group(
    context: &Context,
    layout: &wgpu::BindGroupLayout,
    [settings, constants]: [&wgpu::Buffer; 2],
    storage: &[&Range],
) -> wgpu::BindGroup {
    let range = |buffer, offset, bytes| {
        let size = std::num::NonZeroU64::new(bytes);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
    };
    let mut entries = vec![
        wgpu::BindGroupEntry { binding: 0, resource: range(settings, 0, Kernel::UNIFORMS[0]) },
        wgpu::BindGroupEntry { binding: 1, resource: range(constants, 0, Kernel::UNIFORMS[1]) },
    ];
    for (i, r) in storage.iter().enumerate() {
        let resource = range(&r.buffer, r.offset, r.bytes);
        entries.push(wgpu::BindGroupEntry { binding: i as u32 + 2, resource });
    }
    context.device().create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}

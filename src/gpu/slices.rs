//! A head over slices on a device: uploads, records, submits, reads back.

use std::{ops::Range, sync::Arc};

use bytemuck::Zeroable;

use super::{Context, Head, Io, Tensor, head::BoundHead, readback};
use crate::{
    Error, Options, Output, Result, Shape, State,
    data::NO_COSINE,
    objective::{CheckedBatch, Prepared},
    plan::{Call, Element, Layout, Plan, Slot, Stage},
    uniforms::{self, BatchState, Row, constants},
};

/// Everything is made once: tensors, staging, bindings.
pub(crate) struct SliceHead {
    pub(super) context: Context,
    pub(super) bound: BoundHead,
    pub(super) loss: Arc<Prepared>,
    pub(super) shape: Shape,
    pub(super) range: Range<usize>,
    inputs: Inputs,
    /// One per result that is read back.
    staging: Vec<Staging>,
    shards: Vec<usize>,
    /// Rows of a batch whose results are mapped, or will be. Still there when the next batch comes if an error, or a
    /// future that was dropped, came between.
    pending: Option<usize>,
}

struct Inputs {
    embeddings: Tensor,
    prototypes: Vec<Tensor>,
    labels: Tensor,
    class_weights: Tensor,
    row_margins: Option<Tensor>,
    bias: Option<Tensor>,
    upstream: Tensor,
}

/// Where a result comes from, and the buffer it is mapped through.
struct Staging {
    result: What,
    source: wgpu::Buffer,
    buffer: wgpu::Buffer,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Rows,
    Batch,
    GradEmbeddings,
    /// first value in dW, values
    GradPrototypes(usize, usize),
    GradScale,
    GradBias(usize),
    State,
    Filtered,
}

impl SliceHead {
    pub fn new(
        context: &Context,
        loss: &Arc<Prepared>,
        shape: Shape,
        range: Range<usize>,
        options: &Options,
    ) -> Result<Self> {
        // one row at least, so that no tensor is empty
        let held = Shape::new(shape.rows().max(1), shape.classes(), shape.dim())?;
        let held = held.with_sub_centers(shape.sub_centers())?;
        let (n, d, k) = (held.rows(), held.dim(), held.sub_centers());
        let own = Shape::new(n, range.len(), d)?.with_sub_centers(k)?;
        let shards = Plan::shards(own, Element::F32, context.limits())?;
        let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
        let plan = Plan::checked(loss, held, range.clone(), &layout, context.limits(), options)?;
        let follows = !plan.stage(Stage::UpdateState).is_empty();
        let scale = plan.buffers().iter().any(|b| b.name == Slot::GradScale.name());
        let biased = plan.buffers().iter().any(|b| b.name == Slot::GradBias.name());
        let head = Head::of_any(context, loss, plan)?;
        let f32_tensor = |shape: &[usize]| Tensor::empty(context, shape, Element::F32);
        let vectors = |count: usize| if k > 1 { vec![count, k, d] } else { vec![count, d] };
        let per_shard = || shards.iter().map(|&count| f32_tensor(&vectors(count))).collect::<Result<Vec<_>>>();
        let linear = loss.is_linear();
        let inputs = Inputs {
            embeddings: f32_tensor(&[n, d])?,
            prototypes: per_shard()?,
            labels: Tensor::empty(context, &[n], Element::I32)?,
            class_weights: f32_tensor(&[shape.classes()])?,
            row_margins: loss.has_margins().then(|| f32_tensor(&[n, 4])).transpose()?,
            bias: linear.then(|| f32_tensor(&[range.len()])).transpose()?,
            upstream: f32_tensor(&[n])?,
        };
        let loss_out = f32_tensor(&[1])?;
        let want = options.want;
        let grad_embeddings = want.grad_embeddings.then(|| f32_tensor(&[n, d])).transpose()?;
        let grad_prototypes = if want.grad_prototypes { per_shard()? } else { vec![] };
        let grad_scale = scale.then(|| f32_tensor(&[1])).transpose()?;
        let grad_bias = biased.then(|| f32_tensor(&[if linear { range.len() } else { 1 }])).transpose()?;
        let prototypes = inputs.prototypes.iter().collect::<Vec<_>>();
        let io = Io {
            class_weights: Some(&inputs.class_weights),
            row_margins: inputs.row_margins.as_ref(),
            bias: inputs.bias.as_ref(),
            grad_embeddings: grad_embeddings.as_ref(),
            grad_prototypes: &grad_prototypes.iter().collect::<Vec<_>>(),
            grad_scale: grad_scale.as_ref(),
            grad_bias: grad_bias.as_ref(),
            ..Io::new(&inputs.embeddings, &prototypes, &inputs.labels, &loss_out)
        };
        // upstream has N values in any case: with a reduction only the first is read
        let bound = head.bind_any(&io, Some(&inputs.upstream))?;

        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let mut staging = vec![];
        let mut stage = |result, source: &wgpu::Buffer, bytes| {
            let buffer = context.buffer("staging", bytes, usage)?;
            staging.push(Staging { result, source: source.clone(), buffer });
            Ok::<_, Error>(())
        };
        let workspace = |name| bound.bound.workspace(name).ok_or(Error::Missing { what: name, why: "a head has it" });
        stage(What::Rows, workspace("rows")?, (n * size_of::<Row>()) as u64)?;
        stage(What::Batch, workspace("batch")?, size_of::<BatchState>() as u64)?;
        if let Some(tensor) = &grad_embeddings {
            stage(What::GradEmbeddings, tensor.buffer(), tensor.bytes())?;
        }
        let mut first = 0;
        for tensor in &grad_prototypes {
            stage(What::GradPrototypes(first, tensor.len()), tensor.buffer(), tensor.bytes())?;
            first += tensor.len();
        }
        if let Some(tensor) = &grad_scale {
            stage(What::GradScale, tensor.buffer(), 4)?;
        }
        if let Some(tensor) = &grad_bias {
            stage(What::GradBias(tensor.len()), tensor.buffer(), tensor.bytes())?;
        }
        if options.filter.is_some() {
            stage(What::Filtered, workspace("filtered")?, size_of::<uniforms::Filtered>() as u64)?;
        }
        if follows {
            stage(What::State, workspace("state")?, 16)?;
        }
        let (context, loss) = (context.clone(), loss.clone());
        Ok(Self { context, bound, loss, shape, range, inputs, staging, shards, pending: None })
    }

    /// `keep` or `recompute`.
    pub fn schedule(&self) -> &'static str {
        self.bound.bound.schedule()
    }

    pub fn update(&mut self, loss: &Arc<Prepared>) -> Result<()> {
        // the rows are those of the next batch
        self.bound.call(loss, Call::default())?;
        self.loss = loss.clone();
        Ok(())
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub fn step(&mut self, batch: &CheckedBatch<'_>, state: &mut State, follow: bool, out: &mut Output) -> Result<()> {
        let (rows, submission) = self.submit(batch, state, follow)?;
        for mapping in self.map(rows)? {
            mapping.wait(&submission)?;
        }
        self.collect(rows, out, follow.then_some(state))
    }

    pub async fn step_async(&mut self, batch: &CheckedBatch<'_>, state: &mut State, follow: bool) -> Result<Output> {
        let (rows, _) = self.submit(batch, state, follow)?;
        for mapping in self.map(rows)? {
            mapping.await?;
        }
        let mut out = Output::default();
        self.collect(rows, &mut out, follow.then_some(state))?;
        Ok(out)
    }

    /// Asks for every result; until they are read the staging buffers are not ours.
    pub(super) fn map(&mut self, rows: usize) -> Result<Vec<readback::Mapping>> {
        self.pending = Some(rows);
        let start = |(staging, bytes): (&Staging, u64)| readback::Mapping::start(&self.context, &staging.buffer, bytes);
        self.wanted(rows).map(start).collect()
    }

    /// Gives the staging buffers back to the device; cancels what is still under way.
    fn unmap(&mut self) {
        if let Some(rows) = self.pending.take() {
            for (staging, _) in self.wanted(rows) {
                // a mapping that failed is no error a second time
                #[cfg(not(target_arch = "wasm32"))]
                let _ = self.context.guarded(|| staging.buffer.unmap());
                // there it never is, and the errors of other calls are not ours to take
                #[cfg(target_arch = "wasm32")]
                staging.buffer.unmap();
            }
        }
    }

    /// Uploads, records and submits one batch.
    fn submit(
        &mut self,
        batch: &CheckedBatch<'_>,
        state: &State,
        follow: bool,
    ) -> Result<(usize, wgpu::SubmissionIndex)> {
        let rows = self.upload(batch, state, follow)?;
        let context = &self.context;
        let submission = context.guarded(|| {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            self.bound.record_forward(&mut encoder);
            self.bound.record_backward(&mut encoder);
            self.copy_results(rows, &mut encoder);
            context.queue().submit([encoder.finish()])
        })?;
        Ok((rows, submission))
    }

    pub(super) fn copy_results(&self, rows: usize, encoder: &mut wgpu::CommandEncoder) {
        for (staging, bytes) in self.wanted(rows) {
            encoder.copy_buffer_to_buffer(&staging.source, 0, &staging.buffer, 0, bytes);
        }
    }

    /// Uploads one batch; returns its rows.
    pub(super) fn upload(&mut self, batch: &CheckedBatch<'_>, state: &State, follow: bool) -> Result<usize> {
        let labels: Vec<i32> = batch.labels.iter().map(|&y| y as i32).collect();
        let rows = labels.len();
        self.unmap();
        let context = &self.context;
        let upload = |tensor: &Tensor, values: &[u8]| super::tensor::write(context, tensor.buffer(), 0, values);
        upload(&self.inputs.embeddings, bytemuck::cast_slice(batch.embeddings))?;
        upload(&self.inputs.labels, bytemuck::cast_slice(&labels))?;
        let mut rest = batch.prototypes;
        for (tensor, count) in self.inputs.prototypes.iter().zip(&self.shards) {
            let (own, next) = rest.split_at(count * self.shape.sub_centers() * self.shape.dim());
            upload(tensor, bytemuck::cast_slice(own))?;
            rest = next;
        }
        if let Some(weights) = batch.class_weights {
            upload(&self.inputs.class_weights, bytemuck::cast_slice(weights))?;
        }
        if let (Some(margins), Some(tensor)) = (&batch.margins, &self.inputs.row_margins) {
            let margins: Vec<[f32; 4]> = margins.iter().map(|m| m.map(|m| m as f32)).collect();
            upload(tensor, bytemuck::cast_slice(&margins))?;
        }
        if let Some(tensor) = &self.inputs.bias {
            let none = if batch.bias.is_none() { vec![0.0; self.range.len()] } else { vec![] };
            upload(tensor, bytemuck::cast_slice(batch.bias.unwrap_or(&none)))?;
        }
        if let Some(upstream) = batch.upstream {
            upload(&self.inputs.upstream, bytemuck::cast_slice(upstream))?;
        }
        let call = Call {
            rows,
            class_weights: batch.class_weights.is_some(),
            upstream: batch.upstream.is_some(),
            row_margins: batch.margins.is_some(),
            ..Call::default()
        };
        self.bound.call(&self.loss, call)?;
        self.bound.set_training(follow);
        self.bound.set_state(state)?;
        Ok(rows)
    }

    /// The bytes that are read back for this many rows.
    fn wanted(&self, rows: usize) -> impl Iterator<Item = (&Staging, u64)> {
        let dim = self.shape.dim();
        let sized = move |staging: &'_ Staging| -> u64 {
            let bytes = match staging.result {
                What::Rows => rows * size_of::<Row>(),
                What::Batch => size_of::<BatchState>(),
                What::GradEmbeddings => rows * dim * 4,
                What::GradPrototypes(_, len) | What::GradBias(len) => len * 4,
                What::GradScale => 4,
                What::State => 16,
                What::Filtered => size_of::<uniforms::Filtered>(),
            };
            bytes as u64
        };
        self.staging.iter().map(move |s| (s, sized(s))).filter(|(_, bytes)| *bytes > 0)
    }

    /// Copies the mapped results out. Nothing can fail once the first value of `out` is written.
    pub(super) fn collect(&mut self, rows: usize, out: &mut Output, state: Option<&mut State>) -> Result<()> {
        let mut moved = [0.0_f32; 4];
        let mut states = vec![Row::zeroed(); rows];
        let mut batch = BatchState::zeroed();
        let mut left_out = None;
        let dim = self.shape.dim();
        let view = |(staging, bytes): (&Staging, u64)| {
            Ok((staging.result, readback::view(&self.context, &staging.buffer, bytes)?))
        };
        let views = self.wanted(rows).map(view).collect::<Result<Vec<_>>>()?;
        out.grad_embeddings.clear();
        out.grad_prototypes.clear();
        out.grad_scale = 0.0;
        out.grad_bias.clear();
        for (result, view) in &views {
            let into: &mut [u8] = match *result {
                What::Rows => bytemuck::cast_slice_mut(&mut states),
                What::Batch => bytemuck::bytes_of_mut(&mut batch),
                What::GradEmbeddings => {
                    out.grad_embeddings.resize(rows * dim, 0.0);
                    bytemuck::cast_slice_mut(&mut out.grad_embeddings)
                }
                What::GradPrototypes(first, len) => {
                    out.grad_prototypes.resize(first + len, 0.0);
                    bytemuck::cast_slice_mut(&mut out.grad_prototypes[first..])
                }
                What::GradScale => bytemuck::bytes_of_mut(&mut out.grad_scale),
                What::GradBias(len) => {
                    out.grad_bias.resize(len, 0.0);
                    bytemuck::cast_slice_mut(&mut out.grad_bias)
                }
                What::State => bytemuck::bytes_of_mut(&mut moved),
                What::Filtered => bytemuck::bytes_of_mut(left_out.insert(uniforms::Filtered::zeroed())),
            };
            into.copy_from_slice(view);
        }
        drop(views);
        self.unmap();
        let broken = batch.non_finite_prototypes > 0;
        out.loss = batch.loss;
        out.row_losses.clear();
        out.row_losses.extend(states.iter().map(|r| r.loss));
        out.target_cosines.clear();
        let known = |r: &Row| matches!(r.state, constants::COUNTS | constants::SHORT) && !broken;
        out.target_cosines.extend(states.iter().map(|r| if known(r) { r.cosine } else { 0.0 }));
        out.other_cosines.clear();
        out.other_cosines.extend(states.iter().map(|r| if broken { NO_COSINE as f32 } else { r.nearest }));
        out.counts = super::head::counts(&batch);
        let none = uniforms::Filtered::default();
        out.filtered = left_out.map(|found| {
            let found = if rows == 0 { none } else { found };
            super::head::filtered(&found, &out.counts, self.range.len())
        });
        if let Some(state) = state {
            super::head::moved(&self.loss, moved, state);
        }
        Ok(())
    }
}

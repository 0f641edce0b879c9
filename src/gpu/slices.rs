//! A head over slices on a device: uploads, records, submits, reads back.

use std::ops::Range;

use bytemuck::Zeroable;

use super::{
    Context, Head, Io, Tensor,
    bound::Bound,
    head::BoundHead,
    io::{biases, margins, needs, vectors},
    predictor::Lists,
    readback,
    soft_labels::SoftTensors,
};
use crate::{
    MarginSoftmax, Options, Output, Result, Shape, State,
    data::{MarginGradients, NO_COSINE, Watch},
    objective::{CheckedBatch, Prepared},
    plan::{Call, Element, Layout, Plan, Stage, TensorRole},
    uniforms::{self, BatchState, Row, constants},
};

/// Everything is made once: tensors, staging, bindings.
pub(crate) struct DeviceHead {
    pub(super) context: Context,
    pub(super) bound: BoundHead,
    pub(super) loss: Prepared,
    pub(super) shape: Shape,
    pub(super) range: Range<usize>,
    inputs: BatchTensors,
    /// One per result that is read back.
    staging: Vec<Staging>,
    /// Rows of a batch whose results are mapped, or will be. Still there when the next batch comes if an error, or a
    /// future that was dropped, came between.
    pending: Option<usize>,
    /// Nearest classes of a row; 0 if none are wanted.
    predictions: usize,
}

/// The tensors that a batch is uploaded to.
struct BatchTensors {
    embeddings: Tensor,
    prototypes: Vec<Tensor>,
    labels: Tensor,
    class_weights: Tensor,
    row_weights: Tensor,
    soft: Option<SoftTensors>,
    row_margins: Option<Tensor>,
    bias: Option<Tensor>,
    /// One value per row in any case: with a reduction only the first is read.
    upstream: Tensor,
}

impl BatchTensors {
    fn new(context: &Context, loss: &MarginSoftmax, plan: &Plan) -> Result<Self> {
        let shape = plan.shape();
        let n = shape.rows();
        let tensor = |shape: &[usize]| Tensor::empty(context, shape, Element::F32);
        Ok(Self {
            embeddings: tensor(&[n, shape.dim()])?,
            prototypes: per_shard(context, plan)?,
            labels: Tensor::empty(context, &[n], Element::I32)?,
            class_weights: tensor(&[shape.classes()])?,
            row_weights: tensor(&[n])?,
            soft: SoftTensors::new(context, plan)?,
            row_margins: loss.has_margins().then(|| tensor(&[n, 4])).transpose()?,
            bias: loss.is_linear().then(|| tensor(&[plan.range().len()])).transpose()?,
            upstream: tensor(&[n])?,
        })
    }
}

/// The tensors that results are written to, as far as the plan computes them.
struct ResultTensors {
    loss: Tensor,
    grad_embeddings: Option<Tensor>,
    grad_prototypes: Vec<Tensor>,
    grad_scale: Option<Tensor>,
    grad_bias: Option<Tensor>,
    grad_margins: Option<Tensor>,
}

impl ResultTensors {
    fn new(context: &Context, loss: &MarginSoftmax, plan: &Plan) -> Result<Self> {
        let shape = plan.shape();
        let tensor = |shape: &[usize]| Tensor::empty(context, shape, Element::F32);
        let gradient = |role, shape: &[usize]| needs(plan, role).then(|| tensor(shape)).transpose();
        Ok(Self {
            loss: tensor(&[1])?,
            grad_embeddings: gradient(TensorRole::GradEmbeddings, &[shape.rows(), shape.dim()])?,
            grad_prototypes: match needs(plan, TensorRole::GradPrototypes(0)) {
                true => per_shard(context, plan)?,
                false => vec![],
            },
            grad_scale: gradient(TensorRole::GradScale, &[1])?,
            grad_bias: gradient(TensorRole::GradBias, &[biases(plan, loss)])?,
            grad_margins: gradient(TensorRole::GradMargins, &margins(plan))?,
        })
    }
}

/// A tensor for the prototypes of each shard, or for their gradients.
fn per_shard(context: &Context, plan: &Plan) -> Result<Vec<Tensor>> {
    let tensor = |count| Tensor::empty(context, &vectors(plan.shape(), count), Element::F32);
    plan.shard_sizes().into_iter().map(tensor).collect()
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
    /// values; those of rows are the batch's
    GradMargins(usize),
    GradMarginsOfRows,
    State,
    Filtered,
    Nearest,
    LogSums,
    LogSumExps,
}

impl What {
    /// Its bytes for this many rows of embeddings of `dim` values, with so many predictions each.
    fn bytes(self, rows: usize, [dim, predictions]: [usize; 2]) -> u64 {
        let bytes = match self {
            What::Rows => rows * size_of::<Row>(),
            What::Batch => size_of::<BatchState>(),
            What::GradEmbeddings => rows * dim * 4,
            What::GradPrototypes(_, len) | What::GradBias(len) | What::GradMargins(len) => len * 4,
            What::GradScale => 4,
            What::GradMarginsOfRows => rows * 16,
            What::State => 16,
            What::Filtered => size_of::<uniforms::FilterTotals>(),
            What::Nearest => rows * predictions * size_of::<[u32; 4]>(),
            What::LogSums | What::LogSumExps => rows * 4,
        };
        bytes as u64
    }
}

/// One for each result that is read back.
fn staging(context: &Context, bound: &Bound, outputs: &ResultTensors, predictions: usize) -> Result<Vec<Staging>> {
    let (plan, own) = (bound.plan(), |name| bound.workspace(name));
    let mut sources = vec![(What::Rows, own("rows")?), (What::Batch, own("batch")?)];
    sources.extend(outputs.grad_embeddings.as_ref().map(|tensor| (What::GradEmbeddings, tensor.buffer())));
    let mut first = 0;
    for tensor in &outputs.grad_prototypes {
        sources.push((What::GradPrototypes(first, tensor.len()), tensor.buffer()));
        first += tensor.len();
    }
    sources.extend(outputs.grad_scale.as_ref().map(|tensor| (What::GradScale, tensor.buffer())));
    sources.extend(outputs.grad_bias.as_ref().map(|tensor| (What::GradBias(tensor.len()), tensor.buffer())));
    let of_rows = plan.margins() == Some(MarginGradients::Rows);
    let margins = |len| if of_rows { What::GradMarginsOfRows } else { What::GradMargins(len) };
    sources.extend(outputs.grad_margins.as_ref().map(|tensor| (margins(tensor.len()), tensor.buffer())));
    if plan.find("filtered").is_some() {
        sources.push((What::Filtered, own("filtered")?));
    }
    if !plan.stage(Stage::UpdateState).is_empty() {
        sources.push((What::State, own("state")?));
    }
    if plan.soft_labels() > 0 {
        sources.push((What::LogSumExps, own("log_sum_exps")?));
    }
    if predictions > 0 {
        sources.extend([(What::Nearest, own("nearest")?), (What::LogSums, own("log sums")?)]);
    }
    let (shape, usage) = (plan.shape(), wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let stage = |(result, source): (What, &wgpu::Buffer)| {
        let buffer = context.buffer("staging", result.bytes(shape.rows(), [shape.dim(), predictions]), usage)?;
        Ok(Staging { result, source: source.clone(), buffer })
    };
    sources.into_iter().map(stage).collect()
}

impl DeviceHead {
    pub fn new(
        context: &Context,
        loss: &Prepared,
        shape: Shape,
        range: Range<usize>,
        options: &Options,
    ) -> Result<Self> {
        // one row at least, so that no tensor is empty
        let sized =
            |classes| Shape::new(shape.rows().max(1), classes, shape.dim())?.with_sub_centers(shape.sub_centers());
        let shards = Plan::shards(sized(range.len())?, Element::F32, context.limits())?;
        let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
        let classes = (sized(shape.classes())?, range.clone(), false);
        let plan = Plan::checked(loss, classes, &layout, context.limits(), options)?;
        let head = Head::of_any(context, loss, plan)?;
        let (inputs, outputs) =
            (BatchTensors::new(context, loss, head.plan())?, ResultTensors::new(context, loss, head.plan())?);
        let prototypes = inputs.prototypes.iter().collect::<Vec<_>>();
        let io = Io {
            class_weights: Some(&inputs.class_weights),
            row_weights: Some(&inputs.row_weights),
            row_margins: inputs.row_margins.as_ref(),
            soft_classes: inputs.soft.as_ref().map(|soft| &soft.classes),
            soft_weights: inputs.soft.as_ref().map(|soft| &soft.weights),
            class_margins: inputs.soft.as_ref().map(|soft| &soft.class_margins).filter(|_| loss.has_margins()),
            bias: inputs.bias.as_ref(),
            grad_embeddings: outputs.grad_embeddings.as_ref(),
            grad_prototypes: &outputs.grad_prototypes.iter().collect::<Vec<_>>(),
            grad_scale: outputs.grad_scale.as_ref(),
            grad_bias: outputs.grad_bias.as_ref(),
            grad_margins: outputs.grad_margins.as_ref(),
            ..Io::new(&inputs.embeddings, &prototypes, &inputs.labels, &outputs.loss)
        };
        let bound = head.bind_any(&io, Some(&inputs.upstream))?;
        let predictions = options.predictions.unwrap_or(0);
        let staging = staging(context, &bound.bound, &outputs, predictions)?;
        let (context, loss) = (context.clone(), loss.clone());
        Ok(Self { context, bound, loss, shape, range, inputs, staging, pending: None, predictions })
    }

    /// `keep` or `recompute`.
    pub fn schedule(&self) -> &'static str {
        self.bound.bound.schedule()
    }

    pub fn update(&mut self, loss: &Prepared) -> Result<()> {
        // the rows are those of the next batch
        self.bound.replace_loss(loss, Call::default())?;
        self.loss = loss.clone();
        Ok(())
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub fn step(
        &mut self,
        batch: &CheckedBatch<'_>,
        state: &mut State,
        follow: bool,
        out: &mut Output,
        watch: &mut Watch,
    ) -> Result<()> {
        let (rows, submission) = pollster::block_on(self.submit(batch, state, follow, watch))?;
        for mapping in self.map(rows)? {
            mapping.wait(&submission)?;
        }
        self.collect(rows, out, follow.then_some(state))
    }

    pub async fn step_async(
        &mut self,
        batch: &CheckedBatch<'_>,
        state: &mut State,
        follow: bool,
        watch: &mut Watch,
    ) -> Result<Output> {
        let (rows, _) = self.submit(batch, state, follow, watch).await?;
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

    /// Uploads, records and submits one batch; waits for nothing unless it is watched.
    async fn submit(
        &mut self,
        batch: &CheckedBatch<'_>,
        state: &State,
        follow: bool,
        watch: &mut Watch,
    ) -> Result<(usize, wgpu::SubmissionIndex)> {
        let rows = self.upload(batch, state, follow)?;
        let bound = &self.bound.bound;
        let steps = bound.forward_steps(follow).into_iter().flatten().chain(bound.backward_steps());
        let submission = bound.submit_watched(steps, |encoder| self.copy_results(rows, encoder), watch).await?;
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
        for tensor in &self.inputs.prototypes {
            let (own, next) = rest.split_at(tensor.len());
            upload(tensor, bytemuck::cast_slice(own))?;
            rest = next;
        }
        if let Some(weights) = batch.class_weights {
            upload(&self.inputs.class_weights, bytemuck::cast_slice(weights))?;
        }
        if let Some(weights) = batch.row_weights {
            upload(&self.inputs.row_weights, bytemuck::cast_slice(weights))?;
        }
        if let Some(soft) = &self.inputs.soft {
            soft.upload(context, batch, self.inputs.row_margins.as_ref())?;
        }
        if let (Some(margins), Some(tensor), None) = (&batch.margins, &self.inputs.row_margins, &self.inputs.soft) {
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
            row_weights: batch.row_weights.is_some(),
            divisor: batch.divisor,
            upstream: batch.upstream.is_some(),
            soft_labels: batch.soft.is_some(),
            class_margins: self.inputs.soft.is_some() && batch.given_margins[0].any(),
            row_margins: match &self.inputs.soft {
                Some(_) => batch.given_margins[1].any(),
                None => batch.margins.is_some(),
            },
            ..Call::default()
        };
        self.bound.call(call)?;
        self.bound.set_training(follow);
        self.bound.set_state(state)?;
        Ok(rows)
    }

    /// The results that are read back for this many rows, with their bytes.
    fn wanted(&self, rows: usize) -> impl Iterator<Item = (&Staging, u64)> {
        let sizes = [self.shape.dim(), self.predictions];
        self.staging.iter().map(move |s| (s, s.result.bytes(rows, sizes))).filter(|(_, bytes)| *bytes > 0)
    }

    /// Copies the mapped results out. Nothing can fail once the first value of `out` is written.
    pub(super) fn collect(&mut self, rows: usize, out: &mut Output, state: Option<&mut State>) -> Result<()> {
        let mut moved = [0.0_f32; 4];
        let mut states = vec![Row::zeroed(); rows];
        let mut batch = BatchState::zeroed();
        let mut left_out = None;
        // of rows with several targets; the backward pass needs the place of the others
        let mut log_sum_exps = vec![];
        let mut lists = Lists::new(rows, self.predictions);
        let dim = self.shape.dim();
        let view = |(staging, bytes): (&Staging, u64)| {
            Ok((staging.result, readback::view(&self.context, &staging.buffer, bytes)?))
        };
        let views = self.wanted(rows).map(view).collect::<Result<Vec<_>>>()?;
        out.grad_embeddings.clear();
        out.grad_prototypes.clear();
        out.grad_scale = 0.0;
        out.grad_bias.clear();
        out.grad_margins.clear();
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
                What::GradMargins(_) | What::GradMarginsOfRows => {
                    out.grad_margins.resize(view.len() / 4, 0.0);
                    bytemuck::cast_slice_mut(&mut out.grad_margins)
                }
                What::State => bytemuck::bytes_of_mut(&mut moved),
                What::Nearest => bytemuck::cast_slice_mut(&mut lists.nearest),
                What::LogSumExps => {
                    log_sum_exps.resize(rows, 0.0_f32);
                    bytemuck::cast_slice_mut(&mut log_sum_exps)
                }
                What::LogSums => bytemuck::cast_slice_mut(&mut lists.log_sums),
                What::Filtered => bytemuck::bytes_of_mut(left_out.insert(uniforms::FilterTotals::zeroed())),
            };
            into.copy_from_slice(view);
        }
        drop(views);
        self.unmap();
        let broken = batch.non_finite_prototypes > 0;
        out.loss = batch.loss;
        out.row_losses.clear();
        out.row_losses.extend(states.iter().map(|r| r.loss));
        out.normalizer = batch.normalizer;
        out.log_sum_exps.clear();
        out.log_sum_exps.append(&mut log_sum_exps);
        out.target_cosines.clear();
        let known = |r: &Row| matches!(r.state, constants::COUNTS | constants::SHORT) && !broken;
        out.target_cosines.extend(states.iter().map(|r| if known(r) { r.cosine } else { 0.0 }));
        if self.loss.binary().is_some() {
            out.log_sum_exps.clear();
        } else if self.inputs.soft.is_none() {
            out.log_sum_exps.extend(states.iter().map(|r| if known(r) { r.total } else { 0.0 }));
        }
        out.other_cosines.clear();
        out.other_cosines.extend(states.iter().map(|r| if broken { NO_COSINE as f32 } else { r.nearest }));
        out.counts = super::head::counts(&batch);
        let none = uniforms::FilterTotals::default();
        out.filtered = left_out.map(|found| {
            let found = if rows == 0 { none } else { found };
            super::head::filtered(&found, &out.counts, self.range.len())
        });
        let predictions = (self.predictions > 0).then(|| out.predictions.take().unwrap_or_default());
        let found = (&states[..], batch.non_finite_prototypes);
        out.predictions = predictions.map(|all| lists.predictions(&self.loss, self.range.clone(), found, all));
        if let Some(state) = state {
            super::head::moved(&self.loss, moved, state);
        }
        Ok(())
    }
}

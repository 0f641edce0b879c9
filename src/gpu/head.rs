//! A head on the caller's encoder and buffers.

use std::sync::Arc;

use super::{
    Context, Tensor,
    bound::{Bound, expect},
};
use crate::{
    Error, MarginSoftmax, Result, State,
    data::{Counts, Filtered},
    objective::Prepared,
    plan::{Call, Element, Plan, Slot},
    uniforms::{self, BatchState},
};

/// A planned head, compiled: bind it to any number of sets of tensors.
#[derive(Clone)]
pub struct Head {
    context: Context,
    plan: Arc<Plan>,
    loss: Prepared,
}

/// The caller's tensors. N rows, C classes, D values a vector, as planned; shards as planned.
///
/// Every offset must be a multiple of the device's `min_storage_buffer_offset_alignment`. A tensor that is written must
/// not share a buffer with one that the same kernel reads; [`Error::Overlap`] names the two. What may be absent is left
/// out by [`Io::new`].
#[derive(Clone, Copy)]
pub struct Io<'a> {
    /// X, \[N, D\].
    pub embeddings: &'a Tensor,
    /// W, one tensor [classes of the shard, D] per shard; with K > 1 sub-centers [classes of the shard, K, D].
    pub prototypes: &'a [&'a Tensor],
    /// y, \[N\], i32. A label that names no class makes its row's loss NaN.
    pub labels: &'a Tensor,
    /// w, \[C\], f32, 0 or within \[1e-30, 1e24\]; 1 if absent. Any other makes the rows of its class invalid, like a label
    /// that names no class; with label smoothing it makes all losses NaN.
    pub class_weights: Option<&'a Tensor>,
    /// m0..m3 of every class, \[C, 4\], f32, for a unified target; NaN means the loss' own. Margins that no loss may
    /// have make the rows of the class invalid, like a label that names no class; so do other m1 (and m2) where the series
    /// is fitted (given), and any m1 and m2 in a linear head.
    pub class_margins: Option<&'a Tensor>,
    /// m0..m3 of every row, \[N, 4\], f32; NaN means those of the class, or the loss' own.
    pub row_margins: Option<&'a Tensor>,
    /// b, \[C\], f32, of a linear head; 0 if absent. One that is NaN or infinite makes all losses NaN.
    pub bias: Option<&'a Tensor>,
    /// The numbers that follow the batch, \[4\], f32: hardness, mean and deviation of the lengths, scale (see
    /// [`State`]). Read, and written in training steps. If absent the head has its own, which starts as
    /// [`State::new`] says. Numbers outside their ranges make all rows invalid, and stay as they are.
    /// [`BoundHead::read_state`] gives what either holds.
    pub state: Option<&'a Tensor>,
    /// The gradient that arrives from above, f32: \[N\] with `Reduction::None`, else \[1\]; 1 if absent. One that is NaN or
    /// infinite makes the gradients that it enters NaN or infinite; the loss does not depend on it.
    pub upstream: Option<&'a Tensor>,
    /// The reduced loss, \[1\], f32; written.
    pub loss: &'a Tensor,
    /// The rows' losses, \[N\], f32; written.
    pub row_losses: Option<&'a Tensor>,
    /// dL/dX, \[N, D\], f32; written if it was planned.
    pub grad_embeddings: Option<&'a Tensor>,
    /// dL/dW, like the prototypes, f32; written if it was planned.
    pub grad_prototypes: &'a [&'a Tensor],
    /// dL/ds, \[1\], f32; written if it was planned.
    pub grad_scale: Option<&'a Tensor>,
    /// dL/db, f32: \[C\] for a linear head, \[1\] for a binary link; written if it was planned.
    pub grad_bias: Option<&'a Tensor>,
}

impl<'a> Io<'a> {
    /// The tensors that every head needs; everything else is absent.
    pub fn new(embeddings: &'a Tensor, prototypes: &'a [&'a Tensor], labels: &'a Tensor, loss: &'a Tensor) -> Self {
        Self {
            embeddings,
            prototypes,
            labels,
            class_weights: None,
            class_margins: None,
            row_margins: None,
            bias: None,
            state: None,
            upstream: None,
            loss,
            row_losses: None,
            grad_embeddings: None,
            grad_prototypes: &[],
            grad_scale: None,
            grad_bias: None,
        }
    }
}

impl Head {
    /// Compiles the plan's kernels, or finds them in the context's cache.
    ///
    /// The plan is that of a whole head: one of some of its classes ([`Plan::shard`]) knows nothing of the others, and is
    /// refused. [`Backend::shard`](crate::Backend::shard) exchanges what is missing.
    pub fn new(context: &Context, loss: &MarginSoftmax, plan: Plan) -> Result<Self> {
        if plan.range() != (0..plan.shape().classes()) {
            let why = "the plan has some of the classes; use Backend::shard, which exchanges numbers with the others";
            return Err(Error::Combination { what: "shard", why });
        }
        Self::of_any(context, &Prepared::new(loss, plan.shape())?, plan)
    }

    /// The same for a shard too, whose caller exchanges the numbers.
    pub(super) fn of_any(context: &Context, loss: &Prepared, plan: Plan) -> Result<Self> {
        plan.accepts(loss)?;
        fits(context, &plan)?;
        super::custom::check(context, loss, &plan)?;
        for kernel in plan.kernels() {
            context.pipeline(kernel)?;
        }
        Ok(Self { context: context.clone(), plan: Arc::new(plan), loss: loss.clone() })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Allocates a workspace and binds the tensors. Two bound sets are independent of each other.
    pub fn bind(&self, io: &Io<'_>) -> Result<BoundHead> {
        expect_upstream(&self.plan, &self.loss, io)?;
        self.bind_any(io, io.upstream)
    }

    /// The same with an upstream tensor of \[N\] whatever the reduction is.
    pub(super) fn bind_any(&self, io: &Io<'_>, upstream: Option<&Tensor>) -> Result<BoundHead> {
        let given = given(&self.plan, &self.loss, io, upstream)?;
        let shape = self.plan.shape();
        let call = Call {
            rows: shape.rows(),
            class_weights: io.class_weights.is_some(),
            upstream: io.upstream.is_some(),
            class_margins: io.class_margins.is_some(),
            row_margins: io.row_margins.is_some(),
            ..Call::default()
        };
        let bound = Bound::of(&self.context, &self.plan, &given, &self.loss, &call)?;
        let state = State::new(&self.loss, shape)?;
        let bound = BoundHead { bound, loss: self.loss.clone(), call, training: false, state };
        if io.state.is_none() {
            bound.write_state()?;
        }
        bound.write_draws()?;
        Ok(bound)
    }
}

/// Checks the tensors of an [`Io`] and names their slots.
fn given<'a>(
    plan: &Plan,
    loss: &MarginSoftmax,
    io: &Io<'a>,
    upstream: Option<&'a Tensor>,
) -> Result<Vec<(Slot, &'a Tensor)>> {
    let shape = plan.shape();
    let (n, c, d, k) = (shape.rows(), shape.classes(), shape.dim(), shape.sub_centers());
    let vectors = |classes: usize| if k > 1 { vec![classes, k, d] } else { vec![classes, d] };
    let mut given = vec![];
    let mut add = |slot: Slot, tensor, shape: &[usize], element: Element| {
        expect(slot.name(), tensor, shape, element)?;
        given.push((slot, tensor));
        Ok::<_, Error>(())
    };
    let slots = || plan.buffers().iter();
    let planned = |slot| slots().any(|b| matches!(b.role, crate::plan::Role::Given(s) if s == slot));
    let shards = slots().filter(|b| b.name == "prototypes").count();
    let count = |what, found: usize, expected| {
        if found == expected { Ok(()) } else { Err(Error::Length { what, found, expected }) }
    };
    add(Slot::Embeddings, io.embeddings, &[n, d], io.embeddings.element())?;
    add(Slot::Labels, io.labels, &[n], Element::I32)?;
    add(Slot::Loss, io.loss, &[1], Element::F32)?;
    count("prototypes", io.prototypes.len(), shards)?;
    let sizes = plan.shard_sizes();
    for (i, (&tensor, &size)) in io.prototypes.iter().zip(&sizes).enumerate() {
        add(Slot::Prototypes(i), tensor, &vectors(size), tensor.element())?;
    }
    if let Some(weights) = io.class_weights {
        add(Slot::ClassWeights, weights, &[c], Element::F32)?;
    }
    for (slot, tensor, count) in [(Slot::ClassMargins, io.class_margins, c), (Slot::RowMargins, io.row_margins, n)] {
        if let Some(tensor) = tensor {
            if !loss.has_margins() {
                return Err(Error::Combination { what: slot.name(), why: "only a unified target has m0..m3" });
            }
            add(slot, tensor, &[count, 4], Element::F32)?;
        }
    }
    if let Some(bias) = io.bias {
        if !loss.is_linear() {
            return Err(Error::Combination { what: "bias", why: "only a linear head adds one" });
        }
        add(Slot::Bias, bias, &[plan.range().len()], Element::F32)?;
    }
    if let Some(state) = io.state {
        add(Slot::State, state, &[4], Element::F32)?;
    }
    let why = "the plan computes this gradient";
    if planned(Slot::GradScale) {
        let tensor = io.grad_scale.ok_or(Error::Missing { what: "grad_scale", why })?;
        add(Slot::GradScale, tensor, &[1], Element::F32)?;
    }
    if planned(Slot::GradBias) {
        let tensor = io.grad_bias.ok_or(Error::Missing { what: "grad_bias", why })?;
        let count = if loss.is_linear() { plan.range().len() } else { 1 };
        add(Slot::GradBias, tensor, &[count], Element::F32)?;
    }
    if let Some(rows) = io.row_losses {
        add(Slot::RowLosses, rows, &[n], Element::F32)?;
    }
    if planned(Slot::GradEmbeddings) {
        let tensor = io.grad_embeddings.ok_or(Error::Missing { what: "grad_embeddings", why })?;
        add(Slot::GradEmbeddings, tensor, &[n, d], Element::F32)?;
    }
    if planned(Slot::GradPrototypes(0)) {
        count("grad_prototypes", io.grad_prototypes.len(), shards)?;
        for (i, (&tensor, &size)) in io.grad_prototypes.iter().zip(&sizes).enumerate() {
            add(Slot::GradPrototypes(i), tensor, &vectors(size), Element::F32)?;
        }
    }
    if let Some(upstream) = upstream
        && plan.find("upstream").is_some()
    {
        given.push((Slot::Upstream, upstream));
    }
    for (slot, tensor) in &given {
        plan.check_element(*slot, tensor.element())?;
    }
    Ok(given)
}

fn expect_upstream(plan: &Plan, loss: &MarginSoftmax, io: &Io<'_>) -> Result<()> {
    let Some(upstream) = io.upstream else { return Ok(()) };
    let expected = if loss.is_unreduced() { plan.shape().rows() } else { 1 };
    expect("upstream", upstream, &[expected], Element::F32)
}

/// Pipeline, bind group 0, its dynamic offset, workgroups.
#[cfg(feature = "catalogue")]
pub type Dispatch = (wgpu::ComputePipeline, wgpu::BindGroup, u32, [u32; 3]);

/// A head bound to tensors.
pub struct BoundHead {
    pub(super) bound: Bound,
    loss: Prepared,
    call: Call,
    training: bool,
    state: State,
}

impl BoundHead {
    /// New margins, a new scale, another number of rows (at most as planned): one queue write, which holds for every
    /// later submit. Nothing is compiled or allocated.
    ///
    /// [`Error::Recompile`] where the new loss needs another kernel; the old one then stays in force.
    pub fn update(&mut self, loss: &MarginSoftmax, rows: usize) -> Result<()> {
        if self.call.upstream && loss.is_unreduced() != self.loss.is_unreduced() {
            let why = "the bound upstream gradient has the length of the old one; bind again";
            return Err(Error::Combination { what: "reduction", why });
        }
        let loss = self.loss.updated(loss, self.bound.plan().shape())?;
        self.replace_loss(&loss, Call { rows, ..self.call })?;
        self.write_draws()
    }

    /// Other tensors in place of those that are bound, for a caller whose buffers change from step to step: shapes as
    /// planned, and the same ones present and absent, else [`Error::Combination`]. Makes bind groups, compiles and
    /// allocates nothing. Recordings from before keep the old tensors. The workspace stays, so between a forward and its
    /// backward pass the same values may move to another buffer.
    pub fn rebind(&mut self, io: &Io<'_>) -> Result<()> {
        expect_upstream(self.bound.plan(), &self.loss, io)?;
        let given = given(self.bound.plan(), &self.loss, io, io.upstream)?;
        self.bound.rebind(&given)
    }

    /// Whether gradients are added to what the tensors hold, instead of overwriting it. Off at first. Holds for every
    /// later submit.
    pub fn set_accumulate(&mut self, on: bool) -> Result<()> {
        self.call(Call { accumulate: on, ..self.call })
    }

    /// Whether what is recorded from now on is a training step: what follows the batch then moves first, in the state
    /// that is bound. Off at first. Decided when the forward pass is recorded: what is recorded already stays as it is,
    /// whatever is set before its submit. The step itself is counted by the caller: [`set_state`](Self::set_state) with
    /// the next one, where ElasticFace draws.
    pub fn set_training(&mut self, on: bool) {
        self.training = on;
    }

    pub(super) fn is_training(&self) -> bool {
        self.training
    }

    /// Goes on from a state: writes the numbers that follow the batch, and ElasticFace's draws for this step. Holds for
    /// every later submit.
    pub fn set_state(&mut self, state: &State) -> Result<()> {
        state.validate(self.bound.plan().shape())?;
        let before = std::mem::replace(&mut self.state, *state);
        let written = self.write_state().and_then(|()| self.write_draws());
        if written.is_err() {
            self.state = before;
        }
        written
    }

    /// Reads the state that the work submitted so far leaves, to save it: hardness, mean and deviation of the lengths, and
    /// scale as far as the loss moves them; everything else, step and seed among them, is that of the last
    /// [`set_state`](Self::set_state), since the caller counts the steps. Submits a copy and waits.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_state(&self) -> Result<State> {
        pollster::block_on(self.read_state_async())
    }

    /// The same without blocking.
    pub async fn read_state_async(&self) -> Result<State> {
        let mut state = self.state;
        if let [hardness, mean, deviation, scale] = self.bound.read::<f32>("state", 4).await?[..] {
            moved(&self.loss, [hardness, mean, deviation, scale], &mut state);
        }
        Ok(state)
    }

    /// Reads what the last forward pass counted. Submits a copy and waits.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_counts(&self) -> Result<Counts> {
        pollster::block_on(self.read_counts_async())
    }

    /// The same without blocking.
    pub async fn read_counts_async(&self) -> Result<Counts> {
        let batch = self.bound.read::<BatchState>("batch", 1).await?;
        Ok(batch.first().map(counts).unwrap_or_default())
    }

    /// Reads what a [`GradientFilter`](crate::GradientFilter) left out of the last backward pass; none without one. Submits a
    /// copy and waits.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_filtered(&self) -> Result<Option<Filtered>> {
        pollster::block_on(self.read_filtered_async())
    }

    /// The same without blocking.
    pub async fn read_filtered_async(&self) -> Result<Option<Filtered>> {
        if self.bound.plan().find("filtered").is_none() {
            return Ok(None);
        }
        let counts = self.read_counts_async().await?;
        let found = self.bound.read::<uniforms::Filtered>("filtered", 1).await?;
        let none = uniforms::Filtered::default();
        let found = if self.call.rows == 0 { &none } else { found.first().unwrap_or(&none) };
        Ok(Some(filtered(found, &counts, self.bound.plan().range().len())))
    }

    fn write_state(&self) -> Result<()> {
        let State { hardness, norm_mean, norm_deviation, scale, .. } = self.state;
        // a device takes a scale of 0 for one that was never written
        let values = [hardness, norm_mean, norm_deviation, scale.max(f32::MIN_POSITIVE.into())].map(|v| v as f32);
        self.bound.write("state", bytemuck::cast_slice(&values))
    }

    fn write_draws(&self) -> Result<()> {
        let Some(family) = self.loss.draws() else { return Ok(()) };
        let draws: Vec<f32> = family.draws(&self.state, self.call.rows).into_iter().map(|d| d as f32).collect();
        self.bound.write("draws", bytemuck::cast_slice(&draws))
    }

    /// Records the forward pass: statistics and loss. Creates, writes, submits and polls nothing.
    ///
    /// The dispatches are those of the current number of rows: update before recording, and record again after an update
    /// that changed it.
    pub fn record_forward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.bound.record_forward(self.training, encoder);
    }

    /// Records the backward pass. One follows each forward pass of this bound set: it may turn the cosines that the
    /// forward pass kept into their gradients.
    pub fn record_backward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.bound.record_backward(encoder);
    }

    /// The buffers behind it.
    #[cfg(feature = "catalogue")]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The calls that both passes record, so that a test can make the same wgpu calls by hand.
    #[cfg(feature = "catalogue")]
    pub fn dispatches(&self) -> [Vec<Dispatch>; 2] {
        let forward = self.bound.forward_steps(self.training).into_iter().flatten();
        [self.bound.dispatches(forward), self.bound.dispatches(self.bound.backward_steps())]
    }

    /// A call with other inputs in use.
    pub(super) fn call(&mut self, call: Call) -> Result<()> {
        self.bound.update(&self.loss, &call)?;
        self.call = call;
        Ok(())
    }

    /// A call with another loss.
    pub(super) fn replace_loss(&mut self, loss: &Prepared, call: Call) -> Result<()> {
        self.bound.plan().accepts(loss)?;
        self.bound.update(loss, &call)?;
        self.loss = loss.clone();
        self.call = call;
        Ok(())
    }
}

/// Refuses a plan that was made for a larger device.
fn fits(context: &Context, plan: &Plan) -> Result<()> {
    let limits = context.limits();
    for buffer in plan.buffers() {
        let (needed, (limit, allowed)) = (buffer.bytes, limits.tightest());
        if needed > allowed {
            return Err(Error::Limit { what: buffer.name, limit, needed, allowed });
        }
    }
    if !limits.f16 && plan.kernels().iter().any(|kernel| kernel.source.contains("enable f16;")) {
        return Err(Error::Feature { what: "a plan made with `Limits::f16`", feature: "SHADER_F16" });
    }
    plan.schedule().tile.check(limits)
}

/// Takes over the numbers that a device moved; all others keep digits that an f32 may not hold.
pub(super) fn moved(loss: &MarginSoftmax, [hardness, mean, deviation, scale]: [f32; 4], state: &mut State) {
    let take = |number: &mut f64, found: f32| {
        if found.to_bits() != (*number as f32).to_bits() {
            *number = found.into();
        }
    };
    if loss.hardness_follows() {
        take(&mut state.hardness, hardness);
    }
    if loss.lengths_follow() {
        take(&mut state.norm_mean, mean);
        take(&mut state.norm_deviation, deviation);
    }
    if loss.scale_follows() {
        take(&mut state.scale, scale);
    }
}

/// The entries that a device dropped.
pub(super) fn filtered(found: &uniforms::Filtered, counts: &Counts, classes: usize) -> Filtered {
    Filtered {
        dropped: found.dropped,
        total: found.total,
        kept: u64::from(found.high) << 32 | u64::from(found.low),
        entries: (counts.rows * classes) as u64,
    }
}

/// The counts of a device.
pub(super) fn counts(batch: &BatchState) -> Counts {
    Counts {
        rows: batch.rows as usize,
        ignored: batch.ignored as usize,
        non_finite_rows: batch.non_finite_rows as usize,
        invalid_labels: batch.invalid_labels as usize,
        zero_embeddings: batch.zero_embeddings as usize,
        zero_prototypes: batch.zero_prototypes as usize,
        non_finite_prototypes: batch.non_finite_prototypes as usize,
    }
}

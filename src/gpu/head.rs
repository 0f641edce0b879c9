//! A head on the caller's encoder and buffers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{
    Context, Tensor,
    bound::Bound,
    io::{Io, PredictIo, expect_upstream, given, given_unlabelled},
};
use crate::{
    Error, MarginSoftmax, Result, State,
    data::{Counts, Filtered},
    objective::Prepared,
    plan::{Accumulate, Call, Plan, TensorRole, need},
    uniforms::{self, BatchState},
};

/// A planned head, compiled: bind it to any number of sets of tensors.
#[derive(Clone)]
pub struct Head {
    context: Context,
    plan: Arc<Plan>,
    loss: Prepared,
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
        let call = Call {
            rows: self.plan.shape().rows(),
            class_weights: io.class_weights.is_some(),
            row_weights: io.row_weights.is_some(),
            soft_labels: io.soft_classes.is_some(),
            upstream: io.upstream.is_some(),
            class_margins: io.class_margins.is_some(),
            row_margins: io.row_margins.is_some(),
            ..Call::default()
        };
        self.bound(&given, call)
    }

    /// [`bind`](Self::bind) for a plan of [`Plan::predict`]: the forward pass writes the nearest classes of each row, and there is
    /// no backward pass. The scale is that of the loss; where it follows the batch (dynamic AdaCos) give the loss the state's.
    pub fn bind_predictions(&self, io: &PredictIo<'_>) -> Result<BoundHead> {
        let given = given_unlabelled(&self.plan, &self.loss, io)?;
        self.bound(&given, Call { rows: self.plan.shape().rows(), ..Call::default() })
    }

    fn bound(&self, given: &[(TensorRole, &Tensor)], call: Call) -> Result<BoundHead> {
        let bound = BoundHead {
            bound: Bound::of(&self.context, &self.plan, given, &self.loss, &call)?,
            loss: self.loss.clone(),
            call,
            training: false,
            state: State::new(&self.loss, self.plan.shape())?,
            unfinished: AtomicBool::new(false),
        };
        if !given.iter().any(|(role, _)| *role == TensorRole::State) {
            bound.write_state()?;
        }
        bound.write_draws()?;
        Ok(bound)
    }
}

/// A head bound to tensors.
pub struct BoundHead {
    pub(super) bound: Bound,
    loss: Prepared,
    call: Call,
    training: bool,
    state: State,
    /// A call was recorded in part.
    pub(super) unfinished: AtomicBool,
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

    /// The gradients that are added to what their tensors hold, instead of overwriting it: `true` for all, or an
    /// [`Accumulate`]. None at first. Holds for every later submit.
    pub fn set_accumulate(&mut self, which: impl Into<Accumulate>) -> Result<()> {
        self.call(Call { accumulate: which.into(), ..self.call })
    }

    /// The number that a mean is divided by, in the place of the weights of the rows that count: see
    /// [`Batch::divisor`](crate::Batch). None at first. Holds for every later submit.
    pub fn set_divisor(&mut self, divisor: Option<f32>) -> Result<()> {
        self.call(Call { divisor, ..self.call })
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
        self.finished()?;
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
        self.finished()?;
        let batch = self.bound.read::<BatchState>("batch", 1).await?;
        Ok(batch.first().map(counts).unwrap_or_default())
    }

    /// Reads what a [`GradientFilter`](crate::data::GradientFilter) left out of the last backward pass; none without one. Submits a
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
        let found = self.bound.read::<uniforms::FilterTotals>("filtered", 1).await?;
        let none = uniforms::FilterTotals::default();
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
        // a prediction draws none
        let planned = self.bound.plan().find("draws");
        let Some(family) = self.loss.draws().filter(|_| planned.is_some()) else { return Ok(()) };
        let draws: Vec<f32> = family.draws(&self.state, self.call.rows).into_iter().map(|d| d as f32).collect();
        self.bound.write("draws", bytemuck::cast_slice(&draws))
    }

    /// Records the forward pass: statistics and loss. Creates, writes, submits and polls nothing.
    ///
    /// The dispatches are those of the current number of rows: update before recording, and record again after an update
    /// that changed it.
    pub fn record_forward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.begin();
        self.bound.record_forward(self.training, encoder);
    }

    /// Records the backward pass. One follows each forward pass of this bound set: it may turn the cosines that the
    /// forward pass kept into their gradients.
    pub fn record_backward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.bound.record_backward(encoder);
    }

    /// A whole forward pass is recorded.
    pub(super) fn begin(&self) {
        self.unfinished.store(false, Ordering::Relaxed);
    }

    /// [`Error::Unfinished`] where parts of the last call were not recorded.
    pub(super) fn finished(&self) -> Result<()> {
        if self.unfinished.load(Ordering::Relaxed) { Err(Error::Unfinished) } else { Ok(()) }
    }

    /// The buffers behind it.
    #[cfg(feature = "catalogue")]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The calls that both passes record, so that a test can make the same wgpu calls by hand.
    #[cfg(feature = "catalogue")]
    pub fn dispatches(&self) -> [Vec<super::Dispatch>; 2] {
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
        let (limit, allowed) = limits.tightest();
        need(buffer.name, limit, buffer.bytes, allowed)?;
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
pub(super) fn filtered(found: &uniforms::FilterTotals, counts: &Counts, classes: usize) -> Filtered {
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

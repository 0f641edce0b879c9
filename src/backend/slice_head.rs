//! A reusable head over slices, on any backend.

use std::ops::Range;

use super::{
    Backend,
    precision::{Wide, narrow},
};
#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{
    Batch, Error, Label, MarginSoftmax, Options, Output, Result, Shape, State, Want,
    data::{Callback, OnProgress, Stored, StoredValues, Watch},
    objective::{CheckedBatch, Prepared},
    reference,
};

/// A head over slices: made once by [`Backend::head`], then called for any number of batches.
pub struct SliceHead {
    pub(super) loss: Prepared,
    pub(super) shape: Shape,
    pub(super) range: Range<usize>,
    pub(super) state: State,
    /// The state has followed a batch whose gradients are to come: the step counts with them.
    pub(super) following: bool,
    /// The most targets of a row.
    soft_labels: usize,
    want: Want,
    progress: Callback,
    pub(super) inner: Inner,
}

pub(super) enum Inner {
    Reference(Options),
    #[cfg(feature = "cpu")]
    Cpu(Box<cpu::CpuHead>),
    #[cfg(feature = "gpu")]
    Gpu(Box<gpu::DeviceHead>),
}

impl Backend {
    /// A head for batches of at most `shape.rows()` rows, with the default options.
    pub fn head(&self, loss: &MarginSoftmax, shape: Shape) -> Result<SliceHead> {
        self.head_with(loss, shape, &Options::default())
    }

    /// A head with a budget, a tile, or fewer gradients. Compiles and allocates once; any number of batches follow.
    pub fn head_with(&self, loss: &MarginSoftmax, shape: Shape, options: &Options) -> Result<SliceHead> {
        self.shard(loss, shape, 0..shape.classes(), options)
    }

    /// A head for the classes in `range` of a head of this shape: see [`shard`](crate::shard).
    pub fn shard(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        range: Range<usize>,
        options: &Options,
    ) -> Result<SliceHead> {
        let loss = Prepared::new(loss, shape)?;
        options.check(&loss, shape, &range)?;
        let state = State::new(&loss, shape)?;
        let classes = shape.classes();
        if range.is_empty() || range.end > classes {
            let expected = range.start;
            return Err(Error::Shards { found: range, expected, classes });
        }
        let inner = match self {
            Self::Reference => Inner::Reference(*options),
            #[cfg(feature = "cpu")]
            Self::Cpu => Inner::Cpu(Box::new(cpu::CpuHead::new(&loss, shape, range.clone(), options)?)),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => {
                Inner::Gpu(Box::new(gpu::DeviceHead::new(context, &loss, shape, range.clone(), options)?))
            }
        };
        let (soft_labels, want, progress) = (options.soft_labels.unwrap_or(0), options.want, Callback::default());
        Ok(SliceHead { loss, shape, range, state, following: false, soft_labels, want, progress, inner })
    }
}

impl SliceHead {
    /// The loss in force.
    pub fn loss(&self) -> &MarginSoftmax {
        &self.loss
    }

    /// The sizes this head was made for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The classes of this shard; all of them for a whole head.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// `keep` where the cosines of all classes stay between the passes, `recompute` where they are not held or computed
    /// twice: what the [`Budget`](crate::Budget) allowed.
    pub fn schedule(&self) -> &'static str {
        match &self.inner {
            Inner::Reference(_) => "keep",
            #[cfg(feature = "cpu")]
            Inner::Cpu(head) => head.schedule(),
            #[cfg(feature = "gpu")]
            Inner::Gpu(head) => head.schedule(),
        }
    }

    /// The state that a run must keep; moved by [`train`](Self::train) alone.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Goes on from a state that was kept.
    pub fn set_state(&mut self, state: &State) -> Result<()> {
        state.validate(self.shape)?;
        (self.state, self.following) = (*state, false);
        Ok(())
    }

    /// A callback that is told how far the calls of `evaluate` and `train` are, or none. It runs on the calling thread: on the CPU
    /// after about every 10 ms of work, on a GPU between submits ([`Options::work_per_submit`]; without it a call is divided into
    /// up to sixteen), and at last when everything is computed. The reference reports its end alone, the calls of a
    /// [`shard`](crate::shard) nothing.
    ///
    /// [`ControlFlow::Break`](std::ops::ControlFlow::Break) stops the call with [`Error::Cancelled`]: an
    /// output that was to be used again is empty, and the state is as it was. No result depends on the callback; its cost is that
    /// threads wait for one another before each report.
    ///
    /// ```
    /// # #[cfg(feature = "cpu")] {
    /// use std::ops::ControlFlow;
    /// use margin_softmax::{Backend, Batch, Error, MarginSoftmax, Shape};
    ///
    /// let mut head = Backend::cpu().head(&MarginSoftmax::arcface(), Shape::new(2, 3, 2)?)?;
    /// let batch = Batch {
    ///     embeddings: &[3.0, 4.0, -1.0, 0.1],
    ///     prototypes: &[1.0, 0.0, 0.0, 1.0, -1.0, 0.0],
    ///     labels: &[1, 2],
    ///     ..Batch::default()
    /// };
    /// head.set_progress(Some(Box::new(|progress| {
    ///     eprintln!("{:.0} %", 100.0 * progress.fraction());
    ///     ControlFlow::Continue(())
    /// })));
    /// head.train(&batch)?;
    /// // such as where the user pressed Ctrl-C
    /// head.set_progress(Some(Box::new(|_| ControlFlow::Break(()))));
    /// assert_eq!(head.train(&batch), Err(Error::Cancelled));
    /// # }
    /// # Ok::<(), margin_softmax::Error>(())
    /// ```
    pub fn set_progress(&mut self, callback: Option<OnProgress>) {
        self.progress = Callback::new(callback);
    }

    /// The same callback as other heads.
    pub(crate) fn share_progress(&mut self, callback: &Callback) {
        self.progress = callback.clone();
    }

    /// New margins, a new scale, another reduction: nothing is recompiled or allocated.
    ///
    /// [`Error::Recompile`](crate::Error::Recompile) where the new loss needs another kernel; the old loss then stays
    /// in force.
    pub fn update(&mut self, loss: &MarginSoftmax) -> Result<()> {
        let loss = self.loss.updated(loss, self.shape)?;
        loss.check_margin_gradients(self.want, false)?;
        match &mut self.inner {
            Inner::Reference(_) => {}
            #[cfg(feature = "cpu")]
            Inner::Cpu(head) => head.update(&loss)?,
            #[cfg(feature = "gpu")]
            Inner::Gpu(head) => head.update(&loss)?,
        }
        if loss.scale_follows() && !self.loss.scale_follows() {
            self.state.scale = State::new(&loss, self.shape)?.scale;
        }
        self.loss = loss;
        Ok(())
    }

    /// Loss and gradients of one batch, at the state as it is.
    pub fn evaluate<L: Label>(&mut self, batch: &Batch<'_, L>) -> Result<Output> {
        let mut out = Output::default();
        self.evaluate_into(batch, &mut out)?;
        Ok(out)
    }

    /// The same into an existing output, whose vectors are used again; untouched on an error.
    pub fn evaluate_into<L: Label>(&mut self, batch: &Batch<'_, L>, out: &mut Output) -> Result<()> {
        let mut state = self.state;
        self.step(batch, &mut state, false, out)
    }

    /// A training step: what follows the batch ([`Adaptive`](crate::Adaptive) families, CurricularFace) moves first, then the
    /// step counts. For every other loss the same as [`evaluate`](Self::evaluate). Which rows move the state, and that their
    /// class weights play no part in it, is documented at [`State`].
    pub fn train<L: Label>(&mut self, batch: &Batch<'_, L>) -> Result<Output> {
        let mut out = Output::default();
        self.train_into(batch, &mut out)?;
        Ok(out)
    }

    /// The same into an existing output, whose vectors are used again; output and state are untouched on an error.
    pub fn train_into<L: Label>(&mut self, batch: &Batch<'_, L>, out: &mut Output) -> Result<()> {
        self.train_values(batch.values(), batch, out)
    }

    /// [`evaluate`](Self::evaluate) with embeddings and prototypes as they are stored, f32, f16 or bf16 each, in the place of
    /// the batch's. Arithmetic and gradients are f32. The CPU path widens half types as it reads them, a tile of classes at a
    /// time and thread, beside the budget; the others widen a copy first. (Tensors on a device are read as they are: see
    /// [`Tensor`](crate::gpu::Tensor).)
    pub fn evaluate_stored<L: Label, X: Stored, W: Stored>(
        &mut self,
        embeddings: &[X],
        prototypes: &[W],
        batch: &Batch<'_, L>,
    ) -> Result<Output> {
        let (mut state, mut out) = (self.state, Output::default());
        self.step_stored([X::values(embeddings), W::values(prototypes)], batch, &mut state, false, &mut out)?;
        Ok(out)
    }

    /// [`train`](Self::train) with embeddings and prototypes as they are stored.
    pub fn train_stored<L: Label, X: Stored, W: Stored>(
        &mut self,
        embeddings: &[X],
        prototypes: &[W],
        batch: &Batch<'_, L>,
    ) -> Result<Output> {
        let mut out = Output::default();
        self.train_values([X::values(embeddings), W::values(prototypes)], batch, &mut out)?;
        Ok(out)
    }

    /// A training step with these embeddings and prototypes.
    pub(crate) fn train_values<L: Label>(
        &mut self,
        tensors: [StoredValues<'_>; 2],
        batch: &Batch<'_, L>,
        out: &mut Output,
    ) -> Result<()> {
        let mut state = self.state;
        self.step_stored(tensors, batch, &mut state, true, out)?;
        state.step += 1;
        (self.state, self.following) = (state, false);
        Ok(())
    }

    fn step<L: Label>(
        &mut self,
        batch: &Batch<'_, L>,
        state: &mut State,
        follow: bool,
        out: &mut Output,
    ) -> Result<()> {
        self.step_stored(batch.values(), batch, state, follow, out)
    }

    fn step_stored<L: Label>(
        &mut self,
        [embeddings, prototypes]: [StoredValues<'_>; 2],
        batch: &Batch<'_, L>,
        state: &mut State,
        follow: bool,
        out: &mut Output,
    ) -> Result<()> {
        self.whole()?;
        let lengths = [embeddings.len(), prototypes.len()];
        let batch = self.check_whole(batch, lengths)?;
        let [x, w] = match &self.inner {
            // which reads them as they are
            #[cfg(feature = "cpu")]
            Inner::Cpu(_) => Default::default(),
            _ => [embeddings.widened(), prototypes.widened()],
        };
        let batch = CheckedBatch { embeddings: &x, prototypes: &w, ..batch };
        let mut watch = Watch::new(&self.progress);
        let done = match &mut self.inner {
            Inner::Reference(options) => {
                let wide = Wide::new(&batch);
                let step = reference::step(&self.loss, self.shape, options, wide.of(batch), state, follow);
                step.map(|all| *out = narrow(all))
            }
            #[cfg(feature = "cpu")]
            Inner::Cpu(head) => head.step(batch, [embeddings, prototypes], state, follow, out, &mut watch),
            #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
            Inner::Gpu(head) => head.step(&batch, state, follow, out, &mut watch),
            #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
            Inner::Gpu(_) => Err(Error::Combination { what: "evaluate", why: super::CANNOT_BLOCK }),
        };
        let done = done.and_then(|()| watch.finish());
        if let Err(Error::Cancelled) = done {
            out.clear();
        }
        done
    }

    /// A batch for one call.
    fn check_whole<'a, L: Label>(&self, batch: &Batch<'a, L>, lengths: [usize; 2]) -> Result<CheckedBatch<'a>> {
        let batch = batch.check_beside(&self.loss, self.shape, &self.range, lengths)?;
        let (found, allowed) = (batch.soft.as_ref().map_or(0, |soft| soft.count), self.soft_labels);
        if found > 0 && allowed == 0 {
            return Err(Error::Missing { what: "Options::soft_labels", why: "the batch has soft labels" });
        }
        if found > allowed {
            let allowed = "at most Options::soft_labels";
            return Err(Error::Parameter { what: "soft_labels.count", found: found as f64, allowed });
        }
        Ok(batch)
    }

    /// Refuses one call for what only all shards know together.
    fn whole(&self) -> Result<()> {
        if self.range == (0..self.shape.classes()) {
            return Ok(());
        }
        let why = "one shard does not know the whole loss: use targets, statistics and gradients";
        Err(Error::Combination { what: "shard", why })
    }

    /// The same as a future: the only form that works in a browser, where the event loop drives it. Natively nobody else
    /// drives the device, so each poll looks for the answer, sleeps 50 µs and asks to be polled again. The CPU path
    /// computes before the first await, but in a browser, where it lets the page do its work between tiles of classes, about 30
    /// times a second; the reference always does.
    pub async fn evaluate_async<L: Label>(&mut self, batch: &Batch<'_, L>) -> Result<Output> {
        let mut state = self.state;
        self.step_async(batch, &mut state, false).await
    }

    /// [`train`](Self::train) as a future. A future that is dropped leaves the state as it was.
    pub async fn train_async<L: Label>(&mut self, batch: &Batch<'_, L>) -> Result<Output> {
        let mut state = self.state;
        let out = self.step_async(batch, &mut state, true).await?;
        state.step += 1;
        (self.state, self.following) = (state, false);
        Ok(out)
    }

    async fn step_async<L: Label>(&mut self, batch: &Batch<'_, L>, state: &mut State, follow: bool) -> Result<Output> {
        self.whole()?;
        let tensors = batch.values();
        let _checked = self.check_whole(batch, tensors.map(|v| v.len()))?;
        let mut out = Output::default();
        match &mut self.inner {
            #[cfg(feature = "gpu")]
            Inner::Gpu(head) => {
                let mut watch = Watch::new(&self.progress);
                out = head.step_async(&_checked, state, follow, &mut watch).await?;
                watch.finish()?;
            }
            #[cfg(feature = "cpu")]
            Inner::Cpu(head) => {
                let mut watch = Watch::new(&self.progress);
                let mut pace = cpu::Pace::of_future(&mut watch);
                head.step_paced(_checked, tensors, state, follow, &mut out, &mut pace).await?;
                watch.finish()?;
            }
            Inner::Reference(_) => self.step(batch, state, follow, &mut out)?,
        }
        Ok(out)
    }
}

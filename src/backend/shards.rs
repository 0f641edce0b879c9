//! The calls of a shard over slices: the protocol of [`shard`](crate::shard).

use super::{
    precision::{Wide, narrow},
    slice_head::{Inner, SliceHead},
};
use crate::{
    Batch, Error, Label, Output, Result,
    objective::CheckedBatch,
    reference,
    shard::{Statistics, Targets},
};

impl SliceHead {
    /// A batch for one of the calls of a shard.
    fn check<'a, L: Label>(&self, batch: &Batch<'a, L>) -> Result<CheckedBatch<'a>> {
        if batch.soft_labels.is_some() {
            return Err(Error::Combination { what: "soft_labels", why: "shards exchange one target of a row" });
        }
        batch.check(&self.loss, self.shape, &self.range)
    }

    /// Everything that this shard knows of a batch before margins apply; see [`shard`](crate::shard). The batch holds
    /// all rows, all class weights and class margins, and the prototypes and bias of this shard.
    ///
    /// A browser's GPU has no such call: it cannot wait for one.
    pub fn targets<L: Label>(&mut self, batch: &Batch<'_, L>) -> Result<Targets> {
        let batch = self.check(batch)?;
        match &mut self.inner {
            Inner::Reference(_) => {
                let wide = Wide::new(&batch);
                let shard = reference::Shard::of(&self.loss, self.shape, self.range.clone(), wide.of(batch))?;
                Ok(shard.targets(&self.state))
            }
            #[cfg(feature = "cpu")]
            Inner::Cpu(head) => head.targets(batch, &self.state),
            #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
            Inner::Gpu(head) => head.targets(&batch, &self.state),
            #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
            Inner::Gpu(_) => Err(no_shards("targets")),
        }
    }

    /// Moves the state of a training step by what all shards know: between [`targets`](Self::targets) and
    /// [`statistics`](Self::statistics), once per step and on every shard. The step counts with the
    /// [`gradients`](Self::gradients), so that what is drawn per step is what one head draws.
    pub fn follow<L: Label>(&mut self, batch: &Batch<'_, L>, targets: &Targets) -> Result<()> {
        let batch = self.check(batch)?;
        targets.check(&self.loss, self.shape, batch.rows())?;
        if self.following {
            let why = "the state has followed a batch already whose gradients have not been asked for";
            return Err(Error::Combination { what: "follow", why });
        }
        let mut state = self.state;
        targets.follow(&self.loss, &targets.facts(&self.loss, &batch, self.shape.dim()), &mut state);
        (self.state, self.following) = (state, true);
        Ok(())
    }

    /// The rows' sums over the classes of this shard, given the merged targets.
    pub fn statistics<L: Label>(&mut self, batch: &Batch<'_, L>, targets: &Targets) -> Result<Statistics> {
        let batch = self.check(batch)?;
        match &mut self.inner {
            Inner::Reference(_) => {
                let wide = Wide::new(&batch);
                let shard = reference::Shard::of(&self.loss, self.shape, self.range.clone(), wide.of(batch))?;
                shard.statistics(targets, &self.state)
            }
            #[cfg(feature = "cpu")]
            Inner::Cpu(head) => head.statistics(batch, targets, &self.state),
            #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
            Inner::Gpu(head) => head.statistics(&batch, targets, &self.state),
            #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
            Inner::Gpu(_) => Err(no_shards("statistics")),
        }
    }

    /// The loss of the batch, dW and db of this shard, and its share of dX, dL/ds and the one db of a binary link, all of
    /// them to be added up over the shards; given the merged targets and statistics.
    pub fn gradients<L: Label>(
        &mut self,
        batch: &Batch<'_, L>,
        targets: &Targets,
        statistics: &Statistics,
    ) -> Result<Output> {
        let batch = self.check(batch)?;
        let out = match &mut self.inner {
            Inner::Reference(options) => {
                let wide = Wide::new(&batch);
                let shard = reference::Shard::of(&self.loss, self.shape, self.range.clone(), wide.of(batch))?;
                let shard = shard.with_filter(options.filter);
                narrow(shard.gradients(options.want, targets, statistics, &self.state)?)
            }
            #[cfg(feature = "cpu")]
            Inner::Cpu(head) => head.gradients(batch, targets, statistics, &self.state)?,
            #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
            Inner::Gpu(head) => head.gradients(&batch, targets, statistics, &self.state)?,
            #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
            Inner::Gpu(_) => return Err(no_shards("gradients")),
        };
        self.state.step += u64::from(std::mem::take(&mut self.following));
        Ok(out)
    }
}

#[cfg(all(feature = "gpu", target_arch = "wasm32"))]
fn no_shards(what: &'static str) -> Error {
    Error::Combination {
        what,
        why: "a browser cannot wait for a shard on its GPU: take the CPU, or one head for all classes",
    }
}

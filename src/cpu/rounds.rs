//! The passes over the tiles of classes, in the rounds of a [`Pace`]: one, or some tiles at a time. No bit depends on them.

use super::{
    head::CpuHead,
    held::Held,
    input::{HeadCall, Path, each},
    pace::Pace,
    ranges::{Look, Pass, RangeTask},
    sparse::FilterSums,
    tiling::Setup,
    workspace::Outputs,
};
use crate::{Result, State};

/// Multiply-adds in the time that a sweep takes for one cosine.
const SWEEP: u64 = 16;

/// The multiply-adds for one prototype of a pass with so many products.
fn work(call: &HeadCall<'_>, products: u64, dim: usize) -> u64 {
    (call.batch.rows() as u64).saturating_mul(products * dim as u64 + SWEEP)
}

impl Pass {
    /// The products of a cosine.
    fn products(self, Setup { tiling, .. }: Setup) -> u64 {
        let gradients = u64::from(tiling.want.grad_embeddings) + u64::from(tiling.want.grad_prototypes);
        match self {
            Self::Scan { ready, .. } | Self::Statistics { ready, .. } => u64::from(!ready),
            Self::Gradients => gradients + u64::from(!tiling.keep),
        }
    }
}

impl CpuHead {
    /// The work of all these passes.
    pub(super) fn work(&self, call: &HeadCall<'_>, passes: impl IntoIterator<Item = Pass>) -> u64 {
        let tiling = self.setup.tiling;
        let work = passes.into_iter().map(|pass| work(call, pass.products(self.setup), tiling.dim)).sum::<u64>();
        work.saturating_mul(tiling.columns as u64)
    }

    /// The work of a step, with a scan of its own for what follows the batch, and one for predictions.
    pub(super) fn work_of_step(&self, call: &HeadCall<'_>, scans: bool, predicts: bool) -> u64 {
        let (tiling, look) = (self.setup.tiling, Look { top: 0, sums: true });
        let want = tiling.want;
        let scan = |first: bool| Pass::Scan { look, ready: tiling.keep && !first };
        let statistics = Pass::Statistics { ready: tiling.keep && (scans || predicts), count: 0 };
        let gradients = want.grad_embeddings || want.grad_prototypes || want.grad_bias && self.loss.is_linear();
        let scans = [scans.then(|| scan(true)), predicts.then(|| scan(!scans))];
        let passes = scans.into_iter().chain([Some(statistics), gradients.then_some(Pass::Gradients)]);
        self.work(call, passes.flatten())
    }

    /// A pass over every range of class tiles.
    pub(super) async fn run_ranges(
        &mut self,
        call: &HeadCall<'_>,
        path: Path,
        state: &State,
        into: Outputs<'_>,
        pace: &mut Pace<'_>,
        pass: Pass,
    ) -> Result<()> {
        let context = self.input.context(self.setup, &self.loss, path, call, state);
        let mut tasks = self.workspace.tasks(self.setup, &self.range, call, into);
        let tiling = self.setup.tiling;
        let work = work(call, pass.products(self.setup), tiling.dim);
        let left = |tasks: &[RangeTask<'_>]| tasks.iter().map(RangeTask::left).sum::<usize>();
        while !tasks.is_empty() {
            let (before, takers) = (left(&tasks), if pace.alone() { 1 } else { tasks.len() });
            let tiles = pace.tiles(work * tiling.tile as u64, takers, call.division.threads);
            let parallel = call.parallel && takers > 1;
            each(parallel, tasks[..takers].iter_mut().collect(), |task| task.run(pass, tiles, &context));
            let after = left(&tasks);
            tasks.retain(|task| !task.ended());
            pace.between(work * (before - after) as u64).await?;
        }
        Ok(())
    }

    /// Pass 2 of *keep*, tile by tile.
    pub(super) async fn run_queue(
        &mut self,
        call: &HeadCall<'_>,
        held: Held,
        state: &State,
        into: Outputs<'_>,
        pace: &mut Pace<'_>,
    ) -> Result<FilterSums> {
        let context = self.input.context(self.setup, &self.loss, self.path(), call, state);
        let (workers, queue) = self.workspace.queue(self.setup, &self.range, call, into);
        let (tiling, threads) = (self.setup.tiling, call.division.threads);
        let work = work(call, Pass::Gradients.products(self.setup), tiling.dim) * tiling.tile as u64;
        let takers = if pace.alone() { 1 } else { threads.min(workers.len()) };
        let tiles = pace.tiles(work, takers, threads);
        while !queue.is_empty() {
            let before = queue.ended();
            queue.run(call.parallel && takers > 1, (held, tiles), &context, &mut workers[..takers]);
            pace.between(work * (queue.ended() - before) as u64).await?;
        }
        Ok(queue.filter_sums())
    }
}

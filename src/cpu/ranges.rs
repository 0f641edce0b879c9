//! One range of consecutive class tiles, processed in order: the scan of the raw cosines, and pass 1.

use super::{
    input::{PassContext, Path},
    rows::Partial,
    scan::Scan,
    sweep::DirectStatistics,
    table::TableStatistics,
    tiles::ClassTiles,
    tiling::Setup,
    worker::WorkerScratch,
};
use crate::objective::others::{Identity, Rectified};

/// One range of class tiles with everything that belongs to it alone.
pub(super) struct RangeTask<'a> {
    pub tiles: ClassTiles<'a>,
    pub worker: &'a mut WorkerScratch,
    pub partials: &'a mut [Partial],
    pub top: &'a mut [(f32, u32)],
    /// Of dX, in *recompute*.
    pub share: &'a mut [f32],
    /// Its total, where that is a long sum.
    pub total: &'a mut [f64],
}

/// The facts to be scanned before the passes.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// How many of the largest cosines of a row.
    pub top: usize,
    /// The sums of exp(scale·c).
    pub sums: bool,
}

impl RangeTask<'_> {
    /// Counts prototypes, and looks at the raw cosines where that is asked for; *keep* then holds them.
    pub fn scan(self, look: Look, context: &PassContext<'_>) {
        let (arch, centers, count) = (context.setup.arch, context.table.centers, look.top);
        let worker = self.worker;
        self.partials.fill(Partial::EMPTY);
        self.top.fill((f32::NEG_INFINITY, u32::MAX));
        (worker.zero, worker.non_finite) = (0, 0);
        for tile in self.tiles {
            worker.count(context, tile.classes.prototypes);
            if count == 0 && !look.sums {
                continue;
            }
            for (at, rows) in context.row_blocks() {
                let (block, scratch) = worker.tile.block(context, (at, rows), tile.classes, tile.kept, false);
                let partials = look.sums.then_some(&mut self.partials[at..at + rows.len()]);
                let top = &mut self.top[at * count..(at + rows.len()) * count];
                arch.dispatch(Scan { centers, block, scratch, partials, top, count });
            }
        }
    }

    /// Pass 1: the rows' statistics over the other classes of this range. `ready`: what is kept are cosines already.
    pub fn statistics(self, ready: bool, context: &PassContext<'_>) {
        let (Setup { arch, tiling, .. }, table) = (context.setup, &context.table);
        let worker = self.worker;
        self.partials.fill(Partial::EMPTY);
        if !ready {
            (worker.zero, worker.non_finite) = (0, 0);
        }
        for tile in self.tiles {
            if !ready {
                worker.count(context, tile.classes.prototypes);
            }
            for (at, rows) in context.row_blocks() {
                let (block, scratch) = worker.tile.block(context, (at, rows), tile.classes, tile.kept, ready);
                let partials = &mut self.partials[at..at + rows.len()];
                match context.path {
                    Path::Identity if tiling.keep => {
                        let max_logit = &mut tile.max_logit[at..at + rows.len()];
                        arch.dispatch(DirectStatistics::<_, true> { others: Identity, block, partials, max_logit });
                    }
                    Path::Identity => {
                        arch.dispatch(DirectStatistics::<_, false> {
                            others: Identity,
                            block,
                            partials,
                            max_logit: &mut [],
                        });
                    }
                    Path::Rectified => {
                        let others = Rectified;
                        arch.dispatch(DirectStatistics::<_, false> { others, block, partials, max_logit: &mut [] });
                    }
                    Path::Table | Path::AllSums => {
                        let extras = &context.extras[at..];
                        arch.dispatch(TableStatistics { table, block, extras, scratch, partials });
                    }
                }
            }
        }
    }
}

//! One range of consecutive class tiles, processed in order: the scan of the raw cosines, and pass 1.

use super::{
    input::{PassContext, Path, each},
    rows::{HeadRow, Partial},
    scan::Scan,
    sweep::DirectStatistics,
    table::TableStatistics,
    tiles::{ClassTile, ClassTiles, TileClasses, front},
    tiling::Setup,
    total::Total,
    worker::{BlockScratch, TileScratch, WorkerScratch, values_of},
};
use crate::objective::others::{Identity, Rectified};

/// One range of class tiles with everything that belongs to it alone.
pub(super) struct RangeTask<'a> {
    pub tiles: ClassTiles<'a>,
    /// One for each part of a block, at least one.
    pub workers: &'a mut [WorkerScratch],
    pub partials: &'a mut [Partial],
    pub top: &'a mut [(f32, u32)],
    /// Of dX, in *recompute*.
    pub share: &'a mut [f32],
    pub total: Total<'a>,
    /// Whether a pass over it has begun.
    pub begun: bool,
}

/// The facts to be scanned before the passes.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// How many of the largest cosines of a row.
    pub top: usize,
    /// The sums of exp(scale·c).
    pub sums: bool,
}

/// A pass over the tiles.
#[derive(Clone, Copy)]
pub(super) enum Pass {
    /// Counts prototypes, and looks at the raw cosines where that is asked for; *keep* then holds them. `ready`: it does already.
    Scan { look: Look, ready: bool },
    /// Pass 1: the rows' statistics over the other classes of this range; `count` of the largest cosines of a row with them, on
    /// the path of the identity. `ready`: what is kept are cosines already.
    Statistics { ready: bool, count: usize },
    /// Pass 2 of *recompute*: this range's share of dX, and its dW and db.
    Gradients,
}

/// Some rows of a block × the classes of a tile, with everything that belongs to them alone.
struct Part<'a> {
    /// The first row.
    at: usize,
    rows: &'a [HeadRow],
    values: &'a mut [f32],
    max_logit: &'a mut [f32],
    partials: &'a mut [Partial],
    top: &'a mut [(f32, u32)],
    scratch: &'a mut BlockScratch,
}

impl RangeTask<'_> {
    /// Begins a pass, or goes on with it: so many tiles.
    pub fn run(&mut self, pass: Pass, tiles: usize, context: &PassContext<'_>) {
        match pass {
            Pass::Scan { look, ready } => self.scan(tiles, look, ready, context),
            Pass::Statistics { ready, count } => self.statistics(tiles, ready, count, context),
            Pass::Gradients => self.gradients(tiles, context),
        }
    }

    /// The prototypes that have not been passed.
    pub fn left(&self) -> usize {
        self.tiles.rest.classes.prototypes.len() / self.tiles.tiling.dim
    }

    /// Whether all tiles have been passed.
    pub fn ended(&self) -> bool {
        self.left() == 0
    }

    fn scan(&mut self, tiles: usize, look: Look, ready: bool, context: &PassContext<'_>) {
        let (arch, centers, count) = (context.setup.arch, context.table.centers, look.top);
        if !self.begun {
            self.top.fill((f32::NEG_INFINITY, u32::MAX));
        }
        let look_at = |part: Part<'_>, tile: &TileScratch, classes: TileClasses<'_>| {
            let partials = look.sums.then_some(part.partials);
            let block = tile.block(context, (part.at, part.rows, part.values), classes, ready);
            let (extras, scratch) = (&context.extras[part.at..], &mut part.scratch.sweep);
            arch.dispatch(Scan { centers, block, extras, scratch, partials, top: part.top, count });
        };
        self.pass(tiles, count > 0 || look.sums, count, ready, context, look_at);
    }

    fn statistics(&mut self, tiles: usize, ready: bool, count: usize, context: &PassContext<'_>) {
        let (Setup { arch, tiling, .. }, table) = (context.setup, &context.table);
        let join = |part: Part<'_>, tile: &TileScratch, classes: TileClasses<'_>| {
            let Part { at, rows, values, max_logit, partials, top, scratch } = part;
            let block = tile.block(context, (at, rows, values), classes, ready);
            match context.path {
                Path::Identity if tiling.keep => {
                    let others = Identity;
                    arch.dispatch(DirectStatistics::<_, true> { others, block, partials, max_logit, top, count });
                }
                Path::Identity => {
                    let others = Identity;
                    arch.dispatch(DirectStatistics::<_, false> { others, block, partials, max_logit, top, count });
                }
                Path::Rectified => {
                    let others = Rectified;
                    arch.dispatch(DirectStatistics::<_, false> { others, block, partials, max_logit, top, count });
                }
                Path::Table | Path::AllSums => {
                    let (extras, scratch) = (&context.extras[at..], &mut scratch.sweep);
                    arch.dispatch(TableStatistics { table, block, extras, scratch, partials });
                }
            }
        };
        if count > 0 && !self.begun {
            self.top.fill((f32::NEG_INFINITY, u32::MAX));
        }
        self.pass(tiles, true, count, ready, context, join);
    }

    /// So many tiles in order, the blocks of rows of each in order, and the parts of each side by side. Unless they are `ready`, the
    /// cosines are computed, where a `sweep` is to see them, and the prototypes counted. `top`: chosen cosines of a row.
    fn pass(
        &mut self,
        count: usize,
        swept: bool,
        top: usize,
        ready: bool,
        context: &PassContext<'_>,
        sweep: impl Fn(Part<'_>, &TileScratch, TileClasses<'_>) + Sync + Send,
    ) {
        let Self { tiles, workers, partials, top: chosen, begun, .. } = self;
        let begins = !std::mem::replace(begun, true);
        if begins {
            partials.fill(Partial::EMPTY);
        }
        let dim = context.setup.tiling.dim;
        let (first, others) = workers.split_at_mut(1);
        let Some(WorkerScratch { tile: scratch, block, cosines, zero, non_finite, .. }) = first.first_mut() else {
            return;
        };
        if begins && !ready {
            (*zero, *non_finite) = (0, 0);
        }
        for ClassTile { classes, kept, max_logit, .. } in tiles.take(count) {
            if ready && !swept {
                continue;
            }
            let (classes, cosines) = classes.widened(cosines, context.setup.tiling.worker_cosines());
            if !ready {
                let [short, bad] = scratch.count(context, classes.prototypes);
                (*zero, *non_finite) = (*zero + short, *non_finite + bad);
            }
            if !swept {
                continue;
            }
            let columns = classes.prototypes.len() / dim;
            for (first, rows) in context.row_blocks() {
                let count = context.division.part_rows(rows.len());
                let values = values_of(kept, cosines, (first, rows.len()), columns);
                let scratches = std::iter::once(&mut *block).chain(others.iter_mut().map(|other| &mut other.block));
                let mut max_logit = max_logit.get_mut(first..).unwrap_or_default();
                let mut chosen = &mut chosen[first * top..];
                let parts = (rows.chunks(count).zip(values.chunks_mut(count * columns)))
                    .zip(partials[first..].chunks_mut(count).zip(scratches))
                    .enumerate()
                    .map(|(part, ((rows, values), (partials, scratch)))| Part {
                        at: first + part * count,
                        rows,
                        values,
                        max_logit: front(&mut max_logit, rows.len()),
                        partials: &mut partials[..rows.len()],
                        top: front(&mut chosen, rows.len() * top),
                        scratch,
                    })
                    .collect::<Vec<_>>();
                let scratch = &*scratch;
                each(parts.len() > 1, parts, |part| {
                    if !ready {
                        let with = (scratch.ordinary, &mut *part.scratch);
                        context.cosines(part.values, (first, part.at), classes, with);
                    }
                    sweep(part, scratch, classes);
                });
            }
        }
    }
}

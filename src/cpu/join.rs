//! dX in *keep*: the tiles of classes join its blocks of rows.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::{
    directions::Project,
    input::PassContext,
    sparse::FilterSums,
    tiles::{ClassTiles, front},
    tiling::{Setup, Tiling},
    total::Total,
    worker::WorkerScratch,
};

/// The results of a tile in *keep*.
struct Done<'a> {
    /// G as [`ClassTile::gradients`] leaves it, \[N, prototypes of the tile\].
    values: &'a [f32],
    prototypes: &'a [f32],
    ordinary: bool,
    filter_sums: FilterSums,
}

/// dX in *keep*, row block by row block: the tiles join each of them in order, by whoever finds it free and a tile done.
/// So the sums depend on no thread, nobody waits, and most of G is still in a cache.
pub(super) struct Queue<'a> {
    tiles: Mutex<ClassTiles<'a>>,
    done: Vec<OnceLock<Done<'a>>>,
    blocks: Vec<Mutex<Joined<'a>>>,
}

/// Some rows of dX.
struct Joined<'a> {
    /// How many tiles are part of them.
    tiles: usize,
    rows: &'a mut [f32],
    total: Total<'a>,
    /// Their embeddings and the lengths of those.
    from: &'a [f32],
    lengths: &'a [f64],
}

impl<'a> Queue<'a> {
    pub fn new(
        tiles: ClassTiles<'a>,
        (from, lengths): (&'a [f32], &'a [f64]),
        grad: &'a mut [f32],
        mut totals: &'a mut [f64],
    ) -> Self {
        let Tiling { joined, dim, tile, .. } = tiles.tiling;
        let own = from.chunks(joined * dim).zip(lengths.chunks(joined));
        let blocks = grad.chunks_mut(joined * dim).zip(own);
        let blocks = blocks.map(|(rows, (from, lengths))| {
            let total = Total::new(front(&mut totals, rows.len()));
            Mutex::new(Joined { tiles: 0, rows, total, from, lengths })
        });
        let count = (tiles.rest.classes.prototypes.len() / dim).div_ceil(tile);
        Self {
            tiles: Mutex::new(tiles),
            done: std::iter::repeat_with(OnceLock::new).take(count).collect(),
            blocks: blocks.collect(),
        }
    }

    /// The bytes of [`new`](Self::new) for this many tiles and blocks.
    pub fn bytes(tiles: u64, blocks: usize) -> u64 {
        let tile = size_of::<OnceLock<Done<'_>>>() as u64;
        tiles.saturating_mul(tile).saturating_add((blocks * size_of::<Mutex<Joined<'_>>>()) as u64)
    }

    /// Pass 2, until no tile is left.
    pub fn work(&self, fresh: bool, context: &PassContext<'_>, worker: &mut WorkerScratch) {
        let next = || self.tiles.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(tile) = next() {
            worker.lists.sums = FilterSums::default();
            let (index, prototypes) = (tile.index, tile.classes.prototypes);
            let values = tile.gradients(fresh, context, worker, None);
            let done = Done { values, prototypes, ordinary: worker.tile.ordinary, filter_sums: worker.lists.sums };
            // every index comes once
            let _ = self.done[index].set(done);
            for (b, block) in self.blocks.iter().enumerate() {
                if let Ok(mut block) = block.try_lock() {
                    self.join(b, &mut block, context, worker);
                }
            }
        }
    }

    /// Whether there are rows that nobody was free for.
    pub fn unfinished(&self) -> bool {
        self.blocks.iter().any(|b| b.lock().unwrap_or_else(PoisonError::into_inner).tiles < self.done.len())
    }

    /// Every `step`-th block of rows from `first` on, finished.
    pub fn finish(&self, first: usize, step: usize, context: &PassContext<'_>, worker: &mut WorkerScratch) {
        for (b, block) in self.blocks.iter().enumerate().skip(first).step_by(step) {
            self.join(b, &mut block.lock().unwrap_or_else(PoisonError::into_inner), context, worker);
        }
    }

    /// All tiles that are done in order join; after the last one the rows are projected.
    fn join(&self, b: usize, block: &mut Joined<'a>, context: &PassContext<'_>, worker: &mut WorkerScratch) {
        let Setup { arch, tiling: Tiling { dim, joined, .. }, .. } = context.setup;
        let Joined { tiles, rows, total, from, lengths } = block;
        while let Some(done) = self.done.get(*tiles).and_then(OnceLock::get) {
            let columns = done.prototypes.len() / dim;
            let values = &done.values[b * joined * columns..][..rows.len() / dim * columns];
            let with = (done.ordinary, &mut worker.tile.unit[..]);
            context.grad_embeddings((rows, total.adds()), values, done.prototypes, with, &mut worker.lists);
            *tiles += 1;
            let last = *tiles == self.done.len();
            total.joined(arch, rows, last || !done.ordinary);
            if last {
                let project = Project { pull: rows, from, step: 1, dim, lengths, divided: false };
                total.finish(arch, 0, project, context.linear);
            }
        }
    }

    /// The entries of G that every tile dropped, in order.
    pub fn filter_sums(&self) -> impl Iterator<Item = FilterSums> {
        self.done.iter().filter_map(|done| done.get().map(|done| done.filter_sums))
    }
}

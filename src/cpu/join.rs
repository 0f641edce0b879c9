//! dX in *keep*: the tiles of classes join its blocks.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{
    division::{Division, JoinBlock},
    held::Held,
    input::{PassContext, each},
    sparse::FilterSums,
    tiles::{ClassTile, ClassTiles, front},
    tiling::{Setup, Tiling},
    total::Total,
    trace::{self, Event, Task},
    worker::WorkerScratch,
};
use crate::data::StoredValues;

/// The results of a tile in *keep*.
struct Done<'a> {
    /// G as [`ClassTile::gradients`] leaves it, \[N, prototypes of the tile\].
    values: &'a [f32],
    ordinary: bool,
    filter_sums: FilterSums,
}

/// dX in *keep*, block by block: the tiles join each of them in order, by whoever finds it free and a tile done. So the sums
/// depend on no thread, nobody waits but for the last tiles, and most of G is still in a cache.
pub(super) struct Queue<'a> {
    /// Of all tiles.
    prototypes: StoredValues<'a>,
    tiles: Mutex<ClassTiles<'a>>,
    done: Vec<OnceLock<Done<'a>>>,
    /// How many tiles are done, and whom to tell of more.
    ended: Mutex<usize>,
    more: Condvar,
    blocks: Vec<Mutex<Joined<'a>>>,
}

/// A block of dX.
struct Joined<'a> {
    /// How many tiles are part of it.
    tiles: usize,
    part: JoinBlock,
    sum: &'a mut [f32],
    total: Total<'a>,
}

/// Counts a tile as done when it goes.
struct Ended<'q, 'a>(&'q Queue<'a>);

impl Drop for Ended<'_, '_> {
    fn drop(&mut self) {
        *lock(&self.0.ended) += 1;
        self.0.more.notify_all();
    }
}

/// Nothing is left half done where a holder panicked that others would read: the panic ends the call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Queue<'a> {
    /// `sums`: where the blocks of dX lie.
    pub fn new(tiles: ClassTiles<'a>, division: Division, mut sums: &'a mut [f32], mut totals: &'a mut [f64]) -> Self {
        let Tiling { dim, tile, .. } = tiles.tiling;
        let rows = sums.len() / dim;
        let blocks = division.blocks(rows, dim).map(|part| {
            let sum = front(&mut sums, part.rows * part.columns);
            let total = Total::new(front(&mut totals, sum.len()));
            Mutex::new(Joined { tiles: 0, part, sum, total })
        });
        let blocks = blocks.collect();
        let count = (tiles.rest.classes.prototypes.len() / dim).div_ceil(tile);
        let done = std::iter::repeat_with(OnceLock::new).take(count).collect();
        Self {
            prototypes: tiles.rest.classes.prototypes,
            tiles: Mutex::new(tiles),
            done,
            ended: Mutex::new(0),
            more: Condvar::new(),
            blocks,
        }
    }

    /// The bytes of [`new`](Self::new) for this many tiles and blocks.
    pub fn bytes(tiles: u64, blocks: u64) -> u64 {
        let (tile, block) = (size_of::<OnceLock<Done<'_>>>(), size_of::<Mutex<Joined<'_>>>());
        tiles.saturating_mul(tile as u64).saturating_add(blocks.saturating_mul(block as u64))
    }

    /// Pass 2 by these workers: so many turns of each, or all that is left.
    pub fn run(
        &self,
        parallel: bool,
        (held, turns): (Held, usize),
        context: &PassContext<'_>,
        workers: &mut [WorkerScratch],
    ) {
        each(parallel, workers.iter_mut().collect(), |worker| {
            let mut left = turns;
            while left > 0 && self.turn(held, context, worker) {
                left -= 1;
            }
        });
    }

    /// The tiles that are done.
    pub fn ended(&self) -> usize {
        *lock(&self.ended)
    }

    /// Whether all tiles are done, and part of every block: asked between runs.
    pub fn is_empty(&self) -> bool {
        let all = self.done.len();
        self.ended() == all && self.blocks.iter().all(|block| lock(block).tiles == all)
    }

    /// The entries of G that were dropped.
    pub fn filter_sums(&self) -> FilterSums {
        let sums = self.done.iter().filter_map(|done| done.get().map(|done| done.filter_sums));
        sums.fold(FilterSums::default(), FilterSums::plus)
    }

    /// A tile, and what it joins; whether anything is left that is not in other hands.
    fn turn(&self, held: Held, context: &PassContext<'_>, worker: &mut WorkerScratch) -> bool {
        let tile = lock(&self.tiles).next();
        let Some(tile) = tile else {
            let ended = self.ended();
            self.join_free(context, worker);
            // whoever holds a block that lacks a later tile has not seen this many, and comes back to it
            if ended == self.done.len() {
                return false;
            }
            let waiting = self.more.wait_while(lock(&self.ended), |now| *now == ended);
            drop(waiting);
            return true;
        };
        let left = self.done.len() - tile.index - 1;
        trace::within(Event::Task(Task::Tile(tile.index)), || self.gradients(tile, held, context, worker));
        // the last tiles are begun before anything else
        if left >= context.division.threads {
            self.join_free(context, worker);
        }
        true
    }

    /// A tile becomes done.
    fn gradients(&self, tile: ClassTile<'a>, held: Held, context: &PassContext<'_>, worker: &mut WorkerScratch) {
        // told whatever happens, since others wait for it
        let _ended = Ended(self);
        worker.lists.sums = FilterSums::default();
        let index = tile.index;
        let values = tile.gradients(held, context, worker, None);
        let done = Done { values, ordinary: worker.tile.ordinary, filter_sums: worker.lists.sums };
        // every index comes once
        let _ = self.done[index].set(done);
    }

    /// Every block that nobody works on.
    fn join_free(&self, context: &PassContext<'_>, worker: &mut WorkerScratch) {
        for (b, block) in self.blocks.iter().enumerate() {
            if let Ok(mut block) = block.try_lock() {
                self.join(b, &mut block, context, worker);
            }
        }
    }

    /// All tiles that are done in order join.
    fn join(&self, b: usize, block: &mut Joined<'a>, context: &PassContext<'_>, worker: &mut WorkerScratch) {
        let Setup { arch, tiling: Tiling { dim, .. }, .. } = context.setup;
        let Joined { tiles, part: JoinBlock { row, rows, column, columns: width }, sum, total } = block;
        while let Some(done) = self.done.get(*tiles).and_then(OnceLock::get) {
            trace::within(Event::Task(Task::Join { block: b, tile: *tiles }), || {
                let first = *tiles * context.setup.tiling.tile * dim;
                let columns = done.values.len() / context.rows.len();
                // pass 2 holds no block of its own where the cosines are kept
                let prototypes = self.prototypes.part(first..first + columns * dim).widened_in(&mut worker.cosines);
                let values = &done.values[*row * columns..][..*rows * columns];
                let with = (done.ordinary, &mut worker.block.unit[..]);
                let part = (*column, *width);
                context.grad_embeddings((sum, total.adds()), part, values, prototypes, with, &mut worker.lists);
                *tiles += 1;
                total.joined(arch, sum, *tiles == self.done.len() || !done.ordinary);
            });
        }
    }
}

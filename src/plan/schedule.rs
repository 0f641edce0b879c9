//! How the work of a head is cut: rounds over chunks of classes, slots and splits.

use crate::Tile;

/// A range of classes that one round works on; it lies in one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The shard.
    pub shard: usize,
    /// The first class, over all shards.
    pub first: usize,
    /// The first class, counted in its shard.
    pub local: usize,
    /// Classes.
    pub count: usize,
    /// Prototypes of a class.
    pub centers: usize,
}

impl Chunk {
    /// Its prototypes.
    pub fn vectors(&self) -> usize {
        self.count * self.centers
    }

    /// Prototypes from row to row of its cosines: whole quads.
    pub fn stride(&self) -> usize {
        self.vectors().next_multiple_of(4)
    }
}

/// A size of the chunks whose cosines are computed twice, with what it costs: an estimate, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkCost {
    /// Classes of the largest chunk.
    pub classes: usize,
    /// Dispatches of all rounds.
    pub dispatches: u64,
    /// Starts and ends of these dispatches.
    pub launches: u64,
    /// Kernels that wait for memory: those between the products, whose own traffic passes beside their arithmetic, and
    /// the slabs that dX adds to in each round.
    pub traffic: u64,
}

impl ChunkCost {
    pub(super) fn total(&self) -> u64 {
        self.launches.saturating_add(self.traffic)
    }
}

/// How the work is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassSchedule {
    /// The matrix tile.
    pub tile: Tile,
    /// The cosines of all classes stay between the passes (*keep*); otherwise they are computed twice (*recompute*).
    pub keep: bool,
    /// The rounds, in order.
    pub chunks: Vec<Chunk>,
    /// Statistics held per row.
    pub slots: usize,
    /// Parts of the sum over classes in grad_embeddings.
    pub splits: usize,
    /// Where cosines are computed twice: what these chunks cost by the planner's estimate, and what those of the other size
    /// that it looked at would.
    pub costs: Vec<ChunkCost>,
}

/// Prototypes that the slabs of dX add up before they are finished. The radial part of that sum grows with their number, and
/// the gradient, which is the rest, with the square root of it, so a longer sum in f32 would lose more precision. (512×85,742×512
/// still is one sum.)
pub(super) const MAX_SUMMED: usize = 1 << 17;

/// The place of a chunk in the sums of dX, see [`MAX_SUMMED`].
#[derive(Debug, Clone, Copy)]
pub(super) struct SumPlace {
    /// A sum begins with this chunk.
    pub begins: bool,
    /// It ends with this chunk.
    pub ends: bool,
    /// There was a sum before, to which this one is added.
    pub adds: bool,
}

impl PassSchedule {
    /// Nothing to cut: one chunk holds all classes.
    pub(super) fn single(tile: Tile, classes: usize) -> Self {
        let chunks = vec![Chunk { shard: 0, first: 0, local: 0, count: classes, centers: 1 }];
        Self { tile, keep: true, chunks, slots: 1, splits: 1, costs: vec![] }
    }

    /// The largest [`Chunk::stride`].
    pub(super) fn longest(&self) -> u64 {
        self.chunks.iter().map(Chunk::stride).max().unwrap_or(4) as u64
    }

    /// For each chunk its place in the sums of dX.
    pub(super) fn sums(&self) -> Vec<SumPlace> {
        let mut held = usize::MAX;
        let begins = |chunk: &Chunk| {
            let begins = held.saturating_add(chunk.vectors()) > MAX_SUMMED;
            held = if begins { chunk.vectors() } else { held + chunk.vectors() };
            begins
        };
        let begins: Vec<bool> = self.chunks.iter().map(begins).collect();
        let mut sums = 0;
        let place = |(i, &begins_here): (usize, &bool)| {
            sums += usize::from(begins_here);
            SumPlace { begins: begins_here, ends: begins.get(i + 1).is_none_or(|&next| next), adds: sums > 1 }
        };
        begins.iter().enumerate().map(place).collect()
    }
}

/// Chunks of at most `most` classes, as even as possible, whole groups of 64.
pub(super) fn cut(shards: &[usize], most: usize, centers: usize) -> Vec<Chunk> {
    let mut chunks = vec![];
    let mut start = 0;
    for (shard, &classes) in shards.iter().enumerate() {
        let even = classes.div_ceil(classes.div_ceil(most));
        let size = even.next_multiple_of(64).min(most);
        for local in (0..classes).step_by(size) {
            chunks.push(Chunk { shard, first: start + local, local, count: size.min(classes - local), centers });
        }
        start += classes;
    }
    chunks
}

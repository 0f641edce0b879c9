//! Keep or recompute, chunks of classes, splits and slots: chosen from shape, budget and limits.

use super::{Limits, settings};
use crate::{Budget, Error, Result, Shape, Tile, Want};

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
}

impl Chunk {
    /// Classes from row to row of its cosines: whole quads.
    pub fn stride(&self) -> usize {
        self.count.next_multiple_of(4)
    }
}

/// How the work is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
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
}

/// A chunk that is computed twice stays in the cache of a large GPU below this size.
const CACHED: u64 = 32 << 20;

impl Schedule {
    /// Nothing to cut: one chunk holds all classes.
    pub(super) fn single(tile: Tile, classes: usize) -> Self {
        let chunks = vec![Chunk { shard: 0, first: 0, local: 0, count: classes }];
        Self { tile, keep: true, chunks, slots: 1, splits: 1 }
    }

    pub(super) fn new(
        shape: Shape,
        shards: &[usize],
        limits: &Limits,
        budget: Budget,
        want: Want,
        tile: Option<Tile>,
    ) -> Result<Self> {
        let small = shape.rows() <= 32 || shape.classes() <= 32;
        let tile = tile.unwrap_or(if small { Tile::Direct } else { Tile::Tile64 });
        let rows = shape.rows().max(1) as u64;
        let largest = shards.iter().copied().max().unwrap_or(1);
        let smallest = largest.min(64);

        // what one binding, and an index, can hold
        let most = (limits.max_binding.min(limits.max_buffer) / 4).min(crate::shape::MOST - 1) / rows;
        let most = if most < 64 { most as usize / 4 * 4 } else { most as usize / 64 * 64 };
        if most < smallest {
            let what = "a chunk of cosines";
            let needed = rows * (smallest as u64).next_multiple_of(4) * 4;
            let allowed = limits.max_binding.min(limits.max_buffer);
            if needed <= allowed {
                return Err(Error::Size { what, needed: needed / 4, allowed: crate::shape::MOST - 1 });
            }
            return Err(Error::Limit { what, limit: "max_storage_buffer_binding_size", needed, allowed });
        }

        // slabs and slots are there for speed, and give way to the chunk
        let blocks = rows.div_ceil(u64::from(tile.size())) * (shape.dim() as u64).div_ceil(u64::from(tile.size()));
        let mut splits = if want.grad_embeddings { (512 / blocks).clamp(1, 64) } else { 1 };
        let slab = rows * (shape.dim() as u64).next_multiple_of(4) * 4;
        while splits > 1 && splits * slab > budget.get() / 4 {
            splits /= 2;
        }
        let slots = (4096 / rows).clamp(1, 64);
        let most = most.min(largest.next_multiple_of(64));

        let cached = ((CACHED / (rows * 4)) as usize / 64 * 64).max(1024);
        let mut needed = u64::MAX;
        for (splits, slots) in [(splits, slots), (1, 1)] {
            // no loop over classes takes too many turns, see ROWS_PER_PASS
            let most = most.min((splits as usize) << 16);
            let attempt = |most: usize, keep: bool| {
                let chunks = cut(shards, most);
                let longest = chunks.iter().map(|c| c.count).max().unwrap_or(1);
                let splits = splits.min(longest.div_ceil(64) as u64) as usize;
                let slots = slots.min(longest.div_ceil(256) as u64) as usize;
                Self { tile, keep, chunks, slots, splits }
            };
            if want.any() {
                let all = attempt(most, true);
                if all.bytes(shape, shards, want) <= budget.get() {
                    return Ok(all);
                }
            }
            let mut size = most.min(cached);
            loop {
                let part = attempt(size, false);
                let bytes = part.bytes(shape, shards, want);
                if bytes <= budget.get() {
                    return Ok(part);
                }
                needed = needed.min(bytes);
                if size <= smallest {
                    break;
                }
                size = (size / 8 * 7 / 64 * 64).max(smallest);
            }
        }
        Err(Error::Budget { needed, allowed: budget.get() })
    }

    /// Bytes of the workspace of a head, to the last padding: a test compares them with the plan's buffers.
    fn bytes(&self, shape: Shape, shards: &[usize], want: Want) -> u64 {
        let rows = shape.rows().max(1) as u64;
        let stride = |chunk: &Chunk| chunk.stride() as u64;
        let longest = self.chunks.iter().map(stride).max().unwrap_or(4);
        let all: u64 = self.chunks.iter().map(stride).sum();
        let groups: u64 = shards.iter().map(|c| c.div_ceil(64) as u64).sum();
        let passes = rows.div_ceil(u64::from(super::head::ROWS_PER_PASS));
        let parts = self.chunks.len() as u64 * if want.grad_prototypes { passes } else { 1 } + shards.len() as u64 + 1;
        // the smallest buffer has 16 bytes
        let buffer = |bytes: u64| bytes.max(16);
        let mut bytes = rows * size_of::<settings::Row>() as u64 + size_of::<settings::BatchState>() as u64;
        bytes += 2 * buffer(rows * 4); // inverses, row losses
        bytes += buffer(shape.classes() as u64 * 8) + groups * 16;
        bytes += self.slots as u64 * rows * 16;
        bytes += if self.keep { rows * 4 * all } else { rows * 4 * longest };
        bytes += 16; // class weights that nobody gave
        if want.any() {
            bytes += buffer(rows.div_ceil(64) * longest * 4) + 16; // and upstream
        }
        if want.grad_embeddings {
            bytes += self.splits as u64 * rows * (shape.dim() as u64).next_multiple_of(4) * 4;
        }
        bytes + parts * super::PART_STRIDE + settings::SETTINGS_BYTES as u64
    }
}

/// Chunks of at most `most` classes, as even as possible, whole groups of 64.
fn cut(shards: &[usize], most: usize) -> Vec<Chunk> {
    let mut chunks = vec![];
    let mut start = 0;
    for (shard, &classes) in shards.iter().enumerate() {
        let even = classes.div_ceil(classes.div_ceil(most));
        let size = even.next_multiple_of(64).min(most);
        for local in (0..classes).step_by(size) {
            chunks.push(Chunk { shard, first: start + local, local, count: size.min(classes - local) });
        }
        start += classes;
    }
    chunks
}

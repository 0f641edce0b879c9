//! Keep or recompute, chunks of classes, splits and slots: chosen from shape, budget and limits.

use super::{
    Limits,
    kernels::{self, Stages},
    settings,
};
use crate::{Budget, DevicePreset, Error, MarginSoftmax, Result, Shape, Tile, Want};

/// The work of a head, as far as it needs memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// A backward pass.
    pub any: bool,
    pub embeddings: bool,
    pub prototypes: bool,
    pub scale: bool,
    pub bias: Option<Bias>,
    pub linear: bool,
    pub draws: bool,
    pub chosen: usize,
    /// Small entries of the gradient are left out.
    pub filter: bool,
    /// Turns of a loop in the transform of the other classes.
    bends: usize,
    /// The cosines are read a second time in the forward pass.
    twice: bool,
}

/// Whose bias gets a gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bias {
    /// One per class.
    Classes,
    /// The one of a binary link.
    Link,
}

impl Work {
    pub fn new(loss: &MarginSoftmax, want: Want, stages: Stages, filter: bool) -> Self {
        let linear = loss.is_linear();
        let bias = match (linear, loss.binary()) {
            _ if !want.grad_bias => None,
            (true, _) => Some(Bias::Classes),
            (false, Some(_)) => Some(Bias::Link),
            _ => None,
        };
        Self {
            any: want.grad_embeddings || want.grad_prototypes || want.grad_scale || bias.is_some(),
            embeddings: want.grad_embeddings,
            prototypes: want.grad_prototypes,
            scale: want.grad_scale,
            bias,
            linear,
            draws: stages.draws,
            chosen: stages.chosen,
            filter,
            bends: loss.others.loop_iterations(),
            twice: stages.chosen > 0 || stages.scale,
        }
    }

    /// Whether the backward pass goes through the cosines.
    pub fn sweeps(self) -> bool {
        self.embeddings || self.prototypes || self.bias == Some(Bias::Classes)
    }

    /// Whether it is worth the memory to keep all cosines.
    fn keeps(self) -> bool {
        self.sweeps() || self.twice
    }
}

/// Bytes of what a filter needs.
pub(super) struct FilterBytes {
    pub blocks: u64,
    pub class_lists: u64,
    pub row_lists: u64,
}

impl FilterBytes {
    /// Of the sums of what was left out.
    pub const SUMS: u64 = size_of::<settings::Filtered>() as u64;

    /// For chunks with up to `stride` prototypes from row to row.
    pub fn new(rows: u64, stride: u64, centers: u64, want: Work, tile: Tile) -> Self {
        let listed = u64::from(kernels::listed(tile));
        let lists =
            |on: bool, count: u64, longest: u64| if on { count.div_ceil(listed) * (longest + 1) * 4 } else { 0 };
        Self {
            blocks: rows.div_ceil(64) * stride.div_ceil(centers).div_ceil(64) * 32,
            class_lists: lists(want.embeddings, rows, stride),
            row_lists: lists(want.prototypes, stride, rows),
        }
    }

    fn sum(&self) -> u64 {
        // the smallest buffer has 16 bytes
        let list = |bytes: u64| if bytes > 0 { bytes.max(16) } else { 0 };
        self.blocks + list(self.class_lists) + list(self.row_lists) + Self::SUMS
    }
}

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

/// Prototypes that the slabs of dX add up before they are finished. The radial part of that sum grows with their number, and
/// the gradient, which is the rest, with the square root of it, so a longer sum in f32 would lose more digits. (512×85,742×512
/// still is one sum.)
const MOST_SUMMED: usize = 1 << 17;

/// Turns of all loops of a lane of row_stats, two for each of its classes and one for each prototype in both; see
/// `ROWS_PER_PASS`.
const MOST_TURNS: usize = 1 << 15;

/// Chunks, times the passes over the rows that each takes. A plan holds about a kilobyte of each.
pub(super) const MOST_ROUNDS: u64 = 1 << 16;

/// Passes of grad_prototypes over the rows.
fn passes(rows: u64, want: Work) -> u64 {
    if want.prototypes { rows.div_ceil(super::head::ROWS_PER_PASS.into()) } else { 1 }
}

/// Rounds of chunks of at most `most` classes.
fn rounds(shards: &[usize], most: usize, passes: u64) -> u64 {
    shards.iter().map(|count| count.div_ceil(most) as u64).sum::<u64>() * passes
}

impl Schedule {
    /// Nothing to cut: one chunk holds all classes.
    pub(super) fn single(tile: Tile, classes: usize) -> Self {
        let chunks = vec![Chunk { shard: 0, first: 0, local: 0, count: classes, centers: 1 }];
        Self { tile, keep: true, chunks, slots: 1, splits: 1 }
    }

    pub(super) fn new(
        shape: Shape,
        shards: &[usize],
        limits: &Limits,
        budget: Budget,
        want: Work,
        (preset, tile): (DevicePreset, Option<Tile>),
    ) -> Result<Self> {
        let centers = shape.sub_centers();
        let tuning = preset.resolve(limits);
        let tile = tile.unwrap_or_else(|| tuning.tile(shape.rows(), shape.vectors(), limits));
        tile.check(limits)?;
        let rows = shape.rows().max(1) as u64;
        let largest = shards.iter().copied().max().unwrap_or(1);
        let smallest = largest.min(64);

        // what one binding, and an index, can hold: whole quads of a row's cosines
        let (limit, allowed) = limits.tightest();
        let values = (allowed / 4).min(crate::shape::MOST - 1);
        let most = (values / rows / 4 * 4) as usize / centers;
        let most = if most < 64 { most } else { most / 64 * 64 };
        if most < smallest {
            let what = "a chunk of cosines";
            let needed = rows * ((smallest * centers) as u64).next_multiple_of(4) * 4;
            if needed <= allowed {
                return Err(Error::Size { what, needed: needed / 4, allowed: crate::shape::MOST - 1 });
            }
            return Err(Error::Limit { what, limit, needed, allowed });
        }

        // slabs and slots only add speed: they shrink before the chunk does
        let blocks = rows.div_ceil(u64::from(tile.rows())) * (shape.dim() as u64).div_ceil(u64::from(tile.columns()));
        let mut splits = if want.embeddings { (tuning.groups / blocks).clamp(1, 64) } else { 1 };
        let slab = rows * (shape.dim() as u64).next_multiple_of(4);
        if want.embeddings && slab >= crate::shape::MOST {
            let what = "rows · dim, in whole quads";
            return Err(Error::Size { what, needed: slab, allowed: crate::shape::MOST - 1 });
        }
        while splits > 1 && splits * slab * 4 > budget.get() / 4 {
            splits /= 2;
        }
        let slots = (tuning.row_groups / rows).clamp(1, 64);
        let most = most.min(largest.next_multiple_of(64));

        let cached = ((tuning.cached / (rows * 4)) as usize / centers / 64 * 64).max(1024);
        let passes = passes(rows, want);
        let (mut needed, mut refused) = (u64::MAX, None);
        for (splits, slots) in [(splits, slots), (1, 1)] {
            // no loop over classes takes too many turns, see ROWS_PER_PASS
            let summed = MOST_SUMMED.min((splits as usize) << 16);
            let most = most.min(summed / centers / 64 * 64);
            let span = MOST_TURNS / 2 / (centers + want.bends) * 64;
            let most = most.min(slots as usize * span);
            let attempt = |most: usize, keep: bool| {
                let chunks = cut(shards, most, centers);
                let longest = chunks.iter().map(|c| c.count).max().unwrap_or(1);
                let splits = splits.min((longest * centers).div_ceil(64) as u64) as usize;
                // sixteen classes per lane: merging the lanes costs as much as a few
                let slots = slots.min(longest.div_ceil(1024) as u64) as usize;
                Self { tile, keep, chunks, slots, splits }
            };
            let count = rounds(shards, most, passes);
            if count > MOST_ROUNDS {
                refused = Some(Error::Size { what: "rounds of a head", needed: count, allowed: MOST_ROUNDS });
                continue;
            }
            if want.keeps() {
                let all = attempt(most, true);
                if all.bytes(shape, shards, want) <= budget.get() {
                    return Ok(all);
                }
            }
            let mut size = most.min(cached);
            while rounds(shards, size, passes) > MOST_ROUNDS {
                size = (size * 2).min(most);
            }
            loop {
                let part = attempt(size, false);
                let bytes = part.bytes(shape, shards, want);
                if bytes <= budget.get() {
                    return Ok(part);
                }
                needed = needed.min(bytes);
                size = match (size / 8 * 7 / 64 * 64).max(smallest) {
                    next if next < size && rounds(shards, next, passes) <= MOST_ROUNDS => next,
                    _ => break,
                };
            }
        }
        if let (u64::MAX, Some(refused)) = (needed, refused) {
            return Err(refused);
        }
        Err(Error::Budget { needed, allowed: budget.get() })
    }

    /// For each chunk, whether the sums of dX start with it: see `MOST_SUMMED`.
    pub(super) fn starts(&self) -> Vec<bool> {
        let mut held = usize::MAX;
        let starts = |chunk: &Chunk| {
            let starts = held.saturating_add(chunk.vectors()) > MOST_SUMMED;
            held = if starts { chunk.vectors() } else { held + chunk.vectors() };
            starts
        };
        self.chunks.iter().map(starts).collect()
    }

    /// Bytes of the workspace of a head, to the last padding: a test compares them with the plan's buffers.
    fn bytes(&self, shape: Shape, shards: &[usize], want: Work) -> u64 {
        let rows = shape.rows().max(1) as u64;
        let stride = |chunk: &Chunk| chunk.stride() as u64;
        let longest = self.chunks.iter().map(stride).max().unwrap_or(4);
        let all: u64 = self.chunks.iter().map(stride).sum();
        let groups: u64 = shards.iter().map(|c| (c * shape.sub_centers()).div_ceil(64) as u64).sum();
        let mut parts = self.chunks.len() as u64 * passes(rows, want) + shards.len() as u64 + 1;
        if want.chosen > 0 {
            // a span that starts a row's list, or begins at class 0 of its chunk, has a part of its own too
            parts += self.chunks.iter().map(|c| c.count.div_ceil(super::head::CLASSES_PER_SPAN) as u64).sum::<u64>();
        }
        parts += u64::from(want.bias == Some(Bias::Link));
        if want.embeddings {
            // a chunk that starts sums of dX anew, and what adds those to the ones before
            let more = self.starts().iter().filter(|&&starts| starts).count() as u64 - 1;
            parts += more + u64::from(more > 0 && want.bias != Some(Bias::Link));
        }
        // the smallest buffer has 16 bytes
        let buffer = |bytes: u64| bytes.max(16);
        let mut bytes = rows * size_of::<settings::Row>() as u64 + size_of::<settings::BatchState>() as u64;
        bytes += 2 * buffer(rows * 4); // inverses, row losses
        bytes += buffer(shape.vectors() as u64 * 8) + groups * 16;
        bytes += self.slots as u64 * rows * size_of::<settings::Stats>() as u64;
        bytes += if self.keep { rows * 4 * all } else { rows * 4 * longest };
        bytes += 4 * 16; // class weights and margins, row margins, state that nobody gave
        if want.linear {
            bytes += buffer(shape.classes() as u64 * 4); // nor a bias
        }
        if want.chosen > 0 {
            bytes += buffer(rows * want.chosen as u64 * 8);
        }
        if want.draws {
            bytes += buffer(rows * 4);
        }
        if want.any {
            bytes += 16; // nor upstream
        }
        if want.sweeps() {
            bytes += buffer(rows.div_ceil(64) * longest * 4);
        }
        if want.filter {
            bytes += FilterBytes::new(rows, longest, shape.sub_centers() as u64, want, self.tile).sum();
        }
        if want.embeddings {
            bytes += self.splits as u64 * rows * (shape.dim() as u64).next_multiple_of(4) * 4;
        }
        bytes + parts * super::PART_STRIDE + settings::SETTINGS_BYTES as u64
    }
}

/// Chunks of at most `most` classes, as even as possible, whole groups of 64.
fn cut(shards: &[usize], most: usize, centers: usize) -> Vec<Chunk> {
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

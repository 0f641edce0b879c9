//! The time of a schedule's rounds beside their arithmetic, as an estimate: starts and ends of dispatches against
//! traffic beyond the cache.

use super::{
    ChunkCost, PassSchedule,
    driver_limits::{CLASSES_PER_SPAN, ROWS_PER_PASS},
    work::{Bias, Work},
};
use crate::Shape;

/// The numbers of a device by which chunks of cosines that are computed twice get their size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CostModel {
    /// Microseconds from the end of a dispatch to the work of the next.
    pub launch: f64,
    /// GFLOP/s of a core in a product: where one ends, a core waits for half a workgroup of another on average.
    pub core: f64,
    /// GB/s of the memory beyond the cache.
    pub bandwidth: f64,
    /// Bytes of a chunk's cosines, or of the slabs of dX, that stay in the cache: half of it, since vectors pass through
    /// it too.
    pub cached: u64,
}

impl CostModel {
    /// The cost of all rounds of a schedule that computes its cosines twice.
    pub(super) fn cost(&self, shape: Shape, work: Work, schedule: &PassSchedule) -> ChunkCost {
        let (rows, dim, rounds) = (shape.rows().max(1) as u64, shape.dim() as u64, schedule.chunks.len() as u64);
        let (longest, splits) = (schedule.longest(), schedule.splits as u64);
        let (top_k, scale, sweeps) =
            (u64::from(work.stages.top_k > 0), u64::from(work.stages.scale), u64::from(work.sweeps()));
        let (dx, dw) = (u64::from(work.embeddings), if work.prototypes { work.passes(rows) } else { 0 });
        let cosines = 1 + top_k + scale + sweeps;
        let spans = top_k * (longest / shape.sub_centers() as u64).div_ceil(CLASSES_PER_SPAN as u64);
        let filter = if work.filter { 1 + dx + u64::from(work.prototypes) } else { 0 };
        let bias = u64::from(work.bias == Some(Bias::Classes));
        let dispatches = rounds * (cosines + 1 + spans + scale + sweeps + filter + dx + dw + bias);

        let steps = cosines * dim + dx * longest.div_ceil(splits) + dw * rows.min(ROWS_PER_PASS.into());
        let tile = f64::from(schedule.tile.rows() * schedule.tile.columns());
        // half of the two operations of a step: GFLOP/s are thousands of them in a microsecond
        let ends = (rounds * steps) as f64 * tile / (self.core * 1e3);

        let beyond = |bytes: u64| bytes > self.cached;
        let (vectors, slabs) = (shape.vectors() as u64, dx * splits * rows * dim * 4);
        let mut bytes = 0;
        if beyond(rows * longest * 4) {
            // one read for each sum or choice; grad_cosines reads and writes
            bytes += rows * vectors * 4 * (1 + top_k + scale + 2 * sweeps);
        }
        if beyond(slabs) {
            bytes += 2 * rounds * slabs;
        }
        ChunkCost {
            classes: schedule.chunks.iter().map(|chunk| chunk.count).max().unwrap_or(0),
            dispatches,
            launches: (dispatches as f64 * self.launch + ends).round() as u64,
            traffic: (bytes as f64 / (self.bandwidth * 1e3)).round() as u64,
        }
    }
}

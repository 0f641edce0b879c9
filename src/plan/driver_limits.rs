//! The most that one dispatch, and one plan, may work on.
//!
//! llvmpipe silently aborts a shader after 65,535 loop iterations, counted over all loops of an invocation, and no driver
//! says how many it allows. So every loop over rows, classes or values has a bound, which is stated here.

use crate::{Error, Result};

/// Rows that one pass of grad_prototypes sums over, and prototypes in one split of a sum over classes.
pub(super) const ROWS_PER_PASS: u32 = 1 << 16;

/// Classes that one step of select_classes goes through.
pub(super) const CLASSES_PER_SPAN: usize = 1 << 13;

/// Rows that one step of the monitor counts: with the most bins a lane of 128 looks at each of them 16 times, four at a time.
#[cfg(feature = "gpu")]
pub(super) const MONITORED_ROWS: usize = 1 << 13;

/// Rows of a batch that one workgroup of 64 lanes goes through.
pub(super) const MAX_COUNTED_ROWS: usize = 1 << 21;

/// Twice the loop iterations of one lane of row_stats: one for each of its quads of classes and one for each prototype in them.
pub(super) const MAX_STATISTICS_ITERATIONS: usize = 1 << 15;

/// A row's logits, which 64 lanes go through in one loop each; the iterations of these loops count together.
pub(super) const MAX_LOGITS: usize = 1 << 21;

/// Values of a vector: its loops take a thirtieth of so many iterations, for eight vectors per lane.
pub(super) const MAX_DIM: usize = 1 << 16;

/// Prototypes of a class: one lane goes through all of them for 64 rows, and through their dot products with one.
pub(super) const MAX_SUB_CENTERS: usize = 256;

/// Values of all prototypes of a class with more than one.
pub(super) const MAX_SUB_CENTER_VALUES: u64 = 1 << 20;

/// Classes in one split of UniformFace's sum over pairs.
pub(super) const PAIRS_PER_SPLIT: usize = 1 << 16;

/// Classes of UniformFace: a lane goes through a 128th of them at most.
pub(super) const MAX_PAIRED_CLASSES: usize = 1 << 22;

/// Rows of a center loss: a lane goes through a 128th of them at most.
pub(super) const MAX_CENTER_LOSS_ROWS: usize = 1 << 22;

/// Rows of one update of the centers: a lane goes through all of them.
pub(super) const MAX_CENTER_UPDATE_ROWS: usize = 1 << 15;

/// Rounds of a plan, which holds about a kilobyte of each: its chunks, times the passes over the rows that each takes.
pub(super) const MAX_ROUNDS: u64 = 1 << 16;

/// [`Error::Size`] where more is needed than allowed.
pub(super) fn at_most(what: &'static str, needed: u64, allowed: u64) -> Result<()> {
    if needed > allowed { Err(Error::Size { what, needed, allowed }) } else { Ok(()) }
}

/// The same for values of a tensor, which shaders index with 31 bits.
pub(super) fn indexable(what: &'static str, needed: u64) -> Result<()> {
    at_most(what, needed, crate::shape::INDEX_END - 1)
}

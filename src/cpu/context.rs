//! The data that all ranges of class tiles read during one pass.

use pulp::Arch;

use super::{
    rows::{HeadRow, RowExtras},
    table::Table,
    tiling::Tiling,
};
use crate::GradientFilter;

/// The choices that stay the same from call to call.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub arch: Arch,
    pub tiling: Tiling,
    pub filter: Option<GradientFilter>,
}

/// Which sweeps a pass takes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Path {
    /// The cosines as they are; *keep* then stores exp(z) in their place.
    Identity,
    Rectified,
    /// Every other.
    Table,
    /// The same with the weighted sums that other shards may need.
    AllSums,
}

/// The batch, the loss at its state, and the sweeps.
pub(super) struct PassContext<'a> {
    pub setup: Setup,
    pub path: Path,
    pub table: Table,
    /// Plain products of vectors as they are.
    pub linear: bool,
    pub scale: f32,
    pub directions: &'a [f32],
    pub rows: &'a [HeadRow],
    pub extras: &'a [RowExtras],
    /// Class weights and their stand-in, with label smoothing.
    pub weights: Option<(Option<&'a [f32]>, &'a [f32])>,
    /// One over the weights' [`unit`](super::rows::unit).
    pub per_unit: f32,
}

impl<'a> PassContext<'a> {
    /// The blocks of rows, each with the index of its first row.
    pub fn row_blocks(&self) -> impl Iterator<Item = (usize, &'a [HeadRow])> + use<'a> {
        let size = self.setup.tiling.block;
        self.rows.chunks(size).enumerate().map(move |(block, rows)| (block * size, rows))
    }

    /// The weights of a tile's classes, with label smoothing.
    pub fn weights_of(&self, first: usize, width: usize) -> Option<&'a [f32]> {
        self.weights.map(|(given, ones)| given.map_or(&ones[..width], |w| &w[first..first + width]))
    }
}

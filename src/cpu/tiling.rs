//! How a head divides its work. Every sum follows these numbers, so they never depend on the number of threads; what may is in
//! `division`.

use pulp::Arch;

use super::{product::Pieces, total::LONG};
use crate::{Want, data::GradientFilter, shape::elements};

/// Workers that a head has room for, where its budget allows.
const WORKERS: usize = 64;

/// Class tiles, row blocks and ranges of tiles, and what is kept between the passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiling {
    pub rows: usize,
    /// Prototypes, all sub-centers counted: columns of the products.
    pub columns: usize,
    pub centers: usize,
    pub dim: usize,
    pub want: Want,
    /// Cosines that are chosen per row and range before the passes.
    pub top: usize,
    /// Targets of a row beside its label.
    pub soft: usize,
    /// Whether entries of G are listed.
    pub filter: bool,
    /// Whether N·C·K values survive pass 1; else pass 2 computes the cosines again.
    pub keep: bool,
    /// Prototypes of a tile, whole classes: what one product computes and one sweep reads while it is in the cache.
    pub tile: usize,
    /// Rows of a block: the other side of it.
    pub block: usize,
    /// Ranges of consecutive tiles, each processed in order.
    pub ranges: usize,
    /// Whether there is room for more workers than ranges, and for a copy of dX that is divided along its columns.
    pub spread: bool,
    /// How products take up an operand that lies across.
    pub pieces: Pieces,
}

/// The choices that stay the same from call to call.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub arch: Arch,
    pub tiling: Tiling,
    pub filter: Option<GradientFilter>,
}

impl Tiling {
    /// With at most `ranges` ranges of equally many tiles.
    pub fn with_ranges(mut self, ranges: usize) -> Self {
        let tiles = self.columns.div_ceil(self.tile);
        self.ranges = tiles.div_ceil(tiles.div_ceil(ranges));
        self
    }

    /// Workers of a range: more than one where there is room for them.
    pub fn parts(&self) -> usize {
        if self.spread { WORKERS.div_ceil(self.ranges) } else { 1 }
    }

    /// Of all ranges.
    pub fn workers(&self) -> usize {
        self.ranges * self.parts()
    }

    /// Tiles of every range but the last, which may have fewer.
    pub fn range_tiles(&self) -> usize {
        self.columns.div_ceil(self.tile).div_ceil(self.ranges)
    }

    /// Values kept between the passes.
    pub fn kept(&self) -> u64 {
        if self.keep { elements(self.rows, self.columns) } else { 0 }
    }

    /// Largest logits kept with them, one per row and tile.
    pub fn max_logits(&self) -> u64 {
        if self.keep { elements(self.rows, self.columns.div_ceil(self.tile)) } else { 0 }
    }

    /// Values of the ranges' shares of dX in *recompute*, the first lies in the output; in *keep* of its blocks.
    pub fn shares(&self) -> u64 {
        let held = match self.want.grad_embeddings {
            true if self.keep => u64::from(self.spread),
            true => self.ranges as u64 - 1,
            false => 0,
        };
        elements(self.rows, self.dim).saturating_mul(held)
    }

    /// Whether dX is the sum of so many tiles that it is added up in f64.
    pub fn long_embeddings(&self) -> bool {
        self.want.grad_embeddings && self.columns.div_ceil(self.tile) > LONG
    }

    /// Whether the share of one range is that long already.
    pub fn long_ranges(&self) -> bool {
        self.long_embeddings() && !self.keep && self.range_tiles() > LONG
    }

    /// Values of the totals of dX in f64.
    pub fn totals(&self) -> u64 {
        let held = match self.keep {
            true => u64::from(self.long_embeddings()),
            false if self.long_ranges() => self.ranges as u64,
            false => 0,
        };
        elements(self.rows, self.dim).saturating_mul(held)
    }

    /// Values of the total of dW of a tile, where that is a sum of so many blocks of rows.
    pub fn worker_totals(&self) -> usize {
        let long = self.want.grad_prototypes && self.rows.div_ceil(self.block) > LONG;
        if long { self.tile * self.dim } else { 0 }
    }

    /// Classes of a tile whose biases get a gradient.
    pub fn bias_sums(&self) -> usize {
        if self.want.grad_bias { self.tile_classes() } else { 0 }
    }

    /// Classes of a tile.
    pub fn tile_classes(&self) -> usize {
        self.tile / self.centers
    }

    /// Chosen cosines of all ranges.
    pub fn chosen(&self) -> u64 {
        elements(self.rows, self.ranges).saturating_mul(self.top as u64)
    }

    /// Cosines in the scratch of a worker.
    pub fn worker_cosines(&self) -> usize {
        if self.keep { 0 } else { self.block * self.tile }
    }

    /// The rows and prototypes of a block of G whose entries are listed.
    pub fn listed(&self) -> (usize, usize) {
        if self.filter { (self.block, self.tile) } else { (0, 0) }
    }
}

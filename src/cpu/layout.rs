//! How a head divides its work: chosen once from sizes, wishes and budget, never from the number of threads, since every
//! sum follows it.

use super::{
    pass::{Prototypes, Queue, WorkerScratch},
    product::{Pieces, packing_bytes},
    rows::{Partial, Row, RowExtras},
    sparse::Lists,
    table::Scratch,
    total::LONG,
    vector::Aligned,
};
use crate::{Budget, Error, Result, Shape, Want, shape::elements};

/// Class tiles, row blocks and ranges of tiles, and what is kept between the passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    rows: usize,
    /// Prototypes, all sub-centers counted: columns of the products.
    columns: usize,
    centers: usize,
    dim: usize,
    want: Want,
    /// Cosines that are chosen per row and range before the passes.
    pub top: usize,
    /// Whether entries of G are listed.
    filter: bool,
    /// Whether N·C·K values survive pass 1; else pass 2 computes the cosines again.
    pub keep: bool,
    /// Prototypes of a tile, whole classes: what one product computes and one sweep reads while it is in the cache.
    pub tile: usize,
    /// Rows of a block: the other side of it.
    pub block: usize,
    /// Ranges of consecutive tiles, each processed in order by one thread at a time; pass 2 of *keep* has as many workers.
    pub ranges: usize,
    /// Rows of dX that a tile joins at once in *keep*.
    pub joined: usize,
    /// How products take up an operand that lies across.
    pub pieces: Pieces,
}

/// Bytes of the prototypes and cosines of a tile that should stay in a core's own cache.
const CACHE: usize = 1 << 20;

/// Bytes of a row's own margins, in a list that doubles as it grows: its new half and its old one live at once.
const MARGINS: usize = 3 * size_of::<[f64; 4]>();

/// Bytes of a row while a state follows the batch or margins are drawn.
const FOLLOWED: usize = 12 * size_of::<f64>();

/// Whatever the sizes: a series fitted anew, and small lists.
const FIXED: u64 = 20 << 10;

impl Layout {
    /// The fastest layout within the budget.
    pub fn choose(shape: Shape, want: Want, top: usize, filter: bool, budget: Budget) -> Result<Self> {
        let (rows, columns, dim, centers) = (shape.rows(), shape.vectors(), shape.dim(), shape.sub_centers());
        let whole = |tile: usize| (tile / centers).max(1) * centers;
        // narrower tiles waste the product, wider ones the cache; many tiles share out evenly
        let block = rows.div_ceil(rows.div_ceil(512).max(1)).max(1);
        let cached = CACHE / 4 / (block + dim) / 32 * 32;
        let tile = (columns / 16).next_multiple_of(32).min(cached).clamp(128, 512).min(columns);
        let (tile, keep) = (whole(tile), want.grad_embeddings || want.grad_prototypes || want.grad_bias);
        let (joined, pieces) = (block.min(128), Pieces::USUAL);
        let best =
            Self { rows, columns, centers, dim, want, top, filter, keep, tile, block, ranges: 1, joined, pieces };
        let tiles = columns.div_ceil(tile);
        // a thread can have no less than a range
        let most = (tiles / 4).clamp(16, 64);

        let lean = Self { tile: whole(tile.min(256)), ..best };
        let keep = [
            best.with_ranges(most),
            best.with_ranges(16),
            best.with_ranges(8),
            best.with_ranges(4),
            lean.with_ranges(4),
        ];
        let keep = keep.into_iter().filter(|l| l.keep);
        // a range costs a copy of dX; little room goes to several ranges first, then to wide tiles
        let recompute = [(512, 512, most), (512, 512, 16), (512, 512, 8), (128, 256, 8), (128, 256, 4), (128, 128, 4)];
        let small = [(128, 256, 2), (128, 128, 2), (64, 128, 2), (64, 128, 1)];
        let least = [(32, 64, 1), (16, 32, 1)];
        let again = |pieces: Pieces| {
            move |(tile, block, ranges): (usize, usize, usize)| {
                let (tile, block) = (whole(best.tile.min(tile)), best.block.min(block));
                Self { keep: false, tile, block, pieces, ..best }.with_ranges(ranges)
            }
        };
        let recompute = recompute.into_iter().chain(small).map(again(Pieces::USUAL));
        let all = || keep.clone().chain(recompute.clone()).chain(least.map(again(Pieces::MIN)));
        // indices are isize whatever the caller allows
        let allowed = budget.get().min(isize::MAX as u64);
        let needed = all().map(|l| l.bytes()).min().unwrap_or(0);
        all().find(|l| l.bytes() <= allowed).ok_or(Error::Budget { needed, allowed: budget.get() })
    }

    /// With at most `ranges` ranges of equally many tiles.
    fn with_ranges(mut self, ranges: usize) -> Self {
        let tiles = self.columns.div_ceil(self.tile);
        self.ranges = tiles.div_ceil(tiles.div_ceil(ranges));
        self
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
    pub fn most(&self) -> u64 {
        if self.keep { elements(self.rows, self.columns.div_ceil(self.tile)) } else { 0 }
    }

    /// Values of the ranges' shares of dX in *recompute*; the first lies in the output.
    pub fn shares(&self) -> u64 {
        let held = if self.want.grad_embeddings && !self.keep { self.ranges as u64 - 1 } else { 0 };
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
    pub fn slides(&self) -> usize {
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

    /// The bytes of what pass 2 of *keep* takes its tiles from.
    fn queue(&self) -> u64 {
        if !self.keep {
            return 0;
        }
        Queue::bytes(self.columns.div_ceil(self.tile) as u64, self.rows.div_ceil(self.joined))
    }

    /// Every byte that a call holds beside inputs and outputs, on however many threads.
    pub fn bytes(&self) -> u64 {
        let (block, tile, dim) = (self.block, self.tile, self.dim);
        let add = |sum: u64, (count, size): (u64, usize)| sum.saturating_add(count.saturating_mul(size as u64));
        // with its label, its length and its part of the list of blocks
        let row = size_of::<Row>() + size_of::<RowExtras>() + 5 * size_of::<f64>() + MARGINS + FOLLOWED;
        let packing = |m, n, k, across| packing_bytes(self.pieces, m, n, k, across);
        let packing = packing(block, tile, dim, (false, true))
            .max(packing(block, dim, tile, (false, false)))
            .max(packing(tile, dim, block, (true, false)));
        let worker = [(self.worker_cosines() as u64, 4), (tile as u64, Prototypes::BYTES), (dim as u64, 4)];
        let worker =
            worker.into_iter().chain([(self.tile_classes() as u64, Scratch::BYTES), (1, size_of::<WorkerScratch>())]);
        let worker = worker.chain([(self.worker_totals() as u64, 8), (self.slides() as u64, 8)]);
        let (listed_rows, listed) = self.listed();
        let worker = worker.fold(packing + 256 + Lists::bytes(listed_rows, listed), add); // and its task
        [
            (elements(self.rows, dim), 4), // directions
            (1, Aligned::EXTRA),
            (self.rows as u64, row),
            (elements(self.rows, self.ranges), size_of::<Partial>()),
            (self.kept().saturating_add(self.most()), 4),
            (self.shares(), 4),
            (self.totals(), 8),
            (self.chosen(), size_of::<(f32, u32)>()),
            (self.tile_classes() as u64, 4), // ones
            (self.queue(), 1),
        ]
        .into_iter()
        .fold(worker.saturating_mul(self.ranges as u64).saturating_add(FIXED), add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGETS: [u64; 8] = [0, 10 << 10, 100 << 10, 1 << 20, 4 << 20, 30 << 20, 256 << 20, u64::MAX];

    /// Whatever the sizes: within the budget or refused with both numbers, and more memory never means a worse schedule.
    #[test]
    fn a_layout_fits_its_budget() {
        for rows in [0, 1, 3, 64, 256, 513, 4000, (1 << 31) - 1] {
            for classes in [1, 2, 5, 17, 1000, 5994, 100_003, (1 << 31) - 1] {
                for (dim, centers, top) in [(1, 1, 0), (3, 3, 5), (64, 1, 64), (192, 2, 0), (1000, 1, 0), (8, 700, 3)] {
                    let shape = Shape::new(rows, classes, dim).and_then(|s| s.with_sub_centers(centers));
                    let Ok(shape) = shape else { continue };
                    let columns = shape.vectors();
                    for want in [Want::LOSS, Want::EMBEDDINGS, Want::PROTOTYPES, Want::ALL] {
                        let mut kept = false;
                        for budget in BUDGETS.map(Budget::bytes) {
                            match Layout::choose(shape, want, top, top == 5, budget) {
                                Ok(layout) => {
                                    assert!(layout.bytes() <= budget.get());
                                    assert!(layout.tile * layout.ranges.max(1) > 0 && layout.tile <= columns);
                                    assert!(layout.tile % centers == 0 && layout.tile_classes() > 0);
                                    assert!(layout.range_tiles() * layout.tile * layout.ranges >= columns);
                                    assert!(layout.range_tiles() * layout.tile * (layout.ranges - 1) < columns);
                                    assert!(layout.keep >= kept && layout.keep <= want.any());
                                    kept = layout.keep;
                                }
                                Err(Error::Budget { needed, allowed }) => {
                                    assert!(needed > allowed.min(isize::MAX as u64) && allowed == budget.get());
                                    let again = Layout::choose(shape, want, top, top == 5, Budget::bytes(needed));
                                    assert!(again.is_ok_and(|l| l.bytes() == needed) || needed > isize::MAX as u64);
                                }
                                other => panic!("{other:?}"),
                            }
                        }
                    }
                }
            }
        }
    }

    /// The cosines are what decides: they are kept where they fit, and only there.
    #[test]
    fn keep_needs_room_for_all_cosines() {
        let shape = Shape::new(256, 5994, 192).unwrap();
        let cosines = 256 * 5994 * 4;
        let choose = |bytes| Layout::choose(shape, Want::ALL, 0, false, Budget::bytes(bytes)).unwrap();
        assert!(choose(8 * cosines).keep && !choose(cosines).keep);
        assert!(choose(cosines / 2).bytes() <= cosines / 2);
        assert!(!Layout::choose(shape, Want::LOSS, 0, false, Budget::default()).unwrap().keep);
    }
}

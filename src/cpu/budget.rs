//! The fastest tiling within a budget, and the bytes that a head with it holds.

use super::{
    division::Division,
    join::Queue,
    product::{Pieces, packing_bytes},
    rows::{HeadRow, Partial, RowExtras},
    soft::SoftInput,
    sparse::SparseGradient,
    table::Scratch,
    tiling::Tiling,
    vector::Aligned,
    worker::{BlockScratch, TileScratch, WorkerScratch},
};
use crate::{Budget, Error, Result, Shape, Want, shape::elements};

/// Bytes of the prototypes and cosines of a tile that should stay in a core's own cache.
const CACHE: usize = 1 << 20;

/// Bytes of a row's own margins, in a list that doubles as it grows: its new half and its old one live at once.
const MARGINS: usize = 3 * size_of::<[f64; 4]>();

/// Bytes of a row while a state follows the batch or margins are drawn.
const FOLLOWED: usize = 12 * size_of::<f64>();

/// Multiply-adds of a product below which more workers than ranges gain nothing.
const WORTH_SPREADING: u64 = 1 << 24;

/// Whatever the sizes: a series fitted anew, and small lists.
const FIXED: u64 = 20 << 10;

impl Tiling {
    /// The fastest tiling within the budget.
    pub fn choose(shape: Shape, want: Want, (top, soft, filter): (usize, usize, bool), budget: Budget) -> Result<Self> {
        let (rows, columns, dim, centers) = (shape.rows(), shape.vectors(), shape.dim(), shape.sub_centers());
        let whole = |tile: usize| (tile / centers).max(1) * centers;
        // narrower tiles waste the product, wider ones the cache; many tiles share out evenly
        let block = rows.div_ceil(rows.div_ceil(512).max(1)).max(1);
        let cached = CACHE / 4 / (block + dim) / 32 * 32;
        let tile = (columns / 16).next_multiple_of(32).min(cached).clamp(128, 512).min(columns);
        let (tile, keep) = (whole(tile), want.grad_embeddings || want.grad_prototypes || want.grad_bias);
        let (spread, pieces) = (false, Pieces::USUAL);
        let best =
            Self { rows, columns, centers, dim, want, top, soft, filter, keep, tile, block, ranges: 1, spread, pieces };
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
        let found = all().find(|l| l.bytes() <= allowed).ok_or(Error::Budget { needed, allowed: budget.get() })?;
        // decided last: more workers never cost a better tiling. Lists of a filter follow the rows that are multiplied at once
        let worth = elements(rows, columns).saturating_mul(dim as u64) >= WORTH_SPREADING;
        let spread = Self { spread: worth && !filter && !cfg!(target_arch = "wasm32"), ..found };
        Ok(if spread.bytes() <= allowed { spread } else { found })
    }

    /// The bytes of what pass 2 of *keep* takes its tiles from.
    fn queue(&self) -> u64 {
        if !self.keep {
            return 0;
        }
        Queue::bytes(self.columns.div_ceil(self.tile) as u64, Division::most_blocks(self))
    }

    /// Every byte that a call holds beside inputs and outputs, on however many threads.
    pub fn bytes(&self) -> u64 {
        let (block, tile, dim) = (self.block, self.tile, self.dim);
        let add = |sum: u64, (count, size): (u64, usize)| sum.saturating_add(count.saturating_mul(size as u64));
        // with its label, its length and its part of the list of blocks
        let row = size_of::<HeadRow>()
            + size_of::<RowExtras>()
            + 5 * size_of::<f64>()
            + MARGINS
            + FOLLOWED
            + usize::from(self.want.grad_margins.is_some()) * size_of::<usize>()
            + SoftInput::row_bytes(self.soft);
        let packing = |m, n, k, across| packing_bytes(self.pieces, m, n, k, across);
        let packing = packing(block, tile, dim, (false, true))
            .max(packing(block, dim, tile, (false, false)))
            .max(packing(tile, dim, block, (true, false)));
        let worker = [
            (tile as u64, TileScratch::BYTES),
            (dim as u64, 4),
            (BlockScratch::narrow(self) as u64, 4),
            (self.tile_classes() as u64, Scratch::BYTES),
            (1, size_of::<WorkerScratch>()),
            (self.worker_totals() as u64, 8),
            (self.bias_sums() as u64, 8),
        ];
        let (listed_rows, listed) = self.listed();
        // and its task
        let worker = worker.into_iter().fold(packing + 256 + SparseGradient::bytes(listed_rows, listed), add);
        [
            (elements(self.rows, dim), 4), // directions
            (1, Aligned::EXTRA),
            (self.rows as u64, row),
            (elements(self.rows, self.ranges), size_of::<Partial>()),
            (self.kept().saturating_add(self.max_logits()), 4),
            (self.shares(), 4),
            (self.totals(), 8),
            (self.chosen(), size_of::<(f32, u32)>()),
            (self.tile_classes() as u64, 4), // ones
            (self.queue(), 1),
            (elements(self.worker_cosines(), self.ranges), 4),
        ]
        .into_iter()
        .fold(worker.saturating_mul(self.workers() as u64).saturating_add(FIXED), add)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{input::Input, workspace::Workspace},
        *,
    };
    use crate::objective::TopK;

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
                            match Tiling::choose(shape, want, (top, top / 4, top == 5), budget) {
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
                                    let again =
                                        Tiling::choose(shape, want, (top, top / 4, top == 5), Budget::bytes(needed));
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
        let choose = |bytes| Tiling::choose(shape, Want::ALL, (0, 0, false), Budget::bytes(bytes)).unwrap();
        assert!(choose(8 * cosines).keep && !choose(cosines).keep);
        assert!(choose(cosines / 2).bytes() <= cosines / 2);
        assert!(!Tiling::choose(shape, Want::LOSS, (0, 0, false), Budget::default()).unwrap().keep);
    }

    /// The bytes that are counted cover those that a head holds, in both schedules; the smaller budget means recompute.
    #[test]
    fn the_workspace_is_counted() {
        let shape = Shape::new(300, 5000, 48).unwrap();
        // arcface, arcface_topk, sphereface2
        let kinds = [(0, 1), (TopK::default().count, 1), (0, 3)].into_iter();
        let budgets = [(Budget::default(), true), (Budget::mib(4), false)];
        for ((top, centers), (budget, keep)) in kinds.flat_map(|kind| budgets.map(|b| (kind, b))) {
            let shape = shape.with_sub_centers(centers).unwrap();
            let tiling = Tiling::choose(shape, Want::ALL, (top, 4 * (centers - 1), false), budget).unwrap();
            let (input, work) = (Input::new(&tiling), Workspace::new(&tiling));
            let workers = work.workers.iter().map(|w| {
                let (t, b, s) = (&w.tile, &w.block, &w.block.sweep);
                let floats = [&t.factors, &b.unit, &b.narrow, &w.cosines, &s.cosines, &s.values, &s.slopes];
                let wide = [&t.lengths, &w.totals, &w.bias_sums];
                4 * (floats.map(|v| v.capacity()).iter().sum::<usize>() + s.centers.capacity())
                    + 8 * wide.map(|v| v.capacity()).iter().sum::<usize>()
            });
            let floats = [&input.ones, &work.kept, &work.max_logit, &work.shares];
            let held = floats.iter().map(|v| 4 * v.capacity()).sum::<usize>()
                + 4 * input.directions.capacity()
                + 8 * input.lengths.capacity()
                + size_of::<HeadRow>() * input.rows.capacity()
                + size_of::<RowExtras>() * input.extras.capacity()
                + input.soft.held()
                + size_of::<Partial>() * work.partials.capacity()
                + size_of::<(f32, u32)>() * work.top.capacity()
                + 8 * work.totals.capacity()
                + workers.sum::<usize>();
            assert_eq!(tiling.keep, keep);
            assert!(held as u64 <= tiling.bytes() && tiling.bytes() <= budget.get());
        }
    }
}

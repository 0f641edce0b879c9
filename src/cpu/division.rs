//! How a call divides its work among threads. Unlike [`Tiling`] this may follow their number, since it decides no bit: whatever
//! the division, every element of a product is the same sum, taken in the same order.

use super::{product::BLOCK, tiling::Tiling};

/// The rows of dX that are a block where no thread needs fewer.
const JOINED: usize = 128;

/// The division of one call.
#[derive(Clone, Copy)]
pub(super) struct Division {
    pub threads: usize,
    /// The parts of a block of rows that pass 1 takes side by side.
    parts: usize,
    /// Rows of a block of dX in *keep*.
    joined: usize,
    /// Columns of it; the last block of some rows has what is left.
    strip: usize,
}

/// A block of dX. The blocks of some rows lie one after the other.
#[derive(Clone, Copy)]
pub(super) struct JoinBlock {
    pub row: usize,
    pub rows: usize,
    pub column: usize,
    pub columns: usize,
}

impl Division {
    /// The fewest rows of a part: its products are as fast as those of a whole block, within a fifth.
    const ROWS: usize = 64;
    /// The fewest columns of a block of dX: two of the widest vector registers.
    const COLUMNS: usize = 32;

    /// For so many rows and threads.
    pub fn new(tiling: &Tiling, rows: usize, threads: usize) -> Self {
        let dim = tiling.dim;
        let parts = threads.div_ceil(tiling.ranges).min(tiling.parts());
        let rough = Self { threads, parts, joined: JOINED, strip: dim };
        if !tiling.spread {
            return rough;
        }
        // a product of one row is another sum: no division makes one
        let lone = rows % JOINED == JOINED / 2 + 1;
        let sizes = [BLOCK, BLOCK / 2, JOINED, JOINED / 2].into_iter().take(if lone { 3 } else { 4 });
        let divisions = sizes.flat_map(|joined| {
            let strip = move |count: usize| if count == 1 { dim } else { dim / count / 16 * 16 };
            let most = (dim / Self::COLUMNS).clamp(1, 64);
            (1..=most).map(move |count| Self { threads, parts, joined, strip: strip(count) })
        });
        divisions.min_by_key(|division| division.time(rows, dim)).unwrap_or(rough)
    }

    /// The most blocks of dX.
    pub fn most_blocks(tiling: &Tiling) -> u64 {
        let (rows, columns) = match tiling.spread {
            true => (JOINED / 2, (tiling.dim / Self::COLUMNS).clamp(1, 64)),
            false => (JOINED, 1),
        };
        // and a row of its own
        (tiling.rows.div_ceil(rows) as u64 + 1).saturating_mul(columns as u64)
    }

    /// The time that dX takes, up to a factor: the blocks one after the other on each thread, with what a block reads for each of
    /// its rows and columns.
    fn time(&self, rows: usize, dim: usize) -> u64 {
        let columns = dim - (self.strips(dim) - 1) * self.strip;
        let blocks = (rows.div_ceil(self.joined) * self.strips(dim)).div_ceil(self.threads);
        (blocks * (self.joined.min(rows) + 8)) as u64 * (columns + 2) as u64
    }

    /// Blocks beside one another.
    fn strips(&self, dim: usize) -> usize {
        (dim / self.strip.max(1)).max(1)
    }

    /// Whether dX is divided along its columns.
    pub fn striped(&self, dim: usize) -> bool {
        self.strips(dim) > 1
    }

    /// Rows of each part of a block of so many; the last part may have a few less.
    pub fn part_rows(&self, rows: usize) -> usize {
        rows.div_ceil(self.parts.min(rows / Self::ROWS).max(1)).max(1)
    }

    /// The rows that the blocks with this row have: the first one and their number.
    pub fn rows_around(&self, rows: usize, row: usize) -> (usize, usize) {
        // a last row of its own is a product with a vector, whatever the division
        let many = if rows % JOINED == 1 { rows - 1 } else { rows };
        if row >= many {
            return (many, 1);
        }
        let first = row / self.joined * self.joined;
        (first, self.joined.min(many - first))
    }

    /// The columns of a block that begins at this one; a row of its own is not divided.
    fn columns_at(&self, rows: usize, dim: usize, column: usize) -> usize {
        let left = dim - column;
        if rows == 1 || left < 2 * self.strip { left } else { self.strip }
    }

    /// The blocks of dX in the order in which they lie in memory.
    pub fn blocks(self, rows: usize, dim: usize) -> impl Iterator<Item = JoinBlock> {
        let (mut row, mut column) = (0, 0);
        std::iter::from_fn(move || {
            if row >= rows {
                return None;
            }
            let (_, count) = self.rows_around(rows, row);
            let columns = self.columns_at(count, dim, column);
            let block = JoinBlock { row, rows: count, column, columns };
            column += columns;
            if column == dim {
                (row, column) = (row + count, 0);
            }
            Some(block)
        })
    }

    /// Where in memory the values of a row are: for each block its columns' first place and number.
    pub fn places(self, rows: usize, dim: usize, row: usize) -> impl Iterator<Item = (usize, usize)> {
        let (first, count) = self.rows_around(rows, row);
        let mut column = 0;
        std::iter::from_fn(move || {
            let columns = (column < dim).then(|| self.columns_at(count, dim, column))?;
            let place = first * dim + count * column + (row - first) * columns;
            column += columns;
            Some((place, columns))
        })
    }

    /// Where in memory one value of dX is.
    pub fn place(&self, rows: usize, dim: usize, row: usize, column: usize) -> usize {
        let (first, count) = self.rows_around(rows, row);
        let start = if count == 1 { 0 } else { (column / self.strip).min(self.strips(dim) - 1) * self.strip };
        first * dim + count * start + (row - first) * self.columns_at(count, dim, start) + column - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Budget, Shape, Want};

    /// The blocks of dX cover it once, in the order of their places, and none has one row that is not alone in every division.
    #[test]
    fn blocks_cover_dx_once() {
        let rows = [1, 2, 63, 64, 65, 127, 128, 129, 192, 193, 255, 256, 257, 321, 512, 513, 577, 1000, 1025];
        for (rows, dim) in rows.into_iter().flat_map(|rows| [1, 31, 33, 64, 97, 192, 512, 515].map(|dim| (rows, dim))) {
            let shape = Shape::new(rows, 70_000, dim).unwrap();
            let tiling = Tiling::choose(shape, Want::ALL, (0, 0, false), Budget::bytes(u64::MAX)).unwrap();
            for threads in [1, 2, 3, 16, 64, 1000] {
                let division = Division::new(&tiling, rows, threads);
                let mut place = 0;
                let mut seen = vec![0; rows * dim];
                for JoinBlock { row, rows: count, column, columns } in division.blocks(rows, dim) {
                    assert!(count > 1 || rows % JOINED == 1 && row == rows - 1 && columns == dim, "{rows} {threads}");
                    for (i, j) in (row..row + count).flat_map(|i| (column..column + columns).map(move |j| (i, j))) {
                        assert_eq!(division.place(rows, dim, i, j), place, "{rows}x{dim}, {threads} threads");
                        (seen[i * dim + j], place) = (seen[i * dim + j] + 1, place + 1);
                    }
                }
                assert!(seen.iter().all(|&times| times == 1));
                assert!(division.blocks(rows, dim).count() as u64 <= Division::most_blocks(&tiling));
                for row in 0..rows {
                    let places = division.places(rows, dim, row);
                    let all = places.flat_map(|(place, columns)| place..place + columns);
                    assert!(all.eq((0..dim).map(|column| division.place(rows, dim, row, column))));
                }
            }
        }
    }

    /// Many threads get a block each where there is enough for them, and few threads large blocks.
    #[test]
    fn blocks_follow_the_threads() {
        for ([rows, classes, dim], threads, expected) in [
            ([512, 20_000, 512], 1, 1),
            ([512, 20_000, 512], 16, 16),
            ([512, 20_000, 512], 64, 64),
            ([256, 5994, 192], 16, 16),
            ([256, 5994, 192], 2, 2),
        ] {
            let shape = Shape::new(rows, classes, dim).unwrap();
            let tiling = Tiling::choose(shape, Want::ALL, (0, 0, false), Budget::default()).unwrap();
            assert_eq!(Division::new(&tiling, rows, threads).blocks(rows, dim).count(), expected, "{rows} {threads}");
        }
    }

    /// No part is so small that a product of a few columns has another kernel than for the whole block.
    #[test]
    fn parts_are_not_small() {
        let tiling =
            Tiling::choose(Shape::new(512, 900, 512).unwrap(), Want::ALL, (0, 0, false), Budget::default()).unwrap();
        let division = Division::new(&tiling, 512, 1000);
        assert!(division.part_rows(512) == 64);
        for rows in 1..=BLOCK {
            let part = division.part_rows(rows);
            let last = rows - (rows - 1) / part * part;
            assert!(part == rows || last * (super::super::product::FEW + 1) > 256, "{rows}: {part}, {last}");
        }
    }
}

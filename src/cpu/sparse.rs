//! Gradient filtering: small entries of a block of G become 0, and the products then run over those that are left.

use pulp::{Simd, WithSimd};

use super::{
    rows::HeadRow,
    vector::{LANES, fold, scale_values},
};

/// An entry of G that is left: its row (or class) in the block, and its value.
pub(super) type Entry = (u32, f32);

/// The entries of G that one range of classes dropped.
#[derive(Clone, Copy, Default)]
pub(super) struct FilterSums {
    pub dropped: f64,
    pub total: f64,
    pub kept: u64,
}

impl FilterSums {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self { dropped: self.dropped + other.dropped, total: self.total + other.total, kept: self.kept + other.kept }
    }
}

/// The entries that are left of one block, row by row and column by column.
pub(super) struct SparseGradient {
    /// A bit per entry, whole words for every row: it is left.
    words: Vec<u32>,
    rows: Vec<Entry>,
    /// Where each row begins, and where the last one ends; the same for columns.
    row_starts: Vec<u32>,
    columns: Vec<Entry>,
    column_starts: Vec<u32>,
    pub sums: FilterSums,
}

/// One of so many entries may be left for the lists to be used; more are multiplied faster by the dense products.
const SPARSE: usize = 4;

impl SparseGradient {
    /// Room for a block of G; none without a filter.
    pub fn new((block, tile): (usize, usize)) -> Self {
        let [words, room, rows, columns] = Self::room(block, tile);
        Self {
            words: vec![0; words],
            rows: vec![(0, 0.0); room],
            row_starts: vec![0; rows],
            columns: vec![(0, 0.0); room],
            column_starts: vec![0; columns],
            sums: FilterSums::default(),
        }
    }

    /// Words, entries, row starts, column starts.
    fn room(block: usize, tile: usize) -> [usize; 4] {
        if block * tile == 0 {
            return [0; 4];
        }
        [block * tile.div_ceil(LANES), block * tile / SPARSE, block + 1, tile + 1]
    }

    /// The bytes of [`new`](Self::new).
    pub fn bytes(block: usize, tile: usize) -> u64 {
        let [words, room, rows, columns] = Self::room(block, tile);
        (4 * (words + rows + columns) + 2 * room * size_of::<Entry>()) as u64
    }

    /// Row by row: [`Gather`](super::products::Gather) with these makes dX.
    pub fn by_row(&self, rows: usize) -> (&[u32], &[Entry]) {
        (&self.row_starts[..=rows], &self.rows)
    }

    /// Column by column: dW.
    pub fn by_column(&self, columns: usize) -> (&[u32], &[Entry]) {
        (&self.column_starts[..=columns], &self.columns)
    }
}

/// Small entries of a block become 0; the others are listed. Returns whether they are few enough for that.
pub(super) struct ApplyFilter<'a> {
    /// G, \[rows, columns\].
    pub values: &'a mut [f32],
    pub columns: usize,
    pub rows: &'a [HeadRow],
    pub lists: &'a mut SparseGradient,
    /// Factors of the columns, applied last.
    pub factors: Option<&'a [f32]>,
}

impl WithSimd for ApplyFilter<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let SparseGradient { words, rows: list, row_starts, columns: transposed, column_starts, sums } = self.lists;
        let wide = self.columns.div_ceil(LANES);
        let values = self.values.chunks_exact_mut(self.columns);
        let mut left = 0;
        for ((values, row), words) in values.zip(self.rows).zip(words.chunks_exact_mut(wide)) {
            let limit = row.limit;
            if limit <= 0.0 {
                // such a row has no gradient
                words.fill(0);
                continue;
            }
            let (mut total, mut dropped) = ([0.0; LANES], [0.0; LANES]);
            // 0 is small: whatever is padded is neither left nor counted
            left += mark(
                values,
                words,
                #[inline(always)]
                |block| kept_bits(block, limit, &mut total, &mut dropped),
            );
            values.iter_mut().for_each(|v| *v = if v.abs() < limit { 0.0 } else { *v });
            let sum = |lanes: [f32; LANES]| lanes.iter().map(|&x| f64::from(x)).sum::<f64>();
            sums.total += sum(total);
            sums.dropped += sum(dropped);
        }
        sums.kept += left as u64;
        let sparse = left <= self.values.len() / SPARSE;
        if sparse {
            let starts = &mut column_starts[..=self.columns];
            starts.fill(0);
            let ends = collect(
                self.values,
                self.columns,
                words,
                list,
                row_starts,
                #[inline(always)]
                |column| starts[column + 1] += 1,
            );
            by_columns(&list[..left], &row_starts[..=ends], transposed, starts);
            for (ends, factor) in starts.windows(2).zip(self.factors.unwrap_or_default()) {
                let own = &mut transposed[ends[0] as usize..ends[1] as usize];
                own.iter_mut().for_each(|(_, value)| *value *= factor);
            }
        }
        self.values.chunks_exact_mut(self.columns).for_each(|row| scale_values(row, self.factors));
        sparse
    }
}

/// The entries of a block that are not 0, row by row, each with its prototype's place among those of the tile as they came.
/// Returns whether they are few enough for that.
pub(super) struct List<'a> {
    /// \[rows, columns\], the first prototypes of all classes in front.
    pub values: &'a [f32],
    pub columns: usize,
    pub centers: usize,
    pub lists: &'a mut SparseGradient,
}

impl WithSimd for List<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let Self { values, columns, centers, lists } = self;
        let SparseGradient { words, rows: list, row_starts, .. } = lists;
        let mut left = 0;
        for (values, words) in values.chunks_exact(columns).zip(words.chunks_exact_mut(columns.div_ceil(LANES))) {
            left += mark(values, words, nonzero_bits);
        }
        let sparse = left <= values.len() / SPARSE;
        if sparse {
            collect(values, columns, words, list, row_starts, |_| {});
            if centers > 1 {
                let width = (columns / centers) as u32;
                list[..left].iter_mut().for_each(|(at, _)| *at = *at % width * centers as u32 + *at / width);
            }
        }
        sparse
    }
}

/// Words of bits from the blocks of a row, the last one filled up with zeros; returns the number of bits that are set.
#[inline(always)]
fn mark(values: &[f32], words: &mut [u32], mut bits: impl FnMut(&[f32; LANES]) -> u32) -> usize {
    let (blocks, rest) = values.as_chunks::<LANES>();
    for (block, word) in blocks.iter().zip(&mut *words) {
        *word = bits(block);
    }
    if let (false, Some(word)) = (rest.is_empty(), words.last_mut()) {
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        *word = bits(&padded);
    }
    words.iter().map(|word| word.count_ones() as usize).sum()
}

/// A bit for each value that is not 0.
#[inline(always)]
fn nonzero_bits(values: &[f32; LANES]) -> u32 {
    let mut bits = [0_u32; LANES];
    for k in 0..LANES {
        bits[k] = u32::from(values[k] != 0.0) << k;
    }
    fold(
        bits,
        #[inline(always)]
        |a, b| a | b,
    )
}

/// A bit for each value that is not small.
#[inline(always)]
fn kept_bits(values: &[f32; LANES], limit: f32, total: &mut [f32; LANES], dropped: &mut [f32; LANES]) -> u32 {
    let mut bits = [0_u32; LANES];
    for k in 0..LANES {
        let size = values[k].abs();
        let small = size < limit;
        total[k] += size;
        dropped[k] += if small { size } else { 0.0 };
        bits[k] = u32::from(!small) << k;
    }
    fold(
        bits,
        #[inline(always)]
        |a, b| a | b,
    )
}

/// Lists what is left row by row, and tells the column of each. Returns the rows.
#[inline(always)]
fn collect(
    values: &[f32],
    columns: usize,
    words: &[u32],
    list: &mut [Entry],
    row_starts: &mut [u32],
    mut tell: impl FnMut(usize),
) -> usize {
    let (mut count, mut rows) = (0, 0);
    for (values, words) in values.chunks_exact(columns).zip(words.chunks_exact(columns.div_ceil(LANES))) {
        row_starts[rows] = count as u32;
        for (first, &word) in (0..).step_by(LANES).zip(words) {
            let mut word = word;
            while word != 0 {
                let column = first + word.trailing_zeros() as usize;
                list[count] = (column as u32, values[column]);
                tell(column);
                count += 1;
                word &= word - 1;
            }
        }
        rows += 1;
    }
    row_starts[rows] = count as u32;
    rows
}

/// The same entries column by column, each column's rows in order. `starts` holds counts at first.
#[inline(always)]
fn by_columns(list: &[Entry], row_starts: &[u32], transposed: &mut [Entry], starts: &mut [u32]) {
    // where each column begins, one place further on: its entries move that up to where it ends
    let mut sum = 0;
    for place in &mut starts[1..] {
        sum += std::mem::replace(place, sum);
    }
    for (i, ends) in row_starts.windows(2).enumerate() {
        for &(column, value) in &list[ends[0] as usize..ends[1] as usize] {
            let place = &mut starts[column as usize + 1];
            transposed[*place as usize] = (i as u32, value);
            *place += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::Arch;

    use super::{super::products::Gather, *};

    fn row(limit: f32) -> HeadRow {
        let mut row = HeadRow::NONE;
        row.limit = limit;
        row
    }

    /// Small entries become 0, and the two lists hold the rest; both products agree with plain sums, in every width.
    #[test]
    fn lists_hold_what_is_left() {
        for (rows, columns, dim) in [(1, 8, 1), (3, 40, 7), (5, 32, 16), (9, 70, 33), (20, 300, 200), (4, 31, 131)] {
            let number = |i: usize| ((i * 2_654_435_761) % 1009) as f32 / 1009.0 - 0.5;
            let values: Vec<f32> = (0..rows * columns).map(number).collect();
            let limits: Vec<f32> = (0..rows).map(|i| if i == 2 { 0.0 } else { 0.42 + 0.01 * (i % 5) as f32 }).collect();
            let own: Vec<HeadRow> = limits.iter().map(|&limit| row(limit)).collect();
            let g = |i: usize, j: usize| {
                let v = values[i * columns + j];
                if v.abs() < limits[i] || i == 2 { 0.0 } else { v }
            };
            let mut filtered: Vec<f32> = values.clone();
            filtered.chunks_exact_mut(columns).skip(2).take(1).for_each(|row| row.fill(0.0));
            let mut lists = SparseGradient::new((rows + 1, columns + 2));
            let sparse = Arch::new().dispatch(ApplyFilter {
                values: &mut filtered,
                columns,
                rows: &own,
                lists: &mut lists,
                factors: None,
            });
            let cells = || (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
            assert!(cells().all(|(i, j)| filtered[i * columns + j] == g(i, j)), "{rows}x{columns}");
            let counted = || cells().filter(|&(i, _)| i != 2);
            let total: f64 = counted().map(|(i, j)| f64::from(values[i * columns + j].abs())).sum();
            let kept: f64 = counted().map(|(i, j)| f64::from(g(i, j).abs())).sum();
            assert!((lists.sums.total - total).abs() < 1e-5 * total);
            assert!((lists.sums.dropped - (total - kept)).abs() < 1e-5 * total);
            assert_eq!(lists.sums.kept, cells().filter(|&(i, j)| g(i, j) != 0.0).count() as u64);
            assert!(sparse, "{rows}x{columns}: {} of {}", lists.sums.kept, rows * columns);

            let (x, w): (Vec<f32>, Vec<f32>) =
                ((0..rows * dim).map(number).collect(), (0..columns * dim).map(number).collect());
            for add in [false, true] {
                let start = if add { 1.0 } else { f32::NAN };
                let first = if add { 1.0 } else { 0.0 };
                let mut dw = vec![start; columns * dim];
                let (starts, entries) = lists.by_column(columns);
                Arch::new().dispatch(Gather { starts, entries, from: &x, dim, step: 1, to: &mut dw, add });
                for (j, d) in (0..columns).flat_map(|j| (0..dim).map(move |d| (j, d))) {
                    let sum: f32 = (0..rows).map(|i| g(i, j) * x[i * dim + d]).sum();
                    assert!((dw[j * dim + d] - first - sum).abs() < 1e-5, "dW {j} {d}");
                }
            }
            // the first prototypes of all classes in front, and class by class in memory
            for (centers, add) in [(1, false), (1, true), (2, false), (5, true)] {
                if columns % centers != 0 {
                    continue;
                }
                let mut dx = vec![if add { 1.0 } else { f32::NAN }; rows * dim];
                assert!(Arch::new().dispatch(List { values: &filtered, columns, centers, lists: &mut lists }));
                let (starts, entries) = lists.by_row(rows);
                Arch::new().dispatch(Gather { starts, entries, from: &w, dim, step: 1, to: &mut dx, add });
                let (first, width) = (if add { 1.0 } else { 0.0 }, columns / centers);
                for (i, d) in (0..rows).flat_map(|i| (0..dim).map(move |d| (i, d))) {
                    let own = |j: usize| w[(j % width * centers + j / width) * dim + d];
                    let sum: f32 = (0..columns).map(|j| g(i, j) * own(j)).sum();
                    assert!((dx[i * dim + d] - first - sum).abs() < 1e-5, "dX {i} {d}: {}, {sum}", dx[i * dim + d]);
                }
            }
        }
    }

    /// A block that hardly loses anything is left to the dense products.
    #[test]
    fn too_many_entries_are_not_listed() {
        let (rows, columns) = (8, 200);
        let own = vec![row(0.5); rows];
        for (every, expected) in [(1, false), (2, false), (5, true)] {
            let mut values: Vec<f32> = (0..rows * columns).map(|i| if i % every == 0 { 1.0 } else { 0.1 }).collect();
            let mut lists = SparseGradient::new((rows, columns));
            let sparse = Arch::new().dispatch(ApplyFilter {
                values: &mut values,
                columns,
                rows: &own,
                lists: &mut lists,
                factors: None,
            });
            assert_eq!(sparse, expected);
            assert_eq!(lists.sums.kept as usize, rows * columns / every);
        }
    }
}

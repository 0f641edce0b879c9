//! Views of matrices in slices. Each was checked against its slice when it was made: the `gemm` crate relies on it.

/// A view of a row-major matrix or of its transpose.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows` × `cols` values, row by row, from the front of `data`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        // saturated, a product that overflows is longer than any slice
        let data = &data[..rows.saturating_mul(cols)];
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same with `stride` values from one row to the next.
    pub fn spaced(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(cols <= stride, "rows that overlap");
        let data = &data[..rows.saturating_sub(1).saturating_mul(stride).saturating_add(cols.min(rows * cols))];
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// Rows and columns exchanged; nothing moves.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    /// `count` columns from `first` on.
    pub fn columns(self, first: usize, count: usize) -> Self {
        assert!(first <= self.cols && count <= self.cols - first, "columns outside the matrix");
        let start = (first * self.col_stride).min(self.data.len());
        Self { data: &self.data[start..], cols: count, ..self }
    }

    /// `rows` × `cols` values from (`row`, `col`) on.
    pub(super) fn part(self, row: usize, col: usize, rows: usize, cols: usize) -> Self {
        let data = &self.data[row * self.row_stride + col * self.col_stride..];
        Self { data, rows, cols, ..self }
    }
}

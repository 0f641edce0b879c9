//! Matrix products in f32: the one call of the `gemm` crate, behind a safe function; in WebAssembly `blocks` instead.

// `gemm::gemm` takes pointers and strides and checks nothing. Every pointer below comes from a slice whose length was
// checked against the rows and columns that the call is told, so no input of a safe function here reaches past a slice.
#![allow(unsafe_code)]

#[cfg(not(target_arch = "wasm32"))]
use gemm::Parallelism;

use super::matrix::Matrix;

/// No product handed to `gemm` is longer than this in any direction, so that its packing buffers are bounded.
pub(super) const BLOCK: usize = 512;

/// With so few columns of a transposed `b` in its last piece, or fewer, `gemm` may choose another kernel, and so another order of
/// the sums, for some rows of `a` than for all of them: it does where there are at most 256 elements.
pub(super) const FEW: usize = 4;

/// From row to row of such a piece: more than it has columns, as in a wider result.
pub(super) const SPACED: usize = FEW + 1;

/// How much of an operand that lies across is handed over at once: `gemm` copies it, and the copy takes memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Rows of `a` where that is transposed.
    rows: usize,
    /// Columns of `b` where that is.
    cols: usize,
    /// Their other direction.
    depth: usize,
}

impl Pieces {
    /// Whole registers of every kernel of `gemm`: as fast as operands in one piece. In WebAssembly every piece has the other
    /// operand packed anew, so there it is one.
    pub const USUAL: Self = match cfg!(target_arch = "wasm32") {
        true => Self { rows: BLOCK, cols: BLOCK, depth: BLOCK },
        false => Self { rows: 48, cols: 64, depth: BLOCK },
    };
    /// Columns of a transposed `b` that are a last piece of [`FEW`].
    pub fn few(self, cols: usize) -> usize {
        Some(cols % self.cols).filter(|&rest| rest <= FEW).unwrap_or(0)
    }

    /// The least memory.
    pub const MIN: Self = Self { rows: 24, cols: 64, depth: 64 };
}

/// `out = a·b`, or `out += a·b`, with `out` row-major at the front of its slice. On the calling thread.
///
/// The earlier content of `out` does not matter unless it is added to. The order of every sum depends on the sizes only.
pub(super) fn product(pieces: Pieces, out: &mut [f32], accumulate: bool, a: Matrix<'_>, b: Matrix<'_>) {
    spaced_product(pieces, out, b.cols, accumulate, a, b);
}

/// The same with `stride` values from one row of `out` to the next; those between its rows stay.
pub(super) fn spaced_product(
    pieces: Pieces,
    out: &mut [f32],
    stride: usize,
    accumulate: bool,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    debug_assert_eq!(a.cols, b.rows, "inner sizes");
    let most_rows = if a.col_stride == 1 { BLOCK } else { pieces.rows };
    let most_cols = if b.col_stride == 1 { BLOCK } else { pieces.cols };
    let most_depth = if a.col_stride == 1 && b.col_stride == 1 { BLOCK } else { pieces.depth };
    let (rows, cols, depth) = (a.rows, b.cols, a.cols.min(b.rows));
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(cols <= stride, "rows that overlap");
    let out = &mut out[..(rows - 1).saturating_mul(stride).saturating_add(cols)];
    if depth == 0 && !accumulate {
        out.chunks_mut(stride).for_each(|row| row[..cols].fill(0.0));
    }
    for k in (0..depth).step_by(most_depth) {
        for row in (0..rows).step_by(most_rows) {
            for col in (0..cols).step_by(most_cols) {
                let (m, n, depth) = (most_rows.min(rows - row), most_cols.min(cols - col), most_depth.min(depth - k));
                let (a, b) = (a.part(row, k, m, depth), b.part(k, col, depth, n));
                multiply(&mut out[row * stride + col..], stride, accumulate || k > 0, a, b);
            }
        }
    }
}

#[cfg(target_arch = "wasm32")]
use super::blocks::product as multiply;

/// One block, of at most [`BLOCK`] in every direction.
#[cfg(not(target_arch = "wasm32"))]
fn multiply(out: &mut [f32], stride: usize, accumulate: bool, a: Matrix<'_>, b: Matrix<'_>) {
    debug_assert!(a.cols == b.rows && b.cols <= stride && out.len() > (a.rows - 1) * stride + b.cols - 1);
    // SAFETY: the one caller checked that its result holds (rows − 1)·stride + cols values with cols <= stride, and that
    // this block lies inside, as do `a` and `b` inside theirs: a `Matrix` is made only over its rows, stride by stride, or as a
    // part of such a one. Strides are below isize::MAX: larger ones belong to matrices of one row, which no pointer is moved
    // by. `out` is borrowed mutably and so overlaps neither operand.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// The most bytes that [`product`] allocates while it multiplies `m`×`k` by `k`×`n`: `gemm` packs its operands.
/// `across`: whether the first and the second are transposed.
///
/// Beside these, `gemm` keeps one block of the size of the L2 cache per thread, as long as the thread lives.
pub(super) fn packing_bytes(pieces: Pieces, m: usize, n: usize, k: usize, across: (bool, bool)) -> u64 {
    let m = m.min(if across.0 { pieces.rows } else { BLOCK });
    let n = n.min(if across.1 { pieces.cols } else { BLOCK });
    let k = k.min(if across.0 || across.1 { pieces.depth } else { BLOCK });
    // the kernels with vectors read an operand where it lies if its rows are contiguous, and the second one's whole registers
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let lies = std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
    let lies = false;
    // rounded up to panels of 64, 48 or 16 and of 8, 6 or 4; where `gemm` knows no L3 cache it takes 1024 columns whatever the matrix has
    let least = if cfg!(target_vendor = "apple") { 1024 } else { 0 };
    let first = if lies && !across.0 { 0 } else { m.next_multiple_of(24).max(least) };
    let second = if lies && !across.1 && n % 16 == 0 { 0 } else { n.next_multiple_of(64).max(least) };
    2048 + 4 * k as u64 * (first + second) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::blocks;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// Every layout, every branch of `gemm` (dot, vector, outer product, packed, blocked) and the products of WebAssembly
    /// against a plain triple loop;
    /// what `out` held before must not leak through, NaN included.
    #[test]
    fn product_is_the_sum_of_products() {
        let sizes = [
            (1, 1, 1),
            (1, 7, 3),
            (7, 1, 3),
            (3, 5, 1),
            (5, 3, 2),
            (16, 16, 16),
            (17, 33, 65),
            (64, 64, 63),
            (65, 2, 600),
            (2, 70, 5),
            (130, 257, 40),
            (520, 530, 9),
            (9, 1030, 514),
            (513, 3, 1),
            (1, 513, 513),
            (0, 3, 3),
            (3, 0, 3),
            (3, 3, 0),
        ];
        for (m, n, k) in sizes {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let flips = [(false, false), (false, true), (true, false), (true, true)].into_iter();
            for ((flip_a, flip_b), pieces) in flips.flat_map(|f| [(f, Pieces::USUAL), (f, Pieces::MIN)]) {
                let (x, y) = (
                    if flip_a { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) },
                    if flip_b { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) },
                );
                let exact = |i: usize, j: usize| -> (f64, f64) {
                    let term = |l: usize| {
                        let a = if flip_a { a[l * m + i] } else { a[i * k + l] };
                        let b = if flip_b { b[j * k + l] } else { b[l * n + j] };
                        f64::from(a) * f64::from(b)
                    };
                    (0..k).map(term).fold((0.0, 0.0), |(s, t), x| (s + x, t + x.abs()))
                };
                let own = |out: &mut [f32], add: bool, x: Matrix<'_>, y: Matrix<'_>| match m * n * k {
                    0 => product(pieces, out, add, x, y),
                    _ => blocks::product(out, n, add, x, y),
                };
                let usual = |out: &mut [f32], add: bool, x: Matrix<'_>, y: Matrix<'_>| product(pieces, out, add, x, y);
                for multiply in [&usual as &dyn Fn(&mut [f32], bool, Matrix<'_>, Matrix<'_>), &own] {
                    let mut out = vec![f32::NAN; m * n + 3];
                    multiply(&mut out, false, x, y);
                    let once = out.clone();
                    multiply(&mut out, true, x, y);
                    for i in 0..m {
                        for j in 0..n {
                            let (sum, size) = exact(i, j);
                            let (first, second) = (f64::from(once[i * n + j]), f64::from(out[i * n + j]));
                            let most = 1e-6 * size + 1e-12;
                            assert!((first - sum).abs() <= most, "{m}x{n}x{k} ({i}, {j}): {first}, not {sum}");
                            assert!((second - 2.0 * sum).abs() <= 2.0 * most, "{m}x{n}x{k} ({i}, {j}) added: {second}");
                        }
                    }
                    assert!(out[m * n..].iter().all(|x| x.is_nan()), "wrote past the matrix");
                }
            }
        }
    }

    /// Some columns of a matrix, into rows that lie apart: as one product of all columns, and nothing between the rows moves.
    #[test]
    fn columns_and_spaced_rows() {
        let (rows, cols, depth, stride) = (70, 33, 19, 50);
        let (a, b) = (numbers(depth * 3 * rows, 1), numbers(depth * cols, 2));
        let (all, b) = (Matrix::new(&a, depth, 3 * rows), Matrix::new(&b, depth, cols));
        let mut whole = vec![0.0; 3 * rows * cols];
        product(Pieces::USUAL, &mut whole, false, all.transposed(), b);
        for part in 0..3 {
            let mut out = vec![7.0; (rows - 1) * stride + cols + 5];
            spaced_product(Pieces::MIN, &mut out, stride, false, all.columns(part * rows, rows).transposed(), b);
            for (row, expected) in whole[part * rows * cols..].chunks_exact(cols).take(rows).enumerate() {
                let (found, between) = out[row * stride..].split_at(cols);
                assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-5), "part {part}, row {row}");
                assert!(between.iter().take(stride - cols).all(|&x| x == 7.0), "part {part}, behind row {row}");
            }
        }
    }

    #[test]
    #[should_panic]
    fn columns_outside_a_matrix_are_refused() {
        Matrix::new(&[0.0; 6], 2, 3).columns(2, 2);
    }

    #[test]
    #[should_panic]
    fn a_spaced_matrix_longer_than_its_slice_is_refused() {
        Matrix::spaced(&[0.0; 7], 3, 2, 3);
    }

    #[test]
    #[should_panic]
    fn rows_that_overlap_are_refused() {
        let (a, b) = ([0.0; 4], [0.0; 4]);
        spaced_product(Pieces::USUAL, &mut [0.0; 9], 1, false, Matrix::new(&a, 2, 2), Matrix::new(&b, 2, 2));
    }

    #[test]
    #[should_panic]
    fn a_matrix_larger_than_its_slice_is_refused() {
        Matrix::new(&[0.0; 5], 2, 3);
    }

    #[test]
    #[should_panic]
    fn sizes_that_overflow_are_refused() {
        Matrix::new(&[0.0; 5], usize::MAX, 2);
    }

    #[test]
    #[should_panic]
    fn an_output_that_is_too_short_is_refused() {
        let (a, b) = ([0.0; 4], [0.0; 4]);
        product(Pieces::USUAL, &mut [0.0; 3], false, Matrix::new(&a, 2, 2), Matrix::new(&b, 2, 2));
    }
}

//! Products in f32 for WebAssembly, where the `gemm` crate has no fused multiply-add and its kernel more sums than a
//! browser's compiler keeps in registers. Both operands are packed into panels, and a block of the result is summed at once.
//!
//! Built with `-C target-feature=+simd128` it takes four values at a time, with `+relaxed-simd` a multiply-add of four.

use super::matrix::Matrix;

/// Rows of a block of the result, and vectors of four columns: 8 sums hide the latency of an addition, and with 2 vectors
/// and a factor leave registers free. 12 sums are half as fast: browsers then keep some in memory.
const ROWS: usize = 4;
const VECTORS: usize = 2;
const COLS: usize = 4 * VECTORS;

/// Four numbers, side by side.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod four {
    pub use core::arch::wasm32::v128 as Four;
    use core::arch::wasm32::*;

    #[inline(always)]
    pub fn four(x: &[f32; 4]) -> Four {
        f32x4(x[0], x[1], x[2], x[3])
    }

    #[inline(always)]
    pub fn splat(x: f32) -> Four {
        f32x4_splat(x)
    }

    /// `a·b + sum`.
    #[inline(always)]
    pub fn add_product(a: Four, b: Four, sum: Four) -> Four {
        #[cfg(target_feature = "relaxed-simd")]
        return f32x4_relaxed_madd(a, b, sum);
        #[cfg(not(target_feature = "relaxed-simd"))]
        f32x4_add(f32x4_mul(a, b), sum)
    }

    #[inline(always)]
    pub fn values(x: Four) -> [f32; 4] {
        [f32x4_extract_lane::<0>(x), f32x4_extract_lane::<1>(x), f32x4_extract_lane::<2>(x), f32x4_extract_lane::<3>(x)]
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod four {
    pub type Four = [f32; 4];

    #[inline(always)]
    pub fn four(x: &[f32; 4]) -> Four {
        *x
    }

    #[inline(always)]
    pub fn splat(x: f32) -> Four {
        [x; 4]
    }

    #[inline(always)]
    pub fn add_product(a: Four, b: Four, sum: Four) -> Four {
        std::array::from_fn(|k| a[k] * b[k] + sum[k])
    }

    #[inline(always)]
    pub fn values(x: Four) -> [f32; 4] {
        x
    }
}

use four::{Four, add_product, four, splat, values};

/// The sums of one block over all of `k`.
// a call of its own: the sums stay in registers only where no caller picks among them
#[inline(never)]
fn block(a: &[[f32; ROWS]], b: &[[[f32; 4]; VECTORS]]) -> [[[f32; 4]; VECTORS]; ROWS] {
    let mut sums = [[splat(0.0); VECTORS]; ROWS];
    for (a, b) in a.iter().zip(b) {
        let b: [Four; VECTORS] = std::array::from_fn(|v| four(&b[v]));
        for r in 0..ROWS {
            let a = splat(a[r]);
            for v in 0..VECTORS {
                sums[r][v] = add_product(a, b[v], sums[r][v]);
            }
        }
    }
    sums.map(|row| row.map(values))
}

/// Panels of `W` lines of `from`, one after the other: for every k the `W` values of its lines, 0 past the last line.
///
/// A line is a row of the left operand or a column of the right one; `(line, step)` are the strides from line to line and
/// from k to k, one of them 1.
fn pack<const W: usize>(from: &[f32], lines: usize, depth: usize, (line, step): (usize, usize)) -> Vec<[f32; W]> {
    let mut to = vec![[0.0; W]; lines.div_ceil(W) * depth];
    for (p, panel) in to.chunks_exact_mut(depth).enumerate() {
        let width = W.min(lines - p * W);
        let from = &from[p * W * line..];
        if width < W {
            for (k, to) in panel.iter_mut().enumerate() {
                (0..width).for_each(|l| to[l] = from[l * line + k * step]);
            }
        } else if line == 1 {
            for (k, to) in panel.iter_mut().enumerate() {
                to.copy_from_slice(&from[k * step..][..W]);
            }
        } else {
            let lines: [&[f32]; W] = std::array::from_fn(|l| &from[l * line..][..depth]);
            for (k, to) in panel.iter_mut().enumerate() {
                *to = std::array::from_fn(|l| lines[l][k]);
            }
        }
    }
    to
}

/// `out = a·b`, or `out += a·b`, with `stride` values from one row of `out` to the next.
pub(super) fn product(out: &mut [f32], stride: usize, accumulate: bool, a: Matrix<'_>, b: Matrix<'_>) {
    let (rows, cols, depth) = (a.rows, b.cols, a.cols);
    let left = pack::<ROWS>(a.data, rows, depth, (a.row_stride, a.col_stride));
    let right = pack::<COLS>(b.data, cols, depth, (b.col_stride, b.row_stride));
    let right: &[[[f32; 4]; VECTORS]] = bytemuck::cast_slice(&right);
    for (col, b) in (0..cols).step_by(COLS).zip(right.chunks_exact(depth)) {
        let width = COLS.min(cols - col);
        for (row, a) in (0..rows).step_by(ROWS).zip(left.chunks_exact(depth)) {
            let sums = block(a, b);
            for (sums, row) in sums.iter().zip(row..rows) {
                let to = &mut out[row * stride + col..][..width];
                for (to, sum) in to.iter_mut().zip(sums.as_flattened()) {
                    *to = if accumulate { *to + sum } else { *sum };
                }
            }
        }
    }
}

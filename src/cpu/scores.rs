//! Cosines of pairs of vectors on the CPU.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    geometry::UnitVectors,
    matrix::Matrix,
    product::{Pieces, spaced_product},
    vector::dot,
};
use crate::objective::SHORTEST;

/// Vectors of a tile.
const TILE: usize = 256;

/// Cosines of chosen pairs of rows of `left` and of `right`, which are within them; sums in f64. A pair is one pass over two
/// vectors: a product of matrices would compute more cosines than are asked for.
pub(crate) fn pair_cosines(dim: usize, left: &[f32], right: &[f32], pairs: &[[u32; 2]]) -> Vec<f32> {
    let arch = Arch::new();
    let row = |all: &'_ [f32], at: u32| -> std::ops::Range<usize> {
        let start = at as usize * dim;
        debug_assert!(start + dim <= all.len(), "a pair outside");
        start..start + dim
    };
    let one = |&[i, j]: &[u32; 2]| arch.dispatch(Cosine(&left[row(left, i)], &right[row(right, j)]));
    pairs.par_iter().with_min_len(256).map(one).collect()
}

/// Cosines of all pairs, \[N, D\] and \[M, D\] to \[N, M\].
pub(crate) fn cosines(dim: usize, left: &[f32], right: &[f32]) -> Vec<f32> {
    let (arch, rows, columns) = (Arch::new(), left.len() / dim, right.len() / dim);
    let mut out = vec![0.0; rows * columns];
    if out.is_empty() {
        return out;
    }
    let start = || (UnitVectors::new(TILE.min(rows), dim), UnitVectors::new(TILE.min(columns), dim));
    out.par_chunks_mut(TILE * columns).zip(left.par_chunks(TILE * dim)).with_max_len(1).for_each_init(
        start,
        |(own, other), (out, vectors)| {
            let rows = own.fill(arch, vectors, dim);
            for (tile, vectors) in right.chunks(TILE * dim).enumerate() {
                let width = other.fill(arch, vectors, dim);
                let (a, b) = (Matrix::new(&own.directions, rows, dim), Matrix::new(&other.directions, width, dim));
                spaced_product(Pieces::USUAL, &mut out[tile * TILE..], columns, false, a, b.transposed());
            }
        },
    );
    out
}

/// The cosine of two vectors: squares of f32 neither overflow nor vanish in f64.
struct Cosine<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Cosine<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let [product, a, b] = [(self.0, self.1), (self.0, self.0), (self.1, self.1)].map(
            #[inline(always)]
            |(a, b)| dot::<f64>(a, b),
        );
        (product / (a.sqrt().max(SHORTEST) * b.sqrt().max(SHORTEST))) as f32
    }
}

//! The spread of a set of vectors in f32, tiled over rayon.

use std::f64::consts::FRAC_PI_2;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    directions::Normalize,
    matrix::Matrix,
    product::{Pieces, product},
    vector::{Fused, LANES, fold, larger},
};
use crate::{Result, monitor::vectors};

/// Vectors of a tile.
const TILE: usize = 256;

/// Length of the mean direction; see [`crate::reference::mean_prototype`]. Sums in f64, over at most 64 ranges that depend
/// on the sizes only.
pub(crate) fn mean_prototype(dim: usize, prototypes: &[f32]) -> Result<f64> {
    let count = vectors("prototypes", dim, prototypes.len())?;
    if count == 0 {
        return Ok(0.0);
    }
    let arch = Arch::new();
    let (size, range) = (TILE.min(count), count.div_ceil(64).next_multiple_of(TILE).min(count));
    let sums: Vec<Vec<f64>> = prototypes
        .par_chunks(range * dim)
        .with_max_len(1)
        .map(|range| {
            let (mut sum, mut tile) = (vec![0.0; dim], UnitVectors::new(size, dim));
            for vectors in range.chunks(size * dim) {
                tile.fill(arch, vectors, dim);
                for (unit, length) in tile.directions.chunks_exact(dim).zip(&tile.lengths[..vectors.len() / dim]) {
                    let gap = if length.is_finite() { 0.0 } else { f64::NAN };
                    sum.iter_mut().zip(unit).for_each(|(s, u)| *s += f64::from(*u) + gap);
                }
            }
            sum
        })
        .collect();
    let mut mean = vec![0.0; dim];
    for sum in &sums {
        mean.iter_mut().zip(sum).for_each(|(m, s)| *m += s);
    }
    Ok(mean.iter().map(|m| (m / count as f64).powi(2)).sum::<f64>().sqrt())
}

/// Mean angle between all pairs; see [`crate::reference::mean_pair_angle`]. O(C²D) time; memory is a few tiles per thread.
pub(crate) fn mean_pair_angle(dim: usize, all: &[f32]) -> Result<f64> {
    let count = vectors("vectors", dim, all.len())?;
    if count < 2 {
        return Ok(if all.iter().all(|v| v.is_finite()) { 0.0 } else { f64::NAN });
    }
    let arch = Arch::new();
    let size = TILE.min(count);
    let tiles: Vec<&[f32]> = all.chunks(size * dim).collect();
    let start = || (UnitVectors::new(size, dim), UnitVectors::new(size, dim), vec![0.0; size * size]);
    let sums: Vec<f64> = (0..tiles.len())
        .into_par_iter()
        .with_max_len(1)
        .map_init(start, |(own, other, cosines), i| {
            let rows = own.fill(arch, tiles[i], dim);
            if own.lengths[..rows].iter().any(|l| !l.is_finite()) {
                return f64::NAN;
            }
            let mut sum = 0.0;
            for (j, vectors) in tiles.iter().enumerate().skip(i) {
                let columns = other.fill(arch, vectors, dim);
                let (a, b) = (Matrix::new(&own.directions, rows, dim), Matrix::new(&other.directions, columns, dim));
                product(Pieces::USUAL, cosines, false, a, b.transposed());
                for (row, cosines) in cosines[..rows * columns].chunks_exact(columns).enumerate() {
                    // each pair once
                    let first = if j == i { row + 1 } else { 0 };
                    sum += arch.dispatch(RightAngleGaps(&cosines[first..]));
                }
            }
            sum
        })
        .collect();
    let pairs = count as f64 * (count - 1) as f64 / 2.0;
    // an empty sum of f64 is -0.0
    Ok(FRAC_PI_2 - sums.iter().fold(0.0, |sum, s| sum + s) / pairs)
}

/// The directions and lengths of one tile.
pub(super) struct UnitVectors {
    pub directions: Vec<f32>,
    lengths: Vec<f64>,
}

impl UnitVectors {
    pub fn new(rows: usize, dim: usize) -> Self {
        Self { directions: vec![0.0; rows * dim], lengths: vec![0.0; rows] }
    }

    /// Normalises the vectors of a tile; returns their number.
    pub fn fill(&mut self, arch: Arch, vectors: &[f32], dim: usize) -> usize {
        let (to, lengths) = (&mut self.directions[..vectors.len()], &mut self.lengths[..vectors.len() / dim]);
        arch.dispatch(Normalize { from: vectors, dim, to, lengths, plain: false, exact: false });
        vectors.len() / dim
    }
}

/// Σ (π/2 − θ) of cosines: small where angles are nearly right, so that their sum keeps its precision.
struct RightAngleGaps<'a>(&'a [f32]);

impl WithSimd for RightAngleGaps<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let (blocks, rest) = self.0.as_chunks::<LANES>();
        // at most TILE / LANES values to a lane
        let mut sums = [0.0; LANES];
        for block in blocks {
            for k in 0..LANES {
                sums[k] += arcsin(block[k]);
            }
        }
        let rest: f64 = rest.iter().map(|&c| f64::from(arcsin(c))).sum();
        f64::from(fold(sums, |a, b| a + b)) + rest
    }
}

/// π/2 − θ = atan2(c, √((1−c)(1+c))) without a branch; error below 2e-7. One that rounded past ±1 gives ±π/2.
#[inline(always)]
fn arcsin(c: f32) -> f32 {
    let a = c.abs();
    let s = larger((1.0 - a) * (1.0 + a), 0.0).sqrt();
    let steep = a > s;
    // the larger one is at least √½
    let q = if steep { s / a } else { a / s };
    let half = q > 0.414_213_56;
    let t = if half { (q - 1.0) / (q + 1.0) } else { q };
    let z = t * t;
    let p = z.fused(8.053_744_5e-2, -1.387_768_6e-1);
    let p = z.fused(p, 1.997_771_1e-1);
    let p = z.fused(p, -3.333_295e-1);
    let angle = (p * z).fused(t, t) + if half { std::f32::consts::FRAC_PI_4 } else { 0.0 };
    let angle = if steep { std::f32::consts::FRAC_PI_2 - angle } else { angle };
    angle.copysign(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arcsin_is_the_arc_sine() {
        let cosines: Vec<f32> = (-200_000..=200_000).map(|i| i as f32 / 200_000.0).collect();
        for &c in &cosines {
            // in f64 from the same f32
            let exact = f64::from(c).asin();
            assert!((f64::from(arcsin(c)) - exact).abs() <= 2e-7, "{c}: {} is not {exact}", arcsin(c));
        }
        for past in [1.000_000_1_f32, 1.000_000_2] {
            assert_eq!((arcsin(past), arcsin(-past)), (std::f32::consts::FRAC_PI_2, -std::f32::consts::FRAC_PI_2));
        }
    }
}

//! Vectors and their directions: lengths, unit vectors, and gradients projected back.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::vector::{Fused, LANES, dot, fold};
use crate::objective::SHORTEST;

/// Lengths and directions of the rows of `from`, `dim` values each.
///
/// A length is finite exactly if all values are. A row that is not gets the direction 0.
pub(super) struct Normalize<'a> {
    pub from: &'a [f32],
    pub dim: usize,
    pub to: &'a mut [f32],
    pub lengths: &'a mut [f64],
    /// Whether the rows stay as they are, for a linear head, in place of their directions.
    pub plain: bool,
    /// Whether the lengths are wanted to more than f32's precision; those of plain rows always are.
    pub exact: bool,
}

impl WithSimd for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.from.chunks_exact(self.dim).zip(self.to.chunks_exact_mut(self.dim));
        for ((from, to), length) in rows.zip(self.lengths) {
            let square = if self.exact || self.plain { f32::NAN } else { dot(from, from) };
            if SAFE_SQUARES.contains(&square) {
                *length = f64::from(square).sqrt();
                let factor = (1.0 / *length) as f32;
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
                continue;
            }
            // squares of f32 neither overflow nor vanish in f64, so nothing needs to be scaled first
            *length = dot::<f64>(from, from).sqrt();
            let factor = if self.plain { 1.0 } else { 1.0 / length.max(SHORTEST) };
            if length.is_finite() {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = (f64::from(*from) * factor) as f32);
            } else {
                to.fill(0.0);
            }
        }
    }
}

/// <a, b> in f64, and the length of b.
pub(super) struct DotLength<'a>(pub &'a [f32], pub &'a [f32]);

impl WithSimd for DotLength<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f64, f64) {
        (dot(self.0, self.1), dot::<f64>(self.1, self.1).sqrt())
    }
}

/// Squares of lengths in f32 in which neither an overflow nor a square that vanished can have mattered.
const SAFE_SQUARES: Range<f32> = 1e-18..1e30;

/// Lengths between which a vector stands for its direction: neither the products with it nor the products of its
/// inverse length leave the range where f32 has its full precision.
const ORDINARY: Range<f64> = 1e-6..1e6;

/// The lengths of every `step`-th row of `from`, and what multiplies the rows to unit vectors (0 for a row of zeros).
///
/// Returns whether every row can be used as it is, in place of its direction from [`Normalize`].
pub(super) struct Measure<'a> {
    pub from: &'a [f32],
    pub dim: usize,
    pub step: usize,
    pub lengths: &'a mut [f64],
    pub factors: &'a mut [f32],
}

impl WithSimd for Measure<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        let mut ordinary = true;
        let rows = self.from.chunks(self.dim * self.step).zip(self.lengths).zip(self.factors);
        for ((from, length), factor) in rows {
            let from = &from[..self.dim];
            let square = dot(from, from);
            let square = if SAFE_SQUARES.contains(&square) { f64::from(square) } else { dot(from, from) };
            *length = square.sqrt();
            ordinary &= ORDINARY.contains(length) || *length == 0.0;
            *factor = if *length == 0.0 { 0.0 } else { (1.0 / *length) as f32 };
        }
        ordinary
    }
}

/// From Σ G·(other unit vector) to the gradient of every `step`-th row of `from`: take out the radial part, divide by the
/// length unless G was.
///
/// Exactly 0 for a vector shorter than [`SHORTEST`] and for one that is not finite.
pub(super) struct Project<'a> {
    pub pull: &'a mut [f32],
    pub from: &'a [f32],
    pub step: usize,
    pub dim: usize,
    pub lengths: &'a [f64],
    pub divided: bool,
}

impl WithSimd for Project<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (dim, apart) = (self.dim, self.dim * self.step);
        let rows = self.pull.chunks_mut(apart).zip(self.from.chunks(apart));
        for ((pull, from), &length) in rows.zip(self.lengths) {
            let (pull, from) = (&mut pull[..dim], &from[..dim]);
            if ORDINARY.contains(&length) {
                let factor = (1.0 / length) as f32;
                project(
                    pull,
                    from,
                    if self.divided { 1.0 } else { factor },
                    #[inline(always)]
                    |x| x * factor,
                );
            } else if length >= SHORTEST && length.is_finite() {
                let inverse = 1.0 / length;
                project(
                    pull,
                    from,
                    if self.divided { 1.0 } else { inverse as f32 },
                    #[inline(always)]
                    |x| (f64::from(x) * inverse) as f32,
                );
            } else {
                pull.fill(0.0);
            }
        }
    }
}

/// (pull − <pull, u>·u)·factor, where u is what `unit` makes of `from`.
#[inline(always)]
fn project(pull: &mut [f32], from: &[f32], factor: f32, unit: impl Fn(f32) -> f32) {
    let ((p, p_rest), (x, x_rest)) = (pull.as_chunks::<LANES>(), from.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (p, x) in p.iter().zip(x) {
        for k in 0..LANES {
            sums[k] = p[k].fused(unit(x[k]), sums[k]);
        }
    }
    for (k, (p, x)) in p_rest.iter().zip(x_rest).enumerate() {
        sums[k] = p.fused(unit(*x), sums[k]);
    }
    let radial = -fold(sums, |a, b| a + b);
    pull.iter_mut().zip(from).for_each(|(p, x)| *p = radial.fused(unit(*x), *p) * factor);
}

#[cfg(test)]
mod tests {
    use super::{super::vector::scale_values, *};

    /// Lengths keep their precision from the smallest to the largest f32, and tell what is not finite.
    #[test]
    fn normalize_survives_every_magnitude() {
        for (dim, exact) in [1, 2, 31, 32, 33, 70].into_iter().flat_map(|dim| [(dim, false), (dim, true)]) {
            for size in [1e-11_f32, 1e-5, 1.0, 1e19, 3e38] {
                let from: Vec<f32> = (0..dim).map(|k| if k % 3 == 1 { -size } else { size }).collect();
                let (mut to, mut lengths) = (vec![f32::NAN; dim], [0.0]);
                let (from, to, lengths) = (&from, &mut to, &mut lengths);
                pulp::Arch::new().dispatch(Normalize { from, dim, to, lengths, plain: false, exact });
                let expected = f64::from(size) * (dim as f64).sqrt();
                let most = if exact { 1e-14 } else { 2e-7 };
                assert!((lengths[0] / expected - 1.0).abs() < most, "{} for {expected}", lengths[0]);
                assert!((dot::<f64>(to, to) - 1.0).abs() < 1e-6);
            }
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut from = vec![1.0; dim];
                from[dim - 1] = bad;
                let (mut to, mut lengths) = (vec![f32::NAN; dim], [0.0]);
                let (from, to, lengths) = (&from, &mut to, &mut lengths);
                pulp::Arch::new().dispatch(Normalize { from, dim, to, lengths, plain: false, exact });
                assert!(!lengths[0].is_finite() && to.iter().all(|&x| x == 0.0));
            }
        }
    }

    /// A vector times its factor is its direction as long as it is ordinary; whatever is not says so.
    #[test]
    fn ordinary_vectors_stand_for_their_directions() {
        let arch = pulp::Arch::new();
        for size in [0.0_f32, 1e-30, 1e-8, 1e-5, 1.0, 1e5, 1e8, 3e38, f32::NAN, f32::INFINITY] {
            for (dim, step) in [(1, 1), (33, 1), (70, 3)] {
                let from: Vec<f32> =
                    (0..2 * dim * step).map(|k| if k < dim { size } else { 0.5 - (k % 2) as f32 }).collect();
                let (mut lengths, mut factors) = ([-1.0; 2], [-1.0; 2]);
                let own = (&mut lengths, &mut factors);
                let found = arch.dispatch(Measure { from: &from, dim, step, lengths: own.0, factors: own.1 });
                assert_eq!(found, size == 0.0 || (1e-5..=1e5).contains(&size), "{size}");
                assert_eq!(lengths[0].is_finite(), size.is_finite());
                if found {
                    let mut units = from[..dim].to_vec();
                    units.iter_mut().for_each(|x| scale_values(std::slice::from_mut(x), Some(&factors[..1])));
                    let expected = if size == 0.0 { 0.0 } else { 1.0 };
                    assert!((dot::<f64>(&units, &units) - expected).abs() < 1e-6, "{size}");
                }
            }
        }
    }

    /// The gradient of a length is taken out and the rest divided by it, at every length, whether G was divided or not.
    #[test]
    fn gradients_are_projected_at_every_length() {
        let arch = pulp::Arch::new();
        for (dim, step) in [(3, 1), (32, 2), (70, 1)] {
            for size in [1e-9_f32, 1e-3, 1.0, 1e4, 1e9] {
                let from: Vec<f32> = (0..dim * step).map(|k| size * ((k * 7 % 5) as f32 - 1.7)).collect();
                let own = from[..dim].to_vec();
                let length = dot::<f64>(&own, &own).sqrt();
                let plain: Vec<f32> = (0..dim).map(|k| (k * 3 % 7) as f32 - 2.0).collect();
                let dot = dot::<f64>(&plain, &own) / length;
                for divided in [false, true] {
                    let mut pull = plain.clone();
                    pull.resize(dim * step, 7.0);
                    arch.dispatch(Project { pull: &mut pull, from: &from, step, dim, lengths: &[length], divided });
                    let factor = if divided { 1.0 } else { 1.0 / length };
                    for k in 0..dim {
                        let exact = (f64::from(plain[k]) - dot * f64::from(own[k]) / length) * factor;
                        assert!((f64::from(pull[k]) - exact).abs() < 1e-5 * factor, "{size:e} {k}: {}", pull[k]);
                    }
                    assert!(pull[dim..].iter().all(|&x| x == 7.0));
                }
            }
        }
    }
}

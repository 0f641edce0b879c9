//! Vector code without unsafe and without build flags: plain loops over blocks of [`LANES`] values, inlined into a
//! function that `pulp` compiles for AVX-512, AVX2, NEON or neither, and chooses when the head is made.

use std::ops::{Deref, DerefMut, Range};

use pulp::{Simd, WithSimd};

use crate::objective::SHORTEST;

/// Values handled side by side; enough independent sums to hide the latency of an addition.
pub(super) const LANES: usize = 32;

/// Numbers that start where a line of the cache does: a vector register is filled from one line, not from two.
#[derive(Default)]
pub(super) struct Aligned {
    data: Vec<f32>,
    start: usize,
}

impl Aligned {
    const LINE: usize = 64;
    /// The most bytes beside the numbers.
    pub const EXTRA: usize = Self::LINE;

    /// This many zeros.
    pub fn new(len: usize) -> Self {
        let mut data = vec![0.0; len + Self::LINE / 4];
        let start = data.as_ptr().align_offset(Self::LINE).min(Self::LINE / 4);
        data.truncate(start + len);
        Self { data, start }
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.data.capacity()
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[self.start..]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..]
    }
}

/// `self·b + c`.
pub(super) trait Fused {
    /// Rounded once where there is an instruction for it. WebAssembly has none, and its substitute is a slow call.
    fn fused(self, b: Self, c: Self) -> Self;
}

impl Fused for f32 {
    #[inline(always)]
    fn fused(self, b: f32, c: f32) -> f32 {
        if cfg!(target_arch = "wasm32") { self * b + c } else { self.mul_add(b, c) }
    }
}

impl Fused for f64 {
    #[inline(always)]
    fn fused(self, b: f64, c: f64) -> f64 {
        if cfg!(target_arch = "wasm32") { self * b + c } else { self.mul_add(b, c) }
    }
}

/// e^x for x up to a little above 0; 0 below −87. Relative error below 2.2e-7.
///
/// 1.5·2²³ rounds x/ln 2 to a whole number n that then lies in the low bits; the polynomial is 1 + r + r²·q(r) with
/// the least largest relative error (4e-9) for |r| <= ln 2/2.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.fused(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts: n times the first is exact
    let r = n.fused(-1.428_606_8e-6, n.fused(-0.693_145_75, x));
    let q = r.fused(0.001_381_454, 0.008_368_745);
    let q = r.fused(q, 0.041_668_39);
    let q = r.fused(q, 0.166_665_21);
    let q = r.fused(q, 0.499_999_94);
    let p = (r * r).fused(q, r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * power }
}

/// The larger one. Unlike `f32::max` a single instruction; the operands are never NaN here.
#[inline(always)]
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// All lanes combined, neighbours first: always in the same order.
#[inline(always)]
pub(super) fn fold<T: Copy, const N: usize>(mut lanes: [T; N], combine: impl Fn(T, T) -> T) -> T {
    let mut half = N / 2;
    while half > 0 {
        for k in 0..half {
            lanes[k] = combine(lanes[k], lanes[k + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// <a, b> in f32, in [`LANES`] sums.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for k in 0..LANES {
            sums[k] = a[k].fused(b[k], sums[k]);
        }
    }
    for (k, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[k] = a.fused(*b, sums[k]);
    }
    fold(sums, |a, b| a + b)
}

/// <a, b> in f64.
#[inline(always)]
fn wide_dot(a: &[f32], b: &[f32]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0_f64; LANES];
    for (a, b) in a.iter().zip(b) {
        for k in 0..LANES {
            sums[k] = f64::from(a[k]).fused(f64::from(b[k]), sums[k]);
        }
    }
    for (k, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[k] = f64::from(*a).fused(f64::from(*b), sums[k]);
    }
    fold(sums, |a, b| a + b)
}

/// Lengths and directions of the rows of `from`, `dim` values each.
///
/// A length is finite exactly if all values are. A row that is not gets the direction 0.
pub(super) struct Normalize<'a> {
    pub from: &'a [f32],
    pub dim: usize,
    pub to: &'a mut [f32],
    pub lengths: &'a mut [f64],
    /// Whether the lengths are wanted to more than f32's digits.
    pub exact: bool,
}

impl WithSimd for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.from.chunks_exact(self.dim).zip(self.to.chunks_exact_mut(self.dim));
        for ((from, to), length) in rows.zip(self.lengths) {
            let square = if self.exact { f32::NAN } else { dot(from, from) };
            if (1e-18..1e30).contains(&square) {
                // neither an overflow nor a square that vanished can have mattered
                *length = f64::from(square).sqrt();
                let factor = (1.0 / *length) as f32;
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
                continue;
            }
            // squares of f32 neither overflow nor vanish in f64, so nothing needs to be scaled first
            *length = wide_dot(from, from).sqrt();
            let factor = 1.0 / length.max(SHORTEST);
            if length.is_finite() {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = (f64::from(*from) * factor) as f32);
            } else {
                to.fill(0.0);
            }
        }
    }
}

/// The same rows as they are, and their lengths; a row that is not finite becomes 0.
pub(super) struct Plain<'a> {
    pub from: &'a [f32],
    pub dim: usize,
    pub to: &'a mut [f32],
    pub lengths: &'a mut [f64],
}

impl WithSimd for Plain<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.from.chunks_exact(self.dim).zip(self.to.chunks_exact_mut(self.dim));
        for ((from, to), length) in rows.zip(self.lengths) {
            *length = wide_dot(from, from).sqrt();
            if length.is_finite() { to.copy_from_slice(from) } else { to.fill(0.0) }
        }
    }
}

/// <a, b> in f64, and the length of b.
pub(super) struct DotLength<'a>(pub &'a [f32], pub &'a [f32]);

impl WithSimd for DotLength<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> (f64, f64) {
        (wide_dot(self.0, self.1), wide_dot(self.1, self.1).sqrt())
    }
}

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
            *length =
                if (1e-18..1e30).contains(&square) { f64::from(square).sqrt() } else { wide_dot(from, from).sqrt() };
            ordinary &= ORDINARY.contains(length) || *length == 0.0;
            *factor = if *length == 0.0 { 0.0 } else { (1.0 / *length) as f32 };
        }
        ordinary
    }
}

/// Every row of `values` times `factors`, number by number.
pub(super) struct ScaleColumns<'a> {
    pub values: &'a mut [f32],
    pub factors: &'a [f32],
}

impl WithSimd for ScaleColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.values.chunks_exact_mut(self.factors.len()).for_each(|row| stretch(row, Some(self.factors)));
    }
}

/// Each number times its factor.
#[inline(always)]
pub(super) fn stretch(values: &mut [f32], factors: Option<&[f32]>) {
    if let Some(factors) = factors {
        values.iter_mut().zip(factors).for_each(|(x, f)| *x = normal(*x * f));
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

/// 0 for a subnormal number: a product over those is many times slower, and they are nothing beside the others.
#[inline(always)]
pub(super) fn normal(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

/// `to += from`.
pub(super) struct Add<'a> {
    pub from: &'a [f32],
    pub to: &'a mut [f32],
}

impl WithSimd for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.to.iter_mut().zip(self.from).for_each(|(to, from)| *to += from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp<'a>(&'a mut [f32]);

    impl WithSimd for Exp<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            self.0.iter_mut().for_each(|x| *x = exp(*x));
        }
    }

    /// Every f32 in steps of a few ulp over the range that the sweeps use, vectorised as they are.
    #[test]
    fn exp_is_accurate() {
        let arguments: Vec<f32> = (0..2_000_000).map(|i| i as f32 * -4.35e-5 + 1e-3).collect();
        let mut values = arguments.clone();
        pulp::Arch::new().dispatch(Exp(&mut values));
        let mut worst = 0.0_f64;
        for (&x, &e) in arguments.iter().zip(&values) {
            let exact = f64::from(x).exp();
            let close = (f64::from(e) / exact - 1.0).abs();
            if x >= -87.0 {
                worst = worst.max(close);
            } else {
                assert_eq!(e, 0.0, "exp({x})");
            }
            assert_eq!(e, exp(x), "vector and scalar differ at {x}");
        }
        assert!(worst < 2.2e-7, "relative error {worst:e}");
        assert_eq!((exp(0.0), exp(-87.1), exp(-2e6), exp(f32::MIN), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0, 0.0, 0.0));
    }

    /// Lengths keep their precision from the smallest to the largest f32, and tell what is not finite.
    #[test]
    fn normalize_survives_every_magnitude() {
        for (dim, exact) in [1, 2, 31, 32, 33, 70].into_iter().flat_map(|dim| [(dim, false), (dim, true)]) {
            for size in [1e-11_f32, 1e-5, 1.0, 1e19, 3e38] {
                let from: Vec<f32> = (0..dim).map(|k| if k % 3 == 1 { -size } else { size }).collect();
                let (mut to, mut lengths) = (vec![f32::NAN; dim], [0.0]);
                let (from, to, lengths) = (&from, &mut to, &mut lengths);
                pulp::Arch::new().dispatch(Normalize { from, dim, to, lengths, exact });
                let expected = f64::from(size) * (dim as f64).sqrt();
                let most = if exact { 1e-14 } else { 2e-7 };
                assert!((lengths[0] / expected - 1.0).abs() < most, "{} for {expected}", lengths[0]);
                assert!((wide_dot(to, to) - 1.0).abs() < 1e-6);
            }
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut from = vec![1.0; dim];
                from[dim - 1] = bad;
                let (mut to, mut lengths) = (vec![f32::NAN; dim], [0.0]);
                let (from, to, lengths) = (&from, &mut to, &mut lengths);
                pulp::Arch::new().dispatch(Normalize { from, dim, to, lengths, exact });
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
                    units.iter_mut().for_each(|x| stretch(std::slice::from_mut(x), Some(&factors[..1])));
                    let expected = if size == 0.0 { 0.0 } else { 1.0 };
                    assert!((wide_dot(&units, &units) - expected).abs() < 1e-6, "{size}");
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
                let length = wide_dot(&own, &own).sqrt();
                let plain: Vec<f32> = (0..dim).map(|k| (k * 3 % 7) as f32 - 2.0).collect();
                let dot = wide_dot(&plain, &own) / length;
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

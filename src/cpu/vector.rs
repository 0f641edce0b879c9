//! Vector code without unsafe and without build flags: plain loops over blocks of [`LANES`] values, inlined into a
//! function that `pulp` compiles for AVX-512, AVX2, NEON or neither, and chooses when the head is made.

use std::ops::Add;

use pulp::{Simd, WithSimd};

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

    pub fn values(&self) -> &[f32] {
        &self.data[self.start..]
    }

    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..]
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.data.capacity()
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

/// The largest of all; −∞ of none.
#[inline(always)]
pub(super) fn max_of(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for v in blocks {
        for l in 0..LANES {
            lanes[l] = larger(v[l], lanes[l]);
        }
    }
    rest.iter().zip(&mut lanes).for_each(|(v, lane)| *lane = larger(*v, *lane));
    fold(lanes, larger)
}

/// <a, b> in [`LANES`] sums of `T`.
#[inline(always)]
pub(super) fn dot<T: Fused + Copy + Default + Add<Output = T> + From<f32>>(a: &[f32], b: &[f32]) -> T {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [T::default(); LANES];
    for (a, b) in a.iter().zip(b) {
        for k in 0..LANES {
            sums[k] = T::from(a[k]).fused(T::from(b[k]), sums[k]);
        }
    }
    for (k, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[k] = T::from(*a).fused(T::from(*b), sums[k]);
    }
    fold(sums, |a, b| a + b)
}

/// Each number times its factor.
#[inline(always)]
pub(super) fn scale_values(values: &mut [f32], factors: Option<&[f32]>) {
    if let Some(factors) = factors {
        values.iter_mut().zip(factors).for_each(|(x, f)| *x = normal(*x * f));
    }
}

/// 0 for a subnormal number: a product over those is many times slower, and they are nothing beside the others.
#[inline(always)]
pub(super) fn normal(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x }
}

/// `to += from`.
pub(super) struct AddTo<'a> {
    pub from: &'a [f32],
    pub to: &'a mut [f32],
}

impl WithSimd for AddTo<'_> {
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
}

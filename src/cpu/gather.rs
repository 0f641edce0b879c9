//! Products with a sparse G: sums of the vectors whose entries are listed.

use pulp::{Simd, WithSimd};

use super::sparse::Entry;

/// Sums of listed vectors: `to`_i = Σ value · `from`_index over the entries of list i; of `to` every `step`-th row.
pub(super) struct Gather<'a> {
    pub starts: &'a [u32],
    pub entries: &'a [Entry],
    pub from: &'a [f32],
    pub dim: usize,
    pub step: usize,
    pub to: &'a mut [f32],
    /// Added to what `to` holds.
    pub add: bool,
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { starts, entries, from, dim, step, to, add } = self;
        let lanes = S::F32_LANES;
        for (to, ends) in to.chunks_mut(dim * step).zip(starts.windows(2)) {
            let to = &mut to[..dim];
            if !add {
                to.fill(0.0);
            }
            let list = &entries[ends[0] as usize..ends[1] as usize];
            if list.is_empty() {
                continue;
            }
            let mut at = 0;
            while at + 8 * lanes <= dim {
                panel::<S, 8>(simd, list, from, dim, at, to);
                at += 8 * lanes;
            }
            while at + 4 * lanes <= dim {
                panel::<S, 4>(simd, list, from, dim, at, to);
                at += 4 * lanes;
            }
            while at < dim {
                let end = dim.min(at + lanes);
                let mut sum = simd.partial_load_f32s(&to[at..end]);
                for &(index, value) in list {
                    let start = index as usize * dim;
                    let x = simd.partial_load_f32s(&from[start + at..start + end]);
                    sum = simd.mul_add_f32s(simd.splat_f32s(value), x, sum);
                }
                simd.partial_store_f32s(&mut to[at..end], sum);
                at = end;
            }
        }
    }
}

/// Some registers of the sum, from `at` on: they stay registers over the whole list.
#[inline(always)]
fn panel<S: Simd, const R: usize>(simd: S, list: &[Entry], from: &[f32], dim: usize, at: usize, to: &mut [f32]) {
    let width = R * S::F32_LANES;
    let (to, _) = S::as_mut_simd_f32s(&mut to[at..at + width]);
    let Ok(to) = <&mut [S::f32s; R]>::try_from(to) else { return };
    let mut sums = *to;
    for &(index, value) in list {
        let (x, _) = S::as_simd_f32s(&from[index as usize * dim + at..][..width]);
        let Ok(x) = <&[S::f32s; R]>::try_from(x) else { return };
        let value = simd.splat_f32s(value);
        for r in 0..R {
            sums[r] = simd.mul_add_f32s(value, x[r], sums[r]);
        }
    }
    *to = sums;
}

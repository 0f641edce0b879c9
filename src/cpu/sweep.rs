//! The work between the products for the plainest losses, a softmax over cosines as they are or rectified: two sweeps
//! over one block of rows × classes while it is in the cache.

use pulp::{Simd, WithSimd};

use super::{
    nearest::take,
    rows::{HeadRow, Partial},
    soft::{Cuts, SoftRows, in_tile},
    vector::{Fused, LANES, exp, fold, larger, normal, scale_values},
};
use crate::objective::others::{Other, Place};

/// Transforms that ask for no place.
const NOWHERE: Place<f32> = Place { bound: f32::INFINITY, target: 0.0, late: true };

/// Some rows × the classes of one tile.
pub(super) struct Block<'a> {
    /// [rows, width]: cosines, what became of them, or G.
    pub values: &'a mut [f32],
    pub rows: &'a [HeadRow],
    pub soft: SoftRows<'a>,
    /// The tile's classes.
    pub first: usize,
    pub width: usize,
    pub scale: f32,
    /// The classes' weights, with label smoothing.
    pub weights: Option<&'a [f32]>,
    /// One over their [`unit`](super::rows::unit).
    pub per_unit: f32,
    /// Factors of the columns, applied first: products become cosines.
    pub before: Option<&'a [f32]>,
    /// Factors of the columns, applied last, in pass 2.
    pub after: Option<&'a [f32]>,
}

/// Pass 1: cosines become the rows' statistics over the other classes.
///
/// With `STORE` the block then holds exp(z − max_logit), where `max_logit` is the row's largest logit in this block, so that pass
/// 2 only rescales; else it keeps its cosines. The labelled class is left out, and its cell undefined.
pub(super) struct DirectStatistics<'a, O, const STORE: bool> {
    pub others: O,
    pub block: Block<'a>,
    /// Joined by this tile.
    pub partials: &'a mut [Partial],
    /// The largest logits, one per row; not read or written without `STORE`.
    pub max_logit: &'a mut [f32],
    /// \[rows, count\], the best first: the largest cosines of the other classes so far, if any are wanted.
    pub top: &'a mut [(f32, u32)],
    pub count: usize,
}

impl<O: Other, const STORE: bool> WithSimd for DirectStatistics<'_, O, STORE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Block { values, rows, soft, first, width, scale, weights, before, .. } = self.block;
        let blocks = values.chunks_exact_mut(width);
        for (i, ((cosines, row), partial)) in blocks.zip(rows).zip(self.partials).enumerate() {
            if !row.counts() {
                continue;
            }
            scale_values(cosines, before);
            let label = row.class.wrapping_sub(first);
            let cuts = Cuts::of(soft.of(i), label, first, width);
            if let Some(weights) = weights {
                partial.weighted += weighted(self.others, cosines, weights);
                let mut without = |at: usize| {
                    // summed in f64, so that it can be taken out again
                    partial.weighted -=
                        f64::from(weights[at]) * f64::from(self.others.value_slope(cosines[at], NOWHERE).0);
                };
                match &cuts {
                    Some(cuts) => cuts.places().for_each(without),
                    None if label < width => without(label),
                    None => {}
                }
            }
            // a cosine of −∞ is never the largest, and its exponential is 0
            let vanishes = self.others.value_slope(f32::NEG_INFINITY, NOWHERE).0 == f32::NEG_INFINITY;
            let (mut label, mut none) = (label, false);
            if let Some(cuts) = cuts {
                if !vanishes {
                    // cosines of such a transform stay as they are
                    between(self.others, cosines, &cuts, scale, partial);
                    continue;
                }
                none = cuts.all(width);
                cuts.places().for_each(|at| cosines[at] = f32::NEG_INFINITY);
                label = width;
            }
            let (left, right) = without(cosines, label);
            if none || left.is_empty() && right.is_empty() {
                if STORE {
                    self.max_logit[i] = f32::NEG_INFINITY;
                }
                continue;
            }
            let (a, b) = (extremes(self.others, left), extremes(self.others, right));
            if self.count > 0 {
                let top = &mut self.top[i * self.count..(i + 1) * self.count];
                take(top, larger(a.1, b.1), [(left, first), (right, row.class.wrapping_add(1))]);
            }
            let max_logit = scale * larger(a.0, b.0);
            let sum = exp_sum::<O, STORE>(self.others, left, scale, max_logit)
                + exp_sum::<O, STORE>(self.others, right, scale, max_logit);
            partial.join(f64::from(max_logit), [f64::from(sum), 0.0], larger(a.1, b.1));
            if STORE {
                self.max_logit[i] = max_logit;
            }
        }
    }
}

/// Pass 2: the block becomes G = dL/d(cosine).
///
/// With `STORED` it holds the exp of [`DirectStatistics`], else cosines.
pub(super) struct DirectGradients<'a, O, const STORED: bool> {
    pub others: O,
    pub block: Block<'a>,
    /// The values that pass 1 stored; not read without `STORED`.
    pub max_logit: &'a [f32],
}

impl<O: Other, const STORED: bool> WithSimd for DirectGradients<'_, O, STORED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Block { values, rows, soft, first, width, scale, weights, per_unit, before, after } = self.block;
        for (i, (values, row)) in values.chunks_exact_mut(width).zip(rows).enumerate() {
            if !row.counts() {
                values.fill(0.0);
                continue;
            }
            scale_values(values, before);
            let max_logit = if STORED { self.max_logit[i] } else { row.max_logit };
            let gain = row.gain_at(f64::from(max_logit));
            match weights {
                None => {
                    for x in values.iter_mut() {
                        let (p, slope) = force::<O, STORED>(self.others, *x, scale, max_logit, gain);
                        *x = normal(p * slope);
                    }
                }
                Some(weights) => {
                    for (x, w) in values.iter_mut().zip(weights) {
                        let (p, slope) = force::<O, STORED>(self.others, *x, scale, max_logit, gain);
                        *x = normal((-row.smoothing).fused(*w * per_unit, p) * slope);
                    }
                }
            }
            if let Some(label) = values.get_mut(row.class.wrapping_sub(first)) {
                *label = row.pull;
            }
            in_tile(soft.of(i), first, width).for_each(|(at, target)| values[at] = target.pull);
            scale_values(values, after);
        }
    }
}

/// `gain · exp(z − max_logit)` from a cosine, or from that exp as stored, and the slope of the transform.
#[inline(always)]
fn force<O: Other, const STORED: bool>(others: O, x: f32, scale: f32, max_logit: f32, gain: f32) -> (f32, f32) {
    if STORED {
        return (gain * x, 1.0); // only the identity is stored so
    }
    let (value, slope) = others.value_slope(x, NOWHERE);
    (gain * exp(scale.fused(value, -max_logit)), slope)
}

/// The row left and right of the labelled class; all of it where the label lies elsewhere.
#[inline(always)]
fn without(row: &mut [f32], label: usize) -> (&mut [f32], &mut [f32]) {
    if label < row.len() {
        let (left, right) = row.split_at_mut(label);
        (left, &mut right[1..])
    } else {
        (row, &mut [])
    }
}

/// The statistics of the stretches between a row's targets.
#[inline(always)]
fn between<O: Other>(others: O, cosines: &mut [f32], cuts: &Cuts, scale: f32, partial: &mut Partial) {
    let width = cosines.len();
    if cuts.all(width) {
        return;
    }
    let (mut best, mut nearest) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for stretch in cuts.between(width) {
        let found = extremes(others, &cosines[stretch]);
        (best, nearest) = (larger(best, found.0), larger(nearest, found.1));
    }
    let (max_logit, mut sum) = (scale * best, 0.0);
    for stretch in cuts.between(width) {
        sum += exp_sum::<O, false>(others, &mut cosines[stretch], scale, max_logit);
    }
    partial.join(f64::from(max_logit), [f64::from(sum), 0.0], nearest);
}

/// The largest value and the largest cosine.
#[inline(always)]
fn extremes<O: Other>(others: O, cosines: &[f32]) -> (f32, f32) {
    let (blocks, rest) = cosines.as_chunks::<LANES>();
    let (mut values, mut nearest) = ([f32::NEG_INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for c in blocks {
        for k in 0..LANES {
            values[k] = larger(others.value_slope(c[k], NOWHERE).0, values[k]);
            nearest[k] = larger(c[k], nearest[k]);
        }
    }
    for (k, &c) in rest.iter().enumerate() {
        values[k] = larger(others.value_slope(c, NOWHERE).0, values[k]);
        nearest[k] = larger(c, nearest[k]);
    }
    (fold(values, larger), fold(nearest, larger))
}

/// Σ exp(z − max_logit); with `STORE` the terms replace the cosines.
#[inline(always)]
fn exp_sum<O: Other, const STORE: bool>(others: O, cosines: &mut [f32], scale: f32, max_logit: f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (blocks, rest) = cosines.as_chunks_mut::<LANES>();
    for c in blocks {
        for k in 0..LANES {
            let e = exp(scale.fused(others.value_slope(c[k], NOWHERE).0, -max_logit));
            sums[k] += e;
            if STORE {
                c[k] = e;
            }
        }
    }
    if !rest.is_empty() {
        // a whole block again, so that the rest is vectorised too
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        for e in &mut padded {
            *e = exp(scale.fused(others.value_slope(*e, NOWHERE).0, -max_logit));
        }
        for ((sum, e), c) in sums.iter_mut().zip(padded).zip(rest) {
            *sum += e;
            if STORE {
                *c = e;
            }
        }
    }
    fold(sums, |a, b| a + b)
}

/// Σ weight · value.
#[inline(always)]
pub(super) fn weighted<O: Other>(others: O, cosines: &[f32], weights: &[f32]) -> f64 {
    let ((c, c_rest), (w, w_rest)) = (cosines.as_chunks::<LANES>(), weights.as_chunks::<LANES>());
    let mut sums = [0.0_f64; LANES];
    for (c, w) in c.iter().zip(w) {
        for k in 0..LANES {
            sums[k] = f64::from(others.value_slope(c[k], NOWHERE).0).fused(f64::from(w[k]), sums[k]);
        }
    }
    for (k, (c, w)) in c_rest.iter().zip(w_rest).enumerate() {
        sums[k] = f64::from(others.value_slope(*c, NOWHERE).0).fused(f64::from(*w), sums[k]);
    }
    fold(sums, |a, b| a + b)
}

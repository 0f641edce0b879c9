//! The sweeps of every loss that the two of `sweep` do not know: other transforms, the binary link, sub-centers, dL/ds.
//!
//! One row of a tile at a time goes through a table of values and slopes in the scratch of its range, so that neither
//! sweep depends on the transform.

use pulp::{Simd, WithSimd};

use super::{
    curve::OthersF32,
    rows::{Partial, RowExtras},
    soft::{Cuts, in_tile},
    sweep::{Block, weighted},
    vector::{Fused, LANES, exp, fold, larger, max_of, normal, scale_values},
};
use crate::objective::others::Identity;

/// The outputs of the sweeps.
pub(super) struct Table {
    pub curve: OthersF32,
    /// The bias of a binary link; none for softmax.
    pub binary: Option<f32>,
    /// Prototypes of a class.
    pub centers: usize,
}

/// One row of a tile, one value per class.
pub(super) struct Scratch {
    /// The largest cosine of a class, and which of its prototypes has it; not used without sub-centers.
    pub cosines: Vec<f32>,
    pub centers: Vec<u32>,
    pub values: Vec<f32>,
    pub slopes: Vec<f32>,
}

impl Scratch {
    /// Bytes per class of a tile.
    pub const BYTES: usize = 16;

    pub fn new(classes: usize) -> Self {
        let floats = || vec![0.0; classes];
        Self { cosines: floats(), centers: vec![0; classes], values: floats(), slopes: floats() }
    }
}

/// The largest cosine of each class, from its first prototypes, its second ones, ...; the first on ties. With `WHICH`
/// also which that is.
#[inline(always)]
pub(super) fn largest<'a, const WHICH: bool>(
    columns: &'a [f32],
    centers: usize,
    cosines: &'a mut [f32],
    which: &mut [u32],
) -> &'a [f32] {
    if centers == 1 {
        return columns;
    }
    let (first, others) = columns.split_at(cosines.len());
    cosines.copy_from_slice(first);
    if WHICH {
        which.fill(0);
    }
    for (k, others) in (1..).zip(others.chunks_exact(first.len())) {
        for ((&c, best), at) in others.iter().zip(&mut *cosines).zip(&mut *which) {
            if WHICH {
                *at = if c > *best { k } else { *at };
            }
            *best = larger(c, *best);
        }
    }
    cosines
}

/// G of each class at its nearest prototype, 0 at the others.
#[inline(always)]
fn spread(columns: &mut [f32], centers: usize, which: &[u32], values: &[f32]) {
    if centers == 1 {
        return columns.copy_from_slice(values);
    }
    for (k, columns) in (0..).zip(columns.chunks_exact_mut(values.len())) {
        for ((column, &which), &v) in columns.iter_mut().zip(which).zip(values) {
            *column = if which == k { v } else { 0.0 };
        }
    }
}

/// The row left and right of the labelled class; all of it where the label lies elsewhere.
#[inline(always)]
pub(super) fn without(row: &[f32], label: usize) -> [&[f32]; 2] {
    if label < row.len() { [&row[..label], &row[label + 1..]] } else { [row, &[]] }
}

/// Sums of several functions of one value.
#[inline(always)]
fn sums<const M: usize>(values: &[f32], f: impl Fn(f32) -> [f32; M]) -> [f32; M] {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [[0.0; LANES]; M];
    for v in blocks {
        for l in 0..LANES {
            let terms = f(v[l]);
            for m in 0..M {
                lanes[m][l] += terms[m];
            }
        }
    }
    if !rest.is_empty() {
        // a whole block again, so that the rest is vectorised too
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        let mut terms = [[0.0; M]; LANES];
        for l in 0..LANES {
            terms[l] = f(padded[l]);
        }
        for l in 0..rest.len() {
            for m in 0..M {
                lanes[m][l] += terms[l][m];
            }
        }
    }
    lanes.map(
        #[inline(always)]
        |lanes| {
            fold(
                lanes,
                #[inline(always)]
                |a, b| a + b,
            )
        },
    )
}

/// exp(scale·(v − best)): exactly 1 at the best value, however large the logits are.
#[inline(always)]
fn weight(scale: f32, value: f32, best: f32) -> f32 {
    exp(scale * (value - best))
}

/// The logit of a value, exact.
#[inline(always)]
pub(super) fn logit(scale: f32, value: f32) -> f64 {
    f64::from(scale) * f64::from(value)
}

/// log(1 + e^z), relative error below 4e-7, and 1/(1 + e^−z).
///
/// log(1 + v) = 2·artanh(v/(2 + v)): seven terms reach 1.5e-8 for v <= 1.
#[inline(always)]
fn softplus_sigmoid(z: f32) -> (f32, f32) {
    let v = exp(-z.abs());
    let q = v / (2.0 + v);
    let square = q * q;
    let p = square.fused(1.0 / 13.0, 1.0 / 11.0);
    let p = square.fused(p, 1.0 / 9.0);
    let p = square.fused(p, 1.0 / 7.0);
    let p = square.fused(p, 1.0 / 5.0);
    let p = square.fused(p, 1.0 / 3.0);
    let log = 2.0 * (p * square).fused(q, q);
    let (above, share) = if z > 0.0 { (z, 1.0) } else { (0.0, v) };
    (above + log, share / (1.0 + v))
}

/// Σ exp(scale·(v − best)), and the same with each term times its value.
#[inline(always)]
pub(super) fn softmax(values: &[f32], scale: f32, best: f32) -> [f32; 2] {
    sums(
        values,
        #[inline(always)]
        |v| {
            let e = weight(scale, v, best);
            [e, e * v]
        },
    )
}

/// Σ softplus(z), Σ σ(z)·v and Σ σ(z).
#[inline(always)]
fn sigmoids(values: &[f32], scale: f32, bias: f32) -> [f32; 3] {
    sums(
        values,
        #[inline(always)]
        |v| {
            let (softplus, sigmoid) = softplus_sigmoid(scale.fused(v, bias));
            [softplus, sigmoid * v, sigmoid]
        },
    )
}

/// Pass 1: the rows' statistics over the other classes. The block keeps its cosines.
pub(super) struct TableStatistics<'a> {
    pub table: &'a Table,
    pub block: Block<'a>,
    pub extras: &'a [RowExtras],
    pub scratch: &'a mut Scratch,
    /// Joined by this tile.
    pub partials: &'a mut [Partial],
}

impl WithSimd for TableStatistics<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Block { values: columns, rows, soft, first, width, scale, weights, before, .. } = self.block;
        let Table { curve, binary, centers } = self.table;
        let Scratch { cosines, centers: which, values, slopes } = self.scratch;
        let (values, slopes) = (&mut values[..width], &mut slopes[..width]);
        let columns = columns.chunks_exact_mut(width * centers);
        let rows = columns.zip(rows.iter().zip(self.extras)).zip(self.partials).enumerate();
        for (i, ((columns, (row, extra)), partial)) in rows {
            let label = row.class.wrapping_sub(first);
            if !row.counts() {
                continue;
            }
            scale_values(columns, before);
            if label == 0 && width == 1 {
                continue;
            }
            let scale = scale * extra.factor;
            let raw = largest::<false>(columns, *centers, &mut cosines[..width], &mut which[..width]);
            curve.fill::<false>(raw, (extra, row.cosine, first), values, slopes);
            if let Some(cuts) = Cuts::of(soft.of(i), label, first, width) {
                between((scale, *binary), (values, raw, weights), &cuts, partial);
                continue;
            }
            let ([a, b], [c, d]) = (without(values, label), without(raw, label));
            let nearest = larger(max_of(c), max_of(d));
            match *binary {
                None => {
                    let best = larger(max_of(a), max_of(b));
                    let ([sum, value_sum], [more, slant]) = (softmax(a, scale, best), softmax(b, scale, best));
                    let both = [f64::from(sum + more), f64::from(value_sum + slant)];
                    partial.join(logit(scale, best), both, nearest);
                    if let Some(weights) = weights {
                        let [left, right] = without(weights, label);
                        partial.weighted += weighted(Identity, a, left) + weighted(Identity, b, right);
                    }
                }
                Some(bias) => {
                    let ([sum, value_sum, share], [more, slant, rest]) =
                        (sigmoids(a, scale, bias), sigmoids(b, scale, bias));
                    partial.join(0.0, [f64::from(sum + more), f64::from(value_sum + slant)], nearest);
                    partial.weighted += f64::from(share + rest);
                }
            }
        }
    }
}

/// The statistics of the stretches between a row's targets: scale and a binary link's bias, values, raw cosines and weights.
#[inline(always)]
fn between(
    (scale, binary): (f32, Option<f32>),
    (values, raw, weights): (&[f32], &[f32], Option<&[f32]>),
    cuts: &Cuts,
    partial: &mut Partial,
) {
    let stretches = || cuts.between(values.len()).filter(|stretch| !stretch.is_empty());
    let largest = |values: &[f32]| stretches().map(|s| max_of(&values[s])).fold(f32::NEG_INFINITY, larger);
    let (best, nearest) = (largest(values), largest(raw));
    if stretches().next().is_none() {
        return;
    }
    let [mut sum, mut value_sum] = [0.0, 0.0];
    for stretch in stretches() {
        let values = &values[stretch.clone()];
        let [more, slant] = match binary {
            None => softmax(values, scale, best),
            Some(bias) => {
                let [more, slant, share] = sigmoids(values, scale, bias);
                partial.weighted += f64::from(share);
                [more, slant]
            }
        };
        (sum, value_sum) = (sum + more, value_sum + slant);
        if let (None, Some(weights)) = (binary, weights) {
            partial.weighted += weighted(Identity, values, &weights[stretch]);
        }
    }
    let max_logit = if binary.is_some() { 0.0 } else { logit(scale, best) };
    partial.join(max_logit, [f64::from(sum), f64::from(value_sum)], nearest);
}

/// Pass 2: the block of cosines becomes G = dL/d(cosine); with sub-centers at the nearest one of each class alone.
pub(super) struct TableGradients<'a> {
    pub table: &'a Table,
    pub block: Block<'a>,
    pub extras: &'a [RowExtras],
    pub scratch: &'a mut Scratch,
}

impl WithSimd for TableGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Block { values: columns, rows, soft, first, width, scale, weights, per_unit, before, after } = self.block;
        let Table { curve, binary, centers } = self.table;
        let centers = *centers;
        let Scratch { cosines, centers: which, values, slopes } = self.scratch;
        let (values, slopes, which) = (&mut values[..width], &mut slopes[..width], &mut which[..width]);
        let rows = columns.chunks_exact_mut(width * centers).zip(rows.iter().zip(self.extras)).enumerate();
        for (i, (columns, (row, extra))) in rows {
            if !row.counts() {
                columns.fill(0.0);
                continue;
            }
            scale_values(columns, before);
            let scale = scale * extra.factor;
            let raw = largest::<true>(columns, centers, &mut cosines[..width], which);
            curve.fill::<true>(raw, (extra, row.cosine, first), values, slopes);
            match (*binary, weights) {
                (Some(bias), _) => {
                    for (v, slope) in values.iter_mut().zip(&*slopes) {
                        let (_, sigmoid) = softplus_sigmoid(scale.fused(*v, bias));
                        *v = normal(row.strength as f32 * sigmoid * slope);
                    }
                }
                (None, None) => {
                    let gain = row.gain_at(logit(scale, extra.best));
                    for (v, slope) in values.iter_mut().zip(&*slopes) {
                        *v = normal(gain * weight(scale, *v, extra.best) * slope);
                    }
                }
                (None, Some(weights)) => {
                    let gain = row.gain_at(logit(scale, extra.best));
                    for ((v, slope), w) in values.iter_mut().zip(&*slopes).zip(weights) {
                        let p = gain * weight(scale, *v, extra.best);
                        *v = normal((-row.smoothing).fused(*w * per_unit, p) * slope);
                    }
                }
            }
            spread(columns, centers, which, values);
            let label = row.class.wrapping_sub(first);
            if label < width {
                for (k, columns) in (0..).zip(columns.chunks_exact_mut(width)) {
                    columns[label] = if k == extra.center { row.pull } else { 0.0 };
                }
            }
            for (at, target) in in_tile(soft.of(i), first, width) {
                for (k, columns) in (0..).zip(columns.chunks_exact_mut(width)) {
                    columns[at] = if k == target.center { target.pull } else { 0.0 };
                }
            }
            scale_values(columns, after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{sigmoid, softplus};

    #[test]
    fn softplus_and_sigmoid_are_accurate() {
        for i in -8600..=9000 {
            let z = i as f32 * 0.01;
            let (found, share) = softplus_sigmoid(z);
            let z = f64::from(z);
            assert!((f64::from(found) / softplus(z) - 1.0).abs() < 4e-7, "softplus({z}) = {found:e}");
            assert!((f64::from(share) / sigmoid(z) - 1.0).abs() < 4e-7, "sigmoid({z}) = {share:e}");
        }
        assert_eq!(softplus_sigmoid(-1e30), (0.0, 0.0));
        assert_eq!(softplus_sigmoid(1e30), (1e30, 1.0));
    }
}

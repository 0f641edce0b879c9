//! The largest cosines of a row, in order: from a sweep over cosines, or from the exponentials that pass 1 keeps.

use pulp::{Simd, WithSimd};

use super::vector::LANES;

/// Takes up the cosines of two runs of classes, each from its first class on, if the largest of them is near enough.
#[inline(always)]
pub(super) fn take(top: &mut [(f32, u32)], nearest: f32, runs: [(&[f32], usize); 2]) {
    if nearest > top[top.len() - 1].0 {
        runs.into_iter().for_each(|(cosines, first)| select(top, cosines, first));
    }
}

/// Takes up the cosines of the classes from `first` on; of equal ones the first stays.
#[inline(always)]
fn select(top: &mut [(f32, u32)], cosines: &[f32], first: usize) {
    for (b, block) in cosines.chunks(LANES).enumerate() {
        let last = top[top.len() - 1].0;
        if any(block, |c| c > last) {
            for (j, &c) in block.iter().enumerate() {
                insert(top, (c, (first + b * LANES + j) as u32));
            }
        }
    }
}

/// Whether it holds for any; looks at all, a register at a time.
#[inline(always)]
fn any(values: &[f32], holds: impl Fn(f32) -> bool) -> bool {
    values.iter().fold(false, |any, &v| any | holds(v))
}

/// Puts a class in its place behind all that are as near, if it is among the nearest.
#[inline(always)]
pub(super) fn insert(top: &mut [(f32, u32)], new: (f32, u32)) {
    let Some(mut at) = top.len().checked_sub(1).filter(|&last| new.0 > top[last].0) else { return };
    while at > 0 && new.0 > top[at - 1].0 {
        top[at] = top[at - 1];
        at -= 1;
    }
    top[at] = new;
}

/// Where a sweep left what it chose.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Choice {
    /// In lists of the ranges.
    Listed,
    /// In what pass 1 keeps.
    Kept,
}

/// The most classes that are looked at again.
pub(super) const ROOM: usize = 256;

/// The classes of a row that may be among its nearest, from exp(z − largest of the tile) as *keep* stores it.
///
/// The k-th largest of the tiles' largest logits bounds the k-th largest of all from below, so that few tiles and few of their
/// values are looked at.
pub(super) struct FromKept<'a> {
    /// \[tiles\]\[rows, width\], and \[tiles, rows\].
    pub kept: &'a [f32],
    pub max_logit: &'a [f32],
    /// Rows, columns, columns of a tile.
    pub sizes: [usize; 3],
    pub row: usize,
    /// Left out: its value is not kept.
    pub label: usize,
    pub scale: f32,
    pub count: usize,
    /// Logits and columns.
    pub found: &'a mut [(f32, u32); ROOM],
}

impl FromKept<'_> {
    /// More than the roundings of two logits and of an exponential.
    #[inline(always)]
    pub fn slack(scale: f32) -> f32 {
        1e-6 * (1.0 + scale)
    }
}

impl WithSimd for FromKept<'_> {
    /// How many were found; `None` where exponentials that vanish, or too many that are equal, do not tell.
    type Output = Option<usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Option<usize> {
        let Self { kept, max_logit, sizes: [rows, columns, tile], row, label, scale, count, found } = self;
        let slack = Self::slack(scale);
        let maxima = || max_logit.iter().skip(row).step_by(rows).take(columns.div_ceil(tile));
        let mut floor = floor_of(maxima().copied(), count)? - slack;
        let mut len = 0;
        for (t, &most) in maxima().enumerate().filter(|(_, most)| **most >= floor) {
            let (first, width) = (t * tile, tile.min(columns - t * tile));
            if floor - most < -86.0 {
                return None;
            }
            let (limit, from) = ((floor - most).exp(), rows * first + row * width);
            for (b, block) in kept[from..from + width].chunks(LANES).enumerate() {
                if !any(block, |e| e >= limit) {
                    continue;
                }
                for (j, &e) in block.iter().enumerate() {
                    let column = first + b * LANES + j;
                    if e >= limit && column != label {
                        *found.get_mut(len)? = (most + e.ln(), column as u32);
                        len += 1;
                    }
                }
            }
        }
        floor = floor_of(found[..len].iter().map(|(z, _)| *z), count)? - slack;
        let mut near = 0;
        for i in 0..len {
            if found[i].0 >= floor {
                found[near] = found[i];
                near += 1;
            }
        }
        Some(near)
    }
}

/// The `count`-th largest, if there are so many.
#[inline(always)]
fn floor_of(values: impl Iterator<Item = f32>, count: usize) -> Option<f32> {
    let mut top = [(f32::NEG_INFINITY, 0); 64];
    let top = top.get_mut(..count)?;
    values.for_each(|v| insert(top, (v, 0)));
    top.last().map(|last| last.0).filter(|floor| *floor > f32::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The k largest, best first, the lower class first on ties; whatever comes in one piece or in several.
    #[test]
    fn select_keeps_the_largest() {
        let cosines: Vec<f32> = (0..200).map(|i| ((i * 37) % 50) as f32 / 50.0 - 0.3).collect();
        for count in [1, 5, 64] {
            let mut all: Vec<(f32, u32)> = cosines.iter().enumerate().map(|(j, &c)| (c, 10 + j as u32)).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            all.truncate(count);
            for cut in [0, 1, 77, 200] {
                let mut top = vec![(f32::NEG_INFINITY, u32::MAX); count];
                select(&mut top, &cosines[..cut], 10);
                select(&mut top, &cosines[cut..], 10 + cut);
                assert_eq!(top, all, "{count} of {cut}");
            }
        }
    }

    /// Among what is found are the k largest; exponentials that vanished are not told apart.
    #[test]
    fn kept_exponentials_hold_the_nearest() {
        let (rows, columns, tile) = (3, 1000, 96);
        let cosine = |i: usize, j: usize| ((i * 7919 + j * 104_729) % 1009) as f32 / 1009.0 - 0.5;
        for (scale, count) in [(1.0, 1), (30.0, 5), (64.0, 10), (1e4, 10)] {
            let (mut kept, mut max_logit) = (vec![], vec![]);
            for first in (0..columns).step_by(tile) {
                let own = first..columns.min(first + tile);
                for i in 0..rows {
                    let most = own.clone().map(|j| scale * cosine(i, j)).fold(f32::MIN, f32::max);
                    kept.extend(own.clone().map(|j| (scale * cosine(i, j) - most).exp()));
                    max_logit.push(most);
                }
            }
            for row in 0..rows {
                let mut found = [(0.0, 0); ROOM];
                let (kept, max_logit, label) = (&kept, &max_logit, usize::MAX);
                let sizes = [rows, columns, tile];
                let len = pulp::Arch::new().dispatch(FromKept {
                    kept,
                    max_logit,
                    sizes,
                    row,
                    label,
                    scale,
                    count,
                    found: &mut found,
                });
                let mut all: Vec<usize> = (0..columns).collect();
                all.sort_by(|&a, &b| cosine(row, b).total_cmp(&cosine(row, a)));
                if let Some(len) = len {
                    assert!(all[..count].iter().all(|&j| found[..len].iter().any(|f| f.1 as usize == j)), "{scale}");
                }
                assert!(len.is_some() || scale > 100.0, "{scale}");
            }
        }
    }
}

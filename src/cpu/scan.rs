//! The sweep before the passes: the largest raw cosines of every row, or the sums of their exponentials.

use pulp::{Simd, WithSimd};

use super::{
    rows::Partial,
    sweep::Block,
    table::{Scratch, largest, logit, max_of, softmax, without},
    vector::{LANES, larger, scale_values},
};

/// Before the passes: what a selection or a scale needs of the raw cosines.
pub(super) struct Scan<'a> {
    pub centers: usize,
    pub block: Block<'a>,
    pub scratch: &'a mut Scratch,
    /// Joined by this tile where the sums of exp(scale·c) are wanted.
    pub partials: Option<&'a mut [Partial]>,
    /// \[rows, count\], the best first: the largest cosines so far with their classes.
    pub top: &'a mut [(f32, u32)],
    pub count: usize,
}

impl WithSimd for Scan<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Block { values, rows, first, width, scale, before, .. } = self.block;
        let Scratch { cosines, centers, .. } = self.scratch;
        let mut partials = self.partials;
        for (i, (columns, row)) in values.chunks_exact_mut(width * self.centers).zip(rows).enumerate() {
            if !row.counts() {
                continue;
            }
            scale_values(columns, before);
            let label = row.class.wrapping_sub(first);
            let raw = largest::<false>(columns, self.centers, &mut cosines[..width], &mut centers[..width]);
            let [left, right] = without(raw, label);
            if let Some(partial) = partials.as_mut().and_then(|p| p.get_mut(i))
                && (!left.is_empty() || !right.is_empty())
            {
                let nearest = larger(max_of(left), max_of(right));
                let sum = softmax(left, scale, nearest)[0] + softmax(right, scale, nearest)[0];
                partial.join(logit(scale, nearest), [f64::from(sum), 0.0], nearest);
            }
            if self.count > 0 {
                let top = &mut self.top[i * self.count..(i + 1) * self.count];
                select(top, left, first);
                select(top, right, row.class.wrapping_add(1));
            }
        }
    }
}

/// Takes up the cosines of the classes from `first` on; of equal ones the first stays.
#[inline(always)]
fn select(top: &mut [(f32, u32)], cosines: &[f32], first: usize) {
    for (b, block) in cosines.chunks(LANES).enumerate() {
        if max_of(block) > top[top.len() - 1].0 {
            for (j, &c) in block.iter().enumerate() {
                insert(top, (c, (first + b * LANES + j) as u32));
            }
        }
    }
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
}

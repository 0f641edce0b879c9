//! The sweep over raw cosines: the largest of every row, or the sums of their exponentials.

use pulp::{Simd, WithSimd};

use super::{
    nearest::take,
    rows::{Partial, RowExtras},
    sweep::Block,
    table::{Scratch, largest, logit, softmax, without},
    vector::{larger, max_of, scale_values},
};

/// The facts about the raw cosines that a selection, a scale or a prediction needs.
pub(super) struct Scan<'a> {
    pub centers: usize,
    pub block: Block<'a>,
    pub extras: &'a [RowExtras],
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
        let rows = rows.iter().zip(self.extras);
        for (i, (columns, (row, extra))) in values.chunks_exact_mut(width * self.centers).zip(rows).enumerate() {
            if !row.counts() {
                continue;
            }
            scale_values(columns, before);
            let label = row.class.wrapping_sub(first);
            let raw = largest::<false>(columns, self.centers, &mut cosines[..width], &mut centers[..width]);
            let [left, right] = without(raw, label);
            if left.is_empty() && right.is_empty() {
                continue;
            }
            let mut nearest = f32::INFINITY;
            if let Some(partial) = partials.as_mut().and_then(|p| p.get_mut(i)) {
                let scale = scale * extra.factor;
                nearest = larger(max_of(left), max_of(right));
                let ([a, b], [c, d]) = (softmax(left, scale, nearest), softmax(right, scale, nearest));
                partial.join(logit(scale, nearest), [f64::from(a + c), f64::from(b + d)], nearest);
            }
            if self.count > 0 {
                let top = &mut self.top[i * self.count..(i + 1) * self.count];
                take(top, nearest, [(left, first), (right, row.class.wrapping_add(1))]);
            }
        }
    }
}

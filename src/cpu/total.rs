//! Sums of so many products that an f32 would lose their precision: parts of them, added up in f64.
//!
//! The radial part of the sum (along the row or class itself) grows with the number of terms, and the gradient, which is the
//! rest, with the square root of that number. So the radial part is removed in f64 too, before anything is rounded.

use pulp::{Arch, Simd, WithSimd};

use super::vector::Project;
use crate::objective::SHORTEST;

/// Products of a sum in f32; a longer one has a [`Total`] in f64. Each covers at most 512 terms.
pub(super) const LONG: usize = 128;

/// Products that such a sum adds up in f32 at a time.
const PART: usize = 32;

/// How far an f32 sum of products has come, and its total in f64 if it is a long one.
pub(super) struct Total<'a> {
    /// As long as the f32 sum; empty if that is all there is.
    wide: &'a mut [f64],
    /// Products in the f32 sum.
    part: usize,
    /// Whether `wide` holds something yet.
    begun: bool,
}

impl<'a> Total<'a> {
    pub fn new(wide: &'a mut [f64]) -> Self {
        Self { wide, part: 0, begun: false }
    }

    /// Whether the next product is added to what the f32 sum holds; else it replaces that.
    pub fn adds(&self) -> bool {
        self.part > 0
    }

    /// A product is part of `sum` now. `whole`: add that to the total whatever it holds.
    pub fn joined(&mut self, arch: Arch, sum: &[f32], whole: bool) {
        self.part += 1;
        if !self.wide.is_empty() && (whole || self.part == PART) {
            arch.dispatch(Widen { from: sum, to: self.wide, add: self.begun });
            (self.part, self.begun) = (0, true);
        }
    }

    /// The gradient from the whole sum, with `project` if the head is not `linear`; `at`: where in the sum that begins.
    pub fn finish(&self, arch: Arch, at: usize, project: Project<'_>, linear: bool) {
        if !self.wide.is_empty() {
            let wide = &self.wide[at..];
            arch.dispatch(Finish { total: |i: usize, _| wide[i], project, linear });
        } else if !linear {
            arch.dispatch(project);
        }
    }
}

/// `to = from`, or `to += from`.
pub(super) struct Widen<'a> {
    pub from: &'a [f32],
    pub to: &'a mut [f64],
    pub add: bool,
}

impl WithSimd for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let values = self.to.iter_mut().zip(self.from);
        match self.add {
            true => values.for_each(|(to, from)| *to += f64::from(*from)),
            false => values.for_each(|(to, from)| *to = f64::from(*from)),
        }
    }
}

/// [`Project`] of a sum in f64: `total` makes it from the place of a value of `pull` and what that holds. Of a linear head the
/// sum is only rounded.
pub(super) struct Finish<'a, T> {
    pub total: T,
    pub project: Project<'a>,
    pub linear: bool,
}

impl<T: Fn(usize, f32) -> f64> WithSimd for Finish<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { total, project: Project { pull, from, step, dim, lengths, divided }, linear } = self;
        let rows = pull.chunks_mut(dim * step).zip(from.chunks(dim * step)).zip(lengths);
        for (row, ((pull, from), &length)) in rows.enumerate() {
            let values = || (row * dim * step..).zip(&from[..dim]);
            let inverse = 1.0 / length;
            let radial = match linear {
                true => 0.0,
                false => values().zip(&*pull).map(|((at, x), p)| total(at, *p) * f64::from(*x)).sum::<f64>() * inverse,
            };
            let factor = if linear || divided { 1.0 } else { inverse };
            let counts = linear || length >= SHORTEST && length.is_finite();
            for (pull, (at, x)) in pull.iter_mut().zip(values()) {
                let across = total(at, *pull) - radial * inverse * f64::from(*x);
                *pull = if counts { (across * factor) as f32 } else { 0.0 };
            }
        }
    }
}

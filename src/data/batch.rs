//! One batch: everything that goes into a head over slices.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;

use super::SoftLabels;

/// The smallest weight of a class or row but 0, and the largest.
pub(crate) const MIN_WEIGHT: f32 = 1e-30;
pub(crate) const MAX_WEIGHT: f32 = 1e24;

/// One batch: row-major slices. `T` is `f32` (`f64` for the reference), `L` any integer.
///
/// The number of rows is the number of labels.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, L = i64, T = f32> {
    /// X, \[N, D\].
    pub embeddings: &'a [T],
    /// W, \[C, D\]; with K sub-centers \[C, K, D\].
    pub prototypes: &'a [T],
    /// y, \[N\]: 0 ≤ y < C, or the ignore index.
    pub labels: &'a [L],
    /// w, \[C\]: a factor on each class' loss as in `torch.nn.functional.cross_entropy`, 0 or
    /// within \[1e-30, 1e24\]; 1 if absent.
    pub class_weights: Option<&'a [T]>,
    /// v, \[N\]: a factor on each row's loss and on its share of Z, 0 or within \[1e-30, 1e24\]; so must the product with the
    /// weight of its class be. 1 if absent.
    pub row_weights: Option<&'a [T]>,
    /// In the place of Z = Σ v_i·w_{y_i} with `Reduction::Mean`, within \[1e-30, 1e30\]: micro-batches and replicas that all
    /// divide by the Z of the whole batch add up to its mean.
    pub divisor: Option<T>,
    /// The gradient that arrives from above: \[N\] with `Reduction::None`, else one value; 1 if absent.
    pub upstream: Option<&'a [T]>,
    /// b, \[C\]: added to the plain products of a linear head; 0 if absent.
    pub bias: Option<&'a [T]>,
    /// m0..m3 per class, each \[C\], looked up by the label: in the place of the loss' own. What [`Adaptive`](crate::Adaptive)
    /// sets by the row comes in the place of them all.
    pub class_margins: Margins<'a, T>,
    /// m0..m3 per row, each \[N\]: in the place of the class' and the loss' own.
    pub row_margins: Margins<'a, T>,
    /// Several targets for each row, each with a weight; the label alone if absent.
    pub soft_labels: Option<SoftLabels<'a, T>>,
}

impl<'a, L: Copy, T: Copy> Batch<'a, L, T> {
    /// With other labels.
    pub(crate) fn labelled<M>(self, labels: &'a [M]) -> Batch<'a, M, T> {
        let Self { embeddings, prototypes, class_weights, row_weights, divisor, upstream, bias, .. } = self;
        let Self { class_margins, row_margins, soft_labels, .. } = self;
        Batch {
            embeddings,
            prototypes,
            labels,
            class_weights,
            row_weights,
            divisor,
            upstream,
            bias,
            class_margins,
            row_margins,
            soft_labels,
        }
    }
}

impl<'a, L> Batch<'a, L> {
    /// Embeddings and prototypes.
    pub(crate) fn values(&self) -> [StoredValues<'a>; 2] {
        [self.embeddings, self.prototypes].map(StoredValues::F32)
    }
}

/// A number that embeddings and prototypes may be stored in: f32, or f16 and bf16 of the `half` crate.
pub trait Stored: Copy {
    /// Values of this type, with their type.
    fn values(values: &[Self]) -> StoredValues<'_>;
}

/// Values as they are stored.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // as the types
pub enum StoredValues<'a> {
    F32(&'a [f32]),
    F16(&'a [half::f16]),
    Bf16(&'a [half::bf16]),
}

impl Stored for f32 {
    fn values(values: &[Self]) -> StoredValues<'_> {
        StoredValues::F32(values)
    }
}

impl Stored for half::f16 {
    fn values(values: &[Self]) -> StoredValues<'_> {
        StoredValues::F16(values)
    }
}

impl Stored for half::bf16 {
    fn values(values: &[Self]) -> StoredValues<'_> {
        StoredValues::Bf16(values)
    }
}

impl<'a> StoredValues<'a> {
    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As f32, without a copy where they are.
    pub fn widened(self) -> Cow<'a, [f32]> {
        match self {
            Self::F32(values) => Cow::Borrowed(values),
            Self::F16(values) => Cow::Owned(values.to_f32_vec()),
            Self::Bf16(values) => Cow::Owned(values.to_f32_vec()),
        }
    }

    /// Some of them.
    #[cfg(feature = "cpu")]
    pub(crate) fn part(self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::F16(values) => Self::F16(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
        }
    }

    /// As f32: themselves, or a copy in `scratch`, which grows to hold it.
    #[cfg(feature = "cpu")]
    pub(crate) fn widened_in<'s>(self, scratch: &'s mut Vec<f32>) -> &'s [f32]
    where
        'a: 's,
    {
        self.widened_behind(scratch, 0).1
    }

    /// The same behind the first `front` values of `scratch`, which come with it.
    #[cfg(feature = "cpu")]
    pub(crate) fn widened_behind<'s>(self, scratch: &'s mut Vec<f32>, front: usize) -> (&'s mut [f32], &'s [f32])
    where
        'a: 's,
    {
        if let Self::F32(values) = self {
            return (scratch, values);
        }
        if scratch.len() < front + self.len() {
            scratch.resize(front + self.len(), 0.0);
        }
        let (front, rest) = scratch.split_at_mut(front);
        let to = &mut rest[..self.len()];
        match self {
            Self::F32(_) => {}
            Self::F16(values) => values.convert_to_f32_slice(to),
            Self::Bf16(values) => values.convert_to_f32_slice(to),
        }
        (front, to)
    }
}

/// Margins that differ: any of m0..m3, for a unified target. Ranges as in [`Unified`](crate::objective::Unified), but −π < m2 < π.
/// An m2 that is the f32 nearest to a multiple of π/12 is that multiple: `std::f32::consts::FRAC_PI_2` is a right angle.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // m0..m3 as everywhere
pub struct Margins<'a, T = f32> {
    pub m0: Option<&'a [T]>,
    pub m1: Option<&'a [T]>,
    pub m2: Option<&'a [T]>,
    pub m3: Option<&'a [T]>,
}

impl<'a, T> Margins<'a, T> {
    /// None of them.
    pub const NONE: Self = Self { m0: None, m1: None, m2: None, m3: None };

    /// From m0..m3 in order.
    pub fn of(values: &'a [Option<Vec<T>>; 4]) -> Self {
        let [m0, m1, m2, m3] = values.each_ref().map(Option::as_deref);
        Self { m0, m1, m2, m3 }
    }

    /// m0..m3.
    pub fn each(&self) -> [Option<&'a [T]>; 4] {
        [self.m0, self.m1, self.m2, self.m3]
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.each().iter().any(Option::is_some)
    }
}

impl<T> Default for Margins<'_, T> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<L, T> Default for Batch<'_, L, T> {
    fn default() -> Self {
        Self {
            embeddings: &[],
            prototypes: &[],
            labels: &[],
            class_weights: None,
            row_weights: None,
            divisor: None,
            upstream: None,
            bias: None,
            class_margins: Margins::NONE,
            row_margins: Margins::NONE,
            soft_labels: None,
        }
    }
}

//! What goes into a head over slices and what comes out of it.

use std::{borrow::Cow, f64::consts::PI};

use half::slice::HalfFloatSliceExt;

use crate::{
    Error, Filtered, Result, Shape,
    objective::{AdaFace, Adaptive, Coefficients, Curve, MagFace, MarginSoftmax, Product, Target},
};

/// A whole number that can label a row.
pub trait Label: Copy {
    /// The number.
    fn number(self) -> i128;
}

macro_rules! label {
    ($($t:ty),*) => {$(
        impl Label for $t {
            fn number(self) -> i128 {
                self as i128
            }
        }
    )*};
}
label!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

/// One batch: row-major slices. `T` is `f32` (`f64` for the reference), `L` any integer.
///
/// The number of rows is the number of labels.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, L = i64, T = f32> {
    /// X, \[N, D\].
    pub embeddings: &'a [T],
    /// W, \[C, D\]; with K sub-centres \[C, K, D\].
    pub prototypes: &'a [T],
    /// y, \[N\]: 0 ≤ y < C, or the ignore index.
    pub labels: &'a [L],
    /// w, \[C\]: a factor on each class' loss as in `torch.nn.functional.cross_entropy`, 0 or
    /// within \[1e-30, 1e24\]; 1 if absent.
    pub class_weights: Option<&'a [T]>,
    /// The gradient that arrives from above: \[N\] with `Reduction::None`, else one value; 1 if absent.
    pub upstream: Option<&'a [T]>,
    /// b, \[C\]: added to the plain products of a linear head; 0 if absent.
    pub bias: Option<&'a [T]>,
    /// m0..m3 per class, each \[C\], looked up by the label: in the place of the loss' own. What [`Adaptive`](crate::Adaptive)
    /// sets by the row comes in the place of them all.
    pub class_margins: Margins<'a, T>,
    /// m0..m3 per row, each \[N\]: in the place of the class' and the loss' own.
    pub row_margins: Margins<'a, T>,
}

/// A number that embeddings and prototypes may be stored in: f32, or f16 and bf16 of the `half` crate.
pub trait Stored: Copy {
    /// As f32, without a copy where they are.
    fn widened(values: &[Self]) -> Cow<'_, [f32]>;
}

impl Stored for f32 {
    fn widened(values: &[Self]) -> Cow<'_, [f32]> {
        Cow::Borrowed(values)
    }
}

impl Stored for half::f16 {
    fn widened(values: &[Self]) -> Cow<'_, [f32]> {
        Cow::Owned(values.to_f32_vec())
    }
}

impl Stored for half::bf16 {
    fn widened(values: &[Self]) -> Cow<'_, [f32]> {
        Cow::Owned(values.to_f32_vec())
    }
}

/// Margins that differ: any of m0..m3, for a unified target. Ranges as in [`Unified`](crate::Unified), but −π < m2 < π.
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
            upstream: None,
            bias: None,
            class_margins: Margins::NONE,
            row_margins: Margins::NONE,
        }
    }
}

/// Which gradients to compute. Work that nobody asked for is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Want {
    /// dL/dX.
    pub grad_embeddings: bool,
    /// dL/dW.
    pub grad_prototypes: bool,
    /// dL/ds.
    pub grad_scale: bool,
    /// dL/db, for a linear head or a binary link.
    pub grad_bias: bool,
}

impl Want {
    /// The loss only.
    pub const LOSS: Self = Self { grad_embeddings: false, grad_prototypes: false, grad_scale: false, grad_bias: false };
    /// The loss and dL/dX.
    pub const EMBEDDINGS: Self = Self { grad_embeddings: true, ..Self::LOSS };
    /// The loss and dL/dW.
    pub const PROTOTYPES: Self = Self { grad_prototypes: true, ..Self::LOSS };
    /// The loss, dL/dX and dL/dW.
    pub const ALL: Self = Self { grad_embeddings: true, grad_prototypes: true, ..Self::LOSS };

    /// And dL/ds.
    pub const fn with_scale(mut self) -> Self {
        self.grad_scale = true;
        self
    }

    /// And dL/db.
    pub const fn with_bias(mut self) -> Self {
        self.grad_bias = true;
        self
    }

    /// Whether anything beside the loss is wanted.
    pub fn any(self) -> bool {
        self != Self::LOSS
    }
}

impl Default for Want {
    fn default() -> Self {
        Self::ALL
    }
}

/// The smallest class weight but 0, and the largest.
pub(crate) const LEAST_WEIGHT: f32 = 1e-30;
pub(crate) const MOST_WEIGHT: f32 = 1e24;

/// In the place of the largest other cosine where a row has none.
pub(crate) const NO_COSINE: f64 = -1.0;

/// The result of one batch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output<T = f32> {
    /// The reduced loss; with `Reduction::None` the sum of `row_losses`.
    pub loss: T,
    /// \[N\]: class weights included, 0 for an ignored row, not divided by Z.
    pub row_losses: Vec<T>,
    /// \[N\]: the raw cosine of the labelled class, without margin or scale (for a linear head the product with its bias);
    /// 0 for a row that is left out.
    pub target_cosines: Vec<T>,
    /// \[N\]: the largest raw cosine among the other classes; −1 where there is none.
    pub other_cosines: Vec<T>,
    /// \[N, D\], empty if not wanted.
    pub grad_embeddings: Vec<T>,
    /// \[C, D\] (\[C, K, D\]), empty if not wanted.
    pub grad_prototypes: Vec<T>,
    /// dL/ds, 0 if not wanted.
    pub grad_scale: T,
    /// dL/db, empty if not wanted: \[C\] for a linear head, \[1\] for a binary link, empty for any other loss.
    pub grad_bias: Vec<T>,
    /// What was left out, and why.
    pub counts: Counts,
    /// What a [`GradientFilter`](crate::GradientFilter) left out; none without one.
    pub filtered: Option<Filtered<T>>,
}

/// What a batch left out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows that count: neither ignored nor non-finite nor with an invalid label.
    pub rows: usize,
    /// Rows with the ignore index.
    pub ignored: usize,
    /// Rows with a NaN or infinite value that are not ignored, and rows of a linear head whose logits leave f32: their loss
    /// and the reduced loss are NaN, their gradient 0.
    pub non_finite_rows: usize,
    /// Rows whose label names no class, or with a class weight, margins or a state that no loss may have; seen on a device
    /// only, and treated like a non-finite row.
    pub invalid_labels: usize,
    /// Rows that count although their embedding is shorter than 1e-12; its gradient is 0.
    pub zero_embeddings: usize,
    /// Prototypes shorter than 1e-12; their gradient is 0.
    pub zero_prototypes: usize,
    /// Prototypes with a NaN or infinite value: every loss is NaN and every gradient 0.
    pub non_finite_prototypes: usize,
}

/// Values whose finiteness can be asked.
pub trait Finite: Copy {
    /// Neither NaN nor infinite.
    fn is_finite(self) -> bool;
    /// As `f64`.
    fn wide(self) -> f64;
}

impl Finite for f32 {
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
    fn wide(self) -> f64 {
        self as f64
    }
}

impl Finite for f64 {
    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }
    fn wide(self) -> f64 {
        self
    }
}

fn length(what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Length { what, found, expected }) }
}

impl<L: Label, T: Finite> Batch<'_, L, T> {
    /// Checks every length and label, before any work; prototypes and bias are those of the classes in `range`. Returns the
    /// labels as numbers.
    pub(crate) fn check_range(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        range: &std::ops::Range<usize>,
    ) -> Result<Vec<i64>> {
        let rows = self.check_rows(shape)?;
        length("embeddings", self.embeddings.len(), rows * shape.dim())?;
        let prototypes = shape.prototypes()? / shape.classes() * range.len();
        length("prototypes", self.prototypes.len(), prototypes)?;
        self.check_rest(loss, shape, range)
    }

    fn check_rows(&self, shape: Shape) -> Result<usize> {
        let (found, allowed) = (self.labels.len(), shape.rows());
        if found > allowed { Err(Error::Rows { found, allowed }) } else { Ok(found) }
    }

    /// Everything but embeddings and prototypes.
    pub(crate) fn check_rest(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        range: &std::ops::Range<usize>,
    ) -> Result<Vec<i64>> {
        let rows = self.check_rows(shape)?;
        if let Some(weights) = self.class_weights {
            length("class_weights", weights.len(), shape.classes())?;
            // beyond, sums of weights and gradients divided by them leave f32
            let bad = weights
                .iter()
                .find(|w| !(w.wide() == 0.0 || (LEAST_WEIGHT..=MOST_WEIGHT).contains(&(w.wide() as f32))));
            if let Some(found) = bad.map(|w| w.wide()) {
                return Err(Error::Parameter { what: "class_weights", found, allowed: "0, or 1e-30 <= w <= 1e24" });
            }
        }
        if let Some(upstream) = self.upstream {
            let per_row = loss.reduction == crate::Reduction::None;
            length("upstream", upstream.len(), if per_row { rows } else { 1 })?;
            if let Some(found) = upstream.iter().find(|u| !u.is_finite()).map(|u| u.wide()) {
                return Err(Error::Parameter { what: "upstream", found, allowed: "finite numbers" });
            }
        }
        if let Some(bias) = self.bias {
            length("bias", bias.len(), range.len())?;
            if loss.product != Product::Linear {
                return Err(Error::Combination { what: "bias", why: "only a linear head adds one" });
            }
            if let Some(found) = bias.iter().find(|b| !b.is_finite()).map(|b| b.wide()) {
                return Err(Error::Parameter { what: "bias", found, allowed: "finite numbers" });
            }
        }
        for (what, margins, expected) in
            [("class_margins", &self.class_margins, shape.classes()), ("row_margins", &self.row_margins, rows)]
        {
            for m in margins.each().into_iter().flatten() {
                length(what, m.len(), expected)?;
            }
        }
        let number = |(row, label): (usize, &L)| {
            let (label, classes) = (label.number(), shape.classes());
            let known = Some(label) == loss.ignore_index.map(i128::from) || (0..classes as i128).contains(&label);
            // both fit: an index is below 2^31, an ignore index an i32
            if known { Ok(label as i64) } else { Err(Error::Label { row, label, classes }) }
        };
        let labels = self.labels.iter().enumerate().map(number).collect::<Result<Vec<_>>>()?;
        self.margins(loss, &labels)?;
        Ok(labels)
    }

    /// m0..m3 of every row where the batch brings any: the row's, else its class', else the loss' own. Those of an
    /// ignored row are the loss' own.
    pub(crate) fn margins(&self, loss: &MarginSoftmax, labels: &[i64]) -> Result<Option<Vec<[f64; 4]>>> {
        if !self.class_margins.any() && !self.row_margins.any() {
            return Ok(None);
        }
        let refuse = |why| Err(Error::Combination { what: "margins of classes and rows", why });
        let Target::Unified(margin) = &loss.target else {
            return refuse("only a unified target has m0..m3");
        };
        let (by_class, by_row) = (self.class_margins.each(), self.row_margins.each());
        let differs = |k: usize| by_class[k].is_some() || by_row[k].is_some();
        if loss.product == Product::Linear && (differs(1) || differs(2)) {
            return refuse("a linear head has no angles: m0 and m3 only");
        }
        if let Curve::Series(series) = &margin.curve {
            match series.coefficients {
                Coefficients::Given(_) if differs(1) || differs(2) => {
                    return refuse("given series coefficients cannot follow m1 and m2");
                }
                Coefficients::Fit if differs(1) => return refuse("fitted series coefficients cannot follow m1"),
                _ => {}
            }
        }
        let of = |(row, &label): (usize, &i64)| {
            let mut m = margin.margins();
            if Some(label) != loss.ignore_index {
                for (k, m) in m.iter_mut().enumerate() {
                    let own = by_row[k].map(|r| r[row]).or(by_class[k].map(|c| c[label as usize]));
                    *m = own.map_or(*m, Finite::wide);
                }
                m[2] = unrounded(m[2]);
                let largest = match loss.adaptive {
                    Adaptive::AdaFace(AdaFace { margin, .. }) => margin,
                    Adaptive::MagFace(MagFace { upper_margin, .. }) => upper_margin,
                    _ => m[2],
                };
                margin.with_margins([m[0], m[1], largest, m[3]]).validate_row()?;
            }
            Ok(m)
        };
        labels.iter().enumerate().map(of).collect::<Result<_>>().map(Some)
    }
}

/// m2 as it was before it became an f32: a multiple of π/12 where it is the f32 nearest to one, so that thresholds at exact
/// multiples stay exact.
fn unrounded(m2: f64) -> f64 {
    let whole = (m2 * 12.0 / PI).round() / 12.0 * PI;
    if f64::from(whole as f32) == m2 { whole } else { m2 }
}

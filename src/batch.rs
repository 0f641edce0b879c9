//! What goes into a head over slices and what comes out of it.

use crate::{Error, Result, Shape, objective::MarginSoftmax};

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
    /// W, \[C, D\].
    pub prototypes: &'a [T],
    /// y, \[N\]: 0 ≤ y < C, or the ignore index.
    pub labels: &'a [L],
    /// w, \[C\]: a factor on each class' loss as in `torch.nn.functional.cross_entropy`, finite and ≥ 0; 1 if absent.
    pub class_weights: Option<&'a [T]>,
    /// The gradient that arrives from above: \[N\] with `Reduction::None`, else one value; 1 if absent.
    pub upstream: Option<&'a [T]>,
}

impl<L, T> Default for Batch<'_, L, T> {
    fn default() -> Self {
        Self { embeddings: &[], prototypes: &[], labels: &[], class_weights: None, upstream: None }
    }
}

/// Which gradients to compute. Work that nobody asked for is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Want {
    /// dL/dX.
    pub grad_embeddings: bool,
    /// dL/dW.
    pub grad_prototypes: bool,
}

impl Want {
    /// The loss only.
    pub const LOSS: Self = Self { grad_embeddings: false, grad_prototypes: false };
    /// The loss and dL/dX.
    pub const EMBEDDINGS: Self = Self { grad_embeddings: true, grad_prototypes: false };
    /// The loss and dL/dW.
    pub const PROTOTYPES: Self = Self { grad_embeddings: false, grad_prototypes: true };
    /// The loss and both gradients.
    pub const ALL: Self = Self { grad_embeddings: true, grad_prototypes: true };

    /// Whether a backward pass is needed at all.
    pub fn any(self) -> bool {
        self.grad_embeddings || self.grad_prototypes
    }
}

impl Default for Want {
    fn default() -> Self {
        Self::ALL
    }
}

/// The result of one batch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output<T = f32> {
    /// The reduced loss; with `Reduction::None` the sum of `row_losses`.
    pub loss: T,
    /// \[N\]: class weights included, 0 for an ignored row, not divided by Z.
    pub row_losses: Vec<T>,
    /// \[N\]: the raw cosine of the labelled class, without margin or scale; 0 for a row that is left out.
    pub target_cosines: Vec<T>,
    /// \[N\]: the largest raw cosine among the other classes; −1 where there is none.
    pub other_cosines: Vec<T>,
    /// \[N, D\], empty if not wanted.
    pub grad_embeddings: Vec<T>,
    /// \[C, D\], empty if not wanted.
    pub grad_prototypes: Vec<T>,
    /// What was left out, and why.
    pub counts: Counts,
}

/// What a batch left out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows that count: neither ignored nor non-finite nor with an invalid label.
    pub rows: usize,
    /// Rows with the ignore index.
    pub ignored: usize,
    /// Rows with a NaN or infinite value that are not ignored: their loss and the reduced loss are NaN, their
    /// gradient 0.
    pub non_finite_rows: usize,
    /// Rows whose label names no class, seen on a device only; treated like a non-finite row.
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

impl<L: Label, T: Finite> Batch<'_, L, T> {
    /// Checks every length and label, before any work. Returns the labels as numbers.
    pub(crate) fn check(&self, loss: &MarginSoftmax, shape: Shape) -> Result<Vec<i64>> {
        let rows = self.labels.len();
        if rows > shape.rows() {
            return Err(Error::Rows { found: rows, allowed: shape.rows() });
        }
        let length = |what, found, expected| {
            if found == expected { Ok(()) } else { Err(Error::Length { what, found, expected }) }
        };
        length("embeddings", self.embeddings.len(), rows * shape.dim())?;
        length("prototypes", self.prototypes.len(), shape.prototypes()?)?;
        if let Some(weights) = self.class_weights {
            length("class_weights", weights.len(), shape.classes())?;
            let bad = weights.iter().find(|w| !(w.is_finite() && w.wide() >= 0.0));
            if let Some(found) = bad.map(|w| w.wide()) {
                return Err(Error::Parameter { what: "class_weights", found, allowed: "finite numbers >= 0" });
            }
        }
        if let Some(upstream) = self.upstream {
            let per_row = loss.reduction == crate::Reduction::None;
            length("upstream", upstream.len(), if per_row { rows } else { 1 })?;
            if let Some(found) = upstream.iter().find(|u| !u.is_finite()).map(|u| u.wide()) {
                return Err(Error::Parameter { what: "upstream", found, allowed: "finite numbers" });
            }
        }
        let number = |(row, label): (usize, &L)| {
            let (label, classes) = (label.number(), shape.classes());
            let known = Some(label) == loss.ignore_index.map(i128::from) || (0..classes as i128).contains(&label);
            // both fit: an index is below 2^31, an ignore index an i32
            if known { Ok(label as i64) } else { Err(Error::Label { row, label, classes }) }
        };
        self.labels.iter().enumerate().map(number).collect()
    }
}

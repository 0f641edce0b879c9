//! UncheckedShape of a head, checked once: the only place that knows about index overflow.

use crate::{Error, Result};

/// The sizes of a head: how many rows a batch may have, how many classes there are, how long a vector is.
///
/// A batch may hold fewer rows than `rows`. `rows` may be 0; `classes` and `dim` must be at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "UncheckedShape"))]
pub struct Shape {
    rows: usize,
    classes: usize,
    dim: usize,
    sub_centers: usize,
}

/// A shape as read from a file, before its checks.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedShape {
    rows: usize,
    classes: usize,
    dim: usize,
    #[serde(default = "one")]
    sub_centers: usize,
}

#[cfg(feature = "serde")]
fn one() -> usize {
    1
}

#[cfg(feature = "serde")]
impl TryFrom<UncheckedShape> for Shape {
    type Error = Error;

    fn try_from(UncheckedShape { rows, classes, dim, sub_centers }: UncheckedShape) -> Result<Self> {
        Self::new(rows, classes, dim)?.with_sub_centers(sub_centers)
    }
}

/// Shaders index with `u32`; one bit is kept free so that an index past the end of a tile cannot wrap.
pub(crate) const INDEX_END: u64 = 1 << 31;

impl Shape {
    /// Checks the sizes: each below 2³¹, `rows · dim` below 2³¹ elements.
    pub fn new(rows: usize, classes: usize, dim: usize) -> Result<Self> {
        for (what, size) in [("classes", classes), ("dim", dim)] {
            if size == 0 {
                return Err(Error::Zero { what });
            }
        }
        for (what, size) in [("rows", rows), ("classes", classes), ("dim", dim)] {
            below(what, size as u64)?;
        }
        below("rows · dim", elements(rows, dim))?;
        Ok(Self { rows, classes, dim, sub_centers: 1 })
    }

    /// With K ≥ 1 prototypes per class; default 1. The cosine of a class is the largest of its K, and only that prototype
    /// gets a gradient. `classes · K` below 2³¹; on a GPU K up to 256 and K · dim up to 2²⁰.
    pub fn with_sub_centers(mut self, sub_centers: usize) -> Result<Self> {
        if sub_centers == 0 {
            return Err(Error::Zero { what: "sub_centers" });
        }
        below("classes · sub_centers", elements(self.classes, sub_centers))?;
        self.sub_centers = sub_centers;
        Ok(self)
    }

    /// The most rows of a batch, N.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of classes, C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Prototypes of a class, K.
    pub fn sub_centers(&self) -> usize {
        self.sub_centers
    }

    /// Prototypes of all classes, C·K.
    pub fn vectors(&self) -> usize {
        self.classes * self.sub_centers
    }

    /// The length of a vector, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Elements of the embeddings, N·D.
    pub fn embeddings(&self) -> usize {
        self.rows * self.dim
    }

    /// Elements of the prototypes, C·K·D; may exceed what one buffer can hold.
    pub fn prototypes(&self) -> Result<usize> {
        let count = elements(self.vectors(), self.dim);
        usize::try_from(count).ok().filter(|&n| n <= isize::MAX as usize / 8).ok_or(Error::Size {
            what: "classes · dim",
            needed: count,
            allowed: isize::MAX as u64 / 8,
        })
    }
}

/// `a · b` without overflow.
pub(crate) fn elements(a: usize, b: usize) -> u64 {
    (a as u64).saturating_mul(b as u64)
}

/// Refuses a length other than the one that is needed.
pub(crate) fn check_length(what: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Length { what, found, expected }) }
}

fn below(what: &'static str, needed: u64) -> Result<()> {
    if needed >= INDEX_END { Err(Error::Size { what, needed, allowed: INDEX_END - 1 }) } else { Ok(()) }
}

//! Sizes of a head, checked once: the only place that knows about index overflow.

use crate::{Error, Result};

/// The sizes of a head: how many rows a batch may have, how many classes there are, how long a vector is.
///
/// A batch may hold fewer rows than `rows`. `rows` may be 0; `classes` and `dim` must be at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Sizes"))]
pub struct Shape {
    rows: usize,
    classes: usize,
    dim: usize,
}

/// A shape as it stands in a file, not checked yet.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    rows: usize,
    classes: usize,
    dim: usize,
}

#[cfg(feature = "serde")]
impl TryFrom<Sizes> for Shape {
    type Error = Error;

    fn try_from(Sizes { rows, classes, dim }: Sizes) -> Result<Self> {
        Self::new(rows, classes, dim)
    }
}

/// Shaders index with `u32`; one bit is kept free so that an index past the end of a tile cannot wrap.
pub(crate) const MOST: u64 = 1 << 31;

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
        Ok(Self { rows, classes, dim })
    }

    /// The most rows of a batch, N.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of classes, C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The length of a vector, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Elements of the embeddings, N·D.
    pub fn embeddings(&self) -> usize {
        self.rows * self.dim
    }

    /// Elements of the prototypes, C·D; may exceed what one buffer can hold.
    pub fn prototypes(&self) -> Result<usize> {
        let count = elements(self.classes, self.dim);
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

fn below(what: &'static str, needed: u64) -> Result<()> {
    if needed >= MOST { Err(Error::Size { what, needed, allowed: MOST - 1 }) } else { Ok(()) }
}

//! Elements of tensors, and how vectors of them are read.

use super::{Limits, Loader};
use crate::{Error, Result};

/// The type of one value of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Element {
    /// 32-bit float.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Labels.
    I32,
    /// Raw words.
    U32,
}

impl Element {
    /// Bytes of one value.
    pub fn bytes(self) -> u64 {
        match self {
            Element::F16 | Element::Bf16 => 2,
            _ => 4,
        }
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::Bf16 => "bf16",
            Element::I32 => "i32",
            Element::U32 => "u32",
        }
    }

    /// How vectors of this element and width are read.
    pub(crate) fn loader(self, what: &'static str, width: usize, limits: &Limits) -> Result<Loader> {
        let quads = width.is_multiple_of(4);
        Ok(match (self, quads) {
            (Element::F32, _) => Loader::plain(width),
            (Element::F16, true) if limits.f16 => Loader::Halfx4,
            (Element::F16, false) if limits.f16 => Loader::Half,
            (Element::F16, true) => Loader::F16x4,
            (Element::F16, false) => Loader::F16,
            (Element::Bf16, true) => Loader::Bf16x4,
            (Element::Bf16, false) => Loader::Bf16,
            _ => return Err(Error::Element { what, found: self.name(), expected: "f32, f16 or bf16" }),
        })
    }
}

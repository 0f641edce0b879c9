//! How a head is to be computed: what to compute, in how much memory, with which tile.

use crate::{GradientFilter, Want};

/// Options of a head; every field has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Which gradients to compute; default both.
    pub want: Want,
    /// The most bytes of workspace; default 256 MiB.
    pub budget: Budget,
    /// The matrix tile of the GPU path; default: chosen from the adapter and the shape.
    pub tile: Option<Tile>,
    /// Leaves small entries of the gradient out; default none: exact gradients.
    pub filter: Option<GradientFilter>,
}

/// The most bytes that a head may hold beside the inputs, the outputs and the staging copies of slices.
///
/// A large budget keeps all N·C cosines between the forward and the backward pass; a smaller one works in chunks of
/// classes and computes the cosines twice, about a quarter more time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Budget(u64);

impl Budget {
    /// A budget in bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A budget in mebibytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::mib(256)
    }
}

/// How a workgroup multiplies matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Tile {
    /// 32×32 outputs, operands straight from the buffers: compiles fast, the choice for small shapes and software
    /// adapters in a browser.
    Direct,
    /// 64×64 outputs over workgroup memory: the portable default.
    Tile64,
}

impl Tile {
    /// All of them.
    pub const ALL: &[Tile] = &[Tile::Direct, Tile::Tile64];

    /// The name of the shader file.
    pub fn name(self) -> &'static str {
        match self {
            Tile::Direct => "direct",
            Tile::Tile64 => "tile_64",
        }
    }
}

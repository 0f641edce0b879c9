//! The matrix tiles: what a planner must know of each, once.

use super::{Limits, limits::need};
use crate::{Result, Tile};

/// The outputs and the needs of a workgroup of a tile.
#[derive(Debug, Clone, Copy)]
pub struct TileGeometry {
    /// The shader.
    pub(super) text: &'static str,
    /// Rows of its outputs.
    pub rows: u32,
    /// Columns of its outputs.
    pub columns: u32,
    /// Invocations.
    pub lanes: u32,
    /// Bytes of workgroup memory.
    pub bytes: u32,
}

macro_rules! shader {
    ($($name:literal),+) => {
        concat!($(include_str!(concat!("../../shaders/tile/", $name, ".wgsl"))),+)
    };
}

impl Tile {
    /// Sizes of a workgroup.
    // the one place that knows all tiles: a new one is a line here, a variant and a name
    pub const fn geometry(self) -> TileGeometry {
        match self {
            Tile::Direct => {
                TileGeometry { text: shader!("registers", "direct"), rows: 32, columns: 32, lanes: 64, bytes: 0 }
            }
            Tile::Direct64 => {
                TileGeometry { text: shader!("registers", "direct_64"), rows: 64, columns: 64, lanes: 32, bytes: 0 }
            }
            Tile::Tile32 => TileGeometry {
                text: shader!("tile_32", "workgroup", "sums_4x8", "steps_2"),
                rows: 32,
                columns: 64,
                lanes: 64,
                bytes: 6 << 10,
            },
            Tile::Tile64 => TileGeometry {
                text: shader!("tile_64", "workgroup", "sums_8x8", "steps_4", "steps_16"),
                rows: 64,
                columns: 64,
                lanes: 64,
                bytes: 8 << 10,
            },
            Tile::Tile64Short => TileGeometry {
                text: shader!("tile_64", "workgroup", "sums_8x8", "steps_4", "steps_8"),
                ..Tile::Tile64.geometry()
            },
            Tile::Tile128 => TileGeometry {
                text: shader!("tile_128", "workgroup", "sums_16x8", "steps_4", "steps_16"),
                rows: 128,
                columns: 128,
                lanes: 128,
                bytes: 16 << 10,
            },
        }
    }

    pub(super) fn text(self) -> &'static str {
        self.geometry().text
    }

    /// Rows of outputs of a workgroup.
    pub(crate) fn rows(self) -> u32 {
        self.geometry().rows
    }

    /// Columns of outputs of a workgroup.
    pub(crate) fn columns(self) -> u32 {
        self.geometry().columns
    }

    /// Whether a device can run it: [`Error::Limit`](crate::Error::Limit) names what is missing.
    pub(crate) fn check(self, limits: &Limits) -> Result<()> {
        self.check_beside(limits, 0)
    }

    /// The same for a kernel that keeps this many bytes of workgroup memory per invocation beside the tile's.
    pub(super) fn check_beside(self, limits: &Limits, per_lane: u32) -> Result<()> {
        let TileGeometry { lanes, bytes, .. } = self.geometry();
        let bytes = bytes + lanes * per_lane;
        need(self.name(), "max_compute_invocations_per_workgroup", lanes, limits.invocations)?;
        need(self.name(), "max_compute_workgroup_size_x", lanes, limits.size_x)?;
        need(self.name(), "max_compute_workgroup_storage_size", bytes, limits.workgroup_bytes)
    }
}

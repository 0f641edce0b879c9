//! The matrix tiles: what a planner must know of each, once.

use super::{Limits, MatrixUnits, limits::need};
use crate::{Error, Result, Tile};

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
    /// The matrix units that it is made for.
    pub units: Option<MatrixUnits>,
    /// Whether those multiply one f16 for each value, which has eleven bits.
    pub single: bool,
}

macro_rules! shader {
    ($($name:literal),+) => {
        concat!($(include_str!(concat!("../../shaders/tile/", $name, ".wgsl"))),+)
    };
}

impl TileGeometry {
    const fn new(text: &'static str, [rows, columns]: [u32; 2], lanes: u32, bytes: u32) -> Self {
        Self { text, rows, columns, lanes, bytes, units: None, single: false }
    }

    /// Whether matrix units form its products, with the precision of f32.
    pub(crate) const fn has_precise_units(&self) -> bool {
        self.units.is_some() && !self.single
    }

    /// A tile of `count` by `count` matrices, with so many arrays of f16: two for each operand, or one.
    #[cfg(feature = "cooperative_matrix")]
    const fn of_units(size: u32, lanes: u32, count: u32, arrays: u32, text: &'static str) -> Self {
        let side = count * size;
        // lines of 24; a strip of outputs; the largest values and the power of each line
        let bytes = arrays * side * 24 * 2 + size * side * 4 + 2 * (4 * lanes + side) * 4;
        Self {
            units: Some(MatrixUnits { size, lanes }),
            single: arrays == 2,
            ..Self::new(text, [side, side], lanes, bytes)
        }
    }
}

impl Tile {
    /// Sizes of a workgroup.
    // the one place that knows all tiles: a new one is a line here, a variant and a name
    pub const fn geometry(self) -> TileGeometry {
        match self {
            Tile::Direct => TileGeometry::new(shader!("registers", "direct"), [32, 32], 64, 0),
            Tile::Direct64 => TileGeometry::new(shader!("registers", "direct_64"), [64, 64], 32, 0),
            Tile::Tile32 => {
                TileGeometry::new(shader!("tile_32", "workgroup", "sums_4x8", "steps_2"), [32, 64], 64, 6 << 10)
            }
            Tile::Tile64 => TileGeometry::new(
                shader!("tile_64", "workgroup", "sums_8x8", "steps_4", "steps_16"),
                [64, 64],
                64,
                8 << 10,
            ),
            Tile::Tile64Short => TileGeometry {
                text: shader!("tile_64", "workgroup", "sums_8x8", "steps_4", "steps_8"),
                ..Tile::Tile64.geometry()
            },
            Tile::Tile128 => TileGeometry::new(
                shader!("tile_128", "workgroup", "sums_16x8", "steps_4", "steps_16"),
                [128, 128],
                128,
                16 << 10,
            ),
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop8 => {
                TileGeometry::of_units(8, 8, 2, 4, shader!("tile_coop_8", "halves_x4", "matrix_units", "units_2x2"))
            }
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop8Wide => {
                TileGeometry::of_units(8, 32, 4, 4, shader!("tile_coop_8_wide", "halves", "matrix_units", "units_4x4"))
            }
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop16 => {
                TileGeometry::of_units(16, 32, 4, 4, shader!("tile_coop_16", "halves_x4", "matrix_units", "units_4x4"))
            }
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop16Wide => TileGeometry::of_units(
                16,
                64,
                4,
                4,
                shader!("tile_coop_16_wide", "halves_x4", "matrix_units", "units_4x4"),
            ),
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop8Half => {
                TileGeometry::of_units(8, 8, 2, 2, shader!("tile_coop_8", "half_x4", "matrix_units", "units_2x2"))
            }
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop8WideHalf => {
                TileGeometry::of_units(8, 32, 4, 2, shader!("tile_coop_8_wide", "half", "matrix_units", "units_4x4"))
            }
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop16Half => {
                TileGeometry::of_units(16, 32, 4, 2, shader!("tile_coop_16", "half_x4", "matrix_units", "units_4x4"))
            }
            #[cfg(feature = "cooperative_matrix")]
            Tile::TileCoop16WideHalf => TileGeometry::of_units(
                16,
                64,
                4,
                2,
                shader!("tile_coop_16_wide", "half_x4", "matrix_units", "units_4x4"),
            ),
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

    /// Whether a device can run it: [`Error::Limit`] names what is missing, [`Error::Missing`] matrix units.
    pub fn check(self, limits: &Limits) -> Result<()> {
        self.check_beside(limits, 0)
    }

    /// The same for a kernel that keeps this many bytes of workgroup memory per invocation beside the tile's.
    pub(super) fn check_beside(self, limits: &Limits, per_lane: u32) -> Result<()> {
        let TileGeometry { lanes, bytes, units, .. } = self.geometry();
        if units.is_some() && units != limits.matrix_units {
            let why = "this tile needs those of its size, which `gpu::Context::check_matrix_units` finds and tries";
            return Err(Error::Missing { what: "matrix_units", why });
        }
        let bytes = bytes + lanes * per_lane;
        need(self.name(), "max_compute_invocations_per_workgroup", lanes, limits.invocations)?;
        need(self.name(), "max_compute_workgroup_size_x", lanes, limits.size_x)?;
        need(self.name(), "max_compute_workgroup_storage_size", bytes, limits.workgroup_bytes)
    }
}

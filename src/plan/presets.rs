//! The numbers of a schedule for each preset, in one table.

use std::str::FromStr;

use super::Limits;
use crate::{Error, Result, Tile, data::DevicePreset};

/// The numbers of a preset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// The tile of large products.
    pub tile: Tile,
    /// A product with fewer rows or columns than this takes a smaller tile.
    pub side: usize,
    /// That tile.
    pub small: Tile,
    /// Workgroups that grad_embeddings should have: its sum over the classes is split until there are as many.
    pub groups: u64,
    /// Workgroups that row_stats should have: a row's classes are split into slots until there are as many.
    pub row_groups: u64,
    /// Bytes of cosines that are computed twice: they should stay in a cache between the kernels that pass them on.
    pub cached: u64,
}

impl DevicePreset {
    /// The whole table.
    const fn tuning(self) -> Tuning {
        let portable = Tuning {
            tile: Tile::Tile64,
            side: 33,
            small: Tile::Direct,
            groups: 512,
            row_groups: 4096,
            cached: 32 << 20,
        };
        match self {
            DevicePreset::Auto | DevicePreset::Portable => portable,
            DevicePreset::Desktop => {
                Tuning { tile: Tile::Tile128, side: 65, small: Tile::Tile64, groups: 1024, ..portable }
            }
            // few workgroups are enough for the cores of a host, and each is dear
            DevicePreset::Software => Tuning { tile: Tile::Direct64, groups: 64, row_groups: 64, ..portable },
        }
    }

    /// The tile of a product of this many rows and columns.
    #[cfg(feature = "gpu")]
    pub(crate) fn tile(self, rows: usize, columns: usize, limits: &Limits) -> Tile {
        self.resolve(limits).tile(rows, columns, limits)
    }

    /// Its numbers on this device.
    pub(crate) fn resolve(self, limits: &Limits) -> Tuning {
        match self {
            DevicePreset::Auto if limits.software => DevicePreset::Software.tuning(),
            preset => preset.tuning(),
        }
    }
}

impl Tuning {
    /// The tile of a product of this many rows and columns: the largest of the preset that suits it and that the device
    /// can run.
    pub fn tile(&self, rows: usize, columns: usize, limits: &Limits) -> Tile {
        let small = rows.min(columns) < self.side;
        let wanted = if small { self.small } else { self.tile };
        [wanted, self.small].into_iter().find(|tile| tile.check(limits).is_ok()).unwrap_or(Tile::Direct)
    }
}

impl FromStr for DevicePreset {
    type Err = Error;

    /// By its [`name`](DevicePreset::name); [`Error::Name`] lists those there are.
    fn from_str(text: &str) -> Result<Self> {
        known("preset", text, DevicePreset::ALL, DevicePreset::name)
    }
}

impl FromStr for Tile {
    type Err = Error;

    /// By its [`name`](Tile::name); [`Error::Name`] lists those there are.
    fn from_str(text: &str) -> Result<Self> {
        known("tile", text, Tile::ALL, Tile::name)
    }
}

fn known<T: Copy>(what: &'static str, text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T> {
    all.iter().copied().find(|&one| name(one) == text).ok_or_else(|| {
        let known = all.iter().map(|&one| name(one)).collect::<Vec<_>>().join(", ");
        Error::Name { what, found: text.into(), known }
    })
}

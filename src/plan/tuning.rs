//! The numbers of a schedule for each preset, in one table.

use std::str::FromStr;

use super::{Limits, Vendor, cost::CostModel};
use crate::{Error, Result, Tile, data::DevicePreset};

/// The numbers of a preset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// The tile of large products.
    pub tile: Tile,
    /// A larger one, where it gives enough workgroups.
    pub large: Option<Tile>,
    /// The maker whose matrix units form large products, where the device has some that were tried.
    pub units: Option<Vendor>,
    /// Workgroups that dX should have: its sum over the classes is split until there are as many.
    pub groups: u64,
    /// Workgroups that row_stats should have: a row's classes are split into slots until there are as many.
    pub row_groups: u64,
    /// Decides between few chunks of cosines and chunks that stay in the cache, where cosines are computed twice.
    pub model: CostModel,
}

/// A product with fewer rows or columns than this takes `direct`, whose tiles of 32 waste less on its edges.
const SMALL_SIDE: usize = 33;

/// A tile is large enough for a GPU that has four workgroups for each of 128 cores.
const ENOUGH_GROUPS: u64 = 512;

impl DevicePreset {
    /// The whole table; `benches/README.md` has the instruction counts behind it.
    const fn tuning(self) -> Tuning {
        // every compiler that was asked keeps the sums of tile_32 in registers
        let portable =
            Tuning { tile: Tile::Tile32, large: None, units: None, groups: 512, row_groups: 4096, model: self.model() };
        match self {
            DevicePreset::Auto | DevicePreset::Portable => portable,
            // 255 registers: 82 to 92 % of what NVIDIA and AMD issue in tile_64 are products, 88 to 96 % in tile_128. Splits of
            // dX until each of 132 cores has eight workgroups
            DevicePreset::Desktop => {
                // by the count, NVIDIA's matrix units take a third of the clocks; AMD's, three products for one, take as long
                let units = Some(Vendor::Nvidia);
                Tuning { tile: Tile::Tile64, large: Some(Tile::Tile128), units, groups: 1024, ..portable }
            }
            // 128 registers of 8 lanes: anything larger spills a hundred of them and more
            DevicePreset::Intel => portable,
            // 256 half registers hold tile_64, and its loop fits 12 KiB of instructions through Metal
            DevicePreset::Apple => Tuning { tile: Tile::Tile64, ..portable },
            // few waves at a time, and small caches of instructions
            DevicePreset::Mobile => Tuning { tile: Tile::Tile64Short, groups: 128, row_groups: 1024, ..portable },
            // few workgroups are enough for the cores of a host, and each is dear
            DevicePreset::Software => Tuning { tile: Tile::Direct64, groups: 64, row_groups: 64, ..portable },
        }
    }

    /// Public numbers of such devices, rounded; none was measured here but those of the software drivers.
    const fn model(self) -> CostModel {
        match self {
            // a browser's dispatch takes 24 to 71 µs (arXiv:2604.02344); GPUs of 2 to 3 TFLOP/s with 16 to 32 cores; memory
            // between that of a host (100) and of a board (300 and more); 8 MiB of cache
            DevicePreset::Auto | DevicePreset::Portable => {
                CostModel { launch: 24.0, core: 100.0, bandwidth: 200.0, cached: 4 << 20 }
            }
            // a barrier, and a kernel that starts: 3 to 5 µs. 0.6 TFLOP/s a core at 60 to 80 %; an RTX 4070 has 504 GB/s and
            // 36 MiB, a 7900 XTX 960 and 96, an H200 4,800 and 50
            DevicePreset::Desktop => CostModel { launch: 5.0, core: 400.0, bandwidth: 1000.0, cached: 16 << 20 },
            // a Tiger Lake has 6 cores, 60 to 70 GB/s and 4 MiB, beside the host's 12; an A770 32 cores, 560 and 16
            DevicePreset::Intel => CostModel { launch: 10.0, core: 200.0, bandwidth: 200.0, cached: 4 << 20 },
            // M1 to M3: 0.3 TFLOP/s a core at 75 %, 68 to 100 GB/s, 8 MiB for all; larger ones have more of each. Metal starts
            // a kernel more slowly than Vulkan
            DevicePreset::Apple => CostModel { launch: 10.0, core: 250.0, bandwidth: 100.0, cached: 4 << 20 },
            // an Adreno 740: 6 cores, 67 GB/s, 3 MiB of cache and 6 that all of a phone shares
            DevicePreset::Mobile => CostModel { launch: 24.0, core: 150.0, bandwidth: 60.0, cached: 2 << 20 },
            // measured: lavapipe 42 µs, 62 GFLOP/s on two cores, 4.4 GB/s. A miss is dear, a launch is not. A host's cache is
            // 32 MiB and more for all cores
            DevicePreset::Software => CostModel { launch: 40.0, core: 15.0, bandwidth: 4.0, cached: 32 << 20 },
        }
    }

    /// The tile of a product of this many rows and columns.
    #[cfg(feature = "gpu")]
    pub(crate) fn tile(self, rows: usize, columns: usize, limits: &Limits) -> Tile {
        self.resolve(limits).tile(rows, columns, limits)
    }

    /// Its numbers on this device.
    pub(crate) fn resolve(self, limits: &Limits) -> Tuning {
        let preset = match (self, limits.vendor) {
            (DevicePreset::Auto, _) if limits.software => DevicePreset::Software,
            (DevicePreset::Auto, Vendor::Amd | Vendor::Nvidia) => DevicePreset::Desktop,
            (DevicePreset::Auto, Vendor::Intel) => DevicePreset::Intel,
            (DevicePreset::Auto, Vendor::Apple) => DevicePreset::Apple,
            (DevicePreset::Auto, Vendor::Qualcomm) => DevicePreset::Mobile,
            (preset, _) => preset,
        };
        preset.tuning()
    }
}

impl Tuning {
    /// The tile of a product of this many rows and columns: the largest of the preset that suits it and that the device
    /// can run.
    pub fn tile(&self, rows: usize, columns: usize, limits: &Limits) -> Tile {
        if rows.min(columns) < SMALL_SIDE {
            return Tile::Direct;
        }
        let groups = |tile: Tile| rows.div_ceil(tile.rows() as usize) * columns.div_ceil(tile.columns() as usize);
        let large = self.large.filter(|&tile| groups(tile) as u64 >= ENOUGH_GROUPS);
        let offered = self.units == Some(limits.vendor);
        let units = Tile::ALL.iter().copied().filter(|tile| offered && tile.geometry().has_precise_units());
        let wanted = units.chain(large).chain([self.tile]);
        wanted.into_iter().find(|tile| tile.check(limits).is_ok()).unwrap_or(Tile::Direct)
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

//! An estimate of how well the three products of a head fill a GPU: the share of FMA among the instructions of a tile, times the
//! share of its cores' time in which they have enough to do. The bench `schedule` prints it.

use margin_softmax::{Tile, plan::Plan};

pub const PRODUCTS: [&str; 3] = ["cosines", "grad_embeddings", "grad_prototypes"];

/// What NVIDIA's compiler makes of a tile for sm_90, for each product in f32: the table is `benches/isa/thresholds.md`.
struct Compiled {
    tile: Tile,
    /// Waves of a workgroup.
    waves: u32,
    /// Waves that a core holds.
    resident: [u32; 3],
    /// FMA among the instructions of the loop.
    share: [f64; 3],
}

const COMPILED: [Compiled; 3] = [
    Compiled { tile: Tile::Tile32, waves: 2, resident: [20, 20, 20], share: [0.555, 0.570, 0.576] },
    Compiled { tile: Tile::Tile64, waves: 2, resident: [14, 12, 16], share: [0.837, 0.850, 0.822] },
    Compiled { tile: Tile::Tile128, waves: 4, resident: [8, 8, 8], share: [0.899, 0.905, 0.880] },
];

/// A core is busy with two waves for each of its four schedulers: a wave has 32 sums or more that do not wait for one another.
const BUSY: u32 = 8;

/// The products of a plan on a GPU of so many cores, and all three together.
pub struct Fill {
    pub groups: [u32; 3],
    /// Workgroups over those of as many full turns of all that the cores hold at once.
    pub turns: [f64; 3],
    /// Share of the peak: FMA among the instructions, times the share of time in which the cores are busy.
    pub peak: [f64; 3],
    pub all: f64,
}

/// `None` for a tile that is not in the table.
pub fn fill(plan: &Plan, cores: u32) -> Option<Fill> {
    let compiled = COMPILED.iter().find(|c| c.tile == plan.schedule().tile)?;
    let rows = plan.shape().rows() as u32;
    let groups = PRODUCTS.map(|name| {
        let step = plan.steps().find(|step| plan.kernels()[step.kernel].name == name);
        step.and_then(|step| step.grid.dispatch(rows, u16::MAX.into()).ok()?).map_or(0, |size| size.iter().product())
    });
    let over = |groups: u32, all: u32| f64::from(groups) / f64::from(all * groups.div_ceil(all).max(1));
    let turns = |i: usize| over(groups[i], cores * compiled.resident[i] / compiled.waves);
    let peak = |i: usize| {
        let waves = (groups[i].div_ceil(cores) * compiled.waves).min(compiled.resident[i]);
        compiled.share[i] * over(groups[i], cores) * f64::from(waves.min(BUSY)) / f64::from(BUSY)
    };
    let peak = [0, 1, 2].map(peak);
    // each product has the same number of FMA
    let all = 3.0 / peak.iter().map(|share| 1.0 / share).sum::<f64>();
    Some(Fill { groups, turns: [0, 1, 2].map(turns), peak, all })
}

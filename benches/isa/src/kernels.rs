//! The kernels of a head, from the library's planner: ArcFace, one prototype a class, no smoothing, both gradients.

use crate::expression::{Names, define};
use margin_softmax::{
    Budget, Error, MarginSoftmax, Options, Shape, Tile, Want,
    plan::{Element, Kernel, Layout, Limits, MatrixUnits, Plan},
};

/// Kernels that go through the matrix of cosines, and what settings decide in them. A head without smoothing has no flag set
/// in them and smooths nothing.
const SWEEPS: [(&str, &[[&str; 2]]); 2] = [
    ("row_stats", &[["return (settings.flags & flag) != 0u;", "return false;"]]),
    ("grad_cosines", &[["return (settings.flags & flag) != 0u;", "return false;"], ["settings.share > 0.0", "false"]]),
];

/// Rows, classes, dim.
const SHAPES: [[usize; 3]; 2] = [[512, 85_742, 512], [256, 5_994, 192]];

/// Elements of embeddings and prototypes.
const ELEMENTS: [Element; 3] = [Element::F32, Element::F16, Element::Bf16];

/// The limits of a GPU that is no bottleneck.
const LIMITS: Limits = Limits {
    max_buffer: 1 << 40,
    max_binding: (1 << 31) - 4,
    storage_buffers: 16,
    invocations: 1024,
    size_x: 1024,
    workgroup_bytes: 48 << 10,
    alignment: 32,
    f16: true,
    matrix_units: Some(MatrixUnits { size: 16, lanes: 64 }),
    ..Limits::WEBGPU
};

/// Slots of a product of 16×16×16 on RDNA3: 8,192 operations at 256 a clock and SIMD are 32 clocks, in which 16 instructions of
/// 64 lanes would begin.
pub const UNIT_SLOTS: u32 = 16;

/// One kernel text, of which a row of the table tells.
pub struct Entry {
    /// The kernel, the tile and the element, as far as the text depends on them.
    pub name: String,
    pub kernel: Kernel,
    /// Workgroups of its largest dispatch, for each shape.
    pub groups: [u64; 2],
}

/// Where a text was found: indices of the tile, the element and the shape, and the workgroups.
struct Place {
    tile: usize,
    element: usize,
    shape: usize,
    groups: u64,
}

impl Entry {
    /// A constant of the kernel's text, such as `TILE_DEPTH`.
    pub fn constant(&self, name: &str) -> Option<u32> {
        let mut names = Names::new();
        define(&self.kernel.source, "const ", &mut names);
        names.get(name).copied()
    }

    /// Of the waves of a workgroup, those that load an operand which has fewer blocks than there are invocations: the others
    /// jump over it.
    pub fn loading(&self, wave: u32) -> f64 {
        let blocks = ["BLOCKS_A", "BLOCKS_B"].into_iter().filter_map(|name| self.constant(name));
        let share = blocks.map(|blocks| f64::from(blocks.max(wave)) / f64::from(self.lanes()));
        share.fold(1.0, f64::min)
    }

    /// Invocations of a workgroup of a tile.
    pub fn lanes(&self) -> u32 {
        self.constant("TILE_LANES").unwrap_or(64)
    }

    /// Invocations of a workgroup of any kernel.
    pub fn workgroup(&self) -> u32 {
        let written = self.kernel.source.rsplit_once("@workgroup_size(").and_then(|(_, rest)| rest.split_once(')'));
        let written = written.map_or("", |(size, _)| size);
        let lanes = |side: u32| side * side;
        written
            .parse()
            .ok()
            .or_else(|| self.constant(written))
            .or_else(|| self.constant("SIDE").map(lanes))
            .unwrap_or(64)
    }

    /// Products that an invocation adds up in a whole step over k; `None` for a kernel that is no product.
    pub fn step(&self) -> Option<u32> {
        let products = self.constant("TILE_M")? * self.constant("TILE_N")? * self.constant("TILE_DEPTH").unwrap_or(1);
        // three products of matrices for one
        let units = |side: u32| 3 * products / (side * side * side) * UNIT_SLOTS;
        Some(self.constant("UNIT").map_or(products / self.lanes(), units))
    }

    /// A kernel that goes through the matrix of cosines as it runs for this head: what other settings would add is left out, so
    /// that the instructions of its loops are those that are executed.
    pub fn path(&self) -> Result<Option<Kernel>, String> {
        let Some((name, settled)) = SWEEPS.iter().find(|(name, _)| *name == self.kernel.name) else { return Ok(None) };
        let mut kernel = self.kernel.clone();
        for [text, value] in *settled {
            if !kernel.source.contains(text) {
                return Err(format!("{name} has no `{text}`: benches/isa must know how its settings are read now"));
            }
            kernel.source = kernel.source.replace(text, value);
        }
        Ok(Some(kernel))
    }

    /// For the names of files.
    pub fn file(&self) -> String {
        self.name.replace(' ', ".")
    }
}

fn plan(shape: [usize; 3], element: Element, tile: Tile) -> Result<Plan, Error> {
    let shape = Shape::new(shape[0], shape[1], shape[2])?;
    let shards = Plan::shards(shape, element, &LIMITS)?;
    let layout = Layout { shards: &shards, embeddings: element, prototypes: element };
    let want = Want { grad_embeddings: true, grad_prototypes: true, ..Want::default() };
    let options = Options { want, budget: Budget::mib(4096), tile: Some(tile), ..Options::default() };
    Plan::head(&MarginSoftmax::arcface(), shape, &layout, &LIMITS, &options)
}

/// The most workgroups of a dispatch of this kernel.
fn groups(plan: &Plan, kernel: usize, rows: usize) -> Result<u64, Error> {
    let mut most = 0;
    for step in plan.forward().iter().chain(plan.backward()).filter(|step| step.kernel == kernel) {
        let grid = step.grid.dispatch(rows as u32, LIMITS.max_groups)?.unwrap_or_default();
        most = most.max(grid.into_iter().map(u64::from).product());
    }
    Ok(most)
}

/// The tiles of matrix units that every compiler here could meet, or all other tiles.
fn tiles(units: bool) -> Vec<Tile> {
    let wanted = if units { LIMITS.matrix_units } else { None };
    Tile::ALL.iter().copied().filter(|tile| tile.geometry().units == wanted).collect()
}

/// The products of matrix units; or every kernel of every other tile, element and shape, each text once: products first, tile
/// by tile.
pub fn all(units: bool) -> Result<Vec<Entry>, Error> {
    let mut found: Vec<(Kernel, Vec<Place>)> = vec![];
    let tiles = tiles(units);
    for (tile, &which) in tiles.iter().enumerate() {
        for (element, &of) in ELEMENTS.iter().enumerate() {
            for (shape, &sizes) in SHAPES.iter().enumerate() {
                let plan = plan(sizes, of, which)?;
                for (index, kernel) in plan.kernels().iter().enumerate() {
                    let place = Place { tile, element, shape, groups: groups(&plan, index, sizes[0])? };
                    match found.iter_mut().find(|(known, _)| known == kernel) {
                        Some((_, places)) => places.push(place),
                        None => found.push((kernel.clone(), vec![place])),
                    }
                }
            }
        }
    }
    found.retain(|(kernel, _)| !units || kernel.source.contains("coopMultiplyAdd"));
    // stable: within a tile element by element, and what depends on neither last
    found.sort_by_key(|(_, places)| (!is_tiled(places, &tiles), places[0].tile, places[0].element));
    Ok(found.into_iter().map(|(kernel, places)| entry(kernel, &places, &tiles)).collect())
}

/// Whether each value of an index is among the places.
fn every(places: &[Place], of: fn(&Place) -> usize, count: usize) -> bool {
    (0..count).all(|one| places.iter().any(|place| of(place) == one))
}

/// Whether the text depends on the tile.
fn is_tiled(places: &[Place], tiles: &[Tile]) -> bool {
    !every(places, |place| place.tile, tiles.len()) || tiles.len() == 1
}

fn entry(kernel: Kernel, places: &[Place], tiles: &[Tile]) -> Entry {
    let mut name = kernel.name.to_owned();
    if is_tiled(places, tiles) {
        name += &format!(" {}", tiles[places[0].tile].name());
    }
    if !every(places, |place| place.element, ELEMENTS.len()) {
        name += &format!(" {}", ELEMENTS[places[0].element].name());
    }
    let groups = [0, 1].map(|shape| {
        let first = places.iter().find(|place| place.shape == shape);
        first.map_or(0, |place| place.groups)
    });
    Entry { name, kernel, groups }
}

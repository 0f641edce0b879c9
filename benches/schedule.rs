//! How a GPU's work is cut, with both sides of each choice: the tile by its instructions against the cores that it fills, and
//! the chunk that is computed twice by launches against traffic. Estimates; no device is asked.

#[path = "../tests/host/fill.rs"]
mod fill;

use comfy_table::Table;
use margin_softmax::{
    Budget, MarginSoftmax, Options, Result, Shape, Tile,
    data::DevicePreset,
    plan::{Element, Layout, Limits, Plan},
};

/// A desktop GPU's: bindings of 2 GiB.
const WIDE: Limits = Limits { max_buffer: 1 << 40, max_binding: (1 << 31) - 4, ..Limits::WEBGPU };

fn plan([n, c, d]: [usize; 3], limits: &Limits, options: &Options) -> Result<Plan> {
    let shape = Shape::new(n, c, d)?;
    let shards = Plan::shards(shape, Element::F32, limits)?;
    let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
    Plan::head(&MarginSoftmax::arcface(), shape, &layout, limits, options)
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(header);
    table
}

/// The tiles of the preset `desktop` and the next smaller one, at two shapes, on GPUs of 132, 46 and 10 cores.
fn tiles() -> Result<Table> {
    let mut rows =
        table(["shape", "cores", "tile", "workgroups", "of full turns", "of the peak", "all three", "chosen"]);
    for sizes in [[512, 85_742, 512], [256, 5_994, 192]] {
        let options = Options { preset: DevicePreset::Desktop, budget: Budget::mib(1024), ..Options::default() };
        let chosen = plan(sizes, &WIDE, &options)?.schedule().tile;
        for cores in [132, 46, 10] {
            for tile in [Tile::Tile32, Tile::Tile64, Tile::Tile128] {
                let plan = plan(sizes, &WIDE, &Options { tile: Some(tile), ..options })?;
                let Some(fill) = fill::fill(&plan, cores) else { continue };
                let shares = |shares: [f64; 3]| shares.map(|share| format!("{share:.2}")).join(" ");
                rows.add_row([
                    sizes.map(|size| size.to_string()).join("×"),
                    cores.to_string(),
                    tile.name().into(),
                    fill.groups.map(|groups| groups.to_string()).join(" "),
                    shares(fill.turns),
                    shares(fill.peak),
                    format!("{:.2}", fill.all),
                    if tile == chosen { "yes" } else { "" }.into(),
                ]);
            }
        }
    }
    Ok(rows)
}

/// Both sizes of the chunks of 1,024×1,000,000×512 at the default budget, for every preset.
fn chunks() -> Result<Table> {
    let mut rows = table([
        "limits",
        "preset",
        "chunk",
        "dispatches of all rounds",
        "of the whole step",
        "launches ms",
        "traffic ms",
        "sum ms",
        "chosen",
    ]);
    for (name, limits) in [("2 GiB a binding", WIDE), ("WebGPU's defaults", Limits::WEBGPU)] {
        for &preset in DevicePreset::ALL.iter().filter(|&&preset| preset != DevicePreset::Auto) {
            let plan = plan([1024, 1_000_000, 512], &limits, &Options { preset, ..Options::default() })?;
            for (i, cost) in plan.schedule().costs.iter().enumerate() {
                let ms = |us: u64| format!("{:.1}", us as f64 / 1e3);
                rows.add_row([
                    name.into(),
                    preset.name().into(),
                    cost.classes.to_string(),
                    cost.dispatches.to_string(),
                    if i == 0 { plan.steps().count().to_string() } else { String::new() },
                    ms(cost.launches),
                    ms(cost.traffic),
                    ms(cost.launches + cost.traffic),
                    if i == 0 { "yes" } else { "" }.into(),
                ]);
            }
        }
    }
    Ok(rows)
}

fn main() -> Result<()> {
    println!("{}\n\n{}", tiles()?, chunks()?);
    Ok(())
}

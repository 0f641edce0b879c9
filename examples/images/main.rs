//! The ArcGrad paper's measurements on images: accuracy over epochs and over shares of the training set, angles, and time.
//!
//! ```text
//! apt-get install dataset-fashion-mnist
//! cargo run --release --example images
//! cargo run --release --example images -- --images 60000 --seeds 1
//! cargo run --release --example images -- --data DIR
//! cargo run --release --example images -- --quick
//! ```
//!
//! Prints tables, writes out/images/report.html and out/images/results.json. After "ArcGrad: Angular Gradient Margin Loss for
//! Classification", whose image sets cannot be packaged: Fashion-MNIST takes the place of CIFAR, a network of one hidden
//! layer that of a convolutional one, and 20,000 of the 60,000 training images are enough for it. `--quick` needs no package
//! and takes the embedded digits, in 8 classes of 8×8 pixels.
//!
//! Table VII: accuracy after 1, 2, 5 and 10 epochs. Table VI: mean angles between prototypes and centers. Fig. 4: the test
//! images' angles over the epochs. Fig. 3: accuracy over the share of the training images. Table V: top-1 and top-5. And what
//! a training step takes beside softmax.

#[path = "../common/mod.rs"]
#[allow(dead_code)] // another example uses the rest
mod common;
mod data;
mod idx;
mod report;
mod training;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, value_parser};
use comfy_table::{CellAlignment, Table, presets};
use common::{
    Result,
    device::{Device, backend},
};
use data::Images;
use training::{Protocol, Results};

/// Trains a small network on images with the losses of the ArcGrad paper and measures what the paper measures.
#[derive(Parser)]
struct Args {
    /// The device of the heads, which are far too small for a GPU
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,

    /// The GPU whose name contains NAME, software adapters included; use it with --device gpu
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,

    /// A folder with the four IDX files, as MNIST and Fashion-MNIST name them, packed or not
    #[arg(long, value_name = "DIR", conflicts_with = "quick")]
    data: Option<PathBuf>,

    /// How many of the training images
    #[arg(long, default_value_t = 20_000, value_parser = value_parser!(u32).range(1000..), conflicts_with = "quick")]
    images: u32,

    /// The first seed: of first weights and of the order of the images
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many seeds; default 3, with --quick 1
    #[arg(long, value_parser = value_parser!(u32).range(1..=100))]
    seeds: Option<u32>,

    /// The embedded digits in the place of Fashion-MNIST, and one seed
    #[arg(long)]
    quick: bool,

    /// Where to write the monitor readings of every epoch, a JSON object a line
    #[arg(long, value_name = "FILE")]
    readings: Option<PathBuf>,

    /// Where report.html and results.json are written
    #[arg(long, default_value = "out/images", value_name = "DIR")]
    out: PathBuf,
}

fn main() -> ExitCode {
    common::exit::code(run(&Args::parse()))
}

fn run(args: &Args) -> Result {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    let backend = backend(args.device, args.adapter.as_deref())?;
    let seeds = args.seeds.unwrap_or(if args.quick { 1 } else { 3 });
    let (images, protocol) = if args.quick {
        (Images::digits()?, Protocol::quick(args.seed, seeds))
    } else {
        (Images::folder(args.data.as_deref(), args.images as usize)?, Protocol::full(args.seed, seeds))
    };
    let results = Results::measure(&backend, &images, protocol)?;
    if let Some(path) = &args.readings {
        common::readings::write(path, results.runs.iter().flatten().flat_map(|run| &run.readings))?;
    }

    for (title, header, rows) in report::tables(&results) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
        table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        println!("{title}\n{table}");
    }
    println!("{}", report::protocol(&results));
    for (name, content) in [("report.html", report::html(&results)?), ("results.json", report::json(&results))] {
        let path = args.out.join(name);
        fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

//! Learns a margin for each class, as AdaptiveFace does, on handwritten digits of which some are rare.
//!
//! ```text
//! cargo run --release --example adaptive_margins
//! cargo run --release --example adaptive_margins -- --margin angle --lambda 3
//! ```
//!
//! Prints tables, writes out/adaptive_margins/report.html and results.json. Needs no download.
//!
//! **The loss.** "AdaptiveFace: Adaptive Margin and Sampling for Face Recognition", CVPR 2019: L + λ·L_m with
//! L_m = −(1/C) Σ m_j. L is CosFace's loss with a margin m_j for each class, a parameter of the network; L_m keeps the margins from
//! falling to 0, which alone would make L smallest. The head gives dL/dm_j
//! ([`Want::with_margins`](margin_softmax::Want::with_margins)), Adam moves m_j along dL/dm_j − λ/C, and m_j stays within 0 and 1,
//! from 0.35 on. s = 30, the start and the ends are those of FaceX-Zoo's implementation (AdaM-Softmax), whose λ is 70; the
//! text of the paper with its own λ was not at hand.
//!
//! **Where a margin comes to rest.** dL/dm_j is s·share_j·P_j: share_j is that of the class in the data, P_j the mean probability that
//! its images leave to other classes, margin included. So a margin inside its ends rests at P_j = λ / (s·C·share_j), the larger the
//! rarer the class is; where that exceeds 1, as with λ > s for equal shares, it only grows. A table has both sides.
//!
//! **The data.** The proportions of the paper's toy experiment, 8 : 4 : 4 : 1 : 1 : 1 : 1 : 1, of the eight digits of the example
//! `train`; as many new images of each as there are. The network is that of `train`: 64 → 128, ReLU, → 16, in batches of 64.

#[path = "../common/mod.rs"]
#[allow(dead_code)] // other examples use the rest
mod common;
mod experiment;
mod report;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, value_parser};
use comfy_table::{CellAlignment, Table, presets};
use common::{
    Result,
    device::{Device, backend},
};
use experiment::{Kind, Plan, Results};

/// Learns a margin for each class, on digits of which some are rare.
#[derive(Parser)]
struct Args {
    /// The device of the head, which is far too small for a GPU
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,

    /// The GPU, by a part of its name
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,

    /// The margin that is learned: of the cosine (CosFace) or of the angle (ArcFace)
    #[arg(long, value_enum, default_value_t = Kind::Cosine)]
    margin: Kind,

    /// The weight of the mean margin; may be given several times
    #[arg(long, value_name = "λ", default_values_t = [0.3, 1.0, 3.0, 70.0], value_parser = experiment::lambda)]
    lambda: Vec<f64>,

    /// Times through the training images
    #[arg(long, default_value_t = 400, value_parser = value_parser!(u32).range(1..=10_000))]
    epochs: u32,

    /// Runs of each, with other first weights and another order
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1000))]
    repeats: u32,

    /// Of the first run
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// A short form: one run of each, 100 epochs, in which margins come half of the way
    #[arg(long)]
    quick: bool,

    /// Where report.html and results.json are written
    #[arg(long, default_value = "out/adaptive_margins", value_name = "DIR")]
    out: PathBuf,
}

fn main() -> ExitCode {
    common::exit::code(run(&Args::parse()))
}

fn run(args: &Args) -> Result {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    let backend = backend(args.device, args.adapter.as_deref())?;
    let plan = Plan {
        kind: args.margin,
        lambdas: args.lambda.clone(),
        epochs: if args.quick { 100 } else { args.epochs as usize },
        repeats: if args.quick { 1 } else { args.repeats as usize },
        seed: args.seed,
    };
    let results = Results::measure(&backend, plan)?;
    for (title, header, rows) in report::tables(&results) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
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

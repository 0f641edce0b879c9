//! Reruns published experiments: cross-validation on two small data sets, the same at other depths, and polar collapse.
//!
//! ```text
//! cargo run --release --example uci
//! cargo run --release --example uci -- --only table --repeats 3
//! ```
//!
//! Prints tables, writes out/uci/report.html and out/uci/results.json. Needs no download: Iris and the digits are
//! embedded, Balance Scale is made.
//!
//! **The table.** Table I of "ArcGrad: Angular Gradient Margin Loss for Classification": a three-layer ReLU network, 10 ×
//! 10-fold cross-validation. The paper gives neither width nor optimiser nor epochs. Here, the same for every loss: layers
//! of 32, 32 and 16 outputs below the head with a ReLU between them, Adam with a learning rate falling from 0.01 to 0
//! along half a cosine, batches of 32, 50 epochs, inputs standardised on the training part, stratified folds. Learning
//! rate and epochs were picked on plain softmax alone: with 1, 3 and 8 layers twice the epochs move its accuracy by less
//! than one point. Folds, first weights and order are the same for every loss. The figure is the mean over the repeats, ±
//! their standard deviation.
//!
//! **The depth sweep.** The same with 1 to 8 layers below the head, the last of 16 outputs, all others of 32. One layer
//! is a linear network.
//!
//! **Polar collapse.** "Unifying Margin-Based Softmax Losses in Face Recognition", WACV 2023: AmpFace with m0 = 0.35 and
//! s = 64 alone, with the regulariser Reg_ss and with WC-ReLU, on eight of the handwritten digits of the example `train`
//! and with its network (64 → 128, ReLU, → 16), 60 epochs in batches of 64, learning rate 0.01: ten times that of `train`, so
//! that prototypes, which only turn with it, can come far.

mod collapse;
#[path = "../common/mod.rs"]
#[allow(dead_code)] // another example uses the rest
mod common;
mod data;
mod experiments;
mod losses;
mod report;
mod validation;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum, value_parser};
use comfy_table::{CellAlignment, Table, presets};
use common::{
    Result,
    device::{Device, backend},
};
use experiments::Results;
use validation::{EPOCHS, Protocol};

/// Reruns published experiments: cross-validation on small data sets, at several depths, and polar collapse.
#[derive(Parser)]
struct Args {
    /// What computes the heads; they are far too small for a GPU
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,

    /// Parts of the cross-validation
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(2..=49))]
    folds: u32,

    /// How often it is repeated with other folds and other first weights
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(1..=1000))]
    repeats: u32,

    /// Times through the training part, in the cross-validations
    #[arg(long, default_value_t = EPOCHS as u32, value_parser = value_parser!(u32).range(1..=10_000))]
    epochs: u32,

    /// Of folds, first weights and order of the rows
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// One experiment; may be given several times, default all
    #[arg(long, value_enum, value_name = "EXPERIMENT")]
    only: Vec<Experiment>,

    /// Where report.html and results.json are written
    #[arg(long, default_value = "out/uci", value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Experiment {
    /// Every loss on Iris and Balance Scale
    Table,
    /// Some of them with 1 to 8 layers
    Depth,
    /// AmpFace on digits, alone and with its two remedies
    Collapse,
}

fn main() -> ExitCode {
    common::exit::code(run(&Args::parse()))
}

fn run(args: &Args) -> Result {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    let backend = backend(args.device, None)?;
    let [folds, repeats, epochs] = [args.folds, args.repeats, args.epochs].map(|n| n as usize);
    let protocol = Protocol { folds, repeats, epochs, seed: args.seed };
    let wanted = |experiment| args.only.is_empty() || args.only.contains(&experiment);
    let chosen = [Experiment::Table, Experiment::Depth, Experiment::Collapse].map(wanted);
    let results = Results::measure(&backend, protocol, chosen)?;

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

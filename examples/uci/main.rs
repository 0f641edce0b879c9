//! Reruns published experiments: cross-validation on small data sets, the same at other depths, ArcGrad's soft margin, and
//! polar collapse.
//!
//! ```text
//! cargo run --release --example uci
//! cargo run --release --example uci -- --quick
//! cargo run --release --example uci -- --only table --repeats 3 --folds stratified
//! cargo run --release --example uci -- --data DIR
//! ```
//!
//! Prints tables, writes out/uci/report.html and out/uci/results.json. Needs no download: six data sets and the digits are
//! embedded or made; with `--data` the sets whose UCI files are in a folder are added (examples/uci/README.md).
//!
//! **The table.** Table I of "ArcGrad: Angular Gradient Margin Loss for Classification": a three-layer ReLU network, 10 ×
//! 10-fold cross-validation with random folds. The paper gives neither width nor optimiser nor epochs. Here, the same for
//! every loss: layers of 32, 32 and 16 outputs below the head with a ReLU between them, Adam with a learning rate falling
//! from 0.01 to 0 along half a cosine, batches of 32, 50 epochs, inputs standardised on the training part. Learning rate and
//! epochs were picked on plain softmax alone: with 1, 3 and 8 layers twice the epochs move its accuracy by less than one
//! point. Folds, first weights and order are the same for every loss.
//!
//! **The depth sweep.** The same on Iris and Balance Scale with 1 to 10 layers below the head, the last of 16 outputs, all
//! others of 32, at most three repeats. One layer is a linear network.
//!
//! **The scales.** ArcGrad on all of Iris at scales from 1 to 40: the gap between the angles that its formula predicts, and
//! the one that training leads to.
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
mod scales;
mod validation;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum, value_parser};
use comfy_table::{CellAlignment, Table, presets};
use common::{
    Result,
    device::{Device, backend},
};
use experiments::{Results, Wanted};
use validation::{Dealing, EPOCHS, Protocol};

/// Reruns published experiments: cross-validation on small data sets, at several depths, ArcGrad's scales, and polar collapse.
#[derive(Parser)]
struct Args {
    /// What computes the heads; they are far too small for a GPU
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,

    /// How the rows come into the parts of a cross-validation
    #[arg(long, value_enum, default_value_t = Dealing::Random)]
    folds: Dealing,

    /// Parts of the cross-validation; default 10, with --quick 3
    #[arg(long, value_parser = value_parser!(u32).range(2..=49))]
    parts: Option<u32>,

    /// How often it is repeated with other folds and other first weights; default 10, with --quick 1
    #[arg(long, value_parser = value_parser!(u32).range(1..=1000))]
    repeats: Option<u32>,

    /// Times through the training part, but in the collapse; default 50, with --quick 15
    #[arg(long, value_parser = value_parser!(u32).range(1..=10_000))]
    epochs: Option<u32>,

    /// Of folds, first weights and order of the rows
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// One experiment; may be given several times, default all
    #[arg(long, value_enum, value_name = "EXPERIMENT")]
    only: Vec<Experiment>,

    /// A folder with files of other data sets of the paper, as UCI names them
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Three parts once instead of ten times ten, and fewer epochs
    #[arg(long)]
    quick: bool,

    /// Where report.html and results.json are written
    #[arg(long, default_value = "out/uci", value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Experiment {
    /// Every loss on every data set
    Table,
    /// The same with 1 to 10 layers on Iris and Balance Scale
    Depth,
    /// The gap between angles that ArcGrad's scale leads to
    Scales,
    /// AmpFace on digits, alone and with its two remedies
    Collapse,
}

fn main() -> ExitCode {
    common::exit::code(run(&Args::parse()))
}

fn run(args: &Args) -> Result {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    let mut problems = data::embedded()?;
    if let Some(path) = &args.data {
        let (more, missing) = data::folder(path)?;
        problems.extend(more);
        missing.iter().for_each(|why| eprintln!("left out: {why}"));
    }
    let backend = backend(args.device, None)?;
    let (parts, repeats, epochs) = if args.quick { (3, 1, 15) } else { (10, 10, EPOCHS as u32) };
    let protocol = Protocol {
        folds: args.parts.unwrap_or(parts) as usize,
        dealing: args.folds,
        repeats: args.repeats.unwrap_or(repeats) as usize,
        epochs: args.epochs.unwrap_or(epochs) as usize,
        seed: args.seed,
    };
    let chosen = |experiment| args.only.is_empty() || args.only.contains(&experiment);
    let wanted = Wanted {
        table: chosen(Experiment::Table),
        depth: chosen(Experiment::Depth),
        scales: chosen(Experiment::Scales),
        collapse: chosen(Experiment::Collapse),
    };
    let results = Results::measure(&backend, protocol, &problems, wanted)?;

    for (title, header, rows) in report::tables(&results) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
        // the first sheet has words only
        let words = title == "Losses";
        let columns = table.column_iter_mut().skip(1).filter(|_| !words);
        columns.for_each(|column| column.set_cell_alignment(CellAlignment::Right));
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

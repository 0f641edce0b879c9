//! Speaker verification with angular margins: the experiments of ChebyAAM on data that is at hand.
//!
//! ```text
//! cargo run --release --example speakers
//! cargo run --release --example speakers -- --quick
//! ```
//!
//! Prints tables, writes out/speakers/report.html and out/speakers/results.json. Needs no download: 98 synthetic voices and
//! nine real speakers are embedded (examples/data/README.md).
//!
//! "The Achilles' Heel of Angular Margins: A Chebyshev Polynomial Fix for Speaker Verification" (ICASSP 2026) replaces the
//! curve cos(θ + m) of AAM (ArcFace) by a Chebyshev polynomial of degree 30 and reports fewer errors on VoxCeleb, SITW and
//! CN-Celeb, none of which can be packaged. Here the same losses are trained on 60 of the voices and verify the other 38:
//! equal error rate and normalised minimum detection cost over all pairs of their utterances. `Cheby` is the library's closed
//! form of the coefficients, `Cheby fit` the least-squares fit of the authors' released code, `squash` their
//! `pos_squash_k` before the margin.
//!
//! Everything but the loss is the same in a table: features, first weights, order of the rows, and the schedule, which
//! raises the margin from 0 between 2/7 and 5/7 of the run (the authors: epochs 20 to 50 of 70). Learning rate, epochs and
//! dimension were picked on NormFace alone. A figure is the mean over the seeds, ± their standard deviation.

mod claims;
#[path = "../common/mod.rs"]
#[allow(dead_code)] // another example uses the rest
mod common;
mod experiments;
mod losses;
mod report;
mod squash;
mod tables;
mod text;
mod trial;
mod vowels;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, value_parser};
use comfy_table::{CellAlignment, Table, presets};
use common::{
    Result,
    device::{Device, backend},
};
use experiments::{Plan, Results};

/// Trains speaker verification with AAM, ChebyAAM and their variants, and verifies voices that were not trained.
#[derive(Parser)]
struct Args {
    /// The device of the heads, which are far too small for a GPU
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,

    /// A part of the GPU's name, with --device gpu
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,

    /// Fewer losses, runs and epochs: seconds in place of minutes
    #[arg(long)]
    quick: bool,

    /// Runs of every loss, 1 to 100 [default: 5, with --quick 2]
    #[arg(long, value_parser = value_parser!(u32).range(1..=100))]
    repeats: Option<u32>,

    /// Times through the trained voices, 7 to 10,000 [default: 35, with --quick 14]
    #[arg(long, value_parser = value_parser!(u32).range(7..=10_000))]
    epochs: Option<u32>,

    /// The seed of the first run; the others follow
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Where to write the monitor readings of every epoch, a JSON object a line
    #[arg(long, value_name = "FILE")]
    readings: Option<PathBuf>,

    /// Where report.html and results.json are written
    #[arg(long, default_value = "out/speakers", value_name = "DIR")]
    out: PathBuf,
}

impl Args {
    fn plan(&self) -> Plan {
        let plan = if self.quick { Plan::quick(self.seed) } else { Plan::full(self.seed) };
        Plan {
            repeats: self.repeats.map_or(plan.repeats, |repeats| repeats as usize),
            epochs: self.epochs.map_or(plan.epochs, |epochs| epochs as usize),
            ..plan
        }
    }
}

fn main() -> ExitCode {
    common::exit::code(run(&Args::parse()))
}

fn run(args: &Args) -> Result {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    if let Some(path) = &args.readings {
        common::readings::write(path, [])?;
    }
    let backend = backend(args.device, args.adapter.as_deref())?;
    let results = Results::measure(&backend, args.plan())?;

    for sheet in tables::all(&results)? {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(sheet.header).add_rows(sheet.rows);
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        println!("{}\n{table}", sheet.title);
    }
    println!("{}", tables::protocol(&results));
    if let Some(path) = &args.readings {
        common::readings::write(path, results.runs.iter().flat_map(|runs| &runs.readings))?;
        println!("{}", path.display());
    }
    for (name, content) in [("report.html", report::html(&results)?), ("results.json", tables::json(&results))] {
        let path = args.out.join(name);
        fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

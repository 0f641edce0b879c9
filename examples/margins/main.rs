//! The effect of each margin on angles and verification, beside the predictions of theory: the experiments of "Unifying Margin-Based
//! Softmax Losses in Face Recognition" (WACV 2023), on synthetic voices in the place of faces.
//!
//! ```text
//! cargo run --release --example margins
//! cargo run --release --example margins -- --sweep m2 --repeats 1
//! cargo run --release --example margins -- --quick
//! ```
//!
//! Prints tables, writes report.html and results.json to out/margins. Needs no download: the voices are embedded.
//!
//! **Sweeps** (figure 4): every margin alone, over its range. M_intra and M_inter on the utterances that were trained and on
//! others of the same voices, the equal error rate over all pairs of voices that were never trained, and the predictions:
//! the angle at which training stops, the mean angle within it, the nearest prototype, and the margin that stops training
//! half way to it, which the paper conjectures to be the best.
//!
//! **Remedies** (figure 6): an amplitude m0 below 1 alone, with UniformFace, with Reg_ss, and with WC-ReLU, at scale 64.
//!
//! **Table 2**: all families, with the margin of their own paper and with the predicted one.
//!
//! **Collapse** (figure 1): the same remedies in three dimensions, as pictures.
//!
//! **Curve**: angle factors m1 of 1.8 and more, with the cosine as it stands past 180° and with flattened curves.
//!
//! The network is 60 → 128, ReLU, → 32 values (3 for the collapse), trained with Adam in batches of 64, its rate falling
//! from 0.01 to 0 along half a cosine, 60 epochs. First weights and order are the same for every loss of a seed.

#[path = "../common/mod.rs"]
#[allow(dead_code)] // another example uses the rest
mod common;
mod data;
mod experiments;
mod globe;
mod report;
mod sections;
mod tables;
mod training;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum, value_parser};
use comfy_table::{CellAlignment, Table, presets};
use common::{
    Result,
    device::{Device, backend},
    readings,
};
use experiments::{Parts, Results};
use training::Protocol;

/// Measures what each margin does to angles and verification, beside what theory predicts.
#[derive(Parser)]
struct Args {
    /// Sweeps this margin; may be given several times
    #[arg(long, value_enum, value_name = "MARGIN")]
    sweep: Vec<Swept>,

    /// Compares the remedies of the polar collapse over m0
    #[arg(long)]
    remedies: bool,

    /// Compares all families, with published and predicted margins
    #[arg(long)]
    table2: bool,

    /// Draws the collapse in three dimensions
    #[arg(long)]
    collapse: bool,

    /// Compares fallbacks for large angle factors
    #[arg(long)]
    curve: bool,

    /// Fewer values, 20 epochs, one repeat: a look at everything in seconds
    #[arg(long)]
    quick: bool,

    /// The device of the heads, which are far too small for a GPU
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,

    /// Times through the training utterances; default 60, or 20 with --quick
    #[arg(long, value_parser = value_parser!(u32).range(1..=10_000))]
    epochs: Option<u32>,

    /// Runs with other first weights and other orders; default 3, or 1 with --quick
    #[arg(long, value_parser = value_parser!(u32).range(1..=1000))]
    repeats: Option<u32>,

    /// Of first weights and order of the rows; repeats count up from here
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Where report.html and results.json are written
    #[arg(long, default_value = "out/margins", value_name = "DIR")]
    out: PathBuf,

    /// Also writes the monitor readings of every run, as JSON lines
    #[arg(long, value_name = "FILE")]
    readings: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Swept {
    /// Amplitude (AmpFace), with WC-ReLU
    M0,
    /// Angle factor (SphereFace)
    M1,
    /// Angle margin (ArcFace)
    M2,
    /// Cosine margin (CosFace)
    M3,
}

impl Args {
    /// Everything unless something is named.
    fn parts(&self) -> Parts {
        let Self { remedies, table2, collapse, curve, .. } = *self;
        let mut sweeps: Vec<usize> = self.sweep.iter().map(|&margin| margin as usize).collect();
        sweeps.sort_unstable();
        sweeps.dedup();
        if sweeps.is_empty() && !(remedies || table2 || collapse || curve) {
            return Parts::all();
        }
        Parts { sweeps, remedies, table2, collapse, curve }
    }
}

fn main() -> ExitCode {
    common::exit::code(run(&Args::parse()))
}

fn run(args: &Args) -> Result {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    if let Some(path) = &args.readings {
        readings::write(path, [])?;
    }
    let backend = backend(args.device, None)?;
    let mut protocol = if args.quick { Protocol::quick(args.seed) } else { Protocol::full(args.seed) };
    protocol.epochs = args.epochs.map_or(protocol.epochs, |n| n as usize);
    protocol.repeats = args.repeats.map_or(protocol.repeats, |n| n as usize);
    let results = Results::measure(&backend, data::Data::load()?, protocol, &args.parts(), args.quick)?;

    for sheet in tables::all(&results)? {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(&sheet.header).add_rows(&sheet.rows);
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        println!("{}\n{table}", sheet.title);
        sheet.notes.iter().for_each(|note| println!("{note}"));
    }
    println!("{}", tables::protocol(&results));
    for (name, content) in [("report.html", report::html(&results)?), ("results.json", report::json(&results)?)] {
        let path = args.out.join(name);
        fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{}", path.display());
    }
    if let Some(path) = &args.readings {
        readings::write(path, results.readings())?;
        println!("{}", path.display());
    }
    Ok(())
}

//! Trains a small network on handwritten digits with several margin losses and compares them.
//!
//! ```text
//! cargo run --release --example train
//! cargo run --release --example train -- --device cpu --loss arcface --loss normface --epochs 20
//! cargo run --release --example train -- --loss curricularface --sub-centers 3
//! cargo run --release --example train -- --loss '{"target": {"unified": {"m2": 0.4}}, "scale": 20}'
//! cargo run --release --example train -- --loss ampface --regularizer reg_ss=10
//! cargo run --release --example train -- --loss softmax --center --loss arcface --schedule m2=0..0.3@100..500
//! ```
//!
//! Prints a table and writes out/train/report.html, and the README's picture beside it. Needs no download: the digits are embedded.

mod choice;
#[path = "../common/mod.rs"]
#[allow(dead_code)] // another example uses the rest
mod common;
mod metrics;
mod report;
mod title;
mod training;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Parser, value_parser};
use comfy_table::{CellAlignment, Table, presets};
use common::{
    Result,
    device::{Device, backend},
    digits::Digits,
    progress::Progress,
};
use margin_softmax::{CenterLoss, Regularizer, objective::Schedules};
use metrics::score;
use report::{Report, Trained};
use training::{Loss, SETTINGS, Settings};

/// Trains a small network on handwritten digits with several margin losses and compares them.
#[derive(Parser)]
struct Args {
    /// What computes the head
    #[arg(long, value_enum, default_value_t = Device::Best)]
    device: Device,

    /// The GPU whose name contains NAME, software adapters included; implies --device gpu
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,

    /// A loss to train; may be given several times, default five of them: the name of a preset (those five with margins
    /// and a scale that suit the digits), a loss as JSON, {"preset": NAME}, or a file with one of them
    #[arg(long, value_parser = choice::parse)]
    loss: Vec<Loss>,

    /// Prototypes of a class; the nearest counts
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = value_parser!(u32).range(1..=1000))]
    sub_centers: u32,

    /// A penalty on the prototypes beside every loss: reg_ss or uniform_face, with a weight as in reg_ss=10, or JSON, or a
    /// file with it
    #[arg(long, value_name = "NAME", value_parser = choice::regularizer)]
    regularizer: Option<Regularizer>,

    /// A center loss beside every loss: its weight (0.02 where none is given), or JSON, or a file with it
    #[arg(long, value_name = "WEIGHT", num_args = 0..=1, default_missing_value = "{}", value_parser = choice::center)]
    center: Option<CenterLoss>,

    /// A margin or the scale of every loss goes from one value to another between two training steps, as in
    /// m2=0..0.3@100..500 or m2=0..0.3@100..500:linear; or top_k=MARGIN, or JSON, or a file with it. May be given several
    /// times. An epoch has 16 steps
    #[arg(long, value_name = "NAME=START..END@FROM..UNTIL", value_parser = choice::schedules)]
    schedule: Vec<Schedules>,

    /// Times through the training images
    #[arg(long, default_value_t = SETTINGS.epochs as u32, value_parser = value_parser!(u32).range(1..=10_000))]
    epochs: u32,

    /// Of the first weights and of the order of the images; the split into training and test images is fixed
    #[arg(long, default_value_t = SETTINGS.seed)]
    seed: u64,

    /// Where report.html and picture.svg are written
    #[arg(long, default_value = "out/train", value_name = "DIR")]
    out: PathBuf,
}

fn main() -> ExitCode {
    common::exit::code(run(Args::parse()))
}

fn run(args: Args) -> Result {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    let backend = backend(args.device, args.adapter.as_deref())?;
    let device = backend.name();
    let losses = if args.loss.is_empty() { Loss::all() } else { choice::distinct(args.loss)? };
    let (sub_centers, schedules) = (args.sub_centers as usize, choice::merged(&args.schedule)?);
    let Args { seed, regularizer, center, .. } = args;
    let settings =
        Settings { epochs: args.epochs as usize, seed, sub_centers, regularizer, center, schedules, ..SETTINGS };
    losses.iter().try_for_each(|loss| settings.check(loss))?;
    let losses = losses.into_iter().map(|loss| settings.ended(loss)).collect::<Result<Vec<_>>>()?;
    let digits = Digits::load()?;

    // of the five these are the plain cosine softmax and ChebyAAM
    let last = losses.len() - 1;
    let pictured = &[losses[0].clone(), losses[last].clone()][..1 + last.min(1)];
    let progress = Progress::new((losses.len() + pictured.len()) * settings.epochs);
    let train = |loss: &Loss, dim: usize| -> Result<Trained> {
        let (title, settings) = (&loss.title, Settings { dim, ..settings });
        let epoch = |mean| progress.advance(|| format!("{title}, {dim} dimensions, loss {mean:.4}"));
        let run = training::train(&backend, &loss.loss, &digits, &settings, epoch)?;
        let scores = score(&backend, &loss.loss, &run.model, &digits)?;
        progress.line(|| format!("{title}, {dim} dimensions: test accuracy {:.1} %", 100.0 * scores.accuracy));
        Ok(Trained { loss: loss.clone(), run, scores })
    };
    let trained = losses.iter().map(|loss| train(loss, settings.dim)).collect::<Result<Vec<_>>>()?;
    let spheres = pictured.iter().map(|loss| train(loss, 3)).collect::<Result<Vec<_>>>()?;
    let untrained = score(&backend, &losses[0].loss, &settings.untrained(), &digits)?;
    progress.finish();

    let (header, rows) = report::table(&untrained, &trained);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("{table}");
    for t in &trained {
        t.scores.collapse.iter().for_each(|collapse| println!("{}: {collapse}", t.loss.title));
    }
    settings.beside().iter().for_each(|beside| println!("beside every loss: {beside}"));
    println!("head: {device}");
    let digits = &digits;
    let report =
        Report { device: &device, settings, digits, untrained: &untrained, trained: &trained, spheres: &spheres };
    for (what, name, text) in [("report", "report.html", report.html()?), ("picture", "picture.svg", report.picture()?)]
    {
        let path = args.out.join(name);
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{what}: {}", path.display());
    }
    Ok(())
}

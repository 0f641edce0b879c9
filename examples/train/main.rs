//! Trains a small network on handwritten digits with several margin losses and compares them.
//!
//! ```text
//! cargo run --release --example train
//! cargo run --release --example train -- --device cpu --loss arcface --loss normface --epochs 20
//! ```
//!
//! Prints a table and writes out/train/report.html. Needs no download: the digits are embedded.

mod charts;
mod data;
mod metrics;
mod mlp;
mod report;
mod training;

use std::{
    error::Error,
    fs,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use clap::{
    Parser, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
    value_parser,
};
use comfy_table::{CellAlignment, Table, presets};
use data::Digits;
use indicatif::{ProgressBar, ProgressStyle};
use margin_softmax::Backend;
use metrics::score;
use report::{Report, Trained};
use training::{LOSSES, Loss, Model, SETTINGS, Settings};

/// Trains a small network on handwritten digits with several margin losses and compares them.
#[derive(Parser)]
struct Args {
    /// What computes the head
    #[arg(long, value_enum, default_value_t = Device::Best)]
    device: Device,

    /// The GPU whose name contains NAME, software adapters included; implies --device gpu
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,

    /// A loss to train; may be given several times, default all
    #[arg(long, value_parser = PossibleValuesParser::new(LOSSES.iter().map(|l| l.name)).map(|name| position(&name)))]
    loss: Vec<usize>,

    /// Times through the training images
    #[arg(long, default_value_t = SETTINGS.epochs as u32, value_parser = value_parser!(u32).range(1..=10_000))]
    epochs: u32,

    /// Of the first weights and of the order of the images; the split into training and test images is fixed
    #[arg(long, default_value_t = SETTINGS.seed)]
    seed: u64,

    /// Where report.html is written
    #[arg(long, default_value = "out/train", value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Device {
    /// A hardware GPU where there is one, else the CPU
    Best,
    /// The native f32 path
    Cpu,
    /// A GPU; --adapter chooses
    Gpu,
    /// The f64 oracle, slow
    Reference,
}

fn position(name: &str) -> usize {
    LOSSES.iter().position(|loss| loss.name == name).expect("the parser knows only these names")
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn Error>> {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    let backend = backend(args.device, args.adapter.as_deref())?;
    let device = backend.name();
    let chosen = |(i, _): &(usize, &'static Loss)| args.loss.is_empty() || args.loss.contains(i);
    let losses: Vec<&Loss> = LOSSES.iter().enumerate().filter(chosen).map(|(_, loss)| loss).collect();
    let settings = Settings { epochs: args.epochs as usize, seed: args.seed, ..SETTINGS };
    let digits = Digits::load()?;

    // of all five these are the plain cosine softmax and ChebyAAM
    let mut pictured = vec![losses[0], losses[losses.len() - 1]];
    pictured.dedup_by_key(|loss| loss.name);
    let runs = losses.len() + pictured.len();
    let progress = Progress::new(runs * settings.epochs);
    let train = |loss: &'static Loss, dim: usize| -> Result<Trained, Box<dyn Error>> {
        let (made, settings) = (loss.make(), Settings { dim, ..settings });
        let run = training::train(&backend, &made, &digits, &settings, |mean| progress.epoch(loss, dim, mean))?;
        let scores = score(&backend, &made, &run.model, &digits)?;
        progress.trained(loss, dim, scores.accuracy);
        Ok(Trained { loss, run, scores })
    };
    let trained = losses.iter().map(|loss| train(loss, settings.dim)).collect::<Result<Vec<_>, _>>()?;
    let spheres = pictured.iter().map(|loss| train(loss, 3)).collect::<Result<Vec<_>, _>>()?;
    let untrained = score(&backend, &losses[0].make(), &Model::untrained(&settings), &digits)?;
    progress.bar.finish_and_clear();

    let (header, rows) = report::table(&untrained, &trained);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("{table}");
    println!("head: {device}");
    let digits = &digits;
    let report =
        Report { device: &device, settings, digits, untrained: &untrained, trained: &trained, spheres: &spheres };
    let path = args.out.join("report.html");
    fs::write(&path, report.html()?).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("report: {}", path.display());
    Ok(())
}

fn backend(device: Device, adapter: Option<&str>) -> Result<Backend, Box<dyn Error>> {
    match (device, adapter) {
        (Device::Best, None) => Ok(Backend::best()?),
        (Device::Cpu, None) => Ok(Backend::cpu()),
        (Device::Reference, None) => Ok(Backend::reference()),
        (Device::Cpu | Device::Reference, Some(_)) => Err("--adapter names a GPU: use it with --device gpu".into()),
        #[cfg(feature = "gpu")]
        (Device::Gpu | Device::Best, name) => Ok(Backend::gpu(name)?),
        #[cfg(not(feature = "gpu"))]
        (Device::Gpu | Device::Best, _) => Err("this build has no GPU path: build with the feature `gpu`".into()),
    }
}

/// A bar on a terminal, elsewhere a line per run.
struct Progress {
    bar: ProgressBar,
    lines: bool,
}

impl Progress {
    fn new(epochs: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}  ({eta} left)");
        let bar = ProgressBar::new(epochs as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, lines: !io::stderr().is_terminal() }
    }

    fn epoch(&self, loss: &Loss, dim: usize, mean: f64) {
        self.bar.set_message(format!("{}, {dim} dimensions, loss {mean:.4}", loss.title));
        self.bar.inc(1);
    }

    fn trained(&self, loss: &Loss, dim: usize, accuracy: f64) {
        if self.lines {
            eprintln!("{}, {dim} dimensions: test accuracy {:.1} %", loss.title, 100.0 * accuracy);
        }
    }
}

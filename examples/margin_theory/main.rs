//! What theory says about margins before anything is trained: angles, sums, terminations, optimal margins, scales.
//!
//! ```text
//! cargo run --release --example margin_theory
//! cargo run --release --example margin_theory -- --classes 5994 --dim 192 --scale 30
//! ```
//!
//! Prints tables and writes out/margin_theory/report.html. The defaults are the setting of "Unifying Margin-Based
//! Softmax Losses in Face Recognition" (WACV 2023).

#[path = "../common/charts.rs"]
#[allow(dead_code)] // its histograms and spheres are not needed here
mod charts;
#[path = "../common/exit.rs"]
mod exit;
mod families;
mod report;
mod setting;
mod tables;

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use clap::{Parser, value_parser};
use comfy_table::{CellAlignment, presets};
use setting::Setting;

/// Prints and draws what theory says about margins before anything is trained.
#[derive(Parser)]
struct Args {
    /// Classes, 2 to 2^31 - 1
    #[arg(long, default_value_t = 85_742, value_parser = value_parser!(u32).range(2..1 << 31))]
    classes: u32,

    /// Dimension of an embedding, 2 to 2^31 - 1
    #[arg(long, default_value_t = 512, value_parser = value_parser!(u32).range(2..1 << 31))]
    dim: u32,

    /// The scale s, 0 < s <= 1e6
    #[arg(long, default_value_t = 64.0, value_parser = scale)]
    scale: f64,

    /// Where report.html is written
    #[arg(long, default_value = "out/margin_theory", value_name = "DIR")]
    out: PathBuf,
}

fn scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if scale > 0.0 && scale <= 1e6 { Ok(scale) } else { Err("allowed is 0 < scale <= 1e6".into()) }
}

fn main() -> ExitCode {
    exit::code(run(Args::parse()))
}

fn run(args: Args) -> Result<(), Box<dyn Error>> {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    let setting = Setting::new(args.classes as usize, args.dim as usize, args.scale)?;
    let tables = tables::all(&setting)?;
    for table in &tables {
        let mut shown = comfy_table::Table::new();
        shown.load_style(presets::UTF8_FULL_CONDENSED).set_header(&table.header).add_rows(&table.rows);
        shown.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        println!("{}\n{shown}\n", table.title);
    }
    let path = args.out.join("report.html");
    fs::write(&path, report::html(&setting, &tables)?).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("report: {}", path.display());
    Ok(())
}

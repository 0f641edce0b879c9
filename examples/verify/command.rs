//! The command line, and what is printed and written.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use margin_softmax::Backend;
use serde_json::json;

use crate::{
    common::{
        Result,
        device::{Device, backend},
        progress::Progress,
    },
    drawings,
    embeddings::{Embeddings, Names},
    measures::{self, Measures},
    scoring, templates,
    trials::{self, Format, Trials},
};

/// Scores a list of verification trials over embeddings, and draws ROC and DET.
#[derive(Parser)]
#[command(name = "verify")]
pub struct Args {
    /// The device that computes the cosines
    #[arg(long, value_enum, default_value_t = Device::Best)]
    device: Device,

    /// The GPU whose name contains NAME, software adapters included; implies --device gpu
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,

    /// How the list of trials is written
    #[arg(long, value_enum)]
    format: Format,

    /// The list of trials
    #[arg(long, value_name = "FILE")]
    trials: PathBuf,

    /// A safetensors file with the tensor `embeddings` [N, D]
    #[arg(long, value_name = "FILE")]
    embeddings: PathBuf,

    /// The names of its rows, one on each line; default: its own name with the ending .txt
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,

    /// Which items a template has, for --format ijb: ITEM TEMPLATE MEDIUM on each line
    #[arg(long, value_name = "FILE")]
    templates: Option<PathBuf>,

    /// A safetensors file with the tensor `embeddings` of a cohort: scores are also normalised by it
    #[arg(long, value_name = "FILE")]
    cohort: Option<PathBuf>,

    /// The nearest of the cohort that count; default 300, or all of a smaller cohort
    #[arg(long, value_name = "N", requires = "cohort")]
    top: Option<usize>,

    /// Where report.html, roc.svg, det.svg and results.json are written
    #[arg(long, default_value = "out/verify", value_name = "DIR")]
    out: PathBuf,
}

/// The whole program.
pub fn run(args: &Args) -> Result {
    // before the work, not after it
    fs::create_dir_all(&args.out).map_err(|e| format!("--out {}: {e}", args.out.display()))?;
    match (args.format, &args.templates) {
        (Format::Ijb, None) => return Err("--format ijb needs --templates".into()),
        (Format::Lfw | Format::Voxceleb, Some(_)) => return Err("--templates goes with --format ijb only".into()),
        _ => {}
    }
    let backend = backend(args.device, args.adapter.as_deref())?;
    let progress = Progress::new(3);
    let (embeddings, trials) = input(args)?;
    let cohort = args.cohort.as_deref().map(Embeddings::read).transpose()?;
    progress.advance(|| format!("cosines of {} pairs", trials.pairs.len()));
    let about = about(args, &embeddings, &trials, cohort.as_ref());
    let all = measured(&backend, &embeddings, &trials, cohort.as_ref().map(|c| (c, top(args, c))), &progress)?;
    progress.finish();

    let (header, rows) = measures::table(&all);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("{about}\n{table}\ncosines: {}", backend.name());
    written(&args.out, &all, &about, &backend)
}

/// Embeddings, or templates of them, and the trials between them.
fn input(args: &Args) -> Result<(Embeddings, Trials)> {
    let embeddings = Embeddings::read(&args.embeddings)?;
    let names = args.names.clone().unwrap_or_else(|| args.embeddings.with_extension("txt"));
    let names = Names::read(&names, embeddings.rows())?;
    let (embeddings, names) = match &args.templates {
        Some(path) => templates::pooled(path, &embeddings, &names)?,
        None => (embeddings, names),
    };
    let trials = trials::read(&args.trials, args.format, &names)?;
    Ok((embeddings, trials))
}

fn top(args: &Args, cohort: &Embeddings) -> usize {
    args.top.unwrap_or(scoring::TOP.min(cohort.rows()))
}

fn measured(
    backend: &Backend,
    embeddings: &Embeddings,
    trials: &Trials,
    cohort: Option<(&Embeddings, usize)>,
    progress: &Progress,
) -> Result<Vec<Measures>> {
    let cosines = scoring::cosines(backend, embeddings, trials)?;
    let mut all = vec![Measures::new("cosine", &cosines, trials)?];
    progress.advance(|| "normalisation".into());
    if let Some(cohort) = cohort {
        let scores = scoring::normalised(backend, embeddings, trials, &cosines, cohort)?;
        all.push(Measures::new("as-norm", &scores, trials)?);
    }
    Ok(all)
}

fn about(args: &Args, embeddings: &Embeddings, trials: &Trials, cohort: Option<&Embeddings>) -> String {
    let same = trials.same.iter().filter(|&&same| same).count();
    let items = if args.templates.is_some() { "templates" } else { "items" };
    let file = |path: &Path| path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let cohort = cohort.map_or(String::new(), |cohort| {
        format!("; as-norm with the {} nearest of a cohort of {}", top(args, cohort), cohort.rows())
    });
    format!(
        "{}: {} pairs, {same} of the same identity; {} {items} of {} dimensions{cohort}",
        file(&args.trials),
        trials.pairs.len(),
        embeddings.rows(),
        embeddings.dim,
    )
}

fn written(out: &Path, all: &[Measures], about: &str, backend: &Backend) -> Result {
    let size = (480, 420);
    let results = json!({
        "trials": about,
        "device": backend.name(),
        "measures": all.iter().map(Measures::json).collect::<Vec<_>>(),
    });
    for (name, content) in [
        ("report.html", drawings::html(all, about, &backend.name())?),
        ("roc.svg", drawings::file(all, "ROC", size, drawings::roc(all, size)?)?),
        ("det.svg", drawings::file(all, "DET", size, drawings::det(all, size)?)?),
        ("results.json", format!("{results:#}\n")),
    ] {
        let path = out.join(name);
        fs::write(&path, content).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

//! What a loss, a gradient, an element type, a sub-center, a class and a smaller budget cost: one table each, in
//! alternating rounds, since only ratios inside one run mean anything on a shared machine.
//!
//! ```text
//! cargo bench --bench losses                               # every table, about five minutes
//! cargo bench --bench losses -- wants classes --rounds 30  # some of them
//! cargo bench --bench losses -- elements --adapter llvmpipe
//! ```
//!
//! Wall time of whole calls, inputs and outputs as slices; tensors on the device in the table of elements. Every case is
//! checked against the f64 reference before it is timed. Each table also lands as a list of rows in the folder
//! `MARGIN_SOFTMAX_RESULTS`, else in `out/losses`: the files of `benches/results`, of which the charts are made, are only
//! replaced by who names them, with `MARGIN_SOFTMAX_RESULTS=$PWD/benches/results`.

#[path = "../../examples/common/progress.rs"]
mod progress;

mod cases;
mod data;
#[cfg(feature = "gpu")]
mod device;

use std::{env, fs, path::PathBuf, time::Instant};

use clap::Parser;
use serde_json::{Value, json};

use self::{cases::Case, progress::Progress};

/// Alternating rounds over the cases of a table.
#[derive(Parser)]
struct Command {
    /// losses, wants, elements, centers, classes, budgets; all of them where none is named
    tables: Vec<String>,
    /// Rounds of a table
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// A part of the name of the adapters to measure; all that answer where none is named
    #[arg(long)]
    adapter: Option<String>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let command = Command::parse();
    let all = ["losses", "wants", "elements", "centers", "classes", "budgets"];
    let unknown: Vec<_> = command.tables.iter().filter(|t| !all.contains(&t.as_str())).collect();
    assert!(unknown.is_empty(), "no tables {unknown:?}; there are {all:?}");
    let folder = env::var_os("MARGIN_SOFTMAX_RESULTS")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../out/losses")), PathBuf::from);
    // before the measurement, not after it
    fs::create_dir_all(&folder).unwrap();
    for table in all.into_iter().filter(|t| command.tables.is_empty() || command.tables.iter().any(|c| c == t)) {
        eprintln!("{table}: checks against the reference");
        let cases = match table {
            "losses" => cases::losses(),
            "wants" => cases::wants(command.adapter.as_deref()),
            "elements" => cases::elements(command.adapter.as_deref()),
            "centers" => cases::centers(),
            "classes" => cases::classes(),
            _ => cases::budgets(),
        };
        let rows = measure(table, cases, command.rounds.max(1));
        let path = folder.join(format!("{table}.json"));
        let text = rows.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n");
        fs::write(&path, format!("[\n{text}\n]\n")).unwrap();
        println!("{}", path.display());
    }
}

/// Every case once per round; medians and the best.
fn measure(table: &str, mut cases: Vec<Case>, rounds: usize) -> Vec<Value> {
    let progress = Progress::new(rounds * cases.len());
    let mut times = vec![vec![]; cases.len()];
    for round in 0..rounds {
        for (case, times) in cases.iter_mut().zip(&mut times) {
            progress.advance(|| format!("{table} {}", case.name));
            let start = Instant::now();
            (case.run)();
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        progress.line(|| format!("{table}: round {} of {rounds}", round + 1));
    }
    progress.finish();
    let row = |(case, mut times): (Case, Vec<f64>)| {
        times.sort_by(f64::total_cmp);
        let (median, best) = (times[times.len() / 2], times[0]);
        println!("{:60} median {median:9.3} ms   best {best:9.3} ms", case.name);
        let mut row = case.facts;
        row["median_ms"] = json!((median * 1e3).round() / 1e3);
        row["best_ms"] = json!((best * 1e3).round() / 1e3);
        row
    };
    cases.into_iter().zip(times).map(row).collect()
}

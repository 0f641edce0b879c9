//! The report of `device.sh`: one table of the head's rows and the peers' rows, and what falls short of the aims.
//!
//! Reads `probe.json`, `gpu.json` and `peers.json` in the results folder; writes `device.json` and `table.md` there.

mod common;

use std::{collections::BTreeMap, fs, process::ExitCode};

use clap::Parser;
use comfy_table::Table;
use serde_json::{Value, json};

/// The shape A of the aims.
const A: &str = "512x85742x512";
/// A step at A in f32 on an H200; ms.
const A_MS: f64 = 3.4;
/// Kernels with a column of their own; the others share one.
const KERNELS: usize = 6;

/// Joins what a run of `device.sh` measured.
#[derive(Parser)]
struct Arguments {
    /// The adapter that was measured.
    #[arg(long)]
    adapter: String,
    /// A line for the report, such as a part that was skipped.
    #[arg(long)]
    note: Vec<String>,
    #[command(flatten)]
    cargo: common::Cargo,
}

/// GPU time where the device has timestamps, else wall time; ms.
fn ms(row: &Value) -> Option<f64> {
    row["gpu_ms"].as_f64().or_else(|| row["wall_ms"].as_f64())
}

fn peer_ms(row: &Value) -> Option<f64> {
    row["device_best_ms"].as_f64().or_else(|| row["best_ms"].as_f64())
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or("-")
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".into(), |v| format!("{v:.3}"))
}

/// The kernels that take the longest over all rows.
fn longest_kernels(rows: &[Value]) -> Vec<String> {
    let mut sums = BTreeMap::<&str, f64>::new();
    for (name, ms) in rows.iter().filter_map(|row| row["kernels_ms"].as_object()).flatten() {
        *sums.entry(name).or_default() += ms.as_f64().unwrap_or(0.0);
    }
    let mut names: Vec<_> = sums.into_iter().collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1));
    names.into_iter().take(KERNELS).map(|(name, _)| name.to_owned()).collect()
}

fn table(rows: &[Value], peers: &[Value]) -> Table {
    let kernels = longest_kernels(rows);
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    let first = ["shape", "element", "schedule", "tile, preset or peer", "ms", "best ms", "wall ms", "GFLOP/s"];
    let header = first.map(str::to_owned).into_iter().chain(kernels.iter().cloned());
    table.set_header(header.chain(["other kernels".to_owned()]));
    for row in rows.iter().filter(|row| row["skipped"].is_null()) {
        let mut name = text(row, "tile").to_owned();
        if name != text(row, "planned_tile") {
            name = format!("{name} ({})", text(row, "planned_tile"));
        }
        let all: f64 = row["kernels_ms"].as_object().into_iter().flatten().filter_map(|(_, ms)| ms.as_f64()).sum();
        let own = kernels.iter().map(|kernel| row["kernels_ms"][kernel].as_f64());
        let other = all - own.clone().flatten().sum::<f64>();
        let best = row["gpu_best_ms"].as_f64().or_else(|| row["wall_best_ms"].as_f64());
        let mut cells =
            vec![text(row, "shape").into(), text(row, "element").into(), text(row, "schedule").into(), name];
        cells.extend([ms(row), best, row["wall_ms"].as_f64()].map(number));
        cells.push(row["gflops_6ndc"].as_f64().map_or("-".into(), |v| format!("{v:.0}")));
        cells.extend(own.map(number));
        cells.push(number(Some(other)));
        table.add_row(cells);
    }
    for row in peers {
        let schedule = Some(text(row, "schedule")).filter(|s| !s.is_empty()).unwrap_or("-");
        let mut cells =
            vec![text(row, "shape").into(), "-".into(), schedule.into(), format!("beside: {}", text(row, "peer"))];
        cells.extend([None, peer_ms(row), row["median_ms"].as_f64()].map(number));
        cells.push(row["gflops"].as_f64().map_or("-".into(), |v| format!("{v:.0}")));
        cells.extend(vec!["-".into(); kernels.len() + 1]);
        table.add_row(cells);
    }
    table
}

/// An aim, whether it was reached (`None` if nothing was measured), and the numbers.
fn aims(adapter: &str, rows: &[Value], peers: &[Value]) -> Vec<Value> {
    let at_a = rows.iter().filter(|row| row["shape"] == A && row["element"] == "f32" && row["skipped"].is_null());
    let fastest = at_a.filter_map(|row| Some((ms(row)?, row))).min_by(|a, b| a.0.total_cmp(&b.0));
    let measured = match fastest {
        Some((ms, row)) => format!("{ms:.3} ms with {}, {}", text(row, "tile"), text(row, "schedule")),
        None => "no row was measured".into(),
    };
    let h200 = adapter.contains("H200");
    let reached = fastest.filter(|_| h200).map(|(ms, _)| ms <= A_MS);
    let measured = if h200 { measured } else { format!("{measured}; this is no H200") };
    let aim = format!("f32 at {A}: at most {A_MS} ms on an H200");
    let mut aims = vec![json!({ "aim": aim, "reached": reached, "measured": measured })];
    // both in one alternating run
    let mut shapes: Vec<_> = peers.iter().chain(rows).map(|row| text(row, "shape")).collect();
    shapes.sort_unstable();
    shapes.dedup();
    for shape in shapes {
        let find = |peer| peers.iter().find(|row| row["shape"] == shape && row["peer"] == peer).and_then(peer_ms);
        let (own, eager) = (find("crate gpu keep"), find("torch-cuda"));
        let reached = own.zip(eager).map(|(own, eager)| own < eager);
        let measured = format!("{} ms, PyTorch {} ms", number(own), number(eager));
        let aim = format!("f32 at {shape}: ahead of PyTorch eager");
        aims.push(json!({ "aim": aim, "reached": reached, "measured": measured }));
    }
    aims
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let of_adapter = |name| {
        let mut rows = common::load(name);
        rows.retain(|row| row["adapter"] == arguments.adapter.as_str());
        rows
    };
    let (probe, rows, peers) = (of_adapter("probe.json"), of_adapter("gpu.json"), common::load("peers.json"));
    let mut lines = arguments.note.clone();
    let mut skipped = BTreeMap::<_, Vec<_>>::new();
    for row in rows.iter().filter(|row| !row["skipped"].is_null()) {
        let names = skipped.entry((text(row, "shape"), text(row, "skipped"))).or_default();
        names.push(format!("{} {}", text(row, "tile"), text(row, "schedule")));
    }
    lines.extend(skipped.iter().map(|((shape, why), names)| format!("no row at {shape}: {why}: {}", names.join(", "))));
    let aims = aims(&arguments.adapter, &rows, &peers);
    for aim in &aims {
        let verdict = match aim["reached"].as_bool() {
            Some(true) => "reached",
            Some(false) => "FELL SHORT",
            None => "not judged",
        };
        lines.push(format!("{verdict}: {} ({})", text(aim, "aim"), text(aim, "measured")));
    }
    let table = table(&rows, &peers);
    let list: Vec<_> = lines.iter().map(|line| format!("- {line}\n")).collect();
    let report = format!(
        "# {}\n\nTimes by timestamps where the device has them, else wall times; kernels are those of the fastest run.\n\n{table}\n\n{}",
        arguments.adapter,
        list.concat()
    );
    println!("{report}");
    let all = json!({ "adapter": arguments.adapter, "aims": aims, "notes": lines, "probe": probe.first(), "rows": rows,
        "peers": peers });
    let write = || {
        fs::write(common::path("device.json"), format!("{all:#}\n"))?;
        fs::write(common::path("table.md"), report)
    };
    if let Err(error) = write() {
        println!("the report could not be written: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

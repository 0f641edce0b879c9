//! What the GPU benches share: adapters, results, progress.
#![allow(dead_code)] // each bench uses a part

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use margin_softmax::gpu::Context;
use serde_json::Value;

pub mod data;

/// A context for every adapter whose name contains `adapter`, hardware first.
pub fn contexts(adapter: Option<&str>) -> Vec<Context> {
    choose(Context::all(), adapter, |context| (context.name(), context.is_software()))
}

/// Those whose name contains `adapter`, hardware first; says so if there is none.
pub fn choose<T>(mut all: Vec<T>, adapter: Option<&str>, describe: impl Fn(&T) -> (String, bool)) -> Vec<T> {
    let names: Vec<_> = all.iter().map(|one| describe(one).0).collect();
    let wanted = adapter.unwrap_or_default().to_lowercase();
    all.retain(|one| describe(one).0.to_lowercase().contains(&wanted));
    all.sort_by_key(|one| describe(one).1);
    if all.is_empty() {
        match adapter {
            Some(name) if !names.is_empty() => println!("no adapter is called `{name}`; found: {}", names.join(", ")),
            _ => println!("nothing to measure: no adapter answers (on Linux a Vulkan driver is needed)"),
        }
    }
    all
}

/// An adapter's name, as [`Context::name`] gives it.
pub fn name(info: &wgpu::AdapterInfo) -> String {
    match info.driver_info.as_str() {
        "" => format!("{} ({:?})", info.name, info.backend),
        driver => format!("{} ({:?}, {driver})", info.name, info.backend),
    }
}

/// A bar of this many parts.
pub fn bar(parts: usize) -> ProgressBar {
    let bar = ProgressBar::new(parts as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// What comes next, also where nobody sees the bar.
pub fn say(bar: &ProgressBar, what: String) {
    if bar.is_hidden() {
        eprintln!("{}/{} {what}", bar.position(), bar.length().unwrap_or(0));
    }
    bar.set_message(what);
}

/// Blocks until the device is idle.
pub fn wait(context: &Context) {
    context.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
}

/// The middle and the smallest.
pub fn median_best(values: &mut [f64]) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values.get(values.len() / 2).copied().unwrap_or(f64::NAN), values.first().copied().unwrap_or(f64::NAN))
}

/// A results file: in the folder `MARGIN_SOFTMAX_RESULTS`, else in `benches/results`.
pub fn path(name: &str) -> PathBuf {
    let folder = env::var_os("MARGIN_SOFTMAX_RESULTS").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("results")).join(name)
}

/// The rows of a results file; none if there is no such file.
pub fn load(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(path(name)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Writes rows; of those that are there already, the ones with other values in `key` stay.
pub fn store(name: &str, key: &[&str], rows: &[Value]) {
    let same = |a: &Value, b: &Value| key.iter().all(|k| a[k] == b[k]);
    let mut all = load(name);
    all.retain(|old| !rows.iter().any(|new| same(old, new)));
    all.extend_from_slice(rows);
    let lines: Vec<_> = all.iter().map(|row| format!("  {row}")).collect();
    let write = || {
        fs::create_dir_all(path(""))?;
        fs::write(path(name), format!("[\n{}\n]\n", lines.join(",\n")))
    };
    match write() {
        Ok(()) => println!("{}: {} rows", path(name).display(), all.len()),
        Err(error) => println!("{} could not be written: {error}", path(name).display()),
    }
}

/// The arguments of a bench that measures adapters.
#[derive(clap::Args)]
pub struct Adapters {
    /// Only adapters whose name contains this.
    #[arg(long)]
    pub adapter: Option<String>,
    #[command(flatten)]
    cargo: Cargo,
}

/// Cargo gives every bench this flag.
#[derive(clap::Args)]
pub struct Cargo {
    #[arg(long, hide = true)]
    bench: bool,
}

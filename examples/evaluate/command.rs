//! The command line, and what is printed.

use std::{
    error::Error,
    ffi::OsString,
    fmt::Write as _,
    io::Write,
    path::{Path, PathBuf},
};

use clap::{Parser, ValueEnum};
use margin_softmax::{
    Backend, Budget, MarginSoftmax, Options, Output, Shape, State, Tile, Want, data::Counts, predict::Predictions,
    reference,
};
use serde_json::json;

use crate::{files, input, input::Input, loss, output};

/// Every failure here is a line for a person.
pub type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// Loss and gradients of one batch: a safetensors file in, a safetensors file out.
#[derive(Parser)]
#[command(name = "evaluate", version)]
struct Arguments {
    /// The batch: embeddings [N,D], prototypes [C,D] or [C,K,D], labels [N], optionally class_weights [C], row_weights [N],
    /// divisor [1], upstream [1] or [N], bias [C], class_m0..class_m3 [C], row_m0..row_m3 [N], soft_classes and
    /// soft_weights [N,T].
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The loss as JSON: a whole loss, or {"preset": "arcface"}.
    #[arg(long, value_name = "FILE")]
    loss: PathBuf,
    /// What a run has learnt of its batches, as JSON: `margin_softmax::State`; default: the state before the first step.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Where the results go: loss [], row_losses [N], log_sum_exps [N], target_cosines [N], other_cosines [N],
    /// grad_embeddings [N,D], grad_prototypes like prototypes, grad_scale [], grad_bias.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// What computes; default `best`, or `gpu` if an adapter is named.
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// The matrix tile of a GPU: see `margin_softmax::Tile`; default: the library chooses.
    #[arg(long, value_parser = tile)]
    tile: Option<Tile>,
    /// The most bytes of workspace: 268435456, 512KiB, 256MiB or 1GiB; default 256MiB.
    #[arg(long, value_name = "SIZE", value_parser = budget, allow_negative_numbers = true)]
    budget: Option<Budget>,
    /// The nearest classes of each row, 1 to 64 of them, beside the results: predicted_classes, predicted_cosines,
    /// predicted_log_probabilities, each [N,K].
    #[arg(long, value_name = "K")]
    predictions: Option<usize>,
    /// The first GPU whose name contains this, in any case; software adapters included.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Device {
    /// A hardware GPU where there is one, else the CPU.
    Best,
    /// The native f32 path.
    Cpu,
    /// A GPU through wgpu, a software one if there is no other.
    Gpu,
    /// The f64 oracle, with N·C values in memory.
    Reference,
}

/// The whole program; returns the exit code.
pub fn main<T: Into<OsString> + Clone>(
    arguments: impl IntoIterator<Item = T>,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    let failure = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => match run(&arguments) {
            Ok(report) => {
                // the results are in their file already: a reader that went away is no failure
                let _ = stdout.write_all(report.as_bytes());
                return 0;
            }
            Err(error) => format!("error: {error}"),
        },
        Err(help) if !help.use_stderr() => {
            let _ = write!(stdout, "{help}");
            return 0;
        }
        // the first paragraph says what is wrong
        Err(wrong) => {
            wrong.to_string().lines().take_while(|l| !l.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ")
        }
    };
    // names from files may hold line ends and escape sequences
    let visible = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let _ = writeln!(stderr, "{}", failure.chars().map(visible).collect::<String>());
    2
}

/// Reads, computes, writes; returns the table.
fn run(arguments: &Arguments) -> Result<String> {
    let Arguments { tile, budget, .. } = *arguments;
    let mut inputs: Vec<&Path> = vec![&arguments.input, &arguments.loss];
    inputs.extend(arguments.state.as_deref());
    let target = files::target(&arguments.output, &inputs)?;
    let loss = loss::read(&arguments.loss)?;
    let device = device(arguments)?;
    let input = input::read(&arguments.input, loss.reduction)?;
    let backend = backend(device, arguments.adapter.as_deref())?; // last: a driver may have its own say on stderr
    let state = match &arguments.state {
        Some(path) => loss::state(path)?,
        None => State::new(&loss, input.shape)?,
    };
    let options = Options {
        want: Want::ALL.with_scale().with_bias(),
        budget: budget.unwrap_or_default(),
        tile,
        soft_labels: input.soft.as_ref().map(|soft| soft.count),
        ..Options::default()
    };

    let name = backend.name();
    let (shape, ignore) = (input.shape, loss.ignore_index);
    let (result, counts, hits, bytes) = if let Backend::Reference = backend {
        fits(shape)?;
        let wide = input.wide();
        let out = reference::evaluate_with(&loss, shape, options.want, &wide.batch(), &state)?;
        let all = 0..shape.classes();
        let nearest = |count| reference::predict(&loss, shape, all, count, &wide.inputs(), &state);
        let nearest = arguments.predictions.map(nearest).transpose()?;
        let hits = Hits::of(&out, nearest.as_ref(), &input.labels, ignore);
        let about = about(&name, &loss, out.counts, &hits)?;
        (out.loss.to_string(), out.counts, hits, output::bytes(shape, &out, nearest.as_ref(), about)?)
    } else {
        let mut head = backend.head_with(&loss, shape, &options)?;
        head.set_state(&state)?;
        let out = head.evaluate(&input.batch())?;
        let nearest = |count| {
            let mut predictor = backend.predictor(&loss, shape, count, &options)?;
            predictor.set_state(&state)?;
            predictor.predict(&input.inputs())
        };
        let nearest = arguments.predictions.map(nearest).transpose()?;
        let hits = Hits::of(&out, nearest.as_ref(), &input.labels, ignore);
        let about = about(&name, &loss, out.counts, &hits)?;
        (out.loss.to_string(), out.counts, hits, output::bytes(shape, &out, nearest.as_ref(), about)?)
    };
    files::write(&target, &bytes)?;

    let mut table = String::new();
    let mut line = |name: &str, value: String| writeln!(table, "{name:<11} {value}");
    line("batch", input.summary())?;
    line("loss", serde_json::to_string(&loss)?)?;
    line("device", name.clone())?;
    line("tile", say_tile(&backend, tile))?;
    line("budget", say_budget(&backend, options.budget))?;
    line("result", format!("{result} ({})", loss.reduction.name()))?;
    line("accuracy", hits.summary())?;
    let Counts { rows, ignored, non_finite_rows, zero_embeddings, .. } = counts;
    line("rows", format!("{rows} counted ({zero_embeddings} zero), {ignored} ignored, {non_finite_rows} non-finite"))?;
    let Counts { zero_prototypes, non_finite_prototypes, .. } = counts;
    line("prototypes", format!("{zero_prototypes} zero, {non_finite_prototypes} non-finite"))?;
    line("written", format!("{} ({} bytes)", arguments.output.display(), bytes.len()))?;
    Ok(table)
}

fn device(arguments: &Arguments) -> Result<Device> {
    match (arguments.device, &arguments.adapter) {
        (Some(Device::Gpu) | None, Some(_)) => Ok(Device::Gpu),
        (Some(_), Some(_)) => Err("`--adapter` names a GPU: it goes with `--device gpu` only".into()),
        (device, None) => Ok(device.unwrap_or(Device::Best)),
    }
}

#[cfg_attr(not(feature = "gpu"), allow(unused_variables))]
fn backend(device: Device, adapter: Option<&str>) -> Result<Backend> {
    Ok(match device {
        Device::Best => Backend::best()?,
        Device::Cpu => Backend::cpu(),
        Device::Reference => Backend::reference(),
        #[cfg(feature = "gpu")]
        Device::Gpu => Backend::gpu(adapter)?,
        #[cfg(not(feature = "gpu"))]
        Device::Gpu => return Err("`--device gpu` needs a build with the feature `gpu`".into()),
    })
}

/// The reference holds all pairs of rows and classes.
fn fits(shape: Shape) -> Result {
    // a cosine and the prototype it belongs to, and a gradient for each prototype; rows and classes each below 2^31
    let cells = shape.rows() as u64 * shape.classes() as u64;
    let needed = cells.saturating_mul(16 + 8 * shape.sub_centers() as u64);
    if needed > input::MAX_BYTES {
        let (gib, most) = (needed >> 30, input::MAX_BYTES >> 30);
        return Err(format!("the reference needs {gib} GiB for N·C·K values, at most {most} GiB are allowed").into());
    }
    Ok(())
}

/// How many rows are right, of those that have a loss.
struct Hits {
    rows: usize,
    /// Nearer to their class than to any other.
    first: usize,
    /// k, and the rows with their class among the k nearest.
    top: Option<(usize, usize)>,
}

impl Hits {
    fn of<T: Copy + Into<f64>>(
        out: &Output<T>,
        nearest: Option<&Predictions<T>>,
        labels: &[i64],
        ignore_index: Option<i64>,
    ) -> Self {
        let counts = |&i: &usize| Some(labels[i]) != ignore_index && !out.row_losses[i].into().is_nan();
        let rows = || (0..labels.len()).filter(counts);
        let first = rows().filter(|&i| out.target_cosines[i].into() > out.other_cosines[i].into()).count();
        let among = |all: &Predictions<T>| {
            let own = |i: usize| &all.classes[i * all.count..(i + 1) * all.count];
            (all.count, rows().filter(|&i| own(i).iter().any(|&class| i64::from(class) == labels[i])).count())
        };
        Self { rows: rows().count(), first, top: nearest.map(among) }
    }

    /// Of the rows; none of none.
    fn share(&self, hits: usize) -> Option<f64> {
        (self.rows > 0).then(|| hits as f64 / self.rows as f64)
    }

    fn summary(&self) -> String {
        let first = format!("{} of {} rows", self.first, self.rows);
        self.top.map_or(first.clone(), |(k, hits)| format!("{first}; {hits} among the {k} nearest"))
    }
}

/// The metadata: enough to repeat the run.
fn about(device: &str, loss: &MarginSoftmax, counts: Counts, hits: &Hits) -> Result<String> {
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "device": device,
        "loss": serde_json::to_value(loss)?,
        "counts": {
            "rows": counts.rows,
            "ignored": counts.ignored,
            "non_finite_rows": counts.non_finite_rows,
            "zero_embeddings": counts.zero_embeddings,
            "zero_prototypes": counts.zero_prototypes,
            "non_finite_prototypes": counts.non_finite_prototypes,
        },
        "accuracy": hits.share(hits.first),
        "top_k": hits.top.map(|(count, hits_of_k)| json!({ "count": count, "accuracy": hits.share(hits_of_k) })),
    });
    Ok(value.to_string())
}

fn say_tile(backend: &Backend, tile: Option<Tile>) -> String {
    let has_tiles = !matches!(backend, Backend::Reference | Backend::Cpu);
    match tile {
        Some(tile) if has_tiles => tile.name().into(),
        Some(tile) => format!("{} is ignored: this device has no tiles", tile.name()),
        None if has_tiles => "chosen by the library".into(),
        None => "none".into(),
    }
}

fn say_budget(backend: &Backend, budget: Budget) -> String {
    let bytes = budget.get();
    match backend {
        Backend::Reference => "ignored: the reference keeps everything".into(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}

fn tile(text: &str) -> Result<Tile, String> {
    text.parse().map_err(|error: margin_softmax::Error| error.to_string())
}

fn budget(text: &str) -> Result<Budget, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.trim_start() {
        _ if number.is_empty() => None,
        "" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let Some(shift) = shift else {
        return Err("expected a whole number of bytes, KiB, MiB or GiB, as in 256MiB".into());
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.map(Budget::bytes).ok_or_else(|| "more bytes than 64 bits can count".into())
}

impl Input {
    fn summary(&self) -> String {
        let [embeddings, prototypes] = self.elements;
        let given = |name, given| if given { format!(", {name}") } else { String::new() };
        format!(
            "{} rows, {} classes, {} dimensions; embeddings {embeddings}, prototypes {prototypes}{}{}{}{}{}{}{}{}{}",
            self.shape.rows(),
            self.shape.classes(),
            self.shape.dim(),
            given("several per class", self.shape.sub_centers() > 1),
            given("class weights", self.class_weights.is_some()),
            given("row weights", self.row_weights.is_some()),
            given("divisor", self.divisor.is_some()),
            given("upstream", self.upstream.is_some()),
            given("bias", self.bias.is_some()),
            given("margins per class", self.class_margins.iter().any(Option::is_some)),
            given("margins per row", self.row_margins.iter().any(Option::is_some)),
            given("soft labels", self.soft.is_some()),
        )
    }
}

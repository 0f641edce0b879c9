//! The head on every adapter found: GPU time and wall time of forward and backward, and the share of each kernel.
//!
//! ```text
//! cargo bench --bench probe && cargo bench --bench gpu                          # everything
//! cargo bench --bench gpu -- --adapter llvmpipe --shape 64x1000x128 --tile tile_64
//! cargo bench --bench gpu -- --presets --limit 60         # the presets too, and no row begun after most of a minute
//! ```
//!
//! ArcFace. Every result is checked before it is timed: against the f64 reference where that takes no minutes, else against
//! the CPU path. Tensors lie on the device; nothing is uploaded or read back in the timed part. The rows of one shape take
//! turns, since on a shared machine only ratios inside one run mean anything. Rows land in `benches/results/gpu.json`.

mod common;

use std::{collections::BTreeMap, process::ExitCode, time::Instant};

use clap::{Parser, builder::PossibleValuesParser};
use comfy_table::Table;
use common::data::{Data, disagreement};
use half::{bf16, f16};
use indicatif::ProgressBar;
use margin_softmax::{
    Backend, Budget, Error, MarginSoftmax, Options, Output, Result, Shape, Tile, Want,
    data::DevicePreset,
    gpu::{
        BoundHead, Context, Head, Io, Tensor,
        timing::{Detail, Timing},
    },
    plan::{Element, Layout, Plan},
};
use serde_json::{Value, json};

const SMALL: [usize; 3] = [64, 1000, 128];
const B: [usize; 3] = [256, 5994, 192];
/// On hardware too.
const LARGE: [[usize; 3]; 3] = [[512, 20_000, 512], [512, 85_742, 512], [1024, 1_000_000, 512]];

/// What a value becomes in this element.
type Round = fn(f32) -> f32;

const ELEMENTS: [(Element, Round); 3] = [
    (Element::F32, |v| v),
    (Element::F16, |v| f16::from_f32(v).to_f32()),
    (Element::Bf16, |v| bf16::from_f32(v).to_f32()),
];

const SCHEDULES: [&str; 2] = ["keep", "recompute"];

/// Times of the head on every adapter.
#[derive(Parser)]
struct Arguments {
    /// Only adapters whose name contains this.
    #[arg(long)]
    adapter: Option<String>,
    /// Only these shapes, NxCxD; otherwise all that the adapter is fit for.
    #[arg(long, value_parser = shape)]
    shape: Vec<[usize; 3]>,
    /// Only this tile.
    #[arg(long, value_parser = PossibleValuesParser::new(Tile::ALL.iter().map(|tile| tile.name())))]
    tile: Option<String>,
    /// The presets too, each with the tile that it chooses.
    #[arg(long)]
    presets: bool,
    /// Only this element type of embeddings and prototypes.
    #[arg(long, value_parser = ELEMENTS.map(|(element, _)| element.name()))]
    element: Option<String>,
    /// Only this schedule.
    #[arg(long, value_parser = SCHEDULES)]
    schedule: Option<String>,
    /// Seconds that the timed runs of one row may take.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds after which nothing more is measured; the rows left out say so.
    #[arg(long, default_value_t = f64::INFINITY)]
    limit: f64,
    /// The most MiB of device memory that one row may take; default 16384 on a card with memory of its own, else 6144, on
    /// a software adapter 2048.
    #[arg(long)]
    memory: Option<u64>,
    #[command(flatten)]
    cargo: common::Cargo,
}

fn shape(text: &str) -> std::result::Result<[usize; 3], String> {
    let sizes: Option<Vec<usize>> = text.split('x').map(|v| v.parse().ok().filter(|&v| v > 0)).collect();
    sizes.and_then(|s| s.try_into().ok()).ok_or_else(|| "three numbers are needed, such as 256x5994x192".into())
}

/// Who chooses the tile of a row.
#[derive(Clone, Copy)]
enum Choice {
    Tile(Tile),
    Preset(DevicePreset),
}

impl Choice {
    fn all(arguments: &Arguments) -> Vec<Self> {
        let presets = DevicePreset::ALL.iter().filter(|_| arguments.presets).map(|&preset| Choice::Preset(preset));
        let wanted = |tile: &&Tile| arguments.tile.as_deref().is_none_or(|only| only == tile.name());
        presets.chain(Tile::ALL.iter().filter(wanted).map(|&tile| Choice::Tile(tile))).collect()
    }

    fn name(self) -> String {
        match self {
            Choice::Tile(tile) => tile.name().into(),
            Choice::Preset(preset) => format!("preset {}", preset.name()),
        }
    }

    fn options(self) -> Options {
        match self {
            Choice::Tile(tile) => Options { tile: Some(tile), ..Options::default() },
            Choice::Preset(preset) => Options { preset, ..Options::default() },
        }
    }
}

const WRONG: &str = "WRONG RESULT";

/// The caller's tensors.
struct Tensors {
    x: Tensor,
    w: Vec<Tensor>,
    y: Tensor,
    loss: Tensor,
    row_losses: Tensor,
    dx: Tensor,
    dw: Vec<Tensor>,
    shards: Vec<usize>,
}

fn upload(context: &Context, shape: &[usize], values: &[f32], element: Element) -> Result<Tensor> {
    match element {
        Element::F16 => Tensor::upload(context, shape, &values.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>()),
        Element::Bf16 => Tensor::upload(context, shape, &values.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>()),
        _ => Tensor::upload(context, shape, values),
    }
}

impl Tensors {
    fn new(context: &Context, data: &Data, element: Element) -> Result<Self> {
        let (n, d) = (data.shape.rows(), data.shape.dim());
        let shards = Plan::shards(data.shape, element, context.limits())?;
        let (mut w, mut dw, mut rest) = (vec![], vec![], data.w.as_slice());
        for &count in &shards {
            let (own, next) = rest.split_at(count * d);
            rest = next;
            w.push(upload(context, &[count, d], own, element)?);
            dw.push(Tensor::empty(context, &[count, d], Element::F32)?);
        }
        Ok(Self {
            x: upload(context, &[n, d], &data.x, element)?,
            w,
            y: Tensor::upload(context, &[n], &data.labels)?,
            loss: Tensor::empty(context, &[1], Element::F32)?,
            row_losses: Tensor::empty(context, &[n], Element::F32)?,
            dx: Tensor::empty(context, &[n, d], Element::F32)?,
            dw,
            shards,
        })
    }

    fn bind(&self, head: &Head) -> Result<BoundHead> {
        head.bind(&Io {
            row_losses: Some(&self.row_losses),
            grad_embeddings: Some(&self.dx),
            grad_prototypes: &self.dw.iter().collect::<Vec<_>>(),
            ..Io::new(&self.x, &self.w.iter().collect::<Vec<_>>(), &self.y, &self.loss)
        })
    }

    fn read(&self, context: &Context) -> Result<Output> {
        let mut grad_prototypes = vec![];
        for shard in &self.dw {
            grad_prototypes.extend(shard.read::<f32>(context)?);
        }
        Ok(Output {
            row_losses: self.row_losses.read(context)?,
            grad_embeddings: self.dx.read(context)?,
            grad_prototypes,
            ..Default::default()
        })
    }

    fn bytes(data: &Data, element: Element) -> u64 {
        (data.x.len() + data.w.len()) as u64 * (4 + element.bytes())
    }
}

/// A way to compute the head, and what it took.
struct Row {
    head: Head,
    choice: Choice,
    schedule: &'static str,
    /// Bind, compile and the first run, which no figure below includes; ms.
    first: f64,
    wall: Vec<f64>,
    /// Forward and backward by timestamps; ms.
    gpu: [Vec<f64>; 2],
    /// Of each kernel, by timestamps, in the fastest run; ms.
    profile: BTreeMap<&'static str, f64>,
    spent: f64,
}

impl Row {
    fn submit(context: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> f64 {
        let mut encoder = context.device().create_command_encoder(&Default::default());
        record(&mut encoder);
        let commands = encoder.finish();
        let start = Instant::now();
        context.queue().submit([commands]);
        common::wait(context);
        start.elapsed().as_secs_f64() * 1e3
    }

    fn both(bound: &BoundHead) -> impl FnOnce(&mut wgpu::CommandEncoder) {
        move |encoder| {
            bound.record_forward(encoder);
            bound.record_backward(encoder);
        }
    }

    /// The first run, checked.
    fn check(&mut self, context: &Context, tensors: &Tensors, expected: &Output) -> Result<()> {
        let start = Instant::now();
        let bound = tensors.bind(&self.head)?;
        Self::submit(context, Self::both(&bound));
        self.first += start.elapsed().as_secs_f64() * 1e3;
        match disagreement(&tensors.read(context)?, expected) {
            Some(wrong) => Err(Error::Device(format!("{WRONG}: {wrong}"))),
            None => Ok(()),
        }
    }

    /// One round of runs of this row, at most as long as `seconds`.
    fn round(&mut self, context: &Context, tensors: &Tensors, timing: &mut Option<Timing>, seconds: f64) -> Result<()> {
        let bound = tensors.bind(&self.head)?;
        // a fresh workspace is cleared by its first run
        Self::submit(context, Self::both(&bound));
        let start = Instant::now();
        loop {
            self.wall.push(Self::submit(context, Self::both(&bound)));
            if let Some(timing) = timing {
                let mut run = |detail| {
                    let mut encoder = context.device().create_command_encoder(&Default::default());
                    timing.record_forward(detail, &bound, &mut encoder)?;
                    timing.record_backward(detail, &bound, &mut encoder)?;
                    context.queue().submit([encoder.finish()]);
                    timing.read()
                };
                for (times, span) in self.gpu.iter_mut().zip(run(Detail::Passes)?) {
                    times.push(span.nanoseconds * 1e-6);
                }
                let mut profile = BTreeMap::new();
                for span in run(Detail::Steps)? {
                    *profile.entry(span.label).or_insert(0.0) += span.nanoseconds * 1e-6;
                }
                let all = |profile: &BTreeMap<_, f64>| profile.values().sum::<f64>();
                if self.profile.is_empty() || all(&profile) < all(&self.profile) {
                    self.profile = profile;
                }
            }
            if start.elapsed().as_secs_f64() > seconds {
                self.spent += start.elapsed().as_secs_f64();
                return Ok(());
            }
        }
    }
}

/// One shape with one element type on one adapter, every tile and schedule.
struct Session<'a> {
    arguments: &'a Arguments,
    context: &'a Context,
    data: &'a Data,
    expected: &'a Output,
    element: Element,
    bar: &'a ProgressBar,
    /// GFLOP/s of the FMA kernel of the probe.
    peak: Option<f64>,
    start: Instant,
}

impl Session<'_> {
    fn name(&self) -> String {
        format!("{}x{}x{}", self.data.shape.rows(), self.data.shape.classes(), self.data.shape.dim())
    }

    fn note(&self, what: &str, error: &str) -> Value {
        let (adapter, shape, element) = (self.context.name(), self.name(), self.element.name());
        let (tile, schedule) = what.rsplit_once(' ').unwrap_or(("all", "all"));
        json!({ "adapter": adapter, "shape": shape, "element": element, "schedule": schedule, "tile": tile,
            "skipped": error })
    }

    /// Refuses what would begin after this share of the time.
    fn in_time(&self, share: f64) -> std::result::Result<(), String> {
        if self.start.elapsed().as_secs_f64() < share * self.arguments.limit {
            return Ok(());
        }
        Err(format!("no time left of --limit {}", self.arguments.limit))
    }

    fn row(&self, loss: &MarginSoftmax, tensors: &Tensors, choice: Choice, schedule: &'static str) -> Result<Row> {
        let shape = self.data.shape;
        let start = Instant::now();
        let cosines = (shape.rows() * shape.classes() * 4) as u64;
        let budget = Budget::bytes(if schedule == "keep" { u64::MAX / 4 } else { (256 << 20).min(cosines - 1) });
        let layout = Layout { shards: &tensors.shards, embeddings: self.element, prototypes: self.element };
        let options = Options { want: Want::ALL, budget, ..choice.options() };
        let plan = Plan::head(loss, shape, &layout, self.context.limits(), &options)?;
        let allowed = self.arguments.memory.unwrap_or(match self.context.device().adapter_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 16 << 10,
            wgpu::DeviceType::Cpu => 2 << 10,
            _ => 6 << 10,
        });
        let allowed = allowed << 20;
        let needed = plan.workspace_bytes() + Tensors::bytes(self.data, self.element);
        if needed > allowed {
            return Err(Error::Limit { what: "a row of this bench", limit: "--memory", needed, allowed });
        }
        let head = Head::new(self.context, loss, plan)?;
        let first = start.elapsed().as_secs_f64() * 1e3;
        let (wall, gpu, profile) = Default::default();
        Ok(Row { head, choice, schedule, first, wall, gpu, profile, spent: 0.0 })
    }

    fn run(&self, loss: &MarginSoftmax) -> Vec<Value> {
        let mut notes = vec![];
        let tensors = match Tensors::new(self.context, self.data, self.element) {
            Ok(tensors) => tensors,
            Err(error) => return vec![self.note("all", &error.to_string())],
        };
        let mut timing = Timing::new(self.context).ok();
        let mut rows = vec![];
        let wanted = |schedule: &&str| self.arguments.schedule.as_deref().is_none_or(|only| only == *schedule);
        for schedule in SCHEDULES.into_iter().filter(wanted) {
            for choice in Choice::all(self.arguments) {
                let name = format!("{} {schedule}", choice.name());
                common::say(self.bar, format!("{} {} {name}: check", self.name(), self.element.name()));
                // the rest is for the rounds
                let row = self.in_time(0.6).and_then(|()| {
                    let row = self.row(loss, &tensors, choice, schedule);
                    let check = |mut row: Row| row.check(self.context, &tensors, self.expected).map(|()| row);
                    row.and_then(check).map_err(|error| error.to_string())
                });
                match row {
                    Ok(row) => rows.push(row),
                    Err(error) => notes.push(self.note(&name, &error)),
                }
                self.bar.inc(1);
            }
        }
        const ROUNDS: usize = 3;
        for round in 0..ROUNDS {
            for row in &mut rows {
                let name = format!("{} {}", row.choice.name(), row.schedule);
                let (shape, element) = (self.name(), self.element.name());
                common::say(self.bar, format!("{shape} {element} {name}: round {} of {ROUNDS}", round + 1));
                // slow rows get a round less
                let share = self.arguments.seconds / ROUNDS as f64;
                if row.spent >= self.arguments.seconds || (!row.wall.is_empty() && self.in_time(1.0).is_err()) {
                    continue;
                }
                let round = self.in_time(1.0).and_then(|()| {
                    row.round(self.context, &tensors, &mut timing, share).map_err(|error| error.to_string())
                });
                if let Err(error) = round {
                    notes.push(self.note(&name, &error));
                    row.spent = f64::INFINITY;
                    row.wall.clear();
                }
            }
            self.bar.inc(1);
        }
        notes.extend(rows.iter_mut().filter(|row| !row.wall.is_empty()).map(|row| self.report(row)));
        notes
    }

    fn report(&self, row: &mut Row) -> Value {
        let plan = row.head.plan();
        let (wall, wall_best) = common::median_best(&mut row.wall);
        let mut both: Vec<f64> = row.gpu[0].iter().zip(&row.gpu[1]).map(|(f, b)| f + b).collect();
        let timed = !both.is_empty();
        let [forward, backward] = row.gpu.each_mut().map(|times| common::median_best(times));
        let (gpu, gpu_best) = common::median_best(&mut both);
        let shape = self.data.shape;
        let work = 6.0 * shape.rows() as f64 * shape.dim() as f64 * shape.classes() as f64;
        let rate = work / if timed { gpu_best } else { wall_best } * 1e-6;
        json!({
            "adapter": self.context.name(), "shape": self.name(), "element": self.element.name(),
            "schedule": row.schedule, "tile": row.choice.name(), "planned_tile": plan.schedule().tile.name(), "runs": row.wall.len(),
            // false where a budget without end did not help: a limit of the device
            "kept": plan.schedule().keep, "chunks": plan.schedule().chunks.len(),
            "steps": plan.forward().len() + plan.backward().len(), "workspace_bytes": plan.workspace_bytes(),
            "first_ms": row.first, "wall_ms": wall, "wall_best_ms": wall_best,
            "clock": if timed { "timestamps" } else { "wall" },
            "gpu_ms": timed.then_some(gpu), "gpu_best_ms": timed.then_some(gpu_best),
            "forward_ms": timed.then_some(forward.0), "backward_ms": timed.then_some(backward.0),
            "gflops_6ndc": rate, "share_of_fma_peak": self.peak.map(|peak| rate / peak), "kernels_ms": row.profile,
        })
    }
}

fn table(rows: &[Value]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "shape",
        "element",
        "schedule",
        "tile",
        "chunks",
        "workspace MB",
        "GPU ms",
        "best",
        "forward",
        "backward",
        "wall ms",
        "best",
        "GFLOP/s",
        "of peak",
    ]);
    let number = |value: &Value, digits| value.as_f64().map_or("-".into(), |v| format!("{v:.digits$}"));
    for row in rows.iter().filter(|row| row["skipped"].is_null()) {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        let mut cells: Vec<String> = ["shape", "element", "schedule", "tile"].map(text).into();
        cells.push(row["chunks"].to_string());
        cells.push(number(&json!(row["workspace_bytes"].as_f64().unwrap_or(0.0) * 1e-6), 2));
        for key in ["gpu_ms", "gpu_best_ms", "forward_ms", "backward_ms", "wall_ms", "wall_best_ms"] {
            cells.push(number(&row[key], 3));
        }
        cells.push(number(&row["gflops_6ndc"], 1));
        cells.push(row["share_of_fma_peak"].as_f64().map_or("-".into(), |v| format!("{:.0} %", v * 100.0)));
        table.add_row(cells);
    }
    table
}

/// Kernels by their share, the largest first.
fn profile(row: &Value) -> String {
    let kernels = row["kernels_ms"].as_object().into_iter().flatten();
    let mut kernels: Vec<_> = kernels.map(|(name, ms)| (name, ms.as_f64().unwrap_or(0.0))).collect();
    kernels.sort_by(|a, b| b.1.total_cmp(&a.1));
    let sum: f64 = kernels.iter().map(|k| k.1).sum();
    let parts: Vec<_> =
        kernels.iter().map(|(name, ms)| format!("{name} {ms:.3} ({:.0} %)", ms / sum * 100.0)).collect();
    format!("{}: {sum:.3} ms in all steps: {}", key(row), parts.join(", "))
}

fn key(row: &Value) -> String {
    ["shape", "element", "schedule", "tile"].map(|key| row[key].as_str().unwrap_or("-")).join(" ")
}

fn main() -> ExitCode {
    let (start, mut wrong) = (Instant::now(), false);
    let arguments = Arguments::parse();
    let probed = common::load("probe.json");
    let loss = MarginSoftmax::arcface();
    for context in common::contexts(arguments.adapter.as_deref()) {
        let mut shapes = arguments.shape.clone();
        if shapes.is_empty() {
            shapes = vec![SMALL, B];
            if !context.is_software() {
                shapes.extend(LARGE);
            }
        }
        let elements: Vec<_> = ELEMENTS
            .iter()
            .filter(|(element, _)| arguments.element.as_deref().is_none_or(|only| only == element.name()))
            .collect();
        let peak =
            probed.iter().find(|row| row["adapter"] == context.name()).and_then(|row| row["f32_gflops"].as_f64());
        println!("\n{}", context.name());
        let bar = common::bar(shapes.len() * elements.len() * (2 * Choice::all(&arguments).len() + 3));
        let mut rows = vec![];
        for &sizes in &shapes {
            for &&(element, round) in &elements {
                common::say(&bar, format!("{sizes:?} {}: expected results on the CPU", element.name()));
                let data = Data::new(sizes, round);
                let expected = expected(&loss, &data);
                let session = Session {
                    arguments: &arguments,
                    context: &context,
                    data: &data,
                    expected: &expected,
                    element,
                    bar: &bar,
                    peak,
                    start,
                };
                rows.extend(session.run(&loss));
            }
        }
        bar.finish_and_clear();
        println!("{}\n", table(&rows));
        for row in &rows {
            match row["skipped"].as_str() {
                Some(why) => println!("{}: {why}", key(row)),
                None => println!("{}", profile(row)),
            }
        }
        common::store("gpu.json", &["adapter", "shape", "element", "schedule", "tile"], &rows);
        wrong |= rows.iter().any(|row| row["skipped"].as_str().is_some_and(|why| why.contains(WRONG)));
    }
    if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// By the reference where that takes no minutes, else by the CPU path.
fn expected(loss: &MarginSoftmax, data: &Data) -> Output {
    let shape: Shape = data.shape;
    let few = shape.rows() * shape.classes() * shape.dim() < 20_000_000;
    let backend = if few { Backend::reference() } else { Backend::cpu() };
    let mut head = backend.head_with(loss, shape, &Options::default()).unwrap();
    head.evaluate(&data.batch()).unwrap()
}

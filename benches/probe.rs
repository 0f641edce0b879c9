//! What each adapter is, allows and can do at best: the yardsticks of the other GPU benches.
//!
//! Peak rates come from kernels that do nothing else, with results that are checked; a dispatch starts small and grows
//! until it takes 50 ms, so that no watchdog bites. GPU time by timestamps where the device has them, else wall time: the
//! row `clock` says which. Rows land in `benches/results/probe.json`.

mod common;

use std::{cell::RefCell, process::ExitCode, time::Instant};

use clap::Parser;
use comfy_table::Table;
use indicatif::ProgressBar;
use margin_softmax::{
    Error, Result,
    gpu::{Context, Tensor, timing::Timing},
    plan::Element,
};
use serde_json::{Value, json};

/// What the adapters can do.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    of: common::Adapters,
}

/// A dispatch takes about this long, in seconds: far from any watchdog, far above the clock's grain.
const LONG: f64 = 0.05;

/// Independent chains of four values in an invocation of the FMA kernel: few for the registers of a CPU, many for the
/// latency of a GPU. The best counts.
const CHAINS: [usize; 3] = [2, 4, 8];
/// Steps of each chain in one turn of its loop.
const STEPS: usize = 16;
/// llvmpipe stops a shader after 65,535 turns.
const MAX_TURNS: u32 = 4095;

/// Each chain counts up by STEPS in every even turn, and down again in every odd one: exact in f16 too. `x` is 1 and `y`
/// is the step, but the compiler does not know.
fn fma_kernel(half: bool, chains: usize) -> String {
    let value = if half { "f16" } else { "f32" };
    let each = |line: &dyn Fn(usize) -> String| (0..chains).map(line).collect::<Vec<_>>().join("\n");
    let start = each(&|i| format!("    var a{i} = vec4<number>(number(lane % 8u)) + vec4<number>(0, 1, 2, 3);"));
    let step = each(&|i| format!("        a{i} = fma(a{i}, x, y);"));
    let steps = vec![step; STEPS].join("\n");
    let sum = (0..chains).map(|i| format!("a{i}")).collect::<Vec<_>>().join(" + ");
    format!(
        "{enable}alias number = {value};
struct Numbers {{ x: f32, y: f32, turns: u32, unused: u32 }}
@group(0) @binding(0) var<storage, read> numbers: Numbers;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<f32>>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {{
    let x = vec4<number>(number(numbers.x));
{start}
    var turn = 0u;
    for (; turn < numbers.turns; turn++) {{
        let y = vec4<number>(number(select(numbers.y, -numbers.y, (turn & 1u) == 1u)));
{steps}
    }}
    let sum = vec4<f32>({sum}) + f32(turn) * 1024.0;
    result[(id.y * groups.x + id.x) % 1024u * 64u + lane] = sum;
}}
",
        enable = if half { "enable f16;\n" } else { "" }
    )
}

const COPY: &str = "
@group(0) @binding(0) var<storage, read> numbers: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<u32>>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = (id.y * groups.x + id.x) * 256u + lane;
    if (i < arrayLength(&result)) { result[i] = numbers[i]; }
}
";

const FILL: &str = "
@group(0) @binding(0) var<storage, read> numbers: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<u32>>;
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = (id.y * groups.x + id.x) * 256u + lane;
    if (i < arrayLength(&result)) { result[i] = (vec4(0u, 1u, 2u, 3u) + 4u * i) * 2654435761u + numbers[0]; }
}
";

/// Writes no more than one word, so that dispatches after each other must wait.
const TOUCH: &str = "
@group(0) @binding(0) var<storage, read> numbers: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x == 0u) { result[0] += numbers[0]; }
}
";

const EMPTY: &str = "@compute @workgroup_size(64) fn main() {}";

/// A device, and a clock.
struct Probe {
    context: Context,
    timing: RefCell<Option<Timing>>,
}

/// A pipeline with its buffers.
struct Kernel(wgpu::ComputePipeline, Option<wgpu::BindGroup>);

impl Probe {
    fn open(adapter: &wgpu::Adapter) -> Result<Self> {
        let wanted = wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY;
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: adapter.limits(),
            required_features: adapter.features() & wanted,
            ..Default::default()
        };
        let opened = pollster::block_on(adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|error| Error::NoAdapter(error.to_string()))?;
        // wgpu would panic; a row that is wrong for it is found by its check
        device.on_uncaptured_error(std::sync::Arc::new(|error| eprintln!("{error}")));
        let context = Context::from_device(&device, &queue)?;
        let timing = RefCell::new(Timing::new(&context).ok());
        Ok(Self { context, timing })
    }

    fn has(&self, feature: wgpu::Features) -> bool {
        self.context.device().features().contains(feature)
    }

    fn clock(&self) -> &'static str {
        if self.timing.borrow().is_some() { "timestamps" } else { "wall" }
    }

    /// Reads binding 0, writes binding 1.
    fn kernel(&self, source: &str, buffers: Option<[&Tensor; 2]>) -> Result<Kernel> {
        let device = self.context.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let source = wgpu::ShaderSource::Wgsl(source.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let group = buffers.map(|buffers| {
            let entry = |i: usize| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: buffers[i].buffer().as_entire_binding(),
            };
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[entry(0), entry(1)],
            })
        });
        match pollster::block_on(scope.pop()) {
            Some(error) => Err(Error::Device(error.to_string())),
            None => Ok(Kernel(pipeline, group)),
        }
    }

    /// Seconds of `count` dispatches in one pass.
    fn time(&self, kernel: &Kernel, groups: u32, count: u32) -> Result<f64> {
        let mut timing = self.timing.borrow_mut();
        let mut encoder = self.context.device().create_command_encoder(&Default::default());
        let timestamp_writes = timing.as_mut().map(|timing| timing.span("probe")).transpose()?;
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        pass.set_pipeline(&kernel.0);
        if let Some(group) = &kernel.1 {
            pass.set_bind_group(0, group, &[]);
        }
        let y = groups.div_ceil(65_535);
        for _ in 0..count {
            pass.dispatch_workgroups(groups.div_ceil(y), y, 1);
        }
        drop(pass);
        let commands = encoder.finish();
        let start = Instant::now();
        self.context.queue().submit([commands]);
        common::wait(&self.context);
        let wall = start.elapsed().as_secs_f64();
        match timing.as_mut() {
            Some(timing) => Ok(timing.read()?.first().map_or(wall, |span| span.nanoseconds * 1e-9)),
            None => Ok(wall),
        }
    }

    /// Grows what `run` does until it takes [`LONG`]; then the best rate of five, in work per second.
    fn rate(&self, most: u32, work: impl Fn(u32) -> f64, run: impl Fn(u32) -> Result<f64>) -> Result<f64> {
        let mut size = 1;
        run(size)?; // a first dispatch compiles
        loop {
            let seconds = run(size)?.max(1e-7);
            if seconds >= LONG || size >= most {
                break;
            }
            size = (f64::from(size) * (1.2 * LONG / seconds).clamp(1.5, 4.0)).ceil().min(f64::from(most)) as u32;
        }
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            best = best.min(run(size)?);
        }
        Ok(work(size) / best.max(1e-9))
    }

    /// Flop per second of fused multiply-adds.
    fn fma(&self, half: bool) -> Result<f64> {
        CHAINS.iter().try_fold(0.0_f64, |best, &chains| Ok(best.max(self.fma_of(half, chains)?)))
    }

    fn fma_of(&self, half: bool, chains: usize) -> Result<f64> {
        const GROUPS: u32 = 4096;
        let numbers = Tensor::empty(&self.context, &[4], Element::U32)?;
        let result = Tensor::empty(&self.context, &[1024 * 64 * 4], Element::F32)?;
        let kernel = self.kernel(&fma_kernel(half, chains), Some([&numbers, &result]))?;
        // turns first, then groups; an odd number of turns ends on the way up
        let sizes = |size: u32| {
            let turns = (2 * size - 1).min(MAX_TURNS);
            (turns, GROUPS * (2 * size - 1).div_ceil(MAX_TURNS))
        };
        let run = |size| {
            let (turns, groups) = sizes(size);
            numbers.write(&self.context, &[1_f32.to_bits(), 1_f32.to_bits(), turns, 0])?;
            let seconds = self.time(&kernel, groups, 1)?;
            let values = result.read::<f32>(&self.context)?;
            let expected = |i: usize| {
                let first = (i / 4 % 64 % 8 + i % 4 + STEPS) as f32;
                chains as f32 * first + turns as f32 * 1024.0
            };
            match values.iter().enumerate().find(|&(i, &v)| v != expected(i)) {
                Some((i, v)) => Err(Error::Device(format!("WRONG RESULT: value {i} is {v}, expected {}", expected(i)))),
                None => Ok(seconds),
            }
        };
        let work = |size| {
            let (turns, groups) = sizes(size);
            f64::from(turns) * f64::from(groups) * (64 * chains * STEPS * 4 * 2) as f64
        };
        self.rate(MAX_TURNS * 128, work, run)
    }

    /// Bytes per second, read and written together.
    fn copy(&self, software: bool) -> Result<f64> {
        let limits = self.context.limits();
        let largest = limits.max_binding.min(limits.max_buffer);
        // beyond every cache
        let bytes = largest.min(if software { 64 << 20 } else { 256 << 20 }) / 4096 * 4096;
        let words = (bytes / 4) as usize;
        let seed = Tensor::upload(&self.context, &[4], &[7_u32, 0, 0, 0])?;
        let from = Tensor::empty(&self.context, &[words], Element::U32)?;
        let to = Tensor::empty(&self.context, &[words], Element::U32)?;
        let groups = (words / 4).div_ceil(256) as u32;
        self.time(&self.kernel(FILL, Some([&seed, &from]))?, groups, 1)?;
        let kernel = self.kernel(COPY, Some([&from, &to]))?;
        let rate = self.rate(1000, |n| 2.0 * bytes as f64 * f64::from(n), |n| self.time(&kernel, groups, n))?;
        for (i, &v) in to.read::<u32>(&self.context)?.iter().enumerate() {
            let expected = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(7);
            if v != expected {
                return Err(Error::Device(format!("WRONG RESULT: word {i} is {v}, expected {expected}")));
            }
        }
        Ok(rate)
    }

    /// Seconds of a dispatch that does nothing, and of one that must wait for the one before.
    fn dispatches(&self) -> Result<[f64; 2]> {
        let one = Tensor::upload(&self.context, &[4], &[1_u32, 0, 0, 0])?;
        let sum = Tensor::empty(&self.context, &[4], Element::U32)?;
        let mut total = 0;
        let touch = self.kernel(TOUCH, Some([&one, &sum]))?;
        let empty = self.kernel(EMPTY, None)?;
        let mut seconds = [0.0; 2];
        for (kernel, seconds) in [&empty, &touch].into_iter().zip(&mut seconds) {
            let count = std::cell::Cell::new(0);
            let run = |n| {
                count.set(count.get() + n);
                self.time(kernel, 1, n)
            };
            *seconds = 1.0 / self.rate(1 << 14, f64::from, run)?;
            total = count.get();
        }
        match sum.read::<u32>(&self.context)?[0] {
            found if found == total => Ok(seconds),
            found => Err(Error::Device(format!("WRONG RESULT: {total} dispatches added up to {found}"))),
        }
    }

    /// Median seconds of one empty dispatch from submit to idle, and of one whose four bytes are read back.
    fn latencies(&self) -> Result<[f64; 2]> {
        let device = self.context.device();
        let one = Tensor::upload(&self.context, &[4], &[1_u32, 0, 0, 0])?;
        let sum = Tensor::empty(&self.context, &[4], Element::U32)?;
        let kernel = self.kernel(TOUCH, Some([&one, &sum]))?;
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 16,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let commands = |read: bool| {
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&kernel.0);
            pass.set_bind_group(0, &kernel.1, &[]);
            pass.dispatch_workgroups(1, 1, 1);
            drop(pass);
            if read {
                encoder.copy_buffer_to_buffer(sum.buffer(), 0, &staging, 0, 16);
            }
            encoder.finish()
        };
        let mut times = [vec![], vec![]];
        let mut total = 0;
        for round in 0..110 {
            for (read, times) in [false, true].into_iter().zip(&mut times) {
                let commands = commands(read);
                total += 1;
                let start = Instant::now();
                self.context.queue().submit([commands]);
                if read {
                    staging.map_async(wgpu::MapMode::Read, .., |_| {});
                }
                common::wait(&self.context);
                if read {
                    let view = staging.get_mapped_range(..).map_err(|error| Error::Device(error.to_string()))?;
                    let found = bytemuck::pod_read_unaligned::<u32>(&view[..4]);
                    if found != total {
                        return Err(Error::Device(format!("WRONG RESULT: {total} dispatches added up to {found}")));
                    }
                }
                let seconds = start.elapsed().as_secs_f64();
                if read {
                    staging.unmap();
                }
                if round >= 10 {
                    times.push(seconds);
                }
            }
        }
        Ok(times.map(|mut times| common::median_best(&mut times).0))
    }
}

/// What needs no measurement.
fn describe(adapter: &wgpu::Adapter) -> Value {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let coop = adapter.cooperative_matrix_properties().into_iter().map(|p| {
        let saturating = if p.saturating_accumulation { ", saturating" } else { "" };
        format!("{}x{}x{} {:?} to {:?}{saturating}", p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type)
    });
    let subgroups = features.contains(wgpu::Features::SUBGROUP);
    json!({
        "adapter": common::name(&info), "device_type": format!("{:?}", info.device_type),
        "backend": format!("{:?}", info.backend), "driver": format!("{} {}", info.driver, info.driver_info).trim(),
        "f16": features.contains(wgpu::Features::SHADER_F16),
        "timestamps": features.contains(wgpu::Features::TIMESTAMP_QUERY),
        "subgroups": subgroups.then_some([info.subgroup_min_size, info.subgroup_max_size]),
        "cooperative_feature": features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        "cooperative_matrices": coop.collect::<Vec<_>>(),
        "max_buffer_mib": limits.max_buffer_size >> 20, "max_binding_mib": limits.max_storage_buffer_binding_size >> 20,
        "storage_buffers": limits.max_storage_buffers_per_shader_stage,
        "invocations": limits.max_compute_invocations_per_workgroup,
        "workgroup_bytes": limits.max_compute_workgroup_storage_size,
        "groups_per_axis": limits.max_compute_workgroups_per_dimension,
        "alignment": limits.min_storage_buffer_offset_alignment,
    })
}

fn measure(adapter: &wgpu::Adapter, row: &mut Value, bar: &ProgressBar) {
    let name = row["adapter"].as_str().unwrap_or_default().to_owned();
    let failed = |what: &str, error: Error| format!("{what}: {error}");
    let probe = match Probe::open(adapter) {
        Ok(probe) => probe,
        Err(error) => return row["failed"] = json!([failed("open", error)]),
    };
    row["clock"] = json!(probe.clock());
    let software = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    let mut failures = vec![];
    let mut put = |what: &str, keys: &[&str], run: &dyn Fn() -> Result<Vec<f64>>| {
        common::say(bar, format!("{name}: {what}"));
        match run() {
            Ok(values) => keys.iter().zip(values).for_each(|(key, value)| row[*key] = json!(value)),
            Err(error) => failures.push(failed(what, error)),
        }
        bar.inc(1);
    };
    put("f32 FMA", &["f32_gflops"], &|| Ok(vec![probe.fma(false)? * 1e-9]));
    if probe.has(wgpu::Features::SHADER_F16) {
        put("f16 FMA", &["f16_gflops"], &|| Ok(vec![probe.fma(true)? * 1e-9]));
    }
    put("copy", &["copy_gb_per_s"], &|| Ok(vec![probe.copy(software)? * 1e-9]));
    put("dispatches", &["dispatch_us", "dependent_dispatch_us"], &|| Ok(probe.dispatches()?.map(|s| s * 1e6).to_vec()));
    put("latencies", &["submit_wait_us", "readback_us"], &|| Ok(probe.latencies()?.map(|s| s * 1e6).to_vec()));
    if !failures.is_empty() {
        row["failed"] = json!(failures);
    }
}

/// A column per adapter.
fn table(rows: &[Value]) -> Table {
    let lines = [
        ("device_type", "kind"),
        ("backend", "backend"),
        ("driver", "driver"),
        ("f16", "f16 in shaders"),
        ("timestamps", "timestamps"),
        ("subgroups", "subgroup sizes"),
        ("cooperative_feature", "cooperative matrices"),
        ("cooperative_matrices", "their shapes and types"),
        ("max_buffer_mib", "largest buffer, MiB"),
        ("max_binding_mib", "largest binding, MiB"),
        ("storage_buffers", "storage buffers per stage"),
        ("invocations", "invocations per group"),
        ("workgroup_bytes", "workgroup memory, bytes"),
        ("groups_per_axis", "groups per axis"),
        ("alignment", "offset alignment, bytes"),
        ("clock", "clock"),
        ("f32_gflops", "f32 FMA, GFLOP/s"),
        ("f16_gflops", "f16 FMA, GFLOP/s"),
        ("copy_gb_per_s", "copy, GB/s read + written"),
        ("dispatch_us", "empty dispatch, µs"),
        ("dependent_dispatch_us", "dispatch that waits for the last, µs"),
        ("submit_wait_us", "submit to idle, µs (wall)"),
        ("readback_us", "submit to 4 bytes read, µs (wall)"),
        ("failed", "failed"),
    ];
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    let names = rows.iter().map(|row| row["adapter"].as_str().unwrap_or_default().to_owned());
    table.set_header(std::iter::once(String::new()).chain(names));
    for (key, label) in lines.into_iter().filter(|(key, _)| rows.iter().any(|row| !row[*key].is_null())) {
        let cell = |row: &Value| match &row[key] {
            Value::Null => "-".into(),
            Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
            Value::String(text) => text.clone(),
            Value::Number(n) if n.is_f64() => format!("{:.1}", n.as_f64().unwrap_or(f64::NAN)),
            Value::Array(all) => {
                let all: Vec<_> = all.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
                all.join(if key == "subgroups" { " to " } else { "; " })
            }
            other => other.to_string(),
        };
        table.add_row(std::iter::once(label.to_owned()).chain(rows.iter().map(cell)));
    }
    table
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let found = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::PRIMARY));
    let adapters = common::choose(found, arguments.of.adapter.as_deref(), |adapter| {
        let info = adapter.get_info();
        (common::name(&info), info.device_type == wgpu::DeviceType::Cpu)
    });
    let bar = common::bar(5 * adapters.len());
    let mut rows = vec![];
    for adapter in &adapters {
        let mut row = describe(adapter);
        measure(adapter, &mut row, &bar);
        rows.push(row);
    }
    bar.finish_and_clear();
    if !rows.is_empty() {
        println!("{}", table(&rows));
        common::store("probe.json", &["adapter"], &rows);
    }
    let wrong = |why: &Value| why.as_str().is_some_and(|why| why.contains("WRONG"));
    if rows.iter().any(|row| row["failed"].as_array().is_some_and(|all| all.iter().any(wrong))) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

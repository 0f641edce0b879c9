//! Steps of this crate on request, for a caller that times them in turn with something else: see `benches/peers`.
//!
//! ```text
//! time_head [options] <rows> <classes> <dim> <x.f32> <w.f32> <labels.i64>      raw little-endian files
//! stdin     step                        compute ArcFace once
//!           write <dx.f32> <dw.f32>     write the last gradients; a file is empty where none was asked for
//! stdout    one line of JSON: at the start what runs, after a step its time and loss, after a write nothing new
//! ```
//!
//! `workspace_bytes` is what a step holds beside inputs and gradients: on the CPU the allocator's peak while a head is made
//! and used once, on a GPU the buffers that the head made. On a GPU all tensors stay on the device, a step is recorded,
//! submitted and waited for, and `device_ms` is what timestamps say where the device has them.

use std::{error::Error, io::Write, path::PathBuf, time::Instant};

use clap::{Parser, ValueEnum};
use margin_softmax::{Budget, Error as HeadError, MarginSoftmax, Options, Shape, Tile, Want};
use serde_json::json;

// counts what the CPU path allocates
#[path = "../tests/heap/mod.rs"]
mod heap;

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Args {
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
    /// A part of the GPU's name, software adapters included; else the first hardware GPU
    #[arg(long)]
    adapter: Option<String>,
    /// Bytes of workspace; where no schedule fits the least that one needs is taken
    #[arg(long, default_value_t = Budget::default().get())]
    budget: u64,
    #[arg(long, value_enum, default_value = "both")]
    want: Wanted,
    /// The matrix tile of the GPU path
    #[arg(long, value_parser = tile)]
    tile: Option<Tile>,
    rows: usize,
    classes: usize,
    dim: usize,
    x: PathBuf,
    w: PathBuf,
    labels: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Device {
    Cpu,
    Gpu,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Wanted {
    Loss,
    Dx,
    Dw,
    Both,
}

fn tile(name: &str) -> Result<Tile, String> {
    let names = || Tile::ALL.iter().map(|t| t.name()).collect::<Vec<_>>().join(", ");
    Tile::ALL.iter().copied().find(|t| t.name() == name).ok_or_else(|| format!("there are {}", names()))
}

/// What is measured.
trait Peer {
    /// The device, and whether it computes in software.
    fn device(&self) -> (String, bool);
    /// `keep` or `recompute`.
    fn schedule(&self) -> &'static str;
    fn workspace(&self) -> u64;
    fn step(&mut self) -> Result<Step>;
    /// dX and dW.
    fn gradients(&mut self) -> Result<[Vec<f32>; 2]>;
}

struct Step {
    ms: f64,
    device_ms: Option<f64>,
    loss: f32,
}

/// The caller's data.
struct Data {
    shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    labels: Vec<i64>,
}

impl Data {
    fn read(args: &Args) -> Result<Self> {
        let floats = |path| -> std::io::Result<Vec<f32>> {
            Ok(std::fs::read(path)?.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        };
        let labels = std::fs::read(&args.labels)?.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        let shape = Shape::new(args.rows, args.classes, args.dim)?;
        Ok(Self { shape, x: floats(&args.x)?, w: floats(&args.w)?, labels })
    }
}

/// Makes something within the budget, or within the least that is enough.
fn within<T>(budget: u64, mut make: impl FnMut(Budget) -> margin_softmax::Result<T>) -> Result<T> {
    match make(Budget::bytes(budget)) {
        Err(HeadError::Budget { needed, .. }) => Ok(make(Budget::bytes(needed))?),
        other => Ok(other?),
    }
}

mod cpu {
    use std::sync::atomic::Ordering::SeqCst;

    use margin_softmax::{Backend, Batch, Output, SliceHead};

    use super::{
        heap::{LIVE, PEAK},
        *,
    };

    pub struct Cpu {
        data: Data,
        head: SliceHead,
        out: Output,
        workspace: usize,
    }

    impl Cpu {
        pub fn new(data: Data, budget: u64, want: Want) -> Result<Self> {
            let loss = MarginSoftmax::arcface();
            // threads start, and each takes the one block of `gemm` that it then keeps for all heads
            let (x, w) = (vec![1.0; 32 * 64], vec![1.0; 128 * 64]);
            let tiny = Batch { embeddings: &x, prototypes: &w, labels: &[1; 32], ..Batch::default() };
            let shape = Shape::new(32, 128, 64)?;
            let warm = || Backend::cpu().head(&loss, shape)?.evaluate(&tiny).map(drop);
            rayon::broadcast(|_| warm()).into_iter().collect::<Result<(), _>>()?;
            warm()?;

            let (n, c, d) = (data.shape.rows(), data.shape.classes(), data.shape.dim());
            let room = |wanted, count| if wanted { Vec::with_capacity(count) } else { vec![] };
            let mut out = Output {
                row_losses: room(true, n),
                target_cosines: room(true, n),
                other_cosines: room(true, n),
                grad_embeddings: room(want.grad_embeddings, n * d),
                grad_prototypes: room(want.grad_prototypes, c * d),
                ..Output::default()
            };
            let before = LIVE.load(SeqCst);
            PEAK.store(before, SeqCst);
            let mut head = within(budget, |budget| {
                Backend::cpu().head_with(&loss, data.shape, &Options { want, budget, ..Options::default() })
            })?;
            head.evaluate_into(&data.batch(), &mut out)?;
            let workspace = PEAK.load(SeqCst) - before;
            Ok(Self { data, head, out, workspace })
        }
    }

    impl Data {
        fn batch(&self) -> Batch<'_> {
            Batch { embeddings: &self.x, prototypes: &self.w, labels: &self.labels, ..Batch::default() }
        }
    }

    impl Peer for Cpu {
        fn device(&self) -> (String, bool) {
            (Backend::cpu().name(), false)
        }
        fn schedule(&self) -> &'static str {
            self.head.schedule()
        }
        fn workspace(&self) -> u64 {
            self.workspace as u64
        }
        fn step(&mut self) -> Result<Step> {
            let start = Instant::now();
            self.head.evaluate_into(&self.data.batch(), &mut self.out)?;
            Ok(Step { ms: start.elapsed().as_secs_f64() * 1e3, device_ms: None, loss: self.out.loss })
        }
        fn gradients(&mut self) -> Result<[Vec<f32>; 2]> {
            Ok([self.out.grad_embeddings.clone(), self.out.grad_prototypes.clone()])
        }
    }
}

mod gpu {
    use margin_softmax::{
        gpu::{BoundHead, Context, Head, Io, Tensor},
        plan::{Element, Layout, Plan},
        wgpu,
    };

    use super::*;

    pub struct Gpu {
        context: Context,
        info: wgpu::AdapterInfo,
        bound: BoundHead,
        loss: Tensor,
        dx: Option<Tensor>,
        dw: Vec<Tensor>,
        want: Want,
        keep: bool,
        workspace: u64,
        timer: Option<Timer>,
    }

    impl Gpu {
        pub fn new(data: &Data, args: &Args, want: Want) -> Result<Self> {
            let (device, queue, info) = pollster::block_on(open(args.adapter.as_deref()))?;
            let context = Context::from_device(&device, &queue)?;
            let loss = MarginSoftmax::arcface();
            let (n, d) = (data.shape.rows(), data.shape.dim());
            let shards = Plan::shards(data.shape, Element::F32, context.limits())?;
            let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
            let plan = within(args.budget, |budget| {
                Plan::head(
                    &loss,
                    data.shape,
                    &layout,
                    context.limits(),
                    &Options { want, budget, tile: args.tile, ..Options::default() },
                )
            })?;
            let keep = plan.schedule().keep;
            let head = Head::new(&context, &loss, plan)?;

            let x = Tensor::upload(&context, &[n, d], &data.x)?;
            let (mut w, mut dw, mut rest) = (vec![], vec![], &data.w[..]);
            for &classes in &shards {
                let (shard, others) = rest.split_at(classes * d);
                w.push(Tensor::upload(&context, &[classes, d], shard)?);
                if want.grad_prototypes {
                    dw.push(Tensor::empty(&context, &[classes, d], Element::F32)?);
                }
                rest = others;
            }
            let labels: Vec<i32> = data.labels.iter().map(|&y| y as i32).collect();
            let labels = Tensor::upload(&context, &[n], &labels)?;
            let out = Tensor::empty(&context, &[1], Element::F32)?;
            let dx = want.grad_embeddings.then(|| Tensor::empty(&context, &[n, d], Element::F32)).transpose()?;
            let before = context.allocated_bytes();
            let bound = head.bind(&Io {
                grad_embeddings: dx.as_ref(),
                grad_prototypes: &dw.iter().collect::<Vec<_>>(),
                ..Io::new(&x, &w.iter().collect::<Vec<_>>(), &labels, &out)
            })?;
            let workspace = context.allocated_bytes() - before;
            let timer = Timer::new(&context);
            Ok(Self { context, info, bound, loss: out, dx, dw, want, keep, workspace, timer })
        }
    }

    impl Peer for Gpu {
        fn device(&self) -> (String, bool) {
            (self.info.name.clone(), self.info.device_type == wgpu::DeviceType::Cpu)
        }
        fn schedule(&self) -> &'static str {
            if self.keep { "keep" } else { "recompute" }
        }
        fn workspace(&self) -> u64 {
            self.workspace
        }
        fn step(&mut self) -> Result<Step> {
            let start = Instant::now();
            let mut encoder = self.context.device().create_command_encoder(&Default::default());
            if let Some(timer) = &self.timer {
                encoder.write_timestamp(&timer.set, 0);
            }
            self.bound.record_forward(&mut encoder);
            if self.want.any() {
                self.bound.record_backward(&mut encoder);
            }
            if let Some(timer) = &self.timer {
                encoder.write_timestamp(&timer.set, 1);
                encoder.resolve_query_set(&timer.set, 0..2, timer.stamps.buffer(), 0);
            }
            self.context.queue().submit([encoder.finish()]);
            self.context.device().poll(wgpu::PollType::wait_indefinitely())?;
            let ms = start.elapsed().as_secs_f64() * 1e3;
            let device_ms = self.timer.as_ref().map(|timer| timer.ms(&self.context)).transpose()?;
            let loss = self.loss.read::<f32>(&self.context)?.first().copied().unwrap_or(f32::NAN);
            Ok(Step { ms, device_ms, loss })
        }
        fn gradients(&mut self) -> Result<[Vec<f32>; 2]> {
            let read = |tensor: &Tensor| tensor.read::<f32>(&self.context);
            let dx = self.dx.as_ref().map(read).transpose()?.unwrap_or_default();
            let dw = self.dw.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat();
            Ok([dx, dw])
        }
    }

    struct Timer {
        set: wgpu::QuerySet,
        /// Two u64, read as four i32.
        stamps: Tensor,
        period: f64,
    }

    const TIMESTAMPS: wgpu::Features =
        wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

    impl Timer {
        fn new(context: &Context) -> Option<Self> {
            let device = context.device();
            if !device.features().contains(TIMESTAMPS) {
                return None;
            }
            let set = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("step"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::STORAGE;
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("stamps"),
                size: 16,
                usage,
                mapped_at_creation: false,
            });
            let stamps = Tensor::from_buffer(&buffer, 0, &[4], Element::I32).ok()?;
            Some(Self { set, stamps, period: f64::from(context.queue().get_timestamp_period()) })
        }

        fn ms(&self, context: &Context) -> Result<f64> {
            let words = self.stamps.read::<i32>(context)?;
            let [a, b, c, d] = words[..] else { return Err("two stamps have four words".into()) };
            let stamp = |low: i32, high: i32| u64::from(low as u32) | u64::from(high as u32) << 32;
            Ok(stamp(c, d).wrapping_sub(stamp(a, b)) as f64 * self.period / 1e6)
        }
    }

    /// A device of our own, with timestamps where the adapter has them: `Context::new` opens one without.
    async fn open(name: Option<&str>) -> Result<(wgpu::Device, wgpu::Queue, wgpu::AdapterInfo)> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::PRIMARY;
        let found = wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::PRIMARY).await;
        let fits = |info: &wgpu::AdapterInfo| match name {
            Some(name) => info.name.to_lowercase().contains(&name.to_lowercase()),
            None => info.device_type != wgpu::DeviceType::Cpu,
        };
        let rank = |info: &wgpu::AdapterInfo| match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            _ => 2,
        };
        let best = found.iter().filter(|a| fits(&a.get_info())).min_by_key(|a| rank(&a.get_info()));
        let Some(adapter) = best else {
            let names = found.iter().map(|a| a.get_info().name).collect::<Vec<_>>().join(", ");
            return Err(format!("no such adapter among [{names}]").into());
        };
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: adapter.limits(),
            required_features: adapter.features() & TIMESTAMPS,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await?;
        Ok((device, queue, adapter.get_info()))
    }
}

fn peer(args: &Args, want: Want) -> Result<Box<dyn Peer>> {
    let data = Data::read(args)?;
    match args.device {
        Device::Cpu => Ok(Box::new(cpu::Cpu::new(data, args.budget, want)?)),
        Device::Gpu => Ok(Box::new(gpu::Gpu::new(&data, args, want)?)),
    }
}

fn main() -> Result {
    let args = Args::parse();
    let want = match args.want {
        Wanted::Loss => Want::LOSS,
        Wanted::Dx => Want::EMBEDDINGS,
        Wanted::Dw => Want::PROTOTYPES,
        Wanted::Both => Want::ALL,
    };
    let mut peer = peer(&args, want)?;
    let mut stdout = std::io::stdout().lock();
    let mut say = |line: serde_json::Value| writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    let (device, software) = peer.device();
    say(json!({
        "version": format!("margin-softmax {}", env!("CARGO_PKG_VERSION")),
        "device": device,
        "software": software,
        "schedule": peer.schedule(),
        "workspace_bytes": peer.workspace(),
    }))?;
    for line in std::io::stdin().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["step"] => {
                let Step { ms, device_ms, loss } = peer.step()?;
                say(json!({ "ms": ms, "device_ms": device_ms, "loss": loss }))?;
            }
            ["write", dx, dw] => {
                for (path, values) in [dx, dw].into_iter().zip(peer.gradients()?) {
                    std::fs::write(path, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
                }
                say(json!({}))?;
            }
            _ => return Err(format!("`{line}` is neither `step` nor `write <dx> <dw>`").into()),
        }
    }
    Ok(())
}

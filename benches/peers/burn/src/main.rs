//! The ArcFace head (s = 64, m = 0.5), forward and backward in burn: a process that computes a step when told to, with the
//! lines of `examples/time_head.rs`.
//!
//! ```text
//! burn-peer flex|wgpu <adapter, or -> <rows> <classes> <dim> <x.f32> <w.f32> <labels.i64>
//! ```
//!
//! `workspace_bytes`, beyond inputs and gradients: flex, the allocator's peak during a step; wgpu, the bytes that the
//! device's memory pools hold after some steps.

use std::{
    error::Error,
    io::Write,
    sync::atomic::Ordering::SeqCst,
    time::Instant,
};

use burn::tensor::{
    Device, DeviceKind, IndexingUpdateOp, Int, Tensor, TensorData,
    activation::log_softmax,
    wgpu::{WgpuSetup, wgpu},
};
use pollster::block_on;

#[path = "../../../../tests/heap/mod.rs"]
mod heap;

use heap::{LIVE, PEAK};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

const SCALE: f32 = 64.0;
const MARGIN: f32 = 0.5;

fn unit(v: Tensor<2>) -> Tensor<2> {
    let length = v.clone().powi_scalar(2).sum_dim(1).sqrt();
    v / length
}

/// The mean loss; `at` is \[N, 1\].
fn head(x: Tensor<2>, w: Tensor<2>, at: Tensor<2, Int>) -> Tensor<1> {
    let z = (unit(x) * SCALE).matmul(unit(w).transpose());
    let target = z.clone().gather(1, at.clone());
    let c = target.clone() / SCALE;
    let s = ((-c.clone() + 1.0) * (c.clone() + 1.0)).clamp_min(1e-8).sqrt();
    let moved = c.clone() * MARGIN.cos() - s * MARGIN.sin();
    // beyond pi - m a line of slope 1
    let beyond = c.clone().lower_equal_elem(-MARGIN.cos());
    let phi = moved.mask_where(beyond, c - (1.0 - MARGIN.cos())) * SCALE;
    let z = z.scatter(1, at.clone(), phi - target, IndexingUpdateOp::Add);
    -log_softmax(z, 1).gather(1, at).mean()
}

struct Peer {
    device: Device,
    x: Tensor<2>,
    w: Tensor<2>,
    at: Tensor<2, Int>,
    found: Option<(Tensor<1>, Tensor<2>, Tensor<2>)>,
}

impl Peer {
    /// Until the device has done it; the gradients of the step before are dropped first.
    fn step(&mut self) -> Result<f64> {
        self.found = None;
        let start = Instant::now();
        let loss = head(self.x.clone(), self.w.clone(), self.at.clone());
        let gradients = loss.backward();
        let missing = "the head has this gradient";
        let dx = self.x.grad(&gradients).ok_or(missing)?;
        let dw = self.w.grad(&gradients).ok_or(missing)?;
        drop(gradients);
        self.found = Some((loss, dx, dw));
        self.device.sync().map_err(|e| format!("{e:?}"))?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }

    fn loss(&self) -> Result<f32> {
        let (loss, ..) = self.found.as_ref().ok_or("no step yet")?;
        Ok(loss.clone().into_data().iter::<f32>().next().ok_or("a loss is one number")?)
    }

    /// Peak bytes above what is live before, less both gradients.
    fn workspace(&mut self, gradients: u64) -> Result<u64> {
        for _ in 0..3 {
            self.step()?;
        }
        if let Some(usage) = self.device.memory_pool_usage() {
            // inputs and gradients are in the pools too
            return Ok(usage.bytes_reserved.saturating_sub(2 * gradients));
        }
        self.found = None;
        let before = LIVE.load(SeqCst);
        PEAK.store(before, SeqCst);
        self.step()?;
        Ok((PEAK.load(SeqCst) - before) as u64 - gradients)
    }
}

/// The device, and the adapter's name: the first whose name contains `adapter`, in any case.
fn open(backend: &str, adapter: &str) -> Result<(Device, String)> {
    match backend {
        "flex" => return Ok((Device::flex(), format!("CPU, {} threads", std::thread::available_parallelism()?))),
        "wgpu" => {}
        _ => return Err("the backends are flex and wgpu".into()),
    }
    let wanted = |name: &str| adapter == "-" || name.to_lowercase().contains(&adapter.to_lowercase());
    let hardware = (0..4)
        .map(DeviceKind::DiscreteGpu)
        .chain((0..2).map(DeviceKind::IntegratedGpu))
        .chain((0..2).map(DeviceKind::VirtualGpu));
    for kind in hardware {
        let Ok((device, setup)) = Device::wgpu_options().device_kind(kind).init_with_setup() else { continue };
        let name = setup.adapter.get_info().name;
        if wanted(&name) {
            return Ok((device, name));
        }
    }
    // burn knows only the first software adapter, so any other is opened as burn would
    let backends = wgpu::Backends::PRIMARY;
    let descriptor = wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    let instance = wgpu::Instance::new(descriptor);
    let found = block_on(instance.enumerate_adapters(backends));
    let Some(adapter) = found.iter().find(|a| wanted(&a.get_info().name)).cloned() else {
        let names: Vec<String> = found.iter().map(|a| a.get_info().name).collect();
        return Err(format!("burn finds no adapter called {adapter}, only {names:?}").into());
    };
    let left_out = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS | wgpu::Features::all_experimental_mask();
    let (device, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: adapter.features() - left_out,
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    }))?;
    let info = adapter.get_info();
    let setup = WgpuSetup { instance, adapter, device, queue, backend: info.backend };
    Ok((Device::wgpu_options().setup(setup).init()?, info.name))
}

fn main() -> Result {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [backend, adapter, n, c, d, x, w, labels] = &args[..] else {
        return Err("usage: burn-peer flex|wgpu <adapter, or -> <rows> <classes> <dim> <x> <w> <labels>".into());
    };
    let (n, c, d): (usize, usize, usize) = (n.parse()?, c.parse()?, d.parse()?);
    let (device, name) = open(backend, adapter)?;
    let device = device.autodiff();
    let floats = |path: &str, rows: usize| -> Result<Tensor<2>> {
        let values: Vec<f32> = std::fs::read(path)?.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Tensor::<2>::from_data(TensorData::new(values, [rows, d]), &device).require_grad())
    };
    let labels: Vec<i32> = std::fs::read(labels)?.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as i32).collect();
    let at = Tensor::<2, Int>::from_data(TensorData::new(labels, [n, 1]), &device);
    let mut peer = Peer { x: floats(x, n)?, w: floats(w, c)?, at, found: None, device };
    let workspace = peer.workspace((n * d + c * d) as u64 * 4)?;

    let mut stdout = std::io::stdout().lock();
    let mut say = |line: String| writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    say(format!(r#"{{"version": "burn 0.22.1", "device": "{name}", "workspace_bytes": {workspace}}}"#))?;
    for line in std::io::stdin().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["step"] => {
                let ms = peer.step()?;
                say(format!(r#"{{"ms": {ms}, "device_ms": null, "loss": {}}}"#, peer.loss()?))?;
            }
            ["write", dx, dw] => {
                let (_, x, w) = peer.found.as_ref().ok_or("no step yet")?;
                for (path, tensor) in [(dx, x), (dw, w)] {
                    let data = tensor.clone().into_data();
                    std::fs::write(path, data.iter::<f32>().flat_map(f32::to_le_bytes).collect::<Vec<u8>>())?;
                }
                say("{}".into())?;
            }
            _ => return Err(format!("`{line}` is neither `step` nor `write <dx> <dw>`").into()),
        }
    }
    Ok(())
}

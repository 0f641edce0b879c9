//! The engine around the head: a device with callbacks, big buffers, two compute passes of its own.

use std::sync::{Arc, Mutex};

use margin_softmax::{
    Result as Checked,
    gpu::{self, Tensor},
    plan::Element,
    wgpu,
};

pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

pub struct Engine {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Engine {
    /// The adapter whose name contains `name`, or whichever wgpu prefers.
    pub fn open(name: Option<String>) -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapter = match name {
            None => pollster::block_on(instance.request_adapter(&Default::default()))
                .map_err(|e| format!("no adapter: {e}; on Linux mesa-vulkan-drivers is a software one"))?,
            Some(name) => pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
                .into_iter()
                .find(|adapter| adapter.get_info().name.to_lowercase().contains(&name.to_lowercase()))
                .ok_or(format!("no adapter is called `{name}`"))?,
        };
        // what the engine needs itself: here WebGPU's defaults. Large heads gain from `gpu::recommended_limits(&adapter)`
        let mine = wgpu::Limits::default();
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("engine"),
            required_limits: mine.or_better_values_from(&gpu::required_limits()),
            ..Default::default()
        }))?;
        let heard = Arc::new(Mutex::new(vec![]));
        let list = heard.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            list.lock().unwrap_or_else(|e| e.into_inner()).push(error.to_string());
        }));
        println!("device     {}: WebGPU's default limits, no features", adapter.get_info().name);
        Ok(Self { device, queue, heard })
    }

    /// What the engine's own error handler heard.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let (label, mapped_at_creation) = (Some(label), false);
        self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
    }

    /// A buffer for tensors: `STORAGE` is what the library needs, the rest is for the engine's own copies.
    pub fn storage(&self, label: &str, size: u64) -> wgpu::Buffer {
        let copies = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.buffer(label, size, wgpu::BufferUsages::STORAGE | copies)
    }

    /// Over these tensors; writes the last.
    pub fn pass(&self, source: &str, tensors: &[&Tensor]) -> Pass {
        let source = wgpu::ShaderSource::Wgsl(source.into());
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let bound = tensors.iter().enumerate().map(|(i, tensor)| wgpu::BindGroupEntry {
            binding: i as u32,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: tensor.buffer(),
                offset: tensor.offset(),
                size: std::num::NonZeroU64::new(tensor.bytes()),
            }),
        });
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &bound.collect::<Vec<_>>(),
        });
        let values = tensors.last().map_or(0, |tensor| tensor.len());
        Pass { pipeline, group, groups: values.div_ceil(64) as u32 }
    }

    /// Adds copies of these buffers, submits, waits, reads.
    pub fn submit_and_read(
        &self,
        mut encoder: wgpu::CommandEncoder,
        buffers: [&wgpu::Buffer; 2],
    ) -> Result<[Vec<f32>; 2]> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = buffers.map(|buffer| self.buffer("staging", buffer.size(), usage));
        for (buffer, staging) in buffers.iter().zip(&staging) {
            encoder.copy_buffer_to_buffer(buffer, 0, staging, 0, buffer.size());
        }
        self.queue.submit([encoder.finish()]);
        for staging in &staging {
            staging.map_async(wgpu::MapMode::Read, .., |_| {});
        }
        self.device.poll(wgpu::PollType::wait_indefinitely())?;
        let values = |staging: &wgpu::Buffer| -> Result<Vec<f32>> {
            Ok(bytemuck::cast_slice(&staging.get_mapped_range(..)?).to_vec())
        };
        Ok([values(&staging[0])?, values(&staging[1])?])
    }
}

/// Work of the engine's own.
pub struct Pass {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    groups: u32,
}

impl Pass {
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.groups, 1, 1);
    }
}

/// Hands out places in one big buffer, each where a binding may begin.
pub struct Arena {
    alignment: u64,
    end: u64,
    offsets: Vec<u64>,
}

/// A tensor's place.
pub struct Place {
    pub offset: u64,
    shape: Vec<usize>,
    element: Element,
}

impl Arena {
    pub fn new(device: &wgpu::Device) -> Self {
        Self { alignment: device.limits().min_storage_buffer_offset_alignment.into(), end: 0, offsets: vec![] }
    }

    pub fn place(&mut self, shape: &[usize], element: Element) -> Place {
        let offset = self.end.next_multiple_of(self.alignment);
        self.offsets.push(offset);
        let place = Place { offset, shape: shape.to_vec(), element };
        self.end = offset + place.bytes();
        place
    }

    pub fn bytes(&self) -> u64 {
        self.end
    }

    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }
}

impl Place {
    /// The library's view of this place: no copy.
    pub fn of(&self, buffer: &wgpu::Buffer) -> Checked<Tensor> {
        Tensor::from_buffer(buffer, self.offset, &self.shape, self.element)
    }

    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.element.bytes()
    }

    /// This place in a copy of the buffer.
    pub fn values<'a>(&self, all: &'a [f32]) -> &'a [f32] {
        let first = self.offset as usize / 4;
        &all[first..][..self.bytes() as usize / 4]
    }
}

/// X = tanh(F · A), [rows, 24] · [24, 32]: stands for a network.
pub const EMBED: &str = "
@group(0) @binding(0) var<storage, read> features: array<f32>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> embeddings: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if i >= arrayLength(&embeddings) { return; }
    var sum = 0.0;
    for (var k = 0u; k < 24u; k += 1u) { sum += features[i / 32u * 24u + k] * weights[k * 32u + i % 32u]; }
    embeddings[i] = tanh(sum);
}";

/// W -= 0.1 · dW: stands for an optimiser.
pub const STEP: &str = "
@group(0) @binding(0) var<storage, read> gradient: array<f32>;
@group(0) @binding(1) var<storage, read_write> values: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&values) { values[id.x] -= 0.1 * gradient[id.x]; }
}";

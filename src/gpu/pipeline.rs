//! Compiled kernels.

use crate::plan::{Binding, Kernel};

/// A compiled kernel and its explicit layout.
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

impl Pipeline {
    pub fn compile(device: &wgpu::Device, kernel: &Kernel) -> Self {
        let entry =
            |binding: usize, ty: wgpu::BufferBindingType, dynamic: bool, bytes: u64| wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty,
                    has_dynamic_offset: dynamic,
                    min_binding_size: std::num::NonZeroU64::new(bytes),
                },
                count: None,
            };
        let mut entries = vec![
            entry(0, wgpu::BufferBindingType::Uniform, false, Kernel::UNIFORMS[0]),
            entry(1, wgpu::BufferBindingType::Uniform, true, Kernel::UNIFORMS[1]),
        ];
        for (i, binding) in kernel.bindings.iter().enumerate() {
            let read_only = *binding == Binding::Read;
            entries.push(entry(i + 2, wgpu::BufferBindingType::Storage { read_only }, false, 0));
        }
        let label = Some(kernel.name);
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let source = wgpu::ShaderSource::Wgsl(kernel.source.as_str().into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.name),
            compilation_options: Default::default(),
            cache: None,
        });
        Self { pipeline, layout }
    }
}

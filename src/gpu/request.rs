//! Limits and features that an application should request when it opens a device.

use crate::plan::Limits;

/// The least that a device must have: what [`Context::from_device`](super::Context::from_device) refuses to do without,
/// on top of OpenGL ES 3.1's limits. Every device with WebGPU's default limits has it.
///
/// Merge it with the limits of the rest of the application:
///
/// ```
/// # let mine = wgpu::Limits::downlevel_defaults();
/// # use margin_softmax::{gpu, wgpu};
/// let required_limits = mine.or_better_values_from(&gpu::required_limits());
/// assert_eq!(required_limits.max_storage_buffers_per_shader_stage, 8);
/// ```
pub fn required_limits() -> wgpu::Limits {
    let least = Limits::MIN;
    wgpu::Limits {
        max_storage_buffers_per_shader_stage: least.storage_buffers,
        max_compute_invocations_per_workgroup: least.invocations,
        max_compute_workgroup_size_x: least.size_x,
        ..wgpu::Limits::downlevel_defaults()
    }
}

/// [`required_limits`], and from the adapter what lifts bounds: larger buffers and bindings (so fewer shards of
/// prototypes), more workgroups, more workgroup memory, finer offsets. What [`Context::new`](super::Context::new) asks for.
pub fn recommended_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
    let most = adapter.limits();
    wgpu::Limits {
        max_buffer_size: most.max_buffer_size,
        max_storage_buffer_binding_size: most.max_storage_buffer_binding_size,
        max_compute_workgroups_per_dimension: most.max_compute_workgroups_per_dimension,
        max_compute_workgroup_storage_size: most.max_compute_workgroup_storage_size,
        min_storage_buffer_offset_alignment: most.min_storage_buffer_offset_alignment,
        ..required_limits()
    }
}

/// The features that are of use and that the adapter has; nothing needs them. `SHADER_F16`: f16 tensors are read as they
/// are, not unpacked. `TIMESTAMP_QUERY`: [`timing`](super::timing). What [`Context::new`](super::Context::new) asks for.
pub fn optional_features(adapter: &wgpu::Adapter) -> wgpu::Features {
    adapter.features() & (wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY)
}

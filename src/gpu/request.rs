//! The limits and features of a device: those that an application should request, and those that the kernels need.

use crate::{
    Error, Result,
    plan::{CONSTANTS_STRIDE, Kernel, Limits, Vendor, need},
};

/// The least that a device must have: what [`Context::from_device`](super::Context::from_device) refuses to do without,
/// on top of OpenGL ES 3.1's limits. Every device with WebGPU's default limits has it, and of those in its compatibility mode
/// each that has eight storage buffers.
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
/// prototypes), more and wider workgroups, more workgroup memory, finer offsets. What [`Context::new`](super::Context::new) asks for.
pub fn recommended_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
    let most = adapter.limits();
    wgpu::Limits {
        max_buffer_size: most.max_buffer_size,
        max_storage_buffer_binding_size: most.max_storage_buffer_binding_size,
        max_compute_workgroups_per_dimension: most.max_compute_workgroups_per_dimension,
        max_compute_workgroup_storage_size: most.max_compute_workgroup_storage_size,
        max_compute_invocations_per_workgroup: most
            .max_compute_invocations_per_workgroup
            .min(Limits::WEBGPU.invocations),
        max_compute_workgroup_size_x: most.max_compute_workgroup_size_x.min(Limits::WEBGPU.size_x),
        min_storage_buffer_offset_alignment: most.min_storage_buffer_offset_alignment,
        ..required_limits()
    }
}

/// The features that are of use and that the adapter has; nothing needs them. `SHADER_F16`: f16 tensors are read as they
/// are, not unpacked. `TIMESTAMP_QUERY`: [`timing`](super::timing). What [`Context::new`](super::Context::new) asks for.
pub fn optional_features(adapter: &wgpu::Adapter) -> wgpu::Features {
    adapter.features() & (wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY)
}

/// Those that a planner knows.
pub(super) fn limits(device: &wgpu::Limits) -> Limits {
    Limits {
        max_buffer: device.max_buffer_size,
        max_binding: device.max_storage_buffer_binding_size,
        max_groups: device.max_compute_workgroups_per_dimension,
        storage_buffers: device.max_storage_buffers_per_shader_stage,
        invocations: device.max_compute_invocations_per_workgroup,
        size_x: device.max_compute_workgroup_size_x,
        workgroup_bytes: device.max_compute_workgroup_storage_size,
        alignment: device.min_storage_buffer_offset_alignment,
        f16: false,
        software: false,
        vendor: Vendor::Unknown,
        matrix_units: None,
    }
}

/// Who made the GPU of a device.
pub(super) fn vendor(adapter: &wgpu::AdapterInfo) -> Vendor {
    match adapter.vendor {
        0x1002 => Vendor::Amd,
        0x10de => Vendor::Nvidia,
        0x8086 => Vendor::Intel,
        0x5143 => Vendor::Qualcomm,
        // Metal gives no number
        _ if adapter.backend == wgpu::Backend::Metal && adapter.name.starts_with("Apple") => Vendor::Apple,
        _ => Vendor::Unknown,
    }
}

/// Whether any device of the adapter can run the kernels.
pub(super) fn able(name: &str, adapter: &wgpu::Limits) -> Result<()> {
    limits(adapter).check().and_then(|()| uniforms(adapter)).map_err(|error| match error {
        Error::Limit { what, limit, needed, allowed } => {
            Error::NoAdapter(format!("{what} needs {needed}, `{name}` allows {allowed} (`{limit}`)"))
        }
        other => other,
    })
}

/// Checks the limits on bindings and uniforms that every kernel needs; a device of OpenGL ES 3.1 has them.
pub(super) fn uniforms(device: &wgpu::Limits) -> Result<()> {
    let need = |limit, needed: u64, allowed: u64| need("a kernel", limit, needed, allowed);
    need("max_bind_groups", 1, device.max_bind_groups.into())?;
    let bindings = u64::from(Limits::MIN.storage_buffers) + 2;
    need("max_bindings_per_bind_group", bindings, device.max_bindings_per_bind_group.into())?;
    need("max_uniform_buffers_per_shader_stage", 2, device.max_uniform_buffers_per_shader_stage.into())?;
    let dynamic = device.max_dynamic_uniform_buffers_per_pipeline_layout;
    need("max_dynamic_uniform_buffers_per_pipeline_layout", 1, dynamic.into())?;
    need("max_uniform_buffer_binding_size", Kernel::UNIFORMS[0], device.max_uniform_buffer_binding_size)?;
    let (limit, allowed) = ("min_uniform_buffer_offset_alignment", device.min_uniform_buffer_offset_alignment.into());
    if allowed > CONSTANTS_STRIDE {
        return Err(Error::Limit { what: "a kernel", limit, needed: CONSTANTS_STRIDE, allowed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The device of such an adapter could not be opened with more: the message names the adapter and both numbers.
    #[test]
    fn an_adapter_that_cannot_run_the_kernels_is_named() {
        assert_eq!(able("small", &wgpu::Limits::default()), Ok(()));
        let small = wgpu::Limits { max_compute_invocations_per_workgroup: 64, ..Default::default() };
        assert_eq!(
            able("small", &small).unwrap_err().to_string(),
            "no GPU adapter: a workgroup needs 128, `small` allows 64 (`max_compute_invocations_per_workgroup`)"
        );
    }
}

//! A device whose workgroups have at most 128 invocations, as in WebGPU's compatibility mode.

use margin_softmax::gpu::{Context, required_limits};

/// A device of this software adapter with the least limits that the library needs; none of a GPU, which the other trials keep
/// busy for long enough.
pub fn device(adapter: &str) -> Option<Context> {
    if !adapter.starts_with("llvmpipe") {
        return None;
    }
    pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
        let found = adapters.into_iter().find(|a| a.get_info().name.starts_with(adapter)).unwrap();
        let small = required_limits();
        // sizes are those of the adapter
        let required_limits = wgpu::Limits {
            max_compute_invocations_per_workgroup: small.max_compute_invocations_per_workgroup,
            max_compute_workgroup_size_x: small.max_compute_workgroup_size_x,
            max_compute_workgroup_size_y: small.max_compute_workgroup_size_x,
            max_compute_workgroup_storage_size: 16 << 10,
            ..found.limits()
        };
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let (device, queue) = found.request_device(&descriptor).await.unwrap();
        let context = Context::from_device(&device, &queue).unwrap();
        assert_eq!([context.limits().invocations, context.limits().size_x], [128; 2]);
        Some(context)
    })
}

//! The adapters of this machine.

use crate::{Error, Result};

fn new_instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor)
}

#[cfg(target_arch = "wasm32")]
pub(super) async fn all() -> Vec<wgpu::Adapter> {
    new_instance().request_adapter(&wgpu::RequestAdapterOptions::default()).await.into_iter().collect()
}

#[cfg(not(target_arch = "wasm32"))]
pub(super) async fn all() -> Vec<wgpu::Adapter> {
    // one for all devices that are opened here: only within an instance does wgpu tell the buffers of two devices apart
    static INSTANCE: std::sync::OnceLock<wgpu::Instance> = std::sync::OnceLock::new();
    INSTANCE.get_or_init(new_instance).enumerate_adapters(wgpu::Backends::PRIMARY).await
}

const SOFTWARE: u32 = 3;

fn rank(adapter: &wgpu::Adapter) -> u32 {
    match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
        wgpu::DeviceType::Cpu => SOFTWARE,
    }
}

/// The first one whose name contains `name`, in any case; without a name the best of all.
pub(super) async fn named(name: Option<&str>) -> Result<wgpu::Adapter> {
    let mut found = all().await;
    let names = found.iter().map(|adapter| adapter.get_info().name).collect::<Vec<_>>();
    let at = match name.map(str::to_lowercase) {
        Some(wanted) => names.iter().position(|name| name.to_lowercase().contains(&wanted)),
        None => (0..found.len()).min_by_key(|&i| rank(&found[i])),
    };
    at.map(|at| found.swap_remove(at)).ok_or_else(|| {
        Error::NoAdapter(match name {
            Some(name) => format!("none is called `{name}`; found: [{}]", names.join(", ")),
            None if cfg!(target_arch = "wasm32") => {
                "this browser has no WebGPU, or it is switched off (the page must come over https or from localhost)"
                    .into()
            }
            None => "none answered; on Linux a Vulkan driver is needed, mesa-vulkan-drivers is a software one".into(),
        })
    })
}

/// The best one that does not compute in software.
#[cfg(not(target_arch = "wasm32"))]
pub(super) async fn hardware() -> Result<wgpu::Adapter> {
    let found = all().await.into_iter().filter(|adapter| rank(adapter) < SOFTWARE);
    found.min_by_key(rank).ok_or_else(|| Error::NoAdapter("no hardware GPU answered".into()))
}

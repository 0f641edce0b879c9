//! One wgpu device for burn and the head.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{
    Device,
    wgpu::{WgpuOptions, WgpuSetup},
};
use margin_softmax::{gpu::Context, wgpu};

use crate::{Error, Result};

/// burn gives no way from a tensor to its wgpu device, so the handles are kept here; like burn's runtimes they stay until
/// the process ends.
static SHARED: Mutex<Vec<(Device, Context)>> = Mutex::new(Vec::new());

/// Lets burn open its device, and shares it. With `Device::wgpu_options()` as it is that is burn's default device. Call
/// it before the first tensor: burn opens a device once.
///
/// [`Error::Init`] if there is no adapter, or burn has opened this device already.
pub fn init(options: WgpuOptions) -> Result<Device> {
    let (device, setup) = options.init_with_setup()?;
    share(&device, &setup)?;
    Ok(device)
}

/// A burn device on a wgpu device that you have opened, such as an engine's; shared with the head. Register a setup once
/// and clone the device.
///
/// burn asks the adapter, not the device, what its kernels may use. [`Error::Setup`] if the device has less; one that was
/// opened with [`descriptor`] has enough.
pub fn from_setup(setup: WgpuSetup) -> Result<Device> {
    enough(&setup)?;
    let context = Context::from_device(&setup.device, &setup.queue)?;
    let device = Device::wgpu_options().setup(setup).init()?;
    remember(&device, context);
    Ok(device)
}

/// Names the wgpu handles of a device that burn has opened elsewhere with `init_with_setup` or on a setup of yours.
pub fn share(device: &Device, setup: &WgpuSetup) -> Result<()> {
    remember(device, Context::from_device(&setup.device, &setup.queue)?);
    Ok(())
}

/// What burn's kernels need of a device: the adapter's features, less the experimental ones and mappable storage buffers,
/// and its limits. Change what else you like, then `adapter.request_device`.
pub fn descriptor(adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
    let left_out = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS | wgpu::Features::all_experimental_mask();
    wgpu::DeviceDescriptor {
        required_features: adapter.features() - left_out,
        required_limits: adapter.limits(),
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        ..Default::default()
    }
}

/// The context of a device: its pipelines, and the bytes that this crate allocated on it.
pub fn context(device: &Device) -> Result<Context> {
    let device = device.clone().inner();
    let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = shared.iter().find(|(known, _)| *known == device).map(|(_, context)| context.clone());
    found.ok_or_else(|| Error::NotShared { device: format!("{device:?}") })
}

fn remember(device: &Device, context: Context) {
    let device = device.clone().inner();
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    match shared.iter_mut().find(|(known, _)| *known == device) {
        // the pipelines of the same handles are kept
        Some((_, known)) if known.device() == context.device() => {}
        Some((_, known)) => *known = context,
        None => shared.push((device, context)),
    }
}

/// What burn reads from the adapter must hold for the device.
fn enough(setup: &WgpuSetup) -> Result<()> {
    let (has, offered) = (setup.device.limits(), setup.adapter.limits());
    let limits = [
        (
            "max_compute_workgroups_per_dimension",
            has.max_compute_workgroups_per_dimension,
            offered.max_compute_workgroups_per_dimension,
        ),
        (
            "max_compute_invocations_per_workgroup",
            has.max_compute_invocations_per_workgroup,
            offered.max_compute_invocations_per_workgroup,
        ),
        ("max_compute_workgroup_size_x", has.max_compute_workgroup_size_x, offered.max_compute_workgroup_size_x),
        ("max_compute_workgroup_size_y", has.max_compute_workgroup_size_y, offered.max_compute_workgroup_size_y),
        ("max_compute_workgroup_size_z", has.max_compute_workgroup_size_z, offered.max_compute_workgroup_size_z),
    ];
    for (what, found, needed) in limits {
        if found < needed {
            return Err(Error::Setup { what: what.into(), found: found.to_string(), needed: needed.to_string() });
        }
    }
    let read = wgpu::Features::SUBGROUP
        | wgpu::Features::SHADER_F16
        | wgpu::Features::SHADER_F64
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::SHADER_FLOAT32_ATOMIC
        | wgpu::Features::TIMESTAMP_QUERY;
    let missing = (setup.adapter.features() & read) - setup.device.features();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::Setup { what: format!("{missing:?}"), found: "off".into(), needed: "it".into() })
}

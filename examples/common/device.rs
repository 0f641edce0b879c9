//! Which backend computes the heads.

use clap::ValueEnum;
use margin_softmax::Backend;

use super::Result;

/// What computes the heads.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Device {
    /// A hardware GPU where there is one, else the CPU
    Best,
    /// The native f32 path
    Cpu,
    /// A GPU; --adapter chooses
    Gpu,
    /// The f64 oracle, slow
    Reference,
}

/// The backend of a choice on the command line.
pub fn backend(device: Device, adapter: Option<&str>) -> Result<Backend> {
    match (device, adapter) {
        (Device::Best, None) => Ok(Backend::best()?),
        (Device::Cpu, None) => Ok(Backend::cpu()),
        (Device::Reference, None) => Ok(Backend::reference()),
        (Device::Cpu | Device::Reference, Some(_)) => Err("--adapter names a GPU: use it with --device gpu".into()),
        #[cfg(feature = "gpu")]
        (Device::Gpu | Device::Best, name) => Ok(Backend::gpu(name)?),
        #[cfg(not(feature = "gpu"))]
        (Device::Gpu | Device::Best, _) => Err("this build has no GPU path: build with the feature `gpu`".into()),
    }
}

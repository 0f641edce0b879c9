//! The slice API on any backend: heads, regularisers and center loss, the geometry of prototypes, scores of pairs. The only
//! room that knows all engines.

mod auxiliary;
mod geometry;
mod precision;
mod predictor;
mod scores;
mod shards;
mod slice_head;

use std::{pin::pin, task};

pub use predictor::Predictor;
pub use slice_head::SliceHead;

use crate::Result;
#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;

/// The engine that computes a head.
#[derive(Clone)]
#[non_exhaustive]
pub enum Backend {
    /// The f64 oracle: slow, everything N×C in memory; for checks.
    Reference,
    /// The native f32 path, on rayon's current thread pool.
    #[cfg(feature = "cpu")]
    Cpu,
    /// A GPU through wgpu.
    #[cfg(feature = "gpu")]
    Gpu(gpu::Context),
}

impl Backend {
    /// A hardware GPU where there is one, else the native CPU path.
    ///
    /// A software Vulkan adapter is used only when named, see [`Backend::gpu`].
    #[cfg(feature = "cpu")]
    pub fn best() -> Result<Self> {
        #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
        if let Ok(context) = gpu::Context::hardware() {
            return Ok(Self::Gpu(context));
        }
        Ok(Self::Cpu)
    }

    /// The native CPU path.
    #[cfg(feature = "cpu")]
    pub fn cpu() -> Self {
        Self::Cpu
    }

    /// The f64 oracle.
    pub fn reference() -> Self {
        Self::Reference
    }

    /// The first adapter whose name contains `adapter` (in any case), software adapters included; without a name a
    /// hardware GPU if there is one, else any adapter.
    #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
    pub fn gpu(adapter: Option<&str>) -> Result<Self> {
        gpu::Context::new(adapter).map(Self::Gpu)
    }

    /// The engine's name for people: the adapter's, or the CPU with its threads.
    pub fn name(&self) -> String {
        match self {
            Self::Reference => "reference (f64)".into(),
            #[cfg(feature = "cpu")]
            Self::Cpu => cpu::name(),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => context.name(),
        }
    }

    /// The answer of a call that awaits nothing but a GPU. A browser cannot block: there it is refused before it starts.
    fn wait<T>(&self, _what: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
        if let Self::Gpu(_) = self {
            return Err(crate::Error::Combination { what: _what, why: CANNOT_BLOCK });
        }
        let (mut call, mut context) = (pin!(call), task::Context::from_waker(task::Waker::noop()));
        loop {
            // a poll sleeps while the GPU works
            if let task::Poll::Ready(answer) = call.as_mut().poll(&mut context) {
                return answer;
            }
        }
    }
}

#[cfg(all(feature = "gpu", target_arch = "wasm32"))]
const CANNOT_BLOCK: &str = "a browser cannot block: use the async call";

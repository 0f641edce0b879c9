//! The slice API on any backend: heads, regularisers and center loss, the geometry of prototypes. The only room that knows
//! all engines.

mod auxiliary;
mod geometry;
mod slice_head;

use std::ops::Range;

pub use slice_head::SliceHead;

#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{MarginSoftmax, Options, Result, Shape};

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

    /// A head for batches of at most `shape.rows()` rows, with the default options.
    pub fn head(&self, loss: &MarginSoftmax, shape: Shape) -> Result<SliceHead> {
        self.head_with(loss, shape, &Options::default())
    }

    /// A head with a budget, a tile, or fewer gradients. Compiles and allocates once; any number of batches follow.
    pub fn head_with(&self, loss: &MarginSoftmax, shape: Shape, options: &Options) -> Result<SliceHead> {
        self.shard(loss, shape, 0..shape.classes(), options)
    }

    /// A head for the classes in `range` of a head of this shape: see [`shard`](crate::shard).
    pub fn shard(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        range: Range<usize>,
        options: &Options,
    ) -> Result<SliceHead> {
        SliceHead::new(self, loss, shape, range, options)
    }
}

/// Waits for a GPU.
#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
fn block<T>(_what: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
    pollster::block_on(work)
}

#[cfg(all(feature = "gpu", target_arch = "wasm32"))]
fn block<T>(what: &'static str, _: impl Future<Output = Result<T>>) -> Result<T> {
    Err(crate::Error::Combination { what, why: "a browser cannot block: use the async call" })
}

/// As the reference takes it.
fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

/// As a caller takes it.
fn thin(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

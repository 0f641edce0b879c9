//! The spread of prototypes and class centers, on every backend.

use super::{Backend, precision::wide};
#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{Result, reference};

impl Backend {
    /// |mean prototype|: the length of the mean direction of prototypes \[C, D\]. 1 if all point the same way, about 1/√C at
    /// random; see [`CollapseThresholds`](crate::monitor::CollapseThresholds). NaN where one is not finite, 0 where there
    /// is none. One pass over C·D values; a GPU gets them uploaded first.
    pub fn mean_prototype(&self, dim: usize, prototypes: &[f32]) -> Result<f64> {
        self.wait("mean_prototype", self.mean_prototype_async(dim, prototypes))
    }

    /// [`mean_prototype`](Self::mean_prototype) as a future: the only form that works in a browser.
    pub async fn mean_prototype_async(&self, dim: usize, prototypes: &[f32]) -> Result<f64> {
        match self {
            Self::Reference => reference::mean_prototype(dim, &wide(prototypes)),
            #[cfg(feature = "cpu")]
            Self::Cpu => cpu::monitor::mean_prototype(dim, prototypes),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => gpu::monitor::mean_prototype_of(context, dim, prototypes).await,
        }
    }

    /// The mean angle between all pairs of vectors \[C, D\]: W-Inter of prototypes, C-Inter of the
    /// [`ClassCenters`](crate::monitor::ClassCenters). NaN where one is not finite, 0 where there is no pair.
    ///
    /// C²·D/2 multiplications, as many as a forward pass of C/2 rows: for a report now and then, not for every step.
    /// Beside the vectors memory grows with C only.
    pub fn mean_pair_angle(&self, dim: usize, vectors: &[f32]) -> Result<f64> {
        self.wait("mean_pair_angle", self.mean_pair_angle_async(dim, vectors))
    }

    /// [`mean_pair_angle`](Self::mean_pair_angle) as a future: the only form that works in a browser.
    pub async fn mean_pair_angle_async(&self, dim: usize, vectors: &[f32]) -> Result<f64> {
        match self {
            Self::Reference => reference::mean_pair_angle(dim, &wide(vectors)),
            #[cfg(feature = "cpu")]
            Self::Cpu => cpu::monitor::mean_pair_angle(dim, vectors),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => gpu::monitor::mean_pair_angle_of(context, dim, vectors).await,
        }
    }
}

//! The spread of prototypes and class centers, on every backend.

use super::{Backend, Predictor, precision::wide};
#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{
    MarginSoftmax, Options, Result, Shape,
    data::Inputs,
    monitor::{NearestAngles, NearestSums, vectors},
    reference,
};

/// Prototypes whose nearest ones are looked for at a time.
const CHUNK: usize = 2048;

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
            Self::Cpu => cpu::geometry::mean_prototype(dim, prototypes),
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
            Self::Cpu => cpu::geometry::mean_pair_angle(dim, vectors),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => gpu::monitor::mean_pair_angle_of(context, dim, vectors).await,
        }
    }

    /// The mean and the least angle between a prototype and the nearest of the others, for prototypes \[C, D\]: what
    /// [`nearest_prototype_angle`](crate::theory::nearest_prototype_angle) and
    /// [`closest_pair_asymptote`](crate::theory::closest_pair_asymptote) say of random ones. NaN where one is not finite,
    /// 0 where there is no pair.
    ///
    /// C²·D multiplications by a [`Predictor`], within the default [`Budget`](crate::Budget); a GPU gets the
    /// prototypes uploaded once for every 2,048 of them. A cosine is off by up to 2e-6 but on the reference, an angle θ by
    /// that over sin θ: equal prototypes may be 2e-3 apart.
    pub fn nearest_prototype_angles(&self, dim: usize, prototypes: &[f32]) -> Result<NearestAngles> {
        let mut sums = NearestSums::new(dim, prototypes);
        if let Some(mut predictor) = self.nearest_prototypes(dim, prototypes)? {
            let rows = predictor.shape().rows();
            for (chunk, embeddings) in prototypes.chunks(rows * dim).enumerate() {
                sums.add(chunk * rows, &predictor.predict(&Inputs::new(embeddings, prototypes))?);
            }
        }
        Ok(sums.finish())
    }

    /// [`nearest_prototype_angles`](Self::nearest_prototype_angles) as a future: the only form that works in a browser.
    pub async fn nearest_prototype_angles_async(&self, dim: usize, prototypes: &[f32]) -> Result<NearestAngles> {
        let mut sums = NearestSums::new(dim, prototypes);
        if let Some(mut predictor) = self.nearest_prototypes(dim, prototypes)? {
            let rows = predictor.shape().rows();
            for (chunk, embeddings) in prototypes.chunks(rows * dim).enumerate() {
                sums.add(chunk * rows, &predictor.predict_async(&Inputs::new(embeddings, prototypes)).await?);
            }
        }
        Ok(sums.finish())
    }

    /// Finds the two nearest prototypes of a chunk of them, one of which is another; none where there are not two.
    fn nearest_prototypes(&self, dim: usize, prototypes: &[f32]) -> Result<Option<Predictor>> {
        let classes = vectors("prototypes", dim, prototypes.len())?;
        if classes < 2 {
            return Ok(None);
        }
        let shape = Shape::new(CHUNK.min(classes), classes, dim)?;
        self.predictor(&MarginSoftmax::normface(), shape, 2, &Options::default()).map(Some)
    }
}

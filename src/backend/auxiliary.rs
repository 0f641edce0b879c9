//! Regularisers and center loss over slices, on every backend.

use super::{
    Backend,
    precision::{thin, wide},
};
#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{
    CenterLoss, Label, Regularizer, Result,
    data::{CenterOutput, Penalty},
    reference,
};

impl Backend {
    /// A penalty on prototypes \[C, D\] and its gradient; C is `prototypes.len() / dim`.
    ///
    /// On a GPU every call uploads the prototypes, which must fit one binding; for tensors that are already there see
    /// [`gpu::regularizer`]. Errors: a weight outside its range, a length that is no multiple of `dim`, no prototype.
    ///
    /// ```
    /// use margin_softmax::{Backend, Regularizer};
    ///
    /// let prototypes = [1.0, 1.0, 0.0, 2.0, -3.0, 1.0];
    /// let penalty = Backend::reference().regularize(&Regularizer::reg_ss().with_weight(0.1), 2, &prototypes)?;
    /// assert!((penalty.value - 0.0679235).abs() < 1e-6);
    /// # Ok::<(), margin_softmax::Error>(())
    /// ```
    pub fn regularize(&self, regularizer: &Regularizer, dim: usize, prototypes: &[f32]) -> Result<Penalty> {
        self.wait("regularize", self.regularize_async(regularizer, dim, prototypes))
    }

    /// [`regularize`](Self::regularize) as a future, the only form in a browser. The CPU paths compute before the first
    /// await.
    pub async fn regularize_async(&self, regularizer: &Regularizer, dim: usize, prototypes: &[f32]) -> Result<Penalty> {
        let _shape = regularizer.check(dim, prototypes.len())?;
        match self {
            Self::Reference => {
                let Penalty { value, gradient } = reference::regularize(regularizer, dim, &wide(prototypes))?;
                Ok(Penalty { value: value as f32, gradient: thin(&gradient) })
            }
            #[cfg(feature = "cpu")]
            Self::Cpu => Ok(cpu::regularizer::regularize(regularizer, dim, prototypes)),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => gpu::regularizer::penalty(context, regularizer, _shape, prototypes).await,
        }
    }

    /// The center loss of embeddings \[N, D\] with labels \[N\] around centers \[C, D\], and its gradient to the embeddings.
    ///
    /// The centers stay where they are; [`update_centers`](Self::update_centers) moves them. Errors: a number of the loss
    /// outside its range, a wrong length, a label that is neither a class nor the ignore index.
    pub fn center_loss<L: Label>(
        &self,
        loss: &CenterLoss,
        dim: usize,
        embeddings: &[f32],
        labels: &[L],
        centers: &[f32],
    ) -> Result<CenterOutput> {
        self.wait("center_loss", self.center_loss_async(loss, dim, embeddings, labels, centers))
    }

    /// [`center_loss`](Self::center_loss) as a future, the only form in a browser.
    pub async fn center_loss_async<L: Label>(
        &self,
        loss: &CenterLoss,
        dim: usize,
        embeddings: &[f32],
        labels: &[L],
        centers: &[f32],
    ) -> Result<CenterOutput> {
        let (_shape, _classes) = loss.check(dim, embeddings.len(), labels, centers.len())?;
        match self {
            Self::Reference => {
                let out = reference::center_loss(loss, dim, &wide(embeddings), labels, &wide(centers))?;
                Ok(CenterOutput { loss: out.loss as f32, grad_embeddings: thin(&out.grad_embeddings) })
            }
            #[cfg(feature = "cpu")]
            Self::Cpu => Ok(cpu::regularizer::center_loss(loss, dim, embeddings, &_classes, centers)),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => {
                gpu::regularizer::centers(context, loss, _shape, embeddings, &_classes, centers).await
            }
        }
    }

    /// Moves the centers \[C, D\] towards the embeddings \[N, D\] of their classes, once a step; see [`CenterLoss`].
    ///
    /// Classes without rows stay; so does everything on an error. On a GPU a call takes at most 32,768 rows.
    pub fn update_centers<L: Label>(
        &self,
        loss: &CenterLoss,
        dim: usize,
        embeddings: &[f32],
        labels: &[L],
        centers: &mut [f32],
    ) -> Result<()> {
        self.wait("update_centers", self.update_centers_async(loss, dim, embeddings, labels, centers))
    }

    /// [`update_centers`](Self::update_centers) as a future, the only form in a browser.
    pub async fn update_centers_async<L: Label>(
        &self,
        loss: &CenterLoss,
        dim: usize,
        embeddings: &[f32],
        labels: &[L],
        centers: &mut [f32],
    ) -> Result<()> {
        let (_shape, _classes) = loss.check(dim, embeddings.len(), labels, centers.len())?;
        match self {
            Self::Reference => {
                let mut moved = wide(centers);
                reference::update_centers(loss, dim, &wide(embeddings), labels, &mut moved)?;
                centers.copy_from_slice(&thin(&moved));
            }
            #[cfg(feature = "cpu")]
            Self::Cpu => cpu::regularizer::update_centers(loss, dim, embeddings, &_classes, centers),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => {
                gpu::regularizer::moved(context, loss, _shape, embeddings, &_classes, centers).await?;
            }
        }
        Ok(())
    }
}

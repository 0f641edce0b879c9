//! Reports of a run: see [`margin_softmax::monitor`].

use std::sync::Arc;

use burn::{
    backend::Cube,
    tensor::{Device, Int, Tensor},
};
use margin_softmax::{
    Backend, Batch, Budget, MarginSoftmax, Options, Shape, Similarity, State,
    gpu::monitor::{self, HeadMonitor},
    monitor::{BatchReport, Monitor},
    plan::{Element, Plan},
};

use crate::{
    MarginHead, Result,
    auxiliary::{primitive, recorded},
    buffer, device, pool,
    step::{StepOptions, beside, check_floats, check_wgpu},
};

/// The monitor of one step, still on the device.
#[derive(Clone)]
pub struct StepMonitor(Inner);

#[derive(Clone)]
enum Inner {
    Measured(Arc<HeadMonitor>),
    /// Bins of the histograms, of a batch without rows.
    Empty(usize),
}

impl std::fmt::Debug for StepMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StepMonitor")
    }
}

impl StepMonitor {
    pub(crate) fn new(measured: Option<HeadMonitor>, bins: usize) -> Self {
        Self(measured.map_or(Inner::Empty(bins), |measured| Inner::Measured(Arc::new(measured))))
    }

    /// Waits for the step and reads its monitor, to be [merged](Monitor::merge) with those of other steps.
    pub fn read(&self) -> Result<Monitor> {
        Ok(match &self.0 {
            Inner::Measured(measured) => measured.read()?,
            Inner::Empty(bins) => Monitor::new(*bins)?,
        })
    }
}

/// Refuses a monitor of so many bins, or of such a loss.
pub(crate) fn check(options: &StepOptions, loss: &MarginSoftmax) -> Result<()> {
    let Some(bins) = options.monitor else { return Ok(()) };
    Monitor::new(bins)?;
    if loss.similarity == Similarity::Dot {
        let why = "a linear head gives products, which have no angle";
        return Err(margin_softmax::Error::Combination { what: "monitor", why }.into());
    }
    Ok(())
}

/// The length of the mean direction of prototypes \[C, D\], \[1\]: 1 if all point the same way, about 1/√C at random; NaN where one is
/// not finite. A constant, for [`CollapseDetector`](margin_softmax::monitor::CollapseDetector).
///
/// # Panics
///
/// Where [`try_mean_prototype`] returns an error.
pub fn mean_prototype(prototypes: Tensor<2>) -> Tensor<1> {
    try_mean_prototype(prototypes).unwrap_or_else(|e| panic!("mean_prototype: {e}"))
}

/// The same with an error: another backend or element type, a device that is not shared, no prototype.
pub fn try_mean_prototype(prototypes: Tensor<2>) -> Result<Tensor<1>> {
    let [classes, dim] = prototypes.dims();
    let shape = Shape::new(1, classes, dim)?;
    let on: Device = check_wgpu("prototypes", &prototypes.device())?;
    check_floats("prototypes", prototypes.dtype())?;
    let context = device::context(&on)?;
    let strategy = prototypes.gradient_checkpointing_strategy();
    let w = primitive("prototypes", prototypes)?;
    let held = buffer::hold("prototypes", &w, &[classes, dim], Element::F32)?;
    let sizes = Plan::shards(shape, Element::F32, context.limits())?;
    let shards = pool::cut(&held.tensor, &sizes, 1, dim)?;
    let (value, itself) = buffer::empty(&[1], &w.device);
    let to = buffer::hold("mean_prototype", &itself, &[1], Element::F32)?;
    recorded(&context, |encoder| {
        let mean = monitor::mean_prototype(&context, encoder, &shards.iter().collect::<Vec<_>>())?;
        buffer::copy_all(encoder, &mean, &to.tensor, 0);
        Ok(())
    })?;
    Ok(beside(Tensor::from_primitive::<Cube>(value), strategy))
}

impl MarginHead {
    /// Lengths, margins, parts of the loss, quantiles of the target cosines and norms of the gradients of a batch, as an
    /// evaluation at the head's present state.
    ///
    /// For a log now and then: embeddings, labels and prototypes are read to the host, and the batch is computed anew. Errors:
    /// shapes and labels that do not fit the head, a device that is not shared.
    pub fn report(&self, embeddings: Tensor<2>, labels: Tensor<1, Int>) -> Result<BatchReport> {
        let prototypes = self.prototypes.val();
        let shape = self.check(&embeddings, &prototypes)?;
        let on = embeddings.device().inner();
        let context = device::context(&on)?;
        let host = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<f32>>();
        let follows: Vec<f32> = self.follows(&on)?.into_data().iter::<f32>().collect();
        let (x, w) = (host(embeddings), host(prototypes));
        let labels: Vec<i64> = labels.into_data().iter::<i64>().collect();
        let (budget, seed) = self.budget_and_seed();
        let mut state = State { step: self.step(), ..State::new(self.loss(), shape)?.with_seed(seed) };
        if let [hardness, mean, deviation, scale] = follows[..] {
            (state.hardness, state.norm_mean) = (hardness.into(), mean.into());
            (state.norm_deviation, state.scale) = (deviation.into(), scale.into());
        }
        let options = Options { budget: Budget::bytes(budget), ..Options::default() };
        let mut head = Backend::Gpu(context).head_with(self.loss(), shape, &options)?;
        head.set_state(&state)?;
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Batch::default() };
        let out = head.evaluate(&batch)?;
        Ok(BatchReport::evaluated(self.loss(), &state, &batch, &out)?)
    }
}

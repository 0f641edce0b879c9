//! The caller's tensors of a head.

use super::{Tensor, tensor::expect};
use crate::{
    Error, MarginSoftmax, Result, Shape,
    data::MarginGradients,
    plan::{Element, Plan, Role, TensorRole},
    shape::check_length,
};

/// The caller's tensors. N rows, C classes, D values a vector, as planned; shards as planned.
///
/// Every offset must be a multiple of the device's `min_storage_buffer_offset_alignment`. A tensor that is written must
/// not share a buffer with one that the same kernel reads; [`Error::Overlap`] names the two. What may be absent is left
/// out by [`Io::new`].
#[derive(Clone, Copy)]
pub struct Io<'a> {
    /// X, \[N, D\].
    pub embeddings: &'a Tensor,
    /// W, one tensor [classes of the shard, D] per shard; with K > 1 sub-centers [classes of the shard, K, D].
    pub prototypes: &'a [&'a Tensor],
    /// y, \[N\], i32. A label that names no class makes its row's loss NaN.
    pub labels: &'a Tensor,
    /// w, \[C\], f32, 0 or within \[1e-30, 1e24\]; 1 if absent. Any other makes the rows of its class invalid, like a label
    /// that names no class; with label smoothing it makes all losses NaN.
    pub class_weights: Option<&'a Tensor>,
    /// v, \[N\], f32, 0 or within \[1e-30, 1e24\]; so must the product with the weight of its class be. 1 if absent. Any other
    /// makes its row invalid.
    pub row_weights: Option<&'a Tensor>,
    /// The classes of soft labels, \[N, T\], i32, with the T of the plan ([`Options::soft_labels`](crate::Options::soft_labels)); a
    /// negative one is no target. One that is no class of the head makes its row invalid. See [`SoftLabels`](crate::data::SoftLabels).
    pub soft_classes: Option<&'a Tensor>,
    /// λ of these classes, \[N, T\], f32, 0 or within \[1e-30, 1e24\]; any other makes its row invalid.
    pub soft_weights: Option<&'a Tensor>,
    /// m0..m3 of every class, \[C, 4\], f32, for a unified target; NaN means the loss' own. Margins that no loss may
    /// have make the rows of the class invalid, like a label that names no class; so do other m1 (and m2) where the series
    /// is fitted (given), and any m1 and m2 in a linear head.
    pub class_margins: Option<&'a Tensor>,
    /// m0..m3 of every row, \[N, 4\], f32; NaN means those of the class, or the loss' own.
    pub row_margins: Option<&'a Tensor>,
    /// b, \[C\], f32, of a linear head; 0 if absent. One that is NaN or infinite makes all losses NaN.
    pub bias: Option<&'a Tensor>,
    /// The numbers that follow the batch, \[4\], f32: hardness, mean and deviation of the lengths, scale (see
    /// [`State`](crate::State)). Read, and written in training steps. If absent the head has its own, which starts as
    /// [`State::new`](crate::State::new) says. Numbers outside their ranges make all rows invalid, and stay as they are.
    /// [`BoundHead::read_state`](super::BoundHead::read_state) gives what either holds.
    pub state: Option<&'a Tensor>,
    /// The gradient that arrives from above, f32: \[N\] with `Reduction::None`, else \[1\]; 1 if absent. One that is NaN or
    /// infinite makes the gradients that it enters NaN or infinite; the loss does not depend on it.
    pub upstream: Option<&'a Tensor>,
    /// The reduced loss, \[1\], f32; written.
    pub loss: &'a Tensor,
    /// The rows' losses, \[N\], f32; written.
    pub row_losses: Option<&'a Tensor>,
    /// log Σ_j exp z_ij over all classes, of the loss' own logits, \[N\], f32; written. 0 for a row that is left out, and with a
    /// binary link.
    pub log_sum_exps: Option<&'a Tensor>,
    /// The nearest classes of each row; written if they were planned ([`Options::predictions`](crate::Options::predictions)).
    pub predictions: Option<PredictionTensors<'a>>,
    /// dL/dX, \[N, D\], f32; written if it was planned.
    pub grad_embeddings: Option<&'a Tensor>,
    /// dL/dW, like the prototypes, f32; written if it was planned.
    pub grad_prototypes: &'a [&'a Tensor],
    /// dL/ds, \[1\], f32; written if it was planned.
    pub grad_scale: Option<&'a Tensor>,
    /// dL/db, f32: \[C\] for a linear head, \[1\] for a binary link; written if it was planned.
    pub grad_bias: Option<&'a Tensor>,
    /// dL/dm0..m3, f32: \[4\], \[C, 4\] or \[N, 4\] as [`MarginGradients`](crate::data::MarginGradients) says; written if it was planned.
    pub grad_margins: Option<&'a Tensor>,
}

/// The nearest classes of each row, best first, all of them written: as [`Predictions`](crate::data::Predictions) gives them, but
/// that the class of a row without a prediction is -1.
#[derive(Clone, Copy)]
pub struct PredictionTensors<'a> {
    /// \[N, k\], i32.
    pub classes: &'a Tensor,
    /// Raw cosines c, without margin or scale; of a linear head the products with their bias. \[N, k\], f32.
    pub cosines: &'a Tensor,
    /// The log-softmax of s·c over all classes, without margin or transform; with a binary link log σ(s·c + b). \[N, k\], f32.
    pub log_probabilities: &'a Tensor,
    /// Which prototype of the class has that cosine. \[N, k\], i32.
    pub sub_centers: Option<&'a Tensor>,
}

/// The caller's tensors of predictions without labels, for a [`Head`](super::Head) of a [`Plan::predict`].
#[derive(Clone, Copy)]
pub struct PredictIo<'a> {
    /// X, \[N, D\].
    pub embeddings: &'a Tensor,
    /// W, one tensor per shard, as in [`Io`].
    pub prototypes: &'a [&'a Tensor],
    /// b, \[C\], f32, of a linear head; 0 if absent.
    pub bias: Option<&'a Tensor>,
    /// The results.
    pub predictions: PredictionTensors<'a>,
}

impl<'a> Io<'a> {
    /// The tensors that every head needs; everything else is absent.
    pub fn new(embeddings: &'a Tensor, prototypes: &'a [&'a Tensor], labels: &'a Tensor, loss: &'a Tensor) -> Self {
        Self {
            embeddings,
            prototypes,
            labels,
            class_weights: None,
            row_weights: None,
            soft_classes: None,
            soft_weights: None,
            class_margins: None,
            row_margins: None,
            bias: None,
            state: None,
            upstream: None,
            loss,
            row_losses: None,
            log_sum_exps: None,
            predictions: None,
            grad_embeddings: None,
            grad_prototypes: &[],
            grad_scale: None,
            grad_bias: None,
            grad_margins: None,
        }
    }
}

/// Whether a plan writes or reads this tensor of the caller's.
pub(super) fn needs(plan: &Plan, role: TensorRole) -> bool {
    plan.buffers().iter().any(|buffer| buffer.role == Role::Given(role))
}

/// Values of the bias' gradient: one per class, or the one of a binary link.
pub(super) fn biases(plan: &Plan, loss: &MarginSoftmax) -> usize {
    if loss.is_linear() { plan.range().len() } else { 1 }
}

/// The shape of the gradients of margins.
pub(super) fn margins(plan: &Plan) -> Vec<usize> {
    let shape = plan.shape();
    match plan.margins() {
        None | Some(MarginGradients::Sum) => vec![4],
        Some(margins) => vec![margins.count(shape.rows(), shape.classes()), 4],
    }
}

/// The shape of the prototypes of so many classes.
pub(super) fn vectors(shape: Shape, classes: usize) -> Vec<usize> {
    match shape.sub_centers() {
        1 => vec![classes, shape.dim()],
        k => vec![classes, k, shape.dim()],
    }
}

/// The tensors of an [`Io`] with their roles, checked one by one.
pub(super) fn given<'a>(
    plan: &Plan,
    loss: &MarginSoftmax,
    io: &Io<'a>,
    upstream: Option<&'a Tensor>,
) -> Result<Vec<(TensorRole, &'a Tensor)>> {
    if !needs(plan, TensorRole::Labels) {
        return Err(Error::Combination { what: "labels", why: "the plan predicts without; use `bind_predictions`" });
    }
    let mut given = Given { plan, tensors: vec![] };
    given.inputs(loss, io)?;
    given.outputs(loss, io)?;
    if let Some(upstream) = upstream
        && plan.find("upstream").is_some()
    {
        given.add(TensorRole::Upstream, upstream, upstream.shape())?;
    }
    Ok(given.tensors)
}

/// The same for predictions without labels.
pub(super) fn given_unlabelled<'a>(
    plan: &Plan,
    loss: &MarginSoftmax,
    io: &PredictIo<'a>,
) -> Result<Vec<(TensorRole, &'a Tensor)>> {
    let mut given = Given { plan, tensors: vec![] };
    given.vectors(loss, io.embeddings, io.prototypes, io.bias)?;
    given.predictions(Some(&io.predictions))?;
    Ok(given.tensors)
}

struct Given<'a, 'p> {
    plan: &'p Plan,
    tensors: Vec<(TensorRole, &'a Tensor)>,
}

impl<'a> Given<'a, '_> {
    fn add(&mut self, role: TensorRole, tensor: &'a Tensor, shape: &[usize]) -> Result<()> {
        expect(role.name(), tensor, shape, tensor.element())?;
        self.plan.check_element(role, tensor.element())?;
        self.tensors.push((role, tensor));
        Ok(())
    }

    fn optional(&mut self, role: TensorRole, tensor: Option<&'a Tensor>, shape: &[usize]) -> Result<()> {
        tensor.map_or(Ok(()), |tensor| self.add(role, tensor, shape))
    }

    /// A gradient, which must be there if the plan computes it.
    fn gradient(&mut self, role: TensorRole, tensor: Option<&'a Tensor>, shape: &[usize]) -> Result<()> {
        if !needs(self.plan, role) {
            return Ok(());
        }
        let why = "the plan computes this gradient";
        self.add(role, tensor.ok_or(Error::Missing { what: role.name(), why })?, shape)
    }

    fn per_shard(&mut self, role: fn(usize) -> TensorRole, tensors: &[&'a Tensor]) -> Result<()> {
        let sizes = self.plan.shard_sizes();
        check_length(role(0).name(), tensors.len(), sizes.len())?;
        let mut shards = tensors.iter().zip(sizes).enumerate();
        shards.try_for_each(|(i, (tensor, size))| self.add(role(i), tensor, &vectors(self.plan.shape(), size)))
    }

    fn vectors(
        &mut self,
        loss: &MarginSoftmax,
        embeddings: &'a Tensor,
        prototypes: &[&'a Tensor],
        bias: Option<&'a Tensor>,
    ) -> Result<()> {
        let shape = self.plan.shape();
        self.add(TensorRole::Embeddings, embeddings, &[shape.rows(), shape.dim()])?;
        self.per_shard(TensorRole::Prototypes, prototypes)?;
        if bias.is_some() && !loss.is_linear() {
            return Err(Error::Combination { what: "bias", why: "only a linear head adds one" });
        }
        self.optional(TensorRole::Bias, bias, &[self.plan.range().len()])
    }

    /// They must be there if the plan computes them.
    fn predictions(&mut self, tensors: Option<&PredictionTensors<'a>>) -> Result<()> {
        let shape = [self.plan.shape().rows(), self.plan.predictions()];
        if shape[1] == 0 {
            return Ok(());
        }
        let tensors = tensors.ok_or(Error::Missing { what: "predictions", why: "the plan computes them" })?;
        self.add(TensorRole::PredictedClasses, tensors.classes, &shape)?;
        self.add(TensorRole::PredictedCosines, tensors.cosines, &shape)?;
        self.add(TensorRole::LogProbabilities, tensors.log_probabilities, &shape)?;
        self.optional(TensorRole::PredictedSubCenters, tensors.sub_centers, &shape)
    }

    fn inputs(&mut self, loss: &MarginSoftmax, io: &Io<'a>) -> Result<()> {
        let refuse = |what, why| Err(Error::Combination { what, why });
        let shape = self.plan.shape();
        let (n, c) = (shape.rows(), shape.classes());
        self.vectors(loss, io.embeddings, io.prototypes, io.bias)?;
        self.add(TensorRole::Labels, io.labels, &[n])?;
        self.optional(TensorRole::ClassWeights, io.class_weights, &[c])?;
        self.optional(TensorRole::RowWeights, io.row_weights, &[n])?;
        self.soft_labels(io, n)?;
        for (role, margins, count) in
            [(TensorRole::ClassMargins, io.class_margins, c), (TensorRole::RowMargins, io.row_margins, n)]
        {
            if margins.is_some() && !loss.has_margins() {
                return refuse(role.name(), "only a unified target has m0..m3");
            }
            self.optional(role, margins, &[count, 4])?;
        }
        self.optional(TensorRole::State, io.state, &[4])
    }

    /// Both tensors of soft labels or none, in a plan that has room for them.
    fn soft_labels(&mut self, io: &Io<'a>, rows: usize) -> Result<()> {
        let count = self.plan.soft_labels();
        match (io.soft_classes, io.soft_weights) {
            (None, None) => return Ok(()),
            _ if count == 0 => {
                let why = "the plan has no soft labels: ask for them with Options::soft_labels";
                return Err(Error::Combination { what: "soft_classes", why });
            }
            (None, _) => return Err(Error::Missing { what: "soft_classes", why: "there are soft_weights" }),
            (_, None) => return Err(Error::Missing { what: "soft_weights", why: "there are soft_classes" }),
            _ => {}
        }
        self.optional(TensorRole::SoftClasses, io.soft_classes, &[rows, count])?;
        self.optional(TensorRole::SoftWeights, io.soft_weights, &[rows, count])
    }

    fn outputs(&mut self, loss: &MarginSoftmax, io: &Io<'a>) -> Result<()> {
        let shape = self.plan.shape();
        let n = shape.rows();
        self.add(TensorRole::Loss, io.loss, &[1])?;
        self.optional(TensorRole::RowLosses, io.row_losses, &[n])?;
        self.optional(TensorRole::LogSumExps, io.log_sum_exps, &[n])?;
        self.predictions(io.predictions.as_ref())?;
        self.gradient(TensorRole::GradScale, io.grad_scale, &[1])?;
        self.gradient(TensorRole::GradBias, io.grad_bias, &[biases(self.plan, loss)])?;
        self.gradient(TensorRole::GradMargins, io.grad_margins, &margins(self.plan))?;
        self.gradient(TensorRole::GradEmbeddings, io.grad_embeddings, &[n, shape.dim()])?;
        if needs(self.plan, TensorRole::GradPrototypes(0)) {
            self.per_shard(TensorRole::GradPrototypes, io.grad_prototypes)?;
        }
        Ok(())
    }
}

pub(super) fn expect_upstream(plan: &Plan, loss: &MarginSoftmax, io: &Io<'_>) -> Result<()> {
    let Some(upstream) = io.upstream else { return Ok(()) };
    let expected = if loss.is_unreduced() { plan.shape().rows() } else { 1 };
    expect("upstream", upstream, &[expected], Element::F32)
}

//! The head as one operation of burn's autodiff.

use std::sync::{Arc, Mutex, PoisonError};

use burn::{
    backend::{
        Autodiff, Cube,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        ops::FloatTensorOps,
        tensor::FloatTensor,
    },
    tensor::FloatDType,
};
use burn_cubecl::{CubeDevice, tensor::CubeTensor};
use margin_softmax::{
    MarginSoftmax, Reduction, Shape, State,
    gpu::{Context, monitor::HeadMonitor},
    plan::Element,
    wgpu,
};

use crate::{
    Result,
    buffer::{self, Held},
    monitor::StepMonitor,
    pool::{self, Inputs, Key, Lease, Own, Pool},
    step::{Constant, Nearest, Optional, StepOptions},
};

/// What a forward pass computes, beside its tensors.
pub struct Call<'a> {
    pub pool: &'a Pool,
    pub context: &'a Context,
    pub loss: &'a MarginSoftmax,
    pub shape: Shape,
    pub budget: u64,
    /// The state on the host: what a loss draws depends on its step and seed.
    pub state: &'a State,
    /// Whether what follows the batch moves.
    pub training: bool,
    pub options: &'a StepOptions,
}

/// The labels and the optional inputs.
pub type Rest = (CubeTensor, Optional<Constant>);

/// The inputs as burn holds them. As long as they are here, burn changes none of them in place.
struct Given {
    embeddings: CubeTensor,
    prototypes: CubeTensor,
    labels: CubeTensor,
    optional: Optional<Constant>,
    /// \[4\], what follows the batch.
    state: CubeTensor,
}

/// The results of a forward pass beside the loss; no gradient flows from them.
pub struct Output {
    /// What follows the batch, after this batch; `None` if nothing moved.
    pub state: Option<FloatTensor<Cube>>,
    pub log_sum_exps: Option<FloatTensor<Cube>>,
    pub nearest: Option<Nearest>,
    pub monitor: Option<StepMonitor>,
}

/// The forward pass where nothing can want a gradient.
pub fn evaluate(
    call: &Call<'_>,
    tensors: [FloatTensor<Cube>; 3],
    (labels, optional): Rest,
) -> Result<(FloatTensor<Cube>, Output)> {
    if call.shape.rows() == 0 {
        let [_, prototypes, _] = tensors;
        return Ok(without_rows(call, prototypes, &labels.device));
    }
    let [embeddings, prototypes, state] = tensors.map(buffer::float);
    let given = Given { embeddings, prototypes, labels, optional, state };
    let (loss, output, _) = forward(call, &given, [false; 2])?;
    Ok((loss, output))
}

/// A tensor under autodiff.
pub type Tracked<C> = FloatTensor<Autodiff<Cube, C>>;

/// The forward pass under autodiff.
pub fn track<C: CheckpointStrategy>(
    call: &Call<'_>,
    [embeddings, prototypes]: [Tracked<C>; 2],
    state: FloatTensor<Cube>,
    (labels, optional): Rest,
) -> Result<(Tracked<C>, Output)> {
    let wanted = [embeddings.is_tracked(), prototypes.is_tracked()];
    let ((embeddings, x), (prototypes, w)) = (embeddings.into_parts(), prototypes.into_parts());
    if call.shape.rows() == 0 {
        let (loss, output) = without_rows(call, prototypes, &labels.device);
        let loss = match NoRowsBackward.prepare::<C>([x, w]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((call.shape, labels.device), loss),
            OpsKind::UnTracked(prepared) => prepared.finish(loss),
        };
        return Ok((loss, output));
    }
    let [embeddings, prototypes, state] = [embeddings, prototypes, state].map(buffer::float);
    let given = Given { embeddings, prototypes, labels, optional, state };
    let (loss, output, lease) = forward(call, &given, wanted)?;
    let loss = match HeadBackward.prepare::<C>([x, w]).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let saved = Saved { context: call.context.clone(), lease, given };
            prepared.finish(Arc::new(Mutex::new(Some(saved))), loss)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(loss),
    };
    Ok((loss, output))
}

/// The loss of a batch without rows, by burn's own operations: WebGPU binds no empty buffer. 0, and as for every batch NaN
/// beside a prototype that is not finite.
fn without_rows(call: &Call<'_>, prototypes: FloatTensor<Cube>, device: &CubeDevice) -> (FloatTensor<Cube>, Output) {
    let loss = match call.loss.reduction {
        Reduction::None => buffer::empty(&[0], device).0,
        _ => Cube::float_sum(Cube::float_mul_scalar(prototypes, 0_f64.into())),
    };
    let log_sum_exps = call.options.log_sum_exps.then(|| buffer::empty(&[0], device).0);
    let nearest = call.options.predictions.map(|count| NewNearest::new(&[0, count], device).nearest);
    let monitor = call.options.monitor.map(|bins| StepMonitor::new(None, bins));
    (loss, Output { state: None, log_sum_exps, nearest, monitor })
}

/// Records and submits the forward pass on burn's buffers.
fn forward(call: &Call<'_>, given: &Given, wanted: [bool; 2]) -> Result<(FloatTensor<Cube>, Output, Lease)> {
    let Call { context, loss, shape, options, .. } = *call;
    let device = given.embeddings.device.clone();
    let per_row = loss.reduction == Reduction::None;
    let out_shape = [if per_row { shape.rows() } else { 1 }];
    let (out, out_itself) = buffer::empty(&out_shape, &device);

    let held = Holding::new(given, shape)?;
    let mut lease = call.pool.take(context, &key(call, given, wanted), loss, &held.inputs())?;
    lease.set_divisor(options.divisor)?;
    let out_held = buffer::hold("loss", &out_itself, &out_shape, Element::F32)?;
    let follows = lease.follows();
    let moved = (follows && call.training).then(|| buffer::empty(&[4], &device));
    let state = buffer::hold("state", &given.state, &[4], Element::F32)?;
    let state_out = hold_made("state", &moved)?;
    let sums = options.log_sum_exps.then(|| buffer::empty(&[shape.rows()], &device));
    let sums_out = hold_made("log_sum_exps", &sums)?;
    let nearest = options.predictions.map(|count| NewNearest::new(&[shape.rows(), count], &device));
    let nearest_out = nearest.as_ref().map(NewNearest::hold).transpose()?;

    let mut monitor = None;
    if let Some((bound, own)) = lease.get() {
        monitor = options.monitor.map(|bins| HeadMonitor::new(context, bound, bins)).transpose()?;
        bound.set_training(call.training);
        if pool::draws(loss) {
            bound.set_state(call.state)?;
        }
        submit(context, |encoder| {
            if follows {
                buffer::copy_all(encoder, &state.tensor, &own.state, 0);
            }
            bound.record_forward(encoder);
            if let Some(monitor) = &monitor {
                monitor.record(encoder);
            }
            buffer::copy_all(encoder, own.rows.as_ref().unwrap_or(&own.loss), &out_held.tensor, 0);
            if let Some(out) = &state_out {
                buffer::copy_all(encoder, &own.state, &out.tensor, 0);
            }
            if let Some(out) = &sums_out {
                buffer::copy_all(encoder, &own.log_sum_exps, &out.tensor, 0);
            }
            copy_nearest(encoder, own, &nearest_out);
        });
    }
    let output = Output {
        state: moved.map(|(state, _)| state),
        log_sum_exps: sums.map(|(sums, _)| sums),
        nearest: nearest.map(|made| made.nearest),
        monitor: options.monitor.map(|bins| StepMonitor::new(monitor, bins)),
    };
    Ok((out, output, lease))
}

fn key(call: &Call<'_>, given: &Given, [embeddings, prototypes]: [bool; 2]) -> Key {
    let optional = &given.optional;
    Key {
        device: given.embeddings.device.clone(),
        shape: call.shape,
        budget: call.budget,
        embeddings,
        prototypes,
        optional: optional.each_ref().map(|_| ()),
        soft_labels: optional.soft_classes.as_ref().and_then(|classes| classes.shape.get(1).copied()),
        predictions: call.options.predictions,
    }
}

fn copy_nearest(encoder: &mut wgpu::CommandEncoder, own: &Own, out: &Option<[Held; 3]>) {
    if let (Some(from), Some(to)) = (&own.nearest, out) {
        from.iter().zip(to).for_each(|(from, to)| buffer::copy_all(encoder, from, &to.tensor, 0));
    }
}

/// New tensors of burn's for the nearest classes, and the same as its backend sees them.
pub struct NewNearest {
    pub nearest: Nearest,
    itself: [CubeTensor; 3],
    shape: [usize; 2],
}

impl NewNearest {
    pub fn new(shape: &[usize; 2], device: &CubeDevice) -> Self {
        let (classes, a) = buffer::empty_int(shape, device);
        let [(cosines, b), (log_probabilities, c)] = [(); 2].map(|()| buffer::empty(shape, device));
        Self { nearest: Nearest { classes, cosines, log_probabilities }, itself: [a, b, c], shape: *shape }
    }

    /// Classes, cosines and log-probabilities.
    pub fn hold(&self) -> Result<[Held; 3]> {
        let [a, b, c] = &self.itself;
        let one = |what, itself, element| buffer::hold(what, itself, &self.shape, element);
        Ok([
            one("predictions", a, Element::I32)?,
            one("predictions", b, Element::F32)?,
            one("predictions", c, Element::F32)?,
        ])
    }
}

/// The buffer of a tensor that was made, if it was.
fn hold_made(what: &'static str, made: &Option<(FloatTensor<Cube>, CubeTensor)>) -> Result<Option<Held>> {
    let Some((_, itself)) = made else { return Ok(None) };
    Ok(Some(buffer::hold(what, itself, &[itself.meta.num_elements()], Element::F32)?))
}

/// The inputs' buffers, held until the submit.
struct Holding {
    embeddings: Held,
    prototypes: Held,
    labels: Held,
    optional: Optional<Held>,
}

impl Holding {
    fn new(given: &Given, shape: Shape) -> Result<Self> {
        let (n, d) = (shape.rows(), shape.dim());
        Ok(Self {
            embeddings: buffer::hold("embeddings", &given.embeddings, &[n, d], Element::F32)?,
            prototypes: buffer::hold("prototypes", &given.prototypes, &[shape.vectors(), d], Element::F32)?,
            labels: buffer::hold("labels", &given.labels, &[n], Element::I32)?,
            optional: given
                .optional
                .each_ref()
                .try_map(|what, given| buffer::hold(what, &given.tensor, &given.shape, given.element))?,
        })
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            embeddings: &self.embeddings.tensor,
            prototypes: &self.prototypes.tensor,
            labels: &self.labels.tensor,
            optional: self.optional.each_ref().map(|held| &held.tensor),
        }
    }
}

pub fn submit(context: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    record(&mut encoder);
    context.queue().submit([encoder.finish()]);
}

/// What the backward pass needs of the forward pass.
struct Saved {
    context: Context,
    /// Its workspace holds what the forward pass found.
    lease: Lease,
    given: Given,
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Saved")
    }
}

#[derive(Debug)]
struct HeadBackward;

impl Backward<Cube, 2> for HeadBackward {
    type State = Arc<Mutex<Option<Saved>>>;

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = gradients.consume::<Cube>(&ops.node);
        let saved = ops.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        // burn walks each step of a graph once
        let Some(mut saved) = saved else { return };
        let found = match saved.backward(upstream) {
            Ok(found) => found,
            // burn's backward pass returns no errors
            Err(error) => panic!("the backward pass of the head: {error}"),
        };
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                gradients.register::<Cube>(node.id, gradient);
            }
        }
    }
}

/// The gradients of a batch without rows: those of the embeddings are empty, those of the prototypes 0.
#[derive(Debug)]
struct NoRowsBackward;

impl Backward<Cube, 2> for NoRowsBackward {
    type State = (Shape, CubeDevice);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        gradients.consume::<Cube>(&ops.node);
        let (shape, device) = ops.state;
        let [x, w] = ops.parents;
        if let Some(node) = x {
            gradients.register::<Cube>(node.id, buffer::empty(&[0, shape.dim()], &device).0);
        }
        if let Some(node) = w {
            let zeros = Cube::float_zeros([shape.vectors(), shape.dim()].into(), &device, FloatDType::F32);
            gradients.register::<Cube>(node.id, zeros);
        }
    }
}

impl Saved {
    /// dL/dX and dL/dW, as far as they are planned.
    fn backward(&mut self, upstream: FloatTensor<Cube>) -> Result<[Option<FloatTensor<Cube>>; 2]> {
        let upstream = buffer::float(upstream);
        let device = self.given.embeddings.device.clone();
        let shape = self.lease.shape();
        let held = Holding::new(&self.given, shape)?;
        // burn may have moved them
        self.lease.rebind(&held.inputs())?;
        let Some((bound, own)) = self.lease.get() else { return Ok([None, None]) };
        let from_above = buffer::hold("upstream", &upstream, own.upstream.shape(), Element::F32)?;
        let dx = own.grad_embeddings.as_ref().map(|_| buffer::empty(&[shape.rows(), shape.dim()], &device));
        let dw = (!own.grad_prototypes.is_empty()).then(|| buffer::empty(&[shape.vectors(), shape.dim()], &device));
        let (dx_held, dw_held) = (hold_made("grad_embeddings", &dx)?, hold_made("grad_prototypes", &dw)?);
        submit(&self.context, |encoder| {
            buffer::copy_all(encoder, &from_above.tensor, &own.upstream, 0);
            bound.record_backward(encoder);
            if let (Some(from), Some(to)) = (&own.grad_embeddings, &dx_held) {
                buffer::copy_all(encoder, from, &to.tensor, 0);
            }
            if let Some(to) = &dw_held {
                let mut offset = 0;
                for from in &own.grad_prototypes {
                    buffer::copy_all(encoder, from, &to.tensor, offset);
                    offset += from.bytes();
                }
            }
        });
        Ok([dx.map(|(tensor, _)| tensor), dw.map(|(tensor, _)| tensor)])
    }
}

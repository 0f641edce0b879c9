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
use margin_softmax::{MarginSoftmax, Reduction, Shape, State, gpu::Context, plan::Element, wgpu};

use crate::{
    Result,
    buffer::{self, Held},
    pool::{self, Inputs, Key, Lease, Pool},
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
}

/// The inputs as burn holds them. As long as they are here, burn changes none of them in place.
struct Given {
    embeddings: CubeTensor,
    prototypes: CubeTensor,
    labels: CubeTensor,
    /// \[4\], what follows the batch.
    state: CubeTensor,
}

pub struct Output {
    pub loss: FloatTensor<Cube>,
    /// What follows the batch, after this batch; `None` if nothing moved.
    pub state: Option<FloatTensor<Cube>>,
}

/// The forward pass where nothing can want a gradient.
pub fn evaluate(call: &Call<'_>, tensors: [FloatTensor<Cube>; 3], labels: CubeTensor) -> Result<Output> {
    if call.shape.rows() == 0 {
        let [_, prototypes, _] = tensors;
        return Ok(Output { loss: without_rows(call, prototypes, &labels.device), state: None });
    }
    let [embeddings, prototypes, state] = tensors.map(buffer::float);
    let given = Given { embeddings, prototypes, labels, state };
    Ok(forward(call, &given, [false; 2])?.0)
}

/// A tensor under autodiff.
pub type Tracked<C> = FloatTensor<Autodiff<Cube, C>>;

/// The forward pass under autodiff.
pub fn track<C: CheckpointStrategy>(
    call: &Call<'_>,
    [embeddings, prototypes]: [Tracked<C>; 2],
    state: FloatTensor<Cube>,
    labels: CubeTensor,
) -> Result<(Tracked<C>, Option<FloatTensor<Cube>>)> {
    let wanted = [embeddings.is_tracked(), prototypes.is_tracked()];
    let ((embeddings, x), (prototypes, w)) = (embeddings.into_parts(), prototypes.into_parts());
    if call.shape.rows() == 0 {
        let loss = without_rows(call, prototypes, &labels.device);
        let loss = match NoRowsBackward.prepare::<C>([x, w]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((call.shape, labels.device), loss),
            OpsKind::UnTracked(prepared) => prepared.finish(loss),
        };
        return Ok((loss, None));
    }
    let state = buffer::float(state);
    let given = Given { embeddings: buffer::float(embeddings), prototypes: buffer::float(prototypes), labels, state };
    let (output, lease) = forward(call, &given, wanted)?;
    let loss = match HeadBackward.prepare::<C>([x, w]).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let saved = Saved { context: call.context.clone(), lease, given };
            prepared.finish(Arc::new(Mutex::new(Some(saved))), output.loss)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output.loss),
    };
    Ok((loss, output.state))
}

/// The loss of a batch without rows, by burn's own operations: WebGPU binds no empty buffer. 0, and as for every batch NaN
/// beside a prototype that is not finite.
fn without_rows(call: &Call<'_>, prototypes: FloatTensor<Cube>, device: &CubeDevice) -> FloatTensor<Cube> {
    match call.loss.reduction {
        Reduction::None => buffer::empty(&[0], device).0,
        _ => Cube::float_sum(Cube::float_mul_scalar(prototypes, 0_f64.into())),
    }
}

/// Records and submits the forward pass on burn's buffers.
fn forward(call: &Call<'_>, given: &Given, wanted: [bool; 2]) -> Result<(Output, Lease)> {
    let Call { context, loss, shape, .. } = *call;
    let device = given.embeddings.device.clone();
    let per_row = loss.reduction == Reduction::None;
    let out_shape = [if per_row { shape.rows() } else { 1 }];
    let (out, out_itself) = buffer::empty(&out_shape, &device);

    let held = Holding::new(given, shape)?;
    let [embeddings, prototypes] = wanted;
    let key = Key { device: device.clone(), shape, budget: call.budget, embeddings, prototypes };
    let mut lease = call.pool.take(context, &key, loss, &held.inputs())?;
    let out_held = buffer::hold("loss", &out_itself, &out_shape, Element::F32)?;
    let follows = lease.follows();
    let moved = (follows && call.training).then(|| buffer::empty(&[4], &device));
    let state = buffer::hold("state", &given.state, &[4], Element::F32)?;
    let state_out = match &moved {
        Some((_, itself)) => Some(buffer::hold("state", itself, &[4], Element::F32)?),
        None => None,
    };

    if let Some((bound, own)) = lease.get() {
        bound.set_training(call.training);
        if pool::draws(loss) {
            bound.set_state(call.state)?;
        }
        submit(context, |encoder| {
            if follows {
                buffer::copy_all(encoder, &state.tensor, &own.state, 0);
            }
            bound.record_forward(encoder);
            buffer::copy_all(encoder, own.rows.as_ref().unwrap_or(&own.loss), &out_held.tensor, 0);
            if let Some(out) = &state_out {
                buffer::copy_all(encoder, &own.state, &out.tensor, 0);
            }
        });
    }
    Ok((Output { loss: out, state: moved.map(|(state, _)| state) }, lease))
}

/// The inputs' buffers, held until the submit.
struct Holding {
    embeddings: Held,
    prototypes: Held,
    labels: Held,
}

impl Holding {
    fn new(given: &Given, shape: Shape) -> Result<Self> {
        let (n, d) = (shape.rows(), shape.dim());
        Ok(Self {
            embeddings: buffer::hold("embeddings", &given.embeddings, &[n, d], Element::F32)?,
            prototypes: buffer::hold("prototypes", &given.prototypes, &[shape.vectors(), d], Element::F32)?,
            labels: buffer::hold("labels", &given.labels, &[n], Element::I32)?,
        })
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs { embeddings: &self.embeddings.tensor, prototypes: &self.prototypes.tensor, labels: &self.labels.tensor }
    }
}

fn submit(context: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
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
        let hold = |what, made: &Option<(FloatTensor<Cube>, CubeTensor)>| -> Result<Option<Held>> {
            let Some((_, itself)) = made else { return Ok(None) };
            Ok(Some(buffer::hold(what, itself, &[itself.meta.num_elements()], Element::F32)?))
        };
        let (dx_held, dw_held) = (hold("grad_embeddings", &dx)?, hold("grad_prototypes", &dw)?);
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

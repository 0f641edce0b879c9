//! A head on the caller's encoder and buffers.

use std::sync::Arc;

use super::{Bound, Context, Tensor, bound::expect};
use crate::{
    Error, MarginSoftmax, Reduction, Result,
    plan::{Call, Element, Plan, Slot},
};

/// A planned head, compiled: bind it to any number of sets of tensors.
#[derive(Clone)]
pub struct Head {
    context: Context,
    plan: Arc<Plan>,
    loss: MarginSoftmax,
}

/// The caller's tensors. N rows, C classes, D values a vector, as planned; shards as planned.
///
/// Every offset must be a multiple of the device's `min_storage_buffer_offset_alignment`. A tensor that is written must
/// not share a buffer with one that the same kernel reads; [`Error::Overlap`] names the two.
#[derive(Clone, Copy)]
pub struct Io<'a> {
    /// X, \[N, D\].
    pub embeddings: &'a Tensor,
    /// W, one tensor [classes of the shard, D] per shard.
    pub prototypes: &'a [&'a Tensor],
    /// y, \[N\], i32. A label that names no class makes its row's loss NaN.
    pub labels: &'a Tensor,
    /// w, \[C\], f32, finite and ≥ 0; 1 if absent.
    pub class_weights: Option<&'a Tensor>,
    /// The gradient that arrives from above, f32: \[N\] with `Reduction::None`, else \[1\]; 1 if absent.
    pub upstream: Option<&'a Tensor>,
    /// The reduced loss, \[1\], f32; written.
    pub loss: &'a Tensor,
    /// The rows' losses, \[N\], f32; written.
    pub row_losses: Option<&'a Tensor>,
    /// dL/dX, \[N, D\], f32; written if it was planned.
    pub grad_embeddings: Option<&'a Tensor>,
    /// dL/dW, like the prototypes, f32; written if it was planned.
    pub grad_prototypes: &'a [&'a Tensor],
}

impl Head {
    /// Compiles the plan's kernels, or finds them in the context's cache.
    pub fn new(context: &Context, loss: &MarginSoftmax, plan: Plan) -> Result<Self> {
        plan.settings(loss, &Call::default())?;
        for kernel in plan.kernels() {
            context.pipeline(kernel)?;
        }
        Ok(Self { context: context.clone(), plan: Arc::new(plan), loss: loss.clone() })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Allocates a workspace and binds the tensors. Two bound sets are independent of each other.
    pub fn bind(&self, io: &Io<'_>) -> Result<BoundHead> {
        if let Some(upstream) = io.upstream {
            let expected = if self.loss.reduction == Reduction::None { self.plan.shape().rows() } else { 1 };
            expect("upstream", upstream, &[expected], Element::F32)?;
        }
        self.bind_any(io, io.upstream)
    }

    /// The same with an upstream tensor of \[N\] whatever the reduction is.
    pub(super) fn bind_any(&self, io: &Io<'_>, upstream: Option<&Tensor>) -> Result<BoundHead> {
        let shape = self.plan.shape();
        let (n, c, d) = (shape.rows(), shape.classes(), shape.dim());
        let mut given = vec![];
        let mut add = |slot: Slot, tensor, shape: &[usize], element: Element| {
            expect(slot.name(), tensor, shape, element)?;
            given.push((slot, tensor));
            Ok::<_, Error>(())
        };
        let slots = || self.plan.buffers().iter();
        let planned = |slot| slots().any(|b| matches!(b.role, crate::plan::Role::Given(s) if s == slot));
        let shards = slots().filter(|b| b.name == "prototypes").count();
        let count = |what, found: usize, expected| {
            if found == expected { Ok(()) } else { Err(Error::Length { what, found, expected }) }
        };
        add(Slot::Embeddings, io.embeddings, &[n, d], io.embeddings.element())?;
        add(Slot::Labels, io.labels, &[n], Element::I32)?;
        add(Slot::Loss, io.loss, &[1], Element::F32)?;
        count("prototypes", io.prototypes.len(), shards)?;
        let sizes = self.plan.shard_sizes();
        for (i, (&tensor, &size)) in io.prototypes.iter().zip(&sizes).enumerate() {
            add(Slot::Prototypes(i), tensor, &[size, d], tensor.element())?;
        }
        if let Some(weights) = io.class_weights {
            add(Slot::ClassWeights, weights, &[c], Element::F32)?;
        }
        if let Some(rows) = io.row_losses {
            add(Slot::RowLosses, rows, &[n], Element::F32)?;
        }
        if planned(Slot::GradEmbeddings) {
            let why = "the plan computes this gradient";
            let tensor = io.grad_embeddings.ok_or(Error::Missing { what: "grad_embeddings", why })?;
            add(Slot::GradEmbeddings, tensor, &[n, d], Element::F32)?;
        }
        if planned(Slot::GradPrototypes(0)) {
            count("grad_prototypes", io.grad_prototypes.len(), shards)?;
            for (i, (&tensor, &size)) in io.grad_prototypes.iter().zip(&sizes).enumerate() {
                add(Slot::GradPrototypes(i), tensor, &[size, d], Element::F32)?;
            }
        }
        if let Some(upstream) = upstream
            && self.plan.find("upstream").is_some()
        {
            given.push((Slot::Upstream, upstream));
        }
        for (slot, tensor) in &given {
            self.plan.check_element(*slot, tensor.element())?;
        }
        let call = Call {
            rows: n,
            class_weights: io.class_weights.is_some(),
            upstream: io.upstream.is_some(),
            accumulate: false,
        };
        let bound = Bound::new(&self.context, &self.plan, &given, &self.loss, &call)?;
        Ok(BoundHead { bound, loss: self.loss.clone(), call })
    }
}

/// A head bound to tensors.
pub struct BoundHead {
    pub(super) bound: Bound,
    loss: MarginSoftmax,
    call: Call,
}

impl BoundHead {
    /// New margins, a new scale, another number of rows (at most as planned): one queue write, which holds for every
    /// later submit. Nothing is compiled or allocated.
    ///
    /// [`Error::Recompile`] where the new loss needs another kernel; the old one then stays in force.
    pub fn update(&mut self, loss: &MarginSoftmax, rows: usize) -> Result<()> {
        let per_row = |loss: &MarginSoftmax| loss.reduction == Reduction::None;
        if self.call.upstream && per_row(loss) != per_row(&self.loss) {
            let why = "the bound upstream gradient has the length of the old one; bind again";
            return Err(Error::Combination { what: "reduction", why });
        }
        self.call(loss, Call { rows, ..self.call })
    }

    /// Whether gradients are added to what the tensors hold, instead of overwriting it. Off at first. Holds for every
    /// later submit.
    pub fn set_accumulate(&mut self, on: bool) -> Result<()> {
        let loss = self.loss.clone();
        self.call(&loss, Call { accumulate: on, ..self.call })
    }

    /// Records the forward pass: statistics and loss. Creates, writes, submits and polls nothing.
    ///
    /// The dispatches are those of the current number of rows: update before recording, and record again after an update
    /// that changed it.
    pub fn record_forward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.bound.record_forward(encoder);
    }

    /// Records the backward pass. One follows each forward pass of this bound set: it may turn the cosines that the
    /// forward pass kept into their gradients.
    pub fn record_backward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.bound.record_backward(encoder);
    }

    /// A call with other inputs in use.
    pub(super) fn call(&mut self, loss: &MarginSoftmax, call: Call) -> Result<()> {
        self.bound.update(loss, &call)?;
        self.loss.clone_from(loss);
        self.call = call;
        Ok(())
    }
}

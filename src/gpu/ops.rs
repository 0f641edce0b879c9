//! The pieces of a head on tensors, with the same kernels: for inference, for losses of your own, for looking inside.
//!
//! Every function records into the caller's encoder and returns new tensors; their values are there after the submit.
//! Leading batch dimensions are allowed where a shape says \[B, …\]; a batch of 3 equals three calls. Each call compiles
//! what is new and allocates its small workspace.

use super::{
    Context, Tensor,
    bound::Bound,
    tensor::{expect, nearest},
};
pub use crate::plan::CrossEntropy;
use crate::{
    Error, MarginSoftmax, Reduction, Result, Shape, Tile,
    data::DevicePreset,
    plan::{Batched, Call, Element, Limits, Plan, TensorRole},
};

/// Cosines of all pairs: embeddings \[B, N, D\] (or \[N, D\]) and prototypes \[B, C, D\] give \[B, N, C\] (or \[N, C\]), f32.
///
/// A vector shorter than 1e-12 is x/1e-12; one with a NaN or infinite value has cosine 0 with everything.
pub fn cosine(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    embeddings: &Tensor,
    prototypes: &Tensor,
) -> Result<Tensor> {
    let sizes = pairs(embeddings, prototypes)?;
    let plan = Plan::cosine(sizes, context.limits(), tile(sizes.shape, context.limits()), false)?;
    let out = Tensor::empty(context, &cells(embeddings, sizes.shape), Element::F32)?;
    let given =
        [(TensorRole::Embeddings, embeddings), (TensorRole::Prototypes(0), prototypes), (TensorRole::Cosines, &out)];
    Bound::record_once(context, encoder, plan, &given, &MarginSoftmax::default(), Call::default())?;
    Ok(out)
}

/// The gradients of [`cosine`] to both operands, from its result and dL/dcosines.
pub fn cosine_backward(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    embeddings: &Tensor,
    prototypes: &Tensor,
    cosines: &Tensor,
    grad_cosines: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let sizes = pairs(embeddings, prototypes)?;
    let shape = cells(embeddings, sizes.shape);
    expect("cosines", cosines, &shape, Element::F32)?;
    expect("grad_cosines", grad_cosines, &shape, Element::F32)?;
    let plan = Plan::cosine(sizes, context.limits(), tile(sizes.shape, context.limits()), true)?;
    let grad_x = Tensor::empty(context, embeddings.shape(), Element::F32)?;
    let grad_w = Tensor::empty(context, prototypes.shape(), Element::F32)?;
    let given = [
        (TensorRole::Embeddings, embeddings),
        (TensorRole::Prototypes(0), prototypes),
        (TensorRole::Cosines, cosines),
        (TensorRole::GradCosines, grad_cosines),
        (TensorRole::GradEmbeddings, &grad_x),
        (TensorRole::GradPrototypes(0), &grad_w),
    ];
    Bound::record_once(context, encoder, plan, &given, &MarginSoftmax::default(), Call::default())?;
    Ok((grad_x, grad_w))
}

/// Logits of given cosines: `scale · φ(c)` at the label \[B, N\] (i32), `scale · other(c)` elsewhere; \[B, N, C\], f32.
///
/// A label that names no class leaves its row without a target. Reduction, smoothing and ignore index play no part.
pub fn margin(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    loss: &MarginSoftmax,
    cosines: &Tensor,
    labels: &Tensor,
) -> Result<Tensor> {
    let sizes = labelled("cosines", cosines, labels)?;
    let plan = Plan::margin(loss, sizes, context.limits(), false)?;
    let out = Tensor::empty(context, cosines.shape(), Element::F32)?;
    let given = [(TensorRole::Cosines, cosines), (TensorRole::Labels, labels), (TensorRole::Logits, &out)];
    Bound::record_once(context, encoder, plan, &given, loss, Call::default())?;
    Ok(out)
}

/// dL/dcosines of [`margin`], from its cosines and dL/dlogits.
pub fn margin_backward(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    loss: &MarginSoftmax,
    cosines: &Tensor,
    labels: &Tensor,
    grad_logits: &Tensor,
) -> Result<Tensor> {
    let sizes = labelled("cosines", cosines, labels)?;
    expect("grad_logits", grad_logits, cosines.shape(), Element::F32)?;
    let plan = Plan::margin(loss, sizes, context.limits(), true)?;
    let out = Tensor::empty(context, cosines.shape(), Element::F32)?;
    let given = [
        (TensorRole::Cosines, cosines),
        (TensorRole::Labels, labels),
        (TensorRole::GradLogits, grad_logits),
        (TensorRole::GradCosines, &out),
    ];
    Bound::record_once(context, encoder, plan, &given, loss, Call::default())?;
    Ok(out)
}

/// The results of [`cross_entropy`].
pub struct Losses {
    /// One value per batch entry, \[B\] (or \[1\]).
    pub loss: Tensor,
    /// One value per row, class weights included.
    pub row_losses: Tensor,
}

/// Softmax cross entropy of given logits \[B, N, C\] and labels \[B, N\] (i32), as in `torch.nn.functional.cross_entropy`;
/// with optional class weights \[C\]. Each batch entry is reduced by itself.
///
/// A row with a NaN or infinite logit has a NaN loss and gradient 0.
pub fn cross_entropy(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    options: &CrossEntropy,
    logits: &Tensor,
    labels: &Tensor,
    class_weights: Option<&Tensor>,
) -> Result<Losses> {
    Ok(entropy(context, encoder, options, (logits, labels, class_weights), None)?.0)
}

/// [`cross_entropy`] and dL/dlogits. `upstream` holds \[B, N\] values with `Reduction::None`, else \[B\]; 1 if absent.
pub fn cross_entropy_backward(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    options: &CrossEntropy,
    logits: &Tensor,
    labels: &Tensor,
    class_weights: Option<&Tensor>,
    upstream: Option<&Tensor>,
) -> Result<(Losses, Tensor)> {
    let gradient = Tensor::empty(context, logits.shape(), Element::F32)?;
    let (losses, gradient) =
        entropy(context, encoder, options, (logits, labels, class_weights), Some((gradient, upstream)))?;
    gradient.map(|g| (losses, g)).ok_or(Error::Missing { what: "grad_logits", why: "a backward pass writes it" })
}

fn entropy(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    options: &CrossEntropy,
    (logits, labels, class_weights): (&Tensor, &Tensor, Option<&Tensor>),
    backward: Option<(Tensor, Option<&Tensor>)>,
) -> Result<(Losses, Option<Tensor>)> {
    let sizes = labelled("logits", logits, labels)?;
    if let Some(weights) = class_weights {
        expect("class_weights", weights, &[sizes.shape.classes()], Element::F32)?;
    }
    let plan = Plan::cross_entropy(options, sizes, context.limits(), backward.is_some())?;
    let loss = Tensor::empty(context, &[sizes.entries], Element::F32)?;
    let row_losses = Tensor::empty(context, labels.shape(), Element::F32)?;
    let mut given = vec![
        (TensorRole::Logits, logits),
        (TensorRole::Labels, labels),
        (TensorRole::Loss, &loss),
        (TensorRole::RowLosses, &row_losses),
    ];
    let (weighted, pulled) = (class_weights.is_some(), backward.as_ref().is_some_and(|(_, up)| up.is_some()));
    if let Some(weights) = class_weights {
        given.push((TensorRole::ClassWeights, weights));
    }
    if let Some((gradient, upstream)) = &backward {
        given.push((TensorRole::GradLogits, gradient));
        if let Some(upstream) = upstream {
            if options.reduction == Reduction::None {
                expect("upstream", upstream, labels.shape(), Element::F32)?;
            } else {
                expect("upstream", upstream, &[sizes.entries], Element::F32)?;
            }
            given.push((TensorRole::Upstream, upstream));
        }
        // the gradient is formed in place, from a copy
        if !logits.buffer().usage().contains(wgpu::BufferUsages::COPY_SRC) {
            return Err(Error::Usage { what: "logits", usage: "COPY_SRC" });
        }
    }
    let call = Call { class_weights: weighted, upstream: pulled, ..Default::default() };
    let bound = Bound::once(context, plan, &given, &options.loss(), call)?;
    if let Some((gradient, _)) = &backward {
        encoder.copy_buffer_to_buffer(logits.buffer(), logits.offset(), gradient.buffer(), 0, logits.bytes());
    }
    bound.record_forward(false, encoder);
    Ok((Losses { loss, row_losses }, backward.map(|(gradient, _)| gradient)))
}

fn tile(shape: Shape, limits: &Limits) -> Tile {
    DevicePreset::Auto.tile(shape.rows(), shape.classes(), limits)
}

/// B, N and the last axis of \[N, ..\] or \[B, N, ..\].
fn rows(what: &'static str, tensor: &Tensor) -> Result<(usize, usize, usize)> {
    match *tensor.shape() {
        [n, last] => Ok((1, n, last)),
        [b, n, last] => Ok((b, n, last)),
        ref found => Err(Error::Shape { what, found: found.to_vec(), expected: nearest(found, 2, 3) }),
    }
}

/// \[N, D\] and \[C, D\], or \[B, N, D\] and \[B, C, D\].
fn pairs(x: &Tensor, w: &Tensor) -> Result<Batched> {
    let (entries, n, d) = rows("embeddings", x)?;
    // the number of classes is free
    let c = w.shape().iter().rev().nth(1).copied().unwrap_or(1);
    let expected = if x.shape().len() == 3 { vec![entries, c, d] } else { vec![c, d] };
    if w.shape() != expected {
        return Err(Error::Shape { what: "prototypes", found: w.shape().to_vec(), expected });
    }
    Batched::new(entries, Shape::new(n, c, d)?, [x.element(), w.element()])
}

/// \[N, C\] and \[N\], or \[B, N, C\] and \[B, N\].
fn labelled(what: &'static str, cells: &Tensor, labels: &Tensor) -> Result<Batched> {
    let (entries, n, c) = rows(what, cells)?;
    expect(what, cells, cells.shape(), Element::F32)?;
    expect("labels", labels, &cells.shape()[..cells.shape().len() - 1], Element::I32)?;
    Batched::new(entries, Shape::new(n, c, 1)?, [Element::F32; 2])
}

/// [.., N, C]
fn cells(x: &Tensor, shape: Shape) -> Vec<usize> {
    let mut cells = x.shape().to_vec();
    if let Some(last) = cells.last_mut() {
        *last = shape.classes();
    }
    cells
}

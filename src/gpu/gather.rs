//! Partial FC on tensors: the prototypes of sampled classes, gathered on the device.

use super::{Context, Tensor, bound::Bound, tensor::expect};
use crate::{
    Error, MarginSoftmax, Result, Shape,
    plan::{Call, Element, Layout, Plan, TensorRole},
};

/// Records the gathering of prototypes \[C, D\] (f32, f16 or bf16) of the sampled classes \[Q\] (i32) into a new tensor
/// \[Q, D\], f32: the prototypes of a head of Q classes, whose labels are positions in the list. The prototypes may lie in
/// several tensors, [classes of the shard, D] each, of one element.
///
/// That head's dW \[Q, D\] belongs to the same classes; the rows of all others are 0. A class that does not exist is
/// gathered as NaN, which makes every loss NaN. With K sub-centers reshape the prototypes to \[C, K·D\] and back.
pub fn gather(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    prototypes: &[&Tensor],
    classes: &Tensor,
) -> Result<Tensor> {
    let (shape, _) = sizes(prototypes, classes)?;
    let out = Tensor::empty(context, &[shape.rows(), shape.dim()], Element::F32)?;
    gather_into(context, encoder, prototypes, classes, &out)?;
    Ok(out)
}

/// [`gather`] into a tensor \[Q, D\], f32, that is there already: a head that is bound to it sees other classes in every
/// step.
pub fn gather_into(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    prototypes: &[&Tensor],
    classes: &Tensor,
    gathered: &Tensor,
) -> Result<()> {
    let (shape, shards) = sizes(prototypes, classes)?;
    expect("gathered", gathered, &[shape.rows(), shape.dim()], Element::F32)?;
    let element = prototypes.first().map_or(Element::F32, |tensor| tensor.element());
    let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: element };
    let plan = Plan::gather(shape, &layout, context.limits())?;
    let mut given = vec![(TensorRole::Labels, classes), (TensorRole::GradPrototypes(0), gathered)];
    for (i, tensor) in prototypes.iter().enumerate() {
        given.push((TensorRole::Prototypes(i), tensor));
    }
    let recorded = Bound::record_once(context, encoder, plan, &given, &MarginSoftmax::default(), Call::default());
    recorded.map_err(|error| error.renamed(&[("labels", "classes"), ("grad_prototypes", "gathered")]))
}

/// Q, C and D, and the classes of every shard.
fn sizes(prototypes: &[&Tensor], classes: &Tensor) -> Result<(Shape, Vec<usize>)> {
    let wrong = |what, tensor: &Tensor, expected| Error::Shape { what, found: tensor.shape().to_vec(), expected };
    let Some(first) = prototypes.first() else { return Err(Error::Zero { what: "prototypes" }) };
    // a class is a row, whatever it is made of
    let row = |shape: &[usize]| shape.iter().skip(1).fold(1_usize, |all, &axis| all.saturating_mul(axis));
    let count = |shape: &[usize]| shape.first().copied().unwrap_or(1);
    let &[_, d] = first.shape() else {
        return Err(wrong("prototypes", first, vec![count(first.shape()), row(first.shape())]));
    };
    let mut shards = vec![];
    for tensor in prototypes {
        match *tensor.shape() {
            [count, width] if width == d => shards.push(count),
            _ => return Err(wrong("prototypes", tensor, vec![count(tensor.shape()), d])),
        }
    }
    let &[q] = classes.shape() else { return Err(wrong("classes", classes, vec![classes.len()])) };
    expect("classes", classes, &[q], Element::I32)?;
    let all = shards.iter().fold(0_usize, |sum, &count| sum.saturating_add(count));
    Ok((Shape::new(q, all, d)?, shards))
}

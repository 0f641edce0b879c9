//! Regularisers and center loss on tensors. Every function records into the caller's encoder; each call compiles what is
//! new and allocates its small workspace.

use super::{
    Context, Tensor,
    bound::Bound,
    tensor::{expect, nearest},
};
use crate::{
    CenterLoss, Error, Regularizer, Result, Shape,
    data::{CenterOutput, Penalty},
    plan::{Call, Element, Plan, TensorRole},
};

/// Records a penalty on prototypes \[C, D\] (f32, f16 or bf16). Returns its value, \[1\]; its gradient is written into
/// `grad_prototypes` \[C, D\] (f32), or with `accumulate` added to what is there, as to the gradient of a head.
///
/// A vector longer than 8e37 has no f32 inverse and counts as not finite. In f32 the mean direction of `RegSs` is known to
/// 1e-7: where it is not much longer than that, its direction, and so the gradient, is rounding.
pub fn regularize(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    regularizer: &Regularizer,
    prototypes: &Tensor,
    grad_prototypes: &Tensor,
    accumulate: bool,
) -> Result<Tensor> {
    let (classes, dim) = vectors("prototypes", prototypes)?;
    let shape = Shape::new(1, classes, dim)?;
    expect("grad_prototypes", grad_prototypes, &[classes, dim], Element::F32)?;
    let plan = Plan::regularizer(regularizer, shape, prototypes.element(), context.limits())?;
    let value = Tensor::empty(context, &[1], Element::F32)?;
    let given = [
        (TensorRole::Prototypes(0), prototypes),
        (TensorRole::GradPrototypes(0), grad_prototypes),
        (TensorRole::Loss, &value),
    ];
    let call = Call { accumulate: accumulate.into(), ..Call::default() };
    Bound::record_once(context, encoder, plan, &given, &regularizer.settings_loss(), call)?;
    Ok(value)
}

/// Records the center loss of embeddings \[N, D\] (f32, f16 or bf16) with labels \[N\] (i32) around centers \[C, D\] (f32).
/// Returns its value, \[1\]; its gradient is written into `grad_embeddings` \[N, D\] (f32), or with `accumulate` added to
/// what is there.
///
/// At least one and at most 2²² rows. A difference of embedding and center beyond f32 counts as not finite.
#[allow(clippy::too_many_arguments)]
pub fn center_loss(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    loss: &CenterLoss,
    embeddings: &Tensor,
    labels: &Tensor,
    centers: &Tensor,
    grad_embeddings: &Tensor,
    accumulate: bool,
) -> Result<Tensor> {
    let shape = sizes(embeddings, labels, centers)?;
    expect("grad_embeddings", grad_embeddings, embeddings.shape(), Element::F32)?;
    let plan = Plan::center_loss(loss, shape, embeddings.element(), context.limits())?;
    let value = Tensor::empty(context, &[1], Element::F32)?;
    let given = [
        (TensorRole::Embeddings, embeddings),
        (TensorRole::Prototypes(0), centers),
        (TensorRole::Labels, labels),
        (TensorRole::GradEmbeddings, grad_embeddings),
        (TensorRole::Loss, &value),
    ];
    let call = Call { accumulate: accumulate.into(), ..Call::default() };
    Bound::record_once(context, encoder, plan, &given, &loss.settings_loss(), call).map_err(of_centers)?;
    Ok(value)
}

/// Records one move of the centers \[C, D\] (f32), in place, towards the embeddings \[N, D\] (f32, f16 or bf16) of their
/// classes; labels \[N\] (i32). At least one and at most 32,768 rows.
pub fn update_centers(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    loss: &CenterLoss,
    embeddings: &Tensor,
    labels: &Tensor,
    centers: &Tensor,
) -> Result<()> {
    let shape = sizes(embeddings, labels, centers)?;
    let plan = Plan::center_update(loss, shape, embeddings.element(), context.limits())?;
    let given =
        [(TensorRole::Embeddings, embeddings), (TensorRole::Prototypes(0), centers), (TensorRole::Labels, labels)];
    Bound::record_once(context, encoder, plan, &given, &loss.update_settings_loss(), Call::default())
        .map_err(of_centers)
}

/// The centers are the plan's prototypes.
fn of_centers(error: Error) -> Error {
    error.renamed(&[("prototypes", "centers")])
}

/// The axes of a matrix.
fn vectors(what: &'static str, tensor: &Tensor) -> Result<(usize, usize)> {
    match *tensor.shape() {
        [count, dim] => Ok((count, dim)),
        ref found => Err(Error::Shape { what, found: found.to_vec(), expected: nearest(found, 2, 2) }),
    }
}

fn sizes(embeddings: &Tensor, labels: &Tensor, centers: &Tensor) -> Result<Shape> {
    let (n, d) = vectors("embeddings", embeddings)?;
    let (c, _) = vectors("centers", centers)?;
    expect("labels", labels, &[n], Element::I32)?;
    expect("centers", centers, &[c, d], Element::F32)?;
    Shape::new(n, c, d)
}

/// [`regularize`] of a slice, checked before.
pub(crate) async fn penalty(
    context: &Context,
    regularizer: &Regularizer,
    shape: Shape,
    prototypes: &[f32],
) -> Result<Penalty> {
    let size = [shape.classes(), shape.dim()];
    let prototypes = Tensor::upload(context, &size, prototypes)?;
    let gradient = Tensor::empty(context, &size, Element::F32)?;
    let value = context.try_submit(|e| regularize(context, e, regularizer, &prototypes, &gradient, false))?;
    Ok(Penalty { value: first(value.read_async(context).await?), gradient: gradient.read_async(context).await? })
}

/// [`center_loss`] of slices, checked before.
pub(crate) async fn centers(
    context: &Context,
    loss: &CenterLoss,
    shape: Shape,
    embeddings: &[f32],
    classes: &[Option<usize>],
    centers: &[f32],
) -> Result<CenterOutput> {
    if shape.rows() == 0 {
        return Ok(CenterOutput::default());
    }
    let (loss, [x, y, c]) = upload(context, loss, shape, embeddings, classes, centers)?;
    let gradient = Tensor::empty(context, x.shape(), Element::F32)?;
    let value = context.try_submit(|e| center_loss(context, e, &loss, &x, &y, &c, &gradient, false))?;
    let loss = first(value.read_async(context).await?);
    Ok(CenterOutput { loss, grad_embeddings: gradient.read_async(context).await? })
}

/// [`update_centers`] of slices, checked before.
pub(crate) async fn moved(
    context: &Context,
    loss: &CenterLoss,
    shape: Shape,
    embeddings: &[f32],
    classes: &[Option<usize>],
    centers: &mut [f32],
) -> Result<()> {
    if shape.rows() == 0 {
        return Ok(());
    }
    let (loss, [x, y, c]) = upload(context, loss, shape, embeddings, classes, centers)?;
    context.try_submit(|e| update_centers(context, e, &loss, &x, &y, &c))?;
    centers.copy_from_slice(&c.read_async::<f32>(context).await?);
    Ok(())
}

/// Embeddings, labels and centers; an ignored row has the label −1.
fn upload(
    context: &Context,
    loss: &CenterLoss,
    shape: Shape,
    embeddings: &[f32],
    classes: &[Option<usize>],
    centers: &[f32],
) -> Result<(CenterLoss, [Tensor; 3])> {
    let labels: Vec<i32> = classes.iter().map(|class| class.map_or(-1, |c| c as i32)).collect();
    let x = Tensor::upload(context, &[shape.rows(), shape.dim()], embeddings)?;
    let y = Tensor::upload(context, &[shape.rows()], &labels)?;
    let c = Tensor::upload(context, &[shape.classes(), shape.dim()], centers)?;
    Ok((CenterLoss { ignore_index: Some(-1), ..*loss }, [x, y, c]))
}

fn first(values: Vec<f32>) -> f32 {
    values.first().copied().unwrap_or(f32::NAN)
}

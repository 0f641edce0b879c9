//! Partial FC on tensors: the prototypes of sampled classes, gathered on the device.

use std::sync::Arc;

use super::{Bound, Context, Tensor, bound::expect};
use crate::{
    Error, MarginSoftmax, Result, Shape,
    plan::{Call, Element, Plan, Slot},
};

/// Records the gathering of prototypes \[C, D\] (f32, f16 or bf16) of the sampled classes \[Q\] (i32) into a new tensor
/// \[Q, D\], f32: the prototypes of a head of Q classes, whose labels are positions in the list.
///
/// That head's dW \[Q, D\] belongs to the same classes; the rows of all others are 0. A class that does not exist is
/// gathered as NaN, which makes every loss NaN. With K sub-centres reshape the prototypes to \[C, K·D\] and back.
pub fn gather(
    context: &Context,
    encoder: &mut wgpu::CommandEncoder,
    prototypes: &Tensor,
    classes: &Tensor,
) -> Result<Tensor> {
    let (&[c, d], &[q]) = (prototypes.shape(), classes.shape()) else {
        let (found, expected) = (prototypes.shape().to_vec(), vec![1, 1]);
        return Err(Error::Shape { what: "prototypes", found, expected });
    };
    expect("classes", classes, &[q], Element::I32)?;
    let plan = Plan::gather(Shape::new(q, c, d)?, prototypes.element(), context.limits())?;
    let out = Tensor::empty(context, &[q, d], Element::F32)?;
    let given = [(Slot::Prototypes(0), prototypes), (Slot::Labels, classes), (Slot::GradPrototypes(0), &out)];
    let call = Call { rows: q, ..Call::default() };
    Bound::new(context, &Arc::new(plan), &given, &MarginSoftmax::default(), &call)?.record_forward(encoder);
    Ok(out)
}

//! Soft labels of a head over slices on a device.

use super::{Context, Tensor};
use crate::{
    Result,
    objective::CheckedBatch,
    plan::{Element, Plan},
};

/// The tensors of soft labels, where a plan has them.
pub(super) struct SoftTensors {
    /// \[N, T\].
    pub classes: Tensor,
    pub weights: Tensor,
    /// \[C, 4\]: each target looks up those of its class.
    pub class_margins: Tensor,
}

impl SoftTensors {
    pub fn new(context: &Context, plan: &Plan) -> Result<Option<Self>> {
        let (count, n) = (plan.soft_labels(), plan.shape().rows());
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            classes: Tensor::empty(context, &[n, count], Element::I32)?,
            weights: Tensor::empty(context, &[n, count], Element::F32)?,
            class_margins: Tensor::empty(context, &[plan.shape().classes(), 4], Element::F32)?,
        }))
    }

    /// Soft labels, and margins as they come.
    pub fn upload(&self, context: &Context, batch: &CheckedBatch<'_>, row_margins: Option<&Tensor>) -> Result<()> {
        let upload = |tensor: &Tensor, values: &[u8]| super::tensor::write(context, tensor.buffer(), 0, values);
        for (margins, tensor) in batch.given_margins.iter().zip([Some(&self.class_margins), row_margins]) {
            if let (true, Some(tensor)) = (margins.any(), tensor) {
                // NaN: not given
                let mut all = vec![[f32::NAN; 4]; tensor.shape()[0]];
                for (k, given) in margins.each().into_iter().enumerate() {
                    all.iter_mut().zip(given.unwrap_or_default()).for_each(|(m, given)| m[k] = *given);
                }
                upload(tensor, bytemuck::cast_slice(&all))?;
            }
        }
        let Some(soft) = &batch.soft else { return Ok(()) };
        let (mut classes, mut weights) = (vec![], vec![]);
        let count = self.classes.shape()[1];
        for (row, &label) in batch.labels.iter().enumerate() {
            let own = (soft.labels[row] > 0.0).then_some((label as usize, soft.labels[row]));
            let all = own.into_iter().chain(soft.of(row).0.iter().flatten().copied()).map(Some);
            for target in all.chain(std::iter::repeat(None)).take(count) {
                classes.push(target.map_or(-1, |(class, _)| class as i32));
                weights.push(target.map_or(0.0, |(_, weight)| weight as f32));
            }
        }
        upload(&self.classes, bytemuck::cast_slice(&classes))?;
        upload(&self.weights, bytemuck::cast_slice(&weights))
    }
}

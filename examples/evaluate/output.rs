//! The results as a safetensors file.

use std::collections::HashMap;

use margin_softmax::{Output, Shape};
use safetensors::{Dtype, tensor::TensorView};

use crate::command::Result;

/// A type of the results.
pub trait Element: Copy {
    const DTYPE: Dtype;
    fn bytes(values: &[Self]) -> Vec<u8>;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    fn bytes(values: &[Self]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
}

impl Element for f64 {
    const DTYPE: Dtype = Dtype::F64;
    fn bytes(values: &[Self]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
}

/// The file's bytes. One metadata entry only: the order of several would change from run to run.
pub fn bytes<T: Element>(shape: Shape, out: &Output<T>, about: String) -> Result<Vec<u8>> {
    let (n, c, k, d) = (shape.rows(), shape.classes(), shape.sub_centers(), shape.dim());
    let prototypes = if k == 1 { vec![c, d] } else { vec![c, k, d] };
    let mut tensors = vec![
        ("loss", vec![], T::bytes(&[out.loss])),
        ("row_losses", vec![n], T::bytes(&out.row_losses)),
        ("grad_embeddings", vec![n, d], T::bytes(&out.grad_embeddings)),
        ("grad_prototypes", prototypes, T::bytes(&out.grad_prototypes)),
        ("grad_scale", vec![], T::bytes(&[out.grad_scale])),
    ];
    if !out.log_sum_exps.is_empty() {
        tensors.push(("log_sum_exps", vec![n], T::bytes(&out.log_sum_exps)));
    }
    if !out.grad_bias.is_empty() {
        tensors.push(("grad_bias", vec![out.grad_bias.len()], T::bytes(&out.grad_bias)));
    }
    let views =
        tensors.iter().map(|(name, shape, bytes)| Ok((*name, TensorView::new(T::DTYPE, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize(views, Some(HashMap::from([("evaluate".into(), about)])))?)
}

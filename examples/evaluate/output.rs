//! The results as a safetensors file.

use std::collections::HashMap;

use margin_softmax::{Output, Shape, predict::Predictions};
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
pub fn bytes<T: Element>(
    shape: Shape,
    out: &Output<T>,
    nearest: Option<&Predictions<T>>,
    about: String,
) -> Result<Vec<u8>> {
    let (n, c, k, d) = (shape.rows(), shape.classes(), shape.sub_centers(), shape.dim());
    let prototypes = if k == 1 { vec![c, d] } else { vec![c, k, d] };
    let floats = |name, shape, values: &[T]| (name, T::DTYPE, shape, T::bytes(values));
    let mut tensors = vec![
        floats("loss", vec![], &[out.loss]),
        floats("row_losses", vec![n], &out.row_losses),
        floats("target_cosines", vec![n], &out.target_cosines),
        floats("other_cosines", vec![n], &out.other_cosines),
        floats("grad_embeddings", vec![n, d], &out.grad_embeddings),
        floats("grad_prototypes", prototypes, &out.grad_prototypes),
        floats("grad_scale", vec![], &[out.grad_scale]),
    ];
    if !out.log_sum_exps.is_empty() {
        tensors.push(floats("log_sum_exps", vec![n], &out.log_sum_exps));
    }
    if !out.grad_bias.is_empty() {
        tensors.push(floats("grad_bias", vec![out.grad_bias.len()], &out.grad_bias));
    }
    if let Some(all) = nearest {
        // a row without a prediction has the class -1
        let class = |&class: &u32| if class == u32::MAX { -1 } else { i64::from(class) };
        let classes = all.classes.iter().flat_map(|c| class(c).to_le_bytes()).collect();
        let shape = vec![n, all.count];
        tensors.push(("predicted_classes", Dtype::I64, shape.clone(), classes));
        tensors.push(floats("predicted_cosines", shape.clone(), &all.cosines));
        tensors.push(floats("predicted_log_probabilities", shape, &all.log_probabilities));
    }
    let views =
        tensors.iter().map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize(views, Some(HashMap::from([("evaluate".into(), about)])))?)
}

//! Cosines of pairs of vectors on a device.

use super::{Context, Tensor, operations};
use crate::Result;

/// Cosines of all pairs, \[N, D\] and \[M, D\] to \[N, M\], neither of them empty.
pub(crate) async fn cosines(context: &Context, dim: usize, left: &[f32], right: &[f32]) -> Result<Vec<f32>> {
    let [x, w] = [left, right].map(|values| Tensor::upload(context, &[values.len() / dim, dim], values));
    let (x, w) = (x?, w?);
    let cosines = context.try_submit(|encoder| operations::cosine(context, encoder, &x, &w))?;
    cosines.read_async(context).await
}

//! Tensors of floating-point numbers from a safetensors file.

use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorView};

/// The types that are read.
pub const FLOATS: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::BF16];

/// As f32. The element type was checked: what is neither half is f32.
pub fn widened(tensor: &TensorView) -> Vec<f32> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

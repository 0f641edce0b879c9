//! burn tensors as ranges of wgpu buffers.

use std::any::Any;

use burn::backend::{
    Cube,
    tensor::{FloatTensor, IntTensor},
};
use burn_cubecl::{
    CubeBackend, CubeDevice,
    cubecl::{
        self,
        wgpu::{AutoCompiler, WgpuServer},
    },
    kernel::into_contiguous,
    tensor::CubeTensor,
};
use margin_softmax::{gpu::Tensor, plan::Element, wgpu};

use crate::{Error, Result};

/// What a tensor's client does when burn's `fusion` feature is on: runs what is queued and gives the tensor itself. When
/// it is off the tensor is there already. Which it is, cargo's feature unification decides; this compiles against both,
/// since an inherent method goes before one of a trait.
#[allow(dead_code)]
trait Resolve {
    fn resolve_tensor_float<B>(&self, tensor: CubeTensor) -> CubeTensor {
        tensor
    }
    fn resolve_tensor_int<B>(&self, tensor: CubeTensor) -> CubeTensor {
        tensor
    }
}

impl Resolve for cubecl::client::Client {}

/// Dense, whatever it was.
pub fn float(tensor: FloatTensor<Cube>) -> CubeTensor {
    into_contiguous(tensor.client.clone().resolve_tensor_float::<CubeBackend>(tensor))
}

/// Dense, whatever it was.
pub fn int(tensor: IntTensor<Cube>) -> CubeTensor {
    into_contiguous(tensor.client.clone().resolve_tensor_int::<CubeBackend>(tensor))
}

/// A new f32 tensor of burn's, and the same as its backend sees it.
pub fn empty(shape: &[usize], device: &CubeDevice) -> (FloatTensor<Cube>, CubeTensor) {
    use burn::{backend::ops::FloatTensorOps, tensor::FloatDType};
    let tensor = Cube::float_empty(shape.to_vec().into(), device, FloatDType::F32);
    let itself = tensor.client.clone().resolve_tensor_float::<CubeBackend>(tensor.clone());
    // on wgpu burn lays every new tensor out densely
    debug_assert!(itself.is_contiguous());
    (tensor, itself)
}

/// The same of i32.
pub fn empty_int(shape: &[usize], device: &CubeDevice) -> (IntTensor<Cube>, CubeTensor) {
    use burn::{backend::ops::IntTensorOps, tensor::IntDType};
    let tensor = Cube::int_empty(shape.to_vec().into(), device, IntDType::I32);
    let itself = tensor.client.clone().resolve_tensor_int::<CubeBackend>(tensor.clone());
    debug_assert!(itself.is_contiguous());
    (tensor, itself)
}

/// A burn tensor's own buffer, which burn neither moves nor gives to somebody else while this is held.
pub struct Held {
    pub tensor: Tensor,
    _memory: Box<dyn Any>,
}

/// Finds the buffer of a tensor. burn submits what it has queued for it first, so what is submitted later comes later.
pub fn hold(what: &'static str, tensor: &CubeTensor, shape: &[usize], element: Element) -> Result<Held> {
    let message = |message: String| Error::Buffer { what, message };
    let memory = tensor
        .client
        .get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone())
        .map_err(|e| message(e.to_string()))?;
    let found = memory.resource();
    let tensor = Tensor::from_buffer(&found.buffer, found.offset, shape, element)?;
    Ok(Held { tensor, _memory: Box::new(memory) })
}

/// Copies a whole tensor to a place in another one, on the device.
pub fn copy_all(encoder: &mut wgpu::CommandEncoder, from: &Tensor, to: &Tensor, offset: u64) {
    let to_offset = to.offset() + offset;
    encoder.copy_buffer_to_buffer(from.buffer(), from.offset(), to.buffer(), to_offset, from.bytes());
}

//! A tensor: a range of a wgpu buffer with a shape and an element type.

use half::{bf16, f16};

use super::{Context, context::lost, readback::Download};
use crate::{Error, Result, plan::Element, shape::check_length};

/// A Rust number that a tensor can hold.
pub trait Scalar: bytemuck::Pod {
    /// Its element type.
    const ELEMENT: Element;
}

impl Scalar for f32 {
    const ELEMENT: Element = Element::F32;
}
impl Scalar for f16 {
    const ELEMENT: Element = Element::F16;
}
impl Scalar for bf16 {
    const ELEMENT: Element = Element::Bf16;
}
impl Scalar for i32 {
    const ELEMENT: Element = Element::I32;
}
impl Scalar for u32 {
    const ELEMENT: Element = Element::U32;
}

/// A dense row-major tensor in a range of a buffer. Cloning shares the buffer.
#[derive(Debug, Clone)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    offset: u64,
    shape: Vec<usize>,
    element: Element,
    /// Nobody else's bytes stand behind a last odd half-word.
    padded: bool,
}

/// The usages of buffers that [`Tensor::upload`] and [`Tensor::empty`] make.
const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

impl Tensor {
    /// A new buffer, filled with zeros.
    pub fn empty(context: &Context, shape: &[usize], element: Element) -> Result<Self> {
        let bytes = bytes(shape, element)?;
        let buffer = context.buffer("tensor", bytes, USAGE)?;
        Ok(Self { buffer, offset: 0, shape: shape.to_vec(), element, padded: true })
    }

    /// A new buffer with these values.
    pub fn upload<T: Scalar>(context: &Context, shape: &[usize], values: &[T]) -> Result<Self> {
        let tensor = Self::empty(context, shape, T::ELEMENT)?;
        tensor.write(context, values)?;
        Ok(tensor)
    }

    /// A view of the caller's buffer from byte `offset`. The buffer needs the usage `STORAGE`.
    pub fn from_buffer(buffer: &wgpu::Buffer, offset: u64, shape: &[usize], element: Element) -> Result<Self> {
        let what = "tensor";
        let end = offset.saturating_add(bytes(shape, element)?);
        if end > buffer.size() {
            return Err(Error::Buffer { what, offset, end, found: buffer.size() });
        }
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::Usage { what, usage: "STORAGE" });
        }
        Ok(Self { buffer: buffer.clone(), offset, shape: shape.to_vec(), element, padded: false })
    }

    /// Overwrites the values; takes effect before any later submit. In a buffer of the caller's both ends of the tensor
    /// must be multiples of 4 bytes.
    pub fn write<T: Scalar>(&self, context: &Context, values: &[T]) -> Result<()> {
        if T::ELEMENT != self.element {
            let (found, expected) = (T::ELEMENT.name(), self.element.name());
            return Err(Error::Element { what: "values", found, expected });
        }
        check_length("values", values.len(), self.len())?;
        self.need(wgpu::BufferUsages::COPY_DST, "COPY_DST")?;
        // a last odd half-word may share its word with somebody else's value
        let end = self.offset + self.bytes();
        for (offset, fits) in [(self.offset, false), (end, self.padded)] {
            if !fits && !offset.is_multiple_of(4) {
                return Err(Error::Alignment { what: "tensor", offset, alignment: 4 });
            }
        }
        let written = write(context, &self.buffer, self.offset, bytemuck::cast_slice(values));
        written.map_err(|error| self.foreign(context, "tensor").unwrap_or(error))
    }

    /// Reads the values back: submits a copy and waits.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read<T: Scalar>(&self, context: &Context) -> Result<Vec<T>> {
        pollster::block_on(self.read_async(context))
    }

    /// Reads the values back: submits a copy and resolves when it arrived.
    pub async fn read_async<T: Scalar>(&self, context: &Context) -> Result<Vec<T>> {
        expect("tensor", self, &self.shape, T::ELEMENT)?;
        self.need(wgpu::BufferUsages::COPY_SRC, "COPY_SRC")?;
        if self.len() == 0 {
            return Ok(vec![]);
        }
        let bytes = self.bytes().next_multiple_of(4);
        let (what, offset, end, found) = ("tensor", self.offset, self.offset + bytes, self.buffer.size());
        if !offset.is_multiple_of(4) {
            return Err(Error::Alignment { what, offset, alignment: 4 });
        }
        // words are copied: a last odd half-word with the one behind it
        if end > found {
            return Err(Error::Buffer { what, offset, end, found });
        }
        let copy = |encoder: &mut wgpu::CommandEncoder, staging: &wgpu::Buffer| {
            encoder.copy_buffer_to_buffer(&self.buffer, offset, staging, 0, bytes);
        };
        let started = Download::start(context, bytes, copy);
        started.map_err(|error| self.foreign(context, what).unwrap_or(error))?.values(self.len()).await
    }

    /// The shape, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The number of values.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The buffer.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// The first byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of its values.
    pub fn bytes(&self) -> u64 {
        self.len() as u64 * self.element.bytes()
    }

    /// The same values under another shape of as many values.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        let len = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
        if len != Some(self.len()) {
            let (found, expected) = (self.shape.clone(), shape.to_vec());
            return Err(Error::Shape { what: "tensor", found, expected });
        }
        Ok(Self { shape: shape.to_vec(), ..self.clone() })
    }

    /// Why wgpu refused this buffer, if it was because it belongs to another device or was destroyed: found by binding it
    /// alone. A browser answers too late to tell.
    pub(super) fn foreign(&self, context: &Context, what: &'static str) -> Option<Error> {
        if cfg!(target_arch = "wasm32") {
            return None;
        }
        let device = context.device();
        let ty = wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: true },
            has_dynamic_offset: false,
            min_binding_size: None,
        };
        let visibility = wgpu::ShaderStages::COMPUTE;
        let entries = [wgpu::BindGroupLayoutEntry { binding: 0, visibility, ty, count: None }];
        let probed = context.guarded(|| {
            let layout =
                device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
            let buffer = wgpu::BufferBinding { buffer: &self.buffer, offset: 0, size: std::num::NonZeroU64::new(4) };
            let entries = [wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(buffer) }];
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries })
        });
        match probed {
            Err(Error::Device(why)) => Some(Error::Foreign { what, why }),
            _ => None,
        }
    }

    fn need(&self, flag: wgpu::BufferUsages, usage: &'static str) -> Result<()> {
        if self.buffer.usage().contains(flag) { Ok(()) } else { Err(Error::Usage { what: "tensor", usage }) }
    }
}

/// The nearest shape with at least `least` and at most `most` axes: leading axes are made one.
pub(super) fn nearest(shape: &[usize], least: usize, most: usize) -> Vec<usize> {
    let (leading, kept) = shape.split_at(shape.len().saturating_sub(most));
    let mut nearest = [&vec![1; least.saturating_sub(shape.len())], kept].concat();
    if let Some(first) = nearest.first_mut() {
        *first = leading.iter().fold(*first, |all, &axis| all.saturating_mul(axis));
    }
    nearest
}

/// A tensor's shape and element, as the caller must have made them.
pub(super) fn expect(what: &'static str, tensor: &Tensor, shape: &[usize], element: Element) -> Result<()> {
    if tensor.shape() != shape {
        return Err(Error::Shape { what, found: tensor.shape().to_vec(), expected: shape.to_vec() });
    }
    if tensor.element() != element {
        return Err(Error::Element { what, found: tensor.element().name(), expected: element.name() });
    }
    Ok(())
}

/// Bytes of a tensor, checked for overflow.
fn bytes(shape: &[usize], element: Element) -> Result<u64> {
    let count = shape.iter().try_fold(element.bytes(), |n, &d| n.checked_mul(d as u64));
    count.ok_or(Error::Size { what: "tensor bytes", needed: u64::MAX, allowed: i64::MAX as u64 })
}

/// Queues a write; a last odd half-word is padded.
pub(super) fn write(context: &Context, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let whole = bytes.len() / 4 * 4;
    #[cfg(target_arch = "wasm32")]
    let put = |offset: u64, bytes: &[u8]| {
        // without a second copy of what may be large
        context.queue().write_buffer(buffer, offset, bytes);
        true
    };
    #[cfg(not(target_arch = "wasm32"))]
    let put = |offset: u64, bytes: &[u8]| {
        let Some(size) = wgpu::BufferSize::new(bytes.len() as u64) else { return true };
        let view = context.queue().write_buffer_with(buffer, offset, size);
        view.map(|mut view| view.copy_from_slice(bytes)).is_some()
    };
    let taken = context.guarded(|| {
        let mut last = [0; 4];
        last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
        let last = if whole < bytes.len() { &last[..] } else { &[] };
        put(offset, &bytes[..whole]) && put(offset + whole as u64, last)
    })?;
    // refused without an error
    if taken { Ok(()) } else { Err(lost()) }
}

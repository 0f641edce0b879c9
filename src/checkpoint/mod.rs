//! Saved runs: what a loss, a sampler and the caller must keep, as JSON or any other serde format, or as a safetensors file.

#[cfg(feature = "safetensors")]
mod file;

use std::collections::BTreeMap;

use crate::{Error, Result, Shape, State, partial::PartialFc, shape::elements};

/// Everything that a run must keep. With the same loss, schedules, data and backend a run that goes on from it
/// continues bit for bit.
///
/// Scalars and tensors survive every format bit for bit, NaN included: in text a broken number is a string, and tensors are
/// the bit patterns of their f32 values. Schedules need no place here: their step is [`State::step`].
///
/// Reading checks everything that can be checked without the head: sizes, ranges, the version. Whether state and head belong
/// together is checked by [`SliceHead::set_state`](crate::SliceHead::set_state).
///
/// ```
/// # #[cfg(feature = "cpu")] {
/// use margin_softmax::{checkpoint::Checkpoint, *};
///
/// let (loss, shape) = (MarginSoftmax::arcface(), Shape::new(2, 3, 4)?);
/// let mut head = Backend::cpu().head(&loss, shape)?;
/// let prototypes = vec![0.5; 12];
/// let kept = Checkpoint::new(head.state()).with_tensor("prototypes", &[3, 4], prototypes)?;
/// // serde_json::to_writer(file, &kept)?, or kept.save("run.safetensors")? with the feature `safetensors`
///
/// head.set_state(&kept.state)?;
/// let prototypes = kept.tensor("prototypes", &[3, 4])?.to_vec();
/// # }
/// # Ok::<(), margin_softmax::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Record", into = "Record"))]
pub struct Checkpoint {
    /// Of the loss.
    pub state: State,
    /// Of Partial FC.
    pub sampler: Option<PartialFc>,
    tensors: BTreeMap<String, TensorData>,
}

/// Values in row-major order, of a number that fits their shape.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Bits", into = "Bits"))]
pub struct TensorData {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl TensorData {
    /// [`Error::Length`] if the shape has another number of values.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Result<Self> {
        let expected = count(shape)?;
        if data.len() != expected {
            return Err(Error::Length { what: "tensor", found: data.len(), expected });
        }
        Ok(Self { shape: shape.to_vec(), data })
    }

    /// The length of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values, without a copy.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }
}

/// The values of a shape.
fn count(shape: &[usize]) -> Result<usize> {
    let count = shape.iter().try_fold(1_u64, |all, &axis| {
        let all = elements(usize::try_from(all).ok()?, axis);
        (all <= Checkpoint::MAX_BYTES / 4).then_some(all)
    });
    let allowed = Checkpoint::MAX_BYTES / 4;
    let too_many = Error::Size { what: "values of a tensor", needed: allowed + 1, allowed };
    count.and_then(|count| usize::try_from(count).ok()).ok_or(too_many)
}

impl Checkpoint {
    /// The most tensors.
    pub const MAX_TENSORS: usize = 1024;
    /// The most bytes of all tensors together: 64 GiB.
    pub const MAX_BYTES: u64 = 1 << 36;
    /// The longest name of a tensor, in bytes.
    pub const LONGEST_NAME: usize = 256;

    /// A state alone.
    pub fn new(state: &State) -> Self {
        Self { state: *state, sampler: None, tensors: BTreeMap::new() }
    }

    /// With a sampler.
    pub fn with_sampler(mut self, sampler: &PartialFc) -> Self {
        self.sampler = Some(*sampler);
        self
    }

    /// With a tensor of any name: prototypes, the centers of a center loss, what an optimiser keeps. It replaces one of the
    /// same name.
    pub fn with_tensor(mut self, name: &str, shape: &[usize], data: Vec<f32>) -> Result<Self> {
        self.insert(name, TensorData::new(shape, data)?)?;
        Ok(self)
    }

    /// Puts a tensor in; returns the one that had the name.
    pub fn insert(&mut self, name: &str, tensor: TensorData) -> Result<Option<TensorData>> {
        self.room(name, &tensor)?;
        Ok(self.tensors.insert(name.into(), tensor))
    }

    /// Whether there is room for one more tensor, and its name may be used.
    fn room(&self, name: &str, tensor: &TensorData) -> Result<()> {
        let size = |what, needed, allowed| {
            if needed > allowed { Err(Error::Size { what, needed, allowed }) } else { Ok(()) }
        };
        size("bytes of a tensor's name", name.len() as u64, Self::LONGEST_NAME as u64)?;
        if name == "__metadata__" {
            return Err(Error::Combination { what: "tensor", why: "the name __metadata__ is that of the metadata" });
        }
        let others = || self.tensors.iter().filter(|(other, _)| *other != name);
        size("tensors", others().count() as u64 + 1, Self::MAX_TENSORS as u64)?;
        let bytes = others().map(|(_, tensor)| tensor.data.len() as u64 * 4).sum::<u64>();
        size("bytes of tensors", bytes + tensor.data.len() as u64 * 4, Self::MAX_BYTES)
    }

    /// Takes a tensor out.
    pub fn remove(&mut self, name: &str) -> Option<TensorData> {
        self.tensors.remove(name)
    }

    /// All tensors.
    pub fn tensors(&self) -> &BTreeMap<String, TensorData> {
        &self.tensors
    }

    /// The values of a tensor that must have this shape. [`Error::Name`] if there is none of that name, [`Error::Shape`] if it
    /// has another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&[f32]> {
        let Some(tensor) = self.tensors.get(name) else {
            let known = self.tensors.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::Name { what: "tensor of this checkpoint", found: name.into(), known });
        };
        if tensor.shape != shape {
            let (found, expected) = (tensor.shape.clone(), shape.to_vec());
            return Err(Error::Shape { what: "tensor of a checkpoint", found, expected });
        }
        Ok(&tensor.data)
    }

    /// The checks that do not depend on a head.
    #[cfg_attr(not(feature = "serde"), allow(dead_code))]
    fn validate(&self) -> Result<()> {
        self.state.validate(Shape::new(0, self.state.classes, 1)?)?;
        self.sampler.map_or(Ok(()), |sampler| sampler.validate())
    }
}

/// The version that is written, and the only one that is read.
#[cfg(feature = "serde")]
const VERSION: u32 = 1;

#[cfg(feature = "serde")]
fn known(version: u32) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(Error::Parameter { what: "checkpoint.version", found: version.into(), allowed: "1" })
}

/// The file form of a checkpoint.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    state: State,
    #[serde(default)]
    sampler: Option<PartialFc>,
    #[serde(default)]
    tensors: BTreeMap<String, TensorData>,
}

#[cfg(feature = "serde")]
impl From<Checkpoint> for Record {
    fn from(Checkpoint { state, sampler, tensors }: Checkpoint) -> Self {
        Self { version: VERSION, state, sampler, tensors }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Record> for Checkpoint {
    type Error = Error;

    fn try_from(Record { version, state, sampler, tensors }: Record) -> Result<Self> {
        known(version)?;
        let mut new = Self { state, sampler, tensors: BTreeMap::new() };
        new.validate()?;
        for (name, tensor) in tensors {
            new.insert(&name, tensor)?;
        }
        Ok(new)
    }
}

/// The file form of a tensor.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Bits {
    shape: Vec<usize>,
    /// Of the values, as IEEE 754 has them.
    bits: Vec<u32>,
}

#[cfg(feature = "serde")]
impl From<TensorData> for Bits {
    fn from(TensorData { shape, data }: TensorData) -> Self {
        Self { shape, bits: data.into_iter().map(f32::to_bits).collect() }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Bits> for TensorData {
    type Error = Error;

    fn try_from(Bits { shape, bits }: Bits) -> Result<Self> {
        Self::new(&shape, bits.into_iter().map(f32::from_bits).collect())
    }
}

//! Checkpoints as safetensors: tensors as F32, the rest as JSON under one key of the metadata.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use super::{Checkpoint, TensorData, VERSION, known};
use crate::{Error, Result, State, partial::PartialFc};

/// The metadata's only key.
const KEY: &str = "margin_softmax";
/// The longest header that is read: some 300 bytes for each tensor.
const LONGEST_HEADER: u64 = 1 << 20;

/// The value of the key.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Scalars {
    version: u32,
    state: State,
    #[serde(default)]
    sampler: Option<PartialFc>,
}

fn format(why: impl Into<String>) -> Error {
    Error::Format { what: "checkpoint", why: why.into() }
}

/// Of a reader or writer that is no file.
fn stream(error: &io::Error) -> Error {
    format(error.to_string())
}

impl Checkpoint {
    /// The bytes of a safetensors file. [`Error::Parameter`] for a state or sampler that could not be read again.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        self.write(&mut bytes, stream)?;
        Ok(bytes)
    }

    /// From the bytes of a safetensors file.
    ///
    /// [`Error::Format`] where they are none, are cut off, or hold tensors that are not F32 or metadata of another program;
    /// [`Error::Size`] beyond the caps of this type; [`Error::Parameter`] for numbers outside their ranges.
    pub fn from_safetensors(mut bytes: &[u8]) -> Result<Self> {
        let length = bytes.len() as u64;
        Self::read(&mut bytes, length, stream)
    }

    /// Writes a safetensors file, beside `path` first and then in its place: a file of that name is replaced as a whole or not
    /// at all. [`Error::File`] names what the system says.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let path = path.as_ref();
        let failed = |error: &io::Error| Error::File { path: path.display().to_string(), why: error.to_string() };
        let Some(name) = path.file_name() else {
            return Err(failed(&io::ErrorKind::IsADirectory.into()));
        };
        let mut name = name.to_os_string();
        name.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let beside = path.with_file_name(name);
        let result = (|| {
            let file = fs::File::options().write(true).create_new(true).open(&beside).map_err(|e| failed(&e))?;
            let mut file = io::BufWriter::new(file);
            self.write(&mut file, failed)?;
            file.into_inner().map_err(|e| failed(e.error()))?.sync_all().map_err(|e| failed(&e))?;
            fs::rename(&beside, path).map_err(|e| failed(&e))
        })();
        if result.is_err() {
            // the first error is the one to report
            let _ = fs::remove_file(&beside);
        }
        result
    }

    /// Reads a safetensors file; errors as from [`from_safetensors`](Self::from_safetensors), and [`Error::File`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |error: &io::Error| Error::File { path: path.display().to_string(), why: error.to_string() };
        let file = fs::File::open(path).map_err(|e| failed(&e))?;
        let length = file.metadata().map_err(|e| failed(&e))?.len();
        Self::read(&mut io::BufReader::new(file), length, failed)
    }

    fn write(&self, to: &mut impl Write, failed: impl Fn(&io::Error) -> Error) -> Result<()> {
        self.validate()?;
        let wrong = |error: &dyn std::fmt::Display| format(error.to_string());
        let scalars = Scalars { version: VERSION, state: self.state, sampler: self.sampler };
        let scalars = serde_json::to_string(&scalars).map_err(|e| wrong(&e))?;
        let mut end = 0;
        let mut infos = vec![];
        for (name, tensor) in &self.tensors {
            let begin = end;
            end += tensor.data.len() * 4;
            let info = TensorInfo { dtype: Dtype::F32, shape: tensor.shape.clone(), data_offsets: (begin, end) };
            infos.push((name.clone(), info));
        }
        let metadata = Metadata::new(Some([(KEY.to_string(), scalars)].into()), infos).map_err(|e| wrong(&e))?;
        let mut header = serde_json::to_string(&metadata).map_err(|e| wrong(&e))?.into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        if header.len() as u64 > LONGEST_HEADER {
            let (needed, allowed) = (header.len() as u64, LONGEST_HEADER);
            return Err(Error::Size { what: "bytes of the header", needed, allowed });
        }
        let mut put = |bytes: &[u8]| to.write_all(bytes).map_err(|e| failed(&e));
        put(&(header.len() as u64).to_le_bytes())?;
        put(&header)?;
        for tensor in self.tensors.values() {
            if cfg!(target_endian = "little") {
                put(bytemuck::cast_slice(&tensor.data))?;
            } else {
                tensor.data.iter().try_for_each(|value| put(&value.to_le_bytes()))?;
            }
        }
        Ok(())
    }

    /// Nothing is allocated before the length that is really there has been compared with what the header promises.
    fn read(from: &mut impl Read, length: u64, failed: impl Fn(&io::Error) -> Error) -> Result<Self> {
        let mut size = [0; 8];
        if length < 8 {
            return Err(format(format!("{length} bytes are too few for a safetensors file")));
        }
        from.read_exact(&mut size).map_err(|e| failed(&e))?;
        let size = u64::from_le_bytes(size);
        if size > LONGEST_HEADER {
            return Err(Error::Size { what: "bytes of the header", needed: size, allowed: LONGEST_HEADER });
        }
        let data = length
            .checked_sub(8 + size)
            .ok_or_else(|| format(format!("a header of {size} bytes does not fit into a file of {length} bytes")))?;
        let mut header = vec![0; size as usize];
        from.read_exact(&mut header).map_err(|e| failed(&e))?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| format(format!("header: {e}")))?;
        if metadata.data_len() as u64 != data {
            return Err(format(format!("the tensors need {} bytes, there are {data}", metadata.data_len())));
        }

        let keys = metadata.metadata().iter().flatten().collect::<BTreeMap<_, _>>();
        if let Some((key, _)) = keys.iter().find(|(key, _)| key.as_str() != KEY) {
            return Err(format(format!("the metadata `{key}` is not of this library")));
        }
        let Some((_, scalars)) = keys.into_iter().next() else {
            return Err(format(format!("the metadata `{KEY}` is missing")));
        };
        let wrong = |error: serde_json::Error| format(format!("metadata `{KEY}`: {error}"));
        let Scalars { version, state, sampler } = serde_json::from_str(scalars).map_err(wrong)?;
        known(version)?;
        let mut new = Self { state, sampler, tensors: BTreeMap::new() };
        new.validate()?;

        let names = metadata.offset_keys();
        if names.len() > Self::MAX_TENSORS {
            let (needed, allowed) = (names.len() as u64, Self::MAX_TENSORS as u64);
            return Err(Error::Size { what: "tensors", needed, allowed });
        }
        for name in names {
            let Some(info) = metadata.info(&name) else { continue };
            if info.dtype != Dtype::F32 {
                return Err(format(format!("the tensor `{name}` holds {}, expected F32", info.dtype)));
            }
            let count = super::count(&info.shape)?;
            let mut values = vec![];
            values.try_reserve_exact(count).map_err(|e| format(format!("the tensor `{name}`: {e}")))?;
            values.resize(count, 0.0_f32);
            from.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(|e| failed(&e))?;
            if cfg!(target_endian = "big") {
                values.iter_mut().for_each(|value| *value = f32::from_bits(value.to_bits().swap_bytes()));
            }
            new.insert(&name, TensorData::new(&info.shape, values)?)?;
        }
        Ok(new)
    }
}

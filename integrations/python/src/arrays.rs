//! Arrays as slices, with checks in the library's words.

use half::{bf16, f16, slice::HalfBitsSliceExt as _};
use margin_softmax::{Error, data::StoredValues};
use numpy::{
    Element, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyReadwriteArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods, dtype,
};
use pyo3::prelude::*;

use crate::errors::{raise, type_error, value_error};

pub type Array<'py, T> = PyReadonlyArrayDyn<'py, T>;

/// A numpy array of any kind.
fn untyped<'a, 'py>(object: &'a Bound<'py, PyAny>, what: &str) -> PyResult<&'a Bound<'py, PyUntypedArray>> {
    object.cast::<PyUntypedArray>().map_err(|_| type_error(format!("`{what}` must be a numpy array")))
}

/// An array as it is, or a copy in C's order of one that is not.
fn contiguous<'py>(array: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyUntypedArray>> {
    if array.is_c_contiguous() && array.is_aligned() {
        return Ok(array.clone());
    }
    Ok(array.call_method1("copy", ("C",))?.cast_into::<PyUntypedArray>()?)
}

/// Values of `T` to be read. An array that is not contiguous is copied, one of another type refused.
pub fn read<'py, T: Element>(object: &Bound<'py, PyAny>, what: &str) -> PyResult<Array<'py, T>> {
    let array = untyped(object, what)?;
    let wrong = || {
        let (found, expected) = (array.dtype(), dtype::<T>(object.py()));
        type_error(format!("`{what}` holds {found}, expected {expected}"))
    };
    if !array.dtype().is_equiv_to(&dtype::<T>(object.py())) {
        return Err(wrong());
    }
    let array = contiguous(array)?;
    let array = array.cast::<PyArrayDyn<T>>().map_err(|_| wrong())?;
    array.try_readonly().map_err(|_| value_error(format!("`{what}` shares memory with an array that is written")))
}

/// Its values.
pub fn slice<'a, T: Element>(array: &'a Array<'_, T>) -> PyResult<&'a [T]> {
    array.as_slice().map_err(|_| value_error("an array changed while it was read"))
}

/// An array to be written: contiguous, writable, and apart from every array that is read or written beside it.
pub fn write<'py, T: Element>(
    object: &Bound<'py, PyAny>,
    what: &str,
    shape: &[usize],
) -> PyResult<PyReadwriteArrayDyn<'py, T>> {
    let array = untyped(object, what)?;
    let typed = array.cast::<PyArrayDyn<T>>().map_err(|_| {
        let (found, expected) = (array.dtype(), dtype::<T>(object.py()));
        type_error(format!("`{what}` holds {found}, expected {expected}"))
    })?;
    if array.shape() != shape {
        return Err(value_error(format!("`{what}` has shape {:?}, expected {shape:?}", array.shape())));
    }
    if !(array.is_c_contiguous() && array.is_aligned()) {
        return Err(value_error(format!("`{what}` is not contiguous, so nothing can be written into it")));
    }
    typed.try_readwrite().map_err(|why| {
        let why = match why {
            numpy::BorrowError::NotWriteable => "is read-only",
            _ => "shares memory with another array of this call, or of one that runs",
        };
        value_error(format!("`{what}` {why}"))
    })
}

/// The error for an axis that is not as the head was made for; free axes are None.
pub fn check_shape(what: &'static str, found: &[usize], expected: &[Option<usize>]) -> PyResult<()> {
    let fits = found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| e.is_none_or(|e| e == *f));
    if fits {
        return Ok(());
    }
    let expected = expected.iter().enumerate();
    let expected = expected.map(|(axis, e)| e.or(found.get(axis).copied()).unwrap_or(0)).collect();
    Err(raise(Error::Shape { what, found: found.to_vec(), expected }))
}

/// Embeddings or prototypes in any of their types. bfloat16 is unknown to numpy: its bits come as uint16, or as the type of
/// the package `ml_dtypes`.
pub enum Vectors<'py> {
    F32(Array<'py, f32>),
    F16(Array<'py, f16>),
    Bf16(Array<'py, u16>),
    F64(Array<'py, f64>),
}

impl<'py> Vectors<'py> {
    /// Reads them.
    pub fn read(object: &Bound<'py, PyAny>, what: &str) -> PyResult<Self> {
        let py = object.py();
        let array = untyped(object, what)?;
        let found = array.dtype();
        if found.is_equiv_to(&dtype::<f32>(py)) {
            return read(object, what).map(Self::F32);
        }
        if found.is_equiv_to(&dtype::<f64>(py)) {
            return read(object, what).map(Self::F64);
        }
        if found.is_equiv_to(&dtype::<f16>(py)) {
            return read(object, what).map(Self::F16);
        }
        if found.is_equiv_to(&dtype::<u16>(py)) {
            return read(object, what).map(Self::Bf16);
        }
        if found.to_string() == "bfloat16" {
            let bits = contiguous(array)?.call_method1("view", ("uint16",))?;
            return read(&bits, what).map(Self::Bf16);
        }
        let expected = "float32, float16, bfloat16 (or its bits as uint16), or float64 for the reference";
        Err(type_error(format!("`{what}` holds {found}, expected {expected}")))
    }

    /// Their shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(array) => array.shape(),
            Self::F16(array) => array.shape(),
            Self::Bf16(array) => array.shape(),
            Self::F64(array) => array.shape(),
        }
    }

    /// As the library takes them; None for f64.
    pub fn stored(&self) -> PyResult<Option<StoredValues<'_>>> {
        Ok(Some(match self {
            Self::F32(array) => StoredValues::F32(slice(array)?),
            Self::F16(array) => StoredValues::F16(slice(array)?),
            Self::Bf16(array) => StoredValues::Bf16(slice(array)?.reinterpret_cast::<bf16>()),
            Self::F64(_) => return Ok(None),
        }))
    }
}

/// Labels of any integer type, as i64: a copy where they are another.
pub fn labels<'py>(object: &Bound<'py, PyAny>, what: &str) -> PyResult<Array<'py, i64>> {
    let array = untyped(object, what)?;
    if !matches!(array.dtype().kind(), b'i' | b'u') {
        return Err(type_error(format!("`{what}` holds {}, expected integers", array.dtype())));
    }
    // as numbers: numpy compares such with a Python integer in floating point
    if array.dtype().is_equiv_to(&dtype::<u64>(object.py())) && !array.is_empty() {
        let most: u64 = array.call_method0("max")?.extract()?;
        if i64::try_from(most).is_err() {
            return Err(value_error(format!("`{what}` has {most}, a number beyond 2^63 - 1")));
        }
    }
    read(&array.call_method1("astype", ("int64", "C", "unsafe", false, false))?, what)
}

//! The library's errors as exceptions, with its words.

use margin_softmax::Error;
use pyo3::{
    PyErr, create_exception,
    exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError},
};

create_exception!(
    margin_softmax,
    DeviceError,
    PyRuntimeError,
    "A device that is not there, was lost, refused or did not answer."
);

create_exception!(margin_softmax, Cancelled, PyRuntimeError, "A call whose progress callback returned False.");

/// The exception for an error.
pub fn raise(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Element { .. } => PyTypeError::new_err(message),
        Error::OutOfMemory(_) => PyMemoryError::new_err(message),
        Error::Cancelled => Cancelled::new_err(message),
        Error::File { .. } => PyOSError::new_err(message),
        Error::NoAdapter(_)
        | Error::DeviceLost(_)
        | Error::Device(_)
        | Error::Timeout { .. }
        | Error::Limit { .. }
        | Error::Feature { .. } => DeviceError::new_err(message),
        _ => PyValueError::new_err(message),
    }
}

/// A `TypeError`.
pub fn type_error(message: impl Into<String>) -> PyErr {
    PyTypeError::new_err(message.into())
}

/// A `ValueError`.
pub fn value_error(message: impl Into<String>) -> PyErr {
    PyValueError::new_err(message.into())
}

//! The engines by name, opened once in a process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use margin_softmax::Backend;
use pyo3::prelude::*;

use crate::errors::raise;

/// Those of a process, by their names.
struct Opened {
    process: u32,
    backends: BTreeMap<String, Backend>,
}

static OPENED: Mutex<Option<Opened>> = Mutex::new(None);

/// The engine of this name: `best`, `cpu`, `gpu`, `reference`, or part of an adapter's name.
pub fn backend(_: Python<'_>, name: &str) -> PyResult<Backend> {
    match name {
        "cpu" => return Ok(Backend::cpu()),
        "reference" => return Ok(Backend::reference()),
        _ => {}
    }
    // as in `pool`, only under the interpreter's lock
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    let current = opened.get_or_insert_with(|| Opened { process, backends: BTreeMap::new() });
    if current.process != process {
        // devices of the parent, whose threads are not here
        std::mem::forget(std::mem::take(&mut current.backends));
        current.process = process;
    }
    if let Some(backend) = current.backends.get(name) {
        return Ok(backend.clone());
    }
    let backend = match name {
        "best" => Backend::best(),
        "gpu" => Backend::gpu(None),
        adapter => Backend::gpu(Some(adapter)),
    };
    let backend = backend.map_err(raise)?;
    current.backends.insert(name.into(), backend.clone());
    Ok(backend)
}

/// The names of the adapters that can compute a head, software ones included.
#[pyfunction]
pub fn adapters(py: Python<'_>) -> Vec<String> {
    py.detach(|| margin_softmax::gpu::Context::all().iter().map(|context| context.name()).collect())
}

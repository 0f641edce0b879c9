//! Threads of the CPU path: pools of this process, made anew after a fork.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pyo3::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::errors::{DeviceError, value_error};

/// By the number of threads that was asked for.
struct Pools {
    process: u32,
    /// 0: as many as rayon takes.
    threads: usize,
    pools: BTreeMap<usize, Arc<ThreadPool>>,
}

static POOLS: Mutex<Option<Pools>> = Mutex::new(None);

/// Locked only by a thread that holds the interpreter, as one that forks does: so no fork finds it locked.
fn pools(_: Python<'_>) -> MutexGuard<'static, Option<Pools>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    let current = pools.get_or_insert_with(|| Pools { process, threads: 0, pools: BTreeMap::new() });
    if current.process != process {
        // their threads are the parent's: nothing here can stop them or wait for them
        mem::forget(mem::take(&mut current.pools));
        current.process = process;
    }
    pools
}

/// The pool with so many threads, or with those of `set_num_threads`.
pub fn pool(py: Python<'_>, threads: Option<usize>) -> PyResult<Arc<ThreadPool>> {
    let mut pools = pools(py);
    let Some(Pools { threads: usual, pools, .. }) = pools.as_mut() else {
        return Err(DeviceError::new_err("no thread pools"));
    };
    let threads = threads.unwrap_or(*usual);
    if let Some(pool) = pools.get(&threads) {
        return Ok(Arc::clone(pool));
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("margin-softmax {i}")).build();
    let pool = Arc::new(pool.map_err(|why| DeviceError::new_err(format!("no threads: {why}")))?);
    pools.insert(threads, Arc::clone(&pool));
    Ok(pool)
}

/// How many threads the CPU path uses, for heads that do not say; 0: as many as there are cores (or `RAYON_NUM_THREADS`).
///
/// Ranks and data loaders that share a machine share its cores: give each its part. Results do not depend on it.
#[pyfunction]
pub fn set_num_threads(py: Python<'_>, threads: usize) -> PyResult<()> {
    if threads > MOST {
        return Err(value_error(format!("`threads` is {threads}, allowed is 0 <= threads <= {MOST}")));
    }
    if let Some(pools) = pools(py).as_mut() {
        pools.threads = threads;
    }
    Ok(())
}

/// The threads of a head that does not say.
#[pyfunction]
pub fn get_num_threads(py: Python<'_>) -> PyResult<usize> {
    Ok(pool(py, None)?.current_num_threads())
}

/// More threads than any machine has cores.
pub const MOST: usize = 4096;

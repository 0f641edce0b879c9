//! The native half of the Python package `margin-softmax`: losses, heads, predictors and shards over numpy arrays.
//!
//! The package's Python half has its documentation and its types (`python/margin_softmax/_native.pyi`); names and errors are the
//! library's. Arrays are read where they lie, the interpreter's lock is released while the library computes, and every
//! array that comes out is new or the caller's.

use pyo3::prelude::*;

mod arrays;
mod auxiliary;
mod batch_report;
mod classes;
mod devices;
mod distributed;
mod errors;
mod head;
mod inputs;
mod loss;
mod monitors;
mod options;
mod outputs;
mod pool;
mod predictor;
mod sampled;
mod shards;
mod state;
mod theory;
mod turns;
mod verification;

/// The functions and classes of `margin_softmax._native`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DeviceError", py.get_type::<errors::DeviceError>())?;
    module.add("Cancelled", py.get_type::<errors::Cancelled>())?;
    module.add_class::<loss::MarginSoftmax>()?;
    module.add_class::<state::State>()?;
    module.add_class::<head::Head>()?;
    module.add_class::<sampled::SampledHead>()?;
    module.add_class::<predictor::Predictor>()?;
    module.add_class::<outputs::Output>()?;
    module.add_class::<outputs::Predictions>()?;
    module.add_class::<monitors::Monitor>()?;
    module.add_class::<monitors::CollapseDetector>()?;
    module.add_class::<batch_report::BatchReport>()?;
    module.add_class::<auxiliary::Regularizer>()?;
    module.add_class::<auxiliary::CenterLoss>()?;
    module.add_class::<classes::ClassMap>()?;
    module.add_class::<classes::ClassCenters>()?;
    module.add_function(wrap_pyfunction!(loss::presets, module)?)?;
    module.add_function(wrap_pyfunction!(loss::scheduled, module)?)?;
    module.add_function(wrap_pyfunction!(monitors::mean_prototype, module)?)?;
    module.add_function(wrap_pyfunction!(monitors::mean_pair_angle, module)?)?;
    module.add_function(wrap_pyfunction!(classes::new_prototypes, module)?)?;
    module.add_function(wrap_pyfunction!(classes::count_margins, module)?)?;
    module.add_function(wrap_pyfunction!(pool::set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(pool::get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(devices::adapters, module)?)?;
    module.add_function(wrap_pyfunction!(distributed::sample, module)?)?;
    module.add_function(wrap_pyfunction!(distributed::merge_predictions, module)?)?;
    theory::add(module)?;
    verification::add(module)
}

//! Monitors of a run, as dictionaries.

use margin_softmax::monitor;
use pyo3::prelude::*;

use crate::{
    arrays::{labels, read, slice},
    errors::raise,
    loss::to_json,
};

/// Accuracy and angles over the rows of any number of batches.
#[pyclass(module = "margin_softmax")]
pub struct Monitor(monitor::Monitor);

/// The parts of a step's output that a monitor reads.
fn output(out: &Bound<'_, PyAny>) -> PyResult<margin_softmax::Output> {
    let vector = |name: &str| -> PyResult<Vec<f32>> {
        let array = read::<f32>(&out.getattr(name)?, name)?;
        Ok(slice(&array)?.to_vec())
    };
    let counts = out.getattr("counts")?;
    let rows = counts.get_item("rows")?.extract()?;
    Ok(margin_softmax::Output {
        loss: out.getattr("loss")?.extract()?,
        row_losses: vector("row_losses")?,
        target_cosines: vector("target_cosines")?,
        other_cosines: vector("other_cosines")?,
        counts: margin_softmax::data::Counts { rows, ..Default::default() },
        ..Default::default()
    })
}

/// A value of the library as a dictionary.
fn dict<'py, T: serde::Serialize>(py: Python<'py>, value: &T) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (to_json(value)?,))
}

#[pymethods]
impl Monitor {
    /// No rows yet; histograms of `bins` equal bins over 0 to π.
    #[new]
    #[pyo3(signature = (bins=64))]
    fn new(bins: usize) -> PyResult<Self> {
        monitor::Monitor::new(bins).map(Self).map_err(raise)
    }

    /// Adds the rows of a step: what a head returned, with the labels it was given.
    #[pyo3(signature = (out, labels, ignore_index=None))]
    fn add(&mut self, out: &Bound<'_, PyAny>, labels: &Bound<'_, PyAny>, ignore_index: Option<i64>) -> PyResult<()> {
        let labels = self::labels(labels, "labels")?;
        self.0.add(&output(out)?, slice(&labels)?, ignore_index).map_err(raise)
    }

    /// Adds the rows of another monitor.
    fn merge(&mut self, other: &Self) -> PyResult<()> {
        self.0.merge(&other.0).map_err(raise)
    }

    /// Means over all rows so far, and histograms. Angles in radians.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        dict(py, &self.0.report())
    }
}

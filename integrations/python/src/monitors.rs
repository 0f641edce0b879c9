//! Monitors of a run, as dictionaries.

use margin_softmax::{Backend, Shape, monitor};
use numpy::PyUntypedArrayMethods;
use pyo3::{prelude::*, types::PyDict};

use crate::{
    arrays::{Array, check_shape, labels, read, slice},
    devices::backend,
    errors::raise,
    loss::{from_json, to_json},
    pool::pool,
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

/// Watches the reports of a run for polar collapse: embeddings that are pushed away from their own prototypes.
#[pyclass(module = "margin_softmax")]
pub struct CollapseDetector(monitor::CollapseDetector);

#[pymethods]
impl CollapseDetector {
    /// For reports of a head of these sizes. No warning before `warm_up` rows (default 20,000 or ten for each class); `target_cosine`:
    /// a warning is due below it; `mean_prototype`: above it the prototypes have collapsed too (default: what random ones hardly reach).
    #[new]
    #[pyo3(signature = (classes, dim, *, sub_centers=1, target_cosine=0.0, mean_prototype=None, warm_up=None))]
    fn new(
        classes: usize,
        dim: usize,
        sub_centers: usize,
        target_cosine: f64,
        mean_prototype: Option<f64>,
        warm_up: Option<u64>,
    ) -> PyResult<Self> {
        let shape = Shape::new(0, classes, dim).and_then(|shape| shape.with_sub_centers(sub_centers)).map_err(raise)?;
        let thresholds = monitor::CollapseThresholds { target_cosine, mean_prototype, warm_up };
        monitor::CollapseDetector::new(thresholds, shape).map(Self).map_err(raise)
    }

    /// A warning where the rows of this report, as `Monitor.report` gives it, are on the far side of their prototypes; else None. Its
    /// text says what was seen and what to try; `kind` is "repelled" or "collapsed". `mean_prototype`: from the function of that name.
    #[pyo3(signature = (report, mean_prototype=None))]
    fn check<'py>(
        &mut self,
        report: &Bound<'py, PyDict>,
        mean_prototype: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = report.py();
        let text: String = py.import("json")?.call_method1("dumps", (report,))?.extract()?;
        let mut report: monitor::Report = from_json(&text, "report")?;
        report.mean_prototype = mean_prototype.or(report.mean_prototype);
        let Some(collapse) = self.0.check(&report) else { return Ok(None) };
        let found = dict(py, &collapse)?;
        found.set_item("text", collapse.to_string())?;
        Ok(Some(found))
    }
}

/// A number of vectors [C, D] that an engine finds without the interpreter's lock.
fn of_vectors(
    vectors: &Bound<'_, PyAny>,
    what: &'static str,
    device: &str,
    find: impl FnOnce(&Backend, usize, &[f32]) -> margin_softmax::Result<f64> + Send,
) -> PyResult<f64> {
    let py = vectors.py();
    let array: Array<'_, f32> = read(vectors, what)?;
    check_shape(what, array.shape(), &[None, None])?;
    let (dim, values, backend, pool) = (array.shape()[1], slice(&array)?, backend(py, device)?, pool(py, None)?);
    py.detach(|| pool.install(|| find(&backend, dim, values))).map_err(raise)
}

/// The length of the mean direction of prototypes [C, D]: 1 if all point the same way, about 1/√C at random.
#[pyfunction]
#[pyo3(signature = (prototypes, *, device="best"))]
pub fn mean_prototype(prototypes: &Bound<'_, PyAny>, device: &str) -> PyResult<f64> {
    of_vectors(prototypes, "prototypes", device, |backend, dim, values| backend.mean_prototype(dim, values))
}

/// The mean angle between all pairs of vectors [C, D], in radians: W-Inter of prototypes, C-Inter of the centers of classes.
#[pyfunction]
#[pyo3(signature = (vectors, *, device="best"))]
pub fn mean_pair_angle(vectors: &Bound<'_, PyAny>, device: &str) -> PyResult<f64> {
    of_vectors(vectors, "vectors", device, |backend, dim, values| backend.mean_pair_angle(dim, values))
}

//! The numbers of one batch as its loss saw it.

use margin_softmax::{Output, Shape, data::Counts, monitor};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    arrays::{Array, Vectors, check_shape, read, slice},
    errors::raise,
    head::no_doubles,
    inputs::Inputs,
    loss::{MarginSoftmax, to_json},
    options::{all_taken, arguments},
    state::State,
};

/// A batch as its loss saw it, over the rows that count: lengths, margins in force, parts of the loss, quantiles of the target
/// cosines, norms of the gradients. Numbers for a log.
#[pyclass(frozen, get_all, module = "margin_softmax")]
pub struct BatchReport {
    /// Rows that count: neither ignored nor with a NaN loss.
    rows: u64,
    /// The smallest, mean and largest |x|.
    length_min: f64,
    length_mean: f64,
    length_max: f64,
    /// For MagFace, the share of rows with |x| outside its two lengths; else None.
    lengths_outside: Option<f64>,
    /// The means of m0 to m3 in force; None for a target curve without margins.
    margins: Option<[f64; 4]>,
    /// The scale in force.
    scale: f64,
    /// The loss without MagFace's term of the length.
    margin_loss: f64,
    /// For MagFace, its term of the length; else None.
    length_loss: Option<f64>,
    /// The 5, 25, 50, 75 and 95 % quantiles of the target cosines.
    target_cosines: [f64; 5],
    /// |dL/dX| and |dL/dW| over all values; None where they were not asked for.
    embedding_gradient: Option<f64>,
    prototype_gradient: Option<f64>,
}

/// A gradient of a step's output; empty where it was not asked for.
fn gradient(out: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<f32>> {
    let given = out.getattr(name)?;
    if given.is_none() {
        return Ok(vec![]);
    }
    let array: Array<'_, f32> = read(&given, name)?;
    Ok(slice(&array)?.to_vec())
}

/// The parts of a step's output that a report reads.
fn output(out: &Bound<'_, PyAny>) -> PyResult<Output> {
    let counts = out.getattr("counts")?;
    let count = |name: &str| -> PyResult<usize> { counts.get_item(name)?.extract() };
    Ok(Output {
        row_losses: gradient(out, "row_losses")?,
        target_cosines: gradient(out, "target_cosines")?,
        other_cosines: gradient(out, "other_cosines")?,
        grad_embeddings: gradient(out, "grad_embeddings")?,
        grad_prototypes: gradient(out, "grad_prototypes")?,
        counts: Counts {
            rows: count("rows")?,
            non_finite_prototypes: count("non_finite_prototypes")?,
            ..Counts::default()
        },
        ..Output::default()
    })
}

/// The batch that a report is of.
struct Batch<'a, 'py> {
    loss: &'a Bound<'py, MarginSoftmax>,
    state: &'a Bound<'py, PyAny>,
    embeddings: &'a Bound<'py, PyAny>,
    labels: &'a Bound<'py, PyAny>,
    out: &'a Bound<'py, PyAny>,
}

impl BatchReport {
    fn of(batch: &Batch<'_, '_>, given: Option<&Bound<'_, PyDict>>, trained: bool) -> PyResult<Self> {
        let py = batch.labels.py();
        let (loss, state) = (&batch.loss.get().0, State::read(batch.state)?);
        let x = Vectors::read(batch.embeddings, "embeddings")?;
        check_shape("embeddings", x.shape(), &[None, None])?;
        let Some(values) = x.stored()? else { return Err(no_doubles()) };
        let shape = Shape::new(x.shape()[0], state.classes, x.shape()[1]).map_err(raise)?;
        let given = arguments(py, given)?;
        let inputs = Inputs::<f32>::read(batch.labels, &given, x.shape()[0], shape, state.classes)?;
        all_taken(&given, "a report")?;
        let (values, out) = (values.widened(), output(batch.out)?);
        let read = inputs.batch(&values, &[])?;
        let of = if trained { monitor::BatchReport::trained } else { monitor::BatchReport::evaluated };
        let report = of(loss, &state, &read, &out).map_err(raise)?;
        Ok(Self {
            rows: report.rows,
            length_min: report.length_min,
            length_mean: report.length_mean,
            length_max: report.length_max,
            lengths_outside: report.lengths_outside,
            margins: report.margins,
            scale: report.scale,
            margin_loss: report.margin_loss,
            length_loss: report.length_loss,
            target_cosines: report.target_cosines,
            embedding_gradient: report.embedding_gradient,
            prototype_gradient: report.prototype_gradient,
        })
    }
}

#[pymethods]
impl BatchReport {
    /// Of a call of `evaluate`: its loss, the state, embeddings and labels as they were given, and what came out. Keywords are those of
    /// the call.
    #[staticmethod]
    #[pyo3(signature = (loss, state, embeddings, labels, out, **arguments))]
    fn evaluated<'py>(
        loss: &Bound<'py, MarginSoftmax>,
        state: &Bound<'py, PyAny>,
        embeddings: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        out: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Self> {
        Self::of(&Batch { loss, state, embeddings, labels, out }, arguments, false)
    }

    /// Of a call of `train`; the state is that after it.
    #[staticmethod]
    #[pyo3(signature = (loss, state, embeddings, labels, out, **arguments))]
    fn trained<'py>(
        loss: &Bound<'py, MarginSoftmax>,
        state: &Bound<'py, PyAny>,
        embeddings: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        out: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Self> {
        Self::of(&Batch { loss, state, embeddings, labels, out }, arguments, true)
    }

    fn __repr__(&self) -> PyResult<String> {
        let Self { rows, margin_loss, scale, .. } = self;
        let cosines = to_json(&self.target_cosines)?;
        Ok(format!("BatchReport(rows={rows}, margin_loss={margin_loss}, scale={scale}, target_cosines={cosines})"))
    }
}

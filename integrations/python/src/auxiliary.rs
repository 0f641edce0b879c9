//! Regularisers and center loss over numpy arrays.

use margin_softmax::{Backend, data, reference};
use numpy::PyUntypedArrayMethods;
use pyo3::{
    prelude::*,
    types::{PyDict, PyType},
};

use crate::{
    arrays::{Array, Vectors, check_shape, labels, read, slice},
    devices::backend,
    errors::{raise, type_error},
    head::no_doubles,
    loss::{from_json, to_json},
    outputs::shaped,
    pool::pool,
};

/// A penalty on the prototypes alone, to be added to the loss of a head: ``Regularizer.reg_ss(10)``.
#[pyclass(frozen, eq, module = "margin_softmax")]
#[derive(Clone, PartialEq)]
pub struct Regularizer(margin_softmax::Regularizer);

/// The center loss: embeddings are drawn to the center of their class.
#[pyclass(frozen, eq, module = "margin_softmax")]
#[derive(Clone, PartialEq)]
pub struct CenterLoss(margin_softmax::CenterLoss);

/// The text of a dictionary.
fn dumped(dict: &Bound<'_, PyDict>) -> PyResult<String> {
    dict.py().import("json")?.call_method1("dumps", (dict,))?.extract()
}

/// The JSON form as a dictionary.
fn loaded<'py>(py: Python<'py>, value: &impl serde::Serialize) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (to_json(value)?,))
}

/// Does work on an engine's threads, without the interpreter's lock.
fn run<R: Send>(
    py: Python<'_>,
    device: &str,
    threads: Option<usize>,
    work: impl FnOnce(&Backend) -> margin_softmax::Result<R> + Send,
) -> PyResult<R> {
    let (backend, pool) = (backend(py, device)?, pool(py, threads)?);
    py.detach(|| pool.install(|| work(&backend))).map_err(raise)
}

/// [C, D], the other axis free.
fn matrix(what: &'static str, vectors: &Vectors<'_>) -> PyResult<usize> {
    check_shape(what, vectors.shape(), &[None, None])?;
    Ok(vectors.shape()[1])
}

#[pymethods]
impl Regularizer {
    /// Reg_ss: λ times the length of the mean of the prototypes' directions.
    #[staticmethod]
    #[pyo3(signature = (weight=1.0))]
    fn reg_ss(weight: f64) -> PyResult<Self> {
        Self::checked(margin_softmax::Regularizer::reg_ss().with_weight(weight))
    }

    /// UniformFace: λ times the mean inverse distance of all pairs of directions.
    #[staticmethod]
    #[pyo3(signature = (weight=1.0))]
    fn uniform_face(weight: f64) -> PyResult<Self> {
        Self::checked(margin_softmax::Regularizer::uniform_face().with_weight(weight))
    }

    /// From a dictionary as `to_dict` gives it.
    #[staticmethod]
    fn from_dict(dict: &Bound<'_, PyDict>) -> PyResult<Self> {
        Self::checked(from_json(&dumped(dict)?, "regularizer")?)
    }

    /// The JSON form as a dictionary.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loaded(py, &self.0)
    }

    /// `reg_ss` or `uniform_face`.
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name()
    }

    /// λ.
    #[getter]
    fn weight(&self) -> f64 {
        self.0.weight()
    }

    /// The penalty of prototypes [C, D] and its gradient [C, D]; float64 with `device="reference"`.
    #[pyo3(signature = (prototypes, *, device="best", threads=None))]
    fn penalty<'py>(
        &self,
        prototypes: &Bound<'py, PyAny>,
        device: &str,
        threads: Option<usize>,
    ) -> PyResult<(f64, Py<PyAny>)> {
        let (py, regularizer) = (prototypes.py(), &self.0);
        let w = Vectors::read(prototypes, "prototypes")?;
        let dim = matrix("prototypes", &w)?;
        if let Vectors::F64(w) = &w {
            wide(device)?;
            let (values, shape) = (slice(w)?, w.shape());
            let data::Penalty { value, gradient } =
                py.detach(|| reference::regularize(regularizer, dim, values)).map_err(raise)?;
            return Ok((value, shaped(py, gradient, shape)?));
        }
        let Some(values) = w.stored()? else { return Err(no_doubles()) };
        let found = run(py, device, threads, |backend| backend.regularize(regularizer, dim, &values.widened()))?;
        Ok((found.value.into(), shaped(py, found.gradient, w.shape())?))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyAny>,))> {
        Ok((py.get_type::<Self>().getattr("from_dict")?, (self.to_dict(py)?,)))
    }

    fn __repr__(&self) -> String {
        format!("Regularizer.{}({})", self.0.name(), self.0.weight())
    }
}

impl Regularizer {
    fn checked(regularizer: margin_softmax::Regularizer) -> PyResult<Self> {
        regularizer.validate().map_err(raise)?;
        Ok(Self(regularizer))
    }
}

/// Refuses float64 where only the reference takes it.
fn wide(device: &str) -> PyResult<()> {
    if device == "reference" { Ok(()) } else { Err(type_error("float64 is for device=\"reference\"")) }
}

/// The arrays of a center loss, of one type.
enum Given<'py> {
    Narrow { embeddings: Vectors<'py>, labels: Array<'py, i64>, centers: Array<'py, f32> },
    Wide { embeddings: Array<'py, f64>, labels: Array<'py, i64>, centers: Array<'py, f64> },
}

impl<'py> Given<'py> {
    fn read([embeddings, given, centers]: [&Bound<'py, PyAny>; 3], device: &str) -> PyResult<(Self, usize)> {
        let x = Vectors::read(embeddings, "embeddings")?;
        let dim = matrix("embeddings", &x)?;
        let labels = labels(given, "labels")?;
        check_shape("labels", labels.shape(), &[Some(x.shape()[0])])?;
        let free = [None, Some(dim)];
        if let Vectors::F64(embeddings) = x {
            wide(device)?;
            let centers = read(centers, "centers")?;
            check_shape("centers", centers.shape(), &free)?;
            return Ok((Self::Wide { embeddings, labels, centers }, dim));
        }
        let centers = read(centers, "centers")?;
        check_shape("centers", centers.shape(), &free)?;
        Ok((Self::Narrow { embeddings: x, labels, centers }, dim))
    }
}

#[pymethods]
impl CenterLoss {
    #[new]
    #[pyo3(signature = (weight=0.02, rate=0.5, ignore_index=None))]
    fn new(weight: f64, rate: f64, ignore_index: Option<i64>) -> PyResult<Self> {
        let loss = margin_softmax::CenterLoss { weight, rate, ignore_index };
        loss.validate().map_err(raise)?;
        Ok(Self(loss))
    }

    /// λ.
    #[getter]
    fn weight(&self) -> f64 {
        self.0.weight
    }

    /// α, how far a center moves.
    #[getter]
    fn rate(&self) -> f64 {
        self.0.rate
    }

    /// The label of rows that are left out; None if there is none.
    #[getter]
    fn ignore_index(&self) -> Option<i64> {
        self.0.ignore_index
    }

    /// From a dictionary as `to_dict` gives it; what is absent has its default.
    #[classmethod]
    fn from_dict(_: &Bound<'_, PyType>, dict: &Bound<'_, PyDict>) -> PyResult<Self> {
        let loss: margin_softmax::CenterLoss = from_json(&dumped(dict)?, "center loss")?;
        loss.validate().map_err(raise)?;
        Ok(Self(loss))
    }

    /// The JSON form as a dictionary.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loaded(py, &self.0)
    }

    /// The loss of embeddings [N, D] with labels [N] around centers [C, D], and its gradient to the embeddings. The centers stay.
    #[pyo3(signature = (embeddings, labels, centers, *, device="best", threads=None))]
    fn evaluate<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        centers: &Bound<'py, PyAny>,
        device: &str,
        threads: Option<usize>,
    ) -> PyResult<(f64, Py<PyAny>)> {
        let (py, loss) = (embeddings.py(), &self.0);
        match Given::read([embeddings, labels, centers], device)? {
            (Given::Wide { embeddings, labels, centers }, dim) => {
                let (x, y, c) = (slice(&embeddings)?, slice(&labels)?, slice(&centers)?);
                let found = py.detach(|| reference::center_loss(loss, dim, x, y, c)).map_err(raise)?;
                Ok((found.loss, shaped(py, found.grad_embeddings, embeddings.shape())?))
            }
            (Given::Narrow { embeddings, labels, centers }, dim) => {
                let Some(x) = embeddings.stored()? else { return Err(no_doubles()) };
                let (y, c) = (slice(&labels)?, slice(&centers)?);
                let found = run(py, device, threads, |backend| backend.center_loss(loss, dim, &x.widened(), y, c))?;
                Ok((found.loss.into(), shaped(py, found.grad_embeddings, embeddings.shape())?))
            }
        }
    }

    /// The centers after one move towards the embeddings of their classes, once a step: a new array. Classes without rows stay.
    #[pyo3(signature = (embeddings, labels, centers, *, device="best", threads=None))]
    fn moved<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        centers: &Bound<'py, PyAny>,
        device: &str,
        threads: Option<usize>,
    ) -> PyResult<Py<PyAny>> {
        let (py, loss) = (embeddings.py(), &self.0);
        match Given::read([embeddings, labels, centers], device)? {
            (Given::Wide { embeddings, labels, centers }, dim) => {
                let (x, y, mut moved) = (slice(&embeddings)?, slice(&labels)?, slice(&centers)?.to_vec());
                py.detach(|| reference::update_centers(loss, dim, x, y, &mut moved)).map_err(raise)?;
                shaped(py, moved, centers.shape())
            }
            (Given::Narrow { embeddings, labels, centers }, dim) => {
                let Some(x) = embeddings.stored()? else { return Err(no_doubles()) };
                let (y, mut moved) = (slice(&labels)?, slice(&centers)?.to_vec());
                run(py, device, threads, |backend| backend.update_centers(loss, dim, &x.widened(), y, &mut moved))?;
                shaped(py, moved, centers.shape())
            }
        }
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyAny>,))> {
        Ok((py.get_type::<Self>().getattr("from_dict")?, (self.to_dict(py)?,)))
    }

    fn __repr__(&self) -> String {
        let margin_softmax::CenterLoss { weight, rate, ignore_index } = self.0;
        let index = ignore_index.map_or("None".into(), |index| index.to_string());
        format!("CenterLoss(weight={weight}, rate={rate}, ignore_index={index})")
    }
}

//! The numbers that a run must keep.

use pyo3::{prelude::*, types::PyDict};

use crate::{
    errors::{raise, type_error, value_error},
    loss::to_json,
};

/// Step, seed and running statistics of a loss: all that a run must keep beside its parameters.
#[pyclass(frozen, eq, module = "margin_softmax")]
#[derive(Clone, PartialEq)]
pub struct State(pub margin_softmax::State);

impl State {
    /// A state, or a dictionary as `to_dict` gives it.
    pub fn read(object: &Bound<'_, PyAny>) -> PyResult<margin_softmax::State> {
        if let Ok(state) = object.cast::<Self>() {
            return Ok(state.get().0);
        }
        let Ok(dict) = object.cast::<PyDict>() else { return Err(type_error("`state` must be a State or a dict")) };
        let text: String = dict.py().import("json")?.call_method1("dumps", (dict,))?.extract()?;
        serde_json::from_str(&text).map_err(|why| value_error(format!("this is no state: {why}")))
    }
}

#[pymethods]
impl State {
    /// Training steps so far.
    #[getter]
    fn step(&self) -> u64 {
        self.0.step
    }

    /// Of ElasticFace's draws.
    #[getter]
    fn seed(&self) -> u64 {
        self.0.seed
    }

    /// t of CurricularFace.
    #[getter]
    fn hardness(&self) -> f64 {
        self.0.hardness
    }

    /// Mean of the embeddings' norms (AdaFace).
    #[getter]
    fn norm_mean(&self) -> f64 {
        self.0.norm_mean
    }

    /// Their standard deviation (AdaFace).
    #[getter]
    fn norm_deviation(&self) -> f64 {
        self.0.norm_deviation
    }

    /// The scale in force under dynamic AdaCos.
    #[getter]
    fn scale(&self) -> f64 {
        self.0.scale
    }

    /// With some numbers replaced.
    #[pyo3(signature = (*, step=None, seed=None))]
    fn replace(&self, step: Option<u64>, seed: Option<u64>) -> Self {
        let state = self.0;
        Self(margin_softmax::State { step: step.unwrap_or(state.step), seed: seed.unwrap_or(state.seed), ..state })
    }

    /// As a dictionary that JSON can hold; its broken numbers are strings, so that they come back bit for bit.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("json")?.call_method1("loads", (to_json(&self.0)?,))
    }

    /// From what `to_dict` gave.
    #[staticmethod]
    fn from_dict(dict: &Bound<'_, PyDict>) -> PyResult<Self> {
        Self::read(dict).map(Self)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyAny>,))> {
        Ok((py.get_type::<Self>().getattr("from_dict")?, (self.to_dict(py)?,)))
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(format!("State({})", to_json(&self.0)?))
    }
}

/// Reads a state for a head of this shape.
pub fn checked(object: &Bound<'_, PyAny>, shape: margin_softmax::Shape) -> PyResult<margin_softmax::State> {
    let state = State::read(object)?;
    state.validate(shape).map_err(raise)?;
    Ok(state)
}

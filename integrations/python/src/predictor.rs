//! The nearest classes of embeddings without labels.

use margin_softmax::{Shape, data::Inputs, predict};
use numpy::PyUntypedArrayMethods;
use pyo3::{prelude::*, types::PyDict};

use crate::{
    arrays::{Vectors, check_shape, read, slice},
    head::no_doubles,
    inputs::check_vectors,
    loss::MarginSoftmax,
    options::{HeadOptions, all_taken, arguments},
    outputs::Predictions,
    state::checked,
    turns::Turns,
};

/// The k nearest classes of embeddings without labels, class by class in bounded memory.
#[pyclass(frozen, module = "margin_softmax")]
pub struct Predictor {
    turns: Turns<predict::Predictor>,
    shape: Shape,
    /// Of its prototypes.
    classes: usize,
}

#[pymethods]
impl Predictor {
    #[new]
    #[pyo3(signature = (loss, rows, classes, dim, k, **options))]
    fn new(
        py: Python<'_>,
        loss: &Bound<'_, MarginSoftmax>,
        rows: usize,
        classes: usize,
        dim: usize,
        k: usize,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let given = arguments(py, options)?;
        let options = HeadOptions::read(&given)?;
        all_taken(&given, "Predictor()")?;
        let (shape, loss) = (options.shape(rows, classes, dim)?, &loss.get().0);
        let range = options.range.clone().unwrap_or(0..classes);
        let make = || options.backend.predictor_shard(loss, shape, range.clone(), k, &options.options);
        Ok(Self { turns: Turns::new(py, &options, shape, make)?, shape, classes: range.len() })
    }

    /// The nearest classes of each row. float16 and bfloat16 are widened in a copy.
    #[pyo3(signature = (embeddings, prototypes, bias=None))]
    fn predict<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
        bias: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Predictions> {
        let py = embeddings.py();
        let (x, w) = (Vectors::read(embeddings, "embeddings")?, Vectors::read(prototypes, "prototypes")?);
        check_vectors(&x, &w, self.shape, self.classes)?;
        let [Some(x), Some(w)] = [x.stored()?, w.stored()?] else { return Err(no_doubles()) };
        let bias = bias.map(|bias| read::<f32>(bias, "bias")).transpose()?;
        if let Some(bias) = &bias {
            check_shape("bias", bias.shape(), &[Some(self.classes)])?;
        }
        let bias = bias.as_ref().map(slice).transpose()?;
        let found = self.turns.run(py, |predictor| {
            let (x, w) = (x.widened(), w.widened());
            predictor.predict(&Inputs { embeddings: &x, prototypes: &w, bias })
        })?;
        Predictions::new(py, found)
    }

    /// The state of a run: where the scale follows the batch (dynamic AdaCos), its scale is the one in force.
    fn set_state(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let checked = checked(state, self.shape)?;
        self.turns.run(state.py(), |predictor| predictor.set_state(&checked))
    }
}

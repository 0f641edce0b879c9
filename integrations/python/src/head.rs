//! A head over numpy arrays.

use margin_softmax::{Batch, Shape, SliceHead, Want, reference};
use numpy::PyUntypedArrayMethods;
use pyo3::{prelude::*, types::PyDict};

use crate::{
    arrays::{Array, Vectors, slice},
    errors::{type_error, value_error},
    inputs::{Inputs, check_vectors},
    loss::MarginSoftmax,
    options::{HeadOptions, all_taken, arguments},
    outputs::{CallersArrays, Output},
    pool::pool,
    shards::{self, Call},
    state::{State, checked},
    turns::Turns,
};

/// Calls with embeddings and prototypes of the types that they are stored in.
macro_rules! as_stored {
    ($x:expr, $w:expr, |$a:ident, $b:ident| $call:expr) => {{
        use margin_softmax::data::StoredValues::{Bf16, F16, F32};
        match ($x, $w) {
            (F32($a), F32($b)) => $call,
            (F32($a), F16($b)) => $call,
            (F32($a), Bf16($b)) => $call,
            (F16($a), F32($b)) => $call,
            (F16($a), F16($b)) => $call,
            (F16($a), Bf16($b)) => $call,
            (Bf16($a), F32($b)) => $call,
            (Bf16($a), F16($b)) => $call,
            (Bf16($a), Bf16($b)) => $call,
        }
    }};
}
pub(crate) use as_stored;

/// The error of float64 arrays where they are not taken.
pub fn no_doubles() -> PyErr {
    type_error("float64 is for embeddings and prototypes together, of a head with device=\"reference\"")
}

/// A head over numpy arrays: made once, then called for any number of batches of at most `rows` rows.
#[pyclass(frozen, module = "margin_softmax")]
pub struct Head {
    pub(crate) turns: Turns<SliceHead>,
    pub(crate) shape: Shape,
    /// Of its prototypes.
    pub(crate) classes: usize,
    pub(crate) want: Want,
    device: String,
}

impl Head {
    /// Embeddings and prototypes, checked.
    pub(crate) fn vectors<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
    ) -> PyResult<[Vectors<'py>; 2]> {
        let (x, w) = (Vectors::read(embeddings, "embeddings")?, Vectors::read(prototypes, "prototypes")?);
        check_vectors(&x, &w, self.shape, self.classes)?;
        Ok([x, w])
    }

    fn step<'py>(
        &self,
        [embeddings, prototypes, labels]: [&Bound<'py, PyAny>; 3],
        given: Option<&Bound<'py, PyDict>>,
        train: bool,
    ) -> PyResult<Output> {
        let (py, vectors) = (labels.py(), self.vectors(embeddings, prototypes)?);
        let given = arguments(py, given)?;
        if let [Vectors::F64(x), Vectors::F64(w)] = &vectors {
            return self.step_wide([x, w], labels, &given, train);
        }
        let [Some(x), Some(w)] = [vectors[0].stored()?, vectors[1].stored()?] else { return Err(no_doubles()) };
        let shapes = [vectors[0].shape(), vectors[1].shape()];
        let inputs = Inputs::<f32>::read(labels, &given, shapes[0][0], self.shape, self.classes)?;
        let into = CallersArrays::read(&given, &written(shapes))?;
        all_taken(&given, "a step")?;
        let batch: Batch<'_, i64> = inputs.batch(&[], &[])?;
        let out = self.turns.run(py, |head| {
            as_stored!(x, w, |x, w| match train {
                true => head.train_stored(x, w, &batch),
                false => head.evaluate_stored(x, w, &batch),
            })
        })?;
        Output::new(py, out, self.want, shapes, None, into)
    }

    /// A step of the reference in f64.
    fn step_wide<'py>(
        &self,
        [x, w]: [&Array<'py, f64>; 2],
        labels: &Bound<'py, PyAny>,
        given: &Bound<'py, PyDict>,
        train: bool,
    ) -> PyResult<Output> {
        if self.device != "reference" {
            return Err(no_doubles());
        }
        let (py, shapes) = (labels.py(), [x.shape(), w.shape()]);
        let inputs = Inputs::<f64>::read(labels, given, shapes[0][0], self.shape, self.classes)?;
        let into = CallersArrays::read(given, &written(shapes))?;
        all_taken(given, "a step")?;
        let batch = inputs.batch(slice(x)?, slice(w)?)?;
        let (shape, want) = (self.shape, self.want);
        let out = self.turns.run(py, |head| {
            let mut state = *head.state();
            if !train {
                return reference::evaluate_with(head.loss(), shape, want, &batch, &state);
            }
            let out = reference::train(head.loss(), shape, want, &batch, &mut state)?;
            head.set_state(&state)?;
            Ok(out)
        })?;
        Output::new(py, out, want, shapes, None, into)
    }
}

/// The arrays that a step can write into.
pub fn written([embeddings, prototypes]: [&[usize]; 2]) -> [(&'static str, &[usize]); 5] {
    let rows = &embeddings[..1];
    [
        ("row_losses", rows),
        ("target_cosines", rows),
        ("other_cosines", rows),
        ("grad_embeddings", embeddings),
        ("grad_prototypes", prototypes),
    ]
}

#[pymethods]
impl Head {
    #[new]
    #[pyo3(signature = (loss, rows, classes, dim, **options))]
    fn new(
        py: Python<'_>,
        loss: &Bound<'_, MarginSoftmax>,
        rows: usize,
        classes: usize,
        dim: usize,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let given = arguments(py, options)?;
        let options = HeadOptions::read(&given)?;
        all_taken(&given, "Head()")?;
        let (shape, loss) = (options.shape(rows, classes, dim)?, &loss.get().0);
        let range = options.range.clone().unwrap_or(0..classes);
        let turns =
            Turns::new(py, &options, shape, || options.backend.shard(loss, shape, range.clone(), &options.options))?;
        Ok(Self { turns, shape, classes: range.len(), want: options.options.want, device: options.device.clone() })
    }

    /// Loss and gradients of one batch, at the state as it is.
    #[pyo3(signature = (embeddings, prototypes, labels, **arguments))]
    fn evaluate<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Output> {
        self.step([embeddings, prototypes, labels], arguments, false)
    }

    /// A training step: what follows the batch (AdaCos, AdaFace, CurricularFace, ElasticFace) moves first, then the step counts.
    #[pyo3(signature = (embeddings, prototypes, labels, **arguments))]
    fn train<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Output> {
        self.step([embeddings, prototypes, labels], arguments, true)
    }

    /// Everything that this shard knows of a batch before margins apply, as a float64 vector to be gathered from all shards.
    #[pyo3(signature = (embeddings, prototypes, labels, **arguments))]
    fn targets<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        shards::call(self, [embeddings, prototypes, labels], arguments, &Call::Targets)
    }

    /// Moves the state of a training step by the targets of all shards.
    #[pyo3(signature = (embeddings, prototypes, labels, targets, **arguments))]
    fn follow<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        shards::call(self, [embeddings, prototypes, labels], arguments, &Call::Follow(targets))
    }

    /// The rows' sums over the classes of this shard, given the targets of all: a float64 vector to be gathered.
    #[pyo3(signature = (embeddings, prototypes, labels, targets, **arguments))]
    fn statistics<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        shards::call(self, [embeddings, prototypes, labels], arguments, &Call::Statistics(targets))
    }

    /// The loss of the batch, the gradients of this shard's prototypes and its share of dX, given what all shards know.
    #[pyo3(signature = (embeddings, prototypes, labels, targets, statistics, **arguments))]
    fn gradients<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        statistics: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Py<PyAny>> {
        shards::call(self, [embeddings, prototypes, labels], arguments, &Call::Gradients(targets, statistics))
    }

    /// New margins, a new scale, another reduction, without making a head anew; ValueError where that needs another head.
    fn update(&self, py: Python<'_>, loss: &Bound<'_, MarginSoftmax>) -> PyResult<()> {
        let loss = &loss.get().0;
        self.turns.run(py, |head| head.update(loss))
    }

    /// The loss in force.
    #[getter]
    fn loss(&self, py: Python<'_>) -> PyResult<MarginSoftmax> {
        self.turns.look(py, |head| MarginSoftmax(head.loss().clone()))
    }

    /// The state of the loss: what a run must keep.
    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<State> {
        self.turns.look(py, |head| State(*head.state()))
    }

    #[setter]
    fn set_state(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let checked = checked(state, self.shape)?;
        self.turns.run(state.py(), |head| head.set_state(&checked))
    }

    /// The most rows of a batch.
    #[getter]
    fn rows(&self) -> usize {
        self.shape.rows()
    }

    /// The number of classes, of all shards.
    #[getter]
    fn classes(&self) -> usize {
        self.shape.classes()
    }

    /// Values of a vector.
    #[getter]
    fn dim(&self) -> usize {
        self.shape.dim()
    }

    /// Prototypes of a class.
    #[getter]
    fn sub_centers(&self) -> usize {
        self.shape.sub_centers()
    }

    /// The classes of this shard, all of them for a whole head: the first, and the one behind the last.
    #[getter]
    fn range(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        let range = self.turns.look(py, |head| head.range())?;
        Ok((range.start, range.end))
    }

    /// `keep` where the cosines of all classes stay between the passes, else `recompute`.
    #[getter]
    fn schedule(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.turns.look(py, |head| head.schedule())
    }

    /// The engine: `cpu`, `gpu`, `reference`, `best`, or part of an adapter's name, as it was given.
    #[getter]
    fn device(&self) -> &str {
        &self.device
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (shape, version) = (self.shape, env!("CARGO_PKG_VERSION"));
        let pool = pool(py, self.turns.threads)?;
        let engine = crate::devices::backend(py, &self.device)?;
        let engine = pool.install(|| engine.name());
        let loss = serde_json::to_string(&self.loss(py)?.0).map_err(|why| value_error(why.to_string()))?;
        Ok(format!(
            "Head(rows={}, classes={}, dim={}, sub_centers={}, on {engine}, schedule={}, margin-softmax {version}, loss={loss})",
            shape.rows(),
            shape.classes(),
            shape.dim(),
            shape.sub_centers(),
            self.schedule(py)?,
        ))
    }
}

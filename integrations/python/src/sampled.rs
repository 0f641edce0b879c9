//! A head that trains on a sample of the classes.

use margin_softmax::{
    Batch, Shape, Want,
    partial::{self, Classes, PartialFc},
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    arrays::Vectors,
    errors::{raise, type_error, value_error},
    head::{as_stored, no_doubles, written},
    inputs::{Inputs, check_vectors},
    loss::MarginSoftmax,
    options::{HeadOptions, all_taken, arguments},
    outputs::{CallersArrays, Output},
    state::{State, checked},
    turns::Turns,
};

/// Partial FC: a head that sees the classes of a batch, and of the others a share at random.
#[pyclass(frozen, module = "margin_softmax")]
pub struct SampledHead {
    turns: Turns<partial::SampledHead>,
    shape: Shape,
    want: Want,
}

impl SampledHead {
    fn step<'py>(
        &self,
        [embeddings, prototypes, labels]: [&Bound<'py, PyAny>; 3],
        given: Option<&Bound<'py, PyDict>>,
        evaluated: Option<Classes>,
    ) -> PyResult<Output> {
        let py = labels.py();
        let (x, w) = (Vectors::read(embeddings, "embeddings")?, Vectors::read(prototypes, "prototypes")?);
        check_vectors(&x, &w, self.shape, self.shape.classes())?;
        let [Some(values), Some(prototypes)] = [x.stored()?, w.stored()?] else { return Err(no_doubles()) };
        let given = arguments(py, given)?;
        let inputs = Inputs::<f32>::read(labels, &given, x.shape()[0], self.shape, self.shape.classes())?;
        // the number of sampled classes is not known before
        let into = CallersArrays::read(&given, &written([x.shape(), w.shape()])[..4])?;
        all_taken(&given, "a step")?;
        let batch: Batch<'_, i64> = inputs.batch(&[], &[])?;
        let out = self.turns.run(py, |head| match evaluated {
            None => as_stored!(values, prototypes, |x, w| head.train_stored(x, w, &batch)),
            Some(classes) => {
                let (x, w) = (values.widened(), prototypes.widened());
                head.evaluate(&Batch { embeddings: &x, prototypes: &w, ..batch }, classes)
            }
        })?;
        let mut sampled = w.shape().to_vec();
        sampled[0] = out.classes.len();
        Output::new(py, out.output, self.want, [x.shape(), &sampled], Some(out.classes), into)
    }
}

#[pymethods]
impl SampledHead {
    #[new]
    #[pyo3(signature = (loss, rows, classes, dim, rate, *, seed=0, **options))]
    #[expect(clippy::too_many_arguments, reason = "the arguments of a Python class, most of them by name")]
    fn new(
        py: Python<'_>,
        loss: &Bound<'_, MarginSoftmax>,
        rows: usize,
        classes: usize,
        dim: usize,
        rate: f64,
        seed: u64,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let given = arguments(py, options)?;
        let options = HeadOptions::read(&given)?;
        all_taken(&given, "SampledHead()")?;
        if options.range.is_some() {
            return Err(value_error("`range` is for a head of all classes"));
        }
        let (shape, loss) = (options.shape(rows, classes, dim)?, &loss.get().0);
        let sampler = PartialFc::new(rate, seed).map_err(raise)?;
        let make = || partial::SampledHead::new(&options.backend, loss, shape, &options.options, sampler);
        Ok(Self { turns: Turns::new(py, &options, shape, make)?, shape, want: options.options.want })
    }

    /// A training step over sampled classes: `grad_prototypes` has a row for each of `classes`.
    #[pyo3(signature = (embeddings, prototypes, labels, **arguments))]
    fn train<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Output> {
        self.step([embeddings, prototypes, labels], arguments, None)
    }

    /// Loss and gradients at the state as it is: over `all` classes, or those `sampled` by the next training step.
    #[pyo3(signature = (embeddings, prototypes, labels, over="all", **arguments))]
    fn evaluate<'py>(
        &self,
        embeddings: &Bound<'py, PyAny>,
        prototypes: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        over: &str,
        arguments: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Output> {
        let classes = match over {
            "all" => Classes::All,
            "sampled" => Classes::Sampled,
            _ => return Err(value_error(format!("`over` is {over:?}; known are: all, sampled"))),
        };
        self.step([embeddings, prototypes, labels], arguments, Some(classes))
    }

    /// New margins, a new scale, another reduction.
    fn update(&self, py: Python<'_>, loss: &Bound<'_, MarginSoftmax>) -> PyResult<()> {
        let loss = &loss.get().0;
        self.turns.run(py, |head| head.update(loss))
    }

    /// The loss in force.
    #[getter]
    fn loss(&self, py: Python<'_>) -> PyResult<MarginSoftmax> {
        self.turns.look(py, |head| MarginSoftmax(head.loss().clone()))
    }

    /// The state of the loss.
    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<State> {
        self.turns.look(py, |head| State(*head.state()))
    }

    #[setter]
    fn set_state(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        let checked = checked(state, self.shape)?;
        self.turns.run(state.py(), |head| head.set_state(&checked))
    }

    /// Rate, seed and step of the draws: with the state all that a run must keep.
    #[getter]
    fn sampler<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let sampler = self.turns.look(py, |head| *head.sampler())?;
        let dict = PyDict::new(py);
        dict.set_item("rate", sampler.rate)?;
        dict.set_item("seed", sampler.seed)?;
        dict.set_item("step", sampler.step)?;
        Ok(dict)
    }

    #[setter]
    fn set_sampler(&self, sampler: &Bound<'_, PyDict>) -> PyResult<()> {
        let number =
            |name: &str| sampler.get_item(name)?.ok_or_else(|| type_error(format!("the sampler lacks `{name}`")));
        let (rate, seed, step) = (number("rate")?.extract()?, number("seed")?.extract()?, number("step")?.extract()?);
        let sampler_of = PartialFc { rate, seed, step };
        self.turns.run(sampler.py(), |head| head.set_sampler(&sampler_of))
    }
}

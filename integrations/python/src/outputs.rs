//! Results as objects of arrays.

use margin_softmax::{Want, data};
use numpy::{Element, PyArray1, PyArrayDyn, PyArrayMethods, PyReadwriteArrayDyn};
use pyo3::{prelude::*, types::PyDict};

use crate::{arrays::write, errors::value_error, options::take};

/// The result of one batch. Arrays hold float32, from a reference that was given float64 they hold float64.
#[pyclass(frozen, get_all, module = "margin_softmax")]
pub struct Output {
    /// The reduced loss; with `reduction="none"` the sum of `row_losses`.
    loss: f64,
    /// Z, by which a mean divides.
    normalizer: f64,
    /// [N]
    row_losses: Py<PyAny>,
    /// [N]; None with a binary link.
    log_sum_exps: Option<Py<PyAny>>,
    /// [N]
    target_cosines: Py<PyAny>,
    /// [N]
    other_cosines: Py<PyAny>,
    /// [N, D]; None if it was not wanted.
    grad_embeddings: Option<Py<PyAny>>,
    /// As the prototypes, or one row for each of `classes`; None if it was not wanted.
    grad_prototypes: Option<Py<PyAny>>,
    /// dL/ds; None if it was not wanted.
    grad_scale: Option<f64>,
    /// [C] of a linear head, [1] of a binary link; None if it was not wanted.
    grad_bias: Option<Py<PyAny>>,
    /// dL/dm0..m3: [4], [C, 4] or [N, 4]; None if it was not wanted.
    grad_margins: Option<Py<PyAny>>,
    /// Rows and prototypes that were left out, and why.
    counts: Py<PyDict>,
    /// What a gradient filter dropped; None without one.
    filtered: Option<Py<PyDict>>,
    /// The nearest classes of each row; None if they were not asked for.
    predictions: Option<Py<Predictions>>,
    /// [S], int64: the classes of a sampled step, ascending; None of a whole head.
    classes: Option<Py<PyAny>>,
}

/// The k nearest classes of every row, best first.
#[pyclass(frozen, get_all, module = "margin_softmax")]
pub struct Predictions {
    /// [N, k], int64; −1 where a row has no prediction.
    classes: Py<PyAny>,
    /// [N, k]: cosines without margin or scale.
    cosines: Py<PyAny>,
    /// [N, k]: the log-softmax of the scaled cosines over all classes.
    log_probabilities: Py<PyAny>,
    /// [N, k], int64.
    sub_centers: Py<PyAny>,
    /// [N]; None with a binary link.
    log_sum_exps: Option<Py<PyAny>>,
    non_finite_rows: usize,
    non_finite_prototypes: usize,
}

/// Those arrays of the caller's that results go into, borrowed before the work starts.
pub struct CallersArrays<'py, T: Element> {
    arrays: Vec<(&'static str, PyReadwriteArrayDyn<'py, T>, Bound<'py, PyAny>)>,
}

impl<'py, T: Element> CallersArrays<'py, T> {
    /// Reads the dictionary `out`: arrays by the names of the results, with these shapes.
    pub fn read(arguments: &Bound<'py, PyDict>, shapes: &[(&'static str, &[usize])]) -> PyResult<Self> {
        let Some(out) = take(arguments, "out")? else { return Ok(Self { arrays: vec![] }) };
        let given = out.cast::<PyDict>()?.copy()?;
        let mut arrays = vec![];
        for &(name, shape) in shapes {
            if let Some(object) = take(&given, name)? {
                arrays.push((name, write(&object, name, shape)?, object));
            }
        }
        if let Some(other) = given.keys().iter().next() {
            let known: Vec<&str> = shapes.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            return Err(value_error(format!("`{other}` is no array that this call writes; it writes: {known}")));
        }
        Ok(Self { arrays })
    }

    /// Values as an array of this shape: copied into the caller's if there is one, else a new array around them.
    fn array(&mut self, py: Python<'py>, name: &str, values: Vec<T>, shape: &[usize]) -> PyResult<Py<PyAny>>
    where
        T: Copy,
    {
        if let Some((_, array, object)) = self.arrays.iter_mut().find(|(own, ..)| *own == name) {
            let to = array.as_slice_mut().map_err(|_| value_error("an array changed while it was written"))?;
            to.copy_from_slice(&values);
            return Ok(object.clone().unbind());
        }
        shaped(py, values, shape)
    }
}

/// A new array around values.
pub fn shaped<T: Element>(py: Python<'_>, values: Vec<T>, shape: &[usize]) -> PyResult<Py<PyAny>> {
    let array = PyArray1::from_vec(py, values);
    match shape {
        [_] => Ok(array.into_any().unbind()),
        _ => {
            let array: Bound<'_, PyArrayDyn<T>> = array.reshape(shape)?;
            Ok(array.into_any().unbind())
        }
    }
}

/// A new vector.
pub fn vector<T: Element>(py: Python<'_>, values: Vec<T>) -> Py<PyAny> {
    PyArray1::from_vec(py, values).into_any().unbind()
}

/// Some values as a vector; None where there are none.
fn some<T: Element>(py: Python<'_>, values: Vec<T>) -> Option<Py<PyAny>> {
    (!values.is_empty()).then(|| vector(py, values))
}

/// The numbers of rows and prototypes by their names.
fn counts(py: Python<'_>, counts: &data::Counts) -> PyResult<Py<PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in [
        ("rows", counts.rows),
        ("ignored", counts.ignored),
        ("non_finite_rows", counts.non_finite_rows),
        ("invalid_labels", counts.invalid_labels),
        ("zero_embeddings", counts.zero_embeddings),
        ("zero_prototypes", counts.zero_prototypes),
        ("non_finite_prototypes", counts.non_finite_prototypes),
    ] {
        dict.set_item(name, count)?;
    }
    Ok(dict.unbind())
}

impl Output {
    /// From the library's, in arrays of these shapes.
    pub fn new<'py, T: Element + Copy + Into<f64>>(
        py: Python<'py>,
        out: margin_softmax::Output<T>,
        want: Want,
        [embeddings, prototypes]: [&[usize]; 2],
        classes: Option<Vec<usize>>,
        mut into: CallersArrays<'py, T>,
    ) -> PyResult<Self> {
        let rows = &embeddings[..1];
        let mut gradient = |name, wanted: bool, values, shape: &[usize]| {
            wanted.then(|| into.array(py, name, values, shape)).transpose()
        };
        let grad_embeddings = gradient("grad_embeddings", want.grad_embeddings, out.grad_embeddings, embeddings)?;
        let grad_prototypes = gradient("grad_prototypes", want.grad_prototypes, out.grad_prototypes, prototypes)?;
        let bias = [out.grad_bias.len()];
        let grad_bias = gradient("grad_bias", want.grad_bias, out.grad_bias, &bias)?;
        let margins: &[usize] = match want.grad_margins {
            Some(data::MarginGradients::Sum) | None => &[4],
            Some(_) => &[out.grad_margins.len() / 4, 4],
        };
        let grad_margins = gradient("grad_margins", want.grad_margins.is_some(), out.grad_margins, margins)?;
        let filtered = out.filtered.map(|filtered| -> PyResult<_> {
            let dict = PyDict::new(py);
            dict.set_item("dropped", filtered.dropped.into())?;
            dict.set_item("total", filtered.total.into())?;
            dict.set_item("kept", filtered.kept)?;
            dict.set_item("entries", filtered.entries)?;
            Ok(dict.unbind())
        });
        let predictions = out.predictions.map(|found| Py::new(py, Predictions::new(py, found)?));
        Ok(Self {
            loss: out.loss.into(),
            normalizer: out.normalizer.into(),
            row_losses: into.array(py, "row_losses", out.row_losses, rows)?,
            log_sum_exps: some(py, out.log_sum_exps),
            target_cosines: into.array(py, "target_cosines", out.target_cosines, rows)?,
            other_cosines: into.array(py, "other_cosines", out.other_cosines, rows)?,
            grad_embeddings,
            grad_prototypes,
            grad_scale: want.grad_scale.then(|| out.grad_scale.into()),
            grad_bias,
            grad_margins,
            counts: counts(py, &out.counts)?,
            filtered: filtered.transpose()?,
            predictions: predictions.transpose()?,
            classes: classes.map(|classes| vector(py, classes.into_iter().map(|j| j as i64).collect())),
        })
    }
}

#[pymethods]
impl Output {
    fn __repr__(&self, py: Python<'_>) -> String {
        format!("Output(loss={}, counts={})", self.loss, self.counts.bind(py))
    }
}

impl Predictions {
    /// From the library's.
    pub fn new<T: Element>(py: Python<'_>, found: data::Predictions<T>) -> PyResult<Self> {
        let shape = [found.rows(), found.count];
        let class = |class: u32| if class == u32::MAX { -1 } else { i64::from(class) };
        Ok(Self {
            classes: shaped(py, found.classes.into_iter().map(class).collect(), &shape)?,
            cosines: shaped(py, found.cosines, &shape)?,
            log_probabilities: shaped(py, found.log_probabilities, &shape)?,
            sub_centers: shaped(py, found.sub_centers.into_iter().map(i64::from).collect(), &shape)?,
            log_sum_exps: some(py, found.log_sum_exps),
            non_finite_rows: found.non_finite_rows,
            non_finite_prototypes: found.non_finite_prototypes,
        })
    }
}

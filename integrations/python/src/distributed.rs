//! Decisions that the shards of a distributed head make alike on every rank: the sample of a step, and one prediction out of those of all.

use margin_softmax::{data, partial::PartialFc};
use numpy::PyUntypedArrayMethods;
use pyo3::prelude::*;

use crate::{
    arrays::{Array, check_shape, labels, read, slice},
    errors::{raise, value_error},
    outputs::{Predictions, vector},
};

/// The sampled classes of a step [S], ascending, the labels as positions among them [N], and the ignore index of these labels.
#[pyfunction]
#[pyo3(signature = (given, classes, rate, seed, step, ignore_index=None))]
pub fn sample<'py>(
    py: Python<'py>,
    given: &Bound<'py, PyAny>,
    classes: usize,
    rate: f64,
    seed: u64,
    step: u64,
    ignore_index: Option<i64>,
) -> PyResult<(Py<PyAny>, Py<PyAny>, Option<i64>)> {
    let given = labels(given, "labels")?;
    let given = slice(&given)?;
    let sampler = PartialFc { rate, seed, step };
    let found = py.detach(|| sampler.sample(given, ignore_index, classes)).map_err(raise)?;
    let sampled = found.classes.into_iter().map(|class| class as i64).collect();
    Ok((vector::<i64>(py, sampled), vector(py, found.labels), found.ignore_index))
}

/// A shard's predictions as they travel.
#[derive(FromPyObject)]
pub struct Part<'py> {
    range: (usize, usize),
    /// [N, k], int64, as the sub-centers.
    classes: Bound<'py, PyAny>,
    /// [N, k], float32, as the log-probabilities.
    cosines: Bound<'py, PyAny>,
    log_probabilities: Bound<'py, PyAny>,
    sub_centers: Bound<'py, PyAny>,
    /// [N], float32; None with a binary link.
    log_sum_exps: Option<Bound<'py, PyAny>>,
    non_finite_rows: usize,
    non_finite_prototypes: usize,
}

impl Part<'_> {
    /// As the library has them.
    fn predictions(&self) -> PyResult<data::Predictions> {
        let classes = labels(&self.classes, "classes")?;
        let &[rows, count] = classes.shape() else { return Err(value_error("`classes` must have shape [N, k]")) };
        let floats = |object: &Bound<'_, PyAny>, what, shape: &[Option<usize>]| {
            let values: Array<'_, f32> = read(object, what)?;
            check_shape(what, values.shape(), shape)?;
            Ok::<_, PyErr>(slice(&values)?.to_vec())
        };
        let all = [Some(rows), Some(count)];
        let sub_centers = labels(&self.sub_centers, "sub_centers")?;
        check_shape("sub_centers", sub_centers.shape(), &all)?;
        let sums = self.log_sum_exps.as_ref().map(|sums| floats(sums, "log_sum_exps", &all[..1])).transpose()?;
        // a class of −1 is none
        let number = |&number: &i64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(data::Predictions {
            count,
            range: self.range.0..self.range.1,
            classes: slice(&classes)?.iter().map(number).collect(),
            cosines: floats(&self.cosines, "cosines", &all)?,
            log_probabilities: floats(&self.log_probabilities, "log_probabilities", &all)?,
            sub_centers: slice(&sub_centers)?.iter().map(number).collect(),
            log_sum_exps: sums.unwrap_or_default(),
            non_finite_rows: self.non_finite_rows,
            non_finite_prototypes: self.non_finite_prototypes,
        })
    }
}

/// The nearest classes among those of all shards: objects with the attributes of `Predictions`, and the `range` of their classes.
#[pyfunction]
pub fn merge_predictions(py: Python<'_>, parts: Vec<Part<'_>>, classes: usize) -> PyResult<Predictions> {
    let parts = parts.iter().map(Part::predictions).collect::<PyResult<Vec<_>>>()?;
    let merged = py.detach(|| data::Predictions::merged(&parts, classes)).map_err(raise)?;
    Predictions::new(py, merged)
}

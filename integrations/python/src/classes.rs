//! Other classes for a head that is trained already: `margin_softmax.classes` of the library.

use margin_softmax::{Shape, classes, monitor};
use numpy::{PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::{
    arrays::{Array, Vectors, check_shape, labels, read, slice},
    errors::{raise, value_error},
    head::no_doubles,
    outputs::{shaped, vector},
    state::State,
};

/// Which classes of a head go on, and how many come after them. Classes that go on keep their order and become 0, 1, 2, …; new
/// classes follow.
#[pyclass(frozen, eq, module = "margin_softmax")]
#[derive(Clone, PartialEq)]
pub struct ClassMap(classes::ClassMap);

/// Class numbers from a list or an array of integers.
fn class_list(given: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let array = given.py().import("numpy")?.call_method1("asarray", (given,))?;
    // an empty list has the type of floats
    let array = if array.len()? == 0 { array.call_method1("astype", ("int64",))? } else { array };
    let numbers = labels(&array, "classes")?;
    let number =
        |&class: &i64| usize::try_from(class).map_err(|_| value_error(format!("class {class} is none of the head's")));
    slice(&numbers)?.iter().map(number).collect()
}

#[pymethods]
impl ClassMap {
    /// From `old` classes to `new` ones, of which the first `old` are the same.
    #[staticmethod]
    fn grow(old: usize, new: usize) -> PyResult<Self> {
        classes::ClassMap::grow(old, new).map(Self).map_err(raise)
    }

    /// Of `old` classes only those of a list, in any order.
    #[staticmethod]
    fn keep(old: usize, classes: &Bound<'_, PyAny>) -> PyResult<Self> {
        classes::ClassMap::keep(old, &class_list(classes)?).map(Self).map_err(raise)
    }

    /// Of `old` classes all but those of a list.
    #[staticmethod]
    fn without(old: usize, classes: &Bound<'_, PyAny>) -> PyResult<Self> {
        classes::ClassMap::without(old, &class_list(classes)?).map(Self).map_err(raise)
    }

    /// Classes before.
    #[getter]
    fn old_classes(&self) -> usize {
        self.0.old_classes()
    }

    /// Classes after.
    #[getter]
    fn new_classes(&self) -> usize {
        self.0.new_classes()
    }

    /// [old classes], int64: the new label of each, -1 for one that is gone.
    fn labels(&self, py: Python<'_>) -> Py<PyAny> {
        vector::<i64>(py, self.0.labels().into_iter().map(|label| label.map_or(-1, |label| label as i64)).collect())
    }

    /// New labels for old ones. Rows with the ignore index keep it, and rows whose class is gone get it.
    #[pyo3(signature = (labels, ignore_index=None))]
    fn relabel<'py>(&self, labels: &Bound<'py, PyAny>, ignore_index: Option<i64>) -> PyResult<Py<PyAny>> {
        let given = self::labels(labels, "labels")?;
        let new = self.0.relabel(slice(&given)?, ignore_index).map_err(raise)?;
        shaped(labels.py(), new, given.shape())
    }

    /// Values of the classes that go on, every bit, then those of new classes: [C, …] becomes [C', …]. For prototypes, biases,
    /// weights, and what an optimiser keeps. Without `new` ([C' − C, …]) the values of new classes are 0.
    #[pyo3(signature = (values, new=None))]
    fn values<'py>(&self, values: &Bound<'py, PyAny>, new: Option<&Bound<'py, PyAny>>) -> PyResult<Py<PyAny>> {
        let all: Array<'_, f32> = read(values, "values")?;
        let rest = all.shape().iter().skip(1).map(|&size| Some(size));
        let expected = |classes: usize| [Some(classes)].into_iter().chain(rest.clone()).collect::<Vec<_>>();
        check_shape("values", all.shape(), &expected(self.0.old_classes()))?;
        let new = new.map(|new| read::<f32>(new, "new")).transpose()?;
        if let Some(new) = &new {
            let kept = self.0.labels().iter().flatten().count();
            check_shape("new", new.shape(), &expected(self.0.new_classes() - kept))?;
        }
        let found = self.0.values(slice(&all)?, new.as_ref().map(slice).transpose()?).map_err(raise)?;
        let mut shape = all.shape().to_vec();
        if let Some(classes) = shape.first_mut() {
            *classes = self.0.new_classes();
        }
        shaped(values.py(), found, &shape)
    }

    /// The state for the new head: its number of classes, everything else as it was.
    fn state(&self, state: &Bound<'_, PyAny>) -> PyResult<State> {
        self.0.state(&State::read(state)?).map(State).map_err(raise)
    }

    fn __repr__(&self) -> String {
        format!("ClassMap({} classes to {})", self.0.old_classes(), self.0.new_classes())
    }
}

/// Sums embeddings by their labels over any number of batches: the centers of classes, and where new prototypes begin.
#[pyclass(module = "margin_softmax")]
pub struct ClassCenters {
    centers: monitor::ClassCenters,
    classes: usize,
    dim: usize,
}

#[pymethods]
impl ClassCenters {
    /// No embeddings yet.
    #[new]
    fn new(classes: usize, dim: usize) -> PyResult<Self> {
        let centers = monitor::ClassCenters::new(classes, dim).map_err(raise)?;
        Ok(Self { centers, classes, dim })
    }

    /// Adds embeddings [N, D] with labels [N]; with `directions` each at length 1, as new prototypes want them. Rows with the ignore
    /// index, and rows with a NaN or infinite value, are left out.
    #[pyo3(signature = (embeddings, labels, ignore_index=None, directions=false))]
    fn add(
        &mut self,
        embeddings: &Bound<'_, PyAny>,
        labels: &Bound<'_, PyAny>,
        ignore_index: Option<i64>,
        directions: bool,
    ) -> PyResult<()> {
        let x = Vectors::read(embeddings, "embeddings")?;
        check_shape("embeddings", x.shape(), &[None, Some(self.dim)])?;
        let Some(values) = x.stored()? else { return Err(no_doubles()) };
        let (values, labels) = (values.widened(), self::labels(labels, "labels")?);
        check_shape("labels", labels.shape(), &[Some(x.shape()[0])])?;
        let (y, centers) = (slice(&labels)?, &mut self.centers);
        let added = match directions {
            true => centers.add_directions(&values, y, ignore_index),
            false => centers.add(&values, y, ignore_index),
        };
        added.map_err(raise)
    }

    /// Adds the embeddings of another.
    fn merge(&mut self, other: &Self) -> PyResult<()> {
        self.centers.merge(&other.centers).map_err(raise)
    }

    /// The classes with embeddings, int64, ascending.
    fn classes(&self, py: Python<'_>) -> Py<PyAny> {
        vector::<i64>(py, self.centers.classes().into_iter().map(|class| class as i64).collect())
    }

    /// Their centers in the same order: [classes present, D].
    fn vectors(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let values = self.centers.vectors();
        let shape = [values.len() / self.dim, self.dim];
        shaped(py, values, &shape)
    }

    /// WC-Intra: the mean angle between center and prototype of the classes present; prototypes [C, D].
    fn mean_center_angle(&self, prototypes: &Bound<'_, PyAny>) -> PyResult<f64> {
        let w: Array<'_, f32> = read(prototypes, "prototypes")?;
        check_shape("prototypes", w.shape(), &[Some(self.classes), Some(self.dim)])?;
        self.centers.mean_center_angle(slice(&w)?).map_err(raise)
    }
}

/// Prototypes of the classes that `centers` has beyond those of `prototypes` ([C, D] or [C, K, D]): [C' − C, D] or [C' − C, K, D].
///
/// The first sub-center of a class lies in the mean direction of its embeddings, the others `spread` radians away. `length`:
/// "mean", that of the prototypes which are there, or "unit".
#[pyfunction]
#[pyo3(signature = (prototypes, centers, *, length="mean", spread=0.1, seed=0))]
pub fn new_prototypes(
    prototypes: &Bound<'_, PyAny>,
    centers: &Bound<'_, ClassCenters>,
    length: &str,
    spread: f64,
    seed: u64,
) -> PyResult<Py<PyAny>> {
    let w: Array<'_, f32> = read(prototypes, "prototypes")?;
    let (classes, sub_centers, dim) = match *w.shape() {
        [classes, dim] => (classes, 1, dim),
        [classes, sub_centers, dim] => (classes, sub_centers, dim),
        _ => return Err(value_error(format!("`prototypes` has shape {:?}, expected [C, D] or [C, K, D]", w.shape()))),
    };
    let length = match length {
        "mean" => classes::PrototypeLength::Mean,
        "unit" => classes::PrototypeLength::Unit,
        _ => return Err(value_error(format!("`{length}` is not a known length; known are: mean, unit"))),
    };
    let old = Shape::new(0, classes, dim).and_then(|shape| shape.with_sub_centers(sub_centers)).map_err(raise)?;
    let how = classes::NewPrototypes { length, spread, seed };
    let found = how.from_centers(old, slice(&w)?, &centers.try_borrow()?.centers).map_err(raise)?;
    let mut shape = w.shape().to_vec();
    if let Some(added) = shape.first_mut() {
        *added = found.len() / (sub_centers * dim);
    }
    shaped(prototypes.py(), found, &shape)
}

/// The margin of every class [C] by the number of its rows [C]: `upper` for the rarest, `lower` for the most frequent, between them as
/// n^(−exponent). For `class_margins`.
#[pyfunction]
#[pyo3(signature = (counts, *, exponent=0.25, lower=0.05, upper=0.5))]
pub fn count_margins<'py>(
    counts: &Bound<'py, PyAny>,
    exponent: f64,
    lower: f64,
    upper: f64,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let given = labels(counts, "counts")?;
    check_shape("counts", given.shape(), &[None])?;
    let number = |&count: &i64| {
        u64::try_from(count).map_err(|_| value_error(format!("`counts` has {count}, a number of rows is not negative")))
    };
    let numbers = slice(&given)?.iter().map(number).collect::<PyResult<Vec<u64>>>()?;
    let margins = classes::CountMargins::between(&numbers, exponent, lower, upper).map_err(raise)?;
    Ok(PyArray1::from_vec(counts.py(), margins.of_all(&numbers)))
}

//! One batch from arrays.

use margin_softmax::{Batch, Margins, Shape, data::SoftLabels};
use numpy::{Element, PyUntypedArrayMethods};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    arrays::{Array, Vectors, check_shape, labels, read, slice},
    errors::{type_error, value_error},
    options::take,
};

/// Everything of a batch beside embeddings and prototypes.
pub struct Inputs<'py, T: Element> {
    labels: Array<'py, i64>,
    class_weights: Option<Array<'py, T>>,
    row_weights: Option<Array<'py, T>>,
    divisor: Option<T>,
    upstream: Option<Upstream<'py, T>>,
    bias: Option<Array<'py, T>>,
    class_margins: [Option<Array<'py, T>>; 4],
    row_margins: [Option<Array<'py, T>>; 4],
    soft_labels: Option<(Array<'py, i32>, Array<'py, T>)>,
}

/// One number, or one for each row.
enum Upstream<'py, T: Element> {
    One([T; 1]),
    Rows(Array<'py, T>),
}

/// Checks that embeddings and prototypes have the shapes of a head.
pub fn check_vectors(x: &Vectors<'_>, w: &Vectors<'_>, shape: Shape, classes: usize) -> PyResult<()> {
    check_shape("embeddings", x.shape(), &[None, Some(shape.dim())])?;
    let (classes, dim) = (Some(classes), Some(shape.dim()));
    match shape.sub_centers() {
        1 if w.shape().len() != 3 => check_shape("prototypes", w.shape(), &[classes, dim]),
        k => check_shape("prototypes", w.shape(), &[classes, Some(k), dim]),
    }
}

/// An optional vector of `T`, of this length where it is known.
fn vector<'py, T: Element>(
    arguments: &Bound<'py, PyDict>,
    name: &'static str,
    len: Option<usize>,
) -> PyResult<Option<Array<'py, T>>> {
    let Some(object) = take(arguments, name)? else { return Ok(None) };
    let array = read(&object, name)?;
    check_shape(name, array.shape(), &[len])?;
    Ok(Some(array))
}

/// Margins by their names m0 to m3.
fn margins<'py, T: Element>(
    arguments: &Bound<'py, PyDict>,
    name: &'static str,
    len: usize,
) -> PyResult<[Option<Array<'py, T>>; 4]> {
    let Some(object) = take(arguments, name)? else { return Ok(Default::default()) };
    let wrong = |_| type_error(format!("`{name}` must be a dict of arrays with names out of: m0, m1, m2, m3"));
    let given = object.cast::<PyDict>().map_err(wrong)?.copy()?;
    let found = [
        vector(&given, "m0", Some(len))?,
        vector(&given, "m1", Some(len))?,
        vector(&given, "m2", Some(len))?,
        vector(&given, "m3", Some(len))?,
    ];
    if let Some(other) = given.keys().iter().next() {
        return Err(value_error(format!("`{other}` is not a known margin; known are: m0, m1, m2, m3")));
    }
    Ok(found)
}

impl<'py, T: Element + Copy + for<'a> FromPyObject<'a, 'py>> Inputs<'py, T> {
    /// Reads them for a batch of `rows` rows; `classes` are those of the prototypes, all of them come with weights and margins.
    pub fn read(
        labels_given: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyDict>,
        rows: usize,
        shape: Shape,
        classes: usize,
    ) -> PyResult<Self> {
        let labels = labels(labels_given, "labels")?;
        check_shape("labels", labels.shape(), &[Some(rows)])?;
        let number = |name: &str| -> PyResult<Option<T>> {
            let Some(value) = take(arguments, name)? else { return Ok(None) };
            value.extract().map(Some).map_err(|_| type_error(format!("`{name}` must be a number")))
        };
        let divisor = number("divisor")?;
        let upstream = take(arguments, "upstream")?.map(|value| match value.extract::<T>() {
            Ok(one) => Ok(Upstream::One([one])),
            Err(_) => read(&value, "upstream").map(Upstream::Rows),
        });
        let soft_labels = take(arguments, "soft_labels")?.map(|pair| -> PyResult<_> {
            let wrong = |_| type_error("`soft_labels` must be a pair of arrays: classes and weights, both [N, T]");
            let (classes, weights) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().map_err(wrong)?;
            let classes = read_classes(&classes)?;
            let weights = read::<T>(&weights, "soft_labels.weights")?;
            check_shape("soft_labels.classes", classes.shape(), &[Some(rows), None])?;
            check_shape("soft_labels.weights", weights.shape(), &[Some(rows), Some(classes.shape()[1])])?;
            Ok((classes, weights))
        });
        Ok(Self {
            labels,
            class_weights: vector(arguments, "class_weights", Some(shape.classes()))?,
            row_weights: vector(arguments, "row_weights", Some(rows))?,
            divisor,
            upstream: upstream.transpose()?,
            bias: vector(arguments, "bias", Some(classes))?,
            class_margins: margins(arguments, "class_margins", shape.classes())?,
            row_margins: margins(arguments, "row_margins", rows)?,
            soft_labels: soft_labels.transpose()?,
        })
    }

    /// As the library takes them.
    pub fn batch<'a>(&'a self, embeddings: &'a [T], prototypes: &'a [T]) -> PyResult<Batch<'a, i64, T>> {
        let optional = |array: &'a Option<Array<'py, T>>| array.as_ref().map(slice).transpose();
        let margins = |[m0, m1, m2, m3]: &'a [Option<Array<'py, T>>; 4]| -> PyResult<Margins<'a, T>> {
            Ok(Margins { m0: optional(m0)?, m1: optional(m1)?, m2: optional(m2)?, m3: optional(m3)? })
        };
        let upstream = match &self.upstream {
            None => None,
            Some(Upstream::One(one)) => Some(&one[..]),
            Some(Upstream::Rows(rows)) => Some(slice(rows)?),
        };
        let soft_labels = match &self.soft_labels {
            None => None,
            Some((classes, weights)) => {
                Some(SoftLabels { count: classes.shape()[1], classes: slice(classes)?, weights: slice(weights)? })
            }
        };
        Ok(Batch {
            embeddings,
            prototypes,
            labels: slice(&self.labels)?,
            class_weights: optional(&self.class_weights)?,
            row_weights: optional(&self.row_weights)?,
            divisor: self.divisor,
            upstream,
            bias: optional(&self.bias)?,
            class_margins: margins(&self.class_margins)?,
            row_margins: margins(&self.row_margins)?,
            soft_labels,
        })
    }
}

/// Classes of soft labels as i32: a copy where they are another integer type.
fn read_classes<'py>(object: &Bound<'py, PyAny>) -> PyResult<Array<'py, i32>> {
    let name = "soft_labels.classes";
    let wide = labels(object, name)?;
    if slice(&wide)?.iter().any(|&class| i32::try_from(class).is_err()) {
        return Err(value_error(format!("`{name}` has a number that is no 32-bit integer")));
    }
    read(&wide.call_method1("astype", ("int32",))?, name)
}

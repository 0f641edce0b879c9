//! The loss: by the names of presets and of its numbers, as a dictionary, as JSON.

use margin_softmax::objective::{PRESETS, Schedules};
use numpy::PyUntypedArrayMethods;
use pyo3::{prelude::*, types::PyDict};
use serde_json::{Map, Value};

use crate::{
    arrays::{read, slice},
    errors::{raise, type_error, value_error},
    outputs::vector,
};

/// A margin-softmax loss: a preset by its name, with numbers of one's own.
///
/// ``MarginSoftmax.arcface(m2=0.4, scale=30)``; every preset is such a function, and ``preset(name)`` takes its name. Keywords are
/// the names of the JSON form, wherever they stand in it: ``MarginSoftmax.arcface().to_dict()`` shows them.
#[pyclass(frozen, eq, module = "margin_softmax")]
#[derive(Clone, PartialEq)]
pub struct MarginSoftmax(pub margin_softmax::MarginSoftmax);

/// As JSON, in the order of the library's fields.
pub fn to_json<T: serde::Serialize>(value: &T) -> PyResult<String> {
    serde_json::to_string(value).map_err(|why| value_error(format!("this has no JSON form: {why}")))
}

/// From JSON.
pub fn from_json<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> PyResult<T> {
    serde_json::from_str(text).map_err(|why| value_error(format!("this is no {what}: {why}")))
}

/// A Python value that JSON can hold.
fn json_of(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let text: String = value.py().import("json")?.call_method1("dumps", (value,))?.extract()?;
    from_json(&text, "number")
}

/// All places of a name in a tree of JSON objects: the paths to the objects that have it.
fn places(value: &Value, name: &str, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let Value::Object(fields) = value else { return };
    if fields.contains_key(name) {
        found.push(path.clone());
    }
    for (key, field) in fields {
        path.push(key.clone());
        places(field, name, path, found);
        path.pop();
    }
}

/// The object at a path.
fn at<'a>(value: &'a mut Value, path: &[String]) -> Option<&'a mut Map<String, Value>> {
    path.iter().try_fold(value, |value, key| value.get_mut(key))?.as_object_mut()
}

/// Where a name is to be replaced: the loss' own before those of its parts, several of these only while they agree (the margin
/// of SphereFace2 at the label and at the others).
fn chosen(tree: &mut Value, name: &str, found: Vec<Vec<String>>) -> PyResult<Vec<Vec<String>>> {
    let Some(first) = found.first() else {
        let mut known = vec![];
        names(tree, &mut known);
        return Err(type_error(format!("this loss has no `{name}`; it has: {}", known.join(", "))));
    };
    if first.is_empty() {
        return Ok(vec![vec![]]);
    }
    let mut values =
        found.iter().map(|path| at(tree, path).and_then(|fields| fields.get(name).cloned())).collect::<Vec<_>>();
    values.dedup();
    if values.len() > 1 {
        let list: Vec<String> = found.iter().map(|path| path.join(".")).collect();
        let list = list.join(" and ");
        return Err(type_error(format!("`{name}` differs in {list}: give one of them as a dict")));
    }
    Ok(found)
}

impl MarginSoftmax {
    /// With numbers replaced, each where its name stands.
    fn with(&self, changes: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let Some(changes) = changes.filter(|changes| !changes.is_empty()) else { return Ok(self.clone()) };
        let mut tree: Value = from_json(&to_json(&self.0)?, "loss")?;
        for (name, value) in changes {
            let name: String = name.extract()?;
            let mut found = vec![];
            places(&tree, &name, &mut vec![], &mut found);
            let value = json_of(&value)?;
            for place in chosen(&mut tree, &name, found)? {
                if let Some(fields) = at(&mut tree, &place) {
                    fields.insert(name.clone(), value.clone());
                }
            }
        }
        let loss: margin_softmax::MarginSoftmax = from_json(&tree.to_string(), "loss")?;
        Self::checked(loss)
    }

    fn checked(loss: margin_softmax::MarginSoftmax) -> PyResult<Self> {
        loss.validate().map_err(raise)?;
        Ok(Self(loss))
    }
}

/// The names in a tree of JSON objects.
fn names(value: &Value, found: &mut Vec<String>) {
    let Value::Object(fields) = value else { return };
    for (key, field) in fields {
        found.push(key.clone());
        names(field, found);
    }
}

#[pymethods]
impl MarginSoftmax {
    /// The preset of this name, with some numbers replaced.
    #[staticmethod]
    #[pyo3(signature = (name, **numbers))]
    fn preset(name: &str, numbers: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        Self(margin_softmax::MarginSoftmax::named(name).map_err(raise)?).with(numbers)
    }

    /// From a dictionary as `to_dict` gives it; what is absent has its default.
    #[staticmethod]
    fn from_dict(dict: &Bound<'_, PyDict>) -> PyResult<Self> {
        let text: String = dict.py().import("json")?.call_method1("dumps", (dict,))?.extract()?;
        Self::from_json(&text)
    }

    /// From the JSON form.
    #[staticmethod]
    fn from_json(text: &str) -> PyResult<Self> {
        Self::checked(from_json(text, "loss")?)
    }

    /// The JSON form, the same in every front of the library.
    fn to_json(&self) -> PyResult<String> {
        to_json(&self.0)
    }

    /// The same as a dictionary.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("json")?.call_method1("loads", (self.to_json()?,))
    }

    /// With some numbers replaced.
    #[pyo3(signature = (**numbers))]
    fn replace(&self, numbers: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        self.with(numbers)
    }

    /// The target curve φ at cosines (float64, any shape), and its slope: without scale, as the margins of the loss have it.
    fn curve<'py>(&self, cosines: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let py = cosines.py();
        let cosines = py.import("numpy")?.call_method1("asarray", (cosines, "float64"))?;
        let cosines = read::<f64>(&cosines, "cosines")?;
        let (values, slopes) = slice(&cosines)?.iter().map(|&x| self.0.target_value_slope(x)).unzip();
        let shape = cosines.shape().to_vec();
        let shaped = |values: Vec<f64>| vector(py, values).into_bound(py).call_method1("reshape", (shape.clone(),));
        Ok((shaped(values)?, shaped(slopes)?))
    }

    /// s, the inverse temperature.
    #[getter]
    fn scale(&self) -> f64 {
        self.0.scale
    }

    /// `mean`, `sum` or `none`.
    #[getter]
    fn reduction(&self) -> &'static str {
        self.0.reduction.name()
    }

    /// The label of rows that are left out; None if there is none.
    #[getter]
    fn ignore_index(&self) -> Option<i64> {
        self.0.ignore_index
    }

    /// Whether it takes plain products, with a bias, in the place of cosines.
    #[getter]
    fn is_linear(&self) -> bool {
        self.0.similarity == margin_softmax::Similarity::Dot
    }

    /// Whether each class is a binary problem of its own (SphereFace2).
    #[getter]
    fn is_binary(&self) -> bool {
        matches!(self.0.link, margin_softmax::Link::Binary(_))
    }

    /// Whether the scale follows the batch (dynamic AdaCos), so that it is the state's.
    #[getter]
    fn scale_follows(&self) -> bool {
        self.0.adaptive == margin_softmax::Adaptive::AdaCos
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        Ok((py.get_type::<Self>().getattr("from_json")?, (self.to_json()?,)))
    }

    fn __hash__(&self) -> PyResult<u64> {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        self.to_json()?.hash(&mut hasher);
        Ok(hasher.finish())
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(format!("MarginSoftmax.from_json('{}')", self.to_json()?))
    }
}

/// Name and source of every preset.
#[pyfunction]
pub fn presets() -> Vec<(&'static str, &'static str)> {
    PRESETS.iter().map(|preset| (preset.name, preset.source)).collect()
}

/// The loss of a training step under schedules: a dict of `m0` to `m3`, `margin`, `scale`, each a dict of `start`, `end`, `from`, `until`
/// and `ramp` (`linear` or `exponential`), and the number `top_k`.
#[pyfunction]
pub fn scheduled(loss: &Bound<'_, MarginSoftmax>, schedules: &Bound<'_, PyDict>, step: u64) -> PyResult<MarginSoftmax> {
    let text: String = schedules.py().import("json")?.call_method1("dumps", (schedules,))?.extract()?;
    let schedules: Schedules = from_json(&text, "set of schedules")?;
    let mut next = loss.get().0.clone();
    schedules.apply(step, &mut next).map_err(raise)?;
    Ok(MarginSoftmax(next))
}

//! The options of a head, by their names.

use std::ops::Range;

use margin_softmax::{
    Backend, Budget, Options, Shape, Want,
    data::{GradientFilter, MarginGradients},
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    devices::backend,
    errors::{raise, type_error, value_error},
    pool::MOST,
};

/// What a head, predictor or sampled head is made of beside its loss and its three sizes.
pub struct HeadOptions {
    pub device: String,
    pub backend: Backend,
    pub sub_centers: usize,
    pub threads: Option<usize>,
    /// Is told how far a call is.
    pub progress: Option<Py<PyAny>>,
    /// Of a shard; None for a whole head.
    pub range: Option<Range<usize>>,
    pub options: Options,
}

/// Takes an argument out of a dictionary of them; None where it is absent or None.
pub fn take<'py>(arguments: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(value) = arguments.get_item(name)? else { return Ok(None) };
    arguments.del_item(name)?;
    Ok(Some(value).filter(|value| !value.is_none()))
}

/// Refuses arguments that nothing has taken.
pub fn all_taken(arguments: &Bound<'_, PyDict>, of: &str) -> PyResult<()> {
    match arguments.keys().iter().next() {
        Some(name) => Err(type_error(format!("{of} got an unexpected keyword argument '{name}'"))),
        None => Ok(()),
    }
}

/// A copy to take arguments from.
pub fn arguments<'py>(py: Python<'py>, given: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyDict>> {
    given.map_or_else(|| Ok(PyDict::new(py)), |given| given.copy())
}

/// A number that must not be negative.
fn count<T: for<'a, 'py> FromPyObject<'a, 'py, Error = PyErr>>(
    arguments: &Bound<'_, PyDict>,
    name: &str,
) -> PyResult<Option<T>> {
    let Some(value) = take(arguments, name)? else { return Ok(None) };
    let wrong = |_| match value.extract::<i128>() {
        Ok(found) => value_error(format!("`{name}` is {found}, expected a number that fits an unsigned integer")),
        Err(_) => type_error(format!("`{name}` must be an integer")),
    };
    value.extract().map(Some).map_err(wrong)
}

/// The gradients of these names.
fn want(value: &Bound<'_, PyAny>) -> PyResult<Want> {
    let known = "embeddings, prototypes, scale, bias, margins, class_margins, row_margins";
    let names: Vec<String> = match value.extract::<String>() {
        Ok(name) => vec![name],
        Err(_) => value.extract().map_err(|_| type_error(format!("`want` must be names out of: {known}")))?,
    };
    let mut want = Want::LOSS;
    for name in names {
        match name.as_str() {
            "embeddings" => want.grad_embeddings = true,
            "prototypes" => want.grad_prototypes = true,
            "scale" => want.grad_scale = true,
            "bias" => want.grad_bias = true,
            "margins" | "class_margins" | "row_margins" if want.grad_margins.is_some() => {
                return Err(value_error("`want` has margins twice: `margins`, `class_margins` or `row_margins`"));
            }
            "margins" => want.grad_margins = Some(MarginGradients::Sum),
            "class_margins" => want.grad_margins = Some(MarginGradients::Classes),
            "row_margins" => want.grad_margins = Some(MarginGradients::Rows),
            _ => return Err(value_error(format!("`{name}` is not a known gradient; known are: {known}"))),
        }
    }
    Ok(want)
}

impl HeadOptions {
    /// Reads them; every one has a default.
    pub fn read(arguments: &Bound<'_, PyDict>) -> PyResult<Self> {
        let (py, mut options) = (arguments.py(), Options::default());
        let device = take(arguments, "device")?.map_or(Ok("best".into()), |name| {
            name.extract::<String>()
                .map_err(|_| type_error("`device` must be a name: best, cpu, gpu, reference, or an adapter's"))
        })?;
        if let Some(bytes) = count(arguments, "budget")? {
            options.budget = Budget::bytes(bytes);
        }
        if let Some(names) = take(arguments, "want")? {
            options.want = want(&names)?;
        }
        options.predictions = count(arguments, "predictions")?;
        options.soft_labels = count(arguments, "soft_labels")?;
        options.work_per_submit = count(arguments, "work_per_submit")?;
        if let Some(epsilon) = take(arguments, "filter")? {
            options.filter = Some(GradientFilter::new(epsilon.extract()?).map_err(raise)?);
        }
        if let Some(name) = take(arguments, "tile")? {
            options.tile = Some(name.extract::<String>()?.parse().map_err(raise)?);
        }
        if let Some(name) = take(arguments, "preset")? {
            options.preset = name.extract::<String>()?.parse().map_err(raise)?;
        }
        let threads = count(arguments, "threads")?;
        if threads.is_some_and(|threads| !(1..=MOST).contains(&threads)) {
            return Err(value_error(format!("`threads` is {threads:?}, allowed is 1 <= threads <= {MOST}")));
        }
        let progress = take(arguments, "progress")?;
        if progress.as_ref().is_some_and(|callback| !callback.is_callable()) {
            return Err(type_error(
                "`progress` must be a function of two numbers: the work that is done, and all of it",
            ));
        }
        let progress = progress.map(Bound::unbind);
        let sub_centers = count(arguments, "sub_centers")?.unwrap_or(1);
        let range = take(arguments, "range")?.map(|range| range.extract::<(usize, usize)>()).transpose();
        let range = range.map_err(|_| {
            type_error("`range` must be a pair of class numbers: the first, and the one behind the last")
        })?;
        let range = range.map(|(first, end)| first..end);
        Ok(Self { backend: backend(py, &device)?, device, sub_centers, threads, progress, range, options })
    }

    /// The sizes of a head with these.
    pub fn shape(&self, rows: usize, classes: usize, dim: usize) -> PyResult<Shape> {
        Shape::new(rows, classes, dim).and_then(|shape| shape.with_sub_centers(self.sub_centers)).map_err(raise)
    }
}

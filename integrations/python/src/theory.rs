//! The theory of margins: `margin_softmax.theory`.

use margin_softmax::theory::{self, Criterion};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    errors::{raise, type_error},
    loss::MarginSoftmax,
};

/// A probability or a gradient at which training counts as finished.
fn criterion(probability: Option<f64>, gradient: Option<f64>) -> PyResult<Criterion> {
    match (probability, gradient) {
        (Some(p), None) => Ok(Criterion::Probability(p)),
        (None, Some(e)) => Ok(Criterion::Gradient(e)),
        _ => Err(type_error("give either `probability` or `gradient`")),
    }
}

/// The expected angle from a prototype to the nearest of the others, in radians, for random directions.
#[pyfunction]
fn nearest_prototype_angle(classes: usize, dim: usize) -> PyResult<f64> {
    theory::nearest_prototype_angle(classes, dim).map_err(raise)
}

/// ln B, the logarithm of the sum over the wrong classes of exp(s·c), for random prototypes.
#[pyfunction]
fn ln_wrong_class_sum(classes: usize, dim: usize, scale: f64) -> PyResult<f64> {
    theory::ln_wrong_class_sum(classes, dim, scale).map_err(raise)
}

/// ln B with WC-ReLU, where wrong classes behind the equator count as if they lay on it.
#[pyfunction]
fn ln_wrong_class_sum_rectified(classes: usize, dim: usize, scale: f64) -> PyResult<f64> {
    theory::ln_wrong_class_sum_rectified(classes, dim, scale).map_err(raise)
}

/// ln of the relative variance of B over random prototypes: far below 0 one B stands for all embeddings.
#[pyfunction]
fn ln_wrong_class_sum_variance(classes: usize, dim: usize, scale: f64) -> PyResult<f64> {
    theory::ln_wrong_class_sum_variance(classes, dim, scale).map_err(raise)
}

/// The mean angle to the center of a spherical cap over the points of the cap, whose rim is at `angle`; radians.
#[pyfunction]
fn mean_angle_within(angle: f64, dim: usize) -> PyResult<f64> {
    theory::mean_angle_within(angle, dim).map_err(raise)
}

/// The angle at which training counts as finished, in radians; None if there is none.
#[pyfunction]
#[pyo3(signature = (loss, ln_b, *, probability=None, gradient=None))]
fn termination_angle(
    loss: &Bound<'_, MarginSoftmax>,
    ln_b: f64,
    probability: Option<f64>,
    gradient: Option<f64>,
) -> PyResult<Option<f64>> {
    theory::termination_angle(&loss.get().0, ln_b, criterion(probability, gradient)?).map_err(raise)
}

/// The margins m0 to m3, each of which alone puts the termination angle at `half_angle` (radians).
#[pyfunction]
#[pyo3(signature = (half_angle, ln_b, scale, *, probability=None, gradient=None))]
fn optimal_margin(
    py: Python<'_>,
    half_angle: f64,
    ln_b: f64,
    scale: f64,
    probability: Option<f64>,
    gradient: Option<f64>,
) -> PyResult<Bound<'_, PyDict>> {
    let found = theory::optimal_margin(half_angle, ln_b, scale, criterion(probability, gradient)?).map_err(raise)?;
    let dict = PyDict::new(py);
    for (name, margin) in [("m0", found.m0), ("m1", found.m1), ("m2", found.m2), ("m3", found.m3)] {
        dict.set_item(name, margin)?;
    }
    Ok(dict)
}

/// The loss of an embedding at the same angle (radians) to all prototypes, its own among them.
#[pyfunction]
fn equal_angle_loss(loss: &Bound<'_, MarginSoftmax>, classes: usize, angle: f64) -> PyResult<f64> {
    theory::equal_angle_loss(&loss.get().0, classes, angle).map_err(raise)
}

/// The loss of a run whose prototypes have all become one.
#[pyfunction]
fn collapse_loss(loss: &Bound<'_, MarginSoftmax>, classes: usize) -> PyResult<f64> {
    theory::collapse_loss(&loss.get().0, classes).map_err(raise)
}

/// ArcGrad's scale for so many classes and a margin.
#[pyfunction]
fn arcgrad_scale(classes: usize, margin: f64) -> PyResult<f64> {
    theory::arcgrad_scale(classes, margin).map_err(raise)
}

/// The fixed scale of AdaCos.
#[pyfunction]
fn adacos_scale(classes: usize) -> PyResult<f64> {
    theory::adacos_scale(classes).map_err(raise)
}

/// Adds the submodule.
pub fn add(parent: &Bound<'_, PyModule>) -> PyResult<()> {
    let module = PyModule::new(parent.py(), "theory")?;
    module.add_function(wrap_pyfunction!(nearest_prototype_angle, &module)?)?;
    module.add_function(wrap_pyfunction!(ln_wrong_class_sum, &module)?)?;
    module.add_function(wrap_pyfunction!(ln_wrong_class_sum_rectified, &module)?)?;
    module.add_function(wrap_pyfunction!(ln_wrong_class_sum_variance, &module)?)?;
    module.add_function(wrap_pyfunction!(mean_angle_within, &module)?)?;
    module.add_function(wrap_pyfunction!(termination_angle, &module)?)?;
    module.add_function(wrap_pyfunction!(optimal_margin, &module)?)?;
    module.add_function(wrap_pyfunction!(equal_angle_loss, &module)?)?;
    module.add_function(wrap_pyfunction!(collapse_loss, &module)?)?;
    module.add_function(wrap_pyfunction!(arcgrad_scale, &module)?)?;
    module.add_function(wrap_pyfunction!(adacos_scale, &module)?)?;
    parent.add_submodule(&module)
}

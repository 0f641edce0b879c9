//! Verification and identification: `margin_softmax.verification`.

use margin_softmax::verification::{self, CohortStatistics, DetectionCost, DetectionCurve, MatchCurve, Mate};
use numpy::PyUntypedArrayMethods;
use pyo3::{prelude::*, types::PyDict};

use crate::{
    arrays::{check_shape, labels, read, slice},
    devices::backend,
    errors::{raise, value_error},
    outputs::{shaped, vector},
    pool::pool,
};

/// Work on the curve of scores [N] with flags [N], without the interpreter's lock.
fn on_curve<R: Send>(
    scores: &Bound<'_, PyAny>,
    same: &Bound<'_, PyAny>,
    work: impl FnOnce(&DetectionCurve) -> margin_softmax::Result<R> + Send,
) -> PyResult<R> {
    let py = scores.py();
    let (scores, same) = (read::<f32>(scores, "scores")?, read::<bool>(same, "same")?);
    let (scores, same) = (slice(&scores)?, slice(&same)?);
    py.detach(|| DetectionCurve::new(scores, same).and_then(|curve| work(&curve))).map_err(raise)
}

/// Indices of items as the library has them.
fn indices(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<u32>> {
    let all = labels(object, what)?;
    let index = |&found: &i64| {
        u32::try_from(found).map_err(|_| value_error(format!("`{what}` has {found}, no index of an item")))
    };
    slice(&all)?.iter().map(index).collect()
}

/// Pairs [N, 2] of items.
fn pairs_of(object: &Bound<'_, PyAny>) -> PyResult<Vec<[u32; 2]>> {
    let array = labels(object, "pairs")?;
    check_shape("pairs", array.shape(), &[None, Some(2)])?;
    Ok(indices(object, "pairs")?.as_chunks().0.to_vec())
}

/// The equal error rate.
#[pyfunction]
fn eer(scores: &Bound<'_, PyAny>, same: &Bound<'_, PyAny>) -> PyResult<f64> {
    on_curve(scores, same, |curve| Ok(curve.equal_error_rate()))
}

/// The normalised minimum detection cost.
#[pyfunction]
fn min_dcf(
    scores: &Bound<'_, PyAny>,
    same: &Bound<'_, PyAny>,
    target_prior: f64,
    miss: f64,
    false_alarm: f64,
) -> PyResult<f64> {
    let cost = DetectionCost { target_prior, miss, false_alarm };
    on_curve(scores, same, |curve| curve.min_detection_cost(&cost))
}

/// The true accept rate at a false accept rate.
#[pyfunction]
fn tar_at_far(scores: &Bound<'_, PyAny>, same: &Bound<'_, PyAny>, far: f64) -> PyResult<f64> {
    on_curve(scores, same, |curve| curve.true_accept_rate(far))
}

/// False accept rates, true accept rates and thresholds; about `points` of them, or all.
#[pyfunction]
fn roc(
    scores: &Bound<'_, PyAny>,
    same: &Bound<'_, PyAny>,
    points: Option<usize>,
) -> PyResult<(Py<PyAny>, Py<PyAny>, Py<PyAny>)> {
    let py = scores.py();
    let found = on_curve(scores, same, |curve| match points {
        Some(most) => curve.thinned(most),
        None => Ok(curve.points().collect()),
    })?;
    let far = vector(py, found.iter().map(|point| point.false_accept_rate).collect());
    let tar = vector(py, found.iter().map(|point| point.true_accept_rate()).collect());
    Ok((far, tar, vector(py, found.iter().map(|point| point.threshold).collect())))
}

/// Accuracy over folds of pairs: as many contiguous ones as `folds` says, or those of the array `folds` [N].
#[pyfunction]
fn pair_accuracy<'py>(
    scores: &Bound<'py, PyAny>,
    same: &Bound<'py, PyAny>,
    folds: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = scores.py();
    let (scores, same) = (read::<f32>(scores, "scores")?, read::<bool>(same, "same")?);
    let (scores, same) = (slice(&scores)?, slice(&same)?);
    let folds = match folds.extract::<usize>() {
        Ok(count) => verification::contiguous_folds(scores.len(), count).map_err(raise)?,
        Err(_) => indices(folds, "folds")?,
    };
    let found = py.detach(|| verification::pair_accuracy(scores, same, &folds)).map_err(raise)?;
    let dict = PyDict::new(py);
    dict.set_item("mean", found.mean())?;
    dict.set_item("deviation", found.deviation())?;
    dict.set_item("standard_error", found.standard_error())?;
    dict.set_item("folds", found.folds)?;
    dict.set_item("thresholds", found.thresholds)?;
    Ok(dict)
}

/// The rates of all ranks.
fn rates(curve: &MatchCurve) -> PyResult<Vec<f64>> {
    (1..=curve.max_rank()).map(|rank| curve.rate(rank)).collect::<margin_softmax::Result<_>>().map_err(raise)
}

/// The rates of ranks 1 to k from the identities of the nearest items [N, k] and those of the probes [N].
#[pyfunction]
fn top_k(nearest: &Bound<'_, PyAny>, probes: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    let (nearest, probes) = (labels(nearest, "nearest")?, labels(probes, "probes")?);
    check_shape("nearest", nearest.shape(), &[Some(probes.len()), None])?;
    let count = nearest.shape()[1];
    rates(&MatchCurve::of_gallery(count, slice(&nearest)?, slice(&probes)?).map_err(raise)?)
}

/// The same for mates among distractors: scores of the distractors [P, k], and of each mate its probe [N] and score [N].
#[pyfunction]
fn with_distractors(
    distractors: &Bound<'_, PyAny>,
    probes: &Bound<'_, PyAny>,
    scores: &Bound<'_, PyAny>,
) -> PyResult<Vec<f64>> {
    let (distractors, scores) = (read::<f32>(distractors, "distractors")?, read::<f32>(scores, "scores")?);
    check_shape("distractors", distractors.shape(), &[None, None])?;
    let probes = indices(probes, "probes")?;
    check_shape("scores", scores.shape(), &[Some(probes.len())])?;
    let mates = probes.iter().zip(slice(&scores)?).map(|(&probe, &score)| Mate { probe: probe as usize, score });
    let (count, mates) = (distractors.shape()[1], mates.collect::<Vec<_>>());
    rates(&MatchCurve::with_distractors(count, slice(&distractors)?, &mates).map_err(raise)?)
}

/// Adaptive s-norm: scores [N] of pairs [N, 2], with the cohort's scores of the enrolled items [E, k] and of the tested ones.
#[pyfunction]
fn as_norm(
    scores: &Bound<'_, PyAny>,
    pairs: &Bound<'_, PyAny>,
    enrolled: &Bound<'_, PyAny>,
    tested: Option<&Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let py = scores.py();
    let (scores, pairs) = (read::<f32>(scores, "scores")?, pairs_of(pairs)?);
    let scores = slice(&scores)?;
    let statistics = |object: &Bound<'_, PyAny>, what: &'static str| {
        let cohort = read::<f32>(object, what)?;
        check_shape(what, cohort.shape(), &[None, None])?;
        let (count, cohort) = (cohort.shape()[1], slice(&cohort)?);
        py.detach(|| CohortStatistics::new(count, cohort)).map_err(raise)
    };
    let enrolled = statistics(enrolled, "enrolled")?;
    let tested = tested.map(|tested| statistics(tested, "tested")).transpose()?;
    let tested = tested.as_ref().unwrap_or(&enrolled);
    let found = py.detach(|| verification::adaptive_s_norm(scores, &pairs, &enrolled, tested)).map_err(raise)?;
    Ok(vector(py, found))
}

/// Cosines of pairs [N, 2] of rows of `left` [L, D] and `right` [R, D].
#[pyfunction]
fn pair_cosines(
    left: &Bound<'_, PyAny>,
    right: &Bound<'_, PyAny>,
    pairs: &Bound<'_, PyAny>,
    device: &str,
    threads: Option<usize>,
) -> PyResult<Py<PyAny>> {
    let py = left.py();
    let (left, right) = (read::<f32>(left, "left")?, read::<f32>(right, "right")?);
    check_shape("left", left.shape(), &[None, None])?;
    let dim = left.shape()[1];
    check_shape("right", right.shape(), &[None, Some(dim)])?;
    let (left, right, pairs) = (slice(&left)?, slice(&right)?, pairs_of(pairs)?);
    let (backend, pool) = (backend(py, device)?, pool(py, threads)?);
    let work = || pool.install(|| backend.pair_cosines(dim, left, right, &pairs));
    Ok(vector(py, py.detach(work).map_err(raise)?))
}

/// Rows and cosines of the `k` items of a gallery [M, D] nearest to each of the probes [N, D].
#[pyfunction]
fn nearest(
    probes: &Bound<'_, PyAny>,
    gallery: &Bound<'_, PyAny>,
    k: usize,
    device: &str,
    threads: Option<usize>,
) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
    let py = probes.py();
    let (probes, gallery) = (read::<f32>(probes, "probes")?, read::<f32>(gallery, "gallery")?);
    check_shape("probes", probes.shape(), &[None, None])?;
    let (rows, dim) = (probes.shape()[0], probes.shape()[1]);
    check_shape("gallery", gallery.shape(), &[None, Some(dim)])?;
    let (probes, gallery) = (slice(&probes)?, slice(&gallery)?);
    let (backend, pool) = (backend(py, device)?, pool(py, threads)?);
    let found = py.detach(|| pool.install(|| backend.nearest(dim, probes, gallery, k))).map_err(raise)?;
    let items = found.items.into_iter().map(i64::from).collect();
    Ok((shaped(py, items, &[rows, k])?, shaped(py, found.cosines, &[rows, k])?))
}

/// Adds the submodule.
pub fn add(parent: &Bound<'_, PyModule>) -> PyResult<()> {
    let module = PyModule::new(parent.py(), "verification")?;
    module.add_function(wrap_pyfunction!(eer, &module)?)?;
    module.add_function(wrap_pyfunction!(min_dcf, &module)?)?;
    module.add_function(wrap_pyfunction!(tar_at_far, &module)?)?;
    module.add_function(wrap_pyfunction!(roc, &module)?)?;
    module.add_function(wrap_pyfunction!(pair_accuracy, &module)?)?;
    module.add_function(wrap_pyfunction!(top_k, &module)?)?;
    module.add_function(wrap_pyfunction!(with_distractors, &module)?)?;
    module.add_function(wrap_pyfunction!(as_norm, &module)?)?;
    module.add_function(wrap_pyfunction!(pair_cosines, &module)?)?;
    module.add_function(wrap_pyfunction!(nearest, &module)?)?;
    parent.add_submodule(&module)
}

//! The numbers that shards exchange, as float64 vectors that any collective can carry.
//!
//! Targets: `[first, end, rows, top_count, has_sums, zero_prototypes, non_finite_prototypes]`, the cosines `[N]` (NaN where the
//! shard has no label), the top list `[N, k, 2]` (NaN behind its end), the sums `[N, 2]`. Statistics: `[first, end, rows]` and five
//! numbers for each row. Both have the same length on every shard of a head, for the same rows.

use std::ops::Range;

use margin_softmax::{
    Batch, Output as Results, SliceHead,
    shard::{RowStatistics, Statistics, Targets},
};
use pyo3::{prelude::*, types::PyDict};

use crate::{
    arrays::{read, slice},
    errors::{raise, value_error},
    head::{Head, no_doubles},
    inputs::Inputs,
    options::{all_taken, arguments},
    outputs::{CallersArrays, Output, vector},
};

const HEADER: usize = 7;

/// Targets as numbers.
fn write_targets(targets: &Targets) -> Vec<f64> {
    let (rows, k) = (targets.cosines.len(), targets.top_count);
    let has_sums = !targets.sums.is_empty();
    let numbers = [
        targets.range.start,
        targets.range.end,
        rows,
        k,
        usize::from(has_sums),
        targets.zero_prototypes,
        targets.non_finite_prototypes,
    ];
    let mut all: Vec<f64> = numbers.map(|number| number as f64).into();
    all.extend(targets.cosines.iter().map(|cosine| cosine.unwrap_or(f64::NAN)));
    for top in &targets.top {
        all.extend((0..k).flat_map(|at| top.get(at).map_or([f64::NAN; 2], |&(cosine, class)| [cosine, class as f64])));
    }
    all.extend(targets.sums.iter().flatten());
    all
}

/// The error for numbers that are not what they should be.
fn broken(what: &str) -> PyErr {
    value_error(format!("these numbers are no {what} of a shard"))
}

/// The numbers of a header: whole and not negative.
fn header<const N: usize>(numbers: &[f64], what: &str) -> PyResult<[usize; N]> {
    let mut found = [0; N];
    let head = numbers.get(..N).ok_or_else(|| broken(what))?;
    for (to, &number) in found.iter_mut().zip(head) {
        if !(0.0..9e15).contains(&number) || number.fract() != 0.0 {
            return Err(broken(what));
        }
        *to = number as usize;
    }
    Ok(found)
}

/// Targets from numbers.
fn read_targets(numbers: &[f64]) -> PyResult<Targets> {
    let what = "targets";
    let [first, end, rows, k, has_sums, zero_prototypes, non_finite_prototypes] = header::<HEADER>(numbers, what)?;
    let sizes = [rows, rows.saturating_mul(k).saturating_mul(2), if has_sums > 0 { 2 * rows } else { 0 }];
    if numbers.len() != sizes.iter().fold(HEADER, |sum, size| sum.saturating_add(*size)) {
        return Err(broken(what));
    }
    let (cosines, rest) = numbers[HEADER..].split_at(sizes[0]);
    let (top, sums) = rest.split_at(sizes[1]);
    let entry = |pair: &[f64]| (!pair[0].is_nan()).then(|| (pair[0], pair[1] as usize));
    let list = |row: usize| top[2 * k * row..][..2 * k].chunks_exact(2).map_while(entry).collect();
    Ok(Targets {
        range: Range { start: first, end },
        cosines: cosines.iter().map(|&cosine| Some(cosine).filter(|cosine| !cosine.is_nan())).collect(),
        top: if k > 0 { (0..rows).map(list).collect() } else { vec![] },
        top_count: k,
        sums: sums.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect(),
        zero_prototypes,
        non_finite_prototypes,
    })
}

/// Statistics as numbers.
fn write_statistics(statistics: &Statistics) -> Vec<f64> {
    let numbers = [statistics.range.start, statistics.range.end, statistics.rows.len()];
    let mut all: Vec<f64> = numbers.map(|number| number as f64).into();
    all.extend(
        statistics.rows.iter().flat_map(|row| [row.max_logit, row.sum, row.value_sum, row.weighted, row.nearest]),
    );
    all
}

/// Statistics from numbers.
fn read_statistics(numbers: &[f64]) -> PyResult<Statistics> {
    let what = "statistics";
    let [first, end, rows] = header::<3>(numbers, what)?;
    if numbers.len() != rows.saturating_mul(5).saturating_add(3) {
        return Err(broken(what));
    }
    let row = |row: &[f64]| RowStatistics {
        max_logit: row[0],
        sum: row[1],
        value_sum: row[2],
        weighted: row[3],
        nearest: row[4],
    };
    Ok(Statistics { range: Range { start: first, end }, rows: numbers[3..].chunks_exact(5).map(row).collect() })
}

/// The parts of all shards, each a vector.
fn parts<T>(object: &Bound<'_, PyAny>, what: &str, read_part: fn(&[f64]) -> PyResult<T>) -> PyResult<Vec<T>> {
    let one = |part: PyResult<Bound<'_, PyAny>>| read_part(slice(&read::<f64>(&part?, what)?)?);
    object.try_iter()?.map(one).collect()
}

/// One of the calls of a shard, by what it was given.
pub enum Call<'a, 'py> {
    Targets,
    Follow(&'a Bound<'py, PyAny>),
    Statistics(&'a Bound<'py, PyAny>),
    Gradients(&'a Bound<'py, PyAny>, &'a Bound<'py, PyAny>),
}

/// The result of a call, before it is an array.
enum Answer {
    Numbers(Vec<f64>),
    Nothing,
    Results(Box<Results>),
}

/// Makes a call of a shard.
pub fn call<'py>(
    shard: &Head,
    [embeddings, prototypes, labels]: [&Bound<'py, PyAny>; 3],
    given: Option<&Bound<'py, PyDict>>,
    call: &Call<'_, 'py>,
) -> PyResult<Py<PyAny>> {
    let py = labels.py();
    let vectors = shard.vectors(embeddings, prototypes)?;
    let [Some(x), Some(w)] = [vectors[0].stored()?, vectors[1].stored()?] else { return Err(no_doubles()) };
    let given = arguments(py, given)?;
    let inputs = Inputs::<f32>::read(labels, &given, vectors[0].shape()[0], shard.shape, shard.classes)?;
    all_taken(&given, "a call of a shard")?;
    let batch: Batch<'_, i64> = inputs.batch(&[], &[])?;
    let all = shard.shape.classes();
    let merged_targets = |parts_given: &Bound<'py, PyAny>| {
        Targets::merged(&parts(parts_given, "targets", read_targets)?, all).map_err(raise)
    };
    let merged_statistics = |parts_given: &Bound<'py, PyAny>| {
        Statistics::merged(&parts(parts_given, "statistics", read_statistics)?, all).map_err(raise)
    };
    let (targets, statistics) = match call {
        Call::Targets => (None, None),
        Call::Follow(targets) | Call::Statistics(targets) => (Some(merged_targets(targets)?), None),
        Call::Gradients(targets, statistics) => (Some(merged_targets(targets)?), Some(merged_statistics(statistics)?)),
    };
    let follows = matches!(call, Call::Follow(_));
    let work = |head: &mut SliceHead| {
        let (x, w) = (x.widened(), w.widened());
        let batch = Batch { embeddings: &x, prototypes: &w, ..batch };
        Ok(match (targets, statistics) {
            (Some(targets), Some(statistics)) => {
                Answer::Results(Box::new(head.gradients(&batch, &targets, &statistics)?))
            }
            (Some(targets), None) if follows => {
                head.follow(&batch, &targets)?;
                Answer::Nothing
            }
            (Some(targets), None) => Answer::Numbers(write_statistics(&head.statistics(&batch, &targets)?)),
            (None, _) => Answer::Numbers(write_targets(&head.targets(&batch)?)),
        })
    };
    Ok(match shard.turns.run(py, work)? {
        Answer::Numbers(numbers) => vector(py, numbers),
        Answer::Nothing => py.None(),
        Answer::Results(out) => {
            let into = CallersArrays::read(&PyDict::new(py), &[])?;
            let shapes = [vectors[0].shape(), vectors[1].shape()];
            Py::new(py, Output::new(py, *out, shard.want, shapes, None, into)?)?.into_any()
        }
    })
}

//! Cases of predictions without labels, with the f64 reference's answers.

use std::ops::Range;

use margin_softmax::{data::Inputs, plan::Element, *};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{Numbers, normal, stored};

/// Vectors without labels, and how their plan is to be cut.
struct Case {
    name: &'static str,
    loss: MarginSoftmax,
    /// Rows planned, classes, dim, sub-centers.
    shape: [usize; 4],
    rows: usize,
    count: usize,
    range: Option<Range<usize>>,
    elements: [Element; 2],
    shards: Option<Vec<usize>>,
    options: Value,
    bias: bool,
    /// What happens to embeddings and prototypes.
    change: fn(&mut [f32], &mut [f32], usize),
}

impl Case {
    fn new(name: &'static str, loss: MarginSoftmax, [rows, classes, dim]: [usize; 3], count: usize) -> Self {
        Self {
            name,
            loss,
            shape: [rows, classes, dim, 1],
            rows,
            count,
            range: None,
            elements: [Element::F32; 2],
            shards: None,
            options: json!({ "tile": "direct" }),
            bias: false,
            change: |_, _, _| {},
        }
    }
}

/// Every prototype again 50 classes later, and so an equal cosine.
fn twins(_: &mut [f32], prototypes: &mut [f32], dim: usize) {
    let (first, second) = prototypes.split_at_mut(50 * dim);
    second[..50 * dim].copy_from_slice(first);
}

/// Row 2 has a NaN, row 5 an infinite value; row 7 and class 3 are 0.
fn broken_rows(embeddings: &mut [f32], prototypes: &mut [f32], dim: usize) {
    (embeddings[2 * dim], embeddings[5 * dim + 1]) = (f32::NAN, f32::NEG_INFINITY);
    embeddings[7 * dim..8 * dim].fill(0.0);
    prototypes[3 * dim..4 * dim].fill(0.0);
}

fn cases() -> Result<Vec<Case>> {
    let arcface = || MarginSoftmax::arcface().with_scale(16.0);
    let small = [17, 130, 16];
    let new = |name, count| Case::new(name, arcface(), small, count);
    Ok(vec![
        new("nearest", 5),
        new("one", 1),
        Case::new("all_classes", arcface(), [9, 7, 5], 7),
        Case::new("most", arcface(), [5, 300, 7], 64),
        Case { change: twins, ..new("ties", 10) },
        Case { change: broken_rows, ..new("broken_rows", 4) },
        Case { change: |_, w, _| w[17] = f32::NAN, ..new("broken_prototype", 4) },
        Case { shards: Some(vec![64, 64, 2]), change: twins, ..new("three_shards", 6) },
        Case {
            shards: Some(vec![128, 202]),
            options: json!({ "tile": "direct", "budget": 25_000 }),
            ..Case::new("two_shards_in_chunks", arcface(), [33, 330, 16], 5)
        },
        Case { shape: [17, 50, 16, 3], ..new("sub_centres", 5) },
        Case { shape: [9, 33, 7, 2], rows: 9, shards: Some(vec![20, 13]), ..new("sub_centres_odd", 5) },
        Case::new("binary", MarginSoftmax::named("sphereface2")?, small, 5),
        Case { bias: true, ..Case::new("linear", MarginSoftmax::named("softmax")?, small, 5) },
        Case { elements: [Element::F16, Element::Bf16], ..new("halves", 5) },
        Case { rows: 11, ..Case::new("fewer_rows", arcface(), [40, 130, 16], 5) },
        Case { range: Some(40..100), bias: true, ..Case::new("range", MarginSoftmax::named("softmax")?, small, 5) },
        Case { range: Some(126..130), ..new("range_of_few", 5) },
        Case {
            options: json!({ "tile": "direct", "work_per_submit": 400_000 }),
            ..Case::new("in_parts", arcface(), [65, 130, 32], 5)
        },
        Case { options: json!({}), ..Case::new("default", arcface(), [64, 1000, 128], 10) },
    ])
}

pub fn entries(numbers: &mut Numbers) -> Result<Vec<Value>> {
    cases()?.iter().enumerate().map(|(seed, case)| entry(case, 1000 + seed as u64, numbers)).collect()
}

fn entry(case: &Case, seed: u64, numbers: &mut Numbers) -> Result<Value> {
    let [most, classes, dim, centers] = case.shape;
    let shape = Shape::new(most, classes, dim)?.with_sub_centers(centers)?;
    let range = case.range.clone().unwrap_or(0..classes);
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut values = |count: usize| (0..count).map(|_| normal(rng)).collect::<Vec<f32>>();
    let (mut x, mut w) = (values(case.rows * dim), values(classes * centers * dim));
    let bias = case.bias.then(|| values(range.len()));
    (case.change)(&mut x, &mut w, dim);
    let w = w[range.start * centers * dim..range.end * centers * dim].to_vec();
    let ((x, x_bits), (w, w_bits)) = (stored(x, case.elements[0]), stored(w, case.elements[1]));
    let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let (x_wide, w_wide, bias_wide) = (wide(&x), wide(&w), bias.as_deref().map(wide));
    let inputs = Inputs { embeddings: &x_wide, prototypes: &w_wide, bias: bias_wide.as_deref() };
    let state = State::new(&case.loss, shape)?;
    let out = reference::predict(&case.loss, shape, range, case.count, &inputs, &state)?;
    let mut thin = |v: &[f64]| numbers.put(&v.iter().map(|&x| x as f32).collect::<Vec<f32>>());
    let floats = json!({
        "cosines": thin(&out.cosines),
        "logProbabilities": thin(&out.log_probabilities),
        "logSumExps": thin(&out.log_sum_exps),
    });
    Ok(json!({
        "name": case.name,
        "request": {
            "loss": case.loss,
            "shape": shape,
            "count": case.count,
            "range": case.range.as_ref().map(|range| [range.start, range.end]),
            "elements": { "embeddings": case.elements[0], "prototypes": case.elements[1] },
            "shards": case.shards,
            "options": case.options,
        },
        "inputs": {
            "embeddings": numbers.put(&x),
            "prototypes": numbers.put(&w),
            "bias": bias.map(|bias| numbers.put(&bias)),
        },
        "bits": {
            "embeddings": x_bits.map(|bits| numbers.put(&bits)),
            "prototypes": w_bits.map(|bits| numbers.put(&bits)),
        },
        "whole": {
            // u32::MAX, no class, is -1
            "classes": numbers.put(&out.classes),
            "subCenters": numbers.put(&out.sub_centers),
        },
        "floats": floats,
        "nonFiniteRows": out.non_finite_rows,
        "nonFinitePrototypes": out.non_finite_prototypes,
    }))
}

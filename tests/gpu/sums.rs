//! Sums over very many classes, and over very many rows, stay within the gates that a small batch keeps.
//!
//! The losses with a binary link have the hardest dX: what all classes pull along the embedding itself grows with their number,
//! and the gradient, which is the rest, with its root. With `MARGIN_SOFTMAX_FULL=1` there are 4 M classes and 1 M rows.

use libtest_mimic::Failed;
use margin_softmax::{gpu::Context, *};

use crate::{
    Check,
    agreement::{Device, compare},
    cases::Case,
    full,
};

pub const CHECKS: &[(&str, Check)] =
    &[("sums_over_very_many_classes_keep_their_digits", classes), ("sums_over_very_many_rows_keep_their_digits", rows)];

fn case(family: &'static str, smoothing: f64, shape: (usize, usize, usize)) -> Result<Case, Failed> {
    let loss = MarginSoftmax::named(family)?.with_label_smoothing(smoothing);
    let (linear, shape) = (loss.similarity == Similarity::Dot, Shape::new(shape.0, shape.1, shape.2)?);
    Ok(Case { family, bias: linear, further: true, loss, ..Case::random(shape, 1) })
}

fn classes(context: &Context) -> Result<(), Failed> {
    let count = if full() { 1 << 22 } else { 1 << 17 };
    let shape = (4, count, 8);
    let mut cases = vec![
        case("sphereface2", 0.0, shape)?,
        case("softmax", 0.1, shape)?,
        Case { weights: true, ..case("arcface", 0.1, shape)? },
        Case { shards: 3, ..case("sphereface2_opensphere", 0.0, shape)? },
        Case { centers: 2, ..case("sphereface2_angular", 0.0, (4, count / 2, 8))? },
    ];
    if full() {
        cases.extend([case("arcgrad", 0.0, shape)?, case("adacos", 0.0, shape)?]);
    }
    all(context, cases)
}

fn rows(context: &Context) -> Result<(), Failed> {
    let shape = (if full() { 1 << 20 } else { 1 << 17 }, 4, 8);
    let weighted = Case { weights: true, ..case("arcface", 0.1, shape)? };
    all(context, vec![case("sphereface2", 0.0, shape)?, weighted, case("softmax", 0.0, shape)?])
}

/// Every case in both schedules.
fn all(context: &Context, cases: Vec<Case>) -> Result<(), Failed> {
    let device = Device::Gpu(context.clone(), Tile::Direct64);
    let mut bad = vec![];
    for case in cases {
        for chunked in [false, true] {
            let case = Case { chunked, ..case.clone() };
            bad.extend(compare(&device, &case).err().map(|why| format!("{}: {why}", case.describe())));
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(bad.join("\n").into()) }
}

//! Lengths from 1e-30 to f32::MAX, and directions that coincide.

use libtest_mimic::Failed;
use margin_softmax::{objective::*, *};

use super::{Cases, Problem, Runner, SHAPES, Trial, compare, losses};
use crate::{
    agreement::Device,
    families::{is_sorted, least_classes},
};

pub const TRIALS: &[Trial] = &[
    ("lengths_in_one_batch", lengths_in_one_batch),
    ("lengths_of_all_vectors", lengths_of_all_vectors),
    ("the_longest_vectors", the_longest_vectors),
    ("zeros_and_subnormal_numbers", zeros_and_subnormal_numbers),
    ("directions_that_coincide", directions_that_coincide),
];

fn stretch(v: &mut [f32], factor: f64) {
    v.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
}

/// The half decades from 1e-30 to 1e30, from some place on, round and round.
fn half_decade(i: usize) -> f64 {
    10f64.powf(-30.0 + (i % 121) as f64 / 2.0)
}

/// Every row and every prototype has a length of its own.
fn lengths_in_one_batch(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for (l, (name, loss, centers)) in losses().into_iter().enumerate() {
        let plain = Problem::new(&name, &loss, centers, SHAPES[l % 2]);
        let mut runner = Runner::new(device, &plain)?;
        let n = plain.rows();
        // every half decade is that of some row, and of four prototypes
        for first in (0..121).step_by(n) {
            if !cases.next() {
                continue;
            }
            let mut problem = plain.clone();
            // a linear head takes the product as it is: what one vector gains the others lose
            let (up, down) = (half_decade(first), 1.0 / half_decade(first));
            for i in 0..n {
                let factor = if problem.is_linear() { up * [1.0, 3.0, 0.1][i % 3] } else { half_decade(first + i) };
                stretch(problem.embedding(i), factor);
            }
            for v in 0..plain.shape.classes() * centers {
                let factor = if problem.is_linear() { down } else { half_decade(first * 7 + v * 5) };
                stretch(problem.prototype(v), factor);
            }
            cases.take(runner.check(&format!("at half decade {first}"), &problem));
        }
    }
    cases.end()
}

/// All embeddings, all prototypes, or both: the loss stays what it was.
fn lengths_of_all_vectors(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for (l, (name, loss, centers)) in losses().into_iter().enumerate() {
        let plain = Problem::new(&name, &loss, centers, SHAPES[1 - l % 2]);
        let mut runner = Runner::new(device, &plain)?;
        for exponent in [-30.0, -20.0, -13.0, -11.5, -6.5, 6.5, 13.0, 19.5, 25.0, 30.0, 36.5] {
            for (x, w) in [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
                if !cases.next() {
                    continue;
                }
                let mut problem = plain.clone();
                let (a, b) = (10f64.powf(x * exponent), 10f64.powf(w * exponent));
                stretch(&mut problem.data.embeddings, a);
                stretch(&mut problem.data.prototypes, b);
                let what = format!("x 1e{}, w 1e{}", x * exponent, w * exponent);
                if problem.is_linear() && (x + w) * exponent > 36.6 {
                    continue; // logits beyond f32
                }
                cases.take(runner.check(&what, &problem));
            }
        }
    }
    cases.end()
}

/// Up to 8e37 a vector is like any other. A longer one has no f32 inverse: on a GPU it counts as not finite.
fn the_longest_vectors(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for (l, (name, loss, centers)) in losses().into_iter().enumerate() {
        let plain = Problem::new(&name, &loss, centers, SHAPES[l % 2]);
        if plain.is_linear() {
            continue;
        }
        let mut runner = Runner::new(device, &plain)?;
        for (length, endless) in [(7.9e37, false), (8.7e37, true), (1e38, true), (3.4e38, true)] {
            for own in [true, false] {
                if !cases.next() {
                    continue;
                }
                let mut problem = plain.clone();
                let v = if own { problem.embedding(2) } else { problem.prototype(9) };
                let size = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                stretch(v, length / size);
                cases.take(endless_or_like_any_other(&mut runner, device, &problem, own, endless));
            }
        }
        // every entry the largest f32, of either sign
        for own in [true, false] {
            if !cases.next() {
                continue;
            }
            let mut problem = plain.clone();
            let v = if own { problem.embedding(1) } else { problem.prototype(3) };
            v.iter_mut().for_each(|x| *x = f32::MAX.copysign(*x));
            cases.take(endless_or_like_any_other(&mut runner, device, &problem, own, true));
        }
    }
    cases.end()
}

fn endless_or_like_any_other(
    runner: &mut Runner,
    device: &Device,
    problem: &Problem,
    own: bool,
    endless: bool,
) -> Result<(), Failed> {
    let found = runner.run(problem)?;
    let mut known = problem.clone();
    if endless && matches!(device, Device::Gpu(..)) {
        let i = if own { known.data.embeddings.iter() } else { known.data.prototypes.iter() }
            .position(|x| x.abs() > 1e37)
            .unwrap();
        if own { known.data.embeddings[i] = f32::NAN } else { known.data.prototypes[i] = f32::NAN }
    }
    let what = if own { "embedding" } else { "prototype" };
    compare::agrees(&known, &found).map_err(|why| format!("{} with a long {what}: {why}", problem.name).into())
}

/// Zeros of either sign, and entries that a device may flush, alone and beside ordinary ones.
fn zeros_and_subnormal_numbers(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for (l, (name, loss, centers)) in losses().into_iter().enumerate() {
        let plain = Problem::new(&name, &loss, centers, SHAPES[l % 2]);
        let mut runner = Runner::new(device, &plain)?;
        let d = plain.dim();
        for at in 0..d {
            for small in [0.0, -0.0, 1e-45, -1e-40, 1.1e-38] {
                if !cases.next() {
                    continue;
                }
                let mut problem = plain.clone();
                // one entry of a row, all but one of another, all of a third, and the same of prototypes
                problem.embedding(0)[at] = small;
                problem.embedding(1).iter_mut().enumerate().for_each(|(q, x)| *x = if q == at { *x } else { small });
                problem.prototype(2)[at] = small;
                problem.prototype(3).iter_mut().enumerate().for_each(|(q, x)| *x = if q == at { *x } else { small });
                let whole = if at % 2 == 0 { 0.0 } else { -0.0 };
                problem.embedding(2).fill(whole);
                problem.prototype(5).fill(whole);
                // direction 1e-28 and less, or none: on which side of a right angle it lies matters to nobody but the easy
                // fallback, which jumps there, and an order of the rows
                if !is_easy(&problem.loss) && !is_sorted(&problem.loss) {
                    problem.embedding(3).fill(small);
                    problem.prototype(6).fill(small);
                }
                cases.take(runner.check(&format!("{small:e} at {at}"), &problem));
            }
        }
    }
    cases.end()
}

fn is_easy(loss: &MarginSoftmax) -> bool {
    matches!(&loss.target, Target::Unified(margin) if margin.fallback == Fallback::Easy)
}

/// Prototypes that are the same, embeddings on or opposite to all of them, one class for all rows, none for any.
fn directions_that_coincide(device: &Device) -> Result<(), Failed> {
    let mut cases = Cases::new();
    for (l, (name, loss, centers)) in losses().into_iter().enumerate() {
        let loss = loss.with_ignore_index(-1);
        let plain = Problem::new(&name, &loss, centers, SHAPES[l % 2]);
        let mut runner = Runner::new(device, &plain)?;
        let (n, d) = (plain.rows(), plain.dim());
        // lengths that are powers of two keep a direction exactly; all vectors along one axis, or none
        for axis in [None, Some(0), Some(d - 1)] {
            let mut same = plain.clone();
            let mut one = same.prototype(4).to_vec();
            if let Some(axis) = axis {
                one.fill(0.0);
                one[axis] = -0.75;
            }
            for v in 0..plain.shape.classes() * centers {
                same.prototype(v).copy_from_slice(&one);
            }
            for (what, signs) in [
                ("as they are", None),
                ("on it", Some([1.0, 1.0])),
                ("opposite", Some([-1.0, -1.0])),
                ("both", Some([1.0, -1.0])),
            ] {
                let mut problem = same.clone();
                if let Some(signs) = signs {
                    for i in 0..n {
                        let factor = signs[i % 2] * [1.0, 8.0, 0.25][i % 3];
                        let row: Vec<f32> = one.iter().map(|w| w * factor).collect();
                        problem.embedding(i).copy_from_slice(&row);
                    }
                }
                for labels in [None, Some(7), Some(-1)] {
                    // which of equal cosines is the larger, and gets the smaller margin, is rounding
                    let sorted = is_sorted(&problem.loss) && signs.is_some();
                    if sorted || !cases.next() {
                        continue;
                    }
                    let mut problem = problem.clone();
                    if let Some(label) = labels {
                        problem.data.labels.fill(label);
                    }
                    cases.take(runner.check(
                        &format!("prototypes all the same, rows {what}, axis {axis:?}, labels {labels:?}"),
                        &problem,
                    ));
                }
            }
        }
        // some ignored, some not, all on or opposite to the prototypes of their classes
        for sign in [1.0, -1.0] {
            if is_sorted(&plain.loss) || !cases.next() {
                continue;
            }
            let mut problem = plain.clone();
            for i in 0..n {
                let y = problem.data.labels[i] as usize * centers;
                let row: Vec<f32> = problem.prototype(y).iter().map(|w| w * sign * 0.5).collect();
                problem.embedding(i).copy_from_slice(&row);
            }
            problem.data.labels[0] = -1;
            cases.take(runner.check(&format!("rows at {sign}"), &problem));
        }
    }
    // one row, one class, one dimension, and all of them
    for (name, loss, centers) in losses() {
        for shape in [[1, 33, 7], [5, 1, 7], [5, 33, 1], [1, 1, 1], [1, 2, 3]] {
            let problem = Problem::new(&name, &loss, centers, shape);
            if State::new(&loss, problem.shape).is_err() || shape[1] < least_classes(&loss) {
                continue;
            }
            if !cases.next() {
                continue;
            }
            let mut runner = Runner::new(device, &problem)?;
            cases.take(runner.check(&format!("{shape:?}"), &problem));
        }
    }
    cases.end()
}

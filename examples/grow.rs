//! A recogniser of 25 classes learns 16 more: prototypes from the mean directions of a few images, a checkpoint that grows,
//! training that goes on. Then wrong labels are found, and classes are taken away.
//!
//! ```text
//! cargo run --release --example grow
//! ```
//!
//! The classes are handwritten digits in several appearances: as they are, on the side, as negatives, upside down. Writes
//! out/grow/25.safetensors and 41.safetensors.

#[path = "common/mod.rs"]
#[allow(dead_code)] // other examples use the rest
mod common;

use std::{fs, path::Path, process::ExitCode};

use common::{
    Result,
    digits::{Digits, PIXELS, SEEN, UNSEEN},
    learner::{Model, Set, Settings, Sizes, accuracy, flat, train},
};
use margin_softmax::{
    Backend, MarginSoftmax, Shape, State,
    checkpoint::Checkpoint,
    classes::{ClassMap, NewPrototypes, OUTLIER_ANGLE, SubCenters},
    monitor::ClassCenters,
};

const OLD: usize = 25;
const ALL: usize = 41;
const DIM: usize = 16;
/// Images of a new class that its prototype begins from.
const FEW: usize = 5;

/// Shares from 0 to 1, over test images but for the last two.
pub struct Outcome {
    /// Right among 25 classes.
    pub before: f64,
    /// Right among 41 without training: images of old and of new classes.
    pub grown: [f64; 2],
    /// The same after training.
    pub trained: [f64; 2],
    /// Right among the classes that are left.
    pub smaller: f64,
    /// Of the wrong labels, those that were found; of the others, those that were taken for wrong.
    pub found: f64,
    pub mistaken: f64,
}

fn main() -> ExitCode {
    common::exit::code(run(&Backend::cpu(), Path::new("out/grow")).map(|_| ()))
}

pub fn run(backend: &Backend, out: &Path) -> Result<Outcome> {
    fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let loss = MarginSoftmax::arcface().with_margin(|m| m.m2 = 0.3).with_scale(16.0);
    let (mut training, test) = sets(Digits::load()?)?;
    let score = |model: &Model, set: &Set| -> Result<f64> { Ok(accuracy(&model.judge(backend, &loss, set)?)) };
    let learn = |model: &mut Model, set: &Set| {
        let how = Settings { epochs: 20, batch: 64, rate: 1e-3, seed: 1 };
        train(backend, &loss.clone().into(), model, set, &how, |_| Ok(()))
    };
    let [old_test, new_test] = [0..OLD, OLD..ALL].map(|range| part(&test, |j| range.contains(&j)));
    let both = |model: &Model| -> Result<[f64; 2]> { Ok([score(model, &old_test)?, score(model, &new_test)?]) };

    // a run of 25 classes, and what is kept of it
    let mut model = Model::untrained(&Sizes { lengths: vec![PIXELS, 128, DIM], classes: OLD, sub_centers: 1 }, 1);
    learn(&mut model, &part(&training, |j| j < OLD))?;
    let before = score(&model, &old_test)?;
    println!("{OLD} classes: {:.1} % right", 100.0 * before);
    let shape = Shape::new(0, OLD, DIM)?;
    let (state, prototypes) = (State::new(&loss, shape)?, flat(&model.prototypes.value).to_vec());
    Checkpoint::new(&state).with_tensor("prototypes", &[OLD, DIM], prototypes)?.save(out.join("25.safetensors"))?;

    // 16 classes more, from the network that knows the others
    let kept = Checkpoint::load(out.join("25.safetensors"))?;
    let few = first_of_each(&part(&training, |j| j >= OLD), FEW);
    let mut centers = ClassCenters::new(ALL, DIM)?;
    centers.add_directions(flat(&model.embed(&few)), &few.labels, None)?;
    let new = NewPrototypes::default().from_centers(shape, kept.tensor("prototypes", &[OLD, DIM])?, &centers)?;
    let checkpoint = ClassMap::grow(OLD, ALL)?.checkpoint(&kept, &[("prototypes", Some(&new))])?;
    checkpoint.save(out.join("41.safetensors"))?;
    let mut model = model.with_prototypes(checkpoint.tensor("prototypes", &[ALL, DIM])?)?;
    let grown = both(&model)?;
    let [old, new] = grown.map(|share| 100.0 * share);
    println!(
        "{ALL} classes from {FEW} images of each new one, no training: old classes {old:.1} %, new ones {new:.1} %"
    );

    // training goes on, with every fiftieth label wrong
    training.labels.iter_mut().step_by(50).for_each(|label| *label = (*label + 7) % ALL as u32);
    learn(&mut model, &training)?;
    let trained = both(&model)?;
    let [old, new] = trained.map(|share| 100.0 * share);
    println!("{ALL} classes after training: old classes {old:.1} %, new ones {new:.1} %");

    // which rows lie far from their class?
    let embeddings = model.embed(&training);
    let mut counts = SubCenters::new(Shape::new(0, ALL, DIM)?, flat(&model.prototypes.value))?;
    counts.add(flat(&embeddings), &training.labels, None)?;
    let far = counts.dominant().outliers(flat(&embeddings), &training.labels, None, OUTLIER_ANGLE)?;
    let hits = far.iter().filter(|outlier| outlier.row % 50 == 0).count();
    let (wrong, rows) = (training.labels.len().div_ceil(50), training.labels.len());
    let found = hits as f64 / wrong as f64;
    let mistaken = (far.len() - hits) as f64 / (rows - wrong) as f64;
    println!("rows beyond 75°: {hits} of {wrong} wrong labels, {} of {} others", far.len() - hits, rows - wrong);

    // the negatives go: their labels too
    let negatives: Vec<usize> = (0..ALL).filter(|&j| appearance(j).1).collect();
    let map = ClassMap::without(ALL, &negatives)?;
    let model = model.with_prototypes(&map.values(flat(&model.prototypes.value), None)?)?;
    let mut rest = part(&test, |j| !appearance(j).1);
    rest.labels = map.relabel(&rest.labels, None)?.into_iter().map(|label| label as u32).collect();
    let smaller = score(&model, &rest)?;
    println!("{} classes, without the negatives: {:.1} %", map.new_classes(), 100.0 * smaller);
    Ok(Outcome { before, grown, trained, smaller, found, mistaken })
}

/// Of class j: quarter turns, and whether it is a negative. Its digit is (j + 4) % 10, so that the only one upside down is the 4,
/// which no other class looks like.
fn appearance(class: usize) -> (usize, bool) {
    [(0, false), (1, false), (0, true), (1, true), (2, false)][class / 10]
}

/// Training and test images of the 41 classes.
fn sets(Digits { train, test, unseen }: Digits) -> Result<(Set, Set)> {
    let third = |rest: bool| (0..unseen.labels.len()).filter(|i| (i % 3 == 0) != rest).collect::<Vec<_>>();
    let make = |seen: &Set, unseen: &Set| -> Result<Set> {
        let (mut pixels, mut labels) = (vec![], vec![]);
        for class in 0..ALL {
            for (set, digits) in [(seen, &SEEN[..]), (unseen, &UNSEEN[..])] {
                let same = set.inputs.rows().into_iter().zip(&set.labels);
                for (image, _) in same.filter(|(_, label)| usize::from(digits[**label as usize]) == (class + 4) % 10) {
                    pixels.extend(look(&image.to_vec(), appearance(class)));
                    labels.push(class as u32);
                }
            }
        }
        Ok(Set { inputs: ndarray::Array2::from_shape_vec((labels.len(), PIXELS), pixels)?, labels })
    };
    Ok((make(&train, &unseen.select(&third(true)))?, make(&test, &unseen.select(&third(false)))?))
}

/// An image of 8×8 pixels, turned and perhaps as a negative.
fn look(image: &[f32], (turns, negative): (usize, bool)) -> Vec<f32> {
    let turn = |image: Vec<f32>| (0..PIXELS).map(|i| image[i % 8 * 8 + 7 - i / 8]).collect();
    let turned = (0..turns).fold(image.to_vec(), |image, _| turn(image));
    turned.into_iter().map(|v| if negative { 1.0 - v } else { v }).collect()
}

/// The rows of some classes.
fn part(set: &Set, of: impl Fn(usize) -> bool) -> Set {
    let rows: Vec<usize> = (0..set.labels.len()).filter(|&i| of(set.labels[i] as usize)).collect();
    set.select(&rows)
}

/// The first rows of every class.
fn first_of_each(set: &Set, count: usize) -> Set {
    let mut seen = [0; ALL];
    let mut first = |label: u32| {
        seen[label as usize] += 1;
        seen[label as usize] <= count
    };
    let rows: Vec<usize> = (0..set.labels.len()).filter(|&i| first(set.labels[i])).collect();
    set.select(&rows)
}

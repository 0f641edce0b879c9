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

fn main() -> ExitCode {
    common::exit::code(run(Path::new("out/grow")))
}

fn run(out: &Path) -> Result {
    fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let (backend, loss) = (Backend::best()?, MarginSoftmax::arcface().with_margin(|m| m.m2 = 0.3).with_scale(16.0));
    let (training, test) = sets(Digits::load()?)?;
    let [old_test, new_test] = [0..OLD, OLD..ALL].map(|range| part(&test, |j| range.contains(&j)));
    let score = |what: &str, model: &Model, sets: &[(&str, &Set)]| -> Result {
        let of = |(name, set): &(&str, &Set)| {
            Ok(format!("{name} {:.1} %", 100.0 * accuracy(&model.judge(&backend, &loss, set)?)))
        };
        println!("{what}: {}", sets.iter().map(of).collect::<Result<Vec<_>>>()?.join(", "));
        Ok(())
    };

    // a run of 25 classes, and what is kept of it
    let how = Settings { epochs: 20, batch: 64, rate: 1e-3, seed: 1 };
    let mut model = Model::untrained(&Sizes { lengths: vec![PIXELS, 128, DIM], classes: OLD, sub_centers: 1 }, 1);
    train(&backend, &loss.clone().into(), &mut model, &part(&training, |j| j < OLD), &how, |_| Ok(()))?;
    score("25 classes", &model, &[("accuracy", &old_test)])?;
    let shape = Shape::new(64, OLD, DIM)?;
    let prototypes = flat(&model.prototypes.value).to_vec();
    let state = State::new(&loss, shape)?;
    Checkpoint::new(&state).with_tensor("prototypes", &[OLD, DIM], prototypes)?.save(out.join("25.safetensors"))?;

    // 16 classes more, from the network that knows the others
    let kept = Checkpoint::load(out.join("25.safetensors"))?;
    let few = first_of_each(&part(&training, |j| j >= OLD), FEW);
    let mut centers = ClassCenters::new(ALL, DIM)?;
    centers.add_directions(flat(&model.embed(&few)), &few.labels, None)?;
    let new = NewPrototypes::default().from_centers(shape, kept.tensor("prototypes", &[OLD, DIM])?, &centers)?;
    let grown = ClassMap::grow(OLD, ALL)?.checkpoint(&kept, &[("prototypes", Some(&new))])?;
    grown.save(out.join("41.safetensors"))?;

    let both = [("old classes", &old_test), ("new classes", &new_test)];
    let mut model = model.with_prototypes(grown.tensor("prototypes", &[ALL, DIM])?)?;
    score(&format!("41 classes, {FEW} images of each new one, no training"), &model, &both)?;
    train(&backend, &loss.clone().into(), &mut model, &training, &how, |_| Ok(()))?;
    score("41 classes, after training", &model, &both)?;

    // every fiftieth label is wrong: which rows lie far from their class?
    let mut labels = training.labels.clone();
    labels.iter_mut().step_by(50).for_each(|label| *label = (*label + 7) % ALL as u32);
    let embeddings = model.embed(&training);
    let mut counts = SubCenters::new(Shape::new(0, ALL, DIM)?, flat(&model.prototypes.value))?;
    counts.add(flat(&embeddings), &labels, None)?;
    let far = counts.dominant().outliers(flat(&embeddings), &labels, None, OUTLIER_ANGLE)?;
    let found = far.iter().filter(|outlier| outlier.row % 50 == 0).count();
    let (wrong, rest) = (labels.len().div_ceil(50), far.len() - found);
    println!("rows beyond 75°: {found} of {wrong} wrong labels, {rest} of {} others", labels.len() - wrong);

    // the negatives go: their labels too
    let negatives: Vec<usize> = (0..ALL).filter(|&j| appearance(j).1).collect();
    let map = ClassMap::without(ALL, &negatives)?;
    let smaller = model.with_prototypes(&map.values(flat(&model.prototypes.value), None)?)?;
    let mut rest = part(&test, |j| !appearance(j).1);
    rest.labels = map.relabel(&rest.labels, None)?.into_iter().map(|label| label as u32).collect();
    score(&format!("{} classes, without the negatives", map.new_classes()), &smaller, &[("accuracy", &rest)])
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

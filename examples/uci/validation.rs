//! Repeated cross-validation, on all cores.

use margin_softmax::Backend;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{
        Result,
        learner::{self, Model, Objective, Settings, Sizes, accuracy},
    },
    data::{Problem, standardised},
};

pub use crate::common::runs::{mean_deviation, parallel};

/// Outputs of every hidden layer.
pub const WIDTH: usize = 32;
/// Dimension of an embedding.
pub const DIM: usize = 16;
/// Rows of a step.
pub const BATCH: usize = 32;
/// Adam's first learning rate.
pub const RATE: f32 = 0.01;

/// Times through the training part unless told otherwise.
pub const EPOCHS: usize = 50;

/// How the cross-validation is done.
#[derive(Clone, Copy)]
pub struct Protocol {
    pub folds: usize,
    pub repeats: usize,
    pub epochs: usize,
    /// Of folds, first weights and order of the rows: the same for every loss.
    pub seed: u64,
}

/// The share of right answers in one repeat: every row is judged once, by a network that has not seen it.
pub fn repeat(
    backend: &Backend,
    problem: &Problem,
    objective: &Objective,
    layers: usize,
    protocol: &Protocol,
    repeat: usize,
) -> Result<f64> {
    let Protocol { folds, epochs, .. } = *protocol;
    let seed = protocol.seed.wrapping_mul(1_000_003).wrapping_add(repeat as u64).wrapping_mul(1_000_003);
    let fold_of = deal(&problem.set.labels, problem.classes, folds, seed);
    let lengths = [vec![problem.set.inputs.ncols()], vec![WIDTH; layers - 1], vec![DIM]].concat();
    let sizes = Sizes { lengths, classes: problem.classes, sub_centers: 1 };
    let mut right = 0.0;
    for fold in 0..folds {
        let (test, train): (Vec<usize>, Vec<usize>) = (0..fold_of.len()).partition(|&row| fold_of[row] == fold);
        let [train, test] = standardised(problem.set.select(&train), problem.set.select(&test));
        let seed = seed.wrapping_add(1 + fold as u64);
        let mut model = Model::untrained(&sizes, seed);
        let settings = Settings { epochs, batch: BATCH, rate: RATE, seed };
        learner::train(backend, objective, &mut model, &train, &settings, |_| Ok(()))?;
        right += accuracy(&model.judge(backend, &objective.loss, &test)?) * test.labels.len() as f64;
    }
    Ok(right / fold_of.len() as f64)
}

/// The fold of every row; each fold gets its share of every class.
pub fn deal(labels: &[u32], classes: usize, folds: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut fold_of = vec![0; labels.len()];
    let mut dealt = 0;
    for class in 0..classes {
        let mut rows: Vec<usize> = (0..labels.len()).filter(|&row| labels[row] as usize == class).collect();
        rows.shuffle(&mut rng);
        for row in rows {
            fold_of[row] = dealt % folds;
            dealt += 1;
        }
    }
    fold_of
}

//! Repeated cross-validation.

use clap::ValueEnum;
use margin_softmax::{Backend, Error, Shape};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    common::{
        Result,
        learner::{self, Model, Objective, Settings, Sizes, accuracy},
    },
    data::Problem,
};

/// Layers of the network of the table.
pub const LAYERS: usize = 3;
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

/// How the rows come into the folds.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Dealing {
    /// Of one shuffle of all rows, as the paper has it
    Random,
    /// Each fold gets its share of every class
    Stratified,
}

/// How the cross-validation is done.
#[derive(Clone, Copy)]
pub struct Protocol {
    /// How many.
    pub folds: usize,
    pub dealing: Dealing,
    pub repeats: usize,
    pub epochs: usize,
    /// Of folds, first weights and order of the rows: the same for every loss.
    pub seed: u64,
}

/// One repeat: every row is judged once, by a network that has not seen it.
pub struct Repeat {
    /// The share of right answers.
    pub share: f64,
    /// The same for each fold.
    pub folds: Vec<f64>,
}

/// Why a loss cannot have so many classes, if so.
pub fn refusal(backend: &Backend, problem: &Problem, objective: &Objective) -> Result<Option<String>> {
    match backend.head(&objective.loss, Shape::new(BATCH, problem.classes, DIM)?) {
        Ok(_) => Ok(None),
        Err(why @ Error::Combination { .. }) => Ok(Some(why.to_string())),
        Err(why) => Err(why.into()),
    }
}

/// Trains and judges a network per fold.
pub fn repeat(
    backend: &Backend,
    problem: &Problem,
    objective: &Objective,
    layers: usize,
    protocol: &Protocol,
    repeat: usize,
) -> Result<Repeat> {
    let Protocol { folds, epochs, dealing, .. } = *protocol;
    let seed = protocol.seed.wrapping_mul(1_000_003).wrapping_add(repeat as u64).wrapping_mul(1_000_003);
    let fold_of = deal(dealing, &problem.set.labels, problem.classes, folds, seed);
    let lengths = [vec![problem.set.inputs.ncols()], vec![WIDTH; layers - 1], vec![DIM]].concat();
    let sizes = Sizes { lengths, classes: problem.classes, sub_centers: 1 };
    let (mut right, mut shares) = (0.0, vec![]);
    for fold in 0..folds {
        let (test, train): (Vec<usize>, Vec<usize>) = (0..fold_of.len()).partition(|&row| fold_of[row] == fold);
        let [train, test] = problem.set.select(&train).standardised(problem.set.select(&test));
        let seed = seed.wrapping_add(1 + fold as u64);
        let mut model = Model::untrained(&sizes, seed);
        let settings = Settings { epochs, batch: BATCH, rate: RATE, seed };
        learner::train(backend, objective, &mut model, &train, &settings, |_| Ok(()))?;
        let share = accuracy(&model.judge(backend, &objective.loss, &test)?);
        right += share * test.labels.len() as f64;
        shares.push(share);
    }
    Ok(Repeat { share: right / fold_of.len() as f64, folds: shares })
}

/// The fold of every row.
pub fn deal(dealing: Dealing, labels: &[u32], classes: usize, folds: usize, seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut shuffled = |mut rows: Vec<usize>| {
        rows.shuffle(&mut rng);
        rows
    };
    let order: Vec<usize> = match dealing {
        Dealing::Random => shuffled((0..labels.len()).collect()),
        Dealing::Stratified => {
            let of = |class: usize| (0..labels.len()).filter(|&row| labels[row] as usize == class).collect();
            (0..classes).flat_map(|class| shuffled(of(class))).collect()
        }
    };
    let mut fold_of = vec![0; labels.len()];
    order.iter().enumerate().for_each(|(dealt, &row)| fold_of[row] = dealt % folds);
    fold_of
}

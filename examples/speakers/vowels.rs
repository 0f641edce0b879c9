//! Nine real speakers: closed-set identification on JapaneseVowels.
//! Origin, licence, and the script that made the file: examples/data/README.md.

use std::io::Read;

use flate2::read::GzDecoder;
use margin_softmax::Backend;
use ndarray::{Array2, Axis};

use crate::{
    common::{
        Result,
        learner::{self, Model, Set, Settings, Sizes, accuracy},
        runs::parallel,
    },
    experiments::Plan,
    losses::Setting,
};

const FILE: &[u8] = include_bytes!("../data/japanese_vowels.csv.gz");

/// Numbers of one utterance: mean, deviation and deviation of the slope of 12 cepstra.
pub const FEATURES: usize = 36;
pub const SPEAKERS: usize = 9;

const HIDDEN: usize = 64;
const DIM: usize = 16;
/// Rows of a step.
const BATCH: usize = 32;
const RATE: f32 = 3e-3;

/// The published parts: 270 utterances to train on, 370 to test on.
pub struct Utterances {
    pub train: Set,
    pub test: Set,
}

impl Utterances {
    /// Unpacks the embedded file; columns have mean 0 and deviation 1 over the training part.
    pub fn load() -> Result<Self> {
        let [train, test] = [part("train")?, part("test")?];
        let [train, test] = train.standardised(test);
        Ok(Self { train, test })
    }
}

fn part(name: &str) -> Result<Set> {
    read(GzDecoder::new(FILE), name)
}

fn read(file: impl Read, part: &str) -> Result<Set> {
    let (mut labels, mut values) = (vec![], vec![]);
    for row in csv::ReaderBuilder::new().has_headers(false).from_reader(file).records() {
        let row = row?;
        if row.get(FEATURES + 1).ok_or("japanese_vowels.csv.gz has a short line")? != part {
            continue;
        }
        labels.push(row[FEATURES].parse()?);
        for value in row.iter().take(FEATURES) {
            values.push(value.parse::<f32>()? * 1e-4);
        }
    }
    Ok(Set { inputs: Array2::from_shape_vec((labels.len(), FEATURES), values)?, labels })
}

/// Accuracies on the test part, %.
pub struct Vowels {
    /// By the cosine to the mean of each speaker's features, without any training.
    pub untrained: f64,
    /// Per loss, per seed.
    pub accuracies: Vec<(Setting, Vec<f64>)>,
}

/// The losses that are compared here.
pub fn settings(plan: &Plan) -> Vec<Setting> {
    let all = plan.margins.iter().flat_map(|&m| [Setting::aam(m), Setting::cheby(m), Setting::fit(m)]);
    [Setting::normface()].into_iter().chain(all).collect()
}

/// Trains every loss with every seed.
pub fn measure(backend: &Backend, plan: &Plan) -> Result<Vowels> {
    let Utterances { train, test } = Utterances::load()?;
    let (settings, repeats) = (settings(plan), plan.repeats);
    let sizes = Sizes { lengths: vec![FEATURES, HIDDEN, DIM], classes: SPEAKERS, sub_centers: 1 };
    let all = parallel(settings.len() * repeats, |job| {
        let (setting, seed) = (&settings[job / repeats], plan.seed.wrapping_add((job % repeats) as u64));
        let mut model = Model::untrained(&sizes, seed);
        let objective = setting.objective(plan.epochs, train.labels.len().div_ceil(BATCH))?;
        let how = Settings { epochs: plan.epochs, batch: BATCH, rate: RATE, seed };
        learner::train(backend, &objective, &mut model, &train, &how, |_| Ok(()))?;
        Ok(100.0 * accuracy(&model.judge(backend, &objective.loss, &test)?))
    })?;
    let accuracies = settings.into_iter().zip(all.chunks(repeats).map(<[_]>::to_vec)).collect();
    Ok(Vowels { untrained: 100.0 * nearest_mean(&train, &test), accuracies })
}

/// The share of test rows that are nearest to the mean of their own speaker.
fn nearest_mean(train: &Set, test: &Set) -> f64 {
    let mut means = Array2::<f32>::zeros((SPEAKERS, FEATURES));
    for (row, &label) in train.inputs.rows().into_iter().zip(&train.labels) {
        let mut mean = means.row_mut(label as usize);
        mean += &row;
    }
    // a cosine does not change with the length of a sum
    means.rows_mut().into_iter().for_each(|mut mean| mean /= mean.dot(&mean).sqrt().max(1e-12));
    let products = test.inputs.dot(&means.t());
    let right = products.axis_iter(Axis(0)).zip(&test.labels).filter(|(row, label)| {
        let nearest = (0..SPEAKERS).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        nearest == Some(**label as usize)
    });
    right.count() as f64 / test.labels.len().max(1) as f64
}

//! Polar collapse on handwritten digits, and what prevents it.

use margin_softmax::{Backend, MarginSoftmax, Others, Regularizer, Shape};

use crate::common::{
    Result,
    digits::{Digits, PIXELS, SEEN},
    learner::{self, Model, Objective, Settings, Sizes, accuracy},
    readings::{Reading, Watch},
};

/// Between pixels and embedding, one layer.
const HIDDEN: usize = 128;
const BATCH: usize = 64;
const EPOCHS: usize = 60;
const DIM: usize = 16;
/// Ten times that of the example `train`, so that prototypes can come far.
const RATE: f32 = 1e-2;

/// How a run went.
pub struct Trace {
    pub title: &'static str,
    /// Of every step.
    pub readings: Vec<Reading>,
    /// The first step with the library's collapse warning.
    pub warned: Option<usize>,
    /// On new images.
    pub accuracy: f64,
}

impl Trace {
    /// Per step: the mean target cosine of the batch, and the length of the mean prototype.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = [f64; 2]> {
        self.readings.iter().map(|reading| [reading.target_cosine, reading.mean_prototype])
    }
}

/// The runs: AmpFace as published, with m0 = 0.35 and s = 64, then with each of the two remedies of the same paper. Reg_ss
/// as the formula stands, and with ten times the weight.
pub fn variants() -> Vec<(&'static str, Objective)> {
    let plain = MarginSoftmax::ampface();
    let regularized = |weight| {
        let regularizer = Some(Regularizer::reg_ss().with_weight(weight));
        Objective { regularizer, ..plain.clone().into() }
    };
    vec![
        ("AmpFace alone", plain.clone().into()),
        ("Reg_ss, λ = 1", regularized(1.0)),
        ("Reg_ss, λ = 10", regularized(10.0)),
        ("WC-ReLU", plain.clone().with_others(Others::Rectified).into()),
    ]
}

/// Trains one of them and watches it.
pub fn watch(
    backend: &Backend,
    digits: &Digits,
    (title, objective): &(&'static str, Objective),
    seed: u64,
) -> Result<Trace> {
    let sizes = Sizes { lengths: vec![PIXELS, HIDDEN, DIM], classes: SEEN.len(), sub_centers: 1 };
    let mut model = Model::untrained(&sizes, seed);
    let settings = Settings { epochs: EPOCHS, batch: BATCH, rate: RATE, seed };
    let mut watch = Watch::new(format!("uci, {title}, seed {seed}"), Shape::new(BATCH, SEEN.len(), DIM)?, 1)?;
    learner::train(backend, objective, &mut model, &digits.train, &settings, |step| watch.step(backend, step))?;
    let accuracy = accuracy(&model.judge(backend, &objective.loss, &digits.test)?);
    Ok(Trace { title, readings: watch.readings, warned: watch.warned, accuracy })
}

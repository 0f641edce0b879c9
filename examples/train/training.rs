//! The losses and the loop: network forward, head, network backward, step.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use margin_softmax::{Backend, Batch, MarginSoftmax, Others, Output, Shape};
use ndarray::{Array2, ArrayView2, Axis};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    data::{Digits, SEEN},
    mlp::{Adam, Mlp, Parameter},
};

/// Rows of a step; the last step of an epoch has fewer.
const BATCH: usize = 64;

/// Papers use 30 to 64 for thousands of classes; eight need less.
const SCALE: f64 = 16.0;

/// A loss as this example trains it.
pub struct Loss {
    /// As `--loss` takes it; the library's name too.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    make: fn() -> MarginSoftmax,
}

/// Every loss of this example. The margins suit the scale and the few classes.
pub const LOSSES: &[Loss] = &[
    Loss { name: "normface", title: "NormFace", make: MarginSoftmax::normface },
    Loss { name: "arcface", title: "ArcFace", make: || MarginSoftmax::arcface().with_margin(|m| m.m2 = 0.3) },
    Loss { name: "cosface", title: "CosFace", make: || MarginSoftmax::cosface().with_margin(|m| m.m3 = 0.2) },
    // an amplitude alone pushes the others harder than it pulls the target: images end up opposite all prototypes
    Loss {
        name: "ampface",
        title: "AmpFace",
        make: || MarginSoftmax::ampface().with_margin(|m| m.m0 = 0.5).with_others(Others::Rectified),
    },
    Loss { name: "chebyaam", title: "ChebyAAM", make: || MarginSoftmax::cheby_aam().with_margin(|m| m.m2 = 0.3) },
];

impl Loss {
    /// The library's loss.
    pub fn make(&self) -> MarginSoftmax {
        (self.make)().with_scale(SCALE)
    }

    /// Margin and scale, for people.
    pub fn numbers(&self) -> String {
        let mut loss = self.make();
        let scale = loss.scale;
        let margins = loss.unified_mut().map_or(String::new(), |m| {
            let all = [("m0", m.m0, 1.0), ("m1", m.m1, 1.0), ("m2", m.m2, 0.0), ("m3", m.m3, 0.0)];
            let used = all.iter().filter(|(_, value, neutral)| value != neutral);
            used.map(|(name, value, _)| format!("{name} = {value}, ")).collect()
        });
        let others = if loss.others == Others::Rectified { ", WC-ReLU" } else { "" };
        format!("{margins}s = {scale}{others}")
    }
}

/// How to train.
#[derive(Clone, Copy)]
pub struct Settings {
    /// Times through the training images.
    pub epochs: usize,
    /// Of the first weights and of the order of the images.
    pub seed: u64,
    /// Length of an embedding.
    pub dim: usize,
}

/// What the example does unless told otherwise, and what the test checks.
pub const SETTINGS: Settings = Settings { epochs: 60, seed: 1, dim: 16 };

/// A network and its prototypes.
pub struct Model {
    pub mlp: Mlp,
    pub prototypes: Parameter,
}

impl Model {
    /// The same for every loss of one seed.
    pub fn untrained(settings: &Settings) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let mlp = Mlp::new(settings.dim, &mut rng);
        // the length of a prototype is free: around 1 keeps Adam's steps small turns
        let bound = (3.0 / settings.dim as f32).sqrt();
        Self { mlp, prototypes: Parameter::uniform(SEEN.len(), settings.dim, bound, &mut rng) }
    }
}

/// A trained model and how it got there.
pub struct Run {
    pub model: Model,
    /// The loss of the first step, then the mean loss of each epoch.
    pub losses: Vec<f64>,
    /// Of the mean step, the head included.
    pub step: Duration,
    /// Of the head in the mean step.
    pub head: Duration,
}

/// Trains from scratch; `after_epoch` is told the epoch's mean loss.
pub fn train(
    backend: &Backend,
    loss: &MarginSoftmax,
    digits: &Digits,
    settings: &Settings,
    mut after_epoch: impl FnMut(f64),
) -> Result<Run, Box<dyn Error>> {
    let set = &digits.train;
    let mut model = Model::untrained(settings);
    let mut head = backend.head(loss, Shape::new(BATCH, SEEN.len(), settings.dim)?)?;
    let mut out = Output::default();
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut order: Vec<usize> = (0..set.labels.len()).collect();
    let steps = settings.epochs * order.len().div_ceil(BATCH);
    let mut adam = Adam::new(steps);
    let (mut losses, mut step_time, mut head_time) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    for epoch in 1..=settings.epochs {
        order.shuffle(&mut rng);
        let mut sum = 0.0;
        for batch in order.chunks(BATCH) {
            let step_start = Instant::now();
            let labels: Vec<u32> = batch.iter().map(|&i| set.labels[i]).collect();
            let (embeddings, tape) = model.mlp.forward(set.pixels.select(Axis(0), batch));

            let head_start = Instant::now();
            let (embeddings, prototypes) = (flat(&embeddings), flat(&model.prototypes.value));
            head.evaluate_into(&Batch { embeddings, prototypes, labels: &labels, ..Default::default() }, &mut out)?;
            head_time += head_start.elapsed();
            if !out.loss.is_finite() {
                return Err(format!("the loss is {} in epoch {epoch}: {:?}", out.loss, out.counts).into());
            }

            adam.advance();
            let gradient = ArrayView2::from_shape((batch.len(), settings.dim), &out.grad_embeddings)?;
            model.mlp.backward(&tape, gradient, &adam);
            let gradient = ArrayView2::from_shape((SEEN.len(), settings.dim), &out.grad_prototypes)?;
            model.prototypes.step(gradient, &adam);
            step_time += step_start.elapsed();
            if losses.is_empty() {
                losses.push(f64::from(out.loss));
            }
            sum += f64::from(out.loss) * batch.len() as f64;
        }
        losses.push(sum / order.len() as f64);
        after_epoch(losses[epoch]);
    }
    Ok(Run { model, losses, step: step_time / steps as u32, head: head_time / steps as u32 })
}

/// The rows of a matrix one after the other, as the head takes them.
pub fn flat(matrix: &Array2<f32>) -> &[f32] {
    matrix.as_slice().expect("products of row-major matrices are row-major")
}

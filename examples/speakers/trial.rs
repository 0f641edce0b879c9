//! One run: training on the seen voices, then verification of the unseen ones.

use margin_softmax::{
    Backend, MarginSoftmax, Target,
    objective::{Coefficients, Curve, Damping, Series},
    verification::DetectionCost,
};
use ndarray::Array2;

use crate::{
    common::{
        Result,
        learner::{self, Model, Set, Settings, Sizes, Step},
        pairs,
        readings::{Reading, Watch},
        voices::{FEATURES, SEEN},
    },
    losses::Setting,
};

/// Between features and embedding, one layer.
pub const HIDDEN: usize = 128;
pub const DIM: usize = 32;
/// Rows of a step.
pub const BATCH: usize = 64;
/// Adam's first learning rate.
pub const RATE: f32 = 3e-3;
/// Times through the seen voices unless told otherwise.
pub const EPOCHS: usize = 35;

/// Both verification errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// Equal error rate, %.
    pub eer: f64,
    /// Normalised minimum detection cost at a prior of 0.01.
    pub min_dcf: f64,
}

impl Errors {
    /// Over all pairs of a set's embeddings, or of its features themselves.
    pub fn of(embeddings: &Array2<f32>, labels: &[u32]) -> Result<Self> {
        let curve = pairs::detection(embeddings, labels)?;
        let min_dcf = curve.min_detection_cost(&DetectionCost::VOXCELEB)?;
        Ok(Self { eer: 100.0 * curve.equal_error_rate(), min_dcf })
    }
}

/// The largest values of a step, over the rows of its batch.
pub const EXTREMES: [&str; 4] = ["|dφ/dcos|", "|dL/dcos|", "|dL/dx|", "gradient norm"];

/// In the order of `EXTREMES`: the slope of the target's curve; the derivative of a row's own loss by its target cosine; the
/// length of its derivative by the embedding; the norm of the batch's gradient to all weights of the network.
pub type Extremes = [f64; 4];

/// A run and its errors.
pub struct Trial {
    pub errors: Errors,
    /// One per step.
    pub steps: Vec<Extremes>,
    /// The least and the largest target cosine of the whole run.
    pub cosines: [f32; 2],
    /// Monitor readings of every epoch, and the step of the first collapse warning.
    pub readings: Vec<Reading>,
    pub warned: Option<usize>,
}

impl Trial {
    /// The largest of the whole run.
    pub fn largest(&self) -> Extremes {
        self.steps.iter().fold([0.0; 4], |most, step| std::array::from_fn(|k| most[k].max(step[k])))
    }
}

/// Sizes of the network for the voices.
pub fn sizes() -> Sizes {
    Sizes { lengths: vec![FEATURES, HIDDEN, DIM], classes: SEEN, sub_centers: 1 }
}

/// Trains and verifies. First weights and the order of the rows follow the seed alone.
pub fn run(backend: &Backend, setting: &Setting, seen: &Set, unseen: &Set, epochs: usize, seed: u64) -> Result<Trial> {
    let mut model = Model::untrained(&sizes(), seed);
    let settings = Settings { epochs, batch: BATCH, rate: RATE, seed };
    let steps_of_epoch = seen.labels.len().div_ceil(BATCH);
    let objective = setting.objective(epochs, steps_of_epoch)?;
    let name = format!("speakers, {}, scale {}, seed {seed}", setting.title(), setting.scale);
    let mut watch = Watch::new(name, model.shape(BATCH)?, steps_of_epoch)?;
    let mut steps: Vec<Extremes> = vec![];
    let mut cosines = [f32::INFINITY, f32::NEG_INFINITY];
    let course = learner::train(backend, &objective, &mut model, seen, &settings, |step| {
        steps.push(extremes(step));
        watch.step(backend, step)?;
        cosines = step.out.target_cosines.iter().fold(cosines, |[low, high], &c| [low.min(c), high.max(c)]);
        Ok(())
    })?;
    // known only once the step is over
    steps.iter_mut().zip(&course.network_gradients).for_each(|(step, &norm)| step[3] = norm);
    Ok(Trial {
        errors: Errors::of(&model.embed(unseen), &unseen.labels)?,
        steps,
        cosines,
        readings: watch.readings,
        warned: watch.warned,
    })
}

/// All but the last, which is not known yet.
fn extremes(step: &Step<'_>) -> Extremes {
    let loss = with_coefficients(step.loss);
    let (mut slope, mut logit) = (0.0_f64, 0.0_f64);
    for (&cosine, &row_loss) in step.out.target_cosines.iter().zip(&step.out.row_losses) {
        let own = loss.target_value_slope(cosine.into()).1.abs();
        // 1 − P of the label
        let missing = -(-f64::from(row_loss)).exp_m1();
        (slope, logit) = (slope.max(own), logit.max(loss.scale * own * missing));
    }
    let rows = step.labels.len();
    let length = |row: &[f32]| row.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    let dim = step.out.grad_embeddings.len() / rows.max(1);
    let lengths = step.out.grad_embeddings.chunks(dim.max(1)).map(length);
    // the loss is the mean over the rows
    [slope, logit, rows as f64 * lengths.fold(0.0, f64::max), 0.0]
}

/// The same loss with the coefficients of its series written out: it would compute them anew for every cosine.
pub fn with_coefficients(loss: &MarginSoftmax) -> MarginSoftmax {
    let mut loss = loss.clone();
    if let Target::Unified(margin) = &mut loss.target
        && let Curve::Series(series) = &margin.curve
    {
        let coefficients = Coefficients::Given(series.coefficients(margin.m1, margin.m2));
        margin.curve = Curve::Series(Series { degree: series.degree, coefficients, damping: Damping::None });
    }
    loss
}

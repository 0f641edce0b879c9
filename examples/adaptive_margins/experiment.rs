//! Training with a margin for each class, learned or the same for all.

use clap::ValueEnum;
use margin_softmax::{Backend, Batch, MarginSoftmax, Margins, Options, Output, Want, data::MarginGradients};
use ndarray::{Array2, ArrayView2};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::common::{
    Result,
    digits::{Digits, PIXELS, SEEN},
    learner::{Model, Set, Sizes, flat},
    mlp::{Adam, Parameter},
    progress::Progress,
};

/// Between pixels and embedding, one layer, as in the example `train`.
pub const HIDDEN: usize = 128;
pub const DIM: usize = 16;
pub const BATCH: usize = 64;
/// Of network and prototypes, and of the margins.
pub const RATE: f32 = 1e-3;
pub const MARGIN_RATE: f32 = 1e-2;
/// FaceX-Zoo's; it draws the margins from 0.3 to 0.4 at first.
pub const SCALE: f64 = 30.0;
pub const START: f32 = 0.35;
pub const CLASSES: usize = SEEN.len();
/// Of each class, in eighths: the paper's toy experiment has about 400, 200, 200 and five times 50 faces.
pub const PROPORTIONS: [usize; CLASSES] = [8, 4, 4, 1, 1, 1, 1, 1];

/// The margin that differs by class.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Kind {
    /// m3 of CosFace
    Cosine,
    /// m2 of ArcFace, in radians
    Angle,
}

impl Kind {
    /// Its place among m0..m3.
    fn place(self) -> usize {
        match self {
            Kind::Cosine => 3,
            Kind::Angle => 2,
        }
    }

    pub fn loss(self) -> MarginSoftmax {
        let loss = match self {
            Kind::Cosine => MarginSoftmax::cosface(),
            Kind::Angle => MarginSoftmax::arcface(),
        };
        loss.with_scale(SCALE)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Cosine => "m3, of the cosine",
            Kind::Angle => "m2, of the angle in radians",
        }
    }
}

/// A weight of the mean margin from the command line.
pub fn lambda(text: &str) -> Result<f64, String> {
    let allowed = "expected a number from 0 to 1e6";
    let value: f64 = text.parse().map_err(|_| allowed.to_owned())?;
    if (0.0..=1e6).contains(&value) { Ok(value) } else { Err(allowed.into()) }
}

/// The measurements.
#[derive(Clone)]
pub struct Plan {
    pub kind: Kind,
    pub lambdas: Vec<f64>,
    pub epochs: usize,
    pub repeats: usize,
    pub seed: u64,
}

/// How one run ended.
pub struct Run {
    /// The margins after each epoch, and before the first.
    pub margins: Vec<[f64; CLASSES]>,
    /// In the last epoch: the mean probability that the images of a class leave to other classes, margin included.
    pub wrong: [f64; CLASSES],
    /// The share of new images that are right, by class.
    pub right: [f64; CLASSES],
}

/// The runs of one λ; without it those of a margin that stays.
pub struct Variant {
    pub lambda: Option<f64>,
    pub runs: Vec<Run>,
}

impl Variant {
    pub fn title(&self) -> String {
        self.lambda.map_or_else(|| format!("{START} for all"), |lambda| format!("λ = {lambda}"))
    }

    /// The mean over the runs.
    pub fn mean(&self, of: impl Fn(&Run) -> f64) -> f64 {
        self.runs.iter().map(of).sum::<f64>() / self.runs.len() as f64
    }

    /// The deviation over the runs; none of one run.
    pub fn deviation(&self, of: impl Fn(&Run) -> f64) -> Option<f64> {
        let mean = self.mean(&of);
        let squares = self.runs.iter().map(|run| (of(run) - mean).powi(2)).sum::<f64>();
        (self.runs.len() > 1).then(|| (squares / (self.runs.len() - 1) as f64).sqrt())
    }
}

impl Run {
    /// A margin at the end.
    pub fn margin(&self, class: usize) -> f64 {
        self.margins.last().map_or(0.0, |last| last[class])
    }

    /// The mean over some classes of the share that is right.
    pub fn accuracy(&self, classes: &[usize]) -> f64 {
        classes.iter().map(|&class| self.right[class]).sum::<f64>() / classes.len() as f64
    }
}

/// Everything that was measured.
pub struct Results {
    pub device: String,
    pub plan: Plan,
    /// Training images of each class.
    pub counts: [usize; CLASSES],
    pub variants: Vec<Variant>,
}

impl Results {
    pub fn measure(backend: &Backend, plan: Plan) -> Result<Self> {
        let digits = Digits::load()?;
        let train = unbalanced(&digits.train);
        let mut counts = [0; CLASSES];
        train.labels.iter().for_each(|&label| counts[label as usize] += 1);
        let lambdas = [None].into_iter().chain(plan.lambdas.iter().copied().map(Some));
        let progress = Progress::new((1 + plan.lambdas.len()) * plan.repeats * plan.epochs);
        let variant = |lambda: Option<f64>| -> Result<Variant> {
            let mut variant = Variant { lambda, runs: vec![] };
            for repeat in 0..plan.repeats {
                let title = variant.title();
                let watch = |epoch: usize| progress.advance(|| format!("{title}, epoch {epoch}"));
                let seed = plan.seed.wrapping_add(repeat as u64);
                variant.runs.push(run(backend, &plan, lambda, (&train, &digits.test), seed, watch)?);
            }
            progress.line(|| format!("{}: {} runs", variant.title(), plan.repeats));
            Ok(variant)
        };
        let variants = lambdas.map(variant).collect::<Result<_>>()?;
        progress.finish();
        Ok(Self { device: backend.name(), plan, counts, variants })
    }

    /// λ/(s·C·share): where the probability of the other classes must be for the margin of a class to rest.
    pub fn rest(&self, lambda: f64, class: usize) -> f64 {
        let share = self.counts[class] as f64 / self.counts.iter().sum::<usize>() as f64;
        lambda / (SCALE * CLASSES as f64 * share)
    }
}

/// The first images of each class, in these proportions.
fn unbalanced(all: &Set) -> Set {
    let mut rows = vec![];
    for (class, eighths) in PROPORTIONS.into_iter().enumerate() {
        let own: Vec<usize> = (0..all.labels.len()).filter(|&i| all.labels[i] as usize == class).collect();
        rows.extend(&own[..own.len() * eighths / 8]);
    }
    all.select(&rows)
}

/// Trains and judges one model.
fn run(
    backend: &Backend,
    plan: &Plan,
    lambda: Option<f64>,
    (train, test): (&Set, &Set),
    seed: u64,
    watch: impl Fn(usize),
) -> Result<Run> {
    let (loss, place) = (plan.kind.loss(), plan.kind.place());
    let sizes = Sizes { lengths: vec![PIXELS, HIDDEN, DIM], classes: CLASSES, sub_centers: 1 };
    let mut model = Model::untrained(&sizes, seed);
    let want = Want::ALL.with_margins(MarginGradients::Classes);
    let mut head = backend.head_with(&loss, model.shape(BATCH)?, &Options { want, ..Options::default() })?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut margins = Parameter::uniform(1, CLASSES, 0.0, &mut rng);
    margins.value.fill(START);
    let mut order: Vec<usize> = (0..train.labels.len()).collect();
    let steps = plan.epochs * order.len().div_ceil(BATCH);
    let (mut adam, mut margin_adam) = (Adam::new(RATE, steps), Adam::new(MARGIN_RATE, steps));
    let mut out = Output::default();
    let mut course = vec![now(&margins)];
    let mut wrong = [0.0; CLASSES];
    for epoch in 1..=plan.epochs {
        order.shuffle(&mut rng);
        let mut pulls = [0.0; CLASSES];
        for rows in order.chunks(BATCH) {
            let Set { inputs, labels } = train.select(rows);
            let (embeddings, tape) = model.mlp.forward(inputs);
            let mut given = Margins::NONE;
            let own = if place == 3 { &mut given.m3 } else { &mut given.m2 };
            *own = Some(flat(&margins.value));
            let batch = Batch {
                embeddings: flat(&embeddings),
                prototypes: flat(&model.prototypes.value),
                labels: &labels,
                class_margins: given,
                ..Batch::default()
            };
            head.train_into(&batch, &mut out)?;
            if !out.loss.is_finite() {
                return Err(format!("the loss is {} in epoch {epoch}: {:?}", out.loss, out.counts).into());
            }
            adam.advance();
            margin_adam.advance();
            // dL/dm3 of a row is s·P of the other classes, divided by the rows of the batch
            for (pull, margins) in pulls.iter_mut().zip(out.grad_margins.chunks_exact(4)) {
                *pull += f64::from(margins[3]) / SCALE * labels.len() as f64;
            }
            let gradient = ArrayView2::from_shape(embeddings.raw_dim(), &out.grad_embeddings)?;
            model.mlp.backward(&tape, gradient, &adam);
            let gradient = ArrayView2::from_shape(model.prototypes.value.raw_dim(), &out.grad_prototypes)?;
            model.prototypes.step(gradient, &adam);
            if let Some(lambda) = lambda {
                let of = |class: usize| out.grad_margins[4 * class + place] - lambda as f32 / CLASSES as f32;
                let gradient = Array2::from_shape_fn((1, CLASSES), |(_, class)| of(class));
                margins.step(gradient.view(), &margin_adam);
                margins.value.mapv_inplace(|m| m.clamp(0.0, 1.0));
            }
        }
        course.push(now(&margins));
        for (class, wrong) in wrong.iter_mut().enumerate() {
            *wrong = pulls[class] / train.labels.iter().filter(|&&label| label as usize == class).count() as f64;
        }
        watch(epoch);
    }
    let judged = model.judge(backend, &loss, test)?;
    let right = std::array::from_fn(|class| {
        let own = || (0..test.labels.len()).filter(|&i| test.labels[i] as usize == class);
        let right = own().filter(|&i| judged.target_cosines[i] > judged.other_cosines[i]);
        right.count() as f64 / own().count().max(1) as f64
    });
    Ok(Run { margins: course, wrong, right })
}

fn now(margins: &Parameter) -> [f64; CLASSES] {
    std::array::from_fn(|class| f64::from(margins.value[[0, class]]))
}

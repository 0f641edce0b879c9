//! One run: a network trained with one loss, measured on what it was trained on, on other utterances of the same voices,
//! and on voices that it has never heard.

use crate::{
    common::{
        Result,
        learner::{self, Model, Objective, Set, Settings, Sizes, flat},
        pairs::detection,
        progress::Progress,
        readings::{Reading, Watch},
        runs::{mean_deviation, parallel},
        voices::SEEN,
    },
    data::Data,
};
use margin_softmax::{
    Backend, Regularizer, Shape,
    monitor::{Monitor, NearestAngles, Report},
    verification::DetectionCost,
};

/// Outputs of the hidden layer.
pub const HIDDEN: usize = 128;
/// Rows of a step.
pub const BATCH: usize = 64;
/// Adam's first learning rate.
pub const RATE: f32 = 1e-2;

/// A run before it is made.
#[derive(Clone)]
pub struct Job {
    /// For people, and in the readings.
    pub title: String,
    pub objective: Objective,
    /// Dimension of an embedding.
    pub dim: usize,
    /// Trains on the first of the voices only.
    pub voices: usize,
}

impl Job {
    pub fn new(title: impl Into<String>, objective: impl Into<Objective>, dim: usize) -> Self {
        Self { title: title.into(), objective: objective.into(), dim, voices: SEEN }
    }

    pub fn with_voices(mut self, voices: usize) -> Self {
        self.title = format!("{}, {voices} voices", self.title);
        self.voices = voices;
        self
    }

    pub fn with_regularizer(mut self, regularizer: Regularizer) -> Self {
        self.objective.regularizer = Some(regularizer);
        self
    }
}

/// A set of utterances of the trained voices, as the prototypes see it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub accuracy: f64,
    /// M_intra and M_inter, radians.
    pub intra: f64,
    pub inter: f64,
    pub target_cosine: f64,
}

impl From<&Report> for Seen {
    fn from(report: &Report) -> Self {
        let Report { accuracy, intra_angle: intra, inter_angle: inter, target_cosine, .. } = *report;
        Self { accuracy, intra, inter, target_cosine }
    }
}

/// A run after it.
#[derive(Clone)]
pub struct Outcome {
    pub train: Seen,
    pub test: Seen,
    /// Over all pairs of unseen voices' utterances.
    pub eer: f64,
    /// The lowest detection cost at the operating point of VoxCeleb, normalised.
    pub min_cost: f64,
    /// From the prototypes to their nearest neighbours.
    pub nearest: NearestAngles,
    pub mean_prototype: f64,
    /// The step of the library's first collapse warning.
    pub warned: Option<usize>,
    pub readings: Vec<Reading>,
    pub model: Model,
}

/// How all runs are made.
#[derive(Clone, Copy)]
pub struct Protocol {
    pub epochs: usize,
    /// First weights and orders, from `seed` on.
    pub repeats: usize,
    pub seed: u64,
}

impl Protocol {
    pub fn full(seed: u64) -> Self {
        Self { epochs: 60, repeats: 3, seed }
    }

    pub fn quick(seed: u64) -> Self {
        Self { epochs: 20, repeats: 1, seed }
    }
}

/// Trains and measures. The same seed gives every loss the same first weights and the same order.
fn run(backend: &Backend, data: &Data, job: &Job, protocol: &Protocol, seed: u64) -> Result<Outcome> {
    let sizes = Sizes { lengths: vec![data.inputs(), HIDDEN, job.dim], classes: job.voices, sub_centers: 1 };
    let mut model = Model::untrained(&sizes, seed);
    let [train, test] = [&data.train, &data.test].map(|set| first_voices(set, job.voices));
    // as many rows whatever the number of voices
    let epochs = protocol.epochs * data.train.labels.len() / train.labels.len().max(1);
    let shape = Shape::new(BATCH, job.voices, job.dim)?;
    let every = data.train.labels.len().div_ceil(BATCH);
    let mut watch = Watch::new(format!("margins, {}, seed {seed}", job.title), shape, every)?;
    let settings = Settings { epochs, batch: BATCH, rate: RATE, seed };
    learner::train(backend, &job.objective, &mut model, &train, &settings, |step| watch.step(backend, step))?;
    let seen = |set| -> Result<Seen> {
        let mut monitor = Monitor::new(1)?;
        monitor.add(&model.judge(backend, &job.objective.loss, set)?, &set.labels, None)?;
        Ok(Seen::from(&monitor.report()))
    };
    let curve = detection(&model.embed(&data.unseen), &data.unseen.labels)?;
    let prototypes = flat(&model.prototypes.value);
    Ok(Outcome {
        train: seen(&train)?,
        test: seen(&test)?,
        eer: curve.equal_error_rate(),
        min_cost: curve.min_detection_cost(&DetectionCost::VOXCELEB)?,
        nearest: backend.nearest_prototype_angles(job.dim, prototypes)?,
        mean_prototype: backend.mean_prototype(job.dim, prototypes)?,
        warned: watch.warned,
        readings: watch.readings,
        model,
    })
}

/// The rows of the voices below a label.
pub fn first_voices(set: &Set, voices: usize) -> Set {
    let rows: Vec<usize> = (0..set.labels.len()).filter(|&row| (set.labels[row] as usize) < voices).collect();
    set.select(&rows)
}

/// All repeats of all jobs, in their order, on all cores.
pub fn run_all(
    backend: &Backend,
    data: &Data,
    jobs: &[Job],
    protocol: &Protocol,
    progress: &Progress,
) -> Result<Vec<Vec<Outcome>>> {
    let repeats = protocol.repeats;
    let all = parallel(jobs.len() * repeats, |i| {
        let job = &jobs[i / repeats];
        let outcome = run(backend, data, job, protocol, protocol.seed.wrapping_add((i % repeats) as u64));
        progress.advance(|| job.title.clone());
        outcome.map_err(|why| format!("{}: {why}", job.title).into())
    })?;
    Ok(all.chunks(repeats).map(<[_]>::to_vec).collect())
}

/// One number of every repeat of a job: mean, and deviation where there are several.
pub fn over_repeats(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> (f64, Option<f64>) {
    mean_deviation(&outcomes.iter().map(of).collect::<Vec<_>>())
}

/// The mean alone.
pub fn mean(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> f64 {
    over_repeats(outcomes, of).0
}

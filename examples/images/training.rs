//! The runs: each loss from the same first weights, looked at after some epochs.

use std::time::{Duration, Instant};

use margin_softmax::{
    Backend, CenterLoss, MarginSoftmax, Options, Shape, Similarity, data::Inputs, monitor::ClassCenters,
};

use crate::{
    common::{
        Result,
        learner::{self, Model, Objective, Set, Settings, Sizes, flat},
        progress::Progress,
        readings::{Reading, Watch},
        runs::parallel,
    },
    data::Images,
};

/// Outputs of the hidden layer.
pub const HIDDEN: usize = 128;
/// Dimension of an embedding.
pub const DIM: usize = 32;
/// Adam's first learning rate.
pub const RATE: f32 = 1e-3;
/// Of Table V.
pub const TOP: usize = 5;
/// Bins of the angle histograms, degrees.
pub const BIN: f64 = 3.0;

/// A loss that is compared.
pub struct Loss {
    pub title: &'static str,
    /// Margin and scale, for people.
    pub numbers: &'static str,
    pub objective: Objective,
}

/// Those of the paper, softmax first: ArcGrad with the middle one of its scales 5, 10 and 30, ArcFace as in its Table I.
pub fn losses() -> Vec<Loss> {
    let loss = |title, numbers, loss: MarginSoftmax| {
        let objective = Objective { bias: false, ..loss.into() };
        Loss { title, numbers, objective }
    };
    let mut center = loss("Center", "λ = 0.02, α = 0.5", MarginSoftmax::softmax());
    center.objective.center = Some(CenterLoss::default());
    let arcface = MarginSoftmax::arcface().with_margin(|m| m.m2 = 0.1).with_scale(20.0);
    vec![
        loss("Soft", "w·x", MarginSoftmax::softmax()),
        center,
        loss("ArcGrad", "s = 10", MarginSoftmax::arcgrad().with_scale(10.0)),
        loss("ArcFace", "m = 0.1, s = 20", arcface),
        loss("AdaCos", "dynamic s", MarginSoftmax::adacos()),
    ]
}

/// How it is done.
#[derive(Clone)]
pub struct Protocol {
    /// The last is the number of epochs.
    pub marks: Vec<usize>,
    /// Of the training images; the last is 1.
    pub shares: Vec<f64>,
    pub seeds: Vec<u64>,
    /// Images of a step.
    pub batch: usize,
    /// How often the steps of every loss are timed, and on how many images.
    pub timing: (usize, usize),
}

impl Protocol {
    /// On Fashion-MNIST.
    pub fn full(seed: u64, seeds: u32) -> Self {
        Self {
            marks: vec![1, 2, 5, 10],
            shares: vec![0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0],
            seeds: (0..u64::from(seeds)).map(|i| seed.wrapping_add(i)).collect(),
            batch: 128,
            timing: (7, 6400),
        }
    }

    /// On the digits.
    pub fn quick(seed: u64, seeds: u32) -> Self {
        Self { shares: vec![0.1, 0.3, 1.0], batch: 16, timing: (3, 640), ..Self::full(seed, seeds) }
    }

    fn epochs(&self) -> usize {
        self.marks.last().copied().unwrap_or(1)
    }
}

/// The results on the test images after some epochs.
pub struct Mark {
    /// Shares of the test images: own class nearest; own class among the nearest five.
    pub top: [f64; 2],
    /// Of each test image, degrees: to the prototype of its class, and to the nearest other.
    pub own: Vec<f64>,
    pub other: Vec<f64>,
}

/// The means of angles of Table VI, radians.
#[derive(Clone, Copy)]
pub struct Spread {
    /// Between prototypes.
    pub w_inter: f64,
    /// Between the centers of the classes.
    pub c_inter: f64,
    /// Between the center and the prototype of a class.
    pub wc_intra: f64,
}

/// A loss with one seed on all training images.
pub struct Run {
    /// Per mark.
    pub marks: Vec<Mark>,
    /// Of the training and of the test images.
    pub spread: [Spread; 2],
    /// Of every epoch; none of a linear head, whose products are no cosines.
    pub readings: Vec<Reading>,
}

/// A training step, and the head in it.
#[derive(Clone, Copy)]
pub struct StepTime {
    pub step: Duration,
    pub head: Duration,
}

/// Everything that was measured.
pub struct Results {
    pub device: String,
    pub title: String,
    pub protocol: Protocol,
    pub losses: Vec<Loss>,
    /// [losses][seeds].
    pub runs: Vec<Vec<Run>>,
    /// [losses][shares][seeds]: top-1 on the test images.
    pub shares: Vec<Vec<Vec<f64>>>,
    /// Per loss.
    pub times: Vec<StepTime>,
}

impl Results {
    /// All of it.
    pub fn measure(backend: &Backend, images: &Images, protocol: Protocol) -> Result<Self> {
        let (losses, seeds) = (losses(), &protocol.seeds);
        let parts = &protocol.shares[..protocol.shares.len().saturating_sub(1)];
        let counts =
            [losses.len() * seeds.len(), losses.len() * seeds.len() * parts.len(), protocol.timing.0 * losses.len()];
        let progress = Progress::new(counts.iter().sum());

        let all = parallel(counts[0], |job| {
            let (loss, seed) = (&losses[job / seeds.len()], seeds[job % seeds.len()]);
            let run = run(backend, images, loss, &protocol, seed).map_err(|why| format!("{}: {why}", loss.title));
            progress.advance(|| format!("{}, seed {seed}", loss.title));
            Ok(run?)
        })?;
        progress.line(|| format!("{} runs on all images", counts[0]));
        let mut all = all.into_iter();
        let runs: Vec<Vec<Run>> = losses.iter().map(|_| all.by_ref().take(seeds.len()).collect()).collect();

        let all = parallel(counts[1], |job| {
            let (loss, rest) = (job / seeds.len() / parts.len(), job % (seeds.len() * parts.len()));
            let (share, seed) = (parts[rest / seeds.len()], seeds[rest % seeds.len()]);
            let set = images.share(share);
            let model = train(backend, images, &losses[loss], &set, (&protocol, seed), &mut None, |_, _| Ok(()))?;
            progress.advance(|| format!("{}, {} % of the images, seed {seed}", losses[loss].title, 100.0 * share));
            top(backend, &losses[loss], &model, &images.test).map(|[first, _]| first)
        })?;
        progress.line(|| format!("{} runs on shares of the images", counts[1]));
        let mut of_parts = all.chunks(seeds.len()).map(<[f64]>::to_vec);
        let last = |runs: &[Run]| runs.iter().filter_map(|run| run.marks.last()).map(|mark| mark.top[0]).collect();
        let shares =
            runs.iter().map(|runs| of_parts.by_ref().take(parts.len()).chain([last(runs)]).collect()).collect();

        let times = times(backend, images, &losses, &protocol, &progress)?;
        progress.finish();
        Ok(Self { device: backend.name(), title: images.title.clone(), protocol, losses, runs, shares, times })
    }
}

/// Trains one loss on a set; `look` is shown the model after each epoch and told which.
fn train(
    backend: &Backend,
    images: &Images,
    loss: &Loss,
    set: &Set,
    (protocol, seed): (&Protocol, u64),
    watch: &mut Option<Watch>,
    mut look: impl FnMut(usize, &Model) -> Result,
) -> Result<Model> {
    let sizes = Sizes { lengths: vec![set.inputs.ncols(), HIDDEN, DIM], classes: images.classes, sub_centers: 1 };
    let mut model = Model::untrained(&sizes, seed);
    let settings = Settings { epochs: protocol.epochs(), batch: protocol.batch, rate: RATE, seed };
    let steps = set.labels.len().div_ceil(settings.batch);
    learner::train(backend, &loss.objective, &mut model, set, &settings, |step| {
        if let Some(watch) = watch {
            watch.step(backend, step)?;
        }
        // a step shows the model before it moves: the first one of an epoch has that of the epoch before
        let before = step.number - 1;
        if before > 0 && before % steps == 0 { look(before / steps, step.model) } else { Ok(()) }
    })?;
    look(settings.epochs, &model)?;
    Ok(model)
}

fn run(backend: &Backend, images: &Images, loss: &Loss, protocol: &Protocol, seed: u64) -> Result<Run> {
    let mut marks = vec![];
    let steps = images.train.labels.len().div_ceil(protocol.batch);
    let shape = Shape::new(protocol.batch, images.classes, DIM)?;
    let mut watch = match loss.objective.loss.similarity {
        Similarity::Cosine => Some(Watch::new(format!("images, {}, seed {seed}", loss.title), shape, steps)?),
        Similarity::Dot => None,
    };
    let model = train(backend, images, loss, &images.train, (protocol, seed), &mut watch, |epoch, model| {
        if protocol.marks.contains(&epoch) {
            marks.push(mark(backend, loss, model, &images.test)?);
        }
        Ok(())
    })?;
    let of = |set| spread(backend, &model, set, images.classes);
    let readings = watch.map_or_else(Vec::new, |watch| watch.readings);
    Ok(Run { marks, spread: [of(&images.train)?, of(&images.test)?], readings })
}

fn mark(backend: &Backend, loss: &Loss, model: &Model, test: &Set) -> Result<Mark> {
    // cosines, for a linear head too
    let out = model.judge(backend, &MarginSoftmax::normface(), test)?;
    let degrees =
        |cosines: &[f32]| cosines.iter().map(|&c| f64::from(c).clamp(-1.0, 1.0).acos().to_degrees()).collect();
    let (own, other) = (degrees(&out.target_cosines), degrees(&out.other_cosines));
    Ok(Mark { top: top(backend, loss, model, test)?, own, other })
}

/// Shares of a set: own class nearest; own class among the nearest five.
fn top(backend: &Backend, loss: &Loss, model: &Model, set: &Set) -> Result<[f64; 2]> {
    let shape = model.shape(set.labels.len())?;
    let count = TOP.min(shape.classes());
    let mut predictor = backend.predictor(&loss.objective.loss, shape, count, &Options::default())?;
    let embeddings = model.embed(set);
    let nearest = predictor.predict(&Inputs::new(flat(&embeddings), flat(&model.prototypes.value)))?;
    let share = |most: usize| {
        let lists = nearest.classes.chunks(count).zip(&set.labels);
        let right = lists.filter(|(list, label)| list.iter().take(most).any(|class| class == *label)).count();
        right as f64 / set.labels.len() as f64
    };
    Ok([share(1), share(TOP)])
}

fn spread(backend: &Backend, model: &Model, set: &Set, classes: usize) -> Result<Spread> {
    let prototypes = flat(&model.prototypes.value);
    let mut centers = ClassCenters::new(classes, DIM)?;
    centers.add(flat(&model.embed(set)), &set.labels, None)?;
    Ok(Spread {
        w_inter: backend.mean_pair_angle(DIM, prototypes)?,
        c_inter: backend.mean_pair_angle(DIM, &centers.vectors())?,
        wc_intra: centers.mean_center_angle(prototypes)?,
    })
}

/// The losses in turn, one epoch on a part of the images each time, one at a time. The tenth of the steps that is the fastest
/// ends at the time that counts: other programs can only slow a step down.
fn times(
    backend: &Backend,
    images: &Images,
    losses: &[Loss],
    protocol: &Protocol,
    progress: &Progress,
) -> Result<Vec<StepTime>> {
    let (rounds, count) = protocol.timing;
    let set = images.train.select(&(0..count.min(images.train.labels.len())).collect::<Vec<_>>());
    let settings = Settings { epochs: 1, batch: protocol.batch, rate: RATE, seed: protocol.seeds[0] };
    let sizes = Sizes { lengths: vec![set.inputs.ncols(), HIDDEN, DIM], classes: images.classes, sub_centers: 1 };
    let mut all: Vec<[Vec<Duration>; 2]> = losses.iter().map(|_| Default::default()).collect();
    for _ in 0..rounds {
        for (loss, [steps, heads]) in losses.iter().zip(&mut all) {
            let mut model = Model::untrained(&sizes, settings.seed);
            let mut last: Option<Instant> = None;
            // from one look at the head's output to the next
            learner::train(backend, &loss.objective, &mut model, &set, &settings, |step| {
                steps.extend(last.map(|last| last.elapsed()));
                heads.push(step.head);
                last = Some(Instant::now());
                Ok(())
            })?;
            progress.advance(|| format!("{}, time of a step", loss.title));
        }
    }
    progress.line(|| format!("steps timed {rounds} times"));
    let fast = |times: &mut Vec<Duration>| {
        times.sort();
        times.get(times.len() / 10).copied().unwrap_or_default()
    };
    Ok(all.iter_mut().map(|[steps, heads]| StepTime { step: fast(steps), head: fast(heads) }).collect())
}

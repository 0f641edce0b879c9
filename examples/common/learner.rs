//! A network under a head, and the loop that trains both: network forward, head, network backward, step.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use margin_softmax::{
    Backend, Batch, CenterLoss, MarginSoftmax, Options, Output, Regularizer, Shape, Similarity, SliceHead, Want,
    objective::Schedules,
};
use ndarray::{Array2, ArrayView2, Axis, aview1};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    Result,
    mlp::{Adam, Mlp, Parameter},
};

/// Inputs and their classes.
pub struct Set {
    /// [rows, values of one input].
    pub inputs: Array2<f32>,
    /// [rows].
    pub labels: Vec<u32>,
}

impl Set {
    /// Some of the rows.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { inputs: self.inputs.select(Axis(0), rows), labels: rows.iter().map(|&i| self.labels[i]).collect() }
    }

    /// This set and another with mean 0 and deviation 1 of every column, as measured on this one.
    pub fn standardised(self, other: Self) -> [Self; 2] {
        let mean = self.inputs.mean_axis(Axis(0)).unwrap_or_default();
        let deviation = self.inputs.std_axis(Axis(0), 0.0).mapv(|d| d.max(1e-6));
        [self, other].map(|set| Self { inputs: (set.inputs - &mean) / &deviation, ..set })
    }
}

/// What is made small: a head's loss, and what may stand beside it.
#[derive(Clone)]
pub struct Objective {
    pub loss: MarginSoftmax,
    pub center: Option<CenterLoss>,
    pub regularizer: Option<Regularizer>,
    /// Where the loss changes over the steps: only numbers may differ from `loss`.
    pub schedule: Option<LossOfStep>,
    /// Of a linear head: whether it learns a bias.
    pub bias: bool,
}

/// The loss of a step, counted from 0.
pub type LossOfStep = Arc<dyn Fn(u64) -> Result<MarginSoftmax> + Send + Sync>;

impl Objective {
    /// The same with margins or a scale that change over the steps. Refuses schedules that the loss does not take where one of
    /// them begins or ends.
    pub fn scheduled(self, schedules: Schedules) -> Result<Self> {
        let Schedules { m0, m1, m2, m3, margin, scale, .. } = &schedules;
        let ends = [m0, m1, m2, m3, margin, scale].into_iter().flatten().flat_map(|s| [s.from, s.until]);
        ends.chain([0]).try_for_each(|step| schedules.apply(step, &mut self.loss.clone()))?;
        let end = self.loss.clone();
        let schedule = move |step| {
            let mut loss = end.clone();
            schedules.apply(step, &mut loss)?;
            Ok(loss)
        };
        Ok(Self { schedule: Some(Arc::new(schedule)), ..self })
    }

    /// Refuses numbers outside their ranges.
    pub fn check(&self) -> Result {
        self.loss.validate()?;
        self.center.iter().try_for_each(CenterLoss::validate)?;
        self.regularizer.iter().try_for_each(Regularizer::validate)?;
        Ok(())
    }

    fn learns_bias(&self) -> bool {
        self.bias && self.loss.similarity == Similarity::Dot
    }
}

impl From<MarginSoftmax> for Objective {
    fn from(loss: MarginSoftmax) -> Self {
        Self { loss, center: None, regularizer: None, schedule: None, bias: true }
    }
}

/// The sizes of a model.
#[derive(Clone)]
pub struct Sizes {
    /// Of the input, of each hidden layer, and of the embedding.
    pub lengths: Vec<usize>,
    pub classes: usize,
    /// Prototypes of a class.
    pub sub_centers: usize,
}

/// A network and its prototypes.
#[derive(Clone)]
pub struct Model {
    pub mlp: Mlp,
    /// [classes · sub_centers, dim].
    pub prototypes: Parameter,
    /// [1, classes]; only a linear head reads it.
    bias: Parameter,
    sizes: Sizes,
}

impl Model {
    /// Random weights; the same for every loss of one seed.
    pub fn untrained(sizes: &Sizes, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mlp = Mlp::new(&sizes.lengths, &mut rng);
        let dim = sizes.dim();
        // the length of a prototype is free: around 1 keeps Adam's steps small turns
        let bound = (3.0 / dim as f32).sqrt();
        let prototypes = Parameter::uniform(sizes.classes * sizes.sub_centers, dim, bound, &mut rng);
        let bias = Parameter::uniform(1, sizes.classes, 0.0, &mut rng);
        Self { mlp, prototypes, bias, sizes: sizes.clone() }
    }

    /// The same network under a head of other classes: prototypes [classes, dim], of which Adam knows nothing yet.
    pub fn with_prototypes(&self, prototypes: &[f32]) -> Result<Self> {
        let dim = self.sizes.dim();
        let sizes = Sizes { classes: prototypes.len() / dim, sub_centers: 1, ..self.sizes.clone() };
        let mut model = Self { mlp: self.mlp.clone(), ..Self::untrained(&sizes, 0) };
        model.prototypes.value = Array2::from_shape_vec((sizes.classes, dim), prototypes.to_vec())?;
        Ok(model)
    }

    /// The embeddings of a set.
    pub fn embed(&self, set: &Set) -> Array2<f32> {
        self.mlp.forward(set.inputs.clone()).0
    }

    /// What the head says of a set; no gradients. Raw cosines, or for a linear head products, tell who is right.
    pub fn judge(&self, backend: &Backend, loss: &MarginSoftmax, set: &Set) -> Result<Output> {
        let shape = self.shape(set.labels.len())?;
        let mut head = backend.head_with(loss, shape, &Options { want: Want::LOSS, ..Default::default() })?;
        Ok(head.evaluate(&self.batch(loss, flat(&self.embed(set)), &set.labels))?)
    }

    /// Of the head for a number of rows.
    pub fn shape(&self, rows: usize) -> Result<Shape> {
        self.sizes.shape(rows)
    }

    fn batch<'a>(&'a self, loss: &MarginSoftmax, embeddings: &'a [f32], labels: &'a [u32]) -> Batch<'a, u32> {
        let bias = (loss.similarity == Similarity::Dot).then(|| flat(&self.bias.value));
        Batch { embeddings, prototypes: flat(&self.prototypes.value), labels, bias, ..Default::default() }
    }
}

impl Sizes {
    /// Dimension of an embedding.
    pub fn dim(&self) -> usize {
        self.lengths.last().copied().unwrap_or(0)
    }

    fn shape(&self, rows: usize) -> Result<Shape> {
        Ok(Shape::new(rows, self.classes, self.dim())?.with_sub_centers(self.sub_centers)?)
    }
}

/// Share of the rows whose own class is strictly the nearest.
pub fn accuracy(out: &Output) -> f64 {
    let right = out.target_cosines.iter().zip(&out.other_cosines).filter(|(own, other)| own > other).count();
    right as f64 / out.target_cosines.len().max(1) as f64
}

/// How to train.
#[derive(Clone, Copy)]
pub struct Settings {
    /// Times through the set.
    pub epochs: usize,
    /// Rows of a step; the last step of an epoch may have fewer.
    pub batch: usize,
    /// Adam's first learning rate; it falls to 0 along half a cosine.
    pub rate: f32,
    /// Of the order of the rows and of ElasticFace's draws.
    pub seed: u64,
}

/// A step as it is seen before the weights move.
pub struct Step<'a> {
    /// From 1.
    pub number: usize,
    /// The loss of this step.
    pub loss: &'a MarginSoftmax,
    /// What the head said of the batch.
    pub out: &'a Output,
    /// How long the head took for it.
    pub head: Duration,
    pub labels: &'a [u32],
    pub model: &'a Model,
    /// The mean loss of the epoch that ends here.
    pub epoch: Option<f64>,
}

/// How training went.
pub struct Course {
    /// The loss of the first step, then the mean loss of each epoch.
    pub losses: Vec<f64>,
    /// Of each step: the norm of the gradient of all weights and biases of the network.
    pub network_gradients: Vec<f64>,
    /// Of the mean step, the head included.
    pub step: Duration,
    /// Of the head in the mean step.
    pub head: Duration,
}

/// Trains a model; `watch` sees every step.
pub fn train(
    backend: &Backend,
    objective: &Objective,
    model: &mut Model,
    set: &Set,
    settings: &Settings,
    mut watch: impl FnMut(&Step<'_>) -> Result,
) -> Result<Course> {
    let mut head = Head::new(backend, objective, model, settings)?;
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut order: Vec<usize> = (0..set.labels.len()).collect();
    let steps = settings.epochs * order.len().div_ceil(settings.batch);
    let mut adam = Adam::new(settings.rate, steps);
    let (mut losses, mut step_time, mut head_time) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    let mut network_gradients = Vec::with_capacity(steps);
    let mut number = 0;
    for epoch in 1..=settings.epochs {
        order.shuffle(&mut rng);
        let mut sum = 0.0;
        let mut left = order.len();
        for rows in order.chunks(settings.batch) {
            let step_start = Instant::now();
            let Set { inputs, labels } = set.select(rows);
            let (embeddings, tape) = model.mlp.forward(inputs);

            let head_start = Instant::now();
            let loss = head.step(number as u64, model, flat(&embeddings), &labels)?;
            let head_took = head_start.elapsed();
            head_time += head_took;
            if !loss.is_finite() {
                return Err(format!("the loss is {loss} in epoch {epoch}: {:?}", head.out.counts).into());
            }
            (number, left) = (number + 1, left - rows.len());
            sum += loss * rows.len() as f64;
            if losses.is_empty() {
                losses.push(loss);
            }
            let before_watch = step_start.elapsed();
            let epoch = (left == 0).then(|| sum / order.len() as f64);
            losses.extend(epoch);
            let (loss_of_step, out) = (&head.objective.loss, &head.out);
            watch(&Step { number, loss: loss_of_step, out, head: head_took, labels: &labels, model, epoch })?;

            let move_start = Instant::now();
            adam.advance();
            let gradient = ArrayView2::from_shape(embeddings.raw_dim(), &head.out.grad_embeddings)?;
            network_gradients.push(model.mlp.backward(&tape, gradient, &adam));
            head.move_prototypes(model, &adam)?;
            step_time += before_watch + move_start.elapsed();
        }
    }
    let mean = |sum: Duration| sum / (number as u32).max(1);
    Ok(Course { losses, network_gradients, step: mean(step_time), head: mean(head_time) })
}

/// The head, what stands beside it, and their gradients.
struct Head<'a> {
    backend: &'a Backend,
    objective: Objective,
    head: SliceHead,
    /// [classes, dim], of the center loss.
    centers: Vec<f32>,
    out: Output,
}

impl<'a> Head<'a> {
    fn new(backend: &'a Backend, objective: &Objective, model: &Model, settings: &Settings) -> Result<Self> {
        let objective = objective.clone();
        let want = if objective.learns_bias() { Want::ALL.with_bias() } else { Want::ALL };
        let options = Options { want, ..Default::default() };
        let mut head = backend.head_with(&objective.loss, model.sizes.shape(settings.batch)?, &options)?;
        head.set_state(&head.state().with_seed(settings.seed))?;
        let centers = vec![0.0; model.sizes.classes * model.sizes.dim()];
        Ok(Self { backend, objective, head, centers, out: Output::default() })
    }

    /// The whole loss of a batch. Its gradients are then in `out`.
    fn step(&mut self, step: u64, model: &Model, embeddings: &[f32], labels: &[u32]) -> Result<f64> {
        if let Some(schedule) = &self.objective.schedule {
            self.objective.loss = schedule(step)?;
            self.head.update(&self.objective.loss)?;
        }
        self.head.train_into(&model.batch(&self.objective.loss, embeddings, labels), &mut self.out)?;
        let mut loss = f64::from(self.out.loss);
        let dim = model.sizes.dim();
        if let Some(center) = &self.objective.center {
            let pull = self.backend.center_loss(center, dim, embeddings, labels, &self.centers)?;
            self.backend.update_centers(center, dim, embeddings, labels, &mut self.centers)?;
            loss += f64::from(pull.loss);
            self.out.grad_embeddings.iter_mut().zip(&pull.grad_embeddings).for_each(|(g, p)| *g += p);
        }
        if let Some(regularizer) = &self.objective.regularizer {
            let penalty = self.backend.regularize(regularizer, dim, flat(&model.prototypes.value))?;
            loss += f64::from(penalty.value);
            self.out.grad_prototypes.iter_mut().zip(&penalty.gradient).for_each(|(g, p)| *g += p);
        }
        Ok(loss)
    }

    fn move_prototypes(&mut self, model: &mut Model, adam: &Adam) -> Result {
        let gradient = ArrayView2::from_shape(model.prototypes.value.raw_dim(), &self.out.grad_prototypes)?;
        model.prototypes.step(gradient, adam);
        if self.objective.learns_bias() {
            model.bias.step(aview1(&self.out.grad_bias).insert_axis(Axis(0)), adam);
        }
        Ok(())
    }
}

/// The rows of a matrix one after the other, as the head takes them.
pub fn flat(matrix: &Array2<f32>) -> &[f32] {
    matrix.as_slice().expect("products of row-major matrices are row-major")
}

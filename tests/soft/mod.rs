//! Batches with several targets for each row, and the agreement of any backend with the reference on them.

#![allow(dead_code)] // every test target uses its own part

use margin_softmax::{
    Adaptive, Backend, Batch, Budget, Error, MarginSoftmax, Margins, Options, Others, Output, Reduction, Shape,
    Similarity, State, Target, Want, data::SoftLabels, reference,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::families;

/// Every gradient.
pub const WANT: Want = Want::ALL.with_scale().with_bias();

/// One label for each row in the place of soft labels, with weights and a divisor of its own.
#[derive(Clone, Copy)]
struct Separate<'a>(&'a [i64], Option<&'a [f64]>, Option<f64>);

/// A batch that owns its data.
#[derive(Clone, Debug)]
pub struct Problem {
    pub name: String,
    pub loss: MarginSoftmax,
    pub shape: Shape,
    pub state: State,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub labels: Vec<i64>,
    pub class_weights: Option<Vec<f32>>,
    pub row_weights: Option<Vec<f32>>,
    pub divisor: Option<f32>,
    pub upstream: Option<Vec<f32>>,
    pub bias: Option<Vec<f32>>,
    pub class_margins: [Option<Vec<f32>>; 4],
    pub row_margins: [Option<Vec<f32>>; 4],
    pub count: usize,
    pub classes: Vec<i32>,
    pub weights: Vec<f32>,
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

/// Whether one sum over the other classes serves all targets.
pub fn shares_others(loss: &MarginSoftmax) -> bool {
    let others = matches!(loss.others, Others::Identity | Others::Rectified | Others::Angle(_))
        || matches!(loss.others, Others::InterclassFilter(_) | Others::SimilarityAdjustment(_));
    others && !matches!(loss.adaptive, Adaptive::Length(_))
}

impl Problem {
    /// Random vectors, targets with equal ones and gaps among them, the label among them or not. `sizes`: rows, classes, dim,
    /// sub-centers, targets.
    pub fn new(name: &str, loss: &MarginSoftmax, [rows, classes, dim, centers, count]: [usize; 5], seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let linear = loss.similarity == Similarity::Dot;
        let centers = if linear { 1 } else { centers };
        let shape = Shape::new(rows, classes, dim).unwrap().with_sub_centers(centers).unwrap();
        let size = if linear { 0.3 } else { 1.0 };
        let mut vectors = |count: usize| -> Vec<f32> {
            let long = |i: usize| [0.4, 1.0, 7.0][i % 3] * size;
            (0..count * dim).map(|i| rng.random_range(-1.0..1.0) * long(i / dim)).collect()
        };
        let (x, w) = (vectors(rows), vectors(classes * centers));
        let mut class = || rng.random_range(0..classes as i64);
        let labels: Vec<i64> = (0..rows).map(|_| class()).collect();
        let (mut targets, mut weights) = (vec![], vec![]);
        for (i, &label) in labels.iter().enumerate() {
            for slot in 0..count {
                targets.push(match (i + slot) % 5 {
                    0 => label as i32,
                    1 if slot > 0 => targets[targets.len() - 1],
                    2 if i % 3 == 0 => -1,
                    _ => class() as i32,
                });
                weights.push(if (i * 7 + slot) % 6 == 5 { 0.0 } else { (1 + (i + 3 * slot) % 4) as f32 / 8.0 });
            }
        }
        let none = || [None, None, None, None];
        Self {
            name: format!("{name} {rows}x{classes}x{dim}x{centers} T {count}"),
            state: State::new(loss, shape).unwrap(),
            loss: loss.clone(),
            shape,
            x,
            w,
            labels,
            class_weights: None,
            row_weights: None,
            divisor: None,
            upstream: None,
            bias: linear.then(|| (0..classes).map(|j| (j % 7) as f32 * 0.2 - 0.5).collect()),
            class_margins: none(),
            row_margins: none(),
            count,
            classes: targets,
            weights,
        }
    }

    /// With the options that belong to this number, as far as the loss takes them.
    pub fn with_options(mut self, turn: usize) -> Self {
        let (rows, classes) = (self.labels.len(), self.shape.classes());
        let softmax = self.loss.link == Default::default();
        match turn % 4 {
            1 if softmax && self.loss.focal == 0.0 => self.loss.label_smoothing = 0.1,
            2 if softmax && self.loss.label_smoothing == 0.0 => self.loss.focal = 1.5,
            3 if softmax => self.loss.z_loss = 0.01,
            _ => {}
        }
        self.loss.reduction = [Reduction::Mean, Reduction::Sum, Reduction::None][turn % 3];
        if turn % 2 == 1 {
            self.class_weights = Some((0..classes).map(|j| [1.0, 0.3, 2.5, 0.0][j % 4]).collect());
        }
        if turn % 3 == 1 {
            self.row_weights = Some((0..rows).map(|i| [1.0, 0.5, 3.0][i % 3]).collect());
        }
        if turn % 5 == 2 {
            let count = if self.loss.reduction == Reduction::None { rows } else { 1 };
            self.upstream = Some((0..count).map(|i| 0.7 - 0.1 * (i % 5) as f32).collect());
        }
        if turn % 6 == 3 && self.loss.reduction == Reduction::Mean {
            self.divisor = Some(17.0);
        }
        if turn % 4 == 2 && matches!(self.loss.target, Target::Unified(_)) {
            self.class_margins[3] = Some((0..classes).map(|j| 0.05 * (j % 5) as f32).collect());
            self.row_margins[0] = Some((0..rows).map(|i| 1.0 - 0.02 * (i % 5) as f32).collect());
        }
        if turn % 5 == 1 && rows > 3 {
            self.loss.ignore_index = Some(-1);
            self.labels[2] = -1;
        }
        self.name += &format!(" options {turn}");
        self
    }

    /// Presets and families with options in turn, and shapes around every boundary: few classes, more than a tile, as many
    /// targets as classes.
    pub fn table() -> Vec<Self> {
        let losses = families::beside_presets().into_iter().chain(families::presets());
        let losses = losses.filter(|(_, loss)| shares_others(loss) && loss.validate().is_ok());
        let sizes = [[13, 40, 7, 1, 2], [9, 300, 12, 2, 5], [5, 70, 6, 1, 16], [6, 33, 5, 3, 3], [12, 90, 8, 1, 1]];
        let of = |(turn, (name, loss)): (usize, (String, MarginSoftmax))| {
            Self::new(&name, &loss, sizes[turn % sizes.len()], turn as u64).with_options(turn)
        };
        let mut all: Vec<Self> = losses.enumerate().map(of).collect();
        for (turn, sizes) in
            [[70, 1000, 24, 1, 2], [3, 3, 4, 1, 3], [130, 700, 16, 2, 4], [2, 5003, 9, 1, 16]].into_iter().enumerate()
        {
            let loss = MarginSoftmax::arcface().with_scale(20.0);
            all.push(Self::new("arcface", &loss, sizes, turn as u64).with_options(turn));
            let rectified = loss.with_others(Others::Rectified).with_label_smoothing(0.1);
            all.push(Self::new("rectified", &rectified, sizes, turn as u64).with_options(turn + 1));
        }
        all
    }

    pub fn soft(&self) -> SoftLabels<'_> {
        SoftLabels { count: self.count, classes: &self.classes, weights: &self.weights }
    }

    pub fn batch(&self) -> Batch<'_> {
        Batch {
            embeddings: &self.x,
            prototypes: &self.w,
            labels: &self.labels,
            class_weights: self.class_weights.as_deref(),
            row_weights: self.row_weights.as_deref(),
            divisor: self.divisor,
            upstream: self.upstream.as_deref(),
            bias: self.bias.as_deref(),
            class_margins: Margins::of(&self.class_margins),
            row_margins: Margins::of(&self.row_margins),
            soft_labels: Some(self.soft()),
        }
    }

    /// The reference with these labels and weights of the rows in the place of the soft labels.
    pub fn separate(&self, labels: &[i64], row_weights: Option<&[f64]>, divisor: Option<f64>) -> Output<f64> {
        self.try_reference(Some(Separate(labels, row_weights, divisor)))
            .unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn try_reference(&self, instead: Option<Separate<'_>>) -> Result<Output<f64>, Error> {
        let (x, w, weights) = (wide(&self.x), wide(&self.w), wide(&self.weights));
        let optional = |v: &Option<Vec<f32>>| v.as_deref().map(wide);
        let (class_weights, row_weights) = (optional(&self.class_weights), optional(&self.row_weights));
        let (upstream, bias) = (optional(&self.upstream), optional(&self.bias));
        let (by_class, by_row) =
            (self.class_margins.each_ref().map(optional), self.row_margins.each_ref().map(optional));
        let mut batch = Batch {
            embeddings: &x,
            prototypes: &w,
            labels: &self.labels,
            class_weights: class_weights.as_deref(),
            row_weights: row_weights.as_deref(),
            divisor: self.divisor.map(f64::from),
            upstream: upstream.as_deref(),
            bias: bias.as_deref(),
            class_margins: Margins::of(&by_class),
            row_margins: Margins::of(&by_row),
            soft_labels: Some(SoftLabels { count: self.count, classes: &self.classes, weights: &weights }),
        };
        if let Some(Separate(labels, row_weights, divisor)) = instead {
            (batch.labels, batch.row_weights, batch.divisor, batch.soft_labels) = (labels, row_weights, divisor, None);
        }
        reference::evaluate_with(&self.loss, self.shape, WANT, &batch, &self.state)
    }

    pub fn reference(&self) -> Output<f64> {
        self.try_reference(None).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    pub fn options(&self) -> Options {
        Options { want: WANT, soft_labels: Some(self.count), ..Options::default() }
    }

    pub fn run(&self, backend: &Backend, options: &Options) -> Output {
        let mut head =
            backend.head_with(&self.loss, self.shape, options).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        head.set_state(&self.state).unwrap();
        head.evaluate(&self.batch()).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// The smallest budget that a head accepts.
    pub fn least(&self, backend: &Backend) -> Options {
        let options = Options { budget: Budget::bytes(0), ..self.options() };
        match backend.head_with(&self.loss, self.shape, &options).err() {
            Some(Error::Budget { needed, .. }) => Options { budget: Budget::bytes(needed), ..options },
            other => panic!("{}: a budget of 0 bytes gave {other:?}", self.name),
        }
    }

    /// The classes that each row has in a slot, the label where it has none, with their weights times those of the rows.
    pub fn slot(&self, slot: usize) -> (Vec<i64>, Vec<f64>) {
        let of = |(i, &label): (usize, &i64)| {
            let (class, weight) = (self.classes[i * self.count + slot], self.weights[i * self.count + slot]);
            let row = self.row_weights.as_ref().map_or(1.0, |v| f64::from(v[i]));
            match self.loss.ignore_index == Some(label) || class < 0 {
                true => (label, 0.0),
                false => (i64::from(class), row * f64::from(weight)),
            }
        };
        self.labels.iter().enumerate().map(of).unzip()
    }
}

/// The gate of an engine in f32: a cosine error of 3e-7 times the scale and the steepest slope, 1e-5 for all other rounding.
pub fn gate(problem: &Problem, expected: &Output<f64>) -> f64 {
    let loss = &problem.loss;
    if loss.similarity == Similarity::Dot {
        let sizes = expected.target_cosines.iter().chain(&expected.other_cosines);
        return 1e-5 + 3e-7 * loss.scale * sizes.fold(1.0, |most, c| c.abs().max(most));
    }
    let mut most = 1.0_f64;
    let slots = (0..problem.count).map(|slot| problem.slot(slot).0);
    for labels in slots.chain([problem.labels.clone()]) {
        let cosines = problem.separate(&labels, None, None).target_cosines;
        most = cosines.iter().map(|&c| loss.target_value_slope(c).1.abs()).fold(most, f64::max);
    }
    let others = expected.other_cosines.iter().filter(|&&c| c > -1.0).map(|&c| loss.others.value_slope(c).1.abs());
    1e-5 + 3e-7 * loss.scale * others.fold(most, f64::max)
}

/// The first positions that differ by more than `gate`, relative to the size of a value or of the largest one.
fn assert_close(name: &str, found: &[f32], expected: &[f64], gate: f64, each: bool) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(1e-30_f64, |m, x| m.max(x.abs()));
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let size = if each { e.abs().max(1e-3 * largest) } else { largest };
        assert!((f64::from(f) - e).abs() <= gate * size, "{name}[{i}] = {f:e}, expected {e:e}, gate {gate:e}");
    }
}

impl Problem {
    /// Everything that an output holds against the reference.
    pub fn agrees(&self, how: &str, found: &Output, expected: &Output<f64>) {
        let (gate, name) = (gate(self, expected), format!("{} {how}", self.name));
        assert!(gate <= 1e-3, "{name}: a gate of {gate:e} proves nothing");
        assert_eq!(found.counts, expected.counts, "{name}");
        let check = |what, found: &[f32], expected: &[f64], gate, each| {
            assert_close(&format!("{name}: {what}"), found, expected, gate, each);
        };
        check("row_losses", &found.row_losses, &expected.row_losses, gate, true);
        check("loss", &[found.loss], &[expected.loss], gate, true);
        check("normalizer", &[found.normalizer], &[expected.normalizer], 1e-6, true);
        check("target_cosines", &found.target_cosines, &expected.target_cosines, 2e-6, false);
        check("other_cosines", &found.other_cosines, &expected.other_cosines, 2e-6, false);
        check("log_sum_exps", &found.log_sum_exps, &expected.log_sum_exps, gate, false);
        check("dX", &found.grad_embeddings, &expected.grad_embeddings, gate, false);
        check("dW", &found.grad_prototypes, &expected.grad_prototypes, gate, false);
        check("db", &found.grad_bias, &expected.grad_bias, gate, false);
        let size =
            expected.other_cosines.iter().fold(1.0_f64, |most, c| c.abs().max(most)) * expected.row_losses.len() as f64;
        let off = (f64::from(found.grad_scale) - expected.grad_scale).abs();
        assert!(
            off <= gate * expected.grad_scale.abs().max(size),
            "{name}: dL/ds {} not {}",
            found.grad_scale,
            expected.grad_scale
        );
    }
}

/// In the opposite order, `size` values at a time.
fn reversed<T: Clone>(values: &[T], size: usize) -> Vec<T> {
    values.chunks(size.max(1)).rev().flatten().cloned().collect()
}

/// The laws that soft labels obey on every engine.
impl Problem {
    /// With rows and classes in the opposite order.
    fn turned(&self) -> Self {
        let (dim, classes) = (self.shape.dim(), self.shape.classes());
        let turned = |class: i64| if class < 0 { class } else { classes as i64 - 1 - class };
        let one = |v: &Option<Vec<f32>>| v.as_ref().map(|v| reversed(v, 1));
        let mut new = self.clone();
        new.x = reversed(&self.x, dim);
        new.w = reversed(&self.w, dim * self.shape.sub_centers());
        new.labels = reversed(&self.labels, 1).into_iter().map(turned).collect();
        new.classes =
            reversed(&self.classes, self.count).into_iter().map(|class| turned(class.into()) as i32).collect();
        new.weights = reversed(&self.weights, self.count);
        (new.class_weights, new.row_weights) = (one(&self.class_weights), one(&self.row_weights));
        (new.upstream, new.bias) = (one(&self.upstream), one(&self.bias));
        new.class_margins = self.class_margins.each_ref().map(one);
        new.row_margins = self.row_margins.each_ref().map(one);
        new.name += ", turned";
        new
    }

    /// With each target twice, half of its λ each.
    fn halved(&self) -> Self {
        let mut new = self.clone();
        new.count = 2 * self.count;
        new.classes = self.classes.iter().flat_map(|&class| [class; 2]).collect();
        new.weights = self.weights.iter().flat_map(|&weight| [weight / 2.0; 2]).collect();
        new.name += ", halved";
        new
    }

    /// With every λ times 4.
    fn heavier(&self) -> Self {
        let mut new = self.clone();
        new.weights.iter_mut().for_each(|weight| *weight *= 4.0);
        new.name += ", heavier";
        new
    }

    /// Whether two outputs agree where the second one's losses and gradients are to be so many times those of the first.
    fn same(&self, found: &Output, expected: &Output, times: f64, gate: f64) {
        let wide = |v: &[f32], times: f64| v.iter().map(|&v| times * f64::from(v)).collect::<Vec<f64>>();
        let check = |what: &str, found: &[f32], expected: &[f32], times: f64| {
            assert_close(&format!("{}: {what}", self.name), found, &wide(expected, times), gate, false);
        };
        check("loss", &[found.loss], &[expected.loss], times);
        check("log_sum_exps", &found.log_sum_exps, &expected.log_sum_exps, 1.0);
        check("dX", &found.grad_embeddings, &expected.grad_embeddings, times);
        check("dW", &found.grad_prototypes, &expected.grad_prototypes, times);
        check("db", &found.grad_bias, &expected.grad_bias, times);
    }

    /// The order of rows and classes, a target in two halves, and the size of the λ change nothing that they should not.
    pub fn laws(&self, backend: &Backend) {
        let run = |problem: &Self| problem.run(backend, &problem.options());
        let (first, gate) = (run(self), 2.0 * gate(self, &self.reference()));
        if !families::draws(&self.loss) {
            let found = run(&self.turned());
            let (dim, all) = (self.shape.dim(), self.shape.sub_centers() * self.shape.dim());
            let classes = first.grad_bias.len() > 1;
            let back = Output {
                loss: found.loss,
                log_sum_exps: reversed(&found.log_sum_exps, 1),
                grad_embeddings: reversed(&found.grad_embeddings, dim),
                grad_prototypes: reversed(&found.grad_prototypes, all),
                grad_bias: if classes { reversed(&found.grad_bias, 1) } else { found.grad_bias.clone() },
                ..Output::default()
            };
            self.turned().same(&back, &first, 1.0, gate);
        }
        if 2 * self.count <= SoftLabels::<f32>::MAX {
            self.halved().same(&run(&self.halved()), &first, 1.0, 1e-6);
        }
        // a binary link's negatives do not follow λ
        if self.loss.link == Default::default() {
            let mean = self.loss.reduction == Reduction::Mean && self.divisor.is_none();
            self.heavier().same(&run(&self.heavier()), &first, if mean { 1.0 } else { 4.0 }, 1e-6);
        }
    }
}

//! The f64 oracle on slices: short, obvious, slow. The CPU and GPU paths are judged by it, and it is judged by finite
//! differences and by golden vectors.

mod monitor;
mod regularizer;

use std::ops::Range;

pub use monitor::{mean_pair_angle, mean_prototype};
pub use regularizer::{center_loss, regularize, update_centers};

use crate::{
    Batch, Error, GradientFilter, Label, MarginSoftmax, Options, Output, Result, Shape, State, Want,
    data::{Counts, Filtered, NO_COSINE},
    objective::{Binary, CheckedBatch, Prepared, RowFacts, SHORTEST, others::Place},
    shard::{RowStatistics, Statistics, Targets},
};

/// Loss and gradients of one batch in f64, everything N×C materialised; the state is that before the first step.
pub fn evaluate<L: Label>(
    loss: &MarginSoftmax,
    shape: Shape,
    want: Want,
    batch: &Batch<'_, L, f64>,
) -> Result<Output<f64>> {
    evaluate_with(loss, shape, want, batch, &State::new(loss, shape)?)
}

/// The same at any state.
pub fn evaluate_with<L: Label>(
    loss: &MarginSoftmax,
    shape: Shape,
    want: Want,
    batch: &Batch<'_, L, f64>,
    state: &State,
) -> Result<Output<f64>> {
    evaluate_or_train(loss, shape, want, batch, &mut state.clone(), false)
}

/// A training step: the state follows the batch first, then counts the step.
pub fn train<L: Label>(
    loss: &MarginSoftmax,
    shape: Shape,
    want: Want,
    batch: &Batch<'_, L, f64>,
    state: &mut State,
) -> Result<Output<f64>> {
    let mut next = *state;
    let out = evaluate_or_train(loss, shape, want, batch, &mut next, true)?;
    next.step += 1;
    *state = next;
    Ok(out)
}

fn evaluate_or_train<L: Label>(
    loss: &MarginSoftmax,
    shape: Shape,
    want: Want,
    batch: &Batch<'_, L, f64>,
    state: &mut State,
    follow: bool,
) -> Result<Output<f64>> {
    let loss = Prepared::new(loss, shape)?;
    state.validate(shape)?;
    let batch = batch.check(&loss, shape, &(0..shape.classes()))?;
    step(&loss, shape, &Options { want, ..Options::default() }, batch, state, follow)
}

/// One batch at a state, which follows it first if it is to.
pub(crate) fn step(
    loss: &Prepared,
    shape: Shape,
    options: &Options,
    batch: CheckedBatch<'_, f64>,
    state: &mut State,
    follow: bool,
) -> Result<Output<f64>> {
    let shard = Shard::of(loss, shape, 0..shape.classes(), batch)?.with_filter(options.filter);
    let targets = shard.targets(state);
    if follow {
        shard.follow(&targets, state);
    }
    let statistics = shard.statistics(&targets, state)?;
    shard.gradients(options.want, &targets, &statistics, state)
}

/// A batch and the classes of one shard. A whole head has one.
pub struct Shard<'a> {
    loss: Prepared,
    /// Of the shard; its rows are those of the batch.
    shape: Shape,
    range: Range<usize>,
    classes: usize,
    batch: CheckedBatch<'a, f64>,
    x: Directions,
    w: Directions,
    /// \[N, classes of the shard\]: the class' cosine, and the prototype it belongs to.
    cosines: Vec<(f64, usize)>,
    filter: Option<GradientFilter>,
}

impl<'a> Shard<'a> {
    /// `shape` is that of the whole head, and so are class weights and class margins; prototypes and bias are those of the
    /// classes in `range`.
    pub fn new<L: Label>(
        loss: &MarginSoftmax,
        shape: Shape,
        range: Range<usize>,
        batch: &Batch<'a, L, f64>,
        state: &State,
    ) -> Result<Self> {
        let loss = Prepared::new(loss, shape)?;
        state.validate(shape)?;
        let classes = shape.classes();
        if range.is_empty() || range.end > classes {
            let expected = range.start;
            return Err(Error::Shards { found: range, expected, classes });
        }
        let batch = batch.check(&loss, shape, &range)?;
        Self::of(&loss, shape, range, batch)
    }

    /// The same with everything checked.
    pub(crate) fn of(loss: &Prepared, shape: Shape, range: Range<usize>, batch: CheckedBatch<'a, f64>) -> Result<Self> {
        let (rows, dim, classes) = (batch.rows(), shape.dim(), shape.classes());
        let shape = Shape::new(rows, range.len(), dim)?.with_sub_centers(shape.sub_centers())?;
        let unit = !loss.is_linear();
        let x = Directions::new(batch.embeddings, dim, unit);
        let w = Directions::new(batch.prototypes, dim, unit);
        let k = shape.sub_centers();
        let mut cosines = Vec::with_capacity(rows * range.len());
        for i in 0..rows {
            for j in 0..range.len() {
                let cosine = |v: usize| dot(x.row(i), w.row(v)) + batch.bias.map_or(0.0, |b| b[j]);
                let first = (cosine(j * k), j * k);
                let larger = |best: (f64, usize), v| if cosine(v) > best.0 { (cosine(v), v) } else { best };
                cosines.push((j * k + 1..(j + 1) * k).fold(first, larger));
            }
        }
        Ok(Self { loss: loss.clone(), shape, range, classes, batch, x, w, cosines, filter: None })
    }

    /// With small entries of the gradient left out.
    pub fn with_filter(mut self, filter: Option<GradientFilter>) -> Self {
        self.filter = filter;
        self
    }

    fn ignored(&self, i: usize) -> bool {
        Some(self.batch.labels[i]) == self.loss.ignore_index
    }

    fn counts(&self, i: usize) -> bool {
        !self.ignored(i) && !self.x.non_finite[i]
    }

    /// Of a class of this shard.
    fn weight(&self, local: usize) -> f64 {
        self.batch.class_weights.map_or(1.0, |w| w[self.range.start + local])
    }

    /// The label's place in this shard.
    fn local(&self, i: usize) -> Option<usize> {
        let label = self.batch.labels[i] as usize;
        (!self.ignored(i) && self.range.contains(&label)).then(|| label - self.range.start)
    }

    /// The other classes of a row in this shard.
    fn others(&self, i: usize) -> impl Iterator<Item = usize> + Clone + '_ {
        let own = self.local(i);
        (0..self.range.len()).filter(move |&j| Some(j) != own)
    }

    fn cosine(&self, i: usize, j: usize) -> f64 {
        self.cosines[i * self.range.len() + j].0
    }

    /// Everything that this shard knows of the rows before margins apply.
    pub fn targets(&self, state: &State) -> Targets {
        let rows = 0..self.batch.rows();
        let best = |i: usize, k: usize| {
            let mut all: Vec<_> = self.others(i).map(|j| (self.cosine(i, j), self.range.start + j)).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            all.truncate(k);
            all
        };
        let sum = |i: usize| {
            let logits = self.others(i).map(|j| state.scale * self.cosine(i, j));
            let most = logits.clone().fold(f64::MIN, f64::max);
            [most, logits.map(|z| (z - most).exp()).sum()]
        };
        let top_k = self.loss.top_k();
        Targets {
            range: self.range.clone(),
            cosines: rows.clone().map(|i| self.local(i).map(|j| self.cosine(i, j))).collect(),
            top: if top_k > 0 { rows.clone().map(|i| best(i, top_k)).collect() } else { vec![] },
            top_count: top_k,
            sums: if self.loss.scale_follows() { rows.map(sum).collect() } else { vec![] },
            zero_prototypes: (0..self.shape.vectors()).filter(|&v| self.w.short(v)).count(),
            non_finite_prototypes: self.w.non_finite.iter().filter(|&&bad| bad).count(),
        }
    }

    fn facts(&self, targets: &Targets) -> Vec<RowFacts> {
        let fact = |i: usize| RowFacts {
            counts: self.counts(i),
            length: self.x.length[i],
            cosine: targets.cosines[i].unwrap_or(0.0),
        };
        (0..self.batch.rows()).map(fact).collect()
    }

    /// Moves the state to this step: a training step does so before anything else.
    pub fn follow(&self, targets: &Targets, state: &mut State) {
        targets.follow(&self.loss, &self.facts(targets), state);
    }

    /// The rows with their margins applied.
    fn rows(&self, targets: &Targets, state: &State) -> Vec<Row> {
        let facts = self.facts(targets);
        let own = self.loss.target.margins();
        let mut margins = self.batch.margins.clone().unwrap_or_else(|| vec![own; facts.len()]);
        self.loss.adaptive.apply(state, &facts, &mut margins);
        let target = self.loss.target_curve();
        let row = |(i, (fact, m)): (usize, (&RowFacts, [f64; 4]))| {
            let [value, slope, turn] = target.at(fact.cosine, m);
            let chosen = targets.chosen(&self.loss, i);
            Row {
                value,
                slope,
                turn,
                bound: chosen.map_or(self.loss.others.bound(fact.cosine, m[2]), |(cosine, _)| cosine),
                last: chosen.map_or(0, |(_, class)| class),
            }
        };
        facts.iter().zip(margins).enumerate().map(row).collect()
    }

    fn place(&self, row: &Row, j: usize) -> Place<f64> {
        Place { bound: row.bound, late: self.range.start + j > row.last }
    }

    /// The rows' sums over the other classes of this shard.
    pub fn statistics(&self, targets: &Targets, state: &State) -> Result<Statistics> {
        self.complete(targets)?;
        let (scale, other, binary) = (state.scale_of(&self.loss), self.loss.other(state.hardness), self.loss.binary());
        let rows = self.rows(targets, state);
        let statistics = |(i, row): (usize, &Row)| {
            let mut all = RowStatistics::EMPTY;
            let values = self.others(i).map(|j| (j, other(self.cosine(i, j), self.place(row, j)).0));
            all.most = match binary {
                None => values.clone().map(|(_, v)| scale * v).fold(all.most, f64::max),
                Some(_) => 0.0,
            };
            for (j, v) in values {
                all.nearest = all.nearest.max(self.cosine(i, j));
                match binary {
                    None => {
                        let e = (scale * v - all.most).exp();
                        all.sum += e;
                        all.tilt += e * v;
                        all.weighted += self.weight(j) * v;
                    }
                    Some(Binary { bias, .. }) => {
                        let z = scale * v + bias;
                        all.sum += softplus(z);
                        all.tilt += sigmoid(z) * v;
                        all.weighted += sigmoid(z);
                    }
                }
            }
            all
        };
        Ok(Statistics { range: self.range.clone(), rows: rows.iter().enumerate().map(statistics).collect() })
    }

    /// Whether merged targets are those of this batch.
    fn complete(&self, targets: &Targets) -> Result<()> {
        let shape = Shape::new(self.batch.rows(), self.classes, self.shape.dim())?;
        targets.check(&self.loss, shape, self.batch.rows())
    }

    /// The loss of the batch, dW of this shard, and its share of everything else: dX, and the gradients of scale and bias,
    /// which the shard from class 0 alone reports where they are sums over rows.
    pub fn gradients(
        &self,
        want: Want,
        targets: &Targets,
        statistics: &Statistics,
        state: &State,
    ) -> Result<Output<f64>> {
        self.complete(targets)?;
        let (n, classes, loss) = (self.batch.rows(), self.classes, &self.loss);
        statistics.check(loss, classes, n)?;
        let (scale, other) = (state.scale_of(loss), loss.other(state.hardness));
        let rows = self.rows(targets, state);
        let broken = targets.non_finite_prototypes > 0;
        let share = loss.label_smoothing / classes as f64;
        // of the label, which may lie in another shard
        let CheckedBatch { class_weights, upstream, labels, .. } = &self.batch;
        let weight = |i: usize| class_weights.map_or(1.0, |w| w[labels[i] as usize]);
        let weights = class_weights.map_or(classes as f64, |w| w.iter().sum());
        let counted = (0..n).filter(|&i| self.counts(i));
        let z = loss.normalizer(counted.clone().map(weight));
        let mut out = Output {
            row_losses: vec![0.0; n],
            target_cosines: vec![0.0; n],
            other_cosines: vec![NO_COSINE; n],
            counts: Counts {
                rows: counted.clone().count(),
                ignored: (0..n).filter(|&i| self.ignored(i)).count(),
                non_finite_rows: (0..n).filter(|&i| !self.ignored(i) && self.x.non_finite[i]).count(),
                invalid_labels: 0,
                zero_embeddings: counted.clone().filter(|&i| self.x.short(i)).count(),
                zero_prototypes: targets.zero_prototypes,
                non_finite_prototypes: targets.non_finite_prototypes,
            },
            ..Default::default()
        };
        // G[i][v] = dL/dc of row i with prototype v
        let vectors = self.shape.vectors();
        let mut g = vec![0.0_f64; n * vectors];
        let mut stretch = vec![0.0; n];
        let (mut grad_scale, mut grad_bias) = (0.0, 0.0);
        let entries = (out.counts.rows * self.range.len()) as u64;
        let mut filtered = Filtered { entries, ..Filtered::default() };
        for i in 0..n {
            if !self.counts(i) || broken {
                out.row_losses[i] = if self.ignored(i) { 0.0 } else { f64::NAN };
                continue;
            }
            let (row, sums, w) = (&rows[i], &statistics.rows[i], weight(i));
            let upstream = upstream.map_or(1.0, |up| if up.len() == 1 { up[0] } else { up[i] });
            // divided by z last: a tiny z must not overflow
            let gain = |pull: f64| if z > 0.0 { upstream * (pull / z) } else { 0.0 };
            out.target_cosines[i] = targets.cosines[i].unwrap_or(0.0);
            out.other_cosines[i] = sums.nearest.max(NO_COSINE);
            if loss.is_linear() && classes > 1 {
                out.other_cosines[i] = sums.nearest;
            }
            let pull = match loss.binary() {
                None => {
                    let zy = scale * row.value;
                    let log_others = if classes > 1 { sums.most + sums.sum.ln() } else { f64::NEG_INFINITY };
                    let d = log_others - zy;
                    let log_all = zy.max(log_others) + (-d.abs()).exp().ln_1p();
                    let mass = (1.0 - loss.label_smoothing) * w + share * weights;
                    let rest = share * (weights - w);
                    let smoothed = rest * row.value - share * sums.weighted;
                    out.row_losses[i] = mass * softplus(d) + scale * smoothed;
                    let mean = if classes > 1 { sums.tilt / sums.sum } else { row.value };
                    grad_scale += gain(mass * sigmoid(d) * (mean - row.value) + smoothed);
                    for j in self.others(i) {
                        let (value, slope) = other(self.cosine(i, j), self.place(row, j));
                        let p = (scale * value - log_all).exp();
                        let (_, v) = self.cosines[i * self.range.len() + j];
                        g[i * vectors + v] = scale * gain(mass * p - share * self.weight(j)) * slope;
                    }
                    rest - mass * sigmoid(d)
                }
                Some(Binary { weight: own, factor, bias }) => {
                    let (own, rest) = (w * factor * own, w * factor * (1.0 - own));
                    let zy = scale * row.value + bias;
                    out.row_losses[i] = own * softplus(-zy) + rest * sums.sum;
                    let pull = -own * sigmoid(-zy);
                    grad_scale += gain(pull * row.value + rest * sums.tilt);
                    grad_bias += gain(pull + rest * sums.weighted);
                    for j in self.others(i) {
                        let (value, slope) = other(self.cosine(i, j), self.place(row, j));
                        let (_, v) = self.cosines[i * self.range.len() + j];
                        g[i * vectors + v] = scale * gain(rest * sigmoid(scale * value + bias)) * slope;
                    }
                    pull
                }
            };
            if let Some(j) = self.local(i) {
                let (_, v) = self.cosines[i * self.range.len() + j];
                g[i * vectors + v] = scale * gain(pull) * row.slope;
            }
            if let Some(filter) = self.filter {
                let limit = filter.epsilon() * scale * gain(1.0).abs();
                for j in 0..self.range.len() {
                    let (_, v) = self.cosines[i * self.range.len() + j];
                    let g = &mut g[i * vectors + v];
                    filtered.total += g.abs();
                    if g.abs() < limit || *g == 0.0 {
                        filtered.dropped += g.abs();
                        *g = 0.0;
                    } else {
                        filtered.kept += 1;
                    }
                }
            }
            if let Some(family) = loss.length_term() {
                let length = self.x.length[i];
                let (value, slope) = family.length_term(length);
                out.row_losses[i] += w * value;
                // every shard knows the length, the first gives its gradient
                if self.range.start == 0 {
                    let rise = if family.length(length).1 { family.rise() } else { 0.0 };
                    stretch[i] = scale * gain(pull) * row.turn * rise + gain(w * slope);
                }
            }
        }
        // an empty sum of f64 is -0.0
        let sum = out.row_losses.iter().fold(0.0, |sum, loss| sum + loss);
        out.loss = if broken { f64::NAN } else { loss.reduced(sum, z) };
        let first = self.range.start == 0;
        out.filtered = self.filter.map(|_| filtered);
        if want.grad_embeddings {
            out.grad_embeddings = gradient(&self.x, &self.w, n, |i, v| g[i * vectors + v]);
            for (i, row) in out.grad_embeddings.chunks_exact_mut(self.shape.dim()).enumerate() {
                row.iter_mut().zip(self.x.row(i)).for_each(|(d, unit)| *d += stretch[i] * unit);
            }
        }
        if want.grad_prototypes {
            out.grad_prototypes = gradient(&self.w, &self.x, vectors, |v, i| g[i * vectors + v]);
        }
        if want.grad_scale && first {
            out.grad_scale = grad_scale;
        }
        if want.grad_bias {
            out.grad_bias = match (loss.is_linear(), loss.binary()) {
                (true, _) => (0..vectors).map(|j| (0..n).map(|i| g[i * vectors + j]).sum()).collect(),
                (false, Some(_)) => vec![if first { grad_bias } else { 0.0 }],
                _ => vec![],
            };
        }
        Ok(out)
    }
}

/// A row with its margins applied.
struct Row {
    /// φ, dφ/dx and dφ/dm2.
    value: f64,
    slope: f64,
    turn: f64,
    /// Of the transform of the other classes.
    bound: f64,
    last: usize,
}

/// The gradient to `count` vectors of `own` from dL/d(cosine with each vector of `others`): sum the directions, take out
/// the radial part, divide by the length.
fn gradient(own: &Directions, others: &Directions, count: usize, g: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(count * own.dim);
    for a in 0..count {
        let mut pull = vec![0.0; own.dim];
        for b in 0..others.non_finite.len() {
            let g = g(a, b);
            if g != 0.0 {
                pull.iter_mut().zip(others.row(b)).for_each(|(p, v)| *p += g * v);
            }
        }
        if !own.normalised {
            out.extend(if own.non_finite[a] { vec![0.0; own.dim] } else { pull });
            continue;
        }
        let radial = dot(&pull, own.row(a));
        let keep = !own.short(a) && !own.non_finite[a];
        out.extend(pull.iter().zip(own.row(a)).map(|(p, v)| if keep { (p - radial * v) / own.length[a] } else { 0.0 }));
    }
    out
}

/// Unit vectors, or for a linear head the vectors themselves, and what was left out on the way.
struct Directions {
    dim: usize,
    normalised: bool,
    unit: Vec<f64>,
    length: Vec<f64>,
    non_finite: Vec<bool>,
}

impl Directions {
    fn new(data: &[f64], dim: usize, normalised: bool) -> Self {
        let mut new =
            Self { dim, normalised, unit: Vec::with_capacity(data.len()), length: vec![], non_finite: vec![] };
        for v in data.chunks_exact(dim) {
            let bad = v.iter().any(|x| !x.is_finite());
            let length = v.iter().fold(0.0_f64, |h, x| h.hypot(*x));
            let divisor = if normalised { length.max(SHORTEST) } else { 1.0 };
            new.unit.extend(v.iter().map(|x| if bad { 0.0 } else { x / divisor }));
            new.length.push(length);
            new.non_finite.push(bad);
        }
        new
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.unit[i * self.dim..(i + 1) * self.dim]
    }

    /// A linear head divides by no length.
    fn short(&self, i: usize) -> bool {
        self.normalised && !self.non_finite[i] && self.length[i] < SHORTEST
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// log(1 + e^d) without losing a tiny result.
pub(crate) fn softplus(d: f64) -> f64 {
    d.max(0.0) + (-d.abs()).exp().ln_1p()
}

/// 1/(1 + e^−d).
pub(crate) fn sigmoid(d: f64) -> f64 {
    if d >= 0.0 { 1.0 / (1.0 + (-d).exp()) } else { d.exp() / (1.0 + d.exp()) }
}

//! A shard of a head, and all that it knows of the rows before their gradients.

use std::ops::Range;

use super::directions::{Directions, dot};
use crate::{
    Batch, Error, Label, MarginSoftmax, Result, Shape, State,
    data::GradientFilter,
    objective::{
        Binary, CheckedBatch, Prepared, RowFacts,
        others::{Place, RowTarget},
        sigmoid, softplus,
    },
    shard::{RowStatistics, Statistics, Targets},
};

/// A batch and the classes of one shard. A whole head has one.
pub struct Shard<'a> {
    pub(super) loss: Prepared,
    /// Of the shard; its rows are those of the batch.
    pub(super) shape: Shape,
    pub(super) range: Range<usize>,
    pub(super) classes: usize,
    pub(super) batch: CheckedBatch<'a, f64>,
    pub(super) x: Directions,
    pub(super) w: Directions,
    /// \[N, classes of the shard\]: the class' cosine, and the prototype it belongs to.
    pub(super) cosines: Vec<(f64, usize)>,
    pub(super) filter: Option<GradientFilter>,
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

    pub(super) fn ignored(&self, i: usize) -> bool {
        Some(self.batch.labels[i]) == self.loss.ignore_index
    }

    pub(super) fn counts(&self, i: usize) -> bool {
        !self.ignored(i) && !self.x.non_finite[i]
    }

    /// Of a class of this shard.
    pub(super) fn weight(&self, local: usize) -> f64 {
        self.batch.class_weights.map_or(1.0, |w| w[self.range.start + local])
    }

    /// The label's place in this shard.
    pub(super) fn local(&self, i: usize) -> Option<usize> {
        let label = self.batch.labels[i] as usize;
        (!self.ignored(i) && self.range.contains(&label)).then(|| label - self.range.start)
    }

    /// The other classes of a row in this shard.
    pub(super) fn others(&self, i: usize) -> impl Iterator<Item = usize> + Clone + '_ {
        let own = self.local(i);
        (0..self.range.len()).filter(move |&j| Some(j) != own)
    }

    pub(super) fn cosine(&self, i: usize, j: usize) -> f64 {
        self.cosines[i * self.range.len() + j].0
    }

    /// The prototype that the cosine of a class belongs to.
    pub(super) fn vector(&self, i: usize, j: usize) -> usize {
        self.cosines[i * self.range.len() + j].1
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

    /// Whether a class of this shard is a target of the row.
    pub(super) fn is_target(&self, i: usize, j: usize) -> bool {
        let class = self.range.start + j;
        let soft = self.batch.soft.as_ref().map_or(&[][..], |soft| soft.of(i).0);
        self.local(i) == Some(j) || soft.iter().flatten().any(|(other, _)| *other == class)
    }

    /// The rows' targets beside their labels: class, λ, and the margin applied.
    pub(super) fn soft_rows(&self, targets: &Targets, state: &State) -> Vec<Vec<(usize, f64, MarginRow)>> {
        let Some(soft) = &self.batch.soft else { return vec![vec![]; self.batch.rows()] };
        let facts = self.facts(targets);
        let mut all: Vec<_> = (0..facts.len()).map(|_| vec![]).collect();
        let own = self.loss.margins();
        for slot in 0..soft.count {
            let of = |margins: &Vec<[f64; 4]>| margins.iter().skip(slot).step_by(soft.count).copied().collect();
            let mut margins = soft.margins.as_ref().map_or_else(|| vec![own; facts.len()], of);
            self.loss.adapt_margins(state, &facts, &mut margins);
            for (i, m) in margins.into_iter().enumerate() {
                if let Some((class, weight)) = soft.of(i).0[slot] {
                    let cosine = self.cosine(i, class);
                    let [value, slope, slope_m2] = self.loss.target_curve().at(cosine, m);
                    all[i].push((class, weight, MarginRow { cosine, value, slope, slope_m2, bound: 0.0, last: 0 }));
                }
            }
        }
        all
    }

    /// The rows with their margins applied.
    pub(super) fn rows(&self, targets: &Targets, state: &State) -> Vec<MarginRow> {
        let facts = self.facts(targets);
        let own = self.loss.margins();
        let mut margins = self.batch.margins.clone().unwrap_or_else(|| vec![own; facts.len()]);
        self.loss.adapt_margins(state, &facts, &mut margins);
        let target = self.loss.target_curve();
        let row = |(i, (fact, m)): (usize, (&RowFacts, [f64; 4]))| {
            let [value, slope, slope_m2] = target.at(fact.cosine, m);
            let chosen = targets.chosen(&self.loss, i);
            MarginRow {
                value,
                slope,
                slope_m2,
                bound: chosen.map_or_else(
                    // a row that is not finite has no target to look at
                    || {
                        if fact.counts {
                            self.loss.others.bound(RowTarget { cosine: fact.cosine, value }, m[2])
                        } else {
                            0.0
                        }
                    },
                    |(cosine, _)| cosine,
                ),
                cosine: fact.cosine,
                last: chosen.map_or(0, |(_, class)| class),
            }
        };
        facts.iter().zip(margins).enumerate().map(row).collect()
    }

    pub(super) fn place(&self, row: &MarginRow, j: usize) -> Place<f64> {
        Place { bound: row.bound, target: row.cosine, late: self.range.start + j > row.last }
    }

    /// The scale of a row.
    pub(super) fn scale(&self, i: usize, state: &State) -> f64 {
        state.scale_of(&self.loss) * self.loss.length_factor(self.x.length[i]).0
    }

    /// The rows' sums over the other classes of this shard.
    pub fn statistics(&self, targets: &Targets, state: &State) -> Result<Statistics> {
        self.complete(targets)?;
        let rows = self.rows(targets, state);
        let statistics = |(i, row): (usize, &MarginRow)| self.sums(i, row, self.others(i), state);
        Ok(Statistics { range: self.range.clone(), rows: rows.iter().enumerate().map(statistics).collect() })
    }

    /// A row's sums over these classes.
    pub(super) fn sums(
        &self,
        i: usize,
        row: &MarginRow,
        classes: impl Iterator<Item = usize> + Clone,
        state: &State,
    ) -> RowStatistics {
        let (scale, other, binary) = (self.scale(i, state), self.loss.other(state.hardness), self.loss.binary());
        let mut all = RowStatistics::EMPTY;
        let values = classes.map(|j| (j, other(self.cosine(i, j), self.place(row, j)).0));
        all.max_logit = match binary {
            None => values.clone().map(|(_, v)| scale * v).fold(all.max_logit, f64::max),
            Some(_) => 0.0,
        };
        for (j, v) in values {
            all.nearest = all.nearest.max(self.cosine(i, j));
            match binary {
                None => {
                    let e = (scale * v - all.max_logit).exp();
                    all.sum += e;
                    all.value_sum += e * v;
                    all.weighted += self.weight(j) * v;
                }
                Some(Binary { bias, .. }) => {
                    let z = scale * v + bias;
                    all.sum += softplus(z);
                    all.value_sum += sigmoid(z) * v;
                    all.weighted += sigmoid(z);
                }
            }
        }
        all
    }

    /// Whether merged targets are those of this batch.
    pub(super) fn complete(&self, targets: &Targets) -> Result<()> {
        let shape = Shape::new(self.batch.rows(), self.classes, self.shape.dim())?;
        targets.check(&self.loss, shape, self.batch.rows())
    }
}

/// A row with its margins applied.
#[derive(Clone)]
pub(super) struct MarginRow {
    /// φ, dφ/dx and dφ/dm2.
    pub value: f64,
    pub slope: f64,
    pub slope_m2: f64,
    /// The target's.
    pub cosine: f64,
    /// Of the transform of the other classes.
    pub bound: f64,
    pub last: usize,
}

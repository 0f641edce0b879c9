//! The numbers of one row, in f64: the target's logit, the merge over classes, the loss, and what pass 2 needs.

use crate::{
    objective::{Binary, CheckedBatch, Prepared, sigmoid, softplus},
    shard::RowStatistics,
};

/// The class of a row that does not count.
const NOWHERE: usize = usize::MAX;

/// One row of the batch: what both sweeps read, in one line of the cache.
#[derive(Clone, Copy)]
pub(super) struct HeadRow {
    /// The labelled class among all, or [`NOWHERE`].
    pub class: usize,
    /// The target's cosine.
    pub cosine: f64,
    /// Its logit, scale included.
    pub logit: f64,
    /// dφ/dx at the target; between the passes dL/dφ.
    pub slope: f64,
    /// log Σ exp over all classes.
    pub log_all: f64,
    /// upstream · scale / Z · Σ_j q_j: what turns a probability, or σ(z) of a binary link, into G.
    pub strength: f64,
    /// The largest logit of the other classes, in f32 as pass 2 subtracts it.
    pub max_logit: f32,
    /// upstream · scale / Z · ε/C, for weights in the [`unit`].
    pub smoothing: f32,
    /// G at the target.
    pub pull: f32,
    /// Entries of G below this are left out, with a filter.
    pub limit: f32,
}

/// More numbers of a row; only some losses read them.
#[derive(Clone, Copy)]
pub(super) struct RowExtras {
    /// φ, without scale; between the passes what the row adds to dL/ds.
    pub value: f64,
    /// dφ/dm2; between the passes what the row adds to the dL/db of a binary link.
    pub slope_m2: f64,
    /// The labelled class' prototype with the largest cosine.
    pub center: u32,
    /// The bound of the other classes' transform, and the last class that may lie on it.
    pub bound: f32,
    /// The factor of the scale.
    pub factor: f32,
    pub last: u32,
    /// The largest value of the other classes.
    pub best: f32,
    /// The factor of the embedding's direction in the gradient of its length.
    pub length_gradient: f32,
    pub loss: f64,
}

impl RowExtras {
    pub const NONE: Self = Self {
        value: 0.0,
        slope_m2: 0.0,
        center: 0,
        bound: f32::INFINITY,
        factor: 1.0,
        last: 0,
        best: 0.0,
        length_gradient: 0.0,
        loss: 0.0,
    };

    /// The largest value of the other classes: a scale that is 0 in f32 leaves none; what is subtracted then is multiplied by 0 too.
    pub fn best_of(others: &RowStatistics, scale: f64) -> f32 {
        let best = (others.max_logit / f64::from(scale as f32)) as f32;
        if best.is_nan() { 0.0 } else { best }
    }
}

/// The contribution of a row to the batch.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub loss: f64,
    /// log Σ exp over all classes; 0 with a binary link.
    pub log_sum_exp: f64,
    /// dL/dφ, upstream, Z and scale included.
    pub pull: f64,
    /// To dL/ds.
    pub scale: f64,
    /// To the dL/db of a binary link.
    pub bias: f64,
}

impl HeadRow {
    /// A row with loss 0 or NaN and no gradient.
    pub const NONE: Self = Self::new(NOWHERE, 0.0);

    /// A row with its target cosine; 0 where the label lies in another shard.
    pub const fn new(class: usize, cosine: f64) -> Self {
        Self {
            class,
            cosine,
            logit: 0.0,
            slope: 0.0,
            log_all: 0.0,
            strength: 0.0,
            max_logit: 0.0,
            smoothing: 0.0,
            pull: 0.0,
            limit: 0.0,
        }
    }

    /// Whether the row is neither ignored nor non-finite.
    #[inline(always)]
    pub fn counts(&self) -> bool {
        self.class != NOWHERE
    }

    /// Whether f32 holds the logits of a linear head, the sums of them that are asked for, and the loss. Of a class at −∞ only
    /// `value_sum` knows.
    pub fn fits(&self, z_loss: f64, others: &RowStatistics, weights: Weights) -> bool {
        let held = |x: f64| x.abs() <= f64::from(f32::MAX);
        let (share, rest, mass) = weights.smoothed();
        let apart = if others.sum == 0.0 { 0.0 } else { (others.max_logit - self.logit).max(0.0) };
        let weighted = if weights.epsilon > 0.0 { others.weighted } else { 0.0 };
        let entropy = mass * apart + rest * self.logit - share * weights.scale * weighted;
        let square = weights.own() * z_loss * self.log_all(self.log_others(others)).powi(2);
        [self.cosine, self.logit, apart, entropy, entropy + square, others.value_sum, weighted].into_iter().all(held)
            && others.sum.is_finite()
            && (others.sum == 0.0 || held(others.max_logit))
    }

    /// The factor that turns exp(z − `max_logit`) into G: upstream · scale / Z · Σ_j q_j · exp(max_logit − log Σ exp).
    #[inline(always)]
    pub fn gain_at(&self, max_logit: f64) -> f32 {
        (self.strength * (max_logit - self.log_all).exp()) as f32
    }

    /// The numbers that the other classes of all these targets share, each with its λ: the sum of exp(z)·strength/Σ exp in units
    /// of the smallest Σ exp. The label, which comes first, knows them all with a `binary` link. `others`: no target among them.
    pub fn join(&mut self, targets: impl Iterator<Item = (Self, f64)> + Clone, others: &RowStatistics, binary: bool) {
        let counted = || targets.clone().filter(|(target, _)| target.counts());
        self.max_logit = others.max_logit as f32;
        if binary {
            self.strength = counted().next().map_or(0.0, |(label, _)| label.strength);
            return;
        }
        let weighed = || counted().filter(|(_, weight)| *weight > 0.0).map(|(target, _)| target);
        let least = weighed().map(|target| target.log_all).fold(f64::INFINITY, f64::min);
        (self.strength, self.log_all, self.smoothing) = (0.0, if least.is_finite() { least } else { 0.0 }, 0.0);
        for target in weighed() {
            self.strength += target.strength * (self.log_all - target.log_all).exp();
            self.smoothing += target.smoothing;
        }
    }

    /// log Σ exp over the other classes; −∞ where there are none.
    fn log_others(&self, others: &RowStatistics) -> f64 {
        // a NaN sum is no empty one
        if others.sum == 0.0 { f64::NEG_INFINITY } else { others.max_logit + others.sum.ln() }
    }

    /// And over all.
    fn log_all(&self, log_others: f64) -> f64 {
        // not logit + softplus(d), which cancels where the target lies far below the others
        self.logit.max(log_others) + (-(log_others - self.logit).abs()).exp().ln_1p()
    }

    /// The loss of a softmax, and what pass 2 needs to know. `part` is upstream / Z.
    pub fn finish(
        &mut self,
        loss: &Prepared,
        value: f64,
        others: &RowStatistics,
        weights: Weights,
        part: f64,
    ) -> Share {
        let (Weights { scale, unit, .. }, (share, rest, mass)) = (weights, weights.smoothed());
        // never divided by again: a subnormal scale has little precision
        let gain = part * scale;
        let log_others = self.log_others(others);
        let d = log_others - self.logit;
        self.log_all = self.log_all(log_others);
        let [focal, slope] = loss.focal_terms(d);
        // of the square of the log-sum-exp: by any logit, for each unit of its probability
        let along = 2.0 * weights.own() * loss.z_loss * self.log_all;
        let square = 0.5 * along * self.log_all;
        let pulled = mass * slope;
        self.strength = gain * (pulled + along);
        self.max_logit = others.max_logit as f32;
        self.smoothing = (gain * share * f64::from(unit)) as f32;
        let (wrong, right) = (sigmoid(d), sigmoid(-d));
        let pull = gain * (rest - pulled * wrong + along * right);
        self.pull = (pull * self.slope) as f32;
        let mean = if others.sum == 0.0 { value } else { others.value_sum / others.sum };
        let grad_scale = pulled * wrong * (mean - value) + rest * value - share * others.weighted;
        Share {
            loss: mass * focal * softplus(d) + rest * self.logit - share * scale * others.weighted + square,
            log_sum_exp: self.log_all,
            pull,
            scale: part * (grad_scale + along * (wrong * mean + right * value)),
            bias: 0.0,
        }
    }

    /// The same for a binary link; the bias is part of the logit. `parts`: factors on the label's term and on the others'.
    pub fn finish_binary(
        &mut self,
        value: f64,
        others: &RowStatistics,
        weights: Weights,
        link: Binary,
        parts: [f64; 2],
        part: f64,
    ) -> Share {
        let Binary { weight, factor, bias } = link;
        let both = weights.own() * factor;
        let (own, rest) = (both * weight * parts[0], both * (1.0 - weight) * parts[1]);
        let (logit, gain) = (self.logit + bias, part * weights.scale);
        self.strength = gain * rest;
        let pull = -own * sigmoid(-logit);
        self.pull = (gain * pull * self.slope) as f32;
        Share {
            loss: own * softplus(-logit) + rest * others.sum,
            log_sum_exp: 0.0,
            pull: gain * pull,
            scale: part * (pull * value + rest * others.value_sum),
            bias: part * (pull + rest * others.weighted),
        }
    }
}

/// The weights of one row's classes, and the loss's constants.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub scale: f64,
    /// Of the row.
    pub row: f64,
    /// Of the labelled class.
    class: f64,
    /// Summed over all classes.
    all: f64,
    /// The [`unit`] of the classes' weights.
    unit: f32,
    epsilon: f64,
    classes: usize,
}

impl Weights {
    /// Those of a row without a loss.
    pub fn equal(classes: usize, scale: f64) -> Self {
        Self { scale, row: 1.0, class: 1.0, all: classes as f64, unit: 1.0, epsilon: 0.0, classes }
    }

    /// Those of a row and its labelled class.
    pub fn of<'a>(
        batch: &CheckedBatch<'a>,
        classes: usize,
        scale: f64,
        epsilon: f64,
    ) -> impl Fn(usize, usize) -> Self + use<'a> {
        let (given, rows) = (batch.class_weights, batch.row_weights);
        let all = given.map_or(classes as f64, |w| w.iter().map(|&w| f64::from(w)).sum());
        let unit = if epsilon > 0.0 { unit(given) } else { 1.0 };
        let weight = |weights: Option<&[f32]>, i: usize| weights.map_or(1.0, |w| f64::from(w[i]));
        move |row, class| Self {
            scale,
            row: weight(rows, row),
            class: weight(given, class),
            all,
            unit,
            epsilon,
            classes,
        }
    }

    /// The weight of the row in Z.
    pub fn own(&self) -> f64 {
        self.row * self.class
    }

    /// Of the labelled class.
    pub fn class(&self) -> f64 {
        self.class
    }

    /// The share of label smoothing for each class, times the row's weight.
    pub fn share(&self) -> f64 {
        self.smoothed().0
    }

    /// The share of label smoothing for each class, for all but the labelled one, and the sum of their pulls; times the row's weight.
    fn smoothed(&self) -> (f64, f64, f64) {
        let share = self.epsilon / self.classes as f64;
        let (rest, mass) = (share * (self.all - self.class), (1.0 - self.epsilon) * self.class + share * self.all);
        (self.row * share, self.row * rest, self.row * mass)
    }
}

/// A power of two near the largest class weight: counted in it, neither the weights nor a row's part of the smoothing
/// leave f32 where their product does not.
pub(super) fn unit(weights: Option<&[f32]>) -> f32 {
    let largest = weights.map_or(1.0, |weights| weights.iter().fold(0.0, |largest, &w| w.max(largest)));
    // the exponent alone; 0 if every weight is 0
    f32::from_bits(largest.to_bits() & f32::INFINITY.to_bits()).max(f32::MIN_POSITIVE)
}

/// Statistics of one row over some of the other classes.
#[derive(Clone, Copy)]
pub(super) struct Partial {
    /// The largest logit, 0 with a binary link; −∞ before the first class.
    pub max_logit: f64,
    /// The largest cosine.
    pub nearest: f32,
    /// Σ exp(z − max_logit); with a binary link Σ softplus(z).
    pub sum: f64,
    /// The same sum with each term times its value; with a binary link Σ σ(z)·value.
    pub value_sum: f64,
    /// Σ weight · value, for label smoothing; with a binary link Σ σ(z).
    pub weighted: f64,
}

impl Partial {
    pub const EMPTY: Self =
        Self { max_logit: f64::NEG_INFINITY, nearest: f32::NEG_INFINITY, sum: 0.0, value_sum: 0.0, weighted: 0.0 };

    /// With more classes, at least one; the order of the calls decides the last bits.
    #[inline(always)]
    pub fn join(&mut self, max_logit: f64, [sum, value_sum]: [f64; 2], nearest: f32) {
        if max_logit > self.max_logit {
            let factor = (self.max_logit - max_logit).exp();
            (self.sum, self.value_sum) = (self.sum * factor + sum, self.value_sum * factor + value_sum);
            self.max_logit = max_logit;
        } else {
            let factor = (max_logit - self.max_logit).exp();
            (self.sum, self.value_sum) = (self.sum + sum * factor, self.value_sum + value_sum * factor);
        }
        self.nearest = self.nearest.max(nearest);
    }

    /// Both together.
    pub fn merged(mut self, other: &Self) -> Self {
        self.weighted += other.weighted;
        if other.max_logit > f64::NEG_INFINITY || other.sum.is_nan() {
            self.join(other.max_logit, [other.sum, other.value_sum], other.nearest);
        }
        self
    }

    /// As shards exchange it.
    pub fn wide(&self) -> RowStatistics {
        RowStatistics {
            max_logit: self.max_logit.max(f64::MIN),
            sum: self.sum,
            value_sum: self.value_sum,
            weighted: self.weighted,
            nearest: f64::from(self.nearest).max(f64::MIN),
        }
    }
}

//! The numbers of one row, in f64: the target's logit, the merge over classes, the loss, and what pass 2 needs.

use crate::{
    objective::{Binary, sigmoid, softplus},
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
    /// dφ/dx at the target.
    pub slope: f64,
    /// log Σ exp over all classes.
    log_all: f64,
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
    /// φ, without scale.
    pub value: f64,
    /// dφ/dm2.
    pub slope_m2: f64,
    /// The labelled class' prototype with the largest cosine.
    pub center: u32,
    /// The bound of the other classes' transform, and the last class that may lie on it.
    pub bound: f32,
    pub last: u32,
    /// The largest value of the other classes.
    pub best: f32,
    /// The factor of the embedding's direction in the gradient of its length.
    pub length_gradient: f32,
}

impl RowExtras {
    pub const NONE: Self =
        Self { value: 0.0, slope_m2: 0.0, center: 0, bound: f32::INFINITY, last: 0, best: 0.0, length_gradient: 0.0 };
}

/// The contribution of a row to the batch.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub loss: f64,
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
    pub fn fits(&self, others: &RowStatistics, weights: Weights) -> bool {
        let held = |x: f64| x.abs() <= f64::from(f32::MAX);
        let (share, rest, mass) = weights.smoothed();
        let apart = if others.sum == 0.0 { 0.0 } else { (others.max_logit - self.logit).max(0.0) };
        let weighted = if weights.epsilon > 0.0 { others.weighted } else { 0.0 };
        let loss = mass * apart + rest * self.logit - share * weights.scale * weighted;
        [self.cosine, self.logit, apart, loss, others.value_sum, weighted].into_iter().all(held)
            && others.sum.is_finite()
            && (others.sum == 0.0 || held(others.max_logit))
    }

    /// The factor that turns exp(z − `max_logit`) into G: upstream · scale / Z · Σ_j q_j · exp(max_logit − log Σ exp).
    #[inline(always)]
    pub fn gain_at(&self, max_logit: f64) -> f32 {
        (self.strength * (max_logit - self.log_all).exp()) as f32
    }

    /// The loss of a softmax, and what pass 2 needs to know. `part` is upstream / Z.
    pub fn finish(&mut self, value: f64, others: &RowStatistics, weights: Weights, part: f64) -> Share {
        let (Weights { scale, unit, .. }, (share, rest, mass)) = (weights, weights.smoothed());
        // never divided by again: a subnormal scale has little precision
        let gain = part * scale;
        // a NaN sum is no empty one
        let log_others = if others.sum == 0.0 { f64::NEG_INFINITY } else { others.max_logit + others.sum.ln() };
        let d = log_others - self.logit;
        // not logit + softplus(d), which cancels where the target lies far below the others
        self.log_all = self.logit.max(log_others) + (-d.abs()).exp().ln_1p();
        self.strength = gain * mass;
        self.max_logit = others.max_logit as f32;
        self.smoothing = (gain * share * f64::from(unit)) as f32;
        let pull = gain * (rest - mass * sigmoid(d));
        self.pull = (pull * self.slope) as f32;
        let mean = if others.sum == 0.0 { value } else { others.value_sum / others.sum };
        let grad_scale = mass * sigmoid(d) * (mean - value) + rest * value - share * others.weighted;
        Share {
            loss: mass * softplus(d) + rest * self.logit - share * scale * others.weighted,
            pull,
            scale: part * grad_scale,
            bias: 0.0,
        }
    }

    /// The same for a binary link; the bias is part of the logit.
    pub fn finish_binary(
        &mut self,
        value: f64,
        others: &RowStatistics,
        weights: Weights,
        link: Binary,
        part: f64,
    ) -> Share {
        let Binary { weight, factor, bias } = link;
        let both = weights.class_weight * factor;
        let (own, rest) = (both * weight, both * (1.0 - weight));
        let (logit, gain) = (self.logit + bias, part * weights.scale);
        self.strength = gain * rest;
        let pull = -own * sigmoid(-logit);
        self.pull = (gain * pull * self.slope) as f32;
        Share {
            loss: own * softplus(-logit) + rest * others.sum,
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
    /// Of the labelled class.
    pub class_weight: f64,
    /// Summed over all classes.
    pub all: f64,
    /// The [`unit`] of the classes' weights.
    pub unit: f32,
    pub epsilon: f64,
    pub classes: usize,
}

impl Weights {
    /// Those of a row by its labelled class.
    pub fn by_class(given: Option<&[f32]>, classes: usize, scale: f64, epsilon: f64) -> impl Fn(usize) -> Self {
        let all = given.map_or(classes as f64, |w| w.iter().map(|&w| f64::from(w)).sum());
        let unit = if epsilon > 0.0 { unit(given) } else { 1.0 };
        move |class| {
            let class_weight = given.map_or(1.0, |w| f64::from(w[class]));
            Self { scale, class_weight, all, unit, epsilon, classes }
        }
    }

    /// The share of label smoothing for each class, for all but the labelled one, and the sum of their pulls.
    fn smoothed(&self) -> (f64, f64, f64) {
        let share = self.epsilon / self.classes as f64;
        (share, share * (self.all - self.class_weight), (1.0 - self.epsilon) * self.class_weight + share * self.all)
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

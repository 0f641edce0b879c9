//! The numbers of one row, in f64: the target's logit, the merge over classes, the loss, and what pass 2 needs.

use crate::{objective::Binary, shard::RowStatistics};

/// The class of a row that does not count.
const NOWHERE: usize = usize::MAX;

/// One row of the batch: what both sweeps read, in one line of the cache.
#[derive(Clone, Copy, Default)]
pub(super) struct Row {
    /// The labelled class among all, or [`NOWHERE`].
    pub class: usize,
    /// The target's cosine.
    pub cosine: f64,
    /// Its logit, scale included.
    logit: f64,
    /// dφ/dx at the target.
    slope: f64,
    /// log Σ exp over all classes.
    log_all: f64,
    /// upstream · scale / Z · Σ_j q_j: what turns a probability into G.
    strength: f64,
    /// The largest logit of the other classes, in f32 as pass 2 subtracts it.
    pub most: f32,
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
    pub turn: f64,
    /// The labelled class' prototype with the largest cosine.
    pub center: u32,
    /// The bound of the other classes' transform, and the last class that may lie on it.
    pub bound: f32,
    pub last: u32,
    /// The largest value of the other classes.
    pub best: f32,
    /// The factor of the embedding's direction in the gradient of its length.
    pub stretch: f32,
}

impl RowExtras {
    pub const NONE: Self =
        Self { value: 0.0, turn: 0.0, center: 0, bound: f32::INFINITY, last: 0, best: 0.0, stretch: 0.0 };
}

/// The contribution of a row to the batch.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    pub loss: f64,
    /// dL/dφ, upstream, Z and scale included.
    pub pull: f64,
    /// To dL/ds.
    pub scale: f64,
    /// To the dL/db of a binary link.
    pub bias: f64,
}

impl Row {
    /// A row with loss 0 or NaN and no gradient.
    pub const NONE: Self = Self {
        class: NOWHERE,
        cosine: 0.0,
        logit: 0.0,
        slope: 0.0,
        log_all: 0.0,
        strength: 0.0,
        most: 0.0,
        smoothing: 0.0,
        pull: 0.0,
        limit: 0.0,
    };

    /// A row with its target cosine; 0 where the label lies in another shard.
    pub fn new(class: usize, cosine: f64) -> Self {
        Self { class, cosine, ..Self::NONE }
    }

    /// With its logit and slope.
    pub fn set_target(&mut self, logit: f64, slope: f64) {
        (self.logit, self.slope) = (logit, slope);
    }

    /// Whether the row is neither ignored nor non-finite.
    #[inline(always)]
    pub fn counts(&self) -> bool {
        self.class != NOWHERE
    }

    /// Whether f32 holds the logits of a linear head, the sums of them that are asked for, and the loss. Of a class at −∞ only
    /// `tilt` knows.
    pub fn fits(&self, others: &RowStatistics, weights: Weights) -> bool {
        let held = |x: f64| x.abs() <= f64::from(f32::MAX);
        let (share, rest, mass) = weights.smoothed();
        let apart = if others.sum == 0.0 { 0.0 } else { (others.most - self.logit).max(0.0) };
        let weighted = if weights.epsilon > 0.0 { others.weighted } else { 0.0 };
        let loss = mass * apart + rest * self.logit - share * weights.scale * weighted;
        [self.cosine, self.logit, apart, loss, others.tilt, weighted].into_iter().all(held)
            && others.sum.is_finite()
            && (others.sum == 0.0 || held(others.most))
    }

    /// The factor that turns exp(z − `most`) into G: upstream · scale / Z · Σ_j q_j · exp(most − log Σ exp).
    #[inline(always)]
    pub fn gain_at(&self, most: f64) -> f32 {
        (self.strength * (most - self.log_all).exp()) as f32
    }

    /// The factor that turns σ(z) into G with a binary link.
    #[inline(always)]
    pub fn binary(&self) -> f32 {
        self.strength as f32
    }

    /// The loss of a softmax, and what pass 2 needs to know. `part` is upstream / Z.
    pub fn finish(&mut self, value: f64, others: &RowStatistics, weights: Weights, part: f64) -> Share {
        let (Weights { scale, unit, .. }, (share, rest, mass)) = (weights, weights.smoothed());
        // never divided by again: a subnormal scale has little precision
        let gain = part * scale;
        // a NaN sum is no empty one
        let log_others = if others.sum == 0.0 { f64::NEG_INFINITY } else { others.most + others.sum.ln() };
        let d = log_others - self.logit;
        // not logit + softplus(d), which cancels where the target lies far below the others
        self.log_all = self.logit.max(log_others) + (-d.abs()).exp().ln_1p();
        self.strength = gain * mass;
        self.most = others.most as f32;
        self.smoothing = (gain * share * f64::from(unit)) as f32;
        let pull = gain * (rest - mass * sigmoid(d));
        self.pull = (pull * self.slope) as f32;
        let mean = if others.sum == 0.0 { value } else { others.tilt / others.sum };
        let tilt = mass * sigmoid(d) * (mean - value) + rest * value - share * others.weighted;
        Share {
            loss: mass * softplus(d) + rest * self.logit - share * scale * others.weighted,
            pull,
            scale: part * tilt,
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
            scale: part * (pull * value + rest * others.tilt),
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
    /// The share of label smoothing for each class, for all but the labelled one, and the sum of their pulls.
    fn smoothed(&self) -> (f64, f64, f64) {
        let share = self.epsilon / self.classes as f64;
        (share, share * (self.all - self.class_weight), (1.0 - self.epsilon) * self.class_weight + share * self.all)
    }
}

/// A power of two near the largest class weight: counted in it, neither the weights nor a row's part of the smoothing
/// leave f32 where their product does not.
pub(super) fn unit(weights: Option<&[f32]>) -> f32 {
    let most = weights.map_or(1.0, |weights| weights.iter().fold(0.0, |most, &w| w.max(most)));
    // the exponent alone; 0 if every weight is 0
    f32::from_bits(most.to_bits() & f32::INFINITY.to_bits()).max(f32::MIN_POSITIVE)
}

/// Statistics of one row over some of the other classes.
#[derive(Clone, Copy)]
pub(super) struct Partial {
    /// The largest logit, 0 with a binary link; −∞ before the first class.
    pub most: f64,
    /// The largest cosine.
    pub nearest: f32,
    /// Σ exp(z − most); with a binary link Σ softplus(z).
    pub sum: f64,
    /// The same sum with each term times its value; with a binary link Σ σ(z)·value.
    pub tilt: f64,
    /// Σ weight · value, for label smoothing; with a binary link Σ σ(z).
    pub weighted: f64,
}

impl Partial {
    pub const EMPTY: Self =
        Self { most: f64::NEG_INFINITY, nearest: f32::NEG_INFINITY, sum: 0.0, tilt: 0.0, weighted: 0.0 };

    /// With more classes, at least one; the order of the calls decides the last bits.
    #[inline(always)]
    pub fn join(&mut self, most: f64, [sum, tilt]: [f64; 2], nearest: f32) {
        if most > self.most {
            let factor = (self.most - most).exp();
            (self.sum, self.tilt) = (self.sum * factor + sum, self.tilt * factor + tilt);
            self.most = most;
        } else {
            let factor = (most - self.most).exp();
            (self.sum, self.tilt) = (self.sum + sum * factor, self.tilt + tilt * factor);
        }
        self.nearest = self.nearest.max(nearest);
    }

    /// Both together.
    pub fn merged(mut self, other: &Self) -> Self {
        self.weighted += other.weighted;
        if other.most > f64::NEG_INFINITY || other.sum.is_nan() {
            self.join(other.most, [other.sum, other.tilt], other.nearest);
        }
        self
    }

    /// As shards exchange it.
    pub fn wide(&self) -> RowStatistics {
        RowStatistics {
            most: self.most.max(f64::MIN),
            sum: self.sum,
            tilt: self.tilt,
            weighted: self.weighted,
            nearest: f64::from(self.nearest).max(f64::MIN),
        }
    }
}

/// log(1 + e^d) without losing a tiny result.
pub(super) fn softplus(d: f64) -> f64 {
    d.max(0.0) + (-d.abs()).exp().ln_1p()
}

/// 1/(1 + e^−d).
pub(super) fn sigmoid(d: f64) -> f64 {
    if d >= 0.0 { 1.0 / (1.0 + (-d).exp()) } else { d.exp() / (1.0 + d.exp()) }
}

//! What belongs to one row, in f64: the target's logit, the merge over classes, the loss, and what pass 2 needs.

use pulp::Arch;

use super::vector::DotLength;
use crate::objective::SHORTEST;

/// The class of a row that does not count.
const NOWHERE: usize = usize::MAX;

/// One row of the batch.
#[derive(Clone, Copy, Default)]
pub(super) struct Row {
    /// The labelled class, or [`NOWHERE`].
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
    /// upstream · scale / Z · ε/C.
    pub smoothing: f32,
    /// G at the target.
    pub pull: f32,
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
    };

    /// A row with its target cosine, logit and slope. The cosine is taken of the vectors as they came, all in f64.
    pub fn new(
        arch: Arch,
        class: usize,
        (x, length): (&[f32], f64),
        prototype: &[f32],
        (scale, target): (f64, &impl Fn(f64) -> (f64, f64)),
    ) -> Self {
        let (dot, other_length) = arch.dispatch(DotLength(x, prototype));
        let cosine = dot / (length.max(SHORTEST) * other_length.max(SHORTEST));
        let (value, slope) = target(cosine);
        Self { class, cosine, logit: scale * value, slope, ..Self::NONE }
    }

    /// Whether the row is neither ignored nor non-finite.
    #[inline(always)]
    pub fn counts(&self) -> bool {
        self.class != NOWHERE
    }

    /// What turns exp(z − `most`) into G: upstream · scale / Z · Σ_j q_j · exp(most − log Σ exp).
    #[inline(always)]
    pub fn gain_at(&self, most: f32) -> f32 {
        (self.strength * (f64::from(most) - self.log_all).exp()) as f32
    }

    /// The loss, and what pass 2 needs to know.
    pub fn finish(&mut self, others: &Partial, weights: Weights, gain: f64) -> f64 {
        let Weights { scale, class_weight, all, epsilon, classes } = weights;
        let log_others = if others.sum > 0.0 { f64::from(others.most) + others.sum.ln() } else { f64::NEG_INFINITY };
        let d = log_others - self.logit;
        let share = epsilon / classes as f64;
        let rest = share * (all - class_weight);
        let mass = (1.0 - epsilon) * class_weight + share * all;
        // not logit + softplus(d), which cancels where the target lies far below the others
        self.log_all = self.logit.max(log_others) + (-d.abs()).exp().ln_1p();
        self.strength = gain * mass;
        self.most = others.most;
        self.smoothing = (gain * share) as f32;
        self.pull = (gain * (rest - mass * sigmoid(d)) * self.slope) as f32;
        mass * softplus(d) + rest * self.logit - share * scale * others.weighted
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
    pub epsilon: f64,
    pub classes: usize,
}

/// Statistics of one row over some of the other classes.
#[derive(Clone, Copy)]
pub(super) struct Partial {
    /// The largest logit; −∞ before the first class.
    pub most: f32,
    /// The largest cosine.
    pub nearest: f32,
    /// Σ exp(z − most).
    pub sum: f64,
    /// Σ weight · value, for label smoothing.
    pub weighted: f64,
}

impl Partial {
    pub const EMPTY: Self = Self { most: f32::NEG_INFINITY, nearest: -1.0, sum: 0.0, weighted: 0.0 };

    /// With more classes; the order of the calls decides the last bits.
    #[inline(always)]
    pub fn join(&mut self, most: f32, sum: f64, nearest: f32) {
        if most > self.most {
            self.sum = self.sum * (f64::from(self.most) - f64::from(most)).exp() + sum;
            self.most = most;
        } else {
            self.sum += sum * (f64::from(most) - f64::from(self.most)).exp();
        }
        self.nearest = self.nearest.max(nearest);
    }

    /// Both together.
    pub fn merged(mut self, other: &Self) -> Self {
        self.weighted += other.weighted;
        if other.sum > 0.0 {
            self.join(other.most, other.sum, other.nearest);
        }
        self
    }
}

/// log(1 + e^d) without losing a tiny result.
fn softplus(d: f64) -> f64 {
    d.max(0.0) + (-d.abs()).exp().ln_1p()
}

/// 1/(1 + e^−d).
fn sigmoid(d: f64) -> f64 {
    if d >= 0.0 { 1.0 / (1.0 + (-d).exp()) } else { d.exp() / (1.0 + d.exp()) }
}

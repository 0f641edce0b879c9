//! What a run must keep from step to step.

use super::{Adaptive, MarginSoftmax, adaptive::first_scale};
use crate::{Error, Result, Shape};

/// Everything of a loss that a run must keep: step, seed and running statistics. Moved by `train` calls, only read by
/// evaluations.
///
/// With the same loss, data and backend a run that goes on from a saved state continues bit for bit. (`serde_json` reads
/// numbers to the last bit with its feature `float_roundtrip` only.)
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct State {
    /// Classes of the head that this state belongs to.
    pub classes: usize,
    /// Training steps so far.
    pub step: u64,
    /// Of ElasticFace's draws; default 0.
    pub seed: u64,
    /// t of CurricularFace, the running mean of the target cosine; starts at 0.
    pub hardness: f64,
    /// Mean of the embeddings' lengths (AdaFace); starts at 20.
    pub norm_mean: f64,
    /// Their standard deviation (AdaFace); starts at 100.
    pub norm_deviation: f64,
    /// The scale in force under dynamic AdaCos; starts at √2·log(C − 1). Otherwise the loss' own.
    pub scale: f64,
}

impl State {
    /// The state before the first step.
    pub fn new(loss: &MarginSoftmax, shape: Shape) -> Result<Self> {
        let scale = match loss.adaptive {
            Adaptive::AdaCos => first_scale(shape.classes())?,
            _ => loss.scale,
        };
        let classes = shape.classes();
        Ok(Self { classes, step: 0, seed: 0, hardness: 0.0, norm_mean: 20.0, norm_deviation: 100.0, scale })
    }

    /// With another seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Whether it can go on with a head of this shape.
    pub fn validate(&self, shape: Shape) -> Result<()> {
        if self.classes != shape.classes() {
            let (found, expected) = (vec![self.classes], vec![shape.classes()]);
            return Err(Error::Shape { what: "state", found, expected });
        }
        for (what, found, least, most, allowed) in [
            ("state.hardness", self.hardness, -1.0, 1.0, "-1 <= hardness <= 1"),
            ("state.norm_mean", self.norm_mean, 0.0, 1e30, "0 <= norm_mean <= 1e30"),
            ("state.norm_deviation", self.norm_deviation, 0.0, 1e30, "0 <= norm_deviation <= 1e30"),
            ("state.scale", self.scale, f64::from_bits(1), 1e6, "0 < scale <= 1e6"),
        ] {
            if !(least..=most).contains(&found) {
                return Err(Error::Parameter { what, found, allowed });
            }
        }
        Ok(())
    }

    /// The scale of a step: the state's under dynamic AdaCos, else the loss' own.
    pub(crate) fn scale_of(&self, loss: &MarginSoftmax) -> f64 {
        if loss.adaptive == Adaptive::AdaCos { self.scale } else { loss.scale }
    }
}

/// Scrambles a counter: SplitMix64's finaliser. Its values are part of what a saved state promises.
pub(crate) fn scramble(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A standard normal number that depends on its place alone.
pub(crate) fn normal(seed: u64, step: u64, row: u64) -> f64 {
    let key = scramble(scramble(scramble(seed) ^ step) ^ row);
    // in (0, 1] and [0, 1)
    let unit = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
    let (a, b) = (1.0 - unit(scramble(key)), unit(scramble(key ^ 1)));
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

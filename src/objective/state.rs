//! The numbers that a run must keep from step to step.

use super::{Adaptive, MarginSoftmax, adaptive::first_scale};
use crate::{Error, Result, Shape};

/// Everything of a loss that a run must keep: step, seed and running statistics. Moved by `train` calls, only read by
/// evaluations. A training step in which no row counts, or some prototype is not finite, adds to `step` and leaves every
/// other number as it is, bit for bit; so does any step with the numbers that its loss does not move. (A device holds f32:
/// a number that it does move is rounded.)
///
/// Every row that counts ([`Counts::rows`](crate::data::Counts::rows)) moves the statistics alike, whatever its class weight, 0
/// included, and whatever the upstream gradient. An ignored row moves nothing.
///
/// With the same loss, data and backend a run that goes on from a saved state continues bit for bit. In text formats such as
/// JSON its broken numbers are strings: readers may be off by the last digit of a plain number. Both are read.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct State {
    /// Classes of the head that this state belongs to.
    pub classes: usize,
    /// Training steps so far, at most 2⁶³.
    pub step: u64,
    /// Of ElasticFace's draws; default 0.
    pub seed: u64,
    /// t of CurricularFace, the running mean of the target cosine, −1 to 1; starts at 0.
    #[cfg_attr(feature = "serde", serde(with = "exact"))]
    pub hardness: f64,
    /// Mean of the embeddings' norms (AdaFace), 0 to 1e30; starts at 20.
    #[cfg_attr(feature = "serde", serde(with = "exact"))]
    pub norm_mean: f64,
    /// Their standard deviation (AdaFace), 0 to 1e30; starts at 100.
    #[cfg_attr(feature = "serde", serde(with = "exact"))]
    pub norm_deviation: f64,
    /// The scale in force under dynamic AdaCos, above 0 and at most 1e6; starts at √2·log(C − 1). No other loss uses it.
    #[cfg_attr(feature = "serde", serde(with = "exact"))]
    pub scale: f64,
}

/// The largest |hardness| after a step.
pub(crate) const MAX_HARDNESS: f64 = 1.0;
/// The largest |hardness| that is accepted: cosines in f32 may round to a little more than 1, and so did means that were
/// saved before devices clamped them.
pub(crate) const ACCEPTED_HARDNESS: f64 = MAX_HARDNESS + 1e-6;
/// The largest mean and deviation of the lengths.
pub(crate) const LONGEST_MEAN: f64 = 1e30;
/// The largest scale.
pub(crate) const LARGEST_SCALE: f64 = 1e6;

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
        let (one, longest) = (ACCEPTED_HARDNESS, LONGEST_MEAN);
        for (what, found, least, most, allowed) in [
            ("state.hardness", self.hardness, -one, one, "-1 <= hardness <= 1"),
            ("state.norm_mean", self.norm_mean, 0.0, longest, "0 <= norm_mean <= 1e30"),
            ("state.norm_deviation", self.norm_deviation, 0.0, longest, "0 <= norm_deviation <= 1e30"),
            ("state.scale", self.scale, f64::from_bits(1), LARGEST_SCALE, "0 < scale <= 1e6"),
            ("state.step", self.step as f64, 0.0, (1_u64 << 63) as f64, "0 <= step <= 2^63"),
        ] {
            if !(least..=most).contains(&found) {
                return Err(Error::Parameter { what, found, allowed });
            }
        }
        Ok(())
    }

    /// The scale of a step: the state's under dynamic AdaCos, else the loss' own.
    pub(crate) fn scale_of(&self, loss: &MarginSoftmax) -> f64 {
        if loss.scale_follows() { self.scale } else { loss.scale }
    }
}

/// A number that survives every format bit for bit.
#[cfg(feature = "serde")]
pub(crate) mod exact {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{Error, Visitor},
    };

    /// In text the shortest decimal number that reads back the same, as a string.
    pub(crate) fn serialize<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(number) } else { to.serialize_f64(*number) }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        if from.is_human_readable() { from.deserialize_any(Number) } else { from.deserialize_f64(Number) }
    }

    struct Number;

    impl Visitor<'_> for Number {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number, or a string that holds one")
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
            Ok(number)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
            Ok(number as f64)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
            Ok(number as f64)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
            text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }
}

//! How far prototypes lie from the nearest other one.

use super::angle;
use crate::data::Predictions;

/// The angles from every prototype to the nearest of the others, in radians.
///
/// Random prototypes have the mean [`nearest_prototype_angle`](crate::theory::nearest_prototype_angle) and, if there are
/// many, about the least [`closest_pair_asymptote`](crate::theory::closest_pair_asymptote).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct NearestAngles {
    /// Mean over the prototypes.
    pub mean: f64,
    /// That of the closest pair.
    pub least: f64,
}

/// Sums over any number of chunks of prototypes.
pub(crate) struct NearestSums {
    count: u64,
    sum: f64,
    /// The largest cosine to another prototype.
    largest: Option<f64>,
    /// A value is NaN or infinite.
    broken: bool,
}

impl NearestSums {
    /// Before the first chunk. A single prototype has no nearest one, so here is the only place that looks at it.
    pub(crate) fn new(dim: usize, prototypes: &[f32]) -> Self {
        let broken = prototypes.len() <= dim && prototypes.iter().any(|v| !v.is_finite());
        Self { count: 0, sum: 0.0, largest: None, broken }
    }

    /// Adds the two nearest classes of each of these prototypes, the first of which is class `first`.
    pub(crate) fn add(&mut self, first: usize, nearest: &Predictions) {
        self.broken |= nearest.non_finite_rows + nearest.non_finite_prototypes > 0;
        let rows = nearest.classes.chunks_exact(2).zip(nearest.cosines.chunks_exact(2));
        for (own, (classes, cosines)) in (first..).zip(rows) {
            // the first is another class where several prototypes agree
            let other = usize::from(classes[0] as usize == own);
            let cosine = f64::from(cosines[other]);
            self.count += 1;
            self.sum += angle(cosine);
            self.largest = Some(self.largest.map_or(cosine, |largest| largest.max(cosine)));
        }
    }

    /// NaN where a value was NaN or infinite, 0 where there was no prototype.
    pub(crate) fn finish(self) -> NearestAngles {
        if self.broken {
            return NearestAngles { mean: f64::NAN, least: f64::NAN };
        }
        NearestAngles { mean: self.sum / self.count.max(1) as f64, least: self.largest.map_or(0.0, angle) }
    }
}

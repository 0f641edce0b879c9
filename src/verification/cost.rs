//! The detection cost function of the NIST evaluations.

use super::OperatingPoint;
use crate::{Error, Result};

/// The prior and the costs of a detection cost function:
/// C = `miss` · P(miss) · `target_prior` + `false_alarm` · P(false alarm) · (1 − `target_prior`).
///
/// It is normalised by the cost of the better of the two systems that look at no score: one that rejects every pair and
/// one that accepts every pair. So a normalised minimum is at most 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectionCost {
    /// How probable a pair of the same identity is: above 0 and below 1.
    pub target_prior: f64,
    /// The cost of rejecting a pair of the same identity, above 0.
    pub miss: f64,
    /// The cost of accepting a pair of different identities, above 0.
    pub false_alarm: f64,
}

impl DetectionCost {
    /// VoxCeleb as most papers report it: prior 0.01, costs of 1 (Nagrani et al., Interspeech 2017).
    pub const VOXCELEB: Self = Self::with_prior(0.01);
    /// The VoxCeleb Speaker Recognition Challenges: prior 0.05, costs of 1 (Nagrani et al., VoxSRC 2020).
    pub const VOXSRC: Self = Self::with_prior(0.05);
    /// NIST SRE 2008: prior 0.01, a miss costs 10 and a false alarm 1.
    pub const SRE08: Self = Self { target_prior: 0.01, miss: 10.0, false_alarm: 1.0 };
    /// NIST SRE 2010, core test: prior 0.001, costs of 1.
    pub const SRE10: Self = Self::with_prior(0.001);
    /// NIST SRE 2016 and the telephone speech of 2018: two priors, costs of 1. The evaluation reports the mean of both
    /// normalised costs.
    pub const SRE16: [Self; 2] = [Self::with_prior(0.01), Self::with_prior(0.005)];

    /// Costs of 1 at a prior.
    pub const fn with_prior(target_prior: f64) -> Self {
        Self { target_prior, miss: 1.0, false_alarm: 1.0 }
    }

    /// Refuses a number outside its range.
    pub fn validate(&self) -> Result<()> {
        if !(self.target_prior > 0.0 && self.target_prior < 1.0) {
            let allowed = "0 < target_prior < 1";
            return Err(Error::Parameter { what: "target_prior", found: self.target_prior, allowed });
        }
        for (what, found) in [("miss", self.miss), ("false_alarm", self.false_alarm)] {
            if !(found > 0.0 && found.is_finite()) {
                return Err(Error::Parameter { what, found, allowed: "a finite number above 0" });
            }
        }
        Ok(())
    }

    /// The normalised cost at a threshold.
    pub fn at(&self, point: &OperatingPoint) -> Result<f64> {
        self.validate()?;
        Ok(self.normalised(point.false_accept_rate, point.miss_rate))
    }

    /// The same from the two error rates, of a cost that is valid.
    pub(super) fn normalised(&self, false_accept_rate: f64, miss_rate: f64) -> f64 {
        let (miss, alarm) = (self.miss * self.target_prior, self.false_alarm * (1.0 - self.target_prior));
        let least = miss.min(alarm);
        // divided first, so that a system that rejects everything costs exactly 1
        miss / least * miss_rate + alarm / least * false_accept_rate
    }
}

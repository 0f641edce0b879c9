//! Polar collapse: all prototypes on one side, all embeddings on the other.

use std::fmt;

use super::Report;
use crate::{Error, Result};

/// When to warn of polar collapse; both must be crossed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct CollapseThresholds {
    /// The length of the mean prototype lies above this: 0 to 1, default 0.5. (At random it is about 1/√C.)
    pub mean_prototype: f64,
    /// The mean target cosine lies below this: −1 to 1, default 0.
    pub target_cosine: f64,
}

impl Default for CollapseThresholds {
    fn default() -> Self {
        Self { mean_prototype: 0.5, target_cosine: 0.0 }
    }
}

/// The prototypes have collapsed; its text says what was seen, what it means and what to try.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Collapse {
    /// The length of the mean prototype.
    pub mean_prototype: f64,
    /// The mean target cosine.
    pub target_cosine: f64,
    /// What they were compared with.
    pub thresholds: CollapseThresholds,
}

impl CollapseThresholds {
    /// A warning if both thresholds are crossed; none where no row counts, or where a prototype is not finite and the
    /// mean prototype therefore NaN.
    ///
    /// [`Error::Missing`] if the mean prototype was not measured, [`Error::Parameter`] if a threshold lies outside its
    /// range.
    pub fn check(&self, report: &Report) -> Result<Option<Collapse>> {
        if !(0.0..=1.0).contains(&self.mean_prototype) {
            let (what, found) = ("mean_prototype", self.mean_prototype);
            return Err(Error::Parameter { what, found, allowed: "0 <= mean_prototype <= 1" });
        }
        if !(-1.0..=1.0).contains(&self.target_cosine) {
            let (what, found) = ("target_cosine", self.target_cosine);
            return Err(Error::Parameter { what, found, allowed: "-1 <= target_cosine <= 1" });
        }
        let why = "collapse shows in the prototypes; measure it and call `with_mean_prototype`";
        let mean_prototype = report.mean_prototype.ok_or(Error::Missing { what: "mean_prototype", why })?;
        let target_cosine = report.target_cosine;
        let seen = report.rows > 0 && mean_prototype > self.mean_prototype && target_cosine < self.target_cosine;
        Ok(seen.then_some(Collapse { mean_prototype, target_cosine, thresholds: *self }))
    }
}

impl fmt::Display for Collapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean_prototype, target_cosine, thresholds } = self;
        write!(
            f,
            "the prototypes have collapsed: the length of their mean direction is {mean_prototype:.3} (above {}; 1 means \
             that all point the same way) and the mean target cosine is {target_cosine:.3} (below {}). The embeddings \
             flee from one pole that all classes share: the loss can fall while nothing is told apart. Try WC-ReLU \
             (`Others::Rectified`), which takes the force off classes behind the equator, the prototype regulariser \
             Reg_ss, or a smaller margin",
            thresholds.mean_prototype, thresholds.target_cosine
        )
    }
}

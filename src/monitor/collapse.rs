//! Polar collapse: embeddings are pushed away from all prototypes, and the prototypes gather on the other side.

use std::fmt;

use super::Report;
use crate::{Error, Result, Shape};

/// When a [`CollapseDetector`] warns.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct CollapseThresholds {
    /// Warn where the mean target cosine is below this: −1 to 1, default 0. Below 0 an average embedding is more than 90°
    /// from its own prototype; training that works pulls it to far less.
    pub target_cosine: f64,
    /// Where a warning is due and the mean prototype is longer than this, the prototypes have
    /// [collapsed](CollapseKind::Collapsed): 0 to 1. `None`, the default, takes
    /// [`random_mean_prototype`](Self::random_mean_prototype) of the head's shape. Alone it is no reason to warn: in healthy
    /// runs with WC-ReLU the prototypes keep to one side too.
    pub mean_prototype: Option<f64>,
    /// No warning before this many rows. `None`, the default, takes 20,000 or ten rows for each class, whichever is more.
    /// Embeddings start at about 90° from every prototype, so early in a run the sign of the mean target cosine is chance;
    /// and runs that Reg_ss or WC-ReLU saved went below 0 first, for up to 17,600 rows (the example `uci` at its own
    /// learning rate and at a tenth of it). With a smaller learning rate more rows are needed.
    pub warm_up: Option<u64>,
}

/// Watches the reports of a run for polar collapse.
///
/// ```
/// use margin_softmax::{Shape, monitor::{CollapseDetector, CollapseKind, CollapseThresholds, Monitor}};
///
/// let mut detector = CollapseDetector::new(CollapseThresholds::default(), Shape::new(512, 1000, 64)?)?;
/// # let mut report = Monitor::new(1)?.report().with_mean_prototype(0.4);
/// # (report.rows, report.target_cosine) = (25_600, -0.3);
/// let warning = detector.check(&report); // for every report of a run, here of 50 batches
/// if let Some(collapse) = &warning {
///     println!("{collapse}");
/// }
/// assert_eq!(warning.map(|collapse| collapse.kind), Some(CollapseKind::Collapsed));
/// # Ok::<(), margin_softmax::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CollapseDetector {
    /// Resolved for the shape.
    thresholds: CollapseThresholds,
    mean_prototype: f64,
    warm_up: u64,
    /// Of all reports so far.
    rows: u64,
}

/// How far a collapse has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum CollapseKind {
    /// The embeddings are pushed away from their own prototypes. The prototypes lie no closer together than random ones
    /// may, or their mean was not measured.
    Repelled,
    /// The prototypes have also gathered on one side, closer than random ones do.
    #[default]
    Collapsed,
}

/// A warning; its text says what was seen, what it means and what to try.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Collapse {
    /// How far it has come.
    #[cfg_attr(feature = "serde", serde(default))]
    pub kind: CollapseKind,
    /// The length of the mean prototype, if it was measured.
    pub mean_prototype: Option<f64>,
    /// The mean target cosine.
    pub target_cosine: f64,
    /// The thresholds they were compared with; no default is left open.
    pub thresholds: CollapseThresholds,
}

impl CollapseThresholds {
    /// A length that the mean of random prototypes hardly reaches, at most 1: √(μ + 4σ) with μ = 1/n and
    /// σ² = 2(n − 1)/(d·n³), for n = classes · sub-centers directions in d dimensions.
    ///
    /// μ and σ are mean and standard deviation of the squared length if the directions are independent and uniform:
    /// n²·|mean|² is n plus twice the sum of the n(n − 1)/2 cosines between them, and these have mean 0 and variance 1/d
    /// and are uncorrelated. Random prototypes pass the length with a probability below 1/17 for all n and d (Cantelli's
    /// inequality); of sampled heads fewer than 1 in 100 do in 3 dimensions and 1 in 1000 in 32.
    ///
    /// | n | d = 3 | d = 32 |
    /// |---|---|---|
    /// | 2 | 1 | 0.924 |
    /// | 8 | 0.712 | 0.492 |
    /// | 60 | 0.266 | 0.182 |
    pub fn random_mean_prototype(shape: Shape) -> f64 {
        let (n, d) = (shape.vectors() as f64, shape.dim() as f64);
        // n·μ = 1, and n·σ
        let spread = (2.0 * (n - 1.0) / (d * n)).sqrt();
        ((1.0 + 4.0 * spread) / n).sqrt().min(1.0)
    }
}

impl CollapseDetector {
    /// For reports of a head of this shape, of which the rows do not matter.
    ///
    /// [`Error::Parameter`] if a threshold lies outside its range.
    pub fn new(thresholds: CollapseThresholds, shape: Shape) -> Result<Self> {
        let CollapseThresholds { target_cosine, mean_prototype, warm_up } = thresholds;
        if !(-1.0..=1.0).contains(&target_cosine) {
            let allowed = "-1 <= target_cosine <= 1";
            return Err(Error::Parameter { what: "target_cosine", found: target_cosine, allowed });
        }
        let mean_prototype = mean_prototype.unwrap_or_else(|| CollapseThresholds::random_mean_prototype(shape));
        if !(0.0..=1.0).contains(&mean_prototype) {
            let allowed = "0 <= mean_prototype <= 1";
            return Err(Error::Parameter { what: "mean_prototype", found: mean_prototype, allowed });
        }
        let warm_up = warm_up.unwrap_or_else(|| (10 * shape.classes() as u64).max(20_000));
        let thresholds =
            CollapseThresholds { target_cosine, mean_prototype: Some(mean_prototype), warm_up: Some(warm_up) };
        Ok(Self { thresholds, mean_prototype, warm_up, rows: 0 })
    }

    /// A warning if the mean target cosine of this report is below its threshold, and this and earlier reports together
    /// have at least the rows of the warm-up. Each report should cover other rows: a batch, several, or an epoch.
    ///
    /// The mean prototype tells how far the collapse has come, if the report has it. No warning for a report without rows
    /// that count. A detector that is made when a run resumes starts its warm-up again, unless that is set to 0.
    pub fn check(&mut self, report: &Report) -> Option<Collapse> {
        self.rows = self.rows.saturating_add(report.rows);
        let target_cosine = report.target_cosine;
        let seen = report.rows > 0 && self.rows >= self.warm_up && target_cosine < self.thresholds.target_cosine;
        // a length of 1 may round to more
        let gathered = self.mean_prototype < 1.0 && report.mean_prototype.is_some_and(|l| l > self.mean_prototype);
        let kind = if gathered { CollapseKind::Collapsed } else { CollapseKind::Repelled };
        let Report { mean_prototype, .. } = *report;
        seen.then_some(Collapse { kind, mean_prototype, target_cosine, thresholds: self.thresholds })
    }
}

impl fmt::Display for Collapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, mean_prototype, target_cosine, thresholds } = self;
        let below = thresholds.target_cosine;
        write!(
            f,
            "the embeddings are pushed away from their own prototypes: the mean target cosine is {target_cosine:.3} "
        )?;
        write!(f, "(below {below})")?;
        if let (CollapseKind::Collapsed, Some(length)) = (kind, mean_prototype) {
            write!(f, ", and the prototypes have collapsed: the length of their mean direction is {length:.3} (")?;
            if let Some(above) = thresholds.mean_prototype {
                write!(f, "above {above:.3}; ")?;
            }
            f.write_str("1 means that all point the same way)")?;
        }
        f.write_str(
            ". The loss can fall in this state while the classes are not told apart. Try WC-ReLU (`Others::Rectified`), \
             which takes the force off classes behind the equator, the prototype regulariser Reg_ss, or a smaller margin",
        )
    }
}

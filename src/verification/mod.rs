//! Verification and identification: how well scores tell the same identity from different ones. Plain functions over
//! scores that are there already; no device, no threads.
//!
//! A *score* says how alike two items are, the higher the more: the cosine of two embeddings, or that after
//! [`adaptive_s_norm`]. A *pair* (a trial) is two items and whether they are of the same identity. Scores of embeddings
//! come from [`Backend::pair_cosines`](crate::Backend::pair_cosines) and [`Backend::nearest`](crate::Backend::nearest).
//!
//! | measure | function | used by |
//! |---|---|---|
//! | equal error rate | [`DetectionCurve::equal_error_rate`] | VoxCeleb, NIST SRE |
//! | normalised minimum detection cost | [`DetectionCurve::min_detection_cost`] | VoxCeleb, NIST SRE |
//! | true accept rate at a false accept rate | [`DetectionCurve::true_accept_rate`] | IJB |
//! | accuracy over folds of pairs | [`pair_accuracy`] | LFW, CFP, AgeDB |
//! | rank-1 and top-k identification, with distractors | [`MatchCurve`] | MegaFace, IJB |
//! | adaptive score normalisation | [`adaptive_s_norm`] | VoxCeleb |
//!
//! ```
//! use margin_softmax::verification::{DetectionCost, DetectionCurve};
//!
//! let scores = [0.9, 0.7, 0.6, 0.3, 0.8, 0.4, 0.2, 0.1];
//! let same = [true, true, true, true, false, false, false, false];
//! let curve = DetectionCurve::new(&scores, &same)?;
//! assert_eq!(curve.equal_error_rate(), 0.25);
//! assert_eq!(curve.true_accept_rate(0.0)?, 0.25); // one same pair scores above every different one
//! assert_eq!(curve.min_detection_cost(&DetectionCost::VOXCELEB)?, 0.75);
//! # Ok::<(), margin_softmax::Error>(())
//! ```
//!
//! Every threshold accepts the pairs whose score is at least as high, so pairs of equal score are accepted together: no
//! order of the input decides a result. 0 and −0 are equal. A score that is NaN or infinite, and a list without a pair of
//! each kind, are errors.

mod cost;
mod curve;
mod folds;
mod matches;
mod nearest;
mod normalisation;
mod point;

pub use cost::DetectionCost;
pub use curve::DetectionCurve;
pub use folds::{PairAccuracy, contiguous_folds, pair_accuracy};
pub use matches::{MatchCurve, Mate};
pub use nearest::Nearest;
pub use normalisation::{CohortStatistics, adaptive_s_norm};
pub use point::OperatingPoint;

use crate::{Error, Result};

/// Refuses a value that is NaN or infinite, with its place.
pub(crate) fn all_finite(what: &'static str, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Error::NonFinite { what, at, found: values[at] }),
        None => Ok(()),
    }
}

/// Refuses pairs that are all of one kind.
fn both_kinds(same: usize, pairs: usize) -> Result<()> {
    if same == 0 || same == pairs { Err(Error::OneKind { same, pairs }) } else { Ok(()) }
}

/// Refuses a pair whose items are beyond the rows of its two sides.
pub(crate) fn check_pairs(pairs: &[[u32; 2]], rows: [usize; 2]) -> Result<()> {
    for (at, pair) in pairs.iter().enumerate() {
        for (&item, len) in pair.iter().zip(rows) {
            if item as usize >= len {
                return Err(Error::Index { what: "pairs", at, found: item.into(), len });
            }
        }
    }
    Ok(())
}

//! Normalisation of scores by a cohort.

use super::{all_finite, check_pairs};
use crate::{Error, Result, shape::check_length};

/// Mean and standard deviation of the largest scores of each item with a cohort: items of other identities, such as the mean
/// embeddings of the training speakers.
#[derive(Debug, Clone, PartialEq)]
pub struct CohortStatistics {
    means: Vec<f64>,
    deviations: Vec<f64>,
}

impl CohortStatistics {
    /// Of scores \[items, `count`\]: for each item those with its `count` nearest of the cohort, in any order; see
    /// [`Backend::nearest`](crate::Backend::nearest). 200 to 400 of some thousands are usual. With the whole cohort in place of
    /// the nearest, the normalisation is plain s-norm.
    ///
    /// The deviation has `count` as divisor. Errors: `count` below 2, a length that is no multiple of it, a score that is NaN
    /// or infinite, an item whose scores are all equal: nothing can be divided by their deviation.
    pub fn new(count: usize, scores: &[f32]) -> Result<Self> {
        if count < 2 {
            return Err(Error::Parameter { what: "count", found: count as f64, allowed: "at least 2" });
        }
        check_length("scores", scores.len(), scores.len() / count * count)?;
        all_finite("scores", scores)?;
        let (mut means, mut deviations) = (vec![], vec![]);
        for (item, own) in scores.chunks_exact(count).enumerate() {
            if own.iter().all(|score| *score == own[0]) {
                return Err(Error::NoSpread { what: "scores", row: item });
            }
            let mean = own.iter().map(|&score| f64::from(score)).sum::<f64>() / count as f64;
            let squares: f64 = own.iter().map(|&score| (f64::from(score) - mean).powi(2)).sum();
            means.push(mean);
            deviations.push((squares / count as f64).sqrt());
        }
        Ok(Self { means, deviations })
    }

    /// How many items there are.
    pub fn items(&self) -> usize {
        self.means.len()
    }

    /// The mean of an item's scores.
    pub fn mean(&self, item: usize) -> Option<f64> {
        self.means.get(item).copied()
    }

    /// The standard deviation of an item's scores.
    pub fn deviation(&self, item: usize) -> Option<f64> {
        self.deviations.get(item).copied()
    }

    /// A score as deviations from the mean.
    fn standard(&self, item: usize, score: f64) -> f64 {
        (score - self.means[item]) / self.deviations[item]
    }
}

/// Adaptive s-norm in its first form, AS-norm1: the mean of the score in terms of both items' nearest cohorts,
///
/// ```text
/// s' = ½ · [(s − μ(e)) / σ(e) + (s − μ(t)) / σ(t)]
/// ```
///
/// with μ and σ the [`CohortStatistics`] of the enrolled item e and the test item t. Matějka et al., "Analysis of score
/// normalization in multilingual speaker recognition", Interspeech 2017, after Cumani et al., Interspeech 2011. `pairs` has the items of
/// each score: one of `enrolled` and one of `tested`, which may be the same statistics.
///
/// ```
/// use margin_softmax::verification::{CohortStatistics, adaptive_s_norm};
///
/// let cohort = CohortStatistics::new(2, &[0.1, 0.3, 0.0, 0.4])?; // means 0.2, 0.2; deviations 0.1, 0.2
/// let scores = adaptive_s_norm(&[0.6], &[[0, 1]], &cohort, &cohort)?;
/// assert!((scores[0] - 3.0).abs() < 1e-6); // ½·(4 + 2)
/// # Ok::<(), margin_softmax::Error>(())
/// ```
pub fn adaptive_s_norm(
    scores: &[f32],
    pairs: &[[u32; 2]],
    enrolled: &CohortStatistics,
    tested: &CohortStatistics,
) -> Result<Vec<f32>> {
    check_length("pairs", pairs.len(), scores.len())?;
    all_finite("scores", scores)?;
    check_pairs(pairs, [enrolled.items(), tested.items()])?;
    let one = |(&score, &[e, t]): (&f32, &[u32; 2])| {
        let score = f64::from(score);
        (0.5 * (enrolled.standard(e as usize, score) + tested.standard(t as usize, score))) as f32
    };
    Ok(scores.iter().zip(pairs).map(one).collect())
}

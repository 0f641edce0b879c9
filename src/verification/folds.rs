//! Accuracy over folds of pairs.

use super::{all_finite, both_kinds};
use crate::{Error, Result, shape::check_length};

/// Accuracy over folds of pairs, each at the threshold that suits the other folds best.
#[derive(Debug, Clone, PartialEq)]
pub struct PairAccuracy {
    /// The share of right answers in each fold.
    pub folds: Vec<f64>,
    /// The threshold of each fold, found on the others: a pair is accepted where its score is at least that.
    pub thresholds: Vec<f64>,
}

impl PairAccuracy {
    /// The mean over the folds.
    pub fn mean(&self) -> f64 {
        self.folds.iter().sum::<f64>() / self.folds.len() as f64
    }

    /// The sample standard deviation over the folds, with one less than their number as divisor.
    pub fn deviation(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.folds.iter().map(|fold| (fold - mean).powi(2)).sum();
        (squares / (self.folds.len() - 1) as f64).sqrt()
    }

    /// The standard error of the mean, deviation/√folds, which LFW asks for (Huang et al., 2007).
    pub fn standard_error(&self) -> f64 {
        self.deviation() / (self.folds.len() as f64).sqrt()
    }
}

/// Accuracy of pairs by the protocol of LFW's View 2: for each fold the threshold with the most right answers on all other
/// folds, then the share of right answers on the fold itself.
///
/// `folds` has the fold of each pair, numbered from 0 without a gap; see [`contiguous_folds`]. Thresholds lie half way between
/// two neighbouring scores of the other folds, or above or below all of them; of several equally good ones the highest is
/// taken, which accepts the fewest pairs. One sort, then a pass over all pairs for each fold.
///
/// Errors: lists of different lengths, a score that is NaN or infinite, fewer than two folds or one without a pair, pairs of one
/// kind only outside a fold.
///
/// ```
/// use margin_softmax::verification::{contiguous_folds, pair_accuracy};
///
/// let folds = contiguous_folds(4, 2)?;
/// let accuracy = pair_accuracy(&[0.9, 0.4, 0.6, 0.5], &[true, false, true, false], &folds)?;
/// // the second fold's threshold, half way between 0.9 and 0.4, rejects its pair of the same identity
/// assert_eq!(accuracy.folds, [1.0, 0.5]);
/// # Ok::<(), margin_softmax::Error>(())
/// ```
pub fn pair_accuracy(scores: &[f32], same: &[bool], folds: &[u32]) -> Result<PairAccuracy> {
    check_length("same", same.len(), scores.len())?;
    check_length("folds", folds.len(), scores.len())?;
    all_finite("scores", scores)?;
    let counts = counts(same, folds)?;
    // -0 becomes 0, so that the order of bits is that of numbers
    let pairs = scores.iter().map(|score| score + 0.0).zip(folds.iter().zip(same));
    let mut sorted: Vec<(f32, u32, bool)> = pairs.map(|(score, (&fold, &same))| (score, fold, same)).collect();
    sorted.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let different = counts.iter().map(|own| own[1]).sum::<usize>();
    let mut found = PairAccuracy { folds: vec![], thresholds: vec![] };
    for (own, fold) in counts.iter().zip(0..) {
        let others = sorted.iter().filter(|pair| pair.1 != fold).map(|&(score, _, same)| (score, same));
        let threshold = best_threshold(others, different - own[1]);
        let all = sorted.iter().filter(|pair| pair.1 == fold);
        let hits = all.filter(|(score, _, same)| (f64::from(*score) >= threshold) == *same).count();
        found.folds.push(hits as f64 / (own[0] + own[1]) as f64);
        found.thresholds.push(threshold);
    }
    Ok(found)
}

/// Folds of neighbouring pairs, as equal as can be: the first ones have one pair more where the division leaves a rest. LFW's
/// list is in this order already, and so is that of the packed sets that face recognition uses.
pub fn contiguous_folds(pairs: usize, folds: usize) -> Result<Vec<u32>> {
    if folds < 2 || folds > pairs || u32::try_from(folds).is_err() {
        let allowed = "2 <= folds < 2^32, and no more than there are pairs";
        return Err(Error::Parameter { what: "folds", found: folds as f64, allowed });
    }
    let (each, longer) = (pairs / folds, pairs % folds);
    let one = |fold: usize| std::iter::repeat_n(fold as u32, each + usize::from(fold < longer));
    Ok((0..folds).flat_map(one).collect())
}

/// The pairs of each fold, [same, different]; refuses folds that cannot be measured.
fn counts(same: &[bool], folds: &[u32]) -> Result<Vec<[usize; 2]>> {
    let count = folds.iter().max().map_or(0, |&last| (last as usize).saturating_add(1));
    // a number beyond the pairs leaves a gap, and must not ask for memory
    if count < 2 || count > same.len() {
        let allowed = "at least 2, and no more than there are pairs";
        return Err(Error::Parameter { what: "number of folds", found: count as f64, allowed });
    }
    let mut counts = vec![[0; 2]; count];
    folds.iter().zip(same).for_each(|(&fold, &same)| counts[fold as usize][usize::from(!same)] += 1);
    if let Some(empty) = counts.iter().position(|fold| *fold == [0, 0]) {
        let allowed = "folds are numbered from 0, and each has a pair";
        return Err(Error::Parameter { what: "fold without a pair", found: empty as f64, allowed });
    }
    let all = same.iter().filter(|&&same| same).count();
    counts.iter().try_for_each(|own| both_kinds(all - own[0], same.len() - own[0] - own[1]))?;
    Ok(counts)
}

/// The threshold with the most right answers; pairs come with the highest score first.
fn best_threshold(pairs: impl Iterator<Item = (f32, bool)>, different: usize) -> f64 {
    // above all scores every different pair is right
    let (mut right, mut best) = (different as i64, (different as i64, f64::INFINITY));
    let mut before: Option<f32> = None;
    for (score, same) in pairs {
        if let Some(before) = before.filter(|before| *before != score)
            && right > best.0
        {
            best = (right, f64::midpoint(f64::from(before), f64::from(score)));
        }
        right += if same { 1 } else { -1 };
        before = Some(score);
    }
    if right > best.0 { f64::NEG_INFINITY } else { best.1 }
}

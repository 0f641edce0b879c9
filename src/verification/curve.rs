//! The two errors of a verification system at every threshold.

use super::{DetectionCost, OperatingPoint, all_finite, both_kinds};
use crate::{Error, Result, shape::check_length};

/// Both error rates over all thresholds, of which ROC and DET are two drawings.
///
/// It holds the scores, sorted: 4 bytes for each. Sorting 10⁷ of them takes about a second, after which
/// [`true_accept_rate`](Self::true_accept_rate) is a search, and every other measure one pass.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectionCurve {
    /// Scores of the pairs of the same identity, the highest first.
    same: Vec<f32>,
    /// Those of different identities.
    different: Vec<f32>,
}

impl DetectionCurve {
    /// The curve of pairs in any order: a score for each, higher where the items are more alike, and whether they are of the
    /// same identity.
    ///
    /// Errors: lists of different lengths, a score that is NaN or infinite, no pair of one of the two kinds.
    pub fn new(scores: &[f32], same: &[bool]) -> Result<Self> {
        check_length("same", same.len(), scores.len())?;
        all_finite("scores", scores)?;
        let count = same.iter().filter(|&&same| same).count();
        both_kinds(count, same.len())?;
        let (mut matching, mut different) = (Vec::with_capacity(count), Vec::with_capacity(same.len() - count));
        for (&score, &same) in scores.iter().zip(same) {
            if same { matching.push(score) } else { different.push(score) }
        }
        Ok(Self::sorted(matching, different))
    }

    /// The same from the scores of either kind, in any order; they are sorted where they are.
    pub fn from_kinds(same: Vec<f32>, different: Vec<f32>) -> Result<Self> {
        all_finite("same", &same)?;
        all_finite("different", &different)?;
        both_kinds(same.len(), same.len().saturating_add(different.len()))?;
        Ok(Self::sorted(same, different))
    }

    fn sorted(mut same: Vec<f32>, mut different: Vec<f32>) -> Self {
        for scores in [&mut same, &mut different] {
            // -0 becomes 0, so that the order of bits is that of numbers
            scores.iter_mut().for_each(|score| *score += 0.0);
            scores.sort_unstable_by(|a, b| b.total_cmp(a));
        }
        Self { same, different }
    }

    /// How many pairs are of the same identity.
    pub fn same_pairs(&self) -> usize {
        self.same.len()
    }

    /// How many pairs are of different identities.
    pub fn different_pairs(&self) -> usize {
        self.different.len()
    }

    /// Every point of the curve, from the threshold that accepts nothing to the lowest score, which accepts everything: one
    /// for each score that occurs, and one more.
    pub fn points(&self) -> impl Iterator<Item = OperatingPoint> + '_ {
        let all = Thresholds { curve: self, accepted: [0, 0] };
        std::iter::once((f32::INFINITY, [0, 0])).chain(all).map(|(threshold, accepted)| self.point(threshold, accepted))
    }

    /// About `most` of them at most (one more is possible) for a drawing, the first and the last included.
    ///
    /// They are thinned evenly along ln(FAR/(1 − FAR)) − ln(FRR/(1 − FRR)), which never falls along the curve: so an ROC over
    /// the logarithm of FAR and a DET over normal deviates keep their low ends. At least 2 are asked for.
    pub fn thinned(&self, most: usize) -> Result<Vec<OperatingPoint>> {
        if most < 2 {
            return Err(Error::Parameter { what: "most", found: most as f64, allowed: "at least 2" });
        }
        // a quarter of a pair stands for none, whose logarithm has no end
        let least = [self.different.len(), self.same.len()].map(|n| 0.25 / n as f64);
        let odds = |rate: f64, least: f64| {
            let rate = rate.clamp(least, 1.0 - least);
            (rate / (1.0 - rate)).ln()
        };
        let along = |p: &OperatingPoint| odds(p.false_accept_rate, least[0]) - odds(p.miss_rate, least[1]);
        let spans = least.map(|least| -2.0 * odds(least, least));
        let step = (spans[0] + spans[1]) / (most - 1) as f64;
        let mut kept: Vec<OperatingPoint> = vec![];
        let (mut interval, mut last) = (None, None);
        for point in self.points() {
            // one of each interval
            let own = (along(&point) / step).floor() as i64;
            if interval != Some(own) {
                kept.push(point);
                interval = Some(own);
            }
            last = Some(point);
        }
        kept.extend(last.filter(|last| kept.last() != Some(last)));
        Ok(kept)
    }

    /// The rate at which both errors are equal, linear between the two neighbouring points of the curve.
    ///
    /// From high thresholds to low ones, FAR rises and FRR falls; the rate is where the straight line from the last point
    /// with FAR < FRR to the first one with FAR ≥ FRR crosses FAR = FRR. Scores that are all equal give ½.
    pub fn equal_error_rate(&self) -> f64 {
        let mut before = self.point(f32::INFINITY, [0, 0]);
        for point in self.points() {
            let [gap_before, gap] = [before, point].map(|p| p.miss_rate - p.false_accept_rate);
            if gap <= 0.0 {
                let share = gap_before / (gap_before - gap);
                return before.false_accept_rate + share * (point.false_accept_rate - before.false_accept_rate);
            }
            before = point;
        }
        // the last point accepts every pair, so the loop has ended there
        before.false_accept_rate
    }

    /// The point to run a system at for equal errors: the highest threshold with FAR ≥ FRR.
    pub fn equal_error_point(&self) -> OperatingPoint {
        let all = self.points().find(|point| point.false_accept_rate >= point.miss_rate);
        all.unwrap_or_else(|| self.point(f32::NEG_INFINITY, [self.same.len(), self.different.len()]))
    }

    /// The least normalised cost over all thresholds, that which accepts nothing included: minDCF, at most 1.
    pub fn min_detection_cost(&self, cost: &DetectionCost) -> Result<f64> {
        cost.at(&self.min_cost_point(cost)?)
    }

    /// The threshold of the least cost; of several equal ones the highest.
    pub fn min_cost_point(&self, cost: &DetectionCost) -> Result<OperatingPoint> {
        cost.validate()?;
        let of = |point: &OperatingPoint| cost.normalised(point.false_accept_rate, point.miss_rate);
        let first = self.point(f32::INFINITY, [0, 0]);
        let best = self.points().fold((of(&first), first), |best, point| {
            let own = of(&point);
            if own < best.0 { (own, point) } else { best }
        });
        Ok(best.1)
    }

    /// TAR at FAR: the largest true accept rate of all thresholds whose false accept rate is at most `far`, 0 to 1.
    ///
    /// Nothing is interpolated. Below 1/[`different_pairs`](Self::different_pairs) it is the rate without any false accept,
    /// which says little about `far` itself.
    pub fn true_accept_rate(&self, far: f64) -> Result<f64> {
        Ok(self.point_at(far)?.true_accept_rate())
    }

    /// The lowest threshold whose false accept rate is at most `far`, 0 to 1.
    pub fn point_at(&self, far: f64) -> Result<OperatingPoint> {
        if !(0.0..=1.0).contains(&far) {
            return Err(Error::Parameter { what: "far", found: far, allowed: "0 <= far <= 1" });
        }
        // compared as a rate, so that 1 of 1000 pairs is within 0.001
        let (rate, all) = (|count: usize| count as f64 / self.different.len() as f64, self.different.len());
        let mut allowed = ((far * all as f64) as usize).min(all);
        while allowed < all && rate(allowed + 1) <= far {
            allowed += 1;
        }
        while allowed > 0 && rate(allowed) > far {
            allowed -= 1;
        }
        // the first score that must be rejected takes all that are equal with it
        let above = |scores: &[f32]| match self.different.get(allowed) {
            Some(&limit) => scores.partition_point(|&score| score > limit),
            None => scores.len(),
        };
        let accepted = [above(&self.same), above(&self.different)];
        let last = |scores: &[f32], count: usize| count.checked_sub(1).map_or(f32::INFINITY, |at| scores[at]);
        let threshold = last(&self.same, accepted[0]).min(last(&self.different, accepted[1]));
        Ok(self.point(threshold, accepted))
    }

    /// The rates of so many accepted pairs, same and different.
    fn point(&self, threshold: f32, [same, different]: [usize; 2]) -> OperatingPoint {
        OperatingPoint {
            threshold,
            false_accept_rate: different as f64 / self.different.len() as f64,
            miss_rate: (self.same.len() - same) as f64 / self.same.len() as f64,
        }
    }
}

/// The scores that occur, from the highest, each with the pairs (same, different) that it accepts.
struct Thresholds<'a> {
    curve: &'a DetectionCurve,
    accepted: [usize; 2],
}

impl Iterator for Thresholds<'_> {
    type Item = (f32, [usize; 2]);

    fn next(&mut self) -> Option<Self::Item> {
        let lists = [&self.curve.same, &self.curve.different];
        let [a, b] = [0, 1].map(|kind| lists[kind].get(self.accepted[kind]).copied());
        let threshold = a.into_iter().chain(b).reduce(f32::max)?;
        for (accepted, scores) in self.accepted.iter_mut().zip(lists) {
            *accepted += scores[*accepted..].iter().take_while(|score| **score == threshold).count();
        }
        Some((threshold, self.accepted))
    }
}

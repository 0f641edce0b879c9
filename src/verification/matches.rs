//! Identification: whether the right item is found among the first of a search.

use super::all_finite;
use crate::{Error, Label, Result, shape::check_length};

/// The cumulative match characteristic of searches: for each r up to a largest rank, how many found their match among the r
/// best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchCurve {
    /// Searches with a match at each rank, cumulated.
    hits: Vec<usize>,
    searches: usize,
}

/// One search among distractors: the probe, and its score with the one item of the same identity that is hidden among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mate {
    /// A row of the distractors' scores.
    pub probe: usize,
    /// The score of the probe with its mate.
    pub score: f32,
}

impl MatchCurve {
    /// The searches of probes in a gallery: `nearest` \[probes, `count`\] has the identities of the items nearest to each
    /// probe, the nearest first, and `probes` the probes' own. A probe whose identity is not in the gallery never finds it.
    ///
    /// Indices of the nearest items come from [`Backend::nearest`](crate::Backend::nearest).
    pub fn of_gallery<L: Label>(count: usize, nearest: &[L], probes: &[L]) -> Result<Self> {
        sizes("nearest", nearest.len(), count, probes.len())?;
        let mut hits = vec![0; count];
        for (found, probe) in nearest.chunks_exact(count).zip(probes) {
            if let Some(rank) = found.iter().position(|identity| identity.number() == probe.number()) {
                hits[rank] += 1;
            }
        }
        Ok(Self::cumulated(hits, probes.len()))
    }

    /// The searches of MegaFace: each is a probe among all distractors and one mate (Kemelmacher-Shlizerman et al., CVPR
    /// 2016). `distractors` \[probes, `count`\] has the largest scores of each probe with the distractors, in any order. A
    /// distractor that scores as high as the mate is placed before it.
    pub fn with_distractors(count: usize, distractors: &[f32], mates: &[Mate]) -> Result<Self> {
        let probes = distractors.len() / count.max(1);
        sizes("distractors", distractors.len(), count, probes)?;
        all_finite("distractors", distractors)?;
        let mut hits = vec![0; count];
        for (at, mate) in mates.iter().enumerate() {
            if mate.probe >= probes {
                return Err(Error::Index { what: "mates", at, found: mate.probe as u64, len: probes });
            }
            if !mate.score.is_finite() {
                return Err(Error::NonFinite { what: "mates", at, found: mate.score });
            }
            let row = &distractors[mate.probe * count..(mate.probe + 1) * count];
            let before = row.iter().filter(|&&score| score >= mate.score).count();
            if let Some(hit) = hits.get_mut(before) {
                *hit += 1;
            }
        }
        if mates.is_empty() {
            return Err(Error::Zero { what: "mates" });
        }
        Ok(Self::cumulated(hits, mates.len()))
    }

    fn cumulated(mut hits: Vec<usize>, searches: usize) -> Self {
        let mut all = 0;
        hits.iter_mut().for_each(|hit| {
            all += *hit;
            *hit = all;
        });
        Self { hits, searches }
    }

    /// The share of the searches with their match among the `rank` best, 1 ≤ `rank` ≤ [`max_rank`](Self::max_rank).
    pub fn rate(&self, rank: usize) -> Result<f64> {
        let hits = rank.checked_sub(1).and_then(|at| self.hits.get(at));
        let error = Error::Parameter { what: "rank", found: rank as f64, allowed: "1 to the ranks that were searched" };
        hits.map(|&hits| hits as f64 / self.searches as f64).ok_or(error)
    }

    /// The largest rank that is known.
    pub fn max_rank(&self) -> usize {
        self.hits.len()
    }

    /// How many searches there were.
    pub fn searches(&self) -> usize {
        self.searches
    }
}

/// Refuses an empty search, and a list that is not \[rows, count\].
fn sizes(what: &'static str, found: usize, count: usize, rows: usize) -> Result<()> {
    if count == 0 {
        return Err(Error::Zero { what: "count" });
    }
    if rows == 0 {
        return Err(Error::Zero { what: "probes" });
    }
    check_length(what, found, rows.saturating_mul(count))
}

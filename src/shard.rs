//! One head over several shards of classes, on devices or machines that exchange a few numbers per row.
//!
//! ```text
//! every shard   targets       what it knows of the rows before margins apply
//! anywhere      Targets::merged
//! every shard   statistics    of its classes, given the merged targets
//! anywhere      Statistics::merged
//! every shard   gradients     loss (the same on all), dW of its classes, its share of dX: add the shares
//! ```
//!
//! Each call stands alone, and computes what it needs. On the CPU, a shard with the schedule *keep* and batches of 32 rows and
//! more leaves its cosines to the call that follows, which uses them if embeddings, prototypes, biases and labels have the
//! same checksum of 64 bits: results have the same bits either way.

use std::ops::Range;

use crate::{
    Error, MarginSoftmax, Result, Shape, State,
    data::{Finite, Prediction, Predictions},
    objective::{CheckedBatch, RowFacts},
    shape::check_length,
};

/// Everything that a shard knows of a batch before margins apply.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Targets {
    /// The shard's classes among all.
    pub range: Range<usize>,
    /// \[N\]: the raw target cosine, where the shard has the label.
    pub cosines: Vec<Option<f64>>,
    /// \[N\], for inter-topk: the largest cosines of the other classes with their classes, best first: k of them, fewer
    /// where a shard has no more.
    pub top: Vec<Vec<(f64, usize)>>,
    /// k of inter-topk, which a small shard's lists may fall short of; 0 for any other loss.
    pub top_count: usize,
    /// \[N\], for dynamic AdaCos: the largest scaled cosine of the other classes and the sum of exp(s·c − it).
    pub sums: Vec<[f64; 2]>,
    /// Prototypes shorter than 1e-12.
    pub zero_prototypes: usize,
    /// Prototypes with a NaN or infinite value.
    pub non_finite_prototypes: usize,
}

/// A row's sums over the other classes of a shard.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct RowStatistics {
    /// The largest logit M; 0 with a binary link.
    #[cfg_attr(feature = "serde", serde(rename = "most"))]
    pub max_logit: f64,
    /// Σ exp(z − M); with a binary link Σ softplus(z).
    pub sum: f64,
    /// Σ exp(z − M)·v, with v the logit without scale; with a binary link Σ σ(z)·v.
    #[cfg_attr(feature = "serde", serde(rename = "tilt"))]
    pub value_sum: f64,
    /// Σ w·v over the class weights; with a binary link Σ σ(z).
    pub weighted: f64,
    /// The largest raw cosine.
    pub nearest: f64,
}

impl RowStatistics {
    /// Of no class. (Finite, since JSON has no infinity.)
    pub const EMPTY: Self = Self { max_logit: f64::MIN, sum: 0.0, value_sum: 0.0, weighted: 0.0, nearest: f64::MIN };

    /// Both together.
    pub fn merged(self, other: Self) -> Self {
        let max_logit = self.max_logit.max(other.max_logit);
        let factor = |one: &Self| if one.max_logit == max_logit { 1.0 } else { (one.max_logit - max_logit).exp() };
        let (a, b) = (factor(&self), factor(&other));
        Self {
            max_logit,
            sum: a * self.sum + b * other.sum,
            value_sum: a * self.value_sum + b * other.value_sum,
            weighted: self.weighted + other.weighted,
            nearest: self.nearest.max(other.nearest),
        }
    }
}

/// The rows' sums over the classes of a shard.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Statistics {
    /// The shard's classes among all.
    pub range: Range<usize>,
    /// \[N\].
    pub rows: Vec<RowStatistics>,
}

/// All parts in one, merged in the order of their classes; together they must be all classes once.
fn merged<T: Clone>(
    parts: &[T],
    classes: usize,
    range: fn(&T) -> &Range<usize>,
    merge: impl Fn(&mut T, &T) -> Result<()>,
) -> Result<T> {
    let mut parts: Vec<&T> = parts.iter().collect();
    parts.sort_by_key(|part| range(part).start);
    let mut end = 0;
    for part in &parts {
        let own = range(part);
        if own.start != end || own.end <= own.start || own.end > classes {
            return Err(Error::Shards { found: own.clone(), expected: end, classes });
        }
        end = own.end;
    }
    if end != classes {
        return Err(Error::Shards { found: end..end, expected: end, classes });
    }
    let mut parts = parts.into_iter();
    let mut all = parts.next().cloned().ok_or(Error::Zero { what: "shards" })?;
    parts.try_for_each(|part| merge(&mut all, part))?;
    Ok(all)
}

const SUMS: &str = "finite numbers, sums of at least 0";

/// The part of a sum of exp(z − max_logit) that is no valid number, if one is not.
fn no_sum(max_logit: f64, sum: f64) -> Option<f64> {
    match max_logit.is_finite() {
        true => (!(sum.is_finite() && sum >= 0.0)).then_some(sum),
        false => Some(max_logit),
    }
}

impl Targets {
    /// The last of the classes that inter-topk chooses for a row, with its cosine.
    pub(crate) fn chosen(&self, loss: &MarginSoftmax, row: usize) -> Option<(f64, usize)> {
        self.top.get(row).and_then(|top| top.iter().take(loss.top_k()).next_back()).copied()
    }

    /// Whether merged targets are those of a batch of this many rows.
    pub(crate) fn check(&self, loss: &MarginSoftmax, shape: Shape, rows: usize) -> Result<()> {
        let classes = shape.classes();
        if self.range != (0..classes) {
            return Err(Error::Shards { found: self.range.clone(), expected: 0, classes });
        }
        check_length("targets.cosines", self.cosines.len(), rows)?;
        if let Some(found) = self.cosines.iter().flatten().find(|c| !c.is_finite()) {
            return Err(Error::Parameter { what: "targets.cosines", found: *found, allowed: "finite numbers" });
        }
        let wanted = |some: bool| if some { rows } else { 0 };
        let count = loss.top_k();
        check_length("targets.top_count", self.top_count, count)?;
        check_length("targets.top", self.top.len(), wanted(count > 0))?;
        check_length("targets.sums", self.sums.len(), wanted(loss.scale_follows()))?;
        if let Some((found, _)) = self.top.iter().flatten().find(|(c, class)| !(c.is_finite() && *class < classes)) {
            let allowed = "finite numbers, each of a class of the head";
            return Err(Error::Parameter { what: "targets.top", found: *found, allowed });
        }
        match self.sums.iter().find_map(|[max_logit, sum]| no_sum(*max_logit, *sum)) {
            Some(found) => Err(Error::Parameter { what: "targets.sums", found, allowed: SUMS }),
            None => Ok(()),
        }
    }

    /// The rows as the families that follow the batch see them.
    pub(crate) fn facts<T: Finite>(
        &self,
        loss: &MarginSoftmax,
        batch: &CheckedBatch<'_, T>,
        dim: usize,
    ) -> Vec<RowFacts> {
        let rows = batch.embeddings.chunks_exact(dim).zip(&batch.labels).zip(&self.cosines);
        let fact = |((x, label), cosine): ((&[T], &i64), &Option<f64>)| {
            let finite = x.iter().all(|v| v.is_finite());
            let length = x.iter().fold(0.0_f64, |h, v| h.hypot(v.wide()));
            RowFacts { counts: finite && Some(*label) != loss.ignore_index, length, cosine: cosine.unwrap_or(0.0) }
        };
        rows.map(fact).collect()
    }

    /// Moves a state to this step.
    pub(crate) fn follow(&self, loss: &MarginSoftmax, rows: &[RowFacts], state: &mut State) {
        if self.non_finite_prototypes > 0 {
            return;
        }
        state.follow(loss, rows);
        if loss.scale_follows() {
            let counted = self.sums.iter().zip(rows).filter(|(_, row)| row.counts);
            let logs: Vec<f64> = counted.map(|([max_logit, sum], _)| max_logit + sum.ln()).collect();
            let max_logit = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            state.follow_scale(max_logit + logs.iter().map(|l| (l - max_logit).exp()).sum::<f64>().ln(), rows);
        }
    }

    /// Everything that all shards know together. [`Error::Shards`] if they overlap or leave a gap.
    pub fn merged(parts: &[Self], classes: usize) -> Result<Self> {
        Ok(Self { range: 0..classes, ..merged(parts, classes, |part| &part.range, Self::merge)? })
    }

    fn merge(&mut self, part: &Self) -> Result<()> {
        check_length("targets.cosines", part.cosines.len(), self.cosines.len())?;
        check_length("targets.top_count", part.top_count, self.top_count)?;
        check_length("targets.top", part.top.len(), self.top.len())?;
        check_length("targets.sums", part.sums.len(), self.sums.len())?;
        for (a, b) in self.cosines.iter_mut().zip(&part.cosines) {
            *a = a.or(*b);
        }
        for (a, b) in self.top.iter_mut().zip(&part.top) {
            a.extend(b);
            a.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
            a.truncate(self.top_count);
        }
        for (a, b) in self.sums.iter_mut().zip(&part.sums) {
            let max_logit = a[0].max(b[0]);
            let scaled = |[m, sum]: [f64; 2]| if sum > 0.0 { sum * (m - max_logit).exp() } else { 0.0 };
            *a = [max_logit, scaled(*a) + scaled(*b)];
        }
        // from another machine: any number
        self.zero_prototypes = self.zero_prototypes.saturating_add(part.zero_prototypes);
        self.non_finite_prototypes = self.non_finite_prototypes.saturating_add(part.non_finite_prototypes);
        Ok(())
    }
}

impl Predictions {
    /// The nearest classes among those of all shards, and their log-probabilities among all classes.
    ///
    /// [`Error::Shards`] if the shards overlap or leave a gap, [`Error::Length`] if they differ in rows, in k or in their link.
    pub fn merged(parts: &[Self], classes: usize) -> Result<Self> {
        Ok(Self { range: 0..classes, ..merged(parts, classes, |part| &part.range, Self::merge)? })
    }

    fn merge(&mut self, part: &Self) -> Result<()> {
        check_length("predictions.count", part.count, self.count)?;
        check_length("predictions.classes", part.classes.len(), self.classes.len())?;
        check_length("predictions.log_sum_exps", part.log_sum_exps.len(), self.log_sum_exps.len())?;
        for i in 0..self.rows() {
            if self.get(i, 0).is_none() || part.get(i, 0).is_none() {
                self.clear(i);
                continue;
            }
            // what each shard's log-sum-exp lacks of that of both; nothing with a binary link
            let (mut moved, mut both) = ([0.0; 2], None);
            if let (Some(&a), Some(&b)) = (self.log_sum_exps.get(i), part.log_sum_exps.get(i)) {
                let sums = [f64::from(a), f64::from(b)];
                let all = sums[0].max(sums[1]) + (-(sums[0] - sums[1]).abs()).exp().ln_1p();
                (moved, both) = (sums.map(|sum| sum - all), Some(all));
            }
            let mut entries = vec![];
            for (from, moved) in [&*self, part].into_iter().zip(moved) {
                let log = |p: &Prediction<f32>| (f64::from(p.log_probability) + moved) as f32;
                let own = (0..from.count).filter_map(|k| from.get(i, k));
                entries.extend(own.map(|p| Prediction { log_probability: log(&p), ..p }));
            }
            // 0 and -0 are equal
            entries.sort_by(|a, b| (b.cosine + 0.0).total_cmp(&(a.cosine + 0.0)).then(a.class.cmp(&b.class)));
            entries.iter().take(self.count).enumerate().for_each(|(k, &entry)| self.set(i, k, entry));
            if let (Some(sum), Some(all)) = (self.log_sum_exps.get_mut(i), both) {
                *sum = all as f32;
            }
        }
        let unanswered = (0..self.rows()).filter(|&i| self.get(i, 0).is_none()).count();
        let broken = self.non_finite_prototypes + part.non_finite_prototypes > 0;
        self.non_finite_prototypes += part.non_finite_prototypes;
        self.non_finite_rows = if broken { self.non_finite_rows.max(part.non_finite_rows) } else { unanswered };
        Ok(())
    }
}

impl Statistics {
    /// Whether merged statistics are those of a batch of this many rows.
    pub(crate) fn check(&self, loss: &MarginSoftmax, classes: usize, rows: usize) -> Result<()> {
        if self.range != (0..classes) {
            return Err(Error::Shards { found: self.range.clone(), expected: 0, classes });
        }
        check_length("statistics.rows", self.rows.len(), rows)?;
        match self.rows.iter().find_map(|row| no_sum(row.max_logit, row.sum)) {
            // the logits of a linear head may leave f32: such a row counts as one that is not finite
            Some(found) if !loss.is_linear() => Err(Error::Parameter { what: "statistics.rows", found, allowed: SUMS }),
            _ => Ok(()),
        }
    }

    /// The sums over all shards, added in the order of their classes.
    pub fn merged(parts: &[Self], classes: usize) -> Result<Self> {
        Ok(Self { range: 0..classes, ..merged(parts, classes, |part| &part.range, Self::merge)? })
    }

    fn merge(&mut self, part: &Self) -> Result<()> {
        check_length("statistics.rows", part.rows.len(), self.rows.len())?;
        self.rows.iter_mut().zip(&part.rows).for_each(|(a, b)| *a = a.merged(*b));
        Ok(())
    }
}

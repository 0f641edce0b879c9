//! One head over several shards of classes, on devices or machines that exchange a few numbers per row.
//!
//! ```text
//! every shard   targets       what it knows of the rows before margins apply
//! anywhere      Targets::merged
//! every shard   statistics    of its classes, given the merged targets
//! anywhere      Statistics::merged
//! every shard   gradients     loss (the same on all), dW of its classes, its share of dX: add the shares
//! ```

use std::ops::Range;

use crate::{
    Error, MarginSoftmax, Result, Shape, State,
    data::Finite,
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
    pub most: f64,
    /// Σ exp(z − M); with a binary link Σ softplus(z).
    pub sum: f64,
    /// Σ exp(z − M)·v, with v the logit without scale; with a binary link Σ σ(z)·v.
    pub tilt: f64,
    /// Σ w·v over the class weights; with a binary link Σ σ(z).
    pub weighted: f64,
    /// The largest raw cosine.
    pub nearest: f64,
}

impl RowStatistics {
    /// Of no class. (Finite, since JSON has no infinity.)
    pub const EMPTY: Self = Self { most: f64::MIN, sum: 0.0, tilt: 0.0, weighted: 0.0, nearest: f64::MIN };

    /// Both together.
    pub fn merged(self, other: Self) -> Self {
        let most = self.most.max(other.most);
        let factor = |one: &Self| if one.most == most { 1.0 } else { (one.most - most).exp() };
        let (a, b) = (factor(&self), factor(&other));
        Self {
            most,
            sum: a * self.sum + b * other.sum,
            tilt: a * self.tilt + b * other.tilt,
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

/// The part of a sum of exp(z − most) that is no valid number, if one is not.
fn no_sum(most: f64, sum: f64) -> Option<f64> {
    match most.is_finite() {
        true => (!(sum.is_finite() && sum >= 0.0)).then_some(sum),
        false => Some(most),
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
        match self.sums.iter().find_map(|[most, sum]| no_sum(*most, *sum)) {
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
            let logs: Vec<f64> = counted.map(|([most, sum], _)| most + sum.ln()).collect();
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            state.follow_scale(most + logs.iter().map(|l| (l - most).exp()).sum::<f64>().ln(), rows);
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
            let most = a[0].max(b[0]);
            let scaled = |[m, sum]: [f64; 2]| if sum > 0.0 { sum * (m - most).exp() } else { 0.0 };
            *a = [most, scaled(*a) + scaled(*b)];
        }
        // from another machine: any number
        self.zero_prototypes = self.zero_prototypes.saturating_add(part.zero_prototypes);
        self.non_finite_prototypes = self.non_finite_prototypes.saturating_add(part.non_finite_prototypes);
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
        match self.rows.iter().find_map(|row| no_sum(row.most, row.sum)) {
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

//! The classes nearest to each row.

use std::ops::Range;

use super::Label;
use crate::{Error, Result};

/// In the place of a class where a row has none.
const NO_CLASS: u32 = u32::MAX;

/// Vectors without labels, for a prediction: row-major slices. `T` is `f32` (`f64` for the reference).
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a, T = f32> {
    /// X, \[N, D\].
    pub embeddings: &'a [T],
    /// W, \[C, D\]; with K sub-centers \[C, K, D\].
    pub prototypes: &'a [T],
    /// b, \[C\]: added to the plain products of a linear head; 0 if absent.
    pub bias: Option<&'a [T]>,
}

impl<'a, T> Inputs<'a, T> {
    /// Without a bias.
    pub fn new(embeddings: &'a [T], prototypes: &'a [T]) -> Self {
        Self { embeddings, prototypes, bias: None }
    }
}

/// The k nearest classes of every row, best first; of equal cosines the lower class comes first.
///
/// A row without a prediction has the class `u32::MAX`, a cosine, a log-probability and a log-sum-exp of NaN: one with a NaN or
/// infinite value, one of a linear head whose logits leave f32, in a training step one that is ignored, and every row if a
/// prototype has a NaN or infinite value. So have the last entries of a shard with fewer than k classes. Zero vectors
/// (shorter than 1e-12) take part as in a loss.
///
/// Classes of any chunk, shard and backend agree unless two cosines differ by less than 2e-6.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Predictions<T = f32> {
    /// k, the entries of a row.
    pub count: usize,
    /// The classes that were looked at.
    pub range: Range<usize>,
    /// \[N, k\]: among all classes, also in a shard.
    pub classes: Vec<u32>,
    /// \[N, k\]: raw cosines c, without margin or scale; of a linear head the products with their bias.
    pub cosines: Vec<T>,
    /// \[N, k\]: the log-softmax of s·c over all classes of `range`, without margin or transform; with a binary link log σ(s·c + b).
    pub log_probabilities: Vec<T>,
    /// \[N, k\]: which prototype of the class has that cosine; 0 without sub-centers.
    pub sub_centers: Vec<u32>,
    /// \[N\]: log Σ exp(s·c) over the classes of `range`; empty with a binary link.
    pub log_sum_exps: Vec<T>,
    /// Rows with a NaN or infinite value, and rows of a linear head whose logits leave f32.
    pub non_finite_rows: usize,
    /// Prototypes with a NaN or infinite value.
    pub non_finite_prototypes: usize,
}

/// One of the k nearest classes of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Prediction<T> {
    pub class: u32,
    pub cosine: T,
    pub log_probability: T,
    pub sub_center: u32,
}

impl<T> Predictions<T> {
    /// The most classes of a row.
    pub const MAX: usize = 64;

    /// N.
    pub fn rows(&self) -> usize {
        self.classes.len().checked_div(self.count).unwrap_or(0)
    }

    /// \[N\]: the nearest class of each row, if it has one.
    pub fn nearest(&self) -> impl Iterator<Item = Option<u32>> + '_ {
        self.classes.chunks_exact(self.count.max(1)).map(|row| Some(row[0]).filter(|&class| class != NO_CLASS))
    }

    /// How many rows have their label among their k classes; a label that names no class is among none.
    pub fn hits<L: Label>(&self, labels: &[L]) -> usize {
        let rows = self.classes.chunks_exact(self.count.max(1)).zip(labels);
        let hit = |(row, label): &(&[u32], &L)| row.iter().any(|&j| j != NO_CLASS && i128::from(j) == label.number());
        rows.filter(hit).count()
    }
}

impl<T: Copy + From<f32>> Predictions<T> {
    /// Refuses a k that is not 1 to 64, or above the number of classes.
    pub(crate) fn check(count: usize, classes: usize) -> Result<()> {
        if !(1..=Self::MAX.min(classes)).contains(&count) {
            let allowed = "1 <= k <= 64, and no more than there are classes";
            return Err(Error::Parameter { what: "predictions", found: count as f64, allowed });
        }
        Ok(())
    }

    /// For so many rows, all of them without a prediction.
    pub(crate) fn reset(&mut self, rows: usize, count: usize, range: Range<usize>, sums: bool) {
        let (nan, len) = (T::from(f32::NAN), rows * count);
        refill(&mut self.classes, len, NO_CLASS);
        refill(&mut self.cosines, len, nan);
        refill(&mut self.log_probabilities, len, nan);
        refill(&mut self.sub_centers, len, 0);
        refill(&mut self.log_sum_exps, if sums { rows } else { 0 }, nan);
        (self.count, self.range, self.non_finite_rows, self.non_finite_prototypes) = (count, range, 0, 0);
    }

    /// Entry k of a row, if it has one.
    pub(crate) fn get(&self, row: usize, k: usize) -> Option<Prediction<T>> {
        let at = row * self.count + k;
        let found = || Prediction {
            class: self.classes[at],
            cosine: self.cosines[at],
            log_probability: self.log_probabilities[at],
            sub_center: self.sub_centers[at],
        };
        (self.classes[at] != NO_CLASS).then(found)
    }

    pub(crate) fn set(&mut self, row: usize, k: usize, new: Prediction<T>) {
        let at = row * self.count + k;
        self.classes[at] = new.class;
        self.cosines[at] = new.cosine;
        self.log_probabilities[at] = new.log_probability;
        self.sub_centers[at] = new.sub_center;
    }

    /// A row without a prediction.
    pub(crate) fn clear(&mut self, row: usize) {
        let nan = T::from(f32::NAN);
        for k in 0..self.count {
            self.set(row, k, Prediction { class: NO_CLASS, cosine: nan, log_probability: nan, sub_center: 0 });
        }
        if let Some(sum) = self.log_sum_exps.get_mut(row) {
            *sum = nan;
        }
    }
}

fn refill<T: Copy>(values: &mut Vec<T>, len: usize, value: T) {
    values.clear();
    values.resize(len, value);
}

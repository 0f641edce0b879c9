//! The classes of a training step.

use crate::{Error, Label, Result, data::numbers, objective::random::scramble};

/// Which classes a training step sees: all that label a row, and of the others as many at random as are missing to the
/// share `rate` of all.
///
/// The draw depends on seed, step, number of classes and labels alone: not on the machine, and not on what was drawn before.
/// Unsampled classes are absent from the softmax, without a correction factor, as in insightface.
///
/// To work on shards too, sample once for all of them: the sampled classes in their order are the classes of a head of
/// `Sample::classes.len()` classes, of which every shard takes a range; see [`shard`](crate::shard).
///
/// ```
/// use margin_softmax::partial::PartialFc;
///
/// let sampler = PartialFc::new(0.1, 7)?;
/// let sample = sampler.sample(&[30, 4, 30, -1], Some(-1), 50)?;
/// assert_eq!(sample.classes.len(), 5); // 4, 30 and three others
/// assert!(sample.classes.is_sorted());
/// assert_eq!(sample.classes[sample.labels[0] as usize], 30);
/// assert_eq!(sample.labels[3], -1);
/// # Ok::<(), margin_softmax::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct PartialFc {
    /// The share of the classes, 0 < rate ≤ 1; insightface: 0.1 for large sets. With 1 all classes are taken.
    #[cfg_attr(feature = "serde", serde(with = "crate::objective::state::exact"))]
    pub rate: f64,
    /// Of the draws.
    pub seed: u64,
    /// Draws so far.
    pub step: u64,
}

/// The classes of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// The sampled classes, ascending, each once.
    pub classes: Vec<usize>,
    /// \[N\]: the labels as positions in `classes`; `ignore_index` for an ignored row.
    pub labels: Vec<i64>,
    /// The ignore index of the sample: the one given, but −1 where that is itself a class, since a position could have its value.
    pub ignore_index: Option<i64>,
}

impl PartialFc {
    /// Before the first step.
    pub fn new(rate: f64, seed: u64) -> Result<Self> {
        let new = Self { rate, seed, step: 0 };
        new.validate()?;
        Ok(new)
    }

    /// Checks the rate; NaN is refused.
    pub fn validate(&self) -> Result<()> {
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            return Err(Error::Parameter { what: "partial_fc.rate", found: self.rate, allowed: "0 < rate <= 1" });
        }
        if self.step == u64::MAX {
            let (found, allowed) = (self.step as f64, "a step below 2^64 - 1");
            return Err(Error::Parameter { what: "partial_fc.step", found, allowed });
        }
        Ok(())
    }

    /// ⌊rate · classes⌋, but at least 1: the sampled classes of a step whose labels are no more than that. (The product is
    /// rounded to f64 first, as in insightface: ⌊0.29 · 100⌋ is 28.)
    pub fn count(&self, classes: usize) -> usize {
        ((self.rate * classes as f64) as usize).clamp(1, classes.max(1))
    }

    /// The classes of this step. All of them label a row if those are at least [`count`](Self::count). Takes time in
    /// proportion to `classes` and memory to the sample. The step stays: count it up yourself.
    ///
    /// [`Error::Label`] for a label that names no class and is not the ignore index.
    pub fn sample<L: Label>(&self, labels: &[L], ignore_index: Option<i64>, classes: usize) -> Result<Sample> {
        self.validate()?;
        let labels = numbers(labels, ignore_index, classes)?;
        let mut sample = Sample::default();
        self.draw(labels, ignore_index, classes, &mut sample);
        Ok(sample)
    }

    /// The same with labels that are checked.
    pub(super) fn draw(&self, labels: Vec<i64>, ignore_index: Option<i64>, classes: usize, sample: &mut Sample) {
        let label = |&label: &i64| (Some(label) != ignore_index).then_some(label as usize);
        let mut positives: Vec<usize> = labels.iter().filter_map(label).collect();
        positives.sort_unstable();
        positives.dedup();
        // of the classes from here on: those to be drawn, and those they are drawn from
        let mut missing = self.count(classes).saturating_sub(positives.len()) as u64;
        let mut left = (classes - positives.len()) as u64;
        // the complement keeps the stream apart from that of another draw with the same seed
        let key = scramble(scramble(!self.seed) ^ self.step);
        sample.classes.clear();
        if missing == 0 {
            sample.classes.extend(positives);
        } else {
            let mut positives = positives.into_iter().peekable();
            for class in 0..classes {
                let taken = if positives.next_if_eq(&class).is_some() {
                    true
                } else {
                    let taken = missing == left || below(left, scramble(key ^ class as u64)) < missing;
                    (left, missing) = (left - 1, missing - u64::from(taken));
                    taken
                };
                if taken {
                    sample.classes.push(class);
                }
            }
        }
        sample.remap(labels, ignore_index, classes);
    }
}

impl Sample {
    /// All classes.
    pub(super) fn all(&mut self, labels: Vec<i64>, ignore_index: Option<i64>, classes: usize) {
        self.classes.clear();
        self.classes.extend(0..classes);
        self.remap(labels, ignore_index, classes);
    }

    fn remap(&mut self, mut labels: Vec<i64>, ignore_index: Option<i64>, classes: usize) {
        self.ignore_index = apart(ignore_index, classes);
        for label in &mut labels {
            *label = match self.ignore_index {
                Some(apart) if Some(*label) == ignore_index => apart,
                // a label is among them, so the position is its own
                _ => self.classes.partition_point(|&class| class < *label as usize) as i64,
            };
        }
        self.labels = labels;
    }
}

/// An ignore index that is no class.
pub(super) fn apart(ignore_index: Option<i64>, classes: usize) -> Option<i64> {
    ignore_index.map(|index| if usize::try_from(index).is_ok_and(|index| index < classes) { -1 } else { index })
}

/// A number in 0..n, each as likely as the others, from random bits (Lemire, "Fast random integer generation in an
/// interval"): the few bits that would favour some numbers are drawn again.
fn below(n: u64, mut bits: u64) -> u64 {
    loop {
        let product = u128::from(bits) * u128::from(n);
        let low = product as u64;
        if low >= n || low >= n.wrapping_neg() % n {
            return (product >> 64) as u64;
        }
        bits = scramble(bits);
    }
}

//! The mean embedding of every class.

use super::{angle, vectors};
use crate::{Error, Label, Result, Shape, data::numbers, objective::SHORTEST, shape::check_length};

const ABSENT: u32 = u32::MAX;

/// Sums raw embeddings by label over any number of batches, in f64. Memory grows with the classes present, and by four bytes per class.
///
/// For C-Inter pass [`vectors`](Self::vectors) to [`Backend::mean_pair_angle`](crate::Backend::mean_pair_angle).
#[derive(Debug, Clone, PartialEq)]
pub struct ClassCenters {
    dim: usize,
    /// \[C\]: the place of a class among those present, or `ABSENT`.
    places: Vec<u32>,
    counts: Vec<u64>,
    /// [classes present, D].
    sums: Vec<f64>,
}

impl ClassCenters {
    /// No embeddings yet; sizes as in [`Shape::new`].
    pub fn new(classes: usize, dim: usize) -> Result<Self> {
        let shape = Shape::new(0, classes, dim)?;
        Ok(Self { dim: shape.dim(), places: vec![ABSENT; shape.classes()], counts: vec![], sums: vec![] })
    }

    /// Adds a batch: embeddings \[N, D\] and labels \[N\]. Rows with the ignore index and rows with a NaN or infinite value
    /// are left out. On an error nothing is added.
    pub fn add<L: Label, T: Copy + Into<f64>>(
        &mut self,
        embeddings: &[T],
        labels: &[L],
        ignore_index: Option<i64>,
    ) -> Result<()> {
        self.add_scaled(embeddings, labels, ignore_index, |_| 1.0)
    }

    /// The same with every embedding at length 1, so that long ones count no more than short ones; x/1e-12 for one that is
    /// shorter than 1e-12. For [`NewPrototypes`](crate::classes::NewPrototypes).
    pub fn add_directions<L: Label, T: Copy + Into<f64>>(
        &mut self,
        embeddings: &[T],
        labels: &[L],
        ignore_index: Option<i64>,
    ) -> Result<()> {
        self.add_scaled(embeddings, labels, ignore_index, |x| norm(x).max(SHORTEST))
    }

    /// Adds every embedding divided by a number of its own.
    fn add_scaled<L: Label, T: Copy + Into<f64>>(
        &mut self,
        embeddings: &[T],
        labels: &[L],
        ignore_index: Option<i64>,
        divisor: impl Fn(&[f64]) -> f64,
    ) -> Result<()> {
        check_length("embeddings", embeddings.len(), labels.len().saturating_mul(self.dim))?;
        let labels = numbers(labels, ignore_index, self.places.len())?;
        let mut wide = Vec::with_capacity(self.dim);
        for (x, label) in embeddings.chunks_exact(self.dim).zip(labels) {
            wide.clear();
            wide.extend(x.iter().map(|&v| v.into()));
            if Some(label) != ignore_index && wide.iter().all(|v| v.is_finite()) {
                let divisor = divisor(&wide);
                self.put(label as usize, 1, wide.iter().map(|v| v / divisor));
            }
        }
        Ok(())
    }

    /// Adds the embeddings of another. [`Error::Length`] where its classes or its dim differ.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        check_length("classes", other.places.len(), self.places.len())?;
        check_length("dim", other.dim, self.dim)?;
        for class in other.classes() {
            if let Some((count, sum)) = other.of(class) {
                self.put(class, count, sum.iter().copied());
            }
        }
        Ok(())
    }

    /// The classes present, in ascending order.
    pub fn classes(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|&class| self.of(class).is_some()).collect()
    }

    /// Their centers, the means of their embeddings, in the same order: \[classes present, D\].
    pub fn vectors(&self) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.sums.len());
        for class in 0..self.places.len() {
            if let Some((count, sum)) = self.of(class) {
                all.extend(sum.iter().map(|v| (v / count as f64) as f32));
            }
        }
        all
    }

    /// WC-Intra: the mean angle, over the classes present, between center and prototype; prototypes \[C, D\]. In f64, 0 where
    /// no class is present, NaN where the prototype of one is not finite.
    pub fn mean_center_angle<T: Copy + Into<f64>>(&self, prototypes: &[T]) -> Result<f64> {
        let (found, expected) = (vectors("prototypes", self.dim, prototypes.len())?, self.places.len());
        if found != expected {
            let (found, expected) = (prototypes.len(), expected.saturating_mul(self.dim));
            return Err(Error::Length { what: "prototypes", found, expected });
        }
        let (mut total, mut present) = (0.0, 0_u64);
        for (class, prototype) in prototypes.chunks_exact(self.dim).enumerate() {
            if let Some((_, sum)) = self.of(class) {
                let prototype: Vec<f64> = prototype.iter().map(|&v| v.into()).collect();
                let lengths = norm(sum).max(SHORTEST) * norm(&prototype).max(SHORTEST);
                let dot: f64 = sum.iter().zip(&prototype).map(|(a, b)| a * b).sum();
                total += angle(dot / lengths);
                present += 1;
            }
        }
        Ok(if present > 0 { total / present as f64 } else { 0.0 })
    }

    /// How many classes there may be, and the length of a vector.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.places.len(), self.dim)
    }

    /// Count and sum of a class that is present.
    pub(crate) fn of(&self, class: usize) -> Option<(u64, &[f64])> {
        let place = *self.places.get(class)? as usize;
        Some((*self.counts.get(place)?, self.sums.get(place * self.dim..(place + 1) * self.dim)?))
    }

    fn put(&mut self, class: usize, count: u64, values: impl Iterator<Item = f64>) {
        let Some(place) = self.places.get_mut(class) else { return };
        if *place == ABSENT {
            // below 2^31 classes
            *place = self.counts.len() as u32;
            self.counts.push(0);
            self.sums.resize(self.sums.len() + self.dim, 0.0);
        }
        let place = *place as usize;
        self.counts[place] = self.counts[place].saturating_add(count);
        self.sums[place * self.dim..].iter_mut().zip(values).for_each(|(sum, v)| *sum += v);
    }
}

/// |v|, without overflow.
pub(crate) fn norm(v: &[f64]) -> f64 {
    v.iter().fold(0.0_f64, |h, x| h.hypot(*x))
}

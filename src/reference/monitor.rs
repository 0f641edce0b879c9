//! The spread of a set of vectors, in f64.

use super::{Directions, dot};
use crate::{
    Result,
    monitor::{angle, vectors},
};

/// Length of the mean direction of prototypes \[C, D\]: 1 if all agree. NaN where one is not finite, 0 where there is none.
pub fn mean_prototype(dim: usize, prototypes: &[f64]) -> Result<f64> {
    let count = vectors("prototypes", dim, prototypes.len())?;
    let w = Directions::new(prototypes, dim, true);
    let mut mean = vec![0.0; dim];
    for j in 0..count {
        mean.iter_mut().zip(w.row(j)).for_each(|(m, v)| *m += v / count as f64);
    }
    Ok(if w.non_finite.contains(&true) { f64::NAN } else { dot(&mean, &mean).sqrt() })
}

/// Mean angle between all pairs of vectors \[C, D\]: W-Inter of prototypes, C-Inter of class centers. NaN where one is not
/// finite, 0 where there is no pair. O(C²D) time.
pub fn mean_pair_angle(dim: usize, all: &[f64]) -> Result<f64> {
    let count = vectors("vectors", dim, all.len())?;
    let w = Directions::new(all, dim, true);
    let (mut sum, mut pairs) = (0.0, 0_u64);
    for i in 0..count {
        for j in i + 1..count {
            sum += angle(dot(w.row(i), w.row(j)));
            pairs += 1;
        }
    }
    Ok(if w.non_finite.contains(&true) { f64::NAN } else { sum / pairs.max(1) as f64 })
}

//! Cosines of pairs of vectors, in f64.

use super::directions::{Directions, dot};
use crate::{Result, monitor::vectors, verification::check_pairs};

/// Cosines of all pairs of vectors \[N, D\] and \[M, D\]: \[N, M\]. A vector shorter than 1e-12 is x/1e-12; one with a NaN or
/// infinite value has cosine 0 with everything.
pub fn cosines(dim: usize, left: &[f64], right: &[f64]) -> Result<Vec<f64>> {
    let counts = [vectors("left", dim, left.len())?, vectors("right", dim, right.len())?];
    let [a, b] = [left, right].map(|data| Directions::new(data, dim, true));
    Ok((0..counts[0]).flat_map(|i| (0..counts[1]).map(move |j| (i, j))).map(|(i, j)| dot(a.row(i), b.row(j))).collect())
}

/// Cosines of chosen pairs, each a row of `left` \[N, D\] and one of `right` \[M, D\].
pub fn pair_cosines(dim: usize, left: &[f64], right: &[f64], pairs: &[[u32; 2]]) -> Result<Vec<f64>> {
    check_pairs(pairs, [vectors("left", dim, left.len())?, vectors("right", dim, right.len())?])?;
    let [a, b] = [left, right].map(|data| Directions::new(data, dim, true));
    Ok(pairs.iter().map(|&[i, j]| dot(a.row(i as usize), b.row(j as usize))).collect())
}

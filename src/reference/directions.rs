//! Unit vectors, and gradients taken back through the division by a length.

use crate::objective::SHORTEST;

/// Unit vectors, or for a linear head the vectors themselves, and what was left out on the way.
pub(super) struct Directions {
    pub dim: usize,
    normalised: bool,
    unit: Vec<f64>,
    pub length: Vec<f64>,
    pub non_finite: Vec<bool>,
}

impl Directions {
    pub fn new(data: &[f64], dim: usize, normalised: bool) -> Self {
        let mut new =
            Self { dim, normalised, unit: Vec::with_capacity(data.len()), length: vec![], non_finite: vec![] };
        for v in data.chunks_exact(dim) {
            let bad = v.iter().any(|x| !x.is_finite());
            let length = v.iter().fold(0.0_f64, |h, x| h.hypot(*x));
            let divisor = if normalised { length.max(SHORTEST) } else { 1.0 };
            new.unit.extend(v.iter().map(|x| if bad { 0.0 } else { x / divisor }));
            new.length.push(length);
            new.non_finite.push(bad);
        }
        new
    }

    pub fn row(&self, i: usize) -> &[f64] {
        &self.unit[i * self.dim..(i + 1) * self.dim]
    }

    /// The mean direction.
    pub fn mean(&self) -> Vec<f64> {
        let (count, mut mean) = (self.length.len(), vec![0.0; self.dim]);
        for j in 0..count {
            mean.iter_mut().zip(self.row(j)).for_each(|(m, unit)| *m += unit / count as f64);
        }
        mean
    }

    /// A linear head divides by no length.
    pub fn short(&self, i: usize) -> bool {
        self.normalised && !self.non_finite[i] && self.length[i] < SHORTEST
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The gradient to `count` vectors of `own` from dL/d(cosine with each vector of `others`): sum the directions, take out
/// the radial part, divide by the length.
pub(super) fn gradient(
    own: &Directions,
    others: &Directions,
    count: usize,
    g: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let mut out = Vec::with_capacity(count * own.dim);
    for a in 0..count {
        let mut pull = vec![0.0; own.dim];
        for b in 0..others.non_finite.len() {
            let g = g(a, b);
            if g != 0.0 {
                pull.iter_mut().zip(others.row(b)).for_each(|(p, v)| *p += g * v);
            }
        }
        if !own.normalised {
            out.extend(if own.non_finite[a] { vec![0.0; own.dim] } else { pull });
            continue;
        }
        let radial = dot(&pull, own.row(a));
        let keep = !own.short(a) && !own.non_finite[a];
        out.extend(pull.iter().zip(own.row(a)).map(|(p, v)| if keep { (p - radial * v) / own.length[a] } else { 0.0 }));
    }
    out
}

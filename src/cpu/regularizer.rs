//! Regularisers and center loss on the CPU: f32 in and out, sums in f64, over fixed blocks of vectors.

use rayon::prelude::*;

use super::product::{Matrix, Pieces, product};
use crate::{
    data::{CenterOutput, Penalty},
    objective::{CenterLoss, Regularizer, SHORTEST},
};

/// Vectors of a task, whatever the number of threads; rows of a tile of pairs.
const BLOCK: usize = 64;
/// Columns of a tile of pairs.
const TILE: usize = 512;
/// Pairs nearer than this, squared, are taken from the vectors as they came: 2 − 2·cosine would lose their precision.
const NEAR: f64 = 0.5;

struct Vectors<'a> {
    dim: usize,
    data: &'a [f32],
    /// NaN where a value is not finite.
    lengths: Vec<f64>,
    /// 1/max(length, 1e-12).
    inverse: Vec<f64>,
}

impl<'a> Vectors<'a> {
    fn new(data: &'a [f32], dim: usize) -> Self {
        let length = |v: &[f32]| {
            // squares of f32 neither overflow nor vanish in f64
            let length = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            if length.is_finite() { length } else { f64::NAN }
        };
        let lengths: Vec<f64> = data.par_chunks_exact(dim).with_min_len(BLOCK).map(length).collect();
        let inverse = lengths.iter().map(|l| 1.0 / l.max(SHORTEST)).collect();
        Self { dim, data, lengths, inverse }
    }

    fn len(&self) -> usize {
        self.lengths.len()
    }

    fn unit(&self, j: usize) -> impl Iterator<Item = f64> + '_ {
        let inverse = self.inverse[j];
        self.data[j * self.dim..(j + 1) * self.dim].iter().map(move |&x| f64::from(x) * inverse)
    }

    /// From `pull`, a derivative by the direction of vector j, to the gradient.
    fn project(&self, j: usize, weight: f64, pull: &[f64], out: &mut [f32]) {
        if self.lengths[j] < SHORTEST {
            return out.fill(0.0);
        }
        let radial: f64 = pull.iter().zip(self.unit(j)).map(|(p, unit)| p * unit).sum();
        let factor = weight * self.inverse[j];
        let values = out.iter_mut().zip(pull).zip(self.unit(j));
        values.for_each(|((out, p), unit)| *out = (factor * (p - radial * unit)) as f32);
    }
}

pub(crate) fn regularize(regularizer: &Regularizer, dim: usize, prototypes: &[f32]) -> Penalty {
    let w = Vectors::new(prototypes, dim);
    let mut gradient = vec![0.0; prototypes.len()];
    if w.lengths.iter().any(|l| l.is_nan()) {
        return Penalty { value: f32::NAN, gradient };
    }
    let value = match *regularizer {
        Regularizer::RegSs { weight } => mean_direction(&w, weight, &mut gradient),
        Regularizer::UniformFace { weight } => pairs(&w, weight, &mut gradient),
    };
    Penalty { value: value as f32, gradient }
}

/// Classes of one partial sum of the mean direction.
const RUN: usize = 1024;

fn mean_direction(w: &Vectors<'_>, weight: f64, gradient: &mut [f32]) -> f64 {
    let (dim, classes) = (w.dim, w.len());
    let partial = |run: usize| {
        let mut sum = vec![0.0; dim];
        for j in run * RUN..classes.min((run + 1) * RUN) {
            sum.iter_mut().zip(w.unit(j)).for_each(|(s, unit)| *s += unit);
        }
        sum
    };
    let partials: Vec<Vec<f64>> = (0..classes.div_ceil(RUN)).into_par_iter().map(partial).collect();
    let mut mean = vec![0.0; dim];
    for partial in &partials {
        mean.iter_mut().zip(partial).for_each(|(m, p)| *m += p / classes as f64);
    }
    let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > 0.0 {
        mean.iter_mut().for_each(|x| *x /= length);
        let rows = gradient.par_chunks_exact_mut(dim).enumerate().with_min_len(BLOCK);
        rows.for_each(|(j, out)| w.project(j, weight / classes as f64, &mean, out));
    }
    weight * length
}

fn pairs(w: &Vectors<'_>, weight: f64, gradient: &mut [f32]) -> f64 {
    let (dim, classes) = (w.dim, w.len());
    if classes < 2 {
        return 0.0;
    }
    let scale = weight / (classes as f64 * (classes as f64 - 1.0));
    let mut units = vec![0.0_f32; classes * dim];
    let rows = units.par_chunks_exact_mut(dim).enumerate().with_min_len(BLOCK);
    rows.for_each(|(j, out)| out.iter_mut().zip(w.unit(j)).for_each(|(out, unit)| *out = unit as f32));
    // |ŵ|², 1 but for short vectors
    let square = |j: usize| (w.lengths[j] * w.inverse[j]).powi(2);
    let squares: Vec<f64> = (0..classes).map(square).collect();

    let block = |(block, out): (usize, &mut [f32])| {
        let (first, rows) = (block * BLOCK, out.len() / dim);
        let own = Matrix::new(&units[first * dim..], rows, dim);
        let mut tile = vec![0.0; rows * TILE];
        let (mut far, mut near) = (vec![0.0; rows * dim], vec![0.0; rows * dim]);
        let mut apart = vec![0.0; dim];
        let mut sum = 0.0;
        for start in (0..classes).step_by(TILE) {
            let width = TILE.min(classes - start);
            let others = Matrix::new(&units[start * dim..], width, dim);
            product(Pieces::USUAL, &mut tile, false, own, others.transposed());
            for (row, cells) in tile.chunks_exact_mut(width).take(rows).enumerate() {
                let j = first + row;
                for (k, cell) in (start..).zip(cells) {
                    let square = squares[j] + squares[k] - 2.0 * f64::from(*cell);
                    *cell = 0.0;
                    if j == k {
                        continue;
                    }
                    if square >= NEAR {
                        let d = square.sqrt();
                        sum += 1.0 / (1.0 + d);
                        *cell = (1.0 / (d * (1.0 + d) * (1.0 + d))) as f32;
                        continue;
                    }
                    let others = w.unit(k).zip(w.unit(j));
                    apart.iter_mut().zip(others).for_each(|(x, (other, own))| *x = other - own);
                    let d = apart.iter().map(|x| x * x).sum::<f64>().sqrt();
                    sum += 1.0 / (1.0 + d);
                    if d > 0.0 {
                        let pull = 1.0 / (d * (1.0 + d) * (1.0 + d));
                        near[row * dim..][..dim].iter_mut().zip(&apart).for_each(|(n, x)| *n += pull * x);
                    }
                }
            }
            product(Pieces::USUAL, &mut far, true, Matrix::new(&tile, rows, width), others);
        }
        let pulls = near.chunks_exact_mut(dim).zip(far.chunks_exact(dim));
        for (row, ((pull, far), out)) in pulls.zip(out.chunks_exact_mut(dim)).enumerate() {
            // along its own direction a far pair has no part
            pull.iter_mut().zip(far).for_each(|(p, f)| *p += f64::from(*f));
            w.project(first + row, 2.0 * scale, pull, out);
        }
        sum
    };
    let sums: Vec<f64> = gradient.par_chunks_mut(BLOCK * dim).enumerate().map(block).collect();
    scale * sums.iter().sum::<f64>()
}

/// `classes` holds a valid class per row, or none for an ignored one.
pub(crate) fn center_loss(
    loss: &CenterLoss,
    dim: usize,
    embeddings: &[f32],
    classes: &[Option<usize>],
    centers: &[f32],
) -> CenterOutput {
    let n = classes.iter().flatten().count();
    let gain = loss.weight / n.max(1) as f64;
    let mut grad_embeddings = vec![0.0; embeddings.len()];
    let row = |((out, t), class): ((&mut [f32], &[f32]), &Option<usize>)| {
        let Some(class) = class else { return 0.0 };
        let mut sum = 0.0;
        for ((out, t), c) in out.iter_mut().zip(t).zip(&centers[class * dim..]) {
            let apart = f64::from(*t) - f64::from(*c);
            sum += apart * apart;
            *out = (gain * apart) as f32;
        }
        sum
    };
    let rows = grad_embeddings.par_chunks_exact_mut(dim).zip(embeddings.par_chunks_exact(dim)).zip(classes);
    let sums: Vec<f64> = rows.with_min_len(BLOCK).map(row).collect();
    // an empty sum of f64 is -0.0
    let sum = sums.iter().fold(0.0, |sum, own| sum + own);
    if !sum.is_finite() {
        grad_embeddings.fill(0.0);
        return CenterOutput { loss: f32::NAN, grad_embeddings };
    }
    CenterOutput { loss: (0.5 * gain * sum) as f32, grad_embeddings }
}

pub(crate) fn update_centers(
    loss: &CenterLoss,
    dim: usize,
    embeddings: &[f32],
    classes: &[Option<usize>],
    centers: &mut [f32],
) {
    let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
    let labelled = classes.iter().zip(embeddings.chunks_exact(dim)).filter_map(|(class, t)| Some(((*class)?, t)));
    let mut rows: Vec<(usize, &[f32])> = labelled.filter(|(_, t)| finite(t)).collect();
    // stable: within a class the order of the batch
    rows.sort_by_key(|(class, _)| *class);
    let mut sum = vec![0.0; dim];
    for own in rows.chunk_by(|a, b| a.0 == b.0) {
        let class = own[0].0;
        let center = &mut centers[class * dim..(class + 1) * dim];
        if !finite(center) {
            continue;
        }
        sum.fill(0.0);
        for (_, t) in own {
            let apart = t.iter().zip(&*center).map(|(t, c)| f64::from(*t) - f64::from(*c));
            sum.iter_mut().zip(apart).for_each(|(s, x)| *s += x);
        }
        let step = loss.rate / (1.0 + own.len() as f64);
        center.iter_mut().zip(&sum).for_each(|(c, s)| *c = (f64::from(*c) + step * s) as f32);
    }
}

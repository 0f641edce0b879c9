//! Regularisers and center loss in f64.

use super::{Directions, dot};
use crate::{
    Label, Result,
    data::{CenterOutput, Penalty},
    objective::{CenterLoss, Regularizer},
};

/// A penalty on prototypes \[C, D\] and its gradient.
pub fn regularize(regularizer: &Regularizer, dim: usize, prototypes: &[f64]) -> Result<Penalty<f64>> {
    let classes = regularizer.check(dim, prototypes.len())?.classes();
    let w = Directions::new(prototypes, dim, true);
    if w.non_finite.contains(&true) {
        return Ok(Penalty { value: f64::NAN, gradient: vec![0.0; prototypes.len()] });
    }
    // the value, and its derivative by each direction
    let (value, mut gradient) = match regularizer {
        Regularizer::RegSs { .. } => mean_direction(&w, classes),
        Regularizer::UniformFace { .. } => pairs(&w, classes),
    };
    for (j, pull) in gradient.chunks_exact_mut(dim).enumerate() {
        let radial = dot(pull, w.row(j));
        let factor = if w.short(j) { 0.0 } else { regularizer.weight() / w.length[j] };
        pull.iter_mut().zip(w.row(j)).for_each(|(p, unit)| *p = factor * (*p - radial * unit));
    }
    Ok(Penalty { value: regularizer.weight() * value, gradient })
}

fn mean_direction(w: &Directions, classes: usize) -> (f64, Vec<f64>) {
    let mut mean = vec![0.0; w.dim];
    for j in 0..classes {
        mean.iter_mut().zip(w.row(j)).for_each(|(m, unit)| *m += unit / classes as f64);
    }
    let length = mean.iter().fold(0.0_f64, |h, x| h.hypot(*x));
    let along = |x: f64| if length > 0.0 { x / length / classes as f64 } else { 0.0 };
    let one: Vec<f64> = mean.into_iter().map(along).collect();
    (length, one.repeat(classes))
}

fn pairs(w: &Directions, classes: usize) -> (f64, Vec<f64>) {
    let count = classes as f64 * (classes as f64 - 1.0);
    let (mut value, mut gradient) = (0.0, vec![0.0; classes * w.dim]);
    for (j, pull) in gradient.chunks_exact_mut(w.dim).enumerate() {
        for k in (0..classes).filter(|&k| k != j) {
            let apart = || w.row(j).iter().zip(w.row(k)).map(|(a, b)| a - b);
            let d = apart().fold(0.0_f64, |h, x| h.hypot(x));
            value += 1.0 / (1.0 + d) / count;
            if d > 0.0 {
                pull.iter_mut().zip(apart()).for_each(|(p, x)| *p -= 2.0 / count * x / d / (1.0 + d).powi(2));
            }
        }
    }
    (value, gradient)
}

/// The center loss of embeddings \[N, D\] around centers \[C, D\], and its gradient to the embeddings.
pub fn center_loss<L: Label>(
    loss: &CenterLoss,
    dim: usize,
    embeddings: &[f64],
    labels: &[L],
    centers: &[f64],
) -> Result<CenterOutput<f64>> {
    let (_, classes) = loss.check(dim, embeddings.len(), labels, centers.len())?;
    let n = classes.iter().flatten().count() as f64;
    let (mut value, mut gradient) = (0.0, vec![]);
    for (t, class) in embeddings.chunks_exact(dim).zip(&classes) {
        let Some(class) = class else {
            gradient.extend(vec![0.0; dim]);
            continue;
        };
        for (t, c) in t.iter().zip(&centers[class * dim..]) {
            value += loss.weight / (2.0 * n) * (t - c).powi(2);
            gradient.push(loss.weight / n * (t - c));
        }
    }
    if gradient.iter().any(|g| !g.is_finite()) {
        (value, gradient) = (f64::NAN, vec![0.0; embeddings.len()]);
    }
    Ok(CenterOutput { loss: value, grad_embeddings: gradient })
}

/// Moves the centers \[C, D\] towards the embeddings \[N, D\] of their classes.
pub fn update_centers<L: Label>(
    loss: &CenterLoss,
    dim: usize,
    embeddings: &[f64],
    labels: &[L],
    centers: &mut [f64],
) -> Result<()> {
    let (shape, classes) = loss.check(dim, embeddings.len(), labels, centers.len())?;
    for class in 0..shape.classes() {
        let center = &mut centers[class * dim..(class + 1) * dim];
        let own = embeddings.chunks_exact(dim).zip(&classes).filter(|(_, c)| **c == Some(class));
        let finite = |t: &[f64]| t.iter().zip(&*center).all(|(t, c)| (t - c).is_finite());
        let rows: Vec<&[f64]> = own.map(|(t, _)| t).filter(|t| finite(t)).collect();
        for (d, c) in center.iter_mut().enumerate() {
            if !rows.is_empty() {
                let delta: f64 = rows.iter().map(|t| *c - t[d]).sum();
                *c -= loss.rate * delta / (1.0 + rows.len() as f64);
            }
        }
    }
    Ok(())
}

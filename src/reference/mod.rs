//! The f64 oracle on slices: short, obvious, slow. The CPU and GPU paths are judged by it, and it is judged by finite
//! differences and by golden vectors.

mod monitor;

pub use monitor::{between, mean_prototype};

use crate::{
    Batch, Counts, Label, Output, Reduction, Result, Shape, Want,
    objective::{MarginSoftmax, SHORTEST},
};

/// Loss and gradients of one batch in f64, everything N×C materialised.
pub fn evaluate<L: Label>(
    loss: &MarginSoftmax,
    shape: Shape,
    want: Want,
    batch: &Batch<'_, L, f64>,
) -> Result<Output<f64>> {
    loss.validate()?;
    let labels = batch.check(loss, shape)?;
    let (rows, classes, dim) = (labels.len(), shape.classes(), shape.dim());
    let x = Directions::new(batch.embeddings, dim);
    let w = Directions::new(batch.prototypes, dim);
    let weight = |class: usize| batch.class_weights.map_or(1.0, |w| w[class]);
    let all_weights: f64 = (0..classes).map(weight).sum();
    let epsilon = loss.label_smoothing;
    let broken = w.non_finite.iter().any(|&bad| bad);
    let target = loss.target.evaluator();

    let ignored = |i: usize| Some(labels[i]) == loss.ignore_index;
    let counts_for_nothing = |i: usize| ignored(i) || x.non_finite[i] || broken;
    let z: f64 = match loss.reduction {
        Reduction::Mean => {
            (0..rows).filter(|&i| !ignored(i) && !x.non_finite[i]).map(|i| weight(labels[i] as usize)).sum()
        }
        _ => 1.0,
    };

    let mut out = Output {
        row_losses: vec![0.0; rows],
        target_cosines: vec![0.0; rows],
        other_cosines: vec![-1.0; rows],
        counts: Counts {
            rows: (0..rows).filter(|&i| !ignored(i) && !x.non_finite[i]).count(),
            ignored: (0..rows).filter(|&i| ignored(i)).count(),
            non_finite_rows: (0..rows).filter(|&i| !ignored(i) && x.non_finite[i]).count(),
            invalid_labels: 0,
            zero_embeddings: (0..rows).filter(|&i| !ignored(i) && x.short(i)).count(),
            zero_prototypes: (0..classes).filter(|&j| w.short(j)).count(),
            non_finite_prototypes: w.non_finite.iter().filter(|&&bad| bad).count(),
        },
        ..Default::default()
    };
    // G[i][j] = dL/dc_ij
    let mut g = vec![0.0; rows * classes];
    for i in 0..rows {
        if counts_for_nothing(i) {
            out.row_losses[i] = if ignored(i) { 0.0 } else { f64::NAN };
            continue;
        }
        let y = labels[i] as usize;
        let cosines: Vec<f64> = (0..classes).map(|j| dot(x.row(i), w.row(j))).collect();
        let others = || (0..classes).filter(move |&j| j != y);
        let (value, slope) = target(cosines[y]);
        let zy = loss.scale * value;
        let logits: Vec<f64> = cosines.iter().map(|&c| loss.scale * loss.others.value_slope(c).0).collect();

        let most = others().map(|j| logits[j]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = others().map(|j| (logits[j] - most).exp()).sum();
        let log_others = if classes > 1 { most + sum.ln() } else { f64::NEG_INFINITY };
        let d = log_others - zy;
        let log_all = zy.max(log_others) + (-d.abs()).exp().ln_1p();
        let mass = (1.0 - epsilon) * weight(y) + epsilon / classes as f64 * all_weights;
        let smoothed: f64 = others().map(|j| weight(j) * (zy - logits[j])).sum();
        out.row_losses[i] = mass * softplus(d) + epsilon / classes as f64 * smoothed;
        out.target_cosines[i] = cosines[y];
        out.other_cosines[i] = others().map(|j| cosines[j]).fold(-1.0, f64::max);

        let upstream = batch.upstream.map_or(1.0, |up| if up.len() == 1 { up[0] } else { up[i] });
        // divided by z last: a tiny z must not overflow
        let gain = |pull: f64| if z > 0.0 { upstream * loss.scale * (pull / z) } else { 0.0 };
        for j in others() {
            let q = epsilon / classes as f64 * weight(j);
            let p = (logits[j] - log_all).exp();
            g[i * classes + j] = gain(mass * p - q) * loss.others.value_slope(cosines[j]).1;
        }
        let rest = epsilon / classes as f64 * others().map(weight).sum::<f64>();
        g[i * classes + y] = gain(rest - mass * sigmoid(d)) * slope;
    }
    // an empty sum of f64 is -0.0
    let sum = out.row_losses.iter().fold(0.0, |sum, loss| sum + loss);
    out.loss = match loss.reduction {
        // NaN where a row is NaN, 0 where no row counts
        Reduction::Mean if z > 0.0 || sum.is_nan() => sum / z,
        Reduction::Mean => 0.0,
        _ if broken => f64::NAN,
        _ => sum,
    };
    if broken {
        out.loss = f64::NAN;
    }

    if want.grad_embeddings {
        let column = |i: usize, j: usize| g[i * classes + j];
        out.grad_embeddings = gradient(&x, &w, rows, column);
    }
    if want.grad_prototypes {
        let column = |j: usize, i: usize| g[i * classes + j];
        out.grad_prototypes = gradient(&w, &x, classes, column);
    }
    Ok(out)
}

/// The gradient to `count` vectors of `own` from dL/d(cosine with each vector of `others`): sum the directions, take out
/// the radial part, divide by the length.
fn gradient(own: &Directions, others: &Directions, count: usize, g: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(count * own.dim);
    for a in 0..count {
        let mut pull = vec![0.0; own.dim];
        for b in 0..others.non_finite.len() {
            let g = g(a, b);
            if g != 0.0 {
                pull.iter_mut().zip(others.row(b)).for_each(|(p, v)| *p += g * v);
            }
        }
        let radial = dot(&pull, own.row(a));
        let keep = !own.short(a) && !own.non_finite[a];
        out.extend(pull.iter().zip(own.row(a)).map(|(p, v)| if keep { (p - radial * v) / own.length[a] } else { 0.0 }));
    }
    out
}

/// Unit vectors, and what was left out on the way.
struct Directions {
    dim: usize,
    unit: Vec<f64>,
    length: Vec<f64>,
    non_finite: Vec<bool>,
}

impl Directions {
    fn new(data: &[f64], dim: usize) -> Self {
        let mut new = Self { dim, unit: Vec::with_capacity(data.len()), length: vec![], non_finite: vec![] };
        for v in data.chunks_exact(dim) {
            let bad = v.iter().any(|x| !x.is_finite());
            let length = v.iter().fold(0.0_f64, |h, x| h.hypot(*x));
            new.unit.extend(v.iter().map(|x| if bad { 0.0 } else { x / length.max(SHORTEST) }));
            new.length.push(length);
            new.non_finite.push(bad);
        }
        new
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.unit[i * self.dim..(i + 1) * self.dim]
    }

    fn short(&self, i: usize) -> bool {
        !self.non_finite[i] && self.length[i] < SHORTEST
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// log(1 + e^d) without losing a tiny result.
pub(crate) fn softplus(d: f64) -> f64 {
    d.max(0.0) + (-d.abs()).exp().ln_1p()
}

/// 1/(1 + e^−d).
pub(crate) fn sigmoid(d: f64) -> f64 {
    if d >= 0.0 { 1.0 / (1.0 + (-d).exp()) } else { d.exp() / (1.0 + d.exp()) }
}

//! The nearest classes of each row, in f64.

use std::{cmp::Ordering, ops::Range};

use super::Shard;
use crate::{
    MarginSoftmax, Result, Shape, State,
    data::{Inputs, Prediction, Predictions},
    objective::{Prepared, softplus},
};

/// The `count` nearest classes of each row among those in `range`, at any state; prototypes and bias are those of the range.
pub fn predict(
    loss: &MarginSoftmax,
    shape: Shape,
    range: Range<usize>,
    count: usize,
    inputs: &Inputs<'_, f64>,
    state: &State,
) -> Result<Predictions<f64>> {
    let loss = Prepared::new(loss, shape)?;
    state.validate(shape)?;
    Predictions::<f64>::check(count, shape.classes())?;
    let batch = inputs.check(&loss, shape, &range)?;
    Ok(Shard::of(&loss, shape, range, batch)?.predictions(count, state))
}

impl Shard<'_> {
    /// The nearest classes of this shard.
    pub(crate) fn predictions(&self, count: usize, state: &State) -> Predictions<f64> {
        let (rows, classes) = (self.batch.rows(), self.range.len());
        let mut out = Predictions::default();
        out.reset(rows, count, self.range.clone(), self.loss.binary().is_none());
        out.non_finite_rows = (0..rows).filter(|&i| !self.ignored(i) && !self.counts(i)).count();
        out.non_finite_prototypes = self.w.non_finite.iter().filter(|&&bad| bad).count();
        let broken = out.non_finite_prototypes > 0;
        for i in (0..rows).filter(|&i| self.counts(i) && !broken) {
            let scale = self.scale(i, state);
            let mut nearest: Vec<usize> = (0..classes).collect();
            // stable, and finite: of equal cosines, 0 and -0 too, the lower class comes first
            nearest.sort_by(|&a, &b| self.cosine(i, b).partial_cmp(&self.cosine(i, a)).unwrap_or(Ordering::Equal));
            let most = scale * self.cosine(i, nearest[0]);
            let log_sum = most + (0..classes).map(|j| (scale * self.cosine(i, j) - most).exp()).sum::<f64>().ln();
            for (k, &j) in nearest.iter().take(count).enumerate() {
                let (cosine, z) = (self.cosine(i, j), scale * self.cosine(i, j));
                let log_probability = match self.loss.binary() {
                    None => z - log_sum,
                    Some(link) => -softplus(-(z + link.bias)),
                };
                let sub_center = (self.vector(i, j) - j * self.shape.sub_centers()) as u32;
                let class = (self.range.start + j) as u32;
                out.set(i, k, Prediction { class, cosine, log_probability, sub_center });
            }
            if let Some(sum) = out.log_sum_exps.get_mut(i) {
                *sum = log_sum;
            }
        }
        out
    }
}

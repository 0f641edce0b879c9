//! Predictions: the nearest classes of every row, from what a sweep chose and summed.
//!
//! A sweep compares cosines in f32. The few that it chooses are computed again from the vectors as they came, in f64, and put in
//! order by those, so that neither tiles nor the number of threads decide a place; equal prototypes are exact ties.

use super::{
    head::CpuHead,
    input::{HeadCall, ROWS, each},
    ranges::Look,
    rows::{HeadRow, Weights},
    tiling::Setup,
};
use crate::{
    State,
    data::{Counts, Predictions},
    objective::{CheckedBatch, TopK, softplus},
};

/// A class that may be among the nearest: its cosine in f32 and f64, and its prototype.
type Candidate = (f32, f64, u32, u32);

impl CpuHead {
    /// The nearest classes of rows without labels.
    pub fn predict(&mut self, batch: CheckedBatch<'_>, state: &State, out: &mut Predictions) {
        let call = self.begin(batch);
        self.look_up(&call, false, state, out);
    }

    /// The same from a sweep of its own. `ready`: what is kept are cosines already.
    pub(super) fn look_up(&mut self, call: &HeadCall<'_>, ready: bool, state: &State, out: &mut Predictions) {
        let look = Look { top: self.predictions(), sums: self.loss.binary().is_none() };
        self.scan(call, look, ready, state);
        self.collect(call, state, out);
    }

    /// The nearest classes of what the last sweep chose, with its sums.
    pub(super) fn collect(&self, call: &HeadCall<'_>, state: &State, out: &mut Predictions) {
        let (n, count, linear) = (call.batch.rows(), self.predictions(), self.loss.is_linear());
        out.reset(n, count, self.range.clone(), self.loss.binary().is_none());
        out.non_finite_prototypes = self.found().non_finite_prototypes;
        if out.non_finite_prototypes > 0 {
            out.non_finite_rows = (0..n).filter(|&i| !self.input.lengths[i].is_finite()).count();
            return;
        }
        let scale = state.scale_of(&self.loss);
        let all = self.range.len();
        let weights = Weights { scale, class_weight: 1.0, all: all as f64, unit: 1.0, epsilon: 0.0, classes: all };
        let fits = |i: usize, row: &HeadRow| !linear || row.fits(&self.workspace.partials[i].wide(), weights);
        for (i, sum) in out.log_sum_exp.iter_mut().enumerate() {
            let row = &self.input.rows[i];
            if row.counts() && fits(i, row) {
                *sum = self.log_sum_exp(i, scale) as f32;
            }
        }
        let values = out.classes.chunks_mut(ROWS * count).zip(out.cosines.chunks_mut(ROWS * count));
        let more = out.log_probabilities.chunks_mut(ROWS * count).zip(out.sub_centers.chunks_mut(ROWS * count));
        each(
            call.parallel,
            values.zip(more).enumerate().collect(),
            |(block, ((classes, cosines), (logs, centers)))| {
                for (place, i) in (block * ROWS..n.min((block + 1) * ROWS)).enumerate() {
                    let row = &self.input.rows[i];
                    if !row.counts() || !fits(i, row) {
                        continue;
                    }
                    let mut nearest = [(f32::NEG_INFINITY, 0.0, u32::MAX, 0); TopK::MAX + 1];
                    let found = self.nearest(call, i, &mut nearest);
                    let log_sum = self.log_sum_exp(i, scale);
                    for (k, &(cosine, exact, class, center)) in nearest[..found.min(count)].iter().enumerate() {
                        let log = match self.loss.binary() {
                            // a rounding of the sum must not make it a probability above 1
                            None => (scale * exact - log_sum).min(0.0),
                            Some(link) => -softplus(-(scale * exact + link.bias)),
                        };
                        let at = place * count + k;
                        (classes[at], cosines[at], logs[at], centers[at]) = (class, cosine, log as f32, center);
                    }
                }
            },
        );
        let label = |i: usize| Some(call.batch.labels[i]) != self.loss.ignore_index;
        let none = |i: &usize| out.get(*i, 0).is_none() && label(*i);
        out.non_finite_rows = (0..n).filter(none).count();
    }

    /// Without those of the rows that the loss left out.
    pub(super) fn settle(&self, mut all: Predictions, counts: &Counts) -> Predictions {
        let rows = self.input.rows[..all.rows()].iter().enumerate();
        rows.filter(|(_, row)| !row.counts()).for_each(|(i, _)| all.clear(i));
        Predictions { non_finite_rows: counts.non_finite_rows, ..all }
    }

    /// A row's nearest classes in order, the labelled one among them, and how many there are.
    fn nearest(&self, call: &HeadCall<'_>, i: usize, nearest: &mut [Candidate; TopK::MAX + 1]) -> usize {
        let (Setup { arch, tiling, .. }, linear) = (self.setup, self.loss.is_linear());
        let (row, length) = (&self.input.rows[i], self.input.lengths[i]);
        let x = &call.batch.embeddings[i * tiling.dim..(i + 1) * tiling.dim];
        let (chosen, mut found) = self.best(call, i, self.predictions());
        for (place, (_, class)) in nearest.iter_mut().zip(&chosen[..found]) {
            let (exact, center) = call.cosine(arch, linear, &self.range, (x, length), *class as usize);
            *place = (exact as f32, exact, *class, center);
        }
        if self.range.contains(&row.class) {
            nearest[found] = (row.cosine as f32, row.cosine, row.class as u32, self.input.extras[i].center);
            found += 1;
        }
        nearest[..found].sort_unstable_by(|a, b| (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then(a.2.cmp(&b.2)));
        found
    }

    /// log Σ exp(s·c) of a row over the classes of this head; the labelled one stays out of the sweep's sums.
    fn log_sum_exp(&self, i: usize, scale: f64) -> f64 {
        let (row, all) = (&self.input.rows[i], self.workspace.partials[i].wide());
        let others = if all.sum == 0.0 { f64::NEG_INFINITY } else { all.max_logit + all.sum.ln() };
        if !self.range.contains(&row.class) {
            return others;
        }
        let own = scale * row.cosine;
        own.max(others) + (-(own - others).abs()).exp().ln_1p()
    }
}

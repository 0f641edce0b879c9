//! Between the passes and after them: losses, counts, what pass 2 needs of every row, and dX from its shares.

use super::{
    directions::Project,
    input::{HeadCall, Input, ROWS, each},
    rows::{HeadRow, RowExtras, Share, Weights},
    tiling::{Setup, Tiling},
    total::Finish,
    vector::AddTo,
    workspace::Workspace,
};
use crate::{
    Output, Shape, State,
    data::{Counts, NO_COSINE},
    objective::{Prepared, SHORTEST},
    shard::RowStatistics,
};

/// A head between the passes.
pub(super) struct Between<'a> {
    pub loss: &'a Prepared,
    /// Of the whole head.
    pub shape: Shape,
    /// Whether this shard has the first class: it reports the sums over rows.
    pub first: bool,
    pub setup: Setup,
    pub input: &'a mut Input,
}

impl Between<'_> {
    /// Losses, counts, and what pass 2 needs of every row. Returns the divisor of the sum over the rows.
    pub fn finish(
        self,
        call: &HeadCall<'_>,
        found: Counts,
        sums: impl Fn(usize) -> RowStatistics,
        state: &State,
        out: &mut Output,
    ) -> f64 {
        let batch = &call.batch;
        let (n, classes, loss, first) = (batch.rows(), self.shape.classes(), self.loss, self.first);
        let (want, scale, linear) = (self.setup.tiling.want, state.scale_of(loss), loss.is_linear());
        let weights = Weights::of(batch, classes, scale, loss.label_smoothing);
        if linear {
            // products of finite vectors may leave f32
            for (i, row) in self.input.rows[..n].iter_mut().enumerate().filter(|(_, row)| row.counts()) {
                if !row.fits(loss, &sums(i), weights(i, row.class)) {
                    *row = HeadRow::NONE;
                }
            }
        }
        let counts = self.counts(call, found);
        let broken = counts.non_finite_prototypes > 0;
        let (rows, extras) = (&mut self.input.rows[..n], &mut self.input.extras[..n]);
        let counting = rows.iter().enumerate().filter(|(_, row)| row.counts());
        let normalizer = counting.map(|(i, row)| weights(i, row.class).own()).fold(0.0, |sum, own| sum + own);
        let z = loss.divisor(normalizer, batch.divisor.map(f64::from));
        out.normalizer = normalizer as f32;
        resize(&mut out.row_losses, n);
        resize(&mut out.log_sum_exps, if loss.binary().is_some() { 0 } else { n });
        out.log_sum_exps.fill(0.0);
        resize(&mut out.target_cosines, n);
        resize(&mut out.other_cosines, n);
        let filter = self.setup.filter.map_or(0.0, |filter| filter.epsilon());
        let (mut sum, mut grad_scale, mut grad_bias) = (0.0, 0.0, 0.0);
        for (i, (row, extra)) in rows.iter_mut().zip(extras).enumerate() {
            let ignored = Some(batch.labels[i]) == loss.ignore_index;
            let (mut own, mut cosine, mut nearest) = (if ignored { 0.0 } else { f64::NAN }, 0.0, NO_COSINE as f32);
            extra.length_gradient = 0.0;
            if row.counts() && !broken {
                let others = sums(i);
                let upstream = batch.upstream.map_or(1.0, |up| f64::from(if up.len() == 1 { up[0] } else { up[i] }));
                let part = if z > 0.0 { upstream / z } else { 0.0 };
                let weights = weights(i, row.class);
                let share = finish_row(loss, (row, extra), &others, weights, part, self.input.lengths[i]);
                own = share.loss;
                if let Some(sum) = out.log_sum_exps.get_mut(i) {
                    *sum = share.log_sum_exp as f32;
                }
                // what vanishes in f32 must not look like a row without a gradient
                let gain = part * scale;
                row.limit =
                    if gain == 0.0 { 0.0 } else { (filter * gain.abs()).max(f64::from(f32::MIN_POSITIVE)) } as f32;
                cosine = row.cosine as f32;
                nearest = others.nearest as f32;
                if !(linear && classes > 1) {
                    nearest = nearest.max(NO_COSINE as f32);
                }
                grad_scale += share.scale;
                grad_bias += share.bias;
            }
            sum += own;
            (out.row_losses[i], out.target_cosines[i], out.other_cosines[i]) = (own as f32, cosine, nearest);
        }
        out.loss = if broken { f32::NAN } else { loss.reduced(sum, z) as f32 };
        out.grad_scale = if want.grad_scale && first { grad_scale as f32 } else { 0.0 };
        if !linear {
            let one = want.grad_bias && loss.binary().is_some();
            resize(&mut out.grad_bias, usize::from(one));
            out.grad_bias.fill(if first { grad_bias as f32 } else { 0.0 });
        }
        out.counts = counts;
        z
    }

    /// `found`: the prototypes that are left out.
    fn counts(&self, call: &HeadCall<'_>, found: Counts) -> Counts {
        let (labels, n) = (&call.batch.labels, call.batch.rows());
        let (rows, lengths) = (&self.input.rows[..n], &self.input.lengths[..n]);
        let linear = self.loss.is_linear();
        let short = |(row, length): &(&HeadRow, &f64)| row.counts() && !linear && **length < SHORTEST;
        let counted = rows.iter().filter(|r| r.counts()).count();
        let ignored = labels.iter().filter(|label| Some(**label) == self.loss.ignore_index).count();
        Counts {
            rows: counted,
            ignored,
            non_finite_rows: n - counted - ignored,
            zero_embeddings: rows.iter().zip(lengths).filter(short).count(),
            ..found
        }
    }
}

/// The contribution of one row to the batch; writes the numbers of it that pass 2 needs. `part` is upstream / Z.
fn finish_row(
    loss: &Prepared,
    (row, extra): (&mut HeadRow, &mut RowExtras),
    others: &RowStatistics,
    weights: Weights,
    part: f64,
    length: f64,
) -> Share {
    // a scale that is 0 in f32 leaves no largest value; what is subtracted then is multiplied by 0 too
    let best = (others.max_logit / f64::from(weights.scale as f32)) as f32;
    extra.best = if best.is_nan() { 0.0 } else { best };
    let mut share = match loss.binary() {
        None => row.finish(loss, extra.value, others, weights, part),
        Some(link) => row.finish_binary(extra.value, others, weights, link, part),
    };
    if let Some(family) = loss.length_term() {
        let rise = if family.length(length).1 { family.rise() } else { 0.0 };
        let (value, slope) = family.length_term(length);
        share.loss += weights.own() * value;
        extra.length_gradient = (share.pull * extra.slope_m2 * rise + part * weights.own() * slope) as f32;
    }
    share
}

/// dX, projected: in *recompute* after the other ranges' shares are added to the first in order.
pub(super) fn finish_embeddings(
    setup: Setup,
    linear: bool,
    call: &HeadCall<'_>,
    lengths: &[f64],
    workspace: &Workspace,
    grad: &mut [f32],
) {
    let Setup { arch, tiling, .. } = setup;
    let Tiling { dim, ranges, keep, .. } = tiling;
    if keep {
        return place_embeddings(setup, linear, call, lengths, workspace, grad);
    }
    let len = grad.len();
    let own = call.batch.embeddings.chunks(dim * ROWS).zip(lengths.chunks(ROWS));
    let blocks = grad.chunks_mut(dim * ROWS).zip(own).enumerate().collect();
    each(call.parallel, blocks, |(block, (pull, (from, lengths)))| {
        let first = block * dim * ROWS;
        let shares = || workspace.shares.chunks_exact(len).take(ranges - 1);
        let project = |pull| Project { pull, from, step: 1, dim, lengths, divided: false };
        if tiling.long_ranges() {
            let totals = || workspace.totals.chunks_exact(len).take(ranges);
            let total = |i: usize, _| totals().map(|total| total[first + i]).sum();
            return arch.dispatch(Finish { total, project: project(pull), linear });
        }
        if tiling.long_embeddings() {
            let others = |i: usize| shares().map(|share| f64::from(share[first + i])).sum::<f64>();
            let total = |i: usize, own: f32| f64::from(own) + others(i);
            return arch.dispatch(Finish { total, project: project(pull), linear });
        }
        for share in shares() {
            arch.dispatch(AddTo { from: &share[first..][..pull.len()], to: pull });
        }
        if !linear {
            arch.dispatch(project(pull));
        }
    });
}

/// dX in *keep*: its blocks in their places, then projected.
fn place_embeddings(
    setup: Setup,
    linear: bool,
    call: &HeadCall<'_>,
    lengths: &[f64],
    workspace: &Workspace,
    grad: &mut [f32],
) {
    let Setup { arch, tiling, .. } = setup;
    let (n, dim, division) = (call.batch.rows(), tiling.dim, call.division);
    let own = call.batch.embeddings.chunks(dim * ROWS).zip(lengths.chunks(ROWS));
    let blocks = grad.chunks_mut(dim * ROWS).zip(own).enumerate().collect();
    each(call.parallel, blocks, |(block, (grad, (from, lengths)))| {
        let rows = grad.chunks_mut(dim).zip(from.chunks(dim).zip(lengths.chunks(1)));
        for (row, (pull, (from, lengths))) in (block * ROWS..).zip(rows) {
            if division.striped(dim) && !tiling.long_embeddings() {
                let mut at = 0;
                for (place, columns) in division.places(n, dim, row) {
                    pull[at..at + columns].copy_from_slice(&workspace.shares[place..place + columns]);
                    at += columns;
                }
            }
            let project = Project { pull, from, step: 1, dim, lengths, divided: false };
            if tiling.long_embeddings() {
                let total = |column: usize, _| workspace.totals[division.place(n, dim, row, column)];
                arch.dispatch(Finish { total, project, linear });
            } else if !linear {
                arch.dispatch(project);
            }
        }
    });
}

/// A vector of this length, whatever it holds.
pub(super) fn resize(v: &mut Vec<f32>, len: usize) {
    if v.capacity() < len {
        *v = vec![0.0; len]; // the system's zero pages: touched first by the thread that fills them
    } else {
        v.resize(len, 0.0);
    }
}

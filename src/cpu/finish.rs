//! Between the passes and after them: losses, counts, what pass 2 needs of every row, and dX from its shares.

use super::{
    directions::Project,
    input::{HeadCall, Input, ROWS, each},
    rows::{HeadRow, RowExtras, Weights},
    soft::TargetSlots,
    targets::{Terms, finish_row},
    tiling::{Setup, Tiling},
    total::Finish,
    vector::AddTo,
    workspace::Workspace,
};
use crate::{
    Output, Shape, State,
    data::{Counts, MarginGradients, NO_COSINE},
    objective::{CheckedBatch, Prepared, SHORTEST},
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
        mut self,
        call: &HeadCall<'_>,
        found: Counts,
        sums: impl Fn(usize) -> RowStatistics + Sync + Send,
        state: &State,
        out: &mut Output,
    ) -> f64 {
        let batch = &call.batch;
        let (n, loss) = (batch.rows(), self.loss);
        let (scale, linear) = (state.scale_of(loss), loss.is_linear());
        let weights = Weights::of(batch, self.shape.classes(), scale, loss.label_smoothing);
        let normalizer = self.normalizer(call, &sums, &weights);
        let counts = self.counts(call, found);
        let broken = counts.non_finite_prototypes > 0;
        let z = loss.divisor(normalizer, batch.divisor.map(f64::from));
        out.normalizer = normalizer as f32;
        let filter = self.setup.filter.map_or(0.0, |filter| filter.epsilon());
        let Input { rows, extras, soft, lengths, .. } = &mut *self.input;
        let (rows, extras, plain) = (&mut rows[..n], &mut extras[..n], linear && self.shape.classes() > 1);
        // returns the nearest other cosine and the log-sum-exp
        let finish = |i: usize, row: &mut HeadRow, extra: &mut RowExtras, targets: Option<TargetSlots<'_>>| {
            extra.length_gradient = 0.0;
            if !row.counts() || broken {
                let ignored = Some(batch.labels[i]) == loss.ignore_index;
                extra.loss = if ignored { 0.0 } else { f64::NAN };
                (extra.value, extra.slope_m2, row.slope) = (0.0, 0.0, 0.0);
                return [NO_COSINE as f32, 0.0];
            }
            let mut others = sums(i);
            let upstream = batch.upstream.map_or(1.0, |up| f64::from(if up.len() == 1 { up[0] } else { up[i] }));
            let part = if z > 0.0 { upstream / z } else { 0.0 };
            let mut own = weights(i, row.class);
            own.scale *= loss.length_factor(lengths[i]).0;
            let soft = batch.soft.as_ref().map_or(1.0, |soft| soft.of(i).1);
            let share = match targets {
                Some(targets) => {
                    let nearest = targets.nearest();
                    let share = Terms::new(loss, &weights, i, (others, part, lengths[i])).finish(targets, row, extra);
                    others.nearest = others.nearest.max(nearest);
                    share
                }
                None => finish_row(loss, (row, extra), &others, (own, [1.0; 2]), part, lengths[i]),
            };
            (extra.loss, extra.value, extra.slope_m2) = (share.loss, share.scale, share.bias);
            row.slope = share.pull;
            // what vanishes in f32 must not look like a row without a gradient
            let gain = part * own.scale;
            let least = filter * own.row * soft;
            let limit = if gain == 0.0 { 0.0 } else { (least * gain.abs()).max(f64::from(f32::MIN_POSITIVE)) };
            row.limit = limit as f32;
            let least = if plain { f32::NEG_INFINITY } else { NO_COSINE as f32 };
            [(others.nearest as f32).max(least), share.log_sum_exp as f32]
        };
        for vector in [&mut out.row_losses, &mut out.target_cosines, &mut out.other_cosines, &mut out.log_sum_exps] {
            resize(vector, n);
        }
        let found = out.other_cosines.chunks_mut(ROWS).zip(out.log_sum_exps.chunks_mut(ROWS));
        let targets = soft.blocks(batch.soft.as_ref(), n, ROWS).into_iter().chain(std::iter::repeat_with(Vec::new));
        let blocks = rows.chunks_mut(ROWS).zip(extras.chunks_mut(ROWS)).zip(targets).zip(found).enumerate().collect();
        each(call.parallel && n > 2 * ROWS, blocks, |(block, (((rows, extras), targets), (nearest, sums)))| {
            let (found, mut targets) = (nearest.iter_mut().zip(sums), targets.into_iter());
            for (i, ((row, extra), (nearest, sum))) in rows.iter_mut().zip(extras).zip(found).enumerate() {
                [*nearest, *sum] = finish(block * ROWS + i, row, extra, targets.next());
            }
        });
        out.counts = counts;
        self.reduce(n, z, broken, out);
        self.margins(batch, out);
        z
    }

    /// The sum of the weights of the rows that count. Products of finite vectors may leave f32: such a row of a linear head does not.
    fn normalizer(
        &mut self,
        call: &HeadCall<'_>,
        sums: impl Fn(usize) -> RowStatistics,
        weights: &impl Fn(usize, usize) -> Weights,
    ) -> f64 {
        let (loss, linear) = (self.loss, self.loss.is_linear());
        let Input { rows, soft, .. } = &mut *self.input;
        let mut normalizer = 0.0;
        for (i, row) in rows[..call.batch.rows()].iter_mut().enumerate().filter(|(_, row)| row.counts()) {
            let terms = |others| Terms::new(loss, weights, i, (others, 0.0, 0.0));
            let fits = !linear
                || match soft.of(call.batch.soft.as_ref(), i) {
                    Some(targets) => terms(sums(i)).fits(targets),
                    None => row.fits(loss.z_loss, &sums(i), weights(i, row.class)),
                };
            match soft.of(call.batch.soft.as_ref(), i) {
                _ if !fits => *row = HeadRow::NONE,
                Some(targets) => normalizer += terms(RowStatistics::EMPTY).own(targets),
                None => normalizer += weights(i, row.class).own(),
            }
        }
        normalizer
    }

    /// The sums over the rows, in their order, and what the output says of each.
    fn reduce(&self, n: usize, z: f64, broken: bool, out: &mut Output) {
        let (loss, want) = (self.loss, self.setup.tiling.want);
        let (linear, first) = (loss.is_linear(), self.first);
        for (i, (row, extra)) in self.input.rows[..n].iter().zip(&self.input.extras).enumerate() {
            out.row_losses[i] = extra.loss as f32;
            out.target_cosines[i] = if row.counts() && !broken { row.cosine as f32 } else { 0.0 };
        }
        if loss.binary().is_some() {
            out.log_sum_exps.clear();
        }
        let extras = &self.input.extras[..n];
        let sum = |of: fn(&RowExtras) -> f64| extras.iter().map(of).fold(0.0, |sum, one| sum + one);
        let (sum, grad_scale, grad_bias) = (sum(|e| e.loss), sum(|e| e.value), sum(|e| e.slope_m2));
        out.loss = if broken { f32::NAN } else { loss.reduced(sum, z) as f32 };
        out.grad_scale = if want.grad_scale && first { grad_scale as f32 } else { 0.0 };
        if !linear {
            let one = want.grad_bias && loss.binary().is_some();
            resize(&mut out.grad_bias, usize::from(one));
            out.grad_bias.fill(if first { grad_bias as f32 } else { 0.0 });
        }
    }

    /// The gradients of the rows' margins, summed in the order of the rows.
    fn margins(&self, batch: &CheckedBatch<'_>, out: &mut Output) {
        let Some(margins) = self.setup.tiling.want.grad_margins else { return out.grad_margins.clear() };
        let (n, loss) = (batch.rows(), self.loss);
        resize(&mut out.grad_margins, 4 * margins.count(n, self.shape.classes()));
        out.grad_margins.fill(0.0);
        if !self.first {
            return;
        }
        let own = loss.margins();
        let class = |i: usize| self.input.rows[i].class;
        let add = |sum: [f64; 4], &i: &usize| {
            let m = loss.margin_slopes(self.input.rows[i].cosine, batch.margins.as_ref().map_or(own, |all| all[i]));
            std::array::from_fn(|k| sum[k] + self.input.rows[i].slope * m[k])
        };
        let mut rows: Vec<usize> = (0..n).filter(|&i| self.input.rows[i].counts()).collect();
        if margins == MarginGradients::Classes {
            rows.sort_unstable_by_key(|&i| (class(i), i));
        }
        let place = |i: usize| match margins {
            MarginGradients::Sum => 0,
            MarginGradients::Classes => class(i),
            MarginGradients::Rows => i,
        };
        for same in rows.chunk_by(|&a, &b| place(a) == place(b)) {
            let sum = same.iter().fold([0.0; 4], add);
            out.grad_margins[4 * place(same[0])..][..4].copy_from_slice(&sum.map(|sum| sum as f32));
        }
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
    let blocks = grad.chunks_mut(dim * ROWS).zip(lengths.chunks(ROWS)).enumerate().collect();
    each(call.parallel, blocks, |(block, (pull, lengths))| {
        let (mut wide, first) = (vec![], block * dim * ROWS);
        let from = call.embeddings.part(first..first + pull.len()).widened_in(&mut wide);
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
    let blocks = grad.chunks_mut(dim * ROWS).zip(lengths.chunks(ROWS)).enumerate().collect();
    each(call.parallel, blocks, |(block, (grad, lengths))| {
        let (mut wide, first) = (vec![], block * dim * ROWS);
        let from = call.embeddings.part(first..first + grad.len()).widened_in(&mut wide);
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

//! A head on the CPU: the passes in order, for a whole head or one shard.

use std::ops::Range;

use pulp::Arch;

use super::{
    finish::{Between, Found, finish_embeddings, resize},
    layout::Layout,
    pass::{Look, Path},
    rows::{Partial, Row},
    sparse::Sifted,
    table,
    vector::Fused,
    work::{Call, Input, Outputs, ROWS, Setup, Work, each},
};
use crate::{
    Options, Others, Output, Result, Shape, State,
    data::Filtered,
    objective::{CheckedBatch, Prepared, RowFacts, TopK},
    shard::{Statistics, Targets},
};

/// A head on the CPU, or one shard of it.
///
/// All workspace is made here once. Beside it a call holds its labels and tasks, and each range the packing buffers of
/// the `gemm` crate: all of it is counted in [`workspace_bytes`](Self::workspace_bytes). Not counted is one block of the
/// size of the L2 cache that `gemm` keeps per thread, for all heads together, as long as the thread lives.
pub(crate) struct Head {
    loss: Prepared,
    /// Of the whole head.
    shape: Shape,
    range: Range<usize>,
    options: Options,
    setup: Setup,
    input: Input,
    work: Work,
}

impl Head {
    /// Chooses the layout and makes the workspace; [`Error::Budget`] before anything is allocated.
    pub fn new(loss: &Prepared, shape: Shape, range: Range<usize>, options: &Options) -> Result<Self> {
        let setup = Self::setup(loss, shape, &range, options)?;
        let (input, work) = (Input::new(setup, shape.rows()), Work::new(setup, shape.rows()));
        Ok(Self { loss: loss.clone(), shape, range, options: *options, setup, input, work })
    }

    fn setup(loss: &Prepared, shape: Shape, range: &Range<usize>, options: &Options) -> Result<Setup> {
        shape.prototypes()?;
        let own = Shape::new(shape.rows(), range.len(), shape.dim())?.with_sub_centers(shape.sub_centers())?;
        let layout = Layout::choose(own, options.want, loss.top_k(), options.filter.is_some(), options.budget)?;
        let Options { want, filter, .. } = *options;
        Ok(Setup { arch: Arch::new(), layout, want, filter, dim: shape.dim() })
    }

    /// Another loss over the same workspace; one that chooses more cosines per row makes it anew.
    pub fn update(&mut self, loss: &Prepared) -> Result<()> {
        if loss.top_k() > self.setup.layout.top {
            self.setup = Self::setup(loss, self.shape, &self.range, &self.options)?;
            // never both at once
            (self.input, self.work) = (Input::default(), Work::default());
            self.input = Input::new(self.setup, self.shape.rows());
            self.work = Work::new(self.setup, self.shape.rows());
        }
        self.loss.clone_from(loss);
        Ok(())
    }

    /// The most bytes that this head holds at any time beside inputs and outputs; never above the budget.
    #[cfg_attr(not(test), allow(dead_code))]
    pub fn workspace_bytes(&self) -> u64 {
        self.setup.layout.bytes()
    }

    /// `keep` or `recompute`.
    pub fn schedule(&self) -> &'static str {
        if self.setup.layout.keep { "keep" } else { "recompute" }
    }

    /// Loss and gradients of one batch into `out`, whose vectors are used again; output and state untouched on an error.
    pub fn step(&mut self, batch: CheckedBatch<'_>, state: &mut State, follow: bool, out: &mut Output) -> Result<()> {
        let call = self.begin(batch);
        let moves = follow && self.loss.state_follows();
        let look = Look { top: self.loss.top_k(), sums: moves && self.loss.scale_follows() };
        let scanned = look.top > 0 || look.sums;
        if scanned || moves {
            self.scan(&call, look, state);
        }
        if moves {
            let found = self.found();
            let targets = Targets {
                range: self.range.clone(),
                cosines: vec![],
                top: vec![],
                top_count: 0,
                sums: if look.sums { self.sums(&call) } else { vec![] },
                zero_prototypes: found.zero,
                non_finite_prototypes: found.non_finite,
            };
            targets.follow(&self.loss, &self.facts(&call), state);
        }
        if look.top > 0 {
            self.bounds_from_work(&call, look.top);
        }
        self.set_targets(&call, state);
        let path = self.path();
        self.pass_one(&call, path, scanned && self.setup.layout.keep, state);
        let found = self.found();
        let ranges = self.work.workers.len();
        let n = call.batch.rows();
        let partials = std::mem::take(&mut self.work.partials);
        let sums = |i: usize| {
            let all = partials.chunks_exact(n).map(|range| &range[i]).take(ranges);
            all.fold(Partial::EMPTY, Partial::merged).wide()
        };
        let z = self.between().finish(&call, found, sums, state, out);
        self.work.partials = partials;
        self.pass_two(&call, path, false, z, state, out);
        Ok(())
    }

    /// Everything that this shard knows of the rows before margins apply.
    pub fn targets(&mut self, batch: CheckedBatch<'_>, state: &State) -> Result<Targets> {
        let call = self.begin(batch);
        let look = Look { top: self.loss.top_k(), sums: self.loss.scale_follows() };
        self.scan(&call, look, state);
        let Found { zero, non_finite } = self.found();
        let best = |i: usize| {
            let (all, count) = self.best(&call, i, look.top);
            all[..count].iter().map(|&(c, class)| (c.into(), class as usize)).collect()
        };
        let cosine = |(row, label): (&Row, &i64)| {
            let own = Some(*label) != self.loss.ignore_index && self.range.contains(&(*label as usize));
            own.then_some(row.cosine)
        };
        Ok(Targets {
            range: self.range.clone(),
            cosines: self.input.rows.iter().zip(&call.batch.labels).map(cosine).collect(),
            top: if look.top > 0 { (0..call.batch.rows()).map(best).collect() } else { vec![] },
            top_count: look.top,
            sums: if look.sums { self.sums(&call) } else { vec![] },
            zero_prototypes: zero,
            non_finite_prototypes: non_finite,
        })
    }

    /// The rows' sums over the other classes of this shard.
    pub fn statistics(&mut self, batch: CheckedBatch<'_>, targets: &Targets, state: &State) -> Result<Statistics> {
        let call = self.begin(batch);
        self.take_targets(&call, targets, state)?;
        // all sums, whatever this shard itself wants
        let mut common = self.input.common(self.setup, &self.loss, self.shape, Path::Table, &call, state);
        common.weights = Some((call.batch.class_weights, &self.input.ones));
        let tasks = self.work.tasks(self.setup, &self.range, &call, Outputs::default());
        each(call.parallel, tasks, |task| task.statistics(false, &common));
        let (n, partials) = (call.batch.rows(), &self.work.partials);
        let rows = (0..n).map(|i| {
            let all = partials.chunks_exact(n).map(|range| &range[i]).take(self.work.workers.len());
            let mut sums = all.fold(Partial::EMPTY, Partial::merged).wide();
            if self.loss.binary().is_some() {
                sums.most = 0.0;
            }
            sums
        });
        Ok(Statistics { range: self.range.clone(), rows: rows.collect() })
    }

    /// The loss of the batch, dW and db of this shard, its share of dX; dL/ds and the db of a binary link from the first.
    pub fn gradients(
        &mut self,
        batch: CheckedBatch<'_>,
        targets: &Targets,
        statistics: &Statistics,
        state: &State,
    ) -> Result<Output> {
        let call = self.begin(batch);
        self.take_targets(&call, targets, state)?;
        statistics.check(&self.loss, self.shape.classes(), call.batch.rows())?;
        let mut out = Output::default();
        let found = Found { zero: targets.zero_prototypes, non_finite: targets.non_finite_prototypes };
        let z = self.between().finish(&call, found, |i| statistics.rows[i], state, &mut out);
        self.pass_two(&call, self.path(), true, z, state, &mut out);
        Ok(out)
    }

    /// Directions and target cosines.
    fn begin<'a>(&mut self, batch: CheckedBatch<'a>) -> Call<'a> {
        let work = (batch.rows() * self.setup.dim).saturating_mul(self.range.len() * self.shape.sub_centers());
        let call = Call { batch, parallel: work > 300_000 };
        self.input.prepare(self.setup, &self.loss, &self.range, &call);
        call
    }

    /// Merged targets in the place of this shard's own, and margins applied.
    fn take_targets(&mut self, call: &Call<'_>, targets: &Targets, state: &State) -> Result<()> {
        targets.check(&self.loss, self.shape, call.batch.rows())?;
        let rows = self.input.rows.iter_mut().zip(&mut self.input.extras);
        for (i, ((row, extra), cosine)) in rows.zip(&targets.cosines).enumerate() {
            row.cosine = if row.counts() { cosine.unwrap_or(0.0) } else { 0.0 };
            if let Some((bound, class)) = targets.chosen(&self.loss, i) {
                (extra.bound, extra.last) = (bound as f32, class as u32);
            }
        }
        self.set_targets(call, state);
        Ok(())
    }

    fn between(&mut self) -> Between<'_> {
        let Self { loss, shape, range, setup, input, .. } = self;
        Between { loss, shape: *shape, first: range.start == 0, setup: *setup, input }
    }

    /// Which sweeps this loss takes.
    fn path(&self) -> Path {
        let loss = &self.loss;
        let plain = !loss.is_linear()
            && loss.binary().is_none()
            && self.shape.sub_centers() == 1
            && !self.setup.want.grad_scale;
        match loss.others {
            Others::Identity if plain => Path::Identity,
            Others::Rectified if plain => Path::Rectified,
            _ => Path::Table,
        }
    }

    fn found(&self) -> Found {
        let workers = &self.work.workers;
        Found { zero: workers.iter().map(|l| l.zero).sum(), non_finite: workers.iter().map(|l| l.non_finite).sum() }
    }

    /// The best `count` of all ranges of a row, and how many there are.
    fn best(&self, call: &Call<'_>, i: usize, count: usize) -> ([(f32, u32); TopK::MAX], usize) {
        let mut all = [(f32::NEG_INFINITY, u32::MAX); TopK::MAX];
        let room = call.batch.rows() * self.setup.layout.top;
        for range in self.work.top.chunks_exact(room).take(self.work.workers.len()) {
            range[i * count..(i + 1) * count].iter().for_each(|&new| table::insert(&mut all[..count], new));
        }
        (all, all[..count].iter().take_while(|(_, class)| *class != u32::MAX).count())
    }

    /// The bounds of an inter-topk from what the scan chose.
    fn bounds_from_work(&mut self, call: &Call<'_>, count: usize) {
        for i in 0..call.batch.rows() {
            let (all, found) = self.best(call, i, count);
            if let Some((bound, class)) = found.checked_sub(1).map(|last| all[last]) {
                (self.input.extras[i].bound, self.input.extras[i].last) = (bound, class);
            }
        }
    }

    /// The scan's sums of exp(scale·c), per row.
    fn sums(&self, call: &Call<'_>) -> Vec<[f64; 2]> {
        let n = call.batch.rows();
        let ranges = || self.work.partials.chunks_exact(n).take(self.work.workers.len());
        let row = |i: usize| {
            let all = ranges().map(|range| &range[i]).fold(Partial::EMPTY, Partial::merged);
            [all.most.max(f64::MIN), all.sum]
        };
        (0..n).map(row).collect()
    }

    fn facts(&self, call: &Call<'_>) -> Vec<RowFacts> {
        let rows = self.input.rows.iter().zip(&self.input.lengths).take(call.batch.rows());
        rows.map(|(row, &length)| RowFacts { counts: row.counts(), length, cosine: row.cosine }).collect()
    }

    /// The rows' margins, with what they make of the target cosines.
    fn set_targets(&mut self, call: &Call<'_>, state: &State) {
        let (loss, scale) = (&self.loss, state.scale_of(&self.loss));
        let own = loss.target.margins();
        let adapted = loss.rows_adapt().then(|| {
            let facts = self.facts(call);
            let mut margins = call.batch.margins.clone().unwrap_or_else(|| vec![own; facts.len()]);
            loss.adaptive.apply(state, &facts, &mut margins);
            margins
        });
        let margins = adapted.as_deref().or(call.batch.margins.as_deref());
        let (target, bounded) = (loss.target_curve(), loss.hardness_follows());
        let n = call.batch.rows();
        let rows = self.input.rows[..n].chunks_mut(ROWS).zip(self.input.extras[..n].chunks_mut(ROWS));
        let parallel = call.parallel && n > 8 * ROWS;
        each(parallel, rows.enumerate().collect(), |(block, (rows, extras))| {
            for (i, (row, extra)) in rows.iter_mut().zip(extras).enumerate().filter(|(_, (row, _))| row.counts()) {
                let m = margins.map_or(own, |all| all[block * ROWS + i]);
                let [value, slope, turn] = target.at(row.cosine, m);
                row.set_target(scale * value, slope);
                (extra.value, extra.turn) = (value, turn);
                if bounded {
                    extra.bound = loss.others.bound(row.cosine, m[2]) as f32;
                }
            }
        });
    }

    fn scan(&mut self, call: &Call<'_>, look: Look, state: &State) {
        let common = self.input.common(self.setup, &self.loss, self.shape, Path::Table, call, state);
        let tasks = self.work.tasks(self.setup, &self.range, call, Outputs::default());
        each(call.parallel, tasks, |task| task.scan(look, &common));
    }

    fn pass_one(&mut self, call: &Call<'_>, path: Path, ready: bool, state: &State) {
        let common = self.input.common(self.setup, &self.loss, self.shape, path, call, state);
        let tasks = self.work.tasks(self.setup, &self.range, call, Outputs::default());
        each(call.parallel, tasks, |task| task.statistics(ready, &common));
    }

    /// All gradients, after [`Between::finish`] returned `z`.
    fn pass_two(&mut self, call: &Call<'_>, path: Path, fresh: bool, z: f64, state: &State, out: &mut Output) {
        let Setup { dim, want, .. } = self.setup;
        let (n, classes) = (call.batch.rows(), self.range.len());
        let linear = self.loss.is_linear();
        let bias = want.grad_bias && linear;
        let entries = (out.counts.rows * classes) as u64;
        out.filtered = self.setup.filter.map(|_| Filtered { entries, ..Filtered::default() });
        resize(&mut out.grad_embeddings, if want.grad_embeddings { n * dim } else { 0 });
        resize(
            &mut out.grad_prototypes,
            if want.grad_prototypes { classes * self.shape.sub_centers() * dim } else { 0 },
        );
        if linear {
            resize(&mut out.grad_bias, if bias { classes } else { 0 });
        }
        let broken = out.counts.non_finite_prototypes > 0 || out.counts.rows == 0;
        if broken || z == 0.0 {
            out.grad_embeddings.fill(0.0);
            out.grad_prototypes.fill(0.0);
            if linear {
                out.grad_bias.fill(0.0);
            }
        } else if want.grad_embeddings || want.grad_prototypes || bias {
            let common = self.input.common(self.setup, &self.loss, self.shape, path, call, state);
            let into = Outputs {
                embeddings: &mut out.grad_embeddings,
                prototypes: &mut out.grad_prototypes,
                bias: if linear { &mut out.grad_bias } else { &mut [] },
            };
            let sifted = if self.setup.layout.keep {
                let (workers, queue) = self.work.queue(self.setup, &self.range, call, &self.input.lengths, into);
                let count = workers.len();
                each(call.parallel, workers.iter_mut().collect(), |worker| queue.work(fresh, &common, worker));
                if queue.unfinished() {
                    let workers = workers.iter_mut().enumerate().collect();
                    each(call.parallel, workers, |(first, worker)| queue.finish(first, count, &common, worker));
                }
                queue.sifted().fold(Sifted::default(), Sifted::plus)
            } else {
                let tasks = self.work.tasks(self.setup, &self.range, call, into);
                each(call.parallel, tasks, |task| task.gradients(&common));
                finish_embeddings(self.setup, linear, call, &self.input.lengths, &self.work, &mut out.grad_embeddings);
                self.work.workers.iter().map(|worker| worker.lists.sifted).fold(Sifted::default(), Sifted::plus)
            };
            let Sifted { dropped, total, kept } = sifted;
            out.filtered =
                self.setup.filter.map(|_| Filtered { dropped: dropped as f32, total: total as f32, kept, entries });
        }
        if self.loss.length_term().is_some() && !broken && self.range.start == 0 {
            let rows = out.grad_embeddings.chunks_exact_mut(dim).zip(self.input.directions.chunks_exact(dim));
            for ((grad, unit), extra) in rows.zip(&self.input.extras) {
                grad.iter_mut().zip(unit).for_each(|(g, u)| *g = extra.stretch.fused(*u, *g));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{rows::RowExtras, table::Scratch},
        *,
    };
    use crate::{Budget, MarginSoftmax};

    /// The bytes that the layout counts cover those that the head holds, in both schedules; the smaller budget means recompute.
    #[test]
    fn the_workspace_is_counted() {
        let shape = Shape::new(300, 5000, 48).unwrap();
        let losses = [("arcface", 1), ("arcface_topk", 1), ("sphereface2", 3)].into_iter();
        let budgets = [(Budget::default(), "keep"), (Budget::mib(4), "recompute")];
        for ((name, centers), (budget, schedule)) in losses.flat_map(|l| budgets.map(|b| (l, b))) {
            let (options, shape) = (Options { budget, ..Options::default() }, shape.with_sub_centers(centers).unwrap());
            let loss = Prepared::new(&MarginSoftmax::named(name).unwrap(), shape).unwrap();
            let head = Head::new(&loss, shape, 0..shape.classes(), &options).unwrap();
            let Head { input, work, .. } = &head;
            let workers = work.workers.iter();
            let scratch = |s: &Scratch| {
                4 * (s.cosines.capacity() + s.centers.capacity() + s.values.capacity() + s.slopes.capacity())
            };
            let workers = workers.map(|l| {
                let own = 4 * (l.own.factors.capacity() + l.unit.capacity()) + 8 * l.own.lengths.capacity();
                own + 4 * l.cosines.capacity() + scratch(&l.scratch) + 8 * (l.totals.capacity() + l.slides.capacity())
            });
            let floats = [&input.ones, &work.kept, &work.most, &work.shares];
            let held = floats.iter().map(|v| 4 * v.capacity()).sum::<usize>()
                + 4 * input.directions.capacity()
                + 8 * input.lengths.capacity()
                + size_of::<Row>() * input.rows.capacity()
                + size_of::<RowExtras>() * input.extras.capacity()
                + size_of::<Partial>() * work.partials.capacity()
                + size_of::<(f32, u32)>() * work.top.capacity()
                + 8 * work.totals.capacity()
                + workers.sum::<usize>();
            assert_eq!(head.schedule(), schedule);
            assert!(held as u64 <= head.workspace_bytes() && head.workspace_bytes() <= budget.get());
        }
    }
}

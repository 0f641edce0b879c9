//! A head on the CPU: the passes in order, for a whole head or one shard.

use std::ops::Range;

use pulp::Arch;

use super::{
    division::Division,
    finish::{Between, finish_embeddings, resize},
    held::Held,
    input::{HeadCall, Input, Path, ROWS, each},
    nearest::{self, Choice},
    pace::{Pace, now},
    ranges::{Look, Pass},
    rows::{HeadRow, Partial},
    sparse::FilterSums,
    tiling::{Setup, Tiling},
    trace,
    vector::Fused,
    workspace::{Outputs, Workspace},
};
use crate::{
    Options, Others, Output, Result, Shape, State,
    data::{Counts, Filtered, StoredValues, Watch},
    objective::{CheckedBatch, Prepared, RowFacts, RowTarget, TopK},
    shard::{RowStatistics, Statistics, Targets},
};

/// A head on the CPU, or one shard of it.
///
/// All workspace is made here once. Beside it a call holds its labels and tasks, and each range the packing buffers of
/// the `gemm` crate: [`Tiling::bytes`] counts all of it, which is the most at any time beside inputs and outputs. Not counted
/// is one block of the size of the L2 cache that `gemm` keeps per thread, for all heads together, as long as the thread lives.
pub(crate) struct CpuHead {
    pub(super) loss: Prepared,
    /// Of the whole head.
    shape: Shape,
    pub(super) range: Range<usize>,
    options: Options,
    pub(super) setup: Setup,
    pub(super) input: Input,
    pub(super) workspace: Workspace,
    /// The checksum of what the cosines in the workspace are of, where a call of a shard left them.
    cosines_of: Option<u64>,
}

impl CpuHead {
    /// Chooses the layout and makes the workspace; [`Error::Budget`] before anything is allocated.
    pub fn new(loss: &Prepared, shape: Shape, range: Range<usize>, options: &Options) -> Result<Self> {
        let setup = Self::setup(loss, shape, &range, options)?;
        let (input, workspace) = (Input::new(&setup.tiling), Workspace::new(&setup.tiling));
        Ok(Self { loss: loss.clone(), shape, range, options: *options, setup, input, workspace, cosines_of: None })
    }

    fn setup(loss: &Prepared, shape: Shape, range: &Range<usize>, options: &Options) -> Result<Setup> {
        shape.prototypes()?;
        let own = Shape::new(shape.rows(), range.len(), shape.dim())?.with_sub_centers(shape.sub_centers())?;
        let top = loss.top_k().max(options.predictions.unwrap_or(0));
        let held = (top, options.soft_labels.unwrap_or(0), options.filter.is_some());
        let tiling = Tiling::choose(own, options.want, held, options.budget)?;
        Ok(Setup { arch: Arch::new(), tiling, filter: options.filter })
    }

    /// Another loss over the same workspace; one that chooses more cosines per row makes it anew.
    pub fn update(&mut self, loss: &Prepared) -> Result<()> {
        if loss.top_k() > self.setup.tiling.top {
            self.setup = Self::setup(loss, self.shape, &self.range, &self.options)?;
            // never both at once
            (self.input, self.workspace) = (Input::default(), Workspace::default());
            (self.input, self.workspace) = (Input::new(&self.setup.tiling), Workspace::new(&self.setup.tiling));
        }
        self.cosines_of = None;
        self.loss.clone_from(loss);
        Ok(())
    }

    /// How many classes are predicted for each row.
    pub(super) fn predictions(&self) -> usize {
        self.options.predictions.unwrap_or(0)
    }

    /// `keep` or `recompute`.
    pub fn schedule(&self) -> &'static str {
        if self.setup.tiling.keep { "keep" } else { "recompute" }
    }

    /// Loss and gradients of one batch into `out`, whose vectors are used again; output and state untouched on an error.
    pub fn step(
        &mut self,
        batch: CheckedBatch<'_>,
        tensors: [StoredValues<'_>; 2],
        state: &mut State,
        follow: bool,
        out: &mut Output,
        watch: &mut Watch,
    ) -> Result<()> {
        now(self.step_paced(batch, tensors, state, follow, out, &mut Pace::straight(watch)))
    }

    /// The same at another pace.
    pub async fn step_paced(
        &mut self,
        batch: CheckedBatch<'_>,
        tensors: [StoredValues<'_>; 2],
        state: &mut State,
        follow: bool,
        out: &mut Output,
        pace: &mut Pace<'_>,
    ) -> Result<()> {
        let call = self.begin_stored(batch, tensors);
        let moves = follow && self.loss.state_follows();
        let look = Look { top: self.loss.top_k(), sums: moves && self.loss.scale_follows() };
        let scanned = look.top > 0 || look.sums;
        let direct = self.path() == Path::Identity;
        pace.begin(self.work_of_step(&call, scanned || moves, self.predictions() > 0 && !direct));
        if scanned || moves {
            let targets = self.scan(&call, look, false, state, pace).await?;
            if moves {
                targets.follow(&self.loss, &self.facts(&call), state);
            }
        }
        if look.top > 0 {
            self.set_bounds(&call, look.top);
        }
        self.set_targets(&call, state);
        let (mut ready, path) = (scanned && self.setup.tiling.keep, self.path());
        let mut predictions = (self.predictions() > 0).then(|| out.predictions.take().unwrap_or_default());
        if let Some(predictions) = predictions.as_mut().filter(|_| !direct) {
            self.look_up(&call, ready, state, predictions, pace).await?;
            ready = self.setup.tiling.keep;
        }
        let choice = if direct { self.choice() } else { Choice::Listed };
        let count = if direct && choice == Choice::Listed { self.predictions() } else { 0 };
        let into = Outputs::default();
        self.run_ranges(&call, path, state, into, pace, Pass::Statistics { ready, count }).await?;
        let found = self.found();
        self.workspace.merge(self.setup.tiling.ranges, &call);
        if let Some(predictions) = predictions.as_mut().filter(|_| direct) {
            self.collect(&call, choice, state, predictions);
        }
        let z = self.finish(&call, found, |workspace, i| workspace.partials[i].wide(), state, out);
        out.predictions = predictions.map(|all| self.settle(all, &out.counts));
        self.pass_two(&call, Held::PassOne, z, state, out, pace).await
    }

    /// Everything that this shard knows of the rows before margins apply.
    pub fn targets(&mut self, batch: CheckedBatch<'_>, state: &State) -> Result<Targets> {
        let (call, _, checksum) = self.begin_shard(batch);
        let look = Look { top: self.loss.top_k(), sums: self.loss.scale_follows() };
        let scanned = now(self.scan(&call, look, false, state, &mut Pace::straight(&mut Watch::none())))?;
        self.cosines_of = checksum.filter(|_| look.top > 0 || look.sums);
        let best = |i: usize| {
            let (all, count) = self.best(&call, i, look.top);
            all[..count].iter().map(|&(c, class)| (c.into(), class as usize)).collect()
        };
        let cosine = |(row, label): (&HeadRow, &i64)| {
            let own = Some(*label) != self.loss.ignore_index && self.range.contains(&(*label as usize));
            own.then_some(row.cosine)
        };
        Ok(Targets {
            cosines: self.input.rows.iter().zip(&call.batch.labels).map(cosine).collect(),
            top: if look.top > 0 { (0..call.batch.rows()).map(best).collect() } else { vec![] },
            ..scanned
        })
    }

    /// The rows' sums over the other classes of this shard.
    pub fn statistics(&mut self, batch: CheckedBatch<'_>, targets: &Targets, state: &State) -> Result<Statistics> {
        let (call, ready, checksum) = self.begin_shard(batch);
        self.take_targets(&call, targets, state)?;
        let into = Outputs::default();
        let pass = Pass::Statistics { ready, count: 0 };
        now(self.run_ranges(&call, Path::AllSums, state, into, &mut Pace::straight(&mut Watch::none()), pass))?;
        self.workspace.merge(self.setup.tiling.ranges, &call);
        let rows = self.workspace.partials[..call.batch.rows()].iter().map(|all| {
            let mut sums = all.wide();
            if self.loss.binary().is_some() {
                sums.max_logit = 0.0;
            }
            sums
        });
        let rows = rows.collect();
        self.cosines_of = checksum;
        Ok(Statistics { range: self.range.clone(), rows })
    }

    /// The loss of the batch, dW and db of this shard, its share of dX; dL/ds and the db of a binary link from the first.
    pub fn gradients(
        &mut self,
        batch: CheckedBatch<'_>,
        targets: &Targets,
        statistics: &Statistics,
        state: &State,
    ) -> Result<Output> {
        let (call, ready, _) = self.begin_shard(batch);
        self.take_targets(&call, targets, state)?;
        statistics.check(&self.loss, self.shape.classes(), call.batch.rows())?;
        let mut out = Output::default();
        let &Targets { zero_prototypes, non_finite_prototypes, .. } = targets;
        let found = Counts { zero_prototypes, non_finite_prototypes, ..Counts::default() };
        let z = self.finish(&call, found, |_, i| statistics.rows[i], state, &mut out);
        let held = if ready { Held::Cosines } else { Held::Nothing };
        now(self.pass_two(&call, held, z, state, &mut out, &mut Pace::straight(&mut Watch::none())))?;
        Ok(out)
    }

    /// Directions and target cosines.
    pub(super) fn begin<'a>(&mut self, batch: CheckedBatch<'a>) -> HeadCall<'a> {
        let tensors = [batch.embeddings, batch.prototypes].map(StoredValues::F32);
        self.begin_stored(batch, tensors)
    }

    /// The same for a call of a shard: whether *keep* has its cosines from the call before it, and the checksum under which it
    /// may leave them to the next. Every other call overwrites them.
    fn begin_shard<'a>(&mut self, batch: CheckedBatch<'a>) -> (HeadCall<'a>, bool, Option<u64>) {
        let last = self.cosines_of;
        let call = self.begin(batch);
        let checksum = if self.setup.tiling.keep { call.checksum() } else { None };
        (call, checksum.is_some() && checksum == last, checksum)
    }

    /// The same with these embeddings and prototypes in the place of the batch's.
    fn begin_stored<'a>(
        &mut self,
        batch: CheckedBatch<'a>,
        [embeddings, prototypes]: [StoredValues<'a>; 2],
    ) -> HeadCall<'a> {
        self.cosines_of = None;
        let work = (batch.rows() * self.setup.tiling.dim).saturating_mul(self.range.len() * self.shape.sub_centers());
        let parallel = work > 300_000;
        let threads = if parallel { trace::threads() } else { 1 };
        let division = Division::new(&self.setup.tiling, batch.rows(), threads);
        let call = HeadCall { batch, embeddings, prototypes, parallel, division };
        self.input.prepare(self.setup, &self.loss, &self.range, &call);
        call
    }

    /// Merged targets in the place of this shard's own, and margins applied.
    fn take_targets(&mut self, call: &HeadCall<'_>, targets: &Targets, state: &State) -> Result<()> {
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

    /// Losses and counts; returns the divisor of the sum over the rows.
    fn finish(
        &mut self,
        call: &HeadCall<'_>,
        found: Counts,
        sums: impl Fn(&Workspace, usize) -> RowStatistics + Sync + Send,
        state: &State,
        out: &mut Output,
    ) -> f64 {
        let Self { loss, shape, range, setup, input, workspace, .. } = self;
        let between = Between { loss, shape: *shape, first: range.start == 0, setup: *setup, input };
        between.finish(call, found, |i| sums(workspace, i), state, out)
    }

    /// Which sweeps this loss takes.
    pub(super) fn path(&self) -> Path {
        let loss = &self.loss;
        let plain = !loss.is_linear()
            && loss.binary().is_none()
            && self.shape.sub_centers() == 1
            && !loss.scales_by_length()
            && !self.setup.tiling.want.grad_scale;
        match loss.others {
            Others::Identity if plain => Path::Identity,
            Others::Rectified if plain => Path::Rectified,
            _ => Path::Table,
        }
    }

    /// The prototypes that are left out.
    pub(super) fn found(&self) -> Counts {
        let workers = &self.workspace.workers;
        Counts {
            zero_prototypes: workers.iter().map(|w| w.zero).sum(),
            non_finite_prototypes: workers.iter().map(|w| w.non_finite).sum(),
            ..Counts::default()
        }
    }

    /// The best `count` of all ranges of a row, and how many there are.
    pub(super) fn best(&self, call: &HeadCall<'_>, i: usize, count: usize) -> ([(f32, u32); TopK::MAX], usize) {
        let mut all = [(f32::NEG_INFINITY, u32::MAX); TopK::MAX];
        let room = call.batch.rows() * self.setup.tiling.top;
        for range in self.workspace.top.chunks_exact(room).take(self.setup.tiling.ranges) {
            range[i * count..(i + 1) * count].iter().for_each(|&new| nearest::insert(&mut all[..count], new));
        }
        (all, all[..count].iter().take_while(|(_, class)| *class != u32::MAX).count())
    }

    /// The bounds of an inter-topk from what the scan chose.
    fn set_bounds(&mut self, call: &HeadCall<'_>, count: usize) {
        for i in 0..call.batch.rows() {
            let (all, found) = self.best(call, i, count);
            if let Some((bound, class)) = found.checked_sub(1).map(|last| all[last]) {
                (self.input.extras[i].bound, self.input.extras[i].last) = (bound, class);
            }
        }
    }

    fn facts(&self, call: &HeadCall<'_>) -> Vec<RowFacts> {
        let rows = self.input.rows.iter().zip(&self.input.lengths).take(call.batch.rows());
        rows.map(|(row, &length)| RowFacts { counts: row.counts(), length, cosine: row.cosine }).collect()
    }

    /// The rows' margins, with what they make of the target cosines.
    fn set_targets(&mut self, call: &HeadCall<'_>, state: &State) {
        let (loss, scale) = (&self.loss, state.scale_of(&self.loss));
        let own = loss.margins();
        let adapted = loss.rows_adapt().then(|| {
            let facts = self.facts(call);
            let mut margins = call.batch.margins.clone().unwrap_or_else(|| vec![own; facts.len()]);
            loss.adapt_margins(state, &facts, &mut margins);
            margins
        });
        let margins = adapted.as_deref().or(call.batch.margins.as_deref());
        let (target, bounded) = (loss.target_curve(), loss.hardness_follows() || loss.others.sees_target());
        let (n, lengths) = (call.batch.rows(), &self.input.lengths);
        let rows = self.input.rows[..n].chunks_mut(ROWS).zip(self.input.extras[..n].chunks_mut(ROWS));
        let parallel = call.parallel && n > 8 * ROWS;
        each(parallel, rows.enumerate().collect(), |(block, (rows, extras))| {
            for (i, (row, extra)) in rows.iter_mut().zip(extras).enumerate().filter(|(_, (row, _))| row.counts()) {
                let m = margins.map_or(own, |all| all[block * ROWS + i]);
                let [value, slope, slope_m2] = target.at(row.cosine, m);
                let scale = scale * loss.length_factor(lengths[block * ROWS + i]).0;
                (row.logit, row.slope) = (scale * value, slope);
                (extra.value, extra.slope_m2) = (value, slope_m2);
                if bounded {
                    let cosine = row.cosine;
                    extra.bound = loss.others.bound(RowTarget { cosine, value }, m[2]) as f32;
                }
            }
        });
        self.set_soft_targets(call, state);
    }

    /// The targets beside the labels, if there are any.
    fn set_soft_targets(&mut self, call: &HeadCall<'_>, state: &State) {
        let Some(_) = call.batch.soft else { return };
        let (facts, Self { loss, range, setup: Setup { arch, tiling, .. }, input, .. }) = (self.facts(call), self);
        let dim = tiling.dim;
        let cosine = |i: usize, class: usize| {
            let mut wide = vec![];
            let x = call.embeddings.part(i * dim..(i + 1) * dim).widened_in(&mut wide);
            call.cosine(*arch, loss.is_linear(), range, (x, facts[i].length), class)
        };
        input.soft.prepare(call, loss, state, (&input.rows, &input.extras), &facts, cosine);
    }

    /// Scans the raw cosines. The targets lack the cosines of the rows and the chosen classes.
    pub(super) async fn scan(
        &mut self,
        call: &HeadCall<'_>,
        look: Look,
        ready: bool,
        state: &State,
        pace: &mut Pace<'_>,
    ) -> Result<Targets> {
        let into = Outputs::default();
        self.run_ranges(call, Path::Table, state, into, pace, Pass::Scan { look, ready }).await?;
        let Counts { zero_prototypes, non_finite_prototypes, .. } = self.found();
        self.workspace.merge(self.setup.tiling.ranges, call);
        let sums = |all: &Partial| [all.max_logit.max(f64::MIN), all.sum];
        Ok(Targets {
            range: self.range.clone(),
            cosines: vec![],
            top: vec![],
            top_count: look.top,
            sums: if look.sums {
                self.workspace.partials[..call.batch.rows()].iter().map(sums).collect()
            } else {
                vec![]
            },
            zero_prototypes,
            non_finite_prototypes,
        })
    }

    /// All gradients, after [`Between::finish`] returned `z`.
    async fn pass_two(
        &mut self,
        call: &HeadCall<'_>,
        held: Held,
        z: f64,
        state: &State,
        out: &mut Output,
        pace: &mut Pace<'_>,
    ) -> Result<()> {
        let Tiling { dim, want, keep, .. } = self.setup.tiling;
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
            let into = Outputs {
                embeddings: &mut out.grad_embeddings,
                prototypes: &mut out.grad_prototypes,
                bias: if linear { &mut out.grad_bias } else { &mut [] },
            };
            let filter_sums = if keep {
                self.run_queue(call, held, state, into, pace).await?
            } else {
                self.run_ranges(call, self.path(), state, into, pace, Pass::Gradients).await?;
                let workers = self.workspace.workers.iter();
                workers.map(|worker| worker.lists.sums).fold(FilterSums::default(), FilterSums::plus)
            };
            let (lengths, grad) = (&self.input.lengths, &mut out.grad_embeddings);
            finish_embeddings(self.setup, linear, call, lengths, &self.workspace, grad);
            let FilterSums { dropped, total, kept } = filter_sums;
            out.filtered =
                self.setup.filter.map(|_| Filtered { dropped: dropped as f32, total: total as f32, kept, entries });
        }
        let pulled = self.loss.length_term().is_some() || self.loss.scales_by_length();
        if pulled && !broken && self.range.start == 0 {
            let rows = out.grad_embeddings.chunks_exact_mut(dim).zip(self.input.directions.values().chunks_exact(dim));
            for ((grad, unit), extra) in rows.zip(&self.input.extras) {
                grad.iter_mut().zip(unit).for_each(|(g, u)| *g = extra.length_gradient.fused(*u, *g));
            }
        }
        Ok(())
    }
}

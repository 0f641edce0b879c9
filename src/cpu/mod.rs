//! The native f32 path: class tiles over rayon, products by the `gemm` crate (in WebAssembly by `blocks`), exp and sums
//! vectorised by `pulp`.
//!
//! ```text
//! scan, if a family needs it       cosines;  per row: the k largest, or the exp-sum at the scale so far
//! pass 1, per tile of classes      cosines = X̂ Wᵀ / |w|;  per row: largest logit and exp-sum over the other classes
//! per row, in f64                  merge the tiles in order; the target joins last; loss
//! pass 2, per tile of classes      G in place, divided by |w|;  dX += G W;  dW = Gᵀ X̂, projected while in the cache
//! per row                          dX projected
//! ```
//!
//! dX over very many tiles, and dW over very many blocks of rows, are sums of f32 sums in f64: see `total`.
//!
//! *keep* stores what the first pass computed, N·C·K values; *recompute* computes the cosines again. Consecutive tiles
//! form fixed ranges, each with its own statistics: a range is processed in order. In *recompute* it has its own share of
//! dX too. In *keep* G stays, so the tiles are taken one by one, and join a block of rows of dX in their order as soon as
//! somebody is free for it. So the result does not depend on the number of threads, and memory not on the number of tiles.
//!
//! A whole head is the shard of all classes. The pieces of a shard are calls of their own: each computes the cosines anew.

#[cfg(any(test, target_arch = "wasm32"))]
mod blocks;
mod curve;
mod layout;
pub(crate) mod monitor;
mod pass;
mod product;
pub(crate) mod regularizer;
mod rows;
mod sparse;
mod sweep;
mod table;
mod total;
mod vector;
mod work;

use std::{ops::Range, sync::Arc};

use pulp::Arch;

use self::{
    layout::Layout,
    pass::{Look, Path},
    rows::{Partial, Row, Share, Weights, unit},
    sparse::Sifted,
    total::Finish,
    vector::{Add, Fused, Project},
    work::{Call, Input, Outputs, ROWS, Setup, Work, each},
};
use crate::{
    Counts, Filtered, Options, Others, Output, Result, Shape, State, TopK,
    data::NO_COSINE,
    objective::{CheckedBatch, Prepared, RowFacts, SHORTEST},
    shard::{RowStatistics, Statistics, Targets},
};

/// The name for people: threads, and the instructions that this machine was found to have.
pub(crate) fn name() -> String {
    let instructions = match Arch::new() {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V4(_) => ", AVX-512",
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V3(_) => ", AVX2",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => ", NEON",
        _ => "",
    };
    format!("CPU, {} threads{instructions}", rayon::current_num_threads())
}

/// A head on the CPU, or one shard of it.
///
/// All workspace is made here once. Beside it a call holds its labels and tasks, and each range the packing buffers of
/// the `gemm` crate: all of it is counted in [`workspace_bytes`](Self::workspace_bytes). Not counted is one block of the
/// size of the L2 cache that `gemm` keeps per thread, for all heads together, as long as the thread lives.
pub(crate) struct Head {
    loss: Arc<Prepared>,
    /// Of the whole head.
    shape: Shape,
    range: Range<usize>,
    options: Options,
    setup: Setup,
    input: Input,
    work: Work,
}

/// Prototypes that are left out.
#[derive(Clone, Copy)]
struct Found {
    zero: usize,
    non_finite: usize,
}

impl Head {
    /// Chooses the layout and makes the workspace; [`Error::Budget`] before anything is allocated.
    pub fn new(loss: &Arc<Prepared>, shape: Shape, range: Range<usize>, options: &Options) -> Result<Self> {
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
    pub fn update(&mut self, loss: &Arc<Prepared>) -> Result<()> {
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
        let z = self.finish(&call, found, sums, state, out);
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
        let z = self.finish(&call, found, |i| statistics.rows[i], state, &mut out);
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
    fn best(&self, call: &Call<'_>, i: usize, count: usize) -> ([(f32, u32); TopK::MOST], usize) {
        let mut all = [(f32::NEG_INFINITY, u32::MAX); TopK::MOST];
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

    /// All gradients, after [`finish`](Self::finish) returned `z`.
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

    /// Between the passes: losses, counts, and what pass 2 needs of every row. Returns Z.
    fn finish(
        &mut self,
        call: &Call<'_>,
        found: Found,
        sums: impl Fn(usize) -> RowStatistics,
        state: &State,
        out: &mut Output,
    ) -> f64 {
        let (batch, labels) = (&call.batch, &call.batch.labels);
        let (n, classes, loss) = (labels.len(), self.shape.classes(), &self.loss);
        let (want, scale) = (self.setup.want, state.scale_of(loss));
        let filter = self.setup.filter.map_or(0.0, |filter| filter.epsilon());
        let linear = loss.is_linear();
        let lengths = &self.input.lengths[..n];
        let (rows, extras) = (&mut self.input.rows[..n], &mut self.input.extras[..n]);
        let weight = |class: usize| batch.class_weights.map_or(1.0, |w| f64::from(w[class]));
        let all = batch.class_weights.map_or(classes as f64, |w| w.iter().map(|&w| f64::from(w)).sum());
        let unit = if loss.label_smoothing > 0.0 { unit(batch.class_weights) } else { 1.0 };
        let epsilon = loss.label_smoothing;
        let weights = |class| Weights { scale, class_weight: weight(class), all, unit, epsilon, classes };
        if linear {
            // products of finite vectors may leave f32
            for (i, row) in rows.iter_mut().enumerate().filter(|(_, row)| row.counts()) {
                if !row.fits(&sums(i), weights(row.class)) {
                    *row = Row::NONE;
                }
            }
        }
        let ignored = |i: usize| Some(labels[i]) == loss.ignore_index;
        let short = |(row, length): &(&Row, &f64)| row.counts() && !linear && **length < SHORTEST;
        let mut counts = Counts {
            rows: rows.iter().filter(|r| r.counts()).count(),
            ignored: (0..n).filter(|&i| ignored(i)).count(),
            zero_embeddings: rows.iter().zip(lengths).filter(short).count(),
            zero_prototypes: found.zero,
            non_finite_prototypes: found.non_finite,
            ..Counts::default()
        };
        counts.non_finite_rows = n - counts.rows - counts.ignored;
        let broken = counts.non_finite_prototypes > 0;

        let z = loss.normalizer(rows.iter().filter(|r| r.counts()).map(|r| weight(r.class)));
        resize(&mut out.row_losses, n);
        resize(&mut out.target_cosines, n);
        resize(&mut out.other_cosines, n);
        let (mut sum, mut grad_scale, mut grad_bias) = (0.0, 0.0, 0.0);
        for (i, (row, extra)) in rows.iter_mut().zip(extras).enumerate() {
            let (mut own, mut cosine, mut nearest) = (if ignored(i) { 0.0 } else { f64::NAN }, 0.0, NO_COSINE as f32);
            extra.stretch = 0.0;
            if row.counts() && !broken {
                let others = sums(i);
                // a scale that is 0 in f32 leaves no largest value; what is subtracted then is multiplied by 0 too
                let best = (others.most / f64::from(scale as f32)) as f32;
                extra.best = if best.is_nan() { 0.0 } else { best };
                let upstream = batch.upstream.map_or(1.0, |up| f64::from(if up.len() == 1 { up[0] } else { up[i] }));
                let part = if z > 0.0 { upstream / z } else { 0.0 };
                let weights = weights(row.class);
                let mut share: Share = match loss.binary() {
                    None => row.finish(extra.value, &others, weights, part),
                    Some(link) => row.finish_binary(extra.value, &others, weights, link, part),
                };
                if let Some(family) = loss.length_term() {
                    let rise = if family.length(lengths[i]).1 { family.rise() } else { 0.0 };
                    let (value, slope) = family.length_term(lengths[i]);
                    share.loss += weights.class_weight * value;
                    extra.stretch = (share.pull * extra.turn * rise + part * weights.class_weight * slope) as f32;
                }
                own = share.loss;
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
        let first = self.range.start == 0;
        out.grad_scale = if want.grad_scale && first { grad_scale as f32 } else { 0.0 };
        if !linear {
            let one = want.grad_bias && loss.binary().is_some();
            resize(&mut out.grad_bias, usize::from(one));
            out.grad_bias.fill(if first { grad_bias as f32 } else { 0.0 });
        }
        out.counts = counts;
        z
    }
}

/// dX in *recompute*: the other ranges' shares added to the first in order, then projected.
fn finish_embeddings(setup: Setup, linear: bool, call: &Call<'_>, lengths: &[f64], work: &Work, grad: &mut [f32]) {
    let Setup { arch, dim, layout, .. } = setup;
    let (len, ranges) = (grad.len(), layout.ranges);
    let own = call.batch.embeddings.chunks(dim * ROWS).zip(lengths.chunks(ROWS));
    let blocks = grad.chunks_mut(dim * ROWS).zip(own).enumerate().collect();
    each(call.parallel, blocks, |(block, (pull, (from, lengths)))| {
        let first = block * dim * ROWS;
        let shares = || work.shares.chunks_exact(len).take(ranges - 1);
        let project = |pull| Project { pull, from, step: 1, dim, lengths, divided: false };
        if layout.long_ranges() {
            let totals = || work.totals.chunks_exact(len).take(ranges);
            let total = |i: usize, _| totals().map(|total| total[first + i]).sum();
            return arch.dispatch(Finish { total, project: project(pull), linear });
        }
        if layout.long_embeddings() {
            let others = |i: usize| shares().map(|share| f64::from(share[first + i])).sum::<f64>();
            let total = |i: usize, own: f32| f64::from(own) + others(i);
            return arch.dispatch(Finish { total, project: project(pull), linear });
        }
        for share in shares() {
            arch.dispatch(Add { from: &share[first..][..pull.len()], to: pull });
        }
        if !linear {
            arch.dispatch(project(pull));
        }
    });
}

/// A vector of this length, whatever it holds.
fn resize(v: &mut Vec<f32>, len: usize) {
    if v.capacity() < len {
        *v = vec![0.0; len]; // the system's zero pages: touched first by the thread that fills them
    } else {
        v.resize(len, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{rows::RowExtras, table::Scratch, *};
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

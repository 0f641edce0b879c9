//! The native f32 path: class tiles over rayon, products by the `gemm` crate, exp and sums vectorised by `pulp`.
//!
//! ```text
//! pass 1, per tile of classes      cosines = X̂ Ŵᵀ;  per row: largest logit and exp-sum over the other classes
//! per row, in f64                  merge the tiles in order; the target joins last; loss
//! pass 2, per tile of classes      G in place;  share of dX += G Ŵ;  dW = Gᵀ X̂, projected while in the cache
//! per row                          dX = the shares in order, projected
//! ```
//!
//! *keep* stores what pass 1 computed, N·C values; *recompute* computes the cosines again. Consecutive tiles form fixed
//! ranges; a range is worked off in order and has its own statistics, share of dX and scratch. So the result does not
//! depend on the number of threads, and memory not on the number of tiles.

mod layout;
pub(crate) mod monitor;
mod product;
pub(crate) mod regularizer;
mod rows;
mod sweep;
mod vector;

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use self::{
    layout::Layout,
    product::{Matrix, product},
    rows::{Partial, Row, Weights},
    sweep::{Block, Gradients, Statistics},
    vector::{Add, Normalize, Project},
};
use crate::{
    Batch, Counts, Label, MarginSoftmax, Options, Others, Output, Reduction, Result, Shape, State, Want,
    objective::{
        SHORTEST,
        others::{Identity, Other, Rectified},
    },
    shard::{self, Targets},
};

/// What computes, for people.
pub(crate) fn name() -> String {
    format!("CPU, {} threads", rayon::current_num_threads())
}

/// A head on the CPU.
///
/// All workspace is made here once. Beside it a call holds its labels and tasks, and each range the packing buffers of
/// the `gemm` crate: all of it is counted in [`workspace_bytes`](Self::workspace_bytes). Not counted is one block of the
/// size of the L2 cache that `gemm` keeps per thread, for all heads together, as long as the thread lives.
pub(crate) struct Head {
    loss: MarginSoftmax,
    shape: Shape,
    plan: Plan,
    input: Input,
    work: Work,
}

/// What stays the same from call to call.
#[derive(Clone, Copy)]
struct Plan {
    arch: Arch,
    layout: Layout,
    want: Want,
    dim: usize,
}

/// The batch as the ranges read it.
struct Input {
    /// X̂, \[N, D\], and the lengths of X, \[N\].
    directions: Vec<f32>,
    lengths: Vec<f64>,
    rows: Vec<Row>,
    /// The class weights of a tile where the caller gives none.
    ones: Vec<f32>,
}

/// The workspace of the ranges.
struct Work {
    /// [ranges].
    lanes: Vec<Lane>,
    /// [ranges, N].
    partials: Vec<Partial>,
    /// [tiles][N, classes of the tile]: what survives pass 1.
    kept: Vec<f32>,
    /// [tiles, N]: the largest logits that `kept` refers to.
    most: Vec<f32>,
    /// [ranges, N, D].
    shares: Vec<f32>,
}

/// The scratch of one range, and what it counted.
struct Lane {
    /// Ŵ of a tile, and the lengths of its prototypes.
    directions: Vec<f32>,
    lengths: Vec<f64>,
    /// [rows of a block, classes of a tile] in *recompute*.
    cosines: Vec<f32>,
    zero: usize,
    non_finite: usize,
}

/// One range of class tiles with everything that belongs to it alone.
struct Task<'a> {
    /// The first class.
    first: usize,
    prototypes: &'a [f32],
    lane: &'a mut Lane,
    partials: &'a mut [Partial],
    kept: &'a mut [f32],
    most: &'a mut [f32],
    share: &'a mut [f32],
    grad: &'a mut [f32],
}

/// What all ranges read.
struct Common<'a> {
    plan: Plan,
    scale: f32,
    directions: &'a [f32],
    rows: &'a [Row],
    /// Class weights and their stand-in, with label smoothing.
    weights: Option<(Option<&'a [f32]>, &'a [f32])>,
}

impl Head {
    /// Chooses the layout and makes the workspace; [`Error::Budget`](crate::Error::Budget) before anything is allocated.
    pub fn new(loss: &MarginSoftmax, shape: Shape, _range: Range<usize>, options: &Options) -> Result<Self> {
        loss.validate()?;
        loss.not_yet()?;
        shape.prototypes()?;
        let layout = Layout::choose(shape, options.want, options.budget)?;
        let (rows, dim) = (shape.rows(), shape.dim());
        let lane = || Lane {
            directions: vec![0.0; layout.tile * dim],
            lengths: vec![0.0; layout.tile],
            cosines: vec![0.0; layout.lane_cosines()],
            zero: 0,
            non_finite: 0,
        };
        Ok(Self {
            loss: loss.clone(),
            shape,
            plan: Plan { arch: Arch::new(), layout, want: options.want, dim },
            input: Input {
                directions: vec![0.0; rows * dim],
                lengths: vec![0.0; rows],
                rows: vec![Row::NONE; rows],
                ones: vec![1.0; layout.tile],
            },
            work: Work {
                lanes: (0..layout.ranges).map(|_| lane()).collect(),
                partials: vec![Partial::EMPTY; rows * layout.ranges],
                kept: vec![0.0; layout.kept() as usize],
                most: vec![0.0; layout.most() as usize],
                shares: vec![0.0; layout.shares() as usize],
            },
        })
    }

    /// Another loss over the same workspace.
    pub fn update(&mut self, loss: &MarginSoftmax) -> Result<()> {
        loss.validate()?;
        loss.not_yet()?;
        self.loss.clone_from(loss);
        Ok(())
    }

    /// The most bytes that this head holds at any time beside inputs and outputs; never above the budget.
    #[cfg_attr(not(test), allow(dead_code))]
    pub fn workspace_bytes(&self) -> u64 {
        self.plan.layout.bytes()
    }

    /// `keep` or `recompute`.
    #[cfg_attr(not(test), allow(dead_code))]
    pub fn schedule(&self) -> &'static str {
        if self.plan.layout.keep { "keep" } else { "recompute" }
    }

    /// Loss and gradients of one batch into `out`, whose vectors are used again; untouched on an error.
    pub fn step<L: Label>(
        &mut self,
        batch: &Batch<'_, L>,
        _state: &mut State,
        _follow: bool,
        out: &mut Output,
    ) -> Result<()> {
        let labels = batch.check(&self.loss, self.shape)?;
        match self.loss.others {
            Others::Identity => self.evaluate_as::<_, true, L>(Identity, batch, &labels, out),
            Others::Rectified => self.evaluate_as::<_, false, L>(Rectified, batch, &labels, out),
            _ => self.loss.not_yet()?,
        }
        Ok(())
    }

    pub fn targets<L: Label>(&mut self, _: &Batch<'_, L>, _: &State) -> Result<Targets> {
        todo!()
    }

    pub fn statistics<L: Label>(&mut self, _: &Batch<'_, L>, _: &Targets, _: &State) -> Result<shard::Statistics> {
        todo!()
    }

    pub fn gradients<L: Label>(
        &mut self,
        _: &Batch<'_, L>,
        _: &Targets,
        _: &shard::Statistics,
        _: &State,
    ) -> Result<Output> {
        todo!()
    }

    /// `LINEAR`: the slope of the other classes is 1, so that *keep* can store exp(z) in place of the cosines.
    fn evaluate_as<O: Other, const LINEAR: bool, L>(
        &mut self,
        others: O,
        batch: &Batch<'_, L>,
        labels: &[i64],
        out: &mut Output,
    ) {
        let Self { plan, input, work, loss, shape } = self;
        let (n, classes, dim, want) = (labels.len(), shape.classes(), shape.dim(), plan.want);
        // less work than this is done before a second thread has woken up
        let parallel = (n * dim).saturating_mul(classes) > 300_000;

        input.prepare(*plan, loss, batch, labels, parallel);
        let common = input.common(*plan, loss, batch.class_weights, n);
        let tasks = work.tasks(*plan, n, batch.prototypes, &mut []);
        each(parallel, tasks, |task| task.statistics::<O, LINEAR>(others, &common));
        let z = finish_rows(loss, classes, input, work, batch, labels, out);

        resize(&mut out.grad_embeddings, if want.grad_embeddings { n * dim } else { 0 });
        resize(&mut out.grad_prototypes, if want.grad_prototypes { classes * dim } else { 0 });
        if out.counts.non_finite_prototypes > 0 || out.counts.rows == 0 || z == 0.0 {
            out.grad_embeddings.fill(0.0);
            out.grad_prototypes.fill(0.0);
        } else if want.any() {
            let common = input.common(*plan, loss, batch.class_weights, n);
            let tasks = work.tasks(*plan, n, batch.prototypes, &mut out.grad_prototypes);
            each(parallel, tasks, |task| task.gradients::<O, LINEAR>(others, &common));
            finish_embeddings(*plan, input, &work.shares, &mut out.grad_embeddings, parallel);
        }
    }
}

/// Rows per task where rows are independent.
const ROWS: usize = 32;

impl Input {
    /// Directions, and target cosines with their logits.
    fn prepare<L>(&mut self, plan: Plan, loss: &MarginSoftmax, batch: &Batch<'_, L>, labels: &[i64], parallel: bool) {
        let Plan { arch, dim, .. } = plan;
        let (target, margins) = (loss.target.evaluator(), loss.target.margins());
        let target = |x: f64| {
            let [value, slope, _] = target(x, margins);
            (value, slope)
        };
        let target = (loss.scale, &target);
        let own = self.lengths.chunks_mut(ROWS).zip(self.rows.chunks_mut(ROWS)).zip(labels.chunks(ROWS));
        let x = batch.embeddings.chunks(dim * ROWS).zip(self.directions.chunks_mut(dim * ROWS));
        each(parallel, x.zip(own).collect(), |((x, directions), ((lengths, rows), labels))| {
            let (to, lengths) = (&mut directions[..x.len()], &mut lengths[..labels.len()]);
            arch.dispatch(Normalize { from: x, dim, to, lengths, exact: true });
            for (((x, &length), row), &label) in x.chunks_exact(dim).zip(&*lengths).zip(rows).zip(labels) {
                *row = if Some(label) == loss.ignore_index || !length.is_finite() {
                    Row::NONE
                } else {
                    let class = label as usize;
                    let prototype = &batch.prototypes[class * dim..(class + 1) * dim];
                    Row::new(arch, class, (x, length), prototype, target)
                };
            }
        });
    }

    fn common<'a>(&'a self, plan: Plan, loss: &MarginSoftmax, weights: Option<&'a [f32]>, n: usize) -> Common<'a> {
        Common {
            plan,
            scale: loss.scale as f32,
            directions: &self.directions[..n * plan.dim],
            rows: &self.rows[..n],
            weights: (loss.label_smoothing > 0.0).then_some((weights, &self.ones)),
        }
    }
}

impl Work {
    /// The workspace and dW divided into ranges of classes; an empty slice gives every range an empty one.
    fn tasks<'a>(&'a mut self, plan: Plan, n: usize, prototypes: &'a [f32], grad: &'a mut [f32]) -> Vec<Task<'a>> {
        let Plan { layout, dim, .. } = plan;
        let (mut prototypes, mut grad, mut partials) = (prototypes, grad, &mut self.partials[..]);
        let (mut kept, mut most, mut shares) = (&mut self.kept[..], &mut self.most[..], &mut self.shares[..]);
        let task = |(range, lane): (usize, &'a mut Lane)| {
            let classes = layout.range_classes().min(prototypes.len() / dim);
            Task {
                first: range * layout.range_classes(),
                prototypes: prototypes.split_off(..classes * dim).unwrap_or_default(),
                lane,
                partials: front(&mut partials, n),
                kept: front(&mut kept, n * classes),
                most: front(&mut most, n * classes.div_ceil(layout.tile)),
                share: front(&mut shares, n * dim),
                grad: front(&mut grad, classes * dim),
            }
        };
        self.lanes.iter_mut().enumerate().map(task).collect()
    }
}

/// Between the passes: statistics merged, losses, counts, and what pass 2 needs of every row. Returns Z.
fn finish_rows<L>(
    loss: &MarginSoftmax,
    classes: usize,
    input: &mut Input,
    work: &Work,
    batch: &Batch<'_, L>,
    labels: &[i64],
    out: &mut Output,
) -> f64 {
    let n = labels.len();
    let (rows, lengths, lanes) = (&mut input.rows[..n], &input.lengths[..n], &work.lanes);
    let ignored = |i: usize| Some(labels[i]) == loss.ignore_index;
    let mut counts = Counts {
        rows: rows.iter().filter(|r| r.counts()).count(),
        ignored: (0..n).filter(|&i| ignored(i)).count(),
        zero_embeddings: rows.iter().zip(lengths).filter(|(r, l)| r.counts() && **l < SHORTEST).count(),
        zero_prototypes: lanes.iter().map(|l| l.zero).sum(),
        non_finite_prototypes: lanes.iter().map(|l| l.non_finite).sum(),
        ..Counts::default()
    };
    counts.non_finite_rows = n - counts.rows - counts.ignored;
    let broken = counts.non_finite_prototypes > 0;

    let weight = |class: usize| batch.class_weights.map_or(1.0, |w| f64::from(w[class]));
    let all = batch.class_weights.map_or(classes as f64, |w| w.iter().map(|&w| f64::from(w)).sum());
    let z: f64 = match loss.reduction {
        Reduction::Mean => rows.iter().filter(|r| r.counts()).map(|r| weight(r.class)).sum(),
        _ => 1.0,
    };
    resize(&mut out.row_losses, n);
    resize(&mut out.target_cosines, n);
    resize(&mut out.other_cosines, n);
    let mut sum = 0.0;
    for (i, row) in rows.iter_mut().enumerate() {
        let (mut own, mut cosine, mut nearest) = (if ignored(i) { 0.0 } else { f64::NAN }, 0.0, -1.0);
        if row.counts() && !broken {
            let partials = work.partials.chunks_exact(n).map(|range| &range[i]).take(lanes.len());
            let others = partials.fold(Partial::EMPTY, Partial::merged);
            let upstream = batch.upstream.map_or(1.0, |up| f64::from(if up.len() == 1 { up[0] } else { up[i] }));
            let gain = if z > 0.0 { upstream * loss.scale / z } else { 0.0 };
            let (scale, epsilon, class_weight) = (loss.scale, loss.label_smoothing, weight(row.class));
            own = row.finish(&others, Weights { scale, class_weight, all, epsilon, classes }, gain);
            (cosine, nearest) = (row.cosine as f32, others.nearest);
        }
        sum += own;
        (out.row_losses[i], out.target_cosines[i], out.other_cosines[i]) = (own as f32, cosine, nearest);
    }
    out.loss = match loss.reduction {
        _ if broken => f32::NAN,
        // NaN where a row is NaN, 0 where no row counts
        Reduction::Mean if z > 0.0 || sum.is_nan() => (sum / z) as f32,
        Reduction::Mean => 0.0,
        _ => sum as f32,
    };
    out.counts = counts;
    z
}

/// dX: the ranges' shares added in order, then projected.
fn finish_embeddings(plan: Plan, input: &Input, shares: &[f32], grad: &mut [f32], parallel: bool) {
    let Plan { arch, dim, layout, .. } = plan;
    let len = grad.len();
    let own = input.directions.chunks(dim * ROWS).zip(input.lengths.chunks(ROWS));
    let blocks = grad.chunks_mut(dim * ROWS).zip(own).enumerate().collect();
    each(parallel, blocks, |(block, (pull, (unit, lengths)))| {
        for (range, share) in shares.chunks_exact(len).take(layout.ranges).enumerate() {
            let from = &share[block * dim * ROWS..][..pull.len()];
            if range == 0 { pull.copy_from_slice(from) } else { arch.dispatch(Add { from, to: pull }) }
        }
        arch.dispatch(Project { pull, unit, dim, lengths });
    });
}

/// Every item once, in any order, on the threads of the current pool or on this one.
fn each<T: Send>(parallel: bool, items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    if parallel {
        items.into_par_iter().with_max_len(1).for_each(f);
    } else {
        items.into_iter().for_each(f);
    }
}

/// The first `len` values, taken off; fewer where there are no more.
fn front<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    rest.split_off_mut(..len.min(rest.len())).unwrap_or_default()
}

/// A vector of this length, whatever it holds.
fn resize(v: &mut Vec<f32>, len: usize) {
    if v.capacity() < len {
        *v = vec![0.0; len]; // the system's zero pages: touched first by the thread that fills them
    } else {
        v.resize(len, 0.0);
    }
}

impl Task<'_> {
    /// Pass 1: the rows' statistics over the other classes of this range.
    fn statistics<O: Other, const LINEAR: bool>(self, others: O, common: &Common<'_>) {
        let Common { plan: Plan { arch, layout, dim, .. }, scale, .. } = *common;
        let lane = self.lane;
        self.partials.fill(Partial::EMPTY);
        (lane.zero, lane.non_finite) = (0, 0);
        let (mut kept, mut most) = (self.kept, self.most);
        for (t, prototypes) in self.prototypes.chunks(layout.tile * dim).enumerate() {
            let (first, width) = (self.first + t * layout.tile, prototypes.len() / dim);
            lane.normalize(arch, prototypes, dim);
            lane.zero += lane.lengths[..width].iter().filter(|&&l| l < SHORTEST).count();
            lane.non_finite += lane.lengths[..width].iter().filter(|l| !l.is_finite()).count();
            for (b, rows) in common.rows.chunks(layout.block).enumerate() {
                let at = b * layout.block;
                let (values, most) = match layout.keep {
                    true => (front(&mut kept, rows.len() * width), front(&mut most, rows.len())),
                    false => (&mut lane.cosines[..rows.len() * width], &mut [][..]),
                };
                let x = Matrix::new(&common.directions[at * dim..], rows.len(), dim);
                product(values, false, x, Matrix::new(&lane.directions, width, dim).transposed());
                let block = Block { values, rows, first, width, scale, weights: common.weights_of(first, width) };
                let partials = &mut self.partials[at..at + rows.len()];
                if layout.keep && LINEAR {
                    arch.dispatch(Statistics::<O, true> { others, block, partials, most });
                } else {
                    arch.dispatch(Statistics::<O, false> { others, block, partials, most });
                }
            }
        }
    }

    /// Pass 2: this range's share of dX, and its dW.
    fn gradients<O: Other, const LINEAR: bool>(self, others: O, common: &Common<'_>) {
        let Common { plan: Plan { arch, layout, want, dim }, scale, .. } = *common;
        let lane = self.lane;
        let (mut kept, mut most, mut grad) = (self.kept, self.most, self.grad);
        for (t, prototypes) in self.prototypes.chunks(layout.tile * dim).enumerate() {
            let (first, width) = (self.first + t * layout.tile, prototypes.len() / dim);
            lane.normalize(arch, prototypes, dim);
            let pull = front(&mut grad, width * dim);
            for (b, rows) in common.rows.chunks(layout.block).enumerate() {
                let at = b * layout.block;
                let x = Matrix::new(&common.directions[at * dim..], rows.len(), dim);
                let w = Matrix::new(&lane.directions, width, dim);
                let (values, most) = match layout.keep {
                    true => (front(&mut kept, rows.len() * width), front(&mut most, rows.len())),
                    false => {
                        let cosines = &mut lane.cosines[..rows.len() * width];
                        product(cosines, false, x, w.transposed());
                        (cosines, &mut [][..])
                    }
                };
                let weights = common.weights_of(first, width);
                let block = Block { values: &mut *values, rows, first, width, scale, weights };
                if layout.keep && LINEAR {
                    arch.dispatch(Gradients::<O, true> { others, block, most });
                } else {
                    arch.dispatch(Gradients::<O, false> { others, block, most });
                }
                let g = Matrix::new(values, rows.len(), width);
                if want.grad_embeddings {
                    product(&mut self.share[at * dim..], t > 0, g, w);
                }
                if want.grad_prototypes {
                    product(pull, b > 0, g.transposed(), x);
                }
            }
            let (unit, lengths) = (&lane.directions[..width * dim], &lane.lengths[..width]);
            arch.dispatch(Project { pull, unit, dim, lengths });
        }
    }
}

impl Lane {
    /// Ŵ and the lengths of one tile.
    fn normalize(&mut self, arch: Arch, prototypes: &[f32], dim: usize) {
        let to = &mut self.directions[..prototypes.len()];
        let lengths = &mut self.lengths[..prototypes.len() / dim];
        arch.dispatch(Normalize { from: prototypes, dim, to, lengths, exact: false });
    }
}

impl<'a> Common<'a> {
    /// The weights of a tile's classes, with label smoothing.
    fn weights_of(&self, first: usize, width: usize) -> Option<&'a [f32]> {
        self.weights.map(|(given, ones)| given.map_or(&ones[..width], |w| &w[first..first + width]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Budget;

    /// What the layout counts covers what the head holds, in both schedules; the smaller budget means recompute.
    #[test]
    fn the_workspace_is_counted() {
        let shape = Shape::new(300, 5000, 48).unwrap();
        for (budget, schedule) in [(Budget::default(), "keep"), (Budget::mib(4), "recompute")] {
            let options = Options { budget, ..Options::default() };
            let head = Head::new(&MarginSoftmax::arcface(), shape, 0..shape.classes(), &options).unwrap();
            let Head { input, work, .. } = &head;
            let lanes = work.lanes.iter();
            let lanes = lanes.map(|l| 4 * (l.directions.capacity() + l.cosines.capacity()) + 8 * l.lengths.capacity());
            let floats = [&input.directions, &input.ones, &work.kept, &work.most, &work.shares];
            let held = floats.iter().map(|v| 4 * v.capacity()).sum::<usize>()
                + 8 * input.lengths.capacity()
                + size_of::<Row>() * input.rows.capacity()
                + size_of::<Partial>() * work.partials.capacity()
                + lanes.sum::<usize>();
            assert_eq!(head.schedule(), schedule);
            assert!(held as u64 <= head.workspace_bytes() && head.workspace_bytes() <= budget.get());
        }
    }
}

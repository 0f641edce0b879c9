//! The workspace of a head, and how a call divides it among the ranges.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::{
    curve::OthersF32,
    layout::Layout,
    pass::{Common, Path, Prototypes, Queue, Task, Tile, Tiles, WorkerScratch, directions, front},
    rows::{Partial, Row, RowExtras, unit},
    sparse::Lists,
    table::{Scratch, Table},
    vector::{Aligned, DotLength},
};
use crate::{
    GradientFilter, Shape, State, Want,
    objective::{CheckedBatch, Prepared, SHORTEST},
};

/// The choices that stay the same from call to call.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    pub arch: Arch,
    pub layout: Layout,
    pub want: Want,
    pub filter: Option<GradientFilter>,
    pub dim: usize,
}

/// The batch as the ranges read it.
#[derive(Default)]
pub(super) struct Input {
    /// X̂, \[N, D\], and the lengths of X, \[N\].
    pub directions: Aligned,
    pub lengths: Vec<f64>,
    pub rows: Vec<Row>,
    pub extras: Vec<RowExtras>,
    /// The class weights of a tile where the caller gives none.
    pub ones: Vec<f32>,
}

/// The workspace of the ranges.
#[derive(Default)]
pub(super) struct Work {
    /// \[ranges\].
    pub workers: Vec<WorkerScratch>,
    /// \[ranges, N\].
    pub partials: Vec<Partial>,
    /// \[tiles\]\[N, prototypes of the tile\]: what survives pass 1.
    pub kept: Vec<f32>,
    /// \[tiles, N\]: the largest logits that `kept` refers to.
    pub most: Vec<f32>,
    /// \[ranges\]\[N, k\]: the largest cosines and their classes.
    pub top: Vec<(f32, u32)>,
    /// \[ranges − 1, N, D\] in *recompute*: the first range's share of dX lies in the output.
    pub shares: Vec<f32>,
    /// \[N, D\] in *keep* where dX is a long sum, \[ranges, N, D\] in *recompute* where each range's share is.
    pub totals: Vec<f64>,
}

/// One call.
pub(super) struct Call<'a> {
    pub batch: CheckedBatch<'a>,
    /// Whether the batch is large enough to be worth a second thread.
    pub parallel: bool,
}

/// Where the gradients go; empty where none is wanted.
#[derive(Default)]
pub(super) struct Outputs<'a> {
    pub embeddings: &'a mut [f32],
    pub prototypes: &'a mut [f32],
    pub bias: &'a mut [f32],
}

/// Rows per task where rows are independent.
pub(super) const ROWS: usize = 32;

impl Input {
    pub fn new(setup: Setup, rows: usize) -> Self {
        Self {
            directions: Aligned::new(rows * setup.dim),
            lengths: vec![0.0; rows],
            rows: vec![Row::NONE; rows],
            extras: vec![RowExtras::NONE; rows],
            ones: vec![1.0; setup.layout.tile_classes()],
        }
    }

    /// Directions, and the target cosines of the labels in `range`.
    pub fn prepare(&mut self, setup: Setup, loss: &Prepared, range: &Range<usize>, call: &Call<'_>) {
        let Setup { arch, dim, .. } = setup;
        let Call { batch, parallel } = call;
        let linear = loss.is_linear();
        let class_values = batch.prototypes.len() / range.len();
        // the cosine of the vectors as they came, all in f64: the largest of the class' prototypes, the first on ties
        let target = |x: &[f32], length: f64, class: usize| {
            let (mut best, local) = ((0.0, 0), class - range.start);
            let own = &batch.prototypes[local * class_values..(local + 1) * class_values];
            for (k, prototype) in own.chunks_exact(dim).enumerate() {
                let (dot, other_length) = arch.dispatch(DotLength(x, prototype));
                let cosine = match linear {
                    true => dot + batch.bias.map_or(0.0, |b| f64::from(b[local])),
                    false => dot / (length.max(SHORTEST) * other_length.max(SHORTEST)),
                };
                if cosine.is_finite() && (k == 0 || cosine > best.0) {
                    best = (cosine, k as u32);
                }
            }
            best
        };
        let own = self.lengths.chunks_mut(ROWS).zip(self.rows.chunks_mut(ROWS)).zip(self.extras.chunks_mut(ROWS));
        let own = own.zip(batch.labels.chunks(ROWS));
        let x = batch.embeddings.chunks(dim * ROWS).zip(self.directions.chunks_mut(dim * ROWS));
        each(*parallel, x.zip(own).collect(), |((x, to), (((lengths, rows), extras), labels))| {
            let (to, lengths) = (&mut to[..x.len()], &mut lengths[..labels.len()]);
            directions(arch, linear, (x, dim), to, lengths, true);
            let rows = rows.iter_mut().zip(extras).zip(labels);
            for ((x, &length), ((row, extra), &label)) in x.chunks_exact(dim).zip(&*lengths).zip(rows) {
                (*row, *extra) = (Row::NONE, RowExtras::NONE);
                if Some(label) != loss.ignore_index && length.is_finite() {
                    let class = label as usize;
                    let (cosine, center) = if range.contains(&class) { target(x, length, class) } else { (0.0, 0) };
                    (*row, extra.center) = (Row::new(class, cosine), center);
                }
            }
        });
    }

    pub fn common<'a>(
        &'a self,
        setup: Setup,
        loss: &Prepared,
        shape: Shape,
        path: Path,
        call: &Call<'a>,
        state: &State,
    ) -> Common<'a> {
        let n = call.batch.rows();
        let smoothed = loss.label_smoothing > 0.0;
        Common {
            setup,
            path,
            table: Table {
                curve: OthersF32::new(&loss.others, loss.others_series(), state.hardness),
                binary: loss.binary().map(|link| link.bias as f32),
                centers: shape.sub_centers(),
            },
            linear: loss.is_linear(),
            scale: state.scale_of(loss) as f32,
            directions: &self.directions[..n * setup.dim],
            rows: &self.rows[..n],
            extras: &self.extras[..n],
            weights: smoothed.then_some((call.batch.class_weights, &self.ones)),
            per_unit: if smoothed { 1.0 / unit(call.batch.class_weights) } else { 1.0 },
        }
    }
}

impl Work {
    pub fn new(setup: Setup, rows: usize) -> Self {
        let layout = setup.layout;
        let worker = || WorkerScratch {
            own: Prototypes::new(layout.tile),
            unit: vec![0.0; setup.dim],
            cosines: vec![0.0; layout.worker_cosines()],
            scratch: Scratch::new(layout.tile_classes()),
            lists: Lists::new(layout.listed()),
            totals: vec![0.0; layout.worker_totals()],
            slides: vec![0.0; layout.slides()],
            zero: 0,
            non_finite: 0,
        };
        Self {
            workers: (0..layout.ranges).map(|_| worker()).collect(),
            partials: vec![Partial::EMPTY; rows * layout.ranges],
            kept: vec![0.0; layout.kept() as usize],
            most: vec![0.0; layout.most() as usize],
            top: vec![(0.0, 0); layout.chosen() as usize],
            shares: vec![0.0; layout.shares() as usize],
            totals: vec![0.0; layout.totals() as usize],
        }
    }

    /// The workspace and the gradients divided into ranges of classes; an empty slice gives every range an empty one.
    pub fn tasks<'a>(
        &'a mut self,
        setup: Setup,
        range: &Range<usize>,
        call: &Call<'a>,
        into: Outputs<'a>,
    ) -> Vec<Task<'a>> {
        let (Setup { layout, dim, .. }, n) = (setup, call.batch.rows());
        let mut first_share = into.embeddings;
        let (mut partials, mut top, mut shares) = (&mut self.partials[..], &mut self.top[..], &mut self.shares[..]);
        let mut totals = &mut self.totals[..];
        let rest = all(range, call, &mut self.kept, &mut self.most, into.prototypes, into.bias);
        let mut tiles = Tiles { layout, dim, rows: n, rest };
        let task = |(index, worker): (usize, &'a mut WorkerScratch)| Task {
            tiles: Tiles { layout, dim, rows: n, rest: tiles.front(layout.range_tiles()) },
            worker,
            partials: front(&mut partials, n),
            top: front(&mut top, n * layout.top),
            share: front(if index == 0 { &mut first_share } else { &mut shares }, n * dim),
            total: front(&mut totals, n * dim),
        };
        self.workers.iter_mut().enumerate().map(task).collect()
    }

    /// The scratch of the workers, and all tiles of pass 2 in *keep* with the rows of dX that they join.
    pub fn queue<'a>(
        &'a mut self,
        setup: Setup,
        range: &Range<usize>,
        call: &Call<'a>,
        lengths: &'a [f64],
        into: Outputs<'a>,
    ) -> (&'a mut [WorkerScratch], Queue<'a>) {
        let Setup { layout, dim, .. } = setup;
        let rest = all(range, call, &mut self.kept, &mut self.most, into.prototypes, into.bias);
        let tiles = Tiles { layout, dim, rows: call.batch.rows(), rest };
        (&mut self.workers, Queue::new(tiles, (call.batch.embeddings, lengths), into.embeddings, &mut self.totals))
    }
}

/// All tiles in one.
fn all<'a>(
    range: &Range<usize>,
    call: &Call<'a>,
    kept: &'a mut [f32],
    most: &'a mut [f32],
    grad: &'a mut [f32],
    grad_bias: &'a mut [f32],
) -> Tile<'a> {
    let (prototypes, bias) = (call.batch.prototypes, call.batch.bias.unwrap_or_default());
    Tile { index: 0, first: range.start, prototypes, bias, kept, most, grad, grad_bias }
}

/// Every item once, in any order, on the threads of the current pool or on this one.
pub(super) fn each<T: Send>(parallel: bool, items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    if parallel {
        items.into_par_iter().with_max_len(1).for_each(f);
    } else {
        items.into_iter().for_each(f);
    }
}

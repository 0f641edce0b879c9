//! The workspace of a head, and how a call divides it among the ranges.

use std::ops::Range;

use super::{
    input::{HeadCall, ROWS, each},
    join::Queue,
    ranges::RangeTask,
    rows::Partial,
    tiles::{ClassTile, ClassTiles, TileClasses, front},
    tiling::{Setup, Tiling},
    total::Total,
    worker::WorkerScratch,
};

/// The workspace of the ranges.
#[derive(Default)]
pub(super) struct Workspace {
    /// \[ranges\]\[parts\].
    pub workers: Vec<WorkerScratch>,
    /// \[ranges, N\]; after [`merge`](Self::merge) the first range has the statistics over all.
    pub partials: Vec<Partial>,
    /// \[tiles\]\[N, prototypes of the tile\]: what survives pass 1.
    pub kept: Vec<f32>,
    /// \[tiles, N\]: the largest logits that `kept` refers to.
    pub max_logit: Vec<f32>,
    /// \[ranges\]\[N, k\]: the largest cosines and their classes.
    pub top: Vec<(f32, u32)>,
    /// \[ranges − 1, N, D\] in *recompute*: the first range's share of dX lies in the output. \[N, D\] in *keep* where dX is
    /// divided along D: its blocks.
    pub shares: Vec<f32>,
    /// \[N, D\] in *keep* where dX is a long sum, \[ranges, N, D\] in *recompute* where each range's share is.
    pub totals: Vec<f64>,
}

/// Where the gradients go; empty where none is wanted.
#[derive(Default)]
pub(super) struct Outputs<'a> {
    pub embeddings: &'a mut [f32],
    pub prototypes: &'a mut [f32],
    pub bias: &'a mut [f32],
}

impl Workspace {
    pub fn new(tiling: &Tiling) -> Self {
        Self {
            workers: (0..tiling.workers()).map(|w| WorkerScratch::new(tiling, w % tiling.parts() == 0)).collect(),
            partials: vec![Partial::EMPTY; tiling.rows * tiling.ranges],
            kept: vec![0.0; tiling.kept() as usize],
            max_logit: vec![0.0; tiling.max_logits() as usize],
            top: vec![(0.0, 0); tiling.chosen() as usize],
            shares: vec![0.0; tiling.shares() as usize],
            totals: vec![0.0; tiling.totals() as usize],
        }
    }

    /// The statistics of every row over all ranges, joined in their order.
    pub fn merge(&mut self, ranges: usize, call: &HeadCall<'_>) {
        let rows = call.batch.rows();
        let (first, others) = self.partials.split_at_mut(rows);
        let others = others.chunks_exact(rows.max(1)).take(ranges - 1);
        each(call.parallel, first.chunks_mut(ROWS).enumerate().collect(), |(block, first)| {
            for (i, first) in (block * ROWS..).zip(first) {
                *first = others.clone().fold(Partial::EMPTY.merged(first), |all, other| all.merged(&other[i]));
            }
        });
    }

    /// The ranges of a pass.
    pub fn tasks<'a>(
        &'a mut self,
        Setup { tiling, .. }: Setup,
        range: &Range<usize>,
        call: &HeadCall<'a>,
        into: Outputs<'a>,
    ) -> Vec<RangeTask<'a>> {
        let (rows, dim) = (call.batch.rows(), tiling.dim);
        let mut first_share = into.embeddings;
        let (mut partials, mut top, mut shares) = (&mut self.partials[..], &mut self.top[..], &mut self.shares[..]);
        let mut totals = &mut self.totals[..];
        let mut tiles = all(tiling, range, call, (&mut self.kept, &mut self.max_logit), (into.prototypes, into.bias));
        let task = |(index, workers): (usize, &'a mut [WorkerScratch])| RangeTask {
            tiles: ClassTiles { tiling, rows, rest: tiles.front(tiling.range_tiles()) },
            workers,
            partials: front(&mut partials, rows),
            top: front(&mut top, rows * tiling.top),
            share: front(if index == 0 { &mut first_share } else { &mut shares }, rows * dim),
            total: Total::new(front(&mut totals, rows * dim)),
            begun: false,
        };
        self.workers.chunks_mut(tiling.parts()).enumerate().map(task).collect()
    }

    /// The scratch of the workers, and all tiles of pass 2 in *keep* with the blocks of dX that they join.
    pub fn queue<'a>(
        &'a mut self,
        Setup { tiling, .. }: Setup,
        range: &Range<usize>,
        call: &HeadCall<'a>,
        into: Outputs<'a>,
    ) -> (&'a mut [WorkerScratch], Queue<'a>) {
        let tiles = all(tiling, range, call, (&mut self.kept, &mut self.max_logit), (into.prototypes, into.bias));
        let sums = match call.division.striped(tiling.dim) {
            true => &mut self.shares[..into.embeddings.len()],
            false => into.embeddings,
        };
        (&mut self.workers, Queue::new(tiles, call.division, sums, &mut self.totals))
    }
}

/// All tiles.
fn all<'a>(
    tiling: Tiling,
    range: &Range<usize>,
    call: &HeadCall<'a>,
    (kept, max_logit): (&'a mut [f32], &'a mut [f32]),
    (grad, grad_bias): (&'a mut [f32], &'a mut [f32]),
) -> ClassTiles<'a> {
    let (prototypes, bias) = (call.prototypes, call.batch.bias.unwrap_or_default());
    let classes = TileClasses { first: range.start, prototypes, bias };
    let rest = ClassTile { index: 0, classes, kept, max_logit, grad, grad_bias };
    ClassTiles { tiling, rows: call.batch.rows(), rest }
}

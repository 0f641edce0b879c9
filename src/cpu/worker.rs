//! The scratch of whoever works on a tile of classes.

use super::{
    directions::Measure,
    input::PassContext,
    product::SPACED,
    rows::HeadRow,
    soft::SoftRows,
    sparse::SparseGradient,
    sweep::Block,
    table::Scratch,
    tiles::TileClasses,
    tiling::{Setup, Tiling},
};
use crate::objective::SHORTEST;

/// The prototypes of a tile.
pub(super) struct TileScratch {
    /// Lengths of the prototypes: the first of every class, then the second of every class, ...
    pub lengths: Vec<f64>,
    /// Factors that make them unit vectors.
    pub factors: Vec<f32>,
    /// If true, raw prototypes enter the products, and columns of the cosines and of G are multiplied by the factors; if
    /// false, some length is too extreme for that, and each prototype is normalised first.
    pub ordinary: bool,
}

/// The inputs of a block of rows × prototypes of a tile, beside the block itself.
pub(super) struct BlockScratch {
    /// The direction of a prototype that is not ordinary.
    pub unit: Vec<f32>,
    /// \[rows of a block, `SPACED`\] where blocks are divided: the cosines with few prototypes.
    pub narrow: Vec<f32>,
    pub sweep: Scratch,
}

/// The scratch of a worker, and what it counted.
pub(super) struct WorkerScratch {
    pub tile: TileScratch,
    pub block: BlockScratch,
    /// \[rows of a block, prototypes of a tile\] in *recompute*, of the first worker of a range.
    /// Behind it \[prototypes of a tile, D\], once they come in a half type.
    pub cosines: Vec<f32>,
    /// The entries of G that a filter keeps.
    pub lists: SparseGradient,
    /// Of dW, \[prototypes of a tile, D\], where that is a long sum.
    pub totals: Vec<f64>,
    /// Of the gradient of a tile's biases.
    pub bias_sums: Vec<f64>,
    pub zero: usize,
    pub non_finite: usize,
}

/// The rows of a block, in the kept values of a tile or in a worker's scratch.
pub(super) fn values_of<'a>(
    kept: &'a mut [f32],
    worker: &'a mut [f32],
    (at, rows): (usize, usize),
    columns: usize,
) -> &'a mut [f32] {
    if kept.is_empty() { &mut worker[..rows * columns] } else { &mut kept[at * columns..(at + rows) * columns] }
}

impl TileScratch {
    /// Bytes per prototype.
    pub const BYTES: usize = 12;

    fn new(tiling: &Tiling) -> Self {
        Self { lengths: vec![0.0; tiling.tile], factors: vec![0.0; tiling.tile], ordinary: true }
    }

    /// Lengths and factors of a tile's prototypes.
    pub fn measure(&mut self, context: &PassContext<'_>, prototypes: &[f32]) {
        let Setup { arch, tiling: Tiling { dim, centers, .. }, .. } = context.setup;
        let columns = prototypes.len() / dim;
        let width = columns / centers;
        let own = self.lengths.chunks_exact_mut(width).zip(self.factors.chunks_exact_mut(width));
        self.ordinary = true;
        for (k, (lengths, factors)) in own.take(centers).enumerate() {
            let from = &prototypes[k * dim..];
            self.ordinary &= arch.dispatch(Measure { from, dim, step: centers, lengths, factors });
        }
        if context.linear {
            self.ordinary = self.lengths[..columns].iter().all(|l| l.is_finite());
        }
    }

    /// Measures the prototypes of a tile, and counts those that are zero and those that are not finite.
    pub fn count(&mut self, context: &PassContext<'_>, prototypes: &[f32]) -> [usize; 2] {
        self.measure(context, prototypes);
        let lengths = &self.lengths[..prototypes.len() / context.setup.tiling.dim];
        let zero = lengths.iter().filter(|&&l| l < SHORTEST && !context.linear).count();
        [zero, lengths.iter().filter(|l| !l.is_finite()).count()]
    }

    /// The block of these rows, the first of which is `at`, and a tile's classes; `ready`: `values` are cosines already, or what pass 1 made of them.
    pub fn block<'b>(
        &'b self,
        context: &'b PassContext<'_>,
        (at, rows, values): (usize, &'b [HeadRow], &'b mut [f32]),
        classes: TileClasses<'_>,
        ready: bool,
    ) -> Block<'b> {
        let Setup { tiling: Tiling { dim, centers, .. }, filter, .. } = context.setup;
        let columns = classes.prototypes.len() / dim;
        let (first, width) = (classes.first, columns / centers);
        let factors = (self.ordinary && !context.linear).then(|| &self.factors[..columns]);
        Block {
            values,
            rows,
            first,
            width,
            scale: context.scale,
            soft: SoftRows { pulls: &context.soft.0[at * context.soft.1..], count: context.soft.1 },
            weights: context.weights_of(first, width),
            per_unit: context.per_unit,
            before: factors.filter(|_| !ready),
            // a filter compares G as it is
            after: factors.filter(|_| filter.is_none()),
        }
    }
}

impl BlockScratch {
    fn new(tiling: &Tiling) -> Self {
        Self {
            unit: vec![0.0; tiling.dim],
            narrow: vec![0.0; Self::narrow(tiling)],
            sweep: Scratch::new(tiling.tile_classes()),
        }
    }

    /// Values of the cosines with few prototypes.
    pub fn narrow(tiling: &Tiling) -> usize {
        if tiling.spread { tiling.block * SPACED } else { 0 }
    }
}

impl WorkerScratch {
    /// `first`: of a range.
    pub fn new(tiling: &Tiling, first: bool) -> Self {
        Self {
            tile: TileScratch::new(tiling),
            block: BlockScratch::new(tiling),
            cosines: vec![0.0; if first { tiling.worker_cosines() } else { 0 }],
            lists: SparseGradient::new(tiling.listed()),
            totals: vec![0.0; tiling.worker_totals()],
            bias_sums: vec![0.0; tiling.bias_sums()],
            zero: 0,
            non_finite: 0,
        }
    }
}

//! The scratch of whoever works on a tile of classes.

use super::{
    directions::Measure,
    input::PassContext,
    rows::HeadRow,
    sparse::SparseGradient,
    sweep::Block,
    table::Scratch,
    tiles::TileClasses,
    tiling::{Setup, Tiling},
};
use crate::objective::SHORTEST;

/// The prototypes of a tile, and a block of rows × them.
pub(super) struct TileScratch {
    /// Lengths of the prototypes: the first of every class, then the second of every class, ...
    pub lengths: Vec<f64>,
    /// Factors that make them unit vectors.
    pub factors: Vec<f32>,
    /// If true, raw prototypes enter the products, and columns of the cosines and of G are multiplied by the factors; if
    /// false, some length is too extreme for that, and each prototype is normalised first.
    pub ordinary: bool,
    /// The direction of a prototype that is not ordinary.
    pub unit: Vec<f32>,
    /// \[rows of a block, prototypes of a tile\] in *recompute*.
    pub cosines: Vec<f32>,
    pub sweep: Scratch,
}

/// The scratch of a worker, and what it counted.
pub(super) struct WorkerScratch {
    pub tile: TileScratch,
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
        Self {
            lengths: vec![0.0; tiling.tile],
            factors: vec![0.0; tiling.tile],
            ordinary: true,
            unit: vec![0.0; tiling.dim],
            cosines: vec![0.0; tiling.worker_cosines()],
            sweep: Scratch::new(tiling.tile_classes()),
        }
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

    /// The cosines of a block of rows with a tile's classes, computed unless they are `ready`, and scratch for a sweep.
    pub fn block<'b>(
        &'b mut self,
        context: &'b PassContext<'_>,
        (at, rows): (usize, &'b [HeadRow]),
        classes: TileClasses<'_>,
        kept: &'b mut [f32],
        ready: bool,
    ) -> (Block<'b>, &'b mut Scratch) {
        let Setup { tiling: Tiling { dim, centers, .. }, filter, .. } = context.setup;
        let columns = classes.prototypes.len() / dim;
        let (first, width) = (classes.first, columns / centers);
        let values = values_of(kept, &mut self.cosines, (at, rows.len()), columns);
        if !ready {
            context.cosines(values, at, classes, (self.ordinary, &mut self.unit));
        }
        let factors = (self.ordinary && !context.linear).then(|| &self.factors[..columns]);
        let block = Block {
            values,
            rows,
            first,
            width,
            scale: context.scale,
            weights: context.weights_of(first, width),
            per_unit: context.per_unit,
            before: factors.filter(|_| !ready),
            // a filter compares G as it is
            after: factors.filter(|_| filter.is_none()),
        };
        (block, &mut self.sweep)
    }
}

impl WorkerScratch {
    pub fn new(tiling: &Tiling) -> Self {
        Self {
            tile: TileScratch::new(tiling),
            lists: SparseGradient::new(tiling.listed()),
            totals: vec![0.0; tiling.worker_totals()],
            bias_sums: vec![0.0; tiling.bias_sums()],
            zero: 0,
            non_finite: 0,
        }
    }

    /// Measures the prototypes of a tile, and counts those that are zero or not finite.
    pub fn count(&mut self, context: &PassContext<'_>, prototypes: &[f32]) {
        self.tile.measure(context, prototypes);
        let lengths = &self.tile.lengths[..prototypes.len() / context.setup.tiling.dim];
        if !context.linear {
            self.zero += lengths.iter().filter(|&&l| l < SHORTEST).count();
        }
        self.non_finite += lengths.iter().filter(|l| !l.is_finite()).count();
    }
}

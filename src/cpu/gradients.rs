//! Pass 2: G of a tile of classes, and the gradients that follow from it.

use super::{
    directions::Project,
    held::Held,
    input::{PassContext, Path},
    ranges::RangeTask,
    rows::HeadRow,
    sparse::{ApplyFilter, FilterSums, SparseGradient},
    sweep::DirectGradients,
    table::TableGradients,
    tiles::{ClassTile, TileClasses},
    tiling::{Setup, Tiling},
    total::{Total, Widen},
    worker::{BlockScratch, TileScratch, WorkerScratch, values_of},
};
use crate::objective::others::{Identity, Rectified};

impl RangeTask<'_> {
    /// [`Pass::Gradients`](super::ranges::Pass).
    pub fn gradients(&mut self, count: usize, context: &PassContext<'_>) {
        let Self { tiles, workers, share, total, begun, .. } = self;
        let Some(worker) = workers.first_mut() else { return };
        if !std::mem::replace(begun, true) {
            worker.lists.sums = FilterSums::default();
        }
        for _ in 0..count {
            let Some(tile) = tiles.next() else { return };
            tile.gradients(Held::Nothing, context, worker, Some((&mut *share, total.adds())));
            let last = tiles.rest.classes.prototypes.is_empty();
            total.joined(context.setup.arch, share, last || !worker.tile.ordinary);
        }
    }
}

impl<'a> ClassTile<'a> {
    /// dW and db, and G in what is kept, its columns multiplied by the factors if the prototypes are ordinary. Where nothing
    /// is kept, dX = G Ŵ goes to `share`, or is added to it.
    pub fn gradients(
        self,
        held: Held,
        context: &PassContext<'_>,
        worker: &mut WorkerScratch,
        mut share: Option<(&mut [f32], bool)>,
    ) -> &'a [f32] {
        let Self { classes, kept, max_logit, grad, grad_bias, .. } = self;
        let Setup { arch, tiling: Tiling { dim, centers, want, .. }, filter } = context.setup;
        let WorkerScratch { tile, block, cosines, lists, totals, bias_sums, .. } = worker;
        let (classes, cosines) = classes.widened(cosines, context.setup.tiling.worker_cosines());
        let columns = classes.prototypes.len() / dim;
        let width = columns / centers;
        tile.measure(context, classes.prototypes);
        let mut total = Total::new(totals);
        for (at, rows) in context.row_blocks() {
            let values = values_of(kept, cosines, (at, rows.len()), columns);
            let max_logit = max_logit.get(at..).unwrap_or_default();
            tile.block_gradients(held, context, (at, rows), classes, (values, max_logit), block);
            let sparse = filter.is_some() && tile.apply_filter(context, rows, values, lists);
            let values = &*values;
            if want.grad_prototypes {
                context.grad_prototypes((grad, total.adds()), values, columns, at, sparse.then_some(lists));
            }
            total.joined(arch, grad, at + rows.len() == context.rows.len());
            if !grad_bias.is_empty() {
                let rows = values.chunks_exact(width).enumerate();
                rows.for_each(|(i, from)| arch.dispatch(Widen { from, to: bias_sums, add: at + i > 0 }));
            }
            if let (Some((share, add)), true) = (&mut share, want.grad_embeddings) {
                let (share, with) = (&mut share[at * dim..], (tile.ordinary, &mut block.unit[..]));
                context.grad_embeddings((share, *add), (0, dim), values, classes.prototypes, with, lists);
            }
        }
        grad_bias.iter_mut().zip(&*bias_sums).for_each(|(to, sum)| *to = *sum as f32);
        if want.grad_prototypes {
            let divided = tile.ordinary && !context.linear;
            for (k, lengths) in tile.lengths.chunks_exact(width).take(centers).enumerate() {
                let (pull, from) = (&mut grad[k * dim..], &classes.prototypes[k * dim..]);
                let project = Project { pull, from, step: centers, dim, lengths, divided };
                total.finish(arch, k * dim, project, context.linear);
            }
        }
        kept
    }
}

impl TileScratch {
    /// A block of cosines, or of what pass 1 left of them, becomes G.
    fn block_gradients(
        &self,
        held: Held,
        context: &PassContext<'_>,
        (at, rows): (usize, &[HeadRow]),
        classes: TileClasses<'_>,
        (values, max_logit): (&mut [f32], &[f32]),
        scratch: &mut BlockScratch,
    ) {
        let (arch, table) = (context.setup.arch, &context.table);
        if held == Held::Nothing {
            context.cosines(values, (at, at), classes, (self.ordinary, &mut *scratch));
        }
        let block = self.block(context, (at, rows, values), classes, held != Held::Nothing);
        match context.path {
            Path::Identity if held == Held::PassOne => {
                arch.dispatch(DirectGradients::<_, true> { others: Identity, block, max_logit });
            }
            Path::Identity => arch.dispatch(DirectGradients::<_, false> { others: Identity, block, max_logit }),
            Path::Rectified => arch.dispatch(DirectGradients::<_, false> { others: Rectified, block, max_logit }),
            Path::Table | Path::AllSums => {
                let (extras, scratch) = (&context.extras[at..], &mut scratch.sweep);
                arch.dispatch(TableGradients { table, block, extras, scratch });
            }
        }
    }

    /// Small entries of G become 0, then its columns are multiplied by the factors. Returns whether the entries that are
    /// left are few enough to be listed.
    fn apply_filter(
        &self,
        context: &PassContext<'_>,
        rows: &[HeadRow],
        values: &mut [f32],
        lists: &mut SparseGradient,
    ) -> bool {
        let columns = values.len() / rows.len();
        let factors = (self.ordinary && !context.linear).then(|| &self.factors[..columns]);
        context.setup.arch.dispatch(ApplyFilter { values, columns, rows, lists, factors })
    }
}

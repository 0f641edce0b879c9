//! The backward pass of a head.

use super::{
    Grid, Kernel, Step, StepConstants,
    buffers::{FilterBuffers, Sweep},
    builder::Builder,
    driver_limits::ROWS_PER_PASS,
    forward::{HeadPlan, Loaders, Round},
    kernels as k,
    schedule::SumPlace,
};
use crate::{Error, Result};

/// The kernels of a sweep over the cosines.
struct SweepKernels {
    /// The gradient has the inverse lengths.
    scaled: bool,
    grad_cosines: Kernel,
    filter_totals: Kernel,
    list_classes: Kernel,
    list_rows: Kernel,
    grad_embeddings: Kernel,
    finish_embeddings: Kernel,
    grad_prototypes: Kernel,
    grad_bias: Kernel,
}

impl SweepKernels {
    fn new(head: &HeadPlan<'_>) -> Self {
        let (tile, filter) = (head.schedule.tile, head.work.filter);
        let Loaders { embeddings: x, prototypes: w, cosines: g, gradients: out } = head.loaders;
        let pull = k::Pull { scaled: tile.geometry().units.is_none(), filter };
        Self {
            scaled: pull.scaled,
            grad_cosines: k::grad_cosines(&head.snippets, g, pull),
            filter_totals: k::filter_totals(),
            list_classes: k::list_classes(tile),
            list_rows: k::list_rows(tile),
            grad_embeddings: k::grad_embeddings(tile, g, w, pull),
            finish_embeddings: k::finish_embeddings(x, out, pull.scaled),
            grad_prototypes: k::grad_prototypes(tile, g, x, w, out, pull),
            grad_bias: k::grad_bias(),
        }
    }
}

/// Where one round of the sweep works.
struct SweepRound<'a> {
    sweep: &'a Sweep,
    round: &'a Round,
    kernels: &'a SweepKernels,
    sum: SumPlace,
}

impl HeadPlan<'_> {
    /// Gradients; empty where none is wanted.
    pub fn backward(&self, b: &mut Builder, rounds: &[Round]) -> Result<Vec<Step>> {
        let mut steps = self.row_gradients(b)?;
        let Some(sweep) = &self.buffers.sweep else { return Ok(steps) };
        let kernels = &SweepKernels::new(self);
        for (round, sum) in rounds.iter().zip(self.schedule.sums()) {
            self.sweep(b, &SweepRound { sweep, round, kernels, sum }, &mut steps)?;
        }
        Ok(steps)
    }

    /// The gradients of the rows under an upstream gradient, and their sums: those of the scale and of a binary link's bias.
    fn row_gradients(&self, b: &mut Builder) -> Result<Vec<Step>> {
        let Self { global, buffers: own, .. } = self;
        let mut steps = vec![];
        if let Some(upstream) = own.upstream {
            let kernel = k::row_gradients(&self.snippets);
            let step = b.step(&kernel, *global, Grid::over_rows(64, 1), &[own.batch, upstream, own.rows])?;
            steps.push(step.with_upstream());
        }
        if let (Some(soft), true) = (&own.soft, own.sweep.is_some()) {
            let kernel = k::soft_gradients(&self.snippets);
            steps.push(b.step(&kernel, *global, Grid::over_rows(64, 1), &[own.rows, soft.rows])?);
        }
        for (out, local) in [(own.grad_scale, 0), (own.grad_link_bias, 1)] {
            if let Some(out) = out {
                let part = StepConstants { local, ..*global };
                steps.push(b.step(&k::sum_row_gradients(), part, Grid::fixed(1), &[own.rows, out])?);
            }
        }
        self.margin_gradients(b, &mut steps)?;
        Ok(steps)
    }

    /// The gradients of the rows' margins, and their sums.
    fn margin_gradients(&self, b: &mut Builder, steps: &mut Vec<Step>) -> Result<()> {
        let Self { global, buffers: own, .. } = self;
        let Some(margins) = &own.margins else { return Ok(()) };
        if cfg!(all(target_arch = "wasm32", not(feature = "gpu"))) {
            // every page downloads the planner
            let why = "the planner for browsers comes without its kernels";
            return Err(Error::Missing { what: "grad_margins", why });
        }
        let part = StepConstants { local: u32::from(margins.sum.is_none()), ..*global };
        let buffers = [own.rows, margins.rows, own.class_margins, own.row_margins];
        steps.push(b.step(&k::margin_gradients(&self.snippets), part, Grid::over_rows(64, 1), &buffers)?);
        if let Some((out, by_class)) = margins.sum {
            let step = if by_class {
                let (classes, buffers) = (self.work.all_classes, [own.rows, margins.rows, out]);
                // not those of the norms of so many prototypes, as the budget counts them
                let part = StepConstants { begin: 1, ..StepConstants::over(classes) };
                b.step(&k::class_margin_gradients(), part, Grid::fixed(classes as u64), &buffers)
            } else {
                b.step(&k::sum_margin_gradients(), *global, Grid::fixed(1), &[margins.rows, out])
            };
            steps.push(step?);
        }
        Ok(())
    }

    /// One round: dL/dcosines in the place of the cosines, and what it adds to dX, dW and the bias' gradient.
    fn sweep(&self, b: &mut Builder, place: &SweepRound<'_>, steps: &mut Vec<Step>) -> Result<()> {
        let (own, &SweepRound { sweep, round, kernels, .. }) = (&self.buffers, place);
        if !self.schedule.keep {
            steps.push(round.product.clone());
        }
        let mut buffers = own.with_bias(&[round.cosines, own.rows, own.classes, sweep.columns]);
        buffers.extend(own.soft.as_ref().map(|soft| soft.rows));
        buffers.extend(kernels.scaled.then_some(own.batch));
        buffers.extend(sweep.filter.as_ref().map(|filter| filter.blocks));
        let units = u64::from(round.part.stride).div_ceil(self.shape.sub_centers() as u64);
        steps.push(b.step(&kernels.grad_cosines, round.part, Grid::over_rows(64, units.div_ceil(64)), &buffers)?);
        if let Some(filter) = &sweep.filter {
            self.filter(b, place, filter, steps)?;
        }
        if let Some(buffers) = sweep.grad_embeddings {
            self.grad_embeddings(b, place, buffers, steps)?;
        }
        if let Some(&gradient) = sweep.grad_prototypes.get(round.chunk.shard) {
            self.grad_prototypes(b, place, gradient, steps)?;
        }
        if let Some(gradient) = sweep.grad_bias {
            let grid = Grid::fixed(u64::from(round.part.count).div_ceil(64));
            steps.push(b.step(&kernels.grad_bias, round.part, grid, &[sweep.columns, gradient])?);
        }
        Ok(())
    }

    /// The sums over what a filter left, and the lists of it.
    fn filter(
        &self,
        b: &mut Builder,
        place: &SweepRound<'_>,
        own: &FilterBuffers,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        let (part, kernels, listed) = (place.round.part, place.kernels, k::rows_per_list(self.schedule.tile));
        steps.push(b.step(&kernels.filter_totals, part, Grid::fixed(1), &[own.blocks, own.filtered])?);
        if let Some(list) = own.class_lists {
            steps.push(b.step(&kernels.list_classes, part, Grid::over_rows(listed, 1), &[own.blocks, list])?);
        }
        if let Some(list) = own.row_lists {
            let grid = Grid::fixed(u64::from(part.stride).div_ceil(listed.into()));
            steps.push(b.step(&kernels.list_rows, part, grid, &[own.blocks, list])?);
        }
        Ok(())
    }

    /// dX: its sum over the classes of this round, finished where the sum ends.
    fn grad_embeddings(
        &self,
        b: &mut Builder,
        &SweepRound { sweep, round, kernels, sum }: &SweepRound<'_>,
        [gradient, slabs]: [usize; 2],
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        let (own, schedule) = (&self.buffers, &self.schedule);
        let grid = Grid::over_rows(schedule.tile.rows(), self.wide() * schedule.splits as u64);
        let mut buffers = vec![round.cosines, own.prototypes[round.chunk.shard], slabs];
        buffers.extend(sweep.filter.as_ref().and_then(|filter| filter.class_lists));
        buffers.extend((!kernels.scaled).then_some(own.classes));
        let part = StepConstants { begin: u32::from(sum.begins), ..round.part };
        steps.push(b.step(&kernels.grad_embeddings, part, grid, &buffers)?);
        if sum.ends {
            let mut buffers = vec![own.embeddings, own.inverses, own.rows, slabs, gradient];
            buffers.extend(kernels.scaled.then_some(own.batch));
            let part = StepConstants { local: u32::from(sum.adds), ..self.global };
            steps.push(b.step(&kernels.finish_embeddings, part, Grid::over_rows(1, 1), &buffers)?);
        }
        Ok(())
    }

    /// dW of the classes of this round, in passes over the rows.
    fn grad_prototypes(
        &self,
        b: &mut Builder,
        &SweepRound { sweep, round, kernels, .. }: &SweepRound<'_>,
        gradient: usize,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        let own = &self.buffers;
        let grid = Grid::fixed(u64::from(round.part.count).div_ceil(self.schedule.tile.rows().into()) * self.wide());
        let data = own.prototypes[round.chunk.shard];
        let mut buffers = vec![round.cosines, own.embeddings, data, own.inverses, own.classes, sweep.columns, gradient];
        buffers.extend(sweep.filter.as_ref().and_then(|filter| filter.row_lists));
        for first in (0..self.shape.rows().max(1) as u32).step_by(ROWS_PER_PASS as usize) {
            let part = StepConstants { row_first: first, row_count: ROWS_PER_PASS, ..round.part };
            steps.push(b.step(&kernels.grad_prototypes, part, grid, &buffers)?);
        }
        Ok(())
    }

    /// Tiles that cover a vector.
    fn wide(&self) -> u64 {
        (self.shape.dim() as u64).div_ceil(self.schedule.tile.columns().into())
    }
}

//! The forward pass of a head, stage by stage.

use super::{
    Chunk, Grid, Kernel, Layout, Loader, PassSchedule, Step, StepConstants,
    buffers::Buffers,
    builder::Builder,
    driver_limits::{CLASSES_PER_SPAN, ROWS_PER_PASS},
    kernels as k,
    snippets::{Snippets, Stages},
    work::Work,
};
use crate::{Result, Shape};

/// The parts that the steps of a head share; each method plans some of them, in the order in which they run.
pub(super) struct HeadPlan<'a> {
    /// Of the classes of this plan.
    pub shape: Shape,
    /// Each class is a problem of its own.
    pub binary: bool,
    pub layout: &'a Layout<'a>,
    pub loaders: Loaders,
    pub snippets: Snippets,
    pub work: Work,
    pub schedule: PassSchedule,
    pub buffers: Buffers,
    /// Of the steps that work on the whole batch.
    pub global: StepConstants,
    /// The bits of a filter's threshold, an f32.
    pub epsilon: u32,
    /// Nobody looks at the rows between the stages.
    pub alone: bool,
}

/// How vectors and cosines lie in memory.
pub(super) struct Loaders {
    pub embeddings: Loader,
    pub prototypes: Loader,
    pub cosines: Loader,
    pub gradients: Loader,
}

/// The parts of a chunk that both passes use.
pub(super) struct Round {
    pub part: StepConstants,
    pub chunk: Chunk,
    /// The buffer of its cosines.
    pub cosines: usize,
    /// The step that computes them.
    pub product: Step,
    /// The step that sums over them; none where nothing needs the sums.
    statistics: Option<Step>,
}

impl Round {
    /// The constants of a selection among its classes, a span of them at a time.
    fn spans(&self) -> impl Iterator<Item = StepConstants> + '_ {
        (0..self.chunk.count).step_by(CLASSES_PER_SPAN).map(|first| StepConstants {
            begin: self.part.begin * u32::from(first == 0),
            row_first: first as u32,
            row_count: CLASSES_PER_SPAN as u32,
            ..self.part
        })
    }
}

impl HeadPlan<'_> {
    /// Norms, and the cosines at the labels.
    pub fn targets(&self, b: &mut Builder) -> Result<Vec<Step>> {
        let Self { loaders, buffers: own, .. } = self;
        let buffers = [own.embeddings, own.labels, own.weights, own.inverses, own.rows, own.row_weights];
        let rows = Grid::over_rows(8, 1);
        let mut steps = vec![b.step(&k::row_norms(loaders.embeddings, true), self.global, rows, &buffers)?];
        let class_norms = k::class_norms(loaders.prototypes, true);
        if let Some(soft) = &own.soft {
            let buffers = [own.rows, soft.classes, soft.weights, own.weights, soft.rows];
            steps.push(b.step(&k::soft_labels(&self.snippets), self.global, Grid::over_rows(64, 1), &buffers)?);
        }
        let joined = self.joins_margins();
        let target_rows = k::target_rows(&self.snippets, loaders.embeddings, loaders.prototypes, joined);
        let labelled = self.work.labelled;
        let (mut first, mut group) = (0, 0);
        for (&classes, &data) in self.layout.shards.iter().zip(&own.prototypes) {
            let count = classes * self.shape.sub_centers();
            let part = StepConstants { first: first as u32, local: group as u32, ..StepConstants::over(count) };
            let grid = Grid::fixed(count.div_ceil(64) as u64);
            steps.push(b.step(&class_norms, part, grid, &[data, own.classes, own.totals, own.weights])?);
            let mut buffers = own.with_bias(&[own.embeddings, data, own.inverses, own.classes, own.rows]);
            if joined {
                buffers.extend([own.class_margins, own.row_margins]);
            }
            if labelled {
                steps.push(b.step(&target_rows, part, rows, &buffers)?);
            }
            if let Some(soft) = &own.soft {
                let kernel = k::soft_cosines(&self.snippets, loaders.embeddings, loaders.prototypes);
                let buffers = own.with_bias(&[own.embeddings, data, own.inverses, own.classes, soft.rows]);
                let targets = Grid::over_rows(8, self.work.soft_labels as u64);
                steps.push(b.step(&kernel, part, targets, &buffers)?);
            }
            first += count;
            group += count.div_ceil(64);
        }
        Ok(steps)
    }

    /// Whether the margin of a row follows from its target cosine at once: no state moves between the two, no noise is drawn, no
    /// hardest classes are chosen, and no other shard may have the cosine. A curve from outside stays in a kernel with few
    /// names of its own, which the caller's text must not use.
    fn joins_margins(&self) -> bool {
        let Self { work, layout, alone, snippets, .. } = self;
        *alone && layout.shards.len() == 1 && work.stages == Stages::default() && !snippets.is_custom()
    }

    /// For each chunk the steps that compute its cosines and sum over them.
    pub fn rounds(&self, b: &mut Builder) -> Result<Vec<Round>> {
        let Self { loaders, schedule, buffers: own, .. } = self;
        let tile = schedule.tile;
        let products = k::cosines(tile, loaders.embeddings, loaders.prototypes, loaders.cosines);
        let row_stats = k::row_stats(&self.snippets, self.loaders.cosines);
        let mut rounds = vec![];
        for (i, (&chunk, &cosines)) in schedule.chunks.iter().zip(&own.cosines).enumerate() {
            let part = self.part(&chunk, i == 0);
            let grid = Grid::over_rows(tile.rows(), (chunk.vectors() as u64).div_ceil(tile.columns().into()));
            let buffers = [own.embeddings, own.prototypes[chunk.shard], own.inverses, own.classes, cosines];
            let product = b.step(&products, part, grid, &buffers)?;
            let summed = self.work.labelled || !self.binary;
            let sums = |b: &mut Builder| self.sums(b, &row_stats, part, ([cosines, own.slots], true));
            let statistics = summed.then(|| sums(b)).transpose()?;
            rounds.push(Round { part, chunk, cosines, product, statistics });
        }
        Ok(rounds)
    }

    /// The part of the steps that work on this chunk; `begin` where the sums over all chunks start.
    fn part(&self, chunk: &Chunk, begin: bool) -> StepConstants {
        let PassSchedule { slots, splits, .. } = self.schedule;
        StepConstants {
            first: (chunk.first * chunk.centers) as u32,
            local: (chunk.local * chunk.centers) as u32,
            stride: chunk.stride() as u32,
            splits: splits as u32,
            slots: slots as u32,
            // whole steps of the tile's loop over classes
            split_span: chunk.vectors().div_ceil(splits).next_multiple_of(16) as u32,
            // whole quads of classes
            slot_span: chunk.count.div_ceil(slots).next_multiple_of(4) as u32,
            begin: u32::from(begin),
            row_count: ROWS_PER_PASS,
            epsilon: self.epsilon,
            ..StepConstants::over(chunk.vectors())
        }
    }

    /// The rows' sums over the other classes of a chunk; `targets`: without the soft labels.
    fn sums(
        &self,
        b: &mut Builder,
        kernel: &Kernel,
        part: StepConstants,
        ([from, to], targets): ([usize; 2], bool),
    ) -> Result<Step> {
        let own = &self.buffers;
        let mut buffers = own.with_bias(&[from, own.rows, own.classes, to]);
        buffers.extend(own.soft.as_ref().filter(|_| targets).map(|soft| soft.rows));
        b.step(kernel, part, Grid::over_rows(1, self.schedule.slots as u64), &buffers)
    }

    /// Whether the cosines are computed before the statistics, and stay.
    fn early(&self) -> bool {
        self.schedule.keep && self.work.reads_twice()
    }

    /// Cosines that are read before the margins apply; for inter-topk with the choice of the hardest classes.
    pub fn early_cosines(&self, b: &mut Builder, rounds: &[Round]) -> Result<Vec<Step>> {
        let Some(top) = self.buffers.top else {
            let early = rounds.iter().filter(|_| self.early());
            return Ok(early.map(|round| round.product.clone()).collect());
        };
        let select = k::select_top_k(&self.snippets);
        let mut steps = vec![];
        for round in rounds {
            steps.push(round.product.clone());
            for part in round.spans() {
                steps.push(b.step(&select, part, Grid::over_rows(1, 1), &[round.cosines, self.buffers.rows, top])?);
            }
        }
        Ok(steps)
    }

    /// The nearest classes of a round, if they are wanted, and the sums that their log-probabilities need beside the loss'.
    fn nearest(&self, b: &mut Builder, round: &Round) -> Result<Vec<Step>> {
        let (own, mut steps) = (&self.buffers, vec![]);
        let Some(prediction) = &own.prediction else { return Ok(steps) };
        let select = k::select_nearest(&self.snippets, self.work.predictions);
        for part in round.spans() {
            let buffers = own.with_bias(&[round.cosines, prediction.nearest]);
            steps.push(b.step(&select, part, Grid::over_rows(1, 1), &buffers)?);
        }
        if let Some(slots) = prediction.slots {
            let raw = k::row_stats(&self.snippets.raw(), self.loaders.cosines);
            steps.push(self.sums(b, &raw, round.part, ([round.cosines, slots], false))?);
        }
        Ok(steps)
    }

    /// The log-probabilities of the nearest classes, if they are wanted, and the caller's tensors of them.
    fn log_probabilities(&self, b: &mut Builder) -> Result<Vec<Step>> {
        let (own, rows) = (&self.buffers, Grid::over_rows(64, 1));
        let Some(prediction) = &own.prediction else { return Ok(vec![]) };
        let kernel = k::predict_rows(self.work.predictions, self.binary);
        let buffers = [prediction.slots.unwrap_or(own.slots), own.rows, prediction.nearest, prediction.log_sums];
        let mut steps = vec![b.step(&kernel, self.global, rows, &buffers)?];
        if let Some(given) = prediction.given {
            let buffers = [&[own.rows, own.batch, prediction.nearest][..], &given].concat();
            steps.push(b.step(&k::give_predictions(self.work.predictions), self.global, rows, &buffers)?);
        }
        Ok(steps)
    }

    /// Predictions of rows without labels, after [`targets`](Self::targets).
    pub fn predictions(&self, b: &mut Builder, rounds: &[Round]) -> Result<Vec<Step>> {
        let own = &self.buffers;
        let mut steps = vec![b.step(&k::class_totals(), self.global, Grid::fixed(1), &[own.batch, own.totals])?];
        for round in rounds {
            steps.push(round.product.clone());
            steps.extend(self.nearest(b, round)?);
            steps.extend(round.statistics.clone());
        }
        steps.extend(self.log_probabilities(b)?);
        Ok(steps)
    }

    /// The margins of the rows, where the targets are without.
    pub fn margins(&self, b: &mut Builder) -> Result<Option<Step>> {
        if self.joins_margins() {
            return Ok(None);
        }
        let own = &self.buffers;
        let mut buffers = vec![own.rows, own.class_margins, own.row_margins];
        if self.work.stages.update_state {
            buffers.push(own.state);
        }
        b.step(&k::target_margins(&self.snippets), self.global, Grid::over_rows(64, 1), &buffers).map(Some)
    }

    /// The steps that move the state.
    pub fn follow(&self, b: &mut Builder, margins: Option<&Step>, rounds: &[Round]) -> Result<Vec<Step>> {
        let Self { global, buffers: own, .. } = self;
        let mut steps = vec![];
        if self.work.stages.scale {
            // sums at the scale so far
            steps.extend(margins.cloned());
            let raw = k::row_stats(&self.snippets.raw(), self.loaders.cosines);
            for round in rounds {
                if !self.schedule.keep {
                    steps.push(round.product.clone());
                }
                steps.push(self.sums(b, &raw, round.part, ([round.cosines, own.slots], false))?);
            }
            steps.push(b.step(&k::row_log_sum_exp(), *global, Grid::over_rows(64, 1), &[own.slots, own.rows])?);
            steps.push(b.step(&k::median_cosine(), *global, Grid::over_rows(1, 1), &[own.rows, own.batch])?);
        }
        if self.work.stages.update_state {
            let buffers = [own.rows, own.batch, own.state, own.totals];
            steps.push(b.step(&k::update_state(), *global, Grid::fixed(1), &buffers)?);
        }
        Ok(steps)
    }

    /// The margins, and the rows' sums over the other classes.
    pub fn statistics(&self, b: &mut Builder, margins: Option<Step>, rounds: &[Round]) -> Result<Vec<Step>> {
        let mut steps = vec![];
        if let Some(draws) = self.buffers.draws {
            let buffers = [self.buffers.rows, draws];
            steps.push(b.step(&k::margin_noise(), self.global, Grid::over_rows(1, 1), &buffers)?);
        }
        steps.extend(margins);
        if let Some(soft) = &self.buffers.soft {
            let own = &self.buffers;
            let mut buffers = vec![own.rows, soft.rows, own.class_margins, own.row_margins];
            if self.work.stages.update_state {
                buffers.push(own.state);
            }
            let grid = Grid::over_rows(64, self.work.soft_labels as u64 + 1);
            steps.push(b.step(&k::soft_margins(&self.snippets), self.global, grid, &buffers)?);
        }
        for round in rounds {
            if !self.early() {
                steps.push(round.product.clone());
            }
            steps.extend(self.nearest(b, round)?);
            steps.extend(round.statistics.clone());
        }
        Ok(steps)
    }

    /// The losses of the rows, and the reduced one.
    pub fn losses(&self, b: &mut Builder) -> Result<Vec<Step>> {
        let Self { global, snippets, buffers: own, .. } = self;
        let (rows, totals) = (Grid::over_rows(64, 1), k::Totals::Summed);
        let mut buffers = vec![own.slots, own.rows, own.row_losses, own.log_sum_exps, own.totals];
        let mut row_loss = k::row_loss(snippets, totals);
        if let Some(soft) = &own.soft {
            row_loss = k::soft_loss(snippets);
            buffers.insert(2, soft.rows);
        }
        let batch = [own.rows, own.batch, own.loss, own.totals];
        let mut steps = vec![
            b.step(&row_loss, *global, rows, &buffers)?,
            b.step(&k::batch_loss(snippets, totals, self.work.any), *global, Grid::fixed(1), &batch)?,
        ];
        steps.extend(self.log_probabilities(b)?);
        Ok(steps)
    }
}

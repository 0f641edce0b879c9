//! One shard of a head over several devices: the forward pass in pieces, with the numbers of all shards between them.
//!
//! Each call is independent and recomputes the stages before it.

use super::slices::DeviceHead;
use crate::{
    Output, Result, State,
    objective::CheckedBatch,
    plan::Stage,
    shard::{RowStatistics, Statistics, Targets},
    uniforms::{Row, RowStatisticsF32, constants::NO_CLASS},
};

impl DeviceHead {
    pub fn targets(&mut self, batch: &CheckedBatch<'_>, state: &State) -> Result<Targets> {
        let rows = self.upload(batch, state, false)?;
        let (top_k, sums) = (self.loss.top_k(), self.loss.scale_follows());
        self.run(if sums { &[Stage::Targets, Stage::UpdateState] } else { &[Stage::Targets] })?;
        let found: Vec<Row> = self.read("rows", rows)?;
        let [_, zero_prototypes, non_finite_prototypes, _] = self.totals()?;
        let mut top = vec![];
        if top_k > 0 {
            let best: Vec<[u32; 2]> = self.read("top", rows * top_k)?;
            let entry = |[bits, class]: &[u32; 2]| (f32::from_bits(*bits).into(), *class as usize);
            let known = |row: &[[u32; 2]]| row.iter().filter(|[_, class]| *class != NO_CLASS).map(entry).collect();
            top = best.chunks_exact(top_k).map(known).collect();
        }
        // the sum is within the logarithm
        let sum = |row: &Row| match row.others {
            others if others > RowStatisticsF32::LOWEST => [others.into(), 1.0],
            _ => [f64::MIN, 0.0],
        };
        let own = |row: &Row| self.range.contains(&(row.label as usize));
        Ok(Targets {
            range: self.range.clone(),
            cosines: found.iter().map(|row| own(row).then_some(row.cosine.into())).collect(),
            top,
            top_count: top_k,
            sums: if sums { found.iter().map(sum).collect() } else { vec![] },
            zero_prototypes: zero_prototypes as usize,
            non_finite_prototypes: non_finite_prototypes as usize,
        })
    }

    pub fn statistics(&mut self, batch: &CheckedBatch<'_>, targets: &Targets, state: &State) -> Result<Statistics> {
        let rows = self.prepare(batch, targets, state)?;
        let slots = self.bound.bound.plan().schedule().slots;
        let found: Vec<RowStatisticsF32> = self.read("slots", rows * slots)?;
        let binary = self.loss.binary().is_some();
        let row = |slots: &[RowStatisticsF32]| {
            slots.iter().fold(RowStatistics::EMPTY, |all, s| {
                let below = |x: f32| if x > RowStatisticsF32::LOWEST { f64::from(x) } else { f64::MIN };
                all.merged(RowStatistics {
                    max_logit: if binary { 0.0 } else { below(s.max_logit) },
                    // the loss of such a row is no number
                    sum: if s.overflowed == 0 { s.sum.into() } else { f64::NAN },
                    value_sum: s.value_sum.into(),
                    weighted: s.weighted.into(),
                    nearest: below(s.nearest),
                })
            })
        };
        Ok(Statistics { range: self.range.clone(), rows: found.chunks_exact(slots).map(row).collect() })
    }

    pub fn gradients(
        &mut self,
        batch: &CheckedBatch<'_>,
        targets: &Targets,
        statistics: &Statistics,
        state: &State,
    ) -> Result<Output> {
        statistics.check(&self.loss, self.shape.classes(), batch.rows())?;
        let rows = self.prepare(batch, targets, state)?;
        // all of a row's numbers in its first slot
        let slots = self.bound.bound.plan().schedule().slots;
        let mut all = vec![RowStatisticsF32::EMPTY; rows * slots];
        for (slot, row) in all.iter_mut().step_by(slots).zip(&statistics.rows) {
            let least = |x: f64| (x as f32).max(RowStatisticsF32::LOWEST);
            *slot = RowStatisticsF32 {
                max_logit: least(row.max_logit),
                sum: row.sum as f32,
                value_sum: row.value_sum as f32,
                weighted: row.weighted as f32,
                nearest: least(row.nearest),
                ..RowStatisticsF32::EMPTY
            };
        }
        self.bound.bound.write("slots", bytemuck::cast_slice(&all))?;
        let bound = &self.bound.bound;
        let steps = bound.plan().stage(Stage::Losses).chain(bound.backward_steps());
        let submission = bound.submit(steps, |encoder| self.copy_results(rows, encoder))?;
        for mapping in self.map(rows)? {
            mapping.wait(&submission)?;
        }
        let mut out = Output::default();
        self.collect(rows, &mut out, None)?;
        if self.range.start != 0 {
            // sums over rows, which the first shard reports
            out.grad_scale = 0.0;
            out.grad_margins.fill(0.0);
            if self.loss.binary().is_some() {
                out.grad_bias.fill(0.0);
            }
        }
        Ok(out)
    }

    /// Everything up to the rows' sums, with the merged targets.
    fn prepare(&mut self, batch: &CheckedBatch<'_>, targets: &Targets, state: &State) -> Result<usize> {
        targets.check(&self.loss, self.shape, batch.rows())?;
        let rows = self.upload(batch, state, false)?;
        self.run(&[Stage::Targets])?;
        let mut found: Vec<Row> = self.read("rows", rows)?;
        for (i, (row, cosine)) in found.iter_mut().zip(&targets.cosines).enumerate() {
            row.cosine = cosine.unwrap_or(0.0) as f32;
            if let Some((bound, last)) = targets.chosen(&self.loss, i) {
                (row.bound, row.last) = (bound as f32, last as u32);
            }
        }
        let weights = |w: &[f32]| w.iter().map(|&w| f64::from(w)).sum::<f64>();
        let weights = batch.class_weights.map_or(self.shape.classes() as f64, weights) as f32;
        // another machine may say anything
        let some = |count: usize| count.min(self.shape.vectors()) as f32;
        let [_, _, _, exponent] = self.totals()?;
        // those of the whole head, in the place of this shard's first group
        let mut totals = vec![[0.0; 4]; self.groups()];
        totals[0] = [weights, some(targets.zero_prototypes), some(targets.non_finite_prototypes), exponent];
        self.bound.bound.write("rows", bytemuck::cast_slice(&found))?;
        self.bound.bound.write("totals", bytemuck::cast_slice(&totals))?;
        self.run(&[Stage::Statistics])?;
        Ok(rows)
    }

    fn run(&self, stages: &[Stage]) -> Result<()> {
        let bound = &self.bound.bound;
        bound.submit(stages.iter().flat_map(|&stage| bound.plan().stage(stage)), |_| ()).map(drop)
    }

    /// Groups of class_norms.
    fn groups(&self) -> usize {
        let plan = self.bound.bound.plan();
        plan.find("totals").map_or(0, |i| plan.buffers()[i].bytes as usize / size_of::<[f32; 4]>())
    }

    /// The totals of this shard's classes: weights, short prototypes, those that are not finite, and the largest exponent.
    fn totals(&self) -> Result<[f32; 4]> {
        let groups: Vec<[f32; 4]> = self.read("totals", self.groups())?;
        Ok(groups.iter().fold([0.0; 4], |a, b| [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3].max(b[3])]))
    }

    /// The first values of a buffer of the workspace.
    fn read<T: bytemuck::Pod>(&self, name: &'static str, count: usize) -> Result<Vec<T>> {
        if count == 0 { Ok(vec![]) } else { self.bound.bound.download::<T>(name, count)?.wait(count) }
    }
}

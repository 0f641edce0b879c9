//! The work of a step, and how the steps of a call are divided among several submits.

use super::{Plan, Step, StepConstants, driver_limits::ROWS_PER_PASS};
use crate::{Error, Result, Shape, Tile};

/// Instructions that a kernel between the products spends on an entry of N×C: `benches/isa` counts 46 to 76.
const PER_ENTRY: u64 = 64;

/// Multiply-adds in the time in which a value is loaded that no cache has.
const PER_VALUE: u64 = 16;

/// Multiply-adds of a product for one prototype: whole tiles of rows, and of values. No other kernel of a chunk takes more.
pub(super) fn per_vector(shape: Shape, tile: Tile) -> u64 {
    product(shape.rows(), shape.dim(), tile)
}

fn product(rows: usize, dim: usize, tile: Tile) -> u64 {
    let whole = |size: usize, of: u32| (size.max(1) as u64).next_multiple_of(of.into());
    whole(rows, tile.rows()) * whole(dim, tile.columns()).max(PER_ENTRY)
}

/// The work of a kernel that does little more than load so many values.
pub(super) fn loads(values: u64) -> u64 {
    values.saturating_mul(PER_VALUE)
}

impl Plan {
    /// The work of a step, by its index among [`steps`](Self::steps), for all rows of the plan: multiply-adds, or what takes as
    /// long as one. Kernels of heads are known; 0 beyond the last step.
    pub fn work(&self, index: usize) -> u64 {
        self.step(index).map_or(0, |step| self.work_of(step))
    }

    fn work_of(&self, step: &Step) -> u64 {
        let StepConstants { count, row_first, row_count, .. } = self.constants[step.constants];
        let (rows, dim) = (self.shape.rows(), self.shape.dim());
        let (n, d, count) = (rows as u64, dim as u64, u64::from(count));
        match self.kernels[step.kernel].name {
            "cosines" | "grad_embeddings" => count * product(rows, dim, self.schedule.tile),
            "grad_prototypes" => {
                let rows = rows.saturating_sub(row_first as usize).min(ROWS_PER_PASS as usize);
                count * product(rows, dim, self.schedule.tile)
            }
            "row_stats" | "grad_cosines" => count * n * PER_ENTRY,
            "select_top_k" | "select_nearest" => {
                count.min(u64::from(row_count) * self.shape.sub_centers() as u64) * n * PER_ENTRY
            }
            "class_norms" => loads(count * d),
            "target_rows" => loads(self.shape.sub_centers() as u64 * n * d),
            "soft_cosines" => loads((self.soft_labels() * self.shape.sub_centers()) as u64 * n * d),
            // each target meets each other one
            "soft_loss" | "soft_gradients" => (self.soft_labels() as u64 + 1).pow(2) * n * PER_ENTRY,
            "row_norms" => loads(n * d),
            "finish_embeddings" => loads(self.schedule.splits as u64 * n * d),
            // a workgroup for each row goes through all of them
            "median_cosine" | "margin_noise" => n * n,
            // a label of each row for each class
            "class_margin_gradients" => count * (n + 64),
            "filter_totals" | "list_classes" | "list_rows" => count * n,
            _ => (count + n) * PER_ENTRY,
        }
    }

    /// The steps of these indices among [`steps`](Self::steps), divided among as few submits as
    /// [`Options::work_per_submit`](crate::Options::work_per_submit) allows in this order; one, if nothing was said.
    pub fn parts(&self, steps: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
        self.parts_within(steps, self.work_per_submit.unwrap_or(u64::MAX))
    }

    /// The bound of a submit, if there is one.
    #[cfg(feature = "gpu")]
    pub(crate) fn work_per_submit(&self) -> Option<u64> {
        self.work_per_submit
    }

    /// [`parts`](Self::parts) with another bound, which a step of its own may exceed.
    pub(crate) fn parts_within(&self, steps: impl IntoIterator<Item = usize>, most: u64) -> Vec<Vec<usize>> {
        let (mut parts, mut sum) = (Vec::<Vec<usize>>::new(), 0_u64);
        for index in steps {
            let work = self.work(index);
            sum = sum.saturating_add(work);
            match parts.last_mut() {
                Some(part) if sum <= most => part.push(index),
                _ => {
                    parts.push(vec![index]);
                    sum = work;
                }
            }
        }
        parts
    }

    fn step(&self, index: usize) -> Option<&Step> {
        self.forward.get(index).or_else(|| self.backward.get(index.checked_sub(self.forward.len())?))
    }

    /// With the most work that its caller wants to submit at once; [`Error::Work`] where a step takes more.
    pub(super) fn bounded(mut self, most: Option<u64>) -> Result<Self> {
        self.work_per_submit = most;
        let needed = self.steps().map(|step| self.work_of(step)).max().unwrap_or(0);
        match most {
            Some(allowed) if needed > allowed => Err(Error::Work { needed, allowed }),
            _ => Ok(self),
        }
    }
}

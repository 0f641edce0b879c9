//! Keep or recompute, chunks of classes, splits and slots: chosen from shape, budget and limits.

use super::{
    Layout, Limits, PassSchedule,
    buffers::Buffers,
    builder::Builder,
    cost::CostModel,
    driver_limits::{CLASSES_PER_SPAN, MAX_ROUNDS, MAX_STATISTICS_ITERATIONS, at_most, indexable},
    parts,
    schedule::{MAX_SUMMED, cut},
    tuning::Tuning,
    work::{Bias, Work},
};
use crate::{Error, Options, Result, Shape, Tile, data::MarginGradients};

/// The fastest schedule whose buffers fit the budget.
pub(super) fn fit(
    shape: Shape,
    layout: &Layout<'_>,
    limits: &Limits,
    work: Work,
    options: &Options,
) -> Result<PassSchedule> {
    let tuning = options.preset.resolve(limits);
    let tile = options.tile.unwrap_or_else(|| tuning.tile(shape.rows(), shape.vectors(), limits));
    tile.check(limits)?;
    let (rows, centers) = (shape.rows().max(1) as u64, shape.sub_centers());
    let largest = layout.shards.iter().copied().max().unwrap_or(1);
    let smallest = largest.min(64);
    let most = most_classes(rows, centers, smallest, limits)?.min(largest.next_multiple_of(64));
    let (budget, bound) = (options.budget.get(), options.work_per_submit.unwrap_or(u64::MAX));
    let bounded = (bound / parts::per_vector(shape, tile) / centers as u64).min(most as u64) as usize / 64 * 64;
    let most = most.min(bounded.max(smallest));
    let search = Search { shape, layout, work, tile, budget, bound, smallest, most, model: tuning.model };
    let splits = search.splits(&tuning)?;
    let slots = (tuning.row_groups / rows).clamp(1, 64);
    // splits and slots only add speed: they shrink before the chunk does
    search.attempt(splits, slots).or_else(|first| {
        search.attempt(1, 1).map_err(|second| match (&first, &second) {
            (Error::Budget { needed: a, .. }, Error::Budget { needed: b, .. }) if b < a => second,
            (Error::Budget { .. }, _) => first,
            _ => second,
        })
    })
}

/// The most classes of a chunk whose cosines one binding, and an index, can hold: whole quads of a row's cosines.
fn most_classes(rows: u64, centers: usize, smallest: usize, limits: &Limits) -> Result<usize> {
    let (limit, allowed) = limits.tightest();
    let values = (allowed / 4).min(crate::shape::INDEX_END - 1);
    let most = (values / rows / 4 * 4) as usize / centers;
    let most = if most < 64 { most } else { most / 64 * 64 };
    if most < smallest {
        let what = "a chunk of cosines";
        let needed = rows * ((smallest * centers) as u64).next_multiple_of(4) * 4;
        if needed <= allowed {
            return Err(Error::Size { what, needed: needed / 4, allowed: crate::shape::INDEX_END - 1 });
        }
        return Err(Error::Limit { what, limit, needed, allowed });
    }
    Ok(most)
}

/// The numbers that stay the same while schedules are tried.
struct Search<'a> {
    shape: Shape,
    layout: &'a Layout<'a>,
    work: Work,
    tile: Tile,
    budget: u64,
    /// The most work of a step.
    bound: u64,
    /// The fewest classes of a chunk, if its shard has so many.
    smallest: usize,
    /// And the most.
    most: usize,
    model: CostModel,
}

impl Search<'_> {
    fn rows(&self) -> u64 {
        self.shape.rows().max(1) as u64
    }

    /// Splits of the sum over classes in dX, whose slabs take at most an eighth of the budget.
    fn splits(&self, tuning: &Tuning) -> Result<u64> {
        if !self.work.embeddings {
            return Ok(1);
        }
        let (rows, dim) = (self.rows(), self.shape.dim() as u64);
        let blocks = rows.div_ceil(u64::from(self.tile.rows())) * dim.div_ceil(u64::from(self.tile.columns()));
        let mut splits = (tuning.groups / blocks).clamp(1, 64);
        let slab = rows * dim.next_multiple_of(4);
        indexable("rows · dim, in whole quads", slab)?;
        // the step that adds them up reads them all
        while splits > 1 && (splits * slab * 4 > self.budget / 8 || parts::loads(splits * slab) > self.bound) {
            splits /= 2;
        }
        Ok(splits)
    }

    /// All cosines kept, if they fit, or else chunks of the size that costs the least.
    fn attempt(&self, splits: u64, slots: u64) -> Result<PassSchedule> {
        let centers = self.shape.sub_centers();
        // no loop over classes has too many iterations
        let summed = MAX_SUMMED.min((splits as usize) << 16) / centers / 64 * 64;
        let span = MAX_STATISTICS_ITERATIONS / 2 / (centers + self.work.transform_iterations) * 64;
        let most = self.most.min(summed).min(slots as usize * span);
        at_most("rounds of a head", self.rounds(most), MAX_ROUNDS)?;
        let schedule = |most: usize, keep: bool| {
            let chunks = cut(self.layout.shards, most, centers);
            let longest = chunks.iter().map(|c| c.count).max().unwrap_or(1);
            let splits = splits.min((longest * centers).div_ceil(64) as u64) as usize;
            // sixteen classes per lane: merging the lanes costs as much as a few
            let slots = slots.min(longest.div_ceil(1024) as u64) as usize;
            PassSchedule { tile: self.tile, keep, chunks, slots, splits, costs: vec![] }
        };
        if self.work.keeps() {
            let all = schedule(most, true);
            if self.bytes(&all)? <= self.budget {
                return Ok(all);
            }
        }
        let size = self.largest(most, |size| self.bytes(&schedule(size, false)))?;
        let cached = (self.model.cached / (self.rows() * 4)) as usize / centers / 64 * 64;
        let cached = cached.max(1024).max(self.smallest);
        let other = (cached < size && self.rounds(cached) <= MAX_ROUNDS).then(|| schedule(cached, false));
        self.cheaper(schedule(size, false), other)
    }

    /// The most classes of a chunk, at most this many, whose schedule fits the budget.
    fn largest(&self, most: usize, bytes: impl Fn(usize) -> Result<u64>) -> Result<usize> {
        let (mut size, mut beyond, mut needed) = (most, most, u64::MAX);
        let fewest = loop {
            let found = bytes(size)?;
            if found <= self.budget {
                break found;
            }
            needed = needed.min(found);
            beyond = size;
            size = match (size / 8 * 7 / 64 * 64).max(self.smallest) {
                next if next < size && self.rounds(next) <= MAX_ROUNDS => next,
                _ => return Err(Error::Budget { needed, allowed: self.budget }),
            };
        };
        // to the last group of 64, unless larger chunks take less memory, having fewer rounds
        while beyond > size + 64 {
            let middle = (size / 64 + beyond / 64) / 2 * 64;
            if (fewest..=self.budget).contains(&bytes(middle)?) { size = middle } else { beyond = middle }
        }
        Ok(size)
    }

    /// The cheaper of a schedule with the largest chunks and one whose chunks stay in the cache, if that one fits the budget.
    fn cheaper(&self, largest: PassSchedule, cached: Option<PassSchedule>) -> Result<PassSchedule> {
        let mut known = vec![(self.model.cost(self.shape, self.work, &largest), largest)];
        if let Some(cached) = cached
            && self.bytes(&cached)? <= self.budget
        {
            let cost = self.model.cost(self.shape, self.work, &cached);
            let first = usize::from(cost.total() >= known[0].0.total());
            known.insert(first, (cost, cached));
        }
        let costs = known.iter().map(|(cost, _)| *cost).collect();
        Ok(PassSchedule { costs, ..known.swap_remove(0).1 })
    }

    /// Rounds over chunks of at most `most` classes.
    fn rounds(&self, most: usize) -> u64 {
        let chunks: u64 = self.layout.shards.iter().map(|count| count.div_ceil(most) as u64).sum();
        chunks * self.work.passes(self.rows())
    }

    /// Bytes of the workspace of a head: those of its buffers, and of the constants of its steps.
    fn bytes(&self, schedule: &PassSchedule) -> Result<u64> {
        let mut b = Builder::unchecked();
        Buffers::new(&mut b, self.shape, self.layout, self.work, schedule)?;
        Ok(b.workspace_bytes(self.constants(schedule)))
    }

    /// The number of steps' constants, which steps that work on the same share: a test compares it with that of the plan.
    fn constants(&self, schedule: &PassSchedule) -> u64 {
        let work = self.work;
        let rounds = schedule.chunks.len() as u64 * work.passes(self.rows());
        let mut count = rounds + self.layout.shards.len() as u64 + 1;
        if work.selects() {
            // a span that starts a row's list, or begins at class 0 of its chunk, has constants of its own too
            count += schedule.chunks.iter().map(|c| c.count.div_ceil(CLASSES_PER_SPAN) as u64).sum::<u64>();
        }
        // `local` is 1, for the whole batch
        let local = work.bias == Some(Bias::Link) || work.margins == Some(MarginGradients::Rows);
        count += u64::from(local) + u64::from(work.margins == Some(MarginGradients::Classes));
        if work.embeddings {
            // a chunk that begins another sum of dX, and the step that adds those to the ones before
            let more = schedule.sums().iter().filter(|sum| sum.begins && sum.adds).count() as u64;
            count += more + u64::from(more > 0 && !local);
        }
        count
    }
}

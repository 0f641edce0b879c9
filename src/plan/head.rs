//! The plan of a head: statistics, loss and gradients of a batch, chunk by chunk.

use std::ops::Range;

use super::{
    Builder, Chunk, Element, Grid, Limits, Loader, Part, Plan, Schedule, Slot, Step, kernels as k,
    schedule::{Bias, FilterBytes, MOST_ROUNDS, Work},
    settings,
};
use crate::{Error, MarginSoftmax, Options, Result, Shape};

/// How the caller's tensors lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout<'a> {
    /// Classes of each prototype shard, in order; their sum is the number of classes.
    pub shards: &'a [usize],
    /// Element of the embeddings: f32, f16 or bf16.
    pub embeddings: Element,
    /// Element of the prototypes: f32, f16 or bf16. Gradients are f32.
    pub prototypes: Element,
}

/// The parts of a chunk that both passes use.
struct Round {
    part: Part,
    chunk: Chunk,
    cosine: usize,
    product: Step,
    stats: Step,
}

/// Rows that one pass of grad_prototypes sums over: llvmpipe silently aborts a shader after 65,535 loop
/// iterations.
pub(super) const ROWS_PER_PASS: u32 = 1 << 16;

/// Classes that one step of select_classes looks at, for the same reason.
pub(super) const CLASSES_PER_SPAN: usize = 1 << 13;

/// Rows that one lane of 64 can go through, for the same reason again.
const MOST_COUNTED: usize = 1 << 21;

impl Plan {
    /// Plans a head: `Limit` and `Budget` errors come from here, before anything is allocated.
    ///
    /// One shard is the usual case: `Layout { shards: &[shape.classes()], .. }`. More are needed where the prototypes
    /// exceed one binding, see [`Plan::shards`].
    ///
    /// At most 65,536 rounds, [`Error::Size`] beyond: chunks of classes, and with gradients of the prototypes their number
    /// times the passes over the rows, one for each 65,536. A budget that needs more of them is too small.
    ///
    /// Inter-topk, and a training step of dynamic AdaCos, look at all cosines before the margins apply: where they are not
    /// kept they are computed once more.
    pub fn head(
        loss: &MarginSoftmax,
        shape: Shape,
        layout: &Layout<'_>,
        limits: &Limits,
        options: &Options,
    ) -> Result<Self> {
        Self::shard(loss, shape, 0..shape.classes(), layout, limits, options)
    }

    /// Plans a head for the classes in `range` of a head of this shape; the layout is that of these classes. Its steps are
    /// run stage by stage, see [`Plan::stage`]: between them the numbers of all shards are exchanged.
    pub fn shard(
        loss: &MarginSoftmax,
        whole: Shape,
        range: Range<usize>,
        layout: &Layout<'_>,
        limits: &Limits,
        options: &Options,
    ) -> Result<Self> {
        loss.validate_for(whole)?;
        options.check(loss)?;
        if range.is_empty() || range.end > whole.classes() {
            return Err(Error::Shards { found: range, expected: 0, classes: whole.classes() });
        }
        if layout.shards.contains(&0) {
            return Err(Error::Zero { what: "shards" });
        }
        let sum = layout.shards.iter().fold(0_usize, |sum, &count| sum.saturating_add(count));
        if sum != range.len() {
            return Err(Error::Length { what: "shards", found: sum, expected: range.len() });
        }
        let centers = whole.sub_centers();
        let shape = Shape::new(whole.rows(), range.len(), whole.dim())?.with_sub_centers(centers)?;
        for &count in layout.shards {
            let (needed, allowed) = (crate::shape::elements(count * centers, shape.dim()), crate::shape::MOST - 1);
            if needed > allowed {
                return Err(Error::Size { what: "classes of a shard · dim", needed, allowed });
            }
        }
        let Options { want, budget, preset, tile, filter } = *options;
        let snippets = k::Snippets::of(loss, whole);
        let stages = snippets.stages;
        let work = Work::new(loss, want, stages, filter.is_some());
        if (stages.follow || stages.draws || work.linear) && shape.rows() > MOST_COUNTED {
            let (needed, allowed) = (shape.rows() as u64, MOST_COUNTED as u64);
            return Err(Error::Size { what: "rows of this loss on a GPU", needed, allowed });
        }
        let (needed, allowed) = (crate::shape::elements(shape.rows(), stages.chosen), crate::shape::MOST - 1);
        if needed > allowed {
            return Err(Error::Size { what: "rows · top_k.count", needed, allowed });
        }
        let x = layout.embeddings.loader("embeddings", shape.dim(), limits)?;
        let w = layout.prototypes.loader("prototypes", shape.dim(), limits)?;
        let out = Loader::plain(shape.dim());
        let chunk_loader = Loader::F32x4;

        let mut b = Builder::new(limits, shape.rows(), shape)?;
        let schedule = Schedule::new(shape, layout.shards, limits, budget, work, (preset, tile))?;
        let Schedule { tile, keep, slots, splits, .. } = schedule;
        let rows = shape.rows().max(1) as u64;
        let (vectors, dim) = (shape.vectors() as u64, shape.dim() as u64);
        let longest = schedule.chunks.iter().map(|c| c.stride()).max().unwrap_or(4) as u64;

        // the caller's tensors
        let embeddings = b.given(Slot::Embeddings, rows * dim * layout.embeddings.bytes())?;
        let mut prototypes = vec![];
        for (i, &count) in layout.shards.iter().enumerate() {
            let values = (count * centers) as u64 * dim;
            prototypes.push(b.given(Slot::Prototypes(i), values * layout.prototypes.bytes())?);
        }
        let labels = b.given(Slot::Labels, rows * 4)?;
        let weights = b.optional(Slot::ClassWeights, 16)?;
        let class_margins = b.optional(Slot::ClassMargins, 16)?;
        let row_margins = b.optional(Slot::RowMargins, 16)?;
        let state = b.optional(Slot::State, 16)?;
        let bias = if work.linear { vec![b.optional(Slot::Bias, range.len() as u64 * 4)?] } else { vec![] };
        let loss_out = b.given(Slot::Loss, 4)?;
        let row_losses = b.optional(Slot::RowLosses, rows * 4)?;

        // the workspace
        let row = b.workspace("rows", rows * size_of::<settings::Row>() as u64)?;
        let inverses = b.workspace("inverses", rows * 4)?;
        let class = b.workspace("classes", vectors * 8)?;
        let groups: u64 = layout.shards.iter().map(|c| (c * centers).div_ceil(64) as u64).sum();
        let totals = b.workspace("totals", groups * 16)?;
        let batch = b.workspace("batch", size_of::<settings::BatchState>() as u64)?;
        let slot = b.workspace("slots", slots as u64 * rows * size_of::<settings::Stats>() as u64)?;
        let mut cosines = vec![];
        for (i, chunk) in schedule.chunks.iter().enumerate() {
            let stride = if keep { chunk.stride() as u64 } else { longest };
            let fresh = keep || i == 0;
            cosines.push(if fresh { b.workspace("cosines", rows * stride * 4)? } else { cosines[0] });
        }
        let with_bias = |buffers: &[usize]| [buffers, bias.as_slice()].concat();

        // targets: what is known before margins apply
        let (tile_m, tile_n) = (u64::from(tile.rows()), u64::from(tile.columns()));
        let global = Part { count: groups as u32, slots: slots as u32, splits: splits as u32, ..Part::default() };
        let mut targets = vec![];
        let row_norms = k::row_norms(x);
        targets.push(b.step(
            &row_norms,
            global,
            Grid::over_rows(8, 1),
            &[embeddings, labels, weights, inverses, row],
        )?);
        let (class_norms, target_rows) = (k::class_norms(w, true), k::target_rows(&snippets, x, w));
        let (mut first, mut group) = (0, 0);
        for (&classes, &data) in layout.shards.iter().zip(&prototypes) {
            let count = classes * centers;
            let part = Part { first: first as u32, count: count as u32, local: group as u32, ..Part::default() };
            let grid = Grid::fixed(count.div_ceil(64) as u64);
            targets.push(b.step(&class_norms, part, grid, &[data, class, totals, weights])?);
            let buffers = with_bias(&[embeddings, data, inverses, class, row]);
            targets.push(b.step(&target_rows, part, Grid::over_rows(8, 1), &buffers)?);
            first += count;
            group += count.div_ceil(64);
        }
        targets.push(b.step(&k::class_totals(), global, Grid::fixed(1), &[totals, batch])?);

        let products = k::cosines(tile, x, w, chunk_loader);
        let row_stats = k::row_stats(&snippets);
        let mut rounds = vec![];
        for (i, (chunk, &cosine)) in schedule.chunks.iter().zip(&cosines).enumerate() {
            let part = Part {
                first: (chunk.first * centers) as u32,
                count: chunk.vectors() as u32,
                local: (chunk.local * centers) as u32,
                stride: chunk.stride() as u32,
                splits: splits as u32,
                slots: slots as u32,
                // whole steps of the tile's loop over classes
                split_span: chunk.vectors().div_ceil(splits).next_multiple_of(16) as u32,
                slot_span: chunk.count.div_ceil(slots) as u32,
                begin: u32::from(i == 0),
                row_count: ROWS_PER_PASS,
                epsilon: filter.map_or(0, |filter| (filter.epsilon() as f32).to_bits()),
                ..Part::default()
            };
            let data = prototypes[chunk.shard];
            let grid = Grid::over_rows(tile.rows(), (chunk.vectors() as u64).div_ceil(tile_n));
            let product = b.step(&products, part, grid, &[embeddings, data, inverses, class, cosine])?;
            let grid = Grid::over_rows(1, slots as u64);
            let stats = b.step(&row_stats, part, grid, &with_bias(&[cosine, row, class, slot]))?;
            rounds.push(Round { part, chunk: *chunk, cosine, product, stats });
        }
        // where the cosines are wanted before the statistics, and stay
        let early = keep && (stages.chosen > 0 || stages.scale);
        if stages.chosen > 0 {
            let top = b.workspace("top", rows * stages.chosen as u64 * 8)?;
            let select = k::select_classes(&snippets);
            for (i, round) in rounds.iter().enumerate() {
                targets.push(round.product.clone());
                for first in (0..round.chunk.count).step_by(CLASSES_PER_SPAN) {
                    let begin = u32::from(i == 0 && first == 0);
                    let (row_first, row_count) = (first as u32, CLASSES_PER_SPAN as u32);
                    let part = Part { begin, row_first, row_count, ..round.part };
                    targets.push(b.step(&select, part, Grid::over_rows(1, 1), &[round.cosine, row, top])?);
                }
            }
        } else if early {
            targets.extend(rounds.iter().map(|round| round.product.clone()));
        }

        let margins = k::target_margins(&snippets);
        let margins = b.step(&margins, global, Grid::over_rows(64, 1), &[row, class_margins, row_margins, state])?;
        let mut follow = vec![];
        if stages.scale {
            // the scale so far
            follow.push(margins.clone());
            let raw = k::row_stats(&snippets.raw());
            for round in &rounds {
                if !keep {
                    follow.push(round.product.clone());
                }
                let buffers = with_bias(&[round.cosine, row, class, slot]);
                follow.push(b.step(&raw, round.part, Grid::over_rows(1, slots as u64), &buffers)?);
            }
            follow.push(b.step(&k::row_sums(), global, Grid::over_rows(64, 1), &[slot, row])?);
            follow.push(b.step(&k::middle_row(), global, Grid::over_rows(1, 1), &[row, batch])?);
        }
        if stages.follow {
            follow.push(b.step(&k::follow(), global, Grid::fixed(1), &[row, batch, state])?);
        }

        let mut statistics = vec![];
        if stages.draws {
            let draws = b.workspace("draws", rows * 4)?;
            statistics.push(b.step(&k::draw_rows(), global, Grid::over_rows(1, 1), &[row, draws])?);
        }
        statistics.push(margins);
        for round in &rounds {
            if !early {
                statistics.push(round.product.clone());
            }
            statistics.push(round.stats.clone());
        }
        let mut losses = vec![];
        let row_loss = k::row_loss(&snippets);
        losses.push(b.step(&row_loss, global, Grid::over_rows(64, 1), &[slot, batch, row, row_losses])?);
        losses.push(b.step(&k::batch_loss(), global, Grid::fixed(1), &[row, batch, loss_out])?);

        // backward
        let mut backward = vec![];
        if work.any {
            let upstream = b.optional(Slot::Upstream, 16)?;
            let buffers = [batch, upstream, row];
            backward.push(b.step(&k::row_gradients(&snippets), global, Grid::over_rows(64, 1), &buffers)?);
        }
        let sum_rows = k::sum_rows();
        if work.scale {
            let grad_scale = b.given(Slot::GradScale, 4)?;
            backward.push(b.step(&sum_rows, global, Grid::fixed(1), &[row, grad_scale])?);
        }
        if work.bias == Some(Bias::Link) {
            let grad_bias = b.given(Slot::GradBias, 4)?;
            let part = Part { local: 1, ..global };
            backward.push(b.step(&sum_rows, part, Grid::fixed(1), &[row, grad_bias])?);
        }
        if work.sweeps() {
            let columns = b.workspace("columns", rows.div_ceil(64) * longest * 4)?;
            let (mut slabs, mut grad_x, mut grad_w, mut grad_b) = (0, 0, vec![], 0);
            if work.embeddings {
                grad_x = b.given(Slot::GradEmbeddings, rows * dim * 4)?;
                slabs = b.workspace("slabs", splits as u64 * rows * dim.next_multiple_of(4) * 4)?;
            }
            if work.prototypes {
                for (i, &count) in layout.shards.iter().enumerate() {
                    grad_w.push(b.given(Slot::GradPrototypes(i), (count * centers) as u64 * dim * 4)?);
                }
            }
            if work.bias == Some(Bias::Classes) {
                grad_b = b.given(Slot::GradBias, range.len() as u64 * 4)?;
            }
            let grad_cosines = k::grad_cosines(&snippets, work.filter);
            let grad_embeddings = k::grad_embeddings(tile, chunk_loader, w, work.filter);
            let grad_prototypes = k::grad_prototypes(tile, chunk_loader, x, w, out, work.filter);
            // what a filter leaves: the blocks that it looked at, the lists for dX and dW, the sums
            let (mut blocks, mut class_list, mut row_list, mut filtered) = (vec![], vec![], vec![], 0);
            let listed = k::listed(tile);
            if work.filter {
                let sizes = FilterBytes::new(rows, longest, centers as u64, work, tile);
                blocks.push(b.workspace("blocks", sizes.blocks)?);
                filtered = b.workspace("filtered", FilterBytes::SUMS)?;
                if work.embeddings {
                    class_list.push(b.workspace("class lists", sizes.class_lists)?);
                }
                if work.prototypes {
                    row_list.push(b.workspace("row lists", sizes.row_lists)?);
                }
            }
            let wide = dim.div_ceil(tile_n);
            let starts = schedule.starts();
            let (mut sums, finish) = (0, k::finish_embeddings(x, out));
            for (i, Round { part, chunk, cosine, product, .. }) in rounds.into_iter().enumerate() {
                if !keep {
                    backward.push(product);
                }
                let data = prototypes[chunk.shard];
                let grid = Grid::over_rows(64, u64::from(part.stride).div_ceil(centers as u64).div_ceil(64));
                let buffers = [with_bias(&[cosine, row, class, columns]), blocks.clone()].concat();
                backward.push(b.step(&grad_cosines, part, grid, &buffers)?);
                if let [blocks] = blocks[..] {
                    backward.push(b.step(&k::filter_totals(), part, Grid::fixed(1), &[blocks, filtered])?);
                    if let [list] = class_list[..] {
                        let grid = Grid::over_rows(listed, 1);
                        backward.push(b.step(&k::list_classes(tile), part, grid, &[blocks, list])?);
                    }
                    if let [list] = row_list[..] {
                        let grid = Grid::fixed(u64::from(part.stride).div_ceil(listed.into()));
                        backward.push(b.step(&k::list_rows(tile), part, grid, &[blocks, list])?);
                    }
                }
                if work.embeddings {
                    let grid = Grid::over_rows(tile.rows(), wide * splits as u64);
                    let buffers = [&[cosine, data, class, slabs][..], &class_list].concat();
                    let part = Part { begin: u32::from(starts[i]), ..part };
                    backward.push(b.step(&grad_embeddings, part, grid, &buffers)?);
                    if starts.get(i + 1).is_none_or(|&next| next) {
                        let buffers = [embeddings, inverses, row, slabs, grad_x];
                        let part = Part { local: u32::from(sums > 0), ..global };
                        backward.push(b.step(&finish, part, Grid::over_rows(1, 1), &buffers)?);
                        sums += 1;
                    }
                }
                if work.prototypes {
                    let grid = Grid::fixed(u64::from(part.count).div_ceil(tile_m) * wide);
                    let own = grad_w[chunk.shard];
                    let buffers = [&[cosine, embeddings, data, inverses, class, columns, own][..], &row_list].concat();
                    for first in (0..rows as u32).step_by(ROWS_PER_PASS as usize) {
                        let part = Part { row_first: first, row_count: ROWS_PER_PASS, ..part };
                        backward.push(b.step(&grad_prototypes, part, grid, &buffers)?);
                    }
                }
                if work.bias == Some(Bias::Classes) {
                    let grid = Grid::fixed(u64::from(part.count).div_ceil(64));
                    backward.push(b.step(&k::grad_bias(), part, grid, &[columns, grad_b])?);
                }
            }
        }
        let elements = [layout.embeddings, layout.prototypes];
        Ok(b.plan((whole, range, 1, elements), snippets, schedule, [targets, follow, statistics, losses, backward]))
    }

    /// Cuts the classes into as few shards as the limits allow, of whole groups of 64 classes; at most 65,536.
    pub fn shards(shape: Shape, prototypes: Element, limits: &Limits) -> Result<Vec<usize>> {
        // the gradients are f32, whatever the prototypes are
        let values = crate::shape::elements(shape.dim(), shape.sub_centers());
        let bytes = values.saturating_mul(prototypes.bytes().max(4));
        let ((limit, allowed), index) = (limits.tightest(), crate::shape::MOST - 1);
        let most = (allowed / bytes).min(index / values) as usize;
        if most >= shape.classes() {
            return Ok(vec![shape.classes()]);
        }
        if most < 64 {
            let (what, needed) = ("64 prototypes", bytes.saturating_mul(64));
            if needed <= allowed {
                return Err(Error::Size { what, needed: values.saturating_mul(64), allowed: index });
            }
            return Err(Error::Limit { what, limit, needed, allowed });
        }
        let most = most / 64 * 64;
        let (needed, allowed) = (shape.classes().div_ceil(most) as u64, MOST_ROUNDS);
        if needed > allowed {
            return Err(Error::Size { what: "shards", needed, allowed });
        }
        let even = shape.classes().div_ceil(shape.classes().div_ceil(most)).next_multiple_of(64);
        let whole = shape.classes() / even;
        let rest = shape.classes() % even;
        Ok(std::iter::repeat_n(even, whole).chain((rest > 0).then_some(rest)).collect())
    }
}

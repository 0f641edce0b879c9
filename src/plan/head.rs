//! The plan of a head: statistics, loss and gradients of a batch, chunk by chunk.

use super::{Builder, Element, Grid, Limits, Loader, Part, Plan, Schedule, Slot, kernels as k, settings};
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

/// Rows that one pass of grad_prototypes sums over: llvmpipe stops a shader, silently, after 65,535 turns of its loops.
pub(super) const ROWS_PER_PASS: u32 = 1 << 16;

impl Plan {
    /// Plans a head: `Limit` and `Budget` errors come from here, before anything is allocated.
    ///
    /// One shard is the usual case: `Layout { shards: &[shape.classes()], .. }`. More are needed where the prototypes
    /// exceed one binding, see [`Plan::shards`].
    pub fn head(
        loss: &MarginSoftmax,
        shape: Shape,
        layout: &Layout<'_>,
        limits: &Limits,
        options: &Options,
    ) -> Result<Self> {
        loss.validate()?;
        loss.not_yet()?;
        if layout.shards.contains(&0) {
            return Err(Error::Zero { what: "shards" });
        }
        let sum = layout.shards.iter().fold(0_usize, |sum, &count| sum.saturating_add(count));
        if sum != shape.classes() {
            return Err(Error::Length { what: "shards", found: sum, expected: shape.classes() });
        }
        for &count in layout.shards {
            let (needed, allowed) = (crate::shape::elements(count, shape.dim()), crate::shape::MOST - 1);
            if needed > allowed {
                return Err(Error::Size { what: "classes of a shard · dim", needed, allowed });
            }
        }
        let Options { want, budget, tile } = *options;
        let snippets = k::Snippets::of(loss);
        let x = layout.embeddings.loader("embeddings", shape.dim())?;
        let w = layout.prototypes.loader("prototypes", shape.dim())?;
        let out = Loader::plain(shape.dim());
        let chunk_loader = Loader::F32x4;

        let mut b = Builder::new(limits, shape.rows(), shape)?;
        let schedule = Schedule::new(shape, layout.shards, limits, budget, want, tile)?;
        let Schedule { tile, keep, slots, splits, .. } = schedule;
        let rows = shape.rows().max(1) as u64;
        let (classes, dim) = (shape.classes() as u64, shape.dim() as u64);
        let longest = schedule.chunks.iter().map(|c| c.stride()).max().unwrap_or(4) as u64;

        // the caller's tensors
        let embeddings = b.given(Slot::Embeddings, rows * dim * layout.embeddings.bytes())?;
        let mut prototypes = vec![];
        for (i, &count) in layout.shards.iter().enumerate() {
            prototypes.push(b.given(Slot::Prototypes(i), count as u64 * dim * layout.prototypes.bytes())?);
        }
        let labels = b.given(Slot::Labels, rows * 4)?;
        let weights = b.optional(Slot::ClassWeights, 16)?;
        let loss_out = b.given(Slot::Loss, 4)?;
        let row_losses = b.optional(Slot::RowLosses, rows * 4)?;

        // the workspace
        let row = b.workspace("rows", rows * size_of::<settings::Row>() as u64)?;
        let inverses = b.workspace("inverses", rows * 4)?;
        let class = b.workspace("classes", classes * 8)?;
        let groups: u64 = layout.shards.iter().map(|c| c.div_ceil(64) as u64).sum();
        let totals = b.workspace("totals", groups * 16)?;
        let batch = b.workspace("batch", size_of::<settings::BatchState>() as u64)?;
        let slot = b.workspace("slots", slots as u64 * rows * 16)?;
        let mut cosines = vec![];
        for (i, chunk) in schedule.chunks.iter().enumerate() {
            let stride = if keep { chunk.stride() as u64 } else { longest };
            let fresh = keep || i == 0;
            cosines.push(if fresh { b.workspace("cosines", rows * stride * 4)? } else { cosines[0] });
        }

        // forward
        let size = u64::from(tile.size());
        let global = Part { count: groups as u32, slots: slots as u32, splits: splits as u32, ..Part::default() };
        let mut forward = vec![];
        let row_norms = k::row_norms(x);
        forward.push(b.step(
            &row_norms,
            global,
            Grid::over_rows(8, 1),
            &[embeddings, labels, weights, inverses, row],
        )?);
        let (class_norms, target_rows) = (k::class_norms(w), k::target_rows(snippets, x, w));
        let (mut first, mut group) = (0, 0);
        for (&count, &data) in layout.shards.iter().zip(&prototypes) {
            let part = Part { first: first as u32, count: count as u32, local: group as u32, ..Part::default() };
            let grid = Grid::fixed(count.div_ceil(64) as u64);
            forward.push(b.step(&class_norms, part, grid, &[data, weights, class, totals])?);
            let buffers = [embeddings, data, inverses, class, row];
            forward.push(b.step(&target_rows, part, Grid::over_rows(8, 1), &buffers)?);
            first += count;
            group += count.div_ceil(64);
        }
        forward.push(b.step(&k::class_totals(), global, Grid::fixed(1), &[totals, batch])?);

        let products = k::cosines(tile, x, w, chunk_loader);
        let row_stats = k::row_stats(snippets);
        let mut rounds = vec![];
        for (i, (chunk, &cosine)) in schedule.chunks.iter().zip(&cosines).enumerate() {
            let part = Part {
                first: chunk.first as u32,
                count: chunk.count as u32,
                local: chunk.local as u32,
                stride: chunk.stride() as u32,
                splits: splits as u32,
                slots: slots as u32,
                // whole steps of the tile's loop over classes
                split_span: chunk.count.div_ceil(splits).next_multiple_of(16) as u32,
                slot_span: chunk.count.div_ceil(slots) as u32,
                begin: u32::from(i == 0),
                row_count: ROWS_PER_PASS,
                ..Part::default()
            };
            let data = prototypes[chunk.shard];
            let grid = Grid::over_rows(tile.size(), (chunk.count as u64).div_ceil(size));
            let product = b.step(&products, part, grid, &[embeddings, data, inverses, class, cosine])?;
            forward.push(product.clone());
            let grid = Grid::over_rows(1, slots as u64);
            forward.push(b.step(&row_stats, part, grid, &[cosine, row, class, slot])?);
            rounds.push((part, chunk.shard, cosine, product));
        }
        forward.push(b.step(&k::row_loss(), global, Grid::over_rows(64, 1), &[slot, batch, row, row_losses])?);
        forward.push(b.step(&k::batch_loss(), global, Grid::fixed(1), &[row, batch, loss_out])?);

        // backward
        let mut backward = vec![];
        if want.any() {
            let upstream = b.optional(Slot::Upstream, 16)?;
            let columns = b.workspace("columns", rows.div_ceil(64) * longest * 4)?;
            let (mut slabs, mut grad_x, mut grad_w) = (0, 0, vec![]);
            if want.grad_embeddings {
                grad_x = b.given(Slot::GradEmbeddings, rows * dim * 4)?;
                slabs = b.workspace("slabs", splits as u64 * rows * dim.next_multiple_of(4) * 4)?;
            }
            if want.grad_prototypes {
                for (i, &count) in layout.shards.iter().enumerate() {
                    grad_w.push(b.given(Slot::GradPrototypes(i), count as u64 * dim * 4)?);
                }
            }
            backward.push(b.step(&k::row_gradients(), global, Grid::over_rows(64, 1), &[batch, upstream, row])?);
            let grad_cosines = k::grad_cosines(snippets);
            let grad_embeddings = k::grad_embeddings(tile, chunk_loader, w);
            let grad_prototypes = k::grad_prototypes(tile, chunk_loader, x, w, out);
            let wide = dim.div_ceil(size);
            for (part, shard, cosine, product) in rounds {
                if !keep {
                    backward.push(product);
                }
                let data = prototypes[shard];
                let grid = Grid::over_rows(64, u64::from(part.stride).div_ceil(64));
                backward.push(b.step(&grad_cosines, part, grid, &[cosine, row, class, columns])?);
                if want.grad_embeddings {
                    let grid = Grid::over_rows(tile.size(), wide * splits as u64);
                    backward.push(b.step(&grad_embeddings, part, grid, &[cosine, data, class, slabs])?);
                }
                if want.grad_prototypes {
                    let grid = Grid::fixed(u64::from(part.count).div_ceil(size) * wide);
                    let buffers = [cosine, embeddings, data, inverses, class, columns, grad_w[shard]];
                    for first in (0..rows as u32).step_by(ROWS_PER_PASS as usize) {
                        let part = Part { row_first: first, row_count: ROWS_PER_PASS, ..part };
                        backward.push(b.step(&grad_prototypes, part, grid, &buffers)?);
                    }
                }
            }
            if want.grad_embeddings {
                let buffers = [embeddings, inverses, row, slabs, grad_x];
                let finish = k::finish_embeddings(x, out);
                backward.push(b.step(&finish, global, Grid::over_rows(1, 1), &buffers)?);
            }
        }
        Ok(b.plan((shape, 1, [layout.embeddings, layout.prototypes]), snippets, schedule, [forward, backward]))
    }

    /// Cuts the classes into as few shards as the limits allow, of whole groups of 64 classes.
    pub fn shards(shape: Shape, prototypes: Element, limits: &Limits) -> Result<Vec<usize>> {
        // the gradients are f32, whatever the prototypes are
        let bytes = (shape.dim() as u64).saturating_mul(prototypes.bytes().max(4));
        let bound = limits.max_binding.min(limits.max_buffer) / bytes;
        let most = bound.min((crate::shape::MOST - 1) / shape.dim() as u64) as usize;
        if most >= shape.classes() {
            return Ok(vec![shape.classes()]);
        }
        if most < 64 {
            let (what, limit) = ("64 prototypes", "max_storage_buffer_binding_size");
            return Err(Error::Limit { what, limit, needed: 64 * bytes, allowed: limits.max_binding });
        }
        let most = most / 64 * 64;
        let even = shape.classes().div_ceil(shape.classes().div_ceil(most)).next_multiple_of(64);
        let whole = shape.classes() / even;
        let rest = shape.classes() % even;
        Ok(std::iter::repeat_n(even, whole).chain((rest > 0).then_some(rest)).collect())
    }
}

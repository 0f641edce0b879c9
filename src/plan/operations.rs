//! The pieces as plans of their own, from the same kernels.

use super::{
    Element, Grid, Limits, Loader, Plan, Step, StepConstants, TensorRole,
    builder::Builder,
    driver_limits::{MAX_LOGITS, ROWS_PER_PASS, at_most, indexable},
    kernels::{self as k, Pull, Totals},
    snippets::Snippets,
};
use crate::{Adaptive, Error, MarginSoftmax, Others, Reduction, Result, Shape, Tile};

/// The gradient of cosines is the caller's.
const GIVEN: Pull = Pull { scaled: false, filter: false };

/// Sizes of an operation on a batch: [entries, rows, classes] and, for cosines, the length of a vector.
#[derive(Debug, Clone, Copy)]
pub struct Batched {
    pub(crate) entries: usize,
    pub(crate) shape: Shape,
    elements: [Element; 2],
}

impl Batched {
    /// `entries` is 1 without a batch dimension; `shape` is that of one entry, with dim 1 where there are no vectors;
    /// `elements` are those of the embeddings and the prototypes. Checks what the entries together must not exceed.
    pub fn new(entries: usize, shape: Shape, elements: [Element; 2]) -> Result<Self> {
        for (what, size) in [("batch", entries), ("rows", shape.rows())] {
            if size == 0 {
                return Err(Error::Zero { what });
            }
        }
        for (what, own) in [
            ("entries · rows · dim", shape.rows() * shape.dim()),
            ("entries · classes · dim", shape.prototypes()?),
            ("entries · rows · classes", shape.rows().saturating_mul(shape.classes())),
        ] {
            indexable(what, (own as u64).saturating_mul(entries as u64))?;
        }
        Ok(Self { entries, shape, elements })
    }

    fn rows(&self) -> u64 {
        (self.entries * self.shape.rows()).max(1) as u64
    }

    fn cells(&self) -> u64 {
        self.rows() * self.shape.classes() as u64
    }

    /// All classes of one entry.
    fn part(&self) -> StepConstants {
        let classes = self.shape.classes() as u32;
        StepConstants {
            count: classes,
            stride: classes,
            // no loop over classes takes too many iterations
            splits: classes.div_ceil(ROWS_PER_PASS),
            slots: 1,
            split_span: ROWS_PER_PASS,
            slot_span: classes,
            begin: 1,
            ..StepConstants::default()
        }
    }

    fn finish(self, b: Builder, loss: &MarginSoftmax, tile: Tile, steps: [Vec<Step>; 2]) -> Plan {
        b.single(loss, (self.shape, self.entries, self.elements), tile, steps)
    }
}

impl Plan {
    /// Cosines \[B, N, C\] of embeddings \[B, N, D\] and prototypes \[B, C, D\]; with `backward` their gradients instead, from the
    /// cosines and dL/dcosines.
    pub fn cosine(sizes: Batched, limits: &Limits, tile: Tile, backward: bool) -> Result<Plan> {
        tile.check(limits)?;
        let Batched { shape, elements, .. } = sizes;
        let (rows, dim, entries) = (sizes.rows(), shape.dim() as u64, sizes.entries as u32);
        let classes = (sizes.entries * shape.classes()) as u64;
        let x = elements[0].loader("embeddings", shape.dim(), limits)?;
        let w = elements[1].loader("prototypes", shape.dim(), limits)?;
        let (cell, out) = (Loader::plain(shape.classes()), Loader::plain(shape.dim()));
        let mut b = Builder::new(limits, sizes.rows() as usize, sizes.shape)?;
        let embeddings = b.given(TensorRole::Embeddings, rows * dim * elements[0].bytes())?;
        let prototypes = b.given(TensorRole::Prototypes(0), classes * dim * elements[1].bytes())?;
        let cosines = b.given(TensorRole::Cosines, sizes.cells() * 4)?;
        // labels of zero: every row counts
        let labels = b.per_row("labels", rows)?;
        let weights = b.workspace("weights", 16)?;
        let inverses = b.per_row("inverses", rows)?;
        let row = b.rows(rows)?;
        let class = b.classes(classes)?;
        let totals = b.totals(classes.div_ceil(64))?;

        // norms run over all entries at once
        let all = StepConstants::over(classes as usize);
        let flat = Grid::fixed(rows.div_ceil(8));
        let mut steps = vec![
            b.step(&k::row_norms(x, false), all, flat, &[embeddings, labels, weights, inverses, row])?,
            b.step(&k::class_norms(w, false), all, Grid::fixed(classes.div_ceil(64)), &[prototypes, class, totals])?,
        ];
        let part = sizes.part();
        let (tile_m, tile_n) = (u64::from(tile.rows()), u64::from(tile.columns()));
        let wide = dim.div_ceil(tile_n);
        if !backward {
            let grid = Grid::over_rows(tile.rows(), (shape.classes() as u64).div_ceil(tile_n)).entries(entries);
            let kernel = k::cosines(tile, x, w, cell);
            steps.push(b.step(&kernel, part, grid, &[embeddings, prototypes, inverses, class, cosines])?);
        } else {
            let gradient = b.given(TensorRole::GradCosines, sizes.cells() * 4)?;
            let grad_x = b.given(TensorRole::GradEmbeddings, rows * dim * 4)?;
            let grad_w = b.given(TensorRole::GradPrototypes(0), classes * dim * 4)?;
            let blocks = shape.rows().div_ceil(64) as u64;
            let columns = b.columns(blocks * sizes.entries as u64, shape.classes() as u64)?;
            let splits = u64::from(part.splits);
            indexable("parts of a sum · entries · rows · dim", splits * rows * dim.next_multiple_of(4))?;
            let slabs = b.slabs(splits, rows, dim)?;
            let grid = Grid::over_rows(64, (shape.classes() as u64).div_ceil(64)).entries(entries);
            steps.push(b.step(&k::column_sums(), part, grid, &[cosines, gradient, columns])?);
            let grid = Grid::over_rows(tile.rows(), wide * splits).entries(entries);
            let kernel = k::grad_embeddings(tile, cell, w, GIVEN);
            steps.push(b.step(&kernel, part, grid, &[gradient, prototypes, slabs, class])?);
            let flat = Grid::fixed(rows);
            let kernel = k::finish_embeddings(x, out, false);
            steps.push(b.step(&kernel, part, flat, &[embeddings, inverses, row, slabs, grad_x])?);
            let grid = Grid::fixed((shape.classes() as u64).div_ceil(tile_m) * wide).entries(entries);
            let kernel = k::grad_prototypes(tile, cell, x, w, out, GIVEN);
            let buffers = [gradient, embeddings, prototypes, inverses, class, columns, grad_w];
            for first in (0..shape.rows() as u32).step_by(ROWS_PER_PASS as usize) {
                let part = StepConstants { row_first: first, row_count: ROWS_PER_PASS, ..part };
                steps.push(b.step(&kernel, part, grid, &buffers)?);
            }
        }
        Ok(sizes.finish(b, &MarginSoftmax::default(), tile, [steps, vec![]]))
    }

    /// Logits from cosines \[B, N, C\] and labels \[B, N\]; with `backward` dL/dcosines from dL/dlogits instead.
    pub fn margin(loss: &MarginSoftmax, sizes: Batched, limits: &Limits, backward: bool) -> Result<Plan> {
        loss.validate()?;
        let why = match (&loss.others, loss.adaptive) {
            (Others::Curricular, _) => "CurricularFace looks at the target of the row, and at the state of a run",
            (others, _) if others.sees_target() => "its other classes look at the target of the row",
            (Others::TopK(_), _) => "inter-topk looks at all classes of the row",
            (_, Adaptive::None) => "",
            _ => "an adaptive family looks at the batch",
        };
        if !why.is_empty() {
            return Err(Error::Combination { what: "margin of one cosine", why });
        }
        loss.validate_for(sizes.shape)?;
        let snippets = &Snippets::of(loss, sizes.shape);
        let mut b = Builder::new(limits, sizes.rows() as usize, sizes.shape)?;
        let cosines = b.given(TensorRole::Cosines, sizes.cells() * 4)?;
        let labels = b.given(TensorRole::Labels, sizes.rows() * 4)?;
        let groups = sizes.rows() * (sizes.shape.classes() as u64).div_ceil(64);
        let grid = Grid::fixed(groups);
        let step = if backward {
            let upstream = b.given(TensorRole::GradLogits, sizes.cells() * 4)?;
            let gradient = b.given(TensorRole::GradCosines, sizes.cells() * 4)?;
            b.step(&k::margin_slopes(snippets), sizes.part(), grid, &[cosines, labels, upstream, gradient])?
        } else {
            let logits = b.given(TensorRole::Logits, sizes.cells() * 4)?;
            b.step(&k::margin_logits(snippets), sizes.part(), grid, &[cosines, labels, logits])?
        };
        Ok(sizes.finish(b, loss, Tile::Direct, [vec![step], vec![]]))
    }

    /// Softmax cross entropy of logits \[B, N, C\]: one loss per batch entry; with `backward` dL/dlogits as well, which
    /// overwrites a copy of the logits.
    pub fn cross_entropy(options: &CrossEntropy, sizes: Batched, limits: &Limits, backward: bool) -> Result<Plan> {
        let loss = options.loss();
        loss.validate()?;
        let snippets = &Snippets::of(&loss, sizes.shape);
        let mut b = Builder::new(limits, sizes.rows() as usize, sizes.shape)?;
        let (rows, entries) = (sizes.rows(), sizes.entries as u64);
        at_most("classes of given logits", sizes.shape.classes() as u64, MAX_LOGITS as u64)?;
        let logits = b.given(TensorRole::Logits, sizes.cells() * 4)?;
        let labels = b.given(TensorRole::Labels, rows * 4)?;
        let weights = b.optional(TensorRole::ClassWeights, 16)?;
        let loss_out = b.given(TensorRole::Loss, entries * 4)?;
        let row_losses = b.optional(TensorRole::RowLosses, rows * 4)?;
        let log_sum_exps = b.optional(TensorRole::LogSumExps, rows * 4)?;
        let row = b.rows(rows)?;
        let class = b.classes(sizes.shape.classes() as u64)?;
        let batch = b.batch(entries)?;
        let classes = sizes.shape.classes();
        let slots = classes.div_ceil(1024).min(64);
        let slot = b.slots(rows, slots as u64)?;
        let part = StepConstants {
            slots: slots as u32,
            slot_span: classes.div_ceil(slots).next_multiple_of(4) as u32,
            ..sizes.part()
        };
        let mut steps = vec![
            b.step(&k::logit_rows(), part, Grid::fixed(rows), &[logits, labels, weights, row])?,
            b.step(&k::logit_classes(), part, Grid::fixed(1), &[class, batch, weights])?,
            b.step(
                &k::row_stats(snippets, Loader::plain(classes)),
                part,
                Grid::fixed(rows * slots as u64),
                &[logits, row, class, slot],
            )?,
            b.step(
                &k::row_loss(snippets, Totals::Known),
                part,
                Grid::fixed(rows.div_ceil(64)),
                &[slot, row, row_losses, log_sum_exps, batch],
            )?,
            b.step(
                &k::batch_loss(snippets, Totals::Known, backward),
                part,
                Grid::fixed(entries),
                &[row, batch, loss_out],
            )?,
        ];
        if backward {
            let upstream = b.optional(TensorRole::Upstream, 16)?;
            // a copy of the logits on the way in
            let gradient = b.given(TensorRole::GradLogits, sizes.cells() * 4)?;
            let columns = b.columns(rows.div_ceil(64), classes as u64)?;
            let grid = Grid::fixed(rows.div_ceil(64));
            steps.push(b.step(&k::row_gradients(snippets), part, grid, &[batch, upstream, row])?.with_upstream());
            let grid = Grid::fixed(rows.div_ceil(64) * (classes as u64).div_ceil(64));
            steps.push(b.step(
                &k::grad_cosines(snippets, Loader::plain(classes), GIVEN),
                part,
                grid,
                &[gradient, row, class, columns],
            )?);
        }
        Ok(sizes.finish(b, &loss, Tile::Direct, [steps, vec![]]))
    }
}

/// The options of softmax cross entropy, as in `torch.nn.functional.cross_entropy`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CrossEntropy {
    /// How the rows' losses become one; default mean.
    pub reduction: Reduction,
    /// ε of label smoothing, 0 ≤ ε < 1; default 0.
    pub label_smoothing: f64,
    /// Rows with this label are left out; default none.
    pub ignore_index: Option<i64>,
}

impl CrossEntropy {
    /// The same as a loss without margin and scale.
    pub fn loss(&self) -> MarginSoftmax {
        MarginSoftmax {
            scale: 1.0,
            others: Others::Identity,
            label_smoothing: self.label_smoothing,
            reduction: self.reduction,
            ignore_index: self.ignore_index,
            ..MarginSoftmax::normface()
        }
    }
}

//! The buffers of a head, in one list: the plan is built with it, and the budget adds up its bytes.

use super::{
    Element, PassSchedule, TensorRole,
    builder::Builder,
    kernels,
    work::{Bias, Work},
};
use crate::{
    Error, Result, Shape,
    data::MarginGradients,
    shape::check_length,
    uniforms::{BatchState, FilterTotals, Row, RowStatisticsF32},
};

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

impl Layout<'_> {
    /// Whether its shards have so many classes together, and none of them no class.
    pub(super) fn check(&self, classes: usize) -> Result<()> {
        if self.shards.contains(&0) {
            return Err(Error::Zero { what: "shards" });
        }
        let found = self.shards.iter().fold(0_usize, |sum, &count| sum.saturating_add(count));
        check_length("shards", found, classes)
    }
}

/// Buffers that several plans have, each with its size.
impl Builder {
    /// One f32 per row, of rows of any kind.
    pub fn per_row(&mut self, name: &'static str, rows: u64) -> Result<usize> {
        self.workspace(name, rows * 4)
    }

    /// A [`Row`] per row.
    pub fn rows(&mut self, rows: u64) -> Result<usize> {
        self.workspace("rows", rows * size_of::<Row>() as u64)
    }

    /// Inverse length and weight of each prototype.
    pub fn classes(&mut self, vectors: u64) -> Result<usize> {
        self.workspace("classes", vectors * 8)
    }

    /// Four numbers for each group of 64 prototypes.
    pub fn totals(&mut self, groups: u64) -> Result<usize> {
        self.workspace("totals", groups * 16)
    }

    /// A [`BatchState`] per batch entry.
    pub fn batch(&mut self, entries: u64) -> Result<usize> {
        self.workspace("batch", entries * size_of::<BatchState>() as u64)
    }

    /// [`RowStatisticsF32`] of each slot of each row.
    pub fn slots(&mut self, rows: u64, slots: u64) -> Result<usize> {
        self.workspace("slots", slot_bytes(rows, slots))
    }

    /// The parts of the sum over classes in dX, in whole quads.
    pub fn slabs(&mut self, splits: u64, rows: u64, dim: u64) -> Result<usize> {
        self.workspace("slabs", splits * rows * dim.next_multiple_of(4) * 4)
    }

    /// One f32 per column, of `columns`, and block of 64 rows, and one more.
    pub fn columns(&mut self, blocks: u64, columns: u64) -> Result<usize> {
        self.workspace("columns", (blocks * columns + 1) * 4)
    }
}

fn slot_bytes(rows: u64, slots: u64) -> u64 {
    slots * rows * size_of::<RowStatisticsF32>() as u64
}

/// The buffers of a head, as indices into those of the plan.
pub(super) struct Buffers {
    pub embeddings: usize,
    /// One per shard.
    pub prototypes: Vec<usize>,
    pub labels: usize,
    pub weights: usize,
    pub row_weights: usize,
    pub soft: Option<SoftBuffers>,
    pub class_margins: usize,
    pub row_margins: usize,
    pub state: usize,
    /// Of a linear head.
    pub bias: Option<usize>,
    pub loss: usize,
    pub row_losses: usize,
    pub log_sum_exps: usize,
    pub rows: usize,
    pub inverses: usize,
    pub classes: usize,
    pub totals: usize,
    pub batch: usize,
    pub slots: usize,
    /// One per chunk; the same one where they are not kept.
    pub cosines: Vec<usize>,
    /// The hardest classes of each row.
    pub top: Option<usize>,
    pub prediction: Option<PredictionBuffers>,
    pub draws: Option<usize>,
    pub upstream: Option<usize>,
    pub grad_scale: Option<usize>,
    /// Of a binary link.
    pub grad_link_bias: Option<usize>,
    pub margins: Option<MarginBuffers>,
    /// For a backward pass through the cosines.
    pub sweep: Option<Sweep>,
}

/// The gradients of the margins.
pub(super) struct MarginBuffers {
    /// Those of each row.
    pub rows: usize,
    /// Their sum, and whether it is by class; none where the rows' own are given out.
    pub sum: Option<(usize, bool)>,
}

/// Soft labels.
pub(super) struct SoftBuffers {
    pub classes: usize,
    pub weights: usize,
    /// A [`Row`] of each target of a row, its label among them.
    pub rows: usize,
}

/// The nearest classes.
pub(super) struct PredictionBuffers {
    /// The list of each row.
    pub nearest: usize,
    /// The log-sum-exp of each row.
    pub log_sums: usize,
    /// The rows' sums over the cosines as they are, where the loss takes others.
    pub slots: Option<usize>,
    /// The caller's: classes, cosines, log-probabilities and sub-centers.
    pub given: Option<[usize; 4]>,
}

/// The buffers of a backward pass through the cosines.
pub(super) struct Sweep {
    pub columns: usize,
    /// dX, and the slabs of its sums.
    pub grad_embeddings: Option<[usize; 2]>,
    /// dW of each shard, if it is wanted.
    pub grad_prototypes: Vec<usize>,
    /// Of a linear head.
    pub grad_bias: Option<usize>,
    pub filter: Option<FilterBuffers>,
}

/// The entries that a filter leaves.
pub(super) struct FilterBuffers {
    /// The blocks of entries that it looked at.
    pub blocks: usize,
    /// Sums over them.
    pub filtered: usize,
    /// The classes that are left, for dX.
    pub class_lists: Option<usize>,
    /// The rows that are left, for dW.
    pub row_lists: Option<usize>,
}

/// The sizes that those of the buffers follow from.
struct Sizes<'a> {
    rows: u64,
    shape: Shape,
    layout: &'a Layout<'a>,
    work: Work,
    schedule: &'a PassSchedule,
}

impl Buffers {
    /// Adds the buffers of a head for the classes of `shape`.
    pub fn new(
        b: &mut Builder,
        shape: Shape,
        layout: &Layout<'_>,
        work: Work,
        schedule: &PassSchedule,
    ) -> Result<Self> {
        let rows = shape.rows().max(1) as u64;
        let sizes = Sizes { rows, shape, layout, work, schedule };
        let (classes, link) = (shape.classes() as u64, work.bias == Some(Bias::Link));
        let groups = layout.shards.iter().map(|c| (c * shape.sub_centers()).div_ceil(64) as u64).sum();
        // in the order of the fields
        Ok(Self {
            embeddings: b.given(TensorRole::Embeddings, rows * shape.dim() as u64 * layout.embeddings.bytes())?,
            prototypes: sizes.per_shard(b, TensorRole::Prototypes, layout.prototypes)?,
            labels: if work.labelled { b.given(TensorRole::Labels, rows * 4) } else { b.per_row("labels", rows) }?,
            weights: b.optional(TensorRole::ClassWeights, 16)?,
            row_weights: b.optional(TensorRole::RowWeights, 16)?,
            soft: on(work.soft_labels > 0, || sizes.soft(b))?,
            class_margins: b.optional(TensorRole::ClassMargins, 16)?,
            row_margins: b.optional(TensorRole::RowMargins, 16)?,
            state: b.optional(TensorRole::State, 16)?,
            bias: on(work.linear, || b.optional(TensorRole::Bias, classes * 4))?,
            loss: if work.labelled { b.given(TensorRole::Loss, 4) } else { b.workspace("loss", 4) }?,
            row_losses: b.optional(TensorRole::RowLosses, rows * 4)?,
            log_sum_exps: b.optional(TensorRole::LogSumExps, rows * 4)?,
            rows: b.rows(rows)?,
            inverses: b.per_row("inverses", rows)?,
            classes: b.classes(shape.vectors() as u64)?,
            totals: b.totals(groups)?,
            batch: b.batch(1)?,
            slots: b.slots(rows, schedule.slots as u64)?,
            cosines: sizes.cosines(b)?,
            top: on(work.stages.top_k > 0, || b.workspace("top", rows * work.stages.top_k as u64 * 8))?,
            prediction: on(work.predictions > 0, || sizes.prediction(b))?,
            draws: on(work.stages.margin_noise, || b.per_row("draws", rows))?,
            upstream: on(work.any, || b.optional(TensorRole::Upstream, 16))?,
            grad_scale: on(work.scale, || b.given(TensorRole::GradScale, 4))?,
            grad_link_bias: on(link, || b.given(TensorRole::GradBias, 4))?,
            margins: work.margins.map(|margins| sizes.margins(b, margins)).transpose()?,
            sweep: on(work.sweeps(), || sizes.sweep(b))?,
        })
    }

    /// These, and the bias of a linear head.
    pub fn with_bias(&self, buffers: &[usize]) -> Vec<usize> {
        [buffers, self.bias.as_slice()].concat()
    }
}

impl Sizes<'_> {
    fn per_shard(&self, b: &mut Builder, role: fn(usize) -> TensorRole, element: Element) -> Result<Vec<usize>> {
        let vector = (self.shape.sub_centers() * self.shape.dim()) as u64 * element.bytes();
        self.layout.shards.iter().enumerate().map(|(i, &count)| b.given(role(i), count as u64 * vector)).collect()
    }

    fn cosines(&self, b: &mut Builder) -> Result<Vec<usize>> {
        let chunks = &self.schedule.chunks;
        if self.schedule.keep {
            chunks.iter().map(|chunk| b.workspace("cosines", self.rows * chunk.stride() as u64 * 4)).collect()
        } else {
            let shared = b.workspace("cosines", self.rows * self.schedule.longest() * 4)?;
            Ok(vec![shared; chunks.len()])
        }
    }

    fn margins(&self, b: &mut Builder, margins: MarginGradients) -> Result<MarginBuffers> {
        let given = |b: &mut Builder, count: u64| b.given(TensorRole::GradMargins, count * 16);
        Ok(match margins {
            MarginGradients::Rows => MarginBuffers { rows: given(b, self.rows)?, sum: None },
            MarginGradients::Classes => MarginBuffers {
                rows: b.workspace("margin gradients", self.rows * 16)?,
                sum: Some((given(b, self.work.all_classes as u64)?, true)),
            },
            MarginGradients::Sum => MarginBuffers {
                rows: b.workspace("margin gradients", self.rows * 16)?,
                sum: Some((given(b, 1)?, false)),
            },
        })
    }

    fn soft(&self, b: &mut Builder) -> Result<SoftBuffers> {
        let bytes = size_of::<Row>() as u64;
        Ok(SoftBuffers {
            classes: b.optional(TensorRole::SoftClasses, 16)?,
            weights: b.optional(TensorRole::SoftWeights, 16)?,
            rows: b.workspace("soft", self.rows * (self.work.soft_labels as u64 + 1) * bytes)?,
        })
    }

    fn prediction(&self, b: &mut Builder) -> Result<PredictionBuffers> {
        let (rows, count) = (self.rows, self.work.predictions as u64);
        let slots = slot_bytes(rows, self.schedule.slots as u64);
        Ok(PredictionBuffers {
            nearest: b.workspace("nearest", rows * count * 16)?,
            log_sums: b.per_row("log sums", rows)?,
            slots: on(self.work.sums_apart, || b.workspace("prediction slots", slots))?,
            given: on(self.work.gives_predictions, || {
                let bytes = rows * count * 4;
                Ok([
                    b.given(TensorRole::PredictedClasses, bytes)?,
                    b.given(TensorRole::PredictedCosines, bytes)?,
                    b.given(TensorRole::LogProbabilities, bytes)?,
                    b.optional(TensorRole::PredictedSubCenters, bytes)?,
                ])
            })?,
        })
    }

    fn sweep(&self, b: &mut Builder) -> Result<Sweep> {
        let (rows, dim, classes) = (self.rows, self.shape.dim() as u64, self.shape.classes() as u64);
        let (work, splits) = (self.work, self.schedule.splits as u64);
        Ok(Sweep {
            columns: b.columns(rows.div_ceil(64), self.schedule.longest())?,
            grad_embeddings: on(work.embeddings, || {
                let gradient = b.given(TensorRole::GradEmbeddings, rows * dim * 4)?;
                Ok([gradient, b.slabs(splits, rows, dim)?])
            })?,
            grad_prototypes: match work.prototypes {
                true => self.per_shard(b, TensorRole::GradPrototypes, Element::F32)?,
                false => vec![],
            },
            grad_bias: on(work.bias == Some(Bias::Classes), || b.given(TensorRole::GradBias, classes * 4))?,
            filter: on(work.filter, || self.filter(b))?,
        })
    }

    fn filter(&self, b: &mut Builder) -> Result<FilterBuffers> {
        let (rows, stride, work) = (self.rows, self.schedule.longest(), self.work);
        let units = stride.div_ceil(self.shape.sub_centers() as u64);
        let listed = u64::from(kernels::rows_per_list(self.schedule.tile));
        let lists = |count: u64, longest: u64| count.div_ceil(listed) * (longest + 1) * 4;
        Ok(FilterBuffers {
            blocks: b.workspace("blocks", rows.div_ceil(64) * units.div_ceil(64) * 32)?,
            filtered: b.workspace("filtered", size_of::<FilterTotals>() as u64)?,
            class_lists: on(work.embeddings, || b.workspace("class lists", lists(rows, stride)))?,
            row_lists: on(work.prototypes, || b.workspace("row lists", lists(stride, rows)))?,
        })
    }
}

/// The result of `make` where it is needed.
fn on<T>(needed: bool, make: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    needed.then(make).transpose()
}

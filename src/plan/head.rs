//! The plan of a head: statistics, loss and gradients of a batch, chunk by chunk.

use std::ops::Range;

use super::{
    Element, Layout, Limits, Loader, Plan, StepConstants, budget,
    buffers::Buffers,
    builder::Builder,
    driver_limits::{MAX_COUNTED_ROWS, MAX_ROUNDS, at_most, indexable},
    forward::{HeadPlan, Loaders},
    snippets::Snippets,
    work::Work,
};
use crate::{Error, MarginSoftmax, Options, Result, Shape, data::Predictions, shape::elements};

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
        loss.validate_for(shape)?;
        options.check(loss, shape, &(0..shape.classes()))?;
        Self::checked(loss, (shape, 0..shape.classes(), true), layout, limits, options)
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
        options.check(loss, whole, &range)?;
        if options.predictions.is_some() {
            let why = "a caller of shards has Plan::predict, which plans them without a loss";
            return Err(Error::Combination { what: "predictions", why });
        }
        Self::checked(loss, (whole, range, false), layout, limits, options)
    }

    /// The same for a loss and options that were checked; `alone`: nothing is exchanged between the stages, and predictions come out
    /// in tensors.
    pub(crate) fn checked(
        loss: &MarginSoftmax,
        (whole, range, alone): (Shape, Range<usize>, bool),
        layout: &Layout<'_>,
        limits: &Limits,
        options: &Options,
    ) -> Result<Self> {
        let shape = shape_of(whole, &range, layout)?;
        let snippets = Snippets::of(loss, whole).with_targets(options.soft_labels.unwrap_or(0));
        let work = Work { gives_predictions: alone, ..Work::new(loss, options, snippets.stages, whole.classes()) };
        let mut b = Builder::new(limits, shape.rows(), shape)?;
        let head = HeadPlan::new(&mut b, loss, (shape, layout), (snippets, work, alone), limits, options)?;

        let mut targets = head.targets(&mut b)?;
        let rounds = head.rounds(&mut b)?;
        targets.extend(head.early_cosines(&mut b, &rounds)?);
        let margins = head.margins(&mut b)?;
        let follow = head.follow(&mut b, margins.as_ref(), &rounds)?;
        let statistics = head.statistics(&mut b, margins, &rounds)?;
        let losses = head.losses(&mut b)?;
        let backward = head.backward(&mut b, &rounds)?;
        let HeadPlan { snippets, schedule, .. } = head;
        let elements = [layout.embeddings, layout.prototypes];
        let stages = [targets, follow, statistics, losses, backward];
        let plan = b.plan((whole, range, 1, elements), snippets, schedule, stages);
        let predictions = if alone { options.predictions.unwrap_or(0) } else { 0 };
        Self { predictions, margins: options.want.grad_margins, ..plan }.bounded(options.work_per_submit)
    }

    /// Plans the `count` nearest classes of rows without labels, among those in `range` of a head of this shape; the layout is
    /// that of these classes. Of the options budget, preset, tile and work per submit are used.
    ///
    /// They come out in the tensors of a [`PredictIo`](crate::gpu::PredictIo).
    pub fn predict(
        loss: &MarginSoftmax,
        whole: Shape,
        range: Range<usize>,
        count: usize,
        layout: &Layout<'_>,
        limits: &Limits,
        options: &Options,
    ) -> Result<Self> {
        Self::predict_any(loss, (whole, range, true), count, layout, limits, options)
    }

    /// The same; where it `gives` no tensors the lists stay in the workspace `nearest`, \[rows, count\] of four u32 each: the bits
    /// of the cosine, the class or 2³² − 1, its prototype, the bits of the log-probability.
    pub(crate) fn predict_any(
        loss: &MarginSoftmax,
        (whole, range, gives): (Shape, Range<usize>, bool),
        count: usize,
        layout: &Layout<'_>,
        limits: &Limits,
        options: &Options,
    ) -> Result<Self> {
        loss.validate_for(whole)?;
        Predictions::<f32>::check(count, whole.classes())?;
        let shape = shape_of(whole, &range, layout)?;
        let own = Snippets::of(loss, whole);
        let work = Work { gives_predictions: gives, ..Work::unlabelled(loss, count) };
        let mut b = Builder::new(limits, shape.rows(), shape)?;
        let head = HeadPlan::new(&mut b, loss, (shape, layout), (own.raw(), work, false), limits, options)?;
        let mut steps = head.targets(&mut b)?;
        let rounds = head.rounds(&mut b)?;
        steps.extend(head.predictions(&mut b, &rounds)?);
        let elements = [layout.embeddings, layout.prototypes];
        let stages = [steps, vec![], vec![], vec![], vec![]];
        let plan = b.plan((whole, range, 1, elements), own, head.schedule, stages);
        Self { labelled: false, predictions: if gives { count } else { 0 }, ..plan }.bounded(options.work_per_submit)
    }

    /// Cuts the classes into as few shards as the limits allow, of whole groups of 64 classes; at most 65,536.
    pub fn shards(shape: Shape, prototypes: Element, limits: &Limits) -> Result<Vec<usize>> {
        // the gradients are f32, whatever the prototypes are
        let values = crate::shape::elements(shape.dim(), shape.sub_centers());
        let bytes = values.saturating_mul(prototypes.bytes().max(4));
        let ((limit, allowed), index) = (limits.tightest(), crate::shape::INDEX_END - 1);
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
        at_most("shards", shape.classes().div_ceil(most) as u64, MAX_ROUNDS)?;
        let even = shape.classes().div_ceil(shape.classes().div_ceil(most)).next_multiple_of(64);
        let whole = shape.classes() / even;
        let rest = shape.classes() % even;
        Ok(std::iter::repeat_n(even, whole).chain((rest > 0).then_some(rest)).collect())
    }
}

impl<'a> HeadPlan<'a> {
    /// Schedule and buffers for the classes of `shape`.
    fn new(
        b: &mut Builder,
        loss: &MarginSoftmax,
        (shape, layout): (Shape, &'a Layout<'a>),
        (snippets, work, alone): (Snippets, Work, bool),
        limits: &Limits,
        options: &Options,
    ) -> Result<Self> {
        if work.counts_rows() {
            at_most("rows of this loss on a GPU", shape.rows() as u64, MAX_COUNTED_ROWS as u64)?;
        }
        indexable("rows · (soft_labels + 1)", elements(shape.rows(), work.soft_labels + 1))?;
        indexable("rows · top_k.count", elements(shape.rows(), work.stages.top_k))?;
        let loaders = Loaders {
            embeddings: layout.embeddings.loader("embeddings", shape.dim(), limits)?,
            prototypes: layout.prototypes.loader("prototypes", shape.dim(), limits)?,
            cosines: Loader::F32x4,
            gradients: Loader::plain(shape.dim()),
        };
        let schedule = budget::fit(shape, layout, limits, work, options)?;
        let buffers = Buffers::new(b, shape, layout, work, &schedule)?;
        let (slots, splits) = (schedule.slots as u32, schedule.splits as u32);
        let groups: usize = layout.shards.iter().map(|count| (count * shape.sub_centers()).div_ceil(64)).sum();
        let global = StepConstants { slots, splits, ..StepConstants::over(groups) };
        let epsilon = options.filter.map_or(0, |filter| (filter.epsilon() as f32).to_bits());
        let binary = loss.binary().is_some();
        Ok(Self { shape, binary, layout, loaders, snippets, work, schedule, buffers, global, epsilon, alone })
    }
}

/// The shape of the classes in `range`, which must be those of the layout.
fn shape_of(whole: Shape, range: &Range<usize>, layout: &Layout<'_>) -> Result<Shape> {
    if range.is_empty() || range.end > whole.classes() {
        return Err(Error::Shards { found: range.clone(), expected: 0, classes: whole.classes() });
    }
    layout.check(range.len())?;
    let centers = whole.sub_centers();
    let shape = Shape::new(whole.rows(), range.len(), whole.dim())?.with_sub_centers(centers)?;
    for &count in layout.shards {
        indexable("classes of a shard · dim", elements(count * centers, shape.dim()))?;
    }
    Ok(shape)
}

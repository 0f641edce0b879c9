//! Plans of the regularisers and of the center loss, with kernels of their own.

use super::{
    Element, Grid, Limits, Loader, Plan, Step, StepConstants, TensorRole,
    builder::Builder,
    driver_limits::{
        MAX_CENTER_LOSS_ROWS, MAX_CENTER_UPDATE_ROWS, MAX_PAIRED_CLASSES, PAIRS_PER_SPLIT, at_most, indexable,
    },
    kernels as k,
};
use crate::{CenterLoss, Error, MarginSoftmax, Regularizer, Result, Shape, Tile};

/// Rows of distances that are held at once: 1 KiB per class.
const BLOCK: usize = 256;
/// Rows and columns of one workgroup of the pair kernels.
const PAIRS: usize = 32;

impl Regularizer {
    /// The loss to give to [`Plan::settings`] with a plan of [`Plan::regularizer`]: it carries the weight.
    pub fn settings_loss(&self) -> MarginSoftmax {
        carrier(self.weight(), None)
    }
}

impl CenterLoss {
    /// The loss to give to [`Plan::settings`] with a plan of [`Plan::center_loss`]: it carries the weight and the ignore index.
    pub fn settings_loss(&self) -> MarginSoftmax {
        carrier(self.weight, self.ignore_index)
    }

    /// The loss to give to [`Plan::settings`] with a plan of [`Plan::center_update`]: it carries the rate and the ignore index.
    pub fn update_settings_loss(&self) -> MarginSoftmax {
        carrier(self.rate, self.ignore_index)
    }
}

/// A loss whose settings carry a factor and an ignore index.
fn carrier(scale: f64, ignore_index: Option<i64>) -> MarginSoftmax {
    MarginSoftmax { scale, ignore_index, ..MarginSoftmax::normface() }
}

fn finish(b: Builder, shape: Shape, elements: [Element; 2], steps: Vec<Step>) -> Plan {
    b.single(&carrier(1.0, None), (shape, 1, elements), Tile::Direct, [steps, vec![]])
}

impl Plan {
    /// A penalty on prototypes of `shape.classes()` × `shape.dim()` values (rows play no part): its value into
    /// [`TensorRole::Loss`], its gradient into [`TensorRole::GradPrototypes`]`(0)`, or onto what is there (`Call::accumulate`).
    ///
    /// The workspace is linear in the number of classes. For UniformFace at most 2²² classes.
    pub fn regularizer(regularizer: &Regularizer, shape: Shape, element: Element, limits: &Limits) -> Result<Plan> {
        regularizer.validate()?;
        if shape.sub_centers() > 1 {
            let why = "a regulariser knows one prototype per class";
            return Err(Error::Combination { what: "sub_centers", why });
        }
        let shape = Shape::new(1, shape.classes(), shape.dim())?;
        let w = element.loader("prototypes", shape.dim(), limits)?;
        let values = shape.prototypes()? as u64;
        indexable("classes · dim", values)?;
        let mut b = Builder::new(limits, 1, shape)?;
        let (classes, groups) = (shape.classes() as u64, shape.classes().div_ceil(64) as u64);
        let prototypes = b.given(TensorRole::Prototypes(0), values * element.bytes())?;
        let gradient = b.given(TensorRole::GradPrototypes(0), values * 4)?;
        let value = b.given(TensorRole::Loss, 4)?;
        let class = b.classes(classes)?;
        let totals = b.totals(groups)?;
        let batch = b.batch(1)?;
        let all = StepConstants::over(shape.classes());
        let mut steps = vec![
            b.step(&k::class_norms(w, false), all, Grid::fixed(groups), &[prototypes, class, totals])?,
            b.step(
                &k::class_totals(),
                StepConstants { count: groups as u32, ..all },
                Grid::fixed(1),
                &[batch, totals],
            )?,
        ];
        let common = Common { shape, w, prototypes, class, batch, gradient, value, all };
        match regularizer {
            Regularizer::RegSs { .. } => common.mean(&mut b, &mut steps)?,
            Regularizer::UniformFace { .. } => common.pairs(&mut b, &mut steps, limits)?,
        }
        Ok(finish(b, shape, [Element::F32, element], steps))
    }

    /// The center loss of `shape.rows()` embeddings of this element around f32 centers, which are given as
    /// [`TensorRole::Prototypes`]`(0)`.
    pub fn center_loss(loss: &CenterLoss, shape: Shape, embeddings: Element, limits: &Limits) -> Result<Plan> {
        let mut center = Centers::new(loss, shape, embeddings, limits, MAX_CENTER_LOSS_ROWS)?;
        let Centers { b, x, c, part, grid, buffers: [embeddings_at, centers, labels, states, squares], steps } =
            &mut center;
        let gradient = b.given(TensorRole::GradEmbeddings, shape.embeddings() as u64 * 4)?;
        let value = b.given(TensorRole::Loss, 4)?;
        let gain = b.workspace("gain", 4)?;
        steps.push(b.step(&k::center_loss(), *part, Grid::fixed(1), &[*states, *squares, gain, value])?);
        let given = [*embeddings_at, *centers, *labels, *states, gain, gradient];
        steps.push(b.step(&k::center_gradient(*x, *c), *part, *grid, &given)?);
        Ok(finish(center.b, shape, [embeddings, Element::F32], center.steps))
    }

    /// One move of the centers, in place; at most 32,768 rows.
    pub fn center_update(loss: &CenterLoss, shape: Shape, embeddings: Element, limits: &Limits) -> Result<Plan> {
        let mut center = Centers::new(loss, shape, embeddings, limits, MAX_CENTER_UPDATE_ROWS)?;
        let Centers { b, x, part, buffers: [embeddings_at, centers, labels, states, _], steps, .. } = &mut center;
        let grid = Grid::over_rows(1, (shape.dim() as u64).div_ceil(256));
        steps.push(b.step(&k::center_update(*x), *part, grid, &[*embeddings_at, *labels, *states, *centers])?);
        Ok(finish(center.b, shape, [embeddings, Element::F32], center.steps))
    }
}

/// The buffers that both regularisers use.
struct Common {
    shape: Shape,
    w: Loader,
    prototypes: usize,
    class: usize,
    batch: usize,
    gradient: usize,
    value: usize,
    all: StepConstants,
}

impl Common {
    fn mean(&self, b: &mut Builder, steps: &mut Vec<Step>) -> Result<()> {
        let Self { w, prototypes, class, batch, gradient, value, .. } = *self;
        let (classes, quads) = (self.shape.classes(), self.shape.dim().div_ceil(4) as u64);
        // enough blocks to fill a device, each short enough for one loop
        let blocks = classes.div_ceil(64).min(1024).max(classes.div_ceil(49_152));
        let span = classes.div_ceil(blocks);
        // every block has a class
        let blocks = classes.div_ceil(span);
        let part = StepConstants { slots: blocks as u32, slot_span: span as u32, ..self.all };
        let sums = b.workspace("sums", blocks as u64 * quads * 16)?;
        let mean = b.workspace("mean", quads * 16)?;
        let grid = Grid::fixed(blocks as u64 * quads.div_ceil(64));
        steps.push(b.step(&k::direction_sums(w), part, grid, &[prototypes, class, sums])?);
        steps.push(b.step(&k::mean_direction(), part, Grid::fixed(1), &[sums, batch, mean, value])?);
        let grid = Grid::fixed(classes.div_ceil(8) as u64);
        let kernel = k::mean_gradient(w, Loader::plain(self.shape.dim()));
        steps.push(b.step(&kernel, part, grid, &[prototypes, class, mean, gradient])?);
        Ok(())
    }

    fn pairs(&self, b: &mut Builder, steps: &mut Vec<Step>, limits: &Limits) -> Result<()> {
        let Self { w, prototypes, class, batch, gradient, value, .. } = *self;
        let (classes, dim) = (self.shape.classes(), self.shape.dim());
        at_most("classes of UniformFace on a GPU", classes as u64, MAX_PAIRED_CLASSES as u64)?;
        let stride = classes.next_multiple_of(4);
        let mut rows = BLOCK.min(classes.next_multiple_of(PAIRS));
        while rows > PAIRS && (rows * stride) as u64 * 4 > limits.tightest().1 {
            rows -= PAIRS;
        }
        let wide = dim.div_ceil(PAIRS);
        // enough workgroups to fill a device, no loop with too many iterations
        let most = (1024 / (rows.div_ceil(PAIRS) * wide)).clamp(1, 16).min(classes.div_ceil(256));
        let splits = most.max(classes.div_ceil(PAIRS_PER_SPLIT));
        let span = classes.div_ceil(splits).next_multiple_of(4);
        let slab = (rows * dim.next_multiple_of(4)) as u64 * 4;
        let distances = b.workspace("distances", (rows * stride) as u64 * 4)?;
        let slabs = b.workspace("slabs", splits as u64 * slab)?;
        let sums = b.per_row("sums", classes as u64)?;
        let kernels = [k::pair_distances(w), k::pair_pulls(w), k::pair_gradient(w, Loader::plain(dim))];
        for first in (0..classes).step_by(rows) {
            let count = rows.min(classes - first);
            let part = StepConstants {
                stride: stride as u32,
                splits: splits as u32,
                split_span: span as u32,
                row_first: first as u32,
                row_count: count as u32,
                ..self.all
            };
            let high = count.div_ceil(PAIRS);
            let grid = Grid::fixed((high * classes.div_ceil(PAIRS)) as u64);
            steps.push(b.step(&kernels[0], part, grid, &[prototypes, class, distances])?);
            let grid = Grid::fixed((high * wide * splits) as u64);
            steps.push(b.step(&kernels[1], part, grid, &[prototypes, class, distances, slabs])?);
            let buffers = [prototypes, class, batch, distances, slabs, sums, gradient];
            steps.push(b.step(&kernels[2], part, Grid::fixed(count as u64), &buffers)?);
        }
        steps.push(b.step(&k::pair_value(), self.all, Grid::fixed(1), &[sums, batch, value])?);
        Ok(())
    }
}

/// The buffers that both plans of the center loss use.
struct Centers {
    b: Builder,
    x: Loader,
    c: Loader,
    part: StepConstants,
    /// Eight rows per workgroup.
    grid: Grid,
    /// embeddings, centers, labels, states, squares
    buffers: [usize; 5],
    steps: Vec<Step>,
}

impl Centers {
    fn new(loss: &CenterLoss, shape: Shape, embeddings: Element, limits: &Limits, most: usize) -> Result<Self> {
        loss.validate()?;
        let (rows, values) = (shape.rows() as u64, shape.prototypes()? as u64);
        if rows == 0 {
            return Err(Error::Zero { what: "rows" });
        }
        at_most("rows of a center loss on a GPU", rows, most as u64)?;
        indexable("classes · dim", values)?;
        let (x, c) = (embeddings.loader("embeddings", shape.dim(), limits)?, Loader::plain(shape.dim()));
        let mut b = Builder::new(limits, shape.rows(), shape)?;
        let given = b.given(TensorRole::Embeddings, shape.embeddings() as u64 * embeddings.bytes())?;
        let centers = b.given(TensorRole::Prototypes(0), values * 4)?;
        let labels = b.given(TensorRole::Labels, rows * 4)?;
        let states = b.per_row("states", rows)?;
        let squares = b.per_row("squares", rows)?;
        let part = StepConstants::over(shape.classes());
        let grid = Grid::over_rows(8, 1);
        let buffers = [given, centers, labels, states, squares];
        let steps = vec![b.step(&k::center_rows(x, c), part, grid, &buffers)?];
        Ok(Self { b, x, c, part, grid, buffers, steps })
    }
}

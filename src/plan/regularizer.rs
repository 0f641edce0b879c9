//! Plans of the regularisers and of the center loss, with kernels of their own.

use super::{
    Element, Grid, Limits, Loader, Part, Plan, Slot, Step,
    builder::Builder,
    driver_limits::{
        MAX_CENTER_LOSS_ROWS, MAX_CENTER_UPDATE_ROWS, MAX_PAIRED_CLASSES, PAIRS_PER_SPLIT, at_most, indexable,
    },
    kernel::{Kernel, Recipe},
};
use crate::{CenterLoss, Error, MarginSoftmax, Regularizer, Result, Shape, Tile};

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!("../../shaders/", $name, ".wgsl"))
    };
}

/// Rows of distances that are held at once: 1 KiB per class.
const BLOCK: usize = 256;
/// Rows and columns of one workgroup of the pair kernels.
const PAIRS: usize = 32;

fn prototype_lengths(w: Loader) -> Kernel {
    let recipe = Recipe::new("prototype_lengths", "rww", shader!("prototype_lengths"));
    recipe.part(shader!("common/norms")).part(shader!("common/measure")).load("prototype", 0, w).kernel()
}

fn prototype_totals() -> Kernel {
    Recipe::new("prototype_totals", "rw", shader!("prototype_totals")).kernel()
}

fn direction_sums(w: Loader) -> Kernel {
    Recipe::new("direction_sums", "rrw", shader!("direction_sums")).load("prototype", 0, w).kernel()
}

fn mean_direction() -> Kernel {
    Recipe::new("mean_direction", "rrww", shader!("mean_direction")).kernel()
}

fn mean_gradient(w: Loader, out: Loader) -> Kernel {
    let recipe = Recipe::new("mean_gradient", "rrrw", shader!("mean_gradient")).part(shader!("common/norms"));
    recipe.load("prototype", 0, w).store("store_gradient", 3, out).kernel()
}

fn pair_distances(w: Loader) -> Kernel {
    Recipe::new("pair_distances", "rrw", shader!("pair_distances")).load("prototype", 0, w).kernel()
}

fn pair_pulls(w: Loader) -> Kernel {
    Recipe::new("pair_pulls", "rrrw", shader!("pair_pulls")).load("prototype", 0, w).kernel()
}

fn pair_gradient(w: Loader, out: Loader) -> Kernel {
    let recipe = Recipe::new("pair_gradient", "rrrrwww", shader!("pair_gradient"));
    recipe.load("prototype", 0, w).store("store_gradient", 6, out).kernel()
}

fn pair_value() -> Kernel {
    Recipe::new("pair_value", "rrw", shader!("pair_value")).kernel()
}

fn center_rows(x: Loader, c: Loader) -> Kernel {
    let recipe = Recipe::new("center_rows", "rrrww", shader!("center_rows")).part(shader!("common/norms"));
    recipe.load("embedding", 0, x).load("center", 1, c).kernel()
}

fn center_loss() -> Kernel {
    Recipe::new("center_loss", "rrww", shader!("center_loss")).kernel()
}

fn center_gradient(x: Loader, c: Loader) -> Kernel {
    let recipe = Recipe::new("center_gradient", "rrrrrw", shader!("center_gradient"));
    recipe.load("embedding", 0, x).load("center", 1, c).store("store_gradient", 5, c).kernel()
}

fn center_update(x: Loader) -> Kernel {
    Recipe::new("center_update", "rrrw", shader!("center_update")).load("embedding", 0, x).kernel()
}

/// Every kernel of this file in every variant, for the shader tests.
pub(super) fn all() -> Vec<(String, Kernel)> {
    let mut list = vec![];
    let mut add = |variant: String, kernel: Kernel| list.push((format!("{} [{variant}]", kernel.name), kernel));
    for kernel in [prototype_totals(), mean_direction(), pair_value(), center_loss()] {
        add("-".into(), kernel);
    }
    for &v in Loader::ALL {
        for kernel in [prototype_lengths(v), direction_sums(v), pair_distances(v), pair_pulls(v), center_update(v)] {
            add(format!("{v:?}"), kernel);
        }
        for out in [Loader::F32x4, Loader::F32] {
            for kernel in [mean_gradient(v, out), pair_gradient(v, out), center_rows(v, out), center_gradient(v, out)] {
                add(format!("{v:?} {out:?}"), kernel);
            }
        }
    }
    list
}

impl Regularizer {
    /// A loss whose settings carry the weight: [`Plan::settings`] takes it for a [`Plan::regularizer`].
    pub fn settings_loss(&self) -> MarginSoftmax {
        carrier(self.weight(), None)
    }
}

impl CenterLoss {
    /// A loss whose settings carry weight and ignore index: [`Plan::settings`] takes it for a [`Plan::center_loss`].
    pub fn settings_loss(&self) -> MarginSoftmax {
        carrier(self.weight, self.ignore_index)
    }

    /// The same with the rate instead of the weight, for a [`Plan::center_update`].
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
    /// [`Slot::Loss`], its gradient into [`Slot::GradPrototypes`]`(0)`, or onto what is there (`Call::accumulate`).
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
        let prototypes = b.given(Slot::Prototypes(0), values * element.bytes())?;
        let gradient = b.given(Slot::GradPrototypes(0), values * 4)?;
        let value = b.given(Slot::Loss, 4)?;
        let inverses = b.per_row("inverses", classes)?;
        let bad = b.per_row("bad", groups)?;
        let total = b.workspace("total", 4)?;
        let all = Part { count: classes as u32, ..Part::default() };
        let mut steps = vec![
            b.step(&prototype_lengths(w), all, Grid::fixed(groups), &[prototypes, inverses, bad])?,
            b.step(&prototype_totals(), all, Grid::fixed(1), &[bad, total])?,
        ];
        let common = Common { shape, w, prototypes, inverses, total, gradient, value, all };
        match regularizer {
            Regularizer::RegSs { .. } => common.mean(&mut b, &mut steps)?,
            Regularizer::UniformFace { .. } => common.pairs(&mut b, &mut steps, limits)?,
        }
        Ok(finish(b, shape, [Element::F32, element], steps))
    }

    /// The center loss of `shape.rows()` embeddings of this element around f32 centres, which are given as
    /// [`Slot::Prototypes`]`(0)`.
    pub fn center_loss(loss: &CenterLoss, shape: Shape, embeddings: Element, limits: &Limits) -> Result<Plan> {
        let mut center = Centers::new(loss, shape, embeddings, limits, MAX_CENTER_LOSS_ROWS)?;
        let Centers { b, x, c, part, grid, buffers: [embeddings_at, centers, labels, states, squares], steps } =
            &mut center;
        let gradient = b.given(Slot::GradEmbeddings, shape.embeddings() as u64 * 4)?;
        let value = b.given(Slot::Loss, 4)?;
        let gain = b.workspace("gain", 4)?;
        steps.push(b.step(&center_loss(), *part, Grid::fixed(1), &[*states, *squares, gain, value])?);
        let given = [*embeddings_at, *centers, *labels, *states, gain, gradient];
        steps.push(b.step(&center_gradient(*x, *c), *part, *grid, &given)?);
        Ok(finish(center.b, shape, [embeddings, Element::F32], center.steps))
    }

    /// One move of the centres, in place; at most 32,768 rows.
    pub fn center_update(loss: &CenterLoss, shape: Shape, embeddings: Element, limits: &Limits) -> Result<Plan> {
        let mut center = Centers::new(loss, shape, embeddings, limits, MAX_CENTER_UPDATE_ROWS)?;
        let Centers { b, x, part, buffers: [embeddings_at, centers, labels, states, _], steps, .. } = &mut center;
        let grid = Grid::over_rows(1, (shape.dim() as u64).div_ceil(256));
        steps.push(b.step(&center_update(*x), *part, grid, &[*embeddings_at, *labels, *states, *centers])?);
        Ok(finish(center.b, shape, [embeddings, Element::F32], center.steps))
    }
}

/// The buffers that both regularisers use.
struct Common {
    shape: Shape,
    w: Loader,
    prototypes: usize,
    inverses: usize,
    total: usize,
    gradient: usize,
    value: usize,
    all: Part,
}

impl Common {
    fn mean(&self, b: &mut Builder, steps: &mut Vec<Step>) -> Result<()> {
        let Self { w, prototypes, inverses, total, gradient, value, .. } = *self;
        let (classes, quads) = (self.shape.classes(), self.shape.dim().div_ceil(4) as u64);
        // enough blocks to fill a device, each short enough for one loop
        let blocks = classes.div_ceil(64).min(1024).max(classes.div_ceil(49_152));
        let span = classes.div_ceil(blocks);
        let part = Part { splits: blocks as u32, split_span: span as u32, ..self.all };
        let sums = b.workspace("sums", blocks as u64 * quads * 16)?;
        let mean = b.workspace("mean", quads * 16)?;
        let grid = Grid::fixed(blocks as u64 * quads.div_ceil(64));
        steps.push(b.step(&direction_sums(w), part, grid, &[prototypes, inverses, sums])?);
        steps.push(b.step(&mean_direction(), part, Grid::fixed(1), &[sums, total, mean, value])?);
        let grid = Grid::fixed(classes.div_ceil(8) as u64);
        let kernel = mean_gradient(w, Loader::plain(self.shape.dim()));
        steps.push(b.step(&kernel, part, grid, &[prototypes, inverses, mean, gradient])?);
        Ok(())
    }

    fn pairs(&self, b: &mut Builder, steps: &mut Vec<Step>, limits: &Limits) -> Result<()> {
        let Self { w, prototypes, inverses, total, gradient, value, .. } = *self;
        let (classes, dim) = (self.shape.classes(), self.shape.dim());
        at_most("classes of UniformFace on a GPU", classes as u64, MAX_PAIRED_CLASSES as u64)?;
        let stride = classes.next_multiple_of(4);
        let mut rows = BLOCK.min(classes.next_multiple_of(PAIRS));
        while rows > PAIRS && (rows * stride) as u64 * 4 > limits.tightest().1 {
            rows -= PAIRS;
        }
        let wide = dim.div_ceil(PAIRS);
        // enough workgroups to fill a device, no loop with too many turns
        let most = (1024 / (rows.div_ceil(PAIRS) * wide)).clamp(1, 16).min(classes.div_ceil(256));
        let splits = most.max(classes.div_ceil(PAIRS_PER_SPLIT));
        let span = classes.div_ceil(splits).next_multiple_of(4);
        let slab = (rows * dim.next_multiple_of(4)) as u64 * 4;
        let distances = b.workspace("distances", (rows * stride) as u64 * 4)?;
        let slabs = b.workspace("slabs", splits as u64 * slab)?;
        let sums = b.per_row("sums", classes as u64)?;
        let kernels = [pair_distances(w), pair_pulls(w), pair_gradient(w, Loader::plain(dim))];
        for first in (0..classes).step_by(rows) {
            let count = rows.min(classes - first);
            let part = Part {
                stride: stride as u32,
                splits: splits as u32,
                split_span: span as u32,
                row_first: first as u32,
                row_count: count as u32,
                ..self.all
            };
            let high = count.div_ceil(PAIRS);
            let grid = Grid::fixed((high * classes.div_ceil(PAIRS)) as u64);
            steps.push(b.step(&kernels[0], part, grid, &[prototypes, inverses, distances])?);
            let grid = Grid::fixed((high * wide * splits) as u64);
            steps.push(b.step(&kernels[1], part, grid, &[prototypes, inverses, distances, slabs])?);
            let buffers = [prototypes, inverses, total, distances, slabs, sums, gradient];
            steps.push(b.step(&kernels[2], part, Grid::fixed(count as u64), &buffers)?);
        }
        steps.push(b.step(&pair_value(), self.all, Grid::fixed(1), &[sums, total, value])?);
        Ok(())
    }
}

/// The buffers that both plans of the center loss use.
struct Centers {
    b: Builder,
    x: Loader,
    c: Loader,
    part: Part,
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
        let given = b.given(Slot::Embeddings, shape.embeddings() as u64 * embeddings.bytes())?;
        let centers = b.given(Slot::Prototypes(0), values * 4)?;
        let labels = b.given(Slot::Labels, rows * 4)?;
        let states = b.per_row("states", rows)?;
        let squares = b.per_row("squares", rows)?;
        let part = Part { count: shape.classes() as u32, ..Part::default() };
        let grid = Grid::over_rows(8, 1);
        let buffers = [given, centers, labels, states, squares];
        let steps = vec![b.step(&center_rows(x, c), part, grid, &buffers)?];
        Ok(Self { b, x, c, part, grid, buffers, steps })
    }
}

//! Matrix units: found on a device of the caller's, and tried before a plan relies on them.

use super::{Context, Tensor, bound::Bound};
use crate::{
    Error, MarginSoftmax, Result, Shape, Tile,
    plan::{Batched, Call, Element, Limits, MatrixUnits, Plan, TensorRole},
};

/// The features that a device must have been opened with.
const FEATURES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);

/// The most that two f32 products may differ, in units of a line's largest value. Each is off by up to 6e-7 at 512 terms of
/// unit vectors; sums that are rounded towards zero are off by 5e-6, operands of one f16 by 7e-5.
const TOLERANCE: f32 = 2e-6;

impl Context {
    /// Finds matrix units that a tile is made for, and tries them: products of wide-ranging values beside those of
    /// [`Tile::Tile64`]. Where the two agree to the precision of f32, [`limits`](Self::limits) has them as `matrix_units`
    /// from then on, for all clones of this context, and plans may take the tile. `None`: there are none, or they compute
    /// otherwise. Call it once, before the first head; it compiles six kernels and takes milliseconds on a GPU.
    ///
    /// The device must have been opened with `SHADER_F16` and the experimental feature `EXPERIMENTAL_COOPERATIVE_MATRIX`,
    /// which takes unsafe code and so is the caller's to do; without them the answer is `None`. `adapter` is the one that
    /// it was opened on: it knows the sizes of the units. [`Error::Combination`] refuses another one.
    ///
    /// Experimental, as wgpu's feature is.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn check_matrix_units(&self, adapter: &wgpu::Adapter) -> Result<Option<MatrixUnits>> {
        pollster::block_on(self.check_matrix_units_async(adapter))
    }

    /// The same without blocking.
    pub async fn check_matrix_units_async(&self, adapter: &wgpu::Adapter) -> Result<Option<MatrixUnits>> {
        if adapter.get_info() != self.device().adapter_info() {
            let why = "it is not the one that the device of this context was opened on";
            return Err(Error::Combination { what: "adapter", why });
        }
        if self.limits().matrix_units.is_none() && self.device().features().contains(FEATURES) {
            // the largest first
            for &tile in Tile::ALL.iter().rev().filter(|tile| tile.geometry().has_precise_units()) {
                let Some(units) = tile.geometry().units.filter(|&units| has(adapter, units)) else { continue };
                let limits = Limits { matrix_units: Some(units), ..*self.limits() };
                if tile.check(&limits).is_ok() && agrees(self, tile, &limits).await? {
                    self.set_checked(limits);
                    break;
                }
            }
        }
        Ok(self.limits().matrix_units)
    }
}

/// Whether an adapter reports units of this size, and one workgroup may be one subgroup.
fn has(adapter: &wgpu::Adapter, units: MatrixUnits) -> bool {
    let fits = |p: &wgpu::CooperativeMatrixProperties| {
        let types = [p.ab_type, p.cr_type] == [wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32];
        types && [p.m_size, p.n_size, p.k_size] == [units.size; 3]
    };
    let info = adapter.get_info();
    (info.subgroup_min_size..=info.subgroup_max_size).contains(&units.lanes)
        && adapter.cooperative_matrix_properties().iter().any(fits)
}

/// Whether the three products agree with those of another tile.
async fn agrees(context: &Context, tile: Tile, limits: &Limits) -> Result<bool> {
    let trial = Trial::new(context, limits)?;
    for backward in [false, true] {
        let [found, expected] = [trial.products(tile, backward).await?, trial.products(Tile::Tile64, backward).await?];
        let close = |((found, expected), width): ((&Vec<f32>, &Vec<f32>), usize)| {
            found.chunks(width).zip(expected.chunks(width)).all(|(found, expected)| {
                let largest = expected.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= TOLERANCE * largest)
            })
        };
        let width = if backward { trial.shape.dim() } else { trial.shape.classes() };
        if !found.iter().zip(&expected).map(|pair| (pair, width)).all(close) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Inputs of the products.
struct Trial<'a> {
    context: &'a Context,
    limits: &'a Limits,
    shape: Shape,
    embeddings: Tensor,
    prototypes: Tensor,
    cosines: Tensor,
    grad_cosines: Tensor,
}

impl<'a> Trial<'a> {
    /// More rows and classes than a tile has, in no multiple of it. Every third row lies along its class, where rounding
    /// towards zero adds up; lengths and gradients range over many powers of ten from line to line, values within a line too.
    fn new(context: &'a Context, limits: &'a Limits) -> Result<Self> {
        let (n, c, d) = (70, 150, 512);
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut range = |i: usize, j: usize| random() * 10_f32.powi(-((i % 5 + j % 7) as i32));
        let prototypes: Vec<f32> = (0..c * d).map(|i| range(i / d, i % d)).collect();
        let mut embeddings: Vec<f32> = (0..n * d).map(|i| range(i / d, i % d)).collect();
        let along = embeddings.chunks_mut(d).zip(prototypes.chunks(d)).step_by(3);
        along.for_each(|(x, w)| x.copy_from_slice(w));
        let gradients: Vec<f32> = (0..n * c).map(|i| range(i / c, i % c)).collect();
        Ok(Self {
            context,
            limits,
            shape: Shape::new(n, c, d)?,
            embeddings: Tensor::upload(context, &[n, d], &embeddings)?,
            prototypes: Tensor::upload(context, &[c, d], &prototypes)?,
            cosines: Tensor::empty(context, &[n, c], Element::F32)?,
            grad_cosines: Tensor::upload(context, &[n, c], &gradients)?,
        })
    }

    /// The cosines, or both gradients from them.
    async fn products(&self, tile: Tile, backward: bool) -> Result<Vec<Vec<f32>>> {
        let context = self.context;
        let sizes = Batched::new(1, self.shape, [Element::F32; 2])?;
        let plan = Plan::cosine(sizes, self.limits, tile, backward)?;
        let [grad_x, grad_w] = [&self.embeddings, &self.prototypes].map(Tensor::shape);
        let grads = [Tensor::empty(context, grad_x, Element::F32)?, Tensor::empty(context, grad_w, Element::F32)?];
        let mut given = vec![
            (TensorRole::Embeddings, &self.embeddings),
            (TensorRole::Prototypes(0), &self.prototypes),
            (TensorRole::Cosines, &self.cosines),
        ];
        if backward {
            given.push((TensorRole::GradCosines, &self.grad_cosines));
            given.push((TensorRole::GradEmbeddings, &grads[0]));
            given.push((TensorRole::GradPrototypes(0), &grads[1]));
        }
        context.try_submit(|encoder| {
            Bound::record_once(context, encoder, plan, &given, &MarginSoftmax::default(), Call::default())
        })?;
        let mut found = vec![];
        for tensor in if backward { grads.as_slice() } else { std::slice::from_ref(&self.cosines) } {
            found.push(tensor.read_async(context).await?);
        }
        Ok(found)
    }
}

//! The plan that gathers the prototypes of sampled classes.

use super::{
    Element, Grid, Layout, Limits, Loader, Plan, StepConstants, TensorRole, builder::Builder, driver_limits::indexable,
    kernels as k,
};
use crate::{Error, MarginSoftmax, Result, Shape, Tile};

impl Plan {
    /// Gathers `shape.rows()` of `shape.classes()` prototypes: the classes in [`TensorRole::Labels`] from [`TensorRole::Prototypes`], one
    /// per shard of the layout, into [`TensorRole::GradPrototypes`]`(0)`, in f32.
    pub fn gather(shape: Shape, layout: &Layout<'_>, limits: &Limits) -> Result<Plan> {
        if shape.sub_centers() > 1 {
            let why = "a class with several prototypes is gathered as one vector of sub_centers · dim values";
            return Err(Error::Combination { what: "sub_centers", why });
        }
        if shape.rows() == 0 {
            return Err(Error::Zero { what: "classes" });
        }
        layout.check(shape.classes())?;
        let (rows, dim) = (shape.rows() as u64, shape.dim() as u64);
        let mut b = Builder::new(limits, shape.rows(), shape)?;
        let labels = b.given(TensorRole::Labels, rows * 4)?;
        let out = b.given(TensorRole::GradPrototypes(0), rows * dim * 4)?;
        let w = layout.prototypes.loader("prototypes", shape.dim(), limits)?;
        let kernel = k::gather_rows(w, Loader::plain(shape.dim()));
        let (mut steps, mut first) = (vec![], 0);
        for (i, &count) in layout.shards.iter().enumerate() {
            let values = crate::shape::elements(count, shape.dim());
            indexable("classes of a shard · dim", values)?;
            let data = b.given(TensorRole::Prototypes(i), values * layout.prototypes.bytes())?;
            let part = StepConstants { first: first as u32, begin: u32::from(i == 0), ..StepConstants::over(count) };
            steps.push(b.step(&kernel, part, Grid::over_rows(8, 1), &[data, labels, out])?);
            first += count;
        }
        let sizes = (shape, 1, [Element::F32, layout.prototypes]);
        Ok(b.single(&MarginSoftmax::default(), sizes, Tile::Direct, [steps, vec![]]))
    }
}

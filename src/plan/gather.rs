//! The plan that gathers the prototypes of sampled classes.

use super::{
    Builder, Element, Grid, Limits, Loader, Part, Plan, Schedule, Slot,
    kernel::{Kernel, Recipe},
    kernels::Snippets,
};
use crate::{Error, MarginSoftmax, Result, Shape, Tile};

fn gather_rows(w: Loader, out: Loader) -> Kernel {
    let recipe = Recipe::new("gather_rows", "rrw", include_str!("../../shaders/gather_rows.wgsl"));
    recipe.load("prototype", 0, w).store("store_vector", 2, out).kernel()
}

/// In every variant, for the shader tests.
pub(super) fn all() -> Vec<(String, Kernel)> {
    let stores = [Loader::F32x4, Loader::F32];
    let pairs = Loader::ALL.iter().flat_map(|&w| stores.map(|out| (w, out)));
    pairs.map(|(w, out)| (format!("gather_rows [{w:?} {out:?}]"), gather_rows(w, out))).collect()
}

impl Plan {
    /// Gathers `shape.rows()` of `shape.classes()` prototypes: the classes in [`Slot::Labels`] from [`Slot::Prototypes`]`(0)`
    /// into [`Slot::GradPrototypes`]`(0)`, in f32.
    pub fn gather(shape: Shape, prototypes: Element, limits: &Limits) -> Result<Plan> {
        if shape.sub_centers() > 1 {
            let why = "a class with several prototypes is gathered as one vector of sub_centers · dim values";
            return Err(Error::Combination { what: "sub_centers", why });
        }
        if shape.rows() == 0 {
            return Err(Error::Zero { what: "classes" });
        }
        let (rows, classes, dim) = (shape.rows() as u64, shape.classes() as u64, shape.dim() as u64);
        let elements = classes.saturating_mul(dim);
        if elements >= crate::shape::MOST {
            let allowed = crate::shape::MOST - 1;
            return Err(Error::Size { what: "classes of a shard · dim", needed: elements, allowed });
        }
        let mut b = Builder::new(limits, shape.rows(), shape)?;
        let data = b.given(Slot::Prototypes(0), elements * prototypes.bytes())?;
        let labels = b.given(Slot::Labels, rows * 4)?;
        let out = b.given(Slot::GradPrototypes(0), rows * dim * 4)?;
        let kernel = gather_rows(prototypes.loader("prototypes", shape.dim(), limits)?, Loader::plain(shape.dim()));
        let step = b.step(&kernel, Part::default(), Grid::over_rows(8, 1), &[data, labels, out])?;
        let schedule = Schedule::single(Tile::Direct, shape.classes());
        let snippets = Snippets::of(&MarginSoftmax::default(), shape);
        let sizes = (shape, 0..shape.classes(), 1, [Element::F32, prototypes]);
        Ok(b.plan(sizes, snippets, schedule, [vec![step], vec![], vec![], vec![], vec![]]))
    }
}

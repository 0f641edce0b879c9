//! What one range of class tiles does: look at the raw cosines, gather statistics, make gradients.

use pulp::Arch;

use super::{
    product::{Matrix, product, spaced_product},
    rows::{Extra, Partial, Row},
    sparse::{Gather, Lists, Sift, Sifted},
    sweep::{Block, Gradients, Statistics},
    table::{self, Scan, Scratch, Table},
    vector::{Add, Aligned, Normalize, Plain, Project},
    work::Plan,
};
use crate::objective::{
    SHORTEST,
    others::{Identity, Rectified},
};

/// Which sweeps a loss takes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Path {
    /// The cosines as they are; *keep* then stores exp(z) in their place.
    Identity,
    Rectified,
    /// Every other.
    Table,
}

/// The scratch of one range, and what it counted.
pub(super) struct Lane {
    /// Ŵ of a tile, and the lengths of its prototypes: the first of every class, then the second of every class, ...
    pub directions: Aligned,
    pub lengths: Vec<f64>,
    /// \[rows of a block, prototypes of a tile\] in *recompute*.
    pub cosines: Vec<f32>,
    pub scratch: Scratch,
    /// What a filter leaves of G.
    pub lists: Lists,
    pub zero: usize,
    pub non_finite: usize,
}

/// One range of class tiles with everything that belongs to it alone.
pub(super) struct Task<'a> {
    /// The first class among all.
    pub first: usize,
    pub prototypes: &'a [f32],
    /// Of a linear head, one per class; else empty.
    pub bias: &'a [f32],
    pub lane: &'a mut Lane,
    pub partials: &'a mut [Partial],
    pub kept: &'a mut [f32],
    pub most: &'a mut [f32],
    pub top: &'a mut [(f32, u32)],
    pub share: &'a mut [f32],
    pub grad: &'a mut [f32],
    pub grad_bias: &'a mut [f32],
}

/// What all ranges read.
pub(super) struct Common<'a> {
    pub plan: Plan,
    pub path: Path,
    pub table: Table,
    /// Plain products of vectors as they are.
    pub linear: bool,
    pub scale: f32,
    pub directions: &'a [f32],
    pub rows: &'a [Row],
    pub extras: &'a [Extra],
    /// Class weights and their stand-in, with label smoothing.
    pub weights: Option<(Option<&'a [f32]>, &'a [f32])>,
}

/// What is looked at before the passes.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// How many of the largest cosines of a row.
    pub top: usize,
    /// The sums of exp(scale·c).
    pub sums: bool,
}

/// The first `len` values, taken off; fewer where there are no more.
pub(super) fn front<'a, T>(rest: &mut &'a mut [T], len: usize) -> &'a mut [T] {
    rest.split_off_mut(..len.min(rest.len())).unwrap_or_default()
}

impl Task<'_> {
    /// Counts prototypes, and looks at the raw cosines where that is asked for; *keep* then holds them.
    pub fn scan(self, look: Look, common: &Common<'_>) {
        let Plan { arch, layout, dim, .. } = common.plan;
        let (lane, centers) = (self.lane, common.table.centers);
        self.partials.fill(Partial::EMPTY);
        self.top.fill((f32::NEG_INFINITY, u32::MAX));
        (lane.zero, lane.non_finite) = (0, 0);
        let mut kept = self.kept;
        for (t, prototypes) in self.prototypes.chunks(layout.tile * dim).enumerate() {
            lane.load(common, prototypes);
            lane.count(common, prototypes);
            if look.top == 0 && !look.sums {
                continue;
            }
            let columns = prototypes.len() / dim;
            let (offset, width) = (t * layout.tile_classes(), columns / centers);
            for (b, rows) in common.rows.chunks(layout.block).enumerate() {
                let at = b * layout.block;
                let values = match layout.keep {
                    true => front(&mut kept, rows.len() * columns),
                    false => &mut lane.cosines[..rows.len() * columns],
                };
                common.products(values, at, (&lane.directions, columns), front_of(self.bias, offset, width));
                let block =
                    Block { values, rows, first: self.first + offset, width, scale: common.scale, weights: None };
                let partials = look.sums.then_some(&mut self.partials[at..at + rows.len()]);
                let top = &mut self.top[at * look.top..(at + rows.len()) * look.top];
                arch.dispatch(Scan { centers, block, scratch: &mut lane.scratch, partials, top, count: look.top });
            }
        }
    }

    /// Pass 1: the rows' statistics over the other classes of this range. `ready`: what is kept are cosines already.
    pub fn statistics(self, ready: bool, common: &Common<'_>) {
        let Common { plan: Plan { arch, layout, dim, .. }, scale, ref table, .. } = *common;
        let lane = self.lane;
        self.partials.fill(Partial::EMPTY);
        if !ready {
            (lane.zero, lane.non_finite) = (0, 0);
        }
        let (mut kept, mut most) = (self.kept, self.most);
        for (t, prototypes) in self.prototypes.chunks(layout.tile * dim).enumerate() {
            let columns = prototypes.len() / dim;
            let (offset, width) = (t * layout.tile_classes(), columns / table.centers);
            let first = self.first + offset;
            if !ready {
                lane.load(common, prototypes);
                lane.count(common, prototypes);
            }
            for (b, rows) in common.rows.chunks(layout.block).enumerate() {
                let at = b * layout.block;
                let (values, most) = match layout.keep {
                    true => (front(&mut kept, rows.len() * columns), front(&mut most, rows.len())),
                    false => (&mut lane.cosines[..rows.len() * columns], &mut [][..]),
                };
                if !ready {
                    common.products(values, at, (&lane.directions, columns), front_of(self.bias, offset, width));
                }
                let block = Block { values, rows, first, width, scale, weights: common.weights_of(first, width) };
                let partials = &mut self.partials[at..at + rows.len()];
                match common.path {
                    Path::Identity if layout.keep => {
                        arch.dispatch(Statistics::<_, true> { others: Identity, block, partials, most });
                    }
                    Path::Identity => {
                        arch.dispatch(Statistics::<_, false> { others: Identity, block, partials, most });
                    }
                    Path::Rectified => {
                        arch.dispatch(Statistics::<_, false> { others: Rectified, block, partials, most });
                    }
                    Path::Table => {
                        let (extras, scratch) = (&common.extras[at..], &mut lane.scratch);
                        arch.dispatch(table::Statistics { table, block, extras, scratch, partials });
                    }
                }
            }
        }
    }

    /// Pass 2: this range's share of dX, and its dW and db. `fresh`: nothing of pass 1 is there any more.
    pub fn gradients(self, fresh: bool, common: &Common<'_>) {
        let Common { plan: Plan { arch, layout, want, filter, dim }, scale, ref table, .. } = *common;
        let lane = self.lane;
        let (mut kept, mut most) = (self.kept, self.most);
        let (mut grad, mut grad_bias) = (self.grad, self.grad_bias);
        lane.lists.sifted = Sifted::default();
        for (t, prototypes) in self.prototypes.chunks(layout.tile * dim).enumerate() {
            let columns = prototypes.len() / dim;
            let (offset, width) = (t * layout.tile_classes(), columns / table.centers);
            let first = self.first + offset;
            lane.load(common, prototypes);
            let pull = front(&mut grad, columns * dim);
            let slide = front(&mut grad_bias, width);
            for (b, rows) in common.rows.chunks(layout.block).enumerate() {
                let at = b * layout.block;
                let x = Matrix::new(&common.directions[at * dim..], rows.len(), dim);
                let w = Matrix::new(&lane.directions, columns, dim);
                let (values, most) = match layout.keep {
                    true => (front(&mut kept, rows.len() * columns), front(&mut most, rows.len())),
                    false => (&mut lane.cosines[..rows.len() * columns], &mut [][..]),
                };
                if fresh || !layout.keep {
                    common.products(values, at, (&lane.directions, columns), front_of(self.bias, offset, width));
                }
                let weights = common.weights_of(first, width);
                let block = Block { values: &mut *values, rows, first, width, scale, weights };
                match common.path {
                    Path::Identity if layout.keep && !fresh => {
                        arch.dispatch(Gradients::<_, true> { others: Identity, block, most });
                    }
                    Path::Identity => arch.dispatch(Gradients::<_, false> { others: Identity, block, most }),
                    Path::Rectified => arch.dispatch(Gradients::<_, false> { others: Rectified, block, most }),
                    Path::Table => {
                        let (extras, scratch) = (&common.extras[at..], &mut lane.scratch);
                        arch.dispatch(table::Gradients { table, block, extras, scratch });
                    }
                }
                let lists = &mut lane.lists;
                let sparse = filter.is_some() && arch.dispatch(Sift { values: &mut *values, columns, rows, lists });
                let g = Matrix::new(values, rows.len(), columns);
                if want.grad_embeddings {
                    let share = &mut self.share[at * dim..];
                    if sparse {
                        let (starts, entries) = lane.lists.by_row(rows.len());
                        let from = &lane.directions[..];
                        arch.dispatch(Gather { starts, entries, from, dim, step: 1, to: share, add: t > 0 });
                    } else {
                        product(share, t > 0, g, w);
                    }
                }
                for k in (0..table.centers).filter(|_| want.grad_prototypes) {
                    let (first, step, add) = (k * width, table.centers, b > 0);
                    let to = &mut pull[k * dim..];
                    if sparse {
                        let (starts, entries) = lane.lists.by_column(columns);
                        let (starts, from) = (&starts[first..=first + width], &common.directions[at * dim..]);
                        arch.dispatch(Gather { starts, entries, from, dim, step, to, add });
                    } else {
                        spaced_product(to, step * dim, add, g.columns(first, width).transposed(), x);
                    }
                }
                if !slide.is_empty() {
                    if b == 0 {
                        slide.fill(0.0);
                    }
                    values.chunks_exact(width).for_each(|from| arch.dispatch(Add { from, to: slide }));
                }
            }
            if !common.linear {
                let units = lane.directions.chunks_exact(width * dim).zip(lane.lengths.chunks_exact(width));
                for (k, (unit, lengths)) in units.take(table.centers).enumerate().filter(|_| want.grad_prototypes) {
                    arch.dispatch(Project { pull: &mut pull[k * dim..], step: table.centers, unit, dim, lengths });
                }
            }
        }
    }
}

/// The part of a tile of what may be empty altogether.
fn front_of(all: &[f32], offset: usize, len: usize) -> &[f32] {
    if all.is_empty() { all } else { &all[offset..offset + len] }
}

impl Lane {
    /// Ŵ and the lengths of one tile.
    fn load(&mut self, common: &Common<'_>, prototypes: &[f32]) {
        let (dim, centers) = (common.plan.dim, common.table.centers);
        let width = prototypes.len() / dim / centers;
        let to = self.directions.chunks_exact_mut(width * dim).zip(self.lengths.chunks_exact_mut(width));
        for (k, (to, lengths)) in to.take(centers).enumerate() {
            let from = (&prototypes[k * dim..], dim, centers);
            directions(common.plan.arch, common.linear, from, to, lengths, false);
        }
    }

    /// What the lengths of the tile tell.
    fn count(&mut self, common: &Common<'_>, prototypes: &[f32]) {
        let lengths = &self.lengths[..prototypes.len() / common.plan.dim];
        if !common.linear {
            self.zero += lengths.iter().filter(|&&l| l < SHORTEST).count();
        }
        self.non_finite += lengths.iter().filter(|l| !l.is_finite()).count();
    }
}

/// Unit vectors, or for a linear head the vectors themselves, of every `step`-th one; and their lengths.
pub(super) fn directions(
    arch: Arch,
    linear: bool,
    (from, dim, step): (&[f32], usize, usize),
    to: &mut [f32],
    lengths: &mut [f64],
    exact: bool,
) {
    if linear {
        arch.dispatch(Plain { from, dim, step, to, lengths });
    } else {
        arch.dispatch(Normalize { from, dim, step, to, lengths, exact });
    }
}

impl<'a> Common<'a> {
    /// X̂ Ŵᵀ of a block of rows and a tile, with the tile's bias.
    fn products(&self, values: &mut [f32], at: usize, (directions, columns): (&[f32], usize), bias: &[f32]) {
        let dim = self.plan.dim;
        let x = Matrix::new(&self.directions[at * dim..], values.len() / columns, dim);
        product(values, false, x, Matrix::new(directions, columns, dim).transposed());
        if !bias.is_empty() {
            values.chunks_exact_mut(columns).for_each(|to| self.plan.arch.dispatch(Add { from: bias, to }));
        }
    }

    /// The weights of a tile's classes, with label smoothing.
    fn weights_of(&self, first: usize, width: usize) -> Option<&'a [f32]> {
        self.weights.map(|(given, ones)| given.map_or(&ones[..width], |w| &w[first..first + width]))
    }
}

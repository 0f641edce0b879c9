//! The products of a block of rows with a tile of classes: cosines, dX and dW.

use pulp::{Simd, WithSimd};

use super::{
    directions::Normalize,
    input::PassContext,
    matrix::Matrix,
    product::{SPACED, product, spaced_product},
    sparse::{Entry, List, SparseGradient},
    tiles::TileClasses,
    tiling::{Setup, Tiling},
    vector::AddTo,
    worker::BlockScratch,
};

impl PassContext<'_> {
    /// X̂ Wᵀ with its bias; X̂ Ŵᵀ if the prototypes are not ordinary. `at`: the first row, of the block that begins at `block`. Of
    /// some rows of a block each cosine is the same sum as of all.
    pub fn cosines(
        &self,
        values: &mut [f32],
        (block, at): (usize, usize),
        classes: TileClasses<'_>,
        (ordinary, scratch): (bool, &mut BlockScratch),
    ) {
        let Setup { arch, tiling: Tiling { dim, pieces, .. }, .. } = self.setup;
        let columns = classes.prototypes.len() / dim;
        let (rows, all) = (values.len() / columns, self.setup.tiling.block.min(self.rows.len() - block));
        let x = |first: usize, rows| Matrix::new(&self.directions[first * dim..], rows, dim);
        let BlockScratch { unit, narrow, .. } = scratch;
        self.for_each_matrix(classes.prototypes, (ordinary, unit), |column, w| {
            let few = if rows < all { pieces.few(w.rows) } else { 0 };
            let many = w.rows - few;
            spaced_product(
                pieces,
                &mut values[column..],
                columns,
                false,
                x(at, rows),
                w.part(0, 0, many, dim).transposed(),
            );
            if few > 0 {
                let w = w.part(many, 0, few, dim).transposed();
                spaced_product(pieces, narrow, SPACED, false, x(block, all), w);
                let from = narrow[(at - block) * SPACED..].chunks(SPACED);
                for (to, from) in values.chunks_exact_mut(columns).zip(from) {
                    to[column + many..][..few].copy_from_slice(&from[..few]);
                }
            }
        });
        if !classes.bias.is_empty() {
            values.chunks_exact_mut(columns).for_each(|to| arch.dispatch(AddTo { from: classes.bias, to }));
        }
    }

    /// So many columns of G Ŵ from the first one on into `grad`, or added to it; G as
    /// [`ClassTile::gradients`](super::tiles::ClassTile::gradients) leaves it.
    pub fn grad_embeddings(
        &self,
        (grad, add): (&mut [f32], bool),
        (first, count): (usize, usize),
        values: &[f32],
        prototypes: &[f32],
        with: (bool, &mut [f32]),
        lists: &mut SparseGradient,
    ) {
        let Setup { arch, tiling: Tiling { dim, centers, pieces, .. }, filter } = self.setup;
        let columns = prototypes.len() / dim;
        let rows = values.len() / columns;
        if filter.is_some() && with.0 && arch.dispatch(List { values, columns, centers, lists }) {
            let (starts, entries) = lists.by_row(rows);
            let to = &mut grad[..rows * dim];
            return arch.dispatch(Gather { starts, entries, from: prototypes, dim, step: 1, to, add });
        }
        let g = Matrix::new(values, rows, columns);
        self.for_each_matrix(prototypes, with, |column, w| {
            product(pieces, grad, add || column > 0, g.columns(column, w.rows), w.columns(first, count));
        });
    }

    /// Gᵀ X̂ into `grad`, or added to it; from the lists where there are some. `at`: the first row.
    pub fn grad_prototypes(
        &self,
        (grad, add): (&mut [f32], bool),
        values: &[f32],
        columns: usize,
        at: usize,
        lists: Option<&SparseGradient>,
    ) {
        let Setup { arch, tiling: Tiling { dim, centers, pieces, .. }, .. } = self.setup;
        let (width, rows) = (columns / centers, values.len() / columns);
        let from = &self.directions[at * dim..];
        for k in 0..centers {
            let (first, to) = (k * width, &mut grad[k * dim..]);
            if let Some(lists) = lists {
                let (starts, entries) = lists.by_column(columns);
                let starts = &starts[first..=first + width];
                arch.dispatch(Gather { starts, entries, from, dim, step: centers, to, add });
            } else {
                let g = Matrix::new(values, rows, columns).columns(first, width);
                spaced_product(pieces, to, centers * dim, add, g.transposed(), Matrix::new(from, rows, dim));
            }
        }
    }

    /// The prototypes of a tile as matrices, each with its place among the columns: as they are, or if they are not
    /// `ordinary` one direction at a time, made in `unit`.
    fn for_each_matrix(
        &self,
        prototypes: &[f32],
        (ordinary, unit): (bool, &mut [f32]),
        mut f: impl FnMut(usize, Matrix<'_>),
    ) {
        let Setup { arch, tiling: Tiling { dim, centers, .. }, .. } = self.setup;
        let apart = centers * dim;
        let width = prototypes.len() / apart;
        for k in 0..centers {
            let first = &prototypes[k * dim..];
            if ordinary {
                f(k * width, Matrix::spaced(first, width, dim, apart));
                continue;
            }
            for (j, from) in first.chunks(apart).enumerate() {
                let (from, lengths) = (&from[..dim], &mut [0.0]);
                arch.dispatch(Normalize { from, dim, to: &mut *unit, lengths, plain: self.linear, exact: false });
                f(k * width + j, Matrix::new(unit, 1, dim));
            }
        }
    }
}

/// Sums of listed vectors: `to`_i = Σ value · `from`_index over the entries of list i; of `to` every `step`-th row.
pub(super) struct Gather<'a> {
    pub starts: &'a [u32],
    pub entries: &'a [Entry],
    pub from: &'a [f32],
    pub dim: usize,
    pub step: usize,
    pub to: &'a mut [f32],
    /// Added to what `to` holds.
    pub add: bool,
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { starts, entries, from, dim, step, to, add } = self;
        let lanes = S::F32_LANES;
        for (to, ends) in to.chunks_mut(dim * step).zip(starts.windows(2)) {
            let to = &mut to[..dim];
            if !add {
                to.fill(0.0);
            }
            let list = &entries[ends[0] as usize..ends[1] as usize];
            if list.is_empty() {
                continue;
            }
            let mut at = 0;
            while at + 8 * lanes <= dim {
                panel::<S, 8>(simd, list, from, dim, at, to);
                at += 8 * lanes;
            }
            while at + 4 * lanes <= dim {
                panel::<S, 4>(simd, list, from, dim, at, to);
                at += 4 * lanes;
            }
            while at < dim {
                let end = dim.min(at + lanes);
                let mut sum = simd.partial_load_f32s(&to[at..end]);
                for &(index, value) in list {
                    let start = index as usize * dim;
                    let x = simd.partial_load_f32s(&from[start + at..start + end]);
                    sum = simd.mul_add_f32s(simd.splat_f32s(value), x, sum);
                }
                simd.partial_store_f32s(&mut to[at..end], sum);
                at = end;
            }
        }
    }
}

/// Some registers of the sum, from `at` on: they stay registers over the whole list.
#[inline(always)]
fn panel<S: Simd, const R: usize>(simd: S, list: &[Entry], from: &[f32], dim: usize, at: usize, to: &mut [f32]) {
    let width = R * S::F32_LANES;
    let (to, _) = S::as_mut_simd_f32s(&mut to[at..at + width]);
    let Ok(to) = <&mut [S::f32s; R]>::try_from(to) else { return };
    let mut sums = *to;
    for &(index, value) in list {
        let (x, _) = S::as_simd_f32s(&from[index as usize * dim + at..][..width]);
        let Ok(x) = <&[S::f32s; R]>::try_from(x) else { return };
        let value = simd.splat_f32s(value);
        for r in 0..R {
            sums[r] = simd.mul_add_f32s(value, x[r], sums[r]);
        }
    }
    *to = sums;
}

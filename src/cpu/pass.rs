//! The passes over the tiles of classes: a scan of the raw cosines, statistics, gradients.

use std::sync::{Mutex, OnceLock, PoisonError};

use pulp::Arch;

use super::{
    layout::Layout,
    product::{Matrix, product, spaced_product},
    rows::{Partial, Row, RowExtras},
    sparse::{Gather, List, Lists, Sift, Sifted},
    sweep::{Block, Gradients, Statistics},
    table::{self, Scan, Scratch, Table},
    total::{Total, Widen},
    vector::{Add, Measure, Normalize, Plain, Project, ScaleColumns},
    work::Setup,
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

/// The scratch of whoever works on a tile, and what a range counted.
pub(super) struct WorkerScratch {
    pub own: Prototypes,
    /// The direction of a prototype that is not ordinary.
    pub unit: Vec<f32>,
    /// \[rows of a block, prototypes of a tile\] in *recompute*.
    pub cosines: Vec<f32>,
    pub scratch: Scratch,
    /// The entries of G that a filter keeps.
    pub lists: Lists,
    /// Of dW, \[prototypes of a tile, D\], where that is a long sum.
    pub totals: Vec<f64>,
    /// Of the gradient of a tile's biases.
    pub slides: Vec<f64>,
    pub zero: usize,
    pub non_finite: usize,
}

/// Lengths and factors of a tile's prototypes: the first of every class, then the second of every class, ...
pub(super) struct Prototypes {
    pub lengths: Vec<f64>,
    /// Factors that make them unit vectors.
    pub factors: Vec<f32>,
    /// They stand in the products as they are, and columns of the cosines and of G are multiplied by the factors. Else a
    /// length is so large or small that each is brought to its direction first.
    pub ordinary: bool,
}

/// One tile of classes with everything that belongs to it alone.
pub(super) struct Tile<'a> {
    pub index: usize,
    /// The first class among all.
    pub first: usize,
    pub prototypes: &'a [f32],
    /// Of a linear head, one per class; else empty.
    pub bias: &'a [f32],
    /// \[N, prototypes of the tile\]: what survives pass 1 in *keep*, at last G.
    pub kept: &'a mut [f32],
    pub most: &'a mut [f32],
    pub grad: &'a mut [f32],
    pub grad_bias: &'a mut [f32],
}

/// Consecutive tiles.
pub(super) struct Tiles<'a> {
    pub layout: Layout,
    pub dim: usize,
    pub rows: usize,
    /// The part that is left.
    pub rest: Tile<'a>,
}

impl<'a> Tiles<'a> {
    /// So many tiles, taken off; fewer where there are no more.
    pub fn front(&mut self, tiles: usize) -> Tile<'a> {
        let (rest, layout) = (&mut self.rest, self.layout);
        let columns = (layout.tile * tiles).min(rest.prototypes.len() / self.dim);
        let classes = (layout.tile_classes() * tiles).min(columns);
        let tile = Tile {
            index: rest.index,
            first: rest.first,
            prototypes: rest.prototypes.split_off(..columns * self.dim).unwrap_or_default(),
            bias: rest.bias.split_off(..classes.min(rest.bias.len())).unwrap_or_default(),
            kept: front(&mut rest.kept, self.rows * columns),
            most: front(&mut rest.most, self.rows * columns.div_ceil(layout.tile)),
            grad: front(&mut rest.grad, columns * self.dim),
            grad_bias: front(&mut rest.grad_bias, classes),
        };
        (rest.index, rest.first) = (rest.index + tiles, rest.first + classes);
        tile
    }
}

impl<'a> Iterator for Tiles<'a> {
    type Item = Tile<'a>;

    fn next(&mut self) -> Option<Tile<'a>> {
        (!self.rest.prototypes.is_empty()).then(|| self.front(1))
    }
}

/// One range of class tiles with everything that belongs to it alone.
pub(super) struct Task<'a> {
    pub tiles: Tiles<'a>,
    pub worker: &'a mut WorkerScratch,
    pub partials: &'a mut [Partial],
    pub top: &'a mut [(f32, u32)],
    /// Of dX, in *recompute*.
    pub share: &'a mut [f32],
    /// Its total, where that is a long sum.
    pub total: &'a mut [f64],
}

/// Data that all ranges read.
pub(super) struct Common<'a> {
    pub setup: Setup,
    pub path: Path,
    pub table: Table,
    /// Plain products of vectors as they are.
    pub linear: bool,
    pub scale: f32,
    pub directions: &'a [f32],
    pub rows: &'a [Row],
    pub extras: &'a [RowExtras],
    /// Class weights and their stand-in, with label smoothing.
    pub weights: Option<(Option<&'a [f32]>, &'a [f32])>,
    /// One over the weights' [`unit`](super::rows::unit).
    pub per_unit: f32,
}

/// The facts to be scanned before the passes.
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

/// The rows of a block, in the kept values of a tile or in a worker's scratch.
fn values_of<'a>(
    kept: &'a mut [f32],
    worker: &'a mut [f32],
    (at, rows): (usize, usize),
    columns: usize,
) -> &'a mut [f32] {
    if kept.is_empty() { &mut worker[..rows * columns] } else { &mut kept[at * columns..(at + rows) * columns] }
}

impl Task<'_> {
    /// Counts prototypes, and looks at the raw cosines where that is asked for; *keep* then holds them.
    pub fn scan(self, look: Look, common: &Common<'_>) {
        let Setup { arch, layout, .. } = common.setup;
        let (worker, centers) = (self.worker, common.table.centers);
        self.partials.fill(Partial::EMPTY);
        self.top.fill((f32::NEG_INFINITY, u32::MAX));
        (worker.zero, worker.non_finite) = (0, 0);
        for tile in self.tiles {
            let columns = worker.count(common, tile.prototypes);
            if look.top == 0 && !look.sums {
                continue;
            }
            let (first, width) = (tile.first, columns / centers);
            for (b, rows) in common.rows.chunks(layout.block).enumerate() {
                let at = b * layout.block;
                let values = values_of(tile.kept, &mut worker.cosines, (at, rows.len()), columns);
                common.products(values, at, tile.prototypes, (worker.own.ordinary, &mut worker.unit), tile.bias);
                let before = worker.own.factors_of(common, columns);
                let block = Block {
                    values,
                    rows,
                    first,
                    width,
                    scale: common.scale,
                    weights: None,
                    per_unit: 1.0,
                    before,
                    after: None,
                };
                let partials = look.sums.then_some(&mut self.partials[at..at + rows.len()]);
                let top = &mut self.top[at * look.top..(at + rows.len()) * look.top];
                arch.dispatch(Scan { centers, block, scratch: &mut worker.scratch, partials, top, count: look.top });
            }
        }
    }

    /// Pass 1: the rows' statistics over the other classes of this range. `ready`: what is kept are cosines already.
    pub fn statistics(self, ready: bool, common: &Common<'_>) {
        let Common { setup: Setup { arch, layout, dim, .. }, scale, per_unit, ref table, .. } = *common;
        let worker = self.worker;
        self.partials.fill(Partial::EMPTY);
        if !ready {
            (worker.zero, worker.non_finite) = (0, 0);
        }
        for tile in self.tiles {
            let columns = tile.prototypes.len() / dim;
            let (first, width) = (tile.first, columns / table.centers);
            if !ready {
                worker.count(common, tile.prototypes);
            }
            for (b, rows) in common.rows.chunks(layout.block).enumerate() {
                let at = b * layout.block;
                let values = values_of(tile.kept, &mut worker.cosines, (at, rows.len()), columns);
                if !ready {
                    common.products(values, at, tile.prototypes, (worker.own.ordinary, &mut worker.unit), tile.bias);
                }
                let before = worker.own.factors_of(common, columns).filter(|_| !ready);
                let weights = common.weights_of(first, width);
                let block = Block { values, rows, first, width, scale, weights, per_unit, before, after: None };
                let partials = &mut self.partials[at..at + rows.len()];
                match common.path {
                    Path::Identity if layout.keep => {
                        let most = &mut tile.most[at..at + rows.len()];
                        arch.dispatch(Statistics::<_, true> { others: Identity, block, partials, most });
                    }
                    Path::Identity => {
                        arch.dispatch(Statistics::<_, false> { others: Identity, block, partials, most: &mut [] });
                    }
                    Path::Rectified => {
                        arch.dispatch(Statistics::<_, false> { others: Rectified, block, partials, most: &mut [] });
                    }
                    Path::Table => {
                        let (extras, scratch) = (&common.extras[at..], &mut worker.scratch);
                        arch.dispatch(table::Statistics { table, block, extras, scratch, partials });
                    }
                }
            }
        }
    }

    /// Pass 2 of *recompute*: this range's share of dX, and its dW and db.
    pub fn gradients(self, common: &Common<'_>) {
        let Self { mut tiles, worker, share, total, .. } = self;
        worker.lists.sifted = Sifted::default();
        let mut total = Total::new(total);
        while let Some(tile) = tiles.next() {
            tile.gradients(true, common, worker, Some((&mut *share, total.adds())));
            let last = tiles.rest.prototypes.is_empty();
            total.joined(common.setup.arch, share, last || !worker.own.ordinary);
        }
    }
}

impl<'a> Tile<'a> {
    /// Pass 2: dW and db, and G in what is kept, its columns multiplied by the factors if the prototypes are ordinary.
    /// Where nothing is kept, dX = G Ŵ goes to `share`, or is added to it. `fresh`: nothing of pass 1 is there any more.
    fn gradients(
        self,
        fresh: bool,
        common: &Common<'_>,
        worker: &mut WorkerScratch,
        mut share: Option<(&mut [f32], bool)>,
    ) -> &'a [f32] {
        let Common { setup: Setup { arch, layout, want, filter, dim }, scale, per_unit, ref table, .. } = *common;
        let Self { first, prototypes, bias, kept, most, grad: pull, grad_bias: slide, .. } = self;
        let (columns, pieces) = (prototypes.len() / dim, layout.pieces);
        let width = columns / table.centers;
        worker.own.measure(common, prototypes);
        let WorkerScratch { own, unit, cosines, scratch, lists, totals, slides, .. } = worker;
        let mut total = Total::new(totals);
        // a filter compares G as it is
        let factors = own.factors_of(common, columns);
        let (after, late) = if filter.is_some() { (None, factors) } else { (factors, None) };
        for (b, rows) in common.rows.chunks(layout.block).enumerate() {
            let at = b * layout.block;
            let values = values_of(kept, cosines, (at, rows.len()), columns);
            if fresh {
                common.products(values, at, prototypes, (own.ordinary, unit), bias);
            }
            let weights = common.weights_of(first, width);
            let before = own.factors_of(common, columns).filter(|_| fresh);
            let block = Block { values: &mut *values, rows, first, width, scale, weights, per_unit, before, after };
            match common.path {
                Path::Identity if !fresh => {
                    let most = &most[at..at + rows.len()];
                    arch.dispatch(Gradients::<_, true> { others: Identity, block, most });
                }
                Path::Identity => arch.dispatch(Gradients::<_, false> { others: Identity, block, most: &[] }),
                Path::Rectified => arch.dispatch(Gradients::<_, false> { others: Rectified, block, most: &[] }),
                Path::Table => {
                    let extras = &common.extras[at..];
                    arch.dispatch(table::Gradients { table, block, extras, scratch });
                }
            }
            let sparse = filter.is_some() && arch.dispatch(Sift { values: &mut *values, columns, rows, lists });
            if let Some(factors) = late {
                arch.dispatch(ScaleColumns { values: &mut *values, factors });
                lists.stretch(if sparse { factors } else { &[] });
            }
            let x = Matrix::new(&common.directions[at * dim..], rows.len(), dim);
            let g = Matrix::new(values, rows.len(), columns);
            for k in (0..table.centers).filter(|_| want.grad_prototypes) {
                let (first, step, add) = (k * width, table.centers, total.adds());
                let to = &mut pull[k * dim..];
                if sparse {
                    let (starts, entries) = lists.by_column(columns);
                    let (starts, from) = (&starts[first..=first + width], &common.directions[at * dim..]);
                    arch.dispatch(Gather { starts, entries, from, dim, step, to, add });
                } else {
                    spaced_product(pieces, to, step * dim, add, g.columns(first, width).transposed(), x);
                }
            }
            total.joined(arch, pull, at + rows.len() == common.rows.len());
            if !slide.is_empty() {
                let rows = values.chunks_exact(width).enumerate();
                rows.for_each(|(i, from)| arch.dispatch(Widen { from, to: slides, add: at + i > 0 }));
            }
            if !want.grad_embeddings {
                continue;
            }
            if let Some((share, add)) = &mut share {
                common.embed(&mut share[at * dim..], *add, values, prototypes, (own.ordinary, unit), lists);
            }
        }
        slide.iter_mut().zip(&*slides).for_each(|(to, sum)| *to = *sum as f32);
        if want.grad_prototypes {
            for (k, lengths) in own.lengths.chunks_exact(width).take(table.centers).enumerate() {
                let (pull, from, step) = (&mut pull[k * dim..], &prototypes[k * dim..], table.centers);
                let project = Project { pull, from, step, dim, lengths, divided: factors.is_some() };
                total.finish(arch, k * dim, project, common.linear);
            }
        }
        kept
    }
}

/// The results of a tile in *keep*.
struct Done<'a> {
    /// G as [`Tile::gradients`] leaves it, \[N, prototypes of the tile\].
    values: &'a [f32],
    prototypes: &'a [f32],
    ordinary: bool,
    sifted: Sifted,
}

/// dX in *keep*, row block by row block: the tiles join each of them in order, by whoever finds it free and a tile done.
/// So the sums depend on no thread, nobody waits, and most of G is still in a cache.
pub(super) struct Queue<'a> {
    tiles: Mutex<Tiles<'a>>,
    done: Vec<OnceLock<Done<'a>>>,
    blocks: Vec<Mutex<Joined<'a>>>,
}

/// Some rows of dX.
struct Joined<'a> {
    /// How many tiles are part of them.
    tiles: usize,
    rows: &'a mut [f32],
    total: Total<'a>,
    /// Their embeddings and the lengths of those.
    from: &'a [f32],
    lengths: &'a [f64],
}

impl<'a> Queue<'a> {
    pub fn new(
        tiles: Tiles<'a>,
        (from, lengths): (&'a [f32], &'a [f64]),
        grad: &'a mut [f32],
        mut totals: &'a mut [f64],
    ) -> Self {
        let (layout, dim) = (tiles.layout, tiles.dim);
        let own = from.chunks(layout.joined * dim).zip(lengths.chunks(layout.joined));
        let blocks = grad.chunks_mut(layout.joined * dim).zip(own);
        let blocks = blocks.map(|(rows, (from, lengths))| {
            let total = Total::new(front(&mut totals, rows.len()));
            Mutex::new(Joined { tiles: 0, rows, total, from, lengths })
        });
        let count = (tiles.rest.prototypes.len() / dim).div_ceil(layout.tile);
        Self {
            tiles: Mutex::new(tiles),
            done: std::iter::repeat_with(OnceLock::new).take(count).collect(),
            blocks: blocks.collect(),
        }
    }

    /// The bytes of [`new`](Self::new) for this many tiles and blocks.
    pub fn bytes(tiles: u64, blocks: usize) -> u64 {
        let tile = size_of::<OnceLock<Done<'_>>>() as u64;
        tiles.saturating_mul(tile).saturating_add((blocks * size_of::<Mutex<Joined<'_>>>()) as u64)
    }

    /// Pass 2, until no tile is left.
    pub fn work(&self, fresh: bool, common: &Common<'_>, worker: &mut WorkerScratch) {
        let next = || self.tiles.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(tile) = next() {
            worker.lists.sifted = Sifted::default();
            let (index, prototypes) = (tile.index, tile.prototypes);
            let values = tile.gradients(fresh, common, worker, None);
            let done = Done { values, prototypes, ordinary: worker.own.ordinary, sifted: worker.lists.sifted };
            // every index comes once
            let _ = self.done[index].set(done);
            for (b, block) in self.blocks.iter().enumerate() {
                if let Ok(mut block) = block.try_lock() {
                    self.join(b, &mut block, common, worker);
                }
            }
        }
    }

    /// Whether there are rows that nobody was free for.
    pub fn unfinished(&self) -> bool {
        self.blocks.iter().any(|b| b.lock().unwrap_or_else(PoisonError::into_inner).tiles < self.done.len())
    }

    /// Every `step`-th block of rows from `first` on, finished.
    pub fn finish(&self, first: usize, step: usize, common: &Common<'_>, worker: &mut WorkerScratch) {
        for (b, block) in self.blocks.iter().enumerate().skip(first).step_by(step) {
            self.join(b, &mut block.lock().unwrap_or_else(PoisonError::into_inner), common, worker);
        }
    }

    /// All tiles that are done in order join; after the last one the rows are projected.
    fn join(&self, b: usize, block: &mut Joined<'a>, common: &Common<'_>, worker: &mut WorkerScratch) {
        let Setup { arch, layout, dim, .. } = common.setup;
        let Joined { tiles, rows, total, from, lengths } = block;
        while let Some(done) = self.done.get(*tiles).and_then(OnceLock::get) {
            let columns = done.prototypes.len() / dim;
            let values = &done.values[b * layout.joined * columns..][..rows.len() / dim * columns];
            let with = (done.ordinary, &mut worker.unit[..]);
            common.embed(rows, total.adds(), values, done.prototypes, with, &mut worker.lists);
            *tiles += 1;
            let last = *tiles == self.done.len();
            total.joined(arch, rows, last || !done.ordinary);
            if last {
                let project = Project { pull: rows, from, step: 1, dim, lengths, divided: false };
                total.finish(arch, 0, project, common.linear);
            }
        }
    }

    /// The entries of G that every tile dropped, in order.
    pub fn sifted(&self) -> impl Iterator<Item = Sifted> {
        self.done.iter().filter_map(|done| done.get().map(|done| done.sifted))
    }
}

impl WorkerScratch {
    /// The prototypes of a tile measured, and what their lengths tell; returns how many there are.
    fn count(&mut self, common: &Common<'_>, prototypes: &[f32]) -> usize {
        let columns = prototypes.len() / common.setup.dim;
        self.own.measure(common, prototypes);
        let lengths = &self.own.lengths[..columns];
        if !common.linear {
            self.zero += lengths.iter().filter(|&&l| l < SHORTEST).count();
        }
        self.non_finite += lengths.iter().filter(|l| !l.is_finite()).count();
        columns
    }
}

impl Prototypes {
    /// Bytes per prototype.
    pub const BYTES: usize = 12;

    pub fn new(tile: usize) -> Self {
        Self { lengths: vec![0.0; tile], factors: vec![0.0; tile], ordinary: true }
    }

    /// Factors that turn columns of products into cosines; none where they are cosines, or a linear head's values.
    fn factors_of(&self, common: &Common<'_>, columns: usize) -> Option<&[f32]> {
        (self.ordinary && !common.linear).then(|| &self.factors[..columns])
    }

    fn measure(&mut self, common: &Common<'_>, prototypes: &[f32]) {
        let (dim, centers) = (common.setup.dim, common.table.centers);
        let columns = prototypes.len() / dim;
        let width = columns / centers;
        let own = self.lengths.chunks_exact_mut(width).zip(self.factors.chunks_exact_mut(width));
        self.ordinary = true;
        for (k, (lengths, factors)) in own.take(centers).enumerate() {
            let from = &prototypes[k * dim..];
            self.ordinary &= common.setup.arch.dispatch(Measure { from, dim, step: centers, lengths, factors });
        }
        if common.linear {
            self.ordinary = self.lengths[..columns].iter().all(|l| l.is_finite());
        }
    }
}

/// Unit vectors, or for a linear head the vectors themselves; and their lengths.
pub(super) fn directions(
    arch: Arch,
    linear: bool,
    (from, dim): (&[f32], usize),
    to: &mut [f32],
    lengths: &mut [f64],
    exact: bool,
) {
    if linear {
        arch.dispatch(Plain { from, dim, to, lengths });
    } else {
        arch.dispatch(Normalize { from, dim, to, lengths, exact });
    }
}

impl<'a> Common<'a> {
    /// X̂ Wᵀ of a block of rows and a tile with its bias; X̂ Ŵᵀ if the prototypes are not ordinary.
    fn products(
        &self,
        values: &mut [f32],
        at: usize,
        prototypes: &[f32],
        (ordinary, unit): (bool, &mut [f32]),
        bias: &[f32],
    ) {
        let (Setup { arch, layout, dim, .. }, centers) = (self.setup, self.table.centers);
        let (columns, apart) = (prototypes.len() / dim, centers * dim);
        let width = columns / centers;
        let x = Matrix::new(&self.directions[at * dim..], values.len() / columns, dim);
        for (k, first) in (0..centers).map(|k| (k, &prototypes[k * dim..])) {
            if ordinary {
                let w = Matrix::spaced(first, width, dim, apart).transposed();
                spaced_product(layout.pieces, &mut values[k * width..], columns, false, x, w);
                continue;
            }
            for (j, from) in first.chunks(apart).enumerate() {
                directions(arch, self.linear, (&from[..dim], dim), unit, &mut [0.0], false);
                let w = Matrix::new(unit, 1, dim).transposed();
                spaced_product(layout.pieces, &mut values[k * width + j..], columns, false, x, w);
            }
        }
        if !bias.is_empty() {
            values.chunks_exact_mut(columns).for_each(|to| arch.dispatch(Add { from: bias, to }));
        }
    }

    /// G Ŵ of some rows and a tile into `pull`, or added to it; G as [`Tile::gradients`] leaves it.
    fn embed(
        &self,
        pull: &mut [f32],
        add: bool,
        values: &[f32],
        prototypes: &[f32],
        (ordinary, unit): (bool, &mut [f32]),
        lists: &mut Lists,
    ) {
        let (Setup { arch, layout, dim, filter, .. }, centers) = (self.setup, self.table.centers);
        let (columns, apart) = (prototypes.len() / dim, centers * dim);
        let (rows, width) = (values.len() / columns, columns / centers);
        if filter.is_some() && ordinary && arch.dispatch(List { values, columns, centers, lists }) {
            let (starts, entries) = lists.by_row(rows);
            let to = &mut pull[..rows * dim];
            return arch.dispatch(Gather { starts, entries, from: prototypes, dim, step: 1, to, add });
        }
        let g = Matrix::new(values, rows, columns);
        for (k, first) in (0..centers).map(|k| (k, &prototypes[k * dim..])) {
            if ordinary {
                let w = Matrix::spaced(first, width, dim, apart);
                product(layout.pieces, pull, add || k > 0, g.columns(k * width, width), w);
                continue;
            }
            for (j, from) in first.chunks(apart).enumerate() {
                directions(arch, self.linear, (&from[..dim], dim), unit, &mut [0.0], false);
                let w = Matrix::new(unit, 1, dim);
                product(layout.pieces, pull, add || k + j > 0, g.columns(k * width + j, 1), w);
            }
        }
    }

    /// The weights of a tile's classes, with label smoothing.
    fn weights_of(&self, first: usize, width: usize) -> Option<&'a [f32]> {
        self.weights.map(|(given, ones)| given.map_or(&ones[..width], |w| &w[first..first + width]))
    }
}

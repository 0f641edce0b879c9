//! The data that all ranges of class tiles read: the batch, its directions and target cosines, and the loss at its state.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::{
    curve::OthersF32,
    directions::{DotLength, Normalize},
    division::Division,
    rows::{HeadRow, RowExtras, unit},
    soft::{SoftInput, SoftPull},
    table::Table,
    tiling::{Setup, Tiling},
    trace::{self, Event, Task},
    vector::Aligned,
};
use crate::{
    State,
    data::StoredValues,
    objective::{CheckedBatch, Prepared, SHORTEST},
};

/// One call.
pub(super) struct HeadCall<'a> {
    pub batch: CheckedBatch<'a>,
    /// In the place of the batch's.
    pub embeddings: StoredValues<'a>,
    pub prototypes: StoredValues<'a>,
    /// Whether the batch is large enough to be worth a second thread.
    pub parallel: bool,
    pub division: Division,
}

impl HeadCall<'_> {
    /// The cosine of a vector with a class as both came, all in f64: the largest of the class' prototypes, the first on ties,
    /// and which that is.
    pub fn cosine(
        &self,
        arch: Arch,
        linear: bool,
        range: &Range<usize>,
        (x, length): (&[f32], f64),
        class: usize,
    ) -> (f64, u32) {
        let (batch, class_values) = (&self.batch, self.prototypes.len() / range.len());
        let (mut best, local) = ((0.0, 0), class - range.start);
        let mut wide = vec![];
        let own = self.prototypes.part(local * class_values..(local + 1) * class_values).widened_in(&mut wide);
        for (k, prototype) in own.chunks_exact(x.len()).enumerate() {
            let (dot, other_length) = arch.dispatch(DotLength(x, prototype));
            let cosine = match linear {
                true => dot + batch.bias.map_or(0.0, |b| f64::from(b[local])),
                false => dot / (length.max(SHORTEST) * other_length.max(SHORTEST)),
            };
            if cosine.is_finite() && (k == 0 || cosine > best.0) {
                best = (cosine, k as u32);
            }
        }
        best
    }
}

/// Every item once, in any order, on the threads of the current pool or on this one.
pub(super) fn each<T: Send>(parallel: bool, items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    if parallel {
        let f = |item| trace::within(Event::Task(Task::Item), || f(item));
        trace::within(Event::Stage, || items.into_par_iter().with_max_len(1).for_each(f));
    } else {
        items.into_iter().for_each(f);
    }
}

/// The batch as the ranges read it.
#[derive(Default)]
pub(super) struct Input {
    /// X̂, \[N, D\], and the lengths of X, \[N\].
    pub directions: Aligned,
    pub lengths: Vec<f64>,
    pub rows: Vec<HeadRow>,
    pub extras: Vec<RowExtras>,
    pub soft: SoftInput,
    /// The class weights of a tile where the caller gives none.
    pub ones: Vec<f32>,
}

/// Which sweeps a pass takes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Path {
    /// The cosines as they are; *keep* then stores exp(z) in their place.
    Identity,
    Rectified,
    /// Every other.
    Table,
    /// The same with the weighted sums that other shards may need.
    AllSums,
}

/// The batch, the loss at its state, and the sweeps.
pub(super) struct PassContext<'a> {
    pub setup: Setup,
    pub division: Division,
    pub path: Path,
    pub table: Table,
    /// Plain products of vectors as they are.
    pub linear: bool,
    pub scale: f32,
    pub directions: &'a [f32],
    pub rows: &'a [HeadRow],
    pub extras: &'a [RowExtras],
    /// The targets beside the labels, and how many a row has.
    pub soft: (&'a [SoftPull], usize),
    /// Class weights and their stand-in, with label smoothing.
    pub weights: Option<(Option<&'a [f32]>, &'a [f32])>,
    /// One over the weights' [`unit`](super::rows::unit).
    pub per_unit: f32,
}

impl<'a> PassContext<'a> {
    /// The blocks of rows, each with the index of its first row.
    pub fn row_blocks(&self) -> impl Iterator<Item = (usize, &'a [HeadRow])> + use<'a> {
        let size = self.setup.tiling.block;
        self.rows.chunks(size).enumerate().map(move |(block, rows)| (block * size, rows))
    }

    /// The weights of a tile's classes, with label smoothing.
    pub fn weights_of(&self, first: usize, width: usize) -> Option<&'a [f32]> {
        self.weights.map(|(given, ones)| given.map_or(&ones[..width], |w| &w[first..first + width]))
    }
}

/// Rows per task where rows are independent.
pub(super) const ROWS: usize = 32;

impl Input {
    pub fn new(tiling: &Tiling) -> Self {
        let rows = tiling.rows;
        Self {
            directions: Aligned::new(rows * tiling.dim),
            lengths: vec![0.0; rows],
            rows: vec![HeadRow::NONE; rows],
            extras: vec![RowExtras::NONE; rows],
            soft: SoftInput::new(rows, tiling.soft),
            ones: vec![1.0; tiling.tile_classes()],
        }
    }

    /// Directions, and the target cosines of the labels in `range`.
    pub fn prepare(&mut self, setup: Setup, loss: &Prepared, range: &Range<usize>, call: &HeadCall<'_>) {
        let Setup { arch, tiling: Tiling { dim, .. }, .. } = setup;
        let batch = &call.batch;
        let linear = loss.is_linear();
        let target = |x: &[f32], length: f64, class| call.cosine(arch, linear, range, (x, length), class);
        let own = self.lengths.chunks_mut(ROWS).zip(self.rows.chunks_mut(ROWS)).zip(self.extras.chunks_mut(ROWS));
        let own = own.zip(batch.labels.chunks(ROWS));
        let own = self.directions.values_mut().chunks_mut(dim * ROWS).zip(own).enumerate();
        each(call.parallel, own.collect(), |(block, (to, (((lengths, rows), extras), labels)))| {
            let (mut wide, first) = (vec![], block * dim * ROWS);
            let x = call.embeddings.part(first..first + dim * labels.len()).widened_in(&mut wide);
            let (to, lengths) = (&mut to[..x.len()], &mut lengths[..labels.len()]);
            arch.dispatch(Normalize { from: x, dim, to, lengths: &mut *lengths, plain: linear, exact: true });
            let rows = rows.iter_mut().zip(extras).zip(labels);
            for ((x, &length), ((row, extra), &label)) in x.chunks_exact(dim).zip(&*lengths).zip(rows) {
                (*row, *extra) = (HeadRow::NONE, RowExtras::NONE);
                extra.factor = loss.length_factor(length).0 as f32;
                if Some(label) != loss.ignore_index && length.is_finite() {
                    let class = label as usize;
                    let (cosine, center) = if range.contains(&class) { target(x, length, class) } else { (0.0, 0) };
                    (*row, extra.center) = (HeadRow::new(class, cosine), center);
                }
            }
        });
    }

    /// Everything that a pass reads.
    pub fn context<'a>(
        &'a self,
        setup: Setup,
        loss: &Prepared,
        path: Path,
        call: &HeadCall<'a>,
        state: &State,
    ) -> PassContext<'a> {
        let n = call.batch.rows();
        let smoothed = loss.label_smoothing > 0.0;
        PassContext {
            setup,
            division: call.division,
            path,
            table: Table {
                curve: OthersF32::new(&loss.others, loss.others_series(), state.hardness),
                binary: loss.binary().map(|link| link.bias as f32),
                centers: setup.tiling.centers,
            },
            linear: loss.is_linear(),
            scale: state.scale_of(loss) as f32,
            directions: &self.directions.values()[..n * setup.tiling.dim],
            rows: &self.rows[..n],
            extras: &self.extras[..n],
            soft: self.soft.pulls(call.batch.soft.as_ref(), n),
            weights: (smoothed || path == Path::AllSums).then_some((call.batch.class_weights, &self.ones)),
            per_unit: if smoothed { 1.0 / unit(call.batch.class_weights) } else { 1.0 },
        }
    }
}

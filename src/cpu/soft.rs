//! The targets of a row beside its label: all of them stay out of the sums over the classes, and join last.

use super::rows::{HeadRow, RowExtras};
use crate::{
    data::SoftLabels,
    objective::{RowFacts, SoftTargets},
};

/// The label and the targets beside it.
pub(super) const MOST: usize = SoftLabels::<f32>::MAX + 1;

/// For each term the sum of the others, in which it never was.
pub(super) fn others(terms: [f64; MOST]) -> [f64; MOST] {
    let (mut all, mut sum) = ([0.0; MOST], 0.0);
    for (all, term) in all.iter_mut().zip(terms) {
        *all = sum;
        sum += term;
    }
    sum = 0.0;
    for (all, term) in all.iter_mut().zip(terms).rev() {
        *all += sum;
        sum += term;
    }
    all
}

/// No class.
pub(super) const NONE: u32 = u32::MAX;

/// A target beside the label as the sweeps know it.
#[derive(Clone, Copy)]
pub(super) struct SoftPull {
    /// Among all, or [`NONE`].
    pub class: u32,
    /// Its prototype with the largest cosine.
    pub center: u32,
    /// G there.
    pub pull: f32,
}

/// A target of a row, its label among them.
#[derive(Clone, Copy)]
pub(super) struct SoftRow {
    pub row: HeadRow,
    pub extra: RowExtras,
    /// λ.
    pub weight: f64,
    /// As another class: its value and the slope of that.
    pub other: [f64; 2],
}

/// G of each target as another class of the other targets under a softmax, without the slope of its transform:
/// Σ strength·exp(z − log Σ exp) over these.
pub(super) fn pushed(targets: &[SoftRow], scale: f64) -> [f64; MOST] {
    let weighed = |without: usize| {
        let all = targets.iter().enumerate().filter(move |(t, _)| *t != without);
        all.filter(|(_, target)| target.row.counts() && target.weight > 0.0).map(|(t, target)| (t, &target.row))
    };
    let smallest = |without: usize| {
        let sums = weighed(without).map(|(t, row)| (t, row.log_all));
        sums.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((MOST, 0.0))
    };
    // no exponent is above 0: z of a target is below the sums of the others, the smallest of which is the unit
    let pushed = |unit: f64, without: usize| {
        let mut terms = [0.0; MOST];
        weighed(without).for_each(|(t, row)| terms[t] = row.strength * (unit - row.log_all).exp());
        others(terms)
    };
    let (first, least) = smallest(MOST);
    let (mut all, next) = (pushed(least, MOST), smallest(first).1);
    for (t, (all, target)) in all.iter_mut().zip(targets).enumerate().filter(|(_, (_, target))| target.row.counts()) {
        let (sum, unit) = if t == first { (pushed(next, first)[t], next) } else { (*all, least) };
        // of no other target there is no unit either
        *all = if sum == 0.0 { 0.0 } else { sum * (scale * target.other[0] - unit).exp() };
    }
    all
}

/// The targets of all rows; T of them beside the label.
#[derive(Default)]
pub(super) struct SoftInput {
    /// \[N, T + 1\], the label first.
    rows: Vec<SoftRow>,
    /// \[N, T\], in ascending order of their classes.
    pulls: Vec<SoftPull>,
}

/// A row's targets.
pub(super) struct TargetSlots<'a>(pub &'a mut [SoftRow], pub &'a mut [SoftPull]);

impl TargetSlots<'_> {
    /// The largest cosine of the targets beside the label.
    pub fn nearest(&self) -> f64 {
        let others = self.0[1..].iter().filter(|target| target.row.counts());
        others.map(|target| target.row.cosine).fold(f64::MIN, f64::max)
    }
}

impl SoftInput {
    /// Bytes of a row with so many targets beside its label, and of the margins of one target of all rows.
    pub fn row_bytes(count: usize) -> usize {
        let margins = if count > 0 { size_of::<[f64; 4]>() + size_of::<RowFacts>() } else { 0 };
        // and what a checked batch holds of them: class, weight and margins
        let checked = size_of::<Option<(usize, f64)>>() + 3 * size_of::<[f64; 4]>();
        let label = if count > 0 { size_of::<SoftRow>() + size_of::<f64>() } else { 0 };
        label + count * (size_of::<SoftRow>() + size_of::<SoftPull>() + checked) + margins
    }

    /// Room for `rows` rows with `count` targets each.
    pub fn new(rows: usize, count: usize) -> Self {
        let none = SoftRow { row: HeadRow::NONE, extra: RowExtras::NONE, weight: 0.0, other: [0.0; 2] };
        let labels = if count > 0 { rows } else { 0 };
        Self {
            rows: vec![none; labels + rows * count],
            pulls: vec![SoftPull { class: NONE, center: 0, pull: 0.0 }; rows * count],
        }
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        size_of::<SoftRow>() * self.rows.capacity() + size_of::<SoftPull>() * self.pulls.capacity()
    }

    /// The pulls of these rows, and how many a row has.
    pub fn pulls(&self, soft: Option<&SoftTargets>, rows: usize) -> (&[SoftPull], usize) {
        let count = soft.map_or(0, |soft| soft.count);
        (&self.pulls[..rows * count], count)
    }

    /// The targets of a row, if there are soft labels.
    pub fn of(&self, soft: Option<&SoftTargets>, row: usize) -> Option<&[SoftRow]> {
        let count = soft?.count + 1;
        Some(&self.rows[row * count..][..count])
    }

    /// The targets of each block of `size` of these rows; nothing without soft labels.
    pub fn blocks(&mut self, soft: Option<&SoftTargets>, n: usize, size: usize) -> Vec<Vec<TargetSlots<'_>>> {
        let Some(soft) = soft else { return vec![] };
        let (rows, pulls) = (self.rows.chunks_mut(soft.count + 1), self.pulls.chunks_mut(soft.count));
        let mut all = rows.zip(pulls).take(n).map(|(rows, pulls)| TargetSlots(rows, pulls));
        (0..n.div_ceil(size)).map(|_| all.by_ref().take(size).collect()).collect()
    }
}

/// The targets of some rows beside their labels.
#[derive(Clone, Copy)]
pub(super) struct SoftRows<'a> {
    /// \[rows, count\].
    pub pulls: &'a [SoftPull],
    pub count: usize,
}

impl<'a> SoftRows<'a> {
    /// Those of a row.
    #[inline(always)]
    pub fn of(&self, row: usize) -> &'a [SoftPull] {
        &self.pulls[row * self.count..][..self.count]
    }
}

/// The places of a row's targets in a tile, in ascending order.
pub(super) struct Cuts {
    at: [u32; MOST],
    count: usize,
}

impl Cuts {
    /// Of a label, counted in the tile, and the targets beside it; none if the tile has none of these.
    #[inline(always)]
    pub fn of(soft: &[SoftPull], label: usize, first: usize, width: usize) -> Option<Self> {
        in_tile(soft, first, width).next()?;
        let mut cuts = Self { at: [0; MOST], count: 0 };
        let mut push = |at: usize| {
            cuts.at[cuts.count] = at as u32;
            cuts.count += 1;
        };
        let mut label = if label < width { Some(label) } else { None };
        for (at, _) in in_tile(soft, first, width) {
            if let Some(own) = label.take_if(|own| *own < at) {
                push(own);
            }
            push(at);
        }
        if let Some(own) = label {
            push(own);
        }
        Some(cuts)
    }

    /// The places.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.at[..self.count].iter().map(|&at| at as usize)
    }

    /// Whether they are all classes of a tile.
    pub fn all(&self, width: usize) -> bool {
        self.count == width
    }

    /// The stretches between them, in order; some are empty.
    #[inline(always)]
    pub fn between(&self, width: usize) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let ends = self.places().chain([width]);
        ends.scan(0, |start, end| Some(std::mem::replace(start, end + 1)..end))
    }
}

/// The targets of a row in a tile, each with its place.
#[inline(always)]
pub(super) fn in_tile(soft: &[SoftPull], first: usize, width: usize) -> impl Iterator<Item = (usize, &SoftPull)> {
    let place = move |pull: &SoftPull| (pull.class as usize).wrapping_sub(first);
    soft.iter()
        .filter(|pull| pull.class != NONE)
        .map(move |pull| (place(pull), pull))
        .filter(move |(at, _)| *at < width)
}

//! The targets of a row beside its label: all of them stay out of the sums over the classes, and join last.

use super::{
    finish::finish_row,
    input::{HeadCall, ROWS, each},
    rows::{HeadRow, RowExtras, Share, Weights},
};
use crate::{
    SoftLabels, State,
    objective::{Prepared, RowFacts, others::Place, sigmoid, softplus},
    shard::RowStatistics,
};

/// The label and the targets beside it.
const MOST: usize = SoftLabels::<f32>::MAX + 1;

/// No class.
const NONE: u32 = u32::MAX;

/// A target beside the label as the sweeps know it.
#[derive(Clone, Copy)]
pub(super) struct SoftPull {
    /// Among all, or [`NONE`].
    class: u32,
    /// Its prototype with the largest cosine.
    pub center: u32,
    /// G there.
    pub pull: f32,
}

/// A target of a row, its label among them.
#[derive(Clone, Copy)]
pub(super) struct SoftRow {
    row: HeadRow,
    extra: RowExtras,
    /// λ.
    weight: f64,
    /// As another class: its value and the slope of that.
    other: [f64; 2],
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
pub(super) struct Targets<'a>(&'a mut [SoftRow], &'a mut [SoftPull]);

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

    /// What the sweeps read, and the targets of a row.
    pub fn pulls(&self, call: &HeadCall<'_>) -> (&[SoftPull], usize) {
        let count = call.batch.soft.as_ref().map_or(0, |soft| soft.count);
        (&self.pulls[..call.batch.rows() * count], count)
    }

    /// The targets of a row, if there are soft labels.
    pub fn of(&self, call: &HeadCall<'_>, row: usize) -> Option<&[SoftRow]> {
        let count = call.batch.soft.as_ref()?.count + 1;
        Some(&self.rows[row * count..][..count])
    }

    /// The targets of each block of rows; nothing without soft labels.
    pub fn blocks(&mut self, call: &HeadCall<'_>) -> Vec<Vec<Targets<'_>>> {
        let n = call.batch.rows();
        let Some(soft) = &call.batch.soft else { return vec![] };
        let (rows, pulls) = (self.rows.chunks_mut(soft.count + 1), self.pulls.chunks_mut(soft.count));
        let mut all = rows.zip(pulls).take(n).map(|(rows, pulls)| Targets(rows, pulls));
        (0..n.div_ceil(ROWS)).map(|_| all.by_ref().take(ROWS).collect()).collect()
    }

    /// The targets with their cosines and margins; `cosine` is that of a row with a class.
    pub fn prepare(
        &mut self,
        call: &HeadCall<'_>,
        loss: &Prepared,
        state: &State,
        labels: (&[HeadRow], &[RowExtras]),
        facts: &[RowFacts],
        cosine: impl Fn(usize, usize) -> (f64, u32) + Sync + Send,
    ) {
        let Some(soft) = &call.batch.soft else { return };
        let scale = state.scale_of(loss);
        for slot in 0..soft.count {
            let given = |all: &Vec<[f64; 4]>| all.iter().skip(slot).step_by(soft.count).copied().collect();
            let mut margins: Vec<[f64; 4]> =
                soft.margins.as_ref().map_or_else(|| vec![loss.target.margins(); facts.len()], given);
            loss.adaptive.apply(state, facts, &mut margins);
            let blocks = self.blocks(call).into_iter().enumerate().collect();
            each(call.parallel, blocks, |(block, targets): (usize, Vec<Targets<'_>>)| {
                let (target, other) = (loss.target_curve(), loss.other(state.hardness));
                for (i, Targets(rows, pulls)) in (block * ROWS..).zip(targets) {
                    let label = &mut rows[0];
                    (label.row, label.extra, label.weight) = (labels.0[i], labels.1[i], soft.labels[i]);
                    let (own, pull) = (&mut rows[slot + 1], &mut pulls[slot]);
                    (own.row, own.extra, own.weight, pull.class) = (HeadRow::NONE, RowExtras::NONE, 0.0, NONE);
                    if let (true, Some((class, weight))) = (labels.0[i].counts(), soft.of(i).0[slot]) {
                        let (cosine, center) = cosine(i, class);
                        let [value, slope, slope_m2] = target.at(cosine, margins[i]);
                        own.row = HeadRow::new(class, cosine);
                        (own.row.logit, own.row.slope, own.weight) = (scale * value, slope, weight);
                        own.extra = RowExtras { value, slope_m2, center, ..RowExtras::NONE };
                        (pull.class, pull.center) = (class as u32, center);
                    }
                    for one in [0, slot + 1] {
                        let (value, slope) = other(rows[one].row.cosine, Place { bound: f64::INFINITY, late: true });
                        rows[one].other = [value, slope];
                    }
                }
            });
        }
    }
}

/// A row's weights and sums, and by what the sum of the rows is divided.
pub(super) struct Terms<'a, W> {
    pub loss: &'a Prepared,
    /// Those of a class, and of the row.
    pub weights: W,
    pub others: RowStatistics,
    /// upstream / Z.
    pub part: f64,
    pub length: f64,
}

impl Targets<'_> {
    /// The largest cosine of the targets beside the label.
    pub fn nearest(&self) -> f64 {
        let others = self.0[1..].iter().filter(|target| target.row.counts());
        others.map(|target| target.row.cosine).fold(f64::MIN, f64::max)
    }
}

impl<'a> Terms<'a, ()> {
    /// Of a row, from its sums over what is no target, upstream / Z, and its length.
    pub fn new(
        loss: &'a Prepared,
        weights: &'a impl Fn(usize, usize) -> Weights,
        row: usize,
        (others, part, length): (RowStatistics, f64, f64),
    ) -> Terms<'a, impl Fn(usize) -> Weights> {
        Terms { loss, weights: move |class| weights(row, class), others, part, length }
    }
}

impl<W: Fn(usize) -> Weights> Terms<'_, W> {
    /// The weights of a target.
    fn of(&self, target: &SoftRow) -> Weights {
        let mut weights = (self.weights)(target.row.class);
        weights.row *= target.weight;
        weights
    }

    /// The sums over the other classes of each target: with the other targets among them.
    fn sums(&self, targets: &[SoftRow]) -> [RowStatistics; MOST] {
        let one = |target: &SoftRow| {
            let weights = (self.weights)(target.row.class);
            let ([value, _], nearest) = (target.other, target.row.cosine);
            RowStatistics {
                max_logit: weights.scale * value,
                sum: 1.0,
                value_sum: value,
                weighted: weights.class() * value,
                nearest,
            }
        };
        // before a target, and after it: nothing is subtracted
        let mut all = [self.others; MOST];
        let mut sum = self.others;
        for (all, target) in all.iter_mut().zip(targets) {
            *all = sum;
            sum = if target.row.counts() { sum.merged(one(target)) } else { sum };
        }
        sum = RowStatistics::EMPTY;
        for (all, target) in all.iter_mut().zip(targets).rev() {
            *all = all.merged(sum);
            sum = if target.row.counts() { sum.merged(one(target)) } else { sum };
        }
        all
    }

    /// Whether f32 holds the logits of a linear head, all targets of a row.
    pub fn fits(&self, targets: &[SoftRow]) -> bool {
        let all = self.sums(targets);
        let mut counted = targets.iter().zip(&all).filter(|(target, _)| target.row.counts());
        counted.all(|(target, sums)| target.row.fits(self.loss.z_loss, sums, self.of(target)))
    }

    /// The weight of the row in Z.
    pub fn own(&self, targets: &[SoftRow]) -> f64 {
        if self.loss.binary().is_some() {
            return (self.weights)(targets[0].row.class).own();
        }
        let counted = targets.iter().filter(|target| target.row.counts());
        counted.fold(0.0, |sum, target| sum + self.of(target).own())
    }

    /// The contribution of a row to the batch, of all its targets, and what pass 2 needs of it.
    pub fn finish(&self, Targets(targets, pulls): Targets<'_>, row: &mut HeadRow, extra: &mut RowExtras) -> Share {
        let scale = (self.weights)(row.class).scale;
        let binary = self.loss.binary();
        let sums = if binary.is_some() { [RowStatistics::EMPTY; MOST] } else { self.sums(targets) };
        let (mut all, mut own) = (Share { loss: 0.0, log_sum_exp: 0.0, pull: 0.0, scale: 0.0, bias: 0.0 }, [0.0; MOST]);
        let mut length_gradient = 0.0;
        for (t, target) in targets.iter_mut().enumerate().filter(|(_, target)| target.row.counts()) {
            let (weights, others, parts) = match binary {
                None => (self.of(target), sums[t], [1.0; 2]),
                // whatever is no target is a negative of the label
                Some(_) => {
                    let (first, class) = (t == 0, target.row.class);
                    let others =
                        if first { self.negatives(target) } else { RowStatistics { max_logit: 0.0, ..sums[t] } };
                    ((self.weights)(class), others, [target.weight, f64::from(u8::from(first))])
                }
            };
            let (into, length) = ((&mut target.row, &mut target.extra), self.length);
            let share = finish_row(self.loss, into, &others, (weights, parts), self.part, length);
            own[t] = share.pull * target.row.slope;
            length_gradient += target.extra.length_gradient;
            all.loss += share.loss;
            all.scale += share.scale;
            all.bias += share.bias;
            if t == 0 {
                all.log_sum_exp = share.log_sum_exp;
            }
        }
        for (u, own) in own.iter_mut().enumerate().take(targets.len()) {
            *own += self.pushed(targets, u);
        }
        let (label, rest) = (own[0] as f32, &own[1..]);
        pulls.iter_mut().zip(rest).for_each(|(pull, own)| pull.pull = *own as f32);
        row.join(targets.iter().map(|target| (target.row, target.weight)), &self.others, binary.is_some());
        row.pull = label;
        extra.best = RowExtras::best_of(&self.others, scale);
        extra.length_gradient = length_gradient;
        all
    }

    /// The sums over the negatives of a binary link: a label of weight 0 is one.
    fn negatives(&self, label: &SoftRow) -> RowStatistics {
        let (mut all, [value, _]) = (self.others, label.other);
        if let (Some(link), true) = (self.loss.binary(), label.weight == 0.0) {
            let z = (self.weights)(label.row.class).scale * value + link.bias;
            all.sum += softplus(z);
            all.value_sum += sigmoid(z) * value;
            all.weighted += sigmoid(z);
        }
        all
    }

    /// G at a target as far as it is another class of the other targets.
    fn pushed(&self, targets: &[SoftRow], u: usize) -> f64 {
        let ([value, slope], own) = (targets[u].other, &targets[u].row);
        let weights = (self.weights)(targets[0].row.class);
        let z = weights.scale * value;
        match self.loss.binary() {
            _ if !own.counts() => 0.0,
            Some(link) if u == 0 && targets[0].weight == 0.0 => own.strength * sigmoid(z + link.bias) * slope,
            Some(_) => 0.0,
            None => {
                let class = (self.weights)(own.class).class();
                let others = targets.iter().enumerate().filter(|(t, target)| *t != u && target.row.counts());
                let push = |(_, target): (usize, &SoftRow)| {
                    let share = self.of(target).share() * class;
                    target.row.pushed(z) - self.part * weights.scale * share
                };
                others.map(push).fold(0.0, |sum, one| sum + one) * slope
            }
        }
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

//! The contribution of a row to the batch: of its label, and of several targets.

use super::{
    input::{HeadCall, ROWS, each},
    rows::{HeadRow, RowExtras, Share, Weights},
    soft::{MOST, NONE, SoftInput, SoftRow, TargetSlots, others, pushed},
};
use crate::{
    State,
    objective::{Prepared, RowFacts, others::Place, sigmoid, softplus},
    shard::RowStatistics,
};

impl SoftInput {
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
        // what follows the rows takes all of them, a target at a time
        let together = if loss.rows_adapt() { 1 } else { soft.count };
        let given = |i: usize, slot: usize| {
            soft.margins.as_ref().map_or_else(|| loss.margins(), |all| all[i * soft.count + slot])
        };
        for first in (0..soft.count).step_by(together) {
            let adapted = loss.rows_adapt().then(|| {
                let mut margins: Vec<_> = (0..facts.len()).map(|i| given(i, first)).collect();
                loss.adapt_margins(state, facts, &mut margins);
                margins
            });
            let margins = |i: usize, slot: usize| adapted.as_ref().map_or_else(|| given(i, slot), |own| own[i]);
            let blocks = self.blocks(Some(soft), facts.len(), ROWS).into_iter().enumerate().collect();
            each(call.parallel, blocks, |(block, targets): (usize, Vec<TargetSlots<'_>>)| {
                let (curve, other) = (loss.target_curve(), loss.other(state.hardness));
                let anywhere = Place { bound: f64::INFINITY, target: 0.0, late: true };
                for (i, TargetSlots(rows, pulls)) in (block * ROWS..).zip(targets) {
                    let [label, rows @ ..] = rows else { continue };
                    (label.row, label.extra, label.weight) = (labels.0[i], labels.1[i], soft.labels[i]);
                    label.other = other(label.row.cosine, anywhere).into();
                    let given = soft.of(i).0;
                    let slots = rows.iter_mut().zip(pulls).zip(given).enumerate().skip(first).take(together);
                    let mut slots: Vec<_> = slots.collect();
                    // all products of a row first: the next prototype comes while one is multiplied
                    for (_, ((own, pull), given)) in &mut slots {
                        (own.row, own.extra, own.weight, pull.class) = (HeadRow::NONE, RowExtras::NONE, 0.0, NONE);
                        if let Some((class, weight)) = given.filter(|_| label.row.counts()) {
                            let (cosine, center) = cosine(i, class);
                            (own.row, own.weight) = (HeadRow::new(class, cosine), weight);
                            (pull.class, pull.center) = (class as u32, center);
                        }
                    }
                    for (slot, ((own, pull), _)) in slots.into_iter().filter(|(_, ((own, _), _))| own.row.counts()) {
                        let [value, slope, slope_m2] = curve.at(own.row.cosine, margins(i, slot));
                        (own.row.logit, own.row.slope) = (scale * value, slope);
                        own.extra = RowExtras { value, slope_m2, center: pull.center, ..RowExtras::NONE };
                        own.other = other(own.row.cosine, anywhere).into();
                    }
                }
            });
        }
    }
}

/// The contribution of one row to the batch; writes the numbers of it that pass 2 needs. `part` is upstream / Z.
///
/// `parts`: factors on the label's term and on the others', of a binary link.
pub(super) fn finish_row(
    loss: &Prepared,
    (row, extra): (&mut HeadRow, &mut RowExtras),
    others: &RowStatistics,
    (weights, parts): (Weights, [f64; 2]),
    part: f64,
    length: f64,
) -> Share {
    extra.best = RowExtras::best_of(others, weights.scale);
    let mut share = match loss.binary() {
        None => row.finish(loss, extra.value, others, weights, part),
        Some(link) => row.finish_binary(extra.value, others, weights, link, parts, part),
    };
    if let Some(family) = loss.length_term() {
        let rise = if family.length(length).1 { family.rise() } else { 0.0 };
        let (value, slope) = family.length_term(length);
        let own = weights.own() * parts[1];
        share.loss += own * value;
        extra.length_gradient = (share.pull * extra.slope_m2 * rise + part * own * slope) as f32;
    }
    if loss.scales_by_length() {
        let (factor, free) = loss.length_factor(length);
        extra.length_gradient = if free { (weights.scale / factor * share.scale) as f32 } else { 0.0 };
        share.scale *= factor;
    }
    share
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
    pub fn finish(
        &self,
        TargetSlots(targets, pulls): TargetSlots<'_>,
        row: &mut HeadRow,
        extra: &mut RowExtras,
    ) -> Share {
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
        own.iter_mut().zip(self.pushed(targets)).for_each(|(own, pushed)| *own += pushed);
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

    /// G at each target as far as it is another class of the other targets.
    fn pushed(&self, targets: &[SoftRow]) -> [f64; MOST] {
        let mut all = [0.0; MOST];
        let Some(label) = targets.first() else { return all };
        let scale = (self.weights)(label.row.class).scale;
        if let Some(link) = self.loss.binary() {
            let [value, slope] = label.other;
            if label.row.counts() && label.weight == 0.0 {
                all[0] = label.row.strength * sigmoid(scale * value + link.bias) * slope;
            }
            return all;
        }
        let counted = || targets.iter().enumerate().filter(|(_, target)| target.row.counts());
        let mut shares = [0.0; MOST];
        counted().for_each(|(t, target)| shares[t] = self.of(target).share());
        let (pushed, shares) = (pushed(targets, scale), others(shares));
        for (t, target) in counted() {
            let class = (self.weights)(target.row.class).class();
            all[t] = (pushed[t] - self.part * scale * shares[t] * class) * target.other[1];
        }
        all
    }
}

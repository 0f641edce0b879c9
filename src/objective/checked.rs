//! Checks of a batch and of options against a loss, before any work.

use std::f64::consts::PI;

use super::{
    AdaFace, Adaptive, Coefficients, Curve, MagFace, MarginSoftmax, Reduction, SoftTargets, Target, Unified, in_range,
};
use crate::{
    Batch, Error, Label, Margins, Options, Result, Shape, Want,
    data::{Finite, Inputs, MAX_WEIGHT, MIN_WEIGHT, Predictions, SoftLabels, numbers},
    shape::check_length,
};

/// m0..m3 of every row.
type RowMargins = Vec<[f64; 4]>;

/// A batch that was checked against a loss and the classes of a shard; fields as in [`Batch`].
#[derive(Debug, Clone)]
pub(crate) struct CheckedBatch<'a, T = f32> {
    pub embeddings: &'a [T],
    pub prototypes: &'a [T],
    pub class_weights: Option<&'a [T]>,
    pub row_weights: Option<&'a [T]>,
    pub divisor: Option<T>,
    pub upstream: Option<&'a [T]>,
    pub bias: Option<&'a [T]>,
    /// One per row.
    pub labels: Vec<i64>,
    /// Where the batch brings any.
    pub margins: Option<RowMargins>,
    /// As the batch brings them: of classes, and of rows.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code))] // a device looks them up
    pub given_margins: [Margins<'a, T>; 2],
    /// Targets beside the labels.
    pub soft: Option<SoftTargets>,
}

/// The rows' labels as numbers, and what follows from them.
type CheckedTargets = (Vec<i64>, Option<RowMargins>, Option<SoftTargets>);

impl<T> CheckedBatch<'_, T> {
    pub fn rows(&self) -> usize {
        self.labels.len()
    }
}

impl<'a, L: Label, T: Finite> Batch<'a, L, T> {
    /// Checks every length, label and number, before any work; prototypes and bias are those of the classes in `range`.
    pub(crate) fn check(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        range: &std::ops::Range<usize>,
    ) -> Result<CheckedBatch<'a, T>> {
        self.check_beside(loss, shape, range, [self.embeddings.len(), self.prototypes.len()])
    }

    /// The same with embeddings and prototypes of these lengths from elsewhere; the result has the batch's.
    pub(crate) fn check_beside(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        range: &std::ops::Range<usize>,
        [embeddings, prototypes]: [usize; 2],
    ) -> Result<CheckedBatch<'a, T>> {
        let rows = self.check_rows(shape)?;
        check_length("embeddings", embeddings, rows * shape.dim())?;
        check_length("prototypes", prototypes, shape.prototypes()? / shape.classes() * range.len())?;
        let (labels, margins, soft) = self.check_rest(loss, shape, range)?;
        let &Batch { embeddings, prototypes, class_weights, row_weights, divisor, upstream, bias, .. } = self;
        Ok(CheckedBatch {
            embeddings,
            prototypes,
            class_weights,
            row_weights,
            divisor,
            upstream,
            bias,
            labels,
            margins,
            given_margins: [self.class_margins, self.row_margins],
            soft,
        })
    }

    fn check_rows(&self, shape: Shape) -> Result<usize> {
        let (found, allowed) = (self.labels.len(), shape.rows());
        if found > allowed { Err(Error::Rows { found, allowed }) } else { Ok(found) }
    }

    /// Everything but embeddings and prototypes. Returns the labels as numbers, the rows' margins where the batch brings any, and
    /// their soft labels.
    pub(crate) fn check_rest(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        range: &std::ops::Range<usize>,
    ) -> Result<CheckedTargets> {
        let rows = self.check_rows(shape)?;
        if let Some(weights) = self.class_weights {
            check_length("class_weights", weights.len(), shape.classes())?;
            check_weights("class_weights", weights.iter().map(|w| w.wide()))?;
        }
        if let Some(upstream) = self.upstream {
            check_length("upstream", upstream.len(), if loss.is_unreduced() { rows } else { 1 })?;
            if let Some(found) = upstream.iter().find(|u| !u.is_finite()).map(|u| u.wide()) {
                return Err(Error::Parameter { what: "upstream", found, allowed: "finite numbers" });
            }
        }
        if let Some(bias) = self.bias {
            check_length("bias", bias.len(), range.len())?;
            if !loss.is_linear() {
                return Err(Error::Combination { what: "bias", why: "only a linear head adds one" });
            }
            if let Some(found) = bias.iter().find(|b| !b.is_finite()).map(|b| b.wide()) {
                return Err(Error::Parameter { what: "bias", found, allowed: "finite numbers" });
            }
        }
        for (what, margins, expected) in
            [("class_margins", &self.class_margins, shape.classes()), ("row_margins", &self.row_margins, rows)]
        {
            for m in margins.each().into_iter().flatten() {
                check_length(what, m.len(), expected)?;
            }
        }
        let labels = numbers(self.labels, loss.ignore_index, shape.classes())?;
        self.check_row_weights(loss, &labels)?;
        let counted = labels.iter().map(|&label| (Some(label) != loss.ignore_index).then_some(label as usize));
        let margins = self.margins(loss, counted.enumerate())?;
        let soft = self.soft_targets(loss, shape, &labels)?;
        Ok((labels, margins, soft))
    }

    /// The rows' weights, their products with those of their classes, and the divisor.
    fn check_row_weights(&self, loss: &MarginSoftmax, labels: &[i64]) -> Result<()> {
        if let Some(weights) = self.row_weights {
            check_length("row_weights", weights.len(), labels.len())?;
            check_weights("row_weights", weights.iter().map(|w| w.wide()))?;
            if let Some(classes) = self.class_weights {
                let counted = weights.iter().zip(labels).filter(|(_, label)| Some(**label) != loss.ignore_index);
                let products = counted.map(|(v, &label)| v.wide() * classes[label as usize].wide());
                check_weights("row_weights · class_weights", products)?;
                if loss.label_smoothing > 0.0 {
                    // every class has a part of every row
                    let [largest, all] =
                        [weights, classes].map(|weights| weights.iter().map(|w| w.wide()).fold(0.0, f64::max));
                    check_weights("row_weights · class_weights", [largest * all].into_iter().filter(|w| *w > 1.0))?;
                }
            }
        }
        if let Some(divisor) = self.divisor {
            loss.check_divisor(divisor.wide())?;
        }
        Ok(())
    }

    /// m0..m3 of every target, a row with a class, where the batch brings any: the row's, else the class', else the loss' own.
    /// Where there is no class, as in an ignored row, they are the loss' own.
    fn margins(
        &self,
        loss: &MarginSoftmax,
        targets: impl Iterator<Item = (usize, Option<usize>)>,
    ) -> Result<Option<RowMargins>> {
        if !self.class_margins.any() && !self.row_margins.any() {
            return Ok(None);
        }
        let refuse = |why| Err(Error::Combination { what: "margins of classes and rows", why });
        let Target::Unified(margin) = &loss.target else {
            return refuse("only a unified target has m0..m3");
        };
        let (by_class, by_row) = (self.class_margins.each(), self.row_margins.each());
        let differs = |k: usize| by_class[k].is_some() || by_row[k].is_some();
        if loss.is_linear() && (differs(1) || differs(2)) {
            return refuse("a linear head has no angles: m0 and m3 only");
        }
        if let Curve::Series(series) = &margin.curve {
            match series.coefficients {
                Coefficients::Given(_) if differs(1) || differs(2) => {
                    return refuse("given series coefficients cannot follow m1 and m2");
                }
                Coefficients::Fit if differs(1) => return refuse("fitted series coefficients cannot follow m1"),
                _ => {}
            }
        }
        let of = |(row, class): (usize, Option<usize>)| {
            let mut m = margin.margins();
            if let Some(class) = class {
                for (k, m) in m.iter_mut().enumerate() {
                    let own = by_row[k].map(|r| r[row]).or(by_class[k].map(|c| c[class]));
                    *m = own.map_or(*m, Finite::wide);
                }
                m[2] = unrounded(m[2]);
                let largest = match loss.adaptive {
                    Adaptive::AdaFace(AdaFace { margin, .. }) => margin,
                    Adaptive::MagFace(MagFace { upper_margin, .. }) => upper_margin,
                    _ => m[2],
                };
                margin.with_margins([m[0], m[1], largest, m[3]]).validate_row()?;
            }
            Ok(m)
        };
        targets.map(of).collect::<Result<_>>().map(Some)
    }
}

impl<L: Label, T: Finite> Batch<'_, L, T> {
    /// The targets of the rows with these labels, if the batch has soft labels.
    fn soft_targets(&self, loss: &MarginSoftmax, shape: Shape, labels: &[i64]) -> Result<Option<SoftTargets>> {
        let Some(SoftLabels { count, classes, weights }) = self.soft_labels else { return Ok(None) };
        loss.check_soft_labels()?;
        SoftLabels::check_count(count)?;
        check_length("soft_labels.classes", classes.len(), labels.len() * count)?;
        check_length("soft_labels.weights", weights.len(), labels.len() * count)?;
        check_weights("soft_labels.weights", weights.iter().map(|w| w.wide()))?;
        let mut soft = SoftTargets { count, labels: vec![], others: vec![], margins: None };
        soft.others.reserve_exact(labels.len() * count);
        let mut all: Vec<(usize, f64)> = vec![];
        for (row, (&label, own)) in labels.iter().zip(classes.chunks_exact(count)).enumerate() {
            all.clear();
            let counted = Some(label) != loss.ignore_index;
            for (&class, weight) in own.iter().zip(&weights[row * count..]).filter(|_| counted) {
                let Ok(class) = usize::try_from(class) else { continue };
                if class >= shape.classes() {
                    return Err(Error::Label { row, label: class as i128, classes: shape.classes() });
                }
                self.check_target_weight(row, class, weight.wide())?;
                match all.binary_search_by_key(&class, |(known, _)| *known) {
                    Ok(place) => all[place].1 += weight.wide(),
                    Err(place) => all.insert(place, (class, weight.wide())),
                }
            }
            all.retain(|(_, weight)| *weight > 0.0);
            let of_label = |&(class, weight): &(usize, f64)| (class as i64 == label).then_some(weight);
            soft.labels.push(all.iter().find_map(of_label).unwrap_or(0.0));
            let others = all.drain(..).filter(|&(class, _)| class as i64 != label).map(Some);
            soft.others.extend(others.chain(std::iter::repeat(None)).take(count));
        }
        let slots = soft.others.iter().enumerate();
        soft.margins =
            self.margins(loss, slots.map(|(slot, target)| (slot / count, target.map(|(class, _)| class))))?;
        Ok(Some(soft))
    }

    /// The product of a target's weight with those of its row and class.
    fn check_target_weight(&self, row: usize, class: usize, weight: f64) -> Result<()> {
        let of = |weights: Option<&[T]>, i: usize| weights.map_or(1.0, |w| w[i].wide());
        let product = weight * of(self.row_weights, row) * of(self.class_weights, class);
        check_weights("soft_labels.weights · row_weights · class_weights", [product].into_iter())
    }
}

/// Refuses weights with which sums, and gradients divided by them, leave f32.
fn check_weights(what: &'static str, mut weights: impl Iterator<Item = f64>) -> Result<()> {
    match weights.find(|&w| !(w == 0.0 || (MIN_WEIGHT..=MAX_WEIGHT).contains(&(w as f32)))) {
        Some(found) => Err(Error::Parameter { what, found, allowed: "0, or 1e-30 <= w <= 1e24" }),
        None => Ok(()),
    }
}

impl MarginSoftmax {
    /// Refuses gradients of margins that nobody can move; `soft`: with soft labels.
    pub(crate) fn check_margin_gradients(&self, want: Want, soft: bool) -> Result<()> {
        let refuse = |why| Err(Error::Combination { what: "grad_margins", why });
        let given = |margin: &Unified| match &margin.curve {
            Curve::Series(series) => matches!(series.coefficients, Coefficients::Given(_)),
            Curve::Exact => false,
        };
        match &self.target {
            _ if want.grad_margins.is_none() => Ok(()),
            _ if soft => refuse("each target of soft labels has margins of its own"),
            _ if self.rows_adapt() => refuse("the margins of rows follow from the rows themselves"),
            Target::Unified(margin) if given(margin) => refuse("given series coefficients cannot follow m1 and m2"),
            Target::Unified(_) => Ok(()),
            _ => refuse("only a unified target has m0..m3"),
        }
    }

    /// Refuses to divide the sum over the rows by this number.
    pub(crate) fn check_divisor(&self, found: f64) -> Result<()> {
        if self.reduction != Reduction::Mean {
            return Err(Error::Combination { what: "divisor", why: "only the mean divides by something" });
        }
        in_range("divisor", found, (1e-30..=1e30).contains(&found), "1e-30 <= divisor <= 1e30")
    }
}

/// m2 as it was before it became an f32: a multiple of π/12 where it is the f32 nearest to one, so that thresholds at exact
/// multiples stay exact.
fn unrounded(m2: f64) -> f64 {
    let whole = (m2 * 12.0 / PI).round() / 12.0 * PI;
    if f64::from(whole as f32) == m2 { whole } else { m2 }
}

/// The label of rows that have none: it names no class, and no loss ignores it.
const UNLABELLED: i64 = i64::MAX - 1;

impl<'a, T: Finite> Inputs<'a, T> {
    /// A batch without labels, checked like any other.
    pub(crate) fn check(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        range: &std::ops::Range<usize>,
    ) -> Result<CheckedBatch<'a, T>> {
        let &Self { embeddings, prototypes, bias } = self;
        let rows = embeddings.len() / shape.dim();
        check_length("embeddings", embeddings.len(), embeddings.len().next_multiple_of(shape.dim()))?;
        if rows > shape.rows() {
            return Err(Error::Rows { found: rows, allowed: shape.rows() });
        }
        let none: &[i64] = &[];
        let batch = Batch { embeddings: &embeddings[..0], prototypes, bias, labels: none, ..Batch::default() };
        let checked = batch.check(loss, shape, range)?;
        Ok(CheckedBatch { embeddings, labels: vec![UNLABELLED; rows], ..checked })
    }
}

impl Options {
    /// Refuses a filter where no gradient passes through G, and predictions and gradients of margins that are not possible.
    pub(crate) fn check(&self, loss: &MarginSoftmax, shape: Shape, range: &std::ops::Range<usize>) -> Result<()> {
        if let Some(count) = self.predictions {
            Predictions::<f32>::check(count, shape.classes())?;
            if *range != (0..shape.classes()) {
                let why = "a shard's statistics have none: take a predictor of each shard, and Predictions::merged";
                return Err(Error::Combination { what: "predictions", why });
            }
        }
        if let Some(count) = self.soft_labels {
            loss.check_soft_labels()?;
            SoftLabels::check_count(count)?;
            let refuse = |why| Err(Error::Combination { what: "soft_labels", why });
            if *range != (0..shape.classes()) {
                return refuse("shards exchange one target of a row");
            }
            if self.predictions.is_some() {
                return refuse("predictions know one target of a row: take a predictor");
            }
        }
        loss.check_margin_gradients(self.want, self.soft_labels.is_some())?;
        let classes = self.want.grad_bias && loss.is_linear();
        if self.filter.is_some() && !(self.want.grad_embeddings || self.want.grad_prototypes || classes) {
            let why = "neither dX nor dW nor a db per class is wanted, so there is nothing to filter";
            return Err(Error::Combination { what: "filter", why });
        }
        Ok(())
    }
}

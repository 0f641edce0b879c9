//! A loss that was checked for a head: validated once, its coefficients computed once, and the few questions that engines
//! have about it answered here.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use super::{
    AdaFace, Adaptive, Binary, Curve, Elastic, Link, MagFace, Margin, MarginSoftmax, Others, Reduction, RowFacts,
    Similarity, State, Target, TargetCurve, TopK,
    link::{sigmoid, softplus},
    others::{Evaluator, OtherCurve},
};
use crate::{Result, Shape};

/// A loss that was checked for a head. It reads as the loss itself.
#[derive(Clone)]
pub(crate) struct Prepared {
    loss: MarginSoftmax,
    /// Made at the first use, as are the coefficients below: a loss that is only passed on allocates nothing.
    target_curve: OnceLock<Arc<dyn TargetCurve>>,
    /// Of a transform of the other classes that is a series.
    others_series: OnceLock<Option<Vec<f64>>>,
}

impl Deref for Prepared {
    type Target = MarginSoftmax;

    fn deref(&self) -> &MarginSoftmax {
        &self.loss
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.loss.fmt(f)
    }
}

impl Prepared {
    /// Checks a loss for heads with the classes and sub-centers of this shape.
    pub fn new(loss: &MarginSoftmax, shape: Shape) -> Result<Self> {
        loss.validate_for(shape)?;
        Ok(Self { loss: loss.clone(), target_curve: OnceLock::new(), others_series: OnceLock::new() })
    }

    /// Another loss for the same heads; what it shares with this one is not computed again.
    pub fn updated(&self, loss: &MarginSoftmax, shape: Shape) -> Result<Self> {
        let mut next = Self::new(loss, shape)?;
        if loss.target == self.loss.target {
            next.target_curve = self.target_curve.clone();
        }
        if loss.others == self.loss.others {
            next.others_series = self.others_series.clone();
        }
        Ok(next)
    }

    /// The curve of the labelled class.
    pub fn target_curve(&self) -> &dyn TargetCurve {
        &**self.target_curve.get_or_init(|| self.loss.target.prepare())
    }

    /// dφ/dm0..m3 at a target cosine x; 0 by m1 and m2 in a linear head, which has no angle.
    pub fn margin_slopes(&self, x: f64, margins: [f64; 4]) -> [f64; 4] {
        let [m0, m1, m2, m3] = self.target_curve().margin_slopes(x, margins);
        if self.is_linear() { [m0, 0.0, 0.0, m3] } else { [m0, m1, m2, m3] }
    }

    /// The damped coefficients of the transform of the other classes, where it is a series.
    pub fn others_series(&self) -> Option<&[f64]> {
        self.others_series.get_or_init(|| self.loss.others.series()).as_deref()
    }

    /// Value and slope of another class; `hardness` is CurricularFace's t.
    pub fn other(&self, hardness: f64) -> Evaluator<'_> {
        self.loss.others.evaluator(hardness, self.others_series())
    }
}

/// The questions that engines ask of a loss.
impl MarginSoftmax {
    /// Whether products are plain, of vectors as they are, instead of cosines.
    pub(crate) fn is_linear(&self) -> bool {
        self.similarity == Similarity::Dot
    }

    /// The binary problems that the classes are; none for softmax.
    pub(crate) fn binary(&self) -> Option<Binary> {
        match self.link {
            Link::Softmax => None,
            Link::Binary(binary) => Some(binary),
        }
    }

    /// How many of the other classes are chosen per row before margins apply.
    pub(crate) fn top_k(&self) -> usize {
        match self.others {
            Others::TopK(TopK { count, .. }) => count,
            _ => 0,
        }
    }

    /// Whether the state's hardness follows the batch.
    pub(crate) fn hardness_follows(&self) -> bool {
        self.others == Others::Curricular
    }

    /// Whether the state's mean and deviation of the lengths follow the batch.
    pub(crate) fn lengths_follow(&self) -> bool {
        matches!(self.adaptive, Adaptive::AdaFace(AdaFace { .. }))
    }

    /// Whether the state's scale is the one in force, and follows the batch by sums at the scale before.
    pub(crate) fn scale_follows(&self) -> bool {
        self.adaptive == Adaptive::AdaCos
    }

    /// Whether anything in the state follows the batch.
    pub(crate) fn state_follows(&self) -> bool {
        self.hardness_follows() || self.lengths_follow() || self.scale_follows()
    }

    /// The noise that is drawn per row and step, if any is.
    pub(crate) fn draws(&self) -> Option<Elastic> {
        match self.adaptive {
            Adaptive::Elastic(elastic) => Some(elastic),
            _ => None,
        }
    }

    /// The term of the embedding's norm in a row's loss, if there is one.
    pub(crate) fn length_term(&self) -> Option<MagFace> {
        match self.adaptive {
            Adaptive::MagFace(magface) => Some(magface),
            _ => None,
        }
    }

    /// Whether the scale of a row follows the length of its embedding.
    pub(crate) fn scales_by_length(&self) -> bool {
        matches!(self.adaptive, Adaptive::Length(_))
    }

    /// The factor of a row's scale by the length of its embedding, and whether that is free to move it.
    pub(crate) fn length_factor(&self, length: f64) -> (f64, bool) {
        match self.adaptive {
            Adaptive::Length(family) => family.factor(length),
            _ => (1.0, false),
        }
    }

    /// Whether a row's margins follow from the row itself.
    pub(crate) fn rows_adapt(&self) -> bool {
        !matches!(self.adaptive, Adaptive::None | Adaptive::AdaCos) && !self.scales_by_length()
    }

    /// Whether the target has margins m0..m3, so that classes and rows may bring their own.
    pub(crate) fn has_margins(&self) -> bool {
        matches!(self.target, Target::Unified(_))
    }

    /// m0..m3 of the loss itself.
    pub(crate) fn margins(&self) -> [f64; 4] {
        self.target.margins()
    }

    /// Sets the margins of rows that follow from the rows themselves.
    pub(crate) fn adapt_margins(&self, state: &State, rows: &[RowFacts], margins: &mut [[f64; 4]]) {
        self.adaptive.apply(state, rows, margins);
    }

    /// Whether the curve of a unified target is a series.
    pub(crate) fn is_series(&self) -> bool {
        matches!(&self.target, Target::Unified(margin) if matches!(margin.curve, Curve::Series(_)))
    }

    /// The target curve from outside, if it is one.
    pub(crate) fn custom(&self) -> Option<&dyn Margin> {
        match &self.target {
            Target::Custom(custom) => Some(custom.margin()),
            _ => None,
        }
    }

    /// The transform of the other classes from outside, if it is one.
    pub(crate) fn custom_others(&self) -> Option<&dyn OtherCurve> {
        match &self.others {
            Others::Custom(custom) => Some(custom.curve()),
            _ => None,
        }
    }

    /// Whether rows keep their losses, each with an upstream gradient of its own.
    pub(crate) fn is_unreduced(&self) -> bool {
        self.reduction == Reduction::None
    }

    /// The loss of a batch from the sum of its rows' losses and Z.
    pub(crate) fn reduced(&self, sum: f64, z: f64) -> f64 {
        match self.reduction {
            // NaN where a row is NaN, 0 where no row counts
            Reduction::Mean if z > 0.0 || sum.is_nan() => sum / z,
            Reduction::Mean => 0.0,
            Reduction::Sum | Reduction::None => sum,
        }
    }

    /// The number that the sum over the rows is divided by; `z`: the weights of the rows that count.
    pub(crate) fn divisor(&self, z: f64, given: Option<f64>) -> f64 {
        match self.reduction {
            Reduction::Mean => given.unwrap_or(z),
            Reduction::Sum | Reduction::None => 1.0,
        }
    }

    /// (1 − P)^γ, which the cross entropy softplus(d) of a row is multiplied by, and the factor of its slope σ(d) then; P is σ(−d).
    pub(crate) fn focal_terms(&self, d: f64) -> [f64; 2] {
        if self.focal == 0.0 {
            return [1.0; 2];
        }
        let wrong = sigmoid(d);
        // softplus(d) / σ(d), which tends to 1
        let ratio = if wrong < 1e-16 { 1.0 } else { softplus(d) / wrong };
        let factor = (-self.focal * softplus(-d)).exp();
        [factor, factor * (1.0 + self.focal * sigmoid(-d) * ratio)]
    }
}

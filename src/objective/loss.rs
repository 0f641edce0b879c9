//! The loss itself, with the checks of its numbers and of how its parts combine.

use super::{
    AdaFace, Adaptive, Coefficients, Curve, Elastic, Fallback, Link, MagFace, Others, Target, Unified,
    adaptive::first_scale, in_range,
};
use crate::{Error, Result, Shape};

/// A margin-softmax loss: plain data, checked by [`validate`](Self::validate) wherever it is used.
///
/// ```text
/// z_ij   = scale · other(c_ij)    for the other classes         c_ij = cosine of embedding i and prototype j
/// z_iy   = scale · φ(c_iy)        for the labelled class
/// loss_i = cross_entropy(z_i, y_i), label smoothing and class weights as in torch.nn.functional.cross_entropy
/// ```
///
/// [`similarity`](Self::similarity) may put plain products in the place of cosines, [`link`](Self::link) one binary problem per
/// class in the place of the cross entropy, [`adaptive`](Self::adaptive) margins or a scale that follow the row.
///
/// Fields are public; change a margin or the scale between steps and pass the loss to `update`: nothing is
/// recompiled or allocated.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct MarginSoftmax {
    /// The curve of the labelled class; default: no margin.
    pub target: Target,
    /// The transform of every other class; default: the cosine itself.
    pub others: Others,
    /// Cosines, or plain products; default cosines.
    #[cfg_attr(feature = "serde", serde(rename = "product"))]
    pub similarity: Similarity,
    /// How logits become a loss; default softmax.
    pub link: Link,
    /// Where the margins and the scale of a row come from; default: from here.
    pub adaptive: Adaptive,
    /// s, the inverse temperature: 0 < s ≤ 1e6; default 64. Learnable: its gradient is among the outputs.
    pub scale: f64,
    /// ε of label smoothing, 0 ≤ ε < 1; default 0.
    pub label_smoothing: f64,
    /// γ of the focal loss, 0 ≤ γ ≤ 16; default 0, usual 2. A row's loss is multiplied by (1 − P)^γ, with P the probability of
    /// the label by the margin logits; its gradient follows. Softmax without label smoothing only.
    pub focal: f64,
    /// λ of the z-loss, 0 ≤ λ ≤ 1e3; default 0, usual 1e-4. Adds λ times the square of the row's log-sum-exp, of the loss' own
    /// logits, times the weights of the row and its class. Softmax only.
    pub z_loss: f64,
    /// How the rows' losses become one; default mean.
    pub reduction: Reduction,
    /// Rows with this label have loss 0 and no gradient. Any value, also one that is a class; default none.
    pub ignore_index: Option<i64>,
}

/// The similarity c_ij of embedding and prototype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Similarity {
    /// The cosine of embedding and prototype.
    #[default]
    Cosine,
    /// The plain product with an optional bias per class: w_j·x_i + b_j, the linear layer of a classifier. Takes a straight
    /// target (m0·x − m3), no transform of the other classes, and nothing adaptive.
    #[cfg_attr(feature = "serde", serde(rename = "linear"))]
    Dot,
}

/// How the rows' losses become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Reduction {
    /// Σ loss_i / Z with Z = Σ v_i·w_{y_i} over the rows that are not ignored; 0 where Z is 0. The mean of a batch from its
    /// micro-batches is Σ Z_k · loss_k / Σ Z_k; with Σ Z_k as [`Batch::divisor`](crate::Batch) of each it is the sum of their
    /// losses, and so are the gradients.
    #[default]
    Mean,
    /// Σ loss_i.
    Sum,
    /// The rows' losses are the result; the upstream gradient has one value per row. The scalar `loss` is then their
    /// sum, the value whose gradient an upstream of ones gives.
    None,
}

impl Reduction {
    /// The JSON name.
    pub fn name(self) -> &'static str {
        match self {
            Reduction::Mean => "mean",
            Reduction::Sum => "sum",
            Reduction::None => "none",
        }
    }
}

impl Default for MarginSoftmax {
    fn default() -> Self {
        Self {
            target: Target::Unified(Unified::default()),
            others: Others::Identity,
            similarity: Similarity::Cosine,
            link: Link::Softmax,
            adaptive: Adaptive::None,
            scale: 64.0,
            label_smoothing: 0.0,
            focal: 0.0,
            z_loss: 0.0,
            reduction: Reduction::Mean,
            ignore_index: None,
        }
    }
}

impl Similarity {
    /// The JSON name.
    pub fn name(self) -> &'static str {
        match self {
            Similarity::Cosine => "cosine",
            Similarity::Dot => "linear",
        }
    }
}

impl MarginSoftmax {
    /// Checks every number against its range. NaN and infinity are refused everywhere.
    pub fn validate(&self) -> Result<()> {
        if !(self.scale > 0.0 && self.scale <= 1e6) {
            return Err(Error::Parameter { what: "scale", found: self.scale, allowed: "0 < scale <= 1e6" });
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let (found, allowed) = (self.label_smoothing, "0 <= label_smoothing < 1");
            return Err(Error::Parameter { what: "label_smoothing", found, allowed });
        }
        in_range("focal", self.focal, (0.0..=16.0).contains(&self.focal), "0 <= focal <= 16")?;
        in_range("z_loss", self.z_loss, (0.0..=1e3).contains(&self.z_loss), "0 <= z_loss <= 1e3")?;
        if let Some(index) = self.ignore_index
            && i32::try_from(index).is_err()
        {
            return Err(Error::Parameter { what: "ignore_index", found: index as f64, allowed: "an i32" });
        }
        self.target.validate()?;
        self.others.validate()?;
        self.link.validate()?;
        self.adaptive.validate()?;
        self.combines()
    }

    /// Which parts exclude each other.
    fn combines(&self) -> Result<()> {
        let refuse = |what, why| Err(Error::Combination { what, why });
        let unified = match &self.target {
            Target::Unified(margin) => Some(margin),
            _ => None,
        };
        if self.is_linear() {
            if !unified.is_some_and(Unified::is_linear) {
                return refuse("product.linear", "it needs a straight target: m1 = 1 and m2 = 0");
            }
            if self.others != Others::Identity || self.link != Link::Softmax || self.adaptive != Adaptive::None {
                return refuse("product.linear", "it takes no transform of the others, no link and nothing adaptive");
            }
        }
        if self.link != Link::Softmax && self.label_smoothing > 0.0 {
            return refuse("label_smoothing", "the binary link has no label distribution to smooth");
        }
        if self.focal > 0.0 && (self.label_smoothing > 0.0 || self.link != Link::Softmax) {
            return refuse("focal", "it needs the probability of one label: softmax without label smoothing");
        }
        if self.z_loss > 0.0 && self.link != Link::Softmax {
            return refuse("z_loss", "the binary link has no log-sum-exp");
        }
        if self.hardness_follows() && !self.has_margins() {
            return refuse("others.curricular", "the bound cos(theta + m2) needs the margins of a unified target");
        }
        let Some(margin) = unified else {
            return match self.rows_adapt() {
                true => refuse("adaptive", "margins that follow the row need a unified target"),
                false => Ok(()),
            };
        };
        match self.adaptive {
            Adaptive::AdaFace(_) if margin.m2 != 0.0 || margin.m3 != 0.0 => {
                refuse("adaptive.adaface", "it sets m2 and m3, which must be 0 in the target")
            }
            Adaptive::MagFace(_) if margin.m2 != 0.0 => {
                refuse("adaptive.magface", "it sets m2, which must be 0 in the target")
            }
            Adaptive::AdaFace(AdaFace { margin: m, .. }) => {
                margin.with_margins([margin.m0, margin.m1, m, m]).validate_row()?;
                self.follows("adaptive.adaface", margin)
            }
            Adaptive::MagFace(MagFace { upper_margin, .. }) => {
                margin.with_margins([margin.m0, margin.m1, upper_margin, margin.m3]).validate_row()?;
                self.follows("adaptive.magface", margin)
            }
            Adaptive::Elastic(Elastic { cosine: false, .. }) => self.follows("adaptive.elastic", margin),
            _ => Ok(()),
        }
    }

    /// A curve whose m2 moves cannot have fixed coefficients, nor a fallback that is refused for some m2.
    fn follows(&self, what: &'static str, margin: &Unified) -> Result<()> {
        let given = matches!(&margin.curve, Curve::Series(s) if matches!(s.coefficients, Coefficients::Given(_)));
        if given {
            let why = "given series coefficients cannot follow m2";
            return Err(Error::Combination { what, why });
        }
        if matches!(self.adaptive, Adaptive::Elastic(_)) && margin.fallback == Fallback::Easy {
            let why = "the easy fallback does not exist for every m2 that may be drawn";
            return Err(Error::Combination { what, why });
        }
        Ok(())
    }

    /// The checks that depend on the number of classes.
    pub(crate) fn validate_for(&self, shape: Shape) -> Result<()> {
        self.validate()?;
        let count = self.top_k();
        if count >= shape.classes() {
            let (found, allowed) = (count as f64, "a number below that of the classes");
            return Err(Error::Parameter { what: "top_k.count", found, allowed });
        }
        if self.is_linear() && shape.sub_centers() > 1 {
            let why = "sub-centers are compared by cosine";
            return Err(Error::Combination { what: "product.linear", why });
        }
        match self.adaptive {
            Adaptive::AdaCos => first_scale(shape.classes()).map(drop),
            _ => Ok(()),
        }
    }

    /// φ and dφ/dx at the target cosine x, without the scale.
    pub fn target_value_slope(&self, x: f64) -> (f64, f64) {
        self.target.value_slope(x)
    }

    /// The margins of a unified target, to change them in place.
    pub fn unified_mut(&mut self) -> Option<&mut Unified> {
        match &mut self.target {
            Target::Unified(margin) => Some(margin),
            _ => None,
        }
    }

    /// With another scale.
    pub fn with_scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// With the target curve changed: `MarginSoftmax::arcface().with_margin(|m| m.m2 = 0.3)`.
    pub fn with_margin(mut self, change: impl FnOnce(&mut Unified)) -> Self {
        if let Some(margin) = self.unified_mut() {
            change(margin);
        }
        self
    }

    /// With another transform of the other classes.
    pub fn with_others(mut self, others: Others) -> Self {
        self.others = others;
        self
    }

    /// With margins that follow the row, or a scale that follows the batch.
    pub fn with_adaptive(mut self, adaptive: Adaptive) -> Self {
        self.adaptive = adaptive;
        self
    }

    /// With label smoothing ε.
    pub fn with_label_smoothing(mut self, epsilon: f64) -> Self {
        self.label_smoothing = epsilon;
        self
    }

    /// With γ of the focal loss.
    pub fn with_focal(mut self, gamma: f64) -> Self {
        self.focal = gamma;
        self
    }

    /// With λ of the z-loss.
    pub fn with_z_loss(mut self, lambda: f64) -> Self {
        self.z_loss = lambda;
        self
    }

    /// With another reduction.
    pub fn with_reduction(mut self, reduction: Reduction) -> Self {
        self.reduction = reduction;
        self
    }

    /// With rows of this label left out.
    pub fn with_ignore_index(mut self, index: i64) -> Self {
        self.ignore_index = Some(index);
        self
    }
}

//! WHAT is computed: a loss as plain, validated data, and its scalar formulas. No device, no threads.

pub mod chebyshev;
pub mod others;
mod presets;
mod regularizer;
mod unified;

pub use chebyshev::{Coefficients, Damping, Series};
pub use others::Others;
pub use presets::{PRESETS, Preset};
pub use regularizer::{CenterLoss, Regularizer};
pub use unified::{Curve, Fallback, Slope, Unified};

use crate::{Error, Result};

/// A vector shorter than this counts as zero: its direction is x/1e-12 and its gradient exactly 0.
pub const SHORTEST: f64 = 1e-12;

/// A margin-softmax loss: plain data, checked by [`validate`](Self::validate) wherever it is used.
///
/// ```text
/// z_ij   = scale · other(c_ij)    for the other classes         c_ij = cosine of embedding i and prototype j
/// z_iy   = scale · φ(c_iy)        for the labelled class
/// loss_i = cross_entropy(z_i, y_i), label smoothing and class weights as in torch.nn.functional.cross_entropy
/// ```
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
    /// s, the inverse temperature: 0 < s ≤ 1e6; default 64.
    pub scale: f64,
    /// ε of label smoothing, 0 ≤ ε < 1; default 0.
    pub label_smoothing: f64,
    /// How the rows' losses become one; default mean.
    pub reduction: Reduction,
    /// Rows with this label have loss 0 and no gradient. Any value, also one that is a class; default none.
    pub ignore_index: Option<i64>,
}

/// The curve of the labelled class.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Target {
    /// m0..m3: NormFace, CosFace, ArcFace, SphereFace, AmpFace, ChebyAAM and their combinations.
    Unified(Unified),
}

/// How the rows' losses become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Reduction {
    /// Σ loss_i / Σ w_{y_i} over the rows that are not ignored.
    #[default]
    Mean,
    /// Σ loss_i.
    Sum,
    /// The rows' losses are the result; the upstream gradient has one value per row. The scalar `loss` is then their
    /// sum, the value whose gradient an upstream of ones gives.
    None,
}

impl Reduction {
    /// The name as it stands in JSON.
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
            scale: 64.0,
            label_smoothing: 0.0,
            reduction: Reduction::Mean,
            ignore_index: None,
        }
    }
}

impl Target {
    /// The name as it stands in JSON, and of the shader snippet.
    pub fn name(&self) -> &'static str {
        match self {
            Target::Unified(_) => "unified",
        }
    }

    /// φ and dφ/dx at the target cosine x, as the forward and the backward pass use them.
    pub fn value_slope(&self, x: f64) -> (f64, f64) {
        match self {
            Target::Unified(margin) => margin.value_slope(x),
        }
    }

    /// The same for many cosines; what is common to them is computed once.
    pub(crate) fn evaluator(&self) -> impl Fn(f64) -> (f64, f64) + '_ {
        let Target::Unified(margin) = self;
        let prepared = margin.prepare();
        move |x| prepared.value_slope(x)
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
        if let Some(index) = self.ignore_index
            && i32::try_from(index).is_err()
        {
            return Err(Error::Parameter { what: "ignore_index", found: index as f64, allowed: "an i32" });
        }
        match &self.target {
            Target::Unified(margin) => margin.validate(),
        }
    }

    /// φ and dφ/dx at the target cosine x, without the scale.
    pub fn target_value_slope(&self, x: f64) -> (f64, f64) {
        self.target.value_slope(x)
    }

    /// The margins, to change them in place.
    pub fn unified_mut(&mut self) -> Option<&mut Unified> {
        let Target::Unified(margin) = &mut self.target;
        Some(margin)
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

    /// With label smoothing ε.
    pub fn with_label_smoothing(mut self, epsilon: f64) -> Self {
        self.label_smoothing = epsilon;
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

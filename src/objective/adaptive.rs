//! Margins that differ from row to row, and scales that follow the batch.

use super::in_range;
use crate::{
    Error, Result,
    uniforms::{Settings, constants::*},
};

/// Where the margins of a row, or the scale of a step, come from.
///
/// The numbers that a run must keep are in [`State`](super::State): they move in `train` calls only, never in an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Adaptive {
    /// From the loss, and from the margins of classes and rows that a batch may bring.
    #[default]
    None,
    /// m2 and m3 follow the norm of the embedding among the lengths seen so far.
    #[cfg_attr(feature = "serde", serde(rename = "adaface"))]
    AdaFace(AdaFace),
    /// m2 follows the norm of the embedding, which gets a gradient too.
    #[cfg_attr(feature = "serde", serde(rename = "magface"))]
    MagFace(MagFace),
    /// m2 or m3 is drawn per row and step.
    Elastic(Elastic),
    /// The scale of a row follows the norm of the embedding, which gets a gradient too.
    Length(Length),
    /// The scale follows the batch (AdaCos, dynamic); `scale` of the loss is not used. Kept within \[0.01, 1e6\], which the
    /// paper does not do: with few classes far from every embedding it would fall below 0. At least three classes.
    #[cfg_attr(feature = "serde", serde(rename = "adacos"))]
    AdaCos,
}

/// AdaFace: `ẑ = clip(h·(|x| − μ)/(σ + 1e-3), −1, 1)`, m2 = −m·ẑ, m3 = m·(1 + ẑ), with |x| within \[1e-3, 100\] and
/// running mean μ and deviation σ of the lengths. No gradient through ẑ.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct AdaFace {
    /// m, 0 ≤ m < π/2; default 0.4 (AdaFace).
    pub margin: f64,
    /// h, 0 < h ≤ 100; default 0.333 (AdaFace).
    pub concentration: f64,
    /// How fast the running statistics follow, 0 < rate ≤ 1; default 0.01 (the authors' code).
    pub rate: f64,
}

impl Default for AdaFace {
    fn default() -> Self {
        Self { margin: 0.4, concentration: 0.333, rate: 0.01 }
    }
}

/// MagFace: m2 grows linearly from `lower_margin` to `upper_margin` while |x| grows from `lower_length` to
/// `upper_length`; |x| counts as at the nearer end beyond them. Every row that counts also loses
/// `w · weight · (|x|/upper_length² + 1/|x|)`, where w is the class weight of its label. This term of the length is part of
/// the row loss, so it follows the reduction and the upstream gradient as the rest of the row does; with equal class
/// weights and `Reduction::Mean` it adds the mean of the authors' code.
///
/// Between the two lengths |x| gets a gradient from both parts. Where the slope is detached the margin gives it none, and
/// the term of the length alone remains.
///
/// In the regions of the fallbacks sine and continuous, whose values depend on m2 too, the length gets the true derivative.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct MagFace {
    /// l_a ≥ 1e-6; default 10 (MagFace).
    pub lower_length: f64,
    /// u_a ≤ 1e6, larger than l_a by at least a thousandth; default 110 (MagFace).
    pub upper_length: f64,
    /// l_m ≥ 0; default 0.45 (MagFace).
    pub lower_margin: f64,
    /// u_m, l_m ≤ u_m < π; default 0.8 (MagFace).
    pub upper_margin: f64,
    /// λ, the factor of the term of the length, 0 ≤ λ ≤ 1e6; default 35 (MagFace). Below
    /// s·(u_m − l_m)/(u_a − l_a)·u_a²·l_a²/(u_a² − l_a²) the best length may be infinite.
    pub weight: f64,
}

impl Default for MagFace {
    fn default() -> Self {
        Self { lower_length: 10.0, upper_length: 110.0, lower_margin: 0.45, upper_margin: 0.8, weight: 35.0 }
    }
}

impl MagFace {
    /// dm2/d|x| between the two lengths.
    pub(crate) fn rise(&self) -> f64 {
        (self.upper_margin - self.lower_margin) / (self.upper_length - self.lower_length)
    }

    /// The length as it counts, and whether it is free to move.
    pub(crate) fn length(&self, length: f64) -> (f64, bool) {
        let inside = (self.lower_length..=self.upper_length).contains(&length);
        (length.clamp(self.lower_length, self.upper_length), inside)
    }

    pub(crate) fn margin(&self, length: f64) -> f64 {
        let margin = self.lower_margin + self.rise() * (self.length(length).0 - self.lower_length);
        margin.min(self.upper_margin) // which a rounded sum may exceed
    }

    /// The term of the length of a row with class weight 1, and its slope in |x|.
    pub(crate) fn length_term(&self, length: f64) -> (f64, f64) {
        let ((a, inside), square) = (self.length(length), self.upper_length * self.upper_length);
        let slope = if inside { 1.0 / square - 1.0 / (a * a) } else { 0.0 };
        (self.weight * (a / square + 1.0 / a), self.weight * slope)
    }
}

/// Embeddings that are not normalised: the scale of a row is s·|x|, with |x| within two lengths, so its logits are
/// s·|x|·φ(cos θ_y) and s·|x|·other(cos θ_j). The first form of SphereFace (A-Softmax), and NormFace without feature
/// normalisation.
///
/// The length gets the gradient of its row's scale, dL/d|x| = s·dL/ds_i, but none outside of the lengths. dL/ds is Σ |x|·dL/ds_i.
/// Log-probabilities of predictions are at the scale of the row.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Length {
    /// A shorter embedding counts as this one; 1e-6 ≤ lower_length ≤ upper_length; default 1e-3.
    pub lower_length: f64,
    /// A longer embedding counts as this one; at most 1e6; default 1e3.
    pub upper_length: f64,
}

impl Default for Length {
    fn default() -> Self {
        Self { lower_length: 1e-3, upper_length: 1e3 }
    }
}

impl Length {
    /// The factor of the scale, and whether the length is free to move it.
    pub(crate) fn factor(&self, length: f64) -> (f64, bool) {
        let inside = (self.lower_length..=self.upper_length).contains(&length);
        // a length that is NaN counts as the lower one
        (length.max(self.lower_length).min(self.upper_length), inside)
    }
}

/// ElasticFace: m2 (Arc) or m3 (Cos) is normally distributed around the value in the loss, per row and step; m2 is kept
/// within ±3.
///
/// A draw follows from [`State::seed`](super::State::seed), [`State::step`](super::State::step) and the row's index in its batch, ignored rows included. Two
/// micro-batches of one step, or two replicas that train side by side, therefore repeat each other's draws unless each has
/// a seed of its own, and their gradients do not add up to those of one large batch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Elastic {
    /// Whether m3 is drawn, instead of m2; default false.
    pub cosine: bool,
    /// The standard deviation, 0 ≤ d ≤ 10; default 0.05 (ElasticFace).
    pub deviation: f64,
    /// "+": the largest draw goes to the row with the smallest target cosine, and so on; default false.
    pub sorted: bool,
}

impl Default for Elastic {
    fn default() -> Self {
        Self { cosine: false, deviation: 0.05, sorted: false }
    }
}

impl Elastic {
    /// A margin with its draw.
    pub(crate) fn moved(&self, margin: f64, draw: f64) -> f64 {
        if self.cosine { margin + draw } else { (margin + draw).clamp(-MAX_DRAWN, MAX_DRAWN) }
    }
}

impl Adaptive {
    /// The JSON name.
    pub fn name(&self) -> &'static str {
        match self {
            Adaptive::None => "none",
            Adaptive::AdaFace(_) => "adaface",
            Adaptive::MagFace(_) => "magface",
            Adaptive::Elastic(_) => "elastic",
            Adaptive::Length(_) => "length",
            Adaptive::AdaCos => "adacos",
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        match *self {
            Adaptive::None | Adaptive::AdaCos => Ok(()),
            Adaptive::AdaFace(AdaFace { margin, concentration, rate }) => {
                let half = std::f64::consts::FRAC_PI_2;
                in_range("adaface.margin", margin, (0.0..half).contains(&margin), "0 <= m < pi/2")?;
                let inside = concentration > 0.0 && concentration <= 100.0;
                in_range("adaface.concentration", concentration, inside, "0 < h <= 100")?;
                in_range("adaface.rate", rate, rate > 0.0 && rate <= 1.0, "0 < rate <= 1")
            }
            Adaptive::MagFace(MagFace { lower_length, upper_length, lower_margin, upper_margin, weight }) => {
                let least = lower_length >= 1e-6 && lower_length * 1.001 <= upper_length;
                in_range("magface.lower_length", lower_length, least, "1e-6 <= lower_length <= upper_length / 1.001")?;
                in_range("magface.upper_length", upper_length, upper_length <= 1e6, "upper_length <= 1e6")?;
                let low = (0.0..=upper_margin).contains(&lower_margin);
                in_range("magface.lower_margin", lower_margin, low, "0 <= lower_margin <= upper_margin")?;
                let high = upper_margin < std::f64::consts::PI;
                in_range("magface.upper_margin", upper_margin, high, "upper_margin < pi (radians)")?;
                in_range("magface.weight", weight, (0.0..=1e6).contains(&weight), "0 <= weight <= 1e6")
            }
            Adaptive::Elastic(Elastic { deviation, .. }) => {
                in_range("elastic.deviation", deviation, (0.0..=10.0).contains(&deviation), "0 <= deviation <= 10")
            }
            Adaptive::Length(Length { lower_length, upper_length }) => {
                let high = (1e-6..=1e6).contains(&upper_length);
                in_range("length.upper_length", upper_length, high, "1e-6 <= upper_length <= 1e6")?;
                let low = (1e-6..=upper_length).contains(&lower_length);
                in_range("length.lower_length", lower_length, low, "1e-6 <= lower_length <= upper_length")
            }
        }
    }
}

impl Adaptive {
    /// Writes the numbers that shaders read.
    pub(crate) fn fill(&self, settings: &mut Settings) {
        match *self {
            Adaptive::None => {}
            Adaptive::AdaFace(family) => {
                settings.adaptive = ADAFACE;
                settings.base = family.margin as f32;
                settings.rise = family.concentration as f32;
                settings.rate = family.rate as f32;
            }
            Adaptive::MagFace(family) => {
                settings.adaptive = MAGFACE;
                (settings.lower, settings.upper) = (family.lower_length as f32, family.upper_length as f32);
                (settings.base, settings.rise) = (family.lower_margin as f32, family.rise() as f32);
                settings.top = family.upper_margin as f32;
                settings.strength = family.weight as f32;
            }
            Adaptive::Elastic(family) => {
                settings.adaptive = if family.cosine { ELASTIC_COSINE } else { ELASTIC_ANGLE };
                settings.flag(SORTED, family.sorted);
            }
            Adaptive::Length(family) => {
                settings.adaptive = LENGTH_SCALE;
                (settings.lower, settings.upper) = (family.lower_length as f32, family.upper_length as f32);
            }
            Adaptive::AdaCos => settings.flags |= OWN_SCALE,
        }
    }
}

/// AdaFace: a shorter length counts as this.
pub(crate) const SHORT_LENGTH: f64 = 1e-3;
/// AdaFace: a longer length counts as this.
pub(crate) const LONG_LENGTH: f64 = 100.0;
/// AdaFace: added to the deviation before it divides.
pub(crate) const DEVIATION_FLOOR: f64 = 1e-3;
/// ElasticFace: the largest |m2| with its draw.
pub(crate) const MAX_DRAWN: f64 = 3.0;
/// CurricularFace: the share of a batch in the hardness.
pub(crate) const HARDNESS_RATE: f64 = 0.01;
/// AdaCos: a smaller cosine of the median angle counts as this, that of 45°.
pub(crate) const MIN_MEDIAN: f64 = std::f64::consts::FRAC_1_SQRT_2;

/// Dynamic AdaCos stays above this: with few classes far from every embedding log B falls below 0.
/// At the other end it stays at the largest scale of a state: where embeddings lie closer than 45° to wrong classes it grows
/// each step.
pub(crate) const SMALLEST_SCALE: f64 = 1e-2;

/// AdaCos' first scale, √2·log(C − 1); an error below three classes, where it would be 0 for ever.
pub(crate) fn first_scale(classes: usize) -> Result<f64> {
    if classes < 3 {
        let why = "AdaCos needs at least 3 classes: its scale starts at sqrt(2) log(classes - 1)";
        return Err(Error::Combination { what: "adaptive.adacos", why });
    }
    Ok(std::f64::consts::SQRT_2 * (classes as f64 - 1.0).ln())
}

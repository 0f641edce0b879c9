//! How a row's logits become its loss.

use super::{
    in_range,
    snippet::{SharedText, Snippet, wgsl},
};
use crate::{Result, uniforms::Settings};

/// How a row's logits become its loss.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Link {
    /// Softmax cross entropy over all classes.
    #[default]
    Softmax,
    /// One binary problem per class (SphereFace2).
    Binary(Binary),
}

/// C binary problems per row:
/// `factor · [ weight · softplus(−z_y) + (1 − weight) · Σ_{j≠y} softplus(z_j) ]`, each logit with `bias` added.
///
/// Class weights multiply a row's loss as ever; label smoothing is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Binary {
    /// λ, the share of the labelled class, 0 ≤ λ ≤ 1; default 0.7 (SphereFace2, wespeaker).
    pub weight: f64,
    /// κ, a factor on the loss, 0 < κ ≤ 1e6; default 1 (wespeaker; the paper: 1/s).
    pub factor: f64,
    /// b, added to every logit, |b| ≤ 1e6; default 0 (wespeaker). Learnable: its gradient is among the outputs.
    pub bias: f64,
}

impl Default for Binary {
    fn default() -> Self {
        Self { weight: 0.7, factor: 1.0, bias: 0.0 }
    }
}

impl Link {
    /// The shader that computes it.
    pub(crate) fn snippet(&self) -> Snippet {
        let text = match self {
            Link::Softmax => wgsl!("link/softmax"),
            Link::Binary(_) => wgsl!("link/binary"),
        };
        Snippet { text, needs: &[SharedText::Exponential] }
    }

    /// The JSON name, and of the shader snippet.
    pub fn name(&self) -> &'static str {
        match self {
            Link::Softmax => "softmax",
            Link::Binary(_) => "binary",
        }
    }

    /// Writes the numbers that its shader reads.
    pub(crate) fn fill(&self, settings: &mut Settings) {
        let Link::Binary(Binary { weight, factor, bias }) = *self else { return };
        settings.bias = bias as f32;
        settings.attract = (factor * weight) as f32;
        settings.repel = (factor * (1.0 - weight)) as f32;
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let Link::Binary(Binary { weight, factor, bias }) = *self else { return Ok(()) };
        in_range("binary.weight", weight, (0.0..=1.0).contains(&weight), "0 <= weight <= 1")?;
        in_range("binary.factor", factor, factor > 0.0 && factor <= 1e6, "0 < factor <= 1e6")?;
        in_range("binary.bias", bias, bias.abs() <= 1e6, "-1e6 <= bias <= 1e6")
    }
}

impl Binary {
    /// The bias at which a fresh head, all cosines at 0, gives the least loss: opensphere's start.
    ///
    /// `weight` between 0 and 1, `classes` at least 2; `positive` and `negative` are the logits at the label and elsewhere,
    /// without bias.
    pub fn opensphere_bias(weight: f64, classes: usize, positive: f64, negative: f64) -> f64 {
        let z = weight / ((1.0 - weight) * (classes.max(2) as f64 - 1.0));
        let root = ((1.0 - z).powi(2) + 4.0 * z * (positive - negative).exp()).sqrt();
        // two forms of one root: each cancels where the other is used
        if z > 1.0 {
            (0.5 * (z - 1.0 + root)).ln() - positive
        } else {
            (2.0 * z).ln() - negative - (1.0 - z + root).ln()
        }
    }
}

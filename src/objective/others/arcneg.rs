use num_traits::Float;

use super::transform::{Evaluator, Other, Place, Transform, number};
use crate::{
    Result,
    objective::{
        in_range,
        snippet::{SharedText, Snippet, wgsl},
    },
    uniforms::Settings,
};

/// ArcNegFace: t·c + t − 1 with t = α·exp(−(c − φ(c_y) − μ)²/2σ²): classes near the target's logit with margin count more,
/// those far from it, which may be noise, less. "Towards Flops-constrained Face Recognition", ICCV workshops 2019.
///
/// As in the authors' code no gradient passes through t, neither to c nor to the target: the slope is t.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct ArcNeg {
    /// α, 0 < factor ≤ 1e3; default 1.2 (the authors' code).
    pub factor: f64,
    /// μ, |mean| ≤ 2; default 0.
    pub mean: f64,
    /// σ, 0.05 ≤ deviation ≤ 1e9; default 1: the `sigma = 2` of the authors' code is 2σ².
    pub deviation: f64,
}

impl Default for ArcNeg {
    fn default() -> Self {
        Self { factor: 1.2, mean: 0.0, deviation: 1.0 }
    }
}

impl ArcNeg {
    /// −1/2σ².
    pub(crate) fn decay(&self) -> f64 {
        -0.5 / (self.deviation * self.deviation)
    }
}

impl Other for ArcNeg {
    /// `place.bound` is φ of the row's target.
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, place: Place<T>) -> (T, T) {
        let d = c - place.bound - number(self.mean);
        let t = number::<T>(self.factor) * (d * d * number(self.decay())).exp();
        (t * (c + T::one()) - T::one(), t)
    }
}

impl Transform for ArcNeg {
    fn name(&self) -> &'static str {
        "arcneg"
    }

    fn snippet(&self) -> Snippet {
        Snippet { text: wgsl!("others/arcneg"), needs: &[SharedText::Exponential] }
    }

    fn validate(&self) -> Result<()> {
        let Self { factor, mean, deviation } = *self;
        in_range("arcneg.factor", factor, factor > 0.0 && factor <= 1e3, "0 < factor <= 1e3")?;
        in_range("arcneg.mean", mean, mean.abs() <= 2.0, "-2 <= mean <= 2")?;
        in_range("arcneg.deviation", deviation, (0.05..=1e9).contains(&deviation), "0.05 <= deviation <= 1e9")
    }

    fn evaluator<'a>(&'a self, _hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(|c, place| self.value_slope(c, place))
    }

    fn fill(&self, settings: &mut Settings, _series: Option<&[f64]>) {
        (settings.other_a, settings.other_b) = (self.factor as f32, self.mean as f32);
        settings.other_c = self.decay() as f32;
    }

    fn sees_target(&self) -> bool {
        true
    }
}

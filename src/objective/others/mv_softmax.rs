use num_traits::Float;

use super::transform::{Evaluator, Other, Place, Transform, number};
use crate::{
    Result,
    objective::{
        in_range,
        snippet::{Snippet, wgsl},
    },
    uniforms::Settings,
};

/// MV-Softmax: a class harder than the target's logit with margin, c > φ(c_y), counts more: (1 + t)·c + t. "Mis-classified
/// Vector Guided Softmax Loss for Face Recognition", AAAI 2020. No gradient passes through the comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct MvSoftmax {
    /// t, 0 ≤ t ≤ 1e3; default 0.2 (the authors' code).
    pub weight: f64,
    /// c + t in the place of (1 + t)·c + t: the fixed form of the paper; default false, the adaptive one.
    pub fixed: bool,
}

impl Default for MvSoftmax {
    fn default() -> Self {
        Self { weight: 0.2, fixed: false }
    }
}

impl MvSoftmax {
    /// The slope of a hard class.
    fn slope(&self) -> f64 {
        if self.fixed { 1.0 } else { 1.0 + self.weight }
    }
}

impl Other for MvSoftmax {
    /// `place.bound` is φ of the row's target.
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, place: Place<T>) -> (T, T) {
        let (slope, t): (T, T) = (number(self.slope()), number(self.weight));
        if c > place.bound { (slope * c + t, slope) } else { (c, T::one()) }
    }
}

impl Transform for MvSoftmax {
    fn name(&self) -> &'static str {
        "mv_softmax"
    }

    fn snippet(&self) -> Snippet {
        Snippet::plain(wgsl!("others/mv_softmax"))
    }

    fn validate(&self) -> Result<()> {
        in_range("mv_softmax.weight", self.weight, (0.0..=1e3).contains(&self.weight), "0 <= weight <= 1e3")
    }

    fn evaluator<'a>(&'a self, _hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(|c, place| self.value_slope(c, place))
    }

    fn fill(&self, settings: &mut Settings, _series: Option<&[f64]>) {
        (settings.other_a, settings.other_b) = (self.slope() as f32, self.weight as f32);
    }

    fn sees_target(&self) -> bool {
        true
    }
}

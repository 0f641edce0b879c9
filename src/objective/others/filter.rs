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

/// The interclass filter of insightface: a cosine above the threshold becomes 0 and exerts no force; it still counts as
/// exp(0) in the softmax.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct InterclassFilter {
    /// 0 < threshold ≤ 1; default 0.4.
    pub threshold: f64,
}

impl Default for InterclassFilter {
    fn default() -> Self {
        Self { threshold: 0.4 }
    }
}

impl Other for InterclassFilter {
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, _: Place<T>) -> (T, T) {
        if c > number(self.threshold) { (T::zero(), T::zero()) } else { (c, T::one()) }
    }
}

impl Transform for InterclassFilter {
    fn name(&self) -> &'static str {
        "filter"
    }

    fn snippet(&self) -> Snippet {
        Snippet::plain(wgsl!("others/filter"))
    }

    fn validate(&self) -> Result<()> {
        let inside = self.threshold > 0.0 && self.threshold <= 1.0;
        in_range("filter.threshold", self.threshold, inside, "0 < threshold <= 1")
    }

    fn evaluator<'a>(&'a self, _hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(|c, place| self.value_slope(c, place))
    }

    fn fill(&self, settings: &mut Settings, _series: Option<&[f64]>) {
        settings.other_a = self.threshold as f32;
    }
}

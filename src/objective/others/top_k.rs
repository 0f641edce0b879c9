use num_traits::Float;

use super::transform::{Evaluator, Other, Place, Transform, number};
use crate::{
    Error, Result,
    objective::{
        in_range,
        snippet::{Snippet, wgsl},
        target::unified::SMALLEST_SINE,
    },
    uniforms::Settings,
};

/// Inter-topk: the k largest cosines of the other classes become cos(max(θ − margin, 0)); of equal ones the lower class
/// comes first. "Multi-query multi-head attention pooling and Inter-topK penalty for speaker verification", ICASSP 2022.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct TopK {
    /// k, from 1 to 64 and below the number of classes; default 5 (wespeaker).
    pub count: usize,
    /// In radians, 0 ≤ margin < π/2; default 0.06 (wespeaker).
    pub margin: f64,
}

impl Default for TopK {
    fn default() -> Self {
        Self { count: 5, margin: 0.06 }
    }
}

impl TopK {
    /// The most classes that may be chosen.
    pub const MAX: usize = 64;
}

impl Other for TopK {
    /// `place.bound` is the k-th largest cosine.
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, place: Place<T>) -> (T, T) {
        if !(c > place.bound || c == place.bound && !place.late) {
            return (c, T::one());
        }
        let (sine, cosine): (T, T) = (number(self.margin.sin()), number(self.margin.cos()));
        if c > cosine {
            return (T::one(), T::zero());
        }
        let s = ((T::one() - c) * (T::one() + c)).max(T::zero()).sqrt();
        (c * cosine + s * sine, cosine - sine * c / s.max(number(SMALLEST_SINE)))
    }
}

impl Transform for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn snippet(&self) -> Snippet {
        Snippet::plain(wgsl!("others/top_k"))
    }

    fn validate(&self) -> Result<()> {
        let (count, margin) = (self.count, self.margin);
        if !(1..=Self::MAX).contains(&count) {
            return Err(Error::Parameter { what: "top_k.count", found: count as f64, allowed: "1 ..= 64" });
        }
        let half = std::f64::consts::FRAC_PI_2;
        in_range("top_k.margin", margin, (0.0..half).contains(&margin), "0 <= margin < pi/2 (radians)")
    }

    fn evaluator<'a>(&'a self, _hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(|c, place| self.value_slope(c, place))
    }

    fn fill(&self, settings: &mut Settings, _series: Option<&[f64]>) {
        settings.top_k = self.count as u32;
        (settings.other_a, settings.other_b) = (self.margin.cos() as f32, self.margin.sin() as f32);
    }
}

//! SphereFace2's curve g(c) = 2((c+1)/2)^t − 1: it stretches the cosines where pairs are hard.

use std::sync::Arc;

use super::{
    curve::{BuiltIn, TargetCurve},
    unified::{Fallback, SMALLEST_SINE, Slope, Unified},
};
use crate::{
    Error, Result,
    objective::{
        in_range,
        others::{Evaluator, Transform},
        snippet::{SharedText, Snippet, wgsl},
    },
    uniforms::{Settings, constants::*},
};

/// `g(c) = 2·((c + 1)/2)^t − 1` with a margin on the cosine or on the angle; meant for the [binary](crate::Link::Binary)
/// link.
///
/// | `angular` | labelled class | other classes | who |
/// |---|---|---|---|
/// | false | g(c) − m | g(c) + m | SphereFace2-C (the paper, wespeaker, opensphere) |
/// | true | g(cos(θ + m)), continuous beyond π − m | g(cos(θ − m)) | SphereFace2-A (wespeaker) |
///
/// Below −1, which the continuous curve reaches, the power keeps the sign of its base.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct SimilarityAdjustment {
    /// t, a whole number from 1 to 16; default 3 (wespeaker, opensphere).
    pub exponent: u32,
    /// m, |m| ≤ 1e6 on the cosine, 0 ≤ m < π on the angle; default 0.2 (wespeaker).
    pub margin: f64,
    /// Whether the margin is one of the angle.
    pub angular: bool,
    /// The slope that the backward pass uses.
    pub slope: Slope,
}

impl Default for SimilarityAdjustment {
    fn default() -> Self {
        Self { exponent: 3, margin: 0.2, angular: false, slope: Slope::Analytic }
    }
}

impl SimilarityAdjustment {
    /// g and g'.
    fn stretch(&self, c: f64) -> (f64, f64) {
        let base = (c + 1.0) / 2.0;
        let below = base.abs().powi(self.exponent as i32 - 1);
        (2.0 * below * base - 1.0, f64::from(self.exponent) * below)
    }

    fn finish(&self, value: f64, slope: f64) -> (f64, f64) {
        (value, if self.slope == Slope::Detached { 1.0 } else { slope })
    }

    /// Value and slope at another class.
    pub(crate) fn other(&self, c: f64) -> (f64, f64) {
        if !self.angular {
            let (g, slope) = self.stretch(c);
            return self.finish(g + self.margin, slope);
        }
        let (value, inner_slope) = turned(c, self.margin);
        let (g, slope) = self.stretch(value);
        self.finish(g, slope * inner_slope)
    }
}

/// cos(θ − m) and its slope in c = cos θ.
pub(super) fn turned(c: f64, m: f64) -> (f64, f64) {
    let sine = ((1.0 - c) * (1.0 + c)).max(0.0).sqrt();
    (c * m.cos() + sine * m.sin(), m.cos() - m.sin() * c / sine.max(SMALLEST_SINE))
}

impl BuiltIn for SimilarityAdjustment {
    fn name(&self) -> &'static str {
        "power"
    }

    fn snippet(&self) -> Snippet {
        let needs = &[SharedText::Angle, SharedText::Series, SharedText::FixedMargins, SharedText::PowerCurve];
        Snippet { text: wgsl!("target/power"), needs }
    }

    fn validate(&self) -> Result<()> {
        let (m, t) = (self.margin, self.exponent);
        if !(1..=16).contains(&t) {
            return Err(Error::Parameter { what: "power.exponent", found: t.into(), allowed: "1 ..= 16" });
        }
        if self.angular {
            return in_range("power.margin", m, (0.0..std::f64::consts::PI).contains(&m), "0 <= m < pi (radians)");
        }
        in_range("power.margin", m, m.abs() <= 1e6, "-1e6 <= m <= 1e6")
    }

    fn prepare(&self) -> Arc<dyn TargetCurve> {
        Arc::new(*self)
    }
}

impl TargetCurve for SimilarityAdjustment {
    fn at(&self, x: f64, _: [f64; 4]) -> [f64; 3] {
        let (value, slope) = if self.angular {
            let margin = Unified { m2: self.margin, fallback: Fallback::Continuous, ..Default::default() };
            let (inner, inner_slope) = margin.value_slope(x);
            let (g, slope) = self.stretch(inner);
            self.finish(g, slope * inner_slope)
        } else {
            let (g, slope) = self.stretch(x);
            self.finish(g - self.margin, slope)
        };
        [value, slope, 0.0]
    }

    fn fill(&self, settings: &mut Settings, _varied: bool) {
        if self.angular {
            let margin = Unified { m2: self.margin, ..Default::default() };
            margin.prepare().fill(settings, false);
            settings.flags |= ANGULAR;
        }
        settings.m1 = self.exponent as f32;
        settings.m3 = if self.angular { 0.0 } else { self.margin as f32 };
        settings.flag(DETACHED, self.slope == Slope::Detached);
    }
}

impl Transform for SimilarityAdjustment {
    fn name(&self) -> &'static str {
        "power"
    }

    fn snippet(&self) -> Snippet {
        Snippet { text: wgsl!("others/power"), needs: &[SharedText::PowerCurve] }
    }

    fn validate(&self) -> Result<()> {
        BuiltIn::validate(self)
    }

    fn evaluator<'a>(&'a self, _hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(|c, _| self.other(c))
    }

    fn fill(&self, settings: &mut Settings, _series: Option<&[f64]>) {
        settings.flag(OTHER_DETACHED, self.slope == Slope::Detached);
        settings.flag(OTHER_ANGULAR, self.angular);
        settings.other_a = self.exponent as f32;
        settings.other_b = if self.angular { self.margin.cos() } else { self.margin } as f32;
        settings.other_c = self.margin.sin() as f32;
    }

    fn loop_iterations(&self) -> usize {
        16
    }
}

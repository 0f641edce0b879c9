//! Logits that are linear in the angle itself: ArcGrad and Li-ArcFace.

use std::sync::{Arc, OnceLock};

use super::{
    curve::{BuiltIn, TargetCurve},
    unified::{Curve, SMALLEST_SINE, Slope},
};
use crate::{
    Result,
    objective::{
        chebyshev::value_slope,
        in_range,
        others::{Evaluator, Transform},
        snippet::{SharedText, Snippet, wgsl},
    },
    uniforms::{Settings, constants::*, put},
};

/// `φ(cos θ) = offset − factor · (θ + margin)`, for the labelled class and for the others.
///
/// ArcGrad is factor 1 for every class: its logits are −s·θ, so that its gradient does not fade as θ → 0. Li-ArcFace is
/// factor 2/π and offset 1, with a margin at the label.
///
/// The slope of the exact curve is factor / max(sin θ, 1e-4). A series is that of arccos: its slope is at most
/// `factor · (4/π)·⌈degree/2⌉`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Angle {
    /// The cost of an angle of one radian, 0 < factor ≤ 1e6; default 1.
    pub factor: f64,
    /// Added to the angle, in radians, |margin| < π; default 0.
    pub margin: f64,
    /// The value at θ + margin = 0, |offset| ≤ 1e6; default 0.
    pub offset: f64,
    /// arccos, or its Chebyshev series.
    pub curve: Curve,
    /// The slope that the backward pass uses.
    pub slope: Slope,
}

impl Default for Angle {
    fn default() -> Self {
        Self { factor: 1.0, margin: 0.0, offset: 0.0, curve: Curve::Exact, slope: Slope::Analytic }
    }
}

impl Angle {
    /// The damped coefficients of arccos, where this curve is a series.
    pub(crate) fn series(&self) -> Option<Vec<f64>> {
        match &self.curve {
            Curve::Exact => None,
            Curve::Series(series) => Some(series.arccos()),
        }
    }

    /// Value and slope, with the coefficients of [`series`](Self::series).
    pub(crate) fn value_slope(&self, x: f64, series: Option<&[f64]>) -> (f64, f64) {
        let (angle, slope) = match series {
            Some(series) => value_slope(series, x),
            None => {
                let sine = ((1.0 - x) * (1.0 + x)).max(0.0).sqrt();
                (sine.atan2(x), -1.0 / sine.max(SMALLEST_SINE))
            }
        };
        let slope = match self.slope {
            Slope::Analytic => -self.factor * slope,
            Slope::Detached => 1.0,
        };
        (self.offset - self.factor * (angle + self.margin), slope)
    }
}

impl BuiltIn for Angle {
    fn name(&self) -> &'static str {
        "angle"
    }

    fn snippet(&self) -> Snippet {
        Snippet {
            text: wgsl!("target/angle"),
            needs: &[SharedText::Angle, SharedText::Series, SharedText::FixedMargins],
        }
    }

    fn validate(&self) -> Result<()> {
        let Self { factor, margin, offset, .. } = *self;
        in_range("angle.factor", factor, factor > 0.0 && factor <= 1e6, "0 < factor <= 1e6")?;
        in_range("angle.margin", margin, margin.abs() < std::f64::consts::PI, "-pi < margin < pi (radians)")?;
        in_range("angle.offset", offset, offset.abs() <= 1e6, "-1e6 <= offset <= 1e6")?;
        match &self.curve {
            Curve::Exact => Ok(()),
            Curve::Series(series) => series.validate(),
        }
    }

    fn prepare(&self) -> Arc<dyn TargetCurve> {
        Arc::new(AngleCurve { angle: self.clone(), series: OnceLock::new() })
    }
}

/// A target that is linear in the angle, ready to evaluate.
pub(crate) struct AngleCurve {
    angle: Angle,
    series: OnceLock<Option<Vec<f64>>>,
}

impl AngleCurve {
    fn series(&self) -> Option<&[f64]> {
        self.series.get_or_init(|| self.angle.series()).as_deref()
    }
}

impl TargetCurve for AngleCurve {
    fn at(&self, x: f64, _: [f64; 4]) -> [f64; 3] {
        let (value, slope) = self.angle.value_slope(x, self.series());
        [value, slope, 0.0]
    }

    fn fill(&self, settings: &mut Settings, _varied: bool) {
        let angle = &self.angle;
        (settings.m0, settings.m2, settings.m3) = (angle.factor as f32, angle.margin as f32, angle.offset as f32);
        settings.flag(DETACHED, angle.slope == Slope::Detached);
        if let Some(series) = self.series() {
            settings.flags |= SERIES;
            settings.pairs = put(&mut settings.series, series);
        }
    }
}

impl Transform for Angle {
    fn name(&self) -> &'static str {
        "angle"
    }

    fn snippet(&self) -> Snippet {
        Snippet { text: wgsl!("others/angle"), needs: &[SharedText::Angle, SharedText::Series] }
    }

    fn validate(&self) -> Result<()> {
        BuiltIn::validate(self)
    }

    fn series(&self) -> Option<Vec<f64>> {
        self.series()
    }

    fn evaluator<'a>(&'a self, _hardness: f64, series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(move |c, _| self.value_slope(c, series))
    }

    fn fill(&self, settings: &mut Settings, series: Option<&[f64]>) {
        settings.flag(OTHER_DETACHED, self.slope == Slope::Detached);
        settings.other_a = self.factor as f32;
        (settings.other_b, settings.other_c) = (self.margin as f32, self.offset as f32);
        if let Some(series) = series {
            settings.flags |= OTHER_SERIES;
            settings.other_pairs = put(&mut settings.other_series, series);
        }
    }

    /// An update may turn an exact curve into a series of any degree, whose even and odd terms share an iteration.
    fn loop_iterations(&self) -> usize {
        34
    }
}

//! The unified target curve `φ(cos θ) = m0·ψ(m1·θ + m2) − m3` with every fallback, curve and slope in use.

use std::{
    f64::consts::{FRAC_1_SQRT_2, PI},
    sync::{Arc, OnceLock},
};

use super::curve::{BuiltIn, TargetCurve};
use crate::{
    Error, Result,
    objective::{
        chebyshev::{Coefficients, Series, value_slope},
        in_range,
        snippet::{SharedText, Snippet, wgsl},
    },
    uniforms::{Settings, constants::*, put},
};

/// The four margins of the unified family and how the curve behaves at its ends.
///
/// `φ(x) = m0 · cos(m1·arccos x + m2) − m3`. One margin at a time gives AmpFace (m0), SphereFace (m1), ArcFace (m2)
/// and CosFace (m3); all four combine. A family without an angular margin (m1 = 1, m2 = 0) is the straight line
/// `m0·x − m3` and needs neither curve nor fallback.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Unified {
    /// Amplitude (AmpFace), 0 < m0 ≤ 1e6; default 1.
    pub m0: f64,
    /// Angle factor (SphereFace), > 0 and at most 16; default 1.
    pub m1: f64,
    /// Angle margin in radians (ArcFace), 0 ≤ m2 < π; default 0.
    pub m2: f64,
    /// Cosine margin (CosFace), −1e6 ≤ m3 ≤ 1e6; default 0.
    pub m3: f64,
    /// The exact curve or its Chebyshev series.
    pub curve: Curve,
    /// The slope dφ/dx that the backward pass uses.
    pub slope: Slope,
    /// The curve beyond the threshold, where `m1·θ + m2` passes π.
    pub fallback: Fallback,
}

impl Default for Unified {
    fn default() -> Self {
        Self {
            m0: 1.0,
            m1: 1.0,
            m2: 0.0,
            m3: 0.0,
            curve: Curve::Exact,
            slope: Slope::Analytic,
            fallback: Fallback::Continuous,
        }
    }
}

/// How ψ is evaluated.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Curve {
    /// `cos(m1·θ + m2)`; its slope is bounded by dividing by max(sin θ, 1e-4).
    #[default]
    Exact,
    /// A Chebyshev series: value and slope of one polynomial (ChebyAAM).
    Series(Series),
}

/// The dφ/dx that the backward pass takes at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Slope {
    /// The derivative of the forward curve.
    #[default]
    Analytic,
    /// 1 everywhere: the margin counts in the forward pass only (insightface, opensphere).
    Detached,
}

/// The curve beyond the threshold x* = cos((π − m2)/m1), where `cos(m1·θ + m2)` would turn up again.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Fallback {
    /// `x − x* − 1`, slope 1: continuous in value (wespeaker, 3D-Speaker, ChebyAAM's authors).
    #[default]
    Continuous,
    /// `x − m2·sin m2`, slope 1; m1 = 1 only (first ArcFace code, pytorch-metric-learning, SpeechBrain).
    Sine,
    /// `(−1)^k cos u − 2k`: the monotone continuation of SphereFace (ψ); continuous in value and slope.
    Mirror,
    /// `cos u`, unchanged (insightface, ElasticFace).
    None,
    /// The angle is clipped to [e, π − e], slope 0 outside; 0 < e < 0.5 (AdaFace e = 1e-3).
    Clip(f64),
    /// `cos u` for x > 0, else x with slope 1 (easy margin); refused where x* > 0.
    Easy,
}

impl Fallback {
    /// The JSON name.
    pub fn name(&self) -> &'static str {
        match self {
            Fallback::Continuous => "continuous",
            Fallback::Sine => "sine",
            Fallback::Mirror => "mirror",
            Fallback::None => "none",
            Fallback::Clip(_) => "clip",
            Fallback::Easy => "easy",
        }
    }
}

/// sin θ is never divided by less than this, so an exact slope stays below about 1e4·m0·m1.
pub(crate) const SMALLEST_SINE: f64 = 1e-4;
/// The largest m0 and |m3|.
pub(crate) const MAX_MARGIN: f64 = 1e6;
/// The largest m1.
pub(crate) const MAX_FACTOR: f64 = 16.0;
/// Larger than every cosine: on a device, −2 is the threshold of a curve that has none.
pub(crate) const NO_THRESHOLD: f64 = 2.0;

impl Unified {
    /// The straight line `m0·x − m3`: no sine anywhere, so no curve, no threshold, no fallback.
    pub fn is_linear(&self) -> bool {
        self.m1 == 1.0 && self.m2 == 0.0
    }

    /// x* = cos((π − m2)/m1), where the angle m1·θ + m2 reaches π; `None` where it never passes π. Exactly 0 or 1/2 where
    /// the margins, with `std::f64::consts::PI` as π, make it so: 0 at m1 = 2, m2 = 0 and at m1 = 1, m2 = π/2.
    pub fn threshold(&self) -> Option<f64> {
        crossing(self.m1, self.m2, 1.0)
    }

    /// Whether these margins may be those of a row: as those of a loss, but m2 may be negative.
    pub(crate) fn validate_row(&self) -> Result<()> {
        in_range("m0", self.m0, self.m0 > 0.0 && self.m0 <= MAX_MARGIN, "0 < m0 <= 1e6")?;
        in_range("m1", self.m1, self.m1 > 0.0 && self.m1 <= MAX_FACTOR, "0 < m1 <= 16")?;
        in_range("m2", self.m2, self.m2.abs() < PI, "-pi < m2 < pi (radians)")?;
        in_range("m3", self.m3, self.m3.abs() <= MAX_MARGIN, "-1e6 <= m3 <= 1e6")?;
        match self.fallback {
            Fallback::Sine if self.m1 != 1.0 => {
                let why = "the sine fallback is defined for m1 = 1 only";
                Err(Error::Combination { what: "fallback", why })
            }
            Fallback::Easy if !self.is_linear() && self.threshold().is_some_and(|t| t > 0.0) => {
                let why = "the easy fallback needs the threshold cos((pi - m2)/m1) at or below 0";
                Err(Error::Combination { what: "fallback", why })
            }
            _ => Ok(()),
        }
    }

    /// m0..m3.
    pub fn margins(&self) -> [f64; 4] {
        [self.m0, self.m1, self.m2, self.m3]
    }

    /// The same curve with other margins.
    pub(crate) fn with_margins(&self, [m0, m1, m2, m3]: [f64; 4]) -> Self {
        Self { m0, m1, m2, m3, ..self.clone() }
    }

    /// φ and dφ/dx at the target cosine x, as the forward and the backward pass use them. Computes the series anew at
    /// every call.
    pub fn value_slope(&self, x: f64) -> (f64, f64) {
        let [value, slope, _] = self.prepare().at(x, self.margins());
        (value, slope)
    }
}

impl BuiltIn for Unified {
    fn name(&self) -> &'static str {
        "unified"
    }

    fn snippet(&self) -> Snippet {
        Snippet { text: wgsl!("target/unified"), needs: &[SharedText::Angle, SharedText::Series] }
    }

    fn validate(&self) -> Result<()> {
        in_range("m2", self.m2, (0.0..PI).contains(&self.m2), "0 <= m2 < pi (radians)")?;
        self.validate_row()?;
        if let Fallback::Clip(e) = self.fallback {
            in_range("fallback.clip", e, e > 0.0 && e < 0.5, "0 < e < 0.5 (radians)")?;
        }
        match &self.curve {
            Curve::Exact => Ok(()),
            Curve::Series(series) => series.validate(),
        }
    }

    fn margins(&self) -> [f64; 4] {
        self.margins()
    }

    fn prepare(&self) -> Arc<dyn TargetCurve> {
        let series = match &self.curve {
            Curve::Series(series) => Some(Basis::new(series.clone(), self.m1)),
            Curve::Exact => None,
        };
        Arc::new(UnifiedCurve { margin: self.clone(), series, fixed: OnceLock::new() })
    }
}

/// cos((kπ − m2)/m1), where the angle m1·θ + m2 reaches kπ; `None` where it never passes kπ.
fn crossing(m1: f64, m2: f64, k: f64) -> Option<f64> {
    // 0 where the crossing lies at θ = π/share, positive where it comes earlier. A difference of the margins themselves,
    // and so exact at multiples of π, where the cosine of a rounded angle is not.
    let past = |share: f64| (m1 - share * k) * PI + share * m2;
    let exact = [(4.0, FRAC_1_SQRT_2), (3.0, 0.5), (1.5, -0.5)];
    let exact = || exact.into_iter().find(|&(share, _)| past(share) == 0.0);
    (past(1.0) > 0.0).then(|| exact().map_or_else(|| (past(2.0) / (2.0 * m1)).sin(), |(_, cosine)| cosine))
}

/// The series of cos(m1·θ + m2) for any m2, and for another m1 at the price of new coefficients.
struct Basis {
    series: Series,
    m1: f64,
    /// Of cos m1·θ and sin m1·θ; computed at the first use.
    terms: OnceLock<[Vec<f64>; 2]>,
    given: bool,
}

impl Basis {
    fn new(series: Series, m1: f64) -> Self {
        let given = matches!(series.coefficients, Coefficients::Given(_));
        Self { series, m1, terms: OnceLock::new(), given }
    }

    fn terms(&self) -> &[Vec<f64>; 2] {
        self.terms.get_or_init(|| self.series.basis(self.m1))
    }

    /// Value and slope of the series of cos(m1·θ + m2).
    fn value_slope(&self, x: f64, m1: f64, m2: f64) -> (f64, f64) {
        if self.given {
            return value_slope(&self.terms()[0], x);
        }
        let other;
        let terms = if m1 == self.m1 {
            self.terms()
        } else {
            other = self.series.basis(m1);
            &other
        };
        let ((a, a_slope), (b, b_slope)) = (value_slope(&terms[0], x), value_slope(&terms[1], x));
        let (sin, cos) = m2.sin_cos();
        (cos * a - sin * b, cos * a_slope - sin * b_slope)
    }
}

/// A unified margin, ready to evaluate.
pub(crate) struct UnifiedCurve {
    margin: Unified,
    series: Option<Basis>,
    /// The coefficients of the loss' own margins; computed at the first use.
    fixed: OnceLock<Vec<f64>>,
}

/// ψ at one cosine.
struct Psi {
    value: f64,
    /// dψ/dx.
    slope: f64,
    /// dψ/dm2.
    turn: f64,
    /// The sign with which the cosine, or its series, enters ψ; 0 where a line takes its place.
    sign: f64,
}

impl TargetCurve for UnifiedCurve {
    fn at(&self, x: f64, m: [f64; 4]) -> [f64; 3] {
        let [m0, m1, m2, m3] = m;
        let linear = m1 == 1.0 && m2 == 0.0;
        let psi = if linear { Psi { value: x, slope: 1.0, turn: 0.0, sign: 0.0 } } else { self.psi(x, m) };
        match self.margin.slope {
            Slope::Analytic => [m0 * psi.value - m3, m0 * psi.slope, m0 * psi.turn],
            Slope::Detached => [m0 * psi.value - m3, 1.0, 0.0],
        }
    }

    fn margin_slopes(&self, x: f64, m: [f64; 4]) -> [f64; 4] {
        let [m0, m1, m2, _] = m;
        let psi = self.psi(x, m);
        let value = if m1 == 1.0 && m2 == 0.0 { x } else { psi.value };
        [value, m0 * self.slope_m1(x, m, &psi), m0 * psi.turn, -1.0]
    }

    fn fill(&self, settings: &mut Settings, varied: bool) {
        let margin = &self.margin;
        let (m1, m2) = (margin.m1, margin.m2);
        settings.flag(VARIED, varied);
        [settings.m0, settings.m1, settings.m2, settings.m3] = [margin.m0, m1, m2, margin.m3].map(|m| m as f32);
        settings.flag(STRAIGHT, margin.is_linear());
        settings.flag(DETACHED, margin.slope == Slope::Detached);
        let back = m1 * PI + m2;
        settings.front = [m2.cos() as f32, -m2.sin() as f32];
        settings.back = [back.cos() as f32, back.sin() as f32];
        settings.threshold = margin.threshold().unwrap_or(-NO_THRESHOLD) as f32;
        settings.sine = (m2 * m2.sin()) as f32;
        settings.fallback = match margin.fallback {
            Fallback::Continuous => CONTINUOUS,
            Fallback::Sine => SINE,
            Fallback::Mirror => MIRROR,
            Fallback::None => NONE,
            Fallback::Clip(e) => {
                let cosine = |angle: f64| angle.cos() as f32;
                settings.clip = e as f32;
                settings.clipped = e.cos() as f32;
                // the angles where m1·θ + m2 reaches e and π − e; outside [0, π] everything or nothing is clipped
                let bound = |angle: f64| match angle {
                    a if a <= 0.0 => NO_THRESHOLD as f32,
                    a if a >= PI => -NO_THRESHOLD as f32,
                    a => cosine(a),
                };
                settings.clip_high = bound((e - m2) / m1);
                settings.clip_low = bound((PI - e - m2) / m1);
                CLIP
            }
            Fallback::Easy => EASY,
        };
        let Some(basis) = &self.series else { return };
        if varied {
            settings.flags |= SERIES;
            let [straight, turned] = basis.terms();
            settings.pairs = put(&mut settings.series, straight);
            put(&mut settings.turned, turned);
            match basis.series.coefficients {
                Coefficients::Closed => {
                    settings.flags |= CLOSED;
                    put(&mut settings.damping, &basis.series.damping.factors(basis.series.degree));
                }
                Coefficients::Fit => {}
                Coefficients::Given(_) => settings.flags |= GIVEN,
            }
        } else if !margin.is_linear() {
            settings.flags |= SERIES;
            let fixed = self.fixed.get_or_init(|| basis.series.coefficients(m1, m2));
            settings.pairs = put(&mut settings.series, fixed);
        }
    }
}

impl UnifiedCurve {
    /// ψ with the fallback applied.
    fn psi(&self, x: f64, m: [f64; 4]) -> Psi {
        let [_, m1, m2, _] = m;
        let sine = ((1.0 - x) * (1.0 + x)).max(0.0).sqrt();
        let angle = m1 * sine.atan2(x) + m2;
        let beyond = |t: f64| if self.series.is_some() { x < t } else { x <= t };
        let passed = crossing(m1, m2, 1.0).filter(|&t| beyond(t));
        match (self.margin.fallback, passed) {
            (Fallback::Continuous, Some(t)) => {
                Psi { value: x - t - 1.0, slope: 1.0, turn: -((PI - m2) / m1).sin() / m1, sign: 0.0 }
            }
            (Fallback::Sine, Some(_)) => {
                Psi { value: x - m2 * m2.sin(), slope: 1.0, turn: -m2.sin() - m2 * m2.cos(), sign: 0.0 }
            }
            (Fallback::Easy, _) if x <= 0.0 => Psi { value: x, slope: 1.0, turn: 0.0, sign: 0.0 },
            (Fallback::Clip(e), _) if angle < e => Psi { value: e.cos(), slope: 0.0, turn: 0.0, sign: 0.0 },
            (Fallback::Clip(e), _) if angle > PI - e => Psi { value: -e.cos(), slope: 0.0, turn: 0.0, sign: 0.0 },
            (Fallback::Mirror, _) => {
                // the angle is rounded: only the cosine tells whether it has reached the nearest multiple of π
                let nearest = (angle / PI).round();
                let reached = crossing(m1, m2, nearest).is_some_and(beyond);
                let k = if reached { nearest } else { nearest - 1.0 }.max(0.0);
                let sign = if k % 2.0 == 0.0 { 1.0 } else { -1.0 };
                let psi = self.cosine(x, sine, m1, m2);
                Psi { value: sign * psi.value - 2.0 * k, slope: sign * psi.slope, turn: sign * psi.turn, sign }
            }
            _ => self.cosine(x, sine, m1, m2),
        }
    }

    /// cos(m1·θ + m2), or its series.
    fn cosine(&self, x: f64, sine: f64, m1: f64, m2: f64) -> Psi {
        if let Some(series) = &self.series {
            let (value, slope) = series.value_slope(x, m1, m2);
            let turn = if series.given { 0.0 } else { series.value_slope(x, m1, m2 + PI / 2.0).0 };
            return Psi { value, slope, turn, sign: 1.0 };
        }
        // the angle from the nearer end, and the phase there: sin(m1·φ)/S then keeps its limit m1 at both ends
        let (near, phase) = if x >= 0.0 { (sine.atan2(x), -m2) } else { (sine.atan2(-x), m1 * PI + m2) };
        let (s1, c1) = (m1 * near).sin_cos();
        let ratio = if sine > 0.0 { s1 / sine } else { m1 };
        let slope = phase.cos() * ratio - phase.sin() * c1 / sine.max(SMALLEST_SINE);
        Psi {
            value: phase.cos() * c1 + phase.sin() * s1,
            slope: m1 * if x >= 0.0 { slope } else { -slope },
            // −sin(m1·θ + m2); the angle runs the other way behind the equator
            turn: (phase.cos() * s1 - phase.sin() * c1) * if x >= 0.0 { -1.0 } else { 1.0 },
            sign: 1.0,
        }
    }

    /// dψ/dm1 where ψ is `psi`. The sine fallback is defined for one m1, and only closed coefficients follow it.
    fn slope_m1(&self, x: f64, m: [f64; 4], psi: &Psi) -> f64 {
        let [_, m1, m2, _] = m;
        match (&self.series, self.margin.fallback) {
            (_, Fallback::Sine) => 0.0,
            // the line beyond the threshold moves with (π − m2)/m1
            (_, Fallback::Continuous) if psi.sign == 0.0 => psi.turn * (PI - m2) / m1,
            (Some(basis), _) if psi.sign != 0.0 => {
                let slopes = basis.series.slopes_by_factor(m1, m2);
                slopes.map_or(0.0, |slopes| psi.sign * value_slope(&slopes, x).0)
            }
            _ => psi.turn * ((1.0 - x) * (1.0 + x)).max(0.0).sqrt().atan2(x),
        }
    }
}

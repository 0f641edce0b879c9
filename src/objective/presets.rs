//! Every named loss with its numbers and their source: one table.

use super::{Coefficients, Curve, Fallback, MarginSoftmax, Series, Slope, Target, Unified};
use crate::{Error, Result};

/// A named loss.
pub struct Preset {
    /// The name, as [`MarginSoftmax::named`] takes it.
    pub name: &'static str,
    /// Where the numbers come from.
    pub source: &'static str,
    make: fn() -> MarginSoftmax,
}

impl Preset {
    /// The loss.
    pub fn loss(&self) -> MarginSoftmax {
        (self.make)()
    }
}

/// All named losses.
///
/// | name | m0 | m1 | m2 | m3 | scale | curve | slope | fallback | source |
/// |---|---|---|---|---|---|---|---|---|---|
/// | `normface` | 1 | 1 | 0 | 0 | 64 | line | analytic | – | NormFace; scale of insightface |
/// | `cosface` | 1 | 1 | 0 | 0.35 | 64 | line | analytic | – | CosFace |
/// | `arcface` | 1 | 1 | 0.5 | 0 | 64 | exact | analytic | continuous | ArcFace; fallback of wespeaker |
/// | `arcface_insightface` | 1 | 1 | 0.5 | 0 | 64 | exact | detached | none | insightface |
/// | `arcface_pml` | 1 | 1 | 0.4992 (28.6°) | 0 | 64 | exact | analytic | sine | pytorch-metric-learning |
/// | `arcface_speaker` | 1 | 1 | 0.2 | 0 | 32 | exact | analytic | continuous | wespeaker, 3D-Speaker |
/// | `sphereface` | 1 | 1.7 | 0 | 0 | 30 | exact | analytic | mirror (ψ) | opensphere |
/// | `sphereface_raw` | 1 | 1.35 | 0 | 0 | 64 | exact | analytic | none | the unified paper |
/// | `ampface` | 0.35 | 1 | 0 | 0 | 64 | line | analytic | – | the unified paper |
/// | `chebyaam` | 1 | 1 | 0.2 | 0 | 30 | series 30, closed form | analytic | continuous | ChebyAAM |
/// | `chebyaam_fit` | 1 | 1 | 0.2 | 0 | 30 | series 30, fit | analytic | continuous | ChebyAAM's released code |
///
/// "Line": m1 = 1 and m2 = 0, so φ is the straight line m0·x − m3 and has neither curve nor threshold. "The unified
/// paper" is "Unifying Margin-Based Softmax Losses in Face Recognition", WACV 2023.
pub const PRESETS: &[Preset] = &[
    Preset { name: "normface", source: "NormFace; scale of insightface", make: MarginSoftmax::normface },
    Preset { name: "cosface", source: "CosFace", make: MarginSoftmax::cosface },
    Preset { name: "arcface", source: "ArcFace; fallback of wespeaker", make: MarginSoftmax::arcface },
    Preset {
        name: "arcface_insightface",
        source: "insightface",
        make: || MarginSoftmax::arcface().with_margin(|m| (m.slope, m.fallback) = (Slope::Detached, Fallback::None)),
    },
    Preset {
        name: "arcface_pml",
        source: "pytorch-metric-learning",
        make: || MarginSoftmax::arcface().with_margin(|m| (m.m2, m.fallback) = (28.6_f64.to_radians(), Fallback::Sine)),
    },
    Preset {
        name: "arcface_speaker",
        source: "wespeaker, 3D-Speaker",
        make: || MarginSoftmax::arcface().with_margin(|m| m.m2 = 0.2).with_scale(32.0),
    },
    Preset { name: "sphereface", source: "opensphere", make: MarginSoftmax::sphereface },
    Preset {
        name: "sphereface_raw",
        source: "Unifying Margin-Based Softmax Losses in Face Recognition",
        make: || {
            let margin = Unified { m1: 1.35, fallback: Fallback::None, ..Default::default() };
            MarginSoftmax { target: Target::Unified(margin), ..Default::default() }
        },
    },
    Preset {
        name: "ampface",
        source: "Unifying Margin-Based Softmax Losses in Face Recognition",
        make: MarginSoftmax::ampface,
    },
    Preset { name: "chebyaam", source: "ChebyAAM", make: MarginSoftmax::cheby_aam },
    Preset {
        name: "chebyaam_fit",
        source: "ChebyAAM's released code",
        make: || {
            let series = Series { coefficients: Coefficients::Fit, ..Default::default() };
            MarginSoftmax::cheby_aam().with_margin(|m| m.curve = Curve::Series(series))
        },
    },
];

impl MarginSoftmax {
    /// The loss of this name in [`PRESETS`].
    pub fn named(name: &str) -> Result<Self> {
        let known = || PRESETS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
        let preset = PRESETS.iter().find(|p| p.name == name);
        preset.map(Preset::loss).ok_or_else(|| Error::Name { what: "loss", found: name.into(), known: known() })
    }

    /// Any combination of the four margins, exact curve, analytic slope, continuous fallback, scale 64.
    pub fn unified(m0: f64, m1: f64, m2: f64, m3: f64) -> Self {
        Self { target: Target::Unified(Unified { m0, m1, m2, m3, ..Default::default() }), ..Default::default() }
    }

    /// Cosine softmax without a margin: scale 64.
    pub fn normface() -> Self {
        Self::unified(1.0, 1.0, 0.0, 0.0)
    }

    /// CosFace: m3 = 0.35, scale 64.
    pub fn cosface() -> Self {
        Self::unified(1.0, 1.0, 0.0, 0.35)
    }

    /// ArcFace: m2 = 0.5, scale 64, analytic slope, continuous fallback.
    pub fn arcface() -> Self {
        Self::unified(1.0, 1.0, 0.5, 0.0)
    }

    /// SphereFace with the monotone ψ: m1 = 1.7, scale 30.
    pub fn sphereface() -> Self {
        Self::unified(1.0, 1.7, 0.0, 0.0).with_margin(|m| m.fallback = Fallback::Mirror).with_scale(30.0)
    }

    /// AmpFace: m0 = 0.35, scale 64.
    pub fn ampface() -> Self {
        Self::unified(0.35, 1.0, 0.0, 0.0)
    }

    /// ChebyAAM: the Chebyshev series of cos(θ + 0.2), degree 30, scale 30.
    pub fn cheby_aam() -> Self {
        let curve = Curve::Series(Series::default());
        Self::unified(1.0, 1.0, 0.2, 0.0).with_margin(|m| m.curve = curve).with_scale(30.0)
    }
}

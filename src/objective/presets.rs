//! Every named loss with its numbers and their source: one table.

use super::{
    AdaFace, Adaptive, Angle, ArcNeg, Binary, Coefficients, Curve, Elastic, Fallback, InterclassFilter, Length, Link,
    MagFace, MarginSoftmax, MvSoftmax, Others, Series, Similarity, SimilarityAdjustment, Slope, Target, TopK, Unified,
};
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

const fn preset(name: &'static str, source: &'static str, make: fn() -> MarginSoftmax) -> Preset {
    Preset { name, source, make }
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
/// | name | what it is | scale | source |
/// |---|---|---|---|
/// | `softmax` | w·x + b, no normalisation | 1 | every framework |
/// | `m_softmax` | the same with m3 = 0.5 at the label | 1 | M-Softmax |
/// | `arcgrad` | −θ for every class, exact slope | 30 | ArcGrad |
/// | `arcgrad_series` | the same, slope of the Chebyshev series of degree 31 | 30 | ArcGrad |
/// | `li_arcface` | (π − 2(θ + 0.4))/π, others (π − 2θ)/π | 64 | Li-ArcFace (AirFace) |
/// | `curricularface` | m2 = 0.5, fallback sine, hard others c·(t + c) | 64 | CurricularFace |
/// | `adaface` | m2, m3 by the norm of the embedding, m = 0.4, h = 0.333, fallback clip 1e-3 | 64 | AdaFace |
/// | `magface` | m2 by the norm of the embedding, fallback easy, λ = 35 | 64 | MagFace |
/// | `elasticface_arc` | m2 ~ Normal(0.5, 0.05), fallback none | 64 | ElasticFace |
/// | `elasticface_arc_plus` | m2 ~ Normal(0.5, 0.0175), the largest for the hardest row | 64 | ElasticFace |
/// | `elasticface_cos` | m3 ~ Normal(0.35, 0.05) | 64 | ElasticFace |
/// | `elasticface_cos_plus` | m3 ~ Normal(0.35, 0.02), the largest for the hardest row | 64 | ElasticFace |
/// | `sphereface2` | binary link, g(c) ∓ 0.2, t = 3, λ = 0.7 | 32 | SphereFace2-C, wespeaker |
/// | `sphereface2_angular` | binary link, g(cos(θ ± 0.15)) | 32 | SphereFace2-A, wespeaker |
/// | `sphereface2_opensphere` | as C with m = 0.4, κ = 50/s, detached | 40 | opensphere |
/// | `adacos` | cosine softmax whose scale follows the batch | – | AdaCos (dynamic) |
/// | `arcface_topk` | m2 = 0.2, the 5 hardest others closer by 0.06 | 32 | inter-topk, wespeaker |
/// | `arcface_filter` | m2 = 0.5, others above 0.4 filtered | 64 | insightface |
/// | `modified_softmax` | \|x\|·cos θ: prototypes normalised, embeddings not | 1 | SphereFace; NormFace without feature normalisation |
/// | `a_softmax` | the same with m1 = 4 at the label, fallback mirror (ψ), without annealing | 1 | SphereFace |
/// | `mv_am` | m3 = 0.35, others above the target's logit 1.2·c + 0.2 | 32 | MV-Softmax, without the code's easy margin |
/// | `mv_arc` | m2 = 0.5, fallback none, the same others | 32 | MV-Softmax, without the code's easy margin |
/// | `arcnegface` | m2 = 0.5, fallback sine, others t·c + t − 1, t by their distance from the target's logit | 64 | ArcNegFace |
/// | `ampface_rectified` | m0 = 0.35, others max(c, 0) | 64 | WC-ReLU, the unified paper |
///
/// "Line": m1 = 1 and m2 = 0, so φ is the straight line m0·x − m3 and has neither curve nor threshold. "The unified
/// paper" is "Unifying Margin-Based Softmax Losses in Face Recognition", WACV 2023.
pub const PRESETS: &[Preset] = &[
    preset("normface", "NormFace; scale of insightface", MarginSoftmax::normface),
    preset("cosface", "CosFace", MarginSoftmax::cosface),
    preset("arcface", "ArcFace; fallback of wespeaker", MarginSoftmax::arcface),
    preset("arcface_insightface", "insightface", || {
        MarginSoftmax::arcface().with_margin(|m| (m.slope, m.fallback) = (Slope::Detached, Fallback::None))
    }),
    preset("arcface_pml", "pytorch-metric-learning", || {
        MarginSoftmax::arcface().with_margin(|m| (m.m2, m.fallback) = (28.6_f64.to_radians(), Fallback::Sine))
    }),
    preset("arcface_speaker", "wespeaker, 3D-Speaker", || {
        MarginSoftmax::arcface().with_margin(|m| m.m2 = 0.2).with_scale(32.0)
    }),
    preset("sphereface", "opensphere", MarginSoftmax::sphereface),
    preset("sphereface_raw", "Unifying Margin-Based Softmax Losses in Face Recognition", || {
        let margin = Unified { m1: 1.35, fallback: Fallback::None, ..Default::default() };
        MarginSoftmax { target: Target::Unified(margin), ..Default::default() }
    }),
    preset("ampface", "Unifying Margin-Based Softmax Losses in Face Recognition", MarginSoftmax::ampface),
    preset("chebyaam", "ChebyAAM", MarginSoftmax::cheby_aam),
    preset("chebyaam_fit", "ChebyAAM's released code", || {
        let series = Series { coefficients: Coefficients::Fit, ..Default::default() };
        MarginSoftmax::cheby_aam().with_margin(|m| m.curve = Curve::Series(series))
    }),
    preset("softmax", "the linear layer of a classifier", MarginSoftmax::softmax),
    preset("m_softmax", "M-Softmax", MarginSoftmax::m_softmax),
    preset("arcgrad", "ArcGrad", MarginSoftmax::arcgrad),
    preset("arcgrad_series", "ArcGrad", || {
        let curve = Curve::Series(Series { degree: 31, ..Default::default() });
        let angle = Angle { curve, ..Default::default() };
        MarginSoftmax { target: Target::Angle(angle.clone()), ..MarginSoftmax::arcgrad() }
            .with_others(Others::Angle(angle))
    }),
    preset("li_arcface", "Li-ArcFace (AirFace)", MarginSoftmax::li_arcface),
    preset("curricularface", "CurricularFace", MarginSoftmax::curricularface),
    preset("adaface", "AdaFace", MarginSoftmax::adaface),
    preset("magface", "MagFace", MarginSoftmax::magface),
    preset("elasticface_arc", "ElasticFace", MarginSoftmax::elasticface_arc),
    preset("elasticface_arc_plus", "ElasticFace", || {
        let elastic = Elastic { deviation: 0.0175, sorted: true, ..Default::default() };
        MarginSoftmax::elasticface_arc().with_adaptive(Adaptive::Elastic(elastic))
    }),
    preset("elasticface_cos", "ElasticFace", MarginSoftmax::elasticface_cos),
    preset("elasticface_cos_plus", "ElasticFace", || {
        let elastic = Elastic { cosine: true, deviation: 0.02, sorted: true };
        MarginSoftmax::elasticface_cos().with_adaptive(Adaptive::Elastic(elastic))
    }),
    preset("sphereface2", "SphereFace2, wespeaker", MarginSoftmax::sphereface2),
    preset("sphereface2_angular", "SphereFace2, wespeaker", || {
        MarginSoftmax::sphereface2_of(SimilarityAdjustment { margin: 0.15, angular: true, ..Default::default() })
    }),
    preset("sphereface2_opensphere", "opensphere", || MarginSoftmax {
        scale: 40.0,
        link: Link::Binary(Binary { factor: 50.0 / 40.0, ..Default::default() }),
        ..MarginSoftmax::sphereface2_of(SimilarityAdjustment {
            margin: 0.4,
            slope: Slope::Detached,
            ..Default::default()
        })
    }),
    preset("adacos", "AdaCos", MarginSoftmax::adacos),
    preset("arcface_topk", "wespeaker", || {
        let arc = MarginSoftmax::arcface().with_margin(|m| m.m2 = 0.2).with_scale(32.0);
        arc.with_others(Others::TopK(TopK::default()))
    }),
    preset("arcface_filter", "insightface", || {
        MarginSoftmax::arcface().with_others(Others::InterclassFilter(InterclassFilter::default()))
    }),
    preset("modified_softmax", "SphereFace; NormFace without feature normalisation", || {
        MarginSoftmax::normface().with_scale(1.0).with_adaptive(Adaptive::Length(Length::default()))
    }),
    preset("a_softmax", "SphereFace, without annealing", || {
        let margin = |m: &mut Unified| (m.m1, m.fallback) = (4.0, Fallback::Mirror);
        let length = Adaptive::Length(Length::default());
        MarginSoftmax::normface().with_scale(1.0).with_margin(margin).with_adaptive(length)
    }),
    preset("mv_am", "MV-Softmax, without the code's easy margin", || {
        MarginSoftmax::cosface().with_scale(32.0).with_others(Others::MvSoftmax(MvSoftmax::default()))
    }),
    preset("mv_arc", "MV-Softmax, without the code's easy margin", || {
        let arc = MarginSoftmax::arcface().with_margin(|m| m.fallback = Fallback::None).with_scale(32.0);
        arc.with_others(Others::MvSoftmax(MvSoftmax::default()))
    }),
    preset("arcnegface", "ArcNegFace", || {
        let arc = MarginSoftmax::arcface().with_margin(|m| m.fallback = Fallback::Sine);
        arc.with_others(Others::ArcNeg(ArcNeg::default()))
    }),
    preset("ampface_rectified", "Unifying Margin-Based Softmax Losses in Face Recognition", || {
        MarginSoftmax::ampface().with_others(Others::Rectified)
    }),
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

    /// The linear layer of a classifier, w·x + b, with softmax cross entropy: no normalisation, scale 1.
    pub fn softmax() -> Self {
        Self { similarity: Similarity::Dot, scale: 1.0, ..Self::normface() }
    }

    /// M-Softmax: the linear layer with 0.5 taken off at the label, scale 1.
    pub fn m_softmax() -> Self {
        Self::softmax().with_margin(|m| m.m3 = 0.5)
    }

    /// ArcGrad: −θ for every class, exact slope, scale 30; see
    /// [`arcgrad_scale`](crate::theory::arcgrad_scale) for a scale of your own.
    pub fn arcgrad() -> Self {
        let angle = Angle::default();
        Self { target: Target::Angle(angle.clone()), others: Others::Angle(angle), scale: 30.0, ..Default::default() }
    }

    /// Li-ArcFace (AirFace): (π − 2(θ + 0.4))/π at the label, (π − 2θ)/π elsewhere, scale 64.
    pub fn li_arcface() -> Self {
        let other = Angle { factor: std::f64::consts::FRAC_2_PI, offset: 1.0, ..Default::default() };
        let target = Angle { margin: 0.4, ..other.clone() };
        Self { target: Target::Angle(target), others: Others::Angle(other), ..Default::default() }
    }

    /// CurricularFace: m2 = 0.5, fallback sine, scale 64.
    pub fn curricularface() -> Self {
        Self::arcface().with_margin(|m| m.fallback = Fallback::Sine).with_others(Others::Curricular)
    }

    /// AdaFace: m = 0.4, h = 0.333, fallback clip 1e-3, scale 64.
    pub fn adaface() -> Self {
        let margin = |m: &mut Unified| m.fallback = Fallback::Clip(1e-3);
        Self::normface().with_margin(margin).with_adaptive(Adaptive::AdaFace(AdaFace::default()))
    }

    /// MagFace: lengths 10 to 110, margins 0.45 to 0.8, λ = 35, fallback easy, scale 64.
    pub fn magface() -> Self {
        let margin = |m: &mut Unified| m.fallback = Fallback::Easy;
        Self::normface().with_margin(margin).with_adaptive(Adaptive::MagFace(MagFace::default()))
    }

    /// ElasticFace-Arc: m2 around 0.5 with deviation 0.05, fallback none, scale 64.
    pub fn elasticface_arc() -> Self {
        let elastic = Adaptive::Elastic(Elastic::default());
        Self::arcface().with_margin(|m| m.fallback = Fallback::None).with_adaptive(elastic)
    }

    /// ElasticFace-Cos: m3 around 0.35 with deviation 0.05, scale 64.
    pub fn elasticface_cos() -> Self {
        Self::cosface().with_adaptive(Adaptive::Elastic(Elastic { cosine: true, ..Default::default() }))
    }

    /// SphereFace2-C: m = 0.2, t = 3, λ = 0.7, κ = 1, b = 0, scale 32.
    pub fn sphereface2() -> Self {
        Self::sphereface2_of(SimilarityAdjustment::default())
    }

    fn sphereface2_of(power: SimilarityAdjustment) -> Self {
        let link = Link::Binary(Binary::default());
        Self {
            target: Target::SimilarityAdjustment(power),
            others: Others::SimilarityAdjustment(power),
            link,
            scale: 32.0,
            ..Default::default()
        }
    }

    /// AdaCos with a dynamic scale. For the fixed one take [`normface`](Self::normface) with
    /// [`adacos_scale`](crate::theory::adacos_scale).
    pub fn adacos() -> Self {
        Self::normface().with_adaptive(Adaptive::AdaCos)
    }
}

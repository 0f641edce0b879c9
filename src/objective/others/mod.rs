//! The list of transforms of the cosines of all classes but the labelled one: a new one is a file with its numbers, its
//! formula and the name of its shader, and here a variant with its arm in `Others::transform`.

mod curricular;
mod filter;
mod identity;
mod rectified;
mod top_k;
mod transform;

pub(crate) use curricular::Harder;
pub use filter::InterclassFilter;
pub use identity::Identity;
pub use rectified::Rectified;
pub use top_k::TopK;
pub(crate) use transform::{Evaluator, Transform};
pub use transform::{Other, Place};

use super::{
    snippet::Snippet,
    target::{Angle, SimilarityAdjustment},
};
use crate::{Result, uniforms::Settings};

/// The built-in transforms.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Others {
    /// The cosine itself.
    #[default]
    Identity,
    /// max(c, 0): wrong classes behind the equator exert no force (WC-ReLU).
    Rectified,
    /// Linear in the angle: ArcGrad, Li-ArcFace.
    Angle(Angle),
    /// CurricularFace: c·(t + c) for the classes harder than the target, c > cos(θ_y + m2); t is
    /// [`State::hardness`](super::State::hardness). The slope t + 2c is negative for c < −t/2, as published.
    Curricular,
    /// Inter-topk: the k hardest classes come closer by an angle.
    TopK(TopK),
    /// The interclass filter: cosines above a threshold become 0.
    #[cfg_attr(feature = "serde", serde(rename = "filter"))]
    InterclassFilter(InterclassFilter),
    /// SphereFace2's curve.
    #[cfg_attr(feature = "serde", serde(rename = "power"))]
    SimilarityAdjustment(SimilarityAdjustment),
}

impl Others {
    /// Each once, with its default numbers; the name is also that of the shader snippet.
    pub fn all() -> Vec<Others> {
        vec![
            Others::Identity,
            Others::Rectified,
            Others::Angle(Angle::default()),
            Others::Curricular,
            Others::TopK(TopK::default()),
            Others::InterclassFilter(InterclassFilter::default()),
            Others::SimilarityAdjustment(SimilarityAdjustment::default()),
        ]
    }

    fn transform(&self) -> &dyn Transform {
        match self {
            Others::Identity => &Identity,
            Others::Rectified => &Rectified,
            Others::Angle(angle) => angle,
            Others::Curricular => &Harder { hardness: 0.0 },
            Others::TopK(top) => top,
            Others::InterclassFilter(filter) => filter,
            Others::SimilarityAdjustment(power) => power,
        }
    }

    /// The JSON name.
    pub fn name(&self) -> &'static str {
        self.transform().name()
    }

    /// `(other(c), other'(c))` of a class that is not among the hard ones.
    pub fn value_slope(&self, c: f64) -> (f64, f64) {
        self.evaluator(0.0, self.series().as_deref())(c, Place { bound: f64::INFINITY, late: true })
    }

    pub(crate) fn snippet(&self) -> Snippet {
        self.transform().snippet()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.transform().validate()
    }

    pub(crate) fn series(&self) -> Option<Vec<f64>> {
        self.transform().series()
    }

    pub(crate) fn evaluator<'a>(&'a self, hardness: f64, series: Option<&'a [f64]>) -> Evaluator<'a> {
        self.transform().evaluator(hardness, series)
    }

    pub(crate) fn fill(&self, settings: &mut Settings, series: Option<&[f64]>) {
        self.transform().fill(settings, series);
    }

    pub(crate) fn bound(&self, x: f64, m2: f64) -> f64 {
        self.transform().bound(x, m2)
    }

    pub(crate) fn loop_iterations(&self) -> usize {
        self.transform().loop_iterations()
    }
}

//! The list of transforms of the cosines of all classes but the labelled one: a new one is a file with its numbers, its
//! formula and the name of its shader, and here a variant.

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
    list::list,
    snippet::Snippet,
    target::{Angle, SimilarityAdjustment},
};
use crate::{Result, uniforms::Settings};

list! {
    /// The built-in transforms.
    #[derive(Debug, Clone, PartialEq, Default)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
    pub enum Others: Transform {
        /// The cosine itself.
        #[default]
        Identity => &Identity,
        /// max(c, 0): wrong classes behind the equator exert no force (WC-ReLU).
        Rectified => &Rectified,
        /// Linear in the angle: ArcGrad, Li-ArcFace.
        Angle(angle: Angle) => angle,
        /// CurricularFace: c·(t + c) for the classes harder than the target, c > cos(θ_y + m2); t is
        /// [`State::hardness`](super::State::hardness). The slope t + 2c is negative for c < −t/2, as published.
        Curricular => &Harder { hardness: 0.0 },
        /// Inter-topk: the k hardest classes come closer by an angle.
        TopK(top: TopK) => top,
        /// The interclass filter: cosines above a threshold become 0.
        #[cfg_attr(feature = "serde", serde(rename = "filter"))]
        InterclassFilter(filter: InterclassFilter) => filter,
        /// SphereFace2's curve.
        #[cfg_attr(feature = "serde", serde(rename = "power"))]
        SimilarityAdjustment(power: SimilarityAdjustment) => power
    }
}

impl Others {
    /// The JSON name.
    pub fn name(&self) -> &'static str {
        self.duties().name()
    }

    /// `(other(c), other'(c))` of a class that is not among the hard ones.
    pub fn value_slope(&self, c: f64) -> (f64, f64) {
        self.evaluator(0.0, self.series().as_deref())(c, Place { bound: f64::INFINITY, late: true })
    }

    pub(crate) fn snippet(&self) -> Snippet {
        self.duties().snippet()
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.duties().validate()
    }

    pub(crate) fn series(&self) -> Option<Vec<f64>> {
        self.duties().series()
    }

    pub(crate) fn evaluator<'a>(&'a self, hardness: f64, series: Option<&'a [f64]>) -> Evaluator<'a> {
        self.duties().evaluator(hardness, series)
    }

    pub(crate) fn fill(&self, settings: &mut Settings, series: Option<&[f64]>) {
        self.duties().fill(settings, series);
    }

    pub(crate) fn bound(&self, x: f64, m2: f64) -> f64 {
        self.duties().bound(x, m2)
    }

    pub(crate) fn loop_iterations(&self) -> usize {
        self.duties().loop_iterations()
    }
}

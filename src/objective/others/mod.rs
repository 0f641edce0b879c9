//! The list of transforms of the cosines of all classes but the labelled one: a new one is a file with its numbers, its
//! formula and the name of its shader, and here a variant.

mod arcneg;
mod curricular;
mod custom;
mod filter;
mod identity;
mod mv_softmax;
mod rectified;
mod top_k;
mod transform;

pub use arcneg::ArcNeg;
pub(crate) use curricular::Harder;
pub use custom::{CustomOthers, OtherCurve};
pub use filter::InterclassFilter;
pub use identity::Identity;
pub use mv_softmax::MvSoftmax;
pub use rectified::Rectified;
pub use top_k::TopK;
pub(crate) use transform::{Evaluator, Transform};
pub use transform::{Other, Place, RowTarget};

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
        SimilarityAdjustment(power: SimilarityAdjustment) => power,
        /// MV-Softmax: classes harder than the target's logit with margin count more.
        MvSoftmax(mv: MvSoftmax) => mv,
        /// ArcNegFace: classes near the target's logit with margin count more, those far from it less.
        #[cfg_attr(feature = "serde", serde(rename = "arcneg"))]
        ArcNeg(arcneg: ArcNeg) => arcneg;
        /// A transform from outside; has no JSON form.
        #[cfg_attr(feature = "serde", serde(skip))]
        Custom(custom: CustomOthers) => custom
    }
}

impl Others {
    /// The JSON name.
    pub fn name(&self) -> &'static str {
        self.duties().name()
    }

    /// `(other(c), other'(c))` of a class that is not among the hard ones; of one that looks at the target, for a target with
    /// cosine and φ at 1.
    pub fn value_slope(&self, c: f64) -> (f64, f64) {
        self.value_slope_at(c, RowTarget { cosine: 1.0, value: 1.0 })
    }

    /// The same for a target; most transforms do not look at it.
    pub fn value_slope_at(&self, c: f64, target: RowTarget) -> (f64, f64) {
        let bound = if self.sees_target() { target.value } else { f64::INFINITY };
        self.evaluator(0.0, self.series().as_deref())(c, Place { bound, target: target.cosine, late: true })
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

    pub(crate) fn bound(&self, target: RowTarget, m2: f64) -> f64 {
        self.duties().bound(target, m2)
    }

    pub(crate) fn sees_target(&self) -> bool {
        self.duties().sees_target()
    }

    pub(crate) fn loop_iterations(&self) -> usize {
        self.duties().loop_iterations()
    }
}

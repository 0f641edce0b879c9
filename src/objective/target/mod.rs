//! The list of target curves: a new one is a file with its numbers, its formula and the name of its shader, and here a
//! variant.

mod angle;
mod curve;
mod custom;
mod power;
pub(crate) mod unified;

use std::sync::Arc;

pub use angle::Angle;
use curve::BuiltIn;
pub(crate) use curve::TargetCurve;
pub(crate) use custom::check_parameters;
pub use custom::{Custom, Margin};
pub use power::SimilarityAdjustment;
pub use unified::{Curve, Fallback, Slope, Unified};

use super::{list::list, snippet::Snippet};
use crate::Result;

list! {
    /// The curve of the labelled class.
    #[derive(Debug, Clone, PartialEq)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
    pub enum Target: BuiltIn {
        /// m0..m3: NormFace, CosFace, ArcFace, SphereFace, AmpFace, ChebyAAM and their combinations.
        Unified(margin: Unified) => margin,
        /// Linear in the angle: ArcGrad, Li-ArcFace.
        Angle(angle: Angle) => angle,
        /// SphereFace2's curve.
        #[cfg_attr(feature = "serde", serde(rename = "power"))]
        SimilarityAdjustment(power: SimilarityAdjustment) => power;
        /// A curve from outside; has no JSON form.
        #[cfg_attr(feature = "serde", serde(skip))]
        Custom(custom: Custom) => custom
    }
}

impl Target {
    /// The JSON name, and of the shader snippet.
    pub fn name(&self) -> &'static str {
        self.duties().name()
    }

    /// φ and dφ/dx at the target cosine x, as the forward and the backward pass use them.
    pub fn value_slope(&self, x: f64) -> (f64, f64) {
        let [value, slope, _] = self.prepare().at(x, self.margins());
        (value, slope)
    }

    /// The shader that computes it. The text of a curve from outside comes from its [`Margin`](super::Margin).
    pub(crate) fn snippet(&self) -> Snippet {
        self.duties().snippet()
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.duties().validate()
    }

    pub(crate) fn margins(&self) -> [f64; 4] {
        self.duties().margins()
    }

    pub(crate) fn prepare(&self) -> Arc<dyn TargetCurve> {
        self.duties().prepare()
    }
}

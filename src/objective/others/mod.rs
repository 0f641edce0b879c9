//! Transforms of the cosines of all classes but the labelled one. One file per transform.

mod curricular;
mod filter;
mod identity;
mod rectified;
mod top_k;

pub(crate) use curricular::Harder;
pub use filter::Filter;
pub use identity::Identity;
use num_traits::Float;
pub use rectified::Rectified;
pub use top_k::TopK;

use super::{Angle, Power, snippet::Snippet};
use crate::Result;

/// The facts that a transform may use beside the cosine.
#[derive(Debug, Clone, Copy)]
pub struct Place<T> {
    /// The row's bound: the cosine from which a class counts as hard. What it is depends on the transform.
    pub bound: T,
    /// Whether the class comes after the last one that may lie on the bound.
    pub late: bool,
}

/// A transform of the other classes' cosines: value and slope of one cosine.
pub trait Other: Copy + Send + Sync {
    /// `(other(c), other'(c))`.
    fn value_slope<T: Float>(&self, c: T, place: Place<T>) -> (T, T);
}

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
    Filter(Filter),
    /// SphereFace2's curve.
    Power(Power),
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
            Others::Filter(Filter::default()),
            Others::Power(Power::default()),
        ]
    }

    /// The name as it stands in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Others::Identity => "identity",
            Others::Rectified => "rectified",
            Others::Angle(_) => "angle",
            Others::Curricular => "curricular",
            Others::TopK(_) => "top_k",
            Others::Filter(_) => "filter",
            Others::Power(_) => "power",
        }
    }

    /// The shader that computes it.
    pub(crate) fn snippet(&self) -> Snippet {
        match self {
            Others::Identity => Identity::SNIPPET,
            Others::Rectified => Rectified::SNIPPET,
            Others::Angle(_) => Angle::OTHER,
            Others::Curricular => Harder::SNIPPET,
            Others::TopK(_) => TopK::SNIPPET,
            Others::Filter(_) => Filter::SNIPPET,
            Others::Power(_) => Power::OTHER,
        }
    }

    /// `(other(c), other'(c))` of a class that is not among the hard ones.
    pub fn value_slope(&self, c: f64) -> (f64, f64) {
        self.prepare(0.0)(c, Place { bound: f64::INFINITY, late: true })
    }

    pub(crate) fn validate(&self) -> Result<()> {
        match self {
            Others::Identity | Others::Rectified | Others::Curricular => Ok(()),
            Others::Angle(angle) => angle.validate(),
            Others::TopK(top) => top.validate(),
            Others::Filter(filter) => filter.validate(),
            Others::Power(power) => power.validate(),
        }
    }

    /// Ready to evaluate: what is common to all cosines is computed once. `hardness` is CurricularFace's t.
    pub(crate) fn prepare(&self, hardness: f64) -> Box<dyn Fn(f64, Place<f64>) -> (f64, f64) + Send + Sync + '_> {
        match self {
            Others::Identity => Box::new(|c, place| Identity.value_slope(c, place)),
            Others::Rectified => Box::new(|c, place| Rectified.value_slope(c, place)),
            Others::Angle(angle) => {
                let series = angle.series();
                Box::new(move |c, _| angle.value_slope(c, series.as_deref()))
            }
            Others::Curricular => Box::new(move |c, place| Harder { hardness }.value_slope(c, place)),
            Others::TopK(top) => Box::new(|c, place| top.value_slope(c, place)),
            Others::Filter(filter) => Box::new(|c, place| filter.value_slope(c, place)),
            Others::Power(power) => Box::new(|c, _| power.other(c)),
        }
    }

    /// The row's bound where it follows from its target: cos(θ_y + m2) for CurricularFace.
    pub(crate) fn bound(&self, x: f64, m2: f64) -> f64 {
        match self {
            Others::Curricular => x * m2.cos() - ((1.0 - x) * (1.0 + x)).max(0.0).sqrt() * m2.sin(),
            _ => f64::INFINITY,
        }
    }
}

/// A number of the loss in the precision of the cosines.
pub(crate) fn number<T: Float>(x: f64) -> T {
    T::from(x).unwrap_or_else(T::nan)
}

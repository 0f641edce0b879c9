//! The list of transforms of the cosines of all classes but the labelled one: a new one is a file with its numbers, its
//! formula and the name of its shader, and here a variant with its arm in [`Others::transform`].

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

use super::{
    Angle, BuiltIn, Power,
    snippet::{Shared, Snippet, wgsl},
};
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

    fn transform(&self) -> &dyn Transform {
        match self {
            Others::Identity => &Identity,
            Others::Rectified => &Rectified,
            Others::Angle(angle) => angle,
            Others::Curricular => &Harder { hardness: 0.0 },
            Others::TopK(top) => top,
            Others::Filter(filter) => filter,
            Others::Power(power) => power,
        }
    }

    /// The name as it stands in JSON.
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

    pub(crate) fn bound(&self, x: f64, m2: f64) -> f64 {
        self.transform().bound(x, m2)
    }

    pub(crate) fn loop_iterations(&self) -> usize {
        self.transform().loop_iterations()
    }
}

/// Value and slope of one class.
pub(crate) type Evaluator<'a> = Box<dyn Fn(f64, Place<f64>) -> (f64, f64) + Send + Sync + 'a>;

/// A transform as a loss holds it.
trait Transform {
    /// The name as it stands in JSON.
    fn name(&self) -> &'static str;

    /// The shader that computes it.
    fn snippet(&self) -> Snippet;

    /// Checks its numbers.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// The damped coefficients, where it is a series.
    fn series(&self) -> Option<Vec<f64>> {
        None
    }

    /// Value and slope of one class, with the coefficients of [`series`](Self::series). `hardness` is CurricularFace's t.
    fn evaluator<'a>(&'a self, hardness: f64, series: Option<&'a [f64]>) -> Evaluator<'a>;

    /// The row's bound where it follows from its target cosine x and margin m2.
    fn bound(&self, _x: f64, _m2: f64) -> f64 {
        f64::INFINITY
    }

    /// The most loop iterations that its shader takes per class, after any update of its numbers.
    fn loop_iterations(&self) -> usize {
        0
    }
}

impl Transform for Angle {
    fn name(&self) -> &'static str {
        "angle"
    }

    fn snippet(&self) -> Snippet {
        Snippet { text: wgsl!("others/angle"), needs: &[Shared::Angle, Shared::Series] }
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

    /// An update may turn an exact curve into a series of any degree, whose even and odd terms share an iteration.
    fn loop_iterations(&self) -> usize {
        34
    }
}

impl Transform for Power {
    fn name(&self) -> &'static str {
        "power"
    }

    fn snippet(&self) -> Snippet {
        Snippet { text: wgsl!("others/power"), needs: &[Shared::PowerCurve] }
    }

    fn validate(&self) -> Result<()> {
        BuiltIn::validate(self)
    }

    fn evaluator<'a>(&'a self, _hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(|c, _| self.other(c))
    }

    fn loop_iterations(&self) -> usize {
        16
    }
}

/// A number of the loss in the precision of the cosines.
pub(crate) fn number<T: Float>(x: f64) -> T {
    T::from(x).unwrap_or_else(T::nan)
}

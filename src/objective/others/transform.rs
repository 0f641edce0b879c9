//! The duties of a transform.

use num_traits::Float;

use crate::{Result, objective::snippet::Snippet, uniforms::Settings};

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

/// Value and slope of one class.
pub(crate) type Evaluator<'a> = Box<dyn Fn(f64, Place<f64>) -> (f64, f64) + Send + Sync + 'a>;

/// A transform as a loss holds it.
pub(crate) trait Transform {
    /// The JSON name.
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

    /// Writes the numbers that its shader reads; `series` as for [`evaluator`](Self::evaluator).
    fn fill(&self, _settings: &mut Settings, _series: Option<&[f64]>) {}

    /// The row's bound where it follows from its target cosine x and margin m2.
    fn bound(&self, _x: f64, _m2: f64) -> f64 {
        f64::INFINITY
    }

    /// The most loop iterations that its shader takes per class, after any update of its numbers.
    fn loop_iterations(&self) -> usize {
        0
    }
}

/// A number of the loss in the precision of the cosines.
pub(crate) fn number<T: Float>(x: f64) -> T {
    T::from(x).unwrap_or_else(T::nan)
}

//! The duties of a transform.

use num_traits::Float;

use crate::{Result, objective::snippet::Snippet, uniforms::Settings};

/// The facts that a transform may use beside the cosine.
#[derive(Debug, Clone, Copy)]
pub struct Place<T> {
    /// The row's bound: the cosine from which a class counts as hard. What it is depends on the transform.
    pub bound: T,
    /// The row's target cosine.
    pub target: T,
    /// Whether the class comes after the last one that may lie on the bound.
    pub late: bool,
}

/// The target of a row as a transform of the other classes sees it: a constant, through which no gradient passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowTarget {
    /// The target cosine c_y.
    pub cosine: f64,
    /// φ(c_y), its logit with the margins of the row, without scale.
    pub value: f64,
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

    /// The row's bound where it follows from its target and margin m2.
    fn bound(&self, target: RowTarget, _m2: f64) -> f64 {
        if self.sees_target() { target.value } else { f64::INFINITY }
    }

    /// Whether it reads the target of the row: the bound is φ then.
    fn sees_target(&self) -> bool {
        false
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

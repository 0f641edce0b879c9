use num_traits::Float;

use super::transform::{Evaluator, Other, Place, Transform};
use crate::objective::snippet::{Snippet, wgsl};

/// WC-ReLU: wrong classes behind the equator exert no force. "Unifying Margin-Based Softmax Losses in Face
/// Recognition", WACV 2023.
#[derive(Debug, Clone, Copy)]
pub struct Rectified;

impl Other for Rectified {
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, _: Place<T>) -> (T, T) {
        if c > T::zero() { (c, T::one()) } else { (T::zero(), T::zero()) }
    }
}

impl Transform for Rectified {
    fn name(&self) -> &'static str {
        "rectified"
    }

    fn snippet(&self) -> Snippet {
        Snippet::plain(wgsl!("others/rectified"))
    }

    fn evaluator<'a>(&'a self, _hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(|c, place| self.value_slope(c, place))
    }
}

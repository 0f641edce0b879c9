use num_traits::Float;

use super::Place;
use crate::objective::snippet::{Snippet, wgsl};

/// WC-ReLU: wrong classes behind the equator exert no force. "Unifying Margin-Based Softmax Losses in Face
/// Recognition", WACV 2023.
#[derive(Debug, Clone, Copy)]
pub struct Rectified;

impl Rectified {
    pub(crate) const SNIPPET: Snippet = Snippet::plain(wgsl!("others/rectified"));
}

impl super::Other for Rectified {
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, _: Place<T>) -> (T, T) {
        if c > T::zero() { (c, T::one()) } else { (T::zero(), T::zero()) }
    }
}

use num_traits::Float;

use super::transform::{Evaluator, Other, Place, Transform};
use crate::objective::snippet::{Snippet, wgsl};

/// The cosine itself.
#[derive(Debug, Clone, Copy)]
pub struct Identity;

impl Other for Identity {
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, _: Place<T>) -> (T, T) {
        (c, T::one())
    }
}

impl Transform for Identity {
    fn name(&self) -> &'static str {
        "identity"
    }

    fn snippet(&self) -> Snippet {
        Snippet::plain(wgsl!("others/identity"))
    }

    fn evaluator<'a>(&'a self, _hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(|c, place| self.value_slope(c, place))
    }
}

use num_traits::Float;

use super::{Place, number};
use crate::objective::snippet::{Snippet, wgsl};

/// CurricularFace: c·(t + c) above the row's bound. "CurricularFace: Adaptive Curriculum Learning Loss for Deep Face
/// Recognition", CVPR 2020.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Harder {
    /// t
    pub hardness: f64,
}

impl Harder {
    pub(crate) const SNIPPET: Snippet = Snippet::plain(wgsl!("others/curricular"));
}

impl super::Other for Harder {
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, place: Place<T>) -> (T, T) {
        let t: T = number(self.hardness);
        if c > place.bound { (c * (t + c), t + c + c) } else { (c, T::one()) }
    }
}

use num_traits::Float;

use super::transform::{Evaluator, Other, Place, RowTarget, Transform, number};
use crate::{
    objective::snippet::{Snippet, wgsl},
    uniforms::{Settings, constants::CURRICULAR},
};

/// CurricularFace: c·(t + c) above the row's bound. "CurricularFace: Adaptive Curriculum Learning Loss for Deep Face
/// Recognition", CVPR 2020.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Harder {
    /// t
    pub hardness: f64,
}

impl Other for Harder {
    #[inline(always)]
    fn value_slope<T: Float>(&self, c: T, place: Place<T>) -> (T, T) {
        let t: T = number(self.hardness);
        if c > place.bound { (c * (t + c), t + c + c) } else { (c, T::one()) }
    }
}

impl Transform for Harder {
    fn name(&self) -> &'static str {
        "curricular"
    }

    fn snippet(&self) -> Snippet {
        Snippet::plain(wgsl!("others/curricular"))
    }

    fn evaluator<'a>(&'a self, hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(move |c, place| Harder { hardness }.value_slope(c, place))
    }

    fn fill(&self, settings: &mut Settings, _series: Option<&[f64]>) {
        settings.flags |= CURRICULAR;
    }

    /// cos(θ_y + m2).
    fn bound(&self, RowTarget { cosine: x, .. }: RowTarget, m2: f64) -> f64 {
        x * m2.cos() - ((1.0 - x) * (1.0 + x)).max(0.0).sqrt() * m2.sin()
    }
}

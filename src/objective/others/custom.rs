//! A transform of the other classes from outside.

use std::{fmt, sync::Arc};

use super::transform::{Evaluator, Place, RowTarget, Transform};
use crate::{
    Result,
    objective::{
        snippet::{SharedText, Snippet, wgsl},
        target::check_parameters,
    },
    uniforms::{Settings, put},
};

/// A transform of the other classes that is not built in: a function of a class' cosine, of the target of its row, and of up
/// to sixteen numbers.
///
/// The reference calls [`value_slope`](Self::value_slope), the CPU path [`fill`](Self::fill); a GPU runs
/// [`wgsl`](Self::wgsl), which is checked before it is used. See the example `custom_margin`.
///
/// The row's target counts as a constant: no gradient passes through it, as in CurricularFace, MV-Softmax and ArcNegFace. A
/// function of the cosine alone has the exact gradient.
pub trait OtherCurve: fmt::Debug + Send + Sync {
    /// The name in messages. Two of one name must have one WGSL text.
    fn name(&self) -> &str;

    /// The value at the cosine c of another class, without scale, and the slope in c that the backward pass uses. c may be
    /// rounded to 1 + 1e-7. Both finite for such c.
    fn value_slope(&self, c: f64, target: RowTarget) -> (f64, f64);

    /// The same in f32 for many classes of a row: four slices of one length. Calls [`value_slope`](Self::value_slope) unless
    /// it is written out, for speed.
    fn fill(&self, cosines: &[f32], target: RowTarget, values: &mut [f32], slopes: &mut [f32]) {
        for ((&c, value), slope) in cosines.iter().zip(values).zip(slopes) {
            let (v, s) = self.value_slope(c.into(), target);
            (*value, *slope) = (v as f32, s as f32);
        }
    }

    /// `fn margin_other(c: f32, row: RowTarget) -> ValueSlope { .. }`, with `ValueSlope(value, slope)` and the f32 fields
    /// `row.cosine` and `row.value`. `other_parameter(i)` gives the numbers of [`parameters`](Self::parameters);
    /// `exponential`, `logarithm` are at hand. Functions of its own need names of their own.
    fn wgsl(&self) -> &str;

    /// The numbers that [`wgsl`](Self::wgsl) reads: at most 16, finite. They may change without a new kernel.
    fn parameters(&self) -> Vec<f64> {
        vec![]
    }
}

/// An [`OtherCurve`] in [`Others`](super::Others). Has no JSON form.
#[derive(Clone, Debug)]
pub struct CustomOthers(Arc<dyn OtherCurve>);

impl CustomOthers {
    /// Wraps a transform.
    pub fn new(curve: impl OtherCurve + 'static) -> Self {
        Self(Arc::new(curve))
    }

    /// The transform.
    pub fn curve(&self) -> &dyn OtherCurve {
        &*self.0
    }
}

impl PartialEq for CustomOthers {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.curve(), other.curve());
        let same = || a.name() == b.name() && a.wgsl() == b.wgsl() && a.parameters() == b.parameters();
        Arc::ptr_eq(&self.0, &other.0) || same()
    }
}

impl Transform for CustomOthers {
    fn name(&self) -> &'static str {
        "custom"
    }

    /// The text that comes before that of the transform.
    fn snippet(&self) -> Snippet {
        Snippet { text: wgsl!("others/custom"), needs: &[SharedText::Exponential] }
    }

    fn validate(&self) -> Result<()> {
        check_parameters("parameters of custom others", "others.custom.parameters", &self.0.parameters())
    }

    fn evaluator<'a>(&'a self, _hardness: f64, _series: Option<&'a [f64]>) -> Evaluator<'a> {
        Box::new(|c, Place { target: cosine, bound: value, .. }| self.0.value_slope(c, RowTarget { cosine, value }))
    }

    fn fill(&self, settings: &mut Settings, _series: Option<&[f64]>) {
        put(&mut settings.other_series, &self.0.parameters());
    }

    fn sees_target(&self) -> bool {
        true
    }
}

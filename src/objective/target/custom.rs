//! A target curve from outside.

use std::{fmt, sync::Arc};

use super::curve::{BuiltIn, TargetCurve};
use crate::{
    Error, Result,
    objective::snippet::{SharedText, Snippet, wgsl},
    uniforms::{Settings, put},
};

/// A target curve that is not built in: a function of the target cosine and up to sixteen numbers.
///
/// The reference and the CPU path call [`value_slope`](Self::value_slope); a GPU runs [`wgsl`](Self::wgsl), which is
/// checked before it is used. See the example `custom_margin`.
pub trait Margin: fmt::Debug + Send + Sync {
    /// The name in messages. Two margins of one name must have one WGSL text.
    fn name(&self) -> &str;

    /// φ and dφ/dx at the target cosine x, without scale; x may be rounded to 1 + 1e-7. Both finite for such x.
    fn value_slope(&self, x: f64) -> (f64, f64);

    /// `fn margin_target(x: f32) -> ValueSlope { .. }`, with `ValueSlope(value, slope)`. `parameter(i)` gives the numbers
    /// of [`parameters`](Self::parameters); `quadrant_angle`, `cos_sin`, `exponential`, `logarithm` are at hand.
    fn wgsl(&self) -> &str;

    /// The numbers that [`wgsl`](Self::wgsl) reads: at most 16, finite. They may change without a new kernel.
    fn parameters(&self) -> Vec<f64> {
        vec![]
    }
}

/// A [`Margin`] in a [`Target`](super::Target). Has no JSON form.
#[derive(Clone, Debug)]
pub struct Custom(Arc<dyn Margin>);

impl Custom {
    /// The most parameters.
    pub const PARAMETERS: usize = 16;

    /// Wraps a margin.
    pub fn new(margin: impl Margin + 'static) -> Self {
        Self(Arc::new(margin))
    }

    /// The margin.
    pub fn margin(&self) -> &dyn Margin {
        &*self.0
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        let key = |c: &Self| (c.0.name().to_owned(), c.0.wgsl().to_owned());
        Arc::ptr_eq(&self.0, &other.0) || (key(self) == key(other) && self.0.parameters() == other.0.parameters())
    }
}

impl BuiltIn for Custom {
    fn name(&self) -> &'static str {
        "custom"
    }

    /// The text that comes before that of the margin.
    fn snippet(&self) -> Snippet {
        let needs = &[SharedText::Angle, SharedText::Series, SharedText::Exponential, SharedText::FixedMargins];
        Snippet { text: wgsl!("target/custom"), needs }
    }

    fn validate(&self) -> Result<()> {
        check_parameters("parameters of a custom margin", "custom.parameters", &self.0.parameters())
    }

    fn prepare(&self) -> Arc<dyn TargetCurve> {
        Arc::new(self.clone())
    }
}

impl TargetCurve for Custom {
    fn at(&self, x: f64, _: [f64; 4]) -> [f64; 3] {
        let (value, slope) = self.0.value_slope(x);
        [value, slope, 0.0]
    }

    fn fill(&self, settings: &mut Settings, _varied: bool) {
        put(&mut settings.turned, &self.0.parameters());
    }
}

/// Of a curve from outside: how many there are, and their values.
pub(crate) fn check_parameters(count: &'static str, what: &'static str, parameters: &[f64]) -> Result<()> {
    let (needed, allowed) = (parameters.len() as u64, Custom::PARAMETERS as u64);
    if needed > allowed {
        return Err(Error::Size { what: count, needed, allowed });
    }
    match parameters.iter().find(|p| p.is_nan() || p.abs() > f64::from(f32::MAX)) {
        Some(&found) => Err(Error::Parameter { what, found, allowed: "finite f32 numbers" }),
        None => Ok(()),
    }
}

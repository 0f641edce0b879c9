//! The duties of a target curve.

use std::sync::Arc;

use crate::{Result, objective::snippet::Snippet, uniforms::Settings};

/// A target curve as a loss holds it.
pub(crate) trait BuiltIn {
    /// The JSON name.
    fn name(&self) -> &'static str;

    /// The shader that computes it.
    fn snippet(&self) -> Snippet;

    /// Checks its numbers.
    fn validate(&self) -> Result<()>;

    /// Ready to evaluate.
    fn prepare(&self) -> Arc<dyn TargetCurve>;

    /// m0..m3; for a curve that has none, those of a line.
    fn margins(&self) -> [f64; 4] {
        [1.0, 1.0, 0.0, 0.0]
    }
}

/// A target curve, ready to evaluate: what is common to all cosines is computed once.
pub(crate) trait TargetCurve: Send + Sync {
    /// φ, dφ/dx and dφ/dm2 at a target cosine x with the margins m0..m3 of its row, which a curve without margins ignores.
    fn at(&self, x: f64, margins: [f64; 4]) -> [f64; 3];

    /// dφ/dm0..m3 there; 0 by every margin that the curve does not have.
    fn margin_slopes(&self, _x: f64, _margins: [f64; 4]) -> [f64; 4] {
        [0.0; 4]
    }

    /// Writes the numbers that its shader reads; `varied` where rows may have margins of their own.
    fn fill(&self, settings: &mut Settings, varied: bool);
}

//! Gradient filtering: entries of the gradient that are too small to matter are left out of the products.

use crate::{Error, Result};

/// Leaves small entries out of the backward pass: opt in by [`Options::filter`](crate::Options::filter).
///
/// Most classes of a large softmax have next to no probability. With G = dL/d(cosine), N×C, an entry is dropped where
///
/// ```text
/// |G_ij| < ε · s · |up_i| · v_i / Z    s: the scale; up_i: the upstream gradient, v_i: the row's weight, 1 if absent;
///                                      Z of Reduction::Mean, else 1
/// ```
///
/// For a plain softmax |G_ij|·Z/(s·|up_i|) is |softmax − one-hot|, times the slope of the margin at the label: the number that
/// Cut Cross-Entropy compares with ε (Wijmans et al., ["Cut Your Losses in Large-Vocabulary Language
/// Models"](https://arxiv.org/abs/2411.09009); its default is 2⁻¹²). It drops a block of 128×128 entries if all of them are
/// small, which for cosines hardly ever happens; here single entries are dropped, so the result does not depend on tiles,
/// chunks, shards or threads, and the products run over the entries that are left (CPU), or over the rows and classes of a
/// tile that have any left (GPU).
///
/// # What it costs
///
/// The loss, the rows' results and dL/ds are untouched. For cosines an entry moves an embedding's gradient by at most
/// |G_ij|/|x_i| and a prototype's by at most |G_ij|/|w_j|, so with unit vectors no gradient is off by more than the dropped mass of
/// its row or its class; a row drops less than C·ε·s·|up_i|·v_i/Z. How much all rows dropped together is reported:
/// [`Output::filtered`](crate::Output::filtered). Since the dropped pulls point in many directions, the error of the whole
/// gradient is far smaller than that share. (In a linear head the other vector's length multiplies each of these bounds.)
///
/// # When it pays
///
/// Where few classes share the probability: a large scale (64), many classes, cosines that spread. On the CPU a block is
/// multiplied entry by entry once less than a quarter of it is left (ε = 0.01/C often does, with errors of 2e-5 to 2e-4 of
/// the gradient's length); before that the filter costs 1 or 2 %. On a GPU whole rows and classes of a tile must be small,
/// so it pays once about a hundredth is left (0.1/C to 2⁻¹²), and costs 2 to 10 % before that. 2⁻¹² leaves out a tenth of the
/// mass or more once a run has learned something. At a scale of 30 few entries are small. Label smoothing gives every entry
/// about smoothing/C: below that nothing is dropped. `benches/README.md` has the measurements.
///
/// ```
/// use margin_softmax::{Options, data::GradientFilter};
///
/// let classes = 85_742;
/// let options = Options { filter: Some(GradientFilter::new(0.01 / classes as f64)?), ..Options::default() };
/// # Ok::<(), margin_softmax::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientFilter {
    epsilon: f32,
}

// a checked number is no NaN
impl Eq for GradientFilter {}

impl GradientFilter {
    /// The largest ε.
    pub const MAX: f64 = 0.1;
    /// The smallest ε.
    pub const MIN: f64 = 1e-15;

    /// With a threshold ε, 1e-15 ≤ ε ≤ 0.1; rounded to f32.
    pub fn new(epsilon: f64) -> Result<Self> {
        if !(Self::MIN..=Self::MAX).contains(&epsilon) {
            let allowed = "1e-15 <= epsilon <= 0.1";
            return Err(Error::Parameter { what: "filter.epsilon", found: epsilon, allowed });
        }
        Ok(Self { epsilon: epsilon as f32 })
    }

    /// ε.
    pub fn epsilon(self) -> f64 {
        self.epsilon.into()
    }
}

//! WHAT is computed: a loss as plain, validated data, and its scalar formulas. No device, no threads.

pub(crate) mod adaptive;
mod auxiliary;
pub mod chebyshev;
mod checked;
mod follow;
mod link;
mod list;
mod loss;
pub mod others;
mod prepared;
mod presets;
pub(crate) mod random;
mod range;
mod schedule;
pub(crate) mod snippet;
pub(crate) mod state;
mod target;
mod targets;

pub use adaptive::{AdaFace, Adaptive, Elastic, Length, MagFace};
pub use auxiliary::{CenterLoss, Regularizer};
pub use chebyshev::{Coefficients, Damping, Series};
pub(crate) use checked::CheckedBatch;
pub(crate) use follow::RowFacts;
pub use link::{Binary, Link};
pub(crate) use link::{sigmoid, softplus};
pub use loss::{MarginSoftmax, Reduction, Similarity};
pub use others::{ArcNeg, CustomOthers, InterclassFilter, MvSoftmax, OtherCurve, Others, RowTarget, TopK};
pub(crate) use prepared::Prepared;
pub use presets::{PRESETS, Preset};
pub(crate) use range::in_range;
pub use schedule::{Epochs, Ramp, Schedule, Schedules};
pub use state::State;
pub use target::*;
pub(crate) use targets::SoftTargets;

/// A vector shorter than this counts as zero: its direction is x/1e-12 and its gradient exactly 0.
pub const SHORTEST: f64 = 1e-12;

//! Plain types: a batch, its labels and results, and how a head is to be computed. They know no loss; the checks of a batch
//! against a loss are in `objective::checked`.

mod batch;
mod finite;
mod gradient_filter;
mod label;
mod options;
mod output;
mod predictions;
mod progress;
mod soft_labels;

pub use batch::{Batch, Margins, Stored, StoredValues};
pub(crate) use batch::{MAX_WEIGHT, MIN_WEIGHT};
pub(crate) use finite::Finite;
pub use gradient_filter::GradientFilter;
pub use label::Label;
pub(crate) use label::numbers;
pub use options::{Budget, DevicePreset, MarginGradients, Options, Tile, Want};
pub(crate) use output::NO_COSINE;
pub use output::{CenterOutput, Counts, Filtered, Output, Penalty};
pub(crate) use predictions::Prediction;
pub use predictions::{Inputs, Predictions};
pub(crate) use progress::{Callback, Watch};
pub use progress::{OnProgress, Progress};
pub use soft_labels::{MixedLabels, SoftLabels};

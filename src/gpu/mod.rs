//! Executes a plan with wgpu: the only folder that creates wgpu objects. How to use it: [the guide](crate::guide::device).

mod adapters;
pub mod auxiliary;
mod bound;
mod context;
mod custom;
mod gather;
mod head;
mod io;
#[cfg(feature = "cooperative_matrix")]
mod matrix_units;
pub mod monitor;
pub mod operations;
mod parts;
mod pipeline;
mod predictor;
mod range;
mod readback;
mod request;
pub(crate) mod scores;
#[cfg(not(target_arch = "wasm32"))]
mod shards;
mod slices;
mod soft_labels;
mod submit;
mod tensor;
pub mod timing;

#[cfg(feature = "catalogue")]
pub use bound::{Bound, Dispatch};
pub use context::Context;
pub use gather::{gather, gather_into};
pub use head::{BoundHead, Head};
pub use io::{Io, PredictIo, PredictionTensors};
pub use parts::Parts;
pub(crate) use predictor::DevicePredictor;
pub use request::{optional_features, recommended_limits, required_limits};
pub(crate) use slices::DeviceHead;
pub use tensor::{Scalar, Tensor};

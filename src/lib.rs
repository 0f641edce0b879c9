//! Margin-softmax losses.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod backend;
mod batch;
#[cfg(feature = "cpu")]
mod cpu;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod objective;
mod options;
pub mod plan;
pub mod reference;
mod shape;

pub use backend::{Backend, SliceHead};
pub use batch::{Batch, Counts, Label, Output, Want};
pub use error::{Error, Result};
pub use objective::{
    Coefficients, Curve, Damping, Fallback, MarginSoftmax, Others, Reduction, Series, Slope, Target, Unified,
};
pub use options::{Budget, Options, Tile};
pub use shape::Shape;
#[cfg(feature = "gpu")]
pub use wgpu;

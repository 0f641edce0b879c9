//! The objective and the f64 reference against the mathematics, and the planner; no device needed.

mod common;
mod edges;
mod errors;
mod families;
mod golden;
mod gradients;
#[cfg(feature = "serde")]
mod json;
mod monitor;
mod plan;
mod regularizers;
mod series;
mod slopes;
mod theory;

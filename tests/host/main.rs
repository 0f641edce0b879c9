//! The objective and the f64 reference against the mathematics, and the planner; no device needed.

#[cfg(feature = "serde")]
mod checkpoint;
mod common;
mod edges;
mod errors;
mod families;
mod golden;
mod gradients;
#[cfg(feature = "serde")]
mod json;
mod monitor;
mod partial;
mod plan;
mod regularizers;
mod schedule;
mod series;
mod slopes;
mod theory;

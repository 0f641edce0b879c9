//! The objective and the f64 reference against the mathematics, and the planner; no device needed.

mod batch_report;
#[cfg(feature = "serde")]
mod checkpoint;
mod classes;
mod common;
mod cuts;
mod derivatives;
mod edges;
mod engines;
mod errors;
#[path = "../families/mod.rs"]
mod families;
mod family_edges;
mod filter;
#[cfg(feature = "serde")]
mod fixtures;
mod golden;
mod golden_families;
mod gradients;
#[cfg(feature = "serde")]
mod json;
mod laws;
mod margin_gradients;
mod monitor;
mod nearest_prototypes;
mod package;
mod partial;
mod plan;
mod predictions;
mod problems;
mod properties;
mod regularizers;
mod rooms;
mod schedule;
mod series;
mod slopes;
#[path = "../soft/mod.rs"]
mod soft;
mod soft_labels;
mod sphere;
mod theory;
mod unsafety;
mod values;
mod verification;

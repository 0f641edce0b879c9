//! The CPU path against the f64 reference: values, policies, and the same bits on any number of threads.
#![cfg(feature = "cpu")]

mod agreement;
mod common;
#[path = "../state/mod.rs"]
mod common_state;
mod determinism;
mod edges;
mod errors;
#[path = "../families/mod.rs"]
mod families;
mod margins;
#[path = "../predictions/mod.rs"]
mod nearest;
mod predictions;
mod progress;
mod properties;
#[path = "../progress/mod.rs"]
mod reports;
mod scores;
mod shards;
#[path = "../soft/mod.rs"]
mod soft;
mod soft_labels;
mod state;
mod sums;

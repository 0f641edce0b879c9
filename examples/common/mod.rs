//! What the training examples share: a small network, one loop that trains it under a head, data, pictures, the page.

pub mod charts;
pub mod device;
pub mod digits;
pub mod exit;
pub mod floats;
pub mod json;
pub mod learner;
pub mod mlp;
pub mod page;
pub mod pairs;
pub mod progress;
pub mod readings;
pub mod runs;
pub mod voices;

/// Every failure here is a line for a person.
pub type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

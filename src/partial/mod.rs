//! Partial FC: a softmax over the classes of the batch and a random share of the others ("Partial FC: Training 10 Million
//! Identities on a Single Machine"; insightface).

mod head;
mod sampling;

pub use head::{Classes, SampledHead, SampledOutput};
pub use sampling::{PartialFc, Sample};

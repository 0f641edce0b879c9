//! The two errors at one threshold.

/// The errors at one threshold: every pair with at least this score is accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatingPoint {
    /// A score that occurs, or infinity for the threshold that accepts nothing.
    pub threshold: f32,
    /// The share of the different pairs that is accepted: FAR, the false alarm rate, the x axis of an ROC.
    pub false_accept_rate: f64,
    /// The share of the same pairs that is rejected: FRR, the miss rate.
    pub miss_rate: f64,
}

impl OperatingPoint {
    /// The share of the same pairs that is accepted: TAR, the y axis of an ROC.
    pub fn true_accept_rate(&self) -> f64 {
        1.0 - self.miss_rate
    }
}

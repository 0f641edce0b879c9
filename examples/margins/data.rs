//! The synthetic voices, divided.

use crate::common::{
    Result,
    learner::Set,
    voices::{FEATURES, SEEN, UTTERANCES, Voices},
};

/// Utterances of each trained voice that are only tested.
pub const TESTED: usize = 4;

/// The three parts of the data.
pub struct Data {
    /// Utterances to train on.
    pub train: Set,
    /// Other utterances of the same voices.
    pub test: Set,
    /// All utterances of the other voices.
    pub unseen: Set,
    /// Voices that are trained.
    pub classes: usize,
}

impl Data {
    pub fn load() -> Result<Self> {
        let voices = Voices::load()?;
        let [train, test] = voices.divided(TESTED);
        Ok(Self { train, test, unseen: voices.unseen, classes: SEEN })
    }

    /// Values of one input.
    pub fn inputs(&self) -> usize {
        FEATURES
    }

    /// For people.
    pub fn text(&self) -> String {
        let voices = |rows: usize, each: usize| rows / each;
        format!(
            "{} voices with {} utterances each to train on and {TESTED} to test on, {} voices with {UTTERANCES} \
             utterances each that are never trained",
            self.classes,
            UTTERANCES - TESTED,
            voices(self.unseen.labels.len(), UTTERANCES),
        )
    }
}

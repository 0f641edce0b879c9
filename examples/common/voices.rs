//! Synthetic speakers: 98 voices of espeak-ng with 16 utterances each, embedded so that nothing is downloaded.
//! Origin, and the script that made them: examples/data/README.md.

use std::io::Read;

use flate2::read::GzDecoder;
use ndarray::Array2;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Result, learner::Set};

const FILE: &[u8] = include_bytes!("../data/voices.csv.gz");

/// Numbers of one utterance: mean, deviation and deviation of the slope of 20 cepstra.
pub const FEATURES: usize = 60;

/// Utterances of one voice.
pub const UTTERANCES: usize = 16;

/// Voices to train on; the others are never shown in training.
pub const SEEN: usize = 60;

/// The split does not follow `--seed`, so that runs with other seeds are tested on the same voices.
const SPLIT_SEED: u64 = 0;

/// The file has thousandths.
const UNIT: f32 = 1e-3;

/// Both parts of the data. The utterances of a voice follow one another, and a label is the place of the voice in the
/// list of names.
pub struct Voices {
    /// Voices to train on.
    pub seen: Set,
    /// All others: verification is about speakers without a prototype.
    pub unseen: Set,
    /// espeak-ng's names.
    pub seen_names: Vec<String>,
    pub unseen_names: Vec<String>,
}

/// A name and its utterances one after the other.
type Voice = (String, Vec<f32>);

impl Voices {
    /// Unpacks and splits the embedded file, and brings every column to mean 0 and deviation 1 over the seen voices.
    pub fn load() -> Result<Self> {
        let mut voices = read(GzDecoder::new(FILE))?;
        voices.shuffle(&mut ChaCha8Rng::seed_from_u64(SPLIT_SEED));
        let unseen = voices.split_off(SEEN.min(voices.len()));
        let [seen, unseen] = [voices, unseen].map(|mut voices| {
            voices.sort_by(|a, b| a.0.cmp(&b.0));
            set(voices)
        });
        let ((seen, seen_names), (unseen, unseen_names)) = (seen?, unseen?);
        let [seen, unseen] = seen.standardised(unseen);
        Ok(Self { seen, unseen, seen_names, unseen_names })
    }

    /// The seen voices without and with only the last utterances of each: to train on, and to test on.
    pub fn divided(&self, tested: usize) -> [Set; 2] {
        let rows = 0..self.seen.labels.len();
        let (test, train): (Vec<_>, Vec<_>) = rows.partition(|row| row % UTTERANCES + tested >= UTTERANCES);
        [self.seen.select(&train), self.seen.select(&test)]
    }
}

/// The voices in the order of the file.
fn read(file: impl Read) -> Result<Vec<Voice>> {
    let mut voices: Vec<Voice> = vec![];
    for row in csv::ReaderBuilder::new().has_headers(false).from_reader(file).records() {
        let row = row?;
        let name = row.get(FEATURES).ok_or("voices.csv.gz has a short line")?;
        if voices.last().is_none_or(|(last, _)| last != name) {
            voices.push((name.into(), vec![]));
        }
        let values = row.iter().take(FEATURES).map(|value| Ok(value.parse::<f32>()? * UNIT));
        let values = values.collect::<Result<Vec<f32>>>()?;
        voices.last_mut().map(|(_, all)| all.extend(values)).ok_or("voices.csv.gz has no voice")?;
    }
    Ok(voices)
}

fn set(voices: Vec<Voice>) -> Result<(Set, Vec<String>)> {
    let labels = (0..voices.len() as u32).flat_map(|label| [label; UTTERANCES]).collect::<Vec<_>>();
    let (names, values): (Vec<_>, Vec<_>) = voices.into_iter().unzip();
    let inputs = Array2::from_shape_vec((labels.len(), FEATURES), values.concat())?;
    Ok((Set { inputs, labels }, names))
}

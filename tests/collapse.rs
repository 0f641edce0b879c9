//! The collapse warning on the monitor readings of whole training runs: it comes in those that collapsed and in no healthy one.
//!
//! tests/collapse/readings.json.gz holds the readings of the examples `margins`, `speakers`, `images` and `uci`;
//! `tests/run.sh --full` trains all of them anew and names its file in MARGIN_SOFTMAX_READINGS.

use std::{env, fs::File};

use flate2::read::GzDecoder;
use margin_softmax::{
    Shape,
    monitor::{CollapseDetector, CollapseKind, CollapseThresholds, Monitor},
};
use serde::Deserialize;

/// The readings of a run.
#[derive(Deserialize)]
struct Run {
    run: String,
    classes: usize,
    dim: usize,
    /// Of each reading.
    rows: Vec<u64>,
    /// In thousandths, as the lengths.
    cosines: Vec<f64>,
    /// Of the mean prototype.
    lengths: Vec<f64>,
}

/// How a run is known to end, whatever the detector says.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Ending {
    Collapsed(CollapseKind),
    Healthy,
    /// Embeddings at about 90° from their prototypes, on one side or the other from seed to seed: nothing is asked of these.
    Border,
}

/// Beginnings of the names of runs; the first that fits counts, and a run without one is healthy.
const ENDINGS: &[(&str, Ending)] = &[
    // AmpFace alone: with 60 classes error rates of 15 to 29 % in place of 11
    ("margins, m0 = 0.8, plain, 32 dimensions", Ending::Collapsed(CollapseKind::Collapsed)),
    ("margins, m0 = 0.65, plain, 32 dimensions", Ending::Collapsed(CollapseKind::Collapsed)),
    ("margins, m0 = 0.5, plain, 32 dimensions", Ending::Collapsed(CollapseKind::Collapsed)),
    ("margins, m0 = 0.35, plain, 32 dimensions", Ending::Collapsed(CollapseKind::Collapsed)),
    ("margins, m0 = 0.2, plain, 32 dimensions", Ending::Collapsed(CollapseKind::Collapsed)),
    // eight classes: random prototypes can be as near to each other
    ("uci, AmpFace alone", Ending::Collapsed(CollapseKind::Repelled)),
    ("margins, m0 = 0.35, plain, 3 dimensions, 8 voices, seed 1", Ending::Collapsed(CollapseKind::Repelled)),
    ("margins, m0 = 0.35, plain, 3 dimensions, 8 voices, seed 3", Ending::Collapsed(CollapseKind::Repelled)),
    // where cos(m1·θ) has turned round, it pulls away from the prototype
    ("margins, m1 = 1.85, none", Ending::Collapsed(CollapseKind::Collapsed)),
    ("margins, m1 = 2, none", Ending::Collapsed(CollapseKind::Collapsed)),
    ("margins, m1 = 2.2, none", Ending::Collapsed(CollapseKind::Collapsed)),
    // AmpFace in three dimensions, and remedies that are too weak for such a margin
    ("margins, m0 = 0.35, plain, 3 dimensions", Ending::Border),
    ("margins, m0 = 0.35, Reg_ss, λ = 10, 3 dimensions", Ending::Border),
    ("margins, m0 = 0.35, Reg_ss, λ = 10, 32 dimensions", Ending::Border),
    ("margins, m0 = 0.2, Reg_ss, λ = 10, 32 dimensions", Ending::Border),
    ("margins, m0 = 0.5, UniformFace", Ending::Border),
    ("margins, m0 = 0.35, UniformFace", Ending::Border),
    ("margins, m0 = 0.2, UniformFace", Ending::Border),
    // on its way back when the warm-up ends
    ("uci, Reg_ss, λ = 1,", Ending::Border),
    // margins that are too large: some seeds leave all embeddings beyond 90°
    ("margins, m1 = 1.9, s = 30", Ending::Border),
    ("margins, m1 = 2.05, s = 30", Ending::Border),
    ("margins, m1 = 2.2, s = 30", Ending::Border),
    ("margins, m2 = 0.8, s = 30", Ending::Border),
    ("margins, m1 = 1.85, mirror", Ending::Border),
    ("margins, m1 = 1.85, continuous", Ending::Border),
    ("margins, m1 = 2, mirror", Ending::Border),
    ("margins, m1 = 2.2, mirror", Ending::Border),
];

impl Run {
    fn ending(&self) -> Ending {
        let known = ENDINGS.iter().find(|(name, _)| self.run.starts_with(name));
        known.map_or(Ending::Healthy, |(_, ending)| *ending)
    }

    /// The last warning of the detector with its default thresholds.
    fn warning(&self) -> Option<CollapseKind> {
        let shape = Shape::new(1, self.classes, self.dim).unwrap();
        let mut detector = CollapseDetector::new(CollapseThresholds::default(), shape).unwrap();
        let readings = self.rows.iter().zip(&self.cosines).zip(&self.lengths);
        let warnings = readings.filter_map(|((rows, cosine), length)| {
            let mut report = Monitor::new(1).unwrap().report().with_mean_prototype(length / 1000.0);
            (report.rows, report.target_cosine) = (*rows, cosine / 1000.0);
            Some(detector.check(&report)?.kind)
        });
        warnings.last()
    }
}

fn runs() -> Vec<Run> {
    let stored = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/collapse/readings.json.gz").into();
    let path = env::var_os("MARGIN_SOFTMAX_READINGS").unwrap_or(stored);
    serde_json::from_reader(GzDecoder::new(File::open(path).unwrap())).unwrap()
}

#[test]
fn collapsed_runs_are_warned_of_and_healthy_ones_are_not() {
    let runs = runs();
    let (mut collapsed, mut healthy) = (0, 0);
    for run in &runs {
        match run.ending() {
            Ending::Collapsed(kind) => {
                assert_eq!(run.warning(), Some(kind), "{}", run.run);
                collapsed += 1;
            }
            Ending::Healthy => {
                assert_eq!(run.warning(), None, "{}", run.run);
                healthy += 1;
            }
            Ending::Border => {}
        }
    }
    // names that changed would make every run healthy
    for (name, _) in ENDINGS {
        assert!(runs.iter().any(|run| run.run.starts_with(name)), "no run begins with {name:?}");
    }
    assert!(collapsed >= 27 && healthy > 450, "{collapsed} collapsed and {healthy} healthy runs");
}

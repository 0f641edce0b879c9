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
    Collapsed,
    Healthy,
    /// At the border: embeddings at about 90° from their prototypes, or another ending from seed to seed.
    Border,
}

/// Beginnings of the names of runs; the first that fits counts.
const ENDINGS: &[(&str, Ending)] = &[
    // AmpFace alone, 60 classes in 32 dimensions: error rates of 18 to 27 % in place of 11
    ("margins, m0 = 0.8, plain, 32 dimensions", Ending::Collapsed),
    ("margins, m0 = 0.65, plain, 32 dimensions", Ending::Collapsed),
    ("margins, m0 = 0.5, plain, 32 dimensions", Ending::Collapsed),
    ("margins, m0 = 0.35, plain, 32 dimensions", Ending::Collapsed),
    ("margins, m0 = 0.2, plain, 32 dimensions", Ending::Collapsed),
    // the cosine of m1·θ turns round behind the threshold
    ("margins, m1 = 1.85, none", Ending::Collapsed),
    ("margins, m1 = 2, none", Ending::Collapsed),
    ("margins, m1 = 2.2, none", Ending::Collapsed),
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
    for run in &runs {
        let warning = run.warning();
        match run.ending() {
            Ending::Collapsed => assert_eq!(warning, Some(CollapseKind::Collapsed), "{}", run.run),
            Ending::Healthy => assert_eq!(warning, None, "{}", run.run),
            Ending::Border => {}
        }
    }
    let count = |ending| runs.iter().filter(|run| run.ending() == ending).count();
    println!(
        "{} collapsed, {} healthy, {} at the border",
        count(Ending::Collapsed),
        count(Ending::Healthy),
        count(Ending::Border)
    );
    // every name of the list is that of a run, and most runs are healthy
    for (name, _) in ENDINGS {
        assert!(runs.iter().any(|run| run.run.starts_with(name)), "no run begins with {name:?}");
    }
    assert!(count(Ending::Healthy) > runs.len() / 2);
}

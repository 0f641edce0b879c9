//! Monitor readings of a training run: they tell whether it collapsed, and a file of them can become a test's fixture.

use std::{fs, path::Path};

use margin_softmax::{
    Backend, Shape,
    monitor::{CollapseDetector, CollapseThresholds, Monitor},
};
use serde::Serialize;

use super::{
    Result,
    learner::{Step, flat},
};

/// One report of a run, over the steps since the reading before it: all that a
/// [`CollapseDetector`] is given, and the shape it is made for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// Example, setting and seed.
    pub run: String,
    /// The last step that it covers, from 1.
    pub step: usize,
    pub classes: usize,
    pub dim: usize,
    /// Rows since the reading before.
    pub rows: u64,
    pub accuracy: f64,
    /// M_intra and M_inter of these rows, radians.
    pub intra_angle: f64,
    pub inter_angle: f64,
    pub target_cosine: f64,
    /// At the last step.
    pub mean_prototype: f64,
}

/// Takes the readings of one run, and asks the library's detector about each.
pub struct Watch {
    run: String,
    shape: Shape,
    /// Steps of a reading.
    every: usize,
    detector: CollapseDetector,
    monitor: Monitor,
    pub readings: Vec<Reading>,
    /// The step of the first warning, at the default thresholds.
    pub warned: Option<usize>,
}

impl Watch {
    /// A reading after every `every` steps; `shape` is that of the head.
    pub fn new(run: impl Into<String>, shape: Shape, every: usize) -> Result<Self> {
        let detector = CollapseDetector::new(CollapseThresholds::default(), shape)?;
        let (run, every, monitor) = (run.into(), every.max(1), Monitor::new(1)?);
        Ok(Self { run, shape, every, detector, monitor, readings: vec![], warned: None })
    }

    /// For the callback of [`train`](super::learner::train).
    pub fn step(&mut self, backend: &Backend, step: &Step<'_>) -> Result {
        self.monitor.add(step.out, step.labels, None)?;
        if !step.number.is_multiple_of(self.every) {
            return Ok(());
        }
        let (classes, dim) = (self.shape.classes(), self.shape.dim());
        let length = backend.mean_prototype(dim, flat(&step.model.prototypes.value))?;
        let report = std::mem::replace(&mut self.monitor, Monitor::new(1)?).report().with_mean_prototype(length);
        if self.detector.check(&report).is_some() {
            self.warned = self.warned.or(Some(step.number));
        }
        self.readings.push(Reading {
            run: self.run.clone(),
            step: step.number,
            classes,
            dim,
            rows: report.rows,
            accuracy: report.accuracy,
            intra_angle: report.intra_angle,
            inter_angle: report.inter_angle,
            target_cosine: report.target_cosine,
            mean_prototype: length,
        });
        Ok(())
    }
}

/// Writes readings as JSON, one a line.
pub fn write<'a>(path: &Path, readings: impl IntoIterator<Item = &'a Reading>) -> Result {
    let mut text = String::new();
    for reading in readings {
        text += &serde_json::to_string(reading)?;
        text.push('\n');
    }
    fs::write(path, text).map_err(|e| format!("--readings {}: {e}", path.display()).into())
}

//! How good a model is: on new images of the trained digits, and on digits it has never seen.

use margin_softmax::{
    Backend, MarginSoftmax, Similarity,
    monitor::{Collapse, CollapseDetector, CollapseThresholds, Monitor},
};

use crate::common::{
    Result,
    digits::Digits,
    learner::{Model, accuracy, flat},
    pairs,
};

/// The scores of one model.
pub struct Scores {
    /// Share of the test images whose own prototype is the nearest.
    pub accuracy: f64,
    /// Equal error rate over all pairs of unseen images.
    pub eer: f64,
    /// Of each test image, degrees: to the prototype of its class.
    pub intra: Vec<f64>,
    /// Of each test image, degrees: to the nearest prototype of another class.
    pub inter: Vec<f64>,
    /// The library's warning, where the test images ended up on the far side of their own prototypes.
    pub collapse: Option<Collapse>,
}

impl Scores {
    /// Mean angle to the own prototype, degrees.
    pub fn m_intra(&self) -> f64 {
        mean(&self.intra)
    }

    /// Mean angle to the nearest other prototype, degrees.
    pub fn m_inter(&self) -> f64 {
        mean(&self.inter)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Scores a model. The head already gives the two cosines that accuracy and angles are made of.
pub fn score(backend: &Backend, loss: &MarginSoftmax, model: &Model, digits: &Digits) -> Result<Scores> {
    let out = model.judge(backend, loss, &digits.test)?;
    let accuracy = accuracy(&out);
    // a linear head gives products
    let linear = loss.similarity == Similarity::Dot;
    let out = if linear { model.judge(backend, &MarginSoftmax::normface(), &digits.test)? } else { out };
    let mut monitor = Monitor::new(1)?;
    monitor.add(&out, &digits.test.labels, None)?;
    let shape = model.shape(digits.test.labels.len())?;
    let length = backend.mean_prototype(shape.dim(), flat(&model.prototypes.value))?;
    // of a trained model, so without a warm-up
    let thresholds = CollapseThresholds { warm_up: Some(0), ..Default::default() };
    let mut detector = CollapseDetector::new(thresholds, shape)?;
    let degrees =
        |cosines: &[f32]| cosines.iter().map(|&c| f64::from(c).clamp(-1.0, 1.0).acos().to_degrees()).collect();
    Ok(Scores {
        accuracy,
        eer: pairs::detection(&model.embed(&digits.unseen), &digits.unseen.labels)?.equal_error_rate(),
        intra: degrees(&out.target_cosines),
        inter: degrees(&out.other_cosines),
        collapse: detector.check(&monitor.report().with_mean_prototype(length)),
    })
}

//! The measures of the scores, as a table and as JSON.

use margin_softmax::verification::{DetectionCost, DetectionCurve, PairAccuracy, pair_accuracy};
use serde_json::{Value, json};

use crate::{common::Result, trials::Trials};

/// The false accept rates of the table.
const FARS: [f64; 6] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1];

const COSTS: [(&str, DetectionCost); 3] = [
    ("minDCF, prior 0.01", DetectionCost::VOXCELEB),
    ("minDCF, prior 0.05", DetectionCost::VOXSRC),
    ("minDCF, prior 0.001", DetectionCost::SRE10),
];

/// The measures of one kind of scores.
pub struct Measures {
    /// Of the scores.
    pub title: &'static str,
    pub curve: DetectionCurve,
    /// In the order of `COSTS`.
    pub costs: Vec<f64>,
    /// In the order of `FARS`; none where there are too few different pairs to tell.
    pub accepted: Vec<Option<f64>>,
    pub folds: Option<PairAccuracy>,
}

impl Measures {
    pub fn new(title: &'static str, scores: &[f32], trials: &Trials) -> Result<Self> {
        let curve = DetectionCurve::new(scores, &trials.same)?;
        let costs = COSTS.iter().map(|(_, cost)| curve.min_detection_cost(cost)).collect::<Result<_, _>>()?;
        let accepted = |&far: &f64| {
            let enough = far * curve.different_pairs() as f64 >= 1.0;
            enough.then(|| curve.true_accept_rate(far)).transpose()
        };
        let accepted = FARS.iter().map(accepted).collect::<Result<_, _>>()?;
        let folds = trials.folds.as_ref().map(|folds| pair_accuracy(scores, &trials.same, folds)).transpose()?;
        Ok(Self { title, curve, costs, accepted, folds })
    }

    /// As JSON; rates from 0 to 1.
    pub fn json(&self) -> Value {
        let costs = COSTS.iter().zip(&self.costs).map(|((_, cost), value)| {
            json!({"target_prior": cost.target_prior, "miss": cost.miss, "false_alarm": cost.false_alarm, "min": value})
        });
        let accepted = FARS.iter().zip(&self.accepted).map(|(far, tar)| json!({"far": far, "tar": tar}));
        let folds = self.folds.as_ref().map(|folds| {
            json!({
                "mean": folds.mean(),
                "deviation": folds.deviation(),
                "standard_error": folds.standard_error(),
                "folds": folds.folds,
            })
        });
        json!({
            "scores": self.title,
            "equal_error_rate": self.curve.equal_error_rate(),
            "equal_error_threshold": self.curve.equal_error_point().threshold,
            "min_detection_costs": costs.collect::<Vec<_>>(),
            "true_accept_rates": accepted.collect::<Vec<_>>(),
            "fold_accuracy": folds,
        })
    }
}

/// Header and rows: a line for each measure, a column for each kind of scores.
pub fn table(all: &[Measures]) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let header = ["measure"].into_iter().chain(all.iter().map(|m| m.title)).collect();
    let mut rows = vec![];
    let mut row = |title: String, cell: &dyn Fn(&Measures) -> String| {
        rows.push([title].into_iter().chain(all.iter().map(cell)).collect());
    };
    row("EER, %".into(), &|m| format!("{:.3}", 100.0 * m.curve.equal_error_rate()));
    row("threshold there".into(), &|m| format!("{:.4}", m.curve.equal_error_point().threshold).replace('-', "−"));
    for (i, (title, _)) in COSTS.iter().enumerate() {
        row((*title).into(), &|m| format!("{:.4}", m.costs[i]));
    }
    for (i, far) in FARS.iter().enumerate() {
        let cell = |m: &Measures| m.accepted[i].map_or("too few pairs".into(), |tar| format!("{:.2}", 100.0 * tar));
        row(format!("TAR at FAR {far:e}, %").replace('-', "−"), &cell);
    }
    if all.iter().any(|m| m.folds.is_some()) {
        let cell = |folds: &PairAccuracy| format!("{:.2} ± {:.2}", 100.0 * folds.mean(), 100.0 * folds.deviation());
        row("accuracy over the folds, %".into(), &|m| m.folds.as_ref().map_or("–".into(), cell));
    }
    (header, rows)
}

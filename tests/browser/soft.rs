//! Cases with several targets for each row.

use margin_softmax::{data::SoftLabels, objective::*, *};
use rand::{Rng, RngExt};
use serde_json::json;

use super::Case;

pub fn cases() -> Result<Vec<Case>> {
    let small = [17, 130, 16];
    let soft = |name: &str, loss, count: usize| Case {
        soft: Some(count),
        pull: 0.5,
        options: json!({ "tile": "direct", "soft_labels": count }),
        ..Case::new(name, loss, small)
    };
    let binary = MarginSoftmax::named("sphereface2")?;
    let own = [true, false, true, false];
    let few = MarginSoftmax::arcface().with_ignore_index(-100).with_reduction(Reduction::Sum);
    Ok(vec![
        soft("soft_mixup", MarginSoftmax::arcface(), 2),
        Case { weights: true, row_weights: true, ..soft("soft_sparse", MarginSoftmax::cosface(), 16) },
        Case { weights: true, want: Want::ALL.with_bias(), ..soft("soft_positives", binary, 5) },
        Case {
            class_margins: own,
            row_margins: [false, false, true, false],
            ..soft("soft_margins", MarginSoftmax::arcface(), 3)
        },
        Case { rows: Some(11), ignored: 4, ..soft("soft_ignored", few, 2) },
        Case {
            shards: Some(vec![128, 202]),
            options: json!({ "tile": "direct", "budget": 40_000, "soft_labels": 2 }),
            shape: [33, 330, 16, 1],
            ..soft("soft_shards_recompute", MarginSoftmax::cheby_aam(), 2)
        },
    ])
}

/// The targets of all rows.
pub struct Targets {
    count: usize,
    pub classes: Vec<i32>,
    pub weights: Vec<f32>,
    wide: Vec<f64>,
}

impl Targets {
    /// The label or another class, equal ones and gaps among them; weights of which some are 0. The first target of a row is there.
    pub fn new(rng: &mut impl Rng, labels: &[i32], classes: usize, count: usize) -> Self {
        let mut all = Self { count, classes: vec![], weights: vec![], wide: vec![] };
        for (row, &label) in labels.iter().enumerate() {
            for slot in 0..count {
                all.classes.push(match (row + slot) % 5 {
                    0 => label.max(0),
                    1 if slot > 0 => all.classes[all.classes.len() - 1],
                    2 if slot > 0 => -1,
                    _ => rng.random_range(0..classes) as i32,
                });
                all.weights.push(if slot > 0 && (row * 7 + slot) % 6 == 5 { 0.0 } else { rng.random_range(0.1..1.0) });
            }
        }
        all.wide = all.weights.iter().map(|&weight| weight.into()).collect();
        all
    }

    pub fn wide(&self) -> SoftLabels<'_, f64> {
        SoftLabels { count: self.count, classes: &self.classes, weights: &self.wide }
    }
}

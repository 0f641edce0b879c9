//! Slices, batches and outputs between f32 and the f64 of the reference.

use crate::{
    Margins, Output,
    data::{Filtered, Predictions},
    objective::CheckedBatch,
};

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

pub(super) fn thin(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

/// A batch in f64.
pub(super) struct Wide {
    embeddings: Vec<f64>,
    prototypes: Vec<f64>,
    class_weights: Option<Vec<f64>>,
    row_weights: Option<Vec<f64>>,
    upstream: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
}

impl Wide {
    pub fn new(batch: &CheckedBatch<'_>) -> Self {
        Self {
            embeddings: wide(batch.embeddings),
            prototypes: wide(batch.prototypes),
            class_weights: batch.class_weights.map(wide),
            row_weights: batch.row_weights.map(wide),
            upstream: batch.upstream.map(wide),
            bias: batch.bias.map(wide),
        }
    }

    pub fn of(&self, batch: CheckedBatch<'_>) -> CheckedBatch<'_, f64> {
        CheckedBatch {
            embeddings: &self.embeddings,
            prototypes: &self.prototypes,
            labels: batch.labels,
            class_weights: self.class_weights.as_deref(),
            row_weights: self.row_weights.as_deref(),
            divisor: batch.divisor.map(f64::from),
            upstream: self.upstream.as_deref(),
            bias: self.bias.as_deref(),
            margins: batch.margins,
            given_margins: [Margins::NONE; 2],
            soft: batch.soft,
        }
    }
}

/// The reference's output in f32.
pub(super) fn narrow(out: Output<f64>) -> Output {
    Output {
        loss: out.loss as f32,
        row_losses: thin(&out.row_losses),
        log_sum_exps: thin(&out.log_sum_exps),
        normalizer: out.normalizer as f32,
        target_cosines: thin(&out.target_cosines),
        other_cosines: thin(&out.other_cosines),
        grad_embeddings: thin(&out.grad_embeddings),
        grad_prototypes: thin(&out.grad_prototypes),
        grad_scale: out.grad_scale as f32,
        grad_bias: thin(&out.grad_bias),
        grad_margins: thin(&out.grad_margins),
        counts: out.counts,
        filtered: out.filtered.map(|f| Filtered {
            dropped: f.dropped as f32,
            total: f.total as f32,
            kept: f.kept,
            entries: f.entries,
        }),
        predictions: out.predictions.map(narrow_predictions),
    }
}

/// The reference's predictions in f32.
pub(super) fn narrow_predictions(all: Predictions<f64>) -> Predictions {
    Predictions {
        count: all.count,
        range: all.range,
        classes: all.classes,
        cosines: thin(&all.cosines),
        log_probabilities: thin(&all.log_probabilities),
        sub_centers: all.sub_centers,
        log_sum_exps: thin(&all.log_sum_exps),
        non_finite_rows: all.non_finite_rows,
        non_finite_prototypes: all.non_finite_prototypes,
    }
}

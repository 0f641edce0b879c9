//! Reports of a batch, as the module names them.

use margin_softmax::{data::Counts, monitor::BatchReport, *};
use serde_json::{Value, json};

/// As the module names them.
pub fn counts(counts: &Counts) -> Value {
    json!({
        "rows": counts.rows,
        "ignored": counts.ignored,
        "nonFiniteRows": counts.non_finite_rows,
        "invalidLabels": counts.invalid_labels,
        "zeroEmbeddings": counts.zero_embeddings,
        "zeroPrototypes": counts.zero_prototypes,
        "nonFinitePrototypes": counts.non_finite_prototypes,
    })
}

/// Of a call with these arrays and this output, and the state before it or, `trained`, after it.
pub fn report(
    loss: &MarginSoftmax,
    (trained, state): (bool, &State),
    batch: &Batch<'_, i32>,
    out: &Output<f64>,
) -> Result<Value> {
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let out = Output {
        row_losses: narrow(&out.row_losses),
        target_cosines: narrow(&out.target_cosines),
        other_cosines: narrow(&out.other_cosines),
        grad_embeddings: narrow(&out.grad_embeddings),
        grad_prototypes: narrow(&out.grad_prototypes),
        counts: out.counts,
        ..Output::default()
    };
    let of = if trained { BatchReport::trained } else { BatchReport::evaluated };
    let report = of(loss, state, batch, &out)?;
    Ok(json!({
        "rows": report.rows,
        "lengthMin": report.length_min,
        "lengthMean": report.length_mean,
        "lengthMax": report.length_max,
        "lengthsOutside": report.lengths_outside,
        "margins": report.margins,
        "scale": report.scale,
        "marginLoss": report.margin_loss,
        "lengthLoss": report.length_loss,
        "targetCosines": report.target_cosines,
        "embeddingGradient": report.embedding_gradient,
        "prototypeGradient": report.prototype_gradient,
    }))
}

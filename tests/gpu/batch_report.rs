//! Reports of a batch from what a device returned, beside those from what the reference returned.

use libtest_mimic::Failed;
use margin_softmax::{gpu::Context, monitor::BatchReport, objective::Elastic, *};

use crate::{Check, cases::Data};

pub const CHECKS: &[(&str, Check)] =
    &[("reports_of_a_batch_are_those_of_the_reference", reports_are_those_of_the_reference)];

/// Two training steps, so that the state has moved on the device, of every family whose margins follow the row, and of one whose
/// scale follows the batch.
fn reports_are_those_of_the_reference(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(70, 37, 5)?;
    let mut data = Data::random(shape, 3);
    data.embeddings.iter_mut().for_each(|v| *v *= 12.0);
    let sorted = Adaptive::Elastic(Elastic { sorted: true, ..Default::default() });
    let losses = [
        MarginSoftmax::magface(),
        MarginSoftmax::adaface(),
        MarginSoftmax::elasticface_arc(),
        MarginSoftmax::elasticface_arc().with_adaptive(sorted),
        MarginSoftmax::adacos(),
    ];
    for loss in losses {
        let loss = loss.with_ignore_index(4);
        let batch = Batch {
            embeddings: &data.embeddings,
            prototypes: &data.prototypes,
            labels: &data.labels,
            ..Default::default()
        };
        let last = |backend: &Backend| -> Result<BatchReport> {
            let mut head = backend.head(&loss, shape)?;
            head.train(&batch)?;
            let out = head.train(&batch)?;
            BatchReport::trained(&loss, head.state(), &batch, &out)
        };
        agree(&loss, &last(&Backend::Gpu(context.clone()))?, &last(&Backend::Reference)?);
    }
    Ok(())
}

/// Lengths come from the same numbers. What follows from the state is off by roundings of f32, and so by no more than a loss or a
/// gradient may be, 1e-5; a quantile of cosines by no more than a cosine, 2e-6.
fn agree(loss: &MarginSoftmax, found: &BatchReport, expected: &BatchReport) {
    let name = loss.adaptive.name();
    assert!(found.rows > 60 && found.rows < 70, "{name}: {} rows", found.rows);
    let same = |report: &BatchReport| {
        (
            report.rows,
            report.length_min,
            report.length_mean,
            report.length_max,
            report.lengths_outside,
            report.length_loss,
        )
    };
    assert_eq!(same(found), same(expected), "{name}");
    let close = |what: &str, found: f64, expected: f64, off: f64| {
        assert!((found - expected).abs() <= off, "{name}: {what} {found} is not {expected}");
    };
    let margins = |report: &BatchReport| report.margins.unwrap_or_default();
    margins(found).iter().zip(margins(expected)).for_each(|(&found, expected)| close("margin", found, expected, 1e-5));
    close("scale", found.scale, expected.scale, 1e-5 * expected.scale);
    close("loss", found.margin_loss, expected.margin_loss, 1e-5 * expected.margin_loss);
    let cosines = found.target_cosines.iter().zip(&expected.target_cosines);
    cosines.for_each(|(&found, &expected)| close("cosine", found, expected, 2e-6));
    for of in [|report: &BatchReport| report.embedding_gradient, |report: &BatchReport| report.prototype_gradient] {
        let (found, expected) = (of(found).unwrap_or(0.0), of(expected).unwrap_or(0.0));
        assert!(expected > 0.0);
        close("gradient", found, expected, 1e-5 * expected);
    }
}

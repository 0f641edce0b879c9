//! Predictions on a device against the reference: on their own, and from a step.

use libtest_mimic::Failed;
use margin_softmax::{Backend, Batch, Budget, Error, Options, Want, gpu::Context};

use crate::{
    Check,
    families::{Suite, with_centers},
    nearest::{self, Problem},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("predictions_agree_with_the_reference", |context| {
        nearest::every_problem_agrees(&Backend::Gpu(context.clone()));
        Ok(())
    }),
    ("ties_go_to_the_lower_class", |context| {
        nearest::ties_go_to_the_lower_class(&Backend::Gpu(context.clone()));
        Ok(())
    }),
    ("poisoned_vectors_have_no_prediction", |context| {
        nearest::poisoned_vectors_are_reported(&Backend::Gpu(context.clone()));
        Ok(())
    }),
    ("a_step_predicts_too", a_step_predicts_too),
    ("predictions_are_submitted_in_parts", in_parts),
];

/// A step of every family predicts what the reference does, in both schedules.
fn a_step_predicts_too(context: &Context) -> Result<(), Failed> {
    for (family, centers) in with_centers(Suite::Soak) {
        let kind = if family.loss.similarity == margin_softmax::Similarity::Dot { "linear" } else { "softmax" };
        let centers = if kind == "linear" { 1 } else { centers };
        let mut problem = Problem::new(kind, [21, 300, 12, centers]);
        problem.x[3 * 12] = f32::NAN;
        let mut labels: Vec<i64> = (0..21).map(|i| i * 13 % 300).collect();
        problem.name = family.name.into();
        problem.loss = family.loss.clone().with_ignore_index(-1);
        // a label that is the nearest class, and one that is ignored
        labels[5] = problem.reference(1).classes[5].into();
        labels[7] = -1;
        let batch = Batch {
            embeddings: &problem.x,
            prototypes: &problem.w,
            labels: &labels,
            bias: problem.bias.as_deref(),
            ..Batch::default()
        };
        for (count, train) in [(1, false), (5, true), (64, false)] {
            let options = Options { predictions: Some(count), want: Want::ALL, ..Options::default() };
            let step = |backend: Backend, options: &Options| {
                let mut head = backend.head_with(&problem.loss, problem.shape, options)?;
                let out = if train { head.train(&batch) } else { head.evaluate(&batch) }?;
                Ok::<_, Error>((out, head.state().scale))
            };
            let (expected, scale) = step(Backend::reference(), &options)?;
            let expected = nearest::widened(expected.predictions.ok_or("no predictions")?);
            let mut scaled = problem.clone();
            scaled.loss.scale = scaled.loss.scale.max(scale);
            let gpu = || Backend::Gpu(context.clone());
            let none = Options { budget: Budget::bytes(0), ..options };
            let Err(Error::Budget { needed, .. }) = step(gpu(), &none) else {
                return Err("no budget is enough".into());
            };
            let least = Options { budget: Budget::bytes(needed), ..options };
            for (how, options) in [("keep", options), ("recompute", least)] {
                let (found, _) = step(gpu(), &options)?;
                let found = found.predictions.ok_or("no predictions")?;
                scaled.agrees(&format!("{how}, train {train}"), &found, &expected);
            }
        }
    }
    Ok(())
}

/// In several submits the answer is that of the reference too.
fn in_parts(context: &Context) -> Result<(), Failed> {
    let problem = Problem::new("softmax", [9, 20_003, 16, 1]);
    let backend = Backend::Gpu(context.clone());
    let options = Options { work_per_submit: Some(1), ..Options::default() };
    let refused = backend.predictor(&problem.loss, problem.shape, 5, &options).err();
    let Some(Error::Work { needed, .. }) = refused else { return Err(format!("{refused:?}").into()) };
    let options = Options { work_per_submit: Some(2 * needed), ..Options::default() };
    problem.agrees("in parts", &problem.predict(&backend, 5, &options), &problem.reference(5));
    Ok(())
}

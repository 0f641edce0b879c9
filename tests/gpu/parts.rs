//! Calls whose work is divided among several submits.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::Context,
    plan::{Element, Plan},
    *,
};

use crate::{
    Check,
    cases::Data,
    reports::Problem,
    rig::{Rig, plain, same_output, tight},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("a_call_in_parts_has_the_bits_of_one_submit", a_call_in_parts_has_the_bits_of_one_submit),
    ("slices_submit_part_by_part", slices_submit_part_by_part),
    ("shards_submit_part_by_part", shards_submit_part_by_part),
    ("calls_report_and_stop_between_submits", calls_report_and_stop_between_submits),
    ("what_is_recorded_in_part_has_no_results", what_is_recorded_in_part_has_no_results),
];

const SIZES: (usize, usize, usize) = (17, 700, 12);

fn shape() -> Shape {
    Shape::new(SIZES.0, SIZES.1, SIZES.2).unwrap()
}

/// The least work that a submit can be bounded to, and an eighth more.
fn least(context: &Context, loss: &MarginSoftmax, shape: Shape, options: &Options) -> u64 {
    let options = Options { work_per_submit: Some(0), ..*options };
    let shards = Plan::shards(shape, Element::F32, context.limits()).unwrap();
    match Plan::head(loss, shape, &plain(&shards), context.limits(), &options) {
        Err(Error::Work { needed, .. }) => needed + needed / 8,
        other => panic!("no work at all was accepted: {:?}", other.map(|plan| plan.steps().count())),
    }
}

/// Losses with a state, a choice of classes, a pass of their own, draws and a bias.
fn losses() -> Vec<MarginSoftmax> {
    let names = ["arcface", "curricularface", "arcface_topk", "adacos", "elasticface_arc", "softmax"];
    names.map(|name| MarginSoftmax::named(name).unwrap()).to_vec()
}

/// What the queue counts: a submit of nothing has a number too.
fn submits(context: &Context) -> u64 {
    let shown = format!("{:?}", context.queue().submit([]));
    shown.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// The submits of a call; wgpu counts some more for uploads and mappings, the same number for the same ones.
fn counted<T>(context: &Context, call: impl FnOnce() -> Result<T>) -> Result<(T, usize)> {
    let before = submits(context);
    let out = call()?;
    Ok((out, (submits(context) - before - 1) as usize))
}

fn a_call_in_parts_has_the_bits_of_one_submit(context: &Context) -> Result<(), Failed> {
    let data = Data::random(shape(), 3);
    let layout = plain(&[320, 380]);
    for loss in losses() {
        let keep = Options { want: Want::ALL.with_scale(), ..Options::default() };
        let recompute = Options { budget: tight(context, &loss, shape(), &layout, &keep), ..keep };
        for options in [keep, recompute] {
            let work = least(context, &loss, shape(), &options);
            for (work_per_submit, training) in [(work, true), (4 * work, false)] {
                let options = Options { work_per_submit: Some(work_per_submit), ..options };
                let mut rig = Rig::new(context, &loss, shape(), &layout, &options, &data)?;
                let start = rig.bound.read_state()?;
                rig.bound.set_training(training);
                let expected = (rig.run(context)?, rig.bound.read_state()?, rig.bound.read_counts()?);
                rig.bound.set_state(&start)?;
                let mut numbers = [0; 2];
                for (backward, number) in [false, true].into_iter().zip(&mut numbers) {
                    let mut parts = if backward { rig.bound.backward_parts()? } else { rig.bound.forward_parts() };
                    *number = parts.remaining();
                    while parts.remaining() > 0 {
                        let mut encoder = context.device().create_command_encoder(&Default::default());
                        assert!(parts.record_next(&mut encoder));
                        context.queue().submit([encoder.finish()]);
                    }
                    let mut encoder = context.device().create_command_encoder(&Default::default());
                    assert!(!parts.record_next(&mut encoder));
                }
                same_output(&rig.tensors.read(context)?, &expected.0)?;
                assert_eq!((rig.bound.read_state()?, rig.bound.read_counts()?), (expected.1, expected.2));
                let least = if training { 2 } else { 1 };
                assert!(numbers[0] > 1 && numbers[1] >= least, "{}: {numbers:?}", loss.target.name());
            }
        }
    }
    Ok(())
}

/// A head over slices submits as many parts as its plan has, and as one where nothing was said.
fn slices_submit_part_by_part(context: &Context) -> Result<(), Failed> {
    let data = Data::random(shape(), 4);
    let batch = Batch {
        embeddings: &data.embeddings,
        prototypes: &data.prototypes,
        labels: &data.labels,
        ..Default::default()
    };
    let backend = Backend::Gpu(context.clone());
    for loss in losses() {
        let work = least(context, &loss, shape(), &Options::default());
        let mut found = vec![];
        for work_per_submit in [None, Some(u64::MAX), Some(4 * work), Some(work)] {
            let options = Options { work_per_submit, ..Options::default() };
            let plan = Plan::head(&loss, shape(), &plain(&[SIZES.1]), context.limits(), &options)?;
            let mut head = backend.head_with(&loss, shape(), &options)?;
            let (out, submits) = counted(context, || head.train(&batch))?;
            found.push([submits, plan.parts(0..plan.steps().count()).len()]);
            let mut whole = Rig::new(context, &loss, shape(), &plain(&[SIZES.1]), &options, &data)?;
            whole.bound.set_training(true);
            let expected = whole.run(context)?;
            same_output(&out, &expected)?;
        }
        let beside = found[0][0] - 1;
        assert!(found.iter().all(|[submits, parts]| submits - beside == *parts), "{found:?}");
        assert!(found[1][1] == 1 && 1 < found[2][1] && found[2][1] < found[3][1], "{found:?}");
    }
    Ok(())
}

/// A call whose progress is asked for is divided, by the bound or without one; it has the bits of one that is not.
fn calls_report_and_stop_between_submits(context: &Context) -> Result<(), Failed> {
    let (backend, problem) = (Backend::Gpu(context.clone()), Problem::new([SIZES.0, SIZES.1, SIZES.2]));
    for name in ["arcface", "curricularface", "adacos"] {
        problem.steps_report(&backend, name, &Options::default(), 4);
    }
    let work = least(context, &MarginSoftmax::arcface(), shape(), &Options::default());
    let bounded = Options { work_per_submit: Some(work), ..Options::default() };
    let plan = Plan::head(&MarginSoftmax::arcface(), shape(), &plain(&[SIZES.1]), context.limits(), &bounded)?;
    problem.steps_report(&backend, "arcface", &bounded, plan.parts(0..plan.steps().count()).len());
    problem.predictions_report(&backend, &bounded, 4);
    problem.sampled_steps_report(&backend, &Options::default());
    Ok(())
}

/// Every stage of a shard is divided, with the bits of whole stages.
fn shards_submit_part_by_part(context: &Context) -> Result<(), Failed> {
    let data = Data::random(shape(), 5);
    let loss = MarginSoftmax::arcface();
    let work = least(context, &loss, shape(), &Options::default());
    let backend = Backend::Gpu(context.clone());
    let batch = |range: std::ops::Range<usize>| Batch {
        embeddings: &data.embeddings,
        prototypes: &data.prototypes[range.start * SIZES.2..range.end * SIZES.2],
        labels: &data.labels,
        ..Default::default()
    };
    // a shard is one chunk of 64 classes, with a bound and without
    let run = |work_per_submit| -> Result<(Vec<Output>, usize)> {
        let options = Options { work_per_submit, ..Options::default() };
        let ranges = [0..64, 64..128];
        let shape = Shape::new(SIZES.0, 128, SIZES.2)?;
        let mut heads = vec![];
        for range in &ranges {
            heads.push(backend.shard(&loss, shape, range.clone(), &options)?);
        }
        let labels: Vec<i32> = data.labels.iter().map(|label| label % 128).collect();
        counted(context, || {
            let mut targets = vec![];
            for (head, range) in heads.iter_mut().zip(&ranges) {
                targets.push(head.targets(&Batch { labels: &labels, ..batch(range.clone()) })?);
            }
            let targets = shard::Targets::merged(&targets, 128)?;
            let mut statistics = vec![];
            for (head, range) in heads.iter_mut().zip(&ranges) {
                statistics.push(head.statistics(&Batch { labels: &labels, ..batch(range.clone()) }, &targets)?);
            }
            let statistics = shard::Statistics::merged(&statistics, 128)?;
            let gradients = |(head, range): (&mut SliceHead, &std::ops::Range<usize>)| {
                head.gradients(&Batch { labels: &labels, ..batch(range.clone()) }, &targets, &statistics)
            };
            heads.iter_mut().zip(&ranges).map(gradients).collect()
        })
    };
    let (whole, few) = run(None)?;
    let (parts, many) = run(Some(work))?;
    assert!(many > few, "{many} submits, {few} in whole stages");
    for (a, b) in whole.iter().zip(&parts) {
        same_output(a, b)?;
    }
    Ok(())
}

fn what_is_recorded_in_part_has_no_results(context: &Context) -> Result<(), Failed> {
    let data = Data::random(shape(), 6);
    let loss = MarginSoftmax::arcface();
    let work_per_submit = Some(least(context, &loss, shape(), &Options::default()));
    let options = Options { work_per_submit, ..Options::default() };
    let mut rig = Rig::new(context, &loss, shape(), &plain(&[SIZES.1]), &options, &data)?;
    let expected = rig.run(context)?;
    let counts = rig.bound.read_counts()?;
    let encoder = || context.device().create_command_encoder(&Default::default());
    // not begun at all: the results before still stand
    drop(rig.bound.forward_parts());
    assert_eq!(rig.bound.read_counts()?, counts);
    for backward in [false, true] {
        let mut encoder = encoder();
        let mut parts = if backward { rig.bound.backward_parts()? } else { rig.bound.forward_parts() };
        assert!(parts.remaining() > 1 && parts.record_next(&mut encoder));
        // even one that is never dropped
        std::mem::forget(parts);
        context.queue().submit([encoder.finish()]);
        assert_eq!(rig.bound.read_counts().err(), Some(Error::Unfinished));
        assert_eq!(rig.bound.read_state().err(), Some(Error::Unfinished));
        assert_eq!(
            rig.bound.backward_parts().err().map(|error| error.to_string()),
            Some(Error::Unfinished.to_string())
        );
        same_output(&rig.run(context)?, &expected)?;
        assert_eq!(rig.bound.read_counts()?, counts);
    }
    Ok(())
}

//! Steps over sampled classes and margins on a schedule: the bits of heads made for the purpose.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::Context,
    objective::{Ramp, Schedule, Schedules},
    partial::{Classes, PartialFc, SampledHead},
    *,
};

use crate::Check;

pub const CHECKS: &[(&str, Check)] = &[
    ("a_rate_of_one_is_the_whole_head", a_rate_of_one_is_the_whole_head),
    ("a_sampled_step_is_that_of_a_head_over_the_sample", a_sampled_step_is_that_of_a_head_over_the_sample),
    ("a_scheduled_head_is_a_fresh_one", a_scheduled_head_is_a_fresh_one),
];

const SIZES: (usize, usize, usize) = (9, 150, 20);

fn shape(classes: usize) -> Shape {
    Shape::new(SIZES.0, classes, SIZES.2).unwrap()
}

/// Values without a pattern, and labels.
fn data() -> (Vec<f32>, Vec<f32>, Vec<i64>) {
    let values = |count: usize, phase: f32| (0..count).map(|i| ((i * i) as f32 * 0.37 + phase).sin()).collect();
    let labels = (0..SIZES.0 as i64).map(|i| i * 31 % SIZES.1 as i64).collect();
    (values(SIZES.0 * SIZES.2, 0.0), values(SIZES.1 * SIZES.2, 1.0), labels)
}

fn a_rate_of_one_is_the_whole_head(context: &Context) -> Result<(), Failed> {
    let (embeddings, prototypes, labels) = data();
    let batch = Batch { embeddings: &embeddings, prototypes: &prototypes, labels: &labels, ..Default::default() };
    let (backend, loss) = (Backend::Gpu(context.clone()), MarginSoftmax::arcface().with_ignore_index(31));
    let mut whole = backend.head(&loss, shape(SIZES.1))?;
    let options = Options::default();
    let mut sampled = SampledHead::new(&backend, &loss, shape(SIZES.1), &options, PartialFc::new(1.0, 3)?)?;
    for _ in 0..2 {
        assert_eq!(sampled.train(&batch)?.output, whole.train(&batch)?);
    }
    Ok(())
}

fn a_sampled_step_is_that_of_a_head_over_the_sample(context: &Context) -> Result<(), Failed> {
    let (embeddings, prototypes, labels) = data();
    let batch = Batch { embeddings: &embeddings, prototypes: &prototypes, labels: &labels, ..Default::default() };
    let (backend, loss) = (Backend::Gpu(context.clone()), MarginSoftmax::cosface().with_label_smoothing(0.1));
    let options = Options::default();
    // more and fewer classes than labels
    for rate in [0.3, 0.02] {
        let draw = PartialFc::new(rate, 3)?;
        let mut sampled = SampledHead::new(&backend, &loss, shape(SIZES.1), &options, draw)?;
        let sample = draw.sample(&labels, None, SIZES.1)?;
        let row = |&class: &usize| &prototypes[class * SIZES.2..(class + 1) * SIZES.2];
        let gathered: Vec<f32> = sample.classes.iter().flat_map(row).copied().collect();
        let part = Batch { prototypes: &gathered, labels: &sample.labels, ..batch };
        let expected = backend.head(&loss, shape(sample.classes.len()))?.evaluate(&part)?;
        let all = backend.head(&loss, shape(SIZES.1))?.evaluate(&batch)?;
        assert_eq!(sampled.evaluate(&batch, Classes::All)?.output, all);
        assert_eq!(finished(sampled.train_async(&batch))?.output, expected);
        assert_eq!(sampled.sampler().step, 1);
        let next = sampled.train(&batch)?.classes;
        if rate > 0.1 {
            assert_ne!(next, sample.classes);
        } else {
            let mut positives: Vec<usize> = labels.iter().map(|&y| y as usize).collect();
            positives.sort();
            positives.dedup();
            assert_eq!(next, positives);
        }
    }
    Ok(())
}

/// Drives a future to its end.
fn finished<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

/// Whether there is a margin at all is a setting: from a line to a curve nothing is compiled.
fn a_scheduled_head_is_a_fresh_one(context: &Context) -> Result<(), Failed> {
    let (embeddings, prototypes, labels) = data();
    let batch = Batch { embeddings: &embeddings, prototypes: &prototypes, labels: &labels, ..Default::default() };
    let backend = Backend::Gpu(context.clone());
    let margin = Schedule { start: 0.0, end: 0.4, from: 1, until: 3, ramp: Ramp::Exponential };
    let schedules = Schedules { m2: Some(margin), ..Default::default() };
    for mut loss in [MarginSoftmax::normface(), MarginSoftmax::cheby_aam()] {
        let mut head = backend.head(&loss, shape(SIZES.1))?;
        for _ in 0..4 {
            schedules.apply(head.state().step, &mut loss)?;
            head.update(&loss)?;
            let fresh = backend.head(&loss, shape(SIZES.1))?.evaluate(&batch)?;
            assert_eq!(head.train(&batch)?, fresh);
        }
    }
    Ok(())
}

//! Calls that report how far they are, on any backend.

use std::{
    ops::ControlFlow,
    pin::pin,
    sync::{Arc, Mutex},
    task,
    thread::{self, ThreadId},
};

use margin_softmax::{
    Backend, Batch, Error, MarginSoftmax, Options, Output, Shape,
    data::{Inputs, OnProgress, Predictions, Progress},
    partial::{PartialFc, SampledHead},
};

/// The reports of the calls of a head, with the threads that they came on.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<(Progress, ThreadId)>>>);

impl Reports {
    /// A callback that keeps them; it stops a call at the report of this number, counted from 1.
    fn callback(&self, stop: usize) -> Option<OnProgress> {
        let kept = self.0.clone();
        Some(Box::new(move |progress| {
            let mut kept = kept.lock().unwrap();
            kept.push((progress, thread::current().id()));
            if kept.len() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }))
    }

    /// Those of one call to its end, which must rise to the whole.
    fn take(&self, least: usize) -> usize {
        let all = std::mem::take(&mut *self.0.lock().unwrap());
        assert!(all.len() >= least, "{all:?}");
        let total = all[0].0.total;
        assert!(all.is_sorted_by_key(|(progress, _)| progress.done), "{all:?}");
        let ends = all.iter().filter(|(progress, _)| progress.done == total).count();
        assert!(ends == 1 && all.iter().all(|(progress, _)| progress.total == total), "{all:?}");
        assert!(all.iter().all(|(_, on)| *on == thread::current().id()), "{all:?}");
        assert_eq!(all[all.len() - 1].0.fraction(), 1.0);
        all.len()
    }
}

fn block_on<T>(call: impl Future<Output = T>) -> T {
    let (mut call, mut context) = (pin!(call), task::Context::from_waker(task::Waker::noop()));
    loop {
        if let task::Poll::Ready(answer) = call.as_mut().poll(&mut context) {
            return answer;
        }
    }
}

/// Vectors that look random, with labels.
pub struct Problem {
    pub shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    labels: Vec<i64>,
}

impl Problem {
    pub fn new([rows, classes, dim]: [usize; 3]) -> Self {
        let numbers = |count: usize| (0..count).map(|i| ((i * 7919 + i / 13) % 2003) as f32 / 1000.0 - 1.0).collect();
        let labels = (0..rows).map(|i| (i * 31 % classes) as i64).collect();
        let (x, w) = (numbers(rows * dim), numbers(classes * dim));
        Self { shape: Shape::new(rows, classes, dim).unwrap(), x, w, labels }
    }

    fn batch(&self) -> Batch<'_> {
        Batch { embeddings: &self.x, prototypes: &self.w, labels: &self.labels, ..Batch::default() }
    }

    /// The bits of a training step are those without a callback, and each report can stop it; then nothing has happened.
    pub fn steps_report(&self, backend: &Backend, name: &str, options: &Options, least: usize) {
        let loss = MarginSoftmax::named(name).unwrap();
        let (reports, batch) = (Reports::default(), self.batch());
        let head = || backend.head_with(&loss, self.shape, options).unwrap();
        let mut plain = head();
        let expected = (plain.train(&batch).unwrap(), *plain.state());

        let mut watched = head();
        let start = *watched.state();
        watched.set_progress(reports.callback(0));
        assert_eq!((watched.train(&batch).unwrap(), *watched.state()), expected, "{name}");
        let count = reports.take(least);
        watched.set_state(&start).unwrap();
        assert_eq!((block_on(watched.train_async(&batch)).unwrap(), *watched.state()), expected, "{name}, async");
        assert_eq!(reports.take(least), count, "{name}");

        let used = Output { loss: 7.0, row_losses: vec![1.0; 9], grad_prototypes: vec![3.0; 5], ..Output::default() };
        for stop in [1, count / 2 + 1, count] {
            watched.set_state(&start).unwrap();
            watched.set_progress(reports.callback(stop));
            let mut out = used.clone();
            assert_eq!(watched.train_into(&batch, &mut out), Err(Error::Cancelled), "{name}, {stop}");
            assert_eq!((out, *watched.state()), (Output::default(), start), "{name}, {stop}");
            assert_eq!(std::mem::take(&mut *reports.0.lock().unwrap()).len(), stop, "{name}");
            watched.set_progress(reports.callback(stop));
            assert_eq!(block_on(watched.train_async(&batch)), Err(Error::Cancelled), "{name}, {stop}, async");
            assert_eq!(*watched.state(), start, "{name}, {stop}, async");
            assert_eq!(std::mem::take(&mut *reports.0.lock().unwrap()).len(), stop, "{name}");
        }
        watched.set_progress(None);
        assert_eq!(
            (watched.train(&batch).unwrap(), *watched.state()),
            expected,
            "{name}, after calls that were stopped"
        );
    }

    /// The same for predictions, which a call that is stopped leaves as they were.
    pub fn predictions_report(&self, backend: &Backend, options: &Options, least: usize) {
        let (reports, inputs) = (Reports::default(), Inputs::new(&self.x, &self.w));
        let mut predictor = backend.predictor(&MarginSoftmax::arcface(), self.shape, 3, options).unwrap();
        let expected = predictor.predict(&inputs).unwrap();
        predictor.set_progress(reports.callback(0));
        assert_eq!(predictor.predict(&inputs).unwrap(), expected);
        let count = reports.take(least);
        assert_eq!(block_on(predictor.predict_async(&inputs)).unwrap(), expected);
        assert_eq!(reports.take(least), count);
        for stop in [1, count] {
            predictor.set_progress(reports.callback(stop));
            let used = Predictions { count: 9, cosines: vec![0.5], ..Predictions::default() };
            let mut out = used.clone();
            assert_eq!(predictor.predict_into(&inputs, &mut out), Err(Error::Cancelled));
            assert_eq!(out, used);
            reports.0.lock().unwrap().clear();
        }
    }

    /// A step over sampled classes that is stopped draws and counts nothing.
    pub fn sampled_steps_report(&self, backend: &Backend, options: &Options) {
        let (loss, reports, batch) = (MarginSoftmax::arcface(), Reports::default(), self.batch());
        let head = || SampledHead::new(backend, &loss, self.shape, options, PartialFc::new(0.5, 3).unwrap()).unwrap();
        let (mut plain, mut watched) = (head(), head());
        let start = (*watched.state(), *watched.sampler());
        watched.set_progress(reports.callback(1));
        assert_eq!(watched.train(&batch), Err(Error::Cancelled));
        assert_eq!((*watched.state(), *watched.sampler()), start);
        assert_eq!(watched.train(&batch).unwrap(), plain.train(&batch).unwrap());
        assert!(reports.0.lock().unwrap().len() > 1);
    }
}

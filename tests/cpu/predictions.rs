//! Predictions of the CPU path against the reference: on their own, and from a step.

use margin_softmax::{
    Backend, Budget, Error, MarginSoftmax, Options, Others, Output, Want,
    data::{Inputs, Predictions},
};
use rayon::ThreadPoolBuilder;

use crate::{
    common::{Data, family_data},
    families::{Suite, with_centers},
    nearest::{self, Problem},
};

#[test]
fn predictions_agree_with_the_reference() {
    nearest::every_problem_agrees(&Backend::cpu());
}

#[test]
fn calls_are_repeatable() {
    nearest::calls_are_repeatable(&Backend::cpu());
}

#[test]
fn ties_go_to_the_lower_class() {
    for backend in [Backend::cpu(), Backend::reference()] {
        nearest::ties_go_to_the_lower_class(&backend);
    }
}

#[test]
fn poisoned_vectors_are_reported() {
    nearest::poisoned_vectors_are_reported(&Backend::cpu());
}

/// The same bits on any number of threads, within any budget and from a step: the cosines are those of the vectors as they came.
#[test]
fn cosines_have_the_same_bits_however_they_are_found() {
    let problem = Problem::new("softmax", [150, 5000, 40, 2]);
    let alone = problem.predict(&Backend::cpu(), 10, &Options::default());
    let least = nearest::least(&Backend::cpu(), &problem, 10);
    for threads in [1, 2, 3, 8] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for budget in [Budget::default(), Budget::bytes(least)] {
            let options = Options { budget, ..Options::default() };
            let found = pool.install(|| problem.predict(&Backend::cpu(), 10, &options));
            assert_eq!((&found.classes, &found.sub_centers), (&alone.classes, &alone.sub_centers));
            let bits = |all: &Predictions| all.cosines.iter().map(|c| c.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(&alone));
        }
    }
}

fn step(backend: &Backend, loss: &MarginSoftmax, data: &Data, options: &Options, train: bool) -> (Output, Option<f64>) {
    let mut head = backend.head_with(loss, data.shape(), options).unwrap();
    let out = if train { head.train(&data.batch()) } else { head.evaluate(&data.batch()) };
    (out.unwrap(), Some(head.state().scale).filter(|&scale| scale != loss.scale))
}

/// The least budget, in which cosines are computed twice.
fn least(loss: &MarginSoftmax, data: &Data, options: &Options) -> Options {
    let none = Options { budget: Budget::bytes(0), ..*options };
    let Err(Error::Budget { needed, .. }) = Backend::cpu().head_with(loss, data.shape(), &none) else {
        panic!("a head needs memory")
    };
    Options { budget: Budget::bytes(needed), ..*options }
}

/// A step of every family predicts what the reference does, in both schedules; its loss and gradients keep their bits.
#[test]
fn a_step_predicts_too() {
    let mut families = with_centers(Suite::Cpu).into_iter().map(|(f, k)| (f.name, f.loss, k)).collect::<Vec<_>>();
    families.push(("arcface", MarginSoftmax::arcface().with_scale(20.0).with_ignore_index(3), 1));
    families.push(("smoothed", MarginSoftmax::arcface().with_label_smoothing(0.1), 1));
    families.push(("rectified", MarginSoftmax::arcface().with_others(Others::Rectified), 1));
    for (name, loss, centers) in families {
        let mut data = family_data(&loss, centers, 7);
        if loss.ignore_index.is_some() {
            (data.labels[0], data.labels[9]) = (3, 3);
            data.x[2 * data.shape[2]] = f32::NAN;
        }
        // a label among the nearest classes, and one that is the nearest
        data.labels[1] =
            step(&Backend::cpu(), &loss, &data, &Options { predictions: Some(2), ..Options::default() }, false)
                .0
                .predictions
                .unwrap()
                .classes[3]
                .min(data.shape[1] as u32 - 1)
                .into();
        for (count, train) in [(1, false), (5, true), (64, false)] {
            let options = Options { predictions: Some(count), want: Want::ALL, ..Options::default() };
            let (expected, scale) = step(&Backend::reference(), &loss, &data, &options, train);
            let expected = nearest::widened(expected.predictions.unwrap());
            let problem = Problem {
                name: name.into(),
                loss: loss.clone().with_scale(scale.unwrap_or(loss.scale)),
                shape: data.shape(),
                x: data.x.clone(),
                w: data.w.clone(),
                bias: data.bias.clone(),
            };
            for (how, options) in [("keep", options), ("recompute", least(&loss, &data, &options))] {
                let (mut out, _) = step(&Backend::cpu(), &loss, &data, &options, train);
                problem.agrees(&format!("{how}, train {train}"), &out.predictions.take().unwrap(), &expected);
                // the layout follows from the budget, which the choice is part of
                if how == "keep" {
                    let plain = Options { predictions: None, ..options };
                    let (without, _) = step(&Backend::cpu(), &loss, &data, &plain, train);
                    let bits = |out: &Output| format!("{:?}", (out.loss, &out.row_losses, &out.grad_embeddings));
                    assert_eq!(bits(&out), bits(&without), "{name}");
                }
            }
        }
    }
}

/// Bad input is refused by name, before any work.
#[test]
fn what_cannot_be_predicted_is_refused() {
    let problem = Problem::new("softmax", [3, 50, 4, 1]);
    for backend in [Backend::cpu(), Backend::reference()] {
        for count in [0, 51, 65, usize::MAX] {
            let refused = backend.predictor(&problem.loss, problem.shape, count, &Options::default()).err();
            assert!(matches!(refused, Some(Error::Parameter { what: "predictions", .. })), "{count}: {refused:?}");
            let options = Options { predictions: Some(count), ..Options::default() };
            let refused = backend.head_with(&problem.loss, problem.shape, &options).err();
            assert!(matches!(refused, Some(Error::Parameter { what: "predictions", .. })), "{count}: {refused:?}");
        }
        let options = Options { predictions: Some(3), ..Options::default() };
        let refused = backend.shard(&problem.loss, problem.shape, 0..20, &options).err();
        assert!(matches!(refused, Some(Error::Combination { what: "predictions", .. })), "{refused:?}");
        let refused = backend.predictor_shard(&problem.loss, problem.shape, 20..51, 3, &options).err();
        assert!(matches!(refused, Some(Error::Shards { .. })), "{refused:?}");
        let mut predictor = backend.predictor(&problem.loss, problem.shape, 3, &Options::default()).unwrap();
        let mut out = predictor.predict(&problem.inputs()).unwrap();
        let before = out.clone();
        let (x, w) = (&problem.x[..], &problem.w[..]);
        let long = [x, &[0.0; 4]].concat();
        for (inputs, message) in [
            (Inputs::new(&x[..5], w), "embeddings"),
            (Inputs::new(&long, w), "4 rows"),
            (Inputs::new(x, &w[4..]), "prototypes"),
            (Inputs { bias: Some(&[0.0; 50]), ..Inputs::new(x, w) }, "bias"),
        ] {
            let error = predictor.predict_into(&inputs, &mut out).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        assert_eq!(out, before);
        assert_eq!(predictor.predict(&Inputs::new(&[], w)).unwrap().rows(), 0);
        assert_eq!(predictor.predict(&Inputs::new(&x[4..], w)).unwrap().classes, before.classes[3..]);
        assert_eq!(before.hits(&[before.classes[0], 50, before.classes[8]]), 2);
        let merged = |parts: &[Predictions]| Predictions::merged(parts, 50).unwrap_err();
        assert!(matches!(merged(&[before.clone(), before.clone()]), Error::Shards { .. }));
        let half = |count: usize, range: std::ops::Range<usize>| Predictions { count, range, ..before.clone() };
        assert!(matches!(merged(&[half(3, 0..20), half(2, 20..50)]), Error::Length { .. }));
    }
}

/// A step that keeps exponentials predicts what a predictor does: also where they vanish, and where cosines are equal across
/// tiles.
#[test]
fn a_step_of_many_classes_predicts_too() {
    for (scale, equal) in [(1.0, false), (64.0, false), (64.0, true), (1e5, false)] {
        let mut data = Data::random(40, 6000, 16, 11);
        if equal {
            // every prototype fifteen times, far apart
            (400..6000).for_each(|j| data.w.copy_within(j % 400 * 16..(j % 400 + 1) * 16, j * 16));
        }
        let loss = MarginSoftmax::arcface().with_scale(scale);
        for count in [1, 10, 64] {
            let mut predictor = Backend::cpu().predictor(&loss, data.shape(), count, &Options::default()).unwrap();
            let expected = predictor.predict(&Inputs::new(&data.x, &data.w)).unwrap();
            let options = Options { predictions: Some(count), ..Options::default() };
            let (out, _) = step(&Backend::cpu(), &loss, &data, &options, false);
            let found = out.predictions.unwrap();
            assert_eq!(found.classes, expected.classes, "scale {scale}, equal {equal}, k {count}");
            let off = |(a, b): (&f32, &f32)| (a - b).abs();
            let most = found.cosines.iter().zip(&expected.cosines).map(off).fold(0.0, f32::max);
            assert!(most < 1e-6, "scale {scale}, equal {equal}, k {count}: {most}");
        }
    }
}

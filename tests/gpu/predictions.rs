//! Predictions on a device against the reference: on their own, and from a step.

use libtest_mimic::Failed;
use margin_softmax::{
    Backend, Batch, Budget, Error, Options, Similarity, Want,
    data::{Inputs, Predictions},
    gpu::{Context, Head, Io, PredictIo, PredictionTensors, Tensor},
    plan::{Element, Plan},
};

use crate::{
    Check,
    families::{Suite, with_centers},
    nearest::{self, Problem},
    rig::plain,
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
    ("calls_are_repeatable", |context| {
        nearest::calls_are_repeatable(&Backend::Gpu(context.clone()));
        Ok(())
    }),
    ("a_step_predicts_too", a_step_predicts_too),
    ("predictions_are_submitted_in_parts", in_parts),
    ("predictions_to_tensors_have_the_bits_of_slices", tensors_have_the_bits_of_slices),
    ("a_step_over_tensors_predicts", a_step_over_tensors_predicts),
    ("a_predictor_keeps_its_buffers", a_predictor_keeps_its_buffers),
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

/// Tensors that predictions are written to, with a value that no prediction has in each.
struct Written {
    classes: Tensor,
    cosines: Tensor,
    log_probabilities: Tensor,
    sub_centers: Tensor,
}

impl Written {
    fn new(context: &Context, rows: usize, count: usize) -> Result<Self, Error> {
        let shape = [rows, count];
        Ok(Self {
            classes: Tensor::upload(context, &shape, &vec![-7; rows * count])?,
            cosines: Tensor::upload(context, &shape, &vec![7.0; rows * count])?,
            log_probabilities: Tensor::upload(context, &shape, &vec![7.0; rows * count])?,
            sub_centers: Tensor::upload(context, &shape, &vec![-7; rows * count])?,
        })
    }

    fn tensors(&self) -> PredictionTensors<'_> {
        let Self { classes, cosines, log_probabilities, sub_centers } = self;
        PredictionTensors { classes, cosines, log_probabilities, sub_centers: Some(sub_centers) }
    }

    /// Has the bits of what came out over slices.
    fn equals(&self, context: &Context, what: &str, expected: &Predictions) -> Result<(), Failed> {
        let bits =
            |values: &[f32]| values.iter().map(|v| if v.is_nan() { !0 } else { v.to_bits() }).collect::<Vec<_>>();
        let classes: Vec<u32> = self.classes.read::<i32>(context)?.iter().map(|&class| class as u32).collect();
        assert_eq!(classes, expected.classes, "{what}");
        let sub_centers: Vec<u32> = self.sub_centers.read::<i32>(context)?.iter().map(|&k| k as u32).collect();
        assert_eq!(sub_centers, expected.sub_centers, "{what}");
        assert_eq!(bits(&self.cosines.read::<f32>(context)?), bits(&expected.cosines), "{what}");
        assert_eq!(bits(&self.log_probabilities.read::<f32>(context)?), bits(&expected.log_probabilities), "{what}");
        Ok(())
    }
}

/// The vectors of a problem as tensors; the labels of its rows.
fn lent(context: &Context, problem: &Problem) -> Result<[Tensor; 2], Error> {
    let (n, c, d, k) =
        (problem.shape.rows(), problem.shape.classes(), problem.shape.dim(), problem.shape.sub_centers());
    let of_class = if k > 1 { vec![c, k, d] } else { vec![c, d] };
    Ok([Tensor::upload(context, &[n, d], &problem.x)?, Tensor::upload(context, &of_class, &problem.w)?])
}

/// Without labels, tensors have the bits of slices, whatever kind of head, in one submit and in parts.
fn tensors_have_the_bits_of_slices(context: &Context) -> Result<(), Failed> {
    let backend = Backend::Gpu(context.clone());
    for (kind, sizes, count) in [
        ("softmax", [9, 20_003, 16, 1], 5),
        ("binary", [70, 65, 7, 1], 64),
        ("linear", [3, 300, 12, 1], 1),
        ("softmax", [5, 40, 8, 3], 10),
    ] {
        let mut problem = Problem::new(kind, sizes);
        problem.x[sizes[2]] = f32::NAN;
        let (shape, what) = (problem.shape, format!("{kind} {sizes:?}"));
        let expected = problem.predict(&backend, count, &Options::default());
        assert_eq!(expected.classes[count], u32::MAX, "{what}: a row without a prediction");
        let [x, w] = lent(context, &problem)?;
        let bias = problem.bias.as_ref().map(|bias| Tensor::upload(context, &[bias.len()], bias)).transpose()?;
        let plan = |options: &Options| {
            let shards = [shape.classes()];
            Plan::predict(&problem.loss, shape, 0..shards[0], count, &plain(&shards), context.limits(), options)
        };
        let Err(Error::Work { needed, .. }) = plan(&Options { work_per_submit: Some(1), ..Options::default() }) else {
            return Err("every step is small".into());
        };
        for work_per_submit in [None, Some(needed)] {
            let options = Options { work_per_submit, ..Options::default() };
            let written = Written::new(context, shape.rows(), count)?;
            let io =
                PredictIo { embeddings: &x, prototypes: &[&w], bias: bias.as_ref(), predictions: written.tensors() };
            let mut bound = Head::new(context, &problem.loss, plan(&options)?)?.bind_predictions(&io)?;
            let mut parts = bound.forward_parts();
            assert_eq!(parts.remaining() > 1, work_per_submit.is_some(), "{what}");
            while parts.remaining() > 0 {
                let mut encoder = context.device().create_command_encoder(&Default::default());
                parts.record_next(&mut encoder);
                context.queue().submit([encoder.finish()]);
            }
            written.equals(context, &what, &expected)?;
            let slices = problem.predict(&backend, count, &options);
            assert_eq!(format!("{slices:?}"), format!("{expected:?}"), "{what}: in parts");
        }
    }
    Ok(())
}

/// A step over tensors predicts with the bits of one over slices, beside its loss; and what is wrong is refused.
fn a_step_over_tensors_predicts(context: &Context) -> Result<(), Failed> {
    let (backend, count) = (Backend::Gpu(context.clone()), 5);
    for (family, centers) in with_centers(Suite::Soak) {
        let kind = if family.loss.similarity == Similarity::Dot { "linear" } else { "softmax" };
        let mut problem = Problem::new(kind, [21, 300, 12, if kind == "linear" { 1 } else { centers }]);
        problem.x[3 * 12] = f32::NAN;
        let (shape, loss) = (problem.shape, family.loss.clone().with_ignore_index(-1));
        let labels: Vec<i32> = (0..21).map(|i| if i == 7 { -1 } else { i * 13 % 300 }).collect();
        let batch = Batch {
            embeddings: &problem.x,
            prototypes: &problem.w,
            labels: &labels,
            bias: problem.bias.as_deref(),
            ..Batch::default()
        };
        let options = Options { predictions: Some(count), want: Want::LOSS, ..Options::default() };
        let expected = backend.head_with(&loss, shape, &options)?.evaluate(&batch)?.predictions;
        let expected = expected.ok_or("no predictions")?;
        let [x, w] = lent(context, &problem)?;
        let y = Tensor::upload(context, &[21], &labels)?;
        let value = Tensor::empty(context, &[1], Element::F32)?;
        let bias = problem.bias.as_ref().map(|bias| Tensor::upload(context, &[300], bias)).transpose()?;
        let written = Written::new(context, 21, count)?;
        let prototypes = [&w];
        let io =
            Io { bias: bias.as_ref(), predictions: Some(written.tensors()), ..Io::new(&x, &prototypes, &y, &value) };
        let plan = Plan::head(&loss, shape, &plain(&[300]), context.limits(), &options)?;
        let head = Head::new(context, &loss, plan)?;
        let bound = head.bind(&io)?;
        context.queue().submit([{
            let mut encoder = context.device().create_command_encoder(&Default::default());
            bound.record_forward(&mut encoder);
            encoder.finish()
        }]);
        written.equals(context, family.name, &expected)?;

        let refused = |io: &Io<'_>| head.bind(io).err();
        let why = "the plan computes them";
        assert_eq!(refused(&Io { predictions: None, ..io }), Some(Error::Missing { what: "predictions", why }));
        let classes = &Tensor::empty(context, &[21, 4], Element::I32)?;
        let narrow = Io { predictions: Some(PredictionTensors { classes, ..written.tensors() }), ..io };
        let (found, expected) = (vec![21, 4], vec![21, 5]);
        assert_eq!(refused(&narrow), Some(Error::Shape { what: "predicted_classes", found, expected }));
        let classes = &written.cosines;
        let of_floats = Io { predictions: Some(PredictionTensors { classes, ..written.tensors() }), ..io };
        assert!(matches!(refused(&of_floats), Some(Error::Element { what: "predicted_classes", .. })));
        let unlabelled = Plan::predict(&loss, shape, 0..300, count, &plain(&[300]), context.limits(), &options)?;
        let unlabelled = Head::new(context, &loss, unlabelled)?;
        assert!(matches!(unlabelled.bind(&io).err(), Some(Error::Combination { what: "labels", .. })));
        let to = PredictIo { embeddings: &x, prototypes: &[&w], bias: bias.as_ref(), predictions: written.tensors() };
        assert!(matches!(head.bind_predictions(&to).err(), Some(Error::Missing { what: "labels", .. })));
        // a state that moves, and draws, are no concern of a prediction
        let mut bound = unlabelled.bind_predictions(&to)?;
        bound.update(&loss, 3)?;
        bound.read_state()?;
    }
    Ok(())
}

/// A second call makes no buffer but the one that the counts of the batch are read through.
fn a_predictor_keeps_its_buffers(context: &Context) -> Result<(), Failed> {
    let problem = Problem::new("softmax", [40, 300, 12, 1]);
    let mut predictor =
        Backend::Gpu(context.clone()).predictor(&problem.loss, problem.shape, 5, &Options::default())?;
    let inputs = Inputs::new(&problem.x, &problem.w);
    let expected = predictor.predict(&inputs)?;
    let before = context.allocated_bytes();
    let few = predictor.predict(&Inputs { embeddings: &problem.x[..12 * 7], ..inputs })?;
    assert_eq!(few.classes, expected.classes[..5 * 7]);
    assert_eq!(predictor.predict(&inputs)?, expected);
    let made = context.allocated_bytes() - before;
    assert!(made <= 2 * 256, "{made} bytes");
    Ok(())
}

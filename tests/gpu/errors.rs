//! Bad input is a typed error with both numbers, before anything is written.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{Context, Head, Io, Tensor, gather, monitor, ops, regularizer},
    plan::{Element, Layout, Plan},
    *,
};

use crate::{
    Check,
    cases::Data,
    rig::{Rig, plain},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("tensors_that_do_not_fit_are_refused", tensors_that_do_not_fit_are_refused),
    ("a_refused_batch_leaves_the_output_untouched", a_refused_batch_leaves_the_output_untouched),
    ("a_refused_state_is_not_taken", a_refused_state_is_not_taken),
    ("counts_from_elsewhere_cannot_wrap", counts_from_elsewhere_cannot_wrap),
    ("limits_and_budgets_are_refused_when_planning", limits_and_budgets_are_refused_when_planning),
    ("operations_refuse_shapes_that_do_not_match", operations_refuse_shapes_that_do_not_match),
    ("a_destroyed_device_is_an_error", a_destroyed_device_is_an_error),
];

/// Fails unless the result is an error of this pattern.
macro_rules! refused {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            Err(other) => return Err(format!("line {}: another error: {other:?}", line!()).into()),
            Ok(_) => return Err(format!("line {}: it was accepted", line!()).into()),
        }
    };
}

fn tensors_that_do_not_fit_are_refused(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (4, 10, 8);
    let shape = Shape::new(n, c, d)?;
    let data = Data::random(shape, 1);
    let loss = MarginSoftmax::arcface();
    let rig = Rig::plain(context, &loss, shape, &data)?;
    let t = &rig.tensors;
    let w = [&t.w[0]];
    let dw = [&t.dw[0]];
    let io = Io { grad_embeddings: Some(&t.dx), grad_prototypes: &dw, ..Io::new(&t.x, &w, &t.y, &t.loss) };
    rig.head.bind(&io)?;
    let tensor = |shape: &[usize], element| Tensor::empty(context, shape, element).unwrap();

    let wide = tensor(&[n, d + 1], Element::F32);
    refused!(rig.head.bind(&Io { embeddings: &wide, ..io }), Error::Shape { what: "embeddings", .. });
    let half = tensor(&[n, d], Element::F16);
    refused!(rig.head.bind(&Io { embeddings: &half, ..io }), Error::Element { what: "embeddings", .. });
    refused!(
        rig.head.bind(&Io { grad_embeddings: Some(&half), ..io }),
        Error::Element { what: "grad_embeddings", expected: "f32", .. }
    );
    let floats = tensor(&[n], Element::F32);
    refused!(rig.head.bind(&Io { labels: &floats, ..io }), Error::Element { what: "labels", expected: "i32", .. });
    refused!(rig.head.bind(&Io { prototypes: &[], ..io }), Error::Length { what: "prototypes", .. });
    refused!(rig.head.bind(&Io { grad_prototypes: &[], ..io }), Error::Length { what: "grad_prototypes", .. });
    refused!(rig.head.bind(&Io { grad_embeddings: None, ..io }), Error::Missing { what: "grad_embeddings", .. });
    let few = tensor(&[c - 1], Element::F32);
    refused!(rig.head.bind(&Io { class_weights: Some(&few), ..io }), Error::Shape { what: "class_weights", .. });
    refused!(rig.head.bind(&Io { upstream: Some(&floats), ..io }), Error::Shape { what: "upstream", .. });

    // a foreign buffer: misaligned, too small, without the usage, shared with an output
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
    let make = |size, usage| {
        context.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let buffer = make(4096, usage);
    let odd = Tensor::from_buffer(&buffer, 4, &[n, d], Element::F32)?;
    refused!(rig.head.bind(&Io { embeddings: &odd, ..io }), Error::Alignment { what: "embeddings", offset: 4, .. });
    let small = Tensor::from_buffer(&make(64, usage), 0, &[n, d], Element::F32);
    refused!(small, Error::Buffer { offset: 0, end: 128, found: 64, .. });
    refused!(Tensor::from_buffer(&buffer, u64::MAX, &[n], Element::F32), Error::Buffer { .. });
    refused!(Tensor::from_buffer(&buffer, 0, &[usize::MAX, 8], Element::F32), Error::Size { .. });
    // three halves end inside a word of the caller's
    let odd = Tensor::from_buffer(&buffer, 0, &[3], Element::F16)?;
    refused!(odd.write(context, &[half::f16::ONE; 3]), Error::Alignment { offset: 6, alignment: 4, .. });
    refused!(t.x.reshape(&[n, d + (1 << 63)]), Error::Shape { .. });
    let plain = make(4096, wgpu::BufferUsages::COPY_DST);
    refused!(Tensor::from_buffer(&plain, 0, &[n, d], Element::F32), Error::Usage { usage: "STORAGE", .. });
    let front = Tensor::from_buffer(&buffer, 0, &[n, d], Element::F32)?;
    let back = Tensor::from_buffer(&buffer, 1024, &[n, d], Element::F32)?;
    let shared = Io { embeddings: &front, grad_embeddings: Some(&back), ..io };
    refused!(rig.head.bind(&shared), Error::Overlap { .. });
    // two outputs of different kernels, one range
    let rows = Tensor::from_buffer(&buffer, 1024, &[n], Element::F32)?;
    refused!(rig.head.bind(&Io { row_losses: Some(&rows), grad_embeddings: Some(&back), ..io }), Error::Overlap { .. });
    let beside = Tensor::from_buffer(&buffer, 2048, &[n], Element::F32)?;
    rig.head.bind(&Io { row_losses: Some(&beside), grad_embeddings: Some(&back), ..io })?;
    refused!(front.read::<f32>(context), Error::Usage { usage: "COPY_SRC", .. });
    refused!(t.x.read::<i32>(context), Error::Element { found: "f32", expected: "i32", .. });
    refused!(t.x.write(context, &[0.0_f32; 3]), Error::Length { found: 3, .. });
    Ok(())
}

/// A tensor that nobody may write to.
fn a_refused_state_is_not_taken(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(4, 10, 8)?;
    let loss = MarginSoftmax::curricularface();
    let rig = Rig::plain(context, &loss, shape, &Data::random(shape, 2))?;
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false };
    let state = Tensor::from_buffer(&context.device().create_buffer(&descriptor), 0, &[4], Element::F32)?;
    let (t, w, dw) = (&rig.tensors, [&rig.tensors.w[0]], [&rig.tensors.dw[0]]);
    let io = Io { grad_embeddings: Some(&t.dx), grad_prototypes: &dw, ..Io::new(&t.x, &w, &t.y, &t.loss) };
    let mut bound = rig.head.bind(&Io { state: Some(&state), ..io })?;
    let later = State { step: 7, ..State::new(&loss, shape)?.with_seed(3) };
    refused!(bound.set_state(&later), Error::Usage { what: "state", .. });
    let found = bound.read_state()?;
    assert_eq!((found.step, found.seed), (0, 0));
    Ok(())
}

/// Prototypes that are not finite, as many as another machine likes to say.
fn counts_from_elsewhere_cannot_wrap(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(4, 10, 8)?;
    let mut data = Data::random(shape, 2);
    // a row that is counted too
    data.embeddings[0] = f32::NAN;
    let options = Options::default();
    let mut head = Backend::Gpu(context.clone()).shard(&MarginSoftmax::arcface(), shape, 0..10, &options)?;
    for count in [1, 10, 1 << 32, usize::MAX] {
        let targets = shard::Targets { non_finite_prototypes: count, ..head.targets(&data.batch())? };
        let sums = head.statistics(&data.batch(), &targets)?;
        let out = head.gradients(&data.batch(), &targets, &sums)?;
        assert!(out.loss.is_nan() && out.grad_embeddings.iter().all(|&g| g == 0.0), "{count}: {out:?}");
    }
    Ok(())
}

fn a_refused_batch_leaves_the_output_untouched(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (4, 10, 8);
    let shape = Shape::new(n, c, d)?;
    let data = Data::random(shape, 2);
    let mut front = Backend::Gpu(context.clone()).head(&MarginSoftmax::arcface(), shape)?;
    let mut out = front.evaluate(&data.batch())?;
    let before = out.clone();
    let good = data.batch();
    let (long, weights, upstream) = (vec![0.0; (n + 1) * d], vec![f32::NAN; c], vec![1.0; n]);
    let labels = vec![0; n + 1];
    for bad in [
        Batch { embeddings: &data.embeddings[1..], ..good },
        Batch { prototypes: &data.prototypes[..3], ..good },
        Batch { embeddings: &long, labels: &labels, ..good },
        Batch { class_weights: Some(&weights), ..good },
        Batch { class_weights: Some(&upstream), ..good },
        Batch { upstream: Some(&upstream), ..good },
        Batch { labels: &[0, 1, 2, 10], ..good },
    ] {
        front.evaluate_into(&bad, &mut out).unwrap_err();
        assert_eq!(out, before);
    }
    for bad in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        refused!(front.update(&MarginSoftmax::arcface().with_scale(bad)), Error::Parameter { what: "scale", .. });
    }
    refused!(front.update(&MarginSoftmax::arcface().with_others(Others::Rectified)), Error::Recompile { .. });
    // the old loss is still in force
    assert_eq!(front.evaluate(&data.batch())?, before);
    Ok(())
}

fn limits_and_budgets_are_refused_when_planning(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(64, 1000, 16)?;
    let loss = MarginSoftmax::arcface();
    let shards = [1000];
    let head = |limits: plan::Limits, options: Options| Plan::head(&loss, shape, &plain(&shards), &limits, &options);
    let limits = *context.limits();
    let options = Options::default();
    refused!(
        head(plan::Limits { storage_buffers: 4, ..limits }, options),
        Error::Limit { limit: "max_storage_buffers_per_shader_stage", needed: 8, allowed: 4, .. }
    );
    refused!(
        head(plan::Limits { max_binding: 4096, ..limits }, options),
        Error::Limit { limit: "max_storage_buffer_binding_size", allowed: 4096, .. }
    );
    refused!(head(plan::Limits { max_groups: 4, ..limits }, options), Error::Limit { allowed: 4, .. });
    let tiny = Options { budget: Budget::bytes(1000), ..options };
    refused!(head(limits, tiny), Error::Budget { allowed: 1000, .. });
    refused!(
        Plan::head(&loss, shape, &plain(&[999]), &limits, &options),
        Error::Length { what: "shards", found: 999, expected: 1000 }
    );
    refused!(Plan::head(&loss, shape, &plain(&[1000, 0]), &limits, &options), Error::Zero { what: "shards" });
    refused!(Plan::head(&loss, shape, &plain(&[usize::MAX, 1001]), &limits, &options), Error::Length { .. });
    refused!(head(plan::Limits { max_groups: 0, ..limits }, options), Error::Limit { allowed: 0, .. });
    let long = Shape::new(2, 64, 65_537)?;
    refused!(Plan::head(&loss, long, &plain(&[64]), &limits, &options), Error::Size { allowed: 65_536, .. });
    let labels = Layout { shards: &shards, embeddings: Element::I32, prototypes: Element::F32 };
    refused!(Plan::head(&loss, shape, &labels, &limits, &options), Error::Element { what: "embeddings", .. });
    let plan = head(limits, options)?;
    let other = loss.clone().with_others(Others::Rectified);
    refused!(Head::new(context, &other, plan), Error::Recompile { .. });
    // a part of a head: its sums would be those of its own classes alone
    let part = Plan::shard(&loss, shape, 0..600, &plain(&[600]), &limits, &options)?;
    refused!(Head::new(context, &loss, part), Error::Combination { what: "shard", .. });
    let mut shard = Backend::Gpu(context.clone()).shard(&loss, shape, 0..600, &options)?;
    let (w, y) = (vec![0.5; 600 * 16], [0_i64; 0]);
    let none = Batch { prototypes: &w, labels: &y, ..Default::default() };
    for out in [pollster::block_on(shard.evaluate_async(&none)), pollster::block_on(shard.train_async(&none))] {
        refused!(out, Error::Combination { what: "shard", .. });
    }
    refused!(Backend::gpu(Some("no such adapter")), Error::NoAdapter(_));
    Ok(())
}

fn operations_refuse_shapes_that_do_not_match(context: &Context) -> Result<(), Failed> {
    let f = |shape: &[usize]| Tensor::empty(context, shape, Element::F32).unwrap();
    let y = |shape: &[usize]| Tensor::empty(context, shape, Element::I32).unwrap();
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let e = &mut encoder;
    // what would be taken: the number of classes and leading axes are free
    let wrong = |what, found: &[usize], expected: &[usize]| {
        Some(Error::Shape { what, found: found.to_vec(), expected: expected.to_vec() })
    };
    for (x, w, what, expected) in [
        (&[5, 8][..], &[4, 3, 8][..], "prototypes", &[3, 8][..]),
        (&[4, 8], &[5, 7], "prototypes", &[5, 8]),
        (&[2, 4, 8], &[5, 8], "prototypes", &[2, 5, 8]),
        (&[2, 4, 8], &[3, 5, 8], "prototypes", &[2, 5, 8]),
        (&[4, 8], &[8], "prototypes", &[1, 8]),
        (&[8], &[5, 8], "embeddings", &[1, 8]),
        (&[2, 3, 4, 8], &[5, 8], "embeddings", &[6, 4, 8]),
    ] {
        let found = if what == "embeddings" { x } else { w };
        assert_eq!(ops::cosine(context, e, &f(x), &f(w)).err(), wrong(what, found, expected));
    }
    let (arcface, options) = (MarginSoftmax::arcface(), ops::CrossEntropy::default());
    let logits = ops::margin(context, e, &arcface, &f(&[20]), &y(&[4]));
    assert_eq!(logits.err(), wrong("cosines", &[20], &[1, 20]));
    let losses = ops::cross_entropy(context, e, &options, &f(&[2, 2, 4, 5]), &y(&[4]), None);
    assert_eq!(losses.err(), wrong("logits", &[2, 2, 4, 5], &[4, 4, 5]));
    // the names of the caller's function, not of the plan
    let center = CenterLoss::default();
    let mut moved =
        |x: &[usize], w: &[usize]| regularizer::update_centers(context, e, &center, &f(x), &y(&[4]), &f(w)).err();
    assert_eq!(moved(&[4, 8], &[5, 7]), wrong("centers", &[5, 7], &[5, 8]));
    assert_eq!(moved(&[4, 8], &[5, 3, 8]), wrong("centers", &[5, 3, 8], &[15, 8]));
    assert_eq!(moved(&[32], &[5, 8]), wrong("embeddings", &[32], &[1, 32]));
    let found = gather(context, e, &[&f(&[5, 3, 8])], &y(&[2]));
    assert_eq!(found.err(), wrong("prototypes", &[5, 3, 8], &[5, 24]));
    let found = gather(context, e, &[&f(&[5, 8]), &f(&[6, 7])], &y(&[2]));
    assert_eq!(found.err(), wrong("prototypes", &[6, 7], &[6, 8]));
    let found = gather(context, e, &[&f(&[5, 8])], &y(&[2, 3]));
    assert_eq!(found.err(), wrong("classes", &[2, 3], &[6]));
    let usage = wgpu::BufferUsages::STORAGE;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 4096, usage, mapped_at_creation: false };
    let buffer = context.device().create_buffer(&descriptor);
    let odd = |shape: &[usize], element| Tensor::from_buffer(&buffer, 4, shape, element).unwrap();
    refused!(gather(context, e, &[&f(&[5, 8])], &odd(&[2], Element::I32)), Error::Alignment { what: "classes", .. });
    let centers = odd(&[5, 8], Element::F32);
    let moved = regularizer::update_centers(context, e, &center, &f(&[4, 8]), &y(&[4]), &centers);
    refused!(moved, Error::Alignment { what: "centers", offset: 4, .. });
    refused!(monitor::mean_pair_angle(context, &[&centers]), Error::Alignment { what: "vectors", .. });
    refused!(ops::cosine(context, e, &y(&[4, 8]), &f(&[5, 8])), Error::Element { what: "embeddings", .. });
    refused!(ops::margin(context, e, &arcface, &f(&[4, 5]), &y(&[3])), Error::Shape { what: "labels", .. });
    refused!(ops::margin(context, e, &arcface, &f(&[4, 5]), &f(&[4])), Error::Element { what: "labels", .. });
    let bad = arcface.with_scale(f64::NAN);
    refused!(ops::margin(context, e, &bad, &f(&[4, 5]), &y(&[4])), Error::Parameter { what: "scale", .. });
    let options = ops::CrossEntropy { label_smoothing: 1.0, ..Default::default() };
    refused!(
        ops::cross_entropy(context, e, &options, &f(&[4, 5]), &y(&[4]), None),
        Error::Parameter { what: "label_smoothing", .. }
    );
    let options = ops::CrossEntropy::default();
    let weights = f(&[4]);
    refused!(
        ops::cross_entropy(context, e, &options, &f(&[4, 5]), &y(&[4]), Some(&weights)),
        Error::Shape { what: "class_weights", .. }
    );
    Ok(())
}

fn a_destroyed_device_is_an_error(context: &Context) -> Result<(), Failed> {
    // a device of its own: the others still need theirs
    let name = context.name();
    let own = Context::new(name.split(" (").next())?;
    let shape = Shape::new(4, 10, 8)?;
    let data = Data::random(shape, 2);
    let loss = MarginSoftmax::arcface();
    let mut front = Backend::Gpu(own.clone()).head(&loss, shape)?;
    let first = front.evaluate(&data.batch())?;
    own.device().destroy();
    let mut out = first.clone();
    refused!(front.evaluate_into(&data.batch(), &mut out), Error::DeviceLost(_) | Error::Device(_));
    assert_eq!(out, first);
    refused!(Backend::Gpu(own).head(&loss, shape), Error::DeviceLost(_) | Error::Device(_));
    Ok(())
}

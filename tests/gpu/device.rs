//! The caller's device: what is asked of it, and what stays the caller's.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{self, Context, Head, Io, Tensor, auxiliary, monitor, operations},
    objective::{Custom, Fallback},
    plan::{Element, Layout, Plan},
    verification::{CohortStatistics, DetectionCurve},
    *,
};

use crate::{
    Check,
    cases::Data,
    faults,
    heads::Bad,
    rig::{Rig, Tensors, plain},
    waits::{Impatient, until_late},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("default_limits_and_no_features_are_enough", default_limits_and_no_features_are_enough),
    ("a_context_asks_for_what_is_recommended", a_context_asks_for_what_is_recommended),
    ("the_owners_callbacks_stay", the_owners_callbacks_stay),
    ("the_owners_error_scopes_stay_balanced", the_owners_error_scopes_stay_balanced),
    ("recording_neither_submits_nor_polls", recording_neither_submits_nor_polls),
    ("buffers_of_another_device_are_refused", buffers_of_another_device_are_refused),
    ("a_plan_for_a_larger_device_is_refused", a_plan_for_a_larger_device_is_refused),
    ("every_error_says_what_is_wrong", every_error_says_what_is_wrong),
];

const SHAPE: (usize, usize, usize) = (5, 33, 7);

fn shape() -> Shape {
    let (n, c, d) = SHAPE;
    Shape::new(n, c, d).unwrap()
}

fn loss() -> MarginSoftmax {
    MarginSoftmax::arcface().with_scale(16.0)
}

/// One tile, which compiles fast: every device here compiles its own.
fn options() -> Options {
    Options { tile: Some(Tile::Direct), ..Default::default() }
}

/// An application that opened a device of this adapter and listens to it.
struct Owner {
    context: Context,
    /// Embeddings on a second device: wgpu tells devices apart within an instance.
    elsewhere: Tensor,
    errors: Arc<Mutex<Vec<String>>>,
    lost: Arc<AtomicBool>,
}

pub fn adapter_of(context: &Context) -> wgpu::Adapter {
    let name = context.name().split(" (").next().unwrap_or_default().to_owned();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    adapters.into_iter().find(|a| a.get_info().name.starts_with(&name)).unwrap()
}

impl Owner {
    fn new(context: &Context, required_limits: wgpu::Limits) -> Result<Self, Failed> {
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let adapter = adapter_of(context);
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
        let second = pollster::block_on(adapter.request_device(&Default::default()))?;
        let second = Context::from_device(&second.0, &second.1)?;
        let elsewhere = Tensor::empty(&second, &[shape().rows(), shape().dim()], Element::F32)?;
        let (errors, lost) = (Arc::new(Mutex::new(vec![])), Arc::new(AtomicBool::new(false)));
        let (heard, gone) = (errors.clone(), lost.clone());
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| heard.lock().unwrap().push(e.to_string())));
        device.set_device_lost_callback(move |_, _| gone.store(true, Ordering::Relaxed));
        Ok(Self { context: Context::from_device(&device, &queue)?, elsewhere, errors, lost })
    }

    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.errors.lock().unwrap())
    }

    /// A buffer that wgpu refuses.
    fn mistake(&self) {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::STORAGE;
        let label = Some("the owner's mistake");
        let descriptor = wgpu::BufferDescriptor { label, size: 4, usage, mapped_at_creation: false };
        let _ = self.context.device().create_buffer(&descriptor);
    }

    /// Everything that this library does with a device, and something that wgpu refuses.
    fn work(&self) -> Result<Output, Failed> {
        let (context, elsewhere) = (&self.context, &self.elsewhere);
        let data = Data::random(shape(), 3);
        let rig = Rig::new(context, &loss(), shape(), &plain(&[shape().classes()]), &options(), &data)?;
        let out = rig.run(context)?;
        let front = Backend::Gpu(context.clone()).head_with(&loss(), shape(), &options())?.evaluate(&data.batch())?;
        assert_eq!(out.loss.to_bits(), front.loss.to_bits());
        assert!(matches!(elsewhere.write(context, &vec![0.0_f32; elsewhere.len()]), Err(Error::Foreign { .. })));
        assert!(matches!(elsewhere.read::<f32>(context), Err(Error::Foreign { .. })));
        let t = &rig.tensors;
        let (w, dw) = ([&t.w[0]], [&t.dw[0]]);
        let io = Io { grad_embeddings: Some(&t.dx), grad_prototypes: &dw, ..Io::new(elsewhere, &w, &t.y, &t.loss) };
        assert!(matches!(rig.head.bind(&io), Err(Error::Foreign { what: "embeddings", .. })));
        Ok(out)
    }
}

fn default_limits_and_no_features_are_enough(context: &Context) -> Result<(), Failed> {
    let data = Data::random(shape(), 3);
    let expected = Backend::reference().head(&loss(), shape())?.evaluate(&data.batch())?;
    for limits in [wgpu::Limits::default(), gpu::required_limits()] {
        let owner = Owner::new(context, limits.clone())?;
        let (device, limits) = (owner.context.device(), limits.max_storage_buffers_per_shader_stage);
        assert_eq!(device.features(), wgpu::Features::empty());
        assert_eq!((device.limits().max_storage_buffers_per_shader_stage, limits), (8, 8));
        let found = owner.work()?;
        for (what, found, expected) in [
            ("loss", &vec![found.loss], &vec![expected.loss]),
            ("grad_embeddings", &found.grad_embeddings, &expected.grad_embeddings),
            ("grad_prototypes", &found.grad_prototypes, &expected.grad_prototypes),
        ] {
            assert_eq!(found.len(), expected.len());
            let most = expected.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // the gate of the table at scale 16, slopes below 3
            assert!(worst <= 2.5e-5 * most, "{what} is off by {worst} of {most}");
        }
        assert_eq!(owner.heard(), [""; 0]);
    }
    Ok(())
}

fn a_context_asks_for_what_is_recommended(context: &Context) -> Result<(), Failed> {
    let adapter = adapter_of(context);
    let (recommended, most) = (gpu::recommended_limits(&adapter), adapter.limits());
    let (device, own) = (context.device().limits(), plan::Limits::WEBGPU);
    assert!(gpu::required_limits().check_limits(&recommended), "recommended limits lack a required one");
    assert!(recommended.check_limits(&most), "recommended limits exceed the adapter's");
    for (what, device, recommended) in [
        ("max_buffer_size", device.max_buffer_size, recommended.max_buffer_size),
        ("binding", device.max_storage_buffer_binding_size, recommended.max_storage_buffer_binding_size),
        ("buffers", device.max_storage_buffers_per_shader_stage.into(), own.storage_buffers.into()),
    ] {
        assert_eq!(device, recommended, "{what}");
    }
    let binding = context.limits().max_binding;
    assert_eq!(binding, most.max_storage_buffer_binding_size);
    assert!(binding >= own.max_binding && context.limits().alignment <= own.alignment);
    assert_eq!(context.device().features(), gpu::optional_features(&adapter));
    assert_eq!(context.limits().f16, adapter.features().contains(wgpu::Features::SHADER_F16));
    Ok(())
}

fn the_owners_callbacks_stay(context: &Context) -> Result<(), Failed> {
    let owner = Owner::new(context, wgpu::Limits::default())?;
    let out = owner.work()?;
    assert!(out.loss > 0.0);
    assert_eq!(owner.heard(), [""; 0], "an error of this library reached the owner's handler");
    owner.mistake();
    let heard = owner.heard();
    assert!(heard.len() == 1 && heard[0].contains("the owner's mistake"), "{heard:?}");

    // the device goes: its owner hears of it, and later calls are errors
    let data = Data::random(shape(), 3);
    let mut front = Backend::Gpu(owner.context.clone()).head_with(&loss(), shape(), &options())?;
    front.evaluate(&data.batch())?;
    assert!(!owner.lost.load(Ordering::Relaxed));
    owner.context.device().destroy();
    match front.evaluate(&data.batch()) {
        Err(error @ Error::DeviceLost(_)) => {
            let expected = "the device is lost: open another, make a new context and new heads";
            assert_eq!(error.to_string(), expected);
        }
        other => return Err(format!("on a lost device: {other:?}").into()),
    }
    let _ = owner.context.device().poll(wgpu::PollType::Poll);
    assert!(owner.lost.load(Ordering::Relaxed), "the owner's device-lost callback was replaced");
    Ok(())
}

fn the_owners_error_scopes_stay_balanced(context: &Context) -> Result<(), Failed> {
    let owner = Owner::new(context, wgpu::Limits::default())?;
    let device = owner.context.device().clone();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    owner.work()?;
    let found = pollster::block_on(scope.pop());
    assert!(found.is_none(), "an error of this library in the owner's scope: {found:?}");

    let outer = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    owner.work()?;
    owner.mistake();
    owner.work()?;
    let found = pollster::block_on(scope.pop()).map(|e| e.to_string()).unwrap_or_default();
    assert!(found.contains("the owner's mistake"), "{found}");
    assert!(pollster::block_on(outer.pop()).is_none());
    assert_eq!(owner.heard(), [""; 0]);
    // no scope is left open
    owner.mistake();
    assert_eq!(owner.heard().len(), 1);
    Ok(())
}

/// Notices a submit by its number, and a poll by the mapping of an idle buffer, which only a poll or a submit answers.
struct Watch {
    submits: u64,
    mapped: Arc<AtomicBool>,
    _buffer: wgpu::Buffer,
}

/// What a submit of nothing is numbered.
fn number(context: &Context) -> u64 {
    let index = format!("{:?}", context.queue().submit([]));
    index.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

impl Watch {
    fn start(context: &Context) -> Self {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false };
        let buffer = context.device().create_buffer(&descriptor);
        let submits = number(context);
        context.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let mapped = Arc::new(AtomicBool::new(false));
        let answered = mapped.clone();
        buffer.map_async(wgpu::MapMode::Read, .., move |_| answered.store(true, Ordering::Relaxed));
        Self { submits, mapped, _buffer: buffer }
    }

    /// Whether something polled or submitted; how many numbers went by.
    fn stop(self, context: &Context) -> (bool, u64) {
        let seen = self.mapped.load(Ordering::Relaxed);
        let numbers = number(context) - self.submits;
        context.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        assert!(self.mapped.load(Ordering::Relaxed), "this watch notices nothing");
        (seen, numbers)
    }
}

fn recording_neither_submits_nor_polls(context: &Context) -> Result<(), Failed> {
    // the watch itself: a poll and a submit are seen
    let (seen, numbers) = Watch::start(context).stop(context);
    assert!(!seen);
    let watch = Watch::start(context);
    let _ = context.device().poll(wgpu::PollType::Poll);
    assert_eq!(watch.stop(context), (true, numbers));
    let watch = Watch::start(context);
    context.queue().submit([]);
    assert_eq!(watch.stop(context), (true, numbers + 1));

    let data = Data::random(shape(), 3);
    let mut rig = Rig::new(context, &loss(), shape(), &plain(&[shape().classes()]), &options(), &data)?;
    let angles = monitor::HeadMonitor::new(context, &rig.bound, 8)?;
    let watch = Watch::start(context);
    let mut encoder = context.device().create_command_encoder(&Default::default());
    rig.bound.set_training(true);
    rig.bound.record_forward(&mut encoder);
    rig.bound.record_backward(&mut encoder);
    angles.record(&mut encoder);
    assert_eq!(watch.stop(context), (false, numbers));
    context.queue().submit([encoder.finish()]);
    assert!(rig.tensors.loss.read::<f32>(context)?[0] > 0.0);

    // what compiles, allocates and writes in the same call leaves submits and polls to the caller too
    let watch = Watch::start(context);
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let bound = rig.tensors.bind(&rig.head)?;
    rig.bound.update(&loss().with_scale(8.0), shape().rows() - 1)?;
    rig.bound.set_accumulate(true)?;
    bound.record_forward(&mut encoder);
    let Tensors { x, w, y, dx, dw, .. } = &rig.tensors;
    let e = &mut encoder;
    let cosines = operations::cosine(context, e, x, &w[0])?;
    let logits = operations::margin(context, e, &loss(), &cosines, y)?;
    operations::cross_entropy(context, e, &operations::CrossEntropy::default(), &logits, y, None)?;
    gpu::gather(context, e, &[&w[0]], y)?;
    monitor::mean_prototype(context, e, &[&w[0]])?;
    auxiliary::regularize(context, e, &Regularizer::RegSs { weight: 1.0 }, &w[0], &dw[0], true)?;
    auxiliary::center_loss(context, e, &CenterLoss::default(), x, y, &w[0], dx, true)?;
    assert_eq!(watch.stop(context), (false, numbers));
    context.queue().submit([encoder.finish()]);
    Ok(())
}

fn buffers_of_another_device_are_refused(context: &Context) -> Result<(), Failed> {
    // the devices that this library opens share an instance
    let other = Context::new(context.name().split(" (").next())?;
    let data = Data::random(shape(), 3);
    let layout = plain(&[SHAPE.1]);
    let rig = Rig::new(context, &loss(), shape(), &layout, &options(), &data)?;
    let (t, far) = (&rig.tensors, Tensors::new(&other, shape(), &layout, &data)?);
    let (w, dw) = ([&t.w[0]], [&t.dw[0]]);
    let io = Io { grad_embeddings: Some(&t.dx), grad_prototypes: &dw, ..Io::new(&t.x, &w, &t.y, &t.loss) };
    for (what, io) in [
        ("embeddings", Io { embeddings: &far.x, ..io }),
        ("labels", Io { labels: &far.y, ..io }),
        ("loss", Io { loss: &far.loss, ..io }),
        ("prototypes", Io { prototypes: &[&far.w[0]], ..io }),
        ("grad_embeddings", Io { grad_embeddings: Some(&far.dx), ..io }),
        ("grad_prototypes", Io { grad_prototypes: &[&far.dw[0]], ..io }),
    ] {
        let refused = rig.head.bind(&io).map(drop).unwrap_err();
        assert!(matches!(refused, Error::Foreign { what: found, .. } if found == what), "{what}: {refused}");
    }
    let mut bound = rig.head.bind(&io)?;
    let refused = bound.rebind(&Io { embeddings: &far.x, ..io });
    assert!(matches!(refused, Err(Error::Foreign { what: "embeddings", .. })), "{refused:?}");
    // and one that its owner destroyed
    let gone = Tensor::empty(context, &[shape().rows(), shape().dim()], Element::F32)?;
    gone.buffer().destroy();
    match rig.head.bind(&Io { embeddings: &gone, ..io }) {
        Err(Error::Foreign { what: "embeddings", why }) => assert!(why.contains("destroyed"), "{why}"),
        other => return Err(format!("a destroyed buffer: {:?}", other.map(drop)).into()),
    }
    Ok(())
}

fn a_plan_for_a_larger_device_is_refused(context: &Context) -> Result<(), Failed> {
    let owner = Owner::new(context, wgpu::Limits::default())?;
    let large = plan::Limits { max_binding: 1 << 30, max_buffer: 1 << 30, f16: true, ..plan::Limits::WEBGPU };
    // 205 MB of prototypes in one binding
    let wide = Shape::new(4, 100_000, 512)?;
    let plan = Plan::head(&loss(), wide, &plain(&[100_000]), &large, &options())?;
    match Head::new(&owner.context, &loss(), plan) {
        Err(Error::Limit { what: "prototypes", needed: 204_800_000, allowed, .. }) => assert_eq!(allowed, 128 << 20),
        other => return Err(format!("{:?}", other.map(drop)).into()),
    }
    let half = Layout { shards: &[SHAPE.1], embeddings: Element::F16, prototypes: Element::F16 };
    let plan = Plan::head(&loss(), shape(), &half, &large, &options())?;
    match Head::new(&owner.context, &loss(), plan) {
        Err(Error::Feature { feature: "SHADER_F16", .. }) => {}
        other => return Err(format!("{:?}", other.map(drop)).into()),
    }
    assert_eq!(owner.context.compiled_kernels(), 0);
    Ok(())
}

/// The variants of [`Error`], from its source.
fn variants() -> BTreeSet<&'static str> {
    let source = include_str!("../../src/error.rs");
    let body = source.split_once("pub enum Error {").unwrap().1.split_once("\n}").unwrap().0;
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = lines.filter(|line| line.starts_with(char::is_uppercase));
    variants.map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap()).collect()
}

/// Every variant with a real cause. Its text has what was found, what is allowed, and what helps; where the system or a
/// driver goes on from there, the test knows how it begins and one of its words.
fn every_error_says_what_is_wrong(context: &Context) -> Result<(), Failed> {
    let seen = RefCell::new(BTreeSet::new());
    let text = |error: Error| {
        let name = format!("{error:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
        seen.borrow_mut().insert(name);
        error.to_string()
    };
    let says = |error: Error, expected: &str| assert_eq!(text(error), expected);
    let begins = |error: Error, expected: &str, part: &str| {
        let text = text(error);
        assert!(text.starts_with(expected) && text.contains(part), "{text}: not {expected} .. {part}");
    };
    let (n, c, d) = SHAPE;
    let noop = |required_limits| wgpu::Device::noop(&wgpu::DeviceDescriptor { required_limits, ..Default::default() });
    let refused = |limits| {
        let (device, queue) = noop(limits);
        Context::from_device(&device, &queue).map(drop).unwrap_err()
    };

    // the loss, the shape and the batch
    let bad = loss().with_scale(-1.0).validate().unwrap_err();
    says(bad, "`scale` is -1, allowed is 0 < scale <= 1e6");
    let sine = MarginSoftmax::sphereface().with_margin(|m| m.fallback = Fallback::Sine).validate().unwrap_err();
    says(sine, "fallback: the sine fallback is defined for m1 = 1 only");
    begins(MarginSoftmax::named("arcfac").unwrap_err(), "`arcfac` is not a known loss; known are: ", "arcface");
    says(Shape::new(n, 0, d).unwrap_err(), "`classes` is 0, it must be at least 1");
    let data = Data::random(shape(), 3);
    let mut head = Backend::reference().head(&loss(), shape())?;
    let mut evaluate = |batch: Batch<'_, i32>| head.evaluate(&batch).unwrap_err();
    let embeddings = &data.embeddings[1..];
    says(evaluate(Batch { embeddings, ..data.batch() }), "`embeddings` has 34 values, expected 35");
    says(
        evaluate(Batch { labels: &[0, -100, 2, 3, 4], ..data.batch() }),
        "row 1 has label -100, but there are only 33 classes; to leave such rows out set `ignore_index` to -100",
    );
    says(evaluate(Batch { labels: &[33; 5], ..data.batch() }), "row 0 has label 33, but there are only 33 classes");
    says(
        Backend::reference().shard(&loss(), shape(), 2..40, &options()).map(drop).unwrap_err(),
        "shard 2..40 found where one from class 2 must begin: together they must be 33 classes, each once",
    );
    begins(checkpoint::Checkpoint::from_safetensors(b"no").unwrap_err(), "this is no checkpoint: ", "");
    begins(checkpoint::Checkpoint::load("/no/such/file").unwrap_err(), "/no/such/file: ", "");

    // the device and its limits
    begins(
        Context::new(Some("no such adapter")).map(drop).unwrap_err(),
        "no GPU adapter: none is called `no such adapter`; found: [",
        context.name().split(" (").next().unwrap(),
    );
    says(
        refused(wgpu::Limits::downlevel_defaults()),
        "a kernel needs 8, the device allows 4 (`max_storage_buffers_per_shader_stage`); open it with \
         `gpu::recommended_limits` if its adapter allows more; on an adapter that does not, the kernels cannot run",
    );
    says(
        refused(wgpu::Limits { max_compute_invocations_per_workgroup: 64, ..Default::default() }),
        "a workgroup needs 128, the device allows 64 (`max_compute_invocations_per_workgroup`); open it with \
         `gpu::recommended_limits` if its adapter allows more; on an adapter that does not, the kernels cannot run",
    );
    says(
        refused(wgpu::Limits { max_compute_workgroup_storage_size: 4096, ..Default::default() }),
        "a workgroup needs 8192, the device allows 4096 (`max_compute_workgroup_storage_size`); open it with \
         `gpu::recommended_limits` if its adapter allows more",
    );
    let (device, queue) = noop(wgpu::Limits::default());
    device.destroy();
    let gone = Context::from_device(&device, &queue).map(drop).unwrap_err();
    says(gone, "the device is lost: open another, make a new context and new heads");
    let plan = |shape: Shape, options: &Options| {
        Plan::head(&loss(), shape, &plain(&[shape.classes()]), context.limits(), options).map(drop).unwrap_err()
    };
    says(plan(Shape::new(n, c, 65_537)?, &options()), "dim on a GPU: 65537, at most 65536 are possible");
    let small = plan(shape(), &Options { budget: Budget::bytes(1000), ..options() });
    let Error::Budget { needed, allowed: 1000 } = small else { panic!("{small:?}") };
    let just = Options { budget: Budget::bytes(needed), ..options() };
    Plan::head(&loss(), shape(), &plain(&[c]), context.limits(), &just)?;
    says(small, &format!("the workspace needs at least {needed} bytes, the budget is 1000"));
    let wide = Shape::new(4, 100_000, 512)?;
    says(
        Plan::head(&loss(), wide, &plain(&[100_000]), &plan::Limits::WEBGPU, &options()).map(drop).unwrap_err(),
        "prototypes needs 204800000, the device allows 134217728 (`max_storage_buffer_binding_size`); open it with \
         `gpu::recommended_limits` if its adapter allows more, or divide the prototypes as `Plan::shards` says",
    );

    // tensors and buffers
    let rig = Rig::new(context, &loss(), shape(), &plain(&[SHAPE.1]), &options(), &data)?;
    let t = &rig.tensors;
    let (w, dw) = ([&t.w[0]], [&t.dw[0]]);
    let io = Io { grad_embeddings: Some(&t.dx), grad_prototypes: &dw, ..Io::new(&t.x, &w, &t.y, &t.loss) };
    let bind = |io: &Io<'_>| rig.head.bind(io).map(drop).unwrap_err();
    let make = |size, usage| {
        context.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let (storage, copy) = (wgpu::BufferUsages::STORAGE, wgpu::BufferUsages::COPY_DST);
    says(
        Tensor::from_buffer(&make(4096, copy), 0, &[n, d], Element::F32).map(drop).unwrap_err(),
        "the buffer of `tensor` was made without the usage STORAGE: add it when the buffer is made",
    );
    says(
        Tensor::from_buffer(&make(64, storage), 0, &[n, d], Element::F32).map(drop).unwrap_err(),
        "`tensor` needs bytes 0..140 of a buffer of 64 bytes",
    );
    let buffer = make(4096, storage);
    let alignment = context.limits().alignment;
    let odd = Tensor::from_buffer(&buffer, 4, &[n, d], Element::F32)?;
    says(
        bind(&Io { embeddings: &odd, ..io }),
        &format!("`embeddings` starts at byte 4 of its buffer, the device needs a multiple of {alignment}"),
    );
    let front = Tensor::from_buffer(&buffer, 0, &[n, d], Element::F32)?;
    let back = Tensor::from_buffer(&buffer, 1024, &[n, d], Element::F32)?;
    says(
        bind(&Io { embeddings: &front, grad_embeddings: Some(&back), ..io }),
        "`grad_embeddings` and `embeddings` share a buffer, but one of them is written: give it another buffer",
    );
    says(bind(&Io { labels: &t.loss, ..io }), "`labels` has shape [1], expected [5]");
    says(bind(&Io { labels: &t.row_losses, ..io }), "`labels` holds f32, expected i32");
    says(t.x.read::<i32>(context).unwrap_err(), "`tensor` holds f32, expected i32");
    says(t.x.write(context, &[1_i32; 35]).unwrap_err(), "`values` holds i32, expected f32");
    says(t.x.write(context, &[1.0_f32; 3]).unwrap_err(), "`values` has 3 values, expected 35");
    says(bind(&Io { grad_embeddings: None, ..io }), "`grad_embeddings` is missing: the plan computes this gradient");
    // three halves take two words
    let short = Tensor::from_buffer(&make(6, storage | wgpu::BufferUsages::COPY_SRC), 0, &[3], Element::F16)?;
    says(short.read::<half::f16>(context).unwrap_err(), "`tensor` needs bytes 0..8 of a buffer of 6 bytes");
    let mapped = context.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage: storage | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: true,
    });
    let mapped = Tensor::from_buffer(&mapped, 0, &[4], Element::F32)?;
    begins(mapped.read::<f32>(context).unwrap_err(), "the device refused: ", "mapped");
    // a plan for another shape
    let other = Tensors::new(context, Shape::new(n + 1, SHAPE.1, d)?, &plain(&[SHAPE.1]), &data_of(n + 1))?;
    says(bind(&Io { embeddings: &other.x, ..io }), "`embeddings` has shape [6, 7], expected [5, 7]");
    let mut bound = rig.head.bind(&io)?;
    let refused = bound.update(&loss(), n + 1).unwrap_err();
    says(refused, "the batch has 6 rows, this head was made for at most 5");
    begins(
        bound.update(&loss().with_others(Others::Rectified), n).unwrap_err(),
        "the new loss needs the kernel `",
        "rectified",
    );
    let target = Target::Custom(Custom::new(Bad("this is not WGSL")));
    let custom = Backend::Gpu(context.clone()).head(&MarginSoftmax { target, ..loss() }, shape());
    begins(custom.map(drop).unwrap_err(), "the WGSL of the curve `bad` is refused: ", "this");
    let timing = gpu::timing::Timing::new(&Context::from_device(
        &wgpu::Device::noop(&Default::default()).0,
        &wgpu::Device::noop(&Default::default()).1,
    )?);
    says(
        timing.map(drop).unwrap_err(),
        "timing needs a device with the feature TIMESTAMP_QUERY: request it, `gpu::optional_features` does so where it can",
    );
    let far = Context::new(context.name().split(" (").next())?;
    let far = Tensor::empty(&far, &[n, d], Element::F32)?;
    begins(
        bind(&Io { embeddings: &far, ..io }),
        "the buffer of `embeddings` cannot be used here: make it on the context's own device, and keep it (",
        "",
    );
    let slow = Data::random(faults::large(), 3);
    let mut head = faults::front(context, faults::large())?;
    let late = until_late(|| {
        let _impatient = Impatient::new(context);
        Ok(head.evaluate(&slow.batch()))
    })?;
    says(late, "the device did not answer within 0.001 s");

    let bounded = Options { work_per_submit: Some(1), ..options() };
    let refused = Backend::Gpu(context.clone()).head_with(&loss(), shape(), &bounded).map(drop).unwrap_err();
    let Error::Work { needed, .. } = refused else { return Err(format!("{refused}").into()) };
    begins(refused, "a dispatch takes at least ", "multiply-adds, `work_per_submit` is 1");
    let bounded = Options { work_per_submit: Some(needed), ..options() };
    let mut rig = Rig::new(context, &loss(), shape(), &plain(&[SHAPE.1]), &bounded, &data)?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    rig.bound.forward_parts().record_next(&mut encoder);
    says(
        rig.bound.read_counts().unwrap_err(),
        "the last call was recorded in part, so there are no results: record a forward pass anew",
    );

    let mut head = Backend::Gpu(context.clone()).head(&loss(), shape())?;
    head.set_progress(Some(Box::new(|_| std::ops::ControlFlow::Break(()))));
    says(head.evaluate(&data.batch()).unwrap_err(), "the progress callback stopped the call");

    let twice = margin_softmax::classes::ClassMap::keep(3, &[0, 0]).unwrap_err();
    begins(twice, "class 0 ", "twice");

    let backend = Backend::Gpu(context.clone());
    let gallery = [1.0, 0.0, 0.0, 1.0];
    says(
        backend.pair_cosines(2, &gallery, &gallery, &[[0, 2]]).unwrap_err(),
        "`pairs` names item 2 at position 0, but there are only 2",
    );
    says(
        DetectionCurve::new(&[1.0, 2.0], &[true, true]).map(drop).unwrap_err(),
        "of 2 pairs 2 are of the same identity: at least one of the same and one of different are needed",
    );
    says(
        DetectionCurve::new(&[1.0, f32::NAN], &[true, false]).map(drop).unwrap_err(),
        "`scores` has NaN at position 1, every one must be finite",
    );
    says(
        CohortStatistics::new(2, &[0.5; 4]).map(drop).unwrap_err(),
        "the `scores` of row 0 are all equal, so they have no deviation to divide by",
    );

    let mut seen = seen.into_inner();
    // in a process of its own: `memory_that_runs_out_comes_back`
    assert!(seen.insert("OutOfMemory".into()));
    assert_eq!(seen.iter().map(String::as_str).collect::<BTreeSet<_>>(), variants());
    Ok(())
}

fn data_of(rows: usize) -> Data {
    Data::random(Shape::new(rows, SHAPE.1, SHAPE.2).unwrap(), 3)
}

//! Devices that go, memory that is not there, code of the caller's that panics: an error each, and nothing else is harmed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use libtest_mimic::{Failed, Trial};
use margin_softmax::{
    gpu::{self, Context, Head, Io, Tensor, auxiliary, monitor, operations, timing::Timing},
    partial::{Classes, PartialFc, SampledHead},
    plan::{Element, Plan},
    *,
};

use crate::{
    Check,
    cases::Data,
    device::adapter_of,
    edges,
    rig::{Rig, Tensors, plain, same_output},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("every_call_on_a_lost_device_says_so", |c| watched(c, every_call_on_a_lost_device_says_so)),
    ("a_device_lost_under_a_readback_is_an_error", |c| watched(c, a_device_lost_under_a_readback_is_an_error)),
    ("memory_that_runs_out_comes_back", |c| watched(c, memory_that_runs_out_comes_back)),
    ("a_panic_of_the_callers_margin_leaves_the_head", |c| watched(c, a_panic_of_the_callers_margin_leaves_the_head)),
];

/// A check of any backend.
type BackendCheck = fn(&Backend) -> Result<(), Failed>;

/// The checks that need no adapter.
pub fn trials() -> Vec<Trial> {
    let backends = [
        ("reference", Backend::reference()),
        #[cfg(feature = "cpu")]
        ("CPU", Backend::cpu()),
    ];
    let checks: [(&str, BackendCheck); 2] = [
        ("a_panic_of_the_callers_margin_leaves_the_head", margin_panics),
        ("thresholds_at_exact_multiples_are_exact", edges::exact_thresholds),
    ];
    let trials = |(name, backend): (&str, Backend)| {
        checks.map(|(test, check)| {
            let backend = backend.clone();
            Trial::test(format!("{name}::{test}"), move || check(&backend))
        })
    };
    backends.into_iter().flat_map(trials).collect()
}

/// A check in a thread of its own: one that hangs fails by name.
pub fn watched(context: &Context, check: Check) -> Result<(), Failed> {
    let context = context.clone();
    let thread = std::thread::spawn(move || check(&context));
    let start = Instant::now();
    while !thread.is_finished() {
        if start.elapsed() > Duration::from_secs(180) {
            return Err("it hangs".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub fn shape() -> Shape {
    Shape::new(5, 33, 7).unwrap()
}

pub fn loss() -> MarginSoftmax {
    MarginSoftmax::arcface().with_scale(16.0)
}

/// One tile, which compiles fast: every device here compiles its own.
pub fn options() -> Options {
    Options { tile: Some(Tile::Direct), ..Default::default() }
}

pub fn front(context: &Context, shape: Shape) -> Result<SliceHead> {
    Backend::Gpu(context.clone()).head_with(&loss(), shape, &options())
}

/// An application's device, which the library does not hear of when it goes.
struct Caller {
    context: Context,
    errors: Arc<Mutex<Vec<String>>>,
    lost: Arc<AtomicBool>,
}

impl Caller {
    fn new(context: &Context) -> Result<Self, Failed> {
        let (device, queue) = pollster::block_on(adapter_of(context).request_device(&Default::default()))?;
        let (errors, lost) = (Arc::new(Mutex::new(vec![])), Arc::new(AtomicBool::new(false)));
        let (heard, gone) = (errors.clone(), lost.clone());
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| heard.lock().unwrap().push(e.to_string())));
        device.set_device_lost_callback(move |_, _| gone.store(true, Ordering::Relaxed));
        Ok(Self { context: Context::from_device(&device, &queue)?, errors, lost })
    }
}

/// Runs it inside scopes of the caller's, which see nothing and stay balanced.
pub fn scoped<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> Result<T, Failed> {
    let filters = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal];
    let mut scopes: Vec<_> = filters.into_iter().map(|filter| device.push_error_scope(filter)).collect();
    let done = work();
    while let Some(scope) = scopes.pop() {
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(format!("in the caller's scope: {error}").into());
        }
    }
    Ok(done)
}

/// One of everything on a device.
struct Everything {
    context: Context,
    rig: Rig,
    others: Tensors,
    front: SliceHead,
    targets: shard::Targets,
    statistics: shard::Statistics,
    sampled: SampledHead,
    monitor: monitor::HeadMonitor,
    timing: Option<Timing>,
    first: Output,
}

impl Everything {
    fn new(context: &Context, data: &Data) -> Result<Self> {
        let layout = [shape().classes()];
        let backend = Backend::Gpu(context.clone());
        let soft = data.clone().softened(2, shape().classes());
        let soft_options = Options { soft_labels: Some(2), ..options() };
        let rig = Rig::new(context, &loss(), shape(), &plain(&layout), &soft_options, &soft)?;
        let mut front = front(context, shape())?;
        let first = front.evaluate(&data.batch())?;
        let targets = front.targets(&data.batch())?;
        let statistics = front.statistics(&data.batch(), &targets)?;
        let monitor = monitor::HeadMonitor::new(context, &rig.bound, 8)?;
        let mut sampled = SampledHead::new(&backend, &loss(), shape(), &options(), PartialFc::new(0.5, 1)?)?;
        sampled.train(&data.batch())?;
        let mut timing = Timing::new(context).ok();
        if let Some(timing) = &mut timing {
            timing.span("one")?;
        }
        let others = Tensors::new(context, shape(), &plain(&layout), &soft)?;
        let context = context.clone();
        Ok(Self { context, rig, others, front, targets, statistics, sampled, monitor, timing, first })
    }

    /// The calls that do not end in [`Error::DeviceLost`], with what they end in.
    fn calls(&mut self, data: &Data) -> Vec<String> {
        let mut wrong = vec![];
        macro_rules! lost {
            ($($call:expr),* $(,)?) => {$(
                match $call {
                    Err(Error::DeviceLost(_)) => {}
                    Err(other) => wrong.push(format!("{}: {other:?}", stringify!($call))),
                    Ok(_) => wrong.push(format!("{}: accepted", stringify!($call))),
                }
            )*};
        }
        let Self { context, rig, others, front, targets, statistics, sampled, monitor, timing, first } = self;
        let (device, queue, backend) = (context.device(), context.queue(), Backend::Gpu(context.clone()));
        let (loss, batch, options, layout) = (loss(), data.batch(), options(), [shape().classes()]);
        lost!(Context::from_device(device, queue));
        let plan =
            |loss: &MarginSoftmax| Plan::head(loss, shape(), &plain(&layout), context.limits(), &options).unwrap();
        // kernels that are compiled, and others
        let other = loss.clone().with_others(Others::Rectified);
        lost!(
            Head::new(context, &loss, plan(&loss)),
            Head::new(context, &other, plan(&other)),
            rig.tensors.bind(&rig.head),
            rig.bound.update(&loss, 2),
            rig.bound.set_accumulate(true),
            rig.bound.set_state(&State::new(&loss, shape()).unwrap()),
            rig.bound.read_state(),
            rig.bound.read_counts(),
            pollster::block_on(rig.bound.read_counts_async()),
        );
        let (w, dw) = ([&others.w[0]], [&others.dw[0]]);
        let Tensors { x, y, loss: value, row_losses, log_sum_exps, dx, soft, .. } = &*others;
        let io = Io {
            soft_classes: soft.as_ref().map(|soft| &soft[0]),
            soft_weights: soft.as_ref().map(|soft| &soft[1]),
            row_losses: Some(row_losses),
            log_sum_exps: Some(log_sum_exps),
            grad_embeddings: Some(dx),
            grad_prototypes: &dw,
            ..Io::new(x, &w, y, value)
        };
        lost!(
            rig.bound.rebind(&io),
            Tensor::empty(context, &[4], Element::F32),
            Tensor::upload(context, &[2], &[1.0_f32, 2.0]),
            y.write(context, &data.labels),
            y.read::<i32>(context),
            pollster::block_on(x.read_async::<f32>(context)),
            backend.head_with(&loss, shape(), &options),
            front.update(&loss),
            front.evaluate(&batch),
            pollster::block_on(front.evaluate_async(&batch)),
            front.train(&batch),
            pollster::block_on(front.train_async(&batch)),
            front.targets(&batch),
            front.statistics(&batch, targets),
            front.gradients(&batch, targets, statistics),
            sampled.evaluate(&batch, Classes::Sampled),
            sampled.evaluate(&batch, Classes::All),
            sampled.train(&batch),
            SampledHead::new(&backend, &loss, shape(), &options, PartialFc::new(0.5, 1).unwrap()),
            monitor::HeadMonitor::new(context, &rig.bound, 8),
            monitor.read(),
            monitor::mean_pair_angle(context, &w),
            backend.regularize(&Regularizer::reg_ss(), shape().dim(), &data.prototypes),
        );
        let mut encoder = device.create_command_encoder(&Default::default());
        let e = &mut encoder;
        let center = CenterLoss::default();
        lost!(
            operations::cosine(context, e, x, w[0]),
            operations::margin(context, e, &loss, x, y),
            operations::cross_entropy(context, e, &Default::default(), x, y, None),
            operations::cross_entropy_backward(context, e, &Default::default(), x, y, None, None),
            gpu::gather(context, e, &w, y),
            monitor::mean_prototype(context, e, &w),
            auxiliary::regularize(context, e, &Regularizer::reg_ss(), w[0], dw[0], false),
            auxiliary::center_loss(context, e, &center, x, y, w[0], dx, false),
            auxiliary::update_centers(context, e, &center, x, y, w[0]),
        );
        if let Some(timing) = timing {
            timing.span("one").map(drop).ok(); // its query set is there
            lost!(timing.read());
        }
        // an output that is there stays as it is
        let mut out = first.clone();
        lost!(front.evaluate_into(&batch, &mut out), front.train_into(&batch, &mut out));
        if out != *first {
            wrong.push("the output was touched".into());
        }
        wrong
    }
}

/// Before, between and behind every call: on a device of the caller's, and on one that the library opened.
fn every_call_on_a_lost_device_says_so(context: &Context) -> Result<(), Failed> {
    let data = Data::random(shape(), 3);
    let expected = front(context, shape())?.evaluate(&data.batch())?;
    for own in [false, true] {
        let caller = if own { None } else { Some(Caller::new(context)?) };
        let device = match &caller {
            Some(caller) => caller.context.clone(),
            None => Context::new(context.name().split(" (").next())?,
        };
        let mut all = Everything::new(&device, &data)?;
        // a new context and new heads, after a device that was lost
        same_output(&all.first, &expected)?;
        let (state, sampler) = (*all.front.state(), *all.sampled.sampler());
        let encoder = || device.device().create_command_encoder(&Default::default());
        let mut recorded = encoder();
        all.rig.record(&mut recorded);
        let mut forward = encoder();
        all.rig.bound.record_forward(&mut forward);
        device.queue().submit([forward.finish()]);

        device.device().destroy();
        let wrong = scoped(device.device(), || {
            let mut backward = encoder();
            all.rig.bound.record_backward(&mut backward);
            device.queue().submit([recorded.finish()]);
            let mut wrong = all.calls(&data);
            // its owner polls, and wgpu takes every buffer back
            let _ = device.device().poll(wgpu::PollType::wait_indefinitely());
            wrong.extend(all.calls(&data));
            wrong
        })?;
        assert!(wrong.is_empty(), "own device: {own}\n{}", wrong.join("\n"));
        assert_eq!((*all.front.state(), *all.sampled.sampler()), (state, sampler));
        if let Some(caller) = caller {
            assert_eq!(*caller.errors.lock().unwrap(), [""; 0]);
            assert!(caller.lost.load(Ordering::Relaxed));
        }
    }
    Ok(())
}

/// A device that is busy for a while.
pub fn large() -> Shape {
    Shape::new(64, 5000, 32).unwrap()
}

/// Whatever waits gets its result or the error, never another result.
fn a_device_lost_under_a_readback_is_an_error(context: &Context) -> Result<(), Failed> {
    let data = Data::random(large(), 3);
    let expected = front(context, large())?.evaluate(&data.batch())?;
    let caller = Caller::new(context)?;
    let own = &caller.context;
    let (mut first, mut second) = (front(own, large())?, front(own, large())?);
    let tensor = Tensor::upload(own, &[3], &[1.0_f32, 2.0, 3.0])?;
    let right = |found: Result<Output>| match found {
        Ok(found) => same_output(&found, &expected),
        Err(Error::DeviceLost(_)) => Ok(()),
        Err(other) => Err(format!("{other:?}")),
    };
    let batch = data.batch();
    std::thread::scope(|scope| {
        let blocking = scope.spawn(|| first.evaluate(&data.batch()));
        let mut waiting = Box::pin(second.evaluate_async(&batch));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let early = waiting.as_mut().poll(&mut cx);
        let (sent, go) = std::sync::mpsc::channel();
        let reading = scope.spawn(move || {
            let mut reading = Box::pin(tensor.read_async::<f32>(own));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let early = reading.as_mut().poll(&mut cx);
            sent.send(()).unwrap();
            if let Poll::Ready(read) = early { read } else { pollster::block_on(reading) }
        });
        go.recv().unwrap();
        own.device().destroy();
        right(if let Poll::Ready(out) = early { out } else { pollster::block_on(waiting) })?;
        let read = reading.join().unwrap();
        assert!(matches!(&read, Err(Error::DeviceLost(_))) || read.as_deref() == Ok(&[1.0, 2.0, 3.0]), "{read:?}");
        right(blocking.join().unwrap())
    })?;
    assert!(matches!(first.evaluate(&data.batch()), Err(Error::DeviceLost(_))));
    assert_eq!(*caller.errors.lock().unwrap(), [""; 0]);
    Ok(())
}

/// Tells a process of this binary which adapter to use up.
const CHILD: &str = "MARGIN_SOFTMAX_MEMORY_OF";

/// In a process with a limit on its addresses: buffers are made until there is no more.
fn memory_that_runs_out_comes_back(context: &Context) -> Result<(), Failed> {
    if !cfg!(target_os = "linux") || !context.is_software() {
        return Ok(());
    }
    let name = context.name().split(" (").next().unwrap_or_default().to_owned();
    let output = Command::new(std::env::current_exe()?).env(CHILD, name).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{}: {text}", output.status).into()) }
}

/// Whether this process is such a child; does its work.
pub fn child() -> bool {
    let Ok(adapter) = std::env::var(CHILD) else { return false };
    use_up(&adapter).unwrap();
    true
}

fn use_up(adapter: &str) -> Result<(), Box<dyn std::error::Error>> {
    let context = Context::new(Some(adapter))?;
    let data = Data::random(shape(), 3);
    let mut head = front(&context, shape())?;
    let expected = head.evaluate(&data.batch())?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let used = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.split_whitespace().next()?.parse().ok());
    let limit = (used.unwrap_or(0_u64) << 10) + (512 << 20);
    let own = std::process::id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &own, &format!("--as={limit}")]).status()?;
    assert!(limited.success(), "prlimit: {limited}");
    let mut made = vec![];
    // nothing is written, so a driver that commits late has no pages of it
    let refused = loop {
        match scoped(context.device(), || Tensor::empty(&context, &[32 << 20], Element::F32)).unwrap() {
            Ok(tensor) if made.len() < 64 => made.push(tensor),
            // `mmap` has failed by then, which this driver tells nobody: no error to pass on; small work goes on afterwards
            Ok(tensor) if context.name().contains("Mesa 26") => {
                eprintln!("{}: 8 GiB in 512 MiB of addresses, and no error", context.name());
                drop((made, tensor));
                context.device().poll(wgpu::PollType::wait_indefinitely())?;
                return Ok(same_output(&head.evaluate(&data.batch())?, &expected)?);
            }
            Ok(_) => panic!("8 GiB in 512 MiB of addresses"),
            Err(error) => break error,
        }
    };
    let Error::OutOfMemory(why) = &refused else { panic!("{refused:?}") };
    assert_eq!(refused.to_string(), format!("the device is out of memory: {why}"));
    eprintln!("{adapter}: {} tensors, then: {refused}", made.len());
    // small work goes on, with and without the large tensors
    same_output(&head.evaluate(&data.batch())?, &expected)?;
    drop(made);
    context.device().poll(wgpu::PollType::wait_indefinitely())?;
    // a head of 384 MB of prototypes and as much of gradients: what it has made so far goes again
    for _ in 0..2 {
        let wide = front(&context, Shape::new(2, 1_500_000, 64)?).map(drop);
        assert!(matches!(wide, Err(Error::OutOfMemory(_))), "{wide:?}");
        context.device().poll(wgpu::PollType::wait_indefinitely())?;
    }
    Tensor::empty(&context, &[32 << 20], Element::F32)?;
    same_output(&front(&context, shape())?.evaluate(&data.batch())?, &expected)?;
    Ok(())
}

/// φ(x) = x − 0.1, until it is told to panic.
#[derive(Debug)]
struct Explosive(Arc<AtomicBool>);

impl Explosive {
    fn spark(&self) {
        assert!(!self.0.load(Ordering::Relaxed), "the caller's margin");
    }
}

impl objective::Margin for Explosive {
    fn name(&self) -> &str {
        "explosive"
    }
    fn value_slope(&self, x: f64) -> (f64, f64) {
        self.spark();
        (x - 0.1, 1.0)
    }
    fn wgsl(&self) -> &str {
        "fn margin_target(x: f32) -> ValueSlope { return ValueSlope(x - parameter(0u), 1.0); }"
    }
    fn parameters(&self) -> Vec<f64> {
        self.spark();
        vec![0.1]
    }
}

fn a_panic_of_the_callers_margin_leaves_the_head(context: &Context) -> Result<(), Failed> {
    margin_panics(&Backend::Gpu(context.clone()))
}

fn margin_panics(backend: &Backend) -> Result<(), Failed> {
    let lit = Arc::new(AtomicBool::new(false));
    let target = Target::Custom(objective::Custom::new(Explosive(lit.clone())));
    let loss = MarginSoftmax { target, ..loss() };
    let data = Data::random(shape(), 3);
    let mut head = backend.head_with(&loss, shape(), &options())?;
    let expected = head.evaluate(&data.batch())?;
    let (state, mut out) = (*head.state(), expected.clone());
    lit.store(true, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| head.train_into(&data.batch(), &mut out))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| backend.head_with(&loss, shape(), &options()))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| head.update(&loss))).is_err());
    assert_eq!(*head.state(), state);
    lit.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        same_output(&head.evaluate(&data.batch())?, &expected)?;
    }
    same_output(&backend.head_with(&loss, shape(), &options())?.evaluate(&data.batch())?, &expected)?;
    Ok(())
}

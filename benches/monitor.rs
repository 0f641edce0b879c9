//! The monitor beside a forward pass, on every adapter found: it must cost at most a tenth of it.
//!
//! Wall time of one submit until the device is idle, nothing uploaded or read back. The monitor's report is checked against
//! the f64 reference first, and no first dispatch is timed. The ratio is printed from alternating rounds, since on a shared
//! machine only those mean anything.

use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use margin_softmax::{
    Batch, MarginSoftmax, Options, Shape, Want,
    gpu::{BoundHead, Context, Head, Io, Tensor, monitor::HeadMonitor},
    monitor::Monitor,
    plan::{Element, Layout, Plan},
    reference,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BINS: usize = 90;

struct Rig {
    context: Context,
    bound: BoundHead,
    monitor: HeadMonitor,
}

impl Rig {
    fn new(context: &Context, [n, c, d]: [usize; 3]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut values = |count| -> Vec<f32> { (0..count).map(|_| rng.random::<f32>() - 0.5).collect() };
        let (x, w) = (values(n * d), values(c * d));
        let labels: Vec<i32> = (0..n).map(|_| rng.random_range(0..c as i32)).collect();
        let (loss, shape) = (MarginSoftmax::arcface(), Shape::new(n, c, d).unwrap());
        let layout = Layout { shards: &[c], embeddings: Element::F32, prototypes: Element::F32 };
        let options = Options { want: Want::LOSS, ..Options::default() };
        let plan = Plan::head(&loss, shape, &layout, context.limits(), &options).unwrap();
        let head = Head::new(context, &loss, plan).unwrap();
        let (tx, tw) = (Tensor::upload(context, &[n, d], &x).unwrap(), Tensor::upload(context, &[c, d], &w).unwrap());
        let (ty, out) =
            (Tensor::upload(context, &[n], &labels).unwrap(), Tensor::empty(context, &[1], Element::F32).unwrap());
        let io = Io {
            embeddings: &tx,
            prototypes: &[&tw],
            labels: &ty,
            class_weights: None,
            upstream: None,
            loss: &out,
            row_losses: None,
            grad_embeddings: None,
            grad_prototypes: &[],
        };
        let bound = head.bind(&io).unwrap();
        let monitor = HeadMonitor::new(context, &bound, BINS).unwrap();
        let rig = Self { context: context.clone(), bound, monitor };
        rig.submit(true);

        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (x, w) = (wide(&x), wide(&w));
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Batch::default() };
        let mut expected = Monitor::new(BINS).unwrap();
        let output = reference::evaluate(&loss, shape, Want::LOSS, &batch).unwrap();
        expected.add(&output, &labels, None).unwrap();
        let (found, expected) = (rig.monitor.read().unwrap().report(), expected.report());
        assert_eq!(found.rows, expected.rows);
        assert!((found.intra_angle - expected.intra_angle).abs() < 1e-5, "{found:?} {expected:?}");
        assert!((found.inter_angle - expected.inter_angle).abs() < 1e-5, "{found:?} {expected:?}");
        rig
    }

    fn submit(&self, monitored: bool) {
        let mut encoder = self.context.device().create_command_encoder(&Default::default());
        self.bound.record_forward(&mut encoder);
        if monitored {
            self.monitor.record(&mut encoder);
        }
        self.context.queue().submit([encoder.finish()]);
        self.context.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    }

    /// Medians of forward and of forward and monitor, in milliseconds.
    fn alternating(&self) -> [f64; 2] {
        let start = Instant::now();
        self.submit(true);
        // a few seconds, or three rounds
        let rounds = (2.0 / start.elapsed().as_secs_f64()).clamp(3.0, 101.0) as usize;
        let mut times = [vec![], vec![]];
        for _ in 0..rounds {
            for (monitored, times) in [false, true].into_iter().zip(&mut times) {
                let start = Instant::now();
                self.submit(monitored);
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        times.map(|mut t| {
            t.sort_by(f64::total_cmp);
            t[rounds / 2]
        })
    }
}

fn monitor(c: &mut Criterion) {
    let contexts = Context::all();
    if contexts.is_empty() {
        println!("nothing to measure: no adapter answers");
    }
    for context in contexts {
        for sizes in [[64, 1000, 128], [256, 5994, 192]] {
            let id = format!("{}x{}x{} monitor", sizes[0], sizes[1], sizes[2]);
            let rig = Rig::new(&context, sizes);
            let mut group = c.benchmark_group(&id);
            group.sample_size(20);
            group.bench_function(format!("{} forward", context.name()), |b| b.iter(|| rig.submit(false)));
            group.bench_function(format!("{} forward + monitor", context.name()), |b| b.iter(|| rig.submit(true)));
            group.finish();
            let [forward, both] = rig.alternating();
            println!(
                "{id}, {}: forward {forward:.3} ms, with the monitor {both:.3} ms: {:+.1} %",
                context.name(),
                (both / forward - 1.0) * 100.0
            );
        }
    }
}

criterion_group!(benches, monitor);
criterion_main!(benches);

//! The whole head: reference, CPU and GPU at one small shape; the CPU path at two large ones, keep and recompute.
//!
//! Wall time, inputs and outputs as slices. Each head is checked against the f64 reference before it is timed, and called
//! once more, so that no first dispatch, page fault or thread start is measured.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use margin_softmax::{Backend, Batch, Budget, MarginSoftmax, Options, Output, Shape, SliceHead, Want};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Data {
    shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    labels: Vec<i64>,
}

impl Data {
    fn new(rows: usize, classes: usize, dim: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut values = |count| -> Vec<f32> { (0..count).map(|_| rng.random::<f32>() - 0.5).collect() };
        let (x, w) = (values(rows * dim), values(classes * dim));
        let labels = (0..rows).map(|_| rng.random_range(0..classes as i64)).collect();
        Self { shape: Shape::new(rows, classes, dim).unwrap(), x, w, labels }
    }

    /// The first rows as a batch.
    fn batch(&self, rows: usize) -> Batch<'_> {
        Batch {
            embeddings: &self.x[..rows * self.shape.dim()],
            prototypes: &self.w,
            labels: &self.labels[..rows],
            ..Batch::default()
        }
    }

    /// A head on this backend, warm and correct.
    fn head(&self, backend: &Backend, options: &Options) -> SliceHead {
        let loss = MarginSoftmax::arcface();
        let mut head = backend.head_with(&loss, self.shape, options).unwrap();
        // the reference takes seconds for all rows of a large shape: four show every layout of the products
        let rows = self.shape.rows().min(4);
        let found = head.evaluate(&self.batch(rows)).unwrap();
        let mut reference = Backend::reference().head_with(&loss, self.shape, options).unwrap();
        let expected = reference.evaluate(&self.batch(rows)).unwrap();
        let (own, all) = (format!("{} (4 rows)", backend.name()), format!("{} (all rows)", backend.name()));
        agree(&own, &found, &expected);
        let found = head.evaluate(&self.batch(self.shape.rows())).unwrap();
        if self.shape.prototypes().unwrap() * self.shape.rows() < 100_000_000 {
            agree(&all, &found, &reference.evaluate(&self.batch(self.shape.rows())).unwrap());
        }
        head
    }
}

/// 1e-4 of the largest value: several times the gate at scale 64, and still no wrong formula passes.
fn agree(name: &str, found: &Output, expected: &Output) {
    let pairs = [
        ("row losses", &found.row_losses, &expected.row_losses),
        ("dX", &found.grad_embeddings, &expected.grad_embeddings),
        ("dW", &found.grad_prototypes, &expected.grad_prototypes),
    ];
    for (what, found, expected) in pairs {
        assert_eq!(found.len(), expected.len(), "{name}: {what}");
        let largest = expected.iter().fold(0.0_f32, |m, e| m.max(e.abs()));
        let off = found.iter().zip(expected).fold(0.0_f32, |m, (f, e)| m.max((f - e).abs()));
        assert!(expected.is_empty() || off <= 1e-4 * largest, "{name}: {what} is off by {off:e} of {largest:e}");
    }
}

/// Times whole calls into one output.
fn time(c: &mut Criterion, group: &str, id: String, data: &Data, backend: &Backend, options: &Options) {
    let mut head = data.head(backend, options);
    let batch = data.batch(data.shape.rows());
    let mut out = head.evaluate(&batch).unwrap();
    let mut group = c.benchmark_group(group);
    group.sample_size(20).throughput(Throughput::Elements(data.shape.rows() as u64));
    group.bench_function(id, |b| {
        b.iter_batched(|| (), |()| head.evaluate_into(&batch, &mut out).unwrap(), BatchSize::PerIteration);
    });
    group.finish();
}

/// Everything that can compute a head, in one group.
fn backends(c: &mut Criterion) {
    let data = Data::new(64, 1000, 128);
    let mut all = vec![Backend::reference(), Backend::cpu()];
    gpu(&mut all);
    for backend in all {
        for (what, want) in [("forward", Want::LOSS), ("forward+backward", Want::ALL)] {
            let options = Options { want, ..Options::default() };
            time(c, &format!("64x1000x128 {what}"), backend.name(), &data, &backend, &options);
        }
    }
}

#[cfg(feature = "gpu")]
fn gpu(all: &mut Vec<Backend>) {
    let contexts = margin_softmax::gpu::Context::all();
    if contexts.is_empty() {
        println!("no GPU rows: no adapter answers");
    }
    all.extend(contexts.into_iter().map(Backend::Gpu));
}

#[cfg(not(feature = "gpu"))]
fn gpu(_: &mut Vec<Backend>) {
    println!("no GPU rows: built without the feature `gpu`");
}

/// The CPU path where the products decide.
fn large(c: &mut Criterion) {
    for (rows, classes, dim) in [(256, 5994, 192), (512, 20_000, 512)] {
        let data = Data::new(rows, classes, dim);
        let group = |what: &str| format!("{rows}x{classes}x{dim} {what}");
        let backend = Backend::cpu();
        let forward = Options { want: Want::LOSS, ..Options::default() };
        time(c, &group("forward"), backend.name(), &data, &backend, &forward);
        // one byte less than all cosines take
        let less = Budget::bytes((rows * classes * 4) as u64 - 1);
        for (schedule, budget) in [("keep", Budget::mib(256)), ("recompute", less)] {
            let options = Options { budget, ..Options::default() };
            time(c, &group("forward+backward"), format!("{} {schedule}", backend.name()), &data, &backend, &options);
        }
    }
}

criterion_group!(benches, backends, large);
criterion_main!(benches);

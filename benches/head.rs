//! The whole head: reference, CPU and GPU at one small shape, four losses; the CPU path at two large ones, keep and recompute.
//!
//! Wall time, inputs and outputs as slices. Each head is checked against the f64 reference before it is timed, and called
//! once more, so that no first dispatch, page fault or thread start is measured.

use std::time::Duration;

use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use margin_softmax::{Backend, Budget, MarginSoftmax, Options, SliceHead, Want};

#[path = "common/data.rs"]
mod data;

use data::{Data, disagreement};

/// A head on this backend, warm and correct.
fn head(data: &Data, backend: &Backend, loss: &MarginSoftmax, options: &Options) -> SliceHead {
    let mut head = backend.head_with(loss, data.shape, options).unwrap();
    let mut reference = Backend::reference().head_with(loss, data.shape, options).unwrap();
    let mut agree = |rows| {
        let (found, expected) =
            (head.evaluate(&data.first(rows)).unwrap(), reference.evaluate(&data.first(rows)).unwrap());
        let off = disagreement(&found, &expected);
        assert_eq!(off, None, "{}, {rows} rows", backend.name());
    };
    // the reference takes seconds for all rows of a large shape: four show every layout of the products
    agree(data.shape.rows().min(4));
    if data.shape.prototypes().unwrap() * data.shape.rows() < 100_000_000 {
        agree(data.shape.rows());
    } else {
        head.evaluate(&data.batch()).unwrap();
    }
    head
}

/// Times whole calls into one output.
fn time(group: &mut BenchmarkGroup<'_, WallTime>, id: String, data: &Data, mut head: SliceHead) {
    let batch = data.batch();
    let mut out = head.evaluate(&batch).unwrap();
    group.sample_size(20).throughput(Throughput::Elements(data.shape.rows() as u64));
    group.bench_function(id, |b| {
        b.iter_batched(|| (), |()| head.evaluate_into(&batch, &mut out).unwrap(), BatchSize::PerIteration);
    });
}

/// Everything that can compute a head, in one group of each loss.
fn backends(c: &mut Criterion) {
    let data = Data::new([64, 1000, 128], |v| v);
    let mut all = vec![Backend::reference(), Backend::cpu()];
    gpu(&mut all);
    for (what, want) in [("forward", Want::LOSS), ("forward+backward", Want::ALL)] {
        let mut group = c.benchmark_group(format!("64x1000x128 {what}"));
        for backend in &all {
            let options = Options { want, ..Options::default() };
            time(&mut group, backend.name(), &data, head(&data, backend, &MarginSoftmax::arcface(), &options));
        }
    }
    // a series as the slope, the angle as the logit, other classes that are rectified: shorter, for there are many rows
    for (name, preset) in [("ChebyAAM", "chebyaam"), ("ArcGrad", "arcgrad"), ("WC-ReLU", "ampface_rectified")] {
        let loss = MarginSoftmax::named(preset).unwrap();
        let mut group = c.benchmark_group(format!("64x1000x128 {name} forward+backward"));
        group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        for backend in &all {
            time(&mut group, backend.name(), &data, head(&data, backend, &loss, &Options::default()));
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
    let (backend, loss) = (Backend::cpu(), MarginSoftmax::arcface());
    for (rows, classes, dim) in [(256, 5994, 192), (512, 20_000, 512)] {
        let data = Data::new([rows, classes, dim], |v| v);
        let mut group = c.benchmark_group(format!("{rows}x{classes}x{dim} forward"));
        let options = Options { want: Want::LOSS, ..Options::default() };
        time(&mut group, backend.name(), &data, head(&data, &backend, &loss, &options));
        group.finish();
        let mut group = c.benchmark_group(format!("{rows}x{classes}x{dim} forward+backward"));
        // one byte less than all cosines take
        let less = Budget::bytes((rows * classes * 4) as u64 - 1);
        for (schedule, budget) in [("keep", Budget::mib(256)), ("recompute", less)] {
            let head = head(&data, &backend, &loss, &Options { budget, ..Options::default() });
            time(&mut group, format!("{} {schedule}", backend.name()), &data, head);
        }
    }
}

criterion_group!(benches, backends, large);
criterion_main!(benches);

//! The CPU path's memory, counted by the allocator: never above the budget, and nothing grows from call to call.
#![cfg(feature = "cpu")]

mod heap;

use std::sync::{Mutex, OnceLock, atomic::Ordering::SeqCst};

use heap::{CALLS, LIVE, PEAK};
use margin_softmax::{
    Backend, Batch, Budget, Error, MarginSoftmax, Margins, Options, Others, Output, Shape, Similarity, SliceHead, Want,
    data::Inputs,
};

/// One test at a time: the numbers belong to the process.
static TURN: Mutex<()> = Mutex::new(());

/// Peak bytes above what is live now.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = LIVE.load(SeqCst);
    PEAK.store(before, SeqCst);
    work();
    PEAK.load(SeqCst) - before
}

/// Peak bytes of making a head and calling it, and how many more bytes are live after three further calls.
fn used_by(
    pool: &rayon::ThreadPool,
    make: impl FnOnce() -> SliceHead + Send,
    mut call: impl FnMut(&mut SliceHead) + Send,
) -> (usize, usize) {
    let mut grown = 0;
    let peak = peak_of(|| {
        pool.install(|| {
            let mut head = make();
            call(&mut head);
            let live = LIVE.load(SeqCst);
            (0..3).for_each(|_| call(&mut head));
            grown = LIVE.load(SeqCst).saturating_sub(live);
        });
    });
    (peak, grown)
}

/// Within the budget, above `least` where there is one, and nothing more after further calls.
fn stays(name: &str, (peak, grown): (usize, usize), budget: u64, least: Option<u64>) {
    assert!(peak as u64 <= budget, "{name}: {peak} bytes, the budget is {budget}");
    assert!(grown < 1000, "{name}: {grown} bytes more after three more calls");
    assert!(least.is_none_or(|least| peak as u64 > least), "{name}: {budget} asked for, {peak} bytes used");
}

/// Results that need no allocation.
fn with_room(rows: usize, prototypes: usize, dim: usize) -> Output {
    let floats = Vec::with_capacity;
    Output {
        row_losses: floats(rows),
        log_sum_exps: floats(rows),
        target_cosines: floats(rows),
        other_cosines: floats(rows),
        grad_embeddings: floats(rows * dim),
        grad_prototypes: floats(prototypes * dim),
        ..Output::default()
    }
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + i / 13) % 2003) as f32 / 1000.0 - 1.0).collect()
}

fn options(bytes: u64, want: Want) -> Options {
    Options { budget: Budget::bytes(bytes), want, ..Options::default() }
}

/// What a refused budget says would be enough.
fn least(shape: Shape, want: Want) -> u64 {
    least_of(&MarginSoftmax::arcface(), shape, want)
}

/// The same for a loss that may need more.
fn least_of(loss: &MarginSoftmax, shape: Shape, want: Want) -> u64 {
    match Backend::cpu().head_with(loss, shape, &options(0, want)).err() {
        Some(Error::Budget { needed, .. }) => needed,
        other => panic!("{other:?}"),
    }
}

/// Two threads whose `gemm` has its block of the size of the L2 cache already: it belongs to the thread, not to a head.
/// They never end, since a thread gives its memory back at a moment of its own.
fn pool() -> &'static rayon::ThreadPool {
    static POOL: OnceLock<rayon::ThreadPool> = OnceLock::new();
    POOL.get_or_init(|| new_pool(2))
}

fn new_pool(threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let (x, w) = (numbers(32 * 64), numbers(128 * 64));
    pool.broadcast(|_| {
        // small enough to stay on this thread
        let mut head = Backend::cpu().head(&MarginSoftmax::arcface(), Shape::new(32, 128, 64).unwrap()).unwrap();
        head.evaluate(&Batch { embeddings: &x, prototypes: &w, labels: &[1; 32], ..Batch::default() }).unwrap();
    });
    pool
}

/// Half types are read as they are stored: a call holds a tile of f32 prototypes a worker beside what it holds for f32.
#[test]
fn half_types_are_never_widened_whole() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let (rows, classes, dim) = (64, 20_000, 64);
    let [x, w] = [rows, classes].map(|count| numbers(count * dim));
    let [half_x, half_w] = [&x, &w].map(|v| v.iter().map(|&v| half::f16::from_f32(v)).collect::<Vec<_>>());
    let labels: Vec<i64> = (0..rows).map(|i| (i * 31) as i64).collect();
    let rest = Batch { labels: &labels, ..Batch::default() };
    let shape = Shape::new(rows, classes, dim).unwrap();
    for budget in [least(shape, Want::LOSS), 64 << 20] {
        let make = || Backend::cpu().head_with(&MarginSoftmax::arcface(), shape, &options(budget, Want::LOSS)).unwrap();
        let (peak, grown) = used_by(pool(), make, |head| {
            head.evaluate_stored(&half_x, &half_w, &rest).unwrap();
        });
        let (plain, _) = used_by(pool(), make, |head| {
            head.evaluate(&Batch { embeddings: &x, prototypes: &w, ..rest }).unwrap();
        });
        // tiles have at most 512 prototypes, ranges at most one worker here for each of two threads
        let tiles = 64 * 512 * dim * 4;
        assert!(peak < plain + tiles.min(classes * dim * 4 / 2), "{peak} bytes, {plain} with f32");
        assert!(grown < 1000, "{grown} bytes more after three more calls");
    }
}

/// Everything beside inputs and outputs, at every moment of making a head and using it, in every schedule.
#[test]
fn the_workspace_stays_within_the_budget() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let pool = pool();
    for (rows, classes, dim) in [(256, 4000, 48), (600, 1200, 40), (4, 30_000, 16), (64, 1500, 600), (3, 5, 2)] {
        let (x, w) = (numbers(rows * dim), numbers(classes * dim));
        let labels: Vec<i64> = (0..rows).map(|i| (i * 31 % classes) as i64).collect();
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Batch::default() };
        let shape = Shape::new(rows, classes, dim).unwrap();
        for want in [Want::LOSS, Want::ALL] {
            let smallest = least(shape, want);
            let cosines = (rows * classes * 4) as u64;
            for budget in [smallest, 2 * smallest, (cosines - 1).max(smallest), cosines + 4 * smallest, 256 << 20] {
                for others in &[Others::Identity, Others::Rectified] {
                    let loss = MarginSoftmax::arcface().with_others(others.clone()).with_label_smoothing(0.1);
                    let mut out = with_room(rows, classes, dim);
                    let used = used_by(
                        pool,
                        || Backend::cpu().head_with(&loss, shape, &options(budget, want)).unwrap(),
                        |head| {
                            head.evaluate_into(&batch, &mut out).unwrap();
                        },
                    );
                    let name = format!("{rows}x{classes}x{dim} {want:?} {}", others.name());
                    // a third of the least workspace is used
                    stays(&name, used, budget, (budget == smallest && rows >= 64).then_some(budget / 3));
                }
            }
        }
    }
}

/// The same for every family, while it trains and with margins of the rows where it takes them.
#[test]
fn the_workspace_of_every_family_stays_within_the_budget() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let pool = pool();
    let want = Want::ALL.with_scale().with_bias();
    for (name, centers) in [
        ("normface", 3),
        ("softmax", 1),
        ("chebyaam_fit", 1),
        ("arcgrad_series", 2),
        ("curricularface", 1),
        ("adaface", 1),
        ("magface", 2),
        ("elasticface_arc_plus", 1),
        ("sphereface2", 3),
        ("adacos", 1),
        ("arcface_topk", 1),
        ("arcface_topk", 2),
    ] {
        let loss = MarginSoftmax::named(name).unwrap();
        for (rows, classes, dim) in [(1025, 400, 24), (64, 6000, 16), (6, 5, 2)] {
            if name == "arcface_topk" && classes == 5 {
                continue;
            }
            let shape = Shape::new(rows, classes, dim).unwrap().with_sub_centers(centers).unwrap();
            let (x, w) = (numbers(rows * dim), numbers(classes * centers * dim));
            let labels: Vec<i64> = (0..rows).map(|i| (i * 31 % classes) as i64).collect();
            let (bias, margins) = (vec![0.1; classes], vec![0.2; rows]);
            let linear = loss.similarity == Similarity::Dot;
            let row_margins = match loss.target.name() {
                "unified" => Margins { m0: Some(&margins), ..Margins::NONE },
                _ => Margins::NONE,
            };
            let bias = linear.then_some(&bias[..]);
            let batch =
                Batch { embeddings: &x, prototypes: &w, labels: &labels, row_margins, bias, ..Batch::default() };
            let smallest = least_of(&loss, shape, want);
            let cosines = (rows * classes * centers * 4) as u64;
            for budget in [smallest, 2 * smallest, (cosines - 1).max(smallest), cosines + 4 * smallest] {
                let grad_bias = Vec::with_capacity(classes);
                let mut out = Output { grad_bias, ..with_room(rows, classes * centers, dim) };
                let used = used_by(
                    pool,
                    || Backend::cpu().head_with(&loss, shape, &options(budget, want)).unwrap(),
                    |head| {
                        head.train_into(&batch, &mut out).unwrap();
                    },
                );
                let name = format!("{name} K {centers} {rows}x{classes}x{dim}");
                // counted is a product over a whole tile; with sub-centers dW takes several smaller ones
                stays(&name, used, budget, (budget == smallest && rows >= 64).then_some(budget / 4));
            }
        }
    }
}

/// With the smallest workspace the number of classes does not matter, beyond the tens of thousands from which on dX has a sum in
/// f64.
#[test]
fn nothing_grows_with_rows_times_classes() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let needed = |classes| least(Shape::new(512, classes, 128).unwrap(), Want::ALL);
    assert_eq!(needed(100_000), needed(100_000_000));
    assert_eq!(needed(100_000), needed(1000) + 512 * 128 * 8);
    assert!(needed(1000) < 512 * 1000 * 4);
}

/// The same on 64 threads, where blocks of rows and dX are divided; with just too little room for that they are not.
#[test]
fn many_workers_stay_within_the_budget() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    static POOL: OnceLock<rayon::ThreadPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| new_pool(64));
    let (rows, classes, dim) = (320, 3001, 96);
    let (x, w) = (numbers(rows * dim), numbers(classes * dim));
    let labels: Vec<i64> = (0..rows).map(|i| (i * 31 % classes) as i64).collect();
    let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Batch::default() };
    let (shape, loss) = (Shape::new(rows, classes, dim).unwrap(), MarginSoftmax::arcface());
    let cosines = (rows * classes * 4) as u64;
    for want in [Want::LOSS, Want::ALL] {
        for budget in [2 * least(shape, want), cosines + (1 << 20), cosines + (4 << 20), 256 << 20] {
            let mut out = with_room(rows, classes, dim);
            let used = used_by(
                pool,
                || Backend::cpu().head_with(&loss, shape, &options(budget, want)).unwrap(),
                |head| {
                    head.evaluate_into(&batch, &mut out).unwrap();
                },
            );
            stays(&format!("{want:?} on 64 threads"), used, budget, None);
        }
    }
}

/// What is kept costs a tenth more than the cosines themselves at two shapes of speech and face recognition and one with many
/// classes, and without it a twentieth of what PyTorch takes (three times the cosines) is enough.
#[test]
fn large_heads_fit_small_budgets() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let pool = pool();
    for (rows, classes, dim, kept, recomputed) in
        [(256, 5994, 192, 1.1, 0.15), (512, 20_000, 512, 1.1, 0.15), (256, 96_000, 128, 1.1, 0.01)]
    {
        let (x, w) = (numbers(rows * dim), numbers(classes * dim));
        let labels: Vec<i64> = (0..rows).map(|i| (i * 31 % classes) as i64).collect();
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Batch::default() };
        let shape = Shape::new(rows, classes, dim).unwrap();
        let cosines = (rows * classes * 4) as u64;
        for budget in [kept, recomputed].map(|part| (part * cosines as f64) as u64) {
            let mut out = with_room(rows, classes, dim);
            let peak = peak_of(|| {
                pool.install(|| {
                    let loss = MarginSoftmax::arcface();
                    let mut head = Backend::cpu().head_with(&loss, shape, &options(budget, Want::ALL)).unwrap();
                    head.evaluate_into(&batch, &mut out).unwrap();
                });
            }) as u64;
            let name = format!("{rows}x{classes}x{dim}: {peak} bytes of {budget}");
            assert!(peak <= budget, "{name}");
            // whoever keeps the cosines holds more than they take
            assert_eq!(peak > cosines, budget > cosines, "{name}");
        }
    }
}

/// A refused budget and a new loss cost no memory.
#[test]
fn nothing_is_allocated_for_a_refusal_or_an_update() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let shape = Shape::new(512, 5000, 128).unwrap();
    let refused =
        peak_of(|| drop(Backend::cpu().head_with(&MarginSoftmax::arcface(), shape, &options(100_000, Want::ALL))));
    assert!(refused < 10_000, "{refused} bytes for a refusal");

    let mut head = Backend::cpu().head(&MarginSoftmax::arcface(), shape).unwrap();
    let losses = [MarginSoftmax::cosface(), MarginSoftmax::cheby_aam().with_others(Others::Rectified)];
    let calls = CALLS.load(SeqCst);
    for i in 0..1000 {
        head.update(&losses[i % 2]).unwrap();
    }
    // the test harness may speak up meanwhile, but not a thousand times
    assert!(CALLS.load(SeqCst) - calls < 100, "an update allocates");
}

/// Predictions, within what a refused budget says is enough and with the default, on their own and from a step.
#[test]
fn predictions_stay_within_the_budget() {
    let _turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let pool = pool();
    for (rows, classes, dim, count) in [(300, 4000, 48, 10), (1024, 60_000, 16, 64), (5, 20_000, 16, 64)] {
        let (x, w) = (numbers(rows * dim), numbers(classes * dim));
        let (shape, loss) = (Shape::new(rows, classes, dim).unwrap(), MarginSoftmax::arcface());
        let inputs = Inputs::new(&x, &w);
        let predictor = |bytes| Backend::cpu().predictor(&loss, shape, count, &options(bytes, Want::LOSS));
        let Some(Error::Budget { needed, .. }) = predictor(0).err() else { panic!("a predictor needs memory") };
        assert!(needed < (rows * classes) as u64, "{needed} bytes for {rows}x{classes}");
        let mut out = predictor(256 << 20).unwrap().predict(&inputs).unwrap();
        for budget in [needed, 4 * needed, 256 << 20] {
            let peak = peak_of(|| {
                pool.install(|| predictor(budget).unwrap().predict_into(&inputs, &mut out).unwrap());
            });
            assert!(peak as u64 <= budget, "{rows}x{classes}x{dim}: {peak} bytes, the budget is {budget}");
        }
        let labels: Vec<i64> = (0..rows).map(|i| (i * 31 % classes) as i64).collect();
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Batch::default() };
        let step = |bytes| Options { predictions: Some(count), ..options(bytes, Want::ALL) };
        let Some(Error::Budget { needed, .. }) = Backend::cpu().head_with(&loss, shape, &step(0)).err() else {
            panic!("a head needs memory")
        };
        for budget in [needed, 256 << 20] {
            let mut out = Output { predictions: Some(out.clone()), ..with_room(rows, classes, dim) };
            let used = used_by(
                pool,
                || Backend::cpu().head_with(&loss, shape, &step(budget)).unwrap(),
                |head| head.evaluate_into(&batch, &mut out).unwrap(),
            );
            stays(&format!("{rows}x{classes}x{dim} with predictions"), used, budget, None);
        }
    }
}

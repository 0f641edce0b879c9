//! The same bits on any number of threads, call after call, whatever else runs.
//!
//! Within one budget: another one may cut the sums elsewhere, and then agrees to rounding.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use margin_softmax::{
    Backend, Batch, Budget, CenterLoss, MarginSoftmax, Options, Output, Regularizer, SliceHead, State, Want,
    data::GradientFilter,
    objective::PRESETS,
    shard::{Statistics, Targets},
};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    common::{Data, WANT, schedules_of},
    families::{Suite, with_centers},
};

/// Pools of 1, 2, 3 and 8 threads.
fn pools() -> &'static [ThreadPool] {
    static POOLS: OnceLock<Vec<ThreadPool>> = OnceLock::new();
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    POOLS.get_or_init(|| [1, 2, 3, 8].map(pool).into())
}

/// Reruns on each pool: twenty in all.
const RERUNS: usize = 5;

/// Every number of an output, NaN included.
fn bits(out: &Output) -> Vec<u64> {
    let parts = [&out.row_losses, &out.target_cosines, &out.other_cosines, &out.grad_embeddings, &out.grad_prototypes];
    let all = parts.into_iter().chain([&out.grad_bias]).flatten().chain([&out.loss, &out.grad_scale]);
    let filtered = out.filtered.unwrap_or_default();
    let further = [filtered.dropped, filtered.total].map(|v| v.to_bits().into());
    let counts = [filtered.kept, filtered.entries, out.counts.rows as u64, out.counts.non_finite_rows as u64];
    all.map(|v| v.to_bits().into()).chain(further).chain(counts).collect()
}

/// A training step from a state.
fn step(head: &mut SliceHead, data: &Data, state: &State, out: &mut Output) -> (Vec<u64>, State) {
    head.set_state(state).unwrap();
    head.train_into(&data.batch(), out).unwrap();
    (bits(out), *head.state())
}

/// Families with their data: several tiles of classes, more than one block of rows for the last, a NaN and a zero row.
fn cases() -> Vec<(String, MarginSoftmax, Data, Option<f64>)> {
    let mut losses: Vec<(String, MarginSoftmax, usize)> =
        with_centers(Suite::Cpu).into_iter().map(|(family, k)| (family.name.to_owned(), family.loss, k)).collect();
    if std::env::var("MARGIN_SOFTMAX_FULL").is_ok_and(|v| v == "1") {
        losses.extend(PRESETS.iter().map(|preset| (preset.name.to_owned(), preset.loss(), 1)));
    }
    let mut all = vec![];
    for (i, (name, loss, centers)) in losses.into_iter().enumerate() {
        let mut data = Data::random(40, 700, 20, 98).fit(&loss).weighted();
        if centers > 1 {
            data = data.with_centers(centers, 99);
        }
        data.x[20] = f32::NAN;
        data.x[60..80].fill(0.0);
        // small entries are left out, more and less of them
        let filter = [None, None, Some(1e-5), Some(1e-3)][i % 4];
        all.push((format!("{name} K {centers} filter {filter:?}"), loss, data, filter));
    }
    let blocks = Data::random(1100, 150, 12, 12);
    all.push(("blocks of rows".into(), MarginSoftmax::arcface().with_label_smoothing(0.1), blocks, None));
    all
}

/// *keep*, several budgets below it, and the least.
fn budgets(loss: &MarginSoftmax, data: &Data, filter: Option<f64>) -> Vec<(String, Options)> {
    let filter = filter.map(|epsilon| GradientFilter::new(epsilon).unwrap());
    let mut all: Vec<(String, Options)> =
        schedules_of(loss, data, WANT).into_iter().map(|(name, options)| (name.to_owned(), options)).collect();
    let least = all[2].1;
    for times in [2, 4] {
        let budget = Budget::bytes(times * least.budget.get());
        all.push((format!("{times} times the least"), Options { budget, ..least }));
    }
    // a filter needs some room for its lists
    let roomier = |o: Options| if filter.is_some() { Budget::bytes(2 * o.budget.get()) } else { o.budget };
    all.into_iter().map(|(name, options)| (name, Options { filter, budget: roomier(options), ..options })).collect()
}

/// In every budget, for every family while it trains: one head per pool, used again and again.
#[test]
fn threads_and_reruns_change_no_bit() {
    for (name, loss, data, filter) in cases() {
        let state = State::new(&loss, data.shape()).unwrap().with_seed(3);
        for (budget, options) in budgets(&loss, &data, filter) {
            let mut first = None;
            for pool in pools() {
                pool.install(|| {
                    let mut head = data.head(&loss, &options, &state);
                    let mut out = Output::default();
                    for _ in 0..RERUNS {
                        let again = step(&mut head, &data, &state, &mut out);
                        let same = again == *first.get_or_insert_with(|| again.clone());
                        assert!(same, "{name}, {budget}: other bits on {} threads", pool.current_num_threads());
                    }
                });
            }
        }
    }
}

/// Where a call divides blocks of rows and dX for many threads: a last tile of few classes, a row behind 128 others, prototypes
/// that are too long or too short to enter the products as they are, more rows than a block, several prototypes a class.
#[test]
fn a_finer_division_changes_no_bit() {
    let pools = [1, 5, 24, 64].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    let (arcface, sub_centers) = (MarginSoftmax::arcface(), MarginSoftmax::arcface());
    let cases = [
        (Data::random(320, 2049, 40, 1), &arcface, "one class behind"),
        (Data::random(129, 2306, 96, 2), &MarginSoftmax::cosface().with_label_smoothing(0.1), "a row behind"),
        (Data::random(193, 2051, 67, 3), &MarginSoftmax::named("curricularface").unwrap(), "65 rows behind"),
        (Data::random(700, 1300, 33, 4), &MarginSoftmax::named("adacos").unwrap(), "blocks of rows"),
        (Data::random(300, 700, 40, 5).with_centers(3, 6), &sub_centers, "sub-centers"),
        (Data::random(300, 1028, 64, 7), &MarginSoftmax::named("softmax").unwrap(), "linear"),
    ];
    for ((data, loss, name), extreme) in cases.into_iter().flat_map(|case| [(case.clone(), false), (case, true)]) {
        let mut data = data.fit(loss);
        let dim = data.shape[2];
        if extreme {
            for (prototype, size) in data.w.chunks_mut(dim).step_by(301).zip([1e-9, 1e12, 1e-20].into_iter().cycle()) {
                prototype.iter_mut().for_each(|v| *v *= size);
            }
        }
        let state = State::new(loss, data.shape()).unwrap();
        let wants = [WANT, Want::LOSS, Want::EMBEDDINGS];
        let options = wants.map(|want| Options { want, ..Options::default() });
        let cosines = (data.x.len() / dim * (data.w.len() / dim) * 4) as u64;
        let recompute = Options { budget: Budget::bytes(cosines - 1), ..options[0] };
        for options in options.into_iter().chain([recompute]) {
            let mut first = None;
            for pool in &pools {
                let again = pool.install(|| {
                    let mut head = data.head(loss, &options, &state);
                    step(&mut head, &data, &state, &mut Output::default())
                });
                let same = again == *first.get_or_insert_with(|| again.clone());
                let (threads, want) = (pool.current_num_threads(), options.want);
                assert!(same, "{name}, extreme lengths {extreme}, {want:?}: other bits on {threads} threads");
            }
        }
    }
}

/// Busy cores, another head at work in the same pool, another batch and another loss in between.
#[test]
fn load_and_other_batches_change_no_bit() {
    let done = AtomicBool::new(false);
    let busy = Data::random(60, 900, 24, 5);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut x = 1.0_f64;
                while !done.load(Ordering::Relaxed) {
                    x = std::hint::black_box((x * 1.000_1).sin() + 1.0);
                }
            });
        }
        for pool in &pools()[1..3] {
            scope.spawn(|| {
                let mut head = Backend::cpu().head(&MarginSoftmax::arcface(), busy.shape()).unwrap();
                while !done.load(Ordering::Relaxed) {
                    pool.install(|| head.evaluate(&busy.batch()).unwrap());
                }
            });
        }
        // an assertion must not leave the others running
        let outcome = std::panic::catch_unwind(|| {
            for (name, loss, data, filter) in cases().into_iter().step_by(3) {
                let mut other = data.clone();
                other.x.rotate_left(20);
                let dim = data.shape[2];
                other.x.truncate((data.shape[0] - 7) * dim);
                other.labels.truncate(data.shape[0] - 7);
                let state = State::new(&loss, data.shape()).unwrap().with_seed(3);
                for (budget, options) in budgets(&loss, &data, filter) {
                    let mut out = Output::default();
                    let first = step(&mut data.head(&loss, &options, &state), &data, &state, &mut out);
                    for pool in pools() {
                        pool.install(|| {
                            let mut head = data.head(&loss, &options, &state);
                            for _ in 0..RERUNS {
                                let softer = loss.clone().with_scale(loss.scale * 0.5);
                                head.update(&softer).unwrap();
                                let between = step(&mut head, &other, &state, &mut out);
                                assert!(between != first, "{name}: the batch between is the same");
                                head.update(&loss).unwrap();
                                let again = step(&mut head, &data, &state, &mut out);
                                assert!(again == first, "{name}, {budget}: other bits");
                            }
                        });
                    }
                }
            }
        });
        done.store(true, Ordering::Relaxed);
        outcome
    })
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Bits, and what shards exchange.
type Answers = (Vec<u64>, Vec<(Targets, Statistics)>);

/// What shards exchange and answer, regularisers, center loss and monitors.
#[test]
fn threads_and_reruns_change_no_bit_beside_a_head() {
    let cpu = Backend::cpu();
    let families = with_centers(Suite::Cpu);
    let mut first: Vec<Option<Answers>> = vec![None; families.len() + 1];
    for pool in pools() {
        pool.install(|| {
            for _ in 0..RERUNS {
                for (i, (family, centers)) in families.iter().enumerate() {
                    let (loss, centers) = (&family.loss, *centers);
                    let mut data = Data::random(40, 700, 20, 98).fit(loss);
                    if centers > 1 {
                        data = data.with_centers(centers, 99);
                    }
                    let again = shards(loss, &data, centers);
                    let same = again == *first[i].get_or_insert_with(|| again.clone());
                    assert!(same, "{loss:?}: other bits on {} threads", pool.current_num_threads());
                }
                let data = Data::random(100, 700, 33, 7);
                let mut all = vec![];
                for regularizer in [Regularizer::RegSs { weight: 3.0 }, Regularizer::UniformFace { weight: 3.0 }] {
                    let out = cpu.regularize(&regularizer, 33, &data.w).unwrap();
                    all.extend(out.gradient);
                    all.push(out.value);
                }
                let loss = CenterLoss::default();
                let out = cpu.center_loss(&loss, 33, &data.x, &data.labels, &data.w).unwrap();
                all.extend(out.grad_embeddings);
                all.push(out.loss);
                let mut centers = data.w.clone();
                cpu.update_centers(&loss, 33, &data.x, &data.labels, &mut centers).unwrap();
                all.extend(centers);
                let mut all: Vec<u64> = all.into_iter().map(|v| v.to_bits().into()).collect();
                all.push(cpu.mean_pair_angle(33, &data.w).unwrap().to_bits());
                all.push(cpu.mean_prototype(33, &data.w).unwrap().to_bits());
                let nearest = cpu.nearest_prototype_angles(33, &data.w).unwrap();
                all.extend([nearest.mean.to_bits(), nearest.least.to_bits()]);
                let again = (all, vec![]);
                let same = again == *first.last_mut().unwrap().get_or_insert_with(|| again.clone());
                assert!(same, "other bits on {} threads", pool.current_num_threads());
            }
        });
    }
}

fn shards(loss: &MarginSoftmax, data: &Data, centers: usize) -> (Vec<u64>, Vec<(Targets, Statistics)>) {
    let [_, classes, dim] = data.shape;
    let options = Options { want: WANT, ..Options::default() };
    let mut heads = vec![];
    for range in [0..300, 300..classes] {
        let wide = dim * centers;
        let bias = data.bias.as_deref().map(|b| &b[range.clone()]);
        let prototypes = &data.w[range.start * wide..range.end * wide];
        heads.push((
            Backend::cpu().shard(loss, data.shape(), range, &options).unwrap(),
            Batch { prototypes, bias, ..data.batch() },
        ));
    }
    let targets: Vec<Targets> = heads.iter_mut().map(|(head, batch)| head.targets(batch).unwrap()).collect();
    let merged = Targets::merged(&targets, classes).unwrap();
    heads.iter_mut().for_each(|(head, batch)| head.follow(batch, &merged).unwrap());
    let sums: Vec<Statistics> =
        heads.iter_mut().map(|(head, batch)| head.statistics(batch, &merged).unwrap()).collect();
    let all = Statistics::merged(&sums, classes).unwrap();
    let outs = heads.iter_mut().flat_map(|(head, batch)| bits(&head.gradients(batch, &merged, &all).unwrap()));
    (outs.collect(), targets.into_iter().zip(sums).collect())
}

//! How a step of the CPU path divides among more workers than this machine has cores: times of its tasks, measured on one
//! thread, and a simulation of 4, 16 and 64 workers that take them in the order and with the locks of the library.
//!
//! ```text
//! cargo bench --bench workers               # about a minute
//! ```
//!
//! Differences between whole steps give the times: a loss alone, dW too, dX too. So tasks of one kind take equally long here,
//! all that is no task is serial, and one worker takes what one thread takes. Memory bandwidth is not modelled: more cores
//! than it feeds gain less. As many workers as the machine has cores for are measured as well; by that the model is to be judged.

#[path = "common/clock.rs"]
mod clock;
#[path = "common/data.rs"]
mod data;

use std::{cmp::Reverse, collections::BinaryHeap, hint::black_box};

use clap::Parser;
use comfy_table::Table;
use margin_softmax::{Backend, MarginSoftmax, Options, Output, SliceHead, Want};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use clock::{best_median, timed};
use data::{Data, disagreement};

#[derive(Parser)]
struct Arguments {
    /// Alternating rounds
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Rows, classes, dim.
const SHAPES: [[usize; 3]; 2] = [[256, 5994, 192], [512, 20_000, 512]];
const WORKERS: [usize; 5] = [1, 2, 4, 16, 64];

/// How *keep* divides a step where memory is no concern: the numbers of src/cpu/budget.rs.
#[derive(Clone, Copy)]
struct Tiling {
    tile: usize,
    tiles: usize,
    range_tiles: usize,
    /// Blocks of rows of dX.
    blocks: usize,
}

impl Tiling {
    fn new([n, c, d]: [usize; 3]) -> Self {
        assert!(n <= 512, "one block of rows");
        let cached = (1 << 18) / (n + d) / 32 * 32;
        let tile = (c / 16).next_multiple_of(32).min(cached).clamp(128, 512);
        let tiles = c.div_ceil(tile);
        let ranges = (tiles / 4).clamp(16, 64);
        Self { tile, tiles, range_tiles: tiles.div_ceil(ranges), blocks: n.div_ceil(128) }
    }

    fn ranges(&self) -> usize {
        self.tiles.div_ceil(self.range_tiles)
    }
}

/// Nanoseconds.
#[derive(Clone, Copy)]
struct Tasks {
    serial: u64,
    /// Of a tile: pass 1; G and dW.
    statistics: u64,
    gradients: u64,
    /// Of a tile and a block of dX.
    join: u64,
    /// To hand one task to a thread.
    spawn: u64,
}

/// The next thing that a worker does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Take,
    Done(usize),
    Try(usize),
    Join(usize),
}

impl Tasks {
    /// Nanoseconds of a step: pass 1 range by range, then pass 2 as in src/cpu/join.rs.
    fn step(&self, tiling: &Tiling, workers: usize) -> u64 {
        let ranges = tiling.ranges();
        let range = |r: usize| tiling.range_tiles.min(tiling.tiles - r * tiling.range_tiles) as u64;
        let first = makespan((0..ranges).map(|r| self.spawn + range(r) * self.statistics), workers);
        let (second, rest) = self.pass_two(tiling, workers.min(ranges));
        let rest =
            makespan(rest.into_iter().filter(|&rest| rest > 0).map(|rest| self.spawn + rest * self.join), workers);
        self.serial + first + second + rest
    }

    /// Until no tile is left, and the tiles that then have not joined each block.
    fn pass_two(&self, tiling: &Tiling, workers: usize) -> (u64, Vec<u64>) {
        let (tiles, blocks) = (tiling.tiles, tiling.blocks);
        let (mut taken, mut end) = (0, 0);
        let (mut done, mut locked, mut joined) = (vec![false; tiles], vec![false; blocks], vec![0; blocks]);
        let mut events: BinaryHeap<_> = (0..workers).map(|w| Reverse((self.spawn, w, Next::Take))).collect();
        while let Some(Reverse((now, worker, next))) = events.pop() {
            end = end.max(now);
            let (takes, next) = match next {
                Next::Take if taken == tiles => continue,
                Next::Take => {
                    taken += 1;
                    (self.gradients, Next::Done(taken - 1))
                }
                Next::Done(tile) => {
                    done[tile] = true;
                    (0, Next::Try(0))
                }
                Next::Try(block) if block == blocks => (0, Next::Take),
                Next::Try(block) if locked[block] => (0, Next::Try(block + 1)),
                Next::Try(block) => {
                    locked[block] = true;
                    (0, Next::Join(block))
                }
                Next::Join(block) if done.get(joined[block]) == Some(&true) => {
                    joined[block] += 1;
                    (self.join, Next::Join(block))
                }
                Next::Join(block) => {
                    locked[block] = false;
                    (0, Next::Try(block + 1))
                }
            };
            events.push(Reverse((now + takes, worker, next)));
        }
        (end, joined.into_iter().map(|joined| (tiles - joined) as u64).collect())
    }
}

/// When the last task ends, each taken by whoever is free first.
fn makespan(tasks: impl Iterator<Item = u64>, workers: usize) -> u64 {
    let mut free: BinaryHeap<_> = (0..workers).map(|_| Reverse(0)).collect();
    let ends = tasks.map(|task| {
        let Reverse(start) = free.pop().unwrap_or_default();
        free.push(Reverse(start + task));
        start + task
    });
    ends.max().unwrap_or(0)
}

/// A head with its output, warm and correct.
fn head(data: &Data, want: Want) -> (SliceHead, Output) {
    let (loss, options) = (MarginSoftmax::arcface(), Options { want, ..Options::default() });
    let make = |backend: Backend| backend.head_with(&loss, data.shape, &options).unwrap();
    let (mut head, four) = (make(Backend::cpu()), data.first(4));
    let expected = make(Backend::reference()).evaluate(&four).unwrap();
    assert_eq!(disagreement(&head.evaluate(&four).unwrap(), &expected), None);
    let out = head.evaluate(&data.batch()).unwrap();
    (head, out)
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// The tasks, and the speed-ups over one thread as measured, for as many workers as there are cores: of the best times, and
/// the median.
fn measure(shape: [usize; 3], rounds: usize) -> (Tasks, Vec<[f64; 2]>) {
    let ([n, _, d], tiling) = (shape, Tiling::new(shape));
    let (data, small) = (Data::new(shape, |v| v), Data::new([n, tiling.tile, d], |v| v));
    let cases = [(&small, Want::LOSS), (&data, Want::LOSS), (&data, Want::PROTOTYPES), (&data, Want::ALL)];
    let mut heads = cases.map(|(data, want)| (data, head(data, want)));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pools: Vec<_> = WORKERS.into_iter().filter(|&workers| workers <= cores).map(pool).collect();
    let mut times = [const { vec![] }; 4];
    let (mut steps, mut spawns) = (vec![vec![]; pools.len()], vec![]);
    for _ in 0..rounds {
        for ((data, (head, out)), times) in heads.iter_mut().zip(&mut times) {
            let batch = data.batch();
            times.push(pools[0].install(|| timed(|| head.evaluate_into(&batch, out).unwrap())).threads);
        }
        let (data, (head, out)) = &mut heads[3];
        let batch = data.batch();
        let mut step = |pool: &ThreadPool| pool.install(|| timed(|| head.evaluate_into(&batch, out).unwrap())).wall;
        steps.iter_mut().zip(&pools).for_each(|(all, pool)| all.push(step(pool)));
        let tasks = 64;
        let empty = || {
            (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
                black_box(task);
            });
        };
        spawns.push(pools[pools.len() - 1].install(|| timed(empty)).wall / f64::from(tasks));
    }
    let [small, forward, prototypes, all] = times.map(|times| best_median(times.into_iter()).0 * 1e9);
    let tiles = tiling.tiles as f64;
    // the small head has the classes of one tile
    let statistics = (forward - small) / (tiles - 1.0);
    let tasks = Tasks {
        serial: (small - statistics).max(0.0) as u64,
        statistics: statistics as u64,
        gradients: ((prototypes - forward) / tiles) as u64,
        join: ((all - prototypes) / (tiles * tiling.blocks as f64)) as u64,
        spawn: (best_median(spawns.into_iter()).1 * 1e9) as u64,
    };
    let speed_up = |all: &Vec<f64>| {
        let best = |all: &Vec<f64>| best_median(all.iter().copied()).0;
        [best(&steps[0]) / best(all), best_median(steps[0].iter().zip(all).map(|(one, all)| one / all)).1]
    };
    (tasks, steps.iter().map(speed_up).collect())
}

fn main() {
    let rounds = Arguments::parse().rounds.max(1);
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["N x C x D", "workers", "ms", "speed-up", "efficiency", "measured, best / median"]);
    for shape in SHAPES {
        let name = shape.map(|size| size.to_string()).join("x");
        let (tiling, (tasks, measured)) = (Tiling::new(shape), measure(shape, rounds));
        let Tasks { serial, statistics, gradients, join, spawn } = tasks;
        println!(
            "{name}: {} tiles of {} in {} ranges, {} blocks of dX; µs: serial {:.0}, pass 1 {:.0} a tile, G and dW \
             {:.0}, a join of dX {:.0}, {:.1} to hand out a task",
            tiling.tiles,
            tiling.tile,
            tiling.ranges(),
            tiling.blocks,
            serial as f64 * 1e-3,
            statistics as f64 * 1e-3,
            gradients as f64 * 1e-3,
            join as f64 * 1e-3,
            spawn as f64 * 1e-3,
        );
        let alone = tasks.step(&tiling, 1);
        let count = |count: usize| count as u64;
        let work = count(tiling.tiles) * (statistics + gradients + count(tiling.blocks) * join);
        assert_eq!(alone, serial + work + (1 + count(tiling.ranges())) * spawn, "one worker does all work, once");
        let alone = alone as f64;
        for (i, workers) in WORKERS.into_iter().enumerate() {
            let time = tasks.step(&tiling, workers) as f64;
            table.add_row([
                name.clone(),
                workers.to_string(),
                format!("{:.2}", time * 1e-6),
                format!("{:.2}", alone / time),
                format!("{:.0} %", 100.0 * alone / time / workers as f64),
                measured.get(i).map(|[best, median]| format!("{best:.2} / {median:.2}")).unwrap_or_default(),
            ]);
        }
    }
    println!("{table}");
}

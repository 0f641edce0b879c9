//! How a step of the CPU path divides among more workers than this machine has cores: the tasks of a step, recorded on one thread
//! with their times and dependencies, and a simulation of 2, 4, 16 and 64 workers that take them as the library does.
//!
//! ```text
//! cargo bench --bench workers               # one to two minutes
//! ```
//!
//! A step is recorded for each number of workers, since its division follows that, and every stretch between two events counts with
//! the least time of all rounds that the thread ran. What is no task is serial; each task and each stage cost what empty ones take here. Memory
//! bandwidth is not modelled, nor are caches that workers share: more cores than those feed gain less. The speed-up from one thread to
//! two is measured too, in the same rounds: the bench fails if the simulation is off by more than a tenth.

#[allow(dead_code)]
#[path = "common/clock.rs"]
mod clock;
#[path = "common/data.rs"]
mod data;

use std::{cmp::Reverse, collections::BinaryHeap, collections::VecDeque, hint::black_box, process::ExitCode};

use clap::Parser;
use comfy_table::Table;
use margin_softmax::{
    Backend, MarginSoftmax, Options, Output, SliceHead, Want,
    cpu_trace::{Event, Task, record},
};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};

use clock::{best_median, this_thread_seconds, timed};
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

/// Nanoseconds.
type Time = u64;

/// The time of empty tasks: one more of a stage, and a stage with one for every thread.
#[derive(Clone, Copy)]
struct Costs {
    task: Time,
    stage: Time,
}

/// A stretch of a step.
enum Node {
    Work(Time),
    /// Independent items.
    Stage(Vec<Vec<Node>>),
    /// Of pass 2.
    Tile(usize, Time),
    Join(usize, usize, Time),
}

impl Node {
    /// All work, whoever does it.
    fn work(&self) -> Time {
        match self {
            Self::Work(time) | Self::Tile(_, time) | Self::Join(_, _, time) => *time,
            Self::Stage(items) => items.iter().flatten().map(Self::work).sum(),
        }
    }
}

/// The nodes up to the end of a stage or task, or of all; `events`: each with the time until the next one.
fn nodes(events: &mut impl Iterator<Item = (Event, Time)>, mut before: Time) -> (Vec<Node>, Time) {
    let mut found = vec![];
    loop {
        found.push(Node::Work(before));
        let Some((event, time)) = events.next() else { return (found, 0) };
        before = match event {
            Event::End => return (found, time),
            Event::Stage => {
                let (items, after) = nodes(events, time);
                // items alone; what lies between them hands them out, which has its own cost
                found.push(Node::Stage(items.into_iter().filter_map(item).collect()));
                after
            }
            Event::Task(task) => {
                let (inside, after) = nodes(events, time);
                let work = || inside.iter().map(Node::work).sum();
                found.push(match task {
                    Task::Item => Node::Stage(vec![inside]),
                    Task::Tile(tile) => Node::Tile(tile, work()),
                    Task::Join { block, tile } => Node::Join(block, tile, work()),
                });
                after
            }
        };
    }
}

/// An item of a stage, as [`nodes`] leaves it there.
fn item(node: Node) -> Option<Vec<Node>> {
    match node {
        Node::Stage(mut items) => items.pop(),
        _ => None,
    }
}

/// The time of a step on so many workers.
fn step(nodes: &[Node], workers: usize, costs: Costs) -> Time {
    let time = |node: &Node| match node {
        Node::Stage(items) => {
            let queued = |node: &&Node| matches!(node, Node::Tile(..) | Node::Join(..));
            let queue: Time = items.iter().flatten().filter(queued).map(Node::work).sum();
            let stage = if workers > 1 { costs.stage } else { 0 };
            stage
                + match queue {
                    0 => stage_time(items, workers, costs),
                    // what is neither is the search for either
                    _ => (items.iter().flatten().map(Node::work).sum::<Time>() - queue) / workers as Time,
                }
        }
        other => other.work(),
    };
    nodes.iter().map(time).sum::<Time>() + pass_two(nodes, workers, costs)
}

/// A stage whose items may have stages: whoever is free takes the innermost that is ready, and the first of those.
fn stage_time(items: &[Vec<Node>], workers: usize, costs: Costs) -> Time {
    // an item continues at its next node; of a node that is a stage, one item
    let mut ready: VecDeque<(usize, usize, Option<usize>)> = (0..items.len()).map(|item| (item, 0, None)).collect();
    let mut left = vec![0; items.len()];
    let mut busy = BinaryHeap::new();
    let mut now = 0;
    loop {
        while busy.len() < workers
            && let Some((item, at, part)) = ready.pop_front()
        {
            let time = match (&items[item].get(at), part) {
                (Some(Node::Stage(parts)), None) => {
                    left[item] = parts.len();
                    (0..parts.len()).rev().for_each(|part| ready.push_front((item, at, Some(part))));
                    continue;
                }
                (Some(Node::Stage(parts)), Some(part)) => costs.task + parts[part].iter().map(Node::work).sum::<Time>(),
                (Some(node), _) => node.work() + if at == 0 { costs.task } else { 0 },
                (None, _) => continue,
            };
            busy.push(Reverse((now + time, item, at, part)));
        }
        let Some(Reverse((end, item, at, part))) = busy.pop() else { return now };
        now = end;
        if part.is_some() {
            left[item] -= 1;
        }
        if left[item] == 0 {
            ready.push_front((item, at + 1, None));
        }
    }
}

/// The next thing that a worker does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Take,
    Done(usize),
    Try(usize),
    Join(usize),
}

/// Pass 2 as in src/cpu/join.rs.
fn pass_two(nodes: &[Node], workers: usize, costs: Costs) -> Time {
    let stages = nodes.iter().filter_map(|node| if let Node::Stage(items) = node { Some(items) } else { None });
    let all: Vec<_> = stages.flatten().flatten().collect();
    let tile = |node: &&Node| if let Node::Tile(tile, time) = node { Some((*tile, *time)) } else { None };
    let mut gradients: Vec<_> = all.iter().filter_map(tile).collect();
    gradients.sort_unstable();
    let join =
        |node: &&Node| if let Node::Join(block, tile, time) = node { Some((*block, *tile, *time)) } else { None };
    let mut joins: Vec<_> = all.iter().filter_map(join).collect();
    joins.sort_unstable();
    let tiles = gradients.len();
    let joins: Vec<Vec<_>> = joins.chunks(tiles).map(|block| block.iter().map(|(.., time)| *time).collect()).collect();
    let blocks = joins.len();

    let (mut taken, mut ended, mut end) = (0, 0, 0);
    let (mut done, mut locked, mut joined) = (vec![false; tiles], vec![false; blocks], vec![0; blocks]);
    // the tiles that a worker knows to have ended since it found none to take, and the workers that wait for more
    let (mut seen, mut waiting) = (vec![None; workers], vec![]);
    let mut events: BinaryHeap<_> = (0..workers).map(|w| Reverse((costs.task, w, Next::Take))).collect();
    while let Some(Reverse((now, worker, next))) = events.pop() {
        end = end.max(now);
        let (takes, next) = match next {
            Next::Take if taken == tiles => match seen[worker].replace(ended) {
                Some(known) if known == tiles => continue,
                Some(known) if known == ended => {
                    waiting.push(worker);
                    continue;
                }
                _ => (0, Next::Try(0)),
            },
            Next::Take => {
                taken += 1;
                (costs.task + gradients[taken - 1].1, Next::Done(taken - 1))
            }
            Next::Done(tile) => {
                done[tile] = true;
                ended += 1;
                events.extend(waiting.drain(..).map(|worker| Reverse((now + costs.stage, worker, Next::Take))));
                (0, if tiles - tile > workers { Next::Try(0) } else { Next::Take })
            }
            Next::Try(block) if block == blocks => (0, Next::Take),
            Next::Try(block) if locked[block] => (0, Next::Try(block + 1)),
            Next::Try(block) => {
                locked[block] = true;
                (0, Next::Join(block))
            }
            Next::Join(block) if done.get(joined[block]) == Some(&true) => {
                joined[block] += 1;
                (costs.task + joins[block][joined[block] - 1], Next::Join(block))
            }
            Next::Join(block) => {
                locked[block] = false;
                (0, Next::Try(block + 1))
            }
        };
        events.push(Reverse((now + takes, worker, next)));
    }
    assert!(joined.iter().all(|&joined| joined == tiles), "every tile joins every block");
    end
}

/// A head with its output, warm and correct.
fn head(data: &Data) -> (SliceHead, Output) {
    let (loss, options) = (MarginSoftmax::arcface(), Options { want: Want::ALL, ..Options::default() });
    let make = |backend: Backend| backend.head_with(&loss, data.shape, &options).unwrap();
    let (mut head, four) = (make(Backend::cpu()), data.first(4));
    let expected = make(Backend::reference()).evaluate(&four).unwrap();
    assert_eq!(disagreement(&head.evaluate(&four).unwrap(), &expected), None);
    assert_eq!(head.schedule(), "keep");
    let out = head.evaluate(&data.batch()).unwrap();
    (head, out)
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// A step as recorded for each number of workers, the costs of tasks, and the speed-ups over one thread as measured for as many
/// workers as there are cores: of the best times, and the median.
fn measure(shape: [usize; 3], rounds: usize) -> (Vec<Vec<Node>>, Costs, Vec<[f64; 2]>) {
    let data = Data::new(shape, |v| v);
    let (mut head, mut out) = head(&data);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pools: Vec<_> = WORKERS.into_iter().filter(|&workers| workers <= cores).map(pool).collect();
    let most = &pools[pools.len() - 1];
    let empty = |tasks: usize| {
        let work = || (0..tasks).into_par_iter().with_max_len(1).for_each(|task| _ = black_box(task));
        most.install(|| timed(work)).wall * 1e9
    };
    let mut traces: [Option<(Vec<Event>, Vec<Time>)>; WORKERS.len()] = Default::default();
    let (mut steps, mut few, mut many) = (vec![vec![]; pools.len()], vec![], vec![]);
    for _ in 0..rounds {
        let mut run = |pool: &ThreadPool| {
            let mut step = || head.evaluate_into(&data.batch(), &mut out).unwrap();
            // the scheduler takes a step or two until threads that slept run on cores of their own
            let mut time = || pool.install(|| timed(&mut step)).wall;
            [time(), time(), time(), time()][2..].iter().copied().fold(f64::INFINITY, f64::min)
        };
        steps.iter_mut().zip(&pools).for_each(|(all, pool)| all.push(run(pool)));
        for (trace, workers) in traces.iter_mut().zip(WORKERS) {
            let step = || head.evaluate_into(&data.batch(), &mut out).unwrap();
            let record = || {
                let start = this_thread_seconds();
                (start, record(workers, this_thread_seconds, step))
            };
            let (start, ends) = pools[0].install(record);
            let (events, ends): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
            // until the first event, then from each to the next
            let starts = std::iter::once(start).chain(ends.iter().copied());
            let times: Vec<_> = starts.zip(&ends).map(|(start, end)| ((end - start) * 1e9) as Time).collect();
            let (known, best) = trace.get_or_insert_with(|| (events.clone(), times.clone()));
            assert_eq!(*known, events, "the tasks of a step are the same each time");
            best.iter_mut().zip(times).for_each(|(best, time)| *best = time.min(*best));
        }
        few.push(empty(rayon::current_num_threads().min(cores)));
        many.push(empty(1024));
    }
    let traces = traces.into_iter().flatten().map(|(events, times)| {
        let mut events = events.into_iter().zip(times.iter().copied().skip(1).chain([0]));
        nodes(&mut events, times[0]).0
    });
    let stage = best_median(few.into_iter()).1;
    let task = (best_median(many.into_iter()).1 - stage).max(0.0) / 1024.0 * pools.len() as f64;
    let best = |all: &Vec<f64>| best_median(all.iter().copied()).0;
    let speed_up = |all: &Vec<f64>| {
        [best(&steps[0]) / best(all), best_median(steps[0].iter().zip(all).map(|(one, all)| one / all)).1]
    };
    let costs = Costs { task: task as Time, stage: stage as Time };
    (traces.collect(), costs, steps.iter().map(speed_up).collect())
}

fn main() -> ExitCode {
    let rounds = Arguments::parse().rounds.max(1);
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["N x C x D", "workers", "ms", "speed-up", "efficiency", "serial, ms", "measured, best / median"]);
    let mut valid = true;
    for shape in SHAPES {
        let name = shape.map(|size| size.to_string()).join("x");
        let (traces, costs, measured) = measure(shape, rounds);
        println!("{name}: a task costs {} ns more, a stage {} ns", costs.task, costs.stage);
        let alone = step(&traces[0], 1, Costs { task: 0, stage: 0 });
        assert_eq!(alone, traces[0].iter().map(Node::work).sum::<Time>(), "one worker does all work, once");
        for (i, (workers, nodes)) in WORKERS.into_iter().zip(&traces).enumerate() {
            let time = step(nodes, workers, costs) as f64;
            let serial: Time = nodes.iter().filter(|node| matches!(node, Node::Work(_))).map(Node::work).sum();
            let speed_up = alone as f64 / time;
            if let (Some([best, _]), 2) = (measured.get(i), workers) {
                let off = speed_up / best - 1.0;
                valid &= off.abs() <= 0.1;
                println!("{name}: two workers gain {speed_up:.2}, two threads {best:.2}: {:+.0} %", 100.0 * off);
            }
            table.add_row([
                name.clone(),
                workers.to_string(),
                format!("{:.2}", time * 1e-6),
                format!("{speed_up:.2}"),
                format!("{:.0} %", 100.0 * speed_up / workers as f64),
                format!("{:.3}", serial as f64 * 1e-6),
                measured.get(i).map(|[best, median]| format!("{best:.2} / {median:.2}")).unwrap_or_default(),
            ]);
        }
    }
    println!("{table}");
    if !valid {
        eprintln!(
            "not valid: more than a tenth off what two threads gain here. Others on these cores slow two threads, not one"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

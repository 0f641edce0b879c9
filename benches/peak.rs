//! The CPU path beside what the machine can multiply: the rate of fused multiply-adds in registers on all threads, the three
//! products of a step bare, and steps of ArcFace, all in alternating rounds of one run.
//!
//! ```text
//! cargo bench --bench peak                  # under two minutes
//! RAYON_NUM_THREADS=1 cargo bench --bench peak -- --rounds 40
//! ```
//!
//! The bare products go through the library's own file over the `gemm` crate, with no work between them: the tiles of classes
//! (in dX the blocks of rows) are divided among rayon's threads, and the fastest of several widths is taken. Embeddings and
//! prototypes are the unit vectors that the steps get too, so both multiply the same numbers. Wall time, and the time that threads
//! ran: on a machine that others use too, the second says more.

// the library uses all of these; their tests, which are not built here, name one by its place there
#[allow(dead_code)]
#[path = "../src/cpu/blocks.rs"]
mod blocks;
#[allow(dead_code)]
#[path = "../src/cpu/matrix.rs"]
mod matrix;
#[allow(dead_code, unused_imports)]
#[path = "../src/cpu/product.rs"]
mod product;
#[allow(dead_code, unused_imports)]
#[path = "../src/cpu/vector.rs"]
mod vector;
#[allow(unused_imports)]
mod cpu {
    pub(crate) use super::blocks;
}

#[allow(dead_code)]
#[path = "common/clock.rs"]
mod clock;
#[path = "common/data.rs"]
mod data;

use std::{hint::black_box, time::Instant};

use clap::Parser;
use comfy_table::Table;
use margin_softmax::{Backend, Budget, MarginSoftmax, Options, Output, SliceHead, Want};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use clock::{Time, best_median, timed};
use data::{Data, disagreement};
use matrix::Matrix;
use product::{Pieces, product};
use vector::{Aligned, dot};

/// Rows, classes, dim: two where the products decide, one where everything else does.
const SHAPES: [[usize; 3]; 3] = [[512, 20_000, 512], [256, 5994, 192], [512, 10_000, 3]];

/// ArcFace.
const SCALE: f64 = 64.0;
const MARGIN: f64 = 0.5;

#[derive(Parser)]
struct Arguments {
    /// Alternating rounds
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Fused multiply-adds in registers alone.
struct Registers;

impl Registers {
    /// Independent sums: more than the latency times the units of any core, and few enough for AVX2's 16 registers.
    const CHAINS: usize = 12;
    /// About 0.2 ms: others interrupt few of so short calls.
    const TURNS: usize = 80_000;

    /// GFLOP/s of all threads together, each at its best of some calls.
    fn peak(arch: Arch) -> f64 {
        let best = || {
            let rate = |_| {
                let start = Instant::now();
                arch.dispatch(Self) as f64 / start.elapsed().as_secs_f64() * 1e-9
            };
            (0..50).map(rate).fold(0.0, f64::max)
        };
        rayon::broadcast(|_| best()).into_iter().sum()
    }
}

impl WithSimd for Registers {
    type Output = usize;

    /// The operations of one call.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let (half, one) = (simd.splat_f32s(black_box(0.5)), simd.splat_f32s(black_box(1.0)));
        // different ones, so that no compiler sees one sum in all of them
        let mut sums: [_; Self::CHAINS] = std::array::from_fn(|i| simd.splat_f32s(black_box(i as f32)));
        for _ in 0..Self::TURNS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, half, one);
            }
        }
        for sum in sums {
            // the fixed point of x/2 + 1
            assert_eq!(simd.reduce_sum_f32s(sum), 2.0 * S::F32_LANES as f32);
        }
        2 * Self::CHAINS * Self::TURNS * S::F32_LANES
    }
}

/// The three products of a step.
struct Products<'a> {
    data: &'a Data,
    /// The embeddings, which start where the head's own copy does.
    x: Aligned,
    /// Classes of a tile.
    tile: usize,
    /// Rows of dX that a thread computes at once.
    rows: usize,
    /// \[tiles\]\[N, classes of the tile\].
    values: Vec<f32>,
    grad_embeddings: Vec<f32>,
    grad_prototypes: Vec<f32>,
}

impl<'a> Products<'a> {
    /// With the widths that are fastest here.
    fn new(data: &'a Data) -> Self {
        let [n, c, d] = sizes(data);
        let mut x = Aligned::new(n * d);
        x.values_mut().copy_from_slice(&data.x);
        let (grad_embeddings, grad_prototypes) = (vec![0.0; n * d], vec![0.0; c * d]);
        let mut all = Self { data, x, tile: 1, rows: 1, values: vec![0.0; n * c], grad_embeddings, grad_prototypes };
        let each = n.div_ceil(rayon::current_num_threads());
        let widths = [128, 256, 384, 512].into_iter().flat_map(|tile| [(tile, each.min(128)), (tile, each)]);
        let time = |(tile, rows)| {
            (all.tile, all.rows) = (tile, rows);
            let rounds = (0..4).map(|_| all.run().iter().map(|time| time.threads).sum::<f64>());
            (rounds.fold(f64::INFINITY, f64::min), tile, rows)
        };
        let (_, tile, rows) = widths.map(time).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        Self { tile, rows, ..all }
    }

    /// Cosines, dX, dW.
    fn run(&mut self) -> [Time; 3] {
        [timed(|| self.cosines()), timed(|| self.embeddings()), timed(|| self.prototypes())]
    }

    /// X Wᵀ into the values.
    fn cosines(&mut self) {
        let ([n, _, d], x) = (sizes(self.data), self.x.values());
        let tiles = self.values.par_chunks_mut(n * self.tile).zip(self.data.w.par_chunks(d * self.tile));
        tiles.with_max_len(1).for_each(|(values, w)| {
            let w = Matrix::new(w, w.len() / d, d);
            product(Pieces::USUAL, values, false, Matrix::new(x, n, d), w.transposed());
        });
    }

    /// G W, with the values as G.
    fn embeddings(&mut self) {
        let ([n, _, d], tile, rows) = (sizes(self.data), self.tile, self.rows);
        let blocks = self.grad_embeddings.par_chunks_mut(rows * d).enumerate();
        blocks.with_max_len(1).for_each(|(block, grad)| {
            let count = grad.len() / d;
            for (t, (values, w)) in self.values.chunks(n * tile).zip(self.data.w.chunks(d * tile)).enumerate() {
                let columns = w.len() / d;
                let g = Matrix::new(&values[block * rows * columns..], count, columns);
                product(Pieces::USUAL, grad, t > 0, g, Matrix::new(w, columns, d));
            }
        });
    }

    /// Gᵀ X.
    fn prototypes(&mut self) {
        let ([n, _, d], x) = (sizes(self.data), self.x.values());
        let tiles = self.values.par_chunks(n * self.tile).zip(self.grad_prototypes.par_chunks_mut(d * self.tile));
        tiles.with_max_len(1).for_each(|(values, grad)| {
            let g = Matrix::new(values, n, grad.len() / d);
            product(Pieces::USUAL, grad, false, g.transposed(), Matrix::new(x, n, d));
        });
    }

    /// ArcFace out of the products alone, its formulas in f64 between them.
    fn head(&mut self) -> Output {
        let [n, c, d] = sizes(self.data);
        self.cosines();
        // the label's logit and its slope; the margin takes no angle past π, see `unit_data`
        let target = |c: f32| {
            let angle = f64::from(c).acos();
            (SCALE * (angle + MARGIN).cos(), (angle + MARGIN).sin() / angle.sin())
        };
        let mut rows = vec![(0.0_f64, 0.0_f64); n]; // the label's logit, the sum of exp(z - SCALE)
        let labels: Vec<_> = self.data.labels.iter().map(|&label| label as usize).collect();
        let tile = self.tile;
        let blocks = |c: usize| (0..c.div_ceil(tile)).map(move |t| (t * tile, tile.min(c - t * tile)));
        for ((first, width), values) in blocks(c).zip(self.values.chunks(n * tile)) {
            for ((values, (own, sum)), label) in values.chunks(width).zip(&mut rows).zip(&labels) {
                for (j, &c) in (first..).zip(values) {
                    let z = if j == *label { target(c).0 } else { SCALE * f64::from(c) };
                    if j == *label {
                        *own = z;
                    }
                    *sum += (z - SCALE).exp();
                }
            }
        }
        for ((first, width), values) in blocks(c).zip(self.values.chunks_mut(n * tile)) {
            for ((values, (_, sum)), label) in values.chunks_mut(width).zip(&rows).zip(&labels) {
                for (j, c) in (first..).zip(values) {
                    let (z, slope, one) = match j == *label {
                        true => (target(*c).0, target(*c).1, 1.0),
                        false => (SCALE * f64::from(*c), 1.0, 0.0),
                    };
                    *c = (SCALE / n as f64 * slope * ((z - SCALE).exp() / sum - one)) as f32;
                }
            }
        }
        self.embeddings();
        self.prototypes();
        // the vectors have length 1
        let project = |grads: &[f32], vectors: &[f32]| -> Vec<f32> {
            let pairs = grads.chunks(d).zip(vectors.chunks(d));
            pairs
                .flat_map(|(g, v)| {
                    let along = dot::<f64>(g, v) as f32;
                    g.iter().zip(v).map(move |(g, v)| g - along * v)
                })
                .collect()
        };
        Output {
            row_losses: rows.iter().map(|(own, sum)| (SCALE + sum.ln() - own) as f32).collect(),
            grad_embeddings: project(&self.grad_embeddings, &self.data.x),
            grad_prototypes: project(&self.grad_prototypes, &self.data.w),
            ..Output::default()
        }
    }
}

/// A step whose time is a row of the table.
struct Step {
    what: &'static str,
    head: SliceHead,
    out: Output,
    /// How often it takes the products: cosines, dX, dW.
    products: [f64; 3],
}

/// A shape with everything that is timed there.
struct Case<'a> {
    products: Products<'a>,
    steps: Vec<Step>,
    /// By round: of the bare products, of every step.
    bare: Vec<[Time; 3]>,
    times: Vec<Vec<Time>>,
}

impl<'a> Case<'a> {
    /// Steps and products, each checked against the other.
    fn new(data: &'a Data) -> Self {
        let [n, c, _] = sizes(data);
        let loss = MarginSoftmax::unified(1.0, 1.0, MARGIN, 0.0).with_scale(SCALE);
        let mut products = Products::new(data);
        let own = products.head();
        // one byte less than all cosines take
        let (room, less) = (Budget::mib(256), Budget::bytes((n * c * 4) as u64 - 1));
        let steps = [
            ("forward", Want::LOSS, room, [1.0, 0.0, 0.0]),
            ("dX", Want::EMBEDDINGS, room, [1.0, 1.0, 0.0]),
            ("dW", Want::PROTOTYPES, room, [1.0, 0.0, 1.0]),
            ("keep", Want::ALL, room, [1.0, 1.0, 1.0]),
            ("recompute", Want::ALL, less, [2.0, 1.0, 1.0]),
        ];
        let steps = steps.map(|(what, want, budget, products)| {
            let options = Options { want, budget, ..Options::default() };
            let mut head = Backend::cpu().head_with(&loss, data.shape, &options).unwrap();
            assert!(!want.any() || head.schedule() == if what == "recompute" { what } else { "keep" });
            let out = head.evaluate(&data.batch()).unwrap();
            let mut expected = own.clone();
            if !want.grad_embeddings {
                expected.grad_embeddings.clear();
            }
            if !want.grad_prototypes {
                expected.grad_prototypes.clear();
            }
            assert_eq!(disagreement(&out, &expected), None, "{what} at {:?}", sizes(data));
            Step { what, head, out, products }
        });
        products.cosines(); // the numbers that are multiplied from here on
        Self { products, times: vec![vec![]; steps.len()], steps: steps.into(), bare: vec![] }
    }

    fn round(&mut self) {
        self.bare.push(self.products.run());
        let batch = self.products.data.batch();
        for (Step { head, out, .. }, times) in self.steps.iter_mut().zip(&mut self.times) {
            times.push(timed(|| head.evaluate_into(&batch, out).unwrap()));
        }
    }

    /// So many times each product, by round.
    fn bare(&self, counts: [f64; 3]) -> Vec<Time> {
        let sum = |all: &[Time; 3], clock: fn(&Time) -> f64| all.iter().zip(counts).map(|(t, k)| clock(t) * k).sum();
        self.bare.iter().map(|all| Time { wall: sum(all, |t| t.wall), threads: sum(all, |t| t.threads) }).collect()
    }

    /// Rows of the table: the products, then the steps.
    fn rows(&self, peak: f64) -> Vec<Vec<String>> {
        let [n, c, d] = sizes(self.products.data);
        let row = |what: &str, times: &[Time], counts: [f64; 3]| {
            let (best, median) = best_median(times.iter().map(|t| t.wall));
            let operations = (2 * n * c * d) as f64 * counts.iter().sum::<f64>() * 1e-9;
            let busy = best_median(times.iter().map(|t| t.threads)).0 / rayon::current_num_threads() as f64;
            let share = |time| 100.0 * operations / time / peak;
            vec![
                format!("{n}x{c}x{d}"),
                what.into(),
                format!("{:.2} / {:.2}", best * 1e3, median * 1e3),
                format!("{:.0}", operations / best),
                format!("{:.0} % / {:.0} %", share(best), share(busy)),
            ]
        };
        let Products { tile, rows, .. } = self.products;
        let products = [
            ("cosines".into(), [1.0, 0.0, 0.0]),
            ("dX".into(), [0.0, 1.0, 0.0]),
            ("dW".into(), [0.0, 0.0, 1.0]),
            (format!("all three, tiles of {tile}, blocks of {rows},"), [1.0; 3]),
        ];
        let products =
            products.into_iter().map(|(what, counts)| row(&format!("{what} bare"), &self.bare(counts), counts));
        let steps = self.steps.iter().zip(&self.times).map(|(step, times)| {
            let bare = self.bare(step.products);
            let pairs = || bare.iter().zip(times);
            let best = |times: &[Time]| best_median(times.iter().map(|t| t.wall)).0;
            let wall = best_median(pairs().map(|(bare, step)| bare.wall / step.wall)).1;
            let threads = best_median(pairs().map(|(bare, step)| bare.threads / step.threads)).1;
            let rest = best_median(pairs().map(|(bare, step)| step.threads - bare.threads)).1;
            let mut row = row(step.what, times, step.products);
            row.push(format!("{:.2} / {wall:.2} / {threads:.2}", best(&bare) / best(times)));
            row.push(format!("{:.2}", rest / (n * c) as f64 * 1e9));
            row
        });
        products.chain(steps).collect()
    }
}

fn sizes(data: &Data) -> [usize; 3] {
    [data.shape.rows(), data.shape.classes(), data.shape.dim()]
}

/// Unit vectors, and labels at angles that the margin of ArcFace leaves below π, away from 0.
fn unit_data(shape: [usize; 3]) -> Data {
    let [_, c, d] = shape;
    let mut data = Data::new(shape, |v| v);
    for vector in data.x.chunks_mut(d).chain(data.w.chunks_mut(d)) {
        let length = dot::<f64>(vector, vector).sqrt();
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
    for (x, label) in data.x.chunks(d).zip(&mut data.labels) {
        let fits = |j: &usize| (-0.5..0.9).contains(&dot::<f64>(x, &data.w[j * d..][..d]));
        *label = (0..c).map(|step| (*label as usize + step) % c).find(fits).unwrap() as i32;
    }
    data
}

fn main() {
    let rounds = Arguments::parse().rounds.max(1);
    let arch = Arch::new();
    let data = SHAPES.map(unit_data);
    let mut cases: Vec<_> = data.iter().map(Case::new).collect();
    let mut peaks = vec![];
    for round in 0..rounds {
        eprint!("\rround {} of {rounds}", round + 1);
        peaks.push(Registers::peak(arch));
        cases.iter_mut().for_each(Case::round);
    }
    eprintln!();
    let (least, median) = best_median(peaks.iter().copied());
    let peak = peaks.iter().copied().fold(0.0, f64::max);
    println!("{}", Backend::cpu().name());
    println!("FMA in registers, all threads: {peak:.0} GFLOP/s at best, median {median:.0}, least {least:.0}");
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "N x C x D",
        "",
        "ms, best / median",
        "GFLOP/s, best",
        "of the peak: best / thread time",
        "of the products' speed: best / median / thread time",
        "beside them, thread ns an entry",
    ]);
    table.add_rows(cases.iter().flat_map(|case| case.rows(peak)));
    println!("{table}");
}

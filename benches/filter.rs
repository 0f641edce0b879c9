//! Gradient filtering: what it leaves out, what that does to the gradient, and what it does to the time of a whole step.
//!
//! Forward and backward over slices, wall time, best of alternating rounds without and with a filter. Every head is
//! checked first: without a filter against the f64 reference, with one by the bound that its dropped mass promises. Writes
//! `benches/results/filter.json`. Names of backends as arguments choose among them.

use std::{io::Write, time::Instant};

use margin_softmax::{Backend, Batch, MarginSoftmax, Options, Output, Shape, SliceHead, data::GradientFilter};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Rows, classes, dim; rounds on the CPU and on a software adapter.
const CPU: [([usize; 3], usize); 2] = [([256, 5994, 192], 30), ([512, 20_000, 512], 10)];
const GPU: [([usize; 3], usize); 1] = [([128, 2000, 512], 8)];

struct Data {
    name: &'static str,
    shape: Shape,
    x: Vec<f32>,
    w: Vec<f32>,
    labels: Vec<i64>,
    /// Standard deviation of the other cosines.
    spread: f64,
}

/// Normally distributed numbers (Box-Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

fn unit(rng: &mut ChaCha8Rng, used: usize, dim: usize) -> Vec<f64> {
    let mut v: Vec<f64> = (0..dim).map(|k| if k < used { normal(rng) } else { 0.0 }).collect();
    let length = dot(&v, &v).sqrt();
    v.iter_mut().for_each(|v| *v /= length);
    v
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Data {
    /// Random directions; or as after some training: a target cosine of 0.7, the others as random directions in at most 400
    /// dimensions have them, where their deviation is 0.05 (1/√D in fewer).
    fn new(trained: bool, [rows, classes, dim]: [usize; 3]) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let used = if trained { dim.min(400) } else { dim };
        let w: Vec<Vec<f64>> = (0..classes).map(|_| unit(&mut rng, used, dim)).collect();
        let labels: Vec<i64> = (0..rows).map(|_| rng.random_range(0..classes as i64)).collect();
        let embedding = |&label: &i64| {
            let free = unit(&mut rng, used, dim);
            if !trained {
                return free;
            }
            let own = &w[label as usize];
            let along = dot(&free, own);
            let across = (1.0 - along * along).sqrt();
            let part = |(f, o): (&f64, &f64)| 0.7 * o + (1.0_f64 - 0.49).sqrt() * (f - along * o) / across;
            free.iter().zip(own).map(part).collect()
        };
        let x: Vec<Vec<f64>> = labels.iter().map(embedding).collect();
        let others = (0..1000).map(|j| dot(&x[j % rows], &w[(labels[j % rows] as usize + 1 + j) % classes]));
        let spread = (others.map(|c| c * c).sum::<f64>() / 1000.0).sqrt();
        let flat = |v: Vec<Vec<f64>>| v.into_iter().flatten().map(|v| v as f32).collect();
        let name = if trained { "trained-like" } else { "random" };
        Ok(Self { name, shape: Shape::new(rows, classes, dim)?, x: flat(x), w: flat(w), labels, spread })
    }

    fn batch(&self, rows: usize) -> Batch<'_> {
        let embeddings = &self.x[..rows * self.shape.dim()];
        Batch { embeddings, prototypes: &self.w, labels: &self.labels[..rows], ..Batch::default() }
    }
}

/// Largest difference, of the largest value.
fn off(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0_f32, |m, e| m.max(e.abs()));
    found.iter().zip(expected).fold(0.0_f32, |m, (f, e)| m.max((f - e).abs())) / largest
}

/// ‖found − expected‖ / ‖expected‖, and the sum of the vectors' lengths of the difference.
fn error(found: &[f32], expected: &[f32], dim: usize) -> (f64, f64) {
    let length = |f: &dyn Fn(usize) -> f64, at: usize| (at..at + dim).map(|k| f(k) * f(k)).sum::<f64>();
    let difference = |k: usize| f64::from(found[k]) - f64::from(expected[k]);
    let own = |k: usize| f64::from(expected[k]);
    let (mut square, mut all, mut lengths) = (0.0, 0.0, 0.0);
    for at in (0..expected.len()).step_by(dim) {
        let one = length(&difference, at);
        square += one;
        lengths += one.sqrt();
        all += length(&own, at);
    }
    ((square / all).sqrt(), lengths)
}

struct Case {
    name: String,
    epsilon: Option<f64>,
    head: SliceHead,
    out: Output,
    best: f64,
}

fn measure(backend: &Backend, data: &Data, rounds: usize, lines: &mut Vec<String>) -> Result<()> {
    let (shape, loss) = (data.shape, MarginSoftmax::arcface());
    let (rows, classes, dim) = (shape.rows(), shape.classes(), shape.dim());
    println!(
        "\n{} {rows}x{classes}x{dim}, {}: other cosines ±{:.3}, ArcFace at scale {}",
        backend.name(),
        data.name,
        data.spread,
        loss.scale
    );
    let per_class = |share: f64| Some(share / classes as f64);
    let mut cases = vec![];
    for (name, epsilon) in [
        ("none", None),
        ("0.001/C", per_class(0.001)),
        ("0.01/C", per_class(0.01)),
        ("0.1/C", per_class(0.1)),
        ("2^-12", Some(2.0_f64.powi(-12))),
        ("2^-10", Some(2.0_f64.powi(-10))),
    ] {
        let filter = epsilon.map(GradientFilter::new).transpose()?;
        let options = Options { filter, ..Options::default() };
        let mut head = backend.head_with(&loss, shape, &options)?;
        if filter.is_none() {
            // the reference takes seconds for all rows
            let four = data.batch(4.min(rows));
            let found = head.evaluate(&four)?;
            let expected = Backend::reference().head_with(&loss, shape, &options)?.evaluate(&four)?;
            let worst = off(&found.grad_embeddings, &expected.grad_embeddings)
                .max(off(&found.grad_prototypes, &expected.grad_prototypes));
            // several times the gate at scale 64, and still no wrong formula passes
            assert!(worst <= 1e-4, "off by {worst} from the reference");
        }
        let out = head.evaluate(&data.batch(rows))?;
        cases.push(Case { name: name.to_owned(), epsilon, head, out, best: f64::INFINITY });
    }
    for round in 0..rounds {
        for case in &mut cases {
            let start = Instant::now();
            case.head.evaluate_into(&data.batch(rows), &mut case.out)?;
            case.best = case.best.min(start.elapsed().as_secs_f64() * 1e3);
        }
        print!("\rround {} of {rounds}", round + 1);
        std::io::stdout().flush()?;
    }
    println!("\r| ε | entries kept | mass dropped | error of dX | error of dW | ms | ratio |");
    println!("|---|---|---|---|---|---|---|");
    let (plain, filtered) = cases.split_at(1);
    let plain = &plain[0];
    println!("| none | 1 | 0 | 0 | 0 | {:.2} | 1 |", plain.best);
    for case in filtered {
        let found = case.out.filtered.ok_or("nothing was reported")?;
        let (dx, dx_lengths) = error(&case.out.grad_embeddings, &plain.out.grad_embeddings, dim);
        let (dw, dw_lengths) = error(&case.out.grad_prototypes, &plain.out.grad_prototypes, dim);
        // the vectors have length 1; 1e-5 of the mass is f32's own
        let bound = f64::from(found.dropped) + 1e-5 * f64::from(found.total);
        assert!(dx_lengths <= bound && dw_lengths <= bound, "{dx_lengths} and {dw_lengths} exceed {bound}");
        assert_eq!(case.out.row_losses, plain.out.row_losses);
        let kept = found.kept as f64 / found.entries as f64;
        let ratio = case.best / plain.best;
        println!(
            "| {} | {kept:.4} | {:.1e} | {dx:.1e} | {dw:.1e} | {:.2} | {ratio:.2} |",
            case.name,
            found.share(),
            case.best
        );
        lines.push(format!(
            "  {{\"backend\": \"{}\", \"data\": \"{}\", \"rows\": {rows}, \"classes\": {classes}, \"dim\": {dim}, \
             \"epsilon\": \"{}\", \"threshold\": {:e}, \"kept\": {kept:.5}, \"dropped\": {:.4e}, \"error_dx\": {dx:.3e}, \
             \"error_dw\": {dw:.3e}, \"ms\": {:.3}, \"ms_without\": {:.3}, \"ratio\": {ratio:.3}}}",
            backend.name(), data.name, case.name, case.epsilon.unwrap_or(0.0), found.share(), case.best, plain.best
        ));
    }
    Ok(())
}

fn main() -> Result<()> {
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with('-')).map(|a| a.to_lowercase()).collect();
    let wanted = |backend: &Backend| {
        let name = backend.name().to_lowercase();
        chosen.is_empty() || chosen.iter().any(|c| name.contains(c))
    };
    let mut all = vec![(Backend::cpu(), &CPU[..])];
    all.extend(margin_softmax::gpu::Context::all().into_iter().map(|c| (Backend::Gpu(c), &GPU[..])));
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("results/filter.json");
    let mut lines: Vec<String> = vec![];
    let mut measured = vec![];
    for (backend, shapes) in all.into_iter().filter(|(backend, _)| wanted(backend)) {
        measured.push(format!("\"{}\"", backend.name()));
        for &(shape, rounds) in shapes {
            for trained in [false, true] {
                measure(&backend, &Data::new(trained, shape)?, rounds, &mut lines)?;
            }
        }
    }
    // an entry per line: those of other backends stay
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let other = |line: &&str| line.contains("backend") && !measured.iter().any(|name| line.contains(name));
    lines.extend(known.lines().filter(other).map(|line| line.trim_end_matches(',').to_owned()));
    std::fs::create_dir_all(file.parent().ok_or("no folder")?)?;
    std::fs::write(&file, format!("[\n{}\n]\n", lines.join(",\n")))?;
    Ok(())
}

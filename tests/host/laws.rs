//! Laws that an evaluation obeys for every preset with every reduction, on whatever computes.

use std::cell::RefCell;

use margin_softmax::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{
    common::*,
    engines::*,
    families::{self, Suite, moves_state},
    problems::*,
};

/// The laws.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    /// Gradients are linear in the upstream gradient; losses do not depend on it.
    Upstream,
    /// The loss follows from the row losses and Z.
    Reduction,
    /// Micro-batches add up to the batch; with `mean` each counts by its Z.
    MicroBatches,
    /// An ignored row is as if absent, in a training step and its state too.
    Ignored,
    /// Without label smoothing a row of weight 0, or of a class of weight 0, is as if ignored; with it, its loss is that of PyTorch.
    Weightless,
    /// Every row that counts moves the state, whatever its weight, that of its class, and its upstream gradient.
    State,
}

const LAWS: [Law; 6] = [Law::Upstream, Law::Reduction, Law::MicroBatches, Law::Ignored, Law::Weightless, Law::State];

/// A family that does not obey a law.
struct Exception {
    law: Law,
    family: &'static str,
    of: fn(&MarginSoftmax) -> bool,
    #[allow(dead_code)] // for readers
    why: &'static str,
}

/// Which families do not obey which law, and why. That each entry is needed is a test of its own.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        law: Law::MicroBatches,
        family: "elastic",
        of: families::draws,
        why: "a draw belongs to the row's index in its micro-batch",
    },
    Exception {
        law: Law::Ignored,
        family: "elastic",
        of: families::draws,
        why: "an ignored row takes a draw and moves the index of the rows behind it",
    },
    Exception {
        law: Law::Weightless,
        family: "elastic, sorted",
        of: families::is_sorted,
        why: "a row of weight 0 counts, so it has a place in the order of the target cosines",
    },
];

/// The label of a row that is ignored and of no class.
const NO_CLASS: i64 = -100;

/// Rows that [`Law::Ignored`] adds to a batch.
const ADDED: usize = 2;

/// One head for all batches of a preset, with rows to spare, and classes enough for inter-topk.
pub fn one_head(backend: &Backend, loss: &MarginSoftmax) -> Result<(Engine, Option<Shape>)> {
    let shape = Shape::new(6 + ADDED, 9, 4)?;
    let head = backend.head_with(loss, shape, &OPTIONS())?;
    Ok((Engine::Head(Box::new(RefCell::new(head))), Some(shape)))
}

/// Every preset and the families of [`Suite::Laws`] with every reduction under this many random batches; `engine` is asked once
/// per loss, and for which sizes its batches must be.
pub fn check(
    cases: usize,
    mut engine: impl FnMut(&MarginSoftmax) -> Result<(Engine, Option<Shape>)>,
) -> Result<(), String> {
    for (name, loss) in families::presets_and(Suite::Laws) {
        let (engine, shape) = engine(&loss).map_err(|e| format!("{name}: {e}"))?;
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
            let mut rng = random(70 + reduction as u64);
            for _ in 0..cases {
                let problem = random_batch(&mut rng, &loss, reduction, shape);
                let at = engine.run(&problem).map_err(|Off(why)| format!("{name}: {why}"))?;
                for law in LAWS {
                    if EXCEPTIONS.iter().any(|e| e.law == law && (e.of)(&loss)) {
                        continue;
                    }
                    let context = |Off(why)| format!("{name}: {law:?}: {why} in {problem:?}");
                    law.holds(&engine, &problem, &at, &mut rng).map_err(context)?;
                }
            }
        }
    }
    Ok(())
}

/// A batch that often has class weights, some of them 0, and ignored rows.
fn random_batch(rng: &mut ChaCha8Rng, loss: &MarginSoftmax, reduction: Reduction, shape: Option<Shape>) -> Problem {
    let mut problem = random_problem_for(rng, loss, shape);
    problem.loss.reduction = reduction;
    problem.divisor = problem.divisor.filter(|_| reduction == Reduction::Mean);
    if rng.random_bool(0.6) {
        problem.weights = Some(weights(rng, problem.classes()));
    }
    if problem.loss.ignore_index != Some(0) && rng.random_bool(0.6) {
        problem.loss.ignore_index = Some(NO_CLASS);
        problem.labels.iter_mut().for_each(|label| {
            if rng.random_bool(0.2) {
                *label = NO_CLASS;
            }
        });
    }
    problem.upstream = Some(upstream(rng, &problem));
    problem.rounded()
}

fn weights(rng: &mut ChaCha8Rng, classes: usize) -> Vec<f64> {
    let mut weight = |_| if rng.random_bool(0.25) { 0.0 } else { rng.random_range(0.1..3.0) };
    (0..classes).map(&mut weight).collect()
}

/// Multiples of 1/64, whose sums and products with powers of two are exact in f32.
fn upstream(rng: &mut ChaCha8Rng, problem: &Problem) -> Vec<f64> {
    let count = if problem.loss.reduction == Reduction::None { problem.rows() } else { 1 };
    (0..count).map(|_| f64::from(rng.random_range(-128..=128)) / 64.0).collect()
}

/// The gradients of an output by name.
fn gradients(out: &Output<f64>) -> [(&'static str, &[f64]); 4] {
    [
        ("dX", &out.grad_embeddings),
        ("dW", &out.grad_prototypes),
        ("db", &out.grad_bias),
        ("dL/ds", std::slice::from_ref(&out.grad_scale)),
    ]
}

fn scaled(values: &[f64], factor: f64) -> Vec<f64> {
    values.iter().map(|v| v * factor).collect()
}

/// How far the gradients of an output may be off, as [`gradients`] names them, where the same numbers of the rows are
/// multiplied and added up in another order: a few dozen roundings of the largest entry of G as a gradient of the shortest
/// vector. An entry is at most upstream · scale · weight / Z times a slope of a few units.
fn rounding(engine: &Engine, problem: &Problem) -> [f64; 4] {
    let most = |values: Option<&[f64]>| values.map_or(1.0, |v| v.iter().fold(0.0, |m: f64, v| m.max(v.abs())));
    let z = problem.divisor();
    let weights = most(problem.weights.as_deref()) * most(problem.row_weights.as_deref());
    let share = if z > 0.0 { weights / z } else { 0.0 };
    let unit = 64.0 * engine.ulp() * most(problem.upstream.as_deref()) * share;
    let linear = problem.loss.similarity == Similarity::Dot;
    let lengths = |values: &[f64]| values.chunks(problem.shape.dim()).map(length).collect::<Vec<f64>>();
    let (x, w) = (lengths(&problem.embeddings), lengths(&problem.prototypes));
    let longest = |v: &[f64]| v.iter().copied().fold(0.0, f64::max);
    let lever = |own: &[f64], other: &[f64]| {
        if linear { longest(other) } else { 1.0 / own.iter().copied().fold(f64::INFINITY, f64::min) }
    };
    let (gain, classes) = (unit * problem.largest_scale(), problem.classes() as f64);
    [gain * lever(&x, &w), gain * lever(&w, &x), classes * gain.max(unit), classes * unit]
}

/// Whether an output is the expected one of a problem, up to the order of its sums; row losses have no sum over rows.
fn alike(engine: &Engine, problem: &Problem, found: &Output<f64>, expected: &Output<f64>) -> Result<(), Off> {
    near("row losses", &found.row_losses, &expected.row_losses, 0.0)?;
    near("loss", &[found.loss], &[expected.loss], loss_rounding(engine, problem, &expected.row_losses))?;
    let off = rounding(engine, problem);
    for (((what, found), (_, expected)), off) in gradients(found).into_iter().zip(gradients(expected)).zip(off) {
        near(what, found, expected, off)?;
    }
    Ok(())
}

/// The same of the reduced loss: a rounding for each of a few additions and the division.
fn loss_rounding(engine: &Engine, problem: &Problem, rows: &[f64]) -> f64 {
    let size: Vec<f64> = rows.iter().map(|l| l.abs()).collect();
    16.0 * engine.ulp() * problem.reduced(&size)
}

impl Law {
    /// `at` is what the engine gives for this problem.
    fn holds(self, engine: &Engine, problem: &Problem, at: &Output<f64>, rng: &mut ChaCha8Rng) -> Result<(), Off> {
        match self {
            Self::Upstream => upstream_is_linear(engine, problem, at),
            Self::Reduction => loss_follows_from_rows(engine, problem, at),
            Self::MicroBatches => micro_batches_add_up(engine, problem, at, rng),
            Self::Ignored => ignored_rows_are_absent(engine, problem, at, rng),
            Self::Weightless => rows_without_weight(engine, problem, rng),
            Self::State => weights_move_no_state(engine, problem, rng),
        }
    }
}

/// One output with the gradients of another, times a factor, added to its own.
fn combined(one: &Output<f64>, factor: f64, other: &Output<f64>) -> Output<f64> {
    let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + factor * b).collect::<Vec<f64>>();
    Output {
        grad_embeddings: sum(&one.grad_embeddings, &other.grad_embeddings),
        grad_prototypes: sum(&one.grad_prototypes, &other.grad_prototypes),
        grad_bias: sum(&one.grad_bias, &other.grad_bias),
        grad_scale: one.grad_scale + factor * other.grad_scale,
        ..one.clone()
    }
}

fn upstream_is_linear(engine: &Engine, problem: &Problem, one: &Output<f64>) -> Result<(), Off> {
    let first = problem.upstream.clone().unwrap_or_default();
    let with = |upstream: Option<Vec<f64>>| Problem { upstream, ..problem.clone() };
    let run = |upstream: Option<Vec<f64>>| engine.run(&with(upstream));
    // with the first they are ones, the same as none at all
    let second: Vec<f64> = first.iter().map(|up| 1.0 - up).collect();
    let added = combined(one, 1.0, &run(Some(second.clone()))?);
    // the rounding of both parts, which may be larger than their sum
    let larger = first.iter().zip(&second).map(|(a, b)| a.abs().max(b.abs())).collect();
    alike(engine, &with(Some(larger)), &run(None)?, &added)?;
    let many = Some(scaled(&first, 1000.0));
    alike(engine, &with(many.clone()), &run(many)?, &combined(one, 999.0, one))?;
    for (what, gradient) in gradients(&run(Some(vec![0.0; first.len()]))?) {
        near(what, gradient, &vec![0.0; gradient.len()], 0.0)?;
    }
    Ok(())
}

fn loss_follows_from_rows(engine: &Engine, problem: &Problem, out: &Output<f64>) -> Result<(), Off> {
    near("loss", &[out.loss], &[problem.reduced(&out.row_losses)], loss_rounding(engine, problem, &out.row_losses))
}

fn micro_batches_add_up(
    engine: &Engine,
    problem: &Problem,
    whole: &Output<f64>,
    rng: &mut ChaCha8Rng,
) -> Result<(), Off> {
    let (z, smoothed) = (problem.divisor(), problem.loss.label_smoothing > 0.0);
    // uneven parts, some of them empty
    let mut cuts = [0, rng.random_range(0..=problem.rows()), rng.random_range(0..=problem.rows()), problem.rows()];
    cuts.sort_unstable();
    let [sized, empty] = [&whole.grad_prototypes, &whole.grad_bias].map(|v| vec![0.0; v.len()]);
    let mut sum = Output { grad_prototypes: sized, grad_bias: empty, ..Output::default() };
    let divided = problem.loss.reduction == Reduction::Mean && z > 0.0 && rng.random_bool(0.5);
    for cut in cuts.windows(2) {
        let mut part = with_rows(problem, &(cut[0]..cut[1]).collect::<Vec<_>>());
        if divided {
            part.divisor = Some(z);
        }
        if smoothed && part.divisor() == 0.0 && part.counted().next().is_some() {
            // the mean of rows of weight 0 is 0 by definition, but label smoothing gives them a part of a larger batch
            return Ok(());
        }
        let share = if z > 0.0 { part.divisor() / z } else { 0.0 };
        let out = engine.run(&part)?;
        sum.loss += share * out.loss;
        sum.row_losses.extend(out.row_losses);
        sum.grad_embeddings.extend(scaled(&out.grad_embeddings, share));
        sum.grad_scale += share * out.grad_scale;
        for (all, part) in [(&mut sum.grad_prototypes, &out.grad_prototypes), (&mut sum.grad_bias, &out.grad_bias)] {
            all.iter_mut().zip(part).for_each(|(all, part)| *all += share * part);
        }
    }
    alike(engine, problem, &sum, whole)
}

fn ignored_rows_are_absent(
    engine: &Engine,
    problem: &Problem,
    at: &Output<f64>,
    rng: &mut ChaCha8Rng,
) -> Result<(), Off> {
    let mut more = problem.clone();
    let index = *more.loss.ignore_index.get_or_insert(NO_CLASS);
    // where each row of the larger batch comes from
    let mut rows: Vec<Option<usize>> = (0..problem.rows()).map(Some).collect();
    for _ in 0..ADDED {
        rows.insert(rng.random_range(0..=rows.len()), None);
    }
    more = with_rows(&more, &rows.iter().map(|row| row.unwrap_or(0)).collect::<Vec<_>>());
    let dim = problem.shape.dim();
    for (i, _) in rows.iter().enumerate().filter(|(_, row)| row.is_none()) {
        more.labels[i] = index;
        let values = pick(rng, &[0.0, f64::NAN, f64::INFINITY, 3.0]);
        more.embeddings[i * dim..(i + 1) * dim].fill(values);
        if let (Some(upstream), Reduction::None) = (&mut more.upstream, more.loss.reduction) {
            upstream[i] = 1e3;
        }
    }
    // a step is an evaluation where nothing moves
    let next = State { step: problem.state.step + 1, ..problem.state };
    let (without, moved) = if moves_state(&problem.loss) { engine.call(problem, true)? } else { (at.clone(), next) };
    let (mut with, moved_too) = engine.call(&more, true)?;
    let values = |s: State| [s.hardness, s.norm_mean, s.norm_deviation, s.scale];
    // sums over the rows in another order
    near(
        "state",
        &values(moved_too),
        &values(moved),
        16.0 * engine.ulp() * values(moved).into_iter().fold(1.0, f64::max),
    )?;
    let mut kept = vec![];
    for (i, row) in rows.iter().enumerate() {
        let dx = &with.grad_embeddings[i * dim..(i + 1) * dim];
        match row {
            Some(_) => kept.push(i),
            None => near(
                "an ignored row",
                &[&[with.row_losses[i], with.target_cosines[i]], dx].concat(),
                &vec![0.0; 2 + dim],
                0.0,
            )?,
        }
    }
    with.row_losses = ordered(&with.row_losses, &kept, 1);
    with.grad_embeddings = ordered(&with.grad_embeddings, &kept, dim);
    with.counts.ignored -= ADDED;
    if with.counts != without.counts {
        return Err(Off(format!("{:?} and {:?}", with.counts, without.counts)));
    }
    if moved == moved_too {
        return alike(engine, problem, &with, &without);
    }
    let mut at = problem.clone();
    at.state = State { step: problem.state.step, ..moved };
    near("at a state that was rounded", &numbers(&with), &numbers(&without), engine.tolerance(&at, rng))
}

fn rows_without_weight(engine: &Engine, problem: &Problem, rng: &mut ChaCha8Rng) -> Result<(), Off> {
    let mut problem = problem.clone();
    let ignored: Vec<usize> = (0..problem.rows()).filter(|&i| problem.ignored(i)).collect();
    problem.loss.ignore_index = Some(NO_CLASS);
    ignored.into_iter().for_each(|i| problem.labels[i] = NO_CLASS);
    let mut weights = problem.weights.take().unwrap_or_else(|| weights(rng, problem.classes()));
    let first = problem.counted().next();
    first.into_iter().for_each(|i| weights[problem.label(i)] = 0.0);
    problem.weights = Some(weights);
    problem = problem.rounded();
    problem.loss.label_smoothing = 0.0;
    let weight = |i: usize| problem.row_weight(i) * problem.weight(problem.label(i));
    let weightless: Vec<usize> = problem.counted().filter(|&i| weight(i) == 0.0).collect();
    let (mut out, dim) = (engine.run(&problem)?, problem.shape.dim());
    for &i in &weightless {
        let dx = &out.grad_embeddings[i * dim..(i + 1) * dim];
        near("a row without weight", &[&out.row_losses[i..=i], dx].concat(), &vec![0.0; 1 + dim], 0.0)?;
    }
    let mut without = problem.clone();
    weightless.iter().for_each(|&i| without.labels[i] = NO_CLASS);
    alike(engine, &problem, &out, &engine.run(&without)?)?;
    if problem.loss.link == Link::Softmax {
        (problem.loss.label_smoothing, problem.loss.focal) = (pick(rng, &[0.1, 0.7]), 0.0);
        let margins = problem.margins();
        let rows = problem.defined(|i, j, c| problem.value(i, j, c, &margins[i]));
        // the school formulas of the expected values are good to 1e-10 themselves
        let tolerance = engine.tolerance(&problem, rng).max(1e-9);
        out = engine.run(&problem)?;
        near("smoothed losses", &out.row_losses, &rows, tolerance)?;
        // the gradients of the reference are the derivatives of such losses, class weights of 0 included
        near("smoothed", &numbers(&out), &numbers(&problem.run()), tolerance)?;
    }
    Ok(())
}

fn weights_move_no_state(engine: &Engine, problem: &Problem, rng: &mut ChaCha8Rng) -> Result<(), Off> {
    if !moves_state(&problem.loss) {
        return Ok(());
    }
    let bare = Problem { weights: None, row_weights: None, upstream: None, ..problem.clone() };
    let [classes, rows] = [problem.classes(), problem.rows()].map(|count| Some(weights(rng, count)));
    let weighed = Problem { weights: classes, row_weights: rows, ..problem.clone() }.rounded();
    let [(_, bare), (_, weighed)] = [engine.call(&bare, true)?, engine.call(&weighed, true)?];
    if bare == weighed { Ok(()) } else { Err(Off(format!("state {bare:?} and {weighed:?}"))) }
}

/// Numbers of single batches.
pub fn examples(engine: &Engine) -> Result<(), String> {
    magface_example(engine).and_then(|()| smoothing_example(engine)).map_err(|Off(why)| why)
}

/// MagFace's term of the length is one of its row: one row of length 50 on its own prototype's side, reduction `none`.
fn magface_example(engine: &Engine) -> Result<(), Off> {
    let loss = MarginSoftmax::magface().with_reduction(Reduction::None);
    let (shape, x, w) = (Shape::new(1, 2, 2)?, vec![30.0, 40.0], vec![1.0, 0.0, 0.0, 1.0]);
    let mut problem = Problem::new(loss, shape, x, w, vec![0]);
    let mut run = |upstream: f64| {
        problem.upstream = Some(vec![upstream]);
        engine.run(&problem)
    };
    let [none, one, many] = [run(0.0)?, run(1.0)?, run(1000.0)?];
    // cos(theta + m) - cos is 0.6 cos(0.59) - 0.8 sin(0.59) - 0.8 times 64, and 35 (50/110^2 + 1/50)
    let margin = 0.45 + 0.35 * 0.4_f64;
    let cross_entropy = 64.0 * (0.8 - 0.6 * margin.cos() + 0.8 * margin.sin());
    let expected = cross_entropy + 35.0 * (50.0 / 12100.0 + 0.02);
    near("loss", &[one.loss, one.row_losses[0]], &[expected; 2], 32.0 * engine.ulp() * expected)?;
    near("dX at 0", &none.grad_embeddings, &[0.0; 2], 0.0)?;
    let most = one.grad_embeddings.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
    near("dX at 1000", &many.grad_embeddings, &scaled(&one.grad_embeddings, 1e3), 4e3 * engine.ulp() * most)
}

/// Label smoothing gives a row of class weight 0 a part of its own. The numbers are those of
/// `torch.nn.functional.cross_entropy` by its formula in float64: logits z, weights w, ε = 0.1,
/// row loss (1 − ε) w_y (lse − z_y) + ε/C Σ_j w_j (lse − z_j), and its derivative (1 − ε) w_y (p − e_y) + ε/C Σ_j w_j (p − e_j).
fn smoothing_example(engine: &Engine) -> Result<(), Off> {
    let (x, w) = (vec![3.0, 4.0, -1.0, 2.0], vec![1.0, 1.0, 0.0, 2.0, -3.0, 1.0]);
    for (loss, rows, mean, dx, dw) in [
        (
            MarginSoftmax::softmax(),
            [0.242771945, 0.240833409],
            0.967210707,
            [0.144822670, -0.011490438, 0.505616356, 0.149747124],
            [0.120376742, 0.207481477, -0.184218439, 0.253532495, 0.063841696, -0.461013972],
        ),
        (
            MarginSoftmax::cosface().with_margin(|m| m.m3 = 0.35).with_scale(8.0),
            [0.169275472, 2.018325064],
            4.375201073,
            [0.04926490, -0.03694868, 3.41164307, 1.70582153],
            [-0.05925475, 0.05925475, -1.63301925, 0.0, -0.54524653, -1.63573960],
        ),
    ] {
        let loss = loss.with_label_smoothing(0.1);
        let mut problem = Problem::new(loss, Shape::new(2, 3, 2)?, x.clone(), w.clone(), vec![0, 2]);
        problem.weights = Some(vec![0.0, 2.0, 0.5]);
        let out = engine.run(&problem)?;
        // half a unit of the last digit, and the roundings of values up to 5
        let off = 5e-9 + 64.0 * engine.ulp() * 5.0;
        near("rows", &out.row_losses, &rows, off)?;
        near("mean", &[out.loss], &[mean], off)?;
        near("dX", &out.grad_embeddings, &dx, off)?;
        near("dW", &out.grad_prototypes, &dw, off)?;
    }
    Ok(())
}

#[test]
fn every_law_holds_on_the_reference() {
    check(64, |_| Ok((Engine::Exact, None))).unwrap();
}

#[cfg(feature = "cpu")]
#[test]
fn every_law_holds_on_the_cpu() {
    check(64, |_| Ok((Engine::Slices(Backend::cpu()), None))).unwrap();
}

/// One head for all batches of a preset: nothing of a batch stays for the next.
#[test]
fn every_law_holds_on_one_head_over_slices() {
    for backend in backends() {
        check(4, |loss| one_head(&backend, loss)).unwrap();
    }
}

#[test]
fn the_examples_of_the_laws_hold() {
    let slices = backends().into_iter().map(Engine::Slices);
    for engine in std::iter::once(Engine::Exact).chain(slices) {
        examples(&engine).unwrap();
    }
}

fn backends() -> Vec<Backend> {
    [
        Backend::reference(),
        #[cfg(feature = "cpu")]
        Backend::cpu(),
    ]
    .into()
}

/// Each exception is needed: the law fails for some batch of that family.
#[test]
fn every_exception_is_needed() {
    for Exception { law, family, of, .. } in EXCEPTIONS {
        let mut rng = random(90);
        let losses: Vec<_> = objective::PRESETS.iter().map(|p| p.loss()).filter(of).collect();
        let fails = (0..64).any(|_| {
            let loss = pick(&mut rng, &losses);
            let problem = random_batch(&mut rng, &loss, Reduction::Sum, None);
            matches!(law.holds(&Engine::Exact, &problem, &problem.run(), &mut rng), Err(Off(_)))
        });
        assert!(fails, "{law:?} holds for {family}");
    }
}

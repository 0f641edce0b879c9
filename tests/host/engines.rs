//! Problems on whatever computes: the reference, or a head over slices.

use std::{cell::RefCell, ops::Range};

use margin_softmax::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::problems::*;

/// The engine that computes.
pub enum Engine {
    /// The reference in f64.
    Exact,
    /// Anything over f32 slices, with a head of its own for each problem.
    Slices(Backend),
    /// One head over f32 slices for all problems of its kernels and sizes.
    Head(Box<RefCell<SliceHead>>),
}

/// Why a property was not found to hold.
pub struct Off(pub String);

impl From<Error> for Off {
    fn from(error: Error) -> Self {
        Off(error.to_string())
    }
}

impl Engine {
    /// Half a unit in the last place of 1.
    pub fn ulp(&self) -> f64 {
        match self {
            Engine::Exact => 1.2e-16,
            Engine::Slices(_) | Engine::Head(_) => 6e-8,
        }
    }

    pub fn run(&self, problem: &Problem) -> Result<Output<f64>, Off> {
        self.call(problem, false).map(|(out, _)| out)
    }

    /// An evaluation or a training step.
    pub fn call(&self, problem: &Problem, train: bool) -> Result<(Output<f64>, State), Off> {
        match self {
            Engine::Exact => {
                let mut moved = problem.clone();
                let out = if train { moved.train() } else { moved.try_run()? };
                Ok((out, moved.state))
            }
            Engine::Slices(backend) => {
                let mut head = backend.head_with(&problem.loss, problem.shape, &OPTIONS())?;
                Ok(on_slices(&mut head, problem, train)?)
            }
            Engine::Head(head) => Ok(on_slices(&mut head.borrow_mut(), problem, train)?),
        }
    }

    /// How far a result may be off: four times what it moves when each input moves by up to 8 units in its last place,
    /// a few dozen operations deep; and the rounding of the gradients themselves, s/|v| with |v| ≥ 0.4.
    pub fn tolerance(&self, problem: &Problem, rng: &mut ChaCha8Rng) -> f64 {
        let at = problem.run();
        let mut most = 0.0_f64;
        for _ in 0..3 {
            let mut moved = problem.clone();
            for v in moved.embeddings.iter_mut().chain(&mut moved.prototypes) {
                *v *= 1.0 + 8.0 * self.ulp() * rng.random_range(-1.0..1.0);
            }
            most = numbers(&moved.run()).iter().zip(numbers(&at)).fold(most, |m, (a, b)| m.max((a - b).abs()));
        }
        let largest = numbers(&at).into_iter().fold(problem.scale().max(1.0) / 0.4, |m, v| m.max(v.abs()));
        4.0 * most + 64.0 * self.ulp() * largest
    }
}

/// Everything of an output.
pub fn numbers(out: &Output<f64>) -> Vec<f64> {
    let Output { row_losses, log_sum_exps, grad_embeddings, grad_prototypes, grad_bias, grad_margins, .. } = out;
    let one = [out.loss, out.grad_scale, out.normalizer];
    [&one[..], row_losses, log_sum_exps, grad_embeddings, grad_prototypes, grad_bias, grad_margins].concat()
}

/// A problem in f32, its prototypes and bias those of some classes.
pub struct Thin<'a> {
    problem: &'a Problem,
    values: [Vec<f32>; 2],
    options: [Option<Vec<f32>>; 4],
    margins: [[Option<Vec<f32>>; 4]; 2],
}

impl<'a> Thin<'a> {
    pub fn new(problem: &'a Problem, range: &Range<usize>) -> Self {
        let thin = |v: &[f64]| v.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let some = |v: &Option<Vec<f64>>| v.as_deref().map(thin);
        Self {
            problem,
            values: [thin(&problem.embeddings), thin(prototypes_of(problem, range))],
            options: [
                some(&problem.weights),
                some(&problem.row_weights),
                some(&problem.upstream),
                problem.bias.as_ref().map(|b| thin(&b[range.clone()])),
            ],
            margins: [&problem.class_margins, &problem.row_margins].map(|m| m.each_ref().map(some)),
        }
    }

    pub fn batch(&self) -> Batch<'_> {
        let [class_weights, row_weights, upstream, bias] = self.options.each_ref().map(Option::as_deref);
        Batch {
            embeddings: &self.values[0],
            prototypes: &self.values[1],
            labels: &self.problem.labels,
            class_weights,
            row_weights,
            divisor: self.problem.divisor.map(|z| z as f32),
            upstream,
            bias,
            class_margins: Margins::of(&self.margins[0]),
            row_margins: Margins::of(&self.margins[1]),
            soft_labels: None,
        }
    }
}

pub fn prototypes_of<'a>(problem: &'a Problem, range: &Range<usize>) -> &'a [f64] {
    let size = problem.shape.sub_centers() * problem.shape.dim();
    &problem.prototypes[range.start * size..range.end * size]
}

pub const OPTIONS: fn() -> Options = || Options { want: EVERYTHING, ..Default::default() };

pub fn wide(out: Output) -> Output<f64> {
    let wide = |v: Vec<f32>| v.into_iter().map(f64::from).collect::<Vec<f64>>();
    Output {
        loss: out.loss.into(),
        row_losses: wide(out.row_losses),
        log_sum_exps: wide(out.log_sum_exps),
        normalizer: out.normalizer.into(),
        target_cosines: wide(out.target_cosines),
        other_cosines: wide(out.other_cosines),
        grad_embeddings: wide(out.grad_embeddings),
        grad_prototypes: wide(out.grad_prototypes),
        grad_scale: out.grad_scale.into(),
        grad_bias: wide(out.grad_bias),
        grad_margins: wide(out.grad_margins),
        counts: out.counts,
        filtered: None,
        predictions: None,
    }
}

/// One call for a whole head, and its state afterwards.
fn on_slices(head: &mut SliceHead, problem: &Problem, train: bool) -> Result<(Output<f64>, State)> {
    let thin = Thin::new(problem, &(0..problem.classes()));
    head.update(&problem.loss)?;
    head.set_state(&problem.state)?;
    let out = if train { head.train(&thin.batch())? } else { head.evaluate(&thin.batch())? };
    Ok((wide(out), *head.state()))
}

pub fn near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Result<(), Off> {
    let far = |a: f64, b: f64| (a - b).abs() > tolerance || (a - b).is_nan();
    let worst = found.iter().zip(expected).enumerate().find(|&(_, (&a, &b))| far(a, b));
    match worst {
        _ if found.len() != expected.len() => Err(Off(format!("{what}: lengths"))),
        Some((i, (a, b))) => Err(Off(format!("{what}[{i}]: {a:e} and {b:e}, allowed {tolerance:e}"))),
        None => Ok(()),
    }
}

/// Rows of `dim` values in another order: new place -> old place.
pub fn ordered(values: &[f64], places: &[usize], dim: usize) -> Vec<f64> {
    places.iter().flat_map(|&p| values[p * dim..(p + 1) * dim].to_vec()).collect()
}

/// Some of the rows, in this order.
pub fn with_rows(problem: &Problem, rows: &[usize]) -> Problem {
    let choose = |v: &Vec<f64>| ordered(v, rows, 1);
    let mut part = problem.clone();
    part.shape = Shape::new(rows.len().max(1), problem.classes(), problem.shape.dim())
        .and_then(|s| s.with_sub_centers(problem.shape.sub_centers()))
        .unwrap();
    part.embeddings = ordered(&problem.embeddings, rows, problem.shape.dim());
    part.labels = rows.iter().map(|&i| problem.labels[i]).collect();
    if problem.loss.reduction == Reduction::None {
        part.upstream = problem.upstream.as_ref().map(choose);
    }
    part.row_margins = problem.row_margins.each_ref().map(|m| m.as_ref().map(choose));
    part.row_weights = problem.row_weights.as_ref().map(choose);
    part
}

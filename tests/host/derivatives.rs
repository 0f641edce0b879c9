//! Every family and option: the loss is its definition, and every gradient is the derivative of the loss.

use std::sync::OnceLock;

use margin_softmax::{objective::*, *};

use crate::{common::*, families, problems::*};

/// How much more a row's loss may change with its logits than that of a row of weight 1 and a class of weight 1: a focal loss is a power of the cross
/// entropy.
fn lever(problem: &Problem) -> f64 {
    let row = (0..problem.rows()).map(|i| problem.row_weight(i)).fold(1.0, f64::max);
    let class = (0..problem.classes()).map(|j| problem.weight(j)).fold(1.0, f64::max);
    row * class * (1.0 + problem.loss.focal)
}

/// Several batches of every family.
fn problems() -> Vec<(String, Problem)> {
    static ALL: OnceLock<Vec<(String, Problem)>> = OnceLock::new();
    ALL.get_or_init(drawn).clone()
}

fn drawn() -> Vec<(String, Problem)> {
    let mut rng = random(20);
    let mut all = vec![];
    for (name, loss) in families() {
        // presets stand alone; MagFace has many regions
        let preset = objective::PRESETS.iter().any(|p| p.name == name);
        let times = if preset || matches!(loss.adaptive, Adaptive::MagFace(_)) { 5 } else { 1 };
        all.extend((0..times).map(|_| (name.clone(), random_problem(&mut rng, &loss))));
    }
    let margins = every_margin().into_iter().filter(|m| !matches!(m.curve, Curve::Exact));
    all.extend(margins.map(|m| ("margins of classes and rows".into(), random_problem(&mut rng, &loss_of(m)))));
    all
}

/// Whether the curve at the label, and that of the others, are detached.
fn detached(loss: &MarginSoftmax) -> [bool; 2] {
    let (target, others) = (families::target(&loss.target), families::others(&loss.others));
    [target.analytic != loss.target, others.analytic != loss.others || others.detached.is_some()]
}

/// Whether a gradient is not the derivative of the loss as it is.
fn lines(loss: &MarginSoftmax) -> bool {
    detached(loss).contains(&true) || families::others(&loss.others).follows_target
}

/// The largest slope of a curve at the cosines of a batch.
fn steepest(problem: &Problem) -> f64 {
    let margins = problem.margins();
    let mut most = 1.0_f64;
    for i in problem.counted().filter(|_| problem.loss.similarity == Similarity::Cosine) {
        for j in 0..problem.classes() {
            let value = |c: f64| problem.value(i, j, c, &margins[i]);
            most = most.max(central_difference(value, problem.cosine(i, j), 1e-4).abs());
        }
    }
    most
}

#[test]
fn every_loss_is_its_definition() {
    let problems = problems();
    assert!(problems.len() > 800, "{}", problems.len());
    for (name, problem) in &problems {
        let (out, margins) = (problem.run(), problem.margins());
        let rows = problem.defined(|i, j, c| problem.value(i, j, c, &margins[i]));
        // an ulp of a cosine times the steepest slope and the scale, a few dozen operations deep
        let tolerance = 1e-14 * (problem.largest_scale() * steepest(problem) + 10.0) * lever(problem);
        all_close(format_args!("{name}: {problem:?}"), &out.row_losses, &rows, tolerance);
        let reduced = problem.reduced(&rows);
        close(format_args!("{name}, reduced: {problem:?}"), out.loss, reduced, tolerance * 10.0);
        close(format_args!("{name}, normalizer"), out.normalizer, problem.normalizer(), 1e-14);
        if problem.loss.link == Link::Softmax {
            let sum = |i: usize| {
                let logit = |j: usize| problem.row_scale(i) * problem.value(i, j, problem.cosine(i, j), &margins[i]);
                if problem.ignored(i) {
                    0.0
                } else {
                    Problem::log_sum_exp(&(0..problem.classes()).map(logit).collect::<Vec<_>>())
                }
            };
            let sums: Vec<f64> = (0..problem.rows()).map(sum).collect();
            all_close(format_args!("{name}, log-sum-exps: {problem:?}"), &out.log_sum_exps, &sums, tolerance);
        } else {
            assert!(out.log_sum_exps.is_empty());
        }
    }
}

/// The scalar of a batch near `base`, with every detached curve replaced by the line of its slope through its value at
/// `base`, and the targets that other classes look at held fixed: what a detached gradient is the derivative of.
fn lined(base: &Problem) -> impl Fn(&Problem) -> f64 + '_ {
    let (margins, [target, others]) = (base.margins(), detached(&base.loss));
    let families::OthersFacts { detached: slope, follows_target, .. } = families::others(&base.loss.others);
    move |moved| {
        let value = |i: usize, j: usize, c: f64| {
            let own = j == base.label(i);
            if !(if own { target } else { others }) {
                let problem = if own || !follows_target { moved } else { base };
                return problem.value(i, j, c, &margins[i]);
            }
            let at = base.cosine(i, j);
            let value = base.value(i, j, at, &margins[i]);
            value + (c - at) * slope.filter(|_| !own).map_or(1.0, |slope| slope(at, value))
        };
        moved.weighed(&moved.defined(value))
    }
}

type Part = fn(&mut Problem) -> &mut Vec<f64>;

/// h: the fifth derivative of a series of high degree, and of a curve of many turns, needs a smaller one.
fn step(loss: &MarginSoftmax) -> f64 {
    let high = |curve: &Curve| matches!(curve, Curve::Series(s) if s.degree > 31);
    let series = match &loss.target {
        Target::Unified(m) => high(&m.curve),
        Target::Angle(a) => high(&a.curve),
        _ => false,
    };
    let turns = matches!(&loss.target, Target::Unified(m) if m.m1 > 4.0);
    if series {
        2e-5
    } else if turns {
        5e-5
    } else {
        1e-4
    }
}

/// The derivatives of `objective` by every value of a part of the batch.
fn differences(problem: &Problem, part: Part, objective: &dyn Fn(&Problem) -> f64) -> Vec<f64> {
    let values = part(&mut problem.clone()).clone();
    let mut moved = problem.clone();
    let mut along = |at: usize| {
        let mut at_value = |x: f64| {
            part(&mut moved)[at] = x;
            objective(&moved)
        };
        let (x, h) = (values[at], step(&problem.loss));
        let outer = at_value(x + 2.0 * h) - at_value(x - 2.0 * h);
        let inner = at_value(x + h) - at_value(x - h);
        at_value(x);
        (8.0 * inner - outer) / (12.0 * h)
    };
    (0..values.len()).map(&mut along).collect()
}

/// dX, dW, db and dL/ds. What an embedding's gradient does not see, the running statistics and the draws, is written out as
/// margins of rows first.
#[test]
fn every_gradient_is_the_derivative_of_the_loss() {
    for (name, mut problem) in problems() {
        if problem.loss.similarity == Similarity::Dot {
            problem.bias.get_or_insert_with(|| vec![0.0; problem.shape.classes()]);
        }
        let (out, frozen) = (problem.run(), problem.frozen());
        // the same numbers; margins one ulp apart, times the slopes
        let ulps = 1e-13 * (problem.largest_scale() * steepest(&problem)).max(10.0);
        let same = frozen.run();
        all_close(format_args!("frozen dX of {name}: {problem:?}"), &same.grad_embeddings, &out.grad_embeddings, ulps);

        let lined = lined(&problem);
        let objective: &dyn Fn(&Problem) -> f64 = if lines(&problem.loss) { &lined } else { &Problem::objective };
        // as in gradients.rs: the rounding of a loss of up to 1e3 over h, and h⁴ f⁽⁵⁾/30; measured 2e-11 of s/|v|
        let tolerance = 1e-10 * (problem.largest_scale() / 0.4).max(1.0) * lever(&problem);
        let check = |what: &str, found: &[f64], part: Part| {
            let expected = differences(&frozen, part, objective);
            all_close(format_args!("{what} of {name}: {problem:?}"), found, &expected, tolerance);
        };
        check("dX", &out.grad_embeddings, |p| &mut p.embeddings);
        check("dW", &out.grad_prototypes, |p| &mut p.prototypes);
        if problem.loss.similarity == Similarity::Dot {
            check("db", &out.grad_bias, |p| p.bias.as_mut().unwrap());
        } else if let Link::Binary(at) = problem.loss.link {
            let moved = |bias: f64| {
                let link = Link::Binary(Binary { bias, ..at });
                Problem { loss: MarginSoftmax { link, ..problem.loss.clone() }, ..problem.clone() }.objective()
            };
            close(format_args!("db of {name}"), out.grad_bias[0], central_difference(moved, at.bias, 1e-3), 1e-9);
        } else {
            assert!(out.grad_bias.is_empty());
        }
        let scaled = |scale: f64| {
            let mut moved = problem.clone();
            moved.set_scale(scale);
            moved.objective()
        };
        // h = 1e-3·s: the rounding of a loss of 1e3 over it is 1e-10
        let by_scale = central_difference(scaled, problem.scale(), 1e-3 * problem.scale());
        close(format_args!("dL/ds of {name}: {problem:?}"), out.grad_scale, by_scale, 1e-9);
    }
}

/// The batches above reach every option and every side of every kink.
#[test]
fn the_batches_reach_every_option() {
    let problems: Vec<Problem> = problems().into_iter().map(|(_, problem)| problem).collect();
    let count = |has: &dyn Fn(&Problem) -> bool| problems.iter().filter(|p| has(p)).count();
    let many = |what: &str, least: usize, has: &dyn Fn(&Problem) -> bool| {
        assert!(count(has) >= least, "{what}: {}", count(has));
    };
    for k in 0..4 {
        many("margins of classes", 50, &|p| p.class_margins[k].is_some() && p.counted().count() > 0);
        many("margins of rows", 50, &|p| p.row_margins[k].is_some() && p.counted().count() > 0);
        let series = |p: &Problem| matches!(&p.loss.target, Target::Unified(m) if m.curve != Curve::Exact);
        many("a series with margins of rows", 20, &|p| series(p) && p.row_margins[k].is_some());
    }
    for k in 1..=3 {
        many("sub-centers", 100, &|p| p.shape.sub_centers() == k);
    }
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        many(reduction.name(), 100, &|p| p.loss.reduction == reduction && p.upstream.is_some());
        many(reduction.name(), 100, &|p| p.loss.reduction == reduction && p.upstream.is_none());
        let magface = |p: &Problem| matches!(p.loss.adaptive, Adaptive::MagFace(_)) && p.loss.reduction == reduction;
        many("magface with upstream", 5, &|p| magface(p) && p.upstream.is_some());
    }
    many("class weights", 100, &|p| p.weights.is_some());
    many("row weights", 100, &|p| p.row_weights.is_some());
    many("a divisor from outside", 50, &|p| p.divisor.is_some());
    many("focal", 50, &|p| p.loss.focal > 0.0);
    many("z-loss", 100, &|p| p.loss.z_loss > 0.0);
    many("smoothing", 100, &|p| p.loss.label_smoothing > 0.0);
    many("ignored rows", 100, &|p| p.counted().count() < p.rows());
    many("detached", 50, &|p| detached(&p.loss)[0]);
    many("detached others", 50, &|p| detached(&p.loss)[1]);
    many("a linear head without bias", 3, &|p| p.loss.similarity == Similarity::Dot && p.bias.is_none());
    many("a linear head with bias", 3, &|p| p.loss.similarity == Similarity::Dot && p.bias.is_some());

    // rows of MagFace: below, between and above the two lengths, in front of and behind every threshold
    for fallback in FALLBACKS {
        let mut found = [[0; 2]; 3];
        for p in &problems {
            let (Adaptive::MagFace(f), Target::Unified(m)) = (p.loss.adaptive, &p.loss.target) else { continue };
            if m.fallback != fallback || m.slope == Slope::Detached {
                continue;
            }
            let margins = p.margins();
            for i in p.counted() {
                let long = length(p.embedding(i));
                let place = if long < f.lower_length { 0 } else { 1 + usize::from(long > f.upper_length) };
                let [m0, m1, m2, m3] = margins[i];
                let last = kinks(&Unified { m0, m1, m2, m3, ..m.clone() }).into_iter().fold(-1.0, f64::max);
                found[place][usize::from(p.cosine(i, p.label(i)) < last)] += 1;
            }
        }
        let kinked = !matches!(fallback, Fallback::None);
        assert!(found.iter().all(|[front, behind]| *front > 0 && (*behind > 0 || !kinked)), "{fallback:?}: {found:?}");
    }

    // AdaFace's ẑ at both ends and between
    let z = |p: &Problem| match p.loss.adaptive {
        Adaptive::AdaFace(f) if f.margin > 0.0 => {
            p.counted().map(|i| -p.margins()[i][2] / f.margin).collect::<Vec<_>>()
        }
        _ => vec![],
    };
    let all: Vec<f64> = problems.iter().flat_map(z).collect();
    let share = |has: fn(f64) -> bool| all.iter().filter(|&&z| has(z)).count();
    assert!(share(|z| z > 0.999) > 20 && share(|z| z < -0.999) > 20 && share(|z| z.abs() < 0.9) > 20);

    // others that are transformed, and others that are not
    for p in [
        Others::TopK(TopK::default()),
        Others::InterclassFilter(InterclassFilter::default()),
        Others::Curricular,
        Others::Rectified,
        Others::MvSoftmax(MvSoftmax::default()),
    ] {
        let (mut moved, mut left) = (0, 0);
        for problem in problems.iter().filter(|q| q.loss.others.name() == p.name()) {
            let margins = problem.margins();
            for i in problem.counted() {
                for j in (0..problem.classes()).filter(|&j| j != problem.label(i)) {
                    let c = problem.cosine(i, j);
                    let kept = problem.value(i, j, c, &margins[i]) == c;
                    (moved, left) = (moved + usize::from(!kept), left + usize::from(kept));
                }
            }
        }
        assert!(moved > 50 && left > 50, "{}: {moved} {left}", p.name());
    }
}

//! The gradients of the margins: derivatives of the loss as it is defined, in every sum that can be asked for.

use std::f64::consts::{FRAC_PI_2, PI};

use margin_softmax::{data::MarginGradients, objective::*, *};

use crate::{common::*, families, problems::*};

/// Every family, and every curve and fallback.
fn all_losses() -> Vec<(String, MarginSoftmax)> {
    let mut all = families();
    all.extend(every_margin().into_iter().map(|m| (format!("{m:?}"), loss_of(m))));
    all
}

/// Which of m0..m3 a unified loss may move, from its definition.
fn free(loss: &MarginSoftmax) -> [bool; 4] {
    let Target::Unified(margin) = &loss.target else { return [false; 4] };
    let fitted = matches!(&margin.curve, Curve::Series(s) if s.coefficients == Coefficients::Fit);
    let linear = loss.similarity == Similarity::Dot;
    let m1 = !linear && !fitted && margin.fallback != Fallback::Sine;
    [true, m1, !linear, true]
}

impl Problem {
    fn with_margins(&self, margins: MarginGradients) -> Result<Output<f64>> {
        let want = EVERYTHING.with_margins(margins);
        reference::evaluate_with(&self.loss, self.shape, want, &self.batch(), &self.state)
    }

    /// With every margin that may move as a margin of the rows.
    fn spelled_out(&self) -> Self {
        let (mut all, margins) = (self.clone(), self.margins());
        for (k, _) in free(&self.loss).into_iter().enumerate().filter(|(_, free)| *free) {
            all.row_margins[k] = Some(margins.iter().map(|m| m[k]).collect());
        }
        all
    }
}

/// A series that is damped, at margins where the line x takes its place: the loss jumps there.
fn jumps(problem: &Problem, m: &[f64; 4]) -> bool {
    let Target::Unified(margin) = &problem.loss.target else { return false };
    let damped = matches!(&margin.curve, Curve::Series(s) if s.damping != Damping::None);
    let clipped = matches!(margin.fallback, Fallback::Clip(_) | Fallback::Easy);
    m[1] == 1.0 && m[2] == 0.0 && (damped || clipped)
}

/// The loss as it is written out in problems.rs is moved, not the code under test. What the other classes see of the target is
/// held fixed, as everywhere.
#[test]
fn margin_gradients_are_derivatives() {
    let (mut checked, mut moved, mut rng) = (0, [0; 4], random(60));
    for (name, loss) in all_losses().into_iter().filter(|(_, loss)| families::learns_margins(loss)) {
        let problem = random_problem(&mut rng, &loss);
        let (problem, base) = (problem.spelled_out(), problem.margins());
        let what = format!("{name}: {problem:?}");
        let out = problem.with_margins(MarginGradients::Rows).unwrap_or_else(|e| panic!("{e}: {what}"));
        assert_eq!(out.grad_margins.len(), 4 * problem.rows());
        for (i, found) in out.grad_margins.chunks_exact(4).enumerate() {
            if problem.ignored(i) {
                assert_eq!(found, [0.0; 4]);
                continue;
            }
            for k in (0..4).filter(|_| !jumps(&problem, &base[i])) {
                if !free(&problem.loss)[k] {
                    assert_eq!(found[k], 0.0, "m{k} {what}");
                    continue;
                }
                let along = |value: f64| {
                    let mut margins = base.clone();
                    margins[i][k] = value;
                    let at = |i: usize, j: usize, c: f64| {
                        let own = if j == problem.label(i) { &margins[i] } else { &base[i] };
                        problem.value(i, j, c, own)
                    };
                    problem.weighed(&problem.defined(at))
                };
                let (x, h) = (base[i][k], 1e-4);
                let inner = along(x + h) - along(x - h);
                let expected = (8.0 * inner - (along(x + 2.0 * h) - along(x - 2.0 * h))) / (12.0 * h);
                // the rounding of a loss of up to 1e4, with a factor of 3 from row and class, over h; the fourth power of h
                let tolerance = 3e-9 * (problem.largest_scale() / 8.0).max(1.0) * (1.0 + problem.loss.focal);
                close(format_args!("m{k} of row {i}, {what}"), found[k], expected, tolerance);
                checked += 1;
                moved[k] += usize::from(expected.abs() > 1e-6);
            }
        }
    }
    assert!(checked > 3000 && moved.iter().all(|&count| count > 500), "{checked} {moved:?}");
}

/// Sums over the rows, over the rows of each class, and shards: all of the same numbers.
#[test]
fn margin_gradients_add_up() {
    let mut rng = random(61);
    for (name, loss) in families::presets_and(families::Suite::Grid) {
        if !families::learns_margins(&loss) {
            continue;
        }
        let problem = random_problem(&mut rng, &loss);
        let get = |margins| problem.with_margins(margins).unwrap();
        let rows = get(MarginGradients::Rows);
        let mut sums = vec![0.0; 4];
        let mut classes = vec![0.0; 4 * problem.classes()];
        for i in problem.counted() {
            for k in 0..4 {
                sums[k] += rows.grad_margins[4 * i + k];
                classes[4 * problem.label(i) + k] += rows.grad_margins[4 * i + k];
            }
        }
        all_close(format_args!("sum of {name}"), &get(MarginGradients::Sum).grad_margins, &sums, 1e-12);
        let by_class = get(MarginGradients::Classes);
        all_close(format_args!("classes of {name}"), &by_class.grad_margins, &classes, 1e-12);
        // whoever does not ask gets the same of everything else, and nothing here
        let plain = problem.run();
        assert!(plain.grad_margins.is_empty());
        assert_eq!(Output { grad_margins: vec![], ..by_class }, plain, "{name}");
    }
}

fn one_row(loss: &MarginSoftmax, x: [f64; 2]) -> Vec<f64> {
    let (shape, w) = (Shape::new(1, 2, 2).unwrap(), [1.0, 0.0, -0.6, 0.8]);
    let batch = Batch { embeddings: &x[..], prototypes: &w[..], labels: &[0_i64], ..Batch::default() };
    let want = Want::LOSS.with_margins(MarginGradients::Sum);
    let out = reference::evaluate(loss, shape, want, &batch).unwrap();
    let target = loss.target.value_slope(out.target_cosines[0]).0;
    // two classes: dL/dφ = −s·σ(s·(c − φ))
    let pull = -loss.scale / (1.0 + (loss.scale * (target - out.other_cosines[0])).exp());
    out.grad_margins.iter().map(|g| g / pull).collect()
}

/// The threshold itself belongs to the fallback with an exact curve, to the series with a series.
#[test]
fn the_threshold_belongs_to_the_fallback() {
    let with = |fallback, curve| {
        let margin = Unified { fallback, curve, ..unified(1.0, 1.0, FRAC_PI_2, 0.0) };
        MarginSoftmax { scale: 2.0, ..loss_of(margin) }
    };
    let at = |fallback, curve, y: f64| one_row(&with(fallback, curve), [y, 1.0]);
    let exact = || Curve::Exact;
    // θ = π/2, so that m1·θ + m2 = π: ψ = −1; −sin a/m1 with a = (π − m2)/m1, and a times that
    all_close("continuous", &at(Fallback::Continuous, exact(), 0.0), &[-1.0, -FRAC_PI_2, -1.0, -1.0], 1e-15);
    // −sin m2 − m2 cos m2; m1 must stay 1
    all_close("sine", &at(Fallback::Sine, exact(), 0.0), &[-FRAC_PI_2, 0.0, -1.0, -1.0], 1e-15);
    // −sin(m1·θ + m2) = 0 just above, and without a fallback there
    all_close("none", &at(Fallback::None, exact(), 0.0), &[-1.0, 0.0, 0.0, -1.0], 1e-15);
    all_close("mirror", &at(Fallback::Mirror, exact(), 0.0), &[-1.0, 0.0, 0.0, -1.0], 1e-15);
    all_close("above", &at(Fallback::Continuous, exact(), 1e-9), &[-1.0, 0.0, 0.0, -1.0], 1e-8);
    let series = Curve::Series(series(30, Damping::None));
    // the series of −sin(θ + m2) there, which is 0 to its error
    let found = at(Fallback::Continuous, series, 0.0);
    assert!(found[2].abs() < 0.03 && found[1].abs() < 0.03, "{found:?}");
    // the angle is clipped: ψ does not move
    all_close("clip", &at(Fallback::Clip(0.3), exact(), -0.2)[1..], &[0.0, 0.0, -1.0], 0.0);
    // the cosine itself below 0
    all_close("easy", &at(Fallback::Easy, exact(), -0.2)[1..], &[0.0, 0.0, -1.0], 0.0);
}

/// Where no curve is evaluated: dψ/dm2 = −sin θ and dψ/dm1 = −θ·sin θ, those of margins nearby; so with a series that is damped.
#[test]
fn without_an_angular_margin_it_is_that_of_margins_nearby() {
    let sine = 0.8_f64;
    let angle = 0.6_f64.acos();
    let found = one_row(&MarginSoftmax::cosface().with_scale(2.0), [0.6, sine]);
    all_close("cosface", &found, &[0.6, -angle * sine, -sine, -1.0], 1e-14);
    let damped = |m2: f64| Unified { curve: Curve::Series(series(30, Damping::Jackson)), ..unified(0.8, 1.0, m2, 0.1) };
    let [at, near] = [0.0, 1e-9].map(|m2| one_row(&loss_of(damped(m2)).with_scale(2.0), [0.6, sine]));
    all_close("damped", &at[1..], &near[1..], 1e-7);
    assert!((at[2] + 0.8 * sine).abs() < 0.02 && (at[1] + 0.8 * angle * sine).abs() < 0.02, "{at:?}");
}

/// A detached slope is one of dφ/dx alone.
#[test]
fn a_detached_slope_leaves_the_margins_their_gradient() {
    for fallback in FALLBACKS {
        let margin = Unified { fallback, ..unified(0.9, 1.0, 0.4, 0.1) };
        let detached = Unified { slope: Slope::Detached, ..margin.clone() };
        for x in [[0.5, 0.5], [-0.9, 0.1], [-1.0, 0.0], [1.0, 0.0]] {
            let [one, other] = [&margin, &detached].map(|m| one_row(&loss_of(m.clone()).with_scale(3.0), x));
            assert_eq!(one, other, "{fallback:?} {x:?}");
            assert!(one.iter().all(|g| g.is_finite()));
        }
    }
}

/// The derivatives of closed coefficients by m1, at whole numbers too, where their quotients are 0/0.
#[test]
fn the_series_follows_m1() {
    for (degree, damping) in [(30, Damping::None), (64, Damping::Jackson), (7, Damping::Lanczos)] {
        for m1 in [0.3, 0.999, 1.0, 1.01, 1.35, 2.0, 2.015, 2.025, 6.0, 16.0] {
            let at = |m1: f64, x: f64| {
                let curve = Curve::Series(series(degree, damping));
                Unified { curve, fallback: Fallback::None, ..unified(1.0, m1, 0.3, 0.0) }.value_slope(x).0
            };
            for x in [-0.95_f64, -0.3, 0.0, 0.4, 0.99] {
                let curve = Curve::Series(series(degree, damping));
                let margin = Unified { curve, fallback: Fallback::None, ..unified(1.0, m1, 0.3, 0.0) };
                let found = one_row(&loss_of(margin).with_scale(2.0), [x, (1.0 - x * x).sqrt()]);
                if m1 < 16.0 {
                    let expected = central_difference(|m1| at(m1, x), m1, 1e-4);
                    close(
                        format_args!("{degree} {damping:?} m1 {m1} at {x}"),
                        found[1],
                        expected,
                        1e-6 * (1.0 + PI * m1),
                    );
                }
            }
        }
    }
}

#[test]
fn margins_that_nobody_can_move_are_refused() {
    let refused = |loss: &MarginSoftmax, why: &str| {
        let (shape, options) = (Shape::new(4, 8, 4).unwrap(), |margins| Options {
            want: Want::ALL.with_margins(margins),
            ..Options::default()
        });
        for &margins in MarginGradients::ALL {
            let error = Backend::Reference.head_with(loss, shape, &options(margins)).err();
            let named = matches!(&error, Some(Error::Combination { what: "grad_margins", why: w }) if w.contains(why));
            assert!(named, "{error:?} {loss:?}");
            let mut head = Backend::Reference.head_with(&MarginSoftmax::arcface(), shape, &options(margins)).unwrap();
            let error = head.update(loss).err();
            assert!(matches!(error, Some(Error::Combination { what: "grad_margins", .. })), "{error:?}");
            assert_eq!(*head.loss(), MarginSoftmax::arcface());
        }
    };
    let named = |name: &str| PRESETS.iter().find(|preset| preset.name == name).unwrap().loss();
    for name in ["adaface", "magface", "elasticface_arc", "elasticface_cos"] {
        refused(&named(name), "follow from the rows");
    }
    for name in ["arcgrad", "li_arcface", "sphereface2"] {
        refused(&named(name), "only a unified target");
    }
    refused(
        &MarginSoftmax { target: Target::Custom(Custom::new(Cubic([0.4, 0.7, 0.2]))), ..Default::default() },
        "only a unified target",
    );
    let given = Series { degree: 1, coefficients: Coefficients::Given(vec![0.0, 1.0]), damping: Damping::None };
    refused(&MarginSoftmax::arcface().with_margin(|m| m.curve = Curve::Series(given.clone())), "given series");
    // soft labels
    let shape = Shape::new(4, 8, 4).unwrap();
    let want = Want::ALL.with_margins(MarginGradients::Sum);
    let options = Options { want, soft_labels: Some(1), ..Options::default() };
    let error = Backend::Reference.head_with(&MarginSoftmax::arcface(), shape, &options).err();
    assert!(matches!(error, Some(Error::Combination { what: "grad_margins", .. })), "{error:?}");
}

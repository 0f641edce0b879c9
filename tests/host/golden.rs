//! The golden numbers of the unified margins; computed in float64 or 40-digit arithmetic outside this crate.

use std::f64::consts::PI;

use margin_softmax::{
    MarginSoftmax, Others,
    objective::chebyshev::{closed, fit, value_slope},
    objective::{Coefficients, Curve, Damping, Fallback, Series, Slope, Unified},
};

use crate::common::*;

fn arc(m2: f64, fallback: Fallback) -> Unified {
    Unified { fallback, ..unified(1.0, 1.0, m2, 0.0) }
}

fn sphere(m1: f64, fallback: Fallback) -> Unified {
    Unified { fallback, ..unified(1.0, m1, 0.0, 0.0) }
}

/// Section 2: x* = cos((π − m2)/m1) where m1·π + m2 passes π.
#[test]
fn thresholds_are_as_printed() {
    printed("m1 = 1.35", unified(1.0, 1.35, 0.0, 0.0).threshold().unwrap(), "-.68624164");
    for m2 in [0.2, 0.5, 1.5, 3.0] {
        close(m2, unified(1.0, 1.0, m2, 0.0).threshold().unwrap(), -f64::cos(m2), 1e-15); // one rounding of π − m2
    }
    for (m1, m2) in [(1.0, 0.0), (0.5, 1.0), (0.9, 0.3)] {
        assert_eq!(unified(1.0, m1, m2, 0.0).threshold(), None, "{m1} {m2}");
    }
}

/// Section 2: the slopes inside and at both ends. (At −1 the rounding of κ = m1·π + m2 is divided by 1e-4.)
#[test]
fn slopes_are_as_printed() {
    let none = Fallback::None;
    for (margin, x, expected) in [
        (arc(0.5, none), 1.0, "4795.1330"),
        (arc(0.5, none), -1.0, "-4793.3778"),
        (sphere(1.35, none), 1.0, "1.8225"),
        (sphere(1.35, none), -1.0, "-12027.761"),
        (sphere(2.0, none), -1.0, "-4.0000000"),
        (sphere(3.0, none), -1.0, "9.0000000"),
        (sphere(2.0, Fallback::Mirror), -1.0, "4.0000000"),
        (sphere(3.0, Fallback::Mirror), -1.0, "9.0000000"),
        (sphere(6.0, Fallback::Mirror), 1.0, "36"),
        (arc(0.5, none), 0.99, "4.242155"),
        (arc(0.5, none), 0.9, "1.867472"),
        (arc(0.5, none), 0.5, "1.154379"),
        (arc(0.5, none), 0.0, ".877583"),
        (arc(0.5, none), -0.5, ".600786"),
        (arc(0.5, none), -0.87, ".031626"),
        (sphere(1.35, none), 0.9, "1.771406"),
        (sphere(1.35, none), 0.5, "1.539654"),
        (sphere(1.35, none), 0.0, "1.151064"),
    ] {
        printed(format_args!("{margin:?} at {x}"), margin.value_slope(x).1, expected);
    }
    for (m0, m3, slope) in [(1.0, 0.0, 1.0), (1.0, 0.35, 1.0), (0.35, 0.0, 0.35)] {
        assert!([-1.0, 0.0, 1.0].iter().all(|&x| unified(m0, 1.0, 0.0, m3).value_slope(x) == (m0 * x - m3, slope)));
    }
}

/// Section 2: every fallback at x = −0.95, and its slope there.
#[test]
fn fallback_values_are_as_printed() {
    for (margin, value) in [
        (arc(0.5, Fallback::None), "-.98340401"),
        (arc(0.5, Fallback::Continuous), "-1.07241744"),
        (arc(0.5, Fallback::Sine), "-1.18971277"),
        (arc(0.5, Fallback::Mirror), "-1.01659599"),
        (arc(0.5, Fallback::Easy), "-.95"),
        (sphere(1.35, Fallback::None), "-.78329302"),
        (sphere(1.35, Fallback::Continuous), "-1.26375836"),
        (sphere(1.35, Fallback::Mirror), "-1.21670698"),
    ] {
        let (found, slope) = margin.value_slope(-0.95);
        printed(format_args!("{margin:?}"), found, value);
        let straight = !matches!(margin.fallback, Fallback::None | Fallback::Mirror);
        assert!(!straight || slope == 1.0, "{margin:?}: slope {slope}");
    }
}

/// Section 2: `sine` jumps at x*, `easy` at 0, and the rest do not.
#[test]
fn jumps_are_as_printed() {
    // both sides 1e-12 off the kink, slope below 2: 4e-12 on top of the printed digits
    let jump = |margin: Unified, at: f64| margin.value_slope(at - 1e-12).0 - margin.value_slope(at + 1e-12).0;
    for (m2, sine) in [(0.2, "-.0198"), (0.3, "-.0440"), (0.5, "-.1173")] {
        printed(m2, jump(arc(m2, Fallback::Sine), -f64::cos(m2)), sine);
        close(m2, jump(arc(m2, Fallback::Easy), 0.0), f64::sin(m2), 1e-11);
        close(m2, jump(arc(m2, Fallback::Continuous), -f64::cos(m2)), 0.0, 1e-11);
        close(m2, jump(arc(m2, Fallback::Mirror), -f64::cos(m2)), 0.0, 1e-11);
        // the series meets the exact −1 of the fallback within its own error there
        for (damping, most) in [(Damping::None, 2e-4), (Damping::Jackson, 5e-3)] {
            let margin = Unified { curve: Curve::Series(series(30, damping)), ..arc(m2, Fallback::Continuous) };
            let step = jump(margin, -f64::cos(m2));
            assert!(step.abs() < 1.25 * most, "{m2} {damping:?}: {step}"); // "2e-4" has one digit
        }
    }
}

/// Section 3: closed form.
#[test]
fn closed_coefficients_are_as_printed() {
    let c = closed(1.0, 0.2, 30);
    all_printed("m = .2", &[c[0], c[1], c[2], c[4], c[6]], "-.12647682 .98006658 .08431788 .01686358 .00722725");
    for (x, value, slope) in [(1.0, Some(".97598668"), "4.896768"), (-1.0, None, "-2.936635")] {
        let found = value_slope(&c, x);
        value.inspect(|value| printed(x, found.0, value));
        printed(x, found.1, slope);
    }
    all_printed("a = 1.35", &closed(1.35, 0.2, 30)[..5], "-.27400800 .79911455 .45867240 -.09157391 .07044677");
}

/// Section 3: the fit of ChebyAAM's authors. Long digits: the normal equations of the same least squares solved by LU
/// in 40 digits (mpmath), with no use of the structure that `fit` exploits.
#[test]
fn fitted_coefficients_are_the_authors() {
    let of = |a: f64, b: f64| fit(|x| (a * x.acos() + b).cos(), 30);
    let c = of(1.0, 0.2);
    all_printed(
        "printed",
        &[c[0], c[1], c[2], c[4], c[6]],
        "-.126472762 .980066578 .0843260071 .0168717009 .00723537142",
    );
    let (value, slope) = value_slope(&c, 1.0);
    all_printed("ends", &[value, slope, value_slope(&c, -1.0).1], ".97611261 4.937065 -2.976932");
    for (a, b, coefficients, ends) in [
        (
            1.0,
            0.2,
            "-.126472761987750 .980066577841242 .0843260070840369 .0168717008734490 .000289496656690599",
            ".976112607741566 4.93706514447501",
        ),
        (
            1.0,
            0.3,
            "-.188127964241270 .955336489125606 .125434756037441 .0250966191354076 .000430625660591894",
            ".949454967018934 6.84136343395138",
        ),
        (
            1.0,
            0.5,
            "-.305201974517576 .877582561890373 .203494123641611 .0407145091094421 .000698608537123319",
            ".868040906733657 10.4265459649101",
        ),
        (
            1.35,
            0.2,
            "-.273991952501919 .799092729255801 .458704484229242 .0704788613723404 .00114407140193712",
            ".975080817800308 7.45951870564096",
        ),
    ] {
        let (c, what) = (of(a, b), format!("a = {a}, b = {b}"));
        all_printed(&what, &[c[0], c[1], c[2], c[4], c[30]], coefficients);
        let (value, slope) = value_slope(&c, 1.0);
        all_printed(&what, &[value, slope], ends);
        assert!(a != 1.0 || (3..30).step_by(2).all(|k| c[k].abs() < 1e-14), "{what}: odd coefficients");
    }
}

/// Section 3: how far closed form and fit differ, both at x = ±1.
#[test]
fn closed_form_and_fit_differ_as_printed() {
    for (m, value, slope) in [(0.2, "1.26", ".040"), (0.3, "1.87", ".060"), (0.5, "3.04", ".097")] {
        let (closed, fit) = (closed(1.0, m, 30), fit(|x| (x.acos() + m).cos(), 30));
        let most = |part: fn((f64, f64)) -> f64| {
            let off = |x: f64| (part(value_slope(&closed, x)) - part(value_slope(&fit, x))).abs();
            let inside = (1..2000).map(|j| off((PI * f64::from(j) / 2000.0).cos())).fold(0.0, f64::max);
            assert!(inside <= off(1.0) + 1e-12 && (off(1.0) - off(-1.0)).abs() < 1e-10, "the ends are the worst");
            off(1.0)
        };
        printed(m, most(|(value, _)| value) * 1e4, value);
        printed(m, most(|(_, slope)| slope), slope);
    }
}

/// The largest |p(x) − cos(θ + m)| over a fine grid that holds both ends.
fn worst(c: &[f64], m: f64) -> f64 {
    let off = |angle: f64| (value_slope(c, angle.cos()).0 - (angle + m).cos()).abs();
    (0..=4000).map(|j| off(PI * f64::from(j) / 4000.0)).fold(0.0, f64::max)
}

/// Section 3: error and end slopes over the degree, and the general formula for them.
#[test]
fn the_table_over_the_degree_is_as_printed() {
    for (n, m, expected) in [
        (3, 0.2, ".042159 1.317338 .642795"),
        (5, 0.2, ".025295 1.587155 .372978"),
        (9, 0.2, ".014053 2.104305 -.144172"),
        (15, 0.2, ".008432 2.868787 -.908654"),
        (30, 0.2, ".004080 4.896768 -2.936635"),
        (3, 0.5, ".101737 1.691481 .063684"),
        (5, 0.5, ".061042 2.342599 -.587434"),
        (9, 0.5, ".033912 3.590576 -1.835411"),
        (15, 0.5, ".020347 5.435412 -3.680247"),
        (30, 0.5, ".009846 10.329302 -8.574137"),
    ] {
        let c = closed(1.0, m, n);
        let found = [worst(&c, m), value_slope(&c, 1.0).1, value_slope(&c, -1.0).1];
        all_printed(format_args!("n = {n}, m = {m}"), &found, expected);
    }
    for n in 1..=64 {
        for m in [0.1, 0.2, 0.5, 1.5] {
            let (c, k) = (closed(1.0, m, n), (n / 2) as f64);
            let swing = 4.0 / PI * f64::sin(m) * (k + k / (2.0 * k + 1.0));
            close(n, value_slope(&c, 1.0).1, m.cos() + swing, 1e-11); // terms up to 64² · c_64 · 1e-16, 33 of them
            close(n, value_slope(&c, -1.0).1, m.cos() - swing, 1e-11);
            close(n, value_slope(&c, 0.0).1, m.cos(), 1e-14);
        }
    }
}

/// Section 3: damping factors, and what damping does to slope and error at n = 30.
#[test]
fn the_table_over_the_damping_is_as_printed() {
    let ones = Series { coefficients: Coefficients::Given(vec![1.0; 31]), ..series(30, Damping::Jackson) };
    let g = ones.coefficients(1.0, 0.0);
    all_printed("jackson", &[g[1], g[2], g[30]], ".99518473 .98138574 .00060046");
    for (damping, m, expected) in [
        (Damping::None, 0.2, ".0976 4.8968 .0041"),
        (Damping::None, 0.3, "-.0668 6.7814 .0061"),
        (Damping::None, 0.5, "-.0411 10.3293 .0098"),
        (Damping::Jackson, 0.2, ".0267 2.5980 .0198"),
        (Damping::Jackson, 0.3, ".0051 3.3644 .0270"),
        (Damping::Jackson, 0.5, ".0011 4.7890 .0406"),
        (Damping::Lanczos, 0.2, "-.0113 3.2805 .0115"),
        (Damping::Lanczos, 0.3, ".0039 4.3781 .0162"),
        (Damping::Lanczos, 0.5, ".0012 6.4315 .0252"),
    ] {
        let c = series(30, damping).coefficients(1.0, m);
        let angle = |j: i32| (PI - m) * f64::from(j) / 8000.0;
        let least = (0..=8000).map(|j| value_slope(&c, angle(j).cos()).1).fold(f64::INFINITY, f64::min);
        let found = [least, value_slope(&c, 1.0).1, worst(&c, m)];
        all_printed(format_args!("{damping:?}, m = {m}"), &found, expected);
    }
}

/// Section 8's batch, scale 8, mean.
fn batch(loss: MarginSoftmax) -> Case {
    let prototypes = vec![1.0, 1.0, 0.0, 2.0, -3.0, 1.0];
    Case::new(loss.with_scale(8.0), 2, vec![3.0, 4.0, -1.0, 2.0], prototypes, vec![0, 2])
}

/// Losses per row, gradients of the mean. All digits were checked in 40-digit arithmetic.
#[test]
fn gradient_vectors_are_as_printed() {
    let weights = [1.0, 2.0, 0.5];
    let cos = || batch(MarginSoftmax::cosface());
    let smooth = || batch(MarginSoftmax::cosface().with_label_smoothing(0.1));
    let of = |margin: Unified| batch(loss_of(margin));
    let detached = Unified { slope: Slope::Detached, ..arc(0.5, Fallback::Continuous) };
    let table = [
        (
            "NormFace",
            batch(MarginSoftmax::normface()),
            ".1978908 1.7082153",
            "-.0851990 .0638993 1.5186470 .7593235",
            ".0357077 -.0357077 -.5098408 0 -.2315857 -.6947572",
        ),
        (
            "CosFace",
            cos(),
            "1.5257453 4.3216799",
            "-.3713464 .2785098 1.8300718 .9150359",
            ".2031708 -.2031708 .0649368 0 -.2790479 -.8371438",
        ),
        (
            "ArcFace",
            batch(MarginSoftmax::arcface()),
            ".6893749 4.920176",
            "-.3821541 .2866156 2.2421232 1.1210616",
            ".5781779 -.5781779 -.2816315 0 -.3809938 -1.1429813",
        ),
        (
            "CosFace, smoothing",
            smooth(),
            "1.7380458 4.1892955",
            "-.3322739 .2492054 1.6801992 .8400996",
            ".2475602 -.2475602 .0547510 0 -.2728409 -.8185226",
        ),
        (
            "CosFace, smoothing, weights",
            smooth().with_weights(&weights),
            "1.5933044 2.1732821",
            "-.4456984 .3342738 1.1008058 .5504029",
            ".3392089 -.3392089 .5852563 0 -.1815330 -.5445991",
        ),
        (
            "ArcFace, detached",
            of(detached),
            ".6893749 4.9201760",
            "-.2363729 .1772796 1.8411623 .9205812",
            ".1226115 -.1226115 -.2816315 0 -.2807536 -.8422607",
        ),
        (
            "SphereFace 1.35",
            of(sphere(1.35, Fallback::Continuous)),
            ".2100526 3.2940084",
            "-.1039232 .0779424 2.5111518 1.2555759",
            ".0796659 -.0796659 -.6255633 0 -.4536565 -1.3609694",
        ),
        (
            "SphereFace ψ, m1 = 6",
            of(sphere(6.0, Fallback::Mirror)),
            "1.4088542 23.1651677",
            "-2.4725849 1.8544387 10.3233268 5.1616634",
            "6.8016564 -6.8016564 .0208234 0 -2.3999620 -7.1998861",
        ),
        (
            "m0..m3",
            of(unified(0.7, 1.35, 0.3, 0.1)),
            "2.3621450 6.7961244",
            "-.6064182 .4548136 2.1994870 1.0997435",
            ".7896455 -.7896455 .2020362 0 -.3691967 -1.1075902",
        ),
        (
            "ChebyAAM",
            batch(MarginSoftmax::cheby_aam()),
            ".2795000 2.8082350",
            "-.1480453 .1110340 1.9269336 .9634668",
            ".1527139 -.1527139 -.5397609 0 -.3117957 -.9353870",
        ),
    ];
    for (name, case, losses, embeddings, prototypes) in table {
        let out = case.run();
        all_printed(format_args!("{name}: losses"), &out.row_losses, losses);
        all_printed(format_args!("{name}: dX"), &out.grad_embeddings, embeddings);
        all_printed(format_args!("{name}: dW"), &out.grad_prototypes, prototypes);
    }
    printed("weighted mean", smooth().with_weights(&weights).run().loss, "2.5110577");
    let out = cos().run();
    all_printed("target cosines", &out.target_cosines, ".98994949 .70710678");
    all_printed("other cosines", &out.other_cosines, ".8 .89442719");
}

/// Section 8: AmpFace, and WC-ReLU on the first row (its third class lies behind the equator).
#[test]
fn rectified_losses_are_as_printed() {
    all_printed("AmpFace", &batch(MarginSoftmax::ampface()).run().row_losses, "3.6544891 5.1908515");
    for (loss, first) in [
        (MarginSoftmax::cosface(), "1.5269411"),
        (MarginSoftmax::arcface(), ".6901362"),
        (MarginSoftmax::ampface(), "3.6559774"),
    ] {
        printed(first, batch(loss.with_others(Others::Rectified)).run().row_losses[0], first);
    }
    for (c, moved) in [(-0.5, (0.0, 0.0)), (-0.0, (0.0, 0.0)), (0.0, (0.0, 0.0)), (0.5, (0.5, 1.0))] {
        assert_eq!((Others::Rectified.value_slope(c), Others::Identity.value_slope(c)), (moved, (c, 1.0)));
    }
}

/// Section 2, "Defaults in practice": margins, scale, and the names they go by.
#[test]
fn presets_have_the_published_numbers() {
    for (name, [m0, m1, m2, m3, scale]) in [
        ("normface", [1.0, 1.0, 0.0, 0.0, 64.0]),
        ("cosface", [1.0, 1.0, 0.0, 0.35, 64.0]),
        ("arcface", [1.0, 1.0, 0.5, 0.0, 64.0]),
        ("arcface_insightface", [1.0, 1.0, 0.5, 0.0, 64.0]),
        ("arcface_pml", [1.0, 1.0, 28.6 * PI / 180.0, 0.0, 64.0]),
        ("arcface_speaker", [1.0, 1.0, 0.2, 0.0, 32.0]),
        ("sphereface", [1.0, 1.7, 0.0, 0.0, 30.0]),
        ("sphereface_raw", [1.0, 1.35, 0.0, 0.0, 64.0]),
        ("ampface", [0.35, 1.0, 0.0, 0.0, 64.0]),
        ("chebyaam", [1.0, 1.0, 0.2, 0.0, 30.0]),
        ("chebyaam_fit", [1.0, 1.0, 0.2, 0.0, 30.0]),
    ] {
        let mut loss = MarginSoftmax::named(name).unwrap();
        let margin = loss.unified_mut().unwrap();
        let found = [margin.m0, margin.m1, margin.m2, margin.m3, loss.scale];
        all_close(name, &found, &[m0, m1, m2, m3, scale], 1e-15);
    }
}

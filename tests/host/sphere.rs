//! The theory of random directions: caps, wrong-class sums with WC-ReLU, how much the sums vary, and equal angles. Formulas
//! against quadrature, closed forms, and random vectors that are counted out (propositions 2 and 3 of the unified paper).
//!
//! "mpmath" values were computed in 30 digits.

use std::f64::consts::{FRAC_PI_2, PI};

use margin_softmax::{Error, MarginSoftmax, Others, objective::Fallback, theory::*};

use crate::common::*;

/// Within this share of the expected value.
#[track_caller]
fn relative(what: impl std::fmt::Display, found: f64, expected: f64, share: f64) {
    close(what, found, expected, share * expected.abs());
}

/// The mean of f(θ) over the part of the sphere with `from` < θ < `to`, by the midpoint rule, and the share of that part.
fn mean_over(dim: usize, [from, to]: [f64; 2], f: impl Fn(f64) -> f64) -> f64 {
    const CELLS: usize = 50_000;
    let (mut above, mut below) = (0.0, 0.0);
    for i in 0..CELLS {
        let t = from + (to - from) * (i as f64 + 0.5) / CELLS as f64;
        // relative to the rim or the equator, so that nothing underflows
        let density = (t.sin() / to.min(FRAC_PI_2).sin()).powi(dim as i32 - 2);
        above += density * f(t);
        below += density;
    }
    above / below
}

/// On a circle τ/2; on a sphere (sin τ − τ cos τ)/(1 − cos τ); a whole sphere has the mean π/2; and by quadrature.
#[test]
fn the_mean_angle_within_a_cap() {
    let within = |angle, dim| mean_angle_within(angle, dim).unwrap();
    for degrees in [0.01_f64, 1.0, 39.3, 90.0, 120.0, 179.0, 180.0] {
        let t = degrees.to_radians();
        relative(degrees, within(t, 2), t / 2.0, 1e-15);
        // cancels at small angles, where it is 2τ/3
        let sphere =
            if degrees < 1.0 { t * (2.0 / 3.0 - t * t / 90.0) } else { (t.sin() - t * t.cos()) / (1.0 - t.cos()) };
        relative(degrees, within(t, 3), sphere, 1e-10);
        for dim in [4, 16, 64, 512] {
            let measured = mean_over(dim, [0.0, t], |t| t);
            relative(format_args!("{degrees}, {dim}"), within(t, dim), measured, 1e-7);
        }
    }
    for dim in [2, 3, 16, 512, 65_536, (1 << 31) - 1] {
        relative(dim, within(PI, dim), FRAC_PI_2, 1e-12);
        // near a point the sphere is flat: the mean distance in a ball of n dimensions is n/(n+1) of the radius
        let n = (dim - 1) as f64;
        relative(dim, within(1e-5, dim), 1e-5 * n / (n + 1.0), 1e-9);
    }
    // mpmath
    for (degrees, dim, expected) in
        [(39.3_f64, 16, 36.5474623938), (39.32, 512, 39.2285781669), (39.50098, 512, 39.4089706236)]
    {
        relative(dim, within(degrees.to_radians(), dim).to_degrees(), expected, 2e-12);
    }
}

/// More dimensions are nearer to the rim, wider caps have larger means, and none lies beyond the rim or the equator.
#[test]
fn the_mean_angle_within_a_cap_is_monotone() {
    let (angles, dims) = ([0.01, 0.5, 1.0, 1.5], [2, 3, 16, 512, 65_536]);
    let within = |angle, dim| mean_angle_within(angle, dim).unwrap();
    for dim in dims {
        assert!(angles.windows(2).all(|a| within(a[0], dim) < within(a[1], dim)), "{dim}");
    }
    for angle in angles {
        assert!(dims.windows(2).all(|d| within(angle, d[0]) < within(angle, d[1])), "{angle}");
        assert!(within(angle, 65_536) < angle);
    }
}

/// Proposition 2, counted out: the mean angle of those random directions that fall into the cap.
#[test]
fn random_embeddings_in_a_cap_have_the_mean_angle() {
    let mut rng = random(2);
    for (degrees, dim, trials) in [(60.0_f64, 3, 40_000), (80.0, 8, 40_000), (85.0, 32, 40_000), (120.0, 5, 40_000)] {
        let cap = degrees.to_radians();
        let angles = (0..trials).map(|_| direction(&mut rng, dim)[0].clamp(-1.0, 1.0).acos());
        let inside: Vec<f64> = angles.filter(|&angle| angle <= cap).collect();
        assert!(inside.len() > trials / 10, "{} are in the cap", inside.len());
        let (mean, error) = mean_and_error(&inside);
        close(format_args!("{degrees} x {dim}"), mean, mean_angle_within(cap, dim).unwrap(), 4.0 * error);
    }
}

/// Per class 53.330 with WC-ReLU at s = 64, d = 512; on a sphere ½ + (eˢ − 1)/(2s); and by quadrature.
#[test]
fn wrong_class_sums_with_wc_relu() {
    let ln = |dim, scale| ln_wrong_class_sum_rectified(2, dim, scale).unwrap();
    printed("512", ln(512, 64.0).exp(), "53.330");
    // mpmath
    for (dim, scale, expected) in [
        (2, 1.0, 0.3975367830649868),
        (3, 30.0, 25.905655437780613),
        (16, 20.0, 8.753389526485621),
        (100, 1000.0, 834.4763958609353),
    ] {
        relative(format_args!("{dim} {scale}"), ln(dim, scale), expected, 1e-14);
    }
    for s in [1e-3_f64, 0.1, 1.0, 8.0, 64.0, 700.0] {
        let sphere = s - s.ln() + ((-s).exp() * (s - 1.0) + 1.0).ln() - 2_f64.ln();
        close(s, ln(3, s), sphere, 1e-12 * s.max(1.0));
        for dim in [2, 4, 16, 64, 512] {
            let above = mean_over(dim, [0.0, FRAC_PI_2], |t| (s * (t.cos() - 1.0)).exp());
            // half of the sphere each; in logarithms: exp(700) squared is no f64
            let expected = s + (0.5 * (above + (-s).exp())).ln();
            // the density on a circle is no smooth function at the ends of the rule
            close(format_args!("{dim} {s}"), ln(dim, s), expected, 1e-6);
        }
    }
    // it is above the plain sum, by less than the half of the sphere that no longer counts
    for scale in [1e-3, 1.0, 64.0, 1e4, 1e6] {
        for dim in [2, 3, 64, 512, 65_536] {
            let (plain, rectified) = (ln_wrong_class_sum(10, dim, scale).unwrap(), {
                ln_wrong_class_sum_rectified(10, dim, scale).unwrap()
            });
            let most = plain + (0.5 * (9_f64.ln() - plain).exp()).ln_1p();
            let rounding = 1e-14 * plain;
            assert!(
                plain <= rectified + rounding && rectified <= most + rounding,
                "{scale} {dim}: {plain} {rectified} {most}"
            );
        }
    }
}

/// Proposition 3, counted out: mean and relative variance of the sum over the wrong classes of random prototypes, plain and
/// with WC-ReLU.
#[test]
fn random_prototypes_have_the_wrong_class_sum() {
    let mut rng = random(3);
    for (classes, dim, scale, trials) in [(20, 8, 3.0, 20_000), (60, 32, 8.0, 8000), (200, 64, 16.0, 1500)] {
        let what = format!("{classes} x {dim}, s {scale}");
        let [mut plain, mut rectified] = [vec![], vec![]];
        for _ in 0..trials {
            // the embedding may stay where it is
            let cosines: Vec<f64> = (1..classes).map(|_| direction(&mut rng, dim)[0]).collect();
            plain.push(cosines.iter().map(|c| (scale * c).exp()).sum::<f64>());
            rectified.push(cosines.iter().map(|c| (scale * c.max(0.0)).exp()).sum::<f64>());
        }
        let (mean, error) = mean_and_error(&plain);
        let exact = ln_wrong_class_sum(classes, dim, scale).unwrap().exp();
        close(&what, mean, exact, 4.0 * error);
        let (mean, error) = mean_and_error(&rectified);
        close(&what, mean, ln_wrong_class_sum_rectified(classes, dim, scale).unwrap().exp(), 4.0 * error);
        let squares: Vec<f64> = plain.iter().map(|b| (b / exact - 1.0).powi(2)).collect();
        let (variance, error) = mean_and_error(&squares);
        close(&what, variance, ln_wrong_class_sum_variance(classes, dim, scale).unwrap().exp(), 4.0 * error);
    }
}

/// The variance from the second moment by quadrature, and s²/d/(C − 1) where s is small.
#[test]
fn the_variance_of_the_wrong_class_sum() {
    for (dim, scale) in [(3, 0.5_f64), (16, 4.0), (64, 30.0), (512, 64.0)] {
        let moment = |s: f64| mean_over(dim, [0.0, PI], |t| (s * (t.cos() - 1.0)).exp());
        let expected = (moment(2.0 * scale) / moment(scale).powi(2) - 1.0) / 99.0;
        let found = ln_wrong_class_sum_variance(100, dim, scale).unwrap();
        relative(format_args!("{dim} {scale}"), found.exp(), expected, 1e-6);
    }
    for dim in [2, 16, 512] {
        let found = ln_wrong_class_sum_variance(11, dim, 1e-6).unwrap();
        close(dim, found, (1e-12 / dim as f64 / 10.0).ln(), 1e-9);
    }
    printed("published", ln_wrong_class_sum_variance_published(85_742, 512, 64.0).unwrap(), "-3.36");
    printed("exact", ln_wrong_class_sum_variance(85_742, 512, 64.0).unwrap(), "-3.75965444");
    // mpmath
    for (dim, scale, expected) in [
        (2, 1.0, -7.769166155540505),
        (3, 30.0, -3.5394589486620793),
        (16, 20.0, -0.2385465040696487),
        (100, 1000.0, 124.90649144919313),
    ] {
        // a difference of two logarithms of up to 2000
        close(format_args!("{dim} {scale}"), ln_wrong_class_sum_variance(1000, dim, scale).unwrap(), expected, 1e-12);
    }
    // the published one takes the cosines as normal, whose tail is longer
    for scale in [1.0, 10.0, 64.0, 1e3, 1e6] {
        for dim in [2, 64, 512, 65_536] {
            let exact = ln_wrong_class_sum_variance(1000, dim, scale).unwrap();
            let published = ln_wrong_class_sum_variance_published(1000, dim, scale).unwrap();
            let classes = (1000.0_f64 / 999.0).ln();
            assert!(exact <= published + classes + 1e-9 * published.abs(), "{scale} {dim}: {exact} {published}");
        }
    }
}

/// By the formula, at π the collapse, and as the reference computes it for prototypes in one point.
#[test]
fn the_loss_at_equal_angles() {
    for (m0, m1, m2, m3) in [(1.0, 1.0, 0.0, 0.0), (0.35, 1.0, 0.0, 0.0), (1.0, 1.35, 0.0, 0.0), (1.0, 1.0, 0.5, 0.1)] {
        let loss = MarginSoftmax::unified(m0, m1, m2, m3).with_margin(|m| m.fallback = Fallback::None).with_scale(8.0);
        for others in [Others::Identity, Others::Rectified] {
            let loss = loss.clone().with_others(others.clone());
            for angle in [0.0_f64, 0.4, FRAC_PI_2, 2.5, PI] {
                let what = format!("{m0} {m1} {m2} {m3} {others:?} at {angle}");
                let found = equal_angle_loss(&loss, 7, angle).unwrap();
                let other = if others == Others::Identity { angle.cos() } else { angle.cos().max(0.0) };
                let own = m0 * (m1 * angle + m2).cos() - m3;
                relative(&what, found, (6.0 * (8.0 * (other - own)).exp()).ln_1p(), 1e-12);
                let (sine, cosine) = angle.sin_cos();
                let case = Case::new(loss.clone(), 2, vec![cosine, sine], [1.0, 0.0].repeat(7), vec![3]);
                relative(&what, found, case.run().loss, 1e-12);
            }
            assert_eq!(equal_angle_loss(&loss, 7, PI), collapse_loss(&loss, 7));
            assert_eq!(equal_angle_loss(&loss, 1, 1.0), Ok(0.0));
        }
    }
}

/// Refused as a parameter out of its range.
#[track_caller]
fn refuses<T: std::fmt::Debug>(result: margin_softmax::Result<T>, name: &str) {
    assert!(matches!(&result, Err(Error::Parameter { what, .. }) if *what == name), "{name}: {result:?}");
}

#[test]
fn what_lies_outside_the_ranges_is_refused() {
    let loss = MarginSoftmax::arcface();
    for angle in [f64::NAN, f64::INFINITY, -0.1, PI.next_up(), 39.3] {
        refuses(mean_angle_within(angle, 8), "angle");
        refuses(equal_angle_loss(&loss, 8, angle), "angle");
    }
    refuses(mean_angle_within(0.0, 8), "angle");
    for dim in [0, 1, 1 << 31] {
        refuses(mean_angle_within(1.0, dim), "dim");
        refuses(ln_wrong_class_sum_rectified(8, dim, 1.0), "dim");
        refuses(ln_wrong_class_sum_variance(8, dim, 1.0), "dim");
        refuses(ln_wrong_class_sum_variance_published(8, dim, 1.0), "dim");
    }
    for classes in [0, 1, 1 << 31] {
        refuses(ln_wrong_class_sum_rectified(classes, 8, 1.0), "classes");
        refuses(ln_wrong_class_sum_variance(classes, 8, 1.0), "classes");
        refuses(ln_wrong_class_sum_variance_published(classes, 8, 1.0), "classes");
    }
    refuses(equal_angle_loss(&loss, 0, 1.0), "classes");
    for scale in [f64::NAN, 0.0, -1.0, 2e6] {
        refuses(ln_wrong_class_sum_rectified(8, 8, scale), "scale");
        refuses(ln_wrong_class_sum_variance(8, 8, scale), "scale");
        refuses(ln_wrong_class_sum_variance_published(8, 8, scale), "scale");
    }
    assert!(matches!(equal_angle_loss(&MarginSoftmax::softmax(), 8, 1.0), Err(Error::Combination { .. })));
}

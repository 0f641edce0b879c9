//! Every bad input is a typed error that names the argument, the value found and the values allowed.

use margin_softmax::{
    Backend, Batch, Coefficients, Curve, Damping, Error, Fallback, MarginSoftmax, Output, Reduction, Series, Shape,
    Unified, Want, objective::PRESETS,
};

use crate::common::*;

/// The message holds the argument, the value and (a part of) what is allowed.
#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
}

/// Refused as a parameter out of its range, by `validate` and by everything that takes a loss.
#[track_caller]
fn refuses(loss: MarginSoftmax, name: &str, value: f64, range: &str) {
    let error = loss.validate().expect_err(name);
    let Error::Parameter { what, found, allowed } = error else { panic!("{error:?}") };
    assert!(what == name && allowed == range && (found == value || found.is_nan() && value.is_nan()), "{error:?}");
    says(&error, &[&format!("`{name}`"), &value.to_string(), range]);
    let case = Case::new(loss.clone(), 2, vec![1.0, 0.0], vec![1.0, 0.0, 0.0, 1.0], vec![0]);
    assert_eq!(case.try_run().unwrap_err().to_string(), error.to_string());
    let head = Backend::reference().head(&loss, Shape::new(1, 2, 2).unwrap());
    assert_eq!(head.err().unwrap().to_string(), error.to_string());
}

#[test]
fn a_scale_outside_its_range_is_refused() {
    for scale in [f64::NAN, f64::INFINITY, -f64::INFINITY, 0.0, -0.0, -1.0, 1e6_f64.next_up()] {
        refuses(MarginSoftmax::arcface().with_scale(scale), "scale", scale, "0 < scale <= 1e6");
    }
    assert!(MarginSoftmax::arcface().with_scale(1e6).validate().is_ok());
}

#[test]
fn margins_outside_their_ranges_are_refused() {
    let pi = std::f64::consts::PI;
    let bad = [f64::NAN, f64::INFINITY, -f64::INFINITY];
    for value in bad.into_iter().chain([0.0, -0.5]) {
        refuses(loss_of(unified(value, 1.0, 0.5, 0.0)), "m0", value, "0 < m0 <= 1e6");
    }
    for value in bad.into_iter().chain([0.0, -1.0, 16.0_f64.next_up()]) {
        refuses(loss_of(unified(1.0, value, 0.0, 0.0)), "m1", value, "0 < m1 <= 16");
    }
    for value in bad.into_iter().chain([-0.1, -5e-324, pi, 28.6]) {
        refuses(loss_of(unified(1.0, 1.0, value, 0.0)), "m2", value, "0 <= m2 < pi (radians)");
    }
    for value in bad {
        refuses(loss_of(unified(1.0, 1.0, 0.0, value)), "m3", value, "-1e6 <= m3 <= 1e6");
    }
    for epsilon in bad.into_iter().chain([-0.1, 1.0, 2.0]) {
        let loss = MarginSoftmax::arcface().with_label_smoothing(epsilon);
        refuses(loss, "label_smoothing", epsilon, "0 <= label_smoothing < 1");
    }
    for e in bad.into_iter().chain([0.0, -1e-3, 0.5, 1.0]) {
        let clip = Unified { fallback: Fallback::Clip(e), ..unified(1.0, 1.0, 0.5, 0.0) };
        refuses(loss_of(clip), "fallback.clip", e, "0 < e < 0.5 (radians)");
    }
    for (m1, m2) in [(16.0, 0.0), (1.0, pi.next_down()), (5e-324, 0.0)] {
        assert!(loss_of(unified(1.0, m1, m2, 0.0)).validate().is_ok(), "{m1} {m2}");
    }
}

#[test]
fn an_ignore_index_beyond_an_i32_is_refused() {
    for index in [1_i64 << 31, i64::MAX, i64::MIN, i64::from(i32::MIN) - 1] {
        refuses(MarginSoftmax::arcface().with_ignore_index(index), "ignore_index", index as f64, "an i32");
    }
    for index in [i32::MIN, -100, 0, i32::MAX] {
        assert!(MarginSoftmax::arcface().with_ignore_index(index.into()).validate().is_ok());
    }
}

/// `sine` is defined for m1 = 1 only, `easy` only where x* ≤ 0; lines have no fallback, so nothing to refuse.
#[test]
fn fallbacks_that_do_not_fit_the_margins_are_refused() {
    let with = |m1: f64, m2: f64, fallback| loss_of(Unified { fallback, ..unified(1.0, m1, m2, 0.0) }).validate();
    for (m1, m2, fallback, part) in [
        (1.35, 0.0, Fallback::Sine, "m1 = 1"),
        (0.9, 0.5, Fallback::Sine, "m1 = 1"),
        (3.0, 0.0, Fallback::Easy, "threshold"),
        (1.0, 1.7, Fallback::Easy, "threshold"),
        (2.0, 0.1, Fallback::Easy, "threshold"),
    ] {
        let error = with(m1, m2, fallback).unwrap_err();
        assert!(matches!(error, Error::Combination { what: "fallback", .. }), "{error:?}");
        says(&error, &["fallback", fallback.name(), part]);
    }
    for (m1, m2, fallback) in [
        (1.0, 0.5, Fallback::Sine),
        (1.0, 0.0, Fallback::Sine),
        (1.0, 1.5, Fallback::Easy),
        (1.35, 0.3, Fallback::Easy),
        (0.5, 0.1, Fallback::Easy),
        (1.0, 0.0, Fallback::Easy),
    ] {
        assert!(with(m1, m2, fallback).is_ok(), "{m1} {m2} {fallback:?}");
    }
}

#[test]
fn a_series_that_cannot_be_is_refused() {
    let with = |series: Series| MarginSoftmax::arcface().with_margin(|m| m.curve = Curve::Series(series));
    for degree in [0, 65, 1000, usize::MAX] {
        refuses(with(series(degree, Damping::None)), "series.degree", degree as f64, "1 ..= 64");
    }
    assert!(
        with(series(1, Damping::Jackson)).validate().is_ok() && with(series(64, Damping::Lanczos)).validate().is_ok()
    );
    let given =
        |values: Vec<f64>| with(Series { coefficients: Coefficients::Given(values), ..series(3, Damping::None) });
    for found in [0, 3, 5] {
        let error = given(vec![0.5; found]).validate().unwrap_err();
        assert_eq!(error, Error::Length { what: "series.coefficients.given", found, expected: 4 });
        says(&error, &["series.coefficients.given", &found.to_string(), "4"]);
    }
    for value in [f64::NAN, f64::INFINITY] {
        refuses(given(vec![0.0, 1.0, value, 0.0]), "series.coefficients.given", value, "-1e6 <= c <= 1e6");
    }
}

#[test]
fn an_unknown_loss_is_refused_with_the_known_names() {
    let error = MarginSoftmax::named("ArcFace").unwrap_err();
    assert!(matches!(error, Error::Name { what: "loss", .. }));
    PRESETS.iter().for_each(|preset| says(&error, &["`ArcFace`", preset.name]));
    for preset in PRESETS {
        assert_eq!(MarginSoftmax::named(preset.name).unwrap(), preset.loss());
        assert_eq!(preset.loss().validate(), Ok(()));
        assert_eq!(PRESETS.iter().filter(|other| other.name == preset.name).count(), 1);
    }
}

#[test]
fn sizes_that_cannot_be_indexed_are_refused() {
    assert_eq!(Shape::new(1, 0, 1), Err(Error::Zero { what: "classes" }));
    assert_eq!(Shape::new(1, 1, 0), Err(Error::Zero { what: "dim" }));
    says(&Error::Zero { what: "dim" }, &["`dim`", "0", "at least 1"]);
    let (most, over) = ((1_usize << 31) - 1, 1_usize << 31);
    for (what, shape, needed) in [
        ("rows", (over, 1, 1), over as u64),
        ("classes", (1, over, 1), over as u64),
        ("dim", (1, 1, over), over as u64),
        ("rows", (usize::MAX, 1, 2), u64::MAX),
        ("rows · dim", (1 << 16, 1, 1 << 15), over as u64),
        ("rows · dim", (most, 1, most), most as u64 * most as u64),
    ] {
        let error = Shape::new(shape.0, shape.1, shape.2).unwrap_err();
        assert_eq!(error, Error::Size { what, needed, allowed: most as u64 });
        says(&error, &[what, &needed.to_string(), "2147483647"]);
    }
    assert!(Shape::new(most, 1, 1).is_ok() && Shape::new(0, most, 1).is_ok() && Shape::new(1, 1, most).is_ok());
    let wide = Shape::new(0, most, 3).unwrap();
    assert_eq!(wide.prototypes(), Ok(3 * most));
    let huge = Shape::new(0, most, most).unwrap().prototypes().unwrap_err();
    says(&huge, &["classes · dim", "4611686014132420609"]);
}

/// Two rows of three classes in two dimensions.
fn case() -> Case {
    let prototypes = vec![1.0, 1.0, 0.0, 2.0, -3.0, 1.0];
    Case::new(MarginSoftmax::arcface(), 2, vec![3.0, 4.0, -1.0, 2.0], prototypes, vec![0, 2])
}

#[test]
fn a_label_that_names_no_class_is_refused() {
    for label in [3, -1, i64::MAX, i64::MIN] {
        let error = Case { labels: vec![0, label], ..case() }.try_run().unwrap_err();
        assert_eq!(error, Error::Label { row: 1, label: label.into(), classes: 3 });
        says(&error, &["row 1", &format!("label {label}"), "3 classes"]);
    }
    let mut ignoring = case();
    ignoring.loss.ignore_index = Some(-100);
    assert!(Case { labels: vec![-100, 2], ..ignoring.clone() }.try_run().is_ok());
    assert!(Case { labels: vec![-99, 2], ..ignoring }.try_run().is_err());
}

/// Any integer type may label rows; what does not fit an i64 is no class, whatever it would wrap to.
#[test]
fn a_label_too_large_for_an_i64_is_refused() {
    for label in [u64::MAX, 1 << 63, (1 << 63) + 1, 1 << 32, 3] {
        let Case { loss, dim, embeddings, prototypes, .. } = case();
        let error = Case::new(loss, dim, embeddings, prototypes, vec![label, 0_u64]).try_run().unwrap_err();
        assert!(matches!(error, Error::Label { row: 0, classes: 3, .. }), "{error:?}");
    }
    let Case { loss, dim, embeddings, prototypes, .. } = case();
    let signed = case().run();
    assert_eq!(Case::new(loss, dim, embeddings, prototypes, vec![0_u8, 2]).run(), signed);
}

/// The value found, not what it was turned into.
#[test]
fn a_label_is_reported_as_the_caller_wrote_it() {
    let Case { loss, dim, embeddings, prototypes, .. } = case();
    let error = Case::new(loss, dim, embeddings, prototypes, vec![u64::MAX, 0]).try_run().unwrap_err();
    says(&error, &["row 0", "label 18446744073709551615", "3 classes"]);
}

#[test]
fn slices_of_the_wrong_length_are_refused() {
    let length = |change: fn(&mut Case), what, found, expected| {
        let mut case = case();
        change(&mut case);
        let error = case.try_run().unwrap_err();
        assert_eq!(error, Error::Length { what, found, expected });
        says(&error, &[&format!("`{what}`"), &found.to_string(), &expected.to_string()]);
    };
    length(|c| c.embeddings.truncate(3), "embeddings", 3, 4);
    length(|c| c.embeddings.push(0.0), "embeddings", 5, 4);
    length(|c| c.prototypes.truncate(5), "prototypes", 5, 6);
    length(|c| c.weights = Some(vec![1.0; 2]), "class_weights", 2, 3);
    length(|c| c.upstream = Some(vec![1.0; 2]), "upstream", 2, 1);
    length(|c| c.upstream = Some(vec![]), "upstream", 0, 1);
    length(|c| (c.loss.reduction, c.upstream) = (Reduction::None, Some(vec![1.0])), "upstream", 1, 2);
    length(|c| (c.loss.reduction, c.upstream) = (Reduction::Sum, Some(vec![1.0; 2])), "upstream", 2, 1);
}

#[test]
fn weights_and_upstream_outside_their_ranges_are_refused() {
    for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY, -1.0] {
        let error = case().with_weights(&[1.0, bad, 1.0]).try_run().unwrap_err();
        assert!(matches!(error, Error::Parameter { what: "class_weights", .. }), "{error:?}");
        says(&error, &["`class_weights`", &bad.to_string(), "finite numbers >= 0"]);
        let upstream = case().with_upstream(&[bad]).try_run();
        assert_eq!(upstream.is_err(), bad != -1.0);
        upstream.err().inspect(|error| says(error, &["`upstream`", &bad.to_string(), "finite numbers"]));
    }
}

/// A head over slices: more rows than it was made for, a bad update, a bad batch. Nothing changes on an error.
#[test]
fn a_head_keeps_its_state_on_an_error() {
    let loss = MarginSoftmax::arcface();
    let mut head = Backend::reference().head(&loss, Shape::new(2, 3, 2).unwrap()).unwrap();
    let (embeddings, prototypes) = ([3.0, 4.0, -1.0, 2.0, 1.0, 1.0_f32], [1.0, 1.0, 0.0, 2.0, -3.0, 1.0_f32]);
    let of = |labels: &'static [i32]| Batch {
        embeddings: &embeddings[..2 * labels.len()],
        prototypes: &prototypes,
        labels,
        ..Default::default()
    };
    let mut out = Output::default();
    head.evaluate_into(&of(&[0, 2]), &mut out).unwrap();
    let before = out.clone();
    let error = head.evaluate_into(&of(&[0, 2, 1]), &mut out).unwrap_err();
    assert_eq!(error, Error::Rows { found: 3, allowed: 2 });
    says(&error, &["3 rows", "at most 2"]);
    assert!(head.evaluate_into(&of(&[0, 3]), &mut out).is_err());
    assert!(head.update(&loss.clone().with_scale(-1.0)).is_err());
    assert_eq!((&out, head.loss()), (&before, &loss));
    assert_eq!(head.evaluate(&of(&[0])).unwrap().row_losses, before.row_losses[..1]); // fewer rows are fine
    head.update(&MarginSoftmax::cosface()).unwrap();
    let mut fresh = Backend::reference().head(&MarginSoftmax::cosface(), head.shape()).unwrap();
    assert_eq!(head.loss(), fresh.loss());
    assert_eq!(head.evaluate(&of(&[0, 2])), fresh.evaluate(&of(&[0, 2])));
}

/// What was not asked for is empty; the rest is the same.
#[test]
fn unwanted_gradients_are_empty() {
    let full = case().run();
    for want in [Want::LOSS, Want::EMBEDDINGS, Want::PROTOTYPES] {
        let case = case();
        let batch = Batch {
            embeddings: &case.embeddings,
            prototypes: &case.prototypes,
            labels: &case.labels,
            ..Default::default()
        };
        let shape = Shape::new(2, 3, 2).unwrap();
        let out = margin_softmax::reference::evaluate(&case.loss, shape, want, &batch).unwrap();
        let (embeddings, prototypes) = (full.grad_embeddings.clone(), full.grad_prototypes.clone());
        assert_eq!(out.grad_embeddings, if want.grad_embeddings { embeddings } else { vec![] });
        assert_eq!(out.grad_prototypes, if want.grad_prototypes { prototypes } else { vec![] });
        assert_eq!((out.loss, out.counts), (full.loss, full.counts));
    }
}

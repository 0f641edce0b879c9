//! Every bad input is a typed error that names the argument, the value found and the values allowed.

use margin_softmax::{
    objective::{
        AdaFace, Angle, ArcNeg, Binary, Coefficients, Curve, Custom, CustomOthers, Damping, Elastic, Fallback,
        InterclassFilter, Length, MagFace, MvSoftmax, PRESETS, RowTarget, Series, SimilarityAdjustment, TopK, Unified,
    },
    shard::{Statistics, Targets},
    *,
};

use crate::{common::*, problems::*};

/// The message holds the argument, the value and (a part of) what is allowed.
#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
    assert!(format!("{error:?}").starts_with(error.name()), "{error:?} is named {}", error.name());
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
        (2.0, 0.0, Fallback::Easy),
        (1.0, std::f64::consts::FRAC_PI_2, Fallback::Easy),
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
        says(&error, &["`class_weights`", &bad.to_string(), "0, or 1e-30 <= w <= 1e24"]);
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

/// A number of a family with values just inside and just outside its range; NaN and infinity lie outside every range.
struct Range {
    name: &'static str,
    allowed: &'static str,
    of: fn(f64) -> MarginSoftmax,
    inside: Vec<f64>,
    outside: Vec<f64>,
}

fn ranges() -> Vec<Range> {
    use std::f64::consts::{FRAC_PI_2, PI};
    fn angle(change: impl FnOnce(&mut Angle)) -> MarginSoftmax {
        let mut angle = Angle::default();
        change(&mut angle);
        MarginSoftmax { target: Target::Angle(angle), ..Default::default() }
    }
    fn power(margin: f64, angular: bool) -> MarginSoftmax {
        MarginSoftmax {
            target: Target::SimilarityAdjustment(SimilarityAdjustment { margin, angular, ..Default::default() }),
            ..Default::default()
        }
    }
    fn length(length: Length) -> MarginSoftmax {
        MarginSoftmax::normface().with_scale(1.0).with_adaptive(Adaptive::Length(length))
    }
    fn others(others: Others) -> MarginSoftmax {
        MarginSoftmax::normface().with_others(others)
    }
    fn binary(change: impl FnOnce(&mut Binary)) -> MarginSoftmax {
        let mut binary = Binary::default();
        change(&mut binary);
        MarginSoftmax { link: Link::Binary(binary), ..Default::default() }
    }
    fn adaface(change: impl FnOnce(&mut AdaFace)) -> MarginSoftmax {
        let mut adaface = AdaFace::default();
        change(&mut adaface);
        MarginSoftmax::normface().with_adaptive(Adaptive::AdaFace(adaface))
    }
    fn magface(change: impl FnOnce(&mut MagFace)) -> MarginSoftmax {
        let mut magface = MagFace::default();
        change(&mut magface);
        MarginSoftmax::normface().with_adaptive(Adaptive::MagFace(magface))
    }
    let (small, big, over) = (5e-324, 1e6, 1e6_f64.next_up());
    let range = |name, allowed, of, inside: &[f64], outside: &[f64]| {
        let outside = [outside, &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]].concat();
        Range { name, allowed, of, inside: inside.to_vec(), outside }
    };
    let (below_pi, below_half) = (PI.next_down(), FRAC_PI_2.next_down());
    vec![
        range("angle.factor", "0 < factor <= 1e6", |v| angle(|a| a.factor = v), &[small, big], &[0.0, -1.0, over]),
        range(
            "angle.margin",
            "-pi < margin < pi (radians)",
            |v| angle(|a| a.margin = v),
            &[-below_pi, 0.0, below_pi],
            &[PI, -PI],
        ),
        range("angle.offset", "-1e6 <= offset <= 1e6", |v| angle(|a| a.offset = v), &[-big, big], &[over, -over]),
        range(
            "angle.factor",
            "0 < factor <= 1e6",
            |factor| MarginSoftmax::normface().with_others(Others::Angle(Angle { factor, ..Default::default() })),
            &[big],
            &[0.0, over],
        ),
        range("power.margin", "-1e6 <= m <= 1e6", |v| power(v, false), &[-big, big], &[over, -over]),
        range("power.margin", "0 <= m < pi (radians)", |v| power(v, true), &[0.0, below_pi], &[PI, -small]),
        range(
            "power.margin",
            "-1e6 <= m <= 1e6",
            |margin| {
                MarginSoftmax::normface()
                    .with_others(Others::SimilarityAdjustment(SimilarityAdjustment { margin, ..Default::default() }))
            },
            &[big],
            &[over],
        ),
        range(
            "filter.threshold",
            "0 < threshold <= 1",
            |threshold| MarginSoftmax::normface().with_others(Others::InterclassFilter(InterclassFilter { threshold })),
            &[small, 1.0],
            &[0.0, -0.1, 1.0_f64.next_up()],
        ),
        range(
            "mv_softmax.weight",
            "0 <= weight <= 1e3",
            |weight| others(Others::MvSoftmax(MvSoftmax { weight, ..Default::default() })),
            &[0.0, 1e3],
            &[-small, 1e3_f64.next_up()],
        ),
        range(
            "arcneg.factor",
            "0 < factor <= 1e3",
            |factor| others(Others::ArcNeg(ArcNeg { factor, ..Default::default() })),
            &[small, 1e3],
            &[0.0, 1e3_f64.next_up()],
        ),
        range(
            "arcneg.mean",
            "-2 <= mean <= 2",
            |mean| others(Others::ArcNeg(ArcNeg { mean, ..Default::default() })),
            &[-2.0, 2.0],
            &[2.0_f64.next_up()],
        ),
        range(
            "arcneg.deviation",
            "0.05 <= deviation <= 1e9",
            |deviation| others(Others::ArcNeg(ArcNeg { deviation, ..Default::default() })),
            &[0.05, 1e9],
            &[0.0, 0.05_f64.next_down(), 1e9_f64.next_up()],
        ),
        range(
            "length.lower_length",
            "1e-6 <= lower_length <= upper_length",
            |lower_length| length(Length { lower_length, ..Default::default() }),
            &[1e-6, 1e3],
            &[0.0, 1e-6_f64.next_down(), 1e3_f64.next_up()],
        ),
        range(
            "length.upper_length",
            "1e-6 <= upper_length <= 1e6",
            |upper_length| length(Length { upper_length, ..Default::default() }),
            &[1e6, 1e-3],
            &[1e-6_f64.next_down(), 1e6_f64.next_up()],
        ),
        range(
            "top_k.margin",
            "0 <= margin < pi/2 (radians)",
            |margin| MarginSoftmax::normface().with_others(Others::TopK(TopK { count: 1, margin })),
            &[0.0, below_half],
            &[-small, FRAC_PI_2],
        ),
        range(
            "binary.weight",
            "0 <= weight <= 1",
            |v| binary(|b| b.weight = v),
            &[0.0, 1.0],
            &[-small, 1.0_f64.next_up()],
        ),
        range("binary.factor", "0 < factor <= 1e6", |v| binary(|b| b.factor = v), &[small, big], &[0.0, over]),
        range("binary.bias", "-1e6 <= bias <= 1e6", |v| binary(|b| b.bias = v), &[-big, big], &[over, -over]),
        range(
            "adaface.margin",
            "0 <= m < pi/2",
            |v| adaface(|a| a.margin = v),
            &[0.0, below_half],
            &[-small, FRAC_PI_2],
        ),
        range(
            "adaface.concentration",
            "0 < h <= 100",
            |v| adaface(|a| a.concentration = v),
            &[small, 100.0],
            &[0.0, -1.0, 100.0_f64.next_up()],
        ),
        range("adaface.rate", "0 < rate <= 1", |v| adaface(|a| a.rate = v), &[small, 1.0], &[0.0, 1.0_f64.next_up()]),
        range(
            "magface.lower_length",
            "1e-6 <= lower_length <= upper_length / 1.001",
            |v| magface(|m| m.lower_length = v),
            &[1e-6, 109.89],
            &[1e-6_f64.next_down(), 0.0, -1.0, 109.9, 110.0, 111.0],
        ),
        range(
            "magface.upper_length",
            "upper_length <= 1e6",
            |v| magface(|m| m.upper_length = v),
            &[10.011, big],
            &[over],
        ),
        range(
            "magface.lower_margin",
            "0 <= lower_margin <= upper_margin",
            |v| magface(|m| m.lower_margin = v),
            &[0.0, 0.8],
            &[-small, 0.8_f64.next_up()],
        ),
        range(
            "magface.upper_margin",
            "upper_margin < pi (radians)",
            |v| magface(|m| m.upper_margin = v),
            &[0.45, below_pi],
            &[PI],
        ),
        range("magface.weight", "0 <= weight <= 1e6", |v| magface(|m| m.weight = v), &[0.0, big], &[-small, over]),
        range(
            "elastic.deviation",
            "0 <= deviation <= 10",
            |deviation| {
                MarginSoftmax::normface().with_adaptive(Adaptive::Elastic(Elastic { deviation, ..Default::default() }))
            },
            &[0.0, 10.0],
            &[-small, 10.0_f64.next_up()],
        ),
    ]
}

#[test]
fn numbers_of_every_family_outside_their_ranges_are_refused() {
    for Range { name, allowed, of, inside, outside } in ranges() {
        for value in inside {
            assert_eq!(of(value).validate(), Ok(()), "{name} = {value}");
        }
        for value in outside {
            let error = of(value).validate().expect_err(name);
            // an end that is not a number spoils the range of the other end first
            let paired = name.starts_with("magface") && !value.is_finite();
            match error {
                Error::Parameter { what, .. } if paired => assert!(what.starts_with("magface"), "{what}"),
                _ => refuses(of(value), name, value, allowed),
            }
        }
    }
    for exponent in [0, 17, u32::MAX] {
        let target = Target::SimilarityAdjustment(SimilarityAdjustment { exponent, ..Default::default() });
        refuses(MarginSoftmax { target, ..Default::default() }, "power.exponent", exponent.into(), "1 ..= 16");
    }
    for count in [0, 65, 1000] {
        let others = Others::TopK(TopK { count, margin: 0.1 });
        refuses(MarginSoftmax::normface().with_others(others), "top_k.count", count as f64, "1 ..= 64");
    }
}

/// Inter-topk leaves at least one class that is not chosen; AdaCos needs three; sub-centers are compared by cosine.
#[test]
fn losses_that_do_not_fit_the_classes_are_refused() {
    let head = |loss: &MarginSoftmax, classes: usize, k: usize| {
        let shape = Shape::new(4, classes, 3).unwrap().with_sub_centers(k).unwrap();
        Backend::reference().head(loss, shape).map(|_| ())
    };
    let top = |count| MarginSoftmax::arcface().with_others(Others::TopK(TopK { count, margin: 0.1 }));
    for (count, classes) in [(1, 1), (2, 2), (5, 5), (64, 3)] {
        let error = head(&top(count), classes, 1).unwrap_err();
        let allowed = "a number below that of the classes";
        assert_eq!(error, Error::Parameter { what: "top_k.count", found: count as f64, allowed });
        says(&error, &["top_k.count", &count.to_string(), "classes"]);
    }
    assert_eq!((head(&top(1), 2, 1), head(&top(64), 65, 1)), (Ok(()), Ok(())));
    for classes in [1, 2] {
        let error = head(&MarginSoftmax::adacos(), classes, 1).unwrap_err();
        assert!(matches!(error, Error::Combination { what: "adaptive.adacos", .. }), "{error:?}");
        says(&error, &["at least 3 classes"]);
    }
    assert_eq!(head(&MarginSoftmax::adacos(), 3, 1), Ok(()));
    let error = head(&MarginSoftmax::softmax(), 4, 2).unwrap_err();
    assert!(matches!(error, Error::Combination { what: "product.linear", .. }), "{error:?}");
    assert_eq!(Shape::new(1, 2, 3).unwrap().with_sub_centers(0), Err(Error::Zero { what: "sub_centers" }));
    let most = (1_u64 << 31) - 1;
    let error = Shape::new(1, 1 << 20, 3).unwrap().with_sub_centers(1 << 11).unwrap_err();
    assert_eq!(error, Error::Size { what: "classes · sub_centers", needed: 1 << 31, allowed: most });
    assert!(Shape::new(1, 1 << 20, 3).unwrap().with_sub_centers((1 << 11) - 1).is_ok());
    assert!(Shape::new(1, 2, 3).unwrap().with_sub_centers(usize::MAX).is_err());
}

/// What excludes what, by the name of the part that is too much.
#[test]
fn parts_that_exclude_each_other_are_refused() {
    let linear = |loss: MarginSoftmax| MarginSoftmax { similarity: Similarity::Dot, ..loss };
    let binary = |loss: MarginSoftmax| MarginSoftmax { link: Link::Binary(Binary::default()), ..loss };
    let given = |m: &mut Unified| {
        let coefficients = Coefficients::Given(vec![0.0, 1.0]);
        m.curve = Curve::Series(Series { degree: 1, coefficients, damping: Damping::None });
    };
    let (adaface, magface) = (Adaptive::AdaFace(AdaFace::default()), Adaptive::MagFace(MagFace::default()));
    let elastic = |cosine| Adaptive::Elastic(Elastic { cosine, ..Default::default() });
    let custom = MarginSoftmax { target: Target::Custom(Custom::new(Cubic([1.0; 3]))), ..Default::default() };
    let easy = |m: &mut Unified| m.fallback = Fallback::Easy;
    let normface = MarginSoftmax::normface;
    for (what, loss) in [
        ("product.linear", linear(MarginSoftmax::arcface())),
        ("product.linear", linear(MarginSoftmax::sphereface())),
        ("product.linear", linear(MarginSoftmax { others: Others::Identity, ..MarginSoftmax::arcgrad() })),
        ("product.linear", linear(normface().with_others(Others::Rectified))),
        ("product.linear", binary(linear(normface()))),
        ("product.linear", linear(normface().with_adaptive(Adaptive::AdaCos))),
        ("product.linear", linear(normface().with_adaptive(elastic(true)))),
        ("label_smoothing", binary(normface()).with_label_smoothing(0.1)),
        ("label_smoothing", MarginSoftmax::sphereface2().with_label_smoothing(0.1)),
        ("others.curricular", MarginSoftmax::arcgrad().with_others(Others::Curricular)),
        ("others.curricular", custom.clone().with_others(Others::Curricular)),
        ("adaptive", MarginSoftmax::arcgrad().with_adaptive(adaface)),
        ("adaptive", MarginSoftmax::sphereface2().with_adaptive(magface)),
        ("adaptive", custom.clone().with_adaptive(elastic(true))),
        ("product.linear", linear(MarginSoftmax::named("modified_softmax").unwrap())),
        ("adaptive.adaface", MarginSoftmax::arcface().with_adaptive(adaface)),
        ("adaptive.adaface", MarginSoftmax::cosface().with_adaptive(adaface)),
        ("adaptive.magface", MarginSoftmax::arcface().with_adaptive(magface)),
        ("adaptive.adaface", normface().with_margin(given).with_adaptive(adaface)),
        ("adaptive.magface", normface().with_margin(given).with_adaptive(magface)),
        ("adaptive.elastic", MarginSoftmax::arcface().with_margin(given).with_adaptive(elastic(false))),
        ("adaptive.elastic", MarginSoftmax::arcface().with_margin(easy).with_adaptive(elastic(false))),
        ("fallback", normface().with_margin(|m| (m.m1, m.fallback) = (1.35, Fallback::Sine)).with_adaptive(magface)),
        ("fallback", normface().with_margin(|m| (m.m1, m.fallback) = (1.8, Fallback::Easy)).with_adaptive(magface)),
        ("fallback", normface().with_margin(|m| (m.m1, m.fallback) = (2.0, Fallback::Easy)).with_adaptive(adaface)),
    ] {
        let error = loss.validate().expect_err(what);
        assert!(matches!(error, Error::Combination { what: found, .. } if found == what), "{error:?} for {loss:?}");
        says(&error, &[what]);
        let head = Backend::reference().head(&loss, Shape::new(1, 4, 2).unwrap());
        assert_eq!(head.err(), Some(error));
    }
    for loss in [
        linear(MarginSoftmax::cosface()),
        linear(MarginSoftmax::ampface()).with_label_smoothing(0.1),
        binary(MarginSoftmax::arcface()),
        MarginSoftmax::cosface().with_margin(given).with_adaptive(elastic(true)),
        MarginSoftmax::cosface().with_adaptive(magface),
        custom.with_adaptive(Adaptive::AdaCos),
        MarginSoftmax::adaface().with_others(Others::Curricular),
    ] {
        assert_eq!(loss.validate(), Ok(()), "{loss:?}");
    }
}

#[derive(Debug)]
struct Numbers(Vec<f64>);

impl Margin for Numbers {
    fn name(&self) -> &str {
        "numbers"
    }
    fn value_slope(&self, x: f64) -> (f64, f64) {
        (x, 1.0)
    }
    fn wgsl(&self) -> &str {
        "fn margin_target(x: f32) -> ValueSlope { return ValueSlope(x, 1.0); }"
    }
    fn parameters(&self) -> Vec<f64> {
        self.0.clone()
    }
}

impl OtherCurve for Numbers {
    fn name(&self) -> &str {
        "numbers"
    }
    fn value_slope(&self, c: f64, _: RowTarget) -> (f64, f64) {
        (c, 1.0)
    }
    fn wgsl(&self) -> &str {
        "fn margin_other(c: f32, row: RowTarget) -> ValueSlope { return ValueSlope(c, 1.0); }"
    }
    fn parameters(&self) -> Vec<f64> {
        self.0.clone()
    }
}

#[test]
fn numbers_of_a_custom_margin_are_checked() {
    let custom = |numbers: &[f64]| {
        let target = Target::Custom(Custom::new(Numbers(numbers.to_vec())));
        MarginSoftmax { target, ..Default::default() }
    };
    let most = f64::from(f32::MAX);
    assert_eq!((custom(&[most; 16]).validate(), custom(&[]).validate()), (Ok(()), Ok(())));
    assert_eq!(
        custom(&[0.0; 17]).validate(),
        Err(Error::Size { what: "parameters of a custom margin", needed: 17, allowed: 16 })
    );
    for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY, most.next_up(), 1e39] {
        refuses(custom(&[1.0, bad]), "custom.parameters", bad, "finite f32 numbers");
    }
    let others = |numbers: &[f64]| {
        MarginSoftmax::normface().with_others(Others::Custom(CustomOthers::new(Numbers(numbers.to_vec()))))
    };
    assert_eq!(others(&[most; 16]).validate(), Ok(()));
    assert_eq!(
        others(&[0.0; 17]).validate(),
        Err(Error::Size { what: "parameters of custom others", needed: 17, allowed: 16 })
    );
    refuses(others(&[1.0, most.next_up()]), "others.custom.parameters", most.next_up(), "finite f32 numbers");
    assert_eq!(others(&[1.0]), others(&[1.0]));
    assert_ne!(others(&[1.0]), others(&[2.0]));
    assert_eq!(custom(&[1.0]), custom(&[1.0]));
    assert_ne!(custom(&[1.0]), custom(&[2.0]));
    assert_ne!(custom(&[]).target, Target::Custom(Custom::new(Cubic([0.0; 3]))));
}

/// Two rows of four classes in two dimensions.
fn problem(loss: MarginSoftmax) -> Problem {
    let w = vec![1.0, 1.0, 0.0, 2.0, -3.0, 1.0, 0.5, -1.0];
    Problem::new(loss, Shape::new(2, 4, 2).unwrap(), vec![3.0, 4.0, -1.0, 2.0], w, vec![0, 2])
}

#[track_caller]
fn fails(loss: MarginSoftmax, change: impl FnOnce(&mut Problem)) -> Error {
    let mut problem = problem(loss);
    change(&mut problem);
    problem.try_run().expect_err("an error")
}

#[test]
fn a_bias_belongs_to_a_linear_head() {
    let bias = |values: &[f64]| {
        let values = values.to_vec();
        move |p: &mut Problem| p.bias = Some(values)
    };
    for loss in [MarginSoftmax::arcface(), MarginSoftmax::sphereface2(), MarginSoftmax::arcgrad()] {
        let error = fails(loss, bias(&[0.0; 4]));
        assert!(matches!(error, Error::Combination { what: "bias", .. }), "{error:?}");
    }
    for found in [0, 3, 5] {
        let error = fails(MarginSoftmax::softmax(), bias(&vec![0.0; found]));
        assert_eq!(error, Error::Length { what: "bias", found, expected: 4 });
    }
    for value in [f64::NAN, f64::INFINITY] {
        let error = fails(MarginSoftmax::softmax(), bias(&[0.0, 0.0, value, 0.0]));
        assert!(matches!(error, Error::Parameter { what: "bias", .. }), "{error:?}");
    }
}

#[test]
fn margins_of_classes_and_rows_are_checked() {
    let set = |k: usize, rows: bool, values: Vec<f64>| {
        move |p: &mut Problem| if rows { p.row_margins[k] = Some(values) } else { p.class_margins[k] = Some(values) }
    };
    let curve = |coefficients: Coefficients, degree| {
        MarginSoftmax::arcface()
            .with_margin(|m| m.curve = Curve::Series(Series { degree, coefficients, damping: Damping::None }))
    };
    let given = || curve(Coefficients::Given(vec![0.0, 1.0]), 1);
    let fit = || curve(Coefficients::Fit, 5);
    for (rows, count) in [(false, 4), (true, 2)] {
        let what = if rows { "row_margins" } else { "class_margins" };
        for k in 0..4 {
            for found in [0, 1, 5] {
                let error = fails(MarginSoftmax::arcface(), set(k, rows, vec![0.5; found]));
                assert_eq!(error, Error::Length { what, found, expected: count });
            }
            let custom = Target::Custom(Custom::new(Cubic([1.0; 3])));
            let custom = MarginSoftmax { target: custom, ..Default::default() };
            for loss in [MarginSoftmax::arcgrad(), MarginSoftmax::sphereface2(), custom] {
                let error = fails(loss, set(k, rows, vec![0.5; count]));
                assert!(matches!(error, Error::Combination { what: "margins of classes and rows", .. }), "{error:?}");
                says(&error, &["unified"]);
            }
            for (loss, refused) in
                [(MarginSoftmax::softmax(), [1, 2].contains(&k)), (given(), [1, 2].contains(&k)), (fit(), k == 1)]
            {
                let mut problem = problem(loss);
                set(k, rows, vec![0.5; count])(&mut problem);
                assert_eq!(problem.try_run().is_err(), refused, "m{k} of {:?}", problem.loss);
            }
        }
        // inside: m2 may be negative; outside, by name
        let pi = std::f64::consts::PI;
        let nan = [f64::NAN, f64::INFINITY];
        for (k, name, inside, outside) in [
            (0, "m0", [5e-324, 1e6], [0.0, 1e6_f64.next_up()]),
            (1, "m1", [5e-324, 16.0], [0.0, 16.0_f64.next_up()]),
            (2, "m2", [-pi.next_down(), pi.next_down()], [-pi, pi]),
            (3, "m3", [-1e6, 1e6], [-1e6_f64.next_up(), 1e6_f64.next_up()]),
        ] {
            for value in inside {
                let mut problem = problem(MarginSoftmax::arcface());
                set(k, rows, vec![value; count])(&mut problem);
                let out = problem.run();
                assert!(out.grad_embeddings.iter().all(|g| g.is_finite()), "{name} = {value}");
            }
            for value in outside.into_iter().chain(nan) {
                let error = fails(MarginSoftmax::arcface(), set(k, rows, vec![value; count]));
                assert!(matches!(error, Error::Parameter { what, .. } if what == name), "{name} = {value}: {error:?}");
            }
        }
        // fallbacks that do not take the margin of a row
        let with = |fallback| MarginSoftmax::arcface().with_margin(|m| m.fallback = fallback);
        for error in [
            fails(with(Fallback::Sine), set(1, rows, vec![1.35; count])),
            fails(with(Fallback::Easy), set(2, rows, vec![1.7; count])),
        ] {
            assert!(matches!(error, Error::Combination { what: "fallback", .. }), "{error:?}");
        }
    }
    // what is not looked up is not looked at: an ignored row, a class without a row
    let mut problem = problem(MarginSoftmax::arcface().with_ignore_index(-1));
    problem.labels[1] = -1;
    problem.row_margins[2] = Some(vec![0.3, f64::NAN]);
    problem.class_margins[0] = Some(vec![1.0, f64::NAN, -1.0, 0.0]);
    assert!(problem.run().loss.is_finite());
}

/// Shards: each class once, nothing beyond them; what is merged belongs to this batch and this loss.
#[test]
fn shards_that_are_not_all_classes_once_are_refused() {
    let problem = problem(MarginSoftmax::arcface());
    let shape = problem.shape;
    let shard = |range: std::ops::Range<usize>| {
        let batch = Batch { prototypes: &problem.prototypes[2 * range.start..2 * range.end], ..problem.batch() };
        reference::Shard::new(&problem.loss, shape, range, &batch, &problem.state).unwrap()
    };
    let shards = |error: Error| matches!(error, Error::Shards { classes: 4, .. });
    let targets = |range| shard(range).targets(&problem.state);
    let whole = targets(0..4);
    let splits: [&[[usize; 2]]; 8] = [
        &[],
        &[[0, 2]],
        &[[1, 4]],
        &[[0, 2], [3, 4]],
        &[[0, 2], [1, 4]],
        &[[0, 2], [0, 2], [2, 4]],
        &[[0, 4], [0, 4]],
        &[[2, 4], [0, 1]],
    ];
    for parts in splits {
        let parts: Vec<std::ops::Range<usize>> = parts.iter().map(|&[start, end]| start..end).collect();
        let targets: Vec<Targets> = parts.iter().cloned().map(targets).collect();
        assert!(shards(Targets::merged(&targets, 4).unwrap_err()), "{parts:?}");
        let sums: Vec<Statistics> =
            parts.iter().map(|r| shard(r.clone()).statistics(&whole, &problem.state).unwrap()).collect();
        assert!(shards(Statistics::merged(&sums, 4).unwrap_err()), "{parts:?}");
    }
    // a head of more classes
    assert!(matches!(Targets::merged(std::slice::from_ref(&whole), 5).unwrap_err(), Error::Shards { classes: 5, .. }));
    assert!(matches!(Targets::merged(std::slice::from_ref(&whole), 3).unwrap_err(), Error::Shards { classes: 3, .. }));
    // any order will do
    assert_eq!(Targets::merged(&[targets(3..4), targets(0..3)], 4).unwrap(), whole);
    // counts as another machine may send them
    let counted = |range| Targets { zero_prototypes: usize::MAX, non_finite_prototypes: usize::MAX, ..targets(range) };
    let all = Targets::merged(&[counted(0..3), counted(3..4)], 4).unwrap();
    assert_eq!((all.zero_prototypes, all.non_finite_prototypes), (usize::MAX, usize::MAX));

    for range in [0..0, 2..2, 3..5, 4..5, 0..5] {
        let head = Backend::reference().shard(&problem.loss, shape, range.clone(), &Options::default());
        assert!(shards(head.err().unwrap()), "{range:?}");
        let error = reference::Shard::new(&problem.loss, shape, range, &problem.batch(), &problem.state);
        assert!(shards(error.err().unwrap()));
    }
    // the prototypes of another shard
    let batch = Batch { prototypes: &problem.prototypes[..4], ..problem.batch() };
    let error = reference::Shard::new(&problem.loss, shape, 0..3, &batch, &problem.state).err().unwrap();
    assert_eq!(error, Error::Length { what: "prototypes", found: 4, expected: 6 });

    // one shard alone does not know the loss
    let mut head = Backend::reference().shard(&problem.loss, shape, 0..3, &Options::default()).unwrap();
    let (x, w) = ([3.0, 4.0, -1.0, 2.0_f32], [1.0, 1.0, 0.0, 2.0, -3.0, 1.0_f32]);
    let batch = Batch { embeddings: &x, prototypes: &w, labels: &[0_i64, 2], ..Default::default() };
    for error in [head.evaluate(&batch).unwrap_err(), head.train(&batch).unwrap_err()] {
        assert!(matches!(error, Error::Combination { what: "shard", .. }), "{error:?}");
    }
    // its own part in the place of what all know
    let part = head.targets(&batch).unwrap();
    assert!(shards(head.follow(&batch, &part).unwrap_err()));
    assert!(shards(head.statistics(&batch, &part).unwrap_err()));
    let sums = head.statistics(&batch, &whole).unwrap();
    assert!(shards(head.gradients(&batch, &whole, &sums).unwrap_err()));
    assert_eq!(head.state().step, 0);
}

#[test]
fn statistics_of_another_batch_or_loss_are_refused() {
    let problem = problem(MarginSoftmax::arcface());
    let (shape, state) = (problem.shape, problem.state);
    let of = |problem: &Problem| {
        let shard = reference::Shard::new(&problem.loss, shape, 0..4, &problem.batch(), &state).unwrap();
        let targets = shard.targets(&state);
        let sums = shard.statistics(&targets, &state).unwrap();
        (targets, sums)
    };
    let (targets, sums) = of(&problem);
    let mut shorter = problem.clone();
    (shorter.labels, shorter.embeddings) = (vec![2], vec![-1.0, 2.0]);
    let (few, few_sums) = of(&shorter);
    let topk = |count| MarginSoftmax::arcface().with_others(Others::TopK(TopK { count, margin: 0.1 }));
    let mut other = problem.clone();
    other.loss = topk(2);
    let shard = |problem: &Problem, run: &dyn Fn(&reference::Shard) -> Error| {
        run(&reference::Shard::new(&problem.loss, shape, 0..4, &problem.batch(), &state).unwrap())
    };
    let length = |what, found, expected| Error::Length { what, found, expected };
    let statistics = |t: &Targets| {
        let t = t.clone();
        move |s: &reference::Shard| s.statistics(&t, &state).unwrap_err()
    };
    let gradients = |t: &Targets, r: &Statistics| {
        let (t, r) = (t.clone(), r.clone());
        move |s: &reference::Shard| s.gradients(Want::ALL, &t, &r, &state).unwrap_err()
    };
    assert_eq!(shard(&problem, &statistics(&few)), length("targets.cosines", 1, 2));
    assert_eq!(shard(&problem, &gradients(&few, &sums)), length("targets.cosines", 1, 2));
    assert_eq!(shard(&problem, &gradients(&targets, &few_sums)), length("statistics.rows", 1, 2));
    assert_eq!(shard(&other, &statistics(&targets)), length("targets.top_count", 0, 2));
    assert_eq!(shard(&problem, &statistics(&of(&other).0)), length("targets.top_count", 2, 0));
    let adacos = Problem { loss: MarginSoftmax::adacos(), ..problem.clone() };
    assert_eq!(shard(&adacos, &statistics(&targets)), length("targets.sums", 0, 2));
    // numbers that no shard computes
    let parameter = |error: Error| match error {
        Error::Parameter { what, found, .. } => (what, found.to_string()),
        other => panic!("{other}"),
    };
    for (bad, shown) in [([f64::NAN, 1.0], "NaN"), ([0.0, -1.0], "-1"), ([0.0, f64::INFINITY], "inf")] {
        let mut sums = sums.clone();
        [sums.rows[1].max_logit, sums.rows[1].sum] = bad;
        let expected = ("statistics.rows", shown.to_string());
        assert_eq!(parameter(shard(&problem, &gradients(&targets, &sums))), expected);
        let mut found = of(&adacos).0;
        found.sums[1] = bad;
        assert_eq!(parameter(shard(&adacos, &statistics(&found))), ("targets.sums", shown.to_string()));
    }
    for (bad, shown) in [((f64::NAN, 1), "NaN"), ((0.5, 4), "0.5")] {
        let mut found = of(&other).0;
        found.top[1][0] = bad;
        assert_eq!(parameter(shard(&other, &statistics(&found))), ("targets.top", shown.to_string()));
    }
    // parts of two batches do not merge
    let half = |mut t: Targets, range| {
        t.range = range;
        t
    };
    assert_eq!(
        Targets::merged(&[half(targets.clone(), 0..2), half(few.clone(), 2..4)], 4).unwrap_err(),
        length("targets.cosines", 1, 2)
    );
    assert_eq!(
        Targets::merged(&[half(targets, 0..2), half(of(&other).0, 2..4)], 4).unwrap_err(),
        length("targets.top_count", 2, 0)
    );
    let half = |mut s: Statistics, range| {
        s.range = range;
        s
    };
    assert_eq!(
        Statistics::merged(&[half(sums, 0..2), half(few_sums, 2..4)], 4).unwrap_err(),
        length("statistics.rows", 1, 2)
    );
}

#[test]
fn a_state_of_another_head_or_outside_its_ranges_is_refused() {
    let problem = problem(MarginSoftmax::curricularface());
    let mut head = Backend::reference().head(&problem.loss, problem.shape).unwrap();
    let before = *head.state();
    let mut refuse = |state: State, expected: &dyn Fn(&Error) -> bool| {
        let error = head.set_state(&state).unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_eq!(Problem { state, ..problem.clone() }.try_run().unwrap_err().to_string(), error.to_string());
        let mut moved = state;
        let train = reference::train(&problem.loss, problem.shape, Want::ALL, &problem.batch(), &mut moved);
        assert!(train.is_err() && format!("{moved:?}") == format!("{state:?}"));
        assert_eq!(*head.state(), before);
    };
    for classes in [0, 3, 5] {
        let shape = |e: &Error| *e == Error::Shape { what: "state", found: vec![classes], expected: vec![4] };
        refuse(State { classes, ..before }, &shape);
    }
    let named = |name: &'static str| move |e: &Error| matches!(e, Error::Parameter { what, .. } if *what == name);
    for bad in [1.0 + 2e-6, -1.0 - 2e-6, f64::NAN, f64::INFINITY] {
        refuse(State { hardness: bad, ..before }, &named("state.hardness"));
    }
    for bad in [-5e-324, 1e30_f64.next_up(), f64::NAN] {
        refuse(State { norm_mean: bad, ..before }, &named("state.norm_mean"));
        refuse(State { norm_deviation: bad, ..before }, &named("state.norm_deviation"));
    }
    for bad in [0.0, -1.0, 1e6_f64.next_up(), f64::NAN] {
        refuse(State { scale: bad, ..before }, &named("state.scale"));
    }
    for state in [
        State { hardness: -1.0, ..before },
        State { hardness: 1.0, norm_mean: 1e30, norm_deviation: 0.0, scale: 1e6, step: 1 << 63, ..before },
    ] {
        head.set_state(&state).unwrap();
        assert_eq!(*head.state(), state);
    }
}

/// Weights of rows, their products with those of the classes, and a divisor that no sum may have.
#[test]
fn row_weights_and_divisors_outside_their_ranges_are_refused() {
    let refused = |what: &str, allowed: &str, change: &dyn Fn(&mut Problem)| {
        let error = fails(MarginSoftmax::arcface(), change);
        assert!(matches!(error, Error::Parameter { .. }), "{what}: {error:?}");
        says(&error, &[what, allowed]);
    };
    for bad in [f64::NAN, f64::INFINITY, -1.0, 1e-31, 1e25] {
        refused("`row_weights`", "0, or 1e-30 <= w <= 1e24", &|p| p.row_weights = Some(vec![1.0, bad]));
        // what is refused is the product, in either direction
        if bad > 0.0 && bad.is_finite() {
            let root = bad.sqrt();
            refused("`row_weights · class_weights`", "1e-30 <= w <= 1e24", &|p| {
                (p.row_weights, p.weights) = (Some(vec![root, 1.0]), Some(vec![root, 1.0, 1.0, 1.0]));
            });
        }
    }
    refused("`row_weights · class_weights`", "<= 1e24", &|p| {
        p.loss.label_smoothing = 0.1;
        (p.row_weights, p.weights) = (Some(vec![1e20, 1.0]), Some(vec![1.0, 1e20, 1.0, 1.0]));
    });
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-31, 1e31] {
        refused("`divisor`", "1e-30 <= divisor <= 1e30", &|p| p.divisor = Some(bad));
    }
    for reduction in [Reduction::Sum, Reduction::None] {
        let error = fails(MarginSoftmax::arcface().with_reduction(reduction), |p| p.divisor = Some(2.0));
        assert!(matches!(error, Error::Combination { what: "divisor", .. }), "{error:?}");
    }
    let error = fails(MarginSoftmax::arcface(), |p| p.row_weights = Some(vec![1.0]));
    assert!(matches!(error, Error::Length { what: "row_weights", found: 1, expected: 2, .. }), "{error:?}");
}

/// Focal loss needs the probability of one label, and a z-loss a log-sum-exp.
#[test]
fn focal_and_z_losses_are_refused_where_they_have_no_meaning() {
    for loss in [MarginSoftmax::sphereface2(), MarginSoftmax::arcface().with_label_smoothing(0.1)] {
        assert!(matches!(loss.with_focal(2.0).validate(), Err(Error::Combination { what: "focal", .. })));
    }
    let binary = MarginSoftmax::sphereface2().with_z_loss(1e-4).validate();
    assert!(matches!(binary, Err(Error::Combination { what: "z_loss", .. })));
}

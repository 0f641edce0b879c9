//! The example `speakers`: its data is what it claims to be, training helps voices that were not trained, and the curves are
//! those that the report speaks of.
#![cfg(feature = "cpu")]

#[path = "../examples/speakers/claims.rs"]
#[allow(dead_code)] // the report uses the rest
mod claims;
#[path = "../examples/common/mod.rs"]
#[allow(dead_code)] // the pages use the rest
mod common;
#[path = "../examples/speakers/experiments.rs"]
#[allow(dead_code)] // the command line uses the rest
mod experiments;
#[path = "../examples/speakers/losses.rs"]
mod losses;
#[path = "../examples/speakers/report.rs"]
mod report;
#[path = "../examples/speakers/squash.rs"]
mod squash;
#[path = "../examples/speakers/tables.rs"]
#[allow(dead_code)] // the command line uses the rest
mod tables;
#[path = "../examples/speakers/text.rs"]
mod text;
#[path = "../examples/speakers/trial.rs"]
mod trial;
#[path = "../examples/speakers/vowels.rs"]
mod vowels;

use approx::{assert_abs_diff_eq, assert_relative_eq};
use common::voices::{FEATURES, SEEN, UTTERANCES, Voices};
use experiments::{Plan, Results};
use losses::{Kind, Setting};
use margin_softmax::{Backend, Batch, Margin, Shape};
use ndarray::Axis;
use squash::Squashed;
use vowels::Utterances;

/// Counts, order and scaling.
#[test]
fn the_voices_are_complete() {
    let voices = Voices::load().unwrap();
    assert_eq!(voices.seen.inputs.dim(), (SEEN * UTTERANCES, FEATURES));
    assert_eq!(voices.unseen.inputs.dim(), (38 * UTTERANCES, FEATURES));
    let mut names: Vec<_> = voices.seen_names.iter().chain(&voices.unseen_names).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 98);
    for set in [&voices.seen, &voices.unseen] {
        assert!(set.labels.iter().enumerate().all(|(row, &label)| label as usize == row / UTTERANCES));
    }
    for column in voices.seen.inputs.columns() {
        assert_abs_diff_eq!(column.mean().unwrap(), 0.0, epsilon = 1e-4); // a thousand roundings of f32
        assert_abs_diff_eq!(column.std(0.0), 1.0, epsilon = 1e-3);
    }
    let [train, test] = voices.divided(4);
    assert_eq!((train.labels.len(), test.labels.len()), (SEEN * 12, SEEN * 4));
    assert_eq!(train.inputs.row(12), voices.seen.inputs.row(16));
    assert_eq!(test.inputs.row(0), voices.seen.inputs.row(12));
}

/// The documented files are the embedded ones: a changed byte is a changed sum.
#[test]
fn the_files_are_those_of_the_readme() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/data/");
    for (name, length, sum) in [("voices.csv.gz", 182_890, VOICES_SUM), ("japanese_vowels.csv.gz", 48_365, VOWELS_SUM)]
    {
        let bytes = std::fs::read(format!("{folder}{name}")).unwrap();
        assert_eq!((bytes.len(), fnv(&bytes)), (length, sum), "{name}");
    }
}

/// FNV-1a with 64 bits, so that no crate is needed for SHA-256.
const VOICES_SUM: u64 = 0x716a_5d69_626f_2071;
const VOWELS_SUM: u64 = 0xeed2_dbab_f90e_f31d;

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Counts as published with the data: 30 of each speaker to train on, 24 to 88 to test on.
#[test]
fn the_vowels_are_complete() {
    let Utterances { train, test } = Utterances::load().unwrap();
    let count = |labels: &[u32]| -> Vec<usize> {
        (0..vowels::SPEAKERS as u32).map(|own| labels.iter().filter(|&&label| label == own).count()).collect()
    };
    assert_eq!((train.inputs.dim(), test.inputs.dim()), ((270, vowels::FEATURES), (370, vowels::FEATURES)));
    assert_eq!(count(&train.labels), [30; 9]);
    assert_eq!(count(&test.labels), [31, 35, 88, 44, 29, 24, 40, 50, 29]);
    assert!(test.inputs.mean_axis(Axis(0)).unwrap().iter().all(|mean| mean.abs() < 1.0));
}

/// The quick form: every loss but the squashed ones verifies better than features and random network, AAM and ChebyAAM of one seed are
/// alike, a small scale is better, a second run gives the same bits, and the page has every table.
#[test]
fn training_helps_voices_that_were_not_trained() {
    let backend = Backend::cpu();
    let results = Results::measure(&backend, Plan::quick(1)).unwrap();
    let untrained = results.untrained.iter().map(|e| e.eer).fold(results.raw.eer, f64::min);
    for runs in &results.runs {
        let squashed = matches!(runs.setting.kind, Kind::Squashed(_));
        for errors in &runs.errors {
            assert!(squashed || errors.eer < untrained - 2.0, "{}: {errors:?}", runs.setting.title());
            assert!((0.0..=1.0).contains(&errors.min_dcf));
        }
        assert_eq!(runs.warned, 0, "{}", runs.setting.title());
        // the slopes stay those of ordinary angles
        let slopes = runs.largest.iter().map(|values| values[0]);
        assert!(squashed || slopes.fold(0.0, f64::max) < 4.0, "{}", runs.setting.title());
    }
    for &margin in &results.plan.margins {
        for difference in results.beyond_aam(&Setting::cheby(margin)).unwrap() {
            assert!(difference.abs() < 0.5, "m = {margin}: {difference}");
        }
    }
    let eer = |scale| results.of(&Setting::aam(0.2).with_scale(scale)).unwrap().errors[0].eer;
    assert!(eer(5.0) < eer(30.0));
    let vowels = &results.vowels;
    assert!(vowels.accuracies.iter().all(|(_, all)| all.iter().all(|&share| share > 80.0)));

    let voices = Voices::load().unwrap();
    let known = results.of(&Setting::aam(0.5)).unwrap();
    let again =
        trial::run(&backend, &known.setting, &voices.seen, &voices.unseen, results.plan.epochs, results.plan.seed)
            .unwrap();
    assert_eq!((again.errors, &again.steps), (known.errors[0], &known.steps));
    assert_eq!(again.readings, known.readings[..again.readings.len()]);

    let (page, json) = (report::html(&results).unwrap(), tables::json(&results));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["losses"].as_array().unwrap().len(), results.runs.len());
    for sheet in tables::all(&results).unwrap() {
        assert!(
            !sheet.rows.is_empty() && sheet.rows.iter().all(|row| row.len() == sheet.header.len()),
            "{}",
            sheet.title
        );
        assert!(sheet.title.contains(" / ") || page.contains(sheet.title), "{}", sheet.title);
    }
}

/// Worked by hand: sin(θ + m)/sin θ for the exact curve, and the polynomial T_1 cos m + c_0 + c_2 T_2 of degree 3, whose
/// slope at 1 is cos m + 4 c_2 with c_2 = (4/3π) sin m.
#[test]
fn the_slopes_are_those_of_the_formulas() {
    let (m, angle) = (0.2_f64, 1.0_f64.to_radians());
    let curves = claims::at_angles(m, &[1.0, 0.0]);
    assert_relative_eq!(curves[0].slopes[0], (angle + m).sin() / angle.sin(), max_relative = 1e-9);
    assert_relative_eq!(curves[0].pulls[0], (angle + m).sin(), max_relative = 1e-9);
    let third = m.cos() + 16.0 / (3.0 * std::f64::consts::PI) * m.sin();
    assert_eq!(curves[1].title, "n = 3");
    assert_relative_eq!(curves[1].slopes[1], third, max_relative = 1e-12);
    // a polynomial has a slope where the exact curve has none; at degree 30 its sign depends on the margin
    let just_above =
        |m: f64, title: &str| claims::at_the_threshold(m).into_iter().find(|(own, _)| own == title).unwrap().1;
    assert_abs_diff_eq!(just_above(0.2, "exact (AAM)"), 0.0, epsilon = 1e-4);
    assert!(just_above(0.2, "n = 30") > 0.09 && just_above(0.3, "n = 30") < -0.06 && just_above(0.5, "n = 30") < -0.04);
    assert!([0.2, 0.3, 0.5].iter().all(|&m| just_above(m, "n = 30, Jackson") > 0.0));
}

/// With k = 1 the squashed margin is ChebyAAM; its slope is its derivative; f32 paths agree with the reference.
#[test]
fn the_squashed_margin_agrees_everywhere() {
    let plain = Setting::cheby(0.3).loss();
    for x in [-1.0, -0.97, -0.5, 0.0, 0.4, 0.999, 1.0] {
        let (value, slope) = Squashed::new(1, 0.3).value_slope(x);
        let (expected, expected_slope) = plain.target_value_slope(x);
        assert_abs_diff_eq!(value, expected, epsilon = 1e-12);
        assert_abs_diff_eq!(slope, expected_slope, epsilon = 1e-9);
    }
    for power in [2, 3] {
        let margin = Squashed::new(power, 0.3);
        for x in [-0.9, -0.2, 0.1, 0.6, 0.95] {
            let step = 1e-6;
            let measured = (margin.value_slope(x + step).0 - margin.value_slope(x - step).0) / (2.0 * step);
            assert_abs_diff_eq!(measured, margin.value_slope(x).1, epsilon = 1e-6);
        }
    }

    let (rows, classes, dim) = (24, 7, 8);
    let wave = |count: usize, pace: f32| (0..count).map(|i| (i as f32 * pace).sin()).collect::<Vec<f32>>();
    let (embeddings, prototypes) = (wave(rows * dim, 1.7), wave(classes * dim, 2.3));
    let labels: Vec<u32> = (0..rows as u32).map(|row| row % classes as u32).collect();
    let batch = Batch { embeddings: &embeddings, prototypes: &prototypes, labels: &labels, ..Default::default() };
    let loss = Squashed::loss(2, 0.3, 16.0);
    let evaluate = |backend: &Backend| {
        backend.head(&loss, Shape::new(rows, classes, dim).unwrap()).unwrap().evaluate(&batch).unwrap()
    };
    let expected = evaluate(&Backend::reference());
    for backend in f32_paths() {
        let out = evaluate(&backend);
        assert_relative_eq!(out.loss, expected.loss, max_relative = 1e-5);
        for (found, known) in out.grad_embeddings.iter().zip(&expected.grad_embeddings) {
            // cosines are rounded to 2e-6, and the scale times the largest slope, 3.8, multiplies that
            assert_abs_diff_eq!(found, known, epsilon = 1e-4);
        }
    }
}

fn f32_paths() -> Vec<Backend> {
    #[allow(unused_mut)] // grows with the feature `gpu`
    let mut all = vec![Backend::cpu()];
    #[cfg(feature = "gpu")]
    match Backend::gpu(None) {
        Ok(gpu) => all.push(gpu),
        Err(why) if std::env::var_os("MARGIN_SOFTMAX_REQUIRE_GPU").is_some() => panic!("no GPU: {why}"),
        Err(why) => eprintln!("no GPU, only the CPU is compared: {why}"),
    }
    all
}

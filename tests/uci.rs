//! The example `uci`: its data is what it claims to be, and every loss learns in a small run.
#![cfg(feature = "cpu")]

#[path = "../examples/uci/collapse.rs"]
#[allow(dead_code)] // the report uses the rest
mod collapse;
#[path = "../examples/common/mod.rs"]
#[allow(dead_code)] // the pages use the rest
mod common;
#[path = "../examples/uci/data.rs"]
mod data;
#[path = "../examples/uci/experiments.rs"]
#[allow(dead_code)] // the command line uses the rest
mod experiments;
#[path = "../examples/uci/losses.rs"]
#[allow(dead_code)] // the report uses the rest
mod losses;
#[path = "../examples/uci/report.rs"]
mod report;
#[path = "../examples/uci/validation.rs"]
mod validation;

use approx::assert_abs_diff_eq;
use common::digits::Digits;
use data::{balance_scale, iris, standardised};
use experiments::Results;
use margin_softmax::Backend;
use ndarray::Axis;
use validation::{EPOCHS, Protocol, deal, mean_deviation};

/// Three folds once: every loss is right on 90 % of the flowers and 80 % of the scales, and the report has all of it.
#[test]
fn every_loss_learns() {
    let protocol = Protocol { folds: 3, repeats: 1, epochs: EPOCHS, seed: 1 };
    let results = Results::measure(&Backend::cpu(), protocol, [true, false, false]).unwrap();
    let [(_, flowers), (_, scales)] = &results.table[..] else { panic!("two data sets") };
    for (i, entry) in results.entries.iter().enumerate() {
        let [on_iris, on_scales] = [flowers, scales].map(|all| mean_deviation(&all[i]).0);
        assert!(on_iris >= 90.0 && on_scales >= 80.0, "{}: {on_iris} %, {on_scales} %", entry.title);
    }
    let (page, json) = (report::html(&results).unwrap(), report::json(&results));
    let tables = report::tables(&results);
    assert_eq!((tables.len(), tables[0].2.len()), (1, results.entries.len()));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["table"][1]["losses"][0]["published"], 89.65);
    assert!(results.entries.iter().all(|entry| page.contains(entry.title)));
    assert!(report::protocol(&results).contains("1 × 3-fold"));
}

/// Alone the images flee their prototypes, and the detector warns; with either remedy of the paper they do not, and it is
/// silent, unless the remedy is so weak that they come back only after the warm-up.
#[test]
fn polar_collapse_has_remedies() {
    let (backend, digits) = (Backend::cpu(), Digits::load().unwrap());
    for (i, run) in collapse::variants().iter().enumerate() {
        let trace = collapse::watch(&backend, &digits, run, 1).unwrap();
        let [cosine, length] = *trace.steps.last().unwrap();
        if i == 0 {
            assert!(cosine < -0.2 && trace.accuracy < 0.6, "{cosine}, {}", trace.accuracy);
            assert!(trace.warned.is_some(), "no warning");
        } else {
            assert!(cosine > 0.0 && trace.accuracy > 0.9, "{}: {cosine}, {}", trace.title, trace.accuracy);
            assert!(trace.warned.is_none() || trace.title == "Reg_ss, λ = 1", "{}: {:?}", trace.title, trace.warned);
        }
        assert!((0.0..=1.0).contains(&length));
    }
}

/// Counts and means as published with the data.
#[test]
fn the_data_is_complete() {
    let count = |labels: &[u32]| [0, 1, 2].map(|class| labels.iter().filter(|&&label| label == class).count());
    let iris = iris().unwrap();
    assert_eq!((iris.set.inputs.dim(), count(&iris.set.labels)), ((150, 4), [50; 3]));
    let means = iris.set.inputs.mapv(f64::from).mean_axis(Axis(0)).unwrap();
    for (found, known) in means.iter().zip([5.843, 3.057, 3.758, 1.199]) {
        assert_abs_diff_eq!(*found, known, epsilon = 5e-4); // known to three digits
    }
    let scales = balance_scale();
    assert_eq!((scales.set.inputs.dim(), count(&scales.set.labels)), ((625, 4), [288, 49, 288]));
    assert_eq!(scales.set.inputs.row(1).to_vec(), [1.0, 1.0, 1.0, 2.0]);
    assert_eq!(scales.set.labels[..2], [1, 2]); // in balance, to the right
}

/// Every row is in one fold, and each fold has its share of every class.
#[test]
fn folds_are_stratified() {
    let labels = balance_scale().set.labels;
    let folds = deal(&labels, 3, 10, 1);
    assert_ne!(folds, deal(&labels, 3, 10, 2));
    for (class, size) in [288, 49, 288].into_iter().enumerate() {
        for fold in 0..10 {
            let own = (0..625).filter(|&row| folds[row] == fold && labels[row] as usize == class).count();
            assert!(own == size / 10 || own == size / 10 + 1, "class {class}, fold {fold}: {own}");
        }
    }
}

/// The test part is measured with the mean and the deviation of the training part.
#[test]
fn inputs_are_standardised_on_the_training_part() {
    let all = iris().unwrap().set;
    let [train, test] = standardised(all.select(&(0..100).collect::<Vec<_>>()), all.select(&[120]));
    for column in train.inputs.columns() {
        assert_abs_diff_eq!(column.mean().unwrap(), 0.0, epsilon = 1e-4); // 100 roundings of f32
        assert_abs_diff_eq!(column.std(0.0), 1.0, epsilon = 1e-4);
    }
    assert!(test.inputs[[0, 2]] > 1.0, "the third species has the longest petals");
}

/// Worked by hand.
#[test]
fn mean_and_deviation() {
    assert_eq!(mean_deviation(&[90.0]), (90.0, None));
    assert_eq!(mean_deviation(&[1.0, 3.0]), (2.0, Some(2_f64.sqrt())));
}

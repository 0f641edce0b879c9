//! The example `margins`: what robustly comes out in its quick form, and what its report says.
#![cfg(feature = "cpu")]

#[path = "../examples/common/mod.rs"]
#[allow(dead_code)] // another example uses the rest
mod common;
#[path = "../examples/margins/data.rs"]
mod data;
#[path = "../examples/margins/experiments.rs"]
mod experiments;
#[path = "../examples/margins/globe.rs"]
mod globe;
#[path = "../examples/margins/report.rs"]
mod report;
#[path = "../examples/margins/sections.rs"]
mod sections;
#[path = "../examples/margins/tables.rs"]
mod tables;
#[path = "../examples/margins/training.rs"]
#[allow(dead_code)] // the command line uses the rest
mod training;

use data::Data;
use experiments::{DIM, MARGINS, Parts, REMEDIES, Results, SCALE, Setting};
use margin_softmax::{Backend, theory::Criterion};
use training::{Protocol, mean};

/// At m0 = 0.5 the remedies rank as the paper has them: WC-ReLU, then Reg_ss, then no remedy; and the report has everything.
#[test]
fn the_quick_form_has_the_published_order() {
    let results =
        Results::measure(&Backend::cpu(), Data::load().unwrap(), Protocol::quick(1), &Parts::all(), true).unwrap();
    let [(m0, runs)] = &results.remedies[..] else { panic!("one amplitude") };
    assert_eq!((*m0, runs.len()), (0.5, REMEDIES.len()));
    let eer: Vec<f64> = runs.iter().map(|runs| mean(runs, |o| o.eer)).collect();
    assert!(eer[3] < eer[2] && eer[2] < eer[0] && eer[3] < eer[1], "{REMEDIES:?}: {eer:?}");
    // alone it flees its prototypes, with WC-ReLU it does not
    assert!(mean(&runs[0], |o| o.train.target_cosine) < 0.0 && mean(&runs[3], |o| o.train.target_cosine) > 0.1);

    // a margin draws embeddings nearer to their prototypes: m2 and m3 of the whole range, m1 up to 1.6
    for (margin, place) in [(1, 1), (2, 2), (3, 1)] {
        let points = &results.sweeps[margin].points;
        let [first, last] = [0, place].map(|place| mean(&points[place].1, |o| o.train.intra));
        assert!(last < first - 0.2, "{}: {first} to {last}", MARGINS[margin].name);
    }
    // 60 voices
    let points = results.sweeps.iter().flat_map(|sweep| &sweep.points);
    assert!(points.map(|(_, runs)| mean(runs, |o| o.test.accuracy)).all(|accuracy| accuracy > 0.5));
    // a large factor needs the flattened curve
    let accuracy: Vec<f64> = results.curve[0].1.iter().map(|runs| mean(runs, |o| o.test.accuracy)).collect();
    assert!(accuracy[0] < accuracy[1], "{accuracy:?}");

    let page = report::html(&results).unwrap();
    let sheets = tables::all(&results).unwrap();
    assert!(sheets.iter().all(|sheet| page.contains(&sheet.title)));
    assert!(sheets.iter().flat_map(|sheet| &sheet.rows).flatten().all(|cell| !cell.contains("NaN")));
    let json: serde_json::Value = serde_json::from_str(&report::json(&results).unwrap()).unwrap();
    assert_eq!(json["sweeps"].as_array().map(Vec::len), Some(MARGINS.len()));
    // a reading every 12 steps, an epoch of all voices
    let all_voices = || results.readings().filter(|reading| reading.classes == 60);
    let runs = all_voices().filter(|reading| reading.step == 12).count();
    assert_eq!(all_voices().count(), runs * 20);
    assert!(results.readings().all(|reading| reading.rows > 0 && (-1.0..=1.0).contains(&reading.target_cosine)));
}

/// A run is the same to the last bit, whatever runs beside it.
#[test]
fn runs_are_repeatable() {
    let parts = Parts { collapse: true, ..Parts::default() };
    let protocol = Protocol { epochs: 2, ..Protocol::quick(3) };
    let measure =
        |parts: &Parts| Results::measure(&Backend::cpu(), Data::load().unwrap(), protocol, parts, true).unwrap();
    let (one, two) = (measure(&parts), measure(&Parts { curve: true, ..parts.clone() }));
    for (a, b) in one.collapse.iter().zip(&two.collapse) {
        assert_eq!(a.1[0].eer.to_bits(), b.1[0].eer.to_bits(), "{}", a.0.title);
        assert_eq!(a.1[0].readings, b.1[0].readings);
    }
}

/// The predicted optima of this setting: 60 classes, 32 dimensions, scale 30.
#[test]
fn predictions_of_the_setting() {
    let setting = Setting::new(60, DIM, SCALE).unwrap();
    for (margin, expected) in MARGINS.iter().zip([None, None, Some(0.350), Some(0.238)]) {
        let found = setting.optimum(margin).unwrap().unwrap();
        assert!(expected.is_none_or(|expected| (found - expected).abs() < 6e-4), "{}: {found}", margin.name);
        let stop = setting.stop(margin, found, Criterion::Probability(0.95)).unwrap().unwrap();
        assert!((stop[0] - setting.nearest / 2.0).abs() < 1e-9 && stop[1] < stop[0], "{}: {stop:?}", margin.name);
    }
}

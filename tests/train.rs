//! The example `train` learns with every loss.
#![cfg(feature = "cpu")]

#[path = "../examples/train/choice.rs"]
mod choice;
#[path = "../examples/common/mod.rs"]
#[allow(dead_code)] // the pages use the rest
mod common;
#[path = "../examples/train/metrics.rs"]
#[allow(dead_code)] // the page uses the rest
mod metrics;
#[path = "../examples/train/training.rs"]
#[allow(dead_code)] // the page uses the rest
mod training;

use common::digits::{Digits, SEEN, UNSEEN};
use margin_softmax::{Backend, MarginSoftmax, objective::PRESETS};
use metrics::score;
use training::{Loss, SETTINGS, Settings, train};

/// Every loss reaches 95 % on the test images and verifies unseen digits better than the untrained network.
#[test]
fn every_loss_learns() {
    let digits = Digits::load().unwrap();
    let backend = Backend::cpu();
    let untrained = SETTINGS.untrained();
    for Loss { name, loss, .. } in Loss::all() {
        let before = score(&backend, &loss, &untrained, &digits).unwrap();
        let run = train(&backend, &loss, &digits, &SETTINGS, |_| {}).unwrap();
        let after = score(&backend, &loss, &run.model, &digits).unwrap();
        assert!(after.accuracy >= 0.95, "{name}: accuracy {}", after.accuracy);
        assert!(after.eer < before.eer, "{name}: EER {}, untrained {}", after.eer, before.eer);
        assert!(after.m_intra() < after.m_inter(), "{name}: {} and {}", after.m_intra(), after.m_inter());
    }
}

/// Each image is in one part; no unseen digit is trained.
#[test]
fn the_parts_are_the_whole_file() {
    let digits = Digits::load().unwrap();
    let sizes = [&digits.train, &digits.test, &digits.unseen].map(|set| (set.inputs.nrows(), set.labels.len()));
    assert!(sizes.iter().all(|(images, labels)| images == labels));
    assert_eq!(sizes.iter().map(|(images, _)| images).sum::<usize>(), 1797);
    assert_eq!(sizes[2].0, 181 + 180); // fours and nines, counted in the file
    assert!(SEEN.iter().all(|digit| !UNSEEN.contains(digit)));
}

/// What no setting of the example makes learn as it is, and why; with its remedy it does.
const CANNOT: [(&str, &str); 1] =
    [("ampface", "an amplitude alone pushes the other classes harder than it pulls the own one: polar collapse")];

/// Every named loss as it is, with the scale and the margins of its paper, reaches 90 % in half the time.
#[test]
fn every_preset_learns() {
    let digits = Digits::load().unwrap();
    let backend = Backend::cpu();
    let settings = Settings { epochs: 30, ..SETTINGS };
    for preset in PRESETS {
        let (name, loss) = (preset.name, preset.loss());
        let run = train(&backend, &loss, &digits, &settings, |_| {}).unwrap_or_else(|e| panic!("{name}: {e}"));
        let after = score(&backend, &loss, &run.model, &digits).unwrap();
        assert!(run.course.losses.iter().all(|loss| loss.is_finite()), "{name}");
        match CANNOT.iter().find(|(cannot, _)| *cannot == name) {
            Some((_, why)) => {
                assert!(after.collapse.is_some() && after.accuracy < 0.9, "{name} learns after all: {why}")
            }
            None => assert!(after.accuracy >= 0.9 && after.collapse.is_none(), "{name}: accuracy {}", after.accuracy),
        }
    }
}

#[test]
fn sub_centers_learn() {
    let digits = Digits::load().unwrap();
    let (backend, loss) = (Backend::cpu(), MarginSoftmax::named("arcface_speaker").unwrap());
    let settings = Settings { epochs: 30, sub_centers: 3, ..SETTINGS };
    let run = train(&backend, &loss, &digits, &settings, |_| {}).unwrap();
    assert_eq!(run.model.prototypes.value.dim(), (3 * SEEN.len(), SETTINGS.dim));
    let after = score(&backend, &loss, &run.model, &digits).unwrap();
    assert!(after.accuracy >= 0.9, "accuracy {}", after.accuracy);
}

/// A name is a loss of this example or a preset as it is; anything else is JSON, in a file or not.
#[test]
fn a_loss_is_chosen_by_name_or_as_json() {
    assert_eq!(choice::parse("arcface").unwrap().loss.scale, 16.0);
    assert_eq!(choice::parse("magface").unwrap().loss, MarginSoftmax::magface());
    let unknown = choice::parse("arkface").unwrap_err();
    assert!(unknown.contains("neither") && unknown.contains("sphereface2"), "{unknown}");
    let json = r#"{"target": {"unified": {"m2": 0.4}}, "scale": 20}"#;
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(file.path(), r#"{"preset": "arcface"}"#).unwrap();
    let [given, named] = [json, file.path().to_str().unwrap()].map(|text| choice::parse(text).unwrap().loss);
    assert_eq!(given, MarginSoftmax::unified(1.0, 1.0, 0.4, 0.0).with_scale(20.0));
    assert_eq!(named, MarginSoftmax::arcface());
    assert!(choice::parse(r#"{"preset": "arkface"}"#).unwrap_err().contains("arkface"));
}

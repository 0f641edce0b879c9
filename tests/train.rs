//! The example `train` learns with every loss.
#![cfg(feature = "cpu")]

#[path = "../examples/train/data.rs"]
mod data;
#[path = "../examples/train/metrics.rs"]
#[allow(dead_code)] // the report uses the rest
mod metrics;
#[path = "../examples/train/mlp.rs"]
mod mlp;
#[path = "../examples/train/training.rs"]
#[allow(dead_code)] // the report uses the rest
mod training;

use approx::assert_abs_diff_eq;
use data::{Digits, SEEN, UNSEEN};
use margin_softmax::Backend;
use metrics::{equal_error_rate, score};
use training::{LOSSES, Model, SETTINGS, train};

/// Every loss reaches 95 % on the test images and verifies unseen digits better than the untrained network.
#[test]
fn every_loss_learns() {
    let digits = Digits::load().unwrap();
    let backend = Backend::cpu();
    let untrained = Model::untrained(&SETTINGS);
    for loss in LOSSES {
        let (name, loss) = (loss.name, loss.make());
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
    let sizes = [&digits.train, &digits.test, &digits.unseen].map(|set| (set.pixels.nrows(), set.labels.len()));
    assert!(sizes.iter().all(|(images, labels)| images == labels));
    assert_eq!(sizes.iter().map(|(images, _)| images).sum::<usize>(), 1797);
    assert_eq!(sizes[2].0, 181 + 180); // fours and nines, counted in the file
    assert!(SEEN.iter().all(|digit| !UNSEEN.contains(digit)));
}

/// Worked by hand.
#[test]
fn the_equal_error_rate_is_where_both_errors_meet() {
    let rate = |same: &[f32], different: &[f32]| {
        let pairs = same.iter().map(|&c| (c, true)).chain(different.iter().map(|&c| (c, false)));
        equal_error_rate(pairs.collect())
    };
    assert_abs_diff_eq!(rate(&[0.9, 0.8], &[0.2, 0.1]).unwrap(), 0.0); // apart
    assert_abs_diff_eq!(rate(&[0.2, 0.1], &[0.9, 0.8]).unwrap(), 1.0); // the wrong way round
    assert_abs_diff_eq!(rate(&[0.5, 0.5], &[0.5]).unwrap(), 0.5); // nothing to tell them by
    assert_abs_diff_eq!(rate(&[0.9, 0.7, 0.6, 0.3], &[0.8, 0.4, 0.2, 0.1]).unwrap(), 0.25); // at 0.6
    assert_eq!(rate(&[0.5], &[]), None);
}

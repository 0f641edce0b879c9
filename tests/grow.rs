//! The example `grow`: classes come and go, and it says what its documentation promises.
#![cfg(feature = "cpu")]

#[path = "../examples/grow.rs"]
#[allow(dead_code)] // the program itself
mod grow;

use grow::{Outcome, run};
use margin_softmax::{Backend, checkpoint::Checkpoint};

/// New classes are right far more often than by chance (1 in 41) before any training, and nearly always after it; old ones stay.
#[test]
fn a_run_of_25_classes_becomes_one_of_41() {
    let out = tempfile::tempdir().unwrap();
    let Outcome { before, grown, trained, smaller, found, mistaken } = run(&Backend::cpu(), out.path()).unwrap();
    assert!(before > 0.9 && grown[0] > before - 0.1 && grown[1] > 0.5, "{before} {grown:?}");
    assert!(trained[0] > 0.9 && trained[1] > 0.9 && smaller > 0.9, "{trained:?} {smaller}");
    assert!(found > 0.5 && mistaken < 0.01, "{found} {mistaken}");
    let [old, new] =
        [25, 41].map(|classes| Checkpoint::load(out.path().join(format!("{classes}.safetensors"))).unwrap());
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let (old, new) = (old.tensor("prototypes", &[25, 16]).unwrap(), new.tensor("prototypes", &[41, 16]).unwrap());
    assert_eq!(bits(old), bits(&new[..25 * 16]));
}

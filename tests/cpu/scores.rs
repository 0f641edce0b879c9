//! Scores for verification on the CPU, against the reference.

use margin_softmax::Backend;

#[path = "../scores/mod.rs"]
mod all;

#[test]
fn pairs_agree_with_the_reference() {
    all::pairs_agree_with_the_reference(&Backend::cpu());
}

#[test]
fn nearest_agree_with_the_reference() {
    all::nearest_agree_with_the_reference(&Backend::cpu());
}

#[test]
fn wrong_scores_are_refused() {
    [Backend::cpu(), Backend::reference()].iter().for_each(all::wrong_scores_are_refused);
}

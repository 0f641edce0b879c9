//! Sums over very many classes, and over very many rows, stay within the gates that a small batch keeps.
//!
//! The losses with a binary link have the hardest dX: what all classes pull along the embedding itself grows with their number,
//! and the gradient, which is the rest, with its root. With `MARGIN_SOFTMAX_FULL=1` there are 4 M classes and 1 M rows.

use margin_softmax::{Budget, MarginSoftmax};

use crate::common::{Data, WANT, assert_agrees, schedules_of};

fn full() -> bool {
    std::env::var("MARGIN_SOFTMAX_FULL").is_ok_and(|v| v == "1")
}

fn named(name: &str, smoothing: f64) -> MarginSoftmax {
    MarginSoftmax::named(name).unwrap().with_label_smoothing(smoothing)
}

fn agrees(kind: &str, loss: &MarginSoftmax, data: &Data) {
    let data = &data.fit(loss);
    let expected = data.reference(loss, WANT);
    for (schedule, mut options) in schedules_of(loss, data, WANT) {
        if schedule == "keep" {
            // a million rows need more than the default
            options.budget = Budget::mib(1024);
        }
        let name = format!("{kind} {:?} {} {schedule}", data.shape, loss.link.name());
        assert_agrees(&name, loss, &data.cpu(loss, &options), &expected, true);
    }
}

#[test]
fn sums_over_very_many_classes_keep_their_digits() {
    let classes = if full() { 1 << 22 } else { 1 << 18 };
    let data = Data::random(4, classes, 8, 1);
    for (name, smoothing) in [
        ("sphereface2", 0.0),
        ("sphereface2_angular", 0.0),
        ("sphereface2_opensphere", 0.0),
        ("arcgrad", 0.0),
        ("adacos", 0.0),
        ("softmax", 0.1),
    ] {
        agrees(name, &named(name, smoothing), &data);
    }
    agrees("weighted", &named("arcface", 0.1), &data.clone().weighted());
    let centers = Data::random(4, classes / 2, 8, 2).with_centers(2, 3);
    agrees("sub-centers", &named("sphereface2", 0.0), &centers);
    // every prototype pulls into the same octant: the sum itself is as large as it can be
    let mut one_sign = data;
    one_sign.w.iter_mut().for_each(|w| *w = w.abs() + 0.1);
    agrees("one sign", &named("arcface", 0.0), &one_sign);
}

#[test]
fn sums_over_very_many_rows_keep_their_digits() {
    let data = Data::random(if full() { 1 << 20 } else { 1 << 18 }, 4, 8, 4);
    for (name, smoothing) in [("sphereface2", 0.0), ("arcface", 0.1), ("softmax", 0.0)] {
        agrees(name, &named(name, smoothing), &data);
        agrees(name, &named(name, smoothing), &data.clone().weighted());
    }
}

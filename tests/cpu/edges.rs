//! The ends of the range, what must be left out, and ties.

use margin_softmax::{
    Backend, Batch, Budget, MarginSoftmax, Options, Others, Output, Reduction, Shape, Want,
    data::{Counts, GradientFilter},
    objective::PRESETS,
};

use crate::{
    common::{Data, WANT, assert_agrees, differing, distance, family_data, length, schedules, schedules_of},
    families::{Family, Suite, is_sorted, with_centers},
};

/// With one dimension every vector is its own radial direction: the gradient is rounding, nothing else.
#[test]
fn one_dimension_has_no_gradient() {
    for others in &[Others::Identity, Others::Rectified] {
        let data = Data::random(3, 5, 1, 6);
        let loss = MarginSoftmax::normface().with_others(others.clone());
        for (_, options) in schedules(&data, Want::ALL) {
            let out = data.cpu(&loss, &options);
            let limit = |v: &[f32]| 1e-6 * 64.0 / v.iter().fold(f32::MAX, |m, x| m.min(x.abs()));
            assert!(out.grad_embeddings.iter().all(|g| g.abs() <= limit(&data.x)), "{:?}", out.grad_embeddings);
            assert!(out.grad_prototypes.iter().all(|g| g.abs() <= limit(&data.w)), "{:?}", out.grad_prototypes);
        }
    }
}

/// One class: nothing to choose from, so loss 0 and gradient 0, exactly.
#[test]
fn one_class_costs_nothing() {
    for epsilon in [0.0, 0.2] {
        let data = Data::random(3, 1, 8, 7);
        let loss = MarginSoftmax::arcface().with_label_smoothing(epsilon);
        for (_, options) in schedules(&data, Want::ALL) {
            let out = data.cpu(&loss, &options);
            assert_eq!((out.loss, out.row_losses), (0.0, vec![0.0; 3]));
            assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
            assert_eq!(out.other_cosines, [-1.0; 3]);
            assert_eq!(out.target_cosines.len(), 3);
        }
    }
}

/// Confident rows: losses down to 1e-18 keep their precision.
#[test]
fn tiny_losses_keep_their_digits() {
    for cosine in [0.7, 0.9, 0.99] {
        for preset in ["normface", "arcface", "cosface", "chebyaam"] {
            for others in &[Others::Identity, Others::Rectified] {
                let loss = MarginSoftmax::named(preset).unwrap().with_others(others.clone()).with_scale(64.0);
                let data = Data::trained(64, 1500, 256, cosine, 8);
                let expected = data.reference(&loss, Want::ALL);
                let smallest = expected.row_losses.iter().fold(1.0_f64, |m, &l| m.min(l));
                assert!(cosine < 0.99 || smallest < 1e-8, "{smallest:e} is not tiny");
                for (schedule, options) in schedules(&data, Want::ALL) {
                    let name = format!("{preset} at {cosine}, {} {schedule}", others.name());
                    assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
                }
            }
        }
    }
}

/// Where the embedding lies on its prototype or opposite to it the gate proves nothing (the slope is up to 4795): the
/// value is checked directly, and the gradient relative to scale · slope / length.
#[test]
fn the_ends_are_exact() {
    for preset in PRESETS {
        for sign in [1.0_f32, -1.0] {
            let mut data = Data::random(2, 50, 12, 10);
            for i in 0..2 {
                let w: Vec<f32> = data.w[data.labels[i] as usize * 12..][..12].iter().map(|w| sign * w * 0.5).collect();
                data.x[i * 12..(i + 1) * 12].copy_from_slice(&w);
            }
            let loss = preset.loss();
            if is_sorted(&loss) {
                continue; // which of two cosines of 1 is larger, and so gets the smaller margin, is rounding
            }
            let expected = data.reference(&loss, Want::ALL);
            let (value, slope) = loss.target_value_slope(f64::from(sign));
            assert!(value.is_finite() && slope.is_finite());
            for (schedule, options) in schedules_of(&loss, &data, Want::ALL) {
                let (out, name) = (data.cpu(&loss, &options), format!("{} at {sign} {schedule}", preset.name));
                let bad = differing("row_losses", &out.row_losses, &expected.row_losses, 1e-4, |e| e.abs().max(1e-30));
                assert!(bad.is_empty(), "{name} (slope {slope:e}): {bad:?}");
                let shortest = data.x.chunks(12).chain(data.w.chunks(12)).map(length).fold(f64::MAX, f64::min);
                let size = loss.scale * slope.abs().max(1.0) / shortest;
                for (what, found, expected) in [
                    ("dX", &out.grad_embeddings, &expected.grad_embeddings),
                    ("dW", &out.grad_prototypes, &expected.grad_prototypes),
                ] {
                    let bad = differing(what, found, expected, 1e-6, |_| size);
                    assert!(bad.is_empty(), "{name}: {bad:?}");
                }
            }
        }
    }
}

/// A row with a NaN or an infinite value: its loss and the reduced loss are NaN, its dX is 0, everything else is that of
/// the batch without it.
#[test]
fn a_non_finite_row_is_left_out_loudly() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for others in &[Others::Identity, Others::Rectified] {
            let loss = MarginSoftmax::arcface().with_others(others.clone());
            let data = Data::random(6, 400, 16, 15);
            let mut broken = data.clone();
            broken.x[2 * 16 + 5] = bad;
            let mut without = data.clone();
            without.labels[2] = -1;
            let without_loss = loss.clone().with_ignore_index(-1);
            for (_, options) in schedules(&data, Want::ALL) {
                let out = broken.cpu(&loss, &options);
                let clean = without.cpu(&without_loss, &options);
                assert!(out.loss.is_nan());
                let nan: Vec<bool> = out.row_losses.iter().map(|l| l.is_nan()).collect();
                assert_eq!(nan, [false, false, true, false, false, false]);
                assert!(out.grad_embeddings[32..48].iter().all(|&g| g == 0.0));
                assert_eq!(out.grad_embeddings, clean.grad_embeddings);
                assert_eq!(out.grad_prototypes, clean.grad_prototypes);
                assert_eq!((out.counts.rows, out.counts.non_finite_rows, out.counts.ignored), (5, 1, 0));
                assert_eq!((out.target_cosines[2], out.other_cosines[2]), (0.0, -1.0));
            }
            // an ignored row may hold anything
            broken.labels[2] = -1;
            let out = broken.cpu(&without_loss, &Options::default());
            assert!(out.loss.is_finite() && out.counts.ignored == 1 && out.counts.non_finite_rows == 0);
        }
    }
}

/// A prototype with a NaN or an infinite value: every loss NaN, every gradient 0, counted.
#[test]
fn a_non_finite_prototype_stops_everything() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut data = Data::random(6, 400, 16, 16);
        data.w[399 * 16] = bad;
        data.w[7 * 16 + 15] = bad;
        data.labels[1] = 7;
        data.labels[5] = -1;
        for reduction in [Reduction::Mean, Reduction::Sum] {
            let loss = MarginSoftmax::arcface().with_ignore_index(-1).with_reduction(reduction);
            for (_, options) in schedules(&data, Want::ALL) {
                let mut out = Output { grad_embeddings: vec![1.0; 96], ..Output::default() };
                let mut head = Backend::cpu().head_with(&loss, data.shape(), &options).unwrap();
                head.evaluate_into(&data.batch(), &mut out).unwrap();
                assert!(out.loss.is_nan() && out.row_losses[..5].iter().all(|l| l.is_nan()));
                assert_eq!(out.row_losses[5], 0.0, "an ignored row");
                assert_eq!((out.grad_embeddings.len(), out.grad_prototypes.len()), (96, 6400));
                assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
                assert_eq!(out.counts, data.reference(&loss, Want::LOSS).counts);
                assert_eq!(out.counts.non_finite_prototypes, 2);
            }
        }
    }
}

/// Rows that do not count: loss 0 and gradients 0, never 0/0.
#[test]
fn nothing_to_learn_costs_nothing() {
    let nobody = Data::random(0, 300, 16, 17);
    let mut ignored = Data::random(4, 300, 16, 18);
    ignored.labels.fill(5);
    let mut weightless = ignored.clone();
    weightless.weights = Some(vec![1.0; 300]);
    weightless.weights.as_mut().unwrap()[5] = 0.0;
    let none = MarginSoftmax::arcface();
    let five = MarginSoftmax::arcface().with_ignore_index(5);
    for (data, loss) in [(&nobody, &none), (&ignored, &five), (&weightless, &none)] {
        let mut options = vec![Options::default()];
        if data.shape[0] > 0 {
            options.extend(schedules(data, Want::ALL).into_iter().map(|(_, o)| o));
        }
        for options in options {
            let mut out = Output { grad_prototypes: vec![f32::NAN; 4800], ..Output::default() };
            let mut head = Backend::cpu().head_with(loss, data.shape(), &options).unwrap();
            head.evaluate_into(&data.batch(), &mut out).unwrap();
            assert_eq!(out.loss, 0.0);
            assert!(out.row_losses.iter().all(|&l| l == 0.0));
            assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
            assert_eq!((out.grad_embeddings.len(), out.grad_prototypes.len()), (data.x.len(), 4800));
            assert_eq!(out.counts, data.reference(loss, Want::LOSS).counts);
        }
    }
    // the smoothed loss of a weightless class is not 0, but its mean has no divisor
    let smoothed = weightless.cpu(&none.clone().with_label_smoothing(0.1), &Options::default());
    assert!(smoothed.loss == 0.0 && smoothed.row_losses.iter().all(|&l| l > 0.0));
}

/// Vectors shorter than 1e-12: cosine 0 at 0, gradient exactly 0, counted, and no harm to anybody else.
#[test]
fn zero_vectors_get_no_gradient() {
    for others in &[Others::Identity, Others::Rectified] {
        let loss = MarginSoftmax::arcface().with_others(others.clone());
        let mut data = Data::random(6, 200, 16, 19);
        data.x[16..32].fill(0.0);
        data.x[32..48].fill(1e-14);
        data.w[..16].fill(0.0);
        data.w[160..176].fill(-2e-20);
        data.labels[4] = 0;
        for (schedule, options) in schedules(&data, Want::ALL) {
            let out = data.cpu(&loss, &options);
            assert_agrees(schedule, &loss, &out, &data.reference(&loss, Want::ALL), true);
            assert_eq!((out.counts.zero_embeddings, out.counts.zero_prototypes), (2, 2));
            assert_eq!((out.target_cosines[1], out.target_cosines[4]), (0.0, 0.0));
            assert!(out.grad_embeddings[16..48].iter().all(|&g| g == 0.0));
            assert!(out.grad_prototypes[..16].iter().chain(&out.grad_prototypes[160..176]).all(|&g| g == 0.0));
        }
    }
}

/// Lengths from 1e-11 to 1e28 change no cosine: the loss stays, and the gradient is divided by the length. Of all classes,
/// and of some beside ordinary ones, with sub-centers and with a filter that leaves nothing out.
#[test]
fn the_length_of_a_vector_does_not_matter() {
    let plain = Data::random(8, 150, 16, 20);
    let several = Data::random(8, 400, 16, 20).with_centers(3, 21);
    let filter = Some(GradientFilter::new(1e-12).unwrap());
    // at scale 10 no probability is so small that its gradient, divided by 1e28, leaves the range of f32
    let loss = MarginSoftmax::arcface().with_scale(10.0);
    for (data, some, filter) in [(plain, usize::MAX, None), (several.clone(), 20, None), (several, 500, filter)] {
        let scaled = |factor: [f32; 4]| {
            let mut data = data.clone();
            data.x.chunks_mut(16).enumerate().for_each(|(i, x)| x.iter_mut().for_each(|x| *x *= factor[i % 4]));
            let own = data.w.chunks_mut(16).enumerate().take(some);
            own.for_each(|(i, w)| w.iter_mut().for_each(|w| *w *= factor[(i + 1) % 4]));
            data
        };
        for (_, options) in schedules(&data, Want::ALL) {
            let options =
                Options { filter, budget: options.budget.max(Budget::mib(u64::from(filter.is_some()))), ..options };
            let plain = data.cpu(&loss, &options);
            let factor = [1e-11, 1e18, 1e28, 1e-6];
            let out = scaled(factor).cpu(&loss, &options);
            assert!((out.loss / plain.loss - 1.0).abs() < 1e-6, "{} and {}", out.loss, plain.loss);
            for (out, plain, shift, some) in [
                (&out.grad_embeddings, &plain.grad_embeddings, 0, usize::MAX),
                (&out.grad_prototypes, &plain.grad_prototypes, 1, some),
            ] {
                for (i, (out, plain)) in out.chunks(16).zip(plain.chunks(16)).enumerate() {
                    let factor = if i < some { factor[(i + shift) % 4] } else { 1.0 };
                    let back: Vec<f32> = out.iter().map(|g| g * factor).collect();
                    if plain.iter().all(|&g| g == 0.0) {
                        // a sub-center that is nearest to no row
                        assert!(back.iter().all(|&g| g == 0.0));
                        continue;
                    }
                    let off = distance(&back, &plain.iter().map(|&g| f64::from(g)).collect::<Vec<_>>());
                    assert!(off < 1e-5, "vector {i} times {factor:e}: off by {off:e}");
                }
            }
            // elements up to 1e38: lengths beyond the range of f32, gradients below it
            let out = scaled([1e37, 5e36, 1e37, 2e36]).cpu(&loss, &options);
            assert!((out.loss / plain.loss - 1.0).abs() < 1e-6, "{} and {}", out.loss, plain.loss);
            let own = out.grad_prototypes.iter().take(some.min(data.w.len() / 16) * 16);
            assert!(out.grad_embeddings.iter().chain(own).all(|g| g.abs() < 1e-30));
        }
    }
}

/// Rows that are not finite, ignored, short or weightless in every family, against the reference.
#[test]
fn every_family_leaves_out_what_it_must() {
    for (Family { loss, .. }, centers) in with_centers(Suite::Cpu) {
        let loss = loss.with_ignore_index(-1);
        let mut data = family_data(&loss, centers, 70);
        data.labels[5] = -1;
        data.x[20 * 2..20 * 3].fill(0.0);
        data.w[20 * 7..20 * 8].fill(0.0);
        for (schedule, options) in schedules_of(&loss, &data, WANT) {
            let out = data.cpu(&loss, &options);
            assert_agrees(&format!("{loss:?} {schedule}"), &loss, &out, &data.reference(&loss, WANT), true);
        }
        let mut broken = data.clone();
        broken.x[20 * 4 + 3] = f32::INFINITY;
        let mut without = data.clone();
        without.labels[4] = -1;
        // a row more or less is another draw of the sorted margins
        let same = !is_sorted(&loss);
        for (_, options) in schedules_of(&loss, &data, WANT) {
            let (out, clean) = (broken.cpu(&loss, &options), without.cpu(&loss, &options));
            assert!(out.loss.is_nan() && out.row_losses[4].is_nan() && out.counts.non_finite_rows == 1);
            assert!(out.grad_embeddings[80..100].iter().all(|&g| g == 0.0));
            if same {
                assert_eq!(out.grad_embeddings, clean.grad_embeddings);
                assert_eq!(out.grad_prototypes, clean.grad_prototypes);
                assert_eq!((out.grad_scale, &out.grad_bias), (clean.grad_scale, &clean.grad_bias));
            }
        }
        let mut weightless = data.clone();
        weightless.weights = Some(vec![0.0; 260]);
        let mut nobody = data.clone();
        nobody.labels.fill(-1);
        for data in [weightless, nobody] {
            let expected = data.reference(&loss, WANT);
            let out = data.cpu(&loss, &Options { want: WANT, ..Options::default() });
            assert!((f64::from(out.loss) - expected.loss).abs() <= 1e-6 * expected.loss);
            assert_eq!(out.counts, expected.counts);
            assert!(out.grad_prototypes.iter().chain(&out.grad_bias).all(|&g| g == 0.0) && out.grad_scale == 0.0);
            assert!(out.grad_embeddings.iter().chain([&out.loss]).all(|&g| g == 0.0) && expected.loss == 0.0);
        }
    }
}

/// One class leaves a softmax nothing to choose from, and a binary link its own problem.
#[test]
fn one_class_of_a_family() {
    for (name, centers) in [("normface", 2), ("arcgrad", 1), ("softmax", 1), ("sphereface2", 1), ("sphereface2", 3)] {
        let loss = MarginSoftmax::named(name).unwrap();
        let data = Data::random(3, 1, 8, 93).fit(&loss);
        let data = if centers > 1 { data.with_centers(centers, 94) } else { data };
        let expected = data.reference(&loss, WANT);
        for (schedule, options) in schedules_of(&loss, &data, WANT) {
            let out = data.cpu(&loss, &options);
            assert_agrees(&format!("{name} {schedule}"), &loss, &out, &expected, name == "sphereface2");
            assert_eq!(out.other_cosines, [-1.0; 3]);
            if name != "sphereface2" {
                assert_eq!((out.loss, out.grad_scale), (0.0, 0.0));
                assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
                assert!(out.grad_bias.iter().all(|&g| g == 0.0));
            }
        }
    }
}

/// Of equal sub-centers the first gets the gradient; of equal classes the first are the nearest.
#[test]
fn ties_go_to_the_first() {
    let mut data = Data::random(6, 40, 8, 95).with_centers(2, 96);
    for pair in data.w.chunks_mut(16) {
        let (first, second) = pair.split_at_mut(8);
        second.copy_from_slice(first);
    }
    let loss = MarginSoftmax::sphereface2();
    for (schedule, options) in schedules_of(&loss, &data, WANT) {
        let out = data.cpu(&loss, &options);
        assert!(out.grad_prototypes.chunks(16).all(|g| g[..8].iter().any(|&g| g != 0.0) && g[8..] == [0.0; 8]));
        assert_agrees(schedule, &loss, &out, &data.reference(&loss, WANT), true);
    }
    let mut data = Data::random(6, 400, 8, 97);
    // one axis for all, so that no product rounds
    data.w = [0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0].repeat(400);
    data.labels = vec![0, 1, 2, 3, 4, 399];
    let loss = MarginSoftmax::named("arcface_topk").unwrap();
    for (schedule, options) in schedules_of(&loss, &data, WANT) {
        let out = data.cpu(&loss, &options);
        let expected = data.reference(&loss, WANT);
        let bad = differing("row_losses", &out.row_losses, &expected.row_losses, 1e-4, |e| e.abs());
        assert!(bad.is_empty(), "{schedule}: {bad:?}");
        assert!(distance(&out.grad_prototypes, &expected.grad_prototypes) < 1e-4, "{schedule}");
    }
}

/// A linear head at logits that f32 can hold but not tell apart keeps finite gradients.
#[test]
fn a_linear_head_survives_large_logits() {
    let mut data = Data::random(6, 50, 8, 140);
    data.x.iter_mut().for_each(|x| *x *= 1e6);
    for scale in [1.0, 37.7] {
        let loss = MarginSoftmax::softmax().with_scale(scale);
        for (_, options) in schedules_of(&loss, &data, WANT) {
            let out = data.cpu(&loss, &options);
            assert!(out.loss.is_finite() && out.grad_scale.is_finite());
            assert!(
                out.grad_embeddings.iter().chain(&out.grad_prototypes).chain(&out.grad_bias).all(|g| g.is_finite())
            );
            assert_eq!(out.counts, Counts { rows: 6, ..Counts::default() });
        }
    }
}

/// Products of finite vectors beyond f32: the row is not finite, and the rest as if it were not there.
#[test]
fn a_linear_row_beyond_f32_is_left_out() {
    let loss = MarginSoftmax::softmax();
    let shape = Shape::new(3, 3, 2).unwrap();
    let w = [1.0, 0.5, -0.5, 0.2, 0.3, -1e20];
    let (x, y) = ([0.5, 0.1, 1e20, -1e20, -0.3, 0.2], [0, 1, 2]);
    let mut head = Backend::cpu().head(&loss, shape).unwrap();
    let out = head.evaluate(&Batch { embeddings: &x, prototypes: &w, labels: &y, ..Default::default() }).unwrap();
    let (few, labels) = ([0.5, 0.1, -0.3, 0.2], [0, 2]);
    let rest =
        head.evaluate(&Batch { embeddings: &few, prototypes: &w, labels: &labels, ..Default::default() }).unwrap();
    assert!(out.loss.is_nan() && out.row_losses[1].is_nan() && rest.loss.is_finite());
    assert_eq!((out.counts.rows, out.counts.non_finite_rows), (2, 1));
    // one more term, 0, may change the order of a sum
    assert!(out.grad_prototypes.iter().zip(&rest.grad_prototypes).all(|(a, b)| (a - b).abs() < 1e-6));
    assert_eq!((&out.grad_embeddings[..2], &out.grad_embeddings[4..]), rest.grad_embeddings.split_at(2));
    assert_eq!(out.grad_embeddings[2..4], [0.0, 0.0]);
}

/// Logits that f32 holds, but not the loss: smoothing multiplies the labelled one by the weights of the others.
#[test]
fn a_linear_row_whose_loss_leaves_f32_is_left_out() {
    let loss = MarginSoftmax::softmax().with_label_smoothing(0.5);
    let shape = Shape::new(1, 2, 1).unwrap();
    let mut head = Backend::cpu().head(&loss, shape).unwrap();
    for (weight, finite) in [(24.0, false), (2.0, true)] {
        let batch = Batch {
            embeddings: &[1.0],
            prototypes: &[3e38, 0.0],
            labels: &[0],
            class_weights: Some(&[4.0, weight]),
            ..Default::default()
        };
        let out = head.evaluate(&batch).unwrap();
        assert_eq!((out.loss.is_finite(), out.loss.is_nan()), (finite, !finite), "{}", out.loss);
        assert_eq!(out.counts.non_finite_rows, usize::from(!finite));
    }
}

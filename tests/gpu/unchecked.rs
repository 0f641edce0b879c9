//! Values that lie on a device and that no host can check. What slices refuse is never a plausible number here: the loss is
//! NaN, or the gradients are.

use libtest_mimic::Failed;
use margin_softmax::{
    data::GradientFilter,
    gpu::{Context, Tensor},
    *,
};

use crate::{
    Check,
    cases::Data,
    rig::{Rig, plain, same_bits, same_output},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("class_weights_outside_their_range_make_their_rows_invalid", class_weights),
    ("upstream_gradients_that_are_not_finite_make_gradients_not_finite", upstream),
    ("a_bias_that_is_not_finite_makes_losses_nan", bias),
    ("a_state_outside_its_range_makes_losses_nan_and_stays", state),
    ("margins_of_a_class_outside_their_range_make_its_rows_invalid", margins),
];

const N: usize = 4;
const C: usize = 10;
const D: usize = 8;

fn shape() -> Shape {
    Shape::new(N, C, D).unwrap()
}

/// Row i has the label i.
fn data() -> Data {
    Data { labels: (0..N as i32).collect(), ..Data::random(shape(), 3) }
}

fn finite(values: &[f32]) -> bool {
    values.iter().all(|v| v.is_finite())
}

fn all_nan(values: &[f32]) -> bool {
    values.iter().all(|v| v.is_nan())
}

fn class_weights(context: &Context) -> Result<(), Failed> {
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        let loss = MarginSoftmax::arcface().with_reduction(reduction);
        let smooth = loss.clone().with_label_smoothing(0.1);
        let run = |loss: &MarginSoftmax, weights: Vec<f32>| -> Result<_, Failed> {
            let data = Data { weights: Some(weights), ..data() };
            let rig = Rig::plain(context, loss, shape(), &data)?;
            Ok((rig.run(context)?, rig.bound.read_counts()?))
        };
        let with = |class: usize, bad: f32| {
            let mut weights = vec![1.0; C];
            weights[class] = bad;
            weights
        };
        let (good, _) = run(&loss, vec![1.0; C])?;
        for bad in [-1.0, 1e-31, 1e25, f32::NAN, f32::INFINITY] {
            let at = format!("{reduction:?}, {bad}");
            let (out, counts) = run(&loss, with(1, bad))?;
            assert!(out.loss.is_nan() && out.row_losses[1].is_nan(), "{at}: {out:?}");
            assert!([0, 2, 3].iter().all(|&i| out.row_losses[i].is_finite()), "{at}: {out:?}");
            assert!(out.grad_embeddings[D..2 * D].iter().all(|g| *g == 0.0), "{at}: {out:?}");
            assert!(finite(&out.grad_embeddings) && finite(&out.grad_prototypes), "{at}: {out:?}");
            assert_eq!((counts.rows, counts.invalid_labels), (N - 1, 1), "{at}");
            // that of a class without a row is read for label smoothing alone
            same_output(&run(&loss, with(C - 1, bad))?.0, &good).map_err(|e| format!("{at}: {e}"))?;
            for class in [1, C - 1] {
                let (out, _) = run(&smooth, with(class, bad))?;
                assert!(out.loss.is_nan() && all_nan(&out.row_losses), "{at}, smooth: {out:?}");
            }
            let (out, counts) = run(&loss, vec![bad; C])?;
            assert!(out.loss.is_nan() && all_nan(&out.row_losses), "{at}: {out:?}");
            assert_eq!((counts.rows, counts.invalid_labels), (0, N), "{at}");
        }
    }
    Ok(())
}

fn upstream(context: &Context) -> Result<(), Failed> {
    for filter in [None, Some(GradientFilter::new(1e-3)?)] {
        let options = Options { want: Want::ALL.with_scale(), filter, ..Options::default() };
        let run = |loss: &MarginSoftmax, upstream: Vec<f32>| -> Result<_, Failed> {
            let data = Data { upstream: Some(upstream), ..data() };
            Ok(Rig::new(context, loss, shape(), &plain(&[C]), &options, &data)?.run(context)?)
        };
        let loss = MarginSoftmax::arcface();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let not = |values: &[f32]| values.iter().all(|v| !v.is_finite());
            let out = run(&loss, vec![bad])?;
            assert!(not(&out.grad_embeddings) && not(&out.grad_prototypes), "{filter:?} {bad}: {out:?}");
            assert!(!out.grad_scale.is_finite() && out.loss.is_finite(), "{filter:?} {bad}: {out:?}");
            let mut rows = vec![1.0; N];
            rows[1] = bad;
            let out = run(&loss.clone().with_reduction(Reduction::None), rows)?;
            assert!(not(&out.grad_embeddings[D..2 * D]) && not(&out.grad_prototypes), "{filter:?} {bad}: {out:?}");
            assert!(finite(&out.grad_embeddings[..D]) && finite(&out.grad_embeddings[2 * D..]), "{bad}: {out:?}");
            assert!(!out.grad_scale.is_finite(), "{filter:?} {bad}: {out:?}");
        }
    }
    Ok(())
}

fn bias(context: &Context) -> Result<(), Failed> {
    let options = Options { want: Want::ALL.with_bias(), ..Options::default() };
    // of a class with a row, and of one without
    for class in [1, C - 1] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut bias = vec![0.5; C];
            bias[class] = bad;
            let data = Data { bias: Some(bias), ..data() };
            let rig = Rig::new(context, &MarginSoftmax::softmax(), shape(), &plain(&[C]), &options, &data)?;
            let out = rig.run(context)?;
            assert!(out.loss.is_nan() && all_nan(&out.row_losses), "{class} {bad}: {out:?}");
            let counts = rig.bound.read_counts()?;
            assert_eq!((counts.rows, counts.non_finite_rows), (0, N), "{class} {bad}");
        }
    }
    Ok(())
}

fn state(context: &Context) -> Result<(), Failed> {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let run = |loss: &MarginSoftmax, values: &[f32; 4], training: bool| -> Result<_, Failed> {
        let mut rig = Rig::plain(context, loss, shape(), &data())?;
        rig.tensors.state = Tensor::upload(context, &[4], values)?;
        rig.bound = rig.tensors.bind_state(&rig.head)?;
        rig.bound.set_training(training);
        let out = rig.run(context)?;
        Ok((out, rig.bound.read_counts()?, rig.tensors.state.read::<f32>(context)?))
    };
    let good = [0.0, 20.0, 100.0, 10.0];
    for (name, place, bads) in [
        ("curricularface", 0, [nan, inf, -inf, -1.1, 1.1]),
        ("adaface", 1, [nan, inf, -inf, -0.1, 1e31]),
        ("adaface", 2, [nan, inf, -inf, -0.1, 1e31]),
        ("adacos", 3, [nan, inf, -1.0, 0.0, 1.1e6]),
    ] {
        let loss = MarginSoftmax::named(name)?;
        assert!(run(&loss, &good, false)?.0.loss.is_finite(), "{name}");
        for (bad, training) in bads.iter().flat_map(|&bad| [(bad, false), (bad, true)]) {
            let mut values = good;
            values[place] = bad;
            let at = format!("{name}, {bad} in place {place}, training {training}");
            let (out, counts, after) = run(&loss, &values, training)?;
            assert!(out.loss.is_nan() && all_nan(&out.row_losses), "{at}: {out:?}");
            assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|g| *g == 0.0), "{at}: {out:?}");
            assert_eq!((counts.rows, counts.invalid_labels), (0, N), "{at}");
            same_bits(&at, &after, &values)?;
        }
    }
    // a number that the loss does not read may be anything
    for (name, read) in [("curricularface", 0..1), ("adaface", 1..3), ("adacos", 3..4), ("arcface", 0..0)] {
        let (loss, mut values) = (MarginSoftmax::named(name)?, [nan; 4]);
        values[read.clone()].copy_from_slice(&good[read]);
        let out = run(&loss, &values, false)?.0;
        same_output(&out, &run(&loss, &good, false)?.0).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn margins(context: &Context) -> Result<(), Failed> {
    for (place, bads) in [
        (0, [-1.0, 0.0, f32::INFINITY, 2e6]),
        (1, [-1.0, 0.0, f32::INFINITY, 17.0]),
        (2, [-4.0, 4.0, f32::INFINITY, f32::NEG_INFINITY]),
        (3, [2e6, -2e6, f32::INFINITY, f32::NEG_INFINITY]),
    ] {
        for bad in bads {
            let mut values = vec![f32::NAN; C];
            values[1] = bad;
            let mut data = data();
            data.class_margins[place] = Some(values);
            let rig = Rig::plain(context, &MarginSoftmax::arcface(), shape(), &data)?;
            let out = rig.run(context)?;
            assert!(out.loss.is_nan() && out.row_losses[1].is_nan(), "m{place} {bad}: {out:?}");
            assert!([0, 2, 3].iter().all(|&i| out.row_losses[i].is_finite()), "m{place} {bad}: {out:?}");
            assert!(out.grad_embeddings[D..2 * D].iter().all(|g| *g == 0.0), "m{place} {bad}: {out:?}");
            let counts = rig.bound.read_counts()?;
            assert_eq!((counts.rows, counts.invalid_labels), (N - 1, 1), "m{place} {bad}");
        }
    }
    Ok(())
}

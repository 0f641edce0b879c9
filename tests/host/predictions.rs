//! Plans of predictions: budgets, refusals, submits; and what the reference predicts.

use margin_softmax::{
    Budget, Error, MarginSoftmax, Options, Shape, State,
    data::{Inputs, Predictions},
    plan::{Call, Element, Layout, Limits, Plan},
    reference,
};

fn layout(shards: &[usize]) -> Layout<'_> {
    Layout { shards, embeddings: Element::F32, prototypes: Element::F32 }
}

fn predict(loss: &MarginSoftmax, shape: Shape, count: usize, options: &Options) -> Result<Plan, Error> {
    let shards = Plan::shards(shape, Element::F32, &Limits::WEBGPU)?;
    Plan::predict(loss, shape, 0..shape.classes(), count, &layout(&shards), &Limits::WEBGPU, options)
}

/// The smallest budget that is accepted is the one that the refusal names, to the byte, and cosines of all classes are never
/// needed.
#[test]
fn the_smallest_budget_of_predictions_is_exact() {
    for name in ["arcface", "softmax", "sphereface2", "arcface_topk", "adacos", "curricularface"] {
        let loss = MarginSoftmax::named(name).unwrap();
        for (rows, classes, dim) in [(1, 7, 3), (64, 1000, 64), (512, 100_003, 16), (1024, 1_000_000, 128)] {
            let shape = Shape::new(rows, classes, dim).unwrap();
            for count in [1, 7, 64.min(classes)] {
                let plan = |bytes| {
                    let options = Options { budget: Budget::bytes(bytes), ..Options::default() };
                    predict(&loss, shape, count, &options)
                };
                let Err(Error::Budget { needed, .. }) = plan(1) else { panic!("{name}: one byte is enough") };
                assert_eq!(plan(needed).unwrap().workspace_bytes(), needed, "{name} {shape:?} k {count}");
                assert!(plan(needed - 1).is_err());
                if classes == 1_000_000 {
                    // prototypes have an inverse length each, a row its list and its sums
                    let most = classes * 9 + rows * (count * 16 + 16_000);
                    assert!(needed < most as u64, "{name}: {needed} of {most}");
                }
            }
        }
    }
}

/// Every dispatch keeps to the work of a submit, and what no class can keep to is refused.
#[test]
fn predictions_keep_to_the_work_of_a_submit() {
    let shape = Shape::new(256, 200_000, 64).unwrap();
    let options = |work| Options { work_per_submit: Some(work), ..Options::default() };
    let Err(Error::Work { needed, .. }) = predict(&MarginSoftmax::arcface(), shape, 10, &options(1)) else {
        panic!("one multiply-add is enough")
    };
    let plan = predict(&MarginSoftmax::arcface(), shape, 10, &options(10 * needed)).unwrap();
    let steps = plan.steps().count();
    assert!((0..steps).all(|step| plan.work(step) <= 10 * needed) && plan.parts(0..steps).len() > 1);
    // norms, cosines, selection, sums and log-probabilities; no label is looked at
    let mut names: Vec<&str> = plan.kernels().iter().map(|kernel| kernel.name).collect();
    names.sort_unstable();
    let expected =
        ["class_norms", "class_totals", "cosines", "give_predictions", "predict_rows", "row_norms", "row_stats"];
    assert_eq!(names, [&expected[..], &["select_nearest"]].concat());
    assert!(plan.kernels().iter().all(|kernel| kernel.bindings.len() <= 8));
    let binary = predict(&MarginSoftmax::sphereface2(), shape, 10, &Options::default()).unwrap();
    assert!(binary.kernels().iter().all(|kernel| kernel.name != "row_stats"));
    // a head's plan has tensors for them, that of a shard has not
    let (loss, options) = (MarginSoftmax::arcface(), Options { predictions: Some(10), ..Options::default() });
    let head = Plan::head(&loss, shape, &layout(&[200_000]), &Limits::WEBGPU, &options).unwrap();
    assert_eq!([head.predictions(), plan.predictions()], [10, 10]);
    let shard = Plan::shard(&loss, shape, 0..200_000, &layout(&[200_000]), &Limits::WEBGPU, &options);
    assert!(matches!(shard, Err(Error::Combination { what: "predictions", .. })));
    // another scale is the same plan
    let call = Call { rows: 256, ..Call::default() };
    assert!(plan.settings(&MarginSoftmax::arcface().with_scale(3.0), &call).is_ok());
}

#[test]
fn the_reference_predicts_by_hand() {
    let loss = MarginSoftmax::arcface().with_scale(2.0);
    let shape = Shape::new(2, 3, 2).unwrap();
    let (x, w) = ([3.0, 4.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0, 0.0, 2.0]);
    let state = State::new(&loss, shape).unwrap();
    let found = reference::predict(&loss, shape, 0..3, 3, &Inputs::new(&x, &w), &state).unwrap();
    // the longer of two equal directions is no nearer; a zero vector is as far from all
    assert_eq!(found.classes, [1, 2, 0, 0, 1, 2]);
    assert_eq!(found.nearest().collect::<Vec<_>>(), [Some(1), Some(0)]);
    let sum = (1.2_f64.exp() + 2.0 * 1.6_f64.exp()).ln();
    for (k, cosine) in [0.8, 0.8, 0.6].into_iter().enumerate() {
        assert!((found.cosines[k] - cosine).abs() < 1e-15);
        assert!((found.log_probabilities[k] - (2.0 * cosine - sum)).abs() < 1e-14);
    }
    assert!((found.log_sum_exps[0] - sum).abs() < 1e-14 && (found.log_probabilities[3] + 3.0_f64.ln()).abs() < 1e-14);
    assert_eq!((found.hits(&[2, 2]), found.hits(&[-1, 3])), (2, 0));
    assert_eq!(Predictions::<f64>::default().rows(), 0);
}

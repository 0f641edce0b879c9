//! No allocation grows with N·C beyond the caller's budget; prototypes may exceed one binding.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{Context, Head},
    plan::Plan,
    *,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    Check,
    cases::Data,
    rig::{Rig, Tensors, plain, tight},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("workspace_stays_within_the_budget", workspace_stays_within_the_budget),
    ("the_simple_front_holds_inputs_outputs_and_staging", the_simple_front_holds_inputs_outputs_and_staging),
    ("prototypes_larger_than_one_binding", prototypes_larger_than_one_binding),
];

/// Counts the bytes at every buffer creation.
fn workspace_stays_within_the_budget(context: &Context) -> Result<(), Failed> {
    let loss = MarginSoftmax::arcface();
    let shapes = [(64, 1000, 8, None), (256, 5000, 16, None), (7, 20_000, 4, None), (64, 1000, 8, Some(5))];
    for (n, c, d, soft_labels) in shapes {
        let shape = Shape::new(n, c, d)?;
        let data = Data::random(shape, 1);
        let data = soft_labels.map_or_else(|| data.clone(), |count| data.clone().softened(count, c));
        let shards = [c];
        let options = Options { soft_labels, ..Options::default() };
        let least = tight(context, &loss, shape, &plain(&shards), &options);
        for budget in [least, Budget::bytes(2 * least.get()), Budget::mib(64)] {
            let options = Options { budget, ..options };
            let plan = Plan::head(&loss, shape, &plain(&shards), context.limits(), &options)?;
            let (planned, keep) = (plan.workspace_bytes(), plan.schedule().keep);
            assert_eq!(keep, budget == Budget::mib(64), "{n}x{c}x{d} in {budget:?}");
            let head = Head::new(context, &loss, plan)?;
            let tensors = Tensors::new(context, shape, &plain(&shards), &data)?;
            let before = context.allocated_bytes();
            let bound = tensors.bind(&head)?;
            let made = context.allocated_bytes() - before;
            // the caller gave the row losses and log-sum-exps, which the plan counts as its own, and both tensors of soft labels,
            // for which it counts a stand-in
            let soft = if soft_labels.is_some() { 2 * 16 } else { 0 };
            assert_eq!(made + 2 * (n as u64 * 4).max(16) + soft, planned, "{n}x{c}x{d} in {budget:?}");
            assert!(planned <= budget.get());
            if !keep {
                assert!(made < (n * c * 4) as u64, "{made} bytes of workspace, N·C has {}", n * c * 4);
            }
            let mut encoder = context.device().create_command_encoder(&Default::default());
            bound.record_forward(&mut encoder);
            bound.record_backward(&mut encoder);
            context.queue().submit([encoder.finish()]);
            assert_eq!(context.allocated_bytes() - before, made);
            tensors.read(context)?;
        }
    }
    Ok(())
}

fn the_simple_front_holds_inputs_outputs_and_staging(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (128, 4000, 8);
    let shape = Shape::new(n, c, d)?;
    let data = Data::random(shape, 1);
    let loss = MarginSoftmax::arcface();
    let options = Options::default();
    let budget = tight(context, &loss, shape, &plain(&[c]), &options);
    let before = context.allocated_bytes();
    let mut head = Backend::Gpu(context.clone()).head_with(&loss, shape, &Options { budget, ..options })?;
    let made = context.allocated_bytes() - before;
    // X, W, y, class weights, upstream; dX, dW, loss; staging of dX, dW, rows of 96 bytes and a batch of 48; row margins
    let tensors = 4 * (2 * (n * d + c * d) + 2 * n + c + 1 + 4 * n);
    let staging = 4 * (n * d + c * d) + 96 * n + 48;
    let most = budget.get() + (tensors + staging) as u64;
    assert!(made <= most, "{made} bytes, expected at most {most}");
    assert!(most < (4 * n * c) as u64 * 2, "the bound proves nothing");
    for _ in 0..3 {
        head.evaluate(&data.batch())?;
    }
    assert_eq!(context.allocated_bytes() - before, made, "an evaluation made a buffer");
    Ok(())
}

/// More than 128 MiB of prototypes, which is all that WebGPU promises for one binding.
fn prototypes_larger_than_one_binding(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (2, 541_000, 64);
    let shape = Shape::new(n, c, d)?;
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let prototypes: Vec<f32> = (0..c * d).map(|_| rng.random_range(-1.0..1.0)).collect();
    // the labels lie in the first and in the last shard
    let labels = vec![5, c as i32 - 1];
    let data = Data { embeddings: prototypes[..n * d].to_vec(), prototypes, labels, ..Data::default() };
    let loss = MarginSoftmax::cosface();
    let shards = Plan::shards(shape, plan::Element::F32, &plan::Limits::WEBGPU)?;
    assert!(c * d * 4 > 128 << 20 && shards.len() > 1);
    // this device may bind them in one piece; every WebGPU device can bind these
    let rig = Rig::new(context, &loss, shape, &plain(&shards), &Options::default(), &data)?;
    assert_eq!(rig.head.plan().shard_sizes(), shards);
    let found = rig.run(context)?;
    let expected = data.reference(&loss, shape);
    let gate = 1e-5 + 3e-7 * loss.scale;
    for (f, e) in found.row_losses.iter().zip(&expected.row_losses) {
        assert!((f64::from(*f) - e).abs() <= gate * e, "{f} is not {e}");
    }
    for (what, found, expected) in [
        ("dX", &found.grad_embeddings, &expected.grad_embeddings),
        ("dW", &found.grad_prototypes, &expected.grad_prototypes),
    ] {
        let most = expected.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
        assert!(most > 0.0 && found.len() == expected.len());
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*f) - e).abs() <= gate * most, "{what}[{i}]: {f} is not {e}");
        }
    }
    Ok(())
}

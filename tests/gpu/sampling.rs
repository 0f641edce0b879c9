//! Partial FC on tensors: gathered prototypes, and a head over them.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{Context, Tensor, gather, gather_into},
    plan::Element,
    *,
};

use crate::{
    Check,
    cases::Data,
    rig::{Rig, same_bits, same_output, upload},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("gathered_prototypes_are_those_of_their_classes", gathered_prototypes_are_those_of_their_classes),
    ("gathered_shards_are_one_table", gathered_shards_are_one_table),
    ("a_bound_head_is_fed_by_gathering", a_bound_head_is_fed_by_gathering),
    ("a_head_over_gathered_prototypes_is_that_of_its_classes", a_head_over_gathered_prototypes),
];

fn run(context: &Context, w: &Tensor, classes: &[i32]) -> Result<Vec<f32>> {
    let ids = Tensor::upload(context, &[classes.len()], classes)?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let out = gather(context, &mut encoder, &[w], &ids)?;
    context.queue().submit([encoder.finish()]);
    out.read(context)
}

fn gathered_prototypes_are_those_of_their_classes(context: &Context) -> Result<(), Failed> {
    for (c, d) in [(1, 1), (7, 4), (70, 5), (33, 67)] {
        // exact in every element
        let values: Vec<f32> = (0..c * d).map(|i| (i % 200) as f32 - 100.0).collect();
        let ids: Vec<i32> = (0..c as i32).rev().chain([0, 0, c as i32 / 2]).collect();
        let expected: Vec<f32> = ids.iter().flat_map(|&j| values[j as usize * d..][..d].to_vec()).collect();
        for element in [Element::F32, Element::F16, Element::Bf16] {
            let w = upload(context, &[c, d], &values, element);
            same_bits("gathered", &run(context, &w, &ids)?, &expected)?;
            let missing = run(context, &w, &[0, c as i32, -1])?;
            assert!(missing[..d].iter().all(|v| v.is_finite()) && missing[d..].iter().all(|v| v.is_nan()));
        }
    }
    let w = Tensor::upload(context, &[3, 2], &[1.0_f32; 6])?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let wrong = Tensor::upload(context, &[2], &[0.5_f32, 1.0])?;
    assert!(matches!(gather(context, &mut encoder, &[&w], &wrong), Err(Error::Element { what: "classes", .. })));
    assert!(matches!(gather(context, &mut encoder, &[&wrong], &wrong), Err(Error::Shape { what: "prototypes", .. })));
    let none = Tensor::upload::<i32>(context, &[0], &[])?;
    assert!(matches!(gather(context, &mut encoder, &[&w], &none), Err(Error::Zero { .. })));
    assert!(matches!(gather(context, &mut encoder, &[], &none), Err(Error::Zero { what: "prototypes" })));
    Ok(())
}

/// Prototypes in several tensors; every row is written once, by the shard that has its class.
fn gathered_shards_are_one_table(context: &Context) -> Result<(), Failed> {
    let (c, d) = (70, 5);
    let values: Vec<f32> = (0..c * d).map(|i| (i % 200) as f32 - 100.0).collect();
    let classes: Vec<i32> = (0..c as i32).rev().chain([-1, c as i32, i32::MAX, i32::MIN, 0]).collect();
    let ids = Tensor::upload(context, &[classes.len()], &classes)?;
    for element in [Element::F32, Element::F16, Element::Bf16] {
        let whole = run(context, &upload(context, &[c, d], &values, element), &classes)?;
        for cuts in [vec![0, 1, c], vec![0, 20, 21, 64, c]] {
            let shards: Vec<Tensor> = cuts
                .windows(2)
                .map(|w| upload(context, &[w[1] - w[0], d], &values[w[0] * d..w[1] * d], element))
                .collect();
            // what was there before is gone
            let out = Tensor::upload(context, &[classes.len(), d], &vec![7.0_f32; classes.len() * d])?;
            let mut encoder = context.device().create_command_encoder(&Default::default());
            gather_into(context, &mut encoder, &shards.iter().collect::<Vec<_>>(), &ids, &out)?;
            context.queue().submit([encoder.finish()]);
            let found: Vec<f32> = out.read(context)?;
            for (i, (f, e)) in found.iter().zip(&whole).enumerate() {
                assert!(f == e || f.is_nan() && e.is_nan(), "{i}: {f} is not {e}");
            }
            assert_eq!(found.iter().filter(|v| v.is_nan()).count(), 4 * d);
        }
    }
    let (one, two) = (Tensor::empty(context, &[3, d], Element::F32)?, Tensor::empty(context, &[3, 4], Element::F32)?);
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let e = &mut encoder;
    assert!(matches!(gather(context, e, &[&one, &two], &ids), Err(Error::Shape { what: "prototypes", .. })));
    let half = Tensor::empty(context, &[3, d], Element::F16)?;
    assert!(matches!(gather(context, e, &[&one, &half], &ids), Err(Error::Element { what: "prototypes", .. })));
    assert!(matches!(gather_into(context, e, &[&one], &ids, &two), Err(Error::Shape { what: "gathered", .. })));
    Ok(())
}

/// Other classes in every step, on one binding.
fn a_bound_head_is_fed_by_gathering(context: &Context) -> Result<(), Failed> {
    let (n, c, q, d) = (9, 40, 12, 8);
    let data = Data::random(Shape::new(n, c, d)?, 5);
    let cut = 17 * d;
    let shards = [
        Tensor::upload(context, &[17, d], &data.prototypes[..cut])?,
        Tensor::upload(context, &[c - 17, d], &data.prototypes[cut..])?,
    ];
    let shape = Shape::new(n, q, d)?;
    let loss = MarginSoftmax::arcface().with_scale(16.0);
    let sample = |first: usize| (0..q).map(|i| (first + 3 * i) % c).collect::<Vec<_>>();
    let own = |classes: &[usize]| Data {
        embeddings: data.embeddings.clone(),
        prototypes: classes.iter().flat_map(|&j| data.prototypes[j * d..][..d].to_vec()).collect(),
        labels: (0..n as i32).collect(),
        ..Data::default()
    };
    let rig = Rig::plain(context, &loss, shape, &own(&sample(0)))?;
    for first in [0, 5, 31] {
        let classes = sample(first);
        let ids: Vec<i32> = classes.iter().map(|&j| j as i32).collect();
        let ids = Tensor::upload(context, &[q], &ids)?;
        let mut encoder = context.device().create_command_encoder(&Default::default());
        gather_into(context, &mut encoder, &[&shards[0], &shards[1]], &ids, &rig.tensors.w[0])?;
        rig.record(&mut encoder);
        context.queue().submit([encoder.finish()]);
        let expected = Rig::plain(context, &loss, shape, &own(&classes))?.run(context)?;
        same_output(&expected, &rig.tensors.read(context)?)?;
    }
    Ok(())
}

/// All classes: the bits of the full head. Some of them: the loss and dW of a head that has no others.
fn a_head_over_gathered_prototypes(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (9, 40, 12);
    let shape = Shape::new(n, c, d)?;
    let data = Data::random(shape, 5);
    let w = Tensor::upload(context, &[c, d], &data.prototypes)?;
    let backend = Backend::Gpu(context.clone());
    let loss = MarginSoftmax::arcface().with_scale(16.0);
    let full = backend.head(&loss, shape)?.evaluate(&data.batch())?;
    let all = run(context, &w, &(0..c as i32).collect::<Vec<_>>())?;
    let again = backend.head(&loss, shape)?.evaluate(&Batch { prototypes: &all, ..data.batch() })?;
    assert_eq!(full, again);

    let mut some: Vec<i32> = data.labels.clone();
    some.extend([0, 17, 39]);
    some.sort();
    some.dedup();
    let labels: Vec<i32> = data.labels.iter().map(|y| some.binary_search(y).unwrap() as i32).collect();
    let few = run(context, &w, &some)?;
    let sampled = Shape::new(n, some.len(), d)?;
    let batch = Batch { prototypes: &few, labels: &labels, ..data.batch() };
    let found = backend.head(&loss, sampled)?.evaluate(&batch)?;
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let (x, w) = (wide(&data.embeddings), wide(&few));
    let expected = reference::evaluate(
        &loss,
        sampled,
        Want::ALL,
        &Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Default::default() },
    )?;
    assert!((f64::from(found.loss) - expected.loss).abs() < 1e-5 * expected.loss);
    for (a, b) in found.grad_prototypes.iter().zip(&expected.grad_prototypes) {
        assert!((f64::from(*a) - b).abs() < 1e-4, "{a} and {b}");
    }
    Ok(())
}

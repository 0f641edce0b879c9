//! Partial FC on tensors: gathered prototypes, and a head over them.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{Context, Tensor, gather},
    plan::Element,
    *,
};

use crate::{
    Check,
    cases::Data,
    rig::{same_bits, upload},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("gathered_prototypes_are_those_of_their_classes", gathered_prototypes_are_those_of_their_classes),
    ("a_head_over_gathered_prototypes_is_that_of_its_classes", a_head_over_gathered_prototypes),
];

fn run(context: &Context, w: &Tensor, classes: &[i32]) -> Result<Vec<f32>> {
    let ids = Tensor::upload(context, &[classes.len()], classes)?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let out = gather(context, &mut encoder, w, &ids)?;
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
    assert!(matches!(gather(context, &mut encoder, &w, &wrong), Err(Error::Element { what: "classes", .. })));
    assert!(matches!(gather(context, &mut encoder, &wrong, &wrong), Err(Error::Shape { what: "prototypes", .. })));
    let none = Tensor::upload::<i32>(context, &[0], &[])?;
    assert!(matches!(gather(context, &mut encoder, &w, &none), Err(Error::Zero { .. })));
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

//! The CPU path and the planner under Miri: no access outside a slice, no uninitialised value, no data race, no overflow.
//!
//! `cargo +nightly miri test` in this folder. The one unsafe call of the library, that of `gemm`, is reached through every
//! way to it: operands as they lie and across, blocks of 512, results that lie apart, sums that are added to.
#![cfg(test)]

use margin_softmax::{
    data::GradientFilter,
    plan::{Element, Layout, Limits, Plan},
    reference, *,
};

/// Any finite numbers.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729 + i / 13) % 2003) as f32 / 1000.0 - 1.0).collect()
}

/// Loss and gradients on two threads beside those of the reference.
fn agrees(loss: &MarginSoftmax, shape: Shape, options: &Options) {
    let (n, c, d, k) = (shape.rows(), shape.classes(), shape.dim(), shape.sub_centers());
    let (x, w) = (numbers(n * d, 1), numbers(c * k * d, 2));
    let labels: Vec<usize> = (0..n).map(|i| i * 5 % c).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Default::default() };
    let found = pool.install(|| Backend::cpu().head_with(loss, shape, options)?.evaluate(&batch));
    let found = found.unwrap();
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let (x, w) = (wide(&x), wide(&w));
    let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Default::default() };
    let expected = reference::evaluate(loss, shape, options.want, &batch).unwrap();
    assert!((f64::from(found.loss) - expected.loss).abs() <= 1e-4 * expected.loss.abs(), "{}", found.loss);
    for (found, expected) in
        [(&found.grad_embeddings, &expected.grad_embeddings), (&found.grad_prototypes, &expected.grad_prototypes)]
    {
        assert_eq!(found.len(), expected.len());
        let most = expected.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() <= 1e-3 * most, "{found}, not {expected}");
        }
    }
}

fn shape(rows: usize, classes: usize, dim: usize) -> Shape {
    Shape::new(rows, classes, dim).unwrap()
}

/// The least that the head can do with.
fn tight(loss: &MarginSoftmax, shape: Shape) -> Options {
    let options = Options { budget: Budget::bytes(0), ..Default::default() };
    match Backend::cpu().head_with(loss, shape, &options).err() {
        Some(Error::Budget { needed, .. }) => Options { budget: Budget::bytes(needed), ..options },
        other => panic!("{other:?}"),
    }
}

#[test]
fn cosines_kept() {
    agrees(&MarginSoftmax::arcface().with_scale(8.0), shape(3, 5, 7), &Options::default());
}

#[test]
fn cosines_computed_twice() {
    let loss = MarginSoftmax::cheby_aam().with_scale(8.0);
    agrees(&loss, shape(2, 70, 3), &tight(&loss, shape(2, 70, 3)));
}

/// Longer than a block of a product.
#[test]
fn long_vectors() {
    agrees(&MarginSoftmax::cosface().with_scale(4.0), shape(1, 2, 515), &Options::default());
}

#[test]
fn many_classes() {
    agrees(&MarginSoftmax::cosface().with_scale(4.0), shape(1, 515, 2), &Options::default());
}

#[test]
fn sub_centers() {
    let loss = MarginSoftmax::normface().with_scale(4.0);
    agrees(&loss, shape(2, 3, 5).with_sub_centers(2).unwrap(), &Options::default());
}

#[test]
fn linear() {
    agrees(&MarginSoftmax::softmax(), shape(2, 3, 4), &Options::default());
}

#[test]
fn filtered() {
    let loss = MarginSoftmax::normface().with_scale(4.0);
    let options = Options { filter: Some(GradientFilter::new(1e-9).unwrap()), ..Default::default() };
    agrees(&loss, shape(2, 66, 2), &options);
}

#[test]
fn plans_and_refusals() {
    let plan = |shape: Shape, budget| {
        let shards = Plan::shards(shape, Element::F32, &Limits::WEBGPU).unwrap();
        let layout = Layout { shards: &shards, embeddings: Element::F16, prototypes: Element::F32 };
        let options = Options { budget, ..Default::default() };
        Plan::head(&MarginSoftmax::arcface(), shape, &layout, &Limits::WEBGPU, &options)
    };
    let small = plan(shape(3, 5, 7), Budget::default()).unwrap();
    assert!(small.schedule().keep && !small.backward().is_empty());
    assert!(matches!(plan(shape(64, 300, 16), Budget::bytes(1)), Err(Error::Budget { .. })));
}

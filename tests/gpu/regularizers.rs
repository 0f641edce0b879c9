//! Regularisers and center loss on a device against the reference.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{
        Context, Tensor,
        regularizer::{center_loss, regularize, update_centers},
    },
    plan::Element,
    *,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    Check,
    cases::random,
    rig::{same_bits, upload},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("regularizers_agree_with_the_reference", regularizers_agree_with_the_reference),
    ("regularizers_keep_their_promises_at_the_edges", regularizers_at_the_edges),
    ("center_loss_agrees_with_the_reference", center_loss_agrees_with_the_reference),
    ("center_loss_keeps_its_promises_at_the_edges", center_loss_at_the_edges),
    ("regularizers_allocate_what_the_plan_says", regularizers_allocate_what_the_plan_says),
];

const BOTH: [Regularizer; 2] = [Regularizer::RegSs { weight: 3.0 }, Regularizer::UniformFace { weight: 3.0 }];

/// (C, D): one class, one value, no multiple of a tile, several blocks of rows.
const SHAPES: [(usize, usize); 11] =
    [(1, 1), (1, 3), (2, 1), (2, 3), (3, 64), (33, 65), (64, 64), (257, 65), (300, 3), (1030, 5), (2, 1030)];

fn submit<T>(context: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<T>) -> Result<T> {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let out = record(&mut encoder)?;
    context.queue().submit([encoder.finish()]);
    Ok(out)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

/// What a tensor of this element holds after the upload.
fn back(values: Vec<f32>, element: Element) -> Vec<f32> {
    let one = |v: f32| match element {
        Element::F16 => half::f16::from_f32(v).to_f32(),
        Element::Bf16 => half::bf16::from_f32(v).to_f32(),
        _ => v,
    };
    values.into_iter().map(one).collect()
}

/// How far a gradient may be off, for each prototype: an f32 direction is known to a few 1e-7, the mean direction to that
/// over its length, the unit vector between two directions to that over their distance. The gradient is λ/(C·|w|) of the
/// one, and as much of the mean of the others.
fn tolerances(regularizer: &Regularizer, w: &[f64], dim: usize, value: f64) -> Vec<f64> {
    let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let lengths: Vec<f64> = w.chunks_exact(dim).map(length).collect();
    let classes = lengths.len();
    let weight = regularizer.weight();
    let own = |j: usize| {
        let unit = |k: usize, d: usize| w[k * dim + d] / lengths[k];
        let apart = |k: usize| (0..dim).map(|d| (unit(j, d) - unit(k, d)).powi(2)).sum::<f64>().sqrt();
        let parts = match regularizer {
            Regularizer::RegSs { .. } => weight / value,
            _ => {
                let others = (0..classes).filter(|&k| k != j).map(|k| match apart(k) {
                    // on a line, where the projection leaves nothing of it
                    d if d < 1e-6 => 1.0,
                    d => 1.0 / d,
                });
                2.0 * others.sum::<f64>() / (classes as f64 - 1.0).max(1.0)
            }
        };
        5e-7 * (1.0 + parts) * weight / (classes as f64 * lengths[j])
    };
    (0..classes).map(own).collect()
}

fn regularizers_agree_with_the_reference(context: &Context) -> Result<(), Failed> {
    // and a grid that folds
    for (classes, dim) in SHAPES.into_iter().chain([(530_001, 2)]) {
        for element in [Element::F32, Element::F16, Element::Bf16] {
            if element != Element::F32 && classes > 100 {
                continue;
            }
            let rng = &mut ChaCha8Rng::seed_from_u64((classes * dim) as u64);
            let mut w = random(rng, classes * dim);
            for v in w.chunks_exact_mut(dim) {
                // none much shorter than the others
                v[0] += if v[0] < 0.0 { -0.5 } else { 0.5 };
            }
            if classes > 2 {
                for d in 0..dim {
                    w[dim + d] = w[d] * if d == 0 { 1.05 } else { 1.0 };
                }
            }
            let w = back(w, element);
            let given = wide(&w);
            let tw = upload(context, &[classes, dim], &w, element);
            // pairs of very many prototypes take a software adapter too long
            for regularizer in BOTH.into_iter().take(if classes > 10_000 { 1 } else { 2 }) {
                let at = format!("{} {classes}x{dim} {element:?}", regularizer.name());
                let expected = reference::regularize(&regularizer, dim, &given)?;
                let gradient = Tensor::empty(context, &[classes, dim], Element::F32)?;
                let run = |add| submit(context, |e| regularize(context, e, &regularizer, &tw, &gradient, add));
                let value = run(false)?.read::<f32>(context)?;
                let once = gradient.read::<f32>(context)?;
                // 1e-6: the sum over dim of products of f32 directions
                let off = (f64::from(value[0]) - expected.value).abs();
                assert!(off <= 3e-6, "{at}: value {} is not {}", value[0], expected.value);
                let most = tolerances(&regularizer, &given, dim, expected.value);
                for (i, (f, e)) in once.iter().zip(&expected.gradient).enumerate() {
                    let most = most[i / dim];
                    assert!((f64::from(*f) - e).abs() <= most, "{at} [{i}]: {f} is not {e} within {most:e}");
                }
                // added to what is there: the second time exactly twice
                same_bits(&at, &run(true)?.read(context)?, &value)?;
                let twice: Vec<f32> = once.iter().map(|g| 2.0 * g).collect();
                same_bits(&at, &gradient.read(context)?, &twice)?;
            }
            if element == Element::F32 && classes < 10_000 {
                let out = Backend::Gpu(context.clone()).regularize(&BOTH[0], dim, &w)?;
                let awaited = pollster::block_on(Backend::Gpu(context.clone()).regularize_async(&BOTH[0], dim, &w))?;
                assert_eq!(out, awaited);
                assert_eq!(out.gradient.len(), classes * dim);
            }
        }
    }
    Ok(())
}

fn zero(values: &[f32]) -> bool {
    values.iter().all(|&v| v == 0.0)
}

fn regularizers_at_the_edges(context: &Context) -> Result<(), Failed> {
    let gpu = Backend::Gpu(context.clone());
    let [mean, uniform] = [Regularizer::reg_ss(), Regularizer::uniform_face()];
    let out = gpu.regularize(&uniform, 2, &[3.0, 4.0])?;
    assert!(out.value == 0.0 && zero(&out.gradient), "{out:?}");
    let out = gpu.regularize(&mean, 2, &[3.0, 4.0])?;
    assert!((out.value - 1.0).abs() < 1e-6 && out.gradient.iter().all(|g| g.abs() < 1e-7), "{out:?}");
    let out = gpu.regularize(&mean, 2, &[3.0, 4.0, -3.0, -4.0])?;
    assert!(out.value == 0.0 && zero(&out.gradient), "{out:?}");
    let out = gpu.regularize(&uniform, 2, &[3.0, 4.0, 3.0, 4.0])?;
    assert!(out.value == 1.0 && zero(&out.gradient), "{out:?}");
    // short ones take part and get none; very long and very small ones are nothing special
    let mut w = vec![0.0, 0.0, 0.0, 2.0, 1.0, 1.0, 5e-13, 0.0, 3e30, -1e30, 1e-11, 2e-11];
    for regularizer in [mean, uniform] {
        let out = gpu.regularize(&regularizer, 2, &w)?;
        let expected = reference::regularize(&regularizer, 2, &wide(&w))?;
        assert!((f64::from(out.value) - expected.value).abs() < 1e-6, "{out:?} is not {expected:?}");
        assert!(zero(&out.gradient[..2]) && zero(&out.gradient[6..8]), "{out:?}");
        for (i, (f, e)) in out.gradient.iter().zip(&expected.gradient).enumerate() {
            let length = f64::from(w[i / 2 * 2].hypot(w[i / 2 * 2 + 1])).max(1e-12);
            assert!((f64::from(*f) - e).abs() <= 2e-6 / length, "[{i}]: {f} is not {e}");
        }
    }
    // neighbours keep the direction between them
    for gap in [1e-2_f32, 1e-4, 1e-6, 1e-9] {
        let out = gpu.regularize(&uniform, 2, &[1.0, 0.0, 2.0, 2.0 * gap])?;
        let push = 1.0 / (1.0 + gap).powi(2);
        for (found, expected) in out.gradient.iter().zip([0.0, push, push * gap / 2.0, -push / 2.0]) {
            // chord and arc differ in second order; along the vectors the difference is rounding
            assert!((found - expected).abs() < gap * gap + 1e-5, "{gap}: {out:?}");
        }
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        w[9] = bad;
        for regularizer in [mean, uniform] {
            let out = gpu.regularize(&regularizer, 2, &w)?;
            assert!(out.value.is_nan() && out.gradient.len() == 12 && zero(&out.gradient), "{out:?}");
        }
    }
    // a prototype beyond one workgroup of another, far from the first block
    let mut many = random(&mut ChaCha8Rng::seed_from_u64(1), 700 * 3);
    many[3 * 650] = f32::NAN;
    let out = gpu.regularize(&uniform, 3, &many)?;
    assert!(out.value.is_nan() && zero(&out.gradient));
    // tensors that do not fit
    let (tw, wrong) =
        (upload(context, &[2, 3], &[1.0; 6], Element::F32), Tensor::empty(context, &[3, 2], Element::F32)?);
    let refused = submit(context, |e| regularize(context, e, &mean, &tw, &wrong, false)).map(|_| ());
    let (found, expected) = (vec![3, 2], vec![2, 3]);
    assert_eq!(refused, Err(Error::Shape { what: "grad_prototypes", found, expected }));
    let same = submit(context, |e| regularize(context, e, &mean, &tw, &tw, false)).map(|_| ());
    assert!(matches!(same, Err(Error::Overlap { .. })), "{same:?}");
    Ok(())
}

fn center_loss_agrees_with_the_reference(context: &Context) -> Result<(), Failed> {
    let loss = CenterLoss { weight: 0.3, rate: 0.7, ignore_index: Some(-100) };
    for (classes, dim) in SHAPES {
        for (rows, element) in
            [(1, Element::F32), (9, Element::F16), (200, Element::F32), (200, Element::Bf16), (700, Element::F32)]
        {
            let rng = &mut ChaCha8Rng::seed_from_u64((rows * dim) as u64);
            let (x, c) = (back(random(rng, rows * dim), element), random(rng, classes * dim));
            let label = |i: usize, rng: &mut ChaCha8Rng| {
                if i % 5 == 4 { -100 } else { rng.random_range(0..classes as i32) }
            };
            let labels: Vec<i32> = (0..rows).map(|i| label(i, rng)).collect();
            let at = format!("{rows} rows, {classes}x{dim} {element:?}");
            let tx = upload(context, &[rows, dim], &x, element);
            let (ty, tc) = (Tensor::upload(context, &[rows], &labels)?, Tensor::upload(context, &[classes, dim], &c)?);
            let gradient = Tensor::empty(context, &[rows, dim], Element::F32)?;
            let run = |add| submit(context, |e| center_loss(context, e, &loss, &tx, &ty, &tc, &gradient, add));
            let value = run(false)?.read::<f32>(context)?;
            let expected = reference::center_loss(&loss, dim, &wide(&x), &labels, &wide(&c))?;
            // a sum of positive terms, each within a few roundings, in a tree
            assert!(
                (f64::from(value[0]) - expected.loss).abs() <= 2e-6 * expected.loss,
                "{at}: {value:?}, {}",
                expected.loss
            );
            let once = gradient.read::<f32>(context)?;
            for (f, e) in once.iter().zip(&expected.grad_embeddings) {
                assert!((f64::from(*f) - e).abs() <= 5e-7 * e.abs(), "{at}: {f} is not {e}");
            }
            run(true)?;
            let twice: Vec<f32> = once.iter().map(|g| 2.0 * g).collect();
            same_bits(&at, &gradient.read(context)?, &twice)?;
            // the loss moved nothing
            same_bits(&at, &tc.read(context)?, &c)?;

            submit(context, |e| update_centers(context, e, &loss, &tx, &ty, &tc))?;
            let mut expected = wide(&c);
            reference::update_centers(&loss, dim, &wide(&x), &labels, &mut expected)?;
            let moved = tc.read::<f32>(context)?;
            for (i, (f, e)) in moved.iter().zip(&expected).enumerate() {
                // values up to 4, up to 700 of them added in a row; an average of them in the end
                assert!((f64::from(*f) - e).abs() <= 1e-5, "{at}: center {f} is not {e}");
                if !labels.contains(&((i / dim) as i32)) {
                    assert_eq!(f.to_bits(), c[i].to_bits(), "{at}: class {} moved", i / dim);
                }
            }
        }
    }
    Ok(())
}

fn center_loss_at_the_edges(context: &Context) -> Result<(), Failed> {
    let gpu = Backend::Gpu(context.clone());
    let loss = CenterLoss { ignore_index: Some(7), ..Default::default() };
    let good = [1.0, 2.0, 3.0, 4.0];
    let far = f32::MAX;
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (x, labels, c, spoils) in [
            ([1.0, bad, 3.0, 5.0], [0, 1], good, true),
            ([1.0, 2.0, 3.0, 5.0], [0, 1], [bad, 2.0, 3.0, 4.0], true),
            ([1.0, 2.0, 3.0, 5.0], [0, 1], [1.0, bad, 3.0, 4.0], true),
            // a difference beyond f32
            ([1.0, far, 3.0, 5.0], [0, 1], [1.0, -far, 3.0, 4.0], true),
            ([1.0, bad, 3.0, 5.0], [7, 1], good, false),
            ([1.0, 2.0, 3.0, 5.0], [1, 1], [bad, 2.0, 3.0, 4.0], false),
        ] {
            let out = gpu.center_loss(&loss, 2, &x, &labels, &c)?;
            assert_eq!((out.loss.is_nan(), zero(&out.grad_embeddings)), (spoils, spoils), "{out:?}");
            let mut moved = c;
            gpu.update_centers(&loss, 2, &x, &labels, &mut moved)?;
            same_bits("center", &moved[..2], &c[..2])?;
            assert!(moved[2..].iter().all(|c| c.is_finite()) && moved[3] != 4.0, "{moved:?}");
        }
    }
    // no row, all ignored
    for (x, labels) in [(&[][..], &[][..]), (&[1.0, 2.0, 3.0, f32::NAN][..], &[7, 7][..])] {
        let mut centers = good;
        let out = gpu.center_loss(&loss, 2, x, labels, &centers)?;
        assert!(out.loss.to_bits() == 0 && out.grad_embeddings.len() == x.len() && zero(&out.grad_embeddings));
        pollster::block_on(gpu.update_centers_async(&loss, 2, x, labels, &mut centers))?;
        same_bits("centers", &centers, &good)?;
    }
    // a label that names no class, found on the device; an ignored class like the others
    let tensor = |values: &[f32]| upload(context, &[2, 2], values, Element::F32);
    let (x, c, g) = (tensor(&[1.0, 2.0, 3.0, 5.0]), tensor(&good), tensor(&[9.0; 4]));
    for (labels, ignore_index, expected) in
        [([2, 1], None, f32::NAN), ([-1, 1], None, f32::NAN), ([2, 1], Some(2), 0.01), ([0, 1], Some(0), 0.01)]
    {
        let loss = CenterLoss { ignore_index, ..Default::default() };
        let y = Tensor::upload(context, &[2], &labels)?;
        let value = submit(context, |e| center_loss(context, e, &loss, &x, &y, &c, &g, false))?;
        let value = value.read::<f32>(context)?[0];
        assert!((value - expected).abs() < 1e-8 || value.is_nan() && expected.is_nan(), "{value}, not {expected}");
        let gradient = g.read::<f32>(context)?;
        let none = expected.is_nan();
        assert!(zero(&gradient[..3]) && (gradient[3] == 0.0) == none, "{gradient:?}");
    }
    let label = gpu.center_loss(&loss, 2, &[1.0, 2.0], &[2], &good);
    assert_eq!(label, Err(Error::Label { row: 0, label: 2, classes: 2 }));
    Ok(())
}

/// The plan's bytes are all that a call makes, beside the value.
fn regularizers_allocate_what_the_plan_says(context: &Context) -> Result<(), Failed> {
    let (classes, dim) = (600, 8);
    let shape = Shape::new(1, classes, dim)?;
    let w = upload(context, &[classes, dim], &random(&mut ChaCha8Rng::seed_from_u64(4), classes * dim), Element::F32);
    let gradient = Tensor::empty(context, &[classes, dim], Element::F32)?;
    for regularizer in BOTH {
        let plan = plan::Plan::regularizer(&regularizer, shape, Element::F32, context.limits())?;
        let before = context.allocated_bytes();
        submit(context, |e| regularize(context, e, &regularizer, &w, &gradient, false))?;
        assert_eq!(context.allocated_bytes() - before, plan.workspace_bytes() + 4);
        assert!(plan.workspace_bytes() < (classes * classes * 4) as u64);
    }
    Ok(())
}

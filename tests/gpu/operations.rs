//! The pieces on tensors: cosines, margin, cross entropy, each with its backward.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{
        Context, Tensor,
        ops::{self, CrossEntropy},
    },
    objective::Fallback,
    plan::Element,
    *,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    Check,
    cases::{Case, Data, FALLBACKS, REDUCTIONS, random},
    families::{self, Suite},
    rig::{same_bits, upload},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("cosines_agree_with_the_reference", cosines_agree_with_the_reference),
    ("target_cosines_agree_with_the_reference", target_cosines_agree_with_the_reference),
    ("every_curve_and_slope_is_right_at_every_angle", every_curve_and_slope_is_right_at_every_angle),
    ("cross_entropy_agrees_with_the_reference", cross_entropy_agrees_with_the_reference),
    ("the_pieces_make_a_head", the_pieces_make_a_head),
    ("a_batch_of_three_equals_three_calls", a_batch_of_three_equals_three_calls),
];

/// Records, submits.
fn submit<T>(context: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<T>) -> Result<T> {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let out = record(&mut encoder)?;
    context.queue().submit([encoder.finish()]);
    Ok(out)
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn unit(v: &[f32]) -> (Vec<f64>, f64) {
    let length = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    (v.iter().map(|&x| f64::from(x) / length.max(1e-12)).collect(), length)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cosines_agree_with_the_reference(context: &Context) -> Result<(), Failed> {
    for (n, c, d) in [(3, 5, 3), (40, 70, 64), (1, 1, 1), (17, 129, 65), (65, 33, 1024)] {
        for element in [Element::F32, Element::F16, Element::Bf16] {
            let rng = &mut rng(n as u64);
            let mut x = random(rng, n * d);
            let w = random(rng, c * d);
            // the first embedding lies on the first prototype
            x[..d].copy_from_slice(&w[..d]);
            let back = |v: &[f32]| -> Vec<f32> {
                v.iter()
                    .map(|&v| match element {
                        Element::F16 => half::f16::from_f32(v).to_f32(),
                        Element::Bf16 => half::bf16::from_f32(v).to_f32(),
                        _ => v,
                    })
                    .collect()
            };
            let (tx, tw) = (upload(context, &[n, d], &x, element), upload(context, &[c, d], &w, element));
            let out = submit(context, |e| ops::cosine(context, e, &tx, &tw))?;
            assert_eq!(out.shape(), [n, c]);
            let found = out.read::<f32>(context)?;
            let (x, w) = (back(&x), back(&w));
            let units = |v: &[f32]| v.chunks_exact(d).map(unit).collect::<Vec<_>>();
            let (ux, uw) = (units(&x), units(&w));
            let grad = random(rng, n * c);
            for i in 0..n {
                for j in 0..c {
                    let (f, e) = (found[i * c + j], dot(&ux[i].0, &uw[j].0));
                    assert!((f64::from(f) - e).abs() <= 2e-6, "{element:?} {n}x{c}x{d} [{i}, {j}]: {f} is not {e}");
                }
            }
            let tg = Tensor::upload(context, &[n, c], &grad)?;
            let (dx, dw) = submit(context, |e| ops::cosine_backward(context, e, &tx, &tw, &out, &tg))?;
            let expect = |own: &[(Vec<f64>, f64)], other: &[(Vec<f64>, f64)], g: &dyn Fn(usize, usize) -> f64| {
                let mut all = vec![];
                for (a, (direction, length)) in own.iter().enumerate() {
                    let mut pull = vec![0.0; d];
                    for (b, (v, _)) in other.iter().enumerate() {
                        pull.iter_mut().zip(v).for_each(|(p, v)| *p += g(a, b) * v);
                    }
                    let radial = dot(&pull, direction);
                    all.extend(pull.iter().zip(direction).map(|(p, u)| (p - radial * u) / length));
                }
                all
            };
            let g = |i: usize, j: usize| f64::from(grad[i * c + j]);
            for (what, found, expected) in [
                ("dX", dx.read::<f32>(context)?, expect(&ux, &uw, &g)),
                ("dW", dw.read::<f32>(context)?, expect(&uw, &ux, &|j, i| g(i, j))),
            ] {
                // measured against the pull, since D = 1 has no direction to turn
                let most = expected.iter().fold(1.0, |m: f64, e| m.max(e.abs()));
                let shortest = ux.iter().chain(&uw).map(|u| u.1).fold(f64::MAX, f64::min);
                for (f, e) in found.iter().zip(&expected) {
                    assert!(
                        (f64::from(*f) - e).abs() <= 2e-5 * most.max(1.0 / shortest),
                        "{what} {n}x{c}x{d}: {f} is not {e}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// The labelled class has a dot product of its own; the rest of the head is judged by it.
fn target_cosines_agree_with_the_reference(context: &Context) -> Result<(), Failed> {
    for d in [1, 3, 64, 65, 1024] {
        for cosine in [None, Some(0.7), Some(0.99), Some(-0.9)] {
            let shape = Shape::new(24, 40, d)?;
            let loss = MarginSoftmax::normface();
            let mut case = Case::random(shape, d as u64);
            case.trained = cosine.filter(|_| d > 2);
            let data = Data::new(&case);
            let found = Backend::Gpu(context.clone()).head(&loss, shape)?.evaluate(&data.batch())?;
            let expected = data.reference(&loss, shape);
            for (f, e) in found.target_cosines.iter().zip(&expected.target_cosines) {
                assert!((f64::from(*f) - e).abs() <= 5e-7, "D = {d}, {cosine:?}: target {f} is not {e}");
            }
            for (f, e) in found.other_cosines.iter().zip(&expected.other_cosines) {
                assert!((f64::from(*f) - e).abs() <= 2e-6, "D = {d}, {cosine:?}: nearest {f} is not {e}");
            }
        }
    }
    Ok(())
}

/// Cosines where curves bend: the ends, just past them, zero, both sides of every threshold.
fn angles(loss: &MarginSoftmax) -> Vec<f32> {
    let mut cosines: Vec<f32> = (-50..=50).map(|i| i as f32 / 50.0).collect();
    cosines.extend([
        0.999,
        -0.999,
        0.99999,
        -0.99999,
        1.0 - 6e-8,
        -1.0 + 6e-8,
        1.000_000_1,
        -1.000_000_1,
        1e-6,
        -1e-6,
        -0.0,
    ]);
    let Target::Unified(margin) = &loss.target else { unreachable!() };
    let mut bends = vec![0.0];
    bends.extend(margin.threshold());
    if let Fallback::Clip(e) = margin.fallback {
        let pi = std::f64::consts::PI;
        let ends = [(e - margin.m2) / margin.m1, (pi - e - margin.m2) / margin.m1];
        bends.extend(ends.into_iter().filter(|a| (0.0..=pi).contains(a)).map(f64::cos));
    }
    for bend in bends {
        // an f32 threshold is off by up to 6e-8
        cosines.extend([bend as f32 + 2e-6, bend as f32 - 2e-6]);
    }
    cosines.retain(|c| c.abs() <= 1.000_000_2);
    cosines
}

/// The direct check of value and slope, where the gradients' gate would prove nothing.
fn every_curve_and_slope_is_right_at_every_angle(context: &Context) -> Result<(), Failed> {
    let mut checked = 0;
    let steep = [
        // everything is clipped, or all but one end
        ("nearly flat", MarginSoftmax::unified(1.0, 0.1, 0.0, 0.0)),
        ("nearly opposite", MarginSoftmax::unified(1.0, 1.0, 3.1, 0.0)),
        ("many folds", MarginSoftmax::unified(1.0, 6.0, 0.7, 0.0)),
        // thresholds of exactly 0, 1/2 and 0: among the cosines
        ("half", MarginSoftmax::unified(1.0, 2.0, 0.0, 0.0)),
        ("third", MarginSoftmax::unified(1.0, 3.0, 0.0, 0.0)),
        ("right angle", MarginSoftmax::unified(1.0, 1.0, std::f64::consts::FRAC_PI_2, 0.0)),
    ];
    let grid = families::on(Suite::Grid).into_iter().map(|family| (family.name, family.loss));
    for (name, loss) in grid.chain(steep) {
        for fallback in [&FALLBACKS[..], &[Fallback::Clip(0.45)]].concat() {
            for others in &[Others::Identity, Others::Rectified] {
                let loss =
                    loss.clone().with_scale(1.0).with_others(others.clone()).with_margin(|m| m.fallback = fallback);
                if loss.validate().is_err() {
                    continue;
                }
                let cosines = angles(&loss);
                let n = cosines.len();
                // two classes: the target in the first or the second, the same cosine for both
                let cells: Vec<f32> = cosines.iter().flat_map(|&c| [c, c]).collect();
                let labels: Vec<i32> = (0..n).map(|i| (i % 2) as i32).collect();
                let tc = Tensor::upload(context, &[n, 2], &cells)?;
                let ty = Tensor::upload(context, &[n], &labels)?;
                let ones = Tensor::upload(context, &[n, 2], &vec![1.0_f32; 2 * n])?;
                let logits = submit(context, |e| ops::margin(context, e, &loss, &tc, &ty))?.read::<f32>(context)?;
                let slopes = submit(context, |e| ops::margin_backward(context, e, &loss, &tc, &ty, &ones))?;
                let slopes = slopes.read::<f32>(context)?;
                for (i, &c) in cosines.iter().enumerate() {
                    for j in 0..2 {
                        let (value, slope) = if j as i32 == labels[i] {
                            loss.target_value_slope(c.into())
                        } else {
                            loss.others.value_slope(f64::from(c))
                        };
                        let (v, s) = (f64::from(logits[2 * i + j]), f64::from(slopes[2 * i + j]));
                        let at = format!("{name} {} at {c}, column {j}", fallback.name());
                        assert!((v - value).abs() <= 1e-4 * value.abs().max(0.01), "{at}: value {v} is not {value}");
                        assert!((s - slope).abs() <= 1e-4 * slope.abs().max(0.1), "{at}: slope {s} is not {slope}");
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 10_000, "{checked} values");
    Ok(())
}

/// A naive softmax in f64, written for this test alone.
fn naive(options: &CrossEntropy, logits: &[f32], c: usize, y: usize, w: Option<&[f32]>) -> (f64, Vec<f64>) {
    let z: Vec<f64> = logits.iter().map(|&z| z.into()).collect();
    let most = z.iter().copied().fold(f64::MIN, f64::max);
    let log_sum = most + z.iter().map(|z| (z - most).exp()).sum::<f64>().ln();
    let weight = |j: usize| w.map_or(1.0, |w| f64::from(w[j]));
    let epsilon = options.label_smoothing;
    let q = |j: usize| {
        let hot = if j == y { (1.0 - epsilon) * weight(y) } else { 0.0 };
        hot + epsilon / c as f64 * weight(j)
    };
    let mass: f64 = (0..c).map(q).sum();
    let loss = (0..c).map(|j| q(j) * (log_sum - z[j])).sum();
    (loss, (0..c).map(|j| mass * (z[j] - log_sum).exp() - q(j)).collect())
}

fn cross_entropy_agrees_with_the_reference(context: &Context) -> Result<(), Failed> {
    for (n, c) in [(3, 5), (70, 33), (5, 3000), (1, 2)] {
        for (i, reduction) in REDUCTIONS.into_iter().cycle().take(6).enumerate() {
            let rng = &mut rng(i as u64);
            let label_smoothing = [0.0, 0.1][i % 2];
            let options = CrossEntropy { reduction, label_smoothing, ignore_index: (i >= 3).then_some(-1) };
            let logits: Vec<f32> = random(rng, n * c).iter().map(|z| z * 8.0).collect();
            let mut labels: Vec<i32> = (0..n).map(|_| rng.random_range(0..c) as i32).collect();
            if i >= 3 && n > 1 {
                labels[1] = -1;
            }
            let weights: Option<Vec<f32>> = (i % 3 == 1).then(|| (0..c).map(|_| rng.random_range(0.3..2.0)).collect());
            let ups = if reduction == Reduction::None { n } else { 1 };
            let up: Vec<f32> = (0..ups).map(|_| rng.random_range(0.5..1.5)).collect();

            let weight = |y: i32| weights.as_ref().map_or(1.0, |w| f64::from(w[y as usize]));
            let z: f64 = match reduction {
                Reduction::Mean => labels.iter().filter(|&&y| y >= 0).map(|&y| weight(y)).sum(),
                _ => 1.0,
            };
            let (mut sum, mut rows, mut gradient) = (0.0, vec![], vec![]);
            for (row, &y) in labels.iter().enumerate() {
                let (loss, g) = if y < 0 {
                    (0.0, vec![0.0; c])
                } else {
                    naive(&options, &logits[row * c..][..c], c, y as usize, weights.as_deref())
                };
                sum += loss;
                rows.push(loss);
                gradient.extend(g.iter().map(|g| g * f64::from(up[if ups == 1 { 0 } else { row }]) / z));
            }
            let tz = Tensor::upload(context, &[n, c], &logits)?;
            let ty = Tensor::upload(context, &[n], &labels)?;
            let tw = weights.as_ref().map(|w| Tensor::upload(context, &[c], w)).transpose()?;
            let tu = Tensor::upload(context, &[ups], &up)?;
            let (losses, dz) = submit(context, |e| {
                ops::cross_entropy_backward(context, e, &options, &tz, &ty, tw.as_ref(), Some(&tu))
            })?;
            let close = |what: &str, found: &[f32], expected: &[f64], unit: f64| {
                assert_eq!(found.len(), expected.len(), "{what}");
                for (f, e) in found.iter().zip(expected) {
                    // logits of up to 40: a few of their roundings
                    let error = (f64::from(*f) - e).abs();
                    assert!(error <= 1e-5 * e.abs().max(unit), "{what} {n}x{c} {options:?}: {f} is not {e}");
                }
            };
            close("loss", &losses.loss.read(context)?, &[sum / z], 1e-3);
            close("row_losses", &losses.row_losses.read(context)?, &rows, 1e-3);
            let most = gradient.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
            close("gradient", &dz.read(context)?, &gradient, most);
            // the forward call alone says the same, and leaves the logits as they were
            let alone = submit(context, |e| ops::cross_entropy(context, e, &options, &tz, &ty, tw.as_ref()))?;
            same_bits("loss", &alone.loss.read(context)?, &losses.loss.read(context)?)?;
            same_bits("logits", &tz.read(context)?, &logits)?;
        }
    }
    Ok(())
}

/// Cosine, margin and cross entropy in a row are the head.
fn the_pieces_make_a_head(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (20, 50, 16);
    let shape = Shape::new(n, c, d)?;
    let data = Data::random(shape, 31);
    let loss = MarginSoftmax::cheby_aam().with_label_smoothing(0.1).with_scale(16.0);
    let head = Backend::Gpu(context.clone()).head(&loss, shape)?.evaluate(&data.batch())?;
    let x = Tensor::upload(context, &[n, d], &data.embeddings)?;
    let w = Tensor::upload(context, &[c, d], &data.prototypes)?;
    let y = Tensor::upload(context, &[n], &data.labels)?;
    let options = CrossEntropy { label_smoothing: 0.1, ..Default::default() };
    let (losses, dx, dw) = submit(context, |e| {
        let cosines = ops::cosine(context, e, &x, &w)?;
        let logits = ops::margin(context, e, &loss, &cosines, &y)?;
        let (losses, dz) = ops::cross_entropy_backward(context, e, &options, &logits, &y, None, None)?;
        let dc = ops::margin_backward(context, e, &loss, &cosines, &y, &dz)?;
        let (dx, dw) = ops::cosine_backward(context, e, &x, &w, &cosines, &dc)?;
        Ok((losses, dx, dw))
    })?;
    let found = losses.loss.read::<f32>(context)?[0];
    assert!((found - head.loss).abs() <= 1e-5 * head.loss, "{found} and {}", head.loss);
    for (what, found, expected) in
        [("dX", dx.read::<f32>(context)?, head.grad_embeddings), ("dW", dw.read::<f32>(context)?, head.grad_prototypes)]
    {
        let most = expected.iter().fold(0.0, |m: f32, g| m.max(g.abs()));
        assert!(most > 0.0);
        for (f, e) in found.iter().zip(&expected) {
            assert!((f - e).abs() <= 3e-5 * most, "{what}: {f} and {e}");
        }
    }
    Ok(())
}

fn a_batch_of_three_equals_three_calls(context: &Context) -> Result<(), Failed> {
    let (b, n, c, d) = (3, 7, 34, 9);
    let rng = &mut rng(77);
    let (x, w) = (random(rng, b * n * d), random(rng, b * c * d));
    let (gradient, labels) = (random(rng, b * n * c), (0..b * n).map(|i| (i * 5 % c) as i32).collect::<Vec<_>>());
    let loss = MarginSoftmax::arcface();
    let options = CrossEntropy { label_smoothing: 0.05, ..Default::default() };
    let all = |entries: std::ops::Range<usize>| -> Result<Vec<Vec<f32>>> {
        let k = entries.len();
        let cut = |v: &[f32], each: usize| v[entries.start * each..entries.end * each].to_vec();
        let lead = |rest: &[usize]| if k == 1 { rest.to_vec() } else { [&[k], rest].concat() };
        let tx = Tensor::upload(context, &lead(&[n, d]), &cut(&x, n * d))?;
        let tw = Tensor::upload(context, &lead(&[c, d]), &cut(&w, c * d))?;
        let tg = Tensor::upload(context, &lead(&[n, c]), &cut(&gradient, n * c))?;
        let ty = Tensor::upload(context, &lead(&[n]), &labels[entries.start * n..entries.end * n])?;
        let outputs = submit(context, |e| {
            let cosines = ops::cosine(context, e, &tx, &tw)?;
            let (dx, dw) = ops::cosine_backward(context, e, &tx, &tw, &cosines, &tg)?;
            let logits = ops::margin(context, e, &loss, &cosines, &ty)?;
            let dc = ops::margin_backward(context, e, &loss, &cosines, &ty, &tg)?;
            let (losses, dz) = ops::cross_entropy_backward(context, e, &options, &logits, &ty, None, None)?;
            Ok(vec![cosines, dx, dw, logits, dc, losses.loss, losses.row_losses, dz])
        })?;
        outputs.iter().map(|t| t.read(context)).collect()
    };
    let together = all(0..b)?;
    let apart = [all(0..1)?, all(1..2)?, all(2..3)?];
    for (i, found) in together.iter().enumerate() {
        let expected: Vec<f32> = apart.iter().flat_map(|one| one[i].clone()).collect();
        same_bits(&format!("output {i}"), found, &expected)?;
    }
    Ok(())
}

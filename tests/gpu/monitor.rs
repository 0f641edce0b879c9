//! Monitors on a device against the reference: batches beside a head, spreads of prototypes.

use std::f64::consts::PI;

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{
        Context, Tensor,
        monitor::{HeadMonitor, mean_pair_angle, mean_pair_angle_in, mean_prototype},
    },
    monitor::{Monitor, Report},
    plan::Element,
    *,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    Check,
    cases::{Case, Data, random},
    rig::{Rig, upload},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("monitored_batches_agree_with_the_reference", monitored_batches_agree_with_the_reference),
    ("monitors_leave_out_what_does_not_count", monitors_leave_out_what_does_not_count),
    ("monitors_follow_the_rows_of_the_head", monitors_follow_the_rows_of_the_head),
    ("cosines_past_one_are_counted_at_the_ends", cosines_past_one_are_counted_at_the_ends),
    ("spreads_agree_with_the_reference", spreads_agree_with_the_reference),
    ("spreads_in_strips_are_the_same", spreads_in_strips_are_the_same),
    ("equal_cosines_are_no_hit", equal_cosines_are_no_hit),
    ("spreads_of_vectors_that_are_zero_or_not_finite", spreads_of_odd_vectors),
    ("wrong_monitors_are_refused", wrong_monitors_are_refused),
];

/// Forward pass and monitor in one submit.
fn monitored(context: &Context, rig: &Rig, monitor: &HeadMonitor) -> Result<Monitor> {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    rig.bound.record_forward(&mut encoder);
    monitor.record(&mut encoder);
    context.queue().submit([encoder.finish()]);
    monitor.read()
}

/// The reference's monitor, and the rows whose angles lie so near a border that f32 may put them in the next bin.
fn expected(loss: &MarginSoftmax, shape: Shape, data: &Data, bins: usize) -> Result<(Report, u64, f64)> {
    let out = data.reference(loss, shape);
    let mut monitor = Monitor::new(bins)?;
    monitor.add(&out, &data.labels, loss.ignore_index)?;
    let (mut near, mut sine) = (0, 1.0_f64);
    for (i, (&x, &other)) in out.target_cosines.iter().zip(&out.other_cosines).enumerate() {
        if Some(i64::from(data.labels[i])) == loss.ignore_index || out.row_losses[i].is_nan() {
            continue;
        }
        for c in [x, other].into_iter().filter(|c| c.abs() < 1.0) {
            let place = c.acos() / PI * bins as f64;
            let off = 2e-6 / (1.0 - c * c).sqrt() / PI * bins as f64;
            near += u64::from((place - place.round()).abs() < 2.0 * off);
            sine = sine.min((1.0 - c * c).sqrt());
        }
    }
    Ok((monitor.report(), near, sine))
}

/// A cosine is off by 2e-6 at most (see the crate's documentation), an angle by that over sin θ and 5e-7 of its own; a sum
/// of n terms up to π in f32 by (n/128 + 9) roundings, since the smallest workgroup has 128 lanes.
fn agree(what: &str, found: &Report, (report, near, sine): &(Report, u64, f64)) {
    assert_eq!(found.rows, report.rows, "{what}");
    assert_eq!(*near, 0, "{what}: angles on the border of a bin");
    assert_eq!(found.intra_histogram, report.intra_histogram, "{what}");
    assert_eq!(found.inter_histogram, report.inter_histogram, "{what}");
    assert_eq!(found.accuracy, report.accuracy, "{what}");
    let sum = (report.rows as f64 / 128.0 + 9.0) * 6e-8 * PI;
    for (name, f, e, off) in [
        ("intra", found.intra_angle, report.intra_angle, 2e-6 / sine + 5e-7),
        ("inter", found.inter_angle, report.inter_angle, 2e-6 / sine + 5e-7),
        ("cosine", found.target_cosine, report.target_cosine, 2e-6),
    ] {
        assert!((f - e).abs() <= off + sum, "{what}: {name} {f} is not {e}");
    }
}

/// Data whose angles stay off the borders of the bins: the first seed that has some.
fn off_borders(loss: &MarginSoftmax, case: &Case, bins: usize) -> Result<Data> {
    let (n, c, d) = case.shape;
    let shape = Shape::new(n, c, d)?;
    for seed in 0..200 {
        let data = Data::new(&Case { seed, loss: loss.clone(), ..case.clone() });
        if expected(loss, shape, &data, bins)?.1 == 0 {
            return Ok(data);
        }
    }
    panic!("{} has angles on borders for every seed", case.describe());
}

fn monitored_batches_agree_with_the_reference(context: &Context) -> Result<(), Failed> {
    let loss = MarginSoftmax::arcface();
    for (shape, trained, bins) in [
        ((3, 5, 3), None, 6),
        ((70, 65, 63), None, 90),
        ((40, 300, 16), Some(0.7), 180),
        ((700, 10, 8), None, 12),
        ((1, 1, 4), None, 2),
        ((33, 2, 64), Some(-0.4), 1024),
        ((5, 7, 2), None, 1),
    ] {
        let (n, c, d) = shape;
        let shape = Shape::new(n, c, d)?;
        let case = Case { trained, ..Case::random(shape, 0) };
        let data = off_borders(&loss, &case, bins)?;
        let rig = Rig::plain(context, &loss, shape, &data)?;
        let found = monitored(context, &rig, &HeadMonitor::new(context, &rig.bound, bins)?)?;
        let expected = expected(&loss, shape, &data, bins)?;
        agree(&format!("{n}x{c}x{d}"), &found.report(), &expected);
        // the same from the slices front
        let out = Backend::Gpu(context.clone()).head(&loss, shape)?.evaluate(&data.batch())?;
        let mut monitor = Monitor::new(bins)?;
        monitor.add(&out, &data.labels, None)?;
        agree(&format!("{n}x{c}x{d} from slices"), &monitor.report(), &expected);
    }
    // rows that fill many turns of the lanes, in chunks of classes; bins are judged by their sum here
    let shape = Shape::new(70_001, 3, 4)?;
    let data = Data::random(shape, 1);
    let rig = Rig::plain(context, &loss, shape, &data)?;
    let found = monitored(context, &rig, &HeadMonitor::new(context, &rig.bound, 1)?)?;
    let (report, _, _) = expected(&loss, shape, &data, 1)?;
    let report_found = found.report();
    assert_eq!((report_found.rows, &report_found.intra_histogram), (report.rows, &report.intra_histogram));
    // two cosines may be nearer to each other than f32 tells
    assert!((report_found.accuracy - report.accuracy).abs() <= 3.0 / 70_001.0);
    // the mean of errors 2e-6 / sin θ is far below the largest; 283 roundings
    for (f, e) in [(report_found.intra_angle, report.intra_angle), (report_found.inter_angle, report.inter_angle)] {
        assert!((f - e).abs() <= 283.0 * 6e-8 * e + 1e-5, "{f} is not {e}");
    }
    Ok(())
}

fn monitors_leave_out_what_does_not_count(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(30, 6, 4)?;
    let loss = MarginSoftmax::arcface().with_ignore_index(-100);
    let case = Case { ignored: 5, ..Case::random(shape, 0) };
    let mut data = off_borders(&loss, &case, 24)?;
    data.embeddings[4] = f32::NAN;
    data.embeddings[11 * 4 + 3] = f32::INFINITY;
    data.embeddings[5 * 4] = f32::NAN; // ignored as well
    let rig = Rig::plain(context, &loss, shape, &data)?;
    let monitor = HeadMonitor::new(context, &rig.bound, 24)?;
    let expect = expected(&loss, shape, &data, 24)?;
    assert_eq!(expect.0.rows, 22);
    agree("bad rows", &monitored(context, &rig, &monitor)?.report(), &expect);
    // a label that names no class, found on the device only
    let mut labels = data.labels.clone();
    labels[2] = 77;
    rig.tensors.y.write(context, &labels)?;
    data.labels[2] = -100;
    agree("a bad label", &monitored(context, &rig, &monitor)?.report(), &expected(&loss, shape, &data, 24)?);
    // a prototype that is not finite: no row counts
    data.prototypes[7] = f32::NAN;
    rig.tensors.w[0].write(context, &data.prototypes)?;
    assert_eq!(monitored(context, &rig, &monitor)?, Monitor::new(24)?);
    Ok(())
}

/// Fewer rows after an update, none at all, and all again; batches merge to one.
fn monitors_follow_the_rows_of_the_head(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(20, 9, 8)?;
    let loss = MarginSoftmax::cosface();
    let data = off_borders(&loss, &Case::random(shape, 0), 10)?;
    let mut rig = Rig::plain(context, &loss, shape, &data)?;
    let monitor = HeadMonitor::new(context, &rig.bound, 10)?;
    let mut both = Monitor::new(10)?;
    for (first, rows) in [(0, 0), (0, 7), (7, 13)] {
        let mut part = Data::random(shape, 0);
        part.embeddings = data.embeddings[first * 8..].to_vec();
        part.embeddings.resize(20 * 8, f32::NAN);
        part.labels = data.labels[first..].to_vec();
        part.labels.resize(20, 0);
        rig.tensors.x.write(context, &part.embeddings)?;
        rig.tensors.y.write(context, &part.labels)?;
        rig.bound.update(&loss, rows)?;
        let found = monitored(context, &rig, &monitor)?;
        assert_eq!(found.report().rows, rows as u64);
        both.merge(&found)?;
    }
    let expect = expected(&loss, shape, &data, 10)?;
    agree("merged", &both.report(), &expect);
    rig.bound.update(&loss, 20)?;
    rig.tensors.x.write(context, &data.embeddings)?;
    rig.tensors.y.write(context, &data.labels)?;
    agree("whole", &monitored(context, &rig, &monitor)?.report(), &expect);
    // the backward pass does not touch what is measured
    let before = monitor.read()?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    rig.record(&mut encoder);
    monitor.record(&mut encoder);
    context.queue().submit([encoder.finish()]);
    assert_eq!(monitor.read()?, before);
    Ok(())
}

/// Embeddings on their prototypes and opposite to them.
fn cosines_past_one_are_counted_at_the_ends(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(64, 64, 5)?;
    let loss = MarginSoftmax::normface();
    let mut data = Data::random(shape, 3);
    data.labels = (0..64).collect();
    for (i, (x, w)) in data.embeddings.chunks_exact_mut(5).zip(data.prototypes.chunks_exact(5)).enumerate() {
        let sign = if i % 2 == 0 { 3.0 } else { -0.7 };
        x.iter_mut().zip(w).for_each(|(x, w)| *x = sign * w);
    }
    let rig = Rig::plain(context, &loss, shape, &data)?;
    let report = monitored(context, &rig, &HeadMonitor::new(context, &rig.bound, 8)?)?.report();
    assert_eq!((report.rows, report.accuracy), (64, 0.5));
    assert_eq!(report.intra_histogram, [32, 0, 0, 0, 0, 0, 0, 32]);
    // √(2 · 5e-7) at either end
    assert!((report.intra_angle - PI / 2.0).abs() < 1e-3, "{}", report.intra_angle);
    Ok(())
}

fn spreads_agree_with_the_reference(context: &Context) -> Result<(), Failed> {
    let rng = &mut ChaCha8Rng::seed_from_u64(4);
    let backend = Backend::Gpu(context.clone());
    for (count, dim) in [(2, 3), (3, 1), (33, 5), (64, 64), (65, 32), (300, 63), (513, 16)] {
        for cone in [false, true] {
            let axis = random(rng, dim);
            let mut v = random(rng, count * dim);
            if cone {
                v.iter_mut().enumerate().for_each(|(k, x)| *x = 0.3 * *x + 2.0 * axis[k % dim].signum());
            }
            for element in [Element::F32, Element::F16, Element::Bf16] {
                let back = |v: &f32| match element {
                    Element::F16 => half::f16::from_f32(*v).to_f32(),
                    Element::Bf16 => half::bf16::from_f32(*v).to_f32(),
                    _ => *v,
                };
                let seen: Vec<f64> = v.iter().map(|v| f64::from(back(v))).collect();
                let (inter, mean) = (reference::mean_pair_angle(dim, &seen)?, reference::mean_prototype(dim, &seen)?);
                // dθ = dc / sin θ, with dc = 2e-6; at most √(2·dc) where vectors are parallel
                let off = if dim == 1 { 2e-3 } else { spread_error(dim, &seen) };
                let what = format!("{count}x{dim} {element:?} cone={cone}");
                for cut in [count, count / 2, 1] {
                    let shards: Vec<Tensor> = [(0, cut), (cut, count - cut)]
                        .into_iter()
                        .filter(|(_, n)| *n > 0)
                        .map(|(first, n)| upload(context, &[n, dim], &v[first * dim..(first + n) * dim], element))
                        .collect();
                    let shards: Vec<&Tensor> = shards.iter().collect();
                    let found = mean_pair_angle(context, &shards)?;
                    assert!((found - inter).abs() <= off + 5e-7, "{what}, {cut}: {found} is not {inter}");
                    let mut encoder = context.device().create_command_encoder(&Default::default());
                    let length = mean_prototype(context, &mut encoder, &shards)?;
                    context.queue().submit([encoder.finish()]);
                    assert_eq!(length.shape(), [1]);
                    let found = f64::from(length.read::<f32>(context)?[0]);
                    // a direction is off by 4 roundings, a sum of at most 256 by its own; far fewer on average
                    assert!((found - mean).abs() <= 2e-6, "{what}, {cut}: {found} is not {mean}");
                }
                if element == Element::F32 {
                    assert!((backend.mean_pair_angle(dim, &v)? - inter).abs() <= off + 5e-7, "{what}");
                    assert!((backend.mean_prototype(dim, &v)? - mean).abs() <= 2e-6, "{what}");
                }
            }
        }
    }
    assert_eq!((backend.mean_pair_angle(3, &[]), backend.mean_pair_angle(3, &[1.0; 3])), (Ok(0.0), Ok(0.0)));
    assert_eq!(backend.mean_prototype(3, &[]), Ok(0.0));
    let found = backend.mean_pair_angle(2, &[1.0, 1.0, 0.0, 2.0, -3.0, 1.0])?;
    assert!((found - 1.3562959).abs() < 1e-6, "W-Inter is {found}");
    let found = backend.nearest_prototype_angles(2, &[1.0, 1.0, 0.0, 2.0, -3.0, 1.0])?;
    let mean = (PI / 2.0 + 3_f64.atan()) / 3.0;
    assert!((found.mean - mean).abs() < 2e-6 && (found.least - PI / 4.0).abs() < 3e-6, "{found:?} is not {mean}");
    // more prototypes than are looked at together
    let v = random(&mut ChaCha8Rng::seed_from_u64(4), 2100 * 5);
    let (found, expected) =
        (backend.nearest_prototype_angles(5, &v)?, Backend::reference().nearest_prototype_angles(5, &v)?);
    let off = 4e-6 / expected.least.sin();
    let close = (found.mean - expected.mean).abs() < off && (found.least - expected.least).abs() < off;
    assert!(close, "{found:?} is not {expected:?}");
    Ok(())
}

/// The mean over pairs of what a cosine's error of 2e-6 does to an angle.
fn spread_error(dim: usize, v: &[f64]) -> f64 {
    let unit = |v: &[f64]| {
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.iter().map(|x| x / length).collect::<Vec<_>>()
    };
    let all: Vec<Vec<f64>> = v.chunks_exact(dim).map(unit).collect();
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (i, a) in all.iter().enumerate() {
        for b in &all[i + 1..] {
            let c: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            sum += (2e-6 / (1.0 - c * c).max(1e-30).sqrt()).min(2e-3);
            pairs += 1.0;
        }
    }
    sum / pairs
}

/// However the pairs are cut into submits; the order of the sums differs.
fn spreads_in_strips_are_the_same(context: &Context) -> Result<(), Failed> {
    let (count, dim) = (300, 8);
    let v = random(&mut ChaCha8Rng::seed_from_u64(12), count * dim);
    let wide: Vec<f64> = v.iter().map(|&v| v.into()).collect();
    let expected = reference::mean_pair_angle(dim, &wide)?;
    for cut in [300, 20, 130] {
        let shards: Vec<Tensor> = [(0, cut), (cut, count - cut)]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .map(|(first, n)| upload(context, &[n, dim], &v[first * dim..(first + n) * dim], Element::F32))
            .collect();
        let shards: Vec<&Tensor> = shards.iter().collect();
        for most in [0, 1, 7, 11, 1000] {
            let found = pollster::block_on(mean_pair_angle_in(context, &shards, most))?;
            let off = spread_error(dim, &wide) + 5e-7;
            assert!((found - expected).abs() <= off, "{cut}, {most} tiles: {found} is not {expected}");
        }
    }
    Ok(())
}

/// Two prototypes on the same axis as the embedding: both kernels compute the same product.
fn equal_cosines_are_no_hit(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(2, 3, 4)?;
    let mut data = Data::random(shape, 1);
    data.embeddings = vec![0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
    data.prototypes = vec![0.0, 4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0];
    data.labels = vec![0, 2];
    let rig = Rig::plain(context, &MarginSoftmax::arcface(), shape, &data)?;
    let found = monitored(context, &rig, &HeadMonitor::new(context, &rig.bound, 4)?)?.report();
    assert_eq!((found.rows, found.accuracy), (2, 0.5));
    Ok(())
}

fn spreads_of_odd_vectors(context: &Context) -> Result<(), Failed> {
    let backend = Backend::Gpu(context.clone());
    let found = backend.mean_pair_angle(2, &[0.0, 0.0, 1.0, 1.0, 1.0, 1.0])?;
    assert!((found - PI / 3.0).abs() < 1e-3, "{found}");
    let found = backend.mean_prototype(2, &[0.0, 0.0, 3.0, 4.0])?;
    assert!((found - 0.5).abs() < 1e-6, "{found}");
    for bad in [f32::NAN, f32::INFINITY] {
        for at in [0, 5, 799] {
            let mut v = vec![1.0; 800];
            v[at] = bad;
            assert!(
                backend.mean_pair_angle(2, &v)?.is_nan() && backend.mean_prototype(2, &v)?.is_nan(),
                "{bad} at {at}"
            );
            assert!(backend.nearest_prototype_angles(2, &v)?.mean.is_nan(), "{bad} at {at}");
            let halves = [&v[..400], &v[400..]].map(|v| upload(context, &[200, 2], v, Element::F32));
            assert!(mean_pair_angle(context, &[&halves[0], &halves[1]])?.is_nan(), "{bad} at {at}");
        }
    }
    Ok(())
}

fn wrong_monitors_are_refused(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(4, 5, 3)?;
    let data = Data::random(shape, 1);
    let rig = Rig::plain(context, &MarginSoftmax::arcface(), shape, &data)?;
    assert_eq!(HeadMonitor::new(context, &rig.bound, 0).err(), Some(Error::Zero { what: "bins" }));
    let size = Error::Size { what: "bins", needed: 1025, allowed: 1024 };
    assert_eq!(HeadMonitor::new(context, &rig.bound, 1025).err(), Some(size));
    assert_eq!(HeadMonitor::new(context, &rig.bound, 3)?.result().shape(), [14]);

    let tensor = |shape: &[usize], element| {
        let len: usize = shape.iter().product();
        upload(context, shape, &vec![1.0; len], element)
    };
    let (plain, flat) = (tensor(&[4, 3], Element::F32), tensor(&[6], Element::F32));
    let (wide, half) = (tensor(&[4, 4], Element::F32), tensor(&[4, 3], Element::F16));
    let labels = Tensor::empty(context, &[4, 3], Element::I32)?;
    assert_eq!(mean_pair_angle(context, &[]), Err(Error::Zero { what: "vectors" }));
    assert!(matches!(mean_pair_angle(context, &[&flat]), Err(Error::Shape { what: "vectors", .. })));
    let found = mean_pair_angle(context, &[&plain, &wide]);
    assert_eq!(found, Err(Error::Shape { what: "vectors", found: vec![4, 4], expected: vec![4, 3] }));
    assert!(matches!(mean_pair_angle(context, &[&plain, &half]), Err(Error::Element { what: "vectors", .. })));
    assert!(matches!(mean_pair_angle(context, &[&labels]), Err(Error::Element { what: "vectors", .. })));
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let found = mean_prototype(context, &mut encoder, &[&plain, &wide]).err();
    assert!(matches!(found, Some(Error::Shape { what: "prototypes", .. })));
    let backend = Backend::Gpu(context.clone());
    assert_eq!(backend.mean_pair_angle(0, &[1.0]), Err(Error::Zero { what: "dim" }));
    assert_eq!(backend.mean_pair_angle(2, &[1.0; 3]), Err(Error::Length { what: "vectors", found: 3, expected: 2 }));
    Ok(())
}

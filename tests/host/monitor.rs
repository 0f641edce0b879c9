//! Monitors: golden numbers, and an independent computation from the raw vectors.

use std::f64::consts::PI;

use margin_softmax::{
    Backend, Batch, Error, MarginSoftmax, Output, Shape, Tile,
    monitor::{ClassCenters, Collapse, CollapseDetector, CollapseKind, CollapseThresholds, MAX_BINS, Monitor, Report},
    plan::Plan,
    reference,
};
use rand::RngExt;

use crate::common::*;

const X: [f64; 4] = [3.0, 4.0, -1.0, 2.0];
const W: [f64; 6] = [1.0, 1.0, 0.0, 2.0, -3.0, 1.0];

fn thin(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn backends() -> Vec<Backend> {
    vec![
        Backend::reference(),
        #[cfg(feature = "cpu")]
        Backend::cpu(),
    ]
}

fn measure(case: &Case, bins: usize) -> Monitor {
    let mut monitor = Monitor::new(bins).unwrap();
    monitor.add(&case.run(), &case.labels, case.loss.ignore_index).unwrap();
    monitor
}

/// The angle from the lengths of sum and difference of the unit vectors: no cosine and no arccos is involved.
fn angle(a: &[f64], b: &[f64]) -> f64 {
    let (la, lb) = (length(a), length(b));
    let of = |sign: f64| a.iter().zip(b).map(|(a, b)| (a / la + sign * b / lb).powi(2)).sum::<f64>().sqrt();
    2.0 * of(-1.0).atan2(of(1.0))
}

/// The same numbers by the obvious way, over the rows of a list.
fn obvious(case: &Case, bins: usize, rows: &[usize]) -> Report {
    let n = rows.len().max(1) as f64;
    let mut report = Report {
        rows: rows.len() as u64,
        accuracy: 0.0,
        intra_angle: 0.0,
        inter_angle: 0.0,
        target_cosine: 0.0,
        mean_prototype: None,
        intra_histogram: vec![0; bins],
        inter_histogram: vec![0; bins],
    };
    for &i in rows {
        let y = case.labels[i] as usize;
        let own = angle(case.embedding(i), case.prototype(y));
        let others = (0..case.classes).filter(|&j| j != y);
        let nearest = others.map(|j| angle(case.embedding(i), case.prototype(j))).fold(PI, f64::min);
        report.accuracy += f64::from(own < nearest) / n;
        report.intra_angle += own / n;
        report.inter_angle += nearest / n;
        report.target_cosine += case.cosine(i, y) / n;
        for (histogram, angle) in [(&mut report.intra_histogram, own), (&mut report.inter_histogram, nearest)] {
            let place = angle / PI * bins as f64;
            // a bin's border must not decide
            assert!((place - place.round()).abs() > 1e-3 || angle == PI, "{angle} lies on a border");
            histogram[(place as usize).min(bins - 1)] += 1;
        }
    }
    report
}

#[track_caller]
fn agree(what: &str, found: &Report, expected: &Report, tolerance: f64) {
    assert_eq!(found.rows, expected.rows, "{what}");
    assert_eq!(found.intra_histogram, expected.intra_histogram, "{what}");
    assert_eq!(found.inter_histogram, expected.inter_histogram, "{what}");
    close(format_args!("{what}: accuracy"), found.accuracy, expected.accuracy, 1e-12);
    close(format_args!("{what}: intra"), found.intra_angle, expected.intra_angle, tolerance);
    close(format_args!("{what}: inter"), found.inter_angle, expected.inter_angle, tolerance);
    close(format_args!("{what}: cosine"), found.target_cosine, expected.target_cosine, tolerance);
}

/// A random case whose angles stay off the borders of `bins` bins.
fn off_borders(seed: u64, sizes: (usize, usize, usize), bins: usize) -> Case {
    let rng = &mut random(seed);
    let (rows, classes, dim) = sizes;
    let prototypes = Case::random(rng, MarginSoftmax::arcface(), (1, classes, dim)).prototypes;
    let mut case = Case::new(MarginSoftmax::arcface(), dim, vec![], prototypes, vec![]);
    while case.labels.len() < rows {
        let (x, y) = (uniform(rng, dim), rng.random_range(0..classes));
        let mut angles: Vec<f64> = (0..classes).map(|j| angle(&x, case.prototype(j))).collect();
        let own = angles.remove(y);
        let nearest = angles.into_iter().fold(PI, f64::min);
        let place = |angle: f64| angle / PI * bins as f64;
        // f32 cosines move an angle by 2e-6 / sin θ: stay 1e-3 of π away from either end too
        let clear = |angle: f64| (place(angle) - place(angle).round()).abs() > 2e-3 && (0.01..3.13).contains(&angle);
        if length(&x) > 0.4 && clear(own) && (clear(nearest) || classes == 1) && (own - nearest).abs() > 1e-4 {
            case.embeddings.extend(x);
            case.labels.push(y as i64);
        }
    }
    // as f32 sees them
    case.embeddings = wide(&thin(&case.embeddings));
    case.prototypes = wide(&thin(&case.prototypes));
    case
}

#[test]
fn golden_numbers_hold_on_every_path() {
    let case = Case::new(MarginSoftmax::arcface(), 2, X.to_vec(), W.to_vec(), vec![0, 2]);
    let report = measure(&case, 6).report();
    assert_eq!((report.rows, report.accuracy), (2, 0.5));
    printed("M_intra", report.intra_angle, ".4636476");
    printed("M_inter", report.inter_angle, ".5535744");
    // 45, 71.565 and 116.565 degrees: two thirds of the last, 1.35629596
    close("W-Inter", reference::mean_pair_angle(2, &W).unwrap(), (PI - 2_f64.atan()) / 1.5, 1e-15);
    // by hand: the directions are (√½, √½), (0, 1), (−3, 1)/√10
    let (r, t) = (0.5_f64.sqrt(), 10_f64.sqrt());
    let mean = ((r - 3.0 / t) / 3.0).hypot((r + 1.0 + 1.0 / t) / 3.0);
    close("mean prototype", reference::mean_prototype(2, &W).unwrap(), mean, 1e-15);
    for backend in backends() {
        let mut head = backend.head(&case.loss, Shape::new(2, 3, 2).unwrap()).unwrap();
        let (x, w) = (thin(&X), thin(&W));
        let out =
            head.evaluate(&Batch { embeddings: &x, prototypes: &w, labels: &[0, 2], ..Batch::default() }).unwrap();
        let mut monitor = Monitor::new(6).unwrap();
        monitor.add(&out, &[0_u8, 2], None).unwrap();
        // a cosine is off by 2 ulp (2.4e-7), an angle by that over sin θ = .14, on average over two rows by half
        agree(&backend.name(), &monitor.report(), &report, 1e-6);
        close(
            backend.name(),
            backend.mean_pair_angle(2, &w).unwrap(),
            reference::mean_pair_angle(2, &W).unwrap(),
            1e-6,
        );
        close(backend.name(), backend.mean_prototype(2, &w).unwrap(), mean, 3e-7);
    }
}

/// f64 exactly, f32 within a cosine's rounding: 2e-6 over the smallest sine of the data.
#[test]
fn a_report_agrees_with_the_obvious_computation() {
    for (seed, sizes) in [(40, 5, 3), (17, 100, 16), (33, 2, 8), (9, 1, 4), (3, 300, 65)].into_iter().enumerate() {
        let bins = [12, 90, 7, 1, 30][seed];
        let case = off_borders(seed as u64, sizes, bins);
        let rows: Vec<usize> = (0..case.labels.len()).collect();
        let expected = obvious(&case, bins, &rows);
        agree("reference", &measure(&case, bins).report(), &expected, 1e-12);
        assert!(expected.accuracy > 0.0 || sizes.1 > 50, "a share of hits decides something");
        let sine = (0..sizes.0)
            .flat_map(|i| (0..sizes.1).map(move |j| (i, j)))
            .map(|(i, j)| angle(case.embedding(i), case.prototype(j)).sin())
            .fold(1.0, f64::min);
        for backend in backends() {
            let (n, c, d) = sizes;
            let mut head = backend.head(&case.loss, Shape::new(n, c, d).unwrap()).unwrap();
            let (x, w) = (thin(&case.embeddings), thin(&case.prototypes));
            let batch = Batch { embeddings: &x, prototypes: &w, labels: &case.labels, ..Batch::default() };
            let mut monitor = Monitor::new(bins).unwrap();
            monitor.add(&head.evaluate(&batch).unwrap(), &case.labels, None).unwrap();
            agree(&backend.name(), &monitor.report(), &expected, 2e-6 / sine);
        }
    }
}

#[test]
fn batches_add_up() {
    let case = off_borders(7, (60, 9, 5), 18);
    let whole = measure(&case, 18);
    let (mut one, mut merged) = (Monitor::new(18).unwrap(), Monitor::new(18).unwrap());
    for (first, end) in [(0, 1), (1, 20), (20, 20), (20, 60)] {
        let mut part = case.clone();
        part.embeddings = case.embeddings[first * 5..end * 5].to_vec();
        part.labels = case.labels[first..end].to_vec();
        one.add(&part.run(), &part.labels, None).unwrap();
        merged.merge(&measure(&part, 18)).unwrap();
    }
    for parts in [one, merged] {
        // sums of 60 angles in another order
        agree("in parts", &parts.report(), &whole.report(), 60.0 * PI * f64::EPSILON);
    }
    assert_eq!(measure(&case, 18), whole, "the same bits again");
}

/// Rows that do not count leave no trace; a NaN would spoil every mean.
#[test]
fn rows_that_are_left_out_do_not_count() {
    let mut case = off_borders(3, (30, 6, 4), 24);
    case.loss.ignore_index = Some(-100);
    for i in [0, 7, 29] {
        case.labels[i] = -100;
    }
    case.embeddings[4 * 4] = f64::NAN;
    case.embeddings[5 * 4 + 3] = f64::INFINITY;
    case.embeddings[7 * 4] = f64::NAN; // ignored as well
    let rows: Vec<usize> = (0..30).filter(|i| ![0, 4, 5, 7, 29].contains(i)).collect();
    agree("reference", &measure(&case, 24).report(), &obvious(&case, 24, &rows), 1e-12);
    for backend in backends() {
        let (x, w) = (thin(&case.embeddings), thin(&case.prototypes));
        let mut head = backend.head(&case.loss, Shape::new(30, 6, 4).unwrap()).unwrap();
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &case.labels, ..Batch::default() };
        let mut monitor = Monitor::new(24).unwrap();
        monitor.add(&head.evaluate(&batch).unwrap(), &case.labels, Some(-100)).unwrap();
        agree(&backend.name(), &monitor.report(), &obvious(&case, 24, &rows), 1e-4);
    }
    // the ignore index may be a class; a class weight of zero makes a loss of zero, and still counts
    let mut case = off_borders(3, (30, 6, 4), 24).with_weights(&[0.0; 6]);
    case.loss.ignore_index = Some(2);
    let rows: Vec<usize> = (0..30).filter(|&i| case.labels[i] != 2).collect();
    assert!(rows.len() < 30);
    agree("zero weights", &measure(&case, 24).report(), &obvious(&case, 24, &rows), 1e-12);
    // nothing counts beside a prototype that is not finite
    case.prototypes[3] = f64::NAN;
    assert_eq!(measure(&case, 24), Monitor::new(24).unwrap());
}

#[test]
fn one_class_and_no_rows() {
    let case = off_borders(1, (5, 1, 3), 10);
    let report = measure(&case, 10).report();
    close("no other class", report.inter_angle, PI, 1e-15);
    assert_eq!((report.rows, report.accuracy, report.inter_histogram[9]), (5, 1.0, 5));
    let none = Case::new(MarginSoftmax::arcface(), 3, vec![], case.prototypes, vec![]);
    let report = measure(&none, 10).report();
    assert_eq!((report.rows, report.accuracy, report.intra_angle, report.target_cosine), (0, 0.0, 0.0, 0.0));
    for backend in backends() {
        assert_eq!((backend.mean_pair_angle(3, &[]), backend.mean_pair_angle(3, &[1.0, 2.0, 3.0])), (Ok(0.0), Ok(0.0)));
        assert_eq!(backend.mean_prototype(3, &[]), Ok(0.0));
        close(backend.name(), backend.mean_prototype(3, &[1.0, 2.0, 3.0]).unwrap(), 1.0, 2e-7);
    }
}

/// The first prototype twice: nobody is nearest.
#[test]
fn equal_cosines_are_no_hit() {
    let w = vec![0.0, 4.0, 0.0, 4.0, 8.0, 0.0];
    let case = Case::new(MarginSoftmax::arcface(), 2, vec![0.0, 2.0, 1.0, 0.0], w, vec![0, 2]);
    assert_eq!(measure(&case, 3).report().accuracy, 0.5);
}

/// Every right vector in exactly one strip, at most as many tiles as asked for or one column of them.
#[test]
fn strips_cover_all_pairs_once() {
    for tile in Tile::ALL {
        for (left, right) in [(1, 1), (64, 65), (300, 300), (5, 10_000), (85_742, 85_742)] {
            for most in [0, 1, 7, 1 << 16, usize::MAX] {
                let size = tile.geometry().rows as usize;
                let mut next = 0;
                for strip in Plan::strips(*tile, left, right, most) {
                    assert_eq!(strip.first, next);
                    assert!(strip.wide > 0 && (strip.wide == 1 || strip.wide * left.div_ceil(size) <= most));
                    next += strip.wide * size;
                }
                assert!(next >= right && next < right + size, "{left} {right} {most}");
            }
        }
    }
}

/// An embedding on its prototype: cosines round past 1, where an arccos is NaN.
#[test]
fn cosines_past_one_have_an_angle() {
    for x in [1.0 + 1e-7, 1.0 + 1e-15, 1.0] {
        let mut monitor = Monitor::new(4).unwrap();
        let out = Output {
            row_losses: vec![0.0; 2],
            target_cosines: vec![x, -x],
            other_cosines: vec![-x, x],
            counts: margin_softmax::data::Counts { rows: 2, ..Default::default() },
            ..Output::default()
        };
        monitor.add(&out, &[0, 0], None).unwrap();
        let report = monitor.report();
        assert_eq!((&report.intra_histogram[..], report.accuracy), (&[1, 0, 0, 1][..], 0.5));
        close("mean", report.intra_angle, PI / 2.0, 1e-15);
    }
}

/// Random vectors, a narrow cone (all angles small), copies of one vector, zero vectors; more than one tile.
#[test]
fn spreads_agree_with_the_obvious_computation() {
    let rng = &mut random(5);
    for (count, dim) in [(2, 1), (7, 3), (300, 16), (513, 33), (1030, 5)] {
        for spread in ["random", "cone", "copies"] {
            let axis = uniform(rng, dim);
            let noise = |spread: &str| match spread {
                "random" => 1.0,
                "cone" => 0.3,
                _ => 0.0,
            };
            let mut v: Vec<f64> = Vec::new();
            while v.len() < count * dim {
                let (own, weight) = (uniform(rng, dim), noise(spread));
                let one: Vec<f64> = own.iter().zip(&axis).map(|(o, a)| weight * o + (1.0 - weight) * a).collect();
                v.extend(if length(&one) > 0.05 { one } else { vec![] });
            }
            let v = wide(&thin(&v));
            let at = |i: usize| &v[i * dim..(i + 1) * dim];
            let (mut sum, mut off, mut mean) = (0.0, 0.0, vec![0.0; dim]);
            let pairs = (count * (count - 1) / 2) as f64;
            for i in 0..count {
                for j in i + 1..count {
                    let angle = angle(at(i), at(j));
                    sum += angle / pairs;
                    // dθ = dc / sin θ, at most √(2·dc) at the ends; dc = 5e-7 in f32
                    off += (5e-7 / angle.sin().abs().max(1e-9)).min(1e-3) / pairs;
                }
                mean.iter_mut().zip(at(i)).for_each(|(m, x)| *m += x / length(at(i)) / count as f64);
            }
            // parallel vectors keep half of f64's digits too
            let own = if spread == "copies" || dim == 1 { 3e-8 } else { 1e-9 };
            close(format_args!("{spread} {count}x{dim}"), reference::mean_pair_angle(dim, &v).unwrap(), sum, own);
            close(
                format_args!("{spread} {count}x{dim}"),
                reference::mean_prototype(dim, &v).unwrap(),
                length(&mean),
                1e-12,
            );
            for backend in backends() {
                let what = format!("{} {spread} {count}x{dim}", backend.name());
                close(&what, backend.mean_pair_angle(dim, &thin(&v)).unwrap(), sum, own + 2e-7 + off);
                // directions are off by 3 roundings
                close(&what, backend.mean_prototype(dim, &thin(&v)).unwrap(), length(&mean), 2e-7);
            }
        }
    }
}

#[test]
fn vectors_that_are_zero_or_not_finite() {
    for backend in backends() {
        // right angles to everything, and no share in the mean
        close("zero", backend.mean_pair_angle(2, &[0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).unwrap(), PI / 3.0, 4e-4);
        close("zero", backend.mean_prototype(2, &[0.0, 0.0, 3.0, 4.0]).unwrap(), 0.5, 1e-7);
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 5, 2 * 400 - 1] {
                let mut v = vec![1.0; 800];
                v[at] = bad;
                assert!(backend.mean_pair_angle(2, &v).unwrap().is_nan(), "{}", backend.name());
                assert!(backend.mean_prototype(2, &v).unwrap().is_nan(), "{}", backend.name());
            }
        }
    }
}

/// The same bits whatever the number of threads.
#[cfg(feature = "cpu")]
#[test]
fn spreads_do_not_depend_on_the_threads() {
    let v = thin(&uniform(&mut random(9), 1500 * 24));
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            (
                Backend::cpu().mean_pair_angle(24, &v).unwrap().to_bits(),
                Backend::cpu().mean_prototype(24, &v).unwrap().to_bits(),
            )
        })
    };
    let one = on(1);
    for threads in [2, 3, 7] {
        assert_eq!(on(threads), one, "{threads} threads");
    }
}

#[test]
fn centers_are_the_means_of_their_classes() {
    let mut case = off_borders(11, (50, 12, 6), 10);
    case.labels.iter_mut().for_each(|y| *y %= 9); // three classes are absent
    let mut labels = case.labels.clone();
    (labels[3], labels[8]) = (-1, -1);
    let mut x = case.embeddings.clone();
    x[10 * 6] = f64::NAN;
    let mut centers = ClassCenters::new(12, 6).unwrap();
    let mut second = centers.clone();
    centers.add(&x[..20 * 6], &labels[..20], Some(-1)).unwrap();
    second.add(&x[20 * 6..], &labels[20..], Some(-1)).unwrap();
    centers.merge(&second).unwrap();
    let of = |class: usize| (0..50).filter(|&i| i != 10 && labels[i] == class as i64).collect::<Vec<_>>();
    let present: Vec<usize> = (0..12).filter(|&j| !of(j).is_empty()).collect();
    assert_eq!(centers.classes(), present);
    assert!(present.len() > 5 && present.len() < 10);
    let mut means = vec![];
    for &class in &present {
        let rows = of(class);
        means.push(
            (0..6).map(|k| rows.iter().map(|i| x[i * 6 + k]).sum::<f64>() / rows.len() as f64).collect::<Vec<_>>(),
        );
    }
    all_close("centers", &wide(&centers.vectors()), &means.concat(), 1e-7);
    let n = present.len();
    let within: f64 = means.iter().zip(&present).map(|(m, &j)| angle(m, case.prototype(j))).sum::<f64>() / n as f64;
    close("WC-Intra", centers.mean_center_angle(&case.prototypes).unwrap(), within, 1e-12);
    close("WC-Intra", centers.mean_center_angle(&thin(&case.prototypes)).unwrap(), within, 1e-12);
    let pairs = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|(i, j)| i != j);
    let inter: f64 = pairs.map(|(i, j)| angle(&means[i], &means[j])).sum::<f64>() / (n * (n - 1)) as f64;
    for backend in backends() {
        close("C-Inter", backend.mean_pair_angle(6, &centers.vectors()).unwrap(), inter, 1e-6);
    }
    let none = ClassCenters::new(12, 6).unwrap();
    assert_eq!((none.vectors(), none.mean_center_angle(&case.prototypes)), (vec![], Ok(0.0)));
    let mut bad = case.prototypes.clone();
    bad[0] = f64::NAN;
    assert!(centers.mean_center_angle(&bad).unwrap().is_nan());
}

/// The verdict on one report after the warm-up.
fn verdict(thresholds: CollapseThresholds, shape: Shape, report: &Report) -> Option<Collapse> {
    let thresholds = CollapseThresholds { warm_up: Some(0), ..thresholds };
    CollapseDetector::new(thresholds, shape).unwrap().check(report)
}

/// A report of nothing but the numbers that a detector looks at.
fn summary(rows: u64, target_cosine: f64, mean_prototype: Option<f64>) -> Report {
    Report { rows, target_cosine, mean_prototype, ..Monitor::new(1).unwrap().report() }
}

/// All prototypes near one pole, all embeddings near the other; and a healthy batch.
#[test]
fn collapse_is_seen_and_nothing_else_is() {
    let rng = &mut random(2);
    let thresholds = CollapseThresholds::default();
    let shape = Shape::new(20, 30, 16).unwrap();
    let report = |case: &Case| {
        let mean = reference::mean_prototype(case.dim, &case.prototypes).unwrap();
        measure(case, 4).report().with_mean_prototype(mean)
    };
    let mut case = Case::random(rng, MarginSoftmax::arcface(), (20, 30, 16));
    case.prototypes.chunks_exact_mut(16).for_each(|w| w[0] += 9.0);
    // one side alone is no collapse
    let mut same = case.clone();
    same.embeddings.chunks_exact_mut(16).for_each(|x| x[0] += 9.0);
    assert_eq!(verdict(thresholds, shape, &report(&same)), None);
    case.embeddings.chunks_exact_mut(16).for_each(|x| x[0] -= 9.0);
    let seen = report(&case);
    let collapse = verdict(thresholds, shape, &seen).expect("a collapse");
    let Collapse { kind, mean_prototype, target_cosine, .. } = collapse;
    assert_eq!(
        (kind, mean_prototype, target_cosine),
        (CollapseKind::Collapsed, seen.mean_prototype, seen.target_cosine)
    );
    let length = mean_prototype.unwrap();
    assert!(length > 0.9 && target_cosine < -0.8);
    let text = collapse.to_string();
    let limit = CollapseThresholds::random_mean_prototype(shape);
    for part in [
        &format!("{length:.3} (above {limit:.3}"),
        &format!("{target_cosine:.3} (below 0)"),
        "WC-ReLU",
        "Reg_ss",
        "smaller margin",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // settable
    let strict = CollapseThresholds { mean_prototype: Some(0.9999), ..thresholds };
    assert_eq!(verdict(strict, shape, &seen).unwrap().kind, CollapseKind::Repelled);
    let low = CollapseThresholds { target_cosine: -0.9999, ..thresholds };
    assert_eq!(verdict(low, shape, &seen), None);
    // no rows are a reason to be quiet
    let high = CollapseThresholds { target_cosine: 0.5, ..thresholds };
    assert_eq!(verdict(high, shape, &Monitor::new(4).unwrap().report().with_mean_prototype(1.0)), None);
    for (what, mean_prototype, target_cosine) in [
        ("mean_prototype", f64::NAN, 0.0),
        ("mean_prototype", 1.5, 0.0),
        ("mean_prototype", -0.1, 0.0),
        ("target_cosine", 0.5, f64::NAN),
        ("target_cosine", 0.5, -2.0),
    ] {
        let mean_prototype = Some(mean_prototype);
        let error = CollapseDetector::new(CollapseThresholds { mean_prototype, target_cosine, warm_up: None }, shape);
        assert!(matches!(error, Err(Error::Parameter { what: found, .. }) if found == what), "{error:?}");
    }
}

/// The mean target cosine decides whether there is a warning, the mean prototype how far the collapse has come.
#[test]
fn the_target_cosine_warns_and_the_mean_prototype_says_how_far() {
    let thresholds = CollapseThresholds::default();
    let kind = |classes, dim, cosine, length| {
        let shape = Shape::new(64, classes, dim).unwrap();
        verdict(thresholds, shape, &summary(64, cosine, length)).map(|collapse| collapse.kind)
    };
    // healthy runs with WC-ReLU reach 0.36 with 60 classes in 32 dimensions
    for length in [None, Some(0.05), Some(0.36), Some(1.0), Some(f64::NAN)] {
        assert_eq!((kind(60, 32, 0.3, length), kind(60, 32, 0.0, length)), (None, None));
    }
    // the example `uci`: AmpFace alone, 8 classes in 16 dimensions
    assert_eq!(kind(8, 16, -0.378, Some(0.476)), Some(CollapseKind::Repelled));
    assert_eq!(kind(8, 16, -0.378, Some(0.55)), Some(CollapseKind::Collapsed));
    assert_eq!(kind(60, 32, -0.1, Some(0.29)), Some(CollapseKind::Collapsed));
    assert_eq!(kind(60, 32, -0.1, Some(0.13)), Some(CollapseKind::Repelled));
    for length in [None, Some(f64::NAN)] {
        assert_eq!(kind(60, 32, -0.1, length), Some(CollapseKind::Repelled));
    }
    // a single prototype is its own mean, whatever that rounds to
    assert_eq!(kind(1, 32, -0.1, Some(1.0 + 1e-7)), Some(CollapseKind::Repelled));
    let text = verdict(thresholds, Shape::new(64, 8, 16).unwrap(), &summary(64, -0.378, None)).unwrap().to_string();
    assert!(text.contains("-0.378 (below 0). ") && !text.contains("collapsed"), "{text}");
}

#[test]
fn no_warning_comes_within_the_warm_up() {
    let low = summary(64, -0.2, None);
    let first = |warm_up, classes| {
        let thresholds = CollapseThresholds { warm_up, ..CollapseThresholds::default() };
        let mut detector = CollapseDetector::new(thresholds, Shape::new(64, classes, 16).unwrap()).unwrap();
        (1..2000_u64).find(|_| detector.check(&low).is_some()).unwrap()
    };
    assert_eq!((first(Some(0), 8), first(Some(64), 8), first(Some(65), 8)), (1, 1, 2));
    // 20,000 rows, or ten of each class
    assert_eq!((first(None, 8), first(None, 2000), first(None, 10_000)), (313, 313, 1563));
}

/// Lengths of the mean of random directions: mean, variance and tail of their squares are those that the default stands on.
#[test]
fn the_mean_of_random_prototypes_is_as_long_as_derived() {
    const HEADS: usize = 4000;
    let rng = &mut random(6);
    for (classes, dim, limit, share) in [
        (2, 3, 1.0, 0.0),
        (2, 32, 0.9239, 1e-3),
        (8, 3, 0.7120, 1e-2),
        (8, 32, 0.4919, 1e-3),
        (60, 3, 0.2658, 1e-2),
        (60, 32, 0.1822, 1e-3),
    ] {
        let what = format!("{classes} classes, {dim} dimensions");
        let found = CollapseThresholds::random_mean_prototype(Shape::new(1, classes, dim).unwrap());
        close(&what, found, limit, 5e-5);
        // Box and Muller: normal coordinates make uniform directions
        let mut normal = || (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * (2.0 * PI * rng.random::<f64>()).cos();
        let mut length = || {
            let w: Vec<f64> = (0..classes * dim).map(|_| normal()).collect();
            reference::mean_prototype(dim, &w).unwrap()
        };
        let lengths: Vec<f64> = (0..HEADS).map(|_| length()).collect();
        let (n, d) = (classes as f64, dim as f64);
        let variance = 2.0 * (n - 1.0) / (d * n.powi(3));
        let squares = || lengths.iter().map(|length| length * length);
        let mean = squares().sum::<f64>() / HEADS as f64;
        // five deviations of a mean of 4000
        close(&what, mean, 1.0 / n, 5.0 * (variance / HEADS as f64).sqrt());
        let measured = squares().map(|square| (square - mean).powi(2)).sum::<f64>() / HEADS as f64;
        // the kurtosis is at most that of χ² with three degrees of freedom, 7: five deviations are 5·√(6/4000) = 0.19
        close(&what, measured / variance, 1.0, 0.2);
        let beyond = lengths.iter().filter(|&&length| length > found).count() as f64 / HEADS as f64;
        assert!(beyond <= share, "{what}: {beyond}");
    }
}

/// Thresholds and warnings from files of earlier versions, in which a length was a number and every warning a collapse.
#[cfg(feature = "serde")]
#[test]
fn earlier_thresholds_and_warnings_are_read() {
    let old = r#"{"mean_prototype": 0.5, "target_cosine": -0.1}"#;
    let thresholds: CollapseThresholds = serde_json::from_str(old).unwrap();
    let expected = CollapseThresholds { target_cosine: -0.1, mean_prototype: Some(0.5), warm_up: None };
    assert_eq!(thresholds, expected);
    assert_eq!(serde_json::from_str::<CollapseThresholds>("{}").unwrap(), CollapseThresholds::default());
    let old = format!(r#"{{"mean_prototype": 0.7, "target_cosine": -0.3, "thresholds": {old}}}"#);
    let collapse: Collapse = serde_json::from_str(&old).unwrap();
    let kind = CollapseKind::Collapsed;
    assert_eq!(collapse, Collapse { kind, mean_prototype: Some(0.7), target_cosine: -0.3, thresholds });
    let again = serde_json::to_string(&collapse).unwrap();
    assert!(again.contains(r#""kind":"collapsed""#), "{again}");
    assert_eq!(serde_json::from_str::<Collapse>(&again).unwrap(), collapse);
}

#[test]
fn wrong_input_is_refused_and_leaves_no_trace() {
    assert_eq!(Monitor::new(0).err(), Some(Error::Zero { what: "bins" }));
    let (needed, allowed) = (MAX_BINS as u64 + 1, MAX_BINS as u64);
    assert_eq!(Monitor::new(MAX_BINS + 1).err(), Some(Error::Size { what: "bins", needed, allowed }));
    let case = off_borders(4, (6, 5, 3), 8);
    let out = case.run();
    let mut monitor = Monitor::new(8).unwrap();
    let length = |what, found, expected| Err(Error::Length { what, found, expected });
    assert_eq!(monitor.add(&out, &case.labels[..5], None), length("row_losses", 6, 5));
    let short = Output { target_cosines: vec![0.0; 5], ..out.clone() };
    assert_eq!(monitor.add(&short, &case.labels, None), length("target_cosines", 5, 6));
    let short = Output { other_cosines: vec![], ..out.clone() };
    assert_eq!(monitor.add(&short, &case.labels, None), length("other_cosines", 0, 6));
    // the batch was computed without this ignore index
    let many = case.labels.iter().filter(|&&y| y == case.labels[0]).count();
    let wrong = monitor.add(&out, &case.labels, Some(case.labels[0]));
    assert_eq!(wrong, length("rows that are not ignored", 6 - many, 6));
    assert_eq!(monitor.merge(&Monitor::new(9).unwrap()), length("histogram", 9, 8));
    assert_eq!(monitor, Monitor::new(8).unwrap());

    let mut centers = ClassCenters::new(5, 3).unwrap();
    assert_eq!(ClassCenters::new(0, 3).err(), Some(Error::Zero { what: "classes" }));
    assert_eq!(ClassCenters::new(3, 0).err(), Some(Error::Zero { what: "dim" }));
    assert_eq!(centers.add(&[1.0; 7], &[0, 1], None), length("embeddings", 7, 6));
    assert_eq!(centers.add(&[1.0; 6], &[0, 5], None), Err(Error::Label { row: 1, label: 5, classes: 5 }));
    assert_eq!(centers.merge(&ClassCenters::new(4, 3).unwrap()), length("classes", 4, 5));
    assert_eq!(centers.merge(&ClassCenters::new(5, 2).unwrap()), length("dim", 2, 3));
    assert_eq!(centers.mean_center_angle(&[1.0_f32; 12]), length("prototypes", 12, 15).map(|()| 0.0));
    assert_eq!(centers, ClassCenters::new(5, 3).unwrap());
    for backend in backends() {
        assert_eq!(backend.mean_pair_angle(0, &[1.0]), Err(Error::Zero { what: "dim" }));
        assert_eq!(backend.mean_pair_angle(2, &[1.0; 3]), length("vectors", 3, 2).map(|()| 0.0));
        assert_eq!(backend.mean_prototype(2, &[1.0; 3]), length("prototypes", 3, 2).map(|()| 0.0));
    }
}

#[cfg(feature = "serde")]
#[test]
fn monitors_and_reports_survive_json_and_wrong_ones_do_not() {
    let monitor = measure(&off_borders(8, (12, 5, 3), 6), 6);
    let text = serde_json::to_string(&monitor).unwrap();
    assert_eq!(serde_json::from_str::<Monitor>(&text).unwrap(), monitor);
    let report = monitor.report().with_mean_prototype(0.25);
    let back: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(back, report);
    for (from, to) in [
        ("\"rows\":12", "\"rows\":11"),
        ("\"hits\":", "\"hits\":99"),
        ("\"intra_histogram\":[", "\"intra_histogram\":[0,"),
        ("\"inter_histogram\":[", "\"inter_histogram\":[1,"),
        ("\"rows\"", "\"row\""),
    ] {
        assert!(text.contains(from));
        assert!(serde_json::from_str::<Monitor>(&text.replace(from, to)).is_err(), "{from} as {to}");
    }
}

//! Values and gradients against the reference: every loss, option, transform, schedule and shape.

use margin_softmax::{
    Link, MarginSoftmax, Others, Reduction, State, Want,
    objective::{Binary, Coefficients, Curve, Fallback, PRESETS, Series, Slope, TopK, Unified},
};

use crate::{
    common::{Data, WANT, assert_agrees, family_data, schedules, schedules_of, transforms},
    families::{Family, Suite, with_centers},
};

/// Every preset × its own and the plain transforms of the others × both schedules, on data without and with a learnt structure.
#[test]
fn every_loss_agrees_with_the_reference() {
    let batches = [("random", Data::random(33, 300, 24, 1)), ("trained .7", Data::trained(33, 300, 64, 0.7, 2))];
    for preset in PRESETS {
        for others in &[preset.loss().others, Others::Identity, Others::Rectified] {
            let loss = preset.loss().with_others(others.clone());
            if loss.validate().is_err() {
                continue; // a linear head takes no transform
            }
            for (kind, data) in &batches {
                let data = &data.fit(&loss);
                let expected = data.reference(&loss, WANT);
                for (schedule, options) in schedules_of(&loss, data, WANT) {
                    let name = format!("{} {} {kind} {schedule}", preset.name, others.name());
                    assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
                }
            }
        }
    }
}

/// Fallbacks, curves and slopes that no preset uses, on data that reaches beyond every threshold.
#[test]
fn every_branch_of_the_target_agrees_with_the_reference() {
    let margin = |change: fn(&mut Unified)| MarginSoftmax::arcface().with_margin(change);
    let losses = [
        ("sine", margin(|m| m.fallback = Fallback::Sine)),
        ("mirror", margin(|m| m.fallback = Fallback::Mirror)),
        ("none", margin(|m| m.fallback = Fallback::None)),
        ("clip", margin(|m| m.fallback = Fallback::Clip(1e-3))),
        ("easy", margin(|m| m.fallback = Fallback::Easy)),
        ("detached", margin(|m| m.slope = Slope::Detached)),
        ("combined", MarginSoftmax::unified(0.9, 1.2, 0.2, 0.1)),
        (
            "given",
            margin(|m| {
                let coefficients = Coefficients::Given(vec![-0.1, 0.9, 0.1, 0.02]);
                m.curve = Curve::Series(Series { degree: 3, coefficients, ..Series::default() });
            }),
        ),
        ("scale 5", MarginSoftmax::arcface().with_scale(5.3)),
    ];
    // three dimensions spread the target cosines over all of [-1, 1]
    let mut data = Data::random(70, 40, 3, 3);
    for (name, loss) in losses {
        // an exact slope next to ±1 makes the gate useless; those cosines are tested in `the_ends_are_exact`
        let cosines = data.reference(&loss, Want::LOSS).target_cosines;
        for (i, c) in cosines.iter().enumerate() {
            if c.abs() > 0.99 {
                data.x[i * 3..i * 3 + 3].copy_from_slice(&[1.0, 0.5, -0.2]);
                data.labels[i] = 0;
            }
        }
        let expected = data.reference(&loss, Want::ALL);
        for (schedule, options) in schedules(&data, Want::ALL) {
            assert_agrees(&format!("{name} {schedule}"), &loss, &data.cpu(&loss, &options), &expected, true);
        }
    }
}

/// Reduction × smoothing × class weights × ignore index × upstream × others × schedule.
#[test]
fn every_combination_of_options_agrees_with_the_reference() {
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        for epsilon in [0.0, 0.1] {
            for weighted in [false, true] {
                for ignore in [None, Some(-1), Some(3)] {
                    for upstream in [false, true] {
                        for others in &[Others::Identity, Others::Rectified] {
                            let mut loss =
                                MarginSoftmax::arcface().with_others(others.clone()).with_label_smoothing(epsilon);
                            (loss.reduction, loss.ignore_index) = (reduction, ignore);
                            let mut data = Data::random(9, 200, 16, 4);
                            data.labels[3] = 3;
                            if ignore == Some(-1) {
                                (data.labels[0], data.labels[8]) = (-1, -1);
                            }
                            if weighted {
                                data = data.weighted();
                            }
                            if upstream {
                                let count = if reduction == Reduction::None { 9 } else { 1 };
                                data.upstream = Some((0..count).map(|i| 0.7 - 0.3 * i as f32).collect());
                            }
                            let expected = data.reference(&loss, Want::ALL);
                            for (schedule, options) in schedules(&data, Want::ALL) {
                                let name = format!(
                                    "{} eps {epsilon} weights {weighted} ignore {ignore:?} upstream {upstream} {} {schedule}",
                                    reduction.name(),
                                    others.name()
                                );
                                assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Sizes around every boundary: one of everything, no multiple of a tile, a long row, more rows than a block, short
/// vectors.
#[test]
fn every_shape_agrees_with_the_reference() {
    let shapes = [
        (1, 1, 1),
        (1, 1, 5),
        (3, 5, 1),
        (3, 5, 3),
        (17, 1000, 8),
        (4, 100_003, 16),
        (1030, 70, 5),
        (5, 129, 600),
        (2, 2, 2),
        (40, 33, 2),
        (64, 257, 63),
        (65, 512, 65),
        (31, 130, 64),
    ];
    for (rows, classes, dim) in shapes {
        for others in &[Others::Identity, Others::Rectified] {
            let mut data = Data::random(rows, classes, dim, 5);
            // CosFace: its slope is 1 everywhere, so that short vectors, whose cosines lie near ±1, keep a useful gate
            let loss = MarginSoftmax::cosface().with_others(others.clone()).with_scale(20.0);
            // with one dimension or one class the true gradient is 0: see the tests below
            let gradients = dim > 1 && classes > 1;
            if dim > 1 && rows > 2 {
                data = data.weighted();
            }
            let expected = data.reference(&loss, Want::ALL);
            for (schedule, options) in schedules(&data, Want::ALL) {
                let name = format!("{rows}x{classes}x{dim} {} {schedule}", others.name());
                assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, gradients);
            }
        }
    }
}

/// On random data the mean loss agrees to 1e-5, whatever the slopes.
#[test]
fn the_mean_loss_is_accurate() {
    for preset in PRESETS {
        let data = Data::random(64, 2000, 96, 9).fit(&preset.loss());
        let (loss, expected) = (preset.loss(), data.reference(&preset.loss(), Want::LOSS).loss);
        for (schedule, options) in schedules_of(&loss, &data, Want::ALL) {
            let found = f64::from(data.cpu(&loss, &options).loss);
            assert!((found / expected - 1.0).abs() < 1e-5, "{} {schedule}: {found}, not {expected}", preset.name);
        }
    }
}

/// Every transform × 1, 2, 3, 7 prototypes per class × softmax and binary link × plain, smoothed and weighted × schedule, with
/// every gradient there is.
#[test]
fn every_transform_link_and_sub_centre_agrees_with_the_reference() {
    let links = [Link::Softmax, Link::Binary(Binary { weight: 0.6, factor: 0.3, bias: -1.5 })];
    for others in transforms() {
        for centers in [1, 2, 3, 7] {
            for (link, smoothed) in [(links[0], false), (links[0], true), (links[1], false)] {
                let epsilon = if smoothed { 0.1 } else { 0.0 };
                let loss = MarginSoftmax { link, ..MarginSoftmax::arcface() };
                let loss = loss.with_others(others.clone()).with_label_smoothing(epsilon).with_scale(20.0);
                let mut data = Data::random(33, 300, 24, 31).with_centers(centers, 32);
                if smoothed || link != Link::Softmax {
                    data = data.weighted();
                    data.upstream = Some(vec![-1.7]);
                }
                let mut state = State::new(&loss, data.shape()).unwrap();
                state.hardness = 0.3;
                let expected = data.reference_at(&loss, WANT, &mut state, false);
                for (schedule, options) in schedules_of(&loss, &data, WANT) {
                    let name = format!("{others:?} K {centers} {} eps {epsilon} {schedule}", link.name());
                    let out = data.head(&loss, &options, &state).evaluate(&data.batch()).unwrap();
                    assert_agrees(&name, &loss, &out, &expected, true);
                }
            }
        }
    }
}

/// Reduction × ignore index × weights × upstream for every family.
#[test]
fn every_family_takes_every_option() {
    for (Family { loss, .. }, centers) in with_centers(Suite::Cpu) {
        for (k, reduction) in [Reduction::Mean, Reduction::Sum, Reduction::None].into_iter().enumerate() {
            let mut loss = loss.clone();
            loss.reduction = reduction;
            let mut data = family_data(&loss, centers, 40);
            data.labels[3] = 3;
            loss.ignore_index = [None, Some(-1), Some(3)][k];
            if k == 1 {
                (data.labels[0], data.labels[8]) = (-1, -1);
            }
            if k != 1 {
                data = data.weighted();
            }
            if k > 0 {
                let count = if reduction == Reduction::None { 24 } else { 1 };
                data.upstream = Some((0..count).map(|i| 0.7 - 0.1 * i as f32).collect());
            }
            let expected = data.reference(&loss, WANT);
            for (schedule, options) in schedules_of(&loss, &data, WANT) {
                let name = format!("{loss:?} K {centers} {} {schedule}", reduction.name());
                assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
            }
        }
    }
}

/// Margins of classes and of rows, any of m0..m3, with every curve and fallback that can follow them.
#[test]
fn margins_of_classes_and_rows_agree_with_the_reference() {
    let margin = |change: fn(&mut Unified)| MarginSoftmax::arcface().with_margin(change).with_scale(20.0);
    let series = |m: &mut Unified| m.curve = Curve::Series(Series::default());
    let losses = [
        margin(|_| {}),
        margin(|m| m.fallback = Fallback::Mirror),
        margin(|m| m.fallback = Fallback::None),
        margin(|m| m.slope = Slope::Detached),
        margin(series),
        margin(series).with_others(Others::Curricular),
        MarginSoftmax::magface(),
        MarginSoftmax::elasticface_arc(),
    ];
    let values = |count: usize, least: f32, step: f32| (0..count).map(|i| least + step * (i % 5) as f32).collect();
    for loss in &losses {
        for which in 0..4 {
            let mut data = Data::random(33, 120, 24, 80);
            let [by_class, by_row] = [&mut data.class_margins, &mut data.row_margins];
            match which {
                0 => by_class[2] = Some(values(120, 0.1, 0.1)),
                1 => by_row[2] = Some(values(33, -0.3, 0.2)),
                2 => {
                    *by_class = [0.8, 0.9, 0.05, -0.1].map(|least| Some(values(120, least, 0.1)));
                    by_row[3] = Some(values(33, 0.0, 0.07));
                }
                _ => *by_row = [0.8, 1.0, 0.05, -0.1].map(|least| Some(values(33, least, 0.05))),
            }
            let expected = data.reference(loss, WANT);
            for (schedule, options) in schedules_of(loss, &data, WANT) {
                let name = format!("{loss:?} margins {which} {schedule}");
                assert_agrees(&name, loss, &data.cpu(loss, &options), &expected, true);
            }
        }
    }
    let mut linear = Data::random(33, 120, 24, 81).linear();
    linear.class_margins[3] = Some(values(120, 0.0, 0.3));
    linear.row_margins[0] = Some(values(33, 0.5, 0.2));
    let loss = MarginSoftmax::m_softmax().with_label_smoothing(0.1);
    for (schedule, options) in schedules_of(&loss, &linear, WANT) {
        let name = format!("linear margins {schedule}");
        assert_agrees(&name, &loss, &linear.cpu(&loss, &options), &linear.reference(&loss, WANT), true);
    }
}

/// Sizes around every boundary for the sweeps that go through a table.
#[test]
fn every_shape_of_a_table_agrees_with_the_reference() {
    let shapes = [
        (3, 2, 5, 1),
        (3, 5, 3, 4),
        (17, 1000, 8, 2),
        (4, 20_003, 16, 1),
        (1030, 70, 5, 3),
        (5, 3, 6, 200),
        (2, 2, 7, 700),
    ];
    for (rows, classes, dim, centers) in shapes {
        for name in ["sphereface2", "normface", "arcface_topk"] {
            let loss = MarginSoftmax::named(name).unwrap().with_scale(16.0);
            let loss = match loss.others {
                Others::TopK(_) => loss.with_others(Others::TopK(TopK { count: 1, margin: 0.06 })),
                _ => loss,
            };
            let mut data = Data::random(rows, classes, dim, 90).with_centers(centers, 91);
            // not next to ±1, where an exact slope makes the gate useless
            let target = |data: &Data| data.reference(&MarginSoftmax::normface(), Want::LOSS).target_cosines;
            for (i, c) in target(&data).into_iter().enumerate() {
                if c.abs() > 0.98 {
                    data.labels[i] = (data.labels[i] + 1) % classes as i64;
                }
            }
            if target(&data).iter().any(|c| c.abs() > 0.99) && name == "arcface_topk" {
                continue;
            }
            let expected = data.reference(&loss, WANT);
            if expected.other_cosines.iter().any(|c| *c > 0.999) && name == "arcface_topk" {
                continue;
            }
            for (schedule, options) in schedules_of(&loss, &data, WANT) {
                let name = format!("{name} {rows}x{classes}x{dim} K {centers} {schedule}");
                assert_agrees(&name, &loss, &data.cpu(&loss, &options), &expected, true);
            }
        }
    }
}

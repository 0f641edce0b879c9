//! Margins and scale over the steps of a run.

use margin_softmax::{
    Adaptive, Error, MarginSoftmax, Others, Shape, Target,
    objective::{Angle, Epochs, Ramp, Schedule, Schedules, SimilarityAdjustment, TopK},
    plan::{Call, Element, Layout, Limits, Plan},
};

use crate::common::*;

fn schedule(ramp: Ramp) -> Schedule {
    Schedule { start: 0.0, end: 1.0, from: 1000, until: 1100, ramp }
}

/// The ratios of the published formula, to their digits.
#[test]
fn the_exponential_ramp_has_its_published_values() {
    let rising = schedule(Ramp::Exponential);
    for (t, r) in [(1001, ".066746"), (1010, ".498813"), (1025, ".822172"), (1050, ".968377"), (1075, ".994377")] {
        printed(format_args!("r at {t}"), rising.value(t), r);
        let falling = Schedule { start: 0.5, end: 0.1, ..rising };
        close(t, falling.value(t), 0.5 - 0.4 * rising.value(t), 1e-15);
    }
}

#[test]
fn a_schedule_starts_and_ends_where_it_says() {
    for ramp in [Ramp::Linear, Ramp::Exponential] {
        let s = Schedule { start: 0.1, end: 0.3, ..schedule(ramp) };
        assert_eq!([0, 999, 1000].map(|t| s.value(t)), [0.1; 3], "{ramp:?}");
        assert_eq!([1100, 1101, u64::MAX].map(|t| s.value(t)), [0.3; 3], "{ramp:?}");
        assert!((1000..1100).all(|t| s.value(t) < s.value(t + 1)), "{ramp:?} does not rise");
        let jump = Schedule { until: 1000, ..s };
        assert_eq!([999, 1000].map(|t| jump.value(t)), [0.1, 0.3]);
        let whole = Schedule { from: 0, until: u64::MAX, ..s };
        assert!(whole.value(u64::MAX - 1) <= 0.3 && whole.value(u64::MAX) == 0.3);
    }
    close("linear", schedule(Ramp::Linear).value(1025), 0.25, 1e-15);
    // the rest is a jump: 0.999 of the way at the last of many steps
    let long = Schedule { until: 1_001_000, ..schedule(Ramp::Exponential) };
    close("just before the end", long.value(1_000_999), 0.999, 1e-5);
}

/// Where end − start has fewer digits than the end, or more than f64 holds.
#[test]
fn a_schedule_stays_between_its_ends() {
    for ramp in [Ramp::Linear, Ramp::Exponential] {
        let far = Schedule { start: -1e16, end: 1.5, from: 0, until: u64::MAX, ramp };
        for step in [1, 1 << 20, 1 << 63, u64::MAX - (1 << 11), u64::MAX - 1] {
            assert!((-1e16..=1.5).contains(&far.value(step)), "{ramp:?} at {step}: {}", far.value(step));
        }
        let beyond = Schedule { start: -1.5e308, end: 1.5e308, ..far };
        assert!(matches!(beyond.validate(), Err(Error::Parameter { what: "schedule.end", found: 1.5e308, .. })));
    }
}

#[test]
fn epochs_count_from_one_or_from_zero() {
    let epochs = |range, counted, steps| Schedule::epochs(0.0, 0.2, Ramp::Linear, range, counted, steps);
    let steps = |s: Result<Schedule, Error>| s.map(|s| (s.from, s.until));
    assert_eq!(steps(epochs(20..40, Epochs::FromOne, 7)), Ok((133, 273)));
    assert_eq!(steps(epochs(20..40, Epochs::FromZero, 7)), Ok((140, 280)));
    assert_eq!(steps(epochs(1..1, Epochs::FromOne, 7)), Ok((0, 0)));
    assert!(matches!(epochs(0..4, Epochs::FromOne, 7), Err(Error::Parameter { what: "epochs", .. })));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = epochs(4..3, Epochs::FromZero, 7);
    assert!(matches!(reversed, Err(Error::Parameter { what: "schedule.until", .. })));
    assert!(matches!(epochs(1..u64::MAX, Epochs::FromZero, 7), Err(Error::Size { .. })));
}

/// The margins and scale of every step, in one head that is updated, give the bits of a head made for that step. A margin of
/// 0 is a straight line, the next one a curve.
#[cfg(feature = "cpu")]
#[test]
fn an_updated_head_is_a_fresh_one() {
    use margin_softmax::{Backend, Batch};

    let schedules = Schedules {
        m0: Some(Schedule { start: 1.0, end: 0.9, from: 3, until: 9, ramp: Ramp::Linear }),
        m1: Some(Schedule { start: 1.0, end: 1.2, from: 4, until: 8, ramp: Ramp::Exponential }),
        m2: Some(Schedule { start: 0.0, end: 0.3, from: 2, until: 10, ramp: Ramp::Exponential }),
        m3: Some(Schedule { start: 0.1, end: 0.0, from: 0, until: 6, ramp: Ramp::Linear }),
        scale: Some(Schedule { start: 16.0, end: 30.0, from: 1, until: 11, ramp: Ramp::Linear }),
        ..Default::default()
    };
    let (shape, rng) = (Shape::new(5, 9, 6).unwrap(), &mut random(1));
    let narrow = |v: Vec<f64>| v.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let (x, w) = (narrow(uniform(rng, 5 * 6)), narrow(uniform(rng, 9 * 6)));
    let batch = Batch { embeddings: &x, prototypes: &w, labels: &[0, 8, 3, 3, 1], ..Default::default() };
    for start in [MarginSoftmax::arcface(), MarginSoftmax::cheby_aam()] {
        for backend in [Backend::cpu(), Backend::reference()] {
            let mut loss = start.clone();
            let mut head = backend.head(&loss, shape).unwrap();
            let mut seen = vec![];
            for step in 0..12 {
                schedules.apply(head.state().step, &mut loss).unwrap();
                head.update(&loss).unwrap();
                let out = head.train(&batch).unwrap();
                let mut anew = start.clone();
                schedules.apply(step, &mut anew).unwrap();
                assert_eq!(anew, loss);
                assert_eq!(out, backend.head(&anew, shape).unwrap().evaluate(&batch).unwrap(), "step {step}");
                seen.push(out.loss);
            }
            seen.dedup();
            assert_eq!(seen.len(), 12, "every step has its own loss");
        }
    }
}

/// One GPU plan serves every step: the kernels do not depend on margins, not even on whether there is one.
#[test]
fn no_step_needs_another_plan() {
    let margin = Schedule { start: 0.0, end: 0.5, from: 1, until: 4, ramp: Ramp::Linear };
    let schedules = Schedules { m2: Some(margin), m3: Some(margin), scale: None, ..Default::default() };
    for mut loss in [MarginSoftmax::arcface(), MarginSoftmax::cosface(), MarginSoftmax::cheby_aam()] {
        let shape = Shape::new(4, 9, 6).unwrap();
        let layout = Layout { shards: &[9], embeddings: Element::F32, prototypes: Element::F32 };
        let plan = Plan::head(&loss, shape, &layout, &Limits::WEBGPU, &Default::default()).unwrap();
        let mut all = vec![];
        for step in 0..=4 {
            schedules.apply(step, &mut loss).unwrap();
            let settings = plan.settings(&loss, &Call { rows: 4, ..Default::default() }).unwrap();
            all.push(settings.bytes().to_vec());
        }
        assert_eq!(all[0], all[1]);
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}

#[test]
fn the_margin_of_inter_topk_follows_m2() {
    let margin = Schedule { start: 0.0, end: 0.2, from: 0, until: 100, ramp: Ramp::Linear };
    let schedules = Schedules { m2: Some(margin), top_k: Some(0.06), ..Default::default() };
    let mut loss = MarginSoftmax::named("arcface_topk").unwrap();
    let mut at = |schedules: &Schedules, step| {
        schedules.apply(step, &mut loss).unwrap();
        let Others::TopK(TopK { margin, .. }) = loss.others else { panic!() };
        margin
    };
    // m2 = 0.0005·step: up to 0.001 the margin is 0
    let fine = Schedules { m2: Some(Schedule { until: 400, ..margin }), ..schedules };
    assert_eq!([0, 1, 2].map(|step| at(&fine, step)), [0.0; 3]);
    close("m2 = 0.0015", at(&fine, 3), 0.06 * 0.0075, 1e-15);
    for (step, expected) in [(0, 0.0), (1, 0.0006), (50, 0.03), (100, 0.06), (1000, 0.06)] {
        close(step, at(&schedules, step), expected, 1e-15);
    }
    // without a schedule of its own m2 is that of the loss
    let alone = Schedules { m2: None, ..schedules };
    close("m2 of the loss", at(&alone, 0), 0.06, 1e-15);
}

#[test]
fn the_one_margin_of_other_families_is_scheduled() {
    let margin = Schedule { start: 0.0, end: 0.3, from: 0, until: 10, ramp: Ramp::Linear };
    let schedules = Schedules { margin: Some(margin), ..Default::default() };
    let mut loss = MarginSoftmax::li_arcface();
    schedules.apply(5, &mut loss).unwrap();
    assert!(matches!(loss.target, Target::Angle(Angle { margin: 0.15, .. })), "{loss:?}");
    assert_eq!(loss.others, MarginSoftmax::li_arcface().others);
    for name in ["sphereface2", "sphereface2_angular"] {
        let mut loss = MarginSoftmax::named(name).unwrap();
        schedules.apply(5, &mut loss).unwrap();
        assert!(
            matches!(loss.target, Target::SimilarityAdjustment(SimilarityAdjustment { margin: 0.15, .. })),
            "{loss:?}"
        );
        assert!(
            matches!(loss.others, Others::SimilarityAdjustment(SimilarityAdjustment { margin: 0.15, .. })),
            "{loss:?}"
        );
    }
}

/// Each refusal names what it refuses, and leaves the loss as it was.
#[test]
fn what_a_loss_does_not_have_is_refused() {
    let some = Some(Schedule { start: 0.1, end: 0.2, from: 0, until: 10, ramp: Ramp::Linear });
    let with = |start, end| Some(Schedule { start, end, from: 5, until: 10, ramp: Ramp::Linear });
    let none = Schedules::default();
    let cases = [
        ("arcgrad", Schedules { m2: some, ..none }, "schedules"),
        ("arcface", Schedules { margin: some, ..none }, "schedules.margin"),
        ("adacos", Schedules { scale: some, ..none }, "schedules.scale"),
        ("arcface", Schedules { top_k: Some(0.06), ..none }, "schedules.top_k"),
        ("adaface", Schedules { m2: some, ..none }, "adaptive.adaface"),
        ("arcface", Schedules { m2: with(0.1, f64::NAN), ..none }, "schedule.end"),
        ("arcface", Schedules { m2: with(f64::INFINITY, 0.1), ..none }, "schedule.start"),
        ("arcface", Schedules { m2: with(-0.1, 0.2), ..none }, "m2"),
        ("arcface", Schedules { scale: with(0.0, 64.0), ..none }, "scale"),
        ("arcface", Schedules { m3: with(-8e307, 8e307), m2: with(3.2, 0.0), ..none }, "m2"),
        ("arcface_topk", Schedules { top_k: Some(f64::NAN), ..none }, "schedules.top_k"),
        ("arcface_topk", Schedules { top_k: Some(10.0), ..none }, "top_k.margin"),
        ("arcface", Schedules { scale: with(1.0, 2.0).map(|s| Schedule { until: 4, ..s }), ..none }, "schedule.until"),
    ];
    for (name, schedules, expected) in cases {
        let mut loss = MarginSoftmax::named(name).unwrap();
        let before = loss.clone();
        let error = schedules.apply(0, &mut loss).expect_err(expected);
        let (Error::Parameter { what, .. } | Error::Combination { what, .. }) = error else { panic!("{error:?}") };
        assert_eq!(what, expected, "{error:?}");
        assert_eq!(loss, before);
    }
    let mut loss = MarginSoftmax::magface();
    assert!(matches!(loss.adaptive, Adaptive::MagFace(_)));
    none.apply(3, &mut loss).unwrap();
    assert_eq!(loss, MarginSoftmax::magface());
}

#[cfg(feature = "serde")]
#[test]
fn schedules_survive_json() {
    let some = Some(Schedule { start: 0.125, end: 0.5, from: 3, until: u64::MAX, ramp: Ramp::Linear });
    let all = Schedules { m0: some, m1: some, m2: some, m3: some, margin: some, scale: some, top_k: Some(0.06) };
    for schedules in [all, Schedules::default()] {
        let text = serde_json::to_string(&schedules).unwrap();
        assert_eq!(serde_json::from_str::<Schedules>(&text).unwrap(), schedules, "{text}");
    }
    let text = r#"{"m2": {"start": 0, "end": 0.2, "from": 0, "until": 9}}"#;
    let schedules: Schedules = serde_json::from_str(text).unwrap();
    assert_eq!(schedules.m2.map(|s| s.ramp), Some(Ramp::Exponential));
    for text in [r#"{"m4": null}"#, r#"{"m2": {"start": 0, "end": 1, "from": 0, "until": 9, "ramp": "exp"}}"#] {
        assert!(serde_json::from_str::<Schedules>(text).is_err(), "{text}");
    }
}

//! Losses, schedules and other plain data as JSON: what parses is written and read again unchanged; what is valid has finite
//! values and slopes.

#![no_main]

#[path = "../seeds.rs"]
mod seeds;

use libfuzzer_sys::fuzz_target;
use margin_softmax::{
    Budget, CenterLoss, MarginSoftmax, Options, Regularizer, Shape, Tile, Want,
    data::DevicePreset,
    objective::{Schedule, Schedules},
    plan::{Call, Element, Layout, Limits, Plan},
    shard::{Statistics, Targets},
};
use serde::{Serialize, de::DeserializeOwned};

fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) -> Option<T> {
    let value: T = serde_json::from_str(text).ok()?;
    let written = serde_json::to_string(&value).expect("a value that was read");
    assert_eq!(serde_json::from_str::<T>(&written).expect("what was written"), value, "{written}");
    Some(value)
}

fn finite((value, slope): (f64, f64), at: f64) {
    assert!(value.is_finite() && slope.is_finite(), "{value} with slope {slope} at {at}");
}

fn loss(loss: &MarginSoftmax) {
    if loss.validate().is_err() {
        return;
    }
    let near = [0.0, f64::MIN_POSITIVE, f64::EPSILON, 1e-9, 1e-4, 0.1, 0.3, 0.5, std::f64::consts::FRAC_1_SQRT_2, 0.9];
    for c in near.into_iter().flat_map(|c| [c, -c, 1.0 - c, c - 1.0]) {
        finite(loss.target_value_slope(c), c);
        finite(loss.others.value_slope(c), c);
    }
    // without an ignore index, whose bits may be those of a NaN
    let loss = MarginSoftmax { ignore_index: None, ..loss.clone() };
    let Ok(shape) = Shape::new(3, 70, 4) else { unreachable!() };
    let layout = Layout { shards: &[70], embeddings: Element::F32, prototypes: Element::F32 };
    let Ok(plan) = Plan::head(&loss, shape, &layout, &Limits::WEBGPU, &Options::default()) else { return };
    let settings = plan.settings(&loss, &Call { rows: 3, ..Call::default() }).expect("the loss that was planned");
    let broken = settings.bytes().as_chunks().0.iter().filter(|word| !f32::from_le_bytes(**word).is_finite());
    assert_eq!(broken.count(), 1, "the NaN that shaders write, and no other: {settings:?}");
}

fn schedules(all: &Schedules) {
    if all.validate().is_err() {
        return;
    }
    for preset in ["arcface_topk", "li_arcface", "sphereface2", "adacos"] {
        let start = MarginSoftmax::named(preset).expect("a preset");
        for step in [0, 1, 10, 1 << 53, u64::MAX] {
            let mut loss = start.clone();
            match all.apply(step, &mut loss) {
                Ok(()) => loss.validate().expect("a schedule's loss is valid"),
                Err(_) => assert_eq!(loss, start),
            }
        }
    }
    [all.m0, all.m1, all.m2, all.m3, all.margin, all.scale].iter().flatten().for_each(schedule);
}

fn schedule(one: &Schedule) {
    if one.validate().is_err() {
        return;
    }
    let (least, most) = (one.start.min(one.end), one.start.max(one.end));
    let middle = one.from + (one.until - one.from) / 2;
    for step in [0, one.from.saturating_sub(1), one.from, middle, one.until.saturating_sub(1), one.until, u64::MAX] {
        let value = one.value(step);
        assert!((least..=most).contains(&value), "{value} at step {step} of {one:?}");
    }
}

/// A text, and for what shards exchange a second one behind a line end.
fn parse(which: u8, text: &str) {
    match which % 10 {
        0 | 1 => drop(again::<MarginSoftmax>(text).inspect(loss)),
        2 => drop(again::<Schedules>(text).inspect(schedules)),
        3 => drop(again::<Schedule>(text).inspect(schedule)),
        4 => drop(again::<Regularizer>(text).map(|r| r.validate())),
        5 => drop(again::<CenterLoss>(text).map(|c| c.validate())),
        6 => {
            let _ = (again::<Want>(text), again::<Budget>(text), again::<DevicePreset>(text), again::<Tile>(text));
            let _ = (again::<Element>(text), again::<Limits>(text));
        }
        7 => {
            if let Some(shape) = again::<Shape>(text) {
                let again = Shape::new(shape.rows(), shape.classes(), shape.dim()).expect("these sizes");
                assert_eq!(again.with_sub_centers(shape.sub_centers()), Ok(shape));
            }
        }
        8 => {
            let parts: Vec<Targets> = text.lines().filter_map(again).collect();
            let classes = parts.iter().map(|p| p.range.end).max().unwrap_or(0);
            if let Ok(all) = Targets::merged(&parts, classes) {
                assert_eq!(all.range, 0..classes);
            }
        }
        _ => {
            let parts: Vec<Statistics> = text.lines().filter_map(again).collect();
            let classes = parts.iter().map(|p| p.range.end).max().unwrap_or(0);
            if let Ok(all) = Statistics::merged(&parts, classes) {
                assert_eq!(all.range, 0..classes);
            }
        }
    }
}

fuzz_target!(
    init: seeds::write(seeds::objective),
    |data: &[u8]| if let Some((which, text)) = data.split_first()
        && let Ok(text) = std::str::from_utf8(text)
    {
        parse(*which, text);
    }
);

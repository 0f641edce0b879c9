//! The companions of a head, by the crate: penalties, center loss, schedules, monitors. For `tests/browser/companions.mjs`.

use margin_softmax::{
    CenterLoss, Error, MarginSoftmax, Output, Regularizer, Result, Shape,
    data::Counts,
    monitor::{CollapseDetector, CollapseThresholds, Monitor},
    objective::{PRESETS, Ramp, Schedule, Schedules},
    plan::Element,
    reference,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::{Numbers, normal, stored};

/// Values, as f32 and as their bits where they are halves.
fn values(seed: u64, count: usize, element: Element) -> (Vec<f32>, Option<Vec<u16>>) {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    stored((0..count).map(|_| normal(rng)).collect(), element)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

fn thin(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// Value and gradient of penalties.
fn penalties(numbers: &mut Numbers) -> Result<Vec<Value>> {
    let mut all = vec![];
    for (regularizer, [classes, dim], element) in [
        (Regularizer::reg_ss(), [1, 4], Element::F32),
        (Regularizer::reg_ss().with_weight(10.0), [70, 12], Element::F32),
        (Regularizer::reg_ss().with_weight(0.5), [300, 65], Element::Bf16),
        (Regularizer::uniform_face(), [2, 3], Element::F32),
        (Regularizer::uniform_face().with_weight(100.0), [130, 33], Element::F32),
        (Regularizer::uniform_face().with_weight(3.0), [300, 16], Element::F16),
    ] {
        let (prototypes, bits) = values(all.len() as u64, classes * dim, element);
        let found = reference::regularize(&regularizer, dim, &wide(&prototypes))?;
        all.push(json!({
            "regularizer": regularizer,
            "shape": { "classes": classes, "dim": dim },
            "element": element,
            "prototypes": bits.is_none().then(|| numbers.put(&prototypes)),
            "bits": bits.map(|bits| numbers.put(&bits)),
            "value": found.value,
            "gradient": numbers.put(&thin(&found.gradient)),
            // an f32 distance is known to a few 1e-7; its gradient is an average over the classes
            "weight": regularizer.weight(),
        }));
    }
    Ok(all)
}

/// Loss, gradient and moved centers.
fn centers(numbers: &mut Numbers) -> Result<Vec<Value>> {
    let mut all = vec![];
    for (loss, [most, rows, classes, dim], element) in [
        (CenterLoss::default(), [9, 9, 5, 7], Element::F32),
        (CenterLoss { weight: 0.3, rate: 0.7, ignore_index: Some(-1) }, [40, 33, 10, 16], Element::F32),
        (CenterLoss { weight: 2.0, ..Default::default() }, [12, 12, 6, 8], Element::F16),
    ] {
        let seed = 100 + all.len() as u64;
        let (embeddings, bits) = values(seed, rows * dim, element);
        let (centers, _) = values(seed + 50, classes * dim, Element::F32);
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let least = loss.ignore_index.map_or(0, |index| index as i32);
        let labels: Vec<i32> = (0..rows).map(|_| rng.random_range(least..classes as i32)).collect();
        let (x, c) = (wide(&embeddings), wide(&centers));
        let found = reference::center_loss(&loss, dim, &x, &labels, &c)?;
        let mut moved = c.clone();
        reference::update_centers(&loss, dim, &x, &labels, &mut moved)?;
        all.push(json!({
            "loss": loss,
            "shape": { "rows": most, "classes": classes, "dim": dim },
            "element": element,
            "embeddings": bits.is_none().then(|| numbers.put(&embeddings)),
            "bits": bits.map(|bits| numbers.put(&bits)),
            "labels": numbers.put(&labels),
            "centers": numbers.put(&centers),
            "value": found.loss,
            "gradEmbeddings": numbers.put(&thin(&found.grad_embeddings)),
            "moved": numbers.put(&thin(&moved)),
        }));
    }
    Ok(all)
}

/// Every preset under schedules, at steps before, within and after them: the loss, or the name of the error.
fn schedules() -> Vec<Value> {
    let going = |start, end, ramp| Some(Schedule { start, end, from: 10, until: 50, ramp });
    let none = Schedules::default();
    let all = [
        Schedules { m2: going(0.0, 0.3, Ramp::Exponential), scale: going(8.0, 32.0, Ramp::Linear), ..none },
        Schedules { m0: going(1.0, 0.5, Ramp::Linear), m3: going(0.2, 0.0, Ramp::Exponential), ..none },
        Schedules { margin: going(0.0, 0.35, Ramp::Linear), ..none },
        Schedules { m2: going(0.0, 0.2, Ramp::Linear), top_k: Some(0.06), ..none },
        Schedules { scale: going(4.0, -1.0, Ramp::Linear), ..none },
        // beyond 2^53
        Schedules {
            m3: Some(Schedule { start: 0.1, end: 0.4, from: 1 << 60, until: u64::MAX, ramp: Ramp::Linear }),
            ..none
        },
    ];
    let mut cases = vec![];
    for preset in PRESETS {
        for (at, schedules) in all.iter().enumerate() {
            for step in [0_u64, 10, 17, 49, 50, 3 << 61] {
                let mut loss = preset.loss();
                let error = schedules.apply(step, &mut loss).err().map(|error: Error| error.name());
                let expected = error.is_none().then_some(&loss);
                let step = step.to_string();
                cases.push(
                    json!({ "loss": preset.name, "schedules": at, "step": step, "expected": expected, "error": error }),
                );
            }
        }
    }
    // steps as text: JavaScript's own reader would round them
    let texts: Vec<Value> = all
        .iter()
        .map(|schedules| {
            let mut value = json!(schedules);
            for field in ["m0", "m1", "m2", "m3", "margin", "scale"] {
                for step in ["from", "until"] {
                    if let Some(number) = value[field].get(step).map(Value::to_string) {
                        value[field][step] = json!(number);
                    }
                }
            }
            value
        })
        .collect();
    vec![json!({ "schedules": texts, "cases": cases })]
}

/// Batches as a head returns them, in one monitor, and what it reports; then a detector over reports.
fn monitors() -> Result<Value> {
    let rng = &mut ChaCha8Rng::seed_from_u64(7);
    let (bins, ignored) = (9, -100);
    let mut monitor = Monitor::new(bins)?;
    let mut batches = vec![];
    for rows in [1, 5, 40] {
        let labels: Vec<i32> = (0..rows).map(|i| if i % 7 == 6 { ignored } else { i }).collect();
        let counts = |i: usize| labels[i] != ignored;
        let mut cosines = || -> Vec<f32> { (0..rows).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let (mut target_cosines, other_cosines) = (cosines(), cosines());
        // rounded past 1
        target_cosines[0] = 1.0 + f32::EPSILON;
        let row_losses: Vec<f32> = (0..rows).map(|i| if i == 3 { f32::NAN } else { i as f32 }).collect();
        let rows = (0..labels.len()).filter(|&i| counts(i) && i != 3).count();
        let counts = Counts { rows, ..Counts::default() };
        let out = Output { row_losses, target_cosines, other_cosines, counts, ..Output::default() };
        monitor.add(&out, &labels, Some(ignored.into()))?;
        batches.push(json!({
            "labels": labels,
            // JSON has no NaN
            "rowLosses": out.row_losses.iter().map(|&v| (!v.is_nan()).then_some(v)).collect::<Vec<_>>(),
            "targetCosines": out.target_cosines,
            "otherCosines": out.other_cosines,
            "rows": rows,
        }));
    }
    let report = monitor.report();

    let shape = Shape::new(64, 8, 16)?;
    let mut detected = vec![];
    for thresholds in [
        CollapseThresholds::default(),
        CollapseThresholds { warm_up: Some(0), mean_prototype: Some(0.3), target_cosine: 0.1 },
    ] {
        let mut detector = CollapseDetector::new(thresholds, shape)?;
        let reports =
            [(15_000, -0.5, 0.9), (15_000, -0.5, 0.9), (5, 0.05, 0.2), (5, 0.05, 0.4), (0, -0.9, 1.0), (9, 0.2, 1.0)];
        let mut found = vec![];
        for (rows, cosine, length) in reports {
            let mut report = Monitor::new(1)?.report().with_mean_prototype(length);
            (report.rows, report.target_cosine) = (rows, cosine);
            let collapse = detector.check(&report);
            found.push(json!({ "rows": rows, "targetCosine": cosine, "length": length, "collapse": collapse }));
        }
        let CollapseThresholds { target_cosine, mean_prototype, warm_up } = thresholds;
        let thresholds = json!({ "targetCosine": target_cosine, "meanPrototype": mean_prototype, "warmUp": warm_up });
        detected.push(json!({ "thresholds": thresholds, "reports": found }));
    }
    let random = [[2, 3], [8, 3], [60, 32], [1, 5]].map(|[classes, dim]| {
        Ok(json!([classes, dim, CollapseThresholds::random_mean_prototype(Shape::new(1, classes, dim)?)]))
    });
    Ok(json!({
        "bins": bins,
        "ignored": ignored,
        "batches": batches,
        "report": {
            "rows": report.rows,
            "accuracy": report.accuracy,
            "intraAngle": report.intra_angle,
            "interAngle": report.inter_angle,
            "targetCosine": report.target_cosine,
            "intraHistogram": report.intra_histogram,
            "interHistogram": report.inter_histogram,
        },
        "shape": { "classes": 8, "dim": 16 },
        "detected": detected,
        "random": random.into_iter().collect::<Result<Vec<_>>>()?,
    }))
}

/// Prototypes and the length of their mean direction.
fn lengths(numbers: &mut Numbers) -> Result<Vec<Value>> {
    let mut all = vec![];
    for (classes, dim, factor) in [(1, 3, 1.0), (70, 12, 1.0), (9, 5, 1e-30), (9, 5, 1e30), (0, 4, 1.0)] {
        let (mut prototypes, _) = values(200 + all.len() as u64, classes * dim, Element::F32);
        prototypes.iter_mut().for_each(|v| *v *= factor);
        let length = reference::mean_prototype(dim, &wide(&prototypes))?;
        all.push(json!({ "dim": dim, "prototypes": numbers.put(&prototypes), "length": length }));
    }
    Ok(all)
}

/// Everything, as the tests read it.
pub fn entries(numbers: &mut Numbers) -> Result<Value> {
    // the module fills in what is left out of a loss
    let whole = MarginSoftmax::unified(1.0, 1.0, 0.4, 0.0);
    Ok(json!({
        "penalties": penalties(numbers)?,
        "centers": centers(numbers)?,
        "schedules": schedules(),
        "monitor": monitors()?,
        "lengths": lengths(numbers)?,
        "whole": whole,
    }))
}

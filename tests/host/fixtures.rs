//! Files of an earlier version (`fixtures/`): they are read as the same values, and what is written today has every name in
//! them. A name in JSON stays when Rust's changes; a new field or variant comes as a new entry, an old entry is never edited.

use std::{fmt::Debug, fs, path::Path};

use margin_softmax::{
    checkpoint::Checkpoint,
    data::{DevicePreset, MarginGradients},
    monitor::{Collapse, CollapseKind, CollapseThresholds, Monitor, Report},
    objective::{
        AdaFace, Angle, Binary, CenterLoss, Coefficients, Curve, Damping, Elastic, Fallback, InterclassFilter, MagFace,
        Ramp, Regularizer, Schedule, Schedules, Series, SimilarityAdjustment, Slope, TopK, Unified,
    },
    partial::PartialFc,
    plan::{Element, Limits},
    shard::{RowStatistics, Statistics, Targets},
    *,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, from_slice, from_value, json, to_value};

fn bytes(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/fixtures").join(file);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Whether every name and value of `old` is in `new`; names that are only in `new` are younger.
fn holds(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            old.iter().all(|(name, value)| new.get(name).is_some_and(|new| holds(new, value)))
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(new, old)| holds(new, old))
        }
        _ => new == old,
    }
}

#[test]
fn a_lost_name_or_value_is_noticed() {
    let old = json!({"a": {"b": [1, 2]}});
    assert!(holds(&json!({"a": {"b": [1, 2], "c": 3}}), &old));
    for new in [json!({"a": {"c": [1, 2]}}), json!({"a": {"b": [1, 3]}}), json!({"a": {"b": [1]}}), json!({"a": null})]
    {
        assert!(!holds(&new, &old), "{new}");
    }
}

/// A section of a file: an object with these entries.
#[track_caller]
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, section: &str, expected: &[(&str, T)]) {
    let sections: Value = from_slice(&bytes(file)).unwrap();
    let entries = sections[section].as_object().unwrap();
    assert_eq!(entries.len(), expected.len(), "{file}, {section}: entries");
    for (name, value) in expected {
        let entry = &entries[*name];
        let found: T = from_value(entry.clone()).unwrap_or_else(|e| panic!("{section}, {name}: {e}"));
        assert_eq!(found, *value, "{section}, {name}");
        let written = to_value(value).unwrap();
        assert!(holds(&written, entry), "{section}, {name}: written today as {written}, before as {entry}");
    }
}

#[test]
fn presets_are_the_losses_that_they_were() {
    let file: Value = from_slice(&bytes("losses.json")).unwrap();
    let names: Vec<&String> = file["presets"].as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 30);
    let presets: Vec<_> = names.iter().map(|name| (name.as_str(), MarginSoftmax::named(name).unwrap())).collect();
    check("losses.json", "presets", &presets);
}

/// Every variant of every part, and every field away from its default.
#[test]
fn losses_keep_their_names() {
    let series = |degree, coefficients, damping| Curve::Series(Series { degree, coefficients, damping });
    let given = Coefficients::Given(vec![-0.1, 0.1 + 0.2, 1.0 / 3.0]);
    let unified = |fallback| Unified { m0: 0.7, m1: 1.35, m2: 0.3, m3: -0.1, fallback, ..Default::default() };
    let angle = |curve| Angle { factor: 0.6, margin: 0.4, offset: 0.1, curve, slope: Slope::Detached };
    let power = SimilarityAdjustment { exponent: 3, margin: 0.25, angular: true, slope: Slope::Detached };
    let loss = MarginSoftmax {
        target: Target::Unified(unified(Fallback::Continuous)),
        others: Others::Identity,
        similarity: Similarity::Cosine,
        link: Link::Softmax,
        adaptive: Adaptive::None,
        scale: 30.5,
        label_smoothing: 0.1,
        focal: 0.0,
        z_loss: 0.0,
        reduction: Reduction::Mean,
        ignore_index: None,
    };
    let of = |target, others, adaptive| MarginSoftmax { target, others, adaptive, ..loss.clone() };
    let curve = |curve, slope| Target::Unified(Unified { curve, slope, ..unified(Fallback::Clip(1e-3)) });
    check(
        "losses.json",
        "parts",
        &[
            ("plain", loss.clone()),
            (
                "given coefficients",
                MarginSoftmax {
                    reduction: Reduction::None,
                    ignore_index: Some(-100),
                    ..of(curve(series(2, given, Damping::Lanczos), Slope::Detached), Others::Rectified, Adaptive::None)
                },
            ),
            (
                "fitted coefficients",
                MarginSoftmax {
                    reduction: Reduction::Sum,
                    ignore_index: Some(255),
                    ..of(
                        curve(series(7, Coefficients::Fit, Damping::Jackson), Slope::Analytic),
                        Others::Curricular,
                        Adaptive::AdaCos,
                    )
                },
            ),
            (
                "closed coefficients",
                of(
                    Target::Angle(angle(series(9, Coefficients::Closed, Damping::None))),
                    Others::Angle(angle(Curve::Exact)),
                    Adaptive::AdaFace(AdaFace { margin: 0.3, concentration: 0.25, rate: 0.02 }),
                ),
            ),
            (
                "sine",
                of(
                    Target::Unified(unified(Fallback::Sine)),
                    Others::TopK(TopK { count: 7, margin: 0.07 }),
                    Adaptive::MagFace(MagFace {
                        lower_length: 5.0,
                        upper_length: 90.0,
                        lower_margin: 0.2,
                        upper_margin: 0.6,
                        weight: 12.0,
                    }),
                ),
            ),
            (
                "mirror",
                of(
                    Target::Unified(unified(Fallback::Mirror)),
                    Others::InterclassFilter(InterclassFilter { threshold: 0.45 }),
                    Adaptive::Elastic(Elastic { cosine: true, deviation: 0.03, sorted: true }),
                ),
            ),
            ("no fallback", of(Target::Unified(unified(Fallback::None)), Others::Identity, Adaptive::None)),
            ("easy", of(Target::Unified(unified(Fallback::Easy)), Others::Identity, Adaptive::None)),
            (
                "binary",
                MarginSoftmax {
                    link: Link::Binary(Binary { weight: 0.6, factor: 1.5, bias: -2.0 }),
                    ..of(Target::SimilarityAdjustment(power), Others::SimilarityAdjustment(power), Adaptive::None)
                },
            ),
            ("linear", MarginSoftmax { similarity: Similarity::Dot, ..loss.clone() }),
        ],
    );
}

#[test]
fn options_keep_their_names() {
    let want = |grad_embeddings, grad_prototypes, grad_scale, grad_bias| Want {
        grad_embeddings,
        grad_prototypes,
        grad_scale,
        grad_bias,
        grad_margins: None,
    };
    check(
        "options.json",
        "want",
        &[
            ("first", want(true, false, true, false)),
            ("second", want(false, true, false, true)),
            ("margins", Want::LOSS.with_margins(MarginGradients::Classes)),
        ],
    );
    check("options.json", "budget", &[("3 MiB", Budget::mib(3)), ("bytes", Budget::bytes(1_000_001))]);
    check(
        "options.json",
        "tile",
        &[("Direct", Tile::Direct), ("Direct64", Tile::Direct64), ("Tile64", Tile::Tile64), ("Tile128", Tile::Tile128)],
    );
    check(
        "options.json",
        "device_preset",
        &[
            ("Auto", DevicePreset::Auto),
            ("Portable", DevicePreset::Portable),
            ("Desktop", DevicePreset::Desktop),
            ("Software", DevicePreset::Software),
        ],
    );
    check(
        "options.json",
        "element",
        &[
            ("F32", Element::F32),
            ("F16", Element::F16),
            ("Bf16", Element::Bf16),
            ("I32", Element::I32),
            ("U32", Element::U32),
        ],
    );
    check(
        "options.json",
        "shape",
        &[
            ("flat", Shape::new(512, 10_000, 128).unwrap()),
            ("sub-centres", Shape::new(8, 10, 6).and_then(|s| s.with_sub_centers(3)).unwrap()),
        ],
    );
    check(
        "options.json",
        "schedules",
        &[("all", {
            let schedule = |start, ramp| Schedule { start, end: 0.5, from: 100, until: 2000, ramp };
            Schedules {
                m0: Some(schedule(1.0, Ramp::Linear)),
                m1: Some(schedule(1.5, Ramp::Exponential)),
                m2: Some(schedule(0.0, Ramp::Linear)),
                m3: Some(schedule(0.1, Ramp::Linear)),
                margin: Some(schedule(0.2, Ramp::Linear)),
                scale: Some(schedule(30.0, Ramp::Exponential)),
                top_k: Some(0.25),
            }
        })],
    );
    check(
        "options.json",
        "regularizer",
        &[
            ("Reg_ss", Regularizer::reg_ss().with_weight(0.5)),
            ("UniformFace", Regularizer::uniform_face().with_weight(2.0)),
        ],
    );
    check("options.json", "center_loss", &[("all", CenterLoss { weight: 0.003, rate: 0.4, ignore_index: Some(-1) })]);
}

#[test]
fn limits_keep_their_names() {
    check(
        "options.json",
        "limits",
        &[
            ("webgpu", Limits::WEBGPU),
            ("webgpu, fewer fields", Limits::WEBGPU),
            (
                "other",
                Limits {
                    max_buffer: 1 << 32,
                    max_binding: (1 << 31) - 4,
                    max_groups: 60_000,
                    storage_buffers: 10,
                    invocations: 1024,
                    size_x: 512,
                    workgroup_bytes: 48 << 10,
                    alignment: 64,
                    f16: true,
                    software: true,
                    ..Limits::WEBGPU
                },
            ),
        ],
    );
}

const STATE: State = State {
    classes: 3,
    step: (1 << 53) + 1,
    seed: u64::MAX,
    hardness: -1.0 / 3.0,
    norm_mean: 17.625,
    norm_deviation: 0.1 + 0.2,
    scale: 60.1,
};
const SAMPLER: PartialFc = PartialFc { rate: 0.1, seed: 3, step: 1 << 60 };

fn run() -> Checkpoint {
    let prototypes = vec![0.5, -0.25, 1.0 / 3.0, f32::MIN_POSITIVE, 1e-45, -0.0];
    let kept = Checkpoint::new(&STATE).with_sampler(&SAMPLER).with_tensor("prototypes", &[3, 2], prototypes);
    kept.and_then(|kept| kept.with_tensor("a scalar", &[], vec![2.5])).unwrap()
}

#[test]
fn states_keep_their_names() {
    // a state that was broken is read to be refused by its range: JSON has no NaN
    check("state.json", "state", &[("all", STATE), ("infinite scale", State { scale: f64::INFINITY, ..STATE })]);
    check("state.json", "sampler", &[("all", SAMPLER)]);
    check("state.json", "checkpoint", &[("all", run()), ("a state alone", Checkpoint::new(&STATE))]);
}

#[test]
#[cfg(feature = "safetensors")]
fn a_checkpoint_file_is_read() {
    let found = Checkpoint::from_safetensors(&bytes("checkpoint.safetensors")).unwrap();
    assert_eq!(found, run());
    assert_eq!(found.tensor("prototypes", &[3, 2]).unwrap()[5].to_bits(), (-0.0_f32).to_bits());
}

/// The sums that shards on different machines exchange.
#[test]
fn shards_keep_their_names() {
    check(
        "shards.json",
        "targets",
        &[(
            "all",
            Targets {
                range: 2..5,
                cosines: vec![Some(0.25), None],
                top: vec![vec![(0.5, 4), (-0.5, 3)], vec![]],
                top_count: 2,
                sums: vec![[12.5, 1.75], [0.0, 0.0]],
                zero_prototypes: 1,
                non_finite_prototypes: 2,
            },
        )],
    );
    let row = RowStatistics { max_logit: 3.5, sum: 1.25, value_sum: -0.75, weighted: 0.125, nearest: 0.875 };
    check("shards.json", "statistics", &[("all", Statistics { range: 0..7, rows: vec![row, RowStatistics::EMPTY] })]);
}

#[test]
fn reports_keep_their_names() {
    let report = Report {
        rows: 4,
        accuracy: 0.75,
        intra_angle: 1.25,
        inter_angle: 1.5,
        target_cosine: -0.25,
        mean_prototype: Some(0.4),
        intra_histogram: vec![1, 3],
        inter_histogram: vec![0, 4],
    };
    check(
        "monitor.json",
        "report",
        &[("all", report.clone()), ("empty", Report { mean_prototype: None, ..report.clone() })],
    );
    let thresholds = CollapseThresholds { target_cosine: -0.1, mean_prototype: Some(0.3), warm_up: Some(500) };
    let of = |kind| Collapse { kind, mean_prototype: Some(0.9), target_cosine: -0.5, thresholds };
    check(
        "monitor.json",
        "collapse",
        &[("repelled", of(CollapseKind::Repelled)), ("collapsed", of(CollapseKind::Collapsed))],
    );
    let monitors: Value = from_slice(&bytes("monitor.json")).unwrap();
    let monitor = from_value::<Monitor>(monitors["monitor"]["all"].clone()).unwrap();
    check("monitor.json", "monitor", &[("all", monitor.clone())]);
    assert_eq!(monitor.report(), Report { mean_prototype: None, ..report });
}

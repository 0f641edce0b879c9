//! Losses as JSON: whole, partial, misspelt.

use margin_softmax::{
    data::DevicePreset,
    objective::{
        AdaFace, Binary, Coefficients, Curve, Damping, Fallback, InterclassFilter, MagFace, PRESETS, Series, Slope,
        TopK, Unified,
    },
    shard::{Statistics, Targets},
    *,
};
use serde_json::{Value, from_str, json, to_string, to_value};

use crate::{common::*, problems::*};

fn parse(text: &str) -> MarginSoftmax {
    from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Every preset, and every field away from its default, bit for bit.
#[test]
fn every_loss_survives_a_round_trip() {
    let given = Series {
        degree: 2,
        coefficients: Coefficients::Given(vec![-0.1, 0.1 + 0.2, 1.0 / 3.0]),
        damping: Damping::Lanczos,
    };
    let fit = Series { coefficients: Coefficients::Fit, ..series(7, Damping::Jackson) };
    let rich = [given, fit].map(|series| MarginSoftmax {
        target: Target::Unified(Unified {
            curve: Curve::Series(series),
            slope: Slope::Detached,
            fallback: Fallback::Clip(1e-3),
            ..unified(0.7, 1.35, 0.3, -0.1)
        }),
        others: Others::Rectified,
        scale: 30.5,
        label_smoothing: 0.1,
        reduction: Reduction::None,
        ignore_index: Some(-100),
        ..Default::default()
    });
    let listed = every_margin().into_iter().map(loss_of);
    for loss in PRESETS.iter().map(|preset| preset.loss()).chain(rich).chain(listed) {
        let text = to_string(&loss).unwrap();
        assert_eq!(parse(&text), loss, "{text}");
    }
}

/// The names in a message, in a shader and in JSON are one.
#[test]
fn variants_are_called_by_their_names() {
    for others in Others::all() {
        let value = to_value(&others).unwrap();
        assert!(value == others.name() || value.get(others.name()).is_some(), "{value}");
    }
    for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None] {
        assert_eq!(to_value(reduction).unwrap(), reduction.name());
    }
    for fallback in FALLBACKS {
        let value = to_value(fallback).unwrap();
        assert!(value == fallback.name() || value.get(fallback.name()).is_some(), "{value}");
    }
    for tile in Tile::ALL {
        assert_eq!(
            json!([to_value(tile).unwrap()]).to_string().replace('_', ""),
            format!("[\"{}\"]", tile.name().replace('_', ""))
        );
    }
    let target = Target::Unified(Unified::default());
    assert!(to_value(&target).unwrap().get(target.name()).is_some());
}

/// What is left out has its default, at every level.
#[test]
fn absent_fields_have_their_defaults() {
    assert_eq!(parse("{}"), MarginSoftmax::default());
    assert_eq!(parse(r#"{"target": {"unified": {}}}"#), MarginSoftmax::normface());
    assert_eq!(parse(r#"{"target": {"unified": {"m2": 0.5}}}"#), MarginSoftmax::arcface());
    assert_eq!(
        parse(r#"{"target": {"unified": {"m2": 0.2, "curve": {"series": {}}}}, "scale": 30}"#),
        MarginSoftmax::cheby_aam()
    );
    assert_eq!(parse(r#"{"ignore_index": -100}"#), MarginSoftmax::default().with_ignore_index(-100));
    let clipped = r#"{"target": {"unified": {"m2": 0.5, "fallback": {"clip": 0.001}, "slope": "detached"}}}"#;
    let expected = |m: &mut Unified| (m.fallback, m.slope) = (Fallback::Clip(1e-3), Slope::Detached);
    assert_eq!(parse(clipped), MarginSoftmax::arcface().with_margin(expected));
}

/// A misspelt field or variant is refused by name, with the names that exist.
#[test]
fn unknown_names_are_refused() {
    for (text, found, known) in [
        (r#"{"sclae": 30}"#, "sclae", "scale"),
        (r#"{"target": {"unified": {"m4": 1}}}"#, "m4", "m3"),
        (r#"{"target": {"unified": {"curve": {"series": {"n": 30}}}}}"#, "`n`", "degree"),
        (r#"{"target": {"arcgard": {}}}"#, "arcgard", "unified"),
        (r#"{"target": {"unified": {"curve": "exactly"}}}"#, "exactly", "series"),
        (r#"{"target": {"unified": {"fallback": "Sine"}}}"#, "Sine", "sine"),
        (r#"{"target": {"unified": {"slope": "exact"}}}"#, "exact", "analytic"),
        (r#"{"others": "relu"}"#, "relu", "rectified"),
        (r#"{"reduction": "average"}"#, "average", "mean"),
    ] {
        let message = from_str::<MarginSoftmax>(text).expect_err(text).to_string();
        assert!(message.contains(found) && message.contains(known), "{text}: {message}");
    }
}

/// Reading checks names and types; ranges are checked where the loss is used, with the usual error.
#[test]
fn a_range_is_checked_on_use() {
    let loss = parse(r#"{"scale": -1}"#);
    assert!(matches!(loss.validate(), Err(Error::Parameter { what: "scale", .. })));
    for text in [r#"{"scale": "30"}"#, r#"{"scale": null}"#, r#"{"target": {"unified": {"m2": [0.5]}}}"#, "[]x", "7"] {
        assert!(from_str::<MarginSoftmax>(text).is_err(), "{text}");
    }
}

/// Sizes come through the same checks as from `Shape::new`: nothing else may make a shape.
#[test]
fn a_shape_from_json_is_checked() {
    let shape = Shape::new(3, 5, 7).unwrap();
    let text = to_string(&shape).unwrap();
    assert_eq!(from_str::<Shape>(&text).unwrap(), shape);
    for (field, size) in [("classes", 0_u64), ("dim", 0), ("rows", 1 << 31), ("classes", 1 << 40), ("dim", 1 << 30)] {
        let mut value: Value = from_str(&text).unwrap();
        value[field] = size.into();
        assert!(serde_json::from_value::<Shape>(value.clone()).is_err(), "{value} was accepted");
    }
}

/// The other plain data.
#[test]
fn options_survive_a_round_trip() {
    for want in [Want::ALL, Want::LOSS, Want::EMBEDDINGS, Want::PROTOTYPES] {
        assert_eq!(from_str::<Want>(&to_string(&want).unwrap()).unwrap(), want);
    }
    for tile in Tile::ALL {
        assert_eq!(from_str::<Tile>(&to_string(tile).unwrap()).unwrap(), *tile);
    }
    for preset in DevicePreset::ALL {
        assert_eq!(from_str::<DevicePreset>(&to_string(preset).unwrap()).unwrap(), *preset);
        assert_eq!(to_value(preset).unwrap(), preset.name());
    }
    let message = from_str::<DevicePreset>("\"laptop\"").unwrap_err().to_string();
    assert!(message.contains("laptop") && message.contains("portable"), "{message}");
    let budget = Budget::mib(3);
    assert_eq!(from_str::<Budget>(&to_string(&budget).unwrap()).unwrap().get(), 3 << 20);
}

/// Every family, and each of its parts, bit for bit.
#[test]
fn every_family_survives_a_round_trip() {
    for (name, loss) in families() {
        if matches!(loss.target, Target::Custom(_)) || matches!(loss.others, Others::Custom(_)) {
            let message = to_string(&loss).expect_err(&name).to_string();
            assert!(message.contains("Custom"), "{message}");
        } else {
            assert_eq!(parse(&to_string(&loss).unwrap()), loss, "{name}");
        }
    }
}

/// Curves from outside have no JSON form: refused by their name, with the names that have one.
#[test]
fn custom_curves_are_refused_by_name() {
    for text in [
        r#"{"target": {"custom": {}}}"#,
        r#"{"target": "custom"}"#,
        r#"{"target": {"Custom": {}}}"#,
        r#"{"others": "custom"}"#,
    ] {
        let message = from_str::<MarginSoftmax>(text).unwrap_err().to_string();
        assert!(message.to_lowercase().contains("`custom`") && message.contains("power"), "{message}");
    }
}

/// Misspelt fields and variants of every part, by name, with the names that exist.
#[test]
fn unknown_names_of_every_family_are_refused() {
    for (text, found, known) in [
        (r#"{"target": {"angle": {"factr": 1}}}"#, "factr", "factor"),
        (r#"{"target": {"angle": {"curve": {"series": {"deg": 3}}}}}"#, "deg", "degree"),
        (r#"{"target": {"power": {"t": 3}}}"#, "`t`", "exponent"),
        (r#"{"target": {"power": {"slope": "none"}}}"#, "none", "detached"),
        (r#"{"others": {"topk": {}}}"#, "topk", "top_k"),
        (r#"{"others": {"top_k": {"k": 5}}}"#, "`k`", "count"),
        (r#"{"others": {"filter": {"above": 0.4}}}"#, "above", "threshold"),
        (r#"{"others": {"curricular": {"t": 0}}}"#, "", ""),
        (r#"{"others": {"mv_softmax": {"t": 0.2}}}"#, "`t`", "weight"),
        (r#"{"others": {"arcneg": {"alpha": 1.2}}}"#, "alpha", "factor"),
        (r#"{"product": "euclidean"}"#, "euclidean", "linear"),
        (r#"{"link": {"binary": {"lambda": 0.7}}}"#, "lambda", "weight"),
        (r#"{"link": "sigmoid"}"#, "sigmoid", "binary"),
        (r#"{"adaptive": {"ada_face": {}}}"#, "ada_face", "adaface"),
        (r#"{"adaptive": {"adaface": {"h": 0.3}}}"#, "`h`", "concentration"),
        (r#"{"adaptive": {"magface": {"lambda": 35}}}"#, "lambda", "weight"),
        (r#"{"adaptive": {"elastic": {"std": 0.05}}}"#, "std", "deviation"),
        (r#"{"adaptive": {"length": {"upper": 10}}}"#, "upper", "upper_length"),
        (r#"{"adaptive": "ada_cos"}"#, "ada_cos", "adacos"),
    ] {
        let message = from_str::<MarginSoftmax>(text).expect_err(text).to_string();
        assert!(message.contains(found) && message.contains(known), "{text}: {message}");
    }
    for text in [r#"{"target": {"power": {"exponent": -1}}}"#, r#"{"target": {"power": {"exponent": 2.5}}}"#] {
        assert!(from_str::<MarginSoftmax>(text).is_err(), "{text}");
    }
}

/// The names in messages and in JSON are one; absent fields have their defaults.
#[test]
fn parts_are_called_by_their_names() {
    let named = |value: Value, name: &str| assert!(value == name || value.get(name).is_some(), "{value} {name}");
    for (_, loss) in families() {
        if !matches!(loss.target, Target::Custom(_)) {
            named(to_value(&loss.target).unwrap(), loss.target.name());
        }
        if !matches!(loss.others, Others::Custom(_)) {
            named(to_value(&loss.others).unwrap(), loss.others.name());
        }
        named(to_value(loss.similarity).unwrap(), loss.similarity.name());
        named(to_value(loss.link).unwrap(), loss.link.name());
        named(to_value(loss.adaptive).unwrap(), loss.adaptive.name());
    }
    assert_eq!(parse(r#"{"adaptive": {"magface": {}}}"#).adaptive, Adaptive::MagFace(MagFace::default()));
    assert_eq!(parse(r#"{"adaptive": {"adaface": {"margin": 0.4}}}"#).adaptive, Adaptive::AdaFace(AdaFace::default()));
    assert_eq!(parse(r#"{"link": {"binary": {}}}"#).link, Link::Binary(Binary::default()));
    assert_eq!(parse(r#"{"others": {"filter": {}}}"#).others, Others::InterclassFilter(InterclassFilter::default()));
    assert_eq!(parse(r#"{"adaptive": "adacos"}"#), MarginSoftmax::adacos());
}

/// A run that goes on from a state in JSON continues bit for bit.
#[test]
fn a_state_survives_a_round_trip() {
    let mut rng = random(80);
    for (name, loss) in families() {
        let mut problem = random_problem(&mut rng, &loss);
        problem.train();
        let text = to_string(&problem.state).unwrap();
        let state: State = from_str(&text).unwrap();
        assert_eq!(state, problem.state, "{name}: {text}");
        let mut resumed = Problem { state, ..problem.clone() };
        assert_eq!((resumed.train(), resumed.state), (problem.train(), problem.state), "{name}");
    }
    let shape = Shape::new(1, 3, 2).unwrap();
    let text = to_string(&State::new(&MarginSoftmax::arcface(), shape).unwrap()).unwrap();
    let mut value: Value = from_str(&text).unwrap();
    value["momentum"] = 0.into();
    assert!(serde_json::from_value::<State>(value).unwrap_err().to_string().contains("momentum"));
    let mut value: Value = from_str(&text).unwrap();
    value.as_object_mut().unwrap().remove("hardness");
    assert!(serde_json::from_value::<State>(value).unwrap_err().to_string().contains("hardness"));
}

/// What shards exchange.
#[test]
fn shards_survive_a_round_trip() {
    for loss in [MarginSoftmax::named("arcface_topk").unwrap(), MarginSoftmax::adacos(), MarginSoftmax::sphereface2()] {
        let problem = random_problem(&mut random(81), &loss);
        let all = 0..problem.classes();
        let shard = reference::Shard::new(&problem.loss, problem.shape, all, &problem.batch(), &problem.state).unwrap();
        let targets = shard.targets(&problem.state);
        let sums = shard.statistics(&targets, &problem.state).unwrap();
        assert_eq!(from_str::<Targets>(&to_string(&targets).unwrap()).unwrap(), targets);
        assert_eq!(from_str::<Statistics>(&to_string(&sums).unwrap()).unwrap(), sums);
    }
}

/// A shard that holds a row's label and no other class, and an ignored row, on every path over slices: no infinity.
#[test]
fn small_shards_survive_a_round_trip() {
    let backends = [
        Backend::reference(),
        #[cfg(feature = "cpu")]
        Backend::cpu(),
    ];
    let (x, w, y) = ([1.0, 0.5, -0.5, 0.25], [0.3, 0.4, -1.0, 0.2, 0.9, 0.1], [0, -1]);
    for loss in [MarginSoftmax::named("arcface_topk").unwrap(), MarginSoftmax::adacos(), MarginSoftmax::sphereface2()] {
        let loss = match loss.others {
            Others::TopK(top) => loss.clone().with_others(Others::TopK(TopK { count: 2, ..top })),
            _ => loss,
        };
        let loss = loss.with_ignore_index(-1);
        let shape = Shape::new(2, 3, 2).unwrap();
        for backend in &backends {
            let (mut heads, mut parts) = (vec![], vec![]);
            for range in [0..1, 1..3] {
                let mut head = backend.shard(&loss, shape, range.clone(), &Default::default()).unwrap();
                let batch = Batch {
                    embeddings: &x,
                    prototypes: &w[2 * range.start..2 * range.end],
                    labels: &y,
                    ..Default::default()
                };
                let targets = head.targets(&batch).unwrap();
                assert_eq!(from_str::<Targets>(&to_string(&targets).unwrap()).unwrap(), targets);
                parts.push(targets);
                heads.push((head, batch));
            }
            let all = Targets::merged(&parts, 3).unwrap();
            for (head, batch) in &mut heads {
                let sums = head.statistics(batch, &all).unwrap();
                assert_eq!(from_str::<Statistics>(&to_string(&sums).unwrap()).unwrap(), sums);
            }
        }
    }
}

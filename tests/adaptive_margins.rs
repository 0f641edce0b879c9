//! The example `adaptive_margins`: margins move where the formula says, and the report has all of it.
#![cfg(feature = "cpu")]

#[path = "../examples/common/mod.rs"]
#[allow(dead_code)] // the pages use the rest
mod common;
#[path = "../examples/adaptive_margins/experiment.rs"]
mod experiment;
#[path = "../examples/adaptive_margins/report.rs"]
mod report;

use experiment::{CLASSES, Kind, PROPORTIONS, Plan, Results, Run, START};
use margin_softmax::Backend;

fn plan(kind: Kind, lambdas: &[f64]) -> Plan {
    Plan { kind, lambdas: lambdas.into(), epochs: 100, repeats: 1, seed: 1 }
}

fn margins(run: &Run) -> Vec<f64> {
    (0..CLASSES).map(|class| run.margin(class)).collect()
}

/// Without λ margins only fall, with a λ far above the scale they only grow; in between the rare classes have the larger ones, and the
/// classes with many images leave to others what the formula says.
#[test]
fn rare_classes_learn_larger_margins() {
    let results = Results::measure(&Backend::cpu(), plan(Kind::Cosine, &[0.0, 10.0, 1000.0])).unwrap();
    let [fixed, none, some, much] = &results.variants[..] else { panic!("four variants") };
    assert!(fixed.runs[0].margins.iter().flatten().all(|&m| m == f64::from(START)));
    assert!(margins(&none.runs[0]).iter().all(|&m| m < f64::from(START)), "{:?}", margins(&none.runs[0]));
    assert!(margins(&much.runs[0]).iter().all(|&m| m > 0.95), "{:?}", margins(&much.runs[0]));
    let learned = margins(&some.runs[0]);
    let mean = |margins: &[f64]| margins.iter().sum::<f64>() / margins.len() as f64;
    assert!(mean(&learned[3..]) > mean(&learned[..3]) + 0.1 && learned.iter().all(|&m| m > 0.4), "{learned:?}");
    for class in 0..3 {
        let (found, rest) = (some.runs[0].wrong[class], results.rest(10.0, class));
        assert!((found / rest - 1.0).abs() < 0.5, "class {class}: {found}, not {rest}");
    }
    for variant in &results.variants {
        let right = variant.runs[0].accuracy(&[0, 1, 2]);
        assert!(right > 0.85, "{}: {right}", variant.title());
    }

    // the data has the proportions
    let one = results.counts[0] as f64 / 8.0;
    for (count, eighths) in results.counts.into_iter().zip(PROPORTIONS) {
        assert!((count as f64 - one * eighths as f64).abs() < 0.1 * one * eighths as f64 + 1.0, "{:?}", results.counts);
    }

    let (page, json) = (report::html(&results).unwrap(), report::json(&results));
    let tables = report::tables(&results);
    assert_eq!(tables.iter().map(|(_, _, rows)| rows.len()).collect::<Vec<_>>(), [CLASSES, 4, CLASSES]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["variants"][2]["lambda"], 10.0);
    assert!(results.variants.iter().all(|variant| page.contains(&variant.title())));
    assert!(report::protocol(&results).contains("100 epochs"));
}

/// The angle's margin is learned as well, and a seed repeats its run bit for bit.
#[test]
fn the_angle_is_learned_too_and_runs_repeat() {
    let run = || Results::measure(&Backend::cpu(), Plan { epochs: 20, ..plan(Kind::Angle, &[30.0]) }).unwrap();
    let (first, again) = (run(), run());
    let [one, two] = [&first, &again].map(|results| &results.variants[1].runs[0]);
    assert_eq!((&one.margins, one.right, one.wrong), (&two.margins, two.right, two.wrong));
    assert!(margins(one).iter().any(|&m| m > f64::from(START)) && margins(one).iter().all(|m| (0.0..=1.0).contains(m)));
    assert!(
        experiment::lambda("-1").is_err() && experiment::lambda("many").is_err() && experiment::lambda("NaN").is_err()
    );
}

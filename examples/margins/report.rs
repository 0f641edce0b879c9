//! One HTML page that needs nothing else, and all numbers as JSON.

use std::fmt::Write;

use margin_softmax::theory::Criterion;
use serde_json::{Value, json};

use crate::{
    common::{Result, page},
    experiments::{CERTAIN, DIM, FALLBACKS, REMEDIES, Results, SCALE, Setting, Sweep},
    sections,
    tables::{self, Sheet},
    training::Outcome,
};

const TITLE: &str = "Margins, measured and predicted";

/// The page.
pub fn html(results: &Results) -> Result<String> {
    let mut body = format!("<h1>{TITLE}</h1>\n");
    writeln!(
        body,
        "<p>The experiments of <em>Unifying Margin-Based Softmax Losses in Face Recognition</em> (WACV 2023), on synthetic \
         voices in the place of faces.</p>\n<p class=\"device\">{}.</p>",
        page::escape(&tables::protocol(results))
    )?;
    let sheets = tables::all(results)?;
    let mut sheets = sheets.iter();
    let mut next = |body: &mut String| -> Result { sheets.next().map_or(Ok(()), |sheet| section(body, sheet)) };
    for sweep in &results.sweeps {
        next(&mut body)?;
        sections::sweep(&mut body, results, sweep)?;
    }
    if !results.remedies.is_empty() {
        next(&mut body)?;
        sections::remedies(&mut body, results)?;
        next(&mut body)?;
    }
    if !results.table2.is_empty() {
        next(&mut body)?;
    }
    if !results.collapse.is_empty() {
        next(&mut body)?;
        sections::spheres(&mut body, results)?;
    }
    next(&mut body)?;
    Ok(page::page(TITLE, &body, FOOTER))
}

fn section(body: &mut String, sheet: &Sheet) -> Result {
    writeln!(body, "<h2>{}</h2>\n<p>{}</p>", sheet.title, sheet.text)?;
    let header: Vec<&str> = sheet.header.iter().map(String::as_str).collect();
    page::table(body, &header, &sheet.rows, |_| None)?;
    for note in &sheet.notes {
        writeln!(body, "<p>{}</p>", page::escape(note))?;
    }
    Ok(())
}

/// Every run's numbers, one entry per repeat; angles in radians.
fn runs(outcomes: &[Outcome]) -> Value {
    let one = |outcome: &Outcome| {
        let seen = |seen: &crate::training::Seen| {
            json!({"accuracy": seen.accuracy, "intra_angle": seen.intra, "inter_angle": seen.inter,
                "target_cosine": seen.target_cosine})
        };
        json!({"train": seen(&outcome.train), "test": seen(&outcome.test), "eer": outcome.eer,
            "min_detection_cost": outcome.min_cost, "mean_nearest_angle": outcome.nearest.mean,
            "least_nearest_angle": outcome.nearest.least, "mean_prototype": outcome.mean_prototype,
            "first_warning": outcome.warned})
    };
    outcomes.iter().map(one).collect()
}

/// Everything as JSON.
pub fn json(results: &Results) -> Result<String> {
    let setting = Setting::new(results.data.classes, DIM, SCALE)?;
    let sweep = |Sweep { margin, points }: &Sweep| -> Result<Value> {
        let mut all = Vec::new();
        for (value, outcomes) in points {
            let stop = setting.stop(margin, *value, Criterion::Probability(CERTAIN))?;
            let [angle, within] = [0, 1].map(|k| stop.map(|stop| stop[k]));
            all.push(json!({"value": value, "termination_angle": angle, "mean_angle_within": within, "runs": runs(outcomes)}));
        }
        Ok(json!({"margin": margin.name, "predicted": setting.optimum(margin)?, "values": all}))
    };
    let sweeps = results.sweeps.iter().map(sweep).collect::<Result<Vec<_>>>()?;
    let grid = |name: &str, all: &[(f64, Vec<Vec<Outcome>>)], columns: &[&str]| -> Value {
        let row = |(value, outcomes): &(f64, Vec<Vec<Outcome>>)| {
            let cells: serde_json::Map<String, Value> =
                columns.iter().zip(outcomes).map(|(title, outcomes)| (title.to_string(), runs(outcomes))).collect();
            json!({name: value, "runs": cells})
        };
        all.iter().map(row).collect()
    };
    let list = |all: &crate::experiments::Runs| -> Value {
        all.iter().map(|(job, outcomes)| json!({"loss": job.title, "runs": runs(outcomes)})).collect()
    };
    let all = json!({
        "protocol": tables::protocol(results),
        "nearest_prototype_angle": setting.nearest,
        "sweeps": sweeps,
        "remedies": grid("m0", &results.remedies, &REMEDIES),
        "table2": list(&results.table2),
        "collapse": list(&results.collapse),
        "curve": grid("m1", &results.curve, &FALLBACKS.map(|(name, _)| name)),
    });
    Ok(format!("{all:#}\n"))
}

const FOOTER: &str = "Voices: made with espeak-ng from Debian, see examples/data/README.md. Predictions:
margin_softmax::theory.";

//! The results as tables and as JSON.

use serde_json::{Value, json};

use crate::{
    claims::{self, HARD, NEAR, Slopes},
    common::{Result, runs::mean_deviation},
    experiments::{Results, Runs},
    losses::{DAMPINGS, Kind, SCALE, Setting},
    trial::{BATCH, DIM, EXTREMES, Errors, HIDDEN, RATE},
    vowels,
};

/// A title, a header and rows.
pub struct Sheet {
    pub title: &'static str,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

fn sheet(title: &'static str, header: &[&str], rows: Vec<Vec<String>>) -> Sheet {
    Sheet { title, header: header.iter().map(|cell| cell.to_string()).collect(), rows }
}

/// All of them, in the order of the page.
pub fn all(results: &Results) -> Result<Vec<Sheet>> {
    let margin = results.plan.margins[0];
    Ok(vec![
        compared(results)?,
        degrees(results)?,
        scales(results)?,
        extremes(results)?,
        near(margin),
        far_end(margin),
        hard(margin),
        threshold(results),
        learned(results)?,
        real(results),
    ])
}

/// How it was measured, for people.
pub fn protocol(results: &Results) -> String {
    let plan = &results.plan;
    let warned: usize = results.runs.iter().map(|runs| runs.warned).sum();
    let last = plan.seed.wrapping_add(plan.repeats as u64 - 1);
    format!(
        "60 voices trained, all pairs of the utterances of 38 others; a network of {HIDDEN} ReLUs and {DIM} outputs, {} epochs of \
         Adam in batches of {BATCH}, rate {RATE} falling to 0; margin 0 to m between 2/7 and 5/7 of the run; seeds {} to {last}; \
         {warned} of {} runs with a collapse warning; heads: {}",
        plan.epochs,
        plan.seed,
        results.runs.len() * plan.repeats,
        results.device
    )
}

/// Mean and deviation of differences.
pub fn signed_spread(values: Vec<f64>) -> String {
    let text = spread(values, 3).replace('-', "−");
    if text.starts_with('−') { text } else { format!("+{text}") }
}

/// Mean and deviation with some places.
pub fn spread(values: impl IntoIterator<Item = f64>, places: usize) -> String {
    let values: Vec<f64> = values.into_iter().collect();
    match mean_deviation(&values) {
        (mean, Some(deviation)) => format!("{mean:.places$} ± {deviation:.places$}"),
        (mean, None) => format!("{mean:.places$}"),
    }
}

pub fn number(value: f64, places: usize) -> String {
    format!("{value:.places$}").replace('-', "−")
}

fn error_cells(errors: &[Errors]) -> [String; 2] {
    [spread(errors.iter().map(|e| e.eer), 2), spread(errors.iter().map(|e| e.min_dcf), 3)]
}

fn compared(results: &Results) -> Result<Sheet> {
    let row = |title: String, errors: &[Errors], difference: String| -> Vec<String> {
        [title].into_iter().chain(error_cells(errors)).chain([difference]).collect()
    };
    let mut rows = vec![
        row("features, untrained".into(), &[results.raw], "–".into()),
        row("random network, untrained".into(), &results.untrained, "–".into()),
    ];
    for setting in results.plan.compared() {
        let difference = match setting.kind {
            Kind::NormFace | Kind::Aam => "–".into(),
            _ => signed_spread(results.beyond_aam(&setting)?),
        };
        rows.push(row(setting.title(), &results.of(&setting)?.errors, difference));
    }
    let header = ["loss, margin", "EER, %", "minDCF (0.01)", "EER less that of AAM, same m and seed"];
    Ok(sheet("Unseen voices", &header, rows))
}

/// A row per damping and margin, a column per degree.
fn degrees(results: &Results) -> Result<Sheet> {
    let plan = &results.plan;
    let mut header = vec!["damping".to_string(), "margin".into()];
    header.extend(plan.degrees.iter().map(|degree| format!("n = {degree}")));
    let mut rows = vec![];
    for &margin in &plan.margins {
        for (damping, name) in DAMPINGS.iter().filter(|(damping, _)| plan.dampings.contains(damping)) {
            let mut row = vec![name.to_string(), margin.to_string()];
            for &degree in &plan.degrees {
                let runs = results.of(&Setting::damped(margin, degree, *damping))?;
                row.push(spread(runs.errors.iter().map(|e| e.eer), 2));
            }
            rows.push(row);
        }
    }
    Ok(Sheet { title: "ChebyAAM: EER over degree, damping and margin, %", header, rows })
}

fn scales(results: &Results) -> Result<Sheet> {
    let plan = &results.plan;
    let mut header = vec!["loss, margin".to_string()];
    header.extend(plan.scales.iter().map(|scale| format!("s = {scale}")));
    let row = |setting: Setting| -> Result<Vec<String>> {
        let mut row = vec![setting.title()];
        for &scale in &plan.scales {
            row.push(spread(results.of(&setting.clone().with_scale(scale))?.errors.iter().map(|e| e.eer), 2));
        }
        Ok(row)
    };
    let rows = plan.scaled().into_iter().map(row).collect::<Result<_>>()?;
    Ok(Sheet { title: "EER over the scale, %", header, rows })
}

fn extremes(results: &Results) -> Result<Sheet> {
    let header =
        ["loss, margin", "scale", EXTREMES[0], EXTREMES[1], EXTREMES[2], EXTREMES[3], "least cos", "largest cos"];
    let row = |setting: Setting| -> Result<Vec<String>> {
        let Runs { largest, cosines: [low, high], .. } = results.of(&setting)?;
        let places = [2, 1, 1, 2];
        let cells = (0..4).map(|k| spread(largest.iter().map(|values| values[k]), places[k]));
        let ends = [low, high].map(|&cosine| number(cosine.into(), 3));
        Ok([setting.title(), setting.scale.to_string()].into_iter().chain(cells).chain(ends).collect())
    };
    let plan = &results.plan;
    let [_, aam, cheby] = plan.scaled();
    let other_scales = plan.scales.iter().filter(|scale| **scale != SCALE);
    let scaled = other_scales.flat_map(|&scale| [&aam, &cheby].map(|setting| setting.clone().with_scale(scale)));
    let rows = plan.compared().into_iter().chain(scaled).map(row).collect::<Result<_>>()?;
    Ok(sheet("The largest values of a whole run", &header, rows))
}

/// Slope and pull at each angle.
fn at(title: &'static str, margin: f64, angles: &[f64]) -> Sheet {
    let header = [format!("curve, m = {margin}")].into_iter().chain(angles.iter().map(|angle| format!("{angle}°")));
    let header = header.collect();
    let row = |Slopes { title, slopes, pulls }: Slopes| {
        let slope = |value: f64| number(value, if value.abs() < 100.0 { 3 } else { 0 });
        let cells = slopes.iter().zip(&pulls).map(|(&s, &pull)| format!("{} / {}", slope(s), number(pull, 3)));
        [title].into_iter().chain(cells).collect()
    };
    Sheet { title, header, rows: claims::at_angles(margin, angles).into_iter().map(row).collect() }
}

fn near(margin: f64) -> Sheet {
    at("Near the prototype: dφ/dcos / −dφ/dθ", margin, &NEAR)
}

fn hard(margin: f64) -> Sheet {
    at("Hard examples: dφ/dcos / −dφ/dθ", margin, &HARD)
}

fn far_end(margin: f64) -> Sheet {
    let ends = claims::at_the_far_end(margin).into_iter();
    let rows = ends.map(|(title, slopes)| [title].into_iter().chain(slopes.map(|s| number(s, 3))).collect()).collect();
    let header = ["curve", "dφ/dcos at −1, fallback continuous", "dφ/dcos at −1, no fallback"];
    sheet("Opposite to the prototype", &header, rows)
}

fn threshold(results: &Results) -> Sheet {
    let mut header = vec!["curve".to_string()];
    let mut rows: Vec<Vec<String>> = vec![];
    for &margin in &results.plan.margins {
        header.push(format!("m = {margin}"));
        for (i, (title, slope)) in claims::at_the_threshold(margin).into_iter().enumerate() {
            if rows.len() <= i {
                rows.push(vec![title]);
            }
            rows[i].push(number(slope, 4));
        }
    }
    Sheet { title: "dφ/dcos just above the threshold", header, rows }
}

fn learned(results: &Results) -> Result<Sheet> {
    let mut rows = vec![];
    for &margin in &results.plan.margins {
        if let Some(at) = claims::learned(margin)? {
            let cells = [(at.margin, 1), (at.angle, 1), (at.exact, 3), (at.series, 3)];
            let angle = |angle: Option<f64>| angle.map_or("–".into(), |angle| number(angle, 1));
            let others = [at.normface, at.squashed].map(angle);
            rows.push(cells.map(|(value, places)| number(value, places)).into_iter().chain(others).collect());
        }
    }
    let header =
        ["margin", "AAM, °", "dφ/dcos of AAM there", "dφ/dcos of ChebyAAM there", "NormFace, °", "squash 2, °"];
    Ok(sheet("Where P(label) reaches 0.95 at VoxCeleb's size", &header, rows))
}

fn real(results: &Results) -> Sheet {
    let known = &results.vowels;
    let mut rows = vec![vec!["nearest mean, untrained".into(), number(known.untrained, 2)]];
    rows.extend(known.accuracies.iter().map(|(setting, all)| vec![setting.title(), spread(all.iter().copied(), 2)]));
    sheet("Nine real speakers, closed set", &["loss, margin", "accuracy, %"], rows)
}

/// Everything as JSON.
pub fn json(results: &Results) -> String {
    let errors = |errors: &Errors| json!({"eer": errors.eer, "min_dcf": errors.min_dcf});
    let runs = results.runs.iter().map(|runs| {
        let largest = runs.largest.iter().map(|values| json!(values));
        json!({
            "loss": runs.setting.title(),
            "margin": runs.setting.margin,
            "scale": runs.setting.scale,
            "runs": runs.errors.iter().map(errors).collect::<Vec<_>>(),
            "largest": largest.collect::<Vec<_>>(),
            "cosines": runs.cosines,
            "collapse_warnings": runs.warned,
        })
    });
    let traces = results.plan.traced().into_iter().filter_map(|setting| {
        let runs = results.of(&setting).ok()?;
        Some(json!({"loss": setting.title(), "steps": runs.steps}))
    });
    let vowels = results.vowels.accuracies.iter();
    let vowels = vowels.map(|(setting, all)| json!({"loss": setting.title(), "accuracy": all}));
    let sheets = all(results).unwrap_or_default();
    let claims = sheets.iter().skip(4).take(5).map(|s| json!({"title": s.title, "header": s.header, "rows": s.rows}));
    let value: Value = json!({
        "protocol": protocol(results),
        "extremes": EXTREMES,
        "features": errors(&results.raw),
        "untrained": results.untrained.iter().map(errors).collect::<Vec<_>>(),
        "losses": runs.collect::<Vec<_>>(),
        "traces": traces.collect::<Vec<_>>(),
        "curves": claims.collect::<Vec<_>>(),
        "vowels": {
            "speakers": vowels::SPEAKERS,
            "untrained": results.vowels.untrained,
            "losses": vowels.collect::<Vec<_>>(),
        },
    });
    format!("{value:#}\n")
}

//! The results as one HTML page.

use std::fmt::Write;

use plotters::style::RGBColor;

use crate::{
    claims::{self, Slopes},
    common::{
        Result,
        charts::{self, Axis, COLOURS, Curve, Interval, plain},
        page::{self, legend},
        runs::mean_deviation,
    },
    experiments::Results,
    losses::{DAMPINGS, Kind, Setting},
    tables::{self, Sheet},
    text,
    trial::{EXTREMES, Errors},
};

/// Of a chart that shares its line with another.
const HALF: (u32, u32) = (470, 320);

/// The curves that are drawn of those in the tables.
const DRAWN: [&str; 6] = ["exact (AAM)", "n = 3", "n = 5", "n = 9", "n = 30", "n = 30, Jackson"];

/// The page.
pub fn html(results: &Results) -> Result<String> {
    let mut body = String::from("<h1>Speaker verification with angular margins</h1>\n");
    writeln!(body, "<p class=\"device\">{}.</p>", page::escape(&tables::protocol(results)))?;
    let sheets: [Sheet; 10] = tables::all(results)?.try_into().map_err(|_| "a table is missing")?;
    let [compared, degrees, scales, extremes, near, far, hard, threshold, learned, real] = &sheets;

    section(&mut body, compared, &text::compared(results)?)?;
    compared_chart(&mut body, results)?;
    section(&mut body, degrees, &text::degrees(results)?)?;
    degree_charts(&mut body, results)?;
    section(&mut body, scales, &text::scales(results)?)?;
    scale_chart(&mut body, results)?;

    body.push_str("<h2>Claim 1: the gradient of AAM explodes</h2>\n");
    writeln!(body, "<p>{}</p>", text::explosion(results)?)?;
    let margin = results.plan.margins[0];
    slope_charts(&mut body, margin)?;
    for sheet in [near, far, learned] {
        part(&mut body, sheet)?;
    }
    body.push_str("<h2>Claim 2: ChebyAAM gives hard examples a stronger signal</h2>\n");
    writeln!(body, "<p>{}</p>", text::hard(results)?)?;
    hard_charts(&mut body, results)?;
    for sheet in [hard, threshold] {
        part(&mut body, sheet)?;
    }
    section(&mut body, extremes, &text::steps(results))?;
    step_charts(&mut body, results)?;
    section(&mut body, real, &text::real(results)?)?;
    Ok(page::page("Speaker verification with angular margins", &body, FOOTER))
}

fn table(body: &mut String, sheet: &Sheet) -> Result {
    let header: Vec<&str> = sheet.header.iter().map(String::as_str).collect();
    page::table(body, &header, &sheet.rows, |_| None)
}

fn section(body: &mut String, sheet: &Sheet, text: &str) -> Result {
    writeln!(body, "<h2>{}</h2>\n<p>{text}</p>", sheet.title)?;
    table(body, sheet)
}

fn part(body: &mut String, sheet: &Sheet) -> Result {
    writeln!(body, "<h3>{}</h3>", sheet.title)?;
    table(body, sheet)
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

/// The ends of some values, with room.
fn range(values: impl IntoIterator<Item = f64>, room: f64) -> [f64; 2] {
    let ends = [f64::INFINITY, f64::NEG_INFINITY];
    values.into_iter().fold(ends, |[low, high], v| [low.min(v - room), high.max(v + room)])
}

fn compared_chart(body: &mut String, results: &Results) -> Result {
    let mut charts = vec![];
    let kinds: [(fn(&Errors) -> f64, &str); 2] = [(|e| e.eer, "EER, %"), (|e| 100.0 * e.min_dcf, "100 · minDCF")];
    for (error, title) in kinds {
        let mut rows = vec![];
        for (i, setting) in results.plan.compared().into_iter().enumerate() {
            let values: Vec<f64> = results.of(&setting)?.errors.iter().map(error).collect();
            let (mean, deviation) = mean_deviation(&values);
            // one colour for each margin
            let colour = if i == 0 { colour(0) } else { colour(1 + (i - 1) / 3) };
            let title = setting.title();
            rows.push(Interval { title, colour, mean, deviation: deviation.unwrap_or(0.0), other: None });
        }
        let ends = rows.iter().flat_map(|row| [row.mean - row.deviation, row.mean + row.deviation]);
        let x = Axis::around(title, range(ends, 0.1), 8, plain);
        let label = format!("{title} of unseen voices, one line per loss");
        charts.push(charts::intervals(&label, (480, 40 + 26 * rows.len() as u32), &x, &rows)?);
    }
    writeln!(body, "<figure><div class=\"two\"><div>{}</div><div>{}</div></div></figure>", charts[0], charts[1])?;
    Ok(())
}

/// A chart per margin, a line per damping.
fn degree_charts(body: &mut String, results: &Results) -> Result {
    let plan = &results.plan;
    let dampings: Vec<_> = DAMPINGS.iter().filter(|(damping, _)| plan.dampings.contains(damping)).collect();
    let mean = |setting: &Setting| -> Result<f64> {
        let values: Vec<f64> = results.of(setting)?.errors.iter().map(|e| e.eer).collect();
        Ok(mean_deviation(&values).0)
    };
    let (mut panels, mut all) = (vec![], vec![]);
    for &margin in &plan.margins {
        let mut curves = vec![];
        for (i, (damping, _)) in dampings.iter().enumerate() {
            let point = |&degree: &usize| Ok((degree as f64, mean(&Setting::damped(margin, degree, *damping))?));
            let points = plan.degrees.iter().map(point).collect::<Result<Vec<_>>>()?;
            curves.push(Curve { colour: colour(i), dashed: false, points });
        }
        let exact = mean(&Setting::aam(margin))?;
        let ends = [0.0, 30.0].map(|degree| (degree, exact));
        curves.push(Curve { colour: colour(7), dashed: true, points: ends.to_vec() });
        all.extend(curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1)));
        panels.push((margin, curves));
    }
    let x = Axis::steps("degree", 0.0, 5.0, 6, plain);
    let y = Axis::around("EER, %", range(all, 0.3), 6, plain);
    let keys = dampings.iter().enumerate().map(|(i, (_, name))| (*name, colour(i), false));
    let keys = legend(keys.chain([("AAM", colour(7), true)]));
    writeln!(body, "<figure>{keys}<div class=\"three\">")?;
    for (margin, curves) in panels {
        let label = format!("EER over the degree at margin {margin}, one line per damping");
        let chart = charts::lines(&label, (330, 280), &x, &y, &curves)?;
        writeln!(body, "<div><h3>m = {margin}</h3>{chart}</div>")?;
    }
    body.push_str("</div></figure>\n");
    Ok(())
}

fn scale_chart(body: &mut String, results: &Results) -> Result {
    let plan = &results.plan;
    let mut curves = vec![];
    for (i, setting) in plan.scaled().into_iter().enumerate() {
        let point = |&scale: &f64| {
            let runs = results.of(&setting.clone().with_scale(scale))?;
            Ok((scale, mean_deviation(&runs.errors.iter().map(|e| e.eer).collect::<Vec<_>>()).0))
        };
        let points = plan.scales.iter().map(point).collect::<Result<Vec<_>>>()?;
        curves.push(Curve { colour: colour(i), dashed: i == 2, points });
    }
    let most = plan.scales.iter().fold(1.0_f64, |a, &b| a.max(b));
    let all = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1));
    let y = Axis::around("EER, %", range(all, 0.3), 6, plain);
    let titles = plan.scaled().map(|setting| setting.title());
    let keys = legend(titles.iter().enumerate().map(|(i, title)| (title.as_str(), colour(i), i == 2)));
    let chart = charts::lines("EER over the scale", HALF, &Axis::up_to("scale", most, 8, plain), &y, &curves)?;
    writeln!(body, "<figure>{keys}<div class=\"two\"><div>{chart}</div></div></figure>")?;
    Ok(())
}

/// Of the drawn curves, over the angles in degrees.
fn drawn(margin: f64, angles: &[f64]) -> Vec<Slopes> {
    claims::at_angles(margin, angles).into_iter().filter(|curve| DRAWN.contains(&curve.title.as_str())).collect()
}

fn lines(curves: &[Slopes], angles: &[f64], of: impl Fn(&Slopes) -> &Vec<f64>) -> Vec<Curve> {
    let line = |(i, curve): (usize, &Slopes)| Curve {
        colour: colour(i),
        dashed: i == 0,
        points: angles.iter().copied().zip(of(curve).iter().copied()).collect(),
    };
    curves.iter().enumerate().map(line).collect()
}

fn drawn_legend(curves: &[Slopes]) -> String {
    legend(curves.iter().enumerate().map(|(i, curve)| (curve.title.as_str(), colour(i), i == 0)))
}

/// Slope and pull over the first degrees.
fn slope_charts(body: &mut String, margin: f64) -> Result {
    let angles: Vec<f64> = (1..=400).map(|i| f64::from(i) * 0.05).collect();
    let curves = drawn(margin, &angles);
    let x = Axis::steps("angle to the prototype, °", 0.0, 5.0, 4, plain);
    let slope = Axis::steps("dφ/dcos", 0.0, 2.0, 6, plain);
    let pull = Axis::steps("−dφ/dθ", 0.0, 0.1, 6, plain);
    let slopes = lines(&curves, &angles, |curve| &curve.slopes);
    let pulls = lines(&curves, &angles, |curve| &curve.pulls);
    writeln!(
        body,
        "<figure>{}<div class=\"two\"><div>{}</div><div>{}</div></div></figure>",
        drawn_legend(&curves),
        charts::lines("Slope over the cosine near the prototype", HALF, &x, &slope, &slopes)?,
        charts::lines("Pull on the angle near the prototype", HALF, &x, &pull, &pulls)?,
    )?;
    Ok(())
}

/// The slope up to the threshold, for the smallest and the largest margin.
fn hard_charts(body: &mut String, results: &Results) -> Result {
    let margins = &results.plan.margins;
    let x = Axis::steps("angle to the prototype, °", 90.0, 15.0, 6, plain);
    let y = Axis::steps("dφ/dcos", -0.25, 0.25, 6, plain);
    let ends = [margins[0], margins[margins.len() - 1]];
    for (i, margin) in ends.into_iter().enumerate() {
        let threshold = 180.0 - margin.to_degrees();
        let mut angles: Vec<f64> = (0..).map(|i| 90.0 + 0.1 * f64::from(i)).take_while(|a| *a < threshold).collect();
        angles.push(threshold - 1e-6);
        let curves = drawn(margin, &angles);
        if i == 0 {
            writeln!(body, "<figure>{}<div class=\"two\">", drawn_legend(&curves))?;
        }
        let label = format!("Slope of hard examples at margin {margin}");
        let chart = charts::lines(&label, HALF, &x, &y, &lines(&curves, &angles, |curve| &curve.slopes))?;
        writeln!(body, "<div><h3>m = {margin}, up to the threshold at {threshold:.1}°</h3>{chart}</div>")?;
    }
    body.push_str("</div></figure>\n");
    Ok(())
}

/// The four values over the steps of the first run.
fn step_charts(body: &mut String, results: &Results) -> Result {
    let traced = results.plan.traced();
    let mut runs = vec![];
    for setting in &traced {
        runs.push(&results.of(setting)?.steps);
    }
    let titles: Vec<String> = traced.iter().map(Setting::title).collect();
    let dashed = |setting: &Setting| matches!(setting.kind, Kind::Series(_));
    let keys = titles.iter().zip(&traced).enumerate();
    let keys = legend(keys.map(|(i, (title, setting))| (title.as_str(), colour(i), dashed(setting))));
    let count = runs.iter().map(|steps| steps.len()).max().unwrap_or(1);
    let x = Axis::up_to("step", count as f64, 6, plain);
    writeln!(body, "<figure>{keys}<div class=\"two\">")?;
    for (k, title) in EXTREMES.into_iter().enumerate() {
        let line = |(i, steps): (usize, &&Vec<_>)| Curve {
            colour: colour(i),
            dashed: dashed(&traced[i]),
            points: steps.iter().enumerate().map(|(n, step): (usize, &[f64; 4])| ((n + 1) as f64, step[k])).collect(),
        };
        let curves: Vec<Curve> = runs.iter().enumerate().map(line).collect();
        let most = curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1)).fold(1.0, f64::max);
        let label = format!("{title} over the steps, one line per loss");
        let chart = charts::lines(&label, HALF, &x, &Axis::up_to(title, most, 6, plain), &curves)?;
        writeln!(
            body,
            "<div><h3>{}</h3>{chart}</div>",
            if k < 3 { format!("Largest {title} of a step") } else { "Gradient norm of a step".into() }
        )?;
    }
    body.push_str("</div></figure>\n");
    Ok(())
}

const FOOTER: &str =
    "Data: synthetic voices rendered with espeak-ng 1.51, features made here; M. Kudo, J. Toyama and M. Shimbo,
Japanese Vowels, UCI Machine Learning Repository, doi:10.24432/C5NS47, as packaged by aeon.";

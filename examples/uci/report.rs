//! The results as tables, as JSON, and as one HTML page.

use std::fmt::Write;

use plotters::style::RGBColor;
use serde_json::json;

use crate::{
    common::{
        Result,
        charts::{self, Axis, COLOURS, Curve, Interval, plain},
        page::{self, legend},
    },
    experiments::{DEEPEST, Results, Swept},
    validation::{BATCH, DIM, RATE, WIDTH, mean_deviation},
};

/// A title, a header and rows.
pub type Sheet = (&'static str, Vec<String>, Vec<Vec<String>>);

/// What is printed, and stands on the page.
pub fn tables(results: &Results) -> Vec<Sheet> {
    [table(results), depth(results), collapse(results)].into_iter().flatten().collect()
}

/// How it was measured, for people.
pub fn protocol(results: &Results) -> String {
    let p = results.protocol;
    format!(
        "{} × {}-fold cross-validation, stratified; {} epochs of Adam in batches of {BATCH}, rate {RATE} falling to 0; hidden \
         layers of {WIDTH}, embeddings of {DIM}; seed {}; heads: {}",
        p.repeats, p.folds, p.epochs, p.seed, results.device
    )
}

fn percent(values: &[f64]) -> String {
    match mean_deviation(values) {
        (mean, Some(deviation)) => format!("{mean:.2} ± {deviation:.2}"),
        (mean, None) => format!("{mean:.2}"),
    }
}

fn table(results: &Results) -> Option<Sheet> {
    let mut header: Vec<String> = ["loss", "margin, scale"].map(String::from).into();
    for (problem, _) in &results.table {
        header.extend([format!("{problem}, %"), "published".into()]);
    }
    let row = |(i, entry): (usize, &crate::losses::Entry)| {
        let mut cells = vec![entry.title.into(), entry.numbers.into()];
        for (problem, (_, measured)) in results.table.iter().enumerate() {
            let published = entry.published.map_or("–".into(), |figures| format!("{:.2}", figures[problem]));
            cells.extend([percent(&measured[i]), published]);
        }
        cells
    };
    let rows = results.entries.iter().enumerate().map(row).collect();
    (!results.table.is_empty()).then_some(("Accuracy in cross-validation", header, rows))
}

fn depth(results: &Results) -> Option<Sheet> {
    let header = ["data, loss".into()].into_iter().chain((1..=DEEPEST).map(|layers| layers.to_string())).collect();
    let sweeps = results.depth.iter().flat_map(|(problem, sweeps)| sweeps.iter().map(move |sweep| (problem, sweep)));
    let rows = sweeps.map(|(problem, (entry, all))| {
        let cells = all.iter().map(|repeats| format!("{:.2}", mean_deviation(repeats).0));
        [format!("{problem}, {}", results.entries[*entry].title)].into_iter().chain(cells).collect()
    });
    let rows = rows.collect();
    (!results.depth.is_empty()).then_some(("Accuracy over the number of layers, %", header, rows))
}

fn collapse(results: &Results) -> Option<Sheet> {
    let header =
        ["AmpFace, m0 = 0.35, s = 64", "mean target cosine", "|mean prototype|", "accuracy, %", "first warning"];
    let row = |trace: &crate::collapse::Trace| {
        let [cosine, length] = trace.steps.last().copied().unwrap_or_default();
        let warned = trace.warned.map_or("–".into(), |step| format!("step {step}"));
        vec![
            trace.title.into(),
            format!("{cosine:.3}").replace('-', "−"),
            format!("{length:.3}"),
            format!("{:.1}", 100.0 * trace.accuracy),
            warned,
        ]
    };
    let rows = results.traces.iter().map(row).collect();
    (!results.traces.is_empty()).then_some(("Polar collapse on digits", header.map(String::from).into(), rows))
}

/// Everything as JSON; accuracies in %, one per repeat.
pub fn json(results: &Results) -> String {
    let titles = || results.entries.iter().map(|e| e.title);
    let table = results.table.iter().enumerate().map(|(problem, (name, all))| {
        let published = results.entries.iter().map(|e| e.published.map(|p| p[problem]));
        let losses = titles().zip(all).zip(published);
        let losses =
            losses.map(|((loss, all), published)| json!({"loss": loss, "accuracy": all, "published": published}));
        json!({"data": name, "losses": losses.collect::<Vec<_>>()})
    });
    let depth = results.depth.iter().map(|(name, sweeps)| {
        let sweep = |(entry, all): &Swept| {
            let layers = all.iter().enumerate().map(|(i, all)| json!({"layers": i + 1, "accuracy": all}));
            json!({"loss": results.entries[*entry].title, "depths": layers.collect::<Vec<_>>()})
        };
        json!({"data": name, "losses": sweeps.iter().map(sweep).collect::<Vec<_>>()})
    });
    let traces = results.traces.iter().map(|trace| {
        let column = |k: usize| trace.steps.iter().map(|step| step[k]).collect::<Vec<_>>();
        json!({
            "run": trace.title,
            "accuracy": 100.0 * trace.accuracy,
            "first_warning": trace.warned,
            "target_cosine": column(0),
            "mean_prototype": column(1),
        })
    });
    let (table, depth, traces) = (table.collect::<Vec<_>>(), depth.collect::<Vec<_>>(), traces.collect::<Vec<_>>());
    let all = json!({"protocol": protocol(results), "table": table, "depth": depth, "collapse": traces});
    format!("{all:#}\n")
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

/// The page.
pub fn html(results: &Results) -> Result<String> {
    let mut body = String::from("<h1>Published experiments, rerun</h1>\n");
    writeln!(body, "<p class=\"device\">{}.</p>", page::escape(&protocol(results)))?;
    if let Some(sheet) = table(results) {
        section(
            &mut body,
            &sheet,
            "Table I of <em>ArcGrad: Angular Gradient Margin Loss for Classification</em>: a three-layer ReLU network. The mean
over the repeats, ± their standard deviation. The paper gives neither width nor optimiser nor epochs, so levels may
differ from the published ones; here everything but the loss is the same in a column: folds, first weights, order.",
            |row| Some(colour(row)),
        )?;
        body.push_str(
            "<p class=\"key\">Dot and bar: measured, mean ± standard deviation. Ring: published.</p>\n<figure><div class=\"two\">\n",
        );
        for (problem, (name, all)) in results.table.iter().enumerate() {
            let interval = |(i, entry): (usize, &crate::losses::Entry)| {
                let (mean, deviation) = mean_deviation(&all[i]);
                let other = entry.published.map(|published| published[problem]);
                let title = entry.title.into();
                Interval { title, colour: colour(i), mean, deviation: deviation.unwrap_or(0.0), other }
            };
            let rows: Vec<Interval> = results.entries.iter().enumerate().map(interval).collect();
            let ends = rows.iter().flat_map(|r| [Some(r.mean - r.deviation), Some(r.mean + r.deviation), r.other]);
            let x = Axis::around("accuracy, %", range(ends.flatten()), 8, plain);
            let label = format!("Accuracy on {name}, one line per loss");
            writeln!(body, "<div><h3>{name}</h3>{}</div>", charts::intervals(&label, (480, 330), &x, &rows)?)?;
        }
        body.push_str("</div></figure>\n");
    }
    if let Some(sheet) = depth(results) {
        section(
            &mut body,
            &sheet,
            "The same with other numbers of layers below the head. One layer is a linear network: it cannot learn the products
of Balance Scale, and 92.16 % there are all scales but the 49 in balance.",
            |row| results.depth.iter().flat_map(|(_, sweeps)| sweeps).nth(row).map(|(entry, _)| colour(*entry)),
        )?;
        let means = |all: &[Vec<f64>]| all.iter().map(|repeats| mean_deviation(repeats).0).collect::<Vec<_>>();
        let curve = |(entry, all): &Swept| {
            let points = means(all).into_iter().enumerate().map(|(i, mean)| ((i + 1) as f64, mean)).collect();
            Curve { colour: colour(*entry), dashed: false, points }
        };
        let swept = results.depth.iter().take(1).flat_map(|(_, sweeps)| sweeps);
        let keys = legend(swept.map(|(entry, _)| (results.entries[*entry].title, colour(*entry), false)));
        writeln!(body, "<figure>{keys}<div class=\"two\">")?;
        for (name, sweeps) in &results.depth {
            let x = Axis::steps("layers below the head", 1.0, 1.0, DEEPEST - 1, plain);
            let y = Axis::around("accuracy, %", range(sweeps.iter().flat_map(|(_, all)| means(all))), 8, plain);
            let curves: Vec<Curve> = sweeps.iter().map(curve).collect();
            let label = format!("Accuracy on {name} over the number of layers, one line per loss");
            writeln!(body, "<div><h3>{name}</h3>{}</div>", charts::lines(&label, (470, 330), &x, &y, &curves)?)?;
        }
        body.push_str("</div></figure>\n");
    }
    if let Some(sheet) = collapse(results) {
        section(
            &mut body,
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
            let points =
                |steps: &[[f64; 2]]| steps.iter().enumerate().map(|(i, step)| ((i + 1) as f64, step[k])).collect();
            let curve = |(i, trace): (usize, &crate::collapse::Trace)| Curve {
                colour: colour(i),
                dashed: false,
                points: points(&trace.steps),
            };
            results.traces.iter().enumerate().map(curve).collect()
        };
        let steps = results.traces.iter().map(|trace| trace.steps.len()).max().unwrap_or(1);
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
            charts::lines(
                "Length of the mean prototype over the steps, one line per run",
                size,
                &x,
                &length,
                &curves(1)
            )?,
        )?;
    }
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
    page::table(body, &header, rows, key)
}

/// The least and the largest, with room for a dot.
fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v - 0.2), high.max(v + 0.2)])
}

const FOOTER: &str = "Data: R. A. Fisher, The use of multiple measurements in taxonomic problems, 1936, as packaged by
scikit-learn; Balance Scale, the full factorial, made here; E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten
Digits, UCI Machine Learning Repository, 1998, doi:10.24432/C50P49, CC BY 4.0, the test part as packaged by scikit-learn.";

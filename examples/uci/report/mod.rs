//! The results as tables, as JSON, and as one HTML page.

mod page;

use serde_json::json;

use crate::{
    common::runs::mean_deviation,
    experiments::{Cell, DEEPEST, Line, Results},
    losses::{Entry, Published},
    validation::{BATCH, DIM, Dealing, RATE, WIDTH},
};

pub use page::html;

/// A title, a header and rows.
pub type Sheet = (&'static str, Vec<String>, Vec<Vec<String>>);

/// The tables, for the terminal and the page.
pub fn tables(results: &Results) -> Vec<Sheet> {
    let all = [
        losses(results),
        data(results),
        accuracy(results),
        deviation(results),
        depth(results),
        scales(results),
        collapse(results),
    ];
    all.into_iter().flatten().collect()
}

/// How it was measured, for people.
pub fn protocol(results: &Results) -> String {
    let p = results.protocol;
    let dealing = match p.dealing {
        Dealing::Random => "random folds",
        Dealing::Stratified => "stratified folds",
    };
    format!(
        "{} × {}-fold cross-validation, {dealing}; {} epochs of Adam in batches of {BATCH}, rate {RATE} falling to 0; hidden \
         layers of {WIDTH}, embeddings of {DIM}; seed {}; heads: {}",
        p.repeats, p.folds, p.epochs, p.seed, results.device
    )
}

fn header<'a>(first: &[&'a str], results: &'a Results) -> Vec<String> {
    first.iter().copied().chain(results.entries.iter().map(|e| e.title)).map(String::from).collect()
}

fn losses(results: &Results) -> Option<Sheet> {
    let header = ["loss", "margin, scale", "chosen by"].map(String::from).into();
    let rows = results.entries.iter().map(|e| [e.title, e.numbers, e.source].map(String::from).into()).collect();
    (!results.table.is_empty() || !results.depth.is_empty()).then_some(("Losses", header, rows))
}

fn figure(value: Option<f64>) -> String {
    value.map_or("–".into(), |value| format!("{value:.2}"))
}

fn data(results: &Results) -> Option<Sheet> {
    let header = ["data", "rows", "columns", "classes", "majority, %"].map(String::from).into();
    let row = |line: &Line| {
        let counts = [line.rows, line.columns, line.classes].map(|count| count.to_string());
        [vec![line.name.to_string()], counts.into(), vec![format!("{:.2}", line.majority)]].concat()
    };
    let rows = results.table.iter().map(row).collect();
    (!results.table.is_empty()).then_some(("Data sets", header, rows))
}

fn accuracy(results: &Results) -> Option<Sheet> {
    let lines = &results.table;
    let header = header(&["data", "majority"], results);
    let losses = || 0..results.entries.len();
    let row = |name: &str, majority: String, cells: Vec<String>| [vec![name.to_string(), majority], cells].concat();
    let published = |of: &dyn Fn(&Published) -> Option<f64>| -> Option<Vec<String>> {
        let all: Vec<_> = results.entries.iter().map(|entry| of(&entry.published)).collect();
        all.iter().any(Option::is_some).then(|| all.into_iter().map(figure).collect())
    };
    let mut rows = vec![];
    for line in lines {
        let cells = losses().map(|i| line.mean(i).map_or("refused".into(), |mean| format!("{mean:.2}"))).collect();
        rows.push(row(line.name, format!("{:.2}", line.majority), cells));
        let figures = published(&|p| p.on(line.name));
        rows.extend(figures.map(|cells| row("  published", String::new(), cells)));
    }
    let majority = |lines: &[&Line]| lines.iter().map(|line| line.majority).sum::<f64>() / lines.len() as f64;
    let mut average = |title: &str, lines: &[&Line]| {
        let cells = losses().map(|i| figure(Results::average(lines.iter().copied(), i))).collect();
        rows.push(row(title, format!("{:.2}", majority(lines)), cells));
    };
    average("Average", &lines.iter().collect::<Vec<_>>());
    if let Some(eight) = results.eight() {
        if eight.len() < lines.len() {
            average("Average of the eight", &eight);
        }
        let figures = published(&|p| p.mean_of_eight);
        rows.extend(figures.map(|cells| row("  published mean", String::new(), cells)));
    }
    let wins = results.wins().iter().map(usize::to_string).collect();
    rows.push(row("Wins", "–".into(), wins));
    (!lines.is_empty()).then_some(("Accuracy in cross-validation, %", header, rows))
}

fn deviation(results: &Results) -> Option<Sheet> {
    let header = header(&["data"], results);
    let of = |values: &[f64]| mean_deviation(values).1.map_or("–".into(), |deviation| format!("{deviation:.1}"));
    let cell = |cell: &Cell| match cell {
        Cell::Measured { repeats, folds } => format!("{} / {}", of(repeats), of(folds)),
        Cell::Refused(_) => "refused".into(),
    };
    let row = |line: &Line| [vec![line.name.to_string()], line.cells.iter().map(cell).collect()].concat();
    let rows = results.table.iter().map(row).collect();
    let title = "Its standard deviation over repeats / over folds, %";
    (!results.table.is_empty()).then_some((title, header, rows))
}

fn depth(results: &Results) -> Option<Sheet> {
    let header = ["data, loss".into()].into_iter().chain((1..=DEEPEST).map(|layers| layers.to_string())).collect();
    let mut rows = vec![];
    for (problem, sweep) in &results.depth {
        for (entry, all) in results.entries.iter().zip(sweep) {
            let mean =
                |runs: &Option<Vec<f64>>| runs.as_ref().map_or("refused".into(), |v| figure(Some(mean_deviation(v).0)));
            rows.push([vec![format!("{problem}, {}", entry.title)], all.iter().map(mean).collect()].concat());
        }
    }
    (!results.depth.is_empty()).then_some(("Accuracy over the number of layers, %", header, rows))
}

fn scales(results: &Results) -> Option<Sheet> {
    let header = ["ArcGrad on Iris, s", "predicted gap, °", "published, °", "measured gap, °", "accuracy, %"];
    let row = |gaps: &crate::scales::Gaps| {
        let (mean, deviation) = mean_deviation(&gaps.measured);
        // the two that the paper names
        let published = [(1.0, "84"), (40.0, "2")].iter().find(|(scale, _)| *scale == gaps.scale);
        vec![
            gaps.scale.to_string(),
            format!("{:.2}", gaps.predicted),
            published.map_or("–", |(_, angle)| angle).into(),
            format!("{mean:.1} ± {:.1}", deviation.unwrap_or(0.0)),
            format!("{:.1}", 100.0 * gaps.accuracy),
        ]
    };
    let rows = results.scales.iter().map(row).collect();
    (!results.scales.is_empty()).then_some((
        "ArcGrad's soft margin over the scale",
        header.map(String::from).into(),
        rows,
    ))
}

fn collapse(results: &Results) -> Option<Sheet> {
    let header =
        ["AmpFace, m0 = 0.35, s = 64", "mean target cosine", "|mean prototype|", "accuracy, %", "first warning"];
    let row = |trace: &crate::collapse::Trace| {
        let [cosine, length] = trace.steps().last().unwrap_or_default();
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
    let cell = |((entry, cell), name): ((&Entry, &Cell), &str)| match cell {
        Cell::Measured { repeats, folds } => {
            json!({"loss": entry.title, "accuracy": repeats, "folds": folds, "published": entry.published.on(name)})
        }
        Cell::Refused(why) => json!({"loss": entry.title, "refused": why, "published": entry.published.on(name)}),
    };
    let line = |line: &Line| {
        let losses: Vec<_> = results.entries.iter().zip(&line.cells).map(|pair| cell((pair, line.name))).collect();
        let Line { name, rows, columns, classes, majority, .. } = line;
        json!({"data": name, "rows": rows, "columns": columns, "classes": classes, "majority": majority, "losses": losses})
    };
    let depth = results.depth.iter().map(|(name, sweep)| {
        let losses = results.entries.iter().zip(sweep).map(|(entry, all)| {
            let layers = all.iter().enumerate().map(|(i, all)| json!({"layers": i + 1, "accuracy": all}));
            json!({"loss": entry.title, "depths": layers.collect::<Vec<_>>()})
        });
        json!({"data": name, "losses": losses.collect::<Vec<_>>()})
    });
    let scales = results.scales.iter().map(|gaps| {
        json!({"scale": gaps.scale, "predicted": gaps.predicted, "measured": gaps.measured, "accuracy": 100.0 * gaps.accuracy})
    });
    let traces = results.traces.iter().map(|trace| {
        let column = |k: usize| trace.steps().map(|step| step[k]).collect::<Vec<_>>();
        json!({
            "run": trace.title,
            "accuracy": 100.0 * trace.accuracy,
            "first_warning": trace.warned,
            "target_cosine": column(0),
            "mean_prototype": column(1),
        })
    });
    let all = json!({
        "protocol": protocol(results),
        "table": results.table.iter().map(line).collect::<Vec<_>>(),
        "depth": depth.collect::<Vec<_>>(),
        "scales": scales.collect::<Vec<_>>(),
        "collapse": traces.collect::<Vec<_>>(),
    });
    format!("{all:#}\n")
}

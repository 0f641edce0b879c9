//! The results as tables, as JSON, and as one HTML page.

use std::fmt::Write;

use serde_json::json;

use crate::{
    common::{
        Result,
        charts::{self, Axis, COLOURS, Curve, plain},
        digits::SEEN,
        page::{self, legend},
    },
    experiment::{BATCH, CLASSES, DIM, HIDDEN, Kind, MARGIN_RATE, RATE, Results, Run, SCALE, START, Variant},
};

/// A title, a header and rows.
pub type Sheet = (&'static str, Vec<String>, Vec<Vec<String>>);

/// The rare classes, and all.
const RARE: [usize; 5] = [3, 4, 5, 6, 7];
const ALL: [usize; CLASSES] = [0, 1, 2, 3, 4, 5, 6, 7];

/// The tables, for the terminal and the page.
pub fn tables(results: &Results) -> Vec<Sheet> {
    let mut all = vec![margins(results), accuracy(results)];
    all.extend(balance(results));
    all
}

/// How it was measured, for people.
pub fn protocol(results: &Results) -> String {
    let plan = &results.plan;
    format!(
        "margin: {}; s = {SCALE}; {} runs of {} epochs of Adam in batches of {BATCH}, rate {RATE}, of the margins {MARGIN_RATE}, both \
         falling to 0; network 64 → {HIDDEN} → {DIM}; margins from {START}, within 0 and 1; seed {}; head: {}",
        plan.kind.name(),
        plan.repeats,
        plan.epochs,
        plan.seed,
        results.device
    )
}

/// A mean over the runs with its deviation.
fn cell(variant: &Variant, digits: usize, factor: f64, of: impl Fn(&Run) -> f64) -> String {
    let mean = factor * variant.mean(&of);
    match variant.deviation(&of) {
        Some(deviation) => format!("{mean:.digits$} ± {:.digits$}", factor * deviation),
        None => format!("{mean:.digits$}"),
    }
}

/// A digit with its number of training images.
fn class_title(results: &Results, class: usize) -> String {
    format!("{} ({} images)", SEEN[class], results.counts[class])
}

fn margins(results: &Results) -> Sheet {
    let mut header = vec!["digit".into()];
    let learned = || results.variants.iter().filter(|variant| variant.lambda.is_some());
    header.extend(learned().map(Variant::title));
    let row = |class: usize| {
        let cells = learned().map(|variant| cell(variant, 3, 1.0, |run| run.margin(class)));
        [class_title(results, class)].into_iter().chain(cells).collect()
    };
    ("The margins that were learned", header, ALL.into_iter().map(row).collect())
}

fn accuracy(results: &Results) -> Sheet {
    let header = ["margin", "all digits, %", "the first three, %", "the rare ones, %", "worst digit, %"];
    let row = |variant: &Variant| {
        let worst = |run: &Run| run.right.iter().copied().fold(1.0, f64::min);
        vec![
            variant.title(),
            cell(variant, 2, 100.0, |run| run.accuracy(&ALL)),
            cell(variant, 2, 100.0, |run| run.accuracy(&ALL[..3])),
            cell(variant, 2, 100.0, |run| run.accuracy(&RARE)),
            cell(variant, 2, 100.0, worst),
        ]
    };
    let rows = results.variants.iter().map(row).collect();
    ("Accuracy on new images, mean over the digits", header.map(String::from).into(), rows)
}

/// Where the margins should rest, and how far the probabilities are: of the cosine, where that is a formula.
fn balance(results: &Results) -> Option<Sheet> {
    let learned = || results.variants.iter().filter_map(|variant| Some((variant.lambda?, variant)));
    let header = ["digit".into()].into_iter().chain(learned().map(|(_, variant)| variant.title())).collect();
    let row = |class: usize| {
        let cells = learned().map(|(lambda, variant)| {
            let (rest, found) = (results.rest(lambda, class), variant.mean(|run| run.wrong[class]));
            let rest = if rest > 1.0 { "> 1".into() } else { format!("{rest:.3}") };
            format!("{found:.3} / {rest}")
        });
        [class_title(results, class)].into_iter().chain(cells).collect()
    };
    let known = results.plan.kind == Kind::Cosine && learned().next().is_some();
    let title = "The probability of the other classes in the last epoch / where a margin inside its ends rests";
    known.then(|| (title, header, ALL.into_iter().map(row).collect()))
}

/// The margins over the epochs, of the first run.
fn course(results: &Results, variant: &Variant) -> Result<String> {
    let epochs = results.plan.epochs as f64;
    let x = Axis::up_to("epoch", epochs, 6, plain);
    let y = Axis::steps("margin", 0.0, 0.25, 4, plain);
    let first = variant.runs.first().map_or(&[][..], |run| &run.margins);
    let curve = |class: usize| Curve {
        colour: COLOURS[class],
        dashed: false,
        points: first.iter().enumerate().map(|(epoch, margins)| (epoch as f64, margins[class])).collect(),
    };
    let label = format!("Margins of the classes over the epochs, {}", variant.title());
    charts::lines(&label, (500, 300), &x, &y, &ALL.map(curve))
}

/// The page.
pub fn html(results: &Results) -> Result<String> {
    let mut body = String::new();
    writeln!(
        body,
        "<h1>Margins that are learned</h1>
<p>AdaptiveFace (CVPR 2019) gives each class a margin of its own and learns it: the loss less λ times the mean margin is made small. \
         Here on handwritten digits in the proportions 8 : 4 : 4 : 1 : 1 : 1 : 1 : 1 of the paper's toy experiment.</p>
<p class=\"device\">{}</p>",
        page::escape(&protocol(results))
    )?;
    for (title, header, rows) in tables(results) {
        writeln!(body, "<h2>{}</h2>", page::escape(title))?;
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        page::table(&mut body, &header, &rows, |row| (rows.len() == CLASSES).then(|| COLOURS[row]))?;
        if rows.len() != CLASSES {
            writeln!(
                body,
                "<p>The first three digits have many training images, the five rare ones an eighth of the first's.</p>"
            )?;
        }
    }
    writeln!(body, "<h2>The margins over the epochs, first run</h2>")?;
    let titles: Vec<String> = ALL.map(|class| class_title(results, class)).into();
    body.push_str(&legend(titles.iter().zip(COLOURS).map(|(title, colour)| (title.as_str(), colour, false))));
    body.push_str("<div class=\"two\">\n");
    for variant in results.variants.iter().filter(|variant| variant.lambda.is_some()) {
        writeln!(body, "<div><h3>{}</h3>\n<figure>{}</figure></div>", variant.title(), course(results, variant)?)?;
    }
    body.push_str("</div>\n");
    let footer = "Data: the UCI optical digits. AdaptiveFace: H. Liu, X. Zhu, Z. Lei, S. Z. Li, CVPR 2019. Scale, start and ends of the \
                  margins: FaceX-Zoo.";
    Ok(page::page("Margins that are learned", &body, footer))
}

/// Every number.
pub fn json(results: &Results) -> String {
    let run = |run: &Run| json!({ "margins": run.margins, "wrong": run.wrong, "right": run.right });
    let variant = |v: &Variant| json!({ "lambda": v.lambda, "runs": v.runs.iter().map(run).collect::<Vec<_>>() });
    let all = json!({
        "margin": results.plan.kind.name(),
        "scale": SCALE,
        "digits": SEEN,
        "training_images": results.counts,
        "epochs": results.plan.epochs,
        "seed": results.plan.seed,
        "head": results.device,
        "variants": results.variants.iter().map(variant).collect::<Vec<_>>(),
    });
    format!("{all:#}\n")
}

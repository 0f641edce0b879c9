//! The results as tables, as JSON, and as one HTML page.

use std::fmt::Write;

use serde_json::json;

use crate::{
    common::{
        Result,
        charts::{self, Axis, COLOURS, Curve, plain},
        page::{self, legend},
        runs::mean_deviation,
    },
    training::{BIN, DIM, HIDDEN, RATE, Results, Run, Spread, TOP},
};

/// A title, a header and rows.
pub type Sheet = (&'static str, Vec<String>, Vec<Vec<String>>);

/// The tables, for the terminal and the page.
pub fn tables(results: &Results) -> Vec<Sheet> {
    vec![epochs(results), spread(results), shares(results), top(results), times(results)]
}

/// How it was measured, for people.
pub fn protocol(results: &Results) -> String {
    let p = &results.protocol;
    format!(
        "{}; network of {HIDDEN} outputs, ReLU, and embeddings of {DIM}; {} epochs of Adam in batches of {}, rate {RATE} falling \
         to 0; seeds {}; heads: {}",
        results.title,
        p.marks.last().unwrap_or(&0),
        p.batch,
        p.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
        results.device
    )
}

fn sheet(results: &Results, title: &'static str, columns: Vec<String>, cells: impl Fn(usize) -> Vec<String>) -> Sheet {
    let header = ["loss", "margin, scale"].map(String::from).into_iter().chain(columns).collect();
    let row = |(i, loss): (usize, &crate::training::Loss)| {
        [vec![loss.title.to_string(), loss.numbers.to_string()], cells(i)].concat()
    };
    (title, header, results.losses.iter().enumerate().map(row).collect())
}

/// With `digits` after the point.
fn figure(values: impl IntoIterator<Item = f64>, digits: usize) -> String {
    match mean_deviation(&values.into_iter().collect::<Vec<_>>()) {
        (mean, Some(deviation)) => format!("{mean:.digits$} ± {deviation:.digits$}"),
        (mean, None) => format!("{mean:.digits$}"),
    }
}

fn percents(values: impl IntoIterator<Item = f64>, digits: usize) -> String {
    figure(values.into_iter().map(|share| 100.0 * share), digits)
}

/// Of a loss, per seed: the top-1 or top-5 after some epochs.
fn tops(runs: &[Run], mark: usize, place: usize) -> impl Iterator<Item = f64> + '_ {
    runs.iter().filter_map(move |run| run.marks.get(mark)).map(move |mark| mark.top[place])
}

fn epochs(results: &Results) -> Sheet {
    let marks = &results.protocol.marks;
    let columns = marks.iter().map(|epoch| if *epoch == 1 { "1 epoch".into() } else { format!("{epoch} epochs") });
    sheet(results, "Accuracy over the epochs, %", columns.collect(), |loss| {
        (0..marks.len()).map(|mark| percents(tops(&results.runs[loss], mark, 0), 2)).collect()
    })
}

fn top(results: &Results) -> Sheet {
    let columns = vec!["top-1".into(), format!("top-{TOP}")];
    let last = results.protocol.marks.len() - 1;
    sheet(results, "Accuracy after the last epoch, %", columns, |loss| {
        [0, 1].map(|place| percents(tops(&results.runs[loss], last, place), 2)).into()
    })
}

fn shares(results: &Results) -> Sheet {
    let shares = &results.protocol.shares;
    let columns = shares.iter().map(|share| format!("{} %", plain(100.0 * share))).collect();
    sheet(results, "Accuracy over the share of the training images, %", columns, |loss| {
        results.shares[loss].iter().map(|seeds| percents(seeds.iter().copied(), 1)).collect()
    })
}

/// A column of Table VI: its title, and what it takes of the training and of the test images.
type Column = (&'static str, fn(&[Spread; 2]) -> f64);

const SPREADS: [Column; 5] = [
    ("W-Inter", |[train, _]| train.w_inter),
    ("C-Inter, train", |[train, _]| train.c_inter),
    ("WC-Intra, train", |[train, _]| train.wc_intra),
    ("C-Inter, test", |[_, test]| test.c_inter),
    ("WC-Intra, test", |[_, test]| test.wc_intra),
];

fn spread(results: &Results) -> Sheet {
    let columns = SPREADS.iter().map(|(title, _)| title.to_string()).collect();
    sheet(results, "Mean angles between prototypes and centers, radians", columns, |loss| {
        SPREADS.iter().map(|(_, pick)| figure(results.runs[loss].iter().map(|run| pick(&run.spread)), 3)).collect()
    })
}

fn times(results: &Results) -> Sheet {
    let columns = ["step, ms", "head, ms", "head of the step, %", "beside Soft, %"].map(String::from).into();
    let soft = results.times[0].step.as_secs_f64();
    sheet(results, "Time of a training step", columns, |loss| {
        let [step, head] = [results.times[loss].step, results.times[loss].head].map(|time| time.as_secs_f64());
        let more = format!("{:+.1}", 100.0 * (step / soft - 1.0)).replace('-', "−");
        vec![
            format!("{:.3}", 1e3 * step),
            format!("{:.3}", 1e3 * head),
            format!("{:.1}", 100.0 * head / step),
            if loss == 0 { "–".into() } else { more },
        ]
    })
}

/// Everything as JSON: shares of 1, radians, seconds; histograms in bins of `BIN` degrees, %.
pub fn json(results: &Results) -> String {
    let p = &results.protocol;
    let losses = results.losses.iter().enumerate().map(|(i, loss)| {
        let runs = results.runs[i].iter().zip(&p.seeds).map(|(run, seed)| {
            let marks = run.marks.iter().zip(&p.marks).map(|(mark, epoch)| {
                json!({
                    "epoch": epoch, "top_1": mark.top[0], "top_5": mark.top[1],
                    "own_angles": bins(&mark.own), "other_angles": bins(&mark.other),
                })
            });
            let of = |s: &Spread| json!({"w_inter": s.w_inter, "c_inter": s.c_inter, "wc_intra": s.wc_intra});
            let marks: Vec<_> = marks.collect();
            json!({"seed": seed, "marks": marks, "train": of(&run.spread[0]), "test": of(&run.spread[1])})
        });
        let shares = p.shares.iter().zip(&results.shares[i]).map(|(share, top)| json!({"share": share, "top_1": top}));
        let time = results.times[i];
        json!({
            "loss": loss.title, "numbers": loss.numbers,
            "runs": runs.collect::<Vec<_>>(), "shares": shares.collect::<Vec<_>>(),
            "step": time.step.as_secs_f64(), "head": time.head.as_secs_f64(),
        })
    });
    let all = json!({"protocol": protocol(results), "bin": BIN, "losses": losses.collect::<Vec<_>>()});
    format!("{all:#}\n")
}

/// The share of each bin, %.
pub fn bins(angles: &[f64]) -> Vec<f64> {
    let mut shares = vec![0.0; (180.0 / BIN) as usize];
    let last = shares.len() - 1;
    angles.iter().for_each(|angle| shares[((angle / BIN) as usize).min(last)] += 100.0 / angles.len() as f64);
    shares
}

/// The page.
pub fn html(results: &Results) -> Result<String> {
    let mut body = String::from("<h1>ArcGrad on images</h1>\n");
    writeln!(
        body,
        "<p>What <em>ArcGrad: Angular Gradient Margin Loss for Classification</em> measures on CIFAR, on other images and with a
small network: the order of the losses may be compared, the levels may not. Mean over the seeds, ± their standard
deviation; everything but the loss is the same for all: images, first weights, order, learning rate and epochs.</p>
<p class=\"device\">{}.</p>",
        page::escape(&protocol(results))
    )?;
    epochs_section(&mut body, results)?;
    spread_section(&mut body, results)?;
    angles_section(&mut body, results)?;
    shares_section(&mut body, results)?;
    last_sections(&mut body, results)?;
    Ok(page::page("ArcGrad on images", &body, FOOTER))
}

fn section(body: &mut String, (title, header, rows): &Sheet, text: &str) -> Result {
    writeln!(body, "<h2>{title}</h2>\n<p>{text}</p>")?;
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    page::table(body, &header, rows, |row| Some(COLOURS[row]))
}

/// A chart with a line per loss.
fn lines(results: &Results, label: &str, x: &Axis, points: impl Fn(usize) -> Vec<(f64, f64)>) -> Result<String> {
    let curve = |loss: usize| Curve { colour: COLOURS[loss], dashed: false, points: points(loss) };
    let curves: Vec<Curve> = (0..results.losses.len()).map(curve).collect();
    let heights = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    let ends = [heights().fold(f64::INFINITY, f64::min), heights().fold(f64::NEG_INFINITY, f64::max)];
    let y = Axis::around("accuracy, %", ends, 8, plain);
    let keys = legend(results.losses.iter().enumerate().map(|(i, loss)| (loss.title, COLOURS[i], false)));
    Ok(format!("<figure>{keys}{}</figure>\n", charts::lines(label, (960, 340), x, &y, &curves)?))
}

fn mean_percent(values: impl Iterator<Item = f64>) -> f64 {
    100.0 * mean_deviation(&values.collect::<Vec<_>>()).0
}

fn epochs_section(body: &mut String, results: &Results) -> Result {
    section(
        body,
        &epochs(results),
        "Table VII: the accuracy on the test images on the way. The paper names ArcGrad 15.5 % better after ten epochs. The
learning rate falls over the epochs shown here, so an early figure is of a run that is not done.",
    )?;
    let marks = &results.protocol.marks;
    let last = *marks.last().unwrap_or(&1);
    let x = Axis::up_to("epochs", last as f64, 10, plain);
    body.push_str(&lines(results, "Accuracy over the epochs, one line per loss", &x, |loss| {
        let point = |(i, epoch): (usize, &usize)| (*epoch as f64, mean_percent(tops(&results.runs[loss], i, 0)));
        marks.iter().enumerate().map(point).collect()
    })?);
    Ok(())
}

fn spread_section(body: &mut String, results: &Results) -> Result {
    section(
        body,
        &spread(results),
        "Table VI. W-Inter is the mean angle between two prototypes, C-Inter between the mean embeddings of two classes,
WC-Intra between the prototype and the mean embedding of a class. The paper finds softmax the loosest and ArcGrad the
tightest: the smallest WC-Intra.",
    )
}

fn angles_section(body: &mut String, results: &Results) -> Result {
    let marks = &results.protocol.marks;
    body.push_str(
        "<h2>Angles of the test images</h2>\n<p>Fig. 4: how far the images are from the prototype of their class, after some
epochs, one line for each. The first seed.</p>\n",
    );
    let colours = [COLOURS[5], COLOURS[2], COLOURS[4], COLOURS[1], COLOURS[3]];
    let colour = |mark: usize| colours[mark.min(colours.len() - 1)];
    let titles: Vec<String> = marks.iter().map(|epoch| format!("epoch {epoch}")).collect();
    body.push_str(&legend(titles.iter().enumerate().map(|(i, title)| (title.as_str(), colour(i), false))));
    body.push_str("<figure><div class=\"three\">\n");
    let of =
        |loss: usize| -> Vec<Vec<f64>> { results.runs[loss][0].marks.iter().map(|mark| bins(&mark.own)).collect() };
    let all: Vec<_> = (0..results.losses.len()).map(of).collect();
    let used = |shares: &Vec<f64>| shares.iter().rposition(|share| *share > 0.0).unwrap_or(0) + 1;
    let most = all.iter().flatten().map(used).max().unwrap_or(1) as f64 * BIN;
    let highest = all.iter().flatten().flatten().fold(0.0_f64, |a, &b| a.max(b));
    let x = Axis::steps("angle to the own prototype, °", 0.0, 30.0, (most / 30.0).ceil().max(1.0) as usize, plain);
    let y = Axis::up_to("test images, %", highest, 5, plain);
    for (loss, shares) in results.losses.iter().zip(&all) {
        let points = |shares: &Vec<f64>| shares.iter().enumerate().map(|(i, &s)| ((i as f64 + 0.5) * BIN, s)).collect();
        let curve =
            |(i, shares): (usize, &Vec<f64>)| Curve { colour: colour(i), dashed: false, points: points(shares) };
        let curves: Vec<Curve> = shares.iter().enumerate().map(curve).collect();
        let label = format!("Angles to the own prototype with {}, one line per epoch", loss.title);
        writeln!(body, "<div><h3>{}</h3>{}</div>", loss.title, charts::lines(&label, (330, 250), &x, &y, &curves)?)?;
    }
    body.push_str(
        "</div></figure>\n<p>After the last epoch, in colour the own prototype, in grey the nearest other one:</p>\n",
    );
    last_angles(body, results)
}

fn last_angles(body: &mut String, results: &Results) -> Result {
    body.push_str("<figure><div class=\"three\">\n");
    let of = |runs: &Vec<Run>| runs[0].marks.last().map(|mark| [bins(&mark.other), bins(&mark.own)]);
    let all: Vec<[Vec<f64>; 2]> = results.runs.iter().filter_map(of).collect();
    let highest = all.iter().flatten().flatten().fold(0.0_f64, |a, &b| a.max(b));
    let x = Axis::steps("angle, °", 0.0, 30.0, 6, plain);
    let y = Axis::up_to("test images, %", highest, 5, plain);
    for (i, (loss, [other, own])) in results.losses.iter().zip(&all).enumerate() {
        let [neutral, colour] = charts::pair(COLOURS[i]);
        let label = format!("Angles to the own and to the nearest other prototype with {}", loss.title);
        let chart = charts::histograms(&label, (330, 250), &x, &y, BIN, [(other, neutral), (own, colour)])?;
        writeln!(body, "<div><h3>{}</h3>{chart}</div>", loss.title)?;
    }
    body.push_str("</div></figure>\n");
    Ok(())
}

fn shares_section(body: &mut String, results: &Results) -> Result {
    section(
        body,
        &shares(results),
        "Fig. 3: trained on a part of the images, as many epochs each, so a smaller part has fewer steps.",
    )?;
    let shares = &results.protocol.shares;
    let label = |at: f64| plain((10_f64.powf(at) * 1e4).round() / 1e4);
    let ticks = shares.iter().map(|share| (100.0 * share).log10()).collect();
    let x = Axis { title: "share of the training images, %", ticks, label };
    body.push_str(&lines(results, "Accuracy over the share of the training images, one line per loss", &x, |loss| {
        let point = |(share, seeds): (&f64, &Vec<f64>)| ((100.0 * share).log10(), mean_percent(seeds.iter().copied()));
        shares.iter().zip(&results.shares[loss]).map(point).collect()
    })?);
    Ok(())
}

fn last_sections(body: &mut String, results: &Results) -> Result {
    section(
        body,
        &top(results),
        "Table V: the share of the test images whose class is the nearest, and of those whose class is among the nearest five.",
    )?;
    section(
        body,
        &times(results),
        "A step is network forward, head, network backward and Adam. The losses take turns; the time is that within which the
fastest tenth of the steps is done. The paper gives 3.4 % for what its loss takes beside softmax, with another network.",
    )
}

const FOOTER: &str =
    "Data: H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, 2017, MIT licence, as packaged by Debian; or, with
--quick, E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
doi:10.24432/C50P49, CC BY 4.0, the test part as packaged by scikit-learn.";

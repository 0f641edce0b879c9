//! The pictures of the page.

use std::fmt::Write;

use margin_softmax::theory::Criterion;
use plotters::style::RGBColor;

use crate::{
    common::{
        Result,
        charts::{self, Axis, COLOURS, Curve, plain},
        learner::Set,
        page::{escape, legend},
    },
    experiments::{CERTAIN, DIM, FEW, REMEDIES, Results, SCALE, Setting, Sweep},
    globe::View,
    tables::number,
    training::{Outcome, first_voices, mean, over_repeats},
};

const GREY: RGBColor = RGBColor(128, 128, 128);
const WIDE: (u32, u32) = (960, 380);
/// Of what theory predicts for M_intra and M_inter.
const PREDICTED: [RGBColor; 2] = [COLOURS[5], COLOURS[4]];

fn line(colour: RGBColor, dashed: bool, points: Vec<(f64, f64)>) -> Curve {
    Curve { colour, dashed, points }
}

/// Of a margin's values: its axis keeps its title.
fn axis(place: usize, points: &[(f64, Vec<Outcome>)]) -> Axis {
    let title = ["m0", "m1", "m2, radians", "m3"][place];
    let step = if place == 1 { 0.2 } else { 0.1 };
    let (low, high) = points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.0), h.max(p.0)));
    let count = ((high - low) / step - 1e-6).ceil().max(1.0);
    Axis::steps(title, low, step, count as usize, plain)
}

/// Figure 4: angles, predictions and the score over one margin, one below the other.
pub fn sweep(body: &mut String, results: &Results, Sweep { margin, points }: &Sweep) -> Result {
    let setting = Setting::new(results.data.classes, DIM, SCALE)?;
    let optimum = setting.optimum(margin)?;
    let x = axis(margin.place, points);
    let (first, last) = (x.ticks[0], x.ticks[x.ticks.len() - 1]);
    let measured = |colour, dashed, of: &dyn Fn(&Outcome) -> f64| {
        line(colour, dashed, points.iter().map(|(value, runs)| (*value, mean(runs, of).to_degrees())).collect())
    };
    let mut within = Vec::new();
    for i in 0..=120 {
        let value = first + (last - first) * f64::from(i) / 120.0;
        let stop = setting.stop(margin, value, Criterion::Probability(CERTAIN))?;
        within.push((value, stop.map_or(f64::NAN, |[_, within]| within.to_degrees()))); // the line breaks where there is none
    }
    let nearest = setting.nearest.to_degrees();
    // a repelled embedding lies beyond 90°
    let largest = points.iter().flat_map(|(_, runs)| [mean(runs, |o| o.test.inter), mean(runs, |o| o.train.inter)]);
    let largest = largest.fold(0.0_f64, f64::max).to_degrees();
    let y = Axis::steps("angle, °", 0.0, 20.0, (largest / 20.0).ceil().max(5.0) as usize, plain);
    let upright = |top: &Axis| {
        let ends = [top.ticks[0], top.ticks[top.ticks.len() - 1]];
        optimum.map(|optimum| line(GREY, false, ends.map(|end| (optimum, end)).to_vec()))
    };
    let mut angles =
        vec![line(PREDICTED[0], false, within), line(PREDICTED[1], false, vec![(first, nearest), (last, nearest)])];
    angles.extend(upright(&y));
    angles.extend([
        measured(COLOURS[0], false, &|o| o.train.intra),
        measured(COLOURS[0], true, &|o| o.test.intra),
        measured(COLOURS[1], false, &|o| o.train.inter),
        measured(COLOURS[1], true, &|o| o.test.inter),
    ]);
    let score = |sign: f64| -> Vec<(f64, f64)> {
        let point = |(value, runs): &(f64, Vec<Outcome>)| {
            let (mean, deviation) = over_repeats(runs, |o| 100.0 * o.eer);
            (*value, mean + sign * deviation.unwrap_or(0.0))
        };
        points.iter().map(point).collect()
    };
    let all: Vec<f64> = [score(-1.0), score(1.0)].concat().into_iter().map(|(_, eer)| eer).collect();
    let range = all.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[l, h], &v| [l.min(v), h.max(v)]);
    let eer = Axis::around("unseen EER, %", range, 6, plain);
    let mut scores: Vec<Curve> = upright(&eer).into_iter().collect();
    if results.protocol.repeats > 1 {
        scores.extend([-1.0, 1.0].map(|sign| line(COLOURS[2], true, score(sign))));
    }
    scores.push(line(COLOURS[2], false, score(0.0)));
    let stops = optimum.map_or("theory has no optimum".into(), |o| format!("predicted optimum, {o:.3}"));
    let keys = legend([
        ("M_intra, train", COLOURS[0], false),
        ("M_intra, test", COLOURS[0], true),
        ("M_intra, predicted", PREDICTED[0], false),
        ("M_inter, train", COLOURS[1], false),
        ("M_inter, test", COLOURS[1], true),
        ("M_inter, predicted", PREDICTED[1], false),
        ("EER, ± deviation", COLOURS[2], false),
        (&stops, GREY, false),
    ]);
    let name = margin.name;
    writeln!(
        body,
        "<figure>{keys}{}{}</figure>",
        charts::lines(&format!("Angles over {name}, measured and predicted"), WIDE, &x, &y, &angles)?,
        charts::lines(&format!("Equal error rate over {name}"), (WIDE.0, 240), &x, &eer, &scores)?,
    )?;
    Ok(())
}

/// Figure 6: the score over m0, a line per remedy.
pub fn remedies(body: &mut String, results: &Results) -> Result {
    if results.remedies.len() < 2 {
        return Ok(()); // no line
    }
    let curve = |i: usize| {
        let points = results.remedies.iter().map(|(m0, runs)| (*m0, 100.0 * mean(&runs[i], |o| o.eer))).collect();
        line(COLOURS[i], false, points)
    };
    let curves: Vec<Curve> = (0..REMEDIES.len()).map(curve).collect();
    let most = curves.iter().flat_map(|c| &c.points).fold(0.0_f64, |most, point| most.max(point.1));
    let x = Axis::steps("m0", 0.2, 0.1, 6, plain);
    let y = Axis::up_to("unseen EER, %", most, 8, plain);
    let keys = legend(REMEDIES.iter().enumerate().map(|(i, &title)| (title, COLOURS[i], false)));
    let picture = charts::lines("Equal error rate over m0, one line per remedy", WIDE, &x, &y, &curves)?;
    writeln!(body, "<figure>{keys}{picture}</figure>")?;
    Ok(())
}

/// Figure 1: prototypes and test embeddings on the sphere, of the first repeat of each run.
pub fn spheres(body: &mut String, results: &Results) -> Result {
    let Some(view) = results.collapse.get(1).and_then(|(_, runs)| runs.first()) else { return Ok(()) };
    let view = View::of(&view.model.prototypes.value);
    body.push_str(
        "<p class=\"key\">Discs with numbers are prototypes, points the utterances in the colour of their voice; small and pale is \
         the far side. All spheres are seen from the same direction.</p>\n\
         <figure><div class=\"two\">\n",
    );
    // all utterances: four of a voice are few points
    let [train, test] = [&results.data.train, &results.data.test].map(|set| first_voices(set, FEW));
    for (job, runs) in results.collapse.iter().filter(|(job, _)| job.voices == FEW) {
        let Some(outcome) = runs.first() else { continue };
        let place = |set: &Set| -> Vec<([f64; 3], usize)> {
            view.turn(&outcome.model.embed(set)).into_iter().zip(set.labels.iter().map(|&l| l as usize)).collect()
        };
        let points = [place(&train), place(&test)].concat();
        let mark = |(class, at): (usize, [f64; 3])| (at, class, (class + 1).to_string());
        let marks: Vec<_> = view.turn(&outcome.model.prototypes.value).into_iter().enumerate().map(mark).collect();
        let title = escape(&job.title.replace(", 3 dimensions", ""));
        let picture = charts::sphere(&format!("Embeddings on a sphere: {title}"), 460, &points, &marks)?;
        writeln!(
            body,
            "<div><h3>{title}</h3><p class=\"key\">mean target cosine {}, |mean prototype| {:.2}</p>{picture}</div>",
            number(outcome.test.target_cosine, 2),
            outcome.mean_prototype,
        )?;
    }
    body.push_str("</div></figure>\n");
    Ok(())
}

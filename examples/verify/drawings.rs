//! ROC and DET, as pictures and on a page.

use std::fmt::Write;

use margin_softmax::verification::OperatingPoint;
use plotters::style::RGBColor;

use crate::{
    common::{
        Result,
        charts::{self, Axis, COLOURS, Curve, Panel, plain},
        page,
    },
    measures::{Measures, table},
};

/// Points of a curve.
const POINTS: usize = 400;

/// The diagonal of equal errors.
const GREY: RGBColor = RGBColor(128, 128, 128);

/// Error rates on the axes of a DET.
const TICKS: [f64; 11] = [1e-6, 1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95];

/// The least error rate that is drawn, as if one pair were wrong.
fn least(count: usize) -> f64 {
    (1.0 / count as f64).clamp(TICKS[0], 0.2)
}

/// The pairs of either kind: the same list for all scores.
fn counts(all: &[Measures]) -> [usize; 2] {
    all.first().map_or([1, 1], |m| [m.curve.different_pairs(), m.curve.same_pairs()])
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

/// The true accept rate over the logarithm of the false accept rate.
pub fn roc(all: &[Measures], size: (u32, u32)) -> Result<String> {
    let first = least(counts(all)[0]).log10().floor().min(-1.0);
    let percent = |at: f64| power(at + 2.0);
    let x = Axis::steps("false accept rate, %", first, 1.0, -first as usize, percent);
    let mut curves = vec![];
    for (place, m) in all.iter().enumerate() {
        let at = |p: &OperatingPoint| (p.false_accept_rate.log10().max(first), 100.0 * p.true_accept_rate());
        let points: Vec<_> = m.curve.thinned(POINTS)?.iter().map(at).collect();
        // of those left of the picture the last one, which is the highest
        let outside = points.iter().take_while(|point| point.0 <= first).count().saturating_sub(1);
        curves.push(Curve { colour: colour(place), dashed: place > 0, points: points[outside..].to_vec() });
    }
    let lowest = curves.iter().filter_map(|curve| curve.points.first()).map(|point| point.1).fold(100.0, f64::min);
    let y = Axis::around("true accept rate, %", [lowest.min(99.0), 100.0], 10, plain);
    charts::lines("True accept rate over the false accept rate", size, &x, &y, &curves)
}

/// 10 to a whole power.
fn power(at: f64) -> String {
    plain(10_f64.powi(at.round() as i32))
}

/// Both error rates as normal deviates: scores that are normally distributed give straight lines.
pub fn det(all: &[Measures], size: (u32, u32)) -> Result<String> {
    let worst = all.iter().map(|m| m.curve.equal_error_rate()).fold(0.0, f64::max);
    // room for both ends of the curves
    let last = TICKS.into_iter().find(|&tick| tick >= (3.0 * worst).clamp(0.4, 0.95)).unwrap_or(0.95);
    let counts = counts(all);
    let axis = |title, count: usize| {
        let first = TICKS.into_iter().rfind(|&tick| tick <= least(count)).unwrap_or(TICKS[0]);
        let ticks = TICKS.into_iter().filter(|tick| (first..=last).contains(tick)).map(probit).collect();
        Axis { title, ticks, label: percent }
    };
    let (x, y) = (axis("false accept rate, %", counts[0]), axis("miss rate, %", counts[1]));
    let inside = |rate: f64, count: usize| probit(rate.clamp(least(count), 1.0 - 1e-9));
    let ends = [0, 1].map(|end| [&x, &y].map(|axis| if end == 0 { axis.ticks[0] } else { probit(last) }));
    let diagonal = [ends[0][0].max(ends[0][1]), ends[1][0]].map(|at| (at, at)).to_vec();
    let mut curves = vec![Curve { colour: GREY, dashed: true, points: diagonal }];
    for (place, m) in all.iter().enumerate() {
        let at = |p: &OperatingPoint| (inside(p.false_accept_rate, counts[0]), inside(p.miss_rate, counts[1]));
        let points = m.curve.thinned(POINTS)?.iter().map(at).collect();
        curves.push(Curve { colour: colour(place), dashed: place > 0, points });
    }
    charts::lines("Miss rate over false accept rate, both as normal deviates", size, &x, &y, &curves)
}

/// The label of a tick of a DET.
fn percent(at: f64) -> String {
    let near = |a: &&f64, b: &&f64| (probit(**a) - at).abs().total_cmp(&(probit(**b) - at).abs());
    TICKS.iter().min_by(near).map_or(String::new(), |tick| plain(100.0 * tick))
}

/// The quantile of the standard normal distribution, by Acklam's rational approximation (relative error below 1.2e-9), for
/// 0 < p < 1.
pub fn probit(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];
    let polynomial = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    if p > 0.5 {
        return -probit(1.0 - p);
    }
    if p < 0.024_25 {
        let q = (-2.0 * p.ln()).sqrt();
        return polynomial(&C, q) / polynomial(&D, q);
    }
    let q = p - 0.5;
    q * polynomial(&A, q * q) / polynomial(&B, q * q)
}

/// A chart as a file of its own, with a line above it that says which curve is which.
pub fn file(all: &[Measures], title: &str, size: (u32, u32), chart: String) -> Result<String> {
    let key = all.iter().enumerate().map(|(place, m)| (m.title.to_owned(), Some(colour(place)))).collect();
    charts::sheet(title, size, &[Panel { title: title.into(), key, chart }])
}

/// The page; `about` says which trials these are.
pub fn html(all: &[Measures], about: &str, device: &str) -> Result<String> {
    let mut body = String::new();
    write!(
        body,
        "<h1>Verification</h1>\n<p>{}</p>\n<p class=\"device\">Cosines computed by: {}</p>\n<h2>Result</h2>\n",
        page::escape(about),
        page::escape(device),
    )?;
    let (header, rows) = table(all);
    page::table(&mut body, &header, &rows, |_| None)?;
    let legend = page::legend(all.iter().enumerate().map(|(place, m)| (m.title, colour(place), place > 0)));
    let size = (470, 400);
    write!(
        body,
        "<p>EER: the rate at which as large a share of the different pairs is accepted as of the same pairs is rejected,
linear between two thresholds. minDCF: the least detection cost over all thresholds with a miss and a false alarm of cost
1, divided by that of the better of rejecting and accepting everything. TAR at FAR: the largest share of same pairs that
is accepted by a threshold with at most that share of different pairs; where that is less than one pair, the list cannot tell.
Accuracy: each fold at the best threshold of the others, mean ± standard deviation.</p>
<h2>Both errors at every threshold</h2>
<figure>{legend}<div class=\"two\"><div><h3>ROC</h3>{}</div><div><h3>DET</h3>{}</div></div></figure>
<p>Grey dashes: equal error rates.</p>\n",
        roc(all, size)?,
        det(all, size)?,
    )?;
    Ok(page::page("Verification", &body, "Every number is of the trials named above, and of no others."))
}

//! The two claims of ChebyAAM about the curve of the label, in numbers: what happens at cos = ±1, and what hard examples get.

use margin_softmax::{
    MarginSoftmax,
    objective::{Damping, Fallback},
    theory::{Criterion, ln_wrong_class_sum, termination_angle},
};

use crate::{
    common::Result,
    losses::{DAMPINGS, DEGREES, Setting},
    trial::with_coefficients,
};

/// Angles near the prototype, degrees.
pub const NEAR: [f64; 5] = [10.0, 1.0, 0.1, 0.01, 0.0];

/// Angles of hard examples, degrees, the last of them close to the threshold of m = 0.2, 168.5°.
pub const HARD: [f64; 5] = [90.0, 120.0, 150.0, 160.0, 165.0];

/// So far above the threshold that no rounding moves a cosine across it.
const ABOVE: f64 = 1e-9;

/// A curve and its slopes.
pub struct Slopes {
    pub title: String,
    /// dφ/dcos.
    pub slopes: Vec<f64>,
    /// −dφ/dθ, the slope times sin θ: how hard an embedding is turned.
    pub pulls: Vec<f64>,
}

/// The curves at a margin: exact, every degree, and the highest degree fitted, damped and squashed.
pub fn curves(margin: f64) -> Vec<(String, MarginSoftmax)> {
    let highest = DEGREES[DEGREES.len() - 1];
    let mut all = vec![("exact (AAM)".to_string(), Setting::aam(margin).loss())];
    all.extend(DEGREES.iter().map(|&n| (format!("n = {n}"), Setting::damped(margin, n, Damping::None).loss())));
    all.push((format!("n = {highest}, authors' fit"), Setting::fit(margin).loss()));
    let damped = DAMPINGS.iter().filter(|(damping, _)| *damping != Damping::None);
    all.extend(
        damped.map(|(damping, name)| {
            (format!("n = {highest}, {name}"), Setting::damped(margin, highest, *damping).loss())
        }),
    );
    all.push((format!("n = {highest}, squash 2"), Setting::squashed(margin, 2).loss()));
    all.into_iter().map(|(title, loss)| (title, with_coefficients(&loss))).collect()
}

/// Every curve at the given angles, degrees.
pub fn at_angles(margin: f64, angles: &[f64]) -> Vec<Slopes> {
    let of = |(title, loss): (String, MarginSoftmax)| {
        let slopes: Vec<f64> = angles.iter().map(|angle| loss.target_value_slope(angle.to_radians().cos()).1).collect();
        let pulls = slopes.iter().zip(angles).map(|(slope, angle)| slope * angle.to_radians().sin()).collect();
        Slopes { title, slopes, pulls }
    };
    curves(margin).into_iter().map(of).collect()
}

/// At the other end, cos = −1: the slopes with the fallback of the authors' code, a straight line, and without any.
pub fn at_the_far_end(margin: f64) -> Vec<(String, [f64; 2])> {
    let unified = curves(margin).into_iter().filter(|(_, loss)| loss.clone().unified_mut().is_some());
    unified
        .map(|(title, loss)| {
            let endless = loss.clone().with_margin(|m| m.fallback = Fallback::None);
            (title, [loss, endless].map(|loss| loss.target_value_slope(-1.0).1))
        })
        .collect()
}

/// The slope of every curve just above its threshold, cos = −cos m; that of a squashed cosine is elsewhere, so it is left
/// out.
pub fn at_the_threshold(margin: f64) -> Vec<(String, f64)> {
    let unified = curves(margin).into_iter().filter(|(_, loss)| loss.clone().unified_mut().is_some());
    unified.map(|(title, loss)| (title, loss.target_value_slope(-margin.cos() + ABOVE).1)).collect()
}

/// Where a row counts as learned at VoxCeleb's size: the angle at which the label has the probability 0.95, degrees, and
/// the slopes of AAM and ChebyAAM there. Then the angle without a margin, and with a squashed cosine.
pub struct Learned {
    pub margin: f64,
    pub angle: f64,
    pub exact: f64,
    pub series: f64,
    pub normface: Option<f64>,
    pub squashed: Option<f64>,
}

/// VoxCeleb2's speakers, and the embedding and scale of the authors' configuration.
pub const VOXCELEB: (usize, usize, f64) = (5994, 192, 30.0);

/// At a margin; `None` where P never reaches 0.95.
pub fn learned(margin: f64) -> Result<Option<Learned>> {
    let (classes, dim, scale) = VOXCELEB;
    let exact = Setting::aam(margin).with_scale(scale).loss();
    let ln_b = ln_wrong_class_sum(classes, dim, scale)?;
    let end = |loss: &MarginSoftmax| termination_angle(loss, ln_b, Criterion::Probability(0.95));
    let [normface, squashed] = [Setting::normface(), Setting::squashed(margin, 2)]
        .map(|setting| end(&setting.with_scale(scale).loss()).map(|angle| angle.map(f64::to_degrees)));
    let (normface, squashed) = (normface?, squashed?);
    Ok(end(&exact)?.map(|angle| {
        let slope = |loss: MarginSoftmax| loss.target_value_slope(angle.cos()).1;
        Learned {
            margin,
            angle: angle.to_degrees(),
            exact: slope(exact),
            series: slope(Setting::cheby(margin).loss()),
            normface,
            squashed,
        }
    }))
}

//! The words of the page: what the paper says, and what came out.

use crate::{
    claims,
    common::{Result, runs::mean_deviation},
    experiments::Results,
    losses::{Kind, Setting},
    tables::{number, signed_spread},
};

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    mean_deviation(&values.into_iter().collect::<Vec<_>>()).0
}

pub fn compared(results: &Results) -> Result<String> {
    let plan = &results.plan;
    let mut differences = vec![];
    for &margin in &plan.margins {
        differences.push(format!("{} at m = {margin}", signed_spread(results.beyond_aam(&Setting::cheby(margin))?)));
    }
    let eer = |setting: &Setting| -> Result<f64> { Ok(mean(results.of(setting)?.errors.iter().map(|e| e.eer))) };
    let (plain, squashed) = (eer(&Setting::aam(plan.margins[0]))?, eer(&Setting::squashed(plan.margins[0], 2))?);
    let squashed = match squashed > plain {
        true => {
            "<code>pos_squash_k</code> is worse than no squashing: see the angles at which a row counts as learned, below"
        }
        false => "<code>pos_squash_k</code> is no worse than no squashing",
    };
    Ok(format!(
        "All pairs of utterances of voices that were never trained; mean over the seeds, ± their standard deviation. The
paper reports fewer errors of ChebyAAM than of AAM on VoxCeleb, SITW and CN-Celeb, which cannot be packaged. On these voices
the EER of ChebyAAM less that of AAM, with the same seed, is {} percentage points. The closed form and the authors' fit of the coefficients are
alike too. {squashed}.",
        differences.join(", ")
    ))
}

pub fn degrees(results: &Results) -> Result<String> {
    let plan = &results.plan;
    let mut shifts = vec![];
    for &margin in &plan.margins {
        for &degree in &plan.degrees {
            for &damping in &plan.dampings {
                let setting = Setting::damped(margin, degree, damping);
                shifts.push((mean(results.beyond_aam(&setting)?), setting.title()));
            }
        }
    }
    shifts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (best, worst) = (&shifts[0], &shifts[shifts.len() - 1]);
    Ok(format!(
        "The degree of the polynomial and the damping of its coefficients; the paper takes degree 30 without damping. Against
AAM with the same margin the means differ by {} ({}) to {} percentage points ({}). Damping at a low degree lowers the whole curve, which takes off margin;
it matters little from degree 15 on.",
        number(best.0, 2),
        best.1,
        number(worst.0, 2),
        worst.1,
    ))
}

pub fn scales(results: &Results) -> Result<String> {
    let plan = &results.plan;
    let [normface, aam, cheby] = plan.scaled();
    let eers = |setting: &Setting, scale: f64| -> Result<f64> {
        Ok(mean(results.of(&setting.clone().with_scale(scale))?.errors.iter().map(|e| e.eer)))
    };
    let (first, last) = (plan.scales[0], plan.scales[plan.scales.len() - 1]);
    let apart = |setting: &Setting| -> Result<f64> { Ok(eers(setting, last)? - eers(setting, first)?) };
    let mut between = 0.0_f64;
    for &scale in &plan.scales {
        between = between.max((eers(&aam, scale)? - eers(&cheby, scale)?).abs());
    }
    Ok(format!(
        "The scale s of the logits, with m = {}. From s = {first} to s = {last} the EER changes by {} points for NormFace
and by {} for AAM; between AAM and ChebyAAM it differs by at most {:.2}.",
        plan.margins[0],
        number(apart(&normface)?, 1),
        number(apart(&aam)?, 1),
        between,
    ))
}

/// The largest slope and cosine of the runs of a kind of loss.
fn largest(results: &Results, of: impl Fn(&Kind) -> bool) -> (f64, f32, f32) {
    let runs = results.runs.iter().filter(|runs| of(&runs.setting.kind));
    runs.fold((0.0, 1.0, -1.0), |(slope, low, high), runs| {
        let own = runs.largest.iter().map(|values| values[0]).fold(slope, f64::max);
        (own, low.min(runs.cosines[0]), high.max(runs.cosines[1]))
    })
}

pub fn explosion(results: &Results) -> Result<String> {
    let margin = results.plan.margins[0];
    let curves = claims::at_angles(margin, &claims::NEAR);
    let exact = &curves[0];
    let highest = curves.iter().find(|curve| curve.title == "n = 30").ok_or("no curve of degree 30")?;
    let [(aam, _, aam_cos), (series, _, series_cos)] =
        [largest(results, |kind| *kind == Kind::Aam), largest(results, |kind| matches!(kind, Kind::Series(_)))];
    Ok(format!(
        "The paper says that the derivative of arccos explodes at its ends and causes gradient peaks. With m = {margin} the slope dφ/dcos of the exact curve is
indeed {:.0} at 1°, {:.0} at 0.1° and {:.0} at 0.01° (the library bounds it at 0°, by dividing by no less than 10<sup>−4</sup>); that of the polynomial of degree 30 ends at {:.1}. But an
embedding feels the slope times dcos/dθ = −sin θ: the pull −dφ/dθ of the exact curve is {:.3}, {:.3} and {:.3} at the same angles and tends to sin m.
That is a cusp, not an explosion; the polynomial's pull tends to 0 there. What can explode is an implementation that differentiates arccos
by itself, at a cosine rounded to 1: then 0 · ∞ is NaN. In none of the runs below did it matter: the largest
slope at any step is {aam:.1} for AAM and {series:.1} for ChebyAAM in all its forms, at target cosines of at most {aam_cos:.3} and {series_cos:.3}. At the size of VoxCeleb2
(5,994 speakers, 192 dimensions, s = 30) a row has reached P = 0.95 long before, as the last table says. At cos = −1 the authors' code
and this library have left the curve for a straight line of slope 1. Without such a fallback both curves would
push the wrong way there, the exact one very hard.",
        exact.slopes[1], exact.slopes[2], exact.slopes[3], highest.slopes[4], exact.pulls[1], exact.pulls[2], exact.pulls[3],
    ))
}

pub fn hard(results: &Results) -> Result<String> {
    let least = results.runs.iter().map(|runs| runs.cosines[0]).fold(1.0_f32, f32::min);
    let mut verdicts = vec![];
    for &margin in &results.plan.margins {
        let slopes = claims::at_the_threshold(margin);
        let which = |stronger: bool| -> String {
            let plain = slopes.iter().filter(|(title, _)| title.starts_with("n = ") && !title.contains(','));
            let chosen = plain.filter(|(_, slope)| (*slope > 0.0) == stronger);
            let names: Vec<_> = chosen.map(|(title, _)| title.trim_start_matches("n = ")).collect();
            if names.is_empty() { "none".into() } else { names.join(", ") }
        };
        verdicts.push(format!("m = {margin}: pulls for n = {}, pushes away for n = {}", which(true), which(false)));
    }
    Ok(format!(
        "The paper says that AAM lacks a sharp gradient for hard examples and that ChebyAAM has a stronger one. The exact curve's slope falls to 0 at the threshold θ = π − m, where a
polynomial's need not. Just above it ({}). So the claim holds for low degrees at small margins; at degree 30 it holds for m = 0.2 alone of these margins, and for larger margins the slope is negative: such a row is pushed away from its prototype. Jackson's damping repairs the sign at degree 30, at a
slope close to 0, like AAM's. Away from the threshold, at 150° with m = 0.2, the curves of degree 9 and more differ from the exact one by less than 0.02.
How often it matters: the least target cosine of all runs is {least:.3}, or {:.0}°, so no row comes near a threshold. The authors' squashing does pull hard examples k(1 − cos)<sup>k−1</sup> times as hard, and easy ones hardly.",
        verdicts.join("; "),
        f64::from(least).acos().to_degrees(),
    ).replace('-', "−"))
}

pub fn steps(results: &Results) -> String {
    format!(
        "The largest values over the rows of a batch, and the norm of the batch's gradient to all weights of the network. Drawn: the
first seed at s = 30; the margin rises between steps {} and {}. In the table: the mean over the seeds of the largest value of the whole run, ± their deviation, and the
least and largest target cosine of all seeds.",
        steps_at(results, 2),
        steps_at(results, 5),
    )
}

/// Steps before a share of sevenths of the run.
fn steps_at(results: &Results, sevenths: usize) -> usize {
    let steps = results.runs.first().map_or(0, |runs| runs.steps.len());
    let epochs = results.plan.epochs;
    steps / epochs * (epochs * sevenths).div_ceil(7)
}

pub fn real(results: &Results) -> Result<String> {
    let accuracy = |setting: &Setting| -> Result<f64> {
        let found = results.vowels.accuracies.iter().find(|(own, _)| own == setting);
        let (_, all) = found.ok_or_else(|| format!("{} was not trained on the vowels", setting.title()))?;
        Ok(mean(all.iter().copied()))
    };
    let (mut best, mut between) = (0.0_f64, 0.0_f64);
    for &margin in &results.plan.margins {
        let [aam, cheby] = [accuracy(&Setting::aam(margin))?, accuracy(&Setting::cheby(margin))?];
        (best, between) = (best.max(aam).max(cheby), between.max((aam - cheby).abs()));
    }
    Ok(format!(
        "JapaneseVowels: 270 utterances of nine men to train on, 370 to test on. The share of test utterances nearest to the
own prototype; one utterance is 0.27 points. The nearest mean of the features themselves is right in {:.2} %, NormFace in
{:.2} %, the best margin in {best:.2} %. The means of AAM and ChebyAAM with the same margin differ by at most {between:.2} points.",
        results.vowels.untrained,
        accuracy(&Setting::normface())?,
    ))
}

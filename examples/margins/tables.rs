//! The results as tables, for the terminal and for the page.

use margin_softmax::theory::Criterion;

use crate::{
    common::Result,
    experiments::{CERTAIN, DIM, FALLBACKS, LARGE_SCALE, PULL, REMEDIES, Results, Runs, SCALE, Setting, Sweep},
    training::{BATCH, HIDDEN, Outcome, RATE, mean, over_repeats},
};

/// A table and its comments.
pub struct Sheet {
    pub title: String,
    /// For the page.
    pub text: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// The findings, a sentence each.
    pub notes: Vec<String>,
}

/// All of them, in the order of the page.
pub fn all(results: &Results) -> Result<Vec<Sheet>> {
    let mut all = results.sweeps.iter().map(|one| sweep(results, one)).collect::<Result<Vec<_>>>()?;
    all.extend(remedies(results));
    all.extend(table2(&results.table2));
    all.extend(collapse(&results.collapse));
    all.extend(curve(results));
    Ok(all)
}

/// How it was measured, for people.
pub fn protocol(results: &Results) -> String {
    let p = results.protocol;
    format!(
        "{}; 60 → {HIDDEN}, ReLU, → {DIM} values; {} {} of Adam in batches of {BATCH}, rate {RATE} falling to 0; \
         {} from seed {}{}; heads: {}",
        results.data.text(),
        p.epochs,
        if p.epochs == 1 { "epoch" } else { "epochs" },
        if p.repeats == 1 { "one run each".into() } else { format!("mean ± deviation of {} runs", p.repeats) },
        p.seed,
        if results.quick { "; the quick form, with fewer values" } else { "" },
        results.device
    )
}

fn titles<'a>(all: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    all.into_iter().map(String::from).collect()
}

/// With a true minus.
pub fn number(value: f64, digits: usize) -> String {
    format!("{value:.digits$}").replace('-', "−")
}

fn percent(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> String {
    match over_repeats(outcomes, |outcome| 100.0 * of(outcome)) {
        (mean, Some(deviation)) => format!("{mean:.1} ± {deviation:.1}"),
        (mean, None) => format!("{mean:.1}"),
    }
}

fn degrees(outcomes: &[Outcome], of: impl Fn(&Outcome) -> f64) -> String {
    number(mean(outcomes, of).to_degrees(), 1)
}

/// Runs with a warning, of all.
fn warnings(outcomes: &[Outcome]) -> String {
    let warned = outcomes.iter().filter(|outcome| outcome.warned.is_some()).count();
    format!("{warned} of {}", outcomes.len())
}

fn sweep(results: &Results, Sweep { margin, points }: &Sweep) -> Result<Sheet> {
    let setting = Setting::new(results.data.classes, DIM, SCALE)?;
    let angle = |angle: Option<f64>| angle.map_or("–".into(), |angle| number(angle.to_degrees(), 1));
    let mut rows = Vec::new();
    for (value, outcomes) in points {
        let certain = setting.stop(margin, *value, Criterion::Probability(CERTAIN))?;
        let pull = setting.stop(margin, *value, Criterion::Gradient(PULL))?;
        rows.push(vec![
            value.to_string(),
            angle(certain.map(|[stop, _]| stop)),
            angle(pull.map(|[stop, _]| stop)),
            angle(certain.map(|[_, within]| within)),
            degrees(outcomes, |o| o.train.intra),
            degrees(outcomes, |o| o.test.intra),
            degrees(outcomes, |o| o.train.inter),
            degrees(outcomes, |o| o.test.inter),
            degrees(outcomes, |o| o.nearest.mean),
            percent(outcomes, |o| o.test.accuracy),
            percent(outcomes, |o| o.eer),
        ]);
    }
    let header = titles([
        margin.name,
        "stop by P = 0.95",
        "stop by pull 1",
        "M_intra predicted",
        "M_intra train",
        "M_intra test",
        "M_inter train",
        "M_inter test",
        "nearest prototype",
        "test accuracy, %",
        "unseen EER, %",
    ]);
    let with = match margin.place {
        0 => ", with WC-ReLU",
        1 => ", fallback mirror",
        _ => "",
    };
    Ok(Sheet {
        title: format!("Sweep of {} ({}{with}), s = {SCALE}", margin.name, margin.family),
        text: format!(
            "Angles in degrees. By theory training stops where P(y) is above 0.95, or where the pull dL/dθ is below 1 per \
             radian; M_intra is the mean angle within the first of the two, and M_inter {:.1}° whatever the margin. \
             Nearest prototype is the mean angle from a trained prototype to the nearest other one.",
            setting.nearest.to_degrees()
        ),
        header,
        rows,
        notes: conjecture(&setting, margin.name, points, setting.optimum(margin)?),
    })
}

/// Whether the margin that the theory predicts is the best, and whether M_inter depends on the margin.
fn conjecture(setting: &Setting, name: &str, points: &[(f64, Vec<Outcome>)], optimum: Option<f64>) -> Vec<String> {
    let eer = |point: &&(f64, Vec<Outcome>)| mean(&point.1, |o| o.eer);
    let best = points.iter().min_by(|a, b| eer(a).total_cmp(&eer(b)));
    let Some(best) = best else { return vec![] };
    let lowest = format!("the lowest EER, {:.1} %, is at {name} = {}", 100.0 * eer(&best), best.0);
    let first = match optimum {
        Some(optimum) => {
            let nearest = points.iter().min_by(|a, b| (a.0 - optimum).abs().total_cmp(&(b.0 - optimum).abs()));
            let near = nearest.unwrap_or(best);
            // the value that is swept next to the prediction
            let of = |point: &(f64, Vec<Outcome>)| over_repeats(&point.1, |o| o.eer);
            let ((near_eer, near_spread), (best_eer, best_spread)) = (of(near), of(best));
            let spread = near_spread.unwrap_or(0.0).max(best_spread.unwrap_or(0.0));
            let comes_out = match near.0 == best.0 {
                true => "comes out",
                false if near_eer - best_eer <= spread => "is left open, within one deviation of the runs",
                false => "does not come out",
            };
            format!(
                "The conjecture that the predicted margin is the best {comes_out}: it predicts {name} = {optimum:.3}, next to which the EER is {:.1} % \
                 ({name} = {}); {lowest}.",
                100.0 * eer(&near),
                near.0
            )
        }
        None => format!("Theory has no {name} that stops half way; {lowest}."),
    };
    let inter = |point: &(f64, Vec<Outcome>)| mean(&point.1, |o| o.train.inter).to_degrees();
    let (low, high) = points.iter().map(inter).fold((180.0_f64, 0.0_f64), |(l, h), a| (l.min(a), h.max(a)));
    let second = format!(
        "M_inter on the training utterances moves from {low:.1}° to {high:.1}° over the sweep; theory has {:.1}° whatever \
         the margin.",
        setting.nearest.to_degrees()
    );
    let warned = points.iter().filter(|(_, runs)| runs.iter().any(|run| run.warned.is_some()));
    let warned: Vec<String> = warned.map(|(value, _)| value.to_string()).collect();
    let third = match warned.len() {
        0 => "No run has a collapse warning.".into(),
        _ => format!(
            "Runs at {name} = {} have a collapse warning: embeddings lie behind the equator of their own prototype, even \
             where it is the nearest.",
            warned.join(", ")
        ),
    };
    vec![first, second, third]
}

fn remedies(results: &Results) -> Vec<Sheet> {
    let all = &results.remedies;
    if all.is_empty() {
        return vec![];
    }
    let header = |first: &str| -> Vec<String> {
        std::iter::once(first.to_string()).chain(all.iter().map(|(m0, _)| format!("m0 = {m0}"))).collect()
    };
    let rows = |cell: &dyn Fn(&[Outcome]) -> String| -> Vec<Vec<String>> {
        let row = |(i, title): (usize, &&str)| {
            std::iter::once(title.to_string()).chain(all.iter().map(|(_, runs)| cell(&runs[i]))).collect()
        };
        REMEDIES.iter().enumerate().map(row).collect()
    };
    let mut notes = vec![];
    if let Some((_, runs)) = all.iter().find(|(m0, _)| *m0 == 0.5) {
        let order = order(runs).map(|i| REMEDIES[i]);
        notes.push(format!("At m0 = 0.5, from the lowest EER: {}.", order.join("; ")));
        let published = order.iter().eq(REMEDIES.iter().rev());
        let comes_out = if published { "comes out" } else { "does not come out" };
        notes.push(format!(
            "The order of figure 6 (WC-ReLU, Reg_ss, UniformFace, plain, from the best) {comes_out} there."
        ));
    }
    let cosine = |outcomes: &[Outcome]| {
        format!("{}, {}", number(mean(outcomes, |o| o.test.target_cosine), 2), warnings(outcomes))
    };
    vec![
        Sheet {
            title: format!("Remedies over m0, s = {LARGE_SCALE}: EER of unseen voices, %"),
            text: "An amplitude below 1 makes the other classes push harder than the own one pulls. Alone it collapses; the \
                   penalties hold the prototypes apart, and WC-ReLU takes the force off classes behind the equator."
                .into(),
            header: header("remedy"),
            rows: rows(&|outcomes| percent(outcomes, |o| o.eer)),
            notes,
        },
        Sheet {
            title: "Remedies over m0: mean target cosine of test utterances, and runs with a collapse warning".into(),
            text: "Below 0 an average embedding lies behind its own prototype's equator. The warning is the library's at its \
                   default thresholds, from the readings of every epoch."
                .into(),
            header: header("remedy"),
            rows: rows(&cosine),
            notes: vec![],
        },
    ]
}

/// The remedies from the lowest EER on.
pub fn order(runs: &[Vec<Outcome>]) -> [usize; 4] {
    let mut order = [0, 1, 2, 3];
    order.sort_by(|&a, &b| mean(&runs[a], |o| o.eer).total_cmp(&mean(&runs[b], |o| o.eer)));
    order
}

fn table2(runs: &Runs) -> Option<Sheet> {
    let row = |(job, outcomes): &(crate::training::Job, Vec<Outcome>)| {
        vec![
            job.title.clone(),
            percent(outcomes, |o| o.test.accuracy),
            percent(outcomes, |o| o.eer),
            number(mean(outcomes, |o| o.min_cost), 3),
            degrees(outcomes, |o| o.train.intra),
            degrees(outcomes, |o| o.train.inter),
            degrees(outcomes, |o| o.test.intra),
            degrees(outcomes, |o| o.test.inter),
        ]
    };
    let header = [
        "loss",
        "test accuracy, %",
        "unseen EER, %",
        "min DCF",
        "M_intra train",
        "M_inter train",
        "M_intra test",
        "M_inter test",
    ];
    let best = runs.iter().min_by(|a, b| mean(&a.1, |o| o.eer).total_cmp(&mean(&b.1, |o| o.eer)))?;
    Some(Sheet {
        title: format!("All families, s = {SCALE}"),
        text: "In the place of table 2, whose face benchmarks are not public: each margin as its own paper has it, and as \
               the theory predicts it for these classes and dimensions (training stops half way to the nearest prototype \
               with P = 0.95). Min DCF is the lowest detection cost with one target in a hundred."
            .into(),
        header: titles(header),
        rows: runs.iter().map(row).collect(),
        notes: vec![format!("The lowest EER is that of {}.", best.0.title)],
    })
}

fn collapse(runs: &Runs) -> Option<Sheet> {
    let row = |(job, outcomes): &(crate::training::Job, Vec<Outcome>)| {
        let first = outcomes.iter().filter_map(|outcome| outcome.warned).min();
        vec![
            job.title.replace(", 3 dimensions", ""),
            number(mean(outcomes, |o| o.train.target_cosine), 3),
            number(mean(outcomes, |o| o.test.target_cosine), 3),
            number(mean(outcomes, |o| o.mean_prototype), 3),
            percent(outcomes, |o| o.test.accuracy),
            percent(outcomes, |o| o.eer),
            warnings(outcomes),
            first.map_or("–".into(), |step| format!("step {step}")),
        ]
    };
    let header = [
        "loss",
        "target cosine train",
        "target cosine test",
        "|mean prototype|",
        "test accuracy, %",
        "unseen EER, %",
        "warned",
        "first warning",
    ];
    (!runs.is_empty()).then(|| Sheet {
        title: format!("Polar collapse in three dimensions, s = {LARGE_SCALE}"),
        text: "After figure 1: where the loss collapses, all embeddings gather at one pole and the prototypes keep away from \
               it. Behind the equator of every prototype the loss is near 0 already, so nothing sorts them. Sixty voices are \
               far too many for a sphere, so accuracy is low in any case; the pictures have eight, trained on as many rows."
            .into(),
        header: titles(header),
        rows: runs.iter().map(row).collect(),
        notes: vec![],
    })
}

fn curve(results: &Results) -> Option<Sheet> {
    let mut header = vec!["m1".to_string()];
    for (name, _) in &FALLBACKS {
        header.extend([
            format!("{name}: test accuracy, %"),
            format!("{name}: EER, %"),
            format!("{name}: target cosine"),
        ]);
    }
    let row = |(m1, runs): &(f64, Vec<Vec<Outcome>>)| {
        let mut cells = vec![m1.to_string()];
        for outcomes in runs {
            let accuracy = percent(outcomes, |o| o.test.accuracy);
            let cosine = number(mean(outcomes, |o| o.test.target_cosine), 2);
            cells.extend([accuracy, percent(outcomes, |o| o.eer), cosine]);
        }
        cells
    };
    (!results.curve.is_empty()).then(|| Sheet {
        title: format!("Large angle factors, s = {LARGE_SCALE}"),
        text: "cos(m1·θ) turns round where m1·θ passes 180°, for m1 = 1.85 at 97°: without a fallback an embedding beyond \
               that is pushed away. The flattened curves go on falling: <code>mirror</code> as SphereFace's ψ, \
               <code>continuous</code> with slope 1."
            .into(),
        header,
        rows: results.curve.iter().map(row).collect(),
        notes: vec![],
    })
}

//! The experiments: sweeps over each margin, the remedies of the collapse, the table of all families, the collapse in three
//! dimensions, and large angle factors.

use margin_softmax::{
    Backend, MarginSoftmax, Others, Regularizer, Result as LibraryResult,
    objective::Fallback,
    theory::{self, Criterion},
};

use crate::{
    common::{Result, progress::Progress, readings::Reading},
    data::Data,
    training::{Job, Outcome, Protocol, run_all},
};

/// Dimension of an embedding, but for the sphere.
pub const DIM: usize = 32;
/// Voices of the pictured spheres.
pub const FEW: usize = 8;
/// The scale of sweeps and table.
pub const SCALE: f64 = 30.0;
/// The scale of remedies and collapses: the unified paper's.
pub const LARGE_SCALE: f64 = 64.0;
/// The probability at which training counts as finished.
pub const CERTAIN: f64 = 0.95;
/// The pull, per radian, at which it does.
pub const PULL: f64 = 1.0;

/// One of m0 to m3.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Margin {
    pub name: &'static str,
    pub family: &'static str,
    /// Its place in m0..m3.
    pub place: usize,
    /// The values of a sweep; the first is no margin.
    pub values: &'static [f64],
    /// The value in its own paper.
    pub published: f64,
}

/// All of them, in their order.
pub const MARGINS: [Margin; 4] = [
    Margin {
        name: "m0",
        family: "AmpFace",
        place: 0,
        values: &[1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2],
        published: 0.35,
    },
    Margin {
        name: "m1",
        family: "SphereFace",
        place: 1,
        values: &[1.0, 1.15, 1.3, 1.45, 1.6, 1.75, 1.9, 2.05, 2.2],
        published: 1.35,
    },
    Margin {
        name: "m2",
        family: "ArcFace",
        place: 2,
        values: &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
        published: 0.5,
    },
    Margin {
        name: "m3",
        family: "CosFace",
        place: 3,
        values: &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        published: 0.35,
    },
];

impl Margin {
    /// The loss with this margin alone. So that no run collapses, an amplitude comes with WC-ReLU, as in the unified paper's
    /// own advice, and an angle factor goes on falling past 180°.
    pub fn loss(&self, value: f64, scale: f64) -> MarginSoftmax {
        let mut margins = [1.0, 1.0, 0.0, 0.0];
        margins[self.place] = value;
        let [m0, m1, m2, m3] = margins;
        let loss = MarginSoftmax::unified(m0, m1, m2, m3).with_scale(scale);
        match self.place {
            0 => loss.with_others(Others::Rectified),
            1 => loss.with_margin(|m| m.fallback = Fallback::Mirror),
            _ => loss,
        }
    }

    /// The values of a sweep; for a quick look every fourth.
    fn swept(&self, quick: bool) -> Vec<f64> {
        self.values.iter().copied().step_by(if quick { 4 } else { 1 }).collect()
    }
}

/// The theory's predictions for a number of classes.
#[derive(Clone, Copy)]
pub struct Setting {
    pub classes: usize,
    pub dim: usize,
    pub scale: f64,
    /// Of the nearest other prototype: M_inter.
    pub nearest: f64,
}

impl Setting {
    pub fn new(classes: usize, dim: usize, scale: f64) -> LibraryResult<Self> {
        Ok(Self { classes, dim, scale, nearest: theory::nearest_prototype_angle(classes, dim)? })
    }

    /// ln B, with WC-ReLU where the margin comes with it.
    fn ln_b(&self, margin: &Margin) -> LibraryResult<f64> {
        let of = if margin.place == 0 { theory::ln_wrong_class_sum_rectified } else { theory::ln_wrong_class_sum };
        of(self.classes, self.dim, self.scale)
    }

    /// Radians: where training stops with a margin, and the mean angle of embeddings that fill the cap within, M_intra.
    /// None where training never stops.
    pub fn stop(&self, margin: &Margin, value: f64, criterion: Criterion) -> LibraryResult<Option<[f64; 2]>> {
        let stop = theory::termination_angle(&margin.loss(value, self.scale), self.ln_b(margin)?, criterion)?;
        let within = |cap: f64| Ok([cap, theory::mean_angle_within(cap, self.dim)?]);
        stop.filter(|&cap| cap > 0.0).map(within).transpose()
    }

    /// The margin that stops training half way to the nearest other prototype: the paper's conjecture is that it is the best.
    pub fn optimum(&self, margin: &Margin) -> LibraryResult<Option<f64>> {
        let criterion = Criterion::Probability(CERTAIN);
        let best = theory::optimal_margin(self.nearest / 2.0, self.ln_b(margin)?, self.scale, criterion)?;
        Ok([best.m0, best.m1, best.m2, best.m3][margin.place])
    }
}

/// The experiments that were chosen.
#[derive(Clone, Default)]
pub struct Parts {
    /// Places in [`MARGINS`].
    pub sweeps: Vec<usize>,
    pub remedies: bool,
    pub table2: bool,
    pub collapse: bool,
    pub curve: bool,
}

impl Parts {
    /// Everything.
    pub fn all() -> Self {
        let sweeps = (0..MARGINS.len()).collect();
        Self { sweeps, remedies: true, table2: true, collapse: true, curve: true }
    }
}

/// A sweep: the margin, and per value all repeats.
pub struct Sweep {
    pub margin: Margin,
    pub points: Vec<(f64, Vec<Outcome>)>,
}

/// Titled runs with all their repeats.
pub type Runs = Vec<(Job, Vec<Outcome>)>;

/// Everything that was measured.
pub struct Results {
    pub device: String,
    pub protocol: Protocol,
    pub data: Data,
    pub quick: bool,
    pub sweeps: Vec<Sweep>,
    /// Per m0, the remedies in the order of [`REMEDIES`].
    pub remedies: Vec<(f64, Vec<Vec<Outcome>>)>,
    pub table2: Runs,
    pub collapse: Runs,
    /// Per m1, each of [`FALLBACKS`].
    pub curve: Vec<(f64, Vec<Vec<Outcome>>)>,
}

/// The amplitudes of figure 6.
pub const AMPLITUDES: [f64; 5] = [0.8, 0.65, 0.5, 0.35, 0.2];
/// In the order in which figure 6 of the unified paper ranks them at m0 = 0.5, the best last.
pub const REMEDIES: [&str; 4] = ["plain", "UniformFace, λ = 100", "Reg_ss, λ = 10", "WC-ReLU"];
/// Angle factors of 1.8 and more, and one below.
pub const FACTORS: [f64; 4] = [1.5, 1.85, 2.0, 2.2];
/// The cosine as it stands past 180°, and the flattened curves.
pub const FALLBACKS: [(&str, Fallback); 3] =
    [("none", Fallback::None), ("mirror", Fallback::Mirror), ("continuous", Fallback::Continuous)];

/// An amplitude with one of the remedies.
fn remedied(m0: f64, remedy: usize, dim: usize) -> Job {
    let loss = MarginSoftmax::unified(m0, 1.0, 0.0, 0.0).with_scale(LARGE_SCALE);
    let title = format!("m0 = {m0}, {}, {dim} dimensions", REMEDIES[remedy]);
    match remedy {
        1 => Job::new(title, loss, dim).with_regularizer(Regularizer::uniform_face().with_weight(100.0)),
        2 => Job::new(title, loss, dim).with_regularizer(Regularizer::reg_ss().with_weight(10.0)),
        3 => Job::new(title, loss.with_others(Others::Rectified), dim),
        _ => Job::new(title, loss, dim),
    }
}

/// No margin, then each margin as its paper has it and at the predicted optimum.
fn families(setting: &Setting) -> LibraryResult<Vec<Job>> {
    let mut jobs = vec![Job::new("NormFace", MarginSoftmax::normface().with_scale(SCALE), DIM)];
    for margin in &MARGINS {
        let Margin { name, family, published, .. } = margin;
        jobs.push(Job::new(format!("{family}, {name} = {published}"), margin.loss(*published, SCALE), DIM));
        if let Some(best) = setting.optimum(margin)? {
            jobs.push(Job::new(format!("{family}, predicted {name} = {best:.3}"), margin.loss(best, SCALE), DIM));
        }
    }
    Ok(jobs)
}

/// The collapse on a sphere: no margin, an amplitude alone, and with its remedies; for a picture with few voices.
fn spheres() -> Vec<Job> {
    let plain = MarginSoftmax::normface().with_scale(LARGE_SCALE);
    let plain = Job::new("m0 = 1, plain, 3 dimensions", plain, 3);
    let all: Vec<Job> = std::iter::once(plain).chain([0, 2, 3].map(|remedy| remedied(0.35, remedy, 3))).collect();
    let few = all.iter().cloned().map(|job| job.with_voices(FEW));
    few.chain(all.iter().cloned()).collect()
}

fn large_factor(m1: f64, (name, fallback): &(&str, Fallback)) -> Job {
    let loss = MarginSoftmax::unified(1.0, m1, 0.0, 0.0).with_scale(LARGE_SCALE);
    Job::new(format!("m1 = {m1}, {name}"), loss.with_margin(|m| m.fallback = *fallback), DIM)
}

impl Results {
    /// Everything that is wanted, all its runs side by side.
    pub fn measure(backend: &Backend, data: Data, protocol: Protocol, parts: &Parts, quick: bool) -> Result<Self> {
        let setting = Setting::new(data.classes, DIM, SCALE)?;
        let sweeps: Vec<(Margin, Vec<f64>)> =
            parts.sweeps.iter().map(|&place| (MARGINS[place], MARGINS[place].swept(quick))).collect();
        let wanted = |wanted: bool, values: &[f64], of_quick: f64| match (wanted, quick) {
            (false, _) => vec![],
            (true, true) => vec![of_quick],
            (true, false) => values.to_vec(),
        };
        let amplitudes = wanted(parts.remedies, &AMPLITUDES, 0.5);
        let factors = wanted(parts.curve, &FACTORS, 1.85);
        let mut jobs = Vec::new();
        for (margin, values) in &sweeps {
            let title = |value| format!("{} = {value}, s = {SCALE}", margin.name);
            jobs.extend(values.iter().map(|&value| Job::new(title(value), margin.loss(value, SCALE), DIM)));
        }
        jobs.extend(amplitudes.iter().flat_map(|&m0| (0..REMEDIES.len()).map(move |i| remedied(m0, i, DIM))));
        jobs.extend(factors.iter().flat_map(|&m1| FALLBACKS.iter().map(move |fallback| large_factor(m1, fallback))));
        let table2 = if parts.table2 { families(&setting)? } else { vec![] };
        let spheres = if parts.collapse { spheres() } else { vec![] };
        jobs.extend(table2.iter().chain(&spheres).cloned());

        let progress = Progress::new(jobs.len() * protocol.repeats);
        let mut all = run_all(backend, &data, &jobs, &protocol, &progress)?.into_iter();
        progress.finish();
        let mut some = |count: usize| all.by_ref().take(count).collect::<Vec<_>>();
        let sweeps = sweeps
            .into_iter()
            .map(|(margin, values)| Sweep { margin, points: values.iter().copied().zip(some(values.len())).collect() })
            .collect();
        let remedies = amplitudes.iter().map(|&m0| (m0, some(REMEDIES.len()))).collect();
        let curve = factors.iter().map(|&m1| (m1, some(FALLBACKS.len()))).collect();
        let table2 = {
            let outcomes = some(table2.len());
            table2.into_iter().zip(outcomes).collect()
        };
        let collapse = {
            let outcomes = some(spheres.len());
            spheres.into_iter().zip(outcomes).collect()
        };
        Ok(Self { device: backend.name(), protocol, data, quick, sweeps, remedies, table2, collapse, curve })
    }

    /// Of all runs.
    pub fn readings(&self) -> impl Iterator<Item = &Reading> {
        let sweeps = self.sweeps.iter().flat_map(|sweep| sweep.points.iter().map(|point| &point.1));
        let grids = self.remedies.iter().chain(&self.curve).flat_map(|(_, runs)| runs);
        let lists = self.table2.iter().chain(&self.collapse).map(|run| &run.1);
        sweeps.chain(grids).chain(lists).flatten().flat_map(|outcome| &outcome.readings)
    }
}

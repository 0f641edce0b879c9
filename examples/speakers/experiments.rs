//! All runs of the example.

use margin_softmax::{Backend, objective::Damping};

use crate::{
    common::{Result, learner::Model, progress::Progress, readings::Reading, runs::parallel, voices::Voices},
    losses::{DAMPINGS, DEGREES, MARGINS, SCALE, Setting},
    trial::{self, EPOCHS, Errors, Extremes, Trial, sizes},
    vowels::{self, Vowels},
};

/// The plan of the runs.
#[derive(Clone)]
pub struct Plan {
    /// Times through the seen voices.
    pub epochs: usize,
    /// Runs of each loss, with the seeds `seed`, `seed + 1`, ...
    pub repeats: usize,
    pub seed: u64,
    /// Of the table degree × damping × margin.
    pub degrees: Vec<usize>,
    pub dampings: Vec<Damping>,
    pub margins: Vec<f64>,
    /// Of the table of scales.
    pub scales: Vec<f64>,
}

impl Plan {
    pub fn full(seed: u64) -> Self {
        Self {
            epochs: EPOCHS,
            repeats: 5,
            seed,
            degrees: DEGREES.to_vec(),
            dampings: DAMPINGS.map(|(damping, _)| damping).to_vec(),
            margins: MARGINS.to_vec(),
            scales: vec![2.0, 5.0, 10.0, SCALE, 64.0],
        }
    }

    /// Some of it, in seconds.
    pub fn quick(seed: u64) -> Self {
        Self {
            epochs: 14,
            repeats: 2,
            degrees: vec![3, 30],
            dampings: vec![Damping::None, Damping::Jackson],
            margins: vec![0.2, 0.5],
            scales: vec![5.0, SCALE],
            ..Self::full(seed)
        }
    }

    /// The losses of the first table.
    pub fn compared(&self) -> Vec<Setting> {
        let all = self.margins.iter().flat_map(|&m| [Setting::aam(m), Setting::cheby(m), Setting::fit(m)]);
        let squashed = [2, 3].map(|power| Setting::squashed(self.margins[0], power));
        [Setting::normface()].into_iter().chain(all).chain(squashed).collect()
    }

    /// The losses whose scale is varied.
    pub fn scaled(&self) -> [Setting; 3] {
        [Setting::normface(), Setting::aam(self.margins[0]), Setting::cheby(self.margins[0])]
    }

    /// The losses whose steps are drawn.
    pub fn traced(&self) -> Vec<Setting> {
        let [first, last] = [self.margins[0], self.margins[self.margins.len() - 1]];
        vec![
            Setting::normface(),
            Setting::aam(first),
            Setting::cheby(first),
            Setting::aam(last),
            Setting::cheby(last),
            Setting::squashed(first, 2),
        ]
    }

    /// Every loss once.
    pub fn settings(&self) -> Vec<Setting> {
        let mut all = self.compared();
        for &margin in &self.margins {
            for &damping in &self.dampings {
                all.extend(self.degrees.iter().map(|&degree| Setting::damped(margin, degree, damping)));
            }
        }
        for &scale in &self.scales {
            all.extend(self.scaled().map(|setting| setting.with_scale(scale)));
        }
        let mut once: Vec<Setting> = vec![];
        for setting in all {
            if !once.contains(&setting) {
                once.push(setting);
            }
        }
        once
    }
}

/// A loss and its runs, one per seed.
pub struct Runs {
    pub setting: Setting,
    pub errors: Vec<Errors>,
    /// The largest of each run.
    pub largest: Vec<Extremes>,
    /// The least and the largest target cosine of all runs.
    pub cosines: [f32; 2],
    /// Every step of the first run.
    pub steps: Vec<Extremes>,
    /// Monitor readings of all runs.
    pub readings: Vec<Reading>,
    /// Runs with a collapse warning.
    pub warned: usize,
}

/// Everything that was measured.
pub struct Results {
    pub device: String,
    pub plan: Plan,
    /// Of the features themselves.
    pub raw: Errors,
    /// Of the network before training, one per seed.
    pub untrained: Vec<Errors>,
    pub runs: Vec<Runs>,
    pub vowels: Vowels,
}

impl Results {
    pub fn measure(backend: &Backend, plan: Plan) -> Result<Self> {
        let voices = Voices::load()?;
        let (seen, unseen) = (&voices.seen, &voices.unseen);
        let (settings, repeats) = (plan.settings(), plan.repeats);
        let progress = Progress::new(settings.len() * repeats);
        let trials = parallel(settings.len() * repeats, |job| {
            let (setting, seed) = (&settings[job / repeats], plan.seed.wrapping_add((job % repeats) as u64));
            let trial = trial::run(backend, setting, seen, unseen, plan.epochs, seed)
                .map_err(|why| format!("{}, scale {}, seed {seed}: {why}", setting.title(), setting.scale));
            progress.advance(|| format!("{}, scale {}, seed {seed}", setting.title(), setting.scale));
            Ok(trial?)
        })?;
        progress.line(|| format!("{} losses, {repeats} runs each", settings.len()));
        progress.finish();

        let mut trials = trials.into_iter();
        let runs =
            settings.into_iter().map(|setting| group(setting, trials.by_ref().take(repeats).collect())).collect();
        let seeds = (0..repeats as u64).map(|i| plan.seed.wrapping_add(i));
        let untrained = seeds.map(|seed| {
            let model = Model::untrained(&sizes(), seed);
            Errors::of(&model.embed(unseen), &unseen.labels)
        });
        Ok(Self {
            device: backend.name(),
            raw: Errors::of(&unseen.inputs, &unseen.labels)?,
            untrained: untrained.collect::<Result<_>>()?,
            runs,
            vowels: vowels::measure(backend, &plan)?,
            plan,
        })
    }

    /// The runs of a loss; the plan has it.
    pub fn of(&self, setting: &Setting) -> Result<&Runs> {
        let found = self.runs.iter().find(|runs| runs.setting == *setting);
        found.ok_or_else(|| format!("{} was not trained", setting.title()).into())
    }

    /// The EER of a loss less that of AAM with the same margin, scale and seed, one per seed.
    pub fn beyond_aam(&self, setting: &Setting) -> Result<Vec<f64>> {
        let aam = self.of(&Setting::aam(setting.margin).with_scale(setting.scale))?;
        Ok(self.of(setting)?.errors.iter().zip(&aam.errors).map(|(own, aam)| own.eer - aam.eer).collect())
    }
}

fn group(setting: Setting, mut trials: Vec<Trial>) -> Runs {
    let wider = |[low, high]: [f32; 2], trial: &Trial| [low.min(trial.cosines[0]), high.max(trial.cosines[1])];
    Runs {
        setting,
        errors: trials.iter().map(|trial| trial.errors).collect(),
        largest: trials.iter().map(Trial::largest).collect(),
        cosines: trials.iter().fold([f32::INFINITY, f32::NEG_INFINITY], wider),
        warned: trials.iter().filter(|trial| trial.warned.is_some()).count(),
        readings: trials.iter_mut().flat_map(|trial| std::mem::take(&mut trial.readings)).collect(),
        steps: trials.into_iter().next().map(|trial| trial.steps).unwrap_or_default(),
    }
}

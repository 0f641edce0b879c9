//! The losses as this example trains them, and how.

use margin_softmax::{
    Adaptive, Backend, CenterLoss, MarginSoftmax, Others, Regularizer, Similarity, Target,
    objective::{Fallback, Ramp, Schedules},
};

use crate::common::{
    Result,
    digits::{Digits, PIXELS, SEEN},
    learner::{self, Course, Model, Objective, Sizes},
};

/// Papers use 30 to 64 for thousands of classes; eight need less.
const SCALE: f64 = 16.0;

/// Between pixels and embedding.
const HIDDEN: usize = 128;

/// Rows of a step.
const BATCH: usize = 64;

/// A loss as this example trains it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// As `--loss` takes it.
    pub name: String,
    /// For people.
    pub title: String,
    pub loss: MarginSoftmax,
}

/// The losses that are trained unless told otherwise: names and titles.
pub const LOSSES: [(&str, &str); 5] = [
    ("normface", "NormFace"),
    ("arcface", "ArcFace"),
    ("cosface", "CosFace"),
    ("ampface", "AmpFace"),
    ("chebyaam", "ChebyAAM"),
];

impl Loss {
    /// The five of `LOSSES`.
    pub fn all() -> Vec<Self> {
        LOSSES.iter().filter_map(|(name, _)| Self::named(name).ok()).collect()
    }

    /// One of `LOSSES` with margins and a scale that suit eight classes, else a preset of the library as it is.
    pub fn named(name: &str) -> Result<Self> {
        let preset = MarginSoftmax::named(name)?;
        let suited = match name {
            "normface" => Some(preset),
            "arcface" | "chebyaam" => Some(preset.with_margin(|m| m.m2 = 0.3)),
            "cosface" => Some(preset.with_margin(|m| m.m3 = 0.2)),
            // an amplitude alone pushes the others harder than it pulls the target: images end up opposite all prototypes
            "ampface" => Some(preset.with_margin(|m| m.m0 = 0.5).with_others(Others::Rectified)),
            _ => None,
        };
        let title = LOSSES.iter().find(|(known, _)| *known == name).map_or(name, |(_, title)| title);
        let loss = suited.map_or_else(|| MarginSoftmax::named(name), |loss| Ok(loss.with_scale(SCALE)))?;
        Ok(Self { name: name.into(), title: title.into(), loss })
    }

    /// Margin and scale, for people.
    pub fn numbers(&self) -> String {
        let loss = &self.loss;
        let mut parts = match &loss.target {
            Target::Unified(m) => {
                let all = [("m0", m.m0, 1.0), ("m1", m.m1, 1.0), ("m2", m.m2, 0.0), ("m3", m.m3, 0.0)];
                let used = all.iter().filter(|(_, value, neutral)| value != neutral);
                used.map(|(name, value, _)| format!("{name} = {}", (value * 1e4).round() / 1e4)).collect()
            }
            other => vec![other.name().into()],
        };
        match loss.adaptive {
            Adaptive::AdaCos => parts.push("s follows the batch".into()),
            _ if loss.similarity == Similarity::Dot => parts.push("linear".into()),
            _ => parts.push(format!("s = {}", loss.scale)),
        }
        match &loss.target {
            // a straight line has no threshold
            Target::Unified(m) if (m.m1, m.m2) != (1.0, 0.0) && m.fallback != Fallback::Continuous => {
                parts.push(format!("fallback {}", m.fallback.name()));
            }
            _ => {}
        }
        match loss.others {
            Others::Identity | Others::Angle(_) | Others::SimilarityAdjustment(_) => {}
            Others::Rectified => parts.push("WC-ReLU".into()),
            _ => parts.push(loss.others.name().replace('_', "-")),
        }
        parts.join(", ")
    }
}

/// How to train.
#[derive(Clone, Copy)]
pub struct Settings {
    /// Times through the training images.
    pub epochs: usize,
    /// Of the first weights and of the order of the images.
    pub seed: u64,
    /// Dimension of an embedding.
    pub dim: usize,
    /// Prototypes of a class.
    pub sub_centers: usize,
    /// Beside every loss.
    pub regularizer: Option<Regularizer>,
    pub center: Option<CenterLoss>,
    /// Of the margins and the scale of every loss.
    pub schedules: Option<Schedules>,
}

/// What the example does unless told otherwise, and what the test checks.
pub const SETTINGS: Settings =
    Settings { epochs: 60, seed: 1, dim: 16, sub_centers: 1, regularizer: None, center: None, schedules: None };

impl Settings {
    /// The same first weights for every loss of one seed.
    pub fn untrained(&self) -> Model {
        let (lengths, sub_centers) = (vec![PIXELS, HIDDEN, self.dim], self.sub_centers);
        Model::untrained(&Sizes { lengths, classes: SEEN.len(), sub_centers }, self.seed)
    }

    /// A loss with all that stands beside it.
    pub fn objective(&self, loss: &MarginSoftmax) -> Result<Objective> {
        let Self { regularizer, center, schedules, .. } = *self;
        let objective = Objective { center, regularizer, ..Objective::from(loss.clone()) };
        objective.check()?;
        match schedules {
            Some(schedules) => objective.scheduled(schedules),
            None => Ok(objective),
        }
    }

    /// The loss where the schedules have ended, for tables and pictures; trained it is the same, since they set each number anew.
    pub fn ended(&self, mut loss: Loss) -> Result<Loss> {
        if let Some(schedules) = &self.schedules {
            schedules.apply(u64::MAX, &mut loss.loss)?;
        }
        Ok(loss)
    }

    /// Refuses what no loss or not this one can be trained with, before any work.
    pub fn check(&self, loss: &Loss) -> Result {
        if self.regularizer.is_some() && self.sub_centers > 1 {
            return Err("--regularizer: a regulariser knows one prototype per class; leave --sub-centers out".into());
        }
        self.objective(&loss.loss).map_err(|why| format!("{}: {why}", loss.title))?;
        Ok(())
    }

    /// All that stands beside every loss, for people.
    pub fn beside(&self) -> Vec<String> {
        let mut all = vec![];
        if let Some(regularizer) = self.regularizer {
            let name = match regularizer {
                Regularizer::RegSs { .. } => "Reg_ss",
                Regularizer::UniformFace { .. } => "UniformFace",
            };
            all.push(format!("regulariser {name}, λ = {}", regularizer.weight()));
        }
        if let Some(CenterLoss { weight, rate, .. }) = self.center {
            all.push(format!("center loss, λ = {weight}, α = {rate}"));
        }
        let Some(Schedules { m0, m1, m2, m3, margin, scale, top_k }) = self.schedules else { return all };
        let named = [("m0", m0), ("m1", m1), ("m2", m2), ("m3", m3), ("margin", margin), ("s", scale)];
        for (name, schedule) in named.into_iter().filter_map(|(name, schedule)| Some((name, schedule?))) {
            let way = match schedule.ramp {
                Ramp::Linear => "linear",
                Ramp::Exponential => "exponential",
            };
            let (start, end, from, until) = (schedule.start, schedule.end, schedule.from, schedule.until);
            all.push(format!("{name} from {start} to {end} between the steps {from} and {until} ({way})"));
        }
        all.extend(top_k.map(|most| format!("the margin of inter-topk follows m2 ({most} at m2 = 0.2)")));
        all
    }
}

/// A trained model and how it got there.
pub struct Run {
    pub model: Model,
    pub course: Course,
}

/// Trains from scratch; `after_epoch` is told the epoch's mean loss.
pub fn train(
    backend: &Backend,
    loss: &MarginSoftmax,
    digits: &Digits,
    settings: &Settings,
    after_epoch: impl Fn(f64),
) -> Result<Run> {
    let mut model = settings.untrained();
    let how = learner::Settings { epochs: settings.epochs, batch: BATCH, rate: 1e-3, seed: settings.seed };
    let course = learner::train(backend, &settings.objective(loss)?, &mut model, &digits.train, &how, |step| {
        step.epoch.iter().for_each(|&mean| after_epoch(mean));
        Ok(())
    })?;
    Ok(Run { model, course })
}

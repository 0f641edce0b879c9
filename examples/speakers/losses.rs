//! The losses, and the margin schedule that all of them are trained with.

use std::sync::Arc;

use margin_softmax::{
    MarginSoftmax,
    objective::{Coefficients, Curve, Damping, Epochs, Ramp, Schedule, Schedules, Series},
};

use crate::{
    common::{Result, learner::Objective},
    squash::Squashed,
};

/// ChebyAAM's scale.
pub const SCALE: f64 = 30.0;

/// The degrees of the table.
pub const DEGREES: [usize; 5] = [3, 5, 9, 15, 30];

/// The margins of the tables, radians.
pub const MARGINS: [f64; 3] = [0.2, 0.3, 0.5];

/// Every damping of the library.
pub const DAMPINGS: [(Damping, &str); 3] =
    [(Damping::None, "none"), (Damping::Jackson, "Jackson"), (Damping::Lanczos, "Lanczos")];

/// The curve of the label.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// No margin.
    NormFace,
    /// The exact cos(θ + m) of ArcFace, which speaker verification calls AAM.
    Aam,
    /// ChebyAAM: a series of cos(θ + m).
    Series(Series),
    /// ChebyAAM behind the authors' `pos_squash_k`.
    Squashed(u32),
}

/// A loss to train with.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    pub kind: Kind,
    /// Where the schedule ends, radians.
    pub margin: f64,
    pub scale: f64,
}

impl Setting {
    pub fn normface() -> Self {
        Self { kind: Kind::NormFace, margin: 0.0, scale: SCALE }
    }

    pub fn aam(margin: f64) -> Self {
        Self { kind: Kind::Aam, margin, scale: SCALE }
    }

    /// In closed form, as the preset `chebyaam`.
    pub fn cheby(margin: f64) -> Self {
        Self::series(margin, Series::default())
    }

    /// As the authors fit it, the preset `chebyaam_fit`.
    pub fn fit(margin: f64) -> Self {
        Self::series(margin, Series { coefficients: Coefficients::Fit, ..Default::default() })
    }

    pub fn damped(margin: f64, degree: usize, damping: Damping) -> Self {
        Self::series(margin, Series { degree, damping, ..Default::default() })
    }

    pub fn squashed(margin: f64, power: u32) -> Self {
        Self { kind: Kind::Squashed(power), margin, scale: SCALE }
    }

    fn series(margin: f64, series: Series) -> Self {
        Self { kind: Kind::Series(series), margin, scale: SCALE }
    }

    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// For people; the margin, where there is one, is last.
    pub fn title(&self) -> String {
        let default = Series::default();
        match &self.kind {
            Kind::NormFace => "NormFace".into(),
            Kind::Aam => format!("AAM {}", self.margin),
            Kind::Series(series) if *series == default => format!("Cheby {}", self.margin),
            Kind::Series(series) if series.coefficients == Coefficients::Fit => format!("Cheby fit {}", self.margin),
            Kind::Series(series) => {
                let damping = DAMPINGS.iter().find(|(damping, _)| *damping == series.damping);
                let damping = damping.filter(|(damping, _)| *damping != Damping::None);
                let damping = damping.map_or(String::new(), |(_, name)| format!(", {name}"));
                format!("n = {}{damping}, m = {}", series.degree, self.margin)
            }
            Kind::Squashed(power) => format!("squash {power}, {}", self.margin),
        }
    }

    /// The loss at a margin.
    pub fn loss_at(&self, margin: f64) -> MarginSoftmax {
        let unified = |curve: &Curve| {
            MarginSoftmax::unified(1.0, 1.0, margin, 0.0)
                .with_scale(self.scale)
                .with_margin(|m| m.curve = curve.clone())
        };
        match &self.kind {
            Kind::NormFace => MarginSoftmax::normface().with_scale(self.scale),
            Kind::Aam => unified(&Curve::Exact),
            Kind::Series(series) => unified(&Curve::Series(series.clone())),
            Kind::Squashed(power) => Squashed::loss(*power, margin, self.scale),
        }
    }

    /// The loss where the schedule has ended.
    pub fn loss(&self) -> MarginSoftmax {
        self.loss_at(self.margin)
    }

    /// With the schedule over a run. A margin of the library's follows `Schedules`; one from outside is made anew.
    pub fn objective(&self, epochs: usize, steps_of_epoch: usize) -> Result<Objective> {
        let objective = Objective::from(self.loss());
        let schedule = schedule(self.margin, epochs, steps_of_epoch)?;
        Ok(match self.kind {
            Kind::NormFace => objective,
            Kind::Aam | Kind::Series(_) => {
                objective.scheduled(Schedules { m2: Some(schedule), ..Default::default() })?
            }
            Kind::Squashed(_) => {
                let setting = self.clone();
                let loss_of_step = move |step| Ok(setting.loss_at(schedule.value(step)));
                Objective { schedule: Some(Arc::new(loss_of_step)), ..objective }
            }
        })
    }
}

/// The margin from 0 to its end between 2/7 and 5/7 of the run, exponentially: ChebyAAM's configuration raises it from
/// epoch 20 to epoch 50 of 70.
fn schedule(margin: f64, epochs: usize, steps_of_epoch: usize) -> Result<Schedule> {
    let [from, until] = [2, 5].map(|share| (epochs * share).div_ceil(7) as u64);
    Ok(Schedule::epochs(0.0, margin, Ramp::Exponential, from..until, Epochs::FromZero, steps_of_epoch as u64)?)
}

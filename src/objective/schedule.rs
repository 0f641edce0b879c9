//! Margins and scale that change over the steps of a run.

use super::{MarginSoftmax, Others, Target, in_range};
use crate::{Adaptive, Error, Result};

/// A value that goes from `start` to `end` between two steps: the schedule of wespeaker, 3D-Speaker and ChebyAAM's authors.
///
/// ```text
/// t < from            start
/// from ≤ t < until    start + (end − start)·r(p)        p = (t − from)/(until − from)
/// until ≤ t           end
/// ```
///
/// ```
/// use margin_softmax::objective::{Epochs, Ramp, Schedule};
///
/// // wespeaker's default: from epoch 20 to epoch 40, counted from 1, of 1000 steps
/// let margin = Schedule::epochs(0.0, 0.2, Ramp::Exponential, 20..40, Epochs::FromOne, 1000)?;
/// assert_eq!((margin.from, margin.until), (19_000, 39_000));
/// assert!((margin.value(24_000) - 0.2 * 0.822_172).abs() < 1e-6);
/// # Ok::<(), margin_softmax::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Schedule {
    /// The value before `from`, in the unit of what is scheduled; finite.
    pub start: f64,
    /// The value from `until` on; finite, and so is its distance from `start`.
    pub end: f64,
    /// t0, the step where the change begins.
    pub from: u64,
    /// t1 ≥ t0, the first step at `end`; with t1 = t0 the value jumps.
    pub until: u64,
    /// How it gets there; default exponential (wespeaker).
    #[cfg_attr(feature = "serde", serde(default))]
    pub ramp: Ramp,
}

/// The share r(p) of the way that is done at the share p of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Ramp {
    /// r = p.
    Linear,
    /// r = 1 − exp(p·ln(1e-3/(1 + 1e-6))): fast first, 0.999 at p → 1; the rest is a jump at `until`.
    #[default]
    Exponential,
}

/// How the epochs of a schedule are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epochs {
    /// From 1: epoch e begins at step (e − 1)·steps (wespeaker).
    FromOne,
    /// From 0: epoch e begins at step e·steps (3D-Speaker, ChebyAAM's authors).
    FromZero,
}

impl Schedule {
    /// From the beginning of epoch `epochs.start` to that of `epochs.end`, with `steps` training steps in each.
    ///
    /// [`Error::Parameter`] for an epoch 0 that is counted from 1, [`Error::Size`] beyond 2⁶⁴ − 1 steps, and what
    /// [`validate`](Self::validate) refuses.
    pub fn epochs(
        start: f64,
        end: f64,
        ramp: Ramp,
        epochs: std::ops::Range<u64>,
        counted: Epochs,
        steps: u64,
    ) -> Result<Self> {
        let step = |epoch: u64| {
            let epoch = match counted {
                Epochs::FromZero => Some(epoch),
                Epochs::FromOne => epoch.checked_sub(1),
            };
            let epoch = epoch.ok_or(Error::Parameter { what: "epochs", found: 0.0, allowed: "1 and more" })?;
            let allowed = u64::MAX;
            epoch.checked_mul(steps).ok_or(Error::Size { what: "epochs · steps", needed: allowed, allowed })
        };
        let new = Self { start, end, from: step(epochs.start)?, until: step(epochs.end)?, ramp };
        new.validate()?;
        Ok(new)
    }

    /// Checks that the values are finite and the steps in order. Whether a value may be a margin or a scale is checked where
    /// it becomes one.
    pub fn validate(&self) -> Result<()> {
        in_range("schedule.start", self.start, true, "a finite number")?;
        let inside = (self.end - self.start).is_finite();
        in_range("schedule.end", self.end, inside, "a finite number, at a finite distance from start")?;
        let (found, allowed) = (self.until as f64, "until >= from");
        in_range("schedule.until", found, self.from <= self.until, allowed)
    }

    /// The value of a step.
    pub fn value(&self, step: u64) -> f64 {
        if step < self.from {
            return self.start;
        }
        if step >= self.until {
            return self.end;
        }
        let p = (step - self.from) as f64 / (self.until - self.from) as f64;
        let r = match self.ramp {
            Ramp::Linear => p,
            Ramp::Exponential => 1.0 - (p * (1e-3_f64 / (1.0 + 1e-6)).ln()).exp(),
        };
        // rounding must not pass the end
        let (least, most) = (self.start.min(self.end), self.start.max(self.end));
        (self.start + (self.end - self.start) * r).max(least).min(most)
    }
}

/// The scheduled numbers of a loss; the rest stays as it is.
///
/// The loss of a step goes to [`SliceHead::update`](crate::SliceHead::update): nothing is compiled or allocated. On a GPU the
/// margins, the scale and even whether the target is a straight line (m1 = 1, m2 = 0) are settings, so a margin may start at 0.
/// Margins of classes or rows in a [`Batch`](crate::Batch) still come before those of the loss.
///
/// ```
/// # #[cfg(feature = "cpu")] {
/// use margin_softmax::{objective::{Ramp, Schedule, Schedules}, *};
///
/// let margin = Schedule { start: 0.0, end: 0.5, from: 100, until: 300, ramp: Ramp::Exponential };
/// let schedules = Schedules { m2: Some(margin), ..Default::default() };
/// let mut loss = MarginSoftmax::arcface();
/// let mut head = Backend::cpu().head(&loss, Shape::new(2, 3, 4)?)?;
/// // before every step
/// schedules.apply(head.state().step, &mut loss)?;
/// head.update(&loss)?;
/// # }
/// # Ok::<(), margin_softmax::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, default))]
pub struct Schedules {
    /// m0 of a unified target.
    pub m0: Option<Schedule>,
    /// m1 of a unified target.
    pub m1: Option<Schedule>,
    /// m2 of a unified target, radians.
    pub m2: Option<Schedule>,
    /// m3 of a unified target.
    pub m3: Option<Schedule>,
    /// The one margin of Li-ArcFace and ArcGrad (radians, at the label), or of SphereFace2 (at the label and at the others).
    pub margin: Option<Schedule>,
    /// s. Refused with dynamic AdaCos, which sets its own.
    pub scale: Option<Schedule>,
    /// mp of inter-topk, radians: its margin follows m2 as mp·m2/0.2, and is 0 for m2 ≤ 0.001. wespeaker: 0.06.
    pub top_k: Option<f64>,
}

impl Schedules {
    /// Checks every schedule.
    pub fn validate(&self) -> Result<()> {
        let all = [self.m0, self.m1, self.m2, self.m3, self.margin, self.scale];
        all.iter().flatten().try_for_each(Schedule::validate)?;
        in_range("schedules.top_k", self.top_k.unwrap_or(0.0), true, "a finite number")
    }

    /// Makes `loss` that of a step. The steps count as in [`State::step`](crate::State::step).
    ///
    /// On an error the loss is untouched: [`Error::Combination`] where it has no such margin, [`Error::Parameter`] where a
    /// value lies outside its range.
    pub fn apply(&self, step: u64, loss: &mut MarginSoftmax) -> Result<()> {
        self.validate()?;
        let refuse = |what, why| Err(Error::Combination { what, why });
        let at = |schedule: Option<Schedule>| schedule.map(|s| s.value(step));
        let mut next = loss.clone();
        let margins = [self.m0, self.m1, self.m2, self.m3].map(at);
        if let Some(unified) = next.unified_mut() {
            let own = [&mut unified.m0, &mut unified.m1, &mut unified.m2, &mut unified.m3];
            own.into_iter().zip(margins).for_each(|(own, new)| *own = new.unwrap_or(*own));
        } else if margins.iter().any(Option::is_some) {
            return refuse("schedules", "only a unified target has m0..m3");
        }
        if let Some(margin) = at(self.margin) {
            match (&mut next.target, &mut next.others) {
                (Target::Angle(angle), _) => angle.margin = margin,
                (Target::SimilarityAdjustment(power), Others::SimilarityAdjustment(other)) => {
                    (power.margin, other.margin) = (margin, margin)
                }
                (Target::SimilarityAdjustment(power), _) => power.margin = margin,
                _ => {
                    return refuse(
                        "schedules.margin",
                        "only Li-ArcFace, ArcGrad and SphereFace2 have it; a unified target has m0..m3",
                    );
                }
            }
        }
        if let Some(scale) = at(self.scale) {
            if next.adaptive == Adaptive::AdaCos {
                return refuse("schedules.scale", "dynamic AdaCos sets the scale");
            }
            next.scale = scale;
        }
        if let Some(most) = self.top_k {
            let (Target::Unified(unified), Others::TopK(top)) = (&next.target, &mut next.others) else {
                return refuse("schedules.top_k", "it needs inter-topk and the m2 of a unified target");
            };
            top.margin = if unified.m2 > 0.001 { most * (unified.m2 / 0.2) } else { 0.0 };
        }
        next.validate()?;
        *loss = next;
        Ok(())
    }
}

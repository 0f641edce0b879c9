//! Plans of margin-softmax heads for JavaScript: a wasm module without wgpu.
//!
//! JSON goes in, JSON and bytes come out; `web/margin-softmax.js` runs them on a `GPUDevice`. An error is a JavaScript
//! `Error` with the crate's message and a `code`: the name of the variant of [`margin_softmax::Error`].

mod request;
mod view;

use margin_softmax::{
    Adaptive, Batch, Error, MarginSoftmax, Margins, Output, Result, State,
    data::{Counts, SoftLabels},
    monitor::BatchReport,
    objective::{PRESETS, Preset},
    plan::{CONSTANTS_STRIDE, Call, Plan},
};
use request::{Request, json};
use serde::Serialize;
use view::{Named, View};
use wasm_bindgen::prelude::*;

/// An error as JavaScript sees it.
pub struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<Refusal> for JsValue {
    fn from(Refusal(error): Refusal) -> Self {
        let shown = js_sys::Error::new(&error.to_string());
        // an error object takes any property
        let _ = js_sys::Reflect::set(&shown, &"code".into(), &error.name().into());
        shown.into()
    }
}

/// The named losses, as JSON: `[{ name, source, loss }, …]`.
#[wasm_bindgen]
pub fn losses() -> Result<String, Refusal> {
    let named = |p: &Preset| Named { name: p.name, source: p.source, loss: p.loss() };
    text("losses", &PRESETS.iter().map(named).collect::<Vec<_>>())
}

fn text(what: &'static str, value: &impl Serialize) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(|error| request::refuse(what, &error).into())
}

/// φ and dφ/dx of a loss at target cosines, without the scale: all values, then all slopes.
#[wasm_bindgen]
pub fn curve(loss: &str, cosines: &[f64]) -> Result<Vec<f64>, Refusal> {
    let loss: MarginSoftmax = json("loss", loss)?;
    loss.validate()?;
    let (values, slopes): (Vec<_>, Vec<_>) = cosines.iter().map(|&x| loss.target_value_slope(x)).unzip();
    Ok([values, slopes].concat())
}

/// A loss with all its numbers, as JSON.
#[wasm_bindgen]
pub fn whole(loss: &str) -> Result<String, Refusal> {
    text("loss", &json::<MarginSoftmax>("loss", loss)?)
}

/// A plan, and what changes from call to call.
#[wasm_bindgen]
pub struct Planned {
    plan: Plan,
    most_groups: u32,
}

#[wasm_bindgen]
impl Planned {
    /// Plans a head; the request is the JSON that [`Request`] describes.
    #[wasm_bindgen(constructor)]
    pub fn new(request: &str) -> Result<Planned, Refusal> {
        let request: Request = json("request", request)?;
        let plan = request.plan()?;
        Ok(Self { plan, most_groups: request.limits.max_groups })
    }

    /// Buffers, kernels, steps, stages and schedule, as JSON.
    pub fn describe(&self) -> Result<String, Refusal> {
        text("plan", &View::new(&self.plan))
    }

    /// What goes into the buffer of the constants of the steps: one entry of 256 bytes each.
    pub fn parts(&self) -> Vec<u8> {
        let mut table = vec![0; self.plan.constants().len() * CONSTANTS_STRIDE as usize];
        for (entry, part) in table.chunks_exact_mut(CONSTANTS_STRIDE as usize).zip(self.plan.constants()) {
            let bytes = part.bytes();
            entry[..bytes.len()].copy_from_slice(bytes);
        }
        table
    }

    /// What goes into the buffer of settings, for a loss and a call `{ rows, class_weights, row_weights, divisor,
    /// upstream, accumulate_embeddings, accumulate_prototypes, class_margins, row_margins, soft_labels }`.
    pub fn settings(&self, loss: &str, call: &str) -> Result<Vec<u8>, Refusal> {
        let call: request::Call = json("call", call)?;
        Ok(self.plan.settings(&json("loss", loss)?, &Call::from(call))?.bytes().to_vec())
    }

    /// Workgroups of every step, forward and then backward, in this call: three numbers each, zeros where there is nothing to
    /// do.
    pub fn dispatches(&self, call: &str) -> Result<Vec<u32>, Refusal> {
        let call = Call::from(json::<request::Call>("call", call)?);
        let (found, allowed) = (call.rows, self.plan.shape().rows());
        if found > allowed {
            return Err(Error::Rows { found, allowed }.into());
        }
        let mut sizes = vec![];
        for step in self.plan.steps() {
            sizes.extend(step.dispatch(&call, self.most_groups)?.unwrap_or_default());
        }
        Ok(sizes)
    }

    /// Where each part ends, among these steps, that takes at most the work of a submit; the last one is their number.
    pub fn part_ends(&self, steps: &[u32]) -> Vec<u32> {
        let parts = self.plan.parts(steps.iter().map(|&step| step as usize));
        let ends = parts.iter().scan(0, |end, part| {
            *end += part.len() as u32;
            Some(*end)
        });
        ends.collect()
    }

    /// Refuses what a head over slices refuses: a loss of other kernels, too many rows, a label that names no class, and
    /// numbers outside their range. Margins come as a device takes them: four to a class or row, NaN for the loss' own. Soft
    /// labels are `soft_count` classes and weights to a row.
    #[allow(clippy::too_many_arguments)] // one for each array
    pub fn check(
        &self,
        loss: &str,
        labels: &[i32],
        class_weights: Option<Vec<f32>>,
        row_weights: Option<Vec<f32>>,
        divisor: Option<f32>,
        upstream: Option<Vec<f32>>,
        bias: Option<Vec<f32>>,
        class_margins: Option<Vec<f32>>,
        row_margins: Option<Vec<f32>>,
        soft_count: usize,
        soft_classes: Option<Vec<i32>>,
        soft_weights: Option<Vec<f32>>,
    ) -> Result<(), Refusal> {
        let loss: MarginSoftmax = json("loss", loss)?;
        let [class_margins, row_margins] = request::columns(&loss, labels, [class_margins, row_margins]);
        let batch = Batch {
            labels,
            class_weights: class_weights.as_deref(),
            row_weights: row_weights.as_deref(),
            divisor,
            upstream: upstream.as_deref(),
            bias: bias.as_deref(),
            class_margins: Margins::of(&class_margins),
            row_margins: Margins::of(&row_margins),
            soft_labels: soft_classes.as_ref().map(|classes| SoftLabels {
                count: soft_count,
                classes,
                weights: soft_weights.as_deref().unwrap_or_default(),
            }),
            ..Default::default()
        };
        Ok(self.plan.check(&loss, &batch)?)
    }

    /// The [`BatchReport`] of a call as JSON, but for the gradients: with the state before it or, `trained`, after it; `counts` are its
    /// rows that count and its prototypes that are not finite.
    #[allow(clippy::too_many_arguments)] // one for each array
    pub fn report(
        &self,
        loss: &str,
        trained: bool,
        state: &str,
        numbers: &[f64],
        labels: &[i32],
        embeddings: &[f32],
        row_losses: Vec<f32>,
        target_cosines: Vec<f32>,
        counts: &[u32],
        class_weights: Option<Vec<f32>>,
        row_weights: Option<Vec<f32>>,
        divisor: Option<f32>,
        class_margins: Option<Vec<f32>>,
        row_margins: Option<Vec<f32>>,
    ) -> Result<String, Refusal> {
        let loss: MarginSoftmax = json("loss", loss)?;
        let state = request::state(state, numbers)?;
        state.validate(self.plan.shape())?;
        let [class_margins, row_margins] = request::columns(&loss, labels, [class_margins, row_margins]);
        let batch = Batch {
            embeddings,
            labels,
            class_weights: class_weights.as_deref(),
            row_weights: row_weights.as_deref(),
            divisor,
            class_margins: Margins::of(&class_margins),
            row_margins: Margins::of(&row_margins),
            ..Default::default()
        };
        let count = |i: usize| counts.get(i).map_or(0, |&count| count as usize);
        let counts = Counts { rows: count(0), non_finite_prototypes: count(1), ..Default::default() };
        let other_cosines = vec![0.0; labels.len()];
        let out = Output { row_losses, target_cosines, other_cosines, counts, ..Default::default() };
        let of = if trained { BatchReport::trained } else { BatchReport::evaluated };
        text("report", &of(&loss, &state, &batch, &out)?)
    }

    /// The error of a label that does not even fit 32 bits, from its decimal digits.
    pub fn refuse_label(&self, row: usize, label: &str) -> Result<(), Refusal> {
        let beyond = if label.starts_with('-') { i128::MIN } else { i128::MAX };
        let label = label.parse().unwrap_or(beyond);
        Err(Error::Label { row, label, classes: self.plan.shape().classes() }.into())
    }

    /// The numbers of the first state of a loss: hardness, mean and deviation of the lengths, scale.
    pub fn state(&self, loss: &str) -> Result<Vec<f64>, Refusal> {
        let state = State::new(&json("loss", loss)?, self.plan.shape())?;
        let State { hardness, norm_mean, norm_deviation, scale, .. } = state;
        Ok(vec![hardness, norm_mean, norm_deviation, scale])
    }

    /// Refuses a state that no head of this shape may have: its JSON, and hardness, mean and deviation of the lengths, and scale.
    pub fn check_state(&self, state: &str, numbers: &[f64]) -> Result<(), Refusal> {
        let state = request::state(state, numbers)?;
        Ok(state.validate(self.plan.shape())?)
    }

    /// What ElasticFace draws for the rows of a step; empty for every other loss.
    pub fn draws(&self, loss: &str, rows: u32, step: u64, seed: u64) -> Result<Vec<f32>, Refusal> {
        let loss: MarginSoftmax = json("loss", loss)?;
        let mut state = State::new(&loss, self.plan.shape())?.with_seed(seed);
        state.step = step;
        let Adaptive::Elastic(family) = loss.adaptive else { return Ok(vec![]) };
        let rows = (rows as usize).min(self.plan.shape().rows());
        Ok(family.draws(&state, rows).into_iter().map(|d| d as f32).collect())
    }
}

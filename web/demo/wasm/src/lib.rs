//! What the demo page takes from `margin-softmax`: the named losses, their curves over the angle, and the CPU path.
//!
//! Losses cross the border as JSON, numbers as typed arrays. Every failure is a JavaScript `Error` with the library's words.

use std::f64::consts::PI;

use margin_softmax::{
    Adaptive, Backend, Batch, Error, MarginSoftmax, Output, Shape, Similarity, SliceHead, objective::PRESETS, theory,
};
use wasm_bindgen::prelude::*;

type Result<T> = std::result::Result<T, JsError>;

/// The named losses: `[{"name", "source", "loss"}]`.
#[wasm_bindgen]
pub fn presets() -> Result<String> {
    let one = |p: &margin_softmax::objective::Preset| {
        Ok(serde_json::json!({ "name": p.name, "source": p.source, "loss": serde_json::to_value(p.loss())? }))
    };
    let all = PRESETS.iter().map(one).collect::<serde_json::Result<Vec<_>>>()?;
    Ok(serde_json::to_string(&all)?)
}

/// `[φ, slope, pull]` over `count` angles from 0 to π, one after the other: the target logit without the scale, dφ/d cos θ
/// of the backward pass, and dL/dθ of one embedding among `classes` prototypes spread evenly over a sphere of `dim` dimensions.
///
/// A loss over plain products has no curve over the angle: the result is empty. Where the theory does not cover a loss the
/// pull is NaN.
#[wasm_bindgen]
pub fn curves(loss: &str, classes: usize, dim: usize, count: usize) -> Result<Vec<f64>> {
    let loss = parse(loss)?;
    loss.validate()?;
    if loss.similarity == Similarity::Dot {
        return Ok(Vec::new());
    }
    let angles: Vec<f64> = (0..count).map(|i| PI * i as f64 / count.saturating_sub(1).max(1) as f64).collect();
    let ln_b = theory::ln_wrong_class_sum(classes, dim, loss.scale)?;
    let (value, slope) =
        angles.iter().map(|angle| loss.target_value_slope(angle.cos())).unzip::<_, _, Vec<_>, Vec<_>>();
    let pull = angles.iter().map(|&angle| theory::gradient(&loss, ln_b, angle).unwrap_or(f64::NAN));
    Ok(value.into_iter().chain(slope).chain(pull).collect())
}

/// By how much the gradient of one row grows with the loss' scale: the number that the page divides its steps by, so that
/// a larger scale changes the course and not the speed. `length` is the mean length of the embeddings.
#[wasm_bindgen]
pub fn strength(loss: &str, classes: usize, length: f64) -> Result<f64> {
    let loss = parse(loss)?;
    Ok(match (loss.similarity, loss.adaptive) {
        (Similarity::Dot, _) => loss.scale * length,
        (_, Adaptive::AdaCos) => theory::adacos_scale(classes)?,
        _ => loss.scale,
    })
}

/// The CPU path: a head for a fixed number of rows, classes and dimensions.
#[wasm_bindgen]
pub struct CpuHead {
    head: SliceHead,
    out: Output,
}

#[wasm_bindgen]
impl CpuHead {
    /// Allocates once; any number of batches follow.
    #[wasm_bindgen(constructor)]
    pub fn new(loss: &str, rows: usize, classes: usize, dim: usize) -> Result<CpuHead> {
        let head = Backend::cpu().head(&parse(loss)?, Shape::new(rows, classes, dim)?)?;
        Ok(Self { head, out: Output::default() })
    }

    /// Another loss; what a run has learnt about its batches is kept where the new loss uses it.
    pub fn update(&mut self, loss: &str) -> Result<()> {
        let loss = parse(loss)?;
        match self.head.update(&loss) {
            Err(Error::Recompile { .. }) => self.head = Backend::cpu().head(&loss, self.head.shape())?,
            other => other?,
        }
        Ok(())
    }

    /// One batch: row-major embeddings and prototypes, one label per row. With `train` the loss' own state moves too.
    /// Returns the loss; the rest is read from the fields below.
    pub fn evaluate(&mut self, embeddings: &[f32], prototypes: &[f32], labels: &[i32], train: bool) -> Result<f32> {
        let batch = Batch { embeddings, prototypes, labels, ..Default::default() };
        if train {
            self.head.train_into(&batch, &mut self.out)?;
        } else {
            self.head.evaluate_into(&batch, &mut self.out)?;
        }
        Ok(self.out.loss)
    }

    /// The rows' losses of the last batch.
    #[wasm_bindgen(getter)]
    pub fn row_losses(&self) -> Vec<f32> {
        self.out.row_losses.clone()
    }

    /// dL/dX of the last batch.
    #[wasm_bindgen(getter)]
    pub fn grad_embeddings(&self) -> Vec<f32> {
        self.out.grad_embeddings.clone()
    }

    /// dL/dW of the last batch.
    #[wasm_bindgen(getter)]
    pub fn grad_prototypes(&self) -> Vec<f32> {
        self.out.grad_prototypes.clone()
    }
}

fn parse(loss: &str) -> Result<MarginSoftmax> {
    Ok(serde_json::from_str(loss)?)
}

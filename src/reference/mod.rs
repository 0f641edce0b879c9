//! The f64 oracle on slices: short, obvious, slow. The CPU and GPU paths are judged by it, and it is judged by finite
//! differences and by golden vectors.

mod auxiliary;
mod directions;
mod geometry;
mod gradients;
mod predictions;
mod scores;
mod shard;

pub use auxiliary::{center_loss, regularize, update_centers};
pub use geometry::{mean_pair_angle, mean_prototype};
pub use predictions::predict;
pub use scores::{cosines, pair_cosines};
pub use shard::Shard;

use crate::{
    Batch, Label, MarginSoftmax, Options, Output, Result, Shape, State, Want,
    objective::{CheckedBatch, Prepared},
};

/// Loss and gradients of one batch in f64, everything N×C materialised; the state is that before the first step.
pub fn evaluate<L: Label>(
    loss: &MarginSoftmax,
    shape: Shape,
    want: Want,
    batch: &Batch<'_, L, f64>,
) -> Result<Output<f64>> {
    evaluate_with(loss, shape, want, batch, &State::new(loss, shape)?)
}

/// The same at any state.
pub fn evaluate_with<L: Label>(
    loss: &MarginSoftmax,
    shape: Shape,
    want: Want,
    batch: &Batch<'_, L, f64>,
    state: &State,
) -> Result<Output<f64>> {
    evaluate_or_train(loss, shape, want, batch, &mut state.clone(), false)
}

/// A training step: the state follows the batch first, then counts the step.
pub fn train<L: Label>(
    loss: &MarginSoftmax,
    shape: Shape,
    want: Want,
    batch: &Batch<'_, L, f64>,
    state: &mut State,
) -> Result<Output<f64>> {
    let mut next = *state;
    let out = evaluate_or_train(loss, shape, want, batch, &mut next, true)?;
    next.step += 1;
    *state = next;
    Ok(out)
}

fn evaluate_or_train<L: Label>(
    loss: &MarginSoftmax,
    shape: Shape,
    want: Want,
    batch: &Batch<'_, L, f64>,
    state: &mut State,
    follow: bool,
) -> Result<Output<f64>> {
    let loss = Prepared::new(loss, shape)?;
    state.validate(shape)?;
    loss.check_margin_gradients(want, batch.soft_labels.is_some())?;
    let batch = batch.check(&loss, shape, &(0..shape.classes()))?;
    step(&loss, shape, &Options { want, ..Options::default() }, batch, state, follow)
}

/// One batch at a state, which follows it first if it is to.
pub(crate) fn step(
    loss: &Prepared,
    shape: Shape,
    options: &Options,
    batch: CheckedBatch<'_, f64>,
    state: &mut State,
    follow: bool,
) -> Result<Output<f64>> {
    let shard = Shard::of(loss, shape, 0..shape.classes(), batch)?.with_filter(options.filter);
    let targets = shard.targets(state);
    if follow {
        shard.follow(&targets, state);
    }
    let statistics = shard.statistics(&targets, state)?;
    let predictions = options.predictions.map(|count| shard.predictions(count, state));
    Ok(Output { predictions, ..shard.gradients(options.want, &targets, &statistics, state)? })
}

//! Scores for verification on a device, against the reference.

use libtest_mimic::Failed;
use margin_softmax::{Backend, gpu::Context};

use crate::Check;

#[path = "../scores/mod.rs"]
mod all;

pub const CHECKS: &[(&str, Check)] = &[
    ("scores_of_pairs_agree_with_the_reference", pairs),
    ("nearest_items_agree_with_the_reference", nearest),
    ("wrong_scores_are_refused", refused),
];

fn pairs(context: &Context) -> Result<(), Failed> {
    all::pairs_agree_with_the_reference(&Backend::Gpu(context.clone()));
    Ok(())
}

fn nearest(context: &Context) -> Result<(), Failed> {
    all::nearest_agree_with_the_reference(&Backend::Gpu(context.clone()));
    Ok(())
}

fn refused(context: &Context) -> Result<(), Failed> {
    all::wrong_scores_are_refused(&Backend::Gpu(context.clone()));
    Ok(())
}

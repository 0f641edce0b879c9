//! Where a batch's report lies in the workspace, for executors in other languages.

use std::mem::offset_of;

use crate::uniforms::{
    BatchState, Row,
    constants::{COUNTS, NON_FINITE, SHORT},
};

const WORD: usize = size_of::<u32>();

/// Words of 32 bits of an entry of the workspace `rows`, by name: `size` of them from row to row, at `state` one of [`ROW_STATES`],
/// at `cosine` the raw cosine of the labelled class and at `nearest` the largest of the others, both f32.
pub const ROW_WORDS: &[(&str, usize)] = &[
    ("size", size_of::<Row>() / WORD),
    ("state", offset_of!(Row, state) / WORD),
    ("cosine", offset_of!(Row, cosine) / WORD),
    ("nearest", offset_of!(Row, nearest) / WORD),
];

/// States of a row: it counts, it counts with an embedding that is too short for a gradient, it is not finite.
pub const ROW_STATES: [u32; 3] = [COUNTS, SHORT, NON_FINITE];

/// Words of 32 bits of the workspace `batch`, by name: `normalizer` is f32, the others are the
/// [`Counts`](crate::data::Counts) of the batch.
pub const BATCH_WORDS: &[(&str, usize)] = &[
    ("size", size_of::<BatchState>() / WORD),
    ("normalizer", offset_of!(BatchState, normalizer) / WORD),
    ("rows", offset_of!(BatchState, rows) / WORD),
    ("ignored", offset_of!(BatchState, ignored) / WORD),
    ("non_finite_rows", offset_of!(BatchState, non_finite_rows) / WORD),
    ("invalid_labels", offset_of!(BatchState, invalid_labels) / WORD),
    ("zero_embeddings", offset_of!(BatchState, zero_embeddings) / WORD),
    ("zero_prototypes", offset_of!(BatchState, zero_prototypes) / WORD),
    ("non_finite_prototypes", offset_of!(BatchState, non_finite_prototypes) / WORD),
];

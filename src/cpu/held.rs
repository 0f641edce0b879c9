//! Whether the cosines that one call of a shard left in *keep* are those that the next one needs.

use rayon::prelude::*;

use super::input::HeadCall;
use crate::objective::random::scramble;

/// The contents of a tile of *keep* when a pass begins.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Held {
    /// Nothing of use.
    Nothing,
    /// Cosines, from another call of a shard.
    Cosines,
    /// Those of pass 1: exponentials on the path of the identity, else cosines.
    PassOne,
}

/// With fewer rows, reading the prototypes for a checksum takes about as long as their products do.
const MIN_ROWS: usize = 32;
/// Values per task: a multiple of those that [`mixed`] takes at once.
const TASK: usize = 1 << 16;
const CHAINS: usize = 4;

/// A checksum of some values; a change of any one of them changes it.
fn mixed(values: &[f32]) -> u64 {
    let mut chains = [0x243f_6a88_85a3_08d3_u64; CHAINS];
    let mut take = |values: &[f32]| {
        for (chain, pair) in chains.iter_mut().zip(values.chunks(2)) {
            let word = pair.iter().fold(0, |word, value| word << 32 | u64::from(value.to_bits()));
            *chain = (chain.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    };
    let (blocks, rest) = values.as_chunks::<{ 2 * CHAINS }>();
    blocks.iter().for_each(|block| take(block));
    take(rest);
    chains.iter().fold(values.len() as u64, |all, chain| scramble(all ^ chain))
}

impl HeadCall<'_> {
    /// A checksum of 64 bits over everything that the cosines of *keep* follow from: embeddings, prototypes, biases, and labels,
    /// which say what rows take part. None where it would cost as much as the cosines.
    ///
    /// It reads N·D + C·D values beside the N·C·D products that it may save. Pointers would say nothing: an optimiser changes
    /// the values that they point to.
    pub fn checksum(&self) -> Option<u64> {
        if self.batch.rows() < MIN_ROWS {
            return None;
        }
        let batch = &self.batch;
        let parts = [batch.embeddings, batch.prototypes, batch.bias.unwrap_or_default()];
        // a sum of one number per task, in any order, holds nothing
        let sums = parts.iter().map(|part| {
            let one = |(task, values)| scramble(mixed(values) ^ scramble(task as u64));
            match self.parallel {
                true => part.par_chunks(TASK).enumerate().map(one).reduce(|| 0, u64::wrapping_add),
                false => part.chunks(TASK).enumerate().map(one).fold(0, u64::wrapping_add),
            }
        });
        let lengths = parts.iter().map(|part| part.len() as u64);
        let labels = batch.labels.iter().map(|&label| label as u64);
        Some(sums.chain(lengths).chain(labels).fold(0, |all, one| scramble(all ^ scramble(one))))
    }
}

//! The native f32 path: class tiles over rayon, products by the `gemm` crate (in WebAssembly by `blocks`), exp and sums
//! vectorised by `pulp`.
//!
//! ```text
//! scan, if a family needs it       cosines;  per row: the k largest, or the exp-sum at the scale so far
//! pass 1, per tile of classes      cosines = X̂ Wᵀ / |w|;  per row: largest logit and exp-sum over the other classes
//! per row, in f64                  merge the tiles in order; the target joins last; loss
//! pass 2, per tile of classes      G in place, divided by |w|;  dX += G W;  dW = Gᵀ X̂, projected while in the cache
//! per row                          dX projected
//! ```
//!
//! dX over very many tiles, and dW over very many blocks of rows, are sums of f32 sums in f64: see `total`.
//!
//! *keep* stores what the first pass computed, N·C·K values; *recompute* computes the cosines again. Consecutive tiles
//! form fixed ranges, each with its own statistics: a range is processed in order. In *recompute* it has its own share of
//! dX too. In *keep* G stays, so the tiles are taken one by one, and join the blocks of dX in their order as soon as
//! somebody is free for it. So the result does not depend on the number of threads, and memory not on the number of tiles.
//!
//! Only what decides no bit follows the number of threads (`division`): where there are more threads than ranges, blocks of rows
//! are divided in pass 1, and dX is divided into blocks along N and D. Either way each element is the same sum, taken in the same
//! order. The room that this takes, for up to 64 workers, is part of the budget; without it there are as many workers as ranges.
//!
//! Predictions choose the largest cosines in pass 1 where the other classes are as they are (in *keep* from what it stores),
//! else in a scan.
//!
//! A whole head is the shard of all classes. The pieces of a shard are calls of their own: each computes the cosines anew.

pub(crate) mod auxiliary;
#[cfg(any(test, target_arch = "wasm32"))]
mod blocks;
mod budget;
mod curve;
mod directions;
mod division;
mod finish;
pub(crate) mod geometry;
mod gradients;
mod head;
mod held;
mod input;
mod join;
mod matrix;
mod nearest;
mod pace;
mod predict;
mod product;
mod products;
mod ranges;
mod rounds;
mod rows;
mod scan;
pub(crate) mod scores;
mod soft;
mod sparse;
mod sweep;
mod table;
mod targets;
mod tiles;
mod tiling;
mod total;
pub mod trace;
mod vector;
mod worker;
mod workspace;

pub(crate) use head::CpuHead;
pub(crate) use pace::Pace;
use pulp::Arch;

/// The name for people: threads, and the instructions that this machine was found to have.
pub(crate) fn name() -> String {
    let instructions = match Arch::new() {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V4(_) => ", AVX-512",
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Arch::V3(_) => ", AVX2",
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => ", NEON",
        _ => "",
    };
    format!("CPU, {} threads{instructions}", rayon::current_num_threads())
}

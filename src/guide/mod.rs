//! Guides, one for each starting point. All Rust code here is compiled and run by the tests, unless it says otherwise.
//!
//! | you have | read |
//! |---|---|
//! | slices, and want one call | [`slices`] |
//! | a training loop to write | [`training`] |
//! | a wgpu device, buffers and an encoder | [`device`] |
//! | a burn model | [`burn`] |
//! | PyTorch, or numpy | [`python`] |
//! | a page in a browser, in Rust or in JavaScript | [`browser`] |
//! | a loss that is not in the list | [`margin`] |
//! | your own implementation, and want to compare it | [`parity`] |
//! | one of the papers, and want to know whether its claims come out | [`papers`] |
//! | a wish that others had too: top-k, sample weights, accumulation, new classes | [`requests`] |
//! | this library to read or to change | [`architecture`] |
//!
//! What the losses are is in the [crate documentation](crate#the-losses), what a failure means in [`Error`](crate::Error).
//!
//! # Versions
//!
//! A device, a buffer or an encoder can be shared only between crates on one major version of wgpu, so each release of
//! wgpu has its release of this crate.
//!
//! | margin-softmax | wgpu | minimum Rust | margin-softmax-burn | burn | its minimum Rust |
//! |---|---|---|---|---|---|
//! | 0.1 | 30 | 1.89 | 0.1 | 0.22 | 1.95 |
//!
//! wgpu is re-exported: `margin_softmax::wgpu` is always the right one.

pub mod architecture;
pub mod browser;
pub mod burn;
pub mod device;
pub mod margin;
pub mod papers;
pub mod parity;
pub mod python;
pub mod requests;
pub mod slices;
pub mod training;

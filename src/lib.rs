//! The classification head of metric learning: embeddings, prototypes and labels go in; a margin-softmax loss and both
//! gradients come out. On any GPU through [wgpu] (Vulkan, Metal, DX12), natively on the CPU where there is none, in a
//! workspace of the size you choose, however many classes there are.
//!
//! NormFace, CosFace, ArcFace, SphereFace, AmpFace, ChebyAAM and every combination of their margins, with every fallback
//! that is in use beyond the threshold; ArcGrad, Li-ArcFace, CurricularFace, AdaFace, MagFace, ElasticFace, SphereFace2,
//! AdaCos, the linear head and M-Softmax; sub-centers, inter-topk, WC-ReLU; label smoothing, class weights, ignore index
//! and reductions as in PyTorch. No arccos, so no NaN at a cosine of 1; no N×C matrix beyond your budget; the same bits run
//! after run.
//!
//! # Quickstart
//!
//! ```
//! # #[cfg(feature = "cpu")] {
//! use margin_softmax::{Backend, Batch, MarginSoftmax, Shape};
//!
//! let loss = MarginSoftmax::arcface().with_scale(30.0);
//! // a hardware GPU if there is one, else the CPU; for batches of at most 2 rows, 3 classes, vectors of 4 values
//! let mut head = Backend::best()?.head(&loss, Shape::new(2, 3, 4)?)?;
//! let out = head.evaluate(&Batch {
//!     embeddings: &[0.1, 0.9, 0.0, 0.2, 0.7, 0.1, 0.3, 0.0],
//!     prototypes: &[0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
//!     labels: &[0, 1],
//!     ..Default::default()
//! })?;
//! assert!(out.loss > 0.0);
//! assert_eq!((out.grad_embeddings.len(), out.grad_prototypes.len()), (8, 12));
//! # }
//! # Ok::<(), margin_softmax::Error>(())
//! ```
//!
//! Compile once, then evaluate any number of batches; [`SliceHead::update`] changes margins and scale between steps
//! without compiling or allocating, by hand or on [`objective::Schedules`]. [`partial`] trains on a sample of the classes,
//! [`checkpoint`] keeps a run, [`classes`] adds and removes classes.
//!
//! # The losses
//!
//! With `c_ij` the cosine of embedding i and prototype j, θ its angle and s the scale, a loss is the softmax cross-entropy
//! of `s · φ(c_iy)` at the label and `s · other(c_ij)` elsewhere.
//!
//! | loss | φ(cos θ) | constructor |
//! |---|---|---|
//! | NormFace | cos θ | [`MarginSoftmax::normface`] |
//! | CosFace | cos θ − m3 | [`MarginSoftmax::cosface`] |
//! | ArcFace | cos(θ + m2) | [`MarginSoftmax::arcface`] |
//! | SphereFace | cos(m1·θ), or its monotone continuation ψ | [`MarginSoftmax::sphereface`] |
//! | AmpFace | m0 · cos θ | [`MarginSoftmax::ampface`] |
//! | ChebyAAM | the Chebyshev series of cos(θ + m2) | [`MarginSoftmax::cheby_aam`] |
//! | unified | m0 · cos(m1·θ + m2) − m3, exact or as a series | [`MarginSoftmax::unified`] |
//! | ArcGrad | −θ, for every class | [`MarginSoftmax::arcgrad`] |
//! | Li-ArcFace | (π − 2(θ + m))/π, others (π − 2θ)/π | [`MarginSoftmax::li_arcface`] |
//! | CurricularFace | cos(θ + m2), others that are harder c·(t + c) | [`MarginSoftmax::curricularface`] |
//! | AdaFace | cos(θ + m2) − m3, both by the norm of the embedding | [`MarginSoftmax::adaface`] |
//! | MagFace | cos(θ + m2), m2 by the norm of the embedding | [`MarginSoftmax::magface`] |
//! | ElasticFace | cos(θ + m2) or cos θ − m3, drawn per row | [`MarginSoftmax::elasticface_arc`], [`elasticface_cos`](MarginSoftmax::elasticface_cos) |
//! | SphereFace2 | g(cos θ) − m, one binary problem per class | [`MarginSoftmax::sphereface2`] |
//! | AdaCos | cos θ, the scale follows the batch | [`MarginSoftmax::adacos`] |
//! | softmax, M-Softmax | w·x + b − m3, no normalisation | [`MarginSoftmax::softmax`], [`m_softmax`](MarginSoftmax::m_softmax) |
//! | MV-Softmax, ArcNegFace | cos θ − m3 or cos(θ + m2), others weighed by the target's logit | presets `mv_am`, `mv_arc`, `arcnegface` |
//! | A-Softmax | \|x\|·ψ(4·θ), others \|x\|·cos θ | presets `a_softmax`, `modified_softmax` |
//! | your own | any curve, any transform of the others | [`Margin`], [`OtherCurve`] |
//!
//! [`objective::PRESETS`] lists every named loss with its numbers and their source. [`objective::Fallback`] says how φ
//! continues where the angle passes π, [`objective::Slope`] and [`objective::Curve`] choose the dφ/dx of the backward pass.
//! [`Others`] are the transforms of the other classes, [`Adaptive`] the margins that follow the row; [`Similarity`] and
//! [`Link`] replace the cosine and the softmax. [`Shape::with_sub_centers`] gives a class several prototypes, [`Batch`]
//! brings margins of classes and rows and a bias, [`Want`] asks for the gradients of scale and bias too.
//!
//! The numbers that a run must keep are a [`State`]: [`SliceHead::train`] moves them, [`SliceHead::evaluate`] only
//! reads them. Classes may be divided over devices and machines, see [`shard`].
//!
//! # Predictions
//!
//! [`Backend::predictor`] gives the k nearest classes of embeddings without labels, with cosine and log-probability, among
//! millions of prototypes in bounded memory; [`Options::predictions`] those of a step beside its loss. [`data::Predictions`] says
//! what they are, for vectors that are not finite too.
//!
//! # Regularisers and center loss
//!
//! [`Regularizer`] is a penalty on the prototypes beside the head: Reg_ss, the length of the mean direction, or UniformFace,
//! the mean inverse distance of all pairs in memory linear in C. [`CenterLoss`] draws embeddings to centers that the caller
//! holds. [`Backend::regularize`], [`Backend::center_loss`] and [`Backend::update_centers`] take slices;
//! [`gpu::auxiliary`] records the same on tensors, and adds to a gradient that is already there if asked.
//!
//! # Guides
//!
//! One for each starting point: [slices](guide::slices), [a training run](guide::training) with schedules, sampling,
//! penalties, monitors and checkpoints, [a wgpu device](guide::device), [a burn model](guide::burn), [PyTorch and numpy](guide::python), [a browser](guide::browser),
//! [a loss of your own](guide::margin), and [parity](guide::parity) with an implementation that you have.
//!
//! On a device of the caller's the library works on the caller's buffers and encoder; recording only records: nothing is
//! created, written, submitted or polled. The device needs nothing beyond WebGPU's default limits. The pieces (cosines,
//! margin, cross entropy) are in [`gpu::operations`], each with its backward; a [`plan`] is plain data that any WebGPU runtime can
//! execute.
//!
//! # Numbers
//!
//! - **Precision.** f32 storage and accumulation (f16 and bf16 embeddings and prototypes are widened as they are read).
//!   Against the f64 [`reference`](mod@reference): cosines 2e-6; the mean loss 1e-5 relative on random data; row losses
//!   and gradients 1e-5 + 3e-7 · s · max(1, largest slope), since the scale and the slope multiply the rounding of a
//!   cosine. A loss of 1e-18 keeps its precision. The number of classes and rows does not widen these bounds: sums over very many
//!   of them are added up in parts, and what a vector pulls along its own direction leaves them before it outgrows the
//!   gradient. Tested with up to 4 million classes, and with 1 million rows.
//! - **At cos = ±1** the slope is bounded (sin θ is never divided by less than 1e-4), the forward value is never clamped:
//!   every finite input has a finite gradient. (A vector longer than 8e37 has no f32 inverse: on a GPU it counts as not
//!   finite.)
//! - **NaN.** A row with a NaN or infinite value has a NaN loss and makes the reduced loss NaN; the gradients are those of
//!   the batch without it. A prototype with one makes every loss NaN and every gradient 0. A label that names no class is
//!   an error on the host, and treated like a NaN row on a device. [`data::Counts`] tells how many there were. What is
//!   checked where: [the table](reliability#input).
//! - **Zero vectors** (shorter than 1e-12) take part with the direction x/1e-12 and get a gradient of exactly 0.
//! - **Determinism.** The same bits run after run on one device, driver, tile, chunk and split; on the CPU for any number
//!   of threads. No float atomics anywhere.
//!
//! [`reliability`] says what is promised when devices, memory or input fail, and how each promise is tested.
//!
//! # Memory
//!
//! [`Budget`] bounds everything that a head allocates beside inputs, outputs and the staging copies of slices. With room
//! for all N·C cosines they are kept between the passes; otherwise classes are processed in chunks and their cosines are
//! computed twice. Prototypes beyond one binding of the device (128 MiB in WebGPU) come as several shards; the slices
//! front does that by itself.
//!
//! # Limits
//!
//! Rows, classes, dim and rows · dim each below 2³¹; classes · K below 2³¹; on a GPU dim up to 65,536, K sub-centers up to 256, K · dim up to
//! 2²⁰, prototypes of a shard · dim below 2³¹, and eight storage buffers per stage. A row of a linear head whose logits
//! leave f32, beyond 3e38, counts as not finite. What does not fit is an [`Error`] with both numbers, before any work.
//!
//! # What this crate does not do
//!
//! It is no autodiff framework, optimiser or data loader, and holds no parameters: prototypes are the caller's. It does
//! not run on WebGL or on OpenGL ES below 3.1. In a browser only the async calls work.
//!
//! # Features
//!
//! `cpu` (default): the native path. `gpu` (default) with `vulkan`, `metal`, `dx12`, `webgpu`: the wgpu executor and its
//! backends. `serde`: losses, schedules and [`checkpoint`]s as JSON. `safetensors` (with `serde`): checkpoints as files.
//! `cooperative_matrix`, experimental: matrix units of a device that the caller opens, see [the guide](guide::device).
//! Without default features objective, [`theory`], [`monitor`], reference and [`plan`] remain, with neither wgpu nor threads
//! in the tree. Versions of wgpu, burn and Rust: [the table](guide#versions).

#![cfg_attr(docsrs, feature(doc_cfg))]
// without the GPU path the words about it lead nowhere
#![cfg_attr(not(feature = "gpu"), allow(rustdoc::broken_intra_doc_links))]
#![warn(missing_docs)]

mod backend;
pub mod checkpoint;
pub mod classes;
#[cfg(feature = "cpu")]
mod cpu;
#[cfg(all(feature = "cpu", feature = "catalogue"))]
#[doc(hidden)]
pub use cpu::trace as cpu_trace;
pub mod data;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(any(doc, doctest))]
pub mod guide;
pub mod monitor;
pub mod objective;
pub mod partial;
pub mod plan;
/// Classes of embeddings without labels.
pub mod predict {
    pub use crate::{
        backend::Predictor,
        data::{Inputs, Predictions},
    };
}
pub mod reference;
#[cfg(any(doc, doctest))]
pub mod reliability;
mod shape;
pub mod shard;
pub mod theory;
mod uniforms;

pub use backend::{Backend, SliceHead};
pub use data::{
    Batch, Budget, GradientFilter, Label, MarginGradients, Margins, MixedLabels, Options, Output, SoftLabels, Tile,
    Want,
};
pub use error::{Error, Result};
pub use objective::{
    Adaptive, CenterLoss, Link, Margin, MarginSoftmax, OtherCurve, Others, Reduction, Regularizer, Similarity, State,
    Target,
};
pub use shape::Shape;
#[cfg(feature = "gpu")]
pub use wgpu;

//! The margin-softmax head of the crate [`margin_softmax`] as a [burn] module: its parameters are the prototypes, its
//! forward pass is the head as one operation of burn's autodiff, with the analytic gradients of ArcFace, CosFace,
//! SphereFace, ChebyAAM and all the others.
//!
//! burn and the head work on one wgpu device. The head binds burn's own buffers; loss and gradients are copied on the
//! device into burn's tensors. Nothing goes through the host, nothing waits, and no N×C matrix is made beyond the budget.
//!
//! ```toml
//! [dependencies]
//! burn = { version = "0.22", features = ["wgpu", "train"] }
//! margin-softmax-burn = "0.1"
//! ```
//!
//! ```no_run
//! use burn::tensor::{Device, Distribution, Int, Tensor};
//! use margin_softmax_burn::{MarginHeadConfig, MarginSoftmax};
//!
//! // instead of `Device::default()`: burn opens its wgpu device, and the head learns of it
//! let device = margin_softmax_burn::init(Device::wgpu_options())?.autodiff();
//! // 1,000 classes, embeddings of 128 values
//! let head = MarginHeadConfig::new(1000, 128, MarginSoftmax::arcface().with_scale(30.0)).init(&device);
//!
//! let embeddings = Tensor::<2>::random([64, 128], Distribution::Default, &device).require_grad(); // your network's
//! let labels = Tensor::<1, Int>::arange(0..64, &device);
//! let loss = head.forward(embeddings.clone(), labels);
//! let gradients = loss.backward(); // into the network, and into `head.prototypes`
//! # let _ = (embeddings.grad(&gradients), head.prototypes.val().grad(&gradients));
//! # Ok::<(), margin_softmax_burn::Error>(())
//! ```
//!
//! [`MarginHead`] is a module like any other: part of a model, trained by burn's optimisers and learner, saved and loaded
//! with it. `examples/digits.rs` trains a network under ChebyAAM.
//!
//! # Devices
//!
//! - [`init`]: burn opens the device.
//! - [`from_setup`]: a wgpu device that you have opened, say an engine's. burn asks the adapter, not the device, what its
//!   kernels may use, and a kernel fails later where the device has less; [`descriptor`] is what to open a device with,
//!   and one that has less is refused here.
//! - [`share`]: a device that burn has opened elsewhere, by its handles.
//!
//! # What to know
//!
//! - **Training or evaluation** is decided by autodiff, as in burn's batch norm: with it the numbers that a loss follows
//!   (CurricularFace, AdaFace, AdaCos) move, and ElasticFace draws; `module.valid()` only reads them. They are saved with
//!   the module. A record does not hold the loss and the count of steps: keep [`MarginHeadConfig`] beside it, and
//!   [`MarginHead::set_step`] for ElasticFace.
//! - **Several forward passes** may wait for their backward passes, in any order; each has a workspace then.
//! - **Batch sizes**: kernels are compiled once for all of them, workspaces are kept for the last four sizes.
//! - **Element type**: f32, like the gradients.
//! - **Errors**: [`MarginHead::try_forward`]; burn's backward pass returns none, so there a lost device is a panic.
//! - **Memory**: beside the budget one more copy of each gradient, since burn puts inputs and outputs into one buffer,
//!   which WebGPU forbids to read and write in one dispatch.
//! - A linear head has no bias here, and rows have no margins of their own.
//!
//! # More than labels
//!
//! [`MarginHead::forward_with`] takes [`StepOptions`]: weights of rows and classes, margins of classes, several targets of each
//! row ([`SoftLabels`]: mixup, cutmix, teachers), a divisor that makes the losses of micro-batches add up to that of the batch. It
//! also returns the nearest classes of each row and the log-sum-exps. All of these are constants: gradients flow to the
//! embeddings and the prototypes. [`MarginHead::predict`] is the same search without labels, for inference: over millions of
//! classes within the budget.
//!
//! # Beside the loss
//!
//! [`regularize`] is a penalty on the prototypes (Reg_ss, UniformFace) and [`Centers`] the center loss, both with gradients that flow
//! through burn's graph. [`MarginHead::apply_schedules`] moves margins and scale from step to step. A
//! [`monitor`](StepOptions::monitor) of the steps, [`mean_prototype`] and the library's
//! [`CollapseDetector`](margin_softmax::monitor::CollapseDetector) tell how a run goes; [`MarginHead::report`] has the numbers of one
//! batch for a log.
//!
//! # Features and versions
//!
//! burn's `fusion` and `autotune` may be on or off.
//!
//! | margin-softmax-burn | margin-softmax | burn | wgpu | minimum Rust |
//! |---|---|---|---|---|
//! | 0.1 | 0.1 | 0.22 | 30 | 1.95 |

#![warn(missing_docs)]

mod auxiliary;
mod buffer;
mod device;
mod error;
mod head;
mod monitor;
mod op;
mod pool;
mod predict;
mod step;

pub use auxiliary::{Centers, CentersConfig, regularize, try_regularize};
pub use device::{context, descriptor, from_setup, init, share};
pub use error::{Error, Result};
pub use head::{MarginHead, MarginHeadConfig};
pub use margin_softmax::{self, CenterLoss, MarginSoftmax, Regularizer, wgpu};
pub use monitor::{StepMonitor, mean_prototype, try_mean_prototype};
pub use step::{Predictions, SoftLabels, StepOptions, StepOutput};

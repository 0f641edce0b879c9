//! burn: the head as a module of a burn model.
//!
//! The crate `margin-softmax-burn` (`integrations/burn` in the repository) holds the prototypes as a burn parameter and
//! runs this head as an operation of burn's autodiff, on burn's own wgpu device and buffers: nothing goes through the host.
//! It is a crate of its own since burn needs a newer Rust, see [the table](super#versions); that also is why the code here
//! is not compiled with this guide, but by the tests over there.
//!
//! ```ignore
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
//! ```
//!
//! `head.forward_with(embeddings, labels, &options)` takes a `StepOptions` with optional tensors, all of them constants, and returns
//! more than the loss:
//!
//! | field | shape | |
//! |---|---|---|
//! | `row_weights`, `class_weights` | \[N\], \[C\] | as [`Batch::row_weights`](crate::Batch) and `class_weights` |
//! | `class_margins` | \[C, 4\] | m0 to m3 of each class; NaN means those of the loss |
//! | `soft_labels` | \[N, T\] twice | classes and weights of up to 16 targets of each row, see [`SoftLabels`](crate::data::SoftLabels) |
//! | `divisor` | a number | what a mean is divided by: the losses of micro-batches add up to that of the batch |
//! | `predictions`: k | \[N, k\] | gives the k nearest classes with cosines and log-probabilities |
//! | `log_sum_exps` | \[N\] | gives the log-sum-exp of each row |
//!
//! Mixup of two batches, with the λ of each row:
//!
//! ```ignore
//! let soft_labels = Some(SoftLabels::mixed(labels.clone(), others, lambda));
//! let loss = head.forward_with(mixed, labels, &StepOptions { soft_labels, ..StepOptions::default() }).loss;
//! ```
//!
//! Beside the head: `regularize(&Regularizer::reg_ss(), prototypes)` is a penalty that burn adds to the loss and differentiates,
//! `CentersConfig` makes the centers of the center loss, `head.apply_schedules` sets margins and scale for a step,
//! `StepOptions::monitor` asks for a `StepMonitor` of accuracy and angles in the output, and `head.report` makes a
//! [`BatchReport`](crate::monitor::BatchReport).
//!
//! `head.predict(embeddings, 5)` finds the nearest classes without labels and without an N×C matrix, within the head's budget.
//!
//! Any other framework on wgpu can share its device as in [`device`](super::device): the library binds a range of a
//! `wgpu::Buffer` and does not ask whose it is. What to mind there: tensors of a framework begin at offsets of shared
//! buffers, and inputs and results of one head often lie in the same one, which WebGPU cannot read and write in one
//! dispatch.

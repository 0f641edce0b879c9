//! Embed it: your wgpu device, your buffers at any offset, your encoder, your submit.
//!
//! The whole is `examples/your_device`: a network, two heads and an optimiser in one submit, checked against the reference.
//! On llvmpipe it prints
//!
//! ```text
//! device     llvmpipe (LLVM 15.0.6, 256 bits): WebGPU's default limits, no features
//! buffer     data: 9728 bytes, tensors at [0, 6144, 9216, 9472]
//! buffer     model: 73728 bytes, tensors at [0, 8192, 72192]
//! buffer     results: 74240 bytes, tensors at [0, 256, 512, 8704, 72704]
//! submits    1: network, ArcFace over 500, CosFace over 12, optimiser, copies
//! library    17 kernels and 232816 bytes of its own, none of them made while recording
//! ArcFace, loss       13.94024 ..., off by 0.0e0 of the largest value
//! CosFace, loss        7.97307 ..., off by 0.0e0 of the largest value
//! dX of both           0.00256 ..., off by 2.1e-7 of the largest value
//! dW                   0.00007 ..., off by 4.7e-7 of the largest value
//! dV                  -0.05392 ..., off by 3.0e-7 of the largest value
//! W after the step    -0.00001 ..., off by 6.0e-8 of the largest value
//! the engine's error handler heard 0 errors
//! ```
//!
//! # The device
//!
//! WebGPU's default limits and no features are enough. Large heads gain from more; nothing is requested behind your back.
//!
//! ```
//! # #[cfg(feature = "gpu")] {
//! use margin_softmax::{gpu, wgpu};
//!
//! async fn open(
//!     adapter: &wgpu::Adapter,
//!     mine: wgpu::Limits,
//! ) -> Result<(wgpu::Device, wgpu::Queue), wgpu::RequestDeviceError> {
//!     let descriptor = wgpu::DeviceDescriptor {
//!         // at least `gpu::required_limits()`
//!         required_limits: mine.or_better_values_from(&gpu::recommended_limits(adapter)),
//!         required_features: gpu::optional_features(adapter),
//!         ..Default::default()
//!     };
//!     adapter.request_device(&descriptor).await
//! }
//! # }
//! ```
//!
//! # A head
//!
//! ```
//! # #[cfg(feature = "gpu")] {
//! use margin_softmax::{
//!     MarginSoftmax, Options, Shape,
//!     gpu::{Context, Head, Io, Tensor},
//!     plan::{Element::{F32, I32}, Layout, Plan},
//!     wgpu,
//! };
//! # let (device, queue) = wgpu::Device::noop(&Default::default());
//! # let buffer = |size| device.create_buffer(&wgpu::BufferDescriptor {
//! #     label: None, size, usage: wgpu::BufferUsages::STORAGE, mapped_at_creation: false });
//! # let (inputs, outputs) = (buffer(1 << 20), buffer(1 << 20));
//!
//! // once: the context, and a plan of the head for this device
//! let context = Context::from_device(&device, &queue)?;
//! let (loss, shape) = (MarginSoftmax::arcface(), Shape::new(64, 1000, 128)?);
//! let layout = Layout { shards: &[1000], embeddings: F32, prototypes: F32 };
//! let plan = Plan::head(&loss, shape, &layout, context.limits(), &Options::default())?;
//! println!("workspace: {} bytes", plan.workspace_bytes());
//! let head = Head::new(&context, &loss, plan)?; // compiles
//!
//! // once per set of buffers: views of yours, no copy
//! let x = Tensor::from_buffer(&inputs, 0, &[64, 128], F32)?;
//! let w = Tensor::from_buffer(&inputs, 32_768, &[1000, 128], F32)?;
//! let y = Tensor::from_buffer(&inputs, 544_768, &[64], I32)?;
//! let l = Tensor::from_buffer(&outputs, 0, &[1], F32)?;
//! let dx = Tensor::from_buffer(&outputs, 256, &[64, 128], F32)?;
//! let dw = Tensor::from_buffer(&outputs, 33_024, &[1000, 128], F32)?;
//! let mut bound = head.bind(&Io { // allocates the workspace
//!     grad_embeddings: Some(&dx),
//!     grad_prototypes: &[&dw],
//!     ..Io::new(&x, &[&w], &y, &l)
//! })?;
//!
//! // every step
//! bound.update(&loss, 60)?; // only if margins, scale or the number of rows changed: one queue write
//! let mut encoder = device.create_command_encoder(&Default::default());
//! bound.record_forward(&mut encoder);
//! bound.record_backward(&mut encoder);
//! queue.submit([encoder.finish()]);
//! # }
//! # Ok::<(), margin_softmax::Error>(())
//! ```
//!
//! # The rules
//!
//! - **Recording only records.** `record_forward` and `record_backward` create, write, submit and poll nothing, and cannot
//!   fail. The same bound set may be recorded any number of times.
//! - **Writes precede the submit.** `update`, `set_accumulate` and `set_state` write through the queue, so they hold for all
//!   work submitted later, recorded before or not. Two settings in one submit need two bound sets.
//! - **Small workgroups.** A device that allows 128 invocations in one, as in WebGPU's compatibility mode, gets kernels of that
//!   width by its limits; sums over a batch are then added in another order. Eight storage buffers are needed in any case, and no
//!   kernel uses atomics in workgroup memory, which some drivers lose.
//! - **Predictions.** A plan with [`Options::predictions`](crate::Options::predictions) writes the nearest classes of each row to
//!   [`Io::predictions`](crate::gpu::Io) in its forward pass; [`Plan::predict`](crate::plan::Plan::predict) and
//!   [`Head::bind_predictions`](crate::gpu::Head::bind_predictions) do so without labels, losses and gradients.
//! - **Offsets** are multiples of the device's `min_storage_buffer_offset_alignment`, 256 by default.
//! - **Inputs and results** lie in different buffers: WebGPU lets no kernel write a buffer of which it reads another part.
//! - **Several heads** are several bound sets in one encoder. Gradients to one tensor add up with `set_accumulate(true)` on
//!   all but the first.
//! - **Many classes.** Prototypes beyond one binding come as several tensors: [`Plan::shards`](crate::plan::Plan::shards)
//!   gives their sizes, [`Layout::shards`](crate::plan::Layout) takes them, [`Io`](crate::gpu::Io) takes the tensors.
//! - **Readback is yours.** [`Tensor::read`](crate::gpu::Tensor), `read_counts` and `read_state` exist for convenience;
//!   they submit and wait.
//! - **Long steps** are cut with [`Options::work_per_submit`](crate::Options::work_per_submit), for systems that reset a device
//!   whose submit takes too long: [`forward_parts`](crate::gpu::BoundHead::forward_parts) and `backward_parts` record a part at a
//!   time, each for a submit of its own, with the bits of one submit.
//! - **Callbacks stay yours.** The library sets neither the error handler nor the device-lost callback. It runs what may be
//!   refused in error scopes of its own, and returns the refusal. A mistake of yours reaches your handler as before.
//! - **One instance.** wgpu tells the buffers of two devices apart only within one `wgpu::Instance`.
//!
//! # Matrix units
//!
//! With the crate's feature `cooperative_matrix`, which is experimental as wgpu's is. The device is yours to open, with
//! `EXPERIMENTAL_COOPERATIVE_MATRIX`, `SHADER_F16` and wgpu's unsafe `ExperimentalFeatures::enabled()`; then
//! `Context::check_matrix_units(&adapter)`, once, before the first plan: it looks for units of 16×16×16 or 8×8×8 (f16, sums in f32)
//! and compares products with those of another tile. From then on [`Context::limits`](crate::gpu::Context::limits) has them,
//! and plans made with these limits may take a tile `tile_coop_*`: by `Options::tile`, or by the preset `desktop` on NVIDIA.
//! A tile of units that were not tried is [`Missing`](crate::Error::Missing).
//!
//! Results keep the precision of f32, whatever the range of the input: each value is two f16, of which three products are
//! taken, and each row, class and column of a product has a power of two of its own. That holds for linear heads and for
//! [`operations`](crate::gpu::operations) too. An infinite dL/dcosine makes its row and its class NaN, where other tiles may leave an infinity.
//! The tiles `tile_coop_*_half` take one product of one f16 for each value, with an error that
//! [`Tile`](crate::Tile) states, and only where `Options::tile` asks for them. No GPU was measured.
//!
//! # When it refuses
//!
//! | error | what helps |
//! |---|---|
//! | [`Limit`](crate::Error::Limit) | open the device with [`recommended_limits`](crate::gpu::recommended_limits), which asks for what the adapter has; shards |
//! | [`Feature`](crate::Error::Feature) | [`optional_features`](crate::gpu::optional_features) |
//! | [`Usage`](crate::Error::Usage) | make the buffer with `STORAGE`; `COPY_DST` for `Tensor::write`, `COPY_SRC` for `Tensor::read` |
//! | [`Alignment`](crate::Error::Alignment), [`Buffer`](crate::Error::Buffer) | another offset, a larger buffer |
//! | [`Shape`](crate::Error::Shape), [`Element`](crate::Error::Element) | the tensor that the plan was made for, or another plan |
//! | [`Overlap`](crate::Error::Overlap) | a buffer of its own for the result |
//! | [`Work`](crate::Error::Work) | a larger `work_per_submit`, shards, fewer rows |
//! | [`Unfinished`](crate::Error::Unfinished) | all parts of a call, or a forward pass anew |
//! | [`Foreign`](crate::Error::Foreign) | a buffer of the context's own device that still lives |
//! | [`Recompile`](crate::Error::Recompile) | a new head: this loss needs other kernels |
//! | [`Budget`](crate::Error::Budget) | a larger [`Budget`](crate::Budget) |
//! | [`DeviceLost`](crate::Error::DeviceLost) | a new device, context and heads |
//!
//! # Beside the head
//!
//! On the same encoder: cosines, margin and cross entropy by themselves ([`gpu::operations`](crate::gpu::operations)), histograms of
//! angles ([`gpu::monitor`](crate::gpu::monitor)), penalties ([`gpu::auxiliary`](crate::gpu::auxiliary)), sampled classes
//! ([`gpu::gather`](crate::gpu::gather())), timestamps ([`gpu::timing`](crate::gpu::timing)).

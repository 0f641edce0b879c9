//! Write a loss: a curve of your own for the labelled class.
//!
//! Many published losses differ only in φ, what becomes of the cosine at the label. Such a loss is one
//! [`Margin`](crate::Margin): φ and its slope in Rust, the same in WGSL, and its numbers. All else (the other classes,
//! smoothing, weights, reductions, every backend) works as for the losses that are built in.
//!
//! ```
//! # #[cfg(feature = "cpu")] {
//! use margin_softmax::{Backend, Batch, Margin, MarginSoftmax, Shape, Target, objective::Custom};
//!
//! /// φ(x) = x − m·(1 − x)²: no margin on the prototype itself, more with the distance.
//! #[derive(Debug)]
//! struct Quadratic { m: f64 }
//!
//! impl Margin for Quadratic {
//!     fn name(&self) -> &str {
//!         "quadratic"
//!     }
//!     fn value_slope(&self, x: f64) -> (f64, f64) {
//!         (x - self.m * (1.0 - x).powi(2), 1.0 + 2.0 * self.m * (1.0 - x))
//!     }
//!     fn wgsl(&self) -> &str {
//!         "fn margin_target(x: f32) -> ValueSlope {
//!             let m = parameter(0u);
//!             return ValueSlope(x - m * (1.0 - x) * (1.0 - x), 1.0 + 2.0 * m * (1.0 - x));
//!         }"
//!     }
//!     fn parameters(&self) -> Vec<f64> {
//!         vec![self.m]
//!     }
//! }
//!
//! let quadratic = |m| MarginSoftmax {
//!     target: Target::Custom(Custom::new(Quadratic { m })),
//!     ..MarginSoftmax::normface().with_scale(8.0)
//! };
//! let mut head = Backend::cpu().head(&quadratic(0.25), Shape::new(2, 3, 2)?)?;
//! let batch = Batch {
//!     embeddings: &[0.9, 0.5, 0.6, 0.7],
//!     prototypes: &[1.0, 0.2, 0.1, 1.0, -1.0, 0.5],
//!     labels: &[0, 1],
//!     ..Default::default()
//! };
//! for m in [0.0, 0.25, 0.5] {
//!     head.update(&quadratic(m))?; // a number: nothing is compiled again
//!     println!("m = {m}: loss {:.4}", head.evaluate(&batch)?.loss);
//! }
//! # for (m, expected) in [(0.0, 0.3076), (0.25, 0.3220), (0.5, 0.3369)] {
//! #     head.update(&quadratic(m))?;
//! #     assert!((head.evaluate(&batch)?.loss - expected).abs() < 6e-5);
//! # }
//!
//! // a slope that is not the derivative trains to nowhere: measure it
//! let (loss, step) = (quadratic(0.5), 1e-6);
//! for x in [-0.9, -0.3, 0.2, 0.8] {
//!     let phi = |x| loss.target_value_slope(x).0;
//!     let measured = (phi(x + step) - phi(x - step)) / (2.0 * step);
//!     assert!((measured - loss.target_value_slope(x).1).abs() < 1e-8);
//! }
//! # #[cfg(feature = "gpu")] {
//! # let (device, queue) = margin_softmax::wgpu::Device::noop(&Default::default());
//! # let context = margin_softmax::gpu::Context::from_device(&device, &queue)?;
//! # Backend::Gpu(context).head(&quadratic(0.25), Shape::new(2, 3, 2)?)?;
//! # }
//! # }
//! # Ok::<(), margin_softmax::Error>(())
//! ```
//!
//! ```text
//! m = 0: loss 0.3076
//! m = 0.25: loss 0.3220
//! m = 0.5: loss 0.3369
//! ```
//!
//! - The WGSL is checked when a head is made on a GPU: [`Error::Wgsl`](crate::Error::Wgsl) points at what is wrong in it.
//!   `ValueSlope`, `parameter(i)` and `quadrant_angle`, `cos_sin`, `exponential`, `logarithm` are at hand: use those four,
//!   since WGSL allows a driver's own `cos` to be off by 2⁻¹¹.
//! - Both must agree: compare a GPU with [`Backend::reference`](crate::Backend::reference), as the example `custom_margin`
//!   does.
//! - A margin that depends on the row is built in: [`Adaptive`](crate::Adaptive), margins per class and row in
//!   [`Batch`](crate::Batch).
//! - Only the cosine at the label and sixteen numbers are known to the curve, and it has no JSON form.
//!
//! # Other classes
//!
//! An [`OtherCurve`](crate::OtherCurve) maps the cosines of all other classes: value and slope of one cosine, which
//! may look at the target of its row, its cosine and its value with margin. MV-Softmax and ArcNegFace are built in that way.
//!
//! ```
//! # #[cfg(feature = "cpu")] {
//! use margin_softmax::{
//!     Backend, Batch, MarginSoftmax, OtherCurve, Others, Shape,
//!     objective::{CustomOthers, RowTarget},
//! };
//!
//! /// c + m·(1 − φ): a margin for all other classes, the larger the farther the sample is from its prototype.
//! #[derive(Debug)]
//! struct Repelled { m: f64 }
//!
//! impl OtherCurve for Repelled {
//!     fn name(&self) -> &str {
//!         "repelled"
//!     }
//!     fn value_slope(&self, c: f64, target: RowTarget) -> (f64, f64) {
//!         (c + self.m * (1.0 - target.value), 1.0)
//!     }
//!     fn wgsl(&self) -> &str {
//!         "fn margin_other(c: f32, row: RowTarget) -> ValueSlope {
//!             return ValueSlope(c + other_parameter(0u) * (1.0 - row.value), 1.0);
//!         }"
//!     }
//!     fn parameters(&self) -> Vec<f64> {
//!         vec![self.m]
//!     }
//! }
//!
//! let repelled = |m| MarginSoftmax::normface().with_scale(8.0).with_others(Others::Custom(CustomOthers::new(Repelled { m })));
//! let mut head = Backend::cpu().head(&repelled(0.0), Shape::new(2, 3, 2)?)?;
//! # let batch = Batch {
//! #     embeddings: &[0.9, 0.5, 0.6, 0.7],
//! #     prototypes: &[1.0, 0.2, 0.1, 1.0, -1.0, 0.5],
//! #     labels: &[0, 1],
//! #     ..Default::default()
//! # };
//! let plain = head.evaluate(&batch)?.loss;
//! head.update(&repelled(0.5))?;
//! assert!(head.evaluate(&batch)?.loss > plain);
//! # assert!((plain - 0.3076).abs() < 6e-5);
//! # }
//! # Ok::<(), margin_softmax::Error>(())
//! ```
//!
//! - The row's target is a constant: no gradient passes through it, as the authors of CurricularFace, MV-Softmax and ArcNegFace
//!   publish their losses. The slope is yours as well: what depends on c and shall be a constant too, such as a weight, is left out
//!   of it.
//! - The text is part of kernels with many names: give functions of its own long names. Those of a [`Margin`](crate::Margin) are
//!   in other kernels and cannot collide with it. `RowTarget`, `other_parameter(i)`, `exponential` and `logarithm` are at hand.
//! - The CPU path calls [`OtherCurve::fill`](crate::OtherCurve::fill) for many classes at once, which may be written out in f32.
//!
//! # The same curve built in
//!
//! A curve that others should have too belongs into the library, where it has a JSON form, checked ranges and a place in
//! every test. The curve above takes two new files and six lines in two others:
//!
//! | file | content |
//! |---|---|
//! | `src/objective/target/quadratic.rs` | a struct with its numbers, their ranges and defaults; its name, check, shader, value and slope, and the uniform fields that its shader reads (57 lines) |
//! | `shaders/target/quadratic.wgsl` | `fn margin_target` (6 lines) |
//! | `src/objective/target/mod.rs` | `mod`, `pub use`, and the variant of `Target`: 4 lines with the variant's documentation |
//! | `tests/families/kinds.rs` | what the tests must know of it, and a loss as an example: 2 lines |
//!
//! The compiler refuses a variant without its line in the tests. Host, CPU, GPU, browser, fuzz and soak
//! tests then run the example, Tint and naga compile its kernels, and JSON reads and writes it. Named numbers are a preset:
//! one more entry in `src/objective/presets.rs`. A transform of the other classes is the same in `src/objective/others` and
//! `shaders/others`; where the CPU computes it with vector instructions, `src/cpu/curve.rs` has its f32 form too.

//! Call it: slices in, loss and gradients out.
//!
//! ```
//! # #[cfg(feature = "cpu")] {
//! use margin_softmax::{Backend, Batch, MarginSoftmax, Shape};
//!
//! // 4 embeddings and 3 prototypes of 3 values, row after row, of any length: normalising is part of the head
//! let embeddings = [0.9, 0.1, 0.2, 0.1, 0.8, 0.3, 0.2, 0.1, 0.7, 0.6, 0.5, 0.1];
//! let prototypes = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
//! let labels = [0_u32, 1, 2, 1];
//! let batch = Batch { embeddings: &embeddings, prototypes: &prototypes, labels: &labels, ..Default::default() };
//!
//! // made once, for batches of at most 4 rows: checks, allocates and on a GPU compiles
//! let loss = MarginSoftmax::arcface().with_scale(16.0);
//! let mut head = Backend::cpu().head(&loss, Shape::new(4, 3, 3)?)?;
//! let out = head.evaluate(&batch)?;
//! println!("loss {:.4}", out.loss);
//! for row in 0..4 {
//!     println!("row {row}: loss {:.4}, cosine to its prototype {:.3}, to the nearest other {:.3}",
//!         out.row_losses[row], out.target_cosines[row], out.other_cosines[row]);
//! }
//! println!("dL/dX of row 3: {:.3?}", &out.grad_embeddings[9..]);
//!
//! head.update(&loss.with_scale(8.0))?; // margins and scale change without a new head
//! println!("at scale 8: {:.4}", head.evaluate(&batch)?.loss);
//! # let printed = format!("{:.4} {:.4?} {:.3?}", out.loss, out.row_losses, &out.grad_embeddings[9..]);
//! # assert_eq!(printed, "2.3033 [0.0003, 0.0097, 0.0014, 9.2017] [5.256, -6.313, 0.030]");
//! # assert_eq!(format!("{:.4}", head.evaluate(&batch)?.loss), "1.1979");
//! # }
//! # Ok::<(), margin_softmax::Error>(())
//! ```
//!
//! ```text
//! loss 2.3033
//! row 0: loss 0.0003, cosine to its prototype 0.970, to the nearest other 0.216
//! row 1: loss 0.0097, cosine to its prototype 0.930, to the nearest other 0.349
//! row 2: loss 0.0014, cosine to its prototype 0.953, to the nearest other 0.272
//! row 3: loss 9.2017, cosine to its prototype 0.635, to the nearest other 0.762
//! dL/dX of row 3: [5.256, -6.313, 0.030]
//! at scale 8: 1.1979
//! ```
//!
//! | you want | write |
//! |---|---|
//! | a GPU if there is one | [`Backend::best`](crate::Backend::best); [`Backend::gpu`](crate::Backend::gpu) takes a part of an adapter's name |
//! | to know whether it is right | [`Backend::reference`](crate::Backend::reference): the same call in f64, slowly |
//! | no allocation per batch | [`evaluate_into`](crate::SliceHead::evaluate_into) |
//! | a future | [`evaluate_async`](crate::SliceHead::evaluate_async) |
//! | losses that follow the batch to move | [`train`](crate::SliceHead::train) in the place of `evaluate` |
//! | the nearest classes, without labels | [`Backend::predictor`](crate::Backend::predictor) |
//! | the nearest classes of a step | [`Options::predictions`](crate::Options::predictions) |
//! | fewer gradients, less memory | [`head_with`](crate::Backend::head_with) and [`Options`](crate::Options) |
//! | weights, biases, margins per class or row | the other fields of [`Batch`](crate::Batch) |
//! | f16 or bf16 | [`evaluate_stored`](crate::SliceHead::evaluate_stored) |
//! | a sample of the classes per step | [`partial`](crate::partial) |
//! | classes over several devices | [`shard`](crate::shard) |

//! A training run: everything beside the loss itself, in one loop.
//!
//! | for | there is |
//! |---|---|
//! | margins and scales that grow | [`Schedules`](crate::objective::Schedules): linear and exponential ramps over steps or epochs, as in wespeaker, 3D-Speaker and the code of ChebyAAM's authors |
//! | millions of classes | [`SampledHead`](crate::partial::SampledHead) (Partial FC: the labelled classes and a seeded share of the others, sparse dW), [`gpu::gather`](crate::gpu::gather) on tensors, [`shard`](crate::shard): one head over devices and machines that exchange a few numbers per row |
//! | the geometry of the prototypes | [`Backend::regularize`](crate::Backend::regularize): Reg_ss, and UniformFace in memory linear in C; [`Backend::center_loss`](crate::Backend::center_loss) with [`update_centers`](crate::Backend::update_centers) |
//! | watching a run | [`monitor`](crate::monitor): accuracy, angles and their histograms, target cosines, the length of the mean prototype, angles within and between classes, a warning when training collapses; on a device one more kernel beside the forward pass; [`BatchReport`](crate::monitor::BatchReport) for a batch: lengths of embeddings, margins and scale in force, MagFace's two terms, quantiles of the target cosines, norms of the gradients |
//! | gradients of many classes that hardly matter | [`GradientFilter`](crate::data::GradientFilter), opt in: entries of the gradient below ε are dropped, the dropped mass is reported and bounds the error |
//! | continuing after a stop | [`checkpoint`](crate::checkpoint): state, sampler and tensors as JSON or safetensors; the run continues bit for bit |
//! | rows that count more, or less | [`Batch::row_weights`](crate::Batch::row_weights): a factor on a row's loss, in a weighted mean together with the class weights |
//! | batches in parts: micro-batches, replicas | [`Batch::divisor`](crate::Batch::divisor): every part divides by the Z of the whole batch, so that losses and gradients simply add up |
//! | few hard rows among many easy ones | [`MarginSoftmax::focal`](crate::MarginSoftmax::focal) |
//! | logits that drift | [`MarginSoftmax::z_loss`](crate::MarginSoftmax::z_loss), and [`Output::log_sum_exps`](crate::Output::log_sum_exps) to watch them |
//! | classes that come and go | [`classes`](crate::classes): prototypes of new classes from mean directions, checkpoints that grow or shrink, the labels after it; the example `grow` takes a run from 25 to 41 classes |
//! | wrong labels | [`SubCenters`](crate::classes::SubCenters): the dominant sub-centre of every class, and the rows beyond 75° from it, as Sub-center ArcFace drops them |
//! | classes of very unequal size | [`CountMargins`](crate::classes::CountMargins): margins by the number of rows, for [`Batch::class_margins`](crate::Batch) |
//!
//! # Batches in parts
//!
//! A mean over micro-batches of different sizes, or of different weights, is not the mean of their means. Z of the whole batch is
//! the sum of the weights of its rows, which is known before anything is computed: with it as the divisor of each part, the parts
//! add up to what one call gives. On tensors [`BoundHead::set_divisor`](crate::gpu::BoundHead::set_divisor) says the same, and
//! [`set_accumulate`](crate::gpu::BoundHead::set_accumulate) adds dW up in its buffer while dX, which has rows of its own in each
//! part, is overwritten.
//!
//! ```
//! # #[cfg(feature = "cpu")] {
//! use margin_softmax::*;
//! # let (x, w, y) = (vec![0.3, 0.1, -0.2, 0.9, 0.5, 0.5], vec![0.1, 0.2, -0.5, 0.4, 0.7, 0.7], [0, 2, 1]);
//!
//! let mut head = Backend::cpu().head(&MarginSoftmax::arcface(), Shape::new(3, 3, 2)?)?;
//! let weights = [1.0, 0.25, 2.0];
//! let batch = Batch { embeddings: &x, prototypes: &w, labels: &y, row_weights: Some(&weights), ..Default::default() };
//! let whole = head.evaluate(&batch)?;
//!
//! let z = weights.iter().sum();
//! let (mut loss, mut grad_prototypes) = (0.0, vec![0.0; w.len()]);
//! for rows in [0..1, 1..3] {
//!     let part = Batch {
//!         embeddings: &x[2 * rows.start..2 * rows.end],
//!         labels: &y[rows.clone()],
//!         row_weights: Some(&weights[rows]),
//!         divisor: Some(z),
//!         ..batch
//!     };
//!     let out = head.evaluate(&part)?;
//!     loss += out.loss;
//!     grad_prototypes.iter_mut().zip(&out.grad_prototypes).for_each(|(sum, g)| *sum += g);
//! }
//! assert!((loss - whole.loss).abs() < 1e-6 * whole.loss);
//! assert!(grad_prototypes.iter().zip(&whole.grad_prototypes).all(|(a, b)| (a - b).abs() < 1e-4));
//! # }
//! # Ok::<(), margin_softmax::Error>(())
//! ```
//!
//! # One loop
//!
//! A margin that grows, sampled classes, a penalty on the prototypes, a monitor and a checkpoint together:
//!
//! ```
//! # #[cfg(feature = "cpu")] {
//! use margin_softmax::{checkpoint::Checkpoint, monitor::{CollapseDetector, CollapseThresholds, Monitor},
//!     objective::{Epochs, Ramp, Schedule, Schedules}, partial::{Classes, PartialFc, SampledHead}, *};
//! # let (x, mut w, y) = (vec![0.3, 0.1, -0.2, 0.9], vec![0.1, 0.2, -0.5, 0.4, 0.7, 0.7], [0, 2]);
//!
//! let (steps, shape, backend) = (10, Shape::new(2, 3, 2)?, Backend::cpu());
//! let mut loss = MarginSoftmax::arcface().with_scale(8.0);
//! // from no margin to 0.5 over the second and third epoch
//! let m2 = Schedule::epochs(0.0, 0.5, Ramp::Exponential, 1..3, Epochs::FromZero, steps)?;
//! let schedules = Schedules { m2: Some(m2), ..Default::default() };
//! // two of the three classes in each step
//! let mut head = SampledHead::new(&backend, &loss, shape, &Options::default(), PartialFc::new(0.7, 1)?)?;
//! let mut detector = CollapseDetector::new(CollapseThresholds::default(), shape)?; // warns after a warm-up of 20,000 rows
//! for step in 0..3 * steps {
//!     schedules.apply(step, &mut loss)?;
//!     head.update(&loss)?;
//!     let out = head.train(&Batch { embeddings: &x, prototypes: &w, labels: &y, ..Default::default() })?;
//!     for (&class, gradient) in out.classes.iter().zip(out.output.grad_prototypes.chunks_exact(2)) {
//!         w[2 * class..][..2].iter_mut().zip(gradient).for_each(|(w, g)| *w -= 0.1 * g);
//!     }
//!     let penalty = backend.regularize(&Regularizer::RegSs { weight: 1.0 }, 2, &w)?;
//!     w.iter_mut().zip(&penalty.gradient).for_each(|(w, g)| *w -= 0.1 * g);
//! }
//!
//! let all = head.evaluate(&Batch { embeddings: &x, prototypes: &w, labels: &y, ..Default::default() }, Classes::All)?;
//! let mut monitor = Monitor::new(90)?;
//! monitor.add(&all.output, &y, None)?;
//! let report = monitor.report().with_mean_prototype(backend.mean_prototype(2, &w)?);
//! if let Some(collapse) = detector.check(&report) {
//!     println!("{collapse}");
//! }
//! let checkpoint = Checkpoint::new(head.state()).with_sampler(head.sampler()).with_tensor("prototypes", &[3, 2], w)?;
//! # let _ = (report.accuracy, checkpoint);
//! # }
//! # Ok::<(), margin_softmax::Error>(())
//! ```

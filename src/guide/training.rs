//! A training run: everything beside the loss itself, in one loop.
//!
//! | for | there is |
//! |---|---|
//! | margins and scales that grow | [`Schedules`](crate::objective::Schedules): linear and exponential ramps over steps or epochs, as in wespeaker, 3D-Speaker and the code of ChebyAAM's authors |
//! | millions of classes | [`SampledHead`](crate::partial::SampledHead) (Partial FC: the labelled classes and a seeded share of the others, sparse dW), [`gpu::gather`](crate::gpu::gather) on tensors, [`shard`](crate::shard): one head over devices and machines that exchange a few numbers per row |
//! | the geometry of the prototypes | [`Backend::regularize`](crate::Backend::regularize): Reg_ss, and UniformFace in memory linear in C; [`Backend::center_loss`](crate::Backend::center_loss) with [`update_centers`](crate::Backend::update_centers) |
//! | watching a run | [`monitor`](crate::monitor): accuracy, angles and their histograms, target cosines, the length of the mean prototype, angles within and between classes, a warning when training collapses; on a device one more kernel beside the forward pass; [`BatchReport`](crate::monitor::BatchReport) for a batch: lengths of embeddings, margins and scale in force, MagFace's two terms, quantiles of the target cosines, norms of the gradients |
//! | gradients of many classes that hardly matter | [`GradientFilter`](crate::GradientFilter), opt in: entries of the gradient below ε are dropped, the dropped mass is reported and bounds the error |
//! | continuing after a stop | [`checkpoint`](crate::checkpoint): state, sampler and tensors as JSON or safetensors; the run continues bit for bit |
//! | classes that come and go | [`classes`](crate::classes): prototypes of new classes from mean directions, checkpoints that grow or shrink, the labels after it; the example `grow` takes a run from 25 to 41 classes |
//! | wrong labels | [`SubCenters`](crate::classes::SubCenters): the dominant sub-centre of every class, and the rows beyond 75° from it, as Sub-center ArcFace drops them |
//! | classes of very unequal size | [`CountMargins`](crate::classes::CountMargins): margins by the number of rows, for [`Batch::class_margins`](crate::Batch) |
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

//! Things that people who train ask for in the trackers and forums of metric-learning and loss libraries, and where they are here.
//! The questions stand for many of their kind; none is a quotation.
//!
//! Slices are heads and functions over `&[f32]` on any [`Backend`](crate::Backend), tensors are heads on a caller's wgpu device,
//! `evaluate` is the program of [`parity`](super::parity). "host" marks functions over slices that work on what any front
//! returns.
//!
//! | asked in | here | slices | tensors | burn | JavaScript | `evaluate` |
//! |---|---|---|---|---|---|---|
//! | top-5 accuracy without a second N×C matrix; inference over a million classes runs out of memory | [`Predictor`](crate::predict::Predictor), [`Options::predictions`](crate::Options::predictions): the k nearest classes with cosine, log-probability and sub-centre, from a training step or without labels | yes | `Io::predictions`, `Head::bind_predictions` | not yet | `options.predictions` in a step, with accuracy; `Predictor` without labels | `--predictions`, and the accuracy |
//! | weights for single samples; how do I combine sample and class weights | [`Batch::row_weights`](crate::Batch::row_weights) | yes | `Io::row_weights` | use the reduction `none` and weigh the losses | `rowWeights` | `row_weights` |
//! | mixup or cutmix with ArcFace in one pass; a teacher's top classes as targets; labels that may be wrong | [`Batch::soft_labels`](crate::Batch::soft_labels), [`MixedLabels`](crate::MixedLabels): up to 16 targets a row, each with its weight, margin and denominator | yes | `Io::soft_classes`, `Io::soft_weights` | not yet | `softLabels` | not yet |
//! | several correct classes for one sample (multi-label) | the same with [`Link::Binary`](crate::Link): the positives of a row, its negatives once | yes | `Io::soft_classes`, `Io::soft_weights` | not yet | `softLabels` | not yet |
//! | gradient accumulation gives another loss; the mean differs with the number of GPUs | [`Batch::divisor`](crate::Batch::divisor) | yes | `set_divisor` | use the reduction `sum` and divide | `divisor` | `divisor` |
//! | accumulate the gradient of the weight only | [`plan::Accumulate`](crate::plan::Accumulate) | not needed: each call returns its own gradients | `set_accumulate` | burn adds up gradients itself | `accumulate` | not needed |
//! | log-sum-exp per row; z-loss for stability | [`Output::log_sum_exps`](crate::Output::log_sum_exps), [`MarginSoftmax::z_loss`](crate::MarginSoftmax::z_loss) | yes | `Io::log_sum_exps` | the loss, not the output | `logSumExps` | `log_sum_exps` |
//! | MV-Softmax, ArcNegFace; my own weights for hard negatives | presets `mv_am`, `mv_arc`, `arcnegface`; [`OtherCurve`](crate::OtherCurve) in [`Others`](crate::Others) | yes | yes | yes | presets and JSON; no custom ones | the same |
//! | embeddings that are not normalised, A-Softmax as in the first SphereFace paper | presets `modified_softmax`, `a_softmax`; [`Adaptive::Length`](crate::Adaptive::Length): s·\|x\| as the scale of a row, with its gradient | yes | yes | yes | yes | yes |
//! | ArcFace with focal loss | [`MarginSoftmax::focal`](crate::MarginSoftmax::focal) | yes | yes | yes | yes | yes |
//! | what are my margins and norms right now | [`monitor::BatchReport`](crate::monitor::BatchReport) | host | host | host | `Head.report` | no: one batch, whose tensors come out |
//! | add classes to a trained model; remove identities | [`classes::ClassMap`](crate::classes::ClassMap), [`classes::NewPrototypes`](crate::classes::NewPrototypes) | host | host | host | no: checkpoints are the host's | no: it reads one batch |
//! | clean noisy labels with sub-centres | [`classes::SubCenters`](crate::classes::SubCenters) | host | host | host | not yet | no: it reads one batch |
//! | larger margins for rare classes | [`classes::CountMargins`](crate::classes::CountMargins) for [`Batch::class_margins`](crate::Batch::class_margins) | host | host | no: its head takes no margins of classes | any array as `classMargins` | `class_m0` to `class_m3` |
//! | training on the CPU freezes the page | [`evaluate_async`](crate::SliceHead::evaluate_async) and `train_async` let the page run between tiles of classes | yes | not needed: devices compute on their own | no: not for browsers | not needed | no: it is no browser |
//! | f16 weights need a second copy in f32 | [`evaluate_stored`](crate::SliceHead::evaluate_stored), [`SampledHead::train_stored`](crate::partial::SampledHead::train_stored) | on the CPU a tile at a time | as they are | no: its head takes f32 | as they are | widened when they are read |
//! | the browser kills my tab; TDR on Windows | [`Options::work_per_submit`](crate::Options::work_per_submit) | yes | `forward_parts` | no: burn submits | `work_per_submit` | no: it is for training loops |
//! | threads in the browser, as other tools have them | [the CPU path on several threads](super::browser#the-cpu-path-on-several-threads), compiled by nightly Rust | yes | not needed: devices compute on their own | no: not for browsers | no: its heads run on WebGPU | no: it is no browser |
//! | a progress bar for a long call; Ctrl-C, or a button that stops it | [`set_progress`](crate::SliceHead::set_progress) on heads, sampled heads and predictors: a callback with the work done and to do, which can stop the call | yes | between [`Parts`](crate::gpu::Parts), whose [`remaining`](crate::gpu::Parts::remaining) tells how far it is | no: burn submits | `onProgress` of `evaluate` | no: one short call |
//! | it does not run on my phone's GPU; compatibility mode | [`gpu::required_limits`](crate::gpu::required_limits): workgroups of 128 invocations are enough, no atomics in workgroup memory | yes | yes | as far as burn's own kernels run | yes | on the CPU |

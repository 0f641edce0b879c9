//! Python: the head as a PyTorch module, and over numpy arrays.
//!
//! The package `margin-softmax` (`integrations/python` in the repository) is installed by pip from a clone until it is published;
//! that needs Rust:
//!
//! ```text
//! pip install ./integrations/python
//! ```
//!
//! ```python
//! import torch
//! from margin_softmax.torch import MarginHead
//!
//! head = MarginHead(classes=10_000, dim=512, loss="arcface")   # head.weight is a parameter like any other
//! embeddings = torch.randn(64, 512, requires_grad=True)        # your network's
//! labels = torch.randint(10_000, (64,))
//! loss = head(embeddings, labels)
//! loss.backward()                                              # into the network, and into head.weight
//! head.predict(embeddings, k=5).classes                        # the nearest classes, in bounded memory
//! ```
//!
//! Losses have the names and numbers of [`PRESETS`](crate::objective::PRESETS), by keyword or as the same JSON:
//! `MarginSoftmax.arcface(m2=0.4, scale=30)`. For `mean` and `sum` a step is one call of the library: the forward pass computes loss
//! and gradients, `backward` multiplies them. What is held between the two is dX and dW in f32, and no N×C. Contiguous tensors on
//! the CPU are read where they are; those of other torch devices are copied through the host.
//!
//! `SampledMarginHead` is [`SampledHead`](crate::partial::SampledHead) with sparse gradients, `check` is [`parity`](super::parity) as a
//! function over a head of your own. Over numpy arrays, without torch, there are `Head`, `SampledHead` and `Predictor`, named as
//! they are here:
//!
//! ```python
//! import numpy as np, margin_softmax as ms
//!
//! head = ms.Head(ms.MarginSoftmax.arcface(), rows=64, classes=1000, dim=128, device="cpu")
//! out = head.train(embeddings, prototypes, labels)             # float32, float16, or bfloat16 by its bits
//! prototypes -= 0.1 * out.grad_prototypes
//! ```
//!
//! `Regularizer`, `CenterLoss`, `Monitor`, `BatchReport`, `CollapseDetector`, `ClassMap` and the modules `theory` and
//! `verification` (error rates from arrays of scores) are those of this crate; `want=["class_margins"]` asks for the gradients of
//! margins that are learned, and `progress=` takes a callback that can end a call.
//!
//! Where the classes outgrow one machine, each rank of a process group holds a range of them. Every rank makes the head with the same
//! arguments and calls it with its own batch; it gets the loss of the global batch and the gradients of that:
//!
//! ```python
//! import torch.distributed
//! from margin_softmax.torch import ShardedMarginHead, save_shards
//!
//! torch.distributed.init_process_group("gloo")                 # or NCCL, MPI
//! head = ShardedMarginHead(classes=100_000_000, dim=512, loss="arcface", rate=0.1)
//! optimizer = torch.optim.SGD(head.parameters(), 0.1)          # of this rank's rows: head.classes is their range
//! head(embeddings, labels).backward()
//! optimizer.step()
//! save_shards("run", head, optimizer)                          # a file for each rank; any number of ranks goes on from it
//! ```
//!
//! [`State`](crate::State) is in the module's `state_dict`, so that a resumed run goes on bit for bit. Errors are exceptions with the
//! words of [`Error`](crate::Error): `ValueError`, `TypeError`, `MemoryError`, and `DeviceError` for devices. Ctrl-C ends a long call as
//! [`SliceHead::set_progress`](crate::SliceHead::set_progress) does. The package's README says what happens with threads, forks,
//! autocast and other devices; it is compiled and tested with pytest, not with this guide.

//! The promises about faults, limits and bad input, and how each of them is tested.
//!
//! `tests/run.sh` runs everything here on the CPU and on two software drivers, lavapipe and SwiftShader; what takes long is
//! behind `tests/run.sh --full`, which names each part that it skips. No hardware GPU has run it yet.
//!
//! # Sizes and limits
//!
//! **Promised.** A plan keeps to the limits that it was made for: bytes of buffers and bindings, workgroups of an axis,
//! invocations and memory of a workgroup, storage buffers of a kernel, alignments; and to the budget. What does not fit is
//! refused before anything is allocated, by an [`Error`](crate::Error) with the limit's name, the number that is needed and
//! the one that is allowed. A [`Shape`](crate::Shape) takes rows, classes and D up to 2³¹ − 1, a plan what its limits leave of them,
//! and D up to 65,536. It takes time and memory for at most 65,536 rounds (chunks of classes times passes over rows), and is
//! refused beyond.
//!
//! **Tested** without a device (`tests/limits`): a checker of its own works out sizes, dispatches, indices and coverage again,
//! in 64 bits, for 4,743 heads (2,743 of a grid of more than 500 shapes, 2,000 drawn) and 1,870 other plans, on fourteen
//! devices between the least that is possible and a large GPU, with every loss, tile and kind of element. A refusal must name
//! a limit that the numbers bear out. 99 of the heads are bound, recorded and submitted on wgpu's device without a driver,
//! under an error scope that must stay empty. The tests are compiled with overflow checks, and one of them fails without.
//!
//! # Input
//!
//! **Promised.** A value that the host sees is checked before any work, by the same code on every front; the
//! [`Error`](crate::Error) names the argument, the value found and the values allowed. A value that lies on a device cannot
//! be checked there, and never gives a plausible number: its rows are *invalid* (their losses and the reduced loss are NaN,
//! their gradients 0, and [`Counts::invalid_labels`](crate::data::Counts::invalid_labels) counts them), or the numbers that depend
//! on it are NaN or infinite.
//!
//! | | slices | tensors | JavaScript, arrays | burn | `evaluate` |
//! |---|---|---|---|---|---|
//! | a wrong length or shape | error | error | error | error | error |
//! | a wrong element type | does not compile | error | error; labels: any integer type, numbers or BigInts | error; labels: any integer type | error; labels: any integer type |
//! | a label that names no class | error | its row is invalid | error | its row is invalid | error |
//! | a class weight other than 0 or 1e-30 to 1e24 | error | rows of its class are invalid; all losses are NaN with label smoothing | error | has none | error |
//! | an upstream gradient that is NaN or infinite | error | the gradients that it enters are NaN or infinite | error | as a tensor | error |
//! | a bias that is NaN or infinite | error | all losses are NaN | error | has none | error |
//! | margins of a class or row outside their range | error | its rows are invalid; NaN means the loss' own | error; NaN means the loss' own | has none | error |
//! | a state outside its range | error | all rows are invalid, the state stays | error | as a tensor | error |
//! | embeddings or prototypes that are NaN or infinite | [counted](crate#numbers) | counted | counted | counted | counted |
//! | numbers of other shards that no shard computes | error | has none | has none | has none | has none |
//!
//! Buffers that JavaScript binds are tensors; a label, weight or bias that was overwritten after a call began is one too.
//!
//! **Tested** cell by cell: `tests/host/errors.rs`, `tests/host/plan.rs` and `tests/cpu/errors.rs` (slices and shards),
//! `tests/gpu/unchecked.rs`, `edges.rs` and `errors.rs` (tensors), `tests/browser/module.mjs`, `integrations/burn/tests/head.rs`
//! and `tests/evaluate.rs`.
//!
//! # Bytes from elsewhere
//!
//! **Promised.** JSON and safetensors that are malformed, too long or of another program are errors. Nothing panics; memory
//! stays in proportion to the bytes that are there, not to what they claim. A checkpoint holds at most
//! [`MAX_TENSORS`](crate::checkpoint::Checkpoint::MAX_TENSORS) tensors of
//! [`MAX_BYTES`](crate::checkpoint::Checkpoint::MAX_BYTES) together, its header 1 MiB; the example `evaluate` reads at most
//! 8 GiB with a header of 1 MiB. What was read is written and read again to the same bits.
//!
//! **Tested** by five fuzz targets (`tests/fuzz`, libFuzzer with AddressSanitizer, overflow checks and a counting allocator).
//! The last long runs, all without a finding:
//!
//! | target | what it holds | runs | edges |
//! |---|---|---|---|
//! | `plan` | shape, limits, options, layout and loss to a plan within its limits, or an error | 100,721 in 10 min | 3,444 |
//! | `objective` | JSON to a loss or schedule that is valid, finite and reads back the same | 6,272,197 in 10 min | 8,482 |
//! | `evaluate_input` | the files of `evaluate` | 5,349,647 in 10 min | 6,939 |
//! | `checkpoint` | checkpoints, states and samplers, both formats | 8,152,382 in 10 min | 5,868 |
//! | `differential` | any loss, shape and data: the CPU path beside the f64 reference | 185,931 in 10 min | 14,190 |
//!
//! What they and their writing found, all mended and kept as tests or seeds: plans without a bound, an overflow in the merged
//! counts of shards, schedules that were NaN or passed their end by a rounding, a gradient of a subnormal scale that lacked
//! digits on the CPU.
//!
//! # Faults
//!
//! **Promised.**
//!
//! - A device that was lost or destroyed is [`Error::DeviceLost`](crate::Error::DeviceLost) in every call that makes, writes or
//!   reads something, also when it is the caller's, whose callbacks this library leaves alone; in a browser once the event loop
//!   has turned. Recording cannot fail; the next read tells. Work that was under way ends with its right result or with the
//!   error. A new head on a new device gives the bits of the old one.
//! - Memory that runs out when a buffer is made is [`Error::OutOfMemory`](crate::Error::OutOfMemory), and the device remains
//!   usable.
//! - Every wait ends, but for a browser's, whose future may be dropped: after 300 s, or what `Context::set_timeout` says, with
//!   [`Error::Timeout`](crate::Error::Timeout). The device works on and the same head may be called at once. Futures may be
//!   dropped at any point.
//! - Errors of this library's calls never reach the error scopes, the handler or the callbacks of the device's owner.
//! - Contexts, heads and tensors may be shared and sent between threads (not in a browser, where wgpu's objects stay on one);
//!   each thread gets its own errors.
//! - After an error output and [`State`](crate::State) are as they were: a training step that failed did not happen. A panic in
//!   the caller's own [`Margin`](crate::Margin) goes on to the caller, and the head may be used again.
//!
//! **Tested** on both drivers, each trial under a guard of 180 s: about 50 calls before and after the loss of a device, of the
//! caller's and of the library's; losses under a blocking read, a future and a tensor's read; a process whose address space is
//! limited; two heads, two bound sets and a failing one on threads of one device; futures dropped before, during and after the
//! mapping; waits of a millisecond.
//!
//! **Not promised.** wgpu panics where a driver reports the loss of a device while it is polled; that panic is caught and
//! becomes the error, but not where panics abort, and no driver here could be made to show it. Memory that runs out in
//! anything but the making of a buffer (an upload's staging, pipelines, recording, a submit) loses the device, by wgpu's source.
//!
//! # Numbers
//!
//! **Promised.** What the [crate documentation](crate#numbers) says of NaN, zero vectors and cosines of ±1, at every length from
//! 1e-30 to 1e30, with subnormal numbers, ±0 and the largest numbers that f32, f16 and bf16 have, at both ends of the range
//! of every parameter. Where the f64 value of a gradient fits f32, so does ours.
//!
//! Beyond that:
//!
//! - the upstream gradient times the scale, the class weight over the normaliser and the slope must fit f32, or gradients of
//!   other rows and classes may be NaN too; so must that product over the length of a prototype, on the CPU. An upstream
//!   gradient that is NaN on a device makes the gradients that it enters NaN;
//! - a row of a linear head counts as not finite also where sums of its logits leave f32: of those near the largest one, and with
//!   label smoothing of all;
//! - numbers below 1.2e-38 may become 0, on the way too, such as an entry of dL/dcos over the length of its prototype;
//! - on a GPU a vector longer than about 8e37 counts as not finite; the CPU takes it;
//! - where the order of two numbers decides (ElasticFace+ sorts rows, the easy fallback looks at the sign of a cosine) a cosine
//!   below 1e-38 may be decided otherwise on a device that flushes subnormal numbers.
//!
//! **Tested** by one table of cases, for 54 losses (every named one, every fallback, sub-centers, smoothing), on the CPU and on
//! both drivers against the f64 reference. A tolerance follows from an error of 3e-7 of a cosine through the curve itself, so it
//! holds next to ±1 too. By default each loss meets a seventh of the cases, in a full run all. The reference is held against
//! trigonometry at these lengths.
//!
//! Sums over very many classes and rows have tests of their own, for the losses with a binary link, the linear head, smoothing,
//! class weights, sub-centers and shards, in both schedules: 262,144 classes or rows on the CPU and 131,072 on each adapter;
//! in a full run 4 million classes and 1 million rows. The hardest is dX of a binary link, whose radial part grows with
//! the number of classes and the gradient with its root. The exception are prototypes shorter than 1e-6 or longer than 1e6 on
//! the CPU: they join the sum one by one, and where tens of thousands of them meet a binary link, dX may be off by a few times
//! the bound.
//!
//! It found, all mended: class weights near 1e-30 left rows that had learnt without a gradient; three ways in which a linear
//! head's product beyond f32 was taken for a number; a class weight that is no number made the mean loss 0; label smoothing with
//! weights and upstream gradients at opposite ends of f32 gave NaN on the CPU.
//!
//! # The same bits
//!
//! **Promised.** On a GPU: the same bits run after run for one device and driver, with the same tile, chunks and splits, whatever
//! else the machine does and whatever the workspace held. [`Tile`](crate::Tile) and schedule follow from limits, shape, options
//! and budget alone, so the same call takes the same ones. On the CPU: the same bits for any number of threads; the layout
//! follows from shape, options and budget. A state that is saved and loaded goes on bit for bit; the draws of Partial FC and
//! ElasticFace depend on seed, step and place alone.
//!
//! Not promised: the same bits with another tile, budget or cut into shards, on another device, driver or processor, or with
//! another version of wgpu, naga or this crate. They agree within the tolerances.
//!
//! **Tested** with every buffer that a run writes, workspace included: every kernel of the library (the list is compared), all
//! four tiles times seven schedules, shards, and every plan beside the head; under load, after other batches, over a
//! workspace full of NaN, and in a fresh head. Three runs each by default, twenty in a full run, which takes
//! every family with the smallest tile too. On the CPU twenty runs with 1, 2, 3 and 8 threads at five budgets.
//!
//! # Long runs
//!
//! **Promised.** A step allocates no memory that is not freed, and nothing that a head keeps drifts.
//!
//! **Tested** (`tests/soak`) with eight losses in turn, whose margins, scales and numbers of rows change, with shards, NaN rows,
//! refused batches, new heads and states that are saved and loaded, against the reference at the same weights; a short run by
//! default. What was held in the middle of the first half and of the second, in a full run:
//!
//! | | steps | counted heap, bytes | resident, MB | on the device, bytes | worst gradient, of its tolerance |
//! |---|---|---|---|---|---|
//! | CPU | 10,000 | 2,737,243, 2,737,243 | 148.8, 148.9 | | 0.13 |
//! | lavapipe | 1,000 | 17,024,872, 17,035,000 | 204.2, 204.2 | 4,199,164, 4,199,312 | 0.14 |
//! | SwiftShader | 1,000 | 17,105,912, 17,117,120 | 262.5, 262.6 | 4,290,872, 4,291,540 | 0.14 |
//!
//! # Code and dependencies
//!
//! - Unsafe code stands in one file of the library, `src/cpu/product.rs`, around one call; the lint denies it elsewhere, and a
//!   test has the list. Miri runs heads of the CPU path through every way to that call, on two threads, and the planner
//!   (`tests/miri`).
//! - `cargo deny`: permissive licences (the library's tree has no others; burn's and the wasm tool's have three crates under
//!   MPL-2.0), one registry, no crate twice in the library's own tree but for four that others bring.
//! - The minimum Rust is checked with that compiler (1.88, which was promised before, lacks what bytemuck needs for AVX-512);
//!   `cargo hack` goes through the features in pairs.
//! - `cargo mutants` changes the formulas of the margins and the schedule of the planner. Of 165 mutants, drawn evenly from 878
//!   and from the schedule, 155 were caught by part of the host tests (94 %); of the other ten the whole of them caught four,
//!   and tests that were written then caught six. Of these none is left.
//!
//! # Time
//!
//! The parts of one `tests/run.sh --full`, which took 7,751 s in all, on two cores that did other work beside it. A failure does not
//! stop it, and the last line names what failed; nothing did.
//!
//! | part | seconds | | part | seconds |
//! |---|---|---|---|---|
//! | tests of all packages | 817 | | Miri | 292 |
//! | browser | 433 | | fuzzing, compiled first | 509 |
//! | soak | 41 | | 18 mutants, a 48th of all | 788 |
//! | determinism | 919 | | burn, with three hundred crates | 823 |
//! | stress | 164 | | laws | 270 |
//! | benches, packed documentation tests | 185 | | long sums | 1,661 |
//! | minimum Rust, `cargo hack`, `cargo deny` | 758 | | everything else | 90 |
//!
//! How to report a weakness: `.github/SECURITY.md` in the repository.

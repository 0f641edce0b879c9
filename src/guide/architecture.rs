//! Architecture: how the library is built, for whoever wants to read or change it.
//!
//! ```text
//!      guide, reliability       documentation
//!
//!        classes                classes that come and go
//!           │
//!       checkpoint              saved runs
//!           │
//!   partial ── backend          one API over slices, on any engine
//!                 │
//!      ┌──────────┼────────┐
//!  reference     cpu      gpu   engines that never import one another
//!      │          │        │
//!      │          │      plan   what a GPU runs, as data: no device
//!      │          │        │
//!      └───────┬──┴────────┘
//!        shard, monitor         sums that shards exchange; reports
//!              │
//!          objective            the losses: data and scalar formulas
//!              │
//!        data, uniforms         batch, options, results; structs that shaders share: know no loss
//!              │
//!        error, shape
//! ```
//!
//! A module imports from those below it, never from those above. A test (`tests/host/rooms.rs`) fails
//! where two modules at the top, or two files, import one another, directly or through others.
//!
//! # One protocol, three engines
//!
//! Every engine computes a step in the same three stages, so that shards on different devices and machines can exchange what
//! one stage found before the next begins:
//!
//! 1. **Targets**: for each row the raw target cosine, and whatever a loss must know before margins apply (the hardest other
//!    classes, AdaCos' sums, the norm of the embedding). In a training step the [`State`](crate::State) moves here.
//! 2. **Statistics**: with margins applied, for each row the maximum and the sum of exponentials over the other classes. The
//!    labelled class stays out of that sum and joins last, so that a tiny loss keeps its precision.
//! 3. **Gradients**: row losses, the reduced loss, G = dL/dcos for each row and class, then dX and dW by two matrix products, each
//!    followed by the projection that removes its radial part.
//!
//! `reference` does so in f64 with everything N×C in memory, in a few hundred lines; it judges the other two, and is itself
//! judged by finite differences and by numbers from the papers. `cpu` works on tiles of classes over rayon, with the `gemm` crate for
//! the products; up to 64 threads share a step, which divides rows, classes and the columns of dX but never a sum. `gpu` executes a [`plan`](crate::plan).
//!
//! # The plan
//!
//! A plan is data: buffers with names and sizes, kernels with their WGSL text and bindings, and a list of steps, each of which
//! names a kernel, its buffers, an entry of a table of step constants, and a number of workgroups. It is made from the loss, the
//! shape, the budget and the device's limits alone, so chunking, limits and dispatch sizes are tested without a device, and a
//! runner in another language (`web/margin-softmax.js`) executes the same plan.
//!
//! Two schedules exist. *Keep* holds all N·C cosines between the passes. *Recompute* goes through chunks of classes twice and
//! needs memory for one chunk. The budget decides.
//!
//! The three matrix products know no loss. They are one file each over a tile (`shaders/tile`), which is a set of
//! functions with the same names in every file. Everything that a loss does happens in pointwise kernels between them:
//! `target_rows` (or `target_margins`, `target_facts`) for the labelled class (N values), `row_stats` and `grad_cosines` for the others (N·C values).
//!
//! # Several targets
//!
//! All targets of a row stay out of the sum over the classes: the sweeps skip a short list of places in the place of one. They
//! join last, where the rows' losses are made: each target is a row of its own whose other classes are that sum and the other
//! targets. G at a class that is no target is exp(z) times one number per row, Σ_t mass_t / Σ_j exp z_tj, relative to the smallest of
//! these sums. Kernels of heads without soft labels have none of it: `shaders/soft` has a part for each.
//!
//! # Predictions
//!
//! The nearest classes of each row go beside the statistics: every engine selects among the raw cosines of a tile or chunk while it
//! is there, and the log-probabilities follow from the rows' sums, which for plain other classes are those of the loss. A
//! predictor is the same without labels, margins and gradients. On the CPU the few cosines that were selected are computed again in
//! f64; *keep* selects from the exponentials that pass 1 stores, by the largest logits of the tiles.
//!
//! # Losses
//!
//! [`MarginSoftmax`](crate::MarginSoftmax) is plain data: a target curve, a transform of the other classes, a link from logits to
//! the loss, and what margins or scale follow. A curve is one Rust file with value and slope, the name of its WGSL file, and the
//! uniform fields that it reads; [the guide](crate::guide::margin) shows what a new one takes.
//!
//! A head checks its loss once. The `Prepared` loss that comes out of it holds the coefficients of a series, computed at the first use,
//! and answers what engines ask: plain products or cosines, softmax or binary problems, what follows the batch, how many
//! classes are chosen. A batch is checked once against it, in the slice API; labels and margins are converted there.
//!
//! Numbers that Rust and the shaders share (flags, codes, clamps, ranges) are declared once, in `src/uniforms/constants.rs` and,
//! where a loss decides them, `src/plan/constants.rs`; they are the first lines of every kernel. Structs that both read are
//! declared once too, in `src/uniforms`, which writes their WGSL.
//!
//! # Rules that the code keeps
//!
//! - No float atomics and no order that depends on timing: partial results are merged in index order.
//! - Recording creates, writes, submits and waits for nothing.
//! - What does not fit a limit or the budget is refused before anything is allocated, with both numbers.
//! - A cosine is never clamped to hide a NaN; only the divisor of a slope has a lower bound.
//! - One call of unsafe code, in `src/cpu/product.rs`.

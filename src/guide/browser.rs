//! Browser: the same head on WebGPU, from Rust or from JavaScript.
//!
//! # Rust
//!
//! ```toml
//! margin-softmax = { version = "0.1", default-features = false, features = ["webgpu"] }
//! ```
//!
//! and `--target wasm32-unknown-unknown`. Nothing can block there: every call that waits has a form that is awaited.
//!
//! ```
//! # #[cfg(feature = "gpu")] {
//! use margin_softmax::{Backend, Batch, Error, MarginSoftmax, Shape, gpu::Context};
//!
//! async fn one_batch(x: &[f32], w: &[f32], y: &[i32]) -> Result<f32, Error> {
//!     // `NoAdapter` where the browser has no WebGPU
//!     let context = Context::new_async(None).await?;
//!     let shape = Shape::new(y.len(), w.len() / 128, 128)?;
//!     let mut head = Backend::Gpu(context).head(&MarginSoftmax::arcface(), shape)?;
//!     let batch = Batch { embeddings: x, prototypes: w, labels: y, ..Default::default() };
//!     Ok(head.evaluate_async(&batch).await?.loss)
//! }
//! # }
//! ```
//!
//! A device that the page owns through wgpu works as in [`device`](super::device); read with `read_async`. What this
//! library can check is refused at once, as elsewhere; what only the browser can see, a buffer of another device for one, is
//! the error of a later call or of the next result that is awaited.
//!
//! # The CPU path, on several threads
//!
//! With the feature `cpu` the same heads run in WebAssembly: `-C target-feature=+simd128` and `opt-level = 3` make it fast. Futures
//! let the page do its work between tiles of classes.
//!
//! Several threads take a page that is cross-origin isolated (`Cross-Origin-Opener-Policy: same-origin`,
//! `Cross-Origin-Embedder-Policy: require-corp`), the crate [`wasm-bindgen-rayon`](https://docs.rs/wasm-bindgen-rayon), and a
//! nightly toolchain with its sources (`rustup toolchain install nightly --component rust-src`), since stable Rust has no
//! standard library with threads for this target. In a crate of your own:
//!
//! ```toml
//! [dependencies]
//! margin-softmax = { version = "0.1", default-features = false, features = ["cpu"] }
//! # workers that need no bundler: without the feature they find their module through one, and never answer otherwise
//! wasm-bindgen-rayon = { version = "1.3", features = ["no-bundler"] }
//! ```
//!
//! `pub use wasm_bindgen_rayon::init_thread_pool;` in its lib.rs, and in `.cargo/config.toml`:
//!
//! ```toml
//! [target.wasm32-unknown-unknown]
//! rustflags = [
//!     "-C", "target-feature=+simd128,+atomics,+bulk-memory",
//!     "-C", "link-args=--shared-memory --import-memory --max-memory=4294967296",
//!     "-C", "link-args=--export=__heap_base --export=__wasm_init_tls --export=__tls_size --export=__tls_align --export=__tls_base",
//! ]
//!
//! [unstable]
//! build-std = ["panic_abort", "std"]
//! ```
//!
//! `cargo +nightly build --target wasm32-unknown-unknown` and wasm-bindgen's target `web` make the module; in this repository
//! `cargo run --release -p web-build -- --threads` does all of it. Its page starts the threads once:
//!
//! ```js
//! import init, { initThreadPool } from './module.js';
//! await init();
//! if (globalThis.crossOriginIsolated) await initThreadPool(navigator.hardwareConcurrency);
//! ```
//!
//! Without that call, which fails on other pages, everything runs on one thread; the bits are the same. On two cores a step of
//! 256×5,994×192 takes 42 ms in Chromium, with one thread 69. Use heads in a worker: there
//! calls and futures alike run to their end on all threads, and the page stays free. A page's own thread may not wait for others: a
//! future computes there in rounds on all threads, in which that thread spins, and lets the page work between them; a call
//! that blocks freezes the page while it runs.
//!
//! # JavaScript
//!
//! An engine with a `GPUDevice` of its own uses the npm package `margin-softmax`: the planner of this crate as a small wasm
//! module, and a runner that records its plan on your device, buffers and encoder. It is built from this repository, with
//! cargo and npm:
//!
//! ```sh
//! npm pack ./web                                      # writes margin-softmax-0.1.0.tgz
//! npm install PATH/TO/margin-softmax-0.1.0.tgz        # in your project
//! ```
//!
//! ```js
//! import { Planner, Head } from 'margin-softmax';
//!
//! const planner = await Planner.load();
//! const head = await Head.create(device, planner, {
//!     loss: planner.loss('arcface'),
//!     shape: { rows: 64, classes: 1000, dim: 128 },
//! });
//! const bound = await head.bind({
//!     embeddings: { buffer: inputs, offset: 0, size: 32768 },
//!     prototypes: { buffer: inputs, offset: 32768, size: 512000 },
//!     labels, loss, gradEmbeddings, gradPrototypes,   // GPUBuffers with the usage STORAGE
//! });
//! const encoder = device.createCommandEncoder();
//! bound.recordForward(encoder);
//! bound.recordBackward(encoder);
//! device.queue.submit([encoder.finish()]);
//!
//! // or arrays in, arrays out
//! const { loss, gradEmbeddings } = await head.evaluate({ embeddings, prototypes, labels });
//! ```
//!
//! `Planner.load()` is the same call everywhere, and needs no configuration:
//!
//! | where | tested with |
//! |---|---|
//! | a bundle | Vite 8 (production and development), webpack 5, esbuild |
//! | `<script type="module">` without a bundler | `import … from './margin-softmax/margin-softmax.js'`, with the package's folder on the server |
//! | a module worker | each of these; every worker loads its own planner |
//! | Node 20 or later | `planner.curve`, without a device; for a `Head`, take a `GPUDevice` from a package such as `webgpu` |
//!
//! The wasm is a part of the JavaScript modules, compressed: 233 kB, 177 kB after compression by the server. Nothing is
//! fetched, so there is no file to copy or to serve with a MIME type. A content security policy must allow
//! `'wasm-unsafe-eval'` in `script-src`. The same wasm is also the file `margin-softmax/planner.wasm`; a program that reads
//! or compiles it itself calls `Planner.load({ wasm })` with bytes, a `WebAssembly.Module`, a `Response` or a URL.
//!
//! In a checkout, `cargo run --release -p web-build -- --inline planner` builds the planner into `web/dist`, after which a page
//! can import `web/margin-softmax.js` as it is. Types are in `web/margin-softmax.d.ts`.
//!
//! The rules are those of [`device`](super::device#the-rules). A refusal is an `Error` whose `code` is the name of the
//! [`Error`](crate::Error) variant. Arrays are checked as slices are: [the table](crate::reliability#input) has the ranges
//! and what happens to values that only the device sees. Labels are any integer typed array, or an array of numbers or
//! BigInts.
//!
//! A training step moves what a run must keep, and an error leaves it as it was:
//!
//! ```js
//! head.state = { ...head.state, seed: 7 };            // or a state that was kept
//! const { loss } = await head.evaluate(batch, { training: true });
//! const kept = head.state;                            // { classes, step: 1, seed: 7, hardness, … }
//! ```
//!
//! It has the names of [`State`](crate::State) in JSON; whole numbers beyond 2^53 are BigInts. A bound set takes the same by
//! `bound.setState(kept)`. Its training steps move the numbers on the device, and the caller counts the steps:
//! `bound.update(undefined, { step })`.
//!
//! A step reports what [`Output`](crate::Output) has, under the same names in camel case: `targetCosines`, `otherCosines`, `normalizer`,
//! `counts`, and the `accuracy` of the rows with a loss. With `options: { predictions: 5 }` the five nearest classes of each
//! row are in `predictions`, and the share of the rows that have theirs among them in `topK`. `head.report(batch, out)` makes a
//! [`BatchReport`](crate::monitor::BatchReport) of it: lengths, margins, quantiles of cosines, norms of gradients.
//!
//! Several targets for each row ([`SoftLabels`](crate::data::SoftLabels): mixup, teachers, several positives) need room in the plan:
//!
//! ```js
//! const head = await Head.create(device, planner, { loss: 'arcface', shape, options: { soft_labels: 2 } });
//! // row after row: λ of the first class, 1 − λ of the second
//! const softLabels = { classes: [first[0], second[0], …], weights: Float32Array.of(lambda, 1 - lambda, …) };
//! await head.evaluate({ embeddings, prototypes, labels: first, softLabels });
//! ```
//!
//! A bound set has them as the buffers `softClasses` and `softWeights`.
//!
//! A browser resets a device whose submit takes too long. With `options: { work_per_submit: 1e10 }`
//! ([what that means](crate::Options::work_per_submit)) `evaluate` submits part by part, each once the one before is done, and
//! calls `onProgress(done, total)` between; if that returns `false`, the call ends with the code `Cancelled`, and a training step did
//! not happen. A bound set has the parts as functions:
//!
//! ```js
//! for (const pass of ['forwardParts', 'backwardParts']) {
//!     for (const record of bound[pass]()) {
//!         const encoder = device.createCommandEncoder();
//!         record(encoder);
//!         device.queue.submit([encoder.finish()]);
//!     }
//! }
//! ```
//!
//! Beside the head: `Regularizer` and `CenterLoss`, over typed arrays or recorded onto the gradients of a head;
//! `planner.scheduled(loss, schedules, step)` is a loss whose margins and scale change over a run; `Monitor`, `meanPrototype` and
//! `CollapseDetector` are those of [`monitor`](mod@crate::monitor).
//!
//! The same plan can be run by anything that speaks WebGPU: [`plan`](crate::plan) is plain data, buffers, WGSL text, and
//! steps.
//!
//! # Predictions without labels
//!
//! ```js
//! const predictor = await Predictor.create(device, planner, { loss: 'arcface', shape, count: 5 });
//! const { classes, cosines, logProbabilities } = await predictor.predict({ embeddings, prototypes });
//! ```
//!
//! is [`Backend::predictor`](crate::Backend::predictor): cosines are computed chunk by chunk within the budget, prototypes beyond a
//! binding of the device lie in several buffers, and `predictor.bind(buffers)` takes your own. Where not even the prototypes fit the
//! device, go through them by ranges; their kernels are compiled once:
//!
//! ```js
//! const parts = [];
//! for (const range of [[0, 500_000], [500_000, 1_000_000]]) {
//!     const predictor = await Predictor.create(device, planner, { loss, shape, count: 5, range });
//!     parts.push(await predictor.predict({ embeddings, prototypes: await load(range) }));
//!     predictor.destroy();
//! }
//! const { classes } = mergePredictions(parts, 1_000_000);
//! ```

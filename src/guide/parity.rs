//! Parity: compare this library with your own code, in PyTorch or anything else that writes safetensors.
//!
//! The example `evaluate` reads a batch from a safetensors file, computes the loss and both gradients, and writes them to
//! another safetensors file. Compare that file with what your code computes.
//!
//! ```text
//! cargo run --release --features serde --example evaluate -- \
//!     --input batch.safetensors --loss loss.json --output out.safetensors --device cpu
//! ```
//!
//! | argument | values | default |
//! |---|---|---|
//! | `--input` | the batch, a regular file of at most 8 GiB | |
//! | `--loss` | the loss as JSON, at most 1 MiB | |
//! | `--state` | for losses that follow their batches: a `State` as JSON | before the first step |
//! | `--output` | a new file, or an existing one to replace; its folder must exist; never one of the inputs | |
//! | `--device` | `best`: a hardware GPU, else the CPU · `cpu` · `gpu`: software adapters too · `reference`: f64, at most 8 GiB for 8·N·C bytes | `best`; `gpu` with `--adapter` |
//! | `--adapter` | a part of a GPU's name, upper or lower case; an unknown name lists the known ones | the fastest kind of GPU |
//! | `--tile` | `direct`, `direct_64`, `tile_32`, `tile_64`, `tile_64_short`, `tile_128`; ignored with a note on devices without tiles | the library chooses |
//! | `--predictions` | K, 1 to 64: the nearest classes of each row as well | none |
//! | `--budget` | an upper bound on the bytes of workspace: `268435456`, `512KiB`, `256MiB`, `1GiB`; the reference ignores it | `256MiB` |
//!
//! The exit code is 0, or 2 with one line on stderr that names the value found and the values allowed. The output is written to
//! a temporary file and renamed, so it appears whole or the old file stays. A NaN or infinite value in the batch is not an
//! error: the loss of its row and the reduced loss are NaN, and the printed table counts it.
//!
//! # The tensors
//!
//! | in | shape | type | |
//! |---|---|---|---|
//! | `embeddings` | \[N, D\] | F32, F16 or BF16 | need not be normalised; half types are widened to f32 before anything else |
//! | `prototypes` | \[C, D\] or \[C, K, D\] | F32, F16 or BF16 | one row per class (PyTorch: the weight of the last layer), or K sub-centers; its type may differ |
//! | `labels` | \[N\] | any integer type | 0 ≤ label < C, or the `ignore_index` |
//! | `class_weights` | \[C\] | F32 | optional: as `weight` of `cross_entropy`; 0, or from 1e-30 to 1e24; all 1 if absent |
//! | `row_weights` | \[N\] | F32 | optional: a factor on each row's loss and on its share of the mean; 0, or from 1e-30 to 1e24 |
//! | `divisor` | \[1\] | F32 | optional: what the mean is divided by, in the place of the sum of the weights; from 1e-30 to 1e30 |
//! | `upstream` | \[1\], or \[N\] with the reduction `none` | F32 | optional: the gradient of your objective with respect to this loss; 1 if absent |
//! | `bias` | \[C\] | F32 | optional, for a linear head |
//! | `class_m0` … `class_m3` | \[C\] | F32 | optional: margins looked up by the label, instead of the loss' own |
//! | `row_m0` … `row_m3` | \[N\] | F32 | optional: margins of single rows, instead of both |
//! | `soft_classes` | \[N, T\] | I64 or I32 | optional, with `soft_weights`: up to 16 targets of each row, as in [`SoftLabels`](crate::data::SoftLabels); a negative class is a target that is not there |
//! | `soft_weights` | \[N, T\] | F32 | λ of each target: 0, which is a target that is not there, or from 1e-30 to 1e24 |
//!
//! Any other name, type or shape is refused. The file's own metadata is ignored. With soft labels, `labels` still decides the
//! target and other cosines, the accuracy and the log-sum-exps; it is a target only as far as `soft_classes` names it. In PyTorch
//! the same loss is `sum(weights[:, t] * losses(classes[:, t]))` over t, where `losses` is your head with `reduction="none"`;
//! the mean divides it by the sum of the weights.
//!
//! | out | shape | |
//! |---|---|---|
//! | `loss` | \[\] | the reduced loss; with the reduction `none` the sum of `row_losses` |
//! | `row_losses` | \[N\] | weights included, not divided by their sum; 0 for an ignored row |
//! | `target_cosines`, `other_cosines` | \[N\] | the raw cosine of the label, and the largest of the other classes; 0 and −1 where there is none |
//! | `log_sum_exps` | \[N\] | log Σ exp over all classes, of the loss' own logits; 0 for an ignored row; absent with a binary link |
//! | `grad_embeddings` | \[N, D\] | dL/dX, the normalisation included |
//! | `grad_prototypes` | like `prototypes` | dL/dW, the normalisation included |
//! | `grad_scale` | \[\] | dL/ds |
//! | `grad_bias` | \[C\] or \[1\] | dL/db of a linear head, or of the binary link; else absent |
//!
//! | `predicted_classes` | \[N, K\] | with `--predictions K`: the nearest classes, best first, I64; −1 for a row that is not finite |
//! | `predicted_cosines`, `predicted_log_probabilities` | \[N, K\] | their raw cosines, and log-softmax of scale · cosine over all classes; with a binary link log σ |
//!
//! The others are F32, or F64 with `--device reference`. The metadata has one entry, `evaluate`: JSON with `version`, `device`, the
//! whole `loss`, and `counts` (`rows`, `ignored`, `non_finite_rows`, `zero_embeddings`, `zero_prototypes`,
//! `non_finite_prototypes`), `accuracy`, the share of the counted rows that are nearest to their own class, and with predictions
//! `top_k`: `count` and `accuracy`. The same input on the same device gives the same file, byte for byte.
//!
//! # The loss
//!
//! Either the name of a preset and nothing else:
//!
//! ```json
//! {"preset": "arcface"}
//! ```
//!
//! `normface`, `cosface`, `arcface`, `arcface_insightface`, `arcface_pml`, `arcface_speaker`, `sphereface`,
//! `sphereface_raw`, `ampface`, `chebyaam`, `chebyaam_fit`, `softmax`, `m_softmax`, `arcgrad`, `arcgrad_series`,
//! `li_arcface`, `curricularface`, `adaface`, `magface`, `elasticface_arc`, `elasticface_arc_plus`, `elasticface_cos`,
//! `elasticface_cos_plus`, `sphereface2`, `sphereface2_angular`, `sphereface2_opensphere`, `adacos`, `arcface_topk`,
//! `arcface_filter`, `ampface_rectified`.
//! Their numbers are in the table of [`PRESETS`](crate::objective::PRESETS). The output's metadata and the table on stdout show
//! a preset written out, ready to be changed.
//!
//! Or the whole loss. A field that is left out has its default; an unknown field is an error that names it, with its line and
//! column. This is ChebyAAM with every field written out (`examples/evaluate/loss.json`):
//!
//! ```json
//! {
//!   "target": {
//!     "unified": {
//!       "m0": 1.0,
//!       "m1": 1.0,
//!       "m2": 0.2,
//!       "m3": 0.0,
//!       "curve": { "series": { "degree": 30, "coefficients": "closed", "damping": "none" } },
//!       "slope": "analytic",
//!       "fallback": "continuous"
//!     }
//!   },
//!   "others": "identity",
//!   "product": "cosine",
//!   "link": "softmax",
//!   "adaptive": "none",
//!   "scale": 30.0,
//!   "label_smoothing": 0.0,
//!   "focal": 0.0,
//!   "z_loss": 0.0,
//!   "reduction": "mean",
//!   "ignore_index": null
//! }
//! ```
//!
//! | field | values | default |
//! |---|---|---|
//! | `target` | `{"unified": {…}}`: φ(cos θ) = m0·cos(m1·θ + m2) − m3 for the labelled class · `{"angle": {…}}` · `{"power": {…}}` | no margin |
//! | `others` | what happens to every other cosine: `"identity"`, `"rectified"` (max(c, 0)), `"curricular"`, `{"angle": {…}}`, `{"top_k": {"count": 5, "margin": 0.06}}`, `{"filter": {"threshold": 0.4}}`, `{"power": {…}}` | `"identity"` |
//! | `product` | `"cosine"`, or `"linear"`: w·x + b, no normalisation | `"cosine"` |
//! | `link` | `"softmax"`, or `{"binary": {"weight": 0.7, "factor": 1, "bias": 0}}` (SphereFace2) | `"softmax"` |
//! | `adaptive` | `"none"`, `"adacos"`, `{"adaface": {"margin": 0.4, "concentration": 0.333, "rate": 0.01}}`, `{"magface": {"lower_length": 10, "upper_length": 110, "lower_margin": 0.45, "upper_margin": 0.8, "weight": 35}}`, `{"elastic": {"cosine": false, "deviation": 0.05, "sorted": false}}` | `"none"` |
//! | `scale` | s, 0 < s ≤ 1e6 | 64 |
//! | `label_smoothing` | 0 ≤ ε < 1, as in PyTorch | 0 |
//! | `focal` | γ, 0 ≤ γ ≤ 16: a row's loss times (1 − P)^γ, P the probability of its label; softmax without label smoothing | 0 |
//! | `z_loss` | λ, 0 ≤ λ ≤ 1e3: adds λ times the square of the row's log-sum-exp, times its weights; softmax | 0 |
//! | `reduction` | `"mean"` (divided by the sum of the counted rows' weights), `"sum"`, `"none"` | `"mean"` |
//! | `ignore_index` | `null`, or an integer from −2³¹ to 2³¹ − 1; rows with this label are ignored. PyTorch's default is −100; here it must be written out | `null` |
//!
//! Fields of `target.unified`:
//!
//! | field | values | default |
//! |---|---|---|
//! | `m0` | amplitude (AmpFace), 0 < m0 ≤ 1e6 | 1 |
//! | `m1` | angle factor (SphereFace), 0 < m1 ≤ 16 | 1 |
//! | `m2` | angle margin in radians (ArcFace), 0 ≤ m2 < π | 0 |
//! | `m3` | cosine margin (CosFace), −1e6 ≤ m3 ≤ 1e6 | 0 |
//! | `curve` | `"exact"`, or `{"series": {…}}`: the Chebyshev series of cos(m1·θ + m2) | `"exact"` |
//! | `slope` | dφ/dcos in the backward pass: `"analytic"`, or `"detached"` (1 everywhere: the margin is added under `no_grad`, as insightface does) | `"analytic"` |
//! | `fallback` | the curve beyond the threshold x* = cos((π − m2)/m1), where m1·θ + m2 exceeds π; see below | `"continuous"` |
//!
//! With m1 = 1 and m2 = 0, φ is a straight line: `curve` and `fallback` are validated but have no effect.
//!
//! `angle`, in `target` and `others`, is offset − factor·(θ + margin): `factor` (default 1), `margin` (0), `offset` (0), `curve` and
//! `slope` as above; its series is that of arccos (with `given` too). `power` is g(c) = 2·((c + 1)/2)^t − 1: `exponent` t (3), `margin` (0.2), `angular`
//! (false: the margin is on the cosine), `slope`.
//!
//! | in | ranges |
//! |---|---|
//! | `angle` | 0 < factor ≤ 1e6, −π < margin < π, −1e6 ≤ offset ≤ 1e6 |
//! | `power` | exponent 1 to 16, whole; −1e6 ≤ margin ≤ 1e6, angular 0 ≤ margin < π |
//! | `top_k` | count 1 to 64 and below C; 0 ≤ margin < π/2 |
//! | `filter` | 0 < threshold ≤ 1 |
//! | `binary` | 0 ≤ weight ≤ 1, 0 < factor ≤ 1e6, −1e6 ≤ bias ≤ 1e6 |
//! | `adaface` | 0 ≤ margin < π/2, 0 < concentration ≤ 100, 0 < rate ≤ 1; the target's m2 and m3 are 0 |
//! | `magface` | 1e-6 ≤ lower_length, upper_length ≤ 1e6 and a thousandth larger, 0 ≤ lower_margin ≤ upper_margin < π, 0 ≤ weight ≤ 1e6; the target's m2 is 0 |
//! | `elastic` | 0 ≤ deviation ≤ 10 |
//! | `adacos` | at least three classes |
//!
//! | `fallback` | beyond the threshold | found in |
//! |---|---|---|
//! | `"continuous"` | x − x* − 1, slope 1 | wespeaker, 3D-Speaker |
//! | `"sine"` | x − m2·sin m2, slope 1; needs m1 = 1 | the first ArcFace code, pytorch-metric-learning |
//! | `"mirror"` | the monotone ψ of SphereFace | opensphere |
//! | `"none"` | the formula unchanged: the cosine rises again | insightface |
//! | `{"clip": 0.001}` | the angle m1·θ + m2 is clipped to \[e, π − e\], slope 0 outside; 0 < e < 0.5 | AdaFace |
//! | `"easy"` | at x ≤ 0 the cosine itself, slope 1; needs x* ≤ 0 | "easy margin" |
//!
//! Fields of `target.unified.curve.series`:
//!
//! | field | values | default |
//! |---|---|---|
//! | `degree` | an integer, 1 to 64 | 30 |
//! | `coefficients` | `"closed"`: the exact expansion, truncated · `"fit"`: the least squares of ChebyAAM's code · `{"given": [c0, c1, …]}`: degree + 1 finite numbers, ψ = Σ c_k·T_k, c0 not halved | `"closed"` |
//! | `damping` | `"none"`, `"jackson"`, `"lanczos"` | `"none"` |
//!
//! # From PyTorch
//!
//! ```python
//! import json, math, subprocess, torch
//! from safetensors import safe_open
//! from safetensors.torch import load_file, save_file
//!
//! # your head: ArcFace here, s = 30, m = 0.2
//! def head(x, w, labels, s=30.0, m=0.2):
//!     c = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(w).T
//!     y = c.gather(1, labels[:, None]).squeeze(1)
//!     phi = torch.where(y > -math.cos(m), torch.cos(y.clamp(-1, 1).acos() + m), y + math.cos(m) - 1)
//!     logits = s * c.scatter(1, labels[:, None], phi[:, None])
//!     return torch.nn.functional.cross_entropy(logits, labels)
//!
//! torch.manual_seed(0)
//! x = torch.randn(64, 128, dtype=torch.float64, requires_grad=True)
//! w = torch.randn(1000, 128, dtype=torch.float64, requires_grad=True)
//! labels = torch.randint(1000, (64,))
//! x.data, w.data = x.data.float().double(), w.data.float().double()  # the values that the file will hold
//! loss = head(x, w, labels)
//! loss.backward()
//!
//! batch = {"embeddings": x.detach().float(), "prototypes": w.detach().float(), "labels": labels}
//! save_file({name: t.contiguous() for name, t in batch.items()}, "batch.safetensors")
//! with open("loss.json", "w") as file:
//!     json.dump({"target": {"unified": {"m2": 0.2}}, "scale": 30.0}, file)
//! subprocess.run("cargo run --release --features serde --example evaluate -- --device cpu --input batch.safetensors "
//!                "--loss loss.json --output out.safetensors".split(), check=True)
//!
//! out = load_file("out.safetensors")
//! for name, mine in {"loss": loss, "grad_embeddings": x.grad, "grad_prototypes": w.grad}.items():
//!     far = (out[name].double() - mine).abs().max() / mine.abs().max()
//!     print(f"{name:16} largest difference {far:.1e} of the largest value")
//! with safe_open("out.safetensors", "pt") as file:
//!     print(json.loads(file.metadata()["evaluate"])["device"])
//! ```
//!
//! The last lines of its output, on a CPU:
//!
//! ```text
//! loss             largest difference 1.6e-08 of the largest value
//! grad_embeddings  largest difference 7.1e-07 of the largest value
//! grad_prototypes  largest difference 7.2e-07 of the largest value
//! CPU, 2 threads
//! ```
//!
//! A difference around 1e-6 is f32 rounding; `--device reference` computes in f64 and separates your code's error from this
//! library's. If the loss agrees and the gradients do not, look at `slope` first; if single rows differ, at `fallback`.

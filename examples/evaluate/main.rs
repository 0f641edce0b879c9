//! Loss and gradients of one batch: a safetensors file in, a safetensors file out. Made to compare this library with
//! another implementation, PyTorch for example.
//!
//! ```text
//! cargo run --release --features serde --example evaluate -- \
//!     --input batch.safetensors --loss loss.json --output out.safetensors --device cpu
//!
//! in     embeddings [N, D] and prototypes [C, D]   f32, f16 or bf16 (widened to f32 before anything else); [C, K, D] with
//!                                                  K sub-centers
//!        labels [N]                                any integer type
//!        class_weights [C], upstream [1] or [N]    f32, all optional; upstream [N] with the reduction `none`
//!        row_weights [N], divisor [1]              of the rows, and in the place of Z
//!        bias [C]                                  of a linear head
//!        class_m0 .. class_m3 [C], row_m0 .. row_m3 [N]   margins in the place of the loss' own
//!        soft_classes [N, T] i64 or i32, soft_weights [N, T] f32   several targets of each row in the place of its label
//! loss   a `MarginSoftmax` as JSON, or {"preset": "arcface"}: any name of `objective::PRESETS`
//! state  `--state FILE`: a `State` as JSON, for losses that follow their batches
//! out    loss [], row_losses [N], grad_embeddings [N, D], grad_prototypes like prototypes, grad_scale [], grad_bias [C] of
//!        a linear head or [1] of a binary link, log_sum_exps [N] of a softmax, target_cosines [N], other_cosines [N]
//!        `--predictions K`: predicted_classes [N, K] (i64), predicted_cosines, predicted_log_probabilities [N, K]
//!        f32; f64 from `--device reference`. The metadata's `evaluate` is JSON: version, device, loss, counts, accuracy.
//! ```
//!
//! The exit code is 0, or 2 with one line on stderr. The output appears whole or not at all.

mod command;
mod files;
mod input;
mod loss;
mod output;

fn main() -> std::process::ExitCode {
    command::main(std::env::args_os(), &mut std::io::stdout(), &mut std::io::stderr()).into()
}

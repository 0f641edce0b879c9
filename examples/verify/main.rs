//! Scores a list of verification trials over embeddings: equal error rate, detection costs, accept rates, accuracy over folds;
//! ROC and DET as pictures.
//!
//! ```text
//! cargo run --release --features serde --example verify -- --format voxceleb --trials veri_test2.txt \
//!     --embeddings voxceleb1.safetensors --cohort voxceleb2_speakers.safetensors
//! cargo run --release --features serde --example verify -- --format lfw --trials pairs.txt --embeddings lfw.safetensors
//! cargo run --release --features serde --example verify -- --format ijb --trials ijbc_template_pair_label.txt \
//!     --templates ijbc_face_tid_mid.txt --embeddings ijbc.safetensors
//!
//! embeddings   a safetensors file with the tensor `embeddings` [N, D], f32, f16 or bf16
//! names        a text file with the name of row i on line i + 1; default: the embeddings' file with the ending .txt
//! trials       LFW: its pairs.txt, the items called as its images without .jpg (Abel_Pacheco_0001)
//!              IJB: TEMPLATE1 TEMPLATE2 LABEL; templates: ITEM TEMPLATE MEDIUM, pooled by the mean over directions and media
//!              VoxCeleb: LABEL ENROLLED TESTED
//! cohort       a safetensors file like the embeddings', without names: scores are normalised too (AS-norm1)
//! ```
//!
//! In all lists a label is 1 for a pair of the same identity, else 0. Prints a table; writes report.html, roc.svg, det.svg and
//! results.json to out/verify. Nothing is downloaded: the data sets are for their owners to give.

mod command;
#[path = "../common/mod.rs"]
#[allow(dead_code)] // another example uses the rest
mod common;
mod drawings;
mod embeddings;
mod measures;
mod scoring;
mod templates;
mod trials;

use clap::Parser;

fn main() -> std::process::ExitCode {
    common::exit::code(command::run(&command::Args::parse()))
}

//! Long runs: memory stays flat, and nothing that a head holds drifts away from the reference.
//!
//! A few hundred steps by default; with `MARGIN_SOFTMAX_FULL=1` ten thousand on the CPU and a thousand on every adapter.

#[allow(dead_code)]
#[path = "../gpu/cases.rs"]
mod cases;
#[allow(dead_code)]
#[path = "../cpu/common.rs"]
mod common;
#[cfg(feature = "gpu")]
mod engine;
#[path = "../families/mod.rs"]
mod families;
#[allow(dead_code)]
#[path = "../heap/mod.rs"]
mod heap;
mod memory;
mod models;
#[cfg(feature = "gpu")]
#[allow(dead_code)]
#[path = "../gpu/rig.rs"]
mod rig;
mod run;

use libtest_mimic::{Arguments, Trial};
use margin_softmax::Backend;

fn main() {
    let mut arguments = Arguments::from_args();
    // the numbers belong to the process
    arguments.test_threads = Some(1);
    let full = std::env::var("MARGIN_SOFTMAX_FULL").is_ok_and(|v| v == "1");
    let steps = if full { [10_000, 1000] } else { [400, 60] };
    let mut trials =
        vec![Trial::test("CPU::memory_and_numbers_stay", move || run::soak(&Backend::cpu(), "CPU", steps[0]))];
    #[cfg(feature = "gpu")]
    {
        let contexts = margin_softmax::gpu::Context::all();
        if contexts.is_empty() {
            let required = std::env::var("MARGIN_SOFTMAX_REQUIRE_GPU").is_ok_and(|v| v == "1");
            let missing = || Err("no adapter answers".into());
            trials.push(Trial::test("no adapter::memory_and_numbers_stay", missing).with_ignored_flag(!required));
        }
        for context in contexts {
            let adapter = context.name().split(" (").next().unwrap_or("adapter").to_owned();
            let name = format!("{adapter}::memory_and_numbers_stay");
            trials.push(Trial::test(name, move || run::soak(&Backend::Gpu(context.clone()), &adapter, steps[1])));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    run::print_table();
    conclusion.exit();
}

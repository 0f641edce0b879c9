//! Every case on every adapter found, and on the CPU path: one named trial per property and adapter, one device and one
//! pipeline cache each.
//!
//! Without an adapter the trials are listed as ignored; with `MARGIN_SOFTMAX_REQUIRE_GPU=1` that is a failure.

mod agreement;
mod batch_report;
mod cases;
#[allow(dead_code)] // shared with the tests of the host
#[path = "../host/common.rs"]
mod common;
#[path = "../state/mod.rs"]
mod common_state;
mod counting;
mod determinism;
mod device;
mod edges;
#[allow(dead_code)]
#[path = "../host/engines.rs"]
mod engines;
mod errors;
#[path = "../families/mod.rs"]
mod families;
mod faults;
mod filter;
mod heads;
#[allow(dead_code)]
#[path = "../host/laws.rs"]
mod laws;
#[cfg(feature = "cooperative_matrix")]
mod matrix_units;
mod memory;
mod monitor;
#[path = "../predictions/mod.rs"]
mod nearest;
mod operations;
mod partial;
mod parts;
mod predictions;
#[allow(dead_code)]
#[path = "../host/problems.rs"]
mod problems;
mod properties;
mod regularizers;
#[path = "../progress/mod.rs"]
mod reports;
mod rig;
mod sampling;
mod scores;
mod small;
#[path = "../soft/mod.rs"]
mod soft;
mod soft_labels;
mod state;
mod stress;
mod sums;
mod timing;
mod unchecked;
mod waits;

use agreement::Device;
use libtest_mimic::{Arguments, Failed, Trial};
use margin_softmax::{Tile, gpu::Context};

/// A property of one adapter.
type Check = fn(&Context) -> Result<(), Failed>;

fn checks() -> Vec<(&'static str, Check)> {
    let all = [
        batch_report::CHECKS,
        determinism::CHECKS,
        device::CHECKS,
        operations::CHECKS,
        properties::CHECKS,
        edges::CHECKS,
        errors::CHECKS,
        faults::CHECKS,
        filter::CHECKS,
        heads::CHECKS,
        #[cfg(feature = "cooperative_matrix")]
        matrix_units::CHECKS,
        memory::CHECKS,
        monitor::CHECKS,
        partial::CHECKS,
        parts::CHECKS,
        predictions::CHECKS,
        soft_labels::CHECKS,
        regularizers::CHECKS,
        sampling::CHECKS,
        scores::CHECKS,
        state::CHECKS,
        sums::CHECKS,
        timing::CHECKS,
        unchecked::CHECKS,
        waits::CHECKS,
    ];
    all.concat()
}

/// Whether the long form of a test is asked for: `MARGIN_SOFTMAX_FULL=1`, which `tests/run.sh --full` sets.
fn full() -> bool {
    std::env::var("MARGIN_SOFTMAX_FULL").is_ok_and(|v| v == "1")
}

/// The tiles with the precision of f32 that a device can run: all of them, but for those of matrix units that it has not.
fn tiles(context: &Context) -> impl Iterator<Item = Tile> {
    let limits = *context.limits();
    Tile::ALL.iter().copied().filter(move |tile| tile.check(&limits).is_ok() && !tile.geometry().single)
}

/// Numbers under stress on one device.
fn stress(adapter: &str, device: &Device) -> Vec<Trial> {
    let trial = |(name, run): stress::Trial| {
        let device = device.clone();
        Trial::test(format!("{adapter}::stress::{name}::{}", device.name()), move || run(&device))
    };
    stress::trials().into_iter().map(trial).collect()
}

/// The whole table on one device, a trial per family.
fn agreement(adapter: &str, device: Device) -> Vec<Trial> {
    let trial = |trial: agreement::Trial| {
        let device = device.clone();
        Trial::test(format!("{adapter}::{}", trial.name(device.name())), move || trial.run(&device))
    };
    agreement::trials(Some(&device)).into_iter().map(trial).collect()
}

/// What kernels with narrower workgroups, and kernels that once had atomics, compute.
fn small_trials(adapter: &str, context: &Context) -> Vec<Trial> {
    let checks = [filter::CHECKS, monitor::CHECKS, predictions::CHECKS, regularizers::CHECKS, state::CHECKS].concat();
    let trial = |(name, check): (&'static str, Check)| {
        let context = context.clone();
        Trial::test(format!("{adapter}::{name}"), move || check(&context))
    };
    let mut trials: Vec<Trial> = checks.into_iter().map(trial).collect();
    trials.extend(agreement(adapter, Device::Gpu(context.clone(), Tile::Direct)));
    trials
}

fn main() {
    if faults::child() {
        return;
    }
    let mut arguments = Arguments::from_args();
    // several software devices at once crash their drivers
    arguments.test_threads = Some(1);
    #[cfg(feature = "cooperative_matrix")]
    let contexts = matrix_units::contexts();
    #[cfg(not(feature = "cooperative_matrix"))]
    let contexts = Context::all();
    let required = std::env::var("MARGIN_SOFTMAX_REQUIRE_GPU").is_ok_and(|v| v == "1");
    let mut trials = vec![Trial::test("the_table_covers_every_pair", cases::covers_every_pair)];
    trials.extend(faults::trials());
    if contexts.is_empty() {
        let tiles =
            agreement::trials(None).into_iter().flat_map(|t| Tile::ALL.iter().map(move |tile| t.name(tile.name())));
        for name in checks().into_iter().map(|(name, _)| name.to_owned()).chain(tiles) {
            let missing = || Err("no adapter answers".into());
            trials.push(Trial::test(format!("no adapter::{name}"), missing).with_ignored_flag(true));
        }
        if required {
            trials.push(Trial::test("an_adapter_answers", || {
                Err("no adapter, and MARGIN_SOFTMAX_REQUIRE_GPU=1: install a Vulkan driver".into())
            }));
        }
    }
    for context in contexts {
        let adapter = context.name();
        let adapter = adapter.split(" (").next().unwrap_or("adapter").to_owned();
        // these look at what the library opens itself, and at other devices of the same instance
        let own = Context::new(Some(&adapter)).unwrap_or_else(|_| context.clone());
        for (name, check) in checks() {
            let plain = device::CHECKS.iter().any(|(known, _)| *known == name);
            let context = if plain { own.clone() } else { context.clone() };
            trials.push(Trial::test(format!("{adapter}::{name}"), move || check(&context)));
        }
        trials.extend(stress(&adapter, &Device::Gpu(context.clone(), Tile::Direct)));
        for tile in tiles(&context) {
            trials.extend(agreement(&adapter, Device::Gpu(context.clone(), tile)));
        }
        if let Some(small) = small::device(&adapter) {
            trials.extend(small_trials(&format!("{adapter}, small workgroups"), &small));
        }
    }
    if cfg!(feature = "cpu") {
        trials.extend(agreement("CPU", Device::Cpu));
        trials.extend(stress("CPU", &Device::Cpu));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    agreement::print_counts();
    conclusion.exit();
}

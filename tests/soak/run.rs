//! The loop.

use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use libtest_mimic::Failed;
use margin_softmax::{Backend, Batch, Error, Output, State, Want};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{
    cases::{Data, random},
    common::{assert_agrees, distance, gate},
    families::others,
    memory::Memory,
    models::{CLASSES, DIM, Model, ROWS, WANT},
};

/// What the table at the end says.
static LINES: Mutex<Vec<Vec<String>>> = Mutex::new(vec![]);

pub fn print_table() {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.is_empty() {
        return;
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["backend", "steps", "memory, bytes: first half and second", "worst gradient", "of its gate"]);
    table.add_rows(lines.iter());
    println!("{table}");
}

/// Trains every model in turn. Every few steps, each with a period of its own: fewer rows or none, a NaN row, a refused
/// batch, the reference, shards, an engine's step on tensors of its own, a save and a load into a new head.
pub fn soak(backend: &Backend, name: &str, steps: usize) -> Result<(), Failed> {
    // a software driver compiles each for seconds
    let mut models = Model::all(backend, steps >= 100)?;
    #[cfg(feature = "gpu")]
    let mut engines = match backend {
        Backend::Gpu(context) => crate::engine::Engine::all(context, &models)?,
        _ => vec![],
    };
    let world = random(&mut ChaCha8Rng::seed_from_u64(1), CLASSES * DIM);
    let bar = ProgressBar::new(steps as u64);
    let mut memory = Memory::new(steps);
    let (mut worst, mut share) = (0.0_f64, 0.0_f64);
    let mut losses = [0.0; 2];
    for step in 0..steps {
        // each model meets every period, at other times than its neighbours
        let (model, turn) = (step % models.len(), step / models.len() + 4 * (step % models.len()));
        #[cfg(feature = "gpu")]
        let engine = engines.get_mut(model);
        let model = &mut models[model];
        let rows = match turn % 13 {
            12 => 0,
            // few batches of many rows are clear of the ties between all cosines of a row
            i => ROWS - i.max(if others(&model.loss.others).chosen.is_some() { ROWS - 6 } else { 0 }),
        };
        model.turn(turn)?;
        let mut data = model.data(&world, step, rows);
        let broken = turn % 7 == 5 && rows > 1;
        if broken {
            data.embeddings[DIM + step % DIM] = [f32::NAN, f32::INFINITY][turn % 2];
        }
        if turn % 5 == 3 && rows > 0 {
            refused(model, &data)?;
        }
        let before = *model.head.state();
        let made = Made::start(backend);
        model.train(&data)?;
        made.stop(&mut memory, || "a step".into());

        let checked = turn % 3 == 0 || broken;
        let expected = model.expected(&data, if checked { WANT } else { Want::LOSS })?;
        assert_eq!(model.out.counts, expected.counts);
        if checked && rows > 0 {
            let gate = gate(&model.loss, &expected);
            let off = off(&model.out, &expected);
            (worst, share) = (worst.max(off), share.max(off / gate));
            assert!(off <= gate, "{} at step {step}: a gradient is off by {off:e}, gate {gate:e}", model.name);
            if !broken {
                assert_agrees(&format!("{} at step {step}", model.name), &model.loss, &model.out, &expected, true);
            }
            if turn % 6 == 3 && !broken && model.has_shards() {
                let made = Made::start(backend);
                let shards = model.sharded(&data, &before)?;
                made.stop(&mut memory, || format!("shards of {} with {rows} rows", model.name));
                assert_agrees(&format!("{} in shards", model.name), &model.loss, &shards, &expected, true);
            }
            #[cfg(feature = "gpu")]
            if let Some(engine) = engine {
                let made = Made::start(backend);
                engine.step(model, &data, &before)?;
                made.stop(&mut memory, || format!("an engine's step of {}", model.name));
            }
        }
        follows(model, step);
        if turn % 9 == 8 {
            let made = Made::start(backend);
            resume(backend, model, &data)?;
            made.stop(&mut memory, || format!("a new head of {} that has {rows} rows", model.name));
        }
        if !broken && rows > 0 && model.name == "unified" {
            losses[usize::from(step >= steps / 2)] += f64::from(model.out.loss);
        }
        model.descend();
        memory.sample(held(backend));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let growth = memory.growth();
    let cell = |g: &crate::memory::Growth| format!("{}: {} {}", g.what, g.start, g.end);
    let cells = growth.iter().map(cell).collect::<Vec<_>>().join("\n");
    let line = vec![name.to_owned(), steps.to_string(), cells, format!("{worst:.1e}"), format!("{share:.2}")];
    LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    for growth in growth {
        assert!(growth.flat(), "{} grew from {} to {} bytes", growth.what, growth.start, growth.end);
    }
    Ok(())
}

/// How far the gradients are off, of which those of a row that is left out are 0 on both sides.
fn off(found: &Output, expected: &Output<f64>) -> f64 {
    let dx = distance(&found.grad_embeddings, &expected.grad_embeddings);
    dx.max(distance(&found.grad_prototypes, &expected.grad_prototypes))
}

/// A label that names no class: an error, and nothing moves.
fn refused(model: &mut Model, data: &Data) -> Result<(), Failed> {
    let before = *model.head.state();
    let mut labels = data.labels.clone();
    labels[0] = CLASSES as i32;
    let found = model.head.train(&Batch { labels: &labels, ..data.batch() });
    assert_eq!(found.err(), Some(Error::Label { row: 0, label: CLASSES as i128, classes: CLASSES }));
    assert_eq!(*model.head.state(), before);
    Ok(())
}

/// The state beside the reference's, which has followed the same batches in f64. Running means forget what was rounded long
/// ago: an error of 6e-8 a step stays below 6e-6 with the slowest rate, 0.01; AdaCos' scale forgets within a few steps.
fn follows(model: &Model, step: usize) {
    let (found, expected) = (model.head.state(), &model.state);
    assert_eq!((found.step, found.seed, found.classes), (expected.step, expected.seed, expected.classes));
    for (what, found, expected) in [
        ("hardness", found.hardness, expected.hardness),
        ("norm_mean", found.norm_mean, expected.norm_mean),
        ("norm_deviation", found.norm_deviation, expected.norm_deviation),
        ("scale", found.scale, expected.scale),
    ] {
        let error = (found - expected).abs();
        assert!(
            error <= 1e-5 * expected.abs().max(0.1),
            "{} at step {step}: {what} is {found}, not {expected}",
            model.name
        );
    }
}

/// Saves the state, loads it into a new head, and goes on with both: the same bits. The new head takes the old one's place.
fn resume(backend: &Backend, model: &mut Model, data: &Data) -> Result<(), Failed> {
    let saved = serde_json::to_string(model.head.state())?;
    let loaded: State = serde_json::from_str(&saved)?;
    assert_eq!(loaded, *model.head.state());
    let mut head = backend.head_with(&model.loss, model.shape, &model.options)?;
    head.set_state(&loaded)?;
    let mut old = Output::default();
    std::mem::swap(&mut head, &mut model.head);
    for _ in 0..2 {
        head.train_into(&data.batch(), &mut old)?;
        model.train(data)?;
        model.expected(data, Want::LOSS)?;
        assert!(bits(&model.out) == bits(&old), "{}: a loaded state goes on otherwise", model.name);
        assert_eq!(model.head.state(), head.state());
    }
    Ok(())
}

fn bits(out: &Output) -> Vec<u32> {
    let parts = [&out.row_losses, &out.target_cosines, &out.other_cosines, &out.grad_embeddings, &out.grad_prototypes];
    let all = parts.into_iter().chain([&out.grad_bias]).flatten().chain([&out.loss, &out.grad_scale]);
    all.map(|v| v.to_bits()).collect()
}

/// Bytes that a device's allocator has given out.
fn held(backend: &Backend) -> Option<u64> {
    match backend {
        #[cfg(feature = "gpu")]
        Backend::Gpu(context) => Some(context.device().generate_allocator_report()?.total_allocated_bytes),
        _ => None,
    }
}

/// The bytes of the buffers that a piece of work makes.
struct Made<'a> {
    backend: &'a Backend,
    before: u64,
}

impl<'a> Made<'a> {
    fn start(backend: &'a Backend) -> Self {
        Self { backend, before: Self::bytes(backend) }
    }

    fn bytes(backend: &Backend) -> u64 {
        match backend {
            #[cfg(feature = "gpu")]
            Backend::Gpu(context) => context.allocated_bytes(),
            _ => 0,
        }
    }

    fn stop(self, memory: &mut Memory, kind: impl FnOnce() -> String) {
        let bytes = Self::bytes(self.backend) - self.before;
        let kind = kind();
        assert!(kind != "a step" || bytes == 0, "a step made {bytes} bytes of buffers");
        memory.made(kind, bytes);
    }
}

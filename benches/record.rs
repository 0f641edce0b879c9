//! What recording costs on the host: one forward and one backward pass of 256×5,994×192 onto an encoder, nothing submitted.
//!
//! Beside it the same wgpu calls on the same objects, made by hand: what is ours is the difference, in time and in
//! allocations. `finish` is wgpu's, and is timed apart. At most 100 µs, no allocation of our own: more ends with an error.

mod common;
#[path = "../tests/gpu/counting.rs"]
mod counting;

use std::{hint::black_box, process::ExitCode, time::Instant};

use clap::Parser;
use comfy_table::Table;
use common::data::Data;
use counting::allocations;
use margin_softmax::{
    Budget, MarginSoftmax, Options, Result,
    gpu::{BoundHead, Context, Dispatch, Head, Io, Tensor},
    plan::{Element, Layout, Plan},
};
use serde_json::{Value, json};

const SHAPE: [usize; 3] = [256, 5994, 192];
const MAX_MICROSECONDS: f64 = 100.0;

/// What recording costs.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    of: common::Adapters,
}

fn bound(context: &Context, budget: Budget) -> Result<(BoundHead, Plan)> {
    let [n, c, d] = SHAPE;
    let data = Data::new(SHAPE, |v| v);
    let loss = MarginSoftmax::arcface();
    let layout = Layout { shards: &[c], embeddings: Element::F32, prototypes: Element::F32 };
    let plan = Plan::head(&loss, data.shape, &layout, context.limits(), &Options { budget, ..Options::default() })?;
    let head = Head::new(context, &loss, plan)?;
    let tensor = |shape: &[usize], element| Tensor::empty(context, shape, element);
    let (x, w, y) = (tensor(&[n, d], Element::F32)?, tensor(&[c, d], Element::F32)?, tensor(&[n], Element::I32)?);
    let (l, dx, dw) = (tensor(&[1], Element::F32)?, tensor(&[n, d], Element::F32)?, tensor(&[c, d], Element::F32)?);
    let (w, dw) = ([&w], [&dw]);
    let io = Io { grad_embeddings: Some(&dx), grad_prototypes: &dw, ..Io::new(&x, &w, &y, &l) };
    Ok((head.bind(&io)?, head.plan().clone()))
}

fn by_hand(passes: &[Vec<Dispatch>; 2], encoder: &mut wgpu::CommandEncoder) {
    for (dispatches, label) in passes.iter().zip(["forward", "backward"]) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes: None };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        for (pipeline, group, part, [x, y, z]) in dispatches {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[*part]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

/// Microseconds of recording, microseconds of `finish`, allocations of recording.
fn once(context: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> (f64, f64, u64) {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let start = Instant::now();
    let count = allocations(|| record(&mut encoder));
    let recorded = start.elapsed();
    let commands = black_box(encoder.finish());
    let finished = start.elapsed() - recorded;
    drop(commands);
    (recorded.as_secs_f64() * 1e6, finished.as_secs_f64() * 1e6, count)
}

fn measure(context: &Context, schedule: &str, budget: Budget) -> Result<Value> {
    let (bound, plan) = bound(context, budget)?;
    let hand = bound.dispatches();
    let own = |encoder: &mut wgpu::CommandEncoder| {
        bound.record_forward(encoder);
        bound.record_backward(encoder);
    };
    // in turns, since only ratios of one run mean anything on a shared machine
    let mut times: [Vec<f64>; 4] = Default::default();
    let mut counts = [0; 2];
    for round in 0..2000 {
        let (recorded, finished, count) = once(context, own);
        let (bare, bare_finished, bare_count) = once(context, |encoder| by_hand(&hand, encoder));
        // the first rounds fill wgpu's pools
        if round >= 20 {
            times.iter_mut().zip([recorded, finished, bare, bare_finished]).for_each(|(t, v)| t.push(v));
            counts = [counts[0].max(count), counts[1].max(bare_count)];
        }
    }
    let [(recorded, best), (finish, _), (hand, hand_best), _] = times.each_mut().map(|t| common::median_best(t));
    Ok(json!({
        "adapter": context.name(), "schedule": schedule, "chunks": plan.schedule().chunks.len(),
        "dispatches": plan.forward().len() + plan.backward().len(), "record_us": recorded, "record_best_us": best,
        "by_hand_us": hand, "by_hand_best_us": hand_best, "finish_us": finish,
        "allocations": counts[0], "allocations_by_hand": counts[1],
    }))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut rows = vec![];
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "adapter",
        "schedule",
        "dispatches",
        "record µs",
        "best",
        "by hand µs",
        "best",
        "finish µs",
        "allocations",
        "by hand",
    ]);
    let mut good = true;
    for context in common::contexts(arguments.of.adapter.as_deref()) {
        // one chunk, a few, many
        for (schedule, budget) in
            [("keep", Budget::mib(256)), ("recompute", Budget::mib(4)), ("recompute", Budget::mib(1))]
        {
            let row = match measure(&context, schedule, budget) {
                Ok(row) => row,
                Err(error) => {
                    println!("{}, {schedule} in {} bytes: {error}", context.name(), budget.get());
                    continue;
                }
            };
            let number = |key: &str| format!("{:.1}", row[key].as_f64().unwrap_or(f64::NAN));
            let text = |key: &str| row[key].as_str().map_or_else(|| row[key].to_string(), str::to_owned);
            table.add_row([
                text("adapter"),
                text("schedule"),
                text("dispatches"),
                number("record_us"),
                number("record_best_us"),
                number("by_hand_us"),
                number("by_hand_best_us"),
                number("finish_us"),
                text("allocations"),
                text("allocations_by_hand"),
            ]);
            good &= row["allocations"] == row["allocations_by_hand"];
            good &= schedule != "keep" || row["record_us"].as_f64().is_some_and(|us| us <= MAX_MICROSECONDS);
            rows.push(row);
        }
    }
    println!("{table}");
    common::store("record.json", &["adapter", "schedule", "dispatches"], &rows);
    if !good {
        println!("FAILED: recording takes more than {MAX_MICROSECONDS} µs, or allocates more than its wgpu calls");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

//! Inputs to begin with, made from the library itself: `MARGIN_SOFTMAX_SEEDS=<folder>` writes them there when a target starts.

#![allow(dead_code)] // each target has its own

#[path = "../families/mod.rs"]
mod families;

use std::{fs, path::Path};

use margin_softmax::{
    Batch, CenterLoss, MarginSoftmax, Regularizer, Shape, State, Want,
    checkpoint::Checkpoint,
    objective::{Ramp, Schedule, Schedules},
    partial::PartialFc,
    plan::Limits,
    reference,
};
use serde_json::to_string;

/// The first byte of an input says what the rest is.
fn input(which: u8, text: &str) -> Vec<u8> {
    [&[which], text.as_bytes()].concat()
}

pub fn write(all: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("MARGIN_SOFTMAX_SEEDS") else { return };
    for (i, seed) in all().into_iter().enumerate() {
        fs::write(Path::new(&folder).join(format!("seed-{i:03}")), seed).expect("the folder of the seeds");
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    to_string(value).expect("plain data")
}

fn schedules() -> Schedules {
    let one = Schedule { start: 0.0, end: 0.5, from: 10, until: 30, ramp: Ramp::Exponential };
    Schedules {
        m2: Some(one),
        scale: Some(Schedule { ramp: Ramp::Linear, ..one }),
        top_k: Some(0.06),
        ..Default::default()
    }
}

/// What two shards of a small head exchange, a line each.
fn exchanged(loss: &MarginSoftmax) -> [String; 2] {
    let shape = Shape::new(2, 7, 2).expect("sizes");
    let (x, w) = ([0.6, 0.8, -1.0, 0.5], [1.0, 0.0, 0.0, 1.0, -1.0, 0.3, 0.2, -0.9, 0.5, 0.5, 2.0, 1.0, 0.1, 0.7]);
    let state = State::new(loss, shape).expect("a state");
    let (mut targets, mut sums) = (vec![], vec![]);
    for range in [0..4, 4..7] {
        let batch = Batch {
            embeddings: &x,
            prototypes: &w[2 * range.start..2 * range.end],
            labels: &[0, 5],
            ..Default::default()
        };
        let shard = reference::Shard::new(loss, shape, range, &batch, &state).expect("a shard");
        targets.push(shard.targets(&state));
        let all = reference::Shard::new(loss, shape, 0..7, &Batch { prototypes: &w, ..batch }, &state).expect("a head");
        sums.push(shard.statistics(&all.targets(&state), &state).expect("statistics"));
    }
    [targets.iter().map(json).collect::<Vec<_>>().join("\n"), sums.iter().map(json).collect::<Vec<_>>().join("\n")]
}

fn small() -> Checkpoint {
    let shape = Shape::new(2, 3, 2).expect("sizes");
    let state = State::new(&MarginSoftmax::arcface(), shape).expect("a state");
    Checkpoint::new(&state)
        .with_sampler(&PartialFc::new(0.1, 7).expect("a rate"))
        .with_tensor("prototypes", &[3, 2], vec![0.5, f32::NAN, -0.0, 1e-45, f32::INFINITY, -1.5])
        .and_then(|kept| kept.with_tensor("a", &[], vec![2.5]))
        .expect("tensors")
}

/// For targets that take any bytes: long enough for a whole case.
pub fn noise() -> Vec<Vec<u8>> {
    let mut state = 0_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..64).map(|_| (0..300).map(|_| next()).collect()).collect()
}

pub fn objective() -> Vec<Vec<u8>> {
    // a curve from outside has no JSON form
    let losses = [families::presets(), families::beside_presets()].concat();
    let mut all: Vec<_> = losses.iter().filter_map(|(_, loss)| Some(input(0, &to_string(loss).ok()?))).collect();
    all.extend([input(2, &json(&schedules())), input(3, &json(&schedules().m2))]);
    all.extend([Regularizer::reg_ss(), Regularizer::uniform_face()].map(|r| input(4, &json(&r))));
    all.push(input(5, &json(&CenterLoss::default())));
    all.extend([
        input(6, &json(&Want::ALL)),
        input(6, &json(&Limits::WEBGPU)),
        input(6, "1024"),
        input(6, "\"tile_64\""),
    ]);
    all.push(input(7, r#"{"rows":3,"classes":5,"dim":7,"sub_centers":2}"#));
    for name in ["arcface_topk", "adacos", "sphereface2"] {
        let [targets, sums] = exchanged(&MarginSoftmax::named(name).expect("a preset"));
        all.extend([input(8, &targets), input(9, &sums)]);
    }
    all
}

/// The header and the data of a safetensors file, for targets that put the header's length in front by themselves.
fn split(file: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
    [&[1], &file[8..8 + length], &[0], &file[8 + length..]].concat()
}

pub fn checkpoint() -> Vec<Vec<u8>> {
    let (kept, bytes) = (small(), small().to_safetensors().expect("a file"));
    let mut all =
        vec![[&[0], &bytes[..]].concat(), split(&bytes), input(2, &json(&kept)), input(3, &json(&kept.state))];
    all.extend([input(4, &json(&kept.sampler)), input(5, &json(&kept.tensors()["prototypes"]))]);
    all
}

pub fn evaluate_input() -> Vec<Vec<u8>> {
    use safetensors::{Dtype, serialize, tensor::TensorView};
    let bytes = |count: usize| (0..count).map(|i| i as u8 ^ 0x3f).collect::<Vec<_>>();
    let labels = [1_i64, 0].iter().flat_map(|y| y.to_le_bytes()).collect::<Vec<_>>();
    let floats = [0.5_f32, -1.0, 2.0].iter().flat_map(|y| y.to_le_bytes()).collect::<Vec<_>>();
    let tensors = |wide: Dtype, three: bool, more: &[(&'static str, usize)]| {
        let (size, of) = (wide.bitsize() / 8, if three { vec![3, 2, 2] } else { vec![3, 2] });
        let mut all = vec![
            ("embeddings", wide, vec![2, 2], bytes(4 * size)),
            ("prototypes", wide, of.clone(), bytes(of.iter().product::<usize>() * size)),
            ("labels", Dtype::I64, vec![2], labels.clone()),
        ];
        all.extend(more.iter().map(|&(name, count)| (name, Dtype::F32, vec![count], floats[..4 * count].to_vec())));
        let view = |(name, dtype, shape, data): &(&'static str, Dtype, Vec<usize>, Vec<u8>)| {
            (
                *name,
                TensorView::new(*dtype, shape.clone(), data).expect("a tensor").data().to_vec(),
                *dtype,
                shape.clone(),
            )
        };
        let views: Vec<_> = all.iter().map(view).collect();
        let views = views
            .iter()
            .map(|(name, data, dtype, shape)| (*name, TensorView::new(*dtype, shape.clone(), data).expect("a tensor")));
        serialize(views, None).expect("a file")
    };
    let files = [
        tensors(Dtype::F32, false, &[]),
        tensors(Dtype::F16, false, &[("class_weights", 3), ("upstream", 1), ("class_m2", 3), ("row_m3", 2)]),
        tensors(Dtype::BF16, true, &[("bias", 3), ("upstream", 2)]),
    ];
    let mut all: Vec<_> = files.iter().flat_map(|file| [[&[0], &file[..]].concat(), split(file)]).collect();
    all.extend([input(2, r#"{"preset": "arcface"}"#), input(2, &json(&MarginSoftmax::cheby_aam()))]);
    all.push(input(3, &json(&small().state)));
    all
}

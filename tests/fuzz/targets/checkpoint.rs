//! Checkpoints and their parts from bytes: an error, or something that is written and read again to the same bits.

#![no_main]

#[path = "../memory.rs"]
mod memory;
#[path = "../seeds.rs"]
mod seeds;

use libfuzzer_sys::fuzz_target;
use margin_softmax::{
    Backend, MarginSoftmax, Shape, State,
    checkpoint::{Checkpoint, TensorData},
    partial::PartialFc,
};
use serde::{Serialize, de::DeserializeOwned};

/// Everything that is kept, as bits.
fn bits(kept: &Checkpoint) -> impl PartialEq + std::fmt::Debug + use<> {
    let State { classes, step, seed, hardness, norm_mean, norm_deviation, scale } = kept.state;
    let numbers = [hardness, norm_mean, norm_deviation, scale].map(f64::to_bits);
    let sampler = kept.sampler.map(|PartialFc { rate, seed, step }| (rate.to_bits(), seed, step));
    let tensor = |(name, t): (&String, &TensorData)| {
        (name.clone(), t.shape().to_vec(), t.data().iter().map(|v| v.to_bits()).collect::<Vec<_>>())
    };
    (classes, step, seed, numbers, sampler, kept.tensors().iter().map(tensor).collect::<Vec<_>>())
}

fn check(kept: &Checkpoint) {
    let file = kept.to_safetensors().expect("a checkpoint that was read");
    assert_eq!(bits(&Checkpoint::from_safetensors(&file).expect("what was written")), bits(kept));
    assert_eq!(bits(&text(kept)), bits(kept));
    let classes = kept.state.classes;
    kept.state.validate(Shape::new(2, classes, 1).expect("a state's classes")).expect("a state that was read");
    if classes < 100 {
        let shape = Shape::new(2, classes, 3).expect("a state's classes");
        let mut head = Backend::cpu().head(&MarginSoftmax::arcface(), shape).expect("a small head");
        head.set_state(&kept.state).expect("a state of this head");
    }
}

fn text<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).expect("plain data")).expect("what was written")
}

/// A header, a zero byte and the data, with the header's length in front.
fn file(parts: &[u8]) -> Vec<u8> {
    let end = parts.iter().position(|&b| b == 0).unwrap_or(parts.len());
    let (header, data) = (&parts[..end], parts.get(end + 1..).unwrap_or(&[]));
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

fn read(which: u8, bytes: &[u8]) {
    // some of it twice: what was read, and what was written of it
    let most = (64 << 10) + 64 * bytes.len();
    match which % 6 {
        0 => drop(memory::within(most, || Checkpoint::from_safetensors(bytes)).inspect(check)),
        1 => drop(memory::within(most, || Checkpoint::from_safetensors(&file(bytes))).inspect(check)),
        2 => drop(memory::within(most, || serde_json::from_slice(bytes)).inspect(check)),
        3 => {
            if let Ok(state) = serde_json::from_slice::<State>(bytes) {
                let again = text(&state);
                // a broken number may be one, until it is used
                let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(same(again.hardness, state.hardness) && same(again.scale, state.scale));
                assert!(same(again.norm_mean, state.norm_mean) && same(again.norm_deviation, state.norm_deviation));
                assert_eq!((again.classes, again.step, again.seed), (state.classes, state.step, state.seed));
                if Checkpoint::new(&state).to_safetensors().is_ok() {
                    check(&Checkpoint::new(&state));
                }
            }
        }
        4 => {
            if let Ok(sampler) = serde_json::from_slice::<PartialFc>(bytes)
                && sampler.validate().is_ok()
            {
                assert_eq!(text(&sampler), sampler);
                let sample = sampler.sample(&[3, -1, 3, 0], Some(-1), 50).expect("these labels");
                assert!(sample.classes.is_sorted() && sample.classes.len() >= sampler.count(50).max(2));
                assert_eq!(sample.classes[sample.labels[0] as usize], 3);
            }
        }
        _ => {
            if let Ok(tensor) = memory::within(most, || serde_json::from_slice::<TensorData>(bytes)) {
                assert_eq!(tensor.shape().iter().product::<usize>(), tensor.data().len());
                let again = text(&tensor);
                assert_eq!(again.shape(), tensor.shape());
                assert!(again.data().iter().zip(tensor.data()).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }
}

fuzz_target!(
    init: seeds::write(seeds::checkpoint),
    |data: &[u8]| if let Some((which, bytes)) = data.split_first() {
        read(*which, bytes);
    }
);

//! The files that the example `evaluate` reads: a batch, a loss, a state. An error, or values that the file holds; and never
//! more memory than in proportion to the file.

#![no_main]
#![allow(dead_code)] // the example's own names

#[path = "../memory.rs"]
mod memory;
#[path = "../seeds.rs"]
mod seeds;

#[path = "../../../examples/evaluate/input.rs"]
mod input;
#[path = "../../../examples/evaluate/loss.rs"]
mod loss;
#[path = "../../../examples/evaluate/output.rs"]
mod output;

/// As the example has it.
mod command {
    pub type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;
}

/// In the place of the example's own: files in memory.
mod files {
    use std::{cell::RefCell, path::Path};

    use crate::command::Result;

    thread_local! {
        pub static BYTES: RefCell<Vec<u8>> = const { RefCell::new(vec![]) };
    }

    pub fn read(_: &Path, most: u64) -> Result<Vec<u8>> {
        assert!(most <= 8 << 30);
        Ok(BYTES.with_borrow(Vec::clone))
    }
}

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use margin_softmax::{Backend, MarginSoftmax, Options, Reduction, Shape, State, Want, objective::PRESETS, reference};

const PATH: &str = "a file";

/// Runs `work` on this file.
fn with<T>(bytes: Vec<u8>, work: impl FnOnce(&Path) -> T) -> T {
    // what is parsed twice, and what is kept of it
    let most = (64 << 10) + 64 * bytes.len();
    files::BYTES.set(bytes);
    memory::within(most, || work(Path::new(PATH)))
}

fn batch(bytes: Vec<u8>, which: u8) {
    let length = bytes.len();
    let reduction = [Reduction::Mean, Reduction::Sum, Reduction::None][usize::from(which % 3)];
    let Ok(input) = with(bytes, |path| input::read(path, reduction)) else { return };
    let shape = input.shape;
    let (n, c, d) = (shape.rows(), shape.classes(), shape.dim());
    // each value is one of the file's own
    assert_eq!((input.embeddings.len(), input.prototypes.len()), (n * d, c * shape.sub_centers() * d));
    assert_eq!(input.labels.len(), n);
    let [x, w] = input.elements.map(|dtype| dtype.bitsize() / 8);
    let mut held = x * input.embeddings.len() + w * input.prototypes.len() + 8 * n;
    let of_class = input.class_margins.iter().chain([&input.class_weights, &input.bias]);
    let both = [(of_class.collect::<Vec<_>>(), c), (input.row_margins.iter().collect(), n)];
    for (values, expected) in both.iter().flat_map(|(all, n)| all.iter().map(move |v| (v, n))) {
        assert!(values.as_ref().is_none_or(|v| v.len() == *expected));
        held += 4 * values.as_ref().map_or(0, Vec::len);
    }
    held += 4 * input.upstream.as_ref().map_or(0, Vec::len);
    assert!(held <= length, "{held} bytes of tensors in a file of {length}");
    if n * c * shape.sub_centers() > 2000 || d > 200 {
        return;
    }
    let mut loss = PRESETS[usize::from(which) % PRESETS.len()].loss();
    loss.reduction = reduction;
    let options = Options { want: Want::ALL.with_scale().with_bias(), ..Options::default() };
    let Ok(state) = State::new(&loss, shape) else { return };
    let expected = reference::evaluate_with(&loss, shape, options.want, &input.wide().batch(), &state);
    let found = Backend::cpu().head_with(&loss, shape, &options).and_then(|mut head| head.evaluate(&input.batch()));
    match (found, expected) {
        (Ok(found), Ok(expected)) => {
            output::bytes(shape, &found, None, String::new()).expect("a file");
            output::bytes(shape, &expected, None, String::new()).expect("a file");
        }
        // as text: a NaN may be in it
        (Err(found), Err(expected)) => assert_eq!(format!("{found:?}"), format!("{expected:?}")),
        (found, expected) => panic!("{found:?}, but the reference says {expected:?}"),
    }
}

/// A header, a zero byte and the data, with the header's length in front.
fn file(parts: &[u8]) -> Vec<u8> {
    let end = parts.iter().position(|&b| b == 0).unwrap_or(parts.len());
    let (header, data) = (&parts[..end], parts.get(end + 1..).unwrap_or(&[]));
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

fn read(which: u8, bytes: &[u8]) {
    match which % 4 {
        0 => batch(bytes.to_vec(), which / 4),
        1 => batch(file(bytes), which / 4),
        2 => {
            if let Ok(loss) = with(bytes.to_vec(), loss::read) {
                loss.validate().expect("a loss that was read");
                let text = serde_json::to_string(&loss).expect("plain data");
                assert_eq!(loss::parse(&text).expect("what was written"), loss);
            }
        }
        _ => {
            if let Ok(state) = with(bytes.to_vec(), loss::state)
                && let Ok(shape) = Shape::new(2, state.classes.min(100), 2)
                && let Ok(mut head) = Backend::cpu().head(&MarginSoftmax::adaface(), shape)
                && head.set_state(&state).is_ok()
            {
                assert_eq!(state.validate(shape), Ok(()));
            }
        }
    }
}

fuzz_target!(
    init: seeds::write(seeds::evaluate_input),
    |data: &[u8]| if let Some((which, bytes)) = data.split_first() {
        read(*which, bytes);
    }
);

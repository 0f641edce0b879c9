//! Saved runs: bit for bit through every format, and nothing but errors from bytes that are none.

use margin_softmax::{
    Adaptive, Backend, Batch, Error, MarginSoftmax, Options, Shape, State,
    checkpoint::{Checkpoint, TensorData},
    objective::{Elastic, Ramp, Schedule, Schedules},
    partial::{PartialFc, SampledHead},
};
use rand::RngExt;
use serde_json::{Value, json};

use crate::common::*;

const CLASSES: usize = 31;
const DIM: usize = 6;
const ROWS: usize = 8;

/// Scalars without a short decimal form, and every kind of f32.
fn awkward() -> Checkpoint {
    let state = State {
        classes: 3,
        step: (1 << 53) + 1,
        seed: u64::MAX,
        hardness: -1.0 / 3.0,
        norm_mean: 5e-324,
        norm_deviation: 0.1 + 0.2,
        scale: 60.0_f64.next_up(),
    };
    let odd = [f32::NAN, f32::from_bits(0xffc1_2345), f32::NEG_INFINITY, -0.0, 1e-45, f32::MAX, 0.1, 1.0 / 3.0];
    Checkpoint::new(&state)
        .with_sampler(&PartialFc { rate: 0.1_f64.next_down(), seed: 3, step: 1 << 60 })
        .with_tensor("prototypes", &[2, 2, 2], odd.to_vec())
        .and_then(|c| c.with_tensor("a scalar", &[], vec![2.5]))
        .and_then(|c| c.with_tensor("nothing", &[3, 0], vec![]))
        .unwrap()
}

fn same(a: &Checkpoint, b: &Checkpoint) {
    let bits = |c: &Checkpoint| {
        let State { hardness, norm_mean, norm_deviation, scale, .. } = c.state;
        let scalars = [hardness, norm_mean, norm_deviation, scale, c.sampler.map_or(0.0, |s| s.rate)];
        let tensor = |(name, t): (&String, &TensorData)| {
            (name.clone(), t.shape().to_vec(), t.data().iter().map(|v| v.to_bits()).collect::<Vec<_>>())
        };
        (scalars.map(f64::to_bits), c.tensors().iter().map(tensor).collect::<Vec<_>>())
    };
    assert_eq!(bits(a), bits(b));
    assert_eq!((a.state, a.sampler), (b.state, b.sampler));
}

fn json(kept: &Checkpoint) -> Checkpoint {
    serde_json::from_str(&serde_json::to_string(kept).unwrap()).unwrap()
}

#[cfg(feature = "safetensors")]
fn file(kept: &Checkpoint) -> Checkpoint {
    Checkpoint::from_safetensors(&kept.to_safetensors().unwrap()).unwrap()
}

#[test]
fn every_bit_survives() {
    let (full, empty) = (awkward(), Checkpoint::new(&awkward().state));
    for kept in [full, empty] {
        same(&json(&kept), &kept);
        #[cfg(feature = "safetensors")]
        same(&file(&kept), &kept);
    }
    // random bit patterns: a reader that rounds would be off in about one of some hundred
    let rng = &mut random(4);
    for _ in 0..2000 {
        let state =
            State { scale: rng.random_range(1e-3..1e3), hardness: rng.random_range(-1.0..1.0), ..awkward().state };
        same(&json(&Checkpoint::new(&state)), &Checkpoint::new(&state));
    }
}

/// Plain numbers are read too: a state that somebody wrote.
#[test]
fn a_state_may_hold_plain_numbers() {
    let text = r#"{"classes": 3, "step": 0, "seed": 1, "hardness": 0, "norm_mean": 20, "norm_deviation": "100", "scale": 0.5}"#;
    let state: State = serde_json::from_str(text).unwrap();
    assert_eq!((state.hardness, state.norm_mean, state.norm_deviation, state.scale), (0.0, 20.0, 100.0, 0.5));
    for bad in [r#""x""#, r#""""#, "null", "[1]", "true"] {
        assert!(serde_json::from_str::<State>(&text.replace("\"100\"", bad)).is_err(), "{bad}");
    }
}

/// A run: margins on a schedule, sampled classes, plain gradient descent on prototypes.
struct Run {
    loss: MarginSoftmax,
    schedules: Schedules,
    head: SampledHead,
    prototypes: Vec<f32>,
}

impl Run {
    fn new(backend: &Backend, loss: &MarginSoftmax, sampler: PartialFc) -> Result<Self, Error> {
        let scale = Schedule { start: 8.0, end: 16.0, from: 2, until: 9, ramp: Ramp::Exponential };
        let scale = (loss.adaptive != Adaptive::AdaCos).then_some(scale);
        let shape = Shape::new(ROWS, CLASSES, DIM)?;
        let mut head = SampledHead::new(backend, loss, shape, &Options::default(), sampler)?;
        head.set_state(&head.state().with_seed(11))?;
        let prototypes = uniform(&mut random(7), CLASSES * DIM).into_iter().map(|v| v as f32).collect();
        Ok(Self { loss: loss.clone(), schedules: Schedules { scale, ..Default::default() }, head, prototypes })
    }

    fn step(&mut self) -> Vec<u32> {
        let step = self.head.state().step;
        self.schedules.apply(step, &mut self.loss).unwrap();
        self.head.update(&self.loss).unwrap();
        let rng = &mut random(100 + step);
        let embeddings: Vec<f32> = uniform(rng, ROWS * DIM).into_iter().map(|v| 20.0 * v as f32).collect();
        let labels: Vec<i64> = (0..ROWS).map(|_| rng.random_range(0..CLASSES as i64)).collect();
        let batch =
            Batch { embeddings: &embeddings, prototypes: &self.prototypes, labels: &labels, ..Default::default() };
        let out = self.head.train(&batch).unwrap();
        for (gradient, &class) in out.output.grad_prototypes.chunks_exact(DIM).zip(&out.classes) {
            let row = &mut self.prototypes[class * DIM..][..DIM];
            row.iter_mut().zip(gradient).for_each(|(w, g)| *w -= 0.1 * g);
        }
        out.output
            .row_losses
            .iter()
            .chain(&out.output.grad_embeddings)
            .chain(&self.prototypes)
            .map(|v| v.to_bits())
            .collect()
    }

    fn keep(&self) -> Checkpoint {
        Checkpoint::new(self.head.state())
            .with_sampler(self.head.sampler())
            .with_tensor("prototypes", &[CLASSES, DIM], self.prototypes.clone())
            .unwrap()
    }

    fn resume(backend: &Backend, loss: &MarginSoftmax, kept: &Checkpoint) -> Result<Self, Error> {
        let mut run = Self::new(backend, loss, PartialFc::new(1.0, 0)?)?;
        run.head.set_sampler(&kept.sampler.unwrap())?;
        run.head.set_state(&kept.state)?;
        run.prototypes = kept.tensor("prototypes", &[CLASSES, DIM])?.to_vec();
        Ok(run)
    }
}

/// A run that is saved in the middle and resumed goes on bit for bit, whatever it keeps.
#[test]
fn a_resumed_run_goes_on_bit_for_bit() {
    let elastic = Adaptive::Elastic(Elastic { sorted: true, ..Default::default() });
    let losses = [
        MarginSoftmax::adacos(),
        MarginSoftmax::curricularface(),
        MarginSoftmax::adaface(),
        MarginSoftmax::elasticface_arc(),
        MarginSoftmax::elasticface_arc().with_adaptive(elastic),
        MarginSoftmax::arcface(),
    ];
    let backends = [
        Backend::reference(),
        #[cfg(feature = "cpu")]
        Backend::cpu(),
    ];
    for backend in &backends {
        for loss in &losses {
            let mut run = Run::new(backend, loss, PartialFc::new(0.5, 13).unwrap()).unwrap();
            let start = *run.head.state();
            (0..5).for_each(|_| drop(run.step()));
            let kept = run.keep();
            let mut loaded = vec![json(&kept)];
            #[cfg(feature = "safetensors")]
            loaded.push(file(&kept));
            let rest: Vec<_> = (0..6).map(|_| run.step()).collect();
            for kept in loaded {
                let mut resumed = Run::resume(backend, loss, &kept).unwrap();
                let again: Vec<_> = (0..6).map(|_| resumed.step()).collect();
                assert!(again == rest, "{}: {loss:?}", backend.name());
                same(&resumed.keep(), &run.keep());
            }
            // what was kept is needed: another state gives other numbers
            let mut other = Run::resume(backend, loss, &kept).unwrap();
            other.head.set_sampler(&PartialFc::new(0.5, 13).unwrap()).unwrap();
            assert!(other.step() != rest[0], "the sampler does nothing");
            if loss.adaptive != Adaptive::None || loss.others.name() == "curricular" {
                let mut other = Run::resume(backend, loss, &kept).unwrap();
                other.head.set_state(&State { step: kept.state.step, seed: 0, ..start }).unwrap();
                assert!(other.step() != rest[0], "the state does nothing: {loss:?}");
            }
        }
    }
}

/// The mean of cosines that rounded to more than 1 is still a state.
#[test]
fn a_rounded_hardness_is_kept() {
    let shape = Shape::new(2, 3, 2).unwrap();
    let state = State { hardness: 1.0 + f64::from(f32::EPSILON), ..awkward().state };
    assert_eq!(state.validate(shape), Ok(()));
    let beyond = State { hardness: 1.00001, ..state };
    assert!(matches!(beyond.validate(shape), Err(Error::Parameter { what: "state.hardness", .. })));
}

/// What belongs to another head is refused there.
#[test]
fn a_state_of_another_head_is_refused() {
    let loss = MarginSoftmax::arcface();
    let kept = json(&awkward());
    let mut head = Backend::reference().head(&loss, Shape::new(2, 4, 2).unwrap()).unwrap();
    let error = head.set_state(&kept.state).unwrap_err();
    assert_eq!(error, Error::Shape { what: "state", found: vec![3], expected: vec![4] });
    assert!(matches!(kept.tensor("prototypes", &[4, 2]), Err(Error::Shape { .. })));
    let missing = kept.tensor("centers", &[4, 2]).unwrap_err().to_string();
    assert!(missing.contains("centers") && missing.contains("a scalar, nothing, prototypes"), "{missing}");
}

#[test]
fn tensors_are_checked_as_they_come_in() {
    let mut kept = Checkpoint::new(&awkward().state);
    assert!(matches!(TensorData::new(&[2, 3], vec![0.0; 5]), Err(Error::Length { found: 5, expected: 6, .. })));
    for shape in [vec![usize::MAX, 2], vec![1 << 40], vec![1 << 20; 3], vec![usize::MAX; 5]] {
        assert!(matches!(TensorData::new(&shape, vec![]), Err(Error::Size { .. })), "{shape:?}");
    }
    let scalar = || TensorData::new(&[], vec![1.0]).unwrap();
    assert!(matches!(kept.insert("__metadata__", scalar()), Err(Error::Combination { what: "tensor", .. })));
    assert!(matches!(kept.insert(&"x".repeat(257), scalar()), Err(Error::Size { needed: 257, .. })));
    for i in 0..Checkpoint::MAX_TENSORS {
        assert_eq!(kept.insert(&format!("{i:0>256}"), scalar()), Ok(None));
    }
    assert!(matches!(kept.insert("one more", scalar()), Err(Error::Size { what: "tensors", .. })));
    let name = format!("{:0>256}", 7);
    assert_eq!(kept.insert(&name, scalar()), Ok(Some(scalar())), "the same name again is no tensor more");
    #[cfg(feature = "safetensors")]
    same(&file(&kept), &kept);
    assert_eq!(kept.remove(&name), Some(scalar()));
    assert!(kept.insert("one more", scalar()).is_ok());
}

/// JSON that is no checkpoint, field by field.
#[test]
fn garbled_json_is_an_error() {
    let good = serde_json::to_value(awkward()).unwrap();
    let read = |value: &Value| serde_json::from_value::<Checkpoint>(value.clone());
    assert!(read(&good).is_ok());
    let changes: [(&str, Value); 18] = [
        ("/version", json!(2)),
        ("/version", json!("1")),
        ("/state", json!(null)),
        ("/state/classes", json!(0)),
        ("/state/classes", json!(1_u64 << 40)),
        ("/state/classes", json!(-3)),
        ("/state/step", json!(u64::MAX)),
        ("/state/scale", json!("NaN")),
        ("/state/scale", json!("inf")),
        ("/state/scale", json!(0)),
        ("/state/hardness", json!(2)),
        ("/state/norm_mean", json!(-1)),
        ("/sampler/rate", json!("1.5")),
        ("/sampler/step", json!(u64::MAX)),
        ("/tensors/prototypes/shape", json!([2, 2, 3])),
        ("/tensors/prototypes/shape", json!([u64::MAX, u64::MAX, 2])),
        ("/tensors/prototypes/bits", json!([0.5, 1, 2, 3, 4, 5, 6, 7])),
        ("/tensors/prototypes/bits", json!([1_u64 << 32, 1, 2, 3, 4, 5, 6, 7])),
    ];
    for (place, change) in changes {
        let mut value = good.clone();
        *value.pointer_mut(place).unwrap() = change;
        assert!(read(&value).is_err(), "{place}: {}", value.pointer(place).unwrap());
    }
    for (place, key) in [("", "tensor"), ("/state", "momentum"), ("/sampler", "x"), ("/tensors/nothing", "dtype")] {
        let mut value = good.clone();
        value.pointer_mut(place).unwrap()[key] = json!(1);
        assert!(read(&value).is_err(), "{place}/{key}");
    }
    let text = good.to_string();
    for end in 0..text.len() {
        assert!(serde_json::from_str::<Checkpoint>(&text[..end]).is_err(), "cut at {end}");
    }
}

#[cfg(feature = "safetensors")]
mod files {
    use std::fs;

    use super::*;

    /// A file with this header and so many bytes behind it.
    fn bytes(header: &str, data: usize) -> Vec<u8> {
        let mut all = (header.len() as u64).to_le_bytes().to_vec();
        all.extend(header.as_bytes());
        all.resize(all.len() + data, 0);
        all
    }

    fn refused(bytes: &[u8]) -> Error {
        Checkpoint::from_safetensors(bytes).expect_err("this is no checkpoint")
    }

    /// Cut anywhere, or with anything behind it: an error that says so.
    #[test]
    fn a_truncated_file_is_an_error() {
        let good = awkward().to_safetensors().unwrap();
        for end in 0..good.len() {
            assert!(matches!(refused(&good[..end]), Error::Format { .. }), "cut at {end}");
        }
        let mut long = good.clone();
        long.push(0);
        assert!(matches!(refused(&long), Error::Format { .. }));
    }

    /// Any byte changed: an error or another checkpoint, no panic.
    #[test]
    fn a_garbled_file_does_no_harm() {
        let good = awkward().to_safetensors().unwrap();
        let mut errors = 0;
        for at in 0..good.len() {
            for change in [1, 2, 0x10, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= change;
                errors += usize::from(Checkpoint::from_safetensors(&bad).is_err());
            }
        }
        let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        assert!(errors > header * 5 / 2, "{errors} errors in a header of {header} bytes");
        let rng = &mut random(5);
        for _ in 0..2000 {
            let mut noise: Vec<u8> = (0..rng.random_range(0..200)).map(|_| rng.random()).collect();
            noise.splice(..noise.len().min(8), (rng.random_range(0..150_u64)).to_le_bytes());
            refused(&noise);
        }
    }

    #[test]
    fn hostile_headers_are_refused() {
        let kept = serde_json::to_value(awkward()).unwrap();
        let scalars = json!({ "version": 1, "state": kept["state"], "sampler": kept["sampler"] }).to_string();
        let meta = json!({ "margin_softmax": scalars });
        let tensor = |dtype: &str, shape: Value, offsets: Value| json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
        let with = |x: Value| json!({ "__metadata__": meta, "x": x }).to_string();
        assert!(Checkpoint::from_safetensors(&bytes(&with(tensor("F32", json!([2]), json!([0, 8]))), 8)).is_ok());
        let most = u64::MAX;
        let wrong = [
            bytes("", 0),
            bytes("{}", 0),
            bytes("[]", 0),
            bytes(&"[".repeat(100_000), 0),
            bytes(&json!({ "__metadata__": {} }).to_string(), 0),
            bytes(&json!({ "__metadata__": { "format": "pt" } }).to_string(), 0),
            bytes(&json!({ "__metadata__": { "format": "pt", "margin_softmax": scalars } }).to_string(), 0),
            bytes(&json!({ "__metadata__": { "margin_softmax": "{}" } }).to_string(), 0),
            bytes(&json!({ "__metadata__": { "margin_softmax": scalars.replace("seed", "sead") } }).to_string(), 0),
            bytes(&with(tensor("F64", json!([1]), json!([0, 8]))), 8),
            bytes(&with(tensor("I32", json!([2]), json!([0, 8]))), 8),
            bytes(&with(tensor("F33", json!([2]), json!([0, 8]))), 8),
            bytes(&with(tensor("F32", json!([3]), json!([0, 8]))), 8),
            bytes(&with(tensor("F32", json!([1]), json!([4, 8]))), 8),
            bytes(&with(tensor("F32", json!([2]), json!([8, 0]))), 8),
            bytes(&with(tensor("F32", json!([-2]), json!([0, 8]))), 8),
            bytes(&with(tensor("F32", json!([most, most]), json!([0, 8]))), 8),
            bytes(&with(tensor("I8", json!([1_u64 << 60]), json!([0, 1_u64 << 60]))), 8),
            bytes(&with(tensor("F32", json!([1_u64 << 40]), json!([0, 1_u64 << 42]))), 8),
            bytes(&with(tensor("F32", json!([0]), json!([most, most]))), 8),
        ];
        for bytes in &wrong {
            let error = refused(bytes);
            assert!(matches!(error, Error::Format { what: "checkpoint", .. }), "{error:?}");
        }
        // sizes and ranges have their own errors
        for size in [1 << 21, u64::MAX, u64::MAX - 7] {
            let mut bytes = bytes("{}", 100);
            bytes[..8].copy_from_slice(&size.to_le_bytes());
            assert!(matches!(refused(&bytes), Error::Size { needed, .. } if needed == size));
        }
        let of = |scalars: &str| bytes(&json!({ "__metadata__": { "margin_softmax": scalars } }).to_string(), 0);
        let error = refused(&of(&scalars.replace("\"version\":1", "\"version\":2")));
        assert!(matches!(error, Error::Parameter { what: "checkpoint.version", found: 2.0, .. }), "{error:?}");
        let mut nan: Value = serde_json::from_str(&scalars).unwrap();
        nan["state"]["scale"] = json!("NaN");
        assert!(matches!(refused(&of(&nan.to_string())), Error::Parameter { what: "state.scale", .. }));
        let mut many = serde_json::Map::from_iter([("__metadata__".to_string(), meta.clone())]);
        many.extend((0..1025).map(|i| (i.to_string(), tensor("F32", json!([0]), json!([0, 0])))));
        let error = refused(&bytes(&Value::from(many).to_string(), 0));
        assert!(matches!(error, Error::Size { what: "tensors", needed: 1025, .. }), "{error:?}");
        let long = json!({ "__metadata__": meta, "n".repeat(300): tensor("F32", json!([0]), json!([0, 0])) });
        assert!(matches!(refused(&bytes(&long.to_string(), 0)), Error::Size { needed: 300, .. }));
    }

    /// Other programs read the tensors, and little-endian they are.
    #[test]
    fn the_file_is_safetensors() {
        let bytes = awkward().to_safetensors().unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("a scalar").unwrap();
        assert_eq!((tensor.dtype(), tensor.data()), (safetensors::Dtype::F32, &2.5_f32.to_le_bytes()[..]));
        assert_eq!(bytes.len() % 4, 0);
    }

    /// A file is replaced as a whole or not at all, and nothing is left beside it.
    #[test]
    fn saving_replaces_the_file_or_leaves_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run.safetensors");
        let names = || fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        awkward().save(&path).unwrap();
        same(&Checkpoint::load(&path).unwrap(), &awkward());
        let mut second = awkward();
        second.state.step = 5;
        second.save(&path).unwrap();
        same(&Checkpoint::load(&path).unwrap(), &second);
        assert_eq!(names(), ["run.safetensors"]);

        // what could not be read again is not written
        let mut bad = awkward();
        bad.state.scale = f64::NAN;
        assert!(matches!(bad.save(&path), Err(Error::Parameter { what: "state.scale", .. })));
        same(&Checkpoint::load(&path).unwrap(), &second);
        assert_eq!(names(), ["run.safetensors"]);

        // a folder in the way: the rename fails after everything was written
        let folder = place.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("inside"), "x").unwrap();
        for path in [folder.clone(), place.path().join("absent").join("run"), "/".into(), "".into()] {
            let error = second.save(&path).unwrap_err();
            assert!(matches!(error, Error::File { .. }), "{error:?}");
        }
        assert_eq!(names().len(), 2);
        for path in [&folder, &place.path().join("absent")] {
            assert!(matches!(Checkpoint::load(path), Err(Error::File { .. })));
        }
    }

    /// A file with holes that claims gigabytes is refused by its header, before anything is allocated.
    #[test]
    fn a_file_of_holes_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("holes");
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 35).unwrap();
        drop(file);
        assert!(matches!(Checkpoint::load(&path), Err(Error::Format { .. })));
    }
}

//! The example `evaluate`: the same results on every device through its files, and a line for every mistake.
#![cfg(feature = "cpu")]

#[path = "../examples/evaluate/command.rs"]
mod command;
#[path = "../examples/evaluate/files.rs"]
mod files;
#[path = "../examples/evaluate/input.rs"]
mod input;
#[path = "../examples/evaluate/loss.rs"]
mod loss;
#[path = "../examples/evaluate/output.rs"]
mod output;

use std::{
    fs,
    path::{Path, PathBuf},
};

use approx::assert_abs_diff_eq;
use half::{bf16, f16};
use margin_softmax::{MarginSoftmax, objective::PRESETS};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

const ARCFACE: &str = r#"{"target": {"unified": {"m2": 0.5}}, "scale": 8}"#;

/// A tensor that owns its data.
#[derive(Clone)]
struct Tensor(&'static str, Dtype, Vec<usize>, Vec<u8>);

fn f32s(name: &'static str, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor(name, Dtype::F32, shape.into(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn i64s(name: &'static str, shape: &[usize], values: &[i64]) -> Tensor {
    Tensor(name, Dtype::I64, shape.into(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn halves(name: &'static str, shape: &[usize], values: &[f32]) -> [Tensor; 2] {
    let f16s = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    let bf16s = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    [Tensor(name, Dtype::F16, shape.into(), f16s), Tensor(name, Dtype::BF16, shape.into(), bf16s)]
}

fn file(tensors: &[Tensor]) -> Vec<u8> {
    let view = |t: &Tensor| TensorView::new(t.1, t.2.clone(), &t.3).unwrap().data().to_vec();
    let views: Vec<_> = tensors.iter().map(|t| (t.0, t.1, t.2.clone(), view(t))).collect();
    let views =
        views.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize(views, Some([("format".to_string(), "pt".to_string())].into())).unwrap()
}

/// The golden batch: two rows, three classes, two dimensions.
fn golden() -> Vec<Tensor> {
    vec![
        f32s("embeddings", &[2, 2], &[3.0, 4.0, -1.0, 2.0]),
        f32s("prototypes", &[3, 2], &[1.0, 1.0, 0.0, 2.0, -3.0, 1.0]),
        i64s("labels", &[2], &[0, 2]),
    ]
}

/// The golden batch with one tensor in place of, or added to, its own.
fn golden_with(tensor: Tensor) -> Vec<Tensor> {
    let mut tensors = golden();
    tensors.retain(|t| t.0 != tensor.0);
    tensors.push(tensor);
    tensors
}

/// More rows and classes than a tile, D no multiple of four; weights of classes and rows, a zero row, an ignored row.
fn large() -> Vec<Tensor> {
    let (n, c, d) = (70, 131, 17);
    let wave = |count: usize, pace: f64| (0..count).map(|i| (i as f64 * pace).sin() as f32).collect::<Vec<_>>();
    let mut x = wave(n * d, 1.7);
    x[5 * d..6 * d].fill(0.0);
    let labels: Vec<i64> = (0..n as i64).map(|i| if i == 9 { -100 } else { i * 7 % c as i64 }).collect();
    vec![
        f32s("embeddings", &[n, d], &x),
        f32s("prototypes", &[c, d], &wave(c * d, 2.3)),
        i64s("labels", &[n], &labels),
        f32s("class_weights", &[c], &wave(c, 0.1).iter().map(|w| w + 1.5).collect::<Vec<_>>()),
        f32s("row_weights", &[n], &wave(n, 0.3).iter().map(|v| v + 1.5).collect::<Vec<_>>()),
    ]
}

/// A folder with a batch and a loss.
struct Place(TempDir);

struct Run {
    code: u8,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new(batch: &[u8], loss: &str) -> Self {
        let place = Self(TempDir::new().unwrap());
        fs::write(place.at("batch.safetensors"), batch).unwrap();
        fs::write(place.at("loss.json"), loss).unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program, with its three files and more.
    fn run(&self, more: &[&str]) -> Run {
        let at = |name| self.at(name).into_os_string().into_string().unwrap();
        let (batch, loss, out) = (at("batch.safetensors"), at("loss.json"), at("out.safetensors"));
        let own = ["evaluate", "--input", &batch, "--loss", &loss, "--output", &out];
        run(&[&own, more].concat())
    }

    fn results(&self, more: &[&str]) -> Results {
        let Run { code, stderr, .. } = self.run(more);
        assert_eq!((code, &*stderr), (0, ""), "{more:?}");
        Results::read(&self.at("out.safetensors"))
    }

    /// The names of everything in the folder.
    fn names(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(name).collect();
        names.sort();
        names
    }
}

fn run(arguments: &[&str]) -> Run {
    let (mut stdout, mut stderr) = (vec![], vec![]);
    let code = command::main(arguments, &mut stdout, &mut stderr);
    Run { code, stdout: String::from_utf8(stdout).unwrap(), stderr: String::from_utf8(stderr).unwrap() }
}

/// An output file, in f64 whatever it holds.
#[derive(Debug, Clone, PartialEq)]
struct Results {
    dtype: Dtype,
    about: Value,
    loss: f64,
    row_losses: Vec<f64>,
    /// Of a softmax.
    log_sum_exps: Vec<f64>,
    /// Target cosines, then other cosines.
    cosines: Vec<f64>,
    /// Classes, cosines, log-probabilities, if they were asked for.
    predictions: [Vec<f64>; 3],
    grad_embeddings: Vec<f64>,
    grad_prototypes: Vec<f64>,
    grad_scale: f64,
    grad_bias: Vec<f64>,
}

impl Results {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let [with_bias, with_sums] = ["grad_bias", "log_sum_exps"].map(|name| file.tensor(name).is_ok());
        let predicted = file.tensor("predicted_classes").is_ok();
        assert_eq!(file.len(), 7 + usize::from(with_bias) + usize::from(with_sums) + 3 * usize::from(predicted));
        let get = |name| {
            let tensor = file.tensor(name).unwrap();
            match tensor.dtype() {
                Dtype::F64 => tensor.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect::<Vec<_>>(),
                Dtype::F32 => tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
                Dtype::I64 => tensor.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
                other => panic!("{name} is {other}"),
            }
        };
        let shape = |name| file.tensor(name).unwrap().shape().to_vec();
        assert_eq!((shape("loss"), shape("row_losses").len()), (vec![], 1));
        assert_eq!((shape("grad_embeddings").len(), shape("grad_scale").len()), (2, 0));
        assert!((2..=3).contains(&shape("grad_prototypes").len()));
        Self {
            dtype: file.tensor("loss").unwrap().dtype(),
            about: serde_json::from_str(&header.metadata().as_ref().unwrap()["evaluate"]).unwrap(),
            loss: get("loss")[0],
            row_losses: get("row_losses"),
            log_sum_exps: if with_sums { get("log_sum_exps") } else { vec![] },
            cosines: [get("target_cosines"), get("other_cosines")].concat(),
            predictions: ["predicted_classes", "predicted_cosines", "predicted_log_probabilities"]
                .map(|name| if predicted { get(name) } else { vec![] }),
            grad_embeddings: get("grad_embeddings"),
            grad_prototypes: get("grad_prototypes"),
            grad_scale: get("grad_scale")[0],
            grad_bias: if with_bias { get("grad_bias") } else { vec![] },
        }
    }

    #[track_caller]
    fn assert_near(&self, expected: &Self, tolerance: f64) {
        let pairs = [
            (&vec![self.loss], &vec![expected.loss]),
            (&self.row_losses, &expected.row_losses),
            (&self.log_sum_exps, &expected.log_sum_exps),
            (&self.cosines, &expected.cosines),
            (&self.predictions[0], &expected.predictions[0]),
            (&self.predictions[1], &expected.predictions[1]),
            (&self.predictions[2], &expected.predictions[2]),
            (&self.grad_embeddings, &expected.grad_embeddings),
            (&self.grad_prototypes, &expected.grad_prototypes),
            (&vec![self.grad_scale], &vec![expected.grad_scale]),
            (&self.grad_bias, &expected.grad_bias),
        ];
        for (found, expected) in pairs {
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(1.0, |most: f64, v| most.max(v.abs()));
            for (found, expected) in found.iter().zip(expected) {
                assert_abs_diff_eq!(*found, *expected, epsilon = tolerance * largest);
            }
        }
    }
}

/// The arguments for every device of this machine.
fn devices() -> Vec<Vec<String>> {
    let own = |arguments: &[&str]| arguments.iter().map(|a| a.to_string()).collect::<Vec<_>>();
    #[allow(unused_mut)]
    let mut devices =
        vec![own(&["--device", "reference"]), own(&["--device", "cpu"]), own(&["--device", "best"]), own(&[])];
    #[cfg(feature = "gpu")]
    for context in margin_softmax::gpu::Context::all() {
        let name = context.name();
        let name = name.split(" (").next().unwrap();
        devices.push(own(&["--adapter", name]));
        for tile in ["direct", "tile_64"] {
            devices.push(own(&["--device", "gpu", "--adapter", name, "--tile", tile, "--budget", "16MiB"]));
        }
    }
    devices
}

fn each_device_and_tile(mut check: impl FnMut(&[&str])) {
    for device in devices() {
        check(&device.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Each run compiles its kernels anew, which takes a software driver seconds but for the smallest tile.
fn each_device(mut check: impl FnMut(&[&str])) {
    each_device_and_tile(|device| {
        if !device.contains(&"--adapter") || device.contains(&"direct") {
            check(device);
        }
    });
}

/// ArcFace on the golden batch.
#[test]
fn every_device_gives_the_golden_values() {
    let place = Place::new(&file(&golden()), ARCFACE);
    let row_losses = vec![0.6893749, 4.920176];
    let expected = Results {
        dtype: Dtype::F32,
        about: Value::Null,
        loss: (row_losses[0] + row_losses[1]) / 2.0,
        row_losses,
        log_sum_exps: vec![7.0970661, 7.1724923],
        cosines: vec![0.9899495, std::f64::consts::FRAC_1_SQRT_2, 0.8, 0.8944272],
        predictions: [
            vec![0.0, 1.0, 1.0, 2.0],
            vec![0.9899495, 0.8, 0.8944272, std::f64::consts::FRAC_1_SQRT_2],
            vec![-0.1978908, -1.7174867, -0.2096520, -1.7082153],
        ],
        grad_embeddings: vec![-0.3821541, 0.2866156, 2.2421232, 1.1210616],
        grad_prototypes: vec![0.5781779, -0.5781779, -0.2816315, 0.0, -0.3809938, -1.1429813],
        // by differences of the loss, computed outside this crate
        grad_scale: 0.3011466,
        grad_bias: vec![],
    };
    each_device_and_tile(|device| {
        let found = place.results(&[device, &["--predictions", "2"]].concat());
        // the second row is nearer to another class than to its own
        assert_eq!(found.about["accuracy"], 0.5);
        assert_eq!(found.about["top_k"], json!({ "count": 2, "accuracy": 1.0 }));
        let reference = device.contains(&"reference");
        assert_eq!(found.dtype, if reference { Dtype::F64 } else { Dtype::F32 });
        // the golden values have seven decimals
        found.assert_near(&expected, if reference { 1e-7 } else { 3e-6 });
    });
}

/// With weights, smoothing, an ignored and a zero row; `sum` and `none` with an upstream gradient.
#[test]
fn every_device_agrees_with_the_reference() {
    let rows = 70;
    let losses = [
        json!({"preset": "cosface"}),
        json!({"target": {"unified": {"m3": 0.35}}, "scale": 16, "focal": 2, "z_loss": 1e-4, "ignore_index": -100}),
        json!({"target": {"unified": {"m2": 0.2, "curve": {"series": {}}}}, "scale": 30, "ignore_index": -100,
            "label_smoothing": 0.1}),
        json!({"target": {"unified": {"m0": 0.7, "m1": 1.35, "m2": 0.3, "m3": 0.1}}, "others": "rectified", "scale": 16,
            "reduction": "sum", "ignore_index": -100}),
        json!({"target": {"unified": {"m2": 0.3}}, "scale": 16, "reduction": "none", "ignore_index": -100}),
    ];
    for loss in losses {
        let mut tensors = large();
        if loss["ignore_index"].is_null() {
            tensors.retain(|t| t.0 != "labels");
            tensors.push(i64s("labels", &[rows], &vec![3; rows]));
        }
        match loss["reduction"].as_str() {
            Some("none") => {
                let up: Vec<f32> = (0..rows).map(|i| i as f32 / 16.0 - 2.0).collect();
                tensors.push(f32s("upstream", &[rows], &up));
            }
            Some("sum") => tensors.push(f32s("upstream", &[1], &[0.125])),
            _ => tensors.push(f32s("divisor", &[1], &[90.0])),
        }
        let place = Place::new(&file(&tensors), &loss.to_string());
        let reference = place.results(&["--device", "reference"]);
        let counts = &reference.about["counts"];
        let ignored = usize::from(!loss["ignore_index"].is_null());
        assert_eq!((&counts["rows"], &counts["ignored"]), (&json!(rows - ignored), &json!(ignored)));
        assert_eq!(counts["zero_embeddings"], 1);
        each_device(|device| place.results(device).assert_near(&reference, 1e-4));
    }
}

/// What a loss may ask for beyond the four tensors: sub-centers, bias, margins of classes and rows, a state.
#[test]
fn every_device_takes_every_input() {
    let (n, c, d, k) = (70, 131, 17, 2);
    let wave = |count: usize, pace: f64| (0..count).map(|i| (i as f64 * pace).sin() as f32).collect::<Vec<_>>();
    let with = |more: Vec<Tensor>| {
        let mut tensors = large();
        tensors.retain(|t| more.iter().all(|m| m.0 != t.0));
        tensors.extend(more);
        tensors
    };
    let up = |count, pace| wave(count, pace).iter().map(|v| 0.3 + 0.1 * v).collect::<Vec<_>>();
    let cases = [
        (with(vec![f32s("prototypes", &[c, k, d], &wave(c * k * d, 2.3))]), "arcface_speaker"),
        (with(vec![f32s("bias", &[c], &wave(c, 0.7))]), "m_softmax"),
        (with(vec![f32s("class_m2", &[c], &up(c, 0.3)), f32s("row_m3", &[n], &up(n, 0.9))]), "arcface_speaker"),
        (with(vec![]), "sphereface2"),
        (with(vec![]), "adaface"),
        (with(vec![]), "curricularface"),
        (with(vec![]), "adacos"),
    ];
    for (tensors, preset) in cases {
        let loss = MarginSoftmax::named(preset).unwrap().with_ignore_index(-100).with_scale(8.0);
        let place = Place::new(&file(&tensors), &serde_json::to_string(&loss).unwrap());
        let state = json!({"classes": c, "step": 7, "seed": 1, "hardness": 0.3, "norm_mean": 2.5,
            "norm_deviation": 0.5, "scale": 6.5});
        fs::write(place.at("state.json"), state.to_string()).unwrap();
        let state = place.at("state.json").into_os_string().into_string().unwrap();
        let reference = place.results(&["--device", "reference", "--state", &state]);
        assert!(reference.loss > 0.0 && reference.grad_scale != 0.0);
        assert_eq!(
            reference.grad_bias.len(),
            [("m_softmax", c), ("sphereface2", 1)].into_iter().find(|p| p.0 == preset).map_or(0, |p| p.1)
        );
        each_device(|device| place.results(&[device, &["--state", &state]].concat()).assert_near(&reference, 1e-4));
        if preset == "adacos" {
            assert_ne!(place.results(&["--device", "reference"]).loss, reference.loss);
        }
        fs::write(&state, r#"{"classes": 3}"#).unwrap();
        refused(&place, &["--device", "cpu", "--state", &state], "missing field");
    }
}

/// Two rows' targets: one row mixes two classes, the other has equal ones, a gap, and no part of its label.
fn soft(classes: Tensor) -> Vec<Tensor> {
    let weights = f32s("soft_weights", &[2, 3], &[0.75, 0.25, 0.0, 0.5, 0.25, 0.25]);
    golden().into_iter().chain([classes, weights]).collect()
}

/// The losses of the separate labels in the golden values' formula, mixed; i32 and i64 give the same file.
#[test]
fn every_device_takes_soft_labels() {
    let classes = [0, 1, 2, 1, 1, -1];
    let tensors = soft(i64s("soft_classes", &[2, 3], &classes));
    let place = Place::new(&file(&tensors), ARCFACE);
    let rows = |labels: [i64; 2]| {
        let place = Place::new(&file(&golden_with(i64s("labels", &[2], &labels))), ARCFACE);
        place.results(&["--device", "reference"]).row_losses
    };
    let (first, second) = (rows([0, 1]), rows([1, 1]));
    let expected = [0.75 * first[0] + 0.25 * second[0], 0.75 * first[1]];
    let reference = place.results(&["--device", "reference"]);
    for (found, expected) in reference.row_losses.iter().zip(expected) {
        assert_abs_diff_eq!(*found, expected, epsilon = 1e-12);
    }
    // Z is the sum of the weights
    assert_abs_diff_eq!(reference.loss, (expected[0] + expected[1]) / 1.75, epsilon = 1e-12);
    each_device(|device| place.results(device).assert_near(&reference, 1e-5));
    assert!(place.run(CPU).stdout.contains(", soft labels"));

    let bytes = |tensors: &[Tensor]| {
        let place = Place::new(&file(tensors), ARCFACE);
        place.results(CPU);
        fs::read(place.at("out.safetensors")).unwrap()
    };
    let narrow = classes.iter().flat_map(|&class| (class as i32).to_le_bytes()).collect();
    let narrow = soft(Tensor("soft_classes", Dtype::I32, vec![2, 3], narrow));
    assert!(bytes(&narrow) == bytes(&tensors));
    // the label alone, and nothing else
    let one = [i64s("soft_classes", &[2, 1], &[0, 2]), f32s("soft_weights", &[2, 1], &[1.0; 2])];
    let one: Vec<Tensor> = golden().into_iter().chain(one).collect();
    assert!(bytes(&one) == bytes(&golden()));
}

#[test]
fn bad_soft_labels_are_refused() {
    let good = soft(i64s("soft_classes", &[2, 3], &[0, 1, 2, 1, 1, -1]));
    let without = |name: &str| good.iter().filter(|t| t.0 != name).cloned().collect::<Vec<_>>();
    let with = |tensor: Tensor| {
        let mut tensors = without(tensor.0);
        tensors.push(tensor);
        tensors
    };
    let many = |count: usize| {
        let classes = i64s("soft_classes", &[2, count], &vec![0; 2 * count]);
        golden().into_iter().chain([classes, f32s("soft_weights", &[2, count], &vec![0.5; 2 * count])]).collect()
    };
    let cases: Vec<(Vec<Tensor>, &str)> = vec![
        (without("soft_classes"), "tensor `soft_classes` is missing: `soft_weights` is there"),
        (without("soft_weights"), "tensor `soft_weights` is missing: `soft_classes` is there"),
        (with(f32s("soft_classes", &[2, 3], &[0.0; 6])), "`soft_classes` is F32 [2, 3], allowed is I64 or I32 [N, T]"),
        (with(i64s("soft_classes", &[6], &[0; 6])), "`soft_classes` is I64 [6], allowed is I64 or I32 [N, T]"),
        (with(i64s("soft_classes", &[3, 2], &[0; 6])), "`soft_classes` has shape [3, 2], expected [2, 2]"),
        (with(f32s("soft_weights", &[2, 2], &[0.5; 4])), "`soft_weights` has shape [2, 2], expected [2, 3]"),
        (with(i64s("soft_classes", &[2, 3], &[0, 1, 2, 1, 3, 0])), "row 1 has label 3, but there are only 3 classes"),
        (with(i64s("soft_classes", &[2, 3], &[0, 1 << 32, 2, 1, 0, 0])), "row 0 has label 4294967296"),
        (with(f32s("soft_weights", &[2, 3], &[0.5, -0.5, 0.0, 0.0, 0.0, 1.0])), "`soft_labels.weights` is -0.5"),
        (many(0), "`soft_labels` is 0, allowed is 1 to 16 targets of a row"),
        (many(17), "`soft_labels` is 17, allowed is 1 to 16 targets of a row"),
    ];
    for (tensors, message) in cases {
        let place = Place::new(&file(&tensors), ARCFACE);
        refused(&place, CPU, message);
        refused(&place, &["--device", "reference"], message);
    }
    let follows = Place::new(&file(&good), r#"{"preset": "curricularface"}"#);
    refused(&follows, CPU, "the other classes of CurricularFace depend on the target");
}

/// f16 and bf16 are widened before anything else: the same bits as their values in f32.
#[test]
fn half_types_are_their_values() {
    let (x, w) = ([3.0, 4.1, -1.0, 2.0], [1.0, 1.0, 0.0, 2.0, -3.3, 1.0]);
    let of = |[x, w]: [Tensor; 2]| {
        let place = Place::new(&file(&[x, w, i64s("labels", &[2], &[0, 2])]), ARCFACE);
        place.results(&["--device", "cpu"])
    };
    let rounded = |round: fn(f32) -> f32| {
        of([f32s("embeddings", &[2, 2], &x.map(round)), f32s("prototypes", &[3, 2], &w.map(round))])
    };
    let [x16, xb16] = halves("embeddings", &[2, 2], &x);
    let [w16, wb16] = halves("prototypes", &[3, 2], &w);
    let (f16s, bf16s) = (of([x16.clone(), w16]), of([xb16, wb16.clone()]));
    assert_eq!(f16s, rounded(|v| f16::from_f32(v).to_f32()));
    assert_eq!(bf16s, rounded(|v| bf16::from_f32(v).to_f32()));
    assert_ne!(f16s.loss, bf16s.loss);
    of([x16, wb16]); // each tensor has its own type
}

/// The whole file, metadata included, is the same every time, and tells how to repeat the run.
#[test]
fn the_file_is_reproducible_and_says_how() {
    let place = Place::new(&file(&golden()), r#"{"preset": "chebyaam_fit"}"#);
    let first = place.results(&["--device", "cpu"]);
    let bytes = fs::read(place.at("out.safetensors")).unwrap();
    place.results(&["--device", "cpu"]);
    assert!(fs::read(place.at("out.safetensors")).unwrap() == bytes);
    assert_eq!(first.about["version"], env!("CARGO_PKG_VERSION"));
    assert!(first.about["device"].as_str().unwrap().contains("CPU"));
    // the short form is written out, and what is written is read again
    fs::write(place.at("loss.json"), first.about["loss"].to_string()).unwrap();
    assert_eq!(place.results(&["--device", "cpu"]), first);
}

/// NaN is loud, counted and no failure.
#[test]
fn a_broken_row_is_reported() {
    let place = Place::new(&file(&golden_with(f32s("embeddings", &[2, 2], &[3.0, f32::NAN, -1.0, 2.0]))), ARCFACE);
    each_device(|device| {
        let out = place.results(device);
        assert!(out.loss.is_nan() && out.row_losses[0].is_nan() && out.row_losses[1].is_finite());
        assert_eq!(out.grad_embeddings[..2], [0.0, 0.0]);
        assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|g| g.is_finite()));
        assert_eq!((&out.about["counts"]["rows"], &out.about["counts"]["non_finite_rows"]), (&json!(1), &json!(1)));
        assert!(place.run(device).stdout.contains("1 counted (0 zero), 0 ignored, 1 non-finite"));
    });
}

/// Empty and smallest batches are batches.
#[test]
fn degenerate_batches_work() {
    let empty = [f32s("embeddings", &[0, 2], &[]), f32s("prototypes", &[1, 2], &[1.0, 2.0]), i64s("labels", &[0], &[])];
    let single =
        [f32s("embeddings", &[1, 1], &[2.0]), f32s("prototypes", &[1, 1], &[-1.0]), i64s("labels", &[1], &[0])];
    for tensors in [&empty, &single] {
        let place = Place::new(&file(tensors), ARCFACE);
        each_device(|device| {
            let out = place.results(device);
            assert_eq!(out.loss, 0.0);
            assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).all(|&g| g == 0.0));
        });
    }
}

/// The table names what was asked for and not used.
#[test]
fn the_table_says_what_happened() {
    let place = Place::new(&file(&golden_with(f32s("class_weights", &[3], &[1.0, 2.0, 0.5]))), ARCFACE);
    let text = place.run(&["--device", "cpu", "--tile", "direct", "--budget", "1 GiB"]).stdout;
    for part in [
        "2 rows, 3 classes, 2 dimensions; embeddings F32, prototypes F32, class weights\n",
        "direct is ignored: this device has no tiles\n",
        "1024 MiB\n",
        "(mean)\n",
        "0 zero, 0 non-finite\n",
        "out.safetensors (",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let text = place.run(&["--device", "reference", "--budget", "12345"]).stdout;
    assert!(text.contains("ignored: the reference keeps everything"), "{text}");
    let text = place.run(&["--device", "cpu", "--budget", "18446744073709551615"]).stdout;
    assert!(text.contains("18446744073709551615 bytes"), "{text}");
    for help in ["--help", "--version"] {
        let Run { code, stdout, stderr } = run(&["evaluate", help]);
        assert!(code == 0 && stdout.contains("evaluate") && stderr.is_empty());
    }
}

/// The guide `parity` shows this file; it is ChebyAAM, every field written out.
#[test]
fn the_documented_loss_parses() {
    let text = include_str!("../examples/evaluate/loss.json");
    let loss = loss::parse(text).unwrap();
    assert_eq!(loss, MarginSoftmax::cheby_aam());
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), serde_json::to_value(&loss).unwrap());
    for preset in PRESETS {
        assert_eq!(loss::parse(&json!({"preset": preset.name}).to_string()).unwrap(), preset.loss());
    }
}

/// The whole losses that the guide `parity` documents in pieces, since their pieces exclude others.
#[test]
fn the_documented_families_parse() {
    for loss in [
        json!({"product": "linear", "target": {"unified": {"m3": 0.5}}}),
        json!({"target": {"angle": {}}, "others": {"angle": {}}}),
        json!({"target": {"power": {}}, "others": {"power": {}}, "link": {"binary": {}}}),
        json!({"adaptive": {"adaface": {"margin": 0.4, "concentration": 0.333, "rate": 0.01}}}),
        json!({"adaptive": {"magface": {"lower_length": 10, "upper_length": 110, "lower_margin": 0.45,
            "upper_margin": 0.8, "weight": 35}}}),
    ] {
        assert_ne!(loss::parse(&loss.to_string()).unwrap(), MarginSoftmax::default());
    }
}

/// Every other value that the guide documents.
#[test]
fn the_documented_values_parse() {
    let with = |pointer: &str, value: Value| {
        let mut loss: Value = serde_json::from_str(include_str!("../examples/evaluate/loss.json")).unwrap();
        *loss.pointer_mut(pointer).unwrap() = value;
        loss::parse(&loss.to_string()).unwrap_or_else(|e| panic!("{pointer}: {e}"))
    };
    let cases = [
        (
            "/others",
            vec![
                json!("identity"),
                json!("rectified"),
                json!("curricular"),
                json!({"angle": {"factor": 0.5, "margin": 0, "offset": 1, "curve": {"series": {}}, "slope": "analytic"}}),
                json!({"top_k": {"count": 5, "margin": 0.06}}),
                json!({"filter": {"threshold": 0.4}}),
                json!({"power": {"exponent": 3, "margin": 0.2, "angular": false, "slope": "analytic"}}),
            ],
        ),
        ("/link", vec![json!("softmax"), json!({"binary": {"weight": 0.7, "factor": 1, "bias": 0}})]),
        (
            "/adaptive",
            vec![
                json!("none"),
                json!("adacos"),
                json!({"elastic": {"cosine": false, "deviation": 0.05, "sorted": false}}),
            ],
        ),
        ("/reduction", vec![json!("mean"), json!("sum"), json!("none")]),
        ("/ignore_index", vec![json!(null), json!(-100), json!(0)]),
        ("/target/unified/slope", vec![json!("analytic"), json!("detached")]),
        (
            "/target/unified/fallback",
            vec![
                json!("continuous"),
                json!("sine"),
                json!("mirror"),
                json!("none"),
                json!({"clip": 0.001}),
                json!("easy"),
            ],
        ),
        ("/target/unified/curve", vec![json!("exact"), json!({"series": {}})]),
        ("/target/unified/curve/series/damping", vec![json!("none"), json!("jackson"), json!("lanczos")]),
        (
            "/target/unified/curve/series/coefficients",
            vec![json!("closed"), json!("fit"), json!({"given": vec![0.25; 31]})],
        ),
    ];
    for (pointer, values) in cases {
        let losses: Vec<_> = values.into_iter().map(|value| with(pointer, value)).collect();
        let same = |a: usize| losses[..a].contains(&losses[a]);
        assert!(!(0..losses.len()).any(same), "two values of {pointer} mean the same");
    }
}

/// One line on stderr, nothing on stdout, exit code 2, no output, no litter; an older output stays.
#[track_caller]
fn refused(place: &Place, more: &[&str], message: &str) {
    for old in [false, true] {
        let out = place.at("out.safetensors");
        if old {
            fs::write(&out, "old").unwrap();
        }
        let before = place.names();
        let Run { code, stdout, stderr } = place.run(more);
        assert_eq!((code, &*stdout), (2, ""), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(message), "`{message}` is not in `{stderr}`");
        assert_eq!(stderr.find('\n'), Some(stderr.len() - 1), "{stderr}");
        assert_eq!(place.names(), before);
        assert!(!old || fs::read(&out).unwrap() == b"old");
    }
    fs::remove_file(place.at("out.safetensors")).unwrap();
}

const CPU: &[&str] = &["--device", "cpu"];

#[test]
fn labels_of_every_integer_type_give_the_same_results() {
    let results = |labels: Tensor, loss: &str| {
        let place = Place::new(&file(&golden_with(labels)), loss);
        let run = place.run(CPU);
        assert_eq!(run.code, 0, "{}", run.stderr);
        fs::read(place.at("out.safetensors")).unwrap()
    };
    let expected = results(i64s("labels", &[2], &[0, 2]), ARCFACE);
    for (element, bytes) in [
        (Dtype::I32, [0, 2].map(i32::to_le_bytes).concat()),
        (Dtype::I16, [0, 2].map(i16::to_le_bytes).concat()),
        (Dtype::I8, [0, 2].map(i8::to_le_bytes).concat()),
        (Dtype::U64, [0, 2].map(u64::to_le_bytes).concat()),
        (Dtype::U32, [0, 2].map(u32::to_le_bytes).concat()),
        (Dtype::U16, [0, 2].map(u16::to_le_bytes).concat()),
        (Dtype::U8, [0, 2].map(u8::to_le_bytes).concat()),
    ] {
        assert_eq!(results(Tensor("labels", element, vec![2], bytes), ARCFACE), expected, "{element}");
    }
    // negative ones keep their sign
    let ignoring = r#"{"target": {"unified": {"m2": 0.5}}, "scale": 8, "ignore_index": -1}"#;
    let expected = results(i64s("labels", &[2], &[0, -1]), ignoring);
    for (element, bytes) in [
        (Dtype::I32, [0, -1].map(i32::to_le_bytes).concat()),
        (Dtype::I16, [0, -1].map(i16::to_le_bytes).concat()),
        (Dtype::I8, [0, -1].map(i8::to_le_bytes).concat()),
    ] {
        assert_eq!(results(Tensor("labels", element, vec![2], bytes), ignoring), expected, "{element}");
    }
}

#[test]
fn bad_tensors_are_refused() {
    let without = |name: &str| golden().into_iter().filter(|t| t.0 != name).collect::<Vec<_>>();
    let f64s = |name| Tensor(name, Dtype::F64, vec![2, 2], vec![0; 32]);
    let [half_weights, _] = halves("class_weights", &[3], &[1.0; 3]);
    let cases = [
        (without("embeddings"), "batch.safetensors: tensor `embeddings` is missing"),
        (without("prototypes"), "tensor `prototypes` is missing"),
        (without("labels"), "tensor `labels` is missing"),
        (vec![], "tensor `embeddings` is missing"),
        (golden_with(f64s("embeddings")), "tensor `embeddings` is F64 [2, 2], allowed is F32 or F16 or BF16 [N, D]"),
        (
            golden_with(f64s("prototypes")),
            "tensor `prototypes` is F64 [2, 2], allowed is F32 or F16 or BF16 [C, D] or [C, K, D]",
        ),
        (
            golden_with(f32s("labels", &[2], &[0.0; 2])),
            "tensor `labels` is F32 [2], allowed is I64 or I32 or I16 or I8 or U64 or U32 or U16 or U8 [N]",
        ),
        (
            golden_with(Tensor("labels", Dtype::U64, vec![2], [0, u64::MAX].map(u64::to_le_bytes).concat())),
            "row 1 has label 18446744073709551615",
        ),
        (golden_with(half_weights), "tensor `class_weights` is F16 [3], allowed is F32 [C]"),
        (golden_with(f32s("embeddings", &[4], &[1.0; 4])), "tensor `embeddings` is F32 [4], allowed"),
        (
            golden_with(f32s("prototypes", &[6], &[1.0; 6])),
            "tensor `prototypes` is F32 [6], allowed is F32 or F16 or BF16 [C, D] or [C, K, D]",
        ),
        (
            golden_with(f32s("prototypes", &[3, 2, 1], &[1.0; 6])),
            "tensor `prototypes` has shape [3, 2, 1], expected [3, 2, 2]: D is that of `embeddings`",
        ),
        (golden_with(f32s("prototypes", &[3, 0, 2], &[])), "`sub_centers` is 0"),
        (golden_with(f32s("bias", &[3], &[1.0; 3])), "bias: only a linear head adds one"),
        (golden_with(f32s("class_m2", &[2], &[0.1; 2])), "`class_m2` has shape [2], expected [3]"),
        (golden_with(f32s("row_m2", &[3], &[0.1; 3])), "`row_m2` has shape [3], expected [2]"),
        (golden_with(f32s("row_m2", &[2], &[0.1, 4.0])), "`m2` is 4, allowed is -pi < m2 < pi (radians)"),
        (golden_with(i64s("labels", &[2, 1], &[0, 1])), "tensor `labels` is I64 [2, 1], allowed is I64 or"),
        (golden_with(f32s("upstream", &[], &[1.0])), "tensor `upstream` is F32 [], allowed is F32 [1 or N]"),
        (
            golden_with(f32s("prototypes", &[2, 3], &[1.0; 6])),
            "tensor `prototypes` has shape [2, 3], expected [2, 2]: D is that of `embeddings`",
        ),
        (
            golden_with(i64s("labels", &[3], &[0, 1, 2])),
            "tensor `labels` has shape [3], expected [2]: N is that of `embeddings`",
        ),
        (golden_with(f32s("class_weights", &[2], &[1.0; 2])), "`class_weights` has shape [2], expected [3]"),
        (golden_with(f32s("upstream", &[2], &[1.0; 2])), "`upstream` has shape [2], expected [1]"),
        (golden_with(f32s("row_weights", &[3], &[1.0; 3])), "`row_weights` has shape [3], expected [2]"),
        (golden_with(f32s("row_weights", &[2], &[1.0, -1.0])), "`row_weights` is -1, allowed"),
        (golden_with(f32s("divisor", &[2], &[1.0; 2])), "`divisor` has shape [2], expected [1]: it is one number"),
        (golden_with(f32s("divisor", &[1], &[0.0])), "`divisor` is 0, allowed is 1e-30 <= divisor <= 1e30"),
        (golden_with(f32s("class_weights", &[3], &[1.0, -1.0, 1.0])), "`class_weights` is -1, allowed"),
        (golden_with(f32s("upstream", &[1], &[f32::NAN])), "`upstream` is NaN, allowed"),
        (golden_with(i64s("labels", &[2], &[0, 3])), "row 1 has label 3, but there are only 3 classes"),
        (golden_with(i64s("labels", &[2], &[-1, 0])), "row 0 has label -1, but there are only 3 classes"),
        (golden_with(i64s("labels", &[2], &[0, i64::MIN])), "row 1 has label -9223372036854775808"),
        (golden_with(f32s("b", &[1], &[1.0])), "unknown tensor `b`; known are: embeddings, prototypes, labels"),
        (golden_with(f32s("two\nlines\u{1b}", &[1], &[1.0])), "unknown tensor `two\\nlines\\u{1b}`"),
        (
            vec![f32s("embeddings", &[2, 0], &[]), f32s("prototypes", &[3, 0], &[]), i64s("labels", &[2], &[0, 0])],
            "`dim` is 0",
        ),
        (
            vec![f32s("embeddings", &[0, 2], &[]), f32s("prototypes", &[0, 2], &[]), i64s("labels", &[0], &[])],
            "`classes` is 0",
        ),
    ];
    for (tensors, message) in cases {
        refused(&Place::new(&file(&tensors), ARCFACE), CPU, message);
    }
    let none = r#"{"reduction": "none"}"#;
    let one = golden_with(f32s("upstream", &[1], &[1.0]));
    refused(&Place::new(&file(&one), none), CPU, "`upstream` has shape [1], expected [2]: N with the reduction `none`");
    for (k, allowed) in [("0", "1 <= k <= 64"), ("4", "no more than there are classes")] {
        let more = [CPU, &["--predictions", k]].concat();
        refused(
            &Place::new(&file(&golden()), ARCFACE),
            &more,
            &format!("`predictions` is {k}, allowed is 1 <= k <= 64"),
        );
        refused(&Place::new(&file(&golden()), ARCFACE), &more, allowed);
    }
    // checked by every device
    let label = Place::new(&file(&golden_with(i64s("labels", &[2], &[0, 3]))), ARCFACE);
    each_device(|device| refused(&label, device, "row 1 has label 3"));
}

#[test]
fn bad_files_are_refused() {
    let good = file(&golden());
    let place = Place::new(&good, ARCFACE);
    let batch = place.at("batch.safetensors");
    let header =
        |text: &str, data: usize| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &vec![0; data]].concat();
    let huge = u64::MAX.to_le_bytes();
    let vast = |i: u64| {
        let size = (1_u64 << 61) - 1;
        let (begin, end) = (i * size, (i + 1) * size);
        format!(r#""{i}": {{"dtype": "U8", "shape": [{size}], "data_offsets": [{begin}, {end}]}}"#)
    };
    let cases = [
        (vec![], "not a safetensors file: header too small"),
        (b"PK".to_vec(), "not a safetensors file: header too small"),
        (b"a text file that is no batch".to_vec(), "not a safetensors file: a header of"),
        (huge.to_vec(), "not a safetensors file: a header of 18446744073709551615 bytes, at most 1048576 are allowed"),
        (header(&" ".repeat((1 << 20) + 1), 0), "not a safetensors file: a header of 1048577 bytes"),
        (good[..20].to_vec(), "not a safetensors file: invalid header length"),
        (good[..good.len() - 1].to_vec(), "not a safetensors file: incomplete metadata, file not fully covered"),
        ([&good[..], &[0]].concat(), "not a safetensors file: incomplete metadata"),
        (header("{", 0), "not a safetensors file: invalid JSON in header"),
        (header("[]", 0), "not a safetensors file: invalid JSON in header"),
        (header(r#"{"labels": {"dtype": "I63", "shape": [1], "data_offsets": [0, 8]}}"#, 8), "I63"),
        (header(r#"{"labels": {"dtype": "I64", "shape": [2], "data_offsets": [0, 8]}}"#, 8), "invalid shape"),
        (header(r#"{"labels": {"dtype": "I64", "shape": [1], "data_offsets": [8, 16]}}"#, 16), "invalid offset"),
        (
            header(r#"{"labels": {"dtype": "I64", "shape": [4294967296, 4294967296], "data_offsets": [0, 8]}}"#, 8),
            "overflow",
        ),
        // eight tensors end at 2^64 - 8: with the header that is more than 64 bits count
        (header(&format!("{{{}}}", (0..8).map(vast).collect::<Vec<_>>().join(", ")), 0), "incomplete metadata"),
    ];
    for (bytes, message) in cases {
        fs::write(&batch, bytes).unwrap();
        refused(&place, CPU, message);
    }
    // a hole: no bytes on the disk, and none is read
    #[cfg(unix)]
    {
        fs::File::options().write(true).open(&batch).unwrap().set_len(input::MAX_BYTES + 1).unwrap();
        refused(&place, CPU, "batch.safetensors: 8589934593 bytes, at most 8589934592 are allowed");
    }
    fs::remove_file(&batch).unwrap();
    refused(&place, CPU, "batch.safetensors: ");
    fs::create_dir(&batch).unwrap();
    refused(&place, CPU, "batch.safetensors: not a regular file");
}

/// A batch whose N·C does not fit is refused before anything is allocated.
#[test]
fn the_reference_refuses_what_it_cannot_hold() {
    let (n, c) = (40_000, 40_000);
    let tensors = [
        f32s("embeddings", &[n, 1], &vec![1.0; n]),
        f32s("prototypes", &[c, 1], &vec![1.0; c]),
        i64s("labels", &[n], &vec![0; n]),
    ];
    refused(&Place::new(&file(&tensors), ARCFACE), &["--device", "reference"], "the reference needs 35 GiB");
}

/// Every truncation and every flipped byte of the header: results or a line, never a panic.
#[test]
fn damaged_files_never_panic() {
    let good = file(&golden());
    let place = Place::new(&good, ARCFACE);
    let code = |bytes: &[u8]| {
        fs::write(place.at("batch.safetensors"), bytes).unwrap();
        place.run(&["--device", "reference"]).code
    };
    for length in 0..good.len() {
        assert_eq!(code(&good[..length]), 2, "{length}");
    }
    let header = good.len() - (4 + 6) * 4 - 2 * 8;
    for at in 0..header {
        for mask in [1, 2, 16, 128] {
            let mut bad = good.clone();
            bad[at] ^= mask;
            assert!([0, 2].contains(&code(&bad)), "{at} {mask}");
        }
    }
}

#[test]
fn bad_losses_are_refused() {
    let cases = [
        ("", "loss.json: EOF while parsing a value at line 1 column 0"),
        ("{\n  \"scale\": 30,\n}", "loss.json: trailing comma at line 3 column 1"),
        (r#"{"scale": 30} x"#, "trailing characters at line 1 column 15"),
        (r#"{"scale": NaN}"#, "expected value at line 1 column 11"),
        (r#"{"scale": 1e999}"#, "number out of range at line 1"),
        (r#"{"scale": "30"}"#, "invalid type: string \"30\", expected f64 at line 1 column 14"),
        (r#"{"scale": 30, "scale": 31}"#, "duplicate field `scale` at line 1"),
        ("{\n  \"margin\": 0.5\n}", "unknown field `margin`, expected one of `target`, `others`, `product`"),
        ("{\n  \"margin\": 0.5\n}", "at line 2 column 10"),
        (r#"{"target": {"unified": {"m4": 1}}}"#, "unknown field `m4`, expected one of `m0`, `m1`"),
        (r#"{"target": {"unified": {"curve": {"series": {"order": 3}}}}}"#, "unknown field `order`"),
        (r#"{"target": {"arcface": {}}}"#, "unknown variant `arcface`, expected one of `unified`, `angle`, `power`"),
        (r#"{"others": "relu"}"#, "unknown variant `relu`, expected one of `identity`, `rectified`"),
        (r#"{"scale": 0}"#, "`scale` is 0, allowed is 0 < scale <= 1e6"),
        (r#"{"label_smoothing": 1}"#, "`label_smoothing` is 1, allowed"),
        (r#"{"target": {"unified": {"m2": 28.6}}}"#, "`m2` is 28.6, allowed is 0 <= m2 < pi (radians)"),
        (r#"{"target": {"unified": {"fallback": {"clip": 0.9}}}}"#, "`fallback.clip` is 0.9, allowed"),
        (r#"{"ignore_index": 4294967296}"#, "`ignore_index` is 4294967296, allowed is an i32"),
        (r#"{"preset": "arcfaec"}"#, "`arcfaec` is not a known loss; known are: normface, cosface, arcface,"),
        (r#"{"preset": "arcface", "scale": 30}"#, "unknown field `scale`, expected `preset` at line 1"),
        (r#"{"preset": "arcface", "preset": "cosface"}"#, "duplicate field `preset`"),
        (r#"{"preset": 5}"#, "invalid type: integer `5`, expected a string at line 1"),
        (r#""arcface""#, "expected an object: a whole loss, or {\"preset\": NAME}"),
        ("[]", "expected an object"),
        (r#"{"target": {"unified": [1, 1, 0.5]}}"#, "`unified` is a list"),
        (r#"{"target": {"unified": []}}"#, "`unified` is a list, expected an object"),
        (r#"{"target": {"unified": {"curve": {"series": [30]}}}}"#, "`series` is a list, expected an object"),
    ];
    let place = Place::new(&file(&golden()), "");
    for (text, message) in cases {
        fs::write(place.at("loss.json"), text).unwrap();
        refused(&place, CPU, message);
    }
    fs::write(place.at("loss.json"), "[".repeat(100_000)).unwrap();
    refused(&place, CPU, "recursion limit exceeded");
    fs::write(place.at("loss.json"), [0xff]).unwrap();
    refused(&place, CPU, "loss.json: invalid utf-8");
    fs::write(place.at("loss.json"), " ".repeat((1 << 20) + 1)).unwrap();
    refused(&place, CPU, "loss.json: 1048577 bytes, at most 1048576 are allowed");
    fs::remove_file(place.at("loss.json")).unwrap();
    refused(&place, CPU, "loss.json: ");
}

#[test]
fn bad_arguments_are_refused() {
    let place = Place::new(&file(&golden()), ARCFACE);
    for text in ["256MB", "MiB", "", "1.5GiB", "-1", "256 MiB x", "0x10", "１"] {
        refused(&place, &["--budget", text], "expected a whole number of bytes, KiB, MiB or GiB, as in 256MiB");
    }
    for text in ["18446744073709551616", "17179869184GiB"] {
        refused(&place, &["--budget", text], "more bytes than 64 bits can count");
    }
    refused(&place, &["--device", "cpu", "--budget", "1"], "the budget is 1");
    refused(&place, &["--tile", "tile_63"], "known are: direct, direct_64, tile_32, tile_64, tile_64_short, tile_128");
    refused(&place, &["--device", "tpu"], "possible values: best, cpu, gpu, reference");
    refused(&place, &["--device", "cpu", "--adapter", "x"], "`--adapter` names a GPU");
    refused(&place, &["--devise", "cpu"], "unexpected argument '--devise' found");
    assert!(
        run(&["evaluate"]).stderr.starts_with("error: the following required arguments were not provided: --input")
    );
    let unknown = ["--device", "gpu", "--adapter", "no such adapter"];
    if cfg!(feature = "gpu") {
        refused(&place, &unknown, "none is called `no such adapter`; found: [");
    } else {
        refused(&place, &unknown, "needs a build with the feature `gpu`");
    }
}

/// An input is never overwritten, a device file never replaced.
#[test]
fn bad_outputs_are_refused() {
    let place = Place::new(&file(&golden()), ARCFACE);
    let at = |name: &str| place.at(name).into_os_string().into_string().unwrap();
    fs::create_dir(place.at("folder")).unwrap();
    let before = place.names();
    let cases = [
        (at("batch.safetensors"), "is an input"),
        (at("folder/../loss.json"), "is an input"),
        (at("folder"), "exists and is not a regular file"),
        (at("nowhere/out"), "its folder does not exist"),
        (at("loss.json/out"), "its folder does not exist"),
        (String::new(), "output"),
        #[cfg(unix)]
        ("/dev/null".into(), "exists and is not a regular file"),
    ];
    for (out, message) in &cases {
        let own = [at("batch.safetensors"), at("loss.json")];
        let run = run(&["evaluate", "--input", &own[0], "--loss", &own[1], "--output", out, "--device", "cpu"]);
        assert_eq!((run.code, &*run.stdout), (2, ""), "{out}");
        assert!(run.stderr.contains(message), "{out}: {}", run.stderr);
        assert_eq!(place.names(), before);
    }
    assert!(fs::read(place.at("batch.safetensors")).unwrap() == file(&golden()));
}

/// A link stays a link, and an output is as readable as any new file.
#[cfg(unix)]
#[test]
fn an_output_is_an_ordinary_file() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let place = Place::new(&file(&golden()), ARCFACE);
    fs::write(place.at("real"), "old").unwrap();
    symlink(place.at("real"), place.at("out.safetensors")).unwrap();
    let out = place.results(CPU);
    assert!(place.at("out.safetensors").is_symlink());
    assert_eq!(Results::read(&place.at("real")), out);
    let mode = |name| fs::metadata(place.at(name)).unwrap().permissions().mode();
    assert_eq!(mode("real"), mode("batch.safetensors"));
}

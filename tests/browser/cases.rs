//! Writes the cases of the browser tests with the f64 reference's answers: `cases.json`, and the numbers in `cases.bin`.
//!
//! ```text
//! cargo run --release --features serde --example browser_cases -- out/browser
//! ```

mod companions;
#[path = "../families/mod.rs"]
mod families;
mod predictions;
mod reports;
mod soft;

use std::{error::Error, fs, path::PathBuf};

use half::{bf16, f16};
use margin_softmax::{objective::*, plan::Element, *};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use self::families::{Family, Suite};

/// Beyond 2⁵³, where JavaScript's numbers have holes.
const SEED: u64 = (1 << 60) + 7;

/// One case: a loss on random data, and how its plan is to be cut.
struct Case {
    name: String,
    loss: MarginSoftmax,
    /// Rows planned, classes, dim, sub-centers.
    shape: [usize; 4],
    /// Rows of the batch, where they are fewer.
    rows: Option<usize>,
    want: Want,
    elements: [Element; 2],
    shards: Option<Vec<usize>>,
    options: Value,
    weights: bool,
    /// Weights of the rows, and a divisor.
    row_weights: bool,
    upstream: bool,
    bias: bool,
    /// Rows per ignored row; 0: none.
    ignored: usize,
    class_margins: [bool; 4],
    row_margins: [bool; 4],
    /// A state in the middle of a run.
    running: bool,
    /// A step in which the state moves.
    training: bool,
    /// Targets of a row beside its label.
    soft: Option<usize>,
    /// The embeddings' share of their prototype: target cosines away from 0.
    pull: f32,
}

impl Case {
    fn new(name: &str, loss: MarginSoftmax, [rows, classes, dim]: [usize; 3]) -> Self {
        Self {
            name: name.into(),
            loss,
            shape: [rows, classes, dim, 1],
            rows: None,
            want: Want::ALL,
            elements: [Element::F32; 2],
            shards: None,
            // compiles fastest
            options: json!({ "tile": "direct" }),
            weights: false,
            row_weights: false,
            upstream: false,
            bias: false,
            ignored: 0,
            class_margins: [false; 4],
            row_margins: [false; 4],
            running: false,
            training: false,
            soft: None,
            pull: 0.0,
        }
    }
}

fn cases() -> Result<Vec<Case>> {
    let named = MarginSoftmax::named;
    let small = [17, 130, 16];
    let arcface = || Case::new("arcface", MarginSoftmax::arcface(), small);
    let mut cases =
        vec![arcface(), Case { pull: 1.0, ..Case::new("arcface_trained", named("arcface")?, [33, 130, 64]) }];
    let listed = |suite| families::on(suite).into_iter();
    let case = |family: Family| Case { pull: 0.5, ..Case::new(family.name, family.loss, small) };
    cases.extend(listed(Suite::Browser).map(case));
    cases.extend(listed(Suite::BrowserRunning).map(|family| Case { running: true, ..case(family) }));
    // a step of what follows the batch, then of what is drawn
    for trains in [families::moves_state, families::draws] {
        let families = listed(Suite::BrowserRunning).chain(listed(Suite::Browser));
        let step = |family: Family| Case { name: format!("train_{}", family.name), training: true, ..case(family) };
        cases.extend(families.filter(|family| trains(&family.loss)).map(step));
    }
    let none = MarginSoftmax::arcface().with_reduction(Reduction::None);
    let sum = MarginSoftmax::cosface().with_reduction(Reduction::Sum).with_label_smoothing(0.3);
    // the lengths of the embeddings lie on both sides of these
    let lengths = MagFace { lower_length: 3.0, upper_length: 4.5, ..MagFace::default() };
    let magface = MarginSoftmax::magface().with_adaptive(Adaptive::MagFace(lengths)).with_ignore_index(-100);
    let magface = magface.with_reduction(Reduction::None);
    let smooth = MarginSoftmax::arcface().with_label_smoothing(0.1);
    let focal = MarginSoftmax::arcface().with_scale(16.0).with_focal(2.0).with_z_loss(1e-3);
    let halves = [Element::F16, Element::F16];
    cases.extend([
        Case { bias: true, want: Want::ALL.with_bias(), ..Case::new("softmax_bias", named("softmax")?, small) },
        Case { bias: true, ..Case::new("m_softmax_odd", named("m_softmax")?, [5, 33, 7]) },
        Case { shape: [17, 50, 16, 3], ..Case::new("sub_centres", MarginSoftmax::arcface(), small) },
        Case { shape: [9, 33, 7, 2], ..Case::new("sub_centres_odd", MarginSoftmax::cheby_aam(), small) },
        Case::new("label_smoothing", smooth, small),
        Case { weights: true, ..Case::new("sum_smoothing_weights", sum, [5, 300, 65]) },
        Case { ignored: 3, ..Case::new("ignore_index", MarginSoftmax::arcface().with_ignore_index(-100), small) },
        Case { weights: true, ..Case::new("class_weights", MarginSoftmax::sphereface(), small) },
        Case { row_weights: true, pull: 1.0, ..Case::new("row_weights_focal_z_loss", focal, small) },
        Case { upstream: true, ..Case::new("upstream", MarginSoftmax::cosface(), small) },
        Case { upstream: true, ..Case::new("upstream_rows", none, small) },
        Case { shards: Some(vec![64, 64, 2]), ..Case::new("three_shards", MarginSoftmax::arcface(), small) },
        Case {
            shards: Some(vec![128, 202]),
            options: json!({ "tile": "direct", "budget": 25_000 }),
            ..Case::new("two_shards_recompute", MarginSoftmax::cheby_aam(), [33, 330, 16])
        },
        Case {
            options: json!({ "tile": "direct", "budget": 100_000 }),
            ..Case::new("recompute", MarginSoftmax::arcface(), [33, 1000, 16])
        },
        Case { rows: Some(11), ..Case::new("fewer_rows", MarginSoftmax::arcface(), [40, 130, 16]) },
        Case { rows: Some(1), upstream: true, ..Case::new("one_row", MarginSoftmax::arcface(), [40, 130, 16]) },
        Case::new("one_by_one", MarginSoftmax::arcface(), [1, 1, 4]),
        Case::new("dim_1", MarginSoftmax::cosface(), [9, 70, 1]),
        Case::new("dim_63", MarginSoftmax::arcface(), [70, 65, 63]),
        Case { elements: halves, ..Case::new("f16", MarginSoftmax::arcface(), small) },
        Case { elements: halves, ..Case::new("f16_odd", MarginSoftmax::arcface(), [5, 33, 7]) },
        Case { elements: [Element::Bf16, Element::F32], ..Case::new("bf16_f32", MarginSoftmax::arcface(), small) },
        Case {
            class_margins: [true, false, true, false],
            row_margins: [false, false, false, true],
            ..Case::new("own_margins", MarginSoftmax::arcface(), small)
        },
        Case { want: Want::ALL.with_scale(), ..Case::new("grad_scale", MarginSoftmax::cheby_aam(), small) },
        Case { want: Want::ALL.with_bias(), ..Case::new("grad_bias", named("sphereface2")?, small) },
        Case { want: Want::LOSS, ..Case::new("loss_only", MarginSoftmax::arcface(), small) },
        Case { want: Want::EMBEDDINGS, ..Case::new("embeddings_only", MarginSoftmax::arcface(), small) },
        Case { want: Want::PROTOTYPES, ..Case::new("prototypes_only", MarginSoftmax::arcface(), small) },
        // what is dropped is far below the tolerance
        Case {
            options: json!({ "tile": "direct", "filter": 1e-10 }),
            ..Case::new("filter", MarginSoftmax::arcface(), small)
        },
        Case {
            options: json!({ "tile": "direct", "work_per_submit": 400_000 }),
            ..Case::new("in_parts", MarginSoftmax::arcface(), [65, 130, 32])
        },
        // what a page gets that asks for nothing: in software direct_64, on a GPU what its maker's preset says
        Case { options: json!({}), ..Case::new("default", MarginSoftmax::arcface(), [64, 1000, 128]) },
        Case { options: json!({ "tile": "tile_64" }), ..Case::new("tile_64", MarginSoftmax::arcface(), [65, 130, 32]) },
        Case { weights: true, upstream: true, ignored: 3, pull: 0.5, ..Case::new("magface_rows", magface, small) },
    ]);
    cases.extend(soft::cases()?);
    Ok(cases)
}

/// The numbers of all cases, one after the other.
#[derive(Default)]
struct Numbers(Vec<u8>);

impl Numbers {
    /// First byte and number of values.
    fn put<T: bytemuck::Pod>(&mut self, values: &[T]) -> Value {
        let at = self.0.len();
        self.0.extend_from_slice(bytemuck::cast_slice(values));
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        json!([at, values.len()])
    }
}

fn normal(rng: &mut impl Rng) -> f32 {
    let (a, b): (f64, f64) = (rng.random_range(1e-12..1.0), rng.random());
    ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}

/// Values as they are stored: rounded, with the bits of a half type.
fn stored(values: Vec<f32>, element: Element) -> (Vec<f32>, Option<Vec<u16>>) {
    let halves = |bits: Vec<u16>, wide: fn(u16) -> f32| (bits.iter().map(|&b| wide(b)).collect(), Some(bits));
    match element {
        Element::F16 => {
            halves(values.iter().map(|&v| f16::from_f32(v).to_bits()).collect(), |b| f16::from_bits(b).to_f32())
        }
        Element::Bf16 => {
            halves(values.iter().map(|&v| bf16::from_f32(v).to_bits()).collect(), |b| bf16::from_bits(b).to_f32())
        }
        _ => (values, None),
    }
}

/// A case with its numbers, as the tests read it.
fn entry(case: &Case, seed: u64, numbers: &mut Numbers) -> Result<Value> {
    let [most, classes, dim, centers] = case.shape;
    let rows = case.rows.unwrap_or(most);
    let shape = Shape::new(most, classes, dim)?.with_sub_centers(centers)?;
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let prototypes: Vec<f32> = (0..classes * centers * dim).map(|_| normal(rng)).collect();
    let (prototypes, prototype_bits) = stored(prototypes, case.elements[1]);
    let mut labels: Vec<i32> = (0..rows).map(|_| rng.random_range(0..classes) as i32).collect();
    let pulled = labels.iter().flat_map(|&y| &prototypes[y as usize * centers * dim..][..dim]);
    let embeddings: Vec<f32> = pulled.map(|w| case.pull * w + normal(rng)).collect();
    let (embeddings, embedding_bits) = stored(embeddings, case.elements[0]);
    if let (Some(index), true) = (case.loss.ignore_index, case.ignored > 0) {
        labels.iter_mut().step_by(case.ignored).for_each(|y| *y = index as i32);
    }
    let mut some = |on: bool, count: usize, range: std::ops::Range<f32>| -> Option<Vec<f32>> {
        on.then(|| (0..count).map(|_| rng.random_range(range.clone())).collect())
    };
    let weights = some(case.weights, classes, 0.2..2.0);
    let row_weights = some(case.row_weights, rows, 0.2..2.0);
    let divisor = case.row_weights.then_some(12.5);
    let per_row = case.loss.reduction == Reduction::None;
    let upstream = some(case.upstream, if per_row { rows } else { 1 }, 0.5..1.5);
    let bias = some(case.bias, classes, -1.0..1.0);
    let ranges = [0.8..1.2, 0.9..1.3, 0.1..0.6, -0.1..0.2];
    let mut margins = |which: [bool; 4], count: usize| -> [Option<Vec<f32>>; 4] {
        std::array::from_fn(|k| some(which[k], count, ranges[k].clone()))
    };
    let (class_margins, row_margins) = (margins(case.class_margins, classes), margins(case.row_margins, rows));
    let soft = case.soft.map(|count| soft::Targets::new(rng, &labels, classes, count));
    let mut state = State::new(&case.loss, shape)?;
    if case.running {
        (state.hardness, state.norm_mean, state.norm_deviation) = (0.25, 3.5, 1.5);
    }

    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let some_wide = |v: &Option<Vec<f32>>| v.as_deref().map(wide);
    let (x, w) = (wide(&embeddings), wide(&prototypes));
    let (weights_wide, upstream_wide, bias_wide) = (some_wide(&weights), some_wide(&upstream), some_wide(&bias));
    let rows_wide = some_wide(&row_weights);
    let by_class = class_margins.each_ref().map(some_wide);
    let by_row = row_margins.each_ref().map(some_wide);
    let batch = Batch {
        embeddings: &x,
        prototypes: &w,
        labels: &labels,
        class_weights: weights_wide.as_deref(),
        row_weights: rows_wide.as_deref(),
        divisor,
        upstream: upstream_wide.as_deref(),
        bias: bias_wide.as_deref(),
        class_margins: Margins::of(&by_class),
        row_margins: Margins::of(&by_row),
        soft_labels: soft.as_ref().map(soft::Targets::wide),
    };
    let first = state;
    let out = match case.training {
        true => reference::train(&case.loss, shape, case.want, &batch, &mut state)?,
        false => reference::evaluate_with(&case.loss, shape, case.want, &batch, &state)?,
    };
    let four = |state: &State| [state.hardness, state.norm_mean, state.norm_deviation, state.scale];
    // three steps of one run, with a seed that no f64 holds
    let mut run = State::new(&case.loss, shape)?.with_seed(SEED);
    let steps = (0..if case.training { 3 } else { 0 })
        .map(|_| Ok(reference::train(&case.loss, shape, case.want, &batch, &mut run)?.loss))
        .collect::<Result<Vec<f64>>>()?;

    let single = Batch {
        embeddings: &embeddings,
        prototypes: &prototypes,
        labels: &labels,
        class_weights: weights.as_deref(),
        row_weights: row_weights.as_deref(),
        divisor: divisor.map(|z| z as f32),
        class_margins: Margins::of(&class_margins),
        row_margins: Margins::of(&row_margins),
        ..Batch::default()
    };
    let report = reports::report(&case.loss, (case.training, &state), &single, &out)?;
    // as a device takes them: four numbers each, NaN for the loss' own
    let quads = |margins: &[Option<Vec<f32>>; 4], count: usize| -> Option<Vec<f32>> {
        let at = |i: usize| margins.iter().map(move |m| m.as_ref().map_or(f32::NAN, |m| m[i]));
        margins.iter().any(Option::is_some).then(|| (0..count).flat_map(at).collect())
    };
    let running = four(&first).map(|v| v as f32);
    let mut optional = |values: Option<&[f32]>| values.map(|v| numbers.put(v));
    let inputs = json!({
        "classWeights": optional(weights.as_deref()),
        "rowWeights": optional(row_weights.as_deref()),
        "divisor": optional(divisor.map(|z| [z as f32]).as_ref().map(|z| &z[..])),
        "upstream": optional(upstream.as_deref()),
        "bias": optional(bias.as_deref()),
        "classMargins": optional(quads(&class_margins, classes).as_deref()),
        "rowMargins": optional(quads(&row_margins, rows).as_deref()),
        "state": optional(case.running.then_some(&running[..])),
        "embeddings": numbers.put(&embeddings),
        "prototypes": numbers.put(&prototypes),
        "labels": numbers.put(&labels),
        "softClasses": soft.as_ref().map(|soft| numbers.put(&soft.classes)),
        "softWeights": soft.as_ref().map(|soft| numbers.put(&soft.weights)),
        "embeddingBits": embedding_bits.map(|bits| numbers.put(&bits)),
        "prototypeBits": prototype_bits.map(|bits| numbers.put(&bits)),
    });
    let moved = four(&state);
    let mut thin = |v: &[f64]| numbers.put(&v.iter().map(|&x| x as f32).collect::<Vec<f32>>());
    let expected = json!({
        "loss": out.loss,
        "rowLosses": thin(&out.row_losses),
        "logSumExps": thin(&out.log_sum_exps),
        "targetCosines": thin(&out.target_cosines),
        "otherCosines": thin(&out.other_cosines),
        "gradEmbeddings": thin(&out.grad_embeddings),
        "gradPrototypes": thin(&out.grad_prototypes),
        "gradScale": thin(if case.want.grad_scale { std::slice::from_ref(&out.grad_scale) } else { &[] }),
        "gradBias": thin(&out.grad_bias),
        "state": thin(if case.training { &moved } else { &[] }),
    });
    Ok(json!({
        "name": case.name,
        "training": case.training,
        "run": { "losses": steps, "state": run, "seed": SEED.to_string() },
        "request": {
            "loss": case.loss,
            "shape": shape,
            "want": case.want,
            "elements": { "embeddings": case.elements[0], "prototypes": case.elements[1] },
            "shards": case.shards,
            "options": case.options,
        },
        "inputs": inputs,
        "expected": expected,
        "normalizer": out.normalizer,
        "counts": reports::counts(&out.counts),
        "report": report,
    }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("the folder to write to is missing")?);
    let mut numbers = Numbers::default();
    let mut entries = vec![];
    for (seed, case) in cases()?.iter().enumerate() {
        entries.push(entry(case, seed as u64, &mut numbers).map_err(|e| format!("{}: {e}", case.name))?);
    }
    let predictions = predictions::entries(&mut numbers)?;
    let companions = companions::entries(&mut numbers)?;
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("cases.json"), serde_json::to_string(&entries)?)?;
    fs::write(folder.join("predictions.json"), serde_json::to_string(&predictions)?)?;
    fs::write(folder.join("companions.json"), serde_json::to_string(&companions)?)?;
    fs::write(folder.join("cases.bin"), &numbers.0)?;
    println!("{} cases, {} of predictions, {} bytes", entries.len(), predictions.len(), numbers.0.len());
    Ok(())
}

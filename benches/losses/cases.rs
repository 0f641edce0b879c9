//! The cases of each table.

use std::rc::Rc;

use half::{bf16, f16};
use margin_softmax::{Backend, Batch, Budget, MarginSoftmax, Options, Output, Want, data::Stored, objective::PRESETS};
use serde_json::{Value, json};

use crate::data::{Data, error};

/// What is timed, and what is known of it.
pub struct Case {
    pub name: String,
    pub facts: Value,
    pub run: Box<dyn FnMut()>,
}

const B: [usize; 3] = [256, 5994, 192];
const LARGE: [usize; 3] = [512, 20_000, 512];
const SMALL: [usize; 3] = [64, 1000, 128];

pub fn sizes([n, c, d]: [usize; 3]) -> String {
    format!("{n}x{c}x{d}")
}

/// Training steps of one head over one batch.
fn steps(data: &Rc<Data>, backend: &Backend, loss: &MarginSoftmax, options: Options, facts: Value) -> Case {
    let exact = data.exact(loss, options.want);
    steps_checked(data, backend, loss, options, facts, &exact)
}

fn steps_checked(
    data: &Rc<Data>,
    backend: &Backend,
    loss: &MarginSoftmax,
    options: Options,
    mut facts: Value,
    exact: &Output<f64>,
) -> Case {
    let shape = data.shape;
    facts["backend"] = json!(backend.name());
    facts["shape"] = json!(sizes([shape.rows(), shape.classes(), shape.dim()]));
    let name =
        facts.as_object().unwrap().values().map(|v| v.to_string().replace('"', "")).collect::<Vec<_>>().join(" ");
    let (mut head, mut out) = (data.head(backend, loss, &options, exact), Output::default());
    let (data, loss) = (data.clone(), loss.clone());
    let mut run = move || head.train_into(&data.batch(&loss), &mut out).unwrap();
    run();
    Case { name, facts, run: Box::new(run) }
}

/// Every preset on the CPU.
pub fn losses() -> Vec<Case> {
    let data = Rc::new(Data::random(B, 1));
    let case = |preset: &margin_softmax::objective::Preset| {
        eprintln!("  {}", preset.name);
        steps(&data, &Backend::cpu(), &preset.loss(), Options::default(), json!({ "loss": preset.name }))
    };
    PRESETS.iter().map(case).collect()
}

/// The loss alone, one gradient, both.
pub fn wants(adapter: Option<&str>) -> Vec<Case> {
    let loss = MarginSoftmax::arcface();
    let mut cases = vec![];
    let shapes = [(B, vec![Backend::cpu()]), (LARGE, vec![Backend::cpu()]), (SMALL, gpus(adapter))];
    for (shape, backends) in shapes.into_iter().filter(|(_, backends)| !backends.is_empty()) {
        let data = Rc::new(Data::random(shape, 1));
        let exact = data.exact(&loss, Want::ALL);
        for backend in backends {
            eprintln!("  {} {}", sizes(shape), backend.name());
            let wants =
                [("loss", Want::LOSS), ("dX", Want::EMBEDDINGS), ("dW", Want::PROTOTYPES), ("dX, dW", Want::ALL)];
            cases.extend(wants.map(|(name, want)| {
                let options = Options { want, ..Options::default() };
                steps_checked(&data, &backend, &loss, options, json!({ "want": name }), &exact)
            }));
        }
    }
    cases
}

/// Prototypes per class.
pub fn centers() -> Vec<Case> {
    let loss = MarginSoftmax::arcface();
    let case = |(classes, centers): (usize, usize)| {
        let data = Rc::new(Data::random([256, classes, 192], centers));
        steps(&data, &Backend::cpu(), &loss, Options::default(), json!({ "centers": centers }))
    };
    [(5994, 1), (5994, 2), (5994, 3), (1000, 1), (1000, 10)].map(case).into()
}

/// Four times the classes, again and again.
pub fn classes() -> Vec<Case> {
    let loss = MarginSoftmax::arcface();
    let mut cases = vec![];
    for classes in [1500, 6000, 24_000, 96_000] {
        eprintln!("  {classes}");
        let data = Rc::new(Data::random([256, classes, 128], 1));
        let exact = data.exact(&loss, Want::ALL);
        // below N·C·4 bytes nothing is kept
        let less = Budget::bytes((256 * classes * 4) as u64 - 1).min(Budget::mib(12));
        for (schedule, budget) in [("keep", Budget::mib(256)), ("recompute", less)] {
            let facts = json!({ "schedule": schedule, "classes": classes });
            let options = Options { budget, ..Options::default() };
            cases.push(steps_checked(&data, &Backend::cpu(), &loss, options, facts, &exact));
        }
    }
    cases
}

/// One budget in KB per layout that this path knows at these shapes, the least first.
pub fn budgets() -> Vec<Case> {
    let loss = MarginSoftmax::arcface();
    let mut cases = vec![];
    for (shape, budgets) in [
        (B, [340, 410, 900, 1700, 3300, 6751, 7100, 268_435]),
        (LARGE, [1300, 1450, 2900, 5600, 14_100, 43_100, 43_700, 268_435]),
    ] {
        let data = Rc::new(Data::random(shape, 1));
        let exact = data.exact(&loss, Want::ALL);
        for budget in budgets.map(|kb| kb * 1000) {
            let options = Options { budget: Budget::bytes(budget), ..Options::default() };
            cases.push(steps_checked(&data, &Backend::cpu(), &loss, options, json!({ "budget": budget }), &exact));
        }
    }
    cases
}

/// Stored embeddings and prototypes of both half types beside f32.
pub fn elements(adapter: Option<&str>) -> Vec<Case> {
    let mut cases = vec![];
    let (random, trained) = (Rc::new(Data::random(B, 1)), Rc::new(Data::trained(B)));
    let both = [&random, &trained].map(|data| (data, data.exact(&MarginSoftmax::arcface(), Want::ALL)));
    cases.push(stored::<f32>("f32", &both));
    cases.push(stored::<f16>("f16", &both));
    cases.push(stored::<bf16>("bf16", &both));
    #[cfg(feature = "gpu")]
    for context in contexts(adapter) {
        use crate::device::on_device;
        eprintln!("  {}", context.name());
        cases.push(on_device::<f32>("f32", &context, &both));
        cases.push(on_device::<f16>("f16", &context, &both));
        cases.push(on_device::<bf16>("bf16", &context, &both));
    }
    #[cfg(not(feature = "gpu"))]
    let _ = adapter;
    cases
}

/// Slices on the CPU, which are widened tile by tile. The errors are those against the f32 inputs that were rounded.
fn stored<T: Stored + Rounded + 'static>(element: &str, both: &[(&Rc<Data>, Output<f64>); 2]) -> Case {
    let loss = MarginSoftmax::arcface();
    let mut errors = vec![];
    let mut head = Backend::cpu().head(&loss, both[0].0.shape).unwrap();
    for (data, exact) in both {
        let rest = Batch { embeddings: &[], prototypes: &[], ..data.batch(&loss) };
        let found = head.evaluate_stored(&T::rounded(&data.x), &T::rounded(&data.w), &rest).unwrap();
        errors.push(gradient_error(element, &found.grad_embeddings, &found.grad_prototypes, exact));
    }
    let (x, w, data) = (T::rounded(&both[0].0.x), T::rounded(&both[0].0.w), both[0].0.clone());
    let run = move || {
        let rest = Batch { embeddings: &[], prototypes: &[], ..data.batch(&loss) };
        head.evaluate_stored(&x, &w, &rest).unwrap();
    };
    element_case(element, &Backend::cpu().name(), &errors, Box::new(run))
}

/// The larger error of the two gradients; more than the rounding of the inputs explains is a wrong result.
pub fn gradient_error(element: &str, dx: &[f32], dw: &[f32], exact: &Output<f64>) -> f64 {
    let off = error(dx, &exact.grad_embeddings).max(error(dw, &exact.grad_prototypes));
    // half an ulp of each value (2^-25, 2^-12, 2^-9), times the scale 64 where it moves a cosine
    let most = match element {
        "f32" => 1e-4,
        "f16" => 64.0 * 2_f64.powi(-12),
        _ => 64.0 * 2_f64.powi(-9),
    };
    assert!(off <= most, "{element}: a gradient is off by {off:e}");
    off
}

pub fn element_case(element: &str, backend: &str, errors: &[f64], mut run: Box<dyn FnMut()>) -> Case {
    run();
    let short = |e: f64| format!("{e:.1e}").parse::<f64>().unwrap();
    let facts = json!({
        "element": element, "backend": backend, "shape": sizes(B),
        "gradient_error": short(errors[0]), "gradient_error_trained": short(errors[1]),
    });
    let name = format!("{element} {backend} error {:.1e} trained {:.1e}", errors[0], errors[1]);
    Case { name, facts, run }
}

/// f32 values in a type of fewer digits.
pub trait Rounded: Sized {
    fn rounded(values: &[f32]) -> Vec<Self>;
}

impl Rounded for f32 {
    fn rounded(values: &[f32]) -> Vec<Self> {
        values.to_vec()
    }
}

impl Rounded for f16 {
    fn rounded(values: &[f32]) -> Vec<Self> {
        values.iter().map(|&v| f16::from_f32(v)).collect()
    }
}

impl Rounded for bf16 {
    fn rounded(values: &[f32]) -> Vec<Self> {
        values.iter().map(|&v| bf16::from_f32(v)).collect()
    }
}

#[cfg(feature = "gpu")]
fn contexts(adapter: Option<&str>) -> Vec<margin_softmax::gpu::Context> {
    let part = adapter.unwrap_or_default().to_lowercase();
    let all = margin_softmax::gpu::Context::all().into_iter();
    let found: Vec<_> = all.filter(|c| c.name().to_lowercase().contains(&part)).collect();
    if found.is_empty() {
        println!("no GPU rows: no adapter answers");
    }
    found
}

#[cfg(feature = "gpu")]
fn gpus(adapter: Option<&str>) -> Vec<Backend> {
    contexts(adapter).into_iter().map(Backend::Gpu).collect()
}

#[cfg(not(feature = "gpu"))]
fn gpus(_: Option<&str>) -> Vec<Backend> {
    println!("no GPU rows: built without the feature `gpu`");
    vec![]
}

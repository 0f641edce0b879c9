//! Agreement with the f64 reference over the whole table.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use libtest_mimic::Failed;
use margin_softmax::{gpu::Context, plan::Layout, *};

use crate::{
    cases::{Case, Data, table},
    rig::{Rig, tight},
};

/// What computes a case.
#[derive(Clone)]
pub enum Device {
    Gpu(Context, Tile),
    Cpu,
}

impl Device {
    pub fn name(&self) -> &'static str {
        match self {
            Device::Gpu(_, tile) => tile.name(),
            Device::Cpu => "cpu",
        }
    }
}

/// All cases of one family.
pub struct Trial {
    family: &'static str,
}

pub fn trials() -> Vec<Trial> {
    let mut families: Vec<&str> = table().iter().map(|c| c.family).collect();
    families.dedup();
    families.into_iter().map(|family| Trial { family }).collect()
}

/// What was compared, for the table at the end.
static COUNTS: Mutex<BTreeMap<(&str, String), [usize; 2]>> = Mutex::new(BTreeMap::new());

fn count(case: &Case, device: &Device, pass: usize) {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    for (axis, value) in [
        ("family", case.family.to_owned()),
        ("fallback", case.fallback().into()),
        ("reduction", case.loss.reduction.name().into()),
        ("tile", device.name().into()),
        ("element", case.element()),
        ("all", String::new()),
    ] {
        counts.entry((axis, value)).or_default()[pass] += 1;
    }
}

pub fn print_counts() {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    if counts.is_empty() {
        return;
    }
    println!("cases that agree with the f64 reference     forward  backward");
    for ((axis, value), [forward, backward]) in counts.iter() {
        println!("  {axis:<10} {value:<30} {forward:>7} {backward:>9}");
    }
}

impl Trial {
    pub fn name(&self, device: &str) -> String {
        format!("agrees_with_the_reference::{}::{device}", self.family)
    }

    pub fn run(&self, device: &Device) -> Result<(), Failed> {
        let mut failures = vec![];
        for case in table().into_iter().filter(|c| c.family == self.family) {
            if let Err(why) = compare(device, &case) {
                failures.push(format!("{}: {why}", case.describe()));
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let (count, first) = (failures.len(), failures.into_iter().take(5).collect::<Vec<_>>().join("\n"));
        Err(format!("{count} cases:\n{first}").into())
    }
}

fn compare(device: &Device, case: &Case) -> Result<(), String> {
    let (n, c, d) = case.shape;
    let shape = Shape::new(n, c, d).unwrap();
    let data = Data::new(case);
    let expected = data.reference(&case.loss, shape);
    let found = match device {
        Device::Gpu(context, tile) => run(context, case, &data, *tile),
        Device::Cpu => run_cpu(case, &data),
    };
    let found = found.map_err(|e| e.to_string())?;

    // the gate: an f32 cosine is off by up to 2e-7, which the scale and the curve's true slope multiply, detached or not
    let curve = case.loss.clone().with_margin(|m| m.slope = Slope::Analytic);
    let rows = || (0..n).filter(|&i| Some(i64::from(data.labels[i])) != case.loss.ignore_index);
    let steepest = rows().map(|i| curve.target_value_slope(expected.target_cosines[i]).1.abs()).fold(1.0, f64::max);
    let gate = 1e-5 + 3e-7 * case.loss.scale * steepest;

    let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
    if !(found.loss.is_finite() && finite(&found.row_losses)) {
        return Err("a loss is not finite".into());
    }
    let mean = relative(found.loss.into(), expected.loss);
    let loose = if case.trained.is_none() && d > 3 { 1e-5 } else { gate };
    // smoothing may bring a loss near 0 as a difference of large numbers; the size of its parts is the measure then
    let size = |i: usize| expected.row_losses[i].abs().max(case.loss.label_smoothing * case.loss.scale);
    let largest = rows().map(size).fold(0.0, f64::max);
    if mean > loose && (f64::from(found.loss) - expected.loss).abs() > loose * largest {
        return Err(format!("loss {} is not {} ({mean:.1e} > {loose:.1e})", found.loss, expected.loss));
    }
    for i in 0..n {
        let error = (f64::from(found.row_losses[i]) - expected.row_losses[i]).abs();
        if error > gate * size(i) {
            let (found, expected) = (found.row_losses[i], expected.row_losses[i]);
            return Err(format!("row loss {i}: {found:e} is not {expected:e}, gate {gate:.1e}"));
        }
    }
    // C = 1 has loss 0: nothing was compared
    if expected.row_losses.iter().any(|&l| l > 0.0) {
        count(case, device, 0);
    }

    for (what, found, expected, vectors) in [
        ("dX", &found.grad_embeddings, &expected.grad_embeddings, &data.embeddings),
        ("dW", &found.grad_prototypes, &expected.grad_prototypes, &data.prototypes),
    ] {
        if found.len() != expected.len() || !finite(found) {
            return Err(format!("{what} is not finite, or not there"));
        }
        let most = expected.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
        // D = 1 has no direction to turn: true gradients vanish, and what is left is measured against the pull
        let shortest =
            vectors.chunks_exact(d).map(|v| v.iter().map(|x| x * x).sum::<f32>().sqrt()).fold(f32::MAX, f32::min);
        let up = data.upstream.as_deref().map_or(1.0, |u| u.iter().fold(0.0, |m: f32, u| m.max(u.abs())));
        let pull = f64::from(up) * case.loss.scale * steepest / f64::from(shortest)
            * if what == "dW" { n as f64 } else { 1.0 };
        let vacuous = gate > 1e-3 || d == 1;
        let unit = if vacuous { pull } else { most };
        let gate = if vacuous { 1e-5 } else { gate };
        let errors = || found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs());
        if let Some((i, error)) = errors().enumerate().find(|(_, e)| *e > gate * unit) {
            let (f, e) = (found[i], expected[i]);
            return Err(format!(
                "{what}[{}, {}]: {f:e} is not {e:e}, {:.1e} > {gate:.1e} of {unit:.1e}",
                i / d,
                i % d,
                error / unit
            ));
        }
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let frobenius = norm(&mut errors()) / norm(&mut expected.iter().copied());
        if !vacuous && most > 0.0 && frobenius > gate {
            return Err(format!("{what} is off by {frobenius:.1e} (Frobenius) > {gate:.1e}"));
        }
    }
    let zero = |g: &[f64]| g.iter().all(|g| *g == 0.0);
    if !zero(&expected.grad_embeddings) && !zero(&expected.grad_prototypes) && d > 1 {
        count(case, device, 1);
    }
    Ok(())
}

fn relative(found: f64, expected: f64) -> f64 {
    if found == expected { 0.0 } else { (found - expected).abs() / expected.abs() }
}

/// Runs a case through plan, tensors and the caller's encoder.
fn run(context: &Context, case: &Case, data: &Data, tile: Tile) -> margin_softmax::Result<Output> {
    let (n, c, d) = case.shape;
    let shape = Shape::new(n, c, d)?;
    let cut = c / case.shards / 64 * 64;
    let mut shards = if cut == 0 { vec![c] } else { vec![cut; case.shards] };
    let rest = c - shards.iter().sum::<usize>();
    *shards.last_mut().unwrap() += rest;
    let layout = Layout { shards: &shards, embeddings: case.elements[0], prototypes: case.elements[1] };
    let mut options = Options { tile: Some(tile), ..Default::default() };
    if case.chunked {
        options.budget = tight(context, &case.loss, shape, &layout, &options);
    }
    let rig = Rig::new(context, &case.loss, shape, &layout, &options, data)?;
    let plan = rig.head.plan();
    assert!(plan.workspace_bytes() <= options.budget.get(), "{}", case.describe());
    if case.chunked && c > 256 {
        assert!(plan.schedule().chunks.len() > 1 && !plan.schedule().keep, "{}", case.describe());
    }
    rig.run(context)
}

/// Runs a case on the CPU path: *keep* or the smallest workspace.
#[cfg(feature = "cpu")]
fn run_cpu(case: &Case, data: &Data) -> margin_softmax::Result<Output> {
    let (n, c, d) = case.shape;
    let shape = Shape::new(n, c, d)?;
    let mut options = Options::default();
    if case.chunked {
        options.budget = Budget::bytes(1);
        if let Err(Error::Budget { needed, .. }) = Backend::cpu().head_with(&case.loss, shape, &options) {
            options.budget = Budget::bytes(needed);
        }
    }
    Backend::cpu().head_with(&case.loss, shape, &options)?.evaluate(&data.batch())
}

#[cfg(not(feature = "cpu"))]
fn run_cpu(_: &Case, _: &Data) -> margin_softmax::Result<Output> {
    Err(Error::Missing { what: "cpu", why: "the feature is off" })
}

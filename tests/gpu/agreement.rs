//! Agreement with the f64 reference over the whole table.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use libtest_mimic::Failed;
use margin_softmax::{data::MarginGradients, gpu::Context, plan::Layout, *};

use crate::{
    cases::{Case, Data, table, table_for},
    families::{self, analytic},
    rig::{Rig, least},
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

    fn table(&self) -> Vec<Case> {
        match self {
            Device::Gpu(_, tile) => table_for(*tile),
            Device::Cpu => table(),
        }
    }
}

/// All cases of one family.
pub struct Trial {
    family: &'static str,
}

/// The families of which the device has a case; all of them without a device.
pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let cases = device.map_or_else(table, Device::table);
    let mut families: Vec<&str> = cases.iter().map(|c| c.family).collect();
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
        for case in device.table().into_iter().filter(|c| c.family == self.family) {
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

pub fn compare(device: &Device, case: &Case) -> Result<(), String> {
    let (n, c, d) = case.shape;
    let data = Data::new(case);
    let (expected, state) = data.expected(case);
    let found = match device {
        Device::Gpu(context, tile) => run(context, case, &data, *tile),
        Device::Cpu => run_cpu(case, &data),
    };
    let (found, found_state) = found.map_err(|e| e.to_string())?;
    for (what, found, expected) in [
        ("hardness", found_state.hardness, state.hardness),
        ("norm_mean", found_state.norm_mean, state.norm_mean),
        ("norm_deviation", found_state.norm_deviation, state.norm_deviation),
        ("scale", found_state.scale, state.scale),
    ] {
        // sums of f32 over few rows
        if (found - expected).abs() > 2e-6 * expected.abs().max(0.1) {
            return Err(format!("the state's {what} is {found}, not {expected}"));
        }
    }

    // the gate: an f32 cosine is off by up to 2e-7, which the scale and the curve's true slope multiply, detached or not;
    // a plain product by that much of both lengths
    let analytic = analytic(&case.loss);
    let largest = families::others(&analytic.others).largest;
    let others = |c: f64| largest.as_ref().map_or_else(|| analytic.others.value_slope(c), |largest| largest(c)).1.abs();
    let rows = || (0..n).filter(|&i| Some(i64::from(data.labels[i])) != case.loss.ignore_index);
    let at = |i: usize| {
        let target = slopes(case, &analytic, &data, i, expected.target_cosines[i]);
        target.max(others(expected.other_cosines[i]))
    };
    let steepest = rows().map(at).fold(1.0, f64::max);
    let longest = |v: &[f32]| {
        v.chunks_exact(d).map(|v| v.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt()).fold(1.0, f64::max)
    };
    let lengths = match case.loss.similarity {
        Similarity::Dot => longest(&data.embeddings) * longest(&data.prototypes),
        Similarity::Cosine => 1.0,
    };
    let scale = match case.loss.adaptive {
        Adaptive::AdaCos => state.scale,
        Adaptive::Length(f) => case.loss.scale * longest(&data.embeddings).clamp(f.lower_length, f.upper_length),
        _ => case.loss.scale,
    };
    // a small focal loss is e^((1 + γ)·d) in the difference d of two logits, and not e^d; the square of a log-sum-exp has twice its
    // error
    let power = (1.0 + case.loss.focal).max(if case.loss.z_loss > 0.0 { 2.0 } else { 1.0 });
    let gate = 1e-5 + 3e-7 * power * scale * steepest * lengths;

    let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
    if !(found.loss.is_finite() && finite(&found.row_losses)) {
        return Err("a loss is not finite".into());
    }
    let mean = relative(found.loss.into(), expected.loss);
    let loose = if case.trained.is_none() && d > 3 { 1e-5 } else { gate };
    // smoothing may bring a loss near 0 as a difference of large numbers; the size of its parts is the measure then
    let size = |i: usize| expected.row_losses[i].abs().max(case.loss.label_smoothing * scale);
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
    if case.loss.link == Link::Softmax {
        let pairs = found.log_sum_exps.iter().zip(&expected.log_sum_exps).enumerate();
        for (i, (&found, &expected)) in pairs {
            let error = (f64::from(found) - expected).abs();
            if error.is_nan() || error > gate * expected.abs().max(1.0) {
                return Err(format!("log-sum-exp {i}: {found:e} is not {expected:e}, gate {gate:.1e}"));
            }
        }
        if found.log_sum_exps.len() != n {
            return Err("the log-sum-exps are not there".into());
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
        let pull = f64::from(up) * scale * steepest / f64::from(shortest) * if what == "dW" { n as f64 } else { 1.0 };
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
    if case.further {
        let up = data.upstream.as_deref().map_or(1.0, |u| u.iter().fold(0.0, |m: f32, u| m.max(u.abs())));
        let weight = data.weights.as_deref().map_or(1.0, |w| w.iter().fold(0.0, |m: f32, w| m.max(*w)));
        let rows = if case.loss.reduction == Reduction::Mean { 1.0 } else { n as f64 };
        // dL/ds and db are sums of differences, each of the size of a cosine (a binary link has one per class)
        let terms = match case.loss.link {
            Link::Softmax => 2.0 * lengths,
            Link::Binary(binary) => 2.0 * binary.factor * (binary.weight + (1.0 - binary.weight) * c as f64),
        };
        let unit = f64::from(up) * f64::from(weight) * rows * terms;
        // where the curve is so steep that the gate says nothing, these sums of cosines are still a thousandth right
        let gate = gate.min(1e-3);
        let pairs = std::iter::once((found.grad_scale, expected.grad_scale));
        let biases = found.grad_bias.iter().copied().zip(expected.grad_bias.iter().copied());
        if found.grad_bias.len() < expected.grad_bias.len() {
            return Err("db is not there".into());
        }
        for (i, (f, e)) in pairs.chain(biases).enumerate() {
            let error = (f64::from(f) - e).abs();
            if error.is_nan() || error > gate * unit.max(e.abs()) {
                return Err(format!(
                    "{} is {f:e}, not {e:e}",
                    if i == 0 { "ds".into() } else { format!("db[{}]", i - 1) }
                ));
            }
        }
    }
    margins_agree(case, &data, &found, &expected, gate)?;
    let zero = |g: &[f64]| g.iter().all(|g| *g == 0.0);
    if !zero(&expected.grad_embeddings) && !zero(&expected.grad_prototypes) && d > 1 {
        count(case, device, 1);
    }
    Ok(())
}

/// The gradients of the margins: within the gate of the sizes of the rows' parts, each margin by itself.
fn margins_agree(case: &Case, data: &Data, found: &Output, expected: &Output<f64>, gate: f64) -> Result<(), String> {
    let Some(margins) = case.want().grad_margins else { return Ok(()) };
    if found.grad_margins.len() != expected.grad_margins.len() || expected.grad_margins.is_empty() {
        return Err("the gradients of the margins are not there".into());
    }
    let (rows, _) = data.expected_of(case, Want::LOSS.with_margins(MarginGradients::Rows));
    let mut sizes = vec![[0.0_f64; 4]; expected.grad_margins.len() / 4];
    let (mut pulled, mut sine) = (0.0, 1.0_f64);
    for (i, row) in rows.grad_margins.chunks_exact(4).enumerate().filter(|(_, row)| row.iter().any(|g| *g != 0.0)) {
        let place = match margins {
            MarginGradients::Sum => 0,
            MarginGradients::Classes => data.labels[i] as usize,
            MarginGradients::Rows => i,
        };
        sizes[place].iter_mut().zip(row).for_each(|(size, g)| *size += g.abs());
        pulled += row[3].abs();
        let x = rows.target_cosines[i];
        sine = sine.min(((1.0 - x) * (1.0 + x)).max(1e-7).sqrt());
    }
    for k in 0..4 {
        let most = sizes.iter().map(|size| size[k]).fold(0.0, f64::max);
        // the derivatives in m1 and m2 change by up to m1·θ/sin θ with a cosine, more than the curve where it is flat
        let bent = if k == 1 || k == 2 { 2e-7 * 8.0 / sine * pulled } else { 0.0 };
        let allowed = gate.min(1e-2) * most + bent;
        let column =
            |place: usize| (f64::from(found.grad_margins[4 * place + k]), expected.grad_margins[4 * place + k]);
        for (place, (f, e)) in (0..sizes.len()).map(|place| (place, column(place))) {
            let error = (f - e).abs();
            if error.is_nan() || error > allowed {
                return Err(format!("dm{k}[{place}] ({margins:?}) is {f:e}, not {e:e} within {allowed:.1e}"));
            }
        }
    }
    Ok(())
}

fn relative(found: f64, expected: f64) -> f64 {
    if found == expected { 0.0 } else { (found - expected).abs() / expected.abs() }
}

/// The steepest slope at a row's target, over the margins that it may have.
fn slopes(case: &Case, loss: &MarginSoftmax, data: &Data, row: usize, x: f64) -> f64 {
    let own = |k: usize, otherwise: f64| {
        let class = data.class_margins[k].as_ref().map(|v| v[data.labels[row].max(0) as usize]);
        data.row_margins[k].as_ref().map(|v| v[row]).or(class).map_or(otherwise, f64::from)
    };
    let mut m2 = vec![None];
    if case.loss.adaptive != Adaptive::None {
        m2.extend([-0.4, 0.2, 0.4, 0.7].map(Some));
    }
    let slope = |m2: Option<f64>| {
        let loss = loss.clone().with_margin(|m| {
            (m.m0, m.m1, m.m3) = (own(0, m.m0), own(1, m.m1), own(3, m.m3));
            m.m2 = m2.unwrap_or(own(2, m.m2));
        });
        loss.target_value_slope(x).1.abs()
    };
    m2.into_iter().map(slope).fold(0.0, f64::max)
}

/// Runs a case through plan, tensors and the caller's encoder.
fn run(context: &Context, case: &Case, data: &Data, tile: Tile) -> margin_softmax::Result<(Output, State)> {
    let (_, c, _) = case.shape;
    let shape = case.shape();
    let cut = c / case.shards / 64 * 64;
    let mut shards = if cut == 0 { vec![c] } else { vec![cut; case.shards] };
    let rest = c - shards.iter().sum::<usize>();
    *shards.last_mut().unwrap() += rest;
    let layout = Layout { shards: &shards, embeddings: case.elements[0], prototypes: case.elements[1] };
    let mut options = Options { tile: Some(tile), want: case.want(), ..Default::default() };
    if case.chunked {
        // an eighth more may hold all cosines of a small case
        let needed = least(context, &case.loss, shape, &layout, &options);
        options.budget = Budget::bytes(needed + needed / 20);
    }
    let mut rig = Rig::new(context, &case.loss, shape, &layout, &options, data)?;
    let plan = rig.head.plan();
    assert!(plan.workspace_bytes() <= options.budget.get(), "{}", case.describe());
    if case.chunked && c > 256 {
        assert!(plan.schedule().chunks.len() > 1 && !plan.schedule().keep, "{}", case.describe());
    }
    let mut state = case.state();
    rig.bound = rig.tensors.bind_state(&rig.head)?;
    rig.bound.set_state(&state)?;
    rig.bound.set_training(case.training);
    let out = rig.run(context)?;
    let [hardness, mean, deviation, scale] = rig.tensors.state.read::<f32>(context)?[..] else { unreachable!() };
    (state.hardness, state.norm_mean, state.norm_deviation) = (hardness.into(), mean.into(), deviation.into());
    state.scale = scale.into();
    Ok((out, state))
}

/// Runs a case on the CPU path: *keep* or the smallest workspace.
#[cfg(feature = "cpu")]
fn run_cpu(case: &Case, data: &Data) -> margin_softmax::Result<(Output, State)> {
    let shape = case.shape();
    let mut options = Options { want: case.want(), ..Default::default() };
    if case.chunked {
        options.budget = Budget::bytes(1);
        if let Err(Error::Budget { needed, .. }) = Backend::cpu().head_with(&case.loss, shape, &options) {
            options.budget = Budget::bytes(needed);
        }
    }
    let mut head = Backend::cpu().head_with(&case.loss, shape, &options)?;
    head.set_state(&case.state())?;
    let out = if case.training { head.train(&data.batch())? } else { head.evaluate(&data.batch())? };
    Ok((out, *head.state()))
}

#[cfg(not(feature = "cpu"))]
fn run_cpu(_: &Case, _: &Data) -> margin_softmax::Result<(Output, State)> {
    Err(Error::Missing { what: "cpu", why: "the feature is off" })
}

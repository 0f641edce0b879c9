//! Plans for arbitrary shapes, devices, budgets and losses: an error or a plan that keeps to its limits, in little time and
//! memory.

#![no_main]

#[path = "../losses.rs"]
mod losses;
#[path = "../memory.rs"]
mod memory;
#[path = "../seeds.rs"]
mod seeds;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use margin_softmax::{
    Budget, CenterLoss, MarginSoftmax, Options, Regularizer, Shape, Tile, Want,
    data::{DevicePreset, GradientFilter, MarginGradients},
    plan::{Batched, Binding, Call, CrossEntropy, Element, Layout, Limits, Plan, Role},
};

const ELEMENTS: [Element; 5] = [Element::F32, Element::F16, Element::Bf16, Element::I32, Element::U32];

/// Small, near a power of two, or anything.
fn size(u: &mut Unstructured) -> Result<u64> {
    Ok(match u.int_in_range(0..=7_u8)? {
        0 => u.arbitrary()?,
        1..4 => {
            let power = 1_u64 << u.int_in_range(0..=40_u8)?;
            power.saturating_add_signed(i64::from(u.arbitrary::<i8>()?) / 16)
        }
        4 => u.arbitrary::<u16>()?.into(),
        _ => u.arbitrary::<u8>()?.into(),
    })
}

fn shape(u: &mut Unstructured) -> Result<Option<Shape>> {
    let shape = Shape::new(size(u)? as usize, size(u)? as usize, size(u)? as usize);
    let centers = if u.ratio(1, 3)? { size(u)? as usize } else { 1 };
    Ok(shape.and_then(|shape| shape.with_sub_centers(centers)).ok())
}

fn limits(u: &mut Unstructured) -> Result<Limits> {
    let mut limits = Limits::WEBGPU;
    let parts: u8 = u.arbitrary()?;
    let has = |bit: u8| parts >> bit & 1 == 1;
    if has(0) {
        limits.max_buffer = size(u)?;
    }
    if has(1) {
        limits.max_binding = size(u)?;
    }
    if has(2) {
        limits.max_groups = size(u)? as u32;
    }
    if has(3) && has(4) {
        (limits.storage_buffers, limits.invocations) = (size(u)? as u32, size(u)? as u32);
        (limits.size_x, limits.alignment) = (size(u)? as u32, size(u)? as u32);
    }
    if has(5) {
        limits.workgroup_bytes = size(u)? as u32;
    }
    (limits.f16, limits.software) = (has(6), has(7));
    Ok(limits)
}

fn options(u: &mut Unstructured) -> Result<Options> {
    let bits: u8 = u.arbitrary()?;
    let has = |bit: u8| bits >> bit & 1 == 1;
    Ok(Options {
        want: Want {
            grad_embeddings: has(0),
            grad_prototypes: has(1),
            grad_scale: has(2),
            grad_bias: has(3),
            grad_margins: (has(1) && has(3)).then(|| MarginGradients::ALL[usize::from(bits) % 3]),
        },
        budget: if has(4) { Budget::bytes(size(u)?) } else { Budget::default() },
        preset: *u.choose(DevicePreset::ALL)?,
        tile: if has(5) { Some(*u.choose(Tile::ALL)?) } else { None },
        work_per_submit: if has(7) { Some(size(u)?) } else { None },
        predictions: None,
        soft_labels: None,
        filter: if has(6) { GradientFilter::new(losses::number(u, 1e-6, 0.1)?).ok() } else { None },
    })
}

fn columns_of(tile: Tile) -> usize {
    match tile {
        Tile::Direct => 32,
        Tile::Direct64 | Tile::Tile32 | Tile::Tile64 | Tile::Tile64Short => 64,
        Tile::Tile128 => 128,
    }
}

/// Shards of this many classes, or of any number.
fn shards(u: &mut Unstructured, shape: Shape, classes: usize, limits: &Limits) -> Result<Vec<usize>> {
    Ok(match u.int_in_range(0..=3_u8)? {
        0 => {
            let own = Shape::new(shape.rows(), classes, shape.dim());
            let own = own.and_then(|own| own.with_sub_centers(shape.sub_centers()));
            match own.map(|own| Plan::shards(own, Element::F32, limits)) {
                Ok(Ok(shards)) => {
                    assert_eq!(shards.iter().sum::<usize>(), classes);
                    let each = 4 * (shape.dim() * shape.sub_centers()) as u64;
                    let bytes = |count: &usize| *count as u64 * each;
                    assert!(shards.iter().map(bytes).all(|b| b <= limits.max_binding.min(limits.max_buffer)));
                    shards
                }
                _ => vec![classes],
            }
        }
        1 => {
            let (mut all, mut left) = (vec![], classes);
            for _ in 0..u.int_in_range(0..=6_u8)? {
                let count = (size(u)? as usize).min(left.saturating_sub(1));
                all.extend((count > 0).then_some(count));
                left -= count;
            }
            all.push(left);
            all
        }
        2 => (0..u.int_in_range(0..=4_u8)?).map(|_| Ok(size(u)? as usize)).collect::<Result<_>>()?,
        _ => vec![classes],
    })
}

/// What every plan promises.
fn check(plan: &Plan, limits: &Limits, loss: Option<&MarginSoftmax>) {
    let most = limits.max_binding.min(limits.max_buffer);
    for buffer in plan.buffers() {
        assert!(buffer.bytes > 0 && buffer.bytes <= most, "{buffer:?}");
    }
    let rows = plan.shape().rows() as u32;
    for step in plan.forward().iter().chain(plan.backward()) {
        let bindings = &plan.kernels()[step.kernel].bindings;
        assert_eq!(step.buffers.len(), bindings.len());
        assert!(bindings.len() <= limits.storage_buffers as usize && step.constants < plan.constants().len());
        // what one dispatch writes it binds once
        for (i, (at, binding)) in step.buffers.iter().zip(bindings).enumerate() {
            assert!(*at < plan.buffers().len());
            let again = step.buffers.iter().skip(i + 1).any(|other| other == at);
            assert!(*binding == Binding::Read || !again, "{} writes a buffer twice", plan.kernels()[step.kernel].name);
        }
        for rows in [0, 1, rows / 2, rows].map(|r| r.min(rows)) {
            if let Some(groups) = step.grid.dispatch(rows, limits.max_groups).expect("planned for these rows") {
                assert!(groups.iter().all(|&g| g >= 1 && g <= limits.max_groups), "{groups:?}");
            }
        }
    }
    if let Some(loss) = loss {
        for (rows, on) in [(0, false), (plan.shape().rows(), true)] {
            let call = Call {
                rows,
                class_weights: on,
                upstream: on,
                accumulate: on.into(),
                row_weights: on,
                soft_labels: false,
                divisor: None,
                class_margins: on,
                row_margins: on,
            };
            plan.settings(loss, &call).expect("the loss that was planned");
        }
    }
}

/// What the bytes stand for, for a person: `MARGIN_SOFTMAX_SHOW=1`.
fn show(case: &dyn std::fmt::Debug) {
    if std::env::var_os("MARGIN_SOFTMAX_SHOW").is_some() {
        eprintln!("{case:?}");
    }
}

fn head(u: &mut Unstructured, shape: Shape, limits: &Limits) -> Result<()> {
    let loss = losses::loss(u)?;
    let options = options(u)?;
    let range = if u.arbitrary()? { 0..shape.classes() } else { size(u)? as usize..size(u)? as usize };
    let shards = shards(u, shape, range.len().clamp(1, shape.classes()), limits)?;
    let layout = Layout { shards: &shards, embeddings: *u.choose(&ELEMENTS)?, prototypes: *u.choose(&ELEMENTS)? };
    show(&(&loss, shape, &range, &layout, limits, &options));
    let Ok(plan) = Plan::shard(&loss, shape, range.clone(), &layout, limits, &options) else { return Ok(()) };
    check(&plan, limits, Some(&loss));
    assert!(plan.workspace_bytes() <= options.budget.get(), "{} bytes", plan.workspace_bytes());
    assert_eq!((plan.shard_sizes(), plan.range()), (shards, range));
    let mut next = 0;
    for chunk in &plan.schedule().chunks {
        assert!(chunk.first == next && chunk.count > 0);
        next += chunk.count;
    }
    assert_eq!(next, plan.range().len());
    Ok(())
}

fn other(u: &mut Unstructured, which: u8, shape: Shape, limits: &Limits) -> Result<()> {
    let (element, tile) = (*u.choose(&ELEMENTS)?, *u.choose(Tile::ALL)?);
    let batched = |u: &mut Unstructured| Ok(Batched::new(size(u)? as usize, shape, [element, *u.choose(&ELEMENTS)?]));
    let backward = u.arbitrary()?;
    // a second each: a few of them are enough
    if which == 4 && shape.classes() > 1 << 17 && !u.ratio(1, 32)? {
        return Ok(());
    }
    show(&(which, shape, limits, element, tile, backward));
    let plan = match which {
        1 => batched(u)?.and_then(|sizes| Plan::cosine(sizes, limits, tile, backward)),
        2 => {
            let loss = losses::loss(u)?;
            let plan = batched(u)?.and_then(|sizes| Plan::margin(&loss, sizes, limits, backward));
            if let Ok(plan) = &plan {
                check(plan, limits, Some(&loss));
            }
            plan
        }
        3 => {
            let options = CrossEntropy { label_smoothing: losses::number(u, 0.0, 1.0)?, ..CrossEntropy::default() };
            batched(u)?.and_then(|sizes| Plan::cross_entropy(&options, sizes, limits, backward))
        }
        4 => {
            let weight = losses::number(u, 0.0, 10.0)?;
            let regularizer = if u.arbitrary()? { Regularizer::reg_ss() } else { Regularizer::uniform_face() };
            Plan::regularizer(&regularizer.with_weight(weight), shape, element, limits)
        }
        5 => Plan::center_loss(&CenterLoss::default(), shape, element, limits),
        6 => Plan::center_update(&CenterLoss::default(), shape, element, limits),
        7 => {
            let shards = shards(u, shape, shape.classes(), limits)?;
            Plan::gather(shape, &Layout { shards: &shards, embeddings: element, prototypes: element }, limits)
        }
        8 => {
            let shards = shards(u, shape, shape.classes(), limits)?;
            Plan::mean_prototype(&shards, shape.dim(), element, limits)
        }
        _ => {
            let right = if u.arbitrary()? { Some(shape.classes()) } else { None };
            let (left, most) = (shape.rows(), size(u)? as usize);
            let columns = right.unwrap_or(left);
            let short = left.div_ceil(32).saturating_mul(columns.div_ceil(32)) / most.max(1) < 2000;
            let listed = if short && columns / 32 < 1 << 20 { usize::MAX } else { 0 };
            let strips: Vec<_> = Plan::strips(tile, left, columns, most).take(listed).collect();
            let mut next = 0;
            for strip in &strips {
                assert_eq!(strip.first, next);
                next += strip.wide * columns_of(tile);
            }
            assert!(strips.is_empty() || next >= columns);
            let Some(&strip) = strips.last() else { return Ok(()) };
            Plan::pairs((left, right), shape.dim(), element, (tile, strip), limits)
        }
    };
    if let Ok(plan) = plan {
        check(&plan, limits, None);
        assert!(plan.buffers().iter().any(|buffer| buffer.role == Role::Workspace) || which == 2 || which == 7);
    }
    Ok(())
}

fuzz_target!(init: seeds::write(seeds::noise), |data: &[u8]| {
    // a kilobyte for each of 65,536 rounds, in lists that grow; the text of the kernels is nothing beside it
    memory::within(192 << 20, || {
        let u = &mut Unstructured::new(data);
        let work = |u: &mut Unstructured| {
            let (which, limits) = (u.int_in_range(0..=17_u8)?, limits(u)?);
            match shape(u)? {
                Some(shape) if which < 10 && which > 0 => other(u, which, shape, &limits),
                Some(shape) => head(u, shape, &limits),
                None => Ok(()),
            }
        };
        // bytes that end too early are no case
        let _ = work(u);
    });
});

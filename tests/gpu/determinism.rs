//! The same bits run after run, for one tile, chunk and split: every kernel in every schedule, every buffer that it writes.
//!
//! Nothing is said here about other tiles or budgets: sums in another order agree to rounding, which other tests hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{Bound, Context, Head, Tensor, monitor::HeadMonitor},
    plan::{Batched, Call, CrossEntropy, Element, Layout, Plan, Role, Slot, kernels},
    shard::{Statistics, Targets},
    *,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    Check,
    cases::{Bent, Case, Data, families, further_families, random},
    rig::{Rig, Tensors, same_output, tight, upload},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("every_kernel_is_rerun_in_every_schedule", every_kernel_is_rerun),
    ("twenty_reruns_give_the_same_bits::direct", |context| heads(context, Tile::Direct)),
    ("twenty_reruns_give_the_same_bits::direct_64", |context| heads(context, Tile::Direct64)),
    ("twenty_reruns_give_the_same_bits::tile_64", |context| heads(context, Tile::Tile64)),
    ("twenty_reruns_give_the_same_bits::tile_128", |context| heads(context, Tile::Tile128)),
    ("twenty_reruns_of_the_pieces_give_the_same_bits", all_pieces),
    ("twenty_reruns_of_shards_give_the_same_bits", shards),
    ("load_changes_no_bit", load),
    ("what_the_workspace_held_changes_no_bit", dirty),
    ("a_used_head_gives_the_bits_of_a_fresh_one", used),
];

const RERUNS: usize = 20;

/// A head: its data, and how the loss is used.
#[derive(Clone)]
struct Spec {
    case: Case,
    filter: Option<f64>,
}

fn spec(family: &'static str, loss: MarginSoftmax) -> Spec {
    let flags = [true, false, false, true];
    // more rows than one tile has, and no whole number of any block; D is no multiple of 4 where the type is a half
    let shape = Shape::new(34, 200, 12).unwrap();
    let unified = matches!(loss.target, Target::Unified(_));
    let fits = |flags: [bool; 4]| if unified { flags } else { [false; 4] };
    let case = Case {
        family,
        weights: true,
        upstream: true,
        ignored: 9,
        bias: loss.product == Product::Linear,
        class_margins: fits(flags),
        row_margins: fits([false, false, false, true]),
        running: true,
        training: true,
        further: true,
        loss: loss.with_ignore_index(-100),
        ..Case::random(shape, 7)
    };
    Spec { case, filter: None }
}

/// As few losses as have every stage, kernel and element between them; all of them in a full run.
fn specs() -> Vec<Spec> {
    let top = Others::TopK(TopK { count: 2, margin: 0.1 });
    let mut scale = spec("scale + top", MarginSoftmax::adacos().with_others(top).with_label_smoothing(0.1));
    scale.case.centers = 2;
    let mut draws = spec("draws + filter", MarginSoftmax::named("elasticface_arc_plus").unwrap());
    draws.filter = Some(1e-4);
    let state = MarginSoftmax::adaface().with_others(Others::Curricular).with_reduction(Reduction::None);
    let mut halves = spec("halves", MarginSoftmax::cheby_aam().with_others(Others::Rectified));
    (halves.case.elements, halves.case.shape.2) = ([Element::F16, Element::Bf16], 11);
    let mut all = vec![
        scale,
        draws,
        halves,
        spec("state", state),
        spec("linear", MarginSoftmax::softmax()),
        spec("binary", MarginSoftmax::sphereface2()),
    ];
    if crate::full() {
        let elements = [[Element::F32; 2], [Element::F16; 2], [Element::Bf16, Element::F32]];
        for (i, (family, loss)) in families().into_iter().chain(further_families()).enumerate() {
            let mut one = spec(family, loss);
            one.case.elements = elements[i % 3];
            one.case.centers = if one.case.bias { 1 } else { 1 + i % 2 };
            one.filter = (i % 4 == 3).then_some(1e-3);
            // a fitted series, like any margin beside m0 and m3, may differ by class; custom curves and powers have none
            all.push(one);
        }
    }
    all
}

/// Those of a tile: between them they have every kernel of a head.
fn specs_of(tile: Tile) -> Vec<Spec> {
    let mut all = specs();
    if !crate::full() {
        let further = match tile {
            Tile::Direct => "binary",
            Tile::Direct64 => "state",
            Tile::Tile64 => "halves",
            Tile::Tile128 => "",
        };
        all.retain(|s| ["scale + top", "draws + filter", "linear", further].contains(&s.case.family));
    }
    all
}

/// How the classes are cut; [`every_kernel_is_rerun`] looks whether they are.
const SCHEDULES: [&str; 7] = [
    "kept in one chunk",
    "kept in several chunks",
    "computed twice in several chunks",
    "computed twice with splits",
    "several shards",
    "several shards computed twice",
    "several slots",
];

/// The case of a schedule, with its plan and shards.
fn planned(context: &Context, spec: &Spec, tile: Tile, schedule: &str) -> Result<(Case, Plan, Vec<usize>)> {
    let mut case = spec.case.clone();
    let filter = spec.filter.map(GradientFilter::new).transpose()?;
    let mut options = Options { want: case.want(), tile: Some(tile), filter, ..Options::default() };
    if schedule == "several slots" {
        // a slot has at least 1024 classes
        (case.shape.0, case.shape.1, options.preset) = (5, 1500, DevicePreset::Portable);
    }
    let shape = case.shape();
    let [x, w] = case.elements;
    let shards =
        if schedule.starts_with("several shards") { vec![128, 1, case.shape.1 - 129] } else { vec![case.shape.1] };
    let layout = Layout { shards: &shards, embeddings: x, prototypes: w };
    let cosines = (shape.rows() * shape.vectors() * 4) as u64;
    let mut limits = *context.limits();
    match schedule {
        "kept in several chunks" => limits.max_binding = cosines / 2,
        "computed twice in several chunks" | "several shards computed twice" => {
            options.budget = tight(context, &case.loss, shape, &layout, &options);
        }
        "computed twice with splits" => {
            let whole = Plan::head(&case.loss, shape, &layout, &limits, &options)?.workspace_bytes();
            options.budget = Budget::bytes(whole - 1);
        }
        _ => {}
    }
    let plan = Plan::head(&case.loss, shape, &layout, &limits, &options)?;
    Ok((case, plan, shards))
}

/// Something to run again: how to record it, what to write before, the buffers to look at after.
struct Subject {
    name: String,
    buffers: Vec<Held>,
    /// Buffer and bytes, written before every run: what a run writes in place begins anew, and outputs hold a pattern.
    reset: Vec<(wgpu::Buffer, u64, Vec<u8>)>,
    state: Option<State>,
    run: Run,
}

struct Held {
    name: &'static str,
    own: bool,
    buffer: wgpu::Buffer,
    bytes: std::ops::Range<u64>,
}

enum Run {
    Head(Box<Rig>, HeadMonitor),
    Piece(Bound),
}

impl Subject {
    fn held(bound: &Bound) -> Vec<Held> {
        let one = |(planned, buffer, bytes): (&plan::Buffer, &wgpu::Buffer, _)| Held {
            name: planned.name,
            own: planned.role == Role::Workspace,
            buffer: buffer.clone(),
            bytes,
        };
        bound.buffers().map(one).collect()
    }

    /// A head that trains and is monitored.
    fn head(context: &Context, spec: &Spec, tile: Tile, schedule: &str) -> Result<Self> {
        let (case, plan, shards) = planned(context, spec, tile, schedule)?;
        let shape = case.shape();
        let layout = Layout { shards: &shards, embeddings: case.elements[0], prototypes: case.elements[1] };
        let head = Head::new(context, &case.loss, plan)?;
        let mut data = Data::new(&case);
        // a row that is not finite, and one of length 0, have paths of their own
        if !matches!(case.elements[0], Element::F16 | Element::Bf16) {
            data.embeddings[2 * shape.dim()] = f32::NAN;
        }
        data.embeddings[shape.dim()..2 * shape.dim()].fill(0.0);
        let tensors = Tensors::new(context, shape, &layout, &data)?;
        let mut bound = tensors.bind_state(&head)?;
        bound.set_training(case.training);
        let monitor = HeadMonitor::new(context, &bound, 16)?;
        let rig = Box::new(Rig { head, bound, tensors });
        let mut buffers = Self::held(rig.bound.bound());
        let result = monitor.result();
        buffers.push(Held { name: "monitor", own: false, buffer: result.buffer().clone(), bytes: 0..result.bytes() });
        let outputs =
            ["loss", "row_losses", "grad_embeddings", "grad_prototypes", "grad_scale", "grad_bias", "monitor"];
        let outputs = buffers.iter().filter(|b| outputs.contains(&b.name));
        let reset = outputs.map(|b| (b.buffer.clone(), b.bytes.start, pattern(&b.bytes))).collect();
        let name = format!("{} {} {schedule}", case.family, tile.name());
        Ok(Self { name, buffers, reset, state: Some(case.state()), run: Run::Head(rig, monitor) })
    }

    /// One run, and what every buffer holds after it.
    fn bits(&mut self, context: &Context) -> Result<Vec<u8>> {
        for (buffer, offset, bytes) in &self.reset {
            context.queue().write_buffer(buffer, *offset, bytes);
        }
        if let (Run::Head(rig, _), Some(state)) = (&mut self.run, &self.state) {
            rig.bound.set_state(state)?;
        }
        let total = self.buffers.iter().map(|b| b.bytes.end - b.bytes.start).sum::<u64>();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let descriptor = wgpu::BufferDescriptor { label: None, size: total, usage, mapped_at_creation: false };
        let all = context.device().create_buffer(&descriptor);
        let mut encoder = context.device().create_command_encoder(&Default::default());
        match &self.run {
            Run::Head(rig, monitor) => {
                rig.bound.record_forward(&mut encoder);
                monitor.record(&mut encoder);
                rig.bound.record_backward(&mut encoder);
            }
            Run::Piece(bound) => bound.record_forward(false, &mut encoder),
        }
        let mut at = 0;
        for held in &self.buffers {
            let bytes = held.bytes.end - held.bytes.start;
            encoder.copy_buffer_to_buffer(&held.buffer, held.bytes.start, &all, at, bytes);
            at += bytes;
        }
        context.queue().submit([encoder.finish()]);
        let words = Tensor::from_buffer(&all, 0, &[(total / 4) as usize], Element::U32)?.read::<u32>(context)?;
        Ok(bytemuck::cast_slice(&words).to_vec())
    }

    /// Fails with the buffer and the place where two runs differ; of the workspace only if `whole`.
    fn same(&self, first: &[u8], again: &[u8], whole: bool) -> Result<(), Failed> {
        let mut at = 0;
        for held in &self.buffers {
            let range = at..at + (held.bytes.end - held.bytes.start) as usize;
            at = range.end;
            let (a, b) = (&first[range.clone()], &again[range]);
            let defined = ["rows", "filtered", "mean", "sums"].contains(&held.name);
            if let (true, Some(i)) = (whole || !held.own || defined, a.iter().zip(b).position(|(a, b)| a != b)) {
                let word = |v: &[u8]| f32::from_ne_bytes(v[i / 4 * 4..][..4].try_into().unwrap());
                return Err(format!("{}: {}[{}]: {} and {}", self.name, held.name, i / 4, word(a), word(b)).into());
            }
        }
        Ok(())
    }

    /// Twenty runs in a row.
    fn rerun(&mut self, context: &Context) -> Result<(), Failed> {
        let first = self.bits(context)?;
        for _ in 1..RERUNS {
            let again = self.bits(context)?;
            self.same(&first, &again, true)?;
        }
        Ok(())
    }

    /// Fills what a run writes before it reads it with NaN.
    fn spoil(&self, context: &Context) {
        // what is never written holds the zeros that it was made with
        for held in self.buffers.iter().filter(|b| b.own && !["labels", "weights"].contains(&b.name)) {
            context.queue().write_buffer(&held.buffer, held.bytes.start, &pattern(&held.bytes));
        }
    }
}

/// NaN, to the last bit.
fn pattern(bytes: &std::ops::Range<u64>) -> Vec<u8> {
    [0xff_u8; 4].repeat(((bytes.end - bytes.start) / 4) as usize)
}

/// A plan beside a head, and what to call it.
struct Piece {
    name: String,
    plan: Plan,
    loss: MarginSoftmax,
}

/// Every plan that is not a head's, with every tile where it has one.
fn pieces(context: &Context) -> Result<Vec<Piece>> {
    let limits = context.limits();
    let mut all = vec![];
    let mut add = |name: String, plan: Plan, loss: &MarginSoftmax| all.push(Piece { name, plan, loss: loss.clone() });
    let plainly = MarginSoftmax::default();
    let half = [Element::F16, Element::Bf16];
    for &tile in Tile::ALL {
        for (elements, shape) in [([Element::F32; 2], Shape::new(34, 70, 20)?), (half, Shape::new(9, 131, 7)?)] {
            for backward in [false, true] {
                let plan = Plan::cosine(Batched::new(2, shape, elements)?, limits, tile, backward)?;
                add(format!("cosine {} {elements:?} backward {backward}", tile.name()), plan, &plainly);
            }
        }
        for right in [None, Some(70)] {
            for strip in Plan::strips(tile, 150, right.unwrap_or(150), 8).into_iter().take(1) {
                let plan = Plan::pairs((150, right), 20, Element::F32, (tile, strip), limits)?;
                add(format!("pairs {} {right:?} {strip:?}", tile.name()), plan, &plainly);
            }
        }
    }
    let cells = Batched::new(2, Shape::new(33, 70, 1)?, [Element::F32; 2])?;
    let bent = Target::Custom(Custom::new(Bent { m0: 0.9, m3: 0.2 }));
    let named = |name| MarginSoftmax::named(name).unwrap();
    for loss in [
        MarginSoftmax::sphereface(),
        MarginSoftmax::cheby_aam().with_others(Others::Rectified),
        named("arcgrad"),
        named("sphereface2_angular"),
        MarginSoftmax { target: bent, ..MarginSoftmax::default() },
    ] {
        for backward in [false, true] {
            add(
                format!("margin {} {backward}", loss.target.name()),
                Plan::margin(&loss, cells, limits, backward)?,
                &loss,
            );
        }
    }
    for reduction in [Reduction::Mean, Reduction::None] {
        let options = CrossEntropy { reduction, label_smoothing: 0.1, ..CrossEntropy::default() };
        let cells = Batched::new(2, Shape::new(33, 1100, 1)?, [Element::F32; 2])?;
        let plan = Plan::cross_entropy(&options, cells, limits, true)?;
        add(format!("cross entropy {}", reduction.name()), plan, &options.loss());
    }
    let shape = Shape::new(100, 290, 33)?;
    for element in [Element::F32, Element::Bf16] {
        let shards = [128, 162];
        let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: element };
        add(format!("gather {element:?}"), Plan::gather(shape, &layout, limits)?, &plainly);
        add(format!("mean prototype {element:?}"), Plan::mean_prototype(&shards, 33, element, limits)?, &plainly);
        for regularizer in [Regularizer::RegSs { weight: 3.0 }, Regularizer::UniformFace { weight: 3.0 }] {
            let plan = Plan::regularizer(&regularizer, shape, element, limits)?;
            add(format!("{regularizer:?} {element:?}"), plan, &regularizer.settings_loss());
        }
        let loss = CenterLoss::default();
        let plan = Plan::center_loss(&loss, shape, element, limits)?;
        add(format!("center loss {element:?}"), plan, &loss.settings_loss());
        let plan = Plan::center_update(&loss, shape, element, limits)?;
        add(format!("center update {element:?}"), plan, &loss.update_settings_loss());
    }
    Ok(all)
}

impl Piece {
    /// Bound to random tensors of its own.
    fn subject(self, context: &Context) -> Result<Subject> {
        let Self { name, plan, loss } = self;
        let rng = &mut ChaCha8Rng::seed_from_u64(name.len() as u64);
        let classes = plan.shape().classes() as i32;
        let mut tensors = vec![];
        for buffer in plan.buffers() {
            let Role::Given(slot) = buffer.role else { continue };
            let is = |element| plan.check_element(slot, element).is_ok();
            let element =
                [Element::I32, Element::F32, Element::F16, Element::Bf16].into_iter().find(|&e| is(e)).unwrap();
            let len = (buffer.bytes / element.bytes()) as usize;
            let tensor = match element {
                Element::I32 => Tensor::upload(
                    context,
                    &[len],
                    &(0..len).map(|_| rng.random_range(0..classes)).collect::<Vec<_>>(),
                )?,
                // cosines, and whatever else is small
                _ if slot == Slot::Cosines => {
                    let values: Vec<f32> = (0..len).map(|_| rng.random_range(-1.0..1.0)).collect();
                    Tensor::upload(context, &[len], &values)?
                }
                _ => upload(context, &[len], &random(rng, len), element),
            };
            tensors.push((slot, tensor));
        }
        let given: Vec<(Slot, &Tensor)> = tensors.iter().map(|(slot, tensor)| (*slot, tensor)).collect();
        let call = Call { rows: plan.shape().rows(), ..Call::default() };
        let bound = Bound::new(context, &plan.into(), &given, &loss, &call)?;
        let mut reset = vec![];
        for (_, tensor) in &tensors {
            let words =
                Tensor::from_buffer(tensor.buffer(), 0, &[(tensor.buffer().size() / 4) as usize], Element::U32)?;
            let bytes = bytemuck::cast_slice(&words.read::<u32>(context)?).to_vec();
            reset.push((tensor.buffer().clone(), 0, bytes));
        }
        Ok(Subject { name, buffers: Subject::held(&bound), reset, state: None, run: Run::Piece(bound) })
    }
}

/// No kernel of the library is missing here, in any schedule; and the schedules are what they are called.
fn every_kernel_is_rerun(context: &Context) -> Result<(), Failed> {
    let names = |plan: &Plan| plan.kernels().iter().map(|k| k.name).collect::<Vec<_>>();
    let mut found: BTreeSet<&str> = ["monitor"].into();
    let mut by_schedule: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for &tile in Tile::ALL {
        for spec in specs_of(tile) {
            for schedule in SCHEDULES {
                let (case, plan, _) = planned(context, &spec, tile, schedule)?;
                let cut = plan.schedule();
                let wrong = || Err(format!("{} {}: {schedule}: {cut:?}", case.family, tile.name()).into());
                let kept = !schedule.contains("twice");
                let chunks = match schedule {
                    "kept in one chunk" | "several slots" => 1..2,
                    "several shards" => 3..4,
                    _ => 2..usize::MAX,
                };
                let splits = schedule.contains("splits") || schedule == "several shards" || schedule.ends_with("slots");
                let shards = plan.shard_sizes().len();
                if cut.keep != kept
                    || !chunks.contains(&cut.chunks.len())
                    || (cut.splits < 2) && splits
                    || (cut.slots > 1) != (schedule == "several slots")
                    || (shards > 1) != schedule.starts_with("several shards")
                {
                    return wrong();
                }
                found.extend(names(&plan));
                by_schedule.entry((tile.name(), schedule)).or_default().extend(names(&plan));
            }
        }
    }
    let heads = found.clone();
    for (at, own) in &by_schedule {
        let missing: Vec<_> = heads.difference(own).filter(|name| **name != "monitor").collect();
        assert!(missing.is_empty(), "{at:?} lacks {missing:?}");
    }
    pieces(context)?.iter().for_each(|piece| found.extend(names(&piece.plan)));
    let all: BTreeSet<&str> = kernels::all().iter().map(|(_, kernel)| kernel.name).collect();
    assert_eq!(found, all);
    Ok(())
}

fn heads(context: &Context, tile: Tile) -> Result<(), Failed> {
    for spec in specs_of(tile) {
        for schedule in SCHEDULES {
            Subject::head(context, &spec, tile, schedule)?.rerun(context)?;
        }
    }
    Ok(())
}

fn all_pieces(context: &Context) -> Result<(), Failed> {
    for piece in pieces(context)? {
        piece.subject(context)?.rerun(context)?;
    }
    Ok(())
}

/// What shards exchange, and what they answer.
fn shards(context: &Context) -> Result<(), Failed> {
    for spec in specs() {
        let Case { loss, centers, .. } = &spec.case;
        let case = Case { elements: [Element::F32; 2], shape: (30, 200, 12), ..spec.case.clone() };
        let data = Data::new(&case);
        let run = || -> Result<(Vec<Targets>, Vec<Statistics>, Vec<Output>, Vec<State>)> {
            let options = Options { want: case.want(), ..Options::default() };
            let mut heads = vec![];
            for range in [0..70, 70..200] {
                let vectors = range.start * centers * 12..range.end * centers * 12;
                let bias = data.bias.as_ref().map(|b| &b[range.clone()]);
                let batch = Batch { prototypes: &data.prototypes[vectors], bias, ..data.batch() };
                let mut head = Backend::Gpu(context.clone()).shard(loss, case.shape(), range, &options)?;
                head.set_state(&case.state())?;
                heads.push((head, batch));
            }
            let targets = heads.iter_mut().map(|(head, batch)| head.targets(batch)).collect::<Result<Vec<_>>>()?;
            let all = Targets::merged(&targets, 200)?;
            heads.iter_mut().try_for_each(|(head, batch)| head.follow(batch, &all))?;
            let sums =
                heads.iter_mut().map(|(head, batch)| head.statistics(batch, &all)).collect::<Result<Vec<_>>>()?;
            let merged = Statistics::merged(&sums, 200)?;
            let outs =
                heads.iter_mut().map(|(h, batch)| h.gradients(batch, &all, &merged)).collect::<Result<Vec<_>>>()?;
            Ok((targets, sums, outs, heads.iter().map(|(head, _)| *head.state()).collect()))
        };
        let first = run()?;
        for _ in 1..RERUNS {
            let again = run()?;
            assert!(first.0 == again.0 && first.1 == again.1 && first.3 == again.3, "{}", case.family);
            first.2.iter().zip(&again.2).try_for_each(|(a, b)| same_output(a, b))?;
        }
    }
    Ok(())
}

/// Busy cores, and another head at work on the same device: from its own thread, and in the same submits.
fn load(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(40, 260, 16)?;
    let other = Rig::plain(context, &MarginSoftmax::arcface(), shape, &Data::random(shape, 3))?;
    let between = Rig::plain(context, &MarginSoftmax::arcface(), shape, &Data::random(shape, 4))?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut x = 1.0_f64;
                while !done.load(Ordering::Relaxed) {
                    x = std::hint::black_box((x * 1.000_1).sin() + 1.0);
                }
            });
        }
        let ended = &done;
        scope.spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                other.run(context).unwrap();
            }
        });
        let outcome = (|| {
            for (i, spec) in specs().into_iter().take(2).enumerate() {
                for (j, schedule) in SCHEDULES.into_iter().enumerate() {
                    let tile = Tile::ALL[(i + j) % Tile::ALL.len()];
                    let mut subject = Subject::head(context, &spec, tile, schedule)?;
                    let first = subject.bits(context)?;
                    for _ in 1..RERUNS {
                        let mut encoder = context.device().create_command_encoder(&Default::default());
                        between.record(&mut encoder);
                        context.queue().submit([encoder.finish()]);
                        let again = subject.bits(context)?;
                        subject.same(&first, &again, true)?;
                    }
                }
            }
            Ok(())
        })();
        done.store(true, Ordering::Relaxed);
        outcome
    })
}

/// Every spec and every schedule, each with some of the other and with all tiles in turn.
fn rotated() -> Vec<(Spec, Tile, &'static str)> {
    let mut all = vec![];
    for tile in Tile::ALL {
        for (i, spec) in specs_of(*tile).into_iter().enumerate() {
            let own = SCHEDULES.into_iter().enumerate().filter(|(j, _)| crate::full() || (i + j).is_multiple_of(2));
            all.extend(own.map(|(_, schedule)| (spec.clone(), *tile, schedule)));
        }
    }
    all
}

/// NaN in all that a run should write before it reads it.
fn dirty(context: &Context) -> Result<(), Failed> {
    let mut subjects = vec![];
    for (spec, tile, schedule) in rotated() {
        subjects.push(Subject::head(context, &spec, tile, schedule)?);
    }
    for piece in pieces(context)? {
        subjects.push(piece.subject(context)?);
    }
    for mut subject in subjects {
        let clean = subject.bits(context)?;
        for _ in 0..2 {
            subject.spoil(context);
            let again = subject.bits(context)?;
            subject.same(&clean, &again, false)?;
        }
    }
    Ok(())
}

/// Another batch, and fewer rows, between two runs; and a second head made from the same numbers.
fn used(context: &Context) -> Result<(), Failed> {
    for (spec, tile, schedule) in rotated() {
        let mut subject = Subject::head(context, &spec, tile, schedule)?;
        let first = subject.bits(context)?;
        let Run::Head(rig, _) = &mut subject.run else { unreachable!() };
        let (x, w, y) = (rig.tensors.x.clone(), rig.tensors.w[0].clone(), rig.tensors.y.clone());
        let loss = spec.case.loss.clone();
        let rows = rig.head.plan().shape().rows();
        let mut held = vec![];
        for tensor in [&x, &w, &y] {
            let words =
                Tensor::from_buffer(tensor.buffer(), 0, &[(tensor.buffer().size() / 4) as usize], Element::U32)?;
            held.push((words.clone(), words.read::<u32>(context)?));
        }
        // every vector a little shorter in some values, every label the one of the row before
        let [x, w, y] = &held[..] else { unreachable!() };
        for ((words, values), mask) in [(x, 0xfbff_ffff), (w, 0xfbff_ffff)] {
            words.write(context, &values.iter().map(|v| v & mask).collect::<Vec<u32>>())?;
        }
        let mut turned = y.1.clone();
        turned[..rows].rotate_right(1);
        y.0.write(context, &turned)?;
        rig.bound.update(&loss.clone().with_scale(loss.scale * 0.5), rows - 2)?;
        let other = subject.bits(context)?;
        assert!(other != first, "{}: the batch between is the same", subject.name);
        held.iter().try_for_each(|(words, values)| words.write(context, values))?;
        let Run::Head(rig, _) = &mut subject.run else { unreachable!() };
        rig.bound.update(&loss, rows)?;
        let again = subject.bits(context)?;
        subject.same(&first, &again, false)?;
        let mut fresh = Subject::head(context, &spec, tile, schedule)?;
        let fresh = fresh.bits(context)?;
        subject.same(&first, &fresh, true)?;
    }
    Ok(())
}

//! The same bits run after run, for one tile, chunk and split: every kernel in every schedule, every buffer that it writes.
//!
//! Other tiles and budgets are not compared: sums in another order agree to rounding, which other tests check.

mod subject;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use libtest_mimic::Failed;
use margin_softmax::{
    data::DevicePreset,
    data::GradientFilter,
    gpu::{Context, Tensor},
    objective::{MvSoftmax, TopK},
    plan::{Element, Layout, Plan, catalogue::kernels},
    shard::{Statistics, Targets},
    *,
};

use self::subject::{Run, Subject, pieces};
use crate::{
    Check,
    cases::{Case, Data},
    families::{self, Suite},
    rig::{Rig, same_output, tight},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("determinism::every_kernel_is_rerun_in_every_schedule", every_kernel_is_rerun),
    ("determinism::reruns_give_the_same_bits::direct", |context| heads(context, Tile::Direct)),
    ("determinism::reruns_give_the_same_bits::direct_64", |context| heads(context, Tile::Direct64)),
    ("determinism::reruns_give_the_same_bits::tile_64", |context| heads(context, Tile::Tile64)),
    ("determinism::reruns_give_the_same_bits::tile_128", |context| heads(context, Tile::Tile128)),
    ("determinism::reruns_give_the_same_bits::tile_coop", |context| {
        crate::tiles(context).filter(|tile| tile.geometry().units.is_some()).try_for_each(|tile| heads(context, tile))
    }),
    ("determinism::reruns_of_the_pieces_give_the_same_bits", all_pieces),
    ("determinism::reruns_of_shards_give_the_same_bits", shards),
    ("determinism::load_changes_no_bit", load),
    ("determinism::what_the_workspace_held_changes_no_bit", dirty),
    ("determinism::a_used_head_gives_the_bits_of_a_fresh_one", used),
];

/// Runs of each subject: 20 in a full run. Two differ as soon as anything depends on timing; the rest is patience.
fn runs() -> usize {
    if crate::full() { 20 } else { 3 }
}

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
    let fits = |flags: [bool; 4]| if families::takes_margins(&loss) { flags } else { [false; 4] };
    let case = Case {
        family,
        weights: true,
        upstream: true,
        ignored: 9,
        bias: families::is_linear(&loss),
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

/// As few losses as have every stage, kernel and element between them.
fn specs() -> Vec<Spec> {
    let top = Others::TopK(TopK { count: 2, margin: 0.1 });
    let mut scale = spec("scale + top", MarginSoftmax::adacos().with_others(top).with_label_smoothing(0.1));
    scale.case.centers = 2;
    let harder = Others::MvSoftmax(MvSoftmax::default());
    let mut draws = spec("draws + filter", MarginSoftmax::named("elasticface_arc_plus").unwrap().with_others(harder));
    draws.filter = Some(1e-4);
    let state = MarginSoftmax::adaface().with_others(Others::Curricular).with_reduction(Reduction::None);
    let mut halves = spec("halves", MarginSoftmax::cheby_aam().with_others(Others::Rectified));
    (halves.case.elements, halves.case.shape.2) = ([Element::F16, Element::Bf16], 11);
    // the gradients of the margins by class, as that of `scale`, and their sum
    let mut linear = spec("linear", MarginSoftmax::softmax());
    linear.case.seed = 6;
    vec![scale, draws, halves, spec("state", state), linear, spec("binary", MarginSoftmax::sphereface2())]
}

/// Those of a tile: between them they have every kernel of a head. In a full run all of them, and with the tile that compiles
/// fastest every family.
fn specs_of(tile: Tile) -> Vec<Spec> {
    let mut all = specs();
    if !crate::full() {
        let further = match tile {
            Tile::Direct => "binary",
            Tile::Direct64 => "state",
            Tile::Tile64 => "halves",
            _ => "",
        };
        all.retain(|s| ["scale + top", "draws + filter", "linear", further].contains(&s.case.family));
    } else if tile == Tile::Direct {
        let elements = [[Element::F32; 2], [Element::F16; 2], [Element::Bf16, Element::F32]];
        let further = families::turns().into_iter().map(|(family, _)| family);
        for (i, family) in families::on(Suite::Grid).into_iter().chain(further).enumerate() {
            let mut one = spec(family.name, family.loss);
            one.case.elements = elements[i % 3];
            one.case.centers = if one.case.bias { 1 } else { 1 + i % 2 };
            one.filter = (i % 4 == 3).then_some(1e-3);
            // a fitted series, like any margin beside m0 and m3, may differ by class; custom curves and powers have none
            all.push(one);
        }
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
            // fewer splits keep the cosines in a little less
            let mut plan = Plan::head(&case.loss, shape, &layout, &limits, &options)?;
            while plan.schedule().keep {
                options.budget = Budget::bytes(plan.workspace_bytes() - 1);
                plan = Plan::head(&case.loss, shape, &layout, &limits, &options)?;
            }
        }
        _ => {}
    }
    let plan = Plan::head(&case.loss, shape, &layout, &limits, &options)?;
    Ok((case, plan, shards))
}

/// No kernel of the library is missing here, in any schedule; and the schedules are what they are called.
fn every_kernel_is_rerun(context: &Context) -> Result<(), Failed> {
    let names = |plan: &Plan| plan.kernels().iter().map(|k| k.name).collect::<Vec<_>>();
    let mut found: BTreeSet<&str> = ["monitor"].into();
    let mut by_schedule: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for tile in crate::tiles(context) {
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
    found.extend(crate::soft_labels::kernels_run_again(context)?);
    let all: BTreeSet<&str> = kernels().iter().map(|(_, kernel)| kernel.name).collect();
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

/// Of each shard.
type Answers = (Vec<Targets>, Vec<Statistics>, Vec<Output>, Vec<State>);

/// What shards exchange, and what they answer.
fn shards(context: &Context) -> Result<(), Failed> {
    for spec in specs() {
        let Case { loss, centers, .. } = &spec.case;
        let case = Case { elements: [Element::F32; 2], shape: (30, 200, 12), ..spec.case.clone() };
        let data = Data::new(&case);
        let run = || -> Result<Answers> {
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
        for _ in 1..runs() {
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
            let (losses, apart) = if crate::full() { (2, 1) } else { (1, 3) };
            let tiles: Vec<Tile> = crate::tiles(context).collect();
            for (i, spec) in specs().into_iter().take(losses).enumerate() {
                for (j, schedule) in SCHEDULES.into_iter().enumerate().step_by(apart) {
                    let tile = tiles[(i + j) % tiles.len()];
                    let mut subject = Subject::head(context, &spec, tile, schedule)?;
                    let first = subject.bits(context)?;
                    for _ in 1..runs() {
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

/// Every spec and every schedule, each with some of the other; with all tiles in a full run.
fn rotated(context: &Context) -> Vec<(Spec, Tile, &'static str)> {
    let mut all = vec![];
    for tile in crate::tiles(context).filter(|&tile| crate::full() || tile == Tile::Direct) {
        for (i, spec) in specs_of(tile).into_iter().enumerate() {
            let own = SCHEDULES.into_iter().enumerate().filter(|(j, _)| crate::full() || (i + j).is_multiple_of(2));
            all.extend(own.map(|(_, schedule)| (spec.clone(), tile, schedule)));
        }
    }
    all
}

/// NaN in all that a run should write before it reads it.
fn dirty(context: &Context) -> Result<(), Failed> {
    let mut subjects = vec![];
    for (spec, tile, schedule) in rotated(context) {
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
    for (spec, tile, schedule) in rotated(context) {
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

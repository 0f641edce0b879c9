//! How the planner cuts a head: tiles and chunks by estimates, dispatches and submits by a bound on their work; no device.

#[allow(dead_code)] // the bench prints more of it
#[path = "fill.rs"]
mod fill;

use margin_softmax::{
    Budget, Error, MarginSoftmax, Options, Reduction, Shape, Tile, Want,
    data::{DevicePreset, GradientFilter},
    plan::{Element, Layout, Limits, Plan},
};

/// A desktop GPU's.
const WIDE: Limits = Limits { max_buffer: 1 << 40, max_binding: (1 << 31) - 4, ..Limits::WEBGPU };

/// The kernels that run once or more in each round.
const ROUND: [&str; 10] = [
    "cosines",
    "row_stats",
    "select_top_k",
    "grad_cosines",
    "filter_totals",
    "list_classes",
    "list_rows",
    "grad_embeddings",
    "grad_prototypes",
    "grad_bias",
];

fn shape(n: usize, c: usize, d: usize) -> Shape {
    Shape::new(n, c, d).unwrap()
}

fn plan(loss: &MarginSoftmax, shape: Shape, limits: &Limits, options: &Options) -> Result<Plan, Error> {
    let shards = Plan::shards(shape, Element::F32, limits)?;
    let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
    Plan::head(loss, shape, &layout, limits, options)
}

fn count(plan: &Plan, names: &[&str]) -> usize {
    plan.steps().filter(|step| names.contains(&plan.kernels()[step.kernel].name)).count()
}

/// The tile of the preset for desktop GPUs is the one that fills 132 and 46 cores best; on 10 cores, of which no adapter tells,
/// it loses at most a tenth.
#[test]
fn desktop_tiles_fill_the_cores_best() {
    for (sizes, expected) in [((512, 85_742, 512), Tile::Tile128), ((256, 5_994, 192), Tile::Tile64)] {
        let shape = shape(sizes.0, sizes.1, sizes.2);
        let filled = |tile, cores| {
            let options =
                Options { preset: DevicePreset::Desktop, tile, budget: Budget::mib(1024), ..Options::default() };
            let plan = plan(&MarginSoftmax::arcface(), shape, &WIDE, &options).unwrap();
            (plan.schedule().tile, fill::fill(&plan, cores).unwrap().all)
        };
        for (cores, loss) in [(132, 1.0), (46, 1.0), (10, 0.9)] {
            let (chosen, own) = filled(None, cores);
            assert_eq!(chosen, expected, "{shape:?}");
            for tile in [Tile::Tile32, Tile::Tile64, Tile::Tile128] {
                let other = filled(Some(tile), cores).1;
                assert!(own >= loss * other, "{shape:?}, {cores} cores: {own:.2}, and {other:.2} with {tile:?}");
            }
        }
    }
}

/// A million classes take few dispatches where launches are dear, and stay in the cache where memory is.
#[test]
fn chunks_cost_the_least_of_both_sizes() {
    for (limits, most) in [(WIDE, 150), (Limits::WEBGPU, 260)] {
        for &preset in DevicePreset::ALL {
            let options = Options { preset, ..Options::default() };
            let plan = plan(&MarginSoftmax::arcface(), shape(1024, 1_000_000, 512), &limits, &options).unwrap();
            let schedule = plan.schedule();
            let [chosen, rejected] = schedule.costs[..] else { panic!("{preset:?}: {:?}", schedule.costs) };
            assert!(!schedule.keep && plan.workspace_bytes() <= 256 << 20, "{preset:?}");
            assert!(chosen.launches + chosen.traffic <= rejected.launches + rejected.traffic, "{preset:?}");
            assert_eq!(schedule.chunks.iter().map(|chunk| chunk.count).max(), Some(chosen.classes), "{preset:?}");
            let (dispatches, software) = (plan.steps().count(), preset == DevicePreset::Software);
            assert_eq!(dispatches > most, software, "{preset:?}: {dispatches} dispatches");
            assert_eq!(chosen.classes * 1024 * 4 <= 32 << 20, software, "{preset:?}");
        }
    }
}

/// The dispatches that the estimate counts are those of the plan, whatever a loss needs.
#[test]
fn the_estimate_counts_the_dispatches_of_the_rounds() {
    let named = |name| MarginSoftmax::named(name).unwrap();
    let filter = GradientFilter::new(1e-4).ok();
    let all = [
        (named("arcface"), Want::ALL, None),
        (named("arcface"), Want::LOSS, None),
        (named("arcface"), Want::EMBEDDINGS, filter),
        (named("arcface"), Want::ALL, filter),
        (named("arcface_topk"), Want::PROTOTYPES, None),
        (named("adacos"), Want::ALL, None),
        (named("softmax"), Want::ALL.with_bias(), None),
    ];
    for (loss, want, filter) in all {
        for rows in [300, 70_000] {
            let shape = shape(rows, 20_000, 8);
            let options = Options { want, filter, budget: Budget::mib(rows as u64 / 100), ..Options::default() };
            let plan = plan(&loss, shape, &Limits::WEBGPU, &options).unwrap();
            let schedule = plan.schedule();
            assert!(!schedule.keep && schedule.chunks.len() > 1, "{}: {schedule:?}", loss.target.name());
            assert_eq!(schedule.costs[0].dispatches, count(&plan, &ROUND) as u64, "{}, {want:?}", loss.target.name());
        }
    }
}

/// What is documented of the unit: a step takes 3·N·C·D, or 4·N·C·D where the cosines are computed twice, and little more.
#[test]
fn work_is_counted_in_multiply_adds_of_the_products() {
    let (shape, products) = (shape(512, 12_800, 512), ["cosines", "grad_embeddings", "grad_prototypes"]);
    let whole = 512 * 12_800 * 512_u64;
    for (budget, times) in [(256, 3), (8, 4)] {
        let options = Options { budget: Budget::mib(budget), ..Options::default() };
        let plan = plan(&MarginSoftmax::arcface(), shape, &WIDE, &options).unwrap();
        let of = |product: bool| {
            let steps = plan.steps().enumerate();
            let own = steps.filter(|(_, s)| products.contains(&plan.kernels()[s.kernel].name) == product);
            own.map(|(index, _)| plan.work(index)).sum::<u64>()
        };
        assert_eq!(of(true), times * whole);
        assert!(of(false) < whole, "{} beside {whole}", of(false));
    }
}

/// No step takes more than the bound, the parts of a call are as few as the order allows, and the least bound that works is
/// the one that the refusal names.
#[test]
fn a_bound_holds_for_every_step_and_every_submit() {
    let named = |name| MarginSoftmax::named(name).unwrap();
    let losses = [named("arcface"), named("arcface_topk"), named("adacos"), named("softmax"), named("elasticface_arc")];
    let shapes = [shape(1, 9, 3), shape(65, 3000, 40), shape(512, 10_000, 64), shape(2000, 130, 700)];
    for (loss, shape) in losses.iter().flat_map(|loss| shapes.map(|shape| (loss, shape))) {
        for &tile in Tile::ALL {
            let bounded = |work_per_submit| {
                let options = Options { tile: Some(tile), work_per_submit, ..Options::default() };
                plan(loss, shape, &WIDE, &options)
            };
            let Err(Error::Work { needed, allowed: 0 }) = bounded(Some(0)) else {
                panic!("{shape:?}: 0 is not refused")
            };
            let refused = Error::Work { needed, allowed: needed - 1 };
            assert_eq!(bounded(Some(needed - 1)).err(), Some(refused), "{shape:?}");
            let whole = bounded(None).unwrap();
            assert_eq!(whole.parts(0..whole.steps().count()).len(), 1);
            for most in [needed, needed * 2 + 1, needed * 50] {
                let plan = bounded(Some(most)).unwrap();
                let work: Vec<u64> = (0..plan.steps().count()).map(|step| plan.work(step)).collect();
                assert!(work.iter().all(|&work| work <= most), "{shape:?}, {tile:?}: {most}");
                let parts = plan.parts(0..work.len());
                assert!(parts.iter().flatten().copied().eq(0..work.len()));
                let sum = |part: &[usize]| part.iter().map(|&step| work[step]).sum::<u64>();
                assert!(parts.iter().all(|part| sum(part) <= most), "{shape:?}");
                assert!(parts.windows(2).all(|pair| sum(&pair[0]) + work[pair[1][0]] > most), "{shape:?}");
                // between the sum of all work and twice that
                let least = work.iter().sum::<u64>().div_ceil(most) as usize;
                assert!((least..=2 * least).contains(&parts.len()), "{} parts, {least} at least", parts.len());
            }
        }
    }
}

/// The bound of a large head cuts its chunks; where nothing must be cut it changes nothing.
#[test]
fn a_bound_cuts_chunks_and_nothing_else() {
    let loss = MarginSoftmax::arcface().with_reduction(Reduction::Sum);
    let bounded = |work_per_submit| {
        let options = Options { work_per_submit, ..Options::default() };
        plan(&loss, shape(256, 50_000, 128), &WIDE, &options).unwrap()
    };
    let (whole, wide, narrow) = (bounded(None), bounded(Some(1 << 40)), bounded(Some(1 << 28)));
    assert_eq!((whole.schedule(), whole.forward()), (wide.schedule(), wide.forward()));
    assert_eq!((whole.schedule().chunks.len(), narrow.schedule().keep), (1, true));
    // 2^28 multiply-adds are 8,192 classes of 256 rows and 128 values
    assert_eq!(narrow.schedule().chunks.len(), 50_000_usize.div_ceil(8192));
}

//! Plans of heads, over a grid of shapes and over random ones.

use std::{collections::BTreeMap, fmt};

use margin_softmax::{
    Budget, Error, MarginSoftmax, Options, Others, Result, Shape, Tile, Want,
    data::{DevicePreset, GradientFilter},
    objective::PRESETS,
    plan::{Element, Layout, Limits, Plan},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    ABLE, DEVICES,
    check::{Head, LIMITS, Shaders, keeps_to, refusal},
    lacks,
};

const WANTS: [Want; 7] = [
    Want::ALL,
    Want::LOSS,
    Want::EMBEDDINGS,
    Want::PROTOTYPES,
    Want::ALL.with_scale(),
    Want::ALL.with_scale().with_bias(),
    Want::LOSS.with_bias(),
];
const BUDGETS: [u64; 6] = [256 << 20, 1 << 30, 16 << 20, u64::MAX, 64 << 30, 0];
const ELEMENTS: [[Element; 2]; 4] = [
    [Element::F32, Element::F32],
    [Element::F16, Element::F16],
    [Element::F32, Element::Bf16],
    [Element::Bf16, Element::F32],
];

/// How the classes are cut into shards.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// As `Plan::shards` says.
    Fitting,
    Whole,
    /// A few, of odd sizes.
    Odd,
}

/// A head that somebody may ask for.
struct Case {
    loss: &'static str,
    shape: Shape,
    /// Its classes, or some of them: a shard of a larger head.
    part: bool,
    cut: Cut,
    elements: [Element; 2],
    options: Options,
    device: usize,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loss, shape, part, cut, elements, options, device } = self;
        let device = DEVICES[*device].0;
        write!(f, "{device}: {loss}, {shape:?}, part {part}, {cut:?}, {elements:?}, {options:?}")
    }
}

/// What became of the cases.
#[derive(Default)]
struct Tally {
    shaders: Shaders,
    cases: usize,
    planned: usize,
    chunks: usize,
    refused: BTreeMap<&'static str, usize>,
}

impl Case {
    fn limits(&self) -> &'static Limits {
        &DEVICES[self.device].1
    }

    /// Plans it; the sizes of its shards.
    fn plan(&self) -> Result<(Plan, Vec<usize>)> {
        let (loss, limits) = (MarginSoftmax::named(self.loss)?, self.limits());
        let classes = self.shape.classes();
        let range = if self.part { classes / 3..classes.div_ceil(2) } else { 0..classes };
        let own = Shape::new(self.shape.rows(), range.len(), self.shape.dim())?;
        let own = own.with_sub_centers(self.shape.sub_centers())?;
        let shards = match self.cut {
            Cut::Fitting => Plan::shards(own, self.elements[1], limits)?,
            Cut::Odd if range.len() > 40 => vec![1, range.len() / 3, 17, range.len() - 18 - range.len() / 3],
            _ => vec![range.len()],
        };
        let [embeddings, prototypes] = self.elements;
        let layout = Layout { shards: &shards, embeddings, prototypes };
        let plan = Plan::shard(&loss, self.shape, range, &layout, limits, &self.options)?;
        Ok((plan, shards))
    }

    /// Planned and correct, or refused for a size; `false` for options that no size would help.
    fn check(&self, tally: &mut Tally) -> Result<bool, String> {
        let limits = self.limits();
        let planned = self.plan();
        if let Err(Error::Combination { .. } | Error::Parameter { .. } | Error::Shards { .. }) = planned {
            return Ok(false);
        }
        tally.cases += 1;
        let (plan, shards) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                *tally.refused.entry(refusal(&error)?).or_default() += 1;
                return Ok(true);
            }
        };
        if let Some(limit) = lacks(limits) {
            return Err(format!("planned, but {limit} is too small"));
        }
        tally.planned += 1;
        tally.chunks = tally.chunks.max(plan.schedule().chunks.len());
        keeps_to(&plan, limits, &mut tally.shaders)?;
        let most = self.options.work_per_submit.unwrap_or(u64::MAX);
        if let Some(work) = (0..plan.steps().count()).map(|step| plan.work(step)).find(|&work| work > most) {
            return Err(format!("a step of {work} multiply-adds, and {most} allowed"));
        }
        let head = Head {
            rows: self.shape.rows().max(1),
            dim: self.shape.dim(),
            centers: self.shape.sub_centers(),
            shards: &shards,
            elements: self.elements,
            budget: self.options.budget.get(),
        };
        head.is_done_by(&plan)?;
        Ok(true)
    }
}

impl Tally {
    fn check(&mut self, case: &Case) -> bool {
        case.check(self).unwrap_or_else(|why| panic!("{case:?}: {why}"))
    }

    fn report(&self) {
        let Self { cases, planned, chunks, refused, .. } = self;
        println!("{planned} of {cases} planned, up to {chunks} chunks; refused: {refused:#?}");
    }
}

/// Sizes at which something begins or ends, in every combination that a shape can be.
fn shapes() -> Vec<Shape> {
    let mut all = vec![];
    for rows in [0, 1, 7, 64, 513, 4096, 70_001, 1_000_000, (1 << 31) - 1] {
        for classes in [1, 2, 65, 1000, 100_003, 10_000_000, (1 << 31) - 1] {
            for dim in [1, 3, 64, 512, 4100, 65_536] {
                for centers in [1, 3, 256] {
                    let shape = Shape::new(rows, classes, dim).and_then(|s| s.with_sub_centers(centers));
                    all.extend(shape);
                }
            }
        }
    }
    all
}

/// Targets of a row in every eleventh case, as far as the loss takes several and the head is no shard.
fn soft_labels(loss: &str, part: bool, case: usize) -> Option<usize> {
    let others = MarginSoftmax::named(loss).unwrap().others;
    let takes = !part && !matches!(others, Others::Curricular | Others::TopK(_));
    (takes && case % 11 == 3).then_some([1, 4, 16][case / 11 % 3])
}

/// Every shape of a grid on every device, with losses, options and elements that change from one to the next.
#[test]
fn a_grid_of_heads_is_planned_within_the_limits_or_refused_by_name() {
    let shapes = shapes();
    assert!(shapes.len() >= 500, "{} shapes", shapes.len());
    let mut tally = Tally::default();
    for (i, &shape) in shapes.iter().enumerate() {
        // three of those that can run a head, and now and then one that cannot
        for device in
            (0..3).map(|d| (i + 3 * d) % ABLE).chain((i % 2 == 0).then(|| ABLE + i / 2 % (DEVICES.len() - ABLE)))
        {
            let n = i * DEVICES.len() + device;
            let filter = n.is_multiple_of(5).then(|| GradientFilter::new(1e-5).unwrap());
            let case = |loss: usize| Case {
                loss: PRESETS[loss % PRESETS.len()].name,
                shape,
                part: n.is_multiple_of(7),
                cut: [Cut::Fitting, Cut::Fitting, Cut::Whole, Cut::Odd][n / 2 % 4],
                elements: ELEMENTS[n / 3 % ELEMENTS.len()],
                options: Options {
                    want: WANTS[n % WANTS.len()],
                    budget: Budget::bytes(BUDGETS[n / 5 % BUDGETS.len()]),
                    preset: DevicePreset::ALL[n / 7 % DevicePreset::ALL.len()],
                    tile: Tile::ALL.get(n % 9).copied(),
                    filter,
                    work_per_submit: None,
                    predictions: None,
                    soft_labels: soft_labels(PRESETS[loss % PRESETS.len()].name, n.is_multiple_of(7), n),
                },
                device,
            };
            // a loss that needs more classes, or one prototype for each, is replaced by the next
            (n..n + PRESETS.len()).map(case).any(|case| tally.check(&case));
        }
    }
    tally.report();
    let Tally { cases, planned, refused, .. } = &tally;
    assert!(*cases > 500 && 5 * planned > 2 * cases, "{planned} of {cases} are planned");
    for name in LIMITS.iter().chain(&[crate::check::ALIGNMENT, "budget", "rounds of a head"]) {
        assert!(refused.contains_key(name), "nothing is refused by {name}");
    }
}

/// Random sizes, each as likely to be small as large.
#[test]
fn random_heads_are_planned_within_the_limits_or_refused_by_name() {
    let rng = &mut ChaCha8Rng::seed_from_u64(20);
    let mut tally = Tally::default();
    fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
        from[rng.random_range(0..from.len())]
    }
    let size = |rng: &mut ChaCha8Rng, most: f64| most.powf(rng.random_range(0.0..1.0)) as usize;
    while tally.cases < 2000 {
        let rows = size(rng, 1e6);
        let classes = size(rng, f64::from(1_u32 << 31));
        let dim = size(rng, 65_537.0);
        let centers = if rng.random_bool(0.7) { 1 } else { size(rng, 257.0) };
        let Ok(shape) = Shape::new(rows, classes, dim).and_then(|s| s.with_sub_centers(centers)) else { continue };
        let loss = pick(rng, PRESETS.iter().map(|p| p.name).collect::<Vec<_>>().as_slice());
        let part = rng.random_bool(0.2);
        let case = Case {
            loss,
            shape,
            part,
            cut: pick(rng, &[Cut::Fitting, Cut::Fitting, Cut::Fitting, Cut::Whole, Cut::Odd]),
            elements: pick(rng, &ELEMENTS),
            options: Options {
                want: pick(rng, &WANTS),
                budget: Budget::bytes(2_f64.powf(rng.random_range(16.0..64.0)) as u64),
                preset: pick(rng, DevicePreset::ALL),
                tile: rng.random_bool(0.5).then(|| pick(rng, Tile::ALL)),
                filter: rng.random_bool(0.2).then(|| GradientFilter::new(1e-4).unwrap()),
                work_per_submit: rng.random_bool(0.2).then(|| 2_f64.powf(rng.random_range(16.0..50.0)) as u64),
                predictions: None,
                soft_labels: soft_labels(loss, part, tally.cases),
            },
            device: rng.random_range(0..ABLE),
        };
        tally.check(&case);
    }
    tally.report();
    assert!(5 * tally.planned > 2 * tally.cases, "{} of {} are planned", tally.planned, tally.cases);
}

/// Sums whose rows are padded to whole quads are refused where their index would wrap, not the rows themselves.
#[test]
fn padded_rows_that_no_index_can_reach_are_refused() {
    let (_, limits) = DEVICES[4];
    let layout = Layout { shards: &[1], embeddings: Element::F32, prototypes: Element::F32 };
    for (rows, fits) in [((1 << 28) - 1, true), (1 << 28, false)] {
        let shape = Shape::new(rows, 1, 5).unwrap();
        let options = Options { budget: Budget::bytes(u64::MAX), want: Want::EMBEDDINGS, ..Default::default() };
        let plan = Plan::head(&MarginSoftmax::arcface(), shape, &layout, &limits, &options).map(drop);
        let refused = Error::Size { what: "rows · dim, in whole quads", needed: 1 << 31, allowed: (1 << 31) - 1 };
        assert_eq!(plan, if fits { Ok(()) } else { Err(refused) });
    }
}

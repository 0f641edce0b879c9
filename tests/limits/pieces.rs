//! Plans of everything that is no head, and shards.

use std::collections::BTreeMap;

use margin_softmax::{
    CenterLoss, Error, MarginSoftmax, Regularizer, Result, Shape, Tile,
    plan::{Batched, CrossEntropy, Element, Layout, Limits, Plan},
};

use crate::{
    DEVICES,
    check::{Shaders, keeps_to, refusal},
    lacks,
};

const ROWS: [usize; 6] = [1, 65, 4096, 70_001, 1_000_000, (1 << 31) - 1];
const CLASSES: [usize; 6] = [1, 66, 1000, 100_003, 5_000_000, (1 << 31) - 1];
const DIMS: [usize; 5] = [1, 64, 513, 4100, 65_536];

#[derive(Default)]
struct Tally {
    shaders: Shaders,
    planned: BTreeMap<&'static str, usize>,
    refused: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// Planned and within the limits, or refused for a size.
    fn check(&mut self, what: &'static str, at: &str, limits: &Limits, plan: Result<Plan>) {
        let checked = match &plan {
            Err(Error::Combination { .. }) => return,
            Err(error) => refusal(error).map(|name| *self.refused.entry(name).or_default() += 1),
            Ok(plan) => {
                assert_eq!(lacks(limits), None, "{what} of {at} is planned");
                *self.planned.entry(what).or_default() += 1;
                keeps_to(plan, limits, &mut self.shaders)
            }
        };
        checked.unwrap_or_else(|why| panic!("{what} of {at}: {why}"));
    }
}

/// Operations, gathers, monitors and regularisers.
#[test]
fn every_other_plan_keeps_to_the_limits_or_is_refused_by_name() {
    let mut tally = Tally::default();
    let element = |n: usize| [Element::F32, Element::F16, Element::Bf16][n % 3];
    let mut n = 0;
    for rows in ROWS {
        for classes in CLASSES {
            for dim in DIMS {
                let Ok(shape) = Shape::new(rows, classes, dim) else { continue };
                for _ in 0..3 {
                    n += 1;
                    let (name, limits) = DEVICES[n % DEVICES.len()];
                    let tile = Tile::ALL[n / 3 % Tile::ALL.len()];
                    let entries = [1, 3, 70_000][n / 5 % 3];
                    let at = format!("{entries} x {shape:?} on {name}, {tile:?}");
                    let mut check = |what, plan| tally.check(what, &at, &limits, plan);
                    batched(entries, shape, [element(n), element(n / 2)], tile, &limits, &mut check);
                    single(shape, element(n), tile, &limits, &mut check);
                }
            }
        }
    }
    let Tally { planned, refused, .. } = tally;
    println!("planned: {planned:#?}; refused: {refused:#?}");
    assert!(planned.len() == 14 && planned.values().all(|&count| count > 40), "{planned:?}");
    for limit in crate::check::LIMITS.iter().chain(&[crate::check::ALIGNMENT]) {
        assert!(refused.contains_key(limit), "nothing is refused by {limit}");
    }
}

type Check<'a> = &'a mut dyn FnMut(&'static str, Result<Plan>);

fn batched(entries: usize, shape: Shape, elements: [Element; 2], tile: Tile, limits: &Limits, check: Check<'_>) {
    let sizes = match Batched::new(entries, shape, elements) {
        Ok(sizes) => sizes,
        Err(error) => return check("sizes", Err(error)),
    };
    let loss = MarginSoftmax::arcface();
    let entropy = CrossEntropy::default();
    for backward in [false, true] {
        let name = |forward, back| if backward { back } else { forward };
        check(name("cosine", "cosine_backward"), Plan::cosine(sizes, limits, tile, backward));
        check(name("margin", "margin_backward"), Plan::margin(&loss, sizes, limits, backward));
        let plan = Plan::cross_entropy(&entropy, sizes, limits, backward);
        check(name("cross_entropy", "cross_entropy_backward"), plan);
    }
}

fn single(shape: Shape, element: Element, tile: Tile, limits: &Limits, check: Check<'_>) {
    let (classes, dim) = (shape.classes(), shape.dim());
    for (what, regularizer) in [("reg_ss", Regularizer::reg_ss()), ("uniform_face", Regularizer::uniform_face())] {
        check(what, Plan::regularizer(&regularizer, shape, element, limits));
    }
    let center = CenterLoss::default();
    check("center_loss", Plan::center_loss(&center, shape, element, limits));
    check("center_update", Plan::center_update(&center, shape, element, limits));
    for strip in Plan::strips(tile, classes, shape.rows(), 1 << 16).take(2) {
        let sizes = (classes, Some(shape.rows()));
        check("pairs", Plan::pairs(sizes, dim, element, (tile, strip), limits));
        let wide = margin_softmax::plan::Strip { wide: usize::MAX, ..strip };
        check("pairs", Plan::pairs(sizes, dim, element, (tile, wide), limits));
    }
    for strip in Plan::strips(tile, classes, classes, 1 << 16).take(2) {
        check("pairs_within", Plan::pairs((classes, None), dim, element, (tile, strip), limits));
    }
    let shards = match Plan::shards(shape, element, limits) {
        Ok(shards) => shards,
        Err(error) => return check("shards", Err(error)),
    };
    let layout = Layout { shards: &shards, embeddings: element, prototypes: element };
    check("gather", Plan::gather(shape, &layout, limits));
    check("mean_prototype", Plan::mean_prototype(&shards, dim, element, limits));
}

/// Shards of any shape on any device: few enough, each class in one, each as large as the device can bind; or a refusal.
#[test]
fn shards_fit_every_device_or_are_refused_by_name() {
    let mut cut = 0;
    for (name, limits) in DEVICES {
        for classes in CLASSES {
            for dim in DIMS.into_iter().chain([(1 << 31) - 1]) {
                for centers in [1, 5, 256, 70_000, (1 << 31) - 1] {
                    let shape = Shape::new(1, classes, dim).and_then(|s| s.with_sub_centers(centers));
                    let Ok(shape) = shape else { continue };
                    let at = format!("{shape:?} on {name}");
                    let shards = match Plan::shards(shape, Element::F32, &limits) {
                        Ok(shards) => shards,
                        Err(error) => {
                            refusal(&error).unwrap_or_else(|why| panic!("{at}: {why}"));
                            continue;
                        }
                    };
                    cut += usize::from(shards.len() > 1);
                    assert!(shards.len() <= 1 << 16 && shards.iter().sum::<usize>() == classes, "{at}");
                    let most = *shards.iter().max().unwrap() as u128 * centers as u128 * dim as u128;
                    assert!(most < 1 << 31, "{at}: {most} elements");
                    assert!(most * 4 <= u128::from(limits.max_binding.min(limits.max_buffer)), "{at}");
                }
            }
        }
    }
    assert!(cut > 100, "{cut} shapes are cut");
}

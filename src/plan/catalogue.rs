//! Internal, with the feature `catalogue`: every kernel, for the crate's own tests and examples. Nothing here is promised from one version to the next.

use std::borrow::Cow;

use super::{
    Limits,
    kernel::{Kernel, Loader},
    kernels::{self as k, Pull, Totals},
    snippets::Snippets,
};
use crate::{Link, MarginSoftmax, Others, Shape, Similarity, Target, Tile};

/// A curve from outside.
#[derive(Debug)]
struct Straight;

impl crate::Margin for Straight {
    fn name(&self) -> &str {
        "straight"
    }

    fn value_slope(&self, x: f64) -> (f64, f64) {
        (x, 1.0)
    }

    fn wgsl(&self) -> &str {
        "fn margin_target(x: f32) -> ValueSlope { return ValueSlope(parameter(0u) * x, parameter(0u)); }"
    }

    fn parameters(&self) -> Vec<f64> {
        vec![1.0]
    }
}

/// Other classes from outside.
#[derive(Debug)]
struct Level;

impl crate::OtherCurve for Level {
    fn name(&self) -> &str {
        "level"
    }

    fn value_slope(&self, c: f64, target: crate::objective::RowTarget) -> (f64, f64) {
        (c + target.value - target.cosine, 1.0)
    }

    fn wgsl(&self) -> &str {
        "fn margin_other(c: f32, row: RowTarget) -> ValueSlope { return ValueSlope(c + row.value - row.cosine, other_parameter(0u)); }"
    }

    fn parameters(&self) -> Vec<f64> {
        vec![1.0]
    }
}

/// The losses whose kernels differ, each once.
fn variants() -> Vec<Snippets> {
    let mut losses = vec![
        MarginSoftmax { target: Target::Custom(crate::objective::Custom::new(Straight)), ..Default::default() },
        MarginSoftmax::normface().with_others(Others::Custom(crate::objective::CustomOthers::new(Level))),
        MarginSoftmax { similarity: Similarity::Dot, ..Default::default() },
    ];
    for target in Target::all() {
        let loss = |others| MarginSoftmax { target: target.clone(), others, ..Default::default() };
        losses.extend(Others::all().into_iter().map(loss).filter(|loss| loss.validate().is_ok()));
    }
    let shape = |k| Shape::new(1, 8, 1).and_then(|s| s.with_sub_centers(k));
    let mut all = vec![];
    for loss in losses {
        for link in [Link::Softmax, Link::Binary(crate::objective::Binary::default())] {
            let loss = MarginSoftmax { link, ..loss.clone() };
            all.extend([1, 2].into_iter().flat_map(shape).map(|shape| Snippets::of(&loss, shape)));
        }
    }
    all
}

/// Kernels with the names of their variants.
#[derive(Default)]
struct Catalogue(Vec<(String, Kernel)>);

impl Catalogue {
    fn add(&mut self, variant: &str, kernels: impl IntoIterator<Item = Kernel>) {
        for kernel in kernels {
            // one variant of a loss changes some kernels, and leaves the others as they are
            if !self.0.iter().rev().take(400).any(|(_, k)| *k == kernel) {
                self.0.push((format!("{} [{variant}]", kernel.name), kernel));
            }
        }
    }

    fn of_loss(&mut self, s: &Snippets) {
        let kernels = [
            k::row_stats(s, Loader::F32x4),
            k::row_stats(s, Loader::F32),
            k::grad_cosines(s, Loader::F32x4, PULLS[0]),
            k::grad_cosines(s, Loader::F32x4, PULLS[1]),
            k::grad_cosines(s, Loader::F32x4, PULLS[2]),
            k::grad_cosines(s, Loader::F32x4, PULLS[3]),
            k::grad_cosines(s, Loader::F32, PULLS[2]),
            k::row_loss(s, Totals::Known),
            k::row_loss(s, Totals::Summed),
            k::batch_loss(s, Totals::Known, true),
            k::batch_loss(s, Totals::Summed, true),
            k::batch_loss(s, Totals::Known, false),
            k::batch_loss(s, Totals::Summed, false),
            k::row_gradients(s),
            k::target_margins(s),
            k::margin_logits(s),
            k::margin_slopes(s),
            k::select_top_k(s),
            k::select_nearest(s, 5),
            k::target_rows(s, Loader::F32, Loader::F32x4, false),
            k::target_rows(s, Loader::F32, Loader::F32x4, true),
        ];
        let name = format!("{}{}", s.name(), if s.many { " + centers" } else { "" });
        self.add(&name, kernels);
        if s.stages.sees_target {
            return;
        }
        let soft = &s.clone().with_targets(3);
        let kernels = [
            k::row_stats(soft, Loader::F32x4),
            k::grad_cosines(soft, Loader::F32x4, PULLS[0]),
            k::grad_cosines(soft, Loader::F32x4, PULLS[1]),
            k::soft_labels(soft),
            k::soft_cosines(soft, Loader::F32, Loader::F32x4),
            k::soft_margins(soft),
            k::soft_loss(soft),
            k::soft_gradients(soft),
        ];
        self.add(&format!("{name} + targets"), kernels);
    }

    /// Those of one operand.
    fn of_vectors(&mut self, x: Loader) {
        let name = format!("{x:?}");
        self.add(&name, [k::row_norms(x, false), k::class_norms(x, false)]);
        self.add(&format!("{name} with weights"), [k::row_norms(x, true), k::class_norms(x, true)]);
        self.add(&name, [k::direction_sums(x), k::pair_distances(x), k::pair_pulls(x), k::center_update(x)]);
        // with the largest tile the sums beside it leave WebGPU's default limits, which know no matrix units
        for tile in Tile::ALL.iter().filter(|tile| tile.check_beside(&Limits::WEBGPU, 4).is_ok()) {
            self.add(&format!("{} {name}", tile.name()), [k::monitor_pairs(*tile, x)]);
        }
        for out in STORES {
            let kernels = [
                k::finish_embeddings(x, out, true),
                k::finish_embeddings(x, out, false),
                k::gather_rows(x, out),
                k::mean_gradient(x, out),
                k::pair_gradient(x, out),
                k::center_rows(x, out),
                k::center_gradient(x, out),
            ];
            self.add(&format!("{name} {out:?}"), kernels);
        }
    }

    /// Those of two operands.
    fn of_pairs(&mut self, plain: &Snippets, x: Loader, w: Loader) {
        self.add(&format!("{x:?} {w:?}"), [k::target_rows(plain, x, w, false), k::target_rows(plain, x, w, true)]);
        // an operand is read in the same way beside any other: matrix units, which double the catalogue, see one
        for &tile in Tile::ALL.iter().filter(|tile| x == w || tile.geometry().units.is_none()) {
            let name = format!("{} {x:?} {w:?}", tile.name());
            // the caller's gradient alone is as it is, but for matrix units
            let pulls = if tile.geometry().units.is_some() { &PULLS[2..] } else { &PULLS[..3] };
            let named = |pull: &Pull| if pull.filter { " filtered" } else { "" };
            for out in STORES {
                self.add(&format!("{name} {out:?}"), [k::cosines(tile, x, w, out)]);
                for (&g, pull) in STORES.iter().flat_map(|g| pulls.iter().map(move |pull| (g, pull))) {
                    let kernel = k::grad_prototypes(tile, g, x, w, out, *pull);
                    self.add(&format!("{name} {g:?} {out:?}{}", named(pull)), [kernel]);
                }
            }
            if STORES.contains(&x) {
                for pull in pulls {
                    let kernel = k::grad_embeddings(tile, x, w, *pull);
                    self.add(&format!("{name} as gradient{}", named(pull)), [kernel]);
                }
            }
        }
    }
}

/// With and without a filter, and as it is, with and without.
const PULLS: [Pull; 4] = [
    Pull { scaled: true, filter: false },
    Pull { scaled: true, filter: true },
    Pull { scaled: false, filter: false },
    Pull { scaled: false, filter: true },
];

const STORES: [Loader; 2] = [Loader::F32x4, Loader::F32];

/// Every kernel in every variant that a plan can ask for, with the name of the variant. A shader with an entry point that
/// is missing here fails `tests/shaders.rs`.
pub fn kernels() -> Vec<(String, Kernel)> {
    let mut all = Catalogue::default();
    all.add("-", k::COMMON.iter().map(|kernel| kernel()));
    all.add("softmax", [k::predict_rows(5, false)]);
    all.add("binary", [k::predict_rows(5, true)]);
    all.add("-", [k::give_predictions(5)]);
    variants().iter().for_each(|snippets| all.of_loss(snippets));
    for &tile in Tile::ALL {
        all.add(tile.name(), [k::list_classes(tile), k::list_rows(tile)]);
    }
    let plain = Shape::new(1, 8, 1).map(|shape| Snippets::of(&MarginSoftmax::default(), shape));
    plain.iter().for_each(|plain| all.add("unified", [k::margin_gradients(plain)]));
    // a device has the type f16 or does not
    let together = |x: Loader, w| !(x.is_half() && matches!(w, Loader::F16x4 | Loader::F16));
    for &x in Loader::ALL {
        all.of_vectors(x);
        for &w in Loader::ALL.iter().filter(|&&w| together(x, w) && together(w, x)) {
            plain.iter().for_each(|plain| all.of_pairs(plain, x, w));
        }
    }
    let small = Limits { invocations: 128, size_x: 128, ..Limits::WEBGPU };
    let narrow = |(name, kernel): &(String, Kernel)| match kernel.fitted(&small) {
        Cow::Owned(narrow) => Some((format!("{name} of fewer lanes"), narrow)),
        Cow::Borrowed(_) => None,
    };
    let narrow: Vec<_> = all.0.iter().filter_map(narrow).collect();
    all.0.extend(narrow);
    all.0
}

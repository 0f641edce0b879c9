//! One descriptor per shader file. The letters are the storage bindings in the order of the file's header:
//! `r` read only, `w` read and written.

use std::sync::Arc;

use super::kernel::{Kernel, Loader, Recipe};
use crate::{
    Adaptive, Link, MarginSoftmax, Others, Product, Shape, Target, Tile,
    objective::snippet::{Shared, Snippet},
};

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!("../../shaders/", $name, ".wgsl"))
    };
}

const EXPONENTIAL: &str = shader!("common/exponential");
const ANGLE: &str = shader!("common/angle");
const SERIES: &str = shader!("common/series");
const RAISED: &str = shader!("common/raised");
const NORMS: &str = shader!("common/norms");
const MEASURE: &str = shader!("common/measure");
const LABELS: &str = shader!("common/labels");
const BLOCK: &str = shader!("tile/block");
const LEFT: &str = shader!("filter/block");

/// The parts of a loss that decide which kernels it needs; all other kernels serve every loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snippets {
    target: Snippet,
    /// The text of a curve from outside.
    custom: Option<Arc<str>>,
    others: Snippet,
    link: Snippet,
    product: Product,
    /// For people: the target, the transform of the others, and the link if it is not the usual one.
    names: [Arc<str>; 3],
    /// More than one prototype per class.
    many: bool,
    pub stages: Stages,
}

/// The steps that only some losses have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stages {
    /// A state that follows the batch.
    pub follow: bool,
    /// The scale is among what follows, and needs the cosines at the scale before.
    pub scale: bool,
    /// Draws.
    pub draws: bool,
    /// The hardest classes are chosen.
    pub chosen: usize,
}

impl Snippets {
    pub fn of(loss: &MarginSoftmax, shape: Shape) -> Self {
        let custom = if let Target::Custom(custom) = &loss.target { Some(custom.margin()) } else { None };
        let target = custom.map_or(loss.target.name(), |margin| margin.name());
        let scale = loss.adaptive == Adaptive::AdaCos;
        let stages = Stages {
            follow: scale || matches!(loss.adaptive, Adaptive::AdaFace(_)) || loss.others == Others::Curricular,
            scale,
            draws: matches!(loss.adaptive, Adaptive::Elastic(_)),
            chosen: if let Others::TopK(top) = loss.others { top.count } else { 0 },
        };
        Self {
            target: loss.target.snippet(),
            custom: custom.map(|margin| margin.wgsl().into()),
            others: loss.others.snippet(),
            link: loss.link.snippet(),
            product: loss.product,
            names: [target, loss.others.name(), loss.link.name()].map(Arc::from),
            many: shape.sub_centers() > 1,
            stages,
        }
    }

    /// Those of the pass that AdaCos makes at the scale before: raw cosines.
    pub fn raw(&self) -> Self {
        let (others, link) = (Others::Identity, Link::Softmax);
        let names = [self.names[0].clone(), others.name().into(), link.name().into()];
        Self { others: others.snippet(), link: link.snippet(), names, ..self.clone() }
    }

    /// The target and the transform of the others, and whatever else is not usual.
    pub fn name(&self) -> String {
        let [target, others, link] = &self.names;
        let mut name = format!("{target} + {others}");
        if **link != *Link::default().name() {
            name += &format!(" + {link}");
        }
        if self.product != Product::default() {
            name += &format!(" + {}", self.product.name());
        }
        let Stages { follow, scale, draws, chosen } = self.stages;
        for (on, what) in [(follow && !scale, "state"), (scale, "scale"), (draws, "draws")] {
            if on {
                name += &format!(" + {what}");
            }
        }
        if chosen > 0 {
            name += &format!(" + {chosen} chosen");
        }
        name
    }

    /// The target's curve with what it calls.
    fn target(&self, recipe: Recipe) -> Recipe {
        let recipe = with(recipe, self.target, &[]);
        match &self.custom {
            Some(text) => recipe.part(text.to_string()),
            None => recipe,
        }
    }

    /// The transform of the other classes; `beside` a target, what both call is there already.
    fn other(&self, recipe: Recipe, beside: bool) -> Recipe {
        with(recipe, self.others, if beside { self.target.needs } else { &[] })
    }

    fn link(&self, recipe: Recipe) -> Recipe {
        with(recipe, self.link, &[])
    }

    /// How a class' cosine follows from those of its prototypes; a linear head binds its bias last.
    fn classes(&self, recipe: Recipe) -> Recipe {
        let recipe = recipe.part(if self.many { shader!("sub_centers/many") } else { shader!("sub_centers/one") });
        recipe.bound_part(match self.product {
            Product::Cosine => shader!("similarity/cosine"),
            Product::Linear => shader!("similarity/linear"),
        })
    }
}

/// A snippet with the texts that it calls, but for those that are there already.
fn with(recipe: Recipe, snippet: Snippet, there: &[Shared]) -> Recipe {
    let missing = snippet.needs.iter().filter(|shared| !there.contains(shared));
    missing.fold(recipe, |recipe, &shared| recipe.part(text(shared))).part(snippet.text)
}

fn text(shared: Shared) -> &'static str {
    match shared {
        Shared::Angle => ANGLE,
        Shared::Series => SERIES,
        Shared::Exponential => EXPONENTIAL,
        Shared::PowerCurve => RAISED,
        Shared::FixedMargins => shader!("target/fixed"),
    }
}

pub(crate) fn row_norms(x: Loader) -> Kernel {
    let recipe = Recipe::new("row_norms", "rrrww", shader!("head/row_norms"));
    recipe.part(NORMS).part(MEASURE).part(LABELS).load("embedding", 0, x).kernel()
}

pub(crate) fn class_norms(w: Loader) -> Kernel {
    let recipe = Recipe::new("class_norms", "rrww", shader!("head/class_norms"));
    recipe.part(NORMS).part(MEASURE).load("prototype", 0, w).kernel()
}

pub(crate) fn class_totals() -> Kernel {
    Recipe::new("class_totals", "rw", shader!("head/class_totals")).kernel()
}

pub(crate) fn target_rows(snippets: &Snippets, x: Loader, w: Loader) -> Kernel {
    let recipe = Recipe::new("target_rows", "rrrrw", shader!("head/target_rows")).part(NORMS);
    snippets.classes(recipe.load("embedding", 0, x).load("prototype", 1, w)).kernel()
}

pub(crate) fn target_margins(snippets: &Snippets) -> Kernel {
    snippets.target(Recipe::new("target_margins", "wrrr", shader!("head/target_margins"))).kernel()
}

pub(crate) fn draw_rows() -> Kernel {
    Recipe::new("draw_rows", "wr", shader!("head/draw_rows")).kernel()
}

pub(crate) fn middle_row() -> Kernel {
    Recipe::new("middle_row", "rw", shader!("update_state/middle_row")).kernel()
}

pub(crate) fn row_sums() -> Kernel {
    Recipe::new("row_sums", "rw", shader!("update_state/row_sums")).part(EXPONENTIAL).kernel()
}

pub(crate) fn follow() -> Kernel {
    Recipe::new("follow", "rrw", shader!("update_state/follow")).part(EXPONENTIAL).kernel()
}

pub(crate) fn select_classes(snippets: &Snippets) -> Kernel {
    let recipe = Recipe::new("select_classes", "rww", shader!("head/select_classes"));
    recipe.part(if snippets.many { shader!("sub_centers/many") } else { shader!("sub_centers/one") }).kernel()
}

pub(crate) fn sum_rows() -> Kernel {
    Recipe::new("sum_rows", "rw", shader!("head/sum_rows")).kernel()
}

pub(crate) fn grad_bias() -> Kernel {
    Recipe::new("grad_bias", "rw", shader!("head/grad_bias")).kernel()
}

pub(crate) fn cosines(tile: Tile, x: Loader, w: Loader, out: Loader) -> Kernel {
    let recipe = Recipe::new("cosines", "rrrrw", shader!("head/cosines")).part(BLOCK).part(tile.text());
    recipe.load("embedding", 0, x).load("prototype", 1, w).store("store_cosine", 4, out).kernel()
}

pub(crate) fn row_stats(snippets: &Snippets) -> Kernel {
    let recipe = snippets.link(Recipe::new("row_stats", "rrrw", shader!("head/row_stats")));
    snippets.classes(snippets.other(recipe, false)).kernel()
}

pub(crate) fn row_loss(snippets: &Snippets) -> Kernel {
    snippets.link(Recipe::new("row_loss", "rrww", shader!("head/row_loss"))).kernel()
}

pub(crate) fn batch_loss() -> Kernel {
    Recipe::new("batch_loss", "rww", shader!("head/batch_loss")).kernel()
}

pub(crate) fn row_gradients(snippets: &Snippets) -> Kernel {
    snippets.link(Recipe::new("row_gradients", "rrw", shader!("head/row_gradients"))).kernel()
}

/// `filter`: small entries become 0, and what is left is noted.
pub(crate) fn grad_cosines(snippets: &Snippets, filter: bool) -> Kernel {
    let recipe = snippets.link(Recipe::new("grad_cosines", "wrrw", shader!("head/grad_cosines")));
    let recipe = snippets.classes(snippets.other(recipe, false));
    match filter {
        true => recipe.part(LEFT).bound_part(shader!("filter/small")).kernel(),
        false => recipe.part(shader!("filter/none")).kernel(),
    }
}

pub(crate) fn filter_totals() -> Kernel {
    Recipe::new("filter_totals", "rw", shader!("filter/filter_totals")).part(LEFT).kernel()
}

/// Rows, or prototypes, that share a list of what is left, with this tile.
pub(crate) fn listed(tile: Tile) -> u32 {
    tile.rows().max(64)
}

pub(crate) fn list_classes(tile: Tile) -> Kernel {
    list(Recipe::new("list_classes", "rw", shader!("filter/list_classes")), tile)
}

pub(crate) fn list_rows(tile: Tile) -> Kernel {
    list(Recipe::new("list_rows", "rw", shader!("filter/list_rows")), tile)
}

fn list(recipe: Recipe, tile: Tile) -> Kernel {
    recipe.part(format!("const SPAN = {}u;", listed(tile))).part(LEFT).part(shader!("filter/list")).kernel()
}

/// `filter`: over the classes that are listed.
pub(crate) fn grad_embeddings(tile: Tile, g: Loader, w: Loader, filter: bool) -> Kernel {
    let recipe = Recipe::new("grad_embeddings", "rrrw", shader!("head/grad_embeddings")).part(BLOCK).part(tile.text());
    // listed classes do not lie side by side
    let recipe = recipe.load("cosine", 0, if filter { Loader::F32 } else { g });
    let recipe = recipe.load("prototype", 1, w).store("store_slab", 3, Loader::F32x4);
    recipe.bound_part(if filter { shader!("filter/listed_classes") } else { shader!("filter/all_classes") }).kernel()
}

pub(crate) fn finish_embeddings(x: Loader, out: Loader) -> Kernel {
    let recipe = Recipe::new("finish_embeddings", "rrrww", shader!("head/finish_embeddings"));
    recipe.load("embedding", 0, x).store("store_gradient", 4, out).kernel()
}

/// `filter`: over the rows that are listed.
pub(crate) fn grad_prototypes(tile: Tile, g: Loader, x: Loader, w: Loader, out: Loader, filter: bool) -> Kernel {
    let recipe =
        Recipe::new("grad_prototypes", "rrrrrrw", shader!("head/grad_prototypes")).part(BLOCK).part(tile.text());
    let recipe = recipe.load("cosine", 0, g).load("embedding", 1, x).load("prototype", 2, w);
    let recipe = recipe.store("store_gradient", 6, out);
    recipe.bound_part(if filter { shader!("filter/listed_rows") } else { shader!("filter/all_rows") }).kernel()
}

pub(crate) fn column_sums() -> Kernel {
    Recipe::new("column_sums", "rrw", shader!("operations/column_sums")).kernel()
}

pub(crate) fn margin_logits(snippets: &Snippets) -> Kernel {
    let recipe = snippets.target(Recipe::new("margin_logits", "rrw", shader!("operations/margin_logits")));
    snippets.other(recipe, true).kernel()
}

pub(crate) fn margin_slopes(snippets: &Snippets) -> Kernel {
    let recipe = snippets.target(Recipe::new("margin_slopes", "rrrw", shader!("operations/margin_slopes")));
    snippets.other(recipe, true).kernel()
}

pub(crate) fn logit_rows() -> Kernel {
    Recipe::new("logit_rows", "rrrw", shader!("operations/logit_rows")).part(LABELS).kernel()
}

pub(crate) fn logit_classes() -> Kernel {
    Recipe::new("logit_classes", "rww", shader!("operations/logit_classes")).kernel()
}

/// A curve from outside, for the shader tests.
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
        "fn margin_target(x: f32) -> Curve { return Curve(parameter(0u) * x, parameter(0u)); }"
    }

    fn parameters(&self) -> Vec<f64> {
        vec![1.0]
    }
}

/// The losses whose kernels differ, each once.
fn variants() -> Vec<Snippets> {
    let shape = |k| Shape::new(1, 8, 1).and_then(|s| s.with_sub_centers(k));
    let plain = MarginSoftmax::default();
    let mut losses: Vec<MarginSoftmax> = Others::all().into_iter().map(|o| plain.clone().with_others(o)).collect();
    let links = [Link::Softmax, Link::Binary(crate::Binary::default())];
    for target in [Target::Angle(Default::default()), Target::Power(Default::default())] {
        for others in [Others::Identity, Others::Angle(Default::default()), Others::Power(Default::default())] {
            losses.push(MarginSoftmax { target: target.clone(), others, ..plain.clone() });
        }
    }
    losses.push(MarginSoftmax { target: Target::Custom(crate::Custom::new(Straight)), ..plain.clone() });
    losses.push(MarginSoftmax { product: Product::Linear, ..plain });
    let mut all = vec![];
    for loss in losses {
        for link in links {
            for k in [1, 2] {
                let loss = MarginSoftmax { link, ..loss.clone() };
                all.extend(shape(k).map(|shape| Snippets::of(&loss, shape)));
            }
        }
    }
    all
}

/// Every kernel in every variant that a plan can ask for: what the shader tests compile.
pub fn all() -> Vec<(String, Kernel)> {
    let mut list: Vec<(String, Kernel)> = vec![];
    let mut add = |variant: String, kernel: Kernel| {
        // one variant of a loss changes some kernels, and leaves the others as they are
        if !list.iter().rev().take(400).any(|(_, k)| *k == kernel) {
            list.push((format!("{} [{variant}]", kernel.name), kernel));
        }
    };
    for kernel in [
        class_totals(),
        batch_loss(),
        column_sums(),
        logit_rows(),
        logit_classes(),
        draw_rows(),
        middle_row(),
        row_sums(),
        follow(),
        sum_rows(),
        grad_bias(),
        filter_totals(),
    ] {
        add("-".into(), kernel);
    }
    for snippets in variants() {
        let s = &snippets;
        for kernel in [
            row_stats(s),
            grad_cosines(s, false),
            grad_cosines(s, true),
            row_loss(s),
            row_gradients(s),
            target_margins(s),
            margin_logits(s),
            margin_slopes(s),
            select_classes(s),
            target_rows(s, Loader::F32, Loader::F32x4),
        ] {
            add(format!("{}{}", s.name(), if s.many { " + centers" } else { "" }), kernel);
        }
    }
    for &tile in Tile::ALL {
        add(tile.name().into(), list_classes(tile));
        add(tile.name().into(), list_rows(tile));
    }
    let plain = Shape::new(1, 8, 1).map(|shape| Snippets::of(&MarginSoftmax::default(), shape));
    let stores = [Loader::F32x4, Loader::F32];
    for &x in Loader::ALL {
        add(format!("{x:?}"), row_norms(x));
        add(format!("{x:?}"), class_norms(x));
        for out in stores {
            add(format!("{x:?} {out:?}"), finish_embeddings(x, out));
        }
        for &w in Loader::ALL {
            // a device has the type f16 or does not
            if x.is_half() && matches!(w, Loader::F16x4 | Loader::F16)
                || w.is_half() && matches!(x, Loader::F16x4 | Loader::F16)
            {
                continue;
            }
            if let Ok(plain) = &plain {
                add(format!("{x:?} {w:?}"), target_rows(plain, x, w));
            }
            for &tile in Tile::ALL {
                let variant = format!("{} {x:?} {w:?}", tile.name());
                for out in stores {
                    add(format!("{variant} {out:?}"), cosines(tile, x, w, out));
                    for g in stores {
                        add(format!("{variant} {g:?} {out:?}"), grad_prototypes(tile, g, x, w, out, false));
                    }
                    add(format!("{variant} {out:?} filtered"), grad_prototypes(tile, stores[0], x, w, out, true));
                }
                if x == Loader::F32 || x == Loader::F32x4 {
                    add(format!("{variant} as gradient"), grad_embeddings(tile, x, w, false));
                    add(format!("{variant} as gradient, filtered"), grad_embeddings(tile, x, w, true));
                }
            }
        }
    }
    list.extend(super::regularizer::all());
    list.extend(super::gather::all());
    list.extend(super::monitor::all());
    list
}

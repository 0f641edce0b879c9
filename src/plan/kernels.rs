//! One descriptor per shader file that has an entry point. The letters are the storage bindings in the order of the file's
//! header: `r` read only, `w` read and written. A part with a buffer of its own has the last of them.

use super::{
    kernel::{Kernel, Loader, Recipe},
    snippets::{ANGLE, EXPONENTIAL, Snippets, targets},
};
use crate::{Tile, objective::snippet::wgsl, uniforms::FilterTotals};

/// The recipe of a shader file, whose entry point has the file's name.
macro_rules! recipe {
    ($folder:literal, $name:expr, $kinds:literal) => {
        Recipe::new($name, $kinds, wgsl!($folder, "/", $name))
    };
}

const NORMS: &str = wgsl!("common/norms");
const MEASURE: &str = wgsl!("common/measure");
const LABELS: &str = wgsl!("common/labels");
const REDUCE: &str = wgsl!("common/reduce");
const REDUCE_TWICE: &str = wgsl!("common/reduce_twice");
const WEIGHTS: &str = wgsl!("common/class_weights");
const EQUAL_ROWS: &str = wgsl!("common/equal_rows");
const TOTALS: &str = wgsl!("head/totals_summed");
const KNOWN_TOTALS: &str = wgsl!("head/totals_known");
const BEST_LIST: &str = wgsl!("head/best_list");
const ROW_GRADIENT: &str = wgsl!("head/row_gradient");
const CURVE: &str = wgsl!("operations/margin_curve");
const BLOCK: &str = wgsl!("tile/block");
const LEFT: &str = wgsl!("filter/block");

/// Kernels that serve every loss, shape and element, a line for each: its name, folder, bindings and parts.
macro_rules! common {
    ($($(#[$meta:meta])* $name:ident: $folder:literal, $kinds:literal [$($part:expr),*];)+) => {
        $(
            $(#[$meta])*
            pub(crate) fn $name() -> Kernel {
                recipe!($folder, stringify!($name), $kinds)$(.bound_part($part))*.kernel()
            }
        )+

        /// All of them.
        #[cfg(feature = "catalogue")]
        pub(crate) const COMMON: &[fn() -> Kernel] = &[$($name),+];
    };
}

common! {
    class_totals: "head", "w" [TOTALS];
    margin_noise: "head", "wr" [];
    median_cosine: "update_state", "rw" [];
    row_log_sum_exp: "update_state", "rw" [EXPONENTIAL];
    update_state: "update_state", "rrw" [REDUCE, EXPONENTIAL, TOTALS];
    sum_row_gradients: "head", "rw" [REDUCE];
    grad_bias: "head", "rw" [];
    sum_margin_gradients: "head", "rw" [REDUCE];
    class_margin_gradients: "head", "rrw" [REDUCE];
    filter_totals: "filter", "rw" [REDUCE, LEFT, FilterTotals::WGSL];
    column_sums: "operations", "rrw" [];
    logit_rows: "operations", "rrrw" [EQUAL_ROWS, LABELS];
    logit_classes: "operations", "ww" [REDUCE, WEIGHTS];
    #[cfg(any(feature = "gpu", feature = "catalogue"))]
    monitor: "geometry", "rw" [ANGLE, REDUCE];
    monitor_mean: "geometry", "rrw" [REDUCE];
    mean_direction: "auxiliary", "rrww" [REDUCE];
    pair_value: "auxiliary", "rrw" [REDUCE];
    center_loss: "auxiliary", "rrww" [REDUCE];
}

/// `weighs`: with a buffer of weights of the rows, bound last.
pub(crate) fn row_norms(x: Loader, weighs: bool) -> Kernel {
    let recipe = recipe!("head", "row_norms", "rrrww").part(NORMS).part(MEASURE).load("embedding", 0, x);
    recipe.bound_part(if weighs { wgsl!("common/row_weights") } else { EQUAL_ROWS }).part(LABELS).kernel()
}

/// `weighs`: with a buffer of class weights, bound last.
pub(crate) fn class_norms(w: Loader, weighs: bool) -> Kernel {
    let recipe = recipe!("head", "class_norms", "rww").part(NORMS).part(MEASURE).load("prototype", 0, w);
    recipe.bound_part(if weighs { WEIGHTS } else { wgsl!("common/equal_weights") }).kernel()
}

/// `margins`: with the margin of each row.
pub(crate) fn target_rows(snippets: &Snippets, x: Loader, w: Loader, margins: bool) -> Kernel {
    let recipe = recipe!("head", "target_rows", "rrrrw").part(NORMS);
    let recipe = snippets.classes(recipe.load("embedding", 0, x).load("prototype", 1, w));
    match margins {
        true => margins_of_row(snippets, recipe).part(wgsl!("head/cosine_then_margin")).kernel(),
        false => recipe.part(wgsl!("head/cosine_alone")).kernel(),
    }
}

pub(crate) fn target_margins(snippets: &Snippets) -> Kernel {
    match snippets.stages.sees_target {
        true => margins_of_row(snippets, recipe!("head", "target_facts", "w")).kernel(),
        false => margins_of_row(snippets, recipe!("head", "target_margins", "w")).kernel(),
    }
}

/// Binds the margins of classes and rows, and the state where the loss has one.
fn margins_of_row(snippets: &Snippets, recipe: Recipe) -> Recipe {
    let recipe = given_margins(snippets.target(recipe)).part(wgsl!("head/margins_of_row"));
    recipe.bound_part(if snippets.stages.update_state { wgsl!("head/state") } else { wgsl!("head/no_state") })
}

fn given_margins(recipe: Recipe) -> Recipe {
    let recipe = recipe.part(wgsl!("head/given_margins"));
    recipe.bound_part(wgsl!("head/class_margins")).bound_part(wgsl!("head/row_margins"))
}

/// Binds the margins of classes and rows last.
pub(crate) fn margin_gradients(snippets: &Snippets) -> Kernel {
    let recipe = snippets.target(recipe!("head", "margin_gradients", "rw")).part(wgsl!("target/margin_gradient"));
    given_margins(recipe).kernel()
}

/// Where a kernel finds the totals of all classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Totals {
    /// In the batch's state, with logits from outside.
    Known,
    /// In the sums of class_norms, bound last.
    Summed,
}

impl Totals {
    /// For a kernel that binds the batch's state anyway.
    fn beside_batch(self, recipe: Recipe) -> Recipe {
        match self {
            Totals::Known => recipe.part(KNOWN_TOTALS),
            Totals::Summed => recipe.bound_part(TOTALS),
        }
    }
}

pub(crate) fn select_top_k(snippets: &Snippets) -> Kernel {
    let recipe = recipe!("head", "select_top_k", "rww").part(BEST_LIST);
    recipe.part(if snippets.many { wgsl!("sub_centers/many") } else { wgsl!("sub_centers/one") }).kernel()
}

/// `count` classes of each row.
pub(crate) fn select_nearest(snippets: &Snippets, count: usize) -> Kernel {
    snippets.classes(recipe!("head", "select_nearest", "rw").part(BEST_LIST).part(chosen(count))).kernel()
}

/// `binary`: each class is a problem of its own.
pub(crate) fn predict_rows(count: usize, binary: bool) -> Kernel {
    let recipe = recipe!("head", "predict_rows", "rwww").part(EXPONENTIAL).part(chosen(count));
    recipe.part(if binary { wgsl!("link/log_sigmoid") } else { wgsl!("link/log_softmax") }).kernel()
}

/// Into tensors of the caller's.
pub(crate) fn give_predictions(count: usize) -> Kernel {
    recipe!("head", "give_predictions", "rrrwwww").part(chosen(count)).kernel()
}

fn chosen(count: usize) -> String {
    format!("const CHOSEN = {count}u;")
}

pub(crate) fn cosines(tile: Tile, x: Loader, w: Loader, out: Loader) -> Kernel {
    let recipe = recipe!("head", "cosines", "rrrrw").part(BLOCK).part(tile.text());
    recipe.load("embedding", 0, x).load("prototype", 1, w).store("store_cosine", 4, out).kernel()
}

/// `c`: of the cosines, or logits.
pub(crate) fn row_stats(snippets: &Snippets, c: Loader) -> Kernel {
    let recipe = snippets.link(recipe!("head", "row_stats", "rrrw").part(REDUCE_TWICE));
    let recipe = if snippets.many {
        recipe.load("cosine", 0, Loader::F32).part(wgsl!("sub_centers/quad_of_many"))
    } else {
        recipe.load("cosine", 0, c).part(wgsl!("sub_centers/quad_of_one"))
    };
    let recipe = snippets.classes(snippets.other(recipe, snippets.link));
    snippets.several(recipe, wgsl!("soft/label_alone"), wgsl!("soft/several_targets")).kernel()
}

pub(crate) fn soft_labels(snippets: &Snippets) -> Kernel {
    recipe!("soft", "soft_labels", "wrrrw").part(targets(snippets.targets)).kernel()
}

pub(crate) fn soft_cosines(snippets: &Snippets, x: Loader, w: Loader) -> Kernel {
    let recipe = recipe!("soft", "soft_cosines", "rrrrw").part(NORMS).part(targets(snippets.targets));
    snippets.classes(recipe.load("embedding", 0, x).load("prototype", 1, w)).kernel()
}

pub(crate) fn soft_margins(snippets: &Snippets) -> Kernel {
    margins_of_row(snippets, recipe!("soft", "soft_margins", "rw").part(targets(snippets.targets))).kernel()
}

/// Binds the sums of class_norms last.
pub(crate) fn soft_loss(snippets: &Snippets) -> Kernel {
    snippets.soft(recipe!("soft", "soft_loss", "rwwww")).bound_part(TOTALS).kernel()
}

pub(crate) fn soft_gradients(snippets: &Snippets) -> Kernel {
    snippets.soft(recipe!("soft", "soft_gradients", "ww")).part(ROW_GRADIENT).kernel()
}

/// Binds the batch's state, or the sums, last.
pub(crate) fn row_loss(snippets: &Snippets, totals: Totals) -> Kernel {
    let recipe = snippets.link(recipe!("head", "row_loss", "rwww"));
    match totals {
        Totals::Known => recipe.bound_part(wgsl!("head/totals_read")).kernel(),
        Totals::Summed => recipe.bound_part(TOTALS).kernel(),
    }
}

/// `gradients`: a backward pass follows.
pub(crate) fn batch_loss(snippets: &Snippets, totals: Totals, gradients: bool) -> Kernel {
    let recipe = totals.beside_batch(recipe!("head", "batch_loss", "www").part(REDUCE_TWICE));
    match gradients {
        true => snippets.link(recipe).part(ROW_GRADIENT).part(wgsl!("head/finish_rows")).kernel(),
        false => recipe.part(wgsl!("head/leave_rows")).kernel(),
    }
}

pub(crate) fn row_gradients(snippets: &Snippets) -> Kernel {
    snippets.link(recipe!("head", "row_gradients", "rrw")).part(KNOWN_TOTALS).part(ROW_GRADIENT).kernel()
}

/// The gradient of cosines as the products of a backward pass read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pull {
    /// Times the prototype's inverse length and [`BatchState::balance`](crate::uniforms::BatchState); else dX looks the lengths up:
    /// where the caller gives the gradient, and for matrix units, to which f16 leaves no room for lengths.
    pub scaled: bool,
    /// Small entries were left out, and what is left is listed.
    pub filter: bool,
}

/// `c`: of the cosines, or logits. Several targets, the batch's state, and then a filter's blocks, are bound last.
pub(crate) fn grad_cosines(snippets: &Snippets, c: Loader, pull: Pull) -> Kernel {
    let recipe = snippets.link(recipe!("head", "grad_cosines", "wrrw"));
    let recipe = snippets.classes(snippets.other(recipe, snippets.link));
    let recipe = snippets.several(recipe, wgsl!("soft/pull_label"), wgsl!("soft/pull_targets"));
    let recipe = recipe.bound_part(if pull.scaled { wgsl!("head/pull_scaled") } else { wgsl!("head/pull_plain") });
    let recipe = match (snippets.many, c) {
        (true, _) => recipe.part(wgsl!("elements/inplace_f32")).part(wgsl!("sub_centers/pull_many")),
        (false, Loader::F32x4) => recipe.part(wgsl!("elements/inplace_f32x4")).part(wgsl!("sub_centers/pull_one")),
        (false, _) => recipe.part(wgsl!("elements/inplace_f32")).part(wgsl!("sub_centers/pull_one")),
    };
    match pull.filter {
        true => recipe.part(LEFT).part(REDUCE).bound_part(wgsl!("filter/apply_filter")).kernel(),
        false => recipe.part(wgsl!("filter/no_filter")).kernel(),
    }
}

/// Rows, or prototypes, that share a list of what is left, with this tile.
pub(crate) fn rows_per_list(tile: Tile) -> u32 {
    tile.rows().max(64)
}

pub(crate) fn list_classes(tile: Tile) -> Kernel {
    list(recipe!("filter", "list_classes", "rw"), tile)
}

pub(crate) fn list_rows(tile: Tile) -> Kernel {
    list(recipe!("filter", "list_rows", "rw"), tile)
}

fn list(recipe: Recipe, tile: Tile) -> Kernel {
    recipe.part(format!("const PER_LIST = {}u;", rows_per_list(tile))).part(LEFT).part(wgsl!("filter/list")).kernel()
}

/// A filter's list, and what normalises the prototypes, are bound last.
pub(crate) fn grad_embeddings(tile: Tile, g: Loader, w: Loader, pull: Pull) -> Kernel {
    let recipe = recipe!("head", "grad_embeddings", "rrw").part(BLOCK).part(tile.text());
    // the classes of a sparse gradient do not lie side by side
    let recipe = recipe.load("cosine", 0, if pull.filter { Loader::F32 } else { g });
    let recipe = recipe.load("prototype", 1, w).store("store_slab", 2, Loader::F32x4);
    let recipe = recipe.bound_part(match pull.filter {
        true => wgsl!("filter/sparse_classes"),
        false => wgsl!("filter/dense_classes"),
    });
    let how = if pull.scaled { wgsl!("head/prototypes_as_they_are") } else { wgsl!("head/prototypes_normalised") };
    recipe.bound_part(how).kernel()
}

/// `scaled`: see [`Pull`]; it binds the batch's state last then.
pub(crate) fn finish_embeddings(x: Loader, out: Loader, scaled: bool) -> Kernel {
    let recipe = recipe!("head", "finish_embeddings", "rrrww").part(REDUCE_TWICE);
    let recipe = recipe.load("embedding", 0, x).store("store_gradient", 4, out);
    recipe.bound_part(if scaled { wgsl!("head/slabs_of_head") } else { wgsl!("head/slabs_as_they_are") }).kernel()
}

/// A filter's list is bound last.
pub(crate) fn grad_prototypes(tile: Tile, g: Loader, x: Loader, w: Loader, out: Loader, pull: Pull) -> Kernel {
    let recipe = recipe!("head", "grad_prototypes", "rrrrrrw").part(BLOCK).part(tile.text());
    let recipe = recipe.load("cosine", 0, g).load("embedding", 1, x).load("prototype", 2, w);
    let recipe = recipe.store("store_gradient", 6, out).part(match pull.scaled {
        true => wgsl!("head/gradient_of_head"),
        false => wgsl!("head/gradient_of_cosines"),
    });
    recipe.bound_part(if pull.filter { wgsl!("filter/sparse_rows") } else { wgsl!("filter/dense_rows") }).kernel()
}

pub(crate) fn margin_logits(snippets: &Snippets) -> Kernel {
    let recipe = snippets.target(recipe!("operations", "margin_logits", "rrw"));
    snippets.other(recipe, snippets.target).part(CURVE).kernel()
}

pub(crate) fn margin_slopes(snippets: &Snippets) -> Kernel {
    let recipe = snippets.target(recipe!("operations", "margin_slopes", "rrrw"));
    snippets.other(recipe, snippets.target).part(CURVE).kernel()
}

pub(crate) fn gather_rows(w: Loader, out: Loader) -> Kernel {
    let recipe = recipe!("operations", "gather_rows", "rrw");
    recipe.load("prototype", 0, w).store("store_vector", 2, out).kernel()
}

pub(crate) fn direction_sums(w: Loader) -> Kernel {
    recipe!("geometry", "direction_sums", "rrw").load("prototype", 0, w).kernel()
}

pub(crate) fn monitor_pairs(tile: Tile, w: Loader) -> Kernel {
    let recipe = recipe!("geometry", "monitor_pairs", "rrrw").part(ANGLE).part(REDUCE);
    recipe.part(BLOCK).part(tile.text()).load("left", 0, w).load("right", 1, w).kernel()
}

pub(crate) fn mean_gradient(w: Loader, out: Loader) -> Kernel {
    let recipe = recipe!("auxiliary", "mean_gradient", "rrrw").part(NORMS);
    recipe.load("prototype", 0, w).store("store_gradient", 3, out).kernel()
}

pub(crate) fn pair_distances(w: Loader) -> Kernel {
    recipe!("auxiliary", "pair_distances", "rrw").load("prototype", 0, w).kernel()
}

pub(crate) fn pair_pulls(w: Loader) -> Kernel {
    recipe!("auxiliary", "pair_pulls", "rrrw").load("prototype", 0, w).kernel()
}

pub(crate) fn pair_gradient(w: Loader, out: Loader) -> Kernel {
    let recipe = recipe!("auxiliary", "pair_gradient", "rrrrwww").part(REDUCE);
    recipe.load("prototype", 0, w).store("store_gradient", 6, out).kernel()
}

pub(crate) fn center_rows(x: Loader, c: Loader) -> Kernel {
    let recipe = recipe!("auxiliary", "center_rows", "rrrww").part(NORMS);
    recipe.load("embedding", 0, x).load("center", 1, c).kernel()
}

pub(crate) fn center_gradient(x: Loader, c: Loader) -> Kernel {
    let recipe = recipe!("auxiliary", "center_gradient", "rrrrrw");
    recipe.load("embedding", 0, x).load("center", 1, c).store("store_gradient", 5, c).kernel()
}

pub(crate) fn center_update(x: Loader) -> Kernel {
    recipe!("auxiliary", "center_update", "rrrw").part(REDUCE).load("embedding", 0, x).kernel()
}

//! One descriptor per shader file. The letters are the storage bindings in the order of the file's header:
//! `r` read only, `w` read and written.

use super::kernel::{Kernel, Loader, Recipe};
use crate::{MarginSoftmax, Others, Tile};

macro_rules! shader {
    ($name:literal) => {
        include_str!(concat!("../../shaders/", $name, ".wgsl"))
    };
}

const EXPONENTIAL: &str = shader!("common/exponential");
const ANGLE: &str = shader!("common/angle");
const SERIES: &str = shader!("common/series");
const NORMS: &str = shader!("common/norms");
const MEASURE: &str = shader!("common/measure");
const LABELS: &str = shader!("common/labels");
const BLOCK: &str = shader!("tile/block");

/// The kernels that depend on the loss; everything else serves every loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snippets {
    target: &'static str,
    margin: &'static str,
    others: &'static str,
    other: &'static str,
}

impl Snippets {
    pub fn of(loss: &MarginSoftmax) -> Self {
        let other = match loss.others {
            Others::Rectified => shader!("others/rectified"),
            _ => shader!("others/identity"),
        };
        let (margin, others) = (shader!("margin/unified"), loss.others.name());
        Self { target: loss.target.name(), margin, others, other }
    }

    pub fn name(&self) -> String {
        format!("{} + {}", self.target, self.others)
    }
}

impl Tile {
    pub(super) fn text(self) -> &'static str {
        match self {
            Tile::Direct => shader!("tile/direct"),
            Tile::Tile64 => shader!("tile/tile_64"),
        }
    }

    /// Rows and columns of outputs of one workgroup.
    pub(crate) fn size(self) -> u32 {
        match self {
            Tile::Direct => 32,
            Tile::Tile64 => 64,
        }
    }
}

pub(crate) fn row_norms(x: Loader) -> Kernel {
    let recipe = Recipe::new("row_norms", "rrrww", shader!("row_norms"));
    recipe.part(NORMS).part(MEASURE).part(LABELS).load("embedding", 0, x).kernel()
}

pub(crate) fn class_norms(w: Loader) -> Kernel {
    let recipe = Recipe::new("class_norms", "rrww", shader!("class_norms"));
    recipe.part(NORMS).part(MEASURE).load("prototype", 0, w).kernel()
}

pub(crate) fn class_totals() -> Kernel {
    Recipe::new("class_totals", "rw", shader!("class_totals")).kernel()
}

pub(crate) fn target_rows(snippets: Snippets, x: Loader, w: Loader) -> Kernel {
    let recipe = Recipe::new("target_rows", "rrrrw", shader!("target_rows"));
    let recipe = recipe.part(NORMS).part(ANGLE).part(SERIES).part(snippets.margin);
    recipe.load("embedding", 0, x).load("prototype", 1, w).kernel()
}

pub(crate) fn cosines(tile: Tile, x: Loader, w: Loader, out: Loader) -> Kernel {
    let recipe = Recipe::new("cosines", "rrrrw", shader!("cosines")).part(BLOCK).part(tile.text());
    recipe.load("embedding", 0, x).load("prototype", 1, w).store("store_cosine", 4, out).kernel()
}

pub(crate) fn row_stats(snippets: Snippets) -> Kernel {
    let recipe = Recipe::new("row_stats", "rrrw", shader!("row_stats"));
    recipe.part(EXPONENTIAL).part(snippets.other).kernel()
}

pub(crate) fn row_loss() -> Kernel {
    Recipe::new("row_loss", "rrww", shader!("row_loss")).part(EXPONENTIAL).kernel()
}

pub(crate) fn batch_loss() -> Kernel {
    Recipe::new("batch_loss", "rww", shader!("batch_loss")).kernel()
}

pub(crate) fn row_gradients() -> Kernel {
    Recipe::new("row_gradients", "rrw", shader!("row_gradients")).part(EXPONENTIAL).kernel()
}

pub(crate) fn grad_cosines(snippets: Snippets) -> Kernel {
    let recipe = Recipe::new("grad_cosines", "wrrw", shader!("grad_cosines"));
    recipe.part(EXPONENTIAL).part(snippets.other).kernel()
}

pub(crate) fn grad_embeddings(tile: Tile, g: Loader, w: Loader) -> Kernel {
    let recipe = Recipe::new("grad_embeddings", "rrrw", shader!("grad_embeddings")).part(BLOCK).part(tile.text());
    recipe.load("cosine", 0, g).load("prototype", 1, w).store("store_slab", 3, Loader::F32x4).kernel()
}

pub(crate) fn finish_embeddings(x: Loader, out: Loader) -> Kernel {
    let recipe = Recipe::new("finish_embeddings", "rrrww", shader!("finish_embeddings"));
    recipe.load("embedding", 0, x).store("store_gradient", 4, out).kernel()
}

pub(crate) fn grad_prototypes(tile: Tile, g: Loader, x: Loader, w: Loader, out: Loader) -> Kernel {
    let recipe = Recipe::new("grad_prototypes", "rrrrrrw", shader!("grad_prototypes")).part(BLOCK).part(tile.text());
    let recipe = recipe.load("cosine", 0, g).load("embedding", 1, x).load("prototype", 2, w);
    recipe.store("store_gradient", 6, out).kernel()
}

pub(crate) fn column_sums() -> Kernel {
    Recipe::new("column_sums", "rrw", shader!("column_sums")).kernel()
}

pub(crate) fn margin_logits(snippets: Snippets) -> Kernel {
    let recipe = Recipe::new("margin_logits", "rrw", shader!("margin_logits")).part(ANGLE).part(SERIES);
    recipe.part(snippets.margin).part(snippets.other).kernel()
}

pub(crate) fn margin_slopes(snippets: Snippets) -> Kernel {
    let recipe = Recipe::new("margin_slopes", "rrrw", shader!("margin_slopes")).part(ANGLE).part(SERIES);
    recipe.part(snippets.margin).part(snippets.other).kernel()
}

pub(crate) fn logit_rows() -> Kernel {
    Recipe::new("logit_rows", "rrrw", shader!("logit_rows")).part(LABELS).kernel()
}

pub(crate) fn logit_classes() -> Kernel {
    Recipe::new("logit_classes", "rww", shader!("logit_classes")).kernel()
}

/// Every kernel in every variant that a plan can ask for: what the shader tests compile.
pub fn all() -> Vec<(String, Kernel)> {
    let mut list = vec![];
    let mut add = |variant: String, kernel: Kernel| list.push((format!("{} [{variant}]", kernel.name), kernel));
    for kernel in
        [class_totals(), row_loss(), batch_loss(), row_gradients(), column_sums(), logit_rows(), logit_classes()]
    {
        add("-".into(), kernel);
    }
    for others in [Others::Identity, Others::Rectified] {
        let snippets = Snippets::of(&MarginSoftmax { others, ..Default::default() });
        for kernel in [row_stats(snippets), grad_cosines(snippets), margin_logits(snippets), margin_slopes(snippets)] {
            add(snippets.name(), kernel);
        }
    }
    let stores = [Loader::F32x4, Loader::F32];
    for &x in Loader::ALL {
        add(format!("{x:?}"), row_norms(x));
        add(format!("{x:?}"), class_norms(x));
        for out in stores {
            add(format!("{x:?} {out:?}"), finish_embeddings(x, out));
        }
        for &w in Loader::ALL {
            let snippets = Snippets::of(&MarginSoftmax::default());
            add(format!("{x:?} {w:?}"), target_rows(snippets, x, w));
            for &tile in Tile::ALL {
                let variant = format!("{} {x:?} {w:?}", tile.name());
                for out in stores {
                    add(format!("{variant} {out:?}"), cosines(tile, x, w, out));
                    for g in stores {
                        add(format!("{variant} {g:?} {out:?}"), grad_prototypes(tile, g, x, w, out));
                    }
                }
                if x == Loader::F32 || x == Loader::F32x4 {
                    add(format!("{variant} as gradient"), grad_embeddings(tile, x, w));
                }
            }
        }
    }
    list.extend(super::regularizer::all());
    list.extend(super::gather::all());
    list.extend(super::monitor::all());
    list
}

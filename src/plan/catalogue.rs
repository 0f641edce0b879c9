//! Internal, with the feature `catalogue`: every kernel, for the crate's own tests and examples. Nothing here is promised from one version to the next.

use super::{
    kernel::{Kernel, Loader},
    kernels::{self as k, Snippets},
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

/// The losses whose kernels differ, each once.
fn variants() -> Vec<Snippets> {
    let shape = |k| Shape::new(1, 8, 1).and_then(|s| s.with_sub_centers(k));
    let plain = MarginSoftmax::default();
    let mut losses: Vec<MarginSoftmax> = Others::all().into_iter().map(|o| plain.clone().with_others(o)).collect();
    let links = [Link::Softmax, Link::Binary(crate::objective::Binary::default())];
    for target in [Target::Angle(Default::default()), Target::SimilarityAdjustment(Default::default())] {
        for others in
            [Others::Identity, Others::Angle(Default::default()), Others::SimilarityAdjustment(Default::default())]
        {
            losses.push(MarginSoftmax { target: target.clone(), others, ..plain.clone() });
        }
    }
    losses.push(MarginSoftmax { target: Target::Custom(crate::objective::Custom::new(Straight)), ..plain.clone() });
    losses.push(MarginSoftmax { similarity: Similarity::Dot, ..plain });
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

/// Every kernel in every variant that a plan can ask for, with the name of the variant. A shader with an entry point that
/// is missing here fails `tests/shaders.rs`.
pub fn kernels() -> Vec<(String, Kernel)> {
    let mut list: Vec<(String, Kernel)> = vec![];
    let mut add = |variant: String, kernel: Kernel| {
        // one variant of a loss changes some kernels, and leaves the others as they are
        if !list.iter().rev().take(400).any(|(_, k)| *k == kernel) {
            list.push((format!("{} [{variant}]", kernel.name), kernel));
        }
    };
    for kernel in [
        k::class_totals(),
        k::batch_loss(),
        k::column_sums(),
        k::logit_rows(),
        k::logit_classes(),
        k::margin_noise(),
        k::median_cosine(),
        k::row_log_sum_exp(),
        k::update_state(),
        k::sum_row_gradients(),
        k::grad_bias(),
        k::filter_totals(),
        k::monitor(),
        k::monitor_mean(),
        k::mean_direction(),
        k::pair_value(),
        k::center_loss(),
    ] {
        add("-".into(), kernel);
    }
    for snippets in variants() {
        let s = &snippets;
        for kernel in [
            k::row_stats(s),
            k::grad_cosines(s, false),
            k::grad_cosines(s, true),
            k::row_loss(s),
            k::row_gradients(s),
            k::target_margins(s),
            k::margin_logits(s),
            k::margin_slopes(s),
            k::select_top_k(s),
            k::target_rows(s, Loader::F32, Loader::F32x4),
        ] {
            add(format!("{}{}", s.name(), if s.many { " + centers" } else { "" }), kernel);
        }
    }
    for &tile in Tile::ALL {
        add(tile.name().into(), k::list_classes(tile));
        add(tile.name().into(), k::list_rows(tile));
    }
    let plain = Shape::new(1, 8, 1).map(|shape| Snippets::of(&MarginSoftmax::default(), shape));
    let stores = [Loader::F32x4, Loader::F32];
    for &x in Loader::ALL {
        add(format!("{x:?}"), k::row_norms(x));
        add(format!("{x:?}"), k::class_norms(x, false));
        add(format!("{x:?} with weights"), k::class_norms(x, true));
        for kernel in [k::direction_sums(x), k::pair_distances(x), k::pair_pulls(x), k::center_update(x)] {
            add(format!("{x:?}"), kernel);
        }
        for &tile in Tile::ALL {
            add(format!("{} {x:?}", tile.name()), k::monitor_pairs(tile, x));
        }
        for out in stores {
            for kernel in [
                k::finish_embeddings(x, out),
                k::gather_rows(x, out),
                k::mean_gradient(x, out),
                k::pair_gradient(x, out),
                k::center_rows(x, out),
                k::center_gradient(x, out),
            ] {
                add(format!("{x:?} {out:?}"), kernel);
            }
        }
        for &w in Loader::ALL {
            // a device has the type f16 or does not
            if x.is_half() && matches!(w, Loader::F16x4 | Loader::F16)
                || w.is_half() && matches!(x, Loader::F16x4 | Loader::F16)
            {
                continue;
            }
            if let Ok(plain) = &plain {
                add(format!("{x:?} {w:?}"), k::target_rows(plain, x, w));
            }
            for &tile in Tile::ALL {
                let variant = format!("{} {x:?} {w:?}", tile.name());
                for out in stores {
                    add(format!("{variant} {out:?}"), k::cosines(tile, x, w, out));
                    for g in stores {
                        add(format!("{variant} {g:?} {out:?}"), k::grad_prototypes(tile, g, x, w, out, false));
                    }
                    add(format!("{variant} {out:?} filtered"), k::grad_prototypes(tile, stores[0], x, w, out, true));
                }
                if x == Loader::F32 || x == Loader::F32x4 {
                    add(format!("{variant} as gradient"), k::grad_embeddings(tile, x, w, false));
                    add(format!("{variant} as gradient, filtered"), k::grad_embeddings(tile, x, w, true));
                }
            }
        }
    }
    list
}

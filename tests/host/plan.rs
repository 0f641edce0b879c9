//! The planner as plain data: budgets, chunks, shards, geometry; no device.

use margin_softmax::{
    Budget, Error, MarginSoftmax, Options, Product, Shape, Tile, Want,
    plan::{Batched, CrossEntropy, Element, Grid, Layout, Limits, Plan, Role, Slot, Stage},
};

const WANTS: [Want; 4] = [Want::LOSS, Want::EMBEDDINGS, Want::PROTOTYPES, Want::ALL];

fn plan(shape: Shape, shards: &[usize], options: &Options) -> Result<Plan, Error> {
    let layout = Layout { shards, embeddings: Element::F32, prototypes: Element::F32 };
    Plan::head(&MarginSoftmax::arcface(), shape, &layout, &Limits::WEBGPU, options)
}

/// Shapes with their shards, from one row to the sizes people train.
fn shapes() -> Vec<(Shape, Vec<usize>)> {
    let shape = |n, c, d| Shape::new(n, c, d).unwrap();
    let mut all = vec![];
    for n in [0, 1, 3, 64, 65, 512, 4096] {
        for c in [1, 2, 63, 64, 65, 1000, 10_575, 100_003] {
            for d in [1, 3, 64, 513] {
                all.push((shape(n, c, d), Plan::shards(shape(n, c, d), Element::F32, &Limits::WEBGPU).unwrap()));
            }
        }
    }
    all.push((shape(512, 85_742, 512), vec![64 * 500, 64 * 500, 21_742]));
    all.push((shape(64, 1000, 32), vec![1, 2, 997]));
    all
}

/// The budget is kept to the byte: the smallest one that is accepted is the one that the refusal names.
#[test]
fn the_smallest_budget_is_exact() {
    for (shape, shards) in shapes() {
        for want in WANTS {
            for &tile in Tile::ALL {
                let options = |bytes| Options { budget: Budget::bytes(bytes), want, tile: Some(tile), filter: None };
                let Err(Error::Budget { needed, allowed: 1 }) = plan(shape, &shards, &options(1)) else {
                    panic!("{shape:?} {want:?}: a budget of one byte is not refused");
                };
                let smallest = plan(shape, &shards, &options(needed)).unwrap();
                assert_eq!(smallest.workspace_bytes(), needed, "{shape:?} {want:?}");
                assert_eq!(
                    plan(shape, &shards, &options(needed - 1)).map(|_| ()),
                    Err(Error::Budget { needed, allowed: needed - 1 })
                );
                for bytes in [needed * 3 / 2, needed * 4, 1 << 32] {
                    let larger = plan(shape, &shards, &options(bytes)).unwrap();
                    assert!(larger.workspace_bytes() <= bytes, "{shape:?} {want:?}");
                }
            }
        }
    }
}

/// The same for what only some losses need: states, draws, chosen classes, biases, several prototypes per class.
#[test]
fn the_smallest_budget_is_exact_for_every_loss() {
    let named = |name| MarginSoftmax::named(name).unwrap();
    let wants = [Want::LOSS, Want::LOSS.with_scale(), Want::LOSS.with_bias(), Want::ALL.with_scale().with_bias()];
    for name in [
        "curricularface",
        "adaface",
        "magface",
        "elasticface_arc_plus",
        "adacos",
        "arcface_topk",
        "softmax",
        "sphereface2",
    ] {
        for (n, c, d) in [(1, 7, 3), (70, 1000, 8), (3, 100_003, 4), (2000, 9000, 16)] {
            for centers in [1, 3] {
                let loss = named(name);
                let shape = Shape::new(n, c, d).unwrap().with_sub_centers(centers).unwrap();
                let half = c / 128 * 64;
                let shards = if half > 0 { vec![half, c - half] } else { vec![c] };
                let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
                if loss.product == Product::Linear && centers > 1 {
                    continue;
                }
                for want in wants {
                    let plan = |bytes| {
                        let options = Options { budget: Budget::bytes(bytes), want, tile: None, filter: None };
                        Plan::head(&loss, shape, &layout, &Limits::WEBGPU, &options)
                    };
                    let Err(Error::Budget { needed, .. }) = plan(1) else {
                        panic!("{name} {shape:?} {want:?}: a budget of one byte is not refused");
                    };
                    for bytes in [needed, needed * 2, 1 << 32] {
                        let plan = plan(bytes).unwrap();
                        let found = plan.workspace_bytes();
                        assert!(found <= bytes && (bytes > needed || found == needed), "{name} {shape:?} {want:?}");
                        let steps = plan.stage(Stage::Follow).len();
                        assert_eq!(steps > 0, ["curricularface", "adaface", "adacos"].contains(&name), "{name}");
                    }
                    assert!(matches!(plan(needed - 1), Err(Error::Budget { .. })), "{name} {shape:?} {want:?}");
                }
            }
        }
    }
}

/// Every class lies in exactly one chunk, in order, and no chunk crosses a shard.
#[test]
fn chunks_cover_every_class_once() {
    for (shape, shards) in shapes() {
        for bytes in [1 << 20, 16 << 20, 1 << 30] {
            let options = Options { budget: Budget::bytes(bytes), ..Options::default() };
            let Ok(plan) = plan(shape, &shards, &options) else { continue };
            let mut next = 0;
            for chunk in &plan.schedule().chunks {
                let start: usize = shards[..chunk.shard].iter().sum();
                assert_eq!((chunk.first, chunk.local), (next, next - start), "{shape:?}");
                assert!(chunk.count > 0 && chunk.local + chunk.count <= shards[chunk.shard], "{shape:?}");
                next += chunk.count;
            }
            assert_eq!(next, shape.classes(), "{shape:?}");
            assert_eq!(plan.shard_sizes(), shards);
        }
    }
}

/// Nothing is larger than a binding, no kernel has more than eight storage buffers, no axis more than 65,535 groups.
#[test]
fn every_plan_keeps_to_the_limits() {
    for (shape, shards) in shapes() {
        let Ok(plan) = plan(shape, &shards, &Options::default()) else { continue };
        for buffer in plan.buffers() {
            assert!(buffer.bytes <= Limits::WEBGPU.max_binding, "{shape:?}: {buffer:?}");
        }
        for step in plan.forward().iter().chain(plan.backward()) {
            assert_eq!(step.buffers.len(), plan.kernels()[step.kernel].bindings.len());
            assert!(step.buffers.len() <= 8 && step.part < plan.parts().len());
            for rows in [0, 1, shape.rows() as u32] {
                if let Some(groups) = step.grid.dispatch(rows.min(shape.rows() as u32), 65_535).unwrap() {
                    assert!(groups.iter().all(|g| (1..=65_535).contains(g)), "{shape:?}: {groups:?}");
                }
            }
        }
    }
}

/// Work that nobody asked for is not planned.
#[test]
fn unwanted_gradients_have_no_buffers_and_no_steps() {
    let shape = Shape::new(32, 500, 16).unwrap();
    for want in WANTS {
        let plan = plan(shape, &[500], &Options { want, ..Options::default() }).unwrap();
        let given = |slot| plan.buffers().iter().any(|b| b.role == Role::Given(slot));
        assert_eq!(given(Slot::GradEmbeddings), want.grad_embeddings);
        assert_eq!(given(Slot::GradPrototypes(0)), want.grad_prototypes);
        assert_eq!(plan.backward().is_empty(), !want.any());
        let names: Vec<&str> = plan.backward().iter().map(|s| plan.kernels()[s.kernel].name).collect();
        assert_eq!(names.contains(&"grad_embeddings"), want.grad_embeddings);
        assert_eq!(names.contains(&"grad_prototypes"), want.grad_prototypes);
    }
}

/// A dispatch is folded over two axes and covers its groups; what does not fit is refused, never clamped.
#[test]
fn a_grid_is_folded_or_refused() {
    for (groups, most) in [(1, 1), (65_535, 65_535), (65_536, 65_535), (4_294_836_225, 65_535), (1000, 32), (1023, 32)]
    {
        let grid = Grid { rows_per_group: 0, groups, entries: 1 };
        let [x, y, z] = grid.dispatch(0, most).unwrap().unwrap();
        assert!(x <= most && y <= most && z == 1);
        let covered = u64::from(x) * u64::from(y);
        assert!(covered >= groups && covered < groups + u64::from(y), "{groups} in {x} x {y}");
    }
    let refused = Grid { rows_per_group: 0, groups: 4_294_836_226, entries: 1 }.dispatch(0, 65_535);
    assert!(matches!(refused, Err(Error::Limit { needed: 4_294_836_226, allowed: 65_535, .. })), "{refused:?}");
    let entries = Grid { rows_per_group: 0, groups: 1, entries: 65_536 }.dispatch(0, 65_535);
    assert!(matches!(entries, Err(Error::Limit { needed: 65_536, .. })), "{entries:?}");
    let rows = Grid { rows_per_group: 64, groups: 3, entries: 2 };
    assert_eq!(rows.dispatch(0, 65_535), Ok(None));
    assert_eq!(rows.dispatch(65, 65_535), Ok(Some([6, 1, 2])));
}

/// Shards are whole groups of 64 classes, all but the last alike, and fit one binding.
#[test]
fn shards_fit_a_binding() {
    for (classes, dim) in [(10, 4), (541_000, 64), (85_742, 512), (1_000_000, 512), (2_000_001, 1024)] {
        let shape = Shape::new(8, classes, dim).unwrap();
        let shards = Plan::shards(shape, Element::F16, &Limits::WEBGPU).unwrap();
        assert_eq!(shards.iter().sum::<usize>(), classes);
        assert!(shards.iter().all(|c| (c * dim * 4) as u64 <= Limits::WEBGPU.max_binding));
        assert!(shards[..shards.len() - 1].iter().all(|c| c % 64 == 0 && *c == shards[0]));
        // as few as possible
        let least = (classes * dim * 4).div_ceil(128 << 20);
        assert!(shards.len() <= least + 1, "{} shards, {least} are possible", shards.len());
    }
    let wide = Shape::new(1, 100, 1 << 20).unwrap();
    assert!(matches!(Plan::shards(wide, Element::F32, &Limits::WEBGPU), Err(Error::Limit { .. })));
}

/// Some software drivers stop a shader after 65,535 turns of its loops: a lane of row_stats stays below.
#[test]
fn no_lane_of_the_statistics_takes_too_many_turns() {
    let named = |name| MarginSoftmax::named(name).unwrap();
    for (loss, bends) in [(named("arcface"), 0), (named("li_arcface"), 34), (named("sphereface2"), 16)] {
        for (n, c, d, centers) in
            [(4096, 3_000_000, 8, 1), (100, 3_000_000, 8, 1), (5000, 100_000, 64, 20), (1, 60_000, 8, 256)]
        {
            let shape = Shape::new(n, c, d).unwrap().with_sub_centers(centers).unwrap();
            let limits = Limits { max_buffer: 1 << 40, max_binding: 1 << 40, ..Limits::WEBGPU };
            for want in WANTS {
                let options = Options { budget: Budget::bytes(1 << 44), want, ..Default::default() };
                let layout = Layout { shards: &[c], embeddings: Element::F32, prototypes: Element::F32 };
                let plan = Plan::head(&loss, shape, &layout, &limits, &options).unwrap();
                let steps = plan.forward().iter().filter(|s| plan.kernels()[s.kernel].name == "row_stats");
                for span in steps.map(|s| plan.parts()[s.part].slot_span as usize) {
                    let turns = 2 * span.div_ceil(64) * (centers + bends);
                    assert!(turns < 65_536, "{turns} turns: {n}x{c}x{d}, K = {centers}, {}", loss.others.name());
                }
            }
        }
    }
}

/// What knows one prototype per class says so.
#[test]
fn sub_centers_are_refused_where_nothing_knows_them() {
    let shape = Shape::new(4, 10, 8).unwrap().with_sub_centers(2).unwrap();
    let refused = |plan: Result<Plan, Error>| matches!(plan, Err(Error::Combination { what: "sub_centers", .. }));
    assert!(refused(Plan::gather(
        shape,
        &Layout { shards: &[10], embeddings: Element::F32, prototypes: Element::F32 },
        &Limits::WEBGPU
    )));
    for regularizer in [margin_softmax::Regularizer::reg_ss(), margin_softmax::Regularizer::uniform_face()] {
        assert!(refused(Plan::regularizer(&regularizer, shape, Element::F32, &Limits::WEBGPU)));
    }
}

/// Given logits: as many as the lanes can go through.
#[test]
fn too_many_given_logits_are_refused() {
    let entropy = |classes| {
        let sizes = Batched::new(1, Shape::new(1, classes, 1)?, [Element::F32; 2])?;
        Plan::cross_entropy(&CrossEntropy::default(), sizes, &Limits::WEBGPU, false)
    };
    entropy(1 << 21).unwrap();
    assert!(matches!(entropy((1 << 21) + 1), Err(Error::Size { allowed: 2_097_152, .. })));
}

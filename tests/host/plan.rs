//! The planner as plain data: budgets, chunks, shards, geometry; no device.

use margin_softmax::{
    Backend, Batch, Budget, Error, MarginSoftmax, Margins, Options, Reduction, Shape, Similarity, Target, Tile, Want,
    data::{DevicePreset, MarginGradients},
    objective::{Adaptive, Curve, Damping, Others, PRESETS, Series, Unified},
    plan::{Batched, Call, CrossEntropy, Element, Grid, Layout, Limits, Plan, Role, Stage, TensorRole, Vendor},
};

use crate::families;

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
                let options =
                    |bytes| Options { budget: Budget::bytes(bytes), want, tile: Some(tile), ..Default::default() };
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
                if loss.similarity == Similarity::Dot && centers > 1 {
                    continue;
                }
                let learned = MarginGradients::ALL.iter().filter(|_| families::learns_margins(&loss));
                let margins =
                    learned.flat_map(|&m| [Want::LOSS, Want::ALL.with_bias()].map(|want| want.with_margins(m)));
                for want in wants.into_iter().chain(margins) {
                    let plan = |bytes| {
                        let options = Options { budget: Budget::bytes(bytes), want, ..Default::default() };
                        Plan::head(&loss, shape, &layout, &Limits::WEBGPU, &options)
                    };
                    let Err(Error::Budget { needed, .. }) = plan(1) else {
                        panic!("{name} {shape:?} {want:?}: a budget of one byte is not refused");
                    };
                    for bytes in [needed, needed * 2, 1 << 32] {
                        let plan = plan(bytes).unwrap();
                        let found = plan.workspace_bytes();
                        assert!(found <= bytes && (bytes > needed || found == needed), "{name} {shape:?} {want:?}");
                        let steps = plan.stage(Stage::UpdateState).len();
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
            assert!(step.buffers.len() <= 8 && step.constants < plan.constants().len());
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
        assert_eq!(given(TensorRole::GradEmbeddings), want.grad_embeddings);
        assert_eq!(given(TensorRole::GradPrototypes(0)), want.grad_prototypes);
        assert_eq!(plan.backward().is_empty(), !want.any());
        let names: Vec<&str> = plan.backward().iter().map(|s| plan.kernels()[s.kernel].name).collect();
        assert_eq!(names.contains(&"grad_embeddings"), want.grad_embeddings);
        assert_eq!(names.contains(&"grad_prototypes"), want.grad_prototypes);
    }
}

/// A step of a head that keeps its cosines launches few kernels; more only where something happens between two of them.
#[test]
fn a_step_takes_few_dispatches() {
    let shape = Shape::new(64, 1000, 128).unwrap();
    let count = |loss: &str, upstream: bool, shards: &[usize]| {
        let layout = Layout { shards, embeddings: Element::F32, prototypes: Element::F32 };
        let loss = MarginSoftmax::named(loss).unwrap();
        let plan = Plan::head(&loss, shape, &layout, &Limits::WEBGPU, &Options::default()).unwrap();
        let call = Call { rows: 64, upstream, ..Call::default() };
        plan.steps().filter(|step| step.dispatch(&call, 65_535).unwrap().is_some()).count()
    };
    for preset in PRESETS {
        let name = preset.name;
        let loss = MarginSoftmax::named(name).unwrap();
        // the state moves by one step; AdaCos' scale by sums of its own; noise is drawn; the hardest classes are chosen; other
        // classes look at the margin
        let more = match loss.adaptive {
            _ if loss.others == Others::Curricular => 2,
            Adaptive::AdaFace(_) | Adaptive::Elastic(_) => 2,
            Adaptive::AdaCos => 6,
            _ if matches!(loss.others, Others::TopK(_)) => 2,
            _ if matches!(loss.others, Others::MvSoftmax(_) | Others::ArcNeg(_)) => 1,
            _ => 0,
        };
        assert_eq!(count(name, false, &[1000]), 11 + more, "{name}");
        assert_eq!(count(name, true, &[1000]), 12 + more, "{name}");
    }
    // norms and targets of each shard, and the margins after the last; rounds over the classes of each
    assert_eq!(count("arcface", false, &[500, 500]), 11 + 2 + 1 + 5);
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

/// Some software drivers abort a shader after 65,535 loop iterations: a lane of row_stats stays below.
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
                for span in steps.map(|s| plan.constants()[s.constants].slot_span as usize) {
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

/// The most memory that is of use keeps all cosines in one buffer; several are needed where one binding cannot hold them;
/// less memory computes them twice, the least one is named, and is enough.
#[test]
fn the_budget_chooses_between_one_buffer_several_and_none() {
    let shape = Shape::new(40, 1000, 8).unwrap();
    let narrow = Limits { max_binding: 48 << 10, ..Limits::WEBGPU };
    let layout = Layout { shards: &[1000], embeddings: Element::F32, prototypes: Element::F32 };
    for preset in DevicePreset::ALL {
        let plan = |limits: &Limits, bytes| {
            let options = Options { budget: Budget::bytes(bytes), preset: *preset, ..Options::default() };
            Plan::head(&MarginSoftmax::arcface(), shape, &layout, limits, &options)
        };
        let buffers = |plan: &Plan| plan.buffers().iter().filter(|b| b.name == "cosines").count();
        for (limits, expected) in [(Limits::WEBGPU, 1), (narrow, 4)] {
            let keep = plan(&limits, 256 << 20).unwrap();
            assert_eq!((keep.schedule().keep, buffers(&keep)), (true, expected), "{preset:?}");
            // one byte less than it takes without slabs and slots for speed
            let less = plan(&limits, 40 * 1000 * 4).unwrap();
            assert_eq!((less.schedule().keep, buffers(&less)), (false, 1), "{preset:?}");
            assert!(less.workspace_bytes() <= 40 * 1000 * 4);
            let Err(Error::Budget { needed, allowed: 1000 }) = plan(&limits, 1000) else { panic!("{preset:?}") };
            let least = plan(&limits, needed).unwrap();
            assert_eq!((least.workspace_bytes(), least.schedule().keep), (needed, false), "{preset:?}");
            assert_eq!(plan(&limits, needed - 1).err(), Some(Error::Budget { needed, allowed: needed - 1 }));
        }
    }
}

/// The tile follows device and shape; one that the device cannot run is refused if asked for, else never chosen.
#[test]
fn the_tile_follows_the_device() {
    let layout =
        |classes: &'static [usize]| Layout { shards: classes, embeddings: Element::F32, prototypes: Element::F32 };
    let tile = |rows, limits: &Limits, preset, tile| {
        let shape = Shape::new(rows, 1900, 64).unwrap();
        let options = Options { preset, tile, ..Options::default() };
        let plan = Plan::head(&MarginSoftmax::arcface(), shape, &layout(&[1900]), limits, &options)?;
        Ok::<_, Error>(plan.schedule().tile)
    };
    use DevicePreset::{Auto, Desktop, Portable, Software};
    let gpu = Limits::WEBGPU;
    let software = Limits { software: true, ..gpu };
    let small = Limits { workgroup_bytes: 9000, ..gpu };
    let smallest = Limits { workgroup_bytes: 8 << 10, ..gpu };
    for (rows, limits, preset, expected) in [
        (32, gpu, Auto, Tile::Direct),
        (33, gpu, Auto, Tile::Tile32),
        (4096, gpu, Auto, Tile::Tile32),
        (32, gpu, Software, Tile::Direct),
        (33, gpu, Software, Tile::Direct64),
        (33, software, Auto, Tile::Direct64),
        (33, software, Portable, Tile::Tile32),
        (4096, software, Auto, Tile::Direct64),
        (4096, Limits { vendor: Vendor::Nvidia, ..software }, Auto, Tile::Direct64),
        // 1,900 classes are 15 tiles of 128
        (4352, gpu, Desktop, Tile::Tile64),
        (4353, gpu, Desktop, Tile::Tile128),
        (4353, small, Desktop, Tile::Tile64),
        (4353, smallest, Desktop, Tile::Tile64),
        (4353, smallest, Auto, Tile::Tile32),
        (4353, Limits { vendor: Vendor::Nvidia, ..gpu }, Auto, Tile::Tile128),
        (4353, Limits { vendor: Vendor::Amd, ..gpu }, Auto, Tile::Tile128),
        (4353, Limits { vendor: Vendor::Intel, ..gpu }, Auto, Tile::Tile32),
        (4353, Limits { vendor: Vendor::Apple, ..gpu }, Auto, Tile::Tile64),
        (4353, Limits { vendor: Vendor::Qualcomm, ..gpu }, Auto, Tile::Tile64Short),
        (4353, Limits { vendor: Vendor::Qualcomm, ..gpu }, Portable, Tile::Tile32),
    ] {
        assert_eq!(tile(rows, &limits, preset, None), Ok(expected), "{rows} rows, {preset:?}");
    }
    for asked in Tile::ALL {
        assert_eq!(tile(3, &gpu, Auto, Some(*asked)), Ok(*asked));
    }
    let limit = "max_compute_workgroup_storage_size";
    for (asked, limits, needed) in [(Tile::Tile128, small, 16 << 10), (Tile::Tile128, smallest, 16 << 10)] {
        let refused = Error::Limit { what: asked.name(), limit, needed, allowed: limits.workgroup_bytes.into() };
        assert_eq!(tile(100, &limits, Auto, Some(asked)), Err(refused.clone()));
        let sizes = Batched::new(1, Shape::new(100, 100, 8).unwrap(), [Element::F32; 2]).unwrap();
        assert_eq!(Plan::cosine(sizes, &limits, asked, false).err(), Some(refused));
    }
    for limits in [Limits { invocations: 64, ..gpu }, Limits { size_x: 64, ..gpu }] {
        assert!(matches!(tile(100, &limits, Auto, None), Err(Error::Limit { needed: 128, allowed: 64, .. })));
    }
}

/// Every product of a step has at least two workgroups for each core of the GPUs that a preset is for, and the large head's
/// dX eight for each of 128.
#[test]
fn presets_fill_their_gpus() {
    use DevicePreset::{Apple, Desktop, Intel, Mobile};
    let [large, small] = [(512, 85_742, 512), (256, 5_994, 192)].map(|(n, c, d)| Shape::new(n, c, d).unwrap());
    let limits = Limits { max_buffer: 1 << 40, max_binding: (1 << 31) - 4, ..Limits::WEBGPU };
    for (preset, cores) in [(Desktop, 132), (Desktop, 46), (Intel, 32), (Apple, 10), (Mobile, 6)] {
        for shape in [large, small] {
            let layout = Layout { shards: &[shape.classes()], embeddings: Element::F32, prototypes: Element::F32 };
            let options = Options { preset, budget: Budget::mib(1024), ..Options::default() };
            let plan = Plan::head(&MarginSoftmax::arcface(), shape, &layout, &limits, &options).unwrap();
            for step in plan.forward().iter().chain(plan.backward()) {
                let name = plan.kernels()[step.kernel].name;
                if ["cosines", "grad_embeddings", "grad_prototypes"].contains(&name) {
                    let groups = step.grid.dispatch(shape.rows() as u32, 65_535).unwrap().unwrap();
                    let groups: u32 = groups.iter().product();
                    assert!(groups >= 2 * cores, "{preset:?}, {shape:?}: {groups} workgroups of {name}");
                    let split = (preset, name, shape) == (Desktop, "grad_embeddings", large);
                    assert!(!split || groups >= 1024, "{groups} workgroups of {name}");
                }
            }
        }
    }
}

/// Presets and tiles are found by name, and a wrong name is answered with those that exist.
#[test]
fn presets_and_tiles_have_names() {
    for preset in DevicePreset::ALL {
        assert_eq!(preset.name().parse(), Ok(*preset));
    }
    for tile in Tile::ALL {
        assert_eq!(tile.name().parse(), Ok(*tile));
    }
    let known = || "auto, portable, desktop, intel, apple, mobile, software".to_owned();
    for found in ["Desktop", "", "auto ", "gpu"] {
        let expected = Error::Name { what: "preset", found: found.into(), known: known() };
        assert_eq!(found.parse::<DevicePreset>(), Err(expected));
    }
    let message = "tile_63".parse::<Tile>().unwrap_err().to_string();
    assert_eq!(
        message,
        "`tile_63` is not a known tile; known are: direct, direct_64, tile_32, tile_64, tile_64_short, tile_128"
    );
}

/// What a device knows of a series: its damped coefficients in a row, or, where margins vary by row, those of cos θ and sin θ
/// and the factors of the damping.
#[test]
fn settings_hold_the_series_and_its_damping() {
    let shape = Shape::new(4, 9, 6).unwrap();
    for damping in [Damping::None, Damping::Jackson, Damping::Lanczos] {
        let series = Series { degree: 30, damping, ..Default::default() };
        let margin = Unified { m2: 0.2, curve: Curve::Series(series.clone()), ..Default::default() };
        let loss = MarginSoftmax { target: Target::Unified(margin), ..MarginSoftmax::cheby_aam() };
        let layout = Layout { shards: &[9], embeddings: Element::F32, prototypes: Element::F32 };
        let plan = Plan::head(&loss, shape, &layout, &Limits::WEBGPU, &Options::default()).unwrap();
        let holds = |row_margins, values: &[f64]| {
            let settings = plan.settings(&loss, &Call { rows: 4, row_margins, ..Default::default() }).unwrap();
            let words: Vec<u32> = settings.bytes().as_chunks().0.iter().map(|b| u32::from_ne_bytes(*b)).collect();
            let values: Vec<u32> = values.iter().map(|&v| (v as f32).to_bits()).collect();
            words.windows(values.len()).any(|words| words == values)
        };
        let factors: Vec<f64> = match damping {
            Damping::None => vec![1.0; 31],
            // N = 31, and the closed forms of both
            Damping::Jackson => (0..=30)
                .map(|k| {
                    let (k, step) = (f64::from(k), std::f64::consts::PI / 32.0);
                    ((32.0 - k) * (k * step).cos() + (k * step).sin() / step.tan()) / 32.0
                })
                .collect(),
            Damping::Lanczos => (0..=30)
                .map(|k| f64::from(k) * std::f64::consts::PI / 31.0)
                .map(|t| if t == 0.0 { 1.0 } else { t.sin() / t })
                .collect(),
        };
        assert!(holds(false, &series.coefficients(1.0, 0.2)), "{damping:?}");
        assert!(holds(true, &series.coefficients(1.0, 0.0)), "{damping:?}, by row");
        assert!(holds(true, &factors), "{damping:?}: factors");
        assert!(!holds(false, &factors), "{damping:?}: factors for nothing");
    }
}

/// All cosines are kept where something reads them twice: a backward pass, or a transform that looks before the margins.
#[test]
fn a_loss_alone_keeps_no_cosines() {
    let shape = Shape::new(64, 10_000, 32).unwrap();
    let layout = Layout { shards: &[10_000], embeddings: Element::F32, prototypes: Element::F32 };
    let arcface = MarginSoftmax::arcface();
    let topk = MarginSoftmax::named("arcface_topk").unwrap();
    for want in WANTS {
        let options = Options { want, ..Default::default() };
        let keep = |loss| Plan::head(loss, shape, &layout, &Limits::WEBGPU, &options).unwrap().schedule().keep;
        assert_eq!(keep(&arcface), want != Want::LOSS, "{want:?}");
        assert!(keep(&topk), "{want:?}");
    }
}

/// A plan of very many rounds would take memory and time that nobody meant to spend.
#[test]
fn too_many_rounds_are_refused() {
    let options = Options::default();
    let (most, shards) = (1 << 16, vec![1; (1 << 16) + 1]);
    let shape = |classes| Shape::new(1, classes, 1).unwrap();
    assert_eq!(plan(shape(most), &shards[..most], &options).unwrap().schedule().chunks.len(), most);
    let refused = plan(shape(most + 1), &shards, &options).unwrap_err();
    assert_eq!(refused, Error::Size { what: "rounds of a head", needed: 65_537, allowed: 65_536 });
}

/// A chunk counts its classes and its prototypes apart.
#[test]
fn chunks_know_their_sub_centers() {
    let shape = Shape::new(8, 200, 16).unwrap().with_sub_centers(3).unwrap();
    let smallest = match plan(shape, &[200], &Options { budget: Budget::bytes(0), ..Default::default() }) {
        Err(Error::Budget { needed, .. }) => Budget::bytes(needed),
        other => panic!("{other:?}"),
    };
    for budget in [smallest, Budget::default()] {
        let plan = plan(shape, &[200], &Options { budget, ..Default::default() }).unwrap();
        let chunks = &plan.schedule().chunks;
        assert_eq!(chunks.iter().map(|c| c.vectors()).sum::<usize>(), shape.vectors());
        assert!(chunks.iter().all(|c| c.vectors() == 3 * c.count && c.stride() == c.vectors().next_multiple_of(4)));
    }
}

/// An executor that gets its input on the host refuses what a head over slices refuses, in the same words.
#[test]
fn a_plan_refuses_the_input_that_slices_refuse() {
    let shape = Shape::new(2, 3, 4).unwrap();
    let (x, w, nan, far) = ([0.5; 8], [0.25; 12], [1.0, f32::NAN, 1.0], [4.0; 3]);
    let labels = [0, 2];
    let good = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Default::default() };
    let (arcface, linear) = (MarginSoftmax::arcface(), MarginSoftmax::softmax());
    let per_row = arcface.clone().with_reduction(Reduction::None);
    let three = [1.0_f32; 3];
    let m2 = |m2| Margins { m2: Some(m2), ..Margins::NONE };
    let cases = [
        (&arcface, Batch { labels: &[0, 3], ..good }),
        (&arcface, Batch { labels: &[-1, 0], ..good }),
        (&arcface, Batch { labels: &[0; 3], ..good }),
        (&arcface, Batch { class_weights: Some(&[-1.0; 3]), ..good }),
        (&arcface, Batch { class_weights: Some(&nan), ..good }),
        (&arcface, Batch { class_weights: Some(&three[1..]), ..good }),
        (&arcface, Batch { upstream: Some(&nan[1..2]), ..good }),
        (&per_row, Batch { upstream: Some(&nan[1..2]), ..good }),
        (&per_row, Batch { upstream: Some(&nan[1..]), ..good }),
        (&arcface, Batch { bias: Some(&three), ..good }),
        (&linear, Batch { bias: Some(&nan), ..good }),
        (&linear, Batch { row_margins: m2(&three[1..]), ..good }),
        (&arcface, Batch { class_margins: m2(&far), ..good }),
        (&arcface, Batch { class_margins: m2(&far[1..]), ..good }),
        (&arcface, Batch { row_margins: m2(&nan[1..]), ..good }),
    ];
    let planned = |loss: &MarginSoftmax| {
        let layout = Layout { shards: &[3], embeddings: Element::F32, prototypes: Element::F32 };
        Plan::head(loss, shape, &layout, &Limits::WEBGPU, &Options::default()).unwrap()
    };
    for (i, (loss, batch)) in cases.iter().enumerate() {
        let rows = vec![0.5; 4 * batch.labels.len()];
        let slices = Batch { embeddings: &rows, ..*batch };
        let expected = Backend::reference().head(loss, shape).unwrap().evaluate(&slices).unwrap_err();
        let found = planned(loss).check(loss, batch).unwrap_err();
        // NaN is no equal of itself
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "case {i}");
    }
    planned(&arcface).check(&arcface, &good).unwrap();
    // vectors are not looked at, a loss of other kernels is refused
    planned(&arcface).check(&arcface, &Batch { embeddings: &[], prototypes: &[], ..good }).unwrap();
    assert!(matches!(planned(&arcface).check(&linear, &good), Err(Error::Recompile { .. })));
}

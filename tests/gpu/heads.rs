//! The parts that families add to a head: states, shards over devices, curves from outside, other kernels.

use libtest_mimic::Failed;
use margin_softmax::{
    data::{Counts, MarginGradients},
    gpu::{Context, Head, Io, Tensor, operations},
    objective::{Custom, CustomOthers, RowTarget, TopK},
    plan::{Role, TensorRole},
    shard::{Statistics, Targets},
    *,
};

use crate::{
    Check,
    cases::{Case, Data, table},
    families::{self, Family, bent, lean},
    rig::{Rig, plain, same_bits, same_output},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("the_simple_front_follows_the_batch", the_simple_front_follows_the_batch),
    ("shards_agree_with_the_whole_head", shards_agree_with_the_whole_head),
    ("a_second_pass_adds_exactly_the_first", a_second_pass_adds_exactly_the_first),
    ("a_saved_state_goes_on_bit_for_bit", a_saved_state_goes_on_bit_for_bit),
    ("a_step_is_a_training_step_as_it_was_recorded", a_step_is_a_training_step_as_it_was_recorded),
    ("every_family_gives_the_same_bits_again", every_family_gives_the_same_bits_again),
    ("updates_compile_nothing_and_workspaces_are_exact", updates_compile_nothing_and_workspaces_are_exact),
    ("f16_is_the_same_with_and_without_the_type", f16_is_the_same_with_and_without_the_type),
    ("the_hardest_classes_are_found_in_long_rows", the_hardest_classes_are_found_in_long_rows),
    ("a_bad_curve_from_outside_is_refused", a_bad_curve_from_outside_is_refused),
    ("tensors_of_further_families_are_checked", tensors_of_further_families_are_checked),
    ("other_kernels_are_refused", other_kernels_are_refused),
    ("bad_margins_on_a_device_make_their_rows_invalid", bad_margins_on_a_device_make_their_rows_invalid),
    ("operations_know_every_curve_of_one_cosine", operations_know_every_curve_of_one_cosine),
];

/// A case of each family of [`Suite::Turns`](families::Suite::Turns), on f32 data.
/// Everything that a case may ask for, in one shard.
fn rig_of(context: &Context, case: &Case) -> Result<Rig, Failed> {
    let options = Options { want: case.want(), ..Default::default() };
    Ok(Rig::new(context, &case.loss, case.shape(), &plain(&[case.shape.1]), &options, &Data::new(case))?)
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = table();
    let turns = families::turns();
    cases.retain(|c| turns.iter().any(|(family, _)| family.name == c.family) && c.further);
    cases.iter_mut().for_each(|c| c.elements = Default::default());
    cases.retain(|c| Data::new(c).clear(c));
    cases.dedup_by_key(|c| c.family);
    cases
}

fn close(what: &str, found: f64, expected: f64, unit: f64) -> Result<(), Failed> {
    // the f32 paths are judged elsewhere: here a wrong number, a wrong shard, a wrong sign would show
    if (found - expected).abs() <= 2e-4 * unit.max(expected.abs()).max(1e-6) {
        return Ok(());
    }
    Err(format!("{what}: {found} is not {expected}").into())
}

fn agrees(name: &str, found: &Output, expected: &Output<f64>) -> Result<(), Failed> {
    close(&format!("{name}: loss"), found.loss.into(), expected.loss, 1e-2)?;
    for (what, f, e) in [
        ("row losses", &found.row_losses, &expected.row_losses),
        ("target cosines", &found.target_cosines, &expected.target_cosines),
        ("other cosines", &found.other_cosines, &expected.other_cosines),
        ("dX", &found.grad_embeddings, &expected.grad_embeddings),
        ("dW", &found.grad_prototypes, &expected.grad_prototypes),
        ("db", &found.grad_bias, &expected.grad_bias),
        ("ds", &vec![found.grad_scale], &vec![expected.grad_scale]),
        ("dm", &found.grad_margins, &expected.grad_margins),
    ] {
        if f.len() != e.len() {
            return Err(format!("{name}: {} values of {what}, expected {}", f.len(), e.len()).into());
        }
        let most = e.iter().fold(0.05, |m: f64, g| m.max(g.abs()));
        for (f, e) in f.iter().zip(e) {
            close(&format!("{name}: {what}"), (*f).into(), *e, most)?;
        }
    }
    assert_eq!(found.counts, expected.counts, "{name}");
    Ok(())
}

/// Batches of slices, evaluated and trained: results, state and step are those of the reference.
fn the_simple_front_follows_the_batch(context: &Context) -> Result<(), Failed> {
    for case in cases() {
        let data = Data::new(&case);
        let options = Options { want: case.want(), ..Default::default() };
        let mut head = Backend::Gpu(context.clone()).head_with(&case.loss, case.shape(), &options)?;
        head.set_state(&case.state())?;
        let evaluated = Case { training: false, ..case.clone() };
        agrees(&case.describe(), &head.evaluate(&data.batch())?, &data.expected(&evaluated).0)?;
        assert_eq!(*head.state(), case.state(), "an evaluation moved the state");
        let trained = Case { training: true, ..case.clone() };
        if !data.clear(&trained) {
            continue;
        }
        let (expected, state) = data.expected(&trained);
        agrees(&case.describe(), &head.train(&data.batch())?, &expected)?;
        let found = *head.state();
        assert_eq!((found.step, found.seed), (state.step, state.seed));
        for (f, e) in [
            (found.hardness, state.hardness),
            (found.norm_mean, state.norm_mean),
            (found.norm_deviation, state.norm_deviation),
            (found.scale, state.scale),
        ] {
            close("state", f, e, 0.1)?;
        }
        // a refused batch leaves output and state as they were
        let mut out = Output::default();
        let labels = vec![-7_i32; data.labels.len()];
        head.train_into(&Batch { labels: &labels, ..data.batch() }, &mut out).unwrap_err();
        assert_eq!((out, *head.state()), (Output::default(), found));
    }
    Ok(())
}

/// Three shards of classes on one device, as if they were three devices.
fn shards_agree_with_the_whole_head(context: &Context) -> Result<(), Failed> {
    let both = |case: Case| [false, true].map(|training| Case { training, ..case.clone() });
    for case in cases().into_iter().flat_map(both) {
        let (_, c, d) = case.shape;
        let k = case.centers;
        let data = Data::new(&case);
        if !data.clear(&case) {
            continue;
        }
        let options = Options { want: case.want(), ..Default::default() };
        let cuts = [0, c / 4, c / 2 + 1, c];
        let (mut heads, mut batches) = (vec![], vec![]);
        for range in cuts.windows(2).map(|w| w[0]..w[1]) {
            let backend = Backend::Gpu(context.clone());
            let mut head = backend.shard(&case.loss, case.shape(), range.clone(), &options)?;
            head.set_state(&case.state())?;
            heads.push(head);
            batches.push(Batch {
                prototypes: &data.prototypes[range.start * k * d..range.end * k * d],
                bias: data.bias.as_ref().map(|b| &b[range]),
                ..data.batch()
            });
        }
        let each = || batches.iter();
        let targets = heads.iter_mut().zip(each()).map(|(h, b)| h.targets(b)).collect::<Result<Vec<_>>>()?;
        let targets = Targets::merged(&targets, c)?;
        if case.training {
            for (head, batch) in heads.iter_mut().zip(each()) {
                head.follow(batch, &targets)?;
            }
        }
        let all = heads.iter_mut().zip(each()).map(|(h, b)| h.statistics(b, &targets)).collect::<Result<Vec<_>>>()?;
        let all = Statistics::merged(&all, c)?;
        let outs =
            heads.iter_mut().zip(each()).map(|(h, b)| h.gradients(b, &targets, &all)).collect::<Result<Vec<_>>>()?;
        let mut sum = outs[0].clone();
        for out in &outs[1..] {
            assert_eq!((out.loss.to_bits(), out.counts), (sum.loss.to_bits(), sum.counts), "{}", case.describe());
            sum.grad_embeddings.iter_mut().zip(&out.grad_embeddings).for_each(|(a, b)| *a += b);
            sum.grad_prototypes.extend(&out.grad_prototypes);
            sum.grad_scale += out.grad_scale;
            sum.grad_margins.iter_mut().zip(&out.grad_margins).for_each(|(a, b)| *a += b);
            if case.loss.similarity == Similarity::Dot {
                sum.grad_bias.extend(&out.grad_bias);
            }
        }
        let (expected, state) = data.expected(&case);
        agrees(&case.describe(), &sum, &expected)?;
        let found = *heads[0].state();
        assert!(heads.iter().all(|head| *head.state() == found), "{}: the shards' states differ", case.describe());
        assert_eq!((found.step, found.seed), (state.step, state.seed), "{}", case.describe());
        for (f, e) in [
            (found.hardness, state.hardness),
            (found.norm_mean, state.norm_mean),
            (found.norm_deviation, state.norm_deviation),
            (found.scale, state.scale),
        ] {
            close("state", f, e, 0.1)?;
        }
    }
    Ok(())
}

/// Every gradient: those of scale and bias, of MagFace's lengths, of several prototypes per class. x + x is exact.
fn a_second_pass_adds_exactly_the_first(context: &Context) -> Result<(), Failed> {
    for case in cases() {
        let mut rig = rig_of(context, &case)?;
        let one = rig.run(context)?;
        rig.bound.set_accumulate(true)?;
        let two = rig.run(context)?;
        let at = |what: &str| format!("{}: {what}", case.describe());
        let twice = |values: &[f32]| values.iter().map(|v| 2.0 * v).collect::<Vec<f32>>();
        same_bits(&at("dX"), &twice(&one.grad_embeddings), &two.grad_embeddings)?;
        same_bits(&at("dW"), &twice(&one.grad_prototypes), &two.grad_prototypes)?;
        same_bits(&at("ds"), &twice(&[one.grad_scale]), &[two.grad_scale])?;
        same_bits(&at("db"), &twice(&one.grad_bias), &two.grad_bias)?;
        same_bits(&at("dm"), &twice(&one.grad_margins), &two.grad_margins)?;
    }
    Ok(())
}

/// As it would come back from a file.
fn saved(state: &State) -> State {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

/// Three steps, a save, two more: those of a run that was never stopped.
fn a_saved_state_goes_on_bit_for_bit(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(9, 40, 8)?;
    let steps: Vec<Data> = (0..5).map(|seed| Data::random(shape, seed)).collect();
    for name in ["curricularface", "adaface", "adacos", "elasticface_arc_plus"] {
        let loss = MarginSoftmax::named(name)?;
        let head = || Backend::Gpu(context.clone()).head(&loss, shape);
        let mut first = head()?;
        first.set_state(&State::new(&loss, shape)?.with_seed(7))?;
        for data in &steps[..3] {
            first.train(&data.batch())?;
        }
        let mut second = head()?;
        second.set_state(&saved(first.state()))?;
        for data in &steps[3..] {
            assert_eq!(first.train(&data.batch())?, second.train(&data.batch())?, "{name}");
            assert_eq!(first.state(), second.state(), "{name}");
        }
        // a state that nobody saved gives other numbers
        let mut fresh = head()?;
        assert_ne!(fresh.train(&steps[4].batch())?, second.evaluate(&steps[4].batch())?, "{name}");
    }
    Ok(())
}

/// What is set between record and submit is for later records.
fn a_step_is_a_training_step_as_it_was_recorded(context: &Context) -> Result<(), Failed> {
    for name in ["curricularface", "adaface", "adacos"] {
        let loss = MarginSoftmax::named(name)?;
        let shape = Shape::new(9, 40, 8)?;
        let data = Data::random(shape, 5);
        let mut rig = Rig::plain(context, &loss, shape, &data)?;
        rig.bound = rig.tensors.bind_state(&rig.head)?;
        let state = State::new(&loss, shape)?;
        for training in [true, false] {
            let mut step = |toggled: bool| -> Result<(Output, Vec<f32>)> {
                rig.bound.set_state(&state)?;
                rig.bound.set_training(training);
                let mut encoder = context.device().create_command_encoder(&Default::default());
                rig.record(&mut encoder);
                rig.bound.set_training(training != toggled);
                context.queue().submit([encoder.finish()]);
                Ok((rig.tensors.read(context)?, rig.tensors.state.read(context)?))
            };
            let (plain, toggled) = (step(false)?, step(true)?);
            same_output(&plain.0, &toggled.0)?;
            same_bits("state", &plain.1, &toggled.1)?;
            let before = [state.hardness, state.norm_mean, state.norm_deviation, state.scale].map(|v| v as f32);
            assert_eq!(plain.1 != before, training, "{name}: {:?}", plain.1);
            let read = rig.bound.read_state()?;
            assert_eq!((read.step, read.seed), (state.step, state.seed));
            let found = [read.hardness, read.norm_mean, read.norm_deviation, read.scale].map(|v| v as f32);
            same_bits("read state", &found, &plain.1)?;
            assert_eq!(rig.bound.read_counts()?, Counts { rows: 9, ..Counts::default() });
        }
    }
    Ok(())
}

fn every_family_gives_the_same_bits_again(context: &Context) -> Result<(), Failed> {
    for case in cases() {
        let mut rig = rig_of(context, &case)?;
        rig.bound.set_training(true);
        let mut first: Option<Output> = None;
        for _ in 0..5 {
            rig.bound.set_state(&case.state())?;
            let out = rig.run(context)?;
            match &first {
                None => first = Some(out),
                Some(first) => {
                    same_output(first, &out)?;
                    same_bits("ds", &[first.grad_scale], &[out.grad_scale])?;
                    same_bits("db", &first.grad_bias, &out.grad_bias)?;
                }
            }
        }
    }
    Ok(())
}

fn updates_compile_nothing_and_workspaces_are_exact(context: &Context) -> Result<(), Failed> {
    for case in cases() {
        let (data, shards) = (Data::new(&case), [case.shape.1]);
        let options = Options { want: case.want(), ..Default::default() };
        let mut other = case.loss.clone().with_scale(case.loss.scale * 0.5);
        if let Others::InterclassFilter(filter) = &mut other.others {
            filter.threshold = 0.3;
        }
        if let Link::Binary(link) = &mut other.link {
            link.bias = 0.5;
        }
        if let Target::Custom(_) = &other.target {
            other.target = bent(0.5, 0.1).target;
        }
        if let Others::Custom(_) = &other.others {
            other.others = lean(0.1, 0.2).others;
        }
        let fresh = Rig::new(context, &other, case.shape(), &plain(&shards), &options, &data)?.run(context)?;
        let mut rig = Rig::new(context, &case.loss, case.shape(), &plain(&shards), &options, &data)?;
        let before = (context.allocated_bytes(), context.compiled_kernels());
        rig.bound.update(&other, case.shape.0)?;
        // a state starts with the head: that of AdaCos holds the scale
        rig.bound.set_state(&State::new(&other, case.shape())?)?;
        let mut encoder = context.device().create_command_encoder(&Default::default());
        rig.record(&mut encoder);
        context.queue().submit([encoder.finish()]);
        assert_eq!((context.allocated_bytes(), context.compiled_kernels()), before, "{}", case.describe());
        same_output(&fresh, &rig.tensors.read(context)?).map_err(|e| format!("{}: {e}", case.describe()))?;

        let before = context.allocated_bytes();
        drop(rig.tensors.bind(&rig.head)?);
        let given = |slot: TensorRole| match slot {
            TensorRole::RowLosses | TensorRole::LogSumExps => true,
            TensorRole::RowWeights => data.row_weights.is_some(),
            TensorRole::SoftClasses | TensorRole::SoftWeights => false, // in tests/gpu/soft_labels.rs
            TensorRole::ClassWeights => data.weights.is_some(),
            TensorRole::Upstream => data.upstream.is_some(),
            TensorRole::Bias => data.bias.is_some(),
            TensorRole::ClassMargins => data.class_margins.iter().any(Option::is_some),
            TensorRole::RowMargins => data.row_margins.iter().any(Option::is_some),
            _ => false,
        };
        let buffers = rig.head.plan().buffers().iter();
        let lent =
            buffers.filter(|b| matches!(b.role, Role::Optional(slot) if given(slot))).map(|b| b.bytes).sum::<u64>();
        let made = context.allocated_bytes() - before;
        assert_eq!(made + lent, rig.head.plan().workspace_bytes(), "{}", case.describe());
    }
    Ok(())
}

/// f16 is f16, whether a shader unpacks it or the device knows it.
fn f16_is_the_same_with_and_without_the_type(context: &Context) -> Result<(), Failed> {
    let adapter = context.name().split(" (").next().unwrap_or_default().to_owned();
    let bare = pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
        let found = adapters.into_iter().find(|a| a.get_info().name.starts_with(&adapter)).unwrap();
        let required_limits = found.limits();
        found.request_device(&wgpu::DeviceDescriptor { required_limits, ..Default::default() }).await
    })?;
    let bare = Context::from_device(&bare.0, &bare.1)?;
    assert!(!bare.limits().f16);
    for d in [8, 7] {
        let shape = Shape::new(9, 70, d)?;
        let case = Case { elements: [plan::Element::F16; 2], ..Case::random(shape, 4) };
        let data = Data::new(&case);
        let layout = plan::Layout { shards: &[70], embeddings: plan::Element::F16, prototypes: plan::Element::F16 };
        let options = Options { tile: Some(Tile::Direct), ..Default::default() };
        let run = |context: &Context| {
            let rig = Rig::new(context, &MarginSoftmax::arcface(), shape, &layout, &options, &data)?;
            let typed = rig.head.plan().kernels().iter().any(|k| k.source.starts_with("enable f16;"));
            assert_eq!(typed, context.limits().f16);
            rig.run(context)
        };
        same_output(&run(context)?, &run(&bare)?)?;
    }
    Ok(())
}

/// Several spans of several chunks; for the first row every class is harder than the one before it.
fn the_hardest_classes_are_found_in_long_rows(context: &Context) -> Result<(), Failed> {
    for (c, k, count) in [(20_000, 1, 5), (9_000, 2, 64), (20_000, 1, 64)] {
        let (n, d) = (3, 4);
        let mut case = Case::random(Shape::new(n, c, d)?, 5);
        case.centers = k;
        case.loss = MarginSoftmax::cosface().with_scale(16.0).with_others(Others::TopK(TopK { count, margin: 0.3 }));
        let mut data = Data::new(&case);
        let first = data.embeddings[..d].to_vec();
        let mut vectors: Vec<Vec<f32>> = data.prototypes.chunks_exact(d).map(<[f32]>::to_vec).collect();
        let cosine = |w: &Vec<f32>| {
            let dot: f32 = w.iter().zip(&first).map(|(a, b)| a * b).sum();
            dot / w.iter().map(|a| a * a).sum::<f32>().sqrt()
        };
        vectors.sort_by(|a, b| cosine(a).total_cmp(&cosine(b)));
        data.prototypes = vectors.concat();
        let expected = data.expected(&case).0;
        let mut needed = 0;
        for bytes in [1, 1 << 28] {
            let (budget, want) = (Budget::bytes(bytes.max(needed)), case.want());
            let options = Options { budget, want, ..Default::default() };
            let head = Backend::Gpu(context.clone()).head_with(&case.loss, case.shape(), &options);
            let mut head = match head {
                Err(Error::Budget { needed: least, .. }) => {
                    needed = least;
                    let options = Options { budget: Budget::bytes(least), ..options };
                    Backend::Gpu(context.clone()).head_with(&case.loss, case.shape(), &options)?
                }
                head => head?,
            };
            agrees(&case.describe(), &head.evaluate(&data.batch())?, &expected)?;
        }
    }
    Ok(())
}

/// WGSL that does not parse, does not fit, or reaches out.
#[derive(Debug)]
pub struct Bad(pub &'static str);

impl Margin for Bad {
    fn name(&self) -> &str {
        "bad"
    }
    fn value_slope(&self, x: f64) -> (f64, f64) {
        (x, 1.0)
    }
    fn wgsl(&self) -> &str {
        self.0
    }
}

impl OtherCurve for Bad {
    fn name(&self) -> &str {
        "bad"
    }
    fn value_slope(&self, c: f64, _: RowTarget) -> (f64, f64) {
        (c, 1.0)
    }
    fn wgsl(&self) -> &str {
        self.0
    }
}

fn a_bad_curve_from_outside_is_refused(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(3, 4, 5)?;
    for text in [
        "",
        "this is not WGSL",
        "fn margin_target(x: f32) -> f32 { return x; }",
        "fn margin_target(x: f32) -> ValueSlope { return ValueSlope(x, y); }",
        "fn margin_target(x: f32) -> ValueSlope { return ValueSlope(x, 1.0); } fn has(x: u32) -> bool { return true; }",
        "@compute @workgroup_size(1) fn more() {} fn margin_target(x: f32) -> ValueSlope { return ValueSlope(x, 1.0); }",
        "@group(0) @binding(9) var<storage> b: array<f32>; fn margin_target(x: f32) -> ValueSlope { return ValueSlope(b[0], 1.0); }",
    ] {
        let loss = MarginSoftmax { target: Target::Custom(Custom::new(Bad(text))), ..Default::default() };
        match Backend::Gpu(context.clone()).head(&loss, shape) {
            Err(Error::Wgsl { margin, message }) => assert!(margin == "bad" && !message.is_empty()),
            other => return Err(format!("{text}: {:?}", other.err()).into()),
        }
    }
    for text in [
        "",
        "fn margin_other(c: f32) -> ValueSlope { return ValueSlope(c, 1.0); }",
        "fn margin_other(c: f32, row: RowTarget) -> ValueSlope { return ValueSlope(c, row.margin); }",
        "fn margin_other(c: f32, row: RowTarget) -> ValueSlope { return ValueSlope(c, parameter(0u)); }",
        "fn margin_other(c: f32, row: RowTarget) -> ValueSlope { return ValueSlope(c, 1.0); } fn other() {}",
        "@group(0) @binding(19) var<storage> b: array<f32>; fn margin_other(c: f32, row: RowTarget) -> ValueSlope { return ValueSlope(b[0], 1.0); }",
    ] {
        // a margin of the same names beside it is in other kernels
        let loss = bent(0.9, 0.2).with_others(Others::Custom(CustomOthers::new(Bad(text))));
        match Backend::Gpu(context.clone()).head(&loss, shape) {
            Err(Error::Wgsl { margin, message }) => assert!(margin == "bad" && !message.is_empty()),
            other => return Err(format!("{text}: {:?}", other.err()).into()),
        }
    }
    Ok(())
}

fn tensors_of_further_families_are_checked(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (4, 10, 8);
    let shape = Shape::new(n, c, d)?;
    let f32s = |shape: &[usize]| Tensor::empty(context, shape, plan::Element::F32).unwrap();
    let (x, w, y, loss_out) =
        (f32s(&[n, d]), f32s(&[c, d]), Tensor::empty(context, &[n], plan::Element::I32)?, f32s(&[1]));
    let (w2, one, four, margins, per_class) = (f32s(&[c, 2, d]), f32s(&[1]), f32s(&[4]), f32s(&[c, 4]), f32s(&[c]));
    let head = |loss: &MarginSoftmax, shape: Shape, want: Want| -> Result<Head> {
        let options = Options { want, ..Default::default() };
        Head::new(context, loss, plan::Plan::head(loss, shape, &plain(&[c]), context.limits(), &options)?)
    };
    let prototypes = [&w];
    let io = Io::new(&x, &prototypes, &y, &loss_out);
    let arcface = head(&MarginSoftmax::arcface(), shape, Want::LOSS)?;
    let linear = head(&MarginSoftmax::softmax(), shape, Want::LOSS.with_bias())?;
    let binary = head(&MarginSoftmax::sphereface2(), shape, Want::LOSS.with_scale().with_bias())?;
    let centers = head(&MarginSoftmax::arcface(), shape.with_sub_centers(2)?, Want::LOSS)?;
    type Expected = fn(&Error) -> bool;
    let by_class = head(&MarginSoftmax::arcface(), shape, Want::LOSS.with_margins(MarginGradients::Classes))?;
    let by_row = head(&MarginSoftmax::arcface(), shape, Want::LOSS.with_margins(MarginGradients::Rows))?;
    let refused: [(&str, &Head, Io<'_>, Expected); 14] = [
        ("dm", &by_class, io, |e| matches!(e, Error::Missing { what: "grad_margins", .. })),
        ("dm", &by_class, Io { grad_margins: Some(&four), ..io }, |e| {
            matches!(e, Error::Shape { what: "grad_margins", .. })
        }),
        ("dm", &by_row, Io { grad_margins: Some(&margins), ..io }, |e| {
            matches!(e, Error::Shape { what: "grad_margins", .. })
        }),
        ("a bias", &arcface, Io { bias: Some(&per_class), ..io }, |e| {
            matches!(e, Error::Combination { what: "bias", .. })
        }),
        ("margins", &binary, Io { row_margins: Some(&four), ..io }, |e| {
            matches!(e, Error::Combination { what: "row_margins", .. })
        }),
        ("margins", &arcface, Io { row_margins: Some(&margins), ..io }, |e| {
            matches!(e, Error::Shape { what: "row_margins", .. })
        }),
        ("margins", &arcface, Io { class_margins: Some(&four), ..io }, |e| {
            matches!(e, Error::Shape { what: "class_margins", .. })
        }),
        ("a state", &arcface, Io { state: Some(&one), ..io }, |e| matches!(e, Error::Shape { what: "state", .. })),
        ("a bias", &linear, Io { bias: Some(&one), grad_bias: Some(&per_class), ..io }, |e| {
            matches!(e, Error::Shape { what: "bias", .. })
        }),
        ("db", &linear, io, |e| matches!(e, Error::Missing { what: "grad_bias", .. })),
        ("db", &linear, Io { grad_bias: Some(&one), ..io }, |e| matches!(e, Error::Shape { what: "grad_bias", .. })),
        ("ds", &binary, Io { grad_bias: Some(&one), ..io }, |e| matches!(e, Error::Missing { what: "grad_scale", .. })),
        ("db", &binary, Io { grad_scale: Some(&one), ..io }, |e| matches!(e, Error::Missing { what: "grad_bias", .. })),
        ("sub-centers", &centers, io, |e| matches!(e, Error::Shape { what: "prototypes", .. })),
    ];
    for (what, head, io, expected) in refused {
        match head.bind(&io) {
            Err(error) if expected(&error) => {}
            other => return Err(format!("{what}: {:?}", other.err()).into()),
        }
    }
    let several = [&w2];
    centers.bind(&Io { prototypes: &several, ..io })?;
    linear.bind(&Io { bias: Some(&per_class), grad_bias: Some(&f32s(&[c])), ..io })?;
    let mut bound = by_class.bind(&Io { grad_margins: Some(&margins), ..io })?;
    // a loss whose margins nobody can move stays out
    let given = objective::Series {
        degree: 1,
        coefficients: objective::Coefficients::Given(vec![0.0, 1.0]),
        ..Default::default()
    };
    let given = MarginSoftmax::arcface().with_margin(|m| m.curve = objective::Curve::Series(given));
    let refused = bound.update(&given, n);
    assert!(matches!(refused, Err(Error::Combination { what: "grad_margins", .. })), "{refused:?}");
    // what a device cannot do, or a head of this shape
    let many = Shape::new(n, c, d)?.with_sub_centers(300)?;
    assert!(matches!(head(&MarginSoftmax::arcface(), many, Want::LOSS), Err(Error::Size { needed: 300, .. })));
    let linear = head(&MarginSoftmax::softmax(), shape.with_sub_centers(2)?, Want::LOSS);
    assert!(matches!(linear, Err(Error::Combination { what: "product.linear", .. })));
    let few = MarginSoftmax::arcface().with_others(Others::TopK(TopK { count: 10, margin: 0.1 }));
    assert!(matches!(head(&few, shape, Want::LOSS), Err(Error::Parameter { what: "top_k.count", .. })));
    Ok(())
}

fn other_kernels_are_refused(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(4, 10, 8)?;
    let data = Data::random(shape, 3);
    let mut head = Backend::Gpu(context.clone()).head(&MarginSoftmax::arcface(), shape)?;
    let before = head.evaluate(&data.batch())?;
    for name in
        ["arcgrad", "curricularface", "adaface", "elasticface_arc", "sphereface2", "adacos", "arcface_topk", "softmax"]
    {
        match head.update(&MarginSoftmax::named(name)?) {
            Err(Error::Recompile { .. }) => {}
            other => return Err(format!("{name}: {other:?}").into()),
        }
    }
    assert_eq!(head.evaluate(&data.batch())?, before);
    // MagFace needs no kernel of its own
    head.update(&MarginSoftmax::magface())?;
    assert!(head.evaluate(&data.batch())?.loss != before.loss);
    Ok(())
}

/// Margins of rows on a device, on both sides of the ends of their ranges: those that slices refuse make the row invalid.
fn bad_margins_on_a_device_make_their_rows_invalid(context: &Context) -> Result<(), Failed> {
    let pi = std::f32::consts::PI;
    let loss = MarginSoftmax::arcface();
    let shape = Shape::new(8, 10, 8)?;
    for (which, values) in [
        (0, [1.0, f32::MIN_POSITIVE, 0.0, -1.0, 1e6, 1e6_f32.next_up(), f32::INFINITY, 0.5]),
        (1, [1.0, 1e-3, 0.0, -1.0, 16.0, 16.0_f32.next_up(), f32::INFINITY, 2.5]),
        (2, [pi.next_down(), -pi.next_down(), pi, -pi, -4.0, 1e9, f32::INFINITY, 0.5]),
        (3, [1e6, -1e6, 1e6_f32.next_up(), -1e6_f32.next_up(), f32::INFINITY, f32::NEG_INFINITY, 0.0, 0.5]),
    ] {
        let mut data = Data::random(shape, 3);
        data.row_margins[which] = Some(values.to_vec());
        let out = Rig::plain(context, &loss, shape, &data)?.run(context)?;
        assert!(out.loss.is_nan(), "m{which}");
        for (i, value) in values.into_iter().enumerate() {
            let mut one = [const { None::<Vec<f32>> }; 4];
            one[which] = Some(vec![value]);
            let row = Batch {
                embeddings: &data.embeddings[i * 8..][..8],
                labels: &data.labels[i..=i],
                row_margins: Margins::of(&one),
                ..data.batch()
            };
            let refused = Backend::Reference.head(&loss, shape)?.evaluate(&row).is_err();
            assert_eq!(out.row_losses[i].is_nan(), refused, "m{which} = {value:e}");
            assert!(!refused || out.grad_embeddings[i * 8..][..8].iter().all(|g| *g == 0.0), "m{which} = {value:e}");
        }
        assert!(out.grad_prototypes.iter().all(|g| g.is_finite()), "m{which}");
    }
    Ok(())
}

fn operations_know_every_curve_of_one_cosine(context: &Context) -> Result<(), Failed> {
    let cosines: Vec<f32> = (-49..50).map(|i| i as f32 / 50.0 + 0.003).collect();
    let n = cosines.len();
    let cells: Vec<f32> = cosines.iter().flat_map(|&c| [c, c]).collect();
    let tc = Tensor::upload(context, &[n, 2], &cells)?;
    let ty = Tensor::upload(context, &[n], &vec![1_i32; n])?;
    let ones = Tensor::upload(context, &[n, 2], &vec![1.0_f32; 2 * n])?;
    for (Family { name, loss, .. }, _) in families::turns() {
        let loss = loss.with_scale(1.0);
        let mut encoder = context.device().create_command_encoder(&Default::default());
        let logits = operations::margin(context, &mut encoder, &loss, &tc, &ty);
        let alone = loss.adaptive == Adaptive::None && families::others(&loss.others).largest.is_none();
        let logits = match logits {
            Ok(logits) if alone => logits,
            Err(Error::Combination { .. }) if !alone => continue,
            other => return Err(format!("{name}: {:?}", other.err()).into()),
        };
        let slopes = operations::margin_backward(context, &mut encoder, &loss, &tc, &ty, &ones)?;
        context.queue().submit([encoder.finish()]);
        let (logits, slopes) = (logits.read::<f32>(context)?, slopes.read::<f32>(context)?);
        let bias = if let Link::Binary(binary) = loss.link { binary.bias } else { 0.0 };
        for (i, &c) in cosines.iter().enumerate() {
            let curves = [loss.others.value_slope(c.into()), loss.target_value_slope(c.into())];
            for (j, (value, slope)) in curves.into_iter().enumerate() {
                let (v, s) = (f64::from(logits[2 * i + j]), f64::from(slopes[2 * i + j]));
                let at = format!("{name} at {c}, column {j}");
                assert!((v - value - bias).abs() <= 1e-5 * (1.0 + value.abs()), "{at}: value {v} is not {value}");
                assert!((s - slope).abs() <= 1e-4 * slope.abs().max(0.1), "{at}: slope {s} is not {slope}");
            }
        }
    }
    Ok(())
}

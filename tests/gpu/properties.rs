//! What an engine relies on: repeatability, encoders, bound sets, offsets, accumulation, fewer rows.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{Context, Head, Io, Tensor, operations},
    plan::{self, Element},
    *,
};

use crate::{
    Check,
    cases::Data,
    engines::Engine,
    families::{self, Family, Suite},
    full, laws,
    rig::{Rig, Tensors, plain, same_bits, same_output, tight},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("an_encoder_and_the_simple_front_give_the_same_bits", an_encoder_and_the_simple_front_give_the_same_bits),
    ("the_async_front_gives_the_same_bits", the_async_front_gives_the_same_bits),
    ("gradients_of_two_micro_batches_add_up", gradients_of_two_micro_batches_add_up),
    ("fewer_rows_than_planned", fewer_rows_than_planned),
    ("two_bound_sets_in_one_submit", two_bound_sets_in_one_submit),
    ("other_tensors_take_the_place_of_those_that_are_bound", other_tensors_take_the_place_of_those_that_are_bound),
    ("neighbours_of_a_bound_range_stay_untouched", neighbours_of_a_bound_range_stay_untouched),
    ("an_update_compiles_and_allocates_nothing", an_update_compiles_and_allocates_nothing),
    ("unwanted_gradients_are_not_computed", unwanted_gradients_are_not_computed),
    ("chunks_and_shards_agree_with_one_chunk", chunks_and_shards_agree_with_one_chunk),
    ("several_buffers_keep_the_cosines", several_buffers_keep_the_cosines),
    ("a_device_with_few_groups_gives_the_same_bits", a_device_with_few_groups_gives_the_same_bits),
    ("others_may_poll_the_device", others_may_poll_the_device),
    ("scaling_an_embedding_divides_its_gradient", scaling_an_embedding_divides_its_gradient),
    ("every_law_of_an_evaluation_holds", every_law_of_an_evaluation_holds),
];

fn shape(n: usize, c: usize, d: usize) -> Shape {
    Shape::new(n, c, d).unwrap()
}

fn an_encoder_and_the_simple_front_give_the_same_bits(context: &Context) -> Result<(), Failed> {
    let shape = shape(9, 130, 12);
    let data = Data::random(shape, 3);
    let loss = MarginSoftmax::cheby_aam();
    for tile in crate::tiles(context) {
        let options = Options { tile: Some(tile), ..Default::default() };
        let own = Rig::new(context, &loss, shape, &plain(&[130]), &options, &data)?.run(context)?;
        let mut front = Backend::Gpu(context.clone()).head_with(&loss, shape, &options)?;
        same_output(&own, &front.evaluate(&data.batch())?)?;
        // and again, with the output's vectors in use
        let mut out = Output::default();
        front.evaluate_into(&data.batch(), &mut out)?;
        front.evaluate_into(&data.batch(), &mut out)?;
        same_output(&own, &out)?;
    }
    Ok(())
}

fn the_async_front_gives_the_same_bits(context: &Context) -> Result<(), Failed> {
    let shape = shape(9, 130, 12);
    let data = Data::random(shape, 3);
    let mut front = Backend::Gpu(context.clone()).head(&MarginSoftmax::arcface(), shape)?;
    let blocking = front.evaluate(&data.batch())?;
    let awaited = pollster::block_on(front.evaluate_async(&data.batch()))?;
    assert_eq!(blocking, awaited);
    // a future that is dropped while its answer is under way leaves a head that works
    let waker = std::task::Waker::noop();
    {
        let batch = data.batch();
        let mut future = Box::pin(front.evaluate_async(&batch));
        let _ = future.as_mut().poll(&mut std::task::Context::from_waker(waker));
    }
    assert_eq!(blocking, front.evaluate(&data.batch())?);
    Ok(())
}

fn gradients_of_two_micro_batches_add_up(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (20, 30, 8);
    let whole = shape(n, c, d);
    let data = Data::random(whole, 5);
    // a sum, since the mean of two halves is not the sum of two means
    let loss = MarginSoftmax::cosface().with_reduction(Reduction::Sum).with_scale(16.0);
    let expected = Rig::plain(context, &loss, whole, &data)?.run(context)?;

    let half = shape(n / 2, c, d);
    let mut sums: Option<(Rig, Vec<f32>)> = None;
    for part in 0..2 {
        let rows = part * n / 2..(part + 1) * n / 2;
        let values = Data {
            embeddings: data.embeddings[rows.start * d..rows.end * d].to_vec(),
            labels: data.labels[rows].to_vec(),
            prototypes: data.prototypes.clone(),
            ..Data::default()
        };
        match &mut sums {
            None => {
                let rig = Rig::plain(context, &loss, half, &values)?;
                let first = rig.run(context)?;
                sums = Some((rig, first.grad_embeddings));
            }
            Some((rig, first)) => {
                rig.tensors.x.write(context, &values.embeddings)?;
                rig.tensors.y.write(context, &values.labels)?;
                rig.bound.set_accumulate(true)?;
                let both = rig.run(context)?;
                let dw = both.grad_prototypes.iter().zip(&expected.grad_prototypes);
                let largest = expected.grad_prototypes.iter().fold(0.0, |m: f32, g| m.max(g.abs()));
                // two sums in another order: a few roundings of the largest
                let worst = dw.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 4e-6 * largest, "dW is off by {worst} of {largest}");
                // dX of the second half was added to that of the first
                for (i, sum) in both.grad_embeddings.iter().enumerate() {
                    let second = expected.grad_embeddings[n / 2 * d + i];
                    assert!((sum - first[i] - second).abs() <= 2e-6 * (sum.abs() + first[i].abs() + 1.0), "dX[{i}]");
                }
                rig.bound.set_accumulate(false)?;
                let alone = rig.run(context)?;
                assert!(alone.grad_embeddings != both.grad_embeddings, "overwriting came back");
            }
        }
    }
    Ok(())
}

fn fewer_rows_than_planned(context: &Context) -> Result<(), Failed> {
    let (c, d) = (70, 12);
    let large = shape(100, c, d);
    let data = Data::random(large, 11);
    let loss = MarginSoftmax::arcface().with_label_smoothing(0.1);
    let mut front = Backend::Gpu(context.clone()).head(&loss, large)?;
    front.evaluate(&data.batch())?;
    for rows in [1, 33, 64, 65, 0] {
        let few = Batch {
            embeddings: &data.embeddings[..rows * d],
            prototypes: &data.prototypes,
            labels: &data.labels[..rows],
            ..Default::default()
        };
        let found = front.evaluate(&few)?;
        if rows == 0 {
            assert_eq!((found.loss, found.counts.rows), (0.0, 0));
            assert!(found.grad_prototypes.iter().all(|g| *g == 0.0) && found.grad_embeddings.is_empty());
            continue;
        }
        // the same bits as a head made for just as many rows, on the same tile
        let tile = Some(if context.is_software() { Tile::Direct } else { Tile::Tile64 });
        let options = Options { tile, ..Default::default() };
        let exact = Backend::Gpu(context.clone()).head_with(&loss, shape(rows, c, d), &options)?.evaluate(&few)?;
        same_bits("row_losses", &found.row_losses, &exact.row_losses)?;
        same_bits("grad_prototypes", &found.grad_prototypes, &exact.grad_prototypes)?;
        // dX is split another way: it agrees, but not in every bit
        let most = exact.grad_embeddings.iter().fold(0.0, |m: f32, g| m.max(g.abs()));
        for (a, b) in found.grad_embeddings.iter().zip(&exact.grad_embeddings) {
            assert!((a - b).abs() <= 2e-6 * most, "{a} and {b}");
        }
    }
    Ok(())
}

fn two_bound_sets_in_one_submit(context: &Context) -> Result<(), Failed> {
    let shape = shape(12, 40, 8);
    let (one, two) = (Data::random(shape, 1), Data::random(shape, 2));
    let arc = MarginSoftmax::arcface();
    let cos = MarginSoftmax::cosface().with_scale(20.0);
    let a = Rig::plain(context, &arc, shape, &one)?;
    let b = Rig::plain(context, &cos, shape, &two)?;
    let expected = (a.run(context)?, b.run(context)?);
    // the second loss on the first head, bound a second time
    let tensors = Tensors::new(context, shape, &plain(&[40]), &two)?;
    let mut bound = tensors.bind(&a.head)?;
    bound.update(&cos, 12)?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    // as interleaved as can be
    a.bound.record_forward(&mut encoder);
    bound.record_forward(&mut encoder);
    a.bound.record_backward(&mut encoder);
    bound.record_backward(&mut encoder);
    context.queue().submit([encoder.finish()]);
    same_output(&expected.0, &a.tensors.read(context)?)?;
    same_output(&expected.1, &tensors.read(context)?)?;
    Ok(())
}

fn other_tensors_take_the_place_of_those_that_are_bound(context: &Context) -> Result<(), Failed> {
    let shape = shape(9, 130, 12);
    let [one, two] = [3, 4].map(|seed| Data::random(shape, seed));
    let loss = MarginSoftmax::arcface();
    let [mut rig, other] = [Rig::plain(context, &loss, shape, &one)?, Rig::plain(context, &loss, shape, &two)?];
    let (first, second) = (rig.run(context)?, other.run(context)?);
    let (bytes, kernels) = (context.allocated_bytes(), context.compiled_kernels());
    let io = |t: &Tensors, f: &mut dyn FnMut(&Io<'_>) -> Result<(), Error>| {
        let (w, dw) = (t.w.iter().collect::<Vec<_>>(), t.dw.iter().collect::<Vec<_>>());
        f(&Io {
            class_weights: t.weights.as_ref(),
            upstream: t.upstream.as_ref(),
            row_losses: Some(&t.row_losses),
            log_sum_exps: Some(&t.log_sum_exps),
            grad_embeddings: Some(&t.dx),
            grad_prototypes: &dw,
            grad_scale: Some(&t.ds),
            ..Io::new(&t.x, &w, &t.y, &t.loss)
        })
    };
    let submit = |record: &mut dyn FnMut(&mut wgpu::CommandEncoder)| {
        let mut encoder = context.device().create_command_encoder(&Default::default());
        record(&mut encoder);
        context.queue().submit([encoder.finish()]);
    };

    // a whole step on other tensors, then the forward pass on one copy of the inputs and the backward pass on another
    io(&other.tensors, &mut |io| rig.bound.rebind(io))?;
    submit(&mut |encoder| rig.record(encoder));
    assert_eq!((context.allocated_bytes(), context.compiled_kernels()), (bytes, kernels));
    same_output(&other.tensors.read(context)?, &second)?;
    io(&rig.tensors, &mut |io| rig.bound.rebind(io))?;
    submit(&mut |encoder| rig.bound.record_forward(encoder));
    let copy = Tensors::new(context, shape, &plain(&[130]), &one)?;
    io(&copy, &mut |io| rig.bound.rebind(io))?;
    submit(&mut |encoder| rig.bound.record_backward(encoder));
    let found = copy.read(context)?;
    same_bits("dX", &found.grad_embeddings, &first.grad_embeddings)?;
    same_bits("dW", &found.grad_prototypes, &first.grad_prototypes)?;

    // what is refused changes nothing
    let narrow = Tensor::empty(context, &[9, 11], Element::F32)?;
    let t = &other.tensors;
    let refused = io(t, &mut |io| rig.bound.rebind(&Io { embeddings: &narrow, ..*io }));
    assert!(matches!(refused, Err(Error::Shape { what: "embeddings", .. })), "{refused:?}");
    let refused = io(t, &mut |io| rig.bound.rebind(&Io { row_losses: None, ..*io }));
    assert!(matches!(refused, Err(Error::Combination { what: "row_losses", .. })), "{refused:?}");
    submit(&mut |encoder| rig.record(encoder));
    same_bits("dX", &copy.read(context)?.grad_embeddings, &first.grad_embeddings)?;
    Ok(())
}

fn neighbours_of_a_bound_range_stay_untouched(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (5, 33, 7);
    let shape = shape(n, c, d);
    let data = Data::random(shape, 21);
    let loss = MarginSoftmax::arcface();
    let rig = Rig::plain(context, &loss, shape, &data)?;
    let expected = rig.run(context)?;

    // one buffer for the inputs, one for the outputs, everything at an offset, filled with a pattern
    let stride = 4096_u64;
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let pattern = vec![0x7e57_ab1e_u32; (stride * 6 / 4) as usize];
    let make = || {
        let descriptor = wgpu::BufferDescriptor { label: None, size: stride * 6, usage, mapped_at_creation: false };
        let buffer = context.device().create_buffer(&descriptor);
        context.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(&pattern));
        buffer
    };
    let (inputs, outputs) = (make(), make());
    let view = |buffer: &wgpu::Buffer, place: u64, shape: &[usize], element| {
        Tensor::from_buffer(buffer, place * stride + 256, shape, element).unwrap()
    };
    let x = view(&inputs, 1, &[n, d], Element::F32);
    let w = view(&inputs, 3, &[c, d], Element::F32);
    let y = view(&inputs, 5, &[n], Element::I32);
    x.write(context, &data.embeddings)?;
    w.write(context, &data.prototypes)?;
    y.write(context, &data.labels)?;
    let loss_out = view(&outputs, 0, &[1], Element::F32);
    let row_losses = view(&outputs, 1, &[n], Element::F32);
    let dx = view(&outputs, 2, &[n, d], Element::F32);
    let dw = view(&outputs, 4, &[c, d], Element::F32);
    let bound = rig.head.bind(&Io {
        row_losses: Some(&row_losses),
        grad_embeddings: Some(&dx),
        grad_prototypes: &[&dw],
        ..Io::new(&x, &[&w], &y, &loss_out)
    })?;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    bound.record_forward(&mut encoder);
    bound.record_backward(&mut encoder);
    context.queue().submit([encoder.finish()]);
    same_bits("loss", &loss_out.read(context)?, &[expected.loss])?;
    same_bits("row_losses", &row_losses.read(context)?, &expected.row_losses)?;
    same_bits("grad_embeddings", &dx.read(context)?, &expected.grad_embeddings)?;
    same_bits("grad_prototypes", &dw.read(context)?, &expected.grad_prototypes)?;
    let bytes = |t: &Tensor| t.offset() as usize / 4..(t.offset() + t.bytes()) as usize / 4;
    for (buffer, used) in [(&inputs, vec![&x, &w, &y]), (&outputs, vec![&loss_out, &row_losses, &dx, &dw])] {
        let all = Tensor::from_buffer(buffer, 0, &[pattern.len()], Element::U32)?.read::<u32>(context)?;
        for (i, word) in all.iter().enumerate() {
            let inside = used.iter().any(|t| bytes(t).contains(&i));
            assert!(inside || *word == 0x7e57_ab1e, "word {i} outside every tensor was written");
        }
    }
    Ok(())
}

fn an_update_compiles_and_allocates_nothing(context: &Context) -> Result<(), Failed> {
    let shape = shape(8, 20, 4);
    let data = Data::random(shape, 4);
    let loss = MarginSoftmax::arcface().with_scale(16.0);
    let mut rig = Rig::plain(context, &loss, shape, &data)?;
    let mut expected = vec![];
    let grid = families::on(Suite::Grid);
    for Family { loss, .. } in &grid {
        expected.push(Rig::plain(context, loss, shape, &data)?.run(context)?);
    }
    let before = (context.allocated_bytes(), context.compiled_kernels());
    for Family { loss, .. } in &grid {
        rig.bound.update(loss, 7)?;
        rig.bound.update(loss, 8)?;
        let mut encoder = context.device().create_command_encoder(&Default::default());
        rig.record(&mut encoder);
        context.queue().submit([encoder.finish()]);
    }
    let after = (context.allocated_bytes(), context.compiled_kernels());
    assert_eq!(after, before, "an update, a record or a submit made a buffer or compiled a kernel");
    for (Family { name, loss, .. }, expected) in grid.iter().zip(&expected) {
        rig.bound.update(loss, 8)?;
        same_output(expected, &rig.run(context)?).map_err(|e| format!("{name}: {e}"))?;
    }
    let rectified = loss.clone().with_others(Others::Rectified);
    match rig.bound.update(&rectified, 8) {
        Err(Error::Recompile { needed, compiled }) => {
            assert_eq!((needed.as_str(), compiled.as_str()), ("unified + rectified", "unified + identity"));
        }
        other => return Err(format!("{other:?}").into()),
    }
    Ok(())
}

fn unwanted_gradients_are_not_computed(context: &Context) -> Result<(), Failed> {
    let shape = shape(6, 50, 8);
    let data = Data::random(shape, 9);
    let loss = MarginSoftmax::arcface();
    let all = Backend::Gpu(context.clone()).head(&loss, shape)?.evaluate(&data.batch())?;
    for want in [Want::LOSS, Want::EMBEDDINGS, Want::PROTOTYPES] {
        let options = Options { want, ..Default::default() };
        let out = Backend::Gpu(context.clone()).head_with(&loss, shape, &options)?.evaluate(&data.batch())?;
        same_bits("loss", &[out.loss], &[all.loss])?;
        let dx = if want.grad_embeddings { all.grad_embeddings.as_slice() } else { &[] };
        let dw = if want.grad_prototypes { all.grad_prototypes.as_slice() } else { &[] };
        same_bits("grad_embeddings", &out.grad_embeddings, dx)?;
        same_bits("grad_prototypes", &out.grad_prototypes, dw)?;
    }
    Ok(())
}

fn chunks_and_shards_agree_with_one_chunk(context: &Context) -> Result<(), Failed> {
    let shape = shape(33, 1000, 20);
    let data = Data::random(shape, 13);
    let loss = MarginSoftmax::cheby_aam().with_label_smoothing(0.1);
    let one = Rig::plain(context, &loss, shape, &data)?.run(context)?;
    for shards in [vec![1000], vec![64, 936], vec![1, 2, 997], vec![333, 333, 334]] {
        for keep in [true, false] {
            let mut options = Options::default();
            if !keep {
                options.budget = tight(context, &loss, shape, &plain(&shards), &options);
            }
            let rig = Rig::new(context, &loss, shape, &plain(&shards), &options, &data)?;
            assert_eq!(rig.head.plan().schedule().keep, keep);
            let many = rig.run(context)?;
            for (what, a, b) in [
                ("row_losses", &many.row_losses, &one.row_losses),
                ("grad_embeddings", &many.grad_embeddings, &one.grad_embeddings),
                ("grad_prototypes", &many.grad_prototypes, &one.grad_prototypes),
            ] {
                let most = b.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
                let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                // sums in another order
                assert!(worst <= 4e-6 * most, "{what} is off by {worst} of {most} with {shards:?}, keep {keep}");
            }
        }
    }
    Ok(())
}

/// Where one binding cannot hold all cosines, *keep* has a buffer per chunk; *recompute* has one. All agree with the oracle.
fn several_buffers_keep_the_cosines(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (40, 1000, 8);
    let shape = shape(n, c, d);
    let data = Data::random(shape, 23);
    let loss = MarginSoftmax::arcface().with_label_smoothing(0.1).with_scale(16.0);
    let expected = data.reference(&loss, shape);
    let narrow = plan::Limits { max_binding: 48 << 10, ..*context.limits() };
    let shards = [c];
    let layout = plain(&shards);
    for tile in crate::tiles(context) {
        for (bytes, keep, buffers) in [(256 << 20, true, 4), ((n * c * 4) as u64, false, 1)] {
            let options = Options { budget: Budget::bytes(bytes), tile: Some(tile), ..Default::default() };
            let plan = plan::Plan::head(&loss, shape, &layout, &narrow, &options)?;
            assert_eq!(plan.schedule().keep, keep);
            assert_eq!(plan.buffers().iter().filter(|b| b.name == "cosines").count(), buffers);
            let head = Head::new(context, &loss, plan)?;
            let tensors = Tensors::new(context, shape, &layout, &data)?;
            let bound = tensors.bind(&head)?;
            // twice: the second step finds what the first one left
            for _ in 0..2 {
                let mut encoder = context.device().create_command_encoder(&Default::default());
                bound.record_forward(&mut encoder);
                bound.record_backward(&mut encoder);
                context.queue().submit([encoder.finish()]);
            }
            let found = tensors.read(context)?;
            for (what, found, expected) in [
                ("row_losses", &found.row_losses, &expected.row_losses),
                ("grad_embeddings", &found.grad_embeddings, &expected.grad_embeddings),
                ("grad_prototypes", &found.grad_prototypes, &expected.grad_prototypes),
            ] {
                let most = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
                let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                // the gate of the table at scale 16, slopes below 3
                assert!(worst <= 2.5e-5 * most, "{}: {what} is off by {worst} of {most}, keep {keep}", tile.name());
            }
        }
    }
    Ok(())
}

/// Every dispatch is folded over two axes there.
fn a_device_with_few_groups_gives_the_same_bits(context: &Context) -> Result<(), Failed> {
    let adapter = context.name().split(" (").next().unwrap_or_default().to_owned();
    let narrow = pollster::block_on(async {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let adapters = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
        let found = adapters.into_iter().find(|a| a.get_info().name.starts_with(&adapter)).unwrap();
        let required_limits = wgpu::Limits { max_compute_workgroups_per_dimension: 24, ..found.limits() };
        found.request_device(&wgpu::DeviceDescriptor { required_limits, ..Default::default() }).await
    })?;
    let narrow = Context::from_device(&narrow.0, &narrow.1)?;
    assert_eq!(narrow.limits().max_groups, 24);
    let shape = shape(70, 200, 33);
    let data = Data::random(shape, 7);
    let options = Options { tile: Some(Tile::Direct), ..Default::default() };
    let run = |context: &Context| {
        Rig::new(context, &MarginSoftmax::arcface(), shape, &plain(&[128, 72]), &options, &data)?.run(context)
    };
    same_output(&run(context)?, &run(&narrow)?)?;
    // more batch entries than groups along an axis
    let (b, n, c) = (50, 3, 4);
    let logits: Vec<f32> = (0..b * n * c).map(|i| (i * 37 % 101) as f32 / 20.0).collect();
    let labels: Vec<i32> = (0..b * n).map(|i| (i % c) as i32).collect();
    let entropy = |context: &Context| -> Result<[Vec<f32>; 3]> {
        let z = Tensor::upload(context, &[b, n, c], &logits)?;
        let y = Tensor::upload(context, &[b, n], &labels)?;
        let mut encoder = context.device().create_command_encoder(&Default::default());
        let options = operations::CrossEntropy::default();
        let (losses, dz) = operations::cross_entropy_backward(context, &mut encoder, &options, &z, &y, None, None)?;
        context.queue().submit([encoder.finish()]);
        Ok([losses.loss.read(context)?, losses.row_losses.read(context)?, dz.read(context)?])
    };
    let (wide, folded) = (entropy(context)?, entropy(&narrow)?);
    assert!(wide[0].iter().all(|l| *l > 0.0));
    for (a, b) in wide.iter().zip(&folded) {
        same_bits("cross entropy", a, b)?;
    }
    Ok(())
}

/// An engine polls the device that it shares; our answer may then come on its thread.
fn others_may_poll_the_device(context: &Context) -> Result<(), Failed> {
    let shape = shape(4, 10, 8);
    let data = Data::random(shape, 2);
    let mut front = Backend::Gpu(context.clone()).head(&MarginSoftmax::arcface(), shape)?;
    let first = front.evaluate(&data.batch())?;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = context.device().poll(wgpu::PollType::Poll);
                }
            });
        }
        let outcome = (0..300).try_for_each(|_| front.evaluate(&data.batch()).map(|out| assert_eq!(out, first)));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome
    })?;
    Ok(())
}

/// Catches a mistake that twin and kernel might share.
fn scaling_an_embedding_divides_its_gradient(context: &Context) -> Result<(), Failed> {
    let (n, c, d) = (4, 20, 8);
    let shape = shape(n, c, d);
    let data = Data::random(shape, 17);
    let loss = MarginSoftmax::arcface();
    let mut front = Backend::Gpu(context.clone()).head(&loss, shape)?;
    let base = front.evaluate(&data.batch())?;
    for factor in [1e-9_f32, 0.125, 1e12] {
        let scaled: Vec<f32> = data.embeddings.iter().map(|x| x * factor).collect();
        let out = front.evaluate(&Batch { embeddings: &scaled, ..data.batch() })?;
        for i in 0..n * d {
            let (a, b) = (out.grad_embeddings[i] * factor, base.grad_embeddings[i]);
            assert!((a - b).abs() <= 2e-4 * b.abs() + 1e-4, "x {factor}: {a} and {b}");
        }
        for i in 0..n {
            // an orthogonal gradient: nothing to gain from length
            let row = i * d..(i + 1) * d;
            let dot: f32 = out.grad_embeddings[row.clone()].iter().zip(&scaled[row.clone()]).map(|(g, x)| g * x).sum();
            let size: f32 = out.grad_embeddings[row.clone()].iter().zip(&scaled[row]).map(|(g, x)| (g * x).abs()).sum();
            assert!(dot.abs() <= 1e-5 * size.max(1.0), "row {i}: {dot} of {size}");
        }
    }
    Ok(())
}

/// For every preset with every reduction, on one head per preset.
fn every_law_of_an_evaluation_holds(context: &Context) -> Result<(), Failed> {
    let backend = Backend::Gpu(context.clone());
    laws::check(if full() { 64 } else { 4 }, |loss| laws::one_head(&backend, loss))?;
    laws::examples(&Engine::Slices(backend))?;
    Ok(())
}

//! The same on wgpu's device without a driver, which checks all that is bound, recorded and submitted.

use margin_softmax::{
    Budget, Error, MarginSoftmax, Options, Result, Shape, Tile, Want,
    data::GradientFilter,
    gpu::{self, Context, Head, Io, Tensor},
    plan::{Element, Layout, Limits, Plan},
};

use crate::{DEVICES, check::ALIGNMENT, lacks};

/// The devices that there can be: wgpu has numbers above all limits, and no alignment of 0.
fn devices() -> impl Iterator<Item = (&'static str, Limits)> {
    let most = wgpu::Limits::unlimited();
    DEVICES.into_iter().filter(|(_, limits)| limits.alignment > 0).map(move |(name, limits)| {
        let limits = Limits {
            max_buffer: limits.max_buffer.min(most.max_buffer_size),
            max_binding: limits.max_binding.min(most.max_storage_buffer_binding_size),
            max_groups: limits.max_groups.min(most.max_compute_workgroups_per_dimension),
            storage_buffers: limits.storage_buffers.min(most.max_storage_buffers_per_shader_stage),
            invocations: limits.invocations.min(most.max_compute_invocations_per_workgroup),
            size_x: limits.size_x.min(most.max_compute_workgroup_size_x),
            workgroup_bytes: limits.workgroup_bytes.min(most.max_compute_workgroup_storage_size),
            ..limits
        };
        (name, limits)
    })
}

/// A device with these limits.
fn open(limits: &Limits) -> (wgpu::Device, wgpu::Queue) {
    let required_limits = wgpu::Limits {
        max_buffer_size: limits.max_buffer,
        max_storage_buffer_binding_size: limits.max_binding,
        max_compute_workgroups_per_dimension: limits.max_groups,
        max_storage_buffers_per_shader_stage: limits.storage_buffers,
        max_compute_invocations_per_workgroup: limits.invocations,
        max_compute_workgroup_size_x: limits.size_x,
        max_compute_workgroup_storage_size: limits.workgroup_bytes,
        min_storage_buffer_offset_alignment: limits.alignment,
        ..Default::default()
    };
    wgpu::Device::noop(&wgpu::DeviceDescriptor { required_limits, ..Default::default() })
}

/// A device that lacks something is refused with its name, before anything is made; any other is taken as it is.
#[test]
fn a_context_takes_the_devices_that_can_run_a_head() {
    for (name, limits) in devices() {
        let (device, queue) = open(&limits);
        match (Context::from_device(&device, &queue), lacks(&limits)) {
            (Ok(context), None) => {
                let found = *context.limits();
                assert_eq!(
                    Limits { f16: limits.f16, software: limits.software, vendor: limits.vendor, ..found },
                    limits,
                    "{name}"
                );
            }
            (Err(Error::Limit { limit, .. }), Some(expected)) => assert_eq!(limit, expected, "{name}"),
            (found, expected) => panic!("{name}: {:?}, lacks {expected:?}", found.map(drop)),
        }
    }
    let least = gpu::required_limits();
    let refused = |required_limits: wgpu::Limits| {
        let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor { required_limits, ..Default::default() });
        Context::from_device(&device, &queue).err()
    };
    assert_eq!(refused(least.clone()), None);
    for (expected, limits) in [
        ("max_storage_buffers_per_shader_stage", wgpu::Limits::downlevel_defaults()),
        ("max_storage_buffers_per_shader_stage", wgpu::Limits::downlevel_webgl2_defaults()),
        ("max_bind_groups", wgpu::Limits { max_bind_groups: 0, ..least.clone() }),
        ("max_bindings_per_bind_group", wgpu::Limits { max_bindings_per_bind_group: 9, ..least.clone() }),
        (
            "max_uniform_buffers_per_shader_stage",
            wgpu::Limits { max_uniform_buffers_per_shader_stage: 1, ..least.clone() },
        ),
        (
            "max_dynamic_uniform_buffers_per_pipeline_layout",
            wgpu::Limits { max_dynamic_uniform_buffers_per_pipeline_layout: 0, ..least.clone() },
        ),
        ("max_uniform_buffer_binding_size", wgpu::Limits { max_uniform_buffer_binding_size: 1024, ..least.clone() }),
        ("min_uniform_buffer_offset_alignment", wgpu::Limits { min_uniform_buffer_offset_alignment: 512, ..least }),
    ] {
        let found = refused(limits);
        assert!(matches!(found, Some(Error::Limit { limit, .. }) if limit == expected), "{expected}: {found:?}");
    }
}

/// A tensor that starts as far into its buffer as the device allows at the nearest.
fn tensor(context: &Context, shape: &[usize], element: Element) -> Result<Tensor> {
    let bytes = shape.iter().product::<usize>() as u64 * element.bytes();
    let offset = u64::from(context.limits().alignment).next_multiple_of(4);
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: (offset + bytes).next_multiple_of(4),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    };
    Tensor::from_buffer(&context.device().create_buffer(&descriptor), offset, shape, element)
}

/// Binds a head, records and submits a training step.
fn step(context: &Context, loss: &MarginSoftmax, shape: Shape, element: Element, options: &Options) -> Result<()> {
    let shards = Plan::shards(shape, element, context.limits())?;
    let layout = Layout { shards: &shards, embeddings: element, prototypes: element };
    let plan = Plan::head(loss, shape, &layout, context.limits(), options)?;
    // wgpu's buffers without a driver are memory still
    let bytes: u64 = plan.buffers().iter().map(|buffer| buffer.bytes).sum();
    if bytes > 64 << 20 {
        return Err(Error::Budget { needed: bytes, allowed: 64 << 20 });
    }
    let (n, d, k) = (shape.rows(), shape.dim(), shape.sub_centers());
    let vectors = |element| {
        let shape = |count: usize| if k > 1 { vec![count, k, d] } else { vec![count, d] };
        shards.iter().map(|&count| tensor(context, &shape(count), element)).collect::<Result<Vec<_>>>()
    };
    let f32s = |shape: &[usize]| tensor(context, shape, Element::F32);
    let (w, dw, x, y) = (
        vectors(element)?,
        vectors(Element::F32)?,
        tensor(context, &[n, d], element)?,
        tensor(context, &[n], Element::I32)?,
    );
    let (out, dx, ds, rows) = (f32s(&[1])?, f32s(&[n, d])?, f32s(&[1])?, f32s(&[n])?);
    let (w, dw) = (w.iter().collect::<Vec<_>>(), dw.iter().collect::<Vec<_>>());
    let io = Io {
        row_losses: Some(&rows),
        grad_embeddings: Some(&dx),
        grad_prototypes: &dw,
        grad_scale: Some(&ds),
        ..Io::new(&x, &w, &y, &out)
    };
    let mut bound = Head::new(context, loss, plan)?.bind(&io)?;
    bound.set_training(true);
    for rows in [n, n / 2] {
        bound.update(loss, rows)?;
        let mut encoder = context.device().create_command_encoder(&Default::default());
        bound.record_forward(&mut encoder);
        bound.record_backward(&mut encoder);
        context.queue().submit([encoder.finish()]);
    }
    Ok(())
}

/// Nothing that is planned for a device is refused by it: sizes, offsets, bindings and dispatches are wgpu's to judge.
#[test]
fn wgpu_refuses_nothing_that_was_planned() {
    let (mut run, mut large) = (0, 0);
    let losses = ["arcface", "softmax", "sphereface2", "adacos", "arcface_topk"];
    for (d, (name, limits)) in devices().filter(|(_, limits)| lacks(limits).is_none()).enumerate() {
        let (device, queue) = open(&limits);
        let context = Context::from_device(&device, &queue).unwrap();
        for (i, (n, c, dim, k)) in [
            (1, 7, 3, 1),
            (65, 1000, 64, 1),
            (100, 3001, 20, 3),
            (5, 100_003, 4, 1),
            (60_000, 9, 5, 1),
            (70_001, 33, 4, 1),
            (3, 70, 65_536, 1),
        ]
        .into_iter()
        .enumerate()
        {
            let shape = Shape::new(n, c, dim).unwrap().with_sub_centers(k).unwrap();
            for budget in [8 << 20, 64 << 20] {
                // one of each on every device: pipelines are what takes the time
                let loss = MarginSoftmax::named(losses[if k > 1 { 0 } else { (d + i) % losses.len() }]).unwrap();
                let filter = (i % 3 == 1).then(|| GradientFilter::new(1e-5).unwrap());
                let filter = filter.filter(|_| loss == MarginSoftmax::arcface());
                let soft_labels = (i % 4 == 2).then_some(3).filter(|_| loss == MarginSoftmax::arcface());
                let tile = (limits.workgroup_bytes > 9000).then(|| Tile::ALL[(d + i) % Tile::ALL.len()]);
                let options = Options {
                    budget: Budget::bytes(budget),
                    want: Want::ALL.with_scale(),
                    tile,
                    filter,
                    soft_labels,
                    ..Default::default()
                };
                let element = [Element::F32, Element::F16, Element::Bf16][(d + i) % 3];
                let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
                let outcome = step(&context, &loss, shape, element, &options);
                let error = pollster::block_on(scope.pop());
                let at = format!("{shape:?} on {name}, {element:?}, {options:?}");
                assert!(error.is_none(), "{at}: {error:?}");
                match outcome {
                    Ok(()) => run += 1,
                    Err(Error::Limit { .. } | Error::Budget { .. }) => large += 1,
                    Err(error) => panic!("{at}: {error}"),
                }
            }
        }
    }
    println!("{run} heads ran, {large} were refused for their size");
    assert!(run > 70 && large > 5, "{run} ran, {large} were refused");
}

/// The nearest offset that a device allows is taken, half of it is not, whatever its alignment is.
#[test]
fn a_tensor_between_two_alignments_is_refused() {
    for alignment in [16, 32, 64, 128, 256] {
        let (device, queue) = open(&Limits { alignment, ..Limits::WEBGPU });
        let context = Context::from_device(&device, &queue).unwrap();
        let (loss, shape) = (MarginSoftmax::arcface(), Shape::new(4, 9, 4).unwrap());
        let options = Options { want: Want::LOSS, tile: Some(Tile::Direct), ..Default::default() };
        let layout = Layout { shards: &[9], embeddings: Element::F32, prototypes: Element::F32 };
        let plan = Plan::head(&loss, shape, &layout, context.limits(), &options).unwrap();
        let head = Head::new(&context, &loss, plan).unwrap();
        let make = |shape: &[usize], element| tensor(&context, shape, element).unwrap();
        let (x, w) = (make(&[40, 4], Element::F32), make(&[9, 4], Element::F32));
        let (y, out) = (make(&[4], Element::I32), make(&[1], Element::F32));
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        for offset in [alignment, alignment / 2, alignment + 4] {
            let x = Tensor::from_buffer(x.buffer(), offset.into(), &[4, 4], Element::F32).unwrap();
            let bound = head.bind(&Io::new(&x, &[&w], &y, &out)).map(drop);
            let alignment = u64::from(alignment);
            let refused = Error::Alignment { what: "embeddings", offset: offset.into(), alignment };
            let expected = if u64::from(offset) == alignment { Ok(()) } else { Err(refused) };
            assert_eq!(bound, expected, "{ALIGNMENT} = {alignment}");
        }
        assert!(pollster::block_on(scope.pop()).is_none());
    }
}

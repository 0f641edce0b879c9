//! Timestamps, and what recording costs.

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{
        Context,
        timing::{Detail, Timing},
    },
    *,
};

use crate::{
    Check,
    cases::Data,
    counting::allocations,
    faults::large,
    rig::{Rig, plain, same_output, tight},
    waits::{Impatient, until_late},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("every_kernel_has_a_time_and_the_same_result", every_kernel_has_a_time_and_the_same_result),
    ("an_error_leaves_the_spans_to_the_next_call", an_error_leaves_the_spans_to_the_next_call),
    ("more_spans_than_a_query_set_holds", more_spans_than_a_query_set_holds),
    ("a_device_without_timestamps_is_refused", a_device_without_timestamps_is_refused),
    ("recording_allocates_what_its_wgpu_calls_do", recording_allocates_what_its_wgpu_calls_do),
];

/// `None` on a device that has no timestamps.
fn timing(context: &Context) -> Result<Option<Timing>> {
    match Timing::new(context) {
        Ok(timing) => Ok(Some(timing)),
        Err(_) if !context.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) => Ok(None),
        Err(error) => Err(error),
    }
}

fn every_kernel_has_a_time_and_the_same_result(context: &Context) -> Result<(), Failed> {
    let Some(mut timing) = timing(context)? else { return Ok(()) };
    let shape = Shape::new(17, 200, 12)?;
    let data = Data::random(shape, 1);
    // a training step of this one follows the batch
    let loss = MarginSoftmax::curricularface();
    let layout = plain(&[200]);
    let least = tight(context, &loss, shape, &layout, &Options::default());
    for budget in [least, Budget::default()] {
        let options = Options { budget, ..Options::default() };
        for training in [false, true] {
            let mut rig = Rig::new(context, &loss, shape, &layout, &options, &data)?;
            rig.bound.set_training(training);
            let start = rig.bound.read_state()?;
            let expected = rig.run(context)?;
            let plan = rig.head.plan();
            let name = |step: &plan::Step| plan.kernels()[step.kernel].name;
            let (left_out, all) = (plan.stage(plan::Stage::UpdateState), plan.forward().iter().enumerate());
            let run = all.filter(|(i, _)| training || !left_out.contains(i)).map(|(_, step)| step);
            // without an upstream gradient
            let names: Vec<_> = run.chain(plan.backward()).filter(|step| !step.upstream).map(name).collect();
            for (detail, labels) in [(Detail::Steps, names), (Detail::Passes, vec!["forward", "backward"])] {
                rig.bound.set_state(&start)?;
                let mut encoder = context.device().create_command_encoder(&Default::default());
                timing.record_forward(detail, &rig.bound, &mut encoder)?;
                timing.record_backward(detail, &rig.bound, &mut encoder)?;
                context.queue().submit([encoder.finish()]);
                let spans = timing.read()?;
                assert_eq!(
                    spans.iter().map(|s| s.label).collect::<Vec<_>>(),
                    labels,
                    "{budget:?}, training {training}"
                );
                assert!(spans.iter().all(|s| s.nanoseconds.is_finite() && s.nanoseconds >= 0.0), "{spans:?}");
                assert!(spans.is_sorted_by(|a, b| a.start <= b.start), "{spans:?}");
                assert_eq!(spans[0].start, 0.0);
                assert!(spans.iter().map(|s| s.nanoseconds).sum::<f64>() > 0.0, "no time passed");
                same_output(&rig.tensors.read(context)?, &expected)?;
                assert!(timing.read()?.is_empty(), "a span was read twice");
            }
        }
    }
    Ok(())
}

/// A read that is late loses nothing.
fn an_error_leaves_the_spans_to_the_next_call(context: &Context) -> Result<(), Failed> {
    let Some(mut timing) = timing(context)? else { return Ok(()) };
    let rig = Rig::plain(context, &MarginSoftmax::arcface(), large(), &Data::random(large(), 3))?;
    let record = |timing: &mut Timing| -> Result<()> {
        let mut encoder = context.device().create_command_encoder(&Default::default());
        for _ in 0..20 {
            timing.record_forward(Detail::Passes, &rig.bound, &mut encoder)?;
        }
        context.queue().submit([encoder.finish()]);
        Ok(())
    };
    // lavapipe's submit that copies timestamps waits for them, so that no read is late
    if context.name().contains("llvmpipe") {
        record(&mut timing)?;
    } else {
        until_late(|| {
            record(&mut timing)?;
            let impatient = Impatient::new(context);
            let found = timing.read();
            drop(impatient);
            Ok(found)
        })?;
    }
    assert_eq!(timing.read()?.iter().map(|s| s.label).collect::<Vec<_>>(), ["forward"; 20]);
    assert!(timing.read()?.is_empty());
    Ok(())
}

fn more_spans_than_a_query_set_holds(context: &Context) -> Result<(), Failed> {
    let Some(mut timing) = timing(context)? else { return Ok(()) };
    let count = wgpu::QUERY_SET_MAX_QUERIES as usize / 2 + 3;
    let mut encoder = context.device().create_command_encoder(&Default::default());
    for _ in 0..count {
        let timestamp_writes = Some(timing.span("empty")?);
        encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
    }
    // never submitted
    timing.span("lost")?;
    context.queue().submit([encoder.finish()]);
    let spans = timing.read()?;
    assert_eq!(spans.len(), count + 1);
    assert!(spans[..count].is_sorted_by(|a, b| a.start <= b.start));
    assert_eq!(spans[count].nanoseconds, 0.0);
    Ok(())
}

fn a_device_without_timestamps_is_refused(_: &Context) -> Result<(), Failed> {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    match Timing::new(&Context::from_device(&device, &queue)?) {
        Err(Error::Feature { feature: "TIMESTAMP_QUERY", .. }) => Ok(()),
        Err(other) => Err(format!("another error: {other:?}").into()),
        Ok(_) => Err("it was accepted".into()),
    }
}

/// The recording of a bound head beside the same wgpu calls on the same objects: wgpu's encoder allocates, we do not.
fn recording_allocates_what_its_wgpu_calls_do(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(70, 3000, 16)?;
    let data = Data::random(shape, 1);
    let loss = MarginSoftmax::arcface();
    let layout = plain(&[3000]);
    let least = tight(context, &loss, shape, &layout, &Options::default());
    for (budget, most) in [(Budget::default(), 16), (least, usize::MAX)] {
        let options = Options { budget, ..Options::default() };
        let Rig { bound, head, .. } = Rig::new(context, &loss, shape, &layout, &options, &data)?;
        let steps = head.plan().forward().len() + head.plan().backward().len();
        assert!(steps <= most && (steps > 100 || most < usize::MAX), "{steps} steps prove nothing");
        let by_hand = bound.dispatches();
        let count = |record: &dyn Fn(&mut wgpu::CommandEncoder)| {
            let mut encoder = context.device().create_command_encoder(&Default::default());
            allocations(|| record(&mut encoder))
        };
        // the first recording may find empty pools
        for turn in 0..3 {
            let own = count(&|encoder| {
                bound.record_forward(encoder);
                bound.record_backward(encoder);
            });
            let bare = count(&|encoder| by_hand.iter().for_each(|pass| record_by_hand(pass, encoder)));
            assert!(bare > 0, "nothing was counted");
            assert!(turn == 0 || own == bare, "{own} allocations, {bare} by hand, {steps} steps");
        }
    }
    Ok(())
}

/// A pass of the wgpu calls that a bound head makes.
fn record_by_hand(pass: &[gpu::Dispatch], encoder: &mut wgpu::CommandEncoder) {
    let descriptor = wgpu::ComputePassDescriptor { label: Some("by hand"), timestamp_writes: None };
    let mut recorded = encoder.begin_compute_pass(&descriptor);
    for (pipeline, group, part, [x, y, z]) in pass {
        recorded.set_pipeline(pipeline);
        recorded.set_bind_group(0, group, &[*part]);
        recorded.dispatch_workgroups(*x, *y, *z);
    }
}

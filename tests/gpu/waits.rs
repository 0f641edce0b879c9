//! Waiting for a device: too long, in vain, from several threads.

use std::{
    future::Future,
    pin::pin,
    task::{Poll, Waker},
    time::Duration,
};

use libtest_mimic::Failed;
use margin_softmax::{
    gpu::{BoundHead, Context, Head, Tensor, monitor::HeadMonitor, timing::Timing},
    partial::SampledHead,
    plan::Element,
    *,
};

use crate::{
    Check,
    cases::Data,
    faults::{front, large, loss, options, scoped, shape, watched},
    rig::{Rig, plain, same_output},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("threads_share_a_device", |c| watched(c, threads_share_a_device)),
    ("a_dropped_future_leaves_nothing_behind", |c| watched(c, a_dropped_future_leaves_nothing_behind)),
    ("a_timeout_is_an_error_and_the_head_goes_on", |c| watched(c, a_timeout_is_an_error_and_the_head_goes_on)),
    ("a_failed_training_step_did_not_happen", |c| watched(c, a_failed_training_step_did_not_happen)),
];

/// Natively; in a browser wgpu's objects stay on their thread.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<(Context, Head, BoundHead, Tensor, HeadMonitor, Timing)>();
    shared::<(Backend, SliceHead, SampledHead, Output, Error, MarginSoftmax, plan::Plan)>();
};

/// Two heads of slices, two bound sets, and calls that fail: all at once, each with its own results and errors.
fn threads_share_a_device(context: &Context) -> Result<(), Failed> {
    let data = [Data::random(shape(), 3), Data::random(shape(), 4)];
    let mut heads = [front(context, shape())?, front(context, shape())?];
    let layout = [shape().classes()];
    let rig = |data| Rig::new(context, &loss(), shape(), &plain(&layout), &options(), data);
    let rigs = [rig(&data[0])?, rig(&data[1])?];
    let expected = [heads[0].evaluate(&data[0].batch())?, heads[1].evaluate(&data[1].batch())?];
    let planned = [rigs[0].run(context)?, rigs[1].run(context)?];
    assert_ne!(expected[0], expected[1]);
    let destroyed = Tensor::empty(context, &[4], Element::F32)?;
    destroyed.buffer().destroy();
    std::thread::scope(|scope| {
        let mut threads = vec![];
        for (i, head) in heads.iter_mut().enumerate() {
            let (data, expected) = (&data[i], &expected[i]);
            // a head that moves to another thread
            threads.push(scope.spawn(move || -> Result<(), Failed> {
                for _ in 0..30 {
                    let out = scoped(context.device(), || head.evaluate(&data.batch()))??;
                    same_output(&out, expected)?;
                    same_output(&pollster::block_on(head.evaluate_async(&data.batch()))?, expected)?;
                }
                Ok(())
            }));
        }
        for (rig, expected) in rigs.into_iter().zip(&planned) {
            threads.push(scope.spawn(move || -> Result<(), Failed> {
                for _ in 0..30 {
                    same_output(&rig.run(context)?, expected)?;
                }
                Ok(())
            }));
        }
        threads.push(scope.spawn(|| -> Result<(), Failed> {
            for _ in 0..100 {
                let refused = scoped(context.device(), || destroyed.write(context, &[1.0_f32; 4]))?;
                assert!(matches!(refused, Err(Error::Foreign { what: "tensor", .. })), "{refused:?}");
            }
            Ok(())
        }));
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
    })
}

/// A future that is polled a number of times and dropped.
fn drop_after<T>(polls: usize, future: impl Future<Output = T>) -> Result<(), Failed> {
    let mut future = pin!(future);
    let mut cx = std::task::Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if future.as_mut().poll(&mut cx).is_ready() {
            return Err("it was done too early for this test".into());
        }
    }
    Ok(())
}

/// Bytes that the driver holds for buffers and textures that are alive.
fn held(context: &Context) -> Option<u64> {
    // what was written waits for a submit
    context.queue().submit([]);
    context.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
    context.device().generate_allocator_report().map(|report| report.total_allocated_bytes)
}

fn a_dropped_future_leaves_nothing_behind(context: &Context) -> Result<(), Failed> {
    let data = Data::random(large(), 3);
    let mut head = front(context, large())?;
    let expected = head.evaluate(&data.batch())?;
    let (made, before) = (context.allocated_bytes(), held(context));
    for polls in 0..3 {
        drop_after(polls, head.evaluate_async(&data.batch()))?;
        // at once, and when everything is mapped
        same_output(&head.evaluate(&data.batch())?, &expected)?;
        drop_after(polls, head.train_async(&data.batch()))?;
        held(context);
        same_output(&pollster::block_on(head.evaluate_async(&data.batch()))?, &expected)?;
    }
    // while it is mapped
    {
        let batch = data.batch();
        let mut future = pin!(head.evaluate_async(&batch));
        let mut cx = std::task::Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut cx).is_pending());
        held(context);
    }
    same_output(&head.evaluate(&data.batch())?, &expected)?;
    assert_eq!(head.state().step, 0);
    assert_eq!((context.allocated_bytes(), held(context)), (made, before), "an evaluation left buffers behind");

    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let tensor = Tensor::upload(context, &[1000], &values)?;
    let (made, before) = (context.allocated_bytes(), held(context));
    for i in 0..20 {
        let reading = tensor.read_async::<f32>(context);
        let polled = i % 3 > 0;
        if polled {
            // may be done after one poll
            let _ = drop_after(i % 3, reading);
        } else {
            drop(reading);
        }
    }
    let read = 13 * 4000;
    assert_eq!(context.allocated_bytes() - made, read, "a read needs its bytes once, from its first poll on");
    assert_eq!(held(context), before, "a dropped read left its buffer behind");
    assert_eq!(tensor.read::<f32>(context)?, values);
    assert_eq!(held(context), before);
    Ok(())
}

/// A context that loses patience until this is dropped.
pub struct Impatient<'a>(&'a Context, Duration);

impl<'a> Impatient<'a> {
    pub fn new(context: &'a Context) -> Self {
        let patience = context.timeout();
        context.set_timeout(Duration::from_millis(1));
        Self(context, patience)
    }
}

impl Drop for Impatient<'_> {
    fn drop(&mut self) {
        self.0.set_timeout(self.1);
    }
}

/// Tries until one is late: a thread that sleeps too long finds everything done.
pub fn until_late<T: std::fmt::Debug>(mut attempt: impl FnMut() -> Result<Result<T>, Failed>) -> Result<Error, Failed> {
    for _ in 0..20 {
        match attempt()? {
            Ok(_) => {}
            Err(LATE) => return Ok(LATE),
            Err(other) => return Err(format!("{other:?}").into()),
        }
    }
    Err("the device is too fast for this test".into())
}

const LATE: Error = Error::Timeout { seconds: 0.001 };

fn a_timeout_is_an_error_and_the_head_goes_on(context: &Context) -> Result<(), Failed> {
    assert_eq!(context.timeout(), Duration::from_secs(300));
    context.set_timeout(Duration::MAX);
    assert!(context.timeout() > Duration::from_secs(1 << 34));
    context.set_timeout(Duration::from_secs(300));
    assert_eq!(LATE.to_string(), "the device did not answer within 0.001 s");
    let data = Data::random(large(), 3);
    let mut head = front(context, large())?;
    let expected = head.evaluate(&data.batch())?;
    let mut out = expected.clone();
    let tensor = Tensor::upload(context, &[3], &[1.0_f32, 2.0, 3.0])?;
    for asynchronous in [false, true] {
        until_late(|| {
            let impatient = Impatient::new(context);
            let found = scoped(context.device(), || match asynchronous {
                false => head.evaluate_into(&data.batch(), &mut out).map(|()| out.clone()),
                true => pollster::block_on(head.evaluate_async(&data.batch())),
            })?;
            // what waits behind it is late too, or right
            let read = tensor.read::<f32>(context);
            assert!(read == Err(LATE) || read.as_deref() == Ok(&[1.0, 2.0, 3.0]), "{read:?}");
            drop(impatient);
            assert_eq!(out, expected);
            // at once, while the device may still be busy with what was given up
            same_output(&head.evaluate(&data.batch())?, &expected)?;
            Ok(found)
        })?;
        assert_eq!(tensor.read::<f32>(context)?, [1.0, 2.0, 3.0]);
        same_output(&pollster::block_on(head.evaluate_async(&data.batch()))?, &expected)?;
    }
    // one that is polled too late has its result
    let batch = data.batch();
    let mut future = pin!(head.evaluate_async(&batch));
    let mut cx = std::task::Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_pending());
    context.device().poll(wgpu::PollType::wait_indefinitely())?;
    let _impatient = Impatient::new(context);
    match future.as_mut().poll(&mut cx) {
        Poll::Ready(out) => same_output(&out?, &expected)?,
        Poll::Pending => return Err("it was mapped".into()),
    }
    Ok(())
}

/// The state of a loss that follows its batches, after steps that failed: that of a head which never saw them.
fn a_failed_training_step_did_not_happen(context: &Context) -> Result<(), Failed> {
    let loss = MarginSoftmax::curricularface().with_scale(16.0);
    let data = Data::random(large(), 3);
    let new = || Backend::Gpu(context.clone()).head_with(&loss, large(), &options());
    let (mut calm, mut head) = (new()?, new()?);
    let mut out = Output::default();
    for asynchronous in [false, true] {
        until_late(|| {
            let (before, held) = (*head.state(), out.clone());
            let labels = vec![-7; large().rows()];
            let refused = head.train_into(&Batch { labels: &labels, ..data.batch() }, &mut out);
            assert!(matches!(refused, Err(Error::Label { .. })), "{refused:?}");
            let impatient = Impatient::new(context);
            let trained = match asynchronous {
                false => head.train_into(&data.batch(), &mut out),
                true => pollster::block_on(head.train_async(&data.batch())).map(|new| out = new),
            };
            drop(impatient);
            match trained {
                Ok(()) => same_output(&out, &calm.train(&data.batch())?)?,
                Err(_) => assert_eq!((*head.state(), &out), (before, &held)),
            }
            Ok(trained)
        })?;
        head.train_into(&data.batch(), &mut out)?;
        same_output(&out, &calm.train(&data.batch())?)?;
        assert_eq!(head.state(), calm.state());
    }
    assert!(head.state().step >= 2 && head.state().hardness != 0.0, "this state follows nothing");
    Ok(())
}

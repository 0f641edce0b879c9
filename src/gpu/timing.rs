//! How long passes and kernels take on the device's own clock.
//!
//! ```no_run
//! # use margin_softmax::{gpu::{BoundHead, Context, timing::{Detail, Timing}}, Result};
//! # fn step(context: &Context, head: &BoundHead) -> Result<()> {
//! let mut timing = Timing::new(context)?;
//! let mut encoder = context.device().create_command_encoder(&Default::default());
//! timing.record_forward(Detail::Steps, head, &mut encoder)?;
//! timing.record_backward(Detail::Steps, head, &mut encoder)?;
//! context.queue().submit([encoder.finish()]);
//! for span in timing.read()? {
//!     println!("{} {} ns", span.label, span.nanoseconds);
//! }
//! # Ok(())
//! # }
//! ```

use super::{BoundHead, Context, bound::Bound, readback::Download};
use crate::{Error, Result};

/// The unit that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Detail {
    /// A pass: `forward` or `backward`, recorded as it is without timing.
    Passes,
    /// Every step of the plan, named like its kernel, in a pass of its own: a profile. The device finishes one before it
    /// begins the next, so the sum may exceed the time of the whole pass.
    Steps,
}

/// The time that a pass took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// The pass or the kernel.
    pub label: &'static str,
    /// Nanoseconds from the beginning of the first span to that of this one.
    pub start: f64,
    /// Nanoseconds from its beginning to its end; 0 if it was not submitted.
    pub nanoseconds: f64,
}

/// Two timestamps for each pass that is recorded through it, until they are read.
///
/// Needs a device with `TIMESTAMP_QUERY`; a [`Context`] that opens the device itself asks for it where the adapter has it.
/// A browser may round timestamps, often to 100 µs.
pub struct Timing {
    context: Context,
    sets: Vec<wgpu::QuerySet>,
    labels: Vec<&'static str>,
}

/// Spans of one query set.
const SPANS: usize = wgpu::QUERY_SET_MAX_QUERIES as usize / 2;

/// Bytes of the two timestamps of a span.
const BYTES: u64 = 2 * wgpu::QUERY_SIZE as u64;

impl Timing {
    /// [`Error::Feature`] where the device has no timestamps.
    pub fn new(context: &Context) -> Result<Self> {
        if !context.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(Error::Feature { what: "timing", feature: "TIMESTAMP_QUERY" });
        }
        Ok(Self { context: context.clone(), sets: vec![], labels: vec![] })
    }

    /// Records what [`BoundHead::record_forward`] does, with timestamps.
    pub fn record_forward(
        &mut self,
        detail: Detail,
        head: &BoundHead,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<()> {
        head.begin();
        let steps = head.bound.forward_steps(head.is_training()).into_iter().flatten();
        self.record(detail, "forward", &head.bound, steps, encoder)
    }

    /// Records what [`BoundHead::record_backward`] does, with timestamps.
    pub fn record_backward(
        &mut self,
        detail: Detail,
        head: &BoundHead,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<()> {
        self.record(detail, "backward", &head.bound, head.bound.backward_steps(), encoder)
    }

    /// A span for a pass of the caller's own, which is to write both of its timestamps.
    pub fn span(&mut self, label: &'static str) -> Result<wgpu::ComputePassTimestampWrites<'_>> {
        let at = self.labels.len();
        if at == self.sets.len() * SPANS {
            let (ty, count) = (wgpu::QueryType::Timestamp, 2 * SPANS as u32);
            let descriptor = wgpu::QuerySetDescriptor { label: Some("timing"), ty, count };
            self.sets.push(self.context.created(|| self.context.device().create_query_set(&descriptor))?);
        }
        self.labels.push(label);
        let first = (at % SPANS * 2) as u32;
        Ok(wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[at / SPANS],
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        })
    }

    /// The spans in the order in which they were recorded, once their submits are done: submits a copy and waits. What is
    /// recorded next begins a new list.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&mut self) -> Result<Vec<Span>> {
        pollster::block_on(self.read_async())
    }

    /// The same without blocking; the only form in a browser.
    pub async fn read_async(&mut self) -> Result<Vec<Span>> {
        let mut times: Vec<u64> = vec![];
        for (set, labels) in self.sets.iter().zip(self.labels.chunks(SPANS)) {
            let bytes = labels.len() as u64 * BYTES;
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let resolved = self.context.buffer("timestamps", bytes, usage)?;
            let copy = |encoder: &mut wgpu::CommandEncoder, staging: &wgpu::Buffer| {
                encoder.resolve_query_set(set, 0..2 * labels.len() as u32, &resolved, 0);
                encoder.copy_buffer_to_buffer(&resolved, 0, staging, 0, bytes);
            };
            times.extend(Download::start(&self.context, bytes, copy)?.values::<u64>(2 * labels.len()).await?);
        }
        let period = f64::from(self.context.queue().get_timestamp_period());
        let first = times.first().copied().unwrap_or(0);
        // an error before this leaves them to the next call
        let labels = std::mem::take(&mut self.labels);
        let spans = labels.into_iter().zip(times.chunks_exact(2)).map(|(label, pair)| Span {
            label,
            start: pair[0].saturating_sub(first) as f64 * period,
            nanoseconds: pair[1].saturating_sub(pair[0]) as f64 * period,
        });
        Ok(spans.collect())
    }

    fn record(
        &mut self,
        detail: Detail,
        label: &'static str,
        bound: &Bound,
        steps: impl Iterator<Item = usize>,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<()> {
        let mut begin = |timing: &mut Self, label| {
            let timestamp_writes = Some(timing.span(label)?);
            let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes };
            Ok::<_, Error>(encoder.begin_compute_pass(&descriptor).forget_lifetime())
        };
        match detail {
            Detail::Passes => {
                let mut pass = begin(self, label)?;
                steps.for_each(|step| bound.dispatch(step, &mut pass));
            }
            Detail::Steps => {
                for step in steps {
                    if let Some(kernel) = bound.kernel(step) {
                        bound.dispatch(step, &mut begin(self, kernel)?);
                    }
                }
            }
        }
        Ok(())
    }
}

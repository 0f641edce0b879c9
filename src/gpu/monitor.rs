//! Reports of a run, measured on a device: see [`crate::monitor`].

use std::sync::Arc;

use super::{
    BoundHead, Context, Tensor,
    bound::{Bound, bind_group},
    pipeline::Pipeline,
    range::Range,
    tensor::write,
    tensor::{expect, nearest},
};
use crate::{
    Error, MarginSoftmax, Result, Shape,
    monitor::{Monitor, device_words, vectors},
    plan::{CONSTANTS_STRIDE, Call, Element, Plan, TensorRole, geometry as plan, kernels},
};

/// A monitor of a bound head's batches: one kernel beside the forward pass, which reads what that left about its rows.
///
/// ```no_run
/// # use margin_softmax::{gpu::{BoundHead, Context, monitor::HeadMonitor}, monitor::Monitor, Result};
/// # fn step(context: &Context, head: &BoundHead, epoch: &mut Monitor) -> Result<()> {
/// let monitor = HeadMonitor::new(context, head, 90)?;      // once
/// let mut encoder = context.device().create_command_encoder(&Default::default());
/// head.record_forward(&mut encoder);
/// monitor.record(&mut encoder);
/// context.queue().submit([encoder.finish()]);
/// epoch.merge(&monitor.read()?)?;
/// # Ok(())
/// # }
/// ```
pub struct HeadMonitor {
    context: Context,
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    /// Of the constants of its steps.
    offsets: Vec<u32>,
    result: Tensor,
    bins: usize,
}

impl HeadMonitor {
    /// Compiles the kernel, or finds it, and binds it to this head's workspace and settings: the rows of
    /// [`BoundHead::update`] hold here too. Histograms have `bins` bins, 1 to [`MAX_BINS`](crate::monitor::MAX_BINS).
    pub fn new(context: &Context, head: &BoundHead, bins: usize) -> Result<Self> {
        Monitor::new(bins)?;
        let rows = head.bound.workspace("rows")?;
        plan::check(context.limits())?;
        let pipeline = context.pipeline(&kernels::monitor().fitted(context.limits()))?;
        let result = Tensor::empty(context, &[device_words(bins)], Element::U32)?;
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let steps = plan::monitor_steps(head.bound.plan().shape().rows(), bins);
        let offsets: Vec<u32> = (0..steps.len()).map(|step| step as u32 * CONSTANTS_STRIDE as u32).collect();
        let constants = context.buffer("constants", steps.len() as u64 * CONSTANTS_STRIDE, usage)?;
        for (own, &offset) in steps.zip(&offsets) {
            write(context, &constants, offset.into(), own.bytes())?;
        }
        let uniforms = [head.bound.settings(), &constants];
        let storage = [Range::whole(rows), Range::whole(result.buffer())];
        let group = context.created(|| bind_group(context, &pipeline.layout, uniforms, &storage.each_ref()))?;
        Ok(Self { context: context.clone(), pipeline, group, offsets, result, bins })
    }

    /// Records the measurement, after [`BoundHead::record_forward`] of the same head. Creates, writes, submits and polls
    /// nothing.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some("monitor"), timestamp_writes: None };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        pass.set_pipeline(&self.pipeline.pipeline);
        for &offset in &self.offsets {
            pass.set_bind_group(0, &self.group, &[offset]);
            pass.dispatch_workgroups(1, 1, 1);
        }
    }

    /// The words that the last submitted measurement wrote, \[8 + 2·bins\], u32: rows, hits, the bits of three f32 sums
    /// (angle to the labelled prototype, angle to the nearest other one, target cosine), three unused, the bins of both
    /// angles.
    pub fn result(&self) -> &Tensor {
        &self.result
    }

    /// The rows of the last submitted measurement: submits a copy and waits. Sums are f32, so a mean over n rows is off by
    /// at most about (n/128 + 9)·6e-8 of it, and 5e-7.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self) -> Result<Monitor> {
        pollster::block_on(self.read_async())
    }

    /// The same as a future: the only form that works in a browser.
    pub async fn read_async(&self) -> Result<Monitor> {
        Monitor::from_words(self.bins, &self.result.read_async::<u32>(&self.context).await?)
    }
}

/// Records the length of the mean direction of prototypes, one tensor [classes of the shard, D] per shard (f32, f16 or
/// bf16): \[1\], f32, NaN where a prototype is not finite. A pass over the prototypes; allocates a small workspace.
pub fn mean_prototype(context: &Context, encoder: &mut wgpu::CommandEncoder, prototypes: &[&Tensor]) -> Result<Tensor> {
    let (shards, dim, element) = sizes("prototypes", prototypes)?;
    let plan = Plan::mean_prototype(&shards, dim, element, context.limits())?;
    let bound = bind(context, plan, prototypes)?;
    bound.record_forward(false, encoder);
    workspace(&bound, "mean", 1)
}

/// The mean angle between all pairs of vectors, one tensor [vectors of the shard, D] per shard (f32, f16 or bf16): W-Inter
/// of prototypes, C-Inter of class centers. NaN where one is not finite, 0 where there is no pair. Submits and waits.
///
/// C²·D/2 multiplications, in submits of bounded time. Each has a workspace of 8 bytes per vector and 256 KiB or 4 bytes
/// per 64 vectors, whichever is more: never C×C values.
#[cfg(not(target_arch = "wasm32"))]
pub fn mean_pair_angle(context: &Context, vectors: &[&Tensor]) -> Result<f64> {
    pollster::block_on(mean_pair_angle_async(context, vectors))
}

/// [`mean_pair_angle`] as a future: the only form that works in a browser.
pub async fn mean_pair_angle_async(context: &Context, vectors: &[&Tensor]) -> Result<f64> {
    spread(context, vectors, 1 << 16).await
}

/// [`mean_pair_angle_async`] in submits of about this many tiles.
#[cfg(feature = "catalogue")]
pub async fn mean_pair_angle_in(context: &Context, vectors: &[&Tensor], most: usize) -> Result<f64> {
    spread(context, vectors, most).await
}

async fn spread(context: &Context, vectors: &[&Tensor], most: usize) -> Result<f64> {
    let (shards, dim, element) = sizes("vectors", vectors)?;
    let (mut sum, mut finite) = (0.0, true);
    for (i, (&left, &rows)) in vectors.iter().zip(&shards).enumerate() {
        for (j, (&right, &columns)) in vectors.iter().zip(&shards).enumerate().skip(i) {
            let tile = plan::pair_tile(rows, columns, context.limits());
            let other = (j > i).then_some(columns);
            let given = if j > i { vec![left, right] } else { vec![left] };
            for strip in Plan::strips(tile, rows, columns, most) {
                let plan = Plan::pairs((rows, other), dim, element, (tile, strip), context.limits())?;
                let tiles = rows.div_ceil(tile.rows() as usize) * strip.wide;
                let groups = rows.div_ceil(64) + other.map_or(0, |count| count.div_ceil(64));
                let bound = bind(context, plan, &given).map_err(|e| e.renamed(&[("prototypes", "vectors")]))?;
                context.submit(|encoder| bound.record_forward(false, encoder))?;
                let sums = workspace(&bound, "sums", tiles)?.read_async::<f32>(context).await?;
                sum += sums.iter().map(|&s| f64::from(s)).sum::<f64>();
                if strip.first == 0 {
                    let totals = workspace(&bound, "totals", groups * 4)?.read_async::<f32>(context).await?;
                    finite &= totals.chunks_exact(4).all(|total| total[2] == 0.0);
                }
            }
        }
    }
    let count = shards.iter().map(|&count| count as f64).sum::<f64>();
    Ok(match finite {
        false => f64::NAN,
        true if count < 2.0 => 0.0,
        true => std::f64::consts::FRAC_PI_2 - sum / (count * (count - 1.0) / 2.0),
    })
}

/// [`mean_prototype`] of a slice.
pub(crate) async fn mean_prototype_of(context: &Context, dim: usize, prototypes: &[f32]) -> Result<f64> {
    let count = vectors("prototypes", dim, prototypes.len())?;
    if count == 0 {
        return Ok(0.0);
    }
    let shards = upload(context, count, dim, prototypes)?;
    let mean = context.try_submit(|e| mean_prototype(context, e, &shards.iter().collect::<Vec<_>>()))?;
    let mean = mean.read_async::<f32>(context).await?;
    Ok(mean.first().map_or(0.0, |&v| f64::from(v)))
}

/// [`mean_pair_angle`] of a slice.
pub(crate) async fn mean_pair_angle_of(context: &Context, dim: usize, all: &[f32]) -> Result<f64> {
    let count = vectors("vectors", dim, all.len())?;
    if count == 0 {
        return Ok(0.0);
    }
    let shards = upload(context, count, dim, all)?;
    mean_pair_angle_async(context, &shards.iter().collect::<Vec<_>>()).await
}

/// In as many shards as the device's bindings need.
fn upload(context: &Context, count: usize, dim: usize, values: &[f32]) -> Result<Vec<Tensor>> {
    let shards = Plan::shards(Shape::new(0, count, dim)?, Element::F32, context.limits())?;
    let mut rest = values;
    let shard = |count| {
        let (own, next) = rest.split_at(count * dim);
        rest = next;
        Tensor::upload(context, &[count, dim], own)
    };
    shards.into_iter().map(shard).collect()
}

/// Vectors of each shard, their length and element: the same for all.
fn sizes(what: &'static str, tensors: &[&Tensor]) -> Result<(Vec<usize>, usize, Element)> {
    let Some(first) = tensors.first() else { return Err(Error::Zero { what }) };
    let mut shards = vec![];
    for tensor in tensors {
        let (&[count, dim], &[_, expected]) = (tensor.shape(), first.shape()) else {
            return Err(Error::Shape { what, found: tensor.shape().to_vec(), expected: nearest(tensor.shape(), 2, 2) });
        };
        if count == 0 {
            return Err(Error::Zero { what });
        }
        if dim != expected {
            return Err(Error::Shape { what, found: vec![count, dim], expected: vec![count, expected] });
        }
        expect(what, tensor, &[count, dim], first.element())?;
        shards.push(count);
    }
    Ok((shards, first.shape()[1], first.element()))
}

fn bind(context: &Context, plan: Plan, tensors: &[&Tensor]) -> Result<Bound> {
    let given: Vec<_> = tensors.iter().enumerate().map(|(i, &tensor)| (TensorRole::Prototypes(i), tensor)).collect();
    Bound::once(context, plan, &given, &MarginSoftmax::default(), Call::default())
}

/// The first `len` values of a workspace buffer.
fn workspace(bound: &Bound, name: &'static str, len: usize) -> Result<Tensor> {
    Tensor::from_buffer(bound.workspace(name)?, 0, &[len], Element::F32)
}

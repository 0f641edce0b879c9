//! Predictions over slices on a device.

use std::{ops::Range, sync::Arc};

use super::{Context, Tensor, bound::Bound, io::vectors, readback::Download, tensor::write};
use crate::{
    MarginSoftmax, Options, Result, Shape, State,
    data::{Prediction, Predictions, Watch},
    objective::{CheckedBatch, Prepared},
    plan::{Call, Element, Layout, Plan, TensorRole},
    uniforms::{BatchState, Row, constants},
};

/// Everything is made once.
pub(crate) struct DevicePredictor {
    context: Context,
    bound: Bound,
    loss: Prepared,
    range: Range<usize>,
    count: usize,
    embeddings: Tensor,
    prototypes: Vec<Tensor>,
    bias: Option<Tensor>,
    /// Of rows, lists and sums; none where a call that was dropped, or failed, had it.
    staging: [Option<wgpu::Buffer>; 3],
}

impl DevicePredictor {
    /// `options` say how many classes are predicted.
    pub fn new(
        context: &Context,
        loss: &Prepared,
        shape: Shape,
        range: Range<usize>,
        options: &Options,
    ) -> Result<Self> {
        // one row at least, so that no tensor is empty
        let sized =
            |classes| Shape::new(shape.rows().max(1), classes, shape.dim())?.with_sub_centers(shape.sub_centers());
        let (whole, count) = (sized(shape.classes())?, options.predictions.unwrap_or(1));
        let shards = Plan::shards(sized(range.len())?, Element::F32, context.limits())?;
        let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
        let plan = Plan::predict_any(loss, (whole, range.clone(), false), count, &layout, context.limits(), options)?;
        let tensor = |shape: &[usize]| Tensor::empty(context, shape, Element::F32);
        let embeddings = tensor(&[whole.rows(), whole.dim()])?;
        let prototypes = shards.iter().map(|&own| tensor(&vectors(whole, own))).collect::<Result<Vec<_>>>()?;
        let bias = loss.is_linear().then(|| tensor(&[range.len()])).transpose()?;
        let mut given = vec![(TensorRole::Embeddings, &embeddings)];
        given.extend(prototypes.iter().enumerate().map(|(i, tensor)| (TensorRole::Prototypes(i), tensor)));
        given.extend(bias.as_ref().map(|tensor| (TensorRole::Bias, tensor)));
        let call = Call { rows: whole.rows(), ..Call::default() };
        let bound = Bound::of(context, &Arc::new(plan), &given, loss, &call)?;
        let (context, loss, staging) = (context.clone(), loss.clone(), [None, None, None]);
        Ok(Self { context, bound, loss, range, count, embeddings, prototypes, bias, staging })
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub fn predict(&mut self, batch: &CheckedBatch<'_>, state: &State, watch: &mut Watch) -> Result<Predictions> {
        pollster::block_on(self.predict_async(batch, state, watch))
    }

    pub async fn predict_async(
        &mut self,
        batch: &CheckedBatch<'_>,
        state: &State,
        watch: &mut Watch,
    ) -> Result<Predictions> {
        self.upload(batch, state)?;
        let (rows, listed) = (batch.rows(), batch.rows() * self.count);
        let staging = [self.staging(0, size_of::<Row>())?, self.staging(1, self.count * 16)?, self.staging(2, 4)?];
        let (stages, bound, [states, nearest, log_sums]) = (self.bound.forward_steps(false), &self.bound, staging);
        bound.submit_watched(stages.into_iter().flatten(), |_| {}, watch).await?;
        let states = bound.download_in::<Row>("rows", rows, states)?;
        let nearest = bound.download_in::<[u32; 4]>("nearest", listed, nearest)?;
        let log_sums = bound.download_in::<f32>("log sums", rows, log_sums)?;
        let batch = bound.read::<BatchState>("batch", 1).await?;
        let (states, first) = states.values_and_staging::<Row>(rows).await?;
        let (nearest, second) = nearest.values_and_staging(listed).await?;
        let (log_sums, third) = log_sums.values_and_staging(rows).await?;
        self.staging = [first, second, third].map(Some);
        let lists = Lists { count: self.count, nearest, log_sums };
        let broken = batch.first().map_or(0, |batch| batch.non_finite_prototypes);
        Ok(lists.predictions(&self.loss, self.range.clone(), (&states, broken), Predictions::default()))
    }

    /// A buffer to download so many bytes of each row through, kept from the call before.
    fn staging(&mut self, index: usize, bytes: usize) -> Result<wgpu::Buffer> {
        let all = self.bound.plan().shape().rows() * bytes;
        self.staging[index].take().map_or_else(|| Download::staging(&self.context, all as u64), Ok)
    }

    fn upload(&mut self, batch: &CheckedBatch<'_>, state: &State) -> Result<()> {
        let upload = |to: &Tensor, values: &[f32]| write(&self.context, to.buffer(), 0, bytemuck::cast_slice(values));
        upload(&self.embeddings, batch.embeddings)?;
        let mut rest = batch.prototypes;
        for tensor in &self.prototypes {
            let (own, next) = rest.split_at(tensor.len());
            upload(tensor, own)?;
            rest = next;
        }
        if let Some(tensor) = &self.bias {
            let none = if batch.bias.is_none() { vec![0.0; self.range.len()] } else { vec![] };
            upload(tensor, batch.bias.unwrap_or(&none))?;
        }
        let call = Call { rows: batch.rows(), ..Call::default() };
        let scaled = MarginSoftmax { scale: state.scale_of(&self.loss), ..MarginSoftmax::clone(&self.loss) };
        self.bound.update(&Prepared::new(&scaled, self.bound.plan().shape())?, &call)
    }
}

/// The nearest classes of some rows as a device writes them.
pub(super) struct Lists {
    count: usize,
    /// \[rows, count\]: bits of the cosine, class, its prototype, bits of the log-probability.
    pub nearest: Vec<[u32; 4]>,
    /// \[rows\].
    pub log_sums: Vec<f32>,
}

impl Lists {
    pub fn new(rows: usize, count: usize) -> Self {
        let kept = if count > 0 { rows } else { 0 };
        Self { count, nearest: vec![[0; 4]; rows * count], log_sums: vec![0.0; kept] }
    }

    /// Predictions from these, and from the rows' states and the prototypes that are left out.
    pub fn predictions(
        &self,
        loss: &MarginSoftmax,
        range: Range<usize>,
        (states, non_finite_prototypes): (&[Row], u32),
        mut out: Predictions,
    ) -> Predictions {
        out.reset(states.len(), self.count, range, loss.binary().is_none());
        out.non_finite_prototypes = non_finite_prototypes as usize;
        out.non_finite_rows = states.iter().filter(|row| row.state == constants::NON_FINITE).count();
        let counts =
            |row: &Row| matches!(row.state, constants::COUNTS | constants::SHORT) && non_finite_prototypes == 0;
        let lists = self.nearest.chunks_exact(self.count).zip(states).enumerate();
        for (i, (list, _)) in lists.filter(|(_, (_, row))| counts(row)) {
            let known = list.iter().enumerate().filter(|(_, entry)| entry[1] != constants::NO_CLASS);
            for (k, &[cosine, class, sub_center, log]) in known {
                let [cosine, log_probability] = [cosine, log].map(f32::from_bits);
                out.set(i, k, Prediction { class, cosine, log_probability, sub_center });
            }
            if let Some(sum) = out.log_sum_exps.get_mut(i) {
                *sum = self.log_sums[i];
            }
        }
        out
    }
}

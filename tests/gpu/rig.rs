//! A head with tensors of its own, as an engine would hold them.

use half::{bf16, f16};
use margin_softmax::{
    gpu::{BoundHead, Context, Head, Io, Tensor},
    plan::{Element, Layout, Plan},
    *,
};

use crate::cases::Data;

pub struct Tensors {
    pub x: Tensor,
    pub w: Vec<Tensor>,
    pub y: Tensor,
    pub weights: Option<Tensor>,
    pub upstream: Option<Tensor>,
    pub loss: Tensor,
    pub row_losses: Tensor,
    pub dx: Tensor,
    pub dw: Vec<Tensor>,
}

pub struct Rig {
    pub head: Head,
    pub bound: BoundHead,
    pub tensors: Tensors,
}

pub fn upload(context: &Context, shape: &[usize], values: &[f32], element: Element) -> Tensor {
    match element {
        Element::F16 => {
            let half: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
            Tensor::upload(context, shape, &half)
        }
        Element::Bf16 => {
            let half: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            Tensor::upload(context, shape, &half)
        }
        _ => Tensor::upload(context, shape, values),
    }
    .unwrap()
}

impl Tensors {
    pub fn new(context: &Context, shape: Shape, layout: &Layout<'_>, data: &Data) -> Result<Self> {
        let (n, d) = (shape.rows(), shape.dim());
        let (mut w, mut dw, mut first) = (vec![], vec![], 0);
        for &count in layout.shards {
            let values = &data.prototypes[first * d..(first + count) * d];
            w.push(upload(context, &[count, d], values, layout.prototypes));
            dw.push(Tensor::empty(context, &[count, d], Element::F32)?);
            first += count;
        }
        let optional =
            |values: &Option<Vec<f32>>| values.as_ref().map(|v| Tensor::upload(context, &[v.len()], v)).transpose();
        Ok(Self {
            x: upload(context, &[n, d], &data.embeddings, layout.embeddings),
            w,
            y: Tensor::upload(context, &[n], &data.labels)?,
            weights: optional(&data.weights)?,
            upstream: optional(&data.upstream)?,
            loss: Tensor::empty(context, &[1], Element::F32)?,
            row_losses: Tensor::empty(context, &[n], Element::F32)?,
            dx: Tensor::empty(context, &[n, d], Element::F32)?,
            dw,
        })
    }

    pub fn bind(&self, head: &Head) -> Result<BoundHead> {
        head.bind(&Io {
            embeddings: &self.x,
            prototypes: &self.w.iter().collect::<Vec<_>>(),
            labels: &self.y,
            class_weights: self.weights.as_ref(),
            upstream: self.upstream.as_ref(),
            loss: &self.loss,
            row_losses: Some(&self.row_losses),
            grad_embeddings: Some(&self.dx),
            grad_prototypes: &self.dw.iter().collect::<Vec<_>>(),
        })
    }

    /// Reads every result.
    pub fn read(&self, context: &Context) -> Result<Output> {
        let mut grad_prototypes = vec![];
        for shard in &self.dw {
            grad_prototypes.extend(shard.read::<f32>(context)?);
        }
        Ok(Output {
            loss: self.loss.read::<f32>(context)?[0],
            row_losses: self.row_losses.read(context)?,
            grad_embeddings: self.dx.read(context)?,
            grad_prototypes,
            ..Default::default()
        })
    }
}

impl Rig {
    pub fn new(
        context: &Context,
        loss: &MarginSoftmax,
        shape: Shape,
        layout: &Layout<'_>,
        options: &Options,
        data: &Data,
    ) -> Result<Self> {
        let plan = Plan::head(loss, shape, layout, context.limits(), options)?;
        let head = Head::new(context, loss, plan)?;
        let tensors = Tensors::new(context, shape, layout, data)?;
        let bound = tensors.bind(&head)?;
        Ok(Self { head, bound, tensors })
    }

    /// f32, one shard, default options.
    pub fn plain(context: &Context, loss: &MarginSoftmax, shape: Shape, data: &Data) -> Result<Self> {
        Self::new(context, loss, shape, &plain(&[shape.classes()]), &Options::default(), data)
    }

    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        self.bound.record_forward(encoder);
        self.bound.record_backward(encoder);
    }

    /// Forward, backward, read.
    pub fn run(&self, context: &Context) -> Result<Output> {
        let mut encoder = context.device().create_command_encoder(&Default::default());
        self.record(&mut encoder);
        context.queue().submit([encoder.finish()]);
        self.tensors.read(context)
    }
}

pub fn plain(shards: &[usize]) -> Layout<'_> {
    Layout { shards, embeddings: Element::F32, prototypes: Element::F32 }
}

/// The smallest budget for this head, and an eighth more.
pub fn tight(context: &Context, loss: &MarginSoftmax, shape: Shape, layout: &Layout<'_>, options: &Options) -> Budget {
    let options = Options { budget: Budget::bytes(1), ..*options };
    match Plan::head(loss, shape, layout, context.limits(), &options) {
        Err(Error::Budget { needed, .. }) => Budget::bytes(needed + needed / 8),
        other => panic!("a budget of one byte was accepted: {:?}", other.map(|p| p.workspace_bytes())),
    }
}

/// Fails with the first position where two lists differ in a bit.
pub fn same_bits(what: &str, a: &[f32], b: &[f32]) -> std::result::Result<(), String> {
    if a.len() != b.len() {
        return Err(format!("{what}: {} and {} values", a.len(), b.len()));
    }
    match a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits()) {
        Some(i) => Err(format!("{what}[{i}]: {} and {}", a[i], b[i])),
        None => Ok(()),
    }
}

pub fn same_output(a: &Output, b: &Output) -> std::result::Result<(), String> {
    same_bits("loss", &[a.loss], &[b.loss])?;
    same_bits("row_losses", &a.row_losses, &b.row_losses)?;
    same_bits("grad_embeddings", &a.grad_embeddings, &b.grad_embeddings)?;
    same_bits("grad_prototypes", &a.grad_prototypes, &b.grad_prototypes)
}

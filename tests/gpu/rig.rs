//! A head with tensors of its own, as an engine would hold them.

use half::{bf16, f16};
use margin_softmax::{
    data::MarginGradients,
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
    pub row_weights: Option<Tensor>,
    /// Classes and weights.
    pub soft: Option<[Tensor; 2]>,
    /// In the place of the weights of the rows that count.
    divisor: Option<f32>,
    pub upstream: Option<Tensor>,
    pub class_margins: Option<Tensor>,
    pub row_margins: Option<Tensor>,
    pub bias: Option<Tensor>,
    pub state: Tensor,
    pub loss: Tensor,
    pub row_losses: Tensor,
    pub log_sum_exps: Tensor,
    pub dx: Tensor,
    pub dw: Vec<Tensor>,
    pub ds: Tensor,
    pub db: Tensor,
    /// Four numbers, or four of each class or row, whatever the head that was bound last writes.
    pub dm: Tensor,
    margins: std::cell::Cell<usize>,
    /// Values of db that the head which was bound last writes.
    biases: std::cell::Cell<usize>,
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
        let (n, d, k) = (shape.rows(), shape.dim(), shape.sub_centers());
        let vectors = |count: usize| if k > 1 { vec![count, k, d] } else { vec![count, d] };
        let (mut w, mut dw, mut first) = (vec![], vec![], 0);
        for &count in layout.shards {
            let values = &data.prototypes[first * k * d..(first + count) * k * d];
            w.push(upload(context, &vectors(count), values, layout.prototypes));
            dw.push(Tensor::empty(context, &vectors(count), Element::F32)?);
            first += count;
        }
        let optional =
            |values: &Option<Vec<f32>>| values.as_ref().map(|v| Tensor::upload(context, &[v.len()], v)).transpose();
        // NaN stands for what is not given
        let margins = |values: &[Option<Vec<f32>>; 4], count: usize| {
            let any = values.iter().any(Option::is_some);
            let one = |i: usize| values.each_ref().map(|v| v.as_ref().map_or(f32::NAN, |v| v[i]));
            let all: Vec<f32> = (0..count).flat_map(one).collect();
            any.then(|| Tensor::upload(context, &[count, 4], &all)).transpose()
        };
        let soft = data.soft.as_ref().map(|soft| -> Result<_> {
            let shape = [n, soft.count];
            Ok([Tensor::upload(context, &shape, &soft.classes)?, Tensor::upload(context, &shape, &soft.weights)?])
        });
        Ok(Self {
            soft: soft.transpose()?,
            class_margins: margins(&data.class_margins, shape.classes())?,
            row_margins: margins(&data.row_margins, n)?,
            bias: optional(&data.bias)?,
            state: Tensor::empty(context, &[4], Element::F32)?,
            ds: Tensor::empty(context, &[1], Element::F32)?,
            db: Tensor::empty(context, &[shape.classes()], Element::F32)?,
            biases: Default::default(),
            dm: Tensor::empty(context, &[4 * n.max(shape.classes())], Element::F32)?,
            margins: Default::default(),
            x: upload(context, &[n, d], &data.embeddings, layout.embeddings),
            w,
            y: Tensor::upload(context, &[n], &data.labels)?,
            weights: optional(&data.weights)?,
            row_weights: optional(&data.row_weights)?,
            divisor: data.divisor,
            upstream: optional(&data.upstream)?,
            loss: Tensor::empty(context, &[1], Element::F32)?,
            row_losses: Tensor::empty(context, &[n], Element::F32)?,
            log_sum_exps: Tensor::empty(context, &[n], Element::F32)?,
            dx: Tensor::empty(context, &[n, d], Element::F32)?,
            dw,
        })
    }

    pub fn bind(&self, head: &Head) -> Result<BoundHead> {
        self.bind_with(head, None)
    }

    /// With a state of its own.
    pub fn bind_state(&self, head: &Head) -> Result<BoundHead> {
        self.bind_with(head, Some(&self.state))
    }

    fn bind_with(&self, head: &Head, state: Option<&Tensor>) -> Result<BoundHead> {
        let prototypes = self.w.iter().collect::<Vec<_>>();
        // one value, but for a linear head
        let linear = head.plan().find("bias").is_some();
        let db = if linear { self.db.clone() } else { Tensor::from_buffer(self.db.buffer(), 0, &[1], Element::F32)? };
        let dm = self.margins_of(head)?;
        self.biases.set(if head.plan().find("grad_bias").is_none() { 0 } else { db.len() });
        let mut bound = head.bind(&Io {
            class_margins: self.class_margins.as_ref(),
            row_margins: self.row_margins.as_ref(),
            bias: self.bias.as_ref(),
            state,
            grad_scale: Some(&self.ds),
            grad_bias: Some(&db),
            grad_margins: Some(&dm),
            class_weights: self.weights.as_ref(),
            row_weights: self.row_weights.as_ref(),
            soft_classes: self.soft.as_ref().map(|[classes, _]| classes),
            soft_weights: self.soft.as_ref().map(|[_, weights]| weights),
            log_sum_exps: Some(&self.log_sum_exps),
            upstream: self.upstream.as_ref(),
            row_losses: Some(&self.row_losses),
            grad_embeddings: Some(&self.dx),
            grad_prototypes: &self.dw.iter().collect::<Vec<_>>(),
            ..Io::new(&self.x, &prototypes, &self.y, &self.loss)
        })?;
        if self.divisor.is_some() {
            bound.set_divisor(self.divisor)?;
        }
        Ok(bound)
    }

    /// The tensor of the margins' gradients as this head writes it.
    pub fn margins_of(&self, head: &Head) -> Result<Tensor> {
        let (plan, shape) = (head.plan(), head.plan().shape());
        let shape = match plan.margins() {
            None | Some(MarginGradients::Sum) => vec![4],
            Some(MarginGradients::Classes) => vec![shape.classes(), 4],
            Some(MarginGradients::Rows) => vec![shape.rows(), 4],
        };
        let written = if plan.margins().is_none() { 0 } else { shape.iter().product() };
        self.margins.set(written);
        Tensor::from_buffer(self.dm.buffer(), 0, &shape, Element::F32)
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
            log_sum_exps: self.log_sum_exps.read(context)?,
            grad_embeddings: self.dx.read(context)?,
            grad_prototypes,
            grad_scale: self.ds.read::<f32>(context)?[0],
            grad_bias: self.db.read(context)?[..self.biases.get()].to_vec(),
            grad_margins: self.dm.read(context)?[..self.margins.get()].to_vec(),
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
    let needed = least(context, loss, shape, layout, options);
    Budget::bytes(needed + needed / 8)
}

/// The bytes of the smallest budget.
pub fn least(context: &Context, loss: &MarginSoftmax, shape: Shape, layout: &Layout<'_>, options: &Options) -> u64 {
    let options = Options { budget: Budget::bytes(1), ..*options };
    match Plan::head(loss, shape, layout, context.limits(), &options) {
        Err(Error::Budget { needed, .. }) => needed,
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
    same_bits("log_sum_exps", &a.log_sum_exps, &b.log_sum_exps)?;
    same_bits("grad_embeddings", &a.grad_embeddings, &b.grad_embeddings)?;
    same_bits("grad_prototypes", &a.grad_prototypes, &b.grad_prototypes)?;
    same_bits("grad_scale", &[a.grad_scale], &[b.grad_scale])?;
    same_bits("grad_bias", &a.grad_bias, &b.grad_bias)?;
    same_bits("grad_margins", &a.grad_margins, &b.grad_margins)
}

//! The crate itself in a page, for `tests/browser/parity.mjs`: a context of its own, heads over slices, heads on tensors.
#![cfg(target_arch = "wasm32")]

use half::{bf16, f16};
use margin_softmax::{
    data::{GradientFilter, SoftLabels},
    gpu::{Context, Head, Io, Tensor},
    objective::Link,
    plan::{Element, Layout, Plan},
    *,
};
use serde::Deserialize;
use wasm_bindgen::prelude::*;
#[cfg(feature = "threads")]
pub use wasm_bindgen_rayon::init_thread_pool;

type Answer<T> = std::result::Result<T, JsValue>;

fn shown(error: Error) -> JsValue {
    js_sys::Error::new(&format!("{}: {error}", error.name())).into()
}

#[derive(Deserialize)]
struct Request {
    loss: MarginSoftmax,
    shape: Shape,
    want: Want,
    elements: Elements,
    shards: Option<Vec<usize>>,
    options: How,
}

#[derive(Deserialize)]
struct Elements {
    embeddings: Element,
    prototypes: Element,
}

#[derive(Deserialize)]
struct How {
    budget: Option<Budget>,
    tile: Option<String>,
    filter: Option<f64>,
    work_per_submit: Option<u64>,
    soft_labels: Option<usize>,
}

impl Request {
    fn read(text: &str) -> Answer<Self> {
        serde_json::from_str(text).map_err(|e| js_sys::Error::new(&e.to_string()).into())
    }

    fn options(&self) -> Result<Options> {
        Ok(Options {
            want: self.want,
            budget: self.options.budget.unwrap_or_default(),
            tile: self.options.tile.as_deref().map(str::parse).transpose()?,
            filter: self.options.filter.map(GradientFilter::new).transpose()?,
            work_per_submit: self.options.work_per_submit,
            soft_labels: self.options.soft_labels,
            ..Options::default()
        })
    }
}

/// A batch from JavaScript.
#[wasm_bindgen]
#[derive(Default)]
pub struct Inputs {
    embeddings: Vec<f32>,
    prototypes: Vec<f32>,
    labels: Vec<i32>,
    class_weights: Option<Vec<f32>>,
    row_weights: Option<Vec<f32>>,
    divisor: Option<Vec<f32>>,
    upstream: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    class_margins: Option<Vec<f32>>,
    row_margins: Option<Vec<f32>>,
    soft_classes: Option<Vec<i32>>,
    soft_weights: Option<Vec<f32>>,
    state: Option<Vec<f32>>,
}

#[wasm_bindgen]
impl Inputs {
    #[wasm_bindgen(constructor)]
    pub fn new(embeddings: Vec<f32>, prototypes: Vec<f32>, labels: Vec<i32>) -> Self {
        Self { embeddings, prototypes, labels, ..Self::default() }
    }

    pub fn set(&mut self, name: &str, values: Vec<f32>) -> Answer<()> {
        let place = match name {
            "classWeights" => &mut self.class_weights,
            "rowWeights" => &mut self.row_weights,
            "divisor" => &mut self.divisor,
            "upstream" => &mut self.upstream,
            "bias" => &mut self.bias,
            "classMargins" => &mut self.class_margins,
            "rowMargins" => &mut self.row_margins,
            "softWeights" => &mut self.soft_weights,
            "state" => &mut self.state,
            _ => return Err(js_sys::Error::new(&format!("no input is called {name}")).into()),
        };
        *place = Some(values);
        Ok(())
    }

    pub fn set_soft_classes(&mut self, classes: Vec<i32>) {
        self.soft_classes = Some(classes);
    }
}

/// m0..m3, each on its own, out of quads where NaN stands for none.
fn columns(quads: Option<&[f32]>) -> [Option<Vec<f32>>; 4] {
    std::array::from_fn(|k| {
        let column = quads?.chunks_exact(4).map(|quad| quad[k]).collect::<Vec<f32>>();
        column.iter().all(|m| !m.is_nan()).then_some(column)
    })
}

/// What comes back.
#[wasm_bindgen]
#[derive(Default)]
pub struct Found {
    pub loss: f32,
    row_losses: Vec<f32>,
    log_sum_exps: Vec<f32>,
    target_cosines: Vec<f32>,
    other_cosines: Vec<f32>,
    grad_embeddings: Vec<f32>,
    grad_prototypes: Vec<f32>,
    grad_scale: Option<f32>,
    grad_bias: Vec<f32>,
    state: Vec<f32>,
}

#[wasm_bindgen]
impl Found {
    pub fn get(&self, name: &str) -> Vec<f32> {
        match name {
            "rowLosses" => self.row_losses.clone(),
            "logSumExps" => self.log_sum_exps.clone(),
            "targetCosines" => self.target_cosines.clone(),
            "otherCosines" => self.other_cosines.clone(),
            "gradEmbeddings" => self.grad_embeddings.clone(),
            "gradPrototypes" => self.grad_prototypes.clone(),
            "gradScale" => self.grad_scale.into_iter().collect(),
            "gradBias" => self.grad_bias.clone(),
            "state" => self.state.clone(),
            _ => vec![],
        }
    }
}

/// Through slices, on the CPU.
#[wasm_bindgen]
pub async fn evaluate_on_cpu(request: String, inputs: Inputs) -> Answer<Found> {
    slices(&Backend::cpu(), &Request::read(&request)?, &inputs, false).await.map_err(shown)
}

/// A device with what was compiled on it.
#[wasm_bindgen]
pub struct Session(Context);

#[wasm_bindgen]
impl Session {
    /// An adapter of the page.
    pub async fn open() -> Answer<Session> {
        Context::new_async(None).await.map(Session).map_err(shown)
    }

    pub fn name(&self) -> String {
        self.0.name()
    }

    /// Loses the device.
    pub fn lose(&self) {
        self.0.device().destroy();
    }

    /// Reads a tensor whose buffer is gone: what the device refuses must arrive as an error.
    pub async fn read_destroyed(&self) -> Answer<()> {
        let tensor = Tensor::upload(&self.0, &[4], &[1.0_f32; 4]).map_err(shown)?;
        tensor.buffer().destroy();
        tensor.read_async::<f32>(&self.0).await.map(drop).map_err(shown)
    }

    /// Through slices.
    pub async fn evaluate(&self, request: String, inputs: Inputs, training: bool) -> Answer<Found> {
        let request = Request::read(&request)?;
        slices(&Backend::Gpu(self.0.clone()), &request, &inputs, training).await.map_err(shown)
    }

    /// Through tensors, with shards and half types.
    pub async fn evaluate_tensors(&self, request: String, inputs: Inputs) -> Answer<Found> {
        let request = Request::read(&request)?;
        self.tensors(&request, &inputs).await.map_err(shown)
    }
}

/// Those of a batch, as many to a row as planned.
fn soft_labels<'a>(request: &Request, inputs: &'a Inputs) -> Option<SoftLabels<'a>> {
    let (classes, weights) = (inputs.soft_classes.as_deref()?, inputs.soft_weights.as_deref()?);
    Some(SoftLabels { count: request.options.soft_labels?, classes, weights })
}

async fn slices(backend: &Backend, request: &Request, inputs: &Inputs, training: bool) -> Result<Found> {
    let Request { loss, shape, .. } = request;
    let mut head = backend.head_with(loss, *shape, &request.options()?)?;
    if let Some([hardness, mean, deviation, scale]) = inputs.state.as_deref() {
        let mut state = *head.state();
        (state.hardness, state.scale) = ((*hardness).into(), (*scale).into());
        (state.norm_mean, state.norm_deviation) = ((*mean).into(), (*deviation).into());
        head.set_state(&state)?;
    }
    let by_class = columns(inputs.class_margins.as_deref());
    let by_row = columns(inputs.row_margins.as_deref());
    let batch = Batch {
        embeddings: &inputs.embeddings,
        prototypes: &inputs.prototypes,
        labels: &inputs.labels,
        class_weights: inputs.class_weights.as_deref(),
        row_weights: inputs.row_weights.as_deref(),
        divisor: inputs.divisor.as_ref().map(|z| z[0]),
        upstream: inputs.upstream.as_deref(),
        bias: inputs.bias.as_deref(),
        class_margins: Margins::of(&by_class),
        row_margins: Margins::of(&by_row),
        soft_labels: soft_labels(request, inputs),
    };
    let out = if training { head.train_async(&batch).await? } else { head.evaluate_async(&batch).await? };
    let State { hardness, norm_mean, norm_deviation, scale, .. } = *head.state();
    let state = [hardness, norm_mean, norm_deviation, scale].map(|v| v as f32);
    Ok(Found {
        loss: out.loss,
        row_losses: out.row_losses,
        log_sum_exps: out.log_sum_exps,
        target_cosines: out.target_cosines,
        other_cosines: out.other_cosines,
        grad_embeddings: out.grad_embeddings,
        grad_prototypes: out.grad_prototypes,
        grad_scale: request.want.grad_scale.then_some(out.grad_scale),
        grad_bias: out.grad_bias,
        state: if training { state.to_vec() } else { vec![] },
    })
}

impl Session {
    fn upload(&self, shape: &[usize], values: &[f32], element: Element) -> Result<Tensor> {
        // as many as the shape holds: a batch may have fewer
        let mut values = values.to_vec();
        values.resize(shape.iter().product(), 0.0);
        match element {
            Element::F16 => {
                let halves: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                Tensor::upload(&self.0, shape, &halves)
            }
            Element::Bf16 => {
                let halves: Vec<bf16> = values.into_iter().map(bf16::from_f32).collect();
                Tensor::upload(&self.0, shape, &halves)
            }
            _ => Tensor::upload(&self.0, shape, &values),
        }
    }

    async fn tensors(&self, request: &Request, inputs: &Inputs) -> Result<Found> {
        let (context, loss, shape) = (&self.0, &request.loss, request.shape);
        let (n, d, rows) = (shape.rows(), shape.dim(), inputs.labels.len());
        let shards = match &request.shards {
            Some(shards) => shards.clone(),
            None => Plan::shards(shape, request.elements.prototypes, context.limits())?,
        };
        let Elements { embeddings, prototypes } = request.elements;
        let layout = Layout { shards: &shards, embeddings, prototypes };
        let plan = Plan::head(loss, shape, &layout, context.limits(), &request.options()?)?;
        let head = Head::new(context, loss, plan)?;
        let x = self.upload(&[n, d], &inputs.embeddings, embeddings)?;
        let (mut w, mut dw, mut first) = (vec![], vec![], 0);
        for &classes in &shards {
            let count = classes * shape.sub_centers() * d;
            let sizes = [classes, shape.sub_centers(), d];
            let sizes = if shape.sub_centers() > 1 { &sizes[..] } else { &[classes, d] };
            w.push(self.upload(sizes, &inputs.prototypes[first..first + count], prototypes)?);
            dw.push(Tensor::empty(context, sizes, Element::F32)?);
            first += count;
        }
        let mut labels = inputs.labels.clone();
        labels.resize(n, 0);
        let y = Tensor::upload(context, &[n], &labels)?;
        let per_row = || Tensor::empty(context, &[n], Element::F32);
        let (l, losses, sums) = (Tensor::empty(context, &[1], Element::F32)?, per_row()?, per_row()?);
        let dx = Tensor::empty(context, &[n, d], Element::F32)?;
        let (w, dw_all) = (w.iter().collect::<Vec<_>>(), dw.iter().collect::<Vec<_>>());
        let (mut soft_classes, mut soft_weights) = (None, None);
        if let Some(SoftLabels { count, classes, weights }) = soft_labels(request, inputs) {
            let mut all = classes.to_vec();
            all.resize(n * count, -1);
            soft_classes = Some(Tensor::upload(context, &[n, count], &all)?);
            soft_weights = Some(self.upload(&[n, count], weights, Element::F32)?);
        }
        let mut bound = head.bind(&Io {
            soft_classes: soft_classes.as_ref(),
            soft_weights: soft_weights.as_ref(),
            row_losses: Some(&losses),
            log_sum_exps: Some(&sums),
            grad_embeddings: request.want.grad_embeddings.then_some(&dx),
            grad_prototypes: if request.want.grad_prototypes { &dw_all } else { &[] },
            ..Io::new(&x, &w, &y, &l)
        })?;
        bound.update(loss, rows)?;
        let mut encoder = context.device().create_command_encoder(&Default::default());
        bound.record_forward(&mut encoder);
        bound.record_backward(&mut encoder);
        context.queue().submit([encoder.finish()]);
        let mut grad_prototypes = vec![];
        for tensor in dw_all.iter().filter(|_| request.want.grad_prototypes) {
            grad_prototypes.extend(tensor.read_async::<f32>(context).await?);
        }
        let mut grad_embeddings = dx.read_async::<f32>(context).await?;
        grad_embeddings.truncate(if request.want.grad_embeddings { rows * d } else { 0 });
        let mut row_losses = losses.read_async::<f32>(context).await?;
        row_losses.truncate(rows);
        let mut log_sum_exps = sums.read_async::<f32>(context).await?;
        log_sum_exps.truncate(if loss.link == Link::Softmax { rows } else { 0 });
        let loss = l.read_async::<f32>(context).await?[0];
        Ok(Found { loss, row_losses, log_sum_exps, grad_embeddings, grad_prototypes, ..Found::default() })
    }
}

//! The nearest classes of embeddings without labels.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::{Cube, tensor::FloatTensor};
use burn_cubecl::CubeDevice;
use margin_softmax::{
    Budget, MarginSoftmax, Options, Shape,
    gpu::{Context, Head, PredictIo},
    plan::{Element, Layout, Plan},
};

use crate::{
    Result, buffer,
    op::{NewNearest, submit},
    pool,
    step::Nearest,
};

/// Heads that are kept: those of the last shapes.
const KEPT: usize = 4;

/// Compiled heads, shared by the clones of a module; each call has a workspace of its own.
#[derive(Clone, Default)]
pub struct Heads(Arc<Mutex<Vec<(Key, Head)>>>);

impl std::fmt::Debug for Heads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Heads")
    }
}

/// Everything that a plan depends on.
#[derive(Clone, PartialEq)]
struct Key {
    device: CubeDevice,
    shape: Shape,
    budget: u64,
    count: usize,
    loss: MarginSoftmax,
}

/// A call beside its tensors.
pub struct Call<'a> {
    pub heads: &'a Heads,
    pub context: &'a Context,
    pub loss: &'a MarginSoftmax,
    pub shape: Shape,
    pub budget: u64,
}

/// The nearest `count` classes of each of these embeddings among those of these prototypes; `scaled` is the loss at the scale in
/// force.
pub fn run(call: &Call<'_>, count: usize, tensors: [FloatTensor<Cube>; 2], scaled: &MarginSoftmax) -> Result<Nearest> {
    let Call { context, shape, .. } = *call;
    let [embeddings, prototypes] = tensors.map(buffer::float);
    let device = embeddings.device.clone();
    let made = NewNearest::new(&[shape.rows(), count], &device);
    if shape.rows() == 0 {
        return Ok(made.nearest);
    }
    let head = call.head(device, count)?;
    let x = buffer::hold("embeddings", &embeddings, &[shape.rows(), shape.dim()], Element::F32)?;
    let w = buffer::hold("prototypes", &prototypes, &[shape.vectors(), shape.dim()], Element::F32)?;
    let shards = pool::shards(&w.tensor, head.plan())?;
    let own = pool::nearest(context, &[shape.rows(), count])?;
    let mut bound = head.bind_predictions(&PredictIo {
        embeddings: &x.tensor,
        prototypes: &shards.iter().collect::<Vec<_>>(),
        bias: None,
        predictions: pool::prediction_tensors(&own),
    })?;
    if scaled != call.loss {
        bound.update(scaled, shape.rows())?;
    }
    let out = made.hold()?;
    submit(context, |encoder| {
        bound.record_forward(encoder);
        own.iter().zip(&out).for_each(|(from, to)| buffer::copy_all(encoder, from, &to.tensor, 0));
    });
    Ok(made.nearest)
}

impl Call<'_> {
    /// Compiles nothing where one of the shape is kept.
    fn head(&self, device: CubeDevice, count: usize) -> Result<Head> {
        let key = Key { device, shape: self.shape, budget: self.budget, count, loss: self.loss.clone() };
        let mut heads = self.heads.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = heads.iter().position(|(of, _)| *of == key).map(|at| heads.remove(at).1);
        let head = match kept {
            Some(head) => head,
            None => self.compiled(count)?,
        };
        heads.push((key, head.clone()));
        if heads.len() > KEPT {
            heads.remove(0);
        }
        Ok(head)
    }

    fn compiled(&self, count: usize) -> Result<Head> {
        let Call { context, loss, shape, .. } = *self;
        let shards = Plan::shards(shape, Element::F32, context.limits())?;
        let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
        let options = Options { budget: Budget::bytes(self.budget), ..Options::default() };
        let plan = Plan::predict(loss, shape, 0..shape.classes(), count, &layout, context.limits(), &options)?;
        Ok(Head::new(context, loss, plan)?)
    }
}

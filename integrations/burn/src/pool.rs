//! Heads that are compiled and bound, kept from step to step.

use std::sync::{Arc, Mutex, PoisonError};

use burn_cubecl::CubeDevice;
use margin_softmax::{
    Adaptive, Budget, MarginSoftmax, Options, Reduction, Shape, State, Want,
    gpu::{BoundHead, Context, Head, Io, PredictionTensors, Tensor},
    plan::{Element, Layout, Plan, Stage},
    wgpu,
};

use crate::{Result, step::Optional};

/// Shapes that are kept: a training and an evaluation batch, and the last one of each.
const SHAPES: usize = 4;

/// Idle workspaces of a shape; more are in use only while several forward passes wait for their backward passes.
const IDLE: usize = 2;

/// What a plan depends on, beside the loss.
#[derive(Clone, PartialEq)]
pub struct Key {
    pub device: CubeDevice,
    pub shape: Shape,
    pub budget: u64,
    pub embeddings: bool,
    pub prototypes: bool,
    /// Which optional inputs are bound.
    pub optional: Optional<()>,
    /// Targets of a row, where there are soft labels.
    pub soft_labels: Option<usize>,
    pub predictions: Option<usize>,
}

/// Shared by the clones of a module.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Entry>>>);

/// The last used stands last.
struct Entry {
    key: Key,
    head: Head,
    loss: MarginSoftmax,
    idle: Vec<Set>,
}

/// A head bound to burn's inputs, with outputs of our own: burn's pools put inputs and outputs into one buffer, which
/// WebGPU forbids to read and write in one dispatch.
struct Set {
    head: Head,
    bound: BoundHead,
    loss: MarginSoftmax,
    own: Own,
    divisor: Option<f32>,
    /// The inputs that are bound.
    places: Places,
}

/// Buffer and offset of embeddings, prototypes, labels, and of the optional inputs that are there.
#[derive(PartialEq)]
pub struct Places([(wgpu::Buffer, u64); 3], Vec<(wgpu::Buffer, u64)>);

pub struct Own {
    pub loss: Tensor,
    pub rows: Option<Tensor>,
    pub log_sum_exps: Tensor,
    /// Classes, cosines and log-probabilities, if they are planned.
    pub nearest: Option<[Tensor; 3]>,
    pub upstream: Tensor,
    pub state: Tensor,
    pub grad_embeddings: Option<Tensor>,
    pub grad_prototypes: Vec<Tensor>,
}

/// burn's tensors, whole.
pub struct Inputs<'a> {
    pub embeddings: &'a Tensor,
    pub prototypes: &'a Tensor,
    pub labels: &'a Tensor,
    pub optional: Optional<&'a Tensor>,
}

impl Inputs<'_> {
    fn places(&self) -> Places {
        let place = |tensor: &Tensor| (tensor.buffer().clone(), tensor.offset());
        let more = self.optional.each().map(place).collect();
        Places([self.embeddings, self.prototypes, self.labels].map(place), more)
    }
}

/// A set in use by one forward pass and its backward pass. Goes back to the pool when it is dropped.
pub struct Lease {
    pool: Pool,
    key: Key,
    set: Option<Set>,
}

impl Pool {
    /// Embeddings, prototypes and labels that the idle sets have bound, the last used first.
    pub fn places(&self) -> Vec<[(wgpu::Buffer, u64); 3]> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().rev().flat_map(|e| e.idle.iter().rev()).map(|set| set.places.0.clone()).collect()
    }

    /// A set for these inputs. Compiles and allocates nothing where one of the shape is idle.
    pub fn take(&self, context: &Context, key: &Key, loss: &MarginSoftmax, inputs: &Inputs<'_>) -> Result<Lease> {
        let lease = |set| Lease { pool: self.clone(), key: key.clone(), set: Some(set) };
        let (idle, head) = {
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let found = entries.iter().position(|e| e.key == *key).map(|i| entries.remove(i));
            let mut entry = match found {
                Some(entry) => entry,
                None => Entry { key: key.clone(), head: head(context, key, loss)?, loss: loss.clone(), idle: vec![] },
            };
            let idle = entry.idle.pop();
            let head = (entry.head.clone(), entry.loss.clone());
            entries.push(entry);
            if entries.len() > SHAPES {
                entries.remove(0);
            }
            (idle, head)
        };
        if let Some(mut set) = idle {
            let same = set.loss == *loss || set.bound.update(loss, key.shape.rows()).is_ok();
            if same {
                set.loss.clone_from(loss);
                let mut lease = lease(set);
                lease.rebind(inputs)?;
                return Ok(lease);
            }
        }
        let (mut head, of) = head;
        if of != *loss {
            head = self::head(context, key, loss)?;
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = entries.iter_mut().find(|e| e.key == *key) {
                (entry.head, entry.loss) = (head.clone(), loss.clone());
                entry.idle.clear();
            }
        }
        Ok(lease(Set::new(context, &head, loss, inputs)?))
    }
}

fn head(context: &Context, key: &Key, loss: &MarginSoftmax) -> Result<Head> {
    let shards = Plan::shards(key.shape, Element::F32, context.limits())?;
    let (soft_labels, predictions) = (key.soft_labels, key.predictions);
    let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
    let want = Want { grad_embeddings: key.embeddings, grad_prototypes: key.prototypes, ..Want::LOSS };
    let budget = Budget::bytes(key.budget);
    let options = Options { want, budget, soft_labels, predictions, ..Options::default() };
    let plan = Plan::head(loss, key.shape, &layout, context.limits(), &options)?;
    Ok(Head::new(context, loss, plan)?)
}

impl Set {
    fn new(context: &Context, head: &Head, loss: &MarginSoftmax, inputs: &Inputs<'_>) -> Result<Self> {
        let shape = head.plan().shape();
        let n = shape.rows();
        let empty = |shape: &[usize]| Tensor::empty(context, shape, Element::F32);
        let per_row = loss.reduction == Reduction::None;
        let want = |slot: &str| head.plan().buffers().iter().any(|b| b.name == slot);
        let shards = shards(inputs.prototypes, head.plan())?;
        let own = Own {
            loss: empty(&[1])?,
            rows: per_row.then(|| empty(&[n])).transpose()?,
            log_sum_exps: empty(&[n])?,
            nearest: match head.plan().predictions() {
                0 => None,
                count => Some(nearest(context, &[n, count])?),
            },
            upstream: empty(&[if per_row { n } else { 1 }])?,
            state: empty(&[4])?,
            grad_embeddings: want("grad_embeddings").then(|| empty(&[n, shape.dim()])).transpose()?,
            grad_prototypes: match want("grad_prototypes") {
                true => shards.iter().map(|s| empty(s.shape())).collect::<margin_softmax::Result<_>>()?,
                false => vec![],
            },
        };
        let bound = with_io(&own, inputs, &shards, |io| head.bind(io))?;
        let (head, loss) = (head.clone(), loss.clone());
        Ok(Self { head, bound, loss, own, divisor: None, places: inputs.places() })
    }
}

/// Classes, cosines and log-probabilities.
pub fn nearest(context: &Context, shape: &[usize]) -> Result<[Tensor; 3]> {
    let one = |element| Tensor::empty(context, shape, element);
    Ok([one(Element::I32)?, one(Element::F32)?, one(Element::F32)?])
}

/// As a head writes them.
pub fn prediction_tensors([classes, cosines, log_probabilities]: &[Tensor; 3]) -> PredictionTensors<'_> {
    PredictionTensors { classes, cosines, log_probabilities, sub_centers: None }
}

/// The prototypes as the plan cuts them: ranges of burn's one buffer.
pub fn shards(whole: &Tensor, plan: &Plan) -> Result<Vec<Tensor>> {
    cut(whole, &plan.shard_sizes(), plan.shape().sub_centers(), plan.shape().dim())
}

/// Prototypes in shards of so many classes.
pub fn cut(whole: &Tensor, sizes: &[usize], k: usize, d: usize) -> Result<Vec<Tensor>> {
    let mut offset = whole.offset();
    let mut cut = vec![];
    for &classes in sizes {
        let shape = if k > 1 { vec![classes, k, d] } else { vec![classes, d] };
        let shard = Tensor::from_buffer(whole.buffer(), offset, &shape, whole.element())?;
        offset += shard.bytes();
        cut.push(shard);
    }
    Ok(cut)
}

fn with_io<T>(
    own: &Own,
    inputs: &Inputs<'_>,
    shards: &[Tensor],
    f: impl FnOnce(&Io<'_>) -> margin_softmax::Result<T>,
) -> Result<T> {
    let prototypes: Vec<&Tensor> = shards.iter().collect();
    let grad_prototypes: Vec<&Tensor> = own.grad_prototypes.iter().collect();
    let Optional { row_weights, class_weights, class_margins, soft_classes, soft_weights } = inputs.optional;
    Ok(f(&Io {
        row_weights,
        class_weights,
        class_margins,
        soft_classes,
        soft_weights,
        log_sum_exps: Some(&own.log_sum_exps),
        predictions: own.nearest.as_ref().map(prediction_tensors),
        upstream: Some(&own.upstream),
        state: Some(&own.state),
        row_losses: own.rows.as_ref(),
        grad_embeddings: own.grad_embeddings.as_ref(),
        grad_prototypes: &grad_prototypes,
        ..Io::new(inputs.embeddings, &prototypes, inputs.labels, &own.loss)
    })?)
}

impl Lease {
    /// The bound head and its outputs.
    pub fn get(&mut self) -> Option<(&mut BoundHead, &Own)> {
        self.set.as_mut().map(|set| (&mut set.bound, &set.own))
    }

    /// Of this batch.
    pub fn shape(&self) -> Shape {
        self.key.shape
    }

    /// Whether the loss keeps numbers that follow the batch.
    pub fn follows(&self) -> bool {
        self.set.as_ref().is_some_and(|set| !set.head.plan().stage(Stage::UpdateState).is_empty())
    }

    /// The divisor of a mean from now on.
    pub fn set_divisor(&mut self, divisor: Option<f32>) -> Result<()> {
        let Some(set) = self.set.as_mut().filter(|set| set.divisor != divisor) else { return Ok(()) };
        set.bound.set_divisor(divisor)?;
        set.divisor = divisor;
        Ok(())
    }

    /// Binds the inputs where they are now; what the forward pass left in the workspace stays.
    pub fn rebind(&mut self, inputs: &Inputs<'_>) -> Result<()> {
        let Some(set) = &mut self.set else { return Ok(()) };
        let places = inputs.places();
        if set.places == places {
            return Ok(());
        }
        let shards = shards(inputs.prototypes, set.head.plan())?;
        with_io(&set.own, inputs, &shards, |io| set.bound.rebind(io))?;
        set.places = places;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(set) = self.set.take() else { return };
        let mut entries = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.iter_mut().find(|e| e.key == self.key)
            && entry.idle.len() < IDLE
        {
            entry.idle.push(set);
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

/// Whether the loss draws its margins anew in every step.
pub fn draws(loss: &MarginSoftmax) -> bool {
    matches!(loss.adaptive, Adaptive::Elastic(_))
}

/// The numbers that follow the batch, as a device holds them.
pub fn numbers(state: &State) -> [f32; 4] {
    [state.hardness, state.norm_mean, state.norm_deviation, state.scale].map(|v| v as f32)
}

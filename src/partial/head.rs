//! A head that trains on a sample of the classes.

use half::slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _};

use super::{PartialFc, Sample, sampling::apart};
use crate::{
    Backend, Batch, Error, Label, MarginSoftmax, Margins, Options, Output, Result, Shape, SliceHead, State,
    data::{Callback, OnProgress, Stored, StoredValues},
};

/// Which classes an evaluation sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Classes {
    /// All of them.
    All,
    /// Those that the next training step would see with this batch.
    Sampled,
}

/// A head that trains on a sample of the classes: the front of [`PartialFc`] over slices, for every backend.
///
/// Batches are those of a whole head: prototypes, class weights, bias and class margins of all C classes, labels from 0 to
/// C − 1; the parts that the step needs are gathered. With a rate of 1 it is the whole head, bit for bit.
///
/// Whatever depends on the number of classes takes that of the sample: label smoothing spreads over the sampled classes, and the
/// scale of dynamic AdaCos starts at √2·log(⌊rate·C⌋ − 1) and follows the sampled cosines; an evaluation over all classes
/// uses that scale too. [`State::classes`] remains C.
///
/// The rate should leave room for the labels of a batch: ⌊rate·C⌋ ≥ N. Where they are more, the step needs a head of another
/// size. Three heads are kept: the usual one and the two made last (such as that of all classes), each with a workspace within
/// the budget.
///
/// # The optimiser
///
/// `grad_prototypes` has a row for each sampled class (K rows with sub-centers) and none for the others. Each class is there
/// once, so rows can be updated in place. An unsampled row has no gradient *and takes no step*: let weight decay and momentum
/// rest with it, as insightface does, which gathers the momentum of the sampled classes with their prototypes. (A dense
/// gradient with zeros would go on moving absent classes by their momentum, and Adam by its running mean.)
///
/// ```
/// # #[cfg(feature = "cpu")] {
/// use margin_softmax::{partial::{PartialFc, SampledHead}, *};
///
/// let (classes, dim) = (50, 4);
/// let loss = MarginSoftmax::cosface();
/// let shape = Shape::new(2, classes, dim)?;
/// let mut head = SampledHead::new(&Backend::cpu(), &loss, shape, &Options::default(), PartialFc::new(0.1, 7)?)?;
/// let mut prototypes: Vec<f32> = (0..classes * dim).map(|i| (i as f32).sin()).collect();
/// let mut momentum = vec![0.0; classes * dim];
///
/// let embeddings = [0.1, 0.9, 0.0, 0.2, 0.7, 0.1, 0.3, 0.0];
/// let batch = Batch { embeddings: &embeddings, prototypes: &prototypes, labels: &[4, 30], ..Default::default() };
/// let step = head.train(&batch)?;
/// assert_eq!((step.classes.len(), step.output.grad_prototypes.len()), (5, 5 * dim));
/// for (gradient, &class) in step.output.grad_prototypes.chunks_exact(dim).zip(&step.classes) {
///     let row = class * dim..(class + 1) * dim; // with K sub-centers: chunks and rows of K * dim
///     for ((w, m), g) in prototypes[row.clone()].iter_mut().zip(&mut momentum[row]).zip(gradient) {
///         *m = 0.9 * *m + g + 5e-4 * *w;
///         *w -= 0.1 * *m;
///     }
/// }
/// # }
/// # Ok::<(), margin_softmax::Error>(())
/// ```
pub struct SampledHead {
    backend: Backend,
    loss: MarginSoftmax,
    shape: Shape,
    options: Options,
    state: State,
    sampler: PartialFc,
    progress: Callback,
    /// The first is the usual one.
    heads: Vec<SliceHead>,
    sample: Sample,
    gathered: Gathered,
}

/// The result of a step over sampled classes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SampledOutput {
    /// As from a head of these classes: `grad_prototypes` is \[S, D\] (\[S, K, D\]) and `grad_bias` of a linear head \[S\], in the
    /// order of `classes`; the largest other cosine and the counts of prototypes are those of the sample.
    pub output: Output,
    /// \[S\]: the sampled classes, ascending, each once.
    pub classes: Vec<usize>,
}

/// The most heads that are kept.
const KEPT: usize = 3;

impl SampledHead {
    /// A head for batches of at most `shape.rows()` rows and `shape.classes()` classes in all. Compiles and allocates for the
    /// sample alone.
    pub fn new(
        backend: &Backend,
        loss: &MarginSoftmax,
        shape: Shape,
        options: &Options,
        sampler: PartialFc,
    ) -> Result<Self> {
        sampler.validate()?;
        loss.validate_for(shape)?;
        let usual = sampled_head(backend, loss, shape, options, sampler.count(shape.classes()))?;
        let state = State { classes: shape.classes(), ..*usual.state() };
        Ok(Self {
            backend: backend.clone(),
            loss: loss.clone(),
            shape,
            options: *options,
            state,
            sampler,
            progress: Callback::default(),
            heads: vec![usual],
            sample: Sample::default(),
            gathered: Gathered::default(),
        })
    }

    /// The loss in force.
    pub fn loss(&self) -> &MarginSoftmax {
        &self.loss
    }

    /// The sizes this head was made for, with all classes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The state of the loss; `classes` are all of them.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The state of the sampler.
    pub fn sampler(&self) -> &PartialFc {
        &self.sampler
    }

    /// Goes on from a state that was kept.
    pub fn set_state(&mut self, state: &State) -> Result<()> {
        state.validate(self.shape)?;
        self.state = *state;
        Ok(())
    }

    /// Goes on with draws that were kept; another rate may need another head, which is made here.
    pub fn set_sampler(&mut self, sampler: &PartialFc) -> Result<()> {
        sampler.validate()?;
        let count = sampler.count(self.shape.classes());
        if count != self.sampler.count(self.shape.classes()) {
            self.heads = vec![sampled_head(&self.backend, &self.loss, self.shape, &self.options, count)?];
        }
        self.sampler = *sampler;
        Ok(())
    }

    /// A callback that every call tells how far it is, or none: see [`SliceHead::set_progress`]. A call that it stops leaves state
    /// and sampler as they were.
    pub fn set_progress(&mut self, callback: Option<OnProgress>) {
        self.progress = Callback::new(callback);
    }

    /// New margins, a new scale, another reduction, as [`SliceHead::update`]. On an error the old loss stays in force.
    pub fn update(&mut self, loss: &MarginSoftmax) -> Result<()> {
        loss.validate_for(self.shape)?;
        let inner = inner(loss, self.shape);
        self.heads[0].update(&inner)?;
        // a further head that refuses is made anew when it is needed
        let further = self.heads.split_off(1).into_iter();
        self.heads.extend(further.filter_map(|mut head| head.update(&inner).is_ok().then_some(head)));
        self.loss.clone_from(loss);
        Ok(())
    }

    /// A training step over sampled classes: draws, computes, moves the state as [`SliceHead::train`] does, and counts a step
    /// of the state and of the sampler.
    pub fn train<L: Label>(&mut self, batch: &Batch<'_, L>) -> Result<SampledOutput> {
        let mut out = SampledOutput::default();
        self.train_into(batch, &mut out)?;
        Ok(out)
    }

    /// The same into an existing output, whose vectors are used again; output, state and sampler are untouched on an error.
    pub fn train_into<L: Label>(&mut self, batch: &Batch<'_, L>, out: &mut SampledOutput) -> Result<()> {
        self.train_values(batch.values(), batch, out)
    }

    /// [`train`](Self::train) with embeddings and prototypes as they are stored, f32, f16 or bf16 each, in the place of the batch's:
    /// the sampled prototypes are gathered in their own type. Else as [`SliceHead::train_stored`].
    pub fn train_stored<L: Label, X: Stored, W: Stored>(
        &mut self,
        embeddings: &[X],
        prototypes: &[W],
        batch: &Batch<'_, L>,
    ) -> Result<SampledOutput> {
        let mut out = SampledOutput::default();
        self.train_values([X::values(embeddings), W::values(prototypes)], batch, &mut out)?;
        Ok(out)
    }

    fn train_values<L: Label>(
        &mut self,
        tensors: [StoredValues<'_>; 2],
        batch: &Batch<'_, L>,
        out: &mut SampledOutput,
    ) -> Result<()> {
        let (head, part, tensors) = self.prepare(tensors, batch, Classes::Sampled)?;
        head.train_values(tensors, &part, &mut out.output)?;
        let state = *head.state();
        out.classes.clone_from(&self.sample.classes);
        self.count(state);
        Ok(())
    }

    /// [`train`](Self::train) as a future. One that is dropped leaves state and sampler as they were.
    pub async fn train_async<L: Label>(&mut self, batch: &Batch<'_, L>) -> Result<SampledOutput> {
        let (head, part, _) = self.prepare(batch.values(), batch, Classes::Sampled)?;
        let output = head.train_async(&part).await?;
        let state = *head.state();
        self.count(state);
        Ok(SampledOutput { output, classes: self.sample.classes.clone() })
    }

    /// Loss and gradients of one batch at the state as it is, over all classes or over a sample.
    pub fn evaluate<L: Label>(&mut self, batch: &Batch<'_, L>, classes: Classes) -> Result<SampledOutput> {
        let mut out = SampledOutput::default();
        self.evaluate_into(batch, classes, &mut out)?;
        Ok(out)
    }

    /// The same into an existing output, whose vectors are used again; untouched on an error.
    pub fn evaluate_into<L: Label>(
        &mut self,
        batch: &Batch<'_, L>,
        classes: Classes,
        out: &mut SampledOutput,
    ) -> Result<()> {
        let (head, part, _) = self.prepare(batch.values(), batch, classes)?;
        head.evaluate_into(&part, &mut out.output)?;
        out.classes.clone_from(&self.sample.classes);
        Ok(())
    }

    /// [`evaluate`](Self::evaluate) as a future.
    pub async fn evaluate_async<L: Label>(&mut self, batch: &Batch<'_, L>, classes: Classes) -> Result<SampledOutput> {
        let (head, part, _) = self.prepare(batch.values(), batch, classes)?;
        let output = head.evaluate_async(&part).await?;
        Ok(SampledOutput { output, classes: self.sample.classes.clone() })
    }

    /// After a step that moved a head to this state.
    fn count(&mut self, state: State) {
        self.state = State { classes: self.shape.classes(), ..state };
        self.sampler.step += 1;
    }

    /// The head for a batch with these embeddings and prototypes, at the state as it is, and what it needs of them.
    fn prepare<'a, L: Label>(
        &'a mut self,
        tensors: [StoredValues<'a>; 2],
        batch: &Batch<'a, L>,
        which: Classes,
    ) -> Result<(&'a mut SliceHead, Batch<'a>, [StoredValues<'a>; 2])> {
        let Self { backend, loss, shape, options, state, sampler, progress, heads, sample, gathered } = self;
        sampler.validate()?;
        no_soft_labels(batch.soft_labels.is_some())?;
        let labels = batch.check_beside(loss, *shape, &(0..shape.classes()), tensors.map(|v| v.len()))?.labels;
        let classes = shape.classes();
        match which {
            Classes::All => sample.all(labels, loss.ignore_index, classes),
            Classes::Sampled => sampler.draw(labels, loss.ignore_index, classes, sample),
        }
        let count = sample.classes.len();
        let at = match heads.iter().position(|head| head.shape().classes() == count) {
            Some(at) => at,
            None => {
                let head = sampled_head(backend, loss, *shape, options, count)?;
                if heads.len() == KEPT {
                    heads.remove(1);
                }
                heads.push(head);
                heads.len() - 1
            }
        };
        let head = &mut heads[at];
        head.share_progress(progress);
        head.set_state(&State { classes: count, ..*state })?;
        let part = batch.labelled(&sample.labels);
        if count == classes {
            return Ok((head, part, tensors));
        }
        let [embeddings, prototypes] = tensors;
        gathered.fill(prototypes, batch, &sample.classes, shape.sub_centers() * shape.dim());
        let prototypes = match prototypes {
            StoredValues::F32(_) => StoredValues::F32(&gathered.prototypes),
            StoredValues::F16(_) => StoredValues::F16(gathered.halves.reinterpret_cast()),
            StoredValues::Bf16(_) => StoredValues::Bf16(gathered.halves.reinterpret_cast()),
        };
        let part = Batch {
            prototypes: &gathered.prototypes,
            class_weights: gathered.class_weights.as_deref(),
            bias: gathered.bias.as_deref(),
            class_margins: Margins::of(&gathered.class_margins),
            ..part
        };
        Ok((head, part, [embeddings, prototypes]))
    }
}

/// The loss as the heads have it.
fn inner(loss: &MarginSoftmax, shape: Shape) -> MarginSoftmax {
    MarginSoftmax { ignore_index: apart(loss.ignore_index, shape.classes()), ..loss.clone() }
}

/// A sample has the classes of the labels, not those of other targets.
fn no_soft_labels(some: bool) -> Result<()> {
    let refused = Error::Combination { what: "soft_labels", why: "a sample has the classes of the labels alone" };
    if some { Err(refused) } else { Ok(()) }
}

/// A head for a sample of `count` classes.
fn sampled_head(
    backend: &Backend,
    loss: &MarginSoftmax,
    shape: Shape,
    options: &Options,
    count: usize,
) -> Result<SliceHead> {
    no_soft_labels(options.soft_labels.is_some())?;
    let part = Shape::new(shape.rows(), count, shape.dim())?.with_sub_centers(shape.sub_centers())?;
    backend.head_with(&inner(loss, shape), part, options)
}

/// The parts of a batch that belong to the sampled classes.
#[derive(Default)]
struct Gathered {
    prototypes: Vec<f32>,
    /// In the place of `prototypes`, those of a half type.
    halves: Vec<u16>,
    class_weights: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    class_margins: [Option<Vec<f32>>; 4],
}

impl Gathered {
    /// `values` per class are those of its prototypes.
    fn fill<L>(&mut self, prototypes: StoredValues<'_>, batch: &Batch<'_, L>, classes: &[usize], values: usize) {
        match prototypes {
            StoredValues::F32(all) => gather(&mut self.prototypes, all, classes, values),
            StoredValues::F16(all) => gather(&mut self.halves, all.reinterpret_cast(), classes, values),
            StoredValues::Bf16(all) => gather(&mut self.halves, all.reinterpret_cast(), classes, values),
        }
        one_each(&mut self.class_weights, batch.class_weights, classes);
        one_each(&mut self.bias, batch.bias, classes);
        for (own, all) in self.class_margins.iter_mut().zip(batch.class_margins.each()) {
            one_each(own, all, classes);
        }
    }
}

fn gather<T: Copy>(own: &mut Vec<T>, all: &[T], classes: &[usize], values: usize) {
    own.clear();
    own.reserve(classes.len() * values);
    for &class in classes {
        own.extend_from_slice(&all[class * values..(class + 1) * values]);
    }
}

fn one_each(own: &mut Option<Vec<f32>>, all: Option<&[f32]>, classes: &[usize]) {
    match all {
        Some(all) => gather(own.get_or_insert_default(), all, classes, 1),
        None => *own = None,
    }
}

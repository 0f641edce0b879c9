//! The module.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use burn::{
    backend::{
        Autodiff, Cube, DispatchKindConversion, DispatchTensor, GradientCheckpointingStrategy,
        autodiff::checkpoint::strategy::{BalancedCheckpointing, CheckpointStrategy, NoCheckpointing},
        tensor::FloatTensor,
    },
    config::Config,
    module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param, RunningState},
    tensor::{DType, Device, Int, IntDType, Tensor},
};
use margin_softmax::{Adaptive, MarginSoftmax, Shape, Similarity, State, objective::Schedules};

use crate::{
    Error, Result, buffer, device, monitor,
    op::{self, Call, Output},
    pool::{self, Pool},
    predict::{self, Heads},
    step::{Predictions, StepOptions, StepOutput, beside, check_floats, check_wgpu, on_device},
};

/// How to make a [`MarginHead`].
///
/// ```
/// use margin_softmax_burn::{MarginHeadConfig, MarginSoftmax};
///
/// let config = MarginHeadConfig::new(1000, 128, MarginSoftmax::arcface()).with_sub_centers(3);
/// assert_eq!(config.budget, 256 << 20);
/// ```
#[derive(Config, Debug)]
pub struct MarginHeadConfig {
    /// The number of classes, C.
    pub classes: usize,
    /// The dimension of an embedding, D.
    pub dim: usize,
    /// The loss. In a file it is written as the crate `margin-softmax` does; a custom margin has no such form.
    pub loss: MarginSoftmax,
    /// Prototypes of a class, K; default 1.
    #[config(default = 1)]
    pub sub_centers: usize,
    /// The most bytes of workspace of a forward pass and its backward pass; default 256 MiB. Not counted: a copy of each
    /// gradient.
    #[config(default = 268_435_456)]
    pub budget: u64,
    /// Of what ElasticFace draws; default 0.
    #[config(default = 0)]
    pub seed: u64,
    /// Of the prototypes; default Xavier's uniform distribution.
    #[config(default = "Initializer::XavierUniform{gain:1.0}")]
    pub initializer: Initializer,
}

/// The classification head of metric learning: prototypes, and a margin-softmax loss over them with analytic gradients.
///
/// Runs on a wgpu device that burn and the head share, see [`init`](crate::init) and [`from_setup`](crate::from_setup).
/// Clones share compiled kernels and workspaces.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MarginHead {
    /// W, \[C·K, D\], the K prototypes of a class side by side.
    pub prototypes: Param<Tensor<2>>,
    /// What a loss follows from batch to batch, \[4\]: hardness (CurricularFace), mean and deviation of the embeddings'
    /// lengths (AdaFace), scale (AdaCos). Saved with the module; only these losses read it, and one outside the ranges of
    /// [`State`] makes their loss NaN.
    pub state: RunningState<Tensor<1>>,
    sub_centers: usize,
    budget: u64,
    seed: u64,
    #[module(skip)]
    loss: MarginSoftmax,
    #[module(skip)]
    step: Arc<AtomicU64>,
    #[module(skip)]
    pool: Pool,
    #[module(skip)]
    predictors: Heads,
}

impl ModuleDisplay for MarginHead {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [vectors, dim] = self.prototypes.shape().dims();
        content
            .add("classes", &(vectors / self.sub_centers))
            .add("sub_centers", &self.sub_centers)
            .add("dim", &dim)
            .add("scale", &self.loss.scale)
            .optional()
    }
}

impl MarginHeadConfig {
    /// A head with new prototypes.
    ///
    /// # Panics
    ///
    /// Where [`try_init`](Self::try_init) returns an error.
    pub fn init(&self, device: &Device) -> MarginHead {
        self.try_init(device).unwrap_or_else(|e| panic!("MarginHeadConfig::init: {e}"))
    }

    /// The same, with an error for sizes or a loss that no head may have. The device is asked in the first forward pass.
    pub fn try_init(&self, device: &Device) -> Result<MarginHead> {
        let shape = Shape::new(0, self.classes, self.dim)?.with_sub_centers(self.sub_centers)?;
        self.loss.validate()?;
        let state = pool::numbers(&State::new(&self.loss, shape)?);
        let size = [shape.vectors(), self.dim];
        Ok(MarginHead {
            prototypes: self.initializer.init_with(size, Some(self.dim), Some(shape.vectors()), device),
            state: RunningState::new(Tensor::from_data(state, device)),
            sub_centers: self.sub_centers,
            budget: self.budget,
            seed: self.seed,
            loss: self.loss.clone(),
            step: Arc::default(),
            pool: Pool::default(),
            predictors: Heads::default(),
        })
    }
}

impl MarginHead {
    /// The loss: \[1\], or \[N\] with `Reduction::None`.
    ///
    /// - `embeddings`: \[N, D\], f32. If there are no rows, or every label is the ignore index, the loss is 0 and so are the
    ///   gradients.
    /// - `labels`: \[N\], of any integer type. One that names no class, and is not the ignore index, makes its row's loss NaN.
    ///
    /// With autodiff on the tensors or the module this is a training step: gradients can flow to both, and what a loss
    /// follows moves. Without it is an evaluation. Nothing is copied to the host, and nothing waits.
    ///
    /// # Panics
    ///
    /// Where [`try_forward`](Self::try_forward) returns an error.
    pub fn forward(&self, embeddings: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
        self.try_forward(embeddings, labels).unwrap_or_else(|e| panic!("MarginHead::forward: {e}"))
    }

    /// The same with an error: another backend, two devices, a device that is not shared, shapes that do not match,
    /// another element type, a device that cannot run the head.
    pub fn try_forward(&self, embeddings: Tensor<2>, labels: Tensor<1, Int>) -> Result<Tensor<1>> {
        Ok(self.try_forward_with(embeddings, labels, &StepOptions::default())?.loss)
    }

    /// [`forward`](Self::forward) with weights of the rows, soft labels and more, and with the nearest classes of each row and
    /// log-sum-exps beside the loss.
    ///
    /// ```no_run
    /// # use burn::tensor::{Int, Tensor};
    /// use margin_softmax_burn::{MarginHead, SoftLabels, StepOptions};
    ///
    /// /// The loss of a mixup of two batches.
    /// fn mixup(head: &MarginHead, mixed: Tensor<2>, labels: [Tensor<1, Int>; 2], lambda: Tensor<1>) -> Tensor<1> {
    ///     let [first, second] = labels;
    ///     let soft_labels = Some(SoftLabels::mixed(first.clone(), second, lambda));
    ///     head.forward_with(mixed, first, &StepOptions { soft_labels, ..StepOptions::default() }).loss
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// Where [`try_forward_with`](Self::try_forward_with) returns an error.
    pub fn forward_with(&self, embeddings: Tensor<2>, labels: Tensor<1, Int>, options: &StepOptions) -> StepOutput {
        self.try_forward_with(embeddings, labels, options).unwrap_or_else(|e| panic!("MarginHead::forward_with: {e}"))
    }

    /// The same with an error: those of [`try_forward`](Self::try_forward), an optional tensor of another shape or element type or
    /// on another device, and what the loss does not allow, such as class margins where the target has none.
    pub fn try_forward_with(
        &self,
        embeddings: Tensor<2>,
        labels: Tensor<1, Int>,
        options: &StepOptions,
    ) -> Result<StepOutput> {
        let prototypes = self.prototypes.val();
        let shape = self.check(&embeddings, &prototypes)?;
        let device = embeddings.device().inner();
        on_device("labels", labels.device(), &device)?;
        let [found] = labels.dims();
        if found != shape.rows() {
            return Err(margin_softmax::Error::Length { what: "labels", found, expected: shape.rows() }.into());
        }
        let context = device::context(&device)?;

        let labels = as_i32(labels.without_autodiff());
        let labels = buffer::int(labels.try_into_primitive::<Cube>().map_err(|e| Error::backend("labels", e))?);
        let follows = self.follows(&device)?.try_into_primitive::<Cube>().map_err(|e| Error::backend("state", e))?;

        let strategies = (embeddings.gradient_checkpointing_strategy(), prototypes.gradient_checkpointing_strategy());
        let strategy = match strategies {
            (Some(x), Some(w)) if x != w => return Err(Error::Checkpointing),
            (x, w) => x.or(w),
        };
        let optional = options.constants(&device)?;
        monitor::check(options, &self.loss)?;
        let training = strategy.is_some();
        let step = if training { self.step.fetch_add(1, Ordering::Relaxed) } else { self.step() };
        let state = State { step, ..State::new(&self.loss, shape)?.with_seed(self.seed) };
        let (pool, loss, context, budget) = (&self.pool, &self.loss, &context, self.budget);
        let call = Call { pool, context, loss, shape, budget, state: &state, training, options };
        let rest = (labels, optional);
        let Some(strategy) = strategy else {
            let [x, w] = [embeddings, prototypes].map(|t| t.try_into_primitive::<Cube>());
            let (x, w) =
                (x.map_err(|e| Error::backend("embeddings", e))?, w.map_err(|e| Error::backend("prototypes", e))?);
            let (loss, output) = op::evaluate(&call, [x, w, follows], rest)?;
            return Ok(results(Tensor::from_primitive::<Cube>(loss), output, None));
        };
        // a tensor without autodiff is a constant
        let lift = |t: Tensor<2>| t.autodiff().with_gradient_checkpointing_strategy(strategy);
        let tensors = [lift(embeddings), lift(prototypes)];
        let (loss, mut output) = match strategy {
            GradientCheckpointingStrategy::Disabled => tracked::<NoCheckpointing>(&call, tensors, follows, rest)?,
            GradientCheckpointingStrategy::Balanced => tracked::<BalancedCheckpointing>(&call, tensors, follows, rest)?,
        };
        if let Some(moved) = output.state.take() {
            self.state.update(beside(Tensor::from_primitive::<Cube>(moved), Some(strategy)));
        }
        Ok(results(loss, output, Some(strategy)))
    }

    /// The `k` nearest classes of each row, 1 ≤ k ≤ 64, without labels: cosines and log-probabilities without margin. Classes are
    /// taken in chunks that fit the budget, so that no N×C matrix is made. There are no gradients.
    ///
    /// With AdaCos the scale is read from the device, which waits for it; with any other loss nothing waits.
    ///
    /// # Panics
    ///
    /// Where [`try_predict`](Self::try_predict) returns an error.
    pub fn predict(&self, embeddings: Tensor<2>, k: usize) -> Predictions {
        self.try_predict(embeddings, k).unwrap_or_else(|e| panic!("MarginHead::predict: {e}"))
    }

    /// The same with an error: those of [`try_forward`](Self::try_forward), and a `k` that is 0, above 64 or above the number of
    /// classes.
    pub fn try_predict(&self, embeddings: Tensor<2>, k: usize) -> Result<Predictions> {
        let prototypes = self.prototypes.val();
        let shape = self.check(&embeddings, &prototypes)?;
        let device = embeddings.device().inner();
        let context = device::context(&device)?;
        let mut scaled = self.loss.clone();
        if scaled.adaptive == Adaptive::AdaCos {
            let numbers: Vec<f32> = self.follows(&device)?.into_data().iter::<f32>().collect();
            scaled.scale = numbers.last().copied().map_or(scaled.scale, f64::from);
        }
        let strategy = embeddings.gradient_checkpointing_strategy();
        let [x, w] = [embeddings, prototypes].map(|t| t.without_autodiff().try_into_primitive::<Cube>());
        let (x, w) = (x.map_err(|e| Error::backend("embeddings", e))?, w.map_err(|e| Error::backend("prototypes", e))?);
        let call =
            predict::Call { heads: &self.predictors, context: &context, loss: &self.loss, shape, budget: self.budget };
        Ok(Predictions::new(predict::run(&call, k, [x, w], &scaled)?, strategy))
    }

    /// The numbers of the state that a loss follows, on this device.
    pub(crate) fn follows(&self, device: &Device) -> Result<Tensor<1>> {
        let follows = self.state.value_sync().without_autodiff().to_device(device);
        // a record may hold anything
        if follows.dims() != [4] {
            let (found, expected) = (follows.dims().to_vec(), vec![4]);
            return Err(margin_softmax::Error::Shape { what: "state", found, expected }.into());
        }
        check_floats("state", follows.dtype())?;
        Ok(follows)
    }

    /// What the classes are ranked by, \[N, C\]: the cosines of the embeddings with the prototypes, of a class with
    /// sub-centers the largest; the plain products with a linear loss. Made of burn's own operations, on any backend; the
    /// largest of a row is the prediction.
    ///
    /// # Panics
    ///
    /// As burn does, where devices or shapes do not match.
    pub fn scores(&self, embeddings: Tensor<2>) -> Tensor<2> {
        let unit = |v: Tensor<2>| match self.loss.similarity {
            Similarity::Dot => v,
            _ => {
                let length = v.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
                v / length
            }
        };
        let [rows, _] = embeddings.dims();
        let scores = unit(embeddings).matmul(unit(self.prototypes.val()).transpose());
        if self.sub_centers == 1 {
            return scores;
        }
        let [_, vectors] = scores.dims();
        let classes = vectors / self.sub_centers;
        scores.reshape([rows, classes, self.sub_centers]).max_dim(2).reshape([rows, classes])
    }

    /// The loss.
    pub fn loss(&self) -> &MarginSoftmax {
        &self.loss
    }

    /// Another margin or scale from the next forward pass on, such as a schedule's; compiles only where the loss needs
    /// other kernels. A saved module does not hold the loss.
    pub fn set_loss(&mut self, loss: MarginSoftmax) -> Result<()> {
        loss.validate()?;
        self.loss = loss;
        Ok(())
    }

    /// The margins and the scale of the next training step under schedules: before each forward pass of a run. Compiles nothing.
    ///
    /// Errors: a number that the loss does not have, or a value outside its range; the loss stays as it is then.
    pub fn apply_schedules(&mut self, schedules: &Schedules) -> Result<()> {
        schedules.apply(self.step(), &mut self.loss)?;
        Ok(())
    }

    /// The most bytes of workspace, and the seed of what ElasticFace draws.
    pub(crate) fn budget_and_seed(&self) -> (u64, u64) {
        (self.budget, self.seed)
    }

    /// Training steps so far; ElasticFace's draws depend on it.
    pub fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    /// Goes on from a step of a saved run: records hold tensors only.
    pub fn set_step(&mut self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// Buffer and offset of embeddings, prototypes and labels as they are bound, the last used first, for tests.
    #[doc(hidden)]
    pub fn places(&self) -> Vec<[(margin_softmax::wgpu::Buffer, u64); 3]> {
        self.pool.places()
    }

    pub(crate) fn check(&self, x: &Tensor<2>, w: &Tensor<2>) -> Result<Shape> {
        let expected = check_wgpu("embeddings", &x.device())?;
        on_device("prototypes", w.device(), &expected)?;
        let ([n, d], [vectors, dim]) = (x.dims(), w.dims());
        if d != dim {
            let (found, expected) = (vec![n, d], vec![n, dim]);
            return Err(margin_softmax::Error::Shape { what: "embeddings", found, expected }.into());
        }
        if !vectors.is_multiple_of(self.sub_centers) {
            let (found, expected) = (vec![vectors, d], vec![vectors.next_multiple_of(self.sub_centers), d]);
            return Err(margin_softmax::Error::Shape { what: "prototypes", found, expected }.into());
        }
        check_floats("embeddings", x.dtype())?;
        check_floats("prototypes", w.dtype())?;
        Ok(Shape::new(n, vectors / self.sub_centers, d)?.with_sub_centers(self.sub_centers)?)
    }
}

/// A label that does not fit becomes one that names no class: cutting its upper bits off could make it another class.
pub(crate) fn as_i32<const D: usize>(labels: Tensor<D, Int>) -> Tensor<D, Int> {
    let labels = match labels.dtype() {
        DType::I32 => return labels,
        DType::I64 => labels.clamp(i32::MIN, i32::MAX),
        DType::U32 | DType::U64 => labels.clamp_max(i32::MAX),
        _ => labels,
    };
    labels.cast(IntDType::I32)
}

fn tracked<C: CheckpointStrategy>(
    call: &Call<'_>,
    tensors: [Tensor<2>; 2],
    state: FloatTensor<Cube>,
    rest: op::Rest,
) -> Result<(Tensor<1>, Output)>
where
    DispatchTensor: DispatchKindConversion<Autodiff<Cube, C>>,
{
    let [x, w] = tensors.map(|t| t.try_into_primitive::<Autodiff<Cube, C>>());
    let (x, w) = (x.map_err(|e| Error::backend("embeddings", e))?, w.map_err(|e| Error::backend("prototypes", e))?);
    let (loss, output) = op::track::<C>(call, [x, w], state, rest)?;
    Ok((Tensor::from_primitive::<Autodiff<Cube, C>>(loss), output))
}

/// The loss with the constants beside it.
fn results(loss: Tensor<1>, output: Output, strategy: Option<GradientCheckpointingStrategy>) -> StepOutput {
    let Output { log_sum_exps, nearest, monitor, .. } = output;
    StepOutput {
        loss,
        log_sum_exps: log_sum_exps.map(|sums| beside(Tensor::from_primitive::<Cube>(sums), strategy)),
        predictions: nearest.map(|nearest| Predictions::new(nearest, strategy)),
        monitor,
    }
}

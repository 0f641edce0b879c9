//! Penalties on the prototypes, and the center loss, on burn's tensors.

use burn::{
    backend::{Cube, GradientCheckpointingStrategy, tensor::FloatTensor},
    config::Config,
    module::{Content, DisplaySettings, Module, ModuleDisplay, RunningState},
    tensor::{Device, Int, Tensor},
};
use burn_cubecl::tensor::CubeTensor;
use margin_softmax::{
    CenterLoss, Regularizer, Shape,
    gpu::{self, Context, auxiliary},
    plan::Element,
    wgpu,
};

use crate::{
    Error, Result, buffer, device,
    head::as_i32,
    step::{beside, check_floats, check_wgpu, on_device},
};

/// A penalty on prototypes \[C, D\] (`head.prototypes.val()`; with sub-centers each of the C·K counts), to be added to the loss of
/// a head: its value, \[1\], from which the gradient flows to the prototypes.
///
/// ```no_run
/// # use burn::tensor::{Int, Tensor};
/// use margin_softmax_burn::{MarginHead, Regularizer, regularize};
///
/// fn loss(head: &MarginHead, embeddings: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
///     head.forward(embeddings, labels) + regularize(&Regularizer::reg_ss().with_weight(10.0), head.prototypes.val())
/// }
/// ```
///
/// # Panics
///
/// Where [`try_regularize`] returns an error.
pub fn regularize(regularizer: &Regularizer, prototypes: Tensor<2>) -> Tensor<1> {
    try_regularize(regularizer, prototypes).unwrap_or_else(|e| panic!("regularize: {e}"))
}

/// The same with an error: a weight outside its range, another backend or element type, a device that is not shared, no
/// prototype, or more than a device can hold.
pub fn try_regularize(regularizer: &Regularizer, prototypes: Tensor<2>) -> Result<Tensor<1>> {
    regularizer.validate()?;
    let [classes, dim] = prototypes.dims();
    let shape = [Shape::new(1, classes, dim)?.classes(), dim];
    let on = check_wgpu("prototypes", &prototypes.device())?;
    check_floats("prototypes", prototypes.dtype())?;
    let context = device::context(&on)?;
    let w = primitive("prototypes", prototypes.clone())?;
    let held = buffer::hold("prototypes", &w, &shape, Element::F32)?;
    let own = gpu::Tensor::empty(&context, &shape, Element::F32)?;
    let found = Found::new(&w, &shape);
    recorded(&context, |encoder| {
        let value = auxiliary::regularize(&context, encoder, regularizer, &held.tensor, &own, false)?;
        found.take(encoder, &value, &own)
    })?;
    Ok(found.attached(prototypes))
}

/// How to make [`Centers`].
///
/// ```
/// use margin_softmax_burn::{CenterLoss, CentersConfig};
///
/// let config = CentersConfig::new(1000, 128).with_loss(CenterLoss { weight: 0.003, ..CenterLoss::default() });
/// assert_eq!(config.loss.rate, 0.5);
/// ```
#[derive(Config, Debug)]
pub struct CentersConfig {
    /// The number of classes, C.
    pub classes: usize,
    /// The dimension of an embedding, D.
    pub dim: usize,
    /// Its weight, how far the centers move, and the label that is left out.
    #[config(default = "CenterLoss::default()")]
    pub loss: CenterLoss,
}

/// The center loss of Wen et al.: embeddings, not normalised, are drawn to the center of their class, which moves with them.
/// To be added to the loss of a head.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Centers {
    /// \[C, D\], at first 0. Saved with the module.
    pub centers: RunningState<Tensor<2>>,
    #[module(skip)]
    loss: CenterLoss,
}

impl ModuleDisplay for Centers {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [classes, dim] = self.centers.value().dims();
        content
            .add("classes", &classes)
            .add("dim", &dim)
            .add("weight", &self.loss.weight)
            .add("rate", &self.loss.rate)
            .optional()
    }
}

impl CentersConfig {
    /// Centers at 0.
    ///
    /// # Panics
    ///
    /// Where [`try_init`](Self::try_init) returns an error.
    pub fn init(&self, device: &Device) -> Centers {
        self.try_init(device).unwrap_or_else(|e| panic!("CentersConfig::init: {e}"))
    }

    /// The same, with an error for sizes or numbers that no center loss may have.
    pub fn try_init(&self, device: &Device) -> Result<Centers> {
        let shape = Shape::new(0, self.classes, self.dim)?;
        self.loss.validate()?;
        let centers = Tensor::zeros([shape.classes(), shape.dim()], device);
        Ok(Centers { centers: RunningState::new(centers), loss: self.loss })
    }
}

impl Centers {
    /// The loss around the centers, \[1\], from which the gradient flows to the embeddings.
    ///
    /// - `embeddings`: \[N, D\], f32; at most 32,768 rows. Without rows the loss is 0.
    /// - `labels`: \[N\], of any integer type. One that names no class, and is not the ignore index, makes the loss NaN.
    ///
    /// With autodiff on the embeddings this is a training step: the centers move after the loss is found. Without it is an
    /// evaluation. Nothing is copied to the host, and nothing waits.
    ///
    /// # Panics
    ///
    /// Where [`try_forward`](Self::try_forward) returns an error.
    pub fn forward(&self, embeddings: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
        self.try_forward(embeddings, labels).unwrap_or_else(|e| panic!("Centers::forward: {e}"))
    }

    /// The same with an error: another backend, two devices, a device that is not shared, shapes that do not match, another
    /// element type, too many rows.
    pub fn try_forward(&self, embeddings: Tensor<2>, labels: Tensor<1, Int>) -> Result<Tensor<1>> {
        let on = check_wgpu("embeddings", &embeddings.device())?;
        check_floats("embeddings", embeddings.dtype())?;
        on_device("labels", labels.device(), &on)?;
        let ([rows, dim], [found]) = (embeddings.dims(), labels.dims());
        if found != rows {
            return Err(margin_softmax::Error::Length { what: "labels", found, expected: rows }.into());
        }
        let centers = self.centers.value_sync().without_autodiff().to_device(&on);
        check_floats("centers", centers.dtype())?;
        let [classes, of] = centers.dims();
        if of != dim {
            let (found, expected) = (vec![rows, dim], vec![rows, of]);
            return Err(margin_softmax::Error::Shape { what: "embeddings", found, expected }.into());
        }
        if rows == 0 {
            return Ok(Tensor::zeros([1], &embeddings.device()));
        }
        let context = device::context(&on)?;
        let strategy = embeddings.gradient_checkpointing_strategy();
        let (x, c) = (primitive("embeddings", embeddings.clone())?, primitive("centers", centers)?);
        let labels = as_i32(labels.without_autodiff()).try_into_primitive::<Cube>();
        let labels = buffer::int(labels.map_err(|e| Error::backend("labels", e))?);
        let (shape, sizes) = ([rows, dim], [classes, dim]);
        let held = buffer::hold("embeddings", &x, &shape, Element::F32)?;
        let held_centers = buffer::hold("centers", &c, &sizes, Element::F32)?;
        let held_labels = buffer::hold("labels", &labels, &[rows], Element::I32)?;
        let (x_at, c_at, y_at) = (&held.tensor, &held_centers.tensor, &held_labels.tensor);
        let own = gpu::Tensor::empty(&context, &shape, Element::F32)?;
        let found = Found::new(&x, &shape);
        let next = strategy.map(|_| buffer::empty(&sizes, &x.device));
        recorded(&context, |encoder| {
            let value = auxiliary::center_loss(&context, encoder, &self.loss, x_at, y_at, c_at, &own, false)?;
            found.take(encoder, &value, &own)?;
            if let Some((_, itself)) = &next {
                // burn's own centers stay as they are for whoever holds them
                let moved = gpu::Tensor::empty(&context, &sizes, Element::F32)?;
                buffer::copy_all(encoder, c_at, &moved, 0);
                auxiliary::update_centers(&context, encoder, &self.loss, x_at, y_at, &moved)?;
                let to = buffer::hold("centers", itself, &sizes, Element::F32)?;
                buffer::copy_all(encoder, &moved, &to.tensor, 0);
            }
            Ok(())
        })?;
        if let Some((moved, _)) = next {
            self.centers.update(beside(Tensor::from_primitive::<Cube>(moved), strategy));
        }
        Ok(found.attached(embeddings))
    }

    /// The weight, how far the centers move, and the label that is left out.
    pub fn loss(&self) -> &CenterLoss {
        &self.loss
    }
}

/// A constant's tensor, dense.
pub(crate) fn primitive<const D: usize>(what: &'static str, tensor: Tensor<D>) -> Result<CubeTensor> {
    let tensor = tensor.without_autodiff().try_into_primitive::<Cube>();
    Ok(buffer::float(tensor.map_err(|e| Error::backend(what, e))?))
}

/// Records and submits; nothing is submitted after an error.
pub(crate) fn recorded<T>(context: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<T>) -> Result<T> {
    let mut encoder = context.device().create_command_encoder(&Default::default());
    let done = record(&mut encoder)?;
    context.queue().submit([encoder.finish()]);
    Ok(done)
}

/// A value and its gradient in new tensors of burn's.
struct Found {
    value: (FloatTensor<Cube>, CubeTensor),
    gradient: (FloatTensor<Cube>, CubeTensor),
    shape: [usize; 2],
}

impl Found {
    /// On the device of this tensor.
    fn new(beside: &CubeTensor, shape: &[usize; 2]) -> Self {
        let device = &beside.device;
        Self { value: buffer::empty(&[1], device), gradient: buffer::empty(shape, device), shape: *shape }
    }

    /// Copies a value and a gradient into them.
    fn take(&self, encoder: &mut wgpu::CommandEncoder, value: &gpu::Tensor, gradient: &gpu::Tensor) -> Result<()> {
        let to = buffer::hold("loss", &self.value.1, &[1], Element::F32)?;
        buffer::copy_all(encoder, value, &to.tensor, 0);
        let to = buffer::hold("gradient", &self.gradient.1, &self.shape, Element::F32)?;
        buffer::copy_all(encoder, gradient, &to.tensor, 0);
        Ok(())
    }

    /// The value as a function of `of`, whose derivative is the gradient.
    ///
    /// x·g with a constant g has the gradient g; subtracting the same number again leaves the value as it was found.
    fn attached(self, of: Tensor<2>) -> Tensor<1> {
        let strategy: Option<GradientCheckpointingStrategy> = of.gradient_checkpointing_strategy();
        let value = beside(Tensor::<1>::from_primitive::<Cube>(self.value.0), strategy);
        if strategy.is_none() {
            return value;
        }
        let gradient = beside(Tensor::<2>::from_primitive::<Cube>(self.gradient.0), strategy);
        let along = (of * gradient).sum();
        value + (along.clone() - along.detach())
    }
}

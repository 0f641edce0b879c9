//! The inputs of a step beside embeddings and labels, and its results beside the loss.

use burn::{
    backend::{
        Cube, CubeDevice, DispatchDevice, GradientCheckpointingStrategy,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{DType, Device, Int, Tensor},
};
use burn_cubecl::tensor::CubeTensor;
use margin_softmax::plan::Element;

use crate::{Error, Result, buffer, head::as_i32, monitor::StepMonitor};

/// Optional inputs of a step, and the results that are wanted beside the loss. All tensors are constants: no gradient flows
/// to them.
///
/// ```
/// use margin_softmax_burn::StepOptions;
///
/// let options = StepOptions { predictions: Some(5), ..StepOptions::default() };
/// assert!(!options.log_sum_exps);
/// ```
#[derive(Clone, Debug, Default)]
pub struct StepOptions {
    /// A factor on the loss of each row and on its share of the mean, \[N\], f32: 0, or within 1e-30..=1e24. Any other makes
    /// its row's loss NaN.
    pub row_weights: Option<Tensor<1>>,
    /// The weights of the classes, \[C\], f32, as in burn's cross entropy: 0, or within 1e-30..=1e24.
    pub class_weights: Option<Tensor<1>>,
    /// Margins m0..m3 of each class, \[C, 4\], f32; NaN means those of the loss.
    pub class_margins: Option<Tensor<2>>,
    /// Several targets of each row, in the place of its label.
    pub soft_labels: Option<SoftLabels>,
    /// The number that a mean is divided by, in the place of the sum of the weights, 1e-30..=1e30: with the sum of the full batch
    /// the losses of its parts add up to that of the whole.
    pub divisor: Option<f32>,
    /// How many of the nearest classes of each row are returned, 1 to 64; not together with soft labels.
    pub predictions: Option<usize>,
    /// Whether the log-sum-exps of the rows are returned.
    pub log_sum_exps: bool,
    /// Bins of the histograms of a monitor of the step, 1 to 1024: accuracy and angles come beside the loss. Not with a linear
    /// loss, which has no angles.
    pub monitor: Option<usize>,
}

/// Targets of each row with their weights: mixup, cutmix, the top classes of a teacher; with a binary link several positives.
///
/// The loss is Σ_t λ_t·loss(x, y_t), each term with the margin of its own class. The labels still decide what a loss follows,
/// and which rows are ignored.
#[derive(Clone, Debug)]
pub struct SoftLabels {
    /// y, \[N, T\] with 1 ≤ T ≤ 16, of any integer type. A negative one is no target; one that names no class makes its row's loss
    /// NaN.
    pub classes: Tensor<2, Int>,
    /// λ, \[N, T\], f32: 0, or within 1e-30..=1e24.
    pub weights: Tensor<2>,
}

impl SoftLabels {
    /// Two targets of each row, all \[N\]: λ of the first and 1 − λ of the second.
    pub fn mixed(first: Tensor<1, Int>, second: Tensor<1, Int>, lambda: Tensor<1>) -> Self {
        let rest = -lambda.clone() + 1.0;
        Self { classes: Tensor::stack(vec![first, second], 1), weights: Tensor::stack(vec![lambda, rest], 1) }
    }
}

/// The results of a step.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// \[1\], or \[N\] with `Reduction::None`; gradients flow from here.
    pub loss: Tensor<1>,
    /// log Σ exp over all classes of the loss' own logits, \[N\], where it was asked for; 0 for an ignored row and with a binary
    /// link. A constant: the option `z_loss` of the loss has its gradient.
    pub log_sum_exps: Option<Tensor<1>>,
    /// The nearest classes, where they were asked for.
    pub predictions: Option<Predictions>,
    /// Accuracy and angles of the rows, where they were asked for; reading them waits for the step.
    pub monitor: Option<StepMonitor>,
}

/// The nearest classes of each row, best first; constants.
#[derive(Clone, Debug)]
pub struct Predictions {
    /// \[N, k\], i32; −1 for a row that is ignored or not finite.
    pub classes: Tensor<2, Int>,
    /// Their cosines, without margin or scale; of a linear head the products. \[N, k\].
    pub cosines: Tensor<2>,
    /// The log-softmax of scale·cosine over all classes; with a binary link the log of the sigmoid. \[N, k\].
    pub log_probabilities: Tensor<2>,
}

/// One of each optional input.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Optional<T> {
    pub row_weights: Option<T>,
    pub class_weights: Option<T>,
    pub class_margins: Option<T>,
    pub soft_classes: Option<T>,
    pub soft_weights: Option<T>,
}

impl<T> Optional<T> {
    pub fn each_ref(&self) -> Optional<&T> {
        Optional {
            row_weights: self.row_weights.as_ref(),
            class_weights: self.class_weights.as_ref(),
            class_margins: self.class_margins.as_ref(),
            soft_classes: self.soft_classes.as_ref(),
            soft_weights: self.soft_weights.as_ref(),
        }
    }

    pub fn try_map<U>(self, mut f: impl FnMut(&'static str, T) -> Result<U>) -> Result<Optional<U>> {
        let mut one = |what, given: Option<T>| given.map(|given| f(what, given)).transpose();
        Ok(Optional {
            row_weights: one("row_weights", self.row_weights)?,
            class_weights: one("class_weights", self.class_weights)?,
            class_margins: one("class_margins", self.class_margins)?,
            soft_classes: one("soft_classes", self.soft_classes)?,
            soft_weights: one("soft_weights", self.soft_weights)?,
        })
    }

    pub fn map<U>(self, f: impl Fn(T) -> U) -> Optional<U> {
        Optional {
            row_weights: self.row_weights.map(&f),
            class_weights: self.class_weights.map(&f),
            class_margins: self.class_margins.map(&f),
            soft_classes: self.soft_classes.map(&f),
            soft_weights: self.soft_weights.map(&f),
        }
    }

    /// Those that are there.
    pub fn each(self) -> impl Iterator<Item = T> {
        [self.row_weights, self.class_weights, self.class_margins, self.soft_classes, self.soft_weights]
            .into_iter()
            .flatten()
    }
}

/// A constant as burn holds it; as long as it is here, burn does not change it in place.
pub struct Constant {
    pub tensor: CubeTensor,
    pub shape: Vec<usize>,
    pub element: Element,
}

impl StepOptions {
    /// The tensors, which must be on this device.
    pub fn constants(&self, device: &Device) -> Result<Optional<Constant>> {
        let (classes, weights) = self.soft_labels.clone().map(|soft| (soft.classes, soft.weights)).unzip();
        Ok(Optional {
            row_weights: floats("row_weights", self.row_weights.clone(), device)?,
            class_weights: floats("class_weights", self.class_weights.clone(), device)?,
            class_margins: floats("class_margins", self.class_margins.clone(), device)?,
            soft_classes: match classes {
                None => None,
                Some(classes) => {
                    on_device("soft_classes", classes.device(), device)?;
                    let shape = classes.dims().to_vec();
                    let tensor = as_i32(classes.without_autodiff()).try_into_primitive::<Cube>();
                    let tensor = buffer::int(tensor.map_err(|e| Error::backend("soft_classes", e))?);
                    Some(Constant { tensor, shape, element: Element::I32 })
                }
            },
            soft_weights: floats("soft_weights", weights, device)?,
        })
    }
}

fn floats<const D: usize>(what: &'static str, given: Option<Tensor<D>>, device: &Device) -> Result<Option<Constant>> {
    let Some(given) = given else { return Ok(None) };
    on_device(what, given.device(), device)?;
    check_floats(what, given.dtype())?;
    let shape = given.dims().to_vec();
    let tensor = given.without_autodiff().try_into_primitive::<Cube>().map_err(|e| Error::backend(what, e))?;
    Ok(Some(Constant { tensor: buffer::float(tensor), shape, element: Element::F32 }))
}

/// The device without autodiff; refuses another backend than burn's wgpu.
pub(crate) fn check_wgpu(what: &'static str, device: &Device) -> Result<Device> {
    let device = device.clone().inner();
    if matches!(device.as_dispatch(), DispatchDevice::Cube(CubeDevice::Wgpu(_))) {
        return Ok(device);
    }
    Err(Error::Backend { what, found: format!("{device:?}") })
}

/// Refuses another element type than f32.
pub(crate) fn check_floats(what: &'static str, found: DType) -> Result<()> {
    if found == DType::F32 {
        return Ok(());
    }
    let (found, expected) = (found.name(), "f32");
    Err(margin_softmax::Error::Element { what, found, expected }.into())
}

/// Refuses a tensor on another device than the embeddings.
pub fn on_device(what: &'static str, found: Device, expected: &Device) -> Result<()> {
    let found = found.inner();
    if found == *expected {
        return Ok(());
    }
    let [found, expected] = [format!("{found:?}"), format!("{expected:?}")];
    Err(Error::Devices { what, found, expected })
}

/// The nearest classes as the backend has them.
pub struct Nearest {
    pub classes: IntTensor<Cube>,
    pub cosines: FloatTensor<Cube>,
    pub log_probabilities: FloatTensor<Cube>,
}

/// A constant beside a loss: with autodiff if that has it.
pub fn beside<const D: usize>(tensor: Tensor<D>, strategy: Option<GradientCheckpointingStrategy>) -> Tensor<D> {
    match strategy {
        Some(strategy) => tensor.autodiff().with_gradient_checkpointing_strategy(strategy),
        None => tensor,
    }
}

impl Predictions {
    pub(crate) fn new(found: Nearest, strategy: Option<GradientCheckpointingStrategy>) -> Self {
        let classes: Tensor<2, Int> = Tensor::from_primitive::<Cube>(found.classes);
        let [cosines, log_probabilities] =
            [found.cosines, found.log_probabilities].map(|t| beside(Tensor::from_primitive::<Cube>(t), strategy));
        let classes = match strategy {
            Some(strategy) => classes.autodiff().with_gradient_checkpointing_strategy(strategy),
            None => classes,
        };
        Self { classes, cosines, log_probabilities }
    }
}

//! The nearest classes of embeddings without labels, on any backend.

use std::ops::Range;

use super::{
    Backend,
    precision::{Wide, narrow_predictions},
};
#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{
    Error, MarginSoftmax, Options, Result, Shape, State, Want,
    data::{Callback, Inputs, OnProgress, Predictions, Watch},
    objective::{CheckedBatch, Prepared},
    reference,
};

/// Predicts classes over slices: made once by [`Backend::predictor`], then called for any number of batches.
///
/// Classes are looked at chunk by chunk, within the [`Budget`](crate::Budget): the N×C cosines are never all in memory.
///
/// ```
/// # #[cfg(feature = "cpu")] {
/// use margin_softmax::{Backend, MarginSoftmax, Options, Shape, data::Inputs};
///
/// let loss = MarginSoftmax::arcface().with_scale(30.0);
/// // for batches of at most 2 rows, among 3 classes of vectors of 2 values: the 2 nearest
/// let mut predictor = Backend::cpu().predictor(&loss, Shape::new(2, 3, 2)?, 2, &Options::default())?;
/// let found = predictor.predict(&Inputs::new(&[3.0, 4.0, -1.0, 0.1], &[1.0, 0.0, 0.0, 1.0, -1.0, 0.0]))?;
/// assert_eq!(found.classes, [1, 0, 2, 1]);
/// assert!((found.cosines[0] - 0.8).abs() < 1e-6 && found.log_probabilities[0] > -0.01);
/// # }
/// # Ok::<(), margin_softmax::Error>(())
/// ```
pub struct Predictor {
    loss: Prepared,
    shape: Shape,
    range: Range<usize>,
    count: usize,
    state: State,
    progress: Callback,
    inner: Engine,
}

enum Engine {
    Reference,
    #[cfg(feature = "cpu")]
    Cpu(Box<cpu::CpuHead>),
    #[cfg(feature = "gpu")]
    Gpu(Box<gpu::DevicePredictor>),
}

impl Backend {
    /// A predictor of the `count` nearest classes of each of at most `shape.rows()` rows, 1 ≤ count ≤ 64 and no more than there
    /// are classes. Of the loss only scale, similarity, and link are used; of the options budget, preset, tile and
    /// [`work_per_submit`](Options::work_per_submit).
    pub fn predictor(&self, loss: &MarginSoftmax, shape: Shape, count: usize, options: &Options) -> Result<Predictor> {
        self.predictor_shard(loss, shape, 0..shape.classes(), count, options)
    }

    /// A predictor among the classes in `range` of a head of this shape; [`Predictions::merged`] makes one prediction of those
    /// of all shards. Prototypes and bias are those of the range.
    pub fn predictor_shard(
        &self,
        loss: &MarginSoftmax,
        shape: Shape,
        range: Range<usize>,
        count: usize,
        options: &Options,
    ) -> Result<Predictor> {
        Predictions::<f32>::check(count, shape.classes())?;
        let loss = Prepared::new(loss, shape)?;
        let state = State::new(&loss, shape)?;
        if range.is_empty() || range.end > shape.classes() {
            let (expected, classes) = (range.start, shape.classes());
            return Err(Error::Shards { found: range, expected, classes });
        }
        let _options = Options { want: Want::LOSS, filter: None, predictions: Some(count), ..*options };
        let inner = match self {
            Self::Reference => Engine::Reference,
            #[cfg(feature = "cpu")]
            Self::Cpu => Engine::Cpu(Box::new(cpu::CpuHead::new(&loss, shape, range.clone(), &_options)?)),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => {
                Engine::Gpu(Box::new(gpu::DevicePredictor::new(context, &loss, shape, range.clone(), &_options)?))
            }
        };
        Ok(Predictor { loss, shape, range, count, state, progress: Callback::default(), inner })
    }
}

impl Predictor {
    /// The sizes this predictor was made for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The classes that it looks at.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// k, the classes of each row.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The state of a run: where the scale follows the batch (dynamic AdaCos), its scale is the one in force.
    pub fn set_state(&mut self, state: &State) -> Result<()> {
        state.validate(self.shape)?;
        self.state = *state;
        Ok(())
    }

    /// A callback that every call tells how far it is, or none: see [`SliceHead::set_progress`](crate::SliceHead::set_progress).
    /// [`ControlFlow::Break`](std::ops::ControlFlow::Break) stops the call with [`Error::Cancelled`]; predictions that were to be
    /// used again are then untouched.
    pub fn set_progress(&mut self, callback: Option<OnProgress>) {
        self.progress = Callback::new(callback);
    }

    /// The nearest classes of each row; the number of rows follows from the embeddings.
    ///
    /// Errors: more rows than the shape has, a length that is not that of the shape, a bias for anything but a linear head.
    pub fn predict(&mut self, inputs: &Inputs<'_>) -> Result<Predictions> {
        let mut out = Predictions::default();
        self.predict_into(inputs, &mut out)?;
        Ok(out)
    }

    /// The same into existing predictions, whose vectors are used again; untouched on an error.
    pub fn predict_into(&mut self, inputs: &Inputs<'_>, out: &mut Predictions) -> Result<()> {
        let batch = inputs.check(&self.loss, self.shape, &self.range)?;
        let mut watch = Watch::new(&self.progress);
        let found = match &mut self.inner {
            #[cfg(feature = "cpu")]
            Engine::Cpu(head) => return head.predict(batch, &self.state, out, &mut watch),
            #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
            Engine::Gpu(device) => device.predict(&batch, &self.state, &mut watch)?,
            #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
            Engine::Gpu(_) => return Err(Error::Combination { what: "predict", why: super::CANNOT_BLOCK }),
            Engine::Reference => self.by_reference(batch)?,
        };
        watch.finish()?;
        *out = found;
        Ok(())
    }

    /// [`predict`](Self::predict) as a future: the only form that works in a browser. The CPU paths compute before the
    /// first await, but in a browser, where the native one lets the page do its work between tiles of classes.
    pub async fn predict_async(&mut self, inputs: &Inputs<'_>) -> Result<Predictions> {
        let batch = inputs.check(&self.loss, self.shape, &self.range)?;
        let mut watch = Watch::new(&self.progress);
        let found = match &mut self.inner {
            #[cfg(feature = "cpu")]
            Engine::Cpu(head) => {
                let mut out = Predictions::default();
                head.predict_paced(batch, &self.state, &mut out, &mut cpu::Pace::of_future(&mut watch)).await?;
                return Ok(out);
            }
            #[cfg(feature = "gpu")]
            Engine::Gpu(device) => device.predict_async(&batch, &self.state, &mut watch).await?,
            Engine::Reference => self.by_reference(batch)?,
        };
        watch.finish()?;
        Ok(found)
    }

    fn by_reference(&self, batch: CheckedBatch<'_>) -> Result<Predictions> {
        let wide = Wide::new(&batch);
        let shard = reference::Shard::of(&self.loss, self.shape, self.range.clone(), wide.of(batch))?;
        Ok(narrow_predictions(shard.predictions(self.count, &self.state)))
    }
}

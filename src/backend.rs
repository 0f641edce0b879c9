//! The simple front: a reusable head over slices, whatever computes it.

#[cfg(feature = "cpu")]
use crate::cpu;
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::{Batch, Label, MarginSoftmax, Options, Output, Result, Shape, reference};

/// What computes a head.
#[derive(Clone)]
#[non_exhaustive]
pub enum Backend {
    /// The f64 oracle: slow, everything N×C in memory; for checks.
    Reference,
    /// The native f32 path, on rayon's current thread pool.
    #[cfg(feature = "cpu")]
    Cpu,
    /// A GPU through wgpu.
    #[cfg(feature = "gpu")]
    Gpu(gpu::Context),
}

impl Backend {
    /// A hardware GPU where there is one, else the native CPU path.
    ///
    /// A software Vulkan adapter is used only when named, see [`Backend::gpu`].
    #[cfg(feature = "cpu")]
    pub fn best() -> Result<Self> {
        #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
        if let Ok(context) = gpu::Context::hardware() {
            return Ok(Self::Gpu(context));
        }
        Ok(Self::Cpu)
    }

    /// The native CPU path.
    #[cfg(feature = "cpu")]
    pub fn cpu() -> Self {
        Self::Cpu
    }

    /// The f64 oracle.
    pub fn reference() -> Self {
        Self::Reference
    }

    /// The first adapter whose name contains `adapter` (in any case), software adapters included; without a name a
    /// hardware GPU if there is one, else any adapter.
    #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
    pub fn gpu(adapter: Option<&str>) -> Result<Self> {
        gpu::Context::new(adapter).map(Self::Gpu)
    }

    /// What computes: the adapter's name, or the CPU and its threads.
    pub fn name(&self) -> String {
        match self {
            Self::Reference => "reference (f64)".into(),
            #[cfg(feature = "cpu")]
            Self::Cpu => cpu::name(),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => context.name(),
        }
    }

    /// A head for batches of at most `shape.rows()` rows, with the default options.
    pub fn head(&self, loss: &MarginSoftmax, shape: Shape) -> Result<SliceHead> {
        self.head_with(loss, shape, &Options::default())
    }

    /// A head with a budget, a tile, or fewer gradients. Compiles and allocates once; any number of batches follow.
    pub fn head_with(&self, loss: &MarginSoftmax, shape: Shape, options: &Options) -> Result<SliceHead> {
        loss.validate()?;
        let inner = match self {
            Self::Reference => Inner::Reference(*options),
            #[cfg(feature = "cpu")]
            Self::Cpu => Inner::Cpu(Box::new(cpu::Head::new(loss, shape, options)?)),
            #[cfg(feature = "gpu")]
            Self::Gpu(context) => Inner::Gpu(Box::new(gpu::SliceHead::new(context, loss, shape, options)?)),
        };
        Ok(SliceHead { loss: loss.clone(), shape, inner })
    }
}

/// A head over slices: made once by [`Backend::head`], then called for any number of batches.
pub struct SliceHead {
    loss: MarginSoftmax,
    shape: Shape,
    inner: Inner,
}

enum Inner {
    Reference(Options),
    #[cfg(feature = "cpu")]
    Cpu(Box<cpu::Head>),
    #[cfg(feature = "gpu")]
    Gpu(Box<gpu::SliceHead>),
}

impl SliceHead {
    /// The loss in force.
    pub fn loss(&self) -> &MarginSoftmax {
        &self.loss
    }

    /// The sizes this head was made for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// New margins, a new scale, another reduction: nothing is recompiled or allocated.
    ///
    /// [`Error::Recompile`](crate::Error::Recompile) where the new loss needs another kernel; the old loss then stays in force.
    pub fn update(&mut self, loss: &MarginSoftmax) -> Result<()> {
        loss.validate()?;
        match &mut self.inner {
            Inner::Reference(_) => {}
            #[cfg(feature = "cpu")]
            Inner::Cpu(head) => head.update(loss)?,
            #[cfg(feature = "gpu")]
            Inner::Gpu(head) => head.update(loss)?,
        }
        self.loss.clone_from(loss);
        Ok(())
    }

    /// Loss and gradients of one batch.
    pub fn evaluate<L: Label>(&mut self, batch: &Batch<'_, L>) -> Result<Output> {
        let mut out = Output::default();
        self.evaluate_into(batch, &mut out)?;
        Ok(out)
    }

    /// The same into an existing output, whose vectors are used again; untouched on an error.
    pub fn evaluate_into<L: Label>(&mut self, batch: &Batch<'_, L>, out: &mut Output) -> Result<()> {
        match &mut self.inner {
            Inner::Reference(options) => *out = narrow(&self.loss, self.shape, options, batch)?,
            #[cfg(feature = "cpu")]
            Inner::Cpu(head) => head.evaluate_into(batch, out)?,
            #[cfg(all(feature = "gpu", not(target_arch = "wasm32")))]
            Inner::Gpu(head) => head.evaluate_into(batch, out)?,
            #[cfg(all(feature = "gpu", target_arch = "wasm32"))]
            Inner::Gpu(_) => {
                let why = "a browser cannot block: use the async call";
                return Err(crate::Error::Combination { what: "evaluate", why });
            }
        }
        Ok(())
    }

    /// The same as a future: the only form that works in a browser, where the event loop drives it. Natively nobody else
    /// drives the device, so each poll looks for the answer, sleeps 50 µs and asks to be polled again. The CPU paths compute
    /// before the first await.
    pub async fn evaluate_async<L: Label>(&mut self, batch: &Batch<'_, L>) -> Result<Output> {
        #[cfg(feature = "gpu")]
        if let Inner::Gpu(head) = &mut self.inner {
            return head.evaluate_async(batch).await;
        }
        self.evaluate(batch)
    }
}

/// The reference in f32 clothes.
fn narrow<L: Label>(loss: &MarginSoftmax, shape: Shape, options: &Options, batch: &Batch<'_, L>) -> Result<Output> {
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let thin = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let (embeddings, prototypes) = (wide(batch.embeddings), wide(batch.prototypes));
    let (class_weights, upstream) = (batch.class_weights.map(wide), batch.upstream.map(wide));
    let batch = Batch {
        embeddings: &embeddings,
        prototypes: &prototypes,
        labels: batch.labels,
        class_weights: class_weights.as_deref(),
        upstream: upstream.as_deref(),
    };
    let out = reference::evaluate(loss, shape, options.want, &batch)?;
    Ok(Output {
        loss: out.loss as f32,
        row_losses: thin(out.row_losses),
        target_cosines: thin(out.target_cosines),
        other_cosines: thin(out.other_cosines),
        grad_embeddings: thin(out.grad_embeddings),
        grad_prototypes: thin(out.grad_prototypes),
        counts: out.counts,
    })
}

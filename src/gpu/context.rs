//! The device, its errors, and one cache of pipelines.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
#[cfg(target_arch = "wasm32")]
use std::{pin::Pin, task::Poll};

use super::{adapters, pipeline::Pipeline, request};
use crate::{
    Error, Result,
    plan::{Kernel, Limits, need},
};

/// A device and queue with the pipelines compiled on it. Cheap to clone; clones share the cache.
///
/// Natively it is `Send` and `Sync`, like everything else here: several threads may work on one device, each with heads
/// of its own, and each call returns its own errors.
///
/// The library never replaces the callbacks of a device that it was given, and asks nothing of it; of a device that it
/// opens itself it asks for [`recommended_limits`](super::recommended_limits) and [`optional_features`](super::optional_features).
#[derive(Clone)]
pub struct Context(Arc<Shared>);

struct Shared {
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: Limits,
    /// With the matrix units that were found since.
    #[cfg(feature = "cooperative_matrix")]
    checked: std::sync::OnceLock<Limits>,
    pipelines: Mutex<HashMap<String, Arc<Pipeline>>>,
    /// Bytes of every buffer that was made here, staging included.
    allocated: AtomicU64,
    /// Nanoseconds.
    timeout: AtomicU64,
    lost: Arc<AtomicBool>,
    #[cfg(target_arch = "wasm32")]
    scopes: Mutex<Scopes>,
}

/// Error scopes that a browser has not answered yet, and the first error of those that it has.
#[cfg(target_arch = "wasm32")]
#[derive(Default)]
struct Scopes {
    waiting: Vec<Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>>,
    failure: Option<wgpu::Error>,
}

/// Longer than any batch takes; a device that does not answer by then is an error, not a hang.
const TIMEOUT: Duration = Duration::from_secs(300);

/// In 64 bits: 584 years at most.
fn nanoseconds(timeout: Duration) -> u64 {
    timeout.as_nanos().try_into().unwrap_or(u64::MAX)
}

impl Context {
    /// Shares the caller's device. Nothing is requested of it; a device with WebGPU's default limits and no features is
    /// enough, one with less than [`required_limits`](super::required_limits) is refused.
    ///
    /// The device's error and device-lost callbacks stay the caller's. Errors of this library's own calls come back as
    /// [`Error`]s, through error scopes that are closed before a call returns. A lost device is [`Error::DeviceLost`] here,
    /// and in every later call that makes, writes or reads something; in a browser from the event loop's next turn on.
    ///
    /// Buffers must be of this device: [`Error::Foreign`] refuses those of another one, as long as both come from one
    /// `wgpu::Instance`. wgpu itself does not tell two instances apart, and may panic or take a wrong buffer.
    pub fn from_device(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Self> {
        Self::build(device.clone(), queue.clone())
    }

    /// The first adapter whose name contains `adapter` (in any case), software adapters included; without a name a
    /// hardware GPU if there is one, else any adapter.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(adapter: Option<&str>) -> Result<Self> {
        pollster::block_on(Self::new_async(adapter))
    }

    /// The same without blocking; the only form in a browser.
    pub async fn new_async(adapter: Option<&str>) -> Result<Self> {
        Self::open(&adapters::named(adapter).await?).await
    }

    /// A hardware GPU, never a software adapter.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn hardware() -> Result<Self> {
        pollster::block_on(async { Self::open(&adapters::hardware().await?).await })
    }

    /// A context for every adapter that answers, software ones included.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn all() -> Vec<Self> {
        pollster::block_on(async {
            let mut contexts = vec![];
            for adapter in adapters::all().await {
                contexts.extend(Self::open(&adapter).await.ok());
            }
            contexts
        })
    }

    async fn open(adapter: &wgpu::Adapter) -> Result<Self> {
        request::able(&adapter.get_info().name, &adapter.limits())?;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("margin-softmax"),
            required_limits: request::recommended_limits(adapter),
            required_features: request::optional_features(adapter),
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|e| Error::NoAdapter(e.to_string()))?;
        let context = Self::build(device, queue)?;
        #[cfg(not(target_arch = "wasm32"))]
        context.watch();
        Ok(context)
    }

    /// Notes the loss of the device.
    fn watch(&self) {
        let lost = self.0.lost.clone();
        self.0.device.set_device_lost_callback(move |_, _| lost.store(true, Ordering::Relaxed));
    }

    // in a browser wgpu's objects stay on their thread
    #[cfg_attr(target_arch = "wasm32", expect(clippy::arc_with_non_send_sync))]
    fn build(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let limits = Limits {
            f16: device.features().contains(wgpu::Features::SHADER_F16),
            software: device.adapter_info().device_type == wgpu::DeviceType::Cpu,
            vendor: request::vendor(&device.adapter_info()),
            ..request::limits(&device.limits())
        };
        limits.check()?;
        request::uniforms(&device.limits())?;
        let context = Self(Arc::new(Shared {
            device,
            queue,
            limits,
            #[cfg(feature = "cooperative_matrix")]
            checked: Default::default(),
            pipelines: Mutex::default(),
            allocated: AtomicU64::new(0),
            timeout: AtomicU64::new(nanoseconds(TIMEOUT)),
            lost: Arc::default(),
            #[cfg(target_arch = "wasm32")]
            scopes: Mutex::default(),
        }));
        // a browser has no slot for one callback but a promise that anybody may listen to
        #[cfg(target_arch = "wasm32")]
        context.watch();
        if context.is_gone() { Err(lost()) } else { Ok(context) }
    }

    /// How long a call waits for the device before it gives up with [`Error::Timeout`]; 300 s at first. Holds for all clones
    /// of this context and all heads on it, from the next wait on. What reads several results one after another (shards,
    /// mean angles between classes) may wait so long for each.
    ///
    /// The device keeps what was submitted and works on. The same call may be made again later, and waits for that too.
    /// A browser does not give up: drop the future instead.
    pub fn set_timeout(&self, timeout: Duration) {
        self.0.timeout.store(nanoseconds(timeout), Ordering::Relaxed);
    }

    /// How long a call waits for the device.
    pub fn timeout(&self) -> Duration {
        Duration::from_nanos(self.0.timeout.load(Ordering::Relaxed))
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// The limits of the device.
    pub fn limits(&self) -> &Limits {
        #[cfg(feature = "cooperative_matrix")]
        if let Some(limits) = self.0.checked.get() {
            return limits;
        }
        &self.0.limits
    }

    /// Limits with more in them than the device said: what was tried on it. The first ones stay.
    #[cfg(feature = "cooperative_matrix")]
    pub(super) fn set_checked(&self, limits: Limits) {
        self.0.checked.get_or_init(|| limits);
    }

    /// The adapter's name and driver.
    pub fn name(&self) -> String {
        let info = self.0.device.adapter_info();
        if info.driver_info.is_empty() {
            format!("{} ({:?})", info.name, info.backend)
        } else {
            format!("{} ({:?}, {})", info.name, info.backend, info.driver_info)
        }
    }

    /// Whether the adapter computes in software.
    pub fn is_software(&self) -> bool {
        self.0.limits.software
    }

    /// Bytes of all buffers that were made through this context so far, staging included, freed ones too.
    pub fn allocated_bytes(&self) -> u64 {
        self.0.allocated.load(Ordering::Relaxed)
    }

    /// Kernels compiled so far.
    pub fn compiled_kernels(&self) -> usize {
        self.0.pipelines.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Makes a buffer; `what` names it in errors and labels.
    pub(super) fn buffer(&self, what: &'static str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let bytes = bytes.max(4).next_multiple_of(4);
        need(what, "max_buffer_size", bytes, self.0.limits.max_buffer)?;
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size: bytes, usage, mapped_at_creation: false };
        let buffer = self.created(|| self.0.device.create_buffer(&descriptor))?;
        self.0.allocated.fetch_add(bytes, Ordering::Relaxed);
        Ok(buffer)
    }

    /// Whether a kernel is compiled.
    pub(super) fn has(&self, kernel: &Kernel) -> bool {
        self.0.pipelines.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&kernel.source)
    }

    /// Compiles a kernel, or finds it.
    pub(super) fn pipeline(&self, kernel: &Kernel) -> Result<Arc<Pipeline>> {
        let mut cache = self.0.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache.get(&kernel.source) {
            return if self.is_gone() { Err(lost()) } else { Ok(found.clone()) };
        }
        let compiled = Arc::new(self.created(|| Pipeline::compile(&self.0.device, kernel))?);
        cache.insert(kernel.source.clone(), compiled.clone());
        Ok(compiled)
    }

    /// Compiles a kernel ahead of its first use; any number of heads then find it.
    pub fn compile(&self, kernel: &Kernel) -> Result<()> {
        self.pipeline(kernel).map(drop)
    }

    /// Runs a creation under error scopes, so that no error reaches the owner's callbacks or panics.
    ///
    /// In a browser scopes answer later than this returns: their errors are those of the next call that finds them, or of
    /// the next result that is awaited.
    pub(super) fn guarded<T>(&self, create: impl FnOnce() -> T) -> Result<T> {
        if self.is_lost() {
            return Err(lost());
        }
        #[cfg(target_arch = "wasm32")]
        self.answers()?;
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
        let mut scopes: Vec<_> = filters.into_iter().map(|f| self.0.device.push_error_scope(f)).collect();
        let made = create();
        let answers = std::iter::from_fn(|| scopes.pop()).map(wgpu::ErrorScopeGuard::pop);
        #[cfg(target_arch = "wasm32")]
        {
            let mut scopes = self.0.scopes.lock().unwrap_or_else(PoisonError::into_inner);
            answers.for_each(|answer| scopes.waiting.push(Box::pin(answer)));
            Ok(made)
        }
        #[cfg(not(target_arch = "wasm32"))]
        {
            let failure = answers.fold(None, |failure, answer| pollster::block_on(answer).or(failure));
            failure.map_or(Ok(made), |error| Err(self.translate(error)))
        }
    }

    /// Records and submits.
    pub(super) fn submit(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<wgpu::SubmissionIndex> {
        self.guarded(|| {
            let mut encoder = self.0.device.create_command_encoder(&Default::default());
            record(&mut encoder);
            self.0.queue.submit([encoder.finish()])
        })
    }

    /// Records what may be refused, and submits it if it is not.
    pub(super) fn try_submit<T>(&self, record: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<T>) -> Result<T> {
        let mut encoder = self.guarded(|| self.0.device.create_command_encoder(&Default::default()))?;
        let out = record(&mut encoder)?;
        self.guarded(|| self.0.queue.submit([encoder.finish()]))?;
        Ok(out)
    }

    /// [`guarded`](Self::guarded), and an error where the device is gone: wgpu then makes an object that does nothing, and
    /// says so to the owner's callback alone. (Writes and mappings tell by themselves.)
    pub(super) fn created<T>(&self, create: impl FnOnce() -> T) -> Result<T> {
        let made = self.guarded(create)?;
        if self.is_gone() { Err(lost()) } else { Ok(made) }
    }

    /// Whether the device is lost, also where nobody told us: a lost device reports no mistakes, so one is made on purpose.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn is_gone(&self) -> bool {
        if !self.is_lost() {
            let device = &self.0.device;
            let usage = wgpu::BufferUsages::empty();
            let descriptor = wgpu::BufferDescriptor { label: None, size: 4, usage, mapped_at_creation: false };
            let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
            drop(device.create_buffer(&descriptor));
            if pollster::block_on(scope.pop()).is_none() {
                self.0.lost.store(true, Ordering::Relaxed);
            }
        }
        self.is_lost()
    }

    /// In a browser the promise tells.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn is_gone(&self) -> bool {
        self.is_lost()
    }

    /// The first error among the scopes that have answered; waits for none.
    #[cfg(target_arch = "wasm32")]
    fn answers(&self) -> Result<()> {
        let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(answer) = self.poll_scopes(&mut nobody) {
            return answer;
        }
        let failure = self.0.scopes.lock().unwrap_or_else(PoisonError::into_inner).failure.take();
        failure.map_or(Ok(()), |error| Err(self.translate(error)))
    }

    /// The first error of all scopes, once they have answered.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn poll_scopes(&self, cx: &mut std::task::Context<'_>) -> Poll<Result<()>> {
        let mut scopes = self.0.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let Scopes { waiting, failure } = &mut *scopes;
        waiting.retain_mut(|scope| match scope.as_mut().poll(cx) {
            Poll::Ready(answer) => {
                *failure = failure.take().or(answer);
                false
            }
            Poll::Pending => true,
        });
        if !waiting.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(failure.take().map_or(Ok(()), |error| Err(self.translate(error))))
    }

    fn translate(&self, error: wgpu::Error) -> Error {
        match error {
            _ if self.is_gone() => lost(),
            wgpu::Error::OutOfMemory { source } => Error::OutOfMemory(source.to_string()),
            wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
                Error::Device(description)
            }
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed)
    }
}

pub(super) fn lost() -> Error {
    Error::DeviceLost("open another, make a new context and new heads".into())
}

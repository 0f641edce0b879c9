//! Waits for mapped buffers, blocking or not.

#[cfg(not(target_arch = "wasm32"))]
use std::time::Duration;
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Poll, Waker},
};

use super::{Context, context::lost};
use crate::{Error, Result};

/// A mapping under way; resolves when the buffer can be read.
pub(super) struct Mapping {
    state: Arc<(Mutex<Answer>, Condvar)>,
    context: Context,
    #[cfg(not(target_arch = "wasm32"))]
    started: std::time::Instant,
}

#[derive(Default)]
struct Answer {
    result: Option<std::result::Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

impl Mapping {
    /// Asks for the first `bytes` of a buffer, which must not be mapped or written until they were read.
    pub fn start(context: &Context, buffer: &wgpu::Buffer, bytes: u64) -> Result<Self> {
        let state = Arc::new((Mutex::new(Answer::default()), Condvar::new()));
        let shared = state.clone();
        let answered = move |result| {
            let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.result = Some(result);
            shared.1.notify_all();
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        };
        context.guarded(|| buffer.map_async(wgpu::MapMode::Read, ..bytes, answered))?;
        Ok(Self {
            state,
            context: context.clone(),
            #[cfg(not(target_arch = "wasm32"))]
            started: std::time::Instant::now(),
        })
    }

    /// Blocks until all work submitted so far is done.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(self, submission: &wgpu::SubmissionIndex) -> Result<()> {
        let patience = self.context.timeout();
        let left = || patience.saturating_sub(self.started.elapsed());
        loop {
            let (submission_index, timeout) = (Some(submission.clone()), Some(left()));
            match poll(&self.context, wgpu::PollType::Wait { submission_index, timeout }) {
                // a backend may wait for less than it is told to
                Err(Error::Timeout { .. }) if !left().is_zero() => {}
                done => break done?,
            }
        }
        // another thread that polls this device may be about to call us back
        let (lock, answered) = &*self.state;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        drop(answered.wait_timeout_while(guard, left(), |state| state.result.is_none()));
        self.take().unwrap_or(Err(late(&self.context)))
    }

    #[cfg(target_arch = "wasm32")]
    fn answered(&self) -> bool {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).result.is_some()
    }

    fn take(&self) -> Option<Result<()>> {
        let mut state = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.result.take().map(|result| {
            // nothing else keeps a staging buffer from being mapped
            result.map_err(|_| lost())
        })
    }
}

impl Future for Mapping {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        // on native nobody else drives the device; in a browser this does nothing and the event loop wakes us
        #[cfg(not(target_arch = "wasm32"))]
        if let Err(error) = poll(&self.context, wgpu::PollType::Poll) {
            return Poll::Ready(Err(error));
        }
        // what went wrong on the way is known by then, and says more than a mapping that failed
        #[cfg(target_arch = "wasm32")]
        if self.answered() {
            match self.context.poll_scopes(cx) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
        if let Some(result) = self.take() {
            return Poll::Ready(result);
        }
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner).waker = Some(cx.waker().clone());
        #[cfg(not(target_arch = "wasm32"))]
        {
            if self.started.elapsed() > self.context.timeout() {
                return Poll::Ready(Err(late(&self.context)));
            }
            std::thread::sleep(Duration::from_micros(50));
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Drives the device. wgpu panics where the driver reports a lost device while it is polled: that is an error here.
#[cfg(not(target_arch = "wasm32"))]
fn poll(context: &Context, how: wgpu::PollType) -> Result<()> {
    match caught(|| context.device().poll(how)) {
        Some(Ok(_)) => Ok(()),
        Some(Err(wgpu::PollError::Timeout)) => Err(late(context)),
        // a number that no submit returned: ours was not taken
        Some(Err(wgpu::PollError::WrongSubmissionIndex(..))) | None => Err(lost()),
    }
}

/// `None` if wgpu panicked; every other panic, of a callback that was due, goes on.
#[cfg(not(target_arch = "wasm32"))]
fn caught<T>(poll: impl FnOnce() -> T) -> Option<T> {
    let payload = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)) {
        Ok(done) => return Some(done),
        Err(payload) => payload,
    };
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref().copied());
    match text {
        Some(text) if text.starts_with("Error in Device::poll") => None,
        _ => std::panic::resume_unwind(payload),
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn late(context: &Context) -> Error {
    Error::Timeout { seconds: context.timeout().as_secs_f64() }
}

/// A copy of device data on its way to the host.
pub(super) struct Download {
    mapping: Mapping,
    staging: wgpu::Buffer,
    bytes: u64,
    #[cfg(not(target_arch = "wasm32"))]
    submission: wgpu::SubmissionIndex,
}

impl Download {
    /// Submits the copy of some bytes into a staging buffer.
    pub fn start(
        context: &Context,
        bytes: u64,
        copy: impl FnOnce(&mut wgpu::CommandEncoder, &wgpu::Buffer),
    ) -> Result<Self> {
        Self::start_in(context, Self::staging(context, bytes)?, bytes, copy)
    }

    /// A buffer for so many bytes.
    pub fn staging(context: &Context, bytes: u64) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        context.buffer("staging", bytes, usage)
    }

    /// The same into a buffer of at least so many bytes.
    pub fn start_in(
        context: &Context,
        staging: wgpu::Buffer,
        bytes: u64,
        copy: impl FnOnce(&mut wgpu::CommandEncoder, &wgpu::Buffer),
    ) -> Result<Self> {
        let _submission = context.submit(|encoder| copy(encoder, &staging))?;
        Ok(Self {
            mapping: Mapping::start(context, &staging, bytes)?,
            staging,
            bytes,
            #[cfg(not(target_arch = "wasm32"))]
            submission: _submission,
        })
    }

    /// The first `count` values.
    pub async fn values<T: bytemuck::Pod>(self, count: usize) -> Result<Vec<T>> {
        let context = self.mapping.context.clone();
        self.mapping.await?;
        values(&context, &self.staging, self.bytes, count)
    }

    /// The same, with the buffer for the next download.
    pub async fn values_and_staging<T: bytemuck::Pod>(self, count: usize) -> Result<(Vec<T>, wgpu::Buffer)> {
        let staging = self.staging.clone();
        #[cfg(not(target_arch = "wasm32"))]
        let context = self.mapping.context.clone();
        let values = self.values(count).await?;
        #[cfg(not(target_arch = "wasm32"))]
        context.guarded(|| staging.unmap())?;
        #[cfg(target_arch = "wasm32")]
        staging.unmap();
        Ok((values, staging))
    }

    /// The same, blocking.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait<T: bytemuck::Pod>(self, count: usize) -> Result<Vec<T>> {
        let context = self.mapping.context.clone();
        self.mapping.wait(&self.submission)?;
        values(&context, &self.staging, self.bytes, count)
    }
}

fn values<T: bytemuck::Pod>(context: &Context, staging: &wgpu::Buffer, bytes: u64, count: usize) -> Result<Vec<T>> {
    let mut values = vec![T::zeroed(); count];
    let into: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
    into.copy_from_slice(&view(context, staging, bytes)?[..into.len()]);
    Ok(values)
}

/// The first bytes of a mapped buffer; a device that was lost since has taken it back.
pub(super) fn view(context: &Context, buffer: &wgpu::Buffer, bytes: u64) -> Result<wgpu::BufferView> {
    let refused = |e: wgpu::MapRangeError| if context.is_gone() { lost() } else { Error::Device(e.to_string()) };
    buffer.get_mapped_range(..bytes).map_err(refused)
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::caught;

    /// A stand-in for wgpu 30 where a wait for the device fails, which no driver here can be made to do.
    #[test]
    fn a_device_that_is_lost_while_it_is_polled_is_no_panic() {
        assert_eq!(caught(|| 1), Some(1));
        assert_eq!(caught(|| panic!("Error in Device::poll: {}", "Parent device is lost")), None::<()>);
        let other = std::panic::catch_unwind(|| caught(|| panic!("a callback of somebody else")));
        assert!(other.is_err());
    }
}

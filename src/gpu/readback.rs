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

/// No batch takes longer; a device that does not answer by then is an error, not a hang.
#[cfg(not(target_arch = "wasm32"))]
const PATIENCE: Duration = Duration::from_secs(300);

/// A mapping under way; resolves when the buffer can be read.
pub(super) struct Mapping {
    state: Arc<(Mutex<State>, Condvar)>,
    context: Context,
    #[cfg(not(target_arch = "wasm32"))]
    started: std::time::Instant,
}

#[derive(Default)]
struct State {
    result: Option<std::result::Result<(), wgpu::BufferAsyncError>>,
    waker: Option<Waker>,
}

impl Mapping {
    /// Asks for the first `bytes` of a buffer, which must not be mapped or written until they were read.
    pub fn start(context: &Context, buffer: &wgpu::Buffer, bytes: u64) -> Result<Self> {
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
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
        let poll = wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: Some(PATIENCE) };
        match self.context.device().poll(poll) {
            Ok(_) => {}
            Err(wgpu::PollError::Timeout) => return Err(Error::Timeout { seconds: PATIENCE.as_secs() }),
            // a number that no submit returned: ours was not taken
            Err(wgpu::PollError::WrongSubmissionIndex(..)) => return Err(lost()),
        }
        // another thread that polls this device may be about to call us back
        let (lock, answered) = &*self.state;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        drop(answered.wait_timeout_while(guard, PATIENCE, |state| state.result.is_none()));
        self.take().unwrap_or(Err(Error::Timeout { seconds: PATIENCE.as_secs() }))
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
        if let Err(error) = self.context.device().poll(wgpu::PollType::Poll) {
            return Poll::Ready(Err(Error::Device(error.to_string())));
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
            if self.started.elapsed() > PATIENCE {
                return Poll::Ready(Err(Error::Timeout { seconds: PATIENCE.as_secs() }));
            }
            std::thread::sleep(Duration::from_micros(50));
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// The first bytes of a mapped buffer.
pub(super) fn view(buffer: &wgpu::Buffer, bytes: u64) -> Result<wgpu::BufferView> {
    buffer.get_mapped_range(..bytes).map_err(|e| Error::Device(e.to_string()))
}

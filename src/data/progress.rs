//! How far a call is, and a way to stop it.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Error, Result};

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The work that is done, at most `total`; it never falls within a call.
    pub done: u64,
    /// The work of the whole call: multiply-adds of its products, or what takes about as long, as for
    /// [`Options::work_per_submit`](crate::Options::work_per_submit). So calls of different shapes can be compared.
    pub total: u64,
}

impl Progress {
    /// The share that is done, 0 to 1.
    pub fn fraction(&self) -> f64 {
        self.done as f64 / self.total.max(1) as f64
    }
}

/// Is told how far a call is; [`ControlFlow::Break`] stops it. Outside browsers it may be sent to another thread with its head.
#[cfg(not(target_arch = "wasm32"))]
pub type OnProgress = Box<dyn FnMut(Progress) -> ControlFlow<()> + Send>;

/// Is told how far a call is; [`ControlFlow::Break`] stops it. Outside browsers it may be sent to another thread with its head.
#[cfg(target_arch = "wasm32")]
pub type OnProgress = Box<dyn FnMut(Progress) -> ControlFlow<()>>;

/// A callback that several heads call in turn.
#[derive(Clone, Default)]
pub(crate) struct Callback(Option<Arc<Mutex<OnProgress>>>);

impl Callback {
    // in a browser it stays on its thread
    #[cfg_attr(target_arch = "wasm32", allow(clippy::arc_with_non_send_sync))]
    pub fn new(callback: Option<OnProgress>) -> Self {
        Self(callback.map(|callback| Arc::new(Mutex::new(callback))))
    }
}

/// The progress of one call, reported to the head's callback.
pub(crate) struct Watch {
    callback: Callback,
    progress: Progress,
}

// a crate without engines that work for long
#[cfg_attr(not(all(feature = "cpu", feature = "gpu")), allow(dead_code))]
impl Watch {
    pub fn new(callback: &Callback) -> Self {
        Self { callback: callback.clone(), progress: Progress { done: 0, total: 1 } }
    }

    /// Of a call that reports nothing.
    pub fn none() -> Self {
        Self::new(&Callback::default())
    }

    /// Whether anybody is told.
    pub fn is_on(&self) -> bool {
        self.callback.0.is_some()
    }

    /// The work of the whole call, before any of it.
    pub fn begin(&mut self, total: u64) {
        self.progress.total = total.max(1);
    }

    /// So much work is done; [`Error::Cancelled`] if the callback stops the call. All of it is left to [`finish`](Self::finish).
    pub fn add(&mut self, work: u64) -> Result<()> {
        let Progress { done, total } = self.progress;
        self.progress.done = done.saturating_add(work).min(total);
        if self.progress.done < total { self.tell() } else { Ok(()) }
    }

    /// All of it is done.
    pub fn finish(&mut self) -> Result<()> {
        self.progress.done = self.progress.total;
        self.tell()
    }

    fn tell(&self) -> Result<()> {
        let Some(callback) = &self.callback.0 else { return Ok(()) };
        // it is nobody's invariant that a panic in there breaks
        let mut callback = callback.lock().unwrap_or_else(PoisonError::into_inner);
        match callback(self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }
}

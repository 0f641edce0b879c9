//! Calls from several threads, processes and users who press Ctrl-C.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use margin_softmax::{Backend, Shape, SliceHead, data::OnProgress, partial, predict};
use pyo3::prelude::*;

use crate::{
    errors::{DeviceError, raise},
    options::HeadOptions,
    pool::pool,
};

/// An object whose long calls can be stopped.
pub trait Stoppable: Send {
    /// Asks this between parts of a call.
    fn ask(&mut self, callback: OnProgress);
}

impl Stoppable for SliceHead {
    fn ask(&mut self, callback: OnProgress) {
        self.set_progress(Some(callback));
    }
}

impl Stoppable for partial::SampledHead {
    fn ask(&mut self, callback: OnProgress) {
        self.set_progress(Some(callback));
    }
}

impl Stoppable for predict::Predictor {
    fn ask(&mut self, callback: OnProgress) {
        self.set_progress(Some(callback));
    }
}

/// Multiply-adds of a call that takes a second or so on a few cores: shorter ones are not stopped, since looking out for a signal
/// divides their work.
const LONG: u64 = 30_000_000_000;

/// How often a signal is looked for.
const GLANCE: Duration = Duration::from_millis(50);

/// An engine's object that calls take turns with, in the process that made it.
pub struct Turns<T> {
    inner: Mutex<T>,
    process: u32,
    on_device: bool,
    pub threads: Option<usize>,
    /// Of calls that are long enough for it.
    stop: Option<Arc<AtomicBool>>,
}

impl<T: Stoppable> Turns<T> {
    /// Makes it on the threads that it will use, for calls of so many products of a row with a prototype.
    pub fn new(
        py: Python<'_>,
        options: &HeadOptions,
        shape: Shape,
        make: impl FnOnce() -> margin_softmax::Result<T> + Send,
    ) -> PyResult<Self> {
        let pool = pool(py, options.threads)?;
        let mut inner = py.detach(|| pool.install(make)).map_err(raise)?;
        let classes = options.range.as_ref().map_or(shape.classes(), |range| range.len());
        let values = [classes, shape.sub_centers(), shape.dim(), 3];
        let work = values.iter().fold(shape.rows() as u64, |work, &size| work.saturating_mul(size as u64));
        let stop = (work >= LONG).then(Arc::<AtomicBool>::default);
        if let Some(asked) = stop.clone() {
            inner.ask(Box::new(move |_| match asked.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }));
        }
        let on_device = matches!(options.backend, Backend::Gpu(_));
        let inner = Mutex::new(inner);
        Ok(Self { inner, process: std::process::id(), on_device, threads: options.threads, stop })
    }

    /// After a fork: refuses a device, whose threads are the parent's, and an object that another thread was using when the
    /// process was forked.
    fn check_process(&self) -> PyResult<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        let busy = matches!(self.inner.try_lock(), Err(TryLockError::WouldBlock));
        if self.on_device || busy {
            let why = if busy { "it was in use when the process was forked" } else { "its device is the parent's" };
            let message = format!("this head was made before a fork, and {why}: make one in this process");
            return Err(DeviceError::new_err(message));
        }
        Ok(())
    }

    /// Does work on it without the interpreter's lock, on its threads. A signal, such as that of Ctrl-C, ends a long call; nothing of
    /// it is kept then.
    pub fn run<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut T) -> margin_softmax::Result<R> + Send,
    ) -> PyResult<R> {
        self.check_process()?;
        let pool = pool(py, self.threads)?;
        let Some(stop) = &self.stop else {
            let call = || {
                let inner = &mut *self.lock();
                pool.install(|| work(inner))
            };
            return py.detach(call).map_err(raise);
        };
        let call = || {
            let (inner, (done, answer)) = (&mut *self.lock(), mpsc::channel());
            stop.store(false, Ordering::Relaxed);
            pool.in_place_scope(|scope| {
                scope.spawn(move |_| _ = done.send(work(inner)));
                let mut signal = Ok(());
                loop {
                    match answer.recv_timeout(GLANCE) {
                        Ok(answer) => return signal.and(answer.map_err(raise)),
                        Err(RecvTimeoutError::Disconnected) => {
                            return Err(DeviceError::new_err("the call gave no answer"));
                        }
                        Err(RecvTimeoutError::Timeout) if signal.is_ok() => {
                            signal = Python::attach(|py| py.check_signals());
                            stop.store(signal.is_err(), Ordering::Relaxed);
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                    }
                }
            })
        };
        py.detach(call)
    }

    /// Looks at it; waits for a call that runs.
    pub fn look<R: Send>(&self, py: Python<'_>, look: impl FnOnce(&mut T) -> R + Send) -> PyResult<R> {
        self.check_process()?;
        Ok(py.detach(|| look(&mut self.lock())))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

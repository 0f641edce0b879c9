//! Calls from several threads, processes and users who press Ctrl-C.

use std::{
    cell::Cell,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use margin_softmax::{
    Backend, Error, Shape, SliceHead,
    data::{OnProgress, Progress},
    partial, predict,
};
use pyo3::{exceptions::PyRuntimeError, prelude::*, types::PyBool};

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

thread_local! {
    /// Whether this thread is in a progress callback.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// A caller's progress callback, and the exception that it raised.
struct Told {
    callback: Py<PyAny>,
    raised: Mutex<Option<PyErr>>,
}

impl Told {
    /// Calls it; `False` and an exception stop the work.
    fn tell(&self, progress: Progress) -> ControlFlow<()> {
        let before = IN_CALLBACK.replace(true);
        let answer = Python::attach(|py| {
            let answer = self.callback.bind(py).call1((progress.done, progress.total))?;
            PyResult::Ok(answer.is(PyBool::new(py, false)))
        });
        IN_CALLBACK.set(before);
        match answer {
            Ok(false) => ControlFlow::Continue(()),
            Ok(true) => ControlFlow::Break(()),
            Err(raised) => {
                *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(raised);
                ControlFlow::Break(())
            }
        }
    }

    fn raised(&self) -> Option<PyErr> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// An engine's object that calls take turns with, in the process that made it.
pub struct Turns<T> {
    inner: Mutex<T>,
    process: u32,
    on_device: bool,
    pub threads: Option<usize>,
    /// Of calls that are long enough for it, or that tell how far they are.
    stop: Option<Arc<AtomicBool>>,
    told: Option<Arc<Told>>,
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
        let told = options.progress.as_ref();
        let told = told.map(|callback| Arc::new(Told { callback: callback.clone_ref(py), raised: Mutex::default() }));
        let stop = (work >= LONG || told.is_some()).then(Arc::<AtomicBool>::default);
        if let Some(asked) = stop.clone() {
            let told = told.clone();
            inner.ask(Box::new(move |progress| match (asked.load(Ordering::Relaxed), &told) {
                (true, _) => ControlFlow::Break(()),
                (false, Some(told)) => told.tell(progress),
                (false, None) => ControlFlow::Continue(()),
            }));
        }
        let on_device = matches!(options.backend, Backend::Gpu(_));
        let inner = Mutex::new(inner);
        Ok(Self { inner, process: std::process::id(), on_device, threads: options.threads, stop, told })
    }

    /// After a fork: refuses a device, whose threads are the parent's, and an object that another thread was using when the
    /// process was forked.
    ///
    /// A head in a progress callback would wait for the call that waits for the callback.
    fn check_turn(&self) -> PyResult<()> {
        if IN_CALLBACK.get() {
            return Err(PyRuntimeError::new_err(
                "a progress callback cannot use a head: the call that it is told of goes on first",
            ));
        }
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
        self.check_turn()?;
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
                        Ok(answer) => return signal.and(answer.map_err(|error| self.raise(error))),
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

    /// The exception of a call that failed: what the progress callback raised, if that stopped it.
    fn raise(&self, error: Error) -> PyErr {
        let raised = self.told.as_ref().filter(|_| error == Error::Cancelled).and_then(|told| told.raised());
        raised.unwrap_or_else(|| raise(error))
    }

    /// Looks at it; waits for a call that runs.
    pub fn look<R: Send>(&self, py: Python<'_>, look: impl FnOnce(&mut T) -> R + Send) -> PyResult<R> {
        self.check_turn()?;
        Ok(py.detach(|| look(&mut self.lock())))
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

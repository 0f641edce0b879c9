//! With the feature `catalogue`: the tasks of a step as one thread took them, for `benches/workers.rs`. Nothing here is promised
//! from one version to the next. Without the feature nothing is recorded.

#[cfg(feature = "catalogue")]
use std::cell::RefCell;

/// A piece of work that any thread may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "catalogue"), allow(dead_code))]
pub enum Task {
    /// One of a stage: they depend on nothing in it.
    Item,
    /// G, dW and db of a tile of classes.
    Tile(usize),
    /// A tile joins a block of dX: after the tile, and after the join of the one before it.
    Join {
        /// Among the blocks.
        block: usize,
        /// Among the tiles.
        tile: usize,
    },
}

/// The begin or the end of something, which lies within what began before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "catalogue"), allow(dead_code))]
pub enum Event {
    /// Independent items begin; what follows the stage waits for all of them.
    Stage,
    /// A task begins.
    Task(Task),
    /// The innermost stage or task ends.
    End,
}

#[cfg(feature = "catalogue")]
struct Recorder {
    threads: usize,
    clock: fn() -> f64,
    events: Vec<(Event, f64)>,
}

#[cfg(feature = "catalogue")]
thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// The tasks of `work` on this thread, which must be the only one of its pool, timed by this clock. It is divided as among so many threads.
/// The last event is the end of all.
#[cfg(feature = "catalogue")]
pub fn record(threads: usize, clock: fn() -> f64, work: impl FnOnce()) -> Vec<(Event, f64)> {
    RECORDER.set(Some(Recorder { threads, clock, events: vec![] }));
    work();
    note(Event::End);
    RECORDER.take().map(|recorder| recorder.events).unwrap_or_default()
}

/// The threads among which a call is divided.
pub(super) fn threads() -> usize {
    #[cfg(feature = "catalogue")]
    if let Some(threads) = RECORDER.with_borrow(|recorder| recorder.as_ref().map(|recorder| recorder.threads)) {
        return threads;
    }
    rayon::current_num_threads()
}

/// `work`, recorded as this.
pub(super) fn within<R>(event: Event, work: impl FnOnce() -> R) -> R {
    note(event);
    let result = work();
    note(Event::End);
    result
}

#[cfg(feature = "catalogue")]
fn note(event: Event) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(Recorder { clock, events, .. }) = recorder {
            events.push((event, clock()));
        }
    });
}

#[cfg(not(feature = "catalogue"))]
fn note(_: Event) {}

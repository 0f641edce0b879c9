//! The most bytes that are live at once, counted by the allocator.

#[path = "../heap/mod.rs"]
mod heap;

use std::sync::atomic::Ordering::SeqCst;

use heap::{LIVE, PEAK};

/// Runs `work`; fails where it holds more than `most` bytes beyond those that are live now.
pub fn within<T>(most: usize, work: impl FnOnce() -> T) -> T {
    let before = LIVE.load(SeqCst);
    PEAK.store(before, SeqCst);
    let result = work();
    let peak = PEAK.load(SeqCst) - before;
    assert!(peak <= most, "{peak} bytes were live at once, at most {most} are allowed");
    result
}

//! The wall, and the time that threads ran: on a machine that others use too, the second says more.

use std::time::Instant;

/// Seconds.
#[derive(Clone, Copy)]
pub struct Time {
    pub wall: f64,
    /// All threads together, while they ran.
    pub threads: f64,
}

pub fn timed(f: impl FnOnce()) -> Time {
    let (start, before) = (Instant::now(), thread_seconds());
    f();
    let wall = start.elapsed().as_secs_f64();
    let threads = before.zip(thread_seconds()).map(|(before, after)| after - before);
    Time { wall, threads: threads.unwrap_or(wall * rayon::current_num_threads() as f64) }
}

/// CPU time of all threads of this process so far, where the system reports it.
fn thread_seconds() -> Option<f64> {
    #[cfg(unix)]
    return Some(seconds(rustix::time::ClockId::ProcessCPUTime));
    #[cfg(not(unix))]
    None
}

/// CPU time of this thread so far where the system reports it, else of the wall.
pub fn this_thread_seconds() -> f64 {
    #[cfg(unix)]
    return seconds(rustix::time::ClockId::ThreadCPUTime);
    #[cfg(not(unix))]
    {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        START.elapsed().as_secs_f64()
    }
}

#[cfg(unix)]
fn seconds(clock: rustix::time::ClockId) -> f64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The smallest and the median.
pub fn best_median(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2])
}

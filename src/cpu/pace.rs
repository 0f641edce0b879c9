//! The rounds of a call: between tiles of classes its thread reports how far it is, and in a browser lets the page do its work.

use crate::{Result, data::Watch};

/// Multiply-adds of a thread between two reports: about 10 ms.
const ROUND: u64 = 200_000_000;

/// The same between two pauses of a page whose threads compute: wasm has no fused multiply-add.
#[cfg(target_arch = "wasm32")]
const PAGE_ROUND: u64 = 40_000_000;

/// How a call runs: to its end on all threads, unless somebody is told of its progress, or its thread is needed for other work.
pub(crate) struct Pace<'a> {
    watch: &'a mut Watch,
    /// Multiply-adds of a thread in a round.
    round: u64,
    /// If it lets other work of this thread come between: since when it runs, and for how many milliseconds.
    #[cfg(any(test, target_arch = "wasm32"))]
    turns: Option<(f64, f64)>,
    /// Whether this thread is the only one, and pauses after any tile.
    alone: bool,
}

impl<'a> Pace<'a> {
    /// Of a call that blocks.
    pub fn straight(watch: &'a mut Watch) -> Self {
        Self {
            watch,
            round: ROUND,
            #[cfg(any(test, target_arch = "wasm32"))]
            turns: None,
            alone: false,
        }
    }

    /// Of a future: in a browser it pauses often enough for 30 pictures a second. A worker with threads is nobody else's.
    pub fn of_future(watch: &'a mut Watch) -> Self {
        #[cfg(target_arch = "wasm32")]
        {
            let alone = !cfg!(target_feature = "atomics") || rayon::current_num_threads() == 1;
            if alone || is_page() {
                let turns = Some((js_sys::Date::now(), 25.0));
                return Self { turns, alone, round: PAGE_ROUND, ..Self::straight(watch) };
            }
        }
        Self::straight(watch)
    }

    /// Whether this thread is the only one that works.
    pub fn alone(&self) -> bool {
        self.alone
    }

    /// Whether it lets other work of this thread come between.
    fn pauses(&self) -> bool {
        #[cfg(any(test, target_arch = "wasm32"))]
        return self.turns.is_some();
        #[cfg(not(any(test, target_arch = "wasm32")))]
        false
    }

    /// The work that is to come, before any of it.
    pub fn begin(&mut self, total: u64) {
        self.watch.begin(total);
    }

    /// Tiles that each of so many takers works on until the next report, if a tile takes so many multiply-adds; `threads` do the work.
    pub fn tiles(&self, work: u64, takers: usize, threads: usize) -> usize {
        if self.alone {
            return 1;
        }
        if !self.watch.is_on() && !self.pauses() {
            return usize::MAX;
        }
        let all = self.round.saturating_mul(threads as u64);
        (all / work.saturating_mul(takers as u64).max(1)).max(1) as usize
    }

    /// All of the work is done, unless the rest of the call reports that.
    pub fn finish(&mut self) -> Result<()> {
        self.watch.finish()
    }

    /// Between two rounds, the first of which did so much; [`Error::Cancelled`](crate::Error::Cancelled) if nobody wants the rest.
    pub async fn between(&mut self, work: u64) -> Result<()> {
        self.watch.add(work)?;
        self.pause().await;
        Ok(())
    }

    #[cfg(target_arch = "wasm32")]
    async fn pause(&mut self) {
        if let Some((since, most)) = &mut self.turns
            && js_sys::Date::now() - *since > *most
        {
            timeout().await;
            *since = js_sys::Date::now();
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    async fn pause(&mut self) {
        if self.pauses() {
            std::future::ready(()).await;
        }
    }
}

/// Whether this thread is a page's own: it may not wait for others, only spin, and what it does not do the page does not do.
#[cfg(target_arch = "wasm32")]
fn is_page() -> bool {
    js_sys::Reflect::has(&js_sys::global(), &"document".into()).unwrap_or(false)
}

/// A turn of the event loop; at once where there are no timers.
#[cfg(target_arch = "wasm32")]
async fn timeout() {
    use wasm_bindgen::JsCast;

    let mut start = |resolve: js_sys::Function, _| {
        let timers = js_sys::Reflect::get(&js_sys::global(), &"setTimeout".into());
        match timers.map(JsCast::dyn_into::<js_sys::Function>) {
            Ok(Ok(timers)) => _ = timers.call1(&wasm_bindgen::JsValue::UNDEFINED, &resolve),
            _ => _ = resolve.call0(&wasm_bindgen::JsValue::UNDEFINED),
        }
    };
    // neither refuses
    _ = wasm_bindgen_futures::JsFuture::from(js_sys::Promise::new(&mut start)).await;
}

/// The result of a call that is [`straight`](Pace::straight), whose future never waits.
pub(super) fn now<T>(call: impl Future<Output = T>) -> T {
    let mut call = std::pin::pin!(call);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(result) = call.as_mut().poll(&mut context) {
            return result;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ops::ControlFlow,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::{
        Batch, Budget, Error, MarginSoftmax, Options, Output, Shape, State,
        cpu::CpuHead,
        data::{Callback, GradientFilter, Progress},
        objective::Prepared,
    };

    const SIZES: [usize; 3] = [70, 1500, 12];

    /// One step at this pace, and the schedule that it took.
    fn run(name: &str, budget: Budget, pace: &mut Pace<'_>) -> Result<(Output, State, &'static str)> {
        let [rows, classes, dim] = SIZES;
        let numbers = |count: usize| (0..count).map(|i| ((i * 7919 + i / 13) % 2003) as f32 / 1000.0 - 1.0).collect();
        let (x, w): (Vec<f32>, Vec<f32>) = (numbers(rows * dim), numbers(classes * dim));
        let labels: Vec<i64> = (0..rows).map(|i| (i * 31 % classes) as i64).collect();
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Batch::default() };
        let shape = Shape::new(rows, classes, dim)?;
        let loss = Prepared::new(&MarginSoftmax::named(name)?, shape)?;
        let filter = GradientFilter::new(1e-4).ok().filter(|_| name == "arcface");
        let options = Options { budget, filter, predictions: Some(3), ..Options::default() };
        let mut head = CpuHead::new(&loss, shape, 0..classes, &options)?;
        let (mut state, mut out) = (State::new(&loss, shape)?, Output::default());
        let checked = batch.check(&loss, shape, &(0..classes))?;
        now(head.step_paced(checked, batch.values(), &mut state, true, &mut out, pace))?;
        Ok((out, state, head.schedule()))
    }

    /// A watch that keeps its reports, and stops the call at one of them.
    fn watched(stop: usize) -> (Watch, Arc<Mutex<Vec<Progress>>>) {
        let reports = Arc::new(Mutex::new(vec![]));
        let kept = reports.clone();
        let callback = move |progress| {
            let mut kept = kept.lock().unwrap();
            kept.push(progress);
            if kept.len() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        (Watch::new(&Callback::new(Some(Box::new(callback)))), reports)
    }

    fn every_case() -> impl Iterator<Item = (&'static str, Budget)> {
        let names = ["arcface", "arcface_topk", "curricularface", "adacos", "sphereface2"];
        names.into_iter().flat_map(|name| [Budget::default(), Budget::bytes(300_000)].map(|budget| (name, budget)))
    }

    /// A call that pauses after every tile, or reports after it from all threads, has the bits of one that runs through, in
    /// every schedule.
    #[test]
    fn turns_and_reports_change_no_bit() {
        for (name, budget) in every_case() {
            let mut none = Watch::none();
            let straight = run(name, budget, &mut Pace::straight(&mut none)).unwrap();
            for alone in [true, false] {
                let mut turns = Pace { turns: Some((0.0, 0.0)), alone, round: 0, ..Pace::straight(&mut none) };
                assert_eq!(run(name, budget, &mut turns).unwrap(), straight, "{name}, {budget:?}, {alone}");
            }
            let (mut watch, reports) = watched(0);
            let mut rounds = Pace { round: 0, ..Pace::straight(&mut watch) };
            assert_eq!(run(name, budget, &mut rounds).unwrap(), straight, "{name}, {budget:?}, reported");
            let reports = reports.lock().unwrap();
            assert!(reports.len() > 3, "{name}, {budget:?}: {reports:?}");
            assert!(reports.is_sorted_by_key(|report| report.done), "{name}, {budget:?}: {reports:?}");
            let (last, total) = (reports[reports.len() - 1], reports[0].total);
            assert!(reports.iter().all(|report| report.total == total), "{name}, {budget:?}: {reports:?}");
            // the rest is reported where the call ends
            assert!(last.done < total && last.done > total / 2, "{name}, {budget:?}: {reports:?}");
        }
    }

    /// Every report can stop the call.
    #[test]
    fn every_report_can_stop_a_call() {
        for (name, budget) in every_case() {
            let (mut watch, reports) = watched(0);
            run(name, budget, &mut Pace { round: 0, ..Pace::straight(&mut watch) }).unwrap();
            let count = reports.lock().unwrap().len();
            for stop in 1..=count {
                let (mut watch, reports) = watched(stop);
                let stopped = run(name, budget, &mut Pace { round: 0, ..Pace::straight(&mut watch) });
                assert_eq!(stopped.unwrap_err(), Error::Cancelled, "{name}, {budget:?}, {stop}");
                assert_eq!(reports.lock().unwrap().len(), stop, "{name}, {budget:?}");
            }
        }
    }
}

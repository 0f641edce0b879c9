//! Pauses of a call between tiles of classes: in a browser its thread also draws the page and runs the page's own code.

/// How a call runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// To its end, on all threads.
    Straight,
    /// Tile by tile on this thread, pausing once it ran for so many milliseconds since this time.
    #[cfg(any(test, target_arch = "wasm32"))]
    Turns { since: f64, most: f64 },
}

impl Pace {
    /// Of a future: in a browser it pauses often enough for 30 pictures a second.
    pub fn of_future() -> Self {
        #[cfg(target_arch = "wasm32")]
        return Self::Turns { since: js_sys::Date::now(), most: 25.0 };
        #[cfg(not(target_arch = "wasm32"))]
        Self::Straight
    }

    /// Whether it takes turns.
    pub fn pauses(self) -> bool {
        self != Self::Straight
    }

    /// Between two tiles.
    #[cfg(target_arch = "wasm32")]
    pub async fn pause(&mut self) {
        if let Self::Turns { since, most } = self
            && js_sys::Date::now() - *since > *most
        {
            timeout().await;
            *since = js_sys::Date::now();
        }
    }

    /// Between two tiles.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn pause(&mut self) {
        if self.pauses() {
            std::future::ready(()).await;
        }
    }
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

/// The result of a call that runs [`Straight`](Pace::Straight), whose future never waits.
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
    use super::*;
    use crate::{
        Batch, Budget, MarginSoftmax, Options, Output, Shape, State, cpu::CpuHead, data::GradientFilter,
        objective::Prepared,
    };

    /// A call that pauses after every tile has the bits of one that runs through, in every schedule.
    #[test]
    fn turns_change_no_bit() {
        let (rows, classes, dim) = (70, 1500, 12);
        let numbers = |count: usize| (0..count).map(|i| ((i * 7919 + i / 13) % 2003) as f32 / 1000.0 - 1.0).collect();
        let (x, w): (Vec<f32>, Vec<f32>) = (numbers(rows * dim), numbers(classes * dim));
        let labels: Vec<i64> = (0..rows).map(|i| (i * 31 % classes) as i64).collect();
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Batch::default() };
        let shape = Shape::new(rows, classes, dim).unwrap();
        for name in ["arcface", "arcface_topk", "curricularface", "adacos", "sphereface2"] {
            let loss = MarginSoftmax::named(name).unwrap();
            for budget in [Budget::default(), Budget::bytes(300_000)] {
                let filter = GradientFilter::new(1e-4).ok().filter(|_| name == "arcface");
                let options = Options { budget, filter, predictions: Some(3), ..Options::default() };
                let run = |paced: bool| {
                    let loss = Prepared::new(&loss, shape).unwrap();
                    let mut head = CpuHead::new(&loss, shape, 0..classes, &options).unwrap();
                    let (mut state, mut out) = (State::new(&loss, shape).unwrap(), Output::default());
                    let mut pace = if paced { Pace::Turns { since: 0.0, most: 0.0 } } else { Pace::Straight };
                    let checked = batch.check(&loss, shape, &(0..classes)).unwrap();
                    now(head.step_paced(checked, batch.values(), &mut state, true, &mut out, &mut pace)).unwrap();
                    (out, state, head.schedule())
                };
                assert_eq!(run(true), run(false), "{name}, {budget:?}");
            }
        }
    }
}

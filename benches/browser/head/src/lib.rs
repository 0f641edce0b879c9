//! One ArcFace head of the CPU path behind C functions: the page writes inputs into the module's memory, asks for a step
//! and reads the results there.

use margin_softmax::{Backend, Batch, Budget, MarginSoftmax, Options, Output, Shape, SliceHead};

#[cfg(feature = "threads")]
pub use wasm_bindgen_rayon::init_thread_pool;

pub struct Bench {
    head: SliceHead,
    x: Vec<f32>,
    w: Vec<f32>,
    labels: Vec<i32>,
    out: Output,
}

/// ArcFace with s = 64, m = 0.5; null where the sizes or the budget are refused.
#[unsafe(no_mangle)]
pub extern "C" fn create(rows: usize, classes: usize, dim: usize, budget: usize) -> *mut Bench {
    let head = Shape::new(rows, classes, dim).and_then(|shape| {
        let options = Options { budget: Budget::bytes(budget as u64), ..Options::default() };
        Backend::cpu().head_with(&MarginSoftmax::arcface(), shape, &options)
    });
    head.map_or(std::ptr::null_mut(), |head| {
        let (x, w, labels) = (vec![0.0; rows * dim], vec![0.0; classes * dim], vec![0; rows]);
        Box::into_raw(Box::new(Bench { head, x, w, labels, out: Output::default() }))
    })
}

/// The loss, after which the gradients may be read; NaN on an error.
#[unsafe(no_mangle)]
pub extern "C" fn step(bench: &mut Bench) -> f32 {
    let Bench { head, x, w, labels, out } = bench;
    let batch = Batch { embeddings: x, prototypes: w, labels, ..Batch::default() };
    head.evaluate_into(&batch, out).map_or(f32::NAN, |()| out.loss as f32)
}

/// Whether the cosines are kept between forward and backward.
#[unsafe(no_mangle)]
pub extern "C" fn keeps(bench: &Bench) -> bool {
    bench.head.schedule() == "keep"
}

#[unsafe(no_mangle)]
pub extern "C" fn embeddings(bench: &mut Bench) -> *mut f32 {
    bench.x.as_mut_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn prototypes(bench: &mut Bench) -> *mut f32 {
    bench.w.as_mut_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn labels(bench: &mut Bench) -> *mut i32 {
    bench.labels.as_mut_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn grad_embeddings(bench: &Bench) -> *const f32 {
    bench.out.grad_embeddings.as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn grad_prototypes(bench: &Bench) -> *const f32 {
    bench.out.grad_prototypes.as_ptr()
}

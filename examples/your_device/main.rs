//! Two heads inside an engine: its device, its encoder, its buffers at offsets, one submit.
//!
//! ```text
//! engine: X = network(F)  ->  ArcFace on X, W  ->  CosFace on X, V, adds its dX  ->  engine: W -= 0.1 · dW  ->  copies
//! ```
//!
//! The library compiles and binds once; in the step it only records. The results are checked against the f64 reference.
//! `cargo run --release --example your_device [part of an adapter's name]`

mod engine;

use engine::{Arena, EMBED, Engine, Result, STEP};
use margin_softmax::{
    Backend, Batch, MarginSoftmax, Options, Output, Shape,
    gpu::{BoundHead, Context, Head, Io},
    plan::{Element, Layout, Plan},
    wgpu,
};

const ROWS: usize = 64;
const FEATURES: usize = 24;
const DIM: usize = 32;
const PEOPLE: usize = 500;
const ROOMS: usize = 12;

fn main() -> Result<()> {
    let engine = Engine::open(std::env::args().nth(1))?;
    let (device, queue) = (&engine.device, &engine.queue);

    // the engine's memory: three buffers, every tensor a range of one. What a kernel writes must not share a buffer with
    // what it reads, so results have their own
    let (mut data, mut model, mut results) = (Arena::new(device), Arena::new(device), Arena::new(device));
    let features = data.place(&[ROWS, FEATURES], Element::F32);
    let layer = data.place(&[FEATURES, DIM], Element::F32);
    let people = data.place(&[ROWS], Element::I32);
    let rooms = data.place(&[ROWS], Element::I32);
    let x = model.place(&[ROWS, DIM], Element::F32);
    let w = model.place(&[PEOPLE, DIM], Element::F32);
    let v = model.place(&[ROOMS, DIM], Element::F32);
    let losses = [(); 2].map(|()| results.place(&[1], Element::F32));
    let dx = results.place(&[ROWS, DIM], Element::F32);
    let dw = results.place(&[PEOPLE, DIM], Element::F32);
    let dv = results.place(&[ROOMS, DIM], Element::F32);
    let [data, model, results] = [("data", data), ("model", model), ("results", results)].map(|(name, arena)| {
        println!("buffer     {name}: {} bytes, tensors at {:?}", arena.bytes(), arena.offsets());
        engine.storage(name, arena.bytes())
    });
    let labels = [PEOPLE, ROOMS].map(|classes| (0..ROWS).map(|i| (i * 7 % classes) as i32).collect::<Vec<_>>());
    let (w0, v0) = (wave(PEOPLE * DIM, 2.3), wave(ROOMS * DIM, 1.3));
    queue.write_buffer(&data, features.offset, bytemuck::cast_slice(&wave(ROWS * FEATURES, 1.7)));
    queue.write_buffer(&data, layer.offset, bytemuck::cast_slice(&wave(FEATURES * DIM, 0.9)));
    queue.write_buffer(&data, people.offset, bytemuck::cast_slice(&labels[0]));
    queue.write_buffer(&data, rooms.offset, bytemuck::cast_slice(&labels[1]));
    queue.write_buffer(&model, w.offset, bytemuck::cast_slice(&w0));
    queue.write_buffer(&model, v.offset, bytemuck::cast_slice(&v0));

    // the library: views of those ranges, two heads
    let context = Context::from_device(device, queue)?;
    let (tx, tw, tv, tdx, tdw) = (x.of(&model)?, w.of(&model)?, v.of(&model)?, dx.of(&results)?, dw.of(&results)?);
    let arcface = MarginSoftmax::arcface().with_scale(16.0);
    let cosface = MarginSoftmax::cosface().with_scale(16.0);
    let first = head(&context, &arcface, PEOPLE)?.bind(&Io {
        grad_embeddings: Some(&tdx),
        grad_prototypes: &[&tdw],
        ..Io::new(&tx, &[&tw], &people.of(&data)?, &losses[0].of(&results)?)
    })?;
    let mut second = head(&context, &cosface, ROOMS)?.bind(&Io {
        grad_embeddings: Some(&tdx),
        grad_prototypes: &[&dv.of(&results)?],
        ..Io::new(&tx, &[&tv], &rooms.of(&data)?, &losses[1].of(&results)?)
    })?;
    second.set_accumulate(true)?; // its dX is added to that of the first; so is its dV, to zeros

    // the engine's own passes
    let embed = engine.pass(EMBED, &[&features.of(&data)?, &layer.of(&data)?, &tx]);
    let step = engine.pass(STEP, &[&tdw, &tw]);

    // one step, one submit: network, two heads, optimiser, copies
    let before = (context.allocated_bytes(), context.compiled_kernels());
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.clear_buffer(&results, dv.offset, Some(dv.bytes()));
    embed.record(&mut encoder);
    let both = |head: &BoundHead, encoder: &mut wgpu::CommandEncoder| {
        head.record_forward(encoder);
        head.record_backward(encoder);
    };
    both(&first, &mut encoder);
    both(&second, &mut encoder);
    step.record(&mut encoder);
    let [model, results] = engine.submit_and_read(encoder, [&model, &results])?;
    println!("submits    1: network, ArcFace over {PEOPLE}, CosFace over {ROOMS}, optimiser, copies");
    println!("library    {} kernels and {} bytes of its own, none of them made while recording", before.1, before.0);
    assert_eq!(before, (context.allocated_bytes(), context.compiled_kernels()));

    // the same in f64
    let a = reference(&arcface, x.values(&model), &w0, &labels[0])?;
    let b = reference(&cosface, x.values(&model), &v0, &labels[1])?;
    let sum: Vec<f32> = a.grad_embeddings.iter().zip(&b.grad_embeddings).map(|(a, b)| a + b).collect();
    let stepped: Vec<f32> = w0.iter().zip(&a.grad_prototypes).map(|(w, g)| w - 0.1 * g).collect();
    // 1e-5 for a mean loss; for gradients 1e-5 + 3e-7 · scale · slope, which is below 3
    let mut wrong = false;
    for (what, found, expected, gate) in [
        ("ArcFace, loss", losses[0].values(&results), &[a.loss][..], 1e-5),
        ("CosFace, loss", losses[1].values(&results), &[b.loss], 1e-5),
        ("dX of both", dx.values(&results), &sum, 2.5e-5),
        ("dW", dw.values(&results), &a.grad_prototypes, 2.5e-5),
        ("dV", dv.values(&results), &b.grad_prototypes, 2.5e-5),
        ("W after the step", w.values(&model), &stepped, 2.5e-5),
    ] {
        let most = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / most;
        // a NaN fails too
        let right = found.len() == expected.len() && off <= gate && found.iter().all(|value| value.is_finite());
        wrong |= !right;
        let verdict = if right { "" } else { "   WRONG" };
        println!("{what:<18} {:>9.5} ..., off by {off:.1e} of the largest value{verdict}", found[0]);
    }
    let heard = engine.heard();
    println!("the engine's error handler heard {} errors", heard.len());
    if wrong || !heard.is_empty() {
        return Err(format!("the results differ from the reference, or wgpu complained: {heard:?}").into());
    }
    Ok(())
}

fn head(context: &Context, loss: &MarginSoftmax, classes: usize) -> Result<Head> {
    let layout = Layout { shards: &[classes], embeddings: Element::F32, prototypes: Element::F32 };
    let shape = Shape::new(ROWS, classes, DIM)?;
    let plan = Plan::head(loss, shape, &layout, context.limits(), &Options::default())?;
    Ok(Head::new(context, loss, plan)?)
}

fn reference(loss: &MarginSoftmax, x: &[f32], w: &[f32], labels: &[i32]) -> Result<Output> {
    let mut head = Backend::reference().head(loss, Shape::new(ROWS, w.len() / DIM, DIM)?)?;
    Ok(head.evaluate(&Batch { embeddings: x, prototypes: w, labels, ..Default::default() })?)
}

fn wave(count: usize, pace: f32) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * pace).sin()).collect()
}

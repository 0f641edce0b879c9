//! Slices in, loss and gradients out: one step of gradient descent lowers the loss.

use margin_softmax::{Backend, Batch, MarginSoftmax, Result, Shape};

fn main() -> Result<()> {
    let (rows, classes, dim) = (4, 3, 8);
    let wave = |count: usize, pace: f32| (0..count).map(|i| (i as f32 * pace).sin()).collect::<Vec<f32>>();
    let mut embeddings = wave(rows * dim, 1.7); // [rows, dim], as a network would give them
    let mut prototypes = wave(classes * dim, 2.3); // [classes, dim], trained with the network
    let labels = [0, 1, 2, 1];

    let loss = MarginSoftmax::cheby_aam(); // s = 30, m = 0.2
    let mut head = Backend::best()?.head(&loss, Shape::new(rows, classes, dim)?)?;
    let mut evaluate = |embeddings: &[f32], prototypes: &[f32]| {
        head.evaluate(&Batch { embeddings, prototypes, labels: &labels, ..Default::default() })
    };

    let before = evaluate(&embeddings, &prototypes)?;
    let step = |values: &mut [f32], gradient: &[f32]| values.iter_mut().zip(gradient).for_each(|(v, g)| *v -= 0.01 * g);
    step(&mut embeddings, &before.grad_embeddings);
    step(&mut prototypes, &before.grad_prototypes);
    let after = evaluate(&embeddings, &prototypes)?;

    println!("loss {:.3} -> {:.3}", before.loss, after.loss);
    assert!(after.loss < before.loss);
    Ok(())
}

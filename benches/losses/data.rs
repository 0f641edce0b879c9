//! Batches, and what agreement means.

use margin_softmax::{
    Backend, Batch, MarginSoftmax, Options, Output, Shape, Similarity, SliceHead, State, Want, reference,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub struct Data {
    pub shape: Shape,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub labels: Vec<i64>,
    bias: Vec<f32>,
}

impl Data {
    /// Values between −1/2 and 1/2.
    pub fn random([rows, classes, dim]: [usize; 3], centers: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut values = |count| -> Vec<f32> { (0..count).map(|_| rng.random::<f32>() - 0.5).collect() };
        let (x, w, bias) = (values(rows * dim), values(classes * centers * dim), values(classes));
        let labels = (0..rows).map(|_| rng.random_range(0..classes as i64)).collect();
        let shape = Shape::new(rows, classes, dim).and_then(|s| s.with_sub_centers(centers)).unwrap();
        Self { shape, x, w, labels, bias }
    }

    /// The same with every embedding at about cosine 0.7 to its prototype: a model that has learnt.
    pub fn trained(sizes: [usize; 3]) -> Self {
        let mut data = Self::random(sizes, 1);
        let dim = sizes[2];
        let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
        for (x, label) in data.x.chunks_mut(dim).zip(&data.labels) {
            let own = &data.w[*label as usize * dim..][..dim];
            let (a, b) = (0.7 / length(own), 0.51_f32.sqrt() / length(x));
            x.iter_mut().zip(own).for_each(|(x, w)| *x = a * w + b * *x);
        }
        data
    }

    pub fn batch(&self, loss: &MarginSoftmax) -> Batch<'_> {
        let bias = (loss.similarity == Similarity::Dot).then_some(&self.bias[..]);
        Batch { embeddings: &self.x, prototypes: &self.w, labels: &self.labels, bias, ..Batch::default() }
    }

    /// Loss and gradients in f64.
    pub fn exact(&self, loss: &MarginSoftmax, want: Want) -> Output<f64> {
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (x, w, bias) = (wide(&self.x), wide(&self.w), wide(&self.bias));
        let bias = (loss.similarity == Similarity::Dot).then_some(&bias[..]);
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &self.labels, bias, ..Batch::default() };
        reference::train(loss, self.shape, want, &batch, &mut State::new(loss, self.shape).unwrap()).unwrap()
    }

    /// A head whose first training step was that of the reference.
    pub fn head(&self, backend: &Backend, loss: &MarginSoftmax, options: &Options, exact: &Output<f64>) -> SliceHead {
        let mut head = backend.head_with(loss, self.shape, options).unwrap();
        let found = head.train(&self.batch(loss)).unwrap();
        let want = options.want;
        let dx = if want.grad_embeddings { &exact.grad_embeddings[..] } else { &[] };
        let dw = if want.grad_prototypes { &exact.grad_prototypes[..] } else { &[] };
        for (what, found, expected) in [
            ("row losses", &found.row_losses, &exact.row_losses[..]),
            ("dX", &found.grad_embeddings, dx),
            ("dW", &found.grad_prototypes, dw),
        ] {
            let off = error(found, expected);
            assert!(off <= 1e-4, "{} {loss:?}: {what} is off by {off:e}", backend.name());
        }
        head
    }
}

/// Frobenius, relative.
pub fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square: f64 = expected.iter().map(|e| e * e).sum();
    let off: f64 = found.iter().zip(expected).map(|(&f, e)| (f64::from(f) - e).powi(2)).sum();
    if expected.is_empty() { 0.0 } else { (off / square).sqrt() }
}

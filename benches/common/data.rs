//! Random data, and what agreement means.

use margin_softmax::{Batch, Output, Shape};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Random embeddings, prototypes and labels; the values lie in \[−½, ½\].
pub struct Data {
    pub shape: Shape,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub labels: Vec<i32>,
}

impl Data {
    /// Rows, classes, dim; the values pass through `round`.
    pub fn new([n, c, d]: [usize; 3], round: fn(f32) -> f32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut values = |count| -> Vec<f32> { (0..count).map(|_| round(rng.random::<f32>() - 0.5)).collect() };
        let (x, w) = (values(n * d), values(c * d));
        let labels = (0..n).map(|_| rng.random_range(0..c as i32)).collect();
        Self { shape: Shape::new(n, c, d).unwrap(), x, w, labels }
    }

    pub fn batch(&self) -> Batch<'_, i32> {
        self.first(self.shape.rows())
    }

    /// The first rows as a batch.
    pub fn first(&self, rows: usize) -> Batch<'_, i32> {
        Batch {
            embeddings: &self.x[..rows * self.shape.dim()],
            prototypes: &self.w,
            labels: &self.labels[..rows],
            ..Batch::default()
        }
    }
}

/// The first number that differs by more than 1e-4 of the largest of its kind: several times the gate at scale 64, and
/// still no wrong formula passes.
pub fn disagreement(found: &Output, expected: &Output) -> Option<String> {
    let pairs = [
        ("row losses", &found.row_losses, &expected.row_losses),
        ("dX", &found.grad_embeddings, &expected.grad_embeddings),
        ("dW", &found.grad_prototypes, &expected.grad_prototypes),
    ];
    pairs.into_iter().find_map(|(what, found, expected)| {
        if found.len() != expected.len() {
            return Some(format!("{what}: {} values, expected {}", found.len(), expected.len()));
        }
        let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        // NaN is never within
        let off = |(f, e): (&f32, &f32)| !matches!((f - e).abs(), difference if difference <= 1e-4 * largest);
        let i = found.iter().zip(expected).position(off)?;
        Some(format!("{what}[{i}] is {}, expected {}", found[i], expected[i]))
    })
}

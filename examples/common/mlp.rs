//! The network below the head: linear layers with ReLUs between them. Matrix products are ndarray's.

use std::f32::consts::PI;

use ndarray::{Array2, ArrayView2, Axis, Zip};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A trained matrix and Adam's moments of its gradient.
#[derive(Clone)]
pub struct Parameter {
    pub value: Array2<f32>,
    mean: Array2<f32>,
    square: Array2<f32>,
}

impl Parameter {
    /// Even between −bound and bound.
    pub fn uniform(rows: usize, columns: usize, bound: f32, rng: &mut ChaCha8Rng) -> Self {
        let value = Array2::from_shape_simple_fn((rows, columns), || bound * (2.0 * rng.random::<f32>() - 1.0));
        let zeros = Array2::zeros((rows, columns));
        Self { value, mean: zeros.clone(), square: zeros }
    }

    /// One step of Adam.
    pub fn step(&mut self, gradient: ArrayView2<'_, f32>, adam: &Adam) {
        let [keep1, keep2] = [0.9, 0.999_f32];
        let whole = |keep: f32| 1.0 - keep.powi(adam.step as i32); // undoes the start at zero
        let (whole1, whole2) = (whole(keep1), whole(keep2));
        Zip::from(&mut self.value).and(gradient).and(&mut self.mean).and(&mut self.square).for_each(|p, &g, m, v| {
            *m = keep1 * *m + (1.0 - keep1) * g;
            *v = keep2 * *v + (1.0 - keep2) * g * g;
            *p -= adam.rate * (*m / whole1) / ((*v / whole2).sqrt() + 1e-8);
        });
    }
}

/// Where Adam stands: common to all parameters.
pub struct Adam {
    first: f32,
    steps: usize,
    step: usize,
    rate: f32,
}

impl Adam {
    /// The learning rate falls from `rate` to 0 over the steps, along half a cosine.
    pub fn new(rate: f32, steps: usize) -> Self {
        Self { first: rate, steps, step: 0, rate }
    }

    /// The next step.
    pub fn advance(&mut self) {
        self.rate = self.first * (1.0 + (PI * self.step as f32 / self.steps as f32).cos()) / 2.0;
        self.step += 1;
    }
}

#[derive(Clone)]
struct Layer {
    weight: Parameter, // [inputs, outputs]
    bias: Parameter,   // [1, outputs]
}

impl Layer {
    /// He's bound, for a ReLU.
    fn new(inputs: usize, outputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let bound = (6.0 / inputs as f32).sqrt();
        Self { weight: Parameter::uniform(inputs, outputs, bound, rng), bias: Parameter::uniform(1, outputs, 0.0, rng) }
    }

    fn forward(&self, x: &Array2<f32>) -> Array2<f32> {
        x.dot(&self.weight.value) + &self.bias.value
    }

    /// The gradient to the input, and the squares of that to weight and bias; then the step.
    fn backward(&mut self, x: &Array2<f32>, gradient: ArrayView2<'_, f32>, adam: &Adam) -> (Array2<f32>, f64) {
        let below = gradient.dot(&self.weight.value.t());
        let weight = x.t().dot(&gradient);
        let bias = gradient.sum_axis(Axis(0)).insert_axis(Axis(0));
        self.weight.step(weight.view(), adam);
        self.bias.step(bias.view(), adam);
        let squares = weight.iter().chain(&bias).map(|&g| f64::from(g).powi(2)).sum();
        (below, squares)
    }
}

/// Inputs in, embeddings out.
#[derive(Clone)]
pub struct Mlp {
    layers: Vec<Layer>,
}

/// What the backward pass needs of the forward pass: the input of each layer.
pub struct Tape(Vec<Array2<f32>>);

impl Mlp {
    /// Random weights; `lengths` are those of the input, of what each hidden layer gives, and of the embedding.
    pub fn new(lengths: &[usize], rng: &mut ChaCha8Rng) -> Self {
        Self { layers: lengths.windows(2).map(|pair| Layer::new(pair[0], pair[1], rng)).collect() }
    }

    /// [rows, lengths' first] → [rows, lengths' last].
    pub fn forward(&self, inputs: Array2<f32>) -> (Array2<f32>, Tape) {
        let (mut x, mut tape) = (inputs, Vec::with_capacity(self.layers.len()));
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                x.mapv_inplace(|v| v.max(0.0));
            }
            let out = layer.forward(&x);
            tape.push(x);
            x = out;
        }
        (x, Tape(tape))
    }

    /// From the gradient to the embeddings; changes every weight. Returns the norm of the gradient to all of them.
    pub fn backward(&mut self, Tape(tape): &Tape, gradient: ArrayView2<'_, f32>, adam: &Adam) -> f64 {
        let mut gradient = gradient.to_owned();
        let mut all_squares = 0.0;
        for (layer, x) in self.layers.iter_mut().zip(tape).rev() {
            let (below, squares) = layer.backward(x, gradient.view(), adam);
            (gradient, all_squares) = (below, all_squares + squares);
            // of no use below the first layer, where nothing reads it
            Zip::from(&mut gradient).and(x).for_each(|g, &x| *g = if x > 0.0 { *g } else { 0.0 });
        }
        all_squares.sqrt()
    }
}

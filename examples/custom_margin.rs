//! A loss of your own: a target curve that this library does not have, on every path.
//!
//! The curve here is φ(x) = x − m·(1 − x)²: no margin for a sample that sits on its prototype, and one that grows with the
//! distance. A curve is a value and a slope in f64, the same in WGSL, and its numbers. The other classes have one too: c + t
//! where a class is harder than the target's logit with margin.

use margin_softmax::{
    Backend, Batch, Error, Margin, MarginSoftmax, OtherCurve, Others, Result, Shape, Target,
    objective::{Custom, CustomOthers, RowTarget},
};

#[derive(Debug)]
struct Quadratic {
    m: f64,
}

impl Margin for Quadratic {
    fn name(&self) -> &str {
        "quadratic"
    }

    fn value_slope(&self, x: f64) -> (f64, f64) {
        (x - self.m * (1.0 - x).powi(2), 1.0 + 2.0 * self.m * (1.0 - x))
    }

    fn wgsl(&self) -> &str {
        "fn margin_target(x: f32) -> ValueSlope {
            let m = parameter(0u);
            return ValueSlope(x - m * (1.0 - x) * (1.0 - x), 1.0 + 2.0 * m * (1.0 - x));
        }"
    }

    fn parameters(&self) -> Vec<f64> {
        vec![self.m]
    }
}

#[derive(Debug)]
struct Harder {
    t: f64,
}

impl OtherCurve for Harder {
    fn name(&self) -> &str {
        "harder"
    }

    fn value_slope(&self, c: f64, target: RowTarget) -> (f64, f64) {
        (if c > target.value { c + self.t } else { c }, 1.0)
    }

    fn fill(&self, cosines: &[f32], target: RowTarget, values: &mut [f32], slopes: &mut [f32]) {
        let (value, t) = (target.value as f32, self.t as f32);
        for (&c, v) in cosines.iter().zip(values) {
            *v = if c > value { c + t } else { c };
        }
        slopes.fill(1.0);
    }

    fn wgsl(&self) -> &str {
        "fn margin_other(c: f32, row: RowTarget) -> ValueSlope {
            return ValueSlope(select(c, c + other_parameter(0u), c > row.value), 1.0);
        }"
    }

    fn parameters(&self) -> Vec<f64> {
        vec![self.t]
    }
}

fn quadratic(m: f64) -> MarginSoftmax {
    let others = Others::Custom(CustomOthers::new(Harder { t: 0.1 }));
    let target = Target::Custom(Custom::new(Quadratic { m }));
    MarginSoftmax { target, ..MarginSoftmax::normface().with_scale(16.0).with_others(others) }
}

fn main() -> Result<()> {
    let (rows, classes, dim) = (6, 5, 8);
    let wave = |count: usize, pace: f32| (0..count).map(|i| (i as f32 * pace).sin()).collect::<Vec<f32>>();
    let (embeddings, prototypes) = (wave(rows * dim, 1.7), wave(classes * dim, 2.3));
    let labels = [0, 1, 2, 3, 4, 0];
    let batch = Batch { embeddings: &embeddings, prototypes: &prototypes, labels: &labels, ..Default::default() };

    let mut backends = vec![Backend::reference(), Backend::cpu()];
    match Backend::gpu(None) {
        Ok(gpu) => backends.push(gpu),
        Err(Error::NoAdapter(why)) => println!("no GPU: {why}"),
        Err(other) => return Err(other),
    }
    let mut first: Option<f32> = None;
    for backend in backends {
        let mut head = backend.head(&quadratic(0.25), Shape::new(rows, classes, dim)?)?;
        let narrow = head.evaluate(&batch)?.loss;
        head.update(&quadratic(0.5))?; // another number, the same kernels
        let wide = head.evaluate(&batch)?.loss;
        println!("{:<40} m = 0.25: {narrow:.6}   m = 0.5: {wide:.6}", backend.name());
        assert!(wide > narrow);
        let expected = *first.get_or_insert(wide);
        assert!((wide - expected).abs() < 1e-5 * expected, "{wide} and {expected}");
    }

    // the slope is the derivative of the value: a mistake there would train to nowhere
    let step = 1e-6;
    for x in [-0.9, -0.3, 0.2, 0.8] {
        let phi = |x: f64| quadratic(0.5).target_value_slope(x).0;
        let measured = (phi(x + step) - phi(x - step)) / (2.0 * step);
        assert!((measured - quadratic(0.5).target_value_slope(x).1).abs() < 1e-8);
    }
    Ok(())
}

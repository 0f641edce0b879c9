//! Optional inputs and results of a step, and predictions without labels: against the head over slices.

mod common;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use common::{assert_near, device, floats, head, host, labels, values};
use margin_softmax_burn::{
    Error, MarginHead, MarginSoftmax, Predictions, SoftLabels, StepOptions, StepOutput, context,
    margin_softmax::{self, Backend, Batch, Margins, Options, Output, Reduction, Shape, predict::Inputs},
};

const SCALE: f64 = 16.0;
const SIZES: [usize; 3] = [10, 70, 12];

/// A head with a batch, on the device and on the host.
struct Problem {
    device: Device,
    head: MarginHead,
    x: Tensor<2>,
    y: Tensor<1, Int>,
    hx: Vec<f32>,
    hw: Vec<f32>,
    labels: Vec<i32>,
}

/// The results of a step, on the host.
struct Found {
    loss: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    log_sum_exps: Option<Vec<f32>>,
    predictions: Option<Predictions>,
}

fn ints<const D: usize>(values: &[i32], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn numbers<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

fn positive(count: usize, seed: u32) -> Vec<f32> {
    values(count, seed).iter().map(|v| 1.25 + v).collect()
}

impl Problem {
    fn new(loss: &MarginSoftmax, device: &Device) -> Self {
        let [rows, classes, dim] = SIZES;
        let device = device.clone().autodiff();
        let head = head(loss, classes, dim, &device);
        let (x, (labels, y)) = (floats(rows, dim, 41, &device), labels(rows, classes, &device));
        let (hx, hw) = (host(x.clone()), host(head.prototypes.val()));
        Self { device, head, x, y, hx, hw, labels }
    }

    fn step(&self, options: &StepOptions) -> Found {
        let x = self.x.clone().detach().require_grad();
        let StepOutput { loss, log_sum_exps, predictions, .. } =
            self.head.forward_with(x.clone(), self.y.clone(), options);
        let gradients = loss.clone().sum().backward();
        let dx = x.grad(&gradients).expect("the embeddings have a gradient");
        let dw = self.head.prototypes.val().grad(&gradients).expect("the prototypes have a gradient");
        let log_sum_exps = log_sum_exps.map(host);
        Found { loss: host(loss), dx: host(dx), dw: host(dw), log_sum_exps, predictions }
    }

    fn shape(&self) -> Shape {
        let [rows, classes, dim] = SIZES;
        Shape::new(rows, classes, dim).unwrap()
    }

    fn batch(&self) -> Batch<'_, i32> {
        Batch { embeddings: &self.hx, prototypes: &self.hw, labels: &self.labels, ..Batch::default() }
    }

    fn expected(&self, batch: &Batch<'_, i32>) -> Output {
        let options = Options { soft_labels: batch.soft_labels.map(|soft| soft.count), ..Options::default() };
        let mut head = Backend::reference().head_with(self.head.loss(), self.shape(), &options).unwrap();
        head.evaluate(batch).unwrap()
    }

    fn agrees(&self, what: &str, options: &StepOptions, batch: &Batch<'_, i32>) -> (Found, Output) {
        let (found, expected) = (self.step(options), self.expected(batch));
        let unreduced = self.head.loss().reduction == Reduction::None;
        let losses = if unreduced { expected.row_losses.clone() } else { vec![expected.loss] };
        assert_near(&format!("{what}: loss"), &found.loss, &losses, 1e-4);
        assert_near(&format!("{what}: dX"), &found.dx, &expected.grad_embeddings, 1e-4);
        assert_near(&format!("{what}: dW"), &found.dw, &expected.grad_prototypes, 1e-4);
        (found, expected)
    }
}

fn losses() -> [MarginSoftmax; 3] {
    let arcface = MarginSoftmax::arcface().with_scale(SCALE);
    [
        arcface.clone(),
        arcface.with_reduction(Reduction::None),
        MarginSoftmax::cosface().with_scale(SCALE).with_z_loss(1e-3),
    ]
}

#[test]
fn weights_and_margins_are_those_of_slices() {
    let (device, _turn) = device();
    let [rows, classes, _] = SIZES;
    for loss in losses() {
        let problem = Problem::new(&loss, &device);
        let (v, w) = (positive(rows, 50), positive(classes, 51));
        let m2: Vec<f32> = positive(classes, 52).iter().map(|m| 0.2 * m).collect();
        let margins: Vec<f32> = m2.iter().flat_map(|&m| [f32::NAN, f32::NAN, m, f32::NAN]).collect();
        let row_weights = Some(numbers(&v, [rows], &problem.device));
        // constants come with and without autodiff
        let class_weights = Some(numbers(&w, [classes], &device));
        let class_margins = Some(numbers(&margins, [classes, 4], &device));
        let only_rows = StepOptions { row_weights: row_weights.clone(), ..StepOptions::default() };
        problem.agrees("row weights", &only_rows, &Batch { row_weights: Some(&v), ..problem.batch() });
        let all = StepOptions { row_weights, class_weights, class_margins, ..StepOptions::default() };
        let given = [None, None, Some(m2.clone()), None];
        let batch = Batch {
            row_weights: Some(&v),
            class_weights: Some(&w),
            class_margins: Margins::of(&given),
            ..problem.batch()
        };
        // twice: the second step finds the workspace of the first
        for _ in 0..2 {
            problem.agrees("all", &all, &batch);
        }
        problem.agrees("none", &StepOptions::default(), &problem.batch());
        problem.agrees("row weights again", &only_rows, &Batch { row_weights: Some(&v), ..problem.batch() });
    }
}

#[test]
fn a_divisor_makes_parts_add_up() {
    let (device, _turn) = device();
    let [rows, _, dim] = SIZES;
    let problem = Problem::new(&MarginSoftmax::arcface().with_scale(SCALE), &device);
    let divided = StepOptions { divisor: Some(rows as f32), ..StepOptions::default() };
    let whole = problem.step(&StepOptions::default());
    let mut sum = 0.0;
    for part in [0..3, 3..rows] {
        let count = part.len();
        let x = numbers(&problem.hx[part.start * dim..part.end * dim], [count, dim], &problem.device);
        let y = ints(&problem.labels[part], [count], &problem.device);
        sum += host(problem.head.forward_with(x, y, &divided).loss)[0];
    }
    assert_near("the sum", &[sum], &whole.loss, 1e-5);
    // the next step has none
    let thirds = StepOptions { divisor: Some(3.0), ..StepOptions::default() };
    problem.agrees("a third", &thirds, &Batch { divisor: Some(3.0), ..problem.batch() });
    problem.agrees("without", &StepOptions::default(), &problem.batch());
}

#[test]
fn soft_labels_are_those_of_slices() {
    let (device, _turn) = device();
    let [rows, classes, _] = SIZES;
    for loss in losses().into_iter().chain([MarginSoftmax::sphereface2()]) {
        let problem = Problem::new(&loss, &device);
        let at = &problem.device;
        // mixup
        let second: Vec<i32> = problem.labels.iter().map(|&y| (y * 3 + 1) % classes as i32).collect();
        let lambda: Vec<f32> = (0..rows).map(|i| i as f32 / 16.0).collect();
        let mixed = SoftLabels::mixed(problem.y.clone(), ints(&second, [rows], at), numbers(&lambda, [rows], at));
        let options = StepOptions { soft_labels: Some(mixed), ..StepOptions::default() };
        let both: Vec<i32> = problem.labels.iter().zip(&second).flat_map(|(&a, &b)| [a, b]).collect();
        let weights: Vec<f32> = lambda.iter().flat_map(|&l| [l, 1.0 - l]).collect();
        let soft = margin_softmax::data::SoftLabels { count: 2, classes: &both, weights: &weights };
        problem.agrees("mixup", &options, &Batch { soft_labels: Some(soft), ..problem.batch() });
        // five targets with gaps and equal ones, and weights of the rows
        let many: Vec<i32> =
            (0..rows * 5).map(|i| if i % 7 == 3 { -1 } else { (i * 11 / 2 % classes) as i32 }).collect();
        let (weights, v) = (positive(rows * 5, 60), positive(rows, 61));
        let options = StepOptions {
            row_weights: Some(numbers(&v, [rows], at)),
            soft_labels: Some(SoftLabels {
                classes: ints(&many, [rows, 5], at),
                weights: numbers(&weights, [rows, 5], at),
            }),
            ..StepOptions::default()
        };
        let soft = margin_softmax::data::SoftLabels { count: 5, classes: &many, weights: &weights };
        let batch = Batch { soft_labels: Some(soft), row_weights: Some(&v), ..problem.batch() };
        problem.agrees("five targets", &options, &batch);
        problem.agrees("labels", &StepOptions::default(), &problem.batch());
    }
}

/// Classes, cosines and log-probabilities of the reference.
fn nearest(problem: &Problem, k: usize) -> (Vec<i32>, Vec<f32>, Vec<f32>) {
    let (loss, shape) = (problem.head.loss(), problem.shape());
    let mut predictor = Backend::reference().predictor(loss, shape, k, &Options::default()).unwrap();
    let found = predictor.predict(&Inputs { embeddings: &problem.hx, prototypes: &problem.hw, bias: None }).unwrap();
    (found.classes.iter().map(|&class| class as i32).collect(), found.cosines, found.log_probabilities)
}

fn assert_nearest(what: &str, found: Predictions, expected: &(Vec<i32>, Vec<f32>, Vec<f32>)) {
    let classes: Vec<i32> = found.classes.into_data().iter::<i32>().collect();
    assert_eq!(classes, expected.0, "{what}");
    assert_near(&format!("{what}: cosines"), &host(found.cosines), &expected.1, 1e-5);
    assert_near(&format!("{what}: log-probabilities"), &host(found.log_probabilities), &expected.2, 1e-4);
}

#[test]
fn predictions_are_those_of_slices_with_and_without_labels() {
    let (device, _turn) = device();
    for loss in losses().into_iter().chain([MarginSoftmax::curricularface(), MarginSoftmax::softmax()]) {
        let problem = Problem::new(&loss, &device);
        for k in [1, 5] {
            let expected = nearest(&problem, k);
            let options = StepOptions { predictions: Some(k), log_sum_exps: true, ..StepOptions::default() };
            let found = problem.step(&options);
            let rows = problem.expected(&problem.batch()).log_sum_exps;
            if loss != MarginSoftmax::curricularface() {
                assert_near("log-sum-exps", &found.log_sum_exps.expect("they were asked for"), &rows, 1e-5);
            }
            assert_nearest("a step", found.predictions.expect("they were asked for"), &expected);
            assert_nearest("predict", problem.head.predict(problem.x.clone(), k), &expected);
            // without autodiff
            let valid = problem.head.valid();
            let (x, y) = (problem.x.clone().inner(), problem.y.clone().inner());
            let evaluated = valid.forward_with(x.clone(), y, &options);
            assert!(!evaluated.loss.device().is_autodiff());
            assert_nearest("an evaluation", evaluated.predictions.expect("they were asked for"), &expected);
            assert_nearest("valid predict", valid.predict(x, k), &expected);
        }
        assert!(problem.step(&StepOptions::default()).predictions.is_none());
    }
}

/// The scale that AdaCos has found is the one of the log-probabilities.
#[test]
fn predictions_follow_the_scale() {
    let (device, _turn) = device();
    let loss = MarginSoftmax::adacos();
    let problem = Problem::new(&loss, &device);
    let mut slices = Backend::reference().head(&loss, problem.shape()).unwrap();
    for _ in 0..2 {
        problem.step(&StepOptions::default());
        slices.train(&problem.batch()).unwrap();
    }
    let mut predictor = Backend::reference().predictor(&loss, problem.shape(), 3, &Options::default()).unwrap();
    predictor.set_state(&slices.state()).unwrap();
    let found = predictor.predict(&Inputs { embeddings: &problem.hx, prototypes: &problem.hw, bias: None }).unwrap();
    let classes = found.classes.iter().map(|&class| class as i32).collect();
    let expected = (classes, found.cosines, found.log_probabilities);
    assert_nearest("after two steps", problem.head.predict(problem.x.clone(), 3), &expected);
    assert_ne!(nearest(&problem, 3).2, expected.2, "the scale has not moved");
}

#[test]
fn predictions_compile_once_within_the_budget() {
    let (device, _turn) = device();
    let problem = Problem::new(&MarginSoftmax::arcface().with_scale(SCALE), &device);
    let context = context(&device).unwrap();
    let kernels = || {
        problem.head.predict(problem.x.clone(), 2);
        (context.allocated_bytes(), context.compiled_kernels())
    };
    let [first, second, third] = [(); 3].map(|()| kernels());
    assert_eq!((second.1, third.1), (first.1, first.1));
    // each call has a workspace of its own; what was allocated is counted, not what is still there
    let bytes = second.0 - first.0;
    assert_eq!(third.0 - second.0, bytes);
    assert!(bytes > 0 && bytes <= 256 << 20, "{bytes}");
}

#[test]
fn a_batch_without_rows_has_empty_results() {
    let (device, _turn) = device();
    let problem = Problem::new(&MarginSoftmax::arcface(), &device);
    let [_, _, dim] = SIZES;
    let (x, y) = (floats(0, dim, 1, &problem.device), ints(&[], [0], &problem.device));
    let options = StepOptions { predictions: Some(3), log_sum_exps: true, ..StepOptions::default() };
    let found = problem.head.forward_with(x.clone(), y, &options);
    assert_eq!(host(found.loss), [0.0]);
    assert_eq!(found.log_sum_exps.map(|sums| sums.dims()), Some([0]));
    assert_eq!(found.predictions.map(|all| all.classes.dims()), Some([0, 3]));
    assert_eq!(problem.head.predict(x, 3).cosines.dims(), [0, 3]);
}

#[test]
fn mistakes_are_errors() {
    let (device, _turn) = device();
    let [rows, classes, _] = SIZES;
    let problem = Problem::new(&MarginSoftmax::arcface(), &device);
    let at = &problem.device;
    let refused = |options: &StepOptions| {
        let error = problem.head.try_forward_with(problem.x.clone(), problem.y.clone(), options).unwrap_err();
        let Error::Head(error) = error else { panic!("{error}") };
        error
    };
    let none = StepOptions::default;
    let short = Some(numbers(&[1.0; 3], [3], at));
    let error = refused(&StepOptions { row_weights: short.clone(), ..none() });
    assert!(matches!(error, margin_softmax::Error::Shape { what: "row_weights", .. }), "{error}");
    let error = refused(&StepOptions { class_weights: short, ..none() });
    assert!(matches!(error, margin_softmax::Error::Shape { what: "class_weights", .. }), "{error}");
    let error = refused(&StepOptions { class_margins: Some(numbers(&[0.1; 6], [3, 2], at)), ..none() });
    assert!(matches!(error, margin_softmax::Error::Shape { what: "class_margins", .. }), "{error}");
    let soft = |classes: usize, weights: usize| {
        let classes = ints(&vec![0; rows * classes], [rows, classes], at);
        Some(SoftLabels { classes, weights: numbers(&vec![0.5; rows * weights], [rows, weights], at) })
    };
    let error = refused(&StepOptions { soft_labels: soft(2, 3), ..none() });
    assert!(matches!(error, margin_softmax::Error::Shape { what: "soft_weights", .. }), "{error}");
    let error = refused(&StepOptions { soft_labels: soft(17, 17), ..none() });
    assert!(matches!(error, margin_softmax::Error::Parameter { what: "soft_labels", .. }), "{error}");
    let error = refused(&StepOptions { soft_labels: soft(2, 2), predictions: Some(1), ..none() });
    assert!(matches!(error, margin_softmax::Error::Combination { .. }), "{error}");
    for divisor in [0.0, -1.0, f32::NAN] {
        let error = refused(&StepOptions { divisor: Some(divisor), ..none() });
        assert!(matches!(error, margin_softmax::Error::Parameter { what: "divisor", .. }), "{error}");
    }
    for k in [0, 65, classes + 1] {
        let error = refused(&StepOptions { predictions: Some(k), ..none() });
        assert!(matches!(error, margin_softmax::Error::Parameter { what: "predictions", .. }), "{error}");
        let Error::Head(error) = problem.head.try_predict(problem.x.clone(), k).unwrap_err() else { panic!("{k}") };
        assert!(matches!(error, margin_softmax::Error::Parameter { what: "predictions", .. }), "{error}");
    }
    let elsewhere = Some(Tensor::<1>::ones([rows], &Device::flex()));
    let options = StepOptions { row_weights: elsewhere, ..none() };
    let error = problem.head.try_forward_with(problem.x.clone(), problem.y.clone(), &options).unwrap_err();
    assert!(matches!(error, Error::Devices { what: "row_weights", .. }), "{error}");
    // nothing of these mistakes stays
    problem.agrees("after", &none(), &problem.batch());
}

//! Penalties, center loss, schedules and monitors on burn's wgpu backend: against the library over slices.

mod common;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use common::{assert_near, device, floats, head, host, labels};
use margin_softmax_burn::{
    CenterLoss, CentersConfig, Error, MarginSoftmax, Regularizer, StepOptions,
    margin_softmax::{
        self, Backend, Batch, Shape, State,
        monitor::{BatchReport, CollapseDetector, CollapseThresholds, Monitor},
        objective::{Ramp, Schedule, Schedules},
    },
    mean_prototype, regularize, try_mean_prototype, try_regularize,
};

const SIZES: [usize; 3] = [10, 70, 12];

fn both() -> [Regularizer; 2] {
    [Regularizer::reg_ss().with_weight(10.0), Regularizer::uniform_face().with_weight(3.0)]
}

fn ints(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

#[test]
fn penalties_and_their_gradients_are_those_of_slices() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let [_, classes, dim] = SIZES;
    for regularizer in both() {
        let w = floats(classes, dim, 3, &device).require_grad();
        let expected = Backend::reference().regularize(&regularizer, dim, &host(w.clone())).unwrap();
        let name = regularizer.name();
        let penalty = regularize(&regularizer, w.clone());
        assert_near(&format!("{name}: value"), &host(penalty.clone()), &[expected.value], 1e-5);
        // with a factor from above
        let gradients = (penalty * 2.0).backward();
        let doubled: Vec<f32> = expected.gradient.iter().map(|g| 2.0 * g).collect();
        assert_near(&format!("{name}: gradient"), &host(w.grad(&gradients).unwrap()), &doubled, 1e-4);
        // without autodiff
        let plain = regularize(&regularizer, w.inner());
        assert!(!plain.device().is_autodiff());
        assert_near(&format!("{name}: without autodiff"), &host(plain), &[expected.value], 1e-5);
    }
}

#[test]
fn a_penalty_adds_to_the_gradient_of_a_head() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let [rows, classes, dim] = SIZES;
    let head = head(&MarginSoftmax::ampface(), classes, dim, &device);
    let (x, (_, y)) = (floats(rows, dim, 5, &device), labels(rows, classes, &device));
    let w = head.prototypes.val();
    let gradient = |loss: Tensor<1>| host(w.grad(&loss.backward()).unwrap());
    let [regularizer, _] = both();
    let alone = gradient(head.forward(x.clone(), y.clone()));
    let penalty = gradient(regularize(&regularizer, head.prototypes.val()));
    let sum: Vec<f32> = alone.iter().zip(&penalty).map(|(a, b)| a + b).collect();
    let together = gradient(head.forward(x, y) + regularize(&regularizer, head.prototypes.val()));
    assert_near("dW", &together, &sum, 1e-5);
}

#[test]
fn center_losses_and_their_centers_are_those_of_slices() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let ([rows, _, dim], classes) = (SIZES, 4);
    let loss = CenterLoss { weight: 0.3, rate: 0.7, ignore_index: Some(-1) };
    let centers = CentersConfig::new(classes, dim).with_loss(loss).init(&device);
    let mut expected = vec![0.0; classes * dim];
    for step in 0..3 {
        let labels: Vec<i32> = (0..rows as i32).map(|i| (i + step) % 5 - 1).collect();
        let x = floats(rows, dim, 10 + step as u32, &device).require_grad();
        let (hx, y) = (host(x.clone()), ints(&labels, &device));
        let found = Backend::reference().center_loss(&loss, dim, &hx, &labels, &expected).unwrap();
        // an evaluation moves nothing
        let valid = centers.valid().forward(x.clone().inner(), y.clone().inner());
        assert_near("evaluation", &host(valid), &[found.loss], 1e-5);
        let value = centers.forward(x.clone(), y);
        assert_near("loss", &host(value.clone()), &[found.loss], 1e-5);
        let gradients = value.backward();
        assert_near("gradient", &host(x.grad(&gradients).unwrap()), &found.grad_embeddings, 1e-5);
        Backend::reference().update_centers(&loss, dim, &hx, &labels, &mut expected).unwrap();
        assert_near("centers", &host(centers.centers.value_sync()), &expected, 1e-5);
    }
    // a batch without rows
    let none = centers.forward(floats(0, dim, 1, &device), ints(&[], &device));
    assert_eq!(host(none), [0.0]);
    assert_near("untouched", &host(centers.centers.value_sync()), &expected, 1e-5);
    // its record has the centers
    let record = centers.clone().into_record();
    let resumed = CentersConfig::new(classes, dim).with_loss(loss).init(&device).load_record(record);
    assert_eq!(host(resumed.centers.value_sync()), host(centers.centers.value_sync()));
}

#[test]
fn schedules_move_the_loss_of_a_head() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let [rows, classes, dim] = SIZES;
    let m2 = Schedule { start: 0.0, end: 0.4, from: 0, until: 3, ramp: Ramp::Linear };
    let schedules = Schedules { m2: Some(m2), ..Schedules::default() };
    let mut scheduled = head(&MarginSoftmax::arcface().with_scale(16.0), classes, dim, &device);
    let (x, (_, y)) = (floats(rows, dim, 6, &device), labels(rows, classes, &device));
    for step in 0..5_u64 {
        scheduled.apply_schedules(&schedules).unwrap();
        let own = scheduled.loss().clone();
        let expected = MarginSoftmax::arcface().with_scale(16.0).with_margin(|m| m.m2 = m2.value(step));
        assert_eq!(own, expected);
        let fixed = host(head(&own, classes, dim, &device).forward(x.clone(), y.clone()));
        assert_near("loss", &host(scheduled.forward(x.clone(), y.clone())), &fixed, 1e-6);
    }
    let wrong = Schedules { margin: Some(m2), ..Schedules::default() };
    let before = scheduled.loss().clone();
    let Error::Head(error) = scheduled.apply_schedules(&wrong).unwrap_err() else { panic!("another error") };
    assert!(matches!(error, margin_softmax::Error::Combination { what: "schedules.margin", .. }), "{error}");
    assert_eq!(*scheduled.loss(), before);
}

#[test]
fn monitors_are_those_of_slices() {
    let (device, _turn) = device();
    let training = device.clone().autodiff();
    let [rows, classes, dim] = SIZES;
    let loss = MarginSoftmax::arcface();
    let head = head(&loss, classes, dim, &training);
    let mut epoch = Monitor::new(16).unwrap();
    let mut expected = Monitor::new(16).unwrap();
    let mut slices = Backend::reference().head(&loss, Shape::new(rows, classes, dim).unwrap()).unwrap();
    let hw = host(head.prototypes.val());
    let options = StepOptions { monitor: Some(16), ..StepOptions::default() };
    for seed in 0..3 {
        let (x, (hy, y)) = (floats(rows, dim, seed + 1, &training), labels(rows, classes, &training));
        let hx = host(x.clone());
        let batch = Batch { embeddings: &hx, prototypes: &hw, labels: &hy, ..Batch::default() };
        expected.add(&slices.evaluate(&batch).unwrap(), &hy, None).unwrap();
        let step = head.forward_with(x.clone(), y.clone(), &options);
        epoch.merge(&step.monitor.expect("it was asked for").read().unwrap()).unwrap();
        // without autodiff too
        let (x, y) = (x.inner(), y.inner());
        let valid = head.valid().forward_with(x.clone(), y, &options).monitor.expect("it was asked for");
        assert_eq!(valid.read().unwrap().report().rows, rows as u64);
        assert!(head.valid().forward_with(x.clone(), ints(&hy, &device), &StepOptions::default()).monitor.is_none());
    }
    let (found, expected) = (epoch.report(), expected.report());
    assert_eq!((found.rows, found.accuracy), (expected.rows, expected.accuracy));
    let means = |report: &margin_softmax::monitor::Report| {
        [report.intra_angle, report.inter_angle, report.target_cosine].map(|v| v as f32)
    };
    assert_near("means", &means(&found), &means(&expected), 1e-5);
    // no rows
    let none = head.forward_with(floats(0, dim, 1, &training), ints(&[], &training), &options);
    assert_eq!(none.monitor.expect("it was asked for").read().unwrap().report().rows, 0);

    let length = host(mean_prototype(head.prototypes.val()))[0];
    let of_slices = Backend::reference().mean_prototype(dim, &hw).unwrap();
    assert_near("mean prototype", &[length], &[of_slices as f32], 1e-5);
    let thresholds = CollapseThresholds { warm_up: Some(0), target_cosine: 1.0, mean_prototype: Some(0.0) };
    let mut detector = CollapseDetector::new(thresholds, Shape::new(rows, classes, dim).unwrap()).unwrap();
    let warning = detector.check(&found.with_mean_prototype(length.into())).expect("below 1");
    assert_eq!(warning.mean_prototype, Some(length.into()));
}

#[test]
fn a_report_of_a_batch_is_that_of_slices() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let [rows, classes, dim] = SIZES;
    for loss in [MarginSoftmax::magface(), MarginSoftmax::adacos(), MarginSoftmax::curricularface()] {
        let head = head(&loss, classes, dim, &device);
        let (x, (hy, y)) = (floats(rows, dim, 8, &device), labels(rows, classes, &device));
        let (hx, hw) = (host(x.clone()), host(head.prototypes.val()));
        let shape = Shape::new(rows, classes, dim).unwrap();
        let mut slices = Backend::reference().head(&loss, shape).unwrap();
        let batch = Batch { embeddings: &hx, prototypes: &hw, labels: &hy, ..Batch::default() };
        // at the state after a step
        head.forward(x.clone(), y.clone());
        slices.train(&batch).unwrap();
        let state = State { step: 1, ..*slices.state() };
        let expected = BatchReport::evaluated(&loss, &state, &batch, &slices.evaluate(&batch).unwrap()).unwrap();
        let found = head.report(x, y).unwrap();
        assert_eq!((found.rows, found.lengths_outside), (expected.rows, expected.lengths_outside));
        let list = |report: &BatchReport| -> Vec<f32> {
            let gradients = [report.embedding_gradient.unwrap(), report.prototype_gradient.unwrap()];
            let numbers = [report.length_min, report.length_mean, report.length_max, report.scale, report.margin_loss];
            let all = numbers.into_iter().chain(gradients).chain(report.target_cosines);
            all.chain(report.margins.unwrap_or_default()).chain(report.length_loss).map(|v| v as f32).collect()
        };
        for (i, (f, e)) in list(&found).iter().zip(list(&expected)).enumerate() {
            assert!((f - e).abs() <= 1e-4 * e.abs().max(1.0), "{i}: {f}, expected {e}");
        }
    }
}

#[test]
fn mistakes_are_errors() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let [rows, classes, dim] = SIZES;
    let of_head = |error: Error| match error {
        Error::Head(error) => error,
        other => panic!("{other}"),
    };
    let w = || floats(classes, dim, 1, &device);
    let error = of_head(try_regularize(&Regularizer::reg_ss().with_weight(0.0), w()).unwrap_err());
    assert!(matches!(error, margin_softmax::Error::Parameter { what: "weight", .. }), "{error}");
    let error = of_head(try_regularize(&Regularizer::reg_ss(), floats(0, dim, 1, &device)).unwrap_err());
    assert!(matches!(error, margin_softmax::Error::Zero { .. }), "{error}");
    let elsewhere = Tensor::<2>::ones([3, 4], &Device::flex());
    let error = try_regularize(&Regularizer::reg_ss(), elsewhere.clone()).unwrap_err();
    assert!(matches!(error, Error::Backend { what: "prototypes", .. }), "{error}");
    let error = try_mean_prototype(elsewhere.clone()).unwrap_err();
    assert!(matches!(error, Error::Backend { what: "prototypes", .. }), "{error}");

    let wrong = CenterLoss { rate: 2.0, ..CenterLoss::default() };
    let error = of_head(CentersConfig::new(classes, dim).with_loss(wrong).try_init(&device).unwrap_err());
    assert!(matches!(error, margin_softmax::Error::Parameter { what: "rate", .. }), "{error}");
    let centers = CentersConfig::new(classes, dim).init(&device);
    let (x, (_, y)) = (floats(rows, dim, 1, &device), labels(rows, classes, &device));
    let error = of_head(centers.try_forward(x.clone(), ints(&[1], &device)).unwrap_err());
    assert!(matches!(error, margin_softmax::Error::Length { what: "labels", .. }), "{error}");
    let error = of_head(centers.try_forward(floats(rows, dim + 1, 1, &device), y.clone()).unwrap_err());
    assert!(matches!(error, margin_softmax::Error::Shape { what: "embeddings", .. }), "{error}");
    let error = centers.try_forward(elsewhere, y.clone()).unwrap_err();
    assert!(matches!(error, Error::Backend { what: "embeddings", .. }), "{error}");

    let monitored = StepOptions { monitor: Some(8), ..StepOptions::default() };
    let linear = head(&MarginSoftmax::softmax(), classes, dim, &device);
    let error = of_head(linear.try_forward_with(x.clone(), y.clone(), &monitored).unwrap_err());
    assert!(matches!(error, margin_softmax::Error::Combination { what: "monitor", .. }), "{error}");
    let arcface = head(&MarginSoftmax::arcface(), classes, dim, &device);
    let none = StepOptions { monitor: Some(0), ..StepOptions::default() };
    let error = of_head(arcface.try_forward_with(x, y, &none).unwrap_err());
    assert!(matches!(error, margin_softmax::Error::Zero { what: "bins" }), "{error}");
}

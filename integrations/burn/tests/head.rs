//! The head on burn's wgpu backend. Needs an adapter; a software one will do.

mod common;

#[cfg(not(feature = "fusion"))]
use burn::backend::Cube;
use burn::{
    module::{Module, Param},
    nn::{Linear, LinearConfig},
    optim::{AdamConfig, GradientsParams},
    tensor::{DType, Device, FloatDType, Int, Tensor, TensorData, activation::relu, s},
};
#[cfg(not(feature = "fusion"))]
use burn_cubecl::cubecl::wgpu::{AutoCompiler, WgpuServer};
use common::{Composed, adapter, assert_near, device, floats, head, host, labels, setup};
use margin_softmax_burn::{
    Error, MarginHead, MarginHeadConfig, MarginSoftmax, context, from_setup,
    margin_softmax::{Backend, Batch, Reduction, Shape},
    wgpu,
};

const SCALE: f64 = 16.0;
const ALL: [Composed; 3] = [Composed::NormFace, Composed::CosFace(0.35), Composed::ArcFace(0.3)];

/// Loss and both gradients of the head, by whatever is on the device.
fn step(head: &MarginHead, x: &Tensor<2>, y: &Tensor<1, Int>) -> (f32, Vec<f32>, Vec<f32>) {
    let x = x.clone().detach().require_grad();
    let loss = head.forward(x.clone(), y.clone());
    let gradients = loss.backward();
    let dx = x.grad(&gradients).expect("the embeddings have a gradient");
    let dw = head.prototypes.val().grad(&gradients).expect("the prototypes have a gradient");
    (host(loss)[0], host(dx), host(dw))
}

fn composed(which: Composed, x: &Tensor<2>, w: &Tensor<2>, y: &Tensor<1, Int>) -> (f32, Vec<f32>, Vec<f32>) {
    let [x, w] = [x, w].map(|t| t.clone().detach().require_grad());
    let loss = which.mean(x.clone(), w.clone(), y.clone(), SCALE);
    let gradients = loss.backward();
    let [dx, dw] = [x, w].map(|t| t.grad(&gradients).expect("burn's operations have a gradient"));
    (host(loss)[0], host(dx), host(dw))
}

/// Buffer and offset of a tensor, asked of burn.
#[cfg(not(feature = "fusion"))]
fn place<const D: usize>(tensor: Tensor<D>) -> (wgpu::Buffer, u64) {
    let tensor = tensor.without_autodiff().try_into_primitive::<Cube>().expect("a tensor on wgpu");
    let memory = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone()).expect("a buffer");
    (memory.resource().buffer.clone(), memory.resource().offset)
}

#[test]
fn loss_and_gradients_are_those_of_burns_operations() {
    let (device, _turn) = device();
    let device = device.autodiff();
    for (rows, classes, dim) in [(5, 7, 3), (33, 50, 20), (64, 130, 32)] {
        for which in ALL {
            let head = head(&which.loss().with_scale(SCALE), classes, dim, &device);
            let (x, (_, y)) = (floats(rows, dim, 1, &device), labels(rows, classes, &device));
            let (loss, dx, dw) = step(&head, &x, &y);
            let (expected, ex, ew) = composed(which, &x, &head.prototypes.val(), &y);
            let name = format!("{which:?} {rows}x{classes}x{dim}");
            assert_near(&format!("{name}: loss"), &[loss], &[expected], 1e-4);
            assert_near(&format!("{name}: dX"), &dx, &ex, 1e-4);
            assert_near(&format!("{name}: dW"), &dw, &ew, 1e-4);
        }
    }
}

#[test]
fn rows_have_losses_of_their_own_and_weigh_as_they_are_told() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let which = Composed::ArcFace(0.3);
    let loss = MarginSoftmax { reduction: Reduction::None, ..which.loss().with_scale(SCALE) };
    let (rows, classes, dim) = (9, 11, 6);
    let head = head(&loss, classes, dim, &device);
    let (x, (_, y)) = (floats(rows, dim, 2, &device), labels(rows, classes, &device));
    let weights: Tensor<1> = Tensor::from_data(TensorData::new(common::values(rows, 3), [rows]), &device);
    let run = |of: &dyn Fn(Tensor<2>) -> Tensor<1>| {
        let x = x.clone().require_grad();
        let rows = of(x.clone());
        let gradients = (rows.clone() * weights.clone()).sum().backward();
        (host(rows), host(x.grad(&gradients).expect("a gradient")), head.prototypes.val().grad(&gradients).map(host))
    };
    let (found, dx, dw) = run(&|x| head.forward(x, y.clone()));
    let (expected, ex, ew) = run(&|x| which.rows(x, head.prototypes.val(), y.clone(), SCALE));
    assert_near("row losses", &found, &expected, 1e-4);
    assert_near("dX", &dx, &ex, 1e-4);
    assert_near("dW", &dw.expect("a gradient"), &ew.expect("a gradient"), 1e-4);
}

#[test]
fn an_evaluation_gives_the_same_loss() {
    let (device, _turn) = device();
    let training = device.clone().autodiff();
    let head = head(&MarginSoftmax::arcface(), 20, 8, &training);
    let (x, (_, y)) = (floats(10, 8, 4, &training), labels(10, 20, &training));
    let trained = host(head.forward(x.clone(), y.clone()));
    let valid = head.valid();
    let evaluated = valid.forward(x.inner(), y.inner());
    assert!(!evaluated.device().is_autodiff());
    assert_eq!(host(evaluated), trained);
}

#[test]
fn sub_centers_are_those_of_the_reference() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let (rows, classes, k, dim) = (12, 9, 3, 5);
    let loss = MarginSoftmax::arcface().with_scale(SCALE);
    let mut head = MarginHeadConfig::new(classes, dim, loss.clone()).with_sub_centers(k).init(&device);
    assert_eq!(head.prototypes.val().dims(), [classes * k, dim]);
    head.prototypes = Param::from_tensor(floats(classes * k, dim, 91, &device));
    let (x, (labels, y)) = (floats(rows, dim, 5, &device), labels(rows, classes, &device));
    let (found, dx, dw) = step(&head, &x, &y);
    let shape = Shape::new(rows, classes, dim).unwrap().with_sub_centers(k).unwrap();
    let mut reference = Backend::reference().head(&loss, shape).unwrap();
    let (x, w) = (host(x), host(head.prototypes.val()));
    let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Default::default() };
    let expected = reference.evaluate(&batch).unwrap();
    assert_near("loss", &[found], &[expected.loss], 1e-4);
    assert_near("dX", &dx, &expected.grad_embeddings, 1e-4);
    assert_near("dW", &dw, &expected.grad_prototypes, 1e-4);
    // the largest cosine of three is the class' score
    let scores = head.scores(floats(rows, dim, 5, &device));
    assert_eq!(scores.dims(), [rows, classes]);
    let target: Vec<f32> = host(scores).chunks(classes).zip(&labels).map(|(row, &label)| row[label as usize]).collect();
    assert_near("scores", &target, &expected.target_cosines, 1e-5);
}

#[test]
fn what_a_loss_follows_moves_in_training_and_is_saved() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let (rows, classes, dim) = (8, 6, 4);
    for loss in [MarginSoftmax::curricularface(), MarginSoftmax::adaface(), MarginSoftmax::adacos()] {
        let config = MarginHeadConfig::new(classes, dim, loss.clone());
        let mut head = config.init(&device);
        head.prototypes = Param::from_tensor(floats(classes, dim, 92, &device));
        let mut reference = Backend::reference().head(&loss, Shape::new(rows, classes, dim).unwrap()).unwrap();
        let w = host(head.prototypes.val());
        for seed in 0..3 {
            let (x, (labels, y)) = (floats(rows, dim, seed + 10, &device), labels(rows, classes, &device));
            let found = host(head.forward(x.clone(), y));
            let x = host(x);
            let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Default::default() };
            let expected = reference.train(&batch).unwrap();
            assert_near(&format!("{:?}, step {seed}", loss.adaptive), &found, &[expected.loss], 1e-4);
        }
        let state = reference.state();
        let expected = [state.hardness, state.norm_mean, state.norm_deviation, state.scale].map(|v| v as f32);
        let found = host(head.state.value_sync());
        assert_near("state", &found, &expected, 1e-4);
        assert_eq!(head.step(), 3);
        // an evaluation reads it and leaves it
        let valid = head.valid();
        let (x, (labels, y)) = (floats(rows, dim, 20, &device), labels(rows, classes, &device));
        let evaluated = host(valid.forward(x.clone().inner(), y.inner()));
        let x = host(x);
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &labels, ..Default::default() };
        assert_near("evaluation", &evaluated, &[reference.evaluate(&batch).unwrap().loss], 1e-4);
        assert_eq!(host(valid.state.value_sync()), found);
        // and a record has it
        let loaded = config.init(&device).load_record(head.clone().into_record());
        assert_eq!(host(loaded.state.value()), found);
        assert_eq!(host(loaded.prototypes.val()), w);
    }
}

#[test]
fn elasticface_draws_by_step_and_seed() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let loss = MarginSoftmax::elasticface_arc().with_scale(SCALE);
    let (rows, classes, dim) = (8, 6, 4);
    let mut head = MarginHeadConfig::new(classes, dim, loss.clone()).with_seed(7).init(&device);
    head.prototypes = Param::from_tensor(floats(classes, dim, 93, &device));
    let (x, (labels, y)) = (floats(rows, dim, 30, &device), labels(rows, classes, &device));
    let mut reference = Backend::reference().head(&loss, Shape::new(rows, classes, dim).unwrap()).unwrap();
    let state = reference.state().with_seed(7);
    reference.set_state(&state).unwrap();
    let (hx, hw) = (host(x.clone()), host(head.prototypes.val()));
    let batch = Batch { embeddings: &hx, prototypes: &hw, labels: &labels, ..Default::default() };
    let mut found = vec![];
    for _ in 0..3 {
        found.push(host(head.forward(x.clone(), y.clone()))[0]);
        assert_near("a step", &found[found.len() - 1..], &[reference.train(&batch).unwrap().loss], 1e-4);
    }
    assert!(found[0] != found[1] && found[1] != found[2], "{found:?}");
    head.set_step(1);
    assert_eq!(host(head.forward(x, y))[0], found[1]);
}

#[test]
fn a_slice_is_read_where_it_begins() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let which = Composed::CosFace(0.2);
    // 256 bytes a row, which any device can bind
    let (rows, classes, dim) = (6, 8, 64);
    let head = head(&which.loss().with_scale(SCALE), classes, dim, &device);
    let (many, (_, y)) = (floats(40, dim, 6, &device), labels(40, classes, &device));
    for first in [0, 3, 32] {
        let (x, y) = (many.clone().slice(s![first..first + rows]), y.clone().slice(s![first..first + rows]));
        #[cfg(not(feature = "fusion"))]
        {
            let ((buffer, offset), (whole, start)) = (place(x.clone()), place(many.clone()));
            assert!(buffer == whole, "burn has copied the slice, so nothing is tested");
            assert_eq!(offset, start + 256 * first as u64);
        }
        let (loss, dx, dw) = step(&head, &x, &y);
        let (expected, ex, ew) = composed(which, &x, &head.prototypes.val(), &y);
        assert_near(&format!("from {first}: loss"), &[loss], &[expected], 1e-4);
        assert_near(&format!("from {first}: dX"), &dx, &ex, 1e-4);
        assert_near(&format!("from {first}: dW"), &dw, &ew, 1e-4);
    }
}

#[test]
fn a_transposed_tensor_is_read_as_it_looks() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let which = Composed::NormFace;
    let head = head(&which.loss().with_scale(SCALE), 8, 5, &device);
    let (x, (_, y)) = (floats(5, 6, 7, &device).transpose(), labels(6, 8, &device));
    let (loss, dx, _) = step(&head, &x, &y);
    let (expected, ex, _) = composed(which, &x, &head.prototypes.val(), &y);
    assert_near("loss", &[loss], &[expected], 1e-4);
    assert_near("dX", &dx, &ex, 1e-4);
}

#[cfg(not(feature = "fusion"))]
#[test]
fn burns_own_buffers_are_the_ones_that_are_bound() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let (rows, classes, dim) = (16, 40, 8);
    let head = head(&MarginSoftmax::arcface(), classes, dim, &device);
    let (x, (_, y)) = (floats(rows, dim, 8, &device), labels(rows, classes, &device));
    let x = x.require_grad();
    drop(head.forward(x.clone(), y.clone()).backward());
    let int = y.clone().inner().try_into_primitive::<Cube>().unwrap();
    let int = int.client.get_resource::<WgpuServer<AutoCompiler>>(int.handle.clone()).unwrap();
    let expected = [place(x), place(head.prototypes.val()), (int.resource().buffer.clone(), int.resource().offset)];
    let places = head.places();
    assert_eq!(places.len(), 1, "one workspace");
    for ((what, found), expected) in ["embeddings", "prototypes", "labels"].iter().zip(&places[0]).zip(&expected) {
        assert!(found.0 == expected.0, "{what}: another buffer is bound");
        assert_eq!(found.1, expected.1, "{what}: another offset is bound");
    }
    assert!(expected.iter().any(|(_, offset)| *offset > 0), "all offsets are 0");
}

/// Pages of the memory through which burn reads, the most at once so far. Every read of burn's takes one.
#[cfg(not(feature = "fusion"))]
fn staging(tensor: &Tensor<2>) -> u64 {
    let tensor = tensor.clone().without_autodiff().try_into_primitive::<Cube>().expect("a tensor on wgpu");
    let report = tensor.client.memory_report(burn_cubecl::cubecl::MemoryScope::Device);
    let memories: Vec<_> =
        report.streams.iter().flat_map(|s| &s.auxiliary).filter(|m| m.name.contains("Staging")).collect();
    assert!(!memories.is_empty(), "burn has renamed its staging memory");
    let pools = memories.iter().map(|m| &m.pools);
    pools.flat_map(|p| p.dynamic.iter().chain([&p.persistent, &p.dedicated])).map(|p| p.pages_peak).sum()
}

#[cfg(not(feature = "fusion"))]
#[test]
fn a_step_brings_nothing_to_the_host_and_allocates_nothing() {
    let (_device, _turn) = device();
    // a device of its own, from which nothing was ever read
    let fresh = from_setup(setup(&margin_softmax_burn::descriptor(&adapter().1))).unwrap();
    let device = fresh.autodiff();
    let mut mlp = Mlp::new(&MarginSoftmax::curricularface(), &device);
    let (inputs, (_, y)) = (floats(15, 6, 50, &device), labels(15, 10, &device));
    let context = context(&device).unwrap();
    let mut optimiser = AdamConfig::new().init();
    let mut counted = vec![];
    let mut last = None;
    for _ in 0..6 {
        let loss = mlp.head.forward(mlp.embed(inputs.clone()), y.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &mlp);
        mlp = optimiser.step(0.01, mlp, gradients);
        device.sync().unwrap();
        // whatever this crate reads goes through a buffer that is made for it and counted
        counted.push((context.allocated_bytes(), context.compiled_kernels()));
        last = Some(loss);
    }
    assert!(counted[0].0 > 0);
    assert!(counted.iter().all(|c| *c == counted[0]), "bytes and kernels after each step: {counted:?}");
    assert_eq!(staging(&inputs), 0, "burn has read something");
    assert!(host(last.unwrap())[0].is_finite());
    assert!(staging(&inputs) > 0, "a read goes unnoticed");
}

#[test]
fn forward_passes_wait_for_their_backward_passes_in_any_order() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let which = Composed::ArcFace(0.3);
    let head = head(&which.loss().with_scale(SCALE), 20, 8, &device);
    let batches: Vec<_> = (0..4).map(|i| floats(10, 8, 40 + i, &device)).collect();
    let (_, y) = labels(10, 20, &device);
    let expected: Vec<_> = batches.iter().map(|x| step(&head, x, &y).1).collect();
    // all forward, then backward from the last
    let started: Vec<_> = batches
        .iter()
        .map(|x| {
            let x = x.clone().detach().require_grad();
            (head.forward(x.clone(), y.clone()), x)
        })
        .collect();
    for ((loss, x), expected) in started.into_iter().zip(&expected).rev() {
        let gradients = loss.backward();
        assert_eq!(host(x.grad(&gradients).unwrap()), *expected);
    }
    // a sum of two
    let [a, b] = [0, 1].map(|i: usize| batches[i].clone().detach().require_grad());
    let sum = head.forward(a.clone(), y.clone()) + head.forward(b.clone(), y.clone()) * 2.0;
    let gradients = sum.backward();
    assert_eq!(host(a.grad(&gradients).unwrap()), expected[0]);
    let doubled: Vec<f32> = expected[1].iter().map(|v| 2.0 * v).collect();
    assert_near("twice", &host(b.grad(&gradients).unwrap()), &doubled, 1e-5);
}

#[derive(Module, Debug)]
struct Mlp {
    first: Linear,
    second: Linear,
    head: MarginHead,
}

impl Mlp {
    fn new(loss: &MarginSoftmax, device: &Device) -> Self {
        Self {
            first: LinearConfig::new(6, 12).init(device),
            second: LinearConfig::new(12, 8).init(device),
            head: head(loss, 10, 8, device),
        }
    }

    fn embed(&self, inputs: Tensor<2>) -> Tensor<2> {
        self.second.forward(relu(self.first.forward(inputs)))
    }
}

#[test]
fn gradients_flow_into_the_layers_below_and_an_optimiser_uses_them() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let which = Composed::ArcFace(0.3);
    let mut mlp = Mlp::new(&which.loss().with_scale(SCALE), &device);
    let (inputs, (_, y)) = (floats(15, 6, 50, &device), labels(15, 10, &device));
    let weights = |mlp: &Mlp, loss: Tensor<1>| {
        let gradients = loss.backward();
        [mlp.first.weight.val(), mlp.second.weight.val(), mlp.head.prototypes.val()]
            .map(|w| host(w.grad(&gradients).expect("a gradient")))
    };
    let found = weights(&mlp, mlp.head.forward(mlp.embed(inputs.clone()), y.clone()));
    let composed = which.mean(mlp.embed(inputs.clone()), mlp.head.prototypes.val(), y.clone(), SCALE);
    let expected = weights(&mlp, composed);
    for ((what, found), expected) in ["first", "second", "prototypes"].iter().zip(&found).zip(&expected) {
        assert_near(what, found, expected, 1e-4);
    }

    let mut optimiser = AdamConfig::new().init();
    let mut losses = vec![];
    for _ in 0..40 {
        let loss = mlp.head.forward(mlp.embed(inputs.clone()), y.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &mlp);
        losses.push(host(loss)[0]);
        mlp = optimiser.step(0.01, mlp, gradients);
    }
    assert!(losses[39] < 0.3 * losses[0], "the loss went from {} to {}", losses[0], losses[39]);
}

/// The loss is that of slices, gradients are there and 0, and what a loss follows stays where it is.
#[test]
fn a_batch_in_which_no_row_counts_changes_nothing() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let (classes, dim) = (6, 4);
    for (base, reduction) in [
        (MarginSoftmax::arcface(), Reduction::Mean),
        (MarginSoftmax::arcface(), Reduction::Sum),
        (MarginSoftmax::arcface(), Reduction::None),
        (MarginSoftmax::adaface(), Reduction::Mean),
        (MarginSoftmax::m_softmax(), Reduction::Mean),
    ] {
        let loss = MarginSoftmax { reduction, ignore_index: Some(-100), ..base };
        for rows in [0, 3] {
            let what = format!("{rows} rows, {loss:?}");
            let mut head = head(&loss, classes, dim, &device);
            let state = host(head.state.value());
            let x = Tensor::<2>::zeros([rows, dim], &device).require_grad();
            let y = Tensor::<1, Int>::full([rows], -100, &device);
            let found = head.forward(x.clone(), y.clone());
            let per_row = reduction == Reduction::None;
            assert_eq!(found.dims(), [if per_row { rows } else { 1 }], "{what}");
            let gradients = found.clone().backward();
            assert_eq!(x.grad(&gradients).expect("the embeddings have a gradient").dims(), [rows, dim], "{what}");
            let dw = head.prototypes.val().grad(&gradients).expect("the prototypes have a gradient");
            assert_eq!((dw.dims(), host(dw)), ([classes, dim], vec![0.0; classes * dim]), "{what}");
            assert_eq!((host(head.state.value_sync()), head.step()), (state, 1), "{what}");
            let evaluated = head.valid().forward(x.clone().inner(), y.clone().inner());
            assert_eq!(evaluated.dims(), found.dims(), "{what}");

            let mut slices = Backend::reference().head(&loss, Shape::new(rows, classes, dim).unwrap()).unwrap();
            let (x_host, labels, w) = (vec![0.0; rows * dim], vec![-100; rows], host(head.prototypes.val()));
            let batch = Batch { embeddings: &x_host, prototypes: &w, labels: &labels, ..Default::default() };
            assert_eq!(slices.evaluate(&batch).unwrap().loss, 0.0, "{what}");
            if per_row {
                continue;
            }
            assert_eq!((host(found), host(evaluated)), (vec![0.0], vec![0.0]), "{what}");
            // a prototype that is not finite is loud with slices too
            let mut w = w;
            w[0] = f32::INFINITY;
            let batch = Batch { embeddings: &x_host, prototypes: &w, labels: &labels, ..Default::default() };
            assert!(slices.evaluate(&batch).unwrap().loss.is_nan(), "{what}");
            head.prototypes = Param::from_tensor(Tensor::from_data(TensorData::new(w, [classes, dim]), &device));
            assert!(host(head.forward(x, y))[0].is_nan(), "{what}");
        }
    }
    let head = head(&MarginSoftmax::arcface(), classes, dim, &device);
    let wrong = head.try_forward(Tensor::zeros([0, dim + 1], &device), Tensor::zeros([0], &device));
    assert!(wrong.is_err_and(|error| error.to_string().contains("`embeddings` has shape [0, 5], expected [0, 4]")));
}

#[test]
fn frozen_prototypes_get_no_gradient_and_the_rest_does() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let which = Composed::CosFace(0.2);
    let head = head(&which.loss().with_scale(SCALE), 9, 4, &device).no_grad();
    let (x, (_, y)) = (floats(7, 4, 60, &device), labels(7, 9, &device));
    let (_, ex, _) = composed(which, &x, &head.prototypes.val(), &y);
    let x = x.require_grad();
    let gradients = head.forward(x.clone(), y).backward();
    assert!(head.prototypes.val().grad(&gradients).is_none());
    assert_near("dX", &host(x.grad(&gradients).unwrap()), &ex, 1e-4);
}

#[test]
fn gradient_checkpointing_changes_nothing() {
    let (device, _turn) = device();
    let run = |device: Device| {
        let head = head(&MarginSoftmax::arcface(), 9, 4, &device);
        let (x, (_, y)) = (floats(7, 4, 60, &device), labels(7, 9, &device));
        step(&head, &x, &y)
    };
    let plain = run(device.clone().autodiff());
    assert_eq!(run(device.autodiff().gradient_checkpointing()), plain);
}

#[test]
fn another_margin_holds_from_the_next_pass_on() {
    let (device, _turn) = device();
    let device = device.autodiff();
    let mut head = head(&MarginSoftmax::arcface().with_scale(SCALE), 9, 4, &device);
    let (x, (_, y)) = (floats(7, 4, 62, &device), labels(7, 9, &device));
    step(&head, &x, &y);
    let kernels = context(&device).unwrap().compiled_kernels();
    for m2 in [0.1, 0.2] {
        let which = Composed::ArcFace(m2);
        head.set_loss(which.loss().with_scale(SCALE)).unwrap();
        let (loss, dx, _) = step(&head, &x, &y);
        let (expected, ex, _) = composed(which, &x, &head.prototypes.val(), &y);
        assert_near("loss", &[loss], &[expected], 1e-4);
        assert_near("dX", &dx, &ex, 1e-4);
    }
    assert_eq!(context(&device).unwrap().compiled_kernels(), kernels, "a margin was compiled in");
    // another family needs other kernels, and another reduction other tensors
    head.set_loss(MarginSoftmax::normface().with_scale(SCALE)).unwrap();
    let expected = host(Composed::NormFace.rows(x.clone(), head.prototypes.val(), y.clone(), SCALE));
    assert_near("loss", &[step(&head, &x, &y).0], &[expected.iter().sum::<f32>() / 7.0], 1e-4);
    let none = MarginSoftmax { reduction: Reduction::None, ..MarginSoftmax::normface().with_scale(SCALE) };
    head.set_loss(none).unwrap();
    assert_near("rows", &host(head.forward(x, y)), &expected, 1e-4);
    assert!(head.set_loss(MarginSoftmax::arcface().with_scale(-1.0)).is_err());
}

#[test]
fn a_module_is_saved_and_loaded() {
    let (device, _turn) = device();
    let config = MarginHeadConfig::new(12, 6, MarginSoftmax::cosface());
    let head = config.init(&device);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("head");
    head.clone().save_file(&path).unwrap();
    let loaded = config.init(&device);
    assert_ne!(host(loaded.prototypes.val()), host(head.prototypes.val()));
    let loaded = loaded.load_file(&path);
    assert_eq!(host(loaded.prototypes.val()), host(head.prototypes.val()));
    let (x, (_, y)) = (floats(5, 6, 70, &device), labels(5, 12, &device));
    assert_eq!(host(loaded.forward(x.clone(), y.clone())), host(head.forward(x, y)));
    // the configuration is a file of its own
    let path = directory.path().join("head.json");
    burn::config::Config::save(&config, &path).unwrap();
    let same: MarginHeadConfig = burn::config::Config::load(&path).unwrap();
    assert_eq!((same.classes, same.loss), (config.classes, config.loss));
    assert!(loaded.to_string().contains("classes: 12, sub_centers: 1, dim: 6, scale: 64"), "{loaded}");
}

#[test]
fn bad_input_is_an_error_that_says_what_to_do() {
    let (device, _turn) = device();
    let head = head(&MarginSoftmax::arcface(), 9, 4, &device);
    let (x, (_, y)) = (floats(7, 4, 80, &device), labels(7, 9, &device));
    let told = |result: Result<Tensor<1>, Error>| result.map(host).expect_err("an error").to_string();

    let message = told(head.try_forward(floats(7, 5, 1, &device), y.clone()));
    assert!(message.contains("`embeddings` has shape [7, 5], expected [7, 4]"), "{message}");
    let message = told(head.try_forward(x.clone(), y.clone().slice(s![0..3])));
    assert!(message.contains("`labels` has 3 values, expected 7"), "{message}");
    let message = told(head.try_forward(x.clone().cast(FloatDType::F16), y.clone()));
    assert!(message.contains("`embeddings` holds f16, expected f32"), "{message}");

    let cpu = Device::flex();
    let message = told(head.try_forward(floats(7, 4, 1, &cpu), labels(7, 9, &cpu).1));
    assert!(message.contains("Flex") && message.contains("from_setup"), "{message}");
    let message = told(head.try_forward(x.clone(), labels(7, 9, &cpu).1));
    assert!(message.contains("`labels` is on Device<Flex") && message.contains("one device"), "{message}");

    // burn's own device on the same adapter, whose handles were not named
    let unknown = setup(&margin_softmax_burn::descriptor(&adapter().1));
    let setup = unknown.clone();
    let unknown = Device::wgpu_options().setup(unknown).init().unwrap();
    let foreign = common::head(&MarginSoftmax::arcface(), 9, 4, &unknown);
    let (fx, fy) = (floats(7, 4, 80, &unknown), labels(7, 9, &unknown).1);
    let message = told(foreign.try_forward(fx.clone(), fy.clone()));
    assert!(message.contains("`share`"), "{message}");
    let message = told(head.try_forward(fx.clone(), y.clone()));
    assert!(message.contains("`prototypes` is on"), "{message}");
    margin_softmax_burn::share(&unknown, &setup).unwrap();
    assert!(host(foreign.forward(fx, fy))[0].is_finite());

    // labels that name no class are the head's to judge
    let wrong = Tensor::<1, Int>::from_data([0, 1, 2, 3, 4, 5, 99], &device);
    assert!(host(head.forward(x.clone(), wrong))[0].is_nan());
    // labels of another width are converted
    let wide = y.clone().cast(burn::tensor::IntDType::U32);
    assert_eq!(wide.dtype(), DType::U32);
    assert_eq!(host(head.forward(x.clone(), wide)), host(head.forward(x, y)));

    for (config, message) in [
        (MarginHeadConfig::new(0, 4, MarginSoftmax::arcface()), "`classes` is 0"),
        (MarginHeadConfig::new(9, 4, MarginSoftmax::arcface().with_scale(f64::NAN)), "scale"),
        (MarginHeadConfig::new(9, 4, MarginSoftmax::arcface()).with_sub_centers(0), "`sub_centers` is 0"),
    ] {
        let error = config.try_init(&device).expect_err("an error").to_string();
        assert!(error.contains(message), "{error}");
    }
    // a budget that holds nothing
    let tight = MarginHeadConfig::new(9, 4, MarginSoftmax::arcface()).with_budget(16).init(&device);
    let (x, (_, y)) = (floats(7, 4, 80, &device), labels(7, 9, &device));
    let message = told(tight.try_forward(x, y));
    assert!(message.contains("budget"), "{message}");
}

#[test]
fn a_device_with_less_than_burn_takes_is_refused() {
    let (_device, _turn) = device();
    let error = from_setup(setup(&wgpu::DeviceDescriptor::default())).expect_err("an error");
    assert!(matches!(error, Error::Setup { .. }), "{error}");
    assert!(error.to_string().contains("`descriptor`"), "{error}");
}

#[test]
fn burn_opens_a_device_once_and_the_head_learns_of_it() {
    let (_device, _turn) = device();
    let opened = margin_softmax_burn::init(Device::wgpu_options()).expect("burn opens its default device");
    assert_eq!(opened, Device::default());
    let context = context(&opened.clone().autodiff()).unwrap();
    assert_eq!(context.allocated_bytes(), 0);
    let error = margin_softmax_burn::init(Device::wgpu_options()).expect_err("an error");
    assert!(matches!(error, Error::Init(_)), "{error}");
}

#[test]
fn forward_panics_with_the_error() {
    let (device, _turn) = device();
    let head = head(&MarginSoftmax::arcface(), 9, 4, &device);
    let call = || head.forward(floats(7, 5, 1, &device), labels(7, 9, &device).1);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).expect_err("a panic");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.starts_with("MarginHead::forward: `embeddings` has shape"), "{message}");
    // nothing is left locked or leased
    let (x, (_, y)) = (floats(7, 4, 1, &device), labels(7, 9, &device));
    assert!(host(head.forward(x, y))[0].is_finite());
}

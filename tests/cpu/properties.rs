//! What changes no bit, and what gradients have in common.

use margin_softmax::{
    Backend, Batch, Budget, Error, MarginSoftmax, Options, Others, Output, Shape, State, Want, objective::TopK,
};

use crate::{
    common::{Data, WANT, assert_agrees, distance, family_data, length, schedules},
    families::{Family, Suite, with_centers},
};

/// Only what was asked for, with the same bits as everything.
#[test]
fn wishes_change_nothing_else() {
    for others in &[Others::Identity, Others::Rectified] {
        let loss = MarginSoftmax::arcface().with_others(others.clone()).with_label_smoothing(0.05);
        let data = Data::random(20, 700, 24, 11);
        let most = data.cpu(&loss, &Options::default());
        for want in [Want::LOSS, Want::EMBEDDINGS, Want::PROTOTYPES] {
            let out = data.cpu(&loss, &Options { want, ..Options::default() });
            assert_agrees(&format!("{want:?}"), &loss, &out, &data.reference(&loss, want), true);
            assert_eq!((out.loss, &out.row_losses), (most.loss, &most.row_losses));
            for (wanted, found, all) in [
                (want.grad_embeddings, &out.grad_embeddings, &most.grad_embeddings),
                (want.grad_prototypes, &out.grad_prototypes, &most.grad_prototypes),
            ] {
                assert_eq!(&found[..], if wanted { &all[..] } else { &[] });
            }
        }
    }
}

/// A batch smaller than the head was made for, after a larger one, and another loss: nothing of before shines through.
#[test]
fn a_head_is_used_again() {
    let large = Data::random(600, 300, 20, 13);
    let mut small = Data::random(5, 300, 20, 14).weighted();
    small.labels[1] = -7;
    let second = MarginSoftmax::cheby_aam().with_others(Others::Rectified).with_ignore_index(-7);
    for (schedule, options) in schedules(&large, Want::ALL) {
        let first = MarginSoftmax::arcface();
        let mut head = Backend::cpu().head_with(&first, large.shape(), &options).unwrap();
        let mut out = Output { loss: f32::NAN, grad_prototypes: vec![f32::NAN; 10_000], ..Output::default() };
        head.evaluate_into(&large.batch(), &mut out).unwrap();
        assert_agrees(schedule, &first, &out, &large.reference(&first, Want::ALL), true);
        out.grad_prototypes.fill(f32::INFINITY);
        let held = out.grad_prototypes.as_ptr();
        head.update(&second).unwrap();
        head.evaluate_into(&small.batch(), &mut out).unwrap();
        assert_agrees(schedule, &second, &out, &small.reference(&second, Want::ALL), true);
        assert_eq!(held, out.grad_prototypes.as_ptr(), "the output's memory is used again");
    }
}

/// Each gradient row is orthogonal to its own vector, and permuting the classes permutes dW.
#[test]
fn gradients_have_their_symmetries() {
    let data = Data::random(12, 500, 32, 21);
    let loss = MarginSoftmax::arcface();
    let out = data.cpu(&loss, &Options::default());
    for (vectors, grads) in [(&data.x, &out.grad_embeddings), (&data.w, &out.grad_prototypes)] {
        for (v, g) in vectors.chunks(32).zip(grads.chunks(32)) {
            let dot: f64 = v.iter().zip(g).map(|(v, g)| f64::from(*v) * f64::from(*g)).sum();
            assert!(dot.abs() <= 1e-6 * length(v) * length(g) + 1e-12, "{dot:e}");
        }
    }
    let mut turned = data.clone();
    turned.w.rotate_left(123 * 32);
    turned.labels.iter_mut().for_each(|l| *l = (*l + 500 - 123) % 500);
    let mut other = turned.cpu(&loss, &Options::default()).grad_prototypes;
    other.rotate_right(123 * 32);
    assert!(distance(&other, &out.grad_prototypes.iter().map(|&g| g.into()).collect::<Vec<_>>()) < 1e-5);
}

/// A new loss may be of any family: the same head goes on, and an output that held another family's gradients.
#[test]
fn a_head_changes_its_family() {
    let data = family_data(&MarginSoftmax::normface(), 1, 100);
    let loss = MarginSoftmax::normface();
    // what inter-topk needs is enough for every family
    let most = MarginSoftmax::named("arcface_topk").unwrap();
    for options in [Options { want: WANT, ..Options::default() }, data.least(&most, WANT)] {
        let mut head = data.head(&loss, &options, &State::new(&loss, data.shape()).unwrap());
        let mut out = Output::default();
        for (Family { loss, .. }, _) in with_centers(Suite::Cpu) {
            let data = data.fit(&loss);
            head.update(&loss).unwrap();
            head.set_state(&State::new(&loss, data.shape()).unwrap()).unwrap();
            head.evaluate_into(&data.batch(), &mut out).unwrap();
            assert_agrees(&format!("{loss:?}"), &loss, &out, &data.reference(&loss, WANT), true);
        }
        let more = MarginSoftmax::arcface().with_others(Others::TopK(TopK { count: 64, margin: 0.1 }));
        match head.update(&more) {
            Ok(()) => assert_eq!(*head.loss(), more),
            Err(error) => {
                assert!(matches!(error, Error::Budget { .. }), "{error}");
                assert_ne!(*head.loss(), more);
            }
        }
        assert!(head.evaluate(&data.batch()).unwrap().loss.is_finite());
    }
}

/// f16 and bf16 are their values: the bits of the same values in f32, on every path over slices.
#[test]
fn half_types_are_their_values() {
    use half::{bf16, f16};

    let data = Data::random(6, 20, 12, 130);
    let (x, w): (Vec<f16>, Vec<bf16>) =
        (data.x.iter().map(|&v| f16::from_f32(v)).collect(), data.w.iter().map(|&v| bf16::from_f32(v)).collect());
    let (wide_x, wide_w): (Vec<f32>, Vec<f32>) =
        (x.iter().map(|v| v.to_f32()).collect(), w.iter().map(|v| v.to_f32()).collect());
    assert!(wide_x != data.x && wide_w != data.w);
    let loss = MarginSoftmax::curricularface().with_scale(16.0);
    for backend in [Backend::cpu(), Backend::reference()] {
        let mut head = backend.head(&loss, data.shape()).unwrap();
        let batch = Batch { embeddings: &wide_x, prototypes: &wide_w, ..data.batch() };
        let rest = Batch { embeddings: &[], prototypes: &[], ..data.batch() };
        assert_eq!(head.evaluate_stored(&x, &w, &rest).unwrap(), head.evaluate(&batch).unwrap());
        assert_eq!(head.evaluate_stored(&x, &wide_w, &rest).unwrap(), head.evaluate(&batch).unwrap());
        let mut other = backend.head(&loss, data.shape()).unwrap();
        assert_eq!(head.train_stored(&x, &w, &rest).unwrap(), other.train(&batch).unwrap());
        assert_eq!(head.state(), other.state());
        let error = head.evaluate_stored(&x[1..], &w, &rest).unwrap_err();
        assert!(matches!(error, Error::Length { what: "embeddings", .. }), "{error}");
        let error = head.evaluate_stored(&x, &w[1..], &rest).unwrap_err();
        assert!(matches!(error, Error::Length { what: "prototypes", .. }), "{error}");
    }
}

/// The same where prototypes are widened tile by tile: in every schedule, with everything that reads a tile.
#[test]
fn half_types_are_their_values_in_every_schedule() {
    use half::f16;
    use margin_softmax::data::GradientFilter;

    let mut data = Data::random(150, 700, 30, 131);
    data.centers = 2;
    let round = |v: &[f32]| v.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>();
    let wide = |v: &[f16]| v.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
    let (x, mut w) = (round(&data.x), round(&data.w));
    // one of them is left out, and a tile has lengths that are normalised first
    w[40] = f16::from_f32(0.0);
    w[30 * 500..30 * 501].fill(f16::from_bits(1));
    let (wide_x, wide_w) = (wide(&x), wide(&w));
    let filter = GradientFilter::new(1e-4).ok();
    for (loss, centers, filter) in [
        (MarginSoftmax::arcface(), 1, None),
        (MarginSoftmax::arcface().with_scale(40.0), 1, filter),
        (MarginSoftmax::named("arcface_topk").unwrap(), 1, None),
        (MarginSoftmax::arcface().with_label_smoothing(0.1), 2, None),
        (MarginSoftmax::sphereface2(), 1, None),
    ] {
        let shape = Shape::new(150, 700 / centers, 30).unwrap().with_sub_centers(centers).unwrap();
        let labels: Vec<i64> = data.labels.iter().map(|label| label / centers as i64).collect();
        for budget in [Budget::default(), Budget::bytes(400_000)] {
            let options = Options { budget, filter, predictions: (centers == 1).then_some(5), ..Options::default() };
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut head = Backend::cpu().head_with(&loss, shape, &options).unwrap();
                let rest = Batch { labels: &labels, ..Batch::default() };
                let batch = Batch { embeddings: &wide_x, prototypes: &wide_w, ..rest };
                pool.install(|| {
                    let expected = head.evaluate(&batch).unwrap();
                    assert_eq!(head.evaluate_stored(&x, &w, &rest).unwrap(), expected, "{loss:?}, {budget:?}");
                });
            }
        }
    }
}

//! The gradients of the margins against the reference: every way to sum them, whole heads and shards.

use margin_softmax::{
    Backend, Batch, MarginGradients, MarginSoftmax, Options, Output, Reduction, State, Want,
    shard::{Statistics, Targets},
};

use crate::{
    common::{Data, family_data, gate, schedules_of},
    families::{self, Suite},
};

/// Each margin by itself: within the gate of the largest of its gradients, and of the rows' parts where they are added.
fn assert_margins_agree(name: &str, loss: &MarginSoftmax, found: &Output, expected: &[f64], rows: &[f64]) {
    assert_eq!(found.grad_margins.len(), expected.len(), "{name}");
    for k in 0..4 {
        let of = |values: &[f64]| values.iter().skip(k).step_by(4).map(|g| g.abs()).collect::<Vec<_>>();
        let size = of(rows).iter().sum::<f64>();
        // m1 and m2 turn faster than the curve where it is flat
        let allowed = (gate(loss, &Output::default()) + 1e-5) * size;
        for (place, (f, e)) in found.grad_margins.iter().zip(expected).enumerate().filter(|(i, _)| i % 4 == k) {
            let off = (f64::from(*f) - e).abs();
            assert!(off <= allowed, "{name}: dm{k}[{}] is {f:e}, not {e:e} within {allowed:e}", place / 4);
        }
    }
}

fn losses() -> Vec<(String, MarginSoftmax)> {
    let all = families::presets_and(Suite::Grid);
    let reductions = [Reduction::Mean, Reduction::Sum, Reduction::None];
    let with = |(i, (name, loss)): (usize, (String, MarginSoftmax))| {
        let smoothing = if loss.focal > 0.0 || families::link(&loss.link).per_class { 0.0 } else { [0.0, 0.1][i % 2] };
        (name, loss.with_reduction(reductions[i % 3]).with_label_smoothing(smoothing).with_ignore_index(-1))
    };
    all.into_iter().filter(|(_, loss)| families::learns_margins(loss)).enumerate().map(with).collect()
}

fn data_for(loss: &MarginSoftmax, i: usize) -> Data {
    let mut data = family_data(loss, 1, 300 + i as u64).weighted();
    data.labels[5] = -1;
    // several rows of a class
    data.labels[7] = data.labels[6];
    if i.is_multiple_of(2) {
        let count = if loss.reduction == Reduction::None { 24 } else { 1 };
        data.upstream = Some((0..count).map(|i| [0.7, -1.3, 0.2][i % 3]).collect());
    }
    if i.is_multiple_of(3) {
        data.class_margins[3] = Some((0..260).map(|j| j as f32 * 1e-3 - 0.1).collect());
        data.row_margins[0] = Some((0..24).map(|i| 0.8 + 0.01 * i as f32).collect());
    }
    data
}

#[test]
fn margin_gradients_agree_with_the_reference() {
    for (i, (name, loss)) in losses().into_iter().enumerate() {
        let data = data_for(&loss, i);
        let rows = data.reference(&loss, Want::LOSS.with_margins(MarginGradients::Rows)).grad_margins;
        for &margins in MarginGradients::ALL {
            let want = Want::ALL.with_margins(margins);
            let expected = data.reference(&loss, want).grad_margins;
            for (schedule, options) in schedules_of(&loss, &data, want) {
                let found = data.cpu(&loss, &options);
                let name = format!("{name} {margins:?} {schedule}");
                assert_margins_agree(&name, &loss, &found, &expected, &rows);
                if schedule == "keep" {
                    // alone, and beside everything else
                    let alone = Options { want: Want::LOSS.with_margins(margins), ..options };
                    assert_margins_agree(&name, &loss, &data.cpu(&loss, &alone), &expected, &rows);
                }
            }
        }
    }
}

/// The shard from class 0 reports them, whatever classes the labels have; zeros add nothing.
#[test]
fn margin_gradients_of_shards_are_those_of_the_whole() {
    for (i, (name, loss)) in losses().into_iter().enumerate().step_by(3) {
        let data = data_for(&loss, i);
        for &margins in MarginGradients::ALL {
            let options = Options { want: Want::ALL.with_margins(margins), ..Options::default() };
            let whole = data.cpu(&loss, &options);
            for backend in [Backend::cpu(), Backend::Reference] {
                let mut heads: Vec<_> = [0..100, 100..260]
                    .into_iter()
                    .map(|range| {
                        let mut head = backend.shard(&loss, data.shape(), range.clone(), &options).unwrap();
                        head.set_state(&State::new(&loss, data.shape()).unwrap()).unwrap();
                        let prototypes = &data.w[range.start * 20..range.end * 20];
                        let bias = data.bias.as_deref().map(|b| &b[range]);
                        (head, Batch { prototypes, bias, ..data.batch() })
                    })
                    .collect();
                let targets: Vec<_> = heads.iter_mut().map(|(head, batch)| head.targets(batch).unwrap()).collect();
                let targets = Targets::merged(&targets, 260).unwrap();
                let sums = heads.iter_mut().map(|(head, batch)| head.statistics(batch, &targets).unwrap());
                let sums = Statistics::merged(&sums.collect::<Vec<_>>(), 260).unwrap();
                let outs: Vec<_> =
                    heads.iter_mut().map(|(h, batch)| h.gradients(batch, &targets, &sums).unwrap()).collect();
                assert!(outs[1].grad_margins.iter().all(|g| *g == 0.0));
                assert_eq!(outs[0].grad_margins.len(), outs[1].grad_margins.len());
                let size = whole.grad_margins.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
                for (f, e) in outs[0].grad_margins.iter().zip(&whole.grad_margins) {
                    assert!((f - e).abs() <= 1e-5 * size, "{name} {margins:?}: {f} is not {e}");
                }
            }
        }
    }
}

/// Sampled: the gradients by class are in the order of the sample.
#[test]
fn margin_gradients_of_a_sample_are_those_of_its_classes() {
    let loss = MarginSoftmax::arcface().with_scale(16.0);
    let data = data_for(&loss, 3);
    let options = Options { want: Want::ALL.with_margins(MarginGradients::Classes), ..Options::default() };
    let sampler = margin_softmax::partial::PartialFc::new(0.5, 4).unwrap();
    let mut head = margin_softmax::partial::SampledHead::new(
        &Backend::cpu(),
        &loss.with_ignore_index(-1),
        data.shape(),
        &options,
        sampler,
    )
    .unwrap();
    let out = head.train(&data.batch()).unwrap();
    assert_eq!(out.output.grad_margins.len(), 4 * out.classes.len());
    let mut with_rows = 0;
    for (class, gradient) in out.classes.iter().zip(out.output.grad_margins.chunks_exact(4)) {
        let own = data.labels.contains(&(*class as i64)) && data.weights.as_ref().unwrap()[*class] > 0.0;
        assert_eq!(gradient.iter().any(|g| *g != 0.0), own, "class {class}: {gradient:?}");
        with_rows += usize::from(own);
    }
    assert!(with_rows > 5);
}

/// A head that is used again starts anew, also with fewer rows; a batch with nothing that counts has zeros.
#[test]
fn a_second_batch_starts_anew() {
    let loss = MarginSoftmax::arcface().with_ignore_index(-1);
    let data = data_for(&loss, 1);
    for &margins in MarginGradients::ALL {
        let options = Options { want: Want::LOSS.with_margins(margins), ..Options::default() };
        let mut head = Backend::cpu().head_with(&loss, data.shape(), &options).unwrap();
        let first = head.evaluate(&data.batch()).unwrap();
        let few = Batch { embeddings: &data.x[..40], labels: &[-1_i64, -1][..], ..data.batch() };
        let out = head.evaluate(&few).unwrap();
        let count = if margins == MarginGradients::Rows { 8 } else { first.grad_margins.len() };
        assert_eq!(out.grad_margins, vec![0.0; count]);
        assert_eq!(head.evaluate(&data.batch()).unwrap(), first);
    }
}

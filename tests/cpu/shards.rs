//! One head in several pieces.

use margin_softmax::{
    Backend, Batch, Error, MarginSoftmax, Options, Others, Output, Similarity, SliceHead, State,
    objective::TopK,
    shard::{Statistics, Targets},
};

use crate::{
    common::{Data, WANT, assert_agrees, family_data, schedules_of},
    families::{self, Family, Suite, with_centers},
};

/// One head as several shards: everything added up again.
fn sharded(
    data: &Data,
    loss: &MarginSoftmax,
    state: &mut State,
    train: bool,
    cuts: &[usize],
    options: &Options,
) -> Output {
    let [rows, classes, dim] = data.shape;
    let wide = dim * data.centers.max(1);
    let ends: Vec<usize> = [0].iter().chain(cuts).chain(&[classes]).copied().collect();
    let mut heads: Vec<(SliceHead, Batch<'_>)> = ends
        .windows(2)
        .map(|w| {
            let mut head = Backend::cpu().shard(loss, data.shape(), w[0]..w[1], options).unwrap();
            head.set_state(state).unwrap();
            let batch = Batch {
                prototypes: &data.w[w[0] * wide..w[1] * wide],
                bias: data.bias.as_deref().map(|b| &b[w[0]..w[1]]),
                ..data.batch()
            };
            (head, batch)
        })
        .collect();
    let parts: Vec<Targets> = heads.iter_mut().map(|(head, batch)| head.targets(batch).unwrap()).collect();
    let targets = Targets::merged(&parts, classes).unwrap();
    if train {
        heads.iter_mut().for_each(|(head, batch)| head.follow(batch, &targets).unwrap());
    }
    // the last first: the order of the parts does not matter
    let parts = heads.iter_mut().rev().map(|(head, batch)| head.statistics(batch, &targets).unwrap());
    let statistics = Statistics::merged(&parts.collect::<Vec<_>>(), classes).unwrap();
    let outs: Vec<Output> =
        heads.iter_mut().map(|(head, batch)| head.gradients(batch, &targets, &statistics).unwrap()).collect();
    *state = *heads[0].0.state();
    let mut all = outs[0].clone();
    for (out, (head, _)) in outs.iter().zip(&heads).skip(1) {
        assert_eq!((out.loss.to_bits(), &out.row_losses), (all.loss.to_bits(), &all.row_losses));
        assert_eq!((&out.counts, head.state()), (&all.counts, &*state));
        assert_eq!(out.grad_embeddings.len(), rows * dim);
        all.grad_embeddings.iter_mut().zip(&out.grad_embeddings).for_each(|(a, b)| *a += b);
        all.grad_prototypes.extend(&out.grad_prototypes);
        all.grad_scale += out.grad_scale;
        match loss.similarity {
            Similarity::Dot => all.grad_bias.extend(&out.grad_bias),
            Similarity::Cosine => all.grad_bias.iter_mut().zip(&out.grad_bias).for_each(|(a, b)| *a += b),
        }
    }
    all
}

/// Any split of the classes gives what the whole gives: uneven, without a positive, one class each; while training too.
#[test]
fn shards_agree_with_the_whole() {
    for (Family { loss, .. }, centers) in with_centers(Suite::Cpu) {
        let loss = loss.with_ignore_index(-1);
        let mut data = family_data(&loss, centers, 110).weighted();
        data.labels[6] = -1;
        // 40 classes in the middle without a positive
        data.labels.iter_mut().filter(|l| (100..140).contains(*l)).for_each(|l| *l -= 100);
        let mut first = State::new(&loss, data.shape()).unwrap().with_seed(5);
        (first.hardness, first.norm_mean, first.norm_deviation) = (0.1, 9.0, 4.0);
        for train in [false, true] {
            let mut expected_state = first;
            let expected = data.reference_at(&loss, WANT, &mut expected_state, train);
            for cuts in [&[][..], &[1], &[100, 140], &[7, 8, 200, 259]] {
                for (schedule, options) in schedules_of(&loss, &data, WANT) {
                    let mut state = first;
                    let out = sharded(&data, &loss, &mut state, train, cuts, &options);
                    let name = format!("{loss:?} K {centers} {cuts:?} train {train} {schedule}");
                    assert_agrees(&name, &loss, &out, &expected, true);
                    assert!((state.scale - expected_state.scale).abs() <= 3e-6 * expected_state.scale, "{name}");
                    assert!((state.hardness - expected_state.hardness).abs() <= 1e-9, "{name}");
                    assert_eq!(state.step, expected_state.step);
                }
            }
        }
    }
    // every class a shard of its own
    for (Family { loss, .. }, centers) in with_centers(Suite::Cpu) {
        let top = match loss.others {
            Others::TopK(top) => loss.clone().with_others(Others::TopK(TopK { count: 2, ..top })),
            _ => loss.clone(),
        };
        let mut data = Data::random(5, 7, 20, 120).fit(&loss);
        if centers > 1 {
            data = data.with_centers(centers, 121);
        }
        let (mut state, mut expected_state) =
            (State::new(&top, data.shape()).unwrap(), State::new(&top, data.shape()).unwrap());
        let expected = data.reference_at(&top, WANT, &mut expected_state, true);
        let options = Options { want: WANT, ..Options::default() };
        let out = sharded(&data, &top, &mut state, true, &[1, 2, 3, 4, 5, 6], &options);
        assert_agrees(&format!("{top:?} one class each"), &top, &out, &expected, true);
    }
}

/// What a shard exchanges is what the reference exchanges; and pieces that do not fit are refused.
#[test]
fn a_shard_exchanges_what_the_reference_exchanges() {
    for (Family { loss, .. }, centers) in with_centers(Suite::Cpu) {
        let data = family_data(&loss, centers, 130);
        let (range, wide) = (50..130, 20 * centers);
        let batch = Batch {
            prototypes: &data.w[range.start * wide..range.end * wide],
            bias: data.bias.as_deref().map(|b| &b[range.clone()]),
            ..data.batch()
        };
        let options = Options { want: WANT, ..Options::default() };
        let shard = |backend: Backend| backend.shard(&loss, data.shape(), range.clone(), &options).unwrap();
        let (mut ours, mut theirs) = (shard(Backend::cpu()), shard(Backend::reference()));
        let close = |a: f64, b: f64, size: f64| (a - b).abs() <= 1e-4 * size.max(b.abs()) || a == b;
        let (found, expected) = (ours.targets(&batch).unwrap(), theirs.targets(&batch).unwrap());
        assert_eq!((&found.range, found.zero_prototypes), (&expected.range, expected.zero_prototypes));
        for (a, b) in found.cosines.iter().zip(&expected.cosines) {
            assert!(a.is_some() == b.is_some() && close(a.unwrap_or(0.0), b.unwrap_or(0.0), 1e-8), "{a:?} {b:?}");
        }
        assert_eq!(found.cosines.len(), expected.cosines.len());
        assert_eq!((found.top.len(), found.sums.len()), (expected.top.len(), expected.sums.len()));
        for (a, b) in found.top.iter().flatten().zip(expected.top.iter().flatten()) {
            assert!(a.1 == b.1 && close(a.0, b.0, 1e-2), "{a:?} {b:?}");
        }
        for (a, b) in found.sums.iter().zip(&expected.sums) {
            assert!(close(a[0] + a[1].ln(), b[0] + b[1].ln(), 1.0), "{a:?} {b:?}");
        }
        if families::others(&loss.others).chosen.is_some() {
            continue; // a bound in f64 chooses others than one in f32
        }
        // given the whole of the targets, the sums
        let mut whole = Backend::reference().head(&loss, data.shape()).unwrap();
        let targets = whole.targets(&data.batch()).unwrap();
        let found = ours.statistics(&batch, &targets).unwrap();
        let expected = theirs.statistics(&batch, &targets).unwrap();
        assert_eq!(found.range, expected.range);
        for (a, b) in found.rows.iter().zip(&expected.rows) {
            assert!(close(a.max_logit, b.max_logit, 1.0) && close(a.nearest, b.nearest, 1.0), "{a:?} {b:?}");
            let factor = (a.max_logit - b.max_logit).exp();
            assert!(
                close(a.sum * factor, b.sum, 0.0) && close(a.value_sum * factor, b.value_sum, b.sum),
                "{loss:?} {a:?} {b:?}"
            );
            assert!(close(a.weighted, b.weighted, 1.0), "{loss:?} {a:?} {b:?}");
        }

        assert!(matches!(ours.evaluate(&batch), Err(Error::Combination { what: "shard", .. })));
        let error = ours.statistics(&batch, &Targets { range: range.clone(), ..targets.clone() }).unwrap_err();
        assert!(matches!(error, Error::Shards { .. }), "{error}");
        let error = ours.gradients(&batch, &targets, &found).unwrap_err();
        assert!(matches!(error, Error::Shards { .. }), "{error}");
        let mut fewer = targets.clone();
        fewer.cosines.pop();
        let error = ours.statistics(&batch, &fewer).unwrap_err();
        assert!(matches!(error, Error::Length { what: "targets.cosines", .. }), "{error}");
        let error = ours.targets(&data.batch()).unwrap_err();
        assert!(matches!(error, Error::Length { what: "prototypes", .. }), "{error}");
    }
}

/// What only label smoothing asks for, the sum of all logits, may leave f32 without it.
#[test]
fn a_linear_head_in_shards_takes_what_the_whole_takes() {
    let loss = MarginSoftmax::softmax();
    // a power of two, whose products are exact
    let large = 2.0_f32.powi(60);
    let w: Vec<f32> = (0..1000).map(|j| if j < 2 { large } else { -large }).collect();
    let data = Data { shape: [1, 1000, 1], x: vec![large], w, labels: vec![0], ..Data::random(1, 1, 1, 0) };
    let options = Options { want: WANT, ..Options::default() };
    let whole = data.cpu(&loss, &options);
    let mut state = State::new(&loss, data.shape()).unwrap();
    let parts = sharded(&data, &loss, &mut state, false, &[400], &options);
    assert!((whole.loss - 2.0_f32.ln()).abs() < 1e-6, "{}", whole.loss);
    assert_eq!((parts.loss, parts.counts), (whole.loss, whole.counts));
}

/// Cosines that one call leaves to the next are used for the same inputs alone: whatever changes in between, gradients have the
/// bits of a head that has kept none.
#[test]
fn kept_cosines_are_those_of_the_inputs() {
    for (Family { loss, .. }, centers) in with_centers(Suite::Cpu) {
        let mut data = Data::random(40, 90, 12, 140).fit(&loss);
        if centers > 1 {
            data = data.with_centers(centers, 141);
        }
        let options = Options { want: WANT, ..Options::default() };
        let make = || Backend::cpu().head_with(&loss, data.shape(), &options).unwrap();
        let mut head = make();
        assert_eq!(head.schedule(), "keep");
        // the calls of a step, each on a head of its own: nothing is kept
        let apart = |data: &Data| {
            let targets = make().targets(&data.batch()).unwrap();
            let statistics = make().statistics(&data.batch(), &targets).unwrap();
            let out = make().gradients(&data.batch(), &targets, &statistics).unwrap();
            (targets, statistics, out)
        };
        let (targets, statistics, expected) = apart(&data);
        let step = |head: &mut SliceHead| {
            assert_eq!(head.targets(&data.batch()).unwrap(), targets);
            assert_eq!(head.statistics(&data.batch(), &targets).unwrap(), statistics);
        };
        let name = format!("{loss:?} K {centers}");
        step(&mut head);
        // the second time G has taken the place of the cosines
        for _ in 0..2 {
            assert_eq!(head.gradients(&data.batch(), &targets, &statistics).unwrap(), expected, "{name}");
        }
        for change in [
            |data: &mut Data| data.w[700] = f32::from_bits(data.w[700].to_bits() ^ 1),
            |data: &mut Data| data.x[479] *= 1.5,
            |data: &mut Data| data.x.swap(0, 12),
            |data: &mut Data| data.labels[7] = (data.labels[7] + 1) % 90,
            |data: &mut Data| data.bias.iter_mut().for_each(|bias| bias[3] += 1.0),
        ] {
            let mut other = data.clone();
            change(&mut other);
            let (new_targets, new_statistics, expected) = apart(&other);
            step(&mut head);
            let out = head.gradients(&other.batch(), &new_targets, &new_statistics).unwrap();
            assert_eq!(out, expected, "{name}");
            assert_eq!(head.targets(&data.batch()).unwrap(), targets);
            assert_eq!(head.statistics(&other.batch(), &new_targets).unwrap(), new_statistics, "{name}");
        }
        // a call of another kind, and another loss, overwrite them or refer to others
        step(&mut head);
        head.evaluate(&data.batch()).unwrap();
        assert_eq!(head.gradients(&data.batch(), &targets, &statistics).unwrap(), expected, "{name}");
        step(&mut head);
        head.update(&loss).unwrap();
        assert_eq!(head.gradients(&data.batch(), &targets, &statistics).unwrap(), expected, "{name}");
    }
}

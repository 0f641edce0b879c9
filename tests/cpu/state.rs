//! What follows the batch.

use margin_softmax::{Backend, Batch, State};

use crate::{
    common::{WANT, assert_agrees, family_data, schedules_of},
    common_state,
    families::{Family, Suite, with_centers},
};

#[test]
fn every_number_of_a_state_reaches_both_of_its_ends() {
    common_state::the_scale_reaches_both_of_its_ends(&Backend::Cpu);
    common_state::the_hardness_reaches_both_of_its_ends(&Backend::Cpu);
    common_state::the_lengths_reach_both_of_their_ends(&Backend::Cpu);
}

#[test]
fn what_a_step_does_not_move_keeps_its_digits() {
    for backend in [Backend::Cpu, Backend::Reference] {
        common_state::what_does_not_move_keeps_its_digits(&backend);
    }
}

/// Several training steps from a state that is not the first one: state and outputs follow the reference; an evaluation in
/// between moves nothing.
#[test]
fn training_follows_the_batch() {
    for (Family { loss, .. }, centers) in with_centers(Suite::Cpu) {
        let first = family_data(&loss, centers, 50);
        let mut state = State::new(&loss, first.shape()).unwrap().with_seed(77);
        (state.step, state.hardness, state.norm_mean, state.norm_deviation) = (41, 0.2, 9.0, 4.0);
        state.scale *= 1.3;
        for (schedule, options) in schedules_of(&loss, &first, WANT) {
            let mut head = first.head(&loss, &options, &state);
            let mut expected_state = state;
            for step in 0..3 {
                let mut data = family_data(&loss, centers, 50 + step);
                data.labels[2] = -1;
                let loss = loss.clone().with_ignore_index(-1);
                head.update(&loss).unwrap();
                let expected = data.reference_at(&loss, WANT, &mut expected_state, true);
                let out = head.train(&data.batch()).unwrap();
                let name = format!("{loss:?} K {centers} step {step} {schedule}");
                assert_agrees(&name, &loss, &out, &expected, true);
                let (found, expected) = (*head.state(), expected_state);
                assert_eq!((found.step, found.seed), (42 + step, 77));
                for (found, expected) in [
                    (found.hardness, expected.hardness),
                    (found.norm_mean, expected.norm_mean),
                    (found.norm_deviation, expected.norm_deviation),
                    (found.scale, expected.scale),
                ] {
                    assert!((found - expected).abs() <= 3e-6 * expected.abs(), "{name}: {found}, not {expected}");
                }
                head.evaluate(&data.batch()).unwrap();
                assert_eq!(found, *head.state(), "{name}: an evaluation moved the state");
            }
        }
    }
}

/// A prototype that is not finite, or a refused batch, leaves what follows the batch where it was.
#[test]
fn a_broken_batch_moves_no_state() {
    for (Family { loss, .. }, centers) in with_centers(Suite::Cpu) {
        let mut data = family_data(&loss, centers, 60);
        let last = data.w.len() - 1;
        let before = State::new(&loss, data.shape()).unwrap();
        for (_, options) in schedules_of(&loss, &data, WANT) {
            let mut head = data.head(&loss, &options, &before);
            assert!(head.train(&Batch { labels: &[0], ..data.batch() }).is_err());
            assert_eq!(*head.state(), before);
            let good = data.w[last];
            data.w[last] = f32::NAN;
            let out = head.train(&data.batch()).unwrap();
            assert_eq!(*head.state(), State { step: 1, ..before });
            assert!(out.loss.is_nan() && out.row_losses.iter().all(|l| l.is_nan()));
            assert!(out.grad_embeddings.iter().chain(&out.grad_prototypes).chain(&out.grad_bias).all(|&g| g == 0.0));
            assert_eq!((out.grad_scale, out.counts.non_finite_prototypes), (0.0, 1));
            data.w[last] = good;
        }
    }
}

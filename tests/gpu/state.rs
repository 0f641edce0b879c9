//! States on a device.

use libtest_mimic::Failed;
use margin_softmax::{gpu::Context, *};

use crate::{
    Check,
    cases::Data,
    common_state,
    rig::{Rig, same_bits},
};

pub const CHECKS: &[(&str, Check)] = &[
    ("the_scale_of_a_state_reaches_both_of_its_ends", |context| {
        common_state::the_scale_reaches_both_of_its_ends(&Backend::Gpu(context.clone()));
        Ok(())
    }),
    ("the_hardness_of_a_state_reaches_both_of_its_ends", |context| {
        common_state::the_hardness_reaches_both_of_its_ends(&Backend::Gpu(context.clone()));
        Ok(())
    }),
    ("the_lengths_of_a_state_reach_both_of_their_ends", |context| {
        common_state::the_lengths_reach_both_of_their_ends(&Backend::Gpu(context.clone()));
        Ok(())
    }),
    ("what_a_step_does_not_move_in_a_state_keeps_its_digits", |context| {
        common_state::what_does_not_move_keeps_its_digits(&Backend::Gpu(context.clone()));
        Ok(())
    }),
    ("a_bound_head_reads_the_state_that_was_set", a_bound_head_reads_the_state_that_was_set),
];

/// A number that nothing has moved is read back with all its digits: after an evaluation, and after a training step whose rows are
/// all ignored.
fn a_bound_head_reads_the_state_that_was_set(context: &Context) -> Result<(), Failed> {
    let shape = Shape::new(8, 10, 12)?;
    for name in ["curricularface", "adaface", "adacos"] {
        let loss = MarginSoftmax::named(name).unwrap().with_ignore_index(-1);
        let mut data = Data::random(shape, 4);
        for training in [false, true] {
            if training {
                data.labels.fill(-1);
            }
            let mut rig = Rig::plain(context, &loss, shape, &data)?;
            rig.bound = rig.tensors.bind_state(&rig.head)?;
            let first = State::new(&loss, shape)?;
            let state = State { hardness: 0.1, norm_mean: 7.3, norm_deviation: 1e30, scale: 11.7, step: 4, ..first };
            rig.bound.set_state(&state)?;
            rig.bound.set_training(training);
            let before = rig.tensors.state.read::<f32>(context)?;
            rig.run(context)?;
            same_bits("state", &rig.tensors.state.read::<f32>(context)?, &before)?;
            assert_eq!(rig.bound.read_state()?, state, "{name}, training {training}");
        }
    }
    Ok(())
}

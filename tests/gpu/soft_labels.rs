//! Several targets for each row on a device: against the reference, and the bits of a label alone.

use libtest_mimic::Failed;
use margin_softmax::{Backend, Batch, GradientFilter, Options, gpu::Context};

use crate::{Check, soft::Problem};

pub const CHECKS: &[(&str, Check)] = &[
    ("soft_labels_agree_with_the_reference", agree),
    ("a_label_as_its_own_target_changes_no_bit", changes_no_bit),
    ("soft_labels_have_the_same_bits_again", same_bits),
    ("a_filter_sees_the_pulls_of_all_targets", filtered),
];

fn agree(context: &Context) -> Result<(), Failed> {
    let backend = Backend::Gpu(context.clone());
    for problem in Problem::table() {
        let expected = problem.reference();
        for (how, options) in [("default", problem.options()), ("least", problem.least(&backend))] {
            problem.agrees(how, &problem.run(&backend, &options), &expected);
        }
    }
    Ok(())
}

/// One target of weight 1 that is the label has the bits of the label alone, and so has a head that gets no soft labels.
fn changes_no_bit(context: &Context) -> Result<(), Failed> {
    let backend = Backend::Gpu(context.clone());
    for mut problem in Problem::table().into_iter().step_by(3) {
        problem.weights.fill(0.0);
        for (i, &label) in problem.labels.iter().enumerate() {
            let at = i * problem.count + i % problem.count;
            (problem.classes[at], problem.weights[at]) = (label as i32, 1.0);
        }
        let plain = Batch { soft_labels: None, ..problem.batch() };
        let run = |soft_labels: Option<usize>, batch: &Batch<'_>| {
            let options = Options { soft_labels, ..problem.options() };
            let mut head = backend.head_with(&problem.loss, problem.shape, &options)?;
            head.set_state(&problem.state)?;
            head.evaluate(batch)
        };
        let expected = run(None, &plain)?;
        assert_eq!(run(Some(problem.count), &problem.batch())?, expected, "{}", problem.name);
        assert_eq!(run(Some(problem.count), &plain)?, expected, "{} without", problem.name);
    }
    Ok(())
}

fn same_bits(context: &Context) -> Result<(), Failed> {
    let backend = Backend::Gpu(context.clone());
    for problem in Problem::table().iter().rev().take(6) {
        let mut head = backend.head_with(&problem.loss, problem.shape, &problem.options())?;
        head.set_state(&problem.state)?;
        let first = head.evaluate(&problem.batch())?;
        assert_eq!(head.evaluate(&problem.batch())?, first, "{}", problem.name);
        assert_eq!(problem.run(&backend, &problem.options()), first, "{} anew", problem.name);
    }
    Ok(())
}

/// What a gradient filter leaves is what the reference leaves, but for entries within rounding of the threshold.
fn filtered(context: &Context) -> Result<(), Failed> {
    let (backend, filter) = (Backend::Gpu(context.clone()), Some(GradientFilter::new(1e-3)?));
    for problem in Problem::table().iter().rev().take(8) {
        let options = Options { filter, ..problem.options() };
        let [found, expected] = [&backend, &Backend::reference()]
            .map(|backend| problem.run(backend, &options).filtered.unwrap_or_default());
        assert_eq!(found.entries, expected.entries, "{}", problem.name);
        let (kept, least) = (found.kept as f64, expected.kept as f64);
        assert!(
            least > 0.0 && (kept - least).abs() <= 2.0 + 0.01 * least,
            "{}: {kept} kept, not {least}",
            problem.name
        );
        let off = f64::from((found.dropped - expected.dropped).abs());
        assert!(
            off <= 1e-3 * f64::from(expected.total),
            "{}: {} dropped, not {}",
            problem.name,
            found.dropped,
            expected.dropped
        );
    }
    Ok(())
}

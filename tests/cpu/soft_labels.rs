//! Several targets for each row on the CPU path.

use margin_softmax::{Backend, Batch, Options, data::SoftLabels};
use rayon::ThreadPoolBuilder;

use crate::soft::Problem;

#[test]
fn soft_labels_agree_with_the_reference() {
    for problem in Problem::table() {
        let expected = problem.reference();
        for (how, options) in [("keep", problem.options()), ("least", problem.least(&Backend::cpu()))] {
            problem.agrees(how, &problem.run(&Backend::cpu(), &options), &expected);
        }
    }
}

#[test]
fn soft_labels_obey_their_laws() {
    Problem::table().iter().for_each(|problem| problem.laws(&Backend::cpu()));
}

/// One target of weight 1 that is the label has the bits of the label alone.
#[test]
fn a_label_as_its_own_target_changes_no_bit() {
    for mut problem in Problem::table() {
        problem.weights.fill(0.0);
        for (i, &label) in problem.labels.iter().enumerate() {
            let at = i * problem.count + i % problem.count;
            (problem.classes[at], problem.weights[at]) = (label as i32, 1.0);
        }
        for options in [problem.options(), problem.least(&Backend::cpu())] {
            let mut head = Backend::cpu().head_with(&problem.loss, problem.shape, &options).unwrap();
            head.set_state(&problem.state).unwrap();
            let soft = head.evaluate(&problem.batch()).unwrap();
            let hard = head.evaluate(&Batch { soft_labels: None, ..problem.batch() }).unwrap();
            assert_eq!(soft, hard, "{}", problem.name);
        }
    }
}

/// The same bits on any number of threads.
#[test]
fn soft_labels_have_the_same_bits_on_any_number_of_threads() {
    for problem in Problem::table().iter().rev().take(8) {
        let on = |threads: usize, options: &Options| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| problem.run(&Backend::cpu(), options))
        };
        for options in [problem.options(), problem.least(&Backend::cpu())] {
            let first = on(1, &options);
            assert!([2, 3, 8].into_iter().all(|threads| on(threads, &options) == first), "{}", problem.name);
        }
    }
}

/// Equal targets are one, in whatever order the targets come, up to the rounding of the sum of their weights.
#[test]
fn the_order_of_the_targets_does_not_matter() {
    let problem = Problem::table().into_iter().find(|problem| problem.count == 5).unwrap();
    let mut turned = problem.clone();
    turned.classes.chunks_mut(5).for_each(|own| own.reverse());
    turned.weights.chunks_mut(5).for_each(|own| own.reverse());
    let run = |problem: &Problem| problem.run(&Backend::cpu(), &problem.options());
    // the weights are eighths: their sums are exact
    assert_eq!(run(&problem), run(&turned));
    let fewer = SoftLabels { count: 4, ..problem.soft() };
    let mut head = Backend::cpu().head_with(&problem.loss, problem.shape, &problem.options()).unwrap();
    assert!(head.evaluate(&Batch { soft_labels: Some(fewer), ..problem.batch() }).is_err());
}

/// Half types with soft labels: the bits of the same values in f32.
#[test]
fn soft_labels_take_half_types() {
    use half::bf16;

    for problem in Problem::table().into_iter().step_by(4) {
        let round = |v: &[f32]| v.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>();
        let wide = |v: &[bf16]| v.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
        let (x, w) = (round(&problem.x), round(&problem.w));
        let (wide_x, wide_w) = (wide(&x), wide(&w));
        for backend in [Backend::cpu(), Backend::reference()] {
            let mut head = backend.head_with(&problem.loss, problem.shape, &problem.options()).unwrap();
            head.set_state(&problem.state).unwrap();
            let rest = Batch { embeddings: &[], prototypes: &[], ..problem.batch() };
            let batch = Batch { embeddings: &wide_x, prototypes: &wide_w, ..rest };
            let expected = head.evaluate(&batch).unwrap();
            assert_eq!(head.evaluate_stored(&x, &w, &rest).unwrap(), expected, "{}", problem.name);
        }
    }
}

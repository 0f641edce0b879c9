//! Calls that report how far they are, and are stopped.

use margin_softmax::{Backend, Budget, Options};

use crate::reports::Problem;

/// In both schedules a step reports several times, and no bit depends on it.
#[test]
fn steps_report_and_stop() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let problem = Problem::new([128, 40_000, 96]);
    for budget in [Budget::default(), Budget::mib(4)] {
        let options = Options { budget, ..Options::default() };
        // on a thread of the pool, since the callback comes on the one that calls
        pool.install(|| problem.steps_report(&Backend::cpu(), "arcface", &options, 4));
    }
    problem.steps_report(&Backend::cpu(), "arcface_topk", &Options { predictions: Some(3), ..Options::default() }, 4);
}

/// A predictor reports chunk by chunk.
#[test]
fn predictions_report_and_stop() {
    Problem::new([128, 60_000, 128]).predictions_report(&Backend::cpu(), &Options::default(), 2);
}

/// The reference reports its end, every backend the steps over a sample.
#[test]
fn small_calls_report_their_end() {
    let problem = Problem::new([5, 40, 3]);
    for backend in [Backend::cpu(), Backend::reference()] {
        for name in ["arcface", "curricularface", "adacos", "softmax"] {
            problem.steps_report(&backend, name, &Options::default(), 1);
        }
        problem.predictions_report(&backend, &Options::default(), 1);
        problem.sampled_steps_report(&backend, &Options::default());
    }
}

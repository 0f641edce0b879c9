//! Several targets for each row on a device: against the reference, and the bits of a label alone.

use std::collections::BTreeSet;

use libtest_mimic::Failed;
use margin_softmax::{
    Backend, Batch, Error, MarginSoftmax, Options, Result as Done,
    data::GradientFilter,
    gpu::{BoundHead, Context, Head, Io, Tensor},
    plan::{Element, Plan},
};

use crate::{Check, rig::plain, soft::Problem};

pub const CHECKS: &[(&str, Check)] = &[
    ("soft_labels_agree_with_the_reference", agree),
    ("soft_labels_obey_their_laws", |context| {
        // two more heads for each: compiling is what takes the time
        Problem::table().iter().step_by(5).for_each(|problem| problem.laws(&Backend::Gpu(context.clone())));
        Ok(())
    }),
    ("a_label_as_its_own_target_changes_no_bit", changes_no_bit),
    ("soft_labels_have_the_same_bits_again", same_bits),
    ("a_filter_sees_the_pulls_of_all_targets", filtered),
    ("soft_labels_on_tensors", on_tensors),
    ("bad_soft_labels_on_tensors", bad_tensors),
];

fn agree(context: &Context) -> Result<(), Failed> {
    let backend = Backend::Gpu(context.clone());
    for (i, problem) in Problem::table().into_iter().enumerate() {
        let expected = problem.reference();
        // compiling is what takes the time
        let (how, options) =
            if i % 3 == 2 { ("least", problem.least(&backend)) } else { ("default", problem.options()) };
        problem.agrees(how, &problem.run(&backend, &options), &expected);
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

/// The problems that are computed again.
fn again() -> impl Iterator<Item = Problem> {
    Problem::table().into_iter().rev().take(6)
}

fn same_bits(context: &Context) -> Result<(), Failed> {
    let backend = Backend::Gpu(context.clone());
    for problem in again() {
        for options in [problem.options(), problem.least(&backend)] {
            let mut head = backend.head_with(&problem.loss, problem.shape, &options)?;
            head.set_state(&problem.state)?;
            let first = head.evaluate(&problem.batch())?;
            assert_eq!(head.evaluate(&problem.batch())?, first, "{}", problem.name);
            assert_eq!(problem.run(&backend, &options), first, "{} anew", problem.name);
        }
    }
    Ok(())
}

/// The kernels of a step that [`same_bits`] runs again.
pub fn kernels_run_again(context: &Context) -> Done<BTreeSet<&'static str>> {
    let mut names = BTreeSet::new();
    for Problem { loss, shape, count, .. } in again() {
        let options = Options { soft_labels: Some(count), ..Options::default() };
        let plan = Plan::head(&loss, shape, &plain(&[shape.classes()]), context.limits(), &options)?;
        names.extend(plan.kernels().iter().map(|kernel| kernel.name));
    }
    Ok(names)
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

/// A head on tensors, with everything that it writes.
struct OnTensors {
    head: Head,
    x: Tensor,
    w: Tensor,
    y: Tensor,
    classes: Tensor,
    weights: Tensor,
    loss: Tensor,
    row_losses: Tensor,
    dx: Tensor,
    dw: Tensor,
}

impl OnTensors {
    fn new(context: &Context, problem: &Problem) -> Done<Self> {
        let (shape, count) = (problem.shape, problem.count);
        let (n, c, d) = (shape.rows(), shape.classes(), shape.dim());
        let options = Options { soft_labels: Some(count), ..Options::default() };
        let plan = Plan::head(&problem.loss, shape, &plain(&[c]), context.limits(), &options)?;
        let labels: Vec<i32> = problem.labels.iter().map(|&y| y as i32).collect();
        let empty = |shape: &[usize]| Tensor::empty(context, shape, Element::F32);
        Ok(Self {
            head: Head::new(context, &problem.loss, plan)?,
            x: Tensor::upload(context, &[n, d], &problem.x)?,
            w: Tensor::upload(context, &[c, d], &problem.w)?,
            y: Tensor::upload(context, &[n], &labels)?,
            classes: Tensor::upload(context, &[n, count], &problem.classes)?,
            weights: Tensor::upload(context, &[n, count], &problem.weights)?,
            loss: empty(&[1])?,
            row_losses: empty(&[n])?,
            dx: empty(&[n, d])?,
            dw: empty(&[c, d])?,
        })
    }

    fn bind(&self, [soft_classes, soft_weights]: [Option<&Tensor>; 2]) -> Done<BoundHead> {
        self.head.bind(&Io {
            soft_classes,
            soft_weights,
            row_losses: Some(&self.row_losses),
            grad_embeddings: Some(&self.dx),
            grad_prototypes: &[&self.dw],
            ..Io::new(&self.x, &[&self.w], &self.y, &self.loss)
        })
    }

    fn soft(&self) -> [Option<&Tensor>; 2] {
        [Some(&self.classes), Some(&self.weights)]
    }

    fn run(&self, context: &Context) -> Done<[Vec<f32>; 3]> {
        let bound = self.bind(self.soft())?;
        let mut encoder = context.device().create_command_encoder(&Default::default());
        bound.record_forward(&mut encoder);
        bound.record_backward(&mut encoder);
        context.queue().submit([encoder.finish()]);
        Ok([self.row_losses.read(context)?, self.dx.read(context)?, self.dw.read(context)?])
    }
}

fn on_a_device(context: &Context) -> Done<(Problem, OnTensors)> {
    let problem = Problem::new("tensors", &MarginSoftmax::arcface().with_scale(20.0), [20, 300, 8, 1, 4], 5);
    let tensors = OnTensors::new(context, &problem)?;
    Ok((problem, tensors))
}

/// Tensors have the bits of slices, in which equal targets are one already; the workspace is what the plan says.
fn on_tensors(context: &Context) -> Result<(), Failed> {
    let (problem, tensors) = on_a_device(context)?;
    let expected = problem.run(&Backend::Gpu(context.clone()), &problem.options());
    let [row_losses, dx, dw] = tensors.run(context)?;
    // the weights are eighths: their sums are exact, in whatever order the targets come; those of the sums over targets are not
    let close = |found: &[f32], expected: &[f32]| {
        let largest = expected.iter().fold(0.0_f32, |most, x| x.abs().max(most));
        found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| (f - e).abs() <= 2e-6 * largest)
    };
    assert!(close(&row_losses, &expected.row_losses), "{row_losses:?}, not {:?}", expected.row_losses);
    assert!(close(&dx, &expected.grad_embeddings) && close(&dw, &expected.grad_prototypes));
    let before = context.allocated_bytes();
    let bound = tensors.bind(tensors.soft())?;
    let made = context.allocated_bytes() - before;
    drop(bound);
    // row losses, classes and weights are the caller's
    let lent = [20 * 4, 16, 16].into_iter().sum::<u64>();
    assert_eq!(made + lent, tensors.head.plan().workspace_bytes());
    Ok(())
}

/// On a device a class or weight that no target may have makes its row invalid, and no other; what the host can see is refused.
fn bad_tensors(context: &Context) -> Result<(), Failed> {
    let (problem, tensors) = on_a_device(context)?;
    let [good, ..] = tensors.run(context)?;
    assert!(good.iter().all(|loss| loss.is_finite()));
    type Change = fn(&mut Problem);
    let changes: [(&str, Change); 5] = [
        ("class", |p| p.classes[3 * 4] = 300),
        ("negative weight", |p| p.weights[3 * 4 + 1] = -0.25),
        ("NaN", |p| p.weights[3 * 4] = f32::NAN),
        ("infinite", |p| p.weights[3 * 4 + 2] = f32::INFINITY),
        ("tiny", |p| p.weights[3 * 4] = 1e-33),
    ];
    for (name, change) in changes {
        let mut bad = problem.clone();
        change(&mut bad);
        let [losses, dx, dw] = OnTensors::new(context, &bad)?.run(context)?;
        let same = |(i, (a, b)): (usize, (&f32, &f32))| if i == 3 { a.is_nan() } else { a == b };
        assert!(losses.iter().zip(&good).enumerate().all(same), "{name}: {losses:?}");
        assert!(dx[3 * 8..4 * 8].iter().all(|&g| g == 0.0) && dw.iter().all(|g| g.is_finite()), "{name}");
    }
    let refused = |result: Done<BoundHead>| result.map(drop).unwrap_err();
    assert!(matches!(
        refused(tensors.bind([Some(&tensors.classes), None])),
        Error::Missing { what: "soft_weights", .. }
    ));
    assert!(matches!(
        refused(tensors.bind([None, Some(&tensors.weights)])),
        Error::Missing { what: "soft_classes", .. }
    ));
    let labels = Tensor::upload(context, &[20, 3], &[0_i32; 60])?;
    let error = refused(tensors.bind([Some(&labels), Some(&tensors.weights)]));
    assert!(error.to_string().contains("soft_classes"), "{error}");
    let floats = Tensor::upload(context, &[20, 4], &[0.0_f32; 80])?;
    let error = refused(tensors.bind([Some(&floats), Some(&tensors.weights)]));
    assert!(matches!(error, Error::Element { what: "soft_classes", .. }), "{error}");
    let plan = Plan::head(&problem.loss, problem.shape, &plain(&[300]), context.limits(), &Options::default())?;
    let without = OnTensors { head: Head::new(context, &problem.loss, plan)?, ..tensors };
    assert!(matches!(refused(without.bind(without.soft())), Error::Combination { what: "soft_classes", .. }));
    Ok(())
}

//! Several targets for each row in the reference: the mix of separate calls, derivatives, sigmoid cross entropy, errors.

use margin_softmax::{
    Adaptive, Backend, Batch, Error, Link, MarginSoftmax, Options, Others, Output, Reduction, Shape,
    data::{MixedLabels, SoftLabels},
    objective::{Binary, Elastic, TopK},
    partial::{PartialFc, SampledHead},
};

use crate::soft::{Problem, wide};

fn assert_close(name: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(1e-12_f64, |most, x| x.abs().max(most));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= 1e-9 * largest, "{name}[{i}] = {f}, expected {e}");
    }
}

#[test]
fn soft_labels_obey_their_laws() {
    Problem::table().iter().for_each(|problem| problem.laws(&Backend::reference()));
}

/// With a softmax: Σ_t λ_t · loss(x, y_t), from a call for each t.
#[test]
fn soft_labels_are_the_mix_of_separate_calls() {
    let mut checked = 0;
    // sorted draws follow the label's cosine, which is another one in each call
    let sorted = |p: &Problem| matches!(p.loss.adaptive, Adaptive::Elastic(Elastic { sorted: true, .. }));
    for problem in Problem::table().iter().filter(|p| p.loss.link == Link::Softmax && !sorted(p)) {
        let found = problem.reference();
        let mean = problem.loss.reduction == Reduction::Mean;
        // of the whole mix
        let z = problem.divisor.map_or(found.normalizer, f64::from);
        let mut all: Option<Output<f64>> = None;
        for slot in 0..problem.count {
            let (labels, weights) = problem.slot(slot);
            let one = problem.separate(&labels, Some(&weights), mean.then_some(z));
            let Some(all) = &mut all else {
                all = Some(one);
                continue;
            };
            let add = |to: &mut Vec<f64>, from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            (all.loss, all.normalizer) = (all.loss + one.loss, all.normalizer + one.normalizer);
            all.grad_scale += one.grad_scale;
            add(&mut all.row_losses, &one.row_losses);
            add(&mut all.grad_embeddings, &one.grad_embeddings);
            add(&mut all.grad_prototypes, &one.grad_prototypes);
            add(&mut all.grad_bias, &one.grad_bias);
        }
        let (all, name) = (all.unwrap(), &problem.name);
        let check = |what: &str, found: &[f64], all: &[f64]| assert_close(&format!("{name}: {what}"), found, all);
        check("loss", &[found.loss], &[all.loss]);
        check("Z", &[found.normalizer], &[all.normalizer]);
        check("dL/ds", &[found.grad_scale], &[all.grad_scale]);
        check("rows", &found.row_losses, &all.row_losses);
        check("dX", &found.grad_embeddings, &all.grad_embeddings);
        check("dW", &found.grad_prototypes, &all.grad_prototypes);
        check("db", &found.grad_bias, &all.grad_bias);
        let own = problem.separate(&problem.labels, None, None);
        check("log_sum_exps", &found.log_sum_exps, &own.log_sum_exps);
        check("target_cosines", &found.target_cosines, &own.target_cosines);
        check("other_cosines", &found.other_cosines, &own.other_cosines);
        checked += 1;
    }
    assert!(checked > 20, "{checked} problems");
}

/// The gradients of every problem with a binary link are its loss' derivatives; those of a softmax follow from the mix.
#[test]
fn gradients_of_several_positives_are_derivatives() {
    let step = 1e-3_f32;
    let mut checked = 0;
    // a detached slope is none
    let exact = |p: &Problem| p.loss.link != Link::Softmax && !format!("{:?}", p.loss).contains("Detached");
    for problem in Problem::table().into_iter().filter(exact) {
        let at = |change: &dyn Fn(&mut Problem)| {
            let mut moved = problem.clone();
            change(&mut moved);
            // the sum of the rows with their upstream gradients is what the gradients are of
            let out = moved.reference();
            let up = moved.upstream.as_deref().map_or(vec![1.0], wide);
            if up.len() == 1 { out.loss * up[0] } else { out.row_losses.iter().zip(up).map(|(l, up)| l * up).sum() }
        };
        let out = problem.reference();
        for i in (0..problem.w.len()).step_by(7) {
            let one = |by: f32| at(&|p| p.w[i] += by);
            // f32 rounds the step
            let h = f64::from((problem.w[i] + step) - (problem.w[i] - step));
            let slope = (one(step) - one(-step)) / h;
            let claimed = out.grad_prototypes[i];
            assert!(
                (slope - claimed).abs() <= 2e-3 * claimed.abs().max(0.05),
                "{} dW {i}: {claimed}, {slope}",
                problem.name
            );
        }
        checked += 1;
    }
    assert!(checked > 0);
}

/// With weight ½, factor 2 and λ = 1 the rows' losses are sigmoid cross entropy with several positives, and dL/dlogit is σ(z) − y.
#[test]
fn a_binary_link_with_several_positives_is_sigmoid_cross_entropy() {
    let binary = Binary { weight: 0.5, factor: 2.0, bias: -1.5 };
    let loss = MarginSoftmax { link: Link::Binary(binary), reduction: Reduction::Sum, ..MarginSoftmax::normface() }
        .with_scale(6.0);
    let mut problem = Problem::new("sigmoid", &loss, [7, 30, 5, 1, 4], 3);
    problem.weights.fill(1.0);
    // equal positives count once: a second one gets no weight
    for (own, weights) in problem.classes.chunks(4).zip(problem.weights.chunks_mut(4)) {
        (1..4).filter(|&t| own[..t].contains(&own[t])).for_each(|t| weights[t] = 0.0);
    }
    let out = problem.reference();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (x, w) = (wide(&problem.x), wide(&problem.w));
    let (mut grad_bias, mut positives) = (0.0, 0);
    for (i, x) in x.chunks(5).enumerate() {
        let mut sum = 0.0;
        for (j, w) in w.chunks(5).enumerate() {
            let z = 6.0 * dot(x, w) / (dot(x, x) * dot(w, w)).sqrt() - 1.5;
            let own = problem.classes[i * 4..][..4].contains(&(j as i32));
            positives += usize::from(own);
            let y = f64::from(u8::from(own));
            sum += z.max(0.0) - z * y + (-z.abs()).exp().ln_1p();
            grad_bias += 1.0 / (1.0 + (-z).exp()) - y;
        }
        assert!((out.row_losses[i] - sum).abs() < 1e-9 * sum, "{i}: {}, not {sum}", out.row_losses[i]);
    }
    assert!(positives > 10);
    assert!((out.grad_bias[0] - grad_bias).abs() < 1e-9 * grad_bias.abs());
    assert_eq!(out.normalizer, 7.0);
}

/// Mixup: λ of one label and 1 − λ of the other.
#[test]
fn mixed_labels_are_two_targets() {
    let mixed = MixedLabels::new(&[3_i64, 1], &[0, 1], &[0.25_f32, 0.5]).unwrap();
    let SoftLabels { count, classes, weights } = mixed.soft();
    assert_eq!((count, classes, weights), (2, &[3, 0, 1, 1][..], &[0.25, 0.75, 0.5, 0.5][..]));
    let refused = |result: Result<MixedLabels, Error>| result.unwrap_err().to_string();
    assert!(refused(MixedLabels::new(&[0], &[1, 2], &[0.5])).contains("second"));
    assert!(refused(MixedLabels::new(&[0], &[1], &[])).contains("lambda"));
    assert!(refused(MixedLabels::new(&[0], &[1], &[1.5])).contains("0 <= lambda <= 1"));
    assert!(refused(MixedLabels::new(&[0], &[1], &[f32::NAN])).contains("0 <= lambda <= 1"));
    assert!(refused(MixedLabels::new(&[1_u64 << 40], &[1], &[0.5])).contains("label"));
}

/// Bad soft labels are refused before any work, by name; what cannot serve several targets too.
#[test]
fn bad_soft_labels_are_refused() {
    let loss = MarginSoftmax::arcface();
    let shape = Shape::new(2, 4, 2).unwrap();
    let (x, w) = ([1.0_f32, 0.5, 0.2, -1.0], [1.0_f32, 0.0, 0.0, 1.0, 1.0, 1.0, -1.0, 0.3]);
    let good = Batch { embeddings: &x, prototypes: &w, labels: &[1_i64, 2], ..Batch::default() };
    let options = Options { soft_labels: Some(2), ..Options::default() };
    let mut head = Backend::Reference.head_with(&loss, shape, &options).unwrap();
    let mut message = |count, classes: &[i32], weights: &[f32]| {
        let soft_labels = Some(SoftLabels { count, classes, weights });
        head.evaluate(&Batch { soft_labels, ..good }).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(message(2, &[1, 0, -1, 3], &[0.5; 4]), Ok(()));
    for (count, classes, weights, expected) in [
        (0, &[][..], &[][..], "1 to 16"),
        (17, &[0; 34], &[0.5; 34], "1 to 16"),
        (3, &[0; 6], &[0.5; 6], "at most Options::soft_labels"),
        (2, &[0; 3], &[0.5; 4], "soft_labels.classes"),
        (2, &[0; 4], &[0.5; 3], "soft_labels.weights"),
        (1, &[0, 4], &[0.5; 2], "label 4"),
        (1, &[0, 1], &[0.5, -0.5], "soft_labels.weights"),
        (1, &[0, 1], &[0.5, f32::NAN], "soft_labels.weights"),
        (1, &[0, 1], &[0.5, f32::INFINITY], "soft_labels.weights"),
        (1, &[0, 1], &[0.5, 1e-35], "soft_labels.weights"),
    ] {
        let found = message(count, classes, weights).unwrap_err();
        assert!(found.contains(expected), "{found}");
    }
    let soft = Batch { soft_labels: Some(SoftLabels { count: 1, classes: &[0, 1], weights: &[1.0, 1.0] }), ..good };
    let tiny = [1e-20_f32, 1.0];
    let product = SoftLabels { count: 1, classes: &[0, 1], weights: &[1e-20, 1.0] };
    let tiny = Batch { row_weights: Some(&tiny), soft_labels: Some(product), ..good };
    assert!(head.evaluate(&tiny).unwrap_err().to_string().contains("soft_labels.weights · row_weights"));
    assert!(matches!(head.targets(&soft).unwrap_err(), Error::Combination { what: "soft_labels", .. }));
    let mut plain = Backend::Reference.head(&loss, shape).unwrap();
    assert!(matches!(plain.evaluate(&soft).unwrap_err(), Error::Missing { what: "Options::soft_labels", .. }));
    let refused = |loss: &MarginSoftmax, options: Options| {
        Backend::Reference.head_with(loss, shape, &options).map(drop).unwrap_err().to_string()
    };
    let curricular = loss.clone().with_others(Others::Curricular);
    assert!(refused(&curricular, options).contains("CurricularFace"));
    let top = loss.clone().with_others(Others::TopK(TopK { count: 2, margin: 0.1 }));
    assert!(refused(&top, options).contains("inter-topk"));
    for (name, why) in
        [("mv_arc", "MV-Softmax"), ("arcnegface", "ArcNegFace"), ("a_softmax", "length of the embedding")]
    {
        assert!(refused(&MarginSoftmax::named(name).unwrap(), options).contains(why), "{name}");
    }
    assert!(refused(&loss, Options { predictions: Some(1), ..options }).contains("predictions"));
    assert!(refused(&loss, Options { soft_labels: Some(17), ..options }).contains("1 to 16"));
    let shard = Backend::Reference.shard(&loss, shape, 0..2, &options).map(drop).unwrap_err();
    assert!(matches!(shard, Error::Combination { what: "soft_labels", .. }));
    let sampler = PartialFc::new(0.5, 1).unwrap();
    let sampled = SampledHead::new(&Backend::Reference, &loss, shape, &options, sampler).map(drop).unwrap_err();
    assert!(matches!(sampled, Error::Combination { what: "soft_labels", .. }));
    // a loss that a head took later is refused with the batch
    head.update(&curricular).unwrap();
    assert!(matches!(head.evaluate(&soft).unwrap_err(), Error::Combination { what: "soft_labels", .. }));
}

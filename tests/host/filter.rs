//! Gradient filtering: which entries are left out, what that may cost, and what is refused; in f64 and on the CPU path.

use margin_softmax::{data::GradientFilter, *};
use rand::RngExt;

use crate::{
    common::{Case, close, dot, length, random, uniform},
    problems::{families, random_problem},
};

fn filter(epsilon: f64) -> Option<GradientFilter> {
    Some(GradientFilter::new(epsilon).unwrap())
}

#[test]
fn a_threshold_out_of_range_is_refused() {
    for found in [0.0, -1e-3, 9e-16, 0.100_001, 1.0, f64::NAN, f64::INFINITY] {
        match GradientFilter::new(found) {
            Err(Error::Parameter { what: "filter.epsilon", found: named, allowed: "1e-15 <= epsilon <= 0.1" }) => {
                assert!(named == found || found.is_nan());
            }
            other => panic!("{found}: {other:?}"),
        }
    }
    for epsilon in [1e-15, 2.0_f64.powi(-12), 0.1] {
        close("epsilon", filter(epsilon).unwrap().epsilon(), epsilon, 1e-7 * epsilon);
    }
}

/// Nothing to filter: refused by every backend and by a plan, before any work.
#[test]
fn a_filter_without_gradients_is_refused() {
    use margin_softmax::plan::{Element, Layout, Limits, Plan};
    let shape = Shape::new(4, 10, 3).unwrap();
    let linear = MarginSoftmax::named("softmax").unwrap();
    let bias = Want::LOSS.with_bias();
    for (loss, want, refused) in [
        (MarginSoftmax::arcface(), Want::LOSS, true),
        (MarginSoftmax::arcface(), Want::LOSS.with_scale(), true),
        (MarginSoftmax::named("sphereface2").unwrap(), bias, true),
        (linear.clone(), Want::LOSS, true),
        (linear, bias, false),
        (MarginSoftmax::arcface(), Want::EMBEDDINGS, false),
        (MarginSoftmax::arcface(), Want::PROTOTYPES, false),
    ] {
        let options = Options { want, filter: filter(1e-4), ..Options::default() };
        let mut found = vec![Backend::reference().head_with(&loss, shape, &options).err()];
        #[cfg(feature = "cpu")]
        found.push(Backend::cpu().head_with(&loss, shape, &options).err());
        let layout = Layout { shards: &[10], embeddings: Element::F32, prototypes: Element::F32 };
        found.push(Plan::head(&loss, shape, &layout, &Limits::WEBGPU, &options).err());
        for error in found {
            let combination = matches!(error, Some(Error::Combination { what: "filter", .. }));
            assert_eq!((combination, error.is_some()), (refused, refused), "{error:?}");
        }
    }
}

/// What a filter needs on a device is counted to the byte, like everything else; nothing exceeds a binding.
#[test]
fn a_plan_counts_what_a_filter_needs() {
    use margin_softmax::plan::{Element, Layout, Limits, Plan};
    let layouts = [(1, 7, 3, 1), (70, 1000, 8, 1), (3, 100_003, 4, 1), (2000, 9000, 16, 3), (1, 15_000_000, 1, 1)];
    for (n, c, d, centers) in layouts {
        let shape = Shape::new(n, c, d).unwrap().with_sub_centers(centers).unwrap();
        let shards = Plan::shards(shape, Element::F32, &Limits::WEBGPU).unwrap();
        let layout = Layout { shards: &shards, embeddings: Element::F32, prototypes: Element::F32 };
        for want in [Want::EMBEDDINGS, Want::PROTOTYPES, Want::ALL.with_bias()] {
            for &tile in Tile::ALL {
                let plan = |bytes| {
                    let budget = Budget::bytes(bytes);
                    let options =
                        Options { budget, want, tile: Some(tile), filter: filter(1e-6), ..Options::default() };
                    Plan::head(&MarginSoftmax::arcface(), shape, &layout, &Limits::WEBGPU, &options)
                };
                let Err(Error::Budget { needed, .. }) = plan(1) else { panic!("{shape:?} {want:?}") };
                for bytes in [needed, needed * 2, 1 << 34] {
                    let plan = plan(bytes).unwrap();
                    let found = plan.workspace_bytes();
                    assert!(found <= bytes && (bytes > needed || found == needed), "{shape:?} {want:?}");
                    let steps = |name| plan.backward().iter().filter(|s| plan.kernels()[s.kernel].name == name).count();
                    let chunks = plan.schedule().chunks.len();
                    let lists = [want.grad_embeddings, want.grad_prototypes].map(|on| if on { chunks } else { 0 });
                    assert_eq!([steps("list_classes"), steps("list_rows")], lists);
                    assert_eq!(steps("filter_totals"), chunks);
                }
                assert!(matches!(plan(needed - 1), Err(Error::Budget { .. })), "{shape:?} {want:?}");
            }
        }
    }
}

/// The reference's output with and without a filter.
fn both(case: &Case, loss: &MarginSoftmax, epsilon: f64) -> [Output<f64>; 2] {
    [None, filter(epsilon)].map(|filter| {
        let shape = Shape::new(case.labels.len(), case.classes, case.dim).unwrap();
        let batch = Batch {
            embeddings: &case.embeddings,
            prototypes: &case.prototypes,
            labels: &case.labels,
            class_weights: case.weights.as_deref(),
            upstream: case.upstream.as_deref(),
            ..Default::default()
        };
        let state = State::new(loss, shape).unwrap();
        let shard = reference::Shard::new(loss, shape, 0..case.classes, &batch, &state).unwrap().with_filter(filter);
        let targets = shard.targets(&state);
        let statistics = shard.statistics(&targets, &state).unwrap();
        shard.gradients(Want::ALL.with_scale(), &targets, &statistics, &state).unwrap()
    })
}

/// The definition, by the school formula: softmax − one-hot against ε, for a softmax of scaled cosines.
#[test]
fn what_is_left_out_are_the_small_probabilities() {
    let mut rng = random(1);
    for (rows, classes, epsilon) in [(1, 2, 0.05), (5, 40, 1e-3), (7, 200, 1e-2), (3, 11, 1e-15), (4, 300, 0.1)] {
        let loss = MarginSoftmax::named("normface").unwrap().with_scale(20.0);
        let case = Case::random(&mut rng, loss.clone(), (rows, classes, 6));
        let [_, found] = both(&case, &loss, epsilon);
        let (mut total, mut dropped, mut kept) = (0.0, 0.0, 0);
        let mut gradient = vec![0.0; rows * 6];
        // rounded like the threshold
        let epsilon = f64::from(epsilon as f32);
        for i in 0..rows {
            let logits: Vec<f64> = (0..classes).map(|j| 20.0 * case.cosine(i, j)).collect();
            let sum: f64 = logits.iter().map(|z| z.exp()).sum();
            let x = case.embedding(i);
            for (j, z) in logits.iter().enumerate() {
                let p = z.exp() / sum - if j as i64 == case.labels[i] { 1.0 } else { 0.0 };
                let g = p * 20.0 / rows as f64;
                total += g.abs();
                if p.abs() < epsilon {
                    dropped += g.abs();
                    continue;
                }
                kept += 1;
                let (w, c) = (case.prototype(j), case.cosine(i, j));
                for k in 0..6 {
                    gradient[i * 6 + k] += g * (w[k] / length(w) - c * x[k] / length(x)) / length(x);
                }
            }
        }
        let filtered = found.filtered.unwrap();
        close("total", filtered.total, total, 1e-9 * total);
        close("dropped", filtered.dropped, dropped, 1e-9 * total);
        assert_eq!((filtered.kept, filtered.entries), (kept, (rows * classes) as u64));
        close("share", filtered.share(), dropped / total, 1e-9);
        for (f, e) in found.grad_embeddings.iter().zip(&gradient) {
            close("dX", *f, *e, 1e-9);
        }
    }
}

/// No embedding's gradient is off by more than the mass that its row dropped, divided by its length; nor a prototype's by that
/// of its column; and the rest of the output is untouched.
#[test]
fn the_dropped_mass_bounds_the_error() {
    let mut rng = random(2);
    for trial in 0..60 {
        let name = ["arcface", "cosface", "curricularface", "wc_relu"][trial % 4];
        let loss = MarginSoftmax::named(name).unwrap_or_default().with_scale([8.0, 30.0, 64.0][trial % 3]);
        let mut case = Case::random(&mut rng, loss.clone(), (6, 80, 5));
        case.weights = (trial % 2 == 0).then(|| (0..80).map(|_| rng.random_range(0.2..2.0)).collect());
        case.upstream = (trial % 5 == 0).then(|| uniform(&mut rng, 1));
        let epsilon = 10_f64.powf(rng.random_range(-6.0..-1.0));
        let [exact, found] = both(&case, &loss, epsilon);
        let filtered = found.filtered.unwrap();
        assert_eq!(exact.filtered, None);
        assert_eq!(
            (exact.loss, &exact.row_losses, exact.grad_scale),
            (found.loss, &found.row_losses, found.grad_scale)
        );
        let off = |a: &[f64], b: &[f64], vectors: &[f64]| -> f64 {
            let rows = a.chunks(5).zip(b.chunks(5)).zip(vectors.chunks(5));
            rows.map(|((a, b), v)| {
                let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
                length(&difference) * length(v)
            })
            .sum()
        };
        let bound = filtered.dropped * (1.0 + 1e-9) + 1e-12;
        let dx = off(&found.grad_embeddings, &exact.grad_embeddings, &case.embeddings);
        let dw = off(&found.grad_prototypes, &exact.grad_prototypes, &case.prototypes);
        assert!(dx <= bound && dw <= bound, "{dx:e} and {dw:e} exceed {bound:e} ({filtered:?})");
        // what the documentation promises beforehand
        let upstream = case.upstream.as_ref().map_or(1.0, |u| u[0].abs());
        let weight = |y: &i64| case.weights.as_ref().map_or(1.0, |w| w[*y as usize]);
        let z: f64 = case.labels.iter().map(weight).sum();
        assert!(filtered.dropped <= 6.0 * 80.0 * f64::from(epsilon as f32) * loss.scale * upstream / z);
        // each gradient stays orthogonal to its own vector
        for (g, x) in found.grad_embeddings.chunks(5).zip(case.embeddings.chunks(5)) {
            close("orthogonal", dot(g, x), 0.0, 1e-9 * (1.0 + length(g) * length(x)));
        }
    }
}

/// Every family takes a filter: the smallest threshold drops next to nothing, and what is dropped bounds the change.
#[test]
fn every_family_takes_a_filter() {
    let mut rng = random(3);
    for (name, loss) in families().into_iter().step_by(7) {
        let problem = random_problem(&mut rng, &loss);
        let (batch, state) = (problem.batch(), problem.state);
        let run = |filter| {
            let range = 0..problem.shape.classes();
            let shard = reference::Shard::new(&problem.loss, problem.shape, range, &batch, &state)?.with_filter(filter);
            let targets = shard.targets(&state);
            shard.gradients(Want::ALL.with_bias().with_scale(), &targets, &shard.statistics(&targets, &state)?, &state)
        };
        let exact = run(None).unwrap();
        for epsilon in [1e-15, 1e-2] {
            let found = run(filter(epsilon)).unwrap();
            let filtered = found.filtered.unwrap();
            assert!(filtered.kept <= filtered.entries && filtered.dropped <= filtered.total, "{name}: {filtered:?}");
            assert_eq!((found.loss, found.grad_scale), (exact.loss, exact.grad_scale), "{name}");
            // vectors are longer than 0.4 and of a few values below 1
            let most = 6.0 * filtered.dropped + 1e-12;
            for (a, b) in
                [(&found.grad_embeddings, &exact.grad_embeddings), (&found.grad_prototypes, &exact.grad_prototypes)]
            {
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= most), "{name} at {epsilon}: {filtered:?}");
            }
            if epsilon == 1e-15 {
                assert!(filtered.dropped <= 1e-12 * problem.loss.scale.max(1.0) * 1e3, "{name}: {filtered:?}");
            }
        }
    }
}

#[cfg(feature = "cpu")]
mod cpu {
    use super::*;

    /// Random directions in f32.
    fn data(seed: u64, shape: Shape) -> (Vec<f32>, Vec<f32>, Vec<i64>) {
        let mut rng = random(seed);
        let thin = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let x = thin(uniform(&mut rng, shape.rows() * shape.dim()));
        let w = thin(uniform(&mut rng, shape.vectors() * shape.dim()));
        (x, w, (0..shape.rows()).map(|_| rng.random_range(0..shape.classes() as i64)).collect())
    }

    fn agree(what: &str, found: &Output, expected: &Output, unit: f64) {
        let (own, other) = (found.filtered.unwrap(), expected.filtered.unwrap());
        // entries within rounding of the threshold fall on either side; each is worth one threshold
        let flipped = own.kept.abs_diff(other.kept);
        assert!(flipped <= 1 + other.entries / 2000, "{what}: {own:?}, {other:?}");
        assert_eq!(own.entries, other.entries, "{what}");
        let (total, off) = (f64::from(other.total), f64::from((own.dropped - other.dropped).abs()));
        assert!(off <= 2e-5 * total + flipped as f64 * unit, "{what}: {own:?}, {other:?}");
        assert!(f64::from((own.total - other.total).abs()) <= 2e-5 * total, "{what}: {own:?}, {other:?}");
        for (name, found, expected) in [
            ("dX", &found.grad_embeddings, &expected.grad_embeddings),
            ("dW", &found.grad_prototypes, &expected.grad_prototypes),
            ("db", &found.grad_bias, &expected.grad_bias),
        ] {
            assert_eq!(found.len(), expected.len(), "{what}: {name}");
            let largest = expected.iter().fold(0.0_f32, |m, e| m.max(e.abs()));
            let most = 1e-4 * largest + if flipped > 0 { 4.0 * unit as f32 } else { 0.0 };
            let off = found.iter().zip(expected).fold(0.0_f32, |m, (f, e)| m.max((f - e).abs()));
            assert!(off <= most, "{what}: {name} is off by {off:e} of {largest:e}");
        }
    }

    /// Few entries and many, kept and computed again, all gradients and each alone.
    #[test]
    fn the_cpu_path_agrees_with_the_reference() {
        let smoothed = MarginSoftmax::arcface().with_label_smoothing(0.1);
        let losses = [
            ("arcface", MarginSoftmax::arcface(), 1),
            ("wc_relu", MarginSoftmax::arcface().with_others(Others::Rectified), 1),
            ("curricularface", MarginSoftmax::curricularface(), 1),
            ("sub-centers", MarginSoftmax::arcface(), 3),
            ("sphereface2", MarginSoftmax::sphereface2(), 1),
            ("softmax", MarginSoftmax::softmax(), 1),
            ("smoothed", smoothed, 1),
        ];
        for (name, loss, centers) in losses {
            let shape = Shape::new(70, 700, 21).unwrap().with_sub_centers(centers).unwrap();
            let (x, w, y) = data(5, shape);
            let batch = Batch { embeddings: &x, prototypes: &w, labels: &y, ..Default::default() };
            for epsilon in [1e-12, 1e-6, 1e-4, 1e-2] {
                let unit = epsilon * loss.scale / 70.0;
                let all = if loss.similarity == Similarity::Dot { Want::ALL.with_bias() } else { Want::ALL };
                for want in [all, Want::EMBEDDINGS, Want::PROTOTYPES] {
                    let mut options = Options { want, filter: filter(epsilon), ..Options::default() };
                    let expected =
                        Backend::reference().head_with(&loss, shape, &options).unwrap().evaluate(&batch).unwrap();
                    for budget in [Budget::default(), Budget::bytes(1)] {
                        options.budget = budget;
                        if let Err(Error::Budget { needed, .. }) = Backend::cpu().head_with(&loss, shape, &options) {
                            options.budget = Budget::bytes(needed);
                        }
                        let mut head = Backend::cpu().head_with(&loss, shape, &options).unwrap();
                        let found = head.evaluate(&batch).unwrap();
                        agree(&format!("{name} at {epsilon}, {want:?}, {budget:?}"), &found, &expected, unit);
                        assert_eq!(found, head.evaluate(&batch).unwrap(), "{name}: other bits the second time");
                    }
                }
            }
        }
    }

    /// The result does not depend on the number of threads.
    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let shape = Shape::new(130, 3000, 33).unwrap();
        let (x, w, y) = data(6, shape);
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &y, ..Default::default() };
        let options = Options { filter: filter(1e-4), ..Options::default() };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut head = Backend::cpu().head_with(&MarginSoftmax::arcface(), shape, &options).unwrap();
                head.evaluate(&batch).unwrap()
            })
        };
        let one = run(1);
        let filtered = one.filtered.unwrap();
        assert!(filtered.kept < filtered.entries / 4, "{filtered:?}");
        assert!((2..5).all(|threads| run(threads) == one));
    }

    /// Where every entry is large the products are those without a filter, bit by bit.
    #[test]
    fn a_filter_that_drops_nothing_changes_no_bit() {
        let shape = Shape::new(70, 900, 24).unwrap();
        let (x, w, y) = data(7, shape);
        let batch = Batch { embeddings: &x, prototypes: &w, labels: &y, ..Default::default() };
        let loss = MarginSoftmax::cosface().with_scale(4.0);
        let run = |filter| {
            let options = Options { filter, ..Options::default() };
            Backend::cpu().head_with(&loss, shape, &options).unwrap().evaluate(&batch).unwrap()
        };
        let (mut off, on) = (run(None), run(filter(1e-12)));
        assert_eq!(off.filtered.replace(on.filtered.unwrap()), None);
        assert_eq!(off, on);
        let filtered = on.filtered.unwrap();
        assert_eq!((filtered.dropped, filtered.kept, filtered.entries), (0.0, 70 * 900, 70 * 900));
    }

    /// Shards and sampled classes report what they leave out, of their own entries.
    #[test]
    fn shards_and_samples_take_a_filter() {
        use margin_softmax::partial::{PartialFc, SampledHead};
        let shape = Shape::new(40, 600, 16).unwrap();
        let (x, w, y) = data(8, shape);
        let (loss, batch) =
            (MarginSoftmax::arcface(), Batch { embeddings: &x, prototypes: &w, labels: &y, ..Default::default() });
        let options = Options { filter: filter(1e-4), ..Options::default() };
        for backend in [Backend::reference(), Backend::cpu()] {
            let whole = backend.head_with(&loss, shape, &options).unwrap().evaluate(&batch).unwrap();
            let ranges = [0..250, 250..600];
            let own = |r: &std::ops::Range<usize>| Batch { prototypes: &w[r.start * 16..r.end * 16], ..batch };
            let mut heads = ranges.clone().map(|r| backend.shard(&loss, shape, r, &options).unwrap());
            let targets: Vec<_> = heads.iter_mut().zip(&ranges).map(|(h, r)| h.targets(&own(r)).unwrap()).collect();
            let targets = shard::Targets::merged(&targets, 600).unwrap();
            let sums: Vec<_> =
                heads.iter_mut().zip(&ranges).map(|(h, r)| h.statistics(&own(r), &targets).unwrap()).collect();
            let sums = shard::Statistics::merged(&sums, 600).unwrap();
            let (mut dropped, mut kept, mut entries) = (0.0, 0, 0);
            for (head, range) in heads.iter_mut().zip(&ranges) {
                let part = head.gradients(&own(range), &targets, &sums).unwrap().filtered.unwrap();
                (dropped, kept, entries) = (dropped + part.dropped, kept + part.kept, entries + part.entries);
            }
            let all = whole.filtered.unwrap();
            assert!(kept.abs_diff(all.kept) <= 2 && entries == all.entries, "{kept} {entries} {all:?}");
            close("dropped", dropped.into(), all.dropped.into(), 1e-4 * f64::from(all.dropped));

            let sampler = PartialFc::new(0.3, 1).unwrap();
            let mut head = SampledHead::new(&backend, &loss, shape, &options, sampler).unwrap();
            let step = head.train(&batch).unwrap();
            let filtered = step.output.filtered.unwrap();
            assert_eq!(filtered.entries, 40 * step.classes.len() as u64);
            assert!(filtered.kept < filtered.entries && filtered.dropped > 0.0);
        }
    }
}

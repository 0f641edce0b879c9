//! Partial FC: the draws, and a head over what was drawn.

use margin_softmax::{
    Adaptive, Backend, Batch, Error, MarginSoftmax, Margins, Options, Others, Output, Reduction, Shape, Similarity,
    State, Want,
    objective::{PRESETS, TopK},
    partial::{Classes, PartialFc, SampledHead, SampledOutput},
};
use rand::RngExt;

use crate::common::*;

fn sampler(rate: f64, seed: u64, step: u64) -> PartialFc {
    PartialFc { rate, seed, step }
}

/// Computed by another program from the description: SplitMix64's finaliser, selection sampling, Lemire's bound. A saved run
/// goes on only as long as these do not change.
#[test]
fn the_draws_are_those_that_a_saved_run_expects() {
    let classes = |rate, seed, step, labels: &[i64], classes| {
        sampler(rate, seed, step).sample(labels, None, classes).unwrap().classes
    };
    assert_eq!(classes(0.1, 7, 0, &[30, 4, 30], 50), [4, 7, 11, 30, 35]);
    assert_eq!(classes(0.1, 7, 1, &[30, 4], 50), [2, 4, 26, 30, 40]);
    assert_eq!(classes(0.1, 8, 0, &[4, 30], 50), [0, 4, 30, 34, 48]);
    let many = classes(0.25, 123_456_789, 1000, &[3, 999, 500], 1000);
    assert_eq!((many.len(), &many[..8]), (250, &[1, 3, 6, 11, 12, 13, 17, 20][..]));
    assert_eq!(many.iter().zip(1..).map(|(class, i)| class * i).sum::<usize>(), 20_525_636);
}

/// All positives, the right number, ascending, labels at their places; the same again, and another set in another step.
#[test]
fn a_sample_is_what_it_must_be() {
    let rng = &mut random(2);
    for _ in 0..500 {
        let classes = rng.random_range(1..200_usize);
        let rows = rng.random_range(0..20);
        let rate: f64 = pick(rng, &[1e-9, 0.05, 0.1, 0.29, 0.5, 0.99, 1.0]);
        let labels: Vec<i64> = (0..rows).map(|_| rng.random_range(-1..classes as i64)).collect();
        let draw = sampler(rate, rng.random(), rng.random_range(0..1 << 40));
        let sample = draw.sample(&labels, Some(-1), classes).unwrap();
        assert_eq!(sample, draw.sample(&labels, Some(-1), classes).unwrap());

        let mut positives: Vec<i64> = labels.iter().copied().filter(|&label| label >= 0).collect();
        positives.sort();
        positives.dedup();
        let q = ((rate * classes as f64).floor() as usize).max(1);
        assert_eq!(draw.count(classes), q);
        assert_eq!(sample.classes.len(), q.max(positives.len()), "{classes} classes, rate {rate}");
        assert!(sample.classes.windows(2).all(|w| w[0] < w[1]) && sample.classes.iter().all(|&c| c < classes));
        for (label, place) in labels.iter().zip(&sample.labels) {
            if *label < 0 {
                assert_eq!(*place, -1);
            } else {
                assert_eq!(sample.classes[*place as usize] as i64, *label);
            }
        }
        if positives.len() >= q {
            assert!(sample.classes.iter().map(|&c| c as i64).eq(positives));
        }
        if rate == 1.0 {
            assert!(sample.classes.iter().copied().eq(0..classes) && sample.labels == labels);
        }
    }
    let [a, b, c] =
        [(1, 0), (1, 1), (2, 0)].map(|(seed, step)| sampler(0.3, seed, step).sample(&[5], None, 100).unwrap());
    assert!(a != b && a != c && b != c);
}

/// Every negative class is as likely as any other, and so is every pair of them: no count strays further than chance allows.
#[test]
fn negatives_are_uniform() {
    let (classes, steps, positives) = (40, 40_000_u64, [0_usize, 17, 39]);
    let mut single = vec![0_u32; classes];
    let mut pair = vec![0_u32; classes * classes];
    for step in 0..steps {
        let sample = sampler(0.25, 99, step).sample(&positives, None, classes).unwrap();
        for (i, &a) in sample.classes.iter().enumerate() {
            single[a] += 1;
            sample.classes[i + 1..].iter().for_each(|b| pair[a * classes + b] += 1);
        }
    }
    let n = steps as f64;
    // of a binomial count, in standard deviations; 5 of them are passed by one count in 1.7 million, of some 700 here
    let stray = |count: u32, p: f64| ((f64::from(count) - n * p) / (n * p * (1.0 - p)).sqrt()).abs();
    let negative = |a: &usize| !positives.contains(a);
    for a in (0..classes).filter(negative) {
        assert!(stray(single[a], 7.0 / 37.0) < 5.0, "class {a}: {}", single[a]);
        for b in (a + 1..classes).filter(negative) {
            let count = pair[a * classes + b];
            assert!(stray(count, 7.0 * 6.0 / (37.0 * 36.0)) < 5.0, "classes {a}, {b}: {count}");
        }
    }
    assert!(positives.iter().all(|&a| u64::from(single[a]) == steps));
}

/// A position could have the value of an ignore index that is a class: then the sample has one of its own.
#[test]
fn an_ignored_class_stays_ignored() {
    let sample = sampler(0.1, 1, 0).sample(&[2, 30, 1, 2], Some(2), 40).unwrap();
    assert_eq!(sample.ignore_index, Some(-1));
    assert_eq!((sample.labels[0], sample.labels[3]), (-1, -1));
    assert_eq!(sample.labels[1..3].iter().map(|&l| sample.classes[l as usize]).collect::<Vec<_>>(), [30, 1]);
    let outside = sampler(0.1, 1, 0).sample(&[40_i64, 3], Some(40), 40).unwrap();
    assert_eq!((outside.ignore_index, outside.labels[0]), (Some(40), 40));
}

#[test]
fn bad_rates_and_labels_are_refused() {
    for rate in [0.0, -0.0, -0.5, 1.0_f64.next_up(), 2.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let refused = |e: Error| matches!(e, Error::Parameter { what: "partial_fc.rate", .. });
        assert!(refused(PartialFc::new(rate, 0).unwrap_err()), "{rate}");
        assert!(refused(sampler(rate, 0, 0).sample(&[0], None, 3).unwrap_err()), "{rate}");
        assert!(refused(head(&Backend::reference(), &MarginSoftmax::cosface(), 1, sampler(rate, 0, 0)).err().unwrap()));
    }
    for (label, row) in [(-1, 1), (3, 1), (i64::MAX, 1), (i64::MIN, 1)] {
        let error = sampler(1.0, 0, 0).sample(&[0, label], Some(-100), 3).unwrap_err();
        assert_eq!(error, Error::Label { row, label: label.into(), classes: 3 });
    }
    assert!(sampler(1.0, 0, u64::MAX).validate().is_err());
}

const ROWS: usize = 6;
const CLASSES: usize = 23;
const DIM: usize = 5;

fn shape(classes: usize, sub_centers: usize) -> Shape {
    Shape::new(ROWS, classes, DIM).unwrap().with_sub_centers(sub_centers).unwrap()
}

fn options() -> Options {
    Options { want: Want::ALL.with_scale().with_bias(), ..Default::default() }
}

fn head(backend: &Backend, loss: &MarginSoftmax, k: usize, sampler: PartialFc) -> Result<SampledHead, Error> {
    SampledHead::new(backend, loss, shape(CLASSES, k), &options(), sampler)
}

/// Random data of a batch: everything a loss can take.
struct Data {
    embeddings: Vec<f32>,
    prototypes: Vec<f32>,
    labels: Vec<i64>,
    class_weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    class_margins: [Option<Vec<f32>>; 4],
}

impl Data {
    fn new(seed: u64, loss: &MarginSoftmax, k: usize) -> Self {
        let rng = &mut random(seed);
        let mut some =
            |count, low: f32, high: f32| (0..count).map(|_| rng.random_range(low..high)).collect::<Vec<f32>>();
        let plain =
            loss.adaptive == Adaptive::None && loss.target.name() == "unified" && loss.similarity == Similarity::Cosine;
        Self {
            embeddings: some(ROWS * DIM, -1.0, 1.0),
            prototypes: some(CLASSES * k * DIM, -1.0, 1.0),
            class_weights: some(CLASSES, 0.5, 2.0),
            bias: (loss.similarity == Similarity::Dot).then(|| some(CLASSES, -1.0, 1.0)),
            class_margins: [None, None, None, plain.then(|| some(CLASSES, 0.0, 0.4))],
            labels: (0..ROWS).map(|i| if i == 2 { 4 } else { (i as i64 * 7 + seed as i64) % CLASSES as i64 }).collect(),
        }
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            embeddings: &self.embeddings,
            prototypes: &self.prototypes,
            labels: &self.labels,
            class_weights: Some(&self.class_weights),
            bias: self.bias.as_deref(),
            class_margins: Margins::of(&self.class_margins),
            ..Default::default()
        }
    }

    /// Of these classes alone.
    fn part(&self, classes: &[usize], labels: &[i64]) -> Self {
        let take = |all: &[f32]| {
            let values = all.len() / CLASSES;
            classes.iter().flat_map(|&c| &all[c * values..(c + 1) * values]).copied().collect::<Vec<f32>>()
        };
        Self {
            embeddings: self.embeddings.clone(),
            prototypes: take(&self.prototypes),
            labels: labels.to_vec(),
            class_weights: take(&self.class_weights),
            bias: self.bias.as_deref().map(take),
            class_margins: self.class_margins.each_ref().map(|m| m.as_deref().map(take)),
        }
    }
}

fn backends() -> Vec<Backend> {
    vec![
        Backend::reference(),
        #[cfg(feature = "cpu")]
        Backend::cpu(),
    ]
}

/// Every preset with label smoothing where it can be and an ignore index, once one that is a class.
fn losses() -> Vec<MarginSoftmax> {
    let all = PRESETS.iter().map(|preset| preset.loss().with_ignore_index(4));
    let all = all.map(|loss| if loss.link.name() == "softmax" { loss.with_label_smoothing(0.1) } else { loss });
    all.chain([MarginSoftmax::cosface().with_ignore_index(-100).with_reduction(Reduction::Sum)]).collect()
}

/// Whether the loss takes sub-centers.
fn has(loss: &MarginSoftmax, k: usize) -> bool {
    k == 1 || loss.similarity != Similarity::Dot
}

fn bits(out: &Output) -> Vec<u32> {
    let parts = [&out.row_losses, &out.target_cosines, &out.other_cosines, &out.grad_embeddings, &out.grad_prototypes];
    let all = parts.into_iter().chain([&out.grad_bias]).flatten().chain([&out.loss, &out.grad_scale]);
    all.map(|v| v.to_bits()).collect()
}

/// With a rate of 1: the same bits, step by step, and the same state.
#[test]
fn a_rate_of_one_is_the_whole_head() {
    for backend in backends() {
        for loss in losses() {
            for k in [1, 3] {
                if !has(&loss, k) {
                    continue;
                }
                let mut whole = backend.head_with(&loss, shape(CLASSES, k), &options()).unwrap();
                let mut sampled = head(&backend, &loss, k, sampler(1.0, 5, 0)).unwrap();
                for seed in 0..3 {
                    let data = Data::new(seed, &loss, k);
                    let (a, b) = (whole.train(&data.batch()).unwrap(), sampled.train(&data.batch()).unwrap());
                    assert_eq!((bits(&a), a.counts), (bits(&b.output), b.output.counts), "{loss:?}");
                    assert!(b.classes.iter().copied().eq(0..CLASSES));
                    assert_eq!(whole.state(), sampled.state());
                }
            }
        }
    }
}

/// A step is that of a head over the sampled classes, gathered by hand; evaluations of both kinds move nothing.
#[test]
fn a_step_is_that_of_a_head_over_the_sample() {
    for backend in backends() {
        for loss in losses() {
            for k in [1, 3] {
                // the last rate leaves fewer classes than the batch has labels
                for rate in [0.6, 0.4, 0.14] {
                    let draw = sampler(rate, 5, 0);
                    if !has(&loss, k) {
                        continue;
                    }
                    let mut sampled = match head(&backend, &loss, k, draw) {
                        Err(Error::Parameter { what: "top_k.count", .. }) if rate < 0.3 => continue,
                        sampled => sampled.unwrap(),
                    };
                    for step in 0..3 {
                        let data = Data::new(step, &loss, k);
                        let sample = sampler(rate, 5, step).sample(&data.labels, loss.ignore_index, CLASSES).unwrap();
                        let count = sample.classes.len();
                        let inner = MarginSoftmax { ignore_index: sample.ignore_index, ..loss.clone() };
                        let mut by_hand = backend.head_with(&inner, shape(count, k), &options()).unwrap();
                        by_hand.set_state(&State { classes: count, ..*sampled.state() }).unwrap();
                        let part = data.part(&sample.classes, &sample.labels);

                        let before = (*sampled.state(), *sampled.sampler());
                        let seen = sampled.evaluate(&data.batch(), Classes::Sampled).unwrap();
                        assert_eq!(bits(&seen.output), bits(&by_hand.evaluate(&part.batch()).unwrap()));
                        let all = sampled.evaluate(&data.batch(), Classes::All).unwrap();
                        let mut whole = backend.head_with(&loss, shape(CLASSES, k), &options()).unwrap();
                        whole.set_state(sampled.state()).unwrap();
                        assert_eq!(bits(&all.output), bits(&whole.evaluate(&data.batch()).unwrap()));
                        assert_eq!(all.classes.len(), CLASSES);
                        assert_eq!((*sampled.state(), *sampled.sampler()), before);

                        let out = sampled.train(&data.batch()).unwrap();
                        assert_eq!(out.classes, sample.classes);
                        assert_eq!(bits(&out.output), bits(&by_hand.train(&part.batch()).unwrap()), "{loss:?}");
                        assert_eq!(out.output.grad_prototypes.len(), count * k * DIM);
                        assert_eq!(*sampled.state(), State { classes: CLASSES, ..*by_hand.state() });
                        assert_eq!(sampled.sampler().step, step + 1);
                    }
                }
            }
        }
    }
}

/// The scale of AdaCos starts from the classes of the softmax, and needs three of them.
#[test]
fn adacos_starts_from_the_sample() {
    let (backend, loss) = (Backend::reference(), MarginSoftmax::adacos());
    let start = head(&backend, &loss, 1, sampler(0.5, 0, 0)).unwrap();
    close("scale", start.state().scale, 2.0_f64.sqrt() * 10.0_f64.ln(), 1e-15);
    assert_eq!(start.state().classes, CLASSES);
    let few = head(&backend, &loss, 1, sampler(0.1, 0, 0)).err().unwrap();
    assert!(matches!(few, Error::Combination { what: "adaptive.adacos", .. }));
}

/// Another loss, another rate, another state; what is refused changes nothing.
#[test]
fn a_head_goes_on_with_what_it_is_given() {
    for backend in backends() {
        let loss = MarginSoftmax::arcface();
        let mut one = head(&backend, &loss, 1, sampler(0.6, 5, 0)).unwrap();
        let data = Data::new(0, &loss, 1);
        one.evaluate(&data.batch(), Classes::All).unwrap(); // a further head, which must follow the update
        let other = loss.clone().with_margin(|m| m.m2 = 0.2).with_scale(20.0).with_ignore_index(4);
        one.update(&other).unwrap();
        one.set_sampler(&sampler(0.3, 6, 9)).unwrap();
        one.set_state(&State { step: 77, ..*one.state() }).unwrap();
        assert_eq!((one.loss(), one.shape()), (&other, shape(CLASSES, 1)));
        let mut two = head(&backend, &other, 1, sampler(0.3, 6, 9)).unwrap();
        for classes in [Classes::All, Classes::Sampled] {
            assert_eq!(one.evaluate(&data.batch(), classes), two.evaluate(&data.batch(), classes));
        }

        let before = (one.loss().clone(), *one.state(), *one.sampler());
        let mut out = SampledOutput { classes: vec![1, 2, 3], ..Default::default() };
        for bad in [
            Data { labels: vec![0, 1, 2, 3, 23, 0], ..Data::new(0, &loss, 1) },
            Data { prototypes: vec![0.0; 7], ..Data::new(0, &loss, 1) },
            Data { class_weights: vec![1.0; 3], ..Data::new(0, &loss, 1) },
            Data { class_weights: vec![f32::NAN; CLASSES], ..Data::new(0, &loss, 1) },
            Data { bias: Some(vec![0.0; CLASSES]), ..Data::new(0, &loss, 1) },
        ] {
            assert!(one.train_into(&bad.batch(), &mut out).is_err());
            assert!(one.evaluate(&bad.batch(), Classes::All).is_err());
        }
        assert_eq!(out, SampledOutput { classes: vec![1, 2, 3], ..Default::default() });
        assert!(one.update(&loss.clone().with_scale(-1.0)).is_err());
        // as many classes as the sample has, but not as all classes are
        assert!(one.update(&loss.clone().with_others(Others::TopK(TopK { count: 10, margin: 0.1 }))).is_err());
        assert!(one.set_sampler(&sampler(f64::NAN, 0, 0)).is_err());
        assert!(matches!(
            one.set_state(&State { classes: 6, ..*one.state() }),
            Err(Error::Shape { what: "state", .. })
        ));
        assert_eq!((one.loss().clone(), *one.state(), *one.sampler()), before);
        assert_eq!(one.train(&data.batch()), two.train(&data.batch()));
    }
}

/// No row at all, and only ignored ones.
#[test]
fn a_batch_without_labels_still_has_a_sample() {
    let loss = MarginSoftmax::cosface().with_ignore_index(-1);
    for backend in backends() {
        let mut one = head(&backend, &loss, 1, sampler(1e-9, 5, 0)).unwrap();
        let data = Data { labels: vec![-1; ROWS], ..Data::new(0, &loss, 1) };
        let out = one.train(&data.batch()).unwrap();
        assert_eq!((out.classes.len(), out.output.loss, out.output.counts.ignored), (1, 0.0, ROWS));
        let none = Data { labels: vec![], embeddings: vec![], ..Data::new(0, &loss, 1) };
        assert_eq!(one.train(&none.batch()).unwrap().output.loss, 0.0);
    }
}

/// Stored as f16 and bf16: the bits of the same values in f32, sampled or whole, and a wrong length is named.
#[test]
fn sampled_steps_take_half_types() {
    use half::{bf16, f16};

    let (rows, classes, dim) = (6, 40, 8);
    let rng = &mut random(77);
    let mut values = |count: usize| (0..count * dim).map(|_| rng.random_range(-1.0..1.0_f32)).collect::<Vec<_>>();
    let x: Vec<f16> = values(rows).into_iter().map(f16::from_f32).collect();
    let w: Vec<bf16> = values(classes).into_iter().map(bf16::from_f32).collect();
    let (wide_x, wide_w): (Vec<f32>, Vec<f32>) =
        (x.iter().map(|v| v.to_f32()).collect(), w.iter().map(|v| v.to_f32()).collect());
    let labels = [3_i64, 39, 0, 3, 17, 20];
    let rest = Batch { labels: &labels, ..Batch::default() };
    let batch = Batch { embeddings: &wide_x, prototypes: &wide_w, ..rest };
    let (loss, shape) = (MarginSoftmax::arcface(), Shape::new(rows, classes, dim).unwrap());
    for backend in backends() {
        for rate in [0.3, 1.0] {
            let head = || SampledHead::new(&backend, &loss, shape, &Options::default(), sampler(rate, 5, 0)).unwrap();
            let (mut stored, mut plain) = (head(), head());
            for _ in 0..3 {
                assert_eq!(stored.train_stored(&x, &w, &rest).unwrap(), plain.train(&batch).unwrap(), "{rate}");
            }
            assert_eq!((stored.sampler(), stored.state()), (plain.sampler(), plain.state()));
            let error = stored.train_stored(&x, &w[1..], &rest).unwrap_err();
            assert!(matches!(error, Error::Length { what: "prototypes", .. }), "{error}");
            assert_eq!(stored.sampler().step, 3);
        }
    }
}

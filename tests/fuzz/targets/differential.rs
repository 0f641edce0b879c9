//! The CPU path against the f64 reference: the same errors and counts, the promises on NaN, the same bits for any number of
//! threads; and where nothing jumps within the rounding of a cosine, values and gradients within the gates of tests/cpu.

#![no_main]

#[path = "../case.rs"]
mod case;
#[allow(dead_code)] // the tests' own names
#[path = "../../cpu/common.rs"]
mod common;
#[path = "../losses.rs"]
mod losses;
#[path = "../seeds.rs"]
mod seeds;
#[path = "../steady.rs"]
mod steady;

use std::sync::LazyLock;

use arbitrary::Unstructured;
use case::Case;
use common::{Data, differing, distance};
use libfuzzer_sys::fuzz_target;
use margin_softmax::{
    Adaptive, Backend, Batch, Budget, Error, Margins, Options, Output, Result, Similarity, State, data::SoftLabels,
    reference,
};
use rayon::{ThreadPool, ThreadPoolBuilder};
use steady::Seen;

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}

static POOLS: LazyLock<[ThreadPool; 2]> = LazyLock::new(|| [1, 3].map(pool));

/// Where the gate reaches 1.2e-38: numbers below that have fewer digits in f32.
const MIN: f64 = 1.2e-33;

impl Case {
    fn cpu(&self, options: &Options) -> Result<(Output, State)> {
        let mut head = Backend::cpu().head_with(&self.loss, self.data.shape(), options)?;
        head.set_state(&self.state)?;
        let batch = self.batch();
        let out = if self.train { head.train(&batch)? } else { head.evaluate(&batch)? };
        Ok((out, *head.state()))
    }

    fn reference(&self) -> Result<(Output<f64>, State)> {
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (x, w, data) = (wide(&self.data.x), wide(&self.data.w), &self.data);
        let [weights, upstream, bias] = [&data.weights, &data.upstream, &data.bias].map(|v| v.as_deref().map(wide));
        let [by_class, by_row] =
            [&data.class_margins, &data.row_margins].map(|all| all.each_ref().map(|m| m.as_deref().map(wide)));
        let given = self.batch();
        let row_weights = given.row_weights.map(wide);
        let soft_weights = given.soft_labels.map_or_else(Vec::new, |soft| wide(soft.weights));
        let soft_labels = given.soft_labels.map(|SoftLabels { count, classes, .. }| SoftLabels {
            count,
            classes,
            weights: &soft_weights,
        });
        let batch = Batch {
            row_weights: row_weights.as_deref(),
            soft_labels,
            embeddings: &x,
            prototypes: &w,
            labels: &data.labels,
            class_weights: weights.as_deref(),
            upstream: upstream.as_deref(),
            bias: bias.as_deref(),
            class_margins: Margins::of(&by_class),
            row_margins: Margins::of(&by_row),
            ..Batch::default()
        };
        let mut state = self.state;
        let out = if self.train {
            reference::train(&self.loss, data.shape(), self.want, &batch, &mut state)?
        } else {
            reference::evaluate_with(&self.loss, data.shape(), self.want, &batch, &state)?
        };
        Ok((out, state))
    }

    fn least(&self) -> u64 {
        let options = Options { budget: Budget::bytes(0), ..self.roomy() };
        match Backend::cpu().head_with(&self.loss, self.data.shape(), &options).err() {
            Some(Error::Budget { needed, .. }) => needed,
            _ => 0,
        }
    }

    fn check(&self) {
        let options = self.options(if self.squeeze > 0 { self.least() } else { 0 });
        let [one, three] = POOLS.each_ref().map(|pool| self.threads.then(|| pool.install(|| self.cpu(&options))));
        let one = one.unwrap_or_else(|| self.cpu(&options));
        let three = three.unwrap_or_else(|| one.clone());
        match (&one, &three) {
            (Ok((a, s)), Ok((b, t))) => assert!(bits(a) == bits(b) && s == t, "threads change bits: {a:?} {b:?}"),
            _ => same(one.as_ref().err(), three.as_ref().err()),
        }
        match (one, self.reference()) {
            (Ok((found, after)), Ok((expected, state))) => {
                self.promises(&found, &expected);
                assert_eq!((after.step, after.seed, after.classes), (state.step, state.seed, state.classes));
                assert_eq!(after.validate(self.data.shape()), Ok(()));
                self.agrees(&found, &expected, state);
            }
            (Err(found), Err(expected)) => same(Some(&found), Some(&expected)),
            (found, expected) => panic!("{found:?}, but the reference says {expected:?}"),
        }
    }

    /// Whether f32 holds all products, and sums of them: a linear head that does not leaves rows out.
    fn moderate(&self) -> bool {
        let all = self.data.x.iter().chain(&self.data.w);
        self.loss.similarity == Similarity::Cosine || all.filter(|v| v.is_finite()).all(|v| v.abs() < 1e15)
    }

    /// What holds for every input.
    fn promises(&self, found: &Output, expected: &Output<f64>) {
        if !self.moderate() {
            return;
        }
        assert_eq!(found.counts, expected.counts);
        assert_eq!(found.loss.is_nan(), expected.loss.is_nan(), "{} and {}", found.loss, expected.loss);
        for (i, (f, e)) in found.row_losses.iter().zip(&expected.row_losses).enumerate() {
            assert_eq!(f.is_nan(), e.is_nan(), "row {i}: {f}, expected {e}");
        }
        let gradients = found.grad_embeddings.iter().chain(&found.grad_prototypes).chain(&found.grad_bias);
        assert!(gradients.chain([&found.grad_scale]).all(|g| g.is_finite()), "{found:?}");
        assert!(found.target_cosines.iter().chain(&found.other_cosines).all(|c| c.is_finite()));
        for (i, all) in found.predictions.iter().flat_map(|all| (0..all.rows()).map(move |i| (i, all))) {
            let classes = &all.classes[i * all.count..][..all.count];
            let found_some = classes.iter().filter(|&&class| class != u32::MAX).count();
            let counts = !found.row_losses[i].is_nan() && Some(self.data.labels[i]) != self.loss.ignore_index;
            assert_eq!(found_some, if counts { all.count } else { 0 }, "row {i}: {classes:?}");
            let cosines = &all.cosines[i * all.count..][..found_some];
            assert!(cosines.is_sorted_by(|a, b| a >= b), "row {i}: {cosines:?}");
        }
        let dim = self.data.shape[2];
        for (i, row) in found.grad_embeddings.chunks(dim).enumerate() {
            let out = found.row_losses[i].is_nan() || Some(self.data.labels[i]) == self.loss.ignore_index;
            let short = common::length(&self.data.x[i * dim..(i + 1) * dim]) < 0.9999e-12;
            let cosine = self.loss.similarity == Similarity::Cosine;
            assert!(!(out || short && cosine) || row.iter().all(|&g| g == 0.0), "row {i} is left out: {row:?}");
        }
    }

    /// The gates of tests/cpu, where they mean anything.
    fn agrees(&self, found: &Output, expected: &Output<f64>, after: State) {
        let state = State { step: self.state.step, ..after };
        let seen = Seen::new(&self.loss, &self.data, state);
        // a state that follows the batch in f32 is off by a rounding of its own
        let follows = self.train
            && (self.loss.adaptive == Adaptive::AdaCos || matches!(self.loss.adaptive, Adaptive::AdaFace(_)));
        let broken = found.counts.non_finite_prototypes > 0;
        if self.more.is_some() || !seen.steady || seen.gate > 1e-3 || broken || !self.moderate() || follows {
            return;
        }
        let gate = seen.gate;
        if show() {
            eprintln!("compared, gate {gate:e}");
        }
        let kept: Vec<usize> = (0..found.row_losses.len()).filter(|&i| !expected.row_losses[i].is_nan()).collect();
        let of = |all: &[f32]| kept.iter().map(|&i| all[i]).collect::<Vec<_>>();
        let wide = |all: &[f64]| kept.iter().map(|&i| all[i]).collect::<Vec<_>>();
        let size = seen.size();
        let relative = |e: f64| e.abs().max(1e-30);
        let mut bad = differing("row_losses", &of(&found.row_losses), &wide(&expected.row_losses), gate, relative);
        bad.extend(differing("target_cosines", &found.target_cosines, &expected.target_cosines, 5e-7, |_| size));
        bad.extend(differing("other_cosines", &found.other_cosines, &expected.other_cosines, 2e-6, |_| size));
        if kept.len() == found.row_losses.len() {
            bad.extend(differing("loss", &[found.loss], &[expected.loss], gate, relative));
        }
        let pulls = seen.pulls(expected);
        let all: f64 = pulls.iter().sum();
        bad.extend(differing("dL/ds", &[found.grad_scale], &[expected.grad_scale], gate, |e| {
            e.abs().max(2.0 * size * all).max(1e-30)
        }));
        assert!(bad.is_empty(), "gate {gate:e}, slope {:e}\n{}", seen.slope, bad.join("\n"));

        let dim = self.data.shape[2];
        let vectors = |what: &str, found: &[f32], expected: &[f64], natural: &dyn Fn(usize) -> f64| {
            assert_eq!(found.len(), expected.len());
            let mut largest = 0.0_f64;
            for (i, (found, expected)) in found.chunks(dim).zip(expected.chunks(dim)).enumerate() {
                let bad = differing(what, found, expected, gate, |_| natural(i).max(MIN));
                assert!(bad.is_empty(), "vector {i}, gate {gate:e}, natural {:e}\n{}", natural(i), bad.join("\n"));
                largest = largest.max(natural(i));
            }
            // far enough from 0 to be compared relative to its own size
            let own = expected.iter().fold(0.0_f64, |m, e| m.max(e.abs()));
            if own > 0.3 * largest && own > MIN {
                let off = distance(found, expected);
                assert!(off <= gate, "{what} is off by {off:e}, gate {gate:e}");
            }
        };
        vectors("dX", &found.grad_embeddings, &expected.grad_embeddings, &|i| {
            pulls[i].max(MIN) * seen.lever(0, i) + seen.attraction() + seen.vanished(0, i, &pulls) / gate
        });
        vectors("dW", &found.grad_prototypes, &expected.grad_prototypes, &|v| {
            all.max(MIN) * seen.lever(1, v) + seen.vanished(1, v, &pulls) / gate
        });
        let scale = seen.scale() * seen.slope;
        let bad = differing("db", &found.grad_bias, &expected.grad_bias, gate, |e| e.abs().max(all * scale).max(1e-30));
        assert!(bad.is_empty(), "gate {gate:e}\n{}", bad.join("\n"));
    }
}

/// The same error, though a NaN be in it.
fn same(a: Option<&Error>, b: Option<&Error>) {
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

/// Everything of an output.
fn bits(out: &Output) -> impl PartialEq + use<> {
    let all = [
        &out.row_losses,
        &out.target_cosines,
        &out.other_cosines,
        &out.grad_embeddings,
        &out.grad_prototypes,
        &out.grad_bias,
    ];
    let all = all.map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
    (out.loss.to_bits(), out.grad_scale.to_bits(), out.counts, all)
}

/// Whether a person wants to see what the bytes stand for: `MARGIN_SOFTMAX_SHOW=1`.
fn show() -> bool {
    std::env::var_os("MARGIN_SOFTMAX_SHOW").is_some()
}

fuzz_target!(init: seeds::write(seeds::noise), |data: &[u8]| {
    if let Ok(Some(case)) = Case::new(&mut Unstructured::new(data)) {
        if show() {
            let Case { loss, data, want, state, train, squeeze, .. } = &case;
            eprintln!(
                "{loss:?}\n{:?} K {} {want:?} {state:?} train {train} squeeze {squeeze}",
                data.shape, data.centers
            );
            eprintln!("x {:?}\nw {:?}\nlabels {:?}", data.x, data.w, data.labels);
            let Data { weights, upstream, bias, class_margins, row_margins, .. } = data;
            eprintln!("{weights:?} {upstream:?} {bias:?} {class_margins:?} {row_margins:?}");
        }
        case.check();
    }
});

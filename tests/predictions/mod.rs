//! The agreement of predictions with the reference, on any backend.

use margin_softmax::{
    Adaptive, Backend, Error, Link, MarginSoftmax, Options, Shape, Similarity, State,
    data::{Inputs, Predictions},
    objective::{Binary, Length},
    reference,
};

/// Vectors of a prediction and the loss whose cosines they have.
#[derive(Clone)]
pub struct Problem {
    pub name: String,
    pub loss: MarginSoftmax,
    pub shape: Shape,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub bias: Option<Vec<f32>>,
}

/// Numbers of (−1, 1) that look random.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// As the reference gives them.
pub fn widened(all: Predictions) -> Predictions<f64> {
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect();
    Predictions {
        count: all.count,
        range: all.range,
        classes: all.classes,
        cosines: wide(&all.cosines),
        log_probabilities: wide(&all.log_probabilities),
        sub_centers: all.sub_centers,
        log_sum_exps: wide(&all.log_sum_exps),
        non_finite_rows: all.non_finite_rows,
        non_finite_prototypes: all.non_finite_prototypes,
    }
}

impl Problem {
    /// `kind`: softmax, binary, linear or length; `sizes`: rows, classes, dim, sub-centers.
    pub fn new(kind: &str, [rows, classes, dim, centers]: [usize; 4]) -> Self {
        let loss = match kind {
            "softmax" => MarginSoftmax::arcface().with_scale(30.0),
            "binary" => {
                let link = Link::Binary(Binary { bias: -3.0, ..Binary::default() });
                MarginSoftmax { link, ..MarginSoftmax::sphereface2() }.with_scale(20.0)
            }
            "length" => {
                let length = Length { lower_length: 0.5, upper_length: 6.0 };
                MarginSoftmax::cosface().with_scale(5.0).with_adaptive(Adaptive::Length(length))
            }
            _ => MarginSoftmax { scale: 2.0, ..MarginSoftmax::softmax() },
        };
        let shape = Shape::new(rows, classes, dim).unwrap().with_sub_centers(centers).unwrap();
        let bias = (kind == "linear").then(|| numbers(classes, 3));
        let (x, w) = (numbers(rows * dim, 1), numbers(shape.prototypes().unwrap(), 2));
        Self { name: format!("{kind} {rows}x{classes}x{dim}x{centers}"), loss, shape, x, w, bias }
    }

    /// The scale of a row.
    fn row_scale(&self, row: usize) -> f64 {
        let x = &self.x[row * self.shape.dim()..][..self.shape.dim()];
        let length = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        match self.loss.adaptive {
            Adaptive::Length(f) => self.loss.scale * length.clamp(f.lower_length, f.upper_length),
            _ => self.loss.scale,
        }
    }

    /// The table: every kind with one and more sub-centers, sizes around every boundary.
    pub fn table() -> Vec<Self> {
        let sizes = [
            [1, 1, 1, 1],
            [3, 5, 3, 1],
            [17, 1000, 8, 1],
            [70, 700, 24, 3],
            [130, 70, 5, 1],
            [2, 20_003, 16, 1],
            [5, 129, 600, 2],
        ];
        let all =
            sizes.into_iter().flat_map(|sizes| ["softmax", "binary", "linear", "length"].map(|kind| (kind, sizes)));
        // a linear head has no sub-centers
        all.filter(|(kind, sizes)| *kind != "linear" || sizes[3] == 1).map(|(kind, s)| Self::new(kind, s)).collect()
    }

    /// The numbers of classes to predict: 1, 5 and the most.
    pub fn counts(&self) -> Vec<usize> {
        let mut all = [1, 5, 64].map(|k| k.min(self.shape.classes())).to_vec();
        all.dedup();
        all
    }

    pub fn inputs(&self) -> Inputs<'_> {
        Inputs { embeddings: &self.x, prototypes: &self.w, bias: self.bias.as_deref() }
    }

    pub fn reference(&self, count: usize) -> Predictions<f64> {
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (x, w, bias) = (wide(&self.x), wide(&self.w), self.bias.as_deref().map(wide));
        let inputs = Inputs { embeddings: &x, prototypes: &w, bias: bias.as_deref() };
        let (all, state) = (0..self.shape.classes(), State::new(&self.loss, self.shape).unwrap());
        reference::predict(&self.loss, self.shape, all, count, &inputs, &state).unwrap()
    }

    pub fn predict(&self, backend: &Backend, count: usize, options: &Options) -> Predictions {
        let mut predictor = backend.predictor(&self.loss, self.shape, count, options).unwrap();
        predictor.predict(&self.inputs()).unwrap()
    }

    /// From shards of the classes, each with a predictor of its own; the last first.
    pub fn in_shards(&self, backend: &Backend, count: usize, cuts: &[usize], options: &Options) -> Predictions {
        let classes = self.shape.classes();
        let wide = self.shape.dim() * self.shape.sub_centers();
        let ends: Vec<usize> = [0].iter().chain(cuts).chain(&[classes]).copied().collect();
        let part = |ends: &[usize]| {
            let own = ends[0]..ends[1];
            let mut predictor = backend.predictor_shard(&self.loss, self.shape, own.clone(), count, options).unwrap();
            let inputs = Inputs {
                prototypes: &self.w[own.start * wide..own.end * wide],
                bias: self.bias.as_deref().map(|b| &b[own.clone()]),
                ..self.inputs()
            };
            predictor.predict(&inputs).unwrap()
        };
        let parts: Vec<Predictions> = ends.windows(2).rev().map(part).collect();
        Predictions::merged(&parts, classes).unwrap()
    }

    /// The cosine of a row with a prototype of a class, in f64.
    fn cosine(&self, row: usize, class: u32, center: u32) -> f64 {
        let (dim, vector) = (self.shape.dim(), class as usize * self.shape.sub_centers() + center as usize);
        let (x, w) = (&self.x[row * dim..][..dim], &self.w[vector * dim..][..dim]);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        match self.loss.similarity {
            Similarity::Dot => dot(x, w) + self.bias.as_ref().map_or(0.0, |b| f64::from(b[class as usize])),
            Similarity::Cosine => dot(x, w) / (dot(x, x).sqrt().max(1e-12) * dot(w, w).sqrt().max(1e-12)),
        }
    }

    /// Predictions are those of the reference, but where two cosines differ by less than the gate.
    ///
    /// A cosine may be off by 2e-6, a plain product by so much of the lengths (at most √D each, numbers below 1). A log-probability
    /// has two such errors times the scale, that of its cosine and that of the sum, and some roundings of its own.
    pub fn agrees(&self, how: &str, found: &Predictions, expected: &Predictions<f64>) {
        let name = format!("{} k {} {how}", self.name, expected.count);
        let gate = match self.loss.similarity {
            Similarity::Dot => 2e-6 * (1.0 + self.shape.dim() as f64),
            Similarity::Cosine => 2e-6,
        };
        assert_eq!(
            (found.count, &found.range, found.rows()),
            (expected.count, &expected.range, expected.rows()),
            "{name}"
        );
        let counts = |a: usize, b: usize| (a, b);
        assert_eq!(
            counts(found.non_finite_rows, found.non_finite_prototypes),
            counts(expected.non_finite_rows, expected.non_finite_prototypes),
            "{name}"
        );
        assert_eq!(found.log_sum_exps.len(), expected.log_sum_exps.len(), "{name}");
        for at in 0..expected.classes.len() {
            let (row, class, other) = (at / expected.count, found.classes[at], expected.classes[at]);
            let name = format!("{name}, row {row}, place {}", at % expected.count);
            assert_eq!(class == u32::MAX, other == u32::MAX, "{name}: class {class}, not {other}");
            if other == u32::MAX {
                let (cosine, log) = (found.cosines[at], found.log_probabilities[at]);
                assert!(cosine.is_nan() && log.is_nan() && found.sub_centers[at] == 0, "{name}: {cosine}, {log}");
                assert!(found.log_sum_exps.get(row).is_none_or(|sum| sum.is_nan()), "{name}");
                continue;
            }
            let cosine = f64::from(found.cosines[at]);
            let own = self.cosine(row, class, found.sub_centers[at]);
            assert!((cosine - own).abs() <= gate, "{name}: {cosine} of class {class}, whose cosine is {own}");
            assert!((cosine - expected.cosines[at]).abs() <= gate, "{name}: {cosine}, not {}", expected.cosines[at]);
            let log = f64::from(found.log_probabilities[at]);
            let scale = self.row_scale(row);
            let z = scale * cosine;
            let most = 2.0 * scale * gate + 1e-6 * (3.0 + z.abs() + log.abs());
            let exact = expected.log_probabilities[at];
            assert!(log <= 0.0 && (log - exact).abs() <= most, "{name}: log-probability {log}, not {exact}");
            if let (Some(&sum), Some(&exact)) = (found.log_sum_exps.get(row), expected.log_sum_exps.get(row)) {
                assert!((f64::from(sum) - exact).abs() <= most, "{name}: log-sum-exp {sum}, not {exact}");
            }
            let before = (at % expected.count).checked_sub(1).map(|_| at - 1);
            let ordered = |b: usize| {
                let (a, c) = (found.cosines[b], found.cosines[at]);
                a > c || a == c && found.classes[b] < class
            };
            assert!(before.is_none_or(ordered), "{name}: out of order");
        }
    }
}

/// Every problem × k, as a whole within two budgets and in shards.
pub fn every_problem_agrees(backend: &Backend) {
    for problem in Problem::table() {
        let classes = problem.shape.classes();
        for count in problem.counts() {
            let expected = problem.reference(count);
            let least = Options {
                budget: margin_softmax::Budget::bytes(least(backend, &problem, count)),
                ..Options::default()
            };
            for (how, options) in [("default", Options::default()), ("least budget", least)] {
                problem.agrees(how, &problem.predict(backend, count, &options), &expected);
            }
            if classes > 4 {
                let cuts = [1, classes / 2];
                problem.agrees("shards", &problem.in_shards(backend, count, &cuts, &Options::default()), &expected);
            }
        }
    }
}

/// The same call again, and on a predictor of its own, has the same bits; within the least budget and in shards the ids are the
/// same but where two cosines differ by less than both may be off.
pub fn calls_are_repeatable(backend: &Backend) {
    for problem in Problem::table().iter().step_by(3) {
        let count = 5.min(problem.shape.classes());
        let mut predictor = backend.predictor(&problem.loss, problem.shape, count, &Options::default()).unwrap();
        let first = predictor.predict(&problem.inputs()).unwrap();
        assert_eq!(predictor.predict(&problem.inputs()).unwrap(), first, "{}, again", problem.name);
        assert_eq!(problem.predict(backend, count, &Options::default()), first, "{}, anew", problem.name);
        let budget = margin_softmax::Budget::bytes(least(backend, problem, count));
        let chunks = problem.predict(backend, count, &Options { budget, ..Options::default() });
        let mut others = vec![("chunks", chunks)];
        let classes = problem.shape.classes();
        if classes > 4 {
            others
                .push(("shards", problem.in_shards(backend, count, &[classes / 3, classes - 1], &Options::default())));
        }
        // the gate of `agrees`, twice
        let gate = match problem.loss.similarity {
            Similarity::Dot => 4e-6 * (1.0 + problem.shape.dim() as f64),
            Similarity::Cosine => 4e-6,
        };
        for (how, found) in others {
            for (at, (&class, &expected)) in found.classes.iter().zip(&first.classes).enumerate() {
                let row = at / count;
                let cosine = |class: u32, all: &Predictions| problem.cosine(row, class, all.sub_centers[at]);
                let near = || (cosine(class, &found) - cosine(expected, &first)).abs() <= gate;
                assert!(class == expected || near(), "{}, {how}: class {class}, not {expected}", problem.name);
            }
        }
    }
}

/// What a refused budget says would be enough.
pub fn least(backend: &Backend, problem: &Problem, count: usize) -> u64 {
    let options = Options { budget: margin_softmax::Budget::bytes(0), ..Options::default() };
    match backend.predictor(&problem.loss, problem.shape, count, &options).err() {
        Some(Error::Budget { needed, .. }) => needed,
        // the reference has no budget
        None => 0,
        other => panic!("{other:?}"),
    }
}

/// Equal prototypes are exact ties, wherever they lie: the lower class comes first. The vectors have one value each, so that no
/// order of a sum rounds.
pub fn ties_go_to_the_lower_class(backend: &Backend) {
    let (classes, dim) = (3000, 8);
    let mut problem = Problem::new("softmax", [4, classes, dim, 1]);
    problem.w = (0..classes * dim).map(|i| if i % dim == (i / dim) % 2 { 2.0 } else { 0.0 }).collect();
    problem.x = (0..4 * dim).map(|i| if i % dim == (i / dim) % 2 { 0.5 } else { 0.0 }).collect();
    for count in [1, 5, 64] {
        let expected = problem.reference(count);
        let found = problem.predict(backend, count, &Options::default());
        assert_eq!(found.classes, expected.classes);
        assert!(found.classes[..count].iter().enumerate().all(|(k, &class)| class == 2 * k as u32));
        let found = problem.in_shards(backend, count, &[7, 1001], &Options::default());
        assert_eq!(found.classes, expected.classes);
    }
}

/// Rows and prototypes that are not finite, zero vectors, logits of a linear head beyond f32.
pub fn poisoned_vectors_are_reported(backend: &Backend) {
    for kind in ["softmax", "binary", "linear"] {
        let mut problem = Problem::new(kind, [6, 300, 8, 1]);
        problem.x[2 * 8 + 3] = f32::NAN;
        problem.x[4 * 8] = f32::INFINITY;
        problem.x[5 * 8..].fill(0.0);
        problem.w[17 * 8..18 * 8].fill(0.0);
        let expected = problem.reference(5);
        assert_eq!((expected.non_finite_rows, expected.classes[10], expected.classes[20]), (2, u32::MAX, u32::MAX));
        problem.agrees("poisoned rows", &problem.predict(backend, 5, &Options::default()), &expected);
        problem.agrees("poisoned rows", &problem.in_shards(backend, 5, &[100], &Options::default()), &expected);
        problem.w[250 * 8 + 1] = f32::NEG_INFINITY;
        let expected = problem.reference(5);
        assert!(expected.non_finite_prototypes == 1 && expected.classes.iter().all(|&class| class == u32::MAX));
        problem.agrees("a poisoned prototype", &problem.predict(backend, 5, &Options::default()), &expected);
        let found = problem.in_shards(backend, 5, &[100], &Options::default());
        problem.agrees("a poisoned prototype in shards", &found, &expected);
    }
    // as in a step: rows whose logits no f32 holds have no prediction, whichever end they leave it at
    for sign in [1.0, -1.0] {
        let mut problem = Problem::new("linear", [3, 300, 8, 1]);
        problem.x[8..16].fill(sign * 1e20);
        problem.w[40 * 8..41 * 8].fill(1e20);
        let found = problem.predict(backend, 5, &Options::default());
        assert_eq!((found.non_finite_rows, found.nearest().nth(1)), (1, Some(None)), "{sign}");
        assert!(found.nearest().flatten().count() == 2, "{sign}");
        let found = problem.in_shards(backend, 5, &[100], &Options::default());
        assert_eq!((found.non_finite_rows, found.nearest().nth(1)), (1, Some(None)), "{sign}");
    }
}

//! Every family with every option, each under random batches, and its loss written out from the definitions.

use std::f64::consts::PI;

use margin_softmax::{objective::*, *};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::{
    common::*,
    families::{self, OthersFacts, Row},
};

/// A curve from outside: a·x³ + b·x − c.
#[derive(Debug)]
pub struct Cubic(pub [f64; 3]);

impl Margin for Cubic {
    fn name(&self) -> &str {
        "cubic"
    }

    fn value_slope(&self, x: f64) -> (f64, f64) {
        let [a, b, c] = self.0;
        (a * x.powi(3) + b * x - c, 3.0 * a * x * x + b)
    }

    fn wgsl(&self) -> &str {
        "fn margin_target(x: f32) -> ValueSlope {
    let a = parameter(0);
    return ValueSlope(a * x * x * x + parameter(1) * x - parameter(2), 3.0 * a * x * x + parameter(1));
}"
    }

    fn parameters(&self) -> Vec<f64> {
        self.0.to_vec()
    }
}

/// A loss with everything that a call may bring.
#[derive(Clone, Debug)]
pub struct Problem {
    pub loss: MarginSoftmax,
    pub shape: Shape,
    pub embeddings: Vec<f64>,
    pub prototypes: Vec<f64>,
    pub labels: Vec<i64>,
    pub weights: Option<Vec<f64>>,
    pub row_weights: Option<Vec<f64>>,
    pub divisor: Option<f64>,
    pub upstream: Option<Vec<f64>>,
    pub bias: Option<Vec<f64>>,
    pub class_margins: [Option<Vec<f64>>; 4],
    pub row_margins: [Option<Vec<f64>>; 4],
    pub state: State,
}

pub const EVERYTHING: Want = Want::ALL.with_scale().with_bias();

impl Problem {
    /// Vectors and labels alone, at the state before the first step.
    pub fn new(loss: MarginSoftmax, shape: Shape, x: Vec<f64>, w: Vec<f64>, labels: Vec<i64>) -> Self {
        let state = State::new(&loss, shape).expect("a loss of this many classes");
        let (embeddings, prototypes) = (x, w);
        let none = || [None, None, None, None];
        let (class_margins, row_margins) = (none(), none());
        Self {
            loss,
            shape,
            embeddings,
            prototypes,
            labels,
            weights: None,
            row_weights: None,
            divisor: None,
            upstream: None,
            bias: None,
            class_margins,
            row_margins,
            state,
        }
    }

    pub fn batch(&self) -> Batch<'_, i64, f64> {
        Batch {
            embeddings: &self.embeddings,
            prototypes: &self.prototypes,
            labels: &self.labels,
            class_weights: self.weights.as_deref(),
            row_weights: self.row_weights.as_deref(),
            divisor: self.divisor,
            upstream: self.upstream.as_deref(),
            bias: self.bias.as_deref(),
            class_margins: Margins::of(&self.class_margins),
            row_margins: Margins::of(&self.row_margins),
            soft_labels: None,
        }
    }

    pub fn try_run(&self) -> Result<Output<f64>> {
        reference::evaluate_with(&self.loss, self.shape, EVERYTHING, &self.batch(), &self.state)
    }

    #[track_caller]
    pub fn run(&self) -> Output<f64> {
        self.try_run().unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// One training step.
    #[track_caller]
    pub fn train(&mut self) -> Output<f64> {
        let mut state = self.state;
        let out = reference::train(&self.loss, self.shape, EVERYTHING, &self.batch(), &mut state);
        self.state = state;
        out.unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    pub fn classes(&self) -> usize {
        self.shape.classes()
    }

    pub fn ignored(&self, i: usize) -> bool {
        Some(self.labels[i]) == self.loss.ignore_index
    }

    /// The rows that are not ignored.
    pub fn counted(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        (0..self.rows()).filter(|&i| !self.ignored(i))
    }

    pub fn label(&self, i: usize) -> usize {
        self.labels[i] as usize
    }

    pub fn embedding(&self, i: usize) -> &[f64] {
        let dim = self.shape.dim();
        &self.embeddings[i * dim..(i + 1) * dim]
    }

    /// The cosine of an embedding with a prototype by the school formula, or the product of a linear head.
    fn product(&self, i: usize, v: usize) -> f64 {
        let (x, w) = (self.embedding(i), &self.prototypes[v * self.shape.dim()..(v + 1) * self.shape.dim()]);
        match self.loss.similarity {
            Similarity::Cosine => dot(x, w) / (length(x) * length(w)),
            Similarity::Dot => dot(x, w) + self.bias.as_ref().map_or(0.0, |b| b[v]),
        }
    }

    /// The cosines of a class' prototypes, the largest first.
    fn centers(&self, i: usize, j: usize) -> Vec<f64> {
        let k = self.shape.sub_centers();
        let mut all: Vec<f64> = (j * k..(j + 1) * k).map(|v| self.product(i, v)).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        all
    }

    pub fn cosine(&self, i: usize, j: usize) -> f64 {
        self.centers(i, j)[0]
    }

    /// The other classes' cosines, the largest first.
    pub fn others(&self, i: usize) -> Vec<f64> {
        let mut all: Vec<f64> =
            (0..self.classes()).filter(|&j| j != self.label(i)).map(|j| self.cosine(i, j)).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        all
    }

    pub fn weight(&self, j: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |w| w[j])
    }

    pub fn row_weight(&self, i: usize) -> f64 {
        self.row_weights.as_ref().map_or(1.0, |v| v[i])
    }

    /// The weights of the rows that count, with those of their classes.
    pub fn normalizer(&self) -> f64 {
        self.counted().map(|i| self.row_weight(i) * self.weight(self.label(i))).sum()
    }

    /// m0..m3 of every row, from the definitions: the row's, the class', the loss' own; then what is adaptive.
    pub fn margins(&self) -> Vec<[f64; 4]> {
        let own = match &self.loss.target {
            Target::Unified(m) => m.margins(),
            _ => [1.0, 1.0, 0.0, 0.0],
        };
        let mut all = vec![own; self.rows()];
        for i in self.counted() {
            for (k, m) in all[i].iter_mut().enumerate() {
                let class = self.class_margins[k].as_ref().map(|m| m[self.label(i)]);
                *m = self.row_margins[k].as_ref().map(|m| m[i]).or(class).unwrap_or(*m);
            }
        }
        match self.loss.adaptive {
            Adaptive::None | Adaptive::Length(_) | Adaptive::AdaCos => {}
            Adaptive::AdaFace(AdaFace { margin, concentration, .. }) => {
                for i in self.counted() {
                    let long = length(self.embedding(i)).clamp(1e-3, 100.0);
                    let z = concentration * (long - self.state.norm_mean) / (self.state.norm_deviation + 1e-3);
                    (all[i][2], all[i][3]) = (-margin * z.clamp(-1.0, 1.0), margin + margin * z.clamp(-1.0, 1.0));
                }
            }
            Adaptive::MagFace(f) => {
                for i in self.counted() {
                    let long = length(self.embedding(i)).clamp(f.lower_length, f.upper_length);
                    let share = (long - f.lower_length) / (f.upper_length - f.lower_length);
                    all[i][2] = f.lower_margin + share * (f.upper_margin - f.lower_margin);
                }
            }
            Adaptive::Elastic(f) => {
                let mut draws = Elastic { sorted: false, ..f }.draws(&self.state, self.rows());
                if f.sorted {
                    draws.sort_by(f64::total_cmp);
                    // the k-th largest draw to the k-th smallest cosine; what does not count takes the smallest
                    let mut order: Vec<usize> = self.counted().collect();
                    order.sort_by(|&a, &b| self.cosine(a, self.label(a)).total_cmp(&self.cosine(b, self.label(b))));
                    let largest: Vec<f64> = draws.iter().rev().copied().take(order.len()).collect();
                    draws = vec![0.0; self.rows()];
                    order.iter().zip(largest).for_each(|(&i, draw)| draws[i] = draw);
                }
                for (m, draw) in all.iter_mut().zip(draws) {
                    if f.cosine {
                        m[3] += draw;
                    } else {
                        m[2] = (m[2] + draw).clamp(-3.0, 3.0);
                    }
                }
            }
        }
        all
    }

    /// The same loss with adaptive margins and draws written out as margins of rows: what an embedding's gradient sees
    /// of them.
    pub fn frozen(&self) -> Self {
        let which = match self.loss.adaptive {
            Adaptive::AdaFace(_) => &[2, 3][..],
            Adaptive::Elastic(Elastic { cosine, .. }) => &[if cosine { 3 } else { 2 }],
            _ => return self.clone(),
        };
        let (mut frozen, margins) = (self.clone(), self.margins());
        frozen.loss.adaptive = Adaptive::None;
        for &k in which {
            frozen.row_margins[k] = Some(margins.iter().map(|m| m[k]).collect());
        }
        frozen
    }

    pub fn scale(&self) -> f64 {
        if self.loss.adaptive == Adaptive::AdaCos { self.state.scale } else { self.loss.scale }
    }

    /// The scale of a row.
    pub fn row_scale(&self, i: usize) -> f64 {
        let factor = match self.loss.adaptive {
            Adaptive::Length(f) => length(self.embedding(i)).clamp(f.lower_length, f.upper_length),
            _ => 1.0,
        };
        self.scale() * factor
    }

    /// The largest of a row, and the scale of the loss.
    pub fn largest_scale(&self) -> f64 {
        (0..self.rows()).map(|i| self.row_scale(i)).fold(self.scale(), f64::max)
    }

    pub fn set_scale(&mut self, scale: f64) {
        if self.loss.adaptive == Adaptive::AdaCos {
            self.state.scale = scale;
        } else {
            self.loss.scale = scale;
        }
    }

    /// MagFace's term of the length of a row, weights included; 0 for any other loss.
    pub fn length_term(&self, i: usize) -> f64 {
        let Adaptive::MagFace(f) = self.loss.adaptive else { return 0.0 };
        let a = length(self.embedding(i)).clamp(f.lower_length, f.upper_length);
        self.row_weight(i) * self.weight(self.label(i)) * f.weight * (a / f.upper_length.powi(2) + 1.0 / a)
    }

    /// The divisor of the reduced loss.
    pub fn divisor(&self) -> f64 {
        match self.loss.reduction {
            Reduction::Mean => self.divisor.unwrap_or(self.normalizer()),
            _ => 1.0,
        }
    }

    /// The reduced loss from the rows' losses.
    pub fn reduced(&self, rows: &[f64]) -> f64 {
        let z = self.divisor();
        if z > 0.0 { rows.iter().sum::<f64>() / z } else { 0.0 }
    }

    /// The scalar whose gradients come out: Σ upstream · loss.
    pub fn weighed(&self, rows: &[f64]) -> f64 {
        match (&self.upstream, self.loss.reduction) {
            (Some(up), Reduction::None) => dot(up, rows),
            (up, _) => up.as_ref().map_or(1.0, |up| up[0]) * self.reduced(rows),
        }
    }

    /// The same from the reference, the reduced loss included where it can be.
    pub fn objective(&self) -> f64 {
        let out = self.run();
        match (&self.upstream, self.loss.reduction) {
            (Some(_), Reduction::None) => self.weighed(&out.row_losses),
            (up, _) => up.as_ref().map_or(1.0, |up| up[0]) * out.loss,
        }
    }

    /// The log-sum-exp of a row's logits.
    pub fn log_sum_exp(z: &[f64]) -> f64 {
        let most = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        most + z.iter().map(|z| (z - most).exp()).sum::<f64>().ln()
    }

    /// The rows' losses by their definition, from values without scale: torch.nn.functional.cross_entropy with the factors of
    /// focal loss and the z-loss, or SphereFace2's sum; with MagFace's term.
    pub fn defined(&self, value: impl Fn(usize, usize, f64) -> f64) -> Vec<f64> {
        let (classes, epsilon) = (self.classes(), self.loss.label_smoothing);
        let row = |i: usize| {
            if self.ignored(i) {
                return 0.0;
            }
            let y = self.label(i);
            let z: Vec<f64> = (0..classes).map(|j| self.row_scale(i) * value(i, j, self.cosine(i, j))).collect();
            let softplus = |z: f64| z.max(0.0) + (-z.abs()).exp().ln_1p();
            let entropy = match self.loss.link {
                Link::Softmax => {
                    let all = Self::log_sum_exp(&z);
                    let surprise = |j: usize| self.weight(j) * (all - z[j]);
                    let one = (1.0 - epsilon) * surprise(y);
                    let entropy = one + epsilon / classes as f64 * (0..classes).map(surprise).sum::<f64>();
                    let wrong: f64 = (0..classes).filter(|&j| j != y).map(|j| (z[j] - all).exp()).sum();
                    let focal = if self.loss.focal > 0.0 { wrong.powf(self.loss.focal) } else { 1.0 };
                    focal * entropy + self.weight(y) * self.loss.z_loss * all.powi(2)
                }
                Link::Binary(Binary { weight, factor, bias }) => {
                    let negative: f64 = (0..classes).filter(|&j| j != y).map(|j| softplus(z[j] + bias)).sum();
                    self.weight(y) * factor * (weight * softplus(-z[y] - bias) + (1.0 - weight) * negative)
                }
            };
            self.row_weight(i) * entropy + self.length_term(i)
        };
        (0..self.rows()).map(row).collect()
    }

    /// The value of a class at a cosine, from the formulas of its family.
    pub fn value(&self, i: usize, j: usize, c: f64, margins: &[f64; 4]) -> f64 {
        if j == self.label(i) { self.target_value(c, margins) } else { self.other_value(i, c, margins) }
    }

    fn target_value(&self, x: f64, m: &[f64; 4]) -> f64 {
        match &self.loss.target {
            // pinned curve by curve in slopes.rs
            Target::Unified(margin) => {
                let [m0, m1, m2, m3] = *m;
                Unified { m0, m1, m2, m3, ..margin.clone() }.value_slope(x).0
            }
            Target::Angle(angle) => angle_value(angle, x),
            Target::SimilarityAdjustment(p) if p.angular => {
                let (turned, beyond) = ((x.acos() + p.margin).cos(), x.acos() + p.margin > PI);
                power_value(p.exponent, if beyond { x - (1.0 - p.margin.cos()) } else { turned })
            }
            Target::SimilarityAdjustment(p) => power_value(p.exponent, x) - p.margin,
            // golden numbers pin the others
            other => other.value_slope(x).0,
        }
    }

    /// The value of another class at a cosine.
    pub fn other_value(&self, i: usize, c: f64, m: &[f64; 4]) -> f64 {
        match &self.loss.others {
            Others::Rectified => c.max(0.0),
            Others::Angle(angle) => angle_value(angle, c),
            Others::Curricular => {
                let x = self.cosine(i, self.label(i));
                if c > (x.acos() + m[2]).cos() { c * (self.state.hardness + c) } else { c }
            }
            Others::TopK(top) => {
                let chosen = c >= self.others(i)[top.count - 1];
                if chosen { (c.acos() - top.margin).max(0.0).cos() } else { c }
            }
            Others::InterclassFilter(filter) => {
                if c > filter.threshold {
                    0.0
                } else {
                    c
                }
            }
            Others::SimilarityAdjustment(p) if p.angular => power_value(p.exponent, (c.acos() - p.margin).cos()),
            Others::SimilarityAdjustment(p) => power_value(p.exponent, c) + p.margin,
            Others::MvSoftmax(mv) => {
                let phi = self.target_value(self.cosine(i, self.label(i)), m);
                let factor = if mv.fixed { 1.0 } else { mv.weight + 1.0 };
                if c > phi { factor * c + mv.weight } else { c }
            }
            Others::ArcNeg(ArcNeg { factor, mean, deviation }) => {
                let phi = self.target_value(self.cosine(i, self.label(i)), m);
                let t = factor * (-(c - phi - mean).powi(2) / (2.0 * deviation.powi(2))).exp();
                t * c + t - 1.0
            }
            Others::Custom(custom) => {
                let cosine = self.cosine(i, self.label(i));
                custom.curve().value_slope(c, RowTarget { cosine, value: self.target_value(cosine, m) }).0
            }
            other => other.value_slope(c).0,
        }
    }

    /// Whether every cosine is far enough from every kink for differences that move it by up to 5e-4.
    pub fn is_smooth(&self) -> bool {
        if self.loss.similarity == Similarity::Dot {
            return true;
        }
        let margins = self.margins();
        let (angular, transform) = (families::target(&self.loss.target).angular, families::others(&self.loss.others));
        self.counted().all(|i| self.row_is_smooth(i, margins[i], angular.as_ref(), &transform))
    }

    fn row_is_smooth(&self, i: usize, m: [f64; 4], angular: Option<&Unified>, transform: &OthersFacts) -> bool {
        let far = |a: f64, b: f64| (a - b).abs() > 5e-3;
        let (x, others) = (self.cosine(i, self.label(i)), self.others(i));
        let kinks = angular.map_or(vec![], |margin| {
            let [m0, m1, m2, m3] = if families::takes_margins(&self.loss) { m } else { margin.margins() };
            kinks(&Unified { m0, m1, m2, m3, ..margin.clone() })
        });
        let inside = |c: f64| c.abs() < 0.99;
        let bends = (transform.kinks)(&Row { target: x, value: self.target_value(x, &m), m2: m[2], others: &others });
        let smooth = others.iter().all(|&c| (inside(c) || !transform.steep) && bends.iter().all(|&at| far(c, at)))
            && transform.chosen.is_none_or(|count| others.get(count).is_none_or(|next| far(*next, others[count - 1])));
        let apart = (0..self.classes()).all(|j| {
            let centers = self.centers(i, j);
            centers.len() == 1 || far(centers[0], centers[1])
        });
        let free = match self.loss.adaptive {
            Adaptive::MagFace(f) => {
                let long = length(self.embedding(i));
                (long - f.lower_length).abs() > 1e-3 && (long - f.upper_length).abs() > 1e-3
            }
            Adaptive::Length(f) => {
                let long = length(self.embedding(i));
                (long - f.lower_length).abs() > 1e-3 && (long - f.upper_length).abs() > 1e-3
            }
            _ => true,
        };
        inside(x) && kinks.iter().all(|&kink| far(kink, x)) && smooth && apart && free
    }
}

fn angle_value(angle: &Angle, x: f64) -> f64 {
    let theta = match &angle.curve {
        Curve::Exact => x.acos(),
        Curve::Series(s) => s.arccos().iter().enumerate().map(|(k, c)| c * (k as f64 * x.acos()).cos()).sum(),
    };
    angle.offset - angle.factor * (theta + angle.margin)
}

fn power_value(exponent: u32, c: f64) -> f64 {
    let base = (1.0 + c) / 2.0;
    2.0 * base.signum() * base.abs().powi(exponent as i32) - 1.0
}

/// The curves of an angle: exact, and arccos series of several degrees, dampings and origins.
fn angle_curves() -> Vec<Curve> {
    let fit = Series { coefficients: Coefficients::Fit, ..series(9, Damping::None) };
    let given = Series { coefficients: Coefficients::Given(vec![1.5, -1.2, 0.0, -0.1]), ..series(3, Damping::None) };
    let all = [(5, Damping::None), (31, Damping::None), (30, Damping::Jackson), (64, Damping::Lanczos)];
    let all = all.map(|(degree, damping)| series(degree, damping)).into_iter().chain([fit, given]);
    std::iter::once(Curve::Exact).chain(all.map(Curve::Series)).collect()
}

fn power(exponent: u32, margin: f64, angular: bool) -> SimilarityAdjustment {
    SimilarityAdjustment { exponent, margin, angular, slope: Slope::Analytic }
}

/// Transforms of the others, each with several parameters.
fn transforms() -> Vec<Others> {
    let tops = [(1, 0.06), (2, 0.5), (3, 1.2)].map(|(count, margin)| Others::TopK(TopK { count, margin }));
    let filters = [0.1, 0.4].map(|threshold| Others::InterclassFilter(InterclassFilter { threshold }));
    let jackson = Curve::Series(series(30, Damping::Jackson));
    let angles = [Curve::Exact, jackson].map(|curve| Others::Angle(Angle { curve, ..Default::default() }));
    let powers = [power(3, 0.2, false), power(2, 0.3, true)].map(Others::SimilarityAdjustment);
    let vectors = [(0.2, false), (0.7, true)].map(|(weight, fixed)| Others::MvSoftmax(MvSoftmax { weight, fixed }));
    let near = [ArcNeg::default(), ArcNeg { factor: 0.8, mean: -0.3, deviation: 0.4 }].map(Others::ArcNeg);
    let all = tops.into_iter().chain(filters).chain(angles).chain(powers).chain(vectors).chain(near);
    let all = all.chain([families::lean(0.4, 0.3).others]);
    [Others::Identity, Others::Rectified, Others::Curricular].into_iter().chain(all).collect()
}

/// Every preset, the list of families, and every part of a loss with every option: what it is, and the loss.
pub fn families() -> Vec<(String, MarginSoftmax)> {
    let mut all = families::presets();
    let mut add = |name: String, loss: MarginSoftmax| {
        if loss.validate().is_ok() {
            all.push((name, loss));
        }
    };
    let of = |target: Target| MarginSoftmax { target, scale: 16.0, ..Default::default() };

    // linear in the angle
    for (curve, slope) in angle_curves().into_iter().flat_map(|c| [(c.clone(), Slope::Analytic), (c, Slope::Detached)])
    {
        for (factor, margin, offset) in [(1.0, 0.0, 0.0), (2.0 / PI, 0.4, 1.0), (0.5, -0.3, -0.2)] {
            let target = Angle { factor, margin, offset, curve: curve.clone(), slope };
            let other = Others::Angle(Angle { margin: 0.0, ..target.clone() });
            add(format!("angle {factor}"), of(Target::Angle(target.clone())).with_others(other));
            if curve == Curve::Exact {
                add(format!("angle {factor} against cosines"), of(Target::Angle(target)));
            }
        }
    }

    // SphereFace2's curve, under both links
    let binary = |weight, factor, bias| Link::Binary(Binary { weight, factor, bias });
    let links = [Link::Softmax, binary(0.7, 1.0, 0.0), binary(0.0, 2.0, -0.5), binary(1.0, 0.1, 3.0)];
    for (exponent, link) in [1, 2, 3, 7, 16].into_iter().flat_map(|t| links.map(|link| (t, link))) {
        for p in [power(exponent, 0.2, false), power(exponent, -0.4, false), power(exponent, 0.5, true)] {
            let loss = of(Target::SimilarityAdjustment(p)).with_others(Others::SimilarityAdjustment(p));
            add(format!("power {exponent} {}", p.angular), MarginSoftmax { link, ..loss });
            let p = SimilarityAdjustment { slope: Slope::Detached, ..p };
            let loss = of(Target::SimilarityAdjustment(p)).with_others(Others::SimilarityAdjustment(p));
            add(format!("power {exponent} {} detached", p.angular), MarginSoftmax { link, ..loss });
        }
    }

    // a curve from outside, with every transform, under both links
    for (others, link) in transforms().into_iter().flat_map(|o| [(o.clone(), links[0]), (o, links[1])]) {
        let target = Target::Custom(Custom::new(Cubic([0.4, 0.7, 0.2])));
        add(format!("custom and {}", others.name()), MarginSoftmax { link, ..of(target).with_others(others) });
    }

    // every transform against several targets, under both links
    let jackson = |m: &mut Unified| m.curve = Curve::Series(series(30, Damping::Jackson));
    let targets = [
        ("arcface", MarginSoftmax::arcface()),
        ("cosface", MarginSoftmax::cosface()),
        ("series", MarginSoftmax::cheby_aam().with_margin(jackson)),
        ("unified", MarginSoftmax::unified(0.7, 1.35, 0.3, 0.1).with_margin(|m| m.fallback = Fallback::Mirror)),
        ("arcgrad", MarginSoftmax::arcgrad()),
    ];
    for (name, target) in &targets {
        for (others, link) in transforms().into_iter().flat_map(|o| links.map(|link| (o.clone(), link))) {
            let loss = target.clone().with_scale(16.0).with_others(others.clone());
            add(format!("{name} and {}, {}", others.name(), link.name()), MarginSoftmax { link, ..loss });
        }
    }

    // detached unified curves
    for fallback in FALLBACKS {
        let margin = Unified { fallback, slope: Slope::Detached, ..unified(0.9, 1.0, 0.5, 0.1) };
        add(format!("detached {}", fallback.name()), of(Target::Unified(margin)));
    }

    // plain products
    for (m0, m3) in [(1.0, 0.0), (1.0, 0.5), (0.7, -0.3)] {
        let loss = of(Target::Unified(unified(m0, 1.0, 0.0, m3)));
        add(format!("linear {m0} {m3}"), MarginSoftmax { similarity: Similarity::Dot, scale: 3.0, ..loss });
    }

    // margins of rows
    let curves = [Curve::Exact, Curve::Series(series(30, Damping::Jackson))];
    for (fallback, curve) in FALLBACKS.into_iter().flat_map(|f| curves.clone().map(|c| (f, c))) {
        let family = |m0, m1, slope, adaptive| {
            let margin = Unified { curve: curve.clone(), fallback, slope, ..unified(m0, m1, 0.0, 0.0) };
            MarginSoftmax { adaptive, ..of(Target::Unified(margin)) }
        };
        for (margin, concentration) in [(0.4, 0.333), (0.8, 3.0)] {
            let adaptive = Adaptive::AdaFace(AdaFace { margin, concentration, rate: 0.01 });
            for (m0, m1) in [(1.0, 1.0), (0.7, 1.35)] {
                let loss = family(m0, m1, Slope::Analytic, adaptive);
                add(format!("adaface {margin} {}", fallback.name()), loss.clone());
                add("adaface, binary".into(), MarginSoftmax { link: links[1], ..loss.clone() });
                add("adaface, curricular".into(), loss.with_others(Others::Curricular));
            }
        }
        let [lower_length, upper_length, lower_margin, upper_margin, weight] = [0.8, 2.0, 0.4, 1.0, 3.0];
        let magface = MagFace { lower_length, upper_length, lower_margin, upper_margin, weight };
        for slope in [Slope::Analytic, Slope::Detached] {
            for (m0, m1) in [(1.0, 1.0), (0.7, 1.35)] {
                let loss = family(m0, m1, slope, Adaptive::MagFace(magface));
                add(format!("magface {} {slope:?}", fallback.name()), loss.clone());
                add(format!("magface, binary {slope:?}"), MarginSoftmax { link: links[1], ..loss.clone() });
                add("magface, top_k".into(), loss.with_others(Others::TopK(TopK { count: 2, margin: 0.1 })));
            }
        }
        for (cosine, sorted) in [(false, false), (false, true), (true, false), (true, true)] {
            let adaptive = Adaptive::Elastic(Elastic { cosine, sorted, deviation: 0.2 });
            let loss = family(0.8, 1.0, Slope::Analytic, adaptive).with_margin(|m| (m.m2, m.m3) = (0.4, 0.1));
            add(format!("elastic {cosine} {sorted} {}", fallback.name()), loss.clone());
            add("elastic, rectified".into(), loss.with_others(Others::Rectified));
        }
    }

    // a scale that follows the batch
    for (name, target) in &targets {
        for others in transforms() {
            let loss = target.clone().with_others(others.clone()).with_adaptive(Adaptive::AdaCos);
            add(format!("adacos, {name} and {}", others.name()), loss);
        }
    }

    // a scale that follows the row
    let length = Adaptive::Length(Length { lower_length: 0.8, upper_length: 2.0 });
    for (name, target) in &targets {
        for (others, link) in transforms().into_iter().flat_map(|o| [(o.clone(), links[0]), (o, links[1])]) {
            let loss = target.clone().with_scale(8.0).with_others(others.clone()).with_adaptive(length);
            add(format!("length, {name} and {}", others.name()), MarginSoftmax { link, ..loss });
        }
    }
    all.extend(families::beside_presets());
    all
}

/// Random margins that `fallback` accepts, of every class or row.
fn margins(rng: &mut ChaCha8Rng, margin: &Unified, linear: bool, count: usize) -> [Option<Vec<f64>>; 4] {
    let (fixed, fitted) = match &margin.curve {
        Curve::Series(s) => (matches!(s.coefficients, Coefficients::Given(_)), s.coefficients == Coefficients::Fit),
        Curve::Exact => (false, false),
    };
    let steep = matches!(margin.fallback, Fallback::Sine);
    [(0.3, 1.5), (0.6, 1.3), (-0.3, 0.2), (-0.4, 0.5)]
        .into_iter()
        .enumerate()
        .map(|(k, (least, most))| {
            let refused = match k {
                1 => linear || fixed || fitted || steep,
                2 => linear || fixed,
                _ => false,
            };
            let draw = rng.random_bool(0.5) && !refused;
            draw.then(|| (0..count).map(|_| rng.random_range(least..most)).collect())
        })
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

/// A batch for this loss, with a random choice of everything that the loss leaves open, of up to six rows; for a head of this
/// shape if there is one.
fn draw(rng: &mut ChaCha8Rng, loss: &MarginSoftmax, head: Option<Shape>) -> Problem {
    let mut loss = loss.clone();
    let (linear, binary) = (families::is_linear(&loss), families::link(&loss.link).per_class);
    let least = match families::least_classes(&loss) {
        1 => 1,
        // another class beside those that are chosen
        least => least.max(3),
    };
    let (rows, mut classes, mut dim) = (rng.random_range(1..7), least + rng.random_range(0..5), rng.random_range(2..6));
    let plain = linear || loss.others == Others::TopK(TopK::default());
    let mut sub_centers = if plain { 1 } else { pick(rng, &[1, 1, 2, 3]) };
    if let Some(head) = head {
        (classes, dim, sub_centers) = (head.classes(), head.dim(), head.sub_centers());
    }
    let shape = Shape::new(rows, classes, dim).unwrap().with_sub_centers(sub_centers).unwrap();
    if !linear {
        loss.scale = pick(rng, &[loss.scale, 1.0, 8.0, 30.0]);
    }
    if !binary {
        loss.label_smoothing = pick(rng, &[0.0, 0.0, 0.1, 0.7]);
        if loss.label_smoothing == 0.0 {
            loss.focal = pick(rng, &[0.0, 0.0, 0.5, 2.0]);
        }
        loss.z_loss = pick(rng, &[0.0, 0.0, 1e-4, 5e-3]);
    }
    loss.reduction = pick(rng, &[Reduction::Mean, Reduction::Sum, Reduction::None]);
    let mut vectors = |count: usize| {
        let mut all = Vec::new();
        while all.len() < count * dim {
            let v = uniform(rng, dim);
            all.extend(if length(&v) > 0.4 { v } else { vec![] });
        }
        all
    };
    let (mut x, w) = (vectors(rows), vectors(shape.vectors()));
    let mut labels: Vec<i64> = (0..rows).map(|_| rng.random_range(0..classes as i64)).collect();
    for (x, &label) in x.chunks_mut(dim).zip(&labels) {
        if rng.random_bool(0.35) {
            // behind the thresholds
            let own = &w[label as usize * sub_centers * dim..];
            x.iter_mut().zip(own).for_each(|(x, w)| *x = 0.4 * *x - w);
        }
        let long = match loss.adaptive {
            // short, in between and long
            Adaptive::MagFace(f) => rng.random_range(0.6 * f.lower_length..1.2 * f.upper_length),
            Adaptive::Length(f) if f.upper_length < 10.0 => {
                rng.random_range(0.6 * f.lower_length..1.2 * f.upper_length)
            }
            _ => length(x).max(0.4),
        };
        let factor = long / length(x);
        x.iter_mut().for_each(|x| *x *= factor);
    }
    match rng.random_range(0..4) {
        0 => loss.ignore_index = Some(0), // a class like the others
        1 => (loss.ignore_index, labels[0]) = (Some(-100), -100),
        _ => {}
    }
    let mut problem = Problem::new(loss, shape, x, w, labels);
    if rng.random_bool(0.4) {
        problem.weights = Some((0..classes).map(|j| if j == 1 { 0.0 } else { rng.random_range(0.1..3.0) }).collect());
    }
    if rng.random_bool(0.4) {
        problem.row_weights = Some((0..rows).map(|i| if i == 1 { 0.0 } else { rng.random_range(0.1..3.0) }).collect());
    }
    if problem.loss.reduction == Reduction::Mean && rng.random_bool(0.3) {
        problem.divisor = Some(rng.random_range(0.5..9.0));
    }
    if rng.random_bool(0.5) {
        let count = if problem.loss.reduction == Reduction::None { rows } else { 1 };
        problem.upstream = Some(uniform(rng, count));
    }
    if linear && rng.random_bool(0.5) {
        problem.bias = Some(uniform(rng, classes));
    }
    if let Target::Unified(margin) = problem.loss.target.clone()
        && rng.random_bool(0.5)
    {
        problem.class_margins = margins(rng, &margin, linear, classes);
        problem.row_margins = margins(rng, &margin, linear, rows);
    }
    let state = &mut problem.state;
    (state.seed, state.step) = (rng.random(), rng.random_range(0..1000));
    state.hardness = rng.random_range(-0.1..0.9);
    state.norm_mean = rng.random_range(0.5..1.5);
    state.norm_deviation = rng.random_range(0.1..1.0);
    if problem.loss.adaptive == Adaptive::AdaCos {
        state.scale = rng.random_range(0.5..20.0);
    }
    problem
}

/// The same, away from the kinks; values are those of f32, so that every backend gets the same.
pub fn random_problem(rng: &mut ChaCha8Rng, loss: &MarginSoftmax) -> Problem {
    random_problem_for(rng, loss, None)
}

/// The same for a head of this shape.
pub fn random_problem_for(rng: &mut ChaCha8Rng, loss: &MarginSoftmax, head: Option<Shape>) -> Problem {
    for _ in 0..20_000 {
        let problem = draw(rng, loss, head).rounded();
        if !problem.is_smooth() {
            continue;
        }
        match problem.try_run() {
            Ok(_) => return problem,
            // margins that this fallback does not take
            Err(Error::Combination { what: "fallback", .. }) => {}
            Err(error) => panic!("{error}: {problem:?}"),
        }
    }
    panic!("no batch of {loss:?} lies away from the kinks");
}

impl Problem {
    /// Every value as f32 stores it.
    pub fn rounded(mut self) -> Self {
        let round = |values: &mut Vec<f64>| values.iter_mut().for_each(|v| *v = f64::from(*v as f32));
        round(&mut self.embeddings);
        round(&mut self.prototypes);
        let more = [&mut self.weights, &mut self.row_weights, &mut self.upstream, &mut self.bias];
        let margins = self.class_margins.iter_mut().chain(&mut self.row_margins);
        more.into_iter().chain(margins).flatten().for_each(round);
        self.divisor = self.divisor.map(|z| f64::from(z as f32));
        self
    }
}

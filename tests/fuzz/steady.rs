//! What a batch looks like in f64, and whether the rounding of a cosine moves its results by no more than the gate.

use margin_softmax::{
    Adaptive, Link, MarginSoftmax, Others, Output, Reduction, Similarity, State, Target,
    objective::{Angle, Coefficients, Curve, Damping, RowTarget, Series, Unified},
};

use crate::common::Data;

/// How far a cosine may be off on any path.
const OFF: f64 = 2e-6;

/// A batch as the reference sees it.
pub struct Seen<'a> {
    loss: &'a MarginSoftmax,
    data: &'a Data,
    /// As the batch is computed: after it was followed.
    state: State,
    /// \[N\] and \[C·K\]: lengths, at least 1e-12.
    pub lengths: [Vec<f64>; 2],
    /// \[N, C\].
    cosines: Vec<f64>,
    /// The rows that count.
    pub rows: Vec<usize>,
    /// The largest slope of a target or another class.
    pub slope: f64,
    /// The largest logit without scale.
    size: f64,
    pub gate: f64,
    /// Nothing jumps or bends within the rounding of a cosine.
    pub steady: bool,
}

/// The same curve, whose coefficients are not computed anew at every call.
fn known(curve: &Curve, coefficients: impl Fn(&Series) -> Vec<f64>) -> Curve {
    match curve {
        Curve::Exact => Curve::Exact,
        Curve::Series(series) => Curve::Series(Series {
            degree: series.degree,
            coefficients: Coefficients::Given(coefficients(series)),
            damping: Damping::None,
        }),
    }
}

fn length(v: &[f32]) -> f64 {
    v.iter().fold(0.0_f64, |h, &x| h.hypot(x.into()))
}

impl<'a> Seen<'a> {
    pub fn new(loss: &'a MarginSoftmax, data: &'a Data, state: State) -> Self {
        let [n, classes, dim] = data.shape;
        let lengths = [&data.x, &data.w].map(|all| all.chunks(dim).map(|v| length(v).max(1e-12)).collect::<Vec<_>>());
        let rows = (0..n).filter(|&i| {
            Some(data.labels[i]) != loss.ignore_index && data.x[i * dim..(i + 1) * dim].iter().all(|x| x.is_finite())
        });
        let mut new = Self {
            loss,
            data,
            state,
            lengths,
            cosines: vec![],
            rows: rows.collect(),
            slope: 1.0,
            size: 1.0,
            gate: 0.0,
            steady: true,
        };
        // a length at the border of the vectors that count as 0
        new.steady = new.lengths.iter().flatten().all(|l| !(0.9999e-12..1.0001e-12).contains(l) || *l == 1e-12);
        new.products(n, classes);
        new.curves(classes);
        new
    }

    fn products(&mut self, n: usize, classes: usize) {
        let ([_, _, dim], k) = (self.data.shape, self.data.centers.max(1));
        let cosine = self.loss.similarity == Similarity::Cosine;
        for i in 0..n {
            for j in 0..classes {
                let mut all: Vec<f64> = vec![];
                for v in j * k..(j + 1) * k {
                    let terms = self.data.x[i * dim..].iter().zip(&self.data.w[v * dim..(v + 1) * dim]);
                    let by = if cosine { self.lengths[0][i] * self.lengths[1][v] } else { 1.0 };
                    let terms = terms.map(|(&x, &w)| f64::from(x) * f64::from(w) / by);
                    let sizes: f64 = terms.clone().map(f64::abs).sum();
                    // a product that cancels has no digits in f32
                    self.steady &= cosine || !self.rows.contains(&i) || sizes <= 4.0;
                    all.push(terms.sum::<f64>() + self.data.bias.as_ref().map_or(0.0, |b| b[j].into()));
                }
                all.sort_by(|a, b| b.total_cmp(a));
                // which of two prototypes is nearest
                self.steady &= k == 1 || !self.rows.contains(&i) || all[0] - all[1] > 2.0 * OFF;
                self.cosines.push(all[0]);
            }
        }
    }

    /// m0..m3 of every row; `None` for a target without.
    fn margins(&self) -> Option<(&'a Unified, Vec<[f64; 4]>)> {
        let Target::Unified(unified) = &self.loss.target else { return None };
        let (data, classes) = (self.data, self.data.shape[1]);
        let row = |i: usize| {
            let mut m = unified.margins();
            for (k, m) in m.iter_mut().enumerate() {
                let class = data.class_margins[k].as_ref().map(|c| c[data.labels[i] as usize]);
                let own = data.row_margins[k].as_ref().map(|r| r[i]).or(class);
                *m = own.map_or(*m, f64::from);
            }
            let length = self.lengths[0][i];
            match self.loss.adaptive {
                Adaptive::AdaFace(f) => {
                    let State { norm_mean, norm_deviation, .. } = self.state;
                    let z = f.concentration * (length.clamp(1e-3, 100.0) - norm_mean) / (norm_deviation + 1e-3);
                    let z = z.clamp(-1.0, 1.0);
                    (m[2], m[3]) = (-f.margin * z, f.margin * (1.0 + z));
                }
                Adaptive::MagFace(f) => {
                    let rise = (f.upper_margin - f.lower_margin) / (f.upper_length - f.lower_length);
                    m[2] = f.lower_margin + rise * (length.clamp(f.lower_length, f.upper_length) - f.lower_length);
                }
                _ => {}
            }
            m
        };
        let mut all = vec![unified.margins(); data.labels.len()];
        self.rows.iter().for_each(|&i| all[i] = row(i));
        if let Adaptive::Elastic(family) = self.loss.adaptive {
            let mut order: Vec<usize> = (0..all.len()).collect();
            if family.sorted {
                let key = |i: usize| {
                    if self.rows.contains(&i) {
                        self.cosines[i * classes + data.labels[i] as usize]
                    } else {
                        f64::INFINITY
                    }
                };
                order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
            }
            let which = if family.cosine { 3 } else { 2 };
            for (draw, i) in family.draws(&self.state, all.len()).into_iter().zip(order) {
                let moved = all[i][which] + draw;
                all[i][which] = if family.cosine { moved } else { moved.clamp(-3.0, 3.0) };
            }
        }
        Some((unified, all))
    }

    fn curves(&mut self, classes: usize) {
        let labels = &self.data.labels;
        let margins = self.margins();
        let targets: Vec<f64> = self.rows.iter().map(|&i| self.cosines[i * classes + labels[i] as usize]).collect();
        let transform = match &self.loss.others {
            Others::Angle(angle) => {
                Others::Angle(Angle { curve: known(&angle.curve, Series::arccos), ..angle.clone() })
            }
            other => other.clone(),
        };
        let (mut kinks, mut slope, mut size) = (vec![], 1.0_f64, 1.0_f64);
        let linear = self.loss.similarity == Similarity::Dot;
        let mut look = |c: f64, exact: bool, f: &dyn Fn(f64) -> (f64, f64)| {
            let clip = |c: f64| if linear { c } else { c.clamp(-1.0, 1.0) };
            let [low, here, high] = [clip(c - OFF), clip(c), clip(c + OFF)].map(f);
            slope = slope.max(here.1.abs());
            size = size.max(here.0.abs()).max(c.abs());
            let jump = (high.0 - here.0).abs().max((low.0 - here.0).abs());
            let bend = (high.1 - here.1).abs().max((low.1 - here.1).abs());
            if !exact {
                kinks.push((jump / here.1.abs().max(1.0), bend / here.1.abs().max(1.0)));
            }
        };
        let zero = |i: usize| {
            self.lengths[0][i] == 1e-12 && length(&self.data.x[i * self.data.shape[2]..][..self.data.shape[2]]) == 0.0
        };
        let mut steady = self.steady;
        for (&i, &x) in self.rows.iter().zip(&targets) {
            let (bound, value);
            match &margins {
                Some((unified, m)) => {
                    let [m0, m1, m2, m3] = m[i];
                    let curve = known(&unified.curve, |series| series.coefficients(m1, m2));
                    let own = Unified { m0, m1, m2, m3, curve, ..(*unified).clone() };
                    look(x, zero(i), &|c| own.value_slope(c));
                    bound = x * m2.cos() - ((1.0 - x) * (1.0 + x)).max(0.0).sqrt() * m2.sin();
                    value = own.value_slope(x);
                }
                None => {
                    look(x, zero(i), &|c| self.loss.target_value_slope(c));
                    bound = f64::INFINITY;
                    value = self.loss.target_value_slope(x);
                }
            }
            let mut others: Vec<f64> =
                (0..classes).filter(|&j| j as i64 != labels[i]).map(|j| self.cosines[i * classes + j]).collect();
            match &transform {
                Others::Curricular => {
                    let t = self.state.hardness;
                    // the bound moves with the target: by its slope, which the gate below keeps in bounds
                    let reach = OFF * (2.0 + 2.0 / (1.0 - x * x).max(1e-12).sqrt());
                    steady &= others.iter().all(|c| (c - bound).abs() > reach);
                    others
                        .iter()
                        .filter(|c| **c > bound)
                        .for_each(|&c| look(c, false, &|c| (c * (t + c), t + 2.0 * c)));
                }
                Others::TopK(top) => {
                    others.sort_by(|a, b| b.total_cmp(a));
                    steady &= others.get(top.count).is_none_or(|next| others[top.count - 1] - next > 2.0 * OFF);
                    let (sin, cos) = top.margin.sin_cos();
                    for &c in others.iter().take(top.count) {
                        look(c, false, &|c| {
                            let sine = ((1.0 - c) * (1.0 + c)).max(0.0).sqrt();
                            if c > cos { (1.0, 0.0) } else { (c * cos + sine * sin, cos - sin * c / sine.max(1e-4)) }
                        });
                    }
                }
                Others::MvSoftmax(_) | Others::ArcNeg(_) | Others::Custom(_) => {
                    // what they look at moves with the target, by its slope; a number that follows it moves by t's own, at most
                    // 0.61·α/σ, times c + 1
                    let reach = OFF * (2.0 + 2.0 * value.1.abs());
                    let moved = match &transform {
                        Others::ArcNeg(near) => 2.0 * 0.61 * near.factor / near.deviation,
                        Others::MvSoftmax(_) => {
                            steady &= others.iter().all(|c| (c - value.0).abs() > reach);
                            0.0
                        }
                        _ => 2.0,
                    };
                    let target = RowTarget { cosine: x, value: value.0 };
                    for &c in &others {
                        look(c, zero(i), &|c| {
                            let (at, slope) = transform.value_slope_at(c, target);
                            (at, slope.abs() + moved * (1.0 + value.1.abs()))
                        });
                    }
                }
                transform => others.iter().for_each(|&c| look(c, zero(i), &|c| transform.value_slope(c))),
            }
        }
        let mut sorted = targets.clone();
        sorted.sort_by(f64::total_cmp);
        // which row draws the largest margin
        let drawn = matches!(self.loss.adaptive, Adaptive::Elastic(family) if family.sorted);
        steady &= !drawn || sorted.windows(2).all(|pair| pair[1] - pair[0] > 2.0 * OFF);
        // whether a length moves the margin
        if let Adaptive::MagFace(f) = self.loss.adaptive {
            let apart = |l: &f64| [f.lower_length, f.upper_length].iter().all(|end| (l / end - 1.0).abs() > 1e-5);
            steady &= self.lengths[0].iter().all(apart);
        }
        if let Adaptive::Length(f) = self.loss.adaptive {
            let apart = |l: &f64| [f.lower_length, f.upper_length].iter().all(|end| (l / end - 1.0).abs() > 1e-5);
            steady &= self.lengths[0].iter().all(apart);
        }
        let scale = self.scale();
        let gate = 1e-5 + 3e-7 * scale * slope.max(1.0);
        steady &= kinks.iter().all(|&(jump, bend)| jump <= 2.0 * OFF && bend <= gate);
        // a logit in f32 is off by 6e-8 of its size
        steady &= 1.2e-7 * scale * size <= gate;
        (self.slope, self.size, self.gate, self.steady) = (slope, size, gate, steady);
    }

    /// The scale in force.
    pub fn scale(&self) -> f64 {
        match self.loss.adaptive {
            Adaptive::AdaCos => self.state.scale,
            // the largest of a row
            Adaptive::Length(f) => {
                let longest = self.rows.iter().map(|&i| self.lengths[0][i]).fold(f.lower_length, f64::max);
                self.loss.scale * longest.min(f.upper_length)
            }
            _ => self.loss.scale,
        }
    }

    /// Σ_j |dL/dc_ij| of every row, or more: what its rounding is relative to.
    pub fn pulls(&self, expected: &Output<f64>) -> Vec<f64> {
        let data = self.data;
        let weight = |class: usize| data.weights.as_ref().map_or(1.0, |w| f64::from(w[class]));
        let most = (0..data.shape[1]).map(weight).fold(0.0, f64::max);
        let z = self.divisor();
        let mut all = vec![0.0; data.labels.len()];
        if z == 0.0 {
            return all;
        }
        for &i in &self.rows {
            let w = weight(data.labels[i] as usize);
            let l = expected.row_losses[i] - w * self.length_term(self.lengths[0][i]);
            let share = match self.loss.link {
                Link::Binary(_) => 1.5 * l,
                Link::Softmax if self.loss.label_smoothing > 0.0 => 2.0 * most,
                Link::Softmax if w == 0.0 => 0.0,
                Link::Softmax => -2.0 * w * (-l / w).exp_m1(),
            };
            let up = data.upstream.as_ref().map_or(1.0, |up| f64::from(up[if up.len() == 1 { 0 } else { i }]));
            all[i] = share * up.abs() / z;
        }
        all
    }

    /// The divisor of a mean.
    fn divisor(&self) -> f64 {
        match self.loss.reduction {
            Reduction::Mean => self.weights().sum(),
            _ => 1.0,
        }
    }

    /// The class weights of the rows that count.
    fn weights(&self) -> impl Iterator<Item = f64> {
        let weight = move |&i: &usize| {
            let class = self.data.labels[i] as usize;
            self.data.weights.as_ref().map_or(1.0, |w| f64::from(w[class]))
        };
        self.rows.iter().map(weight)
    }

    /// MagFace's term of a length for a class weight of 1.
    fn length_term(&self, length: f64) -> f64 {
        let Adaptive::MagFace(f) = self.loss.adaptive else { return 0.0 };
        let a = length.clamp(f.lower_length, f.upper_length);
        f.weight * (a / f.upper_length.powi(2) + 1.0 / a)
    }

    /// The largest logit without scale.
    pub fn size(&self) -> f64 {
        self.size
    }

    /// What a pull on a cosine becomes as a gradient of a vector, by its side: 0 for embeddings, 1 for prototypes.
    pub fn lever(&self, side: usize, at: usize) -> f64 {
        let most = |all: &[f64]| all.iter().fold(0.0_f64, |m, &l| l.max(m));
        let turn = match self.loss.similarity {
            Similarity::Cosine => 1.0 / self.lengths[side][at],
            Similarity::Dot => most(&self.lengths[1 - side]),
        };
        let mut lever = self.scale() * self.slope * turn;
        if let (0, Adaptive::MagFace(f), Some(_)) = (side, self.loss.adaptive, self.margins()) {
            // the length moves m2, and has a term of its own
            let rise = (f.upper_margin - f.lower_margin) / (f.upper_length - f.lower_length);
            lever += 4.0 * self.scale() * self.slope * rise;
        }
        lever
    }

    /// What a gradient of a vector may lose, at most: entries of G become 0 below the normal numbers of f32, with cosines also
    /// where they are over the length of the prototype.
    pub fn vanished(&self, side: usize, at: usize, pulls: &[f64]) -> f64 {
        let least = f64::from(f32::MIN_POSITIVE);
        let (pull, own) = (|i: usize| pulls[i] * self.scale() * self.slope, self.lengths[side][at]);
        let (prototypes, rows) = (self.lengths[1].iter(), self.rows.iter().copied());
        match (self.loss.similarity, side) {
            (Similarity::Cosine, 0) => prototypes.map(|l| pull(at).min(least * l.max(1.0))).sum::<f64>() / own,
            (Similarity::Cosine, _) => rows.map(|i| pull(i).min(least * own.max(1.0))).sum::<f64>() / own,
            (Similarity::Dot, 0) => prototypes.map(|l| pull(at).min(least) * l).sum(),
            (Similarity::Dot, _) => rows.map(|i| pull(i).min(least) * self.lengths[0][i]).sum(),
        }
    }

    /// The gradient of the lengths' own term, at most.
    pub fn attraction(&self) -> f64 {
        let up = self.data.upstream.as_ref().map_or(1.0, |up| up.iter().fold(1.0_f64, |m, &u| m.max(u.abs().into())));
        let z = self.divisor();
        match self.loss.adaptive {
            Adaptive::MagFace(f) if z > 0.0 => {
                up * self.weights().fold(0.0, f64::max) / z * f.weight / (f.lower_length * f.lower_length)
            }
            _ => 0.0,
        }
    }
}

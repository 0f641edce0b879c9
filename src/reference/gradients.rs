//! Loss and gradients of a shard, given the merged statistics of all.

use super::{
    directions::gradient,
    shard::{MarginRow, Shard},
};
use crate::{
    Output, Result, State, Want,
    data::{Counts, Filtered, MarginGradients, NO_COSINE},
    objective::{Binary, sigmoid, softplus},
    shard::{RowStatistics, Statistics, Targets},
};

/// The loss of one row and its derivatives, before class margins act on the cosine and before upstream / Z.
struct RowTerms {
    loss: f64,
    /// Of its logits; 0 with a binary link.
    log_sum_exp: f64,
    /// By the label's logit.
    pull: f64,
    /// By the scale, and by the bias of a binary link.
    scale: f64,
    bias: f64,
    /// Of the other classes: the place of each in the shard, the derivative by its logit, and its transform's slope.
    others: Vec<(usize, f64, f64)>,
}

/// A target of a row: its class among all, and the weight of its own term and of the other classes'.
struct Goal {
    class: usize,
    own: f64,
    rest: f64,
    row: MarginRow,
}

impl Shard<'_> {
    /// The loss of the batch, dW of this shard, and its share of everything else: dX, and the gradients of scale and bias,
    /// which the shard from class 0 alone reports where they are sums over rows.
    pub fn gradients(
        &self,
        want: Want,
        targets: &Targets,
        statistics: &Statistics,
        state: &State,
    ) -> Result<Output<f64>> {
        self.loss.check_margin_gradients(want, self.batch.soft.is_some())?;
        self.complete(targets)?;
        let (n, loss, first) = (self.batch.rows(), &self.loss, self.range.start == 0);
        statistics.check(loss, self.classes, n)?;
        let base = state.scale_of(loss);
        let broken = targets.non_finite_prototypes > 0;
        let mut out = self.nothing_yet(targets);
        let z = loss.divisor(out.normalizer, self.batch.divisor);
        // G[i][v] = dL/dc of row i with prototype v
        let vectors = self.shape.vectors();
        let mut g = vec![0.0_f64; n * vectors];
        let (mut length_gradients, mut margin_gradients) = (vec![0.0; n], vec![[0.0; 4]; n]);
        let (mut grad_scale, mut grad_bias) = (0.0, 0.0);
        let entries = (out.counts.rows * self.range.len()) as u64;
        let mut filtered = Filtered { entries, ..Filtered::default() };
        let rows = self.rows(targets, state).into_iter().zip(self.soft_rows(targets, state)).zip(&statistics.rows);
        for (i, ((row, soft), sums)) in rows.enumerate().filter(|(i, _)| self.counts(*i) && !broken) {
            let upstream = self.batch.upstream.map_or(1.0, |up| if up.len() == 1 { up[0] } else { up[i] });
            let (factor, free) = loss.length_factor(self.x.length[i]);
            let scale = base * factor;
            // divided by z last: a tiny z must not overflow
            let gain = |pull: f64| if z > 0.0 { upstream * (pull / z) } else { 0.0 };
            out.target_cosines[i] = targets.cosines[i].unwrap_or(0.0);
            let linear = loss.is_linear() && self.classes > 1;
            out.other_cosines[i] = if linear { sums.nearest } else { sums.nearest.max(NO_COSINE) };
            out.row_losses[i] = 0.0;
            let mut turned = 0.0;
            for (t, (goal, terms)) in self.all_terms(i, row, soft, sums, state).into_iter().enumerate() {
                out.row_losses[i] += terms.loss;
                if let Some(sum) = out.log_sum_exps.get_mut(i).filter(|_| t == 0) {
                    *sum = terms.log_sum_exp;
                }
                if free && first {
                    length_gradients[i] += base * gain(terms.scale);
                }
                grad_scale += factor * gain(terms.scale);
                grad_bias += gain(terms.bias);
                turned += scale * gain(terms.pull) * goal.row.slope_m2;
                if want.grad_margins.is_some() && first {
                    margin_gradients[i] = self.margin_slopes(i, &goal.row).map(|m| scale * gain(terms.pull) * m);
                }
                let own = self.range.contains(&goal.class).then(|| goal.class - self.range.start);
                let own = own.map(|j| (j, terms.pull, goal.row.slope));
                for (j, pull, slope) in terms.others.into_iter().chain(own) {
                    g[i * vectors + self.vector(i, j)] += scale * gain(pull) * slope;
                }
            }
            if let Some(filter) = self.filter {
                let soft = self.batch.soft.as_ref().map_or(1.0, |soft| soft.of(i).1);
                let limit = filter.epsilon() * scale * gain(self.row_weight(i) * soft).abs();
                self.apply_filter(i, limit, &mut g[i * vectors..][..vectors], &mut filtered);
            }
            if let Some(family) = loss.length_term() {
                let (length, w) = (self.x.length[i], self.label_weight(i));
                let (value, slope) = family.length_term(length);
                out.row_losses[i] += w * value;
                // every shard knows the length, the first gives its gradient
                if first {
                    let rise = if family.length(length).1 { family.rise() } else { 0.0 };
                    length_gradients[i] = turned * rise + gain(w * slope);
                }
            }
        }
        // an empty sum of f64 is -0.0
        let sum = out.row_losses.iter().fold(0.0, |sum, loss| sum + loss);
        out.loss = if broken { f64::NAN } else { loss.reduced(sum, z) };
        out.filtered = self.filter.map(|_| filtered);
        out.grad_scale = if want.grad_scale && first { grad_scale } else { 0.0 };
        if want.grad_bias && loss.binary().is_some() {
            out.grad_bias = vec![if first { grad_bias } else { 0.0 }];
        }
        if let Some(margins) = want.grad_margins {
            out.grad_margins = self.sum_margins(margins, &margin_gradients);
        }
        self.vector_gradients(want, &g, &length_gradients, &mut out);
        Ok(out)
    }

    /// dφ/dm0..m3 at the label of a row.
    fn margin_slopes(&self, i: usize, row: &MarginRow) -> [f64; 4] {
        let own = self.loss.margins();
        self.loss.margin_slopes(row.cosine, self.batch.margins.as_ref().map_or(own, |margins| margins[i]))
    }

    /// The rows' gradients of their margins, summed as it was wanted.
    fn sum_margins(&self, margins: MarginGradients, rows: &[[f64; 4]]) -> Vec<f64> {
        let mut sums = vec![[0.0; 4]; margins.count(rows.len(), self.classes)];
        for (i, row) in rows.iter().enumerate().filter(|(i, _)| self.counts(*i)) {
            let place = match margins {
                MarginGradients::Sum => 0,
                MarginGradients::Classes => self.batch.labels[i] as usize,
                MarginGradients::Rows => i,
            };
            sums[place].iter_mut().zip(row).for_each(|(sum, one)| *sum += one);
        }
        sums.concat()
    }

    /// The output of rows of which none counts.
    fn nothing_yet(&self, targets: &Targets) -> Output<f64> {
        let n = self.batch.rows();
        Output {
            row_losses: (0..n).map(|i| if self.ignored(i) { 0.0 } else { f64::NAN }).collect(),
            log_sum_exps: if self.loss.binary().is_some() { vec![] } else { vec![0.0; n] },
            normalizer: (0..n).filter(|&i| self.counts(i)).map(|i| self.label_weight(i)).fold(0.0, |sum, w| sum + w),
            target_cosines: vec![0.0; n],
            other_cosines: vec![NO_COSINE; n],
            counts: self.tally(targets),
            ..Default::default()
        }
    }

    /// dX, dW, and db of a linear head.
    fn vector_gradients(&self, want: Want, g: &[f64], length_gradients: &[f64], out: &mut Output<f64>) {
        let (n, vectors) = (self.batch.rows(), self.shape.vectors());
        if want.grad_embeddings {
            out.grad_embeddings = gradient(&self.x, &self.w, n, |i, v| g[i * vectors + v]);
            for (i, row) in out.grad_embeddings.chunks_exact_mut(self.shape.dim()).enumerate() {
                row.iter_mut().zip(self.x.row(i)).for_each(|(d, unit)| *d += length_gradients[i] * unit);
            }
        }
        if want.grad_prototypes {
            out.grad_prototypes = gradient(&self.w, &self.x, vectors, |v, i| g[i * vectors + v]);
        }
        if want.grad_bias && self.loss.is_linear() {
            out.grad_bias = (0..vectors).map(|j| (0..n).map(|i| g[i * vectors + j]).sum()).collect();
        }
    }

    fn tally(&self, targets: &Targets) -> Counts {
        let n = self.batch.rows();
        let count = |counts: &dyn Fn(usize) -> bool| (0..n).filter(|&i| counts(i)).count();
        Counts {
            rows: count(&|i| self.counts(i)),
            ignored: count(&|i| self.ignored(i)),
            non_finite_rows: count(&|i| !self.ignored(i) && self.x.non_finite[i]),
            invalid_labels: 0,
            zero_embeddings: count(&|i| self.counts(i) && self.x.short(i)),
            zero_prototypes: targets.zero_prototypes,
            non_finite_prototypes: targets.non_finite_prototypes,
        }
    }

    /// Of a class, which may lie in another shard.
    fn class_weight(&self, class: usize) -> f64 {
        self.batch.class_weights.map_or(1.0, |w| w[class])
    }

    fn row_weight(&self, i: usize) -> f64 {
        self.batch.row_weights.map_or(1.0, |v| v[i])
    }

    /// The row's weight in Z.
    fn label_weight(&self, i: usize) -> f64 {
        let own = self.row_weight(i) * self.class_weight(self.batch.labels[i] as usize);
        match &self.batch.soft {
            Some(soft) if self.loss.binary().is_none() => {
                let others = soft.of(i).0.iter().flatten();
                let others = others.map(|&(class, part)| part * self.row_weight(i) * self.class_weight(class));
                others.fold(own * soft.labels[i], |sum, one| sum + one)
            }
            _ => own,
        }
    }

    /// The targets of a row with their terms, its label's first. By definition: with a softmax each is a problem of its own, with
    /// a binary link each is one positive, and whatever is none is a negative of the label.
    fn all_terms(
        &self,
        i: usize,
        row: MarginRow,
        soft: Vec<(usize, f64, MarginRow)>,
        sums: &RowStatistics,
        state: &State,
    ) -> Vec<(Goal, RowTerms)> {
        let (label, v, binary) = (self.batch.labels[i] as usize, self.row_weight(i), self.loss.binary().is_some());
        let Some(targets) = &self.batch.soft else {
            let goal = Goal { class: label, own: v, rest: v, row };
            let terms = self.terms(i, &goal, self.class_weight(label), self.others(i), sums, state);
            return vec![(goal, terms)];
        };
        let label = (label, targets.labels[i], row);
        let positive = |j: usize| if j == label.0 { label.1 > 0.0 } else { self.is_target(i, j) };
        let negatives = (0..self.range.len()).filter(|&j| !positive(j)).collect::<Vec<_>>();
        let goals = std::iter::once(label.clone()).chain(soft).enumerate();
        let terms = |(t, (class, part, row)): (usize, (usize, f64, MarginRow))| {
            let rest = if binary { if t == 0 { v } else { 0.0 } } else { v * part };
            let goal = Goal { class, own: v * part, rest, row };
            let others =
                if binary { negatives.clone() } else { (0..self.range.len()).filter(|&j| j != class).collect() };
            let others = || others.iter().copied();
            let sums = self.sums(i, &goal.row, others(), state);
            let terms = self.terms(i, &goal, self.class_weight(class), others(), &sums, state);
            (goal, terms)
        };
        goals.map(terms).collect()
    }

    /// The terms of a target with the weight `w` of its class, beside these other classes with these sums.
    fn terms(
        &self,
        i: usize,
        goal: &Goal,
        w: f64,
        others: impl Iterator<Item = usize>,
        sums: &RowStatistics,
        state: &State,
    ) -> RowTerms {
        let (loss, classes, row, v, scale) = (&self.loss, self.classes, &goal.row, goal.own, self.scale(i, state));
        let other = loss.other(state.hardness);
        let others = |pull: &dyn Fn(usize, f64) -> f64| {
            let term = |j: usize| {
                let (value, slope) = other(self.cosine(i, j), self.place(row, j));
                (j, pull(j, scale * value), slope)
            };
            others.map(term).collect()
        };
        if let Some(Binary { weight, factor, bias }) = loss.binary() {
            let (own, rest) = (v * w * factor * weight, goal.rest * w * factor * (1.0 - weight));
            let zy = scale * row.value + bias;
            let pull = -own * sigmoid(-zy);
            return RowTerms {
                loss: own * softplus(-zy) + rest * sums.sum,
                log_sum_exp: 0.0,
                pull,
                scale: pull * row.value + rest * sums.value_sum,
                bias: pull + rest * sums.weighted,
                others: others(&|_, z| rest * sigmoid(z + bias)),
            };
        }
        let share = loss.label_smoothing / classes as f64;
        let weights = self.batch.class_weights.map_or(classes as f64, |w| w.iter().sum());
        let zy = scale * row.value;
        let log_others = if classes > 1 { sums.max_logit + sums.sum.ln() } else { f64::NEG_INFINITY };
        let d = log_others - zy;
        let log_all = zy.max(log_others) + (-d.abs()).exp().ln_1p();
        let mass = v * ((1.0 - loss.label_smoothing) * w + share * weights);
        let rest = v * share * (weights - w);
        let smoothed = rest * row.value - v * share * sums.weighted;
        let mean = if classes > 1 { sums.value_sum / sums.sum } else { row.value };
        let [focal, slope] = loss.focal_terms(d);
        let (wrong, right) = (sigmoid(d), sigmoid(-d));
        // λ·(log-sum-exp)², and its slope by any logit for each unit of that logit's probability
        let square = v * w * loss.z_loss * log_all * log_all;
        let along = 2.0 * v * w * loss.z_loss * log_all;
        RowTerms {
            loss: mass * focal * softplus(d) + scale * smoothed + square,
            log_sum_exp: log_all,
            pull: rest - mass * slope * wrong + along * right,
            scale: mass * slope * wrong * (mean - row.value) + smoothed + along * (wrong * mean + right * row.value),
            bias: 0.0,
            others: others(&|j, z| (mass * slope + along) * (z - log_all).exp() - v * share * self.weight(j)),
        }
    }

    /// Entries of a row of G below `limit` become 0.
    fn apply_filter(&self, i: usize, limit: f64, g: &mut [f64], filtered: &mut Filtered<f64>) {
        for j in 0..self.range.len() {
            let g = &mut g[self.vector(i, j)];
            filtered.total += g.abs();
            if g.abs() < limit || *g == 0.0 {
                filtered.dropped += g.abs();
                *g = 0.0;
            } else {
                filtered.kept += 1;
            }
        }
    }
}

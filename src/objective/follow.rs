//! A training step: the margins that follow the rows, and the state that follows the batch.

use super::{
    AdaFace, Adaptive, Elastic, MarginSoftmax, State,
    adaptive::{DEVIATION_FLOOR, HARDNESS_RATE, LONG_LENGTH, MIN_MEDIAN, SHORT_LENGTH, SMALLEST_SCALE},
    random::normal,
    state::{LARGEST_SCALE, MAX_HARDNESS},
};

/// Facts about a row that are known before margins apply.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowFacts {
    /// Neither ignored nor left out.
    pub counts: bool,
    /// |x|.
    pub length: f64,
    /// The raw target cosine.
    pub cosine: f64,
}

impl Elastic {
    /// The draws of a step, added to the rows' margins; with `sorted` in ascending order, for the rows from the largest target
    /// cosine to the smallest.
    pub fn draws(&self, state: &State, rows: usize) -> Vec<f64> {
        let draw = |row: usize| self.deviation * normal(state.seed, state.step, row as u64);
        let mut all: Vec<f64> = (0..rows).map(draw).collect();
        if self.sorted {
            all.sort_unstable_by(f64::total_cmp);
        }
        all
    }
}

impl Adaptive {
    /// Replaces the rows' margins by what this family says.
    pub(crate) fn apply(&self, state: &State, rows: &[RowFacts], margins: &mut [[f64; 4]]) {
        match self {
            Adaptive::None | Adaptive::Length(_) | Adaptive::AdaCos => {}
            Adaptive::AdaFace(family) => {
                for (row, m) in rows.iter().zip(margins) {
                    let length = row.length.clamp(SHORT_LENGTH, LONG_LENGTH);
                    let z =
                        family.concentration * (length - state.norm_mean) / (state.norm_deviation + DEVIATION_FLOOR);
                    let z = z.clamp(-1.0, 1.0);
                    (m[2], m[3]) = (-family.margin * z, family.margin * (1.0 + z));
                }
            }
            Adaptive::MagFace(family) => rows.iter().zip(margins).for_each(|(row, m)| m[2] = family.margin(row.length)),
            Adaptive::Elastic(family) => {
                let which = if family.cosine { 3 } else { 2 };
                let mut order: Vec<usize> = (0..rows.len()).collect();
                if family.sorted {
                    // the hardest row gets the largest margin; rows that are left out come first
                    let key = |i: usize| if rows[i].counts { rows[i].cosine } else { f64::INFINITY };
                    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
                }
                for (draw, i) in family.draws(state, rows.len()).into_iter().zip(order) {
                    margins[i][which] = family.moved(margins[i][which], draw);
                }
            }
        }
    }
}

impl State {
    /// Moves the running statistics of a training step that follow from target cosines and lengths, before they are used.
    pub(crate) fn follow(&mut self, loss: &MarginSoftmax, rows: &[RowFacts]) {
        let rows = || rows.iter().filter(|r| r.counts);
        let n = rows().count() as f64;
        if n == 0.0 {
            return;
        }
        if loss.hardness_follows() {
            let mean = rows().map(|r| r.cosine).sum::<f64>() / n;
            // a cosine may round to more than 1
            let next = HARDNESS_RATE * mean + (1.0 - HARDNESS_RATE) * self.hardness;
            self.hardness = next.clamp(-MAX_HARDNESS, MAX_HARDNESS);
        }
        if let Adaptive::AdaFace(AdaFace { rate, .. }) = loss.adaptive {
            let lengths = || rows().map(|r| r.length.clamp(SHORT_LENGTH, LONG_LENGTH));
            let mean = lengths().sum::<f64>() / n;
            self.norm_mean = rate * mean + (1.0 - rate) * self.norm_mean;
            if n > 1.0 {
                let variance = lengths().map(|l| (l - mean).powi(2)).sum::<f64>() / (n - 1.0);
                self.norm_deviation = rate * variance.sqrt() + (1.0 - rate) * self.norm_deviation;
            }
        }
    }

    /// AdaCos' step: `log_sum` is the log of Σ_i Σ_{j≠y} exp(s·c_ij) over the rows that count, at the scale so far.
    pub(crate) fn follow_scale(&mut self, log_sum: f64, rows: &[RowFacts]) {
        let mut cosines: Vec<f64> = rows.iter().filter(|r| r.counts).map(|r| r.cosine).collect();
        if cosines.is_empty() {
            return;
        }
        // the lower median of the angles is the upper one of the cosines
        cosines.sort_by(|a, b| b.total_cmp(a));
        let middle = cosines[(cosines.len() - 1) / 2];
        let least = middle.clamp(MIN_MEDIAN, 1.0);
        let scale = (log_sum - (cosines.len() as f64).ln()) / least;
        self.scale = if scale.is_finite() { scale.clamp(SMALLEST_SCALE, LARGEST_SCALE) } else { self.scale };
    }
}

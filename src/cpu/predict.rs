//! Predictions: the nearest classes of every row, from what a sweep chose and summed.
//!
//! A sweep compares cosines in f32. The few that it chooses are computed again from the vectors as they came, in f64, and put in
//! order by those, so that neither tiles nor the number of threads decide a place; equal prototypes are exact ties. Logits that
//! pass 1 keeps are as good as that where no other one is near, and no vector is fetched for them.

use super::{
    head::CpuHead,
    input::{HeadCall, ROWS, each},
    nearest::{Choice, FromKept, ROOM, insert},
    pace::{Pace, now},
    ranges::{Look, Pass},
    rows::{HeadRow, Weights},
    tiling::Setup,
};
use crate::{
    Result, State,
    data::{Counts, Predictions, Watch},
    objective::{CheckedBatch, softplus},
};

/// A class that may be among the nearest: its cosine in f32 and f64, and its prototype.
type Candidate = (f32, f64, u32, u32);

/// Room for those of a row, the labelled one too.
type Candidates = [Candidate; ROOM + 1];

impl CpuHead {
    /// The nearest classes of rows without labels; predictions are untouched on an error.
    pub fn predict(
        &mut self,
        batch: CheckedBatch<'_>,
        state: &State,
        out: &mut Predictions,
        watch: &mut Watch,
    ) -> Result<()> {
        now(self.predict_paced(batch, state, out, &mut Pace::straight(watch)))
    }

    /// The same at another pace.
    pub async fn predict_paced(
        &mut self,
        batch: CheckedBatch<'_>,
        state: &State,
        out: &mut Predictions,
        pace: &mut Pace<'_>,
    ) -> Result<()> {
        let call = self.begin(batch);
        let look = self.look();
        pace.begin(self.work(&call, [Pass::Scan { look, ready: false }]));
        self.scan(&call, look, false, state, pace).await?;
        pace.finish()?;
        self.collect(&call, Choice::Listed, state, out);
        Ok(())
    }

    /// The facts that predictions need.
    fn look(&self) -> Look {
        Look { top: self.predictions(), sums: self.loss.binary().is_none() }
    }

    /// The same from a sweep of its own. `ready`: what is kept are cosines already.
    pub(super) async fn look_up(
        &mut self,
        call: &HeadCall<'_>,
        ready: bool,
        state: &State,
        out: &mut Predictions,
        pace: &mut Pace<'_>,
    ) -> Result<()> {
        self.scan(call, self.look(), ready, state, pace).await?;
        self.collect(call, Choice::Listed, state, out);
        Ok(())
    }

    /// Where pass 1 leaves the nearest classes, on the path of the identity.
    pub(super) fn choice(&self) -> Choice {
        let tiling = self.setup.tiling;
        let many = tiling.columns.div_ceil(tiling.tile) > self.predictions();
        if tiling.keep && many { Choice::Kept } else { Choice::Listed }
    }

    /// The nearest classes of what the last sweep chose, with its sums.
    pub(super) fn collect(&self, call: &HeadCall<'_>, from: Choice, state: &State, out: &mut Predictions) {
        let (n, count, linear) = (call.batch.rows(), self.predictions(), self.loss.is_linear());
        out.reset(n, count, self.range.clone(), self.loss.binary().is_none());
        out.non_finite_prototypes = self.found().non_finite_prototypes;
        if out.non_finite_prototypes > 0 {
            out.non_finite_rows = (0..n).filter(|&i| !self.input.lengths[i].is_finite()).count();
            return;
        }
        let scale = state.scale_of(&self.loss);
        let all = self.range.len();
        let weights = Weights::equal(all, scale);
        let fits = |i: usize, row: &HeadRow| !linear || row.fits(0.0, &self.workspace.partials[i].wide(), weights);
        let values = out.classes.chunks_mut(ROWS * count).zip(out.cosines.chunks_mut(ROWS * count));
        let more = out.log_probabilities.chunks_mut(ROWS * count).zip(out.sub_centers.chunks_mut(ROWS * count));
        let mut sums = out.log_sum_exps.chunks_mut(ROWS);
        let blocks = values.zip(more).map(|block| (block, sums.next().unwrap_or_default())).enumerate().collect();
        each(call.parallel, blocks, |(block, (((classes, cosines), (logs, centers)), sums))| {
            let mut nearest = [(0.0, 0.0, 0, 0); ROOM + 1];
            for (place, i) in (block * ROWS..n.min((block + 1) * ROWS)).enumerate() {
                let row = &self.input.rows[i];
                if !row.counts() || !fits(i, row) {
                    continue;
                }
                let scale = scale * self.loss.length_factor(self.input.lengths[i]).0;
                let found = self.nearest(call, from, (i, scale as f32), &mut nearest);
                let log_sum = self.log_sum_exp(i, scale);
                sums.iter_mut().skip(place).take(1).for_each(|sum| *sum = log_sum as f32);
                for (at, &(cosine, exact, class, center)) in (place * count..).zip(&nearest[..found.min(count)]) {
                    let log = match self.loss.binary() {
                        // a rounding of the sum must not make it a probability above 1
                        None => (scale * exact - log_sum).min(0.0),
                        Some(link) => -softplus(-(scale * exact + link.bias)),
                    };
                    (classes[at], cosines[at], logs[at], centers[at]) = (class, cosine, log as f32, center);
                }
            }
        });
        let label = |i: usize| Some(call.batch.labels[i]) != self.loss.ignore_index;
        let none = |i: &usize| out.get(*i, 0).is_none() && label(*i);
        out.non_finite_rows = (0..n).filter(none).count();
    }

    /// Without those of the rows that the loss left out.
    pub(super) fn settle(&self, mut all: Predictions, counts: &Counts) -> Predictions {
        let rows = self.input.rows[..all.rows()].iter().enumerate();
        rows.filter(|(_, row)| !row.counts()).for_each(|(i, _)| all.clear(i));
        Predictions { non_finite_rows: counts.non_finite_rows, ..all }
    }

    /// A row's nearest classes in order, the labelled one among them, and how many there are.
    fn nearest(&self, call: &HeadCall<'_>, from: Choice, (i, scale): (usize, f32), nearest: &mut Candidates) -> usize {
        let (Setup { arch, tiling, .. }, linear) = (self.setup, self.loss.is_linear());
        let (row, length) = (&self.input.rows[i], self.input.lengths[i]);
        let mut wide = vec![];
        let x = call.embeddings.part(i * tiling.dim..(i + 1) * tiling.dim).widened_in(&mut wide);
        let refine = |class: u32| {
            let (exact, center) = call.cosine(arch, linear, &self.range, (x, length), class as usize);
            (exact as f32, exact, class, center)
        };
        let mut chosen = [(0.0, 0); ROOM];
        let kept = match from {
            Choice::Listed => None,
            Choice::Kept => self.kept(call, (i, scale), &mut chosen),
        };
        let mut found = kept.unwrap_or_else(|| match from {
            Choice::Listed => self.listed(call, i, &mut chosen),
            Choice::Kept => self.compared(call, i, &mut chosen),
        });
        // a logit that is kept gives its cosine, at all but the smallest scales
        let known = kept.is_some() && scale >= 4.0;
        for (place, &(z, class)) in nearest.iter_mut().zip(&chosen[..found]) {
            let cosine = z / scale;
            *place = if known { (cosine, f64::from(cosine), class, 0) } else { refine(class) };
        }
        if self.range.contains(&row.class) {
            nearest[found] = (row.cosine as f32, row.cosine, row.class as u32, self.input.extras[i].center);
            found += 1;
        }
        let order = |a: &Candidate, b: &Candidate| (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then(a.2.cmp(&b.2));
        nearest[..found].sort_unstable_by(order);
        if known {
            // what no logit tells apart: equal prototypes above all
            let close = 2.0 * FromKept::slack(scale) / scale;
            let mut again = [false; ROOM + 1];
            for (k, _) in nearest[..found].windows(2).enumerate().filter(|(_, pair)| pair[0].0 - pair[1].0 <= close) {
                (again[k], again[k + 1]) = (true, true);
            }
            let unsure =
                nearest[..found].iter_mut().zip(again).filter(|(one, again)| *again && one.2 != row.class as u32);
            unsure.for_each(|(one, _)| *one = refine(one.2));
            nearest[..found].sort_unstable_by(order);
        }
        found
    }

    fn listed(&self, call: &HeadCall<'_>, i: usize, chosen: &mut [(f32, u32); ROOM]) -> usize {
        let (all, found) = self.best(call, i, self.predictions());
        chosen[..found].copy_from_slice(&all[..found]);
        found
    }

    /// A few classes among which the nearest others are, if what is kept tells.
    fn kept(&self, call: &HeadCall<'_>, (row, scale): (usize, f32), found: &mut [(f32, u32); ROOM]) -> Option<usize> {
        let (Setup { arch, tiling, .. }, workspace) = (self.setup, &self.workspace);
        let (kept, max_logit) = (&workspace.kept[..], &workspace.max_logit[..]);
        let (sizes, first) = ([call.batch.rows(), tiling.columns, tiling.tile], self.range.start);
        let (label, count) = (self.input.rows[row].class.wrapping_sub(first), self.predictions());
        let own = FromKept { kept, max_logit, sizes, row, label, scale, count, found: &mut *found };
        let len = arch.dispatch(own)?;
        found[..len].iter_mut().for_each(|(_, class)| *class += first as u32);
        Some(len)
    }

    /// The nearest others from all cosines of the row: for one whose exponentials do not tell.
    fn compared(&self, call: &HeadCall<'_>, i: usize, chosen: &mut [(f32, u32); ROOM]) -> usize {
        let (Setup { arch, tiling, .. }, row) = (self.setup, &self.input.rows[i]);
        let mut wide = vec![];
        let x = call.embeddings.part(i * tiling.dim..(i + 1) * tiling.dim).widened_in(&mut wide);
        let x = (x, self.input.lengths[i]);
        let top = &mut chosen[..self.predictions()];
        top.fill((f32::NEG_INFINITY, u32::MAX));
        for class in self.range.clone().filter(|&class| class != row.class) {
            let (cosine, _) = call.cosine(arch, self.loss.is_linear(), &self.range, x, class);
            insert(top, (cosine as f32, class as u32));
        }
        top.iter().take_while(|(_, class)| *class != u32::MAX).count()
    }

    /// log Σ exp(s·c) of a row over the classes of this head; the labelled one stays out of the sweep's sums.
    fn log_sum_exp(&self, i: usize, scale: f64) -> f64 {
        let (row, all) = (&self.input.rows[i], self.workspace.partials[i].wide());
        let others = if all.sum == 0.0 { f64::NEG_INFINITY } else { all.max_logit + all.sum.ln() };
        if !self.range.contains(&row.class) {
            return others;
        }
        let own = scale * row.cosine;
        own.max(others) + (-(own - others).abs()).exp().ln_1p()
    }
}

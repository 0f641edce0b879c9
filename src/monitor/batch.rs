//! Lengths, margins, the parts of the loss and the gradients of one batch.

use super::counting;
use crate::{
    Batch, Error, Label, MarginSoftmax, Output, Result, Shape, State,
    objective::{MagFace, RowFacts},
    shape::check_length,
};

/// The shares of [`BatchReport::target_cosines`].
pub const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

/// A batch as its loss saw it, over the rows that count: neither ignored nor with a NaN loss. Computed on the host from the batch
/// and what the head returned, so it is the same for every engine; N·D steps, and C·D for the gradient of the prototypes if
/// it was asked for. Numbers for a log now and then, one curve each.
///
/// ```
/// # #[cfg(feature = "cpu")] {
/// use margin_softmax::{monitor::BatchReport, *};
///
/// let loss = MarginSoftmax::magface();
/// let mut head = Backend::cpu().head(&loss, Shape::new(2, 2, 2)?)?;
/// let batch = Batch { embeddings: &[30.0, 40.0, 3.0, 4.0], prototypes: &[1.0, 0.0, 0.0, 1.0], labels: &[0, 1], ..Default::default() };
/// let out = head.train(&batch)?;
/// let report = BatchReport::trained(&loss, head.state(), &batch, &out)?;
/// assert_eq!((report.length_mean, report.lengths_outside), (27.5, Some(0.5))); // 5 is below MagFace's 10
/// assert!(report.margins.is_some_and(|m| (m[2] - 0.52).abs() < 1e-9));         // 0.59 and 0.45
/// println!("softmax {}, length {:?}", report.margin_loss, report.length_loss);
/// # }
/// # Ok::<(), margin_softmax::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct BatchReport {
    /// Rows that count; every number of rows below is 0 if there is none.
    pub rows: u64,
    /// The smallest |x|.
    pub length_min: f64,
    /// The mean |x|.
    pub length_mean: f64,
    /// The largest |x|.
    pub length_max: f64,
    /// For MagFace, the share of rows with |x| outside its two lengths, where the length has no gradient.
    pub lengths_outside: Option<f64>,
    /// The means of m0..m3 in force (m2 in radians): of the loss, of classes and rows, or as AdaFace, MagFace and ElasticFace set
    /// them. None for a target curve without margins.
    pub margins: Option<[f64; 4]>,
    /// The scale in force, which dynamic AdaCos moves.
    pub scale: f64,
    /// The loss without MagFace's term of the length, reduced as the loss says (with `Reduction::None` the sum). A difference
    /// from f32 losses: precise to about 1e-7 of the whole loss.
    pub margin_loss: f64,
    /// For MagFace, its term of the length, reduced likewise. Both together are the loss.
    pub length_loss: Option<f64>,
    /// [`QUANTILES`] of the target cosines (for a linear head products), interpolated between neighbours as numpy does.
    pub target_cosines: [f64; 5],
    /// |dL/dX| over all values, where it was asked for.
    pub embedding_gradient: Option<f64>,
    /// |dL/dW| over all values, where it was asked for.
    pub prototype_gradient: Option<f64>,
}

impl BatchReport {
    /// Of a call of `train` (or [`SliceHead::gradients`](crate::SliceHead::gradients) after `follow`): `loss` and `batch` are
    /// those of the call, `state` and `out` as they are after it. For a [`SampledHead`](crate::partial::SampledHead) `out` is the
    /// sampled output's.
    ///
    /// Prototypes are not read. [`Error::Combination`] for a state that has made no step, [`Error::Length`] where `out` is of
    /// another batch, and the errors of the head for the rest of the batch.
    pub fn trained<L: Label>(loss: &MarginSoftmax, state: &State, batch: &Batch<'_, L>, out: &Output) -> Result<Self> {
        // the step counts after its draws; all else moves before it is used
        let Some(step) = state.step.checked_sub(1) else {
            let why = "it has made no step: give the state after `train`";
            return Err(Error::Combination { what: "state", why });
        };
        Self::evaluated(loss, &State { step, ..*state }, batch, out)
    }

    /// Of a call of `evaluate`, which moves no state; else as [`trained`](Self::trained).
    pub fn evaluated<L: Label>(
        loss: &MarginSoftmax,
        state: &State,
        batch: &Batch<'_, L>,
        out: &Output,
    ) -> Result<Self> {
        let n = batch.labels.len();
        let dim = (batch.embeddings.len() / n.max(1)).max(1);
        let shape = Shape::new(n, state.classes, dim)?;
        loss.validate_for(shape)?;
        state.validate(shape)?;
        check_length("embeddings", batch.embeddings.len(), n * dim)?;
        let (labels, margins, _) = batch.check_rest(loss, shape, &(0..state.classes))?;
        let counting = counting(out, batch.labels, loss.ignore_index)?;

        let mut facts: Vec<RowFacts> = batch.embeddings.chunks_exact(dim).zip(&out.target_cosines).map(fact).collect();
        counting.iter().for_each(|&row| facts[row].counts = true);
        let mut margins = margins.unwrap_or_else(|| vec![loss.margins(); n]);
        loss.adapt_margins(state, &facts, &mut margins);
        let mean = |of: &dyn Fn(usize) -> f64| match counting.len() {
            0 => 0.0,
            rows => counting.iter().map(|&row| of(row)).sum::<f64>() / rows as f64,
        };
        let one = |weights: Option<&[f32]>, i: usize| weights.map_or(1.0, |w| f64::from(w[i]));
        let weight = |row: usize| one(batch.row_weights, row) * one(batch.class_weights, labels[row] as usize);
        let z = loss.divisor(counting.iter().map(|&row| weight(row)).sum(), batch.divisor.map(f64::from));
        let reduced =
            |of: &dyn Fn(usize) -> f64| loss.reduced(counting.iter().map(|&row| of(row)).sum::<f64>() + 0.0, z);
        let magface = loss.length_term();
        let length_loss = |family: MagFace| reduced(&|row| weight(row) * family.length_term(facts[row].length).0);
        let length_loss = magface.map(length_loss);

        let mut lengths: Vec<f64> = counting.iter().map(|&row| facts[row].length).collect();
        lengths.sort_unstable_by(f64::total_cmp);
        let mut cosines: Vec<f64> = counting.iter().map(|&row| facts[row].cosine).collect();
        cosines.sort_unstable_by(f64::total_cmp);
        Ok(Self {
            rows: counting.len() as u64,
            length_min: quantile(&lengths, 0.0),
            length_mean: mean(&|row| facts[row].length),
            length_max: quantile(&lengths, 1.0),
            lengths_outside: magface.map(|family| mean(&|row| f64::from(!family.length(facts[row].length).1))),
            margins: loss.has_margins().then(|| [0, 1, 2, 3].map(|m| mean(&|row| margins[row][m]))),
            scale: state.scale_of(loss),
            margin_loss: reduced(&|row| out.row_losses[row].into()) - length_loss.unwrap_or(0.0),
            length_loss,
            target_cosines: QUANTILES.map(|share| quantile(&cosines, share)),
            embedding_gradient: norm_of(&out.grad_embeddings),
            prototype_gradient: norm_of(&out.grad_prototypes),
        })
    }
}

fn fact((x, &cosine): (&[f32], &f32)) -> RowFacts {
    RowFacts { counts: false, length: square_sum(x).sqrt(), cosine: cosine.into() }
}

fn square_sum(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum()
}

/// None for a gradient that was not asked for.
fn norm_of(gradient: &[f32]) -> Option<f64> {
    (!gradient.is_empty()).then(|| square_sum(gradient).sqrt())
}

/// Of values in ascending order; 0 where there is none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let at = |place: f64| sorted.get(place as usize).copied().unwrap_or(0.0);
    let (low, high) = (at(place.floor()), at(place.ceil()));
    low + (high - low) * place.fract()
}

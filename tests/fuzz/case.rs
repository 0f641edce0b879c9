//! A head and a batch from bytes, special values among them.

use arbitrary::{Result, Unstructured};
use margin_softmax::{
    Adaptive, Batch, Link, MarginSoftmax, Options, Others, Reduction, Similarity, State, Target, Want, data::SoftLabels,
};

use crate::{common::Data, losses};

pub struct Case {
    pub loss: MarginSoftmax,
    pub data: Data,
    pub want: Want,
    pub state: State,
    pub train: bool,
    /// 0: room for everything; else a share of what *keep* takes, 255 the least.
    pub squeeze: u8,
    /// Whether other numbers of threads are to be tried too.
    pub threads: bool,
    pub more: Option<More>,
}

/// What the gates say nothing of: promises, counts, errors and bits are checked.
pub struct More {
    pub row_weights: Option<Vec<f32>>,
    pub soft: Option<Soft>,
    /// How many.
    pub predictions: Option<usize>,
}

/// Targets of all rows.
pub struct Soft {
    pub count: usize,
    pub classes: Vec<i32>,
    pub weights: Vec<f32>,
}

impl More {
    /// Beside a loss, to which a focal factor or z-loss is added.
    fn new(u: &mut Unstructured, loss: &mut MarginSoftmax, [rows, classes, _]: [usize; 3]) -> Result<Self> {
        let bits: u8 = u.arbitrary()?;
        let has = |bit: u8| bits >> bit & 1 == 1;
        let softmax = loss.link == Link::Softmax && loss.similarity == Similarity::Cosine;
        if has(0) && softmax && loss.label_smoothing == 0.0 {
            loss.focal = losses::number(u, 0.0, 5.0)?;
        }
        if has(1) && softmax {
            loss.z_loss = losses::number(u, 0.0, 0.1)?;
        }
        let row_weights = if has(2) { Some(values(u, rows, 0.0, 3.0)?) } else { None };
        // a loss that takes none is refused, but a bad label beside it is seen first by one and last by another engine
        let shares = matches!(loss.others, Others::Identity | Others::Rectified | Others::Angle(_))
            || matches!(loss.others, Others::InterclassFilter(_) | Others::SimilarityAdjustment(_));
        let soft = if has(3) && shares && !matches!(loss.adaptive, Adaptive::Length(_)) {
            let count = u.int_in_range(1..=SoftLabels::<f32>::MAX)?;
            let class = |_| u.int_in_range(-1..=classes as i32 - 1);
            let targets = (0..rows * count).map(class).collect::<Result<_>>()?;
            Some(Soft { count, classes: targets, weights: values(u, rows * count, 0.0, 2.0)? })
        } else {
            None
        };
        let predictions = if has(4) && soft.is_none() { Some(u.int_in_range(1..=classes.min(64))?) } else { None };
        Ok(Self { row_weights, soft, predictions })
    }
}

/// A power of ten from the smallest subnormal f32 to the largest f32.
fn power(u: &mut Unstructured) -> Result<f32> {
    Ok(10.0_f64.powi(u.int_in_range(-46..=38_i32)?) as f32)
}

/// Makes a vector special; `other` is one that there is already.
fn special(u: &mut Unstructured, vector: &mut [f32], other: &[f32]) -> Result<()> {
    let at = u.choose_index(vector.len())?;
    match u.int_in_range(0..=9_u8)? {
        0 => vector.fill(0.0),
        1 | 2 => {
            let factor = power(u)?;
            vector.iter_mut().for_each(|v| *v *= factor);
        }
        3 => {
            let factor = *u.choose(&[1.0, -1.0, 3.0, -0.3, 1e-20])?;
            vector.iter_mut().zip(other).for_each(|(v, o)| *v = factor * o);
        }
        4 => {
            // next to another one, or next to its opposite
            let (factor, noise) = (*u.choose(&[1.0, -1.0])?, power(u)?);
            vector.iter_mut().zip(other).for_each(|(v, o)| *v = factor * o + noise * *v);
        }
        5 => {
            vector.fill(0.0);
            vector[at] = 1.0;
        }
        6 => vector.iter_mut().for_each(|v| *v = f32::from_bits(v.to_bits() & 0x807f_ffff)),
        7 => vector[at] = *u.choose(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY])?,
        8 => vector[at] = f32::from_bits(u.arbitrary()?),
        _ => vector[at] = *u.choose(&[f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -0.0])?,
    }
    Ok(())
}

fn values(u: &mut Unstructured, count: usize, low: f64, high: f64) -> Result<Vec<f32>> {
    (0..count).map(|_| Ok((low + (high - low) * f64::from(u.arbitrary::<u8>()?) / 255.0) as f32)).collect()
}

impl Case {
    /// `None` where the loss is none, or none of this shape.
    pub fn new(u: &mut Unstructured) -> Result<Option<Self>> {
        let mut loss = losses::loss(u)?;
        let (rows, classes, dim) =
            (u.int_in_range(0..=8_usize)?, u.int_in_range(1..=40_usize)?, u.int_in_range(1..=20_usize)?);
        let mut data = Data::random(rows, classes, dim, u.arbitrary()?);
        let centers = if u.ratio(1, 3)? { u.int_in_range(2..=3_usize)? } else { 1 };
        if centers > 1 {
            data = data.with_centers(centers, u.arbitrary()?);
        }
        let mut data = data.fit(&loss);
        let bits: u16 = u.arbitrary()?;
        let has = |bit: u16| bits >> bit & 1 == 1;
        if has(0) && has(1) {
            data = data.weighted();
        }
        for _ in 0..u.int_in_range(0..=6_u8)? {
            let (vectors, all) = (rows + classes * centers, [&data.x[..], &data.w].concat());
            let (at, from) = (u.choose_index(vectors)?, u.choose_index(vectors)?);
            let vector = match at.checked_sub(rows) {
                Some(at) => &mut data.w[at * dim..(at + 1) * dim],
                None => &mut data.x[at * dim..(at + 1) * dim],
            };
            special(u, vector, &all[from * dim..(from + 1) * dim])?;
        }
        for _ in 0..u.int_in_range(0..=3_u8)? {
            if rows > 0 {
                let label = match loss.ignore_index {
                    Some(index) if u.arbitrary()? => index,
                    _ => u.int_in_range(-1..=classes as i64)?,
                };
                data.labels[u.choose_index(rows)?] = label;
            }
        }
        if has(2) {
            let count = if loss.reduction == Reduction::None { rows } else { 1 };
            data.upstream = Some(values(u, count, -2.0, 2.0)?);
        }
        if matches!(loss.target, Target::Unified(_)) && has(3) {
            let ranges = [(0.5, 1.5), (1.0, 1.0), (-0.3, 0.6), (-0.3, 0.5)];
            let (which, (low, high)) = u.choose_iter(ranges.iter().enumerate())?;
            if has(4) {
                data.class_margins[which] = Some(values(u, classes, *low, *high)?);
            }
            if has(5) {
                data.row_margins[which] = Some(values(u, rows, *low, *high)?);
            }
        }
        let Ok(mut state) = State::new(&loss, data.shape()) else { return Ok(None) };
        if has(6) {
            state = State { seed: u.arbitrary()?, step: u.arbitrary::<u64>()? >> 1, ..state };
            (state.hardness, state.norm_mean) = (losses::number(u, -1.0, 1.0)?, losses::number(u, 0.0, 30.0)?);
        }
        let want =
            Want { grad_embeddings: !has(7), grad_prototypes: !has(8), grad_scale: !has(9), grad_bias: !has(10), grad_margins: None };
        let squeeze = if has(11) { u.arbitrary()? } else { 0 };
        let more = if has(15) { Some(More::new(u, &mut loss, data.shape)?) } else { None };
        Ok(Some(Self { loss, data, want, state, train: has(12), squeeze, threads: has(13) && has(14), more }))
    }

    pub fn batch(&self) -> Batch<'_> {
        let soft = self.more.as_ref().and_then(|more| more.soft.as_ref());
        Batch {
            row_weights: self.more.as_ref().and_then(|more| more.row_weights.as_deref()),
            soft_labels: soft.map(|Soft { count, classes, weights }| SoftLabels { count: *count, classes, weights }),
            ..self.data.batch()
        }
    }

    /// Without a budget.
    pub fn roomy(&self) -> Options {
        let more = self.more.as_ref();
        Options {
            want: self.want,
            soft_labels: more.and_then(|more| more.soft.as_ref()).map(|soft| soft.count),
            predictions: more.and_then(|more| more.predictions),
            ..Options::default()
        }
    }

    /// The options of this case; what a budget of 0 bytes says would be enough is `least`.
    pub fn options(&self, least: u64) -> Options {
        let [rows, classes, _] = self.data.shape;
        let keep = 4 * (rows * classes * self.data.centers.max(1)) as u64 + least;
        let bytes = match self.squeeze {
            0 => return self.roomy(),
            255 => least,
            part => least + (keep * u64::from(part)) / 255,
        };
        Options { budget: margin_softmax::Budget::bytes(bytes), ..self.roomy() }
    }
}

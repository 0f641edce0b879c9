//! A head and a batch from bytes, special values among them.

use arbitrary::{Result, Unstructured};
use margin_softmax::{MarginSoftmax, Options, Reduction, State, Target, Want};

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
        let loss = losses::loss(u)?;
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
            Want { grad_embeddings: !has(7), grad_prototypes: !has(8), grad_scale: !has(9), grad_bias: !has(10) };
        let squeeze = if has(11) { u.arbitrary()? } else { 0 };
        Ok(Some(Self { loss, data, want, state, train: has(12), squeeze, threads: has(13) && has(14) }))
    }

    /// The options of this case; what a budget of 0 bytes says would be enough is `least`.
    pub fn options(&self, least: u64) -> Options {
        let [rows, classes, _] = self.data.shape;
        let keep = 4 * (rows * classes * self.data.centers.max(1)) as u64 + least;
        let bytes = match self.squeeze {
            0 => return Options { want: self.want, ..Options::default() },
            255 => least,
            part => least + (keep * u64::from(part)) / 255,
        };
        Options { budget: margin_softmax::Budget::bytes(bytes), want: self.want, ..Options::default() }
    }
}

//! What agreement with the reference means where lengths, weights and slopes are extreme.
//!
//! The one error that f32 cannot avoid is that of a cosine, 3e-7. What it makes of a loss and of a gradient is bounded row
//! by row, so that the bound says something next to ±1 too, and for vectors of very different lengths.

use margin_softmax::{objective::*, *};

use super::{Problem, WANT};
use crate::families::{self, analytic};

/// An f32 cosine is off by so much.
const COSINE: f64 = 3e-7;
/// Beyond the true value there is no f32; below, a device may flush it to 0.
const LARGE: f64 = f32::MAX as f64 / 2.0;
const SMALL: f64 = f32::MIN_POSITIVE as f64;

/// What a curve may be off by at one cosine.
#[derive(Clone, Copy, Default)]
struct Bend {
    size: f64,
    /// Of the value.
    value: f64,
    /// The slope times the part of a direction at right angles to another.
    tangent: f64,
    /// What both may be off by together.
    pull: f64,
}

impl Bend {
    fn max(self, b: Self) -> Self {
        Self {
            size: self.size.max(b.size),
            value: self.value.max(b.value),
            tangent: self.tangent.max(b.tangent),
            pull: self.pull.max(b.pull),
        }
    }

    fn of(curve: impl Fn(f64) -> (f64, f64), cosine: f64) -> Self {
        let near = [-1.0, -0.5, 0.5, 1.0].map(|q| (cosine + q * COSINE).clamp(-1.0, 1.0));
        let (value, slope) = curve(cosine);
        let off = |part: fn((f64, f64)) -> f64, own: f64| {
            near.iter().map(|&c| (part(curve(c)) - own).abs()).fold(0.0, f64::max)
        };
        // directions are rounded too
        let sine = (1.0 - cosine * cosine).max(0.0).sqrt();
        let steepest = near.iter().map(|&c| curve(c).1.abs()).fold(slope.abs(), f64::max);
        Self {
            size: value.abs(),
            value: off(|c| c.0, value) + COSINE * value.abs(),
            tangent: slope.abs() * sine,
            // the direction, and what is taken out of it
            pull: off(|c| c.1, slope) * sine + 2.0 * COSINE * steepest,
        }
    }

    /// Of a plain product with an error of its own.
    fn straight((value, slope): (f64, f64), error: f64, reach: f64) -> Self {
        Self { size: value.abs(), value: error * slope, tangent: slope * reach, pull: COSINE * slope * reach }
    }
}

fn length(v: &[f32]) -> f64 {
    v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// MagFace's term of the length for a class weight of 1.
fn length_term(family: &MagFace, length: f64) -> f64 {
    let a = length.clamp(family.lower_length, family.upper_length);
    family.weight * (a / family.upper_length.powi(2) + 1.0 / a)
}

/// The reference's answer, everything wanted.
pub fn expected(problem: &Problem) -> Output<f64> {
    problem.data.with_wide(|batch| reference::evaluate(&problem.loss, problem.shape, WANT, batch)).unwrap()
}

/// Everything that an output holds, against the reference at the same values.
pub fn agrees(problem: &Problem, found: &Output) -> Result<(), String> {
    against(problem, found, &expected(problem))
}

/// Against the reference's answer.
pub fn against(problem: &Problem, found: &Output, expected: &Output<f64>) -> Result<(), String> {
    let Problem { loss, data, shape, .. } = problem;
    let (d, k, n, linear) = (shape.dim(), shape.sub_centers(), problem.rows(), problem.is_linear());
    let classes = shape.classes();
    if found.counts != expected.counts {
        return Err(format!("{:?}, not {:?}", found.counts, expected.counts));
    }
    // without the term of the length, which has no part in the slopes, and in whose digits a small loss is lost
    let classified = match loss.adaptive {
        Adaptive::MagFace(family) => {
            let adaptive = Adaptive::MagFace(MagFace { weight: 0.0, ..family });
            let loss = loss.clone().with_adaptive(adaptive);
            self::expected(&Problem { loss, ..problem.clone() }).row_losses
        }
        _ => expected.row_losses.clone(),
    };
    let true_slopes = analytic(loss);
    let largest = families::others(&loss.others).largest;
    let other = |others: &Others, c: f64| largest.as_ref().map_or_else(|| others.value_slope(c), |largest| largest(c));
    let (x, w): (Vec<_>, Vec<_>) = (data.embeddings.chunks(d).collect(), data.prototypes.chunks(d).collect());
    let (x_lengths, w_lengths): (Vec<_>, Vec<_>) =
        (x.iter().map(|v| length(v)).collect(), w.iter().map(|v| length(v)).collect());
    let upstream = |i: usize| data.upstream.as_ref().map_or(1.0, |u| f64::from(if u.len() == 1 { u[0] } else { u[i] }));
    let weight = |i: usize| data.weights.as_ref().map_or(1.0, |w| f64::from(w[data.labels[i] as usize]));
    let heaviest = data.weights.as_ref().map_or(1.0, |w| w.iter().fold(0.0, |m: f64, &w| m.max(w.into())));
    let counts = |i: usize| {
        let ignored = Some(i64::from(data.labels[i])) == loss.ignore_index;
        !ignored && x_lengths[i].is_finite() && expected.counts.non_finite_prototypes == 0
    };
    let z = match loss.reduction {
        Reduction::Mean => (0..n).filter(|&i| counts(i)).map(weight).sum(),
        _ => 1.0,
    };
    let factor = if let Link::Binary(binary) = loss.link { binary.factor } else { 1.0 };
    let terms = if loss.link == Link::Softmax { 1.0 } else { classes as f64 };
    // AdaFace, MagFace and ElasticFace choose m2 of the row
    let turns: &[f64] = match loss.adaptive {
        Adaptive::None | Adaptive::Length(_) | Adaptive::AdaCos => &[],
        _ => &[-0.4, 0.0, 0.4, 0.45, 0.6, 0.8],
    };
    let base = if loss.adaptive == Adaptive::AdaCos {
        State::new(loss, *shape).map_err(|e| e.to_string())?.scale
    } else {
        loss.scale
    };

    // per row: what the loss may be off by, the size of its gradient to the cosines, and what that may be off by
    let (mut losses, mut units, mut shares, mut pulls) = (vec![0.0; n], vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let (mut sizes, mut values, mut attractions) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    for i in (0..n).filter(|&i| counts(i)) {
        let product = |v: usize, length: f64| {
            let lengths = if linear { 1.0 } else { x_lengths[i].max(1e-12) * length.max(1e-12) };
            let bias = if linear { data.bias.as_ref().map_or(0.0, |b| f64::from(b[v])) } else { 0.0 };
            x[i].iter().zip(w[v]).map(|(a, b)| f64::from(*a) * f64::from(*b) / lengths).sum::<f64>() + bias
        };
        let y = data.labels[i] as usize;
        let (mut own, mut others) = (Bend::default(), Bend::default());
        for (v, &length) in w_lengths.iter().enumerate() {
            let c = product(v, length);
            let bend = if linear {
                let error = COSINE * (x_lengths[i] * length + c.abs());
                let curve = if v == y { loss.target_value_slope(c) } else { (c, 1.0) };
                Bend::straight(curve, error, length)
            } else if v / k == y {
                let curve = |c: f64| true_slopes.target_value_slope(c);
                turns.iter().fold(Bend::of(curve, c), |most, &m2| {
                    let turned = true_slopes.clone().with_margin(|m| m.m2 = m2);
                    most.max(Bend::of(|c| turned.target_value_slope(c), c))
                })
            } else {
                Bend::of(|c| other(&true_slopes.others, c), c)
            };
            // a slope that is not the curve's multiplies rounded directions too
            let used = if v / k == y { loss.target_value_slope(c) } else { other(&loss.others, c) }.1;
            let bend = if linear { bend } else { Bend { pull: bend.pull.max(2.0 * COSINE * used.abs()), ..bend } };
            if v / k == y { own = own.max(bend) } else { others = others.max(bend) }
        }
        // a margin that follows the row is rounded as well, and one that follows its length with that
        let rounding = match loss.adaptive {
            Adaptive::MagFace(family) => {
                let rise = (family.upper_margin - family.lower_margin) / (family.upper_length - family.lower_length);
                1e-6 + COSINE * rise * x_lengths[i].clamp(family.lower_length, family.upper_length)
            }
            _ if turns.is_empty() => 0.0,
            _ => 1e-6,
        };
        // a scale that follows the row is rounded with its length, and once more
        let (scale, rounded) = match loss.adaptive {
            Adaptive::Length(f) => (base * x_lengths[i].clamp(f.lower_length, f.upper_length), 2.0 * COSINE),
            _ => (base, 0.0),
        };
        let own_value = own.value + rounding;
        let apart = scale * (own_value + others.value + rounded * (own.size + others.size));
        let term = match loss.adaptive {
            Adaptive::MagFace(family) => weight(i) * length_term(&family, x_lengths[i]),
            _ => 0.0,
        };
        let (w, e) = (weight(i) * factor, classified[i].abs());
        let smoothed = loss.label_smoothing * heaviest;
        // a loss, and its slope in a logit, changes by at most this factor
        let grown = 1.5 * apart.min(30.0).exp();
        let slope = (w * terms).min(grown * e) + smoothed;
        losses[i] = 1e-5 * (e + term) + slope * apart;
        let gain = if z > 0.0 { upstream(i).abs() / z } else { 0.0 };
        attractions[i] = gain * weight(i);
        shares[i] = gain * slope;
        units[i] = scale * shares[i];
        sizes[i] = own.size + others.size;
        values[i] = apart / scale;
        let (tangent, off) = (own.tangent + others.tangent, own.pull + others.pull);
        // the slope moves with the margin, at most as that of cos(angle + m) does
        pulls[i] = units[i] * ((1e-5 + apart) * tangent + off + rounding * (1.0 + own.tangent));
    }

    for (i, off) in losses.iter().enumerate() {
        let (f, e) = (f64::from(found.row_losses[i]), expected.row_losses[i]);
        if !close(f, e, off + SMALL) {
            return Err(format!("row loss {i} is {f:e}, not {e:e} within {off:e}"));
        }
    }
    // a weighted loss below f32 is 0 in a mean too
    let reduced = if z > 0.0 { losses.iter().sum::<f64>() / z + SMALL / z } else { 0.0 };
    if !close(found.loss.into(), expected.loss, reduced + 1e-5 * expected.loss.abs() + SMALL) {
        return Err(format!("the loss is {:e}, not {:e} within {reduced:e}", found.loss, expected.loss));
    }

    // dL/dcosine leaves f32 where upstream gradient, scale and weight together do; all that is summed over it is lost then
    if units.iter().any(|&u| u > LARGE) {
        return Ok(());
    }
    let all: f64 = pulls.iter().sum();
    // of what a row adds to dL/ds
    let tilts = |i: usize| {
        let off = 1e-5 + losses_off(losses[i], shares[i], z, upstream(i));
        shares[i] * (sizes[i] * off + values[i])
    };
    // The pull of a length along the embedding
    let along = |i: usize| {
        match loss.adaptive {
            Adaptive::MagFace(family) => {
                1e-5 * (attractions[i] * family.weight / family.lower_length.powi(2) + units[i])
            }
            // as of dL/ds below
            Adaptive::Length(_) => base * tilts(i),
            _ => 0.0,
        }
    };
    for (what, values, expected, lengths) in [
        ("dX", &found.grad_embeddings, &expected.grad_embeddings, &x_lengths),
        ("dW", &found.grad_prototypes, &expected.grad_prototypes, &w_lengths),
    ] {
        if values.len() != expected.len() {
            return Err(format!("{what} has {} values, not {}", values.len(), expected.len()));
        }
        for (v, (values, expected)) in values.chunks(d).zip(expected.chunks(d)).enumerate() {
            let embeds = what == "dX";
            let tolerance = match (linear, embeds) {
                (true, true) => pulls[v],
                (true, false) => (0..n)
                    .filter(|&i| counts(i))
                    .map(|i| units[i] * x_lengths[i] * bound(pulls[i], units[i], &w_lengths))
                    .sum(),
                (false, true) => pulls[v] / lengths[v] + along(v),
                (false, false) => all / lengths[v],
            };
            // entries of G below f32 are 0, and so are results
            let reach = if linear { longest(if embeds { &w_lengths } else { &x_lengths }) } else { 1.0 / lengths[v] };
            let floor = 2.0 * SMALL + SMALL * reach * if embeds { classes } else { n } as f64;
            let short = !linear && lengths[v] < 1e-12;
            let left_out = embeds && !counts(v) || expected.iter().all(|e| *e == 0.0) && !lengths[v].is_finite();
            for (at, (&f, &e)) in values.iter().zip(expected).enumerate() {
                let exact = short || left_out;
                if exact && f != 0.0 || !exact && !close(f.into(), e, tolerance + floor) {
                    let len = lengths[v];
                    return Err(format!("{what}[{v}, {at}] is {f:e}, not {e:e} within {tolerance:e}; length {len:e}"));
                }
            }
        }
    }

    let up = (0..n).map(|i| upstream(i).abs()).fold(0.0, f64::max);
    let floor = if z > 0.0 { SMALL * up / z } else { 0.0 };
    let factor = |i: usize| match loss.adaptive {
        Adaptive::Length(f) => x_lengths[i].clamp(f.lower_length, f.upper_length),
        _ => 1.0,
    };
    let tilt: f64 = (0..n).filter(|&i| counts(i)).map(|i| factor(i) * tilts(i)).sum();
    let tilt = tilt + floor;
    if !close(found.grad_scale.into(), expected.grad_scale, tilt + SMALL) {
        return Err(format!("ds is {:e}, not {:e} within {tilt:e}", found.grad_scale, expected.grad_scale));
    }
    let lean: f64 = (0..n).map(|i| units[i] * bound(pulls[i], units[i], &w_lengths)).sum::<f64>()
        + 1e-5 * shares.iter().sum::<f64>();
    for (j, (&f, &e)) in found.grad_bias.iter().zip(&expected.grad_bias).enumerate() {
        if !close(f.into(), e, lean + SMALL) {
            return Err(format!("db[{j}] is {f:e}, not {e:e} within {lean:e}"));
        }
    }
    Ok(())
}

/// The relative error of a linear head's probabilities, from that of the whole pull.
fn bound(pull: f64, unit: f64, lengths: &[f64]) -> f64 {
    let longest = longest(lengths);
    if unit > 0.0 && longest > 0.0 { pull / unit / longest } else { 0.0 }
}

/// Of those that are no NaN.
fn longest(lengths: &[f64]) -> f64 {
    lengths.iter().fold(0.0, |m: f64, &l| m.max(l))
}

fn losses_off(loss: f64, share: f64, z: f64, upstream: f64) -> f64 {
    if share > 0.0 { loss * upstream.abs() / z / share } else { 0.0 }
}

/// NaN where NaN is expected; finite wherever f32 holds the value with room for a factor of two.
fn close(found: f64, expected: f64, tolerance: f64) -> bool {
    if expected.is_nan() {
        return found.is_nan();
    }
    if expected.abs() > LARGE || tolerance > LARGE {
        return expected.abs() > LARGE || found.is_finite();
    }
    (found - expected).abs() <= tolerance
}

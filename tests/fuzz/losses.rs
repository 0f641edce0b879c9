//! Losses from bytes: a preset with parts of it changed, or a family of the list with other numbers.

#[path = "../families/mod.rs"]
mod families;

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use margin_softmax::{
    Adaptive, Link, MarginSoftmax, Others, Reduction, Similarity, Target,
    objective::{
        AdaFace, Angle, ArcNeg, Binary, Coefficients, Curve, Damping, Elastic, Fallback, InterclassFilter, Length,
        MagFace, MvSoftmax, PRESETS, Series, SimilarityAdjustment, Slope, TopK, Unified,
    },
};
use serde_json::{Number, Value};

static FAMILIES: LazyLock<Vec<families::Family>> = LazyLock::new(families::all);

/// A number: now and then anything at all, else one of the ends or between them.
pub fn number(u: &mut Unstructured, low: f64, high: f64) -> Result<f64> {
    Ok(match u.int_in_range(0..=31_u8)? {
        0 => f64::from_bits(u.arbitrary()?),
        1 => low,
        2 => high,
        _ => low + (high - low) * f64::from(u.arbitrary::<u16>()?) / 65535.0,
    })
}

fn slope(u: &mut Unstructured) -> Result<Slope> {
    Ok(if u.arbitrary()? { Slope::Analytic } else { Slope::Detached })
}

fn curve(u: &mut Unstructured) -> Result<Curve> {
    if u.arbitrary()? {
        return Ok(Curve::Exact);
    }
    let degree = u.int_in_range(0..=65_u8)?.into();
    let coefficients = match u.int_in_range(0..=7_u8)? {
        0 => Coefficients::Fit,
        1 => Coefficients::Given((0..=degree).map(|_| number(u, -1.0, 1.0)).collect::<Result<_>>()?),
        _ => Coefficients::Closed,
    };
    let damping = *u.choose(&[Damping::None, Damping::Jackson, Damping::Lanczos])?;
    Ok(Curve::Series(Series { degree, coefficients, damping }))
}

fn angle(u: &mut Unstructured) -> Result<Angle> {
    let (factor, margin, offset) = (number(u, 0.01, 3.0)?, number(u, -3.1, 3.1)?, number(u, -2.0, 2.0)?);
    Ok(Angle { factor, margin, offset, curve: curve(u)?, slope: slope(u)? })
}

fn power(u: &mut Unstructured) -> Result<SimilarityAdjustment> {
    let (exponent, margin) = (u.int_in_range(0..=17)?, number(u, 0.0, 1.0)?);
    Ok(SimilarityAdjustment { exponent, margin, angular: u.arbitrary()?, slope: slope(u)? })
}

fn unified(u: &mut Unstructured) -> Result<Unified> {
    let (m0, m1) = (number(u, 0.1, 2.0)?, *u.choose(&[1.0, 1.35, 1.7, 2.0, 4.0, 0.5])?);
    let m1 = if u.ratio(1, 4)? { number(u, 0.1, 16.0)? } else { m1 };
    let m2 = if u.ratio(1, 4)? { 0.0 } else { number(u, 0.0, 3.14)? };
    let m3 = number(u, -0.5, 0.5)?;
    let fallback = match u.int_in_range(0..=5_u8)? {
        0 => Fallback::Continuous,
        1 => Fallback::Sine,
        2 => Fallback::Mirror,
        3 => Fallback::None,
        4 => Fallback::Easy,
        _ => Fallback::Clip(number(u, 1e-4, 0.4)?),
    };
    Ok(Unified { m0, m1, m2, m3, curve: curve(u)?, slope: slope(u)?, fallback })
}

fn adaptive(u: &mut Unstructured) -> Result<Adaptive> {
    Ok(match u.int_in_range(0..=5_u8)? {
        0 => Adaptive::None,
        1 => Adaptive::AdaFace(AdaFace {
            margin: number(u, 0.0, 1.5)?,
            concentration: number(u, 0.1, 3.0)?,
            rate: number(u, 0.01, 1.0)?,
        }),
        2 => {
            let (lower_length, upper_length) = (number(u, 0.1, 10.0)?, number(u, 10.1, 110.0)?);
            let (lower_margin, upper_margin) = (number(u, 0.0, 0.8)?, number(u, 0.8, 3.1)?);
            Adaptive::MagFace(MagFace {
                lower_length,
                upper_length,
                lower_margin,
                upper_margin,
                weight: number(u, 0.0, 50.0)?,
            })
        }
        3 => Adaptive::Elastic(Elastic {
            cosine: u.arbitrary()?,
            deviation: number(u, 0.0, 0.5)?,
            sorted: u.arbitrary()?,
        }),
        4 => Adaptive::Length(Length { lower_length: number(u, 1e-3, 1.0)?, upper_length: number(u, 1.0, 50.0)? }),
        _ => Adaptive::AdaCos,
    })
}

/// A loss that may or may not be valid.
pub fn loss(u: &mut Unstructured) -> Result<MarginSoftmax> {
    let mut loss = u.choose(PRESETS)?.loss();
    let parts: u16 = u.arbitrary()?;
    let has = |bit: u16| parts >> bit & 1 == 1;
    if has(0) {
        loss.scale = number(u, 0.5, 64.0)?;
    }
    if has(1) && has(2) {
        loss.label_smoothing = number(u, 0.0, 0.9)?;
    }
    if has(3) {
        loss.reduction = *u.choose(&[Reduction::Mean, Reduction::Sum, Reduction::None])?;
    }
    if has(4) {
        loss.ignore_index = Some(match u.int_in_range(0..=15_u8)? {
            0 => u.arbitrary()?,
            1..8 => -1,
            class => i64::from(class - 8),
        });
    }
    if has(5) {
        loss.target = match u.int_in_range(0..=5_u8)? {
            0 => Target::Angle(angle(u)?),
            1 => Target::SimilarityAdjustment(power(u)?),
            _ => Target::Unified(unified(u)?),
        };
    }
    if has(6) {
        loss.others = match u.int_in_range(0..=8_u8)? {
            0 => Others::Identity,
            1 => Others::Rectified,
            2 => Others::Angle(angle(u)?),
            3 => Others::Curricular,
            4 => Others::TopK(TopK { count: u.int_in_range(0..=65_u8)?.into(), margin: number(u, 0.0, 1.5)? }),
            5 => Others::InterclassFilter(InterclassFilter { threshold: number(u, 0.01, 1.0)? }),
            6 => Others::MvSoftmax(MvSoftmax { weight: number(u, 0.0, 2.0)?, fixed: u.arbitrary()? }),
            7 => Others::ArcNeg(ArcNeg {
                factor: number(u, 0.1, 3.0)?,
                mean: number(u, -1.0, 1.0)?,
                deviation: number(u, 0.05, 3.0)?,
            }),
            _ => Others::SimilarityAdjustment(power(u)?),
        };
    }
    if has(7) && has(8) {
        loss.link = if u.arbitrary()? {
            Link::Softmax
        } else {
            Link::Binary(Binary {
                weight: number(u, 0.0, 1.0)?,
                factor: number(u, 0.01, 4.0)?,
                bias: number(u, -4.0, 4.0)?,
            })
        };
    }
    if has(9) {
        loss.adaptive = adaptive(u)?;
    }
    if has(10) && has(11) && has(12) {
        loss.similarity = if u.arbitrary()? { Similarity::Cosine } else { Similarity::Dot };
    }
    if has(13) && !has(14) && has(15) {
        let family = u.choose(&FAMILIES)?;
        loss = shaken(u, &family.loss)?;
    }
    Ok(loss)
}

/// The loss with other numbers in some places, whatever its parts are; as it is where it has no JSON form.
fn shaken(u: &mut Unstructured, loss: &MarginSoftmax) -> Result<MarginSoftmax> {
    let Ok(mut value) = serde_json::to_value(loss) else { return Ok(loss.clone()) };
    shake(u, &mut value)?;
    Ok(serde_json::from_value(value).unwrap_or_else(|_| loss.clone()))
}

fn shake(u: &mut Unstructured, value: &mut Value) -> Result<()> {
    match value {
        Value::Object(fields) => fields.values_mut().try_for_each(|value| shake(u, value)),
        Value::Array(values) => values.iter_mut().try_for_each(|value| shake(u, value)),
        Value::Number(old) if u.ratio(1, 4)? => {
            let most = old.as_f64().unwrap_or(1.0).abs().max(1.0);
            // a whole number stays one, and no number of JSON is infinite
            let new = if old.is_f64() {
                Number::from_f64(number(u, -most, 2.0 * most)?)
            } else {
                Some(u.arbitrary::<u8>()?.into())
            };
            *old = new.unwrap_or_else(|| old.clone());
            Ok(())
        }
        _ => Ok(()),
    }
}

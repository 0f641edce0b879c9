//! The transforms of the other classes in f32: values and slopes of one row of a tile at a time.

use std::f32::consts::FRAC_PI_2;

use super::{
    rows::RowExtras,
    vector::{Fused, exp},
};
use crate::objective::{
    Angle, ArcNeg, CustomOthers, InterclassFilter, MvSoftmax, Others, RowTarget, SimilarityAdjustment, Slope, TopK,
    others::{Harder, Identity, Other, Place, Rectified},
    unified,
};

/// A transform with its numbers in f32.
pub(super) enum OthersF32 {
    Identity,
    Rectified,
    Harder(Harder),
    TopK(TopK),
    InterclassFilter(InterclassFilter),
    Angle(AngleF32),
    Series(AngleF32, Vec<f32>),
    SimilarityAdjustment(PowerF32),
    MvSoftmax(MvSoftmax),
    ArcNeg(ArcNeg),
    Custom(CustomOthers),
}

/// `base + factor · (π/2 − θ)`.
#[derive(Clone, Copy)]
pub(super) struct AngleF32 {
    factor: f32,
    base: f32,
    detached: bool,
}

/// `2·((c + 1)/2)^t − 1 + margin`, of cos(θ − m) where there is a turn.
#[derive(Clone, Copy)]
pub(super) struct PowerF32 {
    exponent: u32,
    margin: f32,
    /// cos m and sin m.
    turn: Option<(f32, f32)>,
    detached: bool,
}

/// Cosines handled side by side where one of them takes a chain of steps.
const SIDE: usize = 32;

/// In the precision of the cosines.
const SMALLEST_SINE: f32 = unified::SMALLEST_SINE as f32;

impl OthersF32 {
    /// `series` are the coefficients of a transform that is one.
    pub fn new(others: &Others, series: Option<&[f64]>, hardness: f64) -> Self {
        match others {
            Others::Identity => Self::Identity,
            Others::Rectified => Self::Rectified,
            Others::Curricular => Self::Harder(Harder { hardness }),
            Others::TopK(top) => Self::TopK(*top),
            Others::InterclassFilter(filter) => Self::InterclassFilter(*filter),
            Others::Angle(angle) => {
                let line = AngleF32::new(angle);
                match series {
                    Some(terms) => Self::Series(line, terms.iter().map(|&c| c as f32).collect()),
                    None => Self::Angle(line),
                }
            }
            Others::SimilarityAdjustment(power) => Self::SimilarityAdjustment(PowerF32::new(power)),
            Others::MvSoftmax(mv) => Self::MvSoftmax(*mv),
            Others::ArcNeg(arcneg) => Self::ArcNeg(*arcneg),
            Others::Custom(custom) => Self::Custom(custom.clone()),
        }
    }

    /// Values and, with `SLOPES`, slopes of the classes from `first` on, in a row with this target cosine. All slices have one length.
    #[inline(always)]
    pub fn fill<const SLOPES: bool>(
        &self,
        cosines: &[f32],
        (row, target, first): (&RowExtras, f64, usize),
        values: &mut [f32],
        slopes: &mut [f32],
    ) {
        let place = Place { bound: row.bound, target: target as f32, late: true };
        match self {
            Self::Identity => transform::<SLOPES>(Identity, place, (cosines, values, slopes)),
            Self::Rectified => transform::<SLOPES>(Rectified, place, (cosines, values, slopes)),
            Self::Harder(harder) => transform::<SLOPES>(*harder, place, (cosines, values, slopes)),
            Self::InterclassFilter(filter) => transform::<SLOPES>(*filter, place, (cosines, values, slopes)),
            Self::TopK(top) => {
                // classes up to the last chosen one may lie on the bound
                let early = (row.last as usize + 1).saturating_sub(first).min(cosines.len());
                let ((a, b), (va, vb), (sa, sb)) =
                    (cosines.split_at(early), values.split_at_mut(early), slopes.split_at_mut(early));
                transform::<SLOPES>(*top, Place { late: false, ..place }, (a, va, sa));
                transform::<SLOPES>(*top, place, (b, vb, sb));
            }
            Self::Angle(line) => {
                each::<SLOPES>(
                    (cosines, values, slopes),
                    #[inline(always)]
                    |c| line.at(arcsine(c), 1.0 / sine(c).max(SMALLEST_SINE)),
                );
            }
            Self::Series(line, terms) => blocks::<SLOPES>(
                (cosines, values, slopes),
                #[inline(always)]
                |x| {
                    let (mut values, mut slopes) = clenshaw::<SLOPES>(terms, x);
                    for l in 0..SIDE {
                        (values[l], slopes[l]) = line.at(FRAC_PI_2 - values[l], -slopes[l]);
                    }
                    (values, slopes)
                },
            ),
            Self::SimilarityAdjustment(power) => blocks::<SLOPES>(
                (cosines, values, slopes),
                #[inline(always)]
                |x| power.at(x),
            ),
            Self::MvSoftmax(mv) => transform::<SLOPES>(*mv, place, (cosines, values, slopes)),
            Self::ArcNeg(arcneg) => {
                let [factor, decay, at] =
                    [arcneg.factor, arcneg.decay(), f64::from(row.bound) + arcneg.mean].map(|v| v as f32);
                each::<SLOPES>(
                    (cosines, values, slopes),
                    #[inline(always)]
                    |c| {
                        let t = factor * exp((c - at) * (c - at) * decay);
                        (t.fused(c, t) - 1.0, t)
                    },
                );
            }
            Self::Custom(custom) => {
                // a row that does not count has no bound
                let value = if row.bound.is_finite() { row.bound.into() } else { 0.0 };
                let target = RowTarget { cosine: f64::from(target as f32), value };
                custom.curve().fill(cosines, target, values, slopes);
            }
        }
    }
}

impl AngleF32 {
    fn new(angle: &Angle) -> Self {
        let base = angle.offset - angle.factor * (angle.margin + std::f64::consts::FRAC_PI_2);
        Self { factor: angle.factor as f32, base: base as f32, detached: angle.slope == Slope::Detached }
    }

    /// From π/2 − θ and its slope in c.
    #[inline(always)]
    fn at(&self, height: f32, slope: f32) -> (f32, f32) {
        (self.factor.fused(height, self.base), if self.detached { 1.0 } else { self.factor * slope })
    }
}

impl PowerF32 {
    fn new(power: &SimilarityAdjustment) -> Self {
        Self {
            exponent: power.exponent,
            margin: if power.angular { 0.0 } else { power.margin as f32 },
            turn: power.angular.then(|| (power.margin.cos() as f32, power.margin.sin() as f32)),
            detached: power.slope == Slope::Detached,
        }
    }

    #[inline(always)]
    fn at(&self, x: &[f32; SIDE]) -> ([f32; SIDE], [f32; SIDE]) {
        let (mut values, mut slopes, mut below) = (*x, [1.0; SIDE], [1.0; SIDE]);
        if let Some((cos, sin)) = self.turn {
            for l in 0..SIDE {
                let s = sine(x[l]);
                values[l] = x[l].fused(cos, s * sin);
                slopes[l] = cos - sin * x[l] / s.max(SMALLEST_SINE);
            }
        }
        for base in &mut values {
            *base = base.fused(0.5, 0.5);
        }
        for _ in 1..self.exponent {
            for l in 0..SIDE {
                below[l] *= values[l].abs();
            }
        }
        let factor = self.exponent as f32;
        for l in 0..SIDE {
            values[l] = (2.0 * below[l]).fused(values[l], -1.0) + self.margin;
            slopes[l] = if self.detached { 1.0 } else { factor * below[l] * slopes[l] };
        }
        (values, slopes)
    }
}

/// Cosines, and where their values and slopes go.
type Columns<'a> = (&'a [f32], &'a mut [f32], &'a mut [f32]);

#[inline(always)]
fn transform<const SLOPES: bool>(other: impl Other, place: Place<f32>, columns: Columns<'_>) {
    each::<SLOPES>(
        columns,
        #[inline(always)]
        |c| other.value_slope(c, place),
    );
}

#[inline(always)]
fn each<const SLOPES: bool>((cosines, values, slopes): Columns<'_>, f: impl Fn(f32) -> (f32, f32)) {
    if SLOPES {
        for ((&c, value), slope) in cosines.iter().zip(values).zip(slopes) {
            (*value, *slope) = f(c);
        }
    } else {
        cosines.iter().zip(values).for_each(|(&c, value)| *value = f(c).0);
    }
}

/// The same with [`SIDE`] values at a time; the last block is filled up.
#[inline(always)]
fn blocks<const SLOPES: bool>(
    (cosines, values, slopes): Columns<'_>,
    f: impl Fn(&[f32; SIDE]) -> ([f32; SIDE], [f32; SIDE]),
) {
    for ((cosines, values), slopes) in cosines.chunks(SIDE).zip(values.chunks_mut(SIDE)).zip(slopes.chunks_mut(SIDE)) {
        let mut x = [0.0; SIDE];
        x[..cosines.len()].copy_from_slice(cosines);
        let found = f(&x);
        values.copy_from_slice(&found.0[..values.len()]);
        if SLOPES {
            slopes.copy_from_slice(&found.1[..slopes.len()]);
        }
    }
}

/// sin θ.
#[inline(always)]
fn sine(c: f32) -> f32 {
    ((1.0 - c) * (1.0 + c)).max(0.0).sqrt()
}

/// arcsin c = π/2 − θ, absolute error below 2e-7; beyond ±1 as at ±1.
///
/// The polynomial is that of Moshier's Cephes library for |x| <= 1/2; above, arcsin c = π/2 − 2·arcsin √((1 − c)/2).
#[inline(always)]
fn arcsine(c: f32) -> f32 {
    let size = c.abs();
    let far = size > 0.5;
    let square = if far { (0.5 * (1.0 - size)).max(0.0) } else { size * size };
    let x = if far { square.sqrt() } else { size };
    let p = square.fused(4.216_32e-2, 2.418_131e-2);
    let p = square.fused(p, 4.547_002_5e-2);
    let p = square.fused(p, 7.495_300_3e-2);
    let p = square.fused(p, 1.666_675_3e-1);
    let near = (p * square).fused(x, x);
    (if far { (-2.0_f32).fused(near, FRAC_PI_2) } else { near }).copysign(c)
}

/// Σ c_k T_k(x) and, with `SLOPES`, its slope; even and odd half each in y = T_2(x), as in `objective::chebyshev`.
#[inline(always)]
fn clenshaw<const SLOPES: bool>(terms: &[f32], x: &[f32; SIDE]) -> ([f32; SIDE], [f32; SIDE]) {
    let mut y = [0.0; SIDE];
    for l in 0..SIDE {
        y[l] = (-2.0_f32).fused((1.0 - x[l]) * (1.0 + x[l]), 1.0);
    }
    // the constant of the even half comes last and otherwise
    let [e1, e2, f1, f2] = half::<SLOPES>(&terms[2..], &y);
    let [o1, o2, p1, p2] = half::<SLOPES>(&terms[1..], &y);
    let (mut values, mut slopes) = ([0.0; SIDE], [0.0; SIDE]);
    for l in 0..SIDE {
        let even = (y[l].fused(e1[l], terms[0] - e2[l]), e1[l] + y[l].fused(f1[l], -f2[l]));
        let odd = (o1[l] - o2[l], p1[l] - p2[l]);
        values[l] = x[l].fused(odd.0, even.0);
        slopes[l] = 4.0 * x[l] * x[l].fused(odd.1, even.1) + odd.0;
    }
    (values, slopes)
}

/// The last two sums of every second term, and of their slopes in y.
#[inline(always)]
fn half<const SLOPES: bool>(terms: &[f32], y: &[f32; SIDE]) -> [[f32; SIDE]; 4] {
    let [mut b1, mut b2, mut d1, mut d2] = [[0.0_f32; SIDE]; 4];
    // arccos has no even terms
    let used = terms.iter().step_by(2).rposition(|c| *c != 0.0).map_or(0, |last| last + 1);
    for k in (0..used).rev() {
        let c = terms[2 * k];
        for l in 0..SIDE {
            let twice = 2.0 * y[l];
            let b = twice.fused(b1[l], c - b2[l]);
            if SLOPES {
                let d = twice.fused(d1[l], 2.0_f32.fused(b1[l], -d2[l]));
                (d1[l], d2[l]) = (d, d1[l]);
            }
            (b1[l], b2[l]) = (b, b1[l]);
        }
    }
    [b1, b2, d1, d2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Coefficients, Curve, Damping, Series};

    /// Every transform against its f64 formula at the same f32 cosines, ends and beyond included.
    #[test]
    fn curves_are_those_of_the_reference() {
        let mut cosines: Vec<f32> = (0..=4000).map(|i| i as f32 / 2000.0 - 1.0).collect();
        cosines.extend([1.0 + 1.2e-7, -1.0 - 1.2e-7, 0.999_999_9, -0.999_999_9, 0.5, 1e-8, -0.0]);
        let series = |degree, coefficients, damping| {
            let curve = Curve::Series(Series { degree, coefficients, damping });
            Others::Angle(Angle { curve, factor: 0.7, offset: 0.3, margin: 0.1, ..Angle::default() })
        };
        let power = |exponent, angular, slope| {
            Others::SimilarityAdjustment(SimilarityAdjustment { exponent, angular, slope, margin: 0.15 })
        };
        let mut all = Others::all();
        all.extend([
            Others::Angle(Angle { factor: 0.6, offset: 1.0, margin: 0.2, ..Angle::default() }),
            Others::Angle(Angle { slope: Slope::Detached, ..Angle::default() }),
            series(31, Coefficients::Closed, Damping::None),
            series(64, Coefficients::Closed, Damping::Jackson),
            series(7, Coefficients::Fit, Damping::None),
            series(1, Coefficients::Given(vec![0.2, -0.9]), Damping::None),
            series(2, Coefficients::Given(vec![0.2, -0.9, 0.3]), Damping::None),
            series(4, Coefficients::Given(vec![0.2, -0.9, 0.3, 0.1, -0.05]), Damping::None),
            power(1, false, Slope::Analytic),
            power(16, false, Slope::Analytic),
            power(3, true, Slope::Analytic),
            power(4, true, Slope::Detached),
        ]);
        for others in all {
            let (bound, last, first) = (0.25_f32, 70_u32, 10);
            let row = RowExtras { bound, last, ..RowExtras::NONE };
            let (mut values, mut slopes) = (vec![f32::NAN; cosines.len()], vec![f32::NAN; cosines.len()]);
            let series = others.series();
            let (curve, exact) =
                (OthersF32::new(&others, series.as_deref(), 0.3), others.evaluator(0.3, series.as_deref()));
            curve.fill::<true>(&cosines, (&row, 0.0, first), &mut values, &mut slopes);
            for (j, &c) in cosines.iter().enumerate() {
                let late = first + j > last as usize;
                let (value, slope) = exact(f64::from(c), Place { bound: f64::from(bound), target: 0.0, late });
                let off = (f64::from(values[j]) - value).abs();
                // t factors, each rounded
                let size = if let Others::SimilarityAdjustment(p) = &others {
                    f64::from(p.exponent).max(3.0) / 3.0
                } else {
                    1.0
                };
                let most = 4e-7 * size * value.abs().max(1.0);
                assert!(off < most, "{others:?} at {c}: {}, not {value}", values[j]);
                // one rounding of 1 − c² is 6e-8 of its slope; a series of degree n has slopes up to n²
                let off = (f64::from(slopes[j]) - slope).abs();
                let size = slope.abs().max(if matches!(curve, OthersF32::Series(..)) { 40.0 } else { 1.0 });
                assert!(off < 2e-6 * size, "{others:?} at {c}: slope {}, not {slope}", slopes[j]);
            }
            let (again, mut unused) = (values.clone(), vec![7.0; slopes.len()]);
            curve.fill::<false>(&cosines, (&row, 0.0, first), &mut values, &mut unused);
            assert_eq!(values, again);
        }
    }
}

//! The settings of a loss and a call.

use std::ops::Range;

use bytemuck::Zeroable;

use super::{
    constants::*,
    uniforms::{Series, Settings},
};
use crate::{Adaptive, Coefficients, Curve, Fallback, MarginSoftmax, Others, Reduction, Shape, Slope, Target, Unified};

/// The options that may change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Call {
    /// Rows of one batch entry, at most as planned.
    pub rows: usize,
    /// Whether class weights are bound.
    pub class_weights: bool,
    /// Whether an upstream gradient is bound.
    pub upstream: bool,
    /// Gradients are added to what their buffers hold, instead of overwriting it.
    pub accumulate: bool,
    /// Whether margins of classes are bound.
    pub class_margins: bool,
    /// Whether margins of rows are bound.
    pub row_margins: bool,
}

impl Settings {
    /// The settings of a loss and a call, for `entries` batches.
    pub(super) fn new(loss: &MarginSoftmax, shape: Shape, range: &Range<usize>, entries: usize, call: &Call) -> Self {
        let mut new = Self::zeroed();
        new.rows = (entries * call.rows) as u32;
        new.batch_rows = call.rows as u32;
        new.classes = shape.classes() as u32;
        new.dim = shape.dim() as u32;
        new.offset = range.start as u32;
        new.centers = shape.sub_centers() as u32;
        new.scale = loss.scale as f32;
        new.smoothing = loss.label_smoothing as f32;
        new.share = (loss.label_smoothing / shape.classes() as f64) as f32;
        new.nan = f32::NAN.to_bits();
        if let Some(index) = loss.ignore_index {
            new.flags |= HAS_IGNORE;
            new.ignore = index as i32; // validated
        }
        new.flag(MEAN, loss.reduction == Reduction::Mean);
        new.flag(PLAIN, loss.is_linear());
        // the statistics of a shard are whole, whoever uses them
        new.flag(WEIGHS, loss.label_smoothing > 0.0 || *range != (0..shape.classes()));
        new.flag(CLASS_WEIGHTS, call.class_weights);
        new.flag(UPSTREAM, call.upstream);
        new.flag(UPSTREAM_ROWS, call.upstream && loss.is_unreduced());
        new.flag(ADD_EMBEDDINGS, call.accumulate);
        new.flag(ADD_PROTOTYPES, call.accumulate);
        new.flag(CLASS_MARGINS, call.class_margins);
        new.flag(ROW_MARGINS, call.row_margins);
        if let Some(link) = loss.binary() {
            new.bias = link.bias as f32;
            new.attract = (link.factor * link.weight) as f32;
            new.repel = (link.factor * (1.0 - link.weight)) as f32;
        }
        new.adaptive(loss);
        new.others(loss);
        let varied = loss.rows_adapt() || call.class_margins || call.row_margins;
        match &loss.target {
            Target::Unified(margin) => {
                new.flag(VARIED, varied);
                new.unified(margin, varied);
            }
            Target::Angle(angle) => {
                (new.m0, new.m2, new.m3) = (angle.factor as f32, angle.margin as f32, angle.offset as f32);
                new.flag(DETACHED, angle.slope == Slope::Detached);
                if let Some(series) = angle.series() {
                    new.flags |= SERIES;
                    new.pairs = put(&mut new.series, &series);
                }
            }
            Target::Power(power) => {
                if power.angular {
                    let margin = Unified { m2: power.margin, ..Default::default() };
                    new.unified(&margin, false);
                    new.flags |= ANGULAR;
                }
                new.m1 = power.exponent as f32;
                new.m3 = if power.angular { 0.0 } else { power.margin as f32 };
                new.flag(DETACHED, power.slope == Slope::Detached);
            }
            Target::Custom(custom) => {
                put(&mut new.turned, &custom.margin().parameters());
            }
        }
        new
    }

    /// m0..m3 with what follows from them; `varied` where rows may have others.
    fn unified(&mut self, margin: &Unified, varied: bool) {
        let (m1, m2) = (margin.m1, margin.m2);
        [self.m0, self.m1, self.m2, self.m3] = [margin.m0, m1, m2, margin.m3].map(|m| m as f32);
        self.flag(LINEAR, margin.is_linear());
        self.flag(DETACHED, margin.slope == Slope::Detached);
        let back = m1 * PI + m2;
        self.front = [m2.cos() as f32, -m2.sin() as f32];
        self.back = [back.cos() as f32, back.sin() as f32];
        self.threshold = margin.threshold().unwrap_or(-NO_THRESHOLD) as f32;
        self.sine = (m2 * m2.sin()) as f32;
        self.fallback = match margin.fallback {
            Fallback::Continuous => CONTINUOUS,
            Fallback::Sine => SINE,
            Fallback::Mirror => MIRROR,
            Fallback::None => NONE,
            Fallback::Clip(e) => {
                let cosine = |angle: f64| angle.cos() as f32;
                self.clip = e as f32;
                self.clipped = e.cos() as f32;
                // the angles where m1·θ + m2 reaches e and π − e; outside [0, π] everything or nothing is clipped
                let bound = |angle: f64| match angle {
                    a if a <= 0.0 => NO_THRESHOLD as f32,
                    a if a >= PI => -NO_THRESHOLD as f32,
                    a => cosine(a),
                };
                self.clip_high = bound((e - m2) / m1);
                self.clip_low = bound((PI - e - m2) / m1);
                CLIP
            }
            Fallback::Easy => EASY,
        };
        match &margin.curve {
            Curve::Series(series) if varied => {
                self.flags |= SERIES;
                let [straight, turned] = series.basis(m1);
                self.pairs = put(&mut self.series, &straight);
                put(&mut self.turned, &turned);
                match series.coefficients {
                    Coefficients::Closed => {
                        self.flags |= CLOSED;
                        put(&mut self.damping, &series.damping.factors(series.degree));
                    }
                    Coefficients::Fit => {}
                    Coefficients::Given(_) => self.flags |= GIVEN,
                }
            }
            _ => {
                if let Some(series) = margin.series() {
                    self.flags |= SERIES;
                    self.pairs = put(&mut self.series, &series);
                }
            }
        }
    }

    /// The numbers of what margins and scale follow.
    fn adaptive(&mut self, loss: &MarginSoftmax) {
        match loss.adaptive {
            Adaptive::None => {}
            Adaptive::AdaFace(family) => {
                self.adaptive = ADAFACE;
                self.base = family.margin as f32;
                self.rise = family.concentration as f32;
                self.rate = family.rate as f32;
            }
            Adaptive::MagFace(family) => {
                self.adaptive = MAGFACE;
                (self.lower, self.upper) = (family.lower_length as f32, family.upper_length as f32);
                (self.base, self.rise) = (family.lower_margin as f32, family.rise() as f32);
                self.top = family.upper_margin as f32;
                self.strength = family.weight as f32;
            }
            Adaptive::Elastic(family) => {
                self.adaptive = if family.cosine { ELASTIC_COSINE } else { ELASTIC_ANGLE };
                self.flag(SORTED, family.sorted);
            }
            Adaptive::AdaCos => self.flags |= OWN_SCALE,
        }
    }

    fn others(&mut self, loss: &MarginSoftmax) {
        match &loss.others {
            Others::Identity | Others::Rectified => {}
            Others::Curricular => self.flags |= CURRICULAR,
            Others::Filter(filter) => self.other_a = filter.threshold as f32,
            Others::TopK(top) => {
                self.chosen = top.count as u32;
                (self.other_a, self.other_b) = (top.margin.cos() as f32, top.margin.sin() as f32);
            }
            Others::Angle(angle) => {
                self.flag(OTHER_DETACHED, angle.slope == Slope::Detached);
                self.other_a = angle.factor as f32;
                (self.other_b, self.other_c) = (angle.margin as f32, angle.offset as f32);
                if let Some(series) = angle.series() {
                    self.flags |= OTHER_SERIES;
                    self.other_pairs = put(&mut self.other_series, &series);
                }
            }
            Others::Power(power) => {
                self.flag(OTHER_DETACHED, power.slope == Slope::Detached);
                self.flag(OTHER_ANGULAR, power.angular);
                self.other_a = power.exponent as f32;
                self.other_b = if power.angular { power.margin.cos() } else { power.margin } as f32;
                self.other_c = power.margin.sin() as f32;
            }
        }
    }

    /// With flags set or cleared.
    fn flag(&mut self, flag: u32, on: bool) {
        if on { self.flags |= flag } else { self.flags &= !flag }
    }
}

/// Numbers into their place; the number of (even, odd) pairs.
fn put(place: &mut Series, values: &[f64]) -> u32 {
    place.iter_mut().zip(values).for_each(|(place, v)| *place = *v as f32);
    values.len().div_ceil(2) as u32
}

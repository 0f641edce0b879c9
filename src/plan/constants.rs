//! Numbers of the losses, the sizes and the ranges that shaders need: more of [`uniforms::constants`](crate::uniforms::constants).

use std::f64::consts;

use crate::{
    data, monitor,
    objective::{self, Custom, TopK, adaptive, state, unified},
    uniforms::constants::{Wgsl, shared},
};

shared! {
    // sizes

    /// The most classes that inter-topk may choose, and the length of its list.
    MAX_TOP_K: u32 = TopK::MAX as u32;
    /// The most numbers of a custom margin.
    MAX_PARAMETERS: u32 = Custom::PARAMETERS as u32;
    /// The most bins of a histogram.
    MAX_BINS: u32 = monitor::MAX_BINS as u32;


    // numbers

    /// The smallest normal f32: a device may flush what is smaller.
    SMALLEST_NORMAL: f64 = f32::MIN_POSITIVE as f64;
    /// The number pi.
    PI: f64 = consts::PI;
    /// The f32 nearest to pi, minus pi.
    PI_EXCESS: f64 = (consts::PI as f32) as f64 - consts::PI;
    /// pi / 2.
    HALF_PI: f64 = consts::FRAC_PI_2;
    /// The square root of 1/2.
    ROOT_HALF: f64 = consts::FRAC_1_SQRT_2;
    /// 1 / pi.
    INVERSE_PI: f64 = consts::FRAC_1_PI;
    /// A vector shorter than this has the direction x / SHORTEST and no gradient.
    SHORTEST: f64 = objective::SHORTEST;
    /// No sine that is divided by counts as less.
    SMALLEST_SINE: f64 = unified::SMALLEST_SINE;
    /// Larger than every cosine: -NO_THRESHOLD is the threshold of a curve that has none.
    NO_THRESHOLD: f64 = unified::NO_THRESHOLD;
    /// The largest m0 and |m3|.
    MAX_MARGIN: f64 = unified::MAX_MARGIN;
    /// The largest m1.
    MAX_FACTOR: f64 = unified::MAX_FACTOR;
    /// In the place of the largest other cosine where a row has none.
    NO_COSINE: f64 = data::NO_COSINE;

    /// The smallest weight of a class or row but 0.
    MIN_WEIGHT: f64 = data::MIN_WEIGHT as f64;
    /// The largest weight of a class or row.
    MAX_WEIGHT: f64 = data::MAX_WEIGHT as f64;

    /// Less than this, p and -ln(1 - p) are the same f32.
    SMALL_PROBABILITY: f64 = 1e-7;

    // families that follow the batch

    /// AdaFace: a shorter length counts as this.
    SHORT_LENGTH: f64 = adaptive::SHORT_LENGTH;
    /// AdaFace: a longer length counts as this.
    LONG_LENGTH: f64 = adaptive::LONG_LENGTH;
    /// AdaFace: added to the deviation before it divides.
    DEVIATION_FLOOR: f64 = adaptive::DEVIATION_FLOOR;
    /// ElasticFace: the largest |m2| with its draw.
    MAX_DRAWN: f64 = adaptive::MAX_DRAWN;
    /// CurricularFace: the share of a batch in the hardness.
    HARDNESS_RATE: f64 = adaptive::HARDNESS_RATE;
    /// CurricularFace: the largest |hardness| after a step.
    MAX_HARDNESS: f64 = state::MAX_HARDNESS;
    /// CurricularFace: the largest |hardness| that a step accepts.
    ACCEPTED_HARDNESS: f64 = state::ACCEPTED_HARDNESS;
    /// AdaFace: the largest mean and deviation of the lengths.
    LONGEST_MEAN: f64 = state::LONGEST_MEAN;
    /// AdaCos: a smaller cosine of the median angle counts as this.
    MIN_MEDIAN: f64 = adaptive::MIN_MEDIAN;
    /// AdaCos: the smallest scale.
    SMALLEST_SCALE: f64 = adaptive::SMALLEST_SCALE;
    /// AdaCos: the largest scale.
    LARGEST_SCALE: f64 = state::LARGEST_SCALE;
}

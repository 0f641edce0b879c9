//! Numbers of the losses, the sizes and the ranges that shaders need: more of [`uniforms::constants`](crate::uniforms::constants).

use std::f64::consts;

use crate::{
    Custom, TopK, data, monitor,
    objective::{self, adaptive, state, unified},
    uniforms::constants::{Wgsl, shared},
};

shared! {
    // sizes

    /// The most classes that inter-topk may choose, and the length of its list.
    MOST_CHOSEN: u32 = TopK::MOST as u32;
    /// The most numbers of a custom margin.
    MOST_PARAMETERS: u32 = Custom::PARAMETERS as u32;
    /// The most bins of a histogram.
    MOST_BINS: u32 = monitor::MOST_BINS as u32;


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
    MOST_MARGIN: f64 = unified::MOST_MARGIN;
    /// The largest m1.
    MOST_FACTOR: f64 = unified::MOST_FACTOR;
    /// In the place of the largest other cosine where a row has none.
    NO_COSINE: f64 = data::NO_COSINE;

    /// The smallest class weight but 0.
    LEAST_WEIGHT: f64 = data::LEAST_WEIGHT as f64;
    /// The largest class weight.
    MOST_WEIGHT: f64 = data::MOST_WEIGHT as f64;

    // families that follow the batch

    /// AdaFace: a shorter length counts as this.
    SHORT_LENGTH: f64 = adaptive::SHORT_LENGTH;
    /// AdaFace: a longer length counts as this.
    LONG_LENGTH: f64 = adaptive::LONG_LENGTH;
    /// AdaFace: added to the deviation before it divides.
    DEVIATION_FLOOR: f64 = adaptive::DEVIATION_FLOOR;
    /// ElasticFace: the largest |m2| with its draw.
    MOST_DRAWN: f64 = adaptive::MOST_DRAWN;
    /// CurricularFace: the share of a batch in the hardness.
    HARDNESS_RATE: f64 = adaptive::HARDNESS_RATE;
    /// CurricularFace: the largest |hardness| after a step.
    MOST_HARDNESS: f64 = state::MOST_HARDNESS;
    /// CurricularFace: the largest |hardness| that a step accepts.
    ACCEPTED_HARDNESS: f64 = state::ACCEPTED_HARDNESS;
    /// AdaFace: the largest mean and deviation of the lengths.
    LONGEST_MEAN: f64 = state::LONGEST_MEAN;
    /// AdaCos: a smaller cosine of the median angle counts as this.
    LEAST_MEDIAN: f64 = adaptive::LEAST_MEDIAN;
    /// AdaCos: the smallest scale.
    SMALLEST_SCALE: f64 = adaptive::SMALLEST_SCALE;
    /// AdaCos: the largest scale.
    LARGEST_SCALE: f64 = state::LARGEST_SCALE;
}

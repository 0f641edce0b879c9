//! The numbers that Rust and the shaders share: flags, codes, sizes, ranges, clamps. Each is declared once, in Rust. The
//! text of every kernel begins with [`TEXT`], which declares them in WGSL, so that a shader cannot use another value.
//! tests/shaders.rs fails where a shader declares such a number itself or writes it as a literal.

use std::{f64::consts, sync::LazyLock};

use crate::{
    Custom, TopK, data, monitor,
    objective::{self, adaptive, state, unified},
};

/// A number as WGSL writes it. A float is abstract there: an expression of constants is evaluated in f64 and rounded once.
trait Wgsl {
    fn wgsl(self) -> String;
}

impl Wgsl for u32 {
    fn wgsl(self) -> String {
        format!("{self}u")
    }
}

impl Wgsl for f64 {
    fn wgsl(self) -> String {
        format!("{self:?}")
    }
}

macro_rules! shared {
    ($(#[doc = $doc:literal] $name:ident: $number:ty = $value:expr;)+) => {
        $(#[doc = $doc] pub(crate) const $name: $number = $value;)+

        /// A line of WGSL for each of them.
        pub(crate) static TEXT: LazyLock<String> = LazyLock::new(|| {
            let lines = [$(format!("const {} = {};", stringify!($name), $name.wgsl()) + concat!(" //", $doc, "\n")),+];
            lines.concat()
        });
    };
}

shared! {
    // settings.flags

    /// Rows with the label settings.ignore are ignored.
    HAS_IGNORE: u32 = 1;
    /// The target is a straight line.
    LINEAR: u32 = 1 << 1;
    /// The slope of the target is detached.
    DETACHED: u32 = 1 << 2;
    /// The curve of the target is a series.
    SERIES: u32 = 1 << 3;
    /// Class weights are bound.
    CLASS_WEIGHTS: u32 = 1 << 4;
    /// An upstream gradient is bound.
    UPSTREAM: u32 = 1 << 5;
    /// The upstream gradient has a number per row.
    UPSTREAM_ROWS: u32 = 1 << 6;
    /// The loss is the mean.
    MEAN: u32 = 1 << 7;
    /// dX is added to what its buffer holds.
    ADD_EMBEDDINGS: u32 = 1 << 8;
    /// dW is added to what its buffer holds.
    ADD_PROTOTYPES: u32 = 1 << 9;
    /// Dot products instead of cosines.
    PLAIN: u32 = 1 << 10;
    /// Margins of classes are bound.
    CLASS_MARGINS: u32 = 1 << 11;
    /// Margins of rows are bound.
    ROW_MARGINS: u32 = 1 << 12;
    /// Margins differ from row to row.
    VARIED: u32 = 1 << 13;
    /// Series coefficients follow m1.
    CLOSED: u32 = 1 << 14;
    /// The scale is the state's.
    OWN_SCALE: u32 = 1 << 16;
    /// The transform of the other classes is CurricularFace's.
    CURRICULAR: u32 = 1 << 17;
    /// The curve of the other classes is a series.
    OTHER_SERIES: u32 = 1 << 18;
    /// The slope of the other classes is detached.
    OTHER_DETACHED: u32 = 1 << 19;
    /// The margin of SphereFace2 is one of the angle.
    ANGULAR: u32 = 1 << 20;
    /// So is the margin of the other classes.
    OTHER_ANGULAR: u32 = 1 << 21;
    /// The sum of the weighted logits is used: with label smoothing, and in shards.
    WEIGHS: u32 = 1 << 22;
    /// ElasticFace's draws are sorted.
    SORTED: u32 = 1 << 23;
    /// Series coefficients follow nothing.
    GIVEN: u32 = 1 << 24;

    // settings.adaptive; 0 for all others

    /// m2 and m3 follow the length.
    ADAFACE: u32 = 1;
    /// m2 follows the length, which has a gradient.
    MAGFACE: u32 = 2;
    /// m2 is drawn.
    ELASTIC_ANGLE: u32 = 3;
    /// m3 is drawn.
    ELASTIC_COSINE: u32 = 4;

    // settings.fallback

    /// x - x* - 1 beyond the threshold x*.
    CONTINUOUS: u32 = 0;
    /// x - m2 sin m2 beyond the threshold.
    SINE: u32 = 1;
    /// The monotone continuation.
    MIRROR: u32 = 2;
    /// cos u, unchanged.
    NONE: u32 = 3;
    /// The angle is clipped.
    CLIP: u32 = 4;
    /// x where x <= 0.
    EASY: u32 = 5;

    // Row.state: which row counts, and why not

    /// It counts.
    COUNTS: u32 = 0;
    /// It has the label that is ignored.
    IGNORED: u32 = 1;
    /// Its vector, or a logit of a linear head, is not finite.
    NON_FINITE: u32 = 2;
    /// Its label names no class, or its margins are none that a loss may have.
    INVALID: u32 = 3;
    /// It counts, but its vector is shorter than SHORTEST: no gradient to it.
    SHORT: u32 = 4;

    // sizes

    /// In the place of a class: the label of a row that has none, and an empty entry of a list.
    NO_CLASS: u32 = u32::MAX;
    /// The most classes that inter-topk may choose, and the length of its list.
    MOST_CHOSEN: u32 = TopK::MOST as u32;
    /// The most numbers of a custom margin.
    MOST_PARAMETERS: u32 = Custom::PARAMETERS as u32;
    /// The most bins of a histogram.
    MOST_BINS: u32 = monitor::MOST_BINS as u32;

    /// A sum of more terms adds up the sums of so many: 256 for each of 256 lanes.
    LONG: u32 = 1 << 16;

    // numbers

    /// Stands for minus infinity, which drivers treat differently.
    LOWEST: f64 = -3.0e38;
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

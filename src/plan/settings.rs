//! The uniform blocks, byte for byte as shaders/common/params.wgsl declares them.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::constants::*;
use crate::{Adaptive, Coefficients, Curve, Fallback, MarginSoftmax, Others, Reduction, Shape, Slope, Target, Unified};

pub(crate) const SETTINGS_BYTES: usize = size_of::<Settings>();
pub(crate) const PART_BYTES: usize = size_of::<Part>();

/// The settings of a loss and a call: the bytes of binding 0. Made by [`Plan::settings`](super::Plan::settings).
// twin of `Settings` in params.wgsl
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub struct Settings {
    pub(crate) rows: u32,
    pub(crate) batch_rows: u32,
    pub(crate) classes: u32,
    pub(crate) dim: u32,
    pub(crate) flags: u32,
    pub(crate) ignore: i32,
    pub(crate) fallback: u32,
    pub(crate) pairs: u32,
    pub(crate) scale: f32,
    pub(crate) smoothing: f32,
    pub(crate) share: f32,
    pub(crate) nan: u32,
    pub(crate) m0: f32,
    pub(crate) m1: f32,
    pub(crate) m2: f32,
    pub(crate) m3: f32,
    pub(crate) front: [f32; 2],
    pub(crate) back: [f32; 2],
    pub(crate) threshold: f32,
    pub(crate) sine: f32,
    pub(crate) clipped: f32,
    pub(crate) clip_low: f32,
    pub(crate) clip_high: f32,
    pub(crate) clip: f32,
    pub(crate) offset: u32,
    pub(crate) centers: u32,
    pub(crate) adaptive: u32,
    pub(crate) chosen: u32,
    pub(crate) bias: f32,
    pub(crate) lower: f32,
    pub(crate) upper: f32,
    pub(crate) base: f32,
    pub(crate) rise: f32,
    pub(crate) top: f32,
    pub(crate) strength: f32,
    pub(crate) rate: f32,
    pub(crate) attract: f32,
    pub(crate) repel: f32,
    pub(crate) other_a: f32,
    pub(crate) other_b: f32,
    pub(crate) other_c: f32,
    pub(crate) other_pairs: u32,
    /// Coefficients; the shader reads them in (even, odd) pairs.
    pub(crate) series: Series,
    pub(crate) turned: Series,
    pub(crate) damping: Series,
    pub(crate) other_series: Series,
}

/// Room for the coefficients of the highest degree.
type Series = [f32; 68];

/// Twin of `Part` in params.wgsl: what one dispatch works on.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Pod, Zeroable)]
pub struct Part {
    /// The chunk's first prototype.
    pub first: u32,
    /// Its prototypes.
    pub count: u32,
    /// The first prototype, counted in its shard.
    pub local: u32,
    /// Prototypes from row to row of the chunk.
    pub stride: u32,
    /// Parts of the sum over classes.
    pub splits: u32,
    /// Statistics held per row.
    pub slots: u32,
    /// Prototypes of one split.
    pub split_span: u32,
    /// Classes of one slot.
    pub slot_span: u32,
    /// 1 where sums start.
    pub begin: u32,
    /// The rows of one pass of grad_prototypes; the classes of one span of select_classes.
    pub row_first: u32,
    /// Their number.
    pub row_count: u32,
    /// The bits of a filter's threshold, an f32.
    pub epsilon: u32,
}

impl Part {
    /// As they go into the uniform buffer, each at a multiple of [`PART_STRIDE`](super::PART_STRIDE).
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }
}

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

    /// As they go into the uniform buffer.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
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

/// Twin of `Stats` in params.wgsl, for the exchange of shards.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
pub(crate) struct Stats {
    pub most: f32,
    pub sum: f32,
    pub tilt: f32,
    pub weighted: f32,
    pub nearest: f32,
    pub endless: u32,
    pub pad: [u32; 2],
}

#[cfg(all(feature = "gpu", not(target_arch = "wasm32")))] // shards are read back there
impl Stats {
    /// Minus infinity on a device.
    pub const LOWEST: f32 = LOWEST as f32;
    /// Of no class.
    pub const EMPTY: Self =
        Self { most: Self::LOWEST, sum: 0.0, tilt: 0.0, weighted: 0.0, nearest: Self::LOWEST, endless: 0, pad: [0; 2] };
}

/// Twin of `Row` in params.wgsl, for reading back.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Row {
    pub state: u32,
    pub label: u32,
    pub weight: f32,
    pub cosine: f32,
    pub value: f32,
    pub slope: f32,
    pub turn: f32,
    pub length: f32,
    pub scale: f32,
    pub bound: f32,
    pub last: u32,
    pub bend: f32,
    pub draw: f32,
    pub nearest: f32,
    pub others: f32,
    pub total: f32,
    pub mass: f32,
    pub loss: f32,
    pub gain: f32,
    pub normalizer: f32,
    pub pull: f32,
    pub tilt: f32,
    pub lean: f32,
    pub stretch: f32,
}

/// Twin of `Batch` in params.wgsl, for reading back.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct BatchState {
    pub loss: f32,
    pub normalizer: f32,
    pub weights: f32,
    pub rows: u32,
    pub ignored: u32,
    pub non_finite_rows: u32,
    pub invalid_labels: u32,
    pub zero_embeddings: u32,
    pub zero_prototypes: u32,
    pub non_finite_prototypes: u32,
    pub middle: f32,
    pub pad: u32,
}

/// Twin of `Filtered` in filter_totals.wgsl, for reading back.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(crate) struct Filtered {
    pub dropped: f32,
    pub total: f32,
    pub low: u32,
    pub high: u32,
}

/// A struct's name, its fields with their offsets, and its size.
type Twin = (&'static str, Vec<(&'static str, usize)>, usize);

/// The structs that a shader declares too; a test compares them field by field.
#[doc(hidden)]
pub fn twins() -> Vec<Twin> {
    macro_rules! twin {
        ($name:literal, $t:ty, $($field:ident),*) => {
            ($name, vec![$((stringify!($field), std::mem::offset_of!($t, $field))),*], size_of::<$t>())
        };
    }
    vec![
        twin!(
            "Settings",
            Settings,
            rows,
            batch_rows,
            classes,
            dim,
            flags,
            ignore,
            fallback,
            pairs,
            scale,
            smoothing,
            share,
            nan,
            m0,
            m1,
            m2,
            m3,
            front,
            back,
            threshold,
            sine,
            clipped,
            clip_low,
            clip_high,
            clip,
            offset,
            centers,
            adaptive,
            chosen,
            bias,
            lower,
            upper,
            base,
            rise,
            top,
            strength,
            rate,
            attract,
            repel,
            other_a,
            other_b,
            other_c,
            other_pairs,
            series,
            turned,
            damping,
            other_series
        ),
        twin!(
            "Part", Part, first, count, local, stride, splits, slots, split_span, slot_span, begin, row_first,
            row_count, epsilon
        ),
        twin!(
            "Row", Row, state, label, weight, cosine, value, slope, turn, length, scale, bound, last, bend, draw,
            nearest, others, total, mass, loss, gain, normalizer, pull, tilt, lean, stretch
        ),
        twin!("Stats", Stats, most, sum, tilt, weighted, nearest, endless),
        twin!(
            "Batch",
            BatchState,
            loss,
            normalizer,
            weights,
            rows,
            ignored,
            non_finite_rows,
            invalid_labels,
            zero_embeddings,
            zero_prototypes,
            non_finite_prototypes,
            middle
        ),
    ]
}

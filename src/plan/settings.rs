//! The uniform blocks, byte for byte as shaders/common/params.wgsl declares them.

use std::f64::consts::PI;

use bytemuck::{Pod, Zeroable};

use crate::{Fallback, MarginSoftmax, Reduction, Shape, Slope, Target};

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
    pub(crate) folds: f32,
    pub(crate) clipped: f32,
    pub(crate) clip_low: f32,
    pub(crate) clip_high: f32,
    pub(crate) pad: [u32; 2],
    /// Coefficients; the shader reads them in (even, odd) pairs.
    pub(crate) series: [f32; 68],
}

/// Twin of `Part` in params.wgsl: what one dispatch works on.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Part {
    /// The chunk's first class.
    pub first: u32,
    /// Its classes.
    pub count: u32,
    /// The first class, counted in its shard.
    pub local: u32,
    /// Classes from row to row of the chunk.
    pub stride: u32,
    /// Parts of the sum over classes.
    pub splits: u32,
    /// Statistics held per row.
    pub slots: u32,
    /// Classes of one split.
    pub split_span: u32,
    /// Classes of one slot.
    pub slot_span: u32,
    /// 1 where sums start.
    pub begin: u32,
    /// The rows of one pass of grad_prototypes.
    pub row_first: u32,
    /// Their number.
    pub row_count: u32,
    /// Unused.
    pub pad: u32,
}

/// What may change from call to call.
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
}

const HAS_IGNORE: u32 = 1;
const LINEAR: u32 = 2;
const DETACHED: u32 = 4;
const SERIES: u32 = 8;
const CLASS_WEIGHTS: u32 = 16;
const UPSTREAM: u32 = 32;
const UPSTREAM_ROWS: u32 = 64;
const MEAN: u32 = 128;
const ADD_EMBEDDINGS: u32 = 256;
const ADD_PROTOTYPES: u32 = 512;

impl Settings {
    /// The settings of a loss that does not use class weights or an upstream gradient, for `rows` rows in all.
    pub(super) fn new(loss: &MarginSoftmax, shape: Shape, rows: usize, batch_rows: usize) -> Self {
        let mut new = Self::zeroed();
        new.rows = rows as u32;
        new.batch_rows = batch_rows as u32;
        new.classes = shape.classes() as u32;
        new.dim = shape.dim() as u32;
        new.scale = loss.scale as f32;
        new.smoothing = loss.label_smoothing as f32;
        new.share = (loss.label_smoothing / shape.classes() as f64) as f32;
        new.nan = f32::NAN.to_bits();
        if let Some(index) = loss.ignore_index {
            new.flags |= HAS_IGNORE;
            new.ignore = index as i32; // validated
        }
        if loss.reduction == Reduction::Mean {
            new.flags |= MEAN;
        }
        let Target::Unified(margin) = &loss.target else { return new };
        let (m1, m2) = (margin.m1, margin.m2);
        [new.m0, new.m1, new.m2, new.m3] = [margin.m0, m1, m2, margin.m3].map(|m| m as f32);
        if margin.is_linear() {
            new.flags |= LINEAR;
        }
        if margin.slope == Slope::Detached {
            new.flags |= DETACHED;
        }
        let back = m1 * PI + m2;
        new.front = [m2.cos() as f32, -m2.sin() as f32];
        new.back = [back.cos() as f32, back.sin() as f32];
        new.threshold = margin.threshold().unwrap_or(-2.0) as f32;
        new.sine = (m2 * m2.sin()) as f32;
        new.folds = ((m1 + m2 / PI).ceil() - 1.0).max(0.0) as f32;
        new.fallback = match margin.fallback {
            Fallback::Continuous => 0,
            Fallback::Sine => 1,
            Fallback::Mirror => 2,
            Fallback::None => 3,
            Fallback::Clip(e) => {
                let cosine = |angle: f64| angle.cos() as f32;
                new.clipped = e.cos() as f32;
                // the angles where m1·θ + m2 reaches e and π − e; outside [0, π] everything or nothing is clipped
                let bound = |angle: f64| match angle {
                    a if a <= 0.0 => 2.0,
                    a if a >= PI => -2.0,
                    a => cosine(a),
                };
                new.clip_high = bound((e - m2) / m1);
                new.clip_low = bound((PI - e - m2) / m1);
                4
            }
            Fallback::Easy => 5,
        };
        if let Some(series) = margin.series() {
            new.flags |= SERIES;
            new.pairs = series.len().div_ceil(2) as u32;
            for (k, c) in series.iter().enumerate() {
                new.series[k] = *c as f32;
            }
        }
        new
    }

    /// As they go into the uniform buffer.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    /// With what the call says.
    pub(super) fn with(mut self, loss: &MarginSoftmax, call: &Call) -> Self {
        self.flag(CLASS_WEIGHTS, call.class_weights);
        self.flag(UPSTREAM, call.upstream);
        self.flag(UPSTREAM_ROWS, call.upstream && loss.reduction == Reduction::None);
        self.flag(ADD_EMBEDDINGS, call.accumulate);
        self.flag(ADD_PROTOTYPES, call.accumulate);
        self
    }

    /// With flags set or cleared.
    fn flag(&mut self, flag: u32, on: bool) {
        if on { self.flags |= flag } else { self.flags &= !flag }
    }
}

/// Twin of `Row` in params.wgsl, for reading back.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Row {
    pub state: u32,
    pub label: u32,
    pub weight: f32,
    pub cosine: f32,
    pub logit: f32,
    pub slope: f32,
    pub nearest: f32,
    pub others: f32,
    pub total: f32,
    pub mass: f32,
    pub loss: f32,
    pub gain: f32,
    pub normalizer: f32,
    pub pull: f32,
    pub pad: [u32; 2],
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
    pub pad: [u32; 2],
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
            "Settings", Settings, rows, batch_rows, classes, dim, flags, ignore, fallback, pairs, scale, smoothing,
            share, nan, m0, m1, m2, m3, front, back, threshold, sine, folds, clipped, clip_low, clip_high, series
        ),
        twin!(
            "Part", Part, first, count, local, stride, splits, slots, split_span, slot_span, begin, row_first,
            row_count
        ),
        twin!(
            "Row", Row, state, label, weight, cosine, logit, slope, nearest, others, total, mass, loss, gain,
            normalizer, pull
        ),
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
            non_finite_prototypes
        ),
    ]
}

//! The settings of a loss and a call.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::{
    Reduction, Shape,
    objective::Prepared,
    uniforms::{Settings, constants::*},
};

/// The gradients that are added to what their buffers hold, instead of overwriting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Accumulate {
    /// dX, and dL/ds and the dL/db of a binary link, which are sums over the rows as well.
    pub embeddings: bool,
    /// dW, and the dL/db of a linear head.
    pub prototypes: bool,
}

impl From<bool> for Accumulate {
    /// All of them, or none.
    fn from(all: bool) -> Self {
        Self { embeddings: all, prototypes: all }
    }
}

/// The options that may change from call to call.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Call {
    /// Rows of one batch entry, at most as planned.
    pub rows: usize,
    /// Whether class weights are bound.
    pub class_weights: bool,
    /// Whether weights of rows are bound.
    pub row_weights: bool,
    /// Whether soft labels are bound.
    pub soft_labels: bool,
    /// In the place of the weights of the rows that count, in the mean: within \[1e-30, 1e30\].
    pub divisor: Option<f32>,
    /// Whether an upstream gradient is bound.
    pub upstream: bool,
    /// Gradients that are added to what their buffers hold.
    pub accumulate: Accumulate,
    /// Whether margins of classes are bound.
    pub class_margins: bool,
    /// Whether margins of rows are bound.
    pub row_margins: bool,
}

impl Settings {
    /// The settings of a loss and a call, for `entries` batches.
    pub(super) fn new(loss: &Prepared, shape: Shape, range: &Range<usize>, entries: usize, call: &Call) -> Self {
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
        new.flag(DOT_PRODUCT, loss.is_linear());
        // the statistics of a shard are whole, whoever uses them
        new.flag(WEIGHS, loss.label_smoothing > 0.0 || *range != (0..shape.classes()));
        new.flag(CLASS_WEIGHTS, call.class_weights);
        new.flag(UPSTREAM, call.upstream);
        new.flag(UPSTREAM_ROWS, call.upstream && loss.is_unreduced());
        new.flag(ROW_WEIGHTS, call.row_weights);
        new.flag(SOFT_LABELS, call.soft_labels);
        new.divisor = call.divisor.unwrap_or(0.0);
        new.focal = loss.focal as f32;
        new.z_loss = loss.z_loss as f32;
        new.flag(ADD_EMBEDDINGS, call.accumulate.embeddings);
        new.flag(ADD_PROTOTYPES, call.accumulate.prototypes);
        new.flag(CLASS_MARGINS, call.class_margins);
        new.flag(ROW_MARGINS, call.row_margins);
        loss.link.fill(&mut new);
        loss.adaptive.fill(&mut new);
        loss.others.fill(&mut new, loss.others_series());
        let varied = loss.rows_adapt() || call.class_margins || call.row_margins;
        loss.target_curve().fill(&mut new, varied);
        new
    }
}

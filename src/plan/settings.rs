//! The settings of a loss and a call.

use std::ops::Range;

use bytemuck::Zeroable;

use crate::{
    Reduction, Shape,
    objective::Prepared,
    uniforms::{Settings, constants::*},
};

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
        new.flag(ADD_EMBEDDINGS, call.accumulate);
        new.flag(ADD_PROTOTYPES, call.accumulate);
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

//! The native f32 path.

use crate::{Batch, Label, MarginSoftmax, Options, Output, Result, Shape};

/// What computes, for people.
pub(crate) fn name() -> String {
    format!("CPU, {} threads", rayon::current_num_threads())
}

/// A head on the CPU.
pub(crate) struct Head;

impl Head {
    pub fn new(_loss: &MarginSoftmax, _shape: Shape, _options: &Options) -> Result<Self> {
        todo!()
    }

    pub fn update(&mut self, _loss: &MarginSoftmax) -> Result<()> {
        todo!()
    }

    pub fn evaluate_into<L: Label>(&mut self, _batch: &Batch<'_, L>, _out: &mut Output) -> Result<()> {
        todo!()
    }
}

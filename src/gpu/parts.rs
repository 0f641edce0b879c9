//! A call in parts, each for a submit of its own.

use super::BoundHead;
use crate::Result;

/// The parts of a forward or a backward pass that are still to be recorded, in their order: see
/// [`BoundHead::forward_parts`].
#[must_use = "nothing is recorded until `record_next` is called"]
pub struct Parts<'a> {
    head: &'a mut BoundHead,
    parts: std::vec::IntoIter<Vec<usize>>,
}

impl BoundHead {
    /// The work of [`record_forward`](Self::record_forward), in parts that take at most
    /// [`Options::work_per_submit`](crate::Options::work_per_submit) each; one part where the plan was made without it.
    /// The results are there, with the bits of a single submit, once every part was submitted, in this order. Other
    /// work may come between.
    ///
    /// The head is borrowed until the parts are dropped, so nothing can change it half way. Where some were not recorded,
    /// what it reads back, and [`backward_parts`](Self::backward_parts), are [`Error::Unfinished`](crate::Error::Unfinished)
    /// until a forward pass is recorded anew; the caller's tensors then hold nothing of use, and a training step may have
    /// moved the state ([`set_state`](Self::set_state)).
    ///
    /// ```no_run
    /// # use margin_softmax::{gpu::BoundHead, wgpu, Result};
    /// # fn step(bound: &mut BoundHead, device: &wgpu::Device, queue: &wgpu::Queue) -> Result<()> {
    /// for backward in [false, true] {
    ///     let mut parts = if backward { bound.backward_parts()? } else { bound.forward_parts() };
    ///     while parts.remaining() > 0 {
    ///         let mut encoder = device.create_command_encoder(&Default::default());
    ///         parts.record_next(&mut encoder);
    ///         queue.submit([encoder.finish()]);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn forward_parts(&mut self) -> Parts<'_> {
        let steps = self.bound.forward_steps(self.is_training()).into_iter().flatten();
        self.parts(steps)
    }

    /// The work of [`record_backward`](Self::record_backward), in parts like those of the forward pass.
    pub fn backward_parts(&mut self) -> Result<Parts<'_>> {
        self.finished()?;
        let steps = self.bound.backward_steps();
        Ok(self.parts(steps))
    }

    fn parts(&mut self, steps: impl Iterator<Item = usize>) -> Parts<'_> {
        let parts = self.bound.plan().parts(steps).into_iter();
        Parts { head: self, parts }
    }
}

impl Parts<'_> {
    /// How many there are.
    pub fn remaining(&self) -> usize {
        self.parts.len()
    }

    /// Records the next part; `false`, and nothing is recorded, where there is none.
    pub fn record_next(&mut self, encoder: &mut wgpu::CommandEncoder) -> bool {
        let Some(part) = self.parts.next() else { return false };
        *self.head.unfinished.get_mut() = self.parts.len() > 0;
        self.head.bound.record("part", part, encoder);
        true
    }
}

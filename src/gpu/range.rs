//! The bytes of the caller's tensors that a plan binds, checked.

use super::{Context, Tensor};
use crate::{
    Error, Result,
    plan::{Binding, Buffer, Plan, Role, TensorRole},
};

/// The bytes of a buffer that are bound.
#[derive(Clone, PartialEq)]
pub(super) struct Range {
    pub buffer: wgpu::Buffer,
    pub offset: u64,
    pub bytes: u64,
}

impl Range {
    /// All of a buffer.
    pub fn whole(buffer: &wgpu::Buffer) -> Self {
        Self { buffer: buffer.clone(), offset: 0, bytes: buffer.size() }
    }
}

/// The caller's tensors in the plan's buffers, checked; `None` where the buffer is our own.
pub(super) fn ranges(context: &Context, plan: &Plan, given: &[(TensorRole, &Tensor)]) -> Result<Vec<Option<Range>>> {
    let find = |role: TensorRole| given.iter().find(|(s, _)| *s == role).map(|(_, tensor)| *tensor);
    let alignment = u64::from(context.limits().alignment);
    let mut ranges = vec![];
    for buffer in plan.buffers() {
        ranges.push(match buffer.role {
            Role::Workspace => None,
            Role::Given(role) => match find(role) {
                Some(tensor) => Some(range(tensor, buffer, role, alignment)?),
                None => return Err(Error::Missing { what: role.name(), why: "the plan reads or writes it" }),
            },
            Role::Optional(role) => match find(role) {
                Some(tensor) => {
                    // its size is the caller's, checked where its meaning is known
                    let whole = Buffer { bytes: tensor.bytes().next_multiple_of(4), ..*buffer };
                    Some(range(tensor, &whole, role, alignment)?)
                }
                None => None,
            },
        });
    }
    overlaps(plan, &ranges)?;
    Ok(ranges)
}

/// The range of a caller's tensor, if it can be bound as this buffer of the plan.
fn range(tensor: &Tensor, buffer: &Buffer, role: TensorRole, alignment: u64) -> Result<Range> {
    let what = role.name();
    let (offset, end, found) = (tensor.offset(), tensor.offset() + buffer.bytes, tensor.buffer().size());
    // a plan rounds the smallest buffers up; a view may be exact
    let exact = tensor.offset() + tensor.bytes().next_multiple_of(4);
    let end = if buffer.bytes <= 16 { exact } else { end };
    if end > found {
        return Err(Error::Buffer { what, offset, end, found });
    }
    if !offset.is_multiple_of(alignment) {
        return Err(Error::Alignment { what, offset, alignment });
    }
    Ok(Range { buffer: tensor.buffer().clone(), offset, bytes: end - offset })
}

/// Refuses a caller's buffer that is written in a call that reads it, or written where another tensor lies.
fn overlaps(plan: &Plan, ranges: &[Option<Range>]) -> Result<()> {
    let name = |i: usize| plan.buffers()[i].name;
    let mut written = vec![false; ranges.len()];
    for step in plan.steps() {
        let kinds = &plan.kernels()[step.kernel].bindings;
        for (&a, kind) in step.buffers.iter().zip(kinds) {
            if *kind != Binding::Write {
                continue;
            }
            written[a] = true;
            let Some(own) = &ranges[a] else { continue };
            let other = |&&b: &&usize| b != a && ranges[b].as_ref().is_some_and(|r| r.buffer == own.buffer);
            if let Some(&b) = step.buffers.iter().find(other) {
                return Err(Error::Overlap { what: name(a), other: name(b) });
            }
        }
    }
    for (a, one) in ranges.iter().enumerate() {
        for (b, two) in ranges.iter().enumerate() {
            if let (true, true, Some(one), Some(two)) = (a != b, written[a], one, two)
                && one.buffer == two.buffer
                && one.offset < two.offset + two.bytes
                && two.offset < one.offset + one.bytes
            {
                return Err(Error::Overlap { what: name(a), other: name(b) });
            }
        }
    }
    Ok(())
}

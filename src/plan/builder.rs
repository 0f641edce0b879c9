//! Puts a plan together; every size and every dispatch is checked against the limits here.

use std::{collections::HashMap, ops::Range};

use super::{Buffer, Element, Grid, Kernel, Limits, PART_STRIDE, Part, Plan, Role, Schedule, Slot, Step, kernels};
use crate::{Error, Result, Shape};

/// A vector's loops take a thirtieth of its length in turns, eight vectors to a lane; see `ROWS_PER_PASS`.
const MOST_DIM: usize = 1 << 16;

/// One lane looks at all prototypes of a class for 64 rows, and at their dot products with one; see `ROWS_PER_PASS`.
const MOST_CENTERS: usize = 256;

pub(super) struct Builder {
    limits: Limits,
    /// The most rows of one batch entry.
    rows: u32,
    buffers: Vec<Buffer>,
    kernels: Vec<Kernel>,
    parts: Vec<Part>,
    /// Where each part stands: a plan may have a quarter of a million.
    places: HashMap<Part, usize>,
}

impl Builder {
    pub fn new(limits: &Limits, rows: usize, shape: Shape) -> Result<Self> {
        limits.check()?;
        if shape.dim() > MOST_DIM {
            let (needed, allowed) = (shape.dim() as u64, MOST_DIM as u64);
            return Err(Error::Size { what: "dim on a GPU", needed, allowed });
        }
        let turns = crate::shape::elements(shape.sub_centers(), shape.dim());
        if shape.sub_centers() > 1 && turns > 1 << 20 {
            return Err(Error::Size { what: "sub_centers · dim on a GPU", needed: turns, allowed: 1 << 20 });
        }
        if shape.sub_centers() > MOST_CENTERS {
            let (needed, allowed) = (shape.sub_centers() as u64, MOST_CENTERS as u64);
            return Err(Error::Size { what: "sub_centers on a GPU", needed, allowed });
        }
        let (limits, rows, places) = (*limits, rows as u32, HashMap::new());
        Ok(Self { limits, rows, buffers: vec![], kernels: vec![], parts: vec![], places })
    }

    fn buffer(&mut self, name: &'static str, bytes: u64, role: Role) -> Result<usize> {
        let bytes = bytes.max(16).next_multiple_of(4);
        for (limit, allowed) in
            [("max_storage_buffer_binding_size", self.limits.max_binding), ("max_buffer_size", self.limits.max_buffer)]
        {
            if bytes > allowed {
                return Err(Error::Limit { what: name, limit, needed: bytes, allowed });
            }
        }
        self.buffers.push(Buffer { name, bytes, role });
        Ok(self.buffers.len() - 1)
    }

    pub fn workspace(&mut self, name: &'static str, bytes: u64) -> Result<usize> {
        self.buffer(name, bytes, Role::Workspace)
    }

    pub fn given(&mut self, slot: Slot, bytes: u64) -> Result<usize> {
        self.buffer(slot.name(), bytes, Role::Given(slot))
    }

    pub fn optional(&mut self, slot: Slot, bytes: u64) -> Result<usize> {
        self.buffer(slot.name(), bytes, Role::Optional(slot))
    }

    /// The place of a kernel among the few there are, added if it is new. The latest is the likeliest.
    fn kernel(&mut self, kernel: &Kernel) -> usize {
        self.kernels.iter().rposition(|k| k == kernel).unwrap_or_else(|| {
            self.kernels.push(kernel.clone());
            self.kernels.len() - 1
        })
    }

    /// One dispatch; kernels and parts that are already there are used again.
    pub fn step(&mut self, kernel: &Kernel, part: Part, grid: Grid, buffers: &[usize]) -> Result<Step> {
        grid.dispatch(self.rows, self.limits.max_groups)?;
        let kernel = self.kernel(kernel);
        let part = *self.places.entry(part).or_insert_with(|| {
            self.parts.push(part);
            self.parts.len() - 1
        });
        let bytes = (part as u64 + 1) * PART_STRIDE;
        if bytes > self.limits.max_buffer.min(u64::from(u32::MAX)) {
            let (limit, allowed) = ("max_buffer_size", self.limits.max_buffer);
            return Err(Error::Limit { what: "the table of parts", limit, needed: bytes, allowed });
        }
        Ok(Step { kernel, part, buffers: buffers.to_vec(), grid })
    }

    pub fn plan(
        self,
        (shape, range, entries, elements): (Shape, Range<usize>, usize, [Element; 2]),
        snippets: kernels::Snippets,
        schedule: Schedule,
        [targets, follow, statistics, losses, backward]: [Vec<Step>; 5],
    ) -> Plan {
        let Self { buffers, kernels, parts, .. } = self;
        let mut forward = targets;
        let mut cuts = [forward.len(); 3];
        for (i, steps) in [follow, statistics, losses].into_iter().enumerate() {
            cuts[i] = forward.len();
            forward.extend(steps);
        }
        Plan { shape, range, entries, elements, snippets, schedule, buffers, kernels, parts, forward, cuts, backward }
    }
}

//! Puts a plan together; every size and every dispatch is checked against the limits here.

use std::{collections::HashMap, ops::Range};

use super::{
    Buffer, CONSTANTS_STRIDE, Element, Grid, Kernel, Limits, PassSchedule, Plan, Role, Step, StepConstants, TensorRole,
    driver_limits::{MAX_DIM, MAX_SUB_CENTER_VALUES, MAX_SUB_CENTERS, at_most},
    limits::need,
    snippets, workspace_bytes,
};
use crate::{MarginSoftmax, Result, Shape, Tile};

pub(super) struct Builder {
    limits: Limits,
    /// The most rows of one batch entry.
    rows: u32,
    buffers: Vec<Buffer>,
    kernels: Vec<Kernel>,
    constants: Vec<StepConstants>,
    /// Their indices: a plan may have a quarter of a million.
    indices: HashMap<StepConstants, usize>,
}

impl Builder {
    pub fn new(limits: &Limits, rows: usize, shape: Shape) -> Result<Self> {
        limits.check()?;
        at_most("dim on a GPU", shape.dim() as u64, MAX_DIM as u64)?;
        if shape.sub_centers() > 1 {
            let values = crate::shape::elements(shape.sub_centers(), shape.dim());
            at_most("sub_centers · dim on a GPU", values, MAX_SUB_CENTER_VALUES)?;
        }
        at_most("sub_centers on a GPU", shape.sub_centers() as u64, MAX_SUB_CENTERS as u64)?;
        Ok(Self { rows: rows as u32, limits: *limits, ..Self::unchecked() })
    }

    /// Without limits, for the sizes of buffers alone.
    pub fn unchecked() -> Self {
        let limits = Limits { max_buffer: u64::MAX, max_binding: u64::MAX, ..Limits::WEBGPU };
        Self { limits, rows: 0, buffers: vec![], kernels: vec![], constants: vec![], indices: HashMap::new() }
    }

    /// Bytes of the workspace so far, for this many constants.
    pub fn workspace_bytes(&self, constants: u64) -> u64 {
        workspace_bytes(&self.buffers, constants)
    }

    fn buffer(&mut self, name: &'static str, bytes: u64, role: Role) -> Result<usize> {
        let bytes = bytes.max(16).next_multiple_of(4);
        need(name, "max_storage_buffer_binding_size", bytes, self.limits.max_binding)?;
        need(name, "max_buffer_size", bytes, self.limits.max_buffer)?;
        self.buffers.push(Buffer { name, bytes, role });
        Ok(self.buffers.len() - 1)
    }

    pub fn workspace(&mut self, name: &'static str, bytes: u64) -> Result<usize> {
        self.buffer(name, bytes, Role::Workspace)
    }

    pub fn given(&mut self, role: TensorRole, bytes: u64) -> Result<usize> {
        self.buffer(role.name(), bytes, Role::Given(role))
    }

    pub fn optional(&mut self, role: TensorRole, bytes: u64) -> Result<usize> {
        self.buffer(role.name(), bytes, Role::Optional(role))
    }

    /// The place of a kernel among the few there are, added if it is new. The latest is the likeliest.
    fn kernel(&mut self, kernel: &Kernel) -> usize {
        self.kernels.iter().rposition(|k| k == kernel).unwrap_or_else(|| {
            self.kernels.push(kernel.clone());
            self.kernels.len() - 1
        })
    }

    /// One dispatch; kernels and constants that are already there are used again.
    pub fn step(&mut self, kernel: &Kernel, constants: StepConstants, grid: Grid, buffers: &[usize]) -> Result<Step> {
        grid.dispatch(self.rows, self.limits.max_groups)?;
        let kernel = self.kernel(&kernel.fitted(&self.limits));
        let constants = *self.indices.entry(constants).or_insert_with(|| {
            self.constants.push(constants);
            self.constants.len() - 1
        });
        let bytes = (constants as u64 + 1) * CONSTANTS_STRIDE;
        need("the table of constants", "max_buffer_size", bytes, self.limits.max_buffer.min(u32::MAX.into()))?;
        Ok(Step { kernel, constants, buffers: buffers.to_vec(), grid, upstream: false })
    }

    /// The plan of steps that work on all classes at once.
    pub fn single(
        self,
        loss: &MarginSoftmax,
        (shape, entries, elements): (Shape, usize, [Element; 2]),
        tile: Tile,
        [forward, backward]: [Vec<Step>; 2],
    ) -> Plan {
        let schedule = PassSchedule::single(tile, shape.classes());
        let snippets = snippets::Snippets::of(loss, shape);
        let steps = [forward, vec![], vec![], vec![], backward];
        self.plan((shape, 0..shape.classes(), entries, elements), snippets, schedule, steps)
    }

    pub fn plan(
        self,
        (shape, range, entries, elements): (Shape, Range<usize>, usize, [Element; 2]),
        snippets: snippets::Snippets,
        schedule: PassSchedule,
        [targets, follow, statistics, losses, backward]: [Vec<Step>; 5],
    ) -> Plan {
        let Self { buffers, kernels, constants, .. } = self;
        let mut forward = targets;
        let mut cuts = [forward.len(); 3];
        for (i, steps) in [follow, statistics, losses].into_iter().enumerate() {
            cuts[i] = forward.len();
            forward.extend(steps);
        }
        Plan {
            shape,
            range,
            entries,
            elements,
            snippets,
            schedule,
            buffers,
            kernels,
            constants,
            forward,
            cuts,
            backward,
            work_per_submit: None,
            labelled: true,
            predictions: 0,
            margins: None,
        }
    }
}

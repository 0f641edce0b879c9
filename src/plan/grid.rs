//! Folds a line of workgroups over two axes; refuses what does not fit, never clamps.

use crate::{Error, Result};

/// How many workgroups a step takes, as a function of the rows of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Rows of one batch that a workgroup covers; 0: the number of rows does not matter.
    pub rows_per_group: u32,
    /// Workgroups per such block of rows.
    pub groups: u64,
    /// Batch entries, the third axis.
    pub entries: u32,
}

impl Grid {
    /// Workgroups that cover `rows_per_group` rows each, `groups` of them per block of rows.
    pub(crate) fn over_rows(rows_per_group: u32, groups: u64) -> Self {
        Self { rows_per_group, groups, entries: 1 }
    }

    /// A number of workgroups that does not depend on the rows.
    pub(crate) fn fixed(groups: u64) -> Self {
        Self { rows_per_group: 0, groups, entries: 1 }
    }

    pub(crate) fn entries(mut self, entries: u32) -> Self {
        self.entries = entries;
        self
    }

    /// The dispatch for this many rows; `None` where there is nothing to do.
    pub fn dispatch(&self, rows: u32, most: u32) -> Result<Option<[u32; 3]>> {
        let blocks = if self.rows_per_group == 0 { 1 } else { u64::from(rows.div_ceil(self.rows_per_group)) };
        let total = blocks.saturating_mul(self.groups);
        if total == 0 || self.entries == 0 {
            return Ok(None);
        }
        let most = u64::from(most);
        let y = total.div_ceil(most.max(1));
        if y > most || u64::from(self.entries) > most {
            let (needed, allowed) = (total.max(u64::from(self.entries)), most);
            let limit = "max_compute_workgroups_per_dimension";
            return Err(Error::Limit { what: "a dispatch", limit, needed, allowed });
        }
        // shaders count them in a u32, and a few more that have nothing to do
        if total + y > u64::from(u32::MAX) {
            let (what, allowed) = ("workgroups of a dispatch", u64::from(u32::MAX) - y);
            return Err(Error::Size { what, needed: total, allowed });
        }
        // as even as possible, so that few workgroups have nothing to do
        let x = total.div_ceil(y);
        Ok(Some([x as u32, y as u32, self.entries]))
    }
}

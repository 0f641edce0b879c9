//! The submits of a call: one, or as many as its plan or whoever watches it asks for.

use super::{bound::Bound, readback::Download};
use crate::{Result, data::Watch};

/// The submits of a call that is watched, where its caller gives no bound for one.
const PARTS: u64 = 16;

impl Bound {
    /// Submits steps, in as many parts as the plan says, and what else is to be recorded with the last of them.
    pub(super) fn submit(
        &self,
        steps: impl IntoIterator<Item = usize>,
        last: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex> {
        let mut parts = self.plan().parts(steps);
        let end = parts.pop().unwrap_or_default();
        for part in parts {
            self.context.submit(|encoder| self.record("part", part, encoder))?;
        }
        self.submit_part(end, last)
    }

    /// [`submit`](Self::submit), with a report after each part but the last. Two are under way at a time, so that the device need
    /// not wait. Where the plan has no bound for a submit, a sixteenth of the work is one.
    pub(super) async fn submit_watched(
        &self,
        steps: impl IntoIterator<Item = usize>,
        last: impl FnOnce(&mut wgpu::CommandEncoder),
        watch: &mut Watch,
    ) -> Result<wgpu::SubmissionIndex> {
        if !watch.is_on() {
            return self.submit(steps, last);
        }
        let work = |steps: &[usize]| steps.iter().map(|&step| self.plan().work(step)).sum::<u64>();
        let steps: Vec<usize> = steps.into_iter().collect();
        let total = work(&steps);
        watch.begin(total);
        let mut parts = self.plan().parts_within(steps, self.plan().work_per_submit().unwrap_or(total / PARTS));
        let end = parts.pop().unwrap_or_default();
        let mut ahead: Option<(Download, u64)> = None;
        for part in parts {
            let work = work(&part);
            // one value comes back: it says that the part is done
            let staging = Download::staging(&self.context, size_of::<u32>() as u64)?;
            let next = self.download_after::<u32>("batch", 1, staging, |encoder| self.record("part", part, encoder))?;
            if let Some((before, work)) = ahead.replace((next, work)) {
                before.values::<u32>(1).await?;
                watch.add(work)?;
            }
        }
        let submission = self.submit_part(end, last)?;
        if let Some((before, work)) = ahead {
            before.values::<u32>(1).await?;
            watch.add(work)?;
        }
        Ok(submission)
    }

    fn submit_part(
        &self,
        part: Vec<usize>,
        last: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex> {
        self.context.submit(|encoder| {
            self.record("part", part, encoder);
            last(encoder);
        })
    }
}

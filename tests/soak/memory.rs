//! What a process holds from step to step.

use std::{collections::HashMap, fs, sync::atomic::Ordering::SeqCst};

use crate::heap::LIVE;

/// Bytes in the order of the steps.
#[derive(Default)]
pub struct Memory {
    heap: Vec<u64>,
    /// Of the whole process; nothing where the system does not tell.
    resident: Vec<u64>,
    /// Of a device's allocator.
    device: Vec<u64>,
    /// What a step of some kind makes on the device, every time.
    made: HashMap<String, u64>,
}

/// Bytes before and after.
pub struct Growth {
    pub what: &'static str,
    pub start: u64,
    pub end: u64,
}

/// The resident set in bytes.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

impl Memory {
    /// For this many steps: it must not grow itself while it looks.
    pub fn new(steps: usize) -> Self {
        let list = || Vec::with_capacity(steps);
        Self { heap: list(), resident: list(), device: list(), made: HashMap::new() }
    }

    pub fn sample(&mut self, device: Option<u64>) {
        self.resident.extend(resident());
        self.device.extend(device);
        self.heap.push(LIVE.load(SeqCst) as u64);
    }

    /// A step of this kind made buffers of `bytes`: as many as every other one.
    pub fn made(&mut self, kind: String, bytes: u64) {
        let first = *self.made.entry(kind.clone()).or_insert(bytes);
        assert_eq!(first, bytes, "{kind}: bytes made on the device");
    }

    /// What was held in the middle of the first half, after a tenth of warm-up, and of the second: what grows shows there, while
    /// the most depends on what wgpu and the driver happen to hold until they are polled.
    pub fn growth(&self) -> Vec<Growth> {
        let middle = |all: &[u64]| {
            let mut sorted = all.to_vec();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied()
        };
        let of = |(what, all): (&'static str, &Vec<u64>)| {
            let (first, second) = all.get(all.len() / 10..)?.split_at(all.len() * 9 / 20);
            Some(Growth { what, start: middle(first)?, end: middle(second)? })
        };
        [("heap", &self.heap), ("resident", &self.resident), ("device", &self.device)]
            .into_iter()
            .filter_map(of)
            .collect()
    }
}

impl Growth {
    /// Within one part in a hundred.
    pub fn flat(&self) -> bool {
        self.end <= self.start + self.start / 100
    }
}

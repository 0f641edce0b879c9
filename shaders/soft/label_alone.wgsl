// A row has one target: its label.
fn seek_targets(row: u32, own: u32, first: u32, lane: u32) {}

fn beside_targets(here: vec4<bool>, at: vec4<u32>, first: u32) -> vec4<bool> { return here; }

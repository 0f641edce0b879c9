// A row has one target: its label.
fn seek_targets(row: u32, own: u32, first: u32, lane: u32) {}

fn beside_targets(others: vec4<u32>, at: vec4<u32>, first: u32) -> vec4<u32> { return others; }

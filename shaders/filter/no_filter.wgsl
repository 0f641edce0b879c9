// Without a filter every entry of the gradient is kept.

fn keep(g: vec4<f32>, gain: f32, share: f32, row: u32, class_of: u32) -> vec4<f32> {
    return g;
}

fn close(block: u32, lane: u32) {}

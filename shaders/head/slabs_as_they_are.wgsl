// The slabs are what they are.
fn summed(v: vec4<f32>, row: u32) -> vec4<f32> { return v; }

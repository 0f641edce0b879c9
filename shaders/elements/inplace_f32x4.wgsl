// Cosines that are overwritten: f32 in quads; the stride is a multiple of 4.
@group(0) @binding(2) var<storage, read_write> cosine: array<vec4<f32>>;

fn cosines_at(row: u32, column: u32) -> vec4<f32> { return cosine[(row * part.stride + column) >> 2u]; }

fn put_cosines(row: u32, column: u32, v: vec4<f32>) { cosine[(row * part.stride + column) >> 2u] = v; }

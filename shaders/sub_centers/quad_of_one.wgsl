// The cosines of four classes from j on, of one prototype each.
fn class_cosines(row: u32, j: u32) -> vec4<f32> { return cosine(row, j); }

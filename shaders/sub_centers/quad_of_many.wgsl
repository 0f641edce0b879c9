// The cosines of four classes from j on: the largest of each one's prototypes.
fn class_cosine(row: u32, j: u32) -> f32 {
    let start = row * part.stride;
    let first = j * centers();
    var c = cosine_value(start + min(first, part.stride - 1u));
    for (var k = 1u; k < centers(); k++) { c = max(c, cosine_value(start + min(first + k, part.stride - 1u))); }
    return c;
}

fn class_cosines(row: u32, j: u32) -> vec4<f32> {
    return vec4(class_cosine(row, j), class_cosine(row, j + 1u), class_cosine(row, j + 2u), class_cosine(row, j + 3u));
}

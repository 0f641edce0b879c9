// Cosines that are overwritten: f32, any stride. A lane never reads what another one writes.
@group(0) @binding(2) var<storage, read_write> cosine: array<f32>;

fn cosines_at(row: u32, column: u32) -> vec4<f32> {
    let at = row * part.stride + min(vec4(column, column + 1u, column + 2u, column + 3u), vec4(part.stride - 1u));
    return vec4(cosine[at.x], cosine[at.y], cosine[at.z], cosine[at.w]);
}

fn put_cosines(row: u32, column: u32, v: vec4<f32>) {
    let place = row * part.stride + column;
    cosine[place] = v.x;
    if (column + 1u < part.stride) { cosine[place + 1u] = v.y; }
    if (column + 2u < part.stride) { cosine[place + 2u] = v.z; }
    if (column + 3u < part.stride) { cosine[place + 3u] = v.w; }
}

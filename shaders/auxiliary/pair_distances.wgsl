// pair_distances: the distances of the directions of some prototypes to those of all.
//
//   in      prototype  [classes, dim]
//   in      classes    [classes]       vec2 (inverse length, -) as class_norms writes it
//   out     distances  [rows, stride]  f32 in quads; -1 for a prototype with itself and in the padding
//
// Row 0 is prototype part.row_first. 32x32 pairs per workgroup, 4x4 per lane. Differences, not 2 - 2 cosine: two
// neighbours keep the digits of their distance.

@group(0) @binding(3) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> distances: array<vec4<f32>>;

fn prototype_width() -> u32 { return settings.dim; }

fn unit(j: u32, d: u32, inverse: f32) -> vec4<f32> {
    return select(vec4(0.0), prototype(j, d) * inverse, inverse > 0.0);
}

fn squares(v: vec4<f32>) -> f32 {
    return dot(v, v);
}

fn keep_distances(m: u32, n: u32, square: vec4<f32>) {
    if (m >= part.row_count || n >= part.stride) { return; }
    let column = vec4(n) + vec4(0u, 1u, 2u, 3u);
    let apart = (column < vec4(part.count)) & (column != vec4(part.row_first + m));
    distances[(m * part.stride + n) >> 2u] = select(vec4(-1.0), sqrt(square), apart);
}

@compute @workgroup_size(64)
fn pair_distances(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let wide = (part.count + 31u) / 32u;
    if (group / wide * 32u >= part.row_count) { return; }
    let m = group / wide * 32u + (lane >> 3u) * 4u;
    let n = group % wide * 32u + (lane & 7u) * 4u;
    let last = vec4(part.count - 1u);
    let row = min(vec4(part.row_first + m) + vec4(0u, 1u, 2u, 3u), last);
    let column = min(vec4(n) + vec4(0u, 1u, 2u, 3u), last);
    let ri = abs(vec4(classes[row.x].x, classes[row.y].x, classes[row.z].x, classes[row.w].x));
    let ci = abs(vec4(classes[column.x].x, classes[column.y].x, classes[column.z].x, classes[column.w].x));
    var r0 = vec4(0.0); var r1 = vec4(0.0); var r2 = vec4(0.0); var r3 = vec4(0.0);
    for (var d = 0u; d < settings.dim; d += 4u) {
        let a0 = unit(row.x, d, ri.x); let a1 = unit(row.y, d, ri.y);
        let a2 = unit(row.z, d, ri.z); let a3 = unit(row.w, d, ri.w);
        let b0 = unit(column.x, d, ci.x); let b1 = unit(column.y, d, ci.y);
        let b2 = unit(column.z, d, ci.z); let b3 = unit(column.w, d, ci.w);
        r0 += vec4(squares(a0 - b0), squares(a0 - b1), squares(a0 - b2), squares(a0 - b3));
        r1 += vec4(squares(a1 - b0), squares(a1 - b1), squares(a1 - b2), squares(a1 - b3));
        r2 += vec4(squares(a2 - b0), squares(a2 - b1), squares(a2 - b2), squares(a2 - b3));
        r3 += vec4(squares(a3 - b0), squares(a3 - b1), squares(a3 - b2), squares(a3 - b3));
    }
    keep_distances(m, n, r0);
    keep_distances(m + 1u, n, r1);
    keep_distances(m + 2u, n, r2);
    keep_distances(m + 3u, n, r3);
}

// pair_pulls: sum over k of (direction k - own direction) / (distance (1 + distance)^2), a part of the classes per slab.
//
//   in      prototype  [classes, dim]
//   in      classes    [classes]              vec2 (inverse length, -) as class_norms writes it
//   in      distances  [rows, stride]         f32 in quads; -1 for a prototype with itself and in the padding
//   out     slabs      [splits, rows, quads]  vec4
//
// Row 0 is prototype part.row_first. 32 rows by 32 values per workgroup, 4x4 per lane. The difference is formed before it
// is multiplied: between neighbours the factor is large.

@group(0) @binding(3) var<storage, read> classes: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> distances: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> slabs: array<vec4<f32>>;

fn prototype_width() -> u32 { return settings.dim; }

fn unit(j: u32, d: u32) -> vec4<f32> {
    let place = min(j, part.count - 1u);
    let inverse = abs(classes[place].x);
    return select(vec4(0.0), prototype(place, d) * inverse, inverse > 0.0);
}

// 0 where two directions coincide, and for a prototype with itself
fn strength(m: u32, k: u32) -> vec4<f32> {
    let d = distances[(min(m, part.row_count - 1u) * part.stride + k) >> 2u];
    let some = d > vec4(0.0);
    let apart = select(vec4(1.0), d, some);
    return select(vec4(0.0), 1.0 / (apart * (1.0 + apart) * (1.0 + apart)), some);
}

fn keep_pull(m: u32, split: u32, n: u32, v: vec4<f32>) {
    let quads = (settings.dim + 3u) / 4u;
    if (m < part.row_count && n < settings.dim) { slabs[(split * part.row_count + m) * quads + (n >> 2u)] = v; }
}

@compute @workgroup_size(64)
fn pair_pulls(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let wide = (settings.dim + 31u) / 32u;
    let split = group / wide % part.splits;
    let high = group / wide / part.splits;
    if (high * 32u >= part.row_count) { return; }
    let m = high * 32u + (lane >> 3u) * 4u;
    let n = group % wide * 32u + (lane & 7u) * 4u;
    let o0 = unit(part.row_first + m, n); let o1 = unit(part.row_first + m + 1u, n);
    let o2 = unit(part.row_first + m + 2u, n); let o3 = unit(part.row_first + m + 3u, n);
    var r0 = vec4(0.0); var r1 = vec4(0.0); var r2 = vec4(0.0); var r3 = vec4(0.0);
    for (var k = split * part.split_span; k < min((split + 1u) * part.split_span, part.count); k += 4u) {
        let s0 = strength(m, k); let s1 = strength(m + 1u, k);
        let s2 = strength(m + 2u, k); let s3 = strength(m + 3u, k);
        let b0 = unit(k, n); let b1 = unit(k + 1u, n); let b2 = unit(k + 2u, n); let b3 = unit(k + 3u, n);
        r0 += s0.x * (b0 - o0) + s0.y * (b1 - o0) + s0.z * (b2 - o0) + s0.w * (b3 - o0);
        r1 += s1.x * (b0 - o1) + s1.y * (b1 - o1) + s1.z * (b2 - o1) + s1.w * (b3 - o1);
        r2 += s2.x * (b0 - o2) + s2.y * (b1 - o2) + s2.z * (b2 - o2) + s2.w * (b3 - o2);
        r3 += s3.x * (b0 - o3) + s3.y * (b1 - o3) + s3.z * (b2 - o3) + s3.w * (b3 - o3);
    }
    keep_pull(m, split, n, r0);
    keep_pull(m + 1u, split, n, r1);
    keep_pull(m + 2u, split, n, r2);
    keep_pull(m + 3u, split, n, r3);
}

// class_norms: inverse length and weight of every prototype of a shard.
//
//   in      prototype  [shard, dim]
//   out     classes    [vectors]           vec2 (inverse length, weight); 0 for a prototype that is not finite,
//                                          negative for one shorter than 1e-12
//   out     totals     [groups]            vec4 (sum of weights, short, not finite, exponent) of 64 prototypes; the weight of a
//                                          class counts once, and the exponent is that of the longest, or 0
//   in      weights    [classes]           f32; where class_weights.wgsl says so, and unused without class weights
//
// Eight lanes per prototype, eight at a time, 64 per workgroup.
// Twin: Directions in src/reference/directions.rs

@group(0) @binding(3) var<storage, read_write> classes: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> totals: array<vec4<f32>>;

var<workgroup> found: array<vec4<f32>, 8>;

fn prototype_width() -> u32 { return settings.dim; }
fn vector(row: u32, d: u32) -> vec4<f32> { return prototype(row, d); }

fn both(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return vec4(a.x + b.x, a.y + b.y, a.z + b.z, max(a.w, b.w)); }

// Of a length, from its inverse; 0 where there is none.
fn exponent_of(inverse: f32) -> f32 {
    return select(0.0, f32(127 - i32(bitcast<u32>(inverse) >> 23u)), inverse > 0.0);
}

@compute @workgroup_size(64)
fn class_norms(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    if (group * 64u >= part.count) { return; }
    var total = vec4(0.0);
    for (var i = 0u; i < 64u; i += 8u) {
        let j = group * 64u + i + (lane >> 3u);
        let length = measure(min(j, part.count - 1u), lane);
        if (j < part.count && (lane & 7u) == 0u) {
            let index = part.first + j;
            let weight = class_weight(settings.offset + index / settings.centers);
            let first = index % settings.centers == 0u;
            classes[index] = vec2(select(length.inverse, -length.inverse, length.short), weight);
            let own = vec4(select(0.0, weight, first), select(0.0, 1.0, length.short), select(0.0, 1.0, length.inverse == 0.0),
                           exponent_of(length.inverse));
            total = both(total, own);
        }
    }
    if ((lane & 7u) == 0u) { found[lane >> 3u] = total; }
    workgroupBarrier();
    if (lane == 0u) {
        for (var i = 1u; i < 8u; i++) { total = both(total, found[i]); }
        totals[part.local + group] = total;
    }
}

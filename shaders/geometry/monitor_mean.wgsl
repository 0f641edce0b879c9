// monitor_mean: the length of the mean direction of all prototypes.
//
//   in      sums    [blocks, quads]  vec4<f32>, from direction_sums; part.slots blocks
//   in      totals  [groups]         vec4, from class_norms; part.count of them
//   out     mean    [1]              bits of f32; NaN where a prototype is not finite
//
// One workgroup; a lane adds the blocks of its values in order, then the lanes' squares are added in a fixed tree.

@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> totals: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> mean: array<u32>;

// (square, prototypes that are not finite)
alias Reduced = vec2<f32>;
const LANES = 256u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

@compute @workgroup_size(LANES)
fn monitor_mean(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if (id.x + id.y > 0u) { return; }
    let quads = (settings.dim + 3u) / 4u;
    var square = 0.0;
    for (var quad = lane; quad < quads; quad += LANES) {
        var sum = vec4(0.0);
        for (var block = 0u; block < part.slots; block++) { sum += sums[block * quads + quad]; }
        let v = sum / f32(settings.classes);
        square += dot(v, v);
    }
    var bad = 0.0;
    for (var i = lane; i < part.count; i += LANES) { bad += totals[i].z; }
    let all = reduce(lane, vec2(square, bad));
    if (lane == 0u) { mean[0] = select(bitcast<u32>(sqrt(all.x)), settings.nan, all.y > 0.0); }
}

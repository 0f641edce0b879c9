// sum_margin_gradients: dL/dm0..m3, the sum of the rows' parts.
//
//   in      gradients  [rows]  vec4
//   inout   sum        [1]     vec4
//
// One workgroup; each lane adds its own in order, 256 at a time, then the lanes are added in a fixed tree.

@group(0) @binding(2) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> sum: array<vec4<f32>>;

alias Reduced = vec4<f32>;
const LANES = 256u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

@compute @workgroup_size(LANES)
fn sum_margin_gradients(@builtin(local_invocation_index) lane: u32) {
    var own = vec4(0.0);
    for (var first = 0u; first < settings.rows; first += LONG) {
        var some = vec4(0.0);
        for (var row = first + lane; row < min(first + LONG, settings.rows); row += LANES) { some += gradients[row]; }
        own += some;
    }
    own = reduce(lane, own);
    if (lane == 0u) { sum[0] = own + select(vec4(0.0), sum[0], has(ADD_EMBEDDINGS)); }
}

// class_margin_gradients: dL/dm0..m3 of every class, the sum over its rows.
//
//   in      rows       [rows]     Row: the labels
//   in      gradients  [rows]     vec4
//   inout   sums       [classes]  vec4
//
// A workgroup per class; each lane adds its own in order, then the lanes are added in a fixed tree.

@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;

alias Reduced = vec4<f32>;
const LANES = 64u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a + b; }

@compute @workgroup_size(LANES)
fn class_margin_gradients(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                          @builtin(local_invocation_index) lane: u32) {
    let class_index = unfold(id, groups);
    if (class_index >= part.count) { return; }
    var own = vec4(0.0);
    for (var first = 0u; first < settings.rows; first += LONG) {
        var some = vec4(0.0);
        for (var row = first + lane; row < min(first + LONG, settings.rows); row += LANES) {
            if (counts(rows[row].state) && rows[row].label == class_index) { some += gradients[row]; }
        }
        own += some;
    }
    own = reduce(lane, own);
    if (lane == 0u) { sums[class_index] = own + select(vec4(0.0), sums[class_index], has(ADD_EMBEDDINGS)); }
}

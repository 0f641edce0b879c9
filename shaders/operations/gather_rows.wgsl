// gather_rows: the prototypes of sampled classes, side by side.
//
//   in      prototype     [shard, dim]
//   in      labels        [rows]          i32: the sampled classes
//   out     store_vector  [rows, dim]     f32: the rows whose class lies in this shard; with the first one also those
//                                         whose class does not exist, as NaN
//
// Eight rows per workgroup, eight lanes per row.

@group(0) @binding(3) var<storage, read> labels: array<i32>;

fn prototype_width() -> u32 { return settings.dim; }
fn store_vector_width() -> u32 { return settings.dim; }

@compute @workgroup_size(64)
fn gather_rows(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 8u + (lane >> 3u);
    if (row >= settings.rows) { return; }
    let known = labels[row] >= 0 && u32(labels[row]) < settings.classes;
    // wraps where the class lies before this shard
    let local = u32(labels[row]) - part.first;
    let mine = known && local < part.count;
    if (!mine && (known || part.begin == 0u)) { return; }
    let j = select(0u, local, mine);
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        let v = select(vec4(bitcast<f32>(settings.nan)), prototype(j, d), mine);
        store_vector(row, d, v, false);
    }
}

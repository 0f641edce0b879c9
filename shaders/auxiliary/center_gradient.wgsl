// center_gradient: gain * (embedding - center) of every row that counts.
//
//   in      embedding       [rows, dim]
//   in      center          [classes, dim]
//   in      labels          [rows]          i32
//   in      states          [rows]          u32
//   in      gain            [1]             f32
//   inout   store_gradient  [rows, dim]
//
// Eight rows per workgroup, eight lanes per row.

@group(0) @binding(4) var<storage, read> labels: array<i32>;
@group(0) @binding(5) var<storage, read> states: array<u32>;
@group(0) @binding(6) var<storage, read> gain: array<f32>;

fn embedding_width() -> u32 { return settings.dim; }
fn center_width() -> u32 { return settings.dim; }
fn store_gradient_width() -> u32 { return settings.dim; }

@compute @workgroup_size(64)
fn center_gradient(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 8u + (lane >> 3u);
    if (row >= settings.rows) { return; }
    let keep = states[row] == COUNTS && gain[0] > 0.0;
    let j = select(0u, u32(labels[row]), keep);
    for (var d = (lane & 7u) * 4u; d < settings.dim; d += 32u) {
        let v = select(vec4(0.0), gain[0] * (embedding(row, d) - center(j, d)), keep);
        store_gradient(row, d, v, has(ADD_EMBEDDINGS));
    }
}

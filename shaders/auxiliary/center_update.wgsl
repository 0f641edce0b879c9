// center_update: moves the center of every class that has rows by rate / (1 + rows) * sum of (embedding - center).
//
//   in      embedding  [rows, dim]
//   in      labels     [rows]          i32
//   in      states     [rows]          u32
//   inout   centers    [classes, dim]  f32
//
// A workgroup per row and 256 values; the first row of a class does the work of all, in order, the others none. So a
// center is read and written by one lane only.
// Twin: update_centers in src/reference/regularizer.rs

@group(0) @binding(3) var<storage, read> labels: array<i32>;
@group(0) @binding(4) var<storage, read> states: array<u32>;
@group(0) @binding(5) var<storage, read_write> centers: array<f32>;

alias Reduced = u32;
const LANES = 64u;
fn combine(a: Reduced, b: Reduced) -> Reduced { return a | b; }

fn embedding_width() -> u32 { return settings.dim; }

@compute @workgroup_size(LANES)
fn center_update(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let group = unfold(id, groups);
    let wide = (settings.dim + 255u) / 256u;
    let row = group / wide;
    if (row >= settings.rows) { return; }
    let label = labels[row];
    var earlier = select(0u, 1u, states[row] != COUNTS);
    for (var k = lane; k < row; k += LANES) {
        if (labels[k] == label && states[k] == COUNTS) { earlier = 1u; }
    }
    earlier = reduce(lane, earlier);
    let d = (group % wide * LANES + lane) * 4u;
    if (earlier != 0u || d >= settings.dim) { return; }

    let place = u32(label) * settings.dim + d;
    var c = vec4(0.0);
    for (var i = 0u; i < min(4u, settings.dim - d); i++) { c[i] = centers[place + i]; }
    var sum = vec4(0.0);
    var count = 0.0;
    for (var k = row; k < settings.rows; k++) {
        if (labels[k] == label && states[k] == COUNTS) {
            sum += embedding(k, d) - c;
            count += 1.0;
        }
    }
    c += settings.scale / (1.0 + count) * sum;
    for (var i = 0u; i < min(4u, settings.dim - d); i++) { centers[place + i] = c[i]; }
}

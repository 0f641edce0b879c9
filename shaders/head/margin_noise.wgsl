// margin_noise: gives every row the noise of its margin (ElasticFace).
//
//   inout   rows   [rows]  Row: reads state and target cosine; writes margin_noise
//   in      noise  [rows]  f32; with SORTED in ascending order
//
// A workgroup per row counts the rows before it: those left out, then from the largest target cosine to the smallest.
// Twin: Adaptive::apply in src/objective/follow.rs

@group(0) @binding(2) var<storage, read_write> rows: array<Row>;
@group(0) @binding(3) var<storage, read> noise: array<f32>;

var<workgroup> lanes: array<u32, 64>;

fn key(row: u32) -> f32 {
    return select(-LOWEST, rows[row].cosine, counts(rows[row].state));
}

@compute @workgroup_size(64)
fn margin_noise(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups);
    if (row >= settings.rows) { return; }
    let own = key(row);
    var before = 0u;
    let sorted = has(SORTED);
    for (var i = lane; i < select(0u, settings.rows, sorted); i += 64u) {
        let one = key(i);
        before += select(0u, 1u, one > own || (one == own && i < row));
    }
    lanes[lane] = before;
    workgroupBarrier();
    if (lane != 0u) { return; }
    for (var i = 1u; i < 64u; i++) { before += lanes[i]; }
    rows[row].margin_noise = noise[select(row, before, sorted)];
}

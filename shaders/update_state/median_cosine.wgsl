// median_cosine: the median of the target cosines; of an even number of rows the larger of the two in the middle.
//
//   in      rows   [rows]  Row
//   inout   batch  [1]     Batch: writes median
//
// A workgroup per row counts the rows before it; one row of all finds itself in the middle.
// Twin: State::follow_scale in src/objective/follow.rs

@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read_write> batch: array<Batch>;

var<workgroup> lanes: array<vec2<u32>, 64>;

@compute @workgroup_size(64)
fn median_cosine(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups);
    if (row >= settings.rows) { return; }
    let own = rows[row].cosine;
    // rows before this one, and rows in all
    var found = vec2(0u);
    for (var i = lane; i < settings.rows; i += 64u) {
        let one = rows[i].cosine;
        if (counts(rows[i].state)) { found += vec2(select(0u, 1u, one > own || (one == own && i < row)), 1u); }
    }
    lanes[lane] = found;
    workgroupBarrier();
    if (lane != 0u) { return; }
    for (var i = 1u; i < 64u; i++) { found += lanes[i]; }
    if (counts(rows[row].state) && found.x == (found.y - 1u) / 2u) { batch[0].median = own; }
}

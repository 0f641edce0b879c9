// target_facts: target_margins for other classes that look at the target of their row.
//
//   inout   rows           [rows]        Row: as there; bound is the target's value, and hardness its cosine
//   in      class_margins  [classes, 4]  f32
//   in      row_margins    [rows, 4]     f32
//   in      state          [4]           f32; of a loss that reads it

@group(0) @binding(2) var<storage, read_write> rows: array<Row>;

@compute @workgroup_size(64)
fn target_facts(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row >= settings.rows) { return; }
    var r = with_margin(rows[row], row);
    // a row that is not finite has no target to look at
    let known = counts(r.state);
    r.bound = select(0.0, r.value, known);
    r.hardness = select(0.0, r.cosine, known);
    rows[row] = r;
}

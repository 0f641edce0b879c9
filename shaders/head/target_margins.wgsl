// target_margins: the margin of every row at its target cosine.
//
//   inout   rows           [rows]        Row: reads the target's cosine; writes value, slope, slope_m2, scale, bound
//   in      class_margins  [classes, 4]  f32
//   in      row_margins    [rows, 4]     f32
//   in      state          [4]           f32; of a loss that reads it
//
// Of its own where something happens between the target's cosine and its margin; else target_rows does it.

@group(0) @binding(2) var<storage, read_write> rows: array<Row>;

@compute @workgroup_size(64)
fn target_margins(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let row = unfold(id, groups) * 64u + lane;
    if (row < settings.rows) { rows[row] = with_margin(rows[row], row); }
}

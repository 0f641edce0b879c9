// soft_margins: the margin of every target at its cosine; the label's is that of its row.
//
//   in      rows           [rows]               Row
//   inout   soft           [rows, TARGETS + 1]  Row
//   in      class_margins  [classes, 4]         f32
//   in      row_margins    [rows, 4]            f32
//   in      state          [4]                  f32; of a loss that reads it

@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read_write> soft: array<Row>;

@compute @workgroup_size(64)
fn soft_margins(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let at = unfold(id, groups) * 64u + lane;
    let row = at / (TARGETS + 1u);
    if (row >= settings.rows) { return; }
    var one = soft[at];
    if (at % (TARGETS + 1u) == 0u) {
        let row_weight = one.row_weight;
        one = rows[row];
        one.row_weight = row_weight;
    } else if (one.label != NO_CLASS) {
        one.margin_noise = rows[row].margin_noise;
        one = with_margin(one, row);
    }
    soft[at] = one;
}
